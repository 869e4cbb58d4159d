
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What the transports have in common: the channels a request names, the
 * transport it asks for, the version of what it asks for.
 */


#include <ngx_http_rt.h>


#define NGX_HTTP_RT_NOT_ACCEPTABLE  406


static ngx_int_t ngx_http_rt_channel_add(ngx_http_rt_ctx_t *ctx,
    ngx_str_t *name);
static ngx_int_t ngx_http_rt_channel_value(ngx_http_request_t *r,
    ngx_http_complex_value_t *cv, ngx_str_t *value);
static ngx_uint_t ngx_http_rt_has_error_page(ngx_http_request_t *r,
    ngx_uint_t status);
static ngx_uint_t ngx_http_rt_asks(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_str_t *accept);
static ngx_uint_t ngx_http_rt_accepts(ngx_str_t *accept, const char *type,
    size_t len);
static ngx_uint_t ngx_http_rt_refused(const u_char *p, const u_char *last);
static ngx_table_elt_t *ngx_http_rt_header_next(ngx_list_part_t **part,
    ngx_uint_t *i, const char *name, size_t len);


ngx_int_t
ngx_http_rt_subscribe_handler(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_http_rt_ctx_t       *ctx;
    ngx_http_rt_loc_conf_t  *rlcf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);

    if (ngx_http_rt_prepare(r, rlcf->hub, rlcf->channels, &ctx, &rc)
        != NGX_OK)
    {
        return rc;
    }

    ngx_http_rt_ahead(r, ctx);

    /* conditions are ours to judge: nginx's filter would answer 304 to "*"
     * and 412 to what names no version, for streams too */

    r->disable_not_modified = 1;

    /* a subrequest is part of another answer, as is the page of an error: it
     * ends, so it is a poll, and the headers it sees are not about it */

    ctx->transport = (r == r->main && !ngx_http_rt_instead(r))
                     ? ngx_http_rt_negotiate(r, ctx, rlcf->transports)
                     : NGX_HTTP_RT_POLL;

    switch (ctx->transport) {

    case NGX_HTTP_RT_SSE:
        return ngx_http_rt_sse(r, ctx);

    case NGX_HTTP_RT_POLL:
        return ngx_http_rt_poll(r, ctx);

    default:
        return NGX_HTTP_RT_NOT_ACCEPTABLE;
    }
}


ngx_int_t
ngx_http_rt_prepare(ngx_http_request_t *r, ngx_rt_hub_conf_t *hub,
    ngx_array_t *values, ngx_http_rt_ctx_t **ctxp, ngx_int_t *status)
{
    ngx_int_t           rc;
    ngx_http_rt_ctx_t  *ctx;

    ctx = ngx_http_rt_context(r, hub);

    if (ctx == NULL) {
        *status = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DONE;
    }

    rc = ngx_http_rt_channels(r, values, ctx);

    switch (rc) {

    case NGX_OK:
        *ctxp = ctx;
        return NGX_OK;

    case NGX_DECLINED:
        *status = ngx_http_rt_text(r, NGX_HTTP_BAD_REQUEST,
                                   "bad channel name: 1 to 255 bytes, no "
                                   "space, no control characters");
        return NGX_DONE;

    case NGX_ABORT:
        *status = ngx_http_rt_text(r, NGX_HTTP_BAD_REQUEST,
                                   "too many channels: at most 32");
        return NGX_DONE;

    default:
        *status = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DONE;
    }
}


ngx_http_rt_ctx_t *
ngx_http_rt_context(ngx_http_request_t *r, ngx_rt_hub_conf_t *hub)
{
    ngx_http_rt_ctx_t  *ctx;

    if (hub->hub == NULL) {
        return NULL;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_rt_module);

    if (ctx == NULL) {
        ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_rt_ctx_t));
        if (ctx == NULL) {
            return NULL;
        }

        ngx_http_set_ctx(r, ctx, ngx_http_rt_module);
    }

    ctx->hub = hub->hub;
    ctx->nchannels = 0;
    ctx->wait = NULL;
    ctx->views = NULL;
    ctx->text = NULL;
    ctx->prefer = 0;
    ctx->asked = 0;
    ctx->gated = 0;
    ctx->stamp = 0;

    return ctx;
}


ngx_int_t
ngx_http_rt_channels(ngx_http_request_t *r, ngx_array_t *values,
    ngx_http_rt_ctx_t *ctx)
{
    u_char                    *p, *last, *end;
    ngx_int_t                  rc;
    ngx_str_t                  value, name;
    ngx_uint_t                 i;
    ngx_http_complex_value_t  *cv;

    ctx->channels = ngx_palloc(r->pool,
                               NGX_HTTP_RT_MAX_CHANNELS * sizeof(ngx_str_t));
    if (ctx->channels == NULL) {
        return NGX_ERROR;
    }

    cv = values->elts;

    for (i = 0; i < values->nelts; i++) {

        if (ngx_http_rt_channel_value(r, &cv[i], &value) != NGX_OK) {
            return NGX_ERROR;
        }

        p = value.data;
        end = p + value.len;

        for ( ;; ) {
            last = ngx_strlchr(p, end, ',');

            name.data = p;
            name.len = (last ? last : end) - p;

            rc = ngx_http_rt_channel_add(ctx, &name);

            if (rc != NGX_OK) {
                return rc;
            }

            if (last == NULL) {
                break;
            }

            p = last + 1;
        }
    }

    return NGX_OK;
}


/*
 * A value that is one variable, as most are, needs no copy and no script: its
 * code is that variable's and then the end.
 */

static ngx_int_t
ngx_http_rt_channel_value(ngx_http_request_t *r, ngx_http_complex_value_t *cv,
    ngx_str_t *value)
{
    uintptr_t                   *next;
    ngx_http_variable_value_t   *vv;
    ngx_http_script_var_code_t  *code;

    if (cv->lengths == NULL) {
        *value = cv->value;
        return NGX_OK;
    }

    code = cv->values;
    next = (uintptr_t *) (code + 1);

    if (code->code != ngx_http_script_copy_var_code || *next) {
        return ngx_http_complex_value(r, cv, value);
    }

    vv = ngx_http_get_flushed_variable(r, code->index);

    if (vv == NULL || vv->not_found) {
        ngx_str_null(value);

    } else {
        value->data = vv->data;
        value->len = vv->len;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_rt_channel_add(ngx_http_rt_ctx_t *ctx, ngx_str_t *name)
{
    ngx_uint_t  i;

    if (ngx_rt_channel_check(name) != NGX_OK) {
        return NGX_DECLINED;
    }

    for (i = 0; i < ctx->nchannels; i++) {

        if (ctx->channels[i].len == name->len
            && ngx_memcmp(ctx->channels[i].data, name->data, name->len) == 0)
        {
            return NGX_OK;
        }
    }

    if (ctx->nchannels == NGX_HTTP_RT_MAX_CHANNELS) {
        return NGX_ABORT;
    }

    ctx->channels[ctx->nchannels++] = *name;

    return NGX_OK;
}


ngx_int_t
ngx_http_rt_text(ngx_http_request_t *r, ngx_uint_t status, const char *text)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t   out;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_rt_has_error_page(r, status)) {
        return status;
    }

    b = ngx_create_temp_buf(r->pool, ngx_strlen(text) + 1);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->last = ngx_cpymem(b->last, text, ngx_strlen(text));
    *b->last++ = LF;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    ngx_str_set(&r->headers_out.content_type, "text/plain");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.status = status;
    r->headers_out.content_length_n = b->last - b->pos;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


/* 1: error_page is to answer instead of our text */

static ngx_uint_t
ngx_http_rt_has_error_page(ngx_http_request_t *r, ngx_uint_t status)
{
    ngx_uint_t                 i;
    ngx_http_err_page_t       *page;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->error_pages == NULL || r->error_page || r->uri_changes == 0) {
        return 0;
    }

    page = clcf->error_pages->elts;

    for (i = 0; i < clcf->error_pages->nelts; i++) {
        if (page[i].status == (ngx_int_t) status) {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_http_rt_negotiate(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_uint_t enabled)
{
    ngx_str_t   accept;
    ngx_uint_t  sse, only;

    if (!ngx_http_rt_asks(r, ctx, &accept) || accept.len == 0) {
        return (enabled & NGX_HTTP_RT_POLL) ? NGX_HTTP_RT_POLL
                                            : enabled & NGX_HTTP_RT_SSE;
    }

    sse = ngx_http_rt_accepts(&accept, "text/event-stream",
                              sizeof("text/event-stream") - 1);
    only = sse && ngx_strlchr(accept.data, accept.data + accept.len, ',')
                  == NULL;

    if (sse && (enabled & NGX_HTTP_RT_SSE)) {
        return NGX_HTTP_RT_SSE;
    }

    if ((enabled & NGX_HTTP_RT_POLL) && !only) {
        return NGX_HTTP_RT_POLL;
    }

    return ((enabled & NGX_HTTP_RT_SSE)
            && ngx_http_rt_accepts(&accept, "*/*", sizeof("*/*") - 1))
           ? NGX_HTTP_RT_SSE : 0;
}


/*
 * 1: there is an Accept.  That there is no Prefer is found on the same way
 * through the request's headers, as a rule: then none is looked for.
 */

static ngx_uint_t
ngx_http_rt_asks(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_str_t *accept)
{
    ngx_uint_t        i, n, prefers;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    n = 0;
    prefers = 0;

    for (part = &r->headers_in.headers.part; part; part = part->next) {

        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len != sizeof("accept") - 1 || h[i].hash == 0) {
                continue;
            }

            if (ngx_memcmp(h[i].lowcase_key, "accept", sizeof("accept") - 1)
                == 0)
            {
                *accept = h[i].value;
                n++;

            } else if (ngx_memcmp(h[i].lowcase_key, "prefer",
                                  sizeof("prefer") - 1) == 0)
            {
                prefers = 1;
            }
        }
    }

    ctx->asked = !prefers;

    return (n < 2) ? n
                   : ngx_http_rt_header_list(r, "accept",
                                             sizeof("accept") - 1, accept)
                     == NGX_OK;
}


/* 1: the list names the media range itself, and not with q=0 */

static ngx_uint_t
ngx_http_rt_accepts(ngx_str_t *accept, const char *type, size_t len)
{
    u_char  *p, *last, *end;

    p = accept->data;
    last = p + accept->len;

    while (p < last) {

        end = ngx_strlchr(p, last, ',');

        if (end == NULL) {
            end = last;
        }

        while (p < end && (*p == ' ' || *p == '\t')) {
            p++;
        }

        if ((size_t) (end - p) >= len
            && (*p | 0x20) == (*type | 0x20)
            && ngx_strncasecmp(p, (u_char *) type, len) == 0
            && ((size_t) (end - p) == len || p[len] == ';' || p[len] == ' '
                || p[len] == '\t')
            && !ngx_http_rt_refused(p + len, end))
        {
            return 1;
        }

        p = end + 1;
    }

    return 0;
}


/* 1: among the parameters of a media range is a q of zero */

static ngx_uint_t
ngx_http_rt_refused(const u_char *p, const u_char *last)
{
    while (p < last) {

        while (p < last && (*p == ';' || *p == ' ' || *p == '\t')) {
            p++;
        }

        if (last - p >= 3 && (p[0] == 'q' || p[0] == 'Q') && p[1] == '=') {

            if (p[2] != '0') {
                return 0;
            }

            for (p += 3; p < last && (*p == '.' || *p == '0'); p++) {
                /* void */
            }

            return p == last || *p == ';' || *p == ' ' || *p == '\t';
        }

        while (p < last && *p != ';') {
            p++;
        }
    }

    return 0;
}


ngx_str_t *
ngx_http_rt_header_in(ngx_http_request_t *r, const char *name, size_t len)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    i = 0;
    part = &r->headers_in.headers.part;

    h = ngx_http_rt_header_next(&part, &i, name, len);

    return h ? &h->value : NULL;
}


/* a header that is a list, which may be spread over several lines */

ngx_int_t
ngx_http_rt_header_list(ngx_http_request_t *r, const char *name, size_t len,
    ngx_str_t *value)
{
    u_char           *p;
    size_t            size;
    ngx_uint_t        i, n;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    i = 0;
    part = &r->headers_in.headers.part;

    h = ngx_http_rt_header_next(&part, &i, name, len);
    if (h == NULL) {
        return NGX_DECLINED;
    }

    *value = h->value;
    size = h->value.len;
    n = 1;

    while ((h = ngx_http_rt_header_next(&part, &i, name, len)) != NULL) {
        size += h->value.len + 1;
        n++;
    }

    if (n == 1) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, size);
    if (p == NULL) {
        return NGX_DECLINED;
    }

    value->data = p;
    i = 0;
    part = &r->headers_in.headers.part;

    while ((h = ngx_http_rt_header_next(&part, &i, name, len)) != NULL) {

        if (p != value->data) {
            *p++ = ',';
        }

        p = ngx_cpymem(p, h->value.data, h->value.len);
    }

    value->len = p - value->data;

    return NGX_OK;
}


static ngx_table_elt_t *
ngx_http_rt_header_next(ngx_list_part_t **part, ngx_uint_t *i,
    const char *name, size_t len)
{
    ngx_uint_t        n;
    ngx_list_part_t  *p;
    ngx_table_elt_t  *h;

    n = *i;

    for (p = *part; p; p = p->next) {

        h = p->elts;

        for ( /* void */ ; n < p->nelts; n++) {

            /* a byte more, for most are of another length or begin so */

            if (h[n].key.len == len && h[n].lowcase_key[0] == (u_char) *name
                && h[n].hash
                && ngx_memcmp(h[n].lowcase_key, name, len) == 0)
            {
                *part = p;
                *i = n + 1;

                return &h[n];
            }
        }

        n = 0;
    }

    return NULL;
}


ngx_int_t
ngx_http_rt_header_push(ngx_http_request_t *r, const char *key, size_t len,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.data = (u_char *) key;
    h->key.len = len;
    h->value = *value;

#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return NGX_OK;
}
