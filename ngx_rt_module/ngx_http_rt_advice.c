
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What a client is advised: RT-Poll-Interval and RT-Advice; and who counts as
 * a viewer for that.  See ngx_rt_rate.c for the arithmetic.
 *
 * Whether it is the same client that polls again is known by its connection:
 * a small struct in the connection's pool, found in the list of its cleanups,
 * remembers when some channels were polled last.  Over HTTP/2 it is that of
 * the connection which has the streams.  A connection that ends after one poll
 * of a channel is counted then as one that tells nothing.
 */


#include <ngx_http_rt.h>


#define NGX_HTTP_RT_SEEN          4         /* channels of a connection */


typedef struct {
    ngx_rt_store_t               *store;    /* NULL: free */
    uint32_t                      entry;
    uint32_t                      gen;
    uint64_t                      when;     /* ms, of the last answer */
    ngx_rt_poll_t                 poll;     /* the first one, while it is the
                                               only one */
    unsigned                      once:1;
} ngx_http_rt_seen_t;


static void ngx_http_rt_advice_count(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_rt_view_t *view, ngx_rt_poll_t *poll,
    ngx_http_rt_seen_t *seen);
static ngx_http_rt_seen_t *ngx_http_rt_advice_slot(ngx_rt_store_t *st,
    ngx_rt_view_t *view, ngx_http_rt_seen_t *seen);
static ngx_connection_t *ngx_http_rt_advice_connection(ngx_http_request_t *r);
static ngx_http_rt_seen_t *ngx_http_rt_advice_oldest(
    ngx_http_rt_seen_t *seen);
static ngx_http_rt_seen_t *ngx_http_rt_advice_find(ngx_connection_t *c);
static ngx_http_rt_seen_t *ngx_http_rt_advice_seen(ngx_http_request_t *r);
static void ngx_http_rt_advice_end(void *data);
static void ngx_http_rt_advice_once(ngx_http_rt_seen_t *seen);
static ngx_uint_t ngx_http_rt_advice_call(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, uint32_t *cursor);
static void ngx_http_rt_advice_rate(ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, uint64_t now, ngx_rt_rate_t *set);
static uint64_t ngx_http_rt_advice_now(void);


void
ngx_http_rt_advise(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, ngx_uint_t match)
{
    uint32_t                 min, max, interval;
    ngx_uint_t               i;
    ngx_rt_poll_t            poll;
    ngx_rt_rate_t            rate;
    ngx_http_rt_seen_t      *seen;
    ngx_http_rt_loc_conf_t  *rlcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);

    min = (uint32_t) ngx_min(rlcf->poll_min, NGX_HTTP_RT_ADVICE_MAX) * 1000;
    max = (uint32_t) ngx_min(rlcf->poll_max, NGX_HTTP_RT_ADVICE_MAX) * 1000;

    ngx_memzero(&poll, sizeof(ngx_rt_poll_t));

    poll.now = ngx_http_rt_advice_now();

    ngx_http_rt_advice_rate(ctx, v, poll.now, &rate);

    interval = ngx_rt_rate_interval(&rate, min, max);

    poll.told = ngx_rt_rate_expected(interval, min, max);
    poll.sse = (rlcf->transports & NGX_HTTP_RT_SSE)
               && ngx_rt_rate_advise(&rate, rlcf->advise_viewers,
                                     rlcf->advise_interval);
    poll.waits = (ctx->prefer != 0);

    /* of parts of other answers nobody knows who asks for them; who asks for
     * headers has the rest by other means */

    if (r == r->main && r->method != NGX_HTTP_HEAD) {

        poll.call = match ? NGX_RT_CALL_SEEN
                          : v->fresh ? ngx_http_rt_advice_call(r, ctx,
                                                               &poll.cursor)
                                     : NGX_RT_CALL_NONE;

        seen = ngx_http_rt_advice_seen(r);

        for (i = 0; i < ctx->nchannels; i++) {

            if (v->views[i].entry) {
                ngx_http_rt_advice_count(r, ctx, &v->views[i], &poll, seen);
            }
        }
    }

    ctx->advice = poll.sse ? "sse" : "poll";
    ctx->interval = ngx_rt_rate_jitter(interval, min, max,
                                       (uint32_t) ngx_random());
}


ngx_int_t
ngx_http_rt_advice_out(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    u_char     *p, *last;
    uint32_t    n;
    ngx_str_t   value;

    p = ngx_pnalloc(r->pool, NGX_INT32_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = p + NGX_INT32_LEN;
    p = last;
    n = ctx->interval;

    do {
        *--p = (u_char) ('0' + n % 10);
        n /= 10;
    } while (n);

    value.data = p;
    value.len = last - p;

    if (ngx_http_rt_header_out(r, "RT-Poll-Interval", &value) != NGX_OK) {
        return NGX_ERROR;
    }

    value.data = (u_char *) ctx->advice;
    value.len = ngx_strlen(ctx->advice);

    return ngx_http_rt_header_out(r, "RT-Advice", &value);
}


static uint64_t
ngx_http_rt_advice_now(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (uint64_t) tp->sec * 1000 + tp->msec;
}


/* of several channels the one that changes most often, and the one with the
 * most viewers */

static void
ngx_http_rt_advice_rate(ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v,
    uint64_t now, ngx_rt_rate_t *set)
{
    ngx_uint_t     i;
    ngx_rt_rate_t  rate;

    ngx_rt_rate_told(ctx->hub->store, v->views[0].entry, now, set);

    for (i = 1; i < ctx->nchannels; i++) {

        if (v->views[i].entry == NGX_RT_NONE) {
            continue;
        }

        ngx_rt_rate_told(ctx->hub->store, v->views[i].entry, now, &rate);

        set->viewers = ngx_max(set->viewers, rate.viewers);

        if (rate.known
            && (!set->known
                || ngx_max(rate.mean, rate.since)
                   < ngx_max(set->mean, set->since)))
        {
            set->mean = rate.mean;
            set->since = rate.since;
            set->known = 1;

        } else if (!set->known) {
            set->since = ngx_min(set->since, rate.since);
        }
    }
}


static void
ngx_http_rt_advice_count(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_rt_view_t *view, ngx_rt_poll_t *poll, ngx_http_rt_seen_t *seen)
{
    uint64_t             arrived;
    ngx_rt_store_t      *st;
    ngx_http_rt_seen_t  *slot;

    st = ctx->hub->store;

    poll->gap = 0;

    if (seen == NULL) {
        ngx_rt_rate_poll(st, view->entry, poll);
        return;
    }

    slot = ngx_http_rt_advice_slot(st, view, seen);

    if (slot->store) {

        /* while it waited it was counted as such */

        arrived = (uint64_t) r->start_sec * 1000 + r->start_msec;

        poll->gap = (arrived > slot->when)
                    ? (uint32_t) ngx_min(arrived - slot->when,
                                         NGX_HTTP_RT_ADVICE_MAX * 1000)
                    : 1;

        slot->once = 0;
        slot->when = poll->now;

        ngx_rt_rate_poll(st, view->entry, poll);

        return;
    }

    slot->store = st;
    slot->entry = view->entry;
    slot->gen = view->gen;
    slot->when = poll->now;
    slot->poll = *poll;
    slot->once = 1;

    ngx_rt_rate_first(st, view->entry, poll);
}


/* the channel's, or a free one, or that of the channel polled longest ago */

static ngx_http_rt_seen_t *
ngx_http_rt_advice_slot(ngx_rt_store_t *st, ngx_rt_view_t *view,
    ngx_http_rt_seen_t *seen)
{
    ngx_uint_t           i;
    ngx_http_rt_seen_t  *slot;

    slot = seen;

    for (i = 0; i < NGX_HTTP_RT_SEEN; i++) {

        if (seen[i].store == st && seen[i].entry == view->entry
            && seen[i].gen == view->gen)
        {
            return &seen[i];
        }

        if (slot->store && (seen[i].store == NULL
                            || seen[i].when < slot->when))
        {
            slot = &seen[i];
        }
    }

    ngx_http_rt_advice_once(slot);
    slot->store = NULL;

    return slot;
}


void
ngx_http_rt_advice_ahead(ngx_http_request_t *r)
{
    ngx_connection_t    *c;
    ngx_http_rt_seen_t  *seen, *slot;

    c = ngx_http_rt_advice_connection(r);

    if (c == NULL) {
        return;
    }

    seen = ngx_http_rt_advice_find(c);

    if (seen == NULL) {
        return;
    }

    __builtin_prefetch(seen, 1);
    __builtin_prefetch((u_char *) seen + 64, 1);

    /* many channels over one connection, a proxy's: a poll of another one is
     * when the oldest is counted, too */

    if (seen[NGX_HTTP_RT_SEEN - 1].store) {
        slot = ngx_http_rt_advice_oldest(seen);

        __builtin_prefetch(&slot->store->entries[slot->entry].gen);
        __builtin_prefetch(&slot->store->rates[slot->entry], 1);
    }
}


static ngx_http_rt_seen_t *
ngx_http_rt_advice_oldest(ngx_http_rt_seen_t *seen)
{
    ngx_uint_t           i;
    ngx_http_rt_seen_t  *slot;

    slot = seen;

    for (i = 1; i < NGX_HTTP_RT_SEEN; i++) {

        if (seen[i].when < slot->when) {
            slot = &seen[i];
        }
    }

    return slot;
}


/* whose channels are remembered; NULL: it ends with this request */

static ngx_connection_t *
ngx_http_rt_advice_connection(ngx_http_request_t *r)
{
    ngx_connection_t  *c;

    c = r->connection;

#if (NGX_HTTP_V2)
    if (r->stream) {
        c = r->stream->connection->connection;

    } else
#endif

#if (NGX_HTTP_V3)
    if (c->quic) {
        c = c->quic->parent;

    } else
#endif

    if (!r->keepalive) {
        return NULL;
    }

    return c;
}


static ngx_http_rt_seen_t *
ngx_http_rt_advice_find(ngx_connection_t *c)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = c->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler == ngx_http_rt_advice_end) {
            return cln->data;
        }
    }

    return NULL;
}


/* what the connection remembers; NULL: nothing */

static ngx_http_rt_seen_t *
ngx_http_rt_advice_seen(ngx_http_request_t *r)
{
    ngx_connection_t    *c;
    ngx_pool_cleanup_t  *cln;
    ngx_http_rt_seen_t  *seen;

    c = ngx_http_rt_advice_connection(r);

    if (c == NULL) {
        return NULL;
    }

    seen = ngx_http_rt_advice_find(c);

    if (seen) {
        return seen;
    }

    cln = ngx_pool_cleanup_add(c->pool,
                               NGX_HTTP_RT_SEEN * sizeof(ngx_http_rt_seen_t));
    if (cln == NULL) {
        return NULL;
    }

    ngx_memzero(cln->data, NGX_HTTP_RT_SEEN * sizeof(ngx_http_rt_seen_t));

    cln->handler = ngx_http_rt_advice_end;

    return cln->data;
}


static void
ngx_http_rt_advice_end(void *data)
{
    ngx_uint_t           i;
    ngx_http_rt_seen_t  *seen;

    seen = data;

    for (i = 0; i < NGX_HTTP_RT_SEEN; i++) {
        ngx_http_rt_advice_once(&seen[i]);
    }
}


static void
ngx_http_rt_advice_once(ngx_http_rt_seen_t *seen)
{
    if (seen->store == NULL || !seen->once
        || __atomic_load_n(&seen->store->entries[seen->entry].gen,
                           __ATOMIC_RELAXED)
           != seen->gen)
    {
        return;
    }

    seen->once = 0;
    seen->poll.now = ngx_http_rt_advice_now();
    seen->poll.call = NGX_RT_CALL_NONE;

    ngx_rt_rate_poll(seen->store, seen->entry, &seen->poll);
}


/* what the client has, by the first cursor that it sent; not of ours: it has
 * not been here since that zone was made */

static ngx_uint_t
ngx_http_rt_advice_call(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    uint32_t *cursor)
{
    uint64_t         at;
    ngx_str_t        list, tag;
    ngx_rt_place_t   places[NGX_HTTP_RT_MAX_CHANNELS];
    ngx_rt_cursor_t  c;

    if (r->headers_in.if_none_match == NULL) {
        return NGX_RT_CALL_NONE;
    }

    list = r->headers_in.if_none_match->value;

    if (ngx_rt_etag_next(&list, &tag) != NGX_OK) {
        return NGX_RT_CALL_NONE;
    }

    if (ctx->hub->store->stream) {

        if (ctx->nchannels > 1
            || ngx_rt_places_parse(places, 1, 0, tag.data, tag.len) != NGX_OK)
        {
            return NGX_RT_CALL_NONE;
        }

        at = 0;
        *cursor = ngx_rt_rate_mark_sid(places[0].tag, &at);

        return NGX_RT_CALL_CURSOR;
    }

    if (ngx_rt_cursor_parse(&c, tag.data, tag.len) != NGX_OK
        || c.epoch != ctx->hub->store->sh->epoch)
    {
        return NGX_RT_CALL_NONE;
    }

    *cursor = ngx_rt_rate_mark(c.seq);

    return NGX_RT_CALL_CURSOR;
}


void
ngx_http_rt_advise_stream(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    uint64_t                 now;
    ngx_uint_t               i;
    ngx_rt_key_t             key;
    ngx_rt_rate_t            rate;
    ngx_rt_view_t            view;
    ngx_http_rt_loc_conf_t  *rlcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);
    now = ngx_http_rt_advice_now();

    ctx->advice = (rlcf->transports & NGX_HTTP_RT_POLL) ? "poll" : "sse";

    for (i = 0; i < ctx->nchannels; i++) {
        ngx_rt_table_key(ctx->hub->store, &ctx->channels[i], &key);

        if (ngx_rt_table_look(ctx->hub->store, &key, ngx_time(), &view)
            != NGX_OK)
        {
            continue;
        }

        ngx_rt_rate_told(ctx->hub->store, view.entry, now, &rate);

        if (ngx_rt_rate_advise(&rate, rlcf->advise_viewers,
                               rlcf->advise_interval))
        {
            ctx->advice = "sse";
        }
    }
}
