#!/usr/bin/python
"""Has a role on a node's PostgreSQL whose password is a secret of the host: only a verifier of it is sent."""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.pair import Failure, ask, connect, read_secret, verifier, verifies

try:
    from psycopg2 import sql
except ImportError:
    pass  # connect() says so.

DOCUMENTATION = """
module: pair_role
short_description: has a role with the password of a secret
description:
  - The password is read on the host and leaves it in no form but PostgreSQL's own (SCRAM-SHA-256). A role that has it keeps its salt.
options:
  root: {description: The pair's folder., type: path, required: true}
  node: {description: The primary., type: str, required: true}
  name: {description: The role., type: str, required: true}
  secret: {description: The secret whose password it has., type: str, required: true}
  replication: {description: Whether it may replicate., type: bool, default: false}
  connections: {description: Sessions that it may have at once; -1 for any number., type: int, default: -1}
  member_of: {description: Predefined roles that it is a member of., type: list, elements: str, default: []}
  not_member_of: {description: Predefined roles that it is no member of., type: list, elements: str, default: []}
  settings: {description: What its sessions begin with., type: dict, default: {}}
"""

ROLE = """
SELECT r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication, r.rolconnlimit, r.rolpassword,
       coalesce((SELECT setconfig FROM pg_db_role_setting WHERE setrole = r.oid AND setdatabase = 0), '{}') AS settings,
       ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid) AS groups
  FROM pg_authid r WHERE r.rolname = %s
"""


def attributes(there, wanted, password):
    """Returns what is to be said of the role's attributes, nothing when all is so."""
    flags = {"rolsuper": False, "rolcreaterole": False, "rolcreatedb": False, "rolcanlogin": True, "rolreplication": wanted["replication"]}
    words = {"rolsuper": "SUPERUSER", "rolcreaterole": "CREATEROLE", "rolcreatedb": "CREATEDB", "rolcanlogin": "LOGIN", "rolreplication": "REPLICATION"}
    said = [sql.SQL(words[flag] if value else f"NO{words[flag]}") for flag, value in flags.items() if there.get(flag) != value]
    if there.get("rolconnlimit") != wanted["connections"]:
        said.append(sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(wanted["connections"])))
    if not verifies(there.get("rolpassword"), password):
        said.append(sql.SQL("PASSWORD {}").format(sql.Literal(verifier(password))))
    return said


def statements(there, wanted, password):
    """Returns what makes the role as it is to be."""
    role = sql.Identifier(wanted["name"])
    said = attributes(there, wanted, password)
    if said:
        yield sql.SQL(" ").join([sql.SQL("ALTER ROLE" if there else "CREATE ROLE"), role, *said])
    groups = there.get("groups", [])
    for group in wanted["member_of"]:
        if group not in groups:
            yield sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), role)
    for group in wanted["not_member_of"]:
        if group in groups:
            yield sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(group), role)
    for name, value in wanted["settings"].items():
        if f"{name}={value}" not in there.get("settings", []):
            yield sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.Identifier(name), sql.Literal(str(value)))


def run(module):
    wanted = module.params
    password = read_secret(f"{wanted['root']}/secrets/{wanted['secret']}")
    client = connect(wanted["root"], wanted["node"])
    try:
        there = (ask(client, ROLE, [wanted["name"]]) + [{}])[0]
        todo = list(statements(there, wanted, password))
        if not module.check_mode:
            for statement in todo:
                ask(client, statement)
        return {"changed": bool(todo)}
    finally:
        client.close()


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "node": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            # The name of a secret is none.
            "secret": {"type": "str", "required": True, "no_log": False},
            "replication": {"type": "bool", "default": False},
            "connections": {"type": "int", "default": -1},
            "member_of": {"type": "list", "elements": "str", "default": []},
            "not_member_of": {"type": "list", "elements": "str", "default": []},
            "settings": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except Failure as failure:
        module.fail_json(msg=str(failure))


if __name__ == "__main__":
    main()
