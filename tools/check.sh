#!/bin/sh
#
# check.sh: cppcheck, and the lengths of lines, functions and files.  Fails
# on what must not be: warnings of cppcheck, lines over 80 columns, functions
# over 120 lines, files over 900.

set -eu

cd "$(dirname "$0")/.."
status=0

cppcheck --quiet --error-exitcode=1 --std=c11 --language=c \
    --enable=warning,performance,portability --inline-suppr \
    -I ngx_rt_module ngx_rt_module/*.c || status=1

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
' ngx_rt_module/*.[ch] || status=1

exit $status
