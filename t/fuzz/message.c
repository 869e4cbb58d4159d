
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The input is a payload of the JSON envelope.
 */


#include "../../ngx_rt_module/ngx_rt_hash.c"
#include "../../ngx_rt_module/ngx_rt_frame.c"
#include "../../ngx_rt_module/ngx_rt_message.c"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(ngx_uint_t right)
{
    if (!right) {
        abort();
    }
}


static ngx_uint_t
within(const ngx_str_t *str, const u_char *p, size_t len)
{
    return str->len == 0
           || (str->data >= p && str->data + str->len <= p + len);
}


static ngx_uint_t
equal(const ngx_str_t *a, const ngx_str_t *b)
{
    return a->len == b->len
           && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}


static ngx_uint_t
apart(const ngx_str_t *a, const ngx_str_t *b)
{
    return a->len == 0 || b->len == 0
           || a->data + a->len <= b->data || b->data + b->len <= a->data;
}


/* the message written anew as an envelope is the same message */

static void
fuzz_again(const ngx_rt_message_t *msg)
{
    u_char            *buf, *p, *scratch;
    u_char             one[NGX_RT_DIGEST_LEN], two[NGX_RT_DIGEST_LEN];
    size_t             len;
    ngx_str_t          text, channel = ngx_string("c");
    const char        *why;
    ngx_rt_message_t   back;

    len = ngx_rt_json_string_len(&msg->data)
          + ngx_rt_json_string_len(&msg->event)
          + ngx_rt_json_string_len(&msg->version)
          + sizeof("{\"version\":,\"event\":,\"data\":}") - 1;

    buf = malloc(len);
    scratch = malloc(len);
    check(buf != NULL && scratch != NULL);

    p = ngx_rt_put(buf, "{\"version\":");
    p = ngx_rt_json_string(p, &msg->version);
    p = ngx_rt_put(p, ",\"event\":");
    p = ngx_rt_json_string(p, &msg->event);
    p = ngx_rt_put(p, ",\"data\":");
    p = ngx_rt_json_string(p, &msg->data);
    *p++ = '}';

    check((size_t) (p - buf) == len);

    text.data = buf;
    text.len = len;

    check(ngx_rt_message_json(&back, &text, scratch, &why) == NGX_OK);

    check(equal(&msg->data, &back.data)
          && equal(&msg->event, &back.event)
          && equal(&msg->version, &back.version));

    ngx_rt_message_digest(&channel, msg, one);
    ngx_rt_message_digest(&channel, &back, two);

    check(memcmp(one, two, NGX_RT_DIGEST_LEN) == 0);

    free(scratch);
    free(buf);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char            *scratch;
    ngx_int_t          rc;
    ngx_str_t          payload;
    const char        *why;
    ngx_rt_message_t   msg;

    payload.data = (u_char *) data;
    payload.len = size;

    (void) ngx_rt_channel_check(&payload);
    (void) ngx_rt_event_check(&payload);

    scratch = malloc(size ? size : 1);
    check(scratch != NULL);

    why = NULL;
    rc = ngx_rt_message_json(&msg, &payload, scratch, &why);

    if (rc != NGX_OK) {
        check(rc == NGX_DECLINED && why != NULL);
        free(scratch);
        return 0;
    }

    check(within(&msg.data, data, size) || within(&msg.data, scratch, size));
    check(within(&msg.event, data, size) || within(&msg.event, scratch, size));
    check(within(&msg.version, data, size)
          || within(&msg.version, scratch, size));

    check(apart(&msg.data, &msg.event)
          && apart(&msg.data, &msg.version)
          && apart(&msg.event, &msg.version));

    check(msg.event.len == 0 || ngx_rt_event_check(&msg.event) == NGX_OK);

    /* what is no UTF-8 passes, but can't be written as JSON */

    if (ngx_rt_utf8_valid(data, size)) {
        check(ngx_rt_utf8_valid(msg.data.data, msg.data.len)
              && ngx_rt_utf8_valid(msg.event.data, msg.event.len)
              && ngx_rt_utf8_valid(msg.version.data, msg.version.len));

        fuzz_again(&msg);
    }

    free(scratch);

    return 0;
}
