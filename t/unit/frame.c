
/*
 * Copyright (C) 2026 ngx_rt contributors
 */


#include "unit.h"
#include "../../ngx_rt_module/ngx_rt_frame.c"
#include "sse.h"


#define s(text)  str(text, sizeof(text) - 1)


static ngx_str_t *
str(const char *text, size_t len)
{
    static ngx_str_t   ring[8];
    static ngx_uint_t  n;

    ngx_str_t  *str;

    str = &ring[n++ % 8];
    str->data = (u_char *) text;
    str->len = len;

    return str;
}


static void
is_sse(ngx_str_t *id, ngx_str_t *event, ngx_str_t *data, const char *want,
    size_t len, const char *name)
{
    u_char  buf[512], *p;

    p = ngx_rt_frame_sse(buf, id, event, data);

    is_mem(buf, p - buf, want, len, "sse: %s", name);
    is_int(ngx_rt_frame_sse_len(id, event, data), len, "and its length");
}


#define sse(id, event, data, want, name)                                      \
    is_sse(s(id), s(event), s(data), want, sizeof(want) - 1, name)


static void
test_sse(void)
{
    ngx_str_t  null = ngx_null_string;

    sse("1.2", "note", "hello", "id: 1.2\nevent: note\ndata: hello\n\n",
        "all there is");
    sse("", "note", "hello", "event: note\ndata: hello\n\n", "no id");
    sse("1.2", "", "hello", "id: 1.2\ndata: hello\n\n", "no event");
    sse("1.2", "message", "hello", "id: 1.2\ndata: hello\n\n",
        "the event's default name");
    sse("", "messages", "x", "event: messages\ndata: x\n\n", "a longer one");
    sse("", "Message", "x", "event: Message\ndata: x\n\n", "names have case");
    sse("", "", "", "data: \n\n", "no data");
    sse("", "", " x", "data:  x\n\n", "a space that is data");
    sse("", "", ": x", "data: : x\n\n", "a colon that is data");

    sse("", "", "\n", "data: \ndata: \n\n", "LF");
    sse("", "", "\r", "data: \ndata: \n\n", "CR");
    sse("", "", "\r\n", "data: \ndata: \n\n", "CRLF");
    sse("", "", "\n\r", "data: \ndata: \ndata: \n\n", "LFCR are two");
    sse("", "", "\r\r\n\n", "data: \ndata: \ndata: \ndata: \n\n",
        "CR, CRLF, LF");
    sse("", "", "a\n", "data: a\ndata: \n\n", "LF at the end");
    sse("", "", "\na", "data: \ndata: a\n\n", "LF in front");
    sse("", "", "a\nb\rc\r\nd", "data: a\ndata: b\ndata: c\ndata: d\n\n",
        "one of each");
    sse("", "", "a\n\nid: 9\n\nevent: rt.gap\rretry: 0\r\n: b",
        "data: a\ndata: \ndata: id: 9\ndata: \ndata: event: rt.gap\n"
        "data: retry: 0\ndata: : b\n\n", "nothing can be injected");

    sse("", "", "a\0b", "data: a\0b\n\n", "NUL");
    sse("", "", "\xef\xbb\xbf" "a", "data: \xef\xbb\xbf" "a\n\n", "BOM");
    sse("", "", "\xff\xc0\x80\xed\xa0\x80",
        "data: \xff\xc0\x80\xed\xa0\x80\n\n", "no UTF-8");
    sse("", "", "\xe2\x80\xa8\x0b\x0c\xc2\x85",
        "data: \xe2\x80\xa8\x0b\x0c\xc2\x85\n\n",
        "what others call line ends are none");

    is_sse(&null, &null, &null, "data: \n\n", 8, "nothing, all at NULL");
}


/* 1: a frame of this data has the length foretold and reads back */

static ngx_uint_t
reads_back(ngx_str_t *id, ngx_str_t *event, ngx_str_t *data)
{
    u_char      *frame, *normal;
    sse_t        sse;
    size_t       len, n;
    ngx_uint_t   rc;

    len = ngx_rt_frame_sse_len(id, event, data);
    frame = malloc(len);
    normal = malloc(data->len + 1);

    if (frame == NULL || normal == NULL) {
        abort();
    }

    rc = ((size_t) (ngx_rt_frame_sse(frame, id, event, data) - frame) == len);

    sse_parse(&sse, frame, len);
    n = sse_normal(normal, data->data, data->len);

    rc = rc
         && sse.events == 1
         && sse.strange == 0
         && sse.data.len == n
         && memcmp(sse.data.data, normal, n) == 0
         && sse.id.len == id->len
         && memcmp(sse.id.data, id->data, id->len) == 0
         && sse.event.len == event->len
         && memcmp(sse.event.data, event->data, event->len) == 0;

    sse_free(&sse);
    free(normal);
    free(frame);

    return rc;
}


/* all texts of up to 7 bytes of these */

static void
test_round_trip(void)
{
    u_char      buf[7];
    size_t      len, i;
    ngx_str_t   data;
    ngx_uint_t  n, k, bad, count;

    static const u_char  alphabet[] = { '\r', '\n', ' ', ':', 'a' };

    bad = 0;
    count = 0;
    data.data = buf;

    for (len = 0, n = 1; len <= sizeof(buf); len++, n *= 5) {
        data.len = len;

        for (k = 0; k < n; k++) {
            ngx_uint_t  v = k;

            for (i = 0; i < len; i++) {
                buf[i] = alphabet[v % 5];
                v /= 5;
            }

            bad += !reads_back(s("x.y"), s("e"), &data);
            count++;
        }
    }

    is_int(bad, 0, "%d texts read back", (int) count);
}


static void
test_large(void)
{
    size_t      i, len;
    ngx_str_t   data;
    ngx_uint_t  k;

    static const char  *fill[] = { "a", "\n", "\r", "\r\n", "a\n", "\na\r" };

    len = 2 * 1024 * 1024;

    data.len = len;
    data.data = malloc(len);

    if (data.data == NULL) {
        abort();
    }

    for (k = 0; k < sizeof(fill) / sizeof(fill[0]); k++) {

        for (i = 0; i < len; i++) {
            data.data[i] = (u_char) fill[k][i % ngx_strlen(fill[k])];
        }

        ok(reads_back(s("1"), s("e"), &data), "2 MB of the same, no. %d",
           (int) k);
    }

    /* any bytes, 200 KB */

    data.len = 200 * 1024;

    for (i = 0, k = 1; i < data.len; i++) {
        k = (k * 1103515245 + 12345) & 0x7fffffff;
        data.data[i] = (u_char) (k >> 16);
    }

    ok(reads_back(s("1"), s("e"), &data), "200 KB of noise");

    free(data.data);
}


static void
is_gap(ngx_str_t *id, ngx_str_t *channel, ngx_str_t *reason, const char *want,
    size_t len, const char *name)
{
    u_char  buf[512], *p;
    sse_t   sse;

    p = ngx_rt_frame_gap(buf, id, channel, reason);

    is_mem(buf, p - buf, want, len, "gap: %s", name);
    is_int(ngx_rt_frame_gap_len(id, channel, reason), len, "and its length");

    sse_parse(&sse, buf, p - buf);

    ok(sse.events == 1 && sse.strange == 0, "one event");
    is_mem(sse.event.data, sse.event.len, "rt.gap", 6, "an rt.gap");
    is_mem(sse.id.data, sse.id.len, id->data, id->len, "with its id");

    sse_free(&sse);
}


#define gap(id, channel, reason, want, name)                                  \
    is_gap(s(id), s(channel), s(reason), want, sizeof(want) - 1, name)


static void
test_gap(void)
{
    gap("A.B", "orders:42", "unknown cursor",
        "id: A.B\nevent: rt.gap\n"
        "data: {\"channel\":\"orders:42\",\"reason\":\"unknown cursor\"}\n\n",
        "as usual");
    gap("", "a", "b",
        "event: rt.gap\ndata: {\"channel\":\"a\",\"reason\":\"b\"}\n\n",
        "without an id the client keeps the one it has");
    gap("A.B", "\"\\\xff", "b",
        "id: A.B\nevent: rt.gap\n"
        "data: {\"channel\":\"\\\"\\\\\xef\xbf\xbd\",\"reason\":\"b\"}\n\n",
        "a channel that needs escapes");
}


/* well-formed UTF-8 by way of the code points */

static ngx_uint_t
ref_utf8(const u_char *p, size_t len)
{
    size_t    n, i;
    uint32_t  code;

    static const uint32_t  least[] = { 0, 0, 0x80, 0x800, 0x10000 };

    while (len) {
        n = (*p < 0x80) ? 1
            : ((*p & 0xe0) == 0xc0) ? 2
            : ((*p & 0xf0) == 0xe0) ? 3
            : ((*p & 0xf8) == 0xf0) ? 4 : 0;

        if (n == 0 || n > len) {
            return 0;
        }

        code = (n == 1) ? *p : *p & (0x7fu >> n);

        for (i = 1; i < n; i++) {
            if ((p[i] & 0xc0) != 0x80) {
                return 0;
            }

            code = code << 6 | (p[i] & 0x3f);
        }

        if (code < least[n] || code > 0x10ffff
            || (code >= 0xd800 && code <= 0xdfff))
        {
            return 0;
        }

        p += n;
        len -= n;
    }

    return 1;
}


static void
test_utf8(void)
{
    u_char      buf[32];
    size_t      len;
    uint32_t    v;
    ngx_uint_t  bad, i;

    static const u_char  edges[] = { 0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xff };

    is_int(ngx_rt_utf8_valid(NULL, 0), 1, "utf-8: nothing");

    bad = 0;

    for (len = 1; len <= 3; len++) {
        for (v = 0; v < (uint32_t) 1 << (8 * len); v++) {
            buf[0] = (u_char) v;
            buf[1] = (u_char) (v >> 8);
            buf[2] = (u_char) (v >> 16);

            bad += (ngx_rt_utf8_valid(buf, len) != ref_utf8(buf, len));
        }
    }

    is_int(bad, 0, "utf-8: all of one to three bytes");

    bad = 0;

    for (v = 0; v < 65536 * 36; v++) {
        buf[0] = (u_char) v;
        buf[1] = (u_char) (v >> 8);
        buf[2] = edges[(v >> 16) % 6];
        buf[3] = edges[(v >> 16) / 6];

        bad += (ngx_rt_utf8_valid(buf, 4) != ref_utf8(buf, 4));
    }

    is_int(bad, 0, "utf-8: four bytes with the last two at the edges");

    /* a bad byte at each place: none hides behind the step of eight */

    bad = 0;

    for (len = 1; len <= sizeof(buf); len++) {
        for (i = 0; i < len; i++) {
            ngx_memset(buf, 'a', sizeof(buf));
            bad += !ngx_rt_utf8_valid(buf, len);
            buf[i] = 0x80;
            bad += ngx_rt_utf8_valid(buf, len);
        }
    }

    is_int(bad, 0, "utf-8: a bad byte anywhere among ASCII");
}


static void
is_json(ngx_str_t *text, const char *want, size_t len, const char *name)
{
    u_char  buf[512], *p;

    p = ngx_rt_json_string(buf, text);

    is_mem(buf, p - buf, want, len, "json: %s", name);
    is_int(ngx_rt_json_string_len(text), len, "and its length");
}


#define json(text, want, name)                                                \
    is_json(s(text), want, sizeof(want) - 1, name)


static void
test_json(void)
{
    ngx_str_t  null = ngx_null_string;

    is_json(&null, "\"\"", 2, "NULL");

    json("", "\"\"", "nothing");
    json("plain text, longer than eight", "\"plain text, longer than eight\"",
         "nothing to escape");
    json("\"\\/", "\"\\\"\\\\/\"", "quote, backslash, slash");
    json("\b\t\n\f\r", "\"\\b\\t\\n\\f\\r\"", "short forms");
    json("\0\x01\x0b\x1f\x7f", "\"\\u0000\\u0001\\u000b\\u001f\\u007f\"",
         "long forms");
    json("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
         "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "UTF-8");
    json("\xff" "a\xc3", "\"\xef\xbf\xbd" "a\xef\xbf\xbd\"",
         "bytes that are none");
    json("\xf0\x9f\x98", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"",
         "a character cut off, for each byte one");
    json("\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"",
         "a surrogate");
    json("0123456\"89012345\n7890123\x7f", "\"0123456\\\"89012345\\n7890123"
         "\\u007f\"", "at the edges of eight");
}


/* each byte at each place of a text around the steps of eight */

static void
test_json_bytes(void)
{
    u_char      text[19], got[128], want[128], *p, *q;
    size_t      i;
    ngx_str_t   str;
    ngx_uint_t  ch, bad;

    static const char  *shorts[256] = {
        ['"'] = "\\\"", ['\\'] = "\\\\", ['\b'] = "\\b", ['\t'] = "\\t",
        ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r"
    };

    bad = 0;
    str.data = text;
    str.len = sizeof(text);

    for (i = 0; i < sizeof(text); i++) {
        for (ch = 0; ch < 256; ch++) {
            ngx_memset(text, 'a', sizeof(text));
            text[i] = (u_char) ch;

            p = ngx_rt_json_string(got, &str);

            q = want;
            q += sprintf((char *) q, "\"%.*s", (int) i, "aaaaaaaaaaaaaaaaaaa");

            if (shorts[ch]) {
                q += sprintf((char *) q, "%s", shorts[ch]);

            } else if (ch < 0x20 || ch == 0x7f) {
                q += sprintf((char *) q, "\\u%04x", (unsigned) ch);

            } else if (ch < 0x80) {
                *q++ = (u_char) ch;

            } else {
                q += sprintf((char *) q, "\xef\xbf\xbd");
            }

            q += sprintf((char *) q, "%.*s\"", (int) (sizeof(text) - i - 1),
                         "aaaaaaaaaaaaaaaaaaa");

            bad += (p - got != q - want
                    || memcmp(got, want, p - got) != 0
                    || ngx_rt_json_string_len(&str) != (size_t) (p - got));
        }
    }

    is_int(bad, 0, "json: each byte at each place");
}


int
main(void)
{
    test_sse();
    test_round_trip();
    test_large();
    test_gap();
    test_utf8();
    test_json();
    test_json_bytes();

    done_testing();
}
