#!/usr/bin/env python3
"""The VM of vagrant/Vagrantfile as an Ansible inventory, by what `vagrant ssh-config` says of it."""

import json
import pathlib
import shlex
import subprocess
import sys

VAGRANT = pathlib.Path(__file__).resolve().parents[3] / "vagrant"
VARIABLES = {"hostname": "ansible_host", "port": "ansible_port", "user": "ansible_user", "identityfile": "ansible_ssh_private_key_file"}
# A VM has a new key each time it is made, at the same address.
COMMON = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR"


def host_variables(config):
    """Translates the lines of ssh's configuration."""
    found = {"ansible_ssh_common_args": COMMON}
    for line in config.splitlines():
        name, *values = shlex.split(line) or [""]
        if name.lower() in VARIABLES:
            found[VARIABLES[name.lower()]] = values[0]
    return found


def main():
    """Prints the inventory; fails where there is no VM that runs."""
    try:
        done = subprocess.run(["vagrant", "ssh-config", "pgpair"], cwd=VAGRANT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit("vagrant is not installed")
    if done.returncode != 0:
        sys.exit(f"vagrant ssh-config says: {' '.join((done.stderr or done.stdout).split())} (make vagrant brings the VM up)")
    inventory = {"docker_hosts": {"hosts": ["pgpair"]}, "_meta": {"hostvars": {"pgpair": host_variables(done.stdout)}}}
    print(json.dumps(inventory, indent=2))


if __name__ == "__main__":
    main()
