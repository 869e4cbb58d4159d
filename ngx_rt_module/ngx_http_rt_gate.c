
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The conditional gate: stands before whatever answers in the location, and
 * answers 304 by itself while the version of its channels is the one that the
 * client has.
 *
 *     access phases --> gate --> matches, fresh --> 304
 *                         |
 *                         +--> content handler --> 200 --> header filter
 *                                                          ETag: "version"
 *
 * The version is read before the content handler is asked, so what it answers
 * is that version or a newer one: told as too old at worst, and then asked
 * for once more.  In any doubt the request goes on and gets no ETag of ours.
 */


#include <ngx_http_rt.h>


static ngx_int_t ngx_http_rt_gate(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx);
static ngx_http_rt_ctx_t *ngx_http_rt_gate_begin(ngx_http_request_t *r);
static ngx_int_t ngx_http_rt_gate_bypass(ngx_http_rt_ctx_t *ctx);
static ngx_int_t ngx_http_rt_gate_version(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v);
static void ngx_http_rt_gate_set(ngx_http_rt_ctx_t *ctx, u_char *digest);
static ngx_uint_t ngx_http_rt_gate_names(ngx_table_elt_t *h,
    ngx_str_t *version);
static ngx_int_t ngx_http_rt_gate_304(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx);
static ngx_int_t ngx_http_rt_gate_headers(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx);
static void ngx_http_rt_gate_cleanup(void *data);
#if (NGX_HTTP_CACHE)
static ngx_uint_t ngx_http_rt_gate_cached(ngx_http_request_t *r,
    ngx_str_t *version);
#endif


static const u_char  ngx_http_rt_gate_key[16] = "ngx_rt names 1";


/*
 * A handler of the phase before content.  It runs again when a request that
 * was held is to go on, and in the location of an internal redirect.
 */

ngx_int_t
ngx_http_rt_gate_handler(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_http_rt_ctx_t       *ctx;
    ngx_http_rt_loc_conf_t  *rlcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);

    /* once an upstream was asked it is too late to read a version */

    if (rlcf->gate == NULL || r != r->main || r->upstream) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_rt_module);

    if (ctx && ctx->gated) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_rt_gate_begin(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))
        || ngx_http_rt_instead(r)
        || ngx_http_rt_channels(r, rlcf->gate->channels, ctx) != NGX_OK)
    {
        return ngx_http_rt_gate_bypass(ctx);
    }

    ngx_http_rt_ahead(r, ctx);

    rc = ngx_http_rt_gate(r, ctx);

    if (rc == NGX_DECLINED || rc == NGX_DONE) {
        return rc;
    }

    ngx_http_finalize_request(r, rc);

    return NGX_DONE;
}


/* what ngx_http_rt_wait() calls again: NGX_DECLINED, the request goes on;
 * NGX_DONE, it is held; else it was answered */

static ngx_int_t
ngx_http_rt_gate(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    ngx_int_t              rc;
    ngx_uint_t             match;
    ngx_http_rt_version_t  v;

    for ( ;; ) {

        if (ngx_http_rt_version(r, ctx, &v) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        rc = ngx_http_rt_gate_version(r, ctx, &v);

        if (rc == NGX_ERROR) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        match = (rc == NGX_OK
                 && ngx_http_rt_gate_names(r->headers_in.if_none_match,
                                           &ctx->version));

        switch (ngx_http_rt_wait(r, ctx, &v, match)) {

        case NGX_DONE:
            return NGX_DONE;

        case NGX_AGAIN:
            continue;
        }

        break;
    }

    if (rc == NGX_DECLINED) {
        return ngx_http_rt_gate_bypass(ctx);
    }

    ctx->gated = 1;

    ngx_http_rt_advise(r, ctx, &v, match);

    if (match) {
        return ngx_http_rt_gate_304(r, ctx);
    }

    ngx_rt_count(ctx->hub, gate_miss, 1);
    ctx->result = "miss";

    /* a part is put together with others by its ETag, which says less than
     * that their bytes are the same: it keeps what its own handler says */

    ctx->stamp = (r->headers_in.range == NULL);

    if (ctx->stamp && r->headers_in.if_match
        && ngx_http_rt_gate_names(r->headers_in.if_match, &ctx->version))
    {
        /* holds; nginx would compare it with the upstream's */
        r->headers_in.if_match = NULL;
    }

    return NGX_DECLINED;
}


/*
 * The context, made for the location's gate.  An internal redirect takes
 * contexts away, so it is found by the pool's cleanup, too.
 */

static ngx_http_rt_ctx_t *
ngx_http_rt_gate_begin(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t      *cln;
    ngx_http_rt_ctx_t       *ctx;
    ngx_http_rt_loc_conf_t  *rlcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);

    ctx = ngx_http_rt_context(r, rlcf->gate->hub);
    if (ctx == NULL) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_rt_gate_cleanup;
    cln->data = ctx;

    ctx->transport = NGX_HTTP_RT_GATE;
    ctx->resume = ngx_http_rt_gate;

    return ctx;
}


static void
ngx_http_rt_gate_cleanup(void *data)
{
    /* it is there to be found */
}


ngx_http_rt_ctx_t *
ngx_http_rt_gate_ctx(ngx_http_request_t *r)
{
    ngx_http_rt_ctx_t   *ctx;
    ngx_pool_cleanup_t  *cln;

    ctx = ngx_http_get_module_ctx(r, ngx_http_rt_module);

    if (ctx || r != r->main || !(r->internal || r->filter_finalize)) {
        return ctx;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_rt_gate_cleanup) {
            return cln->data;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_rt_gate_bypass(ngx_http_rt_ctx_t *ctx)
{
    ngx_rt_count(ctx->hub, gate_bypass, 1);

    ctx->gated = 1;
    ctx->result = "bypass";
    ngx_str_null(&ctx->version);

    return NGX_DECLINED;
}


/*
 * ctx->version, as text.  NGX_OK; NGX_DECLINED: it is not known; NGX_ERROR.
 *
 * by=publish  seq of the latest change of any of the channels.  The names are
 *             in it, too: a URL whose channels follow from who asks has
 *             another version for each of them
 * by=payload  the digest of the latest messages, of all channels: what counts
 *             them in this zone is left out, so it is the same on every node
 * streams     the ids
 */

static ngx_int_t
ngx_http_rt_gate_version(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v)
{
    ngx_rt_cursor_t          c;
    ngx_http_rt_loc_conf_t  *rlcf;

    ngx_str_null(&ctx->version);

    if (!v->fresh || !v->confirmed) {
        return NGX_DECLINED;
    }

    if (ctx->hub->store->stream) {
        ctx->version = v->text;
        return NGX_OK;
    }

    c = v->cursor;
    c.digested = 1;
    c.grouped = 0;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);

    if (rlcf->gate->by == NGX_HTTP_RT_GATE_PAYLOAD) {

        if (!v->certain) {
            return NGX_DECLINED;
        }

        c.epoch = 0;
        c.seq = 0;

        if (ctx->nchannels > 1) {
            ngx_memcpy(c.digest, c.group, NGX_RT_DIGEST_LEN);
        }

    } else {
        ngx_http_rt_gate_set(ctx, c.digest);
    }

    if (ctx->text == NULL) {
        ctx->text = ngx_pnalloc(r->pool, NGX_RT_CURSOR_LEN + 2);
        if (ctx->text == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_http_rt_quote(&ctx->version, ctx->text,
                      ngx_rt_cursor_format(ctx->text + 1, &c));

    return NGX_OK;
}


/* a digest of the names, each keyed with the hash of the one before: no
 * message's, by its own first key */

static void
ngx_http_rt_gate_set(ngx_http_rt_ctx_t *ctx, u_char *digest)
{
    uint64_t    hash[2];
    ngx_uint_t  i;

    ngx_memcpy(hash, ngx_http_rt_gate_key, 16);

    for (i = 0; i < ctx->nchannels; i++) {
        ngx_rt_hash128((u_char *) hash, ctx->channels[i].data,
                       ctx->channels[i].len, hash);
    }

    ngx_memcpy(digest, hash, NGX_RT_DIGEST_LEN);
}


/* 1: a line of the header names the version.  "*" does not: whether there is
 * anything is known to the content handler alone */

static ngx_uint_t
ngx_http_rt_gate_names(ngx_table_elt_t *h, ngx_str_t *version)
{
    ngx_str_t  list, tag;

    for ( /* void */ ; h; h = ngx_http_rt_next_line(h)) {

        list = h->value;

        while (ngx_rt_etag_next(&list, &tag) == NGX_OK) {

            if (tag.len == version->len
                && ngx_memcmp(tag.data, version->data, tag.len) == 0)
            {
                return 1;
            }
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_rt_gate_304(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    ngx_int_t  rc;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_rt_count(ctx->hub, gate_hit, 1);
    ctx->result = "hit";

    if (ngx_http_rt_gate_headers(r, ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = NGX_HTTP_NOT_MODIFIED;
    r->header_only = 1;

    return ngx_http_send_header(r);
}


/*
 * The answer of the content handler.  Only a 200 is that of the version, and
 * not the one that error_page puts in the place of another status.
 */

ngx_int_t
ngx_http_rt_gate_filter(ngx_http_request_t *r)
{
    ngx_http_rt_ctx_t  *ctx;

    if (r != r->main
        || r->headers_out.status != NGX_HTTP_OK
        || r->err_status)
    {
        return NGX_OK;
    }

    ctx = ngx_http_rt_gate_ctx(r);

    if (ctx == NULL || !ctx->stamp) {
        return NGX_OK;
    }

#if (NGX_HTTP_CACHE)
    if (ngx_http_rt_gate_cached(r, &ctx->version)) {
        return NGX_OK;
    }
#endif

    ngx_http_clear_etag(r);

    return ngx_http_rt_gate_headers(r, ctx);
}


static ngx_int_t
ngx_http_rt_gate_headers(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    if (ngx_http_rt_etag_out(r, &ctx->version) != NGX_OK
        || ngx_http_rt_advice_out(r, ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_rt_wait_applied(r, ctx);
}


#if (NGX_HTTP_CACHE)

/*
 * 1: the answer was made earlier, for any version.  One whose key has the
 * version in it was made for this very one.
 */

static ngx_uint_t
ngx_http_rt_gate_cached(ngx_http_request_t *r, ngx_str_t *version)
{
    u_char      *p, *last;
    ngx_str_t   *key;
    ngx_uint_t   i;

    if (r->upstream == NULL || r->cache == NULL) {
        return 0;
    }

    switch (r->upstream->cache_status) {

    case NGX_HTTP_CACHE_HIT:
    case NGX_HTTP_CACHE_STALE:
    case NGX_HTTP_CACHE_UPDATING:
        break;

    default:
        /* the upstream was asked */
        return 0;
    }

    key = r->cache->keys.elts;

    for (i = 0; i < r->cache->keys.nelts; i++) {
        last = key[i].data + key[i].len;

        for (p = key[i].data; (size_t) (last - p) >= version->len; p++) {

            if (ngx_memcmp(p, version->data, version->len) == 0) {
                return 0;
            }
        }
    }

    return 1;
}

#endif
