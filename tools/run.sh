#!/bin/bash
#
# run.sh: the demo.  A private Redis and nginx on loopback, with all they
# write under $BUILD/run; ends both on Ctrl-C or TERM.  Called by make run.
#
# PORT: of the page, 8080.  A port that is taken is an error; Redis takes the
# first free one after it.

set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"

BUILD=$(cd "${BUILD:-build}" && pwd)
PORT=${PORT:-8080}
prefix=$BUILD/run

taken() {
    (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null
}

if taken "$PORT"; then
    echo "run: port $PORT is taken, try: make run PORT=$((PORT + 10))" >&2
    exit 1
fi

redis_port=$((PORT + 1))
while taken "$redis_port"; do
    redis_port=$((redis_port + 1))
done

mkdir -p "$prefix"
redis= nginx=

end() {
    trap - EXIT INT TERM
    [ -z "$nginx" ] || kill -QUIT "$nginx" 2> /dev/null || true
    [ -z "$nginx" ] || wait "$nginx" 2> /dev/null || true
    [ -z "$redis" ] || kill -TERM "$redis" 2> /dev/null || true
    [ -z "$redis" ] || wait "$redis" 2> /dev/null || true
    exit "$1"
}

trap 'end 1' EXIT
trap 'end 0' INT TERM

redis-server --bind 127.0.0.1 --port "$redis_port" --save '' \
    --dir "$prefix" --logfile "$prefix/redis.log" > /dev/null &
redis=$!

{
    echo 'daemon off;'
    [ "$(id -u)" != 0 ] || echo 'user root;'
    sed -e "s#@MODULE@#$BUILD/ngx_http_rt_module.so#g" \
        -e "s#@PREFIX@#$prefix#g" -e "s#@PORT@#$PORT#g" \
        -e "s#@REDIS_PORT@#$redis_port#g" -e "s#@WWW@#$top/conf/www#g" \
        conf/demo.conf
} > "$prefix/nginx.conf"

nginx -p "$prefix" -c "$prefix/nginx.conf" &
nginx=$!

up() {
    kill -0 "$redis" 2> /dev/null && kill -0 "$nginx" 2> /dev/null
}

n=0
until taken "$PORT" && taken "$redis_port"; do
    n=$((n + 1))
    if ! up || [ "$n" -gt 100 ]; then
        echo "run: nginx or Redis did not start, see $prefix/*.log" >&2
        end 1
    fi
    sleep 0.1
done

cat <<END

    the page      http://127.0.0.1:$PORT/
    try           redis-cli -p $redis_port publish orders:42 hello
    and           curl -N -H 'Accept: text/event-stream' \\
                      http://127.0.0.1:$PORT/rt/orders:42

Ctrl-C ends it.
END

# whichever ends first; a signal interrupts this too
wait -n "$redis" "$nginx" || true

echo "run: nginx or Redis has ended, see $prefix/*.log" >&2
end 1
