
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * rt_publish: the body of a POST or PUT is a message.  An embedded hub takes
 * it at once; Redis is asked, and the request waits for what it says.
 */


#include <ngx_http_rt.h>
#include <ngx_rt_source.h>


#define NGX_HTTP_RT_ACCEPTED      202


/* a publish that waits for Redis, in the request's pool */

typedef struct {
    ngx_rt_publish_t              pub;
    ngx_http_request_t           *request;
} ngx_http_rt_publish_t;


static ngx_int_t ngx_http_rt_publish_method(ngx_http_request_t *r);
static ngx_int_t ngx_http_rt_publish_event(ngx_http_request_t *r,
    ngx_rt_hub_conf_t *hcf, ngx_str_t *event, const char **why);
static ngx_int_t ngx_http_rt_publish_refuse(ngx_http_request_t *r,
    ngx_uint_t status, const char *text);
static void ngx_http_rt_publish_body(ngx_http_request_t *r);
static off_t ngx_http_rt_publish_size(ngx_http_request_t *r);
static ngx_int_t ngx_http_rt_publish_data(ngx_http_request_t *r, size_t size,
    ngx_str_t *data);
static ngx_int_t ngx_http_rt_publish_store(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_rt_message_t *msg);
static ngx_int_t ngx_http_rt_publish_redis(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_rt_message_t *msg);
static void ngx_http_rt_publish_cleanup(void *data);
static void ngx_http_rt_publish_done(ngx_rt_publish_t *pub);
static ngx_int_t ngx_http_rt_publish_answer(ngx_http_request_t *r,
    ngx_rt_publish_t *pub);
static ngx_int_t ngx_http_rt_publish_error(ngx_http_request_t *r,
    ngx_str_t *error);
static ngx_int_t ngx_http_rt_publish_away(ngx_http_request_t *r,
    const char *text);
static ngx_int_t ngx_http_rt_publish_accepted(ngx_http_request_t *r,
    ngx_str_t *id, int64_t receivers);


ngx_int_t
ngx_http_rt_publish_handler(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_str_t                event;
    const char              *why;
    ngx_http_rt_ctx_t       *ctx;
    ngx_rt_hub_conf_t       *hcf;
    ngx_http_rt_loc_conf_t  *rlcf;

    if (!(r->method & (NGX_HTTP_POST|NGX_HTTP_PUT))) {
        return ngx_http_rt_publish_method(r);
    }

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);
    hcf = rlcf->hub;

    if (hcf->hub == NULL) {
        return NGX_HTTP_SERVICE_UNAVAILABLE;
    }

    if (ngx_http_rt_prepare(r, hcf, rlcf->channels, &ctx, &rc) != NGX_OK) {
        return rc;
    }

    if (ctx->nchannels != 1) {
        return ngx_http_rt_publish_refuse(r, NGX_HTTP_BAD_REQUEST,
                                          "one channel is published to");
    }

    if (ngx_http_rt_publish_event(r, hcf, &event, &why) != NGX_OK) {
        return ngx_http_rt_publish_refuse(r, NGX_HTTP_BAD_REQUEST, why);
    }

    if (r->headers_in.content_length_n > (off_t) hcf->message_max) {
        return ngx_http_rt_publish_refuse(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                          "message too large");
    }

    rc = ngx_http_read_client_request_body(r, ngx_http_rt_publish_body);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


static ngx_int_t
ngx_http_rt_publish_method(ngx_http_request_t *r)
{
    static ngx_str_t  allow = ngx_string("POST, PUT");

    if (ngx_http_rt_header_out(r, "Allow", &allow) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_rt_publish_refuse(r, NGX_HTTP_NOT_ALLOWED,
                                      "POST or PUT is needed here");
}


/* NGX_OK, event is empty without RT-Event; NGX_DECLINED with *why */

static ngx_int_t
ngx_http_rt_publish_event(ngx_http_request_t *r, ngx_rt_hub_conf_t *hcf,
    ngx_str_t *event, const char **why)
{
    ngx_str_t  *value;

    ngx_str_null(event);

    value = ngx_http_rt_header_in(r, "rt-event", sizeof("rt-event") - 1);

    if (value == NULL) {
        return NGX_OK;
    }

    if (ngx_rt_event_check(value) != NGX_OK) {
        *why = "bad event name";
        return NGX_DECLINED;
    }

    if (hcf->source == NGX_RT_SOURCE_PUBSUB
        && hcf->payload == NGX_RT_PAYLOAD_RAW)
    {
        *why = "an event name needs \"payload json\" in this hub";
        return NGX_DECLINED;
    }

    *event = *value;

    return NGX_OK;
}


/* an answer before the body was read, and without asking for it */

static ngx_int_t
ngx_http_rt_publish_refuse(ngx_http_request_t *r, ngx_uint_t status,
    const char *text)
{
    r->expect_tested = 1;

    return ngx_http_rt_text(r, status, text);
}


static void
ngx_http_rt_publish_body(ngx_http_request_t *r)
{
    off_t                    size;
    ngx_int_t                rc;
    const char              *why;
    ngx_rt_message_t         msg;
    ngx_http_rt_ctx_t       *ctx;
    ngx_rt_hub_conf_t       *hcf;
    ngx_http_rt_loc_conf_t  *rlcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_rt_module);
    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);
    hcf = rlcf->hub;

    ngx_memzero(&msg, sizeof(ngx_rt_message_t));

    if (ngx_http_rt_publish_event(r, hcf, &msg.event, &why) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    /* the length of a chunked body is known only now */

    size = ngx_http_rt_publish_size(r);

    if (size > (off_t) hcf->message_max) {
        rc = ngx_http_rt_text(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                              "message too large");
        ngx_http_finalize_request(r, rc);
        return;
    }

    if (ngx_http_rt_publish_data(r, size, &msg.data) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    if (hcf->source == NGX_RT_SOURCE_EMBEDDED) {
        rc = ngx_http_rt_publish_store(r, ctx, &msg);

    } else {
        rc = ngx_http_rt_publish_redis(r, ctx, &msg);
    }

    if (rc != NGX_AGAIN) {
        ngx_http_finalize_request(r, rc);
    }
}


static off_t
ngx_http_rt_publish_size(ngx_http_request_t *r)
{
    off_t         size;
    ngx_chain_t  *cl;

    size = 0;

    if (r->request_body) {
        for (cl = r->request_body->bufs; cl; cl = cl->next) {
            size += ngx_buf_size(cl->buf);
        }
    }

    return size;
}


/* the body in one piece; most often it is one already */

static ngx_int_t
ngx_http_rt_publish_data(ngx_http_request_t *r, size_t size, ngx_str_t *data)
{
    u_char       *p;
    size_t        n;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    if (size == 0) {
        ngx_str_set(data, "");
        return NGX_OK;
    }

    data->len = size;

    cl = r->request_body->bufs;

    if (ngx_buf_in_memory(cl->buf)
        && (size_t) (cl->buf->last - cl->buf->pos) == size)
    {
        data->data = cl->buf->pos;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    data->data = p;

    for ( /* void */ ; cl; cl = cl->next) {
        b = cl->buf;
        n = ngx_buf_size(b);

        if (ngx_buf_in_memory(b)) {
            p = ngx_cpymem(p, b->pos, n);

        } else if (n) {
            if (ngx_read_file(b->file, p, n, b->file_pos) != (ssize_t) n) {
                return NGX_ERROR;
            }

            p += n;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_rt_publish_store(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_rt_message_t *msg)
{
    uint64_t          now, seq;
    ngx_int_t         rc;
    ngx_str_t         id;
    ngx_time_t       *tp;
    ngx_rt_cursor_t   cursor;
    u_char            buf[NGX_RT_CURSOR_LEN], tag[NGX_RT_TAG_LEN];

    ngx_memzero(&cursor, sizeof(ngx_rt_cursor_t));

    ngx_rt_message_digest(&ctx->channels[0], msg, cursor.digest);

    ngx_memzero(tag, NGX_RT_TAG_LEN);
    ngx_memcpy(tag, cursor.digest, NGX_RT_DIGEST_LEN);

    tp = ngx_timeofday();
    now = (uint64_t) tp->sec * 1000 + tp->msec;

    rc = ngx_rt_store_publish(ctx->hub->store, 0, &ctx->channels[0], msg,
                              tag, now, 1, &seq);

    if (rc == NGX_OK || rc == NGX_ERROR) {
        /* NGX_ERROR leaves a gap, to be told as well */
        ngx_rt_hub_notify(ctx->hub);
    }

    if (rc == NGX_ERROR) {
        return ngx_http_rt_text(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                "message too large for this zone");
    }

    if (rc != NGX_OK) {
        return ngx_http_rt_publish_away(r, "no room for this channel");
    }

    cursor.epoch = ctx->hub->store->sh->epoch;
    cursor.seq = seq;
    cursor.digested = 1;

    id.data = buf;
    id.len = ngx_rt_cursor_format(buf, &cursor) - buf;

    return ngx_http_rt_publish_accepted(r, &id,
                                        ngx_rt_hub_viewers(ctx->hub,
                                                           &ctx->channels[0]));
}


/* NGX_AGAIN: Redis was asked; or the request's result */

static ngx_int_t
ngx_http_rt_publish_redis(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_rt_message_t *msg)
{
    ngx_connection_t       *c;
    ngx_http_cleanup_t     *cln;
    ngx_http_rt_publish_t  *rp;

    rp = ngx_pcalloc(r->pool, sizeof(ngx_http_rt_publish_t));
    if (rp == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rp->request = r;
    rp->pub.handler = ngx_http_rt_publish_done;
    rp->pub.data = rp;

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_rt_publish_send(ctx->hub, &rp->pub, &ctx->channels[0],
                            &msg->event, &msg->data)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_http_rt_publish_cleanup;
    cln->data = rp;

    /* a client that leaves meanwhile is noticed, as in limit_req */

    c = r->connection;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);

    } else if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_AGAIN;
}


static void
ngx_http_rt_publish_cleanup(void *data)
{
    ngx_http_rt_publish_t  *rp = data;

    if (rp->pub.active) {
        ngx_rt_publish_cancel(&rp->pub);
    }
}


static void
ngx_http_rt_publish_done(ngx_rt_publish_t *pub)
{
    ngx_int_t               rc;
    ngx_connection_t       *c;
    ngx_http_request_t     *r;
    ngx_http_rt_publish_t  *rp;

    rp = pub->data;
    r = rp->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    rc = ngx_http_rt_publish_answer(r, pub);

    ngx_http_finalize_request(r, rc);

    ngx_http_run_posted_requests(c);
}


static ngx_int_t
ngx_http_rt_publish_answer(ngx_http_request_t *r, ngx_rt_publish_t *pub)
{
    switch (pub->rc) {

    case NGX_OK:
        return pub->id.len ? ngx_http_rt_publish_accepted(r, &pub->id, -1)
                           : ngx_http_rt_publish_accepted(r, NULL,
                                                          pub->receivers);

    case NGX_DECLINED:
        return ngx_http_rt_publish_away(r, "Redis is away, nothing was "
                                           "published");

    case NGX_ERROR:
        return ngx_http_rt_publish_error(r, &pub->error);

    default: /* NGX_ABORT */
        return ngx_http_rt_text(r, NGX_HTTP_BAD_GATEWAY,
                                "Redis did not answer, the message may have "
                                "been published");
    }
}


/* Redis refused: for a while, or for good until somebody changes something;
 * or it was not asked, for what can't be said in JSON */

static ngx_int_t
ngx_http_rt_publish_error(ngx_http_request_t *r, ngx_str_t *error)
{
    ngx_uint_t  i;

    static ngx_str_t  passing[] = {
        ngx_string("LOADING"),
        ngx_string("MASTERDOWN"),
        ngx_string("CLUSTERDOWN"),
        ngx_string("READONLY"),
        ngx_string("TRYAGAIN"),
        ngx_string("BUSY"),
        ngx_string("OOM"),
        ngx_string("MISCONF"),
        ngx_string("NOREPLICAS"),
        ngx_null_string
    };

    static ngx_str_t  not_utf8 = ngx_string("not UTF-8");

    if (error->len == not_utf8.len
        && ngx_strncmp(error->data, not_utf8.data, not_utf8.len) == 0)
    {
        return ngx_http_rt_text(r, NGX_HTTP_BAD_REQUEST,
                                "message and event must be UTF-8 in this "
                                "hub, its payload is JSON");
    }

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "Redis refused a publish: \"%V\"", error);

    for (i = 0; passing[i].len; i++) {
        if (error->len > passing[i].len
            && error->data[passing[i].len] == ' '
            && ngx_strncmp(error->data, passing[i].data, passing[i].len) == 0)
        {
            return ngx_http_rt_publish_away(r, "Redis takes nothing now, "
                                               "nothing was published");
        }
    }

    return ngx_http_rt_text(r, NGX_HTTP_BAD_GATEWAY,
                            "Redis refused, nothing was published");
}


static ngx_int_t
ngx_http_rt_publish_away(ngx_http_request_t *r, const char *text)
{
    static ngx_str_t  after = ngx_string("1");

    if (ngx_http_rt_header_out(r, "Retry-After", &after) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_rt_text(r, NGX_HTTP_SERVICE_UNAVAILABLE, text);
}


/* id: NULL where there is none; receivers: -1 where nobody knows */

static ngx_int_t
ngx_http_rt_publish_accepted(ngx_http_request_t *r, ngx_str_t *id,
    int64_t receivers)
{
    u_char             *p;
    size_t              len;
    ngx_int_t           rc;
    ngx_buf_t          *b;
    ngx_str_t          *channel;
    ngx_chain_t         out;
    ngx_http_rt_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_rt_module);
    channel = &ctx->channels[0];

    len = sizeof("{\"channel\":,\"id\":null,\"receivers\":}\n")
          + ngx_rt_json_string_len(channel)
          + (id ? ngx_rt_json_string_len(id) : 0) + NGX_INT64_LEN;

    b = ngx_create_temp_buf(r->pool, len);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    p = ngx_sprintf(b->last, "{\"channel\":");
    p = ngx_rt_json_string(p, channel);

    if (id) {
        p = ngx_sprintf(p, ",\"id\":");
        p = ngx_rt_json_string(p, id);

    } else {
        p = ngx_sprintf(p, ",\"id\":null");
    }

    if (receivers < 0) {
        b->last = ngx_sprintf(p, ",\"receivers\":null}\n");

    } else {
        b->last = ngx_sprintf(p, ",\"receivers\":%L}\n", receivers);
    }

    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    r->headers_out.status = NGX_HTTP_RT_ACCEPTED;
    r->headers_out.content_length_n = b->last - b->pos;
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}
