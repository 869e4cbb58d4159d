
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Streams: who waits for news.  A reader is a connection that does nothing but
 *
 *     XREAD COUNT 1 BLOCK ms STREAMS key... id...
 *
 * over and over, as a wake-up: what came is read over the feed's own
 * connection (ngx_rt_feed_req.c), and payloads are passed over here as they
 * come.  When all members that have news are read to their end the reader
 * waits again, from their new ids.  So nothing can come unseen in between.
 *
 * A newcomer has to wait for the reader to wait anew: CLIENT UNBLOCK, over the
 * feed's connection, has it do so at once.
 *
 * A reader that is lost ends the session: all is connected anew and goes on
 * from the places.
 */


#include <ngx_rt_stream.h>
#include <hiredis/hiredis.h>


#define NGX_RT_READER_OUT         (64 * 1024 * 1024)
#define NGX_RT_READER_BULK        (2 * NGX_RT_CHANNEL_MAX)
#define NGX_RT_READER_BUDGET      (256 * 1024)
#define NGX_RT_READER_DEAF        1000      /* ms of BLOCK, at most, where a
                                               reader can't be unblocked */

/* bytes of one key and its id in XREAD: two lengths, CRLFs */
#define NGX_RT_READER_KEY                                                     \
    (sizeof("$255" CRLF CRLF "$41" CRLF CRLF) + NGX_RT_SID_LEN)


static ngx_rt_reader_t *ngx_rt_reader_choose(ngx_rt_streams_t *ss);
static ngx_rt_reader_t *ngx_rt_reader_make(ngx_rt_streams_t *ss);
static ngx_int_t ngx_rt_reader_ready(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_reader_greeted(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static void ngx_rt_reader_handled(ngx_rt_redis_t *rd);
static void ngx_rt_reader_closed(ngx_rt_redis_t *rd);
static ngx_uint_t ngx_rt_reader_spare(ngx_rt_reader_t *r);
static ngx_int_t ngx_rt_reader_block(ngx_rt_reader_t *r);
static u_char *ngx_rt_reader_text(u_char *p, const u_char *data, size_t len);
static ngx_int_t ngx_rt_reader_read(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply);
static void ngx_rt_reader_news(ngx_rt_reader_t *r, redisReply *key,
    redisReply *list);
static void ngx_rt_reader_wake(ngx_rt_reader_t *r, ngx_rt_stream_t *s);
static void ngx_rt_reader_wake_all(ngx_rt_reader_t *r);
static ngx_int_t ngx_rt_reader_kick(ngx_rt_reader_t *r);
static ngx_int_t ngx_rt_reader_kicked(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static void ngx_rt_reader_failed(ngx_rt_reader_t *r);
static void ngx_rt_reader_reset(ngx_rt_reader_t *r);


static const ngx_rt_redis_ops_t  ngx_rt_reader_ops = {
    ngx_rt_reader_ready,
    NULL,
    ngx_rt_reader_handled,
    NULL,
    ngx_rt_reader_closed,
    NULL
};


void
ngx_rt_reader_join(ngx_rt_streams_t *ss, ngx_rt_stream_t *s)
{
    ngx_rt_reader_t  *r;

    r = ngx_rt_reader_choose(ss);

    if (r == NULL) {
        ngx_rt_redis_error(ss->feed->redis, "no memory", NULL);
        ss->lost = 1;
        ngx_rt_feeder_again(ss->feed->feeder);
        return;
    }

    ngx_queue_insert_tail(&r->members, &s->member);

    s->reader = r;
    r->n++;
    r->fresh = 1;
}


/* the one with the fewest members, or one more */

static ngx_rt_reader_t *
ngx_rt_reader_choose(ngx_rt_streams_t *ss)
{
    ngx_uint_t        i;
    ngx_rt_reader_t  *r, *best;

    best = NULL;

    for (i = 0; i < ss->nreaders; i++) {
        r = ss->readers[i];

        if (best == NULL || r->n < best->n) {
            best = r;
        }
    }

    if (ss->nreaders < ss->limit
        && (best == NULL || best->n >= NGX_RT_READER_KEYS))
    {
        r = ngx_rt_reader_make(ss);

        if (r) {
            return r;
        }
    }

    return best;
}


static ngx_rt_reader_t *
ngx_rt_reader_make(ngx_rt_streams_t *ss)
{
    ngx_rt_reader_t  *r;

    r = ss->readers[ss->nreaders];

    if (r == NULL) {
        r = ngx_calloc(sizeof(ngx_rt_reader_t), ss->feed->hub->log);
        if (r == NULL) {
            return NULL;
        }

        r->streams = ss;
        r->redis.data = r;
        r->redis.ops = &ngx_rt_reader_ops;
        r->redis.conf = ss->feed->hub->conf;
        r->redis.out_max = NGX_RT_READER_OUT;

        ngx_queue_init(&r->members);
        ngx_rt_redis_init(&r->redis, ss->feed->hub->log);

        ss->readers[ss->nreaders] = r;
    }

    ss->nreaders++;

    return r;
}


void
ngx_rt_reader_leave(ngx_rt_stream_t *s)
{
    if (s->reader == NULL) {
        return;
    }

    ngx_rt_reader_settled(s);

    ngx_queue_remove(&s->member);

    s->reader->n--;
    s->reader = NULL;
}


void
ngx_rt_reader_settled(ngx_rt_stream_t *s)
{
    if (s->woken) {
        s->woken = 0;
        s->reader->busy--;
    }
}


/* each does what is next for it */

void
ngx_rt_reader_turn(ngx_rt_streams_t *ss)
{
    ngx_int_t         rc;
    ngx_uint_t        i;
    ngx_rt_reader_t  *r;

    for (i = 0; i < ss->nreaders && !ss->lost; i++) {
        r = ss->readers[i];
        rc = NGX_OK;

        if (r->redis.state == NGX_RT_REDIS_CLOSED && r->n) {
            ngx_rt_redis_follow(&r->redis, ss->feed->redis);
            continue;
        }

        if (!r->greeted || r->busy || r->n == 0) {
            continue;
        }

        if (!r->blocked && !r->wait) {
            rc = ngx_rt_reader_block(r);

        } else if (r->blocked && r->fresh && !r->kicked && !r->freed
                   && !ss->deaf && r->id)
        {
            rc = ngx_rt_reader_kick(r);
        }

        if (rc != NGX_OK) {
            ngx_rt_reader_failed(r);
        }
    }
}


static ngx_int_t
ngx_rt_reader_ready(ngx_rt_redis_t *rd)
{
    ngx_str_t         args[2];
    ngx_rt_reader_t  *r;

    r = rd->data;

    /* of what comes only names and ids are of use */

    rd->resp.bulk_max = NGX_RT_READER_BULK;
    ngx_rt_resp_bound(&rd->resp, 1024 * 1024, NGX_RT_READER_BUDGET);

    ngx_str_set(&args[0], "CLIENT");
    ngx_str_set(&args[1], "ID");

    r->asked.handler = ngx_rt_reader_greeted;

    if (ngx_rt_redis_send(rd, &r->asked, 2, args) != NGX_OK) {
        ngx_rt_redis_error(rd, "no memory", NULL);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_reader_greeted(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_rt_reader_t  *r;

    r = rd->data;

    if (reply == NULL) {
        return NGX_OK;
    }

    r->greeted = 1;
    r->id = (reply->type == REDIS_REPLY_INTEGER) ? reply->integer : 0;

    return NGX_OK;
}


/* what there is to do is the feeder's, in this turn of the event loop */

static void
ngx_rt_reader_handled(ngx_rt_redis_t *rd)
{
    ngx_rt_reader_t  *r;

    r = rd->data;

    ngx_rt_feeder_again(r->streams->feed->feeder);
}


static void
ngx_rt_reader_closed(ngx_rt_redis_t *rd)
{
    ngx_rt_reader_t  *r;

    r = rd->data;

    if (!r->greeted && ngx_rt_reader_spare(r)) {
        ngx_rt_feeder_again(r->streams->feed->feeder);
        return;
    }

    ngx_rt_reader_failed(r);
}


/*
 * Redis lets no more clients in than there are: they take what was meant for
 * this one.  1, or 0: there is none.
 */

static ngx_uint_t
ngx_rt_reader_spare(ngx_rt_reader_t *r)
{
    ngx_uint_t         i, n;
    ngx_queue_t       *q;
    ngx_rt_stream_t   *s;
    ngx_rt_streams_t  *ss;

    ss = r->streams;

    for (i = 0, n = 0; i < ss->nreaders; i++) {
        if (ss->readers[i]->greeted) {
            n++;
        }
    }

    if (n == 0) {
        return 0;
    }

    for (i = 0; ss->readers[i] != r; i++) { /* void */ }

    ss->nreaders--;

    if (ss->limit == NGX_RT_READERS) {
        ngx_log_error(NGX_LOG_WARN, ss->feed->hub->log, 0,
                      "rt_hub \"%V\": streams are read by at most %ui "
                      "connections, for no other could be made: %V",
                      &r->redis.conf->name, ss->nreaders, &r->redis.error);
    }

    ss->limit = ss->nreaders;

    ss->readers[i] = ss->readers[ss->nreaders];
    ss->readers[ss->nreaders] = r;

    while (!ngx_queue_empty(&r->members)) {
        q = ngx_queue_head(&r->members);
        s = ngx_queue_data(q, ngx_rt_stream_t, member);

        ngx_rt_reader_leave(s);
        ngx_rt_reader_join(ss, s);
    }

    ngx_rt_reader_reset(r);

    return 1;
}


static ngx_int_t
ngx_rt_reader_block(ngx_rt_reader_t *r)
{
    u_char             *p;
    size_t              size;
    ngx_int_t           rc;
    ngx_msec_t          block;
    ngx_queue_t        *q;
    ngx_rt_stream_t    *s;
    ngx_rt_streams_t   *ss;
    ngx_rt_hub_conf_t  *conf;
    u_char              id[NGX_RT_SID_LEN], name[2 * NGX_RT_CHANNEL_MAX];

    ss = r->streams;
    conf = ss->feed->hub->conf;

    size = 128 + r->n * (NGX_RT_READER_KEY + conf->prefix.len
                         + NGX_RT_CHANNEL_MAX);

    if (ss->text_size < size) {

        if (ss->text) {
            ngx_free(ss->text);
        }

        ss->text_size = 0;
        ss->text = ngx_alloc(2 * size, ss->feed->hub->log);

        if (ss->text == NULL) {
            ngx_rt_redis_error(&r->redis, "no memory", NULL);
            return NGX_ERROR;
        }

        ss->text_size = 2 * size;
    }

    /* an answer that comes by itself before one is missed */

    block = ngx_max(conf->reply_timeout / 2, 1);

    if (ss->deaf || r->id == 0) {
        block = ngx_min(block, NGX_RT_READER_DEAF);
    }

    p = ngx_sprintf(ss->text, "*%ui" CRLF "$5" CRLF "XREAD" CRLF
                    "$5" CRLF "COUNT" CRLF "$1" CRLF "1" CRLF
                    "$5" CRLF "BLOCK" CRLF, 6 + 2 * r->n);

    p = ngx_rt_reader_text(p, id, ngx_sprintf(id, "%M", block) - id);
    p = ngx_rt_reader_text(p, (u_char *) "STREAMS", sizeof("STREAMS") - 1);

    for (q = ngx_queue_head(&r->members);
         q != ngx_queue_sentinel(&r->members);
         q = ngx_queue_next(q))
    {
        s = ngx_queue_data(q, ngx_rt_stream_t, member);

        (void) ngx_rt_redis_name(name, &conf->prefix, &s->node.str);

        p = ngx_rt_reader_text(p, name, conf->prefix.len + s->node.str.len);
    }

    for (q = ngx_queue_head(&r->members);
         q != ngx_queue_sentinel(&r->members);
         q = ngx_queue_next(q))
    {
        s = ngx_queue_data(q, ngx_rt_stream_t, member);

        p = ngx_rt_reader_text(p, id, ngx_rt_sid_format(id, s->tag) - id);
    }

    r->read.handler = ngx_rt_reader_read;

    rc = ngx_rt_redis_write(&r->redis, &r->read, ss->text, p - ss->text);

    if (rc != NGX_OK) {
        ngx_rt_redis_error(&r->redis, "no room for a command", NULL);
        return NGX_ERROR;
    }

    r->blocked = 1;
    r->fresh = 0;
    r->reads++;

    return NGX_OK;
}


static u_char *
ngx_rt_reader_text(u_char *p, const u_char *data, size_t len)
{
    p = ngx_sprintf(p, "$%uz" CRLF, len);
    p = ngx_cpymem(p, data, len);

    *p++ = CR;
    *p++ = LF;

    return p;
}


/* keys, each with its first new entry; nil: there was nothing */

static ngx_int_t
ngx_rt_reader_read(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    size_t            i;
    redisReply       *part;
    ngx_rt_reader_t  *r;

    r = rd->data;

    if (reply == NULL) {
        return NGX_OK;
    }

    r->blocked = 0;
    r->freed = 0;

    if (ngx_rt_req_is_denial(reply)) {

        /* one key, and not said which */

        r->wait = (r->errors++ > 0);
        ngx_rt_reader_wake_all(r);

        return NGX_OK;
    }

    r->errors = 0;

    if (reply->type == REDIS_REPLY_NIL) {
        return NGX_OK;
    }

    if (reply->type != REDIS_REPLY_ARRAY) {
        ngx_rt_redis_error(rd, "unexpected reply to XREAD", reply);
        return NGX_ERROR;
    }

    for (i = 0; i < reply->elements; i++) {
        part = reply->element[i];

        if (part->type != REDIS_REPLY_ARRAY || part->elements != 2) {
            ngx_rt_redis_error(rd, "unexpected reply to XREAD", part);
            return NGX_ERROR;
        }

        ngx_rt_reader_news(r, part->element[0], part->element[1]);
    }

    return NGX_OK;
}


static void
ngx_rt_reader_news(ngx_rt_reader_t *r, redisReply *key, redisReply *list)
{
    u_char            id[NGX_RT_TAG_LEN];
    ngx_str_t         name, *prefix;
    redisReply       *entry;
    ngx_rt_stream_t  *s;

    prefix = &r->streams->feed->hub->conf->prefix;

    if (key->type != REDIS_REPLY_STRING || key->len < prefix->len) {
        /* so many that a name was passed over */
        ngx_rt_reader_wake_all(r);
        return;
    }

    name.data = (u_char *) key->str + prefix->len;
    name.len = key->len - prefix->len;

    s = ngx_rt_stream_find(r->streams, &name);

    if (s == NULL || s->reader != r) {
        /* it has left meanwhile */
        return;
    }

    if (list->type == REDIS_REPLY_ARRAY && list->elements) {
        entry = list->element[0];

        if (entry->type == REDIS_REPLY_ARRAY && entry->elements == 2
            && entry->element[0]->type == REDIS_REPLY_STRING
            && ngx_rt_sid_parse(id, (u_char *) entry->element[0]->str,
                                entry->element[0]->len)
               == NGX_OK
            && ngx_rt_sid_cmp(id, s->tag) > 0
            && ngx_rt_stream_none(s->seen))
        {
            ngx_memcpy(s->seen, id, NGX_RT_TAG_LEN);
        }
    }

    ngx_rt_reader_wake(r, s);
}


static void
ngx_rt_reader_wake(ngx_rt_reader_t *r, ngx_rt_stream_t *s)
{
    if (!s->woken) {
        s->woken = 1;
        r->busy++;
    }

    ngx_rt_stream_ask(r->streams, s, NGX_RT_REQ_READ);
}


static void
ngx_rt_reader_wake_all(ngx_rt_reader_t *r)
{
    ngx_queue_t  *q;

    for (q = ngx_queue_head(&r->members);
         q != ngx_queue_sentinel(&r->members);
         q = ngx_queue_next(q))
    {
        ngx_rt_reader_wake(r, ngx_queue_data(q, ngx_rt_stream_t, member));
    }
}


static ngx_int_t
ngx_rt_reader_kick(ngx_rt_reader_t *r)
{
    ngx_int_t   rc;
    ngx_str_t   args[3];
    u_char      id[NGX_INT64_LEN];

    ngx_str_set(&args[0], "CLIENT");
    ngx_str_set(&args[1], "UNBLOCK");
    args[2].data = id;
    args[2].len = ngx_sprintf(id, "%L", r->id) - id;

    r->kick.handler = ngx_rt_reader_kicked;

    rc = ngx_rt_redis_send(r->streams->feed->redis, &r->kick, 3, args);

    if (rc == NGX_OK) {
        r->kicked = 1;
        r->target = r->reads;
    }

    /* no room: in a later turn */

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


/* 0: it did not wait yet, or not any more; what it does now is done soon */

static ngx_int_t
ngx_rt_reader_kicked(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_rt_reader_t  *r;

    r = (ngx_rt_reader_t *) ((u_char *) op - offsetof(ngx_rt_reader_t, kick));

    r->kicked = 0;

    if (reply == NULL) {
        return NGX_OK;
    }

    if (reply->type == REDIS_REPLY_INTEGER) {
        r->freed = (reply->integer && r->blocked && r->target == r->reads);
        return NGX_OK;
    }

    r->streams->deaf = 1;

    return NGX_OK;
}


void
ngx_rt_reader_tick(ngx_rt_streams_t *ss)
{
    ngx_uint_t        i;
    ngx_rt_reader_t  *r;

    for (i = 0; i < ss->nreaders; i++) {
        r = ss->readers[i];
        r->wait = 0;

        if (r->n == 0 && r->redis.state == NGX_RT_REDIS_READY && !r->kicked) {
            ngx_rt_redis_close(&r->redis);
            ngx_rt_reader_reset(r);
        }
    }
}


static void
ngx_rt_reader_failed(ngx_rt_reader_t *r)
{
    ngx_rt_redis_t    *rd;
    ngx_rt_streams_t  *ss;

    ss = r->streams;

    if (ss->lost) {
        return;
    }

    rd = ss->feed->redis;

    ss->lost = 1;

    rd->refused = r->redis.refused;
    rd->error.data = rd->errbuf;
    rd->error.len = r->redis.error.len;
    ngx_memcpy(rd->errbuf, r->redis.error.data, r->redis.error.len);

    ngx_rt_feeder_again(ss->feed->feeder);
}


void
ngx_rt_reader_end(ngx_rt_streams_t *ss)
{
    ngx_uint_t        i;
    ngx_queue_t      *q;
    ngx_rt_reader_t  *r;

    for (i = 0; i < ss->nreaders; i++) {
        r = ss->readers[i];

        ngx_rt_redis_close(&r->redis);

        while (!ngx_queue_empty(&r->members)) {
            q = ngx_queue_head(&r->members);
            ngx_rt_reader_leave(ngx_queue_data(q, ngx_rt_stream_t, member));
        }

        ngx_rt_reader_reset(r);
    }

    ss->nreaders = 0;
}


static void
ngx_rt_reader_reset(ngx_rt_reader_t *r)
{
    r->id = 0;
    r->errors = 0;
    r->greeted = 0;
    r->blocked = 0;
    r->freed = 0;
    r->fresh = 0;
    r->wait = 0;
}
