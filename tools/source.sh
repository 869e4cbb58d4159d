#!/bin/sh
#
# source.sh: prints a directory with the source of this machine's nginx,
# which it fetches from Debian first: nginx-dev has only headers.
#
# The source lists are made beside the tree from the lists that apt uses;
# nothing in /etc is touched.

set -eu

mkdir -p "$BUILD"
BUILD=$(cd "$BUILD" && pwd)

# a tree of nginx's own, with its .c files
if [ -f "$NGINX_SRC/src/core/nginx.c" ]; then
    echo "$NGINX_SRC"
    exit 0
fi

version=$(nginx -v 2>&1 | sed -n 's,.*nginx/\([0-9.]*\).*,\1,p')
tree=$BUILD/src/nginx-$version

if [ -f "$tree/configure" ]; then
    echo "$tree"
    exit 0
fi

work=$BUILD/src/apt
log=$BUILD/src/log
rm -rf "$work" "$tree"
mkdir -p "$work/lists/partial" "$work/out"

die() {
    echo "source.sh: nginx $version: $1" >&2
    tail -5 "$log" >&2
    exit 1
}

# signed-by as in the lists there are, or apt's own keys
keys=/usr/share/keyrings/debian-archive-keyring.gpg
opt=
[ ! -f "$keys" ] || opt=" [signed-by=$keys]"

apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 2> "$log" \
    | sed -n "s|^Debian |deb-src$opt |p" | sort -u > "$work/list"
[ -s "$work/list" ] || die "apt knows no Debian archive"

apt="apt-get -q -o Dir::Etc::sourcelist=$work/list
    -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$work/lists
    -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache=
    -o APT::Sandbox::User=root"

# where the version is not the newest, an archive may still have it
cd "$work/out"
$apt update >> "$log" 2>&1 || true
$apt source --tar-only "nginx" >> "$log" 2>&1 || die "no source package"

set -- nginx_*.orig.tar.gz
[ -f "$1" ] || die "no tarball"
[ "$1" = "nginx_$version.orig.tar.gz" ] || die "the archive has $1"

mkdir "$work/tree"
tar -xzf "$1" -C "$work/tree" --strip-components=1
mv "$work/tree" "$tree"
rm -rf "$work"

echo "$tree"
