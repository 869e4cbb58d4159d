
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * How a stream's frames leave: through nginx's filters, or directly.
 */


#include <ngx_http_rt_stream.h>


/* pieces in one system call */
#define NGX_HTTP_RT_VECS          64


static ngx_int_t ngx_http_rt_send_filters(ngx_http_rt_stream_t *s);
static ngx_int_t ngx_http_rt_send_chain(ngx_http_rt_stream_t *s,
    ngx_chain_t **out);
static void ngx_http_rt_send_sweep(ngx_http_rt_stream_t *s);
static ngx_int_t ngx_http_rt_send_direct(ngx_http_rt_stream_t *s);
static ssize_t ngx_http_rt_send_vecs(ngx_http_rt_stream_t *s,
    struct iovec *vec, ngx_uint_t n);
static ngx_int_t ngx_http_rt_send_blocked(ngx_http_rt_stream_t *s);


ngx_int_t
ngx_http_rt_send(ngx_http_rt_stream_t *s)
{
    s->written = ngx_current_msec;

    return s->direct ? ngx_http_rt_send_direct(s)
                     : ngx_http_rt_send_filters(s);
}


static ngx_int_t
ngx_http_rt_send_filters(ngx_http_rt_stream_t *s)
{
    ngx_int_t            rc;
    ngx_chain_t         *cl, *out;
    ngx_event_t         *wev;
    ngx_http_request_t  *r;

    r = s->request;
    wev = r->connection->write;

    if (ngx_http_rt_send_chain(s, &out) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_output_filter(r, out);

    while (out) {
        cl = out;
        out = cl->next;
        ngx_free_chain(r->pool, cl);
    }

    ngx_http_rt_send_sweep(s);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (s->out.head == NULL) {

        /* of a delayed event the timer is limit_rate's: it is what ends the
         * delay */

        if (wev->timer_set && !wev->delayed) {
            ngx_del_timer(wev);
        }

        return NGX_OK;
    }

    return ngx_http_rt_send_blocked(s);
}


/* a buffer for each piece that was not offered.  The filters get links of
 * their own: those of busy must stay as they are until all is written */

static ngx_int_t
ngx_http_rt_send_chain(ngx_http_rt_stream_t *s, ngx_chain_t **out)
{
    ngx_buf_t           *b;
    ngx_chain_t         *cl, *link, **busy;
    ngx_rt_frame_t      *frame;
    ngx_rt_piece_t      *piece;
    ngx_http_request_t  *r;

    r = s->request;
    *out = NULL;

    for (busy = &s->busy; *busy; busy = &(*busy)->next) { /* void */ }

    for (piece = s->out.fresh; piece; piece = piece->next) {

        cl = ngx_chain_get_free_buf(r->pool, &s->free);
        link = ngx_alloc_chain_link(r->pool);

        if (cl == NULL || link == NULL) {
            return NGX_ERROR;
        }

        frame = piece->frame;

        b = cl->buf;
        ngx_memzero(b, sizeof(ngx_buf_t));

        b->pos = frame->data + frame->head;
        b->last = frame->data + frame->len - frame->tail;
        b->memory = 1;
        b->flush = 1;
        b->tag = (ngx_buf_tag_t) &ngx_http_rt_module;

        cl->next = NULL;
        *busy = cl;
        busy = &cl->next;

        link->buf = b;
        link->next = NULL;
        *out = link;
        out = &link->next;

        s->sent_seq = ngx_max(s->sent_seq, frame->seq);
        ngx_rt_out_offered(&s->out, piece->next);
    }

    return NGX_OK;
}


static void
ngx_http_rt_send_sweep(ngx_http_rt_stream_t *s)
{
    ngx_chain_t  *cl;

    while (s->busy && ngx_buf_size(s->busy->buf) == 0) {
        cl = s->busy;
        s->busy = cl->next;

        cl->next = s->free;
        s->free = cl;

        ngx_rt_out_pop(s->sub.hub, &s->out);
    }

    s->sub.full = (s->out.bytes >= s->conf->buffer);
}


static ngx_int_t
ngx_http_rt_send_direct(ngx_http_rt_stream_t *s)
{
    ssize_t       n;
    ngx_uint_t    nvec;
    struct iovec  vec[NGX_HTTP_RT_VECS];

    do {
        nvec = ngx_rt_out_vec(&s->out, vec, s->tls ? 1 : NGX_HTTP_RT_VECS,
                              s->chunked);
        if (nvec == 0) {
            break;
        }

        n = ngx_http_rt_send_vecs(s, vec, nvec);

        if (ngx_http_rt_sent(s, n, vec, nvec) != NGX_OK) {
            return NGX_ERROR;
        }

    } while (!ngx_rt_out_busy(&s->out));

    return NGX_OK;
}


/* bytes taken, or -errno.  ngx_unix_send() would read more of the connection
 * than all else does here together */

static ssize_t
ngx_http_rt_send_vecs(ngx_http_rt_stream_t *s, struct iovec *vec,
    ngx_uint_t n)
{
    ssize_t            sent;
    ngx_connection_t  *c;

    if (s->tls) {
        c = s->connection;
        sent = c->send(c, vec[0].iov_base, vec[0].iov_len);

        /* an error is logged already */

        return (sent == NGX_AGAIN) ? -NGX_EAGAIN
               : (sent == NGX_ERROR) ? -NGX_ECONNABORTED : sent;
    }

    do {
        sent = (n == 1) ? send(s->fd, vec[0].iov_base, vec[0].iov_len,
                               MSG_NOSIGNAL)
                        : writev(s->fd, vec, n);

    } while (sent == -1 && ngx_socket_errno == NGX_EINTR);

    return (sent == -1) ? -ngx_socket_errno : sent;
}


ngx_int_t
ngx_http_rt_sent(ngx_http_rt_stream_t *s, ssize_t result, struct iovec *vec,
    ngx_uint_t n)
{
    size_t      size;
    uint64_t    seq;
    ngx_uint_t  i;

    if (result == -NGX_EINTR) {
        /* nothing was taken, and nothing keeps it from being sent again */
        return NGX_OK;
    }

    if (result == -NGX_EAGAIN) {
        return ngx_http_rt_send_blocked(s);
    }

    if (result < 0) {
        s->connection->write->error = 1;

        if (!s->tls) {
            ngx_connection_error(s->connection, -result, "send() failed");
        }

        return NGX_ERROR;
    }

    for (i = 0, size = 0; i < n; i++) {
        size += vec[i].iov_len;
    }

    if (!s->tls) {
        s->bytes += result;
    }

    s->written = ngx_current_msec;

    seq = ngx_rt_out_taken(s->sub.hub, &s->out, result, s->chunked);
    s->sent_seq = ngx_max(s->sent_seq, seq);
    s->sub.full = (s->out.bytes >= s->conf->buffer);

    if ((size_t) result < size) {
        return ngx_http_rt_send_blocked(s);
    }

    if (s->blocked) {
        s->blocked = 0;

        if (s->connection->write->timer_set) {
            ngx_del_timer(s->connection->write);
        }
    }

    return NGX_OK;
}


/* something remains: the next write event goes on, within send_timeout, which
 * begins anew whenever the client has taken something */

static ngx_int_t
ngx_http_rt_send_blocked(ngx_http_rt_stream_t *s)
{
    ngx_event_t  *wev;

    wev = s->connection->write;

    if (s->direct) {
        s->blocked = 1;
        s->sub.full = (s->out.bytes >= s->conf->buffer);
        s->sent_seq = ngx_max(s->sent_seq, s->out.head->frame->seq);
        wev->ready = 0;

        /* the head is begun, and a retry of TLS' must be of the same bytes */

        ngx_rt_out_offered(&s->out, s->out.head->next);
    }

    if (!wev->delayed) {
        ngx_add_timer(wev, s->core->send_timeout);
    }

    return ngx_handle_write_event(wev, 0);
}
