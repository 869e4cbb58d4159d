
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The input is taken as a cursor's text, as the bytes of a cursor, and as an
 * If-None-Match value.
 */


#include "../../ngx_rt_module/ngx_rt_cursor.c"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(ngx_uint_t right)
{
    if (!right) {
        abort();
    }
}


/* what is accepted is exactly what format writes */

static void
fuzz_text(const u_char *text, size_t len)
{
    u_char           *buf;
    size_t            n;
    ngx_rt_cursor_t   c, was;

    ngx_memset(&was, 0xa5, sizeof(ngx_rt_cursor_t));
    c = was;

    if (ngx_rt_cursor_parse(&c, text, len) != NGX_OK) {
        check(memcmp(&c, &was, sizeof(ngx_rt_cursor_t)) == 0);
        return;
    }

    buf = malloc(NGX_RT_CURSOR_LEN);
    check(buf != NULL);

    n = ngx_rt_cursor_format(buf, &c) - buf;

    check(n == len && memcmp(buf, text, len) == 0);

    free(buf);
}


/* what format writes is read as what it was */

static void
fuzz_cursor(const u_char *p, size_t len)
{
    u_char           *buf;
    size_t            n;
    ngx_rt_cursor_t   c, back;

    if (len < 1 + 8 + 8 + 2 * NGX_RT_DIGEST_LEN) {
        return;
    }

    ngx_memzero(&c, sizeof(ngx_rt_cursor_t));

    ngx_memcpy(&c.epoch, p + 1, 8);
    ngx_memcpy(&c.seq, p + 9, 8);

    c.epoch &= 0xffffffffffff;
    c.seq >>= p[0] & 63;

    if (p[0] & 0x40) {
        c.digested = 1;
        ngx_memcpy(c.digest, p + 17, NGX_RT_DIGEST_LEN);

        if (p[0] & 0x80) {
            c.grouped = 1;
            ngx_memcpy(c.group, p + 17 + NGX_RT_DIGEST_LEN,
                       NGX_RT_DIGEST_LEN);
        }
    }

    buf = malloc(NGX_RT_CURSOR_LEN);
    check(buf != NULL);

    n = ngx_rt_cursor_format(buf, &c) - buf;

    check(n <= NGX_RT_CURSOR_LEN);
    check(ngx_rt_cursor_parse(&back, buf, n) == NGX_OK);

    check(back.epoch == c.epoch && back.seq == c.seq
          && back.digested == c.digested && back.grouped == c.grouped
          && memcmp(back.digest, c.digest, NGX_RT_DIGEST_LEN) == 0
          && memcmp(back.group, c.group, NGX_RT_DIGEST_LEN) == 0);

    free(buf);
}


/* each step gets on, and its tag stands quoted before what is left */

static void
fuzz_list(const u_char *p, size_t len)
{
    u_char     *begin, *last;
    ngx_int_t   rc;
    ngx_str_t   list, tag;

    list.data = (u_char *) p;
    list.len = len;

    for ( ;; ) {
        begin = list.data;
        last = begin + list.len;

        rc = ngx_rt_etag_next(&list, &tag);

        if (rc != NGX_OK) {
            break;
        }

        check(tag.data > begin && tag.data[-1] == '"'
              && tag.data + tag.len < last && tag.data[tag.len] == '"'
              && memchr(tag.data, '"', tag.len) == NULL);

        check(list.len == 0
              || (list.data > tag.data + tag.len
                  && list.data + list.len == last));

        fuzz_text(tag.data, tag.len);
    }

    check(rc == NGX_DONE || rc == NGX_DECLINED || rc == NGX_ERROR);
    check(list.len == 0);

    /* "*" is there only by itself */

    check(rc != NGX_DECLINED || begin == p);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_text(data, size);
    fuzz_cursor(data, size);
    fuzz_list(data, size);

    return 0;
}
