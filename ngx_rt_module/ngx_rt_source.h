
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layer 3, sources: where messages come from.  One Redis connection, the
 * role of the feeder, and what it does for plain pub/sub.  Knows no HTTP.
 */


#ifndef _NGX_RT_SOURCE_H_INCLUDED_
#define _NGX_RT_SOURCE_H_INCLUDED_


#include <ngx_rt_worker.h>


/* the feeder's part in a worker; a hub without redis has none */

ngx_int_t ngx_rt_feeder_init(ngx_cycle_t *cycle, ngx_rt_hub_t *hub);
void ngx_rt_feeder_exit(ngx_rt_hub_t *hub);

/* called in each worker when it was woken: takes wanted channels from the
 * queue if this worker is the feeder */
void ngx_rt_feeder_wake(ngx_rt_hub_t *hub);

/* the worker was asked to quit: hands the lease to another worker */
void ngx_rt_feeder_quit(ngx_rt_hub_t *hub);


/*
 * A publish on its way to Redis, over a connection of this worker that is
 * opened with the first publish and closed when idle.  The caller owns the
 * struct and keeps it until handler was called or ngx_rt_publish_cancel().
 */

typedef struct ngx_rt_publish_s  ngx_rt_publish_t;

struct ngx_rt_publish_s {
    ngx_queue_t                   queue;
    void                        (*handler)(ngx_rt_publish_t *pub);
    void                         *data;

    /* the answer: NGX_OK with receivers; NGX_DECLINED: Redis is away, nothing
     * was taken; NGX_ERROR: Redis refused, error says what (valid during
     * handler); NGX_ABORT: sent, but the answer was lost */
    ngx_int_t                     rc;
    int64_t                       receivers;
    ngx_str_t                     error;

    unsigned                      active:1;     /* the sender's */
};

/*
 * Sends channel (without prefix), event and data as the hub's source and
 * payload want them.  handler is called later, never from within.
 * NGX_OK, or NGX_ERROR: no memory, handler will not be called.
 */
ngx_int_t ngx_rt_publish_send(ngx_rt_hub_t *hub, ngx_rt_publish_t *pub,
    const ngx_str_t *channel, const ngx_str_t *event, const ngx_str_t *data);

/* the answer is no longer wanted; the message may be published all the same */
void ngx_rt_publish_cancel(ngx_rt_publish_t *pub);


#endif /* _NGX_RT_SOURCE_H_INCLUDED_ */
