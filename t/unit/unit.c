
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * See unit.h.
 */


#include "unit.h"

#include <pthread.h>


#define WEAK                      __attribute__((weak))


typedef struct unit_block_s  unit_block_t;

struct unit_block_s {
    unit_block_t    *next;
    /* aligned for anything */
    long double      data[];
};


static pthread_mutex_t   unit_mutex = PTHREAD_MUTEX_INITIALIZER;
static int               unit_tests;
static int               unit_failed;
static unit_block_t     *unit_blocks;

ngx_uint_t               unit_logged;
char                     unit_log[2048];

static ngx_time_t        unit_time = { 1700000000, 0, 0 };

WEAK volatile ngx_time_t *ngx_cached_time = &unit_time;
WEAK volatile ngx_msec_t  ngx_current_msec = 1000;
WEAK ngx_pid_t            ngx_pid = 4711;
WEAK ngx_uint_t           ngx_process;
WEAK ngx_int_t            ngx_ncpu = 2;
WEAK ngx_uint_t           ngx_pagesize = 4096;
WEAK volatile ngx_cycle_t *ngx_cycle;


/* TAP; holds the mutex while it writes, so lines of threads don't mix */

static int
unit_result(int passed, const char *file, int line, const char *fmt,
    va_list args)
{
    unit_tests++;
    unit_failed += !passed;

    printf("%sok %d - ", passed ? "" : "not ", unit_tests);
    vprintf(fmt, args);
    printf("\n");

    if (!passed) {
        printf("#   failed at %s:%d\n", file, line);
    }

    return passed;
}


int
unit_ok(int passed, const char *file, int line, const char *fmt, ...)
{
    va_list  args;

    pthread_mutex_lock(&unit_mutex);

    va_start(args, fmt);
    unit_result(passed, file, line, fmt, args);
    va_end(args);

    fflush(stdout);
    pthread_mutex_unlock(&unit_mutex);

    return passed;
}


int
unit_int(long long got, long long expected, const char *file, int line,
    const char *fmt, ...)
{
    va_list  args;

    pthread_mutex_lock(&unit_mutex);

    va_start(args, fmt);
    unit_result(got == expected, file, line, fmt, args);
    va_end(args);

    if (got != expected) {
        printf("#        got: %lld\n#   expected: %lld\n", got, expected);
    }

    fflush(stdout);
    pthread_mutex_unlock(&unit_mutex);

    return got == expected;
}


static void
unit_dump(const char *name, const u_char *p, size_t len)
{
    size_t  i;

    printf("# %10s: %zu \"", name, len);

    for (i = 0; i < len && i < 200; i++) {
        if (p[i] < 0x20 || p[i] > 0x7e || p[i] == '"' || p[i] == '\\') {
            printf("\\x%02x", p[i]);
        } else {
            putchar(p[i]);
        }
    }

    printf("\"%s\n", i < len ? "..." : "");
}


int
unit_mem(const void *got, size_t got_len, const void *expected,
    size_t expected_len, const char *file, int line, const char *fmt, ...)
{
    int      passed;
    va_list  args;

    passed = got_len == expected_len
             && (got_len == 0 || memcmp(got, expected, got_len) == 0);

    pthread_mutex_lock(&unit_mutex);

    va_start(args, fmt);
    unit_result(passed, file, line, fmt, args);
    va_end(args);

    if (!passed) {
        unit_dump("got", got, got_len);
        unit_dump("expected", expected, expected_len);
    }

    fflush(stdout);
    pthread_mutex_unlock(&unit_mutex);

    return passed;
}


void
unit_diag(const char *fmt, ...)
{
    va_list  args;

    pthread_mutex_lock(&unit_mutex);

    printf("# ");
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    printf("\n");

    fflush(stdout);
    pthread_mutex_unlock(&unit_mutex);
}


int
unit_done(void)
{
    unit_free();
    printf("1..%d\n", unit_tests);
    return unit_failed ? 1 : 0;
}


/* locks: a spin lock in the shared word, as nginx's without semaphores */

WEAK ngx_int_t
ngx_shmtx_create(ngx_shmtx_t *mtx, ngx_shmtx_sh_t *addr, u_char *name)
{
    (void) name;

    ngx_memzero(mtx, sizeof(ngx_shmtx_t));
    mtx->lock = &addr->lock;

    return NGX_OK;
}


/* __atomic rather than nginx's assembly: TSan has to see it */

WEAK ngx_uint_t
ngx_shmtx_trylock(ngx_shmtx_t *mtx)
{
    ngx_atomic_uint_t  free = 0;

    return __atomic_compare_exchange_n(mtx->lock, &free, ngx_pid, 0,
                                       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}


WEAK void
ngx_shmtx_lock(ngx_shmtx_t *mtx)
{
    while (!ngx_shmtx_trylock(mtx)) {
        sched_yield();
    }
}


WEAK void
ngx_shmtx_unlock(ngx_shmtx_t *mtx)
{
    __atomic_store_n(mtx->lock, 0, __ATOMIC_RELEASE);
}


/* memory: pools are one list, freed by unit_free() */

WEAK void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    (void) log;

    return malloc(size);
}


WEAK void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    (void) log;

    return calloc(1, size);
}


WEAK void *
ngx_palloc(ngx_pool_t *pool, size_t size)
{
    unit_block_t  *block;

    (void) pool;

    block = malloc(sizeof(unit_block_t) + size);
    if (block == NULL) {
        return NULL;
    }

    pthread_mutex_lock(&unit_mutex);
    block->next = unit_blocks;
    unit_blocks = block;
    pthread_mutex_unlock(&unit_mutex);

    return block->data;
}


WEAK void *
ngx_pnalloc(ngx_pool_t *pool, size_t size)
{
    return ngx_palloc(pool, size);
}


WEAK void *
ngx_pcalloc(ngx_pool_t *pool, size_t size)
{
    void  *p;

    p = ngx_palloc(pool, size);
    if (p) {
        ngx_memzero(p, size);
    }

    return p;
}


WEAK ngx_int_t
ngx_pfree(ngx_pool_t *pool, void *p)
{
    (void) pool;
    (void) p;

    return NGX_DECLINED;
}


void
unit_free(void)
{
    unit_block_t  *block;

    while (unit_blocks) {
        block = unit_blocks;
        unit_blocks = block->next;
        free(block);
    }
}


/* text */

WEAK u_char *
ngx_cpystrn(u_char *dst, u_char *src, size_t n)
{
    if (n == 0) {
        return dst;
    }

    while (--n && *src) {
        *dst++ = *src++;
    }

    *dst = '\0';

    return dst;
}


WEAK void
ngx_strlow(u_char *dst, u_char *src, size_t n)
{
    while (n--) {
        *dst++ = ngx_tolower(*src);
        src++;
    }
}


WEAK u_char *
ngx_hex_dump(u_char *dst, u_char *src, size_t len)
{
    while (len--) {
        dst += sprintf((char *) dst, "%02x", *src++);
    }

    return dst;
}


WEAK ngx_int_t
ngx_atoi(u_char *line, size_t n)
{
    ngx_int_t  value;

    if (n == 0 || n > 18) {
        return NGX_ERROR;
    }

    for (value = 0; n--; line++) {
        if (*line < '0' || *line > '9') {
            return NGX_ERROR;
        }

        value = value * 10 + (*line - '0');
    }

    return value;
}


static u_char *
unit_copy(u_char *buf, u_char *last, const void *src, size_t len)
{
    len = ngx_min(len, (size_t) (last - buf));

    return ngx_cpymem(buf, src, len);
}


/* the number that a conversion of nginx's stands for */

static int64_t
unit_number(int type, int sign, va_list *args)
{
    switch (type) {

    case 'd':
        return sign ? va_arg(*args, int) : (int64_t) va_arg(*args, u_int);

    case 'D':
        return sign ? va_arg(*args, int32_t)
                    : (int64_t) va_arg(*args, uint32_t);

    case 'P':
        return va_arg(*args, ngx_pid_t);

    case 'M':
        return va_arg(*args, ngx_msec_t);

    case 'T':
        return va_arg(*args, time_t);

    default:
        /* i L O z A l: all as wide as a register */
        return va_arg(*args, int64_t);
    }
}


WEAK u_char *
ngx_vslprintf(u_char *buf, u_char *last, const char *fmt, va_list args)
{
    int         sign, hex, c;
    char        zero, out[32];
    size_t      slen;
    va_list     ap;
    int64_t     value;
    unsigned    width;
    ngx_str_t  *str;
    const char *s;

    va_copy(ap, args);

    for ( /* void */ ; *fmt && buf < last; fmt++) {

        if (*fmt != '%') {
            *buf++ = (u_char) *fmt;
            continue;
        }

        zero = *++fmt == '0' ? '0' : ' ';
        width = 0;
        slen = (size_t) -1;
        sign = 1;
        hex = 0;

        while (*fmt >= '0' && *fmt <= '9') {
            width = width * 10 + (*fmt++ - '0');
        }

        for ( ;; fmt++) {
            if (*fmt == 'u') {
                sign = 0;

            } else if (*fmt == 'x' || *fmt == 'X') {
                hex = 1;
                sign = 0;

            } else if (*fmt == '*') {
                slen = va_arg(ap, size_t);

            } else {
                break;
            }
        }

        switch (*fmt) {

        case 'V':
            str = va_arg(ap, ngx_str_t *);
            buf = unit_copy(buf, last, str->data, str->len);
            continue;

        case 's':
            s = va_arg(ap, const char *);
            buf = unit_copy(buf, last, s,
                            slen == (size_t) -1 ? strlen(s) : slen);
            continue;

        case 'c':
            c = va_arg(ap, int);
            *buf++ = (u_char) c;
            continue;

        case '%':
            *buf++ = '%';
            continue;

        case 'Z':
            *buf++ = '\0';
            continue;

        case 'N':
            *buf++ = '\n';
            continue;
        }

        value = unit_number(*fmt, sign, &ap);

        sprintf(out, hex ? "%llx" : sign ? "%lld" : "%llu",
                (unsigned long long) value);

        for (slen = strlen(out); slen < width && buf < last; slen++) {
            *buf++ = zero;
        }

        buf = unit_copy(buf, last, out, strlen(out));
    }

    va_end(ap);

    return buf;
}


WEAK u_char *
ngx_sprintf(u_char *buf, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + 65536, fmt, args);
    va_end(args);

    return p;
}


WEAK u_char *
ngx_snprintf(u_char *buf, size_t max, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + max, fmt, args);
    va_end(args);

    return p;
}


WEAK u_char *
ngx_slprintf(u_char *buf, u_char *last, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, last, fmt, args);
    va_end(args);

    return p;
}


WEAK void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    (void) level;
    (void) log;
    (void) err;

    pthread_mutex_lock(&unit_mutex);

    va_start(args, fmt);
    p = ngx_vslprintf((u_char *) unit_log,
                      (u_char *) unit_log + sizeof(unit_log) - 1, fmt, args);
    va_end(args);

    *p = '\0';
    unit_logged++;

    pthread_mutex_unlock(&unit_mutex);
}
