
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Ids of stream entries and cursors made of them.
 */


#include <ngx_rt_base.h>

#include "../../ngx_rt_module/ngx_rt_hash.c"
#include "../../ngx_rt_module/ngx_rt_sid.c"
#include "unit.h"


static u_char  zero[NGX_RT_TAG_LEN];


static ngx_int_t
parse(u_char *tag, const char *text)
{
    return ngx_rt_sid_parse(tag, (const u_char *) text, strlen(text));
}


static void
round_trip(const char *text)
{
    u_char  tag[NGX_RT_TAG_LEN], buf[NGX_RT_SID_LEN];

    is_int(parse(tag, text), NGX_OK, "%s is an id", text);
    is_mem(buf, ngx_rt_sid_format(buf, tag) - buf, text, strlen(text),
           "%s again", text);
}


static void
before(const char *text, const char *expected)
{
    u_char  tag[NGX_RT_TAG_LEN], buf[NGX_RT_SID_LEN];

    (void) parse(tag, text);
    ngx_rt_sid_before(tag);
    is_mem(buf, ngx_rt_sid_format(buf, tag) - buf, expected, strlen(expected),
           "before %s", text);
}


static void
ids(void)
{
    u_char      a[NGX_RT_TAG_LEN], b[NGX_RT_TAG_LEN];
    ngx_uint_t  i;

    static const char  *bad[] = {
        "", "-", "1", "1-", "-1", "01-1", "1-01", "00-0", "1-1 ", " 1-1",
        "1--1", "1-1-1", "a-1", "1-a", "+1-1", "18446744073709551616-0",
        "0-18446744073709551616", "99999999999999999999-0", "1.1", NULL
    };

    static const char  *rising[] = {
        "0-0", "0-1", "0-18446744073709551615", "1-0", "9-9", "10-0", "255-0",
        "256-0", "1700000000000-0", "1700000000000-1",
        "18446744073709551615-18446744073709551615", NULL
    };

    for (i = 0; rising[i]; i++) {
        round_trip(rising[i]);

        if (i) {
            (void) parse(a, rising[i - 1]);
            (void) parse(b, rising[i]);
            ok(ngx_rt_sid_cmp(a, b) < 0, "%s before %s", rising[i - 1],
               rising[i]);
        }
    }

    for (i = 0; bad[i]; i++) {
        memset(a, 7, sizeof(a));
        memset(b, 7, sizeof(b));
        is_int(parse(a, bad[i]), NGX_DECLINED, "\"%s\" is none", bad[i]);
        is_mem(a, sizeof(a), b, sizeof(b), "untouched");
    }

    (void) parse(a, "0-0");
    is_mem(a, sizeof(a), zero, sizeof(zero), "0-0 is all zeros");

    before("5-3", "5-2");
    before("5-0", "4-18446744073709551615");
    before("0-1", "0-0");
    before("0-0", "0-0");
}


static void
places(void)
{
    size_t           n;
    u_char           buf[NGX_RT_PLACES_LEN], text[NGX_RT_PLACES_LEN], *p;
    uint32_t         set, other;
    ngx_uint_t       i;
    ngx_str_t        names[NGX_RT_PLACES_MAX];
    ngx_rt_place_t   in[NGX_RT_PLACES_MAX], out[NGX_RT_PLACES_MAX + 1];
    static u_char    letters[] = "abcdefghijklmnopqrstuvwxyzABCDEF";

    memset(in, 0, sizeof(in));

    for (i = 0; i < NGX_RT_PLACES_MAX; i++) {
        names[i].data = &letters[i];
        names[i].len = 1;
        in[i].known = (i % 3 != 1);
        memset(in[i].tag, in[i].known ? 0xff - i : 0, NGX_RT_TAG_LEN);
    }

    is_int(ngx_rt_places_set(names, 1), 0, "one channel has no set");

    set = ngx_rt_places_set(names, 2);
    ok(set < (1 << 24), "24 bits");

    names[0].data = &letters[1];
    names[1].data = &letters[0];
    other = ngx_rt_places_set(names, 2);
    ok(set != other, "the order of the names counts");

    names[0].data = (u_char *) "ab";
    names[0].len = 2;
    names[1].len = 0;
    ok(other != ngx_rt_places_set(names, 2), "and where one ends");

    p = ngx_rt_places_format(buf, in, 1, 0);
    is_mem(buf, p - buf, "18446744073709551615-18446744073709551615", 41,
           "of one channel: the id alone");
    is_int(ngx_rt_places_parse(out, 1, 0, buf, p - buf), NGX_OK, "read");
    ok(out[0].known, "known");

    for (n = 2; n <= NGX_RT_PLACES_MAX; n++) {
        p = ngx_rt_places_format(buf, in, n, set);

        if ((size_t) (p - buf) > ngx_rt_places_len(n)
            || ngx_rt_places_parse(out, n, set, buf, p - buf) != NGX_OK)
        {
            break;
        }

        for (i = 0; i < n; i++) {
            if (in[i].known != out[i].known
                || memcmp(in[i].tag, out[i].tag, NGX_RT_TAG_LEN) != 0)
            {
                break;
            }
        }

        if (i < n
            || ngx_rt_places_parse(out, n, other, buf, p - buf) == NGX_OK
            || ngx_rt_places_parse(out, n - 1, set, buf, p - buf) == NGX_OK
            || ngx_rt_places_parse(out, n + 1, set, buf, p - buf) == NGX_OK)
        {
            break;
        }
    }

    is_int(n, NGX_RT_PLACES_MAX + 1, "2 to 32 places, of this set alone");

    p = ngx_rt_places_format(buf, in, 3, set);

    /* cut anywhere: another cursor, or none */

    for (n = 0; n < (size_t) (p - buf); n++) {

        if (ngx_rt_places_parse(out, 3, set, buf, n) == NGX_OK
            && (ngx_rt_places_format(text, out, 3, set) != text + n
                || memcmp(text, buf, n) != 0))
        {
            break;
        }
    }

    is_int(n, p - buf, "what is read is what would be written");
}


int
main(void)
{
    ids();
    places();

    done_testing();
}
