
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * One zone and many threads: writers that take turns, are killed in the
 * middle and repair each other's work, and readers without a lock, while the
 * log comes round many times.  A message tells its channel and number and has
 * a sum over all of it, so whatever is read is known to be whole, and what was
 * not read to be missing.
 */


#define NGX_RT_FAULTS  1

/* fences order nothing here but atomic accesses, which TSan never calls a
 * race: that it knows no fences makes no false report */
#pragma GCC diagnostic ignored "-Wtsan"

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
#include "unit.h"
#include <pthread.h>
#include <setjmp.h>


#define ZONE       (96 * 1024)
#define CHANNELS   6
#define OTHERS     300              /* names that are asked for and forgotten */
#define TURNS      40000
#define LARGEST    1800
#define HISTORY    8
#define WRITERS    2
#define POLLERS    2
#define FOLLOWERS  2


typedef struct {
    uint32_t        channel;
    uint32_t        n;
    uint32_t        len;
    uint32_t        try;
    uint64_t        sum;
} head_t;

typedef struct {
    unsigned        seed;
    unsigned        late;           /* waits for the log to come round */
    uint64_t        read;
    uint64_t        overrun;
    uint64_t        lost;
    uint64_t        doubted;

    /* what must not be */
    uint64_t        torn;
    uint64_t        back;
    uint64_t        silent;
    uint64_t        strange;
} reader_t;


static ngx_rt_store_t   store, *st = &store;
static ngx_shmtx_t      mutex;
static ngx_shmtx_sh_t   mutex_sh;
static ngx_rt_key_t     keys[CHANNELS];

static pthread_mutex_t  turn = PTHREAD_MUTEX_INITIALIZER;
static uint32_t         next[CHANNELS], turns, killed, failed, there;
static uint32_t         tries;
static uint64_t         term;
static int              done;

static __thread long     fault_at;
static __thread jmp_buf  fault_jump;


void
ngx_rt_fault(const char *name)
{
    (void) name;

    if (fault_at && --fault_at == 0) {
        longjmp(fault_jump, 1);
    }
}


static void
name_of(ngx_uint_t channel, u_char *buf, ngx_str_t *name)
{
    name->data = buf;
    name->len = snprintf((char *) buf, 32, "channel:%u", (unsigned) channel);
}


static uint64_t
sum_of(const u_char *p, size_t len)
{
    uint64_t  sum;

    for (sum = 14695981039346656037ULL; len; len--) {
        sum = (sum ^ *p++) * 1099511628211ULL;
    }

    return sum;
}


/* 1: the message of a channel, whole */

static ngx_uint_t
whole(const u_char *p, size_t len, ngx_uint_t channel, uint32_t *n)
{
    head_t  head;

    if (len < sizeof(head_t)) {
        return 0;
    }

    memcpy(&head, p, sizeof(head_t));
    *n = head.n;

    return head.channel == channel && head.len == len
           && head.sum == sum_of(p + sizeof(head_t), len - sizeof(head_t));
}


/* the number of the latest message, -1: none; repairs */

static long
latest_locked(ngx_uint_t channel)
{
    u_char               buf[32];
    head_t               head;
    ngx_str_t            name;
    ngx_uint_t           queued;
    ngx_rt_view_t        view;
    ngx_rt_record_sh_t  *rec;

    name_of(channel, buf, &name);
    (void) ngx_rt_store_touch(st, &name, 100000, &view, &queued);

    /* nobody else writes messages, but others move them */

    ngx_rt_store_lock(st);

    if (view.msg_seq == 0
        || ngx_rt_table_view(st, view.entry, view.gen, &view) != NGX_OK)
    {
        ngx_rt_store_unlock(st);
        return -1;
    }

    rec = ngx_rt_log_at(st, view.latest);
    memcpy(&head, (u_char *) rec + sizeof(ngx_rt_record_sh_t), sizeof(head_t));

    ngx_rt_store_unlock(st);

    return head.n;
}


static void
publish(ngx_uint_t channel, unsigned *seed)
{
    u_char            buf[32], digest[NGX_RT_TAG_LEN];
    head_t            head;
    size_t            i;
    uint64_t          seq;
    ngx_str_t         name;
    ngx_rt_message_t  msg;
    static u_char     data[LARGEST + sizeof(head_t)];

    name_of(channel, buf, &name);

    head.channel = (uint32_t) channel;
    head.n = next[channel];
    head.len = sizeof(head_t) + rand_r(seed) % LARGEST;
    head.try = tries++;

    for (i = sizeof(head_t); i < head.len; i++) {
        data[i] = (u_char) (head.try * 7 + i);
    }

    head.sum = sum_of(data + sizeof(head_t), head.len - sizeof(head_t));
    memcpy(data, &head, sizeof(head_t));

    memset(&msg, 0, sizeof(msg));
    msg.data.data = data;
    msg.data.len = head.len;
    memset(digest, head.n & 255, sizeof(digest));

    if (ngx_rt_store_publish(st, term, &name, &msg, digest, 100000000, 1,
                             &seq)
        != NGX_OK)
    {
        failed++;
    }
}


/* what a feeder does besides */

static void
feed(unsigned *seed)
{
    u_char      buf[NGX_RT_CHANNEL_MAX];
    size_t      len;
    ngx_str_t   name, server = ngx_string("here");
    ngx_uint_t  i;

    switch (rand_r(seed) % 4) {

    case 0:
        (void) ngx_rt_feed_set(st, term, NGX_RT_FEED_LIVE, &server,
                               100000000);
        break;

    case 1:
        for (i = 0; i < CHANNELS; i++) {
            name_of(i, buf, &name);
            (void) ngx_rt_store_confirm(st, term, &name);
        }
        break;

    case 2:
        while (ngx_rt_store_want(st, term, buf, &len, NULL) == NGX_OK) {
            /* void */
        }
        break;

    default:
        (void) ngx_rt_lease_renew(st, term, 100000000);
    }
}


/* 1: killed */

static ngx_uint_t
write_some(unsigned *seed, ngx_uint_t channel)
{
    if (setjmp(fault_jump)) {
        return 1;
    }

    if (channel == CHANNELS) {
        feed(seed);

    } else {
        publish(channel, seed);
        next[channel]++;
    }

    return 0;
}


/* one turn of a writer, which may be its last: the lock is then opened by
 * the master, and whoever takes it next repairs */

static void
write_one(unsigned *seed)
{
    ngx_uint_t  channel;

    channel = rand_r(seed) % CHANNELS;

    /* some are quiet, and something else is done */

    if (channel < 2 && rand_r(seed) % 200) {
        channel = (rand_r(seed) % 50) ? 2 : CHANNELS;
    }

    fault_at = (rand_r(seed) % 50 == 0) ? 1 + rand_r(seed) % 60 : 0;

    if (!write_some(seed, channel)) {
        fault_at = 0;
        return;
    }

    ngx_shmtx_unlock(&mutex);
    killed++;

    /* was it written? */

    for (channel = 0; channel < CHANNELS; channel++) {
        if (latest_locked(channel) == (long) next[channel]) {
            next[channel]++;
            there++;
        }
    }
}


static void *
writer(void *data)
{
    int       last;
    unsigned  seed;

    seed = (unsigned) (uintptr_t) data;

    do {
        pthread_mutex_lock(&turn);

        last = (turns >= TURNS);

        if (!last) {
            turns++;
            write_one(&seed);
        }

        pthread_mutex_unlock(&turn);

    } while (!last);

    return NULL;
}


/* any worker may ask for any channel, and the oldest are forgotten for it */

static void
ask(unsigned *seed)
{
    size_t         len;
    u_char         buf[32], back[NGX_RT_CHANNEL_MAX];
    ngx_str_t      name;
    ngx_uint_t     queued;
    ngx_rt_view_t  view;

    name_of(CHANNELS + rand_r(seed) % OTHERS, buf, &name);

    if (ngx_rt_store_touch(st, &name, 1, &view, &queued) == NGX_OK) {
        (void) ngx_rt_store_name(st, view.entry, view.gen, back, &len);
    }
}


/* polls: a channel's latest message, as often as possible */

static void *
poller(void *data)
{
    size_t               len;
    u_char               body[NGX_RT_EVENT_MAX + sizeof(head_t) + LARGEST];
    u_char               buf[32], back[NGX_RT_CHANNEL_MAX];
    uint32_t             n, seen[CHANNELS];
    uint64_t             version[CHANNELS];
    reader_t            *r;
    ngx_str_t            name;
    ngx_uint_t           c;
    ngx_rt_view_t        view;
    ngx_rt_record_sh_t   rec;

    r = data;
    memset(version, 0, sizeof(version));
    memset(seen, 0, sizeof(seen));

    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
        c = rand_r(&r->seed) % CHANNELS;

        if (rand_r(&r->seed) % 64 == 0) {
            ask(&r->seed);
        }

        (void) ngx_rt_feed_fresh(st, 100000000, 1000);

        if (ngx_rt_table_look(st, &keys[c], 100000, &view) != NGX_OK
            || view.msg_seq == 0)
        {
            continue;
        }

        r->back += view.version < version[c];

        if (ngx_rt_store_name(st, view.entry, view.gen, back, &len)
            == NGX_OK)
        {
            name_of(c, buf, &name);
            r->strange += len != name.len || memcmp(back, buf, len) != 0;
        }

        if (ngx_rt_log_peek(st, view.latest, &rec) != NGX_OK) {
            continue;
        }

        /* an offset is never given to two records */

        if (rec.seq != view.msg_seq || rec.type != NGX_RT_MESSAGE
            || (size_t) rec.data_len + rec.event_len > sizeof(body)
            || rec.tag[0] != view.tag[0])
        {
            r->strange++;
            continue;
        }

        if (ngx_rt_log_body(st, view.latest, &rec, body) != NGX_OK) {
            continue;
        }

        if (!whole(body, rec.data_len, c, &n)) {
            r->torn++;
            continue;
        }

        r->back += n < seen[c];
        r->silent += view.version == version[c] && n != seen[c];

        seen[c] = n;
        version[c] = view.version;
        r->read++;
    }

    return NULL;
}


/* streams: every message, or it is told that some are missing */

typedef struct {
    uint64_t        pos;
    uint64_t        seq;
    int64_t         last[CHANNELS];         /* number read last */
    unsigned        told[CHANNELS];         /* that some may be missing */
    u_char          body[NGX_RT_EVENT_MAX + sizeof(head_t) + LARGEST];
} follow_t;


static void
follow_message(reader_t *r, follow_t *f, size_t len)
{
    head_t    head;
    int64_t   n;
    uint32_t  i;

    memcpy(&head, f->body, sizeof(head_t));

    if (head.channel >= CHANNELS || !whole(f->body, len, head.channel, &i)) {
        r->torn++;
        return;
    }

    n = head.n;
    i = head.channel;
    r->read++;

    if (n <= f->last[i]) {
        r->back++;

    } else if (n > f->last[i] + 1) {
        r->lost += n - f->last[i] - 1;
        r->silent += !f->told[i];

    } else {
        r->doubted += f->told[i];
    }

    f->told[i] = 0;
    f->last[i] = n;
}


/* reads what a channel retains; NGX_AGAIN: it was moved meanwhile */

static ngx_int_t
follow_history(reader_t *r, follow_t *f, ngx_uint_t c, uint64_t *after)
{
    uint64_t             offs[HISTORY * 2], seqs[HISTORY * 2];
    ngx_int_t            i, n;
    ngx_rt_view_t        view;
    ngx_rt_record_sh_t   rec;

    while (ngx_rt_table_look(st, &keys[c], 100000, &view) != NGX_OK) {
        sched_yield();
    }

    n = ngx_rt_store_history(st, view.entry, view.gen, *after, f->seq, offs,
                             seqs, HISTORY * 2);

    /* the floor after the list: it tells of all that is not in it */

    while (ngx_rt_table_look(st, &keys[c], 100000, &view) != NGX_OK) {
        sched_yield();
    }

    if (n < 0) {
        r->strange++;
        return NGX_OK;
    }

    f->told[c] |= (view.floor > *after);

    for (i = 0; i < n; i++) {

        if (ngx_rt_log_peek(st, offs[i], &rec) != NGX_OK
            || rec.data_len > sizeof(f->body)
            || ngx_rt_log_body(st, offs[i], &rec, f->body) != NGX_OK)
        {
            return NGX_AGAIN;
        }

        r->strange += rec.seq != seqs[i];
        follow_message(r, f, rec.data_len);
        *after = seqs[i];
    }

    return NGX_OK;
}


/* overtaken: on from the head, and what lies between from the history */

static void
follow_overrun(reader_t *r, follow_t *f)
{
    uint64_t    from, after;
    ngx_uint_t  c;

    from = f->seq;
    r->overrun++;

    ngx_rt_store_lock(st);
    f->pos = st->sh->head;
    f->seq = st->sh->seq;
    ngx_rt_store_unlock(st);

    r->strange += f->seq < from;

    for (c = 0; c < CHANNELS; c++) {
        after = from;

        while (follow_history(r, f, c, &after) == NGX_AGAIN) {
            /* void */
        }
    }
}


static void *
follower(void *data)
{
    reader_t            *r;
    follow_t             f;
    ngx_int_t            rc;
    ngx_uint_t           c;
    ngx_rt_record_sh_t   rec;

    r = data;
    memset(&f, 0, sizeof(f));

    for (c = 0; c < CHANNELS; c++) {
        f.last[c] = -1;
    }

    f.pos = st->sh->log_size;

    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
        rc = ngx_rt_log_peek(st, f.pos, &rec);

        if (rc == NGX_DONE) {
            sched_yield();
            continue;
        }

        if (rc == NGX_OK && rec.type == NGX_RT_MESSAGE
            && !(rec.flags & NGX_RT_COPY) && rec.seq > f.seq)
        {
            rc = (rec.data_len > sizeof(f.body))
                 ? NGX_DECLINED
                 : ngx_rt_log_body(st, f.pos, &rec, f.body);

            if (rc == NGX_OK) {
                follow_message(r, &f, rec.data_len);
                f.seq = rec.seq;
            }
        }

        if (rc == NGX_OK) {
            f.pos += rec.size;
            continue;
        }

        follow_overrun(r, &f);

        while (r->late && !__atomic_load_n(&done, __ATOMIC_ACQUIRE)
               && ngx_rt_store_head(st) < f.pos + 2 * st->sh->log_size)
        {
            sched_yield();
        }
    }

    return NULL;
}


static void
open_zone(void *mem)
{
    u_char      random[32], buf[32];
    ngx_str_t   name;
    ngx_uint_t  i;

    memset(random, 7, sizeof(random));

    is_int(ngx_rt_store_create(st, mem, ZONE, 4, random), NGX_OK, "created");

    (void) ngx_shmtx_create(&mutex, &mutex_sh, NULL);

    st->mutex = &mutex;
    st->history = HISTORY;
    st->message_max = 8192;

    is_int(ngx_rt_lease_take(st, 0, getpid(), 100000000, &term), NGX_OK,
           "a feeder");

    for (i = 0; i < CHANNELS; i++) {
        name_of(i, buf, &name);
        ngx_rt_table_key(st, &name, &keys[i]);
    }
}


static void
report(const char *what, reader_t *r)
{
    diag("%s: %llu read, %llu times overtaken, %llu lost and told, "
         "%llu told for nothing", what, (unsigned long long) r->read,
         (unsigned long long) r->overrun, (unsigned long long) r->lost,
         (unsigned long long) r->doubted);

    ok(r->read > 100, "%s read", what);
    is_int(r->torn, 0, "%s: none was torn", what);
    is_int(r->back, 0, "%s: versions and numbers only grow", what);
    is_int(r->silent, 0, "%s: nothing was lost in silence", what);
    is_int(r->strange, 0, "%s: each was what it was said to be", what);
}


int
main(void)
{
    void       *mem;
    reader_t    readers[POLLERS + FOLLOWERS];
    pthread_t   writers[WRITERS], tid[POLLERS + FOLLOWERS];
    ngx_uint_t  i;

    if (posix_memalign(&mem, 128, ZONE) != 0) {
        return 1;
    }

    open_zone(mem);

    memset(readers, 0, sizeof(readers));

    for (i = 0; i < POLLERS + FOLLOWERS; i++) {
        readers[i].seed = (unsigned) (100 + i);
        readers[i].late = i & 1;

        pthread_create(&tid[i], NULL, i < POLLERS ? poller : follower,
                       &readers[i]);
    }

    for (i = 0; i < WRITERS; i++) {
        pthread_create(&writers[i], NULL, writer, (void *) (uintptr_t) (i + 1));
    }

    for (i = 0; i < WRITERS; i++) {
        pthread_join(writers[i], NULL);
    }

    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);

    for (i = 0; i < POLLERS + FOLLOWERS; i++) {
        pthread_join(tid[i], NULL);
    }

    diag("%u turns, %u killed, of those %u behind the commit; %llu evicted, "
         "%llu trimmed, round %llu times", turns, killed, there,
         (unsigned long long) st->sh->evicted,
         (unsigned long long) st->sh->trimmed,
         (unsigned long long) (st->sh->head / st->sh->log_size));

    is_int(failed, 0, "no publish failed");
    ok(killed > 100 && there > 0 && there < killed, "writers were killed");
    ok(st->sh->repaired > 100, "and repaired after");
    ok(st->sh->head > 50 * st->sh->log_size, "the log came round");
    ok(st->sh->evicted > 100, "channels were forgotten");

    report("poller 1", &readers[0]);
    report("poller 2", &readers[1]);
    report("follower 1", &readers[2]);
    report("late follower", &readers[3]);

    ok(readers[3].overrun > 10 && readers[3].lost > 10,
       "the late one was overtaken");

    free(mem);
    done_testing();
}
