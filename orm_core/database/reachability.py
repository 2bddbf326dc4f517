"""Why a connection could not be made.

libpq tells its reasons in prose, in the server's language, so the cause is found by asking
again, step by step: does the name resolve, does something listen, what does the server say to a
start-up message (an SQLSTATE), does the maintenance database let us in. Nothing secret is sent.
"""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path
from typing import Any, Final

import psycopg2

from orm_core import errors

#: "Message Formats" in the PostgreSQL manual: protocol 3.0 and the code of an SSLRequest
_PROTOCOL_3: Final = 196608
_SSL_REQUEST: Final = 80877103
#: the longest wait for one step, in seconds: the caller waited for libpq already
_PATIENCE: Final = 2.0


def explain(params: dict[str, Any], elapsed: float) -> errors.ConnectionFailed:
    """The error to raise after ``psycopg2.connect(**params)`` failed in ``elapsed`` seconds."""
    host, port = str(params["host"]), int(params["port"])
    where = f"{host}:{port}" if not host.startswith("/") else f"socket {host}"
    timeout = float(params.get("connect_timeout") or 0)
    if timeout and elapsed >= timeout:
        return _timed_out(where, timeout)
    try:
        answer = _ask(host, port, params)
    except socket.gaierror:
        return errors.HostUnknown(
            f"The host name {host!r} does not resolve. Check its spelling in DATABASE_URL, and "
            "this machine's DNS."
        )
    except TimeoutError:
        return _timed_out(where, timeout or _PATIENCE)
    except (ConnectionRefusedError, FileNotFoundError, OSError):
        return errors.ConnectionRefused(
            f"Connection refused: nothing accepts connections at {where}. Is PostgreSQL running "
            "(docker compose ps, or orm-core db start for the embedded one), are host and port "
            "of DATABASE_URL right, and does a firewall let the port through?"
        )
    return _refused_by_server(answer, params, where)


def _timed_out(where: str, seconds: float) -> errors.ConnectTimeout:
    return errors.ConnectTimeout(
        f"No answer from {where} within {seconds:g} s. Is the address right, and does a firewall "
        "drop the packets? ORM_CORE_CONNECT_TIMEOUT sets the limit."
    )


def _refused_by_server(
    state: str | None, params: dict[str, Any], where: str
) -> errors.ConnectionFailed:
    user, database = params.get("user") or "(the login name)", params["dbname"]
    if state == "tls":
        return errors.TlsFailed(
            f"No verified TLS connection to {where}: the server offers no TLS, or its certificate "
            "is not signed by a trusted root, or is for another name. Give the root certificate "
            "(ORM_CORE_SSL_ROOT_CERT), or choose another mode (ORM_CORE_SSL_MODE)."
        )
    if state and state[:2] in ("53", "57"):
        return errors.ServerUnavailable(
            f"The server at {where} takes no connection now (SQLSTATE {state}): it is starting, "
            "stopping, or all its connections are in use (max_connections)."
        )
    if state == "3D000" or (state != "28000" and _lets_in_elsewhere(params)):
        return errors.DatabaseMissing(
            f"The server at {where} has no database {database!r}. Create it (createdb "
            f"{database}), or correct the name at the end of DATABASE_URL."
        )
    return errors.AuthenticationFailed(
        f"The server at {where} refuses user {user!r}: wrong password, no such user, or "
        "pg_hba.conf lets this user not in from here. Check user and password in DATABASE_URL; "
        "special characters of the password are written as %XX."
    )


def _lets_in_elsewhere(params: dict[str, Any]) -> bool:
    """Whether the same user gets into the maintenance database, so that ours is what lacks."""
    try:
        connection = psycopg2.connect(**{**params, "dbname": "postgres"})
    except psycopg2.Error:
        return False
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (params["dbname"],))
            return cursor.fetchone() is None
    finally:
        connection.close()


def _ask(host: str, port: int, params: dict[str, Any]) -> str | None:
    """Send a start-up message: the SQLSTATE of the refusal, "tls", or None for anything else."""
    mode = str(params.get("sslmode", "prefer"))
    if host.startswith("/"):
        link = socket.socket(socket.AF_UNIX)
    else:
        link = socket.create_connection((host, port), timeout=_PATIENCE)
    with link:
        if host.startswith("/"):
            link.settimeout(_PATIENCE)
            link.connect(str(Path(host) / f".s.PGSQL.{port}"))
        if mode not in ("disable", "allow") and not host.startswith("/"):
            link.sendall(struct.pack("!ii", 8, _SSL_REQUEST))
            if link.recv(1) == b"S":
                link = _wrap(link, host, mode, params.get("sslrootcert"))
                if link is None:
                    return "tls"
            elif mode != "prefer":
                return "tls"
        return _start_up(link, params)


def _wrap(link: socket.socket, host: str, mode: str, root: object) -> Any:
    context = ssl.create_default_context()
    if root and root != "system":
        context.load_verify_locations(str(root))
    context.check_hostname = mode == "verify-full"
    if not mode.startswith("verify"):
        context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(link, server_hostname=host)
    except (ssl.SSLError, OSError):
        return None


def _start_up(link: Any, params: dict[str, Any]) -> str | None:
    pairs = {"user": params.get("user") or "postgres", "database": params["dbname"]}
    body = b"".join(
        key.encode() + b"\0" + str(value).encode() + b"\0" for key, value in pairs.items()
    )
    link.sendall(struct.pack("!ii", 9 + len(body), _PROTOCOL_3) + body + b"\0")
    answer = link.recv(4096)
    if answer[:1] != b"E":
        return None
    codes = (part[1:] for part in answer[5:].split(b"\0") if part[:1] == b"C")
    return next(codes, b"").decode("ascii", "replace") or None
