
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Where a client's stream begins, and what it has missed: read from the
 * history of its channels, in the order of seq, in portions while the client
 * takes them, until it stands where the hub stands.
 */


#include <ngx_rt_worker.h>


/* times a record may be overwritten under us before we call it a gap */
#define NGX_RT_REPLAY_TRIES       3


/* something to tell; off NGX_RT_NONE: a gap */

typedef struct {
    uint64_t                      seq;
    uint64_t                      off;
    ngx_rt_link_t                *link;
    const char                   *reason;   /* of a stream's message: a gap
                                               before it */
} ngx_rt_item_t;


static ngx_rt_channel_t *ngx_rt_replay_join(ngx_rt_hub_t *hub,
    const ngx_str_t *name);
static void ngx_rt_replay_leave(ngx_rt_link_t *link);
static void ngx_rt_replay_start(ngx_rt_subscriber_t *sub,
    const ngx_str_t *text, ngx_uint_t start);
static ngx_int_t ngx_rt_replay_place(ngx_rt_subscriber_t *sub,
    const ngx_rt_cursor_t *after, uint64_t *seq);
static ngx_int_t ngx_rt_replay_collect(ngx_rt_subscriber_t *sub,
    ngx_array_t *items);
static ngx_int_t ngx_rt_replay_stream(ngx_rt_subscriber_t *sub,
    ngx_rt_link_t *link, ngx_array_t *items);
static const char *ngx_rt_replay_reason(ngx_rt_view_t *view);
static ngx_int_t ngx_rt_replay_channel(ngx_rt_subscriber_t *sub,
    ngx_rt_link_t *link, ngx_array_t *items);
static ngx_int_t ngx_rt_replay_cut(ngx_rt_subscriber_t *sub,
    ngx_rt_link_t *link, ngx_array_t *items, uint64_t off, uint64_t seq);
static ngx_int_t ngx_rt_replay_gap_item(ngx_array_t *items,
    ngx_rt_link_t *link, uint64_t seq, const char *reason);
static int ngx_libc_cdecl ngx_rt_replay_cmp(const void *one, const void *two);
static ngx_int_t ngx_rt_replay_deliver(ngx_rt_subscriber_t *sub,
    ngx_rt_item_t *item);
static void ngx_rt_replay_gap(ngx_rt_subscriber_t *sub, ngx_rt_link_t *link,
    const char *reason, uint64_t seq);


ngx_int_t
ngx_rt_hub_subscribe(ngx_rt_hub_t *hub, ngx_rt_subscriber_t *sub,
    const ngx_str_t *channels, const ngx_str_t *cursor, ngx_uint_t start)
{
    ngx_uint_t         i;
    ngx_rt_link_t     *link;
    ngx_rt_channel_t  *channel;

    ngx_rt_hub_run(hub);

    sub->hub = hub;
    sub->dirtied = 0;
    sub->again = 0;

    for (i = 0; i < sub->nlinks; i++) {

        channel = ngx_rt_replay_join(hub, &channels[i]);

        if (channel == NULL) {
            while (i) {
                ngx_rt_replay_leave(&sub->links[--i]);
            }

            return NGX_ERROR;
        }

        link = &sub->links[i];
        ngx_memzero(link, sizeof(ngx_rt_link_t));

        link->sub = sub;
        link->channel = channel;
        link->resumed = cursor ? 1 : 0;

        ngx_queue_insert_tail(&channel->links, &link->queue);
        channel->nlinks++;
        channel->npolls += sub->poll;
        ngx_rt_hub_count(hub, channel);
    }

    ngx_queue_insert_tail(&hub->subscribers, &sub->queue);
    sub->attached = 1;

    if (hub->store->stream) {
        ngx_rt_place_start(sub, channels, cursor, start);

    } else {
        ngx_rt_replay_start(sub, cursor, start);
    }

    if (hub->draining) {
        sub->ops->drain(sub);
    }

    return NGX_OK;
}


void
ngx_rt_hub_unsubscribe(ngx_rt_subscriber_t *sub)
{
    ngx_uint_t  i;

    if (!sub->attached) {
        return;
    }

    sub->attached = 0;

    ngx_queue_remove(&sub->queue);

    if (sub->dirtied) {
        ngx_queue_remove(&sub->dirty);
        sub->dirtied = 0;
    }

    for (i = 0; i < sub->nlinks; i++) {
        ngx_rt_replay_leave(&sub->links[i]);
    }
}


static ngx_rt_channel_t *
ngx_rt_replay_join(ngx_rt_hub_t *hub, const ngx_str_t *name)
{
    u_char            *p;
    ngx_rt_channel_t  *channel;

    channel = ngx_rt_hub_channel(hub, name);

    if (channel) {
        return channel;
    }

    channel = ngx_calloc(sizeof(ngx_rt_channel_t) + name->len, hub->log);
    if (channel == NULL) {
        return NULL;
    }

    p = (u_char *) channel + sizeof(ngx_rt_channel_t);
    ngx_memcpy(p, name->data, name->len);

    channel->hub = hub;
    channel->node.str.data = p;
    channel->node.str.len = name->len;
    channel->node.node.key = ngx_murmur_hash2(p, name->len);

    ngx_rt_table_key(hub->store, name, &channel->key);
    ngx_queue_init(&channel->links);
    ngx_rbtree_insert(&hub->channels, &channel->node.node);
    ngx_queue_insert_tail(&hub->lost, &channel->queue);

    /* no room: the hub's timer tries again */

    (void) ngx_rt_hub_enter(hub, channel);

    return channel;
}


static void
ngx_rt_replay_leave(ngx_rt_link_t *link)
{
    ngx_rt_hub_t      *hub;
    ngx_rt_channel_t  *channel;

    channel = link->channel;
    hub = channel->hub;

    ngx_queue_remove(&link->queue);

    channel->nlinks--;
    channel->npolls -= link->sub->poll;
    ngx_rt_hub_count(hub, channel);

    if (channel->nlinks) {
        return;
    }

    if (channel->entry && hub->map[channel->entry] == channel) {
        hub->map[channel->entry] = NULL;
    }

    ngx_queue_remove(&channel->queue);
    ngx_rbtree_delete(&hub->channels, &channel->node.node);
    ngx_free(channel);
}


static void
ngx_rt_replay_start(ngx_rt_subscriber_t *sub, const ngx_str_t *text,
    ngx_uint_t start)
{
    uint64_t         seq, oldest;
    ngx_str_t        id;
    ngx_uint_t       i, confirmed;
    ngx_rt_hub_t    *hub;
    ngx_rt_view_t    view;
    ngx_rt_cursor_t  after;
    u_char           buf[NGX_RT_CURSOR_LEN];

    seq = 0;
    hub = sub->hub;
    sub->behind = 1;
    sub->fresh = 0;
    sub->skip = 0;

    if (text && ngx_rt_cursor_parse(&after, text->data, text->len) == NGX_OK
        && ngx_rt_replay_place(sub, &after, &seq) == NGX_OK)
    {
        sub->seq = seq;
        ngx_rt_hub_replay(sub);
        return;
    }

    /* from where on start lets it see: for the latest, from before the oldest
     * of the channels' latest ones, and of each channel but that one */

    oldest = hub->seq;
    confirmed = 1;

    for (i = 0; i < sub->nlinks; i++) {

        if (ngx_rt_store_view(hub->store, sub->links[i].channel->entry,
                              sub->links[i].channel->gen, &view)
            != NGX_OK)
        {
            confirmed = 0;
            continue;
        }

        if (!view.confirmed) {
            confirmed = 0;
        }

        if (view.msg_seq && view.msg_seq <= oldest) {
            oldest = view.msg_seq - 1;
        }
    }

    switch (start) {

    case NGX_RT_START_NEW:
        sub->seq = hub->seq;
        break;

    case NGX_RT_START_HISTORY:
        sub->seq = 0;
        break;

    default:
        sub->seq = oldest;
        sub->skip = 1;
    }

    sub->fresh = 1;

    if (text) {
        for (i = 0; i < sub->nlinks; i++) {
            ngx_rt_replay_gap(sub, &sub->links[i], NGX_RT_GAP_CURSOR,
                              start == NGX_RT_START_HISTORY ? hub->seq
                                                            : sub->seq);
        }

    } else if (confirmed && (start == NGX_RT_START_NEW
                             || oldest == hub->seq))
    {
        id.data = buf;
        id.len = ngx_rt_hub_id(hub, buf, hub->seq, NULL);
        sub->ops->place(sub, &id);
    }

    ngx_rt_hub_replay(sub);
}


/* the seq at which a client with this cursor stands */

static ngx_int_t
ngx_rt_replay_place(ngx_rt_subscriber_t *sub, const ngx_rt_cursor_t *after,
    uint64_t *seq)
{
    ngx_uint_t         i;
    ngx_rt_store_t    *st;
    ngx_rt_channel_t  *channel;

    st = sub->hub->store;

    if (after->epoch == st->sh->epoch && after->seq <= ngx_rt_store_seq(st)) {
        *seq = after->seq;
        return NGX_OK;
    }

    /* another node's, or another life's of this one: by content */

    for (i = 0; after->digested && i < sub->nlinks; i++) {
        channel = sub->links[i].channel;

        if (ngx_rt_store_find(st, channel->entry, channel->gen, after->digest,
                              seq)
            == NGX_OK)
        {
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


void
ngx_rt_hub_behind(ngx_rt_subscriber_t *sub, uint64_t seq, ngx_uint_t skip)
{
    sub->behind = 1;
    sub->seq = seq;
    sub->skip = skip;
    sub->fresh = 0;
}


void
ngx_rt_hub_resume(ngx_rt_subscriber_t *sub)
{
    sub->full = 0;

    if (sub->attached && sub->behind) {
        ngx_rt_hub_replay(sub);
        ngx_rt_hub_dirty(sub);
    }
}


void
ngx_rt_hub_replay(ngx_rt_subscriber_t *sub)
{
    ngx_uint_t      i, tries;
    ngx_pool_t     *pool;
    ngx_array_t     items;
    ngx_rt_hub_t   *hub;
    ngx_rt_item_t  *item;

    hub = sub->hub;

    pool = ngx_create_pool(1024, hub->log);
    if (pool == NULL) {
        return;
    }

    for (tries = 0; tries < NGX_RT_REPLAY_TRIES; tries++) {

        if (ngx_array_init(&items, pool, 16, sizeof(ngx_rt_item_t)) != NGX_OK
            || ngx_rt_replay_collect(sub, &items) != NGX_OK)
        {
            break;
        }

        item = items.elts;

        for (i = 0; i < items.nelts; i++) {

            if (sub->full) {
                goto done;
            }

            if (ngx_rt_replay_deliver(sub, &item[i]) != NGX_OK) {
                break;
            }

            /* items of one seq belong together */

            if (i + 1 == items.nelts || item[i + 1].seq != item[i].seq) {
                sub->seq = item[i].seq;
            }
        }

        if (i == items.nelts) {
            sub->seq = hub->seq;
            sub->behind = 0;
            sub->fresh = 0;
            sub->skip = 0;

            if (hub->store->stream) {
                ngx_rt_place_told(sub);
            }

            break;
        }
    }

done:

    ngx_destroy_pool(pool);
}


static ngx_int_t
ngx_rt_replay_collect(ngx_rt_subscriber_t *sub, ngx_array_t *items)
{
    ngx_int_t   rc;
    ngx_uint_t  i;

    for (i = 0; i < sub->nlinks; i++) {

        if (sub->hub->store->stream) {
            rc = ngx_rt_replay_stream(sub, &sub->links[i], items);

        } else if (sub->links[i].channel->entry != NGX_RT_NONE) {
            rc = ngx_rt_replay_channel(sub, &sub->links[i], items);

        } else {
            rc = NGX_OK;
        }

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    ngx_qsort(items->elts, items->nelts, sizeof(ngx_rt_item_t),
              ngx_rt_replay_cmp);

    return NGX_OK;
}


/* why there is nothing up to the floor */

static const char *
ngx_rt_replay_reason(ngx_rt_view_t *view)
{
    if (view->floor == view->confirm_seq) {
        return NGX_RT_GAP_FEED;
    }

    return (view->count == 0 && view->floor == view->version)
           ? NGX_RT_GAP_TOO_LARGE : NGX_RT_GAP_EXPIRED;
}


static ngx_int_t
ngx_rt_replay_channel(ngx_rt_subscriber_t *sub, ngx_rt_link_t *link,
    ngx_array_t *items)
{
    uint64_t           *offs, floor;
    ngx_int_t           n, i, first;
    ngx_uint_t          max, fresh, skip;
    ngx_rt_hub_t       *hub;
    ngx_rt_view_t       view;
    ngx_rt_item_t      *item;
    ngx_rt_channel_t   *channel;

    hub = sub->hub;
    channel = link->channel;

    if (ngx_rt_store_view(hub->store, channel->entry, channel->gen, &view)
        != NGX_OK)
    {
        /* just evicted; the log is about to say so */
        return NGX_OK;
    }

    max = view.count + 1;

    offs = ngx_palloc(items->pool, 2 * max * sizeof(uint64_t));
    if (offs == NULL) {
        return NGX_ERROR;
    }

    /* the floor is read after the list: it tells of all that is not in it */

    n = ngx_rt_store_history(hub->store, channel->entry, channel->gen,
                             sub->seq, hub->seq, offs, offs + max, max);
    if (n < 0
        || ngx_rt_store_view(hub->store, channel->entry, channel->gen, &view)
           != NGX_OK)
    {
        return NGX_OK;
    }

    /* what begins is to begin once: it may not take all in one turn */

    fresh = sub->fresh && !link->begun;
    skip = sub->skip && fresh == sub->fresh;

    first = (skip && n > 1) ? n - 1 : 0;

    if (!fresh) {

        if (first > 0
            && ngx_rt_replay_gap_item(items, link, offs[max + first] - 1,
                                      NGX_RT_GAP_SLOW)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        /* what was dropped, and what was never heard; a floor that is ahead
         * of the hub is that of messages if there are any (else the log will
         * tell), and those up to the hub's place may be among the dropped */

        floor = ngx_min(view.floor, hub->seq);

        if (sub->seq < floor && (floor == view.floor || view.count)
            && ngx_rt_replay_gap_item(items, link, floor,
                                      ngx_rt_replay_reason(&view))
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        /* if the next cut is to be confirmed yet, the log will tell it; but
         * what came after the last one does not wait for that */

        if (sub->seq < view.confirm_seq && view.confirm_seq <= hub->seq
            && view.confirm_seq != view.floor
            && (view.confirmed || view.msg_seq > view.confirm_seq)
            && ngx_rt_replay_gap_item(items, link, view.confirm_seq,
                                      NGX_RT_GAP_FEED)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

    } else if (n > 0 && offs[max + first] < view.confirm_seq
               && view.confirm_seq <= hub->seq
               && (view.confirmed || view.msg_seq > view.confirm_seq)
               && ngx_rt_replay_gap_item(items, link, view.confirm_seq,
                                         NGX_RT_GAP_FEED)
                  != NGX_OK)
    {
        /* begins with what is known from before the cut */
        return NGX_ERROR;
    }

    for (i = first; i < n; i++) {

        /* confirm_seq is the last cut's; a message before it is marked where
         * there was an earlier one */

        if (offs[max + i] < view.confirm_seq
            && (fresh ? i > first : i || sub->seq >= view.floor)
            && ngx_rt_replay_cut(sub, link, items, offs[i], offs[max + i])
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        item = ngx_array_push(items);
        if (item == NULL) {
            return NGX_ERROR;
        }

        item->seq = offs[max + i];
        item->off = offs[i];
        item->link = link;
        item->reason = NULL;
    }

    return NGX_OK;
}


/*
 * Of a stream: by the id that the client has.  Who is to get but the newest
 * message has a place that it was not told: by what it got.
 */

static ngx_int_t
ngx_rt_replay_stream(ngx_rt_subscriber_t *sub, ngx_rt_link_t *link,
    ngx_array_t *items)
{
    uint64_t           *offs, after;
    ngx_int_t           n, i;
    ngx_uint_t          max;
    ngx_rt_hub_t       *hub;
    ngx_rt_view_t       view;
    ngx_rt_item_t      *item;
    ngx_rt_channel_t   *channel;

    hub = sub->hub;
    channel = link->channel;

    if (ngx_rt_place_after(link, &after) != NGX_OK
        || ngx_rt_store_view(hub->store, channel->entry, channel->gen, &view)
           != NGX_OK)
    {
        return NGX_OK;
    }

    if (sub->skip) {
        after = sub->seq;
    }

    max = view.count + 1;

    offs = ngx_palloc(items->pool, 2 * max * sizeof(uint64_t));
    if (offs == NULL) {
        return NGX_ERROR;
    }

    n = ngx_rt_store_history(hub->store, channel->entry, channel->gen, after,
                             hub->seq, offs, offs + max, max);

    for (i = (sub->skip && n > 1) ? n - 1 : 0; i < n; i++) {

        item = ngx_array_push(items);
        if (item == NULL) {
            return NGX_ERROR;
        }

        item->seq = offs[max + i];
        item->off = offs[i];
        item->link = link;
        item->reason = (sub->skip && (n > 1 || after < view.floor))
                       ? NGX_RT_GAP_SLOW : NULL;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_replay_cut(ngx_rt_subscriber_t *sub, ngx_rt_link_t *link,
    ngx_array_t *items, uint64_t off, uint64_t seq)
{
    ngx_rt_record_sh_t  rec;

    if (ngx_rt_log_peek(sub->hub->store, off, &rec) != NGX_OK
        || rec.seq != seq || !(rec.flags & NGX_RT_AFTER))
    {
        /* overwritten meanwhile: that will be seen, and collected again */
        return NGX_OK;
    }

    return ngx_rt_replay_gap_item(items, link, seq - 1, NGX_RT_GAP_FEED);
}


static ngx_int_t
ngx_rt_replay_gap_item(ngx_array_t *items, ngx_rt_link_t *link, uint64_t seq,
    const char *reason)
{
    ngx_rt_item_t  *item;

    item = ngx_array_push(items);
    if (item == NULL) {
        return NGX_ERROR;
    }

    item->seq = seq;
    item->off = NGX_RT_NONE;
    item->link = link;
    item->reason = reason;

    return NGX_OK;
}


static int ngx_libc_cdecl
ngx_rt_replay_cmp(const void *one, const void *two)
{
    const ngx_rt_item_t  *a, *b;

    a = one;
    b = two;

    if (a->seq != b->seq) {
        return a->seq < b->seq ? -1 : 1;
    }

    return (a->off > b->off) - (a->off < b->off);
}


/* NGX_DECLINED: overwritten, collect again */

static ngx_int_t
ngx_rt_replay_deliver(ngx_rt_subscriber_t *sub, ngx_rt_item_t *item)
{
    ngx_rt_delivery_t   msg;
    ngx_rt_record_sh_t  rec;
    u_char              id[NGX_RT_CURSOR_LEN];

    if (item->off == NGX_RT_NONE) {
        ngx_rt_replay_gap(sub, item->link, item->reason, item->seq);
        return NGX_OK;
    }

    if (ngx_rt_log_peek(sub->hub->store, item->off, &rec) != NGX_OK
        || rec.seq != item->seq
        || ngx_rt_hub_read(sub->hub, item->off, &rec, &msg) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    msg.channel = item->link->channel->node.str;
    msg.id.data = id;
    msg.id.len = ngx_rt_hub_id(sub->hub, id, rec.seq, rec.tag);

    if (item->reason) {
        ngx_memcpy(item->link->tag, rec.tag, NGX_RT_TAG_LEN);
        ngx_rt_sid_before(item->link->tag);
        ngx_rt_place_gap(item->link, item->reason);
    }

    ngx_rt_hub_give(item->link, &msg, rec.tag);
    item->link->begun = 1;

    ngx_rt_hub_done(&msg);

    return NGX_OK;
}


static void
ngx_rt_replay_gap(ngx_rt_subscriber_t *sub, ngx_rt_link_t *link,
    const char *reason, uint64_t seq)
{
    ngx_str_t  id;
    u_char     buf[NGX_RT_CURSOR_LEN];

    id.data = buf;
    id.len = ngx_rt_hub_id(sub->hub, buf, seq, NULL);

    sub->ops->gap(sub, &link->channel->node.str, reason, &id);
}
