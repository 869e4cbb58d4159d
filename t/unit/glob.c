
/*
 * Copyright (C) 2026 ngx_rt contributors
 */


#include "../../ngx_rt_module/ngx_rt_glob.c"
#include "unit.h"


/*
 * Redis' stringmatchlen() as it is: exponential, hence for short texts only.
 * The pattern ends with a zero.
 */

static int
reference(const char *p, int plen, const char *s, int slen)
{
    int   not, match, c, from, to;

    while (plen && slen) {

        switch (p[0]) {

        case '*':
            while (plen && p[1] == '*') {
                p++;
                plen--;
            }

            if (plen == 1) {
                return 1;
            }

            while (slen) {
                if (reference(p + 1, plen - 1, s, slen)) {
                    return 1;
                }

                s++;
                slen--;
            }

            return 0;

        case '?':
            s++;
            slen--;
            break;

        case '[':
            p++;
            plen--;
            not = (p[0] == '^');

            if (not) {
                p++;
                plen--;
            }

            match = 0;

            for ( ;; ) {

                if (plen >= 2 && p[0] == '\\') {
                    p++;
                    plen--;
                    match |= (p[0] == s[0]);

                } else if (p[0] == ']') {
                    break;

                } else if (plen == 0) {
                    p--;
                    plen++;
                    break;

                } else if (plen >= 3 && p[1] == '-') {
                    from = p[0];
                    to = p[2];

                    if (from > to) {
                        c = from;
                        from = to;
                        to = c;
                    }

                    p += 2;
                    plen -= 2;
                    match |= (s[0] >= from && s[0] <= to);

                } else {
                    match |= (p[0] == s[0]);
                }

                p++;
                plen--;
            }

            if (not) {
                match = !match;
            }

            if (!match) {
                return 0;
            }

            s++;
            slen--;
            break;

        case '\\':
            if (plen >= 2) {
                p++;
                plen--;
            }

            /* fall through */

        default:
            if (p[0] != s[0]) {
                return 0;
            }

            s++;
            slen--;
            break;
        }

        p++;
        plen--;

        if (slen == 0) {
            while (*p == '*') {
                p++;
                plen--;
            }

            break;
        }
    }

    return plen == 0 && slen == 0;
}


static ngx_uint_t
match(const char *pattern, const char *name)
{
    ngx_str_t  p, n;

    p.data = (u_char *) pattern;
    p.len = ngx_strlen(pattern);
    n.data = (u_char *) name;
    n.len = ngx_strlen(name);

    return ngx_rt_glob_match(&p, &n);
}


/* as Redis 7.0 takes them, KEYS and all */

static void
test_known(void)
{
    ngx_uint_t  i;

    static const struct {
        const char  *pattern;
        const char  *name;
        ngx_uint_t   match;
    } known[] = {
        { "*", "a", 1 },
        { "*", "", 0 },
        { "a", "a", 1 },
        { "a", "A", 0 },
        { "a", "ab", 0 },
        { "ab", "a", 0 },
        { "a*", "a", 1 },
        { "a**", "a", 1 },
        { "*a", "bca", 1 },
        { "*a", "bcab", 0 },
        { "a*c*e", "abcde", 1 },
        { "a*c*e", "abcd", 0 },
        { "orders:?", "orders:1", 1 },
        { "orders:?", "orders:", 0 },
        { "orders:?", "orders:12", 0 },
        { "h[ae]llo", "hello", 1 },
        { "h[ae]llo", "hillo", 0 },
        { "h[^e]llo", "hallo", 1 },
        { "h[^e]llo", "hello", 0 },
        { "h[a-c]llo", "hbllo", 1 },
        { "h[c-a]llo", "hbllo", 1 },
        { "h[a-c]llo", "hdllo", 0 },
        { "h[a-]llo", "h-llo", 0 },
        { "h[-a]llo", "h-llo", 1 },
        { "h[\\]]llo", "h]llo", 1 },
        { "h\\*llo", "h*llo", 1 },
        { "h\\*llo", "hallo", 0 },
        { "a\\", "a\\", 1 },
        { "a[b", "ab", 1 },
        { "a[", "ab", 0 },
        { "a[^", "ab", 1 },
        { "a[]b", "ab", 0 },
        { "[a-z]*[0-9]", "x:y:7", 1 },
    };

    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        is_int(match(known[i].pattern, known[i].name), known[i].match,
               "\"%s\" and \"%s\"", known[i].pattern, known[i].name);
    }
}


static void
test_random(void)
{
    char         pattern[16], name[16];
    int          plen, slen;
    uint32_t     seed;
    ngx_str_t    p, n;
    ngx_uint_t   i, k, bad, matched;

    static const char  in_pattern[] = "ab*?[]^-\\a*b\xe9";
    static const char  in_name[] = "ab-]\xe9";

    seed = 1;
    bad = 0;
    matched = 0;

    for (i = 0; i < 500000 && bad < 5; i++) {

        seed = seed * 1664525 + 1013904223;
        plen = (seed >> 16) % 10;
        slen = (seed >> 24) % 8;

        for (k = 0; k < (ngx_uint_t) plen; k++) {
            seed = seed * 1664525 + 1013904223;
            pattern[k] = in_pattern[(seed >> 16) % (sizeof(in_pattern) - 1)];
        }

        for (k = 0; k < (ngx_uint_t) slen; k++) {
            seed = seed * 1664525 + 1013904223;
            name[k] = in_name[(seed >> 16) % (sizeof(in_name) - 1)];
        }

        ngx_memzero(pattern + plen, sizeof(pattern) - plen);

        p.data = (u_char *) pattern;
        p.len = plen;
        n.data = (u_char *) name;
        n.len = slen;

        matched += ngx_rt_glob_match(&p, &n);

        if (ngx_rt_glob_match(&p, &n)
            != (ngx_uint_t) reference(pattern, plen, name, slen))
        {
            unit_diag("differs: \"%s\" and \"%.*s\"", pattern, slen, name);
            bad++;
        }
    }

    is_int(bad, 0, "as Redis, whatever the pattern");
    ok(matched > 10000, "%u matched", (unsigned) matched);
}


/* Redis' matcher would not come back from this one */

static void
test_stars(void)
{
    u_char      pattern[401], name[256];
    ngx_str_t   p, n;
    ngx_uint_t  i;

    for (i = 0; i < 200; i++) {
        pattern[2 * i] = '*';
        pattern[2 * i + 1] = 'a';
    }

    pattern[400] = 'b';
    ngx_memset(name, 'a', sizeof(name));

    p.data = pattern;
    p.len = sizeof(pattern);
    n.data = name;
    n.len = sizeof(name);

    ok(!ngx_rt_glob_match(&p, &n), "two hundred stars, no match");

    p.len--;

    ok(ngx_rt_glob_match(&p, &n), "two hundred stars, a match");
}


int
main(void)
{
    test_known();
    test_random();
    test_stars();

    done_testing();
}
