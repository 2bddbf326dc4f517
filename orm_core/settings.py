"""Settings: from arguments, else the environment, else ``.env`` in the working directory.

``load()`` answers the whole set as one frozen value. ``VARIABLES`` is the table that the docs
and ``orm-core doctor`` print: each setting, its variable, its default and what it does.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Final, Literal

from orm_core.choices import DRIVERS, RESETS, SSL_MODES
from orm_core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Settings:
    """What orm_core needs to know of its surroundings.

    Times are in seconds; 0 is no limit, where a limit may be absent. ``ssl_mode`` None means: verify the certificate and the host's name,
    unless the host is this machine.
    """

    url: str | None = field(default=None, repr=False)
    ssl_mode: str | None = None
    ssl_root_cert: str | None = None
    pool_size: int = 10
    pool_timeout: float = 10.0
    pool_max_lifetime: float = 1800.0
    pool_reset: Literal["rollback", "discard"] = "rollback"
    pool_debug: bool = False
    connect_timeout: int = 5
    statement_timeout: float = 30.0
    lock_timeout: float = 0.0
    idle_in_transaction_timeout: float = 60.0
    prepare: bool = False
    driver: str = DRIVERS[0]
    token_keys: str | None = field(default=None, repr=False)
    token_keys_file: Path | None = None
    index_keys: str | None = field(default=None, repr=False)
    index_keys_file: Path | None = None
    allow_legacy: bool = True
    domains: str | None = None
    migrations_dir: Path = Path("migrations")
    embedded_dir: Path = Path(".orm_core")

    def __post_init__(self) -> None:
        if self.ssl_mode is not None and self.ssl_mode not in SSL_MODES:
            raise ConfigurationError(
                f"ORM_CORE_SSL_MODE / ssl is not a mode of libpq: use one of {', '.join(SSL_MODES)}."
            )
        if not _is_number(self.pool_size, int) or self.pool_size < 1:
            raise ConfigurationError("ORM_CORE_POOL_SIZE / pool_size must be 1 or more.")
        for name in ("prepare", "pool_debug", "allow_legacy"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"ORM_CORE_{name.upper()} / {name} must be True or False.")
        if self.pool_reset not in RESETS:
            raise ConfigurationError(
                f"ORM_CORE_POOL_RESET / pool_reset must be one of {', '.join(RESETS)}."
            )
        if self.driver not in DRIVERS:
            raise ConfigurationError(
                f"ORM_CORE_DRIVER / driver must be one of {', '.join(DRIVERS)}."
            )
        if not _is_number(self.connect_timeout, int) or self.connect_timeout < 1:
            raise ConfigurationError(
                "ORM_CORE_CONNECT_TIMEOUT / connect_timeout must be whole seconds, 1 or more."
            )
        if not _is_seconds(self.pool_timeout) or self.pool_timeout == 0:
            raise ConfigurationError(
                "ORM_CORE_POOL_TIMEOUT / pool_timeout must be more than 0 seconds."
            )
        for name in _MAY_BE_ABSENT:
            if not _is_seconds(getattr(self, name)):
                raise ConfigurationError(
                    f"ORM_CORE_{name.upper()} / {name} must be seconds, or 0 for no limit."
                )


#: limits that 0 switches off
_MAY_BE_ABSENT: Final = (
    "pool_max_lifetime",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_timeout",
)
#: the longest limit: PostgreSQL counts in milliseconds of 31 bits, about 24 days
_LONGEST: Final = (2**31 - 1) / 1000


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST


def _is_number(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


#: setting, its environment variable, what it does
VARIABLES: Final[tuple[tuple[str, str, str], ...]] = (
    ("url", "DATABASE_URL", "where the database is: postgresql://user:password@host:5432/name"),
    ("ssl_mode", "ORM_CORE_SSL_MODE", "libpq's sslmode; unset: verify-full unless on loopback"),
    ("ssl_root_cert", "ORM_CORE_SSL_ROOT_CERT", "file of trusted roots; unset: the system's"),
    ("pool_size", "ORM_CORE_POOL_SIZE", "most connections that one process opens"),
    ("pool_timeout", "ORM_CORE_POOL_TIMEOUT", "seconds to wait for a free connection"),
    ("pool_max_lifetime", "ORM_CORE_POOL_MAX_LIFETIME", "seconds a connection lives; 0: for ever"),
    ("pool_reset", "ORM_CORE_POOL_RESET", "discard: each user of a connection gets a new session"),
    ("pool_debug", "ORM_CORE_POOL_DEBUG", "1: remember which line took a connection"),
    ("connect_timeout", "ORM_CORE_CONNECT_TIMEOUT", "seconds to wait for the server's answer"),
    ("statement_timeout", "ORM_CORE_STATEMENT_TIMEOUT", "seconds a statement may take; 0: any"),
    ("lock_timeout", "ORM_CORE_LOCK_TIMEOUT", "seconds to wait for a lock; 0: any"),
    (
        "idle_in_transaction_timeout",
        "ORM_CORE_IDLE_IN_TRANSACTION_TIMEOUT",
        "seconds a transaction may be open without a statement; 0: any",
    ),
    ("prepare", "ORM_CORE_PREPARE", "1: the server keeps the plans of compiled statements"),
    ("driver", "ORM_CORE_DRIVER", "psycopg2, or psycopg3 (pip install 'orm_core[psycopg3]')"),
    ("token_keys", "ORM_CORE_TOKEN_KEYS", "key ring of encrypted columns: id:hex,id:hex"),
    ("token_keys_file", "ORM_CORE_TOKEN_KEYS_FILE", "file of the key ring instead; mode 600, ours"),
    ("index_keys", "ORM_CORE_INDEX_KEYS", "keys of blind indexes: id:hex,id:hex"),
    ("index_keys_file", "ORM_CORE_INDEX_KEYS_FILE", "file of these keys instead; mode 600, ours"),
    ("allow_legacy", "ORM_CORE_ALLOW_LEGACY", "0: values of the Node system are not opened"),
    ("domains", "ORM_CORE_DOMAINS", "names of the domains to discover: users,orders; unset: all"),
    ("migrations_dir", "ORM_CORE_MIGRATIONS_DIR", "folder of the migration files"),
    ("embedded_dir", "ORM_CORE_EMBEDDED_DIR", "folder of the embedded PostgreSQL"),
)


def environment() -> dict[str, str]:
    """The process environment over ``.env`` in the working directory (which is not exported)."""
    from dotenv import dotenv_values

    path = Path(".env")
    try:
        dotenv = dotenv_values(path) if path.is_file() else {}
    except (OSError, UnicodeError):
        dotenv = None
    if dotenv is None:  # not raised in the except block: a UnicodeError carries the whole text
        raise ConfigurationError("The file .env can't be read; is it a text in UTF-8?")
    return {name: value for name, value in dotenv.items() if value is not None} | dict(os.environ)


def load(
    overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read all settings from ``environ`` (default: ``environment()``), under ``overrides``.

    An override of None and an empty variable count as not given. Raises ``ConfigurationError``
    that names the variable, never its value, when one can't be read.
    """
    environ = environment() if environ is None else environ
    types = {spec.name: spec.type for spec in fields(Settings)}
    given: dict[str, object] = {}
    for name, variable, _ in VARIABLES:
        text = environ.get(variable, "").strip()
        if text:
            given[name] = _convert(str(types[name]), variable, text)
    given |= {name: value for name, value in (overrides or {}).items() if value is not None}
    return Settings(**given)  # type: ignore[arg-type]


def _convert(kind: str, variable: str, text: str) -> object:
    if kind == "bool":
        known = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
        if text.lower() not in known:
            raise ConfigurationError(f"{variable} must be 1 or 0.")
        return known[text.lower()]
    try:
        if kind == "int":
            return int(text)
        if kind.startswith("float"):
            return float(text)
    except ValueError:
        unit = "a whole number" if kind == "int" else "a number of seconds"
        raise ConfigurationError(f"{variable} must be {unit}.") from None
    return Path(text) if kind.startswith("Path") else text
