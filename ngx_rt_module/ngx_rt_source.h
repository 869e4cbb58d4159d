
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layer 3, sources: where messages come from.  A Redis connection, the role of
 * the feeder, what it does for plain pub/sub and for streams, and how a worker
 * publishes.  Knows no HTTP.
 *
 *     ngx_rt_resp.c         the codec: hiredis behind a tokenizer
 *     ngx_rt_redis.c        one connection: addresses, socket, login, end
 *     ngx_rt_redis_io.c     one connection: bytes out and in, replies in order
 *     ngx_rt_feeder.c       the role: lease, state, back-off, expiry
 *     ngx_rt_feed_handover.c  the role given on without a gap
 *     ngx_rt_feed_pubsub.c  `source pubsub`: subscriptions
 *     ngx_rt_feed_pattern.c `source pubsub`: patterns
 *     ngx_rt_feed_message.c `source pubsub`: messages
 *     ngx_rt_feed_names.c   `source pubsub`: ... and what is known of channels
 *     ngx_rt_feed_snapshot.c  `snapshot`: what is in a key
 *     ngx_rt_feed_stream.c  `source stream`, see ngx_rt_stream.h
 *     ngx_rt_entry.c        `source stream`: an entry as a message
 *     ngx_rt_fill.c         `source stream`: what clients missed long ago
 *     ngx_rt_publish.c      a worker's connection for publishing
 *     ngx_rt_glob.c         Redis' patterns
 */


#ifndef _NGX_RT_SOURCE_H_INCLUDED_
#define _NGX_RT_SOURCE_H_INCLUDED_


#include <ngx_event_connect.h>
#include <ngx_rt_worker.h>


/* the feeder's part in a worker; a hub without redis has none */

/* in a worker's init, NGX_OK or NGX_ERROR for lack of memory; exit gives the
 * lease back and closes all connections */
ngx_int_t ngx_rt_feeder_init(ngx_cycle_t *cycle, ngx_rt_hub_t *hub);
void ngx_rt_feeder_exit(ngx_rt_hub_t *hub);

/* called in each worker when it was woken: takes wanted channels from the
 * queue if this worker is the feeder, tries to become it if there is none */
void ngx_rt_feeder_wake(ngx_rt_hub_t *hub);

/* the worker was asked to quit: hands the lease to another worker */
void ngx_rt_feeder_quit(ngx_rt_hub_t *hub);


/*
 * A publish on its way to Redis, over a connection of this worker that is
 * opened with the first publish and closed when idle.  The caller owns the
 * struct and keeps it until handler was called or ngx_rt_publish_cancel().
 */

typedef struct ngx_rt_publish_s  ngx_rt_publish_t;

struct ngx_rt_publish_s {
    ngx_queue_t                   queue;
    void                        (*handler)(ngx_rt_publish_t *pub);
    void                         *data;

    /* the answer: NGX_OK with receivers or, of a stream, the entry's id;
     * NGX_DECLINED: Redis is away, or too much is waiting for it: nothing was
     * taken; NGX_ERROR: refused, error says what; NGX_ABORT: sent, but the
     * answer was lost.  The strings are valid during handler */
    ngx_int_t                     rc;
    int64_t                       receivers;
    ngx_str_t                     id;
    ngx_str_t                     error;

    void                         *op;           /* the sender's */
    unsigned                      active:1;     /* the sender's */
};

/*
 * Sends channel (without prefix), event and data as the hub's source and
 * payload want them.  handler is called later, never from within.
 *
 * `payload json`: data travels as a JSON string, so data or an event that is
 * not UTF-8 is refused: NGX_ERROR with the error "not UTF-8".
 * `payload raw`: an event is a field of a stream's entry; with pub/sub it
 * can't travel, the caller has refused it.
 *
 * NGX_OK, or NGX_ERROR: no memory, handler will not be called.
 */
ngx_int_t ngx_rt_publish_send(ngx_rt_hub_t *hub, ngx_rt_publish_t *pub,
    const ngx_str_t *channel, const ngx_str_t *event, const ngx_str_t *data);

/* the answer is no longer wanted; the message may be published all the same */
void ngx_rt_publish_cancel(ngx_rt_publish_t *pub);


/* What follows is for the files of this layer alone. */


/* ngx_rt_glob.c */

/*
 * 1: the name matches the pattern as Redis' stringmatchlen() says, in time
 * of at most the product of their lengths (Redis': exponential in the number
 * of stars).
 */
ngx_uint_t ngx_rt_glob_match(const ngx_str_t *pattern, const ngx_str_t *name);


/* ngx_rt_resp.c */

struct redisReply;                          /* hiredis' */

#define NGX_RT_RESP_LINE          32        /* bytes of a length line */
#define NGX_RT_RESP_DEPTH         7         /* arrays in arrays */

/*
 * Reads RESP2 replies out of bytes as they come.  The framing is checked
 * before hiredis sees it: other types than RESP2's, lengths that are no
 * numbers, arrays of more than array_max elements or in more than
 * NGX_RT_RESP_DEPTH others, and replies of more than reply_max bytes are
 * errors.  A string of more than bulk_max bytes is passed
 * over as it comes in and is nil in the reply, so that it costs no memory; a
 * reply that is nothing else is the error NGX_RT_RESP_LARGE, for a nil says
 * that there is none.
 *
 * For streams there is a budget: an array within the reply of more than
 * array_max elements is passed over and is nil as well, as one whole.  And a
 * reply is cut: from the first string or array on that would cost more than
 * what is left of the budget, each string longer than an id and each array of
 * more than two elements, but for those directly in the reply, is passed over
 * and is an empty status, which Redis never sends there.  So of
 *
 *     EXEC:  [[[id, [field, value, ...]], ...], [name, value, ...]]
 *
 * the answers of the commands and all ids come: the elements of an XRANGE are
 * as many as Redis sent.  Its first entry has the whole budget if XRANGE is
 * the first command.
 */

#define NGX_RT_RESP_LARGE         "LARGE string passed over"

typedef struct {
    void                         *reader;   /* redisReader */
    size_t                        bulk_max;
    size_t                        reply_max;
    ngx_uint_t                    array_max;
    size_t                        budget;   /* 0: none */

    size_t                        unfinished;   /* bytes fed since the last
                                                   whole reply */
    size_t                        rest;     /* of a string, with its CRLF */
    size_t                        spent;    /* of the budget */
    ngx_uint_t                    over;     /* an array is passed over that is
                                               so many levels deep, 0: none */
    const char                   *error;    /* constant, or the reader's */
    ngx_uint_t                    state;
    ngx_uint_t                    depth;
    uint32_t                      left[NGX_RT_RESP_DEPTH];  /* elements */
    u_char                        last;     /* byte before this one */
    u_char                        len;      /* bytes in line */
    u_char                        line[NGX_RT_RESP_LINE];
} ngx_rt_resp_t;


/* a message of pub/sub; a string that was too large has no data */

typedef struct {
    ngx_str_t                     pattern;  /* only if matched */
    ngx_str_t                     channel;
    ngx_str_t                     data;
    unsigned                      matched:1;    /* by a pattern */
} ngx_rt_push_t;


/* NGX_OK or NGX_ERROR: no memory */
ngx_int_t ngx_rt_resp_init(ngx_rt_resp_t *resp, size_t bulk_max);

/* replies have a budget, which is not 0; before anything is fed */
void ngx_rt_resp_bound(ngx_rt_resp_t *resp, ngx_uint_t array_max,
    size_t budget);

/* frees all; harmless when not initialized but zeroed */
void ngx_rt_resp_done(ngx_rt_resp_t *resp);

/* takes len bytes, at most 16 KB for the reader moves what it holds.
 * NGX_OK, or NGX_ERROR with resp->error: nothing more can be read */
ngx_int_t ngx_rt_resp_feed(ngx_rt_resp_t *resp, const u_char *data,
    size_t len);

/* the same, but up to the end of a reply; *data goes behind what was taken */
ngx_int_t ngx_rt_resp_take(ngx_rt_resp_t *resp, const u_char **data,
    const u_char *last);

/*
 * Looks whether a message of pub/sub is what the bytes from *data on begin
 * with; takes nothing but that.
 *
 * NGX_OK        *push is it, its strings are in the bytes; *data is behind it
 * NGX_AGAIN     so far it may be one: again when there are more bytes
 * NGX_DECLINED  it is not, or resp is within a reply, or a string of it is
 *               too large: the bytes are for ngx_rt_resp_take(), as those of
 *               one that is longer than all bytes that can be held
 */
ngx_int_t ngx_rt_resp_push(ngx_rt_resp_t *resp, u_char **data, u_char *last,
    ngx_rt_push_t *push);

/* NGX_OK: *reply is the caller's, to free with ngx_rt_resp_free();
 * NGX_AGAIN: feed more; NGX_ERROR as above */
ngx_int_t ngx_rt_resp_next(ngx_rt_resp_t *resp, struct redisReply **reply);

/* frees a reply; NULL is none */
void ngx_rt_resp_free(struct redisReply *reply);


/* ngx_rt_entry.c: an entry of XRANGE or XREVRANGE, and XINFO STREAM */

#define NGX_RT_ENTRIES_SIZE       4096      /* of the buffer, at least */

/*
 * Where messages are written that are not in the entry as they are; of the
 * caller, who sets log, the rest zeroed.  At most message_max bytes, with
 * `payload json` the length of the longest string.
 */

typedef struct {
    ngx_log_t                    *log;
    u_char                       *buf;
    size_t                        size;
} ngx_rt_entries_t;

typedef struct {
    u_char                        tag[NGX_RT_TAG_LEN];
    ngx_rt_message_t              msg;
    const char                   *why;      /* constant */
} ngx_rt_entry_t;

/*
 * The strings of msg point into the reply or into ctx' buffer, until the next
 * call.  tag is set in all cases but NGX_ERROR.
 *
 * NGX_OK        msg is a message, not larger than message_max
 * NGX_DECLINED  no message can be made of it, why says why
 * NGX_BUSY      it is too large: msg is for ngx_rt_store_publish(), which
 *               will drop it
 * NGX_AGAIN     the reply was cut here, see ngx_rt_resp_t: asked for once
 *               more, first in a reply of its own, it comes whole; if it was
 *               the first it is too large for good
 * NGX_ERROR     not an entry, or no memory: why says which
 */
ngx_int_t ngx_rt_entry_read(ngx_rt_entries_t *ctx, ngx_rt_hub_conf_t *conf,
    struct redisReply *reply, ngx_rt_entry_t *entry);

/* frees the buffer */
void ngx_rt_entries_done(ngx_rt_entries_t *ctx);


typedef struct {
    uint64_t                      length;   /* entries there now */
    uint64_t                      added;    /* entries ever added */
    u_char                        last[NGX_RT_TAG_LEN];     /* the last id
                                               given; 0-0: none ever */
    unsigned                      counted:1;    /* added is known: Redis 7 */
} ngx_rt_stream_info_t;

/*
 * Of XINFO STREAM's reply.  NGX_OK; NGX_DECLINED: no such key, *info is all
 * zeros; NGX_AGAIN: the reply was cut before it; NGX_ERROR: another error,
 * or not such a reply.
 */
ngx_int_t ngx_rt_stream_info_read(struct redisReply *reply,
    ngx_rt_stream_info_t *info);


/* ngx_rt_redis.c */

#define NGX_RT_REDIS_ADDRS        16        /* of one resolved name */
#define NGX_RT_REDIS_ERROR_LEN    256
#define NGX_RT_REDIS_ARGS         16

typedef struct ngx_rt_redis_s     ngx_rt_redis_t;
typedef struct ngx_rt_redis_op_s  ngx_rt_redis_op_t;

typedef enum {
    NGX_RT_REDIS_CLOSED = 0,
    NGX_RT_REDIS_RESOLVING,
    NGX_RT_REDIS_CONNECTING,
    NGX_RT_REDIS_GREETING,                  /* AUTH, SELECT, PING under way */
    NGX_RT_REDIS_READY
} ngx_rt_redis_state_e;


/*
 * A command that was sent and is owed a reply.  Replies come in the order of
 * the commands.  The owner keeps the struct until handler was called, which
 * is called once: with the reply (valid during the call), or with NULL when
 * the connection is gone.
 *
 * handler returns NGX_OK, or anything else to have the connection closed;
 * it has then called ngx_rt_redis_error() or knows why itself.  It must not
 * close the connection, but may send.
 */

struct ngx_rt_redis_op_s {
    ngx_queue_t                   queue;
    ngx_int_t                   (*handler)(ngx_rt_redis_t *rd,
                                      ngx_rt_redis_op_t *op,
                                      struct redisReply *reply);
    uint64_t                      end;      /* of the command, among all bytes
                                               of the connection */
};

/* 1: not one byte of it has been written, or not all of it: not executed */
#define ngx_rt_redis_unsent(rd, op)   ((op)->end > (rd)->sent)


/*
 * What the owner of a connection does.  ready, push, flush and drained are
 * bound as a handler is, and return what it returns.
 *
 * ready    logged in, database selected, PING answered
 * push     a message that no command is owed; its strings stay where they are
 *          until flush was called.  NULL: none comes
 * flush    the strings of what was pushed are going to go, or something else
 *          comes: after each read and before each handler.  NULL: push keeps
 *          none
 * turn     the replies of one turn of the event loop have been handled
 * drained  what was waiting to be written is written
 * closed   the connection is lost, or no url could be reached: rd->error
 *          says why, rd->refused is 1 when Redis itself said it.  Called
 *          after the handlers of all owed ops
 */

typedef struct {
    ngx_int_t                   (*ready)(ngx_rt_redis_t *rd);
    ngx_int_t                   (*push)(ngx_rt_redis_t *rd,
                                      const ngx_rt_push_t *push);
    void                        (*turn)(ngx_rt_redis_t *rd);
    ngx_int_t                   (*drained)(ngx_rt_redis_t *rd);
    void                        (*closed)(ngx_rt_redis_t *rd);
    ngx_int_t                   (*flush)(ngx_rt_redis_t *rd);
} ngx_rt_redis_ops_t;


/*
 * One connection, embedded in its owner's struct.  The owner sets the fields
 * of the first group (the rest zeroed) and calls ngx_rt_redis_init() once,
 * then ngx_rt_redis_open() and ngx_rt_redis_close() any number of times.
 *
 * The timer's data is this struct: nginx' debug log reads ->fd of it as of an
 * ngx_connection_t, hence the order of the first four fields.
 */

struct ngx_rt_redis_s {
    void                         *data;     /* the owner's */
    const ngx_rt_redis_ops_t     *ops;
    ngx_rt_hub_conf_t            *conf;
    ngx_socket_t                  fd;       /* always -1 */
    size_t                        out_max;  /* bytes waiting to be written */
    unsigned                      ping:1;   /* ask every second */
    unsigned                      hold:1;   /* what is owed holds a quitting
                                               worker */

    unsigned                      paused:1; /* the owner's: no replies are
                                               handled until resume */
    unsigned                      refused:1;
    unsigned                      looking:1;    /* ngx_resolve_name() runs */

    ngx_rt_redis_state_e          state;
    ngx_log_t                     log;      /* a quiet copy: the owner tells
                                               of errors, once */
    ngx_event_t                   timer;
    ngx_peer_connection_t         peer;
    ngx_resolver_ctx_t           *resolving;

    ngx_uint_t                    url;      /* index of the current one */
    ngx_uint_t                    tried;    /* urls, in this round */
    ngx_addr_t                   *addrs;
    ngx_uint_t                    naddrs;
    ngx_uint_t                    addr;     /* the next one to try */
    ngx_addr_t                    found[NGX_RT_REDIS_ADDRS];
    ngx_sockaddr_t                sockaddrs[NGX_RT_REDIS_ADDRS];

    ngx_rt_resp_t                 resp;
    ngx_queue_t                   owed;     /* ngx_rt_redis_op_t */
    ngx_rt_redis_op_t             login[3]; /* AUTH, SELECT, PING */
    ngx_rt_redis_op_t             pong;

    u_char                       *out;      /* bytes to write: [first, last) */
    size_t                        out_size;
    size_t                        out_first;
    size_t                        out_last;
    uint64_t                      queued;   /* all bytes ever to write */
    uint64_t                      sent;     /* and written */

    u_char                       *in;       /* bytes read: [first, last), where
                                               messages come */
    size_t                        in_first;
    size_t                        in_last;

    ngx_msec_t                    heard;    /* when bytes came, or began to
                                               be owed */
    ngx_msec_t                    pinged;
    uint64_t                      asked;    /* us, when PING was written */
    uint64_t                      lag;      /* us, what its answer took */

    ngx_str_t                     error;
    u_char                        errbuf[NGX_RT_REDIS_ERROR_LEN];
};


/* log: the worker's */
void ngx_rt_redis_init(ngx_rt_redis_t *rd, ngx_log_t *log);

/*
 * Tries the urls in turn, beginning with the one that was reached last, until
 * ready; or calls closed, also from within.  Only when CLOSED.
 */
void ngx_rt_redis_open(ngx_rt_redis_t *rd);

/* ms until the next attempt: redis_reconnect, doubled with each one, counted
 * here; between a half and the whole of that by chance */
ngx_msec_t ngx_rt_redis_delay(ngx_rt_hub_conf_t *conf, ngx_uint_t *attempt);

/* the same, but to no other address than that where other is READY */
void ngx_rt_redis_follow(ngx_rt_redis_t *rd, ngx_rt_redis_t *other);

/* closes without a call of closed; the handlers of owed ops are called.
 * Harmless when CLOSED; not from within a handler or push */
void ngx_rt_redis_close(ngx_rt_redis_t *rd);

/* handles replies again after the owner has set rd->paused, also in a handler
 * or push; soon, not from within.  Only when READY */
void ngx_rt_redis_resume(ngx_rt_redis_t *rd);

/*
 * Sends a command; its bytes are copied.  NGX_OK; NGX_DECLINED: not READY, or
 * out_max is reached: nothing was sent; NGX_ERROR: no memory.
 */
ngx_int_t ngx_rt_redis_send(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    ngx_uint_t argc, const ngx_str_t *argv);

/* the same with the bytes of a command that are ready to go */
ngx_int_t ngx_rt_redis_write(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    const u_char *data, size_t len);

/* bytes that may still be written */
size_t ngx_rt_redis_room(ngx_rt_redis_t *rd);

/*
 * Says why the connection is going to be closed.  With a reply: what Redis
 * said, when it is an error, cleaned for the log.
 */
void ngx_rt_redis_error(ngx_rt_redis_t *rd, const char *text,
    struct redisReply *reply);

/* writes the name that a channel has in Redis; returns where, in it, the
 * channel's own begins */
u_char *ngx_rt_redis_name(u_char *p, const ngx_str_t *prefix,
    const ngx_str_t *channel);

/* the text of the url of now */
ngx_str_t *ngx_rt_redis_server(ngx_rt_redis_t *rd);

/*
 * The bytes of a command into *cmd, to free with ngx_rt_redis_free_command();
 * their number, or NGX_ERROR.
 */
ssize_t ngx_rt_redis_format(u_char **cmd, ngx_uint_t argc,
    const ngx_str_t *argv);
void ngx_rt_redis_free_command(u_char *cmd);

/* between the two files of the connection */
void ngx_rt_redis_connected(ngx_rt_redis_t *rd);
void ngx_rt_redis_down(ngx_rt_redis_t *rd);
void ngx_rt_redis_errno(ngx_rt_redis_t *rd, const char *what, ngx_err_t err);
ngx_int_t ngx_rt_redis_command(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    ngx_uint_t argc, const ngx_str_t *argv);
void ngx_rt_redis_read_handler(ngx_event_t *rev);
void ngx_rt_redis_write_handler(ngx_event_t *wev);
void ngx_rt_redis_timer(ngx_event_t *ev);
void ngx_rt_redis_set_timer(ngx_rt_redis_t *rd);


/* ngx_rt_feed_pubsub.c */

/* lines of the log about single messages: at most one a second */

typedef struct {
    time_t                        last;
    ngx_uint_t                    suppressed;
} ngx_rt_feed_log_t;

/* 1: a line may be logged, *suppressed were not since the last one */
ngx_uint_t ngx_rt_pubsub_may_log(ngx_rt_feed_log_t *limit,
    ngx_uint_t *suppressed);


/* one `subscribe` pattern */

typedef struct {
    ngx_str_t                     glob;     /* as configured */
    ngx_str_t                     name;     /* as Redis knows it: with the
                                               prefix, escaped */
    unsigned                      live:1;   /* Redis has confirmed it */
} ngx_rt_feed_pattern_t;


/*
 * What the feeder knows of its subscriptions.  All of it ends with the
 * connection, but for patterns' names and the buffers.
 */

/* channels that begin like this are ours: where the marker comes by */
#define NGX_RT_MARKER             "rt.cut."
#define NGX_RT_MARKER_LEN         64

typedef struct ngx_rt_snapshot_s  ngx_rt_snapshot_t;
typedef struct ngx_rt_feed_name_s  ngx_rt_feed_name_t;
typedef struct ngx_rt_feed_batch_s  ngx_rt_feed_batch_t;

typedef struct {
    const struct ngx_rt_source_s *source;   /* what to do with it */
    void                         *data;     /* the source's own, but pubsub's,
                                               which is below */
    ngx_rt_hub_t                 *hub;
    ngx_rt_redis_t               *redis;
    void                         *feeder;   /* ngx_rt_feeder_t */
    ngx_rt_snapshot_t            *snapshot; /* NULL: not configured */
    uint64_t                      term;

    ngx_str_t                     marker;   /* channel, while handed over */
    u_char                        name[NGX_RT_MARKER_LEN];

    ngx_rt_feed_pattern_t        *patterns;
    ngx_uint_t                    npatterns;
    ngx_uint_t                    unanswered;   /* patterns */

    ngx_uint_t                    inflight; /* (un)subscribes owed a reply */
    ngx_queue_t                   denied;   /* ngx_rt_feed_sub_t, by Redis */
    ngx_uint_t                    ndenied;
    ngx_uint_t                    age;      /* seconds since begun */

    ngx_rt_feed_name_t           *names;    /* NULL: none yet */
    ngx_uint_t                    nnames;   /* a power of two */
    ngx_rt_feed_batch_t          *batch;    /* NULL: none yet */

    u_char                       *scratch;
    size_t                        scratch_size;
    uint32_t                      iter;     /* of the expiry sweep */

    ngx_rt_feed_log_t             dropped;
    ngx_rt_feed_log_t             refused;

    unsigned                      warm:1;   /* all of the table confirmed */
    unsigned                      notify:1; /* the hub has something new */
    unsigned                      more:1;   /* see ngx_rt_pubsub_fill() */
    unsigned                      heir:1;   /* subscribes, stores nothing */
    unsigned                      frozen:1; /* stores, subscribes no more */
} ngx_rt_feed_t;


/*
 * What the feeder asks of a source; to the functions of pubsub below is said
 * what each does.  listen and inherit are NULL where nothing has to be handed
 * over: the next feeder goes on by what is in the zone.
 */

typedef struct ngx_rt_source_s {
    ngx_int_t                   (*init)(ngx_rt_feed_t *feed, ngx_pool_t *pool);
    void                        (*exit)(ngx_rt_feed_t *feed);
    ngx_int_t                   (*begin)(ngx_rt_feed_t *feed, uint64_t term);
    ngx_int_t                   (*inherit)(ngx_rt_feed_t *feed,
                                      uint64_t term);
    ngx_int_t                   (*listen)(ngx_rt_feed_t *feed);
    void                        (*end)(ngx_rt_feed_t *feed);
    ngx_int_t                   (*fill)(ngx_rt_feed_t *feed);
    ngx_int_t                   (*tick)(ngx_rt_feed_t *feed);
    void                        (*notify)(ngx_rt_feed_t *feed);
    ngx_int_t                   (*push)(ngx_rt_feed_t *feed,
                                      const ngx_rt_push_t *push);
    ngx_int_t                   (*flush)(ngx_rt_feed_t *feed);
} ngx_rt_source_t;

extern const ngx_rt_source_t      ngx_rt_source_pubsub;
extern const ngx_rt_source_t      ngx_rt_source_stream;


/* sets the patterns up, in the cycle's pool; NGX_OK or NGX_ERROR */
ngx_int_t ngx_rt_pubsub_init(ngx_rt_feed_t *feed, ngx_pool_t *pool);
void ngx_rt_pubsub_exit(ngx_rt_feed_t *feed);

/* All of these: NGX_OK, or NGX_ABORT: the term is over, NGX_ERROR: no
 * memory; the caller then closes the connection. */

/* the connection is ready, the session begun: subscribes all */
ngx_int_t ngx_rt_pubsub_begin(ngx_rt_feed_t *feed, uint64_t term);

/* the heir, who began with term 0, is the feeder now */
ngx_int_t ngx_rt_pubsub_inherit(ngx_rt_feed_t *feed, uint64_t term);

/* subscribes feed->marker; NGX_OK or NGX_ERROR */
ngx_int_t ngx_rt_pubsub_listen(ngx_rt_feed_t *feed);

/* the connection is closed; may be called twice */
void ngx_rt_pubsub_end(ngx_rt_feed_t *feed);

/* takes wanted channels while there is room for more.  Sets feed->more when
 * there may be some that no reply will call for: again in the next turn */
ngx_int_t ngx_rt_pubsub_fill(ngx_rt_feed_t *feed);

/* every second: forgets what is inactive, asks again for what was denied */
ngx_int_t ngx_rt_pubsub_tick(ngx_rt_feed_t *feed);

/* tells the hub if there was something for it */
void ngx_rt_pubsub_notify(ngx_rt_feed_t *feed);


/*
 * ngx_rt_feed_snapshot.c: a connection of its own, beside that of the feed
 * and to the same Redis, asks for the keys of channels that were confirmed.
 * All of it is harmless where `snapshot` is not set.
 */

/* NGX_OK, or NGX_ERROR: no memory */
ngx_int_t ngx_rt_snapshot_init(ngx_rt_feed_t *feed, ngx_pool_t *pool);

/* the feed's connection is ready, and the session's feeder is this worker:
 * connects, and asks for all that is owed */
void ngx_rt_snapshot_begin(ngx_rt_feed_t *feed);

/* the session is over, or another one's; may be called twice.  Not from
 * within the connection's events */
void ngx_rt_snapshot_end(ngx_rt_feed_t *feed);

/* Redis has confirmed the channel: asks for its snapshot if it is owed */
void ngx_rt_snapshot_ask(ngx_rt_feed_t *feed, const ngx_str_t *name);

/* a value that is a message: stores it, unless it is there.  As above */
ngx_int_t ngx_rt_snapshot_take(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_rt_message_t *msg);


/* ngx_rt_publish.c, of a hub in this worker */

typedef struct ngx_rt_publisher_s  ngx_rt_publisher_t;

/* made with the hub, not connected; NULL: no memory */
ngx_rt_publisher_t *ngx_rt_publisher_create(ngx_pool_t *pool,
    ngx_rt_hub_t *hub);

/* the worker quits: an idle connection is closed; its end: all is */
void ngx_rt_publisher_quit(ngx_rt_publisher_t *pb);
void ngx_rt_publisher_exit(ngx_rt_publisher_t *pb);

/* an idle connection is closed now, not in a minute; also from a handler */
void ngx_rt_publisher_rest(ngx_rt_publisher_t *pb);


/*
 * Other commands over the same connection, beside what is published.  The
 * caller owns the struct and keeps it until the last call of handler, or the
 * publisher's exit.
 *
 * handler is called for each reply, with NGX_OK and the number of those that
 * are still to come in left; or once with NULL, and none will come:
 * NGX_DECLINED, nothing was sent; NGX_ABORT, the answer was lost.
 */

typedef struct ngx_rt_errand_s    ngx_rt_errand_t;

struct ngx_rt_errand_s {
    void                        (*handler)(ngx_rt_errand_t *errand,
                                      ngx_int_t rc, struct redisReply *reply);
    ngx_uint_t                    left;
};

typedef struct {
    ngx_uint_t                    argc;
    const ngx_str_t              *argv;
} ngx_rt_command_t;

/*
 * Sends n commands in one piece, with nothing between them.  How much is
 * asked at once is the caller's to bound.  handler is called later, never from
 * within.  NGX_OK, or NGX_ERROR: no memory, handler will not be called.
 */
ngx_int_t ngx_rt_publisher_ask(ngx_rt_publisher_t *pb,
    ngx_rt_errand_t *errand, const ngx_rt_command_t *commands, ngx_uint_t n);


/* ngx_rt_fill.c, of a hub of streams in this worker */

typedef struct ngx_rt_fills_s     ngx_rt_fills_t;

/* sets hub->fill; NULL: no memory */
ngx_rt_fills_t *ngx_rt_fill_create(ngx_pool_t *pool, ngx_rt_hub_t *hub,
    ngx_rt_publisher_t *pb);

/* after the publisher's exit */
void ngx_rt_fill_exit(ngx_rt_fills_t *fills);


/*
 * The feeder's part in a worker.  The data of timers: nginx' debug log reads
 * ->fd of it as of an ngx_connection_t, hence the order of the first four
 * fields.
 */

typedef struct {
    ngx_rt_hub_t                 *hub;
    ngx_rt_publisher_t           *publisher;
    ngx_cycle_t                  *cycle;
    ngx_socket_t                  fd;       /* always -1 */

    uint64_t                      term;     /* 0: not the feeder */
    ngx_uint_t                    behind;   /* the worker preferred */
    ngx_event_t                   lease;    /* timer: look, or renew */
    ngx_event_t                   retry;    /* timer: connect again */
    ngx_event_t                   more;     /* posted: go on filling */

    ngx_rt_redis_t                redis;
    ngx_rt_feed_t                 feed;
    ngx_rt_fills_t               *fills;    /* NULL: not of streams */

    ngx_uint_t                    attempt;
    ngx_uint_t                    told;
    ngx_msec_t                    live;     /* since when */
    ngx_msec_t                    ticked;
    ngx_msec_t                    vacant;   /* a quitting worker has seen the
                                               lease free since then */

    uint32_t                      config;   /* digest, see the hand-over */
    uint64_t                      heir;     /* the term to take over, or 0 */
    uint32_t                      claim;    /* the heir's number */
    ngx_event_t                   hold;     /* timer, while it offers: keeps
                                               the quitting worker */
    ngx_msec_t                    begun;    /* to offer, or to be the heir */
    ngx_rt_publish_t              mark;     /* the marker on its way */

    unsigned                      quitting:1;
    unsigned                      alone:1;      /* quitting, and no heir in
                                                   sight: feeds on */
    unsigned                      aborted:1;    /* the term is over */
} ngx_rt_feeder_t;


/* ngx_rt_feed_handover.c */

/* with the feeder's init: sets up what is the hand-over's in it */
void ngx_rt_handover_init(ngx_rt_feeder_t *f);

/* a feeder quits: NGX_OK, it goes on until it has an heir or there can be
 * none; NGX_DECLINED: it can't be handed over */
ngx_int_t ngx_rt_handover_begin(ngx_rt_feeder_t *f);

/* a worker that quits feeds, for want of others, while there are streams */
void ngx_rt_handover_alone(ngx_rt_feeder_t *f);

/* becomes the heir if the term is to be had: 1, it is */
ngx_uint_t ngx_rt_handover_try(ngx_rt_feeder_t *f);

/* the heir looks whether it feeds by now */
void ngx_rt_handover_check(ngx_rt_feeder_t *f);

/* neither heir nor offering; phase: what the heir leaves.  Closes nothing */
void ngx_rt_handover_end(ngx_rt_feeder_t *f, ngx_uint_t phase);

/* from the feed: Redis has subscribed the marker's channel, or denied it */
void ngx_rt_handover_listening(ngx_rt_feed_t *feed, ngx_uint_t denied);

/* from the heir's feed: all of the table is subscribed; may be called again */
void ngx_rt_handover_walked(ngx_rt_feed_t *feed);

/* from the feed: the marker has come.  NGX_OK, also when it counts for
 * nothing; NGX_ABORT: the term is handed over */
ngx_int_t ngx_rt_handover_marked(ngx_rt_feed_t *feed,
    const ngx_str_t *payload);


/* ngx_rt_feeder.c, for the hand-over */

/* gives the lease back and wakes whoever may want it; harmless without one.
 * Not from within the connection's events */
void ngx_rt_feeder_release(ngx_rt_feeder_t *f);

/* the heir feeds, by this term */
void ngx_rt_feeder_inherit(ngx_rt_feeder_t *f, uint64_t term);

/* closes the connection and waits for the lease again.  Not from within the
 * connection's events, but for closed */
void ngx_rt_feeder_step_down(ngx_rt_feeder_t *f);

/* sets a timer anew: ngx_add_timer() keeps one that is set to about the same */
void ngx_rt_feeder_set_timer(ngx_event_t *ev, ngx_msec_t delay);

/* has the source fill in this turn of the event loop; from wherever */
void ngx_rt_feeder_again(ngx_rt_feeder_t *f);

/* wakes all other workers of the zone */
void ngx_rt_feeder_wake_others(ngx_rt_feeder_t *f);

/* ngx_rt_feeder.c: the publisher of the hub, and what fills its channels */
ngx_rt_publisher_t *ngx_rt_feeder_publisher(ngx_rt_hub_t *hub);
ngx_rt_fills_t *ngx_rt_feeder_fills(ngx_rt_hub_t *hub);


#endif /* _NGX_RT_SOURCE_H_INCLUDED_ */
