#!/usr/bin/env bash
# vagrant.sh: `vagrant up` with the unmodified vagrant/Vagrantfile, for `make test-vagrant`. Vagrant, libvirt and QEMU run in a container that looks
# like a Debian machine (tests/stand_in), so nothing is installed here and nothing stays. The VM is emulated, without the processor's help, and its
# box is made of Debian's packages under the name of the public one: this shows the Vagrantfile and the playbook; not VirtualBox, nor the public box.
set -euo pipefail
cd "$(dirname "$0")/.."
name=pgpair-test-vagrant-$$

die() {
    printf 'vagrant.sh: %s\n' "$*" >&2
    exit 1
}

release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
# The container uses this machine's .venv, so it must have this machine's Python.
case $release in bookworm | trixie) ;; *) die "this runs on Debian 12 or 13; here, say vagrant up in vagrant/ yourself" ;; esac
[ -c /dev/net/tun ] || die "no VM can have a network here: there is no /dev/net/tun"

# Made once: it takes minutes.
box=.cache/vagrant-$(sha256sum <tests/vagrant/box.sh | head -c 12).box
work=$(mktemp -d /var/tmp/pgpair-vagrant.XXXXXX)
clean_up() {
    if [ -e "$work/trixie64.box" ] && [ ! -e "$box" ]; then
        rm -f .cache/vagrant-*.box
        cp "$work/trixie64.box" "$box.new" && mv "$box.new" "$box"
    fi
    docker rm --force --volumes "$name" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

echo "Making a machine for Vagrant (Debian's $release)" >&2
image=$(tests/stand_in/build.sh "$release" 2>"$work/build.log") || die "the machine could not be made: $(tail -n 1 "$work/build.log")"
if [ -e "$box" ]; then cp "$box" "$work/trixie64.box"; fi
docker save --output "$work/image.tar" "$(cat .cache/postgres-image)"
mapfile -t options <tests/stand_in/options
docker run --detach --name "$name" --hostname "$name" "${options[@]}" --device /dev/net/tun --label "org.pgpair.test=$$" \
    --volume "$PWD:$PWD:ro" --volume "$work:/vm" --volume /var/lib/libvirt "$image" >/dev/null
nice docker exec --env PGPAIR_VAGRANT_MEMORY --env PGPAIR_VAGRANT_CPUS --env PGPAIR_VAGRANT_ARGS "$name" "$PWD/tests/vagrant/inside.sh" "$PWD"
