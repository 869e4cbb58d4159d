
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The role of the feeder: one worker of all, whatever their number and
 * generation, holds the lease of the hub's zone and with it the connection
 * to Redis.
 *
 *     waiting -- lease taken --> connecting <--> live
 *        ^                           |            |
 *        +---- term over, quit ------+------------+
 *
 * A worker that waits looks at the lease a few times a second; when the
 * feeder quits it wakes the others.  A worker that quits feeds only if nobody
 * else wants to, and there are streams to drain: after a reload that made
 * another zone, the old workers have but themselves.
 */


#include <ngx_rt_source.h>
#include <signal.h>


#define NGX_RT_FEEDER_WAIT        150       /* ms, between looks at the lease */
#define NGX_RT_FEEDER_JITTER      100
#define NGX_RT_FEEDER_START       250       /* ms, for the preferred worker to
                                               start: after a reload; in a new
                                               zone NGX_RT_LEASE_DEAD */
#define NGX_RT_FEEDER_STEP        20        /* ms, behind the preferred one */
#define NGX_RT_FEEDER_STEPS       8
#define NGX_RT_FEEDER_PATIENCE    1500      /* ms, of a worker that quits */
#define NGX_RT_FEEDER_TICK        1000      /* ms */
#define NGX_RT_FEEDER_STEADY      1000      /* ms live: the back-off begins
                                               anew */
#define NGX_RT_FEEDER_OUT_MAX     (256 * 1024)

/* what was told in the log */
#define NGX_RT_FEEDER_NOTHING     0
#define NGX_RT_FEEDER_LIVE        1
#define NGX_RT_FEEDER_AWAY        2         /* not reached */
#define NGX_RT_FEEDER_REFUSED     3         /* reached, but Redis says no */


static void ngx_rt_feeder_timer(ngx_event_t *ev);
static void ngx_rt_feeder_wait(ngx_rt_feeder_t *f);
static ngx_uint_t ngx_rt_feeder_first(ngx_rt_feeder_t *f);
static ngx_uint_t ngx_rt_feeder_vacant(ngx_rt_feeder_t *f);
static void ngx_rt_feeder_take(ngx_rt_feeder_t *f);
static void ngx_rt_feeder_renew(ngx_rt_feeder_t *f);
static void ngx_rt_feeder_open(ngx_event_t *ev);
static ngx_int_t ngx_rt_feeder_ready(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_feeder_push(ngx_rt_redis_t *rd,
    const ngx_rt_push_t *push);
static ngx_int_t ngx_rt_feeder_flush(ngx_rt_redis_t *rd);
static void ngx_rt_feeder_turn(ngx_rt_redis_t *rd);
static ngx_int_t ngx_rt_feeder_drained(ngx_rt_redis_t *rd);
static void ngx_rt_feeder_more(ngx_event_t *ev);
static void ngx_rt_feeder_done(ngx_rt_feeder_t *f, ngx_int_t rc);
static ngx_int_t ngx_rt_feeder_checked(ngx_rt_feeder_t *f, ngx_int_t rc);
static void ngx_rt_feeder_closed(ngx_rt_redis_t *rd);
static void ngx_rt_feeder_schedule(ngx_rt_feeder_t *f);
static void ngx_rt_feeder_tell_live(ngx_rt_feeder_t *f);
static void ngx_rt_feeder_tell_lost(ngx_rt_feeder_t *f);


static const ngx_rt_redis_ops_t  ngx_rt_feeder_ops = {
    ngx_rt_feeder_ready,
    ngx_rt_feeder_push,
    ngx_rt_feeder_turn,
    ngx_rt_feeder_drained,
    ngx_rt_feeder_closed,
    ngx_rt_feeder_flush
};


/* by NGX_RT_SOURCE_* */

static const ngx_rt_source_t  *ngx_rt_feeder_sources[] = {
    NULL,
    &ngx_rt_source_pubsub,
    &ngx_rt_source_stream
};


ngx_int_t
ngx_rt_feeder_init(ngx_cycle_t *cycle, ngx_rt_hub_t *hub)
{
    ngx_uint_t        n;
    ngx_core_conf_t  *ccf;
    ngx_rt_feeder_t  *f;

    f = ngx_pcalloc(cycle->pool, sizeof(ngx_rt_feeder_t));
    if (f == NULL) {
        return NGX_ERROR;
    }

    f->hub = hub;
    f->cycle = cycle;
    f->fd = (ngx_socket_t) -1;

    f->redis.data = f;
    f->redis.ops = &ngx_rt_feeder_ops;
    f->redis.conf = hub->conf;
    f->redis.out_max = NGX_RT_FEEDER_OUT_MAX + hub->conf->prefix.len;
    f->redis.ping = 1;

    ngx_rt_redis_init(&f->redis, cycle->log);

    f->feed.source = ngx_rt_feeder_sources[hub->conf->source];
    f->feed.hub = hub;
    f->feed.redis = &f->redis;
    f->feed.feeder = f;

    ngx_rt_handover_init(f);

    if (f->feed.source->init(&f->feed, cycle->pool) != NGX_OK) {
        return NGX_ERROR;
    }

    f->publisher = ngx_rt_publisher_create(cycle->pool, hub);
    if (f->publisher == NULL) {
        return NGX_ERROR;
    }

    if (hub->conf->source == NGX_RT_SOURCE_STREAM) {
        f->fills = ngx_rt_fill_create(cycle->pool, hub, f->publisher);
        if (f->fills == NULL) {
            return NGX_ERROR;
        }
    }

    f->lease.data = f;
    f->lease.handler = ngx_rt_feeder_timer;
    f->lease.log = cycle->log;
    f->lease.cancelable = 1;

    f->retry.data = f;
    f->retry.handler = ngx_rt_feeder_open;
    f->retry.log = cycle->log;
    f->retry.cancelable = 1;

    f->more.data = f;
    f->more.handler = ngx_rt_feeder_more;
    f->more.log = cycle->log;

    /* hubs are spread: each prefers another worker, which comes first */

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    n = (ccf->worker_processes > 0) ? (ngx_uint_t) ccf->worker_processes : 1;

    f->behind = (ngx_worker + n - hub->conf->index % n) % n;
    f->behind = ngx_min(f->behind, NGX_RT_FEEDER_STEPS);

    /* the clock is the master's, of before the fork */

    ngx_time_update();

    ngx_add_timer(&f->lease, f->behind ? (ngx_rt_feeder_first(f)
                                          ? NGX_RT_LEASE_DEAD
                                          : NGX_RT_FEEDER_START)
                                         + f->behind * NGX_RT_FEEDER_STEP
                                       : 1);

    hub->feeder = f;
    hub->wake = ngx_rt_feeder_wake;

    return NGX_OK;
}


void
ngx_rt_feeder_exit(ngx_rt_hub_t *hub)
{
    ngx_rt_feeder_t  *f;

    f = hub->feeder;

    if (f == NULL) {
        return;
    }

    ngx_rt_feeder_release(f);

    if (f->heir) {
        ngx_rt_feeder_step_down(f);
    }

    if (f->lease.timer_set) {
        ngx_del_timer(&f->lease);
    }

    f->feed.source->exit(&f->feed);
    ngx_rt_publisher_exit(f->publisher);

    if (f->fills) {
        ngx_rt_fill_exit(f->fills);
    }

    hub->feeder = NULL;
    hub->wake = NULL;
}


void
ngx_rt_feeder_quit(ngx_rt_hub_t *hub)
{
    ngx_rt_feeder_t  *f;

    f = hub->feeder;

    if (f == NULL || f->quitting) {
        return;
    }

    if (f->heir) {
        ngx_rt_handover_check(f);
    }

    f->quitting = 1;

    if (f->heir) {
        ngx_rt_feeder_step_down(f);
        ngx_rt_feeder_wake_others(f);

    } else if (ngx_rt_handover_begin(f) != NGX_OK) {
        ngx_rt_feeder_release(f);
    }

    ngx_rt_publisher_quit(f->publisher);
}


ngx_rt_publisher_t *
ngx_rt_feeder_publisher(ngx_rt_hub_t *hub)
{
    ngx_rt_feeder_t  *f;

    f = hub->feeder;

    return f ? f->publisher : NULL;
}


ngx_rt_fills_t *
ngx_rt_feeder_fills(ngx_rt_hub_t *hub)
{
    ngx_rt_feeder_t  *f;

    f = hub->feeder;

    return f ? f->fills : NULL;
}


void
ngx_rt_feeder_wake(ngx_rt_hub_t *hub)
{
    ngx_msec_t        delay;
    ngx_rt_feeder_t  *f;

    f = hub->feeder;

    if (f == NULL) {
        return;
    }

    if (f->heir) {
        ngx_rt_handover_check(f);
        return;
    }

    if (f->term) {

        if (f->redis.state == NGX_RT_REDIS_READY) {
            ngx_rt_feeder_done(f, f->feed.source->fill(&f->feed));
        }

        return;
    }

    if ((__atomic_load_n(&hub->store->sh->feed.pid, __ATOMIC_ACQUIRE) == 0
         || __atomic_load_n(&hub->store->sh->handover.phase, __ATOMIC_ACQUIRE)
            == NGX_RT_HANDOVER_OFFERED)
        && !f->quitting && !(f->behind && ngx_rt_feeder_first(f)))
    {
        /* a little later, when workers that are to quit know it */

        delay = (f->behind + 1) * NGX_RT_FEEDER_STEP;

        if ((ngx_msec_int_t) (f->lease.timer.key - ngx_current_msec)
            > (ngx_msec_int_t) delay)
        {
            ngx_rt_feeder_set_timer(&f->lease, delay);
        }
    }
}


static void
ngx_rt_feeder_timer(ngx_event_t *ev)
{
    ngx_rt_feeder_t  *f;

    f = ev->data;

    if (f->heir) {
        ngx_rt_handover_check(f);

    } else if (f->term) {
        ngx_rt_feeder_renew(f);

    } else if (f->quitting || !ngx_rt_handover_try(f)) {
        ngx_rt_feeder_wait(f);
    }
}


static void
ngx_rt_feeder_wait(ngx_rt_feeder_t *f)
{
    ngx_uint_t  vacant;

    vacant = ngx_rt_feeder_vacant(f);

    if (vacant && f->quitting) {

        if (f->vacant == 0) {
            f->vacant = ngx_max(ngx_current_msec, 1);
        }

        if (ngx_rt_handover_heirs(f->hub->store, f->hub->slot)) {
            vacant = (ngx_current_msec - f->vacant >= NGX_RT_FEEDER_PATIENCE);

        } else {
            vacant = (ngx_rt_handover_streams(f->hub->store) != 0);
        }

    } else {
        f->vacant = 0;
    }

    if (vacant) {
        ngx_rt_feeder_take(f);

        if (f->term) {
            return;
        }
    }

    ngx_rt_feeder_set_timer(&f->lease, NGX_RT_FEEDER_WAIT
                            + (ngx_msec_t) ngx_random()
                              % NGX_RT_FEEDER_JITTER);
}


/*
 * 1: nobody has ever fed this zone.  The preferred worker may still have to
 * be scheduled for the first time, and is waited for as one that is silent.
 */

static ngx_uint_t
ngx_rt_feeder_first(ngx_rt_feeder_t *f)
{
    return __atomic_load_n(&f->hub->store->sh->feed.term, __ATOMIC_RELAXED)
           == 0;
}


/* a look without the lock */

static ngx_uint_t
ngx_rt_feeder_vacant(ngx_rt_feeder_t *f)
{
    uint32_t           pid;
    uint64_t           renewed;
    ngx_rt_feed_sh_t  *feed;

    feed = &f->hub->store->sh->feed;

    pid = __atomic_load_n(&feed->pid, __ATOMIC_ACQUIRE);

    if (pid == 0) {
        return 1;
    }

    renewed = __atomic_load_n(&feed->renewed, __ATOMIC_RELAXED);

    /* renewed may be later than what our clock was at the turn's begin */

    return (int64_t) (ngx_current_msec - renewed) >= NGX_RT_LEASE_DEAD
           || (kill((ngx_pid_t) pid, 0) == -1 && ngx_errno == NGX_ESRCH);
}


static void
ngx_rt_feeder_take(ngx_rt_feeder_t *f)
{
    uint64_t       term;
    ngx_rt_hub_t  *hub;

    hub = f->hub;

    if (ngx_rt_lease_take(hub->store, hub->nslot, ngx_pid, ngx_current_msec,
                          &term)
        != NGX_OK)
    {
        return;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_CORE, hub->log, 0,
                   "rt_hub \"%V\": the lease is ours, term %uL",
                   &hub->conf->name, term);

    f->term = term;
    f->aborted = 0;
    f->attempt = 0;
    f->told = NGX_RT_FEEDER_NOTHING;

    if (ngx_rt_feed_set(hub->store, term, NGX_RT_FEED_CONNECTING,
                        ngx_rt_redis_server(&f->redis), ngx_current_msec)
        == NGX_ABORT)
    {
        ngx_rt_feeder_step_down(f);
        return;
    }

    ngx_rt_feeder_set_timer(&f->lease, NGX_RT_LEASE_RENEW);

    if (f->quitting
        && ngx_rt_handover_heirs(f->hub->store, f->hub->slot) == 0)
    {
        ngx_rt_handover_alone(f);
    }

    ngx_rt_redis_open(&f->redis);
}


static void
ngx_rt_feeder_renew(ngx_rt_feeder_t *f)
{
    ngx_int_t        rc;
    ngx_rt_store_t  *st;

    st = f->hub->store;

    if (ngx_rt_lease_renew(st, f->term, ngx_current_msec) == NGX_ABORT) {
        ngx_rt_feeder_step_down(f);
        return;
    }

    ngx_rt_feeder_set_timer(&f->lease, NGX_RT_LEASE_RENEW);

    if (f->redis.state != NGX_RT_REDIS_READY) {
        return;
    }

    __atomic_store_n(&st->sh->feed.lag, f->redis.lag, __ATOMIC_RELAXED);

    if (ngx_current_msec - f->ticked < NGX_RT_FEEDER_TICK) {
        return;
    }

    f->ticked = ngx_current_msec;

    ngx_rt_feeder_tell_live(f);

    rc = f->feed.source->tick(&f->feed);

    ngx_rt_feeder_done(f, rc);
}


static void
ngx_rt_feeder_open(ngx_event_t *ev)
{
    ngx_rt_feeder_t  *f;

    f = ev->data;

    ngx_rt_redis_open(&f->redis);
}


static ngx_int_t
ngx_rt_feeder_ready(ngx_rt_redis_t *rd)
{
    ngx_int_t         rc;
    ngx_rt_feeder_t  *f;

    f = rd->data;

    if (f->heir) {
        return f->feed.source->begin(&f->feed, 0);
    }

    rc = ngx_rt_feed_set(f->hub->store, f->term, NGX_RT_FEED_LIVE,
                         ngx_rt_redis_server(rd), ngx_current_msec);

    if (rc == NGX_OK) {
        f->live = ngx_max(ngx_current_msec, 1);
        f->ticked = ngx_current_msec;

        if (f->told != NGX_RT_FEEDER_REFUSED) {
            ngx_rt_feeder_tell_live(f);
        }

        rc = f->feed.source->begin(&f->feed, f->term);
    }

    return ngx_rt_feeder_checked(f, rc);
}


static ngx_int_t
ngx_rt_feeder_push(ngx_rt_redis_t *rd, const ngx_rt_push_t *push)
{
    ngx_int_t         rc;
    ngx_rt_feeder_t  *f;

    f = rd->data;

    rc = f->feed.source->push(&f->feed, push);

    return (rc == NGX_OK) ? NGX_OK : ngx_rt_feeder_checked(f, rc);
}


static ngx_int_t
ngx_rt_feeder_flush(ngx_rt_redis_t *rd)
{
    ngx_int_t         rc;
    ngx_rt_feeder_t  *f;

    f = rd->data;

    if (f->feed.source->flush == NULL) {
        return NGX_OK;
    }

    rc = f->feed.source->flush(&f->feed);

    return (rc == NGX_OK) ? NGX_OK : ngx_rt_feeder_checked(f, rc);
}


static void
ngx_rt_feeder_turn(ngx_rt_redis_t *rd)
{
    ngx_rt_feeder_t  *f;

    f = rd->data;

    f->feed.source->notify(&f->feed);

    if (f->feed.more && !f->more.posted) {
        ngx_post_event(&f->more, &ngx_posted_next_events);
    }
}


static ngx_int_t
ngx_rt_feeder_drained(ngx_rt_redis_t *rd)
{
    ngx_int_t         rc;
    ngx_rt_feeder_t  *f;

    f = rd->data;

    rc = f->feed.source->fill(&f->feed);

    ngx_rt_feeder_turn(rd);

    return ngx_rt_feeder_checked(f, rc);
}


void
ngx_rt_feeder_again(ngx_rt_feeder_t *f)
{
    if (!f->more.posted) {
        ngx_post_event(&f->more, &ngx_posted_events);
    }
}


static void
ngx_rt_feeder_more(ngx_event_t *ev)
{
    ngx_rt_feeder_t  *f;

    f = ev->data;

    if (f->redis.state == NGX_RT_REDIS_READY) {
        ngx_rt_feeder_done(f, f->feed.source->fill(&f->feed));
    }
}


/* something was done, but not from within the connection's own events */

static void
ngx_rt_feeder_done(ngx_rt_feeder_t *f, ngx_int_t rc)
{
    ngx_rt_feeder_turn(&f->redis);

    if (ngx_rt_feeder_checked(f, rc) != NGX_OK) {
        ngx_rt_redis_close(&f->redis);
        ngx_rt_feeder_closed(&f->redis);
    }
}


/* NGX_ABORT from wherever: the store has told that the term is over */

static ngx_int_t
ngx_rt_feeder_checked(ngx_rt_feeder_t *f, ngx_int_t rc)
{
    if (rc == NGX_ABORT) {
        f->aborted = 1;
    }

    return rc;
}


static void
ngx_rt_feeder_closed(ngx_rt_redis_t *rd)
{
    ngx_uint_t        state;
    ngx_rt_feeder_t  *f;

    f = rd->data;

    f->feed.source->end(&f->feed);

    if (f->aborted || f->heir) {
        ngx_rt_feeder_step_down(f);
        return;
    }

    if (f->hold.timer_set && !f->alone) {
        /* there is nothing to hand over any more */
        ngx_rt_feeder_release(f);
        return;
    }

    ngx_rt_feeder_tell_lost(f);

    /* what was live just now may be back at once: not down yet */

    state = f->live ? NGX_RT_FEED_CONNECTING : NGX_RT_FEED_DOWN;

    if (ngx_rt_feed_set(f->hub->store, f->term, state, NULL, ngx_current_msec)
        == NGX_ABORT)
    {
        ngx_rt_feeder_step_down(f);
        return;
    }

    if (f->live && ngx_current_msec - f->live >= NGX_RT_FEEDER_STEADY) {
        f->attempt = 0;
    }

    f->live = 0;

    ngx_rt_feeder_schedule(f);
}


static void
ngx_rt_feeder_schedule(ngx_rt_feeder_t *f)
{
    ngx_rt_feeder_set_timer(&f->retry,
                            ngx_rt_redis_delay(f->hub->conf, &f->attempt));
}


/* one line per change, however often Redis is tried */

static void
ngx_rt_feeder_tell_live(ngx_rt_feeder_t *f)
{
    if (f->told == NGX_RT_FEEDER_LIVE) {
        return;
    }

    f->told = NGX_RT_FEEDER_LIVE;

    ngx_log_error(NGX_LOG_NOTICE, f->hub->log, 0,
                  "rt_hub \"%V\": live, fed by Redis %V",
                  &f->hub->conf->name, ngx_rt_redis_server(&f->redis));
}


static void
ngx_rt_feeder_tell_lost(ngx_rt_feeder_t *f)
{
    ngx_uint_t   told;
    const char  *what;

    told = f->redis.refused ? NGX_RT_FEEDER_REFUSED : NGX_RT_FEEDER_AWAY;

    if (f->told >= told) {
        return;
    }

    what = (f->told == NGX_RT_FEEDER_LIVE) ? "lost" : "no feed from";

    f->told = told;

    ngx_log_error(NGX_LOG_ERR, f->hub->log, 0,
                  "rt_hub \"%V\": %s Redis %V: %V", &f->hub->conf->name, what,
                  ngx_rt_redis_server(&f->redis), &f->redis.error);
}


/* back to waiting; the zone is another one's now */

void
ngx_rt_feeder_step_down(ngx_rt_feeder_t *f)
{
    ngx_log_debug2(NGX_LOG_DEBUG_CORE, f->hub->log, 0,
                   "rt_hub \"%V\": the lease is not ours, term %uL",
                   &f->hub->conf->name, f->term);

    ngx_rt_handover_end(f, NGX_RT_HANDOVER_OFFERED);
    ngx_rt_redis_close(&f->redis);
    f->feed.source->end(&f->feed);

    if (f->retry.timer_set) {
        ngx_del_timer(&f->retry);
    }

    if (f->more.posted) {
        ngx_delete_posted_event(&f->more);
    }

    f->term = 0;
    f->aborted = 0;
    f->live = 0;
    f->vacant = 0;

    ngx_rt_feeder_set_timer(&f->lease, NGX_RT_FEEDER_WAIT);
}


/* the term was handed over: nothing is lost, the session goes on */

void
ngx_rt_feeder_inherit(ngx_rt_feeder_t *f, uint64_t term)
{
    ngx_int_t  rc;

    f->term = term;
    f->aborted = 0;
    f->attempt = 0;
    f->told = NGX_RT_FEEDER_LIVE;
    f->live = ngx_max(ngx_current_msec, 1);
    f->ticked = ngx_current_msec;

    ngx_log_error(NGX_LOG_NOTICE, f->hub->log, 0,
                  "rt_hub \"%V\": fed by this worker without a gap, by "
                  "Redis %V", &f->hub->conf->name,
                  ngx_rt_redis_server(&f->redis));

    ngx_rt_feeder_set_timer(&f->lease, NGX_RT_LEASE_RENEW);

    rc = f->feed.source->inherit(&f->feed, term);

    if (rc == NGX_OK) {
        ngx_rt_redis_resume(&f->redis);
    }

    ngx_rt_feeder_done(f, rc);
}


void
ngx_rt_feeder_release(ngx_rt_feeder_t *f)
{
    ngx_rt_store_t  *st;

    if (f->term == 0) {
        return;
    }

    st = f->hub->store;

    /* nobody is to take what is retained for current meanwhile */

    (void) ngx_rt_feed_set(st, f->term, NGX_RT_FEED_CONNECTING, NULL,
                           ngx_current_msec);

    ngx_rt_lease_release(st, f->term);

    ngx_rt_feeder_step_down(f);
    ngx_rt_feeder_wake_others(f);
}


void
ngx_rt_feeder_wake_others(ngx_rt_feeder_t *f)
{
    ngx_uint_t       i;
    ngx_rt_store_t  *st;

    st = f->hub->store;

    for (i = 0; i < st->sh->nslots; i++) {
        if (i != f->hub->nslot
            && __atomic_load_n(&st->slots[i].pid, __ATOMIC_RELAXED))
        {
            ngx_rt_wakeup_send(i);
        }
    }
}


void
ngx_rt_feeder_set_timer(ngx_event_t *ev, ngx_msec_t delay)
{
    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    ngx_add_timer(ev, delay);
}
