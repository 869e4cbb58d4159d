
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * How a feeder that quits gives its term to another worker, the heir, which
 * is connected to the same Redis and subscribed to the same channels already.
 *
 *     NONE --offer--> OFFERED --claim--> CLAIMED --cut--> NONE, a new term
 *                        ^                  |
 *                        +---- give up -----+--> REFUSED
 *
 * Each claim has a number, which is in the heir's marker: that of an heir who
 * has given up since is no cut for the next one.
 *
 * All of it is written under the mutex.  Whoever dies on the way leaves a
 * phase that is worth nothing: what is offered belongs to one term, and a
 * lease that is taken in the ordinary way ends that.
 */


#include <ngx_rt_store.h>
#include <signal.h>


static ngx_uint_t ngx_rt_handover_alive(uint32_t pid);
static ngx_uint_t ngx_rt_handover_valid(ngx_rt_zone_sh_t *sh);


#define ngx_rt_handover_set(field, value)                                     \
    __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)


ngx_int_t
ngx_rt_handover_offer(ngx_rt_store_t *st, uint64_t term, uint32_t config)
{
    ngx_int_t               rc;
    ngx_rt_handover_sh_t   *h;

    h = &st->sh->handover;

    ngx_rt_store_lock(st);

    rc = ngx_rt_store_term(st, term);

    if (rc == NGX_OK) {
        ngx_rt_handover_set(h->term, term);
        ngx_rt_handover_set(h->config, config);
        ngx_rt_handover_set(h->pid, 0);
        ngx_rt_handover_set(h->phase, NGX_RT_HANDOVER_OFFERED);
    }

    ngx_rt_store_unlock(st);

    return rc;
}


ngx_int_t
ngx_rt_handover_withdraw(ngx_rt_store_t *st, uint64_t term)
{
    ngx_int_t               rc;
    ngx_rt_handover_sh_t   *h;

    h = &st->sh->handover;
    rc = NGX_OK;

    ngx_rt_store_lock(st);

    if (ngx_rt_handover_valid(st->sh) && h->term == term) {

        if (h->phase == NGX_RT_HANDOVER_CLAIMED
            && ngx_rt_handover_alive(h->pid))
        {
            rc = NGX_DECLINED;

        } else {
            ngx_rt_handover_set(h->phase, NGX_RT_HANDOVER_NONE);
        }
    }

    ngx_rt_store_unlock(st);

    return rc;
}


ngx_int_t
ngx_rt_handover_claim(ngx_rt_store_t *st, uint32_t slot, ngx_pid_t pid,
    uint32_t config, uint64_t *term, uint32_t *claim)
{
    ngx_int_t               rc;
    ngx_rt_handover_sh_t   *h;

    h = &st->sh->handover;
    rc = NGX_DECLINED;

    ngx_rt_store_lock(st);

    if (!ngx_rt_handover_valid(st->sh)
        || h->phase == NGX_RT_HANDOVER_REFUSED
        || (h->phase == NGX_RT_HANDOVER_CLAIMED
            && ngx_rt_handover_alive(h->pid)))
    {
        goto done;
    }

    if (h->config != config) {
        ngx_rt_handover_set(h->phase, NGX_RT_HANDOVER_REFUSED);
        rc = NGX_ABORT;
        goto done;
    }

    *term = h->term;

    ngx_rt_handover_set(h->claim, h->claim + 1);
    ngx_rt_handover_set(h->slot, slot);
    ngx_rt_handover_set(h->pid, (uint32_t) pid);
    ngx_rt_handover_set(h->phase, NGX_RT_HANDOVER_CLAIMED);

    *claim = h->claim;

    rc = NGX_OK;

done:

    ngx_rt_store_unlock(st);

    return rc;
}


void
ngx_rt_handover_give_up(ngx_rt_store_t *st, uint64_t term, ngx_pid_t pid,
    ngx_uint_t phase)
{
    ngx_rt_handover_sh_t  *h;

    h = &st->sh->handover;

    ngx_rt_store_lock(st);

    if (h->phase == NGX_RT_HANDOVER_CLAIMED && h->term == term
        && h->pid == (uint32_t) pid)
    {
        ngx_rt_handover_set(h->phase, (uint32_t) phase);
        ngx_rt_handover_set(h->pid, 0);
    }

    ngx_rt_store_unlock(st);
}


/* the stores are in the order of ngx_rt_lease_take(), for its reasons */

ngx_int_t
ngx_rt_handover_cut(ngx_rt_store_t *st, uint64_t term, uint32_t claim,
    uint64_t now, uint32_t *slot)
{
    ngx_int_t               rc;
    ngx_rt_feed_sh_t       *feed;
    ngx_rt_handover_sh_t   *h;

    h = &st->sh->handover;
    feed = &st->sh->feed;

    ngx_rt_store_lock(st);

    rc = ngx_rt_store_term(st, term);

    if (rc != NGX_OK) {
        goto done;
    }

    if (h->phase != NGX_RT_HANDOVER_CLAIMED || h->term != term
        || h->claim != claim || !ngx_rt_handover_alive(h->pid))
    {
        rc = NGX_DECLINED;
        goto done;
    }

    *slot = h->slot;

    ngx_rt_handover_set(feed->term, term + 1);

    NGX_RT_FAULT("cut: term");

    ngx_rt_handover_set(feed->renewed, now);
    ngx_rt_handover_set(feed->slot, h->slot);
    ngx_rt_handover_set(feed->pid, h->pid);
    ngx_rt_handover_set(h->phase, NGX_RT_HANDOVER_NONE);

done:

    ngx_rt_store_unlock(st);

    return rc;
}


ngx_int_t
ngx_rt_handover_taken(ngx_rt_store_t *st, uint64_t term, ngx_pid_t pid)
{
    ngx_int_t               rc;
    ngx_rt_feed_sh_t       *feed;
    ngx_rt_handover_sh_t   *h;

    h = &st->sh->handover;
    feed = &st->sh->feed;
    rc = NGX_DECLINED;

    ngx_rt_store_lock(st);

    if (feed->term == term + 1 && feed->pid == (uint32_t) pid) {
        rc = NGX_OK;

    } else if (ngx_rt_handover_valid(st->sh) && h->term == term
               && h->phase == NGX_RT_HANDOVER_CLAIMED
               && h->pid == (uint32_t) pid)
    {
        rc = NGX_AGAIN;
    }

    ngx_rt_store_unlock(st);

    return rc;
}


ngx_uint_t
ngx_rt_handover_phase(ngx_rt_store_t *st, uint64_t term)
{
    ngx_uint_t              phase;
    ngx_rt_handover_sh_t   *h;

    h = &st->sh->handover;
    phase = NGX_RT_HANDOVER_NONE;

    ngx_rt_store_lock(st);

    if (ngx_rt_handover_valid(st->sh) && h->term == term) {

        if (h->phase == NGX_RT_HANDOVER_CLAIMED
            && !ngx_rt_handover_alive(h->pid))
        {
            ngx_rt_handover_set(h->phase, NGX_RT_HANDOVER_OFFERED);
        }

        phase = h->phase;
    }

    ngx_rt_store_unlock(st);

    return phase;
}


uint32_t
ngx_rt_handover_generation(ngx_rt_store_t *st)
{
    uint32_t  generation;

    generation = st->sh->generation + 1;

    ngx_rt_set(st->sh->generation, generation);

    return generation;
}


ngx_uint_t
ngx_rt_handover_coming(ngx_rt_store_t *st, uint32_t generation)
{
    return ngx_rt_get(st->sh->generation) != generation;
}


ngx_uint_t
ngx_rt_handover_heirs(ngx_rt_store_t *st, ngx_rt_slot_sh_t *own)
{
    uint32_t     pid;
    ngx_uint_t   i, n;

    n = 0;

    for (i = 0; i < st->sh->nslots; i++) {

        pid = ngx_rt_get(st->slots[i].pid);

        if (&st->slots[i] != own && pid
            && ngx_rt_get(st->slots[i].quitting) == 0
            && ngx_rt_handover_alive(pid))
        {
            n++;
        }
    }

    return n;
}


uint64_t
ngx_rt_handover_streams(ngx_rt_store_t *st)
{
    uint64_t           n;
    ngx_uint_t         i;
    ngx_rt_slot_sh_t  *slot;

    n = 0;

    for (i = 0; i < st->sh->nslots; i++) {
        slot = &st->slots[i];

        if (ngx_rt_handover_alive(ngx_rt_get(slot->pid))) {
            n += ngx_rt_get(slot->open[0]) + ngx_rt_get(slot->open[1]);
        }
    }

    return n;
}


static ngx_uint_t
ngx_rt_handover_alive(uint32_t pid)
{
    /* EPERM: there is such a process */

    return pid && !(kill((pid_t) pid, 0) == -1 && ngx_errno == ESRCH);
}


/* 1: something is offered, by whoever feeds now */

static ngx_uint_t
ngx_rt_handover_valid(ngx_rt_zone_sh_t *sh)
{
    return sh->handover.phase != NGX_RT_HANDOVER_NONE
           && sh->handover.term == sh->feed.term
           && ngx_rt_handover_alive(sh->feed.pid);
}
