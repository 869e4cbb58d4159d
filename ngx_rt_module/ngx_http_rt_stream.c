
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * A client's stream from its header to its end: what is queued for it is
 * bounded by rt_buffer, an idle one is pinged, each ends once.
 */


#include <ngx_http_rt_stream.h>


static void ngx_http_rt_stream_cleanup(void *data);
static void ngx_http_rt_stream_schedule(ngx_http_rt_stream_t *s);
static void ngx_http_rt_stream_expire(ngx_http_rt_stream_t *s);
static void ngx_http_rt_stream_end(ngx_http_rt_stream_t *s);
static void ngx_http_rt_stream_finish(ngx_http_rt_stream_t *s,
    ngx_uint_t broken);
static void ngx_http_rt_stream_read_handler(ngx_http_request_t *r);
static void ngx_http_rt_stream_write_handler(ngx_http_request_t *r);
static ngx_http_rt_stream_t *ngx_http_rt_stream_of(ngx_http_request_t *r);


ngx_http_rt_stream_t *
ngx_http_rt_stream_create(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    const ngx_rt_subscriber_ops_t *sub, const ngx_http_rt_stream_ops_t *ops)
{
    ngx_http_cleanup_t    *cln;
    ngx_http_rt_stream_t  *s;

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NULL;
    }

    s = ngx_calloc(sizeof(ngx_http_rt_stream_t)
                   + ctx->nchannels * sizeof(ngx_rt_link_t),
                   r->connection->log);
    if (s == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_rt_stream_cleanup;
    cln->data = s;
    ctx->stream = s;

    s->request = r;
    s->connection = r->connection;
    s->fd = r->connection->fd;
    s->client = r->connection->addr_text;
    s->tls = (r->connection->ssl != NULL);
    s->conf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);
    s->core = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    s->ops = ops;

    s->sub.ops = sub;
    s->sub.hub = ctx->hub;
    s->sub.links = (ngx_rt_link_t *) (s + 1);
    s->sub.nlinks = ctx->nchannels;

    return s;
}


/* the request ends, whoever ended it */

static void
ngx_http_rt_stream_cleanup(void *data)
{
    ngx_event_t           *rev;
    ngx_http_rt_ctx_t     *ctx;
    ngx_http_rt_stream_t  *s;

    s = data;

    if (s->close == NULL) {
        /* worker_shutdown_timeout closes by itself */
        s->close = s->connection->close ? "drain" : "client";
    }

    ngx_http_rt_stream_leave(s);

    rev = s->connection->read;

    if (s->opened && rev->timer_set) {
        ngx_del_timer(rev);
    }

    /* $bytes_sent of the log */

    s->connection->sent += s->bytes;

    ctx = ngx_http_get_module_ctx(s->request, ngx_http_rt_module);

    if (ctx && ctx->stream == s) {
        ctx->stream = NULL;
    }

    ngx_http_rt_stream_free(s);
}


void
ngx_http_rt_stream_open(ngx_http_rt_stream_t *s)
{
    ngx_http_request_t  *r;

    r = s->request;

    s->opened = 1;
    s->begun = ngx_current_msec;

    ngx_rt_count(s->sub.hub, opened[NGX_RT_SSE], 1);
    ngx_rt_count(s->sub.hub, open[NGX_RT_SSE], 1);

    if (r->discard_body) {
        /* nginx would read it with a time limit, and take our timer for that:
         * what the client sends is thrown away here */

        r->discard_body = 0;
        r->lingering_close = 1;
        r->main->count--;
    }

    r->read_event_handler = ngx_http_rt_stream_read_handler;
    r->write_event_handler = ngx_http_rt_stream_write_handler;
    r->main->count++;
}


void
ngx_http_rt_stream_begin(ngx_http_rt_stream_t *s)
{
    s->written = ngx_current_msec;

    if (s->conf->lifetime && !s->expiring) {
        s->expires = ngx_current_msec
                     + ngx_http_rt_jitter(s->conf->lifetime, 10);
        s->expiring = 1;
    }

    ngx_http_rt_stream_flush(&s->sub);
    ngx_http_rt_stream_schedule(s);

    if (s->out.head == NULL && s->request->http_version < NGX_HTTP_VERSION_20) {
        /* to be detached, for which the handler must have returned */
        ngx_post_event(s->connection->write, &ngx_posted_events);
    }
}


void
ngx_http_rt_stream_queue(ngx_http_rt_stream_t *s, ngx_rt_frame_t *frame)
{
    if (frame == NULL
        || ngx_rt_out_push(s->sub.hub, &s->out, frame) != NGX_OK)
    {
        ngx_http_rt_stream_close(s, "memory", 1);
        return;
    }

    s->sub.full = (s->out.bytes >= s->conf->buffer);
}


ngx_uint_t
ngx_http_rt_stream_slow(ngx_http_rt_stream_t *s)
{
    if (s->out.bytes < s->conf->buffer || s->sub.behind) {
        return 0;
    }

    /* a burst of one turn may just not have been written yet: slow is who
     * does not take it */

    if (!ngx_rt_out_busy(&s->out)) {

        if (ngx_http_rt_send(s) != NGX_OK) {
            ngx_http_rt_stream_close(s, "error", 1);
            return 1;
        }

        if (s->out.bytes < s->conf->buffer) {
            return 0;
        }
    }

    /* something is busy: its write event goes on with what we put behind */

    if (s->conf->slow == NGX_HTTP_RT_SLOW_LATEST) {
        ngx_rt_out_cut(s->sub.hub, &s->out);
        s->sub.full = (s->out.bytes >= s->conf->buffer);
        ngx_rt_hub_behind(&s->sub, s->sent_seq, 1);
        return 1;
    }

    ngx_rt_count(s->sub.hub, slow_closed[NGX_RT_SSE], 1);
    ngx_http_rt_stream_close(s, "slow", 1);

    return 1;
}


void
ngx_http_rt_stream_flush(ngx_rt_subscriber_t *sub)
{
    ngx_http_rt_stream_t  *s;

    s = (ngx_http_rt_stream_t *) sub;

    if (s->close || s->out.head == NULL || ngx_rt_out_busy(&s->out)) {
        return;
    }

    if (ngx_http_rt_send(s) != NGX_OK) {
        ngx_http_rt_stream_close(s, "error", 1);
        return;
    }

    if (sub->behind && s->out.head == NULL) {
        /* more is waiting than fitted: not from here, we may be in a sweep */
        ngx_post_event(s->connection->write, &ngx_posted_events);
    }
}


/* when the next thing is to happen; pings are put off when something else was
 * written, so a timer is not touched for each message */

static void
ngx_http_rt_stream_schedule(ngx_http_rt_stream_t *s)
{
    ngx_event_t     *rev;
    ngx_msec_int_t   left, ping;

    if (s->ending || (!s->expiring && s->conf->heartbeat == 0)) {
        return;
    }

    rev = s->connection->read;
    left = s->expires - ngx_current_msec;

    if (s->conf->heartbeat) {
        ping = s->conf->heartbeat - (ngx_current_msec - s->written);

        if (ping <= 0) {
            /* what is queued is not taken: there is no ping behind it */
            ping = s->conf->heartbeat;
        }

        left = s->expiring ? ngx_min(left, ping) : ping;
    }

    if (rev->timer_set) {
        ngx_del_timer(rev);
    }

    ngx_add_timer(rev, (ngx_msec_t) ngx_max(left, 0));
}


void
ngx_http_rt_stream_tick(ngx_http_rt_stream_t *s)
{
    if (s->close) {
        return;
    }

    if (s->expiring
        && (ngx_msec_int_t) (s->expires - ngx_current_msec) <= 0)
    {
        ngx_http_rt_stream_expire(s);
        return;
    }

    if (s->conf->heartbeat
        && ngx_current_msec - s->written >= s->conf->heartbeat
        && !ngx_rt_out_busy(&s->out))
    {
        s->ops->ping(s);
        ngx_http_rt_stream_flush(&s->sub);
    }

    ngx_http_rt_stream_schedule(s);
}


static void
ngx_http_rt_stream_expire(ngx_http_rt_stream_t *s)
{
    if (s->sub.hub->draining) {
        s->ops->farewell(s);
        ngx_http_rt_stream_close(s, "drain", 0);
        return;
    }

    ngx_http_rt_stream_close(s, "lifetime", 0);
}


void
ngx_http_rt_stream_drain(ngx_rt_subscriber_t *sub)
{
    ngx_http_rt_stream_t  *s;

    s = (ngx_http_rt_stream_t *) sub;

    s->expires = ngx_current_msec + 1 + ngx_random() % (s->conf->drain + 1);
    s->expiring = 1;

    ngx_http_rt_stream_schedule(s);
}


void
ngx_http_rt_stream_close(ngx_http_rt_stream_t *s, const char *why,
    ngx_uint_t broken)
{
    if (s->close == NULL) {
        s->close = why;
        s->broken = broken;
        ngx_post_event(s->connection->write, &ngx_posted_events);
    }
}


void
ngx_http_rt_stream_writable(ngx_http_rt_stream_t *s)
{
    if (s->connection->write->timedout) {

        if (s->close == NULL) {
            s->close = "timeout";
        }

        s->connection->timedout = 1;
        s->broken = 1;
    }

    if (s->close) {
        ngx_http_rt_stream_end(s);
        return;
    }

    if (ngx_http_rt_send(s) != NGX_OK) {
        s->close = "error";
        s->broken = 1;
        ngx_http_rt_stream_end(s);
        return;
    }

    if (s->sub.behind && s->out.bytes <= s->conf->buffer / 2) {
        ngx_rt_hub_resume(&s->sub);
        ngx_http_rt_stream_flush(&s->sub);
    }

    if (s->out.head == NULL && s->request && s->close == NULL) {
        ngx_http_rt_detach(s);
    }
}


/* all that is queued is sent first, for which the client has send_timeout */

static void
ngx_http_rt_stream_end(ngx_http_rt_stream_t *s)
{
    ngx_event_t     *rev;
    ngx_rt_frame_t  *frame;

    if (s->broken) {
        ngx_http_rt_stream_finish(s, 1);
        return;
    }

    if (!s->ending) {
        s->ending = 1;

        rev = s->connection->read;

        if (rev->timer_set) {
            ngx_del_timer(rev);
        }

        if (s->request == NULL && s->chunked) {
            /* the chunk that is the last one has no size but 0 */

            frame = ngx_rt_frame_alloc(s->sub.hub, sizeof("0" CRLF CRLF) - 1);

            if (frame) {
                frame->len = sizeof("0" CRLF CRLF) - 1;
                ngx_memcpy(frame->data, "0" CRLF CRLF, frame->len);
            }

            if (frame == NULL
                || ngx_rt_out_push(s->sub.hub, &s->out, frame) != NGX_OK)
            {
                ngx_http_rt_stream_finish(s, 1);
                return;
            }
        }
    }

    if (ngx_http_rt_send(s) != NGX_OK) {
        ngx_http_rt_stream_finish(s, 1);
        return;
    }

    ngx_http_rt_stream_leave(s);

    if (s->out.head == NULL || !s->direct) {
        ngx_http_rt_stream_finish(s, 0);
    }
}


static void
ngx_http_rt_stream_finish(ngx_http_rt_stream_t *s, ngx_uint_t broken)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    s->broken = broken;

    r = s->request;

    if (r == NULL) {
        ngx_http_rt_detached_end(s);
        return;
    }

    ngx_http_rt_stream_leave(s);

    if (broken) {
        rc = NGX_ERROR;

    } else {
        r->keepalive = 0;
        rc = ngx_http_send_special(r, NGX_HTTP_LAST);
    }

    ngx_http_finalize_request(r, rc);
}


void
ngx_http_rt_stream_leave(ngx_http_rt_stream_t *s)
{
    ngx_http_rt_ctx_t  *ctx;

    if (s->left) {
        return;
    }

    s->left = 1;

    if (s->opened) {
        ngx_http_rt_stream_log(s);
    }

    ngx_rt_hub_unsubscribe(&s->sub);

    if (s->request) {
        ctx = ngx_http_get_module_ctx(s->request, ngx_http_rt_module);

        if (ctx && ctx->stream == s) {
            ctx->close = s->close;
            ctx->messages = s->messages;
        }
    }

    if (s->opened) {
        ngx_rt_count(s->sub.hub, open[NGX_RT_SSE], -1);
    }
}


void
ngx_http_rt_stream_free(ngx_http_rt_stream_t *s)
{
    ngx_rt_out_clear(s->sub.hub, &s->out);
    ngx_free(s);
}


static void
ngx_http_rt_stream_read_handler(ngx_http_request_t *r)
{
    ngx_event_t           *rev;
    ngx_http_rt_stream_t  *s;

    rev = r->connection->read;
    s = ngx_http_rt_stream_of(r);

    if (rev->timedout && s) {
        rev->timedout = 0;
        ngx_http_rt_stream_tick(s);
        return;
    }

    ngx_http_test_reading(r);

    if (r->http_version < NGX_HTTP_VERSION_20
        && ngx_http_rt_stream_of(r)
        && ngx_http_rt_discard(r->connection) != NGX_OK)
    {
        r->connection->error = 1;
        ngx_http_finalize_request(r, NGX_HTTP_CLIENT_CLOSED_REQUEST);
    }
}


static void
ngx_http_rt_stream_write_handler(ngx_http_request_t *r)
{
    ngx_http_rt_stream_t  *s;

    s = ngx_http_rt_stream_of(r);

    if (s) {
        ngx_http_rt_stream_writable(s);
    }
}


static ngx_http_rt_stream_t *
ngx_http_rt_stream_of(ngx_http_request_t *r)
{
    ngx_http_rt_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_rt_module);

    return ctx ? ctx->stream : NULL;
}
