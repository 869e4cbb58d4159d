
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Bytes out: SSE events and JSON strings.
 */


#include <ngx_rt_base.h>


static size_t ngx_rt_frame_line_len(const u_char *p, const u_char *last);
static size_t ngx_rt_utf8_char(const u_char *p, const u_char *last);
static u_char ngx_rt_json_short(u_char ch);


static const u_char  ngx_rt_hex[] = "0123456789abcdef";


#define ngx_rt_frame_named(event)                                             \
    ((event)->len != 0                                                        \
     && ((event)->len != sizeof("message") - 1                                \
         || ngx_memcmp((event)->data, "message", sizeof("message") - 1) != 0))


size_t
ngx_rt_frame_sse_len(const ngx_str_t *id, const ngx_str_t *event,
    const ngx_str_t *data)
{
    size_t         len, n;
    const u_char  *p, *last;

    len = 1;

    if (id->len) {
        len += sizeof("id: \n") - 1 + id->len;
    }

    if (ngx_rt_frame_named(event)) {
        len += sizeof("event: \n") - 1 + event->len;
    }

    p = data->data;
    last = p + data->len;

    for ( ;; ) {
        n = ngx_rt_frame_line_len(p, last);
        len += sizeof("data: \n") - 1 + n;
        p += n;

        if (p == last) {
            return len;
        }

        p += (p[0] == '\r' && last - p > 1 && p[1] == '\n') ? 2 : 1;
    }
}


u_char *
ngx_rt_frame_sse(u_char *p, const ngx_str_t *id, const ngx_str_t *event,
    const ngx_str_t *data)
{
    size_t         n;
    const u_char  *s, *last;

    if (id->len) {
        p = ngx_cpymem(p, "id: ", sizeof("id: ") - 1);
        p = ngx_cpymem(p, id->data, id->len);
        *p++ = '\n';
    }

    if (ngx_rt_frame_named(event)) {
        p = ngx_cpymem(p, "event: ", sizeof("event: ") - 1);
        p = ngx_cpymem(p, event->data, event->len);
        *p++ = '\n';
    }

    s = data->data;
    last = s + data->len;

    for ( ;; ) {
        n = ngx_rt_frame_line_len(s, last);

        p = ngx_cpymem(p, "data: ", sizeof("data: ") - 1);

        if (n) {
            p = ngx_cpymem(p, s, n);
        }

        *p++ = '\n';
        s += n;

        if (s == last) {
            break;
        }

        s += (s[0] == '\r' && last - s > 1 && s[1] == '\n') ? 2 : 1;
    }

    *p++ = '\n';

    return p;
}


/* bytes up to CR, LF or the end */

static size_t
ngx_rt_frame_line_len(const u_char *p, const u_char *last)
{
    const u_char  *s;

    for (s = p; s < last; s++) {
        if (*s == '\n' || *s == '\r') {
            break;
        }
    }

    return s - p;
}


#define NGX_RT_GAP_EVENT    "\nevent: rt.gap\ndata: {\"channel\":"
#define NGX_RT_GAP_REASON   ",\"reason\":"


size_t
ngx_rt_frame_gap_len(const ngx_str_t *id, const ngx_str_t *channel,
    const ngx_str_t *reason)
{
    return sizeof("id: ") - 1 + id->len
           + sizeof(NGX_RT_GAP_EVENT) - 1 + ngx_rt_json_string_len(channel)
           + sizeof(NGX_RT_GAP_REASON) - 1 + ngx_rt_json_string_len(reason)
           + sizeof("}\n\n") - 1;
}


u_char *
ngx_rt_frame_gap(u_char *p, const ngx_str_t *id, const ngx_str_t *channel,
    const ngx_str_t *reason)
{
    p = ngx_cpymem(p, "id: ", sizeof("id: ") - 1);
    p = ngx_cpymem(p, id->data, id->len);
    p = ngx_cpymem(p, NGX_RT_GAP_EVENT, sizeof(NGX_RT_GAP_EVENT) - 1);
    p = ngx_rt_json_string(p, channel);
    p = ngx_cpymem(p, NGX_RT_GAP_REASON, sizeof(NGX_RT_GAP_REASON) - 1);
    p = ngx_rt_json_string(p, reason);

    return ngx_cpymem(p, "}\n\n", sizeof("}\n\n") - 1);
}


ngx_uint_t
ngx_rt_utf8_valid(const u_char *s, size_t len)
{
    size_t         n;
    const u_char  *last;

    last = s + len;

    while (s < last) {

        if (*s < 0x80) {
            s++;
            continue;
        }

        n = ngx_rt_utf8_char(s, last);

        if (n == 0) {
            return 0;
        }

        s += n;
    }

    return 1;
}


/* length of the well-formed character at p (Unicode, table 3-7), 0: none */

static size_t
ngx_rt_utf8_char(const u_char *p, const u_char *last)
{
    u_char  low, high;
    size_t  n, i;

    low = 0x80;
    high = 0xbf;

    if (*p < 0x80) {
        return 1;

    } else if (*p < 0xc2) {
        return 0;

    } else if (*p < 0xe0) {
        n = 2;

    } else if (*p < 0xf0) {
        n = 3;

        if (*p == 0xe0) {
            low = 0xa0;

        } else if (*p == 0xed) {
            high = 0x9f;
        }

    } else if (*p < 0xf5) {
        n = 4;

        if (*p == 0xf0) {
            low = 0x90;

        } else if (*p == 0xf4) {
            high = 0x8f;
        }

    } else {
        return 0;
    }

    if ((size_t) (last - p) < n || p[1] < low || p[1] > high) {
        return 0;
    }

    for (i = 2; i < n; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf) {
            return 0;
        }
    }

    return n;
}


size_t
ngx_rt_json_string_len(const ngx_str_t *s)
{
    size_t         len, n;
    const u_char  *p, *last;

    len = 2;
    p = s->data;
    last = p + s->len;

    while (p < last) {

        if (*p < 0x20 || *p == '"' || *p == '\\' || *p == 0x7f) {
            len += ngx_rt_json_short(*p) ? 2 : 6;
            p++;
            continue;
        }

        n = ngx_rt_utf8_char(p, last);

        len += n ? n : 3;
        p += n ? n : 1;
    }

    return len;
}


u_char *
ngx_rt_json_string(u_char *p, const ngx_str_t *s)
{
    u_char         ch;
    size_t         n;
    const u_char  *q, *last;

    *p++ = '"';

    q = s->data;
    last = q + s->len;

    while (q < last) {

        if (*q < 0x20 || *q == '"' || *q == '\\' || *q == 0x7f) {
            *p++ = '\\';
            ch = ngx_rt_json_short(*q);

            if (ch) {
                *p++ = ch;

            } else {
                p = ngx_cpymem(p, "u00", sizeof("u00") - 1);
                *p++ = ngx_rt_hex[*q >> 4];
                *p++ = ngx_rt_hex[*q & 15];
            }

            q++;
            continue;
        }

        n = ngx_rt_utf8_char(q, last);

        if (n) {
            p = ngx_cpymem(p, q, n);
            q += n;

        } else {
            p = ngx_cpymem(p, "\xef\xbf\xbd", 3);
            q++;
        }
    }

    *p++ = '"';

    return p;
}


static u_char
ngx_rt_json_short(u_char ch)
{
    switch (ch) {

    case '"':
    case '\\':
        return ch;

    case '\b':
        return 'b';

    case '\f':
        return 'f';

    case '\n':
        return 'n';

    case '\r':
        return 'r';

    case '\t':
        return 't';
    }

    return 0;
}
