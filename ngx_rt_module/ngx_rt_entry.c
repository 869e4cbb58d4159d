
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * A stream as Redis tells of it: one entry as a message, and what XINFO
 * STREAM says.
 *
 *     [id, [field, value, field, value, ...]]
 *
 * Strings that were too large to be read are nil, and so are fields that
 * were too many; what a reply had no room for is an empty status
 * (ngx_rt_resp.c).
 */


#include <ngx_rt_source.h>
#include <hiredis/hiredis.h>


#define ngx_rt_entry_is(reply, name)                                          \
    ((reply)->type == REDIS_REPLY_STRING                                      \
     && (reply)->len == sizeof(name) - 1                                      \
     && ngx_memcmp((reply)->str, name, sizeof(name) - 1) == 0)


static ngx_int_t ngx_rt_entry_message(ngx_rt_entries_t *ctx,
    ngx_rt_hub_conf_t *conf, redisReply *fields, ngx_rt_entry_t *entry);
static ngx_int_t ngx_rt_entry_shape(redisReply *fields,
    ngx_rt_entry_t *entry);
static ngx_int_t ngx_rt_entry_missing(redisReply *reply);
static ngx_int_t ngx_rt_entry_data(ngx_rt_entries_t *ctx,
    ngx_rt_hub_conf_t *conf, redisReply *data, redisReply *event,
    ngx_rt_entry_t *entry);
static ngx_int_t ngx_rt_entry_event(redisReply *event, ngx_rt_entry_t *entry);
static ngx_int_t ngx_rt_entry_object(ngx_rt_entries_t *ctx,
    ngx_rt_hub_conf_t *conf, redisReply *fields, ngx_rt_entry_t *entry);
static ngx_int_t ngx_rt_entry_room(ngx_rt_entries_t *ctx, size_t size,
    ngx_rt_entry_t *entry);
static ngx_int_t ngx_rt_entry_wrong(ngx_rt_entry_t *entry, const char *why);
static ngx_int_t ngx_rt_stream_number(redisReply *reply, uint64_t *value);


ngx_int_t
ngx_rt_entry_read(ngx_rt_entries_t *ctx, ngx_rt_hub_conf_t *conf,
    redisReply *reply, ngx_rt_entry_t *entry)
{
    ngx_int_t    rc;
    redisReply  *id, *fields;

    ngx_memzero(entry, sizeof(ngx_rt_entry_t));

    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) {
        return ngx_rt_entry_wrong(entry, "entry of a wrong shape");
    }

    id = reply->element[0];
    fields = reply->element[1];

    if (id->type != REDIS_REPLY_STRING
        || ngx_rt_sid_parse(entry->tag, (u_char *) id->str, id->len)
           != NGX_OK)
    {
        return ngx_rt_entry_wrong(entry, "entry with a wrong id");
    }

    rc = ngx_rt_entry_shape(fields, entry);

    if (rc == NGX_OK) {
        rc = ngx_rt_entry_message(ctx, conf, fields, entry);
    }

    if (rc == NGX_BUSY || entry->msg.data.len > conf->message_max) {

        /* the store looks at the length alone */

        ngx_memzero(&entry->msg, sizeof(ngx_rt_message_t));
        entry->msg.data.len = conf->message_max + 1;
        rc = NGX_BUSY;
    }

    return rc;
}


static ngx_int_t
ngx_rt_entry_message(ngx_rt_entries_t *ctx, ngx_rt_hub_conf_t *conf,
    redisReply *fields, ngx_rt_entry_t *entry)
{
    size_t       i;
    redisReply  *name, *data, *event;

    data = NULL;
    event = NULL;

    for (i = 0; i < fields->elements; i += 2) {
        name = fields->element[i];

        if (ngx_rt_entry_is(name, "data")) {
            data = fields->element[i + 1];

        } else if (ngx_rt_entry_is(name, "event")) {
            event = fields->element[i + 1];
        }
    }

    return data ? ngx_rt_entry_data(ctx, conf, data, event, entry)
                : ngx_rt_entry_object(ctx, conf, fields, entry);
}


void
ngx_rt_entries_done(ngx_rt_entries_t *ctx)
{
    if (ctx->buf) {
        ngx_free(ctx->buf);
        ctx->buf = NULL;
    }

    ctx->size = 0;
}


/* pairs of strings, or of what stands for them */

static ngx_int_t
ngx_rt_entry_shape(redisReply *fields, ngx_rt_entry_t *entry)
{
    size_t     i;
    ngx_int_t  rc;

    if (fields->type != REDIS_REPLY_ARRAY) {
        rc = ngx_rt_entry_missing(fields);

        return (rc == NGX_ERROR)
               ? ngx_rt_entry_wrong(entry, "entry of a wrong shape") : rc;
    }

    if (fields->elements == 0 || fields->elements % 2) {
        return ngx_rt_entry_wrong(entry, "entry of a wrong shape");
    }

    for (i = 0; i < fields->elements; i++) {

        if (fields->element[i]->type != REDIS_REPLY_STRING
            && ngx_rt_entry_missing(fields->element[i]) == NGX_ERROR)
        {
            return ngx_rt_entry_wrong(entry, "entry of a wrong shape");
        }
    }

    return NGX_OK;
}


/* why something is not there */

static ngx_int_t
ngx_rt_entry_missing(redisReply *reply)
{
    switch (reply->type) {

    case REDIS_REPLY_NIL:
        return NGX_BUSY;

    case REDIS_REPLY_STATUS:
        return reply->len ? NGX_ERROR : NGX_AGAIN;

    default:
        return NGX_ERROR;
    }
}


static ngx_int_t
ngx_rt_entry_data(ngx_rt_entries_t *ctx, ngx_rt_hub_conf_t *conf,
    redisReply *data, redisReply *event, ngx_rt_entry_t *entry)
{
    ngx_int_t          rc;
    ngx_str_t          payload;
    ngx_rt_message_t  *msg;

    if (data->type != REDIS_REPLY_STRING) {
        return ngx_rt_entry_missing(data);
    }

    msg = &entry->msg;

    payload.data = (u_char *) data->str;
    payload.len = data->len;

    if (conf->payload == NGX_RT_PAYLOAD_RAW) {
        msg->data = payload;

    } else {
        rc = ngx_rt_entry_room(ctx, payload.len, entry);

        if (rc == NGX_OK) {
            rc = ngx_rt_message_json(msg, &payload, ctx->buf, &entry->why);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    /* the envelope's own event comes first */

    return (event && msg->event.len == 0) ? ngx_rt_entry_event(event, entry)
                                          : NGX_OK;
}


static ngx_int_t
ngx_rt_entry_event(redisReply *event, ngx_rt_entry_t *entry)
{
    ngx_str_t  name;

    if (event->type == REDIS_REPLY_STRING) {

        if (event->len == 0) {
            return NGX_OK;
        }

        name.data = (u_char *) event->str;
        name.len = event->len;

        if (ngx_rt_event_check(&name) == NGX_OK) {
            entry->msg.event = name;
            return NGX_OK;
        }

    } else if (ngx_rt_entry_missing(event) == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    entry->why = "bad event name";

    return NGX_DECLINED;
}


/* {"field":"value",...}, in the order of the entry */

static ngx_int_t
ngx_rt_entry_object(ngx_rt_entries_t *ctx, ngx_rt_hub_conf_t *conf,
    redisReply *fields, ngx_rt_entry_t *entry)
{
    size_t       i, len;
    u_char      *p;
    ngx_str_t    text;
    ngx_int_t    rc;
    redisReply  *part;

    /* braces, and a colon or a comma behind each but the last */

    len = 1 + fields->elements;

    for (i = 0; i < fields->elements; i++) {
        part = fields->element[i];

        if (part->type != REDIS_REPLY_STRING) {
            return ngx_rt_entry_missing(part);
        }

        text.data = (u_char *) part->str;
        text.len = part->len;

        len += ngx_rt_json_string_len(&text);
    }

    if (len > conf->message_max) {
        return NGX_BUSY;
    }

    rc = ngx_rt_entry_room(ctx, len, entry);

    if (rc != NGX_OK) {
        return rc;
    }

    p = ctx->buf;

    for (i = 0; i < fields->elements; i++) {
        part = fields->element[i];

        text.data = (u_char *) part->str;
        text.len = part->len;

        *p++ = (i == 0) ? '{' : (i % 2) ? ':' : ',';
        p = ngx_rt_json_string(p, &text);
    }

    *p++ = '}';

    entry->msg.data.data = ctx->buf;
    entry->msg.data.len = p - ctx->buf;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_entry_room(ngx_rt_entries_t *ctx, size_t size, ngx_rt_entry_t *entry)
{
    if (ctx->buf && ctx->size >= size) {
        return NGX_OK;
    }

    ngx_rt_entries_done(ctx);

    size = ngx_max(size, NGX_RT_ENTRIES_SIZE);

    ctx->buf = ngx_alloc(size, ctx->log);

    if (ctx->buf == NULL) {
        return ngx_rt_entry_wrong(entry, "no memory");
    }

    ctx->size = size;

    return NGX_OK;
}


static ngx_int_t
ngx_rt_entry_wrong(ngx_rt_entry_t *entry, const char *why)
{
    entry->why = why;

    return NGX_ERROR;
}


/* names and values in turn, new ones with each Redis */

ngx_int_t
ngx_rt_stream_info_read(redisReply *reply, ngx_rt_stream_info_t *info)
{
    size_t       i;
    ngx_uint_t   found;
    redisReply  *name, *value;

    ngx_memzero(info, sizeof(ngx_rt_stream_info_t));

    if (reply->type == REDIS_REPLY_ERROR) {
        return (ngx_strcmp(reply->str, "ERR no such key") == 0)
               ? NGX_DECLINED : NGX_ERROR;
    }

    if (reply->type != REDIS_REPLY_ARRAY) {
        return (ngx_rt_entry_missing(reply) == NGX_AGAIN) ? NGX_AGAIN
                                                          : NGX_ERROR;
    }

    found = 0;

    for (i = 0; i + 1 < reply->elements; i += 2) {
        name = reply->element[i];
        value = reply->element[i + 1];

        if (ngx_rt_entry_is(name, "length")) {

            if (ngx_rt_stream_number(value, &info->length) != NGX_OK) {
                return NGX_ERROR;
            }

            found |= 1;

        } else if (ngx_rt_entry_is(name, "entries-added")) {

            if (ngx_rt_stream_number(value, &info->added) != NGX_OK) {
                return NGX_ERROR;
            }

            info->counted = 1;

        } else if (ngx_rt_entry_is(name, "last-generated-id")) {

            if (value->type != REDIS_REPLY_STRING
                || ngx_rt_sid_parse(info->last, (u_char *) value->str,
                                    value->len)
                   != NGX_OK)
            {
                return NGX_ERROR;
            }

            found |= 2;
        }
    }

    return (found == 3) ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_rt_stream_number(redisReply *reply, uint64_t *value)
{
    if (reply->type != REDIS_REPLY_INTEGER || reply->integer < 0) {
        return NGX_ERROR;
    }

    *value = (uint64_t) reply->integer;

    return NGX_OK;
}
