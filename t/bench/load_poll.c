/*
 * Polls on connections that are kept: the next request of each follows its
 * answer.
 *
 *     load poll port=N conns=64 path=/rt/c%u [channels=N] [status=304]
 *               [body=200] [etag=1]
 *
 * status and body: what each answer must be.  etag: the ETag of each channel
 * is asked for first, and is If-None-Match then.  The channels are asked for
 * in an order as if by chance.  "run 0 COUNT" asks COUNT times.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "load.h"

#define ANSWER   8192
#define BATCH    64


typedef struct {
    int       fd;
    unsigned  len;
    char      buf[ANSWER];
} conn_t;

static struct {
    int             epoll;
    long            status, body;
    unsigned        nconns, nchannels;
    conn_t         *conns;
    char          **request;        /* of each channel */
    unsigned        random;
    unsigned        count;
    load_result_t  *result;
} load;


static void
ask(conn_t *conn)
{
    unsigned  channel;

    load.random = load.random * 1664525u + 1013904223u;
    channel = (unsigned) ((uint64_t) load.random * load.nchannels >> 32);

    load.result->sent++;
    send_all(conn->fd, load.request[channel], strlen(load.request[channel]));
}


/* the length of the answer at BUF, 0: not all of it is there yet */

static size_t
answer(char *buf, size_t len, long *status, long *body)
{
    char  *end, *field;

    buf[len] = '\0';
    end = strstr(buf, "\r\n\r\n");
    if (end == NULL) {
        return 0;
    }

    *status = strtol(buf + 9, NULL, 10);
    *body = 0;

    if (*status != 304 && *status != 204) {
        field = strcasestr(buf, "\r\nContent-Length: ");
        if (field == NULL || field > end) {
            die("an answer without length: %s", buf);
        }
        *body = strtol(field + 18, NULL, 10);
    }

    if (len < (size_t) (end + 4 - buf) + (size_t) *body) {
        return 0;
    }

    return (size_t) (end + 4 - buf) + (size_t) *body;
}


static void
read_conn(conn_t *conn)
{
    long     status, body;
    size_t   n;
    ssize_t  got;

    got = recv(conn->fd, conn->buf + conn->len, ANSWER - conn->len - 1,
               MSG_DONTWAIT);
    if (got == -1 && errno == EAGAIN) {
        return;
    }

    if (got <= 0) {
        die("a connection is lost");
    }

    conn->len += (unsigned) got;
    n = answer(conn->buf, conn->len, &status, &body);
    if (n == 0) {
        if (conn->len == ANSWER - 1) {
            die("a long answer");
        }
        return;
    }

    if (status != load.status || body != load.body || n != conn->len) {
        load_wrong(load.result, "answered %ld with %ld bytes instead of %ld "
                   "with %ld", status, body, load.status, load.body);
    }

    load.result->done++;
    conn->len = 0;

    if (load.result->sent < load.count) {
        ask(conn);
    }
}


static void
run(double rate, unsigned count, load_result_t *result)
{
    int                 i, n;
    unsigned            k;
    uint64_t            start;
    struct epoll_event  events[BATCH];

    (void) rate;
    load.result = result;
    load.count = count;
    start = now_ns();

    for (k = 0; k < load.nconns && k < count; k++) {
        ask(&load.conns[k]);
    }

    while (result->done < count) {
        n = epoll_wait(load.epoll, events, BATCH, 10000);
        if (n == 0) {
            load_wrong(result, "no answer within 10 seconds");
            break;
        }
        for (i = 0; i < n; i++) {
            read_conn(events[i].data.ptr);
        }
    }

    result->wall = now_ns() - start;
}


/* what a channel is asked with, after one request for its ETag */

static char *
make_request(int fd, const char *path, int etag)
{
    int      n;
    char     buf[ANSWER], *field, *text;
    long     status, body;
    size_t   len;
    ssize_t  got;

    n = snprintf(buf, sizeof(buf), "GET %s HTTP/1.1\r\nHost: bench\r\n", path);
    if (etag) {
        len = 0;
        send_all(fd, buf, (size_t) n);
        send_all(fd, "\r\n", 2);
        do {
            got = recv(fd, buf + len, sizeof(buf) - len - 1, 0);
            if (got <= 0) {
                die("%s: no answer", path);
            }
            len += (size_t) got;
        } while (answer(buf, len, &status, &body) == 0);

        field = strcasestr(buf, "\r\nETag: ");
        if (field == NULL) {
            die("%s: %ld without ETag", path, status);
        }
        field += 8;
        *strchr(field, '\r') = '\0';
        text = strdup(field);
        n = snprintf(buf, sizeof(buf), "GET %s HTTP/1.1\r\nHost: bench\r\n"
                     "If-None-Match: %s\r\n", path, text);
        free(text);
    }

    memcpy(buf + n, "\r\n", 3);

    return strdup(buf);
}


void
load_poll(char **argv)
{
    int       fd, port, etag;
    char      path[256];
    unsigned  i;

    port = (int) opt_number(argv, "port", 8080);
    etag = opt_number(argv, "etag", 0) != 0;
    load.status = opt_number(argv, "status", 304);
    load.body = opt_number(argv, "body", 0);
    load.nconns = (unsigned) opt_number(argv, "conns", 64);
    load.nchannels = (unsigned) opt_number(argv, "channels", 1);
    load.request = need_memory(load.nchannels, sizeof(char *));
    load.conns = need_memory(load.nconns, sizeof(conn_t));
    load.random = 1;
    load.epoll = load_epoll();

    fd = connect_to(port);
    for (i = 0; i < load.nchannels; i++) {
        fill_name(path, sizeof(path), opt_text(argv, "path", "/304"), i);
        load.request[i] = make_request(fd, path, etag);
    }

    for (i = 0; i < load.nconns; i++) {
        load.conns[i].fd = connect_to(port);
        load_watch(load.epoll, load.conns[i].fd, &load.conns[i]);
    }

    load_serve(load.nconns, run);
}
