
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The feeder's work: which channels to subscribe, which to leave.
 *
 * The queue is linked through the entries, feed.want is its head; whoever
 * changes it holds the mutex.  The flag QUEUED is set before an entry is
 * linked and cleared after it was taken out, so a crash leaves a flag without
 * a place at worst, and the next writer gives it one.
 */


#include <ngx_rt_store.h>


/*
 * An entry may have been freed, and even be another channel's by now, while
 * it was in the queue: it stays in it, as what it is when it comes up.
 */

ngx_int_t
ngx_rt_store_want(ngx_rt_store_t *st, uint64_t term, u_char *buf, size_t *len,
    ngx_rt_place_t *place)
{
    uint32_t            i;
    ngx_int_t           rc;
    ngx_rt_feed_sh_t   *feed;
    ngx_rt_entry_sh_t  *e;

    feed = &st->sh->feed;
    rc = NGX_DONE;

    ngx_rt_store_lock(st);

    if (ngx_rt_store_term(st, term) != NGX_OK) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    if (feed->want == NGX_RT_NONE) {
        ngx_rt_store_unlock(st);
        return NGX_DONE;
    }

    ngx_rt_store_begin(st);

    while (feed->want != NGX_RT_NONE && feed->want < st->sh->top) {
        i = feed->want;
        e = &st->entries[i];

        ngx_rt_set(feed->want, e->want);

        NGX_RT_FAULT("want: taken");

        ngx_rt_set(e->flags, e->flags & ~NGX_RT_QUEUED);

        if (e->flags & NGX_RT_USED) {
            *len = ngx_rt_retain_name_copy(st, i, buf);

            if (place) {
                place->known = (e->session != 0);
                ngx_memcpy(place->tag, e->tag, NGX_RT_TAG_LEN);
            }

            rc = NGX_OK;
            break;
        }
    }

    ngx_rt_store_unlock(st);

    return rc;
}


ngx_int_t
ngx_rt_store_want_all(ngx_rt_store_t *st, uint64_t term,
    ngx_uint_t unconfirmed)
{
    uint32_t            i;
    ngx_int_t           n;
    ngx_rt_entry_sh_t  *e;

    ngx_rt_store_lock(st);

    if (ngx_rt_store_term(st, term) != NGX_OK) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    ngx_rt_store_begin(st);

    n = 0;

    for (i = 1; i < st->sh->top; i++) {
        e = &st->entries[i];

        if (!(e->flags & NGX_RT_USED)
            || (unconfirmed && e->session == st->sh->feed.session))
        {
            continue;
        }

        ngx_rt_table_want(st, i);
        n++;
    }

    ngx_rt_store_unlock(st);

    return n;
}


ngx_int_t
ngx_rt_store_walk(ngx_rt_store_t *st, uint32_t *iter, u_char *buf,
    size_t *len)
{
    ngx_int_t  rc;

    rc = NGX_DONE;

    ngx_rt_store_lock(st);

    while (++*iter < st->sh->top) {

        if (st->entries[*iter].flags & NGX_RT_USED) {
            *len = ngx_rt_retain_name_copy(st, *iter, buf);
            rc = NGX_OK;
            break;
        }
    }

    ngx_rt_store_unlock(st);

    return rc;
}


ngx_int_t
ngx_rt_store_expire(ngx_rt_store_t *st, uint64_t term, uint32_t *iter,
    ngx_uint_t *steps, time_t now, time_t inactive, u_char *buf, size_t *len)
{
    uint32_t            used;
    ngx_int_t           rc;
    ngx_rt_zone_sh_t   *sh;
    ngx_rt_entry_sh_t  *e;

    sh = st->sh;
    rc = NGX_DONE;

    ngx_rt_store_lock(st);

    if (ngx_rt_store_term(st, term) != NGX_OK) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    while (*steps) {
        (*steps)--;

        if (++*iter >= sh->top) {
            *iter = 1;

            if (sh->top == 1) {
                break;
            }
        }

        e = &st->entries[*iter];
        used = (uint32_t) now - ngx_rt_get(e->used);

        if (!(e->flags & NGX_RT_USED) || (int32_t) used < 0
            || (time_t) used <= inactive)
        {
            continue;
        }

        ngx_rt_store_begin(st);

        *len = ngx_rt_retain_name_copy(st, *iter, buf);
        ngx_rt_retain_forget(st, *iter);
        ngx_rt_add(sh->expired, 1);

        rc = NGX_OK;
        break;
    }

    ngx_rt_store_unlock(st);

    return rc;
}


/* session 0 would be a channel that was never followed */

ngx_int_t
ngx_rt_store_unfollow(ngx_rt_store_t *st, uint64_t term,
    const ngx_str_t *name)
{
    uint32_t            i;
    ngx_int_t           rc;
    ngx_rt_entry_sh_t  *e;

    rc = ngx_rt_store_named(st, term, name, &i);

    if (rc != NGX_OK) {
        return rc;
    }

    e = &st->entries[i];

    if (e->session == st->sh->feed.session && e->session > 1) {
        ngx_rt_store_begin(st);
        ngx_rt_set(e->session, e->session - 1);
    }

    ngx_rt_store_unlock(st);

    return NGX_OK;
}
