
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Streams: which ones the feeder follows, and where each stands.
 *
 *     want queue --> QUEUED --> ASKED --> IDLE --> WOKEN --> ASKED --> IDLE
 *                               |  ^       by a reader, or the sweep
 *                               v  |
 *                              FAILED    for as long as Redis says no
 *
 * A stream is known by its place, the id of the last entry that was stored.
 * It is in the zone too, and the same for whoever feeds: a reconnect, a crash
 * and a reload go on from it, and nothing is lost that Redis still has.
 *
 * What a stream was in an earlier session stays known (STALE), for what XINFO
 * counted then proves that nothing was trimmed away unread.
 */


#include <ngx_rt_stream.h>
#include <hiredis/hiredis.h>


#define NGX_RT_STREAM_PORTION     1024      /* channels in one turn */
#define NGX_RT_STREAM_PERIOD      10        /* s, of expiry, the whole table */
#define NGX_RT_STREAM_STAMP       2         /* s, how old a stamp may be of
                                               what is in use */
#define NGX_RT_STREAM_STEPS       1024      /* entries under one lock */
#define NGX_RT_STREAM_QUIET       5000      /* ms, then it is looked at */
#define NGX_RT_STREAM_SWEEP       200       /* such looks in a second, unless */
#define NGX_RT_STREAM_BYTES       (1024 * 1024)     /* so much came in it */
#define NGX_RT_STREAM_RETRY       30        /* s, at most */


static ngx_int_t ngx_rt_streams_init(ngx_rt_feed_t *feed, ngx_pool_t *pool);
static void ngx_rt_streams_exit(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_streams_begin(ngx_rt_feed_t *feed, uint64_t term);
static void ngx_rt_streams_end(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_streams_fill(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_streams_take(ngx_rt_streams_t *ss);
static ngx_int_t ngx_rt_streams_want(ngx_rt_streams_t *ss,
    const ngx_str_t *name, ngx_rt_place_t *place);
static void ngx_rt_streams_forget(ngx_rt_streams_t *ss);
static ngx_int_t ngx_rt_streams_tick(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_streams_expire(ngx_rt_streams_t *ss);
static void ngx_rt_streams_retry(ngx_rt_streams_t *ss);
static ngx_int_t ngx_rt_streams_sweep(ngx_rt_streams_t *ss);
static void ngx_rt_streams_notify(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_streams_push(ngx_rt_feed_t *feed,
    const ngx_rt_push_t *push);
static void ngx_rt_stream_state(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    ngx_uint_t state);


const u_char  ngx_rt_stream_zero[NGX_RT_TAG_LEN];


const ngx_rt_source_t  ngx_rt_source_stream = {
    ngx_rt_streams_init,
    ngx_rt_streams_exit,
    ngx_rt_streams_begin,
    NULL,
    NULL,
    ngx_rt_streams_end,
    ngx_rt_streams_fill,
    ngx_rt_streams_tick,
    ngx_rt_streams_notify,
    ngx_rt_streams_push,
    NULL
};


static ngx_int_t
ngx_rt_streams_init(ngx_rt_feed_t *feed, ngx_pool_t *pool)
{
    ngx_uint_t         i;
    ngx_rt_req_t      *ask;
    ngx_rt_streams_t  *ss;

    ss = ngx_pcalloc(pool, sizeof(ngx_rt_streams_t));
    if (ss == NULL) {
        return NGX_ERROR;
    }

    ss->asks = ngx_pcalloc(pool, NGX_RT_REQS * sizeof(ngx_rt_req_t));
    if (ss->asks == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_RT_REQS; i++) {
        ask = &ss->asks[i];
        ask->streams = ss;
        ask->next = ss->free;
        ss->free = ask;
    }

    for (i = 0; i < NGX_RT_STREAM_STATES; i++) {
        ngx_queue_init(&ss->queues[i]);
    }

    ngx_rbtree_init(&ss->tree, &ss->sentinel, ngx_str_rbtree_insert_value);

    ss->feed = feed;
    ss->entries.log = feed->hub->log;

    feed->data = ss;

    return NGX_OK;
}


static void
ngx_rt_streams_exit(ngx_rt_feed_t *feed)
{
    ngx_uint_t         i;
    ngx_rt_streams_t  *ss;

    ss = feed->data;

    ngx_rt_streams_end(feed);
    ngx_rt_streams_forget(ss);

    ngx_rt_entries_done(&ss->entries);

    if (ss->text) {
        ngx_free(ss->text);
        ss->text = NULL;
    }

    for (i = 0; i < NGX_RT_READERS; i++) {
        if (ss->readers[i]) {
            ngx_free(ss->readers[i]);
            ss->readers[i] = NULL;
        }
    }
}


static ngx_int_t
ngx_rt_streams_begin(ngx_rt_feed_t *feed, uint64_t term)
{
    ngx_rt_streams_t  *ss;

    ss = feed->data;

    feed->term = term;

    ss->window = NGX_RT_REQS;
    ss->limit = NGX_RT_READERS;
    ss->iter = 0;
    ss->bytes = 0;
    ss->warm = 0;
    ss->lost = 0;
    ss->deaf = 0;
    ss->uncounted = 0;

    if (ngx_rt_store_want_all(feed->hub->store, term, 0) == NGX_ABORT) {
        return NGX_ABORT;
    }

    return ngx_rt_streams_fill(feed);
}


/* all that was asked has been answered by NULL */

static void
ngx_rt_streams_end(ngx_rt_feed_t *feed)
{
    ngx_uint_t         i;
    ngx_queue_t       *q;
    ngx_rt_stream_t   *s;
    ngx_rt_streams_t  *ss;

    ss = feed->data;

    ngx_rt_reader_end(ss);

    for (i = NGX_RT_STREAM_STALE + 1; i < NGX_RT_STREAM_STATES; i++) {

        while (!ngx_queue_empty(&ss->queues[i])) {
            q = ngx_queue_head(&ss->queues[i]);
            s = ngx_queue_data(q, ngx_rt_stream_t, queue);

            s->kind = NGX_RT_REQ_NONE;
            s->live = 0;
            s->back = 0;
            ngx_memzero(s->seen, NGX_RT_TAG_LEN);

            ngx_rt_stream_state(ss, s, NGX_RT_STREAM_STALE);
        }
    }
}


static ngx_int_t
ngx_rt_streams_fill(ngx_rt_feed_t *feed)
{
    ngx_int_t          rc;
    ngx_rt_streams_t  *ss;

    ss = feed->data;

    if (ss->lost) {
        /* the reader has told why */
        return NGX_ERROR;
    }

    rc = ngx_rt_streams_take(ss);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_rt_req_send(ss);
}


/* from the zone's queue into ours */

static ngx_int_t
ngx_rt_streams_take(ngx_rt_streams_t *ss)
{
    u_char           buf[NGX_RT_CHANNEL_MAX];
    ngx_int_t        rc;
    ngx_str_t        name;
    ngx_uint_t       n;
    ngx_rt_feed_t   *feed;
    ngx_rt_place_t   place;

    feed = ss->feed;
    feed->more = 0;

    name.data = buf;

    for (n = 0; n < NGX_RT_STREAM_PORTION; n++) {

        rc = ngx_rt_store_want(feed->hub->store, feed->term, buf, &name.len,
                               &place);

        if (rc == NGX_DONE) {

            if (!ss->warm) {
                ss->warm = 1;
                ngx_rt_streams_forget(ss);
            }

            return NGX_OK;
        }

        if (rc == NGX_OK) {
            rc = ngx_rt_streams_want(ss, &name, &place);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    feed->more = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_streams_want(ngx_rt_streams_t *ss, const ngx_str_t *name,
    ngx_rt_place_t *place)
{
    ngx_rt_stream_t  *s;

    s = ngx_rt_stream_find(ss, name);

    if (s == NULL) {
        s = ngx_calloc(offsetof(ngx_rt_stream_t, name) + name->len,
                       ss->feed->hub->log);
        if (s == NULL) {
            ngx_rt_redis_error(ss->feed->redis, "no memory", NULL);
            return NGX_ERROR;
        }

        ngx_memcpy(s->name, name->data, name->len);

        s->node.str.data = s->name;
        s->node.str.len = name->len;
        s->node.node.key = ngx_murmur_hash2(s->name, name->len);

        ngx_rbtree_insert(&ss->tree, &s->node.node);
        ngx_queue_insert_tail(&ss->queues[NGX_RT_STREAM_STALE], &s->queue);
    }

    if (place->known && s->live) {
        /* it is followed, whoever asks */
        return NGX_OK;
    }

    s->live = 0;
    s->delay = 0;

    if (!place->known) {
        s->known = 0;
        s->counted = 0;
        ngx_rt_stream_ask(ss, s, NGX_RT_REQ_COLD);
        return NGX_OK;
    }

    if (!s->known || ngx_rt_sid_cmp(s->tag, place->tag) != 0) {

        ngx_memcpy(s->tag, place->tag, NGX_RT_TAG_LEN);
        s->known = 1;

        /* a stream that had nothing had nothing added either */

        s->counted = ngx_rt_stream_none(s->tag);
        s->added = 0;
    }

    ngx_rt_stream_ask(ss, s, NGX_RT_REQ_VERIFY);

    return NGX_OK;
}


/* what is not in the table any more */

static void
ngx_rt_streams_forget(ngx_rt_streams_t *ss)
{
    ngx_queue_t  *q, *stale;

    stale = &ss->queues[NGX_RT_STREAM_STALE];

    while (!ngx_queue_empty(stale)) {
        q = ngx_queue_head(stale);
        ngx_rt_stream_drop(ss, ngx_queue_data(q, ngx_rt_stream_t, queue));
    }
}


ngx_rt_stream_t *
ngx_rt_stream_find(ngx_rt_streams_t *ss, const ngx_str_t *name)
{
    return (ngx_rt_stream_t *)
               ngx_str_rbtree_lookup(&ss->tree, (ngx_str_t *) name,
                                     ngx_murmur_hash2(name->data, name->len));
}


static void
ngx_rt_stream_state(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    ngx_uint_t state)
{
    ngx_queue_remove(&s->queue);
    ngx_queue_insert_tail(&ss->queues[state], &s->queue);

    s->state = state;
}


void
ngx_rt_stream_ask(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, ngx_uint_t kind)
{
    s->kind = ngx_max(s->kind, kind);

    if (s->ask == NULL) {
        ngx_rt_stream_state(ss, s, (s->kind == NGX_RT_REQ_READ && s->woken)
                                   ? NGX_RT_STREAM_WOKEN
                                   : NGX_RT_STREAM_QUEUED);
    }
}


ngx_int_t
ngx_rt_stream_settle(ngx_rt_streams_t *ss, ngx_rt_stream_t *s)
{
    ngx_int_t       rc;
    ngx_rt_feed_t  *feed;

    feed = ss->feed;

    if (!s->live) {
        rc = ngx_rt_store_follow(feed->hub->store, feed->term, &s->node.str,
                                 s->tag, 0);

        if (rc == NGX_DECLINED) {
            ngx_rt_stream_drop(ss, s);
            return NGX_OK;
        }

        if (rc != NGX_OK) {
            return rc;
        }

        s->live = 1;
        s->known = 1;
        s->delay = 0;
        feed->notify = 1;
    }

    s->rounds = 0;
    s->checked = ngx_current_msec;

    ngx_rt_stream_state(ss, s, NGX_RT_STREAM_IDLE);

    if (s->reader) {
        ngx_rt_reader_settled(s);

    } else {
        ngx_rt_reader_join(ss, s);
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_stream_fail(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, redisReply *reply)
{
    ngx_int_t       rc;
    ngx_uint_t      n;
    ngx_rt_feed_t  *feed;

    feed = ss->feed;

    if (s->delay == 0 && ngx_rt_pubsub_may_log(&feed->refused, &n)) {
        ngx_rt_redis_error(feed->redis, NULL, reply);

        ngx_log_error(NGX_LOG_ERR, feed->hub->log, 0,
                      "rt_hub \"%V\": stream \"%V\" can't be read: %V "
                      "(%ui more)", &feed->hub->conf->name, &s->node.str,
                      &feed->redis->error, n);
    }

    ngx_rt_reader_leave(s);

    if (s->known) {
        rc = ngx_rt_store_unfollow(feed->hub->store, feed->term,
                                   &s->node.str);

        if (rc == NGX_DECLINED) {
            ngx_rt_stream_drop(ss, s);
            return NGX_OK;
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    s->live = 0;
    s->back = 0;
    s->rounds = 0;
    s->kind = NGX_RT_REQ_NONE;
    s->delay = ngx_max(ngx_min(2 * s->delay, NGX_RT_STREAM_RETRY), 1);
    s->checked = ngx_current_msec;
    ngx_memzero(s->seen, NGX_RT_TAG_LEN);

    ngx_rt_stream_state(ss, s, NGX_RT_STREAM_FAILED);

    return NGX_OK;
}


void
ngx_rt_stream_drop(ngx_rt_streams_t *ss, ngx_rt_stream_t *s)
{
    ngx_rt_reader_leave(s);

    if (s->ask) {
        s->ask->stream = NULL;
    }

    ngx_rbtree_delete(&ss->tree, &s->node.node);
    ngx_queue_remove(&s->queue);

    ngx_free(s);
}


static ngx_int_t
ngx_rt_streams_tick(ngx_rt_feed_t *feed)
{
    ngx_int_t          rc;
    ngx_rt_streams_t  *ss;

    ss = feed->data;

    rc = ngx_rt_streams_expire(ss);

    if (rc == NGX_OK) {
        ngx_rt_streams_retry(ss);
        rc = ngx_rt_streams_sweep(ss);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    ss->bytes = 0;

    ngx_rt_reader_tick(ss);

    return ngx_rt_streams_fill(feed);
}


static ngx_int_t
ngx_rt_streams_expire(ngx_rt_streams_t *ss)
{
    time_t            inactive, period;
    u_char            buf[NGX_RT_CHANNEL_MAX];
    ngx_int_t         rc;
    ngx_str_t         name;
    ngx_uint_t        left, steps;
    ngx_rt_feed_t    *feed;
    ngx_rt_store_t   *st;
    ngx_rt_stream_t  *s;

    feed = ss->feed;
    st = feed->hub->store;
    inactive = feed->hub->conf->inactive;
    name.data = buf;

    period = ngx_max(ngx_min(inactive, NGX_RT_STREAM_PERIOD), 1);
    left = __atomic_load_n(&st->sh->top, __ATOMIC_RELAXED) / period + 1;

    while (left) {

        steps = ngx_min(left, NGX_RT_STREAM_STEPS);
        left -= steps;

        rc = ngx_rt_store_expire(st, feed->term, &ss->iter, &steps,
                                 ngx_time(), inactive + NGX_RT_STREAM_STAMP,
                                 buf, &name.len);
        if (rc == NGX_DONE) {
            continue;
        }

        if (rc != NGX_OK) {
            return rc;
        }

        left += steps;
        feed->notify = 1;

        s = ngx_rt_stream_find(ss, &name);

        if (s) {
            ngx_rt_stream_drop(ss, s);
        }
    }

    return NGX_OK;
}


/* what Redis has refused, later each time */

static void
ngx_rt_streams_retry(ngx_rt_streams_t *ss)
{
    ngx_queue_t      *q, *failed;
    ngx_rt_stream_t  *s;

    failed = &ss->queues[NGX_RT_STREAM_FAILED];

    for (q = ngx_queue_head(failed); q != ngx_queue_sentinel(failed); ) {

        s = ngx_queue_data(q, ngx_rt_stream_t, queue);
        q = ngx_queue_next(q);

        if (ngx_current_msec - s->checked >= s->delay * 1000) {
            ngx_rt_stream_ask(ss, s, s->known ? NGX_RT_REQ_VERIFY
                                              : NGX_RT_REQ_COLD);
        }
    }
}


/*
 * A stream that was deleted, or went back, wakes nobody: those that are quiet
 * are looked at.  One that is not in the table any more is left.
 */

static ngx_int_t
ngx_rt_streams_sweep(ngx_rt_streams_t *ss)
{
    ngx_int_t         rc;
    ngx_uint_t        n;
    ngx_queue_t      *idle;
    ngx_rt_feed_t    *feed;
    ngx_rt_stream_t  *s;

    feed = ss->feed;
    idle = &ss->queues[NGX_RT_STREAM_IDLE];

    n = NGX_RT_STREAM_SWEEP;

    if (ss->bytes > NGX_RT_STREAM_BYTES) {
        n = n * NGX_RT_STREAM_BYTES / ss->bytes + 1;
    }

    while (n-- && !ngx_queue_empty(idle)) {
        s = ngx_queue_data(ngx_queue_head(idle), ngx_rt_stream_t, queue);

        if (ngx_current_msec - s->checked < NGX_RT_STREAM_QUIET) {
            break;
        }

        rc = ngx_rt_store_follow(feed->hub->store, feed->term, &s->node.str,
                                 s->tag, 0);

        if (rc == NGX_DECLINED) {
            ngx_rt_stream_drop(ss, s);
            continue;
        }

        if (rc != NGX_OK) {
            return rc;
        }

        ngx_rt_stream_ask(ss, s, (s->counted || ss->uncounted)
                                 ? NGX_RT_REQ_READ : NGX_RT_REQ_VERIFY);
    }

    return NGX_OK;
}


static void
ngx_rt_streams_notify(ngx_rt_feed_t *feed)
{
    ngx_rt_streams_t  *ss;

    ss = feed->data;

    if (feed->redis->state == NGX_RT_REDIS_READY) {
        ngx_rt_reader_turn(ss);
    }

    if (feed->notify) {
        feed->notify = 0;
        ngx_rt_hub_notify(feed->hub);
    }
}


/* nothing was subscribed */

static ngx_int_t
ngx_rt_streams_push(ngx_rt_feed_t *feed, const ngx_rt_push_t *push)
{
    ngx_rt_redis_error(feed->redis, "unexpected reply", NULL);

    return NGX_ERROR;
}
