
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The zone, and all that changes it.  Every change runs between begin and
 * end, with sh->writing set: found set by the next holder of the lock, it
 * tells that the last one was killed half-way.
 */


#include <ngx_rt_shared.h>


#define NGX_RT_ZONE_MAGIC         0x6e67785f72743031ULL
#define NGX_RT_ZONE_LAYOUT        1

#define NGX_RT_ZONE_MIN           (256 * 1024)
#define NGX_RT_LOG_START          64        /* offset 0 means none */

/* entries a writer has open at once: never more than two */
#define NGX_RT_REPAIR_MAX         8


static size_t ngx_rt_store_tables(size_t size, ngx_uint_t nslots,
    uint32_t *nentries, uint32_t *nbuckets);
static void ngx_rt_store_layout(ngx_rt_store_t *st, u_char *mem);
static void ngx_rt_store_repair(ngx_rt_store_t *st);
static uint32_t ngx_rt_store_enter(ngx_rt_store_t *st, const ngx_str_t *name,
    const ngx_rt_key_t *key);
static void ngx_rt_store_append(ngx_rt_store_t *st, uint32_t index,
    const ngx_rt_message_t *msg, const u_char *digest, uint64_t now);
static void ngx_rt_store_trim(ngx_rt_store_t *st, ngx_rt_entry_sh_t *entry,
    uint64_t now);
static void ngx_rt_store_event(ngx_rt_store_t *st, uint32_t index,
    ngx_uint_t type, ngx_uint_t flags);
static ngx_rt_entry_sh_t *ngx_rt_store_entry(ngx_rt_store_t *st,
    uint32_t index, uint32_t gen);


/* the zone would have to hold the slots, a few channels, a few messages */

size_t
ngx_rt_store_min_size(ngx_uint_t nslots, size_t message_max)
{
    size_t    size, need;
    uint32_t  nentries, nbuckets;

    size = NGX_RT_ZONE_MIN + nslots * sizeof(ngx_rt_slot_sh_t);

    if (message_max == 0) {
        return size;
    }

    /* a little more, for the log shrinks where the number of buckets doubles:
     * each larger size must do as well */

    need = NGX_RT_LOG_PARTS * ngx_rt_log_size(NGX_RT_EVENT_MAX + message_max);
    need += need / 64;

    size = ngx_max(size, need);

    while (ngx_rt_store_tables(size, nslots, &nentries, &nbuckets) < need) {
        size += ngx_pagesize;
    }

    return size;
}


/* how a zone of that size is divided; what is left is the log's */

static size_t
ngx_rt_store_tables(size_t size, ngx_uint_t nslots, uint32_t *nentries,
    uint32_t *nbuckets)
{
    size_t    fixed, table;
    uint32_t  n, buckets;

    fixed = ngx_align(sizeof(ngx_rt_zone_sh_t), 64)
            + nslots * sizeof(ngx_rt_slot_sh_t);

    /* a quarter for the table: an entry and a bucket or two for each */

    table = (size - fixed) / 4;
    n = (uint32_t) ngx_min(table / (sizeof(ngx_rt_entry_sh_t) + 4),
                           0x7fffffff);

    for (buckets = 64; buckets < n; buckets *= 2) { /* void */ }

    *nentries = n;
    *nbuckets = buckets;

    return (size - fixed - buckets * sizeof(uint32_t)
            - n * sizeof(ngx_rt_entry_sh_t) - 64) & ~63ULL;
}


ngx_int_t
ngx_rt_store_create(ngx_rt_store_t *st, void *mem, size_t size,
    ngx_uint_t nslots, const u_char random[32])
{
    uint32_t           n, buckets, i;
    ngx_rt_zone_sh_t  *sh;

    if (size < ngx_rt_store_min_size(nslots, 0)) {
        return NGX_ERROR;
    }

    sh = mem;
    ngx_memzero(sh, sizeof(ngx_rt_zone_sh_t));

    sh->log_size = ngx_rt_store_tables(size, nslots, &n, &buckets);
    sh->layout = NGX_RT_ZONE_LAYOUT;
    sh->nslots = (uint32_t) nslots;
    sh->nentries = n;
    sh->nbuckets = buckets;
    sh->size = size;

    ngx_memcpy(&sh->epoch, random, 8);
    sh->epoch &= 0xffffffffffffULL;
    ngx_memcpy(sh->key, random + 8, 16);

    sh->seq = 1;
    sh->head = NGX_RT_LOG_START;
    sh->limit = NGX_RT_LOG_START;
    sh->tail = NGX_RT_LOG_START;
    sh->feed.session = 1;
    sh->feed.state = NGX_RT_FEED_CONNECTING;

    ngx_rt_store_layout(st, mem);

    ngx_memzero(st->slots, nslots * sizeof(ngx_rt_slot_sh_t));
    ngx_memzero(st->entries, n * sizeof(ngx_rt_entry_sh_t));

    for (i = 0; i < buckets; i++) {
        st->buckets[i] = NGX_RT_NONE;
    }

    ngx_rt_table_rebuild(st);

    __atomic_store_n(&sh->magic, NGX_RT_ZONE_MAGIC, __ATOMIC_RELEASE);

    return NGX_OK;
}


static void
ngx_rt_store_layout(ngx_rt_store_t *st, u_char *mem)
{
    u_char            *p;
    ngx_rt_zone_sh_t  *sh;

    sh = (ngx_rt_zone_sh_t *) mem;
    st->sh = sh;

    p = mem + ngx_align(sizeof(ngx_rt_zone_sh_t), 64);

    st->slots = (ngx_rt_slot_sh_t *) p;
    p += sh->nslots * sizeof(ngx_rt_slot_sh_t);

    st->buckets = (uint32_t *) p;
    p += sh->nbuckets * sizeof(uint32_t);

    st->entries = (ngx_rt_entry_sh_t *) p;
    p += sh->nentries * sizeof(ngx_rt_entry_sh_t);

    st->log = p;
}


ngx_int_t
ngx_rt_store_attach(ngx_rt_store_t *st, void *mem, size_t size)
{
    ngx_rt_zone_sh_t  *sh;

    sh = mem;

    if (__atomic_load_n(&sh->magic, __ATOMIC_ACQUIRE) != NGX_RT_ZONE_MAGIC
        || sh->layout != NGX_RT_ZONE_LAYOUT
        || (size && sh->size != size))
    {
        return NGX_DECLINED;
    }

    ngx_rt_store_layout(st, mem);

    return NGX_OK;
}


void
ngx_rt_store_lock(ngx_rt_store_t *st)
{
    ngx_shmtx_lock(st->mutex);

    if (st->sh->writing) {
        ngx_rt_store_repair(st);
    }
}


void
ngx_rt_store_unlock(ngx_rt_store_t *st)
{
    ngx_shmtx_unlock(st->mutex);
}


/*
 * The last holder was killed.  What it had reserved becomes a pad (at the
 * most two: it may have wrapped), the channels it was changing are emptied.
 * May itself be killed anywhere and begun anew.
 */

static void
ngx_rt_store_repair(ngx_rt_store_t *st)
{
    uint32_t             i, n, lost[NGX_RT_REPAIR_MAX];
    uint64_t             left;
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t  *rec;

    sh = st->sh;
    n = 0;

    while (sh->head < sh->limit) {
        left = sh->log_size - sh->head % sh->log_size;
        left = ngx_min(left, sh->limit - sh->head);

        rec = ngx_rt_log_at(st, sh->head);
        rec->size = (uint32_t) left;
        rec->type = NGX_RT_PAD;
        rec->flags = 0;

        __atomic_store_n(&sh->head, sh->head + left, __ATOMIC_RELEASE);
    }

    /* above anything that was numbered and not yet told */

    __atomic_store_n(&sh->seq, sh->seq + 16, __ATOMIC_RELEASE);

    for (i = 1; i < sh->nentries; i++) {
        entry = &st->entries[i];

        if (!(entry->lock & 1)) {
            continue;
        }

        /* nothing in it can be trusted: as if it had been evicted */

        entry->flags = 0;
        entry->gen++;
        entry->latest = NGX_RT_NONE;
        entry->oldest = NGX_RT_NONE;
        entry->name = NGX_RT_NONE;

        __atomic_store_n(&entry->lock, entry->lock + 1, __ATOMIC_RELEASE);

        if (n < NGX_RT_REPAIR_MAX) {
            lost[n++] = i;
        }
    }

    sh->feed.want = NGX_RT_NONE;

    ngx_rt_table_rebuild(st);
    ngx_rt_retain_recount(st);

    for (i = 1; i < sh->nentries; i++) {
        entry = &st->entries[i];
        entry->flags &= ~NGX_RT_QUEUED;

        if ((entry->flags & NGX_RT_USED) && entry->session == 0) {
            ngx_rt_store_queue(st, i);
        }
    }

    /* who follows them is told; the reserve has room for it */

    while (n) {
        ngx_rt_retain_told(st, lost[n - 1],
                           st->entries[lost[n - 1]].gen - 1);
        n--;
    }

    sh->repaired++;

    __atomic_store_n(&sh->writing, 0, __ATOMIC_RELEASE);
}


void
ngx_rt_store_begin(ngx_rt_store_t *st)
{
    __atomic_store_n(&st->sh->writing, 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}


void
ngx_rt_store_end(ngx_rt_store_t *st)
{
    __atomic_store_n(&st->sh->writing, 0, __ATOMIC_RELEASE);
}


ngx_int_t
ngx_rt_store_touch(ngx_rt_store_t *st, const ngx_str_t *name, time_t now,
    ngx_rt_view_t *view, ngx_uint_t *queued)
{
    uint32_t            index;
    ngx_rt_key_t        key;
    ngx_rt_entry_sh_t  *entry;

    ngx_rt_table_key(st, name, &key);

    ngx_rt_store_lock(st);
    ngx_rt_store_begin(st);

    index = ngx_rt_table_find(st, &key);

    if (index == NGX_RT_NONE) {
        index = ngx_rt_store_enter(st, name, &key);

        if (index == NGX_RT_NONE) {
            ngx_rt_store_end(st);
            ngx_rt_store_unlock(st);
            return NGX_DECLINED;
        }
    }

    entry = &st->entries[index];

    __atomic_store_n(&entry->used, (uint32_t) now, __ATOMIC_RELAXED);

    if (!(entry->flags & NGX_RT_WANTED)) {
        __atomic_store_n(&entry->flags, entry->flags | NGX_RT_WANTED,
                         __ATOMIC_RELAXED);

        if (!st->embedded) {
            ngx_rt_store_queue(st, index);
            *queued = 1;
        }
    }

    ngx_rt_entry_view(st, index, view);

    ngx_rt_store_end(st);
    ngx_rt_store_unlock(st);

    return NGX_OK;
}


void
ngx_rt_store_queue(ngx_rt_store_t *st, uint32_t index)
{
    ngx_rt_entry_sh_t  *entry;

    entry = &st->entries[index];

    if (!(entry->flags & NGX_RT_QUEUED)) {
        __atomic_store_n(&entry->flags, entry->flags | NGX_RT_QUEUED,
                         __ATOMIC_RELAXED);
        entry->want = st->sh->feed.want;
        st->sh->feed.want = index;
    }
}


/* a new channel, with its name in the log and a version of its own */

static uint32_t
ngx_rt_store_enter(ngx_rt_store_t *st, const ngx_str_t *name,
    const ngx_rt_key_t *key)
{
    uint32_t             index;
    uint64_t             off;
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t   rec;

    ngx_rt_retain_fit(st, NGX_RT_NONE, 1);
    ngx_rt_retain_room(st, ngx_rt_log_size(name->len));

    index = ngx_rt_table_add(st, key);

    if (index == NGX_RT_NONE) {
        return NGX_RT_NONE;
    }

    entry = &st->entries[index];

    ngx_rt_entry_begin(entry);

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));
    rec.type = NGX_RT_NAME;
    rec.flags = NGX_RT_LIVE;
    rec.entry = index;
    rec.gen = entry->gen;
    rec.data_len = (uint32_t) name->len;

    off = ngx_rt_log_write(st, &rec, NULL, name->data);

    st->sh->pinned += ngx_rt_log_at(st, off)->size;

    entry->name = off;
    entry->version = st->sh->seq + 1;
    entry->floor = entry->version;
    entry->session = st->embedded ? st->sh->feed.session : 0;

    ngx_rt_entry_end(entry);

    __atomic_store_n(&st->sh->seq, entry->version, __ATOMIC_RELEASE);

    return index;
}


ngx_int_t
ngx_rt_store_publish(ngx_rt_store_t *st, uint64_t term, const ngx_str_t *name,
    const ngx_rt_message_t *msg, const u_char digest[NGX_RT_DIGEST_LEN],
    uint64_t now, ngx_uint_t create, uint64_t *seq)
{
    size_t        size;
    uint32_t      index;
    ngx_int_t     rc;
    ngx_uint_t    large;
    ngx_rt_key_t  key;

    size = ngx_rt_log_size(msg->event.len + msg->data.len);
    large = msg->data.len > st->message_max
            || size > ngx_rt_log_max(st->sh);

    ngx_rt_table_key(st, name, &key);

    ngx_rt_store_lock(st);

    if (ngx_rt_store_over(st, term)) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    ngx_rt_store_begin(st);

    index = ngx_rt_table_find(st, &key);

    if (large) {
        st->sh->dropped++;

        if (index != NGX_RT_NONE) {
            ngx_rt_store_event(st, index, NGX_RT_DROP, 0);
        }

        rc = NGX_ERROR;
        goto done;
    }

    if (index == NGX_RT_NONE) {

        if (!create) {
            rc = NGX_DECLINED;
            goto done;
        }

        index = ngx_rt_store_enter(st, name, &key);

        if (index == NGX_RT_NONE) {
            st->sh->dropped++;
            rc = NGX_ERROR;
            goto done;
        }

        __atomic_store_n(&st->entries[index].used, (uint32_t) (now / 1000),
                         __ATOMIC_RELAXED);
    }

    ngx_rt_retain_room(st, size);
    ngx_rt_store_append(st, index, msg, digest, now);
    ngx_rt_retain_fit(st, index, 0);

    *seq = st->entries[index].version;
    rc = NGX_OK;

done:

    ngx_rt_store_end(st);
    ngx_rt_store_unlock(st);

    return rc;
}


static void
ngx_rt_store_append(ngx_rt_store_t *st, uint32_t index,
    const ngx_rt_message_t *msg, const u_char *digest, uint64_t now)
{
    uint32_t             size;
    uint64_t             off, seq;
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t   rec, *last;

    entry = &st->entries[index];
    seq = st->sh->seq + 1;

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));
    rec.type = NGX_RT_MESSAGE;
    rec.flags = NGX_RT_LIVE;
    rec.entry = index;
    rec.gen = entry->gen;
    rec.seq = seq;
    rec.time = now;
    rec.event_len = (uint8_t) msg->event.len;
    rec.data_len = (uint32_t) msg->data.len;
    ngx_memcpy(rec.digest, digest, NGX_RT_DIGEST_LEN);

    /* odd before the record is there: a crash in between empties the channel,
     * and what half knew of the message is told */

    ngx_rt_entry_begin(entry);

    rec.prev = entry->latest;
    off = ngx_rt_log_write(st, &rec, msg->event.data, msg->data.data);
    size = ngx_rt_log_at(st, off)->size;

    if (entry->latest) {
        last = ngx_rt_log_at(st, entry->latest);
        __atomic_store_n(&last->next, off, __ATOMIC_RELAXED);
        st->sh->pinned -= last->size;
        st->sh->history += last->size;

    } else {
        entry->oldest = off;
    }

    __atomic_store_n(&entry->latest, off, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->version, seq, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->msg_seq, seq, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->count, entry->count + 1, __ATOMIC_RELAXED);
    ngx_memcpy(entry->digest, digest, NGX_RT_DIGEST_LEN);
    entry->bytes += size;

    st->sh->pinned += size;

    ngx_rt_store_trim(st, entry, now);

    ngx_rt_entry_end(entry);

    st->sh->messages++;
    st->sh->bytes += msg->data.len;

    __atomic_store_n(&st->sh->seq, seq, __ATOMIC_RELEASE);
}


static void
ngx_rt_store_trim(ngx_rt_store_t *st, ngx_rt_entry_sh_t *entry, uint64_t now)
{
    while (entry->count > st->history
           || (st->history_time
               && ngx_rt_log_at(st, entry->oldest)->time + st->history_time
                  < now))
    {
        if (ngx_rt_retain_drop(st, entry) != NGX_OK) {
            return;
        }
    }
}


/*
 * CONFIRM or DROP: a fresh version, continuous only from here on
 */

static void
ngx_rt_store_event(ngx_rt_store_t *st, uint32_t index, ngx_uint_t type,
    ngx_uint_t flags)
{
    uint64_t             seq;
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t   rec;

    entry = &st->entries[index];
    seq = st->sh->seq + 1;

    ngx_rt_retain_room(st, sizeof(ngx_rt_record_sh_t));

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));
    rec.type = (uint8_t) type;
    rec.flags = (uint8_t) flags;
    rec.entry = index;
    rec.gen = entry->gen;
    rec.seq = seq;

    ngx_rt_entry_begin(entry);

    (void) ngx_rt_log_write(st, &rec, NULL, NULL);

    __atomic_store_n(&entry->version, seq, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->confirm_seq, seq, __ATOMIC_RELAXED);

    if (type == NGX_RT_CONFIRM) {
        __atomic_store_n(&entry->session, st->sh->feed.session,
                         __ATOMIC_RELAXED);

    } else {
        __atomic_store_n(&entry->floor, seq, __ATOMIC_RELAXED);
    }

    ngx_rt_entry_end(entry);

    __atomic_store_n(&st->sh->seq, seq, __ATOMIC_RELEASE);
}


ngx_int_t
ngx_rt_store_confirm(ngx_rt_store_t *st, uint64_t term, const ngx_str_t *name)
{
    uint32_t            index;
    ngx_rt_key_t        key;
    ngx_rt_entry_sh_t  *entry;

    ngx_rt_table_key(st, name, &key);

    ngx_rt_store_lock(st);

    if (ngx_rt_store_over(st, term)) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    index = ngx_rt_table_find(st, &key);

    if (index == NGX_RT_NONE) {
        ngx_rt_store_unlock(st);
        return NGX_DECLINED;
    }

    entry = &st->entries[index];

    if (entry->session != st->sh->feed.session) {
        ngx_rt_store_begin(st);

        if (entry->session) {
            st->sh->feed.gaps++;
        }

        ngx_rt_store_event(st, index, NGX_RT_CONFIRM,
                           entry->session ? NGX_RT_BROKEN : 0);
        ngx_rt_store_end(st);
    }

    ngx_rt_store_unlock(st);

    return NGX_OK;
}


static ngx_rt_entry_sh_t *
ngx_rt_store_entry(ngx_rt_store_t *st, uint32_t index, uint32_t gen)
{
    ngx_rt_entry_sh_t  *entry;

    if (index == NGX_RT_NONE || index >= st->sh->nentries) {
        return NULL;
    }

    entry = &st->entries[index];

    return ((entry->flags & NGX_RT_USED) && entry->gen == gen) ? entry : NULL;
}


ngx_int_t
ngx_rt_store_name(ngx_rt_store_t *st, uint32_t index, uint32_t gen,
    u_char *buf, size_t *len)
{
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t  *rec;

    ngx_rt_store_lock(st);

    entry = ngx_rt_store_entry(st, index, gen);

    if (entry) {
        rec = ngx_rt_log_at(st, entry->name);
        *len = rec->data_len;
        ngx_memcpy(buf, (u_char *) rec + sizeof(ngx_rt_record_sh_t), *len);
    }

    ngx_rt_store_unlock(st);

    return entry ? NGX_OK : NGX_DECLINED;
}


ngx_int_t
ngx_rt_store_history(ngx_rt_store_t *st, uint32_t index, uint32_t gen,
    uint64_t after, uint64_t upto, uint64_t *offs, uint64_t *seqs,
    ngx_uint_t max)
{
    uint64_t             off;
    ngx_uint_t           n, i;
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t  *rec;

    ngx_rt_store_lock(st);

    entry = ngx_rt_store_entry(st, index, gen);

    if (entry == NULL) {
        ngx_rt_store_unlock(st);
        return NGX_DECLINED;
    }

    /* from the newest back, then turned round */

    n = 0;
    off = entry->latest;

    for (i = 0; i < entry->count && n < max; i++) {
        rec = ngx_rt_log_at(st, off);

        if (rec->seq <= after) {
            break;
        }

        if (rec->seq <= upto) {
            offs[n] = off;
            seqs[n++] = rec->seq;
        }

        off = rec->prev;
    }

    ngx_rt_store_unlock(st);

    for (i = 0; i < n / 2; i++) {
        off = offs[i];
        offs[i] = offs[n - 1 - i];
        offs[n - 1 - i] = off;

        off = seqs[i];
        seqs[i] = seqs[n - 1 - i];
        seqs[n - 1 - i] = off;
    }

    return n;
}


ngx_int_t
ngx_rt_store_find(ngx_rt_store_t *st, uint32_t index, uint32_t gen,
    const u_char digest[NGX_RT_DIGEST_LEN], uint64_t *seq)
{
    uint64_t             off;
    ngx_int_t            rc;
    ngx_uint_t           i;
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t  *rec;

    rc = NGX_DECLINED;

    ngx_rt_store_lock(st);

    entry = ngx_rt_store_entry(st, index, gen);

    if (entry) {
        off = entry->oldest;

        for (i = 0; i < entry->count; i++) {
            rec = ngx_rt_log_at(st, off);

            if (ngx_memcmp(rec->digest, digest, NGX_RT_DIGEST_LEN) == 0) {
                *seq = rec->seq;
                rc = NGX_OK;
                break;
            }

            off = rec->next;
        }
    }

    ngx_rt_store_unlock(st);

    return rc;
}


void
ngx_rt_store_dropped(ngx_rt_store_t *st)
{
    __atomic_add_fetch(&st->sh->dropped, 1, __ATOMIC_RELAXED);
}


uint64_t
ngx_rt_store_used(ngx_rt_store_t *st)
{
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;

    return (uint64_t) (st->log - (u_char *) sh)
           - (uint64_t) (sh->nentries - sh->channels)
             * sizeof(ngx_rt_entry_sh_t)
           + __atomic_load_n(&sh->pinned, __ATOMIC_RELAXED)
           + __atomic_load_n(&sh->history, __ATOMIC_RELAXED);
}
