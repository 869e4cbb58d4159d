
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * One connection to Redis.  nginx owns the socket, hiredis is but the codec
 * (ngx_rt_resp.c): nothing blocks, nothing asserts, names are nginx' matter.
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


#define NGX_RT_REDIS_SLICE        16384     /* bytes read at once */
#define NGX_RT_REDIS_SLICES       16        /* in one turn of the loop */
#define NGX_RT_REDIS_PING         1000      /* ms */
#define NGX_RT_REDIS_TICK_MIN     20        /* ms */
#define NGX_RT_REDIS_OUT_MIN      4096
#define NGX_RT_REDIS_OUT_KEEP     65536     /* kept when nothing waits */
#define NGX_RT_REDIS_BULK_MIN     4096
#define NGX_RT_REDIS_CMD_MAX      1024      /* copied, not formatted, below */


static void ngx_rt_redis_next(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_lookup(ngx_rt_redis_t *rd,
    ngx_rt_redis_url_t *url);
static ngx_uint_t ngx_rt_redis_is_name(ngx_str_t *host);
static void ngx_rt_redis_resolved(ngx_resolver_ctx_t *ctx);
static ngx_int_t ngx_rt_redis_connect(ngx_rt_redis_t *rd, ngx_addr_t *addr);
static void ngx_rt_redis_connected(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_greet(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_logged_in(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static ngx_int_t ngx_rt_redis_greeted(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);
static size_t ngx_rt_redis_bulk_max(ngx_rt_hub_conf_t *conf);
static void ngx_rt_redis_down(ngx_rt_redis_t *rd);
static void ngx_rt_redis_disconnect(ngx_rt_redis_t *rd);
static void ngx_rt_redis_read_handler(ngx_event_t *rev);
static ngx_int_t ngx_rt_redis_read(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_dispatch(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_reply(ngx_rt_redis_t *rd, redisReply *reply);
static ngx_uint_t ngx_rt_redis_is_message(redisReply *reply);
static void ngx_rt_redis_write_handler(ngx_event_t *wev);
static ngx_int_t ngx_rt_redis_flush(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_append(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, const u_char *data, size_t len);
static ngx_int_t ngx_rt_redis_grow(ngx_rt_redis_t *rd, size_t len);
static ngx_int_t ngx_rt_redis_command(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, ngx_uint_t argc, const ngx_str_t *argv);
static void ngx_rt_redis_timer(ngx_event_t *ev);
static ngx_int_t ngx_rt_redis_tick(ngx_rt_redis_t *rd);
static void ngx_rt_redis_set_timer(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_redis_pong(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply);
static uint64_t ngx_rt_redis_usec(void);
static void ngx_rt_redis_errno(ngx_rt_redis_t *rd, const char *what,
    ngx_err_t err);


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


static void
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

    /* errors of a Redis that takes PUBLISH and SUBSCRIBE all the same */

    static const char  *fine[] = {
        "LOADING ", "MASTERDOWN ", "BUSY ", "NOPERM ", NULL
    };

    if (reply == NULL) {
        return NGX_OK;
    }

    if (reply->type == REDIS_REPLY_ERROR) {
        for (i = 0; fine[i]; i++) {
            if (ngx_strncmp(reply->str, fine[i], ngx_strlen(fine[i])) == 0) {
                goto ready;
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

static void
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

    rd->state = NGX_RT_REDIS_CLOSED;

    while (!ngx_queue_empty(&rd->owed)) {
        q = ngx_queue_head(&rd->owed);
        ngx_queue_remove(q);

        op = ngx_queue_data(q, ngx_rt_redis_op_t, queue);
        (void) op->handler(rd, op, NULL);
    }
}


static void
ngx_rt_redis_read_handler(ngx_event_t *rev)
{
    ngx_int_t          rc;
    ngx_rt_redis_t    *rd;
    ngx_connection_t  *c;

    c = rev->data;
    rd = c->data;

    if (rd->state == NGX_RT_REDIS_CONNECTING) {
        ngx_rt_redis_connected(rd);
        return;
    }

    rc = ngx_rt_redis_read(rd);

    if (rd->ops->turn) {
        rd->ops->turn(rd);
    }

    if (rc == NGX_OK && ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_rt_redis_error(rd, "no events for the socket", NULL);
        rc = NGX_ERROR;
    }

    if (rc == NGX_ERROR) {
        ngx_rt_redis_down(rd);
        return;
    }

    if (rc == NGX_AGAIN) {
        /* there is more, but clients have their turn first */
        ngx_post_event(rev, &ngx_posted_next_events);
    }

    ngx_rt_redis_set_timer(rd);
}


/*
 * NGX_OK: all has been read; NGX_AGAIN: so much that the rest must wait;
 * NGX_ERROR: the end, rd->error says why.
 */

static ngx_int_t
ngx_rt_redis_read(ngx_rt_redis_t *rd)
{
    ssize_t            n;
    ngx_uint_t         i;
    ngx_connection_t  *c;
    u_char             buf[NGX_RT_REDIS_SLICE];

    c = rd->peer.connection;

    for (i = 0; i < NGX_RT_REDIS_SLICES; i++) {

        n = c->recv(c, buf, NGX_RT_REDIS_SLICE);

        if (n == NGX_AGAIN) {
            return NGX_OK;
        }

        if (n == NGX_ERROR) {
            ngx_rt_redis_errno(rd, "recv()", ngx_socket_errno);
            return NGX_ERROR;
        }

        if (n == 0) {
            ngx_rt_redis_error(rd, "connection closed by Redis", NULL);
            return NGX_ERROR;
        }

        rd->heard = ngx_current_msec;

        /* what came whole before an error is taken all the same */

        (void) ngx_rt_resp_feed(&rd->resp, buf, n);

        if (ngx_rt_redis_dispatch(rd) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_AGAIN;
}


static ngx_int_t
ngx_rt_redis_dispatch(ngx_rt_redis_t *rd)
{
    ngx_int_t    rc;
    redisReply  *reply;

    for ( ;; ) {
        rc = ngx_rt_resp_next(&rd->resp, &reply);

        if (rc == NGX_AGAIN) {
            return NGX_OK;
        }

        if (rc != NGX_OK) {
            ngx_rt_redis_error(rd, rd->resp.error, NULL);
            return NGX_ERROR;
        }

        rc = ngx_rt_redis_reply(rd, reply);

        ngx_rt_resp_free(reply);

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }
}


static ngx_int_t
ngx_rt_redis_reply(ngx_rt_redis_t *rd, redisReply *reply)
{
    ngx_queue_t        *q;
    ngx_rt_redis_op_t  *op;

    if (rd->ops->push && ngx_rt_redis_is_message(reply)) {

        if (rd->state == NGX_RT_REDIS_READY) {
            return rd->ops->push(rd, reply);
        }

    } else if (!ngx_queue_empty(&rd->owed)) {

        q = ngx_queue_head(&rd->owed);
        ngx_queue_remove(q);

        op = ngx_queue_data(q, ngx_rt_redis_op_t, queue);

        return op->handler(rd, op, reply);
    }

    ngx_rt_redis_error(rd, "unexpected reply", reply);

    return NGX_ERROR;
}


static ngx_uint_t
ngx_rt_redis_is_message(redisReply *reply)
{
    redisReply  *kind;

    if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0) {
        return 0;
    }

    kind = reply->element[0];

    return kind->type == REDIS_REPLY_STRING
           && (ngx_strcmp(kind->str, "message") == 0
               || ngx_strcmp(kind->str, "pmessage") == 0);
}


static void
ngx_rt_redis_write_handler(ngx_event_t *wev)
{
    ngx_rt_redis_t    *rd;
    ngx_connection_t  *c;

    c = wev->data;
    rd = c->data;

    if (rd->state == NGX_RT_REDIS_CONNECTING) {
        ngx_rt_redis_connected(rd);
        return;
    }

    if (ngx_rt_redis_flush(rd) != NGX_OK) {
        ngx_rt_redis_down(rd);
    }
}


static ngx_int_t
ngx_rt_redis_flush(ngx_rt_redis_t *rd)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = rd->peer.connection;

    if (rd->out_first == rd->out_last) {
        return NGX_OK;
    }

    while (rd->out_first < rd->out_last) {

        n = c->send(c, rd->out + rd->out_first, rd->out_last - rd->out_first);

        if (n == NGX_AGAIN || n == 0) {

            if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
                ngx_rt_redis_error(rd, "no events for the socket", NULL);
                return NGX_ERROR;
            }

            return NGX_OK;
        }

        if (n < 0) {
            ngx_rt_redis_errno(rd, "send()", ngx_socket_errno);
            return NGX_ERROR;
        }

        rd->out_first += n;
        rd->sent += n;
    }

    rd->out_first = 0;
    rd->out_last = 0;

    if (rd->out_size > NGX_RT_REDIS_OUT_KEEP) {
        ngx_free(rd->out);
        rd->out = NULL;
        rd->out_size = 0;
    }

    if (rd->ops->drained && rd->state == NGX_RT_REDIS_READY) {
        return rd->ops->drained(rd);
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_redis_send(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op, ngx_uint_t argc,
    const ngx_str_t *argv)
{
    if (rd->state != NGX_RT_REDIS_READY) {
        return NGX_DECLINED;
    }

    return ngx_rt_redis_command(rd, op, argc, argv);
}


ngx_int_t
ngx_rt_redis_write(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    const u_char *data, size_t len)
{
    if (rd->state != NGX_RT_REDIS_READY) {
        return NGX_DECLINED;
    }

    return ngx_rt_redis_append(rd, op, data, len);
}


size_t
ngx_rt_redis_room(ngx_rt_redis_t *rd)
{
    size_t  waiting;

    waiting = rd->out_last - rd->out_first;

    return (rd->state == NGX_RT_REDIS_READY && waiting < rd->out_max)
           ? rd->out_max - waiting : 0;
}


static ngx_int_t
ngx_rt_redis_command(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    ngx_uint_t argc, const ngx_str_t *argv)
{
    u_char     *cmd;
    ssize_t     len;
    ngx_int_t   rc;

    len = ngx_rt_redis_format(&cmd, argc, argv);

    if (len == NGX_ERROR) {
        return NGX_ERROR;
    }

    rc = ngx_rt_redis_append(rd, op, cmd, len);

    ngx_rt_redis_free_command(cmd);

    return rc;
}


ssize_t
ngx_rt_redis_format(u_char **cmd, ngx_uint_t argc, const ngx_str_t *argv)
{
    char        *text;
    ssize_t      len;
    ngx_uint_t   i;
    const char  *args[NGX_RT_REDIS_ARGS];
    size_t       lens[NGX_RT_REDIS_ARGS];

    if (argc > NGX_RT_REDIS_ARGS) {
        return NGX_ERROR;
    }

    for (i = 0; i < argc; i++) {
        args[i] = (char *) argv[i].data;
        lens[i] = argv[i].len;
    }

    len = (ssize_t) redisFormatCommandArgv(&text, argc, args, lens);

    if (len <= 0) {
        return NGX_ERROR;
    }

    *cmd = (u_char *) text;

    return len;
}


void
ngx_rt_redis_free_command(u_char *cmd)
{
    redisFreeCommand((char *) cmd);
}


/* what is written in one turn of the loop goes out with one send() */

static ngx_int_t
ngx_rt_redis_append(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    const u_char *data, size_t len)
{
    ngx_connection_t  *c;

    if (rd->out_last - rd->out_first + len > rd->out_max) {
        return NGX_DECLINED;
    }

    if (rd->out_size - rd->out_last < len
        && ngx_rt_redis_grow(rd, len) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(rd->out + rd->out_last, data, len);
    rd->out_last += len;
    rd->queued += len;

    if (ngx_queue_empty(&rd->owed)) {
        rd->heard = ngx_current_msec;
    }

    op->end = rd->queued;
    ngx_queue_insert_tail(&rd->owed, &op->queue);

    rd->timer.cancelable = !rd->hold;

    c = rd->peer.connection;

    if (c->write->ready) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_redis_grow(ngx_rt_redis_t *rd, size_t len)
{
    size_t   size, waiting;
    u_char  *out;

    waiting = rd->out_last - rd->out_first;

    if (rd->out_size < waiting + len) {

        size = ngx_max(NGX_RT_REDIS_OUT_MIN, 2 * rd->out_size);
        size = ngx_max(size, waiting + len);

        out = ngx_alloc(size, &rd->log);
        if (out == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(out, rd->out ? rd->out + rd->out_first : out, waiting);

        if (rd->out) {
            ngx_free(rd->out);
        }

        rd->out = out;
        rd->out_size = size;

    } else {
        ngx_memmove(rd->out, rd->out + rd->out_first, waiting);
    }

    rd->out_first = 0;
    rd->out_last = waiting;

    return NGX_OK;
}


static void
ngx_rt_redis_timer(ngx_event_t *ev)
{
    ngx_rt_redis_t  *rd;

    rd = ev->data;

    if (rd->state == NGX_RT_REDIS_CONNECTING) {
        ngx_rt_redis_errno(rd, "connect()", NGX_ETIMEDOUT);
        ngx_rt_redis_down(rd);
        return;
    }

    if (ngx_rt_redis_tick(rd) != NGX_OK) {
        ngx_rt_redis_down(rd);
        return;
    }

    ngx_rt_redis_set_timer(rd);
}


static ngx_int_t
ngx_rt_redis_tick(ngx_rt_redis_t *rd)
{
    ngx_int_t   rc;
    ngx_str_t   args[1];
    ngx_msec_t  now;

    now = ngx_current_msec;

    if (!ngx_queue_empty(&rd->owed)
        && now - rd->heard >= rd->conf->reply_timeout)
    {
        ngx_rt_redis_error(rd, "no answer in time", NULL);
        return NGX_ERROR;
    }

    if (!rd->ping
        || rd->state != NGX_RT_REDIS_READY
        || now - rd->pinged < NGX_RT_REDIS_PING
        || rd->asked)
    {
        return NGX_OK;
    }

    ngx_str_set(&args[0], "PING");

    rd->pong.handler = ngx_rt_redis_pong;

    rc = ngx_rt_redis_command(rd, &rd->pong, 1, args);

    if (rc == NGX_OK) {
        rd->pinged = now;
        rd->asked = ngx_rt_redis_usec();
    }

    /* NGX_DECLINED: so much is waiting to be written that it is owed */

    if (rc == NGX_ERROR) {
        ngx_rt_redis_error(rd, "no memory", NULL);
    }

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


static void
ngx_rt_redis_set_timer(ngx_rt_redis_t *rd)
{
    ngx_uint_t  owed;
    ngx_msec_t  tick;

    owed = !ngx_queue_empty(&rd->owed);

    rd->timer.cancelable = !(rd->hold && owed);

    if (rd->timer.timer_set && rd->state == NGX_RT_REDIS_READY) {
        return;
    }

    tick = rd->conf->reply_timeout / 8;
    tick = ngx_max(tick, NGX_RT_REDIS_TICK_MIN);
    tick = ngx_min(tick, NGX_RT_REDIS_PING / 4);

    ngx_add_timer(&rd->timer, tick);
}


/* subscribed or not, "pong" or an error: Redis is there */

static ngx_int_t
ngx_rt_redis_pong(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    uint64_t  asked;

    asked = rd->asked;
    rd->asked = 0;

    if (reply == NULL) {
        return NGX_OK;
    }

    if (reply->type == REDIS_REPLY_STATUS
        || (reply->type == REDIS_REPLY_ARRAY
            && reply->elements == 2
            && reply->element[0]->type == REDIS_REPLY_STRING
            && ngx_strcmp(reply->element[0]->str, "pong") == 0))
    {
        rd->lag = ngx_rt_redis_usec() - asked;
        return NGX_OK;
    }

    if (reply->type == REDIS_REPLY_ERROR
        && ngx_strncmp(reply->str, "NOAUTH", sizeof("NOAUTH") - 1) != 0)
    {
        return NGX_OK;
    }

    ngx_rt_redis_error(rd, "unexpected reply to PING", reply);

    return NGX_ERROR;
}


static uint64_t
ngx_rt_redis_usec(void)
{
    struct timespec  ts;

    if (clock_gettime(CLOCK_MONOTONIC, &ts) == -1) {
        return 1;
    }

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
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


static void
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
