
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Streams: what follows from what Redis says (ngx_rt_feed_req.c): messages, or
 * that some are missing.
 *
 * READ asks for the entry at the place again.  When it comes first, nothing
 * was trimmed between it and what follows: the data itself proves that nothing
 * is missing.  When it does not, XINFO decides.  entries-added is then what it
 * was when the place was the last id, and the number of entries after the
 * place that are there; any difference is an entry that came and went unread,
 * or another life of the key, and a gap.  A stream of which a reader was told
 * an entry that is not there any more has lost it.
 */


#include <ngx_rt_stream.h>
#include <hiredis/hiredis.h>


#define NGX_RT_PROOF_ROUNDS         16        /* of a stream, then its reader's
                                               others have their turn */


static ngx_uint_t ngx_rt_proof_proven(ngx_rt_stream_t *s,
    ngx_rt_stream_info_t *info, ngx_uint_t present, uint64_t newer,
    ngx_uint_t countable);
static ngx_int_t ngx_rt_proof_broken(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    const u_char *tag);
static ngx_int_t ngx_rt_proof_take(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    redisReply *list, size_t first, ngx_uint_t more);
static ngx_int_t ngx_rt_proof_store(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    redisReply *reply, ngx_uint_t alone);
static void ngx_rt_proof_dropped(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    const char *why);
static ngx_int_t ngx_rt_proof_id(redisReply *list, size_t i, u_char *tag);


ngx_int_t
ngx_rt_proof_read(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, redisReply *list,
    ngx_uint_t count)
{
    u_char      tag[NGX_RT_TAG_LEN];
    ngx_uint_t  proven;

    if (list->elements == 0 && ngx_rt_stream_none(s->tag)
        && ngx_rt_stream_none(s->seen))
    {
        /* there was nothing, and still is */
        return ngx_rt_proof_take(ss, s, list, 0, 0);
    }

    proven = list->elements
             && ngx_rt_proof_id(list, 0, tag) == NGX_OK
             && ngx_rt_sid_cmp(tag, s->tag) == 0;

    if (proven && ngx_rt_sid_cmp(s->seen, s->tag) > 0) {
        proven = list->elements > 1
                 && ngx_rt_proof_id(list, 1, tag) == NGX_OK
                 && ngx_rt_sid_cmp(tag, s->seen) == 0;
    }

    if (!proven) {
        ngx_rt_stream_ask(ss, s, NGX_RT_REQ_VERIFY);
        return NGX_OK;
    }

    return ngx_rt_proof_take(ss, s, list, 1, list->elements == count);
}


ngx_int_t
ngx_rt_proof_entry(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, redisReply *list)
{
    ngx_int_t  rc;

    if (list->elements == 0) {
        /* trimmed away meanwhile */
        ngx_rt_stream_ask(ss, s, NGX_RT_REQ_VERIFY);
        return NGX_OK;
    }

    ngx_memzero(s->seen, NGX_RT_TAG_LEN);

    rc = ngx_rt_proof_store(ss, s, list->element[0], 1);

    if (rc == NGX_OK) {
        ngx_rt_stream_ask(ss, s, NGX_RT_REQ_READ);
    }

    return (rc == NGX_DECLINED) ? NGX_OK : rc;
}


/*
 * All of it is of one moment.  newer: how many entries there are after the
 * place, when that can be told: all have come, or there are no older ones.
 */

ngx_int_t
ngx_rt_proof_verify(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    redisReply *reply, ngx_uint_t count)
{
    u_char                tag[NGX_RT_TAG_LEN];
    uint64_t              newer;
    ngx_int_t             rc;
    ngx_uint_t            present, more, countable, got, proven;
    redisReply           *list;
    ngx_rt_stream_info_t  info;

    list = reply->element[2];

    rc = ngx_rt_stream_info_read(reply->element[0], &info);

    if (rc != NGX_OK && rc != NGX_DECLINED) {
        return ngx_rt_req_wrong(ss, reply->element[0]);
    }

    if (rc == NGX_OK && !info.counted) {
        ss->uncounted = 1;
    }

    if (rc == NGX_DECLINED) {
        /* a stream that is not there has counted nothing */
        info.counted = 1;
    }

    present = list->elements
              && ngx_rt_proof_id(list, 0, tag) == NGX_OK
              && ngx_rt_sid_cmp(tag, s->tag) == 0;

    got = list->elements - present;
    more = (list->elements == count);
    countable = !more || reply->element[1]->elements == 0;
    newer = more ? info.length : got;

    proven = ngx_rt_proof_proven(s, &info, present, newer, countable);

    if (!proven && !s->counted && got
        && ngx_rt_proof_id(list, present, tag) == NGX_OK)
    {
        /* a place after a gap is that of no entry; a feeder that comes then
         * has no count, but there is no id between it and this one */

        proven = ngx_rt_sid_adjacent(s->tag, tag);
    }

    if (proven && ngx_rt_sid_cmp(s->seen, s->tag) > 0) {
        proven = got
                 && ngx_rt_proof_id(list, present, tag) == NGX_OK
                 && ngx_rt_sid_cmp(tag, s->seen) == 0;
    }

    ngx_memzero(s->seen, NGX_RT_TAG_LEN);

    if (countable && info.counted) {
        s->counted = 1;
        s->added = info.added - newer;

    } else if (!proven) {
        s->counted = 0;
    }

    if (!proven) {

        if (ngx_rt_sid_cmp(info.last, s->tag) < 0 && info.length) {

            /* it went back: nothing is known of what it is now */

            s->back = 1;
            ngx_rt_stream_ask(ss, s, NGX_RT_REQ_COLD);
            return NGX_OK;
        }

        if (got) {
            if (ngx_rt_proof_id(list, present, tag) != NGX_OK) {
                return ngx_rt_req_wrong(ss, list);
            }

            ngx_rt_sid_before(tag);

        } else {
            ngx_memcpy(tag, info.last, NGX_RT_TAG_LEN);
        }

        rc = ngx_rt_proof_broken(ss, s, tag);

        if (rc != NGX_OK) {
            return (rc == NGX_DECLINED) ? NGX_OK : rc;
        }
    }

    return ngx_rt_proof_take(ss, s, list, present, more);
}


static ngx_uint_t
ngx_rt_proof_proven(ngx_rt_stream_t *s, ngx_rt_stream_info_t *info,
    ngx_uint_t present, uint64_t newer, ngx_uint_t countable)
{
    ngx_int_t  order;

    order = ngx_rt_sid_cmp(info->last, s->tag);

    if (order < 0) {
        return 0;
    }

    if (present || order == 0) {
        return 1;
    }

    return countable && info->counted && s->counted
           && info->added == s->added + newer;
}


/* NGX_OK, NGX_DECLINED: s is gone, NGX_ABORT */

static ngx_int_t
ngx_rt_proof_broken(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, const u_char *tag)
{
    ngx_int_t       rc;
    ngx_rt_feed_t  *feed;

    feed = ss->feed;

    rc = ngx_rt_store_follow(feed->hub->store, feed->term, &s->node.str, tag,
                             1);

    if (rc == NGX_DECLINED) {
        ngx_rt_stream_drop(ss, s);
        return rc;
    }

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_memcpy(s->tag, tag, NGX_RT_TAG_LEN);

    s->live = 1;
    feed->notify = 1;

    return NGX_OK;
}


/*
 * The newest entries come first, and the reply may have been cut: all before
 * the cut are stored, oldest first.
 */

ngx_int_t
ngx_rt_proof_cold(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, redisReply *reply)
{
    size_t                 i;
    u_char                 tag[NGX_RT_TAG_LEN];
    ngx_int_t              rc;
    redisReply            *list;
    ngx_rt_entry_t         entry;
    ngx_rt_stream_info_t   info;

    list = reply->element[1];

    rc = ngx_rt_stream_info_read(reply->element[0], &info);

    if (rc != NGX_OK && rc != NGX_DECLINED) {
        return ngx_rt_req_wrong(ss, reply->element[0]);
    }

    for (i = 0; i < list->elements; i++) {

        rc = ngx_rt_entry_read(&ss->entries, ss->feed->hub->conf,
                               list->element[i], &entry);
        if (rc == NGX_ERROR) {
            return ngx_rt_req_wrong(ss, list);
        }

        if (rc == NGX_AGAIN) {
            break;
        }
    }

    s->counted = (info.counted || info.length == 0);
    s->added = info.added;

    if (list->elements) {
        if (ngx_rt_proof_id(list, i ? i - 1 : 0, tag) != NGX_OK) {
            return ngx_rt_req_wrong(ss, list);
        }

        ngx_rt_sid_before(tag);

    } else {
        ngx_memcpy(tag, info.last, NGX_RT_TAG_LEN);
    }

    if (s->back) {
        s->back = 0;

        rc = ngx_rt_proof_broken(ss, s, tag);

        if (rc != NGX_OK) {
            return (rc == NGX_DECLINED) ? NGX_OK : rc;
        }
    }

    ngx_memcpy(s->tag, tag, NGX_RT_TAG_LEN);
    ngx_memzero(s->seen, NGX_RT_TAG_LEN);

    if (list->elements && i == 0) {

        /* not even the newest one: it is asked for alone */

        s->added--;
        (void) ngx_rt_proof_id(list, 0, s->seen);
        ngx_rt_stream_ask(ss, s, NGX_RT_REQ_ENTRY);

        return NGX_OK;
    }

    while (i--) {
        rc = ngx_rt_proof_store(ss, s, list->element[i], 0);

        if (rc != NGX_OK) {
            return (rc == NGX_DECLINED) ? NGX_OK : rc;
        }
    }

    /* of the newest entry, or of one that was deleted since */

    if (!s->live) {
        ngx_memcpy(s->tag, info.last, NGX_RT_TAG_LEN);
    }

    s->added = info.added;

    return ngx_rt_stream_settle(ss, s);
}


/* the entries from first on follow on the place, and what is next */

static ngx_int_t
ngx_rt_proof_take(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, redisReply *list,
    size_t first, ngx_uint_t more)
{
    size_t     i;
    ngx_int_t  rc;

    for (i = first; i < list->elements; i++) {

        rc = ngx_rt_proof_store(ss, s, list->element[i], 0);

        if (rc == NGX_AGAIN) {
            (void) ngx_rt_proof_id(list, i, s->seen);
            ngx_rt_stream_ask(ss, s, NGX_RT_REQ_ENTRY);
            return NGX_OK;
        }

        if (rc != NGX_OK) {
            return (rc == NGX_DECLINED) ? NGX_OK : rc;
        }
    }

    ngx_memzero(s->seen, NGX_RT_TAG_LEN);

    if (s->kind != NGX_RT_REQ_NONE
        || (more && (!s->live || ++s->rounds < NGX_RT_PROOF_ROUNDS)))
    {
        ngx_rt_stream_ask(ss, s, NGX_RT_REQ_READ);
        return NGX_OK;
    }

    /* its reader will be woken by what is left */

    return ngx_rt_stream_settle(ss, s);
}


/*
 * NGX_OK, the place is its id; NGX_AGAIN: it is not whole; NGX_DECLINED: s is
 * gone; NGX_ABORT, NGX_ERROR.
 */

static ngx_int_t
ngx_rt_proof_store(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, redisReply *reply,
    ngx_uint_t alone)
{
    uint64_t         now, seq;
    ngx_int_t        rc;
    ngx_time_t      *tp;
    ngx_rt_feed_t   *feed;
    ngx_rt_entry_t   entry;

    feed = ss->feed;

    rc = ngx_rt_entry_read(&ss->entries, feed->hub->conf, reply, &entry);

    switch (rc) {

    case NGX_ERROR:
        ngx_rt_redis_error(feed->redis, entry.why, NULL);
        return NGX_ERROR;

    case NGX_AGAIN:

        if (!alone) {
            return NGX_AGAIN;
        }

        ngx_memzero(&entry.msg, sizeof(ngx_rt_message_t));
        entry.msg.data.len = feed->hub->conf->message_max + 1;

        break;

    case NGX_DECLINED:
        ngx_rt_store_dropped(feed->hub->store);
        ngx_rt_proof_dropped(ss, s, entry.why);
        goto done;
    }

    tp = ngx_timeofday();
    now = (uint64_t) tp->sec * 1000 + tp->msec;

    rc = ngx_rt_store_publish(feed->hub->store, feed->term, &s->node.str,
                              &entry.msg, entry.tag, now, 0, &seq);

    switch (rc) {

    case NGX_DECLINED:
        ngx_rt_stream_drop(ss, s);
        return NGX_DECLINED;

    case NGX_ABORT:
        return NGX_ABORT;

    case NGX_ERROR:
        ngx_rt_proof_dropped(ss, s, "larger than message_max");
        /* fall through */

    case NGX_OK:
        feed->notify = 1;
        break;

    default: /* NGX_DONE: it is there already */
        break;
    }

done:

    ngx_memcpy(s->tag, entry.tag, NGX_RT_TAG_LEN);
    s->added++;

    return NGX_OK;
}


static void
ngx_rt_proof_dropped(ngx_rt_streams_t *ss, ngx_rt_stream_t *s, const char *why)
{
    u_char          id[NGX_RT_SID_LEN];
    size_t          len;
    ngx_uint_t      n;
    ngx_rt_feed_t  *feed;

    feed = ss->feed;

    if (ngx_rt_pubsub_may_log(&feed->dropped, &n)) {
        len = ngx_rt_sid_format(id, s->tag) - id;

        ngx_log_error(NGX_LOG_WARN, feed->hub->log, 0,
                      "rt_hub \"%V\": message to \"%V\" after %*s dropped: %s "
                      "(%ui more)", &feed->hub->conf->name, &s->node.str,
                      len, id, why, n);
    }
}


/* the id of the entry i; NGX_OK or NGX_ERROR */

static ngx_int_t
ngx_rt_proof_id(redisReply *list, size_t i, u_char *tag)
{
    redisReply  *entry, *id;

    entry = list->element[i];

    if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2) {
        return NGX_ERROR;
    }

    id = entry->element[0];

    if (id->type != REDIS_REPLY_STRING
        || ngx_rt_sid_parse(tag, (u_char *) id->str, id->len) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}
