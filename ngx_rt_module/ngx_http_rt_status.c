
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * rt_status: gathers the numbers of all hubs and answers with them.  The
 * forms are written by files of their own.
 */


#include <ngx_http_rt.h>


static ngx_int_t ngx_http_rt_status_method(ngx_http_request_t *r);
static ngx_http_rt_hub_status_t *ngx_http_rt_status_hubs(
    ngx_http_request_t *r, ngx_uint_t *n);
static void ngx_http_rt_status_hub(ngx_rt_hub_conf_t *hcf,
    ngx_http_rt_hub_status_t *hub);
static ngx_int_t ngx_http_rt_status_busiest(ngx_http_request_t *r,
    ngx_rt_hub_conf_t *hcf, ngx_http_rt_hub_status_t *hub);
static void ngx_http_rt_status_feed(ngx_rt_hub_conf_t *hcf,
    ngx_http_rt_hub_status_t *hub);
static void ngx_http_rt_status_slots(ngx_rt_store_t *st,
    ngx_rt_slot_sh_t *sum);
static ngx_uint_t ngx_http_rt_status_alive(uint32_t pid);
static ngx_int_t ngx_http_rt_status_send(ngx_http_request_t *r,
    ngx_chain_t *out);


#define NGX_HTTP_RT_BUSIEST       10

#define ngx_http_rt_load(p)       __atomic_load_n(p, __ATOMIC_RELAXED)


ngx_int_t
ngx_http_rt_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                  rc;
    ngx_uint_t                 n;
    ngx_chain_t               *out;
    ngx_http_rt_hub_status_t  *hubs;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return ngx_http_rt_status_method(r);
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    hubs = ngx_http_rt_status_hubs(r, &n);
    if (hubs == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    out = ngx_http_rt_status_json(r, hubs, n);
    if (out == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_str_set(&r->headers_out.content_type, "application/json");

    return ngx_http_rt_status_send(r, out);
}


static ngx_int_t
ngx_http_rt_status_method(ngx_http_request_t *r)
{
    static ngx_str_t  allow = ngx_string("GET, HEAD");

    r->expect_tested = 1;

    if (ngx_http_rt_header_out(r, "Allow", &allow) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_rt_text(r, NGX_HTTP_NOT_ALLOWED,
                            "GET or HEAD is needed here");
}


static ngx_http_rt_hub_status_t *
ngx_http_rt_status_hubs(ngx_http_request_t *r, ngx_uint_t *n)
{
    ngx_uint_t                  i;
    ngx_rt_hub_conf_t         **hcf;
    ngx_http_rt_hub_status_t   *hubs;
    ngx_http_rt_main_conf_t    *rmcf;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_rt_module);

    *n = rmcf->hubs.nelts;
    hcf = rmcf->hubs.elts;

    hubs = ngx_pcalloc(r->pool, (*n + 1) * sizeof(ngx_http_rt_hub_status_t));
    if (hubs == NULL) {
        return NULL;
    }

    for (i = 0; i < *n; i++) {
        ngx_http_rt_status_hub(hcf[i], &hubs[i]);

        if (ngx_http_rt_status_busiest(r, hcf[i], &hubs[i]) != NGX_OK) {
            return NULL;
        }
    }

    return hubs;
}


static void
ngx_http_rt_status_hub(ngx_rt_hub_conf_t *hcf, ngx_http_rt_hub_status_t *hub)
{
    ngx_rt_zone_sh_t  *sh;

    sh = hcf->store.sh;

    hub->name = hcf->name;
    hub->size = hcf->size;
    hub->used = ngx_rt_store_used(&hcf->store);

    hub->channels = ngx_http_rt_load(&sh->channels);
    hub->evicted = ngx_http_rt_load(&sh->evicted);
    hub->messages = ngx_http_rt_load(&sh->messages);
    hub->bytes = ngx_http_rt_load(&sh->bytes);
    hub->dropped = ngx_http_rt_load(&sh->dropped);

    ngx_http_rt_status_feed(hcf, hub);
    ngx_http_rt_status_slots(&hcf->store, &hub->sum);
}


static ngx_int_t
ngx_http_rt_status_busiest(ngx_http_request_t *r, ngx_rt_hub_conf_t *hcf,
    ngx_http_rt_hub_status_t *hub)
{
    u_char         *p;
    ngx_uint_t      i, n;
    ngx_time_t     *tp;
    ngx_rt_busy_t  *busy;

    tp = ngx_timeofday();

    p = ngx_pnalloc(r->pool, NGX_HTTP_RT_BUSIEST * NGX_RT_CHANNEL_MAX);
    busy = ngx_palloc(r->pool, NGX_HTTP_RT_BUSIEST * sizeof(ngx_rt_busy_t));
    hub->names = ngx_palloc(r->pool, NGX_HTTP_RT_BUSIEST * sizeof(ngx_str_t));

    if (p == NULL || busy == NULL || hub->names == NULL) {
        return NGX_ERROR;
    }

    n = ngx_rt_rate_busiest(&hcf->store, (uint64_t) tp->sec * 1000 + tp->msec,
                            busy, NGX_HTTP_RT_BUSIEST);
    hub->busiest = busy;

    for (i = 0; i < n; i++) {

        if (ngx_rt_store_name(&hcf->store, busy[i].entry, busy[i].gen, p,
                              &hub->names[hub->nbusiest].len)
            != NGX_OK)
        {
            /* it has just left the table */
            continue;
        }

        busy[hub->nbusiest] = busy[i];
        hub->names[hub->nbusiest++].data = p;
        p += NGX_RT_CHANNEL_MAX;
    }

    return NGX_OK;
}


static void
ngx_http_rt_status_feed(ngx_rt_hub_conf_t *hcf, ngx_http_rt_hub_status_t *hub)
{
    size_t             len;
    uint64_t           since;
    ngx_rt_feed_sh_t  *feed;

    feed = &hcf->store.sh->feed;

    if (hcf->source == NGX_RT_SOURCE_EMBEDDED) {
        hub->source = "embedded";
        hub->state = "embedded";
        return;
    }

    hub->source = (hcf->source == NGX_RT_SOURCE_STREAM) ? "stream" : "pubsub";

    switch (ngx_http_rt_load(&feed->state)) {

    case NGX_RT_FEED_LIVE:

        /* what is not renewed is not live, its feeder was killed */

        hub->state = ngx_rt_feed_fresh(&hcf->store, ngx_current_msec, 0)
                     ? "live" : "down";
        break;

    case NGX_RT_FEED_DOWN:
        hub->state = "down";
        break;

    default:
        hub->state = "connecting";
        break;
    }

    hub->worker = ngx_http_rt_load(&feed->pid);
    hub->reconnects = ngx_http_rt_load(&feed->reconnects);
    hub->gaps = ngx_http_rt_load(&feed->gaps);
    hub->lag = ngx_http_rt_load(&feed->lag);

    since = ngx_http_rt_load(&feed->since);

    if (since && since < ngx_current_msec) {
        hub->since = ngx_current_msec - since;
    }

    /* may be changing right now: then half of the one and half of the other
     * is shown */

    ngx_memcpy(hub->text, feed->server, NGX_RT_FEED_SERVER_LEN);

    for (len = 0; len < NGX_RT_FEED_SERVER_LEN && hub->text[len]; len++) {
        /* void */
    }

    hub->server.len = len;
    hub->server.data = hub->text;
}


static void
ngx_http_rt_status_slots(ngx_rt_store_t *st, ngx_rt_slot_sh_t *sum)
{
    ngx_uint_t         i, t;
    ngx_rt_slot_sh_t  *slot;

    for (i = 0; i < st->sh->nslots; i++) {
        slot = &st->slots[i];

        if (ngx_http_rt_load(&slot->pid) == 0) {
            continue;
        }

        sum->polls_hit += ngx_http_rt_load(&slot->polls_hit);
        sum->polls_miss += ngx_http_rt_load(&slot->polls_miss);
        sum->gate_hit += ngx_http_rt_load(&slot->gate_hit);
        sum->gate_miss += ngx_http_rt_load(&slot->gate_miss);
        sum->gate_bypass += ngx_http_rt_load(&slot->gate_bypass);

        for (t = NGX_RT_SSE; t <= NGX_RT_WEBSOCKET; t++) {
            sum->opened[t] += ngx_http_rt_load(&slot->opened[t]);
            sum->delivered[t] += ngx_http_rt_load(&slot->delivered[t]);
            sum->received[t] += ngx_http_rt_load(&slot->received[t]);
            sum->slow_closed[t] += ngx_http_rt_load(&slot->slow_closed[t]);

            /* streams of a killed worker are none */

            if (ngx_http_rt_load(&slot->open[t])
                && ngx_http_rt_status_alive(ngx_http_rt_load(&slot->pid)))
            {
                sum->open[t] += ngx_http_rt_load(&slot->open[t]);
            }
        }
    }
}


static ngx_uint_t
ngx_http_rt_status_alive(uint32_t pid)
{
    return kill((ngx_pid_t) pid, 0) == 0 || ngx_errno == NGX_EPERM;
}


static ngx_int_t
ngx_http_rt_status_send(ngx_http_request_t *r, ngx_chain_t *out)
{
    off_t         len;
    ngx_int_t     rc;
    ngx_chain_t  *cl;

    static ngx_str_t  cache = ngx_string("no-cache");

    len = 0;

    for (cl = out; cl; cl = cl->next) {
        len += ngx_buf_size(cl->buf);

        if (cl->next == NULL) {
            cl->buf->last_buf = (r == r->main) ? 1 : 0;
            cl->buf->last_in_chain = 1;
        }
    }

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = len;
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    if (ngx_http_rt_header_out(r, "Cache-Control", &cache) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r, out);
}
