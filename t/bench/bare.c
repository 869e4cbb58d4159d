/*
 * The floor: what a fan-out costs when nothing is done but what must be.  One
 * thread, epoll, hiredis' parser, one send() for each client and message.  No
 * timers, no limits, no history; a client that goes away at a bad moment ends
 * it, and one that does not read is waited for.
 *
 *     bare port=N redis=N [cpu=N] [pattern=TEXT] [stream=k%u streams=N]
 *          [mute=1] [corrupt=N] [lose=N]
 *
 *     GET /sse/NAME    an event stream of the Redis channel NAME
 *     GET /304 /200    answers as a poll gets them
 *     GET /count       messages taken from Redis
 *
 * pattern: PSUBSCRIBE, messages are counted.  stream: XREAD in a loop over
 * that many keys, entries are counted.  mute: subscribed and counted, and
 * nothing is sent.  corrupt, lose: each Nth message is sent with another
 * sequence number, or not to one of the clients; for the test of whoever
 * verifies them.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "bench.h"

#define BUCKETS  (1 << 16)
#define NAME     64
#define REQUEST  1024
#define BATCH    512


typedef struct channel_s  channel_t;
typedef struct client_s  client_t;

struct channel_s {
    channel_t  *next;               /* in the bucket */
    unsigned    n, room;
    client_t  **clients;
    char        name[NAME];
};

struct client_s {
    int         fd;
    unsigned    len;                /* of what is read of a request */
    channel_t  *channel;            /* of a stream */
    unsigned    index;              /* in channel->clients */
    char       *request;            /* NULL in a stream */
};

static struct {
    int           epoll, listener, redis;
    redisReader  *reader;
    channel_t    *buckets[BUCKETS];
    uint64_t      messages;
    long          mute, corrupt, lose;
    const char   *stream;           /* name of keys, or NULL */
    unsigned      streams;
    char        (*ids)[NAME];       /* last id of each */
} bare;


static const char  head_stream[] =
    "HTTP/1.1 200 OK\r\n"
    "Content-Type: text/event-stream\r\n"
    "Transfer-Encoding: chunked\r\n"
    "Connection: keep-alive\r\n"
    "Cache-Control: no-cache, no-transform\r\n"
    "\r\n"
    "d\r\nretry: 2000\n\n\r\n";

static const char  head_304[] =
    "HTTP/1.1 304 Not Modified\r\n"
    "Server: bare\r\n"
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    "Connection: keep-alive\r\n"
    "ETag: \"0123456789abcdef\"\r\n"
    "Cache-Control: no-cache\r\n"
    "\r\n";

static const char  head_200[] =
    "HTTP/1.1 200 OK\r\n"
    "Server: bare\r\n"
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    "Content-Type: text/plain\r\n"
    "Content-Length: 200\r\n"
    "Connection: keep-alive\r\n"
    "ETag: \"0123456789abcdef\"\r\n"
    "Cache-Control: no-cache\r\n"
    "\r\n";


static void
watch(int fd, void *data)
{
    struct epoll_event  ev;

    ev.events = EPOLLIN | EPOLLET;
    ev.data.ptr = data;
    if (epoll_ctl(bare.epoll, EPOLL_CTL_ADD, fd, &ev) == -1) {
        die("epoll: %s", strerror(errno));
    }
}


static void
redis_command(int argc, const char **argv)
{
    int   len;
    char *text;

    len = (int) redisFormatCommandArgv(&text, argc, argv, NULL);
    if (len < 0) {
        die("no memory");
    }

    send_all(bare.redis, text, (size_t) len);
    redisFreeCommand(text);
}


static channel_t *
find_channel(const char *name, int make)
{
    uint32_t      hash;
    channel_t   **bucket, *channel;
    const char   *p;

    hash = 2166136261u;
    for (p = name; *p != '\0'; p++) {
        hash = (hash ^ (unsigned char) *p) * 16777619u;
    }

    bucket = &bare.buckets[(hash ^ hash >> 16) % BUCKETS];
    for (channel = *bucket; channel != NULL; channel = channel->next) {
        if (strcmp(channel->name, name) == 0) {
            return channel;
        }
    }

    if (!make) {
        return NULL;
    }

    channel = need_memory(1, sizeof(*channel));
    strcpy(channel->name, name);
    channel->next = *bucket;
    *bucket = channel;

    redis_command(2, (const char *[]) { "SUBSCRIBE", channel->name });

    return channel;
}


static void
join(client_t *client, const char *name)
{
    channel_t  *channel;

    channel = find_channel(name, 1);
    if (channel->n == channel->room) {
        channel->room = channel->room ? channel->room * 2 : 1;
        channel->clients = realloc(channel->clients,
                                   channel->room * sizeof(client_t *));
        if (channel->clients == NULL) {
            die("no memory");
        }
    }

    client->channel = channel;
    client->index = channel->n;
    channel->clients[channel->n++] = client;

    free(client->request);
    client->request = NULL;
}


static void
leave(client_t *client)
{
    channel_t  *channel;

    channel = client->channel;
    if (channel != NULL) {
        channel->clients[client->index] = channel->clients[--channel->n];
        channel->clients[client->index]->index = client->index;
    }

    close(client->fd);
    free(client->request);
    free(client);
}


static void
answer(client_t *client, char *path)
{
    int   n;
    char  out[sizeof(head_200) + 200];

    if (strncmp(path, "/sse/", 5) == 0 && strlen(path + 5) < NAME) {
        send_all(client->fd, head_stream, sizeof(head_stream) - 1);
        join(client, path + 5);

    } else if (strcmp(path, "/304") == 0) {
        send_all(client->fd, head_304, sizeof(head_304) - 1);

    } else if (strcmp(path, "/200") == 0) {
        memcpy(out, head_200, sizeof(head_200) - 1);
        memset(out + sizeof(head_200) - 1, 'x', 200);
        send_all(client->fd, out, sizeof(head_200) - 1 + 200);

    } else if (strcmp(path, "/count") == 0) {
        n = snprintf(out, sizeof(out), "HTTP/1.1 200 OK\r\n"
                     "Content-Length: 20\r\n\r\n%20llu",
                     (unsigned long long) bare.messages);
        send_all(client->fd, out, (size_t) n);

    } else {
        die("what is %s?", path);
    }
}


/* false: the client is gone */

static int
read_stream(client_t *client)
{
    char     buf[512];
    ssize_t  n;

    do {
        n = recv(client->fd, buf, sizeof(buf), MSG_DONTWAIT);
    } while (n > 0);

    if (n == 0 || errno != EAGAIN) {
        leave(client);
        return 0;
    }

    return 1;
}


static void
read_client(client_t *client)
{
    char     *end, *space;
    ssize_t   n;

    for ( ;; ) {
        if (client->request == NULL) {
            read_stream(client);
            return;
        }

        n = recv(client->fd, client->request + client->len,
                 REQUEST - client->len - 1, MSG_DONTWAIT);
        if (n == -1 && errno == EAGAIN) {
            return;
        }

        if (n <= 0) {
            leave(client);
            return;
        }

        client->len += (unsigned) n;
        client->request[client->len] = '\0';

        end = strstr(client->request, "\r\n\r\n");
        if (end == NULL) {
            continue;
        }

        space = strchr(client->request + 4, ' ');
        if (strncmp(client->request, "GET ", 4) != 0 || space == NULL
            || end[4] != '\0')
        {
            die("a strange request");
        }

        *space = '\0';
        client->len = 0;
        answer(client, client->request + 4);
    }
}


static void
accept_all(void)
{
    int        fd;
    client_t  *client;

    for ( ;; ) {
        fd = accept4(bare.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd == -1) {
            if (errno == EAGAIN || errno == ECONNABORTED) {
                return;
            }
            die("accept: %s", strerror(errno));
        }

        client = need_memory(1, sizeof(*client));
        client->request = need_memory(1, REQUEST);
        client->fd = fd;
        watch(fd, client);
        read_client(client);
    }
}


/* the fan-out */

static void
deliver(redisReply *name, redisReply *payload)
{
    int         n, body;
    char        frame[4096];
    unsigned    i;
    channel_t  *channel;

    channel = find_channel(name->str, 0);
    if (bare.mute || channel == NULL || payload->len > 2048) {
        return;
    }

    body = snprintf(frame, sizeof(frame), "id: %llu\ndata: %s\n\n",
                    (unsigned long long) bare.messages, payload->str);
    n = snprintf(frame, sizeof(frame), "%x\r\nid: %llu\ndata: %s\n\n\r\n",
                 (unsigned) body, (unsigned long long) bare.messages,
                 payload->str);

    if (bare.corrupt && bare.messages % (uint64_t) bare.corrupt == 0) {
        *(strstr(frame, "data: ") + 6) = '1';
    }

    i = bare.lose && bare.messages % (uint64_t) bare.lose == 0;

    for ( /* void */ ; i < channel->n; i++) {
        send_all(channel->clients[i]->fd, frame, (size_t) n);
    }
}


static void
ask_streams(void)
{
    char          key[NAME];
    unsigned      i;
    const char  **argv;

    argv = need_memory(6 + 2 * bare.streams, sizeof(char *));
    argv[0] = "XREAD";
    argv[1] = "BLOCK";
    argv[2] = "0";
    argv[3] = "COUNT";
    argv[4] = "1000";
    argv[5] = "STREAMS";

    for (i = 0; i < bare.streams; i++) {
        fill_name(key, sizeof(key), bare.stream, i);
        argv[6 + i] = strdup(key);
        argv[6 + bare.streams + i] = bare.ids[i];
    }

    redis_command(6 + 2 * (int) bare.streams, argv);

    for (i = 0; i < bare.streams; i++) {
        free((char *) argv[6 + i]);
    }

    free(argv);
}


static void
take_entries(redisReply *reply)
{
    char         key[NAME];
    size_t       i;
    unsigned     k;
    redisReply  *entries;

    for (i = 0; i < reply->elements; i++) {
        entries = reply->element[i]->element[1];
        bare.messages += entries->elements;

        for (k = 0; k < bare.streams; k++) {
            fill_name(key, sizeof(key), bare.stream, k);
            if (strcmp(key, reply->element[i]->element[0]->str) == 0) {
                snprintf(bare.ids[k], NAME, "%s",
                     entries->element[entries->elements - 1]->element[0]->str);
            }
        }
    }

    ask_streams();
}


static void
take(redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR) {
        die("Redis: %s", reply->str);
    }

    if (reply->type != REDIS_REPLY_ARRAY) {
        return;
    }

    if (bare.stream != NULL) {
        take_entries(reply);
        return;
    }

    if (reply->elements == 3 && strcmp(reply->element[0]->str, "message") == 0)
    {
        bare.messages++;
        deliver(reply->element[1], reply->element[2]);

    } else if (reply->elements == 4) {
        bare.messages++;
    }
}


static void
read_redis(void)
{
    void         *reply;
    ssize_t       n;
    static char   buf[16 * 1024];

    for ( ;; ) {
        n = recv(bare.redis, buf, sizeof(buf), MSG_DONTWAIT);
        if (n == -1 && errno == EAGAIN) {
            return;
        }

        if (n <= 0) {
            die("Redis is gone");
        }

        if (redisReaderFeed(bare.reader, buf, (size_t) n) != REDIS_OK) {
            die("Redis: %s", bare.reader->errstr);
        }

        for ( ;; ) {
            if (redisReaderGetReply(bare.reader, &reply) != REDIS_OK) {
                die("Redis: %s", bare.reader->errstr);
            }

            if (reply == NULL) {
                break;
            }

            take(reply);
            freeReplyObject(reply);
        }
    }
}


static void
start_feed(char **argv)
{
    unsigned     i;
    const char  *pattern;

    bare.redis = connect_to((int) opt_number(argv, "redis", 6379));
    bare.reader = redisReaderCreate();
    if (bare.reader == NULL) {
        die("no memory");
    }

    watch(bare.redis, &bare.redis);

    pattern = opt_text(argv, "pattern", NULL);
    if (pattern != NULL) {
        redis_command(2, (const char *[]) { "PSUBSCRIBE", pattern });
    }

    bare.stream = opt_text(argv, "stream", NULL);
    if (bare.stream != NULL) {
        bare.streams = (unsigned) opt_number(argv, "streams", 1);
        bare.ids = need_memory(bare.streams, NAME);
        for (i = 0; i < bare.streams; i++) {
            strcpy(bare.ids[i], "0-0");
        }
        ask_streams();
    }
}


int
main(int argc, char **argv)
{
    int                 i, n;
    struct epoll_event  events[BATCH];

    (void) argc;
    prepare(opt_number(argv, "cpu", -1));

    bare.mute = opt_number(argv, "mute", 0);
    bare.corrupt = opt_number(argv, "corrupt", 0);
    bare.lose = opt_number(argv, "lose", 0);
    bare.epoll = epoll_create1(EPOLL_CLOEXEC);
    bare.listener = listen_on((int) opt_number(argv, "port", 8080));
    watch(bare.listener, &bare.listener);
    start_feed(argv);

    for ( ;; ) {
        n = epoll_wait(bare.epoll, events, BATCH, -1);
        for (i = 0; i < n; i++) {
            if (events[i].data.ptr == &bare.listener) {
                accept_all();
            } else if (events[i].data.ptr == &bare.redis) {
                read_redis();
            } else {
                read_client(events[i].data.ptr);
            }
        }
    }
}
