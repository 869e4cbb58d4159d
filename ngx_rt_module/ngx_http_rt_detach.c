
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * A stream leaves nginx's filters, and its request, as soon as both have done
 * their work: the request with its pools is some 9 KB that an idle stream
 * has no use for.  As nginx does between two requests of a connection
 * (keep-alive), the connection stays with what is needed to go on.
 *
 * Whoever may still need the request keeps it: then the stream stays attached.
 */


#include <ngx_http_rt_stream.h>


/* read and thrown away in one event */
#define NGX_HTTP_RT_DISCARD       (64 * 1024)


static ngx_uint_t ngx_http_rt_may_direct(ngx_http_rt_stream_t *s);
static ngx_uint_t ngx_http_rt_may_detach(ngx_http_rt_stream_t *s);
static void ngx_http_rt_stays(ngx_http_rt_stream_t *s, const char *who,
    const char *why);
static ngx_uint_t ngx_http_rt_harmless(const char *name);
static ngx_uint_t ngx_http_rt_harmless_data(ngx_http_request_t *r, void *data);
static void ngx_http_rt_detach_request(ngx_http_rt_stream_t *s);
static void ngx_http_rt_detach_buffers(ngx_connection_t *c,
    ngx_http_connection_t *hc);
static void ngx_http_rt_detached_read(ngx_event_t *rev);
static void ngx_http_rt_detached_write(ngx_event_t *wev);


/*
 * Modules that have a context in requests, but nothing to do with a body on
 * its way out, and whose cleanups may come at any time: limit_conn's, which
 * counts the request until then, is not one of them.  The header count module
 * is in Debian's nginx 1.22.
 */

static const char  *ngx_http_rt_harmless_names[] = {
    "ngx_http_rt_module",
    "ngx_http_copy_filter_module",
    "ngx_http_chunked_filter_module",
    "ngx_http_header_count_module",
    "ngx_http_auth_request_module",
    "ngx_http_secure_link_module",
    "ngx_http_realip_module",
    "ngx_http_userid_filter_module",
    NULL
};


void
ngx_http_rt_detach(ngx_http_rt_stream_t *s)
{
    ngx_http_request_t  *r;

    r = s->request;

    if (!s->direct) {

        if (!ngx_http_rt_may_direct(s)) {
            return;
        }

        s->direct = 1;
        s->chunked = r->chunked;
    }

    if (ngx_http_rt_may_detach(s)) {
        ngx_http_rt_detach_request(s);
    }
}


/*
 * A body filter that wants to see the stream has asked for its data in memory,
 * or keeps something for this request: its context.  Over TLS nginx itself
 * asks for main_filter_need_in_memory; those who do, as gzip, have a context
 * and name an encoding.
 */

static ngx_uint_t
ngx_http_rt_may_direct(ngx_http_rt_stream_t *s)
{
    ngx_uint_t           i;
    ngx_module_t        *module, **modules;
    ngx_http_request_t  *r;

    r = s->request;

    if (r != r->main
#if (NGX_HTTP_V2)
        || r->stream
#endif
        || r->http_version >= NGX_HTTP_VERSION_20
        || r->out || r->postponed || r->buffered || r->connection->buffered
        || r->connection->error || r->connection->write->delayed
        || r->limit_rate || r->expect_trailers
        || r->filter_need_in_memory || r->filter_need_temporary
        || (r->main_filter_need_in_memory && !r->connection->ssl)
        || r->headers_out.content_encoding)
    {
        return 0;
    }

    modules = ngx_cycle->modules;

    for (i = 0; modules[i]; i++) {
        module = modules[i];

        if (module->type == NGX_HTTP_MODULE
            && r->ctx[module->ctx_index]
            && !ngx_http_rt_harmless(module->name))
        {
            ngx_http_rt_stays(s, module->name, "may have a body filter for it");
            return 0;
        }
    }

    return 1;
}


static ngx_uint_t
ngx_http_rt_may_detach(ngx_http_rt_stream_t *s)
{
    ngx_http_cleanup_t  *cln;
    ngx_pool_cleanup_t  *pcln;
    ngx_http_request_t  *r;

    r = s->request;

    if (!s->conf->detach || r->count != 1 || r->posted_requests
        || r->discard_body || r->reading_body || r->blocked || r->aio)
    {
        return 0;
    }

    for (cln = r->cleanup; cln; cln = cln->next) {
        if (cln->handler && cln->data != s) {
            ngx_http_rt_stays(s, "a module", "waits for its end");
            return 0;
        }
    }

    for (pcln = r->pool->cleanup; pcln; pcln = pcln->next) {
        if (pcln->handler && !ngx_http_rt_harmless_data(r, pcln->data)) {
            ngx_http_rt_stays(s, "a module", "waits for its end");
            return 0;
        }
    }

    return 1;
}


/* said once: each write event asks again */

static void
ngx_http_rt_stays(ngx_http_rt_stream_t *s, const char *who, const char *why)
{
    if (!s->told) {
        s->told = 1;

        ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                      "rt_detach: the stream keeps its request: %s %s", who,
                      why);
    }
}


static ngx_uint_t
ngx_http_rt_harmless(const char *name)
{
    ngx_uint_t  i;

    for (i = 0; ngx_http_rt_harmless_names[i]; i++) {
        if (ngx_strcmp(name, ngx_http_rt_harmless_names[i]) == 0) {
            return 1;
        }
    }

    return 0;
}


/* a cleanup of what is the context of a harmless module */

static ngx_uint_t
ngx_http_rt_harmless_data(ngx_http_request_t *r, void *data)
{
    ngx_uint_t      i;
    ngx_module_t   *module, **modules;

    if (data == NULL) {
        return 0;
    }

    modules = ngx_cycle->modules;

    for (i = 0; modules[i]; i++) {
        module = modules[i];

        if (module->type == NGX_HTTP_MODULE
            && r->ctx[module->ctx_index] == data)
        {
            return ngx_http_rt_harmless(module->name);
        }
    }

    return 0;
}


/* the request ends here, as far as it knows, and is logged */

static void
ngx_http_rt_detach_request(ngx_http_rt_stream_t *s)
{
    ngx_event_t            *rev;
    ngx_connection_t       *c;
    ngx_http_rt_ctx_t      *ctx;
    ngx_http_cleanup_t     *cln;
    ngx_http_request_t     *r;
    ngx_http_connection_t  *hc;

    r = s->request;
    c = r->connection;
    rev = c->read;
    hc = r->http_connection;

    ctx = ngx_http_get_module_ctx(r, ngx_http_rt_module);
    ctx->close = "detached";
    ctx->messages = s->messages;
    ctx->stream = NULL;

    for (cln = r->cleanup; cln; cln = cln->next) {
        if (cln->data == s) {
            cln->handler = NULL;
        }
    }

    s->request = NULL;
    s->busy = NULL;
    s->free = NULL;

    r->keepalive = 0;

    /* it sets c->destroyed, which has to stay: so that whoever has called us
     * looks for no posted request of a request that is gone */

    ngx_http_free_request(r, 0);

    c->data = s;
    c->log->action = "streaming to client";

    rev->handler = ngx_http_rt_detached_read;
    c->write->handler = ngx_http_rt_detached_write;

    ngx_http_rt_detach_buffers(c, hc);

    if (c->tcp_nopush == NGX_TCP_NOPUSH_SET) {
        (void) ngx_tcp_push(c->fd);
        c->tcp_nopush = NGX_TCP_NOPUSH_UNSET;
        (void) ngx_tcp_nodelay(c);
    }

    /* what came before has had its event: also the client's end */

    if (rev->ready || rev->pending_eof || rev->eof) {
        ngx_post_event(rev, &ngx_posted_events);
    }
}


/* what the request was read into */

static void
ngx_http_rt_detach_buffers(ngx_connection_t *c, ngx_http_connection_t *hc)
{
    ngx_buf_t    *b;
    ngx_uint_t    i;
    ngx_chain_t  *cl, *ln, **large[2];

    b = c->buffer;

    if (b && b->start && ngx_pfree(c->pool, b->start) == NGX_OK) {
        b->start = NULL;
        b->pos = NULL;
        b->last = NULL;
        b->end = NULL;
    }

    large[0] = &hc->free;
    large[1] = &hc->busy;

    for (i = 0; i < 2; i++) {

        for (cl = *large[i]; cl; /* void */) {
            ln = cl;
            cl = cl->next;

            ngx_pfree(c->pool, ln->buf->start);
            ngx_free_chain(c->pool, ln);
        }

        *large[i] = NULL;
    }

    hc->nbusy = 0;

#if (NGX_HTTP_SSL)
    if (c->ssl) {
        ngx_ssl_free_buffer(c);
    }
#endif
}


static void
ngx_http_rt_detached_read(ngx_event_t *rev)
{
    ngx_connection_t      *c;
    ngx_http_rt_stream_t  *s;

    c = rev->data;
    s = c->data;

    if (c->close) {
        /* worker_shutdown_timeout is over */

        if (s->close == NULL) {
            s->close = "drain";
        }

        ngx_http_rt_detached_end(s);
        return;
    }

    if (rev->timedout) {
        rev->timedout = 0;
        ngx_http_rt_stream_tick(s);
        return;
    }

    if (ngx_http_rt_discard(c) != NGX_OK) {

        if (s->close == NULL) {
            s->close = "client";
        }

        s->broken = 1;
        ngx_http_rt_detached_end(s);
    }
}


ngx_int_t
ngx_http_rt_discard(ngx_connection_t *c)
{
    size_t   size;
    ssize_t  n;
    u_char   buf[4096];

    for (size = 0; size < NGX_HTTP_RT_DISCARD; size += n) {

        n = c->recv(c, buf, sizeof(buf));

        if (n == NGX_AGAIN) {
            return ngx_handle_read_event(c->read, 0);
        }

        if (n == 0 || n == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    ngx_post_event(c->read, &ngx_posted_next_events);

    return NGX_OK;
}


static void
ngx_http_rt_detached_write(ngx_event_t *wev)
{
    ngx_connection_t  *c;

    c = wev->data;

    ngx_http_rt_stream_writable(c->data);
}


void
ngx_http_rt_detached_end(ngx_http_rt_stream_t *s)
{
    ngx_connection_t  *c;

    c = s->connection;

    ngx_http_rt_stream_leave(s);

    if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    if (c->timedout && s->core->reset_timedout_connection) {
        struct linger  linger = { 1, 0 };

        if (setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger,
                       sizeof(struct linger)) == -1)
        {
            ngx_log_error(NGX_LOG_ALERT, c->log, ngx_socket_errno,
                          "setsockopt(SO_LINGER) failed");
        }
    }

#if (NGX_HTTP_SSL)
    if (c->ssl && s->broken) {
        c->ssl->no_wait_shutdown = 1;
        c->ssl->no_send_shutdown = 1;
    }
#endif

    ngx_http_rt_stream_free(s);

    ngx_http_close_connection(c);
}
