#!/bin/sh
# environment.sh ARGUMENT...: bash with these arguments, in an environment that is ours. make runs every line by it, so that nothing that
# somebody happened to export decides what a playbook, a script or a command means. Kept are PATH, HOME, proxies (this machine itself is
# asked past them), PGPAIR_*, AWS_*, PIP_* and CARGO_*, except for those below.
# It is no bash itself: that would read BASH_ENV first.

refuse() {
    printf '%s\n' "$*" >&2
    exit 1
}

case $(pwd) in
*[[:space:][:cntrl:]\"\'\`\$\\\;:\&\|\<\>\(\)\*\?\[\]\{\}#%]*)
    refuse "The path of this checkout ($(pwd | tr -d '[:cntrl:]')) has a blank or a special character in it: move it to one without."
    ;;
esac
if [ -n "${TMPDIR:-}" ] && ! { [ -d "$TMPDIR" ] && [ -w "$TMPDIR" ]; }; then
    refuse "TMPDIR is $TMPDIR, which is no folder that can be written to: unset it, or make the folder."
fi

without=
for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)\(%%\)\{0,1\}=.*/\1\2/p'); do
    case $name in
    PGPAIR_*) ;;
    # A connection of ours goes where it says itself.
    PG* | PSQL*) without="$without -u $name" ;;
    # What changes how shells, their tools and Python work.
    BASH_FUNC_* | BASH_ENV | BASHOPTS | SHELLOPTS | ENV | CDPATH | GLOBIGNORE | POSIXLY_CORRECT | GREP_* | PYTHON*) without="$without -u $name" ;;
    # Where things are installed and built.
    PIP_TARGET | PIP_PREFIX | PIP_ROOT | PIP_USER | PIP_NO_DEPS | PIP_CONSTRAINT | PIP_REQUIREMENT | PIP_NO_BINARY) without="$without -u $name" ;;
    CARGO_TARGET_DIR | CARGO_BUILD_TARGET_DIR | CARGO_BUILD_TARGET) without="$without -u $name" ;;
    # Images are built and pulled for this machine, and by its engine.
    BUILDX_BUILDER | DOCKER_DEFAULT_PLATFORM) without="$without -u $name" ;;
    # How to log in, and colours; the rest is said by ansible.cfg.
    ANSIBLE_SSH_* | ANSIBLE_PRIVATE_KEY_FILE | ANSIBLE_REMOTE_USER | ANSIBLE_REMOTE_PORT | ANSIBLE_TIMEOUT | ANSIBLE_VAULT_*) ;;
    ANSIBLE_BECOME_PASS* | ANSIBLE_CONNECTION_PASSWORD_FILE | ANSIBLE_FORCE_COLOR | ANSIBLE_NOCOLOR) ;;
    ANSIBLE_*) without="$without -u $name" ;;
    LANGUAGE | LC_*) without="$without -u $name" ;;
    esac
done

umask 022
here=localhost,127.0.0.1,::1
# shellcheck disable=SC2086
exec env $without LANG=C.UTF-8 LC_ALL=C.UTF-8 "no_proxy=${no_proxy:+$no_proxy,}$here" "NO_PROXY=${NO_PROXY:+$NO_PROXY,}$here" /bin/bash "$@"
