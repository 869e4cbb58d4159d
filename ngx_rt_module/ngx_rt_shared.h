
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layer 1, what all workers share: one zone per hub, holding a table of
 * channels and a log of messages.  Knows no events and no HTTP.
 *
 *   zone    | head | slots | entries | buckets | rates | log ............ |
 *
 * One lock, the zone's slab mutex, taken by whoever writes; the master opens
 * it again when its holder is killed, and the next writer repairs what was
 * left half-done.  Readers take no lock: a table entry is read under its
 * sequence lock, a record of the log is copied and then checked for not
 * having been overwritten meanwhile.
 *
 * The log is a ring addressed by absolute 64-bit offsets that only grow; byte
 * "offset" lives at offset % size.
 *
 *          tail             head      limit
 *     ......|================|~~~~~~~~~|......
 *           | readable       | being   | free
 *                              written
 *
 * The writer reserves by moving limit, fills in, commits by moving head.
 * limit never goes back: after a crash it may stay ahead of head, and what is
 * between them is simply written again.  A record [off, off + size) is intact
 * for a reader as long as, after having copied it, limit <= off + log size;
 * so what the tail has passed can still be read for a while.  A record never
 * wraps: a pad record fills the end of the ring.
 *
 * The retained messages of a channel are a list linked by offsets, oldest to
 * newest, without holes.  Before the tail passes a record that is still
 * promised (a channel's name, its latest message, its history) the writer
 * copies it to the head, so nobody's latest message is lost to a busy
 * neighbour and nothing fragments.  When what is promised grows too large
 * for that: oldest history goes first, then the channels unused longest.
 */


#ifndef _NGX_RT_SHARED_H_INCLUDED_
#define _NGX_RT_SHARED_H_INCLUDED_


#include <ngx_rt_base.h>


#define NGX_RT_NONE               0         /* no offset, no index */

/* types of records */
#define NGX_RT_PAD                1         /* nothing; header may be 8 bytes */
#define NGX_RT_NAME               2         /* data: name of a channel */
#define NGX_RT_MESSAGE            3         /* data: event, then payload */
#define NGX_RT_CONFIRM            4         /* subscription live from seq on */
#define NGX_RT_EVICT              5         /* the channel left the table;
                                               data: its name */
#define NGX_RT_DROP               6         /* a message was too large: gap */
#define NGX_RT_SETTLED            7         /* no snapshot is owed any more */

/* flags of records */
#define NGX_RT_LIVE               0x01      /* promised, as far as known */
#define NGX_RT_COPY               0x02      /* carried forward: not news */
#define NGX_RT_BROKEN             0x04      /* CONFIRM after a lost feed */
#define NGX_RT_AFTER              0x08      /* MESSAGE, the first after such:
                                               others may be missing before */

/* flags of entries */
#define NGX_RT_USED               0x01      /* the entry holds a channel */
#define NGX_RT_WANTED             0x02      /* somebody asked for it */
#define NGX_RT_QUEUED             0x04      /* in the feeder's want queue */
#define NGX_RT_OWED               0x08      /* confirmed, its snapshot is yet to
                                               come (ngx_rt_owed.c) */
#define NGX_RT_SURE               0x10      /* the snapshot was the latest */

/* states of a feed */
#define NGX_RT_FEED_EMBEDDED      0
#define NGX_RT_FEED_CONNECTING    1
#define NGX_RT_FEED_LIVE          2
#define NGX_RT_FEED_DOWN          3

#define NGX_RT_FEED_SERVER_LEN    64

/* phases of a hand-over, see ngx_rt_handover.c */
#define NGX_RT_HANDOVER_NONE      0
#define NGX_RT_HANDOVER_OFFERED   1
#define NGX_RT_HANDOVER_CLAIMED   2
#define NGX_RT_HANDOVER_REFUSED   3

/* why a stream may miss messages, for rt.gap */
#define NGX_RT_GAP_CURSOR         "unknown cursor"
#define NGX_RT_GAP_EXPIRED        "expired"
#define NGX_RT_GAP_FEED           "feed"
#define NGX_RT_GAP_EVICTED        "evicted"
#define NGX_RT_GAP_TOO_LARGE      "message too large"
#define NGX_RT_GAP_SLOW           "slow client"


/*
 * A record of the log: this header, then `size - sizeof(header)` bytes of
 * data and padding to 8.  A PAD may be 8 bytes in all: of it only size, type
 * and flags are there.  Written by the holder of the lock between reserve and
 * commit; afterwards only flags, prev and next change, under the lock and
 * with 8-byte or 1-byte atomic stores, so a reader may see them old or new
 * but never torn.  A writer that is killed before the commit leaves nothing:
 * what is beyond head is written again.
 *
 * The data is the event, directly followed by the payload.  LIVE is set on
 * NAME and MESSAGE and cleared when the record is given up or carried
 * forward; but it is a hint only: a record is promised when its entry still
 * has that gen and leads to this very copy (ngx_rt_retain.c).
 */

typedef struct {
    uint32_t                      size;     /* all of it, a multiple of 8 */
    uint8_t                       type;
    uint8_t                       flags;
    uint8_t                       event_len;
    uint8_t                       spare;
    uint32_t                      entry;    /* index of the channel */
    uint32_t                      gen;      /* of the entry then */
    uint64_t                      seq;
    uint64_t                      prev;     /* older message, offset */
    uint64_t                      next;     /* newer message, offset */
    uint32_t                      data_len; /* without the event */
    uint32_t                      time;     /* publish, ms, the low bits: ages
                                               of up to 24 days */
    u_char                        tag[NGX_RT_TAG_LEN];
} ngx_rt_record_sh_t;


/* identity of a channel in a zone: 128-bit hash of its name under the zone's
 * random key; two names with one identity do not occur */

typedef struct {
    uint64_t                      h[2];
} ngx_rt_key_t;


/*
 * A channel.  lock is a sequence lock: odd while the holder of the mutex
 * changes anything in the entry or in the list of its messages.  All other
 * fields are written under the mutex, but for `used`, which any worker may
 * stamp, and `viewers`, which any may change, at any time.  A killed writer
 * leaves lock odd: the next writer then takes for the list what can be
 * reached from latest by prev, all of it in practice, and gives the channel a
 * fresh version, so that whoever holds an older one is answered in full.
 *
 * version      seq of the latest change: publish, confirm, drop, creation
 * msg_seq      seq of the latest message, 0 if none is retained
 * confirm_seq  the subscription has been live since: of what came after it,
 *              only what floor tells of is not retained
 * floor        all messages up to it are dropped (too old, too many, no room,
 *              too large), all that are retained have a larger seq
 *
 * So a resume from cursor c is complete if c >= floor and c >= confirm_seq.
 *
 * Of a stream, tag is the place up to which the feed has read it: the id of
 * the latest entry, also of one that was too large to be kept.  All that is
 * in the stream between the oldest message retained and this is retained, so
 * a resume from the id of one of these is complete.
 *
 * 128 bytes, two cache lines which a reader takes as one.
 */

typedef struct {
    uint32_t                      lock;
    uint32_t                      link;     /* next in bucket or free list */
    ngx_rt_key_t                  key;
    uint32_t                      gen;      /* grows when the entry is reused */
    uint32_t                      flags;
    uint64_t                      version;  /* seq of the latest change */
    uint64_t                      latest;   /* offset of the latest message */
    uint32_t                      session;  /* confirmed in this feed session */
    uint32_t                      used;     /* seconds since 1970 */
    u_char                        tag[NGX_RT_TAG_LEN];  /* of latest, or the
                                               place in the stream */

    uint64_t                      msg_seq;  /* seq of latest, 0 if none */
    uint64_t                      confirm_seq;  /* continuous from here on */
    uint64_t                      floor;    /* messages up to it are dropped */
    uint64_t                      oldest;   /* offset of the oldest message */
    uint64_t                      name;     /* offset of the NAME record */
    uint32_t                      count;    /* messages retained */
    uint32_t                      words;    /* of their records, 8 bytes */
    uint32_t                      want;     /* next in the want queue */
    uint32_t                      viewers;  /* streams, ngx_rt_viewers.c */
} ngx_rt_entry_sh_t;

/*
 * How often a channel changes, and how many poll it: one line for each entry,
 * of the same index.  What it means is told in ngx_rt_rate.c.
 *
 * changed, mean, mark and begun are written by the holder of the mutex; the
 * rest by any worker that answers a poll, without a lock, by atomic additions.
 * All of it is read without a lock, each field for itself.  None of it decides
 * about right or wrong, only about advice: a worker that is killed between two
 * fields leaves an estimate that is off by some polls, and right again within
 * a minute; a poll under way while the entry is given to another channel may
 * be counted there.  Nothing is to be repaired.
 */

typedef struct {
    /* sums that halve every 14 s, by whoever moves the stamp */
    uint32_t                      stamp;    /* ticks: 22 bits when, 10 how
                                               long it has been counted */
    uint32_t                      sum;      /* 1/128 s: own gaps of polls */
    uint32_t                      own;      /* 1/1024: polls that had one */
    uint32_t                      other;    /* 1/1024: polls that had none */

    /* the roll call */
    uint64_t                      calls;    /* called, returned, done */
    int64_t                       span;     /* ms, returns less calls */
    uint64_t                      result;   /* of the last one: pollers, ms */
    uint32_t                      mark;     /* who has seen that was called */
    uint16_t                      begun;    /* ticks */
    uint16_t                      told;     /* 1/16 s: interval advised last,
                                               the lowest bit: sse */

    uint32_t                      changed;  /* ms, low bits: last change */
    uint32_t                      mean;     /* ms of a gap, and 4 bits: how
                                               many are in it */
    uint32_t                      held;     /* polls that wait, as viewers */
    uint32_t                      lately;   /* ticks 12 bits, 20 bits: polls
                                               that waited then */
} ngx_rt_rate_sh_t;

_Static_assert(sizeof(ngx_rt_rate_sh_t) == 64, "ngx_rt_rate_sh_t");
_Static_assert(sizeof(ngx_rt_record_sh_t) == 64, "ngx_rt_record_sh_t");
_Static_assert(sizeof(ngx_rt_entry_sh_t) == 128, "ngx_rt_entry_sh_t");


/*
 * What one worker counts, written by it alone with relaxed atomic stores,
 * read by whoever shows the status.  A worker that takes over a slot goes on
 * with its totals and zeroes its gauges, so totals survive crashes and gauges
 * of the dead are never counted: a reader skips gauges of a slot whose pid
 * is gone.  256 bytes, so that no two workers share a line.
 */

typedef struct {
    uint32_t                      pid;      /* 0: never used */
    uint32_t                      pending;  /* wake-up written, not yet read */
    uint64_t                      polls_hit;
    uint64_t                      polls_miss;
    uint64_t                      gate_hit;
    uint64_t                      gate_miss;
    uint64_t                      gate_bypass;
    uint64_t                      open[2];      /* gauge: SSE, WebSocket */
    uint64_t                      opened[2];
    uint64_t                      delivered[2];
    uint64_t                      received[2];
    uint64_t                      slow_closed[2];
    uint32_t                      quitting; /* 1: asked to quit */
    uint32_t                      held;     /* gauge: polls that wait */
    uint64_t                      spare[15];
} ngx_rt_slot_sh_t;

_Static_assert(sizeof(ngx_rt_slot_sh_t) == 256, "ngx_rt_slot_sh_t");


/*
 * The feed as all workers see it, and the lease of the feeder.  Written under
 * the mutex by the worker whose term it is; all but server is read without a
 * lock too, each field for itself.  A feeder killed in between leaves its
 * term: it is taken over at once when the pid is gone, else after
 * NGX_RT_LEASE_DEAD ms.
 */

typedef struct {
    uint64_t                      term;     /* grows with each new feeder */
    uint32_t                      pid;      /* 0: the lease is free */
    uint32_t                      slot;     /* of that worker, to wake it */
    uint64_t                      renewed;  /* ms */
    uint32_t                      session;  /* grows with each (re)connect */
    uint32_t                      state;    /* NGX_RT_FEED_* */
    uint32_t                      want;     /* queue of entries to subscribe */
    uint32_t                      spare;
    uint64_t                      since;    /* ms, when state began */
    uint64_t                      lost;     /* ms, when it was last live; 0:
                                               never or live now */
    uint64_t                      reconnects;
    uint64_t                      gaps;     /* CONFIRM with BROKEN, DROP */
    uint64_t                      lag;      /* us, of the last PING */
    u_char                        server[NGX_RT_FEED_SERVER_LEN];  /* text,0 */
} ngx_rt_feed_sh_t;


/*
 * A term on its way from a feeder that quits to its heir.  Written under the
 * mutex by these two; phase is read without it as a hint.  It counts only
 * while term is that of the feed and the feeder lives, so a crash of either
 * leaves nothing to put right.
 */

typedef struct {
    uint64_t                      term;     /* that is handed over */
    uint32_t                      phase;    /* NGX_RT_HANDOVER_* */
    uint32_t                      config;   /* digest of where the feed comes
                                               from: the heir's is the same */
    uint32_t                      pid;      /* the heir; 0: none yet */
    uint32_t                      slot;     /* of the heir */
    uint32_t                      claim;    /* number of the heir: a marker of
                                               another one is no cut */
} ngx_rt_handover_sh_t;


/*
 * The head of a zone.  magic, layout, sizes, epoch and key are set once at
 * creation, before anybody else sees the zone.  All else is written by the
 * holder of the mutex, but for dropped and viewers, which any worker adds to;
 * readers without it take single fields by atomic loads.  seq is stored after
 * the change it numbers is complete: whatever a reader finds later has a
 * larger seq, or the same.  writing is 1 while anything is being changed; a
 * killed writer leaves it 1, and the next one repairs (ngx_rt_recover.c): odd
 * entries are made whole from their messages, chains, queues and sums are
 * built anew from the entries and the log.
 *
 * Four cache lines: what never changes, what each publish changes, counters,
 * the feed.
 */

typedef struct {
    uint64_t                      magic;
    uint32_t                      layout;
    uint32_t                      nslots;
    uint32_t                      nentries;     /* index 0 is not used */
    uint32_t                      nbuckets;     /* power of two */
    uint64_t                      size;         /* of the whole zone */
    uint64_t                      log_size;     /* multiple of 8 */
    uint64_t                      epoch;        /* random, 48 bits */
    u_char                        key[16];      /* random */

    uint64_t                      seq;
    uint32_t                      writing;
    uint32_t                      free;         /* list of free entries */
    uint32_t                      channels;
    uint32_t                      hand;         /* where eviction looks next */

    uint64_t                      head;
    uint64_t                      limit;
    uint64_t                      tail;
    uint64_t                      pinned;       /* bytes of names, latest */
    uint64_t                      history;      /* bytes of other messages */

    uint64_t                      evicted;      /* channels, for memory */
    uint64_t                      expired;      /* channels, inactive */
    uint64_t                      trimmed;      /* messages, for memory */
    uint64_t                      repaired;
    uint64_t                      messages;
    uint64_t                      bytes;
    uint64_t                      dropped;      /* too large, bad, no room */
    uint32_t                      top;          /* entries from here on were
                                                   never used */
    uint32_t                      viewers;      /* epoch of entries' counts */

    ngx_rt_feed_sh_t              feed;

    /* seq of when a channel last left the table, or a repair may have lost
     * one: a channel that is made later has lost no message after it.  Stored
     * before the channel goes, by the holder of the mutex */
    uint64_t                      forgotten;

    ngx_rt_handover_sh_t          handover;

    /* of workers: how often a configuration that names the zone was taken.
     * Written by the master alone, before their first one is forked */
    uint32_t                      generation;
} ngx_rt_zone_sh_t;

_Static_assert(offsetof(ngx_rt_zone_sh_t, seq) == 64, "ngx_rt_zone_sh_t");
_Static_assert(offsetof(ngx_rt_zone_sh_t, evicted) == 128, "ngx_rt_zone_sh_t");
_Static_assert(offsetof(ngx_rt_zone_sh_t, feed) == 192, "ngx_rt_zone_sh_t");


/* a worker's handle to a zone; private to the process */

typedef struct {
    ngx_rt_zone_sh_t             *sh;
    ngx_rt_slot_sh_t             *slots;
    uint32_t                     *buckets;
    ngx_rt_entry_sh_t            *entries;
    ngx_rt_rate_sh_t             *rates;
    u_char                       *log;
    ngx_shmtx_t                  *mutex;

    /* limits, from the configuration */
    ngx_uint_t                    history;      /* messages per channel, >= 1 */
    uint64_t                      history_time; /* ms, 0: no limit */
    size_t                        message_max;  /* payload bytes */
    unsigned                      embedded:1;   /* channels confirmed at once */
    unsigned                      snapshot:1;   /* owed once confirmed */
    unsigned                      stream:1;     /* tags are ids of entries */
} ngx_rt_store_t;


/* a channel as read at one moment */

typedef struct {
    uint32_t                      entry;
    uint32_t                      gen;
    uint64_t                      version;
    uint64_t                      msg_seq;      /* 0: nothing known */
    uint64_t                      confirm_seq;
    uint64_t                      floor;
    uint64_t                      latest;
    uint32_t                      count;
    unsigned                      confirmed:1;  /* in the current session */
    unsigned                      wanted:1;     /* the feeder knows of it */
    unsigned                      owed:1;       /* NGX_RT_OWED */
    unsigned                      sure:1;       /* NGX_RT_SURE */
    unsigned                      known:1;      /* confirmed in any session */
    u_char                        tag[NGX_RT_TAG_LEN];
} ngx_rt_view_t;

/* 1: the latest message is known to be the newest there is (no continuity
 * was lost since it came, or the snapshot was the same), so equal digests
 * mean equal content */
#define ngx_rt_view_certain(v)                                                \
    ((v)->confirmed && ((v)->msg_seq > (v)->confirm_seq || (v)->sure))

/* 1: Redis has not said yet what the snapshot is, and nothing newer came */
#define ngx_rt_view_owed(v)                                                   \
    ((v)->owed && (v)->msg_seq <= (v)->confirm_seq                            \
     && (v)->floor <= (v)->confirm_seq)


/* ngx_rt_log.c: the ring.  "locked": the caller holds the mutex */

/* the largest record that a log takes: an eighth of it */
#define ngx_rt_log_max(sh)        (((sh)->log_size / 8) & ~(uint64_t) 7)

/* the largest payload that always fits, whatever its event's name */
#define ngx_rt_log_payload_max(sh)                                            \
    (ngx_rt_log_max(sh) - sizeof(ngx_rt_record_sh_t) - NGX_RT_EVENT_MAX)

/*
 * Fields of shared structs that somebody reads or writes without the lock.
 * The holder of the lock may read what only holders write as it is.
 */
#define ngx_rt_get(field)         __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define ngx_rt_set(field, value)                                              \
    __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)
#define ngx_rt_add(field, n)      ngx_rt_set(field, (field) + (n))

/*
 * Copies the header of the record at off.  NGX_OK; NGX_DONE at the head;
 * NGX_DECLINED: overwritten, or no offset of a record.  Lock-free.  For a PAD
 * only size, type and flags are set.
 */
ngx_int_t ngx_rt_log_peek(ngx_rt_store_t *st, uint64_t off,
    ngx_rt_record_sh_t *rec);

/*
 * Copies event and data of a record that peek returned into dst, which has
 * room for rec->event_len + rec->data_len.  NGX_OK, or NGX_DECLINED:
 * overwritten meanwhile, dst is garbage.  Lock-free.
 */
ngx_int_t ngx_rt_log_body(ngx_rt_store_t *st, uint64_t off,
    const ngx_rt_record_sh_t *rec, u_char *dst);


/* ngx_rt_table.c: the channels */

/* the identity of a channel in this zone; needs no lock */
void ngx_rt_table_key(ngx_rt_store_t *st, const ngx_str_t *name,
    ngx_rt_key_t *key);

/* a look for it comes soon: what it begins with is fetched from memory */
void ngx_rt_table_ahead(ngx_rt_store_t *st, const ngx_rt_key_t *key);

/*
 * Reads the channel without a lock.  NGX_OK; NGX_DECLINED: not there, or it
 * kept changing (the caller then takes the slow way, ngx_rt_store_touch).
 * Stamps the entry as used, once a second at most.  now: seconds since 1970,
 * as in all functions that take a time_t.
 *
 * Whoever is to say "nothing changed" asks ngx_rt_feed_fresh() first and
 * looks then: in the other order the feed may be lost and found again in
 * between, and the view be of before that.
 */
ngx_int_t ngx_rt_table_look(ngx_rt_store_t *st, const ngx_rt_key_t *key,
    time_t now, ngx_rt_view_t *view);

/* the same by index; NGX_DECLINED also when the entry has another gen, or is
 * just being changed, by a writer that may be stopped in that: see
 * ngx_rt_store_view() */
ngx_int_t ngx_rt_table_view(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    ngx_rt_view_t *view);


/* ngx_rt_store.c: the zone, and all that changes it */

/* the least size of a shared zone, in bytes of the block given to create;
 * message_max: so that messages of that size fit, 0: so that it works */
size_t ngx_rt_store_min_size(ngx_uint_t nslots, size_t message_max);

/*
 * Lays out a new zone in size bytes at mem (aligned to 64, zeroed or not).
 * random: 32 bytes from the system's generator, for epoch and key.
 * NGX_ERROR: too small.  Sets the pointers of *st; mutex and limits are the
 * caller's to set, `embedded` of them before: the feed begins in the state
 * EMBEDDED or CONNECTING by it.
 */
ngx_int_t ngx_rt_store_create(ngx_rt_store_t *st, void *mem, size_t size,
    ngx_uint_t nslots, const u_char random[32]);

/* sets the pointers of *st to an existing zone, read-only on it.
 * NGX_DECLINED: other magic, layout or size */
ngx_int_t ngx_rt_store_attach(ngx_rt_store_t *st, void *mem, size_t size);

/* take and release the lock; taking it repairs what a killed writer left.
 * Under it all may be read, and nothing be written but by layer 1 */
void ngx_rt_store_lock(ngx_rt_store_t *st);
void ngx_rt_store_unlock(ngx_rt_store_t *st);

#define ngx_rt_store_seq(st)                                                  \
    __atomic_load_n(&(st)->sh->seq, __ATOMIC_ACQUIRE)

#define ngx_rt_store_head(st)                                                 \
    __atomic_load_n(&(st)->sh->head, __ATOMIC_ACQUIRE)

/*
 * Finds or makes the channel, marks it wanted, stamps it.  A channel that
 * the feeder has not been asked for yet is put into the want queue
 * (embedded: confirmed at once).  *queued is set to 1 when the caller must
 * wake the feeder.  name is valid (ngx_rt_channel_check).
 * NGX_OK; NGX_DECLINED: no room, even after evicting: try later.
 */
ngx_int_t ngx_rt_store_touch(ngx_rt_store_t *st, const ngx_str_t *name,
    time_t now, ngx_rt_view_t *view, ngx_uint_t *queued);

/*
 * Takes a message.  term: the feeder's, 0 in an embedded hub.  create: make
 * the channel if it isn't there.  now is in milliseconds since 1970.  tag: by
 * ngx_rt_message_digest(), then zeros; or the id of a stream's entry.
 *
 * NGX_OK        stored, *seq is its number
 * NGX_DONE      an entry of a stream that is not newer than the channel's
 *               place: nothing was written
 * NGX_DECLINED  !create and no such channel
 * NGX_ABORT     the term is over; nothing was written
 * NGX_ERROR     over message_max or the log's own limit: counted as dropped;
 *               where the channel exists a DROP record and a fresh version
 *               and floor make every reader see a gap, and what was retained
 *               is dropped too: it is not the latest any more.  *seq is that
 *               of the DROP, 0 where there is none
 *
 * Never fails for lack of memory: history and unused channels make room.
 */
ngx_int_t ngx_rt_store_publish(ngx_rt_store_t *st, uint64_t term,
    const ngx_str_t *name, const ngx_rt_message_t *msg,
    const u_char tag[NGX_RT_TAG_LEN], uint64_t now, ngx_uint_t create,
    uint64_t *seq);

/*
 * The subscription of a channel is live from now on in the current session:
 * a fresh version, confirm_seq and a CONFIRM record (with NGX_RT_BROKEN when
 * an earlier session had confirmed it).  What is retained stays, but is not
 * certain any more (ngx_rt_view_certain).  Within a session a second confirm
 * changes nothing.  NGX_OK, NGX_DECLINED: no such channel, NGX_ABORT: term.
 */
ngx_int_t ngx_rt_store_confirm(ngx_rt_store_t *st, uint64_t term,
    const ngx_str_t *name);

/*
 * The same of a stream: the feed stands at tag, all of the stream up to it is
 * stored, as far as it is to be kept, and what comes will be.
 *
 * A channel that was never confirmed gets tag as its place, a fresh version
 * and a CONFIRM record.  One that was is confirmed in this session and nothing
 * else, for nothing was missed, whatever tag is; but if broken is 1 entries
 * may be missing, or the stream is not the same any more: what was retained
 * is dropped, tag is the place, also if it is before the old one, and CONFIRM
 * has BROKEN.  Records of both carry tag.
 */
ngx_int_t ngx_rt_store_follow(ngx_rt_store_t *st, uint64_t term,
    const ngx_str_t *name, const u_char tag[NGX_RT_TAG_LEN],
    ngx_uint_t broken);

/* the stream can't be followed for now: nothing is certain of the channel
 * until the next follow.  NGX_OK, NGX_DECLINED, NGX_ABORT */
ngx_int_t ngx_rt_store_unfollow(ngx_rt_store_t *st, uint64_t term,
    const ngx_str_t *name);

/*
 * The feeder's work list: takes one wanted channel off the queue, its name
 * into buf (NGX_RT_CHANNEL_MAX bytes), *len.  In no particular order; a
 * channel may come again although it is subscribed (it was evicted and made
 * anew): confirm it then.  place, unless NULL: where the feed stands in the
 * stream, known only if the channel was ever confirmed.  NGX_OK, NGX_DONE:
 * empty, NGX_ABORT: term.
 */
ngx_int_t ngx_rt_store_want(ngx_rt_store_t *st, uint64_t term, u_char *buf,
    size_t *len, ngx_rt_place_t *place);

/* puts every channel of the table into the want queue, for a new connection
 * or a new feeder; or only those that are not confirmed in this session.
 * The number of channels queued, or NGX_ABORT */
ngx_int_t ngx_rt_store_want_all(ngx_rt_store_t *st, uint64_t term,
    ngx_uint_t unconfirmed);

/* the next channel of the table after *iter (begin with 0), whoever feeds:
 * its name into buf.  NGX_OK, NGX_DONE: that was all */
ngx_int_t ngx_rt_store_walk(ngx_rt_store_t *st, uint32_t *iter, u_char *buf,
    size_t *len);

/*
 * Forgets one channel unused for longer than inactive seconds, looking at up
 * to *steps entries from *iter on (start with 0; it wraps), its name into buf.
 * NGX_OK: one was forgotten (call again), NGX_DONE: none within the steps,
 * NGX_ABORT: term.  An EVICT record tells the workers.  An embedded hub
 * passes term 0.
 */
ngx_int_t ngx_rt_store_expire(ngx_rt_store_t *st, uint64_t term,
    uint32_t *iter, ngx_uint_t *steps, time_t now, time_t inactive,
    u_char *buf, size_t *len);

/* the name of the channel into buf; NGX_OK, or NGX_DECLINED: another gen.
 * Takes the lock only when the name is being moved just then */
ngx_int_t ngx_rt_store_name(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    u_char *buf, size_t *len);

/* the channel by index; NGX_DECLINED: the entry has another gen.  Takes the
 * lock only when the entry is being changed just then */
ngx_int_t ngx_rt_store_view(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    ngx_rt_view_t *view);

/*
 * The retained messages of a channel with after < seq <= upto, oldest first:
 * their offsets and seqs into the arrays, at most max (the newest of them).
 * Returns how many, or NGX_DECLINED when the entry has another gen.  Takes
 * the lock.  The records may be overwritten by the time they are copied:
 * then ask again.
 */
ngx_int_t ngx_rt_store_history(ngx_rt_store_t *st, uint32_t entry,
    uint32_t gen, uint64_t after, uint64_t upto, uint64_t *offs,
    uint64_t *seqs, ngx_uint_t max);

/*
 * Of a stream: where in the order of seq a reader stands who has all up to the
 * id tag.  Takes the lock.
 *
 * NGX_OK        tag is the place, or of a message that is retained or the id
 *               just before: what it misses has a seq larger than *seq
 * NGX_DECLINED  it may miss entries that are not retained any more
 * NGX_AGAIN     tag is newer than the channel's place
 * NGX_ABORT     the entry has another gen, or was never confirmed
 */
ngx_int_t ngx_rt_store_after(ngx_rt_store_t *st, uint32_t entry,
    uint32_t gen, const u_char tag[NGX_RT_TAG_LEN], uint64_t *seq);

/* of a stream's channel: the ids of what is there */

typedef struct {
    u_char                        place[NGX_RT_TAG_LEN];
    u_char                        oldest[NGX_RT_TAG_LEN];
    u_char                        latest[NGX_RT_TAG_LEN];
    uint64_t                      floor;
    uint32_t                      count;
} ngx_rt_span_t;

/* Of a stream at one moment: place, ids of the oldest and the latest message
 * retained if count is not 0, and the floor: all older records of the log tell
 * of what is over.  Takes the lock.  NGX_OK, or NGX_ABORT as above */
ngx_int_t ngx_rt_store_span(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    ngx_rt_span_t *span);

/*
 * Finds the oldest retained message with this digest: *seq.  NGX_OK or
 * NGX_DECLINED.  Takes the lock.
 */
ngx_int_t ngx_rt_store_find(ngx_rt_store_t *st, uint32_t entry, uint32_t gen,
    const u_char digest[NGX_RT_DIGEST_LEN], uint64_t *seq);

/*
 * ngx_rt_owed.c: channels whose snapshot is yet to be stored.  A confirm
 * makes it owed where st->snapshot is set; a message that comes first, or is
 * dropped, settles it by its seq.  Of a channel that is in the session of now.
 */

/* the view of a channel by name.  NGX_OK: its snapshot is owed; NGX_DECLINED:
 * it is not; NGX_ABORT: term */
ngx_int_t ngx_rt_owed_look(ngx_rt_store_t *st, uint64_t term,
    const ngx_str_t *name, ngx_rt_view_t *view);

/* the next one after *iter (begin with 0): its view, its name into buf.
 * NGX_OK; NGX_AGAIN: none within *steps entries, which are taken off it;
 * NGX_DONE: that was all; NGX_ABORT: term */
ngx_int_t ngx_rt_owed_next(ngx_rt_store_t *st, uint64_t term, uint32_t *iter,
    ngx_uint_t *steps, ngx_rt_view_t *view, u_char *buf, size_t *len);

/* Redis was asked, and there was nothing to store; sure: for it is the same as
 * the latest message.  A SETTLED record tells the workers.  NGX_OK, also when
 * the channel is gone; NGX_ABORT: term */
ngx_int_t ngx_rt_owed_settle(ngx_rt_store_t *st, uint64_t term,
    const ngx_rt_view_t *view, ngx_uint_t sure);

/* counts a message that never reached publish */
void ngx_rt_store_dropped(ngx_rt_store_t *st);

/* bytes of the zone in use: head, table entries in use, live records */
uint64_t ngx_rt_store_used(ngx_rt_store_t *st);


/* ngx_rt_viewers.c: how many streams of this node follow a channel.  Lock-free
 * and any worker's. */

/* what a worker has added to a channel's count; zeroed when it has none, and
 * when the channel's entry is another */

typedef struct {
    uint32_t                      epoch;
    uint32_t                      count;
} ngx_rt_viewers_t;

/* makes this worker's part of the count n; also without a change of n it must
 * be called every second, to add it again after somebody died */
void ngx_rt_viewers_set(ngx_rt_store_t *st, uint32_t index, uint32_t gen,
    ngx_rt_viewers_t *own, uint32_t n);

/* the same of a word like it */
void ngx_rt_viewers_word(ngx_rt_store_t *st, uint32_t *word, uint32_t index,
    uint32_t gen, ngx_rt_viewers_t *own, uint32_t n);

/* the word: epoch of counting, then this many bits for the streams */
#define NGX_RT_VIEWERS_BITS       20
#define NGX_RT_VIEWERS_EPOCHS     (1U << (32 - NGX_RT_VIEWERS_BITS))

#define ngx_rt_viewers_epoch(word)    ((word) >> NGX_RT_VIEWERS_BITS)

/* the epoch of now */
static ngx_inline uint32_t
ngx_rt_viewers_now(ngx_rt_store_t *st)
{
    return __atomic_load_n(&st->sh->viewers, __ATOMIC_ACQUIRE)
           % NGX_RT_VIEWERS_EPOCHS;
}

/* streams by a word: the epoch is in a line that each publish writes, and is
 * not looked at for none */
static ngx_inline uint32_t
ngx_rt_viewers_of(ngx_rt_store_t *st, uint32_t word)
{
    uint32_t  n;

    n = word & ((1U << NGX_RT_VIEWERS_BITS) - 1);

    return (n && ngx_rt_viewers_epoch(word) == ngx_rt_viewers_now(st)) ? n : 0;
}

/* how many, all workers'; 0 also for an index that is none */
static ngx_inline uint32_t
ngx_rt_viewers_get(ngx_rt_store_t *st, uint32_t index)
{
    uint32_t  word;

    if (index == NGX_RT_NONE || index >= st->sh->nentries) {
        return 0;
    }

    word = __atomic_load_n(&st->entries[index].viewers, __ATOMIC_ACQUIRE);

    return ngx_rt_viewers_of(st, word);
}

/* all begin to count anew */
void ngx_rt_viewers_recount(ngx_rt_store_t *st);

/* a worker is about to take this slot: counts anew if who had it was killed
 * with streams open */
void ngx_rt_viewers_taken(ngx_rt_store_t *st, ngx_rt_slot_sh_t *slot);

/* looks for killed workers whose slot nobody took; pid becomes 0 in it */
void ngx_rt_viewers_reap(ngx_rt_store_t *st);


/* ngx_rt_lease.c: who feeds, and how the feed is */

#define NGX_RT_LEASE_RENEW        500       /* ms */
#define NGX_RT_LEASE_DEAD         3000      /* ms */

/*
 * Takes the lease when it is free, its holder's pid is gone or it was not
 * renewed for NGX_RT_LEASE_DEAD ms.  now: monotonic ms, the same clock in
 * all workers.  NGX_OK with the new *term, or NGX_DECLINED.
 */
ngx_int_t ngx_rt_lease_take(ngx_rt_store_t *st, uint32_t slot, ngx_pid_t pid,
    uint64_t now, uint64_t *term);

/* NGX_OK, or NGX_ABORT: the term is over */
ngx_int_t ngx_rt_lease_renew(ngx_rt_store_t *st, uint64_t term, uint64_t now);

/* gives the lease back; harmless when the term is over */
void ngx_rt_lease_release(ngx_rt_store_t *st, uint64_t term);

/*
 * The feed's state changed.  Going to CONNECTING or DOWN from LIVE sets lost;
 * LIVE counts a reconnect when there was a LIVE before, and begins a new
 * session (all channels are unconfirmed by that alone).  server may be NULL.
 * NGX_OK or NGX_ABORT.
 */
ngx_int_t ngx_rt_feed_set(ngx_rt_store_t *st, uint64_t term,
    ngx_uint_t state, const ngx_str_t *server, uint64_t now);

/*
 * 1: answers may still say "nothing changed": embedded; or the feed is live
 * and its feeder renewed the lease lately; or it was lost less than stale ms
 * ago.  Lock-free.  Ask it before ngx_rt_table_look().
 */
ngx_uint_t ngx_rt_feed_fresh(ngx_rt_store_t *st, uint64_t now, uint64_t stale);


/*
 * ngx_rt_handover.c: a feeder that quits gives its term to another worker.
 * The session goes on, so nothing is a gap: the feeder sees to it that all
 * that came before the cut is stored, the heir that all that comes after is.
 */

/* term is to be had.  NGX_OK or NGX_ABORT: it is over */
ngx_int_t ngx_rt_handover_offer(ngx_rt_store_t *st, uint64_t term,
    uint32_t config);

/* nobody is to have it.  NGX_OK, or NGX_DECLINED: it has an heir */
ngx_int_t ngx_rt_handover_withdraw(ngx_rt_store_t *st, uint64_t term);

/* NGX_OK: this worker is the heir of *term, the one with this number.
 * NGX_DECLINED: nothing is offered, or another is.  NGX_ABORT: another
 * config; nobody will be, the feeder is to be woken */
ngx_int_t ngx_rt_handover_claim(ngx_rt_store_t *st, uint32_t slot,
    ngx_pid_t pid, uint32_t config, uint64_t *term, uint32_t *claim);

/* the heir is none any more.  phase: OFFERED, another one may try; REFUSED,
 * nobody can.  Harmless when it was none */
void ngx_rt_handover_give_up(ngx_rt_store_t *st, uint64_t term,
    ngx_pid_t pid, ngx_uint_t phase);

/* the feeder has stored all that is before the cut: the heir feeds from here
 * on, by term + 1.  NGX_OK with the heir's *slot, to wake it; NGX_DECLINED:
 * there is none (any more) with this number, the feeder goes on; NGX_ABORT:
 * term */
ngx_int_t ngx_rt_handover_cut(ngx_rt_store_t *st, uint64_t term,
    uint32_t claim, uint64_t now, uint32_t *slot);

/* to the heir.  NGX_OK: it feeds, by term + 1; NGX_AGAIN: not yet;
 * NGX_DECLINED: it is the heir no more */
ngx_int_t ngx_rt_handover_taken(ngx_rt_store_t *st, uint64_t term,
    ngx_pid_t pid);

/* to the feeder: how it stands.  The claim of a dead heir is cleared */
ngx_uint_t ngx_rt_handover_phase(ngx_rt_store_t *st, uint64_t term);

/* in the master: workers of a new generation are about to be forked; which */
uint32_t ngx_rt_handover_generation(ngx_rt_store_t *st);

/* 1: there is, or is to be, a later generation than that one */
ngx_uint_t ngx_rt_handover_coming(ngx_rt_store_t *st, uint32_t generation);

/* how many workers that are not to quit there are besides own */
ngx_uint_t ngx_rt_handover_heirs(ngx_rt_store_t *st, ngx_rt_slot_sh_t *own);

/* how many streams there are in all workers */
uint64_t ngx_rt_handover_streams(ngx_rt_store_t *st);


#endif /* _NGX_RT_SHARED_H_INCLUDED_ */
