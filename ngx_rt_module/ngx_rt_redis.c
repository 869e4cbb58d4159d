
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * One connection to Redis: its life.  nginx owns the socket, hiredis is but
 * the codec (ngx_rt_resp.c): nothing blocks, nothing asserts, names are
 * nginx' matter.
 *
 *     open -> [RESOLVING ->] CONNECTING -> GREETING -> READY
 *              ^                                |
 *              +-- next address, next url ------+
 *
 * Before READY a failure leads on to the next address, then to the next url;
 * closed is called when none is left, or when a READY connection is lost.
 * When to try again is the owner's to say.
 */


#include <ngx_rt_source.h>
#include <hiredis/hiredis.h>


#define NGX_RT_REDIS_BULK_MIN     4096

/* of a stream's entries in one reply: two of the largest, and some */
#define NGX_RT_REDIS_ENTRY_ARRAY  1024
#define NGX_RT_REDIS_BUDGET       (1024 * 1024)


static void ngx_rt_redis_next(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_lookup(ngx_rt_redis_t *rd,
    ngx_rt_redis_url_t *url);
static ngx_uint_t ngx_rt_redis_is_name(ngx_str_t *host);
static void ngx_rt_redis_resolved(ngx_resolver_ctx_t *ctx);
static ngx_int_t ngx_rt_redis_connect(ngx_rt_redis_t *rd, ngx_addr_t *addr);
static ngx_int_t ngx_rt_redis_greet(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_logged_in(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static ngx_int_t ngx_rt_redis_greeted(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static size_t ngx_rt_redis_bulk_max(ngx_rt_hub_conf_t *conf);
static void ngx_rt_redis_disconnect(ngx_rt_redis_t *rd);


void
ngx_rt_redis_init(ngx_rt_redis_t *rd, ngx_log_t *log)
{
    rd->fd = (ngx_socket_t) -1;

    ngx_queue_init(&rd->owed);

    /* nginx' own lines about the socket would be one per attempt */

    rd->log = *log;

    if (log->log_level <= NGX_LOG_DEBUG) {
        rd->log.log_level = ngx_min(log->log_level, NGX_LOG_ALERT);
    }

    rd->timer.data = rd;
    rd->timer.handler = ngx_rt_redis_timer;
    rd->timer.log = &rd->log;
    rd->timer.cancelable = 1;
}


void
ngx_rt_redis_open(ngx_rt_redis_t *rd)
{
    rd->tried = 0;
    rd->addr = 0;
    rd->naddrs = 0;
    rd->refused = 0;
    rd->paused = 0;
    rd->error.len = 0;

    ngx_rt_redis_next(rd);
}


void
ngx_rt_redis_follow(ngx_rt_redis_t *rd, ngx_rt_redis_t *other)
{
    ngx_peer_connection_t  *pc;

    pc = &other->peer;

    ngx_memcpy(&rd->sockaddrs[0], pc->sockaddr, pc->socklen);

    rd->found[0].sockaddr = &rd->sockaddrs[0].sockaddr;
    rd->found[0].socklen = pc->socklen;
    rd->found[0].name = *pc->name;

    rd->addrs = rd->found;
    rd->naddrs = 1;
    rd->addr = 0;

    /* no other url is tried, and the login is that one's */

    rd->url = other->url;
    rd->tried = rd->conf->urls.nelts;
    rd->refused = 0;
    rd->paused = 0;
    rd->error.len = 0;

    ngx_rt_redis_next(rd);
}


void
ngx_rt_redis_close(ngx_rt_redis_t *rd)
{
    if (rd->state != NGX_RT_REDIS_CLOSED) {
        ngx_rt_redis_disconnect(rd);
    }
}


/* the next address, the next url, or the end of this round */

static void
ngx_rt_redis_next(ngx_rt_redis_t *rd)
{
    ngx_int_t            rc;
    ngx_rt_redis_url_t  *urls;

    urls = rd->conf->urls.elts;

    for ( ;; ) {

        if (rd->addr < rd->naddrs) {

            if (ngx_rt_redis_connect(rd, &rd->addrs[rd->addr++]) == NGX_OK) {
                return;
            }

            continue;
        }

        if (rd->tried == rd->conf->urls.nelts) {
            rd->ops->closed(rd);
            return;
        }

        if (rd->tried++) {
            rd->url = (rd->url + 1) % rd->conf->urls.nelts;
        }

        rd->addr = 0;
        rd->naddrs = 0;

        rc = ngx_rt_redis_lookup(rd, &urls[rd->url]);

        if (rc == NGX_AGAIN) {
            return;
        }
    }
}


/*
 * Sets rd->addrs.  NGX_OK; NGX_AGAIN: ngx_rt_redis_resolved() will be called.
 * A name is looked up each time, for the host may have moved; when that
 * fails, the addresses found at start are tried.
 */

static ngx_int_t
ngx_rt_redis_lookup(ngx_rt_redis_t *rd, ngx_rt_redis_url_t *url)
{
    ngx_resolver_ctx_t  *ctx;

    rd->addrs = url->addrs;
    rd->naddrs = url->naddrs;

    if (rd->conf->resolver == NULL || !ngx_rt_redis_is_name(&url->host)) {
        return NGX_OK;
    }

    ctx = ngx_resolve_start(rd->conf->resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        ngx_rt_redis_error(rd, "host not looked up", NULL);
        return NGX_OK;
    }

    ctx->name = url->host;
    ctx->handler = ngx_rt_redis_resolved;
    ctx->data = rd;
    ctx->timeout = rd->conf->resolver_timeout;
    ctx->cancelable = !rd->hold;

    rd->resolving = ctx;
    rd->state = NGX_RT_REDIS_RESOLVING;
    rd->looking = 1;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        /* the context is freed */
        rd->resolving = NULL;
        ngx_rt_redis_error(rd, "host not looked up", NULL);
    }

    rd->looking = 0;

    if (rd->resolving) {
        return NGX_AGAIN;
    }

    rd->state = NGX_RT_REDIS_CLOSED;

    return NGX_OK;
}


static ngx_uint_t
ngx_rt_redis_is_name(ngx_str_t *host)
{
    return host->len
           && host->data[0] != '['
           && ngx_strlchr(host->data, host->data + host->len, ':') == NULL
           && ngx_inet_addr(host->data, host->len) == INADDR_NONE;
}


static void
ngx_rt_redis_resolved(ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t           i, n;
    ngx_rt_redis_t      *rd;
    ngx_rt_redis_url_t  *urls;

    rd = ctx->data;

    urls = rd->conf->urls.elts;

    if (ctx->state) {
        ngx_rt_redis_error(rd, "host not found", NULL);

    } else {
        n = ngx_min(ctx->naddrs, NGX_RT_REDIS_ADDRS);

        for (i = 0; i < n; i++) {
            ngx_memcpy(&rd->sockaddrs[i], ctx->addrs[i].sockaddr,
                       ctx->addrs[i].socklen);
            ngx_inet_set_port(&rd->sockaddrs[i].sockaddr, urls[rd->url].port);

            rd->found[i].sockaddr = &rd->sockaddrs[i].sockaddr;
            rd->found[i].socklen = ctx->addrs[i].socklen;
            rd->found[i].name = urls[rd->url].text;
        }

        rd->addrs = rd->found;
        rd->naddrs = n;
    }

    ngx_resolve_name_done(ctx);
    rd->resolving = NULL;

    if (rd->looking) {
        /* called from within ngx_resolve_name() */
        return;
    }

    rd->state = NGX_RT_REDIS_CLOSED;

    ngx_rt_redis_next(rd);
}


static ngx_int_t
ngx_rt_redis_connect(ngx_rt_redis_t *rd, ngx_addr_t *addr)
{
    ngx_int_t               rc;
    ngx_connection_t       *c;
    ngx_peer_connection_t  *pc;

    pc = &rd->peer;

    ngx_memzero(pc, sizeof(ngx_peer_connection_t));

    pc->sockaddr = addr->sockaddr;
    pc->socklen = addr->socklen;
    pc->name = &addr->name;
    pc->get = ngx_event_get_peer;
    pc->log = &rd->log;
    pc->log_error = NGX_ERROR_ERR;
    pc->so_keepalive = (addr->sockaddr->sa_family != AF_UNIX);

    rc = ngx_event_connect_peer(pc);

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        ngx_rt_redis_errno(rd, "connect()", ngx_socket_errno);
        return NGX_ERROR;
    }

    c = pc->connection;

    c->data = rd;
    c->sendfile = 0;
    c->read->handler = ngx_rt_redis_read_handler;
    c->write->handler = ngx_rt_redis_write_handler;

    rd->state = NGX_RT_REDIS_CONNECTING;

    rd->timer.cancelable = !rd->hold;
    ngx_add_timer(&rd->timer, rd->conf->connect_timeout);

    if (rc == NGX_OK) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    return NGX_OK;
}


void
ngx_rt_redis_connected(ngx_rt_redis_t *rd)
{
    int                err;
    socklen_t          len;
    ngx_connection_t  *c;

    c = rd->peer.connection;

    err = 0;
    len = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    if (err) {
        ngx_rt_redis_errno(rd, "connect()", err);
        ngx_rt_redis_down(rd);
        return;
    }

    if (c->tcp_nodelay != NGX_TCP_NODELAY_DISABLED
        && ngx_tcp_nodelay(c) != NGX_OK)
    {
        ngx_rt_redis_error(rd, "setsockopt(TCP_NODELAY) failed", NULL);
        ngx_rt_redis_down(rd);
        return;
    }

    /* the place for a TLS handshake */

    if (ngx_rt_redis_greet(rd) != NGX_OK) {
        ngx_rt_redis_error(rd, "no memory", NULL);
        ngx_rt_redis_down(rd);
        return;
    }

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
    }
}


/* AUTH, SELECT and PING at once; the last answer makes us READY */

static ngx_int_t
ngx_rt_redis_greet(ngx_rt_redis_t *rd)
{
    u_char               db[NGX_INT_T_LEN];
    ngx_str_t            args[3];
    ngx_rt_redis_url_t  *url;

    url = rd->conf->urls.elts;
    url += rd->url;

    rd->state = NGX_RT_REDIS_GREETING;
    rd->queued = 0;
    rd->sent = 0;

    if (ngx_rt_resp_init(&rd->resp, ngx_rt_redis_bulk_max(rd->conf))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (rd->conf->source == NGX_RT_SOURCE_STREAM) {
        ngx_rt_resp_bound(&rd->resp, NGX_RT_REDIS_ENTRY_ARRAY,
                          NGX_RT_REDIS_BUDGET + 2 * rd->resp.bulk_max);
    }

    if (url->password.len) {
        ngx_str_set(&args[0], "AUTH");
        args[1] = url->user.len ? url->user : url->password;
        args[2] = url->password;

        rd->login[0].handler = ngx_rt_redis_logged_in;

        if (ngx_rt_redis_command(rd, &rd->login[0], url->user.len ? 3 : 2,
                                 args)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (url->db) {
        ngx_str_set(&args[0], "SELECT");
        args[1].data = db;
        args[1].len = ngx_sprintf(db, "%ui", url->db) - db;

        rd->login[1].handler = ngx_rt_redis_logged_in;

        if (ngx_rt_redis_command(rd, &rd->login[1], 2, args) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ngx_str_set(&args[0], "PING");

    rd->login[2].handler = ngx_rt_redis_greeted;

    if (ngx_rt_redis_command(rd, &rd->login[2], 1, args) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_rt_redis_set_timer(rd);

    return NGX_OK;
}


/* strings larger than that are passed over: no message can be in them */

static size_t
ngx_rt_redis_bulk_max(ngx_rt_hub_conf_t *conf)
{
    size_t  n;

    /* in JSON one byte may take six, beside an event and a version */

    n = conf->message_max;

    if (conf->payload == NGX_RT_PAYLOAD_JSON) {
        n = 6 * n + NGX_RT_REDIS_BULK_MIN;
    }

    return ngx_max(n, conf->prefix.len + NGX_RT_REDIS_BULK_MIN);
}


static ngx_int_t
ngx_rt_redis_logged_in(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    if (reply == NULL || reply->type == REDIS_REPLY_STATUS) {
        return NGX_OK;
    }

    ngx_rt_redis_error(rd, "unexpected reply to AUTH or SELECT", reply);

    return NGX_ERROR;
}


static ngx_int_t
ngx_rt_redis_greeted(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_uint_t  i;

    /* PING may be denied; and the others are errors of a Redis that takes
     * PUBLISH and SUBSCRIBE all the same, but reads nothing */

    static const char  *fine[] = {
        "NOPERM ", "LOADING ", "MASTERDOWN ", "BUSY ", NULL
    };

    if (reply == NULL) {
        return NGX_OK;
    }

    if (reply->type == REDIS_REPLY_ERROR) {
        for (i = 0; fine[i]; i++) {
            if (ngx_strncmp(reply->str, fine[i], ngx_strlen(fine[i])) == 0) {
                goto ready;
            }

            if (rd->conf->source == NGX_RT_SOURCE_STREAM) {
                break;
            }
        }
    }

    if (reply->type != REDIS_REPLY_STATUS
        || ngx_strcmp(reply->str, "PONG") != 0)
    {
        ngx_rt_redis_error(rd, "unexpected reply to PING", reply);
        return NGX_ERROR;
    }

ready:

    rd->state = NGX_RT_REDIS_READY;
    rd->refused = 0;
    rd->error.len = 0;
    rd->pinged = ngx_current_msec;

    return rd->ops->ready(rd);
}


/* the connection is of no use any more; rd->error is set */

void
ngx_rt_redis_down(ngx_rt_redis_t *rd)
{
    ngx_uint_t  ready;

    ready = (rd->state == NGX_RT_REDIS_READY);

    ngx_rt_redis_disconnect(rd);

    if (ready) {
        rd->ops->closed(rd);
        return;
    }

    ngx_rt_redis_next(rd);
}


static void
ngx_rt_redis_disconnect(ngx_rt_redis_t *rd)
{
    ngx_queue_t        *q;
    ngx_rt_redis_op_t  *op;

    if (rd->timer.timer_set) {
        ngx_del_timer(&rd->timer);
    }

    rd->timer.cancelable = 1;

    if (rd->resolving) {
        ngx_resolve_name_done(rd->resolving);
        rd->resolving = NULL;
    }

    if (rd->peer.connection) {
        ngx_close_connection(rd->peer.connection);
        rd->peer.connection = NULL;
    }

    ngx_rt_resp_done(&rd->resp);

    if (rd->out) {
        ngx_free(rd->out);
        rd->out = NULL;
    }

    rd->out_size = 0;
    rd->out_first = 0;
    rd->out_last = 0;

    if (rd->in) {
        ngx_free(rd->in);
        rd->in = NULL;
    }

    rd->in_first = 0;
    rd->in_last = 0;

    rd->state = NGX_RT_REDIS_CLOSED;

    while (!ngx_queue_empty(&rd->owed)) {
        q = ngx_queue_head(&rd->owed);
        ngx_queue_remove(q);

        op = ngx_queue_data(q, ngx_rt_redis_op_t, queue);
        (void) op->handler(rd, op, NULL);
    }
}


u_char *
ngx_rt_redis_name(u_char *p, const ngx_str_t *prefix, const ngx_str_t *channel)
{
    /* no prefix: its data is NULL */

    if (prefix->len) {
        p = ngx_cpymem(p, prefix->data, prefix->len);
    }

    ngx_memcpy(p, channel->data, channel->len);

    return p;
}


ngx_str_t *
ngx_rt_redis_server(ngx_rt_redis_t *rd)
{
    ngx_rt_redis_url_t  *urls;

    urls = rd->conf->urls.elts;

    return &urls[rd->url].text;
}


void
ngx_rt_redis_error(ngx_rt_redis_t *rd, const char *text, redisReply *reply)
{
    u_char      *p, *last;
    size_t       len;
    const char  *args;

    rd->refused = (reply && reply->type == REDIS_REPLY_ERROR);

    rd->error.data = rd->errbuf;

    p = rd->errbuf;
    last = p + NGX_RT_REDIS_ERROR_LEN;

    if (!rd->refused) {
        rd->error.len = ngx_slprintf(p, last, "%s", text) - p;
        return;
    }

    /* of an unknown command, AUTH maybe, old ones tell the arguments */

    len = reply->len;
    args = ngx_strstr(reply->str, ", with args");

    if (args) {
        len = args - reply->str;
    }

    p = ngx_slprintf(p, last - 1, "Redis says \"%*s", len, reply->str);
    *p++ = '"';

    rd->error.len = p - rd->errbuf;

    for (p = rd->errbuf; p < rd->errbuf + rd->error.len; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
}


void
ngx_rt_redis_errno(ngx_rt_redis_t *rd, const char *what, ngx_err_t err)
{
    u_char  *p, *last;

    rd->refused = 0;

    rd->error.data = rd->errbuf;

    p = rd->errbuf;
    last = p + NGX_RT_REDIS_ERROR_LEN;

    p = ngx_slprintf(p, last, "%s failed (%d: ", what, err);
    p = ngx_strerror(err, p, last - p);

    if (p < last) {
        *p++ = ')';
    }

    rd->error.len = p - rd->errbuf;
}


ngx_msec_t
ngx_rt_redis_delay(ngx_rt_hub_conf_t *conf, ngx_uint_t *attempt)
{
    ngx_uint_t  i;
    ngx_msec_t  delay;

    delay = ngx_max(conf->reconnect_min, 1);

    for (i = 0; i < *attempt && delay < conf->reconnect_max; i++) {
        delay *= 2;
    }

    if (delay < conf->reconnect_max) {
        (*attempt)++;

    } else {
        delay = ngx_max(conf->reconnect_max, 1);
    }

    return delay - (ngx_msec_t) ngx_random() % (delay / 2 + 1);
}
