
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Clients of streams against a model: a stream that grows, is trimmed, goes
 * back, a feeder that writes what it reads of it into the zone, a worker
 * with clients that come, are slow, and come again with the cursor they got,
 * and entries that are asked of the stream and come later.  In whatever
 * order: each client gets each entry once and in order, or a gap before what
 * follows, and no gap while the stream has everything.
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
#include "../../ngx_rt_module/ngx_rt_want.c"
#include "../../ngx_rt_module/ngx_rt_lease.c"
#include "../../ngx_rt_module/ngx_rt_viewers.c"
#include "../../ngx_rt_module/ngx_rt_out.c"
#include "../../ngx_rt_module/ngx_rt_hub.c"
#include "../../ngx_rt_module/ngx_rt_channel.c"
#include "../../ngx_rt_module/ngx_rt_replay.c"
#include "../../ngx_rt_module/ngx_rt_place.c"
#include "unit.h"


#define ZONE      (256 * 1024)
#define STREAMS   3
#define CLIENTS   6
#define LIVES     512           /* a stream that went back has another payload */


ngx_rbtree_t  ngx_event_timer_rbtree;
ngx_queue_t   ngx_posted_events, ngx_posted_next_events;


/* entries [first, last]; the value of entry n is life << 20 | n */

typedef struct {
    ngx_str_t         name;
    unsigned          first, last, life;
    unsigned          since[LIVES];     /* the first entry of that life */
    int               known;            /* to the feeder */
    unsigned          place;            /* of the feeder */
    unsigned          place_life;
    ngx_str_node_t   *node;
    int               asked;
    u_char            from[NGX_RT_TAG_LEN];
    unsigned          floor;
} stream_t;


/* what a client knows of one of its streams */

typedef struct {
    stream_t         *stream;
    int               placed;           /* it got something, or a place */
    int               gap;              /* told, nothing got since */
    unsigned          last, life;
} seen_t;


typedef struct {
    ngx_rt_subscriber_t  sub;           /* the first: sub is cast to this */
    ngx_rt_link_t        links[STREAMS];
    seen_t               seen[STREAMS];
    ngx_str_t            names[STREAMS];
    ngx_uint_t           n;
    unsigned             room;          /* until it is full */
    char                 cursor[NGX_RT_PLACES_LEN];
    size_t               cursor_len;
    int                  open;
} client_t;


static stream_t            streams[STREAMS];
static client_t            clients[CLIENTS];
static ngx_rt_store_t     *st;
static ngx_rt_hub_conf_t   conf;
static ngx_rt_hub_t        hub;
static ngx_shmtx_t         mutex;
static ngx_shmtx_sh_t      mutex_sh;
static ngx_rt_channel_t   *map[4096];
static uint64_t            term;
static unsigned            seed;
static unsigned            delivered, gaps, wrong, asked;
static int                 lossy;       /* something was lost to the stream */
static const char         *why;


static unsigned
any(unsigned n)
{
    seed = seed * 1103515245 + 12345;

    return (seed >> 8) % n;
}


static void
fault(const char *text)
{
    if (wrong++ == 0) {
        why = text;
    }
}


ngx_str_node_t *
ngx_str_rbtree_lookup(ngx_rbtree_t *rbtree, ngx_str_t *name, uint32_t hash)
{
    return streams[name->data[0] - 'a'].node;
}


void
ngx_str_rbtree_insert_value(ngx_rbtree_node_t *temp, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *sentinel)
{
}


void
ngx_rbtree_insert(ngx_rbtree_t *rbtree, ngx_rbtree_node_t *node)
{
    ngx_str_node_t  *sn;

    sn = (ngx_str_node_t *) node;
    streams[sn->str.data[0] - 'a'].node = sn;
}


void
ngx_rbtree_delete(ngx_rbtree_t *rbtree, ngx_rbtree_node_t *node)
{
    ngx_str_node_t  *sn;

    sn = (ngx_str_node_t *) node;
    streams[sn->str.data[0] - 'a'].node = NULL;
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
    void  *p;

    if (a->nelts == a->nalloc) {
        p = ngx_palloc(NULL, 2 * a->nalloc * a->size);
        memcpy(p, a->elts, a->nelts * a->size);
        a->elts = p;
        a->nalloc *= 2;
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


/* the life that entry n is of, in what the stream is now */

static unsigned
life_of(stream_t *s, unsigned n)
{
    unsigned  life;

    for (life = s->life; life && s->since[life] > n; life--) { /* void */ }

    return life;
}


static void
id_of(stream_t *s, unsigned n, u_char *tag)
{
    memset(tag, 0, NGX_RT_TAG_LEN);

    if (n) {
        tag[6] = (u_char) (n >> 8);
        tag[7] = (u_char) n;

        /* no two lives have ids that are next to each other */
        tag[14] = (u_char) (2 * life_of(s, n) >> 8);
        tag[15] = (u_char) (2 * life_of(s, n));
    }
}


static seen_t *
seen_of(client_t *c, const ngx_str_t *channel)
{
    ngx_uint_t  i;

    for (i = 0; i < c->n; i++) {
        if (c->names[i].data[0] == channel->data[0]) {
            return &c->seen[i];
        }
    }

    fault("a channel that nobody asked for");

    return &c->seen[0];
}


static void
take_cursor(client_t *c, const ngx_str_t *id)
{
    if (id->len == 0 || id->len > sizeof(c->cursor)) {
        fault("no cursor");
        return;
    }

    memcpy(c->cursor, id->data, id->len);
    c->cursor_len = id->len;
}


static void
on_deliver(ngx_rt_subscriber_t *sub, ngx_rt_delivery_t *msg)
{
    unsigned   value, n, life;
    seen_t    *seen;
    client_t  *c;

    c = (client_t *) sub;
    seen = seen_of(c, &msg->channel);

    memcpy(&value, msg->data.data, sizeof(value));
    n = value & 0xfffff;
    life = value >> 20;

    if (seen->placed && !seen->gap) {

        if (life < seen->life) {
            fault("of an older life");

        } else if (n <= seen->last) {
            fault("repeated, or out of order");

        } else if (n != seen->last + 1) {
            fault("missed");

        } else if (life != seen->life
                   && seen->stream->since[life] != n)
        {
            fault("of another life without a gap");
        }
    }

    seen->placed = 1;
    seen->gap = 0;
    seen->last = n;
    seen->life = life;

    take_cursor(c, &msg->id);
    delivered++;

    if (c->room) {
        c->room--;
    }

    sub->full = (c->room == 0);
}


static void
on_gap(ngx_rt_subscriber_t *sub, const ngx_str_t *channel, const char *reason,
    const ngx_str_t *id)
{
    client_t  *c;

    c = (client_t *) sub;

    seen_of(c, channel)->gap = 1;
    take_cursor(c, id);
    gaps++;

    if (!lossy) {
        fault("a gap for nothing");
    }
}


static void
on_place(ngx_rt_subscriber_t *sub, const ngx_str_t *id)
{
    take_cursor((client_t *) sub, id);
}


static void
on_flush(ngx_rt_subscriber_t *s)
{
}


static const ngx_rt_subscriber_ops_t  ops = {
    on_deliver, on_gap, on_place, on_flush, on_flush, NULL
};


static void
on_fill(ngx_rt_hub_t *h, ngx_rt_channel_t *channel)
{
    stream_t  *s;

    s = &streams[channel->node.str.data[0] - 'a'];

    if (!s->asked) {
        s->asked = 1;       /* to be sent */
    }
}


/* what the filler does: asks, or has an answer */

static void
fill(stream_t *s)
{
    u_char              tag[NGX_RT_TAG_LEN];
    unsigned            n, count, value;
    ngx_rt_channel_t   *channel;
    ngx_rt_delivery_t   msg;

    channel = ngx_rt_hub_channel(&hub, &s->name);

    if (channel == NULL) {
        s->asked = 0;
        return;
    }

    if (s->asked == 1) {
        id_of(s, s->floor, tag);

        s->asked = ngx_rt_fill_from(channel, tag, s->from) ? 2 : 0;
        asked += (s->asked == 2);
        return;
    }

    if (any(16) == 0 && lossy) {
        ngx_rt_fill_done(channel, NGX_ERROR);
        s->asked = 1;
        return;
    }

    id_of(s, s->last, tag);
    ngx_rt_fill_begin(channel, tag, s->first == 1 && s->life == 0);

    count = 0;

    for (n = s->first; n <= s->last && count < 4; n++) {
        id_of(s, n, tag);

        if (ngx_rt_sid_cmp(tag, s->from) < 0) {
            continue;
        }

        value = life_of(s, n) << 20 | n;

        memset(&msg, 0, sizeof(msg));
        msg.data.data = (u_char *) &value;
        msg.data.len = sizeof(value);

        ngx_rt_fill_entry(channel, tag, &msg);
        count++;

        s->floor = (count < 4 || any(4)) ? n : 0;
    }

    ngx_rt_fill_done(channel, count == 4 ? NGX_OK : NGX_DONE);
    s->asked = 1;
}


/* the feeder reads some entries */

static void
feed(stream_t *s, unsigned max)
{
    u_char            tag[NGX_RT_TAG_LEN];
    uint64_t          seq;
    unsigned          value;
    int               broken;
    ngx_uint_t        queued;
    ngx_rt_view_t     view;
    ngx_rt_message_t  msg;

    if (ngx_rt_store_touch(st, &s->name, 1, &view, &queued) != NGX_OK) {
        fault("touch");
        return;
    }

    if (!view.known) {
        /* cold: what is kept, then where it stands */
        s->known = 0;
        s->place = s->last > 4 ? s->last - 4 : 0;

        if (s->place + 1 < s->first) {
            s->place = s->first - 1;
        }

        max = 5;
    }

    broken = 0;

    if (s->known && (s->place_life != life_of(s, s->place)
                     || s->place > s->last))
    {
        s->place = s->last - (s->last ? 1 : 0);
        broken = 1;
    }

    if (s->place + 1 < s->first) {
        s->place = s->first - 1;
        broken = 1;
    }

    if (broken) {
        id_of(s, s->place, tag);
        (void) ngx_rt_store_follow(st, term, &s->name, tag, 1);
    }

    memset(&msg, 0, sizeof(msg));
    msg.data.data = (u_char *) &value;
    msg.data.len = sizeof(value);

    for ( /* void */ ; s->place < s->last && max; max--) {
        s->place++;
        id_of(s, s->place, tag);
        value = life_of(s, s->place) << 20 | s->place;

        if (ngx_rt_store_publish(st, term, &s->name, &msg, tag, 1, 0, &seq)
            != NGX_OK)
        {
            fault("publish");
        }
    }

    s->place_life = life_of(s, s->place);

    id_of(s, s->place, tag);
    (void) ngx_rt_store_follow(st, term, &s->name, tag, 0);
    s->known = 1;
}


static void
leave(client_t *c)
{
    if (c->open) {
        ngx_rt_hub_unsubscribe(&c->sub);
        c->open = 0;
    }
}


static void
come(client_t *c, int anew)
{
    unsigned    i, start;
    ngx_str_t   cursor;

    leave(c);

    if (anew || c->cursor_len == 0) {
        memset(c, 0, sizeof(client_t));
        c->n = 1 + any(STREAMS);
        start = any(STREAMS);

        for (i = 0; i < c->n; i++) {
            c->seen[i].stream = &streams[(start + i) % STREAMS];
            c->names[i] = c->seen[i].stream->name;
        }
    }

    memset(&c->sub, 0, sizeof(c->sub));

    c->sub.ops = &ops;
    c->sub.links = c->links;
    c->sub.nlinks = c->n;
    c->room = 1 + any(6);
    c->open = 1;

    cursor.data = (u_char *) c->cursor;
    cursor.len = c->cursor_len;

    if (ngx_rt_hub_subscribe(&hub, &c->sub, c->names,
                             c->cursor_len ? &cursor : NULL, any(3))
        != NGX_OK)
    {
        fault("subscribe");
    }
}


static void
resume(client_t *c)
{
    if (c->open && c->sub.full) {
        c->room = 1 + any(8);
        ngx_rt_hub_resume(&c->sub);
    }
}


static void
step(int faults)
{
    u_char     buf[NGX_RT_CHANNEL_MAX];
    size_t     len;
    uint32_t   iter;
    ngx_uint_t steps;
    stream_t  *s;
    client_t  *c;

    s = &streams[any(STREAMS)];
    c = &clients[any(CLIENTS)];

    switch (any(faults ? 14 : 10)) {

    case 0:
    case 1:
        s->last += 1 + any(4);
        break;

    case 2:
    case 3:
        feed(s, 1 + any(5));
        break;

    case 4:
        ngx_rt_hub_run(&hub);
        break;

    case 5:
        come(c, any(4) == 0);
        break;

    case 6:
        leave(c);
        break;

    case 7:
        resume(c);
        break;

    case 8:
        if (s->asked) {
            fill(s);
        }
        break;

    case 9:
        ngx_rt_hub_retry(&hub);
        break;

    case 10:
        /* trimmed */
        lossy = 1;
        s->first += any(3);
        if (s->first > s->last + 1) {
            s->first = s->last + 1;
        }
        break;

    case 11:
        /* the stream goes back, and on in another life */
        if (any(8) == 0 && s->life < LIVES - 1) {
            lossy = 1;
            s->last -= any(4) % (s->last + 1);
            s->life++;
            s->since[s->life] = s->last + 1;
            if (s->first > s->last + 1) {
                s->first = s->last + 1;
            }
        }
        break;

    case 12:
        /* the channel leaves the table, and is made anew */
        if (any(6) == 0) {
            iter = any(STREAMS);
            steps = STREAMS + 1;
            (void) ngx_rt_store_expire(st, term, &iter, &steps, 1000, 1, buf,
                                       &len);
        }
        break;

    case 13:
        ngx_rt_hub_find_lost(&hub);
        break;
    }
}


/* everything comes to rest: who is there has all of it */

static void
settle(void)
{
    unsigned  i, n, turn;

    for (turn = 0; turn < 400; turn++) {

        for (i = 0; i < STREAMS; i++) {
            feed(&streams[i], 1000);

            for (n = 0; n < 4 && streams[i].asked; n++) {
                fill(&streams[i]);
            }
        }

        ngx_rt_hub_find_lost(&hub);
        ngx_rt_hub_run(&hub);

        for (i = 0; i < CLIENTS; i++) {
            resume(&clients[i]);
        }

        ngx_rt_hub_retry(&hub);
        ngx_rt_hub_flush(&hub);
    }
}


static void
check(void)
{
    unsigned   i, j;
    seen_t    *seen;
    client_t  *c;

    for (i = 0; i < CLIENTS; i++) {
        c = &clients[i];

        if (!c->open) {
            continue;
        }

        for (j = 0; j < c->n; j++) {
            seen = &c->seen[j];

            if (c->links[j].state != NGX_RT_LINK_READY) {
                fault("a link is not ready in the end");
            }

            if (seen->placed && !seen->gap
                && seen->last != seen->stream->last)
            {
                fault("what came last is missing");
            }
        }
    }
}


static void
begin(void *mem)
{
    u_char    random[32];
    unsigned  i;

    memset(random, 7, sizeof(random));
    memset(&conf, 0, sizeof(conf));
    memset(&hub, 0, sizeof(hub));
    memset(map, 0, sizeof(map));
    memset(clients, 0, sizeof(clients));
    memset(streams, 0, sizeof(streams));

    for (i = 0; i < STREAMS; i++) {
        streams[i].name.data = (u_char *) &"a\0b\0c"[2 * i];
        streams[i].name.len = 1;
        streams[i].first = 1;
    }

    st = &conf.store;
    st->stream = 1;

    if (ngx_rt_store_create(st, mem, ZONE, 4, random) != NGX_OK) {
        ok(0, "created");
        exit(1);
    }

    memset(&mutex_sh, 0, sizeof(mutex_sh));
    (void) ngx_shmtx_create(&mutex, &mutex_sh, NULL);
    st->mutex = &mutex;
    st->history = 5;
    st->message_max = 1024;

    hub.conf = &conf;
    hub.store = st;
    hub.slot = &st->slots[0];
    hub.map = map;
    hub.pos = st->sh->head;
    hub.seq = st->sh->seq;
    hub.log = ngx_palloc(NULL, sizeof(ngx_log_t));
    hub.fill = on_fill;
    memset(hub.log, 0, sizeof(ngx_log_t));

    ngx_rbtree_init(&hub.channels, &hub.sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_queue_init(&hub.used);
    ngx_queue_init(&hub.lost);
    ngx_queue_init(&hub.subscribers);
    ngx_queue_init(&hub.dirty);
    ngx_queue_init(&ngx_posted_events);
    ngx_queue_init(&ngx_posted_next_events);

    (void) ngx_rt_lease_take(st, 0, getpid(), 1, &term);
    (void) ngx_rt_feed_set(st, term, NGX_RT_FEED_LIVE, NULL, 1);

    lossy = 0;
}


static void
runs(void *mem, unsigned first, unsigned n, int faults)
{
    unsigned  i, run, before, failed;

    failed = 0;
    delivered = gaps = asked = 0;

    for (run = first; run < first + n; run++) {
        seed = run;
        before = wrong;
        begin(mem);

        for (i = 0; i < 1500 && wrong == before; i++) {
            step(faults);
        }

        if (wrong == before) {
            settle();
            check();
        }

        if (wrong != before) {
            if (failed++ == 0) {
                diag("run %u, step %u: %s", run, i, why);
            }
            wrong = 0;
            why = NULL;
        }

        for (i = 0; i < CLIENTS; i++) {
            leave(&clients[i]);
        }

        if (hub.buffer) {
            ngx_free(hub.buffer);
        }

        unit_free();
    }

    is_int(failed, 0, "%u runs %s", n, faults ? "with a stream that loses"
                                              : "with a stream that keeps");
    ok(delivered > 20 * n, "%u delivered", delivered);
    ok(asked > n / 4, "%u portions asked of the stream", asked);
    ok(faults ? gaps > n : gaps == 0, "%u gaps told", gaps);
}


/* who stands below the floor waits until all others are done */

static void
test_floor(void)
{
    u_char               floor[NGX_RT_TAG_LEN], tag[NGX_RT_TAG_LEN];
    ngx_uint_t           i;
    ngx_rt_link_t        link[4];
    ngx_rt_channel_t     channel;
    ngx_rt_subscriber_t  sub[4];

    memset(floor, 0, sizeof(floor));
    memset(&channel, 0, sizeof(channel));
    memset(link, 0, sizeof(link));
    memset(sub, 0, sizeof(sub));

    ngx_queue_init(&channel.links);

    is_int(ngx_rt_fill_from(&channel, floor, tag), 0, "no link");

    /* 20, 10, 30, and one that needs nothing */

    for (i = 0; i < 4; i++) {
        link[i].sub = &sub[i];
        link[i].state = NGX_RT_LINK_FILL;
        link[i].proven = 1;
        ngx_queue_insert_tail(&channel.links, &link[i].queue);
    }

    link[0].tag[15] = 20;
    link[1].tag[15] = 10;
    link[2].tag[15] = 30;
    link[3].tag[15] = 5;
    link[3].state = NGX_RT_LINK_READY;

    is_int(ngx_rt_fill_from(&channel, floor, tag), 1, "no floor: all");
    is_int(tag[15], 10, "from the lowest on");
    ok(link[0].asked && link[1].asked && link[2].asked && !link[3].asked,
       "of those that are filled");
    ok(!link[0].proven, "and have to see their place");

    link[0].asked = link[1].asked = link[2].asked = 0;
    floor[15] = 20;

    is_int(ngx_rt_fill_from(&channel, floor, tag), 2, "one is below");
    is_int(tag[15], 20, "the floor itself is not");
    ok(link[0].asked && !link[1].asked && link[2].asked, "it is not asked");

    link[0].asked = link[2].asked = 0;
    floor[15] = 31;

    is_int(ngx_rt_fill_from(&channel, floor, tag), 1, "all are below");
    is_int(tag[15], 10, "anew from the lowest on");
    ok(link[0].asked && link[1].asked && link[2].asked, "for all");

    link[0].asked = link[1].asked = link[2].asked = 0;
    sub[0].full = 1;
    sub[2].full = 1;
    floor[15] = 20;

    is_int(ngx_rt_fill_from(&channel, floor, tag), 1, "those above are full");
    is_int(tag[15], 10, "so it is the turn of those below");
    ok(!link[0].asked && link[1].asked && !link[2].asked, "alone");
    ok(sub[0].behind && sub[2].behind, "the full ones ask again");
}


int
main(int argc, char **argv)
{
    void      *mem;
    unsigned   n;

    if (posix_memalign(&mem, 128, ZONE) != 0) {
        return 1;
    }

    test_floor();

    n = (argc > 1) ? atoi(argv[1]) : 300;

    runs(mem, 1, n, 0);
    runs(mem, 1, n, 1);

    free(mem);

    done_testing();
}
