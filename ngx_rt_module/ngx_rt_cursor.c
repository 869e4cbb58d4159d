
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The text form of a cursor, and the walk through If-None-Match.
 */


#include <ngx_rt_base.h>


#define NGX_RT_EPOCH_CHARS        8
#define NGX_RT_SEQ_CHARS          11
#define NGX_RT_DIGEST_CHARS       16


static u_char *ngx_rt_cursor_put(u_char *p, uint64_t n, ngx_uint_t chars);
static u_char *ngx_rt_cursor_put_digest(u_char *p, const u_char *digest);
static ngx_int_t ngx_rt_cursor_get(const u_char *p, ngx_uint_t chars,
    uint64_t *n);
static ngx_int_t ngx_rt_cursor_get_digest(const u_char *p, u_char *digest);


static const u_char  ngx_rt_base64[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";


u_char *
ngx_rt_cursor_format(u_char *p, const ngx_rt_cursor_t *cursor)
{
    uint64_t    n;
    ngx_uint_t  chars;

    p = ngx_rt_cursor_put(p, cursor->epoch, NGX_RT_EPOCH_CHARS);
    *p++ = '.';

    chars = 1;

    for (n = cursor->seq >> 6; n; n >>= 6) {
        chars++;
    }

    p = ngx_rt_cursor_put(p, cursor->seq, chars);

    if (cursor->digested) {
        *p++ = '.';
        p = ngx_rt_cursor_put_digest(p, cursor->digest);

        if (cursor->grouped) {
            *p++ = ',';
            p = ngx_rt_cursor_put_digest(p, cursor->group);
        }
    }

    return p;
}


static u_char *
ngx_rt_cursor_put(u_char *p, uint64_t n, ngx_uint_t chars)
{
    ngx_uint_t  i;

    for (i = chars; i > 0; i--) {
        p[i - 1] = ngx_rt_base64[n & 63];
        n >>= 6;
    }

    return p + chars;
}


static u_char *
ngx_rt_cursor_put_digest(u_char *p, const u_char *digest)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_RT_DIGEST_LEN; i += 3) {
        p = ngx_rt_cursor_put(p, (uint64_t) digest[i] << 16
                                 | (uint64_t) digest[i + 1] << 8
                                 | digest[i + 2], 4);
    }

    return p;
}


ngx_int_t
ngx_rt_cursor_parse(ngx_rt_cursor_t *cursor, const u_char *text, size_t len)
{
    ngx_uint_t        chars;
    const u_char     *p, *last;
    ngx_rt_cursor_t   c;

    ngx_memzero(&c, sizeof(ngx_rt_cursor_t));

    p = text;
    last = text + len;

    if (len < NGX_RT_EPOCH_CHARS + 2
        || ngx_rt_cursor_get(p, NGX_RT_EPOCH_CHARS, &c.epoch) != NGX_OK
        || p[NGX_RT_EPOCH_CHARS] != '.')
    {
        return NGX_DECLINED;
    }

    p += NGX_RT_EPOCH_CHARS + 1;

    for (chars = 0; p + chars < last && p[chars] != '.'; chars++) {
        if (chars == NGX_RT_SEQ_CHARS) {
            return NGX_DECLINED;
        }
    }

    /* 11 characters carry 66 bits, of which the first two must be zero */

    if (chars == 0
        || (chars > 1 && p[0] == ngx_rt_base64[0])
        || (chars == NGX_RT_SEQ_CHARS && (p[0] < 'A' || p[0] > 'P'))
        || ngx_rt_cursor_get(p, chars, &c.seq) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    p += chars;

    if (p < last) {

        if (last - p < 1 + NGX_RT_DIGEST_CHARS
            || ngx_rt_cursor_get_digest(p + 1, c.digest) != NGX_OK)
        {
            return NGX_DECLINED;
        }

        c.digested = 1;
        p += 1 + NGX_RT_DIGEST_CHARS;
    }

    if (p < last) {

        if (last - p != 1 + NGX_RT_DIGEST_CHARS
            || *p != ','
            || ngx_rt_cursor_get_digest(p + 1, c.group) != NGX_OK)
        {
            return NGX_DECLINED;
        }

        c.grouped = 1;
    }

    *cursor = c;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_cursor_get(const u_char *p, ngx_uint_t chars, uint64_t *n)
{
    u_char      ch;
    uint64_t    v, bits;
    ngx_uint_t  i;

    v = 0;

    for (i = 0; i < chars; i++) {
        ch = p[i];

        if (ch >= 'A' && ch <= 'Z') {
            bits = ch - 'A';

        } else if (ch >= 'a' && ch <= 'z') {
            bits = ch - 'a' + 26;

        } else if (ch >= '0' && ch <= '9') {
            bits = ch - '0' + 52;

        } else if (ch == '-') {
            bits = 62;

        } else if (ch == '_') {
            bits = 63;

        } else {
            return NGX_DECLINED;
        }

        v = v << 6 | bits;
    }

    *n = v;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_cursor_get_digest(const u_char *p, u_char *digest)
{
    uint64_t    n;
    ngx_uint_t  i;

    for (i = 0; i < NGX_RT_DIGEST_LEN; i += 3) {

        if (ngx_rt_cursor_get(p, 4, &n) != NGX_OK) {
            return NGX_DECLINED;
        }

        digest[i] = (u_char) (n >> 16);
        digest[i + 1] = (u_char) (n >> 8);
        digest[i + 2] = (u_char) n;
        p += 4;
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_etag_next(ngx_str_t *list, ngx_str_t *tag)
{
    u_char  *p, *last, *start;

    p = list->data;
    last = p + list->len;

    while (p < last && (*p == ' ' || *p == '\t' || *p == ',')) {
        p++;
    }

    if (p == last) {
        list->len = 0;
        return NGX_DONE;
    }

    if (*p == '*') {
        list->len = 0;
        return NGX_DECLINED;
    }

    if (last - p > 2 && p[0] == 'W' && p[1] == '/') {
        p += 2;
    }

    if (*p != '"') {
        return NGX_ERROR;
    }

    start = ++p;

    /* etagc: "!", 0x23-0x7E, obs-text */

    while (p < last && (*p == 0x21 || *p >= 0x23) && *p != 0x7f) {
        p++;
    }

    if (p == last || *p != '"') {
        return NGX_ERROR;
    }

    tag->data = start;
    tag->len = p - start;

    p++;

    while (p < last && (*p == ' ' || *p == '\t')) {
        p++;
    }

    if (p < last && *p != ',') {
        return NGX_ERROR;
    }

    list->len = last - p;
    list->data = p;

    return NGX_OK;
}
