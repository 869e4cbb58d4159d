
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The count of streams of a channel: many workers, killed workers, entries
 * that are reused.
 */


#include <pthread.h>
#include <sys/wait.h>

#include "../../ngx_rt_module/ngx_rt_viewers.c"
#include "unit.h"


#define WORKERS    8
#define ENTRIES    5
#define ROUNDS     20000


static ngx_rt_zone_sh_t   zone;
static ngx_rt_slot_sh_t   slots[4];
static ngx_rt_entry_sh_t  entries[ENTRIES];
static ngx_rt_store_t     store = { .sh = &zone, .slots = slots,
                                    .entries = entries };


/* opens and closes streams; in the end has `id` of them on each channel */

static void *
worker(void *data)
{
    unsigned           seed;
    uint32_t           i, n, round, have[ENTRIES];
    ngx_rt_viewers_t   own[ENTRIES];

    seed = (unsigned) (uintptr_t) data;
    memset(own, 0, sizeof(own));
    memset(have, 0, sizeof(have));

    for (round = 0; round < ROUNDS; round++) {
        i = 1 + rand_r(&seed) % (ENTRIES - 1);
        n = rand_r(&seed) % 4;
        have[i] = n;

        ngx_rt_viewers_set(&store, i, entries[i].gen, &own[i], n);

        /* somebody is found dead now and then */

        if (rand_r(&seed) % 1000 == 0) {
            ngx_rt_viewers_recount(&store);
        }
    }

    /* the tick that follows the last recount */

    for (i = 1; i < ENTRIES; i++) {
        have[i] = (uint32_t) (uintptr_t) data;
        ngx_rt_viewers_set(&store, i, entries[i].gen, &own[i], have[i]);
    }

    return memcpy(malloc(sizeof(own)), own, sizeof(own));
}


static void
threads(void)
{
    void       *own[WORKERS];
    uint32_t    i, n, sum;
    pthread_t   tid[WORKERS];

    sum = 0;

    for (n = 0; n < WORKERS; n++) {
        pthread_create(&tid[n], NULL, worker, (void *) (uintptr_t) (n + 1));
        sum += n + 1;
    }

    for (n = 0; n < WORKERS; n++) {
        pthread_join(tid[n], &own[n]);
    }

    /* a recount may have come after some had ended: their next tick */

    for (n = 0; n < WORKERS; n++) {
        for (i = 1; i < ENTRIES; i++) {
            ngx_rt_viewers_set(&store, i, entries[i].gen,
                               (ngx_rt_viewers_t *) own[n] + i, n + 1);
        }

        free(own[n]);
    }

    for (i = 1; i < ENTRIES; i++) {
        is_int(ngx_rt_viewers_get(&store, i), sum,
               "channel %u: all streams of all workers", i);
    }
}


static void
basics(void)
{
    ngx_rt_viewers_t  a, b;

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    memset(entries, 0, sizeof(entries));

    ngx_rt_viewers_set(&store, 1, 0, &a, 3);
    ngx_rt_viewers_set(&store, 1, 0, &b, 2);
    is_int(ngx_rt_viewers_get(&store, 1), 5, "two workers");
    is_int(ngx_rt_viewers_get(&store, 2), 0, "another channel");

    ngx_rt_viewers_set(&store, 1, 0, &a, 3);
    is_int(ngx_rt_viewers_get(&store, 1), 5, "the same again");

    ngx_rt_viewers_set(&store, 1, 0, &a, 1);
    is_int(ngx_rt_viewers_get(&store, 1), 3, "fewer");

    /* b is killed */

    ngx_rt_viewers_recount(&store);
    is_int(ngx_rt_viewers_get(&store, 1), 0, "a new epoch begins at zero");
    ngx_rt_viewers_set(&store, 1, 0, &a, 1);
    is_int(ngx_rt_viewers_get(&store, 1), 1, "who lives counts again");
    ngx_rt_viewers_set(&store, 1, 0, &a, 0);
    is_int(ngx_rt_viewers_get(&store, 1), 0, "and leaves");

    /* the entry is reused */

    ngx_rt_viewers_set(&store, 1, 0, &a, 4);
    entries[1].gen++;
    entries[1].viewers = 0;
    memset(&b, 0, sizeof(b));
    ngx_rt_viewers_set(&store, 1, 1, &b, 2);
    ngx_rt_viewers_set(&store, 1, 0, &a, 0);
    is_int(ngx_rt_viewers_get(&store, 1), 2, "not of another generation");

    /* limits */

    ngx_rt_viewers_set(&store, 1, 1, &b, NGX_RT_VIEWERS_MAX + 7U);
    is_int(ngx_rt_viewers_get(&store, 1), NGX_RT_VIEWERS_MAX, "the most");
    ngx_rt_viewers_set(&store, NGX_RT_NONE, 0, &a, 3);
    ngx_rt_viewers_set(&store, ENTRIES, 0, &a, 3);
    is_int(ngx_rt_viewers_get(&store, NGX_RT_NONE), 0, "no entry");
    is_int(ngx_rt_viewers_get(&store, ENTRIES), 0, "no such entry");
}


static void
epochs(void)
{
    uint32_t          i;
    ngx_rt_viewers_t  a;

    memset(&a, 0, sizeof(a));
    memset(entries, 0, sizeof(entries));
    zone.viewers = 1;

    for (i = 0; i < 3 * NGX_RT_VIEWERS_EPOCHS; i++) {
        ngx_rt_viewers_recount(&store);
        ngx_rt_viewers_set(&store, 1, 0, &a, 2);

        if (ngx_rt_viewers_get(&store, 1) != 2) {
            break;
        }
    }

    is_int(i, 3 * NGX_RT_VIEWERS_EPOCHS, "epochs come round");
}


static void
reap(void)
{
    pid_t     pid;
    uint64_t  before;

    memset(slots, 0, sizeof(slots));
    zone.nslots = 4;

    pid = fork();

    if (pid == 0) {
        _exit(0);
    }

    waitpid(pid, NULL, 0);

    slots[1].pid = getpid();
    slots[1].open[0] = 5;
    slots[2].pid = pid;

    before = zone.viewers;
    ngx_rt_viewers_reap(&store);
    is_int(zone.viewers, before, "who had no streams is not missed");

    slots[2].open[1] = 1;
    ngx_rt_viewers_reap(&store);
    is_int(zone.viewers, before + 1, "who had is");
    is_int(slots[2].pid, 0, "once");
    ngx_rt_viewers_reap(&store);
    is_int(zone.viewers, before + 1, "once");

    ngx_rt_viewers_taken(&store, &slots[2]);
    is_int(zone.viewers, before + 1, "a slot that was reaped is taken");

    slots[2].pid = pid;
    ngx_rt_viewers_taken(&store, &slots[2]);
    is_int(zone.viewers, before + 2, "one that was not");
}


int
main(void)
{
    zone.nentries = ENTRIES;

    basics();
    epochs();
    reap();

    memset(entries, 0, sizeof(entries));
    threads();

    done_testing();
}
