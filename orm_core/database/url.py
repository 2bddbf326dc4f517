"""A database URL and what libpq is told: host, user, TLS.

RFC 3986 parts, as libpq reads them ("Connection URIs" in the PostgreSQL manual). Hosts that are
not this machine get ``sslmode=verify-full`` unless something else is asked for.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import ipaddress
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg2
from psycopg2 import extensions

from orm_core.choices import SSL_MODES
from orm_core.errors import ConfigurationError

DEFAULT_PORT = 5432
#: has the system notice a server that is gone within about 30 seconds, between statements too;
#: "tcp_user_timeout" (milliseconds) is how long data that was sent may stay unacknowledged
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}


class DatabaseUrl(NamedTuple):
    """The parts of a URL; ``str()`` leaves the password out."""

    host: str
    port: int
    user: str | None
    password: str | None
    database: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        if self.is_socket:
            return f"postgresql://{user}/{self.database}?host={self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{user}{host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"<DatabaseUrl {self}>"

    @property
    def is_socket(self) -> bool:
        """Whether the host is a folder of a Unix socket."""
        return self.host.startswith("/")

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine: a Unix socket or a loopback address."""
        if self.is_socket or self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def replace_database(self, database: str) -> DatabaseUrl:
        """The same server, another database."""
        return DatabaseUrl(self.host, self.port, self.user, self.password, database, self.options)

    def connect_params(
        self,
        *,
        ssl: bool | str | None = None,
        ssl_root_cert: str | None = None,
        connect_timeout: int = 5,
    ) -> dict[str, object]:
        """Arguments for the driver's ``connect()``.

        ``ssl``: True or None verify (None only where the host is not this machine), False
        switches TLS off, a string is a mode of libpq. An ``sslmode`` in the URL wins over None.
        """
        params: dict[str, object] = {"connect_timeout": connect_timeout, **_KEEPALIVE}
        params |= dict(self.options)
        params |= {"host": self.host, "port": self.port, "dbname": self.database}
        if self.user:
            params["user"] = self.user
        if self.password is not None:
            params["password"] = self.password
        mode = _ssl_mode(ssl, str(params.get("sslmode") or "") or None, local=self.is_local)
        params["sslmode"] = mode
        root = ssl_root_cert or params.get("sslrootcert")
        if root is None and mode == "verify-full":
            root = "system"  # libpq 16+: the operating system's trusted roots
        if root is not None:
            params["sslrootcert"] = root
        return params


def _ssl_mode(ssl: bool | str | None, in_url: str | None, *, local: bool) -> str:
    if isinstance(ssl, bool):
        return "verify-full" if ssl else "disable"
    mode = ssl or in_url or ("prefer" if local else "verify-full")
    if mode not in SSL_MODES:
        raise ConfigurationError(f"ssl / sslmode must be True, False or one of {SSL_MODES}.")
    return mode


def parse(url: str) -> DatabaseUrl:
    """Read a ``postgresql://`` or ``postgres://`` URL.

    Raises ``ConfigurationError``, which never repeats the URL, for another scheme, a missing
    database name or a port that is no number.
    """
    shape = "postgresql://user:password@host:5432/database"
    if not isinstance(url, str):
        raise ConfigurationError(f"The database URL must be a text like {shape}.")
    unreadable = ConfigurationError(
        f"The database URL can't be read: the form is {shape}; write special characters of "
        "the password as %XX (RFC 3986)."
    )
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        parts, port = None, None
    # Raised here: the ValueError quotes the URL, and would hang on the error as its context.
    if parts is None:
        raise unreadable
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"The database URL must start with postgresql:// or postgres://, as in {shape}."
        )
    if "@" in parts.path or parts.fragment:
        raise unreadable  # a raw / or # in the password
    options = dict(parse_qsl(parts.query.replace("+", "%2B")))  # as libpq: + is no space
    database = unquote(parts.path.lstrip("/")) or options.pop("dbname", "")
    if not database:
        raise ConfigurationError(f"The database URL names no database: the form is {shape}.")
    host = options.pop("host", "") or unquote(parts.hostname or "") or "localhost"
    user = unquote(parts.username) if parts.username else options.pop("user", None)
    password = unquote(parts.password) if parts.password is not None else None
    password = options.pop("password", None) if password is None else password
    number = options.pop("port", "") or str(port if port is not None else DEFAULT_PORT)
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise ConfigurationError("The port of the database URL is not a number from 1 to 65535.")
    _check_options(options)
    return DatabaseUrl(host, int(number), user, password, database, tuple(options.items()))


def _check_options(options: dict[str, str]) -> None:
    for name in options:
        try:
            extensions.make_dsn(**{name: ""})
        except psycopg2.ProgrammingError:
            raise ConfigurationError(
                f"The database URL has an option that libpq does not know: {name[:40]!r}."
            ) from None
    timeout = options.get("connect_timeout", "1")
    if not (timeout.isascii() and timeout.isdigit()):
        raise ConfigurationError("connect_timeout in the database URL is not whole seconds.")
