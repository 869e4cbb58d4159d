
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Plain pub/sub: what the feeder makes of the messages.  Those that were read
 * at once are stored together, in their order.
 */


#include <ngx_rt_pubsub.h>


#define NGX_RT_FEED_SCRATCH       65536     /* kept between messages */

#define ngx_rt_pubsub_what(by)                                                \
    ((by) == NGX_RT_BY_SNAPSHOT ? "snapshot of" : "message to")


static ngx_uint_t ngx_rt_pubsub_is_marker(ngx_rt_feed_t *feed,
    const ngx_str_t *channel, ngx_str_t *name);
static ngx_int_t ngx_rt_pubsub_marker(ngx_rt_feed_t *feed,
    const ngx_str_t *name, const ngx_rt_push_t *push);
static ngx_int_t ngx_rt_pubsub_take(ngx_rt_feed_t *feed,
    const ngx_rt_push_t *push, uint64_t hash, size_t at);
static ngx_uint_t ngx_rt_pubsub_by(const ngx_str_t *pattern,
    ngx_rt_feed_pattern_t *covered);
static ngx_int_t ngx_rt_pubsub_post(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_pubsub_posted(ngx_rt_feed_t *feed, ngx_uint_t i,
    ngx_uint_t n);
static ngx_int_t ngx_rt_pubsub_read(ngx_rt_feed_t *feed,
    ngx_rt_message_t *msg, const ngx_str_t *payload, size_t at,
    const char **why);
static ngx_int_t ngx_rt_pubsub_scratch(ngx_rt_feed_t *feed, size_t size);
static void ngx_rt_pubsub_trim(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_pubsub_publish(ngx_rt_feed_t *feed,
    const ngx_str_t *name, ngx_rt_message_t *msg, ngx_uint_t by);
static ngx_int_t ngx_rt_pubsub_missing(ngx_rt_feed_t *feed,
    const ngx_str_t *name, ngx_rt_message_t *msg, ngx_uint_t by);
static void ngx_rt_pubsub_tag(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_rt_message_t *msg, const ngx_rt_digest_t *begun, u_char *tag);
static void ngx_rt_pubsub_stored(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_int_t rc, ngx_uint_t by);


/*
 * What is known of the channel is looked at when there are some more, by when
 * it has been fetched.
 */

ngx_int_t
ngx_rt_pubsub_push(ngx_rt_feed_t *feed, const ngx_rt_push_t *push)
{
    ngx_str_t             name;
    ngx_rt_feed_batch_t  *batch;

    if (ngx_rt_pubsub_is_marker(feed, &push->channel, &name)) {
        return ngx_rt_pubsub_marker(feed, &name, push);
    }

    if (feed->heir) {
        /* before the marker: the feeder stores it */
        return NGX_OK;
    }

    batch = feed->batch;

    if (batch == NULL) {

        batch = ngx_alloc(sizeof(ngx_rt_feed_batch_t), feed->hub->log);
        if (batch == NULL) {
            ngx_rt_redis_error(feed->redis, "no memory", NULL);
            return NGX_ERROR;
        }

        batch->n = 0;
        batch->nposts = 0;
        feed->batch = batch;
    }

    batch->pushes[batch->n] = *push;
    batch->hashes[batch->n] = ngx_rt_names_expect(feed, &push->channel);

    if (++batch->n < NGX_RT_FEED_BATCH) {
        return NGX_OK;
    }

    return ngx_rt_pubsub_flush(feed);
}


static ngx_uint_t
ngx_rt_pubsub_is_marker(ngx_rt_feed_t *feed, const ngx_str_t *channel,
    ngx_str_t *name)
{
    ngx_str_t  *prefix;

    prefix = &feed->hub->conf->prefix;

    if (channel->len < prefix->len + sizeof(NGX_RT_MARKER) - 1
        || ngx_memcmp(channel->data + prefix->len, NGX_RT_MARKER,
                      sizeof(NGX_RT_MARKER) - 1)
           != 0
        || (prefix->len
            && ngx_memcmp(channel->data, prefix->data, prefix->len) != 0))
    {
        return 0;
    }

    name->data = channel->data + prefix->len;
    name->len = channel->len - prefix->len;

    return ngx_rt_channel_check(name) == NGX_OK;
}


/* by name: ours; by a pattern: also that of other nodes */

static ngx_int_t
ngx_rt_pubsub_marker(ngx_rt_feed_t *feed, const ngx_str_t *name,
    const ngx_rt_push_t *push)
{
    ngx_int_t  rc;

    if (push->matched
        || name->len != feed->marker.len
        || ngx_memcmp(name->data, feed->marker.data, name->len) != 0)
    {
        return NGX_OK;
    }

    /* all that came before it is stored first */

    rc = ngx_rt_pubsub_flush(feed);

    return (rc == NGX_OK) ? ngx_rt_handover_marked(feed, &push->data) : rc;
}


ngx_int_t
ngx_rt_pubsub_flush(ngx_rt_feed_t *feed)
{
    size_t                scratch;
    ngx_int_t             rc;
    ngx_uint_t            i, n;
    ngx_rt_feed_batch_t  *batch;

    batch = feed->batch;

    if (batch == NULL || batch->n == 0) {
        return NGX_OK;
    }

    n = batch->n;
    batch->n = 0;

    for (i = 0, scratch = 0; i < n; i++) {
        scratch += batch->pushes[i].data.len;
    }

    rc = ngx_rt_pubsub_scratch(feed, scratch);

    for (i = 0, scratch = 0; i < n && rc == NGX_OK; i++) {
        rc = ngx_rt_pubsub_take(feed, &batch->pushes[i], batch->hashes[i],
                                scratch);

        scratch += batch->pushes[i].data.len;
    }

    if (rc == NGX_OK) {
        rc = ngx_rt_pubsub_post(feed);
    }

    batch->nposts = 0;

    ngx_rt_pubsub_trim(feed);
    ngx_rt_pubsub_notify(feed);

    return rc;
}


/*
 * Puts a message to those that are to be stored; at: in scratch.  While the
 * table is not yet warm the channel may have to be confirmed, and each message
 * is stored for itself.
 */

static ngx_int_t
ngx_rt_pubsub_take(ngx_rt_feed_t *feed, const ngx_rt_push_t *push,
    uint64_t hash, size_t at)
{
    ngx_int_t             rc;
    ngx_str_t            *name;
    const char           *why;
    ngx_rt_post_t        *post;
    ngx_rt_feed_name_t   *known;
    ngx_rt_feed_batch_t  *batch;

    batch = feed->batch;
    post = &batch->posts[batch->nposts];
    name = &batch->names[batch->nposts];

    known = ngx_rt_names_get(feed, &push->channel, hash);

    if (known == NULL) {
        ngx_rt_pubsub_drop(feed, NULL, "no name of a channel", push->matched);
        return NGX_OK;
    }

    if (push->matched && !ngx_rt_pubsub_by(&push->pattern, known->pattern)) {
        /* another one has brought it already, or will */
        return NGX_OK;
    }

    ngx_rt_store_expect(feed->hub->store, &known->key, known->entry);

    name->data = push->channel.data + feed->hub->conf->prefix.len;
    name->len = push->channel.len - feed->hub->conf->prefix.len;

    rc = ngx_rt_pubsub_read(feed, &post->msg, &push->data, at, &why);

    if (rc == NGX_DECLINED) {
        ngx_rt_pubsub_drop(feed, name, why, push->matched);
        return NGX_OK;
    }

    if (push->matched && !feed->warm) {
        rc = ngx_rt_pubsub_post(feed);

        return (rc == NGX_OK) ? ngx_rt_pubsub_publish(feed, name, &post->msg,
                                                      NGX_RT_BY_PATTERN)
                              : rc;
    }

    post->key = known->key;
    post->entry = known->entry;
    post->stamp = push->matched;

    ngx_rt_pubsub_tag(feed, name, &post->msg, &known->digest, post->tag);

    batch->known[batch->nposts++] = known;

    return NGX_OK;
}


static ngx_uint_t
ngx_rt_pubsub_by(const ngx_str_t *pattern, ngx_rt_feed_pattern_t *covered)
{
    return covered && pattern->data
           && pattern->len == covered->name.len
           && ngx_memcmp(pattern->data, covered->name.data, pattern->len) == 0;
}


/*
 * Stores them.  A channel that is not there is dealt with before the messages
 * after it, so that all are stored in the order in which they came.
 */

static ngx_int_t
ngx_rt_pubsub_post(ngx_rt_feed_t *feed)
{
    uint64_t              now;
    ngx_int_t             rc;
    ngx_uint_t            i, n;
    ngx_time_t           *tp;
    ngx_rt_feed_batch_t  *batch;

    batch = feed->batch;

    tp = ngx_timeofday();
    now = (uint64_t) tp->sec * 1000 + tp->msec;

    rc = NGX_OK;

    for (i = 0; i < batch->nposts && rc == NGX_OK; i += n) {

        n = ngx_rt_store_post(feed->hub->store, feed->term, &batch->posts[i],
                              batch->nposts - i, now);

        rc = ngx_rt_pubsub_posted(feed, i, n);
    }

    batch->nposts = 0;

    return rc;
}


/* n messages of the batch from i on have been looked at */

static ngx_int_t
ngx_rt_pubsub_posted(ngx_rt_feed_t *feed, ngx_uint_t i, ngx_uint_t n)
{
    ngx_uint_t            by;
    ngx_rt_post_t        *post;
    ngx_rt_feed_batch_t  *batch;

    batch = feed->batch;

    for ( /* void */ ; n; i++, n--) {
        post = &batch->posts[i];

        by = post->stamp ? NGX_RT_BY_PATTERN : NGX_RT_BY_NAME;

        if (post->rc == NGX_ABORT) {
            return NGX_ABORT;
        }

        batch->known[i]->entry = post->entry;

        if (post->rc == NGX_DECLINED) {
            return ngx_rt_pubsub_missing(feed, &batch->names[i], &post->msg,
                                         by);
        }

        ngx_rt_pubsub_stored(feed, &batch->names[i], post->rc, by);
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_pubsub_message(ngx_rt_feed_t *feed, const ngx_str_t *name,
    const ngx_str_t *payload, ngx_uint_t by)
{
    ngx_int_t          rc;
    const char        *why;
    ngx_rt_message_t   msg;

    if (ngx_rt_pubsub_scratch(feed, payload->len) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_rt_pubsub_read(feed, &msg, payload, 0, &why);

    if (rc == NGX_DECLINED) {
        ngx_rt_pubsub_drop(feed, name, why, by);
        return NGX_OK;
    }

    rc = ngx_rt_pubsub_publish(feed, name, &msg, by);

    ngx_rt_pubsub_trim(feed);

    return rc;
}


/* the message that a payload is, at places of its own or in scratch from at
 * on; NGX_DECLINED: it is none */

static ngx_int_t
ngx_rt_pubsub_read(ngx_rt_feed_t *feed, ngx_rt_message_t *msg,
    const ngx_str_t *payload, size_t at, const char **why)
{
    ngx_rt_hub_conf_t  *conf;

    conf = feed->hub->conf;

    if (payload->data && conf->payload == NGX_RT_PAYLOAD_JSON) {
        return ngx_rt_message_json(msg, payload, feed->scratch + at, why);
    }

    ngx_memzero(msg, sizeof(ngx_rt_message_t));

    msg->data = *payload;

    if (payload->data == NULL) {
        /* the store looks at the length alone */
        msg->data.len = conf->message_max + 1;
    }

    return NGX_OK;
}


/* has scratch be of that size where one is needed; no message is in it.
 * NGX_OK or NGX_ERROR */

static ngx_int_t
ngx_rt_pubsub_scratch(ngx_rt_feed_t *feed, size_t size)
{
    if (feed->hub->conf->payload == NGX_RT_PAYLOAD_RAW
        || size <= feed->scratch_size)
    {
        return NGX_OK;
    }

    if (feed->scratch) {
        ngx_free(feed->scratch);
    }

    size = ngx_max(size, NGX_RT_FEED_SCRATCH);

    feed->scratch_size = 0;
    feed->scratch = ngx_alloc(size, feed->hub->log);

    if (feed->scratch == NULL) {
        ngx_rt_redis_error(feed->redis, "no memory", NULL);
        return NGX_ERROR;
    }

    feed->scratch_size = size;

    return NGX_OK;
}


static void
ngx_rt_pubsub_trim(ngx_rt_feed_t *feed)
{
    if (feed->scratch_size > NGX_RT_FEED_SCRATCH) {
        ngx_free(feed->scratch);
        feed->scratch = NULL;
        feed->scratch_size = 0;
    }
}


/* while the table is not yet warm, a known channel may have to be confirmed
 * before its message is stored */

static ngx_int_t
ngx_rt_pubsub_publish(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_rt_message_t *msg, ngx_uint_t by)
{
    ngx_int_t      rc;
    ngx_rt_key_t   key;
    ngx_rt_view_t  view;

    if (by == NGX_RT_BY_SNAPSHOT) {
        return ngx_rt_snapshot_take(feed, name, msg);
    }

    /* kept for whoever comes: a message is use enough */

    ngx_rt_table_key(feed->hub->store, name, &key);
    (void) ngx_rt_table_look(feed->hub->store, &key, ngx_time(), &view);

    rc = ngx_rt_pubsub_confirm(feed, name);

    if (rc == NGX_ABORT) {
        return rc;
    }

    rc = ngx_rt_pubsub_store(feed, name, msg, by);

    return (rc == NGX_DECLINED) ? ngx_rt_pubsub_missing(feed, name, msg, by)
                                : rc;
}


/*
 * The channel is not in the table.  One that a pattern covers is made when its
 * first message comes, and confirmed before that message is stored: continuity
 * begins with it.
 */

static ngx_int_t
ngx_rt_pubsub_missing(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_rt_message_t *msg, ngx_uint_t by)
{
    ngx_int_t      rc;
    ngx_uint_t     queued;
    ngx_rt_view_t  view;

    if (by == NGX_RT_BY_NAME) {
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
    ngx_time_t  *tp;

    tp = ngx_timeofday();
    now = (uint64_t) tp->sec * 1000 + tp->msec;

    ngx_rt_pubsub_tag(feed, name, msg, NULL, tag);

    rc = ngx_rt_store_publish(feed->hub->store, feed->term, name, msg, tag,
                              now, 0, &seq);

    if (rc == NGX_OK || rc == NGX_ERROR) {
        ngx_rt_pubsub_stored(feed, name, rc, by);
        rc = NGX_OK;
    }

    return rc;
}


/* begun: NULL, or the digest of the channel.  A message that is too large is
 * not looked at, and there may be no data */

static void
ngx_rt_pubsub_tag(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_rt_message_t *msg, const ngx_rt_digest_t *begun, u_char *tag)
{
    ngx_memzero(tag, NGX_RT_TAG_LEN);

    if (msg->data.len > feed->hub->conf->message_max) {
        return;
    }

    if (begun && msg->version.len == 0) {
        ngx_rt_digest_end(begun, msg, tag);

    } else {
        ngx_rt_message_digest(name, msg, tag);
    }
}


/* rc: NGX_OK, or NGX_ERROR: dropped, and counted by the store */

static void
ngx_rt_pubsub_stored(ngx_rt_feed_t *feed, const ngx_str_t *name, ngx_int_t rc,
    ngx_uint_t by)
{
    ngx_uint_t  n;

    feed->notify = 1;

    if (rc == NGX_ERROR && ngx_rt_pubsub_may_log(&feed->dropped, &n)) {
        ngx_log_error(NGX_LOG_WARN, feed->hub->log, 0,
                      "rt_hub \"%V\": %s \"%V\" dropped: larger than "
                      "message_max (%ui more)", &feed->hub->conf->name,
                      ngx_rt_pubsub_what(by), name, n);
    }
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
