#!/bin/sh
# close_network.sh check|close|open PREFIX: whether the host passes packets of other machines on to the addresses of a pair's containers.
#   check  fails if close could not
#   close  it does not, but for ports that are published there; says "closed" if it did
#   open   it does as Docker lets it; says "open" if it did not
# Docker before 28 lets whoever is on the host's link reach published ports at the containers' own addresses, those of the host's loopback too.
# The rule is in the chain that Docker leaves to its users, and keeps when it starts anew.
set -eu
verb=$1 prefix=$2
chain=DOCKER-USER
mark=pgpair-network-$prefix

# Prints our rules as words of iptables.
ours() { "$1" -w -S "$chain" | grep -E -- "--comment \"?$mark\"? "; }

opened() {
  ours "$1" | sed 's/^-A/-D/' | tr -d '"' | while read -r rule; do
    # shellcheck disable=SC2086 # These are words.
    "$1" -w $rule
    echo open
  done
}

close() {
  # Among themselves containers may speak, whoever has this network next.
  set -- "$1" -d "$2" ! -s "$2" ! -i "$3" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment "$mark" -j DROP
  tables=$1
  shift
  # Of an earlier network of this name there may be another.
  if "$tables" -w -C "$chain" "$@" 2>/dev/null && [ "$(ours "$tables" | wc -l)" -eq 1 ]; then return; fi
  opened "$tables" >/dev/null
  "$tables" -w -I "$chain" "$@"
  echo closed
}

is_there() { command -v "$1" >/dev/null && "$1" -w -S "$chain" >/dev/null 2>&1; }

# Fails, in words for a person, if there is no chain for the rule.
need() {
  if ! command -v "$1" >/dev/null; then
    echo "this host has no $1" >&2
    exit 3
  fi
  if ! "$1" -w -S "$chain" >/dev/null 2>&1; then
    echo "$1 has no chain $chain here, so Docker does not use $1" >&2
    exit 3
  fi
}

case $verb in
  check)
    need iptables
    ;;
  close)
    found=$(docker network inspect --format \
      '{{.Id}} {{with index .Options "com.docker.network.bridge.name"}}{{.}}{{else}}-{{end}}{{range .IPAM.Config}} {{.Subnet}}{{end}}' "$prefix")
    # shellcheck disable=SC2086 # These are words.
    set -- $found
    bridge=$2
    [ "$bridge" != - ] || bridge=br-$(printf %.12s "$1")
    shift 2
    for subnet; do
      case $subnet in
        *:*) tables=ip6tables ;;
        *) tables=iptables ;;
      esac
      need "$tables"
      close "$tables" "$subnet" "$bridge"
    done
    ;;
  open)
    for tables in iptables ip6tables; do
      if is_there "$tables"; then opened "$tables"; fi
    done
    ;;
esac
