/*
 * Event streams, and the publisher that feeds them: each message of each
 * client is looked at.
 *
 *     load fan port=N clients=N channels=N path=/sse/c%u size=200 [wait=30]
 *              redis=N name=c%u [xadd=1]      PUBLISH (or XADD) to Redis, or
 *              http=N post=/publish/c%u       POST
 *
 * "run RATE COUNT" publishes COUNT messages round the channels, RATE a second
 * (0: as fast as they are taken), and ends when all have come to all clients.
 * A payload is "SEQUENCE MESSAGE CHANNEL xxx...": the sequence is the
 * channel's own and must go up by one, the message is the run's, for the
 * time it took until the last of its clients had it.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "load.h"

#define PART     1024               /* most of a line that may be read alone */
#define OPENING  256                /* connections that are opened at once */
#define AHEAD    256                /* messages not confirmed yet */
#define BATCH    512
#define NUMBERS  29                 /* of a payload: "%010u %010u %06u " */


typedef struct {
    int       fd;
    unsigned  channel;
    unsigned  next;                 /* sequence */
    int       state;                /* 0 status, 1 header, 2 stream */
    unsigned  len;
    char      part[PART];
} client_t;

static struct {
    int             epoll, timer, publisher, http;
    unsigned        nclients, nchannels, nopen;
    unsigned        size;
    uint64_t        patience;       /* ns: for what does not come */
    client_t       *clients;
    unsigned       *sequence;       /* of each channel, the last published */
    char          (*name)[64];      /* channel, or path to post to */
    int             xadd;
    uint64_t        confirmed, published;       /* answers, of all runs */

    load_result_t  *result;         /* of the run */
    unsigned        count;
    uint64_t       *at;             /* of each message: published */
    unsigned       *left;           /* clients that do not have it yet */
    uint64_t       *took;
} fan;


static void
check(client_t *client, const char *p, size_t n, uint64_t now)
{
    unsigned  sequence, message, channel;

    if (n != fan.size
        || sscanf(p, "%10u %10u %6u ", &sequence, &message, &channel) != 3
        || strspn(p + NUMBERS, "x") != n - NUMBERS)
    {
        load_wrong(fan.result, "a payload of %zu bytes: %.*s", n,
                   (int) (n < 60 ? n : 60), p);
        return;
    }

    if (sequence != client->next || channel != client->channel) {
        load_wrong(fan.result, "sequence: %u of channel %u instead of %u of %u",
                   sequence, channel, client->next, client->channel);
        client->next = sequence + 1;
        return;
    }

    client->next++;

    if (message >= fan.count || fan.left[message] == 0) {
        load_wrong(fan.result, "sequence: message %u is none of this run",
                   message);
        return;
    }

    fan.result->done++;
    if (--fan.left[message] == 0) {
        fan.took[message] = now - fan.at[message];
    }
}


static void
line(client_t *client, char *p, size_t n, uint64_t now)
{
    if (n > 0 && p[n - 1] == '\r') {
        n--;
    }

    p[n] = '\0';

    switch (client->state) {

    case 0:
        if (strncmp(p, "HTTP/1.1 200", 12) != 0) {
            die("a stream is answered: %s", p);
        }
        client->state = 1;
        break;

    case 1:
        if (n == 0) {
            client->state = 2;
            fan.nopen++;
        }
        break;

    default:
        if (n > 6 && memcmp(p, "data: ", 6) == 0) {
            if (fan.result == NULL) {
                die("a message before any was published: %s", p);
            }
            check(client, p + 6, n - 6, now);

        } else if (n > 12 && memcmp(p, "event: rt.ga", 12) == 0) {
            die("a gap: messages were lost");
        }
    }
}


static void
read_client(client_t *client)
{
    char        *p, *end, *nl;
    ssize_t      n;
    uint64_t     now;
    static char  buf[64 * 1024 + PART + 1];

    for ( ;; ) {
        memcpy(buf, client->part, client->len);
        n = recv(client->fd, buf + client->len, 64 * 1024, MSG_DONTWAIT);
        if (n == -1 && errno == EAGAIN) {
            return;
        }

        if (n <= 0) {
            die("a stream has ended");
        }

        now = now_ns();
        p = buf;
        end = buf + client->len + n;

        while ((nl = memchr(p, '\n', (size_t) (end - p))) != NULL) {
            line(client, p, (size_t) (nl - p), now);
            p = nl + 1;
        }

        client->len = (unsigned) (end - p);
        if (client->len > PART) {
            die("a long line");
        }

        memcpy(client->part, p, client->len);

        if (n < 64 * 1024) {
            return;
        }
    }
}


static void
read_publisher(void)
{
    char         *p, *end;
    ssize_t       n;
    static int    kept, fresh = 1;
    static char   buf[64 * 1024 + 16];

    /* an answer of Redis is ":N" or "-..." (XADD: "$N" and the id), one of
       HTTP has one "HTTP/1.1 "; what may be cut is kept */

    for ( ;; ) {
        n = recv(fan.publisher, buf + kept, 64 * 1024, MSG_DONTWAIT);
        if (n == -1 && errno == EAGAIN) {
            return;
        }

        if (n <= 0) {
            die("the publisher's connection is lost");
        }

        end = buf + kept + n;

        if (!fan.http) {
            for (p = buf; p < end; p++) {
                if (fresh && *p == '-') {
                    die("Redis: %.*s", (int) (end - p), p);
                }
                fresh = *p == '\n';
                fan.confirmed += (uint64_t) fresh;
            }
            continue;
        }

        p = buf;
        while ((p = memmem(p, (size_t) (end - p), "HTTP/1.1 ", 9)) != NULL) {
            if (end - p < 12) {
                break;
            }
            if (p[9] != '2') {
                die("a publish is answered: %.*s", (int) (end - p), p);
            }
            fan.confirmed++;
            p += 12;
        }

        kept = (int) (p != NULL ? end - p : end - buf < 8 ? end - buf : 8);
        memmove(buf, end - kept, (size_t) kept);
    }
}


static unsigned
clients_of(unsigned channel)
{
    return fan.nclients / fan.nchannels
           + (channel < fan.nclients % fan.nchannels);
}


static int
format(char *out, size_t room, unsigned channel, const char *payload)
{
    int          n;
    const char  *name;

    name = fan.name[channel];

    if (fan.http) {
        n = snprintf(out, room, "POST %s HTTP/1.1\r\nHost: bench\r\n"
                     "Content-Length: %u\r\n\r\n%s", name, fan.size, payload);

    } else if (fan.xadd) {
        n = snprintf(out, room, "*5\r\n$4\r\nXADD\r\n$%zu\r\n%s\r\n"
                     "$1\r\n*\r\n$4\r\ndata\r\n$%u\r\n%s\r\n", strlen(name),
                     name, fan.size, payload);
    } else {
        n = snprintf(out, room, "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n%s\r\n"
                     "$%u\r\n%s\r\n", strlen(name), name, fan.size, payload);
    }

    if (n < 0 || (size_t) n >= room) {
        die("a message is too long");
    }

    return n;
}


/* those up to number LAST; no more at once than fit */

static void
publish(unsigned last)
{
    char      payload[2048];
    size_t    n;
    unsigned  channel, message, numbers;
    uint64_t  now;
    char      out[64 * 1024];

    n = 0;
    now = now_ns();

    while (fan.result->sent < last && n < sizeof(out) - 4096) {
        message = (unsigned) fan.result->sent++;
        channel = message % fan.nchannels;

        numbers = (unsigned) snprintf(payload, sizeof(payload),
                                      "%010u %010u %06u ",
                                      ++fan.sequence[channel], message,
                                      channel);
        memset(payload + numbers, 'x', fan.size - numbers);
        payload[fan.size] = '\0';

        n += (size_t) format(out + n, sizeof(out) - n, channel, payload);
        fan.at[message] = now;
        fan.left[message] = clients_of(channel);
        fan.published += fan.xadd ? 2 : 1;
    }

    send_all(fan.publisher, out, n);
}


static void
wait_events(int timeout)
{
    int                 i, n;
    uint64_t            ticks;
    struct epoll_event  events[BATCH];

    n = epoll_wait(fan.epoll, events, BATCH, timeout);

    for (i = 0; i < n; i++) {
        if (events[i].data.ptr == &fan.publisher) {
            read_publisher();
        } else if (events[i].data.ptr == &fan.timer) {
            if (read(fan.timer, &ticks, sizeof(ticks)) == -1
                && errno != EAGAIN)
            {
                die("timer: %s", strerror(errno));
            }
        } else {
            read_client(events[i].data.ptr);
        }
    }
}


static void
set_timer(double rate)
{
    long               ns;
    struct itimerspec  spec;

    ns = rate > 0 ? (long) (1e9 / rate) : 1000000;
    if (ns < 500000) {
        ns = 500000;
    }

    spec.it_interval.tv_sec = spec.it_value.tv_sec = ns / 1000000000;
    spec.it_interval.tv_nsec = spec.it_value.tv_nsec = ns % 1000000000;
    timerfd_settime(fan.timer, 0, &spec, NULL);
}


static int
by_size(const void *a, const void *b)
{
    uint64_t  x, y;

    x = *(const uint64_t *) a;
    y = *(const uint64_t *) b;

    return (x > y) - (x < y);
}


static void
begin(unsigned count, load_result_t *result)
{
    free(fan.at);
    free(fan.left);
    free(fan.took);

    fan.at = need_memory(count, sizeof(uint64_t));
    fan.left = need_memory(count, sizeof(unsigned));
    fan.took = need_memory(count, sizeof(uint64_t));
    fan.count = count;
    fan.result = result;
}


static void
run(double rate, unsigned count, load_result_t *result)
{
    double    due;
    unsigned  i;
    uint64_t  start, expected, deadline;

    begin(count, result);
    set_timer(rate);

    expected = 0;
    for (i = 0; i < count; i++) {
        expected += clients_of(i % fan.nchannels);
    }

    start = now_ns();
    deadline = start + fan.patience
               + (uint64_t) (count / (rate > 0 ? rate : 5000) * 1e9);

    while (result->sent < count || result->done < expected
           || fan.confirmed < fan.published)
    {
        if (result->wrong || now_ns() > deadline) {
            break;
        }

        if (rate > 0) {
            due = (double) (now_ns() - start) * rate / 1e9 + 1;
            publish(due < count ? (unsigned) due : count);
        } else if (fan.published - fan.confirmed < AHEAD) {
            publish(count);
        }

        wait_events(100);
    }

    result->wall = now_ns() - start;

    if (!result->wrong && result->done != expected) {
        load_wrong(result, "sequence: %llu deliveries of %llu are missing",
                   (unsigned long long) (expected - result->done),
                   (unsigned long long) expected);
    }

    set_timer(0.5);

    qsort(fan.took, count, sizeof(uint64_t), by_size);
    if (count > 0) {
        result->p50 = (double) fan.took[count / 2] / 1e6;
        result->p99 = (double) fan.took[count * 99 / 100] / 1e6;
        result->max = (double) fan.took[count - 1] / 1e6;
    }
}


static void
open_clients(int port, const char *path)
{
    int        n;
    char       name[256], request[512];
    unsigned   i;
    uint64_t   deadline;
    client_t  *client;

    deadline = now_ns() + 60000000000;

    for (i = 0; i < fan.nclients || fan.nopen < fan.nclients; /* void */ ) {

        if (now_ns() > deadline) {
            die("%u of %u streams open", fan.nopen, fan.nclients);
        }

        if (i < fan.nclients && i - fan.nopen < OPENING) {
            client = &fan.clients[i];
            client->channel = i % fan.nchannels;
            client->next = 1;
            client->fd = connect_to(port);

            fill_name(name, sizeof(name), path, client->channel);
            n = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\n"
                         "Host: bench\r\nAccept: text/event-stream\r\n\r\n",
                         name);
            send_all(client->fd, request, (size_t) n);
            load_watch(fan.epoll, client->fd, client);
            i++;
            wait_events(0);
            continue;
        }

        wait_events(100);
    }
}


void
load_fan(char **argv)
{
    unsigned     i;
    const char  *name;

    fan.nclients = (unsigned) opt_number(argv, "clients", 0);
    fan.nchannels = (unsigned) opt_number(argv, "channels", 1);
    fan.size = (unsigned) opt_number(argv, "size", 200);
    fan.patience = (uint64_t) opt_number(argv, "wait", 30) * 1000000000;
    fan.xadd = opt_number(argv, "xadd", 0) != 0;
    fan.http = opt_text(argv, "http", NULL) != NULL;
    if (fan.size < NUMBERS || fan.size > 2000 || fan.nchannels == 0) {
        die("size from %d to 2000, and a channel at least", NUMBERS);
    }

    fan.clients = need_memory(fan.nclients, sizeof(client_t));
    fan.sequence = need_memory(fan.nchannels, sizeof(unsigned));
    fan.name = need_memory(fan.nchannels, sizeof(*fan.name));
    name = opt_text(argv, fan.http ? "post" : "name", "c%u");
    for (i = 0; i < fan.nchannels; i++) {
        fill_name(fan.name[i], sizeof(*fan.name), name, i);
    }

    fan.epoll = load_epoll();
    fan.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    load_watch(fan.epoll, fan.timer, &fan.timer);
    fan.publisher = connect_to((int) opt_number(argv, fan.http ? "http"
                                                : "redis", 6379));
    load_watch(fan.epoll, fan.publisher, &fan.publisher);

    open_clients((int) opt_number(argv, "port", 8080),
                 opt_text(argv, "path", "/sse/c%u"));
    load_serve(fan.nopen, run);
}
