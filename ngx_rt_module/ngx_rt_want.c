
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The feeder's work: which channels to subscribe, which to leave.
 */


#include <ngx_rt_shared.h>


ngx_int_t
ngx_rt_store_want(ngx_rt_store_t *st, uint64_t term, u_char *buf, size_t *len)
{
    uint32_t             index;
    ngx_int_t            rc;
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t  *rec;

    ngx_rt_store_lock(st);

    if (ngx_rt_store_over(st, term)) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    ngx_rt_store_begin(st);

    rc = NGX_DONE;

    while (st->sh->feed.want != NGX_RT_NONE) {
        index = st->sh->feed.want;
        entry = &st->entries[index];

        st->sh->feed.want = entry->want;
        __atomic_store_n(&entry->flags, entry->flags & ~NGX_RT_QUEUED,
                         __ATOMIC_RELAXED);

        if (entry->flags & NGX_RT_USED) {
            rec = ngx_rt_log_at(st, entry->name);
            *len = rec->data_len;
            ngx_memcpy(buf, (u_char *) rec + sizeof(ngx_rt_record_sh_t),
                       *len);
            rc = NGX_OK;
            break;
        }
    }

    ngx_rt_store_end(st);
    ngx_rt_store_unlock(st);

    return rc;
}


ngx_int_t
ngx_rt_store_want_all(ngx_rt_store_t *st, uint64_t term)
{
    uint32_t            i;
    ngx_int_t           n;
    ngx_rt_entry_sh_t  *entry;

    ngx_rt_store_lock(st);

    if (ngx_rt_store_over(st, term)) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    ngx_rt_store_begin(st);

    n = 0;

    for (i = 1; i < st->sh->nentries; i++) {
        entry = &st->entries[i];

        if (entry->flags & NGX_RT_USED) {
            __atomic_store_n(&entry->flags, entry->flags | NGX_RT_WANTED,
                             __ATOMIC_RELAXED);
            ngx_rt_store_queue(st, i);
            n++;
        }
    }

    ngx_rt_store_end(st);
    ngx_rt_store_unlock(st);

    return n;
}


ngx_int_t
ngx_rt_store_expire(ngx_rt_store_t *st, uint64_t term, uint32_t *iter,
    ngx_uint_t *steps, time_t now, time_t inactive, u_char *buf, size_t *len)
{
    ngx_int_t            rc;
    ngx_rt_entry_sh_t   *entry;
    ngx_rt_record_sh_t  *rec;

    ngx_rt_store_lock(st);

    if (ngx_rt_store_over(st, term)) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    rc = NGX_DONE;

    while (*steps && rc == NGX_DONE) {
        (*steps)--;

        if (++*iter >= st->sh->nentries) {
            *iter = 1;
        }

        entry = &st->entries[*iter];

        /* what is followed is stamped every second, hence the one more */

        if (!(entry->flags & NGX_RT_USED)
            || now - (time_t) entry->used <= inactive + 1)
        {
            continue;
        }

        rec = ngx_rt_log_at(st, entry->name);
        *len = rec->data_len;
        ngx_memcpy(buf, (u_char *) rec + sizeof(ngx_rt_record_sh_t), *len);

        ngx_rt_store_begin(st);
        ngx_rt_retain_room(st, sizeof(ngx_rt_record_sh_t));
        ngx_rt_retain_evict(st, *iter);
        st->sh->expired++;
        ngx_rt_store_end(st);

        rc = NGX_OK;
    }

    ngx_rt_store_unlock(st);

    return rc;
}
