
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * For t/fuzz/store.c: layer 1, with a place to be killed at, or read at,
 * before every atomic store of it; a zone and an empty model of it.
 */


#include <ngx_rt_shared.h>
#include <setjmp.h>
#include <signal.h>


static void step(void);
static int alive(pid_t pid);

#define __atomic_store_n(p, v, order)                                         \
    (step(), __atomic_store_n(p, v, order))

#define kill(pid, sig)            alive(pid)

#include "../../ngx_rt_module/ngx_rt_hash.c"
#include "../../ngx_rt_module/ngx_rt_sid.c"
#include "../../ngx_rt_module/ngx_rt_message.c"
#include "../../ngx_rt_module/ngx_rt_log.c"
#include "../../ngx_rt_module/ngx_rt_retain.c"
#include "../../ngx_rt_module/ngx_rt_table.c"
#include "../../ngx_rt_module/ngx_rt_recover.c"
#include "../../ngx_rt_module/ngx_rt_store.c"
#include "../../ngx_rt_module/ngx_rt_post.c"
#include "../../ngx_rt_module/ngx_rt_viewers.c"
#include "../../ngx_rt_module/ngx_rt_rate.c"
#include "../../ngx_rt_module/ngx_rt_query.c"
#include "../../ngx_rt_module/ngx_rt_want.c"
#include "../../ngx_rt_module/ngx_rt_lease.c"

#undef __atomic_store_n


#define CHANNELS                  24
#define MESSAGES                  3000
#define NOISE                     (32 * 1024)
#define PID                       100       /* odd ones are dead */

#define check(right)                                                          \
    ((right) ? (void) 0                                                       \
             : (fprintf(stderr, __FILE__ ":%d: " #right "\n", __LINE__),     \
                abort()))


/* what was published */

typedef struct {
    uint64_t        seq;
    uint64_t        time;
    uint32_t        len;
    uint8_t         channel;
    uint8_t         kind;
    uint8_t         event_len;
} msg_t;


/* a channel as it should be; list: what came since it was made and is kept,
 * as far as is known, oldest first */

typedef struct {
    u_char          name_data[NGX_RT_CHANNEL_MAX];
    ngx_str_t       name;
    ngx_rt_key_t    key;

    unsigned        there:1;
    unsigned        confirmed:1;
    unsigned        asked:1;        /* by a touch */
    unsigned        wanted:1;       /* the feeder is to be told of it */
    unsigned        evicted:1;      /* the log has told so in this step */
    uint32_t        entry;
    uint32_t        gen;
    uint64_t        floor;
    uint64_t        version;
    uint64_t        confirm_seq;
    uint64_t        lost;           /* the last message before this step */
    uint32_t        n;
    uint16_t        list[MESSAGES];

    /* what a client was told last */
    uint64_t        told;
    uint64_t        told_seq;
} channel_t;


/* what is being done, and what the log has told of it so far */

typedef struct {
    int             op;
    uint32_t        channel;        /* CHANNELS: none */
    msg_t           msg;
    uint64_t        named;          /* seqs of records */
    uint64_t        forgotten;      /* the last one before that */
    uint64_t        published;
    uint64_t        confirmed;
    uint64_t        dropped;
} pending_t;


enum {
    PUBLISH, TOUCH, CONFIRM, EXPIRE, WANT, WANT_ALL, LEASE, FEED, OTHER
};


/* sums that the zone keeps */

typedef struct {
    uint64_t        evicted, expired, trimmed, messages, bytes, dropped;
    uint64_t        gaps, seq, pinned, history, channels;
} sums_t;


static u_char          noise[NOISE + 4096];
static channel_t       channels[CHANNELS];
static msg_t           messages[MESSAGES];
static uint32_t        nmessages;

static u_char         *zone;
static size_t          zone_size;
static ngx_rt_store_t  store, *st = &store;
static ngx_shmtx_t     mutex;
static ngx_shmtx_sh_t  mutex_sh;

static const u_char   *in, *last;
static uint64_t        now;
static uint64_t        term;            /* as the feeder knows it */
static uint64_t        session;
static uint64_t        renewed, lost;
static uint32_t        pid, live;
static uint64_t        forgotten;
static uint32_t        iter;            /* of expire */
static unsigned        damaged;         /* some writer was killed */

/* who follows the log at once, and who does so now and then */
static uint64_t        pos, pos_seq, pos_told;
static uint64_t        lazy;
static uint32_t        lazy_next;

static pending_t       pending;
static sums_t          before;

static unsigned        armed, reading;
static unsigned long   crash_at, crash_again, read_at, read_every, steps;
static jmp_buf         jump;

static void follow(void);
static void look(channel_t *c);


static unsigned
u8(void)
{
    return (in < last) ? *in++ : 0;
}


static unsigned
u16(void)
{
    unsigned  high;

    high = u8();

    return high << 8 | u8();
}


static int
alive(pid_t p)
{
    if (p & 1) {
        ngx_set_errno(ESRCH);
        return -1;
    }

    return 0;
}


/* before each store of a writer */

static void
step(void)
{
    if (!armed || reading) {
        return;
    }

    steps++;

    /* a step that evicts many may come round more than once */

    if (st->sh->head - pos > st->sh->log_size / 4) {
        follow();
    }

    if (read_at && steps >= read_at && (steps - read_at) % read_every == 0) {
        follow();
        look(&channels[(steps / read_every) % CHANNELS]);

        if (pending.channel < CHANNELS) {
            look(&channels[pending.channel]);
        }
    }

    if (crash_at && --crash_at == 0) {
        longjmp(jump, 1);
    }
}


static const u_char *
event_of(const msg_t *m)
{
    return noise + m->kind * 7;
}


static const u_char *
data_of(const msg_t *m)
{
    return noise + m->kind * 11 + m->channel;
}


static void
digest_of(const msg_t *m, u_char *digest)
{
    ngx_memzero(digest, NGX_RT_TAG_LEN);

    digest[0] = m->channel;
    digest[1] = m->kind;
    digest[2] = m->event_len;
    ngx_memcpy(digest + 4, &m->len, 4);
    digest[11] = 1;
}


static uint64_t
size_of(const msg_t *m)
{
    return ngx_rt_log_size((uint64_t) m->event_len + m->len);
}


/* what the configuration says */

static void
limits(void)
{
    static const ngx_uint_t  counts[] = { 0, 1, 2, 4, 16, 64, 1000, 1000000 };

    unsigned  n;

    n = u8();

    st->history = counts[n & 7];
    st->history_time = (n & 8) ? 1 + u16() : 0;
    st->message_max = (n & 16) ? u16() : 1024 * 1024;
}


static void
open_zone(void)
{
    static const size_t  sizes[] = { 27000, 28001, 30000, 34567, 40000,
                                    65536, 100000, 200000 };

    u_char         random[32];
    unsigned       n;

    n = u8();

    /* exactly as large as it may be, for ASan */

    free(zone);
    zone_size = sizes[n & 7];
    zone = malloc(zone_size);
    check(zone != NULL);

    memset(zone, 0xa5, zone_size);
    memset(random, n, sizeof(random));

    ngx_memzero(st, sizeof(ngx_rt_store_t));
    st->embedded = (n & 8) ? 1 : 0;
    check(ngx_rt_store_create(st, zone, zone_size, 4, random) == NGX_OK);

    mutex_sh.lock = 0;
    (void) ngx_shmtx_create(&mutex, &mutex_sh, NULL);
    st->mutex = &mutex;

    limits();
}


static void
open_model(void)
{
    uint32_t    i, lengths[] = { 2, 3, 5, 8, 24, 100, 254, 255 };
    channel_t  *c;

    for (i = 0; noise[1] == 0 && i < sizeof(noise); i++) {
        noise[i] = (u_char) ((i * 2654435761U) >> 13);
    }

    for (i = 0; i < CHANNELS; i++) {
        c = &channels[i];
        ngx_memzero(c, offsetof(channel_t, list));
        c->told = 0;
        c->told_seq = 0;

        c->name.data = c->name_data;
        c->name.len = lengths[i & 7];
        memset(c->name_data, 'a' + (int) i, c->name.len);

        ngx_rt_table_key(st, &c->name, &c->key);
    }

    nmessages = 0;
    now = 1700000000000;
    session = st->sh->feed.session;
    term = 0;
    renewed = 0;
    lost = 0;
    pid = 0;
    live = 0;
    forgotten = 0;
    damaged = 0;
    iter = 0;

    pos = st->sh->head;
    pos_seq = 0;
    pos_told = 0;
    lazy = pos;
    lazy_next = 0;

    if (!st->embedded) {
        renewed = now;
        pid = PID;
        check(ngx_rt_lease_take(st, 0, PID, now, &term) == NGX_OK);
    }
}
