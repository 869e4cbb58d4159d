
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * One worker's side of a hub: it follows the log, and gives what concerns
 * its own clients to them.  What a client has missed comes from the
 * channel's history instead (ngx_rt_replay.c); the place where one ends and
 * the other begins is hub->seq.
 */


#include <ngx_rt_worker.h>
#include <sys/mman.h>


#define NGX_RT_HUB_TICK           100       /* ms */
#define NGX_RT_HUB_TICKS          10        /* in a second */

/* bytes read from the log between two flushes, and in one turn */
#define NGX_RT_HUB_PORTION        (32 * 1024)
#define NGX_RT_HUB_TURN           (1024 * 1024)


static void ngx_rt_hub_take_slot(ngx_rt_hub_t *hub);
static void ngx_rt_hub_timer(ngx_event_t *ev);
static void ngx_rt_hub_posted(ngx_event_t *ev);
static void ngx_rt_hub_stamp(ngx_rt_hub_t *hub);
static void ngx_rt_hub_retry(ngx_rt_hub_t *hub);
static void ngx_rt_hub_overrun(ngx_rt_hub_t *hub);
static ngx_int_t ngx_rt_hub_record(ngx_rt_hub_t *hub, uint64_t off,
    ngx_rt_record_sh_t *rec);
static ngx_int_t ngx_rt_hub_message(ngx_rt_hub_t *hub,
    ngx_rt_channel_t *channel, uint64_t off, ngx_rt_record_sh_t *rec);
static void ngx_rt_hub_confirm(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel,
    ngx_rt_record_sh_t *rec);
static void ngx_rt_hub_ahead(ngx_rt_channel_t *channel, ngx_queue_t *q);
static void ngx_rt_hub_settled(ngx_rt_channel_t *channel);


ngx_int_t
ngx_rt_hub_init(ngx_cycle_t *cycle, ngx_rt_hub_conf_t *conf)
{
    void          *map;
    size_t         size;
    ngx_rt_hub_t  *hub;

    hub = ngx_pcalloc(cycle->pool, sizeof(ngx_rt_hub_t));
    if (hub == NULL) {
        return NGX_ERROR;
    }

    hub->conf = conf;
    hub->store = &conf->store;
    hub->log = cycle->log;

    /* untouched pages of the map cost nothing */

    size = hub->store->sh->nentries * sizeof(ngx_rt_channel_t *);

    map = mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS,
               -1, 0);

    if (map == MAP_FAILED) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "mmap(%uz) failed", size);
        return NGX_ERROR;
    }

    hub->map = map;

    ngx_rbtree_init(&hub->channels, &hub->sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_queue_init(&hub->used);
    ngx_queue_init(&hub->lost);
    ngx_queue_init(&hub->subscribers);
    ngx_queue_init(&hub->dirty);

    ngx_rt_hub_take_slot(hub);

    /* the lock makes head and seq belong together */

    ngx_rt_store_lock(hub->store);
    hub->pos = hub->store->sh->head;
    hub->seq = hub->store->sh->seq;
    ngx_rt_store_unlock(hub->store);

    hub->timer.handler = ngx_rt_hub_timer;
    hub->timer.data = hub;
    hub->timer.log = cycle->log;
    hub->timer.cancelable = 1;

    hub->posted.handler = ngx_rt_hub_posted;
    hub->posted.data = hub;
    hub->posted.log = cycle->log;

    ngx_add_timer(&hub->timer, NGX_RT_HUB_TICK);

    conf->hub = hub;

    return NGX_OK;
}


static void
ngx_rt_hub_take_slot(ngx_rt_hub_t *hub)
{
    ngx_rt_zone_sh_t  *sh;
    ngx_rt_slot_sh_t  *slot;

    sh = hub->store->sh;

    hub->nslot = ngx_rt_wakeup_slot();

    /* more workers than the inherited zone has slots for: the last one is
     * shared, its counts are then approximate */

    slot = &hub->store->slots[ngx_min(hub->nslot, sh->nslots - 1)];

    ngx_rt_viewers_taken(hub->store, slot);

    __atomic_store_n(&slot->open[NGX_RT_SSE], 0, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->open[NGX_RT_WEBSOCKET], 0, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->held, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->pending, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->quitting, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->pid, (uint32_t) ngx_pid, __ATOMIC_RELEASE);

    hub->slot = slot;
}


void
ngx_rt_hub_exit(ngx_rt_hub_conf_t *conf)
{
    ngx_queue_t       *q;
    ngx_rt_hub_t      *hub;
    ngx_rt_channel_t  *channel;

    hub = conf->hub;

    if (hub == NULL) {
        return;
    }

    if (hub->timer.timer_set) {
        ngx_del_timer(&hub->timer);
    }

    if (hub->posted.posted) {
        ngx_delete_posted_event(&hub->posted);
    }

    /* streams that are open still end with the process */

    for (q = ngx_queue_head(&hub->used);
         q != ngx_queue_sentinel(&hub->used);
         q = ngx_queue_next(q))
    {
        channel = ngx_queue_data(q, ngx_rt_channel_t, queue);

        ngx_rt_viewers_set(hub->store, channel->entry, channel->gen,
                           &channel->viewers, 0);
        ngx_rt_rate_hold(hub->store, channel->entry, channel->gen,
                         &channel->held, 0, 0);
    }

    __atomic_store_n(&hub->slot->open[NGX_RT_SSE], 0, __ATOMIC_RELAXED);
    __atomic_store_n(&hub->slot->open[NGX_RT_WEBSOCKET], 0, __ATOMIC_RELAXED);
    __atomic_store_n(&hub->slot->held, 0, __ATOMIC_RELAXED);

    if (hub->buffer) {
        ngx_free(hub->buffer);
        hub->buffer = NULL;
        hub->buffer_size = 0;
    }

    if (hub->gather) {
        ngx_free(hub->gather);
        hub->gather = NULL;
        hub->gathered = NULL;
    }

    ngx_rt_out_exit(hub);

    conf->hub = NULL;
}


static void
ngx_rt_hub_timer(ngx_event_t *ev)
{
    ngx_rt_hub_t  *hub;

    hub = ev->data;

    ngx_rt_hub_run(hub);

    if (++hub->ticks % NGX_RT_HUB_TICKS == 0) {
        ngx_rt_viewers_reap(hub->store);
        ngx_rt_hub_stamp(hub);
        ngx_rt_hub_find_lost(hub);
        ngx_rt_hub_retry(hub);
        ngx_rt_hub_flush(hub);
    }

    ngx_add_timer(ev, NGX_RT_HUB_TICK);
}


static void
ngx_rt_hub_posted(ngx_event_t *ev)
{
    ngx_rt_hub_t  *hub;

    hub = ev->data;

    if (hub->wake) {
        hub->wake(hub);
    }

    ngx_rt_hub_run(hub);
}


/* what is followed is in use */

static void
ngx_rt_hub_stamp(ngx_rt_hub_t *hub)
{
    ngx_queue_t       *q;
    ngx_rt_view_t      view;
    ngx_rt_channel_t  *channel;

    for (q = ngx_queue_head(&hub->used);
         q != ngx_queue_sentinel(&hub->used);
         q = ngx_queue_next(q))
    {
        channel = ngx_queue_data(q, ngx_rt_channel_t, queue);

        (void) ngx_rt_table_look(hub->store, &channel->key, ngx_time(), &view);

        ngx_rt_hub_count(hub, channel);
    }
}


/* who could be given nothing, for memory or because it was overwritten as
 * fast as it was read, has no event of its own to go on from */

static void
ngx_rt_hub_retry(ngx_rt_hub_t *hub)
{
    ngx_queue_t          *q;
    ngx_rt_subscriber_t  *sub;

    for (q = ngx_queue_head(&hub->subscribers);
         q != ngx_queue_sentinel(&hub->subscribers);
         q = ngx_queue_next(q))
    {
        sub = ngx_queue_data(q, ngx_rt_subscriber_t, queue);

        if ((sub->behind || sub->again) && !sub->full) {
            sub->again = 0;
            sub->behind = 1;
            ngx_rt_hub_resume(sub);
        }
    }
}


void
ngx_rt_hub_notify(ngx_rt_hub_t *hub)
{
    ngx_uint_t         i, n;
    ngx_rt_slot_sh_t  *slots;

    slots = hub->store->slots;
    n = hub->store->sh->nslots;

    for (i = 0; i < n; i++) {

        if (&slots[i] == hub->slot
            || __atomic_load_n(&slots[i].pid, __ATOMIC_RELAXED) == 0)
        {
            continue;
        }

        if (__atomic_exchange_n(&slots[i].pending, 1, __ATOMIC_SEQ_CST) == 0) {
            ngx_rt_wakeup_send(i);
        }
    }

    if (!hub->posted.posted) {
        ngx_post_event(&hub->posted, &ngx_posted_events);
    }
}


void
ngx_rt_hub_run(ngx_rt_hub_t *hub)
{
    size_t              portion, turn;
    uint64_t            seq;
    ngx_int_t           rc;
    ngx_rt_record_sh_t  rec;

    if (hub->running) {
        return;
    }

    hub->running = 1;

    /* before the head is read: who writes after that will wake us again */

    __atomic_store_n(&hub->slot->pending, 0, __ATOMIC_SEQ_CST);

    portion = 0;
    turn = 0;

    while (turn < NGX_RT_HUB_TURN) {

        /* a record is readable before its seq is told, so at the head all up
         * to this seq has been read; some seqs have no record */

        seq = ngx_rt_store_seq(hub->store);

        rc = ngx_rt_log_peek(hub->store, hub->pos, &rec);

        if (rc == NGX_DONE) {
            hub->seq = ngx_max(hub->seq, seq);
            break;
        }

        if (rc == NGX_DECLINED
            || ngx_rt_hub_record(hub, hub->pos, &rec) != NGX_OK)
        {
            ngx_rt_hub_overrun(hub);
            continue;
        }

        hub->pos += rec.size;
        portion += rec.size;

        if (portion >= NGX_RT_HUB_PORTION
            || hub->pushed >= NGX_RT_HUB_PIECES)
        {
            turn += portion;
            portion = 0;
            ngx_rt_hub_flush(hub);
        }
    }

    ngx_rt_hub_flush(hub);

    hub->running = 0;

    if (turn >= NGX_RT_HUB_TURN && !hub->posted.posted) {
        ngx_post_event(&hub->posted, &ngx_posted_next_events);
    }
}


/*
 * The log came round before this worker had read it.  What is retained was
 * carried forward: all subscribers go on from the history.
 */

static void
ngx_rt_hub_overrun(ngx_rt_hub_t *hub)
{
    uint64_t              seq;
    ngx_queue_t          *q;
    ngx_rt_view_t         view;
    ngx_rt_channel_t     *channel;
    ngx_rt_subscriber_t  *sub;

    ngx_log_error(NGX_LOG_WARN, hub->log, 0,
                  "rt_hub \"%V\": this worker was overtaken by the log",
                  &hub->conf->name);

    seq = hub->seq;

    ngx_rt_store_lock(hub->store);
    hub->pos = hub->store->sh->head;
    hub->seq = hub->store->sh->seq;
    ngx_rt_store_unlock(hub->store);

    for (q = ngx_queue_head(&hub->used);
         q != ngx_queue_sentinel(&hub->used);
         /* void */)
    {
        channel = ngx_queue_data(q, ngx_rt_channel_t, queue);
        q = ngx_queue_next(q);

        if (ngx_rt_store_view(hub->store, channel->entry, channel->gen, &view)
            != NGX_OK)
        {
            ngx_rt_hub_lose(hub, channel);
        }
    }

    for (q = ngx_queue_head(&hub->subscribers);
         q != ngx_queue_sentinel(&hub->subscribers);
         q = ngx_queue_next(q))
    {
        sub = ngx_queue_data(q, ngx_rt_subscriber_t, queue);

        if (!sub->behind) {
            ngx_rt_hub_behind(sub, seq, 0);
        }

        ngx_rt_hub_resume(sub);
    }
}


/* NGX_DECLINED: overwritten just now, perhaps not as far as the next one */

static ngx_int_t
ngx_rt_hub_record(ngx_rt_hub_t *hub, uint64_t off, ngx_rt_record_sh_t *rec)
{
    ngx_rt_channel_t  *channel;

    if (rec->type == NGX_RT_PAD || rec->type == NGX_RT_NAME
        || (rec->flags & NGX_RT_COPY) || rec->seq <= hub->seq)
    {
        return NGX_OK;
    }

    if (rec->entry < hub->store->sh->nentries) {
        channel = hub->map[rec->entry];

    } else {
        channel = NULL;
    }

    if (channel && channel->gen == rec->gen) {

        switch (rec->type) {

        case NGX_RT_MESSAGE:
            if (ngx_rt_hub_message(hub, channel, off, rec) != NGX_OK) {
                return NGX_DECLINED;
            }
            break;

        case NGX_RT_CONFIRM:
            if (hub->store->stream) {
                ngx_rt_place_confirm(channel, rec);
                break;
            }

            ngx_rt_hub_confirm(hub, channel, rec);
            break;

        case NGX_RT_DROP:
            if (hub->store->stream) {
                ngx_rt_place_drop(channel, rec);
                break;
            }

            ngx_rt_hub_gap(hub, channel, NGX_RT_GAP_TOO_LARGE, rec->seq);
            break;

        case NGX_RT_EVICT:
            if (!hub->store->stream) {
                ngx_rt_hub_gap(hub, channel, NGX_RT_GAP_EVICTED, rec->seq);
            }

            ngx_rt_hub_lose(hub, channel);
            break;

        case NGX_RT_SETTLED:
            ngx_rt_hub_settled(channel);
            break;
        }
    }

    hub->seq = rec->seq;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_hub_message(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel, uint64_t off,
    ngx_rt_record_sh_t *rec)
{
    ngx_queue_t          *q;
    ngx_rt_link_t        *link;
    ngx_rt_delivery_t     msg;
    ngx_rt_subscriber_t  *sub;
    u_char                id[NGX_RT_CURSOR_LEN];

    if (ngx_rt_hub_read(hub, off, rec, &msg) != NGX_OK) {
        return NGX_DECLINED;
    }

    msg.channel = channel->node.str;
    msg.id.data = id;
    msg.id.len = ngx_rt_hub_id(hub, id, rec->seq, rec->tag);

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);
        sub = link->sub;

        ngx_rt_hub_ahead(channel, ngx_queue_next(q));

        if (sub->behind
            || (hub->store->stream && !ngx_rt_place_wants(link, rec)))
        {
            continue;
        }

        sub->seq = rec->seq;
        ngx_rt_hub_give(link, &msg, rec->tag);
        ngx_rt_hub_dirty(sub);
    }

    ngx_rt_hub_done(&msg);

    return NGX_OK;
}


/* subscribers are spread over memory: the next one is asked for while this one
 * is served, the link after it, too */

static void
ngx_rt_hub_ahead(ngx_rt_channel_t *channel, ngx_queue_t *q)
{
    u_char         *p;
    ngx_rt_link_t  *link;

    if (q == ngx_queue_sentinel(&channel->links)) {
        return;
    }

    link = ngx_queue_data(q, ngx_rt_link_t, queue);
    p = (u_char *) link->sub;

    ngx_rt_prefetch(ngx_queue_next(q));
    ngx_rt_prefetch(p);
    ngx_rt_prefetch(p + NGX_RT_CACHE_LINE);
    ngx_rt_prefetch(p + 2 * NGX_RT_CACHE_LINE);
}


/* of several streams the client's cursor is where it stands in each of them,
 * which is nobody else's */

void
ngx_rt_hub_give(ngx_rt_link_t *link, ngx_rt_delivery_t *msg,
    const u_char *tag)
{
    ngx_str_t             shared;
    ngx_rt_subscriber_t  *sub;
    u_char                id[NGX_RT_PLACES_LEN];

    sub = link->sub;

    if (!sub->hub->store->stream) {
        sub->ops->deliver(sub, msg);
        return;
    }

    ngx_memcpy(link->tag, tag, NGX_RT_TAG_LEN);

    link->ahead = 0;
    sub->silent = 0;

    if (sub->nlinks == 1) {
        sub->ops->deliver(sub, msg);
        return;
    }

    shared = msg->id;

    msg->id.data = id;
    msg->id.len = ngx_rt_place_id(sub, id);
    msg->own = 1;

    sub->ops->deliver(sub, msg);

    msg->id = shared;
    msg->own = 0;
}


ngx_int_t
ngx_rt_hub_read(ngx_rt_hub_t *hub, uint64_t off, ngx_rt_record_sh_t *rec,
    ngx_rt_delivery_t *msg)
{
    u_char  *p;
    size_t   size;

    size = (size_t) rec->event_len + rec->data_len;

    if (size > hub->buffer_size) {

        p = ngx_alloc(size, hub->log);
        if (p == NULL) {
            return NGX_ERROR;
        }

        if (hub->buffer) {
            ngx_free(hub->buffer);
        }

        hub->buffer = p;
        hub->buffer_size = size;
    }

    if (ngx_rt_log_body(hub->store, off, rec, hub->buffer) != NGX_OK) {
        return NGX_DECLINED;
    }

    ngx_memzero(msg, sizeof(ngx_rt_delivery_t));

    msg->event.data = hub->buffer;
    msg->event.len = rec->event_len;
    msg->data.data = hub->buffer + rec->event_len;
    msg->data.len = rec->data_len;
    msg->seq = rec->seq;

    return NGX_OK;
}


void
ngx_rt_hub_done(ngx_rt_delivery_t *msg)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_RT_FRAMES; i++) {
        if (msg->frames[i]) {
            ngx_rt_frame_free(msg->frames[i]);
            msg->frames[i] = NULL;
        }
    }
}


size_t
ngx_rt_hub_id(ngx_rt_hub_t *hub, u_char *buf, uint64_t seq,
    const u_char *tag)
{
    ngx_rt_cursor_t  cursor;

    if (hub->store->stream) {
        return tag ? ngx_rt_sid_format(buf, tag) - buf : 0;
    }

    ngx_memzero(&cursor, sizeof(ngx_rt_cursor_t));

    cursor.epoch = hub->store->sh->epoch;
    cursor.seq = seq;

    if (tag) {
        cursor.digested = 1;
        ngx_memcpy(cursor.digest, tag, NGX_RT_DIGEST_LEN);
    }

    return ngx_rt_cursor_format(buf, &cursor) - buf;
}


/*
 * The channel is subscribed from rec->seq on.  To a client that held a
 * cursor, or when it was subscribed before, that is a gap; to others it is
 * where they begin.
 */

static void
ngx_rt_hub_confirm(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel,
    ngx_rt_record_sh_t *rec)
{
    ngx_str_t             id;
    ngx_queue_t          *q;
    ngx_rt_link_t        *link;
    ngx_rt_subscriber_t  *sub;
    u_char                buf[NGX_RT_CURSOR_LEN];

    id.data = buf;
    id.len = ngx_rt_hub_id(hub, buf, rec->seq, NULL);

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);
        sub = link->sub;

        if (sub->behind) {
            /* finds confirm_seq by itself */
            continue;
        }

        if (link->resumed || (rec->flags & NGX_RT_BROKEN)) {
            sub->ops->gap(sub, &channel->node.str, NGX_RT_GAP_FEED, &id);

        } else {
            sub->ops->place(sub, &id);
        }

        link->resumed = 1;
        sub->seq = rec->seq;
        ngx_rt_hub_dirty(sub);
    }
}


void
ngx_rt_hub_gap(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel,
    const char *reason, uint64_t seq)
{
    ngx_str_t             id;
    ngx_queue_t          *q;
    ngx_rt_link_t        *link;
    ngx_rt_subscriber_t  *sub;
    u_char                buf[NGX_RT_CURSOR_LEN];

    id.data = buf;
    id.len = ngx_rt_hub_id(hub, buf, seq, NULL);

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);
        sub = link->sub;

        if (sub->behind) {
            continue;
        }

        link->resumed = 1;
        sub->seq = seq;
        sub->ops->gap(sub, &channel->node.str, reason, &id);
        ngx_rt_hub_dirty(sub);
    }
}


static void
ngx_rt_hub_settled(ngx_rt_channel_t *channel)
{
    ngx_queue_t    *q;
    ngx_rt_link_t  *link;

    for (q = ngx_queue_head(&channel->links);
         q != ngx_queue_sentinel(&channel->links);
         q = ngx_queue_next(q))
    {
        link = ngx_queue_data(q, ngx_rt_link_t, queue);

        if (link->sub->ops->settled) {
            link->sub->ops->settled(link->sub);
        }
    }
}


void
ngx_rt_hub_dirty(ngx_rt_subscriber_t *sub)
{
    if (!sub->dirtied) {
        sub->dirtied = 1;
        ngx_queue_insert_tail(&sub->hub->dirty, &sub->dirty);
    }
}


void
ngx_rt_hub_flush(ngx_rt_hub_t *hub)
{
    ngx_queue_t          *q, *next, dirty;
    ngx_rt_subscriber_t  *sub;

    hub->pushed = 0;

    while (!ngx_queue_empty(&hub->dirty)) {

        /* those who are dirtied meanwhile have the next turn */

        ngx_queue_init(&dirty);
        ngx_queue_add(&dirty, &hub->dirty);
        ngx_queue_init(&hub->dirty);

        for (q = ngx_queue_head(&dirty);
             q != ngx_queue_sentinel(&dirty);
             q = next)
        {
            next = ngx_queue_next(q);
            ngx_rt_prefetch(next);
            ngx_rt_prefetch((u_char *) next + NGX_RT_CACHE_LINE);

            sub = ngx_queue_data(q, ngx_rt_subscriber_t, dirty);
            sub->dirtied = 0;

            sub->ops->flush(sub);
        }

        if (hub->gathered) {
            hub->gathered(hub);
        }
    }
}


void
ngx_rt_hub_drain(ngx_rt_hub_t *hub)
{
    ngx_queue_t          *q;
    ngx_rt_subscriber_t  *sub;

    hub->draining = 1;
    __atomic_store_n(&hub->slot->quitting, 1, __ATOMIC_RELAXED);

    for (q = ngx_queue_head(&hub->subscribers);
         q != ngx_queue_sentinel(&hub->subscribers);
         q = ngx_queue_next(q))
    {
        sub = ngx_queue_data(q, ngx_rt_subscriber_t, queue);
        sub->ops->drain(sub);
    }
}
