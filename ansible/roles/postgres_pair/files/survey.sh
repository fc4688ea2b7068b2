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

printf '},"nodes":{'
comma=
for node in "$@"; do
    data=$root/$node/data/pgdata
    version='' system=''
    if [ -f "$data/PG_VERSION" ]; then version=$(head -c 64 "$data/PG_VERSION" | tr -cd '0-9.'); fi
    # pg_control begins with the system identifier, in every version and in the machine's own byte order.
    if [ -f "$data/global/pg_control" ]; then system=$(od -An -tu8 -N8 "$data/global/pg_control" | tr -d ' '); fi
    printf '%s"%s":{"data":%s,"empty":%s,"standby":%s,"version":"%s","system":"%s","owner":"%s","kilobytes":%s}' "$comma" "$node" \
        "$(yes_no test -s "$data/PG_VERSION")" "$(yes_no empty_folder "$data")" "$(yes_no test -e "$data/standby.signal")" \
        "$version" "$system" "$(stat -c %u:%g "$data" 2>/dev/null || true)" "$(if [ -d "$data" ]; then du -sk "$data" 2>/dev/null | cut -f 1; else echo 0; fi)"
    comma=,
done
printf '}}\n'
