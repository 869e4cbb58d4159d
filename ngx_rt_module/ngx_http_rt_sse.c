
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Server-sent events: a subscriber of the hub whose frames go through
 * nginx's filters, so HTTP/1.x, HTTP/2 and HTTP/3, TLS and gzip need nothing
 * of their own.  What is queued for a client is bounded by rt_buffer.
 */


#include <ngx_http_rt.h>


/* a stream; lives in the request's pool and ends with its cleanup */

typedef struct {
    ngx_rt_subscriber_t           sub;      /* first */
    ngx_http_request_t           *request;
    ngx_http_rt_ctx_t            *ctx;
    ngx_http_rt_loc_conf_t       *conf;

    ngx_chain_t                  *out;      /* not yet given to the filters */
    ngx_chain_t                 **last_out;
    ngx_chain_t                  *busy;     /* given, not yet all written */
    ngx_chain_t                  *free;
    size_t                        queued;   /* bytes in out and busy */
    uint64_t                      out_seq;  /* newest message in out */
    uint64_t                      sent_seq; /* newest given to the filters */
    ngx_msec_t                    written;  /* when something last was */

    ngx_event_t                   heartbeat;
    ngx_event_t                   lifetime;
    ngx_event_t                   end;      /* posted: the stream is to end */
    unsigned                      broken:1; /* end without the last chunk */
} ngx_http_rt_stream_t;


static ngx_int_t ngx_http_rt_sse_headers(ngx_http_request_t *r);
static void ngx_http_rt_sse_subscribe(ngx_http_rt_stream_t *s);
static ngx_uint_t ngx_http_rt_sse_cursor(ngx_http_request_t *r,
    ngx_str_t *text);
static void ngx_http_rt_sse_deliver(ngx_rt_subscriber_t *sub,
    ngx_rt_delivery_t *msg);
static ngx_uint_t ngx_http_rt_sse_slow(ngx_http_rt_stream_t *s);
static void ngx_http_rt_sse_gap(ngx_rt_subscriber_t *sub,
    const ngx_str_t *channel, const char *reason, const ngx_str_t *id);
static void ngx_http_rt_sse_place(ngx_rt_subscriber_t *sub,
    const ngx_str_t *id);
static void ngx_http_rt_sse_flush(ngx_rt_subscriber_t *sub);
static void ngx_http_rt_sse_drain(ngx_rt_subscriber_t *sub);
static void ngx_http_rt_sse_queue(ngx_http_rt_stream_t *s,
    ngx_rt_frame_t *frame);
static void ngx_http_rt_sse_text(ngx_http_rt_stream_t *s, const u_char *text,
    size_t len);
static void ngx_http_rt_sse_retry(ngx_http_rt_stream_t *s);
static ngx_int_t ngx_http_rt_sse_send(ngx_http_rt_stream_t *s);
static void ngx_http_rt_sse_sweep(ngx_http_rt_stream_t *s);
static void ngx_http_rt_sse_writable(ngx_http_request_t *r);
static void ngx_http_rt_sse_heartbeat(ngx_event_t *ev);
static void ngx_http_rt_sse_lifetime(ngx_event_t *ev);
static void ngx_http_rt_sse_close(ngx_http_rt_stream_t *s, const char *why,
    ngx_uint_t broken);
static void ngx_http_rt_sse_end(ngx_event_t *ev);
static void ngx_http_rt_sse_discard(ngx_http_rt_stream_t *s,
    ngx_chain_t **chain);
static void ngx_http_rt_sse_cleanup(void *data);


static const ngx_rt_subscriber_ops_t  ngx_http_rt_sse_ops = {
    ngx_http_rt_sse_deliver,
    ngx_http_rt_sse_gap,
    ngx_http_rt_sse_place,
    ngx_http_rt_sse_flush,
    ngx_http_rt_sse_drain,
    NULL
};


#define ngx_http_rt_sse_jitter(ms, part)                                      \
    ((ms) - (ms) / (part) + ngx_random() % (2 * ((ms) / (part)) + 1))


ngx_int_t
ngx_http_rt_sse(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    ngx_int_t                rc;
    ngx_uint_t               i;
    ngx_http_cleanup_t      *cln;
    ngx_http_rt_stream_t    *s;
    ngx_http_rt_loc_conf_t  *rlcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);

    for (i = 0; rlcf->max_subscribers && i < ctx->nchannels; i++) {

        if (ngx_rt_hub_viewers(ctx->hub, &ctx->channels[i])
            >= rlcf->max_subscribers)
        {
            ngx_str_t  retry = ngx_string("5");

            if (ngx_http_rt_header_out(r, "Retry-After", &retry) != NGX_OK) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }

            return ngx_http_rt_text(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "too many streams of this channel");
        }
    }

    s = ngx_pcalloc(r->pool, sizeof(ngx_http_rt_stream_t));
    if (s == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    s->sub.links = ngx_pcalloc(r->pool,
                               ctx->nchannels * sizeof(ngx_rt_link_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (s->sub.links == NULL || cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    s->request = r;
    s->ctx = ctx;
    s->conf = rlcf;
    s->last_out = &s->out;
    s->sub.ops = &ngx_http_rt_sse_ops;
    s->sub.nlinks = ctx->nchannels;

    ngx_http_rt_advise_stream(r, ctx);

    rc = ngx_http_rt_sse_headers(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    cln->handler = ngx_http_rt_sse_cleanup;
    cln->data = s;
    ctx->stream = s;

    ngx_rt_count(ctx->hub, opened[NGX_RT_SSE], 1);
    ngx_rt_count(ctx->hub, open[NGX_RT_SSE], 1);

    s->heartbeat.handler = ngx_http_rt_sse_heartbeat;
    s->heartbeat.data = s;
    s->heartbeat.log = r->connection->log;
    s->lifetime.handler = ngx_http_rt_sse_lifetime;
    s->lifetime.data = s;
    s->lifetime.log = r->connection->log;
    s->end.handler = ngx_http_rt_sse_end;
    s->end.data = s;
    s->end.log = r->connection->log;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_rt_sse_writable;
    r->main->count++;

    ngx_http_rt_sse_subscribe(s);

    if (rlcf->heartbeat) {
        ngx_add_timer(&s->heartbeat, rlcf->heartbeat);
    }

    if (rlcf->lifetime && !s->lifetime.timer_set) {
        ngx_add_timer(&s->lifetime,
                      ngx_http_rt_sse_jitter(rlcf->lifetime, 10));
    }

    ngx_http_rt_sse_flush(&s->sub);

    return NGX_DONE;
}


static ngx_int_t
ngx_http_rt_sse_headers(ngx_http_request_t *r)
{
    ngx_int_t  rc;
    ngx_str_t  cache = ngx_string("no-cache, no-transform");
    ngx_str_t  buffering = ngx_string("no");

    if (ngx_http_rt_header_out(r, "Cache-Control", &cache) != NGX_OK
        || ngx_http_rt_header_out(r, "X-Accel-Buffering", &buffering)
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_str_set(&r->headers_out.content_type, "text/event-stream");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.status = NGX_HTTP_OK;

    ngx_http_clear_content_length(r);
    ngx_http_clear_accept_ranges(r);

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    (void) ngx_tcp_nodelay(r->connection);

    return NGX_OK;
}


static void
ngx_http_rt_sse_subscribe(ngx_http_rt_stream_t *s)
{
    ngx_str_t   text;
    ngx_uint_t  given;

    ngx_http_rt_sse_retry(s);

    given = ngx_http_rt_sse_cursor(s->request, &text);

    if (ngx_rt_hub_subscribe(s->ctx->hub, &s->sub, s->ctx->channels,
                             given ? &text : NULL, s->conf->start)
        != NGX_OK)
    {
        ngx_http_rt_sse_close(s, "memory", 1);
    }
}


/* 1: the client has a cursor, in the header or else in the argument */

static ngx_uint_t
ngx_http_rt_sse_cursor(ngx_http_request_t *r, ngx_str_t *text)
{
    u_char     *dst, *src;
    ngx_str_t  *value, arg;

    value = ngx_http_rt_header_in(r, "last-event-id",
                                  sizeof("last-event-id") - 1);

    if (value && value->len) {
        *text = *value;
        return 1;
    }

    if (ngx_http_arg(r, (u_char *) "last_event_id",
                     sizeof("last_event_id") - 1, &arg)
        != NGX_OK
        || arg.len == 0)
    {
        return 0;
    }

    dst = ngx_pnalloc(r->pool, arg.len);
    if (dst == NULL) {
        return 0;
    }

    text->data = dst;
    src = arg.data;
    ngx_unescape_uri(&dst, &src, arg.len, 0);
    text->len = dst - text->data;

    return 1;
}


static void
ngx_http_rt_sse_deliver(ngx_rt_subscriber_t *sub, ngx_rt_delivery_t *msg)
{
    size_t                 len;
    ngx_uint_t             variant;
    ngx_rt_frame_t        *frame;
    const ngx_str_t       *event;
    ngx_http_rt_stream_t  *s;

    s = (ngx_http_rt_stream_t *) sub;

    if (s->ctx->close || ngx_http_rt_sse_slow(s)) {
        return;
    }

    variant = s->conf->event;
    event = (variant == NGX_HTTP_RT_EVENT_CHANNEL) ? &msg->channel
                                                   : &msg->event;
    frame = msg->own ? NULL : msg->frames[variant];

    if (frame == NULL) {
        len = ngx_rt_frame_sse_len(&msg->id, event, &msg->data);

        frame = ngx_rt_frame_alloc(sub->hub, len);
        if (frame == NULL) {
            ngx_http_rt_sse_close(s, "memory", 1);
            return;
        }

        frame->len = ngx_rt_frame_sse(frame->data, &msg->id, event,
                                      &msg->data)
                     - frame->data;

        if (msg->own) {
            ngx_http_rt_sse_queue(s, frame);
            goto queued;
        }

        msg->frames[variant] = frame;
    }

    frame->refs++;
    ngx_http_rt_sse_queue(s, frame);

queued:

    s->out_seq = msg->seq;
    s->ctx->messages++;
    ngx_rt_count(sub->hub, delivered[NGX_RT_SSE], 1);
}


/* 1: nothing can be queued for this client now */

static ngx_uint_t
ngx_http_rt_sse_slow(ngx_http_rt_stream_t *s)
{
    if (s->queued < s->conf->buffer || s->sub.behind) {
        return 0;
    }

    /* a burst of one turn may just not have been written yet: slow is who
     * does not take it */

    if (s->busy == NULL) {

        if (ngx_http_rt_sse_send(s) != NGX_OK) {
            ngx_http_rt_sse_close(s, "error", 1);
            return 1;
        }

        if (s->queued < s->conf->buffer) {
            return 0;
        }
    }

    /* something is busy: its write event goes on with what we put behind */

    if (s->conf->slow == NGX_HTTP_RT_SLOW_LATEST) {
        ngx_http_rt_sse_discard(s, &s->out);
        s->last_out = &s->out;
        ngx_rt_hub_behind(&s->sub, s->sent_seq, 1);
        return 1;
    }

    ngx_rt_count(s->sub.hub, slow_closed[NGX_RT_SSE], 1);
    ngx_http_rt_sse_close(s, "slow", 1);

    return 1;
}


static void
ngx_http_rt_sse_gap(ngx_rt_subscriber_t *sub, const ngx_str_t *channel,
    const char *reason, const ngx_str_t *id)
{
    ngx_str_t              why;
    ngx_rt_frame_t        *frame;
    ngx_http_rt_stream_t  *s;

    s = (ngx_http_rt_stream_t *) sub;

    why.data = (u_char *) reason;
    why.len = ngx_strlen(reason);

    frame = ngx_rt_frame_alloc(sub->hub,
                               ngx_rt_frame_gap_len(id, channel, &why));
    if (frame == NULL) {
        ngx_http_rt_sse_close(s, "memory", 1);
        return;
    }

    frame->len = ngx_rt_frame_gap(frame->data, id, channel, &why)
                 - frame->data;

    ngx_http_rt_sse_queue(s, frame);
}


/* an id without data moves the client's last event id and fires nothing
 * (WHATWG HTML, 9.2.6) */

static void
ngx_http_rt_sse_place(ngx_rt_subscriber_t *sub, const ngx_str_t *id)
{
    u_char  *p, buf[sizeof("id: \n\n") + NGX_RT_PLACES_LEN];

    p = ngx_sprintf(buf, "id: %V\n\n", id);

    ngx_http_rt_sse_text((ngx_http_rt_stream_t *) sub, buf, p - buf);
}


static void
ngx_http_rt_sse_text(ngx_http_rt_stream_t *s, const u_char *text, size_t len)
{
    ngx_rt_frame_t  *frame;

    frame = ngx_rt_frame_alloc(s->ctx->hub, len);
    if (frame == NULL) {
        ngx_http_rt_sse_close(s, "memory", 1);
        return;
    }

    ngx_memcpy(frame->data, text, len);
    frame->len = len;

    ngx_http_rt_sse_queue(s, frame);
}


static void
ngx_http_rt_sse_retry(ngx_http_rt_stream_t *s)
{
    u_char  *p, buf[sizeof("retry: \n\n") + NGX_INT_T_LEN];

    p = ngx_sprintf(buf, "retry: %M\n\n",
                    (ngx_msec_t) ngx_http_rt_sse_jitter(s->conf->retry, 2));

    ngx_http_rt_sse_text(s, buf, p - buf);
}


/* takes over the caller's reference */

static void
ngx_http_rt_sse_queue(ngx_http_rt_stream_t *s, ngx_rt_frame_t *frame)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = ngx_chain_get_free_buf(s->request->pool, &s->free);
    if (cl == NULL) {
        ngx_rt_frame_free(frame);
        ngx_http_rt_sse_close(s, "memory", 1);
        return;
    }

    b = cl->buf;
    ngx_memzero(b, sizeof(ngx_buf_t));

    b->pos = frame->data;
    b->last = frame->data + frame->len;
    b->start = (u_char *) frame;
    b->memory = 1;
    b->flush = 1;
    b->tag = (ngx_buf_tag_t) &ngx_http_rt_module;

    *s->last_out = cl;
    s->last_out = &cl->next;
    cl->next = NULL;

    s->queued += frame->len;
    s->sub.full = (s->queued >= s->conf->buffer);
}


static void
ngx_http_rt_sse_flush(ngx_rt_subscriber_t *sub)
{
    ngx_http_rt_stream_t  *s;

    s = (ngx_http_rt_stream_t *) sub;

    if (s->ctx->close || s->out == NULL || s->busy) {
        return;
    }

    if (ngx_http_rt_sse_send(s) != NGX_OK) {
        ngx_http_rt_sse_close(s, "error", 1);
        return;
    }

    if (s->busy == NULL && sub->behind) {
        /* more is waiting than fitted: not from here, we may be in a sweep */
        ngx_post_event(s->request->connection->write, &ngx_posted_events);
    }
}


/* gives all that is queued to the filters */

static ngx_int_t
ngx_http_rt_sse_send(ngx_http_rt_stream_t *s)
{
    ngx_int_t            rc;
    ngx_chain_t         *cl, **ll, *out;
    ngx_event_t         *wev;
    ngx_http_request_t  *r;

    r = s->request;
    wev = r->connection->write;

    out = NULL;

    /* the filters get links of their own: those of busy must stay as they
     * are until all is written */

    if (s->out) {

        for (ll = &s->busy; *ll; ll = &(*ll)->next) { /* void */ }

        cl = s->out;
        *ll = cl;

        s->out = NULL;
        s->last_out = &s->out;
        s->sent_seq = s->out_seq;

        for (ll = &out; cl; cl = cl->next) {
            *ll = ngx_alloc_chain_link(r->pool);
            if (*ll == NULL) {
                return NGX_ERROR;
            }

            (*ll)->buf = cl->buf;
            ll = &(*ll)->next;
            *ll = NULL;
        }
    }

    rc = ngx_http_output_filter(r, out);

    while (out) {
        cl = out;
        out = cl->next;
        ngx_free_chain(r->pool, cl);
    }

    ngx_http_rt_sse_sweep(s);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    s->written = ngx_current_msec;

    if (s->busy == NULL) {

        /* of a delayed event the timer is limit_rate's: it is what ends the
         * delay */

        if (wev->timer_set && !wev->delayed) {
            ngx_del_timer(wev);
        }

        return NGX_OK;
    }

    if (!wev->timer_set && !wev->delayed) {
        ngx_http_core_loc_conf_t  *clcf;

        clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
        ngx_add_timer(wev, clcf->send_timeout);
    }

    return ngx_handle_write_event(wev, 0);
}


static void
ngx_http_rt_sse_sweep(ngx_http_rt_stream_t *s)
{
    ngx_chain_t     *cl;
    ngx_rt_frame_t  *frame;

    while (s->busy && ngx_buf_size(s->busy->buf) == 0) {
        cl = s->busy;
        s->busy = cl->next;

        frame = (ngx_rt_frame_t *) cl->buf->start;
        s->queued -= frame->len;
        ngx_rt_frame_free(frame);

        cl->next = s->free;
        s->free = cl;
    }

    s->sub.full = (s->queued >= s->conf->buffer);
}


static void
ngx_http_rt_sse_writable(ngx_http_request_t *r)
{
    ngx_http_rt_ctx_t     *ctx;
    ngx_http_rt_stream_t  *s;

    ctx = ngx_http_get_module_ctx(r, ngx_http_rt_module);
    s = ctx->stream;

    if (ctx->close) {
        return;
    }

    if (r->connection->write->timedout) {
        ngx_http_rt_sse_close(s, "timeout", 1);
        return;
    }

    if (ngx_http_rt_sse_send(s) != NGX_OK) {
        ngx_http_rt_sse_close(s, "error", 1);
        return;
    }

    if (s->sub.behind && s->queued <= s->conf->buffer / 2) {
        ngx_rt_hub_resume(&s->sub);
        ngx_http_rt_sse_flush(&s->sub);
    }
}


static void
ngx_http_rt_sse_heartbeat(ngx_event_t *ev)
{
    ngx_msec_t             idle;
    ngx_connection_t      *c;
    ngx_http_rt_stream_t  *s;

    s = ev->data;
    c = s->request->connection;
    idle = ngx_current_msec - s->written;

    if (idle >= s->conf->heartbeat && s->busy == NULL) {
        ngx_http_rt_sse_text(s, (u_char *) ":\n\n", 3);
        ngx_http_rt_sse_flush(&s->sub);
        idle = 0;
    }

    ngx_add_timer(ev, s->conf->heartbeat > idle ? s->conf->heartbeat - idle
                                                : s->conf->heartbeat);

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_rt_sse_lifetime(ngx_event_t *ev)
{
    ngx_http_rt_stream_t  *s;

    s = ev->data;

    if (s->sub.hub->draining) {

        /* a new delay: those who were told a short one at the begin, or came
         * together, do not all come back together */

        ngx_http_rt_sse_retry(s);
        ngx_http_rt_sse_close(s, "drain", 0);
        return;
    }

    ngx_http_rt_sse_close(s, "lifetime", 0);
}


static void
ngx_http_rt_sse_drain(ngx_rt_subscriber_t *sub)
{
    ngx_http_rt_stream_t  *s;

    s = (ngx_http_rt_stream_t *) sub;

    ngx_add_timer(&s->lifetime, 1 + ngx_random() % (s->conf->drain + 1));
}


/* marks; the end comes from an event of its own */

static void
ngx_http_rt_sse_close(ngx_http_rt_stream_t *s, const char *why,
    ngx_uint_t broken)
{
    if (s->ctx->close == NULL) {
        s->ctx->close = why;
        s->broken = broken;
        ngx_post_event(&s->end, &ngx_posted_events);
    }
}


static void
ngx_http_rt_sse_end(ngx_event_t *ev)
{
    ngx_int_t              rc;
    ngx_connection_t      *c;
    ngx_http_request_t    *r;
    ngx_http_rt_stream_t  *s;

    s = ev->data;
    r = s->request;
    c = r->connection;

    ngx_rt_hub_unsubscribe(&s->sub);

    if (s->broken || ngx_http_rt_sse_send(s) != NGX_OK) {
        rc = NGX_ERROR;

    } else {
        r->keepalive = 0;
        rc = ngx_http_send_special(r, NGX_HTTP_LAST);
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


static void
ngx_http_rt_sse_discard(ngx_http_rt_stream_t *s, ngx_chain_t **chain)
{
    ngx_chain_t     *cl;
    ngx_rt_frame_t  *frame;

    while (*chain) {
        cl = *chain;
        *chain = cl->next;

        frame = (ngx_rt_frame_t *) cl->buf->start;
        s->queued -= frame->len;
        ngx_rt_frame_free(frame);

        cl->next = s->free;
        s->free = cl;
    }
}


static void
ngx_http_rt_sse_cleanup(void *data)
{
    ngx_http_rt_stream_t  *s;

    s = data;

    if (s->ctx->close == NULL) {
        /* worker_shutdown_timeout closes by itself */
        s->ctx->close = s->request->connection->close ? "drain" : "client";
    }

    ngx_rt_hub_unsubscribe(&s->sub);

    if (s->heartbeat.timer_set) {
        ngx_del_timer(&s->heartbeat);
    }

    if (s->lifetime.timer_set) {
        ngx_del_timer(&s->lifetime);
    }

    if (s->end.posted) {
        ngx_delete_posted_event(&s->end);
    }

    ngx_http_rt_sse_discard(s, &s->busy);
    ngx_http_rt_sse_discard(s, &s->out);

    ngx_rt_count(s->ctx->hub, open[NGX_RT_SSE], -1);
}
