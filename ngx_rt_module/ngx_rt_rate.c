
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * How often a channel changes, and how many clients poll it: what the advice
 * to clients is made from.  Arithmetic over one line of shared memory, written
 * without a lock.
 *
 * Changes.  The mean of the gaps between them, a new gap having the weight of
 * an eighth, or more while there were fewer.  A gap counts as 4 times the mean
 * and 10 seconds at the most, and pulls the mean down to 4 times itself and 10
 * seconds at once: so a quiet night is over after some changes, and so is a
 * busy one.  What is advised is the mean or the time since the last change,
 * whichever is more.
 *
 * Pollers.  A poll speaks for the time since the same client's poll before,
 * its gap.  Gaps are added up in sums that halve every 14 seconds; divided by
 * the time that such a sum stands for this is the number of pollers, whatever
 * their intervals.  The gap is known where the client's connection is kept
 * (`own`).  Of polls without one (`other`) their number is counted, and a gap
 * for all of them comes from a roll call, else it is the interval advised.
 *
 * Roll call.  It begins with a change.  From its cursor each conditional poll
 * tells whether the client has seen that change: who has not is called, and
 * called once only; who has, returns.
 *
 *     called    1   2 3     4
 *     returned                1   2 3     4      and then it is done
 *               |<--- gap --->|
 *
 * When as many have returned as were called, the sum of these times less that
 * of the first is the sum of the gaps: so many pollers, that gap.  Both tell
 * of pollers behind a proxy, too, who share connections; what the connections
 * told is then far from it, and does not count.
 *
 * Polls that wait (`Prefer: wait`) are known while they do; for the moment
 * after it the most of the last two seconds counts.
 */


#include <ngx_rt_rate.h>


#define NGX_RT_RATE_TICK          250       /* ms */
#define NGX_RT_RATE_TAU           20198     /* ms: a half-life of 56 ticks */
#define NGX_RT_RATE_DECAY         0xfcd9d1c1ULL    /* of one tick */
#define NGX_RT_RATE_FORGET        320       /* ticks without a poll */
#define NGX_RT_RATE_BACK          40        /* ticks that clocks may differ */
#define NGX_RT_RATE_TICKS         (1U << 22)
#define NGX_RT_RATE_AGE           1023U

#define NGX_RT_RATE_SUM           128       /* units in a second */
#define NGX_RT_RATE_ONE           1024      /* units of a poll */

#define NGX_RT_RATE_GAPS          8
#define NGX_RT_RATE_SLACK         10000     /* ms */
#define NGX_RT_RATE_LONGEST       (24 * 3600 * 1000)

#define NGX_RT_RATE_GAP_MAX       (10 * 60 * 1000)
#define NGX_RT_RATE_CALL_TICKS    600       /* a roll call is given up */
#define NGX_RT_RATE_DONE          (1ULL << 63)

#define NGX_RT_RATE_LATELY        8         /* ticks */
#define NGX_RT_RATE_IDLE          8         /* polls that should have come */

#define NGX_RT_RATE_SCAN          262144    /* channels looked at */


typedef struct {
    uint64_t                      own;      /* 1/1000 pollers */
    uint64_t                      polls;    /* all, in units */
    uint64_t                      other;
    uint64_t                      age;      /* ms */
    uint64_t                      idle;     /* ms since the last poll */
} ngx_rt_rate_sums_t;


static uint64_t ngx_rt_rate_decay(uint64_t ticks);
static uint64_t ngx_rt_rate_mass(uint64_t ms);
static uint32_t ngx_rt_rate_elapsed(uint32_t stamp, uint64_t now);
static void ngx_rt_rate_advance(ngx_rt_rate_sh_t *rt, uint64_t now);
static void ngx_rt_rate_less(uint32_t *sum, uint64_t decay);
static void ngx_rt_rate_tell(ngx_rt_rate_sh_t *rt, const ngx_rt_poll_t *poll);
static void ngx_rt_rate_call(ngx_rt_rate_sh_t *rt, const ngx_rt_poll_t *poll);
static uint64_t ngx_rt_rate_count(uint64_t polls, uint64_t gap, uint64_t age);
static ngx_uint_t ngx_rt_rate_like(uint64_t a, uint64_t b);
static ngx_uint_t ngx_rt_rate_nearer(uint64_t a, uint64_t b, uint64_t n);
static uint64_t ngx_rt_rate_pollers(ngx_rt_rate_sh_t *rt,
    ngx_rt_rate_sums_t *s);
static void ngx_rt_rate_sums(ngx_rt_rate_sh_t *rt, uint64_t now,
    ngx_rt_rate_sums_t *s);
static uint32_t ngx_rt_rate_held(ngx_rt_store_t *st, ngx_rt_rate_sh_t *rt,
    uint64_t now);
static uint32_t ngx_rt_rate_now_held(ngx_rt_store_t *st, ngx_rt_rate_sh_t *rt);
static ngx_uint_t ngx_rt_rate_busier(ngx_rt_rate_t *a, ngx_rt_rate_t *b);


#define ngx_rt_rate_none(st, index)                                           \
    ((index) == NGX_RT_NONE || (index) >= (st)->sh->nentries)

#define ngx_rt_rate_low(interval, min)                                        \
    ngx_max((uint64_t) (interval) - (interval) / 5, (min))

#define ngx_rt_rate_high(interval, max)                                       \
    ngx_min((uint64_t) (interval) + (interval) / 5, (max))

#define ngx_rt_rate_ticks(now)    ((uint32_t) ((now) / NGX_RT_RATE_TICK))


void
ngx_rt_rate_reset(ngx_rt_store_t *st, uint32_t index, uint64_t now)
{
    ngx_rt_rate_sh_t  *rt;

    rt = &st->rates[index];

    ngx_rt_set(rt->stamp, 0);
    ngx_rt_set(rt->sum, 0);
    ngx_rt_set(rt->own, 0);
    ngx_rt_set(rt->other, 0);
    ngx_rt_set(rt->calls, NGX_RT_RATE_DONE);
    ngx_rt_set(rt->span, 0);
    ngx_rt_set(rt->result, 0);
    ngx_rt_set(rt->mark, 0);
    ngx_rt_set(rt->begun, 0);
    ngx_rt_set(rt->told, 0);
    ngx_rt_set(rt->changed, (uint32_t) now);
    ngx_rt_set(rt->mean, 0);
    ngx_rt_set(rt->held, 0);
    ngx_rt_set(rt->lately, 0);
}


/* mean's low bits: 0, no change yet; 1, one and no gap yet; n + 1, n gaps */

void
ngx_rt_rate_change(ngx_rt_store_t *st, uint32_t index, uint32_t mark,
    uint64_t at, uint64_t now)
{
    int32_t            diff;
    uint32_t           n;
    uint64_t           gap, mean, calls;
    ngx_rt_rate_sh_t  *rt;

    rt = &st->rates[index];

    n = rt->mean & 15;
    mean = rt->mean >> 4;

    diff = (int32_t) ((uint32_t) at - rt->changed);
    gap = (diff > 0) ? (uint64_t) diff : 0;
    gap = ngx_min(gap, NGX_RT_RATE_LONGEST);

    if (n >= 2) {
        gap = ngx_min(gap, 4 * mean + NGX_RT_RATE_SLACK);

        if (mean > 4 * gap + NGX_RT_RATE_SLACK) {
            mean = 4 * gap + NGX_RT_RATE_SLACK;
            n = 2;
        }
    }

    if (n) {
        mean = (mean * (n - 1) + gap) / n;
    }

    n = ngx_min(n + 1, NGX_RT_RATE_GAPS);

    ngx_rt_set(rt->mean, (uint32_t) mean << 4 | n);

    if (diff > 0 || n <= 2) {
        ngx_rt_set(rt->changed, (uint32_t) at);
    }

    /* of a roll call that nobody has answered yet this is the better begin */

    calls = ngx_rt_get(rt->calls);

    if ((calls & NGX_RT_RATE_DONE) || (calls >> 32) == 0
        || (uint16_t) (ngx_rt_rate_ticks(now) - rt->begun)
           > NGX_RT_RATE_CALL_TICKS)
    {
        ngx_rt_set(rt->calls, NGX_RT_RATE_DONE);
        ngx_rt_set(rt->span, 0);
        ngx_rt_set(rt->mark, mark);
        ngx_rt_set(rt->begun, (uint16_t) ngx_rt_rate_ticks(now));
        __atomic_store_n(&rt->calls, 0, __ATOMIC_RELEASE);
    }
}


/* ids are times as a rule; *at stays what it is where this one is not */

uint32_t
ngx_rt_rate_mark_sid(const u_char tag[NGX_RT_TAG_LEN], uint64_t *at)
{
    uint64_t    ms;
    ngx_uint_t  i;

    ms = 0;

    for (i = 0; i < 8; i++) {
        ms = ms << 8 | tag[i];
    }

    if (ms < *at && *at - ms < NGX_RT_RATE_LONGEST) {
        *at = ms;
    }

    return (uint32_t) ms;
}


/* 2^(-ticks / 56), as a fraction of 2^32 */

static uint64_t
ngx_rt_rate_decay(uint64_t ticks)
{
    /* of 0 to 31 ticks, and of 32 times as many */

    static const uint32_t  fine[32] = {
        0x00000000, 0xfcd9d1c1, 0xf9bd8e49, 0xf6ab165e,
        0xf3a24b26, 0xf0a30e2a, 0xedad4153, 0xeac0c6e8,
        0xe7dd818d, 0xe5035444, 0xe232226a, 0xdf69cfb5,
        0xdcaa4035, 0xd9f35852, 0xd744fccb, 0xd49f12b4,
        0xd2017f76, 0xcf6c28cf, 0xccdef4ce, 0xca59c9d4,
        0xc7dc8e95, 0xc5672a11, 0xc2f9839a, 0xc09382cd,
        0xbe350f95, 0xbbde122a, 0xb98e730c, 0xb7461b09,
        0xb504f334, 0xb2cae4eb, 0xb097d9d2, 0xae6bbbd3
    };

    static const uint32_t  coarse[32] = {
        0x00000000, 0xac467520, 0x73eec0c7, 0x4e0451d9,
        0x34805fdd, 0x2354b388, 0x17c6a1f3, 0x10000000,
        0x0ac46752, 0x073eec0c, 0x04e0451e, 0x034805fe,
        0x02354b39, 0x017c6a1f, 0x01000000, 0x00ac4675,
        0x0073eec1, 0x004e0452, 0x00348060, 0x002354b4,
        0x0017c6a2, 0x00100000, 0x000ac467, 0x00073eec,
        0x0004e045, 0x00034806, 0x0002354b, 0x00017c6a,
        0x00010000, 0x0000ac46, 0x000073ef, 0x00004e04
    };

    uint64_t  d;

    if (ticks > NGX_RT_RATE_AGE) {
        return 0;
    }

    d = (ticks & 31) ? fine[ticks & 31] : 1ULL << 32;

    return (ticks > 31) ? (d * coarse[ticks >> 5]) >> 32 : d;
}


/* ms that a sum stands for which has been counted for so long */

static uint64_t
ngx_rt_rate_mass(uint64_t ms)
{
    uint64_t  d, next;

    d = ngx_rt_rate_decay(ms / NGX_RT_RATE_TICK);
    next = (d * NGX_RT_RATE_DECAY) >> 32;

    d -= (d - next) * (ms % NGX_RT_RATE_TICK) / NGX_RT_RATE_TICK;

    return ngx_max(NGX_RT_RATE_TAU - ((NGX_RT_RATE_TAU * d) >> 32), 1);
}


/* ticks since the stamp; NGX_RT_RATE_TICKS: it is not of this time */

static uint32_t
ngx_rt_rate_elapsed(uint32_t stamp, uint64_t now)
{
    uint32_t  n;

    n = (ngx_rt_rate_ticks(now) - (stamp >> 10)) & (NGX_RT_RATE_TICKS - 1);

    if (n < NGX_RT_RATE_TICKS / 2) {
        return n;
    }

    return (n >= NGX_RT_RATE_TICKS - NGX_RT_RATE_BACK) ? 0
                                                       : NGX_RT_RATE_TICKS;
}


/*
 * One worker moves the stamp, and it lets the sums decay.  It subtracts, so
 * what others add meanwhile stays.
 */

static void
ngx_rt_rate_advance(ngx_rt_rate_sh_t *rt, uint64_t now)
{
    uint32_t  stamp, elapsed, age, fresh;
    uint64_t  decay;

    stamp = __atomic_load_n(&rt->stamp, __ATOMIC_ACQUIRE);
    elapsed = ngx_rt_rate_elapsed(stamp, now);

    if (elapsed == 0) {
        return;
    }

    age = (stamp & NGX_RT_RATE_AGE) + elapsed;

    fresh = (elapsed > NGX_RT_RATE_FORGET
             && elapsed * (NGX_RT_RATE_TICK / 2) / 1000
                > ngx_rt_get(rt->told) / 16U);

    if (fresh) {
        age = 0;
    }

    if (!__atomic_compare_exchange_n(&rt->stamp, &stamp,
                                     ngx_rt_rate_ticks(now) << 10
                                     | ngx_min(age, NGX_RT_RATE_AGE),
                                     0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
    {
        return;
    }

    if (fresh) {
        decay = 0;
        ngx_rt_set(rt->result, 0);

    } else {
        decay = ngx_rt_rate_decay(elapsed);
    }

    ngx_rt_rate_less(&rt->sum, decay);
    ngx_rt_rate_less(&rt->own, decay);
    ngx_rt_rate_less(&rt->other, decay);
}


static void
ngx_rt_rate_less(uint32_t *sum, uint64_t decay)
{
    uint32_t  n;

    n = __atomic_load_n(sum, __ATOMIC_RELAXED);

    if (n) {
        n -= (uint32_t) ((n * decay + (1ULL << 31)) >> 32);
        __atomic_fetch_sub(sum, n, __ATOMIC_RELAXED);
    }
}


void
ngx_rt_rate_poll(ngx_rt_store_t *st, uint32_t index,
    const ngx_rt_poll_t *poll)
{
    uint32_t           gap;
    ngx_rt_rate_sh_t  *rt;

    if (ngx_rt_rate_none(st, index)) {
        return;
    }

    rt = &st->rates[index];

    ngx_rt_rate_advance(rt, poll->now);

    gap = ngx_min(poll->gap, NGX_RT_RATE_GAP_MAX);

    if (gap) {
        __atomic_fetch_add(&rt->sum, (uint32_t) ((uint64_t) gap
                                                 * NGX_RT_RATE_SUM / 1000),
                           __ATOMIC_RELAXED);
        __atomic_fetch_add(&rt->own, NGX_RT_RATE_ONE, __ATOMIC_RELAXED);

    } else if (!poll->waits) {
        __atomic_fetch_add(&rt->other, NGX_RT_RATE_ONE, __ATOMIC_RELAXED);
    }

    ngx_rt_rate_tell(rt, poll);
}


void
ngx_rt_rate_first(ngx_rt_store_t *st, uint32_t index,
    const ngx_rt_poll_t *poll)
{
    if (ngx_rt_rate_none(st, index)) {
        return;
    }

    ngx_rt_rate_advance(&st->rates[index], poll->now);
    ngx_rt_rate_tell(&st->rates[index], poll);
}


static void
ngx_rt_rate_tell(ngx_rt_rate_sh_t *rt, const ngx_rt_poll_t *poll)
{
    uint32_t  told;

    if (poll->call != NGX_RT_CALL_NONE && !poll->waits) {
        ngx_rt_rate_call(rt, poll);
    }

    told = ngx_min((uint64_t) poll->told * 16 / 1000, 0xffff);
    told = (told & ~1U) | poll->sse;

    if (ngx_rt_get(rt->told) != told) {
        ngx_rt_set(rt->told, (uint16_t) told);
    }
}


/* the span goes first: who finds the call complete finds all of it there */

static void
ngx_rt_rate_call(ngx_rt_rate_sh_t *rt, const ngx_rt_poll_t *poll)
{
    int64_t   span, now;
    uint64_t  calls, called;

    calls = __atomic_load_n(&rt->calls, __ATOMIC_ACQUIRE);

    if (calls & NGX_RT_RATE_DONE) {
        return;
    }

    now = (int64_t) (poll->now & 0xffffffff);

    if (poll->call == NGX_RT_CALL_CURSOR
        && (int32_t) (poll->cursor - ngx_rt_get(rt->mark)) < 0)
    {
        __atomic_fetch_sub(&rt->span, now, __ATOMIC_RELAXED);
        __atomic_fetch_add(&rt->calls, 1ULL << 32, __ATOMIC_ACQ_REL);
        return;
    }

    called = calls >> 32;

    if ((calls & 0xffffffff) >= called) {
        return;
    }

    __atomic_fetch_add(&rt->span, now, __ATOMIC_RELAXED);
    calls = __atomic_add_fetch(&rt->calls, 1, __ATOMIC_ACQ_REL);

    called = calls >> 32;

    if ((calls & NGX_RT_RATE_DONE) || (calls & 0xffffffff) != called) {
        return;
    }

    span = __atomic_load_n(&rt->span, __ATOMIC_RELAXED) / (int64_t) called;

    if (span > 0 && span <= NGX_RT_RATE_GAP_MAX) {
        ngx_rt_set(rt->result, called << 32 | (uint64_t) span);
    }

    __atomic_fetch_or(&rt->calls, NGX_RT_RATE_DONE, __ATOMIC_RELAXED);
}


/* what it was before it falls is remembered for some seconds */

void
ngx_rt_rate_hold(ngx_rt_store_t *st, uint32_t index, uint32_t gen,
    ngx_rt_viewers_t *own, uint32_t n, uint64_t now)
{
    uint32_t           held;
    ngx_rt_rate_sh_t  *rt;

    if (ngx_rt_rate_none(st, index)) {
        return;
    }

    rt = &st->rates[index];

    if (n < own->count && now) {
        held = ngx_rt_rate_held(st, rt, now);

        if (held && held == ngx_rt_rate_now_held(st, rt)) {
            ngx_rt_set(rt->lately, ngx_rt_rate_ticks(now)
                                   << NGX_RT_VIEWERS_BITS | held);
        }
    }

    ngx_rt_viewers_word(st, &rt->held, index, gen, own, n);
}


static uint32_t
ngx_rt_rate_now_held(ngx_rt_store_t *st, ngx_rt_rate_sh_t *rt)
{
    uint32_t  word;

    word = __atomic_load_n(&rt->held, __ATOMIC_ACQUIRE);

    return ngx_rt_viewers_of(st, word);
}


static uint32_t
ngx_rt_rate_held(ngx_rt_store_t *st, ngx_rt_rate_sh_t *rt, uint64_t now)
{
    uint32_t  held, lately, ticks;

    held = ngx_rt_rate_now_held(st, rt);
    lately = ngx_rt_get(rt->lately);

    ticks = ngx_rt_rate_ticks(now) - (lately >> NGX_RT_VIEWERS_BITS);
    ticks &= (1U << (32 - NGX_RT_VIEWERS_BITS)) - 1;

    if (ticks > NGX_RT_RATE_LATELY) {
        return held;
    }

    lately &= (1U << NGX_RT_VIEWERS_BITS) - 1;

    return ngx_max(held, lately);
}


void
ngx_rt_rate_get(ngx_rt_store_t *st, uint32_t index, uint64_t now,
    ngx_rt_rate_t *rate)
{
    ngx_rt_rate_sums_t  s;

    ngx_rt_rate_told(st, index, now, rate);

    if (ngx_rt_rate_none(st, index)) {
        return;
    }

    ngx_rt_rate_sums(&st->rates[index], now, &s);

    if (s.polls) {
        rate->polls = s.polls * 1000 * 1000 / NGX_RT_RATE_ONE
                      / ngx_rt_rate_mass(ngx_max(s.age, 1000));
    }
}


void
ngx_rt_rate_told(ngx_rt_store_t *st, uint32_t index, uint64_t now,
    ngx_rt_rate_t *rate)
{
    int32_t              since;
    uint32_t             mean;
    ngx_rt_rate_sh_t    *rt;
    ngx_rt_rate_sums_t   s;

    ngx_memzero(rate, sizeof(ngx_rt_rate_t));

    if (ngx_rt_rate_none(st, index)) {
        return;
    }

    rt = &st->rates[index];

    mean = ngx_rt_get(rt->mean);
    rate->mean = mean >> 4;
    rate->known = ((mean & 15) >= 2);

    since = (int32_t) ((uint32_t) now - ngx_rt_get(rt->changed));
    rate->since = (since > 0) ? (uint32_t) since : 0;

    rate->sse = ngx_rt_get(rt->told) & 1;

    ngx_rt_rate_sums(rt, now, &s);

    if (s.polls) {
        rate->viewers = ngx_rt_rate_pollers(rt, &s);
    }

    rate->viewers += 1000 * ((uint64_t) ngx_rt_viewers_get(st, index)
                             + ngx_rt_rate_held(st, rt, now));
}


static void
ngx_rt_rate_sums(ngx_rt_rate_sh_t *rt, uint64_t now, ngx_rt_rate_sums_t *s)
{
    uint32_t  stamp, elapsed;
    uint64_t  decay, sum, own, gap, age;

    ngx_memzero(s, sizeof(ngx_rt_rate_sums_t));

    stamp = __atomic_load_n(&rt->stamp, __ATOMIC_ACQUIRE);
    elapsed = ngx_rt_rate_elapsed(stamp, now);
    decay = ngx_rt_rate_decay(elapsed);

    s->idle = (uint64_t) elapsed * NGX_RT_RATE_TICK;

    sum = (ngx_rt_get(rt->sum) * decay) >> 32;
    own = (ngx_rt_get(rt->own) * decay) >> 32;

    s->other = (ngx_rt_get(rt->other) * decay) >> 32;
    s->polls = own + s->other;
    s->age = (uint64_t) ((stamp & NGX_RT_RATE_AGE) + elapsed)
             * NGX_RT_RATE_TICK;

    if (own == 0) {
        return;
    }

    /* gaps that are past: the first began half a gap after the counting, the
     * last ended half a gap ago */

    sum = sum * 1000 / NGX_RT_RATE_SUM;
    gap = sum * NGX_RT_RATE_ONE / own;

    age = (s->age > gap / 2) ? s->age - gap / 2 : 0;

    s->own = sum * 1000 / ngx_rt_rate_mass(ngx_max(age, gap));
}


/*
 * pollers, 1/1000, by so many polls of that gap.  In the beginning half a gap
 * is between what is true of pollers all in step and of such at random.
 */

static uint64_t
ngx_rt_rate_count(uint64_t polls, uint64_t gap, uint64_t age)
{
    if (polls == 0) {
        return 0;
    }

    return polls * gap / NGX_RT_RATE_ONE * 1000
           / ngx_rt_rate_mass(ngx_max(age + gap / 2, gap));
}


/* 1: within a factor of two */

static ngx_uint_t
ngx_rt_rate_like(uint64_t a, uint64_t b)
{
    return a <= 2 * b && b <= 2 * a;
}


/* 1: a is nearer to n than b is, as ratios */

static ngx_uint_t
ngx_rt_rate_nearer(uint64_t a, uint64_t b, uint64_t n)
{
    uint64_t  x, y;

    x = (a > n) ? a * 1000 / n : n * 1000 / ngx_max(a, 1);
    y = (b > n) ? b * 1000 / n : n * 1000 / ngx_max(b, 1);

    return x < y;
}


/*
 * After a roll call the number of pollers may have changed, or their interval,
 * because another one was advised: of two readings the one counts that is
 * nearer to what the call has told.
 */

static uint64_t
ngx_rt_rate_pollers(ngx_rt_rate_sh_t *rt, ngx_rt_rate_sums_t *s)
{
    uint64_t  result, n, gap, told, count, other;

    told = (uint64_t) (ngx_rt_get(rt->told) & ~1U) * 1000 / 16;
    result = ngx_rt_get(rt->result);

    if (result == 0) {
        return s->own + ngx_rt_rate_count(s->other, told, s->age);
    }

    n = (result >> 32) * 1000;
    gap = result & 0xffffffff;

    count = ngx_rt_rate_count(s->polls, gap, s->age);

    if (!ngx_rt_rate_like(count, n)) {
        other = ngx_rt_rate_count(s->polls, told, s->age);

        /* that they poll more seldom is no reading where nobody does */

        if (s->idle * other <= NGX_RT_RATE_IDLE * 1000 * told
            && ngx_rt_rate_nearer(other, count, n))
        {
            count = other;
            gap = told;
        }
    }

    other = s->own + ngx_rt_rate_count(s->other, gap, s->age);

    return (ngx_rt_rate_like(other, count) || ngx_rt_rate_like(other, n))
           ? other : count;
}


/* of a channel of which no gap is known yet: between the bounds at first */

uint32_t
ngx_rt_rate_interval(const ngx_rt_rate_t *rate, uint32_t min, uint32_t max)
{
    uint64_t  ms, product, root;

    ms = rate->mean;

    product = (uint64_t) min * max;

    /* where the root would be less it doesn't matter */

    if (!rate->known && (uint64_t) rate->since * rate->since < product) {

        for (root = max; root && root > product / root; /* void */ ) {
            root = (root + product / root) / 2;
        }

        ms = root;
    }

    ms = ngx_max(ms, rate->since);
    ms = ngx_max(ms, min);

    return (uint32_t) ngx_min(ms, max);
}


uint32_t
ngx_rt_rate_expected(uint32_t interval, uint32_t min, uint32_t max)
{
    return (uint32_t) ((ngx_rt_rate_low(interval, min)
                        + ngx_rt_rate_high(interval, max)) / 2);
}


/* +-20% within the bounds, then a whole second above or below, so that the
 * mean is right */

uint32_t
ngx_rt_rate_jitter(uint32_t interval, uint32_t min, uint32_t max,
    uint32_t random)
{
    uint64_t  low, high, ms;

    low = ngx_rt_rate_low(interval, min);
    high = ngx_rt_rate_high(interval, max);

    ms = low + (random & 0xffff) * (high - low) / 0xffff;
    ms = (ms + (random >> 16) % 1000) / 1000;

    ms = ngx_max(ms, min / 1000);

    return (uint32_t) ngx_min(ms, max / 1000);
}


/* once it is sse, it stays so until there is a tenth between it and poll */

ngx_uint_t
ngx_rt_rate_advise(const ngx_rt_rate_t *rate, uint64_t viewers,
    uint64_t interval)
{
    uint64_t  gap;

    viewers *= 1000;

    if (rate->sse) {
        viewers -= viewers / 10;
        interval += interval / 10;
    }

    gap = ngx_max(rate->mean, rate->since);

    return rate->viewers >= viewers || (rate->known && gap < interval);
}


/* no lock: what is reused meanwhile has another gen when its name is asked */

ngx_uint_t
ngx_rt_rate_busiest(ngx_rt_store_t *st, uint64_t now, ngx_rt_busy_t *busy,
    ngx_uint_t max)
{
    uint32_t            i, top;
    ngx_uint_t          n, k;
    ngx_rt_rate_t       rate;
    ngx_rt_entry_sh_t  *e;

    n = 0;
    top = __atomic_load_n(&st->sh->top, __ATOMIC_ACQUIRE);
    top = ngx_min(top, st->sh->nentries);
    top = ngx_min(top, NGX_RT_RATE_SCAN);

    for (i = 1; i < top; i++) {
        e = &st->entries[i];

        if (!(ngx_rt_get(e->flags) & NGX_RT_USED)) {
            continue;
        }

        ngx_rt_rate_get(st, i, now, &rate);

        if (rate.viewers < 500 && rate.polls == 0 && !rate.known) {
            continue;
        }

        for (k = n; k > 0 && ngx_rt_rate_busier(&rate, &busy[k - 1].rate);
             k--)
        {
            if (k < max) {
                busy[k] = busy[k - 1];
            }
        }

        if (k < max) {
            busy[k].entry = i;
            busy[k].gen = ngx_rt_get(e->gen);
            busy[k].rate = rate;
            n = ngx_min(n + 1, max);
        }
    }

    return n;
}


static ngx_uint_t
ngx_rt_rate_busier(ngx_rt_rate_t *a, ngx_rt_rate_t *b)
{
    uint64_t  one, two;

    one = (a->viewers + 500) / 1000;
    two = (b->viewers + 500) / 1000;

    if (one != two) {
        return one > two;
    }

    one = a->known ? ngx_max(a->mean, a->since) : (uint32_t) -1;
    two = b->known ? ngx_max(b->mean, b->since) : (uint32_t) -1;

    return one < two;
}
