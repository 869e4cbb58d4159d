
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The status as JSON.
 */


#include <ngx_http_rt.h>


static ngx_chain_t *ngx_http_rt_json_link(ngx_http_request_t *r, size_t size);
static u_char *ngx_http_rt_json_hub(u_char *p, ngx_http_rt_hub_status_t *hub);
static u_char *ngx_http_rt_json_feed(u_char *p, ngx_http_rt_hub_status_t *hub);
static u_char *ngx_http_rt_json_streams(u_char *p, ngx_rt_slot_sh_t *sum);
static size_t ngx_http_rt_json_busiest_len(ngx_http_rt_hub_status_t *hub);
static u_char *ngx_http_rt_json_busiest(u_char *p,
    ngx_http_rt_hub_status_t *hub);


/* room for one hub without its name and server: names of the members and 24
 * numbers, with much to spare */
#define NGX_HTTP_RT_JSON_HUB      2048

/* for one channel without its name */
#define NGX_HTTP_RT_JSON_BUSY     256

/* defaults of rt_advise */
#define NGX_HTTP_RT_ADVISE_VIEWERS   50
#define NGX_HTTP_RT_ADVISE_INTERVAL  5000


ngx_chain_t *
ngx_http_rt_status_json(ngx_http_request_t *r, ngx_http_rt_hub_status_t *hubs,
    ngx_uint_t n)
{
    size_t        size;
    ngx_buf_t    *b;
    ngx_uint_t    i;
    ngx_chain_t  *cl, *out, **ll;

    out = ngx_http_rt_json_link(r, NGX_HTTP_RT_JSON_HUB);
    if (out == NULL) {
        return NULL;
    }

    b = out->buf;
    b->last = ngx_sprintf(b->last, "{\"version\":\"%s\",\"nginx\":\"%s\","
                          "\"hubs\":[", NGX_RT_VERSION, NGINX_VERSION);

    ll = &out->next;

    for (i = 0; i < n; i++) {

        size = NGX_HTTP_RT_JSON_HUB + ngx_rt_json_string_len(&hubs[i].name)
               + ngx_rt_json_string_len(&hubs[i].server)
               + ngx_http_rt_json_busiest_len(&hubs[i]);

        cl = ngx_http_rt_json_link(r, size);
        if (cl == NULL) {
            return NULL;
        }

        b = cl->buf;

        if (i) {
            *b->last++ = ',';
        }

        b->last = ngx_http_rt_json_hub(b->last, &hubs[i]);

        *ll = cl;
        ll = &cl->next;
    }

    /* the last one has room for the end */

    b->last = ngx_cpymem(b->last, "]}\n", sizeof("]}\n") - 1);

    return out;
}


static ngx_chain_t *
ngx_http_rt_json_link(ngx_http_request_t *r, size_t size)
{
    ngx_chain_t  *cl;

    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL) {
        return NULL;
    }

    cl->buf = ngx_create_temp_buf(r->pool, size);
    if (cl->buf == NULL) {
        return NULL;
    }

    cl->next = NULL;

    return cl;
}


static u_char *
ngx_http_rt_json_hub(u_char *p, ngx_http_rt_hub_status_t *hub)
{
    p = ngx_sprintf(p, "{\"name\":");
    p = ngx_rt_json_string(p, &hub->name);

    p = ngx_sprintf(p, ",\"source\":\"%s\",", hub->source);

    p = ngx_http_rt_json_feed(p, hub);

    p = ngx_sprintf(p, ",\"memory\":{\"size\":%uL,\"used\":%uL},"
                    "\"channels\":%uL,\"evicted\":%uL,"
                    "\"messages\":{\"in\":%uL,\"bytes_in\":%uL,"
                    "\"dropped\":%uL}",
                    hub->size, hub->used, hub->channels, hub->evicted,
                    hub->messages, hub->bytes, hub->dropped);

    p = ngx_sprintf(p, ",\"polls\":{\"hit\":%uL,\"miss\":%uL},"
                    "\"gate\":{\"hit\":%uL,\"miss\":%uL,\"bypass\":%uL},",
                    hub->sum.polls_hit, hub->sum.polls_miss,
                    hub->sum.gate_hit, hub->sum.gate_miss,
                    hub->sum.gate_bypass);

    p = ngx_http_rt_json_streams(p, &hub->sum);

    return ngx_http_rt_json_busiest(p, hub);
}


static u_char *
ngx_http_rt_json_feed(u_char *p, ngx_http_rt_hub_status_t *hub)
{
    p = ngx_sprintf(p, "\"feed\":{\"state\":\"%s\",\"worker\":", hub->state);

    if (hub->worker) {
        p = ngx_sprintf(p, "%uD", hub->worker);

    } else {
        p = ngx_sprintf(p, "null");
    }

    p = ngx_sprintf(p, ",\"server\":");

    if (hub->server.len) {
        p = ngx_rt_json_string(p, &hub->server);

    } else {
        p = ngx_sprintf(p, "null");
    }

    return ngx_sprintf(p, ",\"since\":%uL.%03uL,\"reconnects\":%uL,"
                       "\"gaps\":%uL,\"lag_ms\":%uL.%03uL}",
                       hub->since / 1000, hub->since % 1000,
                       hub->reconnects, hub->gaps,
                       hub->lag / 1000, hub->lag % 1000);
}


static u_char *
ngx_http_rt_json_streams(u_char *p, ngx_rt_slot_sh_t *sum)
{
    p = ngx_sprintf(p, "\"streams\":{\"sse\":{\"open\":%uL,\"opened\":%uL,"
                    "\"delivered\":%uL,\"slow_closed\":%uL},",
                    sum->open[NGX_RT_SSE], sum->opened[NGX_RT_SSE],
                    sum->delivered[NGX_RT_SSE], sum->slow_closed[NGX_RT_SSE]);

    return ngx_sprintf(p, "\"websocket\":{\"open\":%uL,\"opened\":%uL,"
                       "\"delivered\":%uL,\"received\":%uL,"
                       "\"slow_closed\":%uL}}",
                       sum->open[NGX_RT_WEBSOCKET],
                       sum->opened[NGX_RT_WEBSOCKET],
                       sum->delivered[NGX_RT_WEBSOCKET],
                       sum->received[NGX_RT_WEBSOCKET],
                       sum->slow_closed[NGX_RT_WEBSOCKET]);
}


static size_t
ngx_http_rt_json_busiest_len(ngx_http_rt_hub_status_t *hub)
{
    size_t      len;
    ngx_uint_t  i;

    len = 0;

    for (i = 0; i < hub->nbusiest; i++) {
        len += NGX_HTTP_RT_JSON_BUSY + ngx_rt_json_string_len(&hub->names[i]);
    }

    return len;
}


/* the advice is that of a location with nothing set */

static u_char *
ngx_http_rt_json_busiest(u_char *p, ngx_http_rt_hub_status_t *hub)
{
    uint64_t        gap, messages;
    ngx_uint_t      i;
    ngx_rt_rate_t  *rate;

    p = ngx_sprintf(p, ",\"busiest\":[");

    for (i = 0; i < hub->nbusiest; i++) {
        rate = &hub->busiest[i].rate;
        rate->sse = 0;

        gap = ngx_max(rate->mean, rate->since);
        messages = rate->known ? 1000 * 1000 / ngx_max(gap, 1) : 0;

        if (i) {
            *p++ = ',';
        }

        p = ngx_sprintf(p, "{\"channel\":");
        p = ngx_rt_json_string(p, &hub->names[i]);
        p = ngx_sprintf(p, ",\"viewers\":%uL,\"polls_per_s\":%uL.%03uL,"
                        "\"messages_per_s\":%uL.%03uL,\"advice\":\"%s\"}",
                        (rate->viewers + 500) / 1000, rate->polls / 1000,
                        rate->polls % 1000, messages / 1000, messages % 1000,
                        ngx_rt_rate_advise(rate, NGX_HTTP_RT_ADVISE_VIEWERS,
                                           NGX_HTTP_RT_ADVISE_INTERVAL)
                        ? "sse" : "poll");
    }

    return ngx_sprintf(p, "]}");
}
