#!/bin/sh
# client.sh: says, in one line, which variable or setting has the docker client talk to another engine than this machine's own; nothing when
# none has. Changes nothing.
own() { [ "$1" = unix:///var/run/docker.sock ] || [ "$1" = unix:///run/docker.sock ]; }
refuse() {
    printf '%s: pgpair works with the engine of the machine that it runs on, and with no other; %s.\n' "$1" "$2"
    exit
}

if [ -n "${DOCKER_HOST:-}" ] && ! own "$DOCKER_HOST"; then
    refuse "DOCKER_HOST is $DOCKER_HOST" "unset it (for another machine: make up HOST=user@address)"
fi
if [ -n "${DOCKER_CONTEXT:-}" ] && [ "$DOCKER_CONTEXT" != default ]; then
    refuse "DOCKER_CONTEXT is $DOCKER_CONTEXT" "unset it (for another machine: make up HOST=user@address)"
fi
# With the engine's own socket they mean nothing, except that some clients then do not reach it.
for name in DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH; do
    if [ -n "$(printenv "$name")" ]; then refuse "$name is set" "unset it"; fi
done
config=${DOCKER_CONFIG:-${HOME:-/root}/.docker}/config.json
if [ -r "$config" ] && [ -z "${DOCKER_HOST:-}${DOCKER_CONTEXT:-}" ]; then
    context=$(tr -d '\n' <"$config" | sed -n 's/.*"currentContext"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p')
    if [ -n "$context" ] && [ "$context" != default ]; then
        refuse "the docker client's context is $context ($config)" "docker context use default"
    fi
fi
