
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What is asked of the store: names, and what a channel retains.
 */


#include <ngx_rt_store.h>


#define NGX_RT_NAME_TRIES         8


static ngx_rt_entry_sh_t *ngx_rt_query_entry(ngx_rt_store_t *st, uint32_t i,
    uint32_t gen);
static ngx_int_t ngx_rt_query_name(ngx_rt_store_t *st, uint32_t i,
    uint32_t gen, u_char *buf, size_t *len);
static ngx_int_t ngx_rt_query_after(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e,
    const u_char *tag, uint64_t *seq);
static void ngx_rt_query_turn(uint64_t *a, ngx_uint_t n);


ngx_int_t
ngx_rt_store_name(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    u_char *buf, size_t *len)
{
    ngx_int_t   rc;
    ngx_uint_t  n;

    for (n = 0; n < NGX_RT_NAME_TRIES; n++) {

        rc = ngx_rt_query_name(st, entry, gen, buf, len);

        if (rc != NGX_AGAIN) {
            return rc;
        }
    }

    ngx_rt_store_lock(st);

    if (ngx_rt_query_entry(st, entry, gen)) {
        *len = ngx_rt_retain_name_copy(st, entry, buf);
        rc = NGX_OK;

    } else {
        rc = NGX_DECLINED;
    }

    ngx_rt_store_unlock(st);

    return rc;
}


/* without a lock: where the name is, the name, and is it still there?
 * NGX_AGAIN: it was moved meanwhile */

static ngx_int_t
ngx_rt_query_name(ngx_rt_store_t *st, uint32_t i, uint32_t gen, u_char *buf,
    size_t *len)
{
    uint64_t             off;
    ngx_rt_view_t        view;
    ngx_rt_record_sh_t   rec;

    if (i == NGX_RT_NONE
        || i >= __atomic_load_n(&st->sh->top, __ATOMIC_ACQUIRE))
    {
        return NGX_DECLINED;
    }

    off = ngx_rt_get(st->entries[i].name);

    if (ngx_rt_table_view(st, i, gen, &view) != NGX_OK) {
        return (ngx_rt_get(st->entries[i].gen) == gen) ? NGX_AGAIN
                                                       : NGX_DECLINED;
    }

    if (ngx_rt_log_peek(st, off, &rec) != NGX_OK
        || rec.type != NGX_RT_NAME || rec.entry != i || rec.gen != gen
        || rec.event_len != 0 || rec.data_len > NGX_RT_CHANNEL_MAX
        || ngx_rt_log_body(st, off, &rec, buf) != NGX_OK)
    {
        return NGX_AGAIN;
    }

    *len = rec.data_len;

    return NGX_OK;
}


ngx_int_t
ngx_rt_store_view(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    ngx_rt_view_t *view)
{
    ngx_int_t  rc;

    if (ngx_rt_table_view(st, entry, gen, view) == NGX_OK) {
        return NGX_OK;
    }

    rc = NGX_DECLINED;

    ngx_rt_store_lock(st);

    if (ngx_rt_query_entry(st, entry, gen)) {
        ngx_rt_table_copy(st, entry, view);
        rc = NGX_OK;
    }

    ngx_rt_store_unlock(st);

    return rc;
}


/* locked: the entry if it is that channel's, or NULL */

static ngx_rt_entry_sh_t *
ngx_rt_query_entry(ngx_rt_store_t *st, uint32_t i, uint32_t gen)
{
    ngx_rt_entry_sh_t  *e;

    if (i == NGX_RT_NONE || i >= st->sh->top) {
        return NULL;
    }

    e = &st->entries[i];

    return ((e->flags & NGX_RT_USED) && e->gen == gen) ? e : NULL;
}


ngx_int_t
ngx_rt_store_history(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    uint64_t after, uint64_t upto, uint64_t *offs, uint64_t *seqs,
    ngx_uint_t max)
{
    uint32_t             left;
    uint64_t             off;
    ngx_uint_t           n;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec;

    ngx_rt_store_lock(st);

    e = ngx_rt_query_entry(st, entry, gen);

    if (e == NULL) {
        ngx_rt_store_unlock(st);
        return NGX_DECLINED;
    }

    n = 0;
    off = e->latest;

    for (left = e->count; left && n < max; left--) {
        rec = ngx_rt_log_at(st, off);

        if (rec->seq <= after) {
            break;
        }

        if (rec->seq <= upto) {
            offs[n] = off;
            seqs[n] = rec->seq;
            n++;
        }

        off = rec->prev;
    }

    ngx_rt_store_unlock(st);

    ngx_rt_query_turn(offs, n);
    ngx_rt_query_turn(seqs, n);

    return n;
}


static void
ngx_rt_query_turn(uint64_t *a, ngx_uint_t n)
{
    uint64_t    tmp;
    ngx_uint_t  i;

    for (i = 0; i < n / 2; i++) {
        tmp = a[i];
        a[i] = a[n - 1 - i];
        a[n - 1 - i] = tmp;
    }
}


/*
 * Only an id that is here proves that its reader has what is before it: one
 * that would be between two others may be of another life of the stream.
 */

ngx_int_t
ngx_rt_store_after(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    const u_char tag[NGX_RT_TAG_LEN], uint64_t *seq)
{
    ngx_int_t           rc, cmp;
    ngx_rt_entry_sh_t  *e;

    ngx_rt_store_lock(st);

    e = ngx_rt_query_entry(st, entry, gen);

    if (e == NULL || e->session == 0) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    cmp = ngx_rt_sid_cmp(tag, e->tag);

    if (cmp >= 0) {
        *seq = st->sh->seq;
        rc = (cmp == 0) ? NGX_OK : NGX_AGAIN;

    } else {
        rc = ngx_rt_query_after(st, e, tag, seq);
    }

    ngx_rt_store_unlock(st);

    return rc;
}


static ngx_int_t
ngx_rt_query_after(ngx_rt_store_t *st, ngx_rt_entry_sh_t *e,
    const u_char *tag, uint64_t *seq)
{
    uint32_t             left;
    uint64_t             off;
    ngx_int_t            cmp;
    ngx_rt_record_sh_t  *rec, *newer;

    newer = NULL;
    off = e->latest;

    for (left = e->count; left; left--) {
        rec = ngx_rt_log_at(st, off);
        cmp = ngx_rt_sid_cmp(rec->tag, tag);

        if (cmp == 0) {
            *seq = rec->seq;
            return NGX_OK;
        }

        if (cmp < 0) {
            break;
        }

        newer = rec;
        off = rec->prev;
    }

    if (newer && ngx_rt_sid_adjacent(tag, newer->tag)) {
        *seq = newer->seq - 1;
        return NGX_OK;
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_rt_store_span(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    ngx_rt_span_t *span)
{
    ngx_rt_entry_sh_t  *e;

    ngx_rt_store_lock(st);

    e = ngx_rt_query_entry(st, entry, gen);

    if (e == NULL || e->session == 0) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    ngx_memcpy(span->place, e->tag, NGX_RT_TAG_LEN);
    span->floor = e->floor;
    span->count = e->count;

    if (e->count) {
        ngx_memcpy(span->oldest, ngx_rt_log_at(st, e->oldest)->tag,
                   NGX_RT_TAG_LEN);
        ngx_memcpy(span->latest, ngx_rt_log_at(st, e->latest)->tag,
                   NGX_RT_TAG_LEN);
    }

    ngx_rt_store_unlock(st);

    return NGX_OK;
}


ngx_int_t
ngx_rt_store_find(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    const u_char digest[NGX_RT_DIGEST_LEN], uint64_t *seq)
{
    uint32_t             left;
    uint64_t             off;
    ngx_int_t            rc;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec;

    rc = NGX_DECLINED;

    ngx_rt_store_lock(st);

    e = ngx_rt_query_entry(st, entry, gen);

    if (e) {
        off = e->oldest;

        for (left = e->count; left; left--) {
            rec = ngx_rt_log_at(st, off);

            if (ngx_memcmp(rec->tag, digest, NGX_RT_DIGEST_LEN) == 0) {
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
