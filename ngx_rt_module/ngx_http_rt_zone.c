
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The shared zone of a hub: how large it must be, and its making.  The store
 * is one block of it, allocated when the zone is made; nothing is allocated
 * later.
 */


#include <ngx_http_rt.h>


#define NGX_HTTP_RT_RANDOM        32


static size_t ngx_http_rt_zone_min(ngx_http_rt_hub_t *hub);
static size_t ngx_http_rt_zone_block(size_t size);
static void ngx_http_rt_zone_small(ngx_log_t *log, ngx_http_rt_hub_t *hub);
static ngx_int_t ngx_http_rt_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static void ngx_http_rt_zone_limit(ngx_http_rt_hub_t *hub, ngx_log_t *log);
static ngx_int_t ngx_http_rt_zone_create(ngx_http_rt_hub_t *hub,
    ngx_slab_pool_t *shpool, size_t size, ngx_log_t *log);
static ngx_int_t ngx_http_rt_random(u_char *buf, size_t len, ngx_log_t *log);


/*
 * Asks for the zone.  What is kept in it means something else when the
 * source, the prefix or the form of the payload changes: these are in the
 * zone's name, so that a reload begins with a fresh one then.  (noreuse is
 * not usable: with it set for one cycle only, nginx frees the zone of the
 * next one under its feet.)
 */

ngx_int_t
ngx_http_rt_zone(ngx_conf_t *cf, ngx_http_rt_hub_t *hub)
{
    u_char             *p;
    ngx_str_t           name;
    ngx_shm_zone_t     *shm_zone;
    ngx_rt_hub_conf_t  *hcf;

    hcf = &hub->conf;

    if (hcf->size < ngx_http_rt_zone_min(hub)) {
        ngx_http_rt_zone_small(cf->log, hub);
        return NGX_ERROR;
    }

    name.len = sizeof("rt_hub::embedded:json:") + hcf->name.len
               + hcf->prefix.len;

    name.data = ngx_pnalloc(cf->pool, name.len);
    if (name.data == NULL) {
        return NGX_ERROR;
    }

    if (hcf->source == NGX_RT_SOURCE_EMBEDDED) {
        p = ngx_sprintf(name.data, "rt_hub:%V:embedded", &hcf->name);

    } else {
        p = ngx_sprintf(name.data, "rt_hub:%V:%s:%s:%V", &hcf->name,
                        hcf->source == NGX_RT_SOURCE_STREAM ? "stream"
                                                            : "pubsub",
                        hcf->payload == NGX_RT_PAYLOAD_JSON ? "json" : "raw",
                        &hcf->prefix);
    }

    name.len = p - name.data;

    shm_zone = ngx_shared_memory_add(cf, &name, hcf->size,
                                     &ngx_http_rt_module);
    if (shm_zone == NULL) {
        return NGX_ERROR;
    }

    shm_zone->init = ngx_http_rt_zone_init;
    shm_zone->data = hcf;

    hcf->shm_zone = shm_zone;

    return NGX_OK;
}


/* the smallest zone that holds what the store needs, in whole pages */

static size_t
ngx_http_rt_zone_min(ngx_http_rt_hub_t *hub)
{
    size_t  need, size;

    need = ngx_rt_store_min_size(ngx_rt_wakeup_slots(hub->cycle),
                                 hub->large ? hub->conf.message_max : 0);

    size = ngx_align(need, ngx_pagesize);

    while (ngx_http_rt_zone_block(size) < need) {
        size += ngx_pagesize;
    }

    return size;
}


/* bytes in the pages that ngx_slab_init() finds in a zone of that size */

static size_t
ngx_http_rt_zone_block(size_t size)
{
    size_t  head, start, n, pages;

    n = ngx_pagesize_shift - 3;

    head = sizeof(ngx_slab_pool_t)
           + n * (sizeof(ngx_slab_page_t) + sizeof(ngx_slab_stat_t));

    if (size < head) {
        return 0;
    }

    pages = (size - head) / (ngx_pagesize + sizeof(ngx_slab_page_t));
    start = ngx_align(head + pages * sizeof(ngx_slab_page_t), ngx_pagesize);

    if (size < start) {
        return 0;
    }

    return ngx_min(pages, (size - start) / ngx_pagesize) * ngx_pagesize;
}


static void
ngx_http_rt_zone_small(ngx_log_t *log, ngx_http_rt_hub_t *hub)
{
    u_char             *p;
    ngx_rt_hub_conf_t  *hcf;
    u_char              buf[sizeof(" with \"message_max\" of  bytes")
                            + NGX_SIZE_T_LEN];

    hcf = &hub->conf;

    p = buf;

    if (hub->large) {
        p = ngx_sprintf(p, " with \"message_max\" of %uz bytes",
                        hcf->message_max);
    }

    ngx_log_error(NGX_LOG_EMERG, log, 0,
                  "\"zone\" of %uz bytes is too small for rt_hub \"%V\"%*s, "
                  "it must be at least %uzk in %V:%ui", hcf->size, &hcf->name,
                  (size_t) (p - buf), buf, ngx_http_rt_zone_min(hub) / 1024,
                  &hub->file, hub->line);
}


/*
 * Runs in the master.  A zone that goes on from the cycle before is in use by
 * workers, and this cycle may still fail: nothing in it is changed.
 */

static ngx_int_t
ngx_http_rt_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    size_t              size;
    ngx_int_t           rc;
    ngx_slab_pool_t    *shpool;
    ngx_http_rt_hub_t  *hub;
    ngx_rt_hub_conf_t  *hcf;

    hcf = shm_zone->data;
    hub = (ngx_http_rt_hub_t *) hcf;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    /* all pages are one block, in which the store is */

    size = (size_t) (shpool->last - shpool->pages) << ngx_pagesize_shift;

    hcf->store.mutex = &shpool->mutex;
    hcf->store.history = hcf->history;
    hcf->store.history_time = hcf->history_time;
    hcf->store.embedded = (hcf->source == NGX_RT_SOURCE_EMBEDDED);
    hcf->store.snapshot = hcf->snapshots;
    hcf->store.stream = (hcf->source == NGX_RT_SOURCE_STREAM);

    if (data == NULL && !shm_zone->shm.exists) {
        rc = ngx_http_rt_zone_create(hub, shpool, size, shm_zone->shm.log);

        if (rc == NGX_OK) {
            ngx_http_rt_zone_limit(hub, shm_zone->shm.log);
        }

        return rc;
    }

    if (shpool->data == NULL
        || ngx_rt_store_attach(&hcf->store, shpool->data, size) != NGX_OK)
    {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "shared memory of rt_hub \"%V\" was laid out by another "
                      "version of the module, nginx must be restarted, or "
                      "\"zone\" be given another size", &hcf->name);
        return NGX_ERROR;
    }

    ngx_http_rt_zone_limit(hub, shm_zone->shm.log);

    return NGX_OK;
}


/*
 * A zone that is too small for a message_max that is set was refused; of one
 * that can't hold the default the default gives way.
 */

static void
ngx_http_rt_zone_limit(ngx_http_rt_hub_t *hub, ngx_log_t *log)
{
    size_t              max;
    ngx_rt_hub_conf_t  *hcf;

    hcf = &hub->conf;

    max = (size_t) ngx_rt_log_payload_max(hcf->store.sh);

    if (hcf->message_max > max) {

        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "\"message_max\" of rt_hub \"%V\" is lowered from %uz "
                      "to %uz bytes, the most that its \"zone\" of %uz bytes "
                      "can hold in %V:%ui", &hcf->name, hcf->message_max, max,
                      hcf->size, &hub->file, hub->line);

        hcf->message_max = max;
    }

    hcf->store.message_max = hcf->message_max;
}


static ngx_int_t
ngx_http_rt_zone_create(ngx_http_rt_hub_t *hub, ngx_slab_pool_t *shpool,
    size_t size, ngx_log_t *log)
{
    void    *p;
    u_char   random[NGX_HTTP_RT_RANDOM];

    shpool->log_nomem = 0;

    if (ngx_http_rt_random(random, NGX_HTTP_RT_RANDOM, log) != NGX_OK) {
        return NGX_ERROR;
    }

    p = ngx_slab_alloc(shpool, size);

    if (p == NULL
        || ngx_rt_store_create(&hub->conf.store, p, size,
                               ngx_rt_wakeup_slots(hub->cycle), random)
           != NGX_OK)
    {
        ngx_http_rt_zone_small(log, hub);
        return NGX_ERROR;
    }

    shpool->data = p;

    return NGX_OK;
}


static ngx_int_t
ngx_http_rt_random(u_char *buf, size_t len, ngx_log_t *log)
{
    ssize_t   n;
    ngx_fd_t  fd;

    fd = ngx_open_file("/dev/urandom", NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      ngx_open_file_n " \"/dev/urandom\" failed");
        return NGX_ERROR;
    }

    n = ngx_read_fd(fd, buf, len);

    if (n != (ssize_t) len) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      ngx_read_fd_n " \"/dev/urandom\" failed");
    }

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_errno,
                      ngx_close_file_n " \"/dev/urandom\" failed");
    }

    return (n == (ssize_t) len) ? NGX_OK : NGX_ERROR;
}
