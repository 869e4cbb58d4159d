
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What t/66-held.t measures with: thousands of clients in one process, and
 * the least of a server that could hold them.
 *
 *     held client
 *     held bare PORT PROCESSES REDIS-PORT CHANNEL
 *
 * Both take commands, a line each, from stdin, answer each with a line and
 * end with it.  Times are of CLOCK_MONOTONIC, in ns.
 *
 * client, of all connections:
 *
 *     connect N PORT         makes N new ones
 *     ask PATH WAIT          sends a GET, with the ETag of its last answer
 *     gather MS              collects answers until all that were asked have
 *                            one, or MS have passed.  "left first last": who
 *                            has none, when the first and last came
 *     check                  "n kinds extra closed status etag body": how
 *                            many answers, in how many different forms
 *                            (status, ETag, body); bytes that nobody asked
 *                            for; connections that the server closed; and
 *                            the first answer
 *     save FILE              the first answer as it came
 *     close                  all of them
 *
 * bare: each process has its own subscription of CHANNEL and sends the answer
 * to all that asked as soon as a message is there.
 *
 *     answer FILE            what to send
 *     held                   how many are waiting
 */


#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


#define MAX      16384      /* connections of a process */
#define ANSWER   1024       /* bytes of an answer */
#define EVENTS   512


typedef struct {
    int         fd;         /* -1: closed */
    int         asked;
    int         extra;
    size_t      len;
    size_t      need;       /* 0: its header is not whole yet */
    char        etag[128];
    char        buf[ANSWER];
} conn_t;


typedef struct {
    size_t      len;
    char        buf[ANSWER];
    int         held[];     /* of each process */
} shared_t;


static conn_t              conns[MAX];
static int                 nconns, ep;
static struct epoll_event  events[EVENTS];


static void
die(const char *what)
{
    perror(what);
    exit(1);
}


static long long
now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}


static int
tcp(int port, int listening)
{
    int                 fd, on;
    struct sockaddr_in  sin;

    memset(&sin, 0, sizeof(sin));
    sin.sin_family = AF_INET;
    sin.sin_port = htons(port);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    on = 1;
    fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd == -1) {
        die("socket");
    }

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

    if (listening) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));

        if (bind(fd, (struct sockaddr *) &sin, sizeof(sin)) == -1
            || listen(fd, 4096) == -1)
        {
            die("listen");
        }

    } else if (connect(fd, (struct sockaddr *) &sin, sizeof(sin)) == -1) {
        die("connect");
    }

    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);

    return fd;
}


static void
watch(int fd, void *data)
{
    struct epoll_event  ee;

    ee.events = EPOLLIN;
    ee.data.ptr = data;

    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ee) == -1) {
        die("epoll_ctl");
    }
}


static void
gone(conn_t *c)
{
    close(c->fd);
    c->fd = -1;
}


/* the value of a header, which must be there; its length */

static size_t
header(const conn_t *c, const char *name, const char **value)
{
    *value = memmem(c->buf, c->len, name, strlen(name));

    if (*value == NULL) {
        return 0;
    }

    *value += strlen(name);

    return strcspn(*value, "\r");
}


static size_t
head_len(const conn_t *c)
{
    char  *end;

    end = memmem(c->buf, c->len, "\r\n\r\n", 4);

    return end ? (size_t) (end + 4 - c->buf) : 0;
}


/* 1: the answer is whole now */

static int
take(conn_t *c)
{
    char         junk[256];
    ssize_t      n;
    const char  *value;

    if (!c->asked || (c->need && c->len >= c->need)) {
        n = recv(c->fd, junk, sizeof(junk), 0);

        if (n > 0) {
            c->extra += n;

        } else if (n == 0 || errno != EAGAIN) {
            gone(c);
        }

        return 0;
    }

    n = recv(c->fd, c->buf + c->len, ANSWER - 1 - c->len, 0);

    if (n <= 0) {

        if (n == 0 || errno != EAGAIN) {
            gone(c);
        }

        return 0;
    }

    c->len += n;
    c->buf[c->len] = '\0';

    if (c->need == 0) {
        c->need = head_len(c);

        if (c->need && header(c, "Content-Length: ", &value)) {
            c->need += atoi(value);
        }
    }

    if (c->need == 0 || c->len < c->need) {
        return 0;
    }

    c->extra += c->len - c->need;

    return 1;
}


static void
cmd_connect(int n, int port)
{
    conn_t  *c;

    for ( /* void */ ; n > 0 && nconns < MAX; n--) {
        c = &conns[nconns++];
        memset(c, 0, sizeof(*c));
        c->fd = tcp(port, 0);
        watch(c->fd, c);
    }

    printf("%d\n", nconns);
}


static void
cmd_ask(const char *path, int wait)
{
    int      i, n, len;
    char     buf[512];
    conn_t  *c;

    n = 0;

    for (i = 0; i < nconns; i++) {
        c = &conns[i];

        if (c->fd == -1) {
            continue;
        }

        len = snprintf(buf, sizeof(buf),
                       "GET %s HTTP/1.1\r\nHost: a\r\nPrefer: wait=%d\r\n",
                       path, wait);

        if (c->etag[0]) {
            len += snprintf(buf + len, sizeof(buf) - len,
                            "If-None-Match: %s\r\n", c->etag);
        }

        len += snprintf(buf + len, sizeof(buf) - len, "\r\n");

        if (send(c->fd, buf, len, MSG_NOSIGNAL) == len) {
            n++;
        }

        c->asked = 1;
        c->len = 0;
        c->need = 0;
    }

    printf("%d\n", n);
}


static void
cmd_gather(int ms)
{
    int         i, n, left;
    conn_t     *c;
    long long   first, last, end;

    left = 0;
    first = 0;
    last = 0;
    end = now() + ms * 1000000LL;

    for (i = 0; i < nconns; i++) {
        c = &conns[i];
        left += (c->fd != -1 && c->asked && !(c->need && c->len >= c->need));
    }

    while (left > 0 && now() < end) {
        n = epoll_wait(ep, events, EVENTS, 20);

        for (i = 0; i < n; i++) {
            c = events[i].data.ptr;

            if (c->fd != -1 && take(c)) {
                left--;
                last = now();

                if (first == 0) {
                    first = last;
                }
            }
        }
    }

    /* what nobody asked for, and who is closed */

    while ((n = epoll_wait(ep, events, EVENTS, 0)) > 0) {
        for (i = 0; i < n; i++) {
            c = events[i].data.ptr;

            if (c->fd != -1) {
                (void) take(c);
            }
        }
    }

    printf("%d %lld %lld\n", left, first, last);
}


/* status, ETag, body: into text */

static void
form(conn_t *c, char *text, size_t size)
{
    size_t       len, head;
    const char  *etag;

    head = head_len(c);
    len = header(c, "ETag: ", &etag);

    snprintf(c->etag, sizeof(c->etag), "%.*s", (int) len, len ? etag : "");
    snprintf(text, size, "%.3s %s %.*s", c->buf + 9, c->etag,
             (int) (c->need - head), c->buf + head);
}


static void
cmd_check(void)
{
    int      i, n, kinds, extra, closed;
    char     one[ANSWER + 256], first[ANSWER + 256];
    conn_t  *c;

    n = 0;
    kinds = 0;
    extra = 0;
    closed = 0;
    first[0] = '\0';

    for (i = 0; i < nconns; i++) {
        c = &conns[i];
        closed += (c->fd == -1);
        extra += c->extra;

        if (!c->need || c->len < c->need) {
            continue;
        }

        form(c, one, sizeof(one));

        if (n++ == 0) {
            strcpy(first, one);
            kinds = 1;

        } else if (strcmp(first, one) != 0) {
            kinds = 2;
        }
    }

    printf("%d %d %d %d %s\n", n, kinds, extra, closed, first);
}


static void
cmd_save(const char *name)
{
    FILE  *f;

    f = fopen(name, "w");

    if (f == NULL || nconns == 0
        || fwrite(conns[0].buf, 1, conns[0].need, f) != conns[0].need
        || fclose(f) != 0)
    {
        die(name);
    }

    printf("%zu\n", conns[0].need);
}


static void
cmd_close(void)
{
    int  i;

    for (i = 0; i < nconns; i++) {
        if (conns[i].fd != -1) {
            gone(&conns[i]);
        }
    }

    nconns = 0;
    printf("closed\n");
}


static void
client(void)
{
    int   a, b;
    char  line[1024], text[512];

    ep = epoll_create1(0);

    while (fgets(line, sizeof(line), stdin)) {

        if (sscanf(line, "connect %d %d", &a, &b) == 2) {
            cmd_connect(a, b);

        } else if (sscanf(line, "ask %511s %d", text, &a) == 2) {
            cmd_ask(text, a);

        } else if (sscanf(line, "gather %d", &a) == 1) {
            cmd_gather(a);

        } else if (strcmp(line, "check\n") == 0) {
            cmd_check();

        } else if (sscanf(line, "save %511s", text) == 1) {
            cmd_save(text);

        } else if (strcmp(line, "close\n") == 0) {
            cmd_close();

        } else {
            printf("?\n");
        }

        fflush(stdout);
    }
}


static void
release(shared_t *sh, int *held)
{
    int  i;

    for (i = 0; i < nconns; i++) {
        if (conns[i].fd != -1 && conns[i].asked) {
            send(conns[i].fd, sh->buf, sh->len, MSG_NOSIGNAL);
            conns[i].asked = 0;
            (*held)--;
        }
    }
}


static void
bare_read(conn_t *c, int *held)
{
    ssize_t  n;

    n = recv(c->fd, c->buf, ANSWER, 0);

    if (n > 0) {
        *held += !c->asked;
        c->asked = 1;

    } else if (n == 0 || errno != EAGAIN) {
        *held -= c->asked;
        gone(c);
    }
}


static void
bare_process(shared_t *sh, int *held, int listening, int redis_port,
    const char *channel)
{
    int   i, n, fd, redis;
    char  buf[1024];

    ep = epoll_create1(0);
    redis = tcp(redis_port, 0);
    n = snprintf(buf, sizeof(buf), "SUBSCRIBE %s\r\n", channel);

    if (send(redis, buf, n, 0) != n) {
        die("redis");
    }

    watch(listening, &listening);
    watch(redis, &redis);

    for ( ;; ) {
        n = epoll_wait(ep, events, EVENTS, -1);

        for (i = 0; i < n; i++) {

            if (events[i].data.ptr == &redis) {

                if (recv(redis, buf, sizeof(buf), 0) <= 0) {
                    exit(0);
                }

                release(sh, held);

            } else if (events[i].data.ptr == &listening) {
                fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);

                if (fd == -1) {
                    continue;
                }

                if (nconns == MAX) {
                    die("too many");
                }

                conns[nconns].fd = fd;
                watch(fd, &conns[nconns++]);

            } else {
                bare_read(events[i].data.ptr, held);
            }
        }
    }
}


static void
bare(int port, int n, int redis_port, const char *channel)
{
    int        i, fd, held;
    char       line[1024], text[512];
    FILE      *f;
    shared_t  *sh;

    sh = mmap(NULL, sizeof(shared_t) + n * sizeof(int),
              PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0);

    if (sh == MAP_FAILED) {
        die("mmap");
    }

    fd = tcp(port, 1);

    for (i = 0; i < n; i++) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            bare_process(sh, &sh->held[i], fd, redis_port, channel);
        }
    }

    while (fgets(line, sizeof(line), stdin)) {

        if (sscanf(line, "answer %511s", text) == 1) {
            f = fopen(text, "r");

            if (f == NULL) {
                die(text);
            }

            sh->len = fread(sh->buf, 1, ANSWER, f);
            fclose(f);
            printf("%zu\n", sh->len);

        } else {
            held = 0;

            for (i = 0; i < n; i++) {
                held += ((volatile int *) sh->held)[i];
            }

            printf("%d\n", held);
        }

        fflush(stdout);
    }
}


int
main(int argc, char **argv)
{
    struct rlimit  rl;

    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);

    if (argc == 2 && strcmp(argv[1], "client") == 0) {
        client();

    } else if (argc == 6 && strcmp(argv[1], "bare") == 0) {
        bare(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), argv[5]);

    } else {
        fprintf(stderr, "usage: held client | bare PORT PROCESSES REDIS-PORT "
                "CHANNEL\n");
        return 2;
    }

    return 0;
}
