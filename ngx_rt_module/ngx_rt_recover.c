
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Repair of a zone whose writer was killed: by whoever takes the mutex next.
 *
 * What is trusted: records below the head are whole, because head is moved
 * last.  Closed (even) entries are right, with their lists.  An open entry is
 * right as far as a walk from latest by prev goes (ngx_rt_retain.c).  At most
 * one change was under way, and if it had come to a record, that is the last
 * one in the log: it is finished.  What is derived, buckets, free list, want
 * queue, sums, is built anew.
 *
 * It may be killed in turn: each step can be done again, and `writing` is
 * cleared after the last.
 *
 * Memory that was damaged otherwise is not what this is for; but nothing here
 * or elsewhere may run for ever or out of the zone by it, so what does not
 * hang together is given up.
 */


#include <ngx_rt_store.h>


typedef struct {
    uint64_t                      oldest;
    uint64_t                      words;
    uint32_t                      count;
    unsigned                      sound:1;  /* no record was amiss */
    unsigned                      linked:1; /* next leads the same way back */
} ngx_rt_walk_t;


static void ngx_rt_recover_bounds(ngx_rt_store_t *st);
static uint64_t ngx_rt_recover_scan(ngx_rt_store_t *st);
static void ngx_rt_recover_finish(ngx_rt_store_t *st, uint64_t off);
static void ngx_rt_recover_carry(ngx_rt_store_t *st, uint64_t off);
static ngx_uint_t ngx_rt_recover_at(ngx_rt_store_t *st, uint64_t off,
    ngx_uint_t type, uint32_t i);
static void ngx_rt_recover_entry(ngx_rt_store_t *st, uint32_t i);
static ngx_uint_t ngx_rt_recover_named(ngx_rt_store_t *st, uint32_t i);
static void ngx_rt_recover_discard(ngx_rt_store_t *st, uint32_t i);
static void ngx_rt_recover_walk(ngx_rt_store_t *st, uint32_t i,
    ngx_rt_walk_t *walk);
static void ngx_rt_recover_relist(ngx_rt_store_t *st, uint32_t i,
    ngx_rt_walk_t *walk);
static void ngx_rt_recover_rebuild(ngx_rt_store_t *st);
static uint64_t ngx_rt_recover_least(ngx_rt_store_t *st, uint32_t i,
    uint64_t least);


void
ngx_rt_recover(ngx_rt_store_t *st)
{
    uint32_t           i;
    uint64_t           last;
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;

    ngx_rt_store_begin(st);

    ngx_rt_recover_bounds(st);

    last = ngx_rt_recover_scan(st);

    NGX_RT_FAULT("recover: scanned");

    if (last != NGX_RT_NONE) {
        ngx_rt_recover_finish(st, last);
    }

    NGX_RT_FAULT("recover: finished");

    for (i = 1; i < sh->top; i++) {
        ngx_rt_recover_entry(st, i);
    }

    NGX_RT_FAULT("recover: entries");

    ngx_rt_recover_rebuild(st);

    ngx_rt_set(sh->forgotten, sh->seq + 1);

    ngx_rt_add(sh->repaired, 1);
}


static void
ngx_rt_recover_bounds(ngx_rt_store_t *st)
{
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;

    if (sh->limit < sh->head) {
        ngx_rt_set(sh->limit, sh->head);
    }

    if (sh->tail > sh->head || sh->head - sh->tail > sh->log_size
        || (sh->tail & 7))
    {
        ngx_rt_set(sh->tail, sh->head);
    }

    if (sh->top == 0 || sh->top > sh->nentries) {
        ngx_rt_set(sh->top, sh->nentries);
    }
}


/*
 * Raises seq to the largest there is, so that none is given twice.  Returns
 * the last record, NGX_RT_NONE if the log doesn't lead up to its head.
 */

static uint64_t
ngx_rt_recover_scan(ngx_rt_store_t *st)
{
    uint32_t             i, n;
    uint64_t             off, last, seq;
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_record_sh_t  *rec;

    sh = st->sh;
    seq = sh->seq;
    last = NGX_RT_NONE;

    for (off = sh->tail; off < sh->head; off += n) {

        n = ngx_rt_log_check(st, off, sh->head);

        if (n == 0) {
            last = NGX_RT_NONE;
            break;
        }

        rec = ngx_rt_log_at(st, off);

        if (rec->type != NGX_RT_PAD) {
            seq = ngx_max(seq, rec->seq);
            last = off;
        }
    }

    for (i = 1; i < sh->top; i++) {
        seq = ngx_max(seq, st->entries[i].version);
    }

    ngx_rt_store_done(st, seq);

    return last;
}


/* does what was to follow the commit of the record at off */

static void
ngx_rt_recover_finish(ngx_rt_store_t *st, uint64_t off)
{
    uint32_t             i;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec;

    rec = ngx_rt_log_at(st, off);
    i = rec->entry;

    if (i == NGX_RT_NONE || i >= st->sh->top) {
        return;
    }

    e = &st->entries[i];

    if (!(e->flags & NGX_RT_USED) || e->gen != rec->gen) {
        return;
    }

    if (rec->flags & NGX_RT_COPY) {
        ngx_rt_recover_carry(st, off);
        return;
    }

    if (rec->type == NGX_RT_DROP
        || (st->stream && (rec->flags & NGX_RT_BROKEN)))
    {
        if (e->floor < rec->seq || (e->lock & 1)) {
            ngx_rt_retain_clear(st, i, rec->seq, st->stream ? rec->tag : NULL);
        }

        return;
    }

    if (rec->type == NGX_RT_CONFIRM && st->stream && (e->lock & 1)) {
        /* half a place may have been written */
        ngx_rt_entry_tag(e, rec->tag);
        return;
    }

    /* the entry stays open until it is whole: closed before, it would tell of
     * a version newer than this message without it */

    if (rec->type == NGX_RT_MESSAGE && e->latest != off
        && rec->seq > e->msg_seq && rec->seq > e->floor)
    {
        ngx_rt_entry_open(e);
        ngx_rt_set(rec->prev, e->latest);
        ngx_rt_set(e->latest, off);
    }
}


/* a copy of the record at the tail: it was being carried forward */

static void
ngx_rt_recover_carry(ngx_rt_store_t *st, uint64_t off)
{
    uint32_t             i;
    uint64_t             tail;
    ngx_rt_record_sh_t  *rec, *old;

    tail = st->sh->tail;

    rec = ngx_rt_log_at(st, off);
    old = ngx_rt_log_at(st, tail);
    i = rec->entry;

    if (tail == off || !ngx_rt_recover_at(st, tail, rec->type, i)
        || old->seq != rec->seq)
    {
        return;
    }

    if (rec->type == NGX_RT_MESSAGE
        && ((rec->prev != NGX_RT_NONE
             && !ngx_rt_recover_at(st, rec->prev, NGX_RT_MESSAGE, i))
            || (rec->next != NGX_RT_NONE
                && !ngx_rt_recover_at(st, rec->next, NGX_RT_MESSAGE, i))))
    {
        return;
    }

    ngx_rt_retain_relink(st, tail, off);
}


/* 1: there is such a record of that channel */

static ngx_uint_t
ngx_rt_recover_at(ngx_rt_store_t *st, uint64_t off, ngx_uint_t type,
    uint32_t i)
{
    ngx_rt_record_sh_t  *rec;

    if (off < st->sh->tail
        || ngx_rt_log_check(st, off, st->sh->head)
           < sizeof(ngx_rt_record_sh_t))
    {
        return 0;
    }

    rec = ngx_rt_log_at(st, off);

    return rec->type == type && rec->entry == i
           && rec->gen == st->entries[i].gen;
}


/* makes an entry whole, or frees it */

static void
ngx_rt_recover_entry(ngx_rt_store_t *st, uint32_t i)
{
    ngx_rt_walk_t       walk;
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[i];

    if (!(e->flags & NGX_RT_USED)) {

        if (e->lock & 1) {
            /* being made or freed: perhaps somebody has its gen */
            ngx_rt_set(e->gen, e->gen + 1);
            ngx_rt_entry_close(e);
        }

        return;
    }

    if (!ngx_rt_recover_named(st, i)) {
        ngx_rt_recover_discard(st, i);
        return;
    }

    ngx_rt_recover_walk(st, i, &walk);

    if ((e->lock & 1) || !walk.sound || !walk.linked
        || walk.count != e->count || walk.oldest != e->oldest
        || walk.words != e->words
        || (walk.count && ngx_rt_log_at(st, e->latest)->seq != e->msg_seq))
    {
        ngx_rt_recover_relist(st, i, &walk);
    }
}


static ngx_uint_t
ngx_rt_recover_named(ngx_rt_store_t *st, uint32_t i)
{
    ngx_str_t           name;
    ngx_rt_key_t        key;
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[i];

    if (e->name < st->sh->tail) {
        return 0;
    }

    ngx_rt_retain_name(st, i, &name);

    if (name.len == 0) {
        return 0;
    }

    if (!(e->lock & 1)) {
        return 1;
    }

    ngx_rt_table_key(st, &name, &key);

    return key.h[0] == e->key.h[0] && key.h[1] == e->key.h[1];
}


/*
 * An open entry without a name was being made or freed: who needs to know
 * that, knows.  A closed one can only have been damaged: its workers are told,
 * without the name, if there is room for that without making some.
 */

static void
ngx_rt_recover_discard(ngx_rt_store_t *st, uint32_t i)
{
    void                *dst;
    uint64_t             off;
    ngx_str_t            none;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t   rec;

    e = &st->entries[i];

    if (!(e->lock & 1)) {

        ngx_str_null(&none);
        ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));

        rec.size = (uint32_t) ngx_rt_log_size(0);
        rec.type = NGX_RT_EVICT;
        rec.entry = i;
        rec.gen = e->gen;
        rec.seq = st->sh->seq + 1;

        dst = ngx_rt_log_append(st, rec.size, &off);

        if (dst) {
            ngx_rt_log_write(dst, &rec, &none, &none);
            ngx_rt_log_commit(st, off + rec.size);
        }

        ngx_rt_store_done(st, rec.seq);
        ngx_rt_add(st->sh->evicted, 1);
    }

    ngx_rt_entry_open(e);

    ngx_rt_set(e->gen, e->gen + 1);
    ngx_rt_set(e->flags, e->flags & NGX_RT_QUEUED);
    ngx_rt_set(e->latest, NGX_RT_NONE);
    ngx_rt_set(e->oldest, NGX_RT_NONE);
    ngx_rt_set(e->name, NGX_RT_NONE);

    ngx_rt_entry_close(e);
}


/* from the latest back: seq falls with each step, so it ends */

static void
ngx_rt_recover_walk(ngx_rt_store_t *st, uint32_t i, ngx_rt_walk_t *walk)
{
    uint64_t             off, newer, seq;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec;

    e = &st->entries[i];

    ngx_memzero(walk, sizeof(ngx_rt_walk_t));

    walk->sound = 1;
    walk->linked = 1;

    newer = NGX_RT_NONE;
    seq = (uint64_t) -1;

    for (off = e->latest; off != NGX_RT_NONE; off = rec->prev) {

        if (!ngx_rt_recover_at(st, off, NGX_RT_MESSAGE, i)) {
            walk->sound = 0;
            return;
        }

        rec = ngx_rt_log_at(st, off);

        if (rec->seq >= seq) {
            walk->sound = 0;
            return;
        }

        if (rec->seq <= e->floor) {
            walk->linked = 0;
            return;
        }

        if (rec->next != newer) {
            walk->linked = 0;
        }

        walk->oldest = off;
        walk->words += rec->size / 8;
        walk->count++;

        newer = off;
        seq = rec->seq;
    }
}


/*
 * Writes the list and what the entry tells of it anew, under a fresh version:
 * what was told under an older one may not have been this.
 */

static void
ngx_rt_recover_relist(ngx_rt_store_t *st, uint32_t i, ngx_rt_walk_t *walk)
{
    uint32_t             n;
    uint64_t             off, newer, seq;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec;

    e = &st->entries[i];
    seq = st->sh->seq + 1;

    ngx_rt_entry_open(e);

    off = e->latest;
    newer = NGX_RT_NONE;

    for (n = 0; n < walk->count; n++) {
        rec = ngx_rt_log_at(st, off);

        if (n == 0) {
            ngx_rt_set(e->msg_seq, rec->seq);
            ngx_rt_entry_tag(e, rec->tag);
        }

        ngx_rt_set(rec->next, newer);
        ngx_rt_set(rec->flags, rec->flags | NGX_RT_LIVE);

        NGX_RT_FAULT("relist: one");

        newer = off;
        off = rec->prev;
    }

    if (walk->count) {
        rec = ngx_rt_log_at(st, walk->oldest);

        if (!walk->sound) {
            ngx_rt_set(e->floor, rec->seq - 1);
        }

        ngx_rt_set(rec->prev, NGX_RT_NONE);

    } else {
        ngx_rt_set(e->floor, seq);
        ngx_rt_set(e->latest, NGX_RT_NONE);
        ngx_rt_set(e->msg_seq, 0);
    }

    NGX_RT_FAULT("relist: ends");

    ngx_rt_set(e->oldest, walk->oldest);
    ngx_rt_set(e->count, walk->count);
    e->words = (uint32_t) walk->words;
    ngx_rt_set(e->version, seq);

    ngx_rt_entry_close(e);

    ngx_rt_store_done(st, seq);
}


static void
ngx_rt_recover_rebuild(ngx_rt_store_t *st)
{
    uint32_t            i;
    uint64_t            pinned, history, size;
    ngx_rt_zone_sh_t   *sh;
    ngx_rt_entry_sh_t  *e;

    sh = st->sh;

    for (i = 0; i < sh->nbuckets; i++) {
        ngx_rt_set(st->buckets[i], NGX_RT_NONE);
    }

    NGX_RT_FAULT("rebuild: buckets");

    sh->free = NGX_RT_NONE;
    ngx_rt_set(sh->feed.want, NGX_RT_NONE);
    ngx_rt_set(sh->channels, 0);

    pinned = 0;
    history = 0;

    for (i = sh->top - 1; i > 0; i--) {
        e = &st->entries[i];

        if (!(e->flags & NGX_RT_USED)) {
            ngx_rt_set(e->flags, 0);
            ngx_rt_table_free(st, i);
            continue;
        }

        ngx_rt_table_insert(st, i);
        ngx_rt_add(sh->channels, 1);

        pinned += ngx_rt_log_at(st, e->name)->size;

        if (e->latest != NGX_RT_NONE) {
            size = ngx_rt_log_at(st, e->latest)->size;
            pinned += size;
            history += (uint64_t) e->words * 8 - size;
        }

        if (e->flags & NGX_RT_QUEUED) {
            e->want = sh->feed.want;
            ngx_rt_set(sh->feed.want, i);
        }
    }

    ngx_rt_set(sh->pinned, pinned);
    ngx_rt_set(sh->history, history);

    NGX_RT_FAULT("rebuild: sums");
}


/*
 * The log doesn't lead on from its tail.  Everything is checked, and the tail
 * goes to the first record that a channel still leads to.
 */

ngx_int_t
ngx_rt_recover_skip(ngx_rt_store_t *st)
{
    uint32_t           i;
    uint64_t           least;
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;

    ngx_rt_recover(st);

    least = sh->head;

    for (i = 1; i < sh->top; i++) {

        if (st->entries[i].flags & NGX_RT_USED) {
            least = ngx_rt_recover_least(st, i, least);
        }
    }

    ngx_rt_set(sh->tail, least);

    return NGX_OK;
}


static uint64_t
ngx_rt_recover_least(ngx_rt_store_t *st, uint32_t i, uint64_t least)
{
    uint32_t            n;
    uint64_t            off;
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[i];
    least = ngx_min(least, e->name);
    off = e->latest;

    for (n = 0; n < e->count; n++) {
        least = ngx_min(least, off);
        off = ngx_rt_log_at(st, off)->prev;
    }

    return least;
}
