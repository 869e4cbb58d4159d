
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Redis' patterns: which messages come by a pattern, which must be asked for
 * by name.
 *
 *     ?       one byte             \x      x itself
 *     *       any number of them   [a-z]   one of these, [^a-z] none of these
 *
 * A set without "]" ends with the pattern; "-" stands for itself where no
 * range can be; a "\" that ends the pattern stands for itself.
 */


#include <ngx_rt_source.h>


static u_char *ngx_rt_glob_set(u_char *p, u_char *last, u_char ch,
    ngx_uint_t *match);


/*
 * All but the star takes exactly one byte, so of several stars only the last
 * one ever has to be tried again.
 */

ngx_uint_t
ngx_rt_glob_match(const ngx_str_t *pattern, const ngx_str_t *name)
{
    u_char      *p, *s, *last, *end, *star, *mark;
    ngx_uint_t   match;

    p = pattern->data;
    last = p + pattern->len;
    s = name->data;
    end = s + name->len;

    star = NULL;
    mark = NULL;

    /* as in Redis, nothing matches an empty name but an empty pattern */

    if (name->len == 0) {
        return pattern->len == 0;
    }

    while (s < end) {

        if (p < last && *p == '*') {
            star = ++p;
            mark = s;
            continue;
        }

        match = 0;

        if (p < last) {

            switch (*p) {

            case '?':
                match = 1;
                p++;
                break;

            case '[':
                p = ngx_rt_glob_set(p + 1, last, *s, &match);
                break;

            case '\\':
                if (p + 1 < last) {
                    p++;
                }

                /* fall through */

            default:
                match = (*p++ == *s);
                break;
            }
        }

        if (match) {
            s++;
            continue;
        }

        if (star == NULL) {
            return 0;
        }

        p = star;
        s = ++mark;
    }

    while (p < last && *p == '*') {
        p++;
    }

    return p == last;
}


/* p: after "[".  Returns what follows the set */

static u_char *
ngx_rt_glob_set(u_char *p, u_char *last, u_char ch, ngx_uint_t *match)
{
    char        from, to, c;
    ngx_uint_t  negated;

    negated = 0;

    if (p < last && *p == '^') {
        negated = 1;
        p++;
    }

    *match = 0;

    while (p < last && *p != ']') {

        if (*p == '\\' && last - p >= 2) {
            p++;
            *match |= (*p == ch);

        } else if (last - p >= 3 && p[1] == '-') {

            /* Redis compares chars, of whatever sign they are */

            c = (char) ch;
            from = (char) ngx_min((char) p[0], (char) p[2]);
            to = (char) ngx_max((char) p[0], (char) p[2]);
            *match |= (c >= from && c <= to);
            p += 2;

        } else {
            *match |= (*p == ch);
        }

        p++;
    }

    *match ^= negated;

    return (p < last) ? p + 1 : p;
}
