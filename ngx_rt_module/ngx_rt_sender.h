
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layer 2: the sends of one turn of the event loop, gathered and done at once.
 * Knows neither hub nor HTTP: sockets and bytes.
 */


#ifndef _NGX_RT_SENDER_H_INCLUDED_
#define _NGX_RT_SENDER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * One send.  vec and what it points to are the caller's, and have to stay as
 * they are until ngx_rt_send_all() returns; they are not needed any longer.
 */

typedef struct {
    ngx_socket_t                  fd;
    ngx_uint_t                    nvec;     /* 1 to IOV_MAX */
    struct iovec                 *vec;
    ssize_t                       result;   /* bytes taken, fewer than there
                                               are where the socket's buffer
                                               was too small; or -errno */
    void                         *data;     /* the caller's, not looked at */
} ngx_rt_send_t;


/*
 * In a worker's init: makes the ring, where the build has io_uring and the
 * kernel lets us.  Does not fail: without a ring sends are system calls, each
 * with the same results.  A kernel that refuses is told at level info.
 */
void ngx_rt_sender_init(ngx_cycle_t *cycle);

/* in a worker's exit; harmless without init; ngx_rt_send_all() still sends */
void ngx_rt_sender_exit(void);

/*
 * Does n sends (0 is none), none of which waits, and sets their results.  A
 * socket that takes nothing now: -EAGAIN; a closed one: -EPIPE, -ECONNRESET,
 * without a signal; no socket: -EBADF, -ENOTSOCK; other errors as of send().
 * -EIO: the ring broke and nobody knows what the socket has taken; nothing may
 * be sent to it any more.
 *
 * Sends are begun in the order given, but a send that fails or falls short
 * doesn't hold up those after it: a socket may be in a call once only.
 */
void ngx_rt_send_all(ngx_rt_send_t *sends, ngx_uint_t n);

/* 1: sends go by io_uring, 0: by system calls */
ngx_uint_t ngx_rt_sender_ring(void);


#endif /* _NGX_RT_SENDER_H_INCLUDED_ */
