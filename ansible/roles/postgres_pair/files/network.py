#!/usr/bin/env python3
"""network.py look|make PREFIX LABEL: has the network of a pair, in which its own containers always have the same addresses.

Prints one JSON object: whether the network was made, its gateway, and the addresses of a, b, probe and proxy. These are empty in a network
that does not keep them free, as those have no range of their own for everybody else.
"""

import ipaddress
import json
import subprocess
import sys

VERB, PREFIX, LABEL = sys.argv[1:4]
OURS = ("a", "b", "probe", "proxy")


def docker(*words):
    done = subprocess.run(["docker", "network", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"docker network {words[0]}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return done.stdout


def look():
    """Returns how the network hands out addresses, nothing if there is none of that name."""
    if PREFIX not in docker("ls", "--format", "{{.Name}}").splitlines():
        return None
    return (json.loads(docker("inspect", PREFIX))[0]["IPAM"].get("Config") or [{}])[0]


def make():
    """Makes it where the engine itself would, and leaves the lower half of that to the pair."""
    create = ["create", "--label", LABEL]
    docker(*create, PREFIX)
    subnet = ipaddress.ip_network(look()["Subnet"])
    if subnet.num_addresses < 16:
        return
    docker("rm", PREFIX)
    _, others = subnet.subnets(1)
    docker(*create, f"--subnet={subnet}", f"--gateway={subnet[1]}", f"--ip-range={others}", PREFIX)


def main():
    found, made = look(), False
    if found is None and VERB == "make":
        make()
        found, made = look(), True
    config = found or {}
    fixed = bool(config.get("IPRange"))
    addresses = {name: str(ipaddress.ip_network(config["Subnet"])[number]) if fixed else "" for number, name in enumerate(OURS, 2)}
    print(json.dumps(addresses | {"made": made, "exists": found is not None, "gateway": config.get("Gateway", "").split("/")[0]}))


main()
