
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Polls of many workers at once: none is lost from the sums or from a roll
 * call.
 */


#include <pthread.h>

#include "../../ngx_rt_module/ngx_rt_viewers.c"
#include "../../ngx_rt_module/ngx_rt_rate.c"
#include "unit.h"


#define WORKERS    4
#define POLLS      50000
#define NOW        1700000000000ULL


static ngx_rt_zone_sh_t   zone = { .nentries = 2 };
static ngx_rt_slot_sh_t   slots[1];
static ngx_rt_entry_sh_t  entries[2];
static ngx_rt_rate_sh_t   rates[2] __attribute__((aligned(64)));
static ngx_rt_store_t     store = { .sh = &zone, .slots = slots,
                                    .entries = entries, .rates = rates };
static uint64_t           now = NOW;
static pthread_barrier_t  called;


static void *
worker(void *data)
{
    uint32_t       i;
    ngx_rt_poll_t  poll;
    ngx_rt_rate_t  rate;

    memset(&poll, 0, sizeof(poll));
    poll.told = 2000;
    poll.call = NGX_RT_CALL_CURSOR;

    for (i = 0; i < POLLS; i++) {

        if (i == 1000) {
            pthread_barrier_wait(&called);
        }

        poll.now = __atomic_load_n(&now, __ATOMIC_RELAXED);
        poll.gap = (i & 1) ? 1000 : 0;
        poll.cursor = (i < 1000) ? 5 : 10;
        ngx_rt_rate_poll(&store, 1, &poll);
        ngx_rt_rate_get(&store, 1, poll.now, &rate);
    }

    return data;
}


static void
threads(void)
{
    uint32_t   i;
    pthread_t  tid[WORKERS];

    for (i = 0; i < WORKERS; i++) {
        pthread_create(&tid[i], NULL, worker, NULL);
    }

    for (i = 0; i < WORKERS; i++) {
        pthread_join(tid[i], NULL);
    }
}


static void *
ticks(void *data)
{
    uint32_t  i;

    for (i = 0; i < 400; i++) {
        __atomic_fetch_add(&now, 250, __ATOMIC_RELAXED);
        ngx_rt_rate_change(&store, 1, 10 + i, now, now);
        usleep(200);
    }

    return data;
}


int
main(void)
{
    pthread_t  tid;

    pthread_barrier_init(&called, NULL, WORKERS);

    ngx_rt_rate_reset(&store, 1, NOW);
    ngx_rt_rate_change(&store, 1, 10, NOW, NOW);

    threads();

    is_int(rates[1].own, WORKERS * POLLS / 2 * 1024ULL, "no poll is lost");
    is_int(rates[1].other, WORKERS * POLLS / 2 * 1024ULL, "nor one without");
    is_int(rates[1].sum, WORKERS * POLLS / 2 * 128ULL, "nor a gap");
    is_int((rates[1].calls & ~(1ULL << 63)) >> 32, WORKERS * 1000,
           "nor one who was called");

    /* while time passes and the channel changes: no report is all */

    ngx_rt_rate_reset(&store, 1, NOW);
    pthread_create(&tid, NULL, ticks, NULL);
    threads();
    pthread_join(tid, NULL);

    ok(rates[1].own <= WORKERS * POLLS / 2 * 1024ULL, "and decays");

    done_testing();
}
