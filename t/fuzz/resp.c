
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Bytes from Redis, in pieces whose size the first byte says, with a budget
 * if that is odd: no crash, and nothing is held beyond the bounds.  Read as
 * who waits for messages does, in a buffer whose size comes from the first
 * byte too, they say the same.
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


static uint64_t
mix(uint64_t hash, const void *data, size_t len)
{
    size_t         i;
    const u_char  *p;

    p = data;

    for (i = 0; i < len; i++) {
        hash = (hash ^ p[i]) * 1099511628211ULL;
    }

    return (hash ^ len) * 1099511628211ULL;
}


static uint64_t
mix_reply(uint64_t hash, redisReply *reply)
{
    size_t  i;

    hash = mix(hash, &reply->type, sizeof(int));

    switch (reply->type) {

    case REDIS_REPLY_ARRAY:

        for (i = 0; i < reply->elements; i++) {
            hash = mix_reply(hash, reply->element[i]);
        }

        return mix(hash, &reply->elements, sizeof(size_t));

    case REDIS_REPLY_INTEGER:
        return mix(hash, &reply->integer, sizeof(long long));

    case REDIS_REPLY_NIL:
        return hash;

    default:
        return mix(hash, reply->str, reply->len);
    }
}


/* as the reply that it would have been */

static uint64_t
mix_push(uint64_t hash, ngx_rt_push_t *push)
{
    redisReply   array, part[4], *element[4];
    ngx_uint_t   i, n;

    ngx_memzero(&array, sizeof(redisReply));
    ngx_memzero(part, sizeof(part));

    n = 0;
    part[n].str = push->matched ? "pmessage" : "message";
    part[n].len = strlen(part[n].str);
    n++;

    if (push->matched) {
        part[n].str = (char *) push->pattern.data;
        part[n++].len = push->pattern.len;
    }

    part[n].str = (char *) push->channel.data;
    part[n++].len = push->channel.len;
    part[n].str = (char *) push->data.data;
    part[n++].len = push->data.len;

    for (i = 0; i < n; i++) {
        part[i].type = REDIS_REPLY_STRING;
        element[i] = &part[i];
    }

    array.type = REDIS_REPLY_ARRAY;
    array.elements = n;
    array.element = element;

    return mix_reply(hash, &array);
}


/* all that is told, and whether it ends in an error */

static uint64_t
scan(const uint8_t *data, size_t size, size_t step, size_t room)
{
    u_char         *in, *p, *last;
    size_t          n, kept;
    uint64_t        hash;
    ngx_int_t       rc;
    redisReply     *reply;
    ngx_rt_push_t   push;
    ngx_rt_resp_t   resp;
    const u_char   *from;

    hash = 0;
    kept = 0;
    rc = NGX_AGAIN;

    /* of its very size, for the sanitizer to know its end */

    in = malloc(room);

    if (in == NULL || ngx_rt_resp_init(&resp, 100) != NGX_OK) {
        free(in);
        return 0;
    }

    if (step % 2 == 0) {
        ngx_rt_resp_bound(&resp, 8, 200);
    }

    while (size && rc != NGX_ERROR) {
        n = ngx_min(ngx_min(step, size), room - kept);
        ngx_memcpy(in + kept, data, n);
        data += n;
        size -= n;

        p = in;
        last = in + kept + n;

        while (p < last && rc != NGX_ERROR) {

            rc = ngx_rt_resp_push(&resp, &p, last, &push);

            if (rc == NGX_OK) {
                hash = mix_push(hash, &push);
                continue;
            }

            if (rc == NGX_AGAIN && (size_t) (last - p) < room) {
                break;
            }

            from = p;
            (void) ngx_rt_resp_take(&resp, &from, last);

            if (from == p && resp.error == NULL) {
                __builtin_trap();
            }

            p = (u_char *) from;

            while ((rc = ngx_rt_resp_next(&resp, &reply)) == NGX_OK) {
                hash = mix_reply(hash, reply);
                ngx_rt_resp_free(reply);
            }
        }

        kept = last - p;
        ngx_memmove(in, p, kept);
    }

    ngx_rt_resp_done(&resp);
    free(in);

    return mix(hash, (rc == NGX_ERROR) ? "!" : ".", 1);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t          n, step, all;
    uint64_t        hash;
    const uint8_t  *begin;
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
    hash = 0;
    begin = data;
    all = size;

    while (size && rc != NGX_ERROR) {
        n = ngx_min(step, size);

        (void) ngx_rt_resp_feed(&resp, data, n);

        while ((rc = ngx_rt_resp_next(&resp, &reply)) == NGX_OK) {

            if (resp.budget && held(reply) > 200 + 8 * 8 * 8 * 41) {
                __builtin_trap();
            }

            hash = mix_reply(hash, reply);

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

    hash = mix(hash, (rc == NGX_ERROR) ? "!" : ".", 1);

    if (scan(begin, all, step, step * 5 % 197 + 1) != hash) {
        __builtin_trap();
    }

    return 0;
}
