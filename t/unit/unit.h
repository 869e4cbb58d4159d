
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * For unit tests: TAP, and the little of nginx that layers 0 to 2 call.
 *
 *     #include "../../ngx_rt_module/ngx_rt_cursor.c"
 *     #include "unit.h"
 *
 *     int
 *     main(void)
 *     {
 *         ok(1 + 1 == 2, "one and one");
 *         is_int(ngx_rt_cursor_parse(&c, text, 3), NGX_DECLINED, "short");
 *         is_mem(p, end - p, "abc", 3, "bytes of %s", name);
 *         is_str(&str, "abc", "an ngx_str_t");
 *         done_testing();
 *     }
 *
 * Names are printf formats.  Each check returns whether it passed, and may
 * come from any thread.  The program is built with ASan and UBSan, or with
 * TSan when its name begins with tsan_; a report fails it.
 *
 * A test of several files includes them all, lowest layer first.
 *
 * Of nginx, t/unit/unit.c has: ngx_shmtx_create/lock/trylock/unlock,
 * ngx_log_error_core (counted in unit_logged, the last line in unit_log),
 * ngx_alloc, ngx_calloc, ngx_palloc and its like (all freed by unit_free),
 * ngx_cached_time, ngx_current_msec, ngx_pid, ngx_cpystrn, ngx_strlow,
 * ngx_hex_dump, ngx_atoi, ngx_sprintf and its like (%V %s %*s %d %i %u %ui
 * %uD %uL %L %O %z %uz %uA %T %M %P %c %x with width and zeroes).  All are
 * weak: a test that defines its own has that one.
 */


#ifndef _NGX_RT_UNIT_H_INCLUDED_
#define _NGX_RT_UNIT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


int unit_ok(int passed, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
int unit_int(long long got, long long expected, const char *file, int line,
    const char *fmt, ...) __attribute__((format(printf, 5, 6)));
int unit_mem(const void *got, size_t got_len, const void *expected,
    size_t expected_len, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 7, 8)));
void unit_diag(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int unit_done(void);
void unit_free(void);

#define ok(cond, ...)                                                         \
    unit_ok(!!(cond), __FILE__, __LINE__, __VA_ARGS__)

#define is_int(got, expected, ...)                                            \
    unit_int((long long) (got), (long long) (expected), __FILE__, __LINE__,   \
             __VA_ARGS__)

#define is_mem(got, got_len, expected, expected_len, ...)                     \
    unit_mem(got, got_len, expected, expected_len, __FILE__, __LINE__,        \
             __VA_ARGS__)

#define is_str(str, text, ...)                                                \
    unit_mem((str)->data, (str)->len, text, strlen(text), __FILE__,           \
             __LINE__, __VA_ARGS__)

#define diag(...)                 unit_diag(__VA_ARGS__)

/* ends main() */
#define done_testing()            return unit_done()


extern ngx_uint_t  unit_logged;
extern char        unit_log[2048];


#endif /* _NGX_RT_UNIT_H_INCLUDED_ */
