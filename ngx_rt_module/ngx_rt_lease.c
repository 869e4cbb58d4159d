
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Who feeds, and how the feed is.
 */


#include <ngx_rt_shared.h>
#include <signal.h>


ngx_int_t
ngx_rt_lease_take(ngx_rt_store_t *st, uint32_t slot, ngx_pid_t pid,
    uint64_t now, uint64_t *term)
{
    uint32_t           holder;
    ngx_rt_feed_sh_t  *feed;

    feed = &st->sh->feed;

    ngx_rt_store_lock(st);

    holder = feed->pid;

    if (holder
        && now - feed->renewed < NGX_RT_LEASE_DEAD
        && !(kill((ngx_pid_t) holder, 0) == -1 && ngx_errno == NGX_ESRCH))
    {
        ngx_rt_store_unlock(st);
        return NGX_DECLINED;
    }

    /* term last: who has it is then all there */

    feed->pid = 0;
    feed->term++;
    feed->slot = slot;
    __atomic_store_n(&feed->renewed, now, __ATOMIC_RELAXED);
    __atomic_store_n(&feed->pid, (uint32_t) pid, __ATOMIC_RELEASE);

    *term = feed->term;

    ngx_rt_store_unlock(st);

    return NGX_OK;
}


ngx_int_t
ngx_rt_lease_renew(ngx_rt_store_t *st, uint64_t term, uint64_t now)
{
    ngx_int_t  rc;

    ngx_rt_store_lock(st);

    rc = NGX_ABORT;

    if (!ngx_rt_store_over(st, term)) {
        __atomic_store_n(&st->sh->feed.renewed, now, __ATOMIC_RELAXED);
        rc = NGX_OK;
    }

    ngx_rt_store_unlock(st);

    return rc;
}


void
ngx_rt_lease_release(ngx_rt_store_t *st, uint64_t term)
{
    ngx_rt_store_lock(st);

    if (!ngx_rt_store_over(st, term)) {
        __atomic_store_n(&st->sh->feed.pid, 0, __ATOMIC_RELEASE);
    }

    ngx_rt_store_unlock(st);
}


ngx_int_t
ngx_rt_feed_set(ngx_rt_store_t *st, uint64_t term, ngx_uint_t state,
    const ngx_str_t *server, uint64_t now)
{
    size_t             len;
    ngx_rt_feed_sh_t  *feed;

    feed = &st->sh->feed;

    ngx_rt_store_lock(st);

    if (ngx_rt_store_over(st, term)) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    if (server) {
        len = ngx_min(server->len, NGX_RT_FEED_SERVER_LEN - 1);
        ngx_memcpy(feed->server, server->data, len);
        feed->server[len] = '\0';
    }

    if (feed->state != state || state == NGX_RT_FEED_LIVE) {

        if (feed->state == NGX_RT_FEED_LIVE) {
            __atomic_store_n(&feed->lost, now, __ATOMIC_RELAXED);
        }

        if (state == NGX_RT_FEED_LIVE) {
            feed->reconnects += feed->lost ? 1 : 0;

            /* before the state: nobody takes an old confirmation for new */

            __atomic_store_n(&feed->session, feed->session + 1,
                             __ATOMIC_RELEASE);
        }

        __atomic_store_n(&feed->since, now, __ATOMIC_RELAXED);
        __atomic_store_n(&feed->state, (uint32_t) state, __ATOMIC_RELEASE);
    }

    ngx_rt_store_unlock(st);

    return NGX_OK;
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

    renewed = __atomic_load_n(&feed->renewed, __ATOMIC_RELAXED);

    if (__atomic_load_n(&feed->state, __ATOMIC_ACQUIRE) == NGX_RT_FEED_LIVE) {
        return now < renewed + NGX_RT_LEASE_DEAD + stale;
    }

    lost = __atomic_load_n(&feed->lost, __ATOMIC_RELAXED);

    return lost && now < lost + stale;
}
