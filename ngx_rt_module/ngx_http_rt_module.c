
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The glue: directives of http, server and location, variables, and what
 * happens in a process's life.
 */


#include <ngx_http_rt.h>
#include <ngx_rt_source.h>
#include <ngx_rt_sender.h>


#define NGX_HTTP_RT_ANY_CONF                                                  \
    (NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF)

/* where a content handler is refused with a text of ours is here too */
#define NGX_HTTP_RT_HANDLER_CONF                                              \
    (NGX_HTTP_RT_ANY_CONF|NGX_HTTP_SIF_CONF|NGX_HTTP_LIF_CONF                 \
     |NGX_HTTP_LMT_CONF)


static ngx_int_t ngx_http_rt_add_variables(ngx_conf_t *cf);
static ngx_int_t ngx_http_rt_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_rt_gates(ngx_conf_t *cf);
static ngx_int_t ngx_http_rt_header_filter(ngx_http_request_t *r);
static void *ngx_http_rt_create_main_conf(ngx_conf_t *cf);

static ngx_int_t ngx_http_rt_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_rt_variable_channel(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_str_t *value);

static ngx_int_t ngx_http_rt_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_rt_init_process(ngx_cycle_t *cycle);
static void ngx_http_rt_exit_process(ngx_cycle_t *cycle);
static ngx_rt_hub_conf_t **ngx_http_rt_hubs(ngx_cycle_t *cycle,
    ngx_uint_t *n);
static ngx_uint_t ngx_http_rt_serves(void);
static void ngx_http_rt_wake(void);
static void ngx_http_rt_quit(void);


static ngx_http_output_header_filter_pt  ngx_http_rt_next_header_filter;


static ngx_http_rt_number_t  ngx_http_rt_heartbeat = {
    NGX_HTTP_RT_MSEC, 100, NGX_HTTP_RT_TIME_MAX * 1000LL,
    "a time of 100ms to 365d such as 15s"
};

static ngx_http_rt_number_t  ngx_http_rt_retry = {
    NGX_HTTP_RT_MSEC, 1, NGX_HTTP_RT_TIME_MAX * 1000LL,
    "a time of 1ms to 365d such as 2s"
};

static ngx_http_rt_number_t  ngx_http_rt_any_time = {
    NGX_HTTP_RT_MSEC, 0, NGX_HTTP_RT_TIME_MAX * 1000LL,
    "a time of 0 to 365d such as 5s"
};

static ngx_http_rt_number_t  ngx_http_rt_wait_time = {
    NGX_HTTP_RT_SEC, 0, NGX_HTTP_RT_TIME_MAX,
    "a time of 0 to 365d in whole seconds such as 30s"
};

static ngx_http_rt_number_t  ngx_http_rt_buffer = {
    NGX_HTTP_RT_SIZE, 1024, 1024 * 1024 * 1024,
    "a size of 1k to 1024m such as 256k"
};

static ngx_http_rt_number_t  ngx_http_rt_subscribers = {
    NGX_HTTP_RT_NUM, 0, NGX_MAX_INT32_VALUE,
    "a number of streams, 0 for no limit"
};


static ngx_conf_enum_t  ngx_http_rt_transport_names[] = {
    { ngx_string("poll"), NGX_HTTP_RT_POLL },
    { ngx_string("sse"), NGX_HTTP_RT_SSE },
    { ngx_string("websocket"), NGX_HTTP_RT_UNSUPPORTED },
    { ngx_null_string, 0 }
};

static ngx_http_rt_enum_t  ngx_http_rt_transports = {
    "\"poll\", \"sse\" or both", ngx_http_rt_transport_names
};

static ngx_conf_enum_t  ngx_http_rt_start_names[] = {
    { ngx_string("latest"), NGX_RT_START_LATEST },
    { ngx_string("history"), NGX_RT_START_HISTORY },
    { ngx_string("new"), NGX_RT_START_NEW },
    { ngx_null_string, 0 }
};

static ngx_http_rt_enum_t  ngx_http_rt_start = {
    "\"latest\", \"history\" or \"new\"", ngx_http_rt_start_names
};

static ngx_conf_enum_t  ngx_http_rt_event_names[] = {
    { ngx_string("message"), NGX_HTTP_RT_EVENT_MESSAGE },
    { ngx_string("channel"), NGX_HTTP_RT_EVENT_CHANNEL },
    { ngx_null_string, 0 }
};

static ngx_http_rt_enum_t  ngx_http_rt_event = {
    "\"message\" or \"channel\"", ngx_http_rt_event_names
};

static ngx_conf_enum_t  ngx_http_rt_slow_names[] = {
    { ngx_string("close"), NGX_HTTP_RT_SLOW_CLOSE },
    { ngx_string("latest"), NGX_HTTP_RT_SLOW_LATEST },
    { ngx_null_string, 0 }
};

static ngx_http_rt_enum_t  ngx_http_rt_slow = {
    "\"close\" or \"latest\"", ngx_http_rt_slow_names
};


static ngx_command_t  ngx_http_rt_commands[] = {

    { ngx_string("rt_hub"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_rt_hub_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("rt_subscribe"),
      NGX_HTTP_RT_HANDLER_CONF|NGX_CONF_2MORE,
      ngx_http_rt_set_subscribe,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("rt_publish"),
      NGX_HTTP_RT_HANDLER_CONF|NGX_CONF_TAKE2,
      ngx_http_rt_set_publish,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("rt_gate"),
      NGX_HTTP_RT_HANDLER_CONF|NGX_CONF_2MORE,
      ngx_http_rt_set_gate,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("rt_status"),
      NGX_HTTP_RT_HANDLER_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_rt_set_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("rt_transport"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_1MORE,
      ngx_http_rt_set_transport,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      &ngx_http_rt_transports },

    { ngx_string("rt_start"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_enum,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, start),
      &ngx_http_rt_start },

    { ngx_string("rt_event"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_enum,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, event),
      &ngx_http_rt_event },

    { ngx_string("rt_heartbeat"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, heartbeat),
      &ngx_http_rt_heartbeat },

    { ngx_string("rt_retry"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, retry),
      &ngx_http_rt_retry },

    { ngx_string("rt_lifetime"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, lifetime),
      &ngx_http_rt_any_time },

    { ngx_string("rt_poll_interval"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE2,
      ngx_http_rt_set_poll_interval,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("rt_wait"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, wait),
      &ngx_http_rt_wait_time },

    { ngx_string("rt_advise"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE12,
      ngx_http_rt_set_advise,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("rt_buffer"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, buffer),
      &ngx_http_rt_buffer },

    { ngx_string("rt_slow"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_enum,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, slow),
      &ngx_http_rt_slow },

    { ngx_string("rt_max_subscribers"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, max_subscribers),
      &ngx_http_rt_subscribers },

    { ngx_string("rt_drain"),
      NGX_HTTP_RT_ANY_CONF|NGX_CONF_TAKE1,
      ngx_http_rt_set_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_rt_loc_conf_t, drain),
      &ngx_http_rt_any_time },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_rt_module_ctx = {
    ngx_http_rt_add_variables,             /* preconfiguration */
    ngx_http_rt_postconfiguration,         /* postconfiguration */

    ngx_http_rt_create_main_conf,          /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_rt_create_loc_conf,           /* create location configuration */
    ngx_http_rt_merge_loc_conf             /* merge location configuration */
};


ngx_module_t  ngx_http_rt_module = {
    NGX_MODULE_V1,
    &ngx_http_rt_module_ctx,               /* module context */
    ngx_http_rt_commands,                  /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_rt_init_module,               /* init module */
    ngx_http_rt_init_process,              /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_rt_exit_process,              /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


enum {
    NGX_HTTP_RT_VAR_CHANNEL = 0,
    NGX_HTTP_RT_VAR_VERSION,
    NGX_HTTP_RT_VAR_TRANSPORT,
    NGX_HTTP_RT_VAR_RESULT,
    NGX_HTTP_RT_VAR_MESSAGES,
    NGX_HTTP_RT_VAR_ADVICE,
    NGX_HTTP_RT_VAR_CLOSE
};


static ngx_http_variable_t  ngx_http_rt_vars[] = {

    { ngx_string("rt_channel"), NULL, ngx_http_rt_variable,
      NGX_HTTP_RT_VAR_CHANNEL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("rt_version"), NULL, ngx_http_rt_variable,
      NGX_HTTP_RT_VAR_VERSION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("rt_transport"), NULL, ngx_http_rt_variable,
      NGX_HTTP_RT_VAR_TRANSPORT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("rt_result"), NULL, ngx_http_rt_variable,
      NGX_HTTP_RT_VAR_RESULT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("rt_messages"), NULL, ngx_http_rt_variable,
      NGX_HTTP_RT_VAR_MESSAGES, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("rt_advice"), NULL, ngx_http_rt_variable,
      NGX_HTTP_RT_VAR_ADVICE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("rt_close"), NULL, ngx_http_rt_variable,
      NGX_HTTP_RT_VAR_CLOSE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_rt_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_rt_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_rt_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_rt_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_rt_module);

    if (rmcf->gates && ngx_http_rt_gates(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_rt_hubs_done(cf);
}


/* requests pay for gates only where there are some */

static ngx_int_t
ngx_http_rt_gates(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_rt_gate_handler;

    ngx_http_rt_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_rt_header_filter;

    return NGX_OK;
}


static ngx_int_t
ngx_http_rt_header_filter(ngx_http_request_t *r)
{
    if (ngx_http_rt_gate_filter(r) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_rt_next_header_filter(r);
}


static void *
ngx_http_rt_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_rt_main_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_rt_main_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&conf->hubs, cf->pool, 2, sizeof(ngx_rt_hub_conf_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return conf;
}


static ngx_int_t
ngx_http_rt_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char             *p;
    ngx_str_t           value;
    const char         *text;
    ngx_http_rt_ctx_t  *ctx;

    ctx = ngx_http_rt_gate_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    text = NULL;
    ngx_str_null(&value);

    switch (data) {

    case NGX_HTTP_RT_VAR_CHANNEL:
        if (ngx_http_rt_variable_channel(r, ctx, &value) != NGX_OK) {
            return NGX_ERROR;
        }
        break;

    case NGX_HTTP_RT_VAR_VERSION:
        value = ctx->version;
        break;

    case NGX_HTTP_RT_VAR_TRANSPORT:
        text = (ctx->transport == NGX_HTTP_RT_POLL) ? "poll"
               : (ctx->transport == NGX_HTTP_RT_SSE) ? "sse"
               : (ctx->transport == NGX_HTTP_RT_WEBSOCKET) ? "websocket"
               : (ctx->transport == NGX_HTTP_RT_GATE) ? "gate" : NULL;
        break;

    case NGX_HTTP_RT_VAR_RESULT:
        text = ctx->result;
        break;

    case NGX_HTTP_RT_VAR_MESSAGES:
        p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        value.data = p;
        value.len = ngx_sprintf(p, "%ui", ctx->messages) - p;
        break;

    case NGX_HTTP_RT_VAR_ADVICE:
        text = ctx->advice;
        break;

    case NGX_HTTP_RT_VAR_CLOSE:
        text = ctx->close;
        break;
    }

    if (text) {
        value.data = (u_char *) text;
        value.len = ngx_strlen(text);
    }

    if (value.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->len = value.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = value.data;

    return NGX_OK;
}


/* the names of the request's channels, with commas between */

static ngx_int_t
ngx_http_rt_variable_channel(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_str_t *value)
{
    u_char      *p;
    size_t       len;
    ngx_uint_t   i;

    if (ctx->nchannels == 0) {
        return NGX_OK;
    }

    if (ctx->nchannels == 1) {
        *value = ctx->channels[0];
        return NGX_OK;
    }

    len = 0;

    for (i = 0; i < ctx->nchannels; i++) {
        len += ctx->channels[i].len + 1;
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value->data = p;
    value->len = len - 1;

    for (i = 0; i < ctx->nchannels; i++) {
        p = ngx_cpymem(p, ctx->channels[i].data, ctx->channels[i].len);
        *p++ = ',';
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_rt_init_module(ngx_cycle_t *cycle)
{
    ngx_uint_t           i, n;
    ngx_rt_hub_conf_t  **hub;

    hub = ngx_http_rt_hubs(cycle, &n);

    /* the configuration is taken: its workers come next */

    for (i = 0; i < n; i++) {
        hub[i]->generation = ngx_rt_handover_generation(&hub[i]->store);
    }

    return n ? ngx_rt_wakeup_init(cycle) : NGX_OK;
}


static ngx_int_t
ngx_http_rt_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t           i, n;
    ngx_rt_hub_conf_t  **hub;

    hub = ngx_http_rt_hubs(cycle, &n);

    if (n == 0 || !ngx_http_rt_serves()) {
        return NGX_OK;
    }

    for (i = 0; i < n; i++) {

        if (ngx_rt_hub_init(cycle, hub[i]) != NGX_OK) {
            return NGX_ERROR;
        }

        if (hub[i]->source == NGX_RT_SOURCE_EMBEDDED) {
            continue;
        }

        if (ngx_rt_feeder_init(cycle, hub[i]->hub) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ngx_rt_sender_init(cycle);

    return ngx_rt_wakeup_open(cycle, ngx_http_rt_wake, ngx_http_rt_quit);
}


static void
ngx_http_rt_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t           n;
    ngx_rt_hub_conf_t  **hub;

    hub = ngx_http_rt_hubs(cycle, &n);

    if (n == 0 || !ngx_http_rt_serves()) {
        return;
    }

    ngx_rt_wakeup_close();

    while (n--) {

        if (hub[n]->hub == NULL) {
            continue;
        }

        if (hub[n]->source != NGX_RT_SOURCE_EMBEDDED) {
            ngx_rt_feeder_exit(hub[n]->hub);
        }

        ngx_rt_hub_exit(hub[n]);
    }

    ngx_rt_sender_exit();
}


static ngx_rt_hub_conf_t **
ngx_http_rt_hubs(ngx_cycle_t *cycle, ngx_uint_t *n)
{
    ngx_http_rt_main_conf_t  *rmcf;

    /* NULL: no http{} in this configuration */

    rmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_rt_module);

    *n = rmcf ? rmcf->hubs.nelts : 0;

    return rmcf ? rmcf->hubs.elts : NULL;
}


static ngx_uint_t
ngx_http_rt_serves(void)
{
    return ngx_process == NGX_PROCESS_WORKER
           || ngx_process == NGX_PROCESS_SINGLE;
}


static void
ngx_http_rt_wake(void)
{
    ngx_uint_t           i, n;
    ngx_rt_hub_conf_t  **hub;

    hub = ngx_http_rt_hubs((ngx_cycle_t *) ngx_cycle, &n);

    for (i = 0; i < n; i++) {

        if (hub[i]->hub == NULL) {
            continue;
        }

        if (hub[i]->source != NGX_RT_SOURCE_EMBEDDED) {
            ngx_rt_feeder_wake(hub[i]->hub);
        }

        ngx_rt_hub_run(hub[i]->hub);
    }
}


static void
ngx_http_rt_quit(void)
{
    ngx_uint_t           i, n;
    ngx_rt_hub_conf_t  **hub;

    hub = ngx_http_rt_hubs((ngx_cycle_t *) ngx_cycle, &n);

    for (i = 0; i < n; i++) {

        if (hub[i]->hub == NULL) {
            continue;
        }

        if (hub[i]->source != NGX_RT_SOURCE_EMBEDDED) {
            ngx_rt_feeder_quit(hub[i]->hub);
        }

        ngx_rt_hub_drain(hub[i]->hub);
    }
}
