
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Bytes from Redis, in pieces whose size the first byte says, with a budget
 * if that is odd: no crash, and nothing is held beyond the bounds.
 */


#include "../../ngx_rt_module/ngx_rt_resp.c"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* bytes of the strings in arrays: an element is short, or of the budget */

static size_t
held(redisReply *reply)
{
    size_t  i, n;

    if (reply->type == REDIS_REPLY_STRING) {
        return reply->len;
    }

    if (reply->type != REDIS_REPLY_ARRAY) {
        return 0;
    }

    for (n = 0, i = 0; i < reply->elements; i++) {
        n += held(reply->element[i]);
    }

    return n;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t          n, step;
    ngx_int_t       rc;
    redisReply     *reply;
    redisReader    *reader;
    ngx_rt_resp_t   resp;

    if (size == 0 || ngx_rt_resp_init(&resp, 100) != NGX_OK) {
        return 0;
    }

    if (*data & 1) {
        ngx_rt_resp_bound(&resp, 8, 200);
    }

    step = *data++ + 1;
    size--;
    rc = NGX_AGAIN;

    while (size && rc != NGX_ERROR) {
        n = ngx_min(step, size);

        (void) ngx_rt_resp_feed(&resp, data, n);

        while ((rc = ngx_rt_resp_next(&resp, &reply)) == NGX_OK) {

            if (resp.budget && held(reply) > 200 + 8 * 8 * 8 * 41) {
                __builtin_trap();
            }

            ngx_rt_resp_free(reply);
        }

        reader = resp.reader;

        if (rc == NGX_AGAIN && reader->len > resp.reply_max + 2048) {
            __builtin_trap();
        }

        data += n;
        size -= n;
    }

    ngx_rt_resp_done(&resp);

    return 0;
}
