
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * How one worker tells the others that there is something to read.
 *
 * The master makes one eventfd per process slot before it forks, so every
 * worker of every generation has them all under the same numbers.  nginx
 * gives each living child another slot (ngx_process_slot), the lowest free
 * one, so old and new workers never share one during a reload.
 *
 * An eventfd made later, for a configuration with more workers, is unknown
 * to the processes forked earlier: there its number may be anything, even
 * a client's socket.  So each process writes only to those that existed when
 * it was forked; a worker that can't be reached finds out by its timer.
 */


#include <ngx_rt_worker.h>


/* a zone's slots and the eventfds are at least this many, so that a reload
 * with more workers still fits the zone it inherits */
#define NGX_RT_WAKEUP_MIN         128


/* of the process, for it outlives the cycles: the master makes the fds with
 * the first one and adds to them with later ones */

typedef struct {
    ngx_uint_t                    n;
    int                           fds[NGX_MAX_PROCESSES];
    ngx_connection_t             *connection;   /* in a worker: its own */
    void                        (*handler)(void);
    void                        (*quit)(void);
} ngx_rt_wakeup_t;


static void ngx_rt_wakeup_event(ngx_event_t *rev);


static ngx_rt_wakeup_t  ngx_rt_wakeup;


ngx_uint_t
ngx_rt_wakeup_slots(ngx_cycle_t *cycle)
{
    ngx_uint_t        n;
    ngx_core_conf_t  *ccf;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    /* two generations, the cache processes, a binary upgrade under way */

    n = 2 * (ngx_uint_t) ccf->worker_processes + 16;

    n = ngx_max(n, NGX_RT_WAKEUP_MIN);

    return ngx_min(n, NGX_MAX_PROCESSES);
}


ngx_int_t
ngx_rt_wakeup_init(ngx_cycle_t *cycle)
{
#if (NGX_HAVE_EVENTFD)
    int         fd;
    ngx_uint_t  n;

    n = ngx_rt_wakeup_slots(cycle);

    while (ngx_rt_wakeup.n < n) {

        fd = eventfd(0, EFD_NONBLOCK|EFD_CLOEXEC);

        if (fd == -1) {
            ngx_log_error(NGX_LOG_WARN, cycle->log, ngx_errno,
                          "eventfd() failed, workers will find out of new "
                          "messages by a timer of 100ms");
            break;
        }

        ngx_rt_wakeup.fds[ngx_rt_wakeup.n++] = fd;
    }
#endif

    return NGX_OK;
}


ngx_int_t
ngx_rt_wakeup_open(ngx_cycle_t *cycle, void (*handler)(void),
    void (*quit)(void))
{
    ngx_uint_t         slot;
    ngx_event_t       *rev;
    ngx_connection_t  *c;

    slot = ngx_rt_wakeup_slot();

    ngx_rt_wakeup.handler = handler;
    ngx_rt_wakeup.quit = quit;

    if (slot >= ngx_rt_wakeup.n) {
        return NGX_OK;
    }

    c = ngx_get_connection(ngx_rt_wakeup.fds[slot], cycle->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    rev = c->read;
    rev->log = cycle->log;
    rev->handler = ngx_rt_wakeup_event;
    rev->channel = 1;
    c->write->log = cycle->log;
    c->pool = NULL;

    /* nginx tells idle connections of a graceful quit, see below */
    c->idle = 1;

    if (ngx_add_event(rev, NGX_READ_EVENT, 0) != NGX_OK) {
        ngx_free_connection(c);
        c->fd = (ngx_socket_t) -1;
        return NGX_ERROR;
    }

    ngx_rt_wakeup.connection = c;

    return NGX_OK;
}


static void
ngx_rt_wakeup_event(ngx_event_t *rev)
{
    uint64_t           n;
    ngx_connection_t  *c;

    c = rev->data;

    if (c->close) {
        /* not a close: the worker was asked to quit */
        c->close = 0;
        ngx_rt_wakeup.quit();
        return;
    }

    if (read(c->fd, &n, sizeof(uint64_t)) == -1 && ngx_errno != NGX_EAGAIN) {
        ngx_log_error(NGX_LOG_ALERT, rev->log, ngx_errno,
                      "read() from eventfd failed");
    }

    ngx_rt_wakeup.handler();
}


void
ngx_rt_wakeup_close(void)
{
    if (ngx_rt_wakeup.connection) {
        ngx_close_connection(ngx_rt_wakeup.connection);
        ngx_rt_wakeup.connection = NULL;
    }
}


ngx_uint_t
ngx_rt_wakeup_slot(void)
{
    return (ngx_process == NGX_PROCESS_SINGLE) ? 0
                                               : (ngx_uint_t) ngx_process_slot;
}


void
ngx_rt_wakeup_send(ngx_uint_t slot)
{
    uint64_t  one;

    if (slot >= ngx_rt_wakeup.n) {
        return;
    }

    one = 1;

    /* fails only with EAGAIN at 2^64 - 2, when the other will wake anyway */

    if (write(ngx_rt_wakeup.fds[slot], &one, sizeof(uint64_t)) == -1) {
        return;
    }
}
