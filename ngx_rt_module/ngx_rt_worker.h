
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layer 2, one worker's side of a hub: its place in the log, the channels
 * that its own clients follow, their subscribers, and the wake-up between
 * workers.  Knows neither Redis nor HTTP.
 */


#ifndef _NGX_RT_WORKER_H_INCLUDED_
#define _NGX_RT_WORKER_H_INCLUDED_


#include <ngx_event.h>
#include <ngx_rt_shared.h>


typedef struct ngx_rt_hub_s         ngx_rt_hub_t;
typedef struct ngx_rt_channel_s     ngx_rt_channel_t;
typedef struct ngx_rt_subscriber_s  ngx_rt_subscriber_t;


#define NGX_RT_SOURCE_EMBEDDED    0
#define NGX_RT_SOURCE_PUBSUB      1

#define NGX_RT_PAYLOAD_RAW        0
#define NGX_RT_PAYLOAD_JSON       1

/* indices of transports in the counters */
#define NGX_RT_SSE                0
#define NGX_RT_WEBSOCKET          1


/* one `redis` url */

typedef struct {
    ngx_str_t                     text;     /* for logs: no password in it */
    ngx_str_t                     host;     /* empty for a Unix socket */
    in_port_t                     port;
    ngx_addr_t                   *addrs;    /* looked up at start; may be
                                               none where a resolver is set */
    ngx_uint_t                    naddrs;
    ngx_str_t                     user;
    ngx_str_t                     password;
    ngx_uint_t                    db;
} ngx_rt_redis_url_t;


/* an rt_hub block; read-only once the configuration is read */

typedef struct {
    ngx_str_t                     name;
    ngx_shm_zone_t               *shm_zone; /* data: this conf */
    size_t                        size;
    ngx_uint_t                    source;   /* NGX_RT_SOURCE_* */
    ngx_uint_t                    payload;  /* NGX_RT_PAYLOAD_* */
    ngx_array_t                   urls;     /* ngx_rt_redis_url_t */
    ngx_array_t                   patterns; /* ngx_str_t */
    ngx_str_t                     user;     /* redis_user */
    ngx_str_t                     password; /* from redis_password_file */
    ngx_str_t                     prefix;
    ngx_str_t                     snapshot; /* prefix of keys */
    ngx_uint_t                    snapshots;    /* 1: there are some */
    ngx_msec_t                    connect_timeout;
    ngx_msec_t                    reply_timeout;
    ngx_msec_t                    reconnect_min;
    ngx_msec_t                    reconnect_max;
    ngx_uint_t                    history;
    ngx_msec_t                    history_time;
    time_t                        inactive;
    size_t                        message_max;
    ngx_msec_t                    stale;
    ngx_uint_t                    index;    /* among the hubs of this cycle */
    ngx_resolver_t               *resolver; /* http's, NULL: none set */
    ngx_msec_t                    resolver_timeout;

    ngx_rt_store_t                store;    /* pointers set by the zone's
                                               init in the master */
    ngx_rt_hub_t                 *hub;      /* of this worker; the one field
                                               written at run time, once, by
                                               the worker's init */
    uint32_t                      generation;   /* of the zone */
} ngx_rt_hub_conf_t;


/* bytes ready for sockets, shared by the subscribers of one worker */

typedef struct {
    ngx_uint_t                    refs;
    size_t                        len;
    u_char                        data[1];
} ngx_rt_frame_t;

/* a new frame with room for size bytes, len 0 and one reference, or NULL */
ngx_rt_frame_t *ngx_rt_frame_alloc(ngx_rt_hub_t *hub, size_t size);
void ngx_rt_frame_free(ngx_rt_frame_t *frame);      /* drops a reference */


#define NGX_RT_FRAMES             4     /* framings of one message cached */

/*
 * A message on its way to this worker's subscribers: valid during deliver()
 * only.  A transport caches its bytes in frames[variant]; the hub drops that
 * reference when the message has been delivered to all.
 */

typedef struct {
    ngx_str_t                     channel;  /* without the hub's prefix */
    ngx_str_t                     event;
    ngx_str_t                     data;
    ngx_str_t                     id;       /* cursor text */
    uint64_t                      seq;
    ngx_rt_frame_t               *frames[NGX_RT_FRAMES];
} ngx_rt_delivery_t;


/*
 * What a transport does.  None of these may free the subscriber or another
 * one: what must end is marked and ended from an event of its own.
 *
 * deliver  queue the message (no system call)
 * gap      messages may be missing in channel up to id, reason is constant
 * place    the client now stands at id, without a message of its own: the
 *          subscription was confirmed, or the stream begins with nothing
 * flush    called once per turn after the last of the above: write
 * drain    the worker quits: end within conf's window
 * settled  no snapshot is owed any more, and there is nothing new; may be NULL
 */

typedef struct {
    void                        (*deliver)(ngx_rt_subscriber_t *sub,
                                      ngx_rt_delivery_t *msg);
    void                        (*gap)(ngx_rt_subscriber_t *sub,
                                      const ngx_str_t *channel,
                                      const char *reason,
                                      const ngx_str_t *id);
    void                        (*place)(ngx_rt_subscriber_t *sub,
                                      const ngx_str_t *id);
    void                        (*flush)(ngx_rt_subscriber_t *sub);
    void                        (*drain)(ngx_rt_subscriber_t *sub);
    void                        (*settled)(ngx_rt_subscriber_t *sub);
} ngx_rt_subscriber_ops_t;


/* a subscriber's membership in one channel of its worker */

typedef struct {
    ngx_queue_t                   queue;    /* in channel->links */
    ngx_rt_channel_t             *channel;
    ngx_rt_subscriber_t          *sub;
    unsigned                      resumed:1;    /* the client has a cursor: the
                                                   next CONFIRM is a gap */
    unsigned                      begun:1;      /* has been given a message:
                                                   nothing may be missing */
} ngx_rt_link_t;


/*
 * A client's stream as the hub sees it, embedded in the transport's own
 * struct.  The transport sets ops, links (with room for nlinks), nlinks and
 * full; the rest is the hub's.
 *
 * A subscriber that is behind gets nothing live: what it has yet to get is
 * read from its channels' history, in portions, whenever it is not full.
 */

struct ngx_rt_subscriber_s {
    const ngx_rt_subscriber_ops_t  *ops;
    ngx_rt_hub_t                 *hub;
    ngx_rt_link_t                *links;
    ngx_uint_t                    nlinks;
    uint64_t                      seq;      /* where it stands, if behind */
    ngx_queue_t                   queue;    /* all of the hub */
    ngx_queue_t                   dirty;    /* to be flushed this turn */
    unsigned                      attached:1;
    unsigned                      dirtied:1;
    unsigned                      behind:1;
    unsigned                      fresh:1;  /* began without a cursor: what
                                               is older than that is no gap */
    unsigned                      skip:1;   /* to the newest, rt_slow latest */
    unsigned                      full:1;   /* no more for now */
    unsigned                      poll:1;   /* the transport's: no stream, is
                                               not counted as a viewer */
};


/* a channel that clients of this worker follow */

struct ngx_rt_channel_s {
    ngx_rt_hub_t                 *hub;
    ngx_queue_t                   links;    /* ngx_rt_link_t */
    ngx_uint_t                    nlinks;
    ngx_uint_t                    npolls;   /* of them */
    uint32_t                      entry;    /* NGX_RT_NONE: evicted, or no
                                               room yet: asked for anew */
    uint32_t                      gen;
    ngx_rt_viewers_t              viewers;  /* what of nlinks is counted */
    ngx_rt_key_t                  key;
    ngx_str_node_t                node;     /* in hub->channels */
    ngx_queue_t                   queue;    /* in hub->used or hub->lost */
};


struct ngx_rt_hub_s {
    ngx_rt_hub_conf_t            *conf;
    ngx_rt_store_t               *store;
    ngx_rt_slot_sh_t             *slot;
    ngx_uint_t                    nslot;
    ngx_log_t                    *log;

    uint64_t                      pos;      /* next record to read */
    uint64_t                      seq;      /* all up to it is delivered */

    ngx_rt_channel_t            **map;      /* by entry index */
    ngx_rbtree_t                  channels; /* by name */
    ngx_rbtree_node_t             sentinel;
    ngx_queue_t                   used;     /* channels with an entry */
    ngx_queue_t                   lost;     /* channels without one */
    ngx_queue_t                   subscribers;
    ngx_queue_t                   dirty;
    u_char                       *buffer;   /* for one record's body */
    size_t                        buffer_size;

    ngx_event_t                   timer;    /* cancelable, what was missed */
    ngx_event_t                   posted;   /* own publishes, a long log */
    ngx_uint_t                    ticks;
    void                         *feeder;   /* ngx_rt_feeder.c's */
    void                        (*wake)(ngx_rt_hub_t *hub);  /* the feeder of
                                               this worker has work queued */
    unsigned                      draining:1;
    unsigned                      running:1;
};


/* ngx_rt_hub.c */

/*
 * In a worker's init: NGX_OK, NGX_ERROR for lack of memory.  conf->hub is
 * the result.  exit ends what the hub owns.
 */
ngx_int_t ngx_rt_hub_init(ngx_cycle_t *cycle, ngx_rt_hub_conf_t *conf);
void ngx_rt_hub_exit(ngx_rt_hub_conf_t *conf);

/* something was written to the store by this worker: wakes the others and
 * delivers at home in this turn of the event loop */
void ngx_rt_hub_notify(ngx_rt_hub_t *hub);

/* reads the log up to its head, delivers, flushes */
void ngx_rt_hub_run(ngx_rt_hub_t *hub);

/*
 * Looks a channel up; one that is not in the table or not wanted is asked
 * for, and the feeder woken.  NGX_OK, NGX_DECLINED: no room in the table.
 */
ngx_int_t ngx_rt_hub_look(ngx_rt_hub_t *hub, const ngx_str_t *name,
    ngx_rt_view_t *view);


#define NGX_RT_START_LATEST       0
#define NGX_RT_START_HISTORY      1
#define NGX_RT_START_NEW          2

/*
 * Attaches a subscriber to its channels.  after: the client's cursor, NULL:
 * it has none (start counts); invalid is 1 when it sent one that is not ours
 * (a gap is told, then start counts).  What the client has missed is
 * delivered before the call returns, as much as fits; flush is the caller's.
 * NGX_OK, or NGX_ERROR: no memory, nothing is attached.
 */
ngx_int_t ngx_rt_hub_subscribe(ngx_rt_hub_t *hub, ngx_rt_subscriber_t *sub,
    const ngx_str_t *channels, const ngx_rt_cursor_t *after,
    ngx_uint_t invalid, ngx_uint_t start);

/* a subscriber that was full is not any more: delivers what it has yet to
 * get, as much as fits; flush is the caller's.  Not from within an op. */
void ngx_rt_hub_resume(ngx_rt_subscriber_t *sub);

/* puts a subscriber behind, its client having got nothing after seq; with
 * skip it will get but the newest message of each channel, after a gap */
void ngx_rt_hub_behind(ngx_rt_subscriber_t *sub, uint64_t seq,
    ngx_uint_t skip);

/* the worker quits: every subscriber, also later ones, is told to drain */
void ngx_rt_hub_drain(ngx_rt_hub_t *hub);

/* detaches; harmless when not attached */
void ngx_rt_hub_unsubscribe(ngx_rt_subscriber_t *sub);

/* for this layer alone: the body of a record as a message, its frames given
 * back; a place as text; a channel of this worker by name, and its entry in
 * the table; a subscriber to be flushed; what a subscriber missed */
ngx_int_t ngx_rt_hub_read(ngx_rt_hub_t *hub, uint64_t off,
    ngx_rt_record_sh_t *rec, ngx_rt_delivery_t *msg);
void ngx_rt_hub_done(ngx_rt_delivery_t *msg);
size_t ngx_rt_hub_id(ngx_rt_hub_t *hub, u_char *buf, uint64_t seq,
    const u_char *digest);
ngx_rt_channel_t *ngx_rt_hub_channel(ngx_rt_hub_t *hub, const ngx_str_t *name);
ngx_int_t ngx_rt_hub_enter(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel);
void ngx_rt_hub_dirty(ngx_rt_subscriber_t *sub);
void ngx_rt_hub_replay(ngx_rt_subscriber_t *sub);

/* tells all workers how many streams of this one follow the channel */
#define ngx_rt_hub_count(hub, ch)                                             \
    ngx_rt_viewers_set((hub)->store, (ch)->entry, (ch)->gen, &(ch)->viewers,  \
                       (uint32_t) ((ch)->nlinks - (ch)->npolls))

/* streams of this node that follow the channel */
ngx_uint_t ngx_rt_hub_viewers(ngx_rt_hub_t *hub, const ngx_str_t *name);

/* adds to a counter of this worker's slot */
#define ngx_rt_count(hub, field, n)                                           \
    __atomic_store_n(&(hub)->slot->field, (hub)->slot->field + (n),           \
                     __ATOMIC_RELAXED)


/* ngx_rt_wakeup.c: one eventfd per process slot of the master, made before
 * the workers are forked, so that all generations know each other's */

/* how many slots a zone made now needs; for the configuration's end */
ngx_uint_t ngx_rt_wakeup_slots(ngx_cycle_t *cycle);

/* in the master, before fork.  NGX_OK or NGX_ERROR */
ngx_int_t ngx_rt_wakeup_init(ngx_cycle_t *cycle);

/* in the worker: handler is called when somebody called ngx_rt_wakeup_send
 * with this worker's slot; quit when the worker is asked to quit */
ngx_int_t ngx_rt_wakeup_open(ngx_cycle_t *cycle, void (*handler)(void),
    void (*quit)(void));
void ngx_rt_wakeup_close(void);

/* the slot of this process */
ngx_uint_t ngx_rt_wakeup_slot(void);

/* wakes the worker of a slot; nothing when it can't be reached (its timer
 * will) */
void ngx_rt_wakeup_send(ngx_uint_t slot);


#endif /* _NGX_RT_WORKER_H_INCLUDED_ */
