
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The zone, and all that changes its channels.
 *
 * A change is made under the mutex, with `writing` set in the head, in this
 * order: room is made, the record is written and committed, the entry is
 * opened, changed and closed, and seq is stored.  So a reader that has seen
 * seq finds all that it numbers, and one that finds more has found something
 * newer.  What a writer killed in between leaves is repaired by the next one
 * when it takes the lock (ngx_rt_recover.c).
 */


#include <ngx_rt_store.h>


#define NGX_RT_MAGIC              0x6e67785f7274ULL     /* "ngx_rt" */
#define NGX_RT_LAYOUT             6

#define NGX_RT_LOG_LEAST          (16 * 1024)
#define NGX_RT_ENTRIES_LEAST      16
#define NGX_RT_MESSAGE_LEAST      (16 * 1024)


typedef struct {
    size_t                        slots;    /* offsets */
    size_t                        buckets;
    size_t                        entries;
    size_t                        rates;
    size_t                        log;
} ngx_rt_layout_t;


static size_t ngx_rt_store_layout(ngx_rt_zone_sh_t *sh, ngx_rt_layout_t *lt);
static void ngx_rt_store_point(ngx_rt_store_t *st, void *mem,
    ngx_rt_layout_t *lt);
static void ngx_rt_store_fill(ngx_rt_store_t *st, uint32_t i,
    const ngx_rt_key_t *key, uint64_t name, uint64_t seq, time_t now);
static void ngx_rt_store_place(ngx_rt_store_t *st, uint32_t i,
    const u_char *tag, ngx_uint_t flags);


/*
 * Three quarters of what is left beside head and slots are the log, and a
 * record takes an eighth of that at most.
 */

size_t
ngx_rt_store_min_size(ngx_uint_t nslots, size_t message_max)
{
    size_t             log;
    ngx_rt_zone_sh_t   sh;
    ngx_rt_layout_t    lt;

    message_max = ngx_max(message_max, NGX_RT_MESSAGE_LEAST);

    log = 8 * (ngx_rt_log_size(NGX_RT_EVENT_MAX + message_max) + 8);

    ngx_memzero(&sh, sizeof(ngx_rt_zone_sh_t));
    sh.nslots = (uint32_t) nslots;

    return ngx_rt_store_layout(&sh, &lt) + log / 3 * 4 + 1024;
}


ngx_int_t
ngx_rt_store_create(ngx_rt_store_t *st, void *mem, size_t size,
    ngx_uint_t nslots, const u_char random[32])
{
    size_t             rest, used, n, buckets;
    uint32_t           i;
    ngx_rt_zone_sh_t  *sh, head;
    ngx_rt_layout_t    lt;

    ngx_memzero(&head, sizeof(ngx_rt_zone_sh_t));

    head.nslots = (uint32_t) nslots;

    used = ngx_rt_store_layout(&head, &lt);

    if (size < used) {
        return NGX_ERROR;
    }

    /* as many entries as a quarter of the rest holds with their buckets */

    rest = (size - used) / 4;

    for (buckets = NGX_RT_ENTRIES_LEAST;
         buckets < 0x40000000 && buckets * sizeof(uint32_t) < rest;
         buckets *= 2)
    {
        n = (rest - buckets * sizeof(uint32_t))
            / (sizeof(ngx_rt_entry_sh_t) + sizeof(ngx_rt_rate_sh_t));
        n = ngx_min(n, buckets);

        if (n > head.nentries) {
            head.nentries = (uint32_t) n;
            head.nbuckets = (uint32_t) buckets;
        }
    }

    used = ngx_rt_store_layout(&head, &lt);

    if (head.nentries < NGX_RT_ENTRIES_LEAST
        || size < used + NGX_RT_LOG_LEAST)
    {
        return NGX_ERROR;
    }

    head.layout = NGX_RT_LAYOUT;
    head.size = size;
    head.log_size = (size - used) & ~(size_t) 7;

    ngx_memcpy(head.key, random, sizeof(head.key));
    ngx_memcpy(&head.epoch, random + sizeof(head.key), sizeof(head.epoch));
    head.epoch &= 0xffffffffffffULL;

    head.top = 1;
    head.head = head.log_size;      /* no record is at offset 0 */
    head.limit = head.head;
    head.tail = head.head;

    head.feed.session = 1;
    head.feed.state = st->embedded ? NGX_RT_FEED_EMBEDDED
                                   : NGX_RT_FEED_CONNECTING;

    sh = mem;
    *sh = head;

    ngx_rt_store_point(st, mem, &lt);

    ngx_memzero(st->slots, nslots * sizeof(ngx_rt_slot_sh_t));

    for (i = 0; i < head.nbuckets; i++) {
        st->buckets[i] = NGX_RT_NONE;
    }

    __atomic_store_n(&sh->magic, NGX_RT_MAGIC, __ATOMIC_RELEASE);

    return NGX_OK;
}


ngx_int_t
ngx_rt_store_attach(ngx_rt_store_t *st, void *mem, size_t size)
{
    ngx_rt_zone_sh_t  *sh;
    ngx_rt_layout_t    lt;

    sh = mem;

    if (size < sizeof(ngx_rt_zone_sh_t)
        || __atomic_load_n(&sh->magic, __ATOMIC_ACQUIRE) != NGX_RT_MAGIC
        || sh->layout != NGX_RT_LAYOUT
        || sh->size != size
        || sh->nentries > size / sizeof(ngx_rt_entry_sh_t)
        || sh->nbuckets == 0
        || (sh->nbuckets & (sh->nbuckets - 1))
        || sh->log_size < NGX_RT_LOG_LEAST
        || sh->log_size > size
        || ngx_rt_store_layout(sh, &lt) + sh->log_size > size)
    {
        return NGX_DECLINED;
    }

    ngx_rt_store_point(st, mem, &lt);

    return NGX_OK;
}


/*
 * Where the parts are, by the counts in sh; returns the bytes of all but the
 * log.  A header's size is kept free behind the log, so that reading one at
 * any offset at all stays within the zone.
 */

static size_t
ngx_rt_store_layout(ngx_rt_zone_sh_t *sh, ngx_rt_layout_t *lt)
{
    lt->slots = ngx_align(sizeof(ngx_rt_zone_sh_t), 128);

    lt->entries = lt->slots + (size_t) sh->nslots * sizeof(ngx_rt_slot_sh_t);
    lt->entries = ngx_align(lt->entries, 128);

    lt->buckets = lt->entries
                  + (size_t) sh->nentries * sizeof(ngx_rt_entry_sh_t);

    lt->rates = lt->buckets + (size_t) sh->nbuckets * sizeof(uint32_t);
    lt->rates = ngx_align(lt->rates, 64);

    lt->log = lt->rates + (size_t) sh->nentries * sizeof(ngx_rt_rate_sh_t);

    return lt->log + sizeof(ngx_rt_record_sh_t);
}


static void
ngx_rt_store_point(ngx_rt_store_t *st, void *mem, ngx_rt_layout_t *lt)
{
    u_char  *p;

    p = mem;

    st->sh = mem;
    st->turn = 0;
    st->scout = 0;
    st->slots = (ngx_rt_slot_sh_t *) (p + lt->slots);
    st->buckets = (uint32_t *) (p + lt->buckets);
    st->entries = (ngx_rt_entry_sh_t *) (p + lt->entries);
    st->rates = (ngx_rt_rate_sh_t *) (p + lt->rates);
    st->log = p + lt->log;
}


void
ngx_rt_store_lock(ngx_rt_store_t *st)
{
    ngx_shmtx_lock(st->mutex);

    if (ngx_rt_get(st->sh->writing)) {
        ngx_rt_recover(st);
        ngx_rt_set(st->sh->writing, 0);
    }
}


void
ngx_rt_store_unlock(ngx_rt_store_t *st)
{
    if (ngx_rt_get(st->sh->writing)) {
        __atomic_store_n(&st->sh->writing, 0, __ATOMIC_RELEASE);
    }

    ngx_shmtx_unlock(st->mutex);
}


void
ngx_rt_store_begin(ngx_rt_store_t *st)
{
    ngx_rt_set(st->sh->writing, 1);

    __atomic_thread_fence(__ATOMIC_RELEASE);
}


ngx_int_t
ngx_rt_store_term(ngx_rt_store_t *st, uint64_t term)
{
    ngx_rt_feed_sh_t  *feed;

    if (st->embedded) {
        return NGX_OK;
    }

    feed = &st->sh->feed;

    return (feed->pid != 0 && feed->term == term) ? NGX_OK : NGX_ABORT;
}


ngx_int_t
ngx_rt_store_named(ngx_rt_store_t *st, uint64_t term, const ngx_str_t *name,
    uint32_t *entry)
{
    ngx_rt_key_t  key;

    ngx_rt_table_key(st, name, &key);

    ngx_rt_store_lock(st);

    if (ngx_rt_store_term(st, term) != NGX_OK) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    *entry = ngx_rt_table_find(st, &key);

    if (*entry == NGX_RT_NONE) {
        ngx_rt_store_unlock(st);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_store_touch(ngx_rt_store_t *st, const ngx_str_t *name, time_t now,
    ngx_rt_view_t *view, ngx_uint_t *queued)
{
    uint32_t            i;
    ngx_rt_key_t        key;
    ngx_rt_entry_sh_t  *e;

    *queued = 0;

    if (name->len == 0 || name->len > NGX_RT_CHANNEL_MAX) {
        return NGX_DECLINED;
    }

    ngx_rt_table_key(st, name, &key);

    ngx_rt_store_lock(st);
    ngx_rt_store_begin(st);

    i = ngx_rt_table_find(st, &key);

    if (i == NGX_RT_NONE) {
        i = ngx_rt_store_make(st, &key, name, now);

        if (i == NGX_RT_NONE) {
            ngx_rt_store_unlock(st);
            return NGX_DECLINED;
        }
    }

    e = &st->entries[i];

    ngx_rt_set(e->used, (uint32_t) now);

    if (st->embedded) {
        ngx_rt_store_trust(st, i);

    } else if (!(e->flags & NGX_RT_WANTED)) {
        ngx_rt_table_want(st, i);
        *queued = 1;
    }

    /* after the queue: a flag without a place in it would never be served */

    ngx_rt_set(e->flags, e->flags | NGX_RT_WANTED);

    ngx_rt_table_copy(st, i, view);

    ngx_rt_store_unlock(st);

    return NGX_OK;
}


/*
 * A new channel.  Killed before the entry is closed: an odd entry without a
 * place in a bucket, which the next writer frees or, when it is whole, keeps.
 */

uint32_t
ngx_rt_store_make(ngx_rt_store_t *st, const ngx_rt_key_t *key,
    const ngx_str_t *name, time_t now)
{
    uint32_t             i;
    uint64_t             off, repaired;
    ngx_rt_record_sh_t   rec;

    if (ngx_rt_retain_budget(st, ngx_rt_log_size(name->len), NGX_RT_NONE)
        != NGX_OK)
    {
        return NGX_RT_NONE;
    }

    i = ngx_rt_table_alloc(st);

    if (i == NGX_RT_NONE) {

        if (ngx_rt_retain_evict(st, NGX_RT_NONE) != NGX_OK) {
            return NGX_RT_NONE;
        }

        i = ngx_rt_table_alloc(st);

        if (i == NGX_RT_NONE) {
            return NGX_RT_NONE;
        }
    }

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));

    rec.type = NGX_RT_NAME;
    rec.flags = NGX_RT_LIVE;
    rec.entry = i;
    rec.gen = st->entries[i].gen;

    repaired = st->sh->repaired;

    if (ngx_rt_log_note(st, &rec, name, &off) != NGX_OK) {
        ngx_rt_table_free(st, i);
        return NGX_RT_NONE;
    }

    if (st->sh->repaired != repaired) {
        /* memory was damaged, and the entry is in the free list again */
        return NGX_RT_NONE;
    }

    ngx_rt_store_fill(st, i, key, off, rec.seq, now);

    ngx_rt_add(st->sh->pinned, rec.size);
    ngx_rt_add(st->sh->channels, 1);

    ngx_rt_table_insert(st, i);

    NGX_RT_FAULT("make: inserted");

    ngx_rt_store_done(st, rec.seq);

    return i;
}


static void
ngx_rt_store_fill(ngx_rt_store_t *st, uint32_t i, const ngx_rt_key_t *key,
    uint64_t name, uint64_t seq, time_t now)
{
    ngx_rt_entry_sh_t  *e;

    static const u_char  none[NGX_RT_TAG_LEN];

    e = &st->entries[i];

    ngx_rt_entry_open(e);

    ngx_rt_set(e->key.h[0], key->h[0]);
    ngx_rt_set(e->key.h[1], key->h[1]);
    ngx_rt_set(e->version, seq);
    ngx_rt_set(e->floor, seq);
    ngx_rt_set(e->session, 0);
    ngx_rt_set(e->confirm_seq, 0);
    ngx_rt_set(e->msg_seq, 0);
    ngx_rt_set(e->latest, NGX_RT_NONE);
    ngx_rt_set(e->oldest, NGX_RT_NONE);
    ngx_rt_set(e->name, name);
    ngx_rt_set(e->count, 0);
    ngx_rt_set(e->used, (uint32_t) now);
    ngx_rt_set(e->viewers, 0);
    e->words = 0;

    ngx_rt_entry_tag(e, none);

    /* all messages of an embedded hub pass through this zone: what a new
     * channel may have lost, it lost when it was last forgotten */

    if (st->embedded) {
        ngx_rt_set(e->session, st->sh->feed.session);
        ngx_rt_set(e->floor, st->sh->forgotten);
    }

    ngx_rt_rate_reset(st, i, (uint64_t) now * 1000);

    NGX_RT_FAULT("fill: flags");

    ngx_rt_set(e->flags, (e->flags & NGX_RT_QUEUED) | NGX_RT_USED);

    ngx_rt_entry_close(e);
}


/*
 * Nobody confirms the channels of an embedded hub.  One that is not of this
 * session comes from a time when the hub had a feed.
 */

void
ngx_rt_store_trust(ngx_rt_store_t *st, uint32_t i)
{
    uint64_t            seq;
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[i];

    if (e->session == st->sh->feed.session) {
        return;
    }

    seq = st->sh->seq + 1;

    ngx_rt_entry_open(e);
    ngx_rt_set(e->version, seq);
    ngx_rt_set(e->confirm_seq, seq);
    ngx_rt_set(e->session, st->sh->feed.session);
    ngx_rt_entry_close(e);

    ngx_rt_store_done(st, seq);
}


ngx_int_t
ngx_rt_store_confirm(ngx_rt_store_t *st, uint64_t term, const ngx_str_t *name)
{
    uint32_t             i;
    uint64_t             off;
    ngx_int_t            rc;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t   rec;

    rc = ngx_rt_store_named(st, term, name, &i);

    if (rc != NGX_OK) {
        return rc;
    }

    e = &st->entries[i];

    if (e->session == st->sh->feed.session) {
        ngx_rt_store_unlock(st);
        return NGX_OK;
    }

    ngx_rt_store_begin(st);

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));

    rec.type = NGX_RT_CONFIRM;
    rec.flags = e->session ? NGX_RT_BROKEN : 0;
    rec.entry = i;
    rec.gen = e->gen;

    (void) ngx_rt_log_note(st, &rec, NULL, &off);

    if (e->gen == rec.gen) {

        ngx_rt_entry_open(e);

        ngx_rt_set(e->version, rec.seq);
        ngx_rt_set(e->confirm_seq, rec.seq);

        if (e->latest == NGX_RT_NONE) {
            ngx_rt_set(e->floor, rec.seq);
        }

        ngx_rt_set(e->session, st->sh->feed.session);
        ngx_rt_set(e->flags, (e->flags & ~(NGX_RT_OWED|NGX_RT_SURE))
                             | (st->snapshot ? NGX_RT_OWED : 0));

        ngx_rt_entry_close(e);
    }

    if (rec.flags) {
        ngx_rt_add(st->sh->feed.gaps, 1);
    }

    ngx_rt_store_done(st, rec.seq);

    ngx_rt_store_unlock(st);

    return NGX_OK;
}


ngx_int_t
ngx_rt_store_follow(ngx_rt_store_t *st, uint64_t term, const ngx_str_t *name,
    const u_char tag[NGX_RT_TAG_LEN], ngx_uint_t broken)
{
    uint32_t            i;
    ngx_int_t           rc;
    ngx_rt_entry_sh_t  *e;

    rc = ngx_rt_store_named(st, term, name, &i);

    if (rc != NGX_OK) {
        return rc;
    }

    e = &st->entries[i];

    ngx_rt_store_begin(st);

    if (e->session == 0) {
        ngx_rt_store_place(st, i, tag, 0);

    } else if (broken) {
        ngx_rt_store_place(st, i, tag, NGX_RT_BROKEN);

    } else {
        ngx_rt_set(e->session, st->sh->feed.session);
    }

    ngx_rt_store_unlock(st);

    return NGX_OK;
}


/* killed on the way: the CONFIRM record has all that is to be done */

static void
ngx_rt_store_place(ngx_rt_store_t *st, uint32_t i, const u_char *tag,
    ngx_uint_t flags)
{
    uint64_t             off;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t   rec;

    e = &st->entries[i];

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));

    rec.type = NGX_RT_CONFIRM;
    rec.flags = (uint8_t) flags;
    rec.entry = i;
    rec.gen = e->gen;
    ngx_memcpy(rec.tag, tag, NGX_RT_TAG_LEN);

    (void) ngx_rt_log_note(st, &rec, NULL, &off);

    if (e->gen == rec.gen) {

        if (flags) {
            ngx_rt_retain_clear(st, i, rec.seq, tag);
        }

        ngx_rt_entry_open(e);

        ngx_rt_set(e->version, rec.seq);
        ngx_rt_set(e->confirm_seq, rec.seq);

        if (e->latest == NGX_RT_NONE) {
            ngx_rt_set(e->floor, rec.seq);
        }

        ngx_rt_entry_tag(e, tag);

        NGX_RT_FAULT("place: tag");

        ngx_rt_set(e->session, st->sh->feed.session);

        ngx_rt_entry_close(e);
    }

    if (flags) {
        ngx_rt_add(st->sh->feed.gaps, 1);
    }

    ngx_rt_store_done(st, rec.seq);
}


void
ngx_rt_store_dropped(ngx_rt_store_t *st)
{
    __atomic_fetch_add(&st->sh->dropped, 1, __ATOMIC_RELAXED);
}


uint64_t
ngx_rt_store_used(ngx_rt_store_t *st)
{
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;

    return (uint64_t) ((u_char *) st->entries - (u_char *) sh)
           + (uint64_t) sh->nbuckets * sizeof(uint32_t)
           + (uint64_t) ngx_rt_get(sh->channels)
             * (sizeof(ngx_rt_entry_sh_t) + sizeof(ngx_rt_rate_sh_t))
           + ngx_rt_get(sh->pinned) + ngx_rt_get(sh->history);
}
