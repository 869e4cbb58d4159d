
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The rt_hub block.
 *
 * A location may name a hub that is defined later, so naming one makes it;
 * at the end of http{} each must have been defined.  Every error is one line
 * that names the directive and says what to write instead.
 */


#include <ngx_http_rt.h>


#define NGX_HTTP_RT_NAME_MAX      64
#define NGX_HTTP_RT_PREFIX_MAX    255
#define NGX_HTTP_RT_PATTERN_MAX   512


static char *ngx_http_rt_hub_directive(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);
static ngx_uint_t ngx_http_rt_hub_args(ngx_uint_t type, ngx_uint_t n);
static char *ngx_http_rt_hub_unknown(ngx_conf_t *cf);
static char *ngx_http_rt_hub_finish(ngx_conf_t *cf, ngx_http_rt_hub_t *hub);
static ngx_int_t ngx_http_rt_hub_source(ngx_conf_t *cf,
    ngx_rt_hub_conf_t *hcf);
static ngx_http_rt_hub_t *ngx_http_rt_hub_find(ngx_conf_t *cf,
    ngx_str_t *name);
static ngx_int_t ngx_http_rt_hub_name(ngx_conf_t *cf, ngx_str_t *name);

static char *ngx_http_rt_set_user(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_rt_set_timeout(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_rt_set_reconnect(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_rt_set_patterns(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_rt_set_prefix(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_rt_set_snapshot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_rt_set_history(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


static ngx_http_rt_number_t  ngx_http_rt_zone_size = {
    NGX_HTTP_RT_SIZE, 1, NGX_MAX_SIZE_T_VALUE, "a size such as 32m"
};

static ngx_http_rt_number_t  ngx_http_rt_timeout = {
    NGX_HTTP_RT_MSEC, 1, NGX_HTTP_RT_TIME_MAX * 1000LL,
    "a time of 1ms to 365d such as 2s"
};

static ngx_http_rt_number_t  ngx_http_rt_history_count = {
    NGX_HTTP_RT_NUM, 1, 1000000,
    "a number of messages of 1 to 1000000 and, after it, a time"
};

static ngx_http_rt_number_t  ngx_http_rt_history_time = {
    NGX_HTTP_RT_MSEC, 1, NGX_HTTP_RT_TIME_MAX * 1000LL,
    "a number of messages and a time of 1ms to 365d such as 10m"
};

static ngx_http_rt_number_t  ngx_http_rt_inactive = {
    NGX_HTTP_RT_SEC, 1, NGX_HTTP_RT_TIME_MAX,
    "a time of 1s to 365d such as 10m"
};

static ngx_http_rt_number_t  ngx_http_rt_message_max = {
    NGX_HTTP_RT_SIZE, 1, 512 * 1024 * 1024,
    "a size of 1 to 512m such as 256k"
};

static ngx_http_rt_number_t  ngx_http_rt_stale = {
    NGX_HTTP_RT_MSEC, 0, NGX_HTTP_RT_TIME_MAX * 1000LL,
    "a time of 0 to 365d such as 30s"
};


static ngx_conf_enum_t  ngx_http_rt_source_names[] = {
    { ngx_string("pubsub"), NGX_RT_SOURCE_PUBSUB },
    { ngx_string("sharded"), NGX_HTTP_RT_UNSUPPORTED },
    { ngx_string("stream"), NGX_RT_SOURCE_STREAM },
    { ngx_null_string, 0 }
};

static ngx_http_rt_enum_t  ngx_http_rt_source = {
    "\"pubsub\" or \"stream\"", ngx_http_rt_source_names
};

static ngx_conf_enum_t  ngx_http_rt_payload_names[] = {
    { ngx_string("raw"), NGX_RT_PAYLOAD_RAW },
    { ngx_string("json"), NGX_RT_PAYLOAD_JSON },
    { ngx_null_string, 0 }
};

static ngx_http_rt_enum_t  ngx_http_rt_payload = {
    "\"raw\" or \"json\"", ngx_http_rt_payload_names
};


/* what may stand in an rt_hub block; conf is the ngx_http_rt_hub_t */

static ngx_command_t  ngx_http_rt_hub_commands[] = {

    { ngx_string("zone"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      0,
      offsetof(ngx_rt_hub_conf_t, size),
      &ngx_http_rt_zone_size },

    { ngx_string("redis"),
      NGX_CONF_1MORE,
      ngx_http_rt_set_redis,
      0,
      0,
      NULL },

    { ngx_string("redis_user"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_user,
      0,
      0,
      NULL },

    { ngx_string("redis_password_file"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_password_file,
      0,
      0,
      NULL },

    { ngx_string("redis_timeout"),
      NGX_CONF_TAKE12,
      ngx_http_rt_set_timeout,
      0,
      0,
      NULL },

    { ngx_string("redis_reconnect"),
      NGX_CONF_TAKE2,
      ngx_http_rt_set_reconnect,
      0,
      0,
      NULL },

    { ngx_string("source"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_enum,
      0,
      offsetof(ngx_rt_hub_conf_t, source),
      &ngx_http_rt_source },

    { ngx_string("subscribe"),
      NGX_CONF_1MORE,
      ngx_http_rt_set_patterns,
      0,
      0,
      NULL },

    { ngx_string("prefix"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_prefix,
      0,
      0,
      NULL },

    { ngx_string("snapshot"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_snapshot,
      0,
      0,
      NULL },

    { ngx_string("payload"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_enum,
      0,
      offsetof(ngx_rt_hub_conf_t, payload),
      &ngx_http_rt_payload },

    { ngx_string("history"),
      NGX_CONF_TAKE12,
      ngx_http_rt_set_history,
      0,
      0,
      NULL },

    { ngx_string("inactive"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      0,
      offsetof(ngx_rt_hub_conf_t, inactive),
      &ngx_http_rt_inactive },

    { ngx_string("message_max"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      0,
      offsetof(ngx_rt_hub_conf_t, message_max),
      &ngx_http_rt_message_max },

    { ngx_string("stale"),
      NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      0,
      offsetof(ngx_rt_hub_conf_t, stale),
      &ngx_http_rt_stale },

      ngx_null_command
};


static ngx_str_t  ngx_http_rt_hub_unsupported[] = {
    ngx_string("redis_ssl_trusted_certificate"),
    ngx_string("redis_ssl_certificate"),
    ngx_string("redis_ssl_certificate_key"),
    ngx_string("redis_ssl_verify"),
    ngx_string("redis_ssl_name"),
    ngx_string("redis_sentinel"),
    ngx_string("redis_cluster"),
    ngx_null_string
};


char *
ngx_http_rt_hub_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char               *rv;
    ngx_str_t          *value;
    ngx_conf_t          save;
    ngx_http_rt_hub_t  *hub;

    if (cf->cmd_type != NGX_HTTP_MAIN_CONF) {
        return "is not allowed here, it must stand directly in \"http\"";
    }

    value = cf->args->elts;

    if (ngx_http_rt_hub_name(cf, &value[1]) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    hub = ngx_http_rt_hub_find(cf, &value[1]);
    if (hub == NULL) {
        return NGX_CONF_ERROR;
    }

    if (hub->defined) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate hub \"%V\" in \"rt_hub\" directive, it "
                           "is defined in %V:%ui already, it must have "
                           "another name", &value[1], &hub->file, hub->line);
        return NGX_CONF_ERROR;
    }

    hub->defined = 1;
    ngx_http_rt_conf_place(cf, &hub->file, &hub->line);

    save = *cf;

    cf->handler = ngx_http_rt_hub_directive;
    cf->handler_conf = (void *) hub;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return ngx_http_rt_hub_finish(cf, hub);
}


/* one directive of the block, as ngx_conf_handler() does it */

static char *
ngx_http_rt_hub_directive(ngx_conf_t *cf, ngx_command_t *dummy, void *conf)
{
    char               *rv;
    ngx_str_t          *name;
    ngx_command_t      *cmd;
    ngx_http_rt_hub_t  *hub = conf;

    name = cf->args->elts;

    if (ngx_strcmp(name->data, "include") == 0) {
        if (cf->args->nelts != 2) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of arguments in \"include\" "
                               "directive");
            return NGX_CONF_ERROR;
        }

        return ngx_conf_include(cf, dummy, conf);
    }

    for (cmd = ngx_http_rt_hub_commands; cmd->name.len; cmd++) {

        if (name->len != cmd->name.len
            || ngx_strcmp(name->data, cmd->name.data) != 0)
        {
            continue;
        }

        if (!ngx_http_rt_hub_args(cmd->type, cf->args->nelts - 1)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of arguments in \"%V\" "
                               "directive", name);
            return NGX_CONF_ERROR;
        }

        if (hub->needs.len == 0
            && cmd->set != ngx_http_rt_set_redis
            && (ngx_strncmp(name->data, "redis_", 6) == 0
                || cmd->set == ngx_http_rt_set_patterns))
        {
            hub->needs = cmd->name;
        }

        rv = cmd->set(cf, cmd, conf);

        if (rv == NGX_CONF_OK || rv == NGX_CONF_ERROR) {
            return rv;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" directive %s",
                           name, rv);

        return NGX_CONF_ERROR;
    }

    return ngx_http_rt_hub_unknown(cf);
}


static ngx_uint_t
ngx_http_rt_hub_args(ngx_uint_t type, ngx_uint_t n)
{
    if (type & NGX_CONF_1MORE) {
        return n >= 1;
    }

    return (n == 1 && (type & NGX_CONF_TAKE1))
           || (n == 2 && (type & NGX_CONF_TAKE2));
}


static char *
ngx_http_rt_hub_unknown(ngx_conf_t *cf)
{
    ngx_str_t   *name;
    ngx_uint_t   i;

    name = cf->args->elts;

    for (i = 0; ngx_http_rt_hub_unsupported[i].len; i++) {

        if (name->len == ngx_http_rt_hub_unsupported[i].len
            && ngx_strcmp(name->data, ngx_http_rt_hub_unsupported[i].data)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" directive is not supported by this "
                               "version", name);
            return NGX_CONF_ERROR;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown directive \"%V\" in \"rt_hub\" block, it may "
                       "hold zone, redis, redis_user, redis_password_file, "
                       "redis_timeout, redis_reconnect, source, subscribe, "
                       "prefix, snapshot, payload, history, inactive, "
                       "message_max and stale", name);

    return NGX_CONF_ERROR;
}


/* the defaults, and what the directives must agree in */

static char *
ngx_http_rt_hub_finish(ngx_conf_t *cf, ngx_http_rt_hub_t *hub)
{
    ngx_rt_hub_conf_t  *hcf;

    hcf = &hub->conf;

    if (hcf->urls.nelts == 0 && hub->needs.len) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" directive needs \"redis "
                           "redis://host:port;\" in rt_hub \"%V\", without "
                           "it the hub is embedded and asks no Redis",
                           &hub->needs, &hcf->name);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_rt_hub_source(cf, hcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    hub->large = (hcf->message_max != NGX_CONF_UNSET_SIZE);

    ngx_conf_init_size_value(hcf->size, 32 * 1024 * 1024);
    ngx_conf_init_uint_value(hcf->payload, NGX_RT_PAYLOAD_RAW);
    ngx_conf_init_uint_value(hcf->snapshots, 0);
    ngx_conf_init_msec_value(hcf->connect_timeout, 2000);
    ngx_conf_init_msec_value(hcf->reply_timeout, 5000);
    ngx_conf_init_msec_value(hcf->reconnect_min, 100);
    ngx_conf_init_msec_value(hcf->reconnect_max, 5000);
    ngx_conf_init_uint_value(hcf->history, 64);
    ngx_conf_init_msec_value(hcf->history_time, 600 * 1000);
    ngx_conf_init_value(hcf->inactive, 600);
    ngx_conf_init_size_value(hcf->message_max, 256 * 1024);
    ngx_conf_init_msec_value(hcf->stale, 0);

    return ngx_http_rt_redis_login(cf, hcf);
}


static ngx_int_t
ngx_http_rt_hub_source(ngx_conf_t *cf, ngx_rt_hub_conf_t *hcf)
{
    if (hcf->urls.nelts == 0) {

        if (hcf->source == NGX_RT_SOURCE_STREAM) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"source stream\" needs \"redis "
                               "redis://host:port;\" in rt_hub \"%V\", "
                               "without it the hub is embedded and reads no "
                               "streams", &hcf->name);
            return NGX_ERROR;
        }

        hcf->source = NGX_RT_SOURCE_EMBEDDED;
        return NGX_OK;
    }

    ngx_conf_init_uint_value(hcf->source, NGX_RT_SOURCE_PUBSUB);

    if (hcf->source == NGX_RT_SOURCE_STREAM && hcf->patterns.nelts) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"subscribe\" directive can't be used with "
                           "\"source stream\" in rt_hub \"%V\", patterns "
                           "need \"source pubsub\"", &hcf->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_rt_hub_conf_t *
ngx_http_rt_hub_ref(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_http_rt_hub_t  *hub;

    if (ngx_http_rt_hub_name(cf, name) != NGX_OK) {
        return NULL;
    }

    hub = ngx_http_rt_hub_find(cf, name);

    return hub ? &hub->conf : NULL;
}


static ngx_int_t
ngx_http_rt_hub_name(ngx_conf_t *cf, ngx_str_t *name)
{
    u_char      ch;
    ngx_uint_t  i;

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9')
              || ch == '_' || ch == '-' || ch == '.'))
        {
            break;
        }
    }

    if (name->len == 0 || name->len > NGX_HTTP_RT_NAME_MAX || i < name->len) {
        (void) ngx_http_rt_conf_invalid(cf, name,
                                        "the name of a hub, of up to 64 "
                                        "letters, digits, \"_\", \"-\", "
                                        "\".\"");
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* the hub of that name, new if it has not been named yet */

static ngx_http_rt_hub_t *
ngx_http_rt_hub_find(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_str_t                *value;
    ngx_uint_t                i;
    ngx_http_rt_hub_t        *hub;
    ngx_rt_hub_conf_t       **hubp, *hcf;
    ngx_http_rt_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_rt_module);

    hubp = rmcf->hubs.elts;

    for (i = 0; i < rmcf->hubs.nelts; i++) {
        if (hubp[i]->name.len == name->len
            && ngx_strncmp(hubp[i]->name.data, name->data, name->len) == 0)
        {
            return (ngx_http_rt_hub_t *) hubp[i];
        }
    }

    hub = ngx_pcalloc(cf->pool, sizeof(ngx_http_rt_hub_t));
    if (hub == NULL) {
        return NULL;
    }

    value = cf->args->elts;

    hub->cycle = cf->cycle;
    hub->directive = value[0];
    ngx_http_rt_conf_place(cf, &hub->file, &hub->line);

    hcf = &hub->conf;

    hcf->name = *name;
    hcf->size = NGX_CONF_UNSET_SIZE;
    hcf->source = NGX_CONF_UNSET_UINT;
    hcf->payload = NGX_CONF_UNSET_UINT;
    hcf->snapshots = NGX_CONF_UNSET_UINT;
    hcf->connect_timeout = NGX_CONF_UNSET_MSEC;
    hcf->reply_timeout = NGX_CONF_UNSET_MSEC;
    hcf->reconnect_min = NGX_CONF_UNSET_MSEC;
    hcf->reconnect_max = NGX_CONF_UNSET_MSEC;
    hcf->history = NGX_CONF_UNSET_UINT;
    hcf->history_time = NGX_CONF_UNSET_MSEC;
    hcf->inactive = NGX_CONF_UNSET;
    hcf->message_max = NGX_CONF_UNSET_SIZE;
    hcf->stale = NGX_CONF_UNSET_MSEC;
    hcf->index = rmcf->hubs.nelts;

    if (ngx_array_init(&hcf->urls, cf->pool, 1, sizeof(ngx_rt_redis_url_t))
        != NGX_OK
        || ngx_array_init(&hcf->patterns, cf->pool, 1, sizeof(ngx_str_t))
           != NGX_OK)
    {
        return NULL;
    }

    hubp = ngx_array_push(&rmcf->hubs);
    if (hubp == NULL) {
        return NULL;
    }

    *hubp = hcf;

    return hub;
}


void
ngx_http_rt_conf_place(ngx_conf_t *cf, ngx_str_t *file, ngx_uint_t *line)
{
    if (cf->conf_file == NULL
        || cf->conf_file->file.fd == NGX_INVALID_FILE)
    {
        ngx_str_set(file, "command line");
        *line = 1;
        return;
    }

    *file = cf->conf_file->file.name;
    *line = cf->conf_file->line;
}


static char *
ngx_http_rt_set_user(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_rt_hub_conf_t *hcf = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (hcf->user.data) {
        return "is duplicate";
    }

    if (value[1].len == 0) {
        return ngx_http_rt_conf_invalid(cf, &value[1], "the name of a user");
    }

    hcf->user = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_rt_set_timeout(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_rt_hub_conf_t *hcf = conf;

    ngx_int_t   n;
    ngx_str_t  *value;

    value = cf->args->elts;

    if (hcf->connect_timeout != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    n = ngx_http_rt_conf_number(cf, &value[1], &ngx_http_rt_timeout);
    if (n == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    hcf->connect_timeout = n;

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    n = ngx_http_rt_conf_number(cf, &value[2], &ngx_http_rt_timeout);
    if (n == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    hcf->reply_timeout = n;

    return NGX_CONF_OK;
}


static char *
ngx_http_rt_set_reconnect(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_rt_hub_conf_t *hcf = conf;

    ngx_int_t   min, max;
    ngx_str_t  *value;

    value = cf->args->elts;

    if (hcf->reconnect_min != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    min = ngx_http_rt_conf_number(cf, &value[1], &ngx_http_rt_timeout);
    if (min == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    max = ngx_http_rt_conf_number(cf, &value[2], &ngx_http_rt_timeout);
    if (max == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    if (min > max) {
        return ngx_http_rt_conf_invalid(cf, &value[2],
                                        "a maximum of at least the minimum "
                                        "before it");
    }

    hcf->reconnect_min = min;
    hcf->reconnect_max = max;

    return NGX_CONF_OK;
}


static char *
ngx_http_rt_set_patterns(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_rt_hub_conf_t *hcf = conf;

    ngx_str_t   *value, *pattern;
    ngx_uint_t   i, n;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (value[i].len == 0 || value[i].len > NGX_HTTP_RT_PATTERN_MAX) {
            return ngx_http_rt_conf_invalid(cf, &value[i],
                                            "one or more Redis patterns such "
                                            "as orders:*");
        }

        pattern = hcf->patterns.elts;

        for (n = 0; n < hcf->patterns.nelts; n++) {
            if (pattern[n].len == value[i].len
                && ngx_memcmp(pattern[n].data, value[i].data, value[i].len)
                   == 0)
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "duplicate pattern \"%V\" in "
                                   "\"subscribe\" directive, each must stand "
                                   "there once", &value[i]);
                return NGX_CONF_ERROR;
            }
        }

        pattern = ngx_array_push(&hcf->patterns);
        if (pattern == NULL) {
            return NGX_CONF_ERROR;
        }

        *pattern = value[i];
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_rt_set_prefix(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_rt_hub_conf_t *hcf = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (hcf->prefix.data) {
        return "is duplicate";
    }

    if (value[1].len > NGX_HTTP_RT_PREFIX_MAX) {
        return ngx_http_rt_conf_invalid(cf, &value[1],
                                        "a string of up to 255 bytes");
    }

    hcf->prefix = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_rt_set_snapshot(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_rt_hub_t *hub = conf;

    ngx_str_t          *value;
    ngx_rt_hub_conf_t  *hcf;

    hcf = &hub->conf;
    value = cf->args->elts;

    if (hcf->snapshots != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        hcf->snapshots = 0;
        return NGX_CONF_OK;
    }

    if (value[1].len > NGX_HTTP_RT_PREFIX_MAX) {
        return ngx_http_rt_conf_invalid(cf, &value[1],
                                        "a string of up to 255 bytes that "
                                        "the keys begin with, or \"off\"");
    }

    hcf->snapshot = value[1];
    hcf->snapshots = 1;

    if (hub->needs.len == 0) {
        hub->needs = cmd->name;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_rt_set_history(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_rt_hub_conf_t *hcf = conf;

    ngx_int_t   n;
    ngx_str_t  *value;

    value = cf->args->elts;

    if (hcf->history != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    n = ngx_http_rt_conf_number(cf, &value[1], &ngx_http_rt_history_count);
    if (n == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    hcf->history = n;

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    n = ngx_http_rt_conf_number(cf, &value[2], &ngx_http_rt_history_time);
    if (n == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    hcf->history_time = n;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_rt_hubs_done(ngx_conf_t *cf)
{
    ngx_uint_t                 i;
    ngx_msec_t                 timeout;
    ngx_resolver_t            *resolver;
    ngx_http_rt_hub_t         *hub;
    ngx_rt_hub_conf_t        **hubp;
    ngx_http_rt_main_conf_t   *rmcf;
    ngx_http_core_loc_conf_t  *clcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_rt_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* without "resolver" nginx has made an empty one for the servers */

    resolver = clcf->resolver;

    if (resolver && resolver->connections.nelts == 0) {
        resolver = NULL;
    }

    timeout = clcf->resolver_timeout;

    if (timeout == NGX_CONF_UNSET_MSEC) {
        timeout = 30000;
    }

    hubp = rmcf->hubs.elts;

    for (i = 0; i < rmcf->hubs.nelts; i++) {
        hub = (ngx_http_rt_hub_t *) hubp[i];

        if (!hub->defined) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown hub \"%V\" in \"%V\" directive, it must "
                          "be defined by \"rt_hub %V { }\" in \"http\" "
                          "in %V:%ui", &hub->conf.name, &hub->directive,
                          &hub->conf.name, &hub->file, hub->line);
            return NGX_ERROR;
        }

        hub->conf.resolver = resolver;
        hub->conf.resolver_timeout = timeout;

        if (ngx_http_rt_redis_lookup(cf, hub) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_http_rt_zone(cf, hub) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
