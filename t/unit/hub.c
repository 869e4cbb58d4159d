
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * A worker that follows the log while another one writes: between any two
 * looks of the first at the zone the second may publish, or be stopped in the
 * middle of a change.  What a stream is not given it is told of.
 */


#include <ngx_rt_worker.h>

#include "../../ngx_rt_module/ngx_rt_hash.c"
#include "../../ngx_rt_module/ngx_rt_sid.c"
#include "../../ngx_rt_module/ngx_rt_cursor.c"
#include "../../ngx_rt_module/ngx_rt_message.c"
#include "../../ngx_rt_module/ngx_rt_log.c"
#include "../../ngx_rt_module/ngx_rt_retain.c"
#include "../../ngx_rt_module/ngx_rt_table.c"
#include "../../ngx_rt_module/ngx_rt_recover.c"
#include "../../ngx_rt_module/ngx_rt_store.c"
#include "../../ngx_rt_module/ngx_rt_post.c"
#include "../../ngx_rt_module/ngx_rt_rate.c"
#include "../../ngx_rt_module/ngx_rt_query.c"
#include "../../ngx_rt_module/ngx_rt_viewers.c"

static void between(const char *what);

/* places where the other worker comes in */

#define ngx_rt_log_body(st, off, rec, dst)                                    \
    (between("body"), ngx_rt_log_body(st, off, rec, dst))

#define ngx_rt_store_history(...)                                             \
    (between("history"), ngx_rt_store_history(__VA_ARGS__))

#include "../../ngx_rt_module/ngx_rt_out.c"
#include "../../ngx_rt_module/ngx_rt_hub.c"
#include "../../ngx_rt_module/ngx_rt_channel.c"
#include "../../ngx_rt_module/ngx_rt_replay.c"
#include "../../ngx_rt_module/ngx_rt_place.c"
#include "unit.h"


#define ZONE  (192 * 1024)


/* of nginx and of the worker: no events here, and one channel in the tree */

ngx_rbtree_t            ngx_event_timer_rbtree;
ngx_queue_t             ngx_posted_events, ngx_posted_next_events;

static ngx_str_node_t  *tree;


void
ngx_str_rbtree_insert_value(ngx_rbtree_node_t *temp, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *sentinel)
{
}


ngx_str_node_t *
ngx_str_rbtree_lookup(ngx_rbtree_t *rbtree, ngx_str_t *name, uint32_t hash)
{
    return tree;
}


void
ngx_rbtree_insert(ngx_rbtree_t *rbtree, ngx_rbtree_node_t *node)
{
    tree = (ngx_str_node_t *) node;
}


void
ngx_rbtree_delete(ngx_rbtree_t *rbtree, ngx_rbtree_node_t *node)
{
    tree = NULL;
}


uint32_t
ngx_murmur_hash2(u_char *data, size_t len)
{
    return 1;
}


ngx_pool_t *
ngx_create_pool(size_t size, ngx_log_t *log)
{
    return ngx_palloc(NULL, 1);
}


void
ngx_destroy_pool(ngx_pool_t *pool)
{
}


void *
ngx_array_push(ngx_array_t *a)
{
    if (a->nelts == a->nalloc) {
        ok(0, "room in the array");
        exit(1);
    }

    return (u_char *) a->elts + a->size * a->nelts++;
}


ngx_uint_t
ngx_rt_wakeup_slot(void)
{
    return 0;
}


void
ngx_rt_wakeup_send(ngx_uint_t slot)
{
}


static ngx_rt_store_t      *st;
static ngx_rt_hub_conf_t    conf;
static ngx_rt_hub_t         hub;
static ngx_shmtx_t          mutex;
static ngx_shmtx_sh_t       mutex_sh;
static ngx_rt_channel_t    *map[4096];

static ngx_rt_subscriber_t  sub;
static ngx_rt_link_t        sub_link;
static char                 told[2048];

/* what the other worker sends, once, and before what */
static const char          *in_at;
static unsigned             in_from, in_to, in_size;
static uint32_t             stopped;


static uint64_t
publish(const char *channel, unsigned n, size_t size)
{
    u_char            digest[NGX_RT_TAG_LEN];
    uint64_t          seq;
    ngx_str_t         name;
    ngx_rt_message_t  msg;
    static u_char     data[32 * 1024];

    memset(data, '.', sizeof(data));
    sprintf((char *) data, "%u ", n);

    name.data = (u_char *) channel;
    name.len = strlen(channel);

    memset(&msg, 0, sizeof(msg));
    msg.data.data = data;
    msg.data.len = size;

    memset(digest, 0, sizeof(digest));
    ngx_rt_message_digest(&name, &msg, digest);

    if (ngx_rt_store_publish(st, 0, &name, &msg, digest, 1000, 1, &seq)
        != NGX_OK)
    {
        ok(0, "published");
    }

    return seq;
}


static void
between(const char *what)
{
    unsigned  n;

    if (in_at == NULL || strcmp(what, in_at) != 0) {
        return;
    }

    in_at = NULL;

    for (n = in_from; n <= in_to; n++) {
        publish("a", n, in_size);
    }
}


/* a writer that is stopped in an entry goes on while somebody waits for the
 * lock */

void
ngx_shmtx_lock(ngx_shmtx_t *mtx)
{
    if (stopped) {
        st->entries[stopped].lock++;
        stopped = 0;
    }

    *mtx->lock = 1;
}


static void
on_deliver(ngx_rt_subscriber_t *s, ngx_rt_delivery_t *msg)
{
    sprintf(told + strlen(told), " %u", atoi((char *) msg->data.data));
}


static void
on_gap(ngx_rt_subscriber_t *s, const ngx_str_t *channel, const char *reason,
    const ngx_str_t *id)
{
    strcat(told, " gap");
}


static void
on_place(ngx_rt_subscriber_t *s, const ngx_str_t *id)
{
}


static void
on_flush(ngx_rt_subscriber_t *s)
{
}


static const ngx_rt_subscriber_ops_t  ops = {
    on_deliver, on_gap, on_place, on_flush, on_flush, NULL
};


/* a worker and a stream of it on channel a, which has got the message 1 */

static void
begin(void *mem, ngx_uint_t history)
{
    u_char           random[32];
    ngx_str_t        name = ngx_string("a");
    u_char           buf[NGX_RT_CURSOR_LEN];
    ngx_str_t        text;
    ngx_rt_cursor_t  cursor;

    memset(random, 7, sizeof(random));
    memset(&conf, 0, sizeof(conf));
    memset(&hub, 0, sizeof(hub));
    memset(&sub, 0, sizeof(sub));
    memset(map, 0, sizeof(map));

    st = &conf.store;
    st->embedded = 1;

    if (ngx_rt_store_create(st, mem, ZONE, 4, random) != NGX_OK) {
        ok(0, "created");
        exit(1);
    }

    (void) ngx_shmtx_create(&mutex, &mutex_sh, NULL);
    st->mutex = &mutex;
    st->history = history;
    st->message_max = 32 * 1024;

    hub.conf = &conf;
    hub.store = st;
    hub.slot = &st->slots[0];
    hub.map = map;
    hub.pos = st->sh->head;
    hub.seq = st->sh->seq;
    hub.log = ngx_palloc(NULL, sizeof(ngx_log_t));
    memset(hub.log, 0, sizeof(ngx_log_t));

    ngx_rbtree_init(&hub.channels, &hub.sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_queue_init(&hub.used);
    ngx_queue_init(&hub.lost);
    ngx_queue_init(&hub.subscribers);
    ngx_queue_init(&hub.dirty);

    sub.ops = &ops;
    sub.links = &sub_link;
    sub.nlinks = 1;

    memset(&cursor, 0, sizeof(cursor));
    cursor.epoch = st->sh->epoch;
    cursor.seq = publish("a", 1, 20);

    told[0] = '\0';
    in_at = NULL;
    stopped = 0;

    text.data = buf;
    text.len = ngx_rt_cursor_format(buf, &cursor) - buf;

    (void) ngx_rt_hub_subscribe(&hub, &sub, &name, &text,
                                NGX_RT_START_LATEST);
}


static void
end(const char *expected, const char *what)
{
    ngx_str_t  got;

    ngx_rt_hub_run(&hub);

    got.data = (u_char *) told;
    got.len = strlen(told);

    is_str(&got, expected, "%s", what);

    ngx_rt_hub_unsubscribe(&sub);
    ngx_free(hub.buffer);
}


int
main(void)
{
    void      *mem;
    uint64_t   room;

    if (posix_memalign(&mem, 128, ZONE) != 0) {
        return 1;
    }

    begin(mem, 4);
    publish("a", 2, 20);
    ngx_rt_hub_run(&hub);
    publish("a", 3, 20);
    end(" 2 3", "each as it comes");

    /* what is read from the log is overwritten by a part of what comes, and
     * the record behind it is not; b has taken the room for the history */

    begin(mem, 64);
    publish("a", 2, 10000);
    publish("a", 3, 20);

    for ( ;; ) {
        room = hub.pos + st->sh->log_size - st->sh->limit;

        if (room < 6000) {
            break;
        }

        publish("b", 1, ngx_min(room - 3000, 5000));
    }

    in_at = "body";
    in_from = 4;
    in_to = 4;
    in_size = 6000;
    end(" gap 3 4", "overwritten in part while it is read");

    /* a stream is behind, and the hub behind the log */

    begin(mem, 2);
    publish("a", 2, 20);
    publish("a", 3, 20);
    sub.full = 1;
    ngx_rt_hub_behind(&sub, hub.seq, 0);
    ngx_rt_hub_run(&hub);
    publish("a", 4, 20);
    publish("a", 5, 20);
    publish("a", 6, 20);
    ngx_rt_hub_resume(&sub);
    end(" gap 4 5 6", "the history has gone on beyond where the hub is");

    /* the same between two looks at the channel */

    begin(mem, 3);
    publish("a", 2, 20);
    publish("a", 3, 20);
    sub.full = 1;
    ngx_rt_hub_behind(&sub, hub.seq, 0);
    ngx_rt_hub_run(&hub);
    in_at = "history";
    in_from = 4;
    in_to = 5;
    in_size = 20;
    ngx_rt_hub_resume(&sub);
    end(" gap 3 4 5", "the history goes on while it is read");

    /* a writer is stopped in the middle of a change of the channel */

    begin(mem, 4);
    publish("a", 2, 20);
    sub.full = 1;
    ngx_rt_hub_behind(&sub, hub.seq, 0);
    ngx_rt_hub_run(&hub);
    stopped = sub_link.channel->entry;
    st->entries[stopped].lock++;
    ngx_rt_hub_resume(&sub);
    end(" 2", "a channel that is being changed is not taken for gone");

    free(mem);
    done_testing();
}
