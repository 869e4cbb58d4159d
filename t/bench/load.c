/*
 * The load of the bench, see load.h.
 *
 *     load fan port=N channels=N clients=N path=/sse/c%u redis=N name=c%u
 *     load storm port=N channels=N clients=N path=/sse/c%u redis=N name=c%u
 *     load poll port=N conns=N path=/304 status=304
 *     load connect port=N conns=N path=/small
 *
 * and cpu=N.  The modes say what else they take.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define BATCH  512


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


int
load_wait(int epoll, int timeout, void (*ready)(void *data))
{
    int                 i, n;
    struct epoll_event  events[BATCH];

    n = epoll_wait(epoll, events, BATCH, timeout);
    for (i = 0; i < n; i++) {
        ready(events[i].data.ptr);
    }

    return n;
}


void
load_turn(int epoll, load_result_t *result, void (*ready)(void *data))
{
    if (load_wait(epoll, 10000, ready) == 0) {
        load_wrong(result, "no answer within 10 seconds");
    }
}


size_t
load_recv(int fd, char *buf, size_t room)
{
    ssize_t  n;

    n = recv(fd, buf, room, MSG_DONTWAIT);
    if (n == -1 && errno == EAGAIN) {
        return 0;
    }

    if (n <= 0) {
        die("a connection is lost");
    }

    return (size_t) n;
}


void
load_cut(int fd)
{
    struct linger  linger;

    linger.l_onoff = 1;
    linger.l_linger = 0;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
}


int
load_read(load_conn_t *conn)
{
    size_t  n;

    if (conn->len == LOAD_ANSWER - 1) {
        die("a long answer");
    }

    n = load_recv(conn->fd, conn->buf + conn->len,
                  LOAD_ANSWER - conn->len - 1);
    conn->len += (unsigned) n;
    conn->buf[conn->len] = '\0';

    return n != 0;
}


void
load_wait_for(load_conn_t *conn)
{
    struct pollfd  pfd;

    pfd.fd = conn->fd;
    pfd.events = POLLIN;
    if (poll(&pfd, 1, 20000) == 0) {
        die("no answer within 20 seconds");
    }

    load_read(conn);
}


size_t
load_answer(char *buf, size_t len, long *status, long *body)
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


void
load_ask(load_conn_t *conn, const char *request, long *status, long *body)
{
    conn->len = 0;
    send_all(conn->fd, request, strlen(request));

    do {
        load_wait_for(conn);
    } while (load_answer(conn->buf, conn->len, status, body) == 0);
}


int
load_field(const char *answer, const char *name, char *out, size_t room)
{
    char         field[64];
    size_t       n;
    const char  *p, *end;

    snprintf(field, sizeof(field), "\r\n%s: ", name);
    p = strcasestr(answer, field);
    if (p == NULL) {
        return 0;
    }

    p += strlen(field);
    end = strchr(p, '\r');
    n = end != NULL ? (size_t) (end - p) : strlen(p);
    if (n >= room) {
        die("a long %s", name);
    }

    memcpy(out, p, n);
    out[n] = '\0';

    return 1;
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


static load_command_e
command_of(const char *name)
{
    if (strcmp(name, "run") == 0) {
        return LOAD_RUN;
    }

    if (strcmp(name, "post") == 0) {
        return LOAD_POST;
    }

    if (strcmp(name, "rest") != 0) {
        die("run, post or rest?");
    }

    return LOAD_REST;
}


void
load_serve(unsigned open, load_command_pt command)
{
    char          *p, line[256], name[16];
    double         rate;
    unsigned       count;
    load_result_t  result;

    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("{\"open\": %u}\n", open);

    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "%15s %lf %u", name, &rate, &count) != 3) {
            die("what is %s", line);
        }

        memset(&result, 0, sizeof(result));
        command(command_of(name), rate, count, &result);

        for (p = result.what; *p != '\0'; p++) {
            if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\') {
                *p = '.';
            }
        }

        printf("{\"sent\": %llu, \"done\": %llu, \"wrong\": %llu, "
               "\"wall\": %.6f, \"p50\": %.4f, \"p99\": %.4f, \"max\": %.4f, "
               "\"each99\": %.4f, \"what\": \"%s\"}\n",
               (unsigned long long) result.sent,
               (unsigned long long) result.done,
               (unsigned long long) result.wrong,
               (double) result.wall / 1e9, result.p50, result.p99, result.max,
               result.each99, result.what);
    }
}


void
load_conns(load_conns_t *conns, char **argv, unsigned n)
{
    conns->n = (unsigned) opt_number(argv, "conns", n);
    conns->conns = need_memory(conns->n, sizeof(load_conn_t));
    conns->epoll = load_epoll();
}


static load_conns_t  *served;


static void
run_conns(load_command_e command, double rate, unsigned count,
    load_result_t *result)
{
    unsigned  i;
    uint64_t  start;

    (void) rate;
    if (command != LOAD_RUN) {
        die("run is all it knows");
    }

    served->result = result;
    served->count = count;
    start = now_ns();

    for (i = 0; i < served->n && i < count; i++) {
        served->start(&served->conns[i]);
    }

    while (result->done < count && !result->wrong) {
        load_turn(served->epoll, result, served->ready);
    }

    result->wall = now_ns() - start;
}


void
load_serve_conns(unsigned open, load_conns_t *conns)
{
    served = conns;
    load_serve(open, run_conns);
}


int
main(int argc, char **argv)
{
    unsigned  i;

    static const struct {
        const char  *name;
        void       (*mode)(char **argv);
    } modes[] = {
        { "fan", load_fan },
        { "storm", load_storm },
        { "poll", load_poll },
        { "connect", load_connect },
    };

    prepare(opt_number(argv, "cpu", -1));

    for (i = 0; argc > 1 && i < sizeof(modes) / sizeof(*modes); i++) {
        if (strcmp(argv[1], modes[i].name) == 0) {
            modes[i].mode(argv);
            return 0;
        }
    }

    die("fan, storm, poll or connect?");
}
