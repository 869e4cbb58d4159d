
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What a channel takes of a zone, beside its messages: 400 bytes at most, its
 * name among them; and how many there is room for.
 */


#include "../../ngx_rt_module/ngx_rt_hash.c"
#include "../../ngx_rt_module/ngx_rt_sid.c"
#include "../../ngx_rt_module/ngx_rt_message.c"
#include "../../ngx_rt_module/ngx_rt_log.c"
#include "../../ngx_rt_module/ngx_rt_retain.c"
#include "../../ngx_rt_module/ngx_rt_table.c"
#include "../../ngx_rt_module/ngx_rt_recover.c"
#include "../../ngx_rt_module/ngx_rt_store.c"
#include "../../ngx_rt_module/ngx_rt_viewers.c"
#include "../../ngx_rt_module/ngx_rt_rate.c"
#include "../../ngx_rt_module/ngx_rt_query.c"
#include "../../ngx_rt_module/ngx_rt_want.c"
#include "../../ngx_rt_module/ngx_rt_owed.c"
#include "unit.h"


#define MOST      400
#define PAYLOAD   100
#define NOW       1700000000


static ngx_shmtx_t     mutex;
static ngx_shmtx_sh_t  mutex_sh;


static void
create(ngx_rt_store_t *st, void *mem, size_t size)
{
    static const u_char  random[32] = "memory";

    memset(st, 0, sizeof(ngx_rt_store_t));

    st->mutex = &mutex;
    st->embedded = 1;
    st->history = 1;
    st->message_max = 16 * 1024;

    is_int(ngx_rt_store_create(st, mem, size, 8, random), NGX_OK,
           "a zone of %d MB", (int) (size >> 20));
}


/* makes n channels with names of len bytes; how many there are then */

static uint32_t
fill(ngx_rt_store_t *st, uint32_t n, size_t len, size_t payload)
{
    char              text[NGX_RT_CHANNEL_MAX + 1], number[16];
    u_char            data[PAYLOAD], tag[NGX_RT_TAG_LEN];
    uint32_t          i;
    uint64_t          seq;
    ngx_str_t         name;
    ngx_uint_t        queued;
    ngx_rt_view_t     view;
    ngx_rt_message_t  msg;

    memset(text, 'c', sizeof(text));
    memset(data, 'd', sizeof(data));
    memset(&msg, 0, sizeof(msg));

    name.data = (u_char *) text;
    name.len = len;
    msg.data.data = data;
    msg.data.len = payload;

    for (i = 0; i < n; i++) {
        memcpy(text, number, (size_t) snprintf(number, sizeof(number), "%u:",
                                               i));

        if (ngx_rt_store_touch(st, &name, NOW, &view, &queued) != NGX_OK) {
            break;
        }

        if (payload) {
            memset(tag, 0, sizeof(tag));
            ngx_rt_message_digest(&name, &msg, tag);

            if (ngx_rt_store_publish(st, 0, &name, &msg, tag, NOW * 1000ULL,
                                     0, &seq)
                != NGX_OK)
            {
                break;
            }
        }
    }

    return st->sh->channels;
}


static void
test_channel(void *mem, size_t size, size_t len, size_t payload)
{
    uint32_t        n;
    uint64_t        fixed, used, each;
    ngx_rt_store_t  st;

    create(&st, mem, size);

    fixed = (uint64_t) ((u_char *) st.entries - (u_char *) st.sh);
    n = fill(&st, st.sh->nentries - 1, len, payload);

    is_int(n, st.sh->nentries - 1, "names of %d, messages of %d: so many",
           (int) len, (int) payload);
    is_int(st.sh->evicted, 0, "and none had to go");

    used = ngx_rt_store_used(&st) - fixed;
    each = used / n - (payload ? ngx_rt_log_size(payload) : 0);

    ok(each <= MOST, "%d bytes for each channel and its name, at most %d",
       (int) each, MOST);
    unit_diag("%u channels, names of %d, messages of %d: %d bytes each", n,
              (int) len, (int) payload, (int) each);
}


/* what is kept for each whether it is there or not */

static void
test_table(void *mem, size_t size)
{
    size_t          table;
    ngx_rt_store_t  st;

    create(&st, mem, size);

    table = (size_t) (st.log - (u_char *) st.entries);

    ok(st.sh->nentries >= size / 1024, "room for %u channels in %d MB",
       st.sh->nentries, (int) (size >> 20));
    ok(table / st.sh->nentries <= 208, "%d bytes of the table for each",
       (int) (table / st.sh->nentries));
}


int
main(void)
{
    void    *mem;
    size_t   size;

    ngx_shmtx_create(&mutex, &mutex_sh, NULL);

    size = 64 * 1024 * 1024;

    if (posix_memalign(&mem, 64, size) != 0) {
        return 1;
    }

    test_table(mem, 8 * 1024 * 1024);
    test_table(mem, size);

    test_channel(mem, size, 20, 0);
    test_channel(mem, size, 20, PAYLOAD);
    test_channel(mem, size, 120, 0);
    test_channel(mem, size, 120, PAYLOAD);

    free(mem);
    unit_free();
    done_testing();
}
