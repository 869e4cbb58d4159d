
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * An event stream read as a browser reads it (WHATWG HTML, 9.2.6), byte by
 * byte and without a thought of speed, so that it shares no idea with the
 * writer that it checks.  Decoding of UTF-8 is left out: bytes that are none
 * stay as they are.
 */


typedef struct {
    ngx_uint_t                    events;   /* dispatched */
    ngx_uint_t                    strange;  /* lines a writer has no use for:
                                               comments, unknown fields */
    ngx_str_t                     data;     /* of the last event */
    ngx_str_t                     event;
    ngx_str_t                     id;       /* last event ID */
    u_char                       *buf;
    size_t                        size;     /* bytes of each of six parts */
    ngx_str_t                     data_buffer;
    ngx_str_t                     event_buffer;
    ngx_str_t                     id_buffer;
} sse_t;


static void
sse_copy(ngx_str_t *to, const u_char *p, size_t len)
{
    if (len) {
        memmove(to->data, p, len);
    }

    to->len = len;
}


static void
sse_dispatch(sse_t *sse)
{
    sse_copy(&sse->id, sse->id_buffer.data, sse->id_buffer.len);

    if (sse->data_buffer.len == 0) {
        sse->event_buffer.len = 0;
        return;
    }

    sse_copy(&sse->data, sse->data_buffer.data, sse->data_buffer.len - 1);

    if (sse->event_buffer.len) {
        sse_copy(&sse->event, sse->event_buffer.data, sse->event_buffer.len);

    } else {
        sse_copy(&sse->event, (const u_char *) "message", 7);
    }

    sse->data_buffer.len = 0;
    sse->event_buffer.len = 0;
    sse->events++;
}


static void
sse_field(sse_t *sse, const u_char *name, size_t nlen, const u_char *value,
    size_t len)
{
    if (nlen == 5 && memcmp(name, "event", 5) == 0) {
        sse_copy(&sse->event_buffer, value, len);

    } else if (nlen == 4 && memcmp(name, "data", 4) == 0) {

        if (len) {
            memcpy(sse->data_buffer.data + sse->data_buffer.len, value, len);
        }

        sse->data_buffer.len += len;
        sse->data_buffer.data[sse->data_buffer.len++] = '\n';

    } else if (nlen == 2 && memcmp(name, "id", 2) == 0) {

        if (len == 0 || memchr(value, '\0', len) == NULL) {
            sse_copy(&sse->id_buffer, value, len);
        }

    } else {
        sse->strange++;
    }
}


static void
sse_line(sse_t *sse, const u_char *p, size_t len)
{
    size_t  n;

    if (len == 0) {
        sse_dispatch(sse);
        return;
    }

    if (p[0] == ':') {
        sse->strange++;
        return;
    }

    for (n = 0; n < len && p[n] != ':'; n++) { /* void */ }

    if (n == len) {
        sse_field(sse, p, len, p, 0);

    } else if (n + 1 < len && p[n + 1] == ' ') {
        sse_field(sse, p, n, p + n + 2, len - n - 2);

    } else {
        sse_field(sse, p, n, p + n + 1, len - n - 1);
    }
}


/* to be freed with sse_free() */

static void
sse_parse(sse_t *sse, const u_char *p, size_t len)
{
    size_t      at, start;
    ngx_str_t  *part[6];
    ngx_uint_t  i;

    memset(sse, 0, sizeof(sse_t));

    sse->size = len + 16;
    sse->buf = malloc(6 * sse->size);

    if (sse->buf == NULL) {
        abort();
    }

    part[0] = &sse->data;
    part[1] = &sse->event;
    part[2] = &sse->id;
    part[3] = &sse->data_buffer;
    part[4] = &sse->event_buffer;
    part[5] = &sse->id_buffer;

    for (i = 0; i < 6; i++) {
        part[i]->data = sse->buf + i * sse->size;
    }

    at = (len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) ? 3 : 0;

    for (start = at; at < len; at++) {

        if (p[at] != '\r' && p[at] != '\n') {
            continue;
        }

        sse_line(sse, p + start, at - start);

        if (p[at] == '\r' && at + 1 < len && p[at + 1] == '\n') {
            at++;
        }

        start = at + 1;
    }

    /* a line without an end is not taken, nor an event without one */

    if (start < len || sse->data_buffer.len) {
        sse->strange++;
    }
}


static void
sse_free(sse_t *sse)
{
    free(sse->buf);
}


/* the line ends of a text as they arrive: CR and CRLF become LF */

static size_t
sse_normal(u_char *to, const u_char *p, size_t len)
{
    size_t  i, n;

    n = 0;

    for (i = 0; i < len; i++) {

        if (p[i] == '\n' && i && p[i - 1] == '\r') {
            continue;
        }

        to[n++] = (p[i] == '\r') ? '\n' : p[i];
    }

    return n;
}
