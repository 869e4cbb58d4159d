
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Where Redis is and how to log in: the urls, the password file, the names.
 *
 *     redis://[user[:password]@]host[:port][/db]
 *     unix:/path
 *
 * host is a name, an IPv4 address or an IPv6 address in brackets; user and
 * password may hold %XX.  A password is never written to a log.
 */


#include <ngx_http_rt.h>


#define NGX_HTTP_RT_REDIS_PORT        6379
#define NGX_HTTP_RT_REDIS_URLS        32
#define NGX_HTTP_RT_REDIS_DB_MAX      65535
#define NGX_HTTP_RT_PASSWORD_MAX      4096


static char *ngx_http_rt_redis_url(ngx_conf_t *cf, ngx_str_t *value,
    ngx_rt_redis_url_t *url);
static char *ngx_http_rt_redis_inet(ngx_conf_t *cf, ngx_str_t *value,
    ngx_rt_redis_url_t *url);
static char *ngx_http_rt_redis_userinfo(ngx_conf_t *cf, ngx_str_t *value,
    u_char *p, u_char *last, ngx_rt_redis_url_t *url);
static ngx_int_t ngx_http_rt_redis_unescape(ngx_conf_t *cf, ngx_str_t *dst,
    u_char *p, u_char *last);
static char *ngx_http_rt_redis_addr(ngx_conf_t *cf, ngx_str_t *value,
    ngx_str_t *addr, ngx_rt_redis_url_t *url);
static char *ngx_http_rt_redis_invalid(ngx_conf_t *cf, ngx_str_t *value,
    const char *err);
static ngx_int_t ngx_http_rt_password_read(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *password);


char *
ngx_http_rt_set_redis(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_rt_hub_conf_t *hcf = conf;

    char                *rv;
    ngx_str_t           *value;
    ngx_uint_t           i;
    ngx_rt_redis_url_t  *url;

    value = cf->args->elts;

    if (hcf->urls.nelts) {
        return "is duplicate, all urls must stand in one";
    }

    if (cf->args->nelts > NGX_HTTP_RT_REDIS_URLS + 1) {
        return "has too many urls, it must have at most 32";
    }

    for (i = 1; i < cf->args->nelts; i++) {

        url = ngx_array_push(&hcf->urls);
        if (url == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memzero(url, sizeof(ngx_rt_redis_url_t));

        rv = ngx_http_rt_redis_url(cf, &value[i], url);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_rt_redis_url(ngx_conf_t *cf, ngx_str_t *value,
    ngx_rt_redis_url_t *url)
{
    if (value->len > 5
        && ngx_strncasecmp(value->data, (u_char *) "unix:", 5) == 0)
    {
        if (value->data[5] != '/') {
            return ngx_http_rt_redis_invalid(cf, value,
                                             "the path must be absolute");
        }

        return ngx_http_rt_redis_addr(cf, value, value, url);
    }

    if (value->len > 9
        && ngx_strncasecmp(value->data, (u_char *) "rediss://", 9) == 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"rediss://\" in \"redis\" directive is not "
                           "supported by this version, it must be "
                           "\"redis://\" or \"unix:\"");
        return NGX_CONF_ERROR;
    }

    if (value->len < 8
        || ngx_strncasecmp(value->data, (u_char *) "redis://", 8) != 0)
    {
        return ngx_http_rt_redis_invalid(cf, value, "unknown scheme");
    }

    return ngx_http_rt_redis_inet(cf, value, url);
}


static char *
ngx_http_rt_redis_inet(ngx_conf_t *cf, ngx_str_t *value,
    ngx_rt_redis_url_t *url)
{
    char       *rv;
    u_char     *p, *at, *host, *last, *slash;
    ngx_int_t   n;
    ngx_str_t   addr;

    host = value->data + sizeof("redis://") - 1;
    last = value->data + value->len;

    at = NULL;

    for (p = host; p < last; p++) {
        if (*p == '@') {
            at = p;
        }
    }

    if (at) {
        rv = ngx_http_rt_redis_userinfo(cf, value, host, at, url);

        if (rv != NGX_CONF_OK) {
            return rv;
        }

        host = at + 1;
    }

    slash = ngx_strlchr(host, last, '/');

    if (slash && slash + 1 < last) {
        n = ngx_atoi(slash + 1, last - (slash + 1));

        if (n == NGX_ERROR || n > NGX_HTTP_RT_REDIS_DB_MAX) {
            return ngx_http_rt_redis_invalid(cf, value, "invalid db number");
        }

        url->db = n;
    }

    addr.data = host;
    addr.len = (slash ? slash : last) - host;

    for (p = addr.data; p < addr.data + addr.len; p++) {
        if (*p <= ' ' || *p == 0x7f || *p == '?' || *p == '#' || *p == '$') {
            return ngx_http_rt_redis_invalid(cf, value, "invalid host");
        }
    }

    return ngx_http_rt_redis_addr(cf, value, &addr, url);
}


static char *
ngx_http_rt_redis_userinfo(ngx_conf_t *cf, ngx_str_t *value, u_char *p,
    u_char *last, ngx_rt_redis_url_t *url)
{
    u_char     *colon;
    ngx_int_t   rc;

    colon = ngx_strlchr(p, last, ':');

    rc = ngx_http_rt_redis_unescape(cf, &url->user, p, colon ? colon : last);

    if (rc == NGX_OK && colon) {
        rc = ngx_http_rt_redis_unescape(cf, &url->password, colon + 1, last);
    }

    if (rc == NGX_DECLINED) {
        return ngx_http_rt_redis_invalid(cf, value,
                                         "\"%\" must begin %XX in user and "
                                         "password");
    }

    if (rc != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (colon && url->password.len == 0) {
        return ngx_http_rt_redis_invalid(cf, value, "empty password");
    }

    if (colon == NULL && url->user.len == 0) {
        return ngx_http_rt_redis_invalid(cf, value, "empty user");
    }

    return NGX_CONF_OK;
}


/* NGX_OK; NGX_DECLINED: not well-formed; NGX_ERROR: no memory */

static ngx_int_t
ngx_http_rt_redis_unescape(ngx_conf_t *cf, ngx_str_t *dst, u_char *p,
    u_char *last)
{
    u_char     *d;
    ngx_int_t   n;

    d = ngx_pnalloc(cf->pool, last - p + 1);
    if (d == NULL) {
        return NGX_ERROR;
    }

    dst->data = d;

    while (p < last) {

        if (*p != '%') {
            *d++ = *p++;
            continue;
        }

        if (last - p < 3) {
            return NGX_DECLINED;
        }

        n = ngx_hextoi(p + 1, 2);

        if (n == NGX_ERROR || n == 0) {
            return NGX_DECLINED;
        }

        *d++ = (u_char) n;
        p += 3;
    }

    dst->len = d - dst->data;

    return NGX_OK;
}


/* takes addr apart; names are looked up when all of http{} is known */

static char *
ngx_http_rt_redis_addr(ngx_conf_t *cf, ngx_str_t *value, ngx_str_t *addr,
    ngx_rt_redis_url_t *url)
{
    u_char     *p;
    ngx_url_t   u;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = *addr;
    u.default_port = NGX_HTTP_RT_REDIS_PORT;
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        return ngx_http_rt_redis_invalid(cf, value,
                                         u.err ? u.err : "invalid host");
    }

    url->addrs = u.addrs;
    url->naddrs = u.naddrs;

    if (u.family == AF_UNIX) {
        url->text = *addr;
        return NGX_CONF_OK;
    }

    url->host = u.host;
    url->port = u.port;

    url->text.data = ngx_pnalloc(cf->pool, u.host.len
                                           + sizeof("[]:65535") - 1);
    if (url->text.data == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_strlchr(u.host.data, u.host.data + u.host.len, ':')
        && u.host.data[0] != '[')
    {
        p = ngx_sprintf(url->text.data, "[%V]:%d", &u.host, (int) u.port);

    } else {
        p = ngx_sprintf(url->text.data, "%V:%d", &u.host, (int) u.port);
    }

    url->text.len = p - url->text.data;

    return NGX_CONF_OK;
}


/* says what is wrong with a url, but not what its password is */

static char *
ngx_http_rt_redis_invalid(ngx_conf_t *cf, ngx_str_t *value, const char *err)
{
    u_char      *p, *last, *at, *scheme;
    ngx_str_t    head, tail;
    const char  *hidden;

    last = value->data + value->len;
    at = NULL;

    for (p = value->data; p < last; p++) {
        if (*p == '@') {
            at = p;
        }
    }

    head.data = value->data;
    head.len = 0;
    hidden = "";
    tail = *value;

    if (at) {
        scheme = ngx_strlchr(value->data, at, '/');

        if (scheme && scheme + 1 < at && scheme[1] == '/') {
            head.len = scheme + 2 - value->data;
        }

        hidden = "***";
        tail.data = at;
        tail.len = last - at;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V%s%V\" in \"redis\" directive, %s, "
                       "it must be redis://[user[:password]@]host[:port][/db] "
                       "or unix:/path", &head, hidden, &tail, err);

    return NGX_CONF_ERROR;
}


char *
ngx_http_rt_set_password_file(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_rt_hub_conf_t *hcf = conf;

    ngx_str_t  *value, name;

    value = cf->args->elts;

    if (hcf->password.data) {
        return "is duplicate";
    }

    if (value[1].len == 0) {
        return ngx_http_rt_conf_invalid(cf, &value[1],
                                        "the path of a file with a password "
                                        "in it");
    }

    name = value[1];

    if (ngx_conf_full_name(cf->cycle, &name, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_rt_password_read(cf, &name, &hcf->password) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_rt_password_read(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *password)
{
    size_t       len;
    ssize_t      n;
    ngx_fd_t     fd;
    ngx_err_t    err;
    const char  *why;
    u_char       buf[NGX_HTTP_RT_PASSWORD_MAX];

    fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "cannot open \"%V\" in \"redis_password_file\" "
                           "directive, it must be a readable file with a "
                           "password in it", name);
        return NGX_ERROR;
    }

    n = ngx_read_fd(fd, buf, NGX_HTTP_RT_PASSWORD_MAX);
    err = ngx_errno;

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_ALERT, cf, ngx_errno,
                           ngx_close_file_n " \"%V\" failed", name);
    }

    if (n == -1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, err,
                           "cannot read \"%V\" in \"redis_password_file\" "
                           "directive, it must be a readable file with a "
                           "password in it", name);
        return NGX_ERROR;
    }

    len = n;

    if (len && buf[len - 1] == LF) {
        len--;

        if (len && buf[len - 1] == CR) {
            len--;
        }
    }

    why = NULL;

    if (len == 0) {
        why = "is empty";

    } else if (n == NGX_HTTP_RT_PASSWORD_MAX) {
        why = "is too large";

    } else if (ngx_strlchr(buf, buf + len, LF)) {
        why = "has more than one line";
    }

    if (why) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" in \"redis_password_file\" directive %s, "
                           "it must hold a password of less than 4096 bytes "
                           "in one line", name, why);
        ngx_explicit_memzero(buf, NGX_HTTP_RT_PASSWORD_MAX);
        return NGX_ERROR;
    }

    password->data = ngx_pnalloc(cf->pool, len);
    if (password->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(password->data, buf, len);
    password->len = len;

    ngx_explicit_memzero(buf, NGX_HTTP_RT_PASSWORD_MAX);

    return NGX_OK;
}


char *
ngx_http_rt_redis_login(ngx_conf_t *cf, ngx_rt_hub_conf_t *hcf)
{
    ngx_uint_t           i;
    ngx_rt_redis_url_t  *url;

    url = hcf->urls.elts;

    for (i = 0; i < hcf->urls.nelts; i++) {

        if (url[i].password.len == 0) {
            url[i].password = hcf->password;

            if (url[i].user.len == 0) {
                url[i].user = hcf->user;
            }
        }

        if (url[i].user.len && url[i].password.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "user \"%V\" of \"%V\" in rt_hub \"%V\" has "
                               "no password, it must come with "
                               "\"redis_password_file\" or in \"redis "
                               "redis://user:password@host\"",
                               &url[i].user, &url[i].text, &hcf->name);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_rt_redis_lookup(ngx_conf_t *cf, ngx_http_rt_hub_t *hub)
{
    ngx_url_t            u;
    ngx_uint_t           i;
    ngx_rt_redis_url_t  *url;

    url = hub->conf.urls.elts;

    for (i = 0; i < hub->conf.urls.nelts; i++) {

        if (url[i].naddrs) {
            continue;
        }

        ngx_memzero(&u, sizeof(ngx_url_t));

        u.url = url[i].text;
        u.default_port = NGX_HTTP_RT_REDIS_PORT;

        if (ngx_parse_url(cf->pool, &u) == NGX_OK) {
            url[i].addrs = u.addrs;
            url[i].naddrs = u.naddrs;
            continue;
        }

        if (hub->conf.resolver) {
            continue;
        }

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "%s in \"redis\" directive: \"%V\" of rt_hub \"%V\", "
                      "it must be a name known at start, or \"resolver\" "
                      "be set in \"http\" in %V:%ui",
                      u.err ? u.err : "host not found", &url[i].host,
                      &hub->conf.name, &hub->file, hub->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}
