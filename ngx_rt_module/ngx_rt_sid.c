
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Ids of stream entries, and cursors made of them.  Redis' own text is the
 * cursor: whoever looks at one can look the entry up by hand, and it is the
 * same on every node.
 */


#include <ngx_rt_base.h>


#define NGX_RT_SET_DIGITS         4


static const u_char *ngx_rt_sid_number(const u_char *p, const u_char *last,
    uint64_t *value);
static uint64_t ngx_rt_sid_load(const u_char *p);
static void ngx_rt_sid_store(u_char *p, uint64_t value);
static ngx_int_t ngx_rt_set_parse(const u_char *p, uint32_t set);
static u_char *ngx_rt_set_format(u_char *p, uint32_t set);


static const u_char  ngx_rt_set_digits[64] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";


u_char *
ngx_rt_sid_format(u_char *p, const u_char tag[NGX_RT_TAG_LEN])
{
    return ngx_sprintf(p, "%uL-%uL", ngx_rt_sid_load(tag),
                       ngx_rt_sid_load(tag + 8));
}


ngx_int_t
ngx_rt_sid_parse(u_char tag[NGX_RT_TAG_LEN], const u_char *text, size_t len)
{
    uint64_t       ms, n;
    const u_char  *p, *last;

    last = text + len;

    p = ngx_rt_sid_number(text, last, &ms);

    if (p == NULL || p == last || *p != '-') {
        return NGX_DECLINED;
    }

    p = ngx_rt_sid_number(p + 1, last, &n);

    if (p != last) {
        return NGX_DECLINED;
    }

    ngx_rt_sid_store(tag, ms);
    ngx_rt_sid_store(tag + 8, n);

    return NGX_OK;
}


/* digits without a leading zero, below 2^64; NULL: none, or too large */

static const u_char *
ngx_rt_sid_number(const u_char *p, const u_char *last, uint64_t *value)
{
    uint64_t       v, digit;
    const u_char  *start;

    v = 0;

    for (start = p; p < last && *p >= '0' && *p <= '9'; p++) {
        digit = *p - '0';

        if (v > ((uint64_t) -1 - digit) / 10) {
            return NULL;
        }

        v = v * 10 + digit;
    }

    if (p == start || (*start == '0' && p - start > 1)) {
        return NULL;
    }

    *value = v;

    return p;
}


void
ngx_rt_sid_before(u_char tag[NGX_RT_TAG_LEN])
{
    uint64_t  ms, n;

    ms = ngx_rt_sid_load(tag);
    n = ngx_rt_sid_load(tag + 8);

    if (n == 0) {

        if (ms == 0) {
            return;
        }

        ngx_rt_sid_store(tag, ms - 1);
    }

    ngx_rt_sid_store(tag + 8, n - 1);
}


ngx_uint_t
ngx_rt_sid_adjacent(const u_char place[NGX_RT_TAG_LEN],
    const u_char tag[NGX_RT_TAG_LEN])
{
    u_char  before[NGX_RT_TAG_LEN];

    ngx_memcpy(before, tag, NGX_RT_TAG_LEN);
    ngx_rt_sid_before(before);

    return ngx_rt_sid_cmp(before, place) == 0
           && ngx_rt_sid_cmp(before, tag) != 0;
}


static uint64_t
ngx_rt_sid_load(const u_char *p)
{
    uint64_t    v;
    ngx_uint_t  i;

    for (v = 0, i = 0; i < 8; i++) {
        v = (v << 8) | p[i];
    }

    return v;
}


static void
ngx_rt_sid_store(u_char *p, uint64_t value)
{
    ngx_uint_t  i;

    for (i = 8; i; i--) {
        p[i - 1] = (u_char) value;
        value >>= 8;
    }
}


uint32_t
ngx_rt_places_set(const ngx_str_t *channels, ngx_uint_t n)
{
    uint64_t    out[2];
    ngx_uint_t  i;
    u_char      key[16];

    if (n == 1) {
        return 0;
    }

    ngx_memcpy(key, "ngx_rt: places  ", 16);

    for (i = 0; i < n; i++) {
        ngx_rt_hash128(key, channels[i].data, channels[i].len, out);
        ngx_memcpy(key, out, 16);
    }

    return (uint32_t) (out[0] & 0xffffff);
}


u_char *
ngx_rt_places_format(u_char *p, const ngx_rt_place_t *places, ngx_uint_t n,
    uint32_t set)
{
    ngx_uint_t  i;

    if (n == 1) {
        return ngx_rt_sid_format(p, places[0].tag);
    }

    p = ngx_rt_set_format(p, set);
    *p++ = '.';

    for (i = 0; i < n; i++) {

        if (i) {
            *p++ = ',';
        }

        if (places[i].known) {
            p = ngx_rt_sid_format(p, places[i].tag);
        }
    }

    return p;
}


ngx_int_t
ngx_rt_places_parse(ngx_rt_place_t *places, ngx_uint_t n, uint32_t set,
    const u_char *text, size_t len)
{
    ngx_uint_t     i;
    const u_char  *p, *last, *end;

    ngx_memzero(places, n * sizeof(ngx_rt_place_t));

    if (n == 1) {
        places[0].known = 1;
        return ngx_rt_sid_parse(places[0].tag, text, len);
    }

    p = text;
    last = p + len;

    if (len <= NGX_RT_SET_DIGITS
        || p[NGX_RT_SET_DIGITS] != '.'
        || ngx_rt_set_parse(p, set) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    p += NGX_RT_SET_DIGITS + 1;

    for (i = 0; i < n; i++) {

        for (end = p; end < last && *end != ','; end++) { /* void */ }

        if ((end == last) != (i == n - 1)) {
            return NGX_DECLINED;
        }

        if (end > p) {

            if (ngx_rt_sid_parse(places[i].tag, p, end - p) != NGX_OK) {
                return NGX_DECLINED;
            }

            places[i].known = 1;
        }

        p = end + 1;
    }

    return NGX_OK;
}


static u_char *
ngx_rt_set_format(u_char *p, uint32_t set)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_RT_SET_DIGITS; i++) {
        *p++ = ngx_rt_set_digits[(set >> (18 - 6 * i)) & 63];
    }

    return p;
}


static ngx_int_t
ngx_rt_set_parse(const u_char *p, uint32_t set)
{
    u_char  buf[NGX_RT_SET_DIGITS];

    (void) ngx_rt_set_format(buf, set);

    return (ngx_memcmp(p, buf, NGX_RT_SET_DIGITS) == 0) ? NGX_OK
                                                        : NGX_DECLINED;
}
