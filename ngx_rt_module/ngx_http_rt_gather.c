
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What a message is for many streams is sent to them together, where one
 * system call can do so (ngx_rt_sender.c).
 */


#include <ngx_http_rt_stream.h>
#include <ngx_rt_sender.h>


#define NGX_HTTP_RT_GATHER        512       /* streams at once */
#define NGX_HTTP_RT_GATHER_VECS   2048      /* pieces of all of them */
#define NGX_HTTP_RT_GATHER_MOST   64        /* of one */


/* of a hub, made when it is needed first; empty between two turns */

typedef struct {
    ngx_uint_t                    n;
    ngx_uint_t                    nvec;
    ngx_rt_send_t                 sends[NGX_HTTP_RT_GATHER];
    struct iovec                  vecs[NGX_HTTP_RT_GATHER_VECS];
} ngx_http_rt_gather_t;


static void ngx_http_rt_gathered(ngx_rt_hub_t *hub);
static void ngx_http_rt_gather_result(ngx_rt_send_t *item);


void
ngx_http_rt_gather(ngx_rt_subscriber_t *sub)
{
    ngx_rt_hub_t          *hub;
    ngx_rt_send_t         *item;
    ngx_http_rt_stream_t  *s;
    ngx_http_rt_gather_t  *g;

    s = (ngx_http_rt_stream_t *) sub;
    hub = sub->hub;

    if (!s->direct || s->tls || !ngx_rt_sender_ring()) {
        ngx_http_rt_stream_flush(sub);
        return;
    }

    if (s->close || s->out.head == NULL || ngx_rt_out_busy(&s->out)) {
        return;
    }

    if (hub->gather == NULL) {

        hub->gather = ngx_alloc(sizeof(ngx_http_rt_gather_t), hub->log);

        if (hub->gather == NULL) {
            ngx_http_rt_stream_flush(sub);
            return;
        }

        g = hub->gather;
        g->n = 0;
        g->nvec = 0;

        hub->gathered = ngx_http_rt_gathered;
    }

    g = hub->gather;

    if (g->n == NGX_HTTP_RT_GATHER
        || g->nvec + NGX_HTTP_RT_GATHER_MOST > NGX_HTTP_RT_GATHER_VECS)
    {
        ngx_http_rt_gathered(hub);
    }

    item = &g->sends[g->n++];

    item->fd = s->fd;
    item->data = s;
    item->vec = &g->vecs[g->nvec];
    item->nvec = ngx_rt_out_vec(&s->out, item->vec, NGX_HTTP_RT_GATHER_MOST,
                                s->chunked);
    g->nvec += item->nvec;
}


/* the hub has flushed all */

static void
ngx_http_rt_gathered(ngx_rt_hub_t *hub)
{
    ngx_uint_t             i;
    ngx_http_rt_gather_t  *g;

    g = hub->gather;

    ngx_rt_send_all(g->sends, g->n);

    for (i = 0; i < g->n; i++) {

        if (i + 1 < g->n) {
            ngx_rt_prefetch(g->sends[i + 1].data);
            ngx_rt_prefetch((u_char *) g->sends[i + 1].data
                            + 2 * NGX_RT_CACHE_LINE);
        }

        ngx_http_rt_gather_result(&g->sends[i]);
    }

    g->n = 0;
    g->nvec = 0;
}


static void
ngx_http_rt_gather_result(ngx_rt_send_t *item)
{
    ngx_http_rt_stream_t  *s;

    s = item->data;

    if (ngx_http_rt_sent(s, item->result, item->vec, item->nvec) != NGX_OK) {
        ngx_http_rt_stream_close(s, "error", 1);
        return;
    }

    /* more pieces than one send takes; more is waiting than fitted */

    ngx_http_rt_stream_flush(&s->sub);

    if (s->sub.behind && s->out.head == NULL) {
        ngx_post_event(s->connection->write, &ngx_posted_events);
    }
}
