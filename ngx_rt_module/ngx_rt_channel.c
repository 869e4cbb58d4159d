
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * A worker's channels, and their places in the table of all: found, given,
 * lost and given anew.
 */


#include <ngx_rt_worker.h>


/* the channel has no entry any more; it is asked for again by the timer */

void
ngx_rt_hub_lose(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel)
{
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;

    if (hub->map[channel->entry] == channel) {
        hub->map[channel->entry] = NULL;
    }

    channel->entry = NGX_RT_NONE;
    ngx_memzero(&channel->viewers, sizeof(ngx_rt_viewers_t));
    ngx_memzero(&channel->held, sizeof(ngx_rt_viewers_t));

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);
        link->resumed = 1;
    }

    if (hub->store->stream) {
        ngx_rt_place_evicted(channel);
    }

    ngx_queue_remove(&channel->queue);
    ngx_queue_insert_tail(&hub->lost, &channel->queue);
}


void
ngx_rt_hub_find_lost(ngx_rt_hub_t *hub)
{
    ngx_queue_t       *q, lost;
    ngx_rt_channel_t  *channel;

    if (ngx_queue_empty(&hub->lost)) {
        return;
    }

    /* one try each: a try may evict another of this worker's channels, which
     * then joins the queue and waits for the next second */

    ngx_queue_init(&lost);
    ngx_queue_add(&lost, &hub->lost);
    ngx_queue_init(&hub->lost);

    while (!ngx_queue_empty(&lost)) {
        q = ngx_queue_head(&lost);
        channel = ngx_queue_data(q, ngx_rt_channel_t, queue);
        ngx_queue_remove(q);
        ngx_queue_insert_tail(&hub->lost, q);

        if (ngx_rt_hub_enter(hub, channel) != NGX_OK) {
            continue;
        }

        if (hub->store->embedded) {
            /* nobody will confirm it */
            ngx_rt_hub_gap(hub, channel, NGX_RT_GAP_EVICTED, hub->seq);

        } else if (hub->store->stream) {
            ngx_rt_place_entered(channel);
        }
    }
}


/* gives the channel its place in the table */

ngx_int_t
ngx_rt_hub_enter(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel)
{
    ngx_rt_key_t       key;
    ngx_rt_view_t      view;
    ngx_rt_channel_t  *other;

    ngx_rt_table_key(hub->store, &channel->node.str, &key);

    if (ngx_rt_hub_look(hub, &channel->node.str, &key, &view) != NGX_OK) {
        return NGX_DECLINED;
    }

    other = hub->map[view.entry];

    if (other && other != channel) {

        /* evicted, perhaps for this one: nobody finds it when the log says
         * so */

        if (!hub->store->stream) {
            ngx_rt_hub_gap(hub, other, NGX_RT_GAP_EVICTED, hub->seq);
        }

        ngx_rt_hub_lose(hub, other);
    }

    channel->entry = view.entry;
    channel->gen = view.gen;
    hub->map[view.entry] = channel;

    ngx_rt_hub_count(hub, channel);

    ngx_queue_remove(&channel->queue);
    ngx_queue_insert_tail(&hub->used, &channel->queue);

    return NGX_OK;
}


ngx_int_t
ngx_rt_hub_look(ngx_rt_hub_t *hub, const ngx_str_t *name,
    const ngx_rt_key_t *key, ngx_rt_view_t *view)
{
    ngx_uint_t         queued;
    ngx_rt_feed_sh_t  *feed;

    if (ngx_rt_table_look(hub->store, key, ngx_time(), view) == NGX_OK
        && (view->confirmed || view->wanted))
    {
        return NGX_OK;
    }

    queued = 0;

    if (ngx_rt_store_touch(hub->store, name, ngx_time(), view, &queued)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (queued) {
        feed = &hub->store->sh->feed;

        if (feed->pid == (uint32_t) ngx_pid) {
            if (!hub->posted.posted) {
                ngx_post_event(&hub->posted, &ngx_posted_events);
            }

        } else {
            ngx_rt_wakeup_send(feed->slot);
        }
    }

    return NGX_OK;
}


void
ngx_rt_hub_count(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel)
{
    ngx_time_t  *tp;

    ngx_rt_viewers_set(hub->store, channel->entry, channel->gen,
                       &channel->viewers,
                       (uint32_t) (channel->nlinks - channel->npolls));

    if (channel->npolls == 0 && channel->held.count == 0
        && channel->nheld == 0)
    {
        return;
    }

    tp = ngx_timeofday();

    ngx_rt_rate_hold(hub->store, channel->entry, channel->gen, &channel->held,
                     (uint32_t) channel->npolls,
                     (uint64_t) tp->sec * 1000 + tp->msec);

    ngx_rt_count(hub, held, (uint32_t) (channel->npolls - channel->nheld));
    channel->nheld = channel->npolls;
}


ngx_uint_t
ngx_rt_hub_viewers(ngx_rt_hub_t *hub, const ngx_str_t *name)
{
    ngx_rt_key_t   key;
    ngx_rt_view_t  view;

    ngx_rt_table_key(hub->store, name, &key);

    if (ngx_rt_table_look(hub->store, &key, ngx_time(), &view) != NGX_OK) {
        return 0;
    }

    return ngx_rt_viewers_get(hub->store, view.entry);
}


ngx_rt_channel_t *
ngx_rt_hub_channel(ngx_rt_hub_t *hub, const ngx_str_t *name)
{
    ngx_str_node_t  *node;

    node = ngx_str_rbtree_lookup(&hub->channels, (ngx_str_t *) name,
                                 ngx_murmur_hash2(name->data, name->len));
    if (node == NULL) {
        return NULL;
    }

    return (ngx_rt_channel_t *)
               ((u_char *) node - offsetof(ngx_rt_channel_t, node));
}
