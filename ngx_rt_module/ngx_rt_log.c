
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The ring of records.
 *
 * The writer, one at a time under the mutex:
 *
 *     room     the tail passes old records until the new one fits and a
 *              quarter of the log is free besides (ngx_rt_retain.c says why
 *              that always ends)
 *     append   limit = the end of the new record, then a release fence
 *     write    the bytes
 *     commit   head = the end of the new record, release
 *
 * A writer killed between append and commit leaves head < limit.  The next
 * record is then simply written over the torn one: nobody reads beyond head,
 * and limit already tells readers of what was there one turn of the ring
 * before that it is gone.  Killed after commit it leaves a whole record.
 *
 * Readers take no lock.  They copy 8 bytes at a time by relaxed atomic loads,
 * put an acquire fence and look at limit.  If any of the loads saw a byte of
 * a writer's next turn, then the writer's fence before that store and the
 * reader's fence after that load make the new limit visible too: the copy is
 * thrown away.  All stores into the log are atomic as well, so what a reader
 * may copy in vain is old or new, and no data race.
 */


#include <ngx_rt_store.h>


#define NGX_RT_HEADER             sizeof(ngx_rt_record_sh_t)

/* how far before the tail bytes are fetched, and records looked at, for what
 * they lead to; how many bytes and records at once at most */
#define NGX_RT_LOG_AHEAD          8192
#define NGX_RT_LOG_SCOUT          4096
#define NGX_RT_LOG_FETCH          512
#define NGX_RT_LOG_LOOK           8


static ngx_uint_t ngx_rt_log_intact(ngx_rt_store_t *st, uint64_t off);
static void ngx_rt_log_load(u_char *dst, const u_char *src, size_t len);
static void ngx_rt_log_store(u_char *dst, const u_char *src, size_t len);
static void ngx_rt_log_ahead(ngx_rt_store_t *st, uint64_t passed);
static ngx_int_t ngx_rt_log_room(ngx_rt_store_t *st, size_t size);
static uint64_t ngx_rt_log_pad(ngx_rt_store_t *st, size_t size);


ngx_int_t
ngx_rt_log_peek(ngx_rt_store_t *st, uint64_t off, ngx_rt_record_sh_t *rec)
{
    u_char            *p;
    uint64_t           head, left, n;
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;
    head = __atomic_load_n(&sh->head, __ATOMIC_ACQUIRE);

    if (off == head) {
        return NGX_DONE;
    }

    if (off > head || off < sh->log_size || (off & 7)) {
        return NGX_DECLINED;
    }

    n = off % sh->log_size;
    p = st->log + n;
    left = sh->log_size - n;

    ngx_rt_log_load((u_char *) rec, p, 8);

    if (rec->type != NGX_RT_PAD) {

        if (left < NGX_RT_HEADER) {
            return NGX_DECLINED;
        }

        ngx_rt_log_load((u_char *) rec + 8, p + 8, NGX_RT_HEADER - 8);
    }

    if (!ngx_rt_log_intact(st, off)) {
        return NGX_DECLINED;
    }

    /* whole and below the head: what is wrong now is no record */

    if (rec->size < 8 || (rec->size & 7) || rec->size > left
        || rec->size > head - off)
    {
        return NGX_DECLINED;
    }

    if (rec->type == NGX_RT_PAD) {
        return NGX_OK;
    }

    if (rec->type < NGX_RT_PAD || rec->type > NGX_RT_SETTLED
        || (uint64_t) NGX_RT_HEADER + rec->event_len + rec->data_len
           > rec->size)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* the reader's last step: 1 if no writer had reached off before the fence */

static ngx_uint_t
ngx_rt_log_intact(ngx_rt_store_t *st, uint64_t off)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);

    return ngx_rt_get(st->sh->limit) <= off + st->sh->log_size;
}


ngx_int_t
ngx_rt_log_body(ngx_rt_store_t *st, uint64_t off,
    const ngx_rt_record_sh_t *rec, u_char *dst)
{
    u_char  *p;

    p = st->log + off % st->sh->log_size + NGX_RT_HEADER;

    ngx_rt_log_load(dst, p, (size_t) rec->event_len + rec->data_len);

    return ngx_rt_log_intact(st, off) ? NGX_OK : NGX_DECLINED;
}


/* src is in the log: aligned, and padded to 8 bytes */

static void
ngx_rt_log_load(u_char *dst, const u_char *src, size_t len)
{
    ngx_rt_word_t  word;

    for ( /* void */ ; len >= 8; len -= 8) {
        word = __atomic_load_n((const ngx_rt_word_t *) src, __ATOMIC_RELAXED);
        ngx_memcpy(dst, &word, 8);
        dst += 8;
        src += 8;
    }

    if (len) {
        word = __atomic_load_n((const ngx_rt_word_t *) src, __ATOMIC_RELAXED);
        ngx_memcpy(dst, &word, len);
    }
}


/* dst is in the log: zeros fill up the last 8 bytes */

static void
ngx_rt_log_store(u_char *dst, const u_char *src, size_t len)
{
    ngx_rt_word_t  word;

    for ( /* void */ ; len >= 8; len -= 8) {
        ngx_memcpy(&word, src, 8);
        __atomic_store_n((ngx_rt_word_t *) dst, word, __ATOMIC_RELAXED);
        dst += 8;
        src += 8;
    }

    if (len) {
        word = 0;
        ngx_memcpy(&word, src, len);
        __atomic_store_n((ngx_rt_word_t *) dst, word, __ATOMIC_RELAXED);
    }
}


void *
ngx_rt_log_reserve(ngx_rt_store_t *st, size_t size, uint64_t *off)
{
    if (size > ngx_rt_log_max(st->sh) || ngx_rt_log_room(st, size) != NGX_OK) {
        return NULL;
    }

    return ngx_rt_log_append(st, size, off);
}


/*
 * Moves the tail on until size bytes, the pad before them and the quarter
 * kept for carrying are free.  Each record that was there at the start is
 * passed once at most: what lies beyond is what was just carried forward.
 */

static ngx_int_t
ngx_rt_log_room(ngx_rt_store_t *st, size_t size)
{
    uint64_t           end, need, tail;
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;
    end = sh->head;
    tail = sh->tail;

    for ( ;; ) {
        need = ngx_rt_log_pad(st, size) + size + 2 * ngx_rt_log_max(sh);

        if (sh->head - sh->tail + need <= sh->log_size) {
            ngx_rt_log_ahead(st, sh->tail - tail);
            return NGX_OK;
        }

        if (sh->tail >= end || ngx_rt_retain_pass(st, size) != NGX_OK) {
            return NGX_ERROR;
        }
    }
}


/*
 * What the tail comes to was written one turn of the ring ago and is in no
 * cache any more, nor are the entries of these records and the records that
 * they lead to (ngx_rt_retain.c).  So the bytes are fetched some records
 * before, and a scout who follows them looks at the headers and has the rest
 * fetched.  He may lose the way: nothing but time depends on him.
 */

static void
ngx_rt_log_ahead(ngx_rt_store_t *st, uint64_t passed)
{
    uint32_t             n;
    uint64_t             off, end;
    ngx_uint_t           i;
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_record_sh_t  *rec;

    if (passed == 0) {
        return;
    }

    sh = st->sh;
    end = sh->tail + NGX_RT_LOG_AHEAD;

    for (off = end - ngx_min(passed, NGX_RT_LOG_FETCH); off < end; off += 64) {
        __builtin_prefetch(ngx_rt_log_at(st, off));
    }

    off = (st->scout > sh->tail) ? st->scout : sh->tail;

    for (i = 0; i < NGX_RT_LOG_LOOK && off < sh->tail + NGX_RT_LOG_SCOUT; i++)
    {
        n = ngx_rt_log_check(st, off, sh->head);

        if (n == 0) {
            off = sh->tail;
            break;
        }

        rec = ngx_rt_log_at(st, off);

        if (rec->type == NGX_RT_MESSAGE && (rec->flags & NGX_RT_LIVE)
            && rec->entry < sh->nentries)
        {
            __builtin_prefetch(&st->entries[rec->entry], 1);
            __builtin_prefetch(&st->entries[rec->entry].oldest, 1);
            __builtin_prefetch(ngx_rt_log_at(st, rec->next), 1);
        }

        off += n;
    }

    st->scout = off;
}


/* bytes up to the end of the ring, if a record doesn't fit in there */

static uint64_t
ngx_rt_log_pad(ngx_rt_store_t *st, size_t size)
{
    uint64_t  left;

    left = st->sh->log_size - ngx_rt_log_pos(st, st->sh->head);

    return (left < size) ? left : 0;
}


void *
ngx_rt_log_append(ngx_rt_store_t *st, size_t size, uint64_t *off)
{
    uint64_t             pad, end;
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_record_sh_t   rec;

    sh = st->sh;
    pad = ngx_rt_log_pad(st, size);
    end = sh->head + pad + size;

    if (end - sh->tail > sh->log_size) {
        return NULL;
    }

    if (end > sh->limit) {
        ngx_rt_set(sh->limit, end);
    }

    __atomic_thread_fence(__ATOMIC_RELEASE);

    NGX_RT_FAULT("append: limit");

    if (pad) {
        ngx_memzero(&rec, 8);
        rec.size = (uint32_t) pad;
        rec.type = NGX_RT_PAD;

        ngx_rt_log_store((u_char *) ngx_rt_log_at(st, sh->head),
                         (u_char *) &rec, 8);

        NGX_RT_FAULT("append: pad");
    }

    *off = sh->head + pad;

    return ngx_rt_log_at(st, *off);
}


/*
 * Event and payload follow each other without a gap: the word in which they
 * meet is put together aside.
 */

void
ngx_rt_log_write(void *dst, const ngx_rt_record_sh_t *rec,
    const ngx_str_t *event, const ngx_str_t *data)
{
    size_t   len, n;
    u_char  *p, *src, buf[NGX_RT_EVENT_MAX + 9];

    p = dst;

    ngx_rt_log_store(p, (u_char *) rec, NGX_RT_HEADER);
    p += NGX_RT_HEADER;

    NGX_RT_FAULT("write: header");

    src = data->data;
    len = data->len;

    if (event->len) {
        ngx_memcpy(buf, event->data, event->len);

        n = ngx_min(ngx_align(event->len, 8) - event->len, len);

        if (n) {
            ngx_memcpy(buf + event->len, src, n);
            src += n;
            len -= n;
        }

        ngx_rt_log_store(p, buf, event->len + n);
        p += ngx_align(event->len, 8);
    }

    ngx_rt_log_store(p, src, len);

    NGX_RT_FAULT("write: body");
}


void
ngx_rt_log_copy(void *dst, const ngx_rt_record_sh_t *rec)
{
    ngx_rt_log_store(dst, (u_char *) rec, rec->size);

    NGX_RT_FAULT("copy: body");
}


void
ngx_rt_log_commit(ngx_rt_store_t *st, uint64_t end)
{
    __atomic_store_n(&st->sh->head, end, __ATOMIC_RELEASE);

    NGX_RT_FAULT("commit: head");
}


ngx_int_t
ngx_rt_log_note(ngx_rt_store_t *st, ngx_rt_record_sh_t *rec,
    const ngx_str_t *data, uint64_t *off)
{
    void       *dst;
    ngx_str_t   none;

    ngx_str_null(&none);

    if (data == NULL) {
        data = &none;
    }

    rec->data_len = (uint32_t) data->len;
    rec->size = (uint32_t) ngx_rt_log_size(data->len);

    dst = ngx_rt_log_reserve(st, rec->size, off);

    /* after that, for what makes room may take numbers; the callers go on
     * with it also when there was none */

    rec->seq = st->sh->seq + 1;

    if (dst == NULL) {
        return NGX_ERROR;
    }

    ngx_rt_log_write(dst, rec, &none, data);
    ngx_rt_log_commit(st, *off + rec->size);

    return NGX_OK;
}


uint32_t
ngx_rt_log_check(ngx_rt_store_t *st, uint64_t off, uint64_t end)
{
    uint32_t             size;
    uint64_t             left, n;
    ngx_rt_record_sh_t  *rec;

    if ((off & 7) || off < st->sh->log_size || off >= end) {
        return 0;
    }

    n = ngx_rt_log_pos(st, off);
    rec = (ngx_rt_record_sh_t *) (st->log + n);
    left = st->sh->log_size - n;
    size = rec->size;

    if (size < 8 || (size & 7) || size > left || size > end - off) {
        return 0;
    }

    if (rec->type == NGX_RT_PAD) {
        return size;
    }

    if (rec->type < NGX_RT_PAD || rec->type > NGX_RT_SETTLED
        || size < NGX_RT_HEADER
        || (uint64_t) NGX_RT_HEADER + rec->event_len + rec->data_len > size)
    {
        return 0;
    }

    return size;
}
