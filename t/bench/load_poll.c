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

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

#define ETAGS  16                   /* that are asked for at once */


static struct {
    long       status, body;
    unsigned   nchannels;
    char     **request;             /* of each channel */
    unsigned   random;
} load;

static load_conns_t  all;


static void
ask(load_conn_t *conn)
{
    unsigned  channel;

    load.random = load.random * 1664525u + 1013904223u;
    channel = (unsigned) ((uint64_t) load.random * load.nchannels >> 32);

    all.result->sent++;
    send_all(conn->fd, load.request[channel], strlen(load.request[channel]));
}


static void
ready(void *data)
{
    long          status, body;
    size_t        n;
    load_conn_t  *conn;

    conn = data;
    if (!load_read(conn)) {
        return;
    }

    n = load_answer(conn->buf, conn->len, &status, &body);
    if (n == 0) {
        return;
    }

    if (status != load.status || body != load.body || n != conn->len) {
        load_wrong(all.result, "answered %ld with %ld bytes instead of %ld "
                   "with %ld", status, body, load.status, load.body);
    }

    all.result->done++;
    conn->len = 0;

    if (all.result->sent < all.count) {
        ask(conn);
    }
}


static char *
make_request(const char *path, const char *etag)
{
    char  request[1024];

    snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: bench\r\n"
             "%s%s%s\r\n", path, *etag ? "If-None-Match: " : "", etag,
             *etag ? "\r\n" : "");

    return strdup(request);
}


/* the ETags of COUNT channels from FIRST on, asked for at once, are what they
   are asked with from now on */

static void
take_etags(load_conn_t *conn, const char *path, unsigned first, unsigned count)
{
    char      name[256], etag[256];
    long      status, body;
    size_t    n;
    unsigned  i;

    for (i = first; i < first + count; i++) {
        send_all(conn->fd, load.request[i], strlen(load.request[i]));
    }

    conn->len = 0;
    conn->buf[0] = '\0';

    for (i = first; i < first + count; i++) {
        while ((n = load_answer(conn->buf, conn->len, &status, &body)) == 0) {
            load_wait_for(conn);
        }

        if (!load_field(conn->buf, "ETag", etag, sizeof(etag))) {
            die("%s: %ld without ETag", path, status);
        }

        fill_name(name, sizeof(name), path, i);
        free(load.request[i]);
        load.request[i] = make_request(name, etag);
        conn->len -= (unsigned) n;
        memmove(conn->buf, conn->buf + n, conn->len);
    }
}


void
load_poll(char **argv)
{
    int          port, etag;
    char         name[256];
    unsigned     i, n;
    const char  *path;

    port = (int) opt_number(argv, "port", 8080);
    path = opt_text(argv, "path", "/304");
    etag = opt_number(argv, "etag", 0) != 0;
    load.status = opt_number(argv, "status", 304);
    load.body = opt_number(argv, "body", 0);
    load_conns(&all, argv, 64);
    load.nchannels = (unsigned) opt_number(argv, "channels", 1);
    load.request = need_memory(load.nchannels, sizeof(char *));
    load.random = 1;

    for (i = 0; i < all.n; i++) {
        all.conns[i].fd = connect_to(port);
        load_watch(all.epoll, all.conns[i].fd, &all.conns[i]);
    }

    for (i = 0; i < load.nchannels; i++) {
        fill_name(name, sizeof(name), path, i);
        load.request[i] = make_request(name, "");
    }

    for (i = 0; etag && i < load.nchannels; i += n) {
        n = load.nchannels - i < ETAGS ? load.nchannels - i : ETAGS;
        take_etags(&all.conns[0], path, i, n);
    }

    all.start = ask;
    all.ready = ready;
    load_serve_conns(all.n, &all);
}
