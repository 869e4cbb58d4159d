
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Plain pub/sub: what the feeder remembers of the channels that messages come
 * for, by the names that Redis says: whether it is a channel's at all, its
 * identity in the zone, where it was there, how its digests begin, and the
 * pattern that it is taken from.  All but where it was could be worked out
 * anew, and is for a name that has lost its place to another one.
 *
 * Each name has one of two places, by a hash; so what is remembered is bounded.
 */


#include <ngx_rt_pubsub.h>
#include <sys/mman.h>


#define NGX_RT_NAMES_LEAST        256
#define NGX_RT_NAMES_MOST         32768

#define NGX_RT_NAMES_MULTIPLIER   0x9e3779b97f4a7c15ULL


static uint64_t ngx_rt_names_hash(uint64_t seed, const ngx_str_t *name);
static ngx_uint_t ngx_rt_names_is(ngx_rt_feed_name_t *known,
    const ngx_str_t *channel, uint64_t hash);
static ngx_int_t ngx_rt_names_make(ngx_rt_feed_t *feed);
static ngx_int_t ngx_rt_names_learn(ngx_rt_feed_t *feed,
    const ngx_str_t *channel, ngx_rt_feed_name_t *known);


/* where it is, or may be put: this one and the next */
#define ngx_rt_names_pair(feed, hash)                                         \
    (&(feed)->names[(hash) & ((feed)->nnames - 1) & ~(uint64_t) 1])


uint64_t
ngx_rt_names_expect(ngx_rt_feed_t *feed, const ngx_str_t *channel)
{
    u_char    *p;
    uint64_t   hash, seed;

    if (channel->len == 0 || channel->len > NGX_RT_NAMES_LEN
        || (feed->names == NULL && ngx_rt_names_make(feed) != NGX_OK))
    {
        return 0;
    }

    ngx_memcpy(&seed, feed->hub->store->sh->key, sizeof(uint64_t));

    hash = ngx_rt_names_hash(seed, channel);

    p = (u_char *) ngx_rt_names_pair(feed, hash);

    __builtin_prefetch(p);
    __builtin_prefetch(p + 64);
    __builtin_prefetch(p + 128);
    __builtin_prefetch(p + 192);

    return hash;
}


ngx_rt_feed_name_t *
ngx_rt_names_get(ngx_rt_feed_t *feed, const ngx_str_t *channel, uint64_t hash)
{
    ngx_rt_feed_name_t  *known;

    if (hash == 0 || feed->names == NULL) {
        known = &feed->batch->stranger;

        return (ngx_rt_names_learn(feed, channel, known) == NGX_OK) ? known
                                                                    : NULL;
    }

    known = ngx_rt_names_pair(feed, hash);

    if (ngx_rt_names_is(&known[0], channel, hash)) {
        return &known[0];
    }

    if (ngx_rt_names_is(&known[1], channel, hash)) {
        return &known[1];
    }

    /* one that is free, or else any */

    if (known->len && (known[1].len == 0 || (hash >> 63))) {
        known++;
    }

    known->len = 0;

    if (ngx_rt_names_learn(feed, channel, known) != NGX_OK) {
        return NULL;
    }

    known->hash = hash;
    known->len = (uint8_t) channel->len;
    ngx_memcpy(known->text, channel->data, channel->len);

    return known;
}


static ngx_uint_t
ngx_rt_names_is(ngx_rt_feed_name_t *known, const ngx_str_t *channel,
    uint64_t hash)
{
    return known->hash == hash && known->len == channel->len
           && ngx_memcmp(known->text, channel->data, channel->len) == 0;
}


void
ngx_rt_names_forget(ngx_rt_feed_t *feed)
{
    if (feed->names) {
        (void) munmap(feed->names, feed->nnames * sizeof(ngx_rt_feed_name_t));
        feed->names = NULL;
    }
}


/* not 0.  No better than it needs to be: names that meet push each other out,
 * which does no harm */

static uint64_t
ngx_rt_names_hash(uint64_t seed, const ngx_str_t *name)
{
    size_t         n;
    uint64_t       h, word;
    const u_char  *p;

    h = seed ^ name->len;
    p = name->data;

    for (n = name->len; n >= 8; n -= 8) {
        ngx_memcpy(&word, p, 8);
        p += 8;

        h = (h ^ word) * NGX_RT_NAMES_MULTIPLIER;
        h ^= h >> 32;
    }

    for (word = 0; n; n--) {
        word = word << 8 | *p++;
    }

    h = (h ^ word) * NGX_RT_NAMES_MULTIPLIER;
    h ^= h >> 32;
    h *= NGX_RT_NAMES_MULTIPLIER;

    h ^= h >> 32;

    return h ? h : 1;
}


/* pages that are not touched cost nothing */

static ngx_int_t
ngx_rt_names_make(ngx_rt_feed_t *feed)
{
    void        *map;
    ngx_uint_t   n;

    n = NGX_RT_NAMES_LEAST;

    while (n < feed->hub->store->sh->nentries && n < NGX_RT_NAMES_MOST) {
        n *= 2;
    }

    map = mmap(NULL, n * sizeof(ngx_rt_feed_name_t), PROT_READ|PROT_WRITE,
               MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);

    if (map == MAP_FAILED) {
        return NGX_ERROR;
    }

    feed->names = map;
    feed->nnames = n;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_names_learn(ngx_rt_feed_t *feed, const ngx_str_t *channel,
    ngx_rt_feed_name_t *known)
{
    ngx_str_t  name, *prefix;

    prefix = &feed->hub->conf->prefix;

    if (channel->data == NULL
        || channel->len < prefix->len
        || (prefix->len
            && ngx_memcmp(channel->data, prefix->data, prefix->len) != 0))
    {
        return NGX_DECLINED;
    }

    name.data = channel->data + prefix->len;
    name.len = channel->len - prefix->len;

    if (ngx_rt_channel_check(&name) != NGX_OK) {
        return NGX_DECLINED;
    }

    known->entry = NGX_RT_NONE;
    known->pattern = ngx_rt_pubsub_covered(feed, &name);

    ngx_rt_table_key(feed->hub->store, &name, &known->key);
    ngx_rt_digest_begin(&known->digest, &name);

    return NGX_OK;
}
