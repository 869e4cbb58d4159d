
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The feed given on at a reload without a gap.  Redis gives all connections
 * the same order of what is published, so a message that both feeders hear,
 * the marker, is an exact cut.
 *
 *     the feeder, asked to quit           the heir, of the new workers
 *
 *     SUBSCRIBE marker's channel
 *     offers the term ------------------> claims it
 *     goes on storing                     SUBSCRIBE marker's channel and all
 *                                         of the table; drops what comes
 *                                         PUBLISH marker
 *     stores what is before the marker    drops what is before the marker,
 *     cuts, stops ----------------------> reads no further
 *                                         stores what is after the marker
 *
 * New channels wait in the want queue meanwhile.  Where the heir takes too
 * long, Redis denies the marker, or the new configuration feeds from another
 * place: the lease is released as if the feeder had died, a gap.
 *
 * Where there is no heir at all, since nginx quits, is upgraded, or the new
 * configuration has no such hub, the feeder goes on alone for as long as a
 * stream is open in any worker of the zone; an heir may still come.
 */


#include <ngx_rt_source.h>


#define NGX_RT_HANDOVER_TICK      20        /* ms, between looks */
#define NGX_RT_HANDOVER_TIME      3000      /* ms, for all of it */
#define NGX_RT_HANDOVER_ALONE     50        /* ms, between looks */


static void ngx_rt_handover_name(ngx_rt_feeder_t *f, uint64_t term);
static void ngx_rt_handover_hold(ngx_event_t *ev);
static void ngx_rt_handover_hold_alone(ngx_rt_feeder_t *f);
static void ngx_rt_handover_published(ngx_rt_publish_t *pub);
static uint32_t ngx_rt_handover_number(const ngx_str_t *payload);
static uint32_t ngx_rt_handover_digest(ngx_rt_hub_conf_t *conf);
static void ngx_rt_handover_update(uint32_t *crc, const ngx_str_t *value);


void
ngx_rt_handover_init(ngx_rt_feeder_t *f)
{
    f->config = ngx_rt_handover_digest(f->hub->conf);

    f->hold.data = f;
    f->hold.handler = ngx_rt_handover_hold;
    f->hold.log = f->hub->log;

    f->mark.handler = ngx_rt_handover_published;
    f->mark.data = f;
}


/* whoever connects by it, and with these patterns, hears the same messages */

static uint32_t
ngx_rt_handover_digest(ngx_rt_hub_conf_t *conf)
{
    uint32_t             crc;
    ngx_str_t           *pattern, db, mode;
    ngx_uint_t           i;
    ngx_rt_redis_url_t  *url;

    ngx_crc32_init(crc);

    url = conf->urls.elts;

    for (i = 0; i < conf->urls.nelts; i++) {
        db.data = (u_char *) &url[i].db;
        db.len = sizeof(ngx_uint_t);

        ngx_rt_handover_update(&crc, &url[i].text);
        ngx_rt_handover_update(&crc, &url[i].user);
        ngx_rt_handover_update(&crc, &db);
    }

    ngx_rt_handover_update(&crc, &conf->user);

    /* what is owed is asked there, and nothing is where it is off */

    mode.data = (u_char *) &conf->snapshots;
    mode.len = sizeof(ngx_uint_t);

    ngx_rt_handover_update(&crc, &mode);
    ngx_rt_handover_update(&crc, &conf->snapshot);

    pattern = conf->patterns.elts;

    for (i = 0; i < conf->patterns.nelts; i++) {
        ngx_rt_handover_update(&crc, &pattern[i]);
    }

    ngx_crc32_final(crc);

    return crc;
}


static void
ngx_rt_handover_update(uint32_t *crc, const ngx_str_t *value)
{
    ngx_crc32_update(crc, (u_char *) &value->len, sizeof(size_t));
    ngx_crc32_update(crc, value->data, value->len);
}


ngx_int_t
ngx_rt_handover_begin(ngx_rt_feeder_t *f)
{
    if (f->term == 0 || f->redis.state != NGX_RT_REDIS_READY
        || f->feed.unanswered || f->feed.source->listen == NULL)
    {
        return NGX_DECLINED;
    }

    ngx_rt_handover_name(f, f->term);

    if (f->feed.source->listen(&f->feed) != NGX_OK) {
        return NGX_DECLINED;
    }

    f->feed.frozen = 1;
    f->begun = ngx_current_msec;

    ngx_rt_feeder_set_timer(&f->hold, NGX_RT_HANDOVER_TICK);

    return NGX_OK;
}


static void
ngx_rt_handover_name(ngx_rt_feeder_t *f, uint64_t term)
{
    f->feed.marker.data = f->feed.name;
    f->feed.marker.len = ngx_snprintf(f->feed.name, NGX_RT_MARKER_LEN,
                                      NGX_RT_MARKER "%xL.%uL",
                                      f->hub->store->sh->epoch, term)
                         - f->feed.name;
}


/* to both: the feeder may be found by the marker from now on */

void
ngx_rt_handover_listening(ngx_rt_feed_t *feed, ngx_uint_t denied)
{
    ngx_rt_feeder_t  *f;

    f = feed->feeder;

    if (denied) {
        /* the timers find it out, at once */

        if (f->heir) {
            ngx_rt_handover_give_up(f->hub->store, f->heir, ngx_pid,
                                    NGX_RT_HANDOVER_REFUSED);
            ngx_rt_feeder_set_timer(&f->lease, 1);

        } else if (f->hold.timer_set) {
            f->begun = ngx_current_msec - NGX_RT_HANDOVER_TIME;
            ngx_rt_feeder_set_timer(&f->hold, 1);
        }

        return;
    }

    if (!f->heir && f->hold.timer_set && !f->alone
        && ngx_rt_handover_offer(f->hub->store, f->term, f->config) == NGX_OK)
    {
        ngx_rt_feeder_wake_others(f);
    }
}


/* is there still somebody to wait for? */

static void
ngx_rt_handover_hold(ngx_event_t *ev)
{
    ngx_msec_t        age;
    ngx_uint_t        heirs;
    ngx_rt_store_t   *st;
    ngx_rt_feeder_t  *f;

    f = ev->data;
    st = f->hub->store;
    age = ngx_current_msec - f->begun;

    if (f->alone) {
        ngx_rt_handover_hold_alone(f);
        return;
    }

    /* workers of a reload may not have begun yet, on a busy machine */

    heirs = (age < NGX_RT_HANDOVER_TIME
             && ngx_rt_handover_coming(st, f->hub->conf->generation))
            || ngx_rt_handover_heirs(st, f->hub->slot);

    if (!heirs && ngx_rt_handover_streams(st)
        && ngx_rt_handover_withdraw(st, f->term) == NGX_OK)
    {
        ngx_rt_handover_alone(f);
        ngx_rt_feeder_wake(f->hub);
        return;
    }

    if (!heirs || age >= NGX_RT_HANDOVER_TIME
        || ngx_rt_handover_phase(st, f->term) == NGX_RT_HANDOVER_REFUSED)
    {
        ngx_log_error(NGX_LOG_NOTICE, f->hub->log, 0,
                      "rt_hub \"%V\": the feed was not handed over",
                      &f->hub->conf->name);

        ngx_rt_feeder_release(f);
        return;
    }

    ngx_add_timer(&f->hold, NGX_RT_HANDOVER_TICK);
}


void
ngx_rt_handover_alone(ngx_rt_feeder_t *f)
{
    f->alone = 1;
    f->feed.frozen = 0;

    ngx_log_error(NGX_LOG_NOTICE, f->hub->log, 0,
                  "rt_hub \"%V\": fed by a worker that quits, while streams "
                  "are open", &f->hub->conf->name);

    ngx_rt_feeder_set_timer(&f->hold, NGX_RT_HANDOVER_ALONE);
}


static void
ngx_rt_handover_hold_alone(ngx_rt_feeder_t *f)
{
    ngx_uint_t  heirs;

    heirs = ngx_rt_handover_heirs(f->hub->store, f->hub->slot);

    if (!heirs && ngx_rt_handover_streams(f->hub->store)) {
        ngx_rt_feeder_set_timer(&f->hold, NGX_RT_HANDOVER_ALONE);
        return;
    }

    f->alone = 0;

    if (!heirs || ngx_rt_handover_begin(f) != NGX_OK) {
        ngx_rt_feeder_release(f);
    }
}


ngx_uint_t
ngx_rt_handover_try(ngx_rt_feeder_t *f)
{
    uint32_t         claim;
    uint64_t         term;
    ngx_int_t        rc;
    ngx_rt_store_t  *st;

    st = f->hub->store;

    if (__atomic_load_n(&st->sh->handover.phase, __ATOMIC_ACQUIRE)
        == NGX_RT_HANDOVER_NONE)
    {
        return 0;
    }

    rc = ngx_rt_handover_claim(st, f->hub->nslot, ngx_pid, f->config, &term,
                               &claim);

    if (rc != NGX_OK) {
        return 0;
    }

    f->heir = term;
    f->claim = claim;
    f->begun = ngx_current_msec;
    f->feed.heir = 1;

    ngx_rt_handover_name(f, term);

    ngx_rt_feeder_set_timer(&f->lease, NGX_RT_HANDOVER_TICK);

    ngx_rt_redis_open(&f->redis);

    return 1;
}


void
ngx_rt_handover_walked(ngx_rt_feed_t *feed)
{
    ngx_str_t         none, claim;
    ngx_rt_feeder_t  *f;
    u_char            buf[NGX_INT32_LEN];

    f = feed->feeder;

    if (f->mark.active || f->redis.paused) {
        return;
    }

    ngx_str_set(&none, "");

    claim.data = buf;
    claim.len = ngx_sprintf(buf, "%uD", f->claim) - buf;

    if (ngx_rt_publish_send(f->hub, &f->mark, &feed->marker, &none, &claim)
        != NGX_OK)
    {
        ngx_rt_handover_give_up(f->hub->store, f->heir, ngx_pid,
                                NGX_RT_HANDOVER_OFFERED);
    }
}


/* fewer than both have it: Redis is not the same, or denies it */

static void
ngx_rt_handover_published(ngx_rt_publish_t *pub)
{
    ngx_rt_feeder_t  *f;

    f = pub->data;

    /* one connection per hub: this one was for the marker */

    ngx_rt_publisher_rest(f->publisher);

    if (pub->rc == NGX_OK && pub->receivers >= 2) {
        return;
    }

    if (f->heir) {
        ngx_rt_handover_give_up(f->hub->store, f->heir, ngx_pid,
                                NGX_RT_HANDOVER_REFUSED);
        ngx_rt_feeder_set_timer(&f->lease, 1);
    }
}


/* of the payload: the number, in an envelope or not */

static uint32_t
ngx_rt_handover_number(const ngx_str_t *payload)
{
    size_t    i;
    uint32_t  n;

    n = 0;

    for (i = 0; i < payload->len; i++) {
        if (payload->data[i] >= '0' && payload->data[i] <= '9') {
            n = n * 10 + (payload->data[i] - '0');
        }
    }

    return n;
}


ngx_int_t
ngx_rt_handover_marked(ngx_rt_feed_t *feed, const ngx_str_t *payload)
{
    uint32_t          slot, claim;
    ngx_int_t         rc;
    ngx_rt_feeder_t  *f;

    f = feed->feeder;
    claim = ngx_rt_handover_number(payload);

    if (f->heir) {

        if (claim == f->claim) {
            f->redis.paused = 1;
            ngx_rt_feeder_set_timer(&f->lease, 1);
        }

        return NGX_OK;
    }

    if (!f->hold.timer_set) {
        return NGX_OK;
    }

    rc = ngx_rt_handover_cut(f->hub->store, f->term, claim, ngx_current_msec,
                             &slot);

    if (rc == NGX_OK) {
        ngx_rt_wakeup_send(slot);
        return NGX_ABORT;
    }

    return (rc == NGX_DECLINED) ? NGX_OK : rc;
}


void
ngx_rt_handover_check(ngx_rt_feeder_t *f)
{
    uint64_t   term;
    ngx_int_t  rc;

    if (!f->redis.paused) {
        /* the marker has not come, so the cut is still ahead of us */
        rc = (ngx_rt_handover_taken(f->hub->store, f->heir, ngx_pid)
              == NGX_DECLINED) ? NGX_DECLINED : NGX_AGAIN;

    } else {
        rc = ngx_rt_handover_taken(f->hub->store, f->heir, ngx_pid);
    }

    if (rc == NGX_OK) {
        term = f->heir + 1;
        f->heir = 0;
        ngx_rt_feeder_inherit(f, term);
        return;
    }

    if (rc == NGX_DECLINED
        || ngx_current_msec - f->begun >= NGX_RT_HANDOVER_TIME)
    {
        ngx_rt_feeder_step_down(f);
        return;
    }

    ngx_rt_feeder_set_timer(&f->lease, NGX_RT_HANDOVER_TICK);
}


void
ngx_rt_handover_end(ngx_rt_feeder_t *f, ngx_uint_t phase)
{
    if (f->heir) {
        ngx_rt_handover_give_up(f->hub->store, f->heir, ngx_pid, phase);

        /* taken meanwhile, and not by us */
        ngx_rt_lease_release(f->hub->store, f->heir + 1);
    }

    if (f->mark.active) {
        ngx_rt_publish_cancel(&f->mark);
    }

    if (f->hold.timer_set) {
        ngx_del_timer(&f->hold);
    }

    f->heir = 0;
    f->alone = 0;
    f->feed.heir = 0;
    f->feed.frozen = 0;
}
