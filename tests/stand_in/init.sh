#!/bin/sh
# init.sh: makes the cgroups of this container writable, and becomes systemd.
set -eu
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    # The limits of nested containers are enforced by version 1, so systemd is told to keep to it.
    for hierarchy in /sys/fs/cgroup/*; do
        if mountpoint -q "$hierarchy"; then mount -o remount,bind,rw "$hierarchy"; fi
    done
    export SYSTEMD_PROC_CMDLINE="systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
fi
export container=docker
exec /sbin/init
