#!/bin/sh
# guard.sh hold ROOT PREFIX PGPAIR LENGTH HELD: has a guard that is at work on the pair replace no primary for LENGTH, sees that it heeds that,
# and prints the end of the pause. One that its owner had paused is left alone, and nothing is printed. HELD is the end that was printed before.
# guard.sh release ROOT PREFIX PGPAIR HELD: ends that pause, unless somebody has set another.
set -eu
does=$1 root=$2 prefix=$3 pgpair=$4
shift 4

at_work() { [ -e "$root/guard.lock" ] && ! flock -n "$root/guard.lock" true; }
# JSON, and of the version before a number, and a line of key=value.
paused_until() { sed -E 's/.*"until":([0-9]+).*/\1/' "$root/guard.pause" 2>/dev/null || true; }
heeds() { [ ! -d "$root/probe" ] || grep -qE ' state=paused |"state":"paused"' "$root/probe/guard" 2>/dev/null; }
told() { "$pgpair" guard "$@" "--prefix=$prefix" "--root=$root" >/dev/null; }

if [ "$does" = release ]; then
    if [ -n "$1" ] && [ "$(paused_until)" = "$1" ]; then told resume; fi
    exit
fi
length=$1 held=$2

at_work || exit 0
until=$(paused_until)
if [ -z "$until" ] || [ "$until" -le "$(date +%s)" ] || [ "$until" = "$held" ]; then
    told pause "$length"
    paused_until
fi
# What it had begun before is brought to its end first.
tries=0
until heeds; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ]; then
        echo "the guard is at work on this pair ($(cat "$root/lock" 2>/dev/null)): wait until it has ended" >&2
        exit 1
    fi
    sleep 0.2
done
