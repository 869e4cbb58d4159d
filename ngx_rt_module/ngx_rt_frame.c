
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Bytes out: SSE events and JSON strings.
 */


#include <ngx_rt_base.h>


#define NGX_RT_SSE_GAP            "event: rt.gap\ndata: {\"channel\":"
#define NGX_RT_SSE_REASON         ",\"reason\":"
#define NGX_RT_SSE_GAP_END        "}\n\n"

#define NGX_RT_UTF8_REPLACEMENT   "\xef\xbf\xbd"

/* a value in each of eight bytes */
#define ngx_rt_bytes(b)           ((b) * 0x0101010101010101ULL)

#define ngx_rt_put(p, s)          ngx_cpymem(p, s, sizeof(s) - 1)


/*
 * Walks the lines of a text.  The next CR and the next LF are looked for
 * apart and kept until passed, so each byte is searched once for either and
 * a text with only one of them takes linear time.
 */

typedef struct {
    const u_char                 *p;        /* where the next line begins */
    const u_char                 *last;
    const u_char                 *cr;       /* the next one, last: none */
    const u_char                 *lf;
} ngx_rt_lines_t;


static size_t ngx_rt_sse_field_len(size_t name, const ngx_str_t *value);
static ngx_uint_t ngx_rt_sse_named(const ngx_str_t *event);
static void ngx_rt_lines_init(ngx_rt_lines_t *lines, const ngx_str_t *text);
static ngx_uint_t ngx_rt_lines_next(ngx_rt_lines_t *lines, ngx_str_t *line);
static const u_char *ngx_rt_find(const u_char *p, const u_char *last,
    u_char ch);
static size_t ngx_rt_utf8_char(const u_char *p, const u_char *last);
static u_char *ngx_rt_json_char(u_char *p, u_char ch);


/* what follows the backslash, 0: the byte stands for itself */

static const u_char  ngx_rt_json_escapes[128] = {
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
    'b', 't', 'n', 'u', 'f', 'r', 'u', 'u',
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
    ['"'] = '"', ['\\'] = '\\', [0x7f] = 'u'
};


size_t
ngx_rt_frame_sse_len(const ngx_str_t *id, const ngx_str_t *event,
    const ngx_str_t *data)
{
    size_t          len;
    ngx_str_t       line;
    ngx_uint_t      more;
    ngx_rt_lines_t  lines;

    len = ngx_rt_sse_field_len(sizeof("id: ") - 1, id);

    if (ngx_rt_sse_named(event)) {
        len += ngx_rt_sse_field_len(sizeof("event: ") - 1, event);
    }

    ngx_rt_lines_init(&lines, data);

    do {
        more = ngx_rt_lines_next(&lines, &line);
        len += sizeof("data: \n") - 1 + line.len;

    } while (more);

    return len + sizeof("\n") - 1;
}


u_char *
ngx_rt_frame_sse(u_char *p, const ngx_str_t *id, const ngx_str_t *event,
    const ngx_str_t *data)
{
    ngx_str_t       line;
    ngx_uint_t      more;
    ngx_rt_lines_t  lines;

    if (id->len) {
        p = ngx_rt_put(p, "id: ");
        p = ngx_cpymem(p, id->data, id->len);
        *p++ = '\n';
    }

    if (ngx_rt_sse_named(event)) {
        p = ngx_rt_put(p, "event: ");
        p = ngx_cpymem(p, event->data, event->len);
        *p++ = '\n';
    }

    ngx_rt_lines_init(&lines, data);

    do {
        more = ngx_rt_lines_next(&lines, &line);

        p = ngx_rt_put(p, "data: ");
        p = ngx_cpymem(p, line.data, line.len);
        *p++ = '\n';

    } while (more);

    *p++ = '\n';

    return p;
}


size_t
ngx_rt_frame_gap_len(const ngx_str_t *id, const ngx_str_t *channel,
    const ngx_str_t *reason)
{
    return ngx_rt_sse_field_len(sizeof("id: ") - 1, id)
           + sizeof(NGX_RT_SSE_GAP) - 1
           + ngx_rt_json_string_len(channel)
           + sizeof(NGX_RT_SSE_REASON) - 1
           + ngx_rt_json_string_len(reason)
           + sizeof(NGX_RT_SSE_GAP_END) - 1;
}


u_char *
ngx_rt_frame_gap(u_char *p, const ngx_str_t *id, const ngx_str_t *channel,
    const ngx_str_t *reason)
{
    if (id->len) {
        p = ngx_rt_put(p, "id: ");
        p = ngx_cpymem(p, id->data, id->len);
        *p++ = '\n';
    }

    p = ngx_rt_put(p, NGX_RT_SSE_GAP);
    p = ngx_rt_json_string(p, channel);
    p = ngx_rt_put(p, NGX_RT_SSE_REASON);
    p = ngx_rt_json_string(p, reason);

    return ngx_rt_put(p, NGX_RT_SSE_GAP_END);
}


/* name: bytes of "name: "; a field without a value is left out */

static size_t
ngx_rt_sse_field_len(size_t name, const ngx_str_t *value)
{
    return value->len ? name + value->len + sizeof("\n") - 1 : 0;
}


/* browsers name an event without a name "message" */

static ngx_uint_t
ngx_rt_sse_named(const ngx_str_t *event)
{
    if (event->len == 0) {
        return 0;
    }

    return event->len != sizeof("message") - 1
           || ngx_memcmp(event->data, "message", sizeof("message") - 1) != 0;
}


static void
ngx_rt_lines_init(ngx_rt_lines_t *lines, const ngx_str_t *text)
{
    /* the data of an empty text may be NULL */

    lines->p = text->len ? text->data : (const u_char *) "";
    lines->last = lines->p + text->len;
    lines->cr = ngx_rt_find(lines->p, lines->last, '\r');
    lines->lf = ngx_rt_find(lines->p, lines->last, '\n');
}


/* 1: another line follows, be it empty; 0: that was the last one */

static ngx_uint_t
ngx_rt_lines_next(ngx_rt_lines_t *lines, ngx_str_t *line)
{
    const u_char  *p, *end;

    p = lines->p;

    if (lines->cr < p) {
        lines->cr = ngx_rt_find(p, lines->last, '\r');
    }

    if (lines->lf < p) {
        lines->lf = ngx_rt_find(p, lines->last, '\n');
    }

    end = ngx_min(lines->cr, lines->lf);

    line->data = (u_char *) p;
    line->len = end - p;

    if (end == lines->last) {
        return 0;
    }

    p = end + 1;

    /* the LF of a CRLF ends no line of its own */

    if (*end == '\r' && p < lines->last && *p == '\n') {
        p++;
    }

    lines->p = p;

    return 1;
}


static const u_char *
ngx_rt_find(const u_char *p, const u_char *last, u_char ch)
{
    const u_char  *found;

    found = memchr(p, ch, last - p);

    return found ? found : last;
}


static ngx_inline uint64_t
ngx_rt_word(const u_char *p)
{
    uint64_t  v;

    ngx_memcpy(&v, p, 8);

    return v;
}


ngx_uint_t
ngx_rt_utf8_valid(const u_char *s, size_t len)
{
    size_t         n;
    const u_char  *last;

    if (len == 0) {
        return 1;
    }

    last = s + len;

    for ( ;; ) {

        while (last - s >= 8 && (ngx_rt_word(s) & ngx_rt_bytes(0x80)) == 0) {
            s += 8;
        }

        if (s == last) {
            return 1;
        }

        n = ngx_rt_utf8_char(s, last);

        if (n == 0) {
            return 0;
        }

        s += n;
    }
}


/* length of the well-formed character at p (Unicode, table 3-7), 0: none */

static size_t
ngx_rt_utf8_char(const u_char *p, const u_char *last)
{
    u_char  ch, low, high;
    size_t  n, i;

    ch = p[0];

    if (ch < 0x80) {
        return 1;
    }

    /* what the second byte may be: less after E0, ED, F0 and F4 */

    low = 0x80;
    high = 0xbf;

    if (ch < 0xc2) {
        return 0;

    } else if (ch < 0xe0) {
        n = 2;

    } else if (ch < 0xf0) {
        n = 3;
        low = (ch == 0xe0) ? 0xa0 : 0x80;
        high = (ch == 0xed) ? 0x9f : 0xbf;

    } else if (ch < 0xf5) {
        n = 4;
        low = (ch == 0xf0) ? 0x90 : 0x80;
        high = (ch == 0xf4) ? 0x8f : 0xbf;

    } else {
        return 0;
    }

    if ((size_t) (last - p) < n || p[1] < low || p[1] > high) {
        return 0;
    }

    for (i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }

    return n;
}


/* 1: not all of the eight bytes at p are ASCII that stands for itself */

static ngx_inline ngx_uint_t
ngx_rt_json_special(const u_char *p)
{
    uint64_t  v;

    v = ngx_rt_word(p);

    /* each difference has a high bit where a byte is too small or equal */

    return ((v
             | (v - ngx_rt_bytes(0x20))
             | ((v ^ ngx_rt_bytes('"')) - ngx_rt_bytes(1))
             | ((v ^ ngx_rt_bytes('\\')) - ngx_rt_bytes(1))
             | ((v ^ ngx_rt_bytes(0x7f)) - ngx_rt_bytes(1)))
            & ngx_rt_bytes(0x80)) != 0;
}


size_t
ngx_rt_json_string_len(const ngx_str_t *s)
{
    u_char         ch;
    size_t         len, n;
    ngx_uint_t     i;
    const u_char  *p, *last;

    len = sizeof("\"\"") - 1;

    p = s->len ? s->data : (const u_char *) "";
    last = p + s->len;

    while (p < last) {

        if (last - p >= 8 && !ngx_rt_json_special(p)) {
            len += 8;
            p += 8;
            continue;
        }

        for (i = 0; i < 8 && p < last; i++) {

            if (*p < 0x80) {
                ch = ngx_rt_json_escapes[*p++];
                len += (ch == 0) ? 1 : (ch == 'u') ? 6 : 2;
                continue;
            }

            n = ngx_rt_utf8_char(p, last);

            len += n ? n : sizeof(NGX_RT_UTF8_REPLACEMENT) - 1;
            p += n ? n : 1;
        }
    }

    return len;
}


u_char *
ngx_rt_json_string(u_char *p, const ngx_str_t *s)
{
    size_t         n;
    ngx_uint_t     i;
    const u_char  *q, *last;

    *p++ = '"';

    q = s->len ? s->data : (const u_char *) "";
    last = q + s->len;

    while (q < last) {

        if (last - q >= 8 && !ngx_rt_json_special(q)) {
            p = ngx_cpymem(p, q, 8);
            q += 8;
            continue;
        }

        for (i = 0; i < 8 && q < last; i++) {

            if (*q < 0x80) {
                p = ngx_rt_json_char(p, *q++);
                continue;
            }

            n = ngx_rt_utf8_char(q, last);

            if (n == 0) {
                p = ngx_rt_put(p, NGX_RT_UTF8_REPLACEMENT);
                q++;
                continue;
            }

            while (n--) {
                *p++ = *q++;
            }
        }
    }

    *p++ = '"';

    return p;
}


static u_char *
ngx_rt_json_char(u_char *p, u_char ch)
{
    u_char  escape;

    static const u_char  hex[] = "0123456789abcdef";

    escape = ngx_rt_json_escapes[ch];

    if (escape == 0) {
        *p++ = ch;
        return p;
    }

    *p++ = '\\';
    *p++ = escape;

    if (escape == 'u') {
        *p++ = '0';
        *p++ = '0';
        *p++ = hex[ch >> 4];
        *p++ = hex[ch & 15];
    }

    return p;
}
