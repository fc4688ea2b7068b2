#!/usr/bin/python
"""Has a pair's passwords on its host, made there, and gives them to those who log in with them. They never leave the host."""

import os
import secrets
import string

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.pair import Failure, read_secret

DOCUMENTATION = """
module: pair_secrets
short_description: makes a pair's passwords, and password files of them
description:
  - Makes the secrets that are missing or to be rotated, and keeps files in libpq's format with the password of one of them.
  - Nothing that it returns or says holds a password.
options:
  folder: {description: The folder of the secrets., type: path, required: true}
  names: {description: The secrets that are to be there., type: list, elements: str, default: []}
  rotate: {description: Those that are made anew., type: list, elements: str, default: []}
  files:
    description: Password files.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The file., type: path, required: true}
      user: {description: The user in it, who is also the secret's name., type: str, required: true}
      uid: {description: Its owner., type: int, required: true}
      gid: {description: Its group., type: int, required: true}
"""

LETTERS = string.ascii_letters + string.digits
LENGTH = 32


def write(path, text, uid, gid):
    """Writes a file for its owner alone, in one step."""
    beside = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchown(descriptor, uid, gid)
            os.fsync(descriptor)
        os.rename(beside, path)
    except OSError:
        os.unlink(beside)
        raise


def is_as(path, text, uid, gid):
    """Says whether a file is so already."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        about = os.fstat(descriptor)
        return (about.st_uid, about.st_gid, about.st_mode & 0o777) == (uid, gid, 0o600) and file.read(8192) == text


def line(user, password):
    """Returns libpq's line for a password, wherever it is used."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:{user}:{escaped}\n"


def run(module):
    asked, changed = module.params, []
    for name in asked["names"]:
        path = f"{asked['folder']}/{name}"
        if name in asked["rotate"] or not os.path.exists(path):
            changed.append(path)
            if not module.check_mode:
                write(path, "".join(secrets.choice(LETTERS) for _ in range(LENGTH)) + "\n", 0, 0)
        elif os.stat(path).st_mode & 0o077 or os.stat(path).st_uid:
            changed.append(path)
            if not module.check_mode:
                os.chown(path, 0, 0)
                os.chmod(path, 0o600)
    for file in asked["files"]:
        secret = f"{asked['folder']}/{file['user']}"
        if module.check_mode and (secret in changed or not os.path.exists(secret)):
            changed.append(file["path"])
            continue
        text = line(file["user"], read_secret(secret))
        if not is_as(file["path"], text, file["uid"], file["gid"]):
            changed.append(file["path"])
            if not module.check_mode:
                write(file["path"], text, file["uid"], file["gid"])
    return {"changed": bool(changed), "paths": changed}


def main():
    files = {
        "path": {"type": "path", "required": True},
        "user": {"type": "str", "required": True},
        "uid": {"type": "int", "required": True},
        "gid": {"type": "int", "required": True},
    }
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "names": names,
            "rotate": names,
            "files": {"type": "list", "elements": "dict", "default": [], "options": files},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except Failure as failure:
        module.fail_json(msg=str(failure))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or asked_of(module)} cannot be kept: {error.strerror}")


def asked_of(module):
    return module.params["folder"]


if __name__ == "__main__":
    main()
