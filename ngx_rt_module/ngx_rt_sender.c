
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Sends to many sockets, by one system call for some hundred of them where
 * io_uring is to be had, else by one for each.
 *
 * The ring is used as a vector of send()s and nothing else.  With MSG_DONTWAIT
 * the kernel does a send while it takes it from the ring, and what would have
 * to wait is done with -EAGAIN rather than put by until the socket is
 * writable.  So all results are there when the call that hands them over
 * returns: nothing is under way between two calls of ngx_rt_send_all(), no
 * buffer has to live longer, no socket is held open.
 *
 * Tried, and without effect on what a send costs: registered files, which ask
 * for a system call when a stream opens and for one before its socket may be
 * closed; SINGLE_ISSUER, DEFER_TASKRUN, COOP_TASKRUN, for no send leaves work
 * to be done later; no results but of failures (IOSQE_CQE_SKIP_SUCCESS), which
 * would hide that a send fell short.
 */


#include <ngx_rt_sender.h>

#if (NGX_RT_IO_URING)
#include <liburing.h>
#endif


#define NGX_RT_SENDER_FLAGS       (MSG_DONTWAIT|MSG_NOSIGNAL)

/* sends handed over at once: fewer cost more, the gain ends here */
#ifndef NGX_RT_SENDER_RING
#define NGX_RT_SENDER_RING        512
#endif

/* a result that there is none yet */
#define NGX_RT_SENDER_NONE        NGX_MAX_INT_T_VALUE


#if (NGX_RT_IO_URING)

/* of the process, as the ring is */

typedef struct {
    struct io_uring               ring;
    struct msghdr                *headers;  /* one for each place in the ring;
                                               NULL: there is no ring */
} ngx_rt_sender_t;


static void ngx_rt_sender_batch(ngx_rt_sender_t *s, ngx_rt_send_t *sends,
    ngx_uint_t n);
static void ngx_rt_sender_put(ngx_rt_sender_t *s, ngx_rt_send_t *item,
    ngx_uint_t i);
static ngx_int_t ngx_rt_sender_submit(ngx_rt_sender_t *s,
    ngx_rt_send_t *sends, ngx_uint_t n);
static ngx_uint_t ngx_rt_sender_reap(ngx_rt_sender_t *s, ngx_rt_send_t *sends,
    ngx_uint_t n);


static ngx_rt_sender_t  ngx_rt_sender;

#endif


static void ngx_rt_sender_call(ngx_rt_send_t *item);
static void ngx_rt_sender_header(struct msghdr *header, ngx_rt_send_t *item);


void
ngx_rt_sender_init(ngx_cycle_t *cycle)
{
#if (NGX_RT_IO_URING)
    int                     rc;
    struct msghdr          *headers;
    ngx_rt_sender_t        *s;
    struct io_uring_params  params;

    s = &ngx_rt_sender;

    if (s->headers) {
        return;
    }

    headers = ngx_alloc(NGX_RT_SENDER_RING * sizeof(struct msghdr),
                        cycle->log);
    if (headers == NULL) {
        return;
    }

    /* a send that is wrong does not stop those after it; and a kernel that
     * knows this flag (5.18) knows all that is needed */

    ngx_memzero(&params, sizeof(struct io_uring_params));
    params.flags = IORING_SETUP_SUBMIT_ALL;

    rc = io_uring_queue_init_params(NGX_RT_SENDER_RING, &s->ring, &params);

    if (rc < 0) {
        ngx_log_error(NGX_LOG_INFO, cycle->log, -rc,
                      "io_uring is not available, using send()");
        ngx_free(headers);
        return;
    }

    s->headers = headers;
#else
    (void) cycle;
#endif
}


void
ngx_rt_sender_exit(void)
{
#if (NGX_RT_IO_URING)
    ngx_rt_sender_t  *s;

    s = &ngx_rt_sender;

    if (s->headers == NULL) {
        return;
    }

    io_uring_queue_exit(&s->ring);

    ngx_free(s->headers);
    s->headers = NULL;
#endif
}


ngx_uint_t
ngx_rt_sender_ring(void)
{
#if (NGX_RT_IO_URING)
    return ngx_rt_sender.headers != NULL;
#else
    return 0;
#endif
}


void
ngx_rt_send_all(ngx_rt_send_t *sends, ngx_uint_t n)
{
#if (NGX_RT_IO_URING)
    ngx_uint_t  batch;

    /* one alone costs more by the ring, two cost less */

    while (n > 1 && ngx_rt_sender.headers) {
        batch = ngx_min(n, NGX_RT_SENDER_RING);

        ngx_rt_sender_batch(&ngx_rt_sender, sends, batch);

        sends += batch;
        n -= batch;
    }
#endif

    for ( /* void */ ; n; n--) {
        ngx_rt_sender_call(sends++);
    }
}


#if (NGX_RT_IO_URING)

/* the ring is empty before and, unless it is given up, after */

static void
ngx_rt_sender_batch(ngx_rt_sender_t *s, ngx_rt_send_t *sends, ngx_uint_t n)
{
    ngx_uint_t  i, taken;

    for (i = 0; i < n; i++) {
        ngx_rt_sender_put(s, &sends[i], i);
    }

    if (ngx_rt_sender_submit(s, sends, n) == NGX_OK) {
        return;
    }

    /* what the kernel has not taken is sent without it; what it has taken and
     * has told nothing of may have been sent */

    taken = n - ngx_min(n, io_uring_sq_ready(&s->ring));

    ngx_rt_sender_exit();

    for (i = 0; i < n; i++) {

        if (sends[i].result != NGX_RT_SENDER_NONE) {
            continue;
        }

        if (i < taken) {
            sends[i].result = -EIO;

        } else {
            ngx_rt_sender_call(&sends[i]);
        }
    }
}


static void
ngx_rt_sender_put(ngx_rt_sender_t *s, ngx_rt_send_t *item, ngx_uint_t i)
{
    struct msghdr        *header;
    struct io_uring_sqe  *sqe;

    item->result = NGX_RT_SENDER_NONE;

    /* not NULL: a batch has no more than the ring has places */
    sqe = io_uring_get_sqe(&s->ring);

    if (item->nvec == 1) {
        io_uring_prep_send(sqe, item->fd, item->vec->iov_base,
                           item->vec->iov_len, NGX_RT_SENDER_FLAGS);

    } else {
        header = &s->headers[i];
        ngx_rt_sender_header(header, item);
        io_uring_prep_sendmsg(sqe, item->fd, header, NGX_RT_SENDER_FLAGS);
    }

    io_uring_sqe_set_data64(sqe, i);
}


/* NGX_OK: all have results; NGX_ERROR: some have none and will get none */

static ngx_int_t
ngx_rt_sender_submit(ngx_rt_sender_t *s, ngx_rt_send_t *sends, ngx_uint_t n)
{
    int         rc;
    ngx_uint_t  left, got;

    for (left = n; left; left -= got) {

        /* the kernel may take some only, and then waits for none */
        rc = io_uring_submit_and_wait(&s->ring, (unsigned) left);

        got = ngx_rt_sender_reap(s, sends, n);

        if (got == 0 && rc <= 0 && rc != -EINTR) {
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, -rc,
                          "io_uring failed, using send()");
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* how many more of the n sends have results now */

static ngx_uint_t
ngx_rt_sender_reap(ngx_rt_sender_t *s, ngx_rt_send_t *sends, ngx_uint_t n)
{
    unsigned              head, seen;
    ngx_uint_t            got;
    ngx_rt_send_t        *item;
    struct io_uring_cqe  *cqe;

    got = 0;
    seen = 0;

    io_uring_for_each_cqe(&s->ring, head, cqe) {
        seen++;

        if (cqe->user_data >= n) {
            continue;
        }

        item = &sends[cqe->user_data];

        if (item->result == NGX_RT_SENDER_NONE) {
            item->result = cqe->res;
            got++;
        }
    }

    io_uring_cq_advance(&s->ring, seen);

    return got;
}

#endif


static void
ngx_rt_sender_call(ngx_rt_send_t *item)
{
    ssize_t        n;
    struct msghdr  header;

    do {
        if (item->nvec == 1) {
            n = send(item->fd, item->vec->iov_base, item->vec->iov_len,
                     NGX_RT_SENDER_FLAGS);

        } else {
            ngx_rt_sender_header(&header, item);
            n = sendmsg(item->fd, &header, NGX_RT_SENDER_FLAGS);
        }

    } while (n == -1 && ngx_errno == NGX_EINTR);

    item->result = (n == -1) ? -ngx_errno : n;
}


static void
ngx_rt_sender_header(struct msghdr *header, ngx_rt_send_t *item)
{
    ngx_memzero(header, sizeof(struct msghdr));

    header->msg_iov = item->vec;
    header->msg_iovlen = item->nvec;
}
