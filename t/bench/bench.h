/*
 * What the programs of the bench share: options, time, sockets.
 *
 * All of them end with a message and status 1 when anything is not as it must
 * be: there is no half a measurement.
 */

#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

/* options NAME=VALUE of the command line; NULL or the default when not given */
const char *opt_text(char **argv, const char *name, const char *none);
long opt_number(char **argv, const char *name, long none);

void die(const char *format, ...) __attribute__((format(printf, 1, 2),
                                                 noreturn));

void *need_memory(size_t n, size_t size);       /* zeroed, or dies */
uint64_t now_ns(void);                          /* CLOCK_MONOTONIC */

/* as many descriptors as may be; on this CPU only (-1: wherever); ends with
   the parent */
void prepare(long cpu);

int connect_to(int port);               /* blocking, TCP_NODELAY */
int connect_from(int from, int port);   /* from 127.0.0.FROM, 0: any */
int listen_on(int port);                /* non-blocking */

/* all of it, however long it takes */
void send_all(int fd, const char *data, size_t n);

/* the length of "PREFIX%u SUFFIX" written to a path or name that has one %u at
   most; dies when it does not fit */
int fill_name(char *out, size_t size, const char *format, unsigned n);

#endif
