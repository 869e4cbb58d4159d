
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Payload in: names that are allowed, the JSON envelope, the digest.
 *
 * The envelope is read by a scanner of our own rather than by cJSON, which
 * accepts more than RFC 8259, prints numbers anew, knows no spans and makes
 * a tree of it all: values have to pass byte for byte, and cost nothing here.
 */


#include <ngx_rt_base.h>


/* objects and arrays within each other, the outermost one counts */
#define NGX_RT_JSON_DEPTH         64

#define ngx_rt_is(s, text)                                                    \
    ((s)->len == sizeof(text) - 1                                             \
     && ngx_memcmp((s)->data, text, sizeof(text) - 1) == 0)


/* values of the members that matter, as written; empty: not there */

typedef struct {
    ngx_str_t                     data;
    ngx_str_t                     event;
    ngx_str_t                     version;
    u_char                       *scratch;
} ngx_rt_members_t;


typedef struct {
    const u_char                 *p;
    const u_char                 *last;
    ngx_uint_t                    depth;
    const char                   *why;      /* NULL: no JSON */
} ngx_rt_json_t;


static ngx_int_t ngx_rt_members_read(ngx_rt_members_t *members,
    const ngx_str_t *payload, const char **why);
static void ngx_rt_members_keep(ngx_rt_members_t *members,
    const ngx_str_t *name, const ngx_str_t *value);
static ngx_int_t ngx_rt_json_text(ngx_str_t *text, const ngx_str_t *value,
    u_char **scratch);
static ngx_int_t ngx_rt_json_unescape(const u_char *p, const u_char *last,
    u_char **out);
static u_char *ngx_rt_utf8_write(u_char *p, uint32_t code);

static ngx_int_t ngx_rt_json_value(ngx_rt_json_t *js);
static ngx_int_t ngx_rt_json_list(ngx_rt_json_t *js, u_char close,
    ngx_rt_members_t *members);
static ngx_int_t ngx_rt_json_name(ngx_rt_json_t *js, ngx_str_t *name);
static ngx_int_t ngx_rt_json_quoted(ngx_rt_json_t *js);
static ngx_int_t ngx_rt_json_escape(ngx_rt_json_t *js);
static ngx_int_t ngx_rt_json_hex(const u_char *p);
static ngx_int_t ngx_rt_json_number(ngx_rt_json_t *js);
static ngx_int_t ngx_rt_json_digits(ngx_rt_json_t *js);
static ngx_int_t ngx_rt_json_word(ngx_rt_json_t *js, const char *word,
    size_t len);
static ngx_uint_t ngx_rt_json_byte(ngx_rt_json_t *js, u_char ch);
static void ngx_rt_json_space(ngx_rt_json_t *js);

static void ngx_rt_digest_add(u_char key[16], const void *data, size_t len);


/* no secrets, nodes only have to agree on them; a data is no version */

static const u_char  ngx_rt_digest_data_key[16] = "ngx_rt data 1";
static const u_char  ngx_rt_digest_version_key[16] = "ngx_rt version 1";
static const u_char  ngx_rt_digest_group_key[16] = "ngx_rt group 1";


ngx_int_t
ngx_rt_channel_check(const ngx_str_t *name)
{
    size_t  i;

    if (name->len == 0 || name->len > NGX_RT_CHANNEL_MAX) {
        return NGX_ERROR;
    }

    for (i = 0; i < name->len; i++) {
        if (name->data[i] <= ' ' || name->data[i] == 0x7f) {
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
        switch (event->data[i]) {

        case '\0':
        case '\r':
        case '\n':
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_message_json(ngx_rt_message_t *msg, const ngx_str_t *payload,
    u_char *scratch, const char **why)
{
    ngx_str_t         *value;
    ngx_rt_members_t   members;

    ngx_memzero(msg, sizeof(ngx_rt_message_t));
    ngx_memzero(&members, sizeof(ngx_rt_members_t));

    members.scratch = scratch;

    if (ngx_rt_members_read(&members, payload, why) != NGX_OK) {
        return NGX_DECLINED;
    }

    /* the texts are shorter than what they are read from: scratch suffices */

    value = &members.data;

    if (value->len == 0) {
        *why = "no \"data\"";
        return NGX_DECLINED;
    }

    if (ngx_rt_json_text(&msg->data, value, &scratch) != NGX_OK) {
        *why = "bad string";
        return NGX_DECLINED;
    }

    value = &members.event;

    if (value->len && !ngx_rt_is(value, "null")) {

        if (value->data[0] != '"'
            || ngx_rt_json_text(&msg->event, value, &scratch) != NGX_OK
            || (msg->event.len && ngx_rt_event_check(&msg->event) != NGX_OK))
        {
            *why = "bad event name";
            return NGX_DECLINED;
        }
    }

    value = &members.version;

    if (value->len && !ngx_rt_is(value, "null")) {

        if (ngx_strchr("\"-0123456789", value->data[0]) == NULL
            || ngx_rt_json_text(&msg->version, value, &scratch) != NGX_OK)
        {
            *why = "bad version";
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_rt_members_read(ngx_rt_members_t *members, const ngx_str_t *payload,
    const char **why)
{
    ngx_rt_json_t  js;

    if (payload->len == 0) {
        *why = "not a JSON object";
        return NGX_DECLINED;
    }

    js.p = payload->data;
    js.last = payload->data + payload->len;
    js.depth = 0;
    js.why = NULL;

    ngx_rt_json_space(&js);

    if (!ngx_rt_json_byte(&js, '{')) {
        *why = "not a JSON object";
        return NGX_DECLINED;
    }

    if (ngx_rt_json_list(&js, '}', members) != NGX_OK) {
        *why = js.why ? js.why : "not JSON";
        return NGX_DECLINED;
    }

    ngx_rt_json_space(&js);

    if (js.p != js.last) {
        *why = "more than one JSON object";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static void
ngx_rt_members_keep(ngx_rt_members_t *members, const ngx_str_t *name,
    const ngx_str_t *value)
{
    u_char     *scratch;
    ngx_str_t   text;

    /* names may be written with escapes too; the text is not kept */

    scratch = members->scratch;

    if (ngx_rt_json_text(&text, name, &scratch) != NGX_OK) {
        return;
    }

    if (ngx_rt_is(&text, "data")) {
        members->data = *value;

    } else if (ngx_rt_is(&text, "event")) {
        members->event = *value;

    } else if (ngx_rt_is(&text, "version")) {
        members->version = *value;
    }
}


/*
 * A string's text, any other value as it is.  NGX_ERROR: half a surrogate
 * pair, which the grammar allows and no encoding of text can hold.
 */

static ngx_int_t
ngx_rt_json_text(ngx_str_t *text, const ngx_str_t *value, u_char **scratch)
{
    *text = *value;

    if (value->data[0] != '"') {
        return NGX_OK;
    }

    text->data++;
    text->len -= 2;

    if (memchr(text->data, '\\', text->len) == NULL) {
        return NGX_OK;
    }

    text->data = *scratch;

    if (ngx_rt_json_unescape(value->data + 1, value->data + value->len - 1,
                             scratch)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    text->len = *scratch - text->data;

    return NGX_OK;
}


/* the escapes between p and last are known to be whole */

static ngx_int_t
ngx_rt_json_unescape(const u_char *p, const u_char *last, u_char **out)
{
    u_char    *q;
    uint32_t   code, low;

    q = *out;

    while (p < last) {

        if (*p != '\\') {
            *q++ = *p++;
            continue;
        }

        switch (p[1]) {

        case 'b':
            *q++ = '\b';
            break;

        case 'f':
            *q++ = '\f';
            break;

        case 'n':
            *q++ = '\n';
            break;

        case 'r':
            *q++ = '\r';
            break;

        case 't':
            *q++ = '\t';
            break;

        case 'u':
            code = (uint32_t) ngx_rt_json_hex(p + 2);

            if (code >= 0xd800 && code <= 0xdbff
                && last - p > 7 && p[6] == '\\' && p[7] == 'u')
            {
                p += 6;
                low = (uint32_t) ngx_rt_json_hex(p + 2);

                if (low < 0xdc00 || low > 0xdfff) {
                    return NGX_ERROR;
                }

                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }

            if (code >= 0xd800 && code <= 0xdfff) {
                return NGX_ERROR;
            }

            q = ngx_rt_utf8_write(q, code);
            p += 4;
            break;

        default: /* quote, backslash, slash */
            *q++ = p[1];
        }

        p += 2;
    }

    *out = q;

    return NGX_OK;
}


static u_char *
ngx_rt_utf8_write(u_char *p, uint32_t code)
{
    if (code < 0x80) {
        *p++ = (u_char) code;
        return p;
    }

    if (code < 0x800) {
        *p++ = (u_char) (0xc0 | (code >> 6));

    } else {

        if (code < 0x10000) {
            *p++ = (u_char) (0xe0 | (code >> 12));

        } else {
            *p++ = (u_char) (0xf0 | (code >> 18));
            *p++ = (u_char) (0x80 | ((code >> 12) & 0x3f));
        }

        *p++ = (u_char) (0x80 | ((code >> 6) & 0x3f));
    }

    *p++ = (u_char) (0x80 | (code & 0x3f));

    return p;
}


/*
 * The scanner: each function begins at js->p and leaves it behind what it
 * was to read.  NGX_DECLINED: that is not there, js->why may say why.
 */

static ngx_int_t
ngx_rt_json_value(ngx_rt_json_t *js)
{
    if (js->p == js->last) {
        return NGX_DECLINED;
    }

    switch (*js->p) {

    case '{':
        js->p++;
        return ngx_rt_json_list(js, '}', NULL);

    case '[':
        js->p++;
        return ngx_rt_json_list(js, ']', NULL);

    case '"':
        return ngx_rt_json_quoted(js);

    case 't':
        return ngx_rt_json_word(js, "true", 4);

    case 'f':
        return ngx_rt_json_word(js, "false", 5);

    case 'n':
        return ngx_rt_json_word(js, "null", 4);

    default:
        return ngx_rt_json_number(js);
    }
}


/* an object or, if close is "]", an array, from behind its first bracket */

static ngx_int_t
ngx_rt_json_list(ngx_rt_json_t *js, u_char close, ngx_rt_members_t *members)
{
    ngx_str_t  name, value;

    if (++js->depth > NGX_RT_JSON_DEPTH) {
        js->why = "nested deeper than 64";
        return NGX_DECLINED;
    }

    ngx_rt_json_space(js);

    if (ngx_rt_json_byte(js, close)) {
        js->depth--;
        return NGX_OK;
    }

    for ( ;; ) {

        if (close == '}' && ngx_rt_json_name(js, &name) != NGX_OK) {
            return NGX_DECLINED;
        }

        value.data = (u_char *) js->p;

        if (ngx_rt_json_value(js) != NGX_OK) {
            return NGX_DECLINED;
        }

        value.len = js->p - value.data;

        if (members) {
            ngx_rt_members_keep(members, &name, &value);
        }

        ngx_rt_json_space(js);

        if (ngx_rt_json_byte(js, close)) {
            js->depth--;
            return NGX_OK;
        }

        if (!ngx_rt_json_byte(js, ',')) {
            return NGX_DECLINED;
        }

        ngx_rt_json_space(js);
    }
}


static ngx_int_t
ngx_rt_json_name(ngx_rt_json_t *js, ngx_str_t *name)
{
    name->data = (u_char *) js->p;

    if (ngx_rt_json_quoted(js) != NGX_OK) {
        return NGX_DECLINED;
    }

    name->len = js->p - name->data;

    ngx_rt_json_space(js);

    if (!ngx_rt_json_byte(js, ':')) {
        return NGX_DECLINED;
    }

    ngx_rt_json_space(js);

    return NGX_OK;
}


static ngx_int_t
ngx_rt_json_quoted(ngx_rt_json_t *js)
{
    u_char  ch;

    if (!ngx_rt_json_byte(js, '"')) {
        return NGX_DECLINED;
    }

    while (js->p < js->last) {

        ch = *js->p++;

        if (ch == '"') {
            return NGX_OK;
        }

        if (ch < 0x20
            || (ch == '\\' && ngx_rt_json_escape(js) != NGX_OK))
        {
            break;
        }
    }

    js->why = "bad string";

    return NGX_DECLINED;
}


static ngx_int_t
ngx_rt_json_escape(ngx_rt_json_t *js)
{
    if (js->p == js->last) {
        return NGX_DECLINED;
    }

    switch (*js->p++) {

    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return NGX_OK;

    case 'u':

        if (js->last - js->p < 4 || ngx_rt_json_hex(js->p) == NGX_ERROR) {
            return NGX_DECLINED;
        }

        js->p += 4;

        return NGX_OK;

    default:
        return NGX_DECLINED;
    }
}


/* the value of four hexadecimal digits or NGX_ERROR */

static ngx_int_t
ngx_rt_json_hex(const u_char *p)
{
    u_char      ch;
    ngx_int_t   value;
    ngx_uint_t  i;

    value = 0;

    for (i = 0; i < 4; i++) {

        ch = p[i];

        if (ch >= '0' && ch <= '9') {
            value = value * 16 + (ch - '0');
            continue;
        }

        ch |= 0x20;

        if (ch < 'a' || ch > 'f') {
            return NGX_ERROR;
        }

        value = value * 16 + (ch - 'a' + 10);
    }

    return value;
}


static ngx_int_t
ngx_rt_json_number(ngx_rt_json_t *js)
{
    (void) ngx_rt_json_byte(js, '-');

    if (!ngx_rt_json_byte(js, '0') && ngx_rt_json_digits(js) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (ngx_rt_json_byte(js, '.') && ngx_rt_json_digits(js) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (ngx_rt_json_byte(js, 'e') || ngx_rt_json_byte(js, 'E')) {

        if (!ngx_rt_json_byte(js, '+')) {
            (void) ngx_rt_json_byte(js, '-');
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

    return (js->p > start) ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_rt_json_word(ngx_rt_json_t *js, const char *word, size_t len)
{
    if ((size_t) (js->last - js->p) < len
        || ngx_memcmp(js->p, word, len) != 0)
    {
        return NGX_DECLINED;
    }

    js->p += len;

    return NGX_OK;
}


/* takes the next byte if it is ch */

static ngx_uint_t
ngx_rt_json_byte(ngx_rt_json_t *js, u_char ch)
{
    if (js->p == js->last || *js->p != ch) {
        return 0;
    }

    js->p++;

    return 1;
}


static void
ngx_rt_json_space(ngx_rt_json_t *js)
{
    while (js->p < js->last) {

        switch (*js->p) {

        case ' ':
        case '\t':
        case '\n':
        case '\r':
            js->p++;
            continue;
        }

        break;
    }
}


/*
 * Each part is hashed with the result of the one before as the key, so no
 * byte can move from one part to the next and give the same digest.
 */

void
ngx_rt_message_digest(const ngx_str_t *channel, const ngx_rt_message_t *msg,
    u_char digest[NGX_RT_DIGEST_LEN])
{
    u_char            key[16];
    const ngx_str_t  *content;

    if (msg->version.len) {
        content = &msg->version;
        ngx_memcpy(key, ngx_rt_digest_version_key, 16);

    } else {
        content = &msg->data;
        ngx_memcpy(key, ngx_rt_digest_data_key, 16);
    }

    ngx_rt_digest_add(key, channel->data, channel->len);
    ngx_rt_digest_add(key, msg->event.data, msg->event.len);
    ngx_rt_digest_add(key, content->data, content->len);

    ngx_memcpy(digest, key, NGX_RT_DIGEST_LEN);
}


void
ngx_rt_digest_begin(ngx_rt_digest_t *begun, const ngx_str_t *channel)
{
    ngx_memcpy(begun->channel, ngx_rt_digest_data_key, 16);

    ngx_rt_digest_add(begun->channel, channel->data, channel->len);

    ngx_memcpy(begun->data, begun->channel, 16);

    ngx_rt_digest_add(begun->data, NULL, 0);
}


void
ngx_rt_digest_end(const ngx_rt_digest_t *begun, const ngx_rt_message_t *msg,
    u_char digest[NGX_RT_DIGEST_LEN])
{
    u_char  key[16];

    if (msg->event.len) {
        ngx_memcpy(key, begun->channel, 16);
        ngx_rt_digest_add(key, msg->event.data, msg->event.len);

    } else {
        ngx_memcpy(key, begun->data, 16);
    }

    ngx_rt_digest_add(key, msg->data.data, msg->data.len);

    ngx_memcpy(digest, key, NGX_RT_DIGEST_LEN);
}


void
ngx_rt_group_digest(const u_char (*digests)[NGX_RT_DIGEST_LEN], ngx_uint_t n,
    u_char digest[NGX_RT_DIGEST_LEN])
{
    u_char  key[16];

    ngx_memcpy(key, ngx_rt_digest_group_key, 16);

    ngx_rt_digest_add(key, digests, n * NGX_RT_DIGEST_LEN);

    ngx_memcpy(digest, key, NGX_RT_DIGEST_LEN);
}


static void
ngx_rt_digest_add(u_char key[16], const void *data, size_t len)
{
    uint64_t  out[2];

    ngx_rt_hash128(key, data, len, out);

#if !(NGX_HAVE_LITTLE_ENDIAN)
    out[0] = __builtin_bswap64(out[0]);
    out[1] = __builtin_bswap64(out[1]);
#endif

    ngx_memcpy(key, out, 16);
}
