
/*
 * Copyright (C) 2026 ngx_rt contributors
 */


#include "../../ngx_rt_module/ngx_rt_hash.c"
#include "../../ngx_rt_module/ngx_rt_sid.c"
#include "../../ngx_rt_module/ngx_rt_message.c"
#include "../../ngx_rt_module/ngx_rt_frame.c"
#include "../../ngx_rt_module/ngx_rt_entry.c"
#include "unit.h"


static ngx_rt_hub_conf_t     conf;
static ngx_rt_entries_t      ctx;
static ngx_rt_entry_t        entry;
static redisReply           *reply;
static ngx_rt_stream_info_t  info;


static redisReply *
parse(const char *text, size_t len)
{
    void         *p;
    redisReader  *reader;

    p = NULL;
    reader = redisReaderCreate();

    redisReaderFeed(reader, text, len);

    if (redisReaderGetReply(reader, &p) != REDIS_OK || p == NULL) {
        printf("Bail out! not a reply: %s\n", text);
        exit(1);
    }

    redisReaderFree(reader);

    return p;
}


static ngx_int_t
entry_read(const char *text, size_t len)
{
    if (reply) {
        freeReplyObject(reply);
    }

    reply = parse(text, len);

    return ngx_rt_entry_read(&ctx, &conf, reply, &entry);
}


static ngx_int_t
info_read(const char *text, size_t len)
{
    ngx_int_t    rc;
    redisReply  *r;

    ngx_memset(&info, 0x55, sizeof(info));

    r = parse(text, len);
    rc = ngx_rt_stream_info_read(r, &info);
    freeReplyObject(r);

    return rc;
}


#define READ(text)    entry_read(text, sizeof(text) - 1)
#define INFO(text)    info_read(text, sizeof(text) - 1)

#define ID            "*2\r\n$3\r\n5-7\r\n"
#define DATA(n)       "$4\r\ndata\r\n$" #n "\r\n"
#define EVENT(n)      "$5\r\nevent\r\n$" #n "\r\n"


static void
is_tag(const char *text, const char *name)
{
    ngx_str_t  str;
    u_char     buf[NGX_RT_SID_LEN];

    str.data = buf;
    str.len = ngx_rt_sid_format(buf, entry.tag) - buf;

    is_str(&str, text, "%s: the id", name);
}


static void
test_raw(void)
{
    is_int(READ(ID "*2\r\n" DATA(5) "a\0b\r\n\r\n"), NGX_OK, "data");
    is_mem(entry.msg.data.data, entry.msg.data.len, "a\0b\r\n", 5, "as it is");
    is_int(entry.msg.event.len, 0, "no event");
    is_tag("5-7", "data");

    is_int(READ(ID "*4\r\n" DATA(1) "x\r\n" EVENT(4) "tick\r\n"), NGX_OK,
           "data, event");
    is_str(&entry.msg.data, "x", "the data");
    is_str(&entry.msg.event, "tick", "the event");

    is_int(READ(ID "*6\r\n$1\r\nz\r\n$1\r\n1\r\n" EVENT(1) "e\r\n"
                DATA(0) "\r\n"),
           NGX_OK, "in any order, among others");
    is_str(&entry.msg.data, "", "the data is empty");
    is_str(&entry.msg.event, "e", "the event");

    is_int(READ(ID "*4\r\n" DATA(1) "x\r\n" DATA(1) "y\r\n"), NGX_OK, "twice");
    is_str(&entry.msg.data, "y", "the last one counts");

    is_int(READ(ID "*4\r\n" DATA(1) "x\r\n" EVENT(0) "\r\n"), NGX_OK,
           "an event of no bytes");
    is_int(entry.msg.event.len, 0, "is none");

    is_int(READ(ID "*4\r\n" DATA(1) "x\r\n" EVENT(6) "rt.gap\r\n"),
           NGX_DECLINED, "an event of ours");
    ok(strcmp(entry.why, "bad event name") == 0, "is refused");
    is_tag("5-7", "refused");

    is_int(READ(ID "*4\r\n" DATA(1) "x\r\n" EVENT(3) "a\nb\r\n"),
           NGX_DECLINED, "an event with a line end");
    is_int(READ(ID "*4\r\n" DATA(1) "x\r\n$5\r\nevent\r\n$-1\r\n"),
           NGX_DECLINED, "an event too large to be read");
}


static void
test_object(void)
{
    is_int(READ(ID "*4\r\n$4\r\nname\r\n$1\r\n\"\r\n$1\r\nn\r\n$2\r\n\xff\n"
                "\r\n"),
           NGX_OK, "no data: an object");
    is_str(&entry.msg.data, "{\"name\":\"\\\"\",\"n\":\"\xef\xbf\xbd\\n\"}",
           "of strings, in order");
    is_int(entry.msg.event.len, 0, "without an event");

    is_int(READ(ID "*2\r\n" EVENT(6) "rt.gap\r\n"), NGX_OK,
           "a field named event");
    is_str(&entry.msg.data, "{\"event\":\"rt.gap\"}", "is one as others");

    is_int(READ(ID "*2\r\n$0\r\n\r\n$0\r\n\r\n"), NGX_OK, "empty names");
    is_str(&entry.msg.data, "{\"\":\"\"}", "pass");

    is_int(READ(ID "*2\r\n$5\r\nDATA1\r\n$1\r\nx\r\n"), NGX_OK,
           "a name that looks alike");
    is_str(&entry.msg.data, "{\"DATA1\":\"x\"}", "is another");
}


static void
test_large(void)
{
    char    text[400];
    size_t  len;

    conf.message_max = 20;

    is_int(READ(ID "*2\r\n" DATA(20) "01234567890123456789\r\n"), NGX_OK,
           "data of message_max");
    is_int(READ(ID "*2\r\n" DATA(21) "012345678901234567890\r\n"), NGX_BUSY,
           "and a byte more");
    is_int(entry.msg.data.len, 21, "its length is for the store");
    is_tag("5-7", "too large");

    /* {"a":"012345678901"} */

    is_int(READ(ID "*2\r\n$1\r\na\r\n$12\r\n012345678901\r\n"), NGX_OK,
           "an object of message_max");
    is_int(entry.msg.data.len, 20, "is as long");
    is_int(READ(ID "*2\r\n$1\r\na\r\n$13\r\n0123456789012\r\n"), NGX_BUSY,
           "and a byte more");
    is_int(entry.msg.data.len, 21, "its length is for the store");

    is_int(READ(ID "*2\r\n$4\r\ndata\r\n$-1\r\n"), NGX_BUSY, "nil data");
    is_int(entry.msg.data.len, 21, "its length is for the store");
    is_int(READ(ID "*-1\r\n"), NGX_BUSY, "nil fields");
    is_int(entry.msg.data.len, 21, "its length is for the store");
    is_tag("5-7", "nil fields");
    is_int(READ(ID "*2\r\n$1\r\na\r\n$-1\r\n"), NGX_BUSY, "a nil value");
    is_int(READ(ID "*2\r\n$-1\r\n$1\r\na\r\n"), NGX_BUSY, "a nil name");

    is_int(READ(ID "*4\r\n" DATA(1) "x\r\n$-1\r\n$-1\r\n"), NGX_OK,
           "what else is nil");
    is_str(&entry.msg.data, "x", "does not matter where there is data");

    is_int(READ(ID "*4\r\n" DATA(21) "012345678901234567890\r\n"
                EVENT(3) "rt.\r\n"),
           NGX_BUSY, "too large, and a bad event");

    is_int(READ(ID "+\r\n"), NGX_AGAIN, "cut fields");
    is_tag("5-7", "cut");
    is_int(READ(ID "*2\r\n$4\r\ndata\r\n+\r\n"), NGX_AGAIN, "cut data");
    is_int(READ(ID "*4\r\n" DATA(1) "x\r\n$5\r\nevent\r\n+\r\n"), NGX_AGAIN,
           "a cut event");
    is_int(READ(ID "*4\r\n" DATA(1) "x\r\n+\r\n+\r\n"), NGX_OK,
           "what else is cut");
    is_int(READ(ID "*2\r\n$1\r\na\r\n+\r\n"), NGX_AGAIN, "a cut value");

    conf.message_max = 1000000;

    len = sprintf(text, ID "*4\r\n" DATA(1) "x\r\n$5\r\nevent\r\n$256\r\n");
    ngx_memset(text + len, 'e', 256);
    len += 256;
    len += sprintf(text + len, "\r\n");

    is_int(entry_read(text, len), NGX_DECLINED, "an event of 256 bytes");
}


static void
test_json(void)
{
    char   *text;
    size_t  len;

    conf.payload = NGX_RT_PAYLOAD_JSON;

    is_int(READ(ID "*2\r\n" DATA(30)
                "{\"data\":\"a\\nb\",\"event\":\"tick\"}\r\n"),
           NGX_OK, "the envelope");
    is_str(&entry.msg.data, "a\nb", "its data");
    is_str(&entry.msg.event, "tick", "its event");

    is_int(READ(ID "*4\r\n" DATA(30)
                "{\"data\":\"a\\nb\",\"event\":\"tick\"}\r\n"
                EVENT(3) "rt.\r\n"),
           NGX_OK, "an event within comes first");
    is_str(&entry.msg.event, "tick", "its event");

    is_int(READ(ID "*4\r\n" DATA(10) "{\"data\":1}\r\n" EVENT(4) "tick\r\n"),
           NGX_OK, "else that of the entry");
    is_str(&entry.msg.data, "1", "its data");
    is_str(&entry.msg.event, "tick", "its event");

    is_int(READ(ID "*2\r\n" DATA(5) "hello\r\n"), NGX_DECLINED, "no envelope");
    ok(entry.why && strcmp(entry.why, "not a JSON object") == 0, "says why");
    is_tag("5-7", "no envelope");

    is_int(READ(ID "*2\r\n" DATA(0) "\r\n"), NGX_DECLINED, "no byte");

    is_int(READ(ID "*2\r\n$1\r\na\r\n$1\r\nb\r\n"), NGX_OK,
           "fields without data");
    is_str(&entry.msg.data, "{\"a\":\"b\"}", "are no envelope");

    /* the text of an escape is shorter: what counts is the text */

    conf.message_max = 2;

    is_int(READ(ID "*2\r\n" DATA(23) "{\"data\":\"\\u0061\\u0062\"}\r\n"),
           NGX_OK, "written longer than message_max");
    is_str(&entry.msg.data, "ab", "but its text is not");
    is_int(READ(ID "*2\r\n" DATA(14) "{\"data\":\"abc\"}\r\n"), NGX_BUSY,
           "text over message_max");

    /* more than the buffer had */

    conf.message_max = 1000000;

    text = malloc(100100);
    len = sprintf(text, ID "*2\r\n" DATA(100013) "{\"data\":\"\\n");
    ngx_memset(text + len, 'x', 100000);
    len += 100000;
    len += sprintf(text + len, "\"}\r\n");

    is_int(entry_read(text, len), NGX_OK, "100 KB");
    is_int(entry.msg.data.len, 100001, "arrive");
    ok(ctx.size >= 100000, "in a larger buffer");

    free(text);

    ngx_rt_entries_done(&ctx);
    ok(ctx.buf == NULL && ctx.size == 0, "which is given back");

    conf.payload = NGX_RT_PAYLOAD_RAW;
}


static void
test_shape(void)
{
    is_int(READ(":1\r\n"), NGX_ERROR, "a number");
    ok(entry.why != NULL, "says why");
    is_int(READ("$-1\r\n"), NGX_ERROR, "nil");
    is_int(READ("*0\r\n"), NGX_ERROR, "an empty array");
    is_int(READ("*1\r\n$3\r\n1-1\r\n"), NGX_ERROR, "an id alone");
    is_int(READ("*2\r\n$1\r\n1\r\n*0\r\n"), NGX_ERROR, "half an id");
    is_int(READ("*2\r\n$-1\r\n*0\r\n"), NGX_ERROR, "no id");
    is_int(READ(ID "*0\r\n"), NGX_ERROR, "no fields");
    is_int(READ(ID "*1\r\n$1\r\na\r\n"), NGX_ERROR, "half a field");
    is_int(READ(ID "*2\r\n$1\r\na\r\n:1\r\n"), NGX_ERROR, "a number's field");
    is_int(READ(ID "*2\r\n$1\r\na\r\n*0\r\n"), NGX_ERROR, "an array's");
    is_int(READ(ID "*2\r\n$1\r\na\r\n+b\r\n"), NGX_ERROR, "a status");
    is_int(READ(ID "$1\r\na\r\n"), NGX_ERROR, "a string for fields");
    is_int(READ(ID "+OK\r\n"), NGX_ERROR, "a status for fields");
    is_int(READ("-ERR no\r\n"), NGX_ERROR, "an error");
}


static void
test_info(void)
{
    u_char     buf[NGX_RT_SID_LEN];
    ngx_str_t  id;

    is_int(INFO("*10\r\n$6\r\nlength\r\n:3\r\n$15\r\nradix-tree-keys\r\n:1\r\n"
                "$17\r\nlast-generated-id\r\n$4\r\n12-5\r\n"
                "$13\r\nentries-added\r\n:7\r\n"
                "$11\r\nfirst-entry\r\n*2\r\n$3\r\n1-1\r\n*-1\r\n"),
           NGX_OK, "XINFO STREAM");
    is_int(info.length, 3, "length");
    is_int(info.added, 7, "entries-added");
    is_int(info.counted, 1, "is known");
    id.data = buf;
    id.len = ngx_rt_sid_format(buf, info.last) - buf;
    is_str(&id, "12-5", "last-generated-id");

    is_int(INFO("*4\r\n$17\r\nlast-generated-id\r\n$3\r\n0-0\r\n"
                "$6\r\nlength\r\n:0\r\n"), NGX_OK, "of Redis 6");
    is_int(info.counted, 0, "entries-added is not known");
    is_int(info.added, 0, "and 0");

    is_int(INFO("-ERR no such key\r\n"), NGX_DECLINED, "no such key");
    is_int(info.length + info.added + info.counted, 0, "all zeros");

    is_int(INFO("+\r\n"), NGX_AGAIN, "cut");
    is_int(INFO("-WRONGTYPE Operation against a key\r\n"), NGX_ERROR,
           "another error");
    is_int(INFO("*-1\r\n"), NGX_ERROR, "nil");
    is_int(INFO("+OK\r\n"), NGX_ERROR, "a status");
    is_int(INFO("*2\r\n$6\r\nlength\r\n:0\r\n"), NGX_ERROR, "no id");
    is_int(INFO("*2\r\n$17\r\nlast-generated-id\r\n$3\r\n0-0\r\n"), NGX_ERROR,
           "no length");
    is_int(INFO("*4\r\n$17\r\nlast-generated-id\r\n$1\r\n0\r\n"
                "$6\r\nlength\r\n:0\r\n"), NGX_ERROR, "half an id");
    is_int(INFO("*4\r\n$17\r\nlast-generated-id\r\n$3\r\n0-0\r\n"
                "$6\r\nlength\r\n:-1\r\n"), NGX_ERROR, "a bad length");
    is_int(INFO("*4\r\n$17\r\nlast-generated-id\r\n$3\r\n0-0\r\n"
                "$6\r\nlength\r\n$1\r\n1\r\n"), NGX_ERROR, "a length's text");
    is_int(INFO("*5\r\n$17\r\nlast-generated-id\r\n$3\r\n0-0\r\n"
                "$6\r\nlength\r\n:1\r\n$1\r\nx\r\n"), NGX_OK, "a name alone");
}


int
main(void)
{
    conf.message_max = 1000000;

    test_raw();
    test_object();
    test_large();
    test_json();
    test_shape();
    test_info();

    if (reply) {
        freeReplyObject(reply);
    }

    ngx_rt_entries_done(&ctx);

    done_testing();
}
