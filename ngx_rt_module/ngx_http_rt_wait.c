
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * A poll, or a request at the gate, that waits: held as a subscriber of its
 * channels, and run again as soon as anything happens there, until it has an
 * answer or its time is over.
 *
 *     poll --> would say "nothing new" --> subscribe --> poll again, for what
 *               ^                                        came meanwhile: hold
 *               |                                                |
 *               +-- deliver, gap, place, settled, the timer -----+
 *
 * What holds it: `Prefer: wait=N` (RFC 7240), up to rt_wait; and a channel of
 * which Redis knows what this nginx does not yet, for a second at most.  All
 * of it is in the request's pool, whatever happens while it is held.
 */


#include <ngx_http_rt.h>


#define NGX_HTTP_RT_WAIT_COLD     1000      /* ms */


typedef struct {
    ngx_rt_subscriber_t           sub;      /* first */
    ngx_http_request_t           *request;
    ngx_http_rt_ctx_t            *ctx;
    ngx_event_t                   event;    /* timer, and posted: look again */
    ngx_msec_t                    begun;
    ngx_msec_t                    cold;     /* when it was first seen cold */
    unsigned                      joining:1;
    unsigned                      held:1;
    unsigned                      over:1;   /* the worker quits, or the
                                               channel was evicted */
    unsigned                      ended:1;
} ngx_http_rt_wait_t;


static ngx_int_t ngx_http_rt_wait_begin(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx);
static ngx_uint_t ngx_http_rt_wait_may(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx);
static ngx_int_t ngx_http_rt_wait_left(ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, ngx_uint_t match);
static ngx_uint_t ngx_http_rt_poll_cold(ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, ngx_uint_t known);
static void ngx_http_rt_wait_hold(ngx_http_rt_wait_t *w, ngx_msec_t left);
static void ngx_http_rt_wait_end(ngx_http_rt_wait_t *w);
static void ngx_http_rt_wait_cleanup(void *data);
static void ngx_http_rt_wait_event(ngx_event_t *ev);
static void ngx_http_rt_wait_deliver(ngx_rt_subscriber_t *sub,
    ngx_rt_delivery_t *msg);
static void ngx_http_rt_wait_gap(ngx_rt_subscriber_t *sub,
    const ngx_str_t *channel, const char *reason, const ngx_str_t *id);
static void ngx_http_rt_wait_place(ngx_rt_subscriber_t *sub,
    const ngx_str_t *id);
static void ngx_http_rt_wait_wake(ngx_rt_subscriber_t *sub);
static void ngx_http_rt_wait_flush(ngx_rt_subscriber_t *sub);
static void ngx_http_rt_wait_drain(ngx_rt_subscriber_t *sub);
static void ngx_http_rt_wait_prefer(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx);
static ngx_uint_t ngx_http_rt_wait_seconds(u_char *p, u_char *last,
    time_t max, time_t *seconds);


static const ngx_rt_subscriber_ops_t  ngx_http_rt_wait_ops = {
    ngx_http_rt_wait_deliver,
    ngx_http_rt_wait_gap,
    ngx_http_rt_wait_place,
    ngx_http_rt_wait_flush,
    ngx_http_rt_wait_drain,
    ngx_http_rt_wait_wake
};


ngx_int_t
ngx_http_rt_wait(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, ngx_uint_t match)
{
    ngx_int_t            left;
    ngx_http_rt_wait_t  *w;

    w = ctx->wait;

    if (w == NULL) {

        if (!ngx_http_rt_wait_may(r, ctx)) {
            return NGX_DECLINED;
        }

        ngx_http_rt_wait_prefer(r, ctx);

    } else if (w->ended) {
        return NGX_DECLINED;
    }

    left = ngx_http_rt_wait_left(ctx, v, match);

    if (w == NULL) {
        return (left > 0) ? ngx_http_rt_wait_begin(r, ctx) : NGX_DECLINED;
    }

    if (left <= 0 || w->over) {
        ngx_http_rt_wait_end(w);
        return NGX_DECLINED;
    }

    ngx_http_rt_wait_hold(w, left);

    return NGX_DONE;
}


/* a part of another answer ends; a body that is still being read has the
 * events of the connection */

static ngx_uint_t
ngx_http_rt_wait_may(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    return r == r->main && !ngx_http_rt_instead(r) && !r->discard_body
           && (ctx->transport == NGX_HTTP_RT_POLL
               || (r->headers_in.content_length_n <= 0
                   && !r->headers_in.chunked))
           && !ctx->hub->draining;
}


/* ms for which it is still to be held; 0 and less: it is to be answered */

static ngx_int_t
ngx_http_rt_wait_left(ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v,
    ngx_uint_t match)
{
    ngx_int_t            left, cold;
    ngx_msec_t           now, most;
    ngx_uint_t           poll;
    ngx_http_rt_wait_t  *w;

    w = ctx->wait;
    now = ngx_current_msec;
    left = 0;

    /* Redis away: the usual answer at once, or at the end of the wait */

    poll = (ctx->transport == NGX_HTTP_RT_POLL);

    if (ctx->prefer && (match || (poll && !v->known)) && (v->fresh || w)) {
        left = (ngx_int_t) ctx->prefer * 1000
               - (w ? (ngx_msec_int_t) (now - w->begun) : 0);
    }

    if (poll && ngx_http_rt_poll_cold(ctx, v, w && ctx->prefer)) {

        if (w && w->cold == 0) {
            w->cold = ngx_max(now, 1);
        }

        most = ngx_min(ctx->hub->conf->reply_timeout, NGX_HTTP_RT_WAIT_COLD);
        cold = (ngx_int_t) most
               - (w ? (ngx_msec_int_t) (now - w->cold) : 0);

        left = ngx_max(left, cold);

    } else if (w) {
        w->cold = 0;
    }

    return left;
}


/*
 * 1: Redis is being asked for what is not known.  known: also for what may be
 * known better, for whoever waits anyway.
 */

static ngx_uint_t
ngx_http_rt_poll_cold(ngx_http_rt_ctx_t *ctx, ngx_http_rt_version_t *v,
    ngx_uint_t known)
{
    ngx_uint_t      i;
    ngx_rt_view_t  *view;

    if (!v->fresh
        || (!ctx->hub->conf->snapshots && !ctx->hub->store->stream))
    {
        return 0;
    }

    for (i = 0; i < ctx->nchannels; i++) {
        view = &v->views[i];

        if (ctx->hub->store->stream) {

            if (!view->known) {
                return 1;
            }

            continue;
        }

        if ((view->msg_seq == 0 || known)
            && (!view->confirmed || ngx_rt_view_owed(view)))
        {
            return 1;
        }
    }

    return 0;
}


/* NGX_AGAIN: subscribed, what came before that is to be looked at */

static ngx_int_t
ngx_http_rt_wait_begin(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    ngx_int_t            rc;
    ngx_http_cleanup_t  *cln;
    ngx_http_rt_wait_t  *w;

    w = ngx_pcalloc(r->pool, sizeof(ngx_http_rt_wait_t)
                             + ctx->nchannels * sizeof(ngx_rt_link_t));
    cln = ngx_http_cleanup_add(r, 0);

    if (w == NULL || cln == NULL) {
        return NGX_DECLINED;
    }

    w->request = r;
    w->ctx = ctx;
    w->begun = ngx_current_msec;

    w->event.handler = ngx_http_rt_wait_event;
    w->event.data = w;
    w->event.log = r->connection->log;

    w->sub.ops = &ngx_http_rt_wait_ops;
    w->sub.links = (ngx_rt_link_t *) (w + 1);
    w->sub.nlinks = ctx->nchannels;
    w->sub.poll = 1;

    w->joining = 1;

    rc = ngx_rt_hub_subscribe(ctx->hub, &w->sub, ctx->channels, NULL,
                              NGX_RT_START_NEW);
    w->joining = 0;

    if (rc != NGX_OK) {
        return NGX_DECLINED;
    }

    cln->handler = ngx_http_rt_wait_cleanup;
    cln->data = w;
    ctx->wait = w;

    return NGX_AGAIN;
}


static void
ngx_http_rt_wait_hold(ngx_http_rt_wait_t *w, ngx_msec_t left)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    if (w->event.timer_set) {
        ngx_del_timer(&w->event);
    }

    ngx_add_timer(&w->event, left);

    if (w->held) {
        return;
    }

    r = w->request;
    c = r->connection;

    w->held = 1;

    if (w->ctx->transport == NGX_HTTP_RT_POLL) {
        /* the phase of content takes one away, that of the gate does not */
        r->main->count++;
    }

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    if (c->read->pending_eof || c->read->eof) {
        /* the client's end came with its request: no event will tell */
        ngx_post_event(c->read, &ngx_posted_events);
    }
}


static void
ngx_http_rt_wait_end(ngx_http_rt_wait_t *w)
{
    w->ended = 1;

    ngx_rt_hub_unsubscribe(&w->sub);

    if (w->event.timer_set) {
        ngx_del_timer(&w->event);
    }

    if (w->event.posted) {
        ngx_delete_posted_event(&w->event);
    }

    if (w->held) {
        w->request->read_event_handler = ngx_http_block_reading;
    }
}


static void
ngx_http_rt_wait_cleanup(void *data)
{
    ngx_http_rt_wait_end(data);
}


static void
ngx_http_rt_wait_event(ngx_event_t *ev)
{
    ngx_int_t            rc;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;
    ngx_http_rt_wait_t  *w;

    w = ev->data;
    r = w->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    rc = w->ctx->resume(r, w->ctx);

    if (!w->ended) {
        return;
    }

    if (rc == NGX_DECLINED) {
        /* from the gate to the content */
        r->write_event_handler = ngx_http_core_run_phases;
        ngx_http_core_run_phases(r);

    } else {
        ngx_http_finalize_request(r, rc);
    }

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_rt_wait_deliver(ngx_rt_subscriber_t *sub, ngx_rt_delivery_t *msg)
{
    ngx_http_rt_wait_wake(sub);
}


/* to look at a channel that was evicted is to ask for it again, which may
 * evict another one that is waited for, and so on: that is the end here */

static void
ngx_http_rt_wait_gap(ngx_rt_subscriber_t *sub, const ngx_str_t *channel,
    const char *reason, const ngx_str_t *id)
{
    ngx_http_rt_wait_t  *w;

    w = (ngx_http_rt_wait_t *) sub;

    if (!w->joining && ngx_strcmp(reason, NGX_RT_GAP_EVICTED) == 0) {
        w->over = 1;
    }

    ngx_http_rt_wait_wake(sub);
}


static void
ngx_http_rt_wait_place(ngx_rt_subscriber_t *sub, const ngx_str_t *id)
{
    ngx_http_rt_wait_wake(sub);
}


/* from within a sweep of the hub: not now */

static void
ngx_http_rt_wait_wake(ngx_rt_subscriber_t *sub)
{
    ngx_http_rt_wait_t  *w;

    w = (ngx_http_rt_wait_t *) sub;

    if (!w->joining) {
        ngx_post_event(&w->event, &ngx_posted_events);
    }
}


static void
ngx_http_rt_wait_flush(ngx_rt_subscriber_t *sub)
{
    /* void */
}


static void
ngx_http_rt_wait_drain(ngx_rt_subscriber_t *sub)
{
    ngx_http_rt_wait_t  *w;

    w = (ngx_http_rt_wait_t *) sub;

    w->over = 1;
    ngx_http_rt_wait_wake(sub);
}


ngx_int_t
ngx_http_rt_wait_applied(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    u_char     *p;
    ngx_str_t   value;

    if (ctx->prefer == 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, sizeof("wait=") - 1 + NGX_TIME_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    value.len = ngx_sprintf(p, "wait=%T", ctx->prefer) - p;

    return ngx_http_rt_header_out(r, "Preference-Applied", &value);
}


/*
 * RFC 7240, 2: a list of names, each with a value or none, then parameters
 * behind semicolons; values may be quoted.  Of two `wait` the first counts.
 */

static void
ngx_http_rt_wait_prefer(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx)
{
    u_char                  *p, *start, *last;
    ngx_str_t                value;
    ngx_uint_t               quoted;
    ngx_http_rt_loc_conf_t  *rlcf;

    if (ctx->asked) {
        return;
    }

    ctx->asked = 1;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_rt_module);

    if (rlcf->wait == 0
        || ngx_http_rt_header_list(r, "prefer", sizeof("prefer") - 1, &value)
           != NGX_OK)
    {
        return;
    }

    last = value.data + value.len;
    start = value.data;
    quoted = 0;

    for (p = start; p <= last; p++) {

        if (p < last && quoted) {

            if (*p == '\\') {
                p++;

            } else if (*p == '"') {
                quoted = 0;
            }

            continue;
        }

        if (p < last && *p == '"') {
            quoted = 1;

        } else if (p == last || *p == ',') {

            if (ngx_http_rt_wait_seconds(start, p, rlcf->wait, &ctx->prefer)) {
                return;
            }

            start = p + 1;
        }
    }
}


/* 1: this is `wait`; *seconds is 0 when its value is none */

static ngx_uint_t
ngx_http_rt_wait_seconds(u_char *p, u_char *last, time_t max, time_t *seconds)
{
    u_char      *value;
    time_t       n;
    ngx_uint_t   quoted;

#define ngx_http_rt_wait_space()                                              \
    while (p < last && (*p == ' ' || *p == '\t')) {                           \
        p++;                                                                  \
    }

    ngx_http_rt_wait_space();

    if (last - p < 4 || ngx_strncasecmp(p, (u_char *) "wait", 4) != 0) {
        return 0;
    }

    p += 4;

    if (p < last && *p != ' ' && *p != '\t' && *p != '=' && *p != ';') {
        return 0;
    }

    ngx_http_rt_wait_space();

    if (p == last || *p++ != '=') {
        return 1;
    }

    ngx_http_rt_wait_space();

    quoted = (p < last && *p == '"');
    p += quoted;

    n = 0;

    for (value = p; p < last && *p >= '0' && *p <= '9'; p++) {
        n = ngx_min(n * 10 + (*p - '0'), max);
    }

    if (p == value || (quoted && (p == last || *p++ != '"'))) {
        return 1;
    }

    ngx_http_rt_wait_space();

    if (p == last || *p == ';') {
        *seconds = n;
    }

    return 1;
}
