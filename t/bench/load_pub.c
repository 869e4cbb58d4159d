/* The publisher of a load, and payloads; see load.h. */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "load.h"

#define READ  (64 * 1024)


struct load_pub_s {
    int        fd, http, xadd;
    unsigned   size;
    unsigned  *sequence;            /* of each channel, the last published */
    char     (*name)[64];           /* channel, or path to post to */
    uint64_t   confirmed, published;        /* answers */

    char      *out;                 /* not flushed */
    size_t     len, room;

    int        kept, fresh;         /* of an answer that may be cut */
    char       in[READ + 16];
};


int
load_pub_fd(load_pub_t *pub)
{
    return pub->fd;
}


unsigned
load_pub_size(load_pub_t *pub)
{
    return pub->size;
}


size_t
load_pub_pending(load_pub_t *pub)
{
    return pub->len;
}


uint64_t
load_pub_open(load_pub_t *pub)
{
    return pub->published - pub->confirmed;
}


load_pub_t *
load_pub(char **argv, unsigned channels)
{
    unsigned     i;
    load_pub_t  *pub;
    const char  *name;

    pub = need_memory(1, sizeof(*pub));
    pub->fresh = 1;
    pub->size = (unsigned) opt_number(argv, "size", 200);
    pub->xadd = opt_number(argv, "xadd", 0) != 0;
    pub->http = opt_text(argv, "http", NULL) != NULL;
    if (pub->size < LOAD_NUMBERS || pub->size > LOAD_PAYLOAD || channels == 0) {
        die("size from %d to %d, and a channel at least", LOAD_NUMBERS,
            LOAD_PAYLOAD);
    }

    pub->sequence = need_memory(channels, sizeof(unsigned));
    pub->name = need_memory(channels, sizeof(*pub->name));
    name = opt_text(argv, pub->http ? "post" : "name", "c%u");
    for (i = 0; i < channels; i++) {
        fill_name(pub->name[i], sizeof(*pub->name), name, i);
    }

    pub->fd = connect_to((int) opt_number(argv, pub->http ? "http" : "redis",
                                          6379));

    return pub;
}


static int
format(load_pub_t *pub, char *out, size_t room, unsigned channel,
    const char *payload)
{
    int          n;
    const char  *name;

    name = pub->name[channel];

    if (pub->http) {
        n = snprintf(out, room, "POST %s HTTP/1.1\r\nHost: bench\r\n"
                     "Content-Length: %u\r\n\r\n%s", name, pub->size, payload);

    } else if (pub->xadd) {
        n = snprintf(out, room, "*5\r\n$4\r\nXADD\r\n$%zu\r\n%s\r\n"
                     "$1\r\n*\r\n$4\r\ndata\r\n$%u\r\n%s\r\n", strlen(name),
                     name, pub->size, payload);
    } else {
        n = snprintf(out, room, "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n%s\r\n"
                     "$%u\r\n%s\r\n", strlen(name), name, pub->size, payload);
    }

    if (n < 0 || (size_t) n >= room) {
        die("a message is too long");
    }

    return n;
}


unsigned
load_pub_add(load_pub_t *pub, unsigned channel, unsigned message)
{
    char      payload[LOAD_PAYLOAD + 1];
    unsigned  numbers;

    numbers = (unsigned) snprintf(payload, sizeof(payload),
                                  "%010u %010u %06u ",
                                  ++pub->sequence[channel], message, channel);
    memset(payload + numbers, 'x', pub->size - numbers);
    payload[pub->size] = '\0';

    if (pub->room - pub->len < LOAD_PAYLOAD + 512) {
        pub->room = pub->room * 2 + 64 * 1024;
        pub->out = realloc(pub->out, pub->room);
        if (pub->out == NULL) {
            die("no memory");
        }
    }

    pub->len += (size_t) format(pub, pub->out + pub->len,
                                pub->room - pub->len, channel, payload);
    pub->published += pub->xadd ? 2 : 1;

    return pub->sequence[channel];
}


void
load_pub_flush(load_pub_t *pub)
{
    send_all(pub->fd, pub->out, pub->len);
    pub->len = 0;
}


/* ":N" or "-..." (XADD: "$N" and the id) */

static void
read_redis(load_pub_t *pub, char *p, char *end)
{
    for ( /* void */ ; p < end; p++) {
        if (pub->fresh && *p == '-') {
            die("Redis: %.*s", (int) (end - p), p);
        }
        pub->fresh = *p == '\n';
        pub->confirmed += (uint64_t) pub->fresh;
    }
}


/* one "HTTP/1.1 " each; what may be cut is kept */

static void
read_http(load_pub_t *pub, char *p, char *end)
{
    char  *start;

    start = p;

    while ((p = memmem(p, (size_t) (end - p), "HTTP/1.1 ", 9)) != NULL) {
        if (end - p < 12) {
            break;
        }
        if (p[9] != '2') {
            die("a publish is answered: %.*s", (int) (end - p), p);
        }
        pub->confirmed++;
        p += 12;
    }

    pub->kept = (int) (p != NULL ? end - p
                       : end - start < 8 ? end - start : 8);
    memmove(start, end - pub->kept, (size_t) pub->kept);
}


void
load_pub_read(load_pub_t *pub)
{
    size_t  n;

    while ((n = load_recv(pub->fd, pub->in + pub->kept, READ)) != 0) {
        if (pub->http) {
            read_http(pub, pub->in, pub->in + pub->kept + n);
        } else {
            read_redis(pub, pub->in, pub->in + n);
        }
    }
}


static int
digits(const char **p, int n, unsigned *value)
{
    *value = 0;

    for ( /* void */ ; n > 0; n--, (*p)++) {
        if (**p < '0' || **p > '9') {
            return 0;
        }
        *value = *value * 10 + (unsigned) (**p - '0');
    }

    return *(*p)++ == ' ';
}


int
load_parse(const char *p, size_t n, unsigned size, load_payload_t *payload)
{
    static char  filler[LOAD_PAYLOAD];

    if (filler[0] == '\0') {
        memset(filler, 'x', sizeof(filler));
    }

    return n == size
           && digits(&p, 10, &payload->sequence)
           && digits(&p, 10, &payload->message)
           && digits(&p, 6, &payload->channel)
           && memcmp(p, filler, n - LOAD_NUMBERS) == 0;
}
