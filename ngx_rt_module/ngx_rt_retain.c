
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What is kept when memory gets short.
 *
 * The tail passes one record after the other.  What is still promised is
 * carried forward to the head; of that, names and latest messages ("pinned")
 * are kept within 5/8 of the log by evicting channels, and history is carried
 * only while all together is under 1/2.  A record is at most 1/16.  So one
 * turn of the ring leaves at least 3/8 - 1/16 (a pad) free, which is more
 * than the 1/16 asked for and the 3/16 kept in reserve, from which carrying
 * forward and the small records live: making room always ends.
 */


#include <ngx_rt_shared.h>


#define NGX_RT_RETAIN_SAMPLE      16        /* entries looked at to evict one */

#define ngx_rt_retain_reserve(sh) (3 * ngx_rt_log_max(sh))
#define ngx_rt_retain_pins(sh)    ((sh)->log_size / 8 * 5)
#define ngx_rt_retain_total(sh)   ((sh)->log_size / 2)


static void ngx_rt_retain_pass(ngx_rt_store_t *st);
static ngx_uint_t ngx_rt_retain_keep(ngx_rt_store_t *st,
    ngx_rt_entry_sh_t *entry, uint64_t off, ngx_rt_record_sh_t *rec);
static void ngx_rt_retain_carry(ngx_rt_store_t *st, ngx_rt_entry_sh_t *entry,
    uint64_t off, ngx_rt_record_sh_t *rec);
static uint32_t ngx_rt_retain_victim(ngx_rt_store_t *st, uint32_t except);


void
ngx_rt_retain_room(ngx_rt_store_t *st, size_t need)
{
    uint64_t           stop;
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;

    /* two turns are never needed; a damaged ring must not hold us */

    stop = sh->tail + 2 * sh->log_size;

    while (sh->log_size - (sh->head - sh->tail)
           < need + ngx_rt_retain_reserve(sh)
           && sh->tail < sh->head && sh->tail < stop)
    {
        ngx_rt_retain_pass(st);
    }
}


static void
ngx_rt_retain_pass(ngx_rt_store_t *st)
{
    uint64_t             off;
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t  *rec;

    sh = st->sh;
    off = sh->tail;
    rec = ngx_rt_log_at(st, off);

    if (rec->size < 8 || rec->size > sh->head - off) {
        /* damaged: nothing before the head can be trusted to be a record */
        sh->tail = sh->head;
        return;
    }

    if (rec->type != NGX_RT_PAD && (rec->flags & NGX_RT_LIVE)
        && rec->entry < sh->nentries)
    {
        entry = &st->entries[rec->entry];

        if (entry->gen == rec->gen && (entry->flags & NGX_RT_USED)) {

            if (ngx_rt_retain_keep(st, entry, off, rec)) {
                ngx_rt_retain_carry(st, entry, off, rec);

            } else {
                ngx_rt_entry_begin(entry);

                while (entry->oldest != off
                       && ngx_rt_retain_drop(st, entry) == NGX_OK)
                {
                    sh->trimmed++;
                }

                if (ngx_rt_retain_drop(st, entry) == NGX_OK) {
                    sh->trimmed++;
                }

                ngx_rt_entry_end(entry);
            }
        }
    }

    sh->tail = off + rec->size;
}


static ngx_uint_t
ngx_rt_retain_keep(ngx_rt_store_t *st, ngx_rt_entry_sh_t *entry, uint64_t off,
    ngx_rt_record_sh_t *rec)
{
    return rec->type == NGX_RT_NAME
           || entry->latest == off
           || st->sh->pinned + st->sh->history < ngx_rt_retain_total(st->sh);
}


static void
ngx_rt_retain_carry(ngx_rt_store_t *st, ngx_rt_entry_sh_t *entry, uint64_t off,
    ngx_rt_record_sh_t *rec)
{
    uint64_t             to;
    ngx_rt_record_sh_t  *copy;

    copy = ngx_rt_log_reserve(st, rec->size, &to);

    ngx_memcpy(copy, rec, rec->size);
    copy->flags |= NGX_RT_COPY;

    ngx_rt_log_commit(st);

    ngx_rt_entry_begin(entry);

    if (rec->type == NGX_RT_NAME) {
        entry->name = to;

    } else {

        if (entry->latest == off) {
            __atomic_store_n(&entry->latest, to, __ATOMIC_RELAXED);

        } else {
            __atomic_store_n(&ngx_rt_log_at(st, copy->next)->prev, to,
                             __ATOMIC_RELAXED);
        }

        if (entry->oldest == off) {
            entry->oldest = to;

        } else {
            __atomic_store_n(&ngx_rt_log_at(st, copy->prev)->next, to,
                             __ATOMIC_RELAXED);
        }
    }

    __atomic_store_n(&rec->flags, rec->flags & ~NGX_RT_LIVE, __ATOMIC_RELAXED);

    ngx_rt_entry_end(entry);
}


ngx_int_t
ngx_rt_retain_drop(ngx_rt_store_t *st, ngx_rt_entry_sh_t *entry)
{
    uint64_t             floor;
    ngx_rt_record_sh_t  *rec;

    if (entry->oldest == NGX_RT_NONE || entry->oldest == entry->latest) {
        return NGX_DECLINED;
    }

    rec = ngx_rt_log_at(st, entry->oldest);

    __atomic_store_n(&rec->flags, rec->flags & ~NGX_RT_LIVE, __ATOMIC_RELAXED);

    entry->oldest = rec->next;
    entry->bytes -= rec->size;
    floor = ngx_max(entry->floor, rec->seq);
    __atomic_store_n(&entry->floor, floor, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->count, entry->count - 1, __ATOMIC_RELAXED);

    st->sh->history -= rec->size;

    return NGX_OK;
}


void
ngx_rt_retain_fit(ngx_rt_store_t *st, uint32_t except, ngx_uint_t entry)
{
    uint32_t           victim;
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;

    while (sh->pinned > ngx_rt_retain_pins(sh)
           || (entry && sh->free == NGX_RT_NONE))
    {
        victim = ngx_rt_retain_victim(st, except);

        if (victim == NGX_RT_NONE) {
            return;
        }

        ngx_rt_retain_room(st, sizeof(ngx_rt_record_sh_t));
        ngx_rt_retain_evict(st, victim);
        sh->evicted++;
    }
}


/* the one unused longest of a few in a row, as Redis evicts: near enough to
 * the longest of all, and no list to keep in order at each read */

static uint32_t
ngx_rt_retain_victim(ngx_rt_store_t *st, uint32_t except)
{
    uint32_t            i, victim, seen;
    ngx_rt_zone_sh_t   *sh;
    ngx_rt_entry_sh_t  *entry;

    sh = st->sh;
    victim = NGX_RT_NONE;
    seen = 0;

    for (i = 0; i < sh->nentries && seen < NGX_RT_RETAIN_SAMPLE; i++) {

        if (++sh->hand >= sh->nentries) {
            sh->hand = 1;
        }

        entry = &st->entries[sh->hand];

        if (sh->hand == except || !(entry->flags & NGX_RT_USED)) {
            continue;
        }

        if (victim == NGX_RT_NONE
            || entry->used < st->entries[victim].used)
        {
            victim = sh->hand;
        }

        seen++;
    }

    return victim;
}


void
ngx_rt_retain_evict(ngx_rt_store_t *st, uint32_t index)
{
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t  *old;

    entry = &st->entries[index];

    ngx_rt_retain_told(st, index, entry->gen);

    ngx_rt_entry_begin(entry);

    while (ngx_rt_retain_drop(st, entry) == NGX_OK) { /* void */ }

    if (entry->latest) {
        old = ngx_rt_log_at(st, entry->latest);
        __atomic_store_n(&old->flags, old->flags & ~NGX_RT_LIVE,
                         __ATOMIC_RELAXED);
        st->sh->pinned -= old->size;
    }

    if (entry->name) {
        old = ngx_rt_log_at(st, entry->name);
        __atomic_store_n(&old->flags, old->flags & ~NGX_RT_LIVE,
                         __ATOMIC_RELAXED);
        st->sh->pinned -= old->size;
    }

    entry->latest = NGX_RT_NONE;
    entry->oldest = NGX_RT_NONE;
    entry->name = NGX_RT_NONE;

    ngx_rt_entry_end(entry);

    ngx_rt_table_remove(st, index);
}


void
ngx_rt_retain_told(ngx_rt_store_t *st, uint32_t index, uint32_t gen)
{
    ngx_rt_record_sh_t  rec;

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));
    rec.type = NGX_RT_EVICT;
    rec.entry = index;
    rec.gen = gen;
    rec.seq = st->sh->seq + 1;

    (void) ngx_rt_log_write(st, &rec, NULL, NULL);

    __atomic_store_n(&st->sh->seq, rec.seq, __ATOMIC_RELEASE);
}


void
ngx_rt_retain_recount(ngx_rt_store_t *st)
{
    uint32_t            i, n;
    uint64_t            off;
    ngx_rt_zone_sh_t   *sh;
    ngx_rt_entry_sh_t  *entry;

    sh = st->sh;

    sh->pinned = 0;
    sh->history = 0;

    for (i = 1; i < sh->nentries; i++) {
        entry = &st->entries[i];

        if (!(entry->flags & NGX_RT_USED)) {
            continue;
        }

        sh->pinned += ngx_rt_log_at(st, entry->name)->size;

        if (entry->latest == NGX_RT_NONE) {
            continue;
        }

        sh->pinned += ngx_rt_log_at(st, entry->latest)->size;

        off = entry->oldest;

        for (n = 1; n < entry->count; n++) {
            sh->history += ngx_rt_log_at(st, off)->size;
            off = ngx_rt_log_at(st, off)->next;
        }
    }
}
