
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Channels whose snapshot is owed: confirmed, but Redis has yet to say what
 * their latest is.  The zone itself is the list, a flag in each entry, so it
 * is never longer than the table and goes over to another feeder with it.
 *
 * Killed on the way: the feeder's session ends with it, and what the next
 * one confirms is owed anew.
 */


#include <ngx_rt_store.h>


static ngx_uint_t ngx_rt_owed(ngx_rt_store_t *st, uint32_t i,
    ngx_rt_view_t *view);


ngx_int_t
ngx_rt_owed_look(ngx_rt_store_t *st, uint64_t term, const ngx_str_t *name,
    ngx_rt_view_t *view)
{
    uint32_t      i;
    ngx_int_t     rc;
    ngx_rt_key_t  key;

    ngx_rt_table_key(st, name, &key);

    ngx_rt_store_lock(st);

    rc = ngx_rt_store_term(st, term);

    if (rc == NGX_OK) {
        i = ngx_rt_table_find(st, &key);

        if (i == NGX_RT_NONE || !ngx_rt_owed(st, i, view)) {
            rc = NGX_DECLINED;
        }
    }

    ngx_rt_store_unlock(st);

    return rc;
}


static ngx_uint_t
ngx_rt_owed(ngx_rt_store_t *st, uint32_t i, ngx_rt_view_t *view)
{
    ngx_rt_table_copy(st, i, view);

    return (st->entries[i].flags & NGX_RT_USED)
           && view->confirmed
           && ngx_rt_view_owed(view);
}


ngx_int_t
ngx_rt_owed_next(ngx_rt_store_t *st, uint64_t term, uint32_t *iter,
    ngx_uint_t *steps, ngx_rt_view_t *view, u_char *buf, size_t *len)
{
    ngx_int_t  rc;

    ngx_rt_store_lock(st);

    rc = ngx_rt_store_term(st, term);

    while (rc == NGX_OK) {

        if (*iter + 1 >= st->sh->top) {
            rc = NGX_DONE;
            break;
        }

        if (*steps == 0) {
            rc = NGX_AGAIN;
            break;
        }

        (*steps)--;

        if (ngx_rt_owed(st, ++*iter, view)) {
            *len = ngx_rt_retain_name_copy(st, *iter, buf);
            break;
        }
    }

    ngx_rt_store_unlock(st);

    return rc;
}


ngx_int_t
ngx_rt_owed_settle(ngx_rt_store_t *st, uint64_t term,
    const ngx_rt_view_t *view, ngx_uint_t sure)
{
    uint64_t             off;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t   rec;

    e = &st->entries[view->entry];

    ngx_rt_store_lock(st);

    if (ngx_rt_store_term(st, term) != NGX_OK) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    if (e->gen != view->gen || !(e->flags & NGX_RT_OWED)) {
        ngx_rt_store_unlock(st);
        return NGX_OK;
    }

    ngx_rt_store_begin(st);

    /* before the record: who reads that finds it settled */

    ngx_rt_set(e->flags, (e->flags & ~NGX_RT_OWED)
                         | (sure ? NGX_RT_SURE : 0));

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));

    rec.type = NGX_RT_SETTLED;
    rec.entry = view->entry;
    rec.gen = view->gen;

    (void) ngx_rt_log_note(st, &rec, NULL, &off);

    ngx_rt_store_done(st, rec.seq);

    ngx_rt_store_unlock(st);

    return NGX_OK;
}
