
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Messages into the zone, one or many under one lock.  Of many each is a
 * change of its own that is finished before the next one begins, so a crash
 * leaves no more than one half-done, and readers see each as soon as it is
 * there.
 *
 * A message needs some ten lines of memory that no other one has needed
 * lately where there are thousands of channels.  Of many they are fetched
 * side by side, in the order in which one leads to the next:
 *
 *     expect   the entry, its rates
 *     post     the latest record, the oldest one; then the one after that
 */


#include <ngx_rt_store.h>


#define ngx_rt_post_fetch(p)      __builtin_prefetch(p, 1)


static void ngx_rt_post_ahead(ngx_rt_store_t *st, ngx_rt_post_t *posts,
    ngx_uint_t n);
static ngx_int_t ngx_rt_post_message(ngx_rt_store_t *st, uint32_t i,
    const ngx_rt_message_t *msg, const u_char *tag, uint64_t now,
    uint64_t *seq);
static ngx_int_t ngx_rt_post_put(ngx_rt_store_t *st, uint32_t i,
    const ngx_rt_message_t *msg, const u_char *tag, uint64_t now,
    uint64_t *seq);
static void ngx_rt_post_changed(ngx_rt_store_t *st, uint32_t i,
    const u_char *tag, uint64_t seq, uint64_t now);
static void ngx_rt_post_drop(ngx_rt_store_t *st, uint32_t i,
    const u_char *tag, uint64_t *seq);


#define ngx_rt_post_too_large(st, msg)                                        \
    ((msg)->data.len > (st)->message_max                                      \
     || (msg)->event.len > NGX_RT_EVENT_MAX                                   \
     || ngx_rt_log_size((msg)->event.len + (msg)->data.len)                   \
        > ngx_rt_log_max((st)->sh))


ngx_int_t
ngx_rt_store_publish(ngx_rt_store_t *st, uint64_t term, const ngx_str_t *name,
    const ngx_rt_message_t *msg, const u_char tag[NGX_RT_TAG_LEN],
    uint64_t now, ngx_uint_t create, uint64_t *seq)
{
    uint32_t      i;
    ngx_int_t     rc;
    ngx_rt_key_t  key;

    *seq = 0;

    if (name->len == 0 || name->len > NGX_RT_CHANNEL_MAX) {
        ngx_rt_store_dropped(st);
        return NGX_ERROR;
    }

    ngx_rt_table_key(st, name, &key);

    ngx_rt_store_lock(st);

    if (ngx_rt_store_term(st, term) != NGX_OK) {
        ngx_rt_store_unlock(st);
        return NGX_ABORT;
    }

    ngx_rt_store_begin(st);

    i = ngx_rt_table_find(st, &key);

    if (st->stream && i != NGX_RT_NONE
        && ngx_rt_sid_cmp(tag, st->entries[i].tag) <= 0)
    {
        ngx_rt_store_unlock(st);
        return NGX_DONE;
    }

    rc = NGX_OK;

    if (i == NGX_RT_NONE && !ngx_rt_post_too_large(st, msg)) {

        if (!create) {
            ngx_rt_store_unlock(st);
            return NGX_DECLINED;
        }

        i = ngx_rt_store_make(st, &key, name, (time_t) (now / 1000));

        if (i == NGX_RT_NONE) {
            ngx_rt_store_dropped(st);
            rc = NGX_ERROR;
        }
    }

    if (rc == NGX_OK) {
        rc = ngx_rt_post_message(st, i, msg, tag, now, seq);
    }

    ngx_rt_store_unlock(st);

    return rc;
}


ngx_uint_t
ngx_rt_store_post(ngx_rt_store_t *st, uint64_t term, ngx_rt_post_t *posts,
    ngx_uint_t n, uint64_t now)
{
    uint32_t        i;
    ngx_uint_t      k;
    ngx_rt_post_t  *post;

    ngx_rt_store_lock(st);

    if (ngx_rt_store_term(st, term) != NGX_OK) {
        ngx_rt_store_unlock(st);
        posts->rc = NGX_ABORT;
        return 1;
    }

    ngx_rt_store_begin(st);

    ngx_rt_post_ahead(st, posts, n);

    for (k = 0; k < n; k++) {
        post = &posts[k];

        i = ngx_rt_table_known(st, &post->key, post->entry);
        post->entry = i;
        post->seq = 0;

        if (i == NGX_RT_NONE && !ngx_rt_post_too_large(st, &post->msg)) {
            post->rc = NGX_DECLINED;
            k++;
            break;
        }

        if (i != NGX_RT_NONE && post->stamp) {
            ngx_rt_table_stamp(&st->entries[i], (time_t) (now / 1000));
        }

        post->rc = ngx_rt_post_message(st, i, &post->msg, post->tag, now,
                                       &post->seq);
    }

    ngx_rt_store_unlock(st);

    return k;
}


void
ngx_rt_store_expect(ngx_rt_store_t *st, const ngx_rt_key_t *key,
    uint32_t entry)
{
    u_char  *e;

    if (entry == NGX_RT_NONE || entry >= st->sh->nentries) {
        __builtin_prefetch(&st->buckets[key->h[0] & (st->sh->nbuckets - 1)]);
        return;
    }

    e = (u_char *) &st->entries[entry];

    ngx_rt_post_fetch(e);
    ngx_rt_post_fetch(e + 64);
    ngx_rt_post_fetch(&st->rates[entry]);
}


static void
ngx_rt_post_ahead(ngx_rt_store_t *st, ngx_rt_post_t *posts, ngx_uint_t n)
{
    ngx_uint_t           k;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec;

    if (n == 1) {
        return;
    }

    for (k = 0; k < n; k++) {

        if (posts[k].entry == NGX_RT_NONE
            || posts[k].entry >= st->sh->nentries)
        {
            continue;
        }

        e = &st->entries[posts[k].entry];

        ngx_rt_post_fetch(&ngx_rt_log_at(st, e->latest)->next);

        rec = ngx_rt_log_at(st, e->oldest);

        ngx_rt_post_fetch(rec);
        ngx_rt_post_fetch(&rec->next);
    }
}


/* i: the channel, NGX_RT_NONE only where the message is too large */

static ngx_int_t
ngx_rt_post_message(ngx_rt_store_t *st, uint32_t i,
    const ngx_rt_message_t *msg, const u_char *tag, uint64_t now,
    uint64_t *seq)
{
    ngx_int_t  rc;

    if (ngx_rt_post_too_large(st, msg)) {
        ngx_rt_post_drop(st, i, tag, seq);
        return NGX_ERROR;
    }

    if (st->embedded) {
        ngx_rt_store_trust(st, i);
    }

    rc = ngx_rt_post_put(st, i, msg, tag, now, seq);

    if (rc != NGX_OK) {
        ngx_rt_store_dropped(st);
    }

    return rc;
}


/*
 * Killed before commit: the message was never there.  Killed after it: it is
 * the last record of the log and newer than what its channel has, by which
 * the next writer knows to link it.
 */

static ngx_int_t
ngx_rt_post_put(ngx_rt_store_t *st, uint32_t i, const ngx_rt_message_t *msg,
    const u_char *tag, uint64_t now, uint64_t *seq)
{
    void                *dst;
    uint64_t             off;
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t   rec;

    sh = st->sh;
    e = &st->entries[i];

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));

    rec.size = (uint32_t) ngx_rt_log_size(msg->event.len + msg->data.len);
    rec.type = NGX_RT_MESSAGE;
    rec.flags = NGX_RT_LIVE;

    if (e->msg_seq && e->msg_seq < e->confirm_seq) {
        rec.flags |= NGX_RT_AFTER;
    }

    rec.event_len = (uint8_t) msg->event.len;
    rec.entry = i;
    rec.gen = e->gen;
    rec.time = (uint32_t) now;
    rec.data_len = (uint32_t) msg->data.len;
    ngx_memcpy(rec.tag, tag, NGX_RT_TAG_LEN);

    if (ngx_rt_retain_budget(st, rec.size, i) != NGX_OK) {
        return NGX_ERROR;
    }

    dst = ngx_rt_log_reserve(st, rec.size, &off);

    if (dst == NULL || e->gen != rec.gen) {
        return NGX_ERROR;
    }

    rec.seq = sh->seq + 1;
    rec.prev = e->latest;

    ngx_rt_log_write(dst, &rec, &msg->event, &msg->data);
    ngx_rt_log_commit(st, off + rec.size);

    ngx_rt_retain_link(st, off);

    ngx_rt_store_done(st, rec.seq);

    ngx_rt_post_changed(st, i, tag, rec.seq, now);

    ngx_rt_add(sh->messages, 1);
    ngx_rt_add(sh->bytes, msg->data.len);

    *seq = rec.seq;

    return NGX_OK;
}


/* of a stream the entry's own time counts: many may be read at once */

static void
ngx_rt_post_changed(ngx_rt_store_t *st, uint32_t i, const u_char *tag,
    uint64_t seq, uint64_t now)
{
    uint32_t  mark;
    uint64_t  at;

    at = now;
    mark = st->stream ? ngx_rt_rate_mark_sid(tag, &at) : ngx_rt_rate_mark(seq);

    ngx_rt_rate_change(st, i, mark, at, now);
}


/* a message that can't be kept: what is older isn't the latest any more */

static void
ngx_rt_post_drop(ngx_rt_store_t *st, uint32_t i, const u_char *tag,
    uint64_t *seq)
{
    uint64_t             off;
    ngx_rt_record_sh_t   rec;

    ngx_rt_store_dropped(st);

    if (i == NGX_RT_NONE) {
        return;
    }

    ngx_memzero(&rec, sizeof(ngx_rt_record_sh_t));

    rec.type = NGX_RT_DROP;
    rec.entry = i;
    rec.gen = st->entries[i].gen;
    ngx_memcpy(rec.tag, tag, NGX_RT_TAG_LEN);

    (void) ngx_rt_log_note(st, &rec, NULL, &off);

    if (st->entries[i].gen == rec.gen) {
        ngx_rt_retain_clear(st, i, rec.seq, st->stream ? tag : NULL);
    }

    ngx_rt_add(st->sh->feed.gaps, 1);

    ngx_rt_store_done(st, rec.seq);

    *seq = rec.seq;
}
