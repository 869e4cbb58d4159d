
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Server-sent events: how a stream begins, and what its frames are.
 */


#include <ngx_http_rt_stream.h>


static ngx_int_t ngx_http_rt_sse_headers(ngx_http_request_t *r);
static void ngx_http_rt_sse_subscribe(ngx_http_rt_stream_t *s,
    ngx_http_rt_ctx_t *ctx);
static ngx_uint_t ngx_http_rt_sse_cursor(ngx_http_request_t *r,
    ngx_str_t *text);
static void ngx_http_rt_sse_deliver(ngx_rt_subscriber_t *sub,
    ngx_rt_delivery_t *msg);
static void ngx_http_rt_sse_gap(ngx_rt_subscriber_t *sub,
    const ngx_str_t *channel, const char *reason, const ngx_str_t *id);
static void ngx_http_rt_sse_place(ngx_rt_subscriber_t *sub,
    const ngx_str_t *id);
static void ngx_http_rt_sse_ping(ngx_http_rt_stream_t *s);
static void ngx_http_rt_sse_retry(ngx_http_rt_stream_t *s);
static void ngx_http_rt_sse_text(ngx_http_rt_stream_t *s, const u_char *text,
    size_t len);


static const ngx_rt_subscriber_ops_t  ngx_http_rt_sse_sub_ops = {
    ngx_http_rt_sse_deliver,
    ngx_http_rt_sse_gap,
    ngx_http_rt_sse_place,
    ngx_http_rt_gather,
    ngx_http_rt_stream_drain,
    NULL
};


/* those who were told a short delay at the begin, or came together, do not all
 * come back together after a drain: they are told another one */

static const ngx_http_rt_stream_ops_t  ngx_http_rt_sse_ops = {
    ngx_http_rt_sse_ping,
    ngx_http_rt_sse_retry
};


ngx_int_t
ngx_http_rt_sse(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    ngx_int_t                rc;
    ngx_uint_t               i;
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

    ngx_http_rt_advise_stream(r, ctx);

    rc = ngx_http_rt_sse_headers(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    s = ngx_http_rt_stream_create(r, ctx, &ngx_http_rt_sse_sub_ops,
                                  &ngx_http_rt_sse_ops);
    if (s == NULL) {
        return NGX_ERROR;
    }

    ngx_http_rt_stream_open(s);
    ngx_http_rt_sse_subscribe(s, ctx);
    ngx_http_rt_stream_begin(s);

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
ngx_http_rt_sse_subscribe(ngx_http_rt_stream_t *s, ngx_http_rt_ctx_t *ctx)
{
    ngx_str_t   text;
    ngx_uint_t  given;

    ngx_http_rt_sse_retry(s);

    given = ngx_http_rt_sse_cursor(s->request, &text);

    if (ngx_rt_hub_subscribe(ctx->hub, &s->sub, ctx->channels,
                             given ? &text : NULL, s->conf->start)
        != NGX_OK)
    {
        ngx_http_rt_stream_close(s, "memory", 1);
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

    if (s->close || ngx_http_rt_stream_slow(s)) {
        return;
    }

    variant = s->conf->event;
    frame = msg->own ? NULL : msg->frames[variant];

    if (frame == NULL) {
        event = (variant == NGX_HTTP_RT_EVENT_CHANNEL) ? &msg->channel
                                                       : &msg->event;
        len = ngx_rt_frame_sse_len(&msg->id, event, &msg->data);

        frame = ngx_rt_frame_chunk(sub->hub, len);

        if (frame) {
            frame->seq = msg->seq;
            ngx_rt_frame_sse(frame->data + frame->head, &msg->id, event,
                             &msg->data);

            if (!msg->own) {
                msg->frames[variant] = frame;
            }
        }
    }

    if (frame && !msg->own) {
        frame->refs++;
    }

    ngx_http_rt_stream_queue(s, frame);

    s->messages++;
    ngx_rt_count(sub->hub, delivered[NGX_RT_SSE], 1);
}


static void
ngx_http_rt_sse_gap(ngx_rt_subscriber_t *sub, const ngx_str_t *channel,
    const char *reason, const ngx_str_t *id)
{
    ngx_str_t        why;
    ngx_rt_frame_t  *frame;

    why.data = (u_char *) reason;
    why.len = ngx_strlen(reason);

    frame = ngx_rt_frame_chunk(sub->hub,
                               ngx_rt_frame_gap_len(id, channel, &why));
    if (frame) {
        ngx_rt_frame_gap(frame->data + frame->head, id, channel, &why);
    }

    ngx_http_rt_stream_queue((ngx_http_rt_stream_t *) sub, frame);
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
ngx_http_rt_sse_ping(ngx_http_rt_stream_t *s)
{
    ngx_http_rt_sse_text(s, (u_char *) ":\n\n", 3);
}


static void
ngx_http_rt_sse_retry(ngx_http_rt_stream_t *s)
{
    u_char  *p, buf[sizeof("retry: \n\n") + NGX_INT_T_LEN];

    p = ngx_sprintf(buf, "retry: %M\n\n",
                    (ngx_msec_t) ngx_http_rt_jitter(s->conf->retry, 2));

    ngx_http_rt_sse_text(s, buf, p - buf);
}


static void
ngx_http_rt_sse_text(ngx_http_rt_stream_t *s, const u_char *text, size_t len)
{
    ngx_rt_frame_t  *frame;

    frame = ngx_rt_frame_chunk(s->sub.hub, len);

    if (frame) {
        ngx_memcpy(frame->data + frame->head, text, len);
    }

    ngx_http_rt_stream_queue(s, frame);
}
