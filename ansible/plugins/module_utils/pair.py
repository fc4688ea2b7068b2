"""What the modules about a pair share: the only way to a node's server, and passwords as PostgreSQL keeps them."""

import base64
import hashlib
import hmac
import os
import secrets
import stringprep
import unicodedata

try:
    import psycopg2
    import psycopg2.extras
except ImportError:
    psycopg2 = None

# Seconds that a server may take to let somebody in, and milliseconds for one statement.
CONNECT = 10
STATEMENT = 300_000

# PostgreSQL's own.
ITERATIONS = 4096
MECHANISM = "SCRAM-SHA-256"


class Failure(Exception):
    """One sentence that says why not."""


def forget_the_callers_environment():
    """Nothing that the caller exported leads a connection elsewhere, or gives a password to whoever asks for one."""
    for name in list(os.environ):
        if name.startswith("PG") and not name.startswith("PGPAIR_"):
            del os.environ[name]
    # A path that cannot exist: ~/.pgpass would be read else.
    os.environ.update(PGPASSFILE="/dev/null/none", PGREQUIREAUTH="none", PGSYSCONFDIR="/dev/null")


def connect(root, node, database="postgres"):
    """Connects to a node's socket as the superuser, as root may. Statements are not logged: they may hold a verifier."""
    if psycopg2 is None:
        raise Failure("Python's psycopg2 is missing here (the role docker_host installs it).")
    forget_the_callers_environment()
    options = {"log_statement": "none", "log_min_error_statement": "panic", "log_min_duration_statement": -1}
    # A commit must not wait for a standby that may not be there.
    options.update(synchronous_commit="local", statement_timeout=STATEMENT)
    try:
        client = psycopg2.connect(
            host=f"{root}/{node}/run",
            port=5432,
            user="postgres",
            dbname=database,
            connect_timeout=CONNECT,
            sslmode="disable",
            gssencmode="disable",
            application_name="pgpair-ansible",
            options=" ".join(f"-c {name}={value}" for name, value in options.items()),
            cursor_factory=psycopg2.extras.RealDictCursor,
        )
    except psycopg2.Error as error:
        raise Failure(f"PostgreSQL of node {node} cannot be asked: {one_line(error)}") from None
    client.autocommit = True
    return client


def one_line(error):
    """Returns what a server or a library says as one line of sane length."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(text.split())[:500]


def ask(client, statement, arguments=None):
    """Runs one statement; returns its rows."""
    try:
        with client.cursor() as cursor:
            cursor.execute(statement, arguments)
            return [dict(row) for row in cursor.fetchmany(1000)] if cursor.description else []
    except psycopg2.Error as error:
        raise Failure(f"PostgreSQL says: {one_line(error)}") from None


def read_secret(path):
    """Returns the password that a file holds."""
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.read(4096).strip()
    except OSError as error:
        raise Failure(f"{path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise Failure(f"{path} does not hold text.") from None
    if not secret or "\n" in secret or "\0" in secret:
        raise Failure(f"{path} does not hold one line with a password.")
    return secret


def prepared(password):
    """Returns a password as PostgreSQL prepares it (SASLprep); one that does not lend itself to that stays as it is."""
    if password.isascii():
        return password
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    normal = unicodedata.normalize("NFKC", mapped)
    prohibited = (
        stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4, stringprep.in_table_c5,
        stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8, stringprep.in_table_c9, stringprep.in_table_a1,
    )
    if not normal or any(is_in(c) for c in normal for is_in in prohibited):
        return password
    if any(map(stringprep.in_table_d1, normal)):
        ends_right = stringprep.in_table_d1(normal[0]) and stringprep.in_table_d1(normal[-1])
        if any(map(stringprep.in_table_d2, normal)) or not ends_right:
            return password
    return normal


def verifier(password, salt=None, iterations=ITERATIONS):
    """Returns what PostgreSQL keeps of a password, by which nobody can log in."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password).encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt, stored, server = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"{MECHANISM}${iterations}:{salt}${stored}:{server}"


def verifies(kept, password):
    """Says whether what PostgreSQL keeps is of this password."""
    try:
        mechanism, parameters, _ = kept.split("$")
        iterations, salt = parameters.split(":")
        return mechanism == MECHANISM and hmac.compare_digest(kept, verifier(password, base64.b64decode(salt), int(iterations)))
    except (AttributeError, ValueError):
        return False
