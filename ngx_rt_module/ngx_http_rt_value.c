
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * The values of directives.  nginx's own setters say "invalid value" and, for
 * names, say it as a warning; these say what to write instead.
 */


#include <ngx_http_rt.h>


static ngx_int_t ngx_http_rt_conf_parse_number(ngx_str_t *value,
    ngx_uint_t kind);


char *
ngx_http_rt_conf_invalid(ngx_conf_t *cf, ngx_str_t *value, const char *must)
{
    ngx_str_t  *name;

    name = cf->args->elts;

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"%V\" directive, "
                       "it must be %s", value, name, must);

    return NGX_CONF_ERROR;
}


ngx_int_t
ngx_http_rt_conf_number(ngx_conf_t *cf, ngx_str_t *value,
    const ngx_http_rt_number_t *number)
{
    ngx_int_t  n;

    n = ngx_http_rt_conf_parse_number(value, number->kind);

    if (n == NGX_ERROR || n < number->min || n > number->max) {
        (void) ngx_http_rt_conf_invalid(cf, value, number->must);
        return NGX_ERROR;
    }

    return n;
}


static ngx_int_t
ngx_http_rt_conf_parse_number(ngx_str_t *value, ngx_uint_t kind)
{
    switch (kind) {

    case NGX_HTTP_RT_MSEC:
        return ngx_parse_time(value, 0);

    case NGX_HTTP_RT_SEC:
        return ngx_parse_time(value, 1);

    case NGX_HTTP_RT_SIZE:
        return ngx_parse_size(value);

    default: /* NGX_HTTP_RT_NUM */
        return ngx_atoi(value->data, value->len);
    }
}


ngx_int_t
ngx_http_rt_conf_enum(ngx_conf_t *cf, ngx_str_t *value,
    const ngx_http_rt_enum_t *en, ngx_uint_t *result)
{
    ngx_str_t   *name;
    ngx_uint_t   i;

    for (i = 0; en->names[i].name.len; i++) {

        if (en->names[i].name.len != value->len
            || ngx_strncmp(en->names[i].name.data, value->data, value->len)
               != 0)
        {
            continue;
        }

        if (en->names[i].value == NGX_HTTP_RT_UNSUPPORTED) {
            name = cf->args->elts;

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" in \"%V\" directive is not supported "
                               "by this version, it must be %s",
                               value, name, en->must);
            return NGX_ERROR;
        }

        *result = en->names[i].value;

        return NGX_OK;
    }

    (void) ngx_http_rt_conf_invalid(cf, value, en->must);

    return NGX_ERROR;
}


char *
ngx_http_rt_set_number(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    ngx_int_t              n;
    ngx_str_t             *value;
    ngx_http_rt_number_t  *number;

    p += cmd->offset;
    number = cmd->post;
    value = cf->args->elts;

    if (number->kind == NGX_HTTP_RT_SEC) {
        if (*(time_t *) p != NGX_CONF_UNSET) {
            return "is duplicate";
        }

    } else if (*(ngx_uint_t *) p != NGX_CONF_UNSET_UINT) {
        /* ngx_msec_t and size_t are of the same type */
        return "is duplicate";
    }

    n = ngx_http_rt_conf_number(cf, &value[1], number);
    if (n == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    if (number->kind == NGX_HTTP_RT_SEC) {
        *(time_t *) p = n;

    } else {
        *(ngx_uint_t *) p = n;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_rt_set_enum(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    ngx_str_t           *value;
    ngx_uint_t          *np;
    ngx_http_rt_enum_t  *en;

    np = (ngx_uint_t *) (p + cmd->offset);
    en = cmd->post;
    value = cf->args->elts;

    if (*np != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (ngx_http_rt_conf_enum(cf, &value[1], en, np) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}
