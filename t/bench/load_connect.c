/*
 * Connections: each is opened, asks, gets the beginning of its answer, and is
 * cut (a reset: it leaves nothing in TIME_WAIT).
 *
 *     load connect port=N conns=32 path=/small [until=TEXT] [accept=TYPE]
 *                  [keep=N]
 *
 * until: what the answer must have in it, default the end of its header.
 * "run 0 COUNT" opens COUNT of them.  keep: N are opened at the start and stay
 * open, as many as asked for by memory's measurement.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define ANSWER   4096
#define BATCH    64


typedef struct {
    int       fd;
    unsigned  len;
    char      buf[ANSWER];
} conn_t;

static struct {
    int             epoll, port;
    int             len;            /* of the request */
    char            request[512];
    const char     *until;
    unsigned        nconns;
    conn_t         *conns;
    unsigned        count;
    load_result_t  *result;
} load;


static void
open_conn(conn_t *conn)
{
    load.result->sent++;
    conn->len = 0;
    conn->fd = connect_to(load.port);
    send_all(conn->fd, load.request, (size_t) load.len);
    load_watch(load.epoll, conn->fd, conn);
}


static void
cut(conn_t *conn)
{
    struct linger  linger;

    linger.l_onoff = 1;
    linger.l_linger = 0;
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(conn->fd);
}


/* true: what was waited for is there */

static int
read_conn(conn_t *conn)
{
    ssize_t  n;

    n = recv(conn->fd, conn->buf + conn->len, ANSWER - conn->len - 1,
             MSG_DONTWAIT);
    if (n == -1 && errno == EAGAIN) {
        return 0;
    }

    if (n <= 0) {
        die("a connection is lost");
    }

    conn->len += (unsigned) n;
    conn->buf[conn->len] = '\0';

    if (strncmp(conn->buf, "HTTP/1.1 200", 12) != 0) {
        load_wrong(load.result, "answered %.40s", conn->buf);
    }

    return strstr(conn->buf, load.until) != NULL;
}


static void
run(double rate, unsigned count, load_result_t *result)
{
    int                 i, n;
    conn_t             *conn;
    unsigned            k;
    uint64_t            start;
    struct epoll_event  events[BATCH];

    (void) rate;
    load.result = result;
    load.count = count;
    start = now_ns();

    for (k = 0; k < load.nconns && k < count; k++) {
        open_conn(&load.conns[k]);
    }

    while (result->done < count && !result->wrong) {
        n = epoll_wait(load.epoll, events, BATCH, 10000);
        if (n == 0) {
            load_wrong(result, "no answer within 10 seconds");
        }

        for (i = 0; i < n; i++) {
            conn = events[i].data.ptr;
            if (read_conn(conn)) {
                result->done++;
                cut(conn);
                if (result->sent < count) {
                    open_conn(conn);
                }
            }
        }
    }

    result->wall = now_ns() - start;
}


/* opened one by one; they stay */

static void
keep(unsigned n)
{
    int            fd;
    char           buf[ANSWER];
    size_t         len;
    ssize_t        got;
    unsigned       i;

    for (i = 0; i < n; i++) {
        fd = connect_to(load.port);
        send_all(fd, load.request, (size_t) load.len);
        len = 0;
        do {
            got = recv(fd, buf + len, sizeof(buf) - len - 1, 0);
            if (got <= 0) {
                die("a connection is lost");
            }
            len += (size_t) got;
            buf[len] = '\0';
        } while (strstr(buf, load.until) == NULL);
    }
}


void
load_connect(char **argv)
{
    unsigned  kept;

    load.port = (int) opt_number(argv, "port", 8080);
    load.until = opt_text(argv, "until", "\r\n\r\n");
    load.nconns = (unsigned) opt_number(argv, "conns", 32);
    load.conns = need_memory(load.nconns, sizeof(conn_t));
    load.epoll = load_epoll();

    load.len = snprintf(load.request, sizeof(load.request),
                        "GET %s HTTP/1.1\r\nHost: bench\r\nAccept: %s\r\n\r\n",
                        opt_text(argv, "path", "/small"),
                        opt_text(argv, "accept", "*/*"));

    kept = (unsigned) opt_number(argv, "keep", 0);
    keep(kept);
    load_serve(kept, run);
}
