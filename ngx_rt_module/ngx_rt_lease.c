
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Who feeds, and how the feed is.  All is written under the mutex, by the
 * feeder but for the taking of the lease; state, session, since, lost and
 * renewed are read without it.
 *
 * A worker killed while it takes the lease leaves a pid that is gone, its own
 * or that of the one before: the lease is taken again.  Killed while it sets
 * the state, it leaves an older state, and the next feeder sets another.
 */


#include <ngx_rt_store.h>
#include <signal.h>


static ngx_uint_t ngx_rt_lease_held(ngx_rt_feed_sh_t *feed, uint64_t now);
static void ngx_rt_feed_server(ngx_rt_feed_sh_t *feed,
    const ngx_str_t *server);
static void ngx_rt_feed_live(ngx_rt_feed_sh_t *feed);


#define ngx_rt_feed_store(field, value)                                       \
    __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)


ngx_int_t
ngx_rt_lease_take(ngx_rt_store_t *st, uint32_t slot, ngx_pid_t pid,
    uint64_t now, uint64_t *term)
{
    ngx_rt_feed_sh_t  *feed;

    feed = &st->sh->feed;

    ngx_rt_store_lock(st);

    if (ngx_rt_lease_held(feed, now)) {
        ngx_rt_store_unlock(st);
        return NGX_DECLINED;
    }

    /* the old term ends before anything else of the new one is seen */

    ngx_rt_feed_store(feed->term, feed->term + 1);

    /* a feeder that went silent was lost when it was heard last; told before
     * renewed is changed, by which the state would be fresh once more */

    if (feed->state == NGX_RT_FEED_LIVE) {
        ngx_rt_feed_store(feed->lost, ngx_max(feed->renewed, 1));
        ngx_rt_feed_store(feed->since, now);
        ngx_rt_feed_store(feed->state, NGX_RT_FEED_CONNECTING);
    }

    NGX_RT_FAULT("take: term");

    ngx_rt_feed_store(feed->renewed, now);
    ngx_rt_feed_store(feed->slot, slot);
    ngx_rt_feed_store(feed->pid, (uint32_t) pid);

    *term = feed->term;

    ngx_rt_store_unlock(st);

    return NGX_OK;
}


static ngx_uint_t
ngx_rt_lease_held(ngx_rt_feed_sh_t *feed, uint64_t now)
{
    if (feed->pid == 0) {
        return 0;
    }

    if (now > feed->renewed && now - feed->renewed >= NGX_RT_LEASE_DEAD) {
        return 0;
    }

    /* EPERM: there is such a process */

    return !(kill((pid_t) feed->pid, 0) == -1 && ngx_errno == ESRCH);
}


ngx_int_t
ngx_rt_lease_renew(ngx_rt_store_t *st, uint64_t term, uint64_t now)
{
    ngx_int_t  rc;

    ngx_rt_store_lock(st);

    rc = ngx_rt_store_term(st, term);

    if (rc == NGX_OK) {
        ngx_rt_feed_store(st->sh->feed.renewed, now);
    }

    ngx_rt_store_unlock(st);

    return rc;
}


void
ngx_rt_lease_release(ngx_rt_store_t *st, uint64_t term)
{
    ngx_rt_store_lock(st);

    if (ngx_rt_store_term(st, term) == NGX_OK) {
        ngx_rt_feed_store(st->sh->feed.pid, 0);
    }

    ngx_rt_store_unlock(st);
}


/*
 * The order of the stores is for ngx_rt_feed_fresh(), which may read in
 * between: whoever sees LIVE sees the new session too, by which all channels
 * are unconfirmed; whoever sees it gone sees since when.
 */

ngx_int_t
ngx_rt_feed_set(ngx_rt_store_t *st, uint64_t term, ngx_uint_t state,
    const ngx_str_t *server, uint64_t now)
{
    ngx_rt_feed_sh_t  *feed;

    feed = &st->sh->feed;

    ngx_rt_store_lock(st);

    if (ngx_rt_store_term(st, term) != NGX_OK) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    if (server) {
        ngx_rt_feed_server(feed, server);
    }

    if (feed->state == NGX_RT_FEED_LIVE && state != NGX_RT_FEED_LIVE) {
        ngx_rt_feed_store(feed->lost, now ? now : 1);
    }

    if (feed->state != state || state == NGX_RT_FEED_LIVE) {
        ngx_rt_feed_store(feed->since, now);
    }

    if (state == NGX_RT_FEED_LIVE) {
        ngx_rt_feed_live(feed);

    } else {
        ngx_rt_feed_store(feed->state, (uint32_t) state);
    }

    ngx_rt_store_unlock(st);

    return NGX_OK;
}


static void
ngx_rt_feed_live(ngx_rt_feed_sh_t *feed)
{
    if (feed->lost || feed->state == NGX_RT_FEED_LIVE) {
        ngx_rt_feed_store(feed->reconnects, feed->reconnects + 1);
    }

    ngx_rt_feed_store(feed->session, feed->session + 1);

    NGX_RT_FAULT("live: session");

    ngx_rt_feed_store(feed->state, NGX_RT_FEED_LIVE);
    ngx_rt_feed_store(feed->lost, 0);
}


static void
ngx_rt_feed_server(ngx_rt_feed_sh_t *feed, const ngx_str_t *server)
{
    size_t  i, len;

    len = ngx_min(server->len, NGX_RT_FEED_SERVER_LEN - 1);

    for (i = 0; i < len; i++) {
        ngx_rt_set(feed->server[i], server->data[i]);
    }

    ngx_rt_set(feed->server[len], '\0');
}


ngx_uint_t
ngx_rt_feed_fresh(ngx_rt_store_t *st, uint64_t now, uint64_t stale)
{
    uint64_t           lost, renewed;
    ngx_rt_feed_sh_t  *feed;

    if (st->embedded) {
        return 1;
    }

    feed = &st->sh->feed;

    if (__atomic_load_n(&feed->state, __ATOMIC_ACQUIRE) == NGX_RT_FEED_LIVE) {

        renewed = __atomic_load_n(&feed->renewed, __ATOMIC_ACQUIRE);

        /* whoever takes the lease tells that the feed is lost, and renews it
         * only then: it is of a feed that was live if that still stands */

        if (__atomic_load_n(&feed->state, __ATOMIC_ACQUIRE)
            == NGX_RT_FEED_LIVE)
        {
            /* one that is silent may be lost since it was heard last */

            return now <= renewed
                   || now - renewed < NGX_RT_LEASE_DEAD
                   || now - renewed < stale;
        }
    }

    lost = __atomic_load_n(&feed->lost, __ATOMIC_ACQUIRE);

    return lost != 0 && (now <= lost || now - lost < stale);
}
