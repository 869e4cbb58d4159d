
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Conditional polling: one GET is the current state, and a 304 while nothing
 * changed costs no lock, no Redis and no upstream.
 */


#include <ngx_http_rt.h>


static ngx_int_t ngx_http_rt_poll_headers(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v, ngx_uint_t match);
static ngx_int_t ngx_http_rt_poll_empty(ngx_http_request_t *r,
    ngx_uint_t status);
static ngx_int_t ngx_http_rt_poll_away(ngx_http_request_t *r);
static ngx_int_t ngx_http_rt_poll_body(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v);
static ngx_int_t ngx_http_rt_poll_read(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_rt_view_t *view, ngx_rt_delivery_t *msg);
static ngx_int_t ngx_http_rt_poll_copy(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, uint64_t off, ngx_rt_record_sh_t *rec,
    u_char **data);
static ngx_int_t ngx_http_rt_poll_share(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, uint64_t off, ngx_rt_record_sh_t *rec,
    u_char **data);
static void ngx_http_rt_poll_unshare(void *data);
static ngx_int_t ngx_http_rt_poll_one(ngx_http_request_t *r,
    ngx_rt_delivery_t *msg, ngx_buf_t *b);
static ngx_int_t ngx_http_rt_poll_list(ngx_http_request_t *r,
    ngx_rt_delivery_t *msgs, ngx_uint_t n, ngx_buf_t *b);
static size_t ngx_http_rt_poll_item_len(ngx_rt_delivery_t *msg);
static u_char *ngx_http_rt_poll_item(u_char *p, ngx_rt_delivery_t *msg);
static int ngx_libc_cdecl ngx_http_rt_poll_cmp(const void *one,
    const void *two);


/* a record may be overwritten between the look and the read */
#define NGX_HTTP_RT_POLL_TRIES    4

/* bodies of so many bytes are shared by those that are being given them */
#define NGX_HTTP_RT_POLL_LARGE    4096


typedef struct {
    ngx_rt_hub_t                 *hub;
    ngx_rt_frame_t               *frame;
} ngx_http_rt_poll_body_t;


static ngx_str_t  ngx_http_rt_no_cache = ngx_string("no-cache");


ngx_int_t
ngx_http_rt_poll(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    ngx_int_t              rc;
    ngx_uint_t             tries, match;
    ngx_http_rt_version_t  v;

    ctx->resume = ngx_http_rt_poll;

    for (tries = 0; tries < NGX_HTTP_RT_POLL_TRIES; tries++) {

        if (ngx_http_rt_version(r, ctx, &v) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        match = ngx_http_rt_match(r, ctx, &v);

        rc = ngx_http_rt_wait(r, ctx, &v, match);

        if (rc == NGX_DONE) {
            return NGX_DONE;
        }

        if (rc == NGX_AGAIN) {
            continue;
        }

        if (match) {
            ngx_rt_count(ctx->hub, polls_hit, 1);
            ctx->result = "hit";

            if (ngx_http_rt_etag(r, ctx, &v) != NGX_OK
                || ngx_http_rt_poll_headers(r, ctx, &v, 1) != NGX_OK)
            {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }

            return ngx_http_rt_poll_empty(r, NGX_HTTP_NOT_MODIFIED);
        }

        if (!v.known) {
            break;
        }

        rc = ngx_http_rt_poll_body(r, ctx, &v);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    ngx_rt_count(ctx->hub, polls_miss, 1);

    if (!v.fresh || v.known) {
        ctx->result = "stale";
        return ngx_http_rt_poll_away(r);
    }

    ctx->result = "miss";

    if (ngx_http_rt_etag(r, ctx, &v) != NGX_OK
        || ngx_http_rt_poll_headers(r, ctx, &v, 0) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_rt_poll_empty(r, NGX_HTTP_NO_CONTENT);
}


static ngx_int_t
ngx_http_rt_poll_headers(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, ngx_uint_t match)
{
    ngx_http_rt_advise(r, ctx, v, match);

    if (ngx_http_rt_header_out(r, "Cache-Control", &ngx_http_rt_no_cache)
        != NGX_OK
        || ngx_http_rt_advice_out(r, ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_rt_wait_applied(r, ctx);
}


static ngx_int_t
ngx_http_rt_poll_empty(ngx_http_request_t *r, ngx_uint_t status)
{
    ngx_int_t  rc;

    r->headers_out.status = status;

    if (ngx_http_rt_instead(r)) {
        /* the error's status goes out, whose body is only empty if it says
         * so */
        r->headers_out.content_length_n = 0;

    } else {
        r->err_status = 0;
        r->header_only = 1;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_send_special(r, NGX_HTTP_LAST);
}


static ngx_int_t
ngx_http_rt_poll_away(ngx_http_request_t *r)
{
    ngx_str_t  value;

    ngx_str_set(&value, "1");

    if (ngx_http_rt_header_out(r, "Retry-After", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_rt_text(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                            "not connected to Redis, nothing is known yet");
}


/* NGX_DECLINED: changed under us, begin again */

static ngx_int_t
ngx_http_rt_poll_body(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v)
{
    ngx_int_t           rc;
    ngx_buf_t          *b;
    ngx_uint_t          i, n;
    ngx_chain_t         out;
    ngx_rt_delivery_t  *msgs;

    b = ngx_calloc_buf(r->pool);
    msgs = ngx_palloc(r->pool, ctx->nchannels * sizeof(ngx_rt_delivery_t));

    if (b == NULL || msgs == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    n = 0;

    for (i = 0; i < ctx->nchannels; i++) {

        if (v->views[i].msg_seq == 0) {
            continue;
        }

        rc = ngx_http_rt_poll_read(r, ctx, &v->views[i], &msgs[n]);

        if (rc != NGX_OK) {
            return rc;
        }

        msgs[n++].channel = ctx->channels[i];
    }

    if (ctx->nchannels == 1) {
        rc = ngx_http_rt_poll_one(r, msgs, b);

    } else {
        rc = ngx_http_rt_poll_list(r, msgs, n, b);
    }

    if (rc != NGX_OK
        || (v->fresh && ngx_http_rt_etag(r, ctx, v) != NGX_OK)
        || ngx_http_rt_poll_headers(r, ctx, v, 0) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_rt_count(ctx->hub, polls_miss, 1);

    ctx->result = v->fresh ? "miss" : "stale";
    ctx->messages = n;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = b->last - b->pos;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b->memory = (b->last != b->pos);
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


static ngx_int_t
ngx_http_rt_poll_read(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_rt_view_t *view, ngx_rt_delivery_t *msg)
{
    u_char              *p;
    ngx_int_t            rc;
    ngx_rt_record_sh_t   rec;

    if (ngx_rt_log_peek(ctx->hub->store, view->latest, &rec) != NGX_OK
        || rec.seq != view->msg_seq)
    {
        return NGX_DECLINED;
    }

    if (ctx->nchannels == 1
        && (size_t) rec.event_len + rec.data_len >= NGX_HTTP_RT_POLL_LARGE)
    {
        rc = ngx_http_rt_poll_share(r, ctx, view->latest, &rec, &p);

    } else {
        rc = ngx_http_rt_poll_copy(r, ctx, view->latest, &rec, &p);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    msg->event.data = p;
    msg->event.len = rec.event_len;
    msg->data.data = p + rec.event_len;
    msg->data.len = rec.data_len;
    msg->seq = rec.seq;

    if (ctx->nchannels == 1) {
        ngx_str_null(&msg->id);
        return NGX_OK;
    }

    msg->id.data = msg->data.data + rec.data_len;
    msg->id.len = ngx_rt_hub_id(ctx->hub, msg->id.data, rec.seq, rec.tag);

    return NGX_OK;
}


/* with room for an id behind it, which only lists have */

static ngx_int_t
ngx_http_rt_poll_copy(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    uint64_t off, ngx_rt_record_sh_t *rec, u_char **data)
{
    *data = ngx_pnalloc(r->pool, (size_t) rec->event_len + rec->data_len
                                 + (ctx->nchannels == 1 ? 0
                                                        : NGX_RT_CURSOR_LEN));
    if (*data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_rt_log_body(ctx->hub->store, off, rec, *data);
}


/*
 * Clients that take it slowly have one copy between them: thousands of polls
 * that are answered at once would else need it as often.  It lives as long as
 * the first and the last of those that overlap.
 */

static ngx_int_t
ngx_http_rt_poll_share(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    uint64_t off, ngx_rt_record_sh_t *rec, u_char **data)
{
    size_t                    size;
    ngx_rt_hub_t             *hub;
    ngx_rt_frame_t           *frame;
    ngx_pool_cleanup_t       *cln;
    ngx_http_rt_poll_body_t  *body;

    hub = ctx->hub;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_rt_poll_body_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (hub->body && hub->body_seq == rec->seq) {
        frame = hub->body;
        frame->refs++;

    } else {
        size = (size_t) rec->event_len + rec->data_len;

        frame = ngx_rt_frame_alloc(hub, size);
        if (frame == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if (ngx_rt_log_body(hub->store, off, rec, frame->data) != NGX_OK) {
            ngx_rt_frame_free(frame);
            return NGX_DECLINED;
        }

        frame->len = size;

        hub->body = frame;
        hub->body_seq = rec->seq;
    }

    body = cln->data;
    body->hub = hub;
    body->frame = frame;

    cln->handler = ngx_http_rt_poll_unshare;

    *data = frame->data;

    return NGX_OK;
}


static void
ngx_http_rt_poll_unshare(void *data)
{
    ngx_http_rt_poll_body_t  *body = data;

    if (body->frame->refs == 1 && body->hub->body == body->frame) {
        body->hub->body = NULL;
    }

    ngx_rt_frame_free(body->frame);
}


static ngx_int_t
ngx_http_rt_poll_one(ngx_http_request_t *r, ngx_rt_delivery_t *msg,
    ngx_buf_t *b)
{
    b->pos = msg->data.data;
    b->last = b->pos + msg->data.len;

    return ngx_http_set_content_type(r);
}


static ngx_int_t
ngx_http_rt_poll_list(ngx_http_request_t *r, ngx_rt_delivery_t *msgs,
    ngx_uint_t n, ngx_buf_t *b)
{
    u_char      *p;
    size_t       len;
    ngx_uint_t   i;

    ngx_qsort(msgs, n, sizeof(ngx_rt_delivery_t), ngx_http_rt_poll_cmp);

    len = 2;

    for (i = 0; i < n; i++) {
        len += ngx_http_rt_poll_item_len(&msgs[i]) + 1;
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    b->pos = p;
    *p++ = '[';

    for (i = 0; i < n; i++) {

        if (i) {
            *p++ = ',';
        }

        p = ngx_http_rt_poll_item(p, &msgs[i]);
    }

    *p++ = ']';
    b->last = p;

    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    return NGX_OK;
}


static size_t
ngx_http_rt_poll_item_len(ngx_rt_delivery_t *msg)
{
    size_t  len;

    len = sizeof("{\"channel\":,\"id\":,\"event\":null,\"data\":}") - 1
          + ngx_rt_json_string_len(&msg->channel)
          + ngx_rt_json_string_len(&msg->id)
          + ngx_rt_json_string_len(&msg->event);

    if (ngx_rt_utf8_valid(msg->data.data, msg->data.len)) {
        return len + ngx_rt_json_string_len(&msg->data);
    }

    return len + sizeof("\"\",\"encoding\":\"base64\"") - 1
           + ngx_base64_encoded_length(msg->data.len);
}


static u_char *
ngx_http_rt_poll_item(u_char *p, ngx_rt_delivery_t *msg)
{
    ngx_str_t  base64;

    p = ngx_cpymem(p, "{\"channel\":", sizeof("{\"channel\":") - 1);
    p = ngx_rt_json_string(p, &msg->channel);
    p = ngx_cpymem(p, ",\"id\":", sizeof(",\"id\":") - 1);
    p = ngx_rt_json_string(p, &msg->id);
    p = ngx_cpymem(p, ",\"event\":", sizeof(",\"event\":") - 1);

    if (msg->event.len) {
        p = ngx_rt_json_string(p, &msg->event);

    } else {
        p = ngx_cpymem(p, "null", sizeof("null") - 1);
    }

    p = ngx_cpymem(p, ",\"data\":", sizeof(",\"data\":") - 1);

    if (ngx_rt_utf8_valid(msg->data.data, msg->data.len)) {
        p = ngx_rt_json_string(p, &msg->data);

    } else {
        *p++ = '"';
        base64.data = p;
        ngx_encode_base64(&base64, &msg->data);
        p += base64.len;
        p = ngx_cpymem(p, "\",\"encoding\":\"base64\"",
                       sizeof("\",\"encoding\":\"base64\"") - 1);
    }

    *p++ = '}';

    return p;
}


static int ngx_libc_cdecl
ngx_http_rt_poll_cmp(const void *one, const void *two)
{
    const ngx_rt_delivery_t  *a, *b;

    a = one;
    b = two;

    return (a->seq > b->seq) - (a->seq < b->seq);
}
