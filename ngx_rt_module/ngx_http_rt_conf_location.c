
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The configuration of a location: its handler and channels, and how values
 * are inherited.
 */


#include <ngx_http_rt.h>


static char *ngx_http_rt_merge_handler(ngx_conf_t *cf,
    ngx_http_rt_loc_conf_t *prev, ngx_http_rt_loc_conf_t *conf);
static char *ngx_http_rt_handler(ngx_conf_t *cf, ngx_http_rt_loc_conf_t *rlcf,
    ngx_http_handler_pt handler);
static char *ngx_http_rt_conf_channels(ngx_conf_t *cf, ngx_uint_t nelts,
    ngx_rt_hub_conf_t **hub, ngx_array_t **channels, ngx_uint_t max);
static char *ngx_http_rt_channels_check(ngx_conf_t *cf, ngx_str_t *value,
    ngx_uint_t *n);


static ngx_http_rt_number_t  ngx_http_rt_seconds = {
    NGX_HTTP_RT_SEC, 1, NGX_HTTP_RT_TIME_MAX,
    "a minimum and a maximum in whole seconds, of 1s to 365d"
};

static ngx_http_rt_number_t  ngx_http_rt_viewers = {
    NGX_HTTP_RT_NUM, 1, NGX_MAX_INT32_VALUE,
    "viewers=N with a number of at least 1"
};

static ngx_http_rt_number_t  ngx_http_rt_interval = {
    NGX_HTTP_RT_MSEC, 1, NGX_HTTP_RT_TIME_MAX * 1000LL,
    "interval=T with a time of 1ms to 365d"
};

static ngx_conf_enum_t  ngx_http_rt_status_names[] = {
    { ngx_string("json"), NGX_HTTP_RT_STATUS_JSON },
    { ngx_string("html"), NGX_HTTP_RT_UNSUPPORTED },
    { ngx_string("prometheus"), NGX_HTTP_RT_UNSUPPORTED },
    { ngx_null_string, 0 }
};

static ngx_http_rt_enum_t  ngx_http_rt_status_forms = {
    "\"json\"", ngx_http_rt_status_names
};


static ngx_conf_enum_t  ngx_http_rt_gate_names[] = {
    { ngx_string("publish"), NGX_HTTP_RT_GATE_PUBLISH },
    { ngx_string("payload"), NGX_HTTP_RT_GATE_PAYLOAD },
    { ngx_null_string, 0 }
};

static ngx_http_rt_enum_t  ngx_http_rt_gate_versions = {
    "by=publish or by=payload", ngx_http_rt_gate_names
};


void *
ngx_http_rt_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_rt_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_rt_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->handler = NULL;
     *     conf->hub = NULL;
     *     conf->channels = NULL;
     *     conf->gate = NULL;
     *     conf->status = NGX_HTTP_RT_STATUS_AUTO;
     *     conf->transports = 0;
     */

    conf->start = NGX_CONF_UNSET_UINT;
    conf->event = NGX_CONF_UNSET_UINT;
    conf->heartbeat = NGX_CONF_UNSET_MSEC;
    conf->retry = NGX_CONF_UNSET_MSEC;
    conf->lifetime = NGX_CONF_UNSET_MSEC;
    conf->poll_min = NGX_CONF_UNSET;
    conf->poll_max = NGX_CONF_UNSET;
    conf->wait = NGX_CONF_UNSET;
    conf->advise_viewers = NGX_CONF_UNSET_UINT;
    conf->advise_interval = NGX_CONF_UNSET_MSEC;
    conf->buffer = NGX_CONF_UNSET_SIZE;
    conf->slow = NGX_CONF_UNSET_UINT;
    conf->max_subscribers = NGX_CONF_UNSET_UINT;
    conf->drain = NGX_CONF_UNSET_MSEC;
    conf->detach = NGX_CONF_UNSET;
    conf->stream_log = NGX_CONF_UNSET_PTR;

    return conf;
}


char *
ngx_http_rt_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_rt_loc_conf_t *prev = parent;
    ngx_http_rt_loc_conf_t *conf = child;

    if (conf->transports == 0) {
        conf->transports = prev->transports ? prev->transports
                               : (NGX_HTTP_RT_POLL|NGX_HTTP_RT_SSE);
    }

    ngx_conf_merge_uint_value(conf->start, prev->start, NGX_RT_START_LATEST);
    ngx_conf_merge_uint_value(conf->event, prev->event,
                              NGX_HTTP_RT_EVENT_MESSAGE);
    ngx_conf_merge_msec_value(conf->heartbeat, prev->heartbeat, 15000);
    ngx_conf_merge_msec_value(conf->retry, prev->retry, 2000);
    ngx_conf_merge_msec_value(conf->lifetime, prev->lifetime, 0);
    ngx_conf_merge_sec_value(conf->poll_min, prev->poll_min, 2);
    ngx_conf_merge_sec_value(conf->poll_max, prev->poll_max, 15);
    ngx_conf_merge_sec_value(conf->wait, prev->wait, 30);
    ngx_conf_merge_uint_value(conf->advise_viewers, prev->advise_viewers, 50);
    ngx_conf_merge_msec_value(conf->advise_interval, prev->advise_interval,
                              5000);
    ngx_conf_merge_size_value(conf->buffer, prev->buffer, 256 * 1024);
    ngx_conf_merge_uint_value(conf->slow, prev->slow, NGX_HTTP_RT_SLOW_CLOSE);
    ngx_conf_merge_uint_value(conf->max_subscribers, prev->max_subscribers,
                              0);
    ngx_conf_merge_msec_value(conf->drain, prev->drain, 5000);
    ngx_conf_merge_value(conf->detach, prev->detach, 1);

    if (conf->stream_log == NGX_CONF_UNSET_PTR) {
        conf->stream_log_json = prev->stream_log_json;
    }

    ngx_conf_merge_ptr_value(conf->stream_log, prev->stream_log, NULL);

    return ngx_http_rt_merge_handler(cf, prev, conf);
}


/*
 * A directive such as proxy_pass that follows ours takes its place silently:
 * found here.  The blocks of "if" and limit_except go on with the handler of
 * their location, as they do with proxy_pass.
 */

static char *
ngx_http_rt_merge_handler(ngx_conf_t *cf, ngx_http_rt_loc_conf_t *prev,
    ngx_http_rt_loc_conf_t *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (conf->handler && clcf->handler != conf->handler) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"%V\" directive and another content handler in one "
                      "location, each must have a location of its own in "
                      "%V:%ui", &conf->directive, &conf->file, conf->line);
        return NGX_CONF_ERROR;
    }

    if (clcf->noname && conf->gate == NULL) {
        conf->gate = prev->gate;
    }

    if (conf->gate && conf->handler) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"rt_gate\" directive and \"%V\" in one location, "
                      "each must have a location of its own in %V:%ui",
                      &conf->directive, &conf->gate->file, conf->gate->line);
        return NGX_CONF_ERROR;
    }

    if (!clcf->noname || conf->handler || prev->handler == NULL) {
        return NGX_CONF_OK;
    }

    conf->hub = prev->hub;
    conf->channels = prev->channels;
    conf->status = prev->status;

    if (clcf->handler == NULL) {

        conf->handler = prev->handler;
        conf->directive = prev->directive;
        conf->file = prev->file;
        conf->line = prev->line;

        if (clcf->lmt_excpt) {
            clcf->handler = conf->handler;
        }
    }

    return NGX_CONF_OK;
}


char *
ngx_http_rt_set_subscribe(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_rt_loc_conf_t *rlcf = conf;

    char  *rv;

    rv = ngx_http_rt_handler(cf, rlcf, ngx_http_rt_subscribe_handler);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return ngx_http_rt_conf_channels(cf, cf->args->nelts, &rlcf->hub,
                                     &rlcf->channels,
                                     NGX_HTTP_RT_MAX_CHANNELS);
}


char *
ngx_http_rt_set_publish(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_rt_loc_conf_t *rlcf = conf;

    char  *rv;

    rv = ngx_http_rt_handler(cf, rlcf, ngx_http_rt_publish_handler);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return ngx_http_rt_conf_channels(cf, cf->args->nelts, &rlcf->hub,
                                     &rlcf->channels, 1);
}


char *
ngx_http_rt_set_gate(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_rt_loc_conf_t *rlcf = conf;

    ngx_str_t                *value, by;
    ngx_uint_t                n;
    ngx_http_rt_gate_conf_t  *gate;
    ngx_http_rt_main_conf_t  *rmcf;

    if (!(cf->cmd_type
          & (NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_HTTP_LMT_CONF)))
    {
        return "is not allowed here, it must stand in a \"location\"";
    }

    if (rlcf->gate) {
        return "is duplicate";
    }

    gate = ngx_pcalloc(cf->pool, sizeof(ngx_http_rt_gate_conf_t));
    if (gate == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;
    n = cf->args->nelts;

    if (ngx_strncmp(value[n - 1].data, "by=", 3) == 0) {

        if (--n == 2) {
            return "has no channel, it must have at least one";
        }

        by.data = value[n].data + 3;
        by.len = value[n].len - 3;

        if (ngx_http_rt_conf_enum(cf, &by, &ngx_http_rt_gate_versions,
                                  &gate->by)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    ngx_http_rt_conf_place(cf, &gate->file, &gate->line);

    rmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_rt_module);

    rmcf->gates = 1;
    rlcf->gate = gate;

    return ngx_http_rt_conf_channels(cf, n, &gate->hub, &gate->channels,
                                     NGX_HTTP_RT_MAX_CHANNELS);
}


char *
ngx_http_rt_set_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_rt_loc_conf_t *rlcf = conf;

    char       *rv;
    ngx_str_t  *value;

    rv = ngx_http_rt_handler(cf, rlcf, ngx_http_rt_status_handler);

    if (rv != NGX_CONF_OK || cf->args->nelts == 1) {
        return rv;
    }

    value = cf->args->elts;

    if (ngx_http_rt_conf_enum(cf, &value[1], &ngx_http_rt_status_forms,
                              &rlcf->status)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* the location's content handler, if it may have this one */

static char *
ngx_http_rt_handler(ngx_conf_t *cf, ngx_http_rt_loc_conf_t *rlcf,
    ngx_http_handler_pt handler)
{
    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;

    if (!(cf->cmd_type
          & (NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_HTTP_LMT_CONF)))
    {
        return "is not allowed here, it must stand in a \"location\"";
    }

    if (rlcf->handler == handler) {
        return "is duplicate";
    }

    value = cf->args->elts;
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (rlcf->handler) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" directive and \"%V\" in one location, "
                           "each must have a location of its own",
                           &value[0], &rlcf->directive);
        return NGX_CONF_ERROR;
    }

    if (clcf->handler) {
        return "and another content handler in one location, each must have "
               "a location of its own";
    }

    rlcf->handler = handler;
    rlcf->directive = value[0];
    ngx_http_rt_conf_place(cf, &rlcf->file, &rlcf->line);

    clcf->handler = handler;

    return NGX_CONF_OK;
}


/* of a directive's first nelts words; names without variables are checked
 * now */

static char *
ngx_http_rt_conf_channels(ngx_conf_t *cf, ngx_uint_t nelts,
    ngx_rt_hub_conf_t **hub, ngx_array_t **channels, ngx_uint_t max)
{
    ngx_str_t                         *value;
    ngx_uint_t                         i, n;
    ngx_http_complex_value_t          *cv;
    ngx_http_compile_complex_value_t   ccv;

    value = cf->args->elts;

    *hub = ngx_http_rt_hub_ref(cf, &value[1]);
    if (*hub == NULL) {
        return NGX_CONF_ERROR;
    }

    *channels = ngx_array_create(cf->pool, nelts - 2,
                                 sizeof(ngx_http_complex_value_t));
    if (*channels == NULL) {
        return NGX_CONF_ERROR;
    }

    n = 0;

    for (i = 2; i < nelts; i++) {

        cv = ngx_array_push(*channels);
        if (cv == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

        ccv.cf = cf;
        ccv.value = &value[i];
        ccv.complex_value = cv;

        if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

        if (cv->lengths) {
            n++;
            continue;
        }

        if (ngx_http_rt_channels_check(cf, &value[i], &n) != NGX_CONF_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (n > max) {
        return (max == 1) ? "has too many channels, it must have one"
                          : "has too many channels, it must have at most 32";
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_rt_channels_check(ngx_conf_t *cf, ngx_str_t *value, ngx_uint_t *n)
{
    u_char     *p, *last, *comma;
    ngx_str_t   name;

    p = value->data;
    last = p + value->len;

    for ( ;; ) {
        comma = ngx_strlchr(p, last, ',');

        name.data = p;
        name.len = (comma ? comma : last) - p;

        if (ngx_rt_channel_check(&name) != NGX_OK) {
            return ngx_http_rt_conf_invalid(cf, value,
                                            "a channel of 1 to 255 bytes "
                                            "without space or control bytes, "
                                            "or several with commas between");
        }

        (*n)++;

        if (comma == NULL) {
            return NGX_CONF_OK;
        }

        p = comma + 1;
    }
}


char *
ngx_http_rt_set_transport(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_rt_loc_conf_t *rlcf = conf;

    ngx_str_t   *value;
    ngx_uint_t   i, bit;

    if (rlcf->transports) {
        return "is duplicate";
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_rt_conf_enum(cf, &value[i], cmd->post, &bit) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

        if (rlcf->transports & bit) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate value \"%V\" in \"%V\" directive, "
                               "each must stand there once",
                               &value[i], &value[0]);
            return NGX_CONF_ERROR;
        }

        rlcf->transports |= bit;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_rt_set_poll_interval(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_rt_loc_conf_t *rlcf = conf;

    ngx_int_t   min, max;
    ngx_str_t  *value;

    if (rlcf->poll_min != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    min = ngx_http_rt_conf_number(cf, &value[1], &ngx_http_rt_seconds);
    if (min == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    max = ngx_http_rt_conf_number(cf, &value[2], &ngx_http_rt_seconds);
    if (max == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    if (min > max) {
        return ngx_http_rt_conf_invalid(cf, &value[2],
                                        "a maximum of at least the minimum "
                                        "before it");
    }

    rlcf->poll_min = min;
    rlcf->poll_max = max;

    return NGX_CONF_OK;
}


char *
ngx_http_rt_set_advise(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_rt_loc_conf_t *rlcf = conf;

    ngx_int_t    n;
    ngx_str_t   *value, s;
    ngx_uint_t   i;

    if (rlcf->advise_viewers != NGX_CONF_UNSET_UINT
        || rlcf->advise_interval != NGX_CONF_UNSET_MSEC)
    {
        return "is duplicate";
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "viewers=", 8) == 0
            && rlcf->advise_viewers == NGX_CONF_UNSET_UINT)
        {
            s.data = value[i].data + 8;
            s.len = value[i].len - 8;

            n = ngx_http_rt_conf_number(cf, &s, &ngx_http_rt_viewers);
            if (n == NGX_ERROR) {
                return NGX_CONF_ERROR;
            }

            rlcf->advise_viewers = n;
            continue;
        }

        if (ngx_strncmp(value[i].data, "interval=", 9) == 0
            && rlcf->advise_interval == NGX_CONF_UNSET_MSEC)
        {
            s.data = value[i].data + 9;
            s.len = value[i].len - 9;

            n = ngx_http_rt_conf_number(cf, &s, &ngx_http_rt_interval);
            if (n == NGX_ERROR) {
                return NGX_CONF_ERROR;
            }

            rlcf->advise_interval = n;
            continue;
        }

        return ngx_http_rt_conf_invalid(cf, &value[i],
                                        "viewers=N, interval=T or both");
    }

    /* the other one is not inherited: the directive is one value */

    ngx_conf_init_uint_value(rlcf->advise_viewers, 50);
    ngx_conf_init_msec_value(rlcf->advise_interval, 5000);

    return NGX_CONF_OK;
}
