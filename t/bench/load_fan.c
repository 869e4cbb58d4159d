/*
 * Event streams, and the publisher that feeds them: each message of each
 * client is looked at.
 *
 *     load fan port=N clients=N channels=N path=/sse/c%u size=200 [wait=30]
 *              [from=N] [burst=1]
 *              redis=N name=c%u [xadd=1]      PUBLISH (or XADD) to Redis, or
 *              http=N post=/publish/c%u       POST
 *
 * "run RATE COUNT" publishes COUNT messages round the channels, RATE a second
 * (0: as fast as they are taken; burst: all in one write), and ends when all
 * have come to all clients; "post" ends when all are published, and "rest" goes
 * on to that end.  The time of a message is from when it was due.  from: the
 * clients' address, 127.0.0.N.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "load.h"

#define OPENING  256                /* connections that are opened at once */
#define AHEAD    256                /* messages not confirmed yet */
#define WRITE    (60 * 1024)        /* bytes that are published at once */
#define TIMES    2048               /* see time_index() */


static struct {
    int             epoll, timer, burst;
    unsigned        nclients, nchannels, nopen, size;
    uint64_t        patience;       /* ns: for what does not come */
    load_sse_t     *clients;
    load_pub_t     *pub;

    load_result_t  *result;         /* of the run */
    double          rate;
    unsigned        count;
    uint64_t        start, expected;
    uint64_t        came, sent;     /* up to now, also of "post" */
    uint64_t       *at;             /* of each message: when it was due */
    unsigned       *left;           /* clients that do not have it yet */
    uint64_t       *took;
    uint64_t        times[TIMES];   /* deliveries that took so long */
} fan;


/* of times: exact up to 64 us, then 32 to a doubling */

static unsigned
time_index(uint64_t ns)
{
    int       shift;
    uint64_t  us;

    us = ns / 1000;
    if (us < 64) {
        return (unsigned) us;
    }

    shift = 58 - __builtin_clzll(us);

    return (unsigned) (shift * 32) + (unsigned) (us >> shift);
}


static double
ms_of(unsigned index)
{
    unsigned  shift;

    if (index < 64) {
        return index / 1e3;
    }

    shift = index / 32 - 1;

    return (double) ((uint64_t) (index - shift * 32) << shift) / 1e3;
}


static double
each(double part)
{
    unsigned  i;
    uint64_t  n;

    n = 0;
    for (i = 0; i < TIMES; i++) {
        n += fan.times[i];
        if ((double) n > (double) fan.came * part) {
            return ms_of(i);
        }
    }

    return 0;
}


static void
opened(load_sse_t *client)
{
    (void) client;
    fan.nopen++;
}


static void
message(load_sse_t *client, char *p, size_t n, uint64_t now)
{
    unsigned         i;
    load_payload_t  *payload;

    if (fan.result == NULL) {
        die("a message before any was published: %s", p);
    }

    payload = load_sse_check(client, p, n, fan.size, fan.result);
    if (payload == NULL) {
        return;
    }

    i = payload->message;
    if (i >= fan.count || fan.left[i] == 0) {
        load_wrong(fan.result, "sequence: message %u is none of this run", i);
        return;
    }

    now = now > fan.at[i] ? now - fan.at[i] : 0;
    fan.came++;
    fan.times[time_index(now)]++;
    if (--fan.left[i] == 0) {
        fan.took[i] = now;
    }
}


static void
ready(void *data)
{
    uint64_t  ticks;

    if (data == fan.pub) {
        load_pub_read(fan.pub);

    } else if (data == &fan.timer) {
        if (read(fan.timer, &ticks, sizeof(ticks)) == -1 && errno != EAGAIN) {
            die("timer: %s", strerror(errno));
        }

    } else {
        load_sse_read(data, opened, message);
    }
}


static unsigned
clients_of(unsigned channel)
{
    return fan.nclients / fan.nchannels
           + (channel < fan.nclients % fan.nchannels);
}


static uint64_t
due(unsigned i)
{
    return fan.start + (uint64_t) (i / fan.rate * 1e9);
}


static void
add(uint64_t at)
{
    unsigned  channel, i;

    i = (unsigned) fan.sent++;
    channel = i % fan.nchannels;
    fan.at[i] = at;
    fan.left[i] = clients_of(channel);
    load_pub_add(fan.pub, channel, i);
}


/* the next one's time; half a millisecond at least */

static void
set_timer(uint64_t at, uint64_t now)
{
    struct itimerspec  spec;

    if (at < now + 500000) {
        at = now + 500000;
    }

    memset(&spec, 0, sizeof(spec));
    spec.it_value.tv_sec = (time_t) (at / 1000000000);
    spec.it_value.tv_nsec = (long) (at % 1000000000);
    timerfd_settime(fan.timer, TFD_TIMER_ABSTIME, &spec, NULL);
}


/* those whose time has come; no more at once than fit */

static void
publish(void)
{
    uint64_t  now;

    if (fan.sent == fan.count) {
        return;
    }

    now = now_ns();

    if (fan.rate > 0) {
        while (fan.sent < fan.count && due((unsigned) fan.sent) <= now
               && load_pub_pending(fan.pub) < WRITE)
        {
            add(due((unsigned) fan.sent));
        }
        set_timer(due((unsigned) fan.sent), now);

    } else if (fan.burst || load_pub_open(fan.pub) < AHEAD) {
        while (fan.sent < fan.count
               && (fan.burst || load_pub_pending(fan.pub) < WRITE))
        {
            add(now);
        }
    }

    load_pub_flush(fan.pub);
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
begin(double rate, unsigned count)
{
    unsigned  i;

    free(fan.at);
    free(fan.left);
    free(fan.took);

    fan.at = need_memory(count, sizeof(uint64_t));
    fan.left = need_memory(count, sizeof(unsigned));
    fan.took = need_memory(count, sizeof(uint64_t));
    memset(fan.times, 0, sizeof(fan.times));
    fan.rate = rate;
    fan.count = count;
    fan.sent = fan.came = fan.expected = 0;
    for (i = 0; i < count; i++) {
        fan.expected += clients_of(i % fan.nchannels);
    }
}


/* until all is published, or (ALL) has come to all clients; not when nothing
   comes for so long */

static void
go_on(int all)
{
    uint64_t  state, last, deadline;

    last = 0;
    deadline = 0;

    while (fan.sent < fan.count || load_pub_open(fan.pub) > 0
           || (all && fan.came < fan.expected))
    {
        state = 1 + fan.came + fan.sent + fan.count - load_pub_open(fan.pub);
        if (state != last) {
            last = state;
            deadline = now_ns() + fan.patience;
        }

        if (fan.result->wrong || now_ns() > deadline) {
            break;
        }

        publish();
        load_wait(fan.epoll, 100, ready);
    }
}


static void
command(load_command_e command, double rate, unsigned count,
    load_result_t *result)
{
    fan.result = result;
    fan.start = now_ns();

    if (command != LOAD_REST) {
        begin(rate, count);
    }

    go_on(command != LOAD_POST);

    result->wall = now_ns() - fan.start;
    result->sent = fan.sent;
    result->done = fan.came;

    if (command == LOAD_POST || result->wrong) {
        return;
    }

    if (fan.came != fan.expected) {
        load_wrong(result, "sequence: %llu deliveries of %llu are missing",
                   (unsigned long long) (fan.expected - fan.came),
                   (unsigned long long) fan.expected);
    }

    count = fan.count;
    qsort(fan.took, count, sizeof(uint64_t), by_size);
    if (count > 0) {
        result->p50 = (double) fan.took[count / 2] / 1e6;
        result->p99 = (double) fan.took[count * 99 / 100] / 1e6;
        result->max = (double) fan.took[count - 1] / 1e6;
        result->each99 = each(0.99);
    }
}


static void
open_clients(int port, int from, const char *path)
{
    char         name[256];
    unsigned     i;
    uint64_t     deadline;
    load_sse_t  *client;

    deadline = now_ns() + 60000000000;

    for (i = 0; i < fan.nclients || fan.nopen < fan.nclients; /* void */ ) {

        if (now_ns() > deadline) {
            die("%u of %u streams open", fan.nopen, fan.nclients);
        }

        if (i < fan.nclients && i - fan.nopen < OPENING) {
            client = &fan.clients[i];
            client->channel = i % fan.nchannels;
            client->next = 1;
            fill_name(name, sizeof(name), path, client->channel);
            load_sse_open(client, port, from, name, "");
            load_watch(fan.epoll, client->fd, client);
            i++;
            load_wait(fan.epoll, 0, ready);
            continue;
        }

        load_wait(fan.epoll, 100, ready);
    }
}


void
load_fan(char **argv)
{
    fan.nclients = (unsigned) opt_number(argv, "clients", 0);
    fan.nchannels = (unsigned) opt_number(argv, "channels", 1);
    fan.patience = (uint64_t) opt_number(argv, "wait", 30) * 1000000000;
    fan.burst = opt_number(argv, "burst", 0) != 0;
    fan.clients = need_memory(fan.nclients, sizeof(load_sse_t));
    fan.epoll = load_epoll();
    fan.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    load_watch(fan.epoll, fan.timer, &fan.timer);

    fan.pub = load_pub(argv, fan.nchannels);
    fan.size = load_pub_size(fan.pub);
    load_watch(fan.epoll, load_pub_fd(fan.pub), fan.pub);

    open_clients((int) opt_number(argv, "port", 8080),
                 (int) opt_number(argv, "from", 0),
                 opt_text(argv, "path", "/sse/c%u"));
    load_serve(fan.nopen, command);
}
