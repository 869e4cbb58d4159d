#!/bin/sh
#
# module.sh: builds the dynamic module in $BUILD/module for the nginx of
# $NGINX_SRC and puts it into $BUILD.  Called by make.
#
# configure writes into its working directory, so it is run in a directory of
# links to the tree.

set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"

mkdir -p "$BUILD"
BUILD=$(cd "$BUILD" && pwd)

if [ ! -f "$NGINX_SRC/src/core/nginx.h" ]; then
    echo "no nginx in $NGINX_SRC: apt-get install nginx-dev, or make" \
         "NGINX_SRC=..." >&2
    exit 1
fi

NGINX_SRC=$(cd "$NGINX_SRC" && pwd)

# one at a time in a build directory
exec 9> "$BUILD/.lock"
flock 9

objs=$BUILD/module
links=$BUILD/nginx-src
log=$BUILD/configure.log
stamp=$objs/.configured

# nginx passes -Wno-unused-parameter before these, which clang would not heed
warn="-Wall -Wextra -Wno-unused-parameter -Werror"
hard="-O2 -fPIC -fstack-protector-strong -D_FORTIFY_SOURCE=2"
key="$NGINX_SRC $(cksum config tools/module.sh) $(ls -l --full-time \
     "$NGINX_SRC/src/core/nginx.h") ${CC:-} ${CFLAGS:-} ${RT_IO_URING:-}"

if [ "$(cat "$stamp" 2> /dev/null)" != "$key" ]; then
    rm -rf "$objs" "$links"
    mkdir -p "$links"
    ln -s "$NGINX_SRC"/* "$links"
    # written by configure in a tree of nginx's own
    rm -f "$links/Makefile" "$links/objs"

    # the options that Debian's nginx was built with
    NGX_CONF_FLAGS="--with-compat --with-threads"
    if [ -f "$NGINX_SRC/conf_flags" ]; then
        NGX_CONF_FLAGS=$(bash -c '. "$1"; printf "%s\n" \
            "${NGX_CONF_FLAGS[@]}"' - "$NGINX_SRC/conf_flags")
    fi

    # a checkout of nginx's repository keeps it elsewhere
    configure=./configure
    [ -f "$links/configure" ] || configure=auto/configure

    # shellcheck disable=SC2086
    if ! (cd "$links" && $configure $NGX_CONF_FLAGS ${CC:+--with-cc="$CC"} \
              --with-cc-opt="$hard $warn ${CFLAGS:-}" \
              --with-ld-opt="-Wl,-z,relro -Wl,-z,now" \
              --add-dynamic-module="$top" --builddir="$objs") \
          > "$log" 2>&1 9>&-
    then
        tools/why.sh "$log" >&2
        exit 1
    fi
    echo "$key" > "$stamp"
fi

make -s -j "$(nproc)" -C "$links" -f "$objs/Makefile" modules 9>&-

# in one step: an nginx may have it mapped
cp "$objs/ngx_http_rt_module.so" "$BUILD/.new.so"
mv -f "$BUILD/.new.so" "$BUILD/ngx_http_rt_module.so"
