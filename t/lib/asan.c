
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * What is linked into the nginx of "make asan": its fault points, and an end
 * to nginx' own leaks.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <sanitizer/lsan_interface.h>

#if (NGX_PCRE2)
#define PCRE2_CODE_UNIT_WIDTH  8
#include <pcre2.h>
#endif


void ngx_rt_fault(const char *name);
void __real_ngx_setproctitle(char *title);
void __wrap_ngx_setproctitle(char *title);

static int asan_fault_take(const char *rest);
static void asan_exit(void);


static char  asan_fault_file[NGX_MAX_PATH];
static void *asan_events[3];


/* the environment is read here: workers have another one */

static void __attribute__((constructor))
asan_init(void)
{
    const char  *value;

    value = getenv("RT_FAULT");

    if (value && strlen(value) < sizeof(asan_fault_file)) {
        strcpy(asan_fault_file, value);
    }

    (void) atexit(asan_exit);
}


/*
 * NGX_RT_FAULT in ngx_rt_base.h.  RT_FAULT of the environment names a file, in
 * which are names of places, one a line.  The first process to come to the
 * place of the first line takes that line away, the file with the last one,
 * and dies there, at once.
 */

void
ngx_rt_fault(const char *name)
{
    int      fd, err;
    char    *rest, places[256];
    ssize_t  n;

    if (asan_fault_file[0] == '\0') {
        return;
    }

    err = errno;
    n = -1;
    fd = open(asan_fault_file, O_RDONLY|O_CLOEXEC);

    if (fd != -1) {
        n = read(fd, places, sizeof(places) - 1);
        (void) close(fd);
    }

    if (n > 0) {
        places[n] = '\0';
        rest = strchr(places, '\n');

        if (rest) {
            *rest++ = '\0';
        }

        if (strcmp(places, name) == 0 && asan_fault_take(rest) == 0) {
            (void) kill(getpid(), SIGKILL);
        }
    }

    errno = err;
}


/* 0: taken by this process, and the file is what remains to be awaited */

static int
asan_fault_take(const char *rest)
{
    int   fd;
    char  own[NGX_MAX_PATH + 16];

    (void) snprintf(own, sizeof(own), "%s.%d", asan_fault_file,
                    (int) getpid());

    /* of several only one can rename it */

    if (rename(asan_fault_file, own) != 0) {
        return -1;
    }

    if (rest == NULL || *rest == '\0') {
        return unlink(own);
    }

    fd = open(own, O_WRONLY|O_TRUNC|O_CLOEXEC);

    if (fd == -1) {
        return -1;
    }

    if (write(fd, rest, strlen(rest)) != (ssize_t) strlen(rest)) {
        (void) close(fd);
        return -1;
    }

    (void) close(fd);

    return rename(own, asan_fault_file);
}


/*
 * A worker loses its connections and events with the pool of its cycle.  They
 * are freed before LeakSanitizer looks, not suppressed: a suppression hides
 * what they lead to, and for each worker starts a symbolizer, which outlives
 * it.  Workers set their title right after they have made them.
 */

void
__wrap_ngx_setproctitle(char *title)
{
    asan_events[0] = ngx_cycle->connections;
    asan_events[1] = ngx_cycle->read_events;
    asan_events[2] = ngx_cycle->write_events;

    __real_ngx_setproctitle(title);
}


static void
asan_exit(void)
{
    ngx_uint_t  i;

    for (i = 0; i < 3; i++) {
        free(asan_events[i]);
    }
}


#if (NGX_PCRE2)

pcre2_compile_context *__real_pcre2_compile_context_create_8(
    pcre2_general_context *gctx);
pcre2_compile_context *__wrap_pcre2_compile_context_create_8(
    pcre2_general_context *gctx);

/* each configuration loses its own, see ngx_regex_module_init() */

pcre2_compile_context *
__wrap_pcre2_compile_context_create_8(pcre2_general_context *gctx)
{
    pcre2_compile_context  *cctx;

    __lsan_disable();
    cctx = __real_pcre2_compile_context_create_8(gctx);
    __lsan_enable();

    return cctx;
}

#endif
