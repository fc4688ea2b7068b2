#!/usr/bin/python
"""Asks a node's PostgreSQL through its socket, whatever the caller's environment says of another server."""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.pair import Failure, ask, connect

DOCUMENTATION = """
module: pair_sql
short_description: runs a statement on a node of a pair
description:
  - Connects to the node's socket as the superuser. The variables of libpq (PGHOST, PGSERVICE, PGPASSFILE and the like) mean nothing to it.
  - Without O(unless) the statement only reads, and check mode runs it too.
options:
  root: {description: The pair's folder., type: path, required: true}
  node: {description: The node., type: str, required: true}
  database: {description: The database., type: str, default: postgres}
  query: {description: The statement., type: str, required: true}
  arguments: {description: What its placeholders stand for., type: list, elements: raw, default: []}
  unless: {description: 'A query with the same arguments: where it returns a row, there is nothing to do.', type: str}
"""


def run(module):
    asked = module.params
    arguments = asked["arguments"] or None
    client = connect(asked["root"], asked["node"], asked["database"])
    try:
        if asked["unless"] is not None:
            if ask(client, asked["unless"], arguments):
                return {"changed": False, "rows": []}
            if module.check_mode:
                return {"changed": True, "rows": []}
        return {"changed": asked["unless"] is not None, "rows": ask(client, asked["query"], arguments)}
    finally:
        client.close()


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "node": {"type": "str", "required": True},
            "database": {"type": "str", "default": "postgres"},
            "query": {"type": "str", "required": True},
            "arguments": {"type": "list", "elements": "raw", "default": []},
            "unless": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except Failure as failure:
        module.fail_json(msg=str(failure))


if __name__ == "__main__":
    main()
