
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The text form of a place in the order of messages, and the list of such
 * texts that a client sends back.
 */


#include <ngx_rt_base.h>


#define NGX_RT_EPOCH_LEN          8
#define NGX_RT_SEQ_LEN            11
#define NGX_RT_DIGEST_TEXT_LEN    16


static u_char *ngx_rt_digits_write(u_char *p, uint64_t value, ngx_uint_t n);
static u_char *ngx_rt_digits_write_8(u_char *p, uint64_t value);
static ngx_int_t ngx_rt_digits_read(const u_char *p, ngx_uint_t n,
    uint64_t *value);
static u_char *ngx_rt_digest_write(u_char *p, const u_char *digest);
static ngx_int_t ngx_rt_digest_read(const u_char *p, u_char *digest);
static ngx_int_t ngx_rt_seq_read(const u_char *p, size_t len, uint64_t *seq);
static const u_char *ngx_rt_etag_read(const u_char *p, const u_char *last,
    ngx_str_t *tag);
static const u_char *ngx_rt_skip_ows(const u_char *p, const u_char *last);


static const u_char  ngx_rt_digits[64] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";


/* value of a digit plus one, 0: no digit */

static const u_char  ngx_rt_digit_values[256] = {
    ['A'] =  1, ['B'] =  2, ['C'] =  3, ['D'] =  4, ['E'] =  5, ['F'] =  6,
    ['G'] =  7, ['H'] =  8, ['I'] =  9, ['J'] = 10, ['K'] = 11, ['L'] = 12,
    ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18,
    ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26,

    ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38,
    ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44,
    ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49, ['x'] = 50,
    ['y'] = 51, ['z'] = 52,

    ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56, ['4'] = 57, ['5'] = 58,
    ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62,

    ['-'] = 63, ['_'] = 64
};


u_char *
ngx_rt_cursor_format(u_char *p, const ngx_rt_cursor_t *cursor)
{
    uint64_t    rest;
    ngx_uint_t  n;

    p = ngx_rt_digits_write_8(p, cursor->epoch);

    n = 1;

    for (rest = cursor->seq >> 6; rest; rest >>= 6) {
        n++;
    }

    *p++ = '.';
    p = ngx_rt_digits_write(p, cursor->seq, n);

    if (!cursor->digested) {
        return p;
    }

    *p++ = '.';
    p = ngx_rt_digest_write(p, cursor->digest);

    if (!cursor->grouped) {
        return p;
    }

    *p++ = ',';

    return ngx_rt_digest_write(p, cursor->group);
}


ngx_int_t
ngx_rt_cursor_parse(ngx_rt_cursor_t *cursor, const u_char *text, size_t len)
{
    size_t           n;
    ngx_rt_cursor_t  c;

    ngx_memzero(&c, sizeof(ngx_rt_cursor_t));

    if (len < NGX_RT_EPOCH_LEN + 2
        || len > NGX_RT_CURSOR_LEN
        || text[NGX_RT_EPOCH_LEN] != '.'
        || ngx_rt_digits_read(text, NGX_RT_EPOCH_LEN, &c.epoch) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    text += NGX_RT_EPOCH_LEN + 1;
    len -= NGX_RT_EPOCH_LEN + 1;

    for (n = 0; n < len && text[n] != '.'; n++) { /* void */ }

    if (ngx_rt_seq_read(text, n, &c.seq) != NGX_OK) {
        return NGX_DECLINED;
    }

    text += n;
    len -= n;

    if (len == 0) {
        *cursor = c;
        return NGX_OK;
    }

    /* at the dot */

    if (len < 1 + NGX_RT_DIGEST_TEXT_LEN
        || ngx_rt_digest_read(text + 1, c.digest) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    c.digested = 1;

    text += 1 + NGX_RT_DIGEST_TEXT_LEN;
    len -= 1 + NGX_RT_DIGEST_TEXT_LEN;

    if (len == 0) {
        *cursor = c;
        return NGX_OK;
    }

    if (len != 1 + NGX_RT_DIGEST_TEXT_LEN
        || text[0] != ','
        || ngx_rt_digest_read(text + 1, c.group) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    c.grouped = 1;

    *cursor = c;

    return NGX_OK;
}


/* the n lowest digits of value */

static u_char *
ngx_rt_digits_write(u_char *p, uint64_t value, ngx_uint_t n)
{
    u_char  *last;

    last = p + n;

    for (p = last; n; n--) {
        *--p = ngx_rt_digits[value & 63];
        value >>= 6;
    }

    return last;
}


/* the same of 8: a poll writes three of them */

static u_char *
ngx_rt_digits_write_8(u_char *p, uint64_t value)
{
    p[0] = ngx_rt_digits[value >> 42 & 63];
    p[1] = ngx_rt_digits[value >> 36 & 63];
    p[2] = ngx_rt_digits[value >> 30 & 63];
    p[3] = ngx_rt_digits[value >> 24 & 63];
    p[4] = ngx_rt_digits[value >> 18 & 63];
    p[5] = ngx_rt_digits[value >> 12 & 63];
    p[6] = ngx_rt_digits[value >> 6 & 63];
    p[7] = ngx_rt_digits[value & 63];

    return p + 8;
}


static ngx_int_t
ngx_rt_digits_read(const u_char *p, ngx_uint_t n, uint64_t *value)
{
    u_char    digit;
    uint64_t  v;

    for (v = 0; n; n--) {
        digit = ngx_rt_digit_values[*p++];

        if (digit == 0) {
            return NGX_ERROR;
        }

        v = (v << 6) | (uint64_t) (digit - 1);
    }

    *value = v;

    return NGX_OK;
}


/* only the shortest form, and nothing that does not fit 64 bits */

static ngx_int_t
ngx_rt_seq_read(const u_char *p, size_t len, uint64_t *seq)
{
    if (len == 0
        || len > NGX_RT_SEQ_LEN
        || (len > 1 && p[0] == 'A')
        || (len == NGX_RT_SEQ_LEN && ngx_rt_digit_values[p[0]] > 16))
    {
        return NGX_ERROR;
    }

    return ngx_rt_digits_read(p, len, seq);
}


/* 12 bytes are two words of 48 bits, 8 digits each: no padding */

static u_char *
ngx_rt_digest_write(u_char *p, const u_char *digest)
{
    uint64_t       v;
    ngx_uint_t     i;
    const u_char  *d;

    for (i = 0; i < NGX_RT_DIGEST_LEN; i += 6) {
        d = digest + i;

        v = (uint64_t) d[0] << 40 | (uint64_t) d[1] << 32
            | (uint64_t) d[2] << 24 | (uint64_t) d[3] << 16
            | (uint64_t) d[4] << 8 | d[5];

        p = ngx_rt_digits_write_8(p, v);
    }

    return p;
}


static ngx_int_t
ngx_rt_digest_read(const u_char *p, u_char *digest)
{
    uint64_t    v;
    ngx_uint_t  i, n;

    for (i = 0; i < NGX_RT_DIGEST_LEN; i += 6) {

        if (ngx_rt_digits_read(p, 8, &v) != NGX_OK) {
            return NGX_ERROR;
        }

        p += 8;

        for (n = 6; n; n--) {
            digest[i + n - 1] = (u_char) v;
            v >>= 8;
        }
    }

    return NGX_OK;
}


/*
 * What follows an element is looked at along with it, up to the next one, so
 * that no state is needed to tell a lone "*" from one in a list.
 */

ngx_int_t
ngx_rt_etag_next(ngx_str_t *list, ngx_str_t *tag)
{
    const u_char  *p, *last;

    if (list->len == 0) {
        return NGX_DONE;
    }

    p = list->data;
    last = p + list->len;

    /* for each return below but the last one: nothing is left */
    list->len = 0;

    p = ngx_rt_skip_ows(p, last);

    if (p < last && *p == '*') {
        p = ngx_rt_skip_ows(p + 1, last);
        return (p == last) ? NGX_DECLINED : NGX_ERROR;
    }

    while (p < last && *p == ',') {
        p = ngx_rt_skip_ows(p + 1, last);
    }

    if (p == last) {
        return NGX_DONE;
    }

    p = ngx_rt_etag_read(p, last, tag);
    if (p == NULL) {
        return NGX_ERROR;
    }

    p = ngx_rt_skip_ows(p, last);

    if (p == last) {
        return NGX_OK;
    }

    if (*p != ',') {
        return NGX_ERROR;
    }

    while (p < last && *p == ',') {
        p = ngx_rt_skip_ows(p + 1, last);
    }

    if (p < last && *p == '*') {
        return NGX_ERROR;
    }

    list->data = (u_char *) p;
    list->len = last - p;

    return NGX_OK;
}


/* [ W/ ] DQUOTE *etagc DQUOTE; returns what follows, NULL: malformed */

static const u_char *
ngx_rt_etag_read(const u_char *p, const u_char *last, ngx_str_t *tag)
{
    const u_char  *start;

    if (last - p > 2 && p[0] == 'W' && p[1] == '/') {
        p += 2;
    }

    if (*p++ != '"') {
        return NULL;
    }

    for (start = p; p < last; p++) {

        if (*p == '"') {
            tag->data = (u_char *) start;
            tag->len = p - start;
            return p + 1;
        }

        if (*p <= ' ' || *p == 0x7f) {
            return NULL;
        }
    }

    return NULL;
}


static const u_char *
ngx_rt_skip_ows(const u_char *p, const u_char *last)
{
    while (p < last && (*p == ' ' || *p == '\t')) {
        p++;
    }

    return p;
}
