
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Payload in: names that are allowed, the JSON envelope, the digest.
 *
 * The envelope is read by a strict scanner of our own instead of a JSON
 * library: values pass byte for byte (a library would print numbers anew and
 * lose digits), and nothing is allocated for them.
 */


#include <ngx_rt_base.h>


#define NGX_RT_JSON_DEPTH         64


/* where the scanner is; depth bounds the recursion */

typedef struct {
    const u_char                 *p;
    const u_char                 *last;
    u_char                       *out;      /* scratch, for unescaped text */
    const char                   *why;
    ngx_uint_t                    depth;
} ngx_rt_json_t;


static ngx_int_t ngx_rt_json_member(ngx_rt_json_t *js, ngx_rt_message_t *msg,
    ngx_uint_t *found);
static ngx_int_t ngx_rt_json_text(ngx_rt_json_t *js, ngx_str_t *text);
static ngx_int_t ngx_rt_json_fail(ngx_rt_json_t *js, const char *why);
static void ngx_rt_json_space(ngx_rt_json_t *js);
static ngx_int_t ngx_rt_json_value(ngx_rt_json_t *js);
static ngx_int_t ngx_rt_json_list(ngx_rt_json_t *js, u_char close);
static ngx_int_t ngx_rt_json_word(ngx_rt_json_t *js, const char *word);
static ngx_int_t ngx_rt_json_number(ngx_rt_json_t *js);
static ngx_int_t ngx_rt_json_digits(ngx_rt_json_t *js);
static ngx_int_t ngx_rt_json_unquote(ngx_rt_json_t *js, ngx_str_t *text);
static ngx_int_t ngx_rt_json_escape(ngx_rt_json_t *js, u_char **out);
static ngx_int_t ngx_rt_json_unicode(ngx_rt_json_t *js, uint32_t *code);


/* the same on all nodes, so that they agree on digests; it is no secret */

static const u_char  ngx_rt_digest_key[16] = "ngx_rt digest 1";


ngx_int_t
ngx_rt_channel_check(const ngx_str_t *name)
{
    size_t  i;

    if (name->len == 0 || name->len > NGX_RT_CHANNEL_MAX) {
        return NGX_ERROR;
    }

    for (i = 0; i < name->len; i++) {
        if (name->data[i] <= 0x20 || name->data[i] == 0x7f) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_event_check(const ngx_str_t *event)
{
    size_t  i;

    if (event->len == 0 || event->len > NGX_RT_EVENT_MAX) {
        return NGX_ERROR;
    }

    if (event->len >= 3 && ngx_memcmp(event->data, "rt.", 3) == 0) {
        return NGX_ERROR;
    }

    for (i = 0; i < event->len; i++) {
        if (event->data[i] == '\r' || event->data[i] == '\n'
            || event->data[i] == '\0')
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


void
ngx_rt_message_digest(const ngx_str_t *channel, const ngx_rt_message_t *msg,
    u_char digest[NGX_RT_DIGEST_LEN])
{
    u_char            buf[16 + 3 + NGX_RT_CHANNEL_MAX + NGX_RT_EVENT_MAX], *p;
    uint64_t          h[2];
    const ngx_str_t  *content;

    content = msg->version.len ? &msg->version : &msg->data;

    ngx_rt_hash128(ngx_rt_digest_key, content->data, content->len, h);

    p = ngx_cpymem(buf, h, 16);
    *p++ = msg->version.len ? 1 : 0;
    *p++ = (u_char) channel->len;
    *p++ = (u_char) msg->event.len;
    p = ngx_cpymem(p, channel->data, channel->len);

    if (msg->event.len) {
        p = ngx_cpymem(p, msg->event.data, msg->event.len);
    }

    ngx_rt_hash128(ngx_rt_digest_key, buf, p - buf, h);
    ngx_memcpy(digest, h, NGX_RT_DIGEST_LEN);
}


void
ngx_rt_group_digest(const u_char (*digests)[NGX_RT_DIGEST_LEN], ngx_uint_t n,
    u_char digest[NGX_RT_DIGEST_LEN])
{
    uint64_t  h[2];

    ngx_rt_hash128(ngx_rt_digest_key, digests, n * NGX_RT_DIGEST_LEN, h);
    ngx_memcpy(digest, h, NGX_RT_DIGEST_LEN);
}


ngx_int_t
ngx_rt_message_json(ngx_rt_message_t *msg, const ngx_str_t *payload,
    u_char *scratch, const char **why)
{
    ngx_int_t      rc;
    ngx_uint_t     found;
    ngx_rt_json_t  js;

    ngx_memzero(&js, sizeof(ngx_rt_json_t));
    ngx_memzero(msg, sizeof(ngx_rt_message_t));

    js.p = payload->data;
    js.last = payload->data + payload->len;
    js.out = scratch;
    js.why = "not JSON";
    js.depth = 1;

    found = 0;

    ngx_rt_json_space(&js);

    if (js.p == js.last || *js.p != '{') {
        *why = "not a JSON object";
        return NGX_DECLINED;
    }

    js.p++;
    ngx_rt_json_space(&js);

    if (js.p < js.last && *js.p == '}') {
        js.p++;

    } else {

        for ( ;; ) {
            rc = ngx_rt_json_member(&js, msg, &found);

            if (rc == NGX_DONE) {
                break;
            }

            if (rc != NGX_OK) {
                *why = js.why;
                return NGX_DECLINED;
            }
        }
    }

    ngx_rt_json_space(&js);

    if (js.p != js.last) {
        *why = "something after the JSON object";
        return NGX_DECLINED;
    }

    if (!found) {
        *why = "no \"data\"";
        return NGX_DECLINED;
    }

    if (msg->event.len && ngx_rt_event_check(&msg->event) != NGX_OK) {
        *why = "bad \"event\"";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* one member and what ends it.  NGX_OK: another follows; NGX_DONE: "}" */

static ngx_int_t
ngx_rt_json_member(ngx_rt_json_t *js, ngx_rt_message_t *msg,
    ngx_uint_t *found)
{
    u_char     *out;
    ngx_str_t   name, text;

    ngx_rt_json_space(js);

    out = js->out;

    if (ngx_rt_json_unquote(js, &name) != NGX_OK) {
        return NGX_DECLINED;
    }

    js->out = out;

    ngx_rt_json_space(js);

    if (js->p == js->last || *js->p++ != ':') {
        return NGX_DECLINED;
    }

    ngx_rt_json_space(js);

    if (name.len == 4 && ngx_memcmp(name.data, "data", 4) == 0) {

        if (ngx_rt_json_text(js, &msg->data) != NGX_OK) {
            return NGX_DECLINED;
        }

        *found = 1;

    } else if (name.len == 5 && ngx_memcmp(name.data, "event", 5) == 0) {

        if (js->p == js->last || *js->p != '"') {
            return ngx_rt_json_fail(js, "\"event\" is not a string");
        }

        if (ngx_rt_json_text(js, &msg->event) != NGX_OK) {
            return NGX_DECLINED;
        }

    } else if (name.len == 7 && ngx_memcmp(name.data, "version", 7) == 0) {

        if (js->p < js->last && (*js->p == '{' || *js->p == '[')) {
            return ngx_rt_json_fail(js, "\"version\" is not a string");
        }

        if (ngx_rt_json_text(js, &msg->version) != NGX_OK) {
            return NGX_DECLINED;
        }

    } else if (ngx_rt_json_text(js, &text) != NGX_OK) {
        return NGX_DECLINED;
    }

    ngx_rt_json_space(js);

    if (js->p == js->last) {
        return NGX_DECLINED;
    }

    switch (*js->p++) {

    case ',':
        return NGX_OK;

    case '}':
        return NGX_DONE;

    default:
        return NGX_DECLINED;
    }
}


/* a string as its text, any other value as it stands */

static ngx_int_t
ngx_rt_json_text(ngx_rt_json_t *js, ngx_str_t *text)
{
    if (js->p < js->last && *js->p == '"') {
        return ngx_rt_json_unquote(js, text);
    }

    text->data = (u_char *) js->p;

    if (ngx_rt_json_value(js) != NGX_OK) {
        return NGX_DECLINED;
    }

    text->len = js->p - text->data;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_json_fail(ngx_rt_json_t *js, const char *why)
{
    js->why = why;

    return NGX_DECLINED;
}


static void
ngx_rt_json_space(ngx_rt_json_t *js)
{
    while (js->p < js->last
           && (*js->p == ' ' || *js->p == '\t' || *js->p == '\n'
               || *js->p == '\r'))
    {
        js->p++;
    }
}


static ngx_int_t
ngx_rt_json_value(ngx_rt_json_t *js)
{
    u_char     *out;
    ngx_int_t   rc;
    ngx_str_t   text;

    if (js->p == js->last) {
        return NGX_DECLINED;
    }

    switch (*js->p) {

    case '"':
        out = js->out;
        rc = ngx_rt_json_unquote(js, &text);
        js->out = out;
        return rc;

    case '{':
        return ngx_rt_json_list(js, '}');

    case '[':
        return ngx_rt_json_list(js, ']');

    case 't':
        return ngx_rt_json_word(js, "true");

    case 'f':
        return ngx_rt_json_word(js, "false");

    case 'n':
        return ngx_rt_json_word(js, "null");

    default:
        return ngx_rt_json_number(js);
    }
}


/* an array, or an object when close is "}" */

static ngx_int_t
ngx_rt_json_list(ngx_rt_json_t *js, u_char close)
{
    u_char     *out;
    ngx_int_t   rc;
    ngx_str_t   name;

    if (++js->depth > NGX_RT_JSON_DEPTH) {
        return ngx_rt_json_fail(js, "nested too deep");
    }

    js->p++;
    ngx_rt_json_space(js);

    if (js->p < js->last && *js->p == close) {
        js->p++;
        js->depth--;
        return NGX_OK;
    }

    for ( ;; ) {

        ngx_rt_json_space(js);

        if (close == '}') {
            out = js->out;
            rc = ngx_rt_json_unquote(js, &name);
            js->out = out;

            if (rc != NGX_OK) {
                return NGX_DECLINED;
            }

            ngx_rt_json_space(js);

            if (js->p == js->last || *js->p++ != ':') {
                return NGX_DECLINED;
            }

            ngx_rt_json_space(js);
        }

        if (ngx_rt_json_value(js) != NGX_OK) {
            return NGX_DECLINED;
        }

        ngx_rt_json_space(js);

        if (js->p == js->last) {
            return NGX_DECLINED;
        }

        if (*js->p == close) {
            js->p++;
            js->depth--;
            return NGX_OK;
        }

        if (*js->p++ != ',') {
            return NGX_DECLINED;
        }
    }
}


static ngx_int_t
ngx_rt_json_word(ngx_rt_json_t *js, const char *word)
{
    size_t  len;

    len = ngx_strlen(word);

    if ((size_t) (js->last - js->p) < len
        || ngx_memcmp(js->p, word, len) != 0)
    {
        return NGX_DECLINED;
    }

    js->p += len;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_json_number(ngx_rt_json_t *js)
{
    if (*js->p == '-') {
        js->p++;
    }

    if (js->p < js->last && *js->p == '0') {
        js->p++;

    } else if (ngx_rt_json_digits(js) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (js->p < js->last && *js->p == '.') {
        js->p++;

        if (ngx_rt_json_digits(js) != NGX_OK) {
            return NGX_DECLINED;
        }
    }

    if (js->p < js->last && (*js->p == 'e' || *js->p == 'E')) {
        js->p++;

        if (js->p < js->last && (*js->p == '+' || *js->p == '-')) {
            js->p++;
        }

        return ngx_rt_json_digits(js);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_json_digits(ngx_rt_json_t *js)
{
    const u_char  *start;

    start = js->p;

    while (js->p < js->last && *js->p >= '0' && *js->p <= '9') {
        js->p++;
    }

    return js->p > start ? NGX_OK : NGX_DECLINED;
}


/* the text of a string goes to the scratch, where it takes fewer bytes than
 * in the payload */

static ngx_int_t
ngx_rt_json_unquote(ngx_rt_json_t *js, ngx_str_t *text)
{
    u_char  ch, *out;

    if (js->p == js->last || *js->p != '"') {
        return NGX_DECLINED;
    }

    js->p++;
    out = js->out;

    while (js->p < js->last) {
        ch = *js->p++;

        if (ch == '"') {
            text->data = js->out;
            text->len = out - js->out;
            js->out = out;
            return NGX_OK;
        }

        if (ch < 0x20) {
            break;
        }

        if (ch != '\\') {
            *out++ = ch;
            continue;
        }

        if (ngx_rt_json_escape(js, &out) != NGX_OK) {
            break;
        }
    }

    return ngx_rt_json_fail(js, "bad string");
}


static ngx_int_t
ngx_rt_json_escape(ngx_rt_json_t *js, u_char **out)
{
    u_char      *p;
    uint32_t     code, low;
    const char  *s;

    static const char  from[] = "\"\\/bfnrt";
    static const char  to[] = "\"\\/\b\f\n\r\t";

    if (js->p == js->last) {
        return NGX_DECLINED;
    }

    p = *out;

    if (*js->p != 'u') {

        s = *js->p ? strchr(from, *js->p) : NULL;

        if (s == NULL) {
            return NGX_DECLINED;
        }

        js->p++;
        *p++ = (u_char) to[s - from];
        *out = p;

        return NGX_OK;
    }

    if (ngx_rt_json_unicode(js, &code) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (code >= 0xdc00 && code <= 0xdfff) {
        return NGX_DECLINED;
    }

    if (code >= 0xd800 && code <= 0xdbff) {

        if (js->last - js->p < 6 || *js->p++ != '\\'
            || ngx_rt_json_unicode(js, &low) != NGX_OK
            || low < 0xdc00 || low > 0xdfff)
        {
            return NGX_DECLINED;
        }

        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }

    if (code < 0x80) {
        *p++ = (u_char) code;

    } else if (code < 0x800) {
        *p++ = (u_char) (0xc0 | code >> 6);
        *p++ = (u_char) (0x80 | (code & 0x3f));

    } else if (code < 0x10000) {
        *p++ = (u_char) (0xe0 | code >> 12);
        *p++ = (u_char) (0x80 | ((code >> 6) & 0x3f));
        *p++ = (u_char) (0x80 | (code & 0x3f));

    } else {
        *p++ = (u_char) (0xf0 | code >> 18);
        *p++ = (u_char) (0x80 | ((code >> 12) & 0x3f));
        *p++ = (u_char) (0x80 | ((code >> 6) & 0x3f));
        *p++ = (u_char) (0x80 | (code & 0x3f));
    }

    *out = p;

    return NGX_OK;
}


/* "uXXXX" at p */

static ngx_int_t
ngx_rt_json_unicode(ngx_rt_json_t *js, uint32_t *code)
{
    u_char      ch;
    uint32_t    n;
    ngx_uint_t  i;

    if (js->last - js->p < 5 || *js->p != 'u') {
        return NGX_DECLINED;
    }

    n = 0;

    for (i = 1; i < 5; i++) {
        ch = js->p[i];

        if (ch >= '0' && ch <= '9') {
            ch -= '0';

        } else if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f') {
            ch = (ch | 0x20) - 'a' + 10;

        } else {
            return NGX_DECLINED;
        }

        n = n << 4 | ch;
    }

    js->p += 5;
    *code = n;

    return NGX_OK;
}
