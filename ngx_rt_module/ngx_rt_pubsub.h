
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Inside `source pubsub`: what its files have of each other.  What the feeder
 * asks of it is in ngx_rt_source.h.
 */


#ifndef _NGX_RT_PUBSUB_H_INCLUDED_
#define _NGX_RT_PUBSUB_H_INCLUDED_


#include <ngx_rt_source.h>


/* what is known of a channel, see ngx_rt_feed_names.c.  128 bytes */

#define NGX_RT_NAMES_LEN          58

struct ngx_rt_feed_name_s {
    uint64_t                      hash;
    ngx_rt_key_t                  key;
    ngx_rt_digest_t               digest;
    ngx_rt_feed_pattern_t        *pattern;  /* that covers it, or NULL */
    uint32_t                      entry;    /* where it was in the table */
    uint8_t                       len;      /* of text; 0: nothing is known */
    uint8_t                       spare;
    u_char                        text[NGX_RT_NAMES_LEN];   /* with the
                                               prefix */
};

_Static_assert(sizeof(ngx_rt_feed_name_t) == 128, "ngx_rt_feed_name_t");


/* messages that came together: as they were read, and those of them that are
 * yet to be stored, whose names are without prefix */

#define NGX_RT_FEED_BATCH         64

struct ngx_rt_feed_batch_s {
    ngx_uint_t                    n;
    ngx_rt_push_t                 pushes[NGX_RT_FEED_BATCH];
    uint64_t                      hashes[NGX_RT_FEED_BATCH];

    ngx_uint_t                    nposts;
    ngx_rt_post_t                 posts[NGX_RT_FEED_BATCH];
    ngx_str_t                     names[NGX_RT_FEED_BATCH];
    ngx_rt_feed_name_t           *known[NGX_RT_FEED_BATCH];
    ngx_rt_feed_name_t            stranger; /* that has no place of its own */
};


/* NGX_OK, NGX_DECLINED: no channel of the table, NGX_ABORT: the term is over,
 * NGX_ERROR: no memory */
ngx_int_t ngx_rt_pubsub_confirm(ngx_rt_feed_t *feed, const ngx_str_t *name);
ngx_int_t ngx_rt_pubsub_unsubscribe(ngx_rt_feed_t *feed,
    const ngx_str_t *name);

/* a command owed a reply, or a channel that was denied */

typedef struct {
    ngx_rt_redis_op_t             op;       /* the first: op is cast to this */
    ngx_rt_feed_t                *feed;
    ngx_rt_feed_pattern_t        *pattern;
    ngx_str_t                     name;     /* without the prefix */
    u_char                        text[1];  /* with it */
} ngx_rt_feed_sub_t;

/* a new one, its handler not set, to free with ngx_free(); NULL: no memory */
ngx_rt_feed_sub_t *ngx_rt_pubsub_sub(ngx_rt_feed_t *feed,
    const ngx_str_t *name);

/* the answer is: kind, a name, a number */
ngx_uint_t ngx_rt_pubsub_is(struct redisReply *reply, const char *kind);

/* the ACL denies this channel, which is no reason to leave the others; a
 * command that it denies is */
ngx_uint_t ngx_rt_pubsub_is_denial(struct redisReply *reply);


/* ngx_rt_feed_pattern.c */

/* sends a PSUBSCRIBE for each pattern, and fills; returns as above */
ngx_int_t ngx_rt_pubsub_patterns(ngx_rt_feed_t *feed);

/* the first pattern that matches: the one whose messages are taken; NULL */
ngx_rt_feed_pattern_t *ngx_rt_pubsub_covered(ngx_rt_feed_t *feed,
    const ngx_str_t *name);


/* ngx_rt_feed_names.c */

/* the hash of the name that Redis says, 0: it is not remembered; what is known
 * of it is fetched */
uint64_t ngx_rt_names_expect(ngx_rt_feed_t *feed, const ngx_str_t *channel);

/* what is known of the channel, by name and its hash.  NULL: it is no name of a
 * channel.  With a later call it may become another's; entry may be set all
 * the same, for it is a hint */
ngx_rt_feed_name_t *ngx_rt_names_get(ngx_rt_feed_t *feed,
    const ngx_str_t *channel, uint64_t hash);

/* all is forgotten: patterns are others, or the feed is over */
void ngx_rt_names_forget(ngx_rt_feed_t *feed);


/* ngx_rt_feed_message.c */

/* a message has come; those that have are stored.  Both return as above */
ngx_int_t ngx_rt_pubsub_push(ngx_rt_feed_t *feed, const ngx_rt_push_t *push);
ngx_int_t ngx_rt_pubsub_flush(ngx_rt_feed_t *feed);

/* how a message came */
#define NGX_RT_BY_NAME            0
#define NGX_RT_BY_PATTERN         1
#define NGX_RT_BY_SNAPSHOT        2

/* its payload, which has no data when it was too large; what is no message is
 * dropped and counted.  Returns as above */
ngx_int_t ngx_rt_pubsub_message(ngx_rt_feed_t *feed, const ngx_str_t *name,
    const ngx_str_t *payload, ngx_uint_t by);

/* NGX_OK, also when it was dropped; NGX_DECLINED: no such channel; NGX_ABORT */
ngx_int_t ngx_rt_pubsub_store(ngx_rt_feed_t *feed, const ngx_str_t *name,
    ngx_rt_message_t *msg, ngx_uint_t by);

/* counts and tells; name: NULL when it can't be shown */
void ngx_rt_pubsub_drop(ngx_rt_feed_t *feed, const ngx_str_t *name,
    const char *why, ngx_uint_t by);

#endif /* _NGX_RT_PUBSUB_H_INCLUDED_ */
