/*
 * The load of the bench: what its modes share.
 *
 * A program that is told what to do by lines "COMMAND RATE COUNT" on its
 * standard input and answers each by a line of JSON.  When it has opened what
 * it needs it says {"open": N}.
 */

#ifndef LOAD_H
#define LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "bench.h"

typedef struct {
    uint64_t  sent, done;       /* asked for, got */
    uint64_t  wrong;            /* a sequence, status or body as none may be */
    uint64_t  wall;             /* ns */
    double    p50, p99, max;    /* ms, of done by the last; 0: not measured */
    double    each99;           /* ms, of each that is done */
    char      what[160];        /* the first that was wrong */
} load_result_t;

/* "run": all of it.  "post": what is asked for is sent, and no answer waited
   for; "rest": until all answers are there.  A mode says what it knows. */
typedef enum { LOAD_RUN, LOAD_POST, LOAD_REST } load_command_e;

typedef void (*load_command_pt)(load_command_e command, double rate,
    unsigned count, load_result_t *result);

/* opens what it needs, then calls load_serve() */
void load_fan(char **argv);
void load_poll(char **argv);
void load_connect(char **argv);
void load_storm(char **argv);

/* says how many are open, then calls COMMAND for each line until the input
   ends */
void load_serve(unsigned open, load_command_pt command);

/* counts what is wrong, and keeps what was the first */
void load_wrong(load_result_t *result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* an epoll set; a descriptor of it for reading, edge-triggered */
int load_epoll(void);
void load_watch(int epoll, int fd, void *data);

/* waits up to TIMEOUT ms, hands the data of what is ready to READY; how many
   there were */
int load_wait(int epoll, int timeout, void (*ready)(void *data));

/* ... in a run: 10 seconds without any are wrong */
void load_turn(int epoll, load_result_t *result, void (*ready)(void *data));

/* recv(): how many bytes, 0: none now; dies when the connection is lost */
size_t load_recv(int fd, char *buf, size_t room);

/* closed by a reset, which leaves nothing in TIME_WAIT */
void load_cut(int fd);


/* a connection that gets answers of up to LOAD_ANSWER - 1 bytes */

#define LOAD_ANSWER  8192

typedef struct {
    int       fd;
    unsigned  len;
    char      buf[LOAD_ANSWER];     /* ends with a zero byte */
} load_conn_t;

/* more of the answer, blocking: of connections that nothing else uses */
void load_wait_for(load_conn_t *conn);

/* false: nothing new.  Dies when the connection is lost or the answer long */
int load_read(load_conn_t *conn);

/* the length of the answer at BUF of LEN bytes, which must have room for a zero
   byte; 0: not all of it is there yet */
size_t load_answer(char *buf, size_t len, long *status, long *body);

/* asks and waits; the answer is in conn->buf */
void load_ask(load_conn_t *conn, const char *request, long *status,
    long *body);

/* the text of a header field of an answer, into OUT; false: it has none */
int load_field(const char *answer, const char *name, char *out, size_t room);


/* connections that ask again and again */

typedef struct {
    int             epoll;
    unsigned        n, count;       /* conns; of the run: how often to ask */
    load_conn_t    *conns;
    load_result_t  *result;         /* of the run */
    void          (*start)(load_conn_t *conn);      /* asks */
    void          (*ready)(void *conn);     /* reads, counts, starts again */
} load_conns_t;

/* option conns, or N of them; not connected */
void load_conns(load_conns_t *conns, char **argv, unsigned n);

/* load_serve() of "run 0 COUNT" */
void load_serve_conns(unsigned open, load_conns_t *conns);


/*
 * Payloads: "SEQUENCE MESSAGE CHANNEL xxx...".  The sequence is the channel's
 * own and goes up by one; the message is the run's.
 */

#define LOAD_NUMBERS  29        /* of a payload: "%010u %010u %06u " */
#define LOAD_PAYLOAD  2000      /* most bytes of one */

typedef struct {
    unsigned  sequence, message, channel;
} load_payload_t;

/* false: it is none of SIZE bytes */
int load_parse(const char *p, size_t n, unsigned size, load_payload_t *payload);


/* the publisher: PUBLISH, XADD (xadd=1) to Redis, or POST (http=N post=PATH) */

typedef struct load_pub_s  load_pub_t;

/* options redis, name, xadd, http, post, size of argv */
load_pub_t *load_pub(char **argv, unsigned channels);
int load_pub_fd(load_pub_t *pub);
unsigned load_pub_size(load_pub_t *pub);

/* the next of a channel, which is sent by the next flush, in one write; its
   sequence */
unsigned load_pub_add(load_pub_t *pub, unsigned channel, unsigned message);
size_t load_pub_pending(load_pub_t *pub);       /* bytes not flushed */
void load_pub_flush(load_pub_t *pub);

/* takes the answers that are there; how many publishes are not confirmed */
void load_pub_read(load_pub_t *pub);
uint64_t load_pub_open(load_pub_t *pub);


/* a client of an event stream */

#define LOAD_PART  1024         /* most of a line that may be read alone */

typedef struct {
    int       fd;
    unsigned  channel;
    unsigned  next;             /* sequence */
    int       state;            /* 0 status, 1 header, 2 stream */
    unsigned  len;
    char      part[LOAD_PART];
} load_sse_t;

/* connects and asks; FIELDS: more of the header, each with its CRLF */
void load_sse_open(load_sse_t *client, int port, int from, const char *path,
    const char *fields);

/* reads all there is: OPENED once for a 200, MESSAGE for each data.  Dies on
   any other status, a gap, or the end of the stream */
void load_sse_read(load_sse_t *client, void (*opened)(load_sse_t *client),
    void (*message)(load_sse_t *client, char *p, size_t n, uint64_t now));

/* the data's numbers, or NULL after telling what is wrong: a payload or
   sequence that is not the client's next */
load_payload_t *load_sse_check(load_sse_t *client, const char *p, size_t n,
    unsigned size, load_result_t *result);

#endif
