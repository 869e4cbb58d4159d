/*
 * A storm: clients that come back all at once, each with the cursor of where
 * it was, and must get what they missed.
 *
 *     load storm port=N clients=N channels=N path=/sse/c%u redis=N name=c%u
 *                [from=N] [plain=/small]
 *
 * Each channel is asked for, so that it is subscribed.  "post 0 MISSED"
 * publishes one message in each channel, takes its cursor, and publishes MISSED
 * more.  "run 0 0" opens all clients, of which 512 at once wait for what they
 * missed, and ends when the last has it; they stay open.  "rest 0 0" publishes
 * one more in each channel, which all must get as the next, and cuts them.
 * plain: instead, each client asks for that path and gets an answer.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

#define OPENING  512                /* clients that wait at once */


typedef struct {
    char      cursor[256];          /* a line of the header */
    unsigned  sequence;             /* the last one published */
    unsigned  known;                /* the one the cursor is of */
} channel_t;

static struct {
    int             epoll, port, from;
    unsigned        nclients, nchannels, size;
    const char     *path, *plain;
    load_sse_t     *clients;
    load_conn_t    *conns;          /* plain: as many as OPENING */
    int            *fds;            /* plain: of those that have their answer */
    channel_t      *channels;
    load_pub_t     *pub;
    load_conn_t     asker;

    load_result_t  *result;
    unsigned        nopen;
    uint64_t        came;
} storm;


static void
opened(load_sse_t *client)
{
    (void) client;
}


static void
message(load_sse_t *client, char *p, size_t n, uint64_t now)
{
    (void) now;

    if (load_sse_check(client, p, n, storm.size, storm.result) == NULL) {
        return;
    }

    if (client->next - 1 > storm.channels[client->channel].sequence) {
        load_wrong(storm.result, "sequence: %u was not published yet",
                   client->next - 1);

    } else if (client->next - 1 == storm.channels[client->channel].sequence) {
        storm.came++;
    }
}


static void
ready(void *data)
{
    if (data == storm.pub) {
        load_pub_read(storm.pub);
    } else {
        load_sse_read(data, opened, message);
    }
}


/* an answer is there, whole: its descriptor is kept, its place is free */

static void
ready_plain(void *data)
{
    long          status, body;
    load_conn_t  *conn;

    conn = data;
    if (!load_read(conn)
        || load_answer(conn->buf, conn->len, &status, &body) == 0)
    {
        return;
    }

    if (status != 200) {
        load_wrong(storm.result, "answered %ld", status);
    }

    storm.fds[storm.came++] = conn->fd;
    conn->fd = -1;
}


static void
publish_all(unsigned missed)
{
    unsigned  i, k;

    for (i = 0; i < storm.nchannels; i++) {
        for (k = 0; k < missed; k++) {
            storm.channels[i].sequence = load_pub_add(storm.pub, i, k);
        }
    }

    load_pub_flush(storm.pub);
}


/* asks for a channel's state until it is the last that was published (0:
   whatever it is); takes the cursor */

static void
await(unsigned i, unsigned sequence)
{
    char            path[256], request[512], etag[128];
    long            status, body;
    uint64_t        deadline;
    load_payload_t  payload;

    fill_name(path, sizeof(path), storm.path, i);
    snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n",
             path);
    deadline = now_ns() + 20000000000;

    do {
        if (now_ns() > deadline) {
            die("%s: message %u does not come", path, sequence);
        }

        load_ask(&storm.asker, request, &status, &body);
        if (sequence == 0) {
            return;
        }

    } while (status != 200
             || !load_parse(storm.asker.buf + storm.asker.len - body,
                            (size_t) body, storm.size, &payload)
             || payload.sequence != sequence);

    if (!load_field(storm.asker.buf, "ETag", etag, sizeof(etag))
        || strchr(etag, '"') == NULL)
    {
        die("%s: no ETag", path);
    }

    /* the cursor is the text between the quotes */
    *strrchr(etag, '"') = '\0';
    snprintf(storm.channels[i].cursor, sizeof(storm.channels[i].cursor),
             "Last-Event-ID: %s\r\n", strchr(etag, '"') + 1);
    storm.channels[i].known = sequence;
}


static void
prepare_channels(unsigned missed)
{
    char       cursor[256];
    unsigned   i, known;

    publish_all(1);
    for (i = 0; i < storm.nchannels; i++) {
        await(i, storm.channels[i].sequence);
    }

    publish_all(missed);
    for (i = 0; i < storm.nchannels; i++) {
        memcpy(cursor, storm.channels[i].cursor, sizeof(cursor));
        known = storm.channels[i].known;
        await(i, storm.channels[i].sequence);
        memcpy(storm.channels[i].cursor, cursor, sizeof(cursor));
        storm.channels[i].known = known;
    }
}


static void
open_client(unsigned i)
{
    char         path[256];
    channel_t   *channel;
    load_sse_t  *client;

    client = &storm.clients[i];
    client->channel = i % storm.nchannels;
    channel = &storm.channels[client->channel];
    client->next = channel->known + 1;

    fill_name(path, sizeof(path), storm.path, client->channel);
    load_sse_open(client, storm.port, storm.from, path, channel->cursor);
    load_watch(storm.epoll, client->fd, client);
}


static void
open_plain(void)
{
    int           n;
    char          request[256];
    load_conn_t  *conn;

    for (conn = storm.conns; conn->fd != -1; conn++) { /* void */ }

    conn->fd = connect_from(storm.from, storm.port);
    conn->len = 0;
    n = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: bench\r\n"
                 "\r\n", storm.plain);
    send_all(conn->fd, request, (size_t) n);
    load_watch(storm.epoll, conn->fd, conn);
}


static void
come(void)
{
    int  full;

    storm.nopen = 0;
    storm.came = 0;

    while (storm.came < storm.nclients && !storm.result->wrong) {
        full = storm.nopen == storm.nclients
               || storm.nopen - storm.came >= OPENING;

        if (!full && storm.plain) {
            open_plain();
            storm.nopen++;

        } else if (!full) {
            open_client(storm.nopen++);
        }

        if (full) {
            load_turn(storm.epoll, storm.result,
                      storm.plain ? ready_plain : ready);
        } else {
            load_wait(storm.epoll, 0, storm.plain ? ready_plain : ready);
        }
    }

    storm.result->done = storm.came;
}


static void
leave(void)
{
    unsigned  i;

    if (!storm.plain) {
        storm.came = 0;
        publish_all(1);
        while ((storm.came < storm.nopen || load_pub_open(storm.pub) > 0)
               && !storm.result->wrong)
        {
            load_turn(storm.epoll, storm.result, ready);
        }
    }

    for (i = 0; i < storm.nopen; i++) {
        load_cut(storm.plain ? storm.fds[i] : storm.clients[i].fd);
    }

    storm.nopen = 0;
}


static void
command(load_command_e command, double rate, unsigned count,
    load_result_t *result)
{
    uint64_t  start;

    (void) rate;
    storm.result = result;
    start = now_ns();

    switch (command) {
    case LOAD_POST:
        prepare_channels(count);
        break;
    case LOAD_RUN:
        come();
        break;
    case LOAD_REST:
        leave();
        break;
    }

    result->wall = now_ns() - start;
}


void
load_storm(char **argv)
{
    unsigned  i;

    storm.port = (int) opt_number(argv, "port", 8080);
    storm.from = (int) opt_number(argv, "from", 0);
    storm.path = opt_text(argv, "path", "/sse/c%u");
    storm.plain = opt_text(argv, "plain", NULL);
    storm.nclients = (unsigned) opt_number(argv, "clients", 1);
    storm.nchannels = (unsigned) opt_number(argv, "channels", 1);
    storm.clients = need_memory(storm.nclients, sizeof(load_sse_t));
    storm.fds = need_memory(storm.nclients, sizeof(int));
    storm.conns = need_memory(OPENING, sizeof(load_conn_t));
    storm.channels = need_memory(storm.nchannels, sizeof(channel_t));
    storm.epoll = load_epoll();
    for (i = 0; i < OPENING; i++) {
        storm.conns[i].fd = -1;
    }

    if (!storm.plain) {
        storm.pub = load_pub(argv, storm.nchannels);
        storm.size = load_pub_size(storm.pub);
        load_watch(storm.epoll, load_pub_fd(storm.pub), storm.pub);
        storm.asker.fd = connect_to(storm.port);
        for (i = 0; i < storm.nchannels; i++) {
            await(i, 0);
        }
    }

    load_serve(storm.nclients, command);
}
