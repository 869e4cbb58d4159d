
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The codec: replies out of bytes.  hiredis builds them; a tokenizer before
 * it follows the framing, which is little: a line, or the string that the
 * line has announced.
 *
 *     *3\r\n  $7\r\n message\r\n  $1\r\n a\r\n  $5\r\n hello\r\n
 *     line    line   string      line   string line   string
 *
 * It refuses what hiredis would take on trust (an array of two thousand
 * million elements is allocated at once, arrays in arrays are freed by
 * recursion) or, in 1.x, understand though nobody
 * asked for it (RESP3), and replaces a string that is too large by nil, so
 * that a message over message_max is passed over and not held.  Of streams'
 * replies it does the same with arrays, and with what is over the budget.
 *
 * A message of pub/sub that lies whole in the bytes needs neither: its strings
 * are told where they are (ngx_rt_resp_push).  What is not plainly one takes
 * the way of all replies, so both know the same language.
 */


#include <ngx_rt_source.h>
#include <hiredis/hiredis.h>


#define NGX_RT_RESP_ARRAY         64        /* elements */
#define NGX_RT_RESP_SLACK         65536
#define NGX_RT_RESP_ELEMENT       64        /* bytes of one in memory, beside
                                               its string */
#define NGX_RT_RESP_SHORT         256       /* bytes of what is short in one
                                               element of a cut reply */
#define NGX_RT_RESP_DIGITS        9         /* of a length that is looked at
                                               where it is */

/* how messages begin */
static const u_char  ngx_rt_resp_message[] = "*3" CRLF "$7" CRLF "message"
                                             CRLF;
static const u_char  ngx_rt_resp_pmessage[] = "*4" CRLF "$8" CRLF "pmessage"
                                              CRLF;

static const u_char  ngx_rt_resp_nil[] = "$-1" CRLF;
static const u_char  ngx_rt_resp_large[] = "-" NGX_RT_RESP_LARGE CRLF;
static const u_char  ngx_rt_resp_cut[] = "+" CRLF;

/* states */
#define NGX_RT_RESP_TYPE          0         /* a line begins */
#define NGX_RT_RESP_TEXT          1         /* in a line that is passed on */
#define NGX_RT_RESP_LENGTH        2         /* in a line with a length, which
                                               is held until it is whole */
#define NGX_RT_RESP_STRING        3         /* in a string that is passed on */
#define NGX_RT_RESP_SKIP          4         /* in one that is passed over */


static ngx_int_t ngx_rt_resp_text(ngx_rt_resp_t *resp, u_char **data,
    u_char *last, ngx_str_t *text);
static ngx_int_t ngx_rt_resp_type(ngx_rt_resp_t *resp, u_char ch);
static ngx_int_t ngx_rt_resp_line(ngx_rt_resp_t *resp);
static ngx_int_t ngx_rt_resp_array(ngx_rt_resp_t *resp, int64_t n);
static ngx_int_t ngx_rt_resp_string(ngx_rt_resp_t *resp, int64_t n);
static ngx_uint_t ngx_rt_resp_over(ngx_rt_resp_t *resp, int64_t cost);
static void ngx_rt_resp_item(ngx_rt_resp_t *resp);
static ngx_int_t ngx_rt_resp_number(const u_char *p, const u_char *last,
    int64_t *n);
static ngx_int_t ngx_rt_resp_pass(ngx_rt_resp_t *resp, const u_char *data,
    size_t len);
static ngx_int_t ngx_rt_resp_fail(ngx_rt_resp_t *resp, const char *error);


ngx_int_t
ngx_rt_resp_init(ngx_rt_resp_t *resp, size_t bulk_max)
{
    ngx_memzero(resp, sizeof(ngx_rt_resp_t));

    resp->reader = redisReaderCreate();
    if (resp->reader == NULL) {
        return NGX_ERROR;
    }

    resp->bulk_max = bulk_max;
    resp->array_max = NGX_RT_RESP_ARRAY;
    resp->budget = 0;

    /* a pattern, a channel, a payload */
    resp->reply_max = 3 * bulk_max + NGX_RT_RESP_SLACK;

    return NGX_OK;
}


void
ngx_rt_resp_bound(ngx_rt_resp_t *resp, ngx_uint_t array_max, size_t budget)
{
    resp->array_max = array_max;
    resp->budget = budget;
    resp->reply_max = budget + array_max * NGX_RT_RESP_SHORT
                      + NGX_RT_RESP_SLACK;
}


void
ngx_rt_resp_done(ngx_rt_resp_t *resp)
{
    if (resp->reader) {
        redisReaderFree(resp->reader);
        resp->reader = NULL;
    }
}


ngx_int_t
ngx_rt_resp_feed(ngx_rt_resp_t *resp, const u_char *data, size_t len)
{
    const u_char  *last;

    last = data + len;

    while (data < last) {
        if (ngx_rt_resp_take(resp, &data, last) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * What is passed on as it is goes to the reader in one piece: [start, p).
 * A line with a length is kept in resp->line, for it may come in parts.
 * Within an array that is passed over start follows p.
 */

ngx_int_t
ngx_rt_resp_take(ngx_rt_resp_t *resp, const u_char **data, const u_char *last)
{
    size_t         n;
    ngx_uint_t     over, whole;
    const u_char  *p, *start;

    if (resp->error) {
        return NGX_ERROR;
    }

    p = *data;
    start = p;
    whole = 0;

    while (p < last && !whole) {

        over = resp->over;

        switch (resp->state) {

        case NGX_RT_RESP_TYPE:

            if (ngx_rt_resp_type(resp, *p) != NGX_OK) {
                (void) ngx_rt_resp_pass(resp, start, p - start);
                return NGX_ERROR;
            }

            if (resp->state == NGX_RT_RESP_LENGTH
                && ngx_rt_resp_pass(resp, start, p - start) != NGX_OK)
            {
                return NGX_ERROR;
            }

            p++;
            break;

        case NGX_RT_RESP_TEXT:

            if (*p == LF && resp->last == CR) {
                ngx_rt_resp_item(resp);
            }

            resp->last = *p++;
            break;

        case NGX_RT_RESP_LENGTH:

            if (resp->len == NGX_RT_RESP_LINE) {
                return ngx_rt_resp_fail(resp, "too long a length");
            }

            resp->line[resp->len++] = *p++;

            if (p[-1] == LF && ngx_rt_resp_line(resp) != NGX_OK) {
                return NGX_ERROR;
            }

            start = p;
            break;

        default: /* STRING, SKIP */

            n = ngx_min(resp->rest, (size_t) (last - p));
            p += n;
            resp->rest -= n;

            if (resp->state == NGX_RT_RESP_SKIP) {
                start = p;
            }

            if (resp->rest == 0) {
                ngx_rt_resp_item(resp);
            }

            break;
        }

        if (over) {
            start = p;
        }

        whole = (resp->depth == 0 && resp->state == NGX_RT_RESP_TYPE);
    }

    *data = p;

    /* a line with a length stays in resp->line */

    if (resp->state == NGX_RT_RESP_LENGTH) {
        return NGX_OK;
    }

    return ngx_rt_resp_pass(resp, start, p - start);
}


ngx_int_t
ngx_rt_resp_push(ngx_rt_resp_t *resp, u_char **data, u_char *last,
    ngx_rt_push_t *push)
{
    size_t         len, n;
    u_char        *p;
    ngx_int_t      rc;
    const u_char  *begin;

    p = *data;
    n = last - p;

    if (resp->depth || resp->state != NGX_RT_RESP_TYPE || resp->unfinished
        || resp->error || n == 0)
    {
        return NGX_DECLINED;
    }

    push->matched = (n > 1 && p[1] == '4');

    if (push->matched) {
        begin = ngx_rt_resp_pmessage;
        len = sizeof(ngx_rt_resp_pmessage) - 1;

    } else {
        begin = ngx_rt_resp_message;
        len = sizeof(ngx_rt_resp_message) - 1;
    }

    if (n < len) {
        return (ngx_memcmp(p, begin, n) == 0) ? NGX_AGAIN : NGX_DECLINED;
    }

    if (ngx_memcmp(p, begin, len) != 0) {
        return NGX_DECLINED;
    }

    p += len;

    if (push->matched) {
        rc = ngx_rt_resp_text(resp, &p, last, &push->pattern);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    rc = ngx_rt_resp_text(resp, &p, last, &push->channel);

    if (rc == NGX_OK) {
        rc = ngx_rt_resp_text(resp, &p, last, &push->data);
    }

    if (rc == NGX_OK) {
        *data = p;
    }

    return rc;
}


/* a string that is not too large, whole: $5 CRLF hello CRLF */

static ngx_int_t
ngx_rt_resp_text(ngx_rt_resp_t *resp, u_char **data, u_char *last,
    ngx_str_t *text)
{
    size_t   n;
    u_char  *p, *start;

    p = *data;

    if (p == last) {
        return NGX_AGAIN;
    }

    if (*p++ != '$') {
        return NGX_DECLINED;
    }

    n = 0;
    start = p;

    while (p < last && *p >= '0' && *p <= '9') {
        n = n * 10 + (*p++ - '0');

        if (p - start > NGX_RT_RESP_DIGITS) {
            return NGX_DECLINED;
        }
    }

    if (n > resp->bulk_max || (p > start + 1 && *start == '0')) {
        return NGX_DECLINED;
    }

    if (last - p < 2) {
        return (p == last || *p == CR) ? NGX_AGAIN : NGX_DECLINED;
    }

    if (p == start || p[0] != CR || p[1] != LF) {
        return NGX_DECLINED;
    }

    p += 2;

    if ((size_t) (last - p) < n + 2) {
        return NGX_AGAIN;
    }

    text->data = p;
    text->len = n;

    p += n;

    if (p[0] != CR || p[1] != LF) {
        return NGX_DECLINED;
    }

    *data = p + 2;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_resp_type(ngx_rt_resp_t *resp, u_char ch)
{
    switch (ch) {

    case '+':
    case '-':
    case ':':
        resp->state = NGX_RT_RESP_TEXT;
        resp->last = ch;
        return NGX_OK;

    case '$':
    case '*':
        resp->state = NGX_RT_RESP_LENGTH;
        resp->line[0] = ch;
        resp->len = 1;
        return NGX_OK;

    default:
        return ngx_rt_resp_fail(resp, "not a reply of Redis");
    }
}


static ngx_int_t
ngx_rt_resp_line(ngx_rt_resp_t *resp)
{
    int64_t   n;
    u_char   *line, *last;

    line = resp->line;
    last = line + resp->len - 2;

    resp->state = NGX_RT_RESP_TYPE;

    if (resp->len < 4
        || *last != CR
        || ngx_rt_resp_number(line + 1, last, &n) != NGX_OK)
    {
        return ngx_rt_resp_fail(resp, "bad length");
    }

    return (line[0] == '*') ? ngx_rt_resp_array(resp, n)
                            : ngx_rt_resp_string(resp, n);
}


static ngx_int_t
ngx_rt_resp_array(ngx_rt_resp_t *resp, int64_t n)
{
    size_t         len;
    ngx_uint_t     nested;
    const u_char  *text;

    text = resp->line;
    len = resp->len;
    nested = (resp->budget && resp->depth);

    if (n > (int64_t) (nested ? NGX_MAX_INT32_VALUE : resp->array_max)) {
        return ngx_rt_resp_fail(resp, "too many elements");
    }

    if (n > 0 && resp->depth == NGX_RT_RESP_DEPTH) {
        return ngx_rt_resp_fail(resp, "too deep a reply");
    }

    if (resp->over) {
        len = 0;

    } else if (nested && n > (int64_t) resp->array_max) {
        text = ngx_rt_resp_nil;
        len = sizeof(ngx_rt_resp_nil) - 1;
        resp->over = resp->depth + 1;

    } else if (resp->budget && resp->depth > 1 && n > 2
               && ngx_rt_resp_over(resp, n * NGX_RT_RESP_ELEMENT))
    {
        text = ngx_rt_resp_cut;
        len = sizeof(ngx_rt_resp_cut) - 1;
        resp->over = resp->depth + 1;
    }

    if (n > 0) {
        resp->left[resp->depth++] = (uint32_t) n;

    } else {
        ngx_rt_resp_item(resp);
    }

    return ngx_rt_resp_pass(resp, text, len);
}


static ngx_int_t
ngx_rt_resp_string(ngx_rt_resp_t *resp, int64_t n)
{
    size_t         len;
    const u_char  *text;

    text = resp->line;
    len = resp->len;

    if (n < 0) {
        len = resp->over ? 0 : len;
        ngx_rt_resp_item(resp);

        return ngx_rt_resp_pass(resp, text, len);
    }

    resp->state = NGX_RT_RESP_SKIP;
    resp->rest = (size_t) n + 2;

    if (resp->over) {
        len = 0;

    } else if (n > (int64_t) resp->bulk_max && resp->depth == 0) {
        text = ngx_rt_resp_large;
        len = sizeof(ngx_rt_resp_large) - 1;

    } else if (n > (int64_t) resp->bulk_max) {
        text = ngx_rt_resp_nil;
        len = sizeof(ngx_rt_resp_nil) - 1;

    } else if (resp->budget && resp->depth && n > NGX_RT_SID_LEN
               && ngx_rt_resp_over(resp, n))
    {
        text = ngx_rt_resp_cut;
        len = sizeof(ngx_rt_resp_cut) - 1;

    } else {
        resp->state = NGX_RT_RESP_STRING;
    }

    return ngx_rt_resp_pass(resp, text, len);
}


/* 1: it is over the budget, and so is all that follows */

static ngx_uint_t
ngx_rt_resp_over(ngx_rt_resp_t *resp, int64_t cost)
{
    if (cost > (int64_t) (resp->budget - resp->spent)) {
        resp->spent = resp->budget;
        return 1;
    }

    resp->spent += (size_t) cost;

    return 0;
}


/* an element is whole, and so is each array of which it was the last one */

static void
ngx_rt_resp_item(ngx_rt_resp_t *resp)
{
    resp->state = NGX_RT_RESP_TYPE;

    while (resp->depth && --resp->left[resp->depth - 1] == 0) {
        resp->depth--;
    }

    if (resp->over > resp->depth) {
        resp->over = 0;
    }

    if (resp->depth == 0) {
        resp->spent = 0;
    }
}


/* -1, or a number without leading zeros, as hiredis takes it */

static ngx_int_t
ngx_rt_resp_number(const u_char *p, const u_char *last, int64_t *n)
{
    if (last - p == 2 && p[0] == '-' && p[1] == '1') {
        *n = -1;
        return NGX_OK;
    }

    if (last - p > 1 && *p == '0') {
        return NGX_ERROR;
    }

    *n = ngx_atoi((u_char *) p, last - p);

    return (*n == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_rt_resp_pass(ngx_rt_resp_t *resp, const u_char *data, size_t len)
{
    if (len == 0) {
        return NGX_OK;
    }

    resp->unfinished += len;

    if (redisReaderFeed(resp->reader, (const char *) data, len) != REDIS_OK) {
        return ngx_rt_resp_fail(resp, "no memory for a reply");
    }

    return NGX_OK;
}


ngx_int_t
ngx_rt_resp_next(ngx_rt_resp_t *resp, redisReply **reply)
{
    void         *p;
    redisReader  *reader;

    reader = resp->reader;

    if (redisReaderGetReply(reader, &p) != REDIS_OK) {
        return ngx_rt_resp_fail(resp, reader->errstr);
    }

    if (p) {
        resp->unfinished = reader->len - reader->pos;
        *reply = p;
        return NGX_OK;
    }

    /* what came whole before the error has been taken by now */

    if (resp->error) {
        return NGX_ERROR;
    }

    if (resp->unfinished > resp->reply_max) {
        return ngx_rt_resp_fail(resp, "too large a reply");
    }

    return NGX_AGAIN;
}


void
ngx_rt_resp_free(redisReply *reply)
{
    freeReplyObject(reply);
}


static ngx_int_t
ngx_rt_resp_fail(ngx_rt_resp_t *resp, const char *error)
{
    resp->error = error;

    return NGX_ERROR;
}
