#!/bin/sh
#
# deps.sh SET...: installs what a set of make targets needs from Debian, if
# anything is missing.  Otherwise it only asks dpkg and takes 20 ms.
#
# Services that come along (nginx, redis-server) are neither started nor
# enabled; those that were there before are left as they are.
#
# NO_DEPS=1 leaves everything to you.

set -eu

[ -z "${NO_DEPS:-}" ] || exit 0
command -v dpkg-query > /dev/null || exit 0

build="gcc make libc6-dev nginx nginx-dev libhiredis-dev"
run="redis-server redis-tools"
source="ca-certificates libpcre2-dev libssl-dev zlib1g-dev"
test="perl curl binutils cppcheck clang libclang-rt-dev procps
    libnginx-mod-nchan valgrind"
browser="chromium nodejs npm"
docker="buildah debootstrap"

# what a tree of nginx's own needs instead of nginx-dev
if [ -n "${NGINX_SRC:-}" ] && [ "$NGINX_SRC" != /usr/share/nginx/src ]; then
    build="gcc make libc6-dev libhiredis-dev $source"
fi

wanted=
for set in "$@"; do
    eval "wanted=\"\$wanted \$$set\""
done

# node and npm may be there from elsewhere
for name in node:nodejs npm:npm; do
    if command -v "${name%:*}" > /dev/null; then
        wanted=$(echo " $wanted " | sed "s/ ${name#*:} / /")
    fi
done

# shellcheck disable=SC2086
have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted \
           2> /dev/null | sed -n 's/^installed //p') || true

missing=
for name in $wanted; do
    echo "$have" | grep -qx "$name" || missing="$missing $name"
done

[ -n "$missing" ] || exit 0

as=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo > /dev/null; then
        echo "deps.sh: as root: apt-get install$missing" >&2
        exit 1
    fi
    as=sudo
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
ours=

cleanup() {
    [ -z "$ours" ] || $as rm -f "$policy"
    rm -f "$log"
}

trap cleanup EXIT
trap 'exit 1' INT TERM

# keeps a new nginx off port 80 and a new Redis off 6379
if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | $as tee "$policy" > /dev/null
    $as chmod 755 "$policy"
fi

services=
for unit in nginx redis-server; do
    dpkg-query -W -f '${db:Status-Status}' "$unit" 2> /dev/null \
        | grep -qx installed || services="$services $unit"
done

echo "installing:$missing"

# a source list that can't be reached is no reason to stop: what counts is
# whether the packages are to be had
apt="$as env DEBIAN_FRONTEND=noninteractive apt-get -q"
$apt update > "$log" 2>&1 || true

# shellcheck disable=SC2086
if ! $apt install -y --no-install-recommends $missing >> "$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi

if command -v systemctl > /dev/null; then
    for unit in $services; do
        $as systemctl disable "$unit" > /dev/null 2>&1 || true
    done
fi
