
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Plain pub/sub: what the feeder makes of the messages.
 */


#include <ngx_rt_source.h>
#include <hiredis/hiredis.h>


#define NGX_RT_FEED_SCRATCH       65536     /* kept between messages */

#define ngx_rt_pubsub_what(by)                                                \
    ((by) == NGX_RT_BY_SNAPSHOT ? "snapshot of" : "message to")


static ngx_int_t ngx_rt_pubsub_json(ngx_rt_feed_t *feed,
    ngx_rt_message_t *msg, const ngx_str_t *payload, const char **why);
static ngx_int_t ngx_rt_pubsub_publish(ngx_rt_feed_t *feed,
    const ngx_str_t *name, ngx_rt_message_t *msg, ngx_uint_t by);


/*
 *     "message",           channel, payload
 *     "pmessage", pattern, channel, payload
 *
 * A nil is a string too large to be ours.
 */

ngx_int_t
ngx_rt_pubsub_push(ngx_rt_feed_t *feed, redisReply *reply)
{
    size_t                  i;
    ngx_str_t               name, *prefix;
    redisReply             *pattern, *channel, *payload;
    ngx_rt_feed_pattern_t  *covered;

    i = (reply->element[0]->str[0] == 'p') ? 1 : 0;

    if (reply->elements != 3 + i) {
        goto invalid;
    }

    pattern = reply->element[1];
    channel = reply->element[1 + i];
    payload = reply->element[2 + i];

    if ((pattern->type != REDIS_REPLY_STRING
         && pattern->type != REDIS_REPLY_NIL)
        || (channel->type != REDIS_REPLY_STRING
            && channel->type != REDIS_REPLY_NIL)
        || (payload->type != REDIS_REPLY_STRING
            && payload->type != REDIS_REPLY_NIL))
    {
        goto invalid;
    }

    prefix = &feed->hub->conf->prefix;

    if (channel->type == REDIS_REPLY_NIL
        || channel->len < prefix->len
        || (prefix->len
            && ngx_memcmp(channel->str, prefix->data, prefix->len) != 0))
    {
        ngx_rt_pubsub_drop(feed, NULL, "no name of a channel", i);
        return NGX_OK;
    }

    name.data = (u_char *) channel->str + prefix->len;
    name.len = channel->len - prefix->len;

    if (ngx_rt_channel_check(&name) != NGX_OK) {
        ngx_rt_pubsub_drop(feed, NULL, "no name of a channel", i);
        return NGX_OK;
    }

    if (name.len >= sizeof(NGX_RT_MARKER) - 1
        && ngx_memcmp(name.data, NGX_RT_MARKER, sizeof(NGX_RT_MARKER) - 1)
           == 0)
    {
        /* by name: ours; by a pattern: also that of other nodes */

        return (i == 0 && name.len == feed->marker.len
                && ngx_memcmp(name.data, feed->marker.data, name.len) == 0)
               ? ngx_rt_handover_marked(feed, payload) : NGX_OK;
    }

    if (feed->heir) {
        /* before the marker: the feeder stores it */
        return NGX_OK;
    }

    if (i) {
        covered = ngx_rt_pubsub_covered(feed, &name);

        if (covered == NULL
            || pattern->len != covered->name.len
            || pattern->str == NULL
            || ngx_memcmp(pattern->str, covered->name.data, pattern->len)
               != 0)
        {
            /* another one has brought it already, or will */
            return NGX_OK;
        }
    }

    return ngx_rt_pubsub_message(feed, &name, payload, i);

invalid:

    ngx_rt_redis_error(feed->redis, "message of a wrong shape", NULL);

    return NGX_ERROR;
}


ngx_int_t
ngx_rt_pubsub_message(ngx_rt_feed_t *feed, const ngx_str_t *name,
    redisReply *payload, ngx_uint_t by)
{
    ngx_int_t           rc;
    ngx_str_t           text;
    const char         *why;
    ngx_rt_message_t    msg;
    ngx_rt_hub_conf_t  *conf;

    conf = feed->hub->conf;

    ngx_memzero(&msg, sizeof(ngx_rt_message_t));

    if (payload->type == REDIS_REPLY_NIL) {

        /* the store looks at the length alone */

        msg.data.len = conf->message_max + 1;

        return ngx_rt_pubsub_publish(feed, name, &msg, by);
    }

    text.data = (u_char *) payload->str;
    text.len = payload->len;

    if (conf->payload == NGX_RT_PAYLOAD_RAW) {
        msg.data = text;

        return ngx_rt_pubsub_publish(feed, name, &msg, by);
    }

    rc = ngx_rt_pubsub_json(feed, &msg, &text, &why);

    if (rc == NGX_DECLINED) {
        ngx_rt_pubsub_drop(feed, name, why, by);
        return NGX_OK;
    }

    if (rc == NGX_OK) {
        rc = ngx_rt_pubsub_publish(feed, name, &msg, by);
    }

    if (feed->scratch_size > NGX_RT_FEED_SCRATCH) {
        ngx_free(feed->scratch);
        feed->scratch = NULL;
        feed->scratch_size = 0;
    }

    return rc;
}


static ngx_int_t
ngx_rt_pubsub_json(ngx_rt_feed_t *feed, ngx_rt_message_t *msg,
    const ngx_str_t *payload, const char **why)
{
    size_t  size;

    if (feed->scratch_size < payload->len || feed->scratch == NULL) {

        if (feed->scratch) {
            ngx_free(feed->scratch);
        }

        size = ngx_max(payload->len, NGX_RT_FEED_SCRATCH);

        feed->scratch_size = 0;
        feed->scratch = ngx_alloc(size, feed->hub->log);

        if (feed->scratch == NULL) {
            ngx_rt_redis_error(feed->redis, "no memory", NULL);
            return NGX_ERROR;
        }

        feed->scratch_size = size;
    }

    return ngx_rt_message_json(msg, payload, feed->scratch, why);
}


/*
 * A channel that a pattern covers is made when its first message comes, and
 * confirmed before that message is stored: continuity begins with it.  While
 * the table is not yet warm, a known one may have to be confirmed, too.
 */

static ngx_int_t
ngx_rt_pubsub_publish(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_rt_message_t *msg, ngx_uint_t by)
{
    ngx_int_t      rc;
    ngx_uint_t     queued, pattern;
    ngx_rt_key_t   key;
    ngx_rt_view_t  view;

    if (by == NGX_RT_BY_SNAPSHOT) {
        return ngx_rt_snapshot_take(feed, name, msg);
    }

    pattern = (by == NGX_RT_BY_PATTERN);

    if (pattern) {
        /* kept for whoever comes: a message is use enough */

        ngx_rt_table_key(feed->hub->store, name, &key);
        (void) ngx_rt_table_look(feed->hub->store, &key, ngx_time(), &view);
    }

    if (pattern && !feed->warm) {
        rc = ngx_rt_pubsub_confirm(feed, name);

        if (rc == NGX_ABORT) {
            return rc;
        }
    }

    rc = ngx_rt_pubsub_store(feed, name, msg, by);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    if (!pattern) {
        /* evicted: nobody has asked for it since */
        return ngx_rt_pubsub_unsubscribe(feed, name);
    }

    if (ngx_rt_store_touch(feed->hub->store, name, ngx_time(), &view, &queued)
        != NGX_OK)
    {
        ngx_rt_pubsub_drop(feed, name, "no room for another channel", by);
        return NGX_OK;
    }

    rc = ngx_rt_pubsub_confirm(feed, name);

    if (rc == NGX_OK) {
        rc = ngx_rt_pubsub_store(feed, name, msg, by);
    }

    /* evicted at once: the zone is much too small */

    return (rc == NGX_DECLINED) ? NGX_OK : rc;
}


ngx_int_t
ngx_rt_pubsub_store(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_rt_message_t *msg, ngx_uint_t by)
{
    u_char       tag[NGX_RT_TAG_LEN];
    uint64_t     now, seq;
    ngx_int_t    rc;
    ngx_uint_t   n;
    ngx_time_t  *tp;

    tp = ngx_timeofday();
    now = (uint64_t) tp->sec * 1000 + tp->msec;

    ngx_memzero(tag, NGX_RT_TAG_LEN);

    /* one that is too large is not looked at, and there may be no data */

    if (msg->data.len <= feed->hub->conf->message_max) {
        ngx_rt_message_digest(name, msg, tag);
    }

    rc = ngx_rt_store_publish(feed->hub->store, feed->term, name, msg, tag,
                              now, 0, &seq);

    if (rc == NGX_OK || rc == NGX_ERROR) {
        feed->notify = 1;
    }

    if (rc != NGX_ERROR) {
        return rc;
    }

    /* counted by the store */

    if (ngx_rt_pubsub_may_log(&feed->dropped, &n)) {
        ngx_log_error(NGX_LOG_WARN, feed->hub->log, 0,
                      "rt_hub \"%V\": %s \"%V\" dropped: larger than "
                      "message_max (%ui more)", &feed->hub->conf->name,
                      ngx_rt_pubsub_what(by), name, n);
    }

    return NGX_OK;
}


void
ngx_rt_pubsub_drop(ngx_rt_feed_t *feed, const ngx_str_t *name,
    const char *why, ngx_uint_t by)
{
    ngx_uint_t        n;
    static ngx_str_t  unknown = ngx_string("?");

    ngx_rt_store_dropped(feed->hub->store);

    if (ngx_rt_pubsub_may_log(&feed->dropped, &n)) {
        ngx_log_error(NGX_LOG_WARN, feed->hub->log, 0,
                      "rt_hub \"%V\": %s \"%V\" dropped: %s "
                      "(%ui more)", &feed->hub->conf->name,
                      ngx_rt_pubsub_what(by), name ? name : &unknown, why, n);
    }
}


ngx_uint_t
ngx_rt_pubsub_may_log(ngx_rt_feed_log_t *limit, ngx_uint_t *suppressed)
{
    time_t  now;

    now = ngx_time();

    if (limit->last == now) {
        limit->suppressed++;
        return 0;
    }

    *suppressed = limit->suppressed;

    limit->last = now;
    limit->suppressed = 0;

    return 1;
}
