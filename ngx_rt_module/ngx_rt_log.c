
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The ring.  One writer at a time, the holder of the mutex; any number of
 * readers, who hold nothing.
 *
 * The writer stores limit, fences, and only then touches what lies below it;
 * a reader copies, fences, and only then loads limit.  So a reader that sees
 * limit <= off + log_size has copied bytes that nobody was writing.  A writer
 * killed between reserve and commit leaves head < limit: the next one turns
 * that space into a pad (ngx_rt_store_lock).
 */


#include <ngx_rt_shared.h>


static ngx_uint_t ngx_rt_log_intact(ngx_rt_store_t *st, uint64_t off);


ngx_int_t
ngx_rt_log_peek(ngx_rt_store_t *st, uint64_t off, ngx_rt_record_sh_t *rec)
{
    uint64_t           head, words[sizeof(ngx_rt_record_sh_t) / 8], *p;
    ngx_uint_t         i;
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;

    head = __atomic_load_n(&sh->head, __ATOMIC_ACQUIRE);

    if (off == head) {
        return NGX_DONE;
    }

    if (off > head || (off & 7) || !ngx_rt_log_intact(st, off)) {
        return NGX_DECLINED;
    }

    p = (uint64_t *) ngx_rt_log_at(st, off);

    words[0] = __atomic_load_n(&p[0], __ATOMIC_RELAXED);
    ngx_memcpy(rec, words, 8);

    if (rec->type != NGX_RT_PAD) {

        if (off % sh->log_size + sizeof(ngx_rt_record_sh_t) > sh->log_size) {
            return NGX_DECLINED;
        }

        for (i = 1; i < sizeof(ngx_rt_record_sh_t) / 8; i++) {
            words[i] = __atomic_load_n(&p[i], __ATOMIC_RELAXED);
        }

        ngx_memcpy(rec, words, sizeof(ngx_rt_record_sh_t));
    }

    if (!ngx_rt_log_intact(st, off)
        || rec->size < 8 || (rec->size & 7) || rec->size > head - off
        || (rec->type != NGX_RT_PAD
            && rec->size < sizeof(ngx_rt_record_sh_t)
                           + rec->event_len + rec->data_len))
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_rt_log_intact(ngx_rt_store_t *st, uint64_t off)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);

    return __atomic_load_n(&st->sh->limit, __ATOMIC_RELAXED)
           <= off + st->sh->log_size;
}


/* races with an overwriting writer by design: what was torn is told apart by
 * the check afterwards and thrown away */

#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread")))
#endif
ngx_int_t
ngx_rt_log_body(ngx_rt_store_t *st, uint64_t off,
    const ngx_rt_record_sh_t *rec, u_char *dst)
{
    const u_char  *p;

    p = (const u_char *) ngx_rt_log_at(st, off) + sizeof(ngx_rt_record_sh_t);

    ngx_memcpy(dst, p, (size_t) rec->event_len + rec->data_len);

    return ngx_rt_log_intact(st, off) ? NGX_OK : NGX_DECLINED;
}


ngx_rt_record_sh_t *
ngx_rt_log_reserve(ngx_rt_store_t *st, size_t size, uint64_t *off)
{
    uint64_t             head, left;
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_record_sh_t  *rec;

    sh = st->sh;
    head = sh->head;

    left = sh->log_size - head % sh->log_size;

    if (left >= size) {
        left = 0;
    }

    __atomic_store_n(&sh->limit, head + left + size, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);

    NGX_RT_FAULT("log reserve");

    if (left) {
        rec = ngx_rt_log_at(st, head);
        rec->size = (uint32_t) left;
        rec->type = NGX_RT_PAD;
        rec->flags = 0;
    }

    *off = head + left;

    rec = ngx_rt_log_at(st, *off);
    rec->size = (uint32_t) size;

    return rec;
}


void
ngx_rt_log_commit(ngx_rt_store_t *st)
{
    NGX_RT_FAULT("log commit");

    __atomic_store_n(&st->sh->head, st->sh->limit, __ATOMIC_RELEASE);
}


uint64_t
ngx_rt_log_write(ngx_rt_store_t *st, const ngx_rt_record_sh_t *head,
    const u_char *event, const u_char *data)
{
    u_char              *p;
    size_t               size;
    uint64_t             off;
    ngx_rt_record_sh_t  *rec;

    size = ngx_rt_log_size((size_t) head->event_len + head->data_len);

    rec = ngx_rt_log_reserve(st, size, &off);

    *rec = *head;
    rec->size = (uint32_t) size;

    p = (u_char *) rec + sizeof(ngx_rt_record_sh_t);

    if (head->event_len) {
        p = ngx_cpymem(p, event, head->event_len);
    }

    if (head->data_len) {
        ngx_memcpy(p, data, head->data_len);
    }

    ngx_rt_log_commit(st);

    return off;
}
