#!/bin/sh
#
# install.sh: puts the module where this nginx looks for modules, and a
# snippet that loads it where this nginx looks for those.  DESTDIR= is put
# before every path.

set -eu

so=$BUILD/ngx_http_rt_module.so
root=${DESTDIR:-}

# --modules-path and --conf-path as nginx tells them, Debian's otherwise
option() {
    nginx -V 2>&1 | tr ' ' '\n' | sed -n "s/^--$1=//p" | head -n 1
}

modules=$(option modules-path)
modules=${modules:-/usr/lib/nginx/modules}
conf=$(option conf-path)
conf=${conf:-/etc/nginx/nginx.conf}
etc=${conf%/*}

install -D -m 644 "$so" "$root$modules/ngx_http_rt_module.so"
echo "$root$modules/ngx_http_rt_module.so"

if [ -d "$etc/modules-enabled" ]; then
    snippet=/usr/share/nginx/modules-available/mod-http-rt.conf
    mkdir -p "$root${snippet%/*}" "$root$etc/modules-enabled"
    echo "load_module $modules/ngx_http_rt_module.so;" > "$root$snippet"
    ln -sfn "$snippet" "$root$etc/modules-enabled/50-mod-http-rt.conf"
    echo "$root$etc/modules-enabled/50-mod-http-rt.conf"
else
    echo "add to $conf: load_module $modules/ngx_http_rt_module.so;"
fi
