
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Where clients of streams stand.  An id says it exactly, and says it on
 * every node, so each link holds the id that its client has reached, and
 * whatever is newer is given to it: from the log, from the history, or from
 * Redis where that is too short.
 *
 *     WAIT --- the channel is confirmed ---> READY: log and history
 *      ^                                      |  ^
 *      +---- the channel left the table ------+  |
 *      |                                      v  |
 *      +------------------------------------ FILL: the stream itself
 *
 * All links of a channel that are in FILL are filled by the same commands.
 */


#include <ngx_rt_worker.h>


static void ngx_rt_place_settle(ngx_rt_link_t *link);
static void ngx_rt_place_begin(ngx_rt_link_t *link, ngx_rt_span_t *span);
static void ngx_rt_place_fill(ngx_rt_link_t *link);
static void ngx_rt_place_again(ngx_rt_link_t *link);
static void ngx_rt_fill_mark(ngx_rt_channel_t *channel, const u_char *from);
static void ngx_rt_fill_link(ngx_rt_link_t *link, const u_char *tag,
    ngx_rt_delivery_t *msg);
static void ngx_rt_fill_failed(ngx_rt_link_t *link);
static void ngx_rt_fill_end(ngx_rt_link_t *link, const u_char *last);


#define ngx_rt_place_set(link, id)                                            \
    ngx_memcpy((link)->tag, id, NGX_RT_TAG_LEN)


static const u_char  ngx_rt_place_none[NGX_RT_TAG_LEN];


void
ngx_rt_place_start(ngx_rt_subscriber_t *sub, const ngx_str_t *channels,
    const ngx_str_t *cursor, ngx_uint_t start)
{
    ngx_uint_t       i, ours;
    ngx_rt_link_t   *link;
    ngx_rt_place_t   places[NGX_RT_PLACES_MAX];

    sub->set = ngx_rt_places_set(channels, sub->nlinks);
    sub->start = start;
    sub->silent = (cursor == NULL);
    sub->seq = sub->hub->seq;
    sub->behind = 1;
    sub->fresh = 0;
    sub->skip = 0;

    ours = cursor && ngx_rt_places_parse(places, sub->nlinks, sub->set,
                                         cursor->data, cursor->len)
                     == NGX_OK;

    for (i = 0; i < sub->nlinks; i++) {
        link = &sub->links[i];

        link->state = NGX_RT_LINK_WAIT;
        link->lost = (cursor && !ours);

        if (ours && places[i].known) {
            ngx_rt_place_set(link, places[i].tag);
            link->placed = 1;
        }
    }

    ngx_rt_hub_replay(sub);
}


/* a link that waits may find its channel confirmed by now */

static void
ngx_rt_place_settle(ngx_rt_link_t *link)
{
    ngx_int_t          rc;
    uint64_t           seq;
    ngx_rt_span_t      span;
    ngx_rt_store_t    *st;
    ngx_rt_channel_t  *channel;

    channel = link->channel;
    st = channel->hub->store;

    if (ngx_rt_store_span(st, channel->entry, channel->gen, &span) != NGX_OK) {
        return;
    }

    link->since = span.floor;

    if (!link->placed) {
        ngx_rt_place_begin(link, &span);
        return;
    }

    rc = ngx_rt_store_after(st, channel->entry, channel->gen, link->tag, &seq);

    if (rc == NGX_OK || (rc == NGX_AGAIN && link->ahead)) {
        link->ahead = (rc == NGX_AGAIN);
        link->idle = link->ahead;
        link->state = NGX_RT_LINK_READY;

    } else if (rc != NGX_ABORT) {
        ngx_rt_place_fill(link);
    }
}


/* a client without a cursor, or with one that is not ours */

static void
ngx_rt_place_begin(ngx_rt_link_t *link, ngx_rt_span_t *span)
{
    ngx_rt_place_set(link, span->place);

    if (span->count && link->sub->start != NGX_RT_START_NEW) {

        ngx_rt_place_set(link, link->sub->start == NGX_RT_START_HISTORY
                               ? span->oldest : span->latest);
        ngx_rt_sid_before(link->tag);
    }

    link->placed = 1;
    link->state = NGX_RT_LINK_READY;

    if (link->lost) {
        link->lost = 0;
        ngx_rt_place_gap(link, NGX_RT_GAP_CURSOR);
    }
}


static void
ngx_rt_place_fill(ngx_rt_link_t *link)
{
    ngx_rt_hub_t  *hub;

    hub = link->channel->hub;

    if (link->state != NGX_RT_LINK_FILL) {
        link->state = NGX_RT_LINK_FILL;
        link->asked = 0;
        link->proven = 0;
        link->stalled = 0;
    }

    if (link->idle) {
        link->idle = 0;
        link->sub->again = 1;
        return;
    }

    hub->fill(hub, link->channel);
}


ngx_int_t
ngx_rt_place_after(ngx_rt_link_t *link, uint64_t *seq)
{
    ngx_int_t          rc;
    ngx_rt_span_t      span;
    ngx_rt_store_t    *st;
    ngx_rt_channel_t  *channel;

    channel = link->channel;
    st = channel->hub->store;

    switch (link->state) {

    case NGX_RT_LINK_WAIT:
        ngx_rt_place_settle(link);

        if (link->state != NGX_RT_LINK_READY) {
            return NGX_DECLINED;
        }

        break;

    case NGX_RT_LINK_FILL:
        /* it may have been too full, or the last try have failed */
        ngx_rt_place_fill(link);
        return NGX_DECLINED;
    }

    rc = ngx_rt_store_after(st, channel->entry, channel->gen, link->tag, seq);

    switch (rc) {

    case NGX_OK:
        return NGX_OK;

    case NGX_DECLINED:
        ngx_rt_place_fill(link);
        return NGX_DECLINED;

    case NGX_AGAIN:

        if (link->idle) {
            /* just seen in the stream, which may go back before the feeder
             * gets there */
            link->idle = 0;
            link->sub->again = 1;

        } else if (link->ahead) {
            ngx_rt_place_fill(link);

        } else if (ngx_rt_store_span(st, channel->entry, channel->gen, &span)
                   == NGX_OK)
        {
            /* the stream went back, and the log did not tell us */
            ngx_rt_place_set(link, span.place);
            link->since = span.floor;
            ngx_rt_place_gap(link, NGX_RT_GAP_FEED);
        }

        return NGX_DECLINED;

    default: /* NGX_ABORT: it left the table, the log is about to say so */
        link->state = NGX_RT_LINK_WAIT;
        return NGX_DECLINED;
    }
}


void
ngx_rt_place_confirm(ngx_rt_channel_t *channel, ngx_rt_record_sh_t *rec)
{
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        if (link->state == NGX_RT_LINK_READY
            && (rec->flags & NGX_RT_BROKEN) && rec->seq > link->since)
        {
            ngx_rt_place_set(link, rec->tag);
            link->ahead = 0;
            link->since = rec->seq;
            ngx_rt_place_gap(link, NGX_RT_GAP_FEED);
        }
    }

    ngx_rt_place_entered(channel);
}


void
ngx_rt_place_entered(ngx_rt_channel_t *channel)
{
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        if (link->state == NGX_RT_LINK_WAIT) {
            ngx_rt_place_again(link);
        }
    }
}


/* what the link misses is told, as far as the client takes it */

static void
ngx_rt_place_again(ngx_rt_link_t *link)
{
    ngx_rt_subscriber_t  *sub;

    sub = link->sub;
    sub->behind = 1;

    if (!sub->full) {
        ngx_rt_hub_resume(sub);
    }
}


void
ngx_rt_place_drop(ngx_rt_channel_t *channel, ngx_rt_record_sh_t *rec)
{
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        /* who is behind finds it in the stream */

        if (!link->sub->behind && ngx_rt_place_wants(link, rec)) {
            ngx_rt_place_set(link, rec->tag);
            link->ahead = 0;
            ngx_rt_place_gap(link, NGX_RT_GAP_TOO_LARGE);
        }
    }
}


void
ngx_rt_place_evicted(ngx_rt_channel_t *channel)
{
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        if (link->state == NGX_RT_LINK_READY) {
            link->state = NGX_RT_LINK_WAIT;
        }
    }
}


size_t
ngx_rt_place_id(ngx_rt_subscriber_t *sub, u_char *buf)
{
    ngx_uint_t       i, n;
    ngx_rt_place_t   places[NGX_RT_PLACES_MAX];

    n = 0;

    for (i = 0; i < sub->nlinks; i++) {
        ngx_memcpy(places[i].tag, sub->links[i].tag, NGX_RT_TAG_LEN);
        places[i].known = sub->links[i].placed;
        n += sub->links[i].placed;
    }

    if (n == 0) {
        return 0;
    }

    return ngx_rt_places_format(buf, places, sub->nlinks, sub->set) - buf;
}


void
ngx_rt_place_gap(ngx_rt_link_t *link, const char *reason)
{
    ngx_str_t             id;
    ngx_rt_subscriber_t  *sub;
    u_char                buf[NGX_RT_PLACES_LEN];

    sub = link->sub;
    sub->silent = 0;

    id.data = buf;
    id.len = ngx_rt_place_id(sub, buf);

    sub->ops->gap(sub, &link->channel->node.str, reason, &id);

    ngx_rt_hub_dirty(sub);
}


void
ngx_rt_place_told(ngx_rt_subscriber_t *sub)
{
    ngx_str_t  id;
    u_char     buf[NGX_RT_PLACES_LEN];

    if (!sub->silent) {
        return;
    }

    id.data = buf;
    id.len = ngx_rt_place_id(sub, buf);

    if (id.len) {
        sub->silent = 0;
        sub->ops->place(sub, &id);
        ngx_rt_hub_dirty(sub);
    }
}


ngx_uint_t
ngx_rt_fill_from(ngx_rt_channel_t *channel,
    const u_char floor[NGX_RT_TAG_LEN], u_char tag[NGX_RT_TAG_LEN])
{
    ngx_uint_t      ahead, behind;
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;
    u_char          lowest[NGX_RT_TAG_LEN];

    ahead = 0;
    behind = 0;

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        if (link->state != NGX_RT_LINK_FILL) {
            continue;
        }

        if (link->sub->full) {
            /* it asks again when it is resumed */
            link->sub->behind = 1;
            continue;
        }

        if (ngx_rt_sid_cmp(link->tag, floor) >= 0) {

            if (ahead++ == 0 || ngx_rt_sid_cmp(link->tag, tag) < 0) {
                ngx_memcpy(tag, link->tag, NGX_RT_TAG_LEN);
            }

        } else if (behind++ == 0 || ngx_rt_sid_cmp(link->tag, lowest) < 0) {
            ngx_memcpy(lowest, link->tag, NGX_RT_TAG_LEN);
        }
    }

    if (ahead == 0) {

        if (behind == 0) {
            return 0;
        }

        ngx_memcpy(tag, lowest, NGX_RT_TAG_LEN);
        behind = 0;
    }

    ngx_rt_fill_mark(channel, tag);

    return behind ? 2 : 1;
}


/* entries are asked for that these links need */

static void
ngx_rt_fill_mark(ngx_rt_channel_t *channel, const u_char *from)
{
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        if (link->state == NGX_RT_LINK_FILL
            && !link->sub->full
            && ngx_rt_sid_cmp(link->tag, from) >= 0)
        {
            /* its own place must be seen in each answer */

            link->asked = 1;
            link->proven = 0;
            link->stalled = 0;
        }
    }
}


/* who stands before the first entry of a whole stream has missed nothing; who
 * stands behind the last one is from another life of it, or has seen it all */

void
ngx_rt_fill_begin(ngx_rt_channel_t *channel, const u_char last[NGX_RT_TAG_LEN],
    ngx_uint_t whole)
{
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;

    ngx_memcpy(channel->last, last, NGX_RT_TAG_LEN);

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        if (link->state != NGX_RT_LINK_FILL || !link->asked) {
            continue;
        }

        if (ngx_rt_sid_cmp(link->tag, last) == 0
            || (whole
                && ngx_rt_sid_cmp(link->tag, ngx_rt_place_none) == 0))
        {
            link->proven = 1;
        }
    }
}


void
ngx_rt_fill_entry(ngx_rt_channel_t *channel, const u_char tag[NGX_RT_TAG_LEN],
    ngx_rt_delivery_t *msg)
{
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;
    u_char          id[NGX_RT_SID_LEN];

    if (msg) {
        msg->channel = channel->node.str;
        msg->id.data = id;
        msg->id.len = ngx_rt_sid_format(id, tag) - id;
    }

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        if (link->state == NGX_RT_LINK_FILL && link->asked && !link->stalled) {
            ngx_rt_fill_link(link, tag, msg);
        }
    }

    if (msg) {
        ngx_rt_hub_done(msg);
    }
}


static void
ngx_rt_fill_link(ngx_rt_link_t *link, const u_char *tag,
    ngx_rt_delivery_t *msg)
{
    ngx_int_t             cmp;
    ngx_rt_subscriber_t  *sub;

    sub = link->sub;
    cmp = ngx_rt_sid_cmp(tag, link->tag);

    if (cmp <= 0) {

        if (cmp == 0) {
            link->proven = 1;
        }

        return;
    }

    if (sub->full) {
        link->stalled = 1;
        return;
    }

    if (!link->proven && !ngx_rt_sid_adjacent(link->tag, tag)) {
        /* what was between its place and this one is not there any more */

        ngx_rt_place_set(link, tag);
        ngx_rt_sid_before(link->tag);
        ngx_rt_place_gap(link, NGX_RT_GAP_EXPIRED);
    }

    link->proven = 1;

    if (msg) {
        msg->seq = sub->seq;
        ngx_rt_hub_give(link, msg, tag);

    } else {
        ngx_rt_place_set(link, tag);
        ngx_rt_place_gap(link, NGX_RT_GAP_TOO_LARGE);
    }

    ngx_rt_hub_dirty(sub);
}


void
ngx_rt_fill_done(ngx_rt_channel_t *channel, ngx_int_t rc)
{
    ngx_queue_t    *q;
    ngx_rt_hub_t   *hub;
    ngx_rt_link_t  *link;

    hub = channel->hub;

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        if (link->state != NGX_RT_LINK_FILL || !link->asked) {
            continue;
        }

        link->asked = 0;

        if (rc == NGX_ERROR) {
            ngx_rt_fill_failed(link);

        } else if (link->stalled) {
            link->sub->behind = 1;
            continue;

        } else {

            if (rc == NGX_DONE) {
                ngx_rt_fill_end(link, channel->last);
            }

            /* that it may be ahead is known now, and not later */

            link->state = NGX_RT_LINK_WAIT;
            link->ahead = (rc == NGX_DONE || link->proven);

            ngx_rt_place_settle(link);

            if (link->state == NGX_RT_LINK_WAIT) {
                link->ahead = 0;
            }
        }

        ngx_rt_place_again(link);
    }

    ngx_rt_hub_flush(hub);
}


/* what is retained is told, after a gap; of a channel that is not known at all
 * there is nothing to be told yet */

static void
ngx_rt_fill_failed(ngx_rt_link_t *link)
{
    ngx_rt_span_t      span;
    ngx_rt_channel_t  *channel;

    channel = link->channel;
    link->state = NGX_RT_LINK_WAIT;

    if (ngx_rt_store_span(channel->hub->store, channel->entry, channel->gen,
                          &span)
        != NGX_OK)
    {
        return;
    }

    ngx_rt_place_set(link, span.place);

    if (span.count) {
        ngx_rt_place_set(link, span.oldest);
        ngx_rt_sid_before(link->tag);
    }

    link->since = span.floor;
    link->state = NGX_RT_LINK_READY;

    ngx_rt_place_gap(link, NGX_RT_GAP_EXPIRED);
}


/* all of the stream was told, and the link stands at its end, as it was when
 * it was asked for */

static void
ngx_rt_fill_end(ngx_rt_link_t *link, const u_char *last)
{
    ngx_int_t  cmp;

    if (!link->proven) {

        /* no such entry, and none after it: it went back, or all of them were
         * removed */

        cmp = ngx_rt_sid_cmp(last, link->tag);

        ngx_rt_place_set(link, last);
        ngx_rt_place_gap(link, (cmp < 0) ? NGX_RT_GAP_FEED
                                         : NGX_RT_GAP_EXPIRED);
    }

    /* where the zone has an older life of the stream yet, there is no more to
     * be had until the feeder finds that out */

    link->idle = (ngx_rt_sid_cmp(link->tag, last) == 0);
}
