
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * How many streams of this node follow a channel: one word in its entry, to
 * which each worker adds what it has.
 *
 *     | epoch, 12 bits | streams, 20 bits |
 *
 * A killed worker leaves its part in the words.  So the zone has an epoch of
 * counting: a word of another epoch counts for nothing, and a worker that
 * finds the epoch changed adds all it has anew, at the latest a second later.
 * Whoever finds a worker dead that had streams begins a new epoch.  Between
 * that and the last worker's adding the counts are too low, never too high.
 *
 * Polls that wait are counted likewise, in a word of their own (`held` in the
 * entry's rates): they are viewers, but no streams.
 *
 * An entry that is evicted and reused begins at zero.  A worker that has not
 * read of that yet checks gen before it subtracts; a reuse in that very
 * moment makes the new channel's count too low until the next epoch.
 */


#include <ngx_rt_shared.h>


#define NGX_RT_VIEWERS_MAX        ((1U << NGX_RT_VIEWERS_BITS) - 1)

#define ngx_rt_viewers_count(word)    ((word) & NGX_RT_VIEWERS_MAX)


void
ngx_rt_viewers_set(ngx_rt_store_t *st, uint32_t index, uint32_t gen,
    ngx_rt_viewers_t *own, uint32_t n)
{
    if (index == NGX_RT_NONE || index >= st->sh->nentries) {
        return;
    }

    ngx_rt_viewers_word(st, &st->entries[index].viewers, index, gen, own, n);
}


void
ngx_rt_viewers_word(ngx_rt_store_t *st, uint32_t *at, uint32_t index,
    uint32_t gen, ngx_rt_viewers_t *own, uint32_t n)
{
    int64_t             count;
    uint32_t            epoch, word, had;
    ngx_rt_entry_sh_t  *entry;

    entry = &st->entries[index];

    for ( ;; ) {
        epoch = ngx_rt_viewers_now(st);
        word = __atomic_load_n(at, __ATOMIC_ACQUIRE);

        /* a word of a newer epoch than the one just read is not undone */

        if (ngx_rt_viewers_epoch(word) != epoch
            && epoch != ngx_rt_viewers_now(st))
        {
            continue;
        }

        had = (own->epoch == epoch) ? own->count : 0;

        if (had == n) {
            break;
        }

        count = (ngx_rt_viewers_epoch(word) == epoch)
                ? ngx_rt_viewers_count(word) : 0;

        count += (int64_t) n - had;
        count = ngx_max(count, 0);
        count = ngx_min(count, (int64_t) NGX_RT_VIEWERS_MAX);

        if (__atomic_load_n(&entry->gen, __ATOMIC_ACQUIRE) != gen) {
            return;
        }

        if (__atomic_compare_exchange_n(at, &word,
                                        epoch << NGX_RT_VIEWERS_BITS
                                        | (uint32_t) count,
                                        0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        {
            break;
        }
    }

    own->epoch = epoch;
    own->count = n;
}


void
ngx_rt_viewers_recount(ngx_rt_store_t *st)
{
    __atomic_add_fetch(&st->sh->viewers, 1, __ATOMIC_ACQ_REL);
}


void
ngx_rt_viewers_taken(ngx_rt_store_t *st, ngx_rt_slot_sh_t *slot)
{
    if (__atomic_load_n(&slot->pid, __ATOMIC_ACQUIRE)
        && (__atomic_load_n(&slot->open[0], __ATOMIC_RELAXED)
            || __atomic_load_n(&slot->open[1], __ATOMIC_RELAXED)
            || __atomic_load_n(&slot->held, __ATOMIC_RELAXED)))
    {
        ngx_rt_viewers_recount(st);
    }
}


void
ngx_rt_viewers_reap(ngx_rt_store_t *st)
{
    uint32_t           pid;
    ngx_uint_t         i;
    ngx_rt_slot_sh_t  *slot;

    for (i = 0; i < st->sh->nslots; i++) {
        slot = &st->slots[i];

        pid = __atomic_load_n(&slot->pid, __ATOMIC_ACQUIRE);

        if (pid == 0
            || (__atomic_load_n(&slot->open[0], __ATOMIC_RELAXED) == 0
                && __atomic_load_n(&slot->open[1], __ATOMIC_RELAXED) == 0
                && __atomic_load_n(&slot->held, __ATOMIC_RELAXED) == 0)
            || kill((ngx_pid_t) pid, 0) == 0 || ngx_errno != NGX_ESRCH)
        {
            continue;
        }

        /* once for each that died; a worker that takes the slot right now
         * has seen to it by itself */

        if (__atomic_compare_exchange_n(&slot->pid, &pid, 0, 0,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        {
            ngx_rt_viewers_recount(st);
        }
    }
}
