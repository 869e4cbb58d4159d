
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The table of channels: a chained hash whose links are indices.
 *
 * Writers hold the mutex.  They change an entry only between open and close,
 * which make its lock odd and even again; buckets and links are single words
 * stored whole, so a reader follows a chain as it is or was.
 *
 * Readers take no lock.  A link may lead them into another chain or into the
 * free list when an entry was reused under their feet: they then don't find
 * what they look for within a few steps and say so, and the caller takes the
 * locked way.  They never take one channel for another: the key is read
 * under the sequence lock together with all else.
 *
 * A writer killed in an open entry leaves its lock odd, and readers give up
 * on it, until the next writer has repaired it (ngx_rt_recover.c), which also
 * builds buckets, links and the free list anew.
 */


#include <ngx_rt_store.h>


#define NGX_RT_TABLE_STEPS        64        /* of a reader along a chain */
#define NGX_RT_TABLE_TRIES        64        /* of a reader on one entry */
#define NGX_RT_TABLE_STAMP        0         /* s, between stamps of use */


static ngx_int_t ngx_rt_table_read(ngx_rt_store_t *st, uint32_t i,
    ngx_rt_key_t *key, ngx_rt_view_t *view);
static ngx_int_t ngx_rt_table_keyed(ngx_rt_entry_sh_t *e,
    const ngx_rt_key_t *key);


#define ngx_rt_table_bucket(st, key)                                          \
    (&(st)->buckets[(key)->h[0] & ((st)->sh->nbuckets - 1)])


void
ngx_rt_table_key(ngx_rt_store_t *st, const ngx_str_t *name, ngx_rt_key_t *key)
{
    ngx_rt_hash128(st->sh->key, name->data, name->len, key->h);
}


void
ngx_rt_table_ahead(ngx_rt_store_t *st, const ngx_rt_key_t *key)
{
    __builtin_prefetch(ngx_rt_table_bucket(st, key));
    __builtin_prefetch(&st->sh->feed);
}


ngx_int_t
ngx_rt_table_look(ngx_rt_store_t *st, const ngx_rt_key_t *key, time_t now,
    ngx_rt_view_t *view)
{
    uint32_t            i, n;
    ngx_rt_key_t        seen;
    ngx_rt_entry_sh_t  *e;

    e = NULL;
    i = __atomic_load_n(ngx_rt_table_bucket(st, key), __ATOMIC_ACQUIRE);

    for (n = 0; n < NGX_RT_TABLE_STEPS; n++) {

        if (i == NGX_RT_NONE || i >= st->sh->nentries) {
            return NGX_DECLINED;
        }

        e = &st->entries[i];

        /* its other line, and what a poll counts, along with the first one */

        __builtin_prefetch(&e->msg_seq);
        __builtin_prefetch(&st->rates[i], 1);

        if (ngx_rt_table_keyed(e, key) == NGX_OK) {
            break;
        }

        i = __atomic_load_n(&e->link, __ATOMIC_ACQUIRE);
    }

    if (n == NGX_RT_TABLE_STEPS
        || ngx_rt_table_read(st, i, &seen, view) != NGX_OK
        || seen.h[0] != key->h[0] || seen.h[1] != key->h[1])
    {
        return NGX_DECLINED;
    }

    /* a stamp in the future is taken back too; that it may hit the entry's
     * next channel does no harm */

    if ((uint32_t) now - ngx_rt_get(e->used) > NGX_RT_TABLE_STAMP) {
        ngx_rt_set(e->used, (uint32_t) now);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_table_keyed(ngx_rt_entry_sh_t *e, const ngx_rt_key_t *key)
{
    return (ngx_rt_get(e->key.h[0]) == key->h[0]
            && ngx_rt_get(e->key.h[1]) == key->h[1]) ? NGX_OK : NGX_DECLINED;
}


ngx_int_t
ngx_rt_table_view(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    ngx_rt_view_t *view)
{
    ngx_rt_key_t  seen;

    if (entry == NGX_RT_NONE
        || entry >= __atomic_load_n(&st->sh->top, __ATOMIC_ACQUIRE)
        || ngx_rt_table_read(st, entry, &seen, view) != NGX_OK
        || view->gen != gen)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* NGX_OK: *view and *key are of one moment at which the entry was in use */

static ngx_int_t
ngx_rt_table_read(ngx_rt_store_t *st, uint32_t i, ngx_rt_key_t *key,
    ngx_rt_view_t *view)
{
    uint32_t            lock, flags;
    ngx_uint_t          n;
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[i];

    for (n = 0; n < NGX_RT_TABLE_TRIES; n++) {

        lock = __atomic_load_n(&e->lock, __ATOMIC_ACQUIRE);

        if (lock & 1) {
            ngx_cpu_pause();
            continue;
        }

        key->h[0] = ngx_rt_get(e->key.h[0]);
        key->h[1] = ngx_rt_get(e->key.h[1]);
        flags = ngx_rt_get(e->flags);

        ngx_rt_table_copy(st, i, view);

        __atomic_thread_fence(__ATOMIC_ACQUIRE);

        if (ngx_rt_get(e->lock) == lock) {
            return (flags & NGX_RT_USED) ? NGX_OK : NGX_DECLINED;
        }
    }

    return NGX_DECLINED;
}


/*
 * The session is compared with what the feed's is now: an entry confirmed
 * in the session that just ended is not.
 */

void
ngx_rt_table_copy(ngx_rt_store_t *st, uint32_t i, ngx_rt_view_t *view)
{
    uint32_t            word, n, flags, session;
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[i];

    view->entry = i;
    view->gen = ngx_rt_get(e->gen);
    view->version = ngx_rt_get(e->version);
    view->msg_seq = ngx_rt_get(e->msg_seq);
    view->confirm_seq = ngx_rt_get(e->confirm_seq);
    view->floor = ngx_rt_get(e->floor);
    view->latest = ngx_rt_get(e->latest);
    view->count = ngx_rt_get(e->count);

    flags = ngx_rt_get(e->flags);

    view->wanted = (flags & NGX_RT_WANTED) ? 1 : 0;
    view->owed = (flags & NGX_RT_OWED) ? 1 : 0;
    view->sure = (flags & NGX_RT_SURE) ? 1 : 0;

    session = ngx_rt_get(e->session);

    view->known = (session != 0);
    view->confirmed = (session != 0
                       && session == __atomic_load_n(&st->sh->feed.session,
                                                     __ATOMIC_ACQUIRE));

    for (n = 0; n < NGX_RT_TAG_LEN; n += 4) {
        word = __atomic_load_n((ngx_rt_half_t *) (e->tag + n),
                               __ATOMIC_RELAXED);
        ngx_memcpy(view->tag + n, &word, 4);
    }
}


/*
 * After the fence nothing of the change is visible before the odd lock is;
 * a reader that saw any of it finds another lock than it began with.
 */

void
ngx_rt_entry_open(ngx_rt_entry_sh_t *e)
{
    ngx_rt_set(e->lock, e->lock | 1);

    __atomic_thread_fence(__ATOMIC_RELEASE);

    NGX_RT_FAULT("entry: open");
}


void
ngx_rt_entry_close(ngx_rt_entry_sh_t *e)
{
    NGX_RT_FAULT("entry: close");

    __atomic_store_n(&e->lock, (e->lock | 1) + 1, __ATOMIC_RELEASE);

    NGX_RT_FAULT("entry: closed");
}


void
ngx_rt_entry_tag(ngx_rt_entry_sh_t *e, const u_char *tag)
{
    uint32_t  word, n;

    for (n = 0; n < NGX_RT_TAG_LEN; n += 4) {
        ngx_memcpy(&word, tag + n, 4);
        __atomic_store_n((ngx_rt_half_t *) (e->tag + n), word,
                         __ATOMIC_RELAXED);
    }
}


/*
 * A chain longer than the table has entries leads in a circle: no crash
 * leaves that, but if memory was damaged all is built anew.
 */

uint32_t
ngx_rt_table_find(ngx_rt_store_t *st, const ngx_rt_key_t *key)
{
    uint32_t            i, n, tries;
    ngx_rt_entry_sh_t  *e;

    for (tries = 0; tries < 2; tries++) {

        i = *ngx_rt_table_bucket(st, key);

        for (n = 0; n < st->sh->top; n++) {

            if (i == NGX_RT_NONE) {
                return NGX_RT_NONE;
            }

            if (i >= st->sh->top) {
                break;
            }

            e = &st->entries[i];

            if (ngx_rt_table_keyed(e, key) == NGX_OK
                && (e->flags & NGX_RT_USED))
            {
                return i;
            }

            i = e->link;
        }

        if (tries == 0) {
            ngx_rt_recover(st);
        }
    }

    return NGX_RT_NONE;
}


/*
 * The free list first, then entries never used: a zone that was just made
 * costs no pages for them.  The entry keeps lock, gen, want and the flag
 * QUEUED of its former life.
 */

uint32_t
ngx_rt_table_alloc(ngx_rt_store_t *st)
{
    uint32_t            i, n;
    ngx_rt_zone_sh_t   *sh;
    ngx_rt_entry_sh_t  *e;

    sh = st->sh;
    i = sh->free;

    if (i != NGX_RT_NONE && i < sh->top) {
        sh->free = st->entries[i].link;
        return i;
    }

    if (sh->top >= sh->nentries) {
        return NGX_RT_NONE;
    }

    i = sh->top;
    e = &st->entries[i];

    for (n = 0; n < sizeof(ngx_rt_entry_sh_t); n += 8) {
        __atomic_store_n((ngx_rt_word_t *) ((u_char *) e + n), 0,
                         __ATOMIC_RELAXED);
    }

    NGX_RT_FAULT("alloc: zeroed");

    __atomic_store_n(&sh->top, i + 1, __ATOMIC_RELEASE);

    return i;
}


void
ngx_rt_table_free(ngx_rt_store_t *st, uint32_t i)
{
    __atomic_store_n(&st->entries[i].link, st->sh->free, __ATOMIC_RELEASE);
    st->sh->free = i;
}


void
ngx_rt_table_insert(ngx_rt_store_t *st, uint32_t i)
{
    uint32_t           *bucket;
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[i];
    bucket = ngx_rt_table_bucket(st, &e->key);

    __atomic_store_n(&e->link, *bucket, __ATOMIC_RELEASE);

    NGX_RT_FAULT("insert: link");

    __atomic_store_n(bucket, i, __ATOMIC_RELEASE);
}


void
ngx_rt_table_unlink(ngx_rt_store_t *st, uint32_t i)
{
    uint32_t  *p, n;

    p = ngx_rt_table_bucket(st, &st->entries[i].key);

    for (n = 0; n < st->sh->top; n++) {

        if (*p == NGX_RT_NONE || *p >= st->sh->top) {
            return;
        }

        if (*p == i) {
            __atomic_store_n(p, st->entries[i].link, __ATOMIC_RELEASE);
            return;
        }

        p = &st->entries[*p].link;
    }
}


void
ngx_rt_table_want(ngx_rt_store_t *st, uint32_t i)
{
    ngx_rt_feed_sh_t   *feed;
    ngx_rt_entry_sh_t  *e;

    e = &st->entries[i];
    feed = &st->sh->feed;

    if (e->flags & NGX_RT_QUEUED) {
        return;
    }

    e->want = feed->want;

    ngx_rt_set(e->flags, e->flags | NGX_RT_QUEUED);

    NGX_RT_FAULT("want: flagged");

    ngx_rt_set(feed->want, i);
}
