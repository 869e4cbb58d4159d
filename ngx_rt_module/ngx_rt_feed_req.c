
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Streams: what is asked of Redis over the feed's own connection.
 *
 *     READ     XRANGE key place + COUNT n
 *     ENTRY    XRANGE key id id COUNT 1
 *     VERIFY   MULTI, XINFO STREAM key, XRANGE key - place COUNT 1,
 *              XRANGE key place + COUNT n, EXEC
 *     COLD     MULTI, XINFO STREAM key, XREVRANGE key + - COUNT history, EXEC
 *
 * ENTRY is for one that a reply had no room for: alone, it comes whole or is
 * too large.
 */


#include <ngx_rt_stream.h>
#include <hiredis/hiredis.h>


#define NGX_RT_REQ_COUNT          128       /* entries in one reply */
#define NGX_RT_REQ_COLD_COUNT     1000      /* and of a cold stream, at most */
#define NGX_RT_REQ_LARGE          (64 * 1024)   /* bytes of a reply: fewer are
                                                   asked for at one time */
#define NGX_RT_REQ_LEAST          2

/* of one ask's commands, but three times the key */
#define NGX_RT_REQ_SIZE           512


static ngx_rt_stream_t *ngx_rt_req_next(ngx_rt_streams_t *ss);
static ngx_int_t ngx_rt_req_stream(ngx_rt_streams_t *ss, ngx_rt_stream_t *s);
static ngx_int_t ngx_rt_req_command(ngx_rt_req_t *ask, ngx_uint_t *op,
    ngx_uint_t argc, const ngx_str_t *args);
static ngx_int_t ngx_rt_req_queued(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply);
static ngx_int_t ngx_rt_req_answered(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static ngx_int_t ngx_rt_req_answer(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    ngx_rt_req_t *ask, redisReply *reply);
static redisReply *ngx_rt_req_error(redisReply *reply);
static size_t ngx_rt_req_bytes(redisReply *reply);


ngx_int_t
ngx_rt_req_send(ngx_rt_streams_t *ss)
{
    ngx_int_t         rc;
    ngx_rt_stream_t  *s;

    while (ss->asked < ss->window
           && ngx_rt_redis_room(ss->feed->redis)
              > NGX_RT_REQ_SIZE + 3 * (ss->feed->hub->conf->prefix.len
                                       + NGX_RT_CHANNEL_MAX))
    {
        s = ngx_rt_req_next(ss);

        if (s == NULL) {
            return NGX_OK;
        }

        rc = ngx_rt_req_stream(ss, s);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


/* in turn: neither do messages wait for newcomers, nor these for them */

static ngx_rt_stream_t *
ngx_rt_req_next(ngx_rt_streams_t *ss)
{
    ngx_queue_t  *woken, *queued, *q;

    woken = &ss->queues[NGX_RT_STREAM_WOKEN];
    queued = &ss->queues[NGX_RT_STREAM_QUEUED];

    q = (ss->turn++ & 1) ? queued : woken;

    if (ngx_queue_empty(q)) {
        q = (q == woken) ? queued : woken;

        if (ngx_queue_empty(q)) {
            return NULL;
        }
    }

    return ngx_queue_data(ngx_queue_head(q), ngx_rt_stream_t, queue);
}


static ngx_int_t
ngx_rt_req_stream(ngx_rt_streams_t *ss, ngx_rt_stream_t *s)
{
    u_char              *p;
    ngx_str_t            key, args[6];
    ngx_uint_t           n;
    ngx_rt_req_t        *ask;
    ngx_rt_hub_conf_t   *conf;
    u_char               text[2 * NGX_RT_CHANNEL_MAX], id[NGX_RT_SID_LEN],
                         count[NGX_INT_T_LEN];

    conf = ss->feed->hub->conf;

    ask = ss->free;
    ss->free = ask->next;
    ss->asked++;

    ask->stream = s;
    ask->kind = s->kind;
    ask->count = NGX_RT_REQ_COUNT;
    ask->denied = 0;

    s->ask = ask;
    s->kind = NGX_RT_REQ_NONE;
    s->state = NGX_RT_STREAM_ASKED;

    ngx_queue_remove(&s->queue);
    ngx_queue_insert_tail(&ss->queues[NGX_RT_STREAM_ASKED], &s->queue);

    p = ngx_rt_redis_name(text, &conf->prefix, &s->node.str);

    key.data = text;
    key.len = p + s->node.str.len - text;

    n = 0;

    if (ask->kind >= NGX_RT_REQ_VERIFY) {

        ngx_str_set(&args[0], "MULTI");

        if (ngx_rt_req_command(ask, &n, 1, args) != NGX_OK) {
            return NGX_ERROR;
        }

        ngx_str_set(&args[0], "XINFO");
        ngx_str_set(&args[1], "STREAM");
        args[2] = key;

        if (ngx_rt_req_command(ask, &n, 3, args) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ngx_str_set(&args[0], "XRANGE");
    args[1] = key;
    args[2].data = id;
    args[2].len = ngx_rt_sid_format(id, (ask->kind == NGX_RT_REQ_ENTRY)
                                        ? s->seen : s->tag) - id;
    ngx_str_set(&args[3], "+");
    ngx_str_set(&args[4], "COUNT");
    ngx_str_set(&args[5], "1");

    switch (ask->kind) {

    case NGX_RT_REQ_VERIFY:
        args[3] = args[2];
        ngx_str_set(&args[2], "-");

        if (ngx_rt_req_command(ask, &n, 6, args) != NGX_OK) {
            return NGX_ERROR;
        }

        args[2] = args[3];
        ngx_str_set(&args[3], "+");

        break;

    case NGX_RT_REQ_COLD:
        ngx_str_set(&args[0], "XREVRANGE");
        ngx_str_set(&args[2], "+");
        ngx_str_set(&args[3], "-");
        ask->count = s->back ? 1 : ngx_min(conf->history,
                                           NGX_RT_REQ_COLD_COUNT);
        break;

    case NGX_RT_REQ_ENTRY:
        args[3] = args[2];
        ask->count = 1;
        break;
    }

    args[5].data = count;
    args[5].len = ngx_sprintf(count, "%ui", ask->count) - count;

    if (ngx_rt_req_command(ask, &n, 6, args) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ask->kind >= NGX_RT_REQ_VERIFY) {

        ngx_str_set(&args[0], "EXEC");

        if (ngx_rt_req_command(ask, &n, 1, args) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ask->ops[n - 1].op.handler = ngx_rt_req_answered;

    return NGX_OK;
}


/* what was sent already is answered before an error closes the connection */

static ngx_int_t
ngx_rt_req_command(ngx_rt_req_t *ask, ngx_uint_t *op, ngx_uint_t argc,
    const ngx_str_t *args)
{
    ngx_rt_redis_t   *rd;
    ngx_rt_req_op_t  *o;

    rd = ask->streams->feed->redis;
    o = &ask->ops[(*op)++];

    o->ask = ask;
    o->op.handler = ngx_rt_req_queued;

    if (ngx_rt_redis_send(rd, &o->op, argc, args) == NGX_OK) {
        return NGX_OK;
    }

    ngx_rt_redis_error(rd, "no room for a command", NULL);

    return NGX_ERROR;
}


/* in MULTI, before EXEC */

static ngx_int_t
ngx_rt_req_queued(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_rt_req_t  *ask;

    if (reply == NULL || reply->type == REDIS_REPLY_STATUS) {
        return NGX_OK;
    }

    ask = ((ngx_rt_req_op_t *) op)->ask;

    if (ngx_rt_req_is_denial(reply)) {

        if (ask->denied || ask->stream == NULL) {
            return NGX_OK;
        }

        ask->denied = 1;

        return ngx_rt_stream_fail(ask->streams, ask->stream, reply);
    }

    return ngx_rt_req_wrong(ask->streams, reply);
}


static ngx_int_t
ngx_rt_req_answered(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    size_t             bytes;
    ngx_int_t          rc;
    ngx_rt_req_t      *ask;
    ngx_rt_stream_t   *s;
    ngx_rt_streams_t  *ss;

    ask = ((ngx_rt_req_op_t *) op)->ask;
    ss = ask->streams;
    s = ask->stream;

    ask->stream = NULL;
    ask->next = ss->free;
    ss->free = ask;
    ss->asked--;

    if (s) {
        s->ask = NULL;
    }

    if (reply == NULL) {
        return NGX_OK;
    }

    /* large messages: less of them on the way */

    bytes = ngx_rt_req_bytes(reply);
    ss->bytes += bytes;

    if (bytes > NGX_RT_REQ_LARGE) {
        ss->window = ngx_max(ss->window / 2, NGX_RT_REQ_LEAST);

    } else if (ss->window < NGX_RT_REQS) {
        ss->window++;
    }

    if (s) {
        rc = ngx_rt_req_answer(ss, s, ask, reply);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return ngx_rt_req_send(ss);
}


static ngx_int_t
ngx_rt_req_answer(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, ngx_rt_req_t *ask,
    redisReply *reply)
{
    redisReply  *error;

    if (ask->denied) {

        /* in MULTI: EXEC says nothing more */

        if (s->kind != NGX_RT_REQ_NONE) {
            ngx_rt_stream_ask(ss, s, s->kind);
        }

        return NGX_OK;
    }

    error = ngx_rt_req_error(reply);

    if (error) {
        return ngx_rt_req_is_denial(error) ? ngx_rt_stream_fail(ss, s, error)
                                           : ngx_rt_req_wrong(ss, error);
    }

    if (s->kind >= NGX_RT_REQ_VERIFY) {
        /* meanwhile its channel became another one */
        ngx_rt_stream_ask(ss, s, s->kind);
        return NGX_OK;
    }

    if (reply->type != REDIS_REPLY_ARRAY) {
        return ngx_rt_req_wrong(ss, reply);
    }

    switch (ask->kind) {

    case NGX_RT_REQ_READ:
        return ngx_rt_proof_read(ss, s, reply, ask->count);

    case NGX_RT_REQ_ENTRY:
        return ngx_rt_proof_entry(ss, s, reply);

    case NGX_RT_REQ_VERIFY:

        if (reply->elements == 3
            && reply->element[1]->type == REDIS_REPLY_ARRAY
            && reply->element[2]->type == REDIS_REPLY_ARRAY)
        {
            return ngx_rt_proof_verify(ss, s, reply, ask->count);
        }

        break;

    default: /* COLD */

        if (reply->elements == 2
            && reply->element[1]->type == REDIS_REPLY_ARRAY)
        {
            return ngx_rt_proof_cold(ss, s, reply);
        }
    }

    return ngx_rt_req_wrong(ss, reply);
}


/* the error that it is, or that is in an answer to EXEC; no key is none */

static redisReply *
ngx_rt_req_error(redisReply *reply)
{
    size_t       i;
    redisReply  *part;

    if (reply->type == REDIS_REPLY_ERROR) {
        return reply;
    }

    for (i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        part = reply->element[i];

        if (part->type == REDIS_REPLY_ERROR
            && ngx_strcmp(part->str, "ERR no such key") != 0)
        {
            return part;
        }
    }

    return NULL;
}


ngx_uint_t
ngx_rt_req_is_denial(redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ERROR) {
        return 0;
    }

    if (ngx_strncmp(reply->str, "WRONGTYPE ", sizeof("WRONGTYPE ") - 1) == 0) {
        return 1;
    }

    return ngx_strncmp(reply->str, "NOPERM ", sizeof("NOPERM ") - 1) == 0
           && ngx_strstr(reply->str, "key")
           && ngx_strstr(reply->str, "command") == NULL;
}


/* of its strings; arrays are at most NGX_RT_RESP_DEPTH deep */

static size_t
ngx_rt_req_bytes(redisReply *reply)
{
    size_t  i, n;

    if (reply->type == REDIS_REPLY_STRING) {
        return reply->len;
    }

    if (reply->type != REDIS_REPLY_ARRAY) {
        return 0;
    }

    n = 0;

    for (i = 0; i < reply->elements; i++) {
        n += ngx_rt_req_bytes(reply->element[i]);
    }

    return n;
}


ngx_int_t
ngx_rt_req_wrong(ngx_rt_streams_t *ss, redisReply *reply)
{
    ngx_rt_redis_error(ss->feed->redis, "unexpected reply about a stream",
                       reply);
    return NGX_ERROR;
}
