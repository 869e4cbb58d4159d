/* A client of an event stream, see load.h. */

#define _GNU_SOURCE

#include <stdio.h>
#include <string.h>

#include "load.h"

#define READ  (64 * 1024)


void
load_sse_open(load_sse_t *client, int port, int from, const char *path,
    const char *fields)
{
    int   n;
    char  request[512];

    client->fd = connect_from(from, port);
    client->state = 0;
    client->len = 0;

    n = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: bench\r\n"
                 "Accept: text/event-stream\r\n%s\r\n", path, fields);
    if (n < 0 || (size_t) n >= sizeof(request)) {
        die("a long request");
    }

    send_all(client->fd, request, (size_t) n);
}


static void
line(load_sse_t *client, char *p, size_t n, uint64_t now,
    void (*opened)(load_sse_t *client),
    void (*message)(load_sse_t *client, char *p, size_t n, uint64_t now))
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
            opened(client);
        }
        break;

    default:
        if (n > 6 && memcmp(p, "data: ", 6) == 0) {
            message(client, p + 6, n - 6, now);

        } else if (n > 12 && memcmp(p, "event: rt.ga", 12) == 0) {
            die("a gap: messages were lost");
        }
    }
}


void
load_sse_read(load_sse_t *client, void (*opened)(load_sse_t *client),
    void (*message)(load_sse_t *client, char *p, size_t n, uint64_t now))
{
    char        *p, *end, *nl;
    size_t       n;
    uint64_t     now;
    static char  buf[READ + LOAD_PART + 1];

    do {
        memcpy(buf, client->part, client->len);
        n = load_recv(client->fd, buf + client->len, READ);
        if (n == 0) {
            return;
        }

        now = now_ns();
        p = buf;
        end = buf + client->len + n;

        while ((nl = memchr(p, '\n', (size_t) (end - p))) != NULL) {
            line(client, p, (size_t) (nl - p), now, opened, message);
            p = nl + 1;
        }

        client->len = (unsigned) (end - p);
        if (client->len > LOAD_PART) {
            die("a long line");
        }

        memcpy(client->part, p, client->len);

    } while (n == READ);
}


load_payload_t *
load_sse_check(load_sse_t *client, const char *p, size_t n, unsigned size,
    load_result_t *result)
{
    static load_payload_t  payload;

    if (!load_parse(p, n, size, &payload)) {
        load_wrong(result, "a payload of %zu bytes: %.*s", n,
                   (int) (n < 60 ? n : 60), p);
        return NULL;
    }

    if (payload.sequence != client->next || payload.channel != client->channel)
    {
        load_wrong(result, "sequence: %u of channel %u instead of %u of %u",
                   payload.sequence, payload.channel, client->next,
                   client->channel);
        client->next = payload.sequence + 1;
        return NULL;
    }

    client->next++;

    return &payload;
}
