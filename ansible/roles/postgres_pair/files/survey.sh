#!/bin/sh
# survey.sh ROOT UID NODE...: says as JSON what is on the disks of a pair, and who has PostgreSQL's user id on this host. Changes nothing.
set -eu
root=$1 uid=$2
shift 2

yes_no() { if "$@"; then printf true; else printf false; fi; }
filled() { [ -f "$1" ] && [ -s "$1" ] && [ -r "$1" ]; }
empty_folder() { [ -z "$(ls -A "$1" 2>/dev/null)" ]; }

# The nearest folder that exists: its file system will hold the data.
place=$root
while [ ! -d "$place" ]; do place=$(dirname "$place"); done

marker=
if [ -f "$root/.pgpair" ]; then marker=$(head -n 1 "$root/.pgpair" | tr -cd 'A-Za-z0-9_.-'); fi

printf '{"exists":%s,"empty":%s,"marker":"%s","free_bytes":%s' "$(yes_no test -e "$root")" "$(yes_no empty_folder "$root")" \
    "$marker" "$(df -PB1 "$place" | awk 'NR == 2 { print $4 }')"
printf ',"ca":{"key":%s,"certificate":%s}' "$(yes_no filled "$root/tls/ca.key")" "$(yes_no filled "$root/tls/ca.crt")"

# Who is let in as the application: database and role, without pg_hba's quotes.
app=
for node in "$@"; do
    if [ -z "$app" ] && [ -f "$root/$node/conf/pg_hba.conf" ]; then
        app=$(awk '$1 == "hostssl" && $2 != "replication" && $3 != "pgpair" { print $2, $3 }' "$root/$node/conf/pg_hba.conf" | tail -n 1)
    fi
done
printf ',"app":"%s","user":"%s"' "$(printf '%s' "$app" | tr -cd 'A-Za-z0-9_. -')" \
    "$(getent passwd "$uid" | cut -d : -f 1 | tr -cd 'A-Za-z0-9_.-')"

printf ',"secrets":{'
comma=
for secret in replicator pgpair app; do
    printf '%s"%s":%s' "$comma" "$secret" "$(yes_no filled "$root/secrets/$secret")"
    comma=,
done

# What a container may rearrange is looked at by its owner's eyes, without links at the names that count, and not for long.
# shellcheck disable=SC2016
look='
regular() { [ -f "$1" ] && [ ! -h "$1" ]; }
data=$1 version= system= there=false empty=true standby=false kilobytes=0
if [ -d "$data" ] && [ ! -h "$data" ]; then
    if [ -n "$(ls -A "$data" 2>/dev/null | head -n 1)" ]; then empty=false; fi
    if regular "$data/PG_VERSION"; then version=$(head -c 64 "$data/PG_VERSION" | tr -cd 0-9.); fi
    if [ -n "$version" ]; then there=true; fi
    # pg_control begins with the system identifier, in every version and in the order of bytes of the machine.
    if [ ! -h "$data/global" ] && regular "$data/global/pg_control"; then
        system=$(od -An -tu8 -N8 "$data/global/pg_control" | tr -d " ")
    fi
    if regular "$data/standby.signal"; then standby=true; fi
    kilobytes=$(du -skx "$data" 2>/dev/null | cut -f 1)
elif [ -e "$data" ] || [ -h "$data" ]; then
    empty=false
fi
printf "\"data\":%s,\"empty\":%s,\"standby\":%s,\"version\":\"%s\",\"system\":\"%s\",\"kilobytes\":%s" \
    "$there" "$empty" "$standby" "$version" "$system" "${kilobytes:-0}"
'
nothing='"data":false,"empty":true,"standby":false,"version":"","system":"","kilobytes":0'

printf '},"nodes":{'
comma=
for node in "$@"; do
    data=$root/$node/data found=$nothing
    if [ -d "$data" ] && [ ! -h "$data" ]; then
        found=$(cd "$data" && timeout 120 setpriv --reuid "$(stat -c %u .)" --regid "$(stat -c %g .)" --clear-groups \
            /bin/sh -c "$look" look pgdata) || {
            printf '%s cannot be looked at\n' "$data" >&2
            exit 1
        }
    elif [ -e "$data" ] || [ -h "$data" ]; then
        printf '%s is no folder\n' "$data" >&2
        exit 1
    fi
    printf '%s"%s":{%s,"owner":"%s"}' "$comma" "$node" "$found" "$(stat -c %u:%g "$data/pgdata" 2>/dev/null || true)"
    comma=,
done
printf '}}\n'
