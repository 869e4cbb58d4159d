
/*
 * Copyright (C) 2026 ngx_rt contributors
 */


#include "../../ngx_rt_module/ngx_rt_resp.c"
#include "unit.h"


#define BULK_MAX  100


static size_t  budget;      /* 0: none; arrays of 8 then */


/* a reply as text: (a b) "s" :1 +OK -ERR nil */

static void
show(redisReply *r, char *buf, size_t size)
{
    size_t  i, n;

    n = strlen(buf);

    switch (r->type) {

    case REDIS_REPLY_ARRAY:
        snprintf(buf + n, size - n, "(");

        for (i = 0; i < r->elements; i++) {
            show(r->element[i], buf, size);
        }

        n = strlen(buf);
        snprintf(buf + n, size - n, ")");
        break;

    case REDIS_REPLY_INTEGER:
        snprintf(buf + n, size - n, ":%lld", r->integer);
        break;

    case REDIS_REPLY_NIL:
        snprintf(buf + n, size - n, "nil");
        break;

    case REDIS_REPLY_STRING:
        snprintf(buf + n, size - n, "\"%s\"", r->str);
        break;

    case REDIS_REPLY_STATUS:
        snprintf(buf + n, size - n, "+%s", r->str);
        break;

    default:
        snprintf(buf + n, size - n, "-%s", r->str);
        break;
    }
}


/* all replies, then "!" and the error, if there is one */

static void
parse(const char *text, size_t len, size_t step, char *buf, size_t size)
{
    size_t          n;
    ngx_int_t       rc;
    redisReply     *reply;
    ngx_rt_resp_t   resp;

    buf[0] = '\0';

    if (ngx_rt_resp_init(&resp, BULK_MAX) != NGX_OK) {
        return;
    }

    if (budget) {
        ngx_rt_resp_bound(&resp, 8, budget);
    }

    rc = NGX_AGAIN;

    while (len && rc != NGX_ERROR) {
        n = ngx_min(step, len);

        (void) ngx_rt_resp_feed(&resp, (u_char *) text, n);

        while ((rc = ngx_rt_resp_next(&resp, &reply)) == NGX_OK) {
            show(reply, buf, size);
            ngx_rt_resp_free(reply);
        }

        text += n;
        len -= n;
    }

    if (rc == NGX_ERROR) {
        n = strlen(buf);
        snprintf(buf + n, size - n, "!%s", resp.error);
    }

    ngx_rt_resp_done(&resp);
}


/*
 * The same as who waits for messages reads it: pieces into a buffer of room
 * bytes, a message where it lies, all else through the codec.
 */

static void
scan(const char *text, size_t len, size_t step, size_t room, char *buf,
    size_t size)
{
    u_char         *in, *p, *last;
    size_t          n, held;
    ngx_int_t       rc;
    redisReply     *reply;
    ngx_rt_push_t   push;
    ngx_rt_resp_t   resp;
    const u_char   *from;

    buf[0] = '\0';
    in = malloc(room);

    if (in == NULL || ngx_rt_resp_init(&resp, BULK_MAX) != NGX_OK) {
        free(in);
        return;
    }

    if (budget) {
        ngx_rt_resp_bound(&resp, 8, budget);
    }

    rc = NGX_AGAIN;
    held = 0;

    while (len && rc != NGX_ERROR) {
        n = ngx_min(ngx_min(step, len), room - held);
        ngx_memcpy(in + held, text, n);
        text += n;
        len -= n;

        p = in;
        last = in + held + n;

        while (p < last && rc != NGX_ERROR) {

            rc = ngx_rt_resp_push(&resp, &p, last, &push);

            if (rc == NGX_OK) {
                n = strlen(buf);

                if (push.matched) {
                    snprintf(buf + n, size - n,
                             "(\"pmessage\"\"%.*s\"\"%.*s\"\"%.*s\")",
                             (int) push.pattern.len, push.pattern.data,
                             (int) push.channel.len, push.channel.data,
                             (int) push.data.len, push.data.data);
                } else {
                    snprintf(buf + n, size - n,
                             "(\"message\"\"%.*s\"\"%.*s\")",
                             (int) push.channel.len, push.channel.data,
                             (int) push.data.len, push.data.data);
                }

                continue;
            }

            if (rc == NGX_AGAIN && (size_t) (last - p) < room) {
                break;
            }

            from = p;
            (void) ngx_rt_resp_take(&resp, &from, last);
            p = (u_char *) from;

            while ((rc = ngx_rt_resp_next(&resp, &reply)) == NGX_OK) {
                show(reply, buf, size);
                ngx_rt_resp_free(reply);
            }
        }

        held = last - p;
        ngx_memmove(in, p, held);
    }

    if (rc == NGX_ERROR) {
        n = strlen(buf);
        snprintf(buf + n, size - n, "!%s", resp.error);
    }

    ngx_rt_resp_done(&resp);
    free(in);
}


/* the same in whatever pieces it comes, and in whatever buffer */

static void
test(const char *text, size_t len, const char *expected)
{
    char    buf[1024];
    size_t  step, bad, room;

    parse(text, len, len, buf, sizeof(buf));
    is_mem(buf, strlen(buf), expected, strlen(expected), "%.*s",
           (int) strcspn(text, "\r\n"), text);

    bad = 0;

    for (step = 1; step < len; step++) {
        parse(text, len, step, buf, sizeof(buf));

        if (strcmp(buf, expected) != 0) {
            unit_diag("in pieces of %d: %s", (int) step, buf);
            bad++;
        }
    }

    is_int(bad, 0, "in pieces");

    bad = 0;

    for (room = 1; room < len + 20; room = room * 5 / 4 + 1) {
        for (step = 1; step <= len; step++) {
            scan(text, len, step, room, buf, sizeof(buf));

            if (strcmp(buf, expected) != 0) {
                unit_diag("in pieces of %d, by %d: %s", (int) step,
                          (int) room, buf);
                bad++;
            }
        }
    }

    is_int(bad, 0, "read as messages");
}


#define TEST(text, expected)  test(text, sizeof(text) - 1, expected)


#define MESSAGE(c, n, d)                                                      \
    "*3\r\n$7\r\nmessage\r\n$1\r\n" c "\r\n$" n "\r\n" d "\r\n"
#define PMESSAGE(p, c, n, d)                                                  \
    "*4\r\n$8\r\npmessage\r\n$1\r\n" p "\r\n$1\r\n" c "\r\n$" n "\r\n" d    \
    "\r\n"


static void
test_messages(void)
{
    TEST(MESSAGE("a", "5", "hello"), "(\"message\"\"a\"\"hello\")");
    TEST(PMESSAGE("*", "a", "5", "hello"),
         "(\"pmessage\"\"*\"\"a\"\"hello\")");

    /* an empty one; one that looks like others; others before and after */

    TEST(MESSAGE("a", "0", "") MESSAGE("b", "5", "\r\n*3\r")
         ":1\r\n" PMESSAGE("p", "c", "2", "$1")
         "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
         MESSAGE("c", "1", "x") "+PONG\r\n",
         "(\"message\"\"a\"\"\")(\"message\"\"b\"\"\r\n*3\r\"):1"
         "(\"pmessage\"\"p\"\"c\"\"$1\")(\"subscribe\"\"a\":1)"
         "(\"message\"\"c\"\"x\")+PONG");

    /* what begins like one and is none, or not one of this form */

    TEST("*3\r\n$7\r\nmessagE\r\n$1\r\na\r\n$1\r\nb\r\n",
         "(\"messagE\"\"a\"\"b\")");
    TEST("*4\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
         "(\"message\"\"a\"\"b\"\"c\")");
    TEST("*3\r\n$8\r\npmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
         "(\"pmessage\"\"a\"\"b\")");
    TEST("*3\r\n$7\r\nmessage\r\n:1\r\n$1\r\nb\r\n" MESSAGE("a", "1", "x"),
         "(\"message\":1\"b\")(\"message\"\"a\"\"x\")");
    TEST("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$-1\r\n:2\r\n",
         "(\"message\"\"a\"nil):2");
    TEST("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n*2\r\n:1\r\n*1\r\n+x\r\n:2\r\n",
         "(\"message\"\"a\"(:1(+x))):2");
    TEST("*1\r\n" MESSAGE("a", "1", "x") MESSAGE("a", "1", "y"),
         "((\"message\"\"a\"\"x\"))(\"message\"\"a\"\"y\")");

    TEST("*3\r\n$7\r\nmessage\r\n$01\r\n", "!bad length");
    TEST("*3\r\n$7\r\nmessage\r\n$\r\n", "!bad length");
    TEST("*3\r\n$7\r\nmessage\r\n$1\n", "!bad length");
    TEST("*3\r\n$7\r\nmessage\r\n$1x\r\n", "!bad length");
    TEST("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$99999999999999999999\r\n",
         "!bad length");
    TEST("*3\r\n$7\r\nmessage\r\nx", "!not a reply of Redis");
    TEST(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
         "!not a reply of Redis");
    TEST(MESSAGE("a", "1", "x") "=1\r\n", "(\"message\"\"a\"\"x\")"
         "!not a reply of Redis");
}


/* what is told of bytes that are not whole, and what is taken then */

static void
test_push(void)
{
    u_char         *p, *last, copy[100];
    size_t          n, bad, len;
    ngx_int_t       rc;
    ngx_rt_push_t   push;
    ngx_rt_resp_t   resp;

    static u_char  text[] = PMESSAGE("p", "c", "12", "a longer one");

    if (ngx_rt_resp_init(&resp, BULK_MAX) != NGX_OK) {
        return;
    }

    len = sizeof(text) - 1;

    for (n = 1, bad = 0; n < len; n++) {
        p = text;
        rc = ngx_rt_resp_push(&resp, &p, text + n, &push);

        bad += (rc != NGX_AGAIN || p != text);
    }

    is_int(bad, 0, "not whole yet");

    p = text;
    last = text + len;

    is_int(ngx_rt_resp_push(&resp, &p, last, &push), NGX_OK, "whole");
    ok(p == last, "... to its end");
    ok(push.data.data == last - 14 && push.data.len == 12
       && push.matched == 1, "... told where it is");

    /* another byte anywhere but in a string: not taken, or as another length */

    for (n = 0, bad = 0; n < len; n++) {
        ngx_memcpy(copy, text, len);
        copy[n] ^= 0x40;
        p = copy;
        rc = ngx_rt_resp_push(&resp, &p, copy + len, &push);

        bad += (rc == NGX_OK && copy[n] < 0x80 && text[n] < 'a'
                && text[n] != ' ');
        bad += (rc != NGX_OK && p != copy);
    }

    is_int(bad, 0, "nothing but a message is taken");

    /* within a reply a message is none */

    p = text;
    (void) ngx_rt_resp_feed(&resp, (u_char *) "*2\r\n", 4);
    is_int(ngx_rt_resp_push(&resp, &p, last, &push), NGX_DECLINED,
           "within a reply");

    /* nor after an error */

    (void) ngx_rt_resp_feed(&resp, (u_char *) "x", 1);
    is_int(ngx_rt_resp_push(&resp, &p, last, &push), NGX_DECLINED,
           "after an error");

    ngx_rt_resp_done(&resp);
}


static void
test_large(void)
{
    char            text[600], buf[1024];
    size_t          len, i, most;
    redisReply     *reply;
    redisReader    *reader;
    ngx_rt_resp_t   resp;

    /* too large by one: passed over, and what follows is there */

    len = sprintf(text, "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$101\r\n");
    ngx_memset(text + len, 'x', 101);
    len += 101;
    len += sprintf(text + len, "\r\n:7\r\n");
    test(text, len, "(\"message\"\"a\"nil):7");

    /* what is passed over may look like anything */

    len = sprintf(text, "$200\r\n");

    for (i = 0; i < 50; i++) {
        ngx_memcpy(text + len, "*9\r\n", 4);
        len += 4;
    }

    len += sprintf(text + len, "\r\n+OK\r\n");
    test(text, len, "-" NGX_RT_RESP_LARGE "+OK");

    /* 500 MB go by, and hardly a byte of it is held */

    if (ngx_rt_resp_init(&resp, BULK_MAX) != NGX_OK) {
        return;
    }

    (void) ngx_rt_resp_feed(&resp, (u_char *) "$524288000\r\n", 12);

    ngx_memset(text, 'x', 500);
    most = 0;
    reader = resp.reader;

    for (i = 0; i < 524288000 / 500; i++) {
        (void) ngx_rt_resp_feed(&resp, (u_char *) text, 500);
        most = ngx_max(most, reader->len);
    }

    (void) ngx_rt_resp_feed(&resp, (u_char *) "\r\n:1\r\n", 6);

    buf[0] = '\0';

    while (ngx_rt_resp_next(&resp, &reply) == NGX_OK) {
        show(reply, buf, sizeof(buf));
        ngx_rt_resp_free(reply);
    }

    is_mem(buf, strlen(buf), "-" NGX_RT_RESP_LARGE ":1",
           sizeof("-" NGX_RT_RESP_LARGE ":1") - 1, "500 MB");
    ok(most < 100, "held: %d", (int) most);

    ngx_rt_resp_done(&resp);
}


#define ID  "$3\r\n1-1\r\n"
#define D10 "0123456789"
#define S50 "$50\r\n" D10 D10 D10 D10 D10 "\r\n"


static void
test_bounded(void)
{
    /* arrays within a reply: too many elements are as one that is nil */

    budget = 1000;

    TEST("*2\r\n*9\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n:7\r\n:8\r\n"
         ":9\r\n:10\r\n:11\r\n", "(nil:10):11");
    TEST("*2\r\n*8\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n:7\r\n:8\r\n"
         ":9\r\n:10\r\n", "((:1:2:3:4:5:6:7:8):9):10");
    TEST("*2\r\n:1\r\n*9\r\n+a\r\n-b\r\n$1\r\nc\r\n$-1\r\n*-1\r\n*0\r\n"
         "*2\r\n:1\r\n*1\r\n$0\r\n\r\n" "$3\r\n\r\n*\r\n:9\r\n+OK\r\n",
         "(:1nil)+OK");
    TEST("*9\r\n", "!too many elements");
    TEST("*1\r\n*2147483648\r\n", "!too many elements");
    TEST("*1\r\n*9\r\nx", "(nil)!not a reply of Redis");
    TEST("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*9\r\n*1\r\n*1\r\n",
         "(((((nil)))))!too deep a reply");

    /* over the budget: what is long is cut, what is short comes */

    budget = 120;

    TEST("*5\r\n" S50 S50 S50 ID S50,
         "(\"" D10 D10 D10 D10 D10 "\"\"" D10 D10 D10 D10 D10 "\"+"
         "\"1-1\"+)");

    /* each reply has a budget of its own, and a string alone needs none */

    TEST("*2\r\n" S50 S50 "*2\r\n" S50 S50 "*1\r\n" S50 S50 S50 S50,
         "(\"" D10 D10 D10 D10 D10 "\"\"" D10 D10 D10 D10 D10 "\")"
         "(\"" D10 D10 D10 D10 D10 "\"\"" D10 D10 D10 D10 D10 "\")"
         "(\"" D10 D10 D10 D10 D10 "\")"
         "\"" D10 D10 D10 D10 D10 "\"\"" D10 D10 D10 D10 D10 "\""
         "\"" D10 D10 D10 D10 D10 "\"");

    /* what is too large is so in a cut reply too */

    TEST("*5\r\n" S50 S50 S50 "$101\r\n" D10 D10 D10 D10 D10 D10 D10 D10
         D10 D10 "x\r\n$41\r\n" D10 D10 D10 D10 "x\r\n",
         "(\"" D10 D10 D10 D10 D10 "\"\"" D10 D10 D10 D10 D10 "\"+nil"
         "\"" D10 D10 D10 D10 "x\")");

    /* an element costs as well: 4 of them more than are left.  Pairs come, and
     * so does what is directly in the reply */

    budget = 250;

    TEST("*2\r\n*2\r\n" ID "*4\r\n:1\r\n:2\r\n*1\r\n:3\r\n:4\r\n"
         "*2\r\n" ID "*2\r\n:5\r\n$42\r\n" D10 D10 D10 D10 "xy\r\n:7\r\n",
         "((\"1-1\"+)(\"1-1\"(:5+))):7");

    TEST("*2\r\n*1\r\n*2\r\n" ID "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n"
         "*4\r\n" ID ":5\r\n*2\r\n" ID "*3\r\n:6\r\n:7\r\n:8\r\n:9\r\n+OK\r\n",
         "(((\"1-1\"+))(\"1-1\":5(\"1-1\"+):9))+OK");

    budget = 256;

    TEST("*2\r\n*2\r\n" ID "*4\r\n:1\r\n:2\r\n*1\r\n:3\r\n:4\r\n"
         "*2\r\n" ID "*3\r\n:5\r\n:6\r\n:7\r\n:8\r\n",
         "((\"1-1\"(:1:2(:3):4))(\"1-1\"+)):8");

    /* one that just fits, and one that does not */

    budget = 100;
    TEST("*2\r\n" S50 S50, "(\"" D10 D10 D10 D10 D10 "\"\""
                             D10 D10 D10 D10 D10 "\")");
    budget = 99;
    TEST("*2\r\n" S50 S50, "(\"" D10 D10 D10 D10 D10 "\"+)");

    budget = 0;
}


static void
test_held(void)
{
    char            text[600], buf[100];
    size_t          len, i, most;
    redisReply     *reply;
    redisReader    *reader;
    ngx_rt_resp_t   resp;

    /* an entry of a million fields, then as many bytes as none may have */

    if (ngx_rt_resp_init(&resp, BULK_MAX) != NGX_OK) {
        return;
    }

    ngx_rt_resp_bound(&resp, 8, 1000);

    len = sprintf(text, "*2\r\n*2\r\n" ID "*2000000\r\n");
    (void) ngx_rt_resp_feed(&resp, (u_char *) text, len);

    most = 0;
    reader = resp.reader;

    for (i = 0; i < 1000000; i++) {
        len = sprintf(text, "$4\r\nname\r\n*2\r\n:1\r\n$5\r\nvalue\r\n");
        (void) ngx_rt_resp_feed(&resp, (u_char *) text, len);
        most = ngx_max(most, reader->len);

        if (ngx_rt_resp_next(&resp, &reply) != NGX_AGAIN) {
            break;
        }
    }

    (void) ngx_rt_resp_feed(&resp, (u_char *) ":1\r\n", 4);

    buf[0] = '\0';

    while (ngx_rt_resp_next(&resp, &reply) == NGX_OK) {
        show(reply, buf, sizeof(buf));
        ngx_rt_resp_free(reply);
    }

    is_mem(buf, strlen(buf), "((\"1-1\"nil):1)", 14, "a million fields");
    ok(most < 100, "held: %d", (int) most);

    ngx_rt_resp_done(&resp);
}


static void
test_endless(void)
{
    size_t          i;
    ngx_int_t       rc;
    redisReply     *reply;
    ngx_rt_resp_t   resp;

    /* a line without an end */

    if (ngx_rt_resp_init(&resp, BULK_MAX) != NGX_OK) {
        return;
    }

    rc = ngx_rt_resp_feed(&resp, (u_char *) "+", 1);

    for (i = 0; i < 10000000 && rc == NGX_OK; i += 10) {
        rc = ngx_rt_resp_feed(&resp, (u_char *) "0123456789", 10);

        if (ngx_rt_resp_next(&resp, &reply) == NGX_ERROR) {
            break;
        }
    }

    ok(resp.error && i < 70000, "an endless line: %s after %d",
       resp.error ? resp.error : "-", (int) i);

    ngx_rt_resp_done(&resp);

    /* arrays in arrays */

    if (ngx_rt_resp_init(&resp, BULK_MAX) != NGX_OK) {
        return;
    }

    for (i = 0; i < 1000000; i++) {
        if (ngx_rt_resp_feed(&resp, (u_char *) "*64\r\n", 5) != NGX_OK
            || ngx_rt_resp_next(&resp, &reply) == NGX_ERROR)
        {
            break;
        }
    }

    ok(resp.error && i < 10, "endless arrays: %s",
       resp.error ? resp.error : "-");

    ngx_rt_resp_done(&resp);
}


int
main(void)
{
    TEST("+OK\r\n", "+OK");
    TEST("-ERR no\r\n:1000\r\n", "-ERR no:1000");
    TEST("$5\r\nhello\r\n$0\r\n\r\n$-1\r\n", "\"hello\"\"\"nil");
    TEST("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
         "(\"subscribe\"\"a\":1)");
    TEST("*2\r\n*1\r\n+a\r\n*0\r\n*-1\r\n", "((+a)())nil");
    TEST("$4\r\n\r\n\r\n\r\n+ab\r\n", "\"\r\n\r\n\"+ab");

    TEST("HTTP/1.1 400 Bad Request\r\n", "!not a reply of Redis");
    TEST("+OK\r\ngarbage\r\n", "+OK!not a reply of Redis");
    TEST(":1\r\n%1\r\n", ":1!not a reply of Redis");
    TEST("\r\n", "!not a reply of Redis");
    TEST(":1x\r\n", "!Bad integer value");
    TEST("$x\r\n", "!bad length");
    TEST("$\r\n", "!bad length");
    TEST("$-2\r\n", "!bad length");
    TEST("$01\r\n", "!bad length");
    TEST("$1\n", "!bad length");
    TEST("*1\r\n*2\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n:2\r\n:3\r\n",
         "(((((((:1))))):2)):3");
    TEST("*1\r\n*2\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
         "!too deep a reply");
    TEST("*65\r\n", "!too many elements");
    TEST("*2000000000\r\n", "!too many elements");
    TEST("$99999999999999999999\r\n", "!bad length");
    TEST("*999999999999999999999999999999999999\r\n", "!too long a length");

    test_messages();
    test_push();
    test_large();
    test_bounded();
    test_held();
    test_endless();

    done_testing();
}
