"""The database of the process: set once by ``initialize_db``, then used from every thread.

::

    initialize_db()              # DATABASE_URL
    connect_db()                 # fails early, and says why
    with db.connection_context():   # one connection for a whole request
        ...
    close_db()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from orm_core import settings
from orm_core.database.database import Database
from orm_core.database.transactions import Isolation, Transaction
from orm_core.database.url import DatabaseUrl, parse
from orm_core.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

#: the database of this process
db: Database = Database(None)


def initialize_db(
    url: str | None = None,
    *,
    ssl: bool | str | None = None,
    ssl_root_cert: str | None = None,
    pool_size: int | None = None,
    pool_timeout: float | None = None,
    connect_timeout: int | None = None,
    statement_timeout: float | None = None,
    prepare: bool | None = None,
    driver: str | None = None,
) -> Database:
    """Point ``db`` at a database. Opens no connection; see ``connect_db``.

    What is not given comes from the environment or ``.env`` (``docs/settings.md``), the URL from
    ``DATABASE_URL``. ``ssl``: None verifies the server's certificate unless the host is this
    machine, True always, False never; or a mode of libpq. Times are in seconds. Raises
    ``ConfigurationError`` when there is no URL, a setting is malformed or the driver not installed.
    """
    given = {
        "url": url,
        "ssl_root_cert": ssl_root_cert,
        "pool_size": pool_size,
        "pool_timeout": pool_timeout,
        "connect_timeout": connect_timeout,
        "statement_timeout": statement_timeout,
        "prepare": prepare,
        "driver": driver,
    }
    config = settings.load(given)
    if not config.url:
        raise ConfigurationError(
            "No database URL: pass one to initialize_db(url), or set DATABASE_URL in the "
            "environment or in .env. Without a server of your own, `orm-core db url` starts the "
            "embedded PostgreSQL and prints its URL."
        )
    target: DatabaseUrl = parse(config.url)
    params = target.connect_params(
        ssl=config.ssl_mode if ssl is None else ssl,
        ssl_root_cert=config.ssl_root_cert,
        connect_timeout=config.connect_timeout,
    )
    if connect_timeout is not None:
        params["connect_timeout"] = connect_timeout  # before the URL's
    del params["dbname"]
    options = "-c timezone=UTC"
    if config.statement_timeout is not None:
        options += f" -c statement_timeout={max(1, round(config.statement_timeout * 1000))}"
    params["options"] = f"{params.get('options', '')} {options}".strip()
    db.init(
        target.database,
        pool_size=config.pool_size,
        pool_timeout=config.pool_timeout,
        prepare=config.prepare,
        driver=config.driver,
        **params,
    )
    return db


def connect_db() -> None:
    """Open a first connection, so that a service fails at its start and not at a request.

    Raises a ``ConnectionFailed`` that names the cause and the fix: ``ConnectionRefused``,
    ``HostUnknown``, ``ConnectTimeout``, ``AuthenticationFailed``, ``DatabaseMissing``,
    ``TlsFailed`` or ``ServerUnavailable``.
    """
    db.execute_sql("SELECT 1")


def close_db() -> None:
    """Close all connections: idle ones now, those that other threads use when they return."""
    if not db.deferred:
        db.close_all()


@overload
def transaction(isolation: F, /) -> F: ...
@overload
def transaction(
    isolation: Isolation | None = None, *, read_only: bool = False, database: Database | None = None
) -> Transaction: ...
def transaction(
    isolation: Isolation | F | None = None,
    *,
    read_only: bool = False,
    database: Database | None = None,
) -> Transaction | F:
    """A transaction: ``with transaction() as tx:``, or a decorator, with or without brackets.

    ``isolation`` is "read committed", "repeatable read" or "serializable" (default: the
    server's), ``read_only`` has the server refuse writes; both only for the outermost block.
    Everything is rolled back when an exception leaves the block. Raises ``TransactionAborted``
    when an error was swallowed inside, ``CommitUnknown`` when the connection breaks in COMMIT.
    """
    if callable(isolation):
        decorated: F = Transaction(database or db)(isolation)
        return decorated
    return Transaction(database or db, isolation, read_only=read_only)
