
/*
 * Copyright (C) 2026 ngx_rt contributors
 */


#include "unit.h"
#include "../../ngx_rt_module/ngx_rt_cursor.c"


#define EPOCH_MAX  0xffffffffffff
#define SEQ_MAX    0xffffffffffffffff


static void
fill(u_char *digest, ngx_uint_t seed)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_RT_DIGEST_LEN; i++) {
        digest[i] = (u_char) (seed + i * 37);
    }
}


static ngx_uint_t
same(const ngx_rt_cursor_t *a, const ngx_rt_cursor_t *b)
{
    if (a->epoch != b->epoch || a->seq != b->seq
        || a->digested != b->digested || a->grouped != b->grouped)
    {
        return 0;
    }

    if (a->digested && memcmp(a->digest, b->digest, NGX_RT_DIGEST_LEN) != 0) {
        return 0;
    }

    return !a->grouped || memcmp(a->group, b->group, NGX_RT_DIGEST_LEN) == 0;
}


static void
test_text(void)
{
    u_char           buf[NGX_RT_CURSOR_LEN], *p;
    ngx_rt_cursor_t  c;

    ngx_memzero(&c, sizeof(ngx_rt_cursor_t));

    p = ngx_rt_cursor_format(buf, &c);
    is_mem(buf, p - buf, "AAAAAAAA.A", 10, "all zero");

    c.epoch = 1;
    c.seq = 63;
    p = ngx_rt_cursor_format(buf, &c);
    is_mem(buf, p - buf, "AAAAAAAB._", 10, "one digit");

    c.epoch = (uint64_t) 1 << 47;
    c.seq = 64;
    p = ngx_rt_cursor_format(buf, &c);
    is_mem(buf, p - buf, "gAAAAAAA.BA", 11, "most significant bits first");

    c.epoch = EPOCH_MAX;
    c.seq = SEQ_MAX;
    p = ngx_rt_cursor_format(buf, &c);
    is_mem(buf, p - buf, "________.P__________", 20, "the largest");

    c.epoch = ((uint64_t) 0xabcd << 48) | 5;
    c.seq = 0;
    c.grouped = 1;
    p = ngx_rt_cursor_format(buf, &c);
    is_mem(buf, p - buf, "AAAAAAAF.A", 10,
           "an epoch has 48 bits, no group without a digest");

    c.digested = 1;
    ngx_memcpy(c.digest, "\x00\x10\x83\x10\x51\x87\x20\x92\x8b\x30\xd3\x8f",
               NGX_RT_DIGEST_LEN);
    ngx_memset(c.group, 0xfb, NGX_RT_DIGEST_LEN);

    p = ngx_rt_cursor_format(buf, &c);
    is_mem(buf, p - buf, "AAAAAAAF.A.ABCDEFGHIJKLMNOP,-_v7-_v7-_v7-_v7", 44,
           "digest and group are base64url");

    c.seq = SEQ_MAX;
    p = ngx_rt_cursor_format(buf, &c);
    is_int(p - buf, NGX_RT_CURSOR_LEN, "the longest fits exactly");
}


static void
test_round_trip(void)
{
    u_char           buf[NGX_RT_CURSOR_LEN], *p;
    ngx_uint_t       i, j, k, n, bad;
    ngx_rt_cursor_t  c, back;

    static const uint64_t  epochs[] = { 0, 1, 0x123456789abc, EPOCH_MAX };

    n = 0;
    bad = 0;

    for (i = 0; i < sizeof(epochs) / sizeof(epochs[0]); i++) {
        for (j = 0; j <= 64 * 3; j++) {
            for (k = 0; k < 3; k++) {

                ngx_memzero(&c, sizeof(ngx_rt_cursor_t));

                /* around each power of two, wrapping at both ends */

                c.epoch = epochs[i];
                c.seq = (j / 3 < 64) ? (uint64_t) 1 << (j / 3) : 0;
                c.seq += j % 3 - 1;
                c.digested = (k > 0);
                c.grouped = (k > 1);

                if (c.digested) {
                    fill(c.digest, j);
                }

                if (c.grouped) {
                    fill(c.group, j + 100);
                }

                p = ngx_rt_cursor_format(buf, &c);

                ngx_memset(&back, 0xa5, sizeof(ngx_rt_cursor_t));

                if (ngx_rt_cursor_parse(&back, buf, p - buf) != NGX_OK
                    || !same(&c, &back))
                {
                    bad++;
                }

                n++;
            }
        }
    }

    is_int(bad, 0, "%d cursors come back as they were", (int) n);
}


static void
test_declined(void)
{
    size_t           i;
    ngx_rt_cursor_t  c, was;

    static const char  *texts[] = {
        "",
        ".",
        "AAAAAAAA",
        "AAAAAAAA.",
        "AAAAAAA.A",
        "AAAAAAAAA.A",
        "AAAAAAAA.A ",
        " AAAAAAAA.A",
        "AAAAAAAA.AB",                                 /* leading zero */
        "AAAAAAAA.AA",
        "AAAAAAAA.Q__________",                        /* 2^64 and above */
        "AAAAAAAA.___________",
        "AAAAAAAA.BAAAAAAAAAAA",
        "AAAA+AAA.B",
        "AAAA/AAA.B",
        "AAAA=AAA.B",
        "AAAAAAAA,B",
        "AAAAAAAA.B.",
        "AAAAAAAA.B,ABCDEFGHIJKLMNOP",
        "AAAAAAAA..ABCDEFGHIJKLMNOP",
        "AAAAAAAA.B.ABCDEFGHIJKLMNO",
        "AAAAAAAA.B.ABCDEFGHIJKLMNOPQ",
        "AAAAAAAA.B.ABCDEFGHIJKLMNOP,",
        "AAAAAAAA.B.ABCDEFGHIJKLMNOP.ABCDEFGHIJKLMNOP",
        "AAAAAAAA.B.ABCDEFGHIJKLMNOP,ABCDEFGHIJKLMNO",
        "AAAAAAAA.B.ABCDEFGHIJKLMNOP,ABCDEFGHIJKLMNOPQ",
        "AAAAAAAA.B.ABCDEFGHIJKLMNO.,ABCDEFGHIJKLMNOP",
        "\"AAAAAAAA.B\"",
        "W/AAAAAA.B",
        "0",
        "1700000000000-0"
    };

    ngx_memset(&was, 0xa5, sizeof(ngx_rt_cursor_t));
    c = was;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        is_int(ngx_rt_cursor_parse(&c, (u_char *) texts[i],
                                   ngx_strlen(texts[i])),
               NGX_DECLINED, "no cursor: %s", texts[i]);
    }

    is_int(ngx_rt_cursor_parse(&c, NULL, 0), NGX_DECLINED, "no cursor: NULL");

    ok(memcmp(&c, &was, sizeof(ngx_rt_cursor_t)) == 0,
       "a cursor stays as it was when a text is declined");
}


/* what is accepted has to be what format writes */

static ngx_uint_t
canonical(const u_char *text, size_t len)
{
    u_char           buf[NGX_RT_CURSOR_LEN], *p;
    ngx_rt_cursor_t  c;

    if (ngx_rt_cursor_parse(&c, text, len) != NGX_OK) {
        return 1;
    }

    p = ngx_rt_cursor_format(buf, &c);

    return (size_t) (p - buf) == len && memcmp(buf, text, len) == 0;
}


static void
test_mutations(void)
{
    u_char           text[NGX_RT_CURSOR_LEN + 1], buf[NGX_RT_CURSOR_LEN + 1];
    size_t           len, at;
    ngx_uint_t       i, ch, bad;
    ngx_rt_cursor_t  c;

    static const uint64_t  seqs[] = { 0, 1, 63, 64, 4095, 123456789, SEQ_MAX };

    bad = 0;

    for (i = 0; i < 3 * sizeof(seqs) / sizeof(seqs[0]); i++) {

        ngx_memzero(&c, sizeof(ngx_rt_cursor_t));

        c.epoch = 0x123456789abc;
        c.seq = seqs[i / 3];
        c.digested = (i % 3 > 0);
        c.grouped = (i % 3 > 1);
        fill(c.digest, 1);
        fill(c.group, 2);

        len = ngx_rt_cursor_format(text, &c) - text;

        for (at = 0; at < len; at++) {

            bad += !canonical(text, at);

            for (ch = 0; ch < 256; ch++) {
                ngx_memcpy(buf, text, len);
                buf[at] = (u_char) ch;
                bad += !canonical(buf, len);

                ngx_memmove(buf + at + 1, text + at, len - at);
                bad += !canonical(buf, len + 1);
            }

            ngx_memcpy(buf, text, at);
            ngx_memcpy(buf + at, text + at + 1, len - at - 1);
            bad += !canonical(buf, len - 1);
        }
    }

    is_int(bad, 0, "a byte changed, put in, left out, or the end cut off: "
           "another cursor's own text or declined");
}


/*
 * Walks a list and writes the tags in brackets, then how the walk ended:
 * "." end, "*", "!" malformed.
 */

static void
walk(const char *text, const char *want)
{
    char       got[256], *p;
    u_char     list[256];
    ngx_int_t  rc;
    ngx_str_t  rest, tag;

    rest.len = ngx_strlen(text);
    rest.data = list;
    ngx_memcpy(list, text, rest.len);

    p = got;

    while ((rc = ngx_rt_etag_next(&rest, &tag)) == NGX_OK) {
        p += sprintf(p, "[%.*s]", (int) tag.len, tag.data);
    }

    *p++ = (rc == NGX_DONE) ? '.' : (rc == NGX_DECLINED) ? '*' : '!';

    is_mem(got, p - got, want, ngx_strlen(want), "If-None-Match: %s", text);

    is_int(ngx_rt_etag_next(&rest, &tag), NGX_DONE, "and no more");
}


static void
test_etag(void)
{
    ngx_str_t  list, tag;

    walk("", ".");
    walk(" \t ", ".");
    walk("\"a\"", "[a].");
    walk("  \"a\"\t", "[a].");
    walk("W/\"a\"", "[a].");
    walk("\"\"", "[].");
    walk("W/\"\"", "[].");
    walk("\"a\",\"b\"", "[a][b].");
    walk("\"a\" \t, W/\"b\"  ,\"c\"", "[a][b][c].");
    walk("\"a,b\", \"W/c\"", "[a,b][W/c].");
    walk("\"!#~\", \"\\\"", "[!#~][\\].");
    walk("\"\x80\xff\xc3\xa9\"", "[\x80\xff\xc3\xa9].");

    /* empty elements (RFC 9110, 5.6.1.2) */

    walk(",", ".");
    walk(" , ,, ", ".");
    walk(",\"a\"", "[a].");
    walk("\"a\",", "[a].");
    walk(", ,\"a\", , ,\"b\" ,,", "[a][b].");

    walk("*", "*");
    walk(" * ", "*");

    /* "*" stands alone */

    walk("**", "!");
    walk("*,", "!");
    walk(",*", "!");
    walk("*, \"a\"", "!");
    walk("\"a\", *", "!");
    walk("\"a\", ,*", "!");
    walk("\"a\", \"b\", *", "[a]!");
    walk("W/*", "!");
    walk("\"*\"", "[*].");

    walk("a", "!");
    walk("\"", "!");
    walk("\"a", "!");
    walk("a\"", "!");
    walk("W", "!");
    walk("W/", "!");
    walk("W/\"", "!");
    walk("W/\"a", "!");
    walk("W/a", "!");
    walk("w/\"a\"", "!");
    walk("W /\"a\"", "!");
    walk("W/ \"a\"", "!");
    walk("WW/\"a\"", "!");
    walk("\"a\" \"b\"", "!");
    walk("\"a\"\"b\"", "!");
    walk("\"a\";q=1", "!");
    walk("\"a\", b, \"c\"", "[a]!");
    walk("\"a b\"", "!");
    walk("\"a\tb\"", "!");
    walk("\"a\x7f\"", "!");
    walk("\"a\x01\"", "!");
    walk("\"a\\\"b\"", "!");
    walk("'a'", "!");

    ngx_str_null(&list);
    is_int(ngx_rt_etag_next(&list, &tag), NGX_DONE, "a list at NULL");
}


int
main(void)
{
    test_text();
    test_round_trip();
    test_declined();
    test_mutations();
    test_etag();

    done_testing();
}
