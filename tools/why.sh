#!/bin/sh
#
# why.sh LOG: one line that says why nginx's configure has failed, with the
# Debian package where one is missing; the end of LOG if that is not known.

set -eu

text=$(sed -n 's/^.*: error: //p' "$1" | head -n 1)

case $text in
    *"C compiler"*) package=gcc ;;
    *PCRE*)         package=libpcre2-dev ;;
    *zlib*)         package=zlib1g-dev ;;
    *OpenSSL* | *"SSL modules"*) package=libssl-dev ;;
    *)              package= ;;
esac

case $text in
    "") tail -n 20 "$1" ;;
    *)  echo "configure: $text${package:+: apt-get install $package}" ;;
esac
