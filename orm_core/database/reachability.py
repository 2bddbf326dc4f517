"""Why a connection could not be made.

libpq tells its reasons in prose, in the server's language, so the cause is found by asking
again, step by step: does the name resolve, does something listen, does it speak TLS that can be
verified, with which SQLSTATE does the server refuse. No password is sent as it is.
"""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path
from typing import Any, Final

from orm_core import errors
from orm_core.database.handshake import state_of_session

#: "Message Formats" in the PostgreSQL manual: the code of an SSLRequest
_SSL_REQUEST: Final = 80877103
#: the longest wait for one step, in seconds: the caller waited for libpq already
_PATIENCE: Final = 2.0


class _NoTls(Exception):
    """There is no TLS to be had, or none that can be verified."""


def explain(params: dict[str, Any], elapsed: float) -> errors.ConnectionFailed:
    """The error to raise after the driver's ``connect(params)`` failed in ``elapsed`` seconds."""
    host, port = str(params["host"]), int(params["port"])
    where = f"{host}:{port}" if not host.startswith("/") else f"socket {host}"
    timeout = float(params.get("connect_timeout") or 0)
    if timeout and elapsed >= timeout:
        return _timed_out(where, timeout)
    try:
        state = _ask(host, port, params)
    except _NoTls:
        return errors.TlsFailed(
            f"No verified TLS connection to {where}: the server offers no TLS, or its certificate "
            "is not signed by a trusted root, or is for another name. Give the root certificate "
            "(ORM_CORE_SSL_ROOT_CERT), or choose another mode (ORM_CORE_SSL_MODE)."
        )
    except socket.gaierror:
        return errors.HostUnknown(
            f"The host name {host!r} does not resolve. Check its spelling in DATABASE_URL, and "
            "this machine's DNS."
        )
    except TimeoutError:
        return _timed_out(where, timeout or _PATIENCE)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return errors.ServerUnavailable(
            f"{where} hung up without a word: the server is ending, or what stands in front of it "
            "(a proxy, docker) has no server yet. Try again later."
        )
    except OSError:
        return errors.ConnectionRefused(
            f"Connection refused: nothing accepts connections at {where}. Is PostgreSQL running "
            "(docker compose ps, or orm-core db start for the embedded one), are host and port "
            "of DATABASE_URL right, and does a firewall let the port through?"
        )
    return _refused_by_server(state or "", params, where)


def _timed_out(where: str, seconds: float) -> errors.ConnectTimeout:
    return errors.ConnectTimeout(
        f"No answer from {where} within {seconds:g} s. Is the address right, and does a firewall "
        "drop the packets? ORM_CORE_CONNECT_TIMEOUT sets the limit."
    )


def _refused_by_server(state: str, params: dict[str, Any], where: str) -> errors.ConnectionFailed:
    user, database = params.get("user") or "(the login name)", params["dbname"]
    if state[:2] in ("53", "55", "57", "00"):
        reason = f" (SQLSTATE {state})" if state != "00000" else ""
        return errors.ServerUnavailable(
            f"The server at {where} takes no connection now{reason}: it is starting, stopping, or "
            "all connections that it (max_connections), the database or the user may have are in "
            "use. Try again later, or look for who holds them (pg_stat_activity)."
        )
    if state == "3D000":
        return errors.DatabaseMissing(
            f"The server at {where} has no database {database!r}. Create it (createdb "
            f"{database}), or correct the name at the end of DATABASE_URL."
        )
    if state == "42501":
        return errors.AuthenticationFailed(
            f"The server at {where} knows user {user!r}, who may not enter the database "
            f"{database!r}: GRANT CONNECT ON DATABASE to the user."
        )
    return errors.AuthenticationFailed(
        f"The server at {where} refuses user {user!r}: wrong password, no such user, or "
        "pg_hba.conf lets this user not in from here. Check user and password in DATABASE_URL; "
        "special characters of the password are written as %XX."
    )


def _ask(host: str, port: int, params: dict[str, Any]) -> str | None:
    """The SQLSTATE with which the server refuses. Raises ``_NoTls``, ``EOFError`` or ``OSError``."""
    mode = str(params.get("sslmode", "prefer"))
    with _link(host, port) as plain:
        plain.settimeout(_PATIENCE)
        if mode in ("disable", "allow") or host.startswith("/"):
            return _state(plain, params)
        plain.sendall(struct.pack("!ii", 8, _SSL_REQUEST))
        if plain.recv(1) == b"S":
            with _wrap(plain, host, mode, params.get("sslrootcert")) as link:
                return _state(link, params)
        if mode != "prefer":
            raise _NoTls
        return _state(plain, params)


def _link(host: str, port: int) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port), timeout=_PATIENCE)
    link = socket.socket(socket.AF_UNIX)
    try:
        link.settimeout(_PATIENCE)
        link.connect(str(Path(host) / f".s.PGSQL.{port}"))
    except BaseException:
        link.close()
        raise
    return link


def _wrap(link: socket.socket, host: str, mode: str, root: object) -> ssl.SSLSocket:
    """As libpq: ``require`` verifies too, once a root certificate is given."""
    verified = mode.startswith("verify") or (mode == "require" and root is not None)
    try:
        context = ssl.create_default_context(
            cafile=str(root) if verified and root != "system" else None
        )
        context.check_hostname = mode == "verify-full"
        if not verified:
            context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(link, server_hostname=host)
    except TimeoutError:
        raise
    except (OSError, ValueError):
        raise _NoTls from None


def _state(link: Any, params: dict[str, Any]) -> str | None:
    user, password = str(params.get("user") or "postgres"), params.get("password")
    return state_of_session(link, user, str(params["dbname"]), password)
