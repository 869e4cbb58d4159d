
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The input is a program: a zone and what happens to it, publishes, lookups,
 * the feed, the lease, writers killed before any of their stores, readers
 * between any two of them.  After each step the zone is compared with a model
 * that knows the messages and nothing of rings, lists and locks.
 *
 * Every store of layer 1 into shared memory that matters is an atomic one,
 * so a macro makes each of them a place where the writer is killed, or where
 * a reader comes in between.
 */


#include "store_zone.h"
#include "store_model.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* steps: what they are given and give */

static ngx_int_t   rc;
static unsigned    create, queued;
static uint64_t    seq, with_term;
static ngx_uint_t  budget;
static time_t      inactive;
static size_t      len;
static u_char      buf[NGX_RT_CHANNEL_MAX];


static void
begin(int op, uint32_t channel)
{
    ngx_memzero(&pending, sizeof(pending_t));

    pending.op = op;
    pending.channel = channel;

    get_sums(&before);

    with_term = (u8() == 255) ? term - 1 : term;
}


/* the term that the next call is made with is that of the lease */

static unsigned
allowed(void)
{
    return st->embedded || (pid && st->sh->feed.term == with_term);
}


static void
repair(void)
{
    ngx_rt_store_lock(st);
    ngx_rt_store_unlock(st);
}


/*
 * Runs a step.  If it is killed the master opens the lock, readers find what
 * it left, and the next writer repairs, or is killed and leaves it to the one
 * after it.  Returns how many were killed.
 */

static unsigned
run(void (*work)(void))
{
    volatile unsigned  crashed, i;
    void (*volatile  next)(void);

    crashed = 0;
    steps = 0;
    next = work;

    while (next) {
        armed = 1;

        if (setjmp(jump) == 0) {
            next();
            next = NULL;

        } else {
            crashed++;
            mutex_sh.lock = 0;

            armed = 0;
            follow();

            for (i = 0; i < CHANNELS; i++) {
                look(&channels[i]);
            }

            crash_at = crash_again;
            crash_again = 0;
            next = repair;
        }

        armed = 0;
    }

    crash_at = 0;
    crash_again = 0;
    read_at = 0;
    damaged |= crashed;

    return crashed;
}


/* as one of many, which is the last one looked at */

static void
post(const ngx_str_t *name, uint32_t entry, const ngx_rt_message_t *msg,
    const u_char *digest)
{
    ngx_rt_post_t  posts[2];

    ngx_memzero(posts, sizeof(posts));

    posts[0].msg = *msg;
    posts[0].entry = (digest[0] & 1) ? entry : digest[1];
    ngx_memcpy(posts[0].tag, digest, NGX_RT_TAG_LEN);
    ngx_rt_table_key(st, name, &posts[0].key);

    if (ngx_rt_store_post(st, with_term, posts, 1, now) != 1) {
        __builtin_trap();
    }

    rc = posts[0].rc;
    seq = posts[0].seq;
}


static void
do_publish(void)
{
    u_char             digest[NGX_RT_TAG_LEN];
    msg_t             *m;
    channel_t         *c;
    ngx_rt_message_t   msg;

    m = &pending.msg;
    c = &channels[pending.channel];

    ngx_memzero(&msg, sizeof(ngx_rt_message_t));
    msg.data.data = (u_char *) data_of(m);
    msg.data.len = m->len;
    msg.event.data = (u_char *) event_of(m);
    msg.event.len = m->event_len;

    digest_of(m, digest);

    if (!st->stream && !create && (m->len & 1)) {
        post(&c->name, c->entry, &msg, digest);
        return;
    }

    rc = ngx_rt_store_publish(st, with_term, &c->name, &msg, digest, now,
                              create, &seq);
}


/* bytes of a payload by two bytes of the input */

static uint32_t
some_length(unsigned event_len)
{
    uint32_t  max, n, how;

    max = ngx_rt_log_max(st->sh) - sizeof(ngx_rt_record_sh_t) - event_len;
    max = ngx_min(max, st->message_max);
    how = u8();
    n = how >> 3;

    switch (how & 7) {
    case 0:
        return n;
    case 1:
        return max - n % 16;
    case 2:
        return max + 1 + n;
    case 3:
        return max / 4 * n / 32;
    case 4:
        return max * n / 32;
    default:
        return n * 8;
    }
}


static void
publish(unsigned bytes)
{
    msg_t      *m;
    unsigned    crashed, there, fits, may;
    uint32_t    n;
    channel_t  *c;

    begin(PUBLISH, u8() % CHANNELS);

    n = u8();
    create = (n & 0xf0) != 0xf0;

    m = &pending.msg;
    m->channel = (uint8_t) pending.channel;
    m->kind = n & 7;
    m->event_len = (n & 8) ? n * 2 - 1 : 0;
    m->time = now;
    m->len = some_length(m->event_len);

    c = &channels[pending.channel];
    there = c->there;
    may = allowed();
    fits = (m->len <= st->message_max
            && size_of(m) <= ngx_rt_log_max(st->sh));

    crashed = run(do_publish);

    if (!fits) {
        /* no room is made for it */
        m->len = 0;
        m->event_len = 0;
    }

    verify(crashed, bytes);

    if (crashed) {
        check(fits || !pending.published);
        return;
    }

    check(st->sh->dropped - before.dropped == (may && !fits));

    if (!may) {
        check(rc == NGX_ABORT && st->sh->seq == before.seq);

    } else if (!fits) {
        check(rc == NGX_ERROR && seq == pending.dropped);
        check((seq != 0) == there);

    } else if (!there && !create) {
        check(rc == NGX_DECLINED && st->sh->seq == before.seq);

    } else {
        check(rc == NGX_OK && seq == pending.published && seq);
    }
}


static void
do_touch(void)
{
    ngx_uint_t     q;
    ngx_rt_view_t  view;

    rc = ngx_rt_store_touch(st, &channels[pending.channel].name,
                            (time_t) (now / 1000), &view, &q);

    queued = q;
}


static void
touch(void)
{
    unsigned    crashed, asked;
    channel_t  *c;

    begin(TOUCH, u8() % CHANNELS);

    c = &channels[pending.channel];
    asked = c->there && c->asked;

    crashed = run(do_touch);
    verify(crashed, 0);

    if (!c->there) {
        check(crashed);
        return;
    }

    c->asked = (st->entries[c->entry].flags & NGX_RT_WANTED) != 0;

    if (!crashed) {
        check(rc == NGX_OK && c->asked);
        check(queued == (!asked && !st->embedded));
    }

    if (c->asked && !asked && !st->embedded) {
        c->wanted = 1;
    }

    verify_queue();
}


static void
do_confirm(void)
{
    rc = ngx_rt_store_confirm(st, with_term, &channels[pending.channel].name);
}


static void
confirm(void)
{
    unsigned    crashed, was, may;
    channel_t  *c;

    begin(CONFIRM, u8() % CHANNELS);

    c = &channels[pending.channel];
    may = allowed();
    was = c->there && c->confirmed;

    crashed = run(do_confirm);
    verify(crashed, 0);

    if (crashed) {
        return;
    }

    check(rc == (!may ? NGX_ABORT : c->there ? NGX_OK : NGX_DECLINED));
    check((pending.confirmed != 0) == (may && c->there && !was));
}


static void
do_expire(void)
{
    rc = ngx_rt_store_expire(st, with_term, &iter, &budget,
                             (time_t) (now / 1000), inactive, buf, &len);
}


static void
expire(void)
{
    unsigned    crashed, may, all;
    uint32_t    used[CHANNELS];
    channel_t  *c;

    begin(EXPIRE, CHANNELS);

    inactive = u8() & 31;
    budget = u8() & 63;
    all = (budget >= st->sh->top);
    may = allowed();

    for (c = channels; c < channels + CHANNELS; c++) {
        used[c - channels] = 0;

        if (c->there && now / 1000 > st->entries[c->entry].used) {
            used[c - channels] = now / 1000 - st->entries[c->entry].used;
        }
    }

    crashed = run(do_expire);
    verify(crashed, 0);

    if (crashed) {
        return;
    }

    if (!may) {
        check(rc == NGX_ABORT);
        return;
    }

    if (rc == NGX_OK) {
        c = by_name(buf, len);
        check(c && !c->there && used[c - channels] > inactive);
        check(st->sh->expired == before.expired + 1);
        return;
    }

    check(rc == NGX_DONE && st->sh->expired == before.expired);

    for (c = channels; c < channels + CHANNELS; c++) {
        check(!all || !c->there || used[c - channels] <= inactive);
    }
}


static void
do_want(void)
{
    rc = ngx_rt_store_want(st, with_term, buf, &len, NULL);
}


static void
want(void)
{
    unsigned    crashed, may;
    channel_t  *c;

    begin(WANT, CHANNELS);
    may = allowed();

    crashed = run(do_want);

    if (crashed) {
        /* one may have been told to a feeder that died */
        for (c = channels; c < channels + CHANNELS; c++) {
            c->wanted = 0;
        }

    } else if (!may) {
        check(rc == NGX_ABORT);

    } else if (rc == NGX_OK) {
        c = by_name(buf, len);
        check(c && c->there);
        c->wanted = 0;

    } else {
        check(rc == NGX_DONE && st->sh->feed.want == NGX_RT_NONE);
    }

    verify(crashed, 0);
}


static void
do_want_all(void)
{
    rc = ngx_rt_store_want_all(st, with_term, 0);
}


static void
want_all(void)
{
    unsigned    crashed;
    channel_t  *c;

    begin(WANT_ALL, CHANNELS);

    crashed = run(do_want_all);

    if (!crashed && allowed()) {
        check(rc == (ngx_int_t) st->sh->channels);

        for (c = channels; c < channels + CHANNELS; c++) {
            c->wanted = c->there;
        }

    } else {
        check(crashed || rc == NGX_ABORT);
    }

    verify(crashed, 0);
}


static uint32_t  as;

static void
do_take(void)
{
    rc = ngx_rt_lease_take(st, as % 4, PID + as, now, &with_term);
}


static void
do_renew(void)
{
    rc = ngx_rt_lease_renew(st, with_term, now);
}


static void
do_release(void)
{
    rc = NGX_OK;
    ngx_rt_lease_release(st, with_term);
}


static void
lease(void)
{
    unsigned           how, crashed, held, may;
    uint64_t           was;
    ngx_rt_feed_sh_t  *feed;

    begin(LEASE, CHANNELS);

    feed = &st->sh->feed;
    how = u8();
    as = how >> 4;
    was = feed->term;
    may = allowed();

    switch (how & 3) {

    case 0:
    case 1:
        held = (pid && !(pid & 1)
                && !(now > renewed && now - renewed >= NGX_RT_LEASE_DEAD));

        crashed = run(do_take);

        if (!crashed) {
            check(rc == (held ? NGX_DECLINED : NGX_OK));
            check(feed->term == was + !held);

            if (!held) {
                check(with_term == feed->term && feed->renewed == now);
                term = with_term;
            }
        }

        /* never the same term twice */
        check(feed->term == was || (feed->term == was + 1 && !held));

        /* a feed that was taken over was lost when it was heard last */

        if (live && feed->state != NGX_RT_FEED_LIVE) {
            check(!held && feed->lost == ngx_max(renewed, 1));
            live = 0;
            lost = feed->lost;

        } else if (live && !held) {
            check(crashed);
            lost = feed->lost;
        }

        break;

    case 2:
        crashed = run(do_renew);
        check(crashed || rc == (may ? NGX_OK : NGX_ABORT));
        check(feed->term == was);
        check(feed->renewed == (may && !crashed ? now : renewed)
              || (crashed && may));
        break;

    default:
        crashed = run(do_release);
        check(feed->term == was);
        check(may || feed->pid == pid);
        check(crashed || !may || feed->pid == 0);
    }

    renewed = feed->renewed;
    pid = feed->pid;

    verify(crashed, 0);
}


static ngx_uint_t  state;

static void
do_feed(void)
{
    ngx_str_t  server = ngx_string("127.0.0.1:6379");

    rc = ngx_rt_feed_set(st, with_term, state, &server, now);
}


static void
feed_state(void)
{
    unsigned           crashed, may, fresh;
    uint64_t           stale, was;
    channel_t         *c;
    ngx_rt_feed_sh_t  *feed;

    begin(FEED, CHANNELS);

    state = NGX_RT_FEED_CONNECTING + u8() % 3;
    stale = u8() * 40;
    may = allowed();
    was = session;
    feed = &st->sh->feed;

    crashed = run(do_feed);

    if (!crashed) {
        check(rc == (may ? NGX_OK : NGX_ABORT));

        if (may) {
            if (live && state != NGX_RT_FEED_LIVE) {
                lost = now;
            }

            live = (state == NGX_RT_FEED_LIVE);

            if (live) {
                lost = 0;
                session++;
            }
        }

    } else {
        /* live is a new session, always */

        check(feed->state != NGX_RT_FEED_LIVE || live
              || feed->session > session);
        check(may || feed->session == session);

        session = feed->session;
        live = (feed->state == NGX_RT_FEED_LIVE);
        lost = feed->lost;
    }

    check(feed->session == session);
    check((feed->state == NGX_RT_FEED_LIVE) == live && feed->lost == lost);

    for (c = channels; c < channels + CHANNELS; c++) {
        c->confirmed = (c->confirmed && session == was);
    }

    verify(crashed, 0);

    fresh = live ? now <= renewed || now - renewed < NGX_RT_LEASE_DEAD
                   || now - renewed < stale
                 : lost != 0 && (now <= lost || now - lost < stale);

    check(ngx_rt_feed_fresh(st, now, stale) == fresh);
}


/* a client that resumes: from any place, by content */

static void
resume(void)
{
    u_char         digest[NGX_RT_TAG_LEN];
    uint32_t       i, first, end;
    uint64_t       after, upto, offs[16], seqs[16], found;
    ngx_int_t      n, max;
    const msg_t   *m;
    channel_t     *c;

    begin(OTHER, CHANNELS);

    c = &channels[u8() % CHANNELS];
    max = 1 + u8() % 16;
    after = u8();
    upto = u8();
    after = (after < st->sh->seq) ? st->sh->seq - after : 0;
    upto = (upto < st->sh->seq) ? st->sh->seq + 2 - upto : 0;

    n = ngx_rt_store_history(st, c->entry, c->gen, after, upto, offs, seqs,
                             max);

    check(ngx_rt_store_history(st, c->entry, c->gen + 1, 0, upto, offs, seqs,
                               max) == NGX_DECLINED || !c->there);

    if (!c->there) {
        check(n == NGX_DECLINED);
        return;
    }

    for (first = 0; first < c->n; first++) {
        if (messages[c->list[first]].seq > after) {
            break;
        }
    }

    for (end = first; end < c->n; end++) {
        if (messages[c->list[end]].seq > upto) {
            break;
        }
    }

    check(n == ngx_min((ngx_int_t) (end - first), max));

    for (i = 0; i < n; i++) {
        m = &messages[c->list[end - n + i]];
        check(seqs[i] == m->seq);
        same(offs[i], m);
    }

    if (nmessages == 0) {
        return;
    }

    m = &messages[nmessages - 1 - u16() % nmessages];
    c = &channels[m->channel];
    digest_of(m, digest);
    rc = ngx_rt_store_find(st, c->entry, c->gen, digest, &found);

    for (i = 0; c->there && i < c->n; i++) {
        digest_of(&messages[c->list[i]], buf);

        if (memcmp(buf, digest, NGX_RT_DIGEST_LEN) == 0) {
            check(rc == NGX_OK && found == messages[c->list[i]].seq);
            return;
        }
    }

    check(rc == NGX_DECLINED);
}


static void
names(void)
{
    channel_t      *c;
    ngx_rt_view_t   view;

    begin(OTHER, CHANNELS);

    c = &channels[u8() % CHANNELS];

    look(c);

    if (c->there) {
        check(ngx_rt_store_name(st, c->entry, c->gen, buf, &len) == NGX_OK);
        check(by_name(buf, len) == c);
        check(ngx_rt_store_name(st, c->entry, c->gen + 1, buf, &len)
              == NGX_DECLINED);
        check(ngx_rt_table_view(st, c->entry, c->gen - 1, &view)
              == NGX_DECLINED);
    }
}


/* no offset at all leads out of the zone */

static void
anywhere(void)
{
    u_char              *body;
    uint64_t             off;
    ngx_rt_record_sh_t   rec;

    off = st->sh->head - u16() * 8 + (u8() & 7) * 4;

    if (ngx_rt_log_peek(st, off, &rec) == NGX_OK && rec.type != NGX_RT_PAD) {
        body = malloc((size_t) rec.event_len + rec.data_len + 1);
        check(body != NULL);
        (void) ngx_rt_log_body(st, off, &rec, body);
        free(body);
    }
}


/* a reload: another handle to the same zone */

static void
attach(void)
{
    ngx_rt_store_t  other;

    other = *st;

    check(ngx_rt_store_attach(&other, zone, zone_size - 8) == NGX_DECLINED);
    check(ngx_rt_store_attach(&other, zone, zone_size) == NGX_OK);
    check(other.entries == st->entries && other.log == st->log);

    *st = other;
    limits();
}


static void
one_step(void)
{
    unsigned  n;

    n = u8();

    switch (n & 15) {
    case 0:
    case 1:
    case 2:
        publish(1);
        break;

    case 3:
        /* the ring comes round */
        for (n = 1 + u8() % 64; n && nmessages < MESSAGES - 1; n--) {
            publish(n == 1);
        }
        break;

    case 4:
        touch();
        break;

    case 5:
        confirm();
        break;

    case 6:
        expire();
        break;

    case 7:
        want();
        break;

    case 8:
        n & 16 ? want_all() : names();
        break;

    case 9:
        st->embedded ? touch() : lease();
        break;

    case 10:
        st->embedded ? resume() : feed_state();
        break;

    case 11:
        resume();
        break;

    case 12:
        /* the next writer is killed, perhaps who repairs too */
        crash_at = u8() + 1;
        crash_at += (n & 16) ? crash_at * (u8() & 15) : 0;
        crash_again = (n & 32) ? u8() + 1 : 0;
        break;

    case 13:
        read_at = u8() + 1;
        read_every = 1 + (n >> 4);
        break;

    case 14:
        follow_lazily(u8());
        now += (n & 16) ? u8() * 4 : 0;
        now -= (n & 32) ? u8() : 0;
        now += (n & 64) ? u16() : 0;
        break;

    default:
        n & 16 ? attach() : anywhere();
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    in = data;
    last = data + size;

    open_zone();
    open_model();

    crash_at = 0;
    crash_again = 0;
    read_at = 0;

    while (in < last && nmessages < MESSAGES - 1) {
        one_step();
    }

    begin(OTHER, CHANNELS);
    verify(0, 1);
    follow_lazily(100000);

    return 0;
}
