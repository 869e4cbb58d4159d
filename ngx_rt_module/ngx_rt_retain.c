
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What is promised, and how it is kept or given up.
 *
 * Promised are, of each channel in the table, its NAME record, its latest
 * message (both "pinned") and older messages ("history").  When the tail
 * comes to such a record it is carried forward, copied to the head, or given
 * up: history is carried only while all together is under half of the log.
 *
 * Why there is always room.  Let N be the log, m = N/8 the largest record.
 *
 *   - Pinned is at most P = 5m - 1024, the record to come included: channels
 *     are evicted before a record is pinned (ngx_rt_retain_budget).
 *   - Between changes at least 2m is free: room is made for a record and 2m.
 *   - While room is being made the head moves by what is carried, under 6m,
 *     and one pad, so it crosses the end of the ring once at most.  Carrying
 *     a record frees as much as it takes, but for that pad, under m: at least
 *     m stays free, enough for any record.  At the crossing itself record and
 *     pad are under 2m.
 *   - Once the tail has passed all there was, in use is what is promised, at
 *     most max(P, N/2 = 4m) less the record to come, and one pad.  With that
 *     record and 2m this is under 5m - 1024 + m + 2m < N: room is found.
 *   - The 1024 bytes are for the notes (EVICT, CONFIRM, DROP), which are not
 *     promised.
 *
 * Lists.  The messages of a channel hang together by prev and next, entry's
 * oldest and latest are the ends; without holes: giving up one gives up all
 * that are older.  All of it is changed only while the entry is open (odd),
 * in an order in which a walk from latest by prev meets whole records that
 * belong to the list, at every moment; so the next writer can finish what a
 * killed one began (ngx_rt_recover.c).
 */


#include <ngx_rt_store.h>


#define NGX_RT_RETAIN_SAMPLE      16        /* candidates for an eviction */
#define NGX_RT_RETAIN_LOOK        1024      /* entries, to find as many */

#define NGX_RT_DEAD               0
#define NGX_RT_PINNED             1
#define NGX_RT_HISTORY            2


static ngx_uint_t ngx_rt_retain_role(ngx_rt_store_t *st, uint64_t off,
    ngx_rt_record_sh_t *rec);
static ngx_int_t ngx_rt_retain_carry(ngx_rt_store_t *st, uint64_t off,
    ngx_rt_record_sh_t *rec);
static void ngx_rt_retain_stuck(ngx_rt_store_t *st, uint64_t off,
    ngx_rt_record_sh_t *rec);
static void ngx_rt_retain_give_up(ngx_rt_store_t *st, uint64_t off,
    ngx_rt_record_sh_t *rec);
static ngx_uint_t ngx_rt_retain_drop(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e,
    uint64_t upto);
static ngx_uint_t ngx_rt_retain_cut(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e);
static void ngx_rt_retain_limit(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e,
    uint32_t now);
static ngx_uint_t ngx_rt_retain_older(ngx_rt_entry_sh_t *e,
    ngx_rt_entry_sh_t *than);
static void ngx_rt_retain_uncount(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e);
static void ngx_rt_retain_note(ngx_rt_store_t *st, uint32_t i,
    ngx_rt_record_sh_t *rec, ngx_str_t *name, u_char *buf);
static void ngx_rt_retain_remove(ngx_rt_store_t *st, uint32_t i);
static void ngx_rt_retain_sub(uint64_t *sum, uint64_t n);


ngx_int_t
ngx_rt_retain_pass(ngx_rt_store_t *st, size_t size)
{
    uint32_t             n;
    uint64_t             off;
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_record_sh_t  *rec;

    sh = st->sh;
    off = sh->tail;

    n = ngx_rt_log_check(st, off, sh->head);

    if (n == 0) {
        return ngx_rt_recover_skip(st);
    }

    rec = ngx_rt_log_at(st, off);

    switch (ngx_rt_retain_role(st, off, rec)) {

    case NGX_RT_HISTORY:

        if (sh->pinned + sh->history + size > ngx_rt_retain_all(sh)) {
            ngx_rt_retain_give_up(st, off, rec);
            break;
        }

        /* fall through */

    case NGX_RT_PINNED:

        if (ngx_rt_retain_carry(st, off, rec) != NGX_OK) {
            ngx_rt_retain_stuck(st, off, rec);
        }

        break;

    default: /* NGX_RT_DEAD */
        break;
    }

    ngx_rt_set(sh->tail, off + n);

    NGX_RT_FAULT("pass: tail");

    return NGX_OK;
}


/*
 * A record is promised if its channel still leads to it.  The copy left
 * behind when a record is carried has lost LIVE; where a crash kept it from
 * that, the next newer message or the entry leads to the other copy.
 */

static ngx_uint_t
ngx_rt_retain_role(ngx_rt_store_t *st, uint64_t off, ngx_rt_record_sh_t *rec)
{
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *next;

    sh = st->sh;

    if (rec->type == NGX_RT_PAD || !(rec->flags & NGX_RT_LIVE)
        || rec->entry == NGX_RT_NONE || rec->entry >= sh->top)
    {
        return NGX_RT_DEAD;
    }

    e = &st->entries[rec->entry];

    if (!(e->flags & NGX_RT_USED) || e->gen != rec->gen) {
        return NGX_RT_DEAD;
    }

    if (rec->type == NGX_RT_NAME) {
        return (e->name == off) ? NGX_RT_PINNED : NGX_RT_DEAD;
    }

    if (rec->type != NGX_RT_MESSAGE || rec->seq <= e->floor) {
        return NGX_RT_DEAD;
    }

    if (e->latest == off) {
        return NGX_RT_PINNED;
    }

    if (rec->next < sh->tail
        || ngx_rt_log_check(st, rec->next, sh->head)
           < sizeof(ngx_rt_record_sh_t))
    {
        return NGX_RT_DEAD;
    }

    next = ngx_rt_log_at(st, rec->next);

    return (next->prev == off && next->entry == rec->entry) ? NGX_RT_HISTORY
                                                            : NGX_RT_DEAD;
}


/*
 * Killed before commit: nothing has happened.  Killed after it: the copy is
 * the last record and its source still the one at the tail, by which the
 * next writer knows to go on from here.
 */

static ngx_int_t
ngx_rt_retain_carry(ngx_rt_store_t *st, uint64_t off, ngx_rt_record_sh_t *rec)
{
    uint64_t             to;
    ngx_rt_record_sh_t  *copy;

    copy = ngx_rt_log_append(st, rec->size, &to);

    if (copy == NULL) {
        return NGX_ERROR;
    }

    ngx_rt_log_copy(copy, rec);

    ngx_rt_set(copy->flags, NGX_RT_LIVE|NGX_RT_COPY
                            |(rec->flags & NGX_RT_AFTER));

    ngx_rt_log_commit(st, to + rec->size);

    ngx_rt_retain_relink(st, off, to);

    return NGX_OK;
}


void
ngx_rt_retain_relink(ngx_rt_store_t *st, uint64_t off, uint64_t copy)
{
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec;

    rec = ngx_rt_log_at(st, copy);
    e = &st->entries[rec->entry];

    ngx_rt_entry_open(e);

    if (rec->type == NGX_RT_NAME) {
        ngx_rt_set(e->name, copy);

    } else {

        if (rec->next == NGX_RT_NONE) {
            ngx_rt_set(e->latest, copy);

        } else {
            ngx_rt_set(ngx_rt_log_at(st, rec->next)->prev, copy);
        }

        NGX_RT_FAULT("relink: newer");

        if (rec->prev == NGX_RT_NONE) {
            ngx_rt_set(e->oldest, copy);

        } else {
            ngx_rt_set(ngx_rt_log_at(st, rec->prev)->next, copy);
        }
    }

    NGX_RT_FAULT("relink: older");

    rec = ngx_rt_log_at(st, off);
    ngx_rt_set(rec->flags, rec->flags & ~NGX_RT_LIVE);

    ngx_rt_entry_close(e);
}


/*
 * There is no room to carry: the sums were wrong, that is, memory was
 * damaged.  Better to lose a channel than to stand still.
 */

static void
ngx_rt_retain_stuck(ngx_rt_store_t *st, uint64_t off, ngx_rt_record_sh_t *rec)
{
    void                *dst;
    u_char               buf[NGX_RT_CHANNEL_MAX];
    uint64_t             to;
    ngx_str_t            name, none;
    ngx_rt_record_sh_t   note;

    NGX_RT_FAULT("stuck");

    if (rec->type == NGX_RT_MESSAGE && st->entries[rec->entry].latest != off) {
        ngx_rt_retain_give_up(st, off, rec);
        return;
    }

    ngx_str_null(&none);

    ngx_rt_retain_note(st, rec->entry, &note, &name, buf);
    ngx_rt_retain_remove(st, rec->entry);

    ngx_rt_set(st->sh->tail, off + rec->size);

    dst = ngx_rt_log_append(st, note.size, &to);

    if (dst) {
        ngx_rt_log_write(dst, &note, &none, &name);
        ngx_rt_log_commit(st, to + note.size);
    }

    ngx_rt_store_done(st, note.seq);

    ngx_rt_add(st->sh->evicted, 1);
}


static void
ngx_rt_retain_give_up(ngx_rt_store_t *st, uint64_t off,
    ngx_rt_record_sh_t *rec)
{
    ngx_uint_t          n;
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[rec->entry];

    ngx_rt_entry_open(e);
    n = ngx_rt_retain_drop(st, e, off);
    ngx_rt_entry_close(e);

    ngx_rt_add(st->sh->trimmed, n);
}


/*
 * Drops the oldest messages up to the one at upto, which is not the latest;
 * how many.  The entry is open.  floor goes first: a walk from latest that
 * comes to a message not above it has come to the end of the list.
 */

static ngx_uint_t
ngx_rt_retain_drop(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e, uint64_t upto)
{
    uint64_t             off;
    ngx_uint_t           n;
    ngx_rt_record_sh_t  *rec;

    ngx_rt_set(e->floor, ngx_rt_log_at(st, upto)->seq);

    NGX_RT_FAULT("drop: floor");

    for (n = 1; /* void */ ; n++) {
        off = e->oldest;

        if (e->count <= 1 || off == e->latest
            || ngx_rt_log_check(st, off, st->sh->head)
               < sizeof(ngx_rt_record_sh_t))
        {
            return ngx_rt_retain_cut(st, e);
        }

        rec = ngx_rt_log_at(st, off);

        ngx_rt_set(rec->flags, rec->flags & ~NGX_RT_LIVE);

        ngx_rt_retain_sub(&st->sh->history, rec->size);
        e->words -= rec->size / 8;
        ngx_rt_set(e->count, e->count - 1);
        ngx_rt_set(e->oldest, rec->next);

        NGX_RT_FAULT("drop: one");

        if (off == upto) {
            break;
        }
    }

    ngx_rt_set(ngx_rt_log_at(st, e->oldest)->prev, NGX_RT_NONE);

    return n;
}


/* the list does not hang together, memory was damaged: the latest is kept */

static ngx_uint_t
ngx_rt_retain_cut(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e)
{
    ngx_uint_t           n;
    ngx_rt_record_sh_t  *rec;

    rec = ngx_rt_log_at(st, e->latest);
    n = e->count;

    ngx_rt_set(rec->prev, NGX_RT_NONE);
    ngx_rt_set(e->floor, rec->seq - 1);
    ngx_rt_set(e->oldest, e->latest);
    ngx_rt_set(e->count, 1);
    e->words = rec->size / 8;

    return n;
}


void
ngx_rt_retain_link(ngx_rt_store_t *st, uint64_t off)
{
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec, *old;

    sh = st->sh;
    rec = ngx_rt_log_at(st, off);
    e = &st->entries[rec->entry];

    ngx_rt_entry_open(e);

    if (e->latest != NGX_RT_NONE) {
        old = ngx_rt_log_at(st, e->latest);

        ngx_rt_set(old->next, off);

        ngx_rt_retain_sub(&sh->pinned, old->size);
        ngx_rt_add(sh->history, old->size);

    } else {
        ngx_rt_set(e->oldest, off);
    }

    NGX_RT_FAULT("link: older");

    ngx_rt_set(e->latest, off);

    NGX_RT_FAULT("link: latest");

    ngx_rt_set(e->msg_seq, rec->seq);
    ngx_rt_set(e->version, rec->seq);
    ngx_rt_entry_tag(e, rec->tag);
    ngx_rt_set(e->count, e->count + 1);
    e->words += rec->size / 8;

    ngx_rt_add(sh->pinned, rec->size);

    ngx_rt_retain_limit(st, e, rec->time);

    ngx_rt_entry_close(e);
}


/* what the configuration lets no channel keep is no loss to be counted */

static void
ngx_rt_retain_limit(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e, uint32_t now)
{
    int32_t              age;
    uint32_t             n, excess;
    uint64_t             off, upto;
    ngx_rt_record_sh_t  *rec;

    excess = 0;

    if (e->count > st->history) {
        excess = e->count - (uint32_t) st->history;
    }

    upto = NGX_RT_NONE;
    off = e->oldest;

    for (n = 1; n < e->count && off != e->latest; n++) {
        rec = ngx_rt_log_at(st, off);

        if (excess) {
            excess--;

        } else {
            age = (int32_t) (now - rec->time);

            if (st->history_time == 0 || age <= 0
                || (uint32_t) age <= st->history_time)
            {
                break;
            }
        }

        upto = off;
        off = rec->next;
    }

    if (upto != NGX_RT_NONE) {
        (void) ngx_rt_retain_drop(st, e, upto);
    }
}


void
ngx_rt_retain_clear(ngx_rt_store_t *st, uint32_t i, uint64_t seq,
    const u_char *tag)
{
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[i];

    ngx_rt_entry_open(e);

    ngx_rt_set(e->floor, seq);

    NGX_RT_FAULT("clear: floor");

    ngx_rt_retain_uncount(st, e);

    ngx_rt_set(e->latest, NGX_RT_NONE);
    ngx_rt_set(e->oldest, NGX_RT_NONE);
    ngx_rt_set(e->msg_seq, 0);
    ngx_rt_set(e->count, 0);
    e->words = 0;
    ngx_rt_set(e->version, seq);

    if (tag) {
        ngx_rt_entry_tag(e, tag);
    }

    ngx_rt_entry_close(e);
}


/* takes the messages of a channel out of the sums */

static void
ngx_rt_retain_uncount(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e)
{
    uint64_t  size, all;

    if (e->latest == NGX_RT_NONE) {
        return;
    }

    size = ngx_rt_log_at(st, e->latest)->size;
    all = (uint64_t) e->words * 8;

    ngx_rt_retain_sub(&st->sh->pinned, size);
    ngx_rt_retain_sub(&st->sh->history, (all > size) ? all - size : 0);
}


ngx_int_t
ngx_rt_retain_budget(ngx_rt_store_t *st, size_t size, uint32_t keep)
{
    while (st->sh->pinned + size > ngx_rt_retain_pinned(st->sh)) {

        if (ngx_rt_retain_evict(st, keep) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * The channel unused longest is not looked for in all the table, but among
 * some in a row; each eviction goes on where the last one ended.  Those that
 * have streams are taken only where nothing else is found.
 */

ngx_int_t
ngx_rt_retain_evict(ngx_rt_store_t *st, uint32_t keep)
{
    uint32_t            i, n, seen, best, watched, *p;
    ngx_rt_zone_sh_t   *sh;
    ngx_rt_entry_sh_t  *e;

    sh = st->sh;
    i = sh->hand;
    best = NGX_RT_NONE;
    watched = NGX_RT_NONE;
    seen = 0;

    for (n = 1; n < sh->top && n <= NGX_RT_RETAIN_LOOK; n++) {

        if (seen == NGX_RT_RETAIN_SAMPLE) {
            break;
        }

        if (++i >= sh->top) {
            i = 1;
        }

        e = &st->entries[i];

        if (!(e->flags & NGX_RT_USED) || i == keep) {
            continue;
        }

        if (ngx_rt_viewers_get(st, i)) {
            p = &watched;

        } else {
            p = &best;
            seen++;
        }

        if (*p == NGX_RT_NONE || ngx_rt_retain_older(e, &st->entries[*p])) {
            *p = i;
        }
    }

    sh->hand = i;

    if (best == NGX_RT_NONE) {
        best = watched;
    }

    if (best == NGX_RT_NONE) {
        return NGX_DECLINED;
    }

    ngx_rt_retain_forget(st, best);

    ngx_rt_add(sh->evicted, 1);

    return NGX_OK;
}


/* thousands of channels may have been used in one second: of these the one
 * that has not changed longest */

static ngx_uint_t
ngx_rt_retain_older(ngx_rt_entry_sh_t *e, ngx_rt_entry_sh_t *than)
{
    uint32_t  used, least;

    used = ngx_rt_get(e->used);
    least = ngx_rt_get(than->used);

    if (used != least) {
        return (int32_t) (used - least) < 0;
    }

    return e->version < than->version;
}


/*
 * The record goes first: killed after it, the channel is still there, and a
 * worker that was told of its end finds it again, and nothing lost.
 */

void
ngx_rt_retain_forget(ngx_rt_store_t *st, uint32_t i)
{
    u_char               buf[NGX_RT_CHANNEL_MAX];
    uint64_t             off;
    ngx_str_t            name;
    ngx_rt_record_sh_t   rec;

    ngx_rt_retain_note(st, i, &rec, &name, buf);

    (void) ngx_rt_log_note(st, &rec, &name, &off);

    if (st->entries[i].gen == rec.gen) {
        ngx_rt_retain_remove(st, i);
    }

    ngx_rt_store_done(st, rec.seq);
}


/* an EVICT record; the name is copied to buf, because the record that it is
 * in may be moved and overwritten when room is made */

static void
ngx_rt_retain_note(ngx_rt_store_t *st, uint32_t i, ngx_rt_record_sh_t *rec,
    ngx_str_t *name, u_char *buf)
{
    name->data = buf;
    name->len = ngx_rt_retain_name_copy(st, i, buf);

    ngx_memzero(rec, sizeof(ngx_rt_record_sh_t));

    rec->size = (uint32_t) ngx_rt_log_size(name->len);
    rec->type = NGX_RT_EVICT;
    rec->entry = i;
    rec->gen = st->entries[i].gen;
    rec->seq = st->sh->seq + 1;
    rec->data_len = (uint32_t) name->len;
}


void
ngx_rt_retain_name(ngx_rt_store_t *st, uint32_t i, ngx_str_t *name)
{
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec;

    e = &st->entries[i];

    name->len = 0;
    name->data = (u_char *) "";

    if (ngx_rt_log_check(st, e->name, st->sh->head)
        < sizeof(ngx_rt_record_sh_t))
    {
        return;
    }

    rec = ngx_rt_log_at(st, e->name);

    if (rec->type != NGX_RT_NAME || rec->entry != i || rec->gen != e->gen
        || rec->event_len != 0 || rec->data_len > NGX_RT_CHANNEL_MAX)
    {
        return;
    }

    name->len = rec->data_len;
    name->data = (u_char *) rec + sizeof(ngx_rt_record_sh_t);
}


size_t
ngx_rt_retain_name_copy(ngx_rt_store_t *st, uint32_t i, u_char *buf)
{
    ngx_str_t  name;

    ngx_rt_retain_name(st, i, &name);

    ngx_memcpy(buf, name.data, name.len);

    return name.len;
}


/*
 * gen goes first: from then on no record of the log and nobody's view is of
 * this entry, and the next writer finds no name of it and frees it.
 */

static void
ngx_rt_retain_remove(ngx_rt_store_t *st, uint32_t i)
{
    ngx_rt_zone_sh_t   *sh;
    ngx_rt_entry_sh_t  *e;

    sh = st->sh;
    e = &st->entries[i];

    ngx_rt_set(sh->forgotten, sh->seq + 1);

    ngx_rt_retain_uncount(st, e);

    if (ngx_rt_log_check(st, e->name, sh->head)) {
        ngx_rt_retain_sub(&sh->pinned, ngx_rt_log_at(st, e->name)->size);
    }

    ngx_rt_table_unlink(st, i);

    NGX_RT_FAULT("remove: unlinked");

    ngx_rt_entry_open(e);

    ngx_rt_set(e->gen, e->gen + 1);

    NGX_RT_FAULT("remove: gen");

    ngx_rt_set(e->flags, e->flags & NGX_RT_QUEUED);
    ngx_rt_set(e->latest, NGX_RT_NONE);
    ngx_rt_set(e->oldest, NGX_RT_NONE);
    ngx_rt_set(e->name, NGX_RT_NONE);

    ngx_rt_entry_close(e);

    ngx_rt_table_free(st, i);

    ngx_rt_set(sh->channels, sh->channels - 1);
}


/* a sum that would fall below zero was wrong; the next repair counts anew */

static void
ngx_rt_retain_sub(uint64_t *sum, uint64_t n)
{
    ngx_rt_set(*sum, (*sum > n) ? *sum - n : 0);
}
