#!/usr/bin/python
"""Reads an instance's SSH host keys from its console, by which nobody between can show another."""

import base64
import re
import time

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

try:
    from botocore import exceptions as boto
except ImportError:
    pass  # AnsibleAWSModule says so.

DOCUMENTATION = """
module: ec2_instance_host_key
short_description: reads SSH host keys from an instance's console
description:
  - cloud-init prints the keys there when the instance first boots. Waits until AWS shows them.
options:
  instance_id: {description: The instance., type: str, required: true}
  timeout: {description: Seconds to wait., type: int, default: 600}
"""

# What cloud-init prints between these lines.
BLOCK = re.compile("-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
KEY = re.compile(r"\b(ssh-ed25519|ecdsa-sha2-nistp[0-9]+|ssh-rsa) (AAAA[0-9A-Za-z+/]+={0,2})")

# Seconds between two looks.
PAUSE = 5


def keys_in(console):
    """Returns the keys of the newest boot that printed some."""
    blocks = BLOCK.findall(console)
    return [" ".join(key) for key in KEY.findall(blocks[-1])] if blocks else []


def console_of(ec2, instance_id):
    """Returns what the console shows; the newest state of it where the type has that."""
    try:
        answer = ec2.get_console_output(InstanceId=instance_id, Latest=True)
    except boto.ClientError as error:
        if error.response["Error"]["Code"] != "UnsupportedOperation":
            raise
        answer = ec2.get_console_output(InstanceId=instance_id)
    text = answer.get("Output") or ""
    try:
        return base64.b64decode(text, validate=True).decode(errors="replace")
    except ValueError:
        return text


def main():
    module = AnsibleAWSModule(
        argument_spec=dict(instance_id=dict(type="str", required=True), timeout=dict(type="int", default=600)), supports_check_mode=True
    )
    instance_id, ends = module.params["instance_id"], time.monotonic() + module.params["timeout"]
    try:
        ec2 = module.client("ec2")
        keys = keys_in(console_of(ec2, instance_id))
        while not keys and time.monotonic() < ends:
            time.sleep(PAUSE)
            keys = keys_in(console_of(ec2, instance_id))
    except (boto.ClientError, boto.BotoCoreError) as error:
        module.fail_json(msg=f"The console of {instance_id} cannot be read: {error}")
    if not keys:
        module.fail_json(
            msg=f"The console of {instance_id} shows no SSH host key within {module.params['timeout']} s, by which to know the host at the first visit:"
            " run this again in some minutes, or give -e ec2_instance_host_key=first-visit to take the key of whoever answers."
        )
    module.exit_json(changed=False, keys=keys)


if __name__ == "__main__":
    main()
