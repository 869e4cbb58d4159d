
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
 * NGX_RT_FAULT in ngx_rt_base.h.  RT_FAULT of the environment names a file.
 * The first process to come to the place whose name is in it takes the file
 * away and dies there, at once.
 */

void
ngx_rt_fault(const char *name)
{
    int      fd, err;
    char     place[64];
    ssize_t  n;

    if (asan_fault_file[0] == '\0') {
        return;
    }

    err = errno;
    n = -1;
    fd = open(asan_fault_file, O_RDONLY|O_CLOEXEC);

    if (fd != -1) {
        n = read(fd, place, sizeof(place) - 1);
        (void) close(fd);
    }

    if (n > 0) {
        place[n] = '\0';

        if (strcmp(place, name) == 0 && unlink(asan_fault_file) == 0) {
            (void) kill(getpid(), SIGKILL);
        }
    }

    errno = err;
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
