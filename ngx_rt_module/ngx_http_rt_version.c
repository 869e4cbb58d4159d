
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The version of what a request asks for: read from the table without a lock,
 * compared with what the client has, told as its ETag.
 */


#include <ngx_http_rt.h>


static ngx_int_t ngx_http_rt_version_places(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v);
static ngx_int_t ngx_http_rt_version_text(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v);
static ngx_uint_t ngx_http_rt_match_text(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v, ngx_str_t *value);
static ngx_uint_t ngx_http_rt_match_tag(ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, ngx_str_t *tag);


#define ngx_http_rt_match_group(a, b)                                         \
    (ngx_memcmp((a)->group, (b)->group, NGX_RT_DIGEST_LEN) == 0)


/* a poll of one of very many channels waits for memory more than it works */

void
ngx_http_rt_ahead(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    ngx_rt_table_key(ctx->hub->store, &ctx->channels[0], &ctx->key);
    ngx_rt_table_ahead(ctx->hub->store, &ctx->key);

    __builtin_prefetch(ctx->hub->slot, 1);

    ngx_http_rt_advice_ahead(r);
}


ngx_int_t
ngx_http_rt_version(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v)
{
    u_char           (*digests)[NGX_RT_DIGEST_LEN];
    uint64_t         seq, newest;
    ngx_uint_t       i;
    ngx_rt_key_t     key;
    ngx_rt_view_t   *view;
    ngx_rt_store_t  *st;

    st = ctx->hub->store;

    ngx_memzero(v, sizeof(ngx_http_rt_version_t));

    /* a poll that waits comes here often: the room is the same */

    if (ctx->views == NULL) {
        ctx->views = ngx_palloc(r->pool, ctx->nchannels
                                         * (sizeof(ngx_rt_view_t)
                                            + NGX_RT_DIGEST_LEN));
        if (ctx->views == NULL) {
            return NGX_ERROR;
        }
    }

    v->views = ctx->views;
    digests = (void *) (v->views + ctx->nchannels);

    v->confirmed = 1;
    v->certain = 1;
    v->fresh = ngx_rt_feed_fresh(st, ngx_current_msec, ctx->hub->conf->stale);

    seq = (uint64_t) -1;
    newest = 0;

    if (ctx->nchannels > 1) {

        /* before any channel is read: what changes meanwhile has a larger
         * seq.  One channel's version is enough, and each publish writes the
         * line that seq is in */

        seq = ngx_rt_store_seq(st);
        ngx_memzero(digests, ctx->nchannels * NGX_RT_DIGEST_LEN);
    }

    for (i = 0; i < ctx->nchannels; i++) {
        view = &v->views[i];

        if (i > 0) {
            ngx_rt_table_key(st, &ctx->channels[i], &key);
        }

        if (ngx_rt_hub_look(ctx->hub, &ctx->channels[i],
                            i ? &key : &ctx->key, view)
            != NGX_OK)
        {
            ngx_memzero(view, sizeof(ngx_rt_view_t));
            v->confirmed = 0;
            v->certain = 0;
            continue;
        }

        v->version = ngx_max(v->version, view->version);
        v->confirmed &= view->confirmed;

        if (view->msg_seq == 0) {
            v->certain = 0;
            continue;
        }

        v->known = 1;
        v->certain &= ngx_rt_view_certain(view) ? 1 : 0;

        if (ctx->nchannels > 1) {
            ngx_memcpy(digests[i], view->tag, NGX_RT_DIGEST_LEN);
        }

        if (view->msg_seq > newest) {
            newest = view->msg_seq;
            ngx_memcpy(v->cursor.digest, view->tag, NGX_RT_DIGEST_LEN);
        }
    }

    if (st->stream) {
        return ngx_http_rt_version_places(r, ctx, v);
    }

    v->cursor.epoch = st->sh->epoch;
    v->cursor.seq = ngx_min(seq, v->version);
    v->cursor.digested = v->known;

    if (ctx->nchannels > 1 && v->known) {
        v->cursor.grouped = 1;
        ngx_rt_group_digest((const u_char (*)[NGX_RT_DIGEST_LEN]) digests,
                            ctx->nchannels, v->cursor.group);
    }

    return NGX_OK;
}


/* of streams it is the places that the node has reached; 0-0 where it has none
 * yet, for a client that has seen nothing */

static ngx_int_t
ngx_http_rt_version_places(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v)
{
    u_char          *p;
    ngx_uint_t       i, n;
    ngx_rt_place_t  *places;

    n = ctx->nchannels;

    places = ngx_pcalloc(r->pool, n * sizeof(ngx_rt_place_t));
    p = ngx_pnalloc(r->pool, ngx_rt_places_len(n) + 2);

    if (places == NULL || p == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        places[i].known = 1;
        ngx_memcpy(places[i].tag, v->views[i].tag, NGX_RT_TAG_LEN);
    }

    ngx_http_rt_quote(&v->text, p,
                      ngx_rt_places_format(p + 1, places, n,
                                         ngx_rt_places_set(ctx->channels, n)));

    return NGX_OK;
}


/* v->text; of a poll that waits the room is the same */

static ngx_int_t
ngx_http_rt_version_text(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v)
{
    if (v->text.len) {
        return NGX_OK;
    }

    if (ctx->text == NULL) {
        ctx->text = ngx_pnalloc(r->pool, NGX_RT_CURSOR_LEN + 2);
        if (ctx->text == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_http_rt_quote(&v->text, ctx->text,
                      ngx_rt_cursor_format(ctx->text + 1, &v->cursor));

    return NGX_OK;
}


void
ngx_http_rt_quote(ngx_str_t *text, u_char *p, u_char *last)
{
    *p++ = '"';
    *last = '"';

    text->data = p;
    text->len = last - p;
}


ngx_uint_t
ngx_http_rt_match(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v)
{
    ngx_int_t         rc;
    ngx_str_t         list, tag;
    ngx_table_elt_t  *h;

    h = r->headers_in.if_none_match;

    if (h == NULL || !v->fresh || r != r->main || ngx_http_rt_instead(r)) {
        return 0;
    }

    if (ngx_http_rt_match_text(r, ctx, v, &h->value)) {
        return 1;
    }

    list = h->value;

    for ( ;; ) {
        rc = ngx_rt_etag_next(&list, &tag);

        if (rc == NGX_DECLINED) {
            return v->known;
        }

        if (rc != NGX_OK) {
            return 0;
        }

        if (ngx_http_rt_match_tag(ctx, v, &tag)) {
            return 1;
        }
    }
}


/* 1: the client has the very text that it would be given, as most have that
 * have the version at all; what the other way says of it is known */

static ngx_uint_t
ngx_http_rt_match_text(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, ngx_str_t *value)
{
    if (!v->confirmed
        || (v->cursor.seq < v->version && !ctx->hub->store->stream)
        || ngx_http_rt_version_text(r, ctx, v) != NGX_OK)
    {
        return 0;
    }

    return value->len == v->text.len + 2
           && ngx_memcmp(value->data, v->text.data - 1, value->len) == 0;
}


static ngx_uint_t
ngx_http_rt_match_tag(ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v,
    ngx_str_t *tag)
{
    ngx_rt_cursor_t  c;

    if (ctx->hub->store->stream) {
        return v->confirmed && tag->len == v->text.len
               && ngx_memcmp(tag->data, v->text.data, tag->len) == 0;
    }

    if (ngx_rt_cursor_parse(&c, tag->data, tag->len) != NGX_OK) {
        return 0;
    }

    /* a seq alone may be that of other channels: those of a URL may follow
     * from who asks */

    if (v->confirmed && c.epoch == v->cursor.epoch && c.seq >= v->version
        && c.digested == v->known
        && ngx_memcmp(c.digest, v->cursor.digest, NGX_RT_DIGEST_LEN) == 0
        && (!c.grouped || ngx_http_rt_match_group(&c, &v->cursor)))
    {
        return 1;
    }

    return v->certain && c.digested && c.grouped == v->cursor.grouped
           && (c.grouped
               ? ngx_http_rt_match_group(&c, &v->cursor)
               : ngx_memcmp(c.digest, v->cursor.digest, NGX_RT_DIGEST_LEN)
                 == 0);
}


ngx_int_t
ngx_http_rt_etag(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v)
{
    if (ngx_http_rt_version_text(r, ctx, v) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->version = v->text;

    if (ngx_http_rt_instead(r)) {
        return NGX_OK;
    }

    return ngx_http_rt_etag_out(r, &ctx->version);
}


ngx_int_t
ngx_http_rt_etag_out(ngx_http_request_t *r, ngx_str_t *version)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    ngx_str_set(&h->key, "ETag");
    h->value.data = version->data - 1;
    h->value.len = version->len + 2;

#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    r->headers_out.etag = h;

    return NGX_OK;
}
