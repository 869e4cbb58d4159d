/*
 * What a send costs: ngx_rt_send_all() by io_uring against a loop of send(), in
 * turn, over the same sockets.  Another process reads.
 *
 *     sends [n=N] [rounds=N] [size=N] [parts=N]
 *
 * n: sockets, of which each gets one message of size bytes in a round, in so
 * many parts.  Before the next round all of it has been read.  Told are the
 * medians of CPU time (user and system, of the process that sends) for one
 * send, and the median of what they are to each other in a round.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include "../../ngx_rt_module/ngx_rt_sender.c"
#include "bench.h"


#define EVENTS  512


static ngx_log_t  logs;

static struct {
    size_t          n, size, parts, rounds;
    ngx_rt_send_t  *sends;
    uint64_t       *read;               /* bytes, shared with the reader */
} sends;


static uint64_t
cpu_ns(void)
{
    struct timespec  ts;

    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) == -1) {
        die("clock_gettime: %s", strerror(errno));
    }

    return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}


static void
reader(int port, int ready)
{
    int                 i, n, epoll, fd;
    size_t              k;
    ssize_t             got;
    struct epoll_event  event, events[EVENTS];
    static char         buf[65536];

    epoll = epoll_create1(0);

    for (k = 0; k < sends.n; k++) {
        fd = connect_to(port);
        event.events = EPOLLIN;
        event.data.fd = fd;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == -1
            || write(ready, "", 1) != 1)
        {
            die("reader: %s", strerror(errno));
        }
    }

    for ( ;; ) {
        n = epoll_wait(epoll, events, EVENTS, -1);

        for (i = 0; i < n; i++) {
            got = recv(events[i].data.fd, buf, sizeof(buf), MSG_DONTWAIT);
            if (got <= 0) {
                exit(0);
            }

            __atomic_fetch_add(sends.read, (uint64_t) got, __ATOMIC_RELAXED);
        }
    }
}


static void
connect_all(void)
{
    int                 fd, listener, fds[2];
    char                byte;
    size_t              i;
    socklen_t           len;
    struct sockaddr_in  addr;

    listener = listen_on(0);
    len = sizeof(addr);

    if (pipe(fds) == -1
        || getsockname(listener, (struct sockaddr *) &addr, &len) == -1)
    {
        die("listen: %s", strerror(errno));
    }

    switch (fork()) {
    case -1:
        die("fork: %s", strerror(errno));
    case 0:
        prepare(1);
        reader(ntohs(addr.sin_port), fds[1]);
    }

    prepare(0);

    for (i = 0; i < sends.n; i++) {
        if (read(fds[0], &byte, 1) != 1) {
            die("no reader");
        }

        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd == -1) {
            die("accept: %s", strerror(errno));
        }

        sends.sends[i].fd = fd;
    }

    close(listener);
}


/* in ns a send */

static uint64_t
round_of(int ring)
{
    size_t           i;
    uint64_t         cost, start;
    struct timespec  nap = { 0, 100000 };
    static uint64_t  sent;

    start = cpu_ns();

    if (ring) {
        ngx_rt_send_all(sends.sends, sends.n);

    } else {
        for (i = 0; i < sends.n; i++) {
            ngx_rt_sender_call(&sends.sends[i]);
        }
    }

    cost = cpu_ns() - start;

    for (i = 0; i < sends.n; i++) {
        if (sends.sends[i].result != (ssize_t) sends.size) {
            die("a send: %zd", sends.sends[i].result);
        }
    }

    sent += sends.n * sends.size;

    start = now_ns();

    while (__atomic_load_n(sends.read, __ATOMIC_RELAXED) != sent) {
        if (now_ns() - start > 20000000000) {
            die("not all is read");
        }

        nanosleep(&nap, NULL);
    }

    return cost / sends.n;
}


static int
compare(const void *one, const void *two)
{
    double  a = *(const double *) one, b = *(const double *) two;

    return (a > b) - (a < b);
}


static double
median(double *values)
{
    qsort(values, sends.rounds, sizeof(double), compare);

    return values[sends.rounds / 2];
}


int
main(int argc, char **argv)
{
    char          *text;
    double        *loop, *ring, *ratio;
    size_t         i, k, part;
    ngx_cycle_t    cycle;
    struct iovec  *vec;

    (void) argc;

    sends.n = (size_t) opt_number(argv, "n", 1000);
    sends.size = (size_t) opt_number(argv, "size", 250);
    sends.parts = (size_t) opt_number(argv, "parts", 1);
    sends.rounds = (size_t) opt_number(argv, "rounds", 100);

    text = need_memory(sends.size, 1);
    vec = need_memory(sends.parts, sizeof(struct iovec));
    part = sends.size / sends.parts;

    for (i = 0; i < sends.parts; i++) {
        vec[i].iov_base = text + i * part;
        vec[i].iov_len = (i + 1 < sends.parts) ? part : sends.size - i * part;
    }

    sends.sends = need_memory(sends.n, sizeof(ngx_rt_send_t));

    for (i = 0; i < sends.n; i++) {
        sends.sends[i].nvec = sends.parts;
        sends.sends[i].vec = vec;
    }

    sends.read = mmap(NULL, 4096, PROT_READ|PROT_WRITE,
                      MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    if (sends.read == MAP_FAILED) {
        die("mmap: %s", strerror(errno));
    }

    connect_all();

    memset(&cycle, 0, sizeof(cycle));
    cycle.log = &logs;
    ngx_cycle = &cycle;
    ngx_rt_sender_init(&cycle);

    if (!ngx_rt_sender_ring()) {
        die("no io_uring here");
    }

    loop = need_memory(sends.rounds, sizeof(double));
    ring = need_memory(sends.rounds, sizeof(double));
    ratio = need_memory(sends.rounds, sizeof(double));

    /* one round of each for nothing, then who is first alternates */

    for (k = 0; k <= sends.rounds; k++) {
        i = k ? k - 1 : 0;

        if (k % 2) {
            loop[i] = (double) round_of(0);
            ring[i] = (double) round_of(1);

        } else {
            ring[i] = (double) round_of(1);
            loop[i] = (double) round_of(0);
        }

        ratio[i] = ring[i] / loop[i];
    }

    printf("%zu sockets, %zu bytes in %zu: loop %.0f ns, io_uring %.0f ns, "
           "%.3f\n", sends.n, sends.size, sends.parts, median(loop),
           median(ring), median(ratio));

    ngx_rt_sender_exit();

    return 0;
}
