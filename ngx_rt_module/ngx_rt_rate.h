
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layer 1: how often a channel changes, how many poll it, and what follows
 * from that.  now is in ms since 1970; an index that is none does nothing, and
 * all is 0.
 */


#ifndef _NGX_RT_RATE_H_INCLUDED_
#define _NGX_RT_RATE_H_INCLUDED_


#include <ngx_rt_shared.h>


#define NGX_RT_CALL_NONE          0         /* tells nothing: not conditional */
#define NGX_RT_CALL_SEEN          1         /* has the current version */
#define NGX_RT_CALL_CURSOR        2         /* has seen what cursor tells */

typedef struct {
    uint64_t                      now;      /* when it is answered */
    uint32_t                      gap;      /* ms, since the same client was
                                               answered before; 0: unknown */
    uint32_t                      told;     /* ms, the interval advised, as
                                               varied in the mean */
    uint32_t                      cursor;   /* as in ngx_rt_rate_mark() */
    unsigned                      call:2;
    unsigned                      sse:1;    /* so it is advised */
    unsigned                      waits:1;  /* a long poll */
} ngx_rt_poll_t;

/* what is known of a channel; thousandths where it says so */

typedef struct {
    uint64_t                      viewers;  /* 1/1000: streams and polls that
                                               wait, and pollers */
    uint64_t                      polls;    /* 1/1000 in a second */
    uint32_t                      mean;     /* ms from change to change */
    uint32_t                      since;    /* ms, since the last one or since
                                               the channel is in the table */
    unsigned                      known:1;  /* mean is */
    unsigned                      sse:1;    /* so it was advised last */
} ngx_rt_rate_t;

/* the channel is new; it has changed, at the time of `at` by its source's
 * clock.  Locked */
void ngx_rt_rate_reset(ngx_rt_store_t *st, uint32_t index, uint64_t now);
void ngx_rt_rate_change(ngx_rt_store_t *st, uint32_t index, uint32_t mark,
    uint64_t at, uint64_t now);

/* what a message is known by in a roll call: grows with each of a channel */
#define ngx_rt_rate_mark(seq)     ((uint32_t) (seq))
uint32_t ngx_rt_rate_mark_sid(const u_char tag[NGX_RT_TAG_LEN], uint64_t *at);

/* lock-free, any worker: a poll is answered; polls of this worker that wait,
 * to be called as ngx_rt_viewers_set() is; what is known.  first: of a client
 * that will be counted when it polls again, or doesn't */
void ngx_rt_rate_poll(ngx_rt_store_t *st, uint32_t index,
    const ngx_rt_poll_t *poll);
void ngx_rt_rate_first(ngx_rt_store_t *st, uint32_t index,
    const ngx_rt_poll_t *poll);
void ngx_rt_rate_hold(ngx_rt_store_t *st, uint32_t index, uint32_t gen,
    ngx_rt_viewers_t *own, uint32_t n, uint64_t now);
void ngx_rt_rate_get(ngx_rt_store_t *st, uint32_t index, uint64_t now,
    ngx_rt_rate_t *rate);

/* the same without polls, which nothing is advised by */
void ngx_rt_rate_told(ngx_rt_store_t *st, uint32_t index, uint64_t now,
    ngx_rt_rate_t *rate);

/* the interval to advise, in ms within the bounds; the same in seconds, varied
 * by random; the mean of that, in ms */
uint32_t ngx_rt_rate_interval(const ngx_rt_rate_t *rate, uint32_t min,
    uint32_t max);
uint32_t ngx_rt_rate_jitter(uint32_t interval, uint32_t min, uint32_t max,
    uint32_t random);
uint32_t ngx_rt_rate_expected(uint32_t interval, uint32_t min, uint32_t max);


/* 1: an event stream suits better than polls */
ngx_uint_t ngx_rt_rate_advise(const ngx_rt_rate_t *rate, uint64_t viewers,
    uint64_t interval);

/* channels with the most viewers, of these with the most changes, first */

typedef struct {
    uint32_t                      entry;
    uint32_t                      gen;
    ngx_rt_rate_t                 rate;
} ngx_rt_busy_t;

/* how many of at most max were found, without a lock; the time of one look at
 * 262,144 entries is the most that it takes */
ngx_uint_t ngx_rt_rate_busiest(ngx_rt_store_t *st, uint64_t now,
    ngx_rt_busy_t *busy, ngx_uint_t max);


#endif /* _NGX_RT_RATE_H_INCLUDED_ */
