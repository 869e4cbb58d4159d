
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The first two bytes of the input are the lengths of an id and an event
 * that follow them, the rest is the data.
 */


#include "../../ngx_rt_module/ngx_rt_frame.c"
#include "../unit/sse.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(ngx_uint_t right)
{
    if (!right) {
        abort();
    }
}


static ngx_uint_t
equal(const ngx_str_t *a, const u_char *p, size_t len)
{
    return a->len == len && (len == 0 || memcmp(a->data, p, len) == 0);
}


/* takes what the caller of a frame function vouches for */

static void
take(const uint8_t **p, size_t *left, size_t len, ngx_str_t *text)
{
    size_t  i;

    len = ngx_min(len, *left);

    for (i = 0; i < len; i++) {
        if ((*p)[i] == '\r' || (*p)[i] == '\n' || (*p)[i] == '\0') {
            break;
        }
    }

    text->data = (u_char *) *p;
    text->len = i;

    *p += i;
    *left -= i;
}


static void
fuzz_sse(const ngx_str_t *id, const ngx_str_t *event, const ngx_str_t *data)
{
    u_char  *buf, *normal;
    sse_t    sse;
    size_t   len, n;

    len = ngx_rt_frame_sse_len(id, event, data);

    buf = malloc(len);
    normal = malloc(data->len + 1);
    check(buf != NULL && normal != NULL);

    check((size_t) (ngx_rt_frame_sse(buf, id, event, data) - buf) == len);

    n = sse_normal(normal, data->data, data->len);

    sse_parse(&sse, buf, len);

    check(sse.events == 1 && sse.strange == 0);
    check(equal(&sse.data, normal, n));
    check(equal(&sse.id, id->data, id->len));

    if (event->len) {
        check(equal(&sse.event, event->data, event->len));

    } else {
        check(equal(&sse.event, (u_char *) "message", 7));
    }

    sse_free(&sse);
    free(normal);
    free(buf);
}


static void
fuzz_gap(const ngx_str_t *id, const ngx_str_t *channel,
    const ngx_str_t *reason)
{
    u_char  *buf;
    sse_t    sse;
    size_t   len;

    len = ngx_rt_frame_gap_len(id, channel, reason);

    buf = malloc(len);
    check(buf != NULL);

    check((size_t) (ngx_rt_frame_gap(buf, id, channel, reason) - buf) == len);

    sse_parse(&sse, buf, len);

    check(sse.events == 1 && sse.strange == 0);
    check(equal(&sse.event, (u_char *) "rt.gap", 6));
    check(equal(&sse.id, id->data, id->len));

    sse_free(&sse);
    free(buf);
}


/* a string is UTF-8, has no byte that it must not have, and ends only once */

static void
fuzz_json(const ngx_str_t *text)
{
    u_char      *buf;
    size_t       len, i;
    ngx_uint_t   plain;

    len = ngx_rt_json_string_len(text);

    buf = malloc(len);
    check(buf != NULL);

    check((size_t) (ngx_rt_json_string(buf, text) - buf) == len);
    check(len >= 2 && buf[0] == '"' && buf[len - 1] == '"');
    check(ngx_rt_utf8_valid(buf, len));

    plain = 1;

    for (i = 1; i < len - 1; i++) {
        check(buf[i] >= 0x20 && buf[i] != '"' && buf[i] != 0x7f);

        if (buf[i] == '\\') {
            plain = 0;
            i++;
            check(i < len - 1 && strchr("\"\\bfnrtu", buf[i]) != NULL);
        }
    }

    if (plain && ngx_rt_utf8_valid(text->data, text->len)) {
        check(len == text->len + 2 && equal(text, buf + 1, len - 2));
    }

    free(buf);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ngx_str_t       id, event, text;
    const uint8_t  *p;

    if (size < 2) {
        return 0;
    }

    p = data + 2;
    size -= 2;

    take(&p, &size, data[0], &id);
    take(&p, &size, data[1], &event);

    text.data = (u_char *) p;
    text.len = size;

    fuzz_sse(&id, &event, &text);
    fuzz_gap(&id, &event, &text);
    fuzz_json(&text);

    return 0;
}
