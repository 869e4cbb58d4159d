
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Snapshots: what a channel's latest is, from a key, where pub/sub can't know
 * it: of a cold channel, and after a gap.
 *
 *     SUBSCRIBE --> Redis confirms --> store confirms: owed --> GET
 *                                                                |
 *         a message that came meanwhile is as new: settled <-----+
 *         what is in the key, as a message of the channel  <-----+
 *         nothing, the same as the latest, no message: settled <-+
 *
 * A connection that has subscriptions takes no GET, so there is another one,
 * to the same Redis, open as long as the session of the feed lasts.  A channel
 * that was confirmed is asked for at once where there is room.  Else, and
 * when the connection was away, it is found by its flag in the zone: a sweep
 * over the table, begun with no GET in flight and asking for each once.
 */


#include <ngx_rt_pubsub.h>
#include <hiredis/hiredis.h>


#define NGX_RT_SNAPSHOT_WINDOW    256       /* GETs owed a reply */
#define NGX_RT_SNAPSHOT_STEPS     4096      /* entries looked at in one turn */
#define NGX_RT_SNAPSHOT_STEADY    1000      /* ms live: the back-off begins
                                               anew */
#define NGX_RT_SNAPSHOT_OUT_MAX   (256 * 1024)

/* of a command: verb, lengths, the longest name without prefix */
#define NGX_RT_SNAPSHOT_COMMAND   (64 + NGX_RT_CHANNEL_MAX)


/* the data of events: nginx' debug log reads ->fd of it as of an
 * ngx_connection_t, hence the order of the first four fields */

struct ngx_rt_snapshot_s {
    ngx_rt_feed_t                *feed;
    ngx_rt_view_t                *view;     /* of what is being stored */
    void                         *unused;
    ngx_socket_t                  fd;       /* always -1 */

    ngx_rt_redis_t                redis;
    ngx_event_t                   retry;    /* timer: connect again */
    ngx_event_t                   more;     /* posted: go on sweeping */
    ngx_uint_t                    attempt;
    ngx_uint_t                    inflight; /* GETs owed a reply */
    ngx_msec_t                    live;     /* since when, 0: it is not */
    uint32_t                      iter;     /* of the sweep */

    unsigned                      begun:1;
    unsigned                      due:1;    /* a sweep is, once this one is
                                               over and nothing in flight */
    unsigned                      sweeping:1;
    unsigned                      told:1;   /* that it is lost */
};


typedef struct {
    ngx_rt_redis_op_t             op;       /* the first: op is cast to this */
    ngx_rt_snapshot_t            *snapshot;
    uint32_t                      entry;
    uint32_t                      gen;
    ngx_str_t                     name;     /* without the prefix */
    u_char                        text[1];  /* with it */
} ngx_rt_snapshot_get_t;


static void ngx_rt_snapshot_open(ngx_event_t *ev);
static ngx_int_t ngx_rt_snapshot_ready(ngx_rt_redis_t *rd);
static void ngx_rt_snapshot_turn(ngx_rt_redis_t *rd);
static void ngx_rt_snapshot_closed(ngx_rt_redis_t *rd);
static void ngx_rt_snapshot_more(ngx_event_t *ev);
static ngx_uint_t ngx_rt_snapshot_full(ngx_rt_snapshot_t *s);
static ngx_int_t ngx_rt_snapshot_sweep(ngx_rt_snapshot_t *s);
static ngx_int_t ngx_rt_snapshot_send(ngx_rt_snapshot_t *s,
    const ngx_str_t *name, ngx_rt_view_t *view);
static ngx_int_t ngx_rt_snapshot_answered(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static ngx_int_t ngx_rt_snapshot_reply(ngx_rt_snapshot_t *s,
    ngx_rt_snapshot_get_t *get, redisReply *reply);
static ngx_uint_t ngx_rt_snapshot_of_key(redisReply *reply);
static ngx_int_t ngx_rt_snapshot_value(ngx_rt_snapshot_t *s,
    const ngx_str_t *name, redisReply *reply);
static ngx_int_t ngx_rt_snapshot_settle(ngx_rt_snapshot_t *s,
    ngx_rt_view_t *view, ngx_uint_t sure);


static const ngx_rt_redis_ops_t  ngx_rt_snapshot_ops = {
    ngx_rt_snapshot_ready,
    NULL,
    ngx_rt_snapshot_turn,
    NULL,
    ngx_rt_snapshot_closed,
    NULL
};


ngx_int_t
ngx_rt_snapshot_init(ngx_rt_feed_t *feed, ngx_pool_t *pool)
{
    ngx_rt_snapshot_t  *s;
    ngx_rt_hub_conf_t  *conf;

    conf = feed->hub->conf;

    if (!conf->snapshots) {
        return NGX_OK;
    }

    s = ngx_pcalloc(pool, sizeof(ngx_rt_snapshot_t));
    if (s == NULL) {
        return NGX_ERROR;
    }

    s->feed = feed;
    s->fd = (ngx_socket_t) -1;

    s->redis.data = s;
    s->redis.ops = &ngx_rt_snapshot_ops;
    s->redis.conf = conf;
    s->redis.out_max = NGX_RT_SNAPSHOT_OUT_MAX + conf->snapshot.len;
    s->redis.ping = 1;

    ngx_rt_redis_init(&s->redis, feed->hub->log);

    s->retry.data = s;
    s->retry.handler = ngx_rt_snapshot_open;
    s->retry.log = feed->hub->log;
    s->retry.cancelable = 1;

    s->more.data = s;
    s->more.handler = ngx_rt_snapshot_more;
    s->more.log = feed->hub->log;

    feed->snapshot = s;

    return NGX_OK;
}


void
ngx_rt_snapshot_begin(ngx_rt_feed_t *feed)
{
    ngx_rt_snapshot_t  *s;

    s = feed->snapshot;

    if (s == NULL) {
        return;
    }

    ngx_rt_snapshot_end(feed);

    s->begun = 1;
    s->due = 1;
    s->attempt = 0;

    ngx_rt_redis_follow(&s->redis, feed->redis);
}


void
ngx_rt_snapshot_end(ngx_rt_feed_t *feed)
{
    ngx_rt_snapshot_t  *s;

    s = feed->snapshot;

    if (s == NULL) {
        return;
    }

    s->begun = 0;
    s->sweeping = 0;
    s->live = 0;

    ngx_rt_redis_close(&s->redis);

    if (s->retry.timer_set) {
        ngx_del_timer(&s->retry);
    }

    if (s->more.posted) {
        ngx_delete_posted_event(&s->more);
    }
}


static void
ngx_rt_snapshot_open(ngx_event_t *ev)
{
    ngx_rt_snapshot_t  *s;

    s = ev->data;

    /* while begun, the feed's connection is READY */

    ngx_rt_redis_follow(&s->redis, s->feed->redis);
}


static ngx_int_t
ngx_rt_snapshot_ready(ngx_rt_redis_t *rd)
{
    ngx_rt_snapshot_t  *s;

    s = rd->data;

    s->live = ngx_max(ngx_current_msec, 1);

    return ngx_rt_snapshot_sweep(s);
}


static void
ngx_rt_snapshot_turn(ngx_rt_redis_t *rd)
{
    ngx_rt_snapshot_t  *s;

    s = rd->data;

    ngx_rt_pubsub_notify(s->feed);
}


/* what is owed is flagged in the zone, and asked for again */

static void
ngx_rt_snapshot_closed(ngx_rt_redis_t *rd)
{
    ngx_rt_snapshot_t  *s;
    ngx_rt_hub_conf_t  *conf;

    s = rd->data;
    conf = rd->conf;

    s->sweeping = 0;
    s->due = 1;

    if (s->live && ngx_current_msec - s->live >= NGX_RT_SNAPSHOT_STEADY) {
        s->attempt = 0;
    }

    s->live = 0;

    if (!s->begun) {
        return;
    }

    if (!s->told) {
        s->told = 1;

        ngx_log_error(NGX_LOG_ERR, s->feed->hub->log, 0,
                      "rt_hub \"%V\": no snapshots from Redis %V: %V",
                      &conf->name, ngx_rt_redis_server(rd), &rd->error);
    }

    ngx_rt_feeder_set_timer(&s->retry, ngx_rt_redis_delay(conf, &s->attempt));
}


void
ngx_rt_snapshot_ask(ngx_rt_feed_t *feed, const ngx_str_t *name)
{
    ngx_int_t           rc;
    ngx_rt_view_t       view;
    ngx_rt_snapshot_t  *s;

    s = feed->snapshot;

    if (s == NULL || !s->begun) {
        return;
    }

    if (s->due || s->sweeping || ngx_rt_snapshot_full(s)) {
        s->due = 1;
        return;
    }

    rc = ngx_rt_owed_look(feed->hub->store, feed->term, name, &view);

    if (rc != NGX_OK) {
        /* that the term is over, the feeder will find */
        return;
    }

    if (ngx_rt_snapshot_send(s, name, &view) != NGX_OK) {
        ngx_rt_redis_close(&s->redis);
        ngx_rt_snapshot_closed(&s->redis);
    }
}


/* 1: no room for another command, or not connected; an answer, or being
 * ready, goes on */

static ngx_uint_t
ngx_rt_snapshot_full(ngx_rt_snapshot_t *s)
{
    return s->inflight >= NGX_RT_SNAPSHOT_WINDOW
           || ngx_rt_redis_room(&s->redis)
              < s->redis.conf->snapshot.len + NGX_RT_SNAPSHOT_COMMAND;
}


static void
ngx_rt_snapshot_more(ngx_event_t *ev)
{
    ngx_rt_snapshot_t  *s;

    s = ev->data;

    if (ngx_rt_snapshot_sweep(s) != NGX_OK) {
        ngx_rt_redis_close(&s->redis);
        ngx_rt_snapshot_closed(&s->redis);
    }
}


/* NGX_OK, or NGX_ERROR: the connection is to be closed */

static ngx_int_t
ngx_rt_snapshot_sweep(ngx_rt_snapshot_t *s)
{
    ngx_int_t       rc;
    ngx_str_t       name;
    ngx_uint_t      steps;
    ngx_rt_feed_t  *feed;
    ngx_rt_view_t   view;
    u_char          buf[NGX_RT_CHANNEL_MAX];

    feed = s->feed;

    if (!s->sweeping) {

        if (!s->due || s->inflight) {
            return NGX_OK;
        }

        s->sweeping = 1;
        s->due = 0;
        s->iter = 0;
    }

    name.data = buf;
    steps = NGX_RT_SNAPSHOT_STEPS;

    while (!ngx_rt_snapshot_full(s)) {

        rc = ngx_rt_owed_next(feed->hub->store, feed->term, &s->iter, &steps,
                              &view, buf, &name.len);

        if (rc == NGX_OK) {

            if (ngx_rt_snapshot_send(s, &name, &view) != NGX_OK) {
                return NGX_ERROR;
            }

            continue;
        }

        if (rc == NGX_ABORT) {
            /* the feeder will find it, too */
            s->begun = 0;
            return NGX_OK;
        }

        if (rc == NGX_DONE) {
            s->sweeping = 0;

            if (!s->due || s->inflight) {
                return NGX_OK;
            }
        }

        ngx_post_event(&s->more, &ngx_posted_next_events);

        return NGX_OK;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_snapshot_send(ngx_rt_snapshot_t *s, const ngx_str_t *name,
    ngx_rt_view_t *view)
{
    ngx_str_t               args[2], *prefix;
    ngx_rt_snapshot_get_t  *get;

    prefix = &s->redis.conf->snapshot;

    get = ngx_alloc(sizeof(ngx_rt_snapshot_get_t) + prefix->len + name->len,
                    s->feed->hub->log);

    if (get == NULL) {
        ngx_rt_redis_error(&s->redis, "no memory", NULL);
        return NGX_ERROR;
    }

    get->op.handler = ngx_rt_snapshot_answered;
    get->snapshot = s;
    get->entry = view->entry;
    get->gen = view->gen;

    get->name.data = ngx_rt_redis_name(get->text, prefix, name);
    get->name.len = name->len;

    ngx_str_set(&args[0], "GET");
    args[1].data = get->text;
    args[1].len = prefix->len + name->len;

    if (ngx_rt_redis_send(&s->redis, &get->op, 2, args) != NGX_OK) {
        ngx_free(get);
        ngx_rt_redis_error(&s->redis, "no room for a command", NULL);
        return NGX_ERROR;
    }

    s->inflight++;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_snapshot_answered(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_int_t               rc;
    ngx_rt_snapshot_t      *s;
    ngx_rt_snapshot_get_t  *get;

    get = (ngx_rt_snapshot_get_t *) op;
    s = get->snapshot;

    s->inflight--;

    rc = reply ? ngx_rt_snapshot_reply(s, get, reply) : NGX_OK;

    ngx_free(get);

    if (reply == NULL) {
        return NGX_OK;
    }

    if (rc == NGX_ABORT) {
        s->begun = 0;
        ngx_rt_redis_error(rd, "the term is over", NULL);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    s->attempt = 0;

    if (s->told) {
        s->told = 0;

        ngx_log_error(NGX_LOG_NOTICE, s->feed->hub->log, 0,
                      "rt_hub \"%V\": snapshots again from Redis %V",
                      &rd->conf->name, ngx_rt_redis_server(rd));
    }

    return (s->inflight <= NGX_RT_SNAPSHOT_WINDOW / 2)
           ? ngx_rt_snapshot_sweep(s) : NGX_OK;
}


/* NGX_OK: the channel is settled, or somebody else's; else as in the feed */

static ngx_int_t
ngx_rt_snapshot_reply(ngx_rt_snapshot_t *s, ngx_rt_snapshot_get_t *get,
    redisReply *reply)
{
    ngx_int_t        rc;
    ngx_rt_view_t    view;
    ngx_rt_store_t  *st;

    st = s->feed->hub->store;

    if (!ngx_rt_snapshot_of_key(reply)) {
        ngx_rt_redis_error(&s->redis, "unexpected reply to GET", reply);
        return NGX_ERROR;
    }

    if (ngx_rt_store_view(st, get->entry, get->gen, &view) != NGX_OK
        || !view.confirmed || !ngx_rt_view_owed(&view))
    {
        /* evicted; or what came by pub/sub meanwhile is as new, or newer */
        return NGX_OK;
    }

    if (reply->type == REDIS_REPLY_NIL) {
        return ngx_rt_snapshot_settle(s, &view, 0);
    }

    s->view = &view;
    rc = ngx_rt_snapshot_value(s, &get->name, reply);
    s->view = NULL;

    if (rc == NGX_OK
        && ngx_rt_store_view(st, get->entry, get->gen, &view) == NGX_OK
        && ngx_rt_view_owed(&view))
    {
        /* dropped for what it is: there is nothing to wait for */
        return ngx_rt_snapshot_settle(s, &view, 0);
    }

    return rc;
}


/* 0: an error of all commands, not of this one's key */

static ngx_uint_t
ngx_rt_snapshot_of_key(redisReply *reply)
{
    switch (reply->type) {

    case REDIS_REPLY_NIL:
    case REDIS_REPLY_STRING:
        return 1;

    case REDIS_REPLY_ERROR:
        return ngx_strcmp(reply->str, NGX_RT_RESP_LARGE) == 0
               || ngx_strncmp(reply->str, "WRONGTYPE ", 10) == 0
               || ngx_strncmp(reply->str, "NOPERM ", 7) == 0;

    default:
        return 0;
    }
}


static ngx_int_t
ngx_rt_snapshot_value(ngx_rt_snapshot_t *s, const ngx_str_t *name,
    redisReply *reply)
{
    ngx_str_t   value, *error;

    if (reply->type == REDIS_REPLY_STRING) {
        value.data = (u_char *) reply->str;
        value.len = reply->len;

        return ngx_rt_pubsub_message(s->feed, name, &value,
                                     NGX_RT_BY_SNAPSHOT);
    }

    if (ngx_strcmp(reply->str, NGX_RT_RESP_LARGE) == 0) {
        ngx_str_null(&value);

        return ngx_rt_pubsub_message(s->feed, name, &value,
                                     NGX_RT_BY_SNAPSHOT);
    }

    ngx_rt_redis_error(&s->redis, NULL, reply);

    error = &s->redis.error;
    error->data[ngx_min(error->len, NGX_RT_REDIS_ERROR_LEN - 1)] = '\0';

    ngx_rt_pubsub_drop(s->feed, name, (char *) error->data,
                       NGX_RT_BY_SNAPSHOT);
    return NGX_OK;
}


ngx_int_t
ngx_rt_snapshot_take(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_rt_message_t *msg)
{
    u_char              digest[NGX_RT_DIGEST_LEN];
    ngx_int_t           rc;
    ngx_rt_view_t      *view;
    ngx_rt_snapshot_t  *s;

    s = feed->snapshot;
    view = s->view;

    if (view->msg_seq && msg->data.len <= feed->hub->conf->message_max) {

        ngx_rt_message_digest(name, msg, digest);

        if (ngx_memcmp(view->tag, digest, NGX_RT_DIGEST_LEN) == 0) {
            return ngx_rt_snapshot_settle(s, view, 1);
        }
    }

    rc = ngx_rt_pubsub_store(feed, name, msg, NGX_RT_BY_SNAPSHOT);

    return (rc == NGX_DECLINED) ? NGX_OK : rc;
}


static ngx_int_t
ngx_rt_snapshot_settle(ngx_rt_snapshot_t *s, ngx_rt_view_t *view,
    ngx_uint_t sure)
{
    s->feed->notify = 1;

    return ngx_rt_owed_settle(s->feed->hub->store, s->feed->term, view, sure);
}
