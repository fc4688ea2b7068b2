#!/usr/bin/env bash
# build.sh RELEASE: has a Docker image of a host (Dockerfile, init.sh) with this Debian release, and prints its name. Kept for the next time.
set -euo pipefail
release=$1
cd "$(dirname "$0")"
base=pgpair-debian:$release
image=pgpair-test-host:$release-$(cat Dockerfile init.sh build.sh | sha256sum | head -c 12)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# One at a time, as several tests want it.
exec 9>"${TMPDIR:-/tmp}/pgpair-test-host.lock"
flock 9

# Prints the mirror that this machine's own lists use for LABEL.
mirror() {
    apt-get indextargets --format "\$(LABEL)|\$(REPO_URI)" "Created-By: Packages" | sed -n "s/^$1|//p" | head -n 1
}

# As the role postgres_pair makes it, which has done so for its own release.
make_base() {
    local folder main security
    main=$(mirror Debian)
    security=$(mirror Debian-Security)
    folder=$(mktemp -d /var/tmp/pgpair-debian.XXXXXX)
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" EXIT
    command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap debian-archive-keyring
    debootstrap --variant=minbase --keyring="$keyring" "$release" "$folder" "$main"
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$main" "$release" "$keyring" "$main" "$release-updates" >"$folder/etc/apt/sources.list"
    if [ -n "$security" ]; then
        printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$security" "$release-security" >>"$folder/etc/apt/sources.list"
    fi
    mkdir -p "$folder/etc/ssl/certs"
    if [ -s /etc/ssl/certs/ca-certificates.crt ]; then cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/"; fi
    rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
    tar -C "$folder" -c . | docker import --change 'LABEL org.pgpair.built=test' - "$base"
}

{
    docker image inspect "$image" || {
        docker image inspect "$base" || make_base
        DOCKER_BUILDKIT=0 docker build --build-arg BASE="$base" --label org.pgpair.built=test --tag "$image" .
    }
} >&2
echo "$image"
