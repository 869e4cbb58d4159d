
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The zone as one writer and many crashes see it: every fault point is where
 * a writer is once killed, and the next one finds all other channels whole.
 */


#define NGX_RT_FAULTS  1

#include <ngx_rt_shared.h>

/* what is read and written in which order, told to test_order() */

enum { LOAD, STORE, FENCE };

static void order_note(int what, const volatile void *at, int order);

#define __atomic_load_n(p, order)                                             \
    (order_note(LOAD, p, order), __atomic_load_n(p, order))

#define __atomic_store_n(p, v, order)                                         \
    (order_note(STORE, p, order), __atomic_store_n(p, v, order))

#define __atomic_thread_fence(order)                                          \
    (order_note(FENCE, NULL, order), __atomic_thread_fence(order))

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
#include "../../ngx_rt_module/ngx_rt_owed.c"
#include "unit.h"
#include <setjmp.h>


#define ZONE  (512 * 1024)


static long         fault_at;
static ngx_rt_store_t  *watched;        /* channel 700, at each fault point */
static uint64_t     watch_version, watch_seq;
static ngx_uint_t   watch_bad;
static jmp_buf      fault_jump;
static ngx_shmtx_t  mutex;
static ngx_shmtx_sh_t  mutex_sh;


typedef struct {
    int                       what;
    int                       order;
    const volatile u_char    *at;
} note_t;


static note_t       notes[4096];
static unsigned     nnotes, noting;


static void
order_note(int what, const volatile void *at, int order)
{
    if (noting && nnotes < 4096) {
        notes[nnotes].what = what;
        notes[nnotes].order = order;
        notes[nnotes].at = at;
        nnotes++;
    }
}


/* a reader of channel 700: another content has another, larger version */

static void
watch(ngx_rt_store_t *st)
{
    ngx_str_t      ch = ngx_string("ch:700");
    ngx_rt_key_t   key;
    ngx_rt_view_t  view;

    ngx_rt_table_key(st, &ch, &key);

    if (ngx_rt_table_look(st, &key, 1, &view) != NGX_OK) {
        return;
    }

    watch_bad += view.version < watch_version;
    watch_bad += view.version == watch_version && view.msg_seq != watch_seq;

    watch_version = view.version;
    watch_seq = view.msg_seq;
}


void
ngx_rt_fault(const char *name)
{
    (void) name;

    if (watched) {
        watch(watched);
    }

    if (fault_at && --fault_at == 0) {
        longjmp(fault_jump, 1);
    }
}


static void
open_store(ngx_rt_store_t *st, void *mem)
{
    u_char  random[32];

    ngx_memset(random, 7, sizeof(random));
    ngx_memzero(st, sizeof(ngx_rt_store_t));

    if (ngx_rt_store_create(st, mem, ZONE, 4, random) != NGX_OK) {
        ok(0, "created");
        exit(1);
    }

    ngx_memzero(&mutex, sizeof(mutex));
    (void) ngx_shmtx_create(&mutex, &mutex_sh, NULL);

    st->mutex = &mutex;
    st->history = 4;
    st->message_max = 8192;
    st->embedded = 1;
}


static ngx_int_t
publish(ngx_rt_store_t *st, ngx_uint_t channel, ngx_uint_t n, uint64_t *seq)
{
    u_char            name[32], data[64], digest[NGX_RT_TAG_LEN];
    ngx_str_t         ch;
    ngx_rt_message_t  msg;

    ngx_memzero(&msg, sizeof(msg));

    ch.data = name;
    ch.len = snprintf((char *) name, sizeof(name), "ch:%u",
                      (unsigned) channel);
    msg.data.data = data;
    msg.data.len = snprintf((char *) data, sizeof(data), "%u/%u",
                            (unsigned) channel, (unsigned) n);

    memset(digest, 0, sizeof(digest));
    ngx_rt_message_digest(&ch, &msg, digest);

    return ngx_rt_store_publish(st, 0, &ch, &msg, digest, 1000 + n, 1, seq);
}


/* the latest message of a channel as a number, -1: none, -2: unreadable */

static long
latest(ngx_rt_store_t *st, ngx_uint_t channel)
{
    u_char              name[32], body[64];
    unsigned            c, n;
    ngx_str_t           ch;
    ngx_rt_key_t        key;
    ngx_rt_view_t       view;
    ngx_rt_record_sh_t  rec;

    ch.data = name;
    ch.len = snprintf((char *) name, sizeof(name), "ch:%u",
                      (unsigned) channel);

    ngx_rt_table_key(st, &ch, &key);

    if (ngx_rt_table_look(st, &key, 1, &view) != NGX_OK || !view.msg_seq) {
        return -1;
    }

    if (ngx_rt_log_peek(st, view.latest, &rec) != NGX_OK
        || rec.seq != view.msg_seq || rec.data_len >= sizeof(body)
        || ngx_rt_log_body(st, view.latest, &rec, body) != NGX_OK)
    {
        return -2;
    }

    body[rec.data_len] = '\0';

    if (sscanf((char *) body, "%u/%u", &c, &n) != 2 || c != channel) {
        return -2;
    }

    return n;
}


/* lists without holes and in order, sums as recounted */

static void
check(ngx_rt_store_t *st, const char *when)
{
    uint32_t            i, n, bad;
    uint64_t            off, seq, pinned, history;
    ngx_rt_entry_sh_t  *e;

    bad = 0;

    ngx_rt_store_lock(st);

    for (i = 1; i < st->sh->top; i++) {
        e = &st->entries[i];

        if (!(e->flags & NGX_RT_USED)) {
            continue;
        }

        bad += (e->lock & 1);
        seq = 0;
        off = e->oldest;

        for (n = 0; n < e->count; n++) {
            bad += ngx_rt_log_at(st, off)->seq <= seq;
            seq = ngx_rt_log_at(st, off)->seq;
            bad += off < st->sh->tail || off >= st->sh->head;
            bad += (n + 1 == e->count) != (off == e->latest);
            off = ngx_rt_log_at(st, off)->next;
        }

        bad += e->count && e->msg_seq != seq;
        bad += e->floor >= e->version && e->count > 0;
    }

    pinned = st->sh->pinned;
    history = st->sh->history;
    ngx_rt_recover(st);

    ok(bad == 0 && pinned == st->sh->pinned && history == st->sh->history,
       "whole %s", when);

    ngx_rt_store_unlock(st);
}


static void
test_neighbours(ngx_rt_store_t *st)
{
    uint64_t    seq, last;
    ngx_uint_t  i, bad;

    is_int(publish(st, 1, 7, &seq), NGX_OK, "published");
    is_int(latest(st, 1), 7, "and there");

    bad = 0;
    last = seq;

    for (i = 0; i < 50000; i++) {
        bad += publish(st, 2 + i % 3, i, &seq) != NGX_OK;
        bad += seq <= last;
        last = seq;
    }

    is_int(bad, 0, "a busy neighbour always publishes, seq only grows");
    ok(st->sh->head > 4 * st->sh->log_size, "the ring came round");
    is_int(latest(st, 1), 7, "the quiet channel keeps its latest message");
    is_int(latest(st, 2 + 49999 % 3), 49999, "the busy one has its own");
    check(st, "after 50000 messages");
}


static void
test_history(ngx_rt_store_t *st)
{
    uint64_t       seq, first, offs[8], seqs[8];
    ngx_str_t      ch = ngx_string("ch:90");
    ngx_uint_t     i, queued;
    ngx_rt_view_t  view;

    (void) publish(st, 90, 0, &first);

    for (i = 1; i < 4; i++) {
        (void) publish(st, 90, i, &seq);
    }

    (void) ngx_rt_store_touch(st, &ch, 1, &view, &queued);

    is_int(ngx_rt_store_history(st, view.entry, view.gen, first, seq, offs,
                                seqs, 8),
           3, "what came after the first");
    ok(seqs[2] == seq && seqs[0] < seqs[1] && seqs[1] < seqs[2], "in order");
    is_int(ngx_rt_store_history(st, view.entry, view.gen, first, seq - 1,
                                offs, seqs, 8),
           2, "up to the last but one");

    (void) publish(st, 90, 4, &seq);
    (void) ngx_rt_store_touch(st, &ch, 1, &view, &queued);

    is_int(view.count, 4, "history 4 keeps four");
    ok(view.floor == first, "and tells what was dropped");
}


/* a message is kept as long as it is not older than history_time */

static void
test_history_time(ngx_rt_store_t *st)
{
    uint64_t       seq, first;
    ngx_str_t      ch = ngx_string("ch:91");
    ngx_uint_t     queued;
    ngx_rt_view_t  view;

    st->history_time = 100;

    (void) publish(st, 91, 0, &first);
    (void) publish(st, 91, 100, &seq);
    (void) ngx_rt_store_touch(st, &ch, 1, &view, &queued);
    is_int(view.count, 2, "as old as it may be");

    (void) publish(st, 91, 101, &seq);
    (void) ngx_rt_store_touch(st, &ch, 1, &view, &queued);
    is_int(view.count, 2, "one is too old");
    ok(view.floor == first, "and told to be lost");

    (void) publish(st, 91, 5000, &seq);
    (void) ngx_rt_store_touch(st, &ch, 1, &view, &queued);
    is_int(view.count, 1, "all are, but the latest");

    st->history_time = 0;
}


/* what a channel may have lost: nothing if none was ever forgotten, else all
 * up to when the last one was */

static uint64_t
floor_of(ngx_rt_store_t *st, const char *name)
{
    ngx_str_t      ch;
    ngx_uint_t     queued;
    ngx_rt_view_t  view;

    ch.data = (u_char *) name;
    ch.len = strlen(name);
    queued = 0;
    view.floor = 0;

    is_int(ngx_rt_store_touch(st, &ch, 1, &view, &queued), NGX_OK, "touched");

    return view.floor;
}


static void
test_many(ngx_rt_store_t *st)
{
    uint64_t    seq, old;
    ngx_uint_t  i, bad;

    bad = 0;

    (void) publish(st, 999, 1, &old);

    for (i = 0; i < 20000; i++) {
        bad += publish(st, 1000 + i, i, &seq) != NGX_OK;
    }

    is_int(bad, 0, "20000 channels in a small zone: none fails");
    ok(st->sh->evicted > 0, "evictions are counted");
    is_int(latest(st, 1000 + 19999), 19999, "the newest is there");
    is_int(latest(st, 999), -1, "an old one was forgotten");
    ok(floor_of(st, "ch:999") > old,
       "made anew, it tells that its messages are lost");
    check(st, "after 20000 channels");
}


static void
test_crashes(ngx_rt_store_t *st)
{
    char        when[64];
    long        n, quiet;
    uint64_t    seq;
    ngx_uint_t  round, bad;

    (void) publish(st, 500, 77, &seq);
    quiet = 0;
    bad = 0;

    for (round = 1; round < 400; round++) {

        fault_at = 1 + round % 37;

        if (setjmp(fault_jump) == 0) {
            for (n = 0; n < 20; n++) {
                (void) publish(st, 501 + (round + n) % 40, round * 100 + n,
                               &seq);
            }

        } else {
            /* the master opens the lock of the dead */
            ngx_shmtx_unlock(&mutex);
        }

        fault_at = 0;

        bad += publish(st, 600, round, &seq) != NGX_OK;
        bad += latest(st, 600) != (long) round;
        quiet += latest(st, 500) != 77;

        if (round % 50 == 0) {
            snprintf(when, sizeof(when), "after %u crashes",
                     (unsigned) round);
            check(st, when);
        }
    }

    is_int(bad, 0, "the next writer always goes on");
    is_int(quiet, 0, "a channel nobody was writing lost nothing");
    ok(st->sh->repaired > 100, "repairs are counted");
    ok(floor_of(st, "later") > 0,
       "after a repair nobody claims that nothing was lost");
}


/* 1: a message of channel 700 is in the log from off on */

static ngx_uint_t
in_log(ngx_rt_store_t *st, uint64_t off, ngx_uint_t entry)
{
    ngx_rt_record_sh_t  rec;

    while (ngx_rt_log_peek(st, off, &rec) == NGX_OK) {

        if (rec.type == NGX_RT_MESSAGE && rec.entry == entry) {
            return 1;
        }

        off += rec.size;
    }

    return 0;
}


/* killed at the point fault_at; the next writer repairs */

static void
publish_killed(ngx_rt_store_t *st, ngx_uint_t channel, ngx_uint_t n)
{
    uint64_t  seq;

    if (setjmp(fault_jump) == 0) {
        (void) publish(st, channel, n, &seq);

    } else {
        /* the master opens the lock of the dead */
        ngx_shmtx_unlock(&mutex);
    }

    fault_at = 0;

    ngx_rt_store_lock(st);
    ngx_rt_store_unlock(st);
}


/* a writer is killed at each point of a publish: what was once in the log
 * stays, and no reader sees a version go back, nor one for two contents */

static void
test_committed(ngx_rt_store_t *st, void *mem, ngx_uint_t earlier)
{
    long          expected;
    uint64_t      seq, pos;
    ngx_uint_t    lost, in, i, point;

    lost = 0;
    in = 0;
    watch_bad = 0;

    for (point = 1; point < 30; point++) {

        open_store(st, mem);
        watch_version = 0;
        watch_seq = 0;

        for (i = 0; i < earlier; i++) {
            (void) publish(st, 700, i, &seq);
        }

        pos = st->sh->head;
        watched = st;
        fault_at = point;
        publish_killed(st, 700, 90);

        watch(st);
        watched = NULL;

        expected = (long) earlier - 1;

        if (in_log(st, pos, 1)) {
            expected = 90;
            in++;
        }

        lost += latest(st, 700) != expected;
    }

    ok(in > 5 && in < 29, "after %u: some were killed before the commit",
       (unsigned) earlier);
    is_int(lost, 0, "after %u: what was in the log is the latest",
           (unsigned) earlier);
    is_int(watch_bad, 0, "after %u: versions only grow",
           (unsigned) earlier);
}


#define BATCH  9


typedef struct {
    u_char                    name[BATCH][16];
    u_char                    data[BATCH][64];
    ngx_rt_post_t             posts[BATCH];
} batch_t;


/* messages numbered from 90 on, round three channels from 700 on */

static void
batch_of(ngx_rt_store_t *st, batch_t *b)
{
    ngx_str_t       ch;
    ngx_uint_t      i, channel;
    ngx_rt_post_t  *post;

    ngx_memzero(b, sizeof(batch_t));

    for (i = 0; i < BATCH; i++) {
        post = &b->posts[i];
        channel = 700 + i % 3;

        ch.data = b->name[i];
        ch.len = sprintf((char *) b->name[i], "ch:%u", (unsigned) channel);
        post->msg.data.data = b->data[i];
        post->msg.data.len = sprintf((char *) b->data[i], "%u/%u",
                                     (unsigned) channel, (unsigned) (90 + i));
        ngx_rt_message_digest(&ch, &post->msg, post->tag);
        ngx_rt_table_key(st, &ch, &post->key);

        post->rc = NGX_BUSY;
        post->stamp = 1;

        /* right, another channel's, none's, no index */
        post->entry = (i % 4 == 0) ? 1 + i % 3
                      : (i % 4 == 1) ? 1 : (i % 4 == 2) ? 9 : 0xfffffff0;
    }
}


static ngx_uint_t
used_at(ngx_rt_store_t *st, uint32_t entry)
{
    return st->entries[entry].used;
}


static void
test_batch(ngx_rt_store_t *st, void *mem)
{
    batch_t     b;
    uint64_t    seq, before;
    ngx_uint_t  i, bad;

    open_store(st, mem);

    for (i = 0; i < 3; i++) {
        (void) publish(st, 700 + i, i, &seq);
    }

    batch_of(st, &b);

    is_int(ngx_rt_store_post(st, 0, b.posts, BATCH, 70000), BATCH,
           "a batch: all of it");

    for (i = 0, bad = 0; i < BATCH; i++) {
        bad += b.posts[i].rc != NGX_OK || b.posts[i].seq != seq + 1 + i
               || b.posts[i].entry != 1 + i % 3;
    }

    is_int(bad, 0, "... stored, in order, and where");
    is_int(used_at(st, 1), 70, "... and used");
    is_int(latest(st, 700), 96, "... the latest of a channel");
    is_int(latest(st, 702), 98, "... and of another");
    check(st, "after a batch");

    /* too large: dropped, and on; not there: so far, and no further */

    batch_of(st, &b);
    b.posts[1].msg.data.len = 8193;
    b.posts[1].stamp = 0;
    b.posts[5].key.h[0]++;
    seq = st->sh->seq;
    before = st->sh->dropped;

    is_int(ngx_rt_store_post(st, 0, b.posts, BATCH, 80000), 6,
           "up to a channel that is not there");
    is_int(b.posts[5].rc, NGX_DECLINED, "... which is told");
    is_int(b.posts[1].rc, NGX_ERROR, "one that is too large");
    is_int(st->sh->dropped, before + 1, "... is counted");
    is_int(b.posts[1].seq, seq + 2, "... has a place in the order");
    is_int(b.posts[6].rc, NGX_BUSY, "what comes later is not looked at");
    is_int(latest(st, 700), 93, "what came before is stored");
    is_int(st->sh->seq, seq + 5, "... and no more");
    is_int(used_at(st, 2), 80, "stamped by another message");

    /* another's term */

    st->embedded = 0;
    seq = st->sh->seq;
    batch_of(st, &b);

    is_int(ngx_rt_store_post(st, 7, b.posts, BATCH, 80000), 1,
           "a term that is over");
    is_int(b.posts[0].rc, NGX_ABORT, "... is told");
    is_int(st->sh->seq, seq, "... and nothing done");

    st->embedded = 1;
    check(st, "after all that");
}


/* how many messages of the batch the log has from off on, -1: not its first
 * ones, or in another order */

static long
batch_in_log(ngx_rt_store_t *st, uint64_t off)
{
    long                n;
    u_char              body[64];
    unsigned            c, number;
    ngx_rt_record_sh_t  rec;

    for (n = 0; ngx_rt_log_peek(st, off, &rec) == NGX_OK; off += rec.size) {

        if (rec.type != NGX_RT_MESSAGE || (rec.flags & NGX_RT_COPY)) {
            continue;
        }

        if (rec.data_len >= sizeof(body)
            || ngx_rt_log_body(st, off, &rec, body) != NGX_OK)
        {
            return -1;
        }

        body[rec.data_len] = '\0';

        if (sscanf((char *) body, "%u/%u", &c, &number) != 2
            || number != 90 + n)
        {
            return -1;
        }

        n++;
    }

    return n;
}


/* a writer is killed at each point of a batch: what came before it is there,
 * nothing else, and each message once */

static void
test_batch_killed(ngx_rt_store_t *st, void *mem)
{
    long              n, k, expected;
    batch_t           b;
    uint64_t          seq, pos;
    ngx_uint_t        i;
    volatile int      point;
    volatile long     whole, bad, most;

    bad = 0;
    most = 0;
    whole = 0;
    watch_bad = 0;

    for (point = 1; point < 400 && !whole; point++) {

        open_store(st, mem);
        watch_version = 0;
        watch_seq = 0;

        for (i = 0; i < 9; i++) {
            (void) publish(st, 700 + i % 3, i, &seq);
        }

        pos = st->sh->head;
        batch_of(st, &b);
        watched = st;
        fault_at = point;

        if (setjmp(fault_jump) == 0) {
            (void) ngx_rt_store_post(st, 0, b.posts, BATCH, 70000);
            whole = point;

        } else {
            /* the master opens the lock of the dead */
            ngx_shmtx_unlock(&mutex);
        }

        fault_at = 0;

        ngx_rt_store_lock(st);
        ngx_rt_store_unlock(st);

        watch(st);
        watched = NULL;

        n = batch_in_log(st, pos);
        bad += n < most;
        most = ngx_max(n, most);

        for (k = 0; k < 3; k++) {
            expected = (n > k) ? 90 + (n - 1 - k) / 3 * 3 + k : 6 + k;
            bad += latest(st, 700 + k) != expected;
        }
    }

    is_int(bad, 0, "killed in a batch: so far, and no further");
    is_int(watch_bad, 0, "... versions only grow");
    ok(whole > 5 * BATCH, "... at all of its points: %d", (int) whole);
    is_int(most, BATCH, "... to its end");
    check(st, "after these batches");
}


/* the first note from i on of that kind and order within [at, at + len), or
 * nnotes; order -1: any */

static unsigned
noted(unsigned i, int what, int order, const volatile void *at, size_t len)
{
    for ( /* void */ ; i < nnotes; i++) {

        if (notes[i].what == what && (order < 0 || notes[i].order == order)
            && (at == NULL
                || (notes[i].at >= (const volatile u_char *) at
                    && notes[i].at < (const volatile u_char *) at + len)))
        {
            break;
        }
    }

    return i;
}


/* the same, the last one before n */

static unsigned
noted_last(unsigned n, int what, int order, const volatile void *at,
    size_t len)
{
    unsigned  i, found;

    found = nnotes;

    for (i = noted(0, what, order, at, len);
         i < n;
         i = noted(i + 1, what, order, at, len))
    {
        found = i;
    }

    return found;
}


/* copies of shared memory: the bytes, a fence, and only then the word that
 * tells whether they were of one moment */

static void
check_reader(const char *who, const volatile void *bytes, size_t len,
    const volatile void *word)
{
    unsigned  last, fence, check;

    last = noted_last(nnotes, LOAD, -1, bytes, len);
    fence = noted(last + 1, FENCE, __ATOMIC_ACQUIRE, NULL, 0);
    check = noted(fence + 1, LOAD, -1, word, 1);

    ok(last < nnotes && fence < nnotes && check < nnotes,
       "%s: the bytes, an acquire fence, the check", who);

    noting = 0;
}


/*
 * The hardware here keeps stores in order, and loads, so that a fence left
 * out breaks no run of anything: the order is checked as it is asked for.
 */

static void
test_order(ngx_rt_store_t *st)
{
    u_char               body[64], *log, *dst;
    unsigned             i, fence, head;
    uint64_t             seq;
    ngx_str_t            ch = ngx_string("ch:800");
    ngx_rt_key_t         key;
    ngx_rt_view_t        view;
    ngx_rt_zone_sh_t    *sh;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t   rec;

#define note_on()  (nnotes = 0, noting = 1)

    sh = st->sh;
    log = st->log;

    (void) publish(st, 800, 1, &seq);
    ngx_rt_table_key(st, &ch, &key);

    note_on();
    (void) ngx_rt_table_look(st, &key, 1, &view);
    noting = 0;

    e = &st->entries[view.entry];
    i = noted(0, LOAD, __ATOMIC_ACQUIRE, &e->lock, 1);
    ok(i < noted(0, LOAD, -1, &e->version, 1), "look: the lock first");
    check_reader("look", &e->version, offsetof(ngx_rt_entry_sh_t, used)
                                      - offsetof(ngx_rt_entry_sh_t, version),
                 &e->lock);

    note_on();
    is_int(ngx_rt_log_peek(st, view.latest, &rec), NGX_OK, "peek");
    ok(noted(0, LOAD, __ATOMIC_ACQUIRE, &sh->head, 1)
       < noted(0, LOAD, -1, log, sh->log_size), "peek: the head first");
    check_reader("peek", log, sh->log_size, &sh->limit);

    note_on();
    is_int(ngx_rt_log_body(st, view.latest, &rec, body), NGX_OK, "body");
    check_reader("body", log, sh->log_size, &sh->limit);

    dst = log + sh->head % sh->log_size;

    note_on();
    (void) publish(st, 800, 2, &seq);
    noting = 0;

    head = noted(0, STORE, __ATOMIC_RELEASE, &sh->head, 1);
    i = noted(0, STORE, -1, &sh->limit, 1);
    fence = noted(i, FENCE, __ATOMIC_RELEASE, NULL, 0);

    ok(i < fence && fence < noted(0, STORE, -1, dst, 64),
       "publish: the limit, a release fence, the bytes");

    i = noted_last(nnotes, STORE, -1, dst + sizeof(rec), rec.size
                                                         - sizeof(rec));
    ok(i < head && head < nnotes, "publish: all bytes, then the head");

    i = noted(head, STORE, -1, &e->lock, 1);
    fence = noted(i, FENCE, __ATOMIC_RELEASE, NULL, 0);
    ok(i < fence && fence < noted(0, STORE, -1, &e->flags,
                                  sizeof(*e) - offsetof(ngx_rt_entry_sh_t,
                                                        flags)),
       "publish: the odd lock, a release fence, the entry");

    i = noted_last(nnotes, STORE, -1, &e->flags, sizeof(*e)
                                 - offsetof(ngx_rt_entry_sh_t, flags));
    head = noted_last(nnotes, STORE, __ATOMIC_RELEASE, &e->lock, 1);
    ok(i < head && head < nnotes, "publish: the entry, then the even lock");
    ok(head < noted(0, STORE, __ATOMIC_RELEASE, &sh->seq, 1)
       && noted(0, STORE, __ATOMIC_RELEASE, &sh->seq, 1) < nnotes,
       "publish: seq at last");
}


/* channels whose snapshot is yet to come: by name, and as a list */

static void
test_owed(void *mem)
{
    size_t             len;
    uint32_t           iter, n;
    uint64_t           seq, head;
    ngx_str_t          name[] = { ngx_string("a"), ngx_string("b"),
                                  ngx_string("c") };
    ngx_uint_t         queued, steps;
    ngx_rt_view_t      view, one, none;
    ngx_rt_store_t     store, *st;
    ngx_rt_message_t   msg;
    ngx_rt_record_sh_t  rec;
    u_char             buf[NGX_RT_CHANNEL_MAX], digest[NGX_RT_TAG_LEN];

    st = &store;
    open_store(st, mem);

    st->embedded = 0;
    st->snapshot = 1;
    st->sh->feed.pid = 1;
    st->sh->feed.term = 5;

    for (n = 0; n < 3; n++) {
        (void) ngx_rt_store_touch(st, &name[n], 1, &view, &queued);
    }

    is_int(ngx_rt_owed_look(st, 5, &name[0], &view), NGX_DECLINED,
           "owed: not before it is confirmed");

    for (n = 0; n < 3; n++) {
        (void) ngx_rt_store_confirm(st, 5, &name[n]);
    }

    is_int(ngx_rt_owed_look(st, 5, &name[0], &one), NGX_OK, "confirmed: owed");
    is_int(ngx_rt_owed_look(st, 4, &name[0], &view), NGX_ABORT, "term");

    iter = 0;
    steps = 2;
    is_int(ngx_rt_owed_next(st, 5, &iter, &steps, &view, buf, &len), NGX_OK,
           "next: the first");
    is_mem(buf, len, "a", 1, "its name");
    is_int(ngx_rt_owed_next(st, 5, &iter, &steps, &view, buf, &len), NGX_OK,
           "next: the second");
    is_int(ngx_rt_owed_next(st, 5, &iter, &steps, &view, buf, &len), NGX_AGAIN,
           "no more steps");
    steps = 9;
    is_int(ngx_rt_owed_next(st, 5, &iter, &steps, &view, buf, &len), NGX_OK,
           "next: the third");
    is_mem(buf, len, "c", 1, "its name");
    is_int(ngx_rt_owed_next(st, 5, &iter, &steps, &view, buf, &len), NGX_DONE,
           "that was all");
    is_int(ngx_rt_owed_next(st, 4, &iter, &steps, &view, buf, &len), NGX_ABORT,
           "term");

    /* by a message, by one that is too large, by an answer */

    ngx_memzero(&msg, sizeof(msg));
    ngx_memzero(digest, sizeof(digest));
    msg.data.data = buf;
    msg.data.len = 1;
    (void) ngx_rt_store_publish(st, 5, &name[1], &msg, digest, 1, 0, &seq);
    is_int(ngx_rt_owed_look(st, 5, &name[1], &view), NGX_DECLINED,
           "a message settles it");

    msg.data.len = 8193;
    (void) ngx_rt_store_publish(st, 5, &name[2], &msg, digest, 1, 0, &seq);
    is_int(ngx_rt_owed_look(st, 5, &name[2], &view), NGX_DECLINED,
           "a drop, too");

    none = one;
    none.gen++;
    head = st->sh->head;
    is_int(ngx_rt_owed_settle(st, 5, &none, 0), NGX_OK, "another gen");
    is_int(ngx_rt_owed_settle(st, 4, &one, 0), NGX_ABORT, "term");
    is_int(ngx_rt_owed_look(st, 5, &name[0], &view), NGX_OK, "still owed");
    is_int(st->sh->head, head, "nothing was told");
    is_int(ngx_rt_owed_settle(st, 5, &one, 0), NGX_OK, "settled");
    is_int(ngx_rt_owed_look(st, 5, &name[0], &view), NGX_DECLINED,
           "an answer settles it");
    is_int(ngx_rt_log_peek(st, head, &rec), NGX_OK, "a record tells");
    ok(rec.type == NGX_RT_SETTLED && rec.entry == one.entry
       && rec.gen == one.gen && rec.seq == st->sh->seq, "which channel");
    head = st->sh->head;
    (void) ngx_rt_owed_settle(st, 5, &one, 0);
    is_int(st->sh->head, head, "once");

    /* certain: by a message, not after a gap, but for the same snapshot */

    for (n = 0; n < 3; n++) {
        (void) ngx_rt_store_touch(st, &name[1], 1, &view, &queued);
        is_int(ngx_rt_view_certain(&view), n == 0, "certain");

        st->sh->feed.session++;

        is_int(ngx_rt_owed_look(st, 5, &name[1], &view), NGX_DECLINED,
               "another session: not owed, not confirmed");
        (void) ngx_rt_store_confirm(st, 5, &name[1]);
        is_int(ngx_rt_owed_look(st, 5, &name[1], &view), NGX_OK, "owed again");
        is_int(ngx_rt_view_certain(&view), 0, "in doubt");
        (void) ngx_rt_owed_settle(st, 5, &view, n != 0);
        (void) ngx_rt_store_touch(st, &name[1], 1, &view, &queued);
        is_int(ngx_rt_view_certain(&view), n != 0, "sure");
        st->sh->feed.session++;
        (void) ngx_rt_store_confirm(st, 5, &name[1]);
    }

    st->snapshot = 0;
    st->sh->feed.session++;
    (void) ngx_rt_store_confirm(st, 5, &name[1]);
    is_int(ngx_rt_owed_look(st, 5, &name[1], &view), NGX_DECLINED,
           "without snapshot: never");
}


int
main(void)
{
    void            *mem;
    ngx_rt_store_t   st;

    if (posix_memalign(&mem, 64, ZONE) != 0) {
        return 1;
    }

    is_int(sizeof(ngx_rt_entry_sh_t), 128, "an entry is two cache lines");
    is_int(sizeof(ngx_rt_slot_sh_t) % 64, 0, "slots share no cache line");
    is_int(sizeof(ngx_rt_record_sh_t), 64, "a record's header");

    open_store(&st, mem);
    is_int(floor_of(&st, "new"), 0,
           "a new channel of a zone that forgot none has lost nothing");
    test_neighbours(&st);
    test_history(&st);
    test_history_time(&st);
    test_many(&st);

    open_store(&st, mem);
    test_crashes(&st);

    test_committed(&st, mem, 0);
    test_committed(&st, mem, 1);
    test_committed(&st, mem, 9);

    test_batch(&st, mem);
    test_batch_killed(&st, mem);

    test_order(&st);
    test_owed(mem);

    free(mem);
    done_testing();
}
