
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * rt_stream_log: a line for each stream that has ended, also for those whose
 * request ended long before.
 */


#include <ngx_http_rt_stream.h>


static size_t ngx_http_rt_stream_log_size(ngx_http_rt_stream_t *s);
static ngx_uint_t ngx_http_rt_stream_log_links(ngx_http_rt_stream_t *s);
static u_char *ngx_http_rt_stream_log_text(u_char *p, ngx_http_rt_stream_t *s);
static u_char *ngx_http_rt_stream_log_json(u_char *p, ngx_http_rt_stream_t *s);
static void ngx_http_rt_stream_log_write(ngx_http_rt_stream_t *s, u_char *buf,
    size_t len);


char *
ngx_http_rt_set_stream_log(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_rt_loc_conf_t *rlcf = conf;

    ngx_str_t  *value;

    if (rlcf->stream_log != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {

        if (cf->args->nelts == 3) {
            return "takes no format with \"off\"";
        }

        rlcf->stream_log = NULL;
        return NGX_CONF_OK;
    }

    if (value[1].len == 0) {
        return ngx_http_rt_conf_invalid(cf, &value[1],
                                        "the path of a file or \"off\"");
    }

    rlcf->stream_log_json = 0;

    if (cf->args->nelts == 3) {

        if (ngx_strcmp(value[2].data, "json") == 0) {
            rlcf->stream_log_json = 1;

        } else if (ngx_strcmp(value[2].data, "text") != 0) {
            return ngx_http_rt_conf_invalid(cf, &value[2],
                                            "\"text\" or \"json\"");
        }
    }

    rlcf->stream_log = ngx_conf_open_file(cf->cycle, &value[1]);

    return rlcf->stream_log ? NGX_CONF_OK : NGX_CONF_ERROR;
}


void
ngx_http_rt_stream_log(ngx_http_rt_stream_t *s)
{
    u_char  *p, *buf;

    if (s->conf->stream_log == NULL) {
        return;
    }

    buf = ngx_alloc(ngx_http_rt_stream_log_size(s), s->connection->log);
    if (buf == NULL) {
        return;
    }

    p = s->conf->stream_log_json ? ngx_http_rt_stream_log_json(buf, s)
                                 : ngx_http_rt_stream_log_text(buf, s);
    *p++ = '\n';

    ngx_http_rt_stream_log_write(s, buf, p - buf);

    ngx_free(buf);
}


/* at most */

static size_t
ngx_http_rt_stream_log_size(ngx_http_rt_stream_t *s)
{
    size_t      size;
    ngx_uint_t  i;

    size = ngx_cached_http_log_iso8601.len
           + ngx_rt_json_string_len(&s->client)
           + 4 * NGX_INT64_LEN + ngx_strlen(s->close)
           + sizeof("{\"time\":\"\",\"client\":,\"transport\":\"websocket\","
                    "\"channels\":[],\"seconds\":.000,\"messages\":,"
                    "\"bytes\":,\"close\":\"\"}\n");

    for (i = 0; i < ngx_http_rt_stream_log_links(s); i++) {
        size += ngx_rt_json_string_len(&s->sub.links[i].channel->node.str) + 1;
    }

    return size;
}


/* there are none of a stream that could not be subscribed */

static ngx_uint_t
ngx_http_rt_stream_log_links(ngx_http_rt_stream_t *s)
{
    return s->sub.attached ? s->sub.nlinks : 0;
}


/* a name has no spaces */

static u_char *
ngx_http_rt_stream_log_text(u_char *p, ngx_http_rt_stream_t *s)
{
    ngx_uint_t         i;
    ngx_msec_t         ms;
    ngx_rt_channel_t  *channel;

    ms = ngx_current_msec - s->begun;

    p = ngx_sprintf(p, "%V %V sse ", &ngx_cached_http_log_iso8601,
                    &s->client);

    for (i = 0; i < ngx_http_rt_stream_log_links(s); i++) {
        channel = s->sub.links[i].channel;

        p = ngx_sprintf(p, i ? ",%V" : "%V", &channel->node.str);
    }

    return ngx_sprintf(p, "%s %M.%03M %ui %O %s", i ? "" : "-", ms / 1000,
                       ms % 1000, s->messages,
                       s->connection->sent + s->bytes, s->close);
}


static u_char *
ngx_http_rt_stream_log_json(u_char *p, ngx_http_rt_stream_t *s)
{
    ngx_uint_t         i;
    ngx_msec_t         ms;
    ngx_rt_channel_t  *channel;

    ms = ngx_current_msec - s->begun;

    p = ngx_sprintf(p, "{\"time\":\"%V\",\"client\":",
                    &ngx_cached_http_log_iso8601);
    p = ngx_rt_json_string(p, &s->client);
    p = ngx_sprintf(p, ",\"transport\":\"sse\",\"channels\":[");

    for (i = 0; i < ngx_http_rt_stream_log_links(s); i++) {
        channel = s->sub.links[i].channel;

        if (i) {
            *p++ = ',';
        }

        p = ngx_rt_json_string(p, &channel->node.str);
    }

    return ngx_sprintf(p, "],\"seconds\":%M.%03M,\"messages\":%ui,"
                       "\"bytes\":%O,\"close\":\"%s\"}", ms / 1000, ms % 1000,
                       s->messages, s->connection->sent + s->bytes, s->close);
}


/* a disk that is full is told once a second, and holds up nobody */

static void
ngx_http_rt_stream_log_write(ngx_http_rt_stream_t *s, u_char *buf, size_t len)
{
    ssize_t           n;
    ngx_err_t         err;
    ngx_open_file_t  *file;

    static time_t  told;

    file = s->conf->stream_log;

    n = ngx_write_fd(file->fd, buf, len);

    if (n == (ssize_t) len || told == ngx_time()) {
        return;
    }

    err = (n == -1) ? ngx_errno : 0;
    told = ngx_time();

    ngx_log_error(NGX_LOG_ALERT, s->connection->log, err,
                  ngx_write_fd_n " to \"%V\" failed", &file->name);
}
