
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What clients of a stream missed so long ago that the zone has it no more:
 * read from the stream itself, in portions.
 *
 *     hub->fill -> queued -> asked -> entries to all who wait -> queued ...
 *
 * A channel is asked for once at a time, however many of its clients wait:
 * the portion begins where the last of them stands, and each takes of it what
 * it has not got.  So the stream is gone through once; who comes meanwhile,
 * and stands further back, waits for the next time.  Redis may say nothing, or
 * something else: then all of them are told of a gap and go on with what the
 * zone has.
 */


#include <ngx_rt_source.h>
#include <hiredis/hiredis.h>


#define NGX_RT_FILL_WINDOW        8         /* channels asked for at once */
#define NGX_RT_FILL_COUNT         100       /* entries of a portion, at most */
#define NGX_RT_FILL_COMMANDS      4


/* a channel that is filled */

typedef struct {
    ngx_rt_errand_t               errand;   /* the first: it is cast to this */
    ngx_rt_fills_t               *fills;
    ngx_queue_t                   queue;    /* fills->waiting, if queued */
    ngx_str_node_t                node;     /* fills->channels, by name */

    u_char                        floor[NGX_RT_TAG_LEN];    /* gone through
                                               up to here */
    u_char                        from[NGX_RT_TAG_LEN]; /* where the last one
                                               stands */
    u_char                        start[NGX_RT_TAG_LEN];    /* the first entry
                                               asked for: from, or beyond what
                                               gave nothing to tell */
    ngx_uint_t                    count;    /* of the portion */
    unsigned                      queued:1;
    unsigned                      asked:1;
    unsigned                      again:1;  /* somebody came meanwhile, or
                                               stands further back */
    unsigned                      skip:1;   /* start is beyond from */
    unsigned                      proven:1; /* and from was seen before it */
} ngx_rt_fill_t;


/*
 * The data of the event: nginx' debug log reads ->fd of it as of an
 * ngx_connection_t, hence the order of the first four fields.
 */

struct ngx_rt_fills_s {
    ngx_rt_hub_t                 *hub;
    ngx_rt_publisher_t           *publisher;
    void                         *spare;
    ngx_socket_t                  fd;       /* always -1 */

    ngx_rbtree_t                  channels;
    ngx_rbtree_node_t             sentinel;
    ngx_queue_t                   waiting;
    ngx_uint_t                    n;        /* asked */
    ngx_event_t                   posted;
    ngx_rt_entries_t              entries;
    ngx_rt_feed_log_t             log;
};


/* how far a portion came */

typedef struct {
    u_char                        tag[NGX_RT_TAG_LEN];  /* to go on from */
    u_char                        last[NGX_RT_TAG_LEN]; /* given */
    ngx_uint_t                    n;        /* entries done with */
    ngx_uint_t                    given;    /* newer than from */
    unsigned                      cut:1;
    unsigned                      proven:1; /* from was seen */
} ngx_rt_portion_t;


static void ngx_rt_fill_channel(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel);
static ngx_rt_fill_t *ngx_rt_fill_make(ngx_rt_fills_t *fills,
    ngx_rt_channel_t *channel);
static void ngx_rt_fill_free(ngx_rt_fill_t *fill);
static void ngx_rt_fill_enqueue(ngx_rt_fill_t *fill);
static void ngx_rt_fill_post(ngx_rt_fills_t *fills);
static void ngx_rt_fill_posted(ngx_event_t *ev);
static void ngx_rt_fill_next(ngx_rt_fill_t *fill);
static ngx_int_t ngx_rt_fill_ask(ngx_rt_fill_t *fill);
static void ngx_rt_fill_reply(ngx_rt_errand_t *errand, ngx_int_t rc,
    redisReply *reply);
static ngx_int_t ngx_rt_fill_portion(ngx_rt_fill_t *fill,
    ngx_rt_channel_t *channel, redisReply *reply);
static ngx_int_t ngx_rt_fill_read(ngx_rt_fill_t *fill,
    ngx_rt_channel_t *channel, redisReply *range, ngx_rt_portion_t *portion);
static ngx_uint_t ngx_rt_fill_give(ngx_rt_fill_t *fill,
    ngx_rt_channel_t *channel, ngx_rt_entry_t *entry, ngx_int_t rc);
static ngx_int_t ngx_rt_fill_settle(ngx_rt_fill_t *fill, ngx_uint_t n,
    ngx_rt_portion_t *portion);
static void ngx_rt_fill_ended(ngx_rt_fill_t *fill, ngx_rt_channel_t *channel,
    ngx_int_t rc);
static void ngx_rt_fill_error(ngx_rt_fill_t *fill, const char *text,
    redisReply *reply);


ngx_rt_fills_t *
ngx_rt_fill_create(ngx_pool_t *pool, ngx_rt_hub_t *hub, ngx_rt_publisher_t *pb)
{
    ngx_rt_fills_t  *fills;

    fills = ngx_pcalloc(pool, sizeof(ngx_rt_fills_t));
    if (fills == NULL) {
        return NULL;
    }

    fills->hub = hub;
    fills->publisher = pb;
    fills->fd = (ngx_socket_t) -1;

    ngx_rbtree_init(&fills->channels, &fills->sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_queue_init(&fills->waiting);

    fills->posted.data = fills;
    fills->posted.handler = ngx_rt_fill_posted;
    fills->posted.log = hub->log;

    fills->entries.log = hub->log;

    hub->fill = ngx_rt_fill_channel;

    return fills;
}


void
ngx_rt_fill_exit(ngx_rt_fills_t *fills)
{
    ngx_rbtree_node_t  *root;

    fills->hub->fill = NULL;

    if (fills->posted.posted) {
        ngx_delete_posted_event(&fills->posted);
    }

    for ( ;; ) {
        root = fills->channels.root;

        if (root == &fills->sentinel) {
            break;
        }

        ngx_rt_fill_free((ngx_rt_fill_t *)
                         ((u_char *) root - offsetof(ngx_rt_fill_t, node)));
    }

    ngx_rt_entries_done(&fills->entries);
}


/* hub->fill: called by each link that waits */

static void
ngx_rt_fill_channel(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel)
{
    ngx_str_node_t  *sn;
    ngx_rt_fill_t   *fill;
    ngx_rt_fills_t  *fills;

    fills = ngx_rt_feeder_fills(hub);

    if (fills == NULL) {
        return;
    }

    sn = ngx_str_rbtree_lookup(&fills->channels, &channel->node.str,
                               channel->node.node.key);

    if (sn) {
        fill = (ngx_rt_fill_t *) ((u_char *) sn
                                  - offsetof(ngx_rt_fill_t, node));

    } else {
        fill = ngx_rt_fill_make(fills, channel);

        if (fill == NULL) {
            /* the links wait on, and ask anew when something comes */
            return;
        }
    }

    if (fill->asked) {
        fill->again = 1;

    } else {
        ngx_rt_fill_enqueue(fill);
    }
}


static ngx_rt_fill_t *
ngx_rt_fill_make(ngx_rt_fills_t *fills, ngx_rt_channel_t *channel)
{
    ngx_str_t      *name;
    ngx_rt_fill_t  *fill;

    name = &channel->node.str;

    fill = ngx_calloc(sizeof(ngx_rt_fill_t) + name->len, fills->hub->log);
    if (fill == NULL) {
        return NULL;
    }

    fill->errand.handler = ngx_rt_fill_reply;
    fill->fills = fills;
    fill->count = NGX_RT_FILL_COUNT;

    fill->node.str.data = (u_char *) fill + sizeof(ngx_rt_fill_t);
    fill->node.str.len = name->len;
    fill->node.node.key = channel->node.node.key;

    ngx_memcpy(fill->node.str.data, name->data, name->len);

    ngx_rbtree_insert(&fills->channels, &fill->node.node);

    return fill;
}


static void
ngx_rt_fill_free(ngx_rt_fill_t *fill)
{
    ngx_rbtree_delete(&fill->fills->channels, &fill->node.node);

    if (fill->queued) {
        ngx_queue_remove(&fill->queue);
    }

    ngx_free(fill);
}


static void
ngx_rt_fill_enqueue(ngx_rt_fill_t *fill)
{
    if (fill->queued) {
        return;
    }

    ngx_queue_insert_tail(&fill->fills->waiting, &fill->queue);
    fill->queued = 1;

    ngx_rt_fill_post(fill->fills);
}


static void
ngx_rt_fill_post(ngx_rt_fills_t *fills)
{
    if (fills->n < NGX_RT_FILL_WINDOW
        && !ngx_queue_empty(&fills->waiting)
        && !fills->posted.posted)
    {
        ngx_post_event(&fills->posted, &ngx_posted_events);
    }
}


/* at the end of the turn: all who came in it are asked for at once */

static void
ngx_rt_fill_posted(ngx_event_t *ev)
{
    ngx_queue_t     *q;
    ngx_rt_fill_t   *fill;
    ngx_rt_fills_t  *fills;

    fills = ev->data;

    while (fills->n < NGX_RT_FILL_WINDOW && !ngx_queue_empty(&fills->waiting))
    {
        q = ngx_queue_head(&fills->waiting);
        ngx_queue_remove(q);

        fill = ngx_queue_data(q, ngx_rt_fill_t, queue);
        fill->queued = 0;

        ngx_rt_fill_next(fill);
    }
}


static void
ngx_rt_fill_next(ngx_rt_fill_t *fill)
{
    u_char             from[NGX_RT_TAG_LEN];
    ngx_uint_t         n;
    ngx_rt_hub_t      *hub;
    ngx_rt_channel_t  *channel;

    hub = fill->fills->hub;

    channel = ngx_rt_hub_channel(hub, &fill->node.str);

    n = channel ? ngx_rt_fill_from(channel, fill->floor, from) : 0;

    if (n == 0) {
        ngx_rt_fill_free(fill);
        return;
    }

    fill->again = (n > 1);

    /* what gave nothing to tell is not asked for again by the same client */

    if (!fill->skip || ngx_rt_sid_cmp(fill->from, from) != 0) {
        ngx_memcpy(fill->from, from, NGX_RT_TAG_LEN);
        ngx_memcpy(fill->start, from, NGX_RT_TAG_LEN);
        fill->skip = 0;
    }

    if (ngx_rt_fill_ask(fill) == NGX_OK) {
        fill->asked = 1;
        fill->fills->n++;
        return;
    }

    ngx_rt_fill_error(fill, "no memory", NULL);
    ngx_rt_fill_ended(fill, channel, NGX_ERROR);
}


/*
 *     MULTI
 *     XRANGE key start + COUNT n
 *     XINFO STREAM key
 *     EXEC
 *
 * so that both tell of the same moment.  The entries come first: the first of
 * them has the reply's whole budget.
 */

static ngx_int_t
ngx_rt_fill_ask(ngx_rt_fill_t *fill)
{
    ngx_int_t          rc;
    ngx_str_t          key, *prefix, multi, exec, range[6], info[3];
    ngx_rt_command_t   commands[NGX_RT_FILL_COMMANDS];
    u_char             id[NGX_RT_SID_LEN], count[NGX_INT_T_LEN];

    prefix = &fill->fills->hub->conf->prefix;

    key.len = prefix->len + fill->node.str.len;
    key.data = ngx_alloc(key.len, fill->fills->hub->log);

    if (key.data == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_rt_redis_name(key.data, prefix, &fill->node.str);

    ngx_str_set(&multi, "MULTI");
    ngx_str_set(&exec, "EXEC");

    ngx_str_set(&range[0], "XRANGE");
    range[1] = key;
    range[2].data = id;
    range[2].len = ngx_rt_sid_format(id, fill->start) - id;
    ngx_str_set(&range[3], "+");
    ngx_str_set(&range[4], "COUNT");
    range[5].data = count;
    range[5].len = ngx_sprintf(count, "%ui", fill->count) - count;

    ngx_str_set(&info[0], "XINFO");
    ngx_str_set(&info[1], "STREAM");
    info[2] = key;

    commands[0].argc = 1;
    commands[0].argv = &multi;
    commands[1].argc = 6;
    commands[1].argv = range;
    commands[2].argc = 3;
    commands[2].argv = info;
    commands[3].argc = 1;
    commands[3].argv = &exec;

    rc = ngx_rt_publisher_ask(fill->fills->publisher, &fill->errand,
                              commands, NGX_RT_FILL_COMMANDS);

    ngx_free(key.data);

    return rc;
}


static void
ngx_rt_fill_reply(ngx_rt_errand_t *errand, ngx_int_t rc, redisReply *reply)
{
    ngx_rt_fill_t     *fill;
    ngx_rt_fills_t    *fills;
    ngx_rt_channel_t  *channel;

    fill = (ngx_rt_fill_t *) errand;
    fills = fill->fills;

    if (rc == NGX_OK && errand->left) {

        if (reply->type == REDIS_REPLY_ERROR) {
            ngx_rt_fill_error(fill, NULL, reply);
        }

        return;
    }

    fill->asked = 0;
    fills->n--;

    channel = ngx_rt_hub_channel(fills->hub, &fill->node.str);

    if (channel) {
        rc = (rc == NGX_OK) ? ngx_rt_fill_portion(fill, channel, reply)
                            : NGX_ERROR;

        ngx_rt_entries_done(&fills->entries);
        ngx_rt_fill_ended(fill, channel, rc);

    } else {
        ngx_rt_fill_free(fill);
    }

    ngx_rt_fill_post(fills);
}


/* NGX_OK, NGX_DONE, NGX_ERROR: as ngx_rt_fill_done() takes it */

static ngx_int_t
ngx_rt_fill_portion(ngx_rt_fill_t *fill, ngx_rt_channel_t *channel,
    redisReply *reply)
{
    ngx_int_t              rc;
    ngx_uint_t             whole;
    redisReply            *range;
    ngx_rt_portion_t       portion;
    ngx_rt_stream_info_t   info;

    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) {
        ngx_rt_fill_error(fill, "unexpected reply to EXEC", reply);
        return NGX_ERROR;
    }

    range = reply->element[0];

    if (range->type != REDIS_REPLY_ARRAY) {
        ngx_rt_fill_error(fill, "unexpected reply to XRANGE", range);
        return NGX_ERROR;
    }

    rc = ngx_rt_stream_info_read(reply->element[1], &info);

    if (rc != NGX_OK && rc != NGX_DECLINED) {
        ngx_rt_fill_error(fill, "unexpected reply to XINFO STREAM",
                          reply->element[1]);
        return NGX_ERROR;
    }

    /* of no stream nobody knows whether there was one */

    whole = (rc == NGX_OK && info.counted && info.added == info.length);

    ngx_rt_fill_begin(channel, info.last, whole);

    ngx_memzero(&portion, sizeof(ngx_rt_portion_t));

    rc = ngx_rt_fill_read(fill, channel, range, &portion);

    return (rc == NGX_OK) ? ngx_rt_fill_settle(fill, range->elements, &portion)
                          : rc;
}


static ngx_int_t
ngx_rt_fill_read(ngx_rt_fill_t *fill, ngx_rt_channel_t *channel,
    redisReply *range, ngx_rt_portion_t *portion)
{
    ngx_int_t        rc;
    ngx_uint_t       i;
    ngx_rt_hub_t    *hub;
    ngx_rt_entry_t   entry;

    hub = fill->fills->hub;

    for (i = 0; i < range->elements; i++) {

        rc = ngx_rt_entry_read(&fill->fills->entries, hub->conf,
                               range->element[i], &entry);

        if (rc == NGX_ERROR) {
            ngx_rt_fill_error(fill, entry.why, NULL);
            return NGX_ERROR;
        }

        ngx_memcpy(portion->tag, entry.tag, NGX_RT_TAG_LEN);

        if (i == 0 && ngx_rt_sid_cmp(entry.tag, fill->start) == 0) {

            if (!fill->skip) {
                portion->proven = 1;

            } else if (fill->proven) {
                portion->proven = 1;
                ngx_rt_fill_entry(channel, fill->from, NULL);
            }
        }

        if (rc == NGX_AGAIN) {

            if (i) {
                portion->cut = 1;
                return NGX_OK;
            }

            /* it had the whole budget */
            rc = NGX_BUSY;
        }

        if (ngx_rt_fill_give(fill, channel, &entry, rc)) {
            ngx_memcpy(portion->last, entry.tag, NGX_RT_TAG_LEN);
            portion->given++;
        }

        portion->n++;
    }

    return NGX_OK;
}


/* 1: something to tell, and newer than where the last client stands */

static ngx_uint_t
ngx_rt_fill_give(ngx_rt_fill_t *fill, ngx_rt_channel_t *channel,
    ngx_rt_entry_t *entry, ngx_int_t rc)
{
    ngx_int_t          cmp;
    ngx_rt_delivery_t  msg;

    cmp = ngx_rt_sid_cmp(entry->tag, fill->from);

    switch (rc) {

    case NGX_OK:
        ngx_memzero(&msg, sizeof(ngx_rt_delivery_t));
        msg.event = entry->msg.event;
        msg.data = entry->msg.data;

        ngx_rt_fill_entry(channel, entry->tag, &msg);

        return (cmp > 0);

    case NGX_DECLINED:

        /* the feeder has counted it.  It tells nobody anything but where he
         * stands */

        if (cmp == 0) {
            ngx_rt_fill_entry(channel, entry->tag, NULL);
        }

        return 0;

    default: /* NGX_BUSY */
        ngx_rt_fill_entry(channel, entry->tag, NULL);

        return (cmp > 0);
    }
}


/*
 * How the next portion begins.  Most often where the clients stand then; but
 * if none of these entries was for them, because no message can be made of
 * them or the reply was cut, it has to begin behind these.
 */

static ngx_int_t
ngx_rt_fill_settle(ngx_rt_fill_t *fill, ngx_uint_t n,
    ngx_rt_portion_t *portion)
{
    ngx_uint_t  more;

    more = (portion->cut || n >= fill->count);

    if (portion->cut) {
        fill->count = ngx_max(portion->n + 1, 2);

    } else if (n >= fill->count) {
        fill->count = ngx_min(2 * fill->count, NGX_RT_FILL_COUNT);
    }

    fill->skip = (more && portion->given == 0
                  && ngx_rt_sid_cmp(portion->tag, fill->start) > 0);

    if (fill->skip) {
        ngx_memcpy(fill->start, portion->tag, NGX_RT_TAG_LEN);
        fill->proven = portion->proven;
    }

    if (!more) {
        ngx_memzero(fill->floor, NGX_RT_TAG_LEN);
        return NGX_DONE;
    }

    ngx_memcpy(fill->floor, portion->given ? portion->last : fill->from,
               NGX_RT_TAG_LEN);

    return NGX_OK;
}


/* who needs more calls for it while he is told that the portion ends */

static void
ngx_rt_fill_ended(ngx_rt_fill_t *fill, ngx_rt_channel_t *channel, ngx_int_t rc)
{
    ngx_uint_t  again;

    again = fill->again;
    fill->again = 0;

    ngx_rt_fill_done(channel, rc);

    if (again) {
        ngx_rt_fill_enqueue(fill);
    }

    if (!fill->queued) {
        ngx_rt_fill_free(fill);
    }
}


static void
ngx_rt_fill_error(ngx_rt_fill_t *fill, const char *text, redisReply *reply)
{
    u_char        *p, *last;
    ngx_str_t      what;
    ngx_uint_t     n;
    ngx_rt_hub_t  *hub;
    u_char         buf[NGX_RT_REDIS_ERROR_LEN];

    hub = fill->fills->hub;

    if (!ngx_rt_pubsub_may_log(&fill->fills->log, &n)) {
        return;
    }

    p = buf;
    last = buf + sizeof(buf);

    if (reply && reply->type == REDIS_REPLY_ERROR) {
        p = ngx_slprintf(p, last, "Redis says \"%*s\"", reply->len,
                         reply->str);

    } else {
        p = ngx_slprintf(p, last, "%s", text);
    }

    what.data = buf;
    what.len = p - buf;

    for (p = buf; p < buf + what.len; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }

    ngx_log_error(NGX_LOG_ERR, hub->log, 0,
                  "rt_hub \"%V\": what clients of \"%V\" missed can't be "
                  "read: %V (%ui more)", &hub->conf->name, &fill->node.str,
                  &what, n);
}
