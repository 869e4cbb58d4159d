
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * One connection to Redis: bytes and replies.  Commands are collected in one
 * buffer and written at the end of the turn; what is owed for them is a
 * queue.  Messages (pub/sub) are owed to nobody and come in between.
 *
 * Where messages are to come, bytes are read into a buffer, and a message that
 * lies whole in it is given to the owner where it is.  All else goes through
 * the codec, reply by reply, so that both come in the order of the bytes.
 *
 *     in            first          last          size
 *     |.............|==============|~~~~~~~~~~~~~|
 *                   | to be looked | to be read
 *                   | at           | into
 */


#include <ngx_rt_source.h>
#include <hiredis/hiredis.h>


#define NGX_RT_REDIS_SLICE        16384     /* bytes read at once */
#define NGX_RT_REDIS_SLICES       16        /* in one turn of the loop */
#define NGX_RT_REDIS_IN           65536     /* the same where messages come */
#define NGX_RT_REDIS_INS          4
#define NGX_RT_REDIS_PING         1000      /* ms */
#define NGX_RT_REDIS_TICK_MIN     20        /* ms */
#define NGX_RT_REDIS_OUT_MIN      4096
#define NGX_RT_REDIS_OUT_KEEP     65536     /* kept when nothing waits */


static ngx_int_t ngx_rt_redis_read(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_slices(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_messages(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_recv(ngx_rt_redis_t *rd, u_char *buf,
    size_t *len);
static ngx_int_t ngx_rt_redis_scan(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_look(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_other(ngx_rt_redis_t *rd, u_char **data,
    u_char *last);
static ngx_int_t ngx_rt_redis_dispatch(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_reply(ngx_rt_redis_t *rd, redisReply *reply);
static ngx_int_t ngx_rt_redis_owed(ngx_rt_redis_t *rd, redisReply *reply);
static ngx_uint_t ngx_rt_redis_is_message(redisReply *reply);
static ngx_int_t ngx_rt_redis_push(ngx_rt_redis_t *rd, redisReply *reply);
static ngx_uint_t ngx_rt_redis_string(redisReply *reply, ngx_str_t *text);
static ngx_int_t ngx_rt_redis_flush(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_append(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, const u_char *data, size_t len);
static ngx_int_t ngx_rt_redis_grow(ngx_rt_redis_t *rd, size_t len);
static ngx_int_t ngx_rt_redis_tick(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_pong(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply);
static uint64_t ngx_rt_redis_usec(void);


void
ngx_rt_redis_read_handler(ngx_event_t *rev)
{
    ngx_int_t          rc;
    ngx_rt_redis_t    *rd;
    ngx_connection_t  *c;

    c = rev->data;
    rd = c->data;

    if (rd->state == NGX_RT_REDIS_CONNECTING) {
        ngx_rt_redis_connected(rd);
        return;
    }

    rc = ngx_rt_redis_read(rd);

    if (rd->ops->turn) {
        rd->ops->turn(rd);
    }

    if (rc == NGX_OK && ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_rt_redis_error(rd, "no events for the socket", NULL);
        rc = NGX_ERROR;
    }

    if (rc == NGX_ERROR) {
        ngx_rt_redis_down(rd);
        return;
    }

    if (rc == NGX_AGAIN) {
        /* there is more, but clients have their turn first */
        ngx_post_event(rev, &ngx_posted_next_events);
    }

    ngx_rt_redis_set_timer(rd);
}


/*
 * NGX_OK: all has been read; NGX_AGAIN: so much that the rest must wait;
 * NGX_ERROR: the end, rd->error says why.
 */

static ngx_int_t
ngx_rt_redis_read(ngx_rt_redis_t *rd)
{
    return (rd->ops->push && rd->conf->source == NGX_RT_SOURCE_PUBSUB)
           ? ngx_rt_redis_messages(rd) : ngx_rt_redis_slices(rd);
}


static ngx_int_t
ngx_rt_redis_slices(ngx_rt_redis_t *rd)
{
    size_t       n;
    ngx_int_t    rc;
    ngx_uint_t   i;
    u_char       buf[NGX_RT_REDIS_SLICE];

    /* what was there when it was paused */

    if (ngx_rt_redis_dispatch(rd) != NGX_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_RT_REDIS_SLICES && !rd->paused; i++) {

        n = NGX_RT_REDIS_SLICE;
        rc = ngx_rt_redis_recv(rd, buf, &n);

        if (rc != NGX_OK) {
            return (rc == NGX_AGAIN) ? NGX_OK : rc;
        }

        /* what came whole before an error is taken all the same */

        (void) ngx_rt_resp_feed(&rd->resp, buf, n);

        if (ngx_rt_redis_dispatch(rd) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return rd->paused ? NGX_OK : NGX_AGAIN;
}


static ngx_int_t
ngx_rt_redis_messages(ngx_rt_redis_t *rd)
{
    size_t      n;
    ngx_int_t   rc;
    ngx_uint_t  i;

    if (rd->in == NULL) {

        rd->in = ngx_alloc(NGX_RT_REDIS_IN, &rd->log);
        if (rd->in == NULL) {
            ngx_rt_redis_error(rd, "no memory", NULL);
            return NGX_ERROR;
        }
    }

    if (ngx_rt_redis_scan(rd) != NGX_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_RT_REDIS_INS && !rd->paused; i++) {

        n = NGX_RT_REDIS_IN - rd->in_last;
        rc = ngx_rt_redis_recv(rd, rd->in + rd->in_last, &n);

        if (rc != NGX_OK) {
            return (rc == NGX_AGAIN) ? NGX_OK : rc;
        }

        rd->in_last += n;

        if (ngx_rt_redis_scan(rd) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return rd->paused ? NGX_OK : NGX_AGAIN;
}


/* at most *len bytes into buf, and how many: NGX_OK; NGX_AGAIN: there are
 * none for now; NGX_ERROR: the end */

static ngx_int_t
ngx_rt_redis_recv(ngx_rt_redis_t *rd, u_char *buf, size_t *len)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = rd->peer.connection;

    n = c->recv(c, buf, *len);

    if (n == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    if (n == NGX_ERROR) {
        ngx_rt_redis_errno(rd, "recv()", ngx_socket_errno);
        return NGX_ERROR;
    }

    if (n == 0) {
        ngx_rt_redis_error(rd, "connection closed by Redis", NULL);
        return NGX_ERROR;
    }

    rd->heard = ngx_current_msec;
    *len = n;

    return NGX_OK;
}


/*
 * Handles what is in the buffer.  What is not whole yet is moved to its
 * begin, so there is always room to read more.
 */

static ngx_int_t
ngx_rt_redis_scan(ngx_rt_redis_t *rd)
{
    size_t     rest;
    ngx_int_t  rc;

    rc = ngx_rt_redis_look(rd);

    /* also what came before an error, which was there first */

    if (rd->ops->flush && rd->ops->flush(rd) != NGX_OK) {
        return NGX_ERROR;
    }

    rest = rd->in_last - rd->in_first;

    if (rest && rd->in_first) {
        ngx_memmove(rd->in, rd->in + rd->in_first, rest);
    }

    rd->in_first = 0;
    rd->in_last = rest;

    return rc;
}


/* up to the end of what is there, or until it is paused */

static ngx_int_t
ngx_rt_redis_look(ngx_rt_redis_t *rd)
{
    u_char         *p, *last;
    ngx_int_t       rc;
    ngx_rt_push_t   push;

    p = rd->in + rd->in_first;
    last = rd->in + rd->in_last;
    rc = NGX_OK;

    while (p < last && !rd->paused && rc == NGX_OK) {

        rc = NGX_DECLINED;

        if (rd->state == NGX_RT_REDIS_READY) {
            rc = ngx_rt_resp_push(&rd->resp, &p, last, &push);
        }

        if (rc == NGX_OK) {
            rc = rd->ops->push(rd, &push);
            continue;
        }

        if (rc == NGX_AGAIN && last - p < NGX_RT_REDIS_IN) {
            rc = NGX_OK;
            break;
        }

        rc = ngx_rt_redis_other(rd, &p, last);
    }

    rd->in_first = p - rd->in;

    return rc;
}


/* up to the end of one reply.  What was pushed is stored first: a handler may
 * do anything */

static ngx_int_t
ngx_rt_redis_other(ngx_rt_redis_t *rd, u_char **data, u_char *last)
{
    const u_char  *p;

    if (rd->ops->flush && rd->ops->flush(rd) != NGX_OK) {
        return NGX_ERROR;
    }

    p = *data;

    if (last - p > NGX_RT_REDIS_SLICE) {
        last = *data + NGX_RT_REDIS_SLICE;
    }

    (void) ngx_rt_resp_take(&rd->resp, &p, last);

    *data = (u_char *) p;

    return ngx_rt_redis_dispatch(rd);
}


void
ngx_rt_redis_resume(ngx_rt_redis_t *rd)
{
    rd->paused = 0;
    rd->heard = ngx_current_msec;

    ngx_post_event(rd->peer.connection->read, &ngx_posted_events);
}


static ngx_int_t
ngx_rt_redis_dispatch(ngx_rt_redis_t *rd)
{
    ngx_int_t    rc;
    redisReply  *reply;

    while (!rd->paused) {
        rc = ngx_rt_resp_next(&rd->resp, &reply);

        if (rc == NGX_AGAIN) {
            return NGX_OK;
        }

        if (rc != NGX_OK) {
            ngx_rt_redis_error(rd, rd->resp.error, NULL);
            return NGX_ERROR;
        }

        rc = ngx_rt_redis_reply(rd, reply);

        ngx_rt_resp_free(reply);

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_redis_reply(ngx_rt_redis_t *rd, redisReply *reply)
{
    if (rd->ops->push == NULL || !ngx_rt_redis_is_message(reply)) {
        return ngx_rt_redis_owed(rd, reply);
    }

    if (rd->state == NGX_RT_REDIS_READY) {
        return ngx_rt_redis_push(rd, reply);
    }

    ngx_rt_redis_error(rd, "unexpected reply", reply);

    return NGX_ERROR;
}


static ngx_int_t
ngx_rt_redis_owed(ngx_rt_redis_t *rd, redisReply *reply)
{
    ngx_queue_t        *q;
    ngx_rt_redis_op_t  *op;

    if (ngx_queue_empty(&rd->owed)) {
        ngx_rt_redis_error(rd, "unexpected reply", reply);
        return NGX_ERROR;
    }

    q = ngx_queue_head(&rd->owed);
    ngx_queue_remove(q);

    op = ngx_queue_data(q, ngx_rt_redis_op_t, queue);

    return op->handler(rd, op, reply);
}


static ngx_uint_t
ngx_rt_redis_is_message(redisReply *reply)
{
    redisReply  *kind;

    if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0) {
        return 0;
    }

    kind = reply->element[0];

    return kind->type == REDIS_REPLY_STRING
           && (ngx_strcmp(kind->str, "message") == 0
               || ngx_strcmp(kind->str, "pmessage") == 0);
}


/*
 *     "message",           channel, payload
 *     "pmessage", pattern, channel, payload
 *
 * A nil is a string too large to be ours.  It is stored before the reply is
 * freed.
 */

static ngx_int_t
ngx_rt_redis_push(ngx_rt_redis_t *rd, redisReply *reply)
{
    size_t         i;
    ngx_int_t      rc;
    ngx_rt_push_t  push;

    i = (reply->element[0]->str[0] == 'p') ? 1 : 0;

    push.matched = (unsigned) i;

    if (reply->elements != 3 + i
        || (i && !ngx_rt_redis_string(reply->element[1], &push.pattern))
        || !ngx_rt_redis_string(reply->element[1 + i], &push.channel)
        || !ngx_rt_redis_string(reply->element[2 + i], &push.data))
    {
        ngx_rt_redis_error(rd, "message of a wrong shape", NULL);
        return NGX_ERROR;
    }

    rc = rd->ops->push(rd, &push);

    if (rc == NGX_OK && rd->ops->flush) {
        rc = rd->ops->flush(rd);
    }

    return rc;
}


static ngx_uint_t
ngx_rt_redis_string(redisReply *reply, ngx_str_t *text)
{
    ngx_str_null(text);

    if (reply->type == REDIS_REPLY_STRING) {
        text->data = (u_char *) reply->str;
        text->len = reply->len;
        return 1;
    }

    return reply->type == REDIS_REPLY_NIL;
}


void
ngx_rt_redis_write_handler(ngx_event_t *wev)
{
    ngx_rt_redis_t    *rd;
    ngx_connection_t  *c;

    c = wev->data;
    rd = c->data;

    if (rd->state == NGX_RT_REDIS_CONNECTING) {
        ngx_rt_redis_connected(rd);
        return;
    }

    if (ngx_rt_redis_flush(rd) != NGX_OK) {
        ngx_rt_redis_down(rd);
    }
}


static ngx_int_t
ngx_rt_redis_flush(ngx_rt_redis_t *rd)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = rd->peer.connection;

    if (rd->out_first == rd->out_last) {
        return NGX_OK;
    }

    while (rd->out_first < rd->out_last) {

        n = c->send(c, rd->out + rd->out_first, rd->out_last - rd->out_first);

        if (n == NGX_AGAIN || n == 0) {

            if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
                ngx_rt_redis_error(rd, "no events for the socket", NULL);
                return NGX_ERROR;
            }

            return NGX_OK;
        }

        if (n < 0) {
            ngx_rt_redis_errno(rd, "send()", ngx_socket_errno);
            return NGX_ERROR;
        }

        rd->out_first += n;
        rd->sent += n;
    }

    rd->out_first = 0;
    rd->out_last = 0;

    if (rd->out_size > NGX_RT_REDIS_OUT_KEEP) {
        ngx_free(rd->out);
        rd->out = NULL;
        rd->out_size = 0;
    }

    if (rd->ops->drained && rd->state == NGX_RT_REDIS_READY) {
        return rd->ops->drained(rd);
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_redis_send(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op, ngx_uint_t argc,
    const ngx_str_t *argv)
{
    if (rd->state != NGX_RT_REDIS_READY) {
        return NGX_DECLINED;
    }

    return ngx_rt_redis_command(rd, op, argc, argv);
}


ngx_int_t
ngx_rt_redis_write(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    const u_char *data, size_t len)
{
    if (rd->state != NGX_RT_REDIS_READY) {
        return NGX_DECLINED;
    }

    return ngx_rt_redis_append(rd, op, data, len);
}


size_t
ngx_rt_redis_room(ngx_rt_redis_t *rd)
{
    size_t  waiting;

    waiting = rd->out_last - rd->out_first;

    return (rd->state == NGX_RT_REDIS_READY && waiting < rd->out_max)
           ? rd->out_max - waiting : 0;
}


ngx_int_t
ngx_rt_redis_command(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    ngx_uint_t argc, const ngx_str_t *argv)
{
    u_char     *cmd;
    ssize_t     len;
    ngx_int_t   rc;

    len = ngx_rt_redis_format(&cmd, argc, argv);

    if (len == NGX_ERROR) {
        return NGX_ERROR;
    }

    rc = ngx_rt_redis_append(rd, op, cmd, len);

    ngx_rt_redis_free_command(cmd);

    return rc;
}


ssize_t
ngx_rt_redis_format(u_char **cmd, ngx_uint_t argc, const ngx_str_t *argv)
{
    char        *text;
    ssize_t      len;
    ngx_uint_t   i;
    const char  *args[NGX_RT_REDIS_ARGS];
    size_t       lens[NGX_RT_REDIS_ARGS];

    if (argc > NGX_RT_REDIS_ARGS) {
        return NGX_ERROR;
    }

    for (i = 0; i < argc; i++) {
        args[i] = (char *) argv[i].data;
        lens[i] = argv[i].len;
    }

    len = (ssize_t) redisFormatCommandArgv(&text, argc, args, lens);

    if (len <= 0) {
        return NGX_ERROR;
    }

    *cmd = (u_char *) text;

    return len;
}


void
ngx_rt_redis_free_command(u_char *cmd)
{
    redisFreeCommand((char *) cmd);
}


/* what is written in one turn of the loop goes out with one send() */

static ngx_int_t
ngx_rt_redis_append(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    const u_char *data, size_t len)
{
    ngx_connection_t  *c;

    if (rd->out_last - rd->out_first + len > rd->out_max) {
        return NGX_DECLINED;
    }

    if (rd->out_size - rd->out_last < len
        && ngx_rt_redis_grow(rd, len) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(rd->out + rd->out_last, data, len);
    rd->out_last += len;
    rd->queued += len;

    if (ngx_queue_empty(&rd->owed)) {
        rd->heard = ngx_current_msec;
    }

    op->end = rd->queued;
    ngx_queue_insert_tail(&rd->owed, &op->queue);

    rd->timer.cancelable = !rd->hold;

    c = rd->peer.connection;

    if (c->write->ready) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_redis_grow(ngx_rt_redis_t *rd, size_t len)
{
    size_t   size, waiting;
    u_char  *out;

    waiting = rd->out_last - rd->out_first;

    if (rd->out_size < waiting + len) {

        size = ngx_max(NGX_RT_REDIS_OUT_MIN, 2 * rd->out_size);
        size = ngx_max(size, waiting + len);

        out = ngx_alloc(size, &rd->log);
        if (out == NULL) {
            return NGX_ERROR;
        }

        if (rd->out) {
            ngx_memcpy(out, rd->out + rd->out_first, waiting);
            ngx_free(rd->out);
        }

        rd->out = out;
        rd->out_size = size;

    } else {
        ngx_memmove(rd->out, rd->out + rd->out_first, waiting);
    }

    rd->out_first = 0;
    rd->out_last = waiting;

    return NGX_OK;
}


void
ngx_rt_redis_timer(ngx_event_t *ev)
{
    ngx_rt_redis_t  *rd;

    rd = ev->data;

    if (rd->state == NGX_RT_REDIS_CONNECTING) {
        ngx_rt_redis_errno(rd, "connect()", NGX_ETIMEDOUT);
        ngx_rt_redis_down(rd);
        return;
    }

    if (ngx_rt_redis_tick(rd) != NGX_OK) {
        ngx_rt_redis_down(rd);
        return;
    }

    ngx_rt_redis_set_timer(rd);
}


static ngx_int_t
ngx_rt_redis_tick(ngx_rt_redis_t *rd)
{
    ngx_int_t   rc;
    ngx_str_t   args[1];
    ngx_msec_t  now, timeout;

    now = ngx_current_msec;
    timeout = rd->conf->reply_timeout;

    /* to connect is to be greeted: a Redis that is stopped still accepts */

    if (rd->state == NGX_RT_REDIS_GREETING) {
        timeout = ngx_min(timeout, rd->conf->connect_timeout);
    }

    if (rd->paused) {
        return NGX_OK;
    }

    if (!ngx_queue_empty(&rd->owed) && now - rd->heard >= timeout) {
        ngx_rt_redis_error(rd, "no answer in time", NULL);
        return NGX_ERROR;
    }

    if (!rd->ping
        || rd->state != NGX_RT_REDIS_READY
        || now - rd->pinged < NGX_RT_REDIS_PING
        || rd->asked)
    {
        return NGX_OK;
    }

    ngx_str_set(&args[0], "PING");

    rd->pong.handler = ngx_rt_redis_pong;

    rc = ngx_rt_redis_command(rd, &rd->pong, 1, args);

    if (rc == NGX_OK) {
        rd->pinged = now;
        rd->asked = ngx_rt_redis_usec();
    }

    /* NGX_DECLINED: so much is waiting to be written that it is owed */

    if (rc == NGX_ERROR) {
        ngx_rt_redis_error(rd, "no memory", NULL);
    }

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


void
ngx_rt_redis_set_timer(ngx_rt_redis_t *rd)
{
    ngx_uint_t  owed;
    ngx_msec_t  tick;

    owed = !ngx_queue_empty(&rd->owed);

    rd->timer.cancelable = !(rd->hold && owed);

    if (rd->timer.timer_set && rd->state == NGX_RT_REDIS_READY) {
        return;
    }

    tick = ngx_min(rd->conf->reply_timeout, rd->conf->connect_timeout) / 8;
    tick = ngx_max(tick, NGX_RT_REDIS_TICK_MIN);
    tick = ngx_min(tick, NGX_RT_REDIS_PING / 4);

    ngx_add_timer(&rd->timer, tick);
}


/* subscribed or not, "pong" or an error: Redis is there */

static ngx_int_t
ngx_rt_redis_pong(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    uint64_t  asked;

    asked = rd->asked;
    rd->asked = 0;

    if (reply == NULL) {
        return NGX_OK;
    }

    if (reply->type == REDIS_REPLY_STATUS
        || (reply->type == REDIS_REPLY_ARRAY
            && reply->elements == 2
            && reply->element[0]->type == REDIS_REPLY_STRING
            && ngx_strcmp(reply->element[0]->str, "pong") == 0))
    {
        rd->lag = ngx_rt_redis_usec() - asked;
        return NGX_OK;
    }

    if (reply->type == REDIS_REPLY_ERROR
        && ngx_strncmp(reply->str, "NOAUTH", sizeof("NOAUTH") - 1) != 0)
    {
        return NGX_OK;
    }

    ngx_rt_redis_error(rd, "unexpected reply to PING", reply);

    return NGX_ERROR;
}


static uint64_t
ngx_rt_redis_usec(void)
{
    struct timespec  ts;

    if (clock_gettime(CLOCK_MONOTONIC, &ts) == -1) {
        return 1;
    }

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
