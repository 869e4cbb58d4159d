
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layers 3 and 4, HTTP: the configuration of locations, what a request asks
 * for, and the transports that answer it.  Transports know hub and store,
 * and of the sources nothing but how to publish.
 */


#ifndef _NGX_HTTP_RT_H_INCLUDED_
#define _NGX_HTTP_RT_H_INCLUDED_


#include <ngx_http.h>
#include <ngx_rt_worker.h>


#define NGX_HTTP_RT_POLL          0x01
#define NGX_HTTP_RT_SSE           0x02
#define NGX_HTTP_RT_WEBSOCKET     0x04
#define NGX_HTTP_RT_GATE          0x08

#define NGX_HTTP_RT_MAX_CHANNELS  NGX_RT_PLACES_MAX

/* error_page brought the request here and keeps the error's status */
#define ngx_http_rt_instead(r)                                                \
    ((r)->err_status && (r)->err_status != NGX_HTTP_OK)

#define NGX_HTTP_RT_EVENT_MESSAGE 0
#define NGX_HTTP_RT_EVENT_CHANNEL 1

#define NGX_HTTP_RT_SLOW_CLOSE    0
#define NGX_HTTP_RT_SLOW_LATEST   1

#define NGX_HTTP_RT_STATUS_AUTO       0
#define NGX_HTTP_RT_STATUS_JSON       1
#define NGX_HTTP_RT_STATUS_HTML       2
#define NGX_HTTP_RT_STATUS_PROMETHEUS 3


typedef struct {
    ngx_array_t                   hubs;     /* ngx_rt_hub_conf_t * */
    ngx_uint_t                    gates;    /* 1: there is an rt_gate */
} ngx_http_rt_main_conf_t;


/* of rt_gate */

#define NGX_HTTP_RT_GATE_PUBLISH  0
#define NGX_HTTP_RT_GATE_PAYLOAD  1

typedef struct {
    ngx_rt_hub_conf_t            *hub;
    ngx_array_t                  *channels; /* ngx_http_complex_value_t */
    ngx_uint_t                    by;       /* NGX_HTTP_RT_GATE_* */
    ngx_str_t                     file;     /* where it stands */
    ngx_uint_t                    line;
} ngx_http_rt_gate_conf_t;


typedef struct {
    ngx_http_handler_pt           handler;  /* of this location, NULL: none */
    ngx_str_t                     directive;    /* that named it, and where */
    ngx_str_t                     file;
    ngx_uint_t                    line;
    ngx_rt_hub_conf_t            *hub;      /* of rt_subscribe, rt_publish */
    ngx_array_t                  *channels; /* ngx_http_complex_value_t */
    ngx_uint_t                    status;
    ngx_http_rt_gate_conf_t      *gate;     /* NULL: none */

    ngx_uint_t                    transports;
    ngx_uint_t                    start;    /* NGX_RT_START_* */
    ngx_uint_t                    event;
    ngx_msec_t                    heartbeat;
    ngx_msec_t                    retry;
    ngx_msec_t                    lifetime;
    time_t                        poll_min;
    time_t                        poll_max;
    time_t                        wait;
    ngx_uint_t                    advise_viewers;
    ngx_msec_t                    advise_interval;
    size_t                        buffer;
    ngx_uint_t                    slow;
    ngx_uint_t                    max_subscribers;
    ngx_msec_t                    drain;
} ngx_http_rt_loc_conf_t;


/* what is known of a request; the variables read it */

typedef struct ngx_http_rt_ctx_s  ngx_http_rt_ctx_t;

/* of a request that was held: what it does now */
typedef ngx_int_t (*ngx_http_rt_resume_pt)(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx);

struct ngx_http_rt_ctx_s {
    ngx_rt_hub_t                 *hub;
    ngx_uint_t                    nchannels;
    ngx_str_t                    *channels; /* distinct, valid names */
    ngx_rt_key_t                  key;      /* of the first one, see ahead */

    ngx_uint_t                    transport;    /* NGX_HTTP_RT_*, 0: none */
    const char                   *result;       /* hit miss stale bypass */
    const char                   *advice;       /* poll sse websocket */
    const char                   *close;        /* why the stream ended */
    ngx_str_t                     version;      /* cursor text */
    ngx_uint_t                    messages;
    void                         *stream;   /* the open stream, or NULL */
    void                         *wait;     /* of a poll, NULL: it did not */
    void                         *views;    /* room for those of a version */
    time_t                        prefer;   /* seconds to wait for a change */
    ngx_http_rt_resume_pt         resume;
    u_char                       *text;     /* room for version, quoted */
    uint32_t                      interval; /* s, that a poll is advised */
    unsigned                      asked:1;  /* prefer was looked for */
    unsigned                      gated:1;  /* the gate has decided */
    unsigned                      stamp:1;  /* a 200 gets version as ETag */
};


/* the version of a request's channels, read so that it is never newer than
 * what was read of them */

typedef struct {
    ngx_rt_view_t                *views;    /* nchannels */
    ngx_rt_cursor_t               cursor;   /* the ETag's */
    ngx_str_t                     text;     /* the same quoted, once it was
                                               asked for; always of streams */
    uint64_t                      version;
    unsigned                      confirmed:1;  /* all of them */
    unsigned                      certain:1;    /* all that are known */
    unsigned                      known:1;      /* a message of any */
    unsigned                      fresh:1;      /* 304 may be said */
} ngx_http_rt_version_t;


extern ngx_module_t  ngx_http_rt_module;


/* ngx_http_rt_value.c: the values of directives.  What is wrong is logged in
 * one line that names the directive and says what to write instead */

/* kinds of numbers, and the types they are stored in */
#define NGX_HTTP_RT_MSEC          0     /* ngx_msec_t */
#define NGX_HTTP_RT_SEC           1     /* time_t */
#define NGX_HTTP_RT_SIZE          2     /* size_t */
#define NGX_HTTP_RT_NUM           3     /* ngx_uint_t */

/* times end here, so that sums and jitter never overflow */
#define NGX_HTTP_RT_TIME_MAX      (365 * 24 * 3600)

typedef struct {
    ngx_uint_t                    kind;
    ngx_int_t                     min;
    ngx_int_t                     max;
    const char                   *must;     /* "it must be ..." */
} ngx_http_rt_number_t;

#define NGX_HTTP_RT_UNSUPPORTED   ((ngx_uint_t) -2)

typedef struct {
    const char                   *must;     /* "it must be ..." */
    ngx_conf_enum_t              *names;    /* value: or UNSUPPORTED */
} ngx_http_rt_enum_t;

/* an ngx_int_t of that kind from a value of the directive being read, or
 * NGX_ERROR, logged */
ngx_int_t ngx_http_rt_conf_number(ngx_conf_t *cf, ngx_str_t *value,
    const ngx_http_rt_number_t *number);
ngx_int_t ngx_http_rt_conf_enum(ngx_conf_t *cf, ngx_str_t *value,
    const ngx_http_rt_enum_t *en, ngx_uint_t *result);

/* logs `invalid value "..." in "..." directive, it must be ...` */
char *ngx_http_rt_conf_invalid(ngx_conf_t *cf, ngx_str_t *value,
    const char *must);

/* setters of one number (post: ngx_http_rt_number_t), one name (post:
 * ngx_http_rt_enum_t) */
char *ngx_http_rt_set_number(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_rt_set_enum(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* ngx_http_rt_conf.c: the rt_hub block */

/* a hub as it is configured; the other layers know its first member alone */

typedef struct {
    ngx_rt_hub_conf_t             conf;
    ngx_cycle_t                  *cycle;
    ngx_str_t                     directive;    /* that named it first */
    ngx_str_t                     file;         /* and where; then, where it
                                                   is defined */
    ngx_uint_t                    line;
    ngx_str_t                     needs;    /* a directive that needs redis */
    unsigned                      defined:1;
    unsigned                      large:1;  /* message_max is set: the zone
                                               must hold such messages */
} ngx_http_rt_hub_t;

/* reads the block; NGX_CONF_OK, or an error that is logged or its text */
char *ngx_http_rt_hub_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* the hub of that name, made as a reference when its block comes later */
ngx_rt_hub_conf_t *ngx_http_rt_hub_ref(ngx_conf_t *cf, ngx_str_t *name);

/* at the end of http{}: every reference is defined, names are resolved,
 * zones are asked for.  NGX_OK or NGX_ERROR, logged */
ngx_int_t ngx_http_rt_hubs_done(ngx_conf_t *cf);

/* the place that is being read, for errors found at the end of http{} */
void ngx_http_rt_conf_place(ngx_conf_t *cf, ngx_str_t *file,
    ngx_uint_t *line);


/* ngx_http_rt_conf_location.c: the configuration of a location */

/* as nginx calls them; the setters of directives that ngx_http_rt_set_number
 * and _enum do not do */
void *ngx_http_rt_create_loc_conf(ngx_conf_t *cf);
char *ngx_http_rt_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
char *ngx_http_rt_set_subscribe(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_rt_set_publish(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_rt_set_gate(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_rt_set_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_rt_set_transport(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_rt_set_poll_interval(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_rt_set_advise(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/* ngx_http_rt_zone.c: asks for the hub's zone; NGX_OK or NGX_ERROR, logged */
ngx_int_t ngx_http_rt_zone(ngx_conf_t *cf, ngx_http_rt_hub_t *hub);


/* ngx_http_rt_conf_redis.c: where Redis is and how to log in */

/* setters: urls are read here and looked up later, the file is read at once */
char *ngx_http_rt_set_redis(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_rt_set_password_file(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* gives the block's user and password to the urls that have none of their
 * own; an error is logged */
char *ngx_http_rt_redis_login(ngx_conf_t *cf, ngx_rt_hub_conf_t *hub);

/* looks the hosts up; an unknown one is an error unless hub->resolver */
ngx_int_t ngx_http_rt_redis_lookup(ngx_conf_t *cf, ngx_http_rt_hub_t *hub);


/* ngx_http_rt_request.c: what the transports have in common */

/*
 * The context of the request, its channels evaluated from conf's values,
 * split at commas, checked, made distinct.
 * NGX_OK; an HTTP status that has been answered with a line of text: NGX_DONE
 * is then returned and the handler returns *status to nginx.
 */
ngx_int_t ngx_http_rt_prepare(ngx_http_request_t *r, ngx_rt_hub_conf_t *hub,
    ngx_array_t *values, ngx_http_rt_ctx_t **ctx, ngx_int_t *status);

/*
 * The two steps of it, which answer nothing.  NULL: the worker does not serve,
 * or no memory.  NGX_OK; NGX_DECLINED: a bad name; NGX_ABORT: too many
 * channels; NGX_ERROR.
 */
ngx_http_rt_ctx_t *ngx_http_rt_context(ngx_http_request_t *r,
    ngx_rt_hub_conf_t *hub);
ngx_int_t ngx_http_rt_channels(ngx_http_request_t *r, ngx_array_t *values,
    ngx_http_rt_ctx_t *ctx);

/* answers with a status and one line of text/plain; the handler's result */
ngx_int_t ngx_http_rt_text(ngx_http_request_t *r, ngx_uint_t status,
    const char *text);

/* the transport by Upgrade and Accept among those enabled, 0: 406 */
ngx_uint_t ngx_http_rt_negotiate(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx, ngx_uint_t enabled);

/* the first request header of that (lower-case) name, or NULL */
ngx_str_t *ngx_http_rt_header_in(ngx_http_request_t *r, const char *name,
    size_t len);

/* of a header that is a list, all lines as one: NGX_OK, or NGX_DECLINED */
ngx_int_t ngx_http_rt_header_list(ngx_http_request_t *r, const char *name,
    size_t len, ngx_str_t *value);

/* adds a response header, key is a literal; value must live as long as the
 * request */
#define ngx_http_rt_header_out(r, key, value)                                 \
    ngx_http_rt_header_push(r, key, sizeof(key "") - 1, value)
ngx_int_t ngx_http_rt_header_push(ngx_http_request_t *r, const char *key,
    size_t len, ngx_str_t *value);


/* ngx_http_rt_version.c */

/* once the channels are known: has what a version and the advice are made of
 * come from memory, while other things are looked at */
void ngx_http_rt_ahead(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx);

/* reads the version of all channels of the context; NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_rt_version(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *version);

/* 1: If-None-Match holds the version */
ngx_uint_t ngx_http_rt_match(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *version);

/* ctx->version, and the ETag unless it is the page of an error */
ngx_int_t ngx_http_rt_etag(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *version);

/* ETag: "version"; there must be no other.  version is one that
 * ngx_http_rt_quote() has made, and lives as long as the request */
ngx_int_t ngx_http_rt_etag_out(ngx_http_request_t *r, ngx_str_t *version);

/* quotes around what is from p + 1 to last, where there is room for them:
 * *text is without, and the ETag is at text->data - 1 */
void ngx_http_rt_quote(ngx_str_t *text, u_char *p, u_char *last);

/* the next line of a header of nginx's own list, or NULL; before 1.23 nginx
 * keeps the first */
#if (nginx_version >= 1023000)
#define ngx_http_rt_next_line(h)  ((h)->next)
#else
#define ngx_http_rt_next_line(h)  NULL
#endif


/* ngx_http_rt_status.c */

/* a hub's numbers as they are shown, summed over the workers */

typedef struct {
    ngx_str_t                     name;
    const char                   *source;   /* embedded pubsub */
    const char                   *state;    /* embedded connecting live down */
    uint32_t                      worker;   /* the feeder's pid, 0: none */
    ngx_str_t                     server;   /* empty: none */
    uint64_t                      since;    /* ms in that state */
    uint64_t                      lag;      /* us */
    uint64_t                      reconnects;
    uint64_t                      gaps;
    uint64_t                      size;
    uint64_t                      used;
    uint64_t                      channels;
    uint64_t                      evicted;
    uint64_t                      messages;
    uint64_t                      bytes;
    uint64_t                      dropped;
    ngx_uint_t                    nbusiest;
    ngx_rt_busy_t                *busiest;
    ngx_str_t                    *names;    /* of these */
    ngx_rt_slot_sh_t              sum;      /* pid and pending mean nothing */
    u_char                        text[NGX_RT_FEED_SERVER_LEN];  /* server's */
} ngx_http_rt_hub_status_t;

/* ngx_http_rt_status_json.c: the answer's body, NULL: no memory */
ngx_chain_t *ngx_http_rt_status_json(ngx_http_request_t *r,
    ngx_http_rt_hub_status_t *hubs, ngx_uint_t n);


/*
 * ngx_http_rt_wait.c: may a poll, or a request at the gate, wait that would be
 * answered by v, match: with 304?  NGX_DECLINED: no, or not any more;
 * NGX_AGAIN: look at the version again; NGX_DONE: it is held, and ctx->resume
 * will be called.
 */
ngx_int_t ngx_http_rt_wait(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, ngx_uint_t match);

/* Preference-Applied, where there was a preference */
ngx_int_t ngx_http_rt_wait_applied(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx);


/* ngx_http_rt_gate.c: of the phase before content; of the header filter,
 * NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_rt_gate_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_rt_gate_filter(ngx_http_request_t *r);

/* the request's context, also after an internal redirect; or NULL */
ngx_http_rt_ctx_t *ngx_http_rt_gate_ctx(ngx_http_request_t *r);


/*
 * ngx_http_rt_advice.c: counts the request as a poll of the channels of the
 * context, sets ctx->advice and ctx->interval.  Once for each request that is
 * answered, by whatever asks for a version: v is what was read, match 1 if it
 * is the client's.
 */
void ngx_http_rt_advise(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx,
    ngx_http_rt_version_t *v, ngx_uint_t match);

/* these as RT-Poll-Interval and RT-Advice; NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_rt_advice_out(ngx_http_request_t *r,
    ngx_http_rt_ctx_t *ctx);

/* has what the connection remembers come from memory */
void ngx_http_rt_advice_ahead(ngx_http_request_t *r);

/* seconds: nothing longer is advised, or taken for an interval */
#define NGX_HTTP_RT_ADVICE_MAX    (24 * 3600)

/* ctx->advice alone, of a request that is no poll */
void ngx_http_rt_advise_stream(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx);


/* The transports: what their handler returns is nginx's to take.  subscribe
 * negotiates and goes on to poll or sse with the context made */
ngx_int_t ngx_http_rt_subscribe_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_rt_poll(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx);
ngx_int_t ngx_http_rt_sse(ngx_http_request_t *r, ngx_http_rt_ctx_t *ctx);
ngx_int_t ngx_http_rt_publish_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_rt_status_handler(ngx_http_request_t *r);


#endif /* _NGX_HTTP_RT_H_INCLUDED_ */
