"""One deployer at a time: an advisory lock of the session that applies migrations.

A stock Router that is given our ``Database`` takes the lock by itself: before anything else it
makes sure of the history table or reads it, whatever its name and schema, and that is when the
lock is waited for. So a second
deployer reads the history only after the first one is done, and finds nothing to do. The lock is polled: a
session that waits inside PostgreSQL would hold up CREATE INDEX CONCURRENTLY (PostgreSQL manual,
"Building Indexes Concurrently").
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from orm_core.errors import LockTimeout, QueryError

if TYPE_CHECKING:
    from orm_core import peewee_facade as peewee

logger: logging.Logger = logging.getLogger("orm_core.migrations")

#: a Router's first statement, in its first run and in later ones; its table may have any name
_CREATES: Final = "CREATE TABLE IF NOT EXISTS "
_READS: Final = 'SELECT "t1"."id", "t1"."name", "t1"."migrated_at" FROM '
_COLUMNS = re.compile(
    r'[^(]* \("id" SERIAL NOT NULL PRIMARY KEY, "name" VARCHAR\(255\) NOT NULL, "migrated_at" '
)
#: the lock's number: the first 63 bits of SHA-256 of "orm_core.migrations"
KEY: Final = 0x56435823FA506F1E
POLL_SECONDS: Final = 0.1
#: the longest wait for another deployer, in seconds
PATIENCE: Final = 900.0


def is_routers(sql: str) -> bool:
    """Whether a statement is the first one of a Router: it makes or reads the history."""
    if sql.startswith(_CREATES):
        return _COLUMNS.match(sql, len(_CREATES)) is not None
    return sql.startswith(_READS)


def acquire(database: peewee.Database, patience: float = PATIENCE) -> None:
    """Wait for the lock on this thread's connection; it goes with the connection's session.

    Raises ``LockTimeout`` when another deployer holds it for ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    told = False
    while not database.execute_sql(f"SELECT pg_try_advisory_lock({KEY})").fetchone()[0]:
        if time.monotonic() > deadline:
            raise LockTimeout(
                f"Another deployer has been applying migrations for {patience:g} s; nothing was "
                "done here. Look for it in pg_locks (locktype advisory)."
            )
        if not told:
            logger.info("Waiting for another deployer to finish.")
            told = True
        time.sleep(POLL_SECONDS)
    if not database.in_transaction():
        _set_session(database, "'1s'", "'0'")


def release(database: peewee.Database) -> None:
    """Let the next deployer in."""
    database.execute_sql(f"SELECT pg_advisory_unlock({KEY})")
    if not database.in_transaction():
        _set_session(database, "reset_val", "reset_val")


def _set_session(database: peewee.Database, look: str, limit: str) -> None:
    """Have a deployer's statements take as long as they do, as long as there is a deployer.

    The server looks, also during a statement, whether it is still there (PostgreSQL 14 and later,
    on systems that can tell). Else the session of one that was killed keeps the lock until its
    statement ends.
    """
    for name, value in {
        "statement_timeout": limit,
        "idle_in_transaction_session_timeout": limit,
        "client_connection_check_interval": look,
    }.items():
        with suppress(QueryError):
            database.execute_sql(
                f"SELECT set_config(name, {value}, false) FROM pg_settings WHERE name = '{name}'"
            )
