
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
#include <ngx_rt_rate.h>


typedef struct ngx_rt_hub_s         ngx_rt_hub_t;
typedef struct ngx_rt_channel_s     ngx_rt_channel_t;
typedef struct ngx_rt_subscriber_s  ngx_rt_subscriber_t;


#define NGX_RT_SOURCE_EMBEDDED    0
#define NGX_RT_SOURCE_PUBSUB      1
#define NGX_RT_SOURCE_STREAM      2

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
    uint32_t                      generation;   /* of its workers, set by the
                                               master before they are forked */
    ngx_rt_hub_t                 *hub;      /* of this worker; the one field
                                               written at run time, once, by
                                               the worker's init */
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
    unsigned                      own:1;    /* id is this subscriber's alone:
                                               nothing is cached */
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


/* states of a link to a stream's channel */
#define NGX_RT_LINK_READY         0         /* gets what comes */
#define NGX_RT_LINK_WAIT          1         /* nothing is known of the channel
                                               yet: the next CONFIRM */
#define NGX_RT_LINK_FILL          2         /* what it missed is older than
                                               what is retained: hub->fill */

/*
 * A subscriber's membership in one channel of its worker.  Of a stream, tag is
 * the truth about where the client stands in it: each message is told if it is
 * newer, wherever it comes from.
 */

typedef struct {
    ngx_queue_t                   queue;    /* in channel->links */
    ngx_rt_channel_t             *channel;
    ngx_rt_subscriber_t          *sub;
    uint64_t                      since;    /* the channel's floor when it was
                                               placed: what is older in the log
                                               is over for it */
    u_char                        tag[NGX_RT_TAG_LEN];
    unsigned                      resumed:1;    /* the client has a cursor: the
                                                   next CONFIRM is a gap */
    unsigned                      state:2;  /* NGX_RT_LINK_* */
    unsigned                      placed:1; /* tag is one; else rt_start says */
    unsigned                      lost:1;   /* its cursor was not ours: a gap
                                               when it is placed */
    unsigned                      ahead:1;  /* another node had read further */
    unsigned                      asked:1;  /* entries for it are under way */
    unsigned                      proven:1; /* while filled: tag was seen */
    unsigned                      stalled:1;    /* while filled: was full */
    unsigned                      idle:1;   /* it was filled just now: not at
                                               once again */
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
    uint32_t                      set;      /* of its channels, of streams */
    ngx_queue_t                   queue;    /* all of the hub */
    ngx_queue_t                   dirty;    /* to be flushed this turn */
    unsigned                      attached:1;
    unsigned                      dirtied:1;
    unsigned                      behind:1;
    unsigned                      fresh:1;  /* began without a cursor: what
                                               is older than that is no gap */
    unsigned                      skip:1;   /* to the newest, rt_slow latest */
    unsigned                      full:1;   /* no more for now */
    unsigned                      start:2;  /* NGX_RT_START_*, of streams */
    unsigned                      silent:1; /* nothing told yet, and the client
                                               has no cursor: of streams */
    unsigned                      again:1;  /* the hub's timer is to look at
                                               its links, of streams */
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
    ngx_rt_viewers_t              held;     /* and of npolls */
    ngx_uint_t                    nheld;    /* of the slot's gauge */
    ngx_rt_key_t                  key;
    u_char                        last[NGX_RT_TAG_LEN]; /* while filled */
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
    ngx_rt_frame_t               *body;     /* of the message that polls are
                                               being given, NULL: of none.
                                               The references are theirs */
    uint64_t                      body_seq;

    ngx_event_t                   timer;    /* cancelable, what was missed */
    ngx_event_t                   posted;   /* own publishes, a long log */
    ngx_uint_t                    ticks;
    void                         *feeder;   /* ngx_rt_feeder.c's */
    void                        (*wake)(ngx_rt_hub_t *hub);  /* the feeder of
                                               this worker has work queued */
    void                        (*fill)(ngx_rt_hub_t *hub,
                                    ngx_rt_channel_t *channel);
                                            /* links of a stream's channel are
                                               in the state FILL; not to answer
                                               from within */
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
 * for, and the feeder woken.  key: the name's, by ngx_rt_table_key().
 * NGX_OK, NGX_DECLINED: no room in the table.
 */
ngx_int_t ngx_rt_hub_look(ngx_rt_hub_t *hub, const ngx_str_t *name,
    const ngx_rt_key_t *key, ngx_rt_view_t *view);


#define NGX_RT_START_LATEST       0
#define NGX_RT_START_HISTORY      1
#define NGX_RT_START_NEW          2

/*
 * Attaches a subscriber to its channels.  cursor: what the client sent, NULL:
 * it has none (start counts); one that is not ours is told as a gap, then
 * start counts.  What the client has missed is delivered before the call
 * returns, as much as fits; flush is the caller's.
 * NGX_OK, or NGX_ERROR: no memory, nothing is attached.
 */
ngx_int_t ngx_rt_hub_subscribe(ngx_rt_hub_t *hub, ngx_rt_subscriber_t *sub,
    const ngx_str_t *channels, const ngx_str_t *cursor, ngx_uint_t start);

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

/*
 * ngx_rt_place.c, of streams: links that wait for entries which are not
 * retained any more are filled from Redis, by whoever set hub->fill, all of a
 * channel at once.  The entries of the stream from ngx_rt_fill_from() on,
 * that one included, are given in the order of their ids, in portions:
 *
 *     ngx_rt_fill_from ~ Redis ~> fill_begin -> fill_entry ... -> fill_done
 *
 * one portion at a time.  The three are called within one turn of the event
 * loop, for the channel may go with its last subscriber; to find it when the
 * answer comes: ngx_rt_hub_channel().  If it is another one by then, nobody
 * has asked and nothing happens.
 */

/*
 * 0: no link waits, or all are full.  Else entries are needed from *tag on,
 * which is the lowest place that is not below floor (0-0: the lowest of all);
 * 2: some links are below it.  They have their turn when all above are done:
 * so whoever comes while a stream is gone through can't hold up the others.
 */
ngx_uint_t ngx_rt_fill_from(ngx_rt_channel_t *channel,
    const u_char floor[NGX_RT_TAG_LEN], u_char tag[NGX_RT_TAG_LEN]);

/*
 * What the stream is like, asked before the entries are: last is its own last
 * id (0-0: there is no stream), whole is 1 when no entry was ever removed
 * from it.
 */
void ngx_rt_fill_begin(ngx_rt_channel_t *channel,
    const u_char last[NGX_RT_TAG_LEN], ngx_uint_t whole);

/* one entry; msg: channel, id and seq are not set; NULL: it was too large */
void ngx_rt_fill_entry(ngx_rt_channel_t *channel,
    const u_char tag[NGX_RT_TAG_LEN], ngx_rt_delivery_t *msg);

/*
 * The portion ends.  rc: NGX_OK, the stream may have more; NGX_DONE, these
 * were the last; NGX_ERROR: Redis could not be asked, gaps are told.  Flushes.
 * Afterwards ngx_rt_fill_from() may say that there is more to do.
 */
void ngx_rt_fill_done(ngx_rt_channel_t *channel, ngx_int_t rc);


/* ngx_rt_place.c, inside layer 2, of streams */

/* a subscriber begins, all its links are joined; cursor as in subscribe */
void ngx_rt_place_start(ngx_rt_subscriber_t *sub, const ngx_str_t *channels,
    const ngx_str_t *cursor, ngx_uint_t start);

/* records of the log: the channel is followed from now on, or anew; an entry
 * was too large.  The channel left the table; it is there again */
void ngx_rt_place_confirm(ngx_rt_channel_t *channel, ngx_rt_record_sh_t *rec);
void ngx_rt_place_drop(ngx_rt_channel_t *channel, ngx_rt_record_sh_t *rec);
void ngx_rt_place_evicted(ngx_rt_channel_t *channel);
void ngx_rt_place_entered(ngx_rt_channel_t *channel);

/* where the client stands, as text of at most NGX_RT_PLACES_LEN bytes; 0: it
 * has no place */
size_t ngx_rt_place_id(ngx_rt_subscriber_t *sub, u_char *buf);

/* NGX_OK: what the link misses is in the history, with a larger *seq;
 * NGX_DECLINED: nothing for now, it waits */
ngx_int_t ngx_rt_place_after(ngx_rt_link_t *link, uint64_t *seq);

/* 1: the message of the log is news to the link */
#define ngx_rt_place_wants(link, rec)                                         \
    ((link)->state == NGX_RT_LINK_READY                                       \
     && (rec)->seq > (link)->since                                            \
     && ngx_rt_sid_cmp((rec)->tag, (link)->tag) > 0)

/* tells a gap at the link's place */
void ngx_rt_place_gap(ngx_rt_link_t *link, const char *reason);

/* all that was missed is told: a client without a cursor gets one */
void ngx_rt_place_told(ngx_rt_subscriber_t *sub);


/* for this layer alone: the message to one subscriber, tag its identity; all
 * dirty subscribers flushed; the body of a record as a message, its frames
 * given back; a place as text; a subscriber to be flushed; what a subscriber
 * missed */
void ngx_rt_hub_give(ngx_rt_link_t *link, ngx_rt_delivery_t *msg,
    const u_char *tag);
void ngx_rt_hub_flush(ngx_rt_hub_t *hub);
ngx_int_t ngx_rt_hub_read(ngx_rt_hub_t *hub, uint64_t off,
    ngx_rt_record_sh_t *rec, ngx_rt_delivery_t *msg);
void ngx_rt_hub_done(ngx_rt_delivery_t *msg);
size_t ngx_rt_hub_id(ngx_rt_hub_t *hub, u_char *buf, uint64_t seq,
    const u_char *tag);
void ngx_rt_hub_dirty(ngx_rt_subscriber_t *sub);
void ngx_rt_hub_replay(ngx_rt_subscriber_t *sub);

/* a gap to all of a channel who are not behind, up to seq; not of streams */
void ngx_rt_hub_gap(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel,
    const char *reason, uint64_t seq);


/* ngx_rt_channel.c, inside layer 2 but for look and viewers */

/* a channel of this worker by name, or NULL */
ngx_rt_channel_t *ngx_rt_hub_channel(ngx_rt_hub_t *hub, const ngx_str_t *name);

/* gives the channel its place in the table; NGX_OK, or NGX_DECLINED: no room */
ngx_int_t ngx_rt_hub_enter(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel);

/* the channel has left the table; is asked for anew: each second, for all */
void ngx_rt_hub_lose(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel);
void ngx_rt_hub_find_lost(ngx_rt_hub_t *hub);

/* tells all workers how many streams of this one follow the channel, and how
 * many polls wait for it */
void ngx_rt_hub_count(ngx_rt_hub_t *hub, ngx_rt_channel_t *channel);

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
