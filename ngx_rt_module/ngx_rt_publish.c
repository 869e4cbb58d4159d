
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * How a worker publishes to Redis: over a connection of its own, opened with
 * the first publish and closed when idle.  What is published is written as
 * it comes, without waiting for answers, which come in the same order.
 *
 *     send -> waiting -> written, owed an answer -> handler
 *         \-> refused ----------------------------/
 *
 * Whatever else a worker has to ask of Redis takes the same way.
 *
 * Nothing waits long: where Redis is known to be away a publish is refused
 * in the same turn, and what waits is bounded in number and bytes.
 */


#include <ngx_rt_source.h>
#include <hiredis/hiredis.h>


#define NGX_RT_PUBLISHER_MAX      4096      /* publishes on their way */
#define NGX_RT_PUBLISHER_BYTES    (1024 * 1024)     /* of them, and some
                                               messages of the largest size */
#define NGX_RT_PUBLISHER_IDLE     60000     /* ms */


/* of one publish, or of what is asked, until it is answered */

typedef struct {
    ngx_rt_redis_op_t             op;       /* the first: op is cast to this */
    ngx_rt_publisher_t           *pb;
    ngx_rt_publish_t             *pub;      /* NULL: cancelled */
    ngx_rt_errand_t              *errand;   /* NULL: a publish */
    ngx_int_t                     rc;       /* refused */
    const char                   *error;
    u_char                       *cmd;      /* until it is written */
    size_t                        len;
} ngx_rt_publish_op_t;


/*
 * The data of timers: nginx' debug log reads ->fd of it as of an
 * ngx_connection_t, hence the order of the first four fields.
 */

struct ngx_rt_publisher_s {
    ngx_rt_hub_t                 *hub;
    void                         *spare[2];
    ngx_socket_t                  fd;       /* always -1 */

    ngx_rt_redis_t                redis;
    ngx_queue_t                   waiting;  /* ngx_rt_publish_op_t */
    ngx_queue_t                   refused;
    ngx_uint_t                    n;        /* not answered */
    size_t                        bytes;    /* of these */
    size_t                        bytes_max;
    ngx_event_t                   posted;
    ngx_event_t                   idle;     /* timer */
    unsigned                      told:1;   /* in the log: it does not work */
    unsigned                      quitting:1;
    unsigned                      exiting:1;
};


static ngx_int_t ngx_rt_publish_command(ngx_rt_publisher_t *pb,
    ngx_rt_publish_op_t *po, const ngx_str_t *channel, const ngx_str_t *event,
    const ngx_str_t *data);
static ssize_t ngx_rt_publish_format(ngx_rt_publisher_t *pb,
    ngx_rt_publish_op_t *po, ngx_str_t *key, const ngx_str_t *event,
    const ngx_str_t *payload);
static ngx_int_t ngx_rt_publish_envelope(ngx_rt_publisher_t *pb,
    const ngx_str_t *event, const ngx_str_t *data, ngx_str_t *payload);
static ngx_uint_t ngx_rt_publish_away(ngx_rt_publisher_t *pb);
static void ngx_rt_publish_enter(ngx_rt_publish_op_t *po);
static void ngx_rt_publish_posted(ngx_event_t *ev);
static void ngx_rt_publish_flush(ngx_rt_publisher_t *pb);
static void ngx_rt_publish_refuse(ngx_queue_t *queue);
static void ngx_rt_publish_answer(ngx_rt_publish_op_t *po, ngx_int_t rc,
    redisReply *reply, ngx_str_t *error);
static void ngx_rt_publish_end(ngx_rt_publish_op_t *po);
static void ngx_rt_publish_free(ngx_rt_publish_op_t *po);
static ngx_int_t ngx_rt_publish_reply(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static ngx_int_t ngx_rt_errand_reply(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static ngx_int_t ngx_rt_publish_ready(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_publish_drained(ngx_rt_redis_t *rd);
static void ngx_rt_publish_closed(ngx_rt_redis_t *rd);
static void ngx_rt_publish_idle(ngx_event_t *ev);


static const ngx_rt_redis_ops_t  ngx_rt_publish_ops = {
    ngx_rt_publish_ready,
    NULL,
    NULL,
    ngx_rt_publish_drained,
    ngx_rt_publish_closed,
    NULL
};


ngx_rt_publisher_t *
ngx_rt_publisher_create(ngx_pool_t *pool, ngx_rt_hub_t *hub)
{
    ngx_rt_publisher_t  *pb;

    pb = ngx_pcalloc(pool, sizeof(ngx_rt_publisher_t));
    if (pb == NULL) {
        return NULL;
    }

    pb->hub = hub;
    pb->fd = (ngx_socket_t) -1;
    pb->bytes_max = NGX_RT_PUBLISHER_BYTES + 8 * hub->conf->message_max;

    ngx_queue_init(&pb->waiting);
    ngx_queue_init(&pb->refused);

    pb->redis.data = pb;
    pb->redis.ops = &ngx_rt_publish_ops;
    pb->redis.conf = hub->conf;
    pb->redis.out_max = pb->bytes_max;
    pb->redis.hold = 1;

    ngx_rt_redis_init(&pb->redis, hub->log);

    pb->posted.data = pb;
    pb->posted.handler = ngx_rt_publish_posted;
    pb->posted.log = hub->log;

    pb->idle.data = pb;
    pb->idle.handler = ngx_rt_publish_idle;
    pb->idle.log = hub->log;
    pb->idle.cancelable = 1;

    return pb;
}


void
ngx_rt_publisher_quit(ngx_rt_publisher_t *pb)
{
    pb->quitting = 1;

    if (pb->n == 0) {
        ngx_rt_redis_close(&pb->redis);
    }
}


void
ngx_rt_publisher_exit(ngx_rt_publisher_t *pb)
{
    pb->exiting = 1;

    ngx_rt_redis_close(&pb->redis);

    ngx_rt_publish_refuse(&pb->waiting);
    ngx_rt_publish_refuse(&pb->refused);

    if (pb->posted.posted) {
        ngx_delete_posted_event(&pb->posted);
    }

    if (pb->idle.timer_set) {
        ngx_del_timer(&pb->idle);
    }
}


void
ngx_rt_publisher_rest(ngx_rt_publisher_t *pb)
{
    if (pb->n == 0) {

        if (pb->idle.timer_set) {
            ngx_del_timer(&pb->idle);
        }

        ngx_add_timer(&pb->idle, 1);
    }
}


ngx_int_t
ngx_rt_publish_send(ngx_rt_hub_t *hub, ngx_rt_publish_t *pub,
    const ngx_str_t *channel, const ngx_str_t *event, const ngx_str_t *data)
{
    ngx_rt_publisher_t   *pb;
    ngx_rt_publish_op_t  *po;

    pub->active = 0;
    pub->op = NULL;

    pb = ngx_rt_feeder_publisher(hub);

    if (pb == NULL) {
        return NGX_ERROR;
    }

    po = ngx_calloc(sizeof(ngx_rt_publish_op_t), hub->log);
    if (po == NULL) {
        return NGX_ERROR;
    }

    po->op.handler = ngx_rt_publish_reply;
    po->pb = pb;
    po->pub = pub;

    if (pb->n >= NGX_RT_PUBLISHER_MAX || ngx_rt_publish_away(pb)) {
        po->rc = NGX_DECLINED;

    } else if (ngx_rt_publish_command(pb, po, channel, event, data) != NGX_OK)
    {
        ngx_free(po);
        return NGX_ERROR;
    }

    ngx_rt_publish_enter(po);

    pub->op = po;
    pub->active = 1;

    return NGX_OK;
}


static void
ngx_rt_publish_enter(ngx_rt_publish_op_t *po)
{
    ngx_queue_t         *queue;
    ngx_rt_publisher_t  *pb;

    pb = po->pb;

    queue = (po->rc == NGX_OK) ? &pb->waiting : &pb->refused;

    ngx_queue_insert_tail(queue, &po->op.queue);

    pb->n++;
    pb->bytes += po->len;

    if (!pb->posted.posted) {
        ngx_post_event(&pb->posted, &ngx_posted_events);
    }
}


ngx_int_t
ngx_rt_publisher_ask(ngx_rt_publisher_t *pb, ngx_rt_errand_t *errand,
    const ngx_rt_command_t *commands, ngx_uint_t n)
{
    u_char               *cmd, *all;
    ssize_t               len;
    ngx_uint_t            i;
    ngx_rt_publish_op_t  *po;

    po = ngx_calloc(sizeof(ngx_rt_publish_op_t), pb->hub->log);
    if (po == NULL) {
        return NGX_ERROR;
    }

    po->op.handler = ngx_rt_errand_reply;
    po->pb = pb;
    po->errand = errand;

    errand->left = n;

    if (ngx_rt_publish_away(pb)) {
        po->rc = NGX_DECLINED;
        n = 0;
    }

    for (i = 0; i < n; i++) {

        len = ngx_rt_redis_format(&cmd, commands[i].argc, commands[i].argv);

        if (len == NGX_ERROR) {
            goto failed;
        }

        all = ngx_alloc(po->len + len, pb->hub->log);

        if (all) {

            if (po->cmd) {
                ngx_memcpy(all, po->cmd, po->len);
                ngx_free(po->cmd);
            }

            ngx_memcpy(all + po->len, cmd, len);

            po->cmd = all;
            po->len += len;
        }

        ngx_rt_redis_free_command(cmd);

        if (all == NULL) {
            goto failed;
        }
    }

    ngx_rt_publish_enter(po);

    return NGX_OK;

failed:

    if (po->cmd) {
        ngx_free(po->cmd);
    }

    ngx_free(po);

    return NGX_ERROR;
}


void
ngx_rt_publish_cancel(ngx_rt_publish_t *pub)
{
    ngx_rt_publish_op_t  *po;

    po = pub->op;

    if (po) {
        po->pub = NULL;
    }

    pub->op = NULL;
    pub->active = 0;
}


/*
 * Makes the bytes of the command, or sets po->rc to why it can't be sent.
 * NGX_OK, or NGX_ERROR: no memory.
 */

static ngx_int_t
ngx_rt_publish_command(ngx_rt_publisher_t *pb, ngx_rt_publish_op_t *po,
    const ngx_str_t *channel, const ngx_str_t *event, const ngx_str_t *data)
{
    ssize_t    len;
    ngx_str_t  key, payload, none, *prefix;

    ngx_str_null(&payload);
    ngx_str_null(&none);

    if (pb->hub->conf->payload == NGX_RT_PAYLOAD_JSON) {

        if (!ngx_rt_utf8_valid(data->data, data->len)
            || !ngx_rt_utf8_valid(event->data, event->len))
        {
            po->rc = NGX_ERROR;
            po->error = "not UTF-8";
            return NGX_OK;
        }

        if (ngx_rt_publish_envelope(pb, event, data, &payload) != NGX_OK) {
            return NGX_ERROR;
        }

        event = &none;
        data = &payload;
    }

    prefix = &pb->hub->conf->prefix;

    key.len = prefix->len + channel->len;
    key.data = ngx_alloc(key.len + 1, pb->hub->log);

    if (key.data) {
        (void) ngx_rt_redis_name(key.data, prefix, channel);

        len = ngx_rt_publish_format(pb, po, &key, event, data);

        ngx_free(key.data);

    } else {
        len = NGX_ERROR;
    }

    if (payload.data) {
        ngx_free(payload.data);
    }

    if (len == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (pb->bytes + len > pb->bytes_max) {
        ngx_rt_redis_free_command(po->cmd);
        po->cmd = NULL;
        po->rc = NGX_DECLINED;
        return NGX_OK;
    }

    po->len = len;

    return NGX_OK;
}


/*
 *     PUBLISH key payload
 *     XADD key MAXLEN ~ history * data payload [event name]
 */

static ssize_t
ngx_rt_publish_format(ngx_rt_publisher_t *pb, ngx_rt_publish_op_t *po,
    ngx_str_t *key, const ngx_str_t *event, const ngx_str_t *payload)
{
    u_char      history[NGX_INT_T_LEN];
    ngx_str_t   args[10];
    ngx_uint_t  n;

    args[1] = *key;

    if (pb->hub->conf->source != NGX_RT_SOURCE_STREAM) {
        ngx_str_set(&args[0], "PUBLISH");
        args[2] = *payload;

        return ngx_rt_redis_format(&po->cmd, 3, args);
    }

    ngx_str_set(&args[0], "XADD");
    ngx_str_set(&args[2], "MAXLEN");
    ngx_str_set(&args[3], "~");

    args[4].data = history;
    args[4].len = ngx_sprintf(history, "%ui", pb->hub->conf->history)
                  - history;

    ngx_str_set(&args[5], "*");
    ngx_str_set(&args[6], "data");
    args[7] = *payload;

    n = 8;

    if (event->len) {
        ngx_str_set(&args[8], "event");
        args[9] = *event;
        n = 10;
    }

    return ngx_rt_redis_format(&po->cmd, n, args);
}


/* {"data":"...","event":"..."} as ngx_rt_message_json() reads it */

static ngx_int_t
ngx_rt_publish_envelope(ngx_rt_publisher_t *pb, const ngx_str_t *event,
    const ngx_str_t *data, ngx_str_t *payload)
{
    u_char  *p;
    size_t   len;

    len = sizeof("{\"data\":,\"event\":}") + ngx_rt_json_string_len(data)
          + ngx_rt_json_string_len(event);

    p = ngx_alloc(len, pb->hub->log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    payload->data = p;

    p = ngx_cpymem(p, "{\"data\":", sizeof("{\"data\":") - 1);
    p = ngx_rt_json_string(p, data);

    if (event->len) {
        p = ngx_cpymem(p, ",\"event\":", sizeof(",\"event\":") - 1);
        p = ngx_rt_json_string(p, event);
    }

    *p++ = '}';

    payload->len = p - payload->data;

    return NGX_OK;
}


/* a connection that is there, or being made, knows better than the feeder */

static ngx_uint_t
ngx_rt_publish_away(ngx_rt_publisher_t *pb)
{
    return pb->redis.state == NGX_RT_REDIS_CLOSED
           && __atomic_load_n(&pb->hub->store->sh->feed.state,
                              __ATOMIC_ACQUIRE)
              == NGX_RT_FEED_DOWN;
}


static void
ngx_rt_publish_posted(ngx_event_t *ev)
{
    ngx_rt_publisher_t  *pb;

    pb = ev->data;

    ngx_rt_publish_refuse(&pb->refused);

    if (ngx_queue_empty(&pb->waiting)) {
        return;
    }

    if (pb->redis.state == NGX_RT_REDIS_CLOSED) {
        ngx_rt_redis_open(&pb->redis);

    } else if (pb->redis.state == NGX_RT_REDIS_READY) {
        ngx_rt_publish_flush(pb);
    }
}


/* writes what is waiting, as far as there is room */

static void
ngx_rt_publish_flush(ngx_rt_publisher_t *pb)
{
    ngx_int_t             rc;
    ngx_queue_t          *q;
    ngx_rt_publish_op_t  *po;

    while (!ngx_queue_empty(&pb->waiting)) {

        q = ngx_queue_head(&pb->waiting);
        po = ngx_queue_data(q, ngx_rt_publish_op_t, op.queue);

        if (ngx_rt_redis_room(&pb->redis) < po->len) {
            return;
        }

        ngx_queue_remove(q);

        rc = ngx_rt_redis_write(&pb->redis, &po->op, po->cmd, po->len);

        if (rc != NGX_OK) {
            ngx_rt_publish_answer(po, NGX_DECLINED, NULL, NULL);
            continue;
        }

        ngx_rt_publish_free(po);
    }
}


/* answers all of a queue, but not what joins it meanwhile */

static void
ngx_rt_publish_refuse(ngx_queue_t *queue)
{
    ngx_str_t             error;
    ngx_queue_t           refused, *q;
    ngx_rt_publish_op_t  *po;

    if (ngx_queue_empty(queue)) {
        return;
    }

    ngx_queue_init(&refused);
    ngx_queue_add(&refused, queue);
    ngx_queue_init(queue);

    while (!ngx_queue_empty(&refused)) {

        q = ngx_queue_head(&refused);
        ngx_queue_remove(q);

        po = ngx_queue_data(q, ngx_rt_publish_op_t, op.queue);

        ngx_str_null(&error);

        if (po->error) {
            error.data = (u_char *) po->error;
            error.len = ngx_strlen(po->error);
        }

        ngx_rt_publish_answer(po, (po->rc == NGX_OK) ? NGX_DECLINED : po->rc,
                              NULL, &error);
    }
}


/* the op is in no queue any more; frees it */

static void
ngx_rt_publish_answer(ngx_rt_publish_op_t *po, ngx_int_t rc,
    redisReply *reply, ngx_str_t *error)
{
    ngx_rt_errand_t     *errand;
    ngx_rt_publish_t    *pub;
    ngx_rt_publisher_t  *pb;

    pb = po->pb;
    pub = po->pub;
    errand = po->errand;

    ngx_rt_publish_end(po);

    if (pub) {
        pub->op = NULL;
        pub->active = 0;
    }

    if (pb->exiting) {
        return;
    }

    if (errand) {
        errand->handler(errand, rc, reply);
        return;
    }

    if (pub == NULL) {
        return;
    }

    pub->rc = rc;
    pub->receivers = 0;

    ngx_str_null(&pub->id);
    ngx_str_null(&pub->error);

    if (error) {
        pub->error = *error;

    } else if (reply && reply->type == REDIS_REPLY_INTEGER) {
        pub->receivers = reply->integer;

    } else if (reply) {
        pub->id.data = (u_char *) reply->str;
        pub->id.len = reply->len;
    }

    pub->handler(pub);
}


static void
ngx_rt_publish_end(ngx_rt_publish_op_t *po)
{
    ngx_rt_publisher_t  *pb;

    pb = po->pb;

    pb->n--;
    pb->bytes -= po->len;

    ngx_rt_publish_free(po);
    ngx_free(po);

    if (pb->n == 0 && !pb->exiting) {

        if (pb->idle.timer_set) {
            ngx_del_timer(&pb->idle);
        }

        ngx_add_timer(&pb->idle, pb->quitting ? 1 : NGX_RT_PUBLISHER_IDLE);
    }
}


/* the bytes of the command */

static void
ngx_rt_publish_free(ngx_rt_publish_op_t *po)
{
    if (po->cmd == NULL) {
        return;
    }

    if (po->errand) {
        ngx_free(po->cmd);

    } else {
        ngx_rt_redis_free_command(po->cmd);
    }

    po->cmd = NULL;
}


static ngx_int_t
ngx_rt_publish_reply(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    int                   type;
    ngx_str_t             error;
    ngx_rt_publish_op_t  *po;

    po = (ngx_rt_publish_op_t *) op;

    if (reply == NULL) {
        ngx_rt_publish_answer(po, ngx_rt_redis_unsent(rd, op) ? NGX_DECLINED
                                                              : NGX_ABORT,
                              NULL, NULL);
        return NGX_OK;
    }

    type = (rd->conf->source == NGX_RT_SOURCE_STREAM) ? REDIS_REPLY_STRING
                                                      : REDIS_REPLY_INTEGER;

    if (reply->type == type) {
        ngx_rt_publish_answer(po, NGX_OK, reply, NULL);
        return NGX_OK;
    }

    if (reply->type == REDIS_REPLY_ERROR) {
        error.data = (u_char *) reply->str;
        error.len = reply->len;

        ngx_rt_publish_answer(po, NGX_ERROR, NULL, &error);
        return NGX_OK;
    }

    ngx_rt_publish_answer(po, NGX_ABORT, NULL, NULL);

    ngx_rt_redis_error(rd, "unexpected reply to a publish", reply);

    return NGX_ERROR;
}


static ngx_int_t
ngx_rt_errand_reply(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_rt_errand_t      *errand;
    ngx_rt_publish_op_t  *po;

    po = (ngx_rt_publish_op_t *) op;
    errand = po->errand;

    if (reply == NULL) {
        ngx_rt_publish_answer(po, ngx_rt_redis_unsent(rd, op) ? NGX_DECLINED
                                                              : NGX_ABORT,
                              NULL, NULL);
        return NGX_OK;
    }

    if (--errand->left == 0) {
        ngx_rt_publish_answer(po, NGX_OK, reply, NULL);
        return NGX_OK;
    }

    /* owed one more, before all that was sent later */

    ngx_queue_insert_head(&rd->owed, &op->queue);

    errand->handler(errand, NGX_OK, reply);

    return NGX_OK;
}


static ngx_int_t
ngx_rt_publish_ready(ngx_rt_redis_t *rd)
{
    ngx_rt_publisher_t  *pb;

    pb = rd->data;

    pb->told = 0;

    ngx_rt_publish_flush(pb);

    return NGX_OK;
}


static ngx_int_t
ngx_rt_publish_drained(ngx_rt_redis_t *rd)
{
    ngx_rt_publish_flush(rd->data);

    return NGX_OK;
}


static void
ngx_rt_publish_closed(ngx_rt_redis_t *rd)
{
    ngx_uint_t           state;
    ngx_rt_publisher_t  *pb;

    pb = rd->data;

    /* a line of our own only where the feeder has none */

    state = __atomic_load_n(&pb->hub->store->sh->feed.state,
                            __ATOMIC_ACQUIRE);

    if (!ngx_queue_empty(&pb->waiting)
        && state == NGX_RT_FEED_LIVE
        && !pb->told)
    {
        pb->told = 1;

        ngx_log_error(NGX_LOG_ERR, pb->hub->log, 0,
                      "rt_hub \"%V\": nothing can be published by Redis %V: "
                      "%V", &pb->hub->conf->name, ngx_rt_redis_server(rd),
                      &rd->error);
    }

    ngx_rt_publish_refuse(&pb->waiting);
}


static void
ngx_rt_publish_idle(ngx_event_t *ev)
{
    ngx_rt_publisher_t  *pb;

    pb = ev->data;

    if (pb->n == 0) {
        ngx_rt_redis_close(&pb->redis);
    }
}
