/*
 * The load of the bench: what its modes share.
 *
 * A program that is told what to do by lines on its standard input and answers
 * each by a line of JSON.  When it has opened what it needs it says
 * {"open": N}.
 */

#ifndef LOAD_H
#define LOAD_H

#include <stdint.h>

#include "bench.h"

typedef struct {
    uint64_t  sent, done;       /* asked for, got */
    uint64_t  wrong;            /* a sequence, status or body as none may be */
    uint64_t  wall;             /* ns */
    double    p50, p99, max;    /* ms, of done by the last; 0: not measured */
    char      what[160];        /* the first that was wrong */
} load_result_t;

/* opens what it needs, then calls load_serve() */
void load_fan(char **argv);
void load_poll(char **argv);
void load_connect(char **argv);

/* says how many are open, then run(RATE, COUNT) for each line "run RATE COUNT"
   until the input ends */
void load_serve(unsigned open, void (*run)(double rate, unsigned count,
    load_result_t *result));

/* counts what is wrong, and keeps what was the first */
void load_wrong(load_result_t *result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* an epoll set; a descriptor of it for reading, edge-triggered */
int load_epoll(void);
void load_watch(int epoll, int fd, void *data);

#endif
