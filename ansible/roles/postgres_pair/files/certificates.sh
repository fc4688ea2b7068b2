#!/bin/sh
# certificates.sh make|check|renew|ends ROOT PREFIX UID GID DAYS RENEW_DAYS [NAME,NAME…]: the pair's own authority and its nodes' certificates,
# which carry these further names and addresses.
#   make   makes what is missing, replaces what does not fit, and renews what ends within RENEW_DAYS
#   check  says what make would do, and changes nothing
#   ends   says until when each node's certificate is good, and fails where that is less than RENEW_DAYS
#   renew  as make; then has the running nodes take their new certificates up, without a restart
# A node's certificate is good for DAYS. Keys are root's, and the group GID reads them (UID is PostgreSQL's user, and owns none). Says each thing that it does in one line, and nothing when there is nothing to do. Keys stay,
# so a file that is replaced fits the other at every moment.
set -eu
umask 077
verb=$1 root=$2 prefix=$3 gid=$5 days=$6 renew_days=$7 further=${8:-}
ca=$root/tls

# The authority: ten years, renewed a node's lifetime before its end, so that no node's certificate outlives it.
ca_days=3650
ca_renew_days=$((days + renew_days))

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/openssl.cnf" <<END
[req]
prompt = no
distinguished_name = name
[name]
CN = $prefix authority
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[node]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = \${ENV::NAMES}
END
export NAMES=

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# does WHAT COMMAND...: says it, and does it unless only asked.
does() {
    printf '%s\n' "$1"
    shift
    [ "$verb" = check ] || "$@"
}

# put FILE MODE OWNER: takes what comes on stdin, in one step.
put() {
    cat >"$1.new"
    [ -s "$1.new" ] || die "openssl made nothing for $1"
    chmod "$2" "$1.new"
    chown "$3" "$1.new"
    mv "$1.new" "$1"
}

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | put "$1" "$2" "$3"; }

# is FILE MODE OWNER: so it is.
is() { [ "$(stat -c '%a %u:%g' "$1")" = "$2 $3" ]; }

# own FILE MODE OWNER
own() {
    chown "$3" "$1"
    chmod "$2" "$1"
}

same_key() { [ "$(openssl x509 -in "$1" -noout -pubkey 2>/dev/null)" = "$(openssl pkey -in "$2" -pubout 2>/dev/null)" ]; }

# lasts FILE DAYS: it is still good after so many days.
lasts() { openssl x509 -in "$1" -noout -checkend "$(($2 * 86400))" >/dev/null 2>&1; }

names() {
    printf 'DNS:%s-%s, DNS:%s, DNS:localhost' "$prefix" "$1" "$1"
    for name in $(printf '%s' "$further" | tr , ' '); do
        case $name in
        *:*) printf ', IP:%s' "$name" ;;
        *[!0-9.]*) printf ', DNS:%s' "$name" ;;
        *) printf ', IP:%s' "$name" ;;
        esac
    done
}

print_names() { openssl x509 -noout -ext subjectAltName 2>/dev/null | sed -n 's/^ *\(DNS:.*\)/\1/p'; }

# has_names FILE KEY NAMES: openssl writes an address in its own way, so another certificate tells what the names look like.
has_names() {
    wanted=$(NAMES=$3 openssl req -x509 -new -key "$2" -config "$work/openssl.cnf" -extensions node | print_names)
    [ "$(print_names <"$1")" = "$wanted" ]
}

new_authority() {
    openssl req -x509 -new -sha256 -key "$ca/ca.key" -days "$ca_days" -config "$work/openssl.cnf" -extensions authority | put "$ca/ca.crt" 644 0:0
}

new_certificate() {
    conf=$root/$1/conf
    NAMES=$(names "$1")
    openssl req -new -key "$conf/server.key" -subj "/CN=$prefix-$1" -config "$work/openssl.cnf" -out "$work/request"
    openssl x509 -req -sha256 -in "$work/request" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -set_serial "0x$(openssl rand -hex 16 | sed 's/^./1/')" \
        -days "$days" -extfile "$work/openssl.cnf" -extensions node 2>"$work/said" | put "$conf/server.crt" 644 "0:$gid" ||
        die "$(cat "$work/said")"
}

# Not by `docker kill --signal HUP`: Docker takes any signal for a stop, and would not start the container with the host any more.
take_up() {
    if [ "$(docker inspect --format '{{.State.Running}}' "$prefix-$1" 2>/dev/null)" = true ]; then
        docker exec "$prefix-$1" sh -c 'kill -HUP 1'
    fi
}

authority() {
    if [ ! -s "$ca/ca.key" ]; then
        [ ! -s "$ca/ca.crt" ] || die "$ca/ca.key is missing, and $ca/ca.crt is there: bring the key back"
        does "made the authority's key" new_key "$ca/ca.key" 600 0:0
    fi
    if [ ! -s "$ca/ca.crt" ]; then
        does "made the authority's certificate, good for $ca_days days" new_authority
    elif ! same_key "$ca/ca.crt" "$ca/ca.key"; then
        die "$ca/ca.crt is not the certificate of $ca/ca.key"
    elif ! lasts "$ca/ca.crt" "$ca_renew_days"; then
        does "renewed the authority's certificate for $ca_days days, with the same key" new_authority
    fi
}

node() {
    conf=$root/$1/conf why=
    if [ ! -s "$conf/server.key" ]; then
        does "made the key of $1" new_key "$conf/server.key" 640 "0:$gid"
    elif ! is "$conf/server.key" 640 "0:$gid"; then
        does "gave the key of $1 to root" own "$conf/server.key" 640 "0:$gid"
    fi
    if [ ! -s "$conf/server.crt" ]; then
        why=made
    elif ! same_key "$conf/server.crt" "$conf/server.key" || ! has_names "$conf/server.crt" "$conf/server.key" "$(names "$1")" ||
        ! openssl verify -no_check_time -CAfile "$ca/ca.crt" "$conf/server.crt" >/dev/null 2>&1; then
        why=replaced
    elif ! lasts "$conf/server.crt" "$renew_days"; then
        why=renewed
    fi
    [ -z "$why" ] || does "$why the certificate of $1, good for $days days" new_certificate "$1"
    if ! cmp -s "$ca/ca.crt" "$conf/ca.crt"; then
        does "gave $1 the authority's certificate" give_authority "$conf/ca.crt"
    fi
    if [ -n "$why" ] && [ "$verb" = renew ]; then
        does "had $1 take it up" take_up "$1"
    fi
}

give_authority() { put "$1" 644 "0:$gid" <"$ca/ca.crt"; }

ends() {
    ending=0
    for node in a b; do
        file=$root/$node/conf/server.crt
        [ -s "$file" ] || die "$file is missing"
        printf '%s until %s%s\n' "$node" "$(openssl x509 -in "$file" -noout -enddate | sed 's/^notAfter=//')" \
            "$(lasts "$file" "$renew_days" || echo ', which is soon: it was not renewed')"
        lasts "$file" "$renew_days" || ending=1
    done
    exit "$ending"
}

case $verb in make | check | renew) ;; ends) ends ;; *) die "what is $verb? make, check, renew or ends" ;; esac
[ "$renew_days" -lt "$days" ] || die "certificates that are good for $days days cannot be renewed $renew_days days before their end"
authority
node a
node b
