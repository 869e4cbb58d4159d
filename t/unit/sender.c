
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Sends to many sockets: the same results by io_uring and by system calls,
 * and what happens when the ring is refused or breaks.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#if (NGX_RT_IO_URING)

#include <liburing.h>

static int fault_init(unsigned entries, struct io_uring *ring,
    struct io_uring_params *params);
static int fault_submit(struct io_uring *ring, unsigned wait);

#define io_uring_queue_init_params  fault_init
#define io_uring_submit_and_wait    fault_submit

#endif

/* small, so that few sockets are several batches */
#define NGX_RT_SENDER_RING        16

#include "../../ngx_rt_module/ngx_rt_sender.c"

#undef io_uring_queue_init_params
#undef io_uring_submit_and_wait

#include "unit.h"


#define PAIRS      40
#define ROUNDS     60
#define DEADLINE   10000            /* ms */


typedef struct {
    int      a, b;                  /* sent to, read from */
    size_t   len;                   /* bytes in text */
    char     text[64 * 1024];       /* what b has to read */
} pair_t;


static pair_t         pairs[PAIRS];
static ngx_rt_send_t  sends[PAIRS];
static struct iovec   vecs[PAIRS][3];
static ngx_log_t      logs;
static ngx_cycle_t    cycle;
static const char    *how;


/* sockets */

static void
pair_unix(pair_t *p)
{
    int  fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == -1) {
        ok(0, "socketpair: %s", strerror(errno));
        return;
    }

    p->a = fds[0];
    p->b = fds[1];
    p->len = 0;
}


static void
pair_tcp(pair_t *p)
{
    int                 listener;
    socklen_t           len;
    struct sockaddr_in  addr;

    memset(&addr, 0, sizeof(addr));
    addr.sin_family = AF_INET;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    len = sizeof(addr);

    listener = socket(AF_INET, SOCK_STREAM, 0);
    p->a = socket(AF_INET, SOCK_STREAM, 0);
    p->len = 0;

    if (bind(listener, (struct sockaddr *) &addr, len) == -1
        || listen(listener, 1) == -1
        || getsockname(listener, (struct sockaddr *) &addr, &len) == -1
        || connect(p->a, (struct sockaddr *) &addr, len) == -1)
    {
        ok(0, "TCP: %s", strerror(errno));
    }

    p->b = accept(listener, NULL, NULL);
    close(listener);
}


static void
pair_close(pair_t *p)
{
    close(p->a);

    if (p->b != -1) {
        close(p->b);
    }
}


static void
open_all(void)
{
    int  i;

    for (i = 0; i < PAIRS; i++) {
        if (i % 2) {
            pair_tcp(&pairs[i]);

        } else {
            pair_unix(&pairs[i]);
        }
    }
}


static void
close_all(void)
{
    int  i;

    for (i = 0; i < PAIRS; i++) {
        pair_close(&pairs[i]);
    }
}


/* what there is to read until n bytes have come; how many did */

static size_t
drain(int fd, char *buf, size_t n)
{
    size_t         got;
    ssize_t        rc;
    struct pollfd  pfd;

    pfd.fd = fd;
    pfd.events = POLLIN;

    for (got = 0; got < n; got += rc) {
        if (poll(&pfd, 1, DEADLINE) != 1) {
            break;
        }

        rc = recv(fd, buf + got, n - got, 0);
        if (rc <= 0) {
            break;
        }
    }

    return got;
}


/* nothing but what was sent has come, and it in order */

static int
matches(pair_t *p)
{
    int           same;
    static char   buf[sizeof(p->text) + 1];

    same = drain(p->b, buf, p->len) == p->len
           && memcmp(buf, p->text, p->len) == 0
           && recv(p->b, buf, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN;

    p->len = 0;

    return same;
}


static int
all_match(void)
{
    int  i, n;

    for (i = 0, n = 0; i < PAIRS; i++) {
        n += matches(&pairs[i]);
    }

    return n;
}


/* a send of text to a pair; in parts, when nvec is 2 or 3 */

static void
plan(ngx_rt_send_t *item, pair_t *p, char *text, size_t len, ngx_uint_t nvec)
{
    ngx_uint_t     i;
    struct iovec  *vec;

    vec = vecs[item - sends];

    for (i = 0; i < nvec; i++) {
        vec[i].iov_base = text + i;
        vec[i].iov_len = (i + 1 == nvec) ? len - i : 1;
    }

    item->fd = p->a;
    item->nvec = nvec;
    item->vec = vec;
    item->result = -4711;
    item->data = p;
}


/* one send of a few bytes to each; those that went are in p->text */

static char  texts[PAIRS][80];

static void
round_of(int r, int n)
{
    int      i;
    size_t   len;
    pair_t  *p;

    for (i = 0; i < n; i++) {
        p = &pairs[i];
        len = sprintf(texts[i], "%d:%d:%.*s\n", i, r, (i + r) % 50,
                      "--------------------------------------------------");
        plan(&sends[i], p, texts[i], len, 1 + (i + r) % 3);
        memcpy(p->text + p->len, texts[i], len);
        p->len += len;
    }
}


static int
count(ssize_t result)
{
    int  i, n;

    for (i = 0, n = 0; i < PAIRS; i++) {
        n += (result == 0) ? sends[i].result == (ssize_t) strlen(texts[i])
                           : sends[i].result == result;
    }

    return n;
}


static void
test_order(void)
{
    int  i, n, r, bad;

    open_all();
    bad = 0;

    for (r = 0; r < ROUNDS; r++) {
        /* one batch and a part of one, full ones, one send alone, none */
        n = (r % 7 == 0) ? NGX_RT_SENDER_RING : (r % 7 == 1) ? 1
            : (r % 7 == 2) ? 2 * NGX_RT_SENDER_RING
            : (r % 7 == 3) ? NGX_RT_SENDER_RING + 1
            : (r % 7 == 4) ? 0 : PAIRS;

        round_of(r, n);
        ngx_rt_send_all(sends, n);

        for (i = 0; i < n; i++) {
            bad += sends[i].result != (ssize_t) strlen(texts[i])
                   || sends[i].data != &pairs[i];
        }
    }

    is_int(bad, 0, "%s: every send is taken, data is left alone", how);
    is_int(all_match(), PAIRS, "%s: each socket has all of it, in order", how);

    close_all();
}


static size_t
fill(int fd)
{
    size_t       n;
    ssize_t      rc;
    static char  buf[65536];

    /* by ever fewer: no space at all is left */

    for (n = 0, rc = sizeof(buf); rc; ) {
        ssize_t  sent = send(fd, buf, rc, MSG_DONTWAIT);

        if (sent == -1) {
            rc /= 2;

        } else {
            n += sent;
        }
    }

    return n;
}


/* every fifth socket is full.  Afterwards, nothing comes late: what is sent
 * next is next */

static void
test_full(void)
{
    int     i, late;
    char   *buf;
    size_t  filled[PAIRS];

    open_all();

    for (i = 0; i < PAIRS; i++) {
        filled[i] = (i % 5 == 0) ? fill(pairs[i].a) : 0;
    }

    round_of(0, PAIRS);
    ngx_rt_send_all(sends, PAIRS);

    is_int(count(-EAGAIN), PAIRS / 5, "%s: the full ones: EAGAIN", how);
    is_int(count(0), PAIRS - PAIRS / 5, "%s: the others: sent", how);

    for (i = 0, late = 0; i < PAIRS; i++) {
        if (filled[i]) {
            buf = malloc(filled[i]);
            late += drain(pairs[i].b, buf, filled[i]) != filled[i];
            free(buf);
            pairs[i].len = 0;
        }
    }

    is_int(late, 0, "%s: the full ones are read", how);

    round_of(1, PAIRS);
    ngx_rt_send_all(sends, PAIRS);

    is_int(count(0), PAIRS, "%s: and take again", how);
    is_int(all_match(), PAIRS, "%s: only that, no send was put by", how);

    close_all();
}


/* what is too much is taken as far as there is room */

static void
test_short(void)
{
    int            i, n, room, size, same, part;
    char          *big, *got;
    struct pollfd  pfd;

    size = 4 * 1024 * 1024;
    big = malloc(size);
    got = malloc(size);

    for (i = 0; i < size; i++) {
        big[i] = (char) ('a' + i % 26);
    }

    open_all();

    for (i = 0; i < PAIRS; i++) {
        room = 8192;
        setsockopt(pairs[i].a, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
        setsockopt(pairs[i].b, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
        plan(&sends[i], &pairs[i], big, size, 1 + i % 3);
    }

    ngx_rt_send_all(sends, PAIRS);

    for (i = 0, part = 0, same = 0; i < PAIRS; i++) {
        n = (int) sends[i].result;
        if (n <= 0 || n >= size) {
            diag("pair %d: %d", i, n);
            continue;
        }

        /* not all of it: a message in parts begins with those of one byte */
        part++;
        same += (int) drain(pairs[i].b, got, n) == n
                && memcmp(got, big, sends[i].nvec - 1) == 0
                && memcmp(got + sends[i].nvec - 1, big + sends[i].nvec - 1,
                          n - sends[i].nvec + 1) == 0;

        pfd.fd = pairs[i].b;
        pfd.events = POLLIN;
        same -= poll(&pfd, 1, 0) != 0;
    }

    is_int(part, PAIRS, "%s: large ones are taken in part", how);
    is_int(same, PAIRS, "%s: the first bytes, as many as was told", how);

    close_all();
    free(big);
    free(got);
}


static void
test_closed(void)
{
    int            i, bad, pipes[2];
    struct linger  linger;
    struct pollfd  pfd;

    open_all();

    /* each kind four times, others between */

    for (i = 0; i < 16; i++) {
        if (i % 4 == 0 || i % 4 == 1) {
            linger.l_onoff = 1;
            linger.l_linger = 0;
            setsockopt(pairs[i].b, SOL_SOCKET, SO_LINGER, &linger,
                       sizeof(linger));
            close(pairs[i].b);
            pairs[i].b = -1;

            pfd.fd = pairs[i].a;
            pfd.events = 0;
            poll(&pfd, 1, DEADLINE);
        }
    }

    if (pipe(pipes) == -1) {
        ok(0, "pipe: %s", strerror(errno));
    }

    round_of(0, PAIRS);

    sends[2].fd = -1;
    sends[6].fd = pipes[1];
    sends[10].fd = 1 << 19;
    sends[PAIRS - 1].fd = -1;

    for (i = 0; i < PAIRS; i++) {
        if (sends[i].fd != pairs[i].a) {
            pairs[i].len = 0;
        }
    }

    ngx_rt_send_all(sends, PAIRS);

    for (i = 0, bad = 0; i < 16; i += 4) {
        bad += sends[i].result != -EPIPE;
        bad += sends[i + 1].result != -ECONNRESET;
    }

    is_int(bad, 0, "%s: peers that are gone: EPIPE and ECONNRESET", how);
    is_int(count(-EBADF), 3, "%s: no descriptor: EBADF", how);
    is_int(count(-ENOTSOCK), 1, "%s: no socket: ENOTSOCK", how);
    is_int(count(0), PAIRS - 12, "%s: all others are taken", how);

    round_of(1, 8);
    ngx_rt_send_all(sends, 2);
    is_int(sends[0].result, -EPIPE, "%s: EPIPE again", how);
    is_int(sends[1].result, -EPIPE, "%s: EPIPE now", how);

    for (i = 0; i < PAIRS; i++) {
        if (pairs[i].b == -1) {
            continue;
        }

        if (i < 8) {
            /* was not sent */
            pairs[i].len -= strlen(texts[i]);
        }

        bad += !matches(&pairs[i]);
    }

    is_int(bad, 0, "%s: and have it", how);

    close(pipes[0]);
    close(pipes[1]);
    close_all();
}


/*
 * Sockets that are read slowly and not at all for a while: each is sent the
 * same endless text, from where the result before said, and has it without a
 * hole.
 */

static char  endless[2 * 65536 + 26];


static int
flows(pair_t *p, size_t *seen, size_t n)
{
    ssize_t      rc;
    static char  buf[65536];

    rc = recv(p->b, buf, ngx_min(n, sizeof(buf)), MSG_DONTWAIT);
    if (rc <= 0) {
        return rc == -1 && errno == EAGAIN;
    }

    rc = memcmp(buf, endless + *seen % 26, rc) == 0 ? rc : 0;
    *seen += rc;

    return rc > 0;
}


static void
test_flow(void)
{
    int            i, r, n, room, bad, whole, part, none;
    size_t         len, at[PAIRS], seen[PAIRS];
    pair_t        *p;
    ngx_uint_t     which;
    struct pollfd  pfd;

    open_all();
    srand(1);

    for (i = 0; i < PAIRS; i++) {
        room = 16384;
        setsockopt(pairs[i].a, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
        at[i] = seen[i] = 0;
    }

    for (i = 0; i < (int) sizeof(endless); i++) {
        endless[i] = (char) ('a' + i % 26);
    }

    for (r = bad = whole = part = none = 0; r < 500; r++) {

        for (i = 0, n = 0; i < PAIRS; i++) {
            if (rand() % 4) {
                len = 3 + rand() % (rand() % 8 ? 600 : 65536);
                plan(&sends[n++], &pairs[i], endless + at[i] % 26, len,
                     1 + rand() % 3);
            }
        }

        ngx_rt_send_all(sends, n);

        for (i = 0; i < n; i++) {
            p = sends[i].data;
            which = sends[i].nvec - 1;
            len = sends[i].vec[which].iov_len + which;

            if (sends[i].result > 0) {
                at[p - pairs] += sends[i].result;
                part += (size_t) sends[i].result < len;
                whole += (size_t) sends[i].result == len;

            } else {
                bad += sends[i].result != -EAGAIN;
                none++;
            }
        }

        for (i = 0; i < PAIRS; i++) {
            if ((r / 20 + i) % 3) {
                bad += !flows(&pairs[i], &seen[i], rand() % 8192 + 1);
            }
        }
    }

    is_int(bad, 0, "%s: sent and read by bits, without a hole", how);
    ok(whole > 1000 && part > 100 && none > 100,
       "%s: wholly, in part, not at all", how);

    for (i = 0, n = 0; i < PAIRS; i++) {
        pfd.fd = pairs[i].b;
        pfd.events = POLLIN;

        while (seen[i] < at[i] && poll(&pfd, 1, DEADLINE) == 1
               && flows(&pairs[i], &seen[i], sizeof(endless)))
        {
            /* void */
        }

        n += seen[i] == at[i] && poll(&pfd, 1, 0) == 0;
    }

    is_int(n, PAIRS, "%s: and to the end", how);

    close_all();
}


/* many parts, none */

static void
test_parts(void)
{
    int                  i;
    char                 got[1024];
    static struct iovec  many[1025];

    open_all();

    for (i = 0; i < 1025; i++) {
        many[i].iov_base = "x";
        many[i].iov_len = 1;
    }

    round_of(0, 3);

    sends[0].nvec = 1024;
    sends[0].vec = many;
    sends[1].nvec = 1025;
    sends[1].vec = many;
    sends[2].vec->iov_len = 0;
    sends[2].nvec = 1;

    ngx_rt_send_all(sends, 3);

    is_int(sends[0].result, 1024, "%s: 1024 parts", how);
    is_int(drain(pairs[0].b, got, 1024), 1024, "%s: have come", how);
    is_int(sends[1].result, -EMSGSIZE, "%s: 1025 are too many", how);
    is_int(sends[2].result, 0, "%s: nothing is sent", how);

    pairs[0].len = pairs[1].len = pairs[2].len = 0;
    is_int(all_match(), PAIRS, "%s: and nothing comes", how);

    close_all();
}


static void
test_all(const char *name)
{
    how = name;

    test_order();
    test_full();
    test_short();
    test_flow();
    test_closed();
    test_parts();
}


#if (NGX_RT_IO_URING)

/*
 * What fault_submit() does, once, of what is under way:
 *
 *     take   SQEs that the kernel gets
 *     lose   completions that are thrown away
 *     rc     what is returned; 0: what the kernel does
 *
 * then, if again is set, that is returned without anything done.
 */

static struct {
    int        on, init;
    int        take, lose, rc, again, calls;
    int        broken;
} fault;


static int
fault_init(unsigned entries, struct io_uring *ring,
    struct io_uring_params *params)
{
    return fault.init ? fault.init
                      : io_uring_queue_init_params(entries, ring, params);
}


static int
fault_submit(struct io_uring *ring, unsigned wait)
{
    int       rc;
    unsigned  pending, held;

    fault.calls++;

    if (!fault.on) {
        return io_uring_submit_and_wait(ring, wait);
    }

    if (fault.on == 2) {
        fault.on = fault.broken;
        return fault.again;
    }

    fault.on = fault.again ? 2 : 0;

    pending = io_uring_sq_ready(ring);
    held = (pending > (unsigned) fault.take) ? pending - fault.take : 0;

    /* not to be seen by liburing */
    ring->sq.sqe_tail -= held;
    rc = io_uring_submit(ring);
    ring->sq.sqe_tail += held;

    io_uring_cq_advance(ring, fault.lose);

    return fault.rc ? fault.rc : rc;
}


static void
faulty(const char *name, int take, int lose, int rc, int again, int lost)
{
    int         i, bad, ring;
    ngx_uint_t  logged;

    open_all();
    ngx_rt_sender_init(&cycle);

    logged = unit_logged;
    fault.on = 1;
    fault.take = take;
    fault.lose = lose;
    fault.rc = rc;
    fault.again = again;
    fault.broken = (again < 0 && again != -EINTR) ? 2 : 0;
    fault.calls = 0;

    round_of(0, PAIRS);
    ngx_rt_send_all(sends, PAIRS);

    /* -EIO: it may have been sent, and here it was */
    is_int(count(-EIO), lost, "%s: not known of %d", name, lost);
    is_int(count(0), PAIRS - lost, "%s: all others are taken", name);
    is_int(all_match(), PAIRS, "%s: and sent, once", name);

    ring = ngx_rt_sender_ring();

    if (fault.broken) {
        is_int(ring, 0, "%s: the ring is given up", name);
        is_int(unit_logged, logged + 1, "%s: which is told, once", name);
        ok(strstr(unit_log, "io_uring failed, using send()") != NULL,
           "%s: so", name);

    } else {
        is_int(ring, 1, "%s: the ring is kept", name);
        is_int(unit_logged, logged, "%s: nothing is told", name);
    }

    ok(fault.on != 1, "%s: the fault was met", name);

    fault.on = 0;

    for (i = 1, bad = 0; i < 4; i++) {
        round_of(i, PAIRS);
        ngx_rt_send_all(sends, PAIRS);
        bad += count(0) != PAIRS;
    }

    is_int(bad, 0, "%s: it goes on", name);
    is_int(all_match(), PAIRS, "%s: in order", name);

    ngx_rt_sender_exit();
    close_all();
}


/* the descriptor is closed by somebody else */

static void
test_gone(void)
{
    open_all();
    ngx_rt_sender_init(&cycle);
    close(ngx_rt_sender.ring.ring_fd);

    round_of(0, PAIRS);
    ngx_rt_send_all(sends, PAIRS);

    is_int(count(0), PAIRS, "no ring of a sudden: all is sent");
    is_int(all_match(), PAIRS, "no ring of a sudden: once");
    is_int(ngx_rt_sender_ring(), 0, "no ring of a sudden: it is given up");

    close_all();
}


static void
refused(const char *name)
{
    ngx_uint_t  logged;

    logged = unit_logged;
    ngx_rt_sender_init(&cycle);

    is_int(ngx_rt_sender_ring(), 0, "%s: no ring", name);
    is_int(unit_logged, logged + 1, "%s: which is told", name);
    ok(strstr(unit_log, "io_uring is not available, using send()") != NULL,
       "%s: so", name);

    open_all();
    round_of(0, PAIRS);
    ngx_rt_send_all(sends, PAIRS);
    is_int(count(0), PAIRS, "%s: all is sent", name);
    is_int(all_match(), PAIRS, "%s: and comes", name);
    close_all();

    ngx_rt_sender_exit();
}


/* as containers do it; in a process of its own, for it can't be undone */

static void
test_seccomp(void)
{
    int    status;
    pid_t  pid;

    struct sock_filter  filter[] = {
        BPF_STMT(BPF_LD|BPF_W|BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET|BPF_K, SECCOMP_RET_ERRNO|EPERM),
        BPF_STMT(BPF_RET|BPF_K, SECCOMP_RET_ALLOW)
    };

    struct sock_fprog  prog = { 4, filter };

    fflush(stdout);
    pid = fork();

    if (pid == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1
            || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == -1)
        {
            _exit(77);
        }

        ngx_rt_sender_init(&cycle);

        open_all();
        round_of(0, PAIRS);
        ngx_rt_send_all(sends, PAIRS);

        _exit(ngx_rt_sender_ring() == 0 && count(0) == PAIRS
              && all_match() == PAIRS ? 42 : 1);
    }

    waitpid(pid, &status, 0);

    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        diag("no seccomp");
        return;
    }

    ok(WIFEXITED(status) && WEXITSTATUS(status) == 42,
       "forbidden by seccomp: sends are system calls");
}


static void
test_ring(void)
{
    ngx_uint_t  logged;

    fault.init = -EPERM;
    refused("EPERM");
    fault.init = -ENOSYS;
    refused("ENOSYS");
    fault.init = 0;
    test_seccomp();

    logged = unit_logged;
    ngx_rt_sender_init(&cycle);

    if (!ngx_rt_sender_ring()) {
        diag("no io_uring here: %s", unit_log);
        return;
    }

    is_int(unit_logged, logged, "a ring is nothing to be told");

    /* once more is harmless */
    ngx_rt_sender_init(&cycle);

    fault.calls = 0;
    test_all("ring");
    ok(fault.calls > ROUNDS, "it was used");
    is_int(ngx_rt_sender_ring(), 1, "and still is");
    is_int(unit_logged, logged, "no error");

    ngx_rt_sender_exit();
    ngx_rt_sender_exit();

    faulty("taken in two parts", 5, 0, 0, 0, 0);
    faulty("one taken", 1, 0, 0, 0, 0);
    faulty("interrupted before", 0, 0, -EINTR, 0, 0);
    faulty("interrupted twice", 3, 0, -EINTR, -EINTR, 0);
    faulty("interrupted after", 16, 0, -EINTR, 0, 0);
    faulty("nothing taken", 0, 0, -EBADF, -EBADF, 0);
    faulty("no memory after some", 7, 0, 0, -ENOMEM, 0);
    faulty("an error though all is done", 16, 0, -EBUSY, -EBUSY, 0);
    faulty("results lost", 16, 4, 0, -ENXIO, 4);
    faulty("some taken, results lost", 9, 9, -EBADFD, -EBADFD, 9);

    test_gone();
}

#endif


int
main(void)
{
    setbuf(stdout, NULL);

    logs.log_level = NGX_LOG_INFO;
    cycle.log = &logs;
    ngx_cycle = &cycle;

    test_all("calls");

#if (NGX_RT_IO_URING)
    test_ring();
#endif

    ngx_rt_sender_exit();
    test_all("after exit");

    done_testing();
}
