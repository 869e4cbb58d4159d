/* What the programs of the bench share, see bench.h. */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"


void
die(const char *format, ...)
{
    va_list  args;

    va_start(args, format);
    fprintf(stderr, "bench: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);

    exit(1);
}


const char *
opt_text(char **argv, const char *name, const char *none)
{
    size_t  n;

    n = strlen(name);

    while (*++argv != NULL) {
        if (strncmp(*argv, name, n) == 0 && (*argv)[n] == '=') {
            return *argv + n + 1;
        }
    }

    return none;
}


long
opt_number(char **argv, const char *name, long none)
{
    char        *end;
    long         n;
    const char  *text;

    text = opt_text(argv, name, NULL);
    if (text == NULL) {
        return none;
    }

    n = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0') {
        die("%s=%s is no number", name, text);
    }

    return n;
}


void *
need_memory(size_t n, size_t size)
{
    void  *p;

    p = calloc(n ? n : 1, size);
    if (p == NULL) {
        die("no memory");
    }

    return p;
}


uint64_t
now_ns(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}


void
prepare(long cpu)
{
    cpu_set_t      set;
    struct rlimit  limit;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }

    if (cpu < 0) {
        return;
    }

    CPU_ZERO(&set);
    CPU_SET((unsigned) cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) == -1) {
        die("CPU %ld: %s", cpu, strerror(errno));
    }
}


/* 127.0.0.N, which is 1 if N is 0 */

static struct sockaddr_in
loopback(int n, int port)
{
    struct sockaddr_in  sin;

    memset(&sin, 0, sizeof(sin));
    sin.sin_family = AF_INET;
    sin.sin_port = htons((uint16_t) port);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + (n ? (unsigned) n : 1));

    return sin;
}


static int
open_socket(int flags)
{
    int  fd, on;

    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd == -1) {
        die("socket: %s", strerror(errno));
    }

    on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

    return fd;
}


int
connect_to(int port)
{
    return connect_from(0, port);
}


int
connect_from(int from, int port)
{
    int                 fd, on;
    struct sockaddr_in  sin;

    fd = open_socket(0);

    if (from) {
        on = 1;
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
        sin = loopback(from, 0);
        if (bind(fd, (struct sockaddr *) &sin, sizeof(sin)) == -1) {
            die("127.0.0.%d: %s", from, strerror(errno));
        }
    }

    sin = loopback(0, port);
    if (connect(fd, (struct sockaddr *) &sin, sizeof(sin)) == -1) {
        die("connect to port %d: %s", port, strerror(errno));
    }

    return fd;
}


int
listen_on(int port)
{
    int                 fd, on;
    struct sockaddr_in  sin;

    fd = open_socket(SOCK_NONBLOCK);
    on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));

    sin = loopback(0, port);
    if (bind(fd, (struct sockaddr *) &sin, sizeof(sin)) == -1
        || listen(fd, 4096) == -1)
    {
        die("port %d: %s", port, strerror(errno));
    }

    return fd;
}


void
send_all(int fd, const char *data, size_t n)
{
    ssize_t        rc;
    struct pollfd  pfd;

    while (n > 0) {
        rc = send(fd, data, n, MSG_NOSIGNAL);
        if (rc > 0) {
            data += rc;
            n -= (size_t) rc;
            continue;
        }

        if (rc == -1 && errno == EAGAIN) {
            pfd.fd = fd;
            pfd.events = POLLOUT;
            poll(&pfd, 1, 1000);
            continue;
        }

        if (rc == -1 && errno != EINTR) {
            die("send: %s", strerror(errno));
        }
    }
}


int
fill_name(char *out, size_t size, const char *format, unsigned n)
{
    int          len;
    const char  *at;

    at = strstr(format, "%u");
    if (at == NULL) {
        len = snprintf(out, size, "%s", format);
    } else {
        len = snprintf(out, size, "%.*s%u%s", (int) (at - format), format, n,
                       at + 2);
    }

    if (len < 0 || (size_t) len >= size) {
        die("too long: %s", format);
    }

    return len;
}
