#!/bin/sh
#
# nginx.sh asan|static: builds a whole nginx with the module linked in.
#
#   asan    $BUILD/asan/nginx: AddressSanitizer, UndefinedBehaviorSanitizer,
#           debug allocators, fault points; what t/90-asan.t runs
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

ld=
case $kind in

asan)
    # clang: one runtime for both sanitizers, gcc's two lose reports.
    # NGX_DEBUG_PALLOC: an allocation of a pool is one of malloc's, so that
    # ASan sees each.
    CC=clang
    cc="-O1 -g -fno-omit-frame-pointer
        -fsanitize=address,undefined -fsanitize-ignorelist=$ignore
        -DNGX_DEBUG_PALLOC=1 -DNGX_DEBUG_MALLOC=1 -DNGX_RT_FAULTS=1"
    ld="-fsanitize=address,undefined"
    options="--with-debug"
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

key="$src $(cksum config tools/nginx.sh) ${CC:-} ${CFLAGS:-}"

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
              --with-cc-opt="$cc ${CFLAGS:-}" --with-ld-opt="$ld" \
              --add-module="$top" $options) > "$log" 2>&1 9>&-
    then
        tools/why.sh "$log" >&2
        exit 1
    fi
    echo "$key" > "$stamp"
fi

if ! ASAN_OPTIONS=detect_leaks=0 make -s -j "$(nproc)" \
         -C "$BUILD/$kind-src" -f "$objs/Makefile" binary 9>&-
then
    exit 1
fi

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
