#!/bin/sh
#
# check.sh [FILE...]: cppcheck, and the lengths of lines, functions and files;
# of the module's.  Fails on what must not be: warnings of cppcheck, lines over
# 80 columns, tabs, functions over 120 lines, files over 900.

set -eu

if [ $# = 0 ]; then
    cd "$(dirname "$0")/.."
    set -- ngx_rt_module/*.[ch]
fi

status=0

cppcheck --quiet --error-exitcode=1 --std=c11 --language=c \
    --enable=warning,performance,portability --inline-suppr \
    -I ngx_rt_module "$@" || status=1

awk '
    FNR == 1        { start = 0 }
    length($0) > 80 { print FILENAME ":" FNR ": over 80 columns"; bad = 1 }
    /\t/            { print FILENAME ":" FNR ": a tab"; bad = 1 }
    /^\{/           { start = FNR }
    /^\}/           { if (start && FNR - start > 120) {
                          print FILENAME ":" start ": a function of " \
                                FNR - start " lines"
                          bad = 1
                      }
                      start = 0 }
    FNR == 901      { print FILENAME ": over 900 lines"; bad = 1 }
    END             { exit bad }
' "$@" || status=1

exit $status
