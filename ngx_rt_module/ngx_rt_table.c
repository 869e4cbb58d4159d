
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The channels: a chained hash whose readers take no lock.
 *
 * Entries never move and are never freed, only reused, so a reader that
 * follows a link into an entry that has just become another channel's reads
 * valid memory; it may then miss what it looks for, and the caller takes the
 * slow way.  What it does find was read under the entry's sequence lock.
 */


#include <ngx_rt_shared.h>


#define NGX_RT_TABLE_STEPS        64        /* of a chain, without a lock */
#define NGX_RT_TABLE_TRIES        8         /* of a changing entry */


static ngx_int_t ngx_rt_table_read(ngx_rt_store_t *st, uint32_t index,
    const ngx_rt_key_t *key, ngx_rt_view_t *view);


#define ngx_rt_table_bucket(st, key)                                          \
    (&(st)->buckets[(key)->h[0] & ((st)->sh->nbuckets - 1)])

#define ngx_rt_load(p)  __atomic_load_n(p, __ATOMIC_RELAXED)


void
ngx_rt_table_key(ngx_rt_store_t *st, const ngx_str_t *name, ngx_rt_key_t *key)
{
    ngx_rt_hash128(st->sh->key, name->data, name->len, key->h);
}


ngx_int_t
ngx_rt_table_look(ngx_rt_store_t *st, const ngx_rt_key_t *key, time_t now,
    ngx_rt_view_t *view)
{
    uint32_t            index;
    ngx_uint_t          steps;
    ngx_rt_entry_sh_t  *entry;

    index = __atomic_load_n(ngx_rt_table_bucket(st, key), __ATOMIC_ACQUIRE);

    for (steps = 0; index && steps < NGX_RT_TABLE_STEPS; steps++) {

        entry = &st->entries[index];

        if (ngx_rt_load(&entry->key.h[0]) == key->h[0]
            && ngx_rt_load(&entry->key.h[1]) == key->h[1])
        {
            if (ngx_rt_table_read(st, index, key, view) != NGX_OK) {
                return NGX_DECLINED;
            }

            if (ngx_rt_load(&entry->used) != (uint32_t) now) {
                __atomic_store_n(&entry->used, (uint32_t) now,
                                 __ATOMIC_RELAXED);
            }

            return NGX_OK;
        }

        index = __atomic_load_n(&entry->link, __ATOMIC_ACQUIRE);
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_rt_table_view(ngx_rt_store_t *st, uint32_t index, uint32_t gen,
    ngx_rt_view_t *view)
{
    if (index == NGX_RT_NONE || index >= st->sh->nentries
        || ngx_rt_table_read(st, index, NULL, view) != NGX_OK
        || view->gen != gen)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* key NULL: whatever channel is there */

static ngx_int_t
ngx_rt_table_read(ngx_rt_store_t *st, uint32_t index, const ngx_rt_key_t *key,
    ngx_rt_view_t *view)
{
    uint32_t            lock, flags;
    uint64_t            k0, k1;
    ngx_uint_t          tries;
    ngx_rt_entry_sh_t  *entry;

    entry = &st->entries[index];

    for (tries = 0; tries < NGX_RT_TABLE_TRIES; tries++) {

        lock = __atomic_load_n(&entry->lock, __ATOMIC_ACQUIRE);

        if (lock & 1) {
            ngx_cpu_pause();
            continue;
        }

        k0 = ngx_rt_load(&entry->key.h[0]);
        k1 = ngx_rt_load(&entry->key.h[1]);
        flags = ngx_rt_load(&entry->flags);

        ngx_rt_entry_view(st, index, view);

        __atomic_thread_fence(__ATOMIC_ACQUIRE);

        if (ngx_rt_load(&entry->lock) != lock) {
            continue;
        }

        if (!(flags & NGX_RT_USED)
            || (key && (k0 != key->h[0] || k1 != key->h[1])))
        {
            return NGX_DECLINED;
        }

        return NGX_OK;
    }

    return NGX_DECLINED;
}


void
ngx_rt_entry_view(ngx_rt_store_t *st, uint32_t index, ngx_rt_view_t *view)
{
    uint32_t            words[NGX_RT_DIGEST_LEN / 4];
    ngx_uint_t          i;
    ngx_rt_entry_sh_t  *entry;

    entry = &st->entries[index];

    view->entry = index;
    view->gen = ngx_rt_load(&entry->gen);
    view->version = ngx_rt_load(&entry->version);
    view->msg_seq = ngx_rt_load(&entry->msg_seq);
    view->confirm_seq = ngx_rt_load(&entry->confirm_seq);
    view->floor = ngx_rt_load(&entry->floor);
    view->latest = ngx_rt_load(&entry->latest);
    view->count = ngx_rt_load(&entry->count);
    view->confirmed = (ngx_rt_load(&entry->session)
                       == ngx_rt_load(&st->sh->feed.session));
    view->wanted = (ngx_rt_load(&entry->flags) & NGX_RT_WANTED) ? 1 : 0;

    for (i = 0; i < NGX_RT_DIGEST_LEN / 4; i++) {
        words[i] = ngx_rt_load((uint32_t *) entry->digest + i);
    }

    ngx_memcpy(view->digest, words, NGX_RT_DIGEST_LEN);
}


void
ngx_rt_entry_begin(ngx_rt_entry_sh_t *entry)
{
    __atomic_store_n(&entry->lock, entry->lock + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);

    NGX_RT_FAULT("entry begin");
}


void
ngx_rt_entry_end(ngx_rt_entry_sh_t *entry)
{
    NGX_RT_FAULT("entry end");

    __atomic_store_n(&entry->lock, entry->lock + 1, __ATOMIC_RELEASE);
}


uint32_t
ngx_rt_table_find(ngx_rt_store_t *st, const ngx_rt_key_t *key)
{
    uint32_t            index;
    ngx_rt_entry_sh_t  *entry;

    for (index = *ngx_rt_table_bucket(st, key); index; index = entry->link) {
        entry = &st->entries[index];

        if (entry->key.h[0] == key->h[0] && entry->key.h[1] == key->h[1]) {
            break;
        }
    }

    return index;
}


uint32_t
ngx_rt_table_add(ngx_rt_store_t *st, const ngx_rt_key_t *key)
{
    uint32_t            index, *bucket, lock, gen;
    ngx_rt_entry_sh_t  *entry;

    index = st->sh->free;

    if (index == NGX_RT_NONE) {
        return NGX_RT_NONE;
    }

    entry = &st->entries[index];
    st->sh->free = entry->link;

    ngx_rt_entry_begin(entry);

    lock = entry->lock;
    gen = entry->gen;

    ngx_memzero((u_char *) entry + sizeof(uint64_t),
                sizeof(ngx_rt_entry_sh_t) - sizeof(uint64_t));

    entry->lock = lock;
    entry->gen = gen + 1;
    entry->key = *key;
    entry->flags = NGX_RT_USED;

    bucket = ngx_rt_table_bucket(st, key);
    __atomic_store_n(&entry->link, *bucket, __ATOMIC_RELEASE);

    ngx_rt_entry_end(entry);

    __atomic_store_n(bucket, index, __ATOMIC_RELEASE);

    st->sh->channels++;

    return index;
}


void
ngx_rt_table_remove(ngx_rt_store_t *st, uint32_t index)
{
    uint32_t           *link;
    ngx_rt_entry_sh_t  *entry;

    entry = &st->entries[index];

    link = ngx_rt_table_bucket(st, &entry->key);

    while (*link && *link != index) {
        link = &st->entries[*link].link;
    }

    if (*link == index) {
        __atomic_store_n(link, entry->link, __ATOMIC_RELEASE);
    }

    ngx_rt_entry_begin(entry);

    entry->flags = 0;
    entry->gen++;
    entry->key.h[0] = 0;
    entry->key.h[1] = 0;
    __atomic_store_n(&entry->link, st->sh->free, __ATOMIC_RELEASE);

    ngx_rt_entry_end(entry);

    st->sh->free = index;
    st->sh->channels--;
}


/* chains and free list anew from the entries' own fields */

void
ngx_rt_table_rebuild(ngx_rt_store_t *st)
{
    uint32_t            i, *bucket;
    ngx_rt_entry_sh_t  *entry;

    for (i = 0; i < st->sh->nbuckets; i++) {
        __atomic_store_n(&st->buckets[i], NGX_RT_NONE, __ATOMIC_RELEASE);
    }

    st->sh->free = NGX_RT_NONE;
    st->sh->channels = 0;

    for (i = st->sh->nentries - 1; i > 0; i--) {
        entry = &st->entries[i];

        if (entry->flags & NGX_RT_USED) {
            bucket = ngx_rt_table_bucket(st, &entry->key);
            __atomic_store_n(&entry->link, *bucket, __ATOMIC_RELEASE);
            __atomic_store_n(bucket, i, __ATOMIC_RELEASE);
            st->sh->channels++;

        } else {
            __atomic_store_n(&entry->link, st->sh->free, __ATOMIC_RELEASE);
            st->sh->free = i;
        }
    }
}
