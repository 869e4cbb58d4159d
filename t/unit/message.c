
/*
 * Copyright (C) 2026 ngx_rt contributors
 */


#include "unit.h"
#include "../../ngx_rt_module/ngx_rt_hash.c"
#include "../../ngx_rt_module/ngx_rt_message.c"


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
test_channel(void)
{
    char        text[256], name[2];
    ngx_str_t   ch, null = ngx_null_string;
    ngx_uint_t  i, bad;

    ngx_memset(text, 'a', sizeof(text));

    is_int(ngx_rt_channel_check(s("orders:42")), NGX_OK, "a channel");
    is_int(ngx_rt_channel_check(s("\xd0\xb0\xff{}*?\"\\,/")), NGX_OK,
           "a channel of odd bytes");
    is_int(ngx_rt_channel_check(str(text, 255)), NGX_OK, "255 bytes");
    is_int(ngx_rt_channel_check(str(text, 256)), NGX_ERROR, "256 bytes");
    is_int(ngx_rt_channel_check(s("")), NGX_ERROR, "an empty one");
    is_int(ngx_rt_channel_check(&null), NGX_ERROR, "NULL");

    bad = 0;

    for (i = 0; i < 256; i++) {
        name[0] = 'a';
        name[1] = (char) i;
        ch.data = (u_char *) name;
        ch.len = 2;

        bad += ((ngx_rt_channel_check(&ch) == NGX_OK)
                != (i > 32 && i != 127));
    }

    is_int(bad, 0, "a channel: each byte");
}


static void
test_event(void)
{
    char        text[256], name[2];
    ngx_str_t   event, null = ngx_null_string;
    ngx_uint_t  i, bad;

    ngx_memset(text, 'a', sizeof(text));

    is_int(ngx_rt_event_check(s("note")), NGX_OK, "an event name");
    is_int(ngx_rt_event_check(s("rt")), NGX_OK, "event rt");
    is_int(ngx_rt_event_check(s("rtx")), NGX_OK, "event rtx");
    is_int(ngx_rt_event_check(s("a.rt.")), NGX_OK, "event a.rt.");
    is_int(ngx_rt_event_check(s("RT.")), NGX_OK, "event RT.");
    is_int(ngx_rt_event_check(s("rt.")), NGX_ERROR, "event rt.");
    is_int(ngx_rt_event_check(s("rt.gap")), NGX_ERROR, "event rt.gap");
    is_int(ngx_rt_event_check(str(text, 255)), NGX_OK, "255 bytes");
    is_int(ngx_rt_event_check(str(text, 256)), NGX_ERROR, "256 bytes");
    is_int(ngx_rt_event_check(s("")), NGX_ERROR, "an empty one");
    is_int(ngx_rt_event_check(&null), NGX_ERROR, "NULL");

    bad = 0;

    for (i = 0; i < 256; i++) {
        name[0] = 'a';
        name[1] = (char) i;
        event.data = (u_char *) name;
        event.len = 2;

        bad += ((ngx_rt_event_check(&event) == NGX_OK)
                != (i != 0 && i != '\r' && i != '\n'));
    }

    is_int(bad, 0, "an event name: each byte");
}


/* a payload as a test's name */

static char *
shown(const char *text, size_t len)
{
    static char  buf[61];

    size_t  i;

    for (i = 0; i < len && i < sizeof(buf) - 1; i++) {
        buf[i] = (text[i] >= 0x20 && text[i] < 0x7f) ? text[i] : '?';
    }

    buf[i] = '\0';

    return buf;
}


/* from and into memory of the exact size, for the sanitizers' sake */

static void
is_read(const char *text, size_t len, const char *data, size_t dlen,
    const char *event, const char *version)
{
    u_char            *copy, *scratch;
    ngx_str_t          payload;
    const char        *why;
    ngx_rt_message_t   msg;

    copy = malloc(len ? len : 1);
    scratch = malloc(len ? len : 1);

    if (copy == NULL || scratch == NULL) {
        abort();
    }

    ngx_memcpy(copy, text, len);
    payload.data = copy;
    payload.len = len;
    why = "";

    is_int(ngx_rt_message_json(&msg, &payload, scratch, &why), NGX_OK,
           "read: %s %s", shown(text, len), why);
    is_mem(msg.data.data, msg.data.len, data, dlen, "data of it");
    is_mem(msg.event.data, msg.event.len, event, ngx_strlen(event),
           "event of it");
    is_mem(msg.version.data, msg.version.len, version, ngx_strlen(version),
           "version of it");

    free(copy);
    free(scratch);
}


static void
is_declined(const char *text, size_t len, const char *want)
{
    u_char            *copy, *scratch;
    ngx_str_t          payload;
    const char        *why;
    ngx_rt_message_t   msg;

    copy = malloc(len ? len : 1);
    scratch = malloc(len ? len : 1);

    if (copy == NULL || scratch == NULL) {
        abort();
    }

    ngx_memcpy(copy, text, len);
    payload.data = copy;
    payload.len = len;
    why = "nothing";

    is_int(ngx_rt_message_json(&msg, &payload, scratch, &why), NGX_DECLINED,
           "declined: %s", shown(text, len));
    is_mem(why, ngx_strlen(why), want, ngx_strlen(want), "because");

    free(copy);
    free(scratch);
}


#define reads(text, data, event, version)                                     \
    is_read(text, sizeof(text) - 1, data, sizeof(data) - 1, event, version)

#define declined(text, why)  is_declined(text, sizeof(text) - 1, why)


static void
test_members(void)
{
    reads("{\"data\":\"x\"}", "x", "", "");
    reads("{\"data\":\"x\",\"event\":\"e\",\"version\":\"v\"}", "x", "e", "v");
    reads("{\"version\":\"v\",\"event\":\"e\",\"data\":\"x\"}", "x", "e", "v");
    reads(" \t\r\n{ \"data\" : \"x\" , \"event\"\n:\r\"e\" } \n", "x", "e",
          "");
    reads("{\"a\":{\"data\":1},\"data\":\"x\",\"b\":[{\"event\":2}]}", "x", "",
          "");
    reads("{\"data\":\"x\",\"Data\":1,\"dat\":2,\"dataa\":3,\"\":4}", "x", "",
          "");

    /* of a member given twice the last counts, also over a bad one */

    reads("{\"data\":1,\"data\":2,\"event\":3,\"event\":\"e\"}", "2", "e", "");
    reads("{\"data\":\"\\ud800\",\"data\":\"\\n\"}", "\n", "", "");

    /* names may be escaped */

    reads("{\"d\\u0061ta\":\"x\",\"\\u0065vent\":\"e\"}", "x", "e", "");
    reads("{\"data\":1,\"data\\u0000\":2,\"\\ud800\":3}", "1", "", "");

    /* none of it */

    reads("{\"data\":1,\"event\":null,\"version\":null}", "1", "", "");
    reads("{\"data\":1,\"event\":\"\",\"version\":\"\"}", "1", "", "");

    reads("{\"data\":1,\"version\":42}", "1", "", "42");
    reads("{\"data\":1,\"version\":-1.50e+9}", "1", "", "-1.50e+9");
    reads("{\"data\":1,\"version\":\"\\u0034\\n\"}", "1", "", "4\n");
    reads("{\"data\":1,\"event\":\"\\u00e9\"}", "1", "\xc3\xa9", "");
}


static void
test_values(void)
{
    reads("{\"data\":\"\"}", "", "", "");
    reads("{\"data\":null}", "null", "", "");
    reads("{\"data\":true}", "true", "", "");
    reads("{\"data\":false}", "false", "", "");
    reads("{\"data\":0}", "0", "", "");
    reads("{\"data\":-0}", "-0", "", "");
    reads("{\"data\":12345678901234567890123}", "12345678901234567890123", "",
          "");
    reads("{\"data\":1.10}", "1.10", "", "");
    reads("{\"data\":1E400 }", "1E400", "", "");
    reads("{\"data\":0e-0}", "0e-0", "", "");
    reads("{\"data\":0.0e+00}", "0.0e+00", "", "");
    reads("{\"data\": { \"b\" : [1, 2 ],\n\"a\":\"\\u0041\\/\" } }",
          "{ \"b\" : [1, 2 ],\n\"a\":\"\\u0041\\/\" }", "", "");
    reads("{\"data\":[]}", "[]", "", "");
    reads("{\"data\":[ ]}", "[ ]", "", "");
    reads("{\"data\":{ }}", "{ }", "", "");

    /* half a surrogate pair within JSON text is still JSON */

    reads("{\"data\":[\"\\ud800\"]}", "[\"\\ud800\"]", "", "");
    reads("{\"a\":\"\\udc00\",\"data\":1}", "1", "", "");
}


static void
test_strings(void)
{
    reads("{\"data\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", "\"\\/\b\f\n\r\t", "",
          "");
    reads("{\"data\":\"a\\nb\"}", "a\nb", "", "");
    reads("{\"data\":\"\x7f/'\"}", "\x7f/'", "", "");
    reads("{\"data\":\"\\u0000\"}", "\0", "", "");
    reads("{\"data\":\"a\\u0000b\\u0000\"}", "a\0b\0", "", "");
    reads("{\"data\":\"\\u007f\\u0080\\u07ff\\u0800\\uFFFF\"}",
          "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf", "", "");
    reads("{\"data\":\"\\ud7ff\\ue000\"}", "\xed\x9f\xbf\xee\x80\x80", "", "");
    reads("{\"data\":\"\\ud83d\\ude00\"}", "\xf0\x9f\x98\x80", "", "");
    reads("{\"data\":\"\\uD800\\uDC00\\uDBFF\\uDFFF\"}",
          "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", "", "");
    reads("{\"data\":\"\xc3\xa9\xf0\x9f\x98\x80\"}",
          "\xc3\xa9\xf0\x9f\x98\x80", "", "");
    reads("{\"data\":\"{\\\"a\\\":1}\"}", "{\"a\":1}", "", "");

    declined("{\"data\":\"\\ud800\"}", "bad string");
    declined("{\"data\":\"\\udc00\"}", "bad string");
    declined("{\"data\":\"\\ud800x\"}", "bad string");
    declined("{\"data\":\"\\ud800\\n12345\"}", "bad string");
    declined("{\"data\":\"\\ud800\\u0041\"}", "bad string");
    declined("{\"data\":\"\\ud800\\ud800\"}", "bad string");
    declined("{\"data\":\"\\ud800\\ud800\\udc00\"}", "bad string");
    declined("{\"data\":\"\\ud800\\ue000\"}", "bad string");
    declined("{\"data\":\"\\udc00\\ud800\"}", "bad string");

    declined("{\"data\":\"\\u\"}", "bad string");
    declined("{\"data\":\"\\u00\"}", "bad string");
    declined("{\"data\":\"\\u004\"}", "bad string");
    declined("{\"data\":\"\\u00g0\"}", "bad string");
    declined("{\"data\":\"\\u+041\"}", "bad string");
    declined("{\"data\":\"\\u 041\"}", "bad string");
    declined("{\"data\":\"\\U0041\"}", "bad string");
    declined("{\"data\":\"\\x41\"}", "bad string");
    declined("{\"data\":\"\\'\"}", "bad string");
    declined("{\"data\":\"\\a\"}", "bad string");
    declined("{\"data\":\"\\\0\"}", "bad string");
    declined("{\"data\":\"\\\n\"}", "bad string");
    declined("{\"data\":\"\n\"}", "bad string");
    declined("{\"data\":\"\t\"}", "bad string");
    declined("{\"data\":\"\x1f\"}", "bad string");
    declined("{\"data\":\"\0\"}", "bad string");
    declined("{\"data\":\"x", "bad string");
    declined("{\"data\":\"x\\", "bad string");
    declined("{\"data\":\"x\\\"", "bad string");
    declined("{\"data\":\"x\\u00", "bad string");
    declined("{\"data\":\"x\\u004", "bad string");
    declined("{\"data\":\"x\\u0041", "bad string");
    declined("{\"da\nta\":1}", "bad string");

    /* a publisher's Latin-1 loses no message, what reads it has to cope */

    reads("{\"data\":\"\xff\\n\xed\xa0\x80\"}", "\xff\n\xed\xa0\x80", "", "");
    reads("{\"data\":[\"\xc3\"]}", "[\"\xc3\"]", "", "");
    reads("{\"data\":1,\"event\":\"\xe9\"}", "1", "\xe9", "");
    declined("{\"data\":\xff}", "not JSON");
}


static void
test_declined(void)
{
    declined("", "not a JSON object");
    declined(" ", "not a JSON object");
    declined("x", "not a JSON object");
    declined("[]", "not a JSON object");
    declined("\"data\"", "not a JSON object");
    declined("null", "not a JSON object");
    declined("\xef\xbb\xbf{\"data\":1}", "not a JSON object");
    declined("\0{\"data\":1}", "not a JSON object");
    declined("\x0b{\"data\":1}", "not a JSON object");

    declined("{}", "no \"data\"");
    declined("{\"event\":\"e\"}", "no \"data\"");
    declined("{\"a\":{\"data\":1}}", "no \"data\"");

    declined("{\"data\":1}x", "more than one JSON object");
    declined("{\"data\":1}{}", "more than one JSON object");
    declined("{\"data\":1},", "more than one JSON object");
    declined("{\"data\":1}\0", "more than one JSON object");

    declined("{", "not JSON");
    declined("{\"data\"", "not JSON");
    declined("{\"data\":", "not JSON");
    declined("{\"data\":1", "not JSON");
    declined("{\"data\":1,", "not JSON");
    declined("{\"data\":1,}", "not JSON");
    declined("{,\"data\":1}", "not JSON");
    declined("{\"data\":1 \"event\":2}", "not JSON");
    declined("{\"data\"=1}", "not JSON");
    declined("{\"data\" 1}", "not JSON");
    declined("{\"data\":1]", "not JSON");
    declined("{data:1}", "not JSON");
    declined("{'data':1}", "not JSON");
    declined("{1:1,\"data\":1}", "not JSON");
    declined("{\"data\":}", "not JSON");
    declined("{\"data\":,}", "not JSON");
    declined("{\"data\":x}", "not JSON");
    declined("{\"data\":tru}", "not JSON");
    declined("{\"data\":t", "not JSON");
    declined("{\"data\":True}", "not JSON");
    declined("{\"data\":nulll}", "not JSON");
    declined("{\"data\":NaN}", "not JSON");
    declined("{\"data\":[1,]}", "not JSON");
    declined("{\"data\":[,1]}", "not JSON");
    declined("{\"data\":[1 2]}", "not JSON");
    declined("{\"data\":[1}", "not JSON");
    declined("{\"data\":[", "not JSON");
    declined("{\"data\":[1", "not JSON");
    declined("{\"data\":[\"a\":1]}", "not JSON");
    declined("{\"data\":{1}}", "not JSON");
    declined("{\"data\":{\"a\"}}", "not JSON");
    declined("{\"data\":1 /* */}", "not JSON");
    declined("{\"data\":1\x0c}", "not JSON");
    declined("{\"data\":\xc2\xa0" "1}", "not JSON");

    declined("{\"data\":01}", "not JSON");
    declined("{\"data\":-}", "not JSON");
    declined("{\"data\":+1}", "not JSON");
    declined("{\"data\":.5}", "not JSON");
    declined("{\"data\":1.}", "not JSON");
    declined("{\"data\":1.e5}", "not JSON");
    declined("{\"data\":1e}", "not JSON");
    declined("{\"data\":1e+}", "not JSON");
    declined("{\"data\":1e+-1}", "not JSON");
    declined("{\"data\":1e5.0}", "not JSON");
    declined("{\"data\":--1}", "not JSON");
    declined("{\"data\":-01}", "not JSON");
    declined("{\"data\":0x10}", "not JSON");
    declined("{\"data\":1_000}", "not JSON");
    declined("{\"data\":-", "not JSON");
    declined("{\"data\":1.", "not JSON");
    declined("{\"data\":1e", "not JSON");

    declined("{\"data\":1,\"event\":1}", "bad event name");
    declined("{\"data\":1,\"event\":true}", "bad event name");
    declined("{\"data\":1,\"event\":{}}", "bad event name");
    declined("{\"data\":1,\"event\":[\"e\"]}", "bad event name");
    declined("{\"data\":1,\"event\":\"rt.gap\"}", "bad event name");
    declined("{\"data\":1,\"event\":\"\\u0072t.gap\"}", "bad event name");
    declined("{\"data\":1,\"event\":\"a\\nb\"}", "bad event name");
    declined("{\"data\":1,\"event\":\"a\\r\"}", "bad event name");
    declined("{\"data\":1,\"event\":\"\\u000a\"}", "bad event name");
    declined("{\"data\":1,\"event\":\"\\u0000\"}", "bad event name");
    declined("{\"data\":1,\"event\":\"\\ud800\"}", "bad event name");

    declined("{\"data\":1,\"version\":true}", "bad version");
    declined("{\"data\":1,\"version\":{}}", "bad version");
    declined("{\"data\":1,\"version\":[1]}", "bad version");
    declined("{\"data\":1,\"version\":\"\\udfff\"}", "bad version");
}


static void
test_depth(void)
{
    char    text[32768], *p;
    size_t  n;

    /* the outermost object counts: 63 arrays within it are 64 deep */

    for (n = 63; n <= 64; n++) {
        p = text;
        p += sprintf(p, "{\"data\":");
        ngx_memset(p, '[', n);
        p += n;
        ngx_memset(p, ']', n);
        p += n;
        *p++ = '}';
        *p = '\0';

        if (n == 63) {
            is_read(text, p - text, text + 8, 2 * n, "", "");

        } else {
            is_declined(text, p - text, "nested deeper than 64");
        }
    }

    /* objects too, and in members of no interest */

    p = text;
    p += sprintf(p, "{\"data\":1,\"a\":");

    for (n = 0; n < 1000; n++) {
        p += sprintf(p, "{\"a\":");
    }

    is_declined(text, p - text, "nested deeper than 64");

    /* siblings are no depth */

    p = text;
    p += sprintf(p, "{\"data\":[");

    for (n = 0; n < 1000; n++) {
        p += sprintf(p, "%s[],{},[1],{\"a\":1}", n ? "," : "");
    }

    p += sprintf(p, "]}");

    is_read(text, p - text, text + 8, p - text - 9, "", "");
}


/* all three strings and a name at once make most use of the scratch */

static void
test_scratch(void)
{
    reads("{\"d\\u0061ta\":\"\\\\1\",\"event\":\"\\\\2\","
          "\"version\":\"\\\\3\"}", "\\1", "\\2", "\\3");
    reads("{\"version\":\"\\\\\\\\\\\\3\",\"event\":\"\\\\\\\\\\\\2\","
          "\"data\":\"\\\\\\\\\\\\1\"}", "\\\\\\1", "\\\\\\2", "\\\\\\3");
}


static u_char *
digest(const char *channel, const char *event, const char *version,
    const char *data)
{
    static u_char      ring[4][NGX_RT_DIGEST_LEN];
    static ngx_uint_t  n;

    u_char            *to;
    ngx_str_t          ch;
    ngx_rt_message_t   msg;

    ngx_memzero(&msg, sizeof(ngx_rt_message_t));

    ch.data = (u_char *) channel;
    ch.len = ngx_strlen(channel);

    /* what is not there is at NULL */

    if (*data) {
        msg.data.data = (u_char *) data;
        msg.data.len = ngx_strlen(data);
    }

    if (*event) {
        msg.event.data = (u_char *) event;
        msg.event.len = ngx_strlen(event);
    }

    if (*version) {
        msg.version.data = (u_char *) version;
        msg.version.len = ngx_strlen(version);
    }

    to = ring[n++ % 4];
    ngx_rt_message_digest(&ch, &msg, to);

    return to;
}


static u_char *
in_steps(const char *channel, const char *event, const char *data)
{
    static u_char     to[NGX_RT_DIGEST_LEN];

    ngx_str_t         ch;
    ngx_rt_digest_t   begun;
    ngx_rt_message_t  msg;

    ngx_memzero(&msg, sizeof(ngx_rt_message_t));

    ch.data = (u_char *) channel;
    ch.len = ngx_strlen(channel);
    msg.event.data = (u_char *) event;
    msg.event.len = ngx_strlen(event);
    msg.data.data = (u_char *) data;
    msg.data.len = ngx_strlen(data);

    ngx_rt_digest_begin(&begun, &ch);
    ngx_rt_digest_end(&begun, &msg, to);

    return to;
}


static ngx_uint_t
equal(const u_char *a, const u_char *b)
{
    return memcmp(a, b, NGX_RT_DIGEST_LEN) == 0;
}


static void
test_digest(void)
{
    u_char  set[3][NGX_RT_DIGEST_LEN], one[NGX_RT_DIGEST_LEN],
            two[NGX_RT_DIGEST_LEN];

    ok(equal(digest("c", "e", "", "d"), digest("c", "e", "", "d")),
       "digest: the same");
    ok(!equal(digest("c", "e", "", "d"), digest("x", "e", "", "d")),
       "digest: another channel");
    ok(!equal(digest("c", "e", "", "d"), digest("c", "x", "", "d")),
       "digest: another event");
    ok(!equal(digest("c", "e", "", "d"), digest("c", "e", "", "x")),
       "digest: another data");
    ok(!equal(digest("c", "e", "v", "d"), digest("c", "e", "x", "d")),
       "digest: another version");
    ok(equal(digest("c", "e", "v", "d"), digest("c", "e", "v", "x")),
       "digest: the same version, whatever the data");
    ok(!equal(digest("c", "e", "v", ""), digest("c", "e", "", "v")),
       "digest: a version is no data");

    ok(!equal(digest("ab", "c", "", "d"), digest("a", "bc", "", "d")),
       "digest: the parts do not run together");
    ok(!equal(digest("a", "bc", "", "d"), digest("a", "b", "", "cd")),
       "digest: nor the last two");
    ok(!equal(digest("a", "", "", "b"), digest("a", "b", "", "")),
       "digest: nor around an empty one");

    /*
     * told to clients and compared between nodes, so it may never change
     * (made with openssl mac -macopt size:16 SIPHASH)
     */

    is_mem(digest("orders:42", "", "", "hello"), NGX_RT_DIGEST_LEN,
           "\x24\xee\x4b\xe5\x12\xb8\xd8\x8a\x13\xc8\x2a\x92", 12,
           "digest: of known content");
    is_mem(digest("orders:42", "e", "7", "hello"), NGX_RT_DIGEST_LEN,
           "\x1e\xed\xce\x6b\x58\x2f\x01\xa1\x2c\x3a\xa6\x30", 12,
           "digest: of a known version");

    ok(equal(digest("orders:42", "", "", "hello"),
             in_steps("orders:42", "", "hello")), "digest: in two steps");
    ok(equal(digest("orders:42", "e", "", "hello"),
             in_steps("orders:42", "e", "hello")), "... with an event");
    ok(equal(digest("", "", "", ""), in_steps("", "", "")), "... of nothing");

    ngx_memcpy(set[0], digest("a", "", "", "1"), NGX_RT_DIGEST_LEN);
    ngx_memcpy(set[1], digest("b", "", "", "1"), NGX_RT_DIGEST_LEN);
    ngx_memcpy(set[2], set[0], NGX_RT_DIGEST_LEN);

    ngx_rt_group_digest((const u_char (*)[NGX_RT_DIGEST_LEN]) set, 2, one);
    ngx_rt_group_digest((const u_char (*)[NGX_RT_DIGEST_LEN]) set, 2, two);
    ok(equal(one, two), "group: the same");

    ngx_rt_group_digest((const u_char (*)[NGX_RT_DIGEST_LEN]) set + 1, 2, two);
    ok(!equal(one, two), "group: another order");

    ngx_rt_group_digest((const u_char (*)[NGX_RT_DIGEST_LEN]) set, 3, two);
    ok(!equal(one, two), "group: one more");

    ngx_rt_group_digest((const u_char (*)[NGX_RT_DIGEST_LEN]) set, 1, two);
    ok(!equal(one, two) && !equal(set[0], two), "group: of one");

    ngx_rt_group_digest(NULL, 0, two);
    ok(!equal(one, two), "group: of none");
}


int
main(void)
{
    test_channel();
    test_event();
    test_members();
    test_values();
    test_strings();
    test_declined();
    test_depth();
    test_scratch();
    test_digest();

    done_testing();
}
