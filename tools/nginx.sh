#!/bin/sh
#
# nginx.sh asan|static: builds a whole nginx with the module linked in.
#
#   asan    $BUILD/asan/nginx: AddressSanitizer, UndefinedBehaviorSanitizer
#           in the module, debug allocators, fault points (t/lib/asan.c);
#           what t/90-asan.t and t/92-faults.t run
#   static  $BUILD/static/nginx: the flags of the dynamic module; checks that
#           the module linked statically works

set -eu

kind=$1
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"

mkdir -p "$BUILD"
BUILD=$(cd "$BUILD" && pwd)
export BUILD

objs=$BUILD/$kind
log=$BUILD/$kind.log
ignore=$top/t/lib/ubsan.ignore
stamp=$objs/.configured

exec 9> "$BUILD/.lock.$kind"
flock 9

src=$(tools/source.sh 9>&-)

extra=
compile=
link=
case $kind in

asan)
    # clang: one runtime for both sanitizers, gcc's two lose reports.
    # NGX_DEBUG_PALLOC: an allocation of a pool is one of malloc's, so that
    # ASan sees each.
    CC=clang
    cc="-O1 -g1 -fno-omit-frame-pointer
        -DNGX_DEBUG_PALLOC=1 -DNGX_DEBUG_MALLOC=1 -DNGX_RT_FAULTS=1"

    # not for configure, whose tests would take twice as long
    compile="$CC -fsanitize=address,undefined -fsanitize-ignorelist=$ignore"

    # nginx's own leaks: see there
    extra=$top/t/lib/asan.c
    link="$compile $objs/extra.o -Wl,--wrap=ngx_setproctitle
        -Wl,--wrap=pcre2_compile_context_create_8"

    # what no test uses
    options="--with-debug
        --without-http_userid_module --without-http_autoindex_module
        --without-http_geo_module --without-http_split_clients_module
        --without-http_referer_module --without-http_grpc_module
        --without-http_memcached_module
        --without-http_browser_module --without-http_mirror_module"
    ;;

static)
    cc="-O2 -Wall -Wextra -Wno-unused-parameter -Werror"
    options=
    ;;

*)
    echo "usage: nginx.sh asan|static" >&2
    exit 2
    ;;
esac

cc=$(echo $cc)
options="--with-compat --with-threads --with-http_ssl_module
    --with-http_v2_module --with-http_auth_request_module
    --with-http_stub_status_module --with-http_realip_module
    --with-http_secure_link_module --with-http_sub_module $options"

if grep -q http_v3_module "$src/auto/options"; then
    options="$options --with-http_v3_module"
fi

key="$src $(cksum config tools/nginx.sh "$ignore" $extra)
    ${CC:-} ${CFLAGS:-} ${RT_IO_URING:-}"

if [ "$(cat "$stamp" 2> /dev/null)" != "$key" ]; then
    rm -rf "$objs" "$BUILD/$kind-src"
    mkdir -p "$BUILD/$kind-src"
    ln -s "$src"/* "$BUILD/$kind-src"
    rm -f "$BUILD/$kind-src/Makefile" "$BUILD/$kind-src/objs"

    configure=./configure
    [ -f "$src/configure" ] || configure=auto/configure

    # shellcheck disable=SC2086
    if ! (cd "$BUILD/$kind-src" && $configure ${CC:+--with-cc="$CC"} \
              --prefix="$objs/prefix" --builddir="$objs" \
              --with-cc-opt="$cc ${CFLAGS:-}" --add-module="$top" \
              $options) > "$log" 2>&1 9>&-
    then
        tools/why.sh "$log" >&2
        exit 1
    fi

    if [ -n "$extra" ]; then
        # shellcheck disable=SC2086
        (cd "$BUILD/$kind-src" \
            && $compile $cc -Wall -Wextra -Werror -Wno-unused-parameter \
                   -I src/core -I src/event -I src/os/unix -I "$objs" \
                   -c -o "$objs/extra.o" "$extra")
    fi

    echo "$key" > "$stamp"
fi

make -s -j "$(nproc)" -C "$BUILD/$kind-src" -f "$objs/Makefile" \
    ${compile:+CC="$compile" LINK="$(echo $link)"} binary 9>&-

if [ "$kind" = static ]; then
    mkdir -p "$objs/prefix/logs"
    cat > "$objs/check.conf" <<'END'
events { }
http {
    rt_hub app { zone 1m; }
    server {
        listen unix:check.sock;
        location / { rt_subscribe app $arg_channel; }
    }
}
END
    "$objs/nginx" -t -q -p "$objs/prefix" -c "$objs/check.conf" -e stderr
    rm -f "$objs/prefix/check.sock"
fi

echo "$objs/nginx"
