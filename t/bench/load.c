/*
 * The load of the bench, see load.h.
 *
 *     load fan port=N channels=N clients=N path=/sse/c%u redis=N name=c%u
 *     load poll port=N conns=N path=/304 status=304
 *     load connect port=N conns=N path=/small
 *
 * and cpu=N.  The modes say what else they take.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "load.h"


int
load_epoll(void)
{
    int  fd;

    fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd == -1) {
        die("epoll: %s", strerror(errno));
    }

    return fd;
}


void
load_watch(int epoll, int fd, void *data)
{
    struct epoll_event  ev;

    ev.events = EPOLLIN | EPOLLET;
    ev.data.ptr = data;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) == -1) {
        die("epoll: %s", strerror(errno));
    }
}


void
load_wrong(load_result_t *result, const char *format, ...)
{
    va_list  args;

    if (result->wrong++ == 0) {
        va_start(args, format);
        vsnprintf(result->what, sizeof(result->what), format, args);
        va_end(args);
    }
}


void
load_serve(unsigned open, void (*run)(double rate, unsigned count,
    load_result_t *result))
{
    char          *p, line[256];
    double         rate;
    unsigned       count;
    load_result_t  result;

    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("{\"open\": %u}\n", open);

    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "run %lf %u", &rate, &count) != 2) {
            die("what is %s", line);
        }

        memset(&result, 0, sizeof(result));
        run(rate, count, &result);

        for (p = result.what; *p != '\0'; p++) {
            if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\') {
                *p = '.';
            }
        }

        printf("{\"sent\": %llu, \"done\": %llu, \"wrong\": %llu, "
               "\"wall\": %.6f, \"p50\": %.4f, \"p99\": %.4f, \"max\": %.4f, "
               "\"what\": \"%s\"}\n",
               (unsigned long long) result.sent,
               (unsigned long long) result.done,
               (unsigned long long) result.wrong,
               (double) result.wall / 1e9, result.p50, result.p99, result.max,
               result.what);
    }
}


int
main(int argc, char **argv)
{
    prepare(opt_number(argv, "cpu", -1));

    if (argc > 1 && strcmp(argv[1], "fan") == 0) {
        load_fan(argv);
    } else if (argc > 1 && strcmp(argv[1], "poll") == 0) {
        load_poll(argv);
    } else if (argc > 1 && strcmp(argv[1], "connect") == 0) {
        load_connect(argv);
    } else {
        die("fan, poll or connect?");
    }

    return 0;
}
