#!/bin/sh
# build.sh IMAGE MAJOR RELEASE LABEL: builds the stand-in IMAGE in this folder, on the Docker host, from its own Debian mirrors.
set -eu
image=$1 major=$2 release=$3 label=$4
base="pgpair-debian:$release"
here=$(cd "$(dirname "$0")" && pwd)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Prints the address of the mirror that the host's own lists use for LABEL (Debian, Debian-Security).
mirror() {
    apt-get indextargets --format "\$(LABEL)|\$(REPO_URI)" "Created-By: Packages" | sed -n "s/^$1|//p" | head -n 1
}

if ! docker image inspect "$base" >/dev/null 2>&1; then
    main=$(mirror Debian)
    if [ -z "$main" ]; then
        echo "no Debian mirror in this host's package lists: run apt-get update, or make the image $image available" >&2
        exit 1
    fi
    root=$(mktemp -d /var/tmp/pgpair-debian.XXXXXX)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --keyring="$keyring" "$release" "$root" "$main" >"$here/debootstrap.log" 2>&1 || {
        tail -n 3 "$here/debootstrap.log" "$root/debootstrap/debootstrap.log" 2>/dev/null >&2
        exit 1
    }
    {
        echo "deb [signed-by=$keyring] $main $release main"
        echo "deb [signed-by=$keyring] $main $release-updates main"
        security=$(mirror Debian-Security)
        if [ -n "$security" ]; then echo "deb [signed-by=$keyring] $security $release-security main"; fi
    } >"$root/etc/apt/sources.list"
    # An https mirror is read with the authorities that this host trusts.
    if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
        mkdir -p "$root/etc/ssl/certs"
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    fi
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
    tar -C "$root" -c . | docker import --change "LABEL $label" - "$base" >/dev/null
fi

# Without BuildKit, whose cache would outlive the image.
DOCKER_BUILDKIT=0 docker build --build-arg BASE="$base" --build-arg MAJOR="$major" --label "$label" -t "$image" "$here" >"$here/build.log" 2>&1 || {
    tail -n 20 "$here/build.log" >&2
    exit 1
}
