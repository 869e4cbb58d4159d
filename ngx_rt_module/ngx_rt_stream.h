
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layer 3, `source stream`: the streams that the feeder follows, in the
 * worker that is the feeder.  All of it is that worker's alone; what others
 * are to know is in the zone.
 *
 *     ngx_rt_feed_stream.c  which streams, their states
 *     ngx_rt_feed_req.c     what is asked of Redis about them
 *     ngx_rt_feed_proof.c   what follows: messages, or that some are missing
 *     ngx_rt_feed_reader.c  who waits for news
 */


#ifndef _NGX_RT_STREAM_H_INCLUDED_
#define _NGX_RT_STREAM_H_INCLUDED_


#include <ngx_rt_source.h>


/* ngx_rt_feed_stream.c */

typedef struct ngx_rt_streams_s   ngx_rt_streams_t;
typedef struct ngx_rt_stream_s    ngx_rt_stream_t;
typedef struct ngx_rt_reader_s    ngx_rt_reader_t;
typedef struct ngx_rt_req_s       ngx_rt_req_t;

/* what a stream is asked next; of two the larger one is, for it tells all
 * that the other would */
#define NGX_RT_REQ_NONE           0
#define NGX_RT_REQ_READ           1         /* what comes after its place */
#define NGX_RT_REQ_ENTRY          2         /* one entry, alone */
#define NGX_RT_REQ_VERIFY         3         /* READ, and what XINFO says */
#define NGX_RT_REQ_COLD           4         /* the newest entries */

/* where a stream is */
#define NGX_RT_STREAM_STALE       0         /* of an earlier session */
#define NGX_RT_STREAM_WOKEN       1         /* to be read */
#define NGX_RT_STREAM_QUEUED      2         /* to be asked something else */
#define NGX_RT_STREAM_ASKED       3         /* in no queue */
#define NGX_RT_STREAM_IDLE        4         /* read to its end */
#define NGX_RT_STREAM_FAILED      5         /* Redis says no */
#define NGX_RT_STREAM_STATES      6

/*
 * One stream that is followed.  All entries up to tag are in the store, or
 * were not to be kept.  added is what XINFO called entries-added when tag was
 * the last id: by it entries that were trimmed away after they had been read
 * are told from such that were not.
 */

struct ngx_rt_stream_s {
    ngx_str_node_t                node;     /* in streams->tree */
    ngx_queue_t                   queue;    /* of its state */
    ngx_queue_t                   member;   /* in reader->members */
    ngx_rt_reader_t              *reader;   /* NULL: none waits for it */
    ngx_rt_req_t                 *ask;      /* under way */
    uint64_t                      added;
    ngx_msec_t                    checked;  /* when it was idle or failed */
    u_char                        tag[NGX_RT_TAG_LEN];
    u_char                        seen[NGX_RT_TAG_LEN]; /* told by XREAD to be
                                               the first after tag; or which
                                               ENTRY; 0-0: none */
    ngx_uint_t                    kind;     /* NGX_RT_REQ_*: what is asked, or
                                               is to be after what is */
    ngx_uint_t                    state;
    ngx_uint_t                    rounds;   /* of reading, without an end */
    ngx_uint_t                    delay;    /* s, of a failed one */
    unsigned                      known:1;  /* tag is a place */
    unsigned                      counted:1;    /* added is known */
    unsigned                      live:1;   /* confirmed in this session */
    unsigned                      woken:1;  /* its reader waits for it */
    unsigned                      back:1;   /* it went back, COLD: from there */
    u_char                        name[1];
};

/* the most asked at one time */
#define NGX_RT_REQS               64
#define NGX_RT_REQ_OPS            6

typedef struct {
    ngx_rt_redis_op_t             op;       /* the first: op is cast to this */
    ngx_rt_req_t                 *ask;
} ngx_rt_req_op_t;

struct ngx_rt_req_s {
    ngx_rt_req_op_t               ops[NGX_RT_REQ_OPS];
    ngx_rt_streams_t             *streams;
    ngx_rt_stream_t              *stream;   /* NULL: it is gone */
    ngx_rt_req_t                 *next;     /* free */
    ngx_uint_t                    kind;
    ngx_uint_t                    count;    /* COUNT of XRANGE */
    unsigned                      denied:1; /* in MULTI: the key */
};

/* a connection that waits for news of its members */

#define NGX_RT_READERS            64        /* at most */
#define NGX_RT_READER_KEYS        64        /* then another one, if it may be */

struct ngx_rt_reader_s {
    ngx_rt_redis_t                redis;
    ngx_rt_streams_t             *streams;
    ngx_queue_t                   members;  /* ngx_rt_stream_t */
    ngx_uint_t                    n;
    ngx_uint_t                    busy;     /* members that are woken */
    ngx_uint_t                    errors;   /* XREAD failed, in a row */
    int64_t                       id;       /* CLIENT ID; 0: not known */
    ngx_rt_redis_op_t             asked;    /* CLIENT ID */
    ngx_rt_redis_op_t             read;     /* XREAD */
    ngx_rt_redis_op_t             kick;     /* CLIENT UNBLOCK, elsewhere */
    ngx_uint_t                    reads;    /* XREADs sent */
    ngx_uint_t                    target;   /* of them, to be unblocked */
    unsigned                      greeted:1;    /* id was answered */
    unsigned                      blocked:1;    /* XREAD is under way */
    unsigned                      kicked:1;     /* so is CLIENT UNBLOCK */
    unsigned                      freed:1;  /* it was unblocked */
    unsigned                      fresh:1;  /* members that it does not name */
    unsigned                      wait:1;   /* until the next tick */
};

/* the feeder's streams; of a worker */

struct ngx_rt_streams_s {
    ngx_rt_feed_t                *feed;
    ngx_rbtree_t                  tree;     /* by name, without prefix */
    ngx_rbtree_node_t             sentinel;
    ngx_queue_t                   queues[NGX_RT_STREAM_STATES];
    ngx_rt_entries_t              entries;
    uint32_t                      iter;     /* of the expiry sweep */

    ngx_rt_req_t                 *asks;     /* NGX_RT_REQS */
    ngx_rt_req_t                 *free;
    ngx_uint_t                    asked;    /* not free */
    ngx_uint_t                    window;   /* how many may be */
    ngx_uint_t                    turn;     /* whose it is */
    size_t                        bytes;    /* of replies since the last tick */
    u_char                       *text;     /* of an XREAD */
    size_t                        text_size;

    ngx_rt_reader_t              *readers[NGX_RT_READERS];
    ngx_uint_t                    nreaders;
    ngx_uint_t                    limit;    /* of readers, in this session */

    unsigned                      warm:1;   /* all of the table was taken */
    unsigned                      lost:1;   /* a reader is */
    unsigned                      deaf:1;   /* CLIENT UNBLOCK is denied */
    unsigned                      uncounted:1;  /* a Redis before 7 */
};


/* All of these that return something: NGX_OK, NGX_ABORT, NGX_ERROR as those
 * of pubsub. */

/* to ask it that, or something that tells as much */
void ngx_rt_stream_ask(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    ngx_uint_t kind);

/* it stands at its end: it is followed from now on.  It may be gone after
 * that */
ngx_int_t ngx_rt_stream_settle(ngx_rt_streams_t *ss, ngx_rt_stream_t *s);

/* reply: why Redis does not let us read it */
ngx_int_t ngx_rt_stream_fail(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    struct redisReply *reply);

/* the channel left the table; frees s */
void ngx_rt_stream_drop(ngx_rt_streams_t *ss, ngx_rt_stream_t *s);

/* the stream of a channel, NULL */
ngx_rt_stream_t *ngx_rt_stream_find(ngx_rt_streams_t *ss,
    const ngx_str_t *name);

#define ngx_rt_stream_none(tag)                                               \
    (ngx_rt_sid_cmp(tag, ngx_rt_stream_zero) == 0)

extern const u_char               ngx_rt_stream_zero[NGX_RT_TAG_LEN];


/* ngx_rt_feed_req.c */

/* sends what is to be asked, as much as may be under way */
ngx_int_t ngx_rt_req_send(ngx_rt_streams_t *ss);

/* it is about this one key that Redis says no */
ngx_uint_t ngx_rt_req_is_denial(struct redisReply *reply);

/* NGX_ERROR, and says so: this is no answer to what was asked */
ngx_int_t ngx_rt_req_wrong(ngx_rt_streams_t *ss, struct redisReply *reply);


/* ngx_rt_feed_proof.c */

/* what follows from an answer, by what was asked; count: how many entries, at
 * most.  The stream may be gone after that.  reply is that of the one XRANGE,
 * or of EXEC */
ngx_int_t ngx_rt_proof_read(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    struct redisReply *list, ngx_uint_t count);
ngx_int_t ngx_rt_proof_entry(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    struct redisReply *list);
ngx_int_t ngx_rt_proof_verify(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    struct redisReply *reply, ngx_uint_t count);
ngx_int_t ngx_rt_proof_cold(ngx_rt_streams_t *ss, ngx_rt_stream_t *s,
    struct redisReply *reply);


/* ngx_rt_feed_reader.c */

/* gives a stream to a reader; takes it from its own, if any */
void ngx_rt_reader_join(ngx_rt_streams_t *ss, ngx_rt_stream_t *s);
void ngx_rt_reader_leave(ngx_rt_stream_t *s);

/* the stream was read: its reader need not wait for it any more */
void ngx_rt_reader_settled(ngx_rt_stream_t *s);

/* opens readers, has them wait, tells them of newcomers */
void ngx_rt_reader_turn(ngx_rt_streams_t *ss);

/* every second: closes those that have nothing to do */
void ngx_rt_reader_tick(ngx_rt_streams_t *ss);

/* closes all */
void ngx_rt_reader_end(ngx_rt_streams_t *ss);


#endif /* _NGX_RT_STREAM_H_INCLUDED_ */
