
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * How often a channel changes and how many poll it, in a time of our own:
 * simulated clients, with kept connections and without, in step and not.
 */


#include "../../ngx_rt_module/ngx_rt_viewers.c"
#include "../../ngx_rt_module/ngx_rt_rate.c"
#include "unit.h"


#define CLIENTS    200


typedef struct {
    uint64_t   next;            /* when it polls */
    uint64_t   last;            /* when it did; 0: never */
    uint32_t   seen;            /* mark of what it has */
    int        first;
} client_t;

typedef struct {
    uint32_t   n;
    uint32_t   gap;             /* ms; 0: as it is told */
    uint32_t   keep;            /* connections are kept; n > 1: all over so
                                   many */
    uint32_t   step;            /* all at once */
    uint32_t   slow;            /* every so many-th has five times the gap */
    uint32_t   change;          /* ms between changes, 0: none */
} plan_t;


static ngx_rt_zone_sh_t   zone;
static ngx_rt_slot_sh_t   slots[1];
static ngx_rt_entry_sh_t  entries[4];
static ngx_rt_rate_sh_t   rates[4] __attribute__((aligned(64)));
static ngx_rt_store_t     store = { .sh = &zone, .slots = slots,
                                    .entries = entries, .rates = rates };

static client_t           clients[CLIENTS];
static uint64_t           now, changed, conns[8];
static uint32_t           mark, seed = 1;


static uint32_t
rnd(uint32_t n)
{
    seed = seed * 1103515245 + 12345;

    return (uint32_t) ((seed >> 8) % n);
}


static void
begin(void)
{
    now = 1700000000000ULL;
    mark = 100;
    changed = now;

    memset(clients, 0, sizeof(clients));
    memset(conns, 0, sizeof(conns));
    ngx_rt_rate_reset(&store, 1, now);
}


static void
enter(plan_t *p)
{
    uint32_t  i;

    for (i = 0; i < p->n; i++) {
        clients[i].next = now + 1
                          + (p->step ? 0 : rnd(p->gap ? p->gap : 5000));
        clients[i].last = 0;
        clients[i].first = 1;
    }
}


static void
poll_of(plan_t *p, client_t *c, uint32_t k)
{
    uint32_t       gap, told;
    uint64_t      *last;
    ngx_rt_poll_t  poll;
    ngx_rt_rate_t  rate;

    memset(&poll, 0, sizeof(poll));

    ngx_rt_rate_get(&store, 1, now, &rate);

    poll.now = now;
    told = ngx_rt_rate_interval(&rate, 2000, 15000);
    poll.told = ngx_rt_rate_expected(told, 2000, 15000);
    poll.call = c->first ? NGX_RT_CALL_NONE
                : (c->seen == mark) ? NGX_RT_CALL_SEEN : NGX_RT_CALL_CURSOR;
    poll.cursor = c->seen;

    last = (p->keep > 1) ? &conns[k % p->keep] : &c->last;

    if (p->keep && *last == 0) {
        ngx_rt_rate_first(&store, 1, &poll);

    } else {
        poll.gap = p->keep ? (uint32_t) ngx_max(now - *last, 1) : 0;
        ngx_rt_rate_poll(&store, 1, &poll);
    }

    *last = now;
    c->seen = mark;
    c->first = 0;

    gap = p->gap;

    if (gap == 0) {
        gap = 1000 * ngx_rt_rate_jitter(told, 2000, 15000,
                                        rnd(1 << 24) << 8 ^ rnd(1 << 24));
    }

    if (p->slow && k % p->slow == 0) {
        gap *= 5;
    }

    c->next = now + gap + 5;
}


static void
run(plan_t *p, uint32_t seconds)
{
    uint32_t  i;
    uint64_t  end;

    for (end = now + seconds * 1000; now < end; now++) {

        if (p->change && now - changed >= p->change) {
            changed = now;
            ngx_rt_rate_change(&store, 1, ++mark, now, now);
        }

        for (i = 0; i < p->n; i++) {
            if (clients[i].next == now) {
                poll_of(p, &clients[i], i);
            }
        }
    }
}


static double
viewers(void)
{
    ngx_rt_rate_t  rate;

    ngx_rt_rate_get(&store, 1, now, &rate);

    return rate.viewers / 1000.0;
}


static void
near(plan_t *p, uint32_t seconds, double expected, const char *name)
{
    double    v, low, high;
    uint32_t  i;

    run(p, seconds);

    low = high = viewers();

    for (i = 0; i < 40; i++) {
        run(p, 1);
        v = viewers();
        low = ngx_min(low, v);
        high = ngx_max(high, v);
    }

    ok(low >= 0.8 * expected && high <= 1.2 * expected,
       "%s: %.0f are seen as %.1f to %.1f", name, expected, low, high);
}


static void
steady(void)
{
    uint32_t  i;

    static struct {
        const char  *name;
        plan_t       plan;
        uint32_t     after;
    } cases[] = {
        { "kept, 1 s", { 60, 1000, 1, 0, 0, 0 }, 10 },
        { "kept, 2 s", { 60, 2000, 1, 0, 0, 0 }, 10 },
        { "kept, 3 s", { 60, 3000, 1, 0, 0, 0 }, 15 },
        { "kept, 3 s, in step", { 60, 3000, 1, 1, 0, 0 }, 15 },
        { "kept, 3 s, changes", { 60, 3000, 1, 0, 0, 7000 }, 15 },
        { "kept, 2 s and 10 s", { 60, 2000, 1, 0, 2, 20000 }, 40 },
        { "kept, as told", { 60, 0, 1, 0, 0, 8000 }, 40 },
        { "kept, as told, quiet", { 60, 0, 1, 0, 0, 0 }, 60 },
        { "new, 1 s", { 60, 1000, 0, 0, 0, 10000 }, 25 },
        { "new, 1 s, in step", { 60, 1000, 0, 1, 0, 10000 }, 25 },
        { "new, 3 s", { 60, 3000, 0, 0, 0, 9000 }, 30 },
        { "new, 3 s, in step", { 60, 3000, 0, 1, 0, 9000 }, 30 },
        { "new, 3 s, changes each 1 s", { 60, 3000, 0, 0, 0, 1000 }, 30 },
        { "new, as told", { 60, 0, 0, 0, 0, 10000 }, 60 },
        { "new, as told, quiet", { 60, 0, 0, 0, 0, 0 }, 60 },
        { "over 4 connections, 3 s", { 60, 3000, 4, 0, 0, 10000 }, 40 },
        { "over 8 connections, 10 s", { 5, 1000, 8, 0, 0, 10000 }, 40 }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin();
        enter(&cases[i].plan);
        near(&cases[i].plan, cases[i].after, cases[i].plan.n, cases[i].name);
    }
}


static void
leaving(void)
{
    uint32_t  i;
    plan_t    plans[] = {
        { 60, 2000, 1, 0, 0, 10000 },
        { 60, 2000, 0, 0, 0, 10000 },
        { 60, 0, 0, 0, 0, 4000 }
    };

    for (i = 0; i < 3; i++) {
        begin();
        enter(&plans[i]);
        run(&plans[i], 60);
        plans[i].n = 30;
        near(&plans[i], 50, 30, "half leave");
        plans[i].n = 0;
        run(&plans[i], 60);
        ok(viewers() < 4, "all leave: %.1f after a minute", viewers());
    }

    /* they go quiet, and the pollers follow */

    begin();
    plans[2].n = 60;
    plans[2].change = 3000;
    enter(&plans[2]);
    run(&plans[2], 60);
    plans[2].change = 0;
    near(&plans[2], 90, 60, "relaxed after a busy time");

    begin();
    now += 1;
    ok(viewers() == 0, "nobody");
}


static uint32_t
interval(void)
{
    ngx_rt_rate_t  rate;

    ngx_rt_rate_get(&store, 1, now, &rate);

    return ngx_rt_rate_interval(&rate, 2000, 15000);
}


static void
changes(uint32_t n, uint32_t gap)
{
    while (n--) {
        now += gap;
        ngx_rt_rate_change(&store, 1, ++mark, now, now);
    }
}


static void
intervals(void)
{
    uint32_t       i, v, min, max;
    ngx_rt_rate_t  rate;

    begin();
    is_int(interval(), 5477, "unknown: between the bounds");
    now += 9000;
    is_int(interval(), 9000, "then relaxed");
    now += 90000;
    is_int(interval(), 15000, "as far as it goes");
    changes(1, 1);
    is_int(interval(), 5477, "one change: not known yet");
    changes(1, 4000);
    is_int(interval(), 4000, "two: the gap");
    changes(20, 4000);
    is_int(interval(), 4000, "steady");
    changes(20, 100);
    is_int(interval(), 2000, "the minimum");
    ngx_rt_rate_get(&store, 1, now, &rate);
    ok(rate.mean >= 90 && rate.mean <= 500, "of %u ms", rate.mean);
    now += 7000;
    is_int(interval(), 7000, "quiet: relaxes");
    now += 60000;
    is_int(interval(), 15000, "to the maximum");
    now += 3600000;
    changes(8, 1000);
    is_int(interval(), 2000, "busy again after an hour: soon found");
    changes(12, 60000);
    changes(1, 10);
    now += 10;
    ok(interval() >= 5000, "slow, and two at once: not fast");
    changes(12, 3000);
    ok(interval() < 5000, "fast again: %u", interval());

    begin();
    changes(4, 5000);
    now -= 3000;
    ngx_rt_rate_change(&store, 1, ++mark, now, now);
    ok(interval() >= 2000 && interval() <= 5000, "a clock that went back");

    min = 99;
    max = 0;

    for (i = 0, v = 0; i < 1000; i++) {
        seed = i * 77;
        v = ngx_rt_rate_jitter(10000, 2000, 15000,
                               rnd(1 << 24) << 8 ^ rnd(1 << 24));
        min = ngx_min(min, v);
        max = ngx_max(max, v);
    }

    ok(min == 8 && max == 12, "10 s: %u to %u", min, max);

    for (i = 0; i < 1000; i++) {
        v = ngx_rt_rate_jitter(2000 + i * 13, 2000, 15000, i * 4294967U);

        if (v < 2 || v > 15) {
            break;
        }
    }

    is_int(i, 1000, "never beyond the bounds");
    is_int(ngx_rt_rate_jitter(3000, 3000, 3000, 77777777), 3, "no choice");
}


static void
advice(void)
{
    ngx_rt_rate_t  rate;

    memset(&rate, 0, sizeof(rate));
    rate.viewers = 49 * 1000;
    is_int(ngx_rt_rate_advise(&rate, 50, 5000), 0, "49 of 50, no change");
    rate.viewers = 50 * 1000;
    is_int(ngx_rt_rate_advise(&rate, 50, 5000), 1, "50 of 50");
    rate.sse = 1;
    rate.viewers = 46 * 1000;
    is_int(ngx_rt_rate_advise(&rate, 50, 5000), 1, "46, was sse");
    rate.viewers = 44 * 1000;
    is_int(ngx_rt_rate_advise(&rate, 50, 5000), 0, "44, was sse");
    rate.known = 1;
    rate.mean = 5200;
    is_int(ngx_rt_rate_advise(&rate, 50, 5000), 1, "each 5.2 s, was sse");
    rate.sse = 0;
    is_int(ngx_rt_rate_advise(&rate, 50, 5000), 0, "each 5.2 s, was poll");
    rate.mean = 4999;
    is_int(ngx_rt_rate_advise(&rate, 50, 5000), 1, "faster");
    rate.since = 20000;
    is_int(ngx_rt_rate_advise(&rate, 50, 5000), 0, "not any more");
}


static void
held(void)
{
    ngx_rt_viewers_t  a, b;

    begin();
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));

    ngx_rt_rate_hold(&store, 1, 0, &a, 5, now);
    ngx_rt_rate_hold(&store, 1, 0, &b, 7, now);
    is_int(viewers(), 12, "polls that wait");
    ngx_rt_rate_hold(&store, 1, 0, &a, 3, now);
    ngx_rt_rate_hold(&store, 1, 0, &a, 0, now);
    ngx_rt_rate_hold(&store, 1, 0, &b, 0, now);
    now += 1000;
    is_int(viewers(), 12, "are viewers for a moment more");
    ngx_rt_rate_hold(&store, 1, 0, &a, 4, now);
    is_int(viewers(), 12, "while they come back");
    now += 3000;
    is_int(viewers(), 4, "then who waits");
}


static void
busiest(void)
{
    uint32_t       i;
    ngx_rt_busy_t  busy[2];

    begin();
    memset(entries, 0, sizeof(entries));
    zone.top = 4;

    for (i = 1; i < 4; i++) {
        ngx_rt_rate_reset(&store, i, now);
        entries[i].flags = NGX_RT_USED;
        entries[i].viewers = zone.viewers << NGX_RT_VIEWERS_BITS
                             | (i == 2 ? 9 : 4);
    }

    ngx_rt_rate_change(&store, 3, 1, now - 2000, now);
    ngx_rt_rate_change(&store, 3, 2, now, now);

    is_int(ngx_rt_rate_busiest(&store, now, busy, 2), 2, "as many as fit");
    is_int(busy[0].entry, 2, "most viewers first");
    is_int(busy[1].entry, 3, "then who changes");
    entries[2].flags = 0;
    entries[1].flags = 0;
    is_int(ngx_rt_rate_busiest(&store, now, busy, 2), 1, "only what is used");
    memset(entries, 0, sizeof(entries));
}


int
main(void)
{
    zone.nentries = 4;

    intervals();
    advice();
    held();
    busiest();
    steady();
    leaving();

    done_testing();
}
