
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Plain pub/sub: which channels the feeder subscribes by name.
 *
 *     want queue --> SUBSCRIBE --> Redis confirms --> store confirms
 *                \-> covered by a pattern ---------/
 *
 * A channel covered by a `subscribe` pattern is not subscribed by name, for
 * Redis would deliver twice.  Patterns go first; nothing is taken from the
 * want queue before Redis has answered for all of them.
 *
 * Each channel has a SUBSCRIBE of its own: where an ACL denies one channel,
 * Redis refuses the whole command.
 */


#include <ngx_rt_pubsub.h>
#include <hiredis/hiredis.h>


#define NGX_RT_FEED_WINDOW        1024      /* commands owed a reply */
#define NGX_RT_FEED_PORTION       1024      /* channels in one turn */
#define NGX_RT_FEED_DENIED        1000      /* channels asked for again */
#define NGX_RT_FEED_RETRY         30        /* s, when */
#define NGX_RT_FEED_SWEEP         10        /* s, for the whole table */
#define NGX_RT_FEED_STAMP         2         /* s, how old a stamp may be of
                                               what is in use */
#define NGX_RT_FEED_STEPS         1024      /* entries under one lock */

/* of a command: verb, lengths, the longest name without prefix */
#define NGX_RT_FEED_COMMAND       (64 + NGX_RT_CHANNEL_MAX)


static ngx_int_t ngx_rt_pubsub_listening(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static ngx_int_t ngx_rt_pubsub_walk(ngx_rt_feed_t *feed);
static ngx_uint_t ngx_rt_pubsub_full(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_pubsub_send(ngx_rt_feed_sub_t *sub,
    ngx_uint_t subscribe);
static ngx_int_t ngx_rt_pubsub_subscribe(ngx_rt_feed_t *feed,
    const ngx_str_t *name);
static ngx_int_t ngx_rt_pubsub_subscribed(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static ngx_int_t ngx_rt_pubsub_unsubscribed(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static void ngx_rt_pubsub_denied(ngx_rt_feed_sub_t *sub, redisReply *reply);
static ngx_int_t ngx_rt_pubsub_retry(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_pubsub_expire(ngx_rt_feed_t *feed);
static ngx_uint_t ngx_rt_pubsub_forget(ngx_rt_feed_t *feed,
    const ngx_str_t *name);


const ngx_rt_source_t  ngx_rt_source_pubsub = {
    ngx_rt_pubsub_init,
    ngx_rt_pubsub_exit,
    ngx_rt_pubsub_begin,
    ngx_rt_pubsub_inherit,
    ngx_rt_pubsub_listen,
    ngx_rt_pubsub_end,
    ngx_rt_pubsub_fill,
    ngx_rt_pubsub_tick,
    ngx_rt_pubsub_notify,
    ngx_rt_pubsub_push,
    ngx_rt_pubsub_flush
};


void
ngx_rt_pubsub_exit(ngx_rt_feed_t *feed)
{
    ngx_rt_pubsub_end(feed);

    if (feed->scratch) {
        ngx_free(feed->scratch);
        feed->scratch = NULL;
    }

    if (feed->batch) {
        ngx_free(feed->batch);
        feed->batch = NULL;
    }
}


ngx_int_t
ngx_rt_pubsub_begin(ngx_rt_feed_t *feed, uint64_t term)
{
    feed->term = term;
    feed->inflight = 0;
    feed->age = 0;
    feed->warm = 0;
    feed->iter = 0;

    if (feed->heir) {
        if (ngx_rt_pubsub_listen(feed) != NGX_OK) {
            return NGX_ERROR;
        }

    } else {

        if (ngx_rt_store_want_all(feed->hub->store, term, 0) == NGX_ABORT) {
            return NGX_ABORT;
        }

        ngx_rt_snapshot_begin(feed);
    }

    return ngx_rt_pubsub_patterns(feed);
}


/* as the feeder goes on with what it has subscribed as the heir */

ngx_int_t
ngx_rt_pubsub_inherit(ngx_rt_feed_t *feed, uint64_t term)
{
    feed->term = term;
    feed->iter = 0;
    feed->heir = 0;
    feed->frozen = 0;

    /* what the old feeder had asked for without an answer */

    if (ngx_rt_store_want_all(feed->hub->store, term, 1) == NGX_ABORT) {
        return NGX_ABORT;
    }

    if (ngx_rt_pubsub_unsubscribe(feed, &feed->marker) == NGX_ERROR) {
        return NGX_ERROR;
    }

    ngx_rt_snapshot_begin(feed);

    return ngx_rt_pubsub_fill(feed);
}


/* subscribes the marker's channel; the answer goes to the hand-over */

ngx_int_t
ngx_rt_pubsub_listen(ngx_rt_feed_t *feed)
{
    ngx_int_t           rc;
    ngx_str_t           args[2];
    ngx_rt_feed_sub_t  *sub;

    sub = ngx_rt_pubsub_sub(feed, &feed->marker);
    if (sub == NULL) {
        return NGX_ERROR;
    }

    sub->op.handler = ngx_rt_pubsub_listening;

    ngx_str_set(&args[0], "SUBSCRIBE");
    args[1].data = sub->text;
    args[1].len = feed->hub->conf->prefix.len + sub->name.len;

    rc = ngx_rt_redis_send(feed->redis, &sub->op, 2, args);

    if (rc != NGX_OK) {
        ngx_free(sub);
        ngx_rt_redis_error(feed->redis, "no room for a command", NULL);
        return NGX_ERROR;
    }

    feed->inflight++;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_pubsub_listening(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_uint_t          denied;
    ngx_rt_feed_t      *feed;
    ngx_rt_feed_sub_t  *sub;

    sub = (ngx_rt_feed_sub_t *) op;
    feed = sub->feed;

    ngx_free(sub);

    if (reply == NULL) {
        return NGX_OK;
    }

    feed->inflight--;

    denied = !ngx_rt_pubsub_is(reply, "subscribe");

    if (denied && reply->type != REDIS_REPLY_ERROR) {
        ngx_rt_redis_error(rd, "unexpected reply to SUBSCRIBE", reply);
        return NGX_ERROR;
    }

    ngx_rt_handover_listening(feed, denied);

    return feed->heir ? ngx_rt_pubsub_fill(feed) : NGX_OK;
}


void
ngx_rt_pubsub_end(ngx_rt_feed_t *feed)
{
    ngx_uint_t          i;
    ngx_queue_t        *q;
    ngx_rt_feed_sub_t  *sub;

    ngx_rt_snapshot_end(feed);
    ngx_rt_names_forget(feed);

    if (feed->batch) {
        feed->batch->n = 0;
        feed->batch->nposts = 0;
    }

    for (i = 0; i < feed->npatterns; i++) {
        feed->patterns[i].live = 0;
    }

    while (!ngx_queue_empty(&feed->denied)) {
        q = ngx_queue_head(&feed->denied);
        ngx_queue_remove(q);

        sub = ngx_queue_data(q, ngx_rt_feed_sub_t, op.queue);
        ngx_free(sub);
    }

    feed->ndenied = 0;
    feed->inflight = 0;
    feed->unanswered = 0;
}


ngx_int_t
ngx_rt_pubsub_fill(ngx_rt_feed_t *feed)
{
    u_char      buf[NGX_RT_CHANNEL_MAX];
    ngx_int_t   rc;
    ngx_str_t   name;
    ngx_uint_t  n;

    if (feed->unanswered) {
        return NGX_OK;
    }

    feed->more = 0;

    if (feed->heir) {
        return ngx_rt_pubsub_walk(feed);
    }

    if (feed->frozen) {
        /* that is the heir's */
        return NGX_OK;
    }

    name.data = buf;

    for (n = 0; n < NGX_RT_FEED_PORTION; n++) {

        if (ngx_rt_pubsub_full(feed)) {
            return NGX_OK;
        }

        rc = ngx_rt_store_want(feed->hub->store, feed->term, buf, &name.len,
                               NULL);

        if (rc == NGX_DONE) {
            feed->warm = 1;
            return NGX_OK;
        }

        if (rc == NGX_ABORT) {
            return NGX_ABORT;
        }

        if (ngx_rt_pubsub_covered(feed, &name)) {
            rc = ngx_rt_pubsub_confirm(feed, &name);

            if (rc == NGX_OK) {
                ngx_rt_snapshot_ask(feed, &name);
            }

        } else {
            rc = ngx_rt_pubsub_subscribe(feed, &name);
        }

        if (rc == NGX_ABORT || rc == NGX_ERROR) {
            return rc;
        }
    }

    feed->more = 1;

    return NGX_OK;
}


/* the heir subscribes what is in the table; new channels wait in the queue */

static ngx_int_t
ngx_rt_pubsub_walk(ngx_rt_feed_t *feed)
{
    u_char      buf[NGX_RT_CHANNEL_MAX];
    ngx_str_t   name;
    ngx_uint_t  n;

    name.data = buf;

    for (n = 0; n < NGX_RT_FEED_PORTION; n++) {

        if (ngx_rt_pubsub_full(feed)) {
            return NGX_OK;
        }

        if (ngx_rt_store_walk(feed->hub->store, &feed->iter, buf, &name.len)
            == NGX_DONE)
        {
            if (feed->inflight == 0) {
                ngx_rt_handover_walked(feed);
            }

            return NGX_OK;
        }

        if (ngx_rt_pubsub_covered(feed, &name) == NULL
            && ngx_rt_pubsub_subscribe(feed, &name) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    feed->more = 1;

    return NGX_OK;
}


/* 1: no room for another command, an answer will call again */

static ngx_uint_t
ngx_rt_pubsub_full(ngx_rt_feed_t *feed)
{
    return feed->inflight >= NGX_RT_FEED_WINDOW
           || ngx_rt_redis_room(feed->redis)
              < feed->hub->conf->prefix.len + NGX_RT_FEED_COMMAND;
}


ngx_rt_feed_sub_t *
ngx_rt_pubsub_sub(ngx_rt_feed_t *feed, const ngx_str_t *name)
{
    u_char             *p;
    ngx_str_t          *prefix;
    ngx_rt_feed_sub_t  *sub;

    prefix = &feed->hub->conf->prefix;

    sub = ngx_alloc(sizeof(ngx_rt_feed_sub_t) + prefix->len + name->len,
                    feed->hub->log);

    if (sub == NULL) {
        ngx_rt_redis_error(feed->redis, "no memory", NULL);
        return NULL;
    }

    sub->feed = feed;
    sub->pattern = NULL;

    p = ngx_rt_redis_name(sub->text, prefix, name);

    sub->name.data = p;
    sub->name.len = name->len;

    return sub;
}


/* frees the sub unless NGX_OK */

static ngx_int_t
ngx_rt_pubsub_send(ngx_rt_feed_sub_t *sub, ngx_uint_t subscribe)
{
    ngx_int_t       rc;
    ngx_str_t       args[2];
    ngx_rt_feed_t  *feed;

    feed = sub->feed;

    if (subscribe) {
        ngx_str_set(&args[0], "SUBSCRIBE");
        sub->op.handler = ngx_rt_pubsub_subscribed;

    } else {
        ngx_str_set(&args[0], "UNSUBSCRIBE");
        sub->op.handler = ngx_rt_pubsub_unsubscribed;
    }

    args[1].data = sub->text;
    args[1].len = feed->hub->conf->prefix.len + sub->name.len;

    rc = ngx_rt_redis_send(feed->redis, &sub->op, 2, args);

    if (rc == NGX_OK) {
        feed->inflight++;
        return NGX_OK;
    }

    ngx_free(sub);

    if (rc == NGX_ERROR) {
        ngx_rt_redis_error(feed->redis, "no memory", NULL);
    }

    return rc;
}


/* the caller has seen to it that there is room */

static ngx_int_t
ngx_rt_pubsub_subscribe(ngx_rt_feed_t *feed, const ngx_str_t *name)
{
    ngx_rt_feed_sub_t  *sub;

    sub = ngx_rt_pubsub_sub(feed, name);
    if (sub == NULL) {
        return NGX_ERROR;
    }

    if (ngx_rt_pubsub_send(sub, 1) != NGX_OK) {
        ngx_rt_redis_error(feed->redis, "no room for a command", NULL);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_pubsub_subscribed(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_int_t           rc;
    ngx_rt_feed_t      *feed;
    ngx_rt_feed_sub_t  *sub;

    sub = (ngx_rt_feed_sub_t *) op;
    feed = sub->feed;

    if (reply == NULL) {
        ngx_free(sub);
        return NGX_OK;
    }

    feed->inflight--;

    if (ngx_rt_pubsub_is(reply, "subscribe")) {

        rc = feed->heir ? NGX_OK : ngx_rt_pubsub_confirm(feed, &sub->name);

        if (rc == NGX_DECLINED) {
            /* it left the table meanwhile */
            rc = ngx_rt_pubsub_unsubscribe(feed, &sub->name);

        } else if (rc == NGX_OK && !feed->heir) {
            ngx_rt_snapshot_ask(feed, &sub->name);
        }

        ngx_free(sub);

    } else if (ngx_rt_pubsub_is_denial(reply)) {
        ngx_rt_pubsub_denied(sub, reply);
        rc = NGX_OK;

    } else {
        ngx_free(sub);
        ngx_rt_redis_error(rd, "unexpected reply to SUBSCRIBE", reply);
        return NGX_ERROR;
    }

    if (rc == NGX_OK && feed->inflight <= NGX_RT_FEED_WINDOW / 2) {
        rc = ngx_rt_pubsub_fill(feed);
    }

    return rc;
}


/* nothing when there is no room: a message will remind us */

ngx_int_t
ngx_rt_pubsub_unsubscribe(ngx_rt_feed_t *feed, const ngx_str_t *name)
{
    ngx_int_t           rc;
    ngx_rt_feed_sub_t  *sub;

    if (feed->inflight >= 2 * NGX_RT_FEED_WINDOW) {
        return NGX_OK;
    }

    sub = ngx_rt_pubsub_sub(feed, name);
    if (sub == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_rt_pubsub_send(sub, 0);

    return (rc == NGX_DECLINED) ? NGX_OK : rc;
}


static ngx_int_t
ngx_rt_pubsub_unsubscribed(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_rt_feed_t      *feed;
    ngx_rt_feed_sub_t  *sub;

    sub = (ngx_rt_feed_sub_t *) op;
    feed = sub->feed;

    ngx_free(sub);

    if (reply == NULL) {
        return NGX_OK;
    }

    feed->inflight--;

    if (ngx_rt_pubsub_is(reply, "unsubscribe")
        || ngx_rt_pubsub_is_denial(reply))
    {
        return NGX_OK;
    }

    ngx_rt_redis_error(rd, "unexpected reply to UNSUBSCRIBE", reply);

    return NGX_ERROR;
}


ngx_uint_t
ngx_rt_pubsub_is(redisReply *reply, const char *kind)
{
    return reply->type == REDIS_REPLY_ARRAY
           && reply->elements == 3
           && reply->element[0]->type == REDIS_REPLY_STRING
           && ngx_strcmp(reply->element[0]->str, kind) == 0;
}


ngx_uint_t
ngx_rt_pubsub_is_denial(redisReply *reply)
{
    return reply->type == REDIS_REPLY_ERROR
           && ngx_strncmp(reply->str, "NOPERM ", sizeof("NOPERM ") - 1) == 0
           && ngx_strstr(reply->str, "channel")
           && ngx_strstr(reply->str, "command") == NULL;
}


static void
ngx_rt_pubsub_denied(ngx_rt_feed_sub_t *sub, redisReply *reply)
{
    ngx_uint_t      n;
    ngx_rt_feed_t  *feed;

    feed = sub->feed;

    if (ngx_rt_pubsub_may_log(&feed->refused, &n)) {
        ngx_rt_redis_error(feed->redis, NULL, reply);

        ngx_log_error(NGX_LOG_ERR, feed->hub->log, 0,
                      "rt_hub \"%V\": channel \"%V\" denied: %V (%ui more)",
                      &feed->hub->conf->name, &sub->name, &feed->redis->error,
                      n);
    }

    if (feed->ndenied >= NGX_RT_FEED_DENIED) {
        ngx_free(sub);
        return;
    }

    ngx_queue_insert_tail(&feed->denied, &sub->op.queue);
    feed->ndenied++;
}


static ngx_int_t
ngx_rt_pubsub_retry(ngx_rt_feed_t *feed)
{
    ngx_int_t           rc;
    ngx_uint_t          n;
    ngx_queue_t        *q;
    ngx_rt_feed_sub_t  *sub;

    for (n = feed->ndenied; n; n--) {

        if (ngx_rt_redis_room(feed->redis)
            < feed->hub->conf->prefix.len + NGX_RT_FEED_COMMAND)
        {
            return NGX_OK;
        }

        q = ngx_queue_head(&feed->denied);
        ngx_queue_remove(q);
        feed->ndenied--;

        sub = ngx_queue_data(q, ngx_rt_feed_sub_t, op.queue);

        rc = ngx_rt_pubsub_send(sub, 1);

        if (rc != NGX_OK) {
            return (rc == NGX_DECLINED) ? NGX_OK : rc;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_pubsub_confirm(ngx_rt_feed_t *feed, const ngx_str_t *name)
{
    ngx_int_t  rc;

    rc = ngx_rt_store_confirm(feed->hub->store, feed->term, name);

    if (rc == NGX_OK) {
        feed->notify = 1;
    }

    return rc;
}


ngx_int_t
ngx_rt_pubsub_tick(ngx_rt_feed_t *feed)
{
    ngx_int_t  rc;

    if (feed->unanswered || feed->heir || feed->frozen) {
        return NGX_OK;
    }

    if (++feed->age % NGX_RT_FEED_RETRY == 0) {
        rc = ngx_rt_pubsub_retry(feed);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    rc = ngx_rt_pubsub_expire(feed);

    return (rc == NGX_OK) ? ngx_rt_pubsub_fill(feed) : rc;
}


static ngx_int_t
ngx_rt_pubsub_expire(ngx_rt_feed_t *feed)
{
    time_t              inactive, period;
    u_char              buf[NGX_RT_CHANNEL_MAX];
    ngx_int_t           rc;
    ngx_str_t           name;
    ngx_uint_t          left, steps;
    ngx_rt_store_t     *st;

    st = feed->hub->store;
    inactive = feed->hub->conf->inactive;
    name.data = buf;

    period = ngx_max(ngx_min(inactive, NGX_RT_FEED_SWEEP), 1);
    left = __atomic_load_n(&st->sh->top, __ATOMIC_RELAXED) / period + 1;

    while (left) {

        if (ngx_rt_redis_room(feed->redis)
            < feed->hub->conf->prefix.len + NGX_RT_FEED_COMMAND)
        {
            return NGX_OK;
        }

        steps = ngx_min(left, NGX_RT_FEED_STEPS);
        left -= steps;

        rc = ngx_rt_store_expire(st, feed->term, &feed->iter, &steps,
                                 ngx_time(), inactive + NGX_RT_FEED_STAMP,
                                 buf, &name.len);
        if (rc == NGX_DONE) {
            continue;
        }

        if (rc == NGX_ABORT) {
            return NGX_ABORT;
        }

        left += steps;
        feed->notify = 1;

        if (ngx_rt_pubsub_forget(feed, &name)
            || ngx_rt_pubsub_covered(feed, &name))
        {
            continue;
        }

        rc = ngx_rt_pubsub_unsubscribe(feed, &name);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


/* 1: it was denied, so there is no subscription to end */

static ngx_uint_t
ngx_rt_pubsub_forget(ngx_rt_feed_t *feed, const ngx_str_t *name)
{
    ngx_queue_t        *q;
    ngx_rt_feed_sub_t  *sub;

    for (q = ngx_queue_head(&feed->denied);
         q != ngx_queue_sentinel(&feed->denied);
         q = ngx_queue_next(q))
    {
        sub = ngx_queue_data(q, ngx_rt_feed_sub_t, op.queue);

        if (sub->name.len == name->len
            && ngx_memcmp(sub->name.data, name->data, name->len) == 0)
        {
            ngx_queue_remove(q);
            ngx_free(sub);
            feed->ndenied--;
            return 1;
        }
    }

    return 0;
}


void
ngx_rt_pubsub_notify(ngx_rt_feed_t *feed)
{
    if (feed->notify) {
        feed->notify = 0;
        ngx_rt_hub_notify(feed->hub);
    }
}
