
/*
 * Copyright (C) 2026 ngx_rt contributors
 */


#include "../../ngx_rt_module/ngx_rt_cursor.c"
#include "unit.h"


static void
test_round_trip(uint64_t epoch, uint64_t seq, ngx_uint_t kind)
{
    u_char           text[NGX_RT_CURSOR_LEN], again[NGX_RT_CURSOR_LEN], *end;
    size_t           i;
    ngx_uint_t       bad, ch;
    ngx_rt_cursor_t  c, parsed;

    ngx_memzero(&c, sizeof(c));
    c.epoch = epoch;
    c.seq = seq;
    c.digested = kind > 0;
    c.grouped = kind > 1;
    ngx_memset(c.digest, 0xa5, kind > 0 ? NGX_RT_DIGEST_LEN : 0);
    ngx_memset(c.group, 0x5a, kind > 1 ? NGX_RT_DIGEST_LEN : 0);

    end = ngx_rt_cursor_format(text, &c);

    ok(end <= text + NGX_RT_CURSOR_LEN, "fits");
    is_int(ngx_rt_cursor_parse(&parsed, text, end - text), NGX_OK, "parsed");
    ok(parsed.epoch == epoch && parsed.seq == seq
       && parsed.digested == c.digested && parsed.grouped == c.grouped
       && ngx_memcmp(parsed.digest, c.digest, NGX_RT_DIGEST_LEN) == 0
       && ngx_memcmp(parsed.group, c.group, NGX_RT_DIGEST_LEN) == 0,
       "the same cursor, seq %llu", (unsigned long long) seq);

    /* whatever one byte is changed to: no cursor, or exactly its text */

    bad = 0;

    for (i = 0; i < (size_t) (end - text); i++) {
        for (ch = 0; ch < 256; ch++) {
            u_char  m[NGX_RT_CURSOR_LEN], *e;

            ngx_memcpy(m, text, end - text);
            m[i] = (u_char) ch;

            if (ngx_rt_cursor_parse(&parsed, m, end - text) != NGX_OK) {
                continue;
            }

            e = ngx_rt_cursor_format(again, &parsed);

            if (e - again != end - text
                || ngx_memcmp(again, m, end - text) != 0)
            {
                bad++;
            }
        }

        if (ngx_rt_cursor_parse(&parsed, text, i) == NGX_OK
            && ngx_rt_cursor_format(again, &parsed) - again != (long) i)
        {
            bad++;
        }
    }

    is_int(bad, 0, "mutations");
}


static void
test_etags(const char *value, const char *expected)
{
    char       got[256], *p;
    ngx_int_t  rc;
    ngx_str_t  list, tag;

    list.data = (u_char *) value;
    list.len = strlen(value);
    p = got;

    while ((rc = ngx_rt_etag_next(&list, &tag)) == NGX_OK) {
        p += snprintf(p, 64, "<%.*s>", (int) tag.len, tag.data);
    }

    snprintf(p, 16, "%s", rc == NGX_DONE ? "." : rc == NGX_DECLINED ? "*"
                                                                     : "!");
    ok(strcmp(got, expected) == 0, "%s gives %s", value, got);
}


int
main(void)
{
    ngx_uint_t  kind;

    for (kind = 0; kind < 3; kind++) {
        test_round_trip(0, 0, kind);
        test_round_trip(1, 63, kind);
        test_round_trip(0xffffffffffffULL, 64, kind);
        test_round_trip(0x123456789abcULL, 0xffffffffffffffffULL, kind);
        test_round_trip(42, 1ULL << 60, kind);
    }

    test_etags("\"a\"", "<a>.");
    test_etags("W/\"a\", \"b\" ,, \"c,d\"", "<a><b><c,d>.");
    test_etags("*", "*");
    test_etags("", ".");
    test_etags(" , ", ".");
    test_etags("\"a", "!");
    test_etags("a", "!");
    test_etags("\"a\" \"b\"", "!");
    test_etags("W/", "!");
    test_etags("\"\"", "<>.");

    done_testing();
}
