
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * A client's queue of shared frames: what is sent of it in parts of any size
 * arrives whole and in order, what was offered stays, and no frame is lost or
 * freed too early, which ASan sees.
 */


#include <ngx_rt_worker.h>

#include "../../ngx_rt_module/ngx_rt_out.c"
#include "unit.h"


#define TEXT  "0123456789abcdefghijklmnopqrstuvwxyz"


static ngx_rt_hub_t  hub;
static int           allocated, fails;  /* blocks so far; 1: no more */


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    if (fails) {
        return NULL;
    }

    allocated++;

    return malloc(size);
}


/* a chunk of that many bytes of TEXT from first on */

static ngx_rt_frame_t *
chunk(size_t first, size_t len, uint64_t seq)
{
    ngx_rt_frame_t  *frame;

    frame = ngx_rt_frame_chunk(&hub, len);

    if (frame == NULL) {
        return NULL;
    }

    memcpy(frame->data + frame->head, TEXT + first, len);
    frame->seq = seq;

    return frame;
}


/* and one that no chunk is made of */

static ngx_rt_frame_t *
plain(const char *text)
{
    ngx_rt_frame_t  *frame;

    frame = ngx_rt_frame_alloc(&hub, strlen(text));

    if (frame) {
        memcpy(frame->data, text, strlen(text));
        frame->len = strlen(text);
    }

    return frame;
}


static ngx_uint_t
pieces(ngx_rt_out_t *out)
{
    ngx_uint_t       n;
    ngx_rt_piece_t  *piece;

    n = 0;

    for (piece = out->head; piece; piece = piece->next) {
        n++;

        if (piece->next == NULL && piece != out->last) {
            return 1000;
        }
    }

    return n;
}


static size_t
copy(u_char *to, struct iovec *vec, ngx_uint_t n, size_t max)
{
    size_t      len, size;
    ngx_uint_t  i;

    size = 0;

    for (i = 0; i < n && size < max; i++) {
        len = ngx_min(vec[i].iov_len, max - size);
        memcpy(to + size, vec[i].iov_base, len);
        size += len;
    }

    return size;
}


static void
test_chunks(void)
{
    size_t           i, len;
    ngx_rt_frame_t  *frame;
    u_char           head[32];

    static const size_t  sizes[] = { 1, 9, 10, 15, 16, 255, 256, 4095, 4096,
                                     65535, 65536, 1 << 20 };

    for (i = 0; i < sizeof(sizes) / sizeof(size_t); i++) {

        frame = ngx_rt_frame_chunk(&hub, sizes[i]);
        len = sprintf((char *) head, "%zx\r\n", sizes[i]);

        is_mem(frame->data, frame->head, head, len, "a chunk of %zu: its size",
               sizes[i]);
        is_int(frame->len, len + sizes[i] + 2, "its length");
        memset(frame->data + frame->head, 'x', sizes[i]);
        is_mem(frame->data + frame->len - frame->tail, frame->tail, "\r\n", 2,
               "its end");
        is_int(frame->refs, 1, "one reference");

        ngx_rt_frame_free(frame);
    }
}


/* sends what is queued in parts of step bytes, the first of which has first;
 * n vectors at once */

static size_t
drain(ngx_rt_out_t *out, u_char *to, size_t first, size_t step, ngx_uint_t n,
    ngx_uint_t whole, uint64_t *newest)
{
    size_t        size, len;
    uint64_t      seq;
    ngx_uint_t    nvec;
    struct iovec  vec[8];

    size = 0;

    while (out->head) {
        nvec = ngx_rt_out_vec(out, vec, n, whole);

        if (nvec == 0 || nvec > n) {
            break;
        }

        len = copy(to + size, vec, nvec, size ? step : first);
        seq = ngx_rt_out_taken(&hub, out, len, whole);

        if (out->head) {
            ngx_rt_out_offered(out, out->head->next);
        }

        size += len;
        *newest = ngx_max(*newest, seq);

        if (len == 0) {
            /* first is 0: nothing was taken; goes on with all of them */
            first = step;
        }
    }

    return size;
}


static void
fill(ngx_rt_out_t *out)
{
    ngx_memzero(out, sizeof(ngx_rt_out_t));

    ngx_rt_out_push(&hub, out, chunk(0, 1, 5));
    ngx_rt_out_push(&hub, out, chunk(1, 3, 7));
    ngx_rt_out_push(&hub, out, chunk(4, 17, 6));
    ngx_rt_out_push(&hub, out, plain("!"));
    ngx_rt_out_push(&hub, out, chunk(21, 15, 0));
}


static void
test_parts(void)
{
    size_t        first, step, len, bad;
    u_char        got[256];
    uint64_t      newest;
    ngx_uint_t    n, whole;
    const char   *want[2];
    ngx_rt_out_t  out;

    want[1] = "1\r\n0\r\n" "3\r\n123\r\n" "11\r\n456789abcdefghijk\r\n" "!"
              "f\r\nlmnopqrstuvwxyz\r\n";
    want[0] = "0" "123" "456789abcdefghijk" "!" "lmnopqrstuvwxyz";

    for (whole = 0; whole < 2; whole++) {
        bad = 0;

        for (n = 1; n < 7; n++) {
            for (first = 0; first <= strlen(want[whole]); first++) {
                for (step = 1; step <= strlen(want[whole]); step += 7) {

                    fill(&out);
                    newest = 0;

                    len = drain(&out, got, first, step, n, whole, &newest);

                    if (len != strlen(want[whole])
                        || memcmp(got, want[whole], len) != 0
                        || newest != 7 || out.head || out.last || out.fresh
                        || out.bytes || out.sent)
                    {
                        bad++;
                    }
                }
            }
        }

        is_int(bad, 0, "sent in parts, %s: all bytes in order",
               whole ? "with what makes them chunks" : "the text alone");
    }
}


static void
test_taken(void)
{
    ngx_rt_out_t  out;
    struct iovec  vec[8];

    fill(&out);

    is_int(out.bytes, 58, "the bytes of all, whole");
    is_int(ngx_rt_out_vec(&out, vec, 8, 1), 5, "all five");
    is_int(ngx_rt_out_vec(&out, vec, 2, 1), 2, "no more than asked for");

    is_int(ngx_rt_out_taken(&hub, &out, 5, 1), 0, "not all of the first");
    is_int(out.sent, 5, "is begun");
    is_int(pieces(&out), 5, "and stays");
    is_int(out.bytes, 58, "it counts until it is out");

    ngx_rt_out_vec(&out, vec, 8, 1);
    is_mem(vec[0].iov_base, vec[0].iov_len, "\n", 1, "its last byte");
    is_mem(vec[1].iov_base, vec[1].iov_len, "3\r\n123\r\n", 8,
           "then the second");

    is_int(ngx_rt_out_taken(&hub, &out, 1, 1), 5, "that was the first");
    is_int(out.sent, 0, "of the next nothing is out");
    is_int(ngx_rt_out_taken(&hub, &out, 8 + 23, 1), 7,
           "the newest of two, not the last");
    is_int(pieces(&out), 2, "two are left");
    is_int(ngx_rt_out_taken(&hub, &out, 0, 1), 0, "nothing was taken");
    is_int(ngx_rt_out_taken(&hub, &out, 1 + 20, 1), 0, "none is a message");
    is_int(out.bytes, 0, "no bytes");
    is_int(ngx_rt_out_vec(&out, vec, 8, 1), 0, "no vectors");
    is_int(ngx_rt_out_taken(&hub, &out, 0, 1), 0, "nor anything taken");
}


static void
test_busy(void)
{
    ngx_rt_out_t     out;
    ngx_rt_piece_t  *head;

    ngx_memzero(&out, sizeof(ngx_rt_out_t));
    ok(!ngx_rt_out_busy(&out), "an empty one is not busy");

    ngx_rt_out_cut(&hub, &out);
    ngx_rt_out_clear(&hub, &out);
    ok(out.head == NULL && out.last == NULL, "cut and cleared for nothing");

    ngx_rt_out_push(&hub, &out, plain("a"));
    ok(!ngx_rt_out_busy(&out), "nor one where nothing was offered");
    ok(out.fresh == out.head && out.last == out.head, "its one piece is fresh");

    ngx_rt_out_offered(&out, NULL);
    ok(ngx_rt_out_busy(&out), "offered");

    ngx_rt_out_push(&hub, &out, plain("b"));
    ok(ngx_rt_out_busy(&out) && out.fresh == out.last, "another is fresh");

    head = out.head;
    ngx_rt_out_pop(&hub, &out);
    ok(out.head != head && !ngx_rt_out_busy(&out), "the offered one is out");

    ngx_rt_out_pop(&hub, &out);
    ok(out.head == NULL && out.fresh == NULL && out.last == NULL
       && out.bytes == 0, "the fresh one, too");

    ngx_rt_out_push(&hub, &out, plain("c"));
    ok(out.head && out.fresh == out.head && out.last == out.head,
       "and from the begin again");
    ngx_rt_out_clear(&hub, &out);
}


/* with so many offered of five, the first of them begun or not */

static void
test_cut(void)
{
    size_t           bytes, len;
    u_char           got[256];
    uint64_t         newest;
    ngx_uint_t       i, n, offered, begun;
    ngx_rt_out_t     out;
    ngx_rt_piece_t  *piece;
    ngx_rt_frame_t  *frames[5];

    static const char  *want[] = { "", "0", "0123", "0123456789abcdefghijk",
                                   "0123456789abcdefghijk!",
                                   "0123456789abcdefghijk!lmnopqrstuvwxyz" };

    for (offered = 0; offered <= 5; offered++) {
        for (begun = 0; begun <= (offered > 0); begun++) {

            fill(&out);
            bytes = 0;

            for (i = 0, piece = out.head; piece; piece = piece->next, i++) {
                frames[i] = piece->frame;
                frames[i]->refs++;

                if (i < offered) {
                    bytes += piece->frame->len;
                }

                if (i == offered) {
                    ngx_rt_out_offered(&out, piece);
                }
            }

            if (offered == 5) {
                ngx_rt_out_offered(&out, NULL);
            }

            out.sent = begun ? 2 : 0;

            ngx_rt_out_cut(&hub, &out);

            is_int(pieces(&out), offered, "%lu offered, %s: these are left",
                   offered, begun ? "begun" : "none begun");
            is_int(out.bytes, bytes, "their bytes");
            is_int(out.sent, begun ? 2 : 0, "where the first stands");
            ok(out.fresh == NULL, "all were offered");
            ok(offered || (out.head == NULL && out.last == NULL), "none");

            for (i = 0, n = 0; i < 5; i++) {
                n += (frames[i]->refs == (i < offered ? 2 : 1));
            }

            is_int(n, 5, "the others are dropped");

            /* what comes now is behind those */

            ngx_rt_out_push(&hub, &out, plain("new"));
            ok(out.fresh == out.last, "what comes then is fresh");

            out.sent = 0;
            newest = 0;
            len = drain(&out, got, 1, 3, 8, 0, &newest);

            is_int(len, strlen(want[offered]) + 3, "and goes out");
            ok(len >= 3 && memcmp(got, want[offered], len - 3) == 0
               && memcmp(got + len - 3, "new", 3) == 0, "last");

            for (i = 0, n = 0; i < 5; i++) {
                n += (frames[i]->refs == 1);
                ngx_rt_frame_free(frames[i]);
            }

            is_int(n, 5, "nobody else has one");
        }
    }
}


static void
test_shared(void)
{
    ngx_uint_t       i;
    ngx_rt_out_t     out[100];
    ngx_rt_frame_t  *frame;

    ngx_memzero(out, sizeof(out));

    frame = chunk(0, 10, 1);

    for (i = 0; i < 100; i++) {
        frame->refs++;
        ngx_rt_out_push(&hub, &out[i], frame);
    }

    ngx_rt_frame_free(frame);
    is_int(frame->refs, 100, "a frame of a hundred queues");

    for (i = 0; i < 99; i++) {
        ngx_rt_out_taken(&hub, &out[i], i, 1);
        ngx_rt_out_clear(&hub, &out[i]);
    }

    is_int(frame->refs, 1, "of one alone");
    is_mem(frame->data + frame->head, 10, "0123456789", 10, "it is as it was");
    is_int(out[98].sent, 0, "a queue that was cleared stands nowhere");

    ngx_rt_out_clear(&hub, &out[99]);
}


static void
test_spare(void)
{
    int              before;
    ngx_uint_t       i;
    ngx_rt_out_t     out;
    ngx_rt_frame_t  *frame;

    ngx_rt_out_exit(&hub);
    is_int(hub.nspare, 0, "nothing is kept");
    ok(hub.spare == NULL, "at all");

    ngx_memzero(&out, sizeof(ngx_rt_out_t));
    frame = plain("x");

    for (i = 0; i < NGX_RT_OUT_SPARE + 100; i++) {
        frame->refs++;
        ngx_rt_out_push(&hub, &out, frame);
    }

    ngx_rt_out_clear(&hub, &out);
    is_int(hub.nspare, NGX_RT_OUT_SPARE, "no more is kept than the bound");

    before = allocated;

    for (i = 0; i < NGX_RT_OUT_SPARE; i++) {
        frame->refs++;
        ngx_rt_out_push(&hub, &out, frame);
    }

    is_int(allocated - before, 0, "what is kept is used: nothing is allocated");
    is_int(hub.nspare, 0, "all of it");

    frame->refs++;
    ngx_rt_out_push(&hub, &out, frame);
    is_int(allocated - before, 1, "then something is");

    /* without memory */

    fails = 1;

    frame->refs++;
    is_int(ngx_rt_out_push(&hub, &out, frame), NGX_ERROR, "no memory");
    is_int(frame->refs, NGX_RT_OUT_SPARE + 2, "the reference is dropped");
    is_int(pieces(&out), NGX_RT_OUT_SPARE + 1, "the queue is as it was");
    is_int(out.bytes, NGX_RT_OUT_SPARE + 1, "its bytes, too");

    ok(ngx_rt_frame_alloc(&hub, 1) == NULL, "no memory for a frame");
    ok(ngx_rt_frame_chunk(&hub, 1) == NULL, "nor for a chunk");

    ngx_rt_out_pop(&hub, &out);
    frame->refs++;
    is_int(ngx_rt_out_push(&hub, &out, frame), NGX_OK,
           "what was kept needs none");

    fails = 0;

    ngx_rt_out_clear(&hub, &out);
    is_int(frame->refs, 1, "nobody has it any more");
    ngx_rt_frame_free(frame);

    ngx_rt_out_exit(&hub);
    is_int(hub.nspare, 0, "all is given back");
}


int
main(void)
{
    test_chunks();
    test_parts();
    test_taken();
    test_busy();
    test_cut();
    test_shared();
    test_spare();

    ngx_rt_out_exit(&hub);

    done_testing();
}
