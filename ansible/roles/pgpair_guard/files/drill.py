#!/usr/bin/env python3
"""drill.py look|kill ROOT PREFIX PGPAIR WAIT ACCEPT_LOSS: an exercise in losing the primary of a pair.

`look` says who is who. `kill` kills the primary's container while rows are committed one by one, sees it replaced (by the guard, or else by
pgpair failover), and counts and measures what came of it. A primary that is not replaced is started again. Both print one JSON object.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import psycopg2

DOES, ROOT, PREFIX, PGPAIR = sys.argv[1:5]
WAIT = float(sys.argv[5])
ACCEPT_LOSS = sys.argv[6] == "yes"

SCHEMA = "pgpair_drill"
MARK = "made by drill.yml, which drops it again"

# Of a guard that says nothing.
UNKNOWN = {"state": "unknown", "mode": "async", "synchronous": False, "failovers": 0, "detail": None}

# Between two commits, and between two looks.
PAUSE = 0.01

# A guard that is blocked for longer than this has tried again meanwhile.
STAYS = 15

# Commits before the kill, and after the pair is whole again.
ROWS = 100


# Nothing that the caller exported leads a connection elsewhere, or gives a password to whoever asks for one.
for name in [name for name in os.environ if name.startswith("PG") and not name.startswith("PGPAIR_")]:
    del os.environ[name]
os.environ.update(PGPASSFILE="/dev/null/none", PGREQUIREAUTH="none", PGSYSCONFDIR="/dev/null")


def other(node):
    return "b" if node == "a" else "a"


def connect(node):
    """Connects to a node's socket as the superuser, as root may."""
    client = psycopg2.connect(
        host=f"{ROOT}/{node}/run", port=5432, user="postgres", dbname="postgres", connect_timeout=5, application_name="pgpair-drill"
    )
    client.autocommit = True
    return client


def ask(node, sql):
    """Returns the rows of a query; nothing if the node does not answer."""
    try:
        client = connect(node)
        try:
            with client.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()
        finally:
            client.close()
    except psycopg2.Error:
        return None


def run(node, *statements):
    client = connect(node)
    try:
        with client.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        client.close()


def is_primary(node):
    return ask(node, "SELECT pg_is_in_recovery()") == [(False,)]


def standby_of(primary):
    """Says how the standby streams from a primary: sync, async and the like; nothing if it does not."""
    of_it = f"state = 'streaming' AND right(application_name, 2) = '_{other(primary)}'"
    rows = ask(primary, f"SELECT sync_state FROM pg_stat_replication WHERE {of_it}")
    return rows[0][0] if rows else None


def docker(verb, node):
    done = subprocess.run(["docker", verb, f"{PREFIX}-{node}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"docker {verb}: {done.stderr.strip()}")


def guard():
    """Returns what the guard says of itself; nothing if none is at work."""
    try:
        with open(f"{ROOT}/guard.lock", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        pass
    try:
        with open(f"{ROOT}/probe/guard", encoding="utf-8") as report:
            said = UNKNOWN | json.load(report)
    except (OSError, ValueError):
        said = UNKNOWN
    return said | {"detail": said["detail"] or ""}


class Writer(threading.Thread):
    """Commits one row after the other to whichever node takes it, as an application with both hosts in its connection string does."""

    def __init__(self):
        super().__init__(daemon=True)
        self.acknowledged = []
        self.stopped = False

    def run(self):
        number = 0
        node = "a"
        while not self.stopped:
            try:
                client = connect(node)
                with client.cursor() as cursor:
                    while not self.stopped:
                        number += 1
                        # What fails may be in all the same: only a yes counts.
                        cursor.execute(f"INSERT INTO {SCHEMA}.rows VALUES (%s)", (number,))
                        self.acknowledged.append((number, node, time.monotonic()))
                        time.sleep(PAUSE)
            except psycopg2.Error:
                node = other(node)
                time.sleep(PAUSE)

    def first_on(self, node):
        return next((at for _, where, at in self.acknowledged if where == node), None)


def until(within, what):
    """Waits for something; returns it, or nothing."""
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        found = what()
        if found:
            return found
        time.sleep(PAUSE)
    return None


def look():
    primaries = [node for node in "ab" if is_primary(node)]
    primary = primaries[0] if len(primaries) == 1 else ""
    return {"primary": primary, "standby": primary and other(primary), "state": primary and standby_of(primary), "guard": guard()}


def prepare(primary):
    """Makes the table for the writer."""
    found = ask(primary, f"SELECT obj_description(oid) FROM pg_namespace WHERE nspname = '{SCHEMA}'")
    if found and found[0][0] != MARK:
        raise SystemExit(f"the database postgres has a schema {SCHEMA} that is not the drill's: rename or drop it")
    run(
        primary,
        f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE",
        f"CREATE SCHEMA {SCHEMA}",
        f"COMMENT ON SCHEMA {SCHEMA} IS '{MARK}'",
        f"CREATE TABLE {SCHEMA}.rows (id bigint PRIMARY KEY)",
    )


def fenced(node):
    """Says whether somebody has begun to replace a node."""
    return os.path.exists(f"{ROOT}/journal") or os.path.exists(f"{ROOT}/{node}/data/pgdata/standby.signal")


class Guarded:
    """Tells whether the guard refuses to replace the primary."""

    def __init__(self):
        self.since = None

    def refusal(self):
        said = guard() or {}
        if said.get("state") != "blocked":
            self.since = None
            return ""
        self.since = self.since or time.monotonic()
        # What is lacking stays so; all else may be of the moment.
        stays = " lacks " in said["detail"] or time.monotonic() - self.since > STAYS
        return said["detail"] if stays else ""


class Replacing(threading.Thread):
    """Has the primary replaced where no guard does it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.refused = ""

    def run(self):
        command = [PGPAIR, "failover", f"--prefix={PREFIX}", f"--root={ROOT}"] + (["--accept-loss"] if ACCEPT_LOSS else [])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # 4: the primary moved, and the other node is not back yet.
        done_it = done.returncode in (0, 4)
        self.refused = "" if done_it else done.stderr.strip() or "pgpair failover failed"

    def refusal(self):
        return self.refused


def kill():
    # Whoever started this may go: it is brought to its end.
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    before = look()
    old = before["primary"]
    if not old:
        raise SystemExit("there is not exactly one primary")
    new = other(old)
    guarded = before["guard"] is not None
    prepare(old)
    writer = Writer()
    writer.start()
    if not until(WAIT, lambda: len(writer.acknowledged) >= ROWS):
        raise SystemExit("the primary takes no commits")

    killed = time.monotonic()
    docker("kill", old)
    replacer = Guarded() if guarded else Replacing()
    if not guarded:
        replacer.start()
    detected = until(WAIT, lambda: (fenced(old) or replacer.refusal()) and time.monotonic())
    until(WAIT, lambda: writer.first_on(new) or replacer.refusal())
    why = "" if writer.first_on(new) else replacer.refusal() or f"nobody did within {WAIT:g} s"
    if why and guarded and ACCEPT_LOSS:
        # A guard never gives anything up.
        replacer = Replacing()
        until(STAYS * 2, lambda: replacer.run() or not replacer.refused)
        why = replacer.refused
    if why:
        docker("start", old)
    whole = until(WAIT, lambda: any(is_primary(node) and standby_of(node) for node in "ab") and time.monotonic())

    rows = len(writer.acknowledged)
    until(WAIT, lambda: len(writer.acknowledged) >= rows + ROWS)
    writer.stopped = True
    writer.join(WAIT)
    now = look()
    found = ask(now["primary"], f"SELECT id FROM {SCHEMA}.rows") if now["primary"] else None
    if found is None:
        raise SystemExit(f"there is no primary {time.monotonic() - killed:.0f} s after the kill ({why}): see pgpair status")
    lost = {number for number, _, _ in writer.acknowledged} - {number for (number,) in found}
    run(now["primary"], f"DROP SCHEMA {SCHEMA} CASCADE")

    def seconds(at):
        return at and round(at - killed, 2)

    return {
        "old": old,
        "primary": now["primary"],
        "standby": now["standby"],
        "synchronous": before["state"] in ("sync", "quorum"),
        "guarded": guarded,
        "replaced": now["primary"] == new,
        "why": why,
        "acknowledged": len(writer.acknowledged),
        "lost": len(lost),
        "detected": seconds(detected),
        "moved": seconds(writer.first_on(new)),
        "whole": seconds(whole),
    }


try:
    print(json.dumps(look() if DOES == "look" else kill()))
except psycopg2.Error as error:
    raise SystemExit(f"PostgreSQL: {error}") from error
