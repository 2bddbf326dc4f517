"""The database of the process: set once by ``initialize_db``, then used from every thread.

::

    initialize_db()              # DATABASE_URL
    connect_db()                 # fails early, and says why
    with db.connection_context():   # one connection for a whole request
        ...
    close_db()
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, overload

from orm_core.database import opening
from orm_core.database.database import Database
from orm_core.database.limits import Limits
from orm_core.database.pool import Reset
from orm_core.database.transactions import Isolation, Transaction
from orm_core.errors import ConfigurationError, InvalidValue

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
    pool_max_lifetime: float | None = None,
    pool_reset: Reset | None = None,
    pool_debug: bool | None = None,
    connect_timeout: int | None = None,
    statement_timeout: float | None = None,
    lock_timeout: float | None = None,
    idle_in_transaction_timeout: float | None = None,
    prepare: bool | None = None,
    driver: str | None = None,
) -> Database:
    """Point ``db`` at a database. Opens no connection; see ``connect_db``.

    What is not given comes from the environment or ``.env`` (``docs/settings.md``), the URL from
    ``DATABASE_URL``. ``ssl``: None verifies the server's certificate unless the host is this
    machine, True always, False never; or a mode of libpq. Times are in seconds; 0 is no limit. Raises
    ``ConfigurationError`` when there is no URL, a setting is malformed or the driver not installed.
    """
    from orm_core import settings  # what tells of the surroundings is for here alone
    from orm_core.database.url import parse

    given = {
        "url": url,
        "ssl_root_cert": ssl_root_cert,
        "pool_size": pool_size,
        "pool_timeout": pool_timeout,
        "pool_max_lifetime": pool_max_lifetime,
        "pool_reset": pool_reset,
        "pool_debug": pool_debug,
        "connect_timeout": connect_timeout,
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        "idle_in_transaction_timeout": idle_in_transaction_timeout,
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
    target = parse(config.url)
    params = target.connect_params(
        ssl=config.ssl_mode if ssl is None else ssl,
        ssl_root_cert=config.ssl_root_cert,
        connect_timeout=config.connect_timeout,
    )
    if connect_timeout is not None:
        params["connect_timeout"] = connect_timeout  # before the URL's
    del params["dbname"]
    params["options"] = f"{params.get('options', '')} -c timezone=UTC".strip()
    db.init(
        target.database,
        pool_size=config.pool_size,
        pool_timeout=config.pool_timeout,
        pool_max_lifetime=config.pool_max_lifetime,
        pool_reset=config.pool_reset,
        pool_debug=config.pool_debug,
        limits=Limits(
            config.statement_timeout, config.lock_timeout, config.idle_in_transaction_timeout
        ),
        prepare=config.prepare,
        driver=config.driver,
        **params,
    )
    return db


def connect_db(retry_for: float = 0.0) -> None:
    """Open a first connection, so that a service fails at its start and not at a request.

    What may pass (no server there, no name, no answer, server starting or full) is tried again
    for ``retry_for`` seconds, with growing pauses; a wrong password is not. Raises a ``ConnectionFailed`` that names the cause and the fix: ``ConnectionRefused``,
    ``HostUnknown``, ``ConnectTimeout``, ``AuthenticationFailed``, ``DatabaseMissing``,
    ``TlsFailed`` or ``ServerUnavailable``.
    """
    _check_seconds("retry_for", retry_for)
    opening.retry(lambda: db.execute_sql("SELECT 1"), retry_for)


def close_db(timeout: float = 0.0) -> bool:
    """Close all connections: idle ones now, those that other threads use when they return.

    Waits up to ``timeout`` seconds for these, and answers whether all came back; a log line names
    the threads of the others. A thread that waits for a connection gets ``PoolClosed``. A
    statement after it opens connections anew.
    """
    _check_seconds("timeout", timeout)
    return db.deferred or db.close_all(timeout)


def _check_seconds(name: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= threading.TIMEOUT_MAX:  # type: ignore[operator]
        raise InvalidValue(f"{name} must be a number of seconds, 0 or more.")


@overload
def transaction(isolation: F, /) -> F: ...
@overload
def transaction(
    isolation: Isolation | None = None,
    *,
    read_only: bool = False,
    track: bool = True,
    database: Database | None = None,
) -> Transaction: ...
def transaction(
    isolation: Isolation | F | None = None,
    *,
    read_only: bool = False,
    track: bool = True,
    database: Database | None = None,
) -> Transaction | F:
    """A transaction: ``with transaction() as tx:``, or a decorator, with or without brackets.

    ``isolation`` is "read committed", "repeatable read" or "serializable" (default: the
    server's), ``read_only`` has the server refuse writes; both only for the outermost block.
    Everything is rolled back when an exception leaves the block. Raises ``TransactionAborted``
    when an error was swallowed inside, ``CommitUnknown`` when the connection breaks in COMMIT;
    ``track=False`` saves the round trip before COMMIT that lets its ``find_out()`` answer.
    """
    if callable(isolation):
        decorated: F = Transaction(database or db)(isolation)
        return decorated
    return Transaction(database or db, isolation, read_only=read_only, track=track)
