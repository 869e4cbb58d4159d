
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What one client has yet to be sent: a queue of frames that others share.
 * Knows bytes, not who sends them.
 */


#include <ngx_rt_worker.h>


/* pieces kept for the next ones, in one worker: a megabyte */
#define NGX_RT_OUT_SPARE          NGX_RT_HUB_PIECES


static size_t ngx_rt_out_size(ngx_rt_frame_t *frame, ngx_uint_t whole);


ngx_rt_frame_t *
ngx_rt_frame_alloc(ngx_rt_hub_t *hub, size_t size)
{
    ngx_rt_frame_t  *frame;

    frame = ngx_alloc(offsetof(ngx_rt_frame_t, data) + size, hub->log);
    if (frame == NULL) {
        return NULL;
    }

    frame->refs = 1;
    frame->seq = 0;
    frame->len = 0;
    frame->head = 0;
    frame->tail = 0;

    return frame;
}


ngx_rt_frame_t *
ngx_rt_frame_chunk(ngx_rt_hub_t *hub, size_t len)
{
    u_char          *p;
    ngx_rt_frame_t  *frame;

    frame = ngx_rt_frame_alloc(hub, len + NGX_SIZE_T_LEN + 4);
    if (frame == NULL) {
        return NULL;
    }

    p = ngx_sprintf(frame->data, "%xz" CRLF, len);

    frame->head = p - frame->data;
    frame->tail = 2;
    frame->len = frame->head + len + frame->tail;

    p[len] = CR;
    p[len + 1] = LF;

    return frame;
}


void
ngx_rt_frame_free(ngx_rt_frame_t *frame)
{
    if (--frame->refs == 0) {
        ngx_free(frame);
    }
}


ngx_int_t
ngx_rt_out_push(ngx_rt_hub_t *hub, ngx_rt_out_t *out, ngx_rt_frame_t *frame)
{
    ngx_rt_piece_t  *piece;

    piece = hub->spare;

    if (piece) {
        hub->spare = piece->next;
        hub->nspare--;

    } else {
        piece = ngx_alloc(sizeof(ngx_rt_piece_t), hub->log);

        if (piece == NULL) {
            ngx_rt_frame_free(frame);
            return NGX_ERROR;
        }
    }

    piece->frame = frame;
    piece->next = NULL;

    if (out->last) {
        out->last->next = piece;

    } else {
        out->head = piece;
    }

    if (out->fresh == NULL) {
        out->fresh = piece;
    }

    out->last = piece;
    out->bytes += frame->len;

    hub->pushed++;

    return NGX_OK;
}


void
ngx_rt_out_pop(ngx_rt_hub_t *hub, ngx_rt_out_t *out)
{
    ngx_rt_piece_t  *piece;

    piece = out->head;

    out->head = piece->next;
    out->sent = 0;
    out->bytes -= piece->frame->len;

    if (out->fresh == piece) {
        out->fresh = piece->next;
    }

    if (out->last == piece) {
        out->last = NULL;
    }

    ngx_rt_frame_free(piece->frame);

    if (hub->nspare < NGX_RT_OUT_SPARE) {
        piece->next = hub->spare;
        hub->spare = piece;
        hub->nspare++;

    } else {
        ngx_free(piece);
    }
}


void
ngx_rt_out_cut(ngx_rt_hub_t *hub, ngx_rt_out_t *out)
{
    ngx_rt_out_t     cut;
    ngx_rt_piece_t  *piece;

    if (out->fresh == NULL) {
        return;
    }

    cut.head = out->fresh;
    cut.fresh = out->fresh;
    cut.last = out->last;
    cut.bytes = out->bytes;

    if (out->head == out->fresh) {
        out->head = NULL;
        out->last = NULL;

    } else {
        for (piece = out->head; piece->next != out->fresh;
             piece = piece->next)
        {
            /* void */
        }

        piece->next = NULL;
        out->last = piece;
    }

    out->fresh = NULL;

    while (cut.head) {
        out->bytes -= cut.head->frame->len;
        ngx_rt_out_pop(hub, &cut);
    }
}


void
ngx_rt_out_clear(ngx_rt_hub_t *hub, ngx_rt_out_t *out)
{
    while (out->head) {
        ngx_rt_out_pop(hub, out);
    }
}


ngx_uint_t
ngx_rt_out_vec(ngx_rt_out_t *out, struct iovec *vec, ngx_uint_t n,
    ngx_uint_t whole)
{
    size_t           skip;
    ngx_uint_t       i;
    ngx_rt_frame_t  *frame;
    ngx_rt_piece_t  *piece;

    skip = out->sent;

    for (i = 0, piece = out->head; piece && i < n; i++, piece = piece->next) {
        frame = piece->frame;

        vec[i].iov_base = frame->data + (whole ? 0 : frame->head) + skip;
        vec[i].iov_len = ngx_rt_out_size(frame, whole) - skip;

        skip = 0;
    }

    return i;
}


uint64_t
ngx_rt_out_taken(ngx_rt_hub_t *hub, ngx_rt_out_t *out, size_t size,
    ngx_uint_t whole)
{
    size_t    left;
    uint64_t  seq;

    seq = 0;

    while (out->head) {
        left = ngx_rt_out_size(out->head->frame, whole) - out->sent;

        if (size < left) {
            out->sent += size;
            break;
        }

        size -= left;
        seq = ngx_max(seq, out->head->frame->seq);

        ngx_rt_out_pop(hub, out);
    }

    return seq;
}


static size_t
ngx_rt_out_size(ngx_rt_frame_t *frame, ngx_uint_t whole)
{
    return whole ? frame->len : frame->len - frame->head - frame->tail;
}


void
ngx_rt_out_exit(ngx_rt_hub_t *hub)
{
    ngx_rt_piece_t  *piece;

    while (hub->spare) {
        piece = hub->spare;
        hub->spare = piece->next;
        ngx_free(piece);
    }

    hub->nspare = 0;
}
