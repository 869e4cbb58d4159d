#!/bin/sh

# Writes what the environment decides into /run/ngx_rt, then becomes the
# command: nginx as a rule.
#
#   REDIS_URL   redis://[user[:password]@]host[:port][/db] or unix:/path;
#               empty: no Redis, messages come by HTTP and stay in this nginx
#   PORT        where nginx listens
#   TRUSTED     addresses and networks that may publish by HTTP and read the
#               status, besides the container itself

set -eu

dir=/run/ngx_rt

die() {
    echo "entrypoint.sh: $1" >&2
    exit 1
}

# they become words of the configuration: nothing that ends one
case $REDIS_URL in
    *[[:space:]\;{}\"\'\\\$\#]*) die "REDIS_URL is no URL" ;;
esac

case $PORT in
    "" | *[!0-9]*) die "PORT is no number" ;;
esac

case $TRUSTED in
    *[!0-9a-fA-F.:/\ ]*) die "TRUSTED is no list of addresses" ;;
esac

umask 077

echo "listen $PORT;" > $dir/listen.conf

for address in 127.0.0.1 $TRUSTED; do
    echo "allow $address;"
done > $dir/trusted.conf

if [ -n "$REDIS_URL" ]; then
    echo "redis $REDIS_URL;" > $dir/redis.conf
else
    : > $dir/redis.conf
fi

# a container's name server knows the other containers by name; with it Redis
# is looked up on every reconnect, and need not be there when nginx starts
server=$(sed -n 's/^nameserver[[:space:]]\{1,\}\([0-9a-fA-F.:]*\).*/\1/p' \
             /etc/resolv.conf | head -n 1)
case $server in
    "")  : > $dir/resolver.conf ;;
    *:*) echo "resolver [$server] valid=10s;" > $dir/resolver.conf ;;
    *)   echo "resolver $server valid=10s;" > $dir/resolver.conf ;;
esac

exec "$@"
