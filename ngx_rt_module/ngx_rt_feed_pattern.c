
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Plain pub/sub: the `subscribe` patterns.
 */


#include <ngx_rt_pubsub.h>
#include <hiredis/hiredis.h>


static void ngx_rt_pattern_escape(ngx_str_t *dst, const ngx_str_t *src);
static ngx_int_t ngx_rt_pattern_subscribed(ngx_rt_redis_t *rd,
    ngx_rt_redis_op_t *op, redisReply *reply);


ngx_int_t
ngx_rt_pubsub_init(ngx_rt_feed_t *feed, ngx_pool_t *pool)
{
    u_char                 *p;
    ngx_str_t              *glob, prefix;
    ngx_uint_t              i;
    ngx_rt_hub_conf_t      *conf;
    ngx_rt_feed_pattern_t  *pattern;

    conf = feed->hub->conf;

    ngx_queue_init(&feed->denied);

    if (ngx_rt_snapshot_init(feed, pool) != NGX_OK) {
        return NGX_ERROR;
    }

    feed->npatterns = conf->patterns.nelts;

    if (feed->npatterns == 0) {
        return NGX_OK;
    }

    pattern = ngx_pcalloc(pool,
                          feed->npatterns * sizeof(ngx_rt_feed_pattern_t));
    if (pattern == NULL) {
        return NGX_ERROR;
    }

    feed->patterns = pattern;
    glob = conf->patterns.elts;

    for (i = 0; i < feed->npatterns; i++) {

        p = ngx_pnalloc(pool, 2 * conf->prefix.len + glob[i].len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        prefix.data = p;
        ngx_rt_pattern_escape(&prefix, &conf->prefix);

        ngx_memcpy(p + prefix.len, glob[i].data, glob[i].len);

        pattern[i].glob = glob[i];
        pattern[i].name.data = p;
        pattern[i].name.len = prefix.len + glob[i].len;
    }

    return NGX_OK;
}


/* the prefix stands for itself, whatever is in it */

static void
ngx_rt_pattern_escape(ngx_str_t *dst, const ngx_str_t *src)
{
    u_char  *p;
    size_t   i;

    p = dst->data;

    for (i = 0; i < src->len; i++) {

        switch (src->data[i]) {

        case '*':
        case '?':
        case '[':
        case ']':
        case '\\':
            *p++ = '\\';

            /* fall through */

        default:
            *p++ = src->data[i];
        }
    }

    dst->len = p - dst->data;
}


ngx_int_t
ngx_rt_pubsub_patterns(ngx_rt_feed_t *feed)
{
    ngx_int_t           rc;
    ngx_str_t           args[2];
    ngx_uint_t          i;
    ngx_rt_feed_sub_t  *sub;

    feed->unanswered = 0;

    ngx_str_set(&args[0], "PSUBSCRIBE");

    for (i = 0; i < feed->npatterns; i++) {

        sub = ngx_rt_pubsub_sub(feed, &feed->patterns[i].glob);
        if (sub == NULL) {
            return NGX_ERROR;
        }

        sub->pattern = &feed->patterns[i];
        sub->op.handler = ngx_rt_pattern_subscribed;

        args[1] = feed->patterns[i].name;

        rc = ngx_rt_redis_send(feed->redis, &sub->op, 2, args);

        if (rc != NGX_OK) {
            ngx_free(sub);
            ngx_rt_redis_error(feed->redis, "too many patterns", NULL);
            return NGX_ERROR;
        }

        feed->unanswered++;
    }

    return ngx_rt_pubsub_fill(feed);
}


static ngx_int_t
ngx_rt_pattern_subscribed(ngx_rt_redis_t *rd, ngx_rt_redis_op_t *op,
    redisReply *reply)
{
    ngx_rt_feed_t          *feed;
    ngx_rt_feed_sub_t      *sub;
    ngx_rt_feed_pattern_t  *pattern;

    sub = (ngx_rt_feed_sub_t *) op;
    feed = sub->feed;
    pattern = sub->pattern;

    ngx_free(sub);

    if (reply == NULL) {
        return NGX_OK;
    }

    if (ngx_rt_pubsub_is(reply, "psubscribe")) {
        pattern->live = 1;
        ngx_rt_names_forget(feed);

    } else if (ngx_rt_pubsub_is_denial(reply)) {

        /* what it would have covered is subscribed by name */

        ngx_rt_redis_error(rd, NULL, reply);

        ngx_log_error(NGX_LOG_ERR, feed->hub->log, 0,
                      "rt_hub \"%V\": pattern \"%V\" denied: %V",
                      &feed->hub->conf->name, &pattern->glob, &rd->error);

    } else {
        ngx_rt_redis_error(rd, "unexpected reply to PSUBSCRIBE", reply);
        return NGX_ERROR;
    }

    if (--feed->unanswered) {
        return NGX_OK;
    }

    return ngx_rt_pubsub_fill(feed);
}


ngx_rt_feed_pattern_t *
ngx_rt_pubsub_covered(ngx_rt_feed_t *feed, const ngx_str_t *name)
{
    ngx_uint_t  i;

    for (i = 0; i < feed->npatterns; i++) {
        if (feed->patterns[i].live
            && ngx_rt_glob_match(&feed->patterns[i].glob, name))
        {
            return &feed->patterns[i];
        }
    }

    return NULL;
}
