
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layer 3: a client's stream, whatever is framed on it.  A transport (SSE)
 * makes frames; here they are queued, bounded and sent, and the stream ends.
 *
 * A stream sends in one of two ways, and is in one of two states:
 *
 *     filters   through nginx's body filters: HTTP/2, HTTP/3, gzip, limit_rate
 *     direct    to the connection, where no body filter is in play
 *
 *     attached  to its request, which lives as long as the stream
 *     detached  alone on its connection, its request is over; always direct
 *
 * It begins attached, by filters, and goes on from there once all that was
 * queued at its begin is out (ngx_http_rt_detach.c).
 */


#ifndef _NGX_HTTP_RT_STREAM_H_INCLUDED_
#define _NGX_HTTP_RT_STREAM_H_INCLUDED_


#include <ngx_http_rt.h>


typedef struct ngx_http_rt_stream_s  ngx_http_rt_stream_t;


/* what a transport queues: on an idle stream; before a drain ends it */

typedef struct {
    void                        (*ping)(ngx_http_rt_stream_t *s);
    void                        (*farewell)(ngx_http_rt_stream_t *s);
} ngx_http_rt_stream_ops_t;


/*
 * In one allocation with its links; freed by the cleanup of its request, or
 * when detached with the connection.  The timer of the connection's read event
 * is the stream's: the next ping, or its end.  That of the write event is
 * send_timeout.
 */

struct ngx_http_rt_stream_s {
    ngx_rt_subscriber_t           sub;      /* first */
    ngx_rt_out_t                  out;
    ngx_socket_t                  fd;
    ngx_uint_t                    messages;
    uint64_t                      sent_seq; /* newest message that is out, or
                                               was offered */
    ngx_msec_t                    written;  /* when something last was */
    const char                   *close;    /* why it ends, NULL: it lasts */
    ngx_connection_t             *connection;
    ngx_http_rt_loc_conf_t       *conf;
    off_t                         bytes;    /* sent directly, that the
                                               connection has not counted */

    ngx_http_request_t           *request;  /* NULL: detached */
    ngx_http_core_loc_conf_t     *core;
    const ngx_http_rt_stream_ops_t  *ops;
    ngx_chain_t                  *busy;     /* filters: a buffer for each piece
                                               that was offered */
    ngx_chain_t                  *free;
    ngx_msec_t                    begun;
    ngx_str_t                     client;   /* its address, that the request
                                               was told, of the connection's
                                               pool */
    ngx_msec_t                    expires;  /* rt_lifetime, rt_drain */

    unsigned                      opened:1;
    unsigned                      left:1;   /* no subscriber any more */
    unsigned                      expiring:1;   /* expires is set */
    unsigned                      broken:1; /* end without the last chunk */
    unsigned                      tls:1;
    unsigned                      direct:1;
    unsigned                      chunked:1;    /* direct: frames as chunks */
    unsigned                      blocked:1;    /* direct: until writable */
    unsigned                      told:1;   /* why it stays attached */
    unsigned                      ending:1; /* all that is queued, then over */
};


/* ngx_http_rt_stream.c */

/*
 * Of a request that is to be a stream: a stream with a link for each of the
 * context's channels, owned by the request's cleanup.  NULL: no memory.
 */
ngx_http_rt_stream_t *ngx_http_rt_stream_create(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, const ngx_rt_subscriber_ops_t *sub,
    const ngx_http_rt_stream_ops_t *ops);

/* the header is out, frames may be queued: the request is the stream's, its
 * handler is to return NGX_DONE */
void ngx_http_rt_stream_open(ngx_http_rt_stream_t *s);

/* subscribed, or closed already: the first bytes are sent, timers set */
void ngx_http_rt_stream_begin(ngx_http_rt_stream_t *s);

/* takes over the reference to the frame; NULL: it could not be made, the
 * stream ends */
void ngx_http_rt_stream_queue(ngx_http_rt_stream_t *s, ngx_rt_frame_t *frame);

/* 1: nothing can be queued for this client now, which was seen to */
ngx_uint_t ngx_http_rt_stream_slow(ngx_http_rt_stream_t *s);

/* ops of the subscriber */
void ngx_http_rt_stream_flush(ngx_rt_subscriber_t *sub);
void ngx_http_rt_stream_drain(ngx_rt_subscriber_t *sub);

/* marks; the end comes from an event of its own.  why: constant; broken: the
 * client is to see that something failed */
void ngx_http_rt_stream_close(ngx_http_rt_stream_t *s, const char *why,
    ngx_uint_t broken);

/* it is nobody's subscriber any more, its reason and counts are told */
void ngx_http_rt_stream_leave(ngx_http_rt_stream_t *s);

/* frees all but its connection */
void ngx_http_rt_stream_free(ngx_http_rt_stream_t *s);

/* events of its connection: the timer; it can be written to, or is to end */
void ngx_http_rt_stream_tick(ngx_http_rt_stream_t *s);
void ngx_http_rt_stream_writable(ngx_http_rt_stream_t *s);

#define ngx_http_rt_jitter(ms, part)                                          \
    ((ms) - (ms) / (part) + ngx_random() % (2 * ((ms) / (part)) + 1))


/* ngx_http_rt_send.c: offers all that is queued; NGX_OK also if something
 * remains: a write event follows then.  NGX_ERROR: the connection is broken */
ngx_int_t ngx_http_rt_send(ngx_http_rt_stream_t *s);

/*
 * Of a direct stream, what became of a send of the first n pieces: bytes
 * taken, or -errno.  NGX_OK, also when it goes on with a write event; or
 * NGX_ERROR.
 */
ngx_int_t ngx_http_rt_sent(ngx_http_rt_stream_t *s, ssize_t result,
    struct iovec *vec, ngx_uint_t n);


/* ngx_http_rt_gather.c: flush() of the hub's turns, as stream_flush() is of
 * one stream */
void ngx_http_rt_gather(ngx_rt_subscriber_t *sub);


/* ngx_http_rt_detach.c */

/* when all is out: makes the stream direct and detached, as far as nobody
 * else needs its body or its request; not from within the content handler */
void ngx_http_rt_detach(ngx_http_rt_stream_t *s);

/* reads what the client says and throws it away, so that its end is seen.
 * NGX_OK, a read event follows if there is more; NGX_ERROR: it has closed */
ngx_int_t ngx_http_rt_discard(ngx_connection_t *c);

/* the end of a detached stream: frees it and closes the connection */
void ngx_http_rt_detached_end(ngx_http_rt_stream_t *s);


/* ngx_http_rt_stream_log.c: of a stream that ends, is still subscribed, and
 * knows why it ends; nothing where there is no rt_stream_log */
void ngx_http_rt_stream_log(ngx_http_rt_stream_t *s);


#endif /* _NGX_HTTP_RT_STREAM_H_INCLUDED_ */
