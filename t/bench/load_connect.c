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

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "load.h"


static struct {
    int          port;
    int          len;               /* of the request */
    char         request[512];
    const char  *until;
} load;

static load_conns_t  all;


static void
open_conn(load_conn_t *conn)
{
    all.result->sent++;
    conn->len = 0;
    conn->fd = connect_to(load.port);
    send_all(conn->fd, load.request, (size_t) load.len);
    load_watch(all.epoll, conn->fd, conn);
}


static void
ready(void *data)
{
    load_conn_t  *conn;

    conn = data;
    if (!load_read(conn)) {
        return;
    }

    if (strncmp(conn->buf, "HTTP/1.1 200", 12) != 0) {
        load_wrong(all.result, "answered %.40s", conn->buf);
    }

    if (strstr(conn->buf, load.until) != NULL) {
        all.result->done++;
        load_cut(conn->fd);
        if (all.result->sent < all.count) {
            open_conn(conn);
        }
    }
}


/* opened, as many at once as there are places; they stay */

static void
keep(unsigned n)
{
    unsigned      i, k, part;
    load_conn_t  *conn;

    for (i = 0; i < n; i += part) {
        part = n - i < all.n ? n - i : all.n;

        for (k = 0; k < part; k++) {
            conn = &all.conns[k];
            conn->len = 0;
            conn->fd = connect_to(load.port);
            send_all(conn->fd, load.request, (size_t) load.len);
        }

        for (k = 0; k < part; k++) {
            conn = &all.conns[k];
            do {
                load_wait_for(conn);
            } while (strstr(conn->buf, load.until) == NULL);
        }
    }
}


void
load_connect(char **argv)
{
    unsigned  kept;

    load.port = (int) opt_number(argv, "port", 8080);
    load.until = opt_text(argv, "until", "\r\n\r\n");
    load_conns(&all, argv, 32);

    load.len = snprintf(load.request, sizeof(load.request),
                        "GET %s HTTP/1.1\r\nHost: bench\r\nAccept: %s\r\n\r\n",
                        opt_text(argv, "path", "/small"),
                        opt_text(argv, "accept", "*/*"));

    kept = (unsigned) opt_number(argv, "keep", 0);
    keep(kept);
    all.start = open_conn;
    all.ready = ready;
    load_serve_conns(kept, &all);
}
