"""Changes of many rows, a batch at a time, each batch a short transaction of its own.

::

    from orm_core.migrations.backfill import backfill

    def migrate(migrator, database, *, fake=False):
        if not fake:
            backfill(database, "users", "nick = first_name", "nick IS NULL")

A file needs no import for it: ``source()`` answers one with the loop written out, and ``orm-core
migrate backfill`` writes it. Both can be interrupted at any moment: what is done stands, and the
next run goes on with the rows that still match.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

from orm_core.errors import InvalidValue, MigrationError

logger: logging.Logger = logging.getLogger("orm_core.migrations")

BATCH: Final = 1000
#: how long a batch waits for a row that somebody else is changing
LOCK_TIMEOUT: Final = "5s"

# The rows of a batch are found once, in an ARRAY: a subquery might be run again for each row.
_STATEMENT: Final = """\
WITH done AS (
    UPDATE {table} SET {set_sql}
    WHERE {key} = ANY (ARRAY(
        SELECT {key} FROM {table}
        WHERE ({where_sql}) AND (%s IS NULL OR {key} > %s)
        ORDER BY {key} LIMIT {batch} FOR NO KEY UPDATE
    ))
    RETURNING {key} AS key, ({where_sql}) AS again
)
SELECT count(*), count(*) FILTER (WHERE again),
       (SELECT key::text FROM done ORDER BY key DESC LIMIT 1)
FROM done"""


def backfill(
    database: Any,
    table: str,
    set_sql: str,
    where_sql: str,
    *,
    key: str = "id",
    batch: int = BATCH,
    pause: float = 0.0,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Change the rows of ``table`` that match; answers how many that were.

    ``set_sql`` and ``where_sql`` are SQL with ``%%`` for a percent sign; ``where_sql`` must no
    longer match a row that is done, so that an interrupted run can go on. ``key`` is a column with
    a unique index, ``batch`` the rows of one transaction, ``pause`` the seconds between two of
    them. ``progress`` is called with the rows done so far after each.

    In a migration file it ends the Router's transaction and begins another at the end; what the
    file did before it then stands, so let it be the only thing that the file does. Raises
    ``MigrationError`` when ``where_sql`` still matches rows that are done; nothing of that batch
    stands.
    """
    sql = statement(table, set_sql, where_sql, key=key, batch=batch)
    in_file = database.in_transaction()
    total, last, changed = 0, None, 0
    with nullcontext() if in_file else database.connection_context():
        if in_file:
            database.commit()
        while True:
            rows, last = _one(database, sql, last, table)
            if not rows and not changed:
                break
            # Rows may have come behind us: begin anew until a whole pass finds none.
            total, changed = total + rows, changed + rows if rows else 0
            if rows and progress is not None:
                progress(total)
            logger.info("%s: %d rows changed.", table, total)
            time.sleep(pause if rows else 0)
        if in_file:
            database.begin()
    return total


def _one(database: Any, sql: str, last: str | None, table: str) -> tuple[int, str | None]:
    database.begin()
    try:
        database.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        rows, again, last = database.execute_sql(sql, (last, last)).fetchone()
        if again:
            raise MigrationError(
                f"The backfill of {table} would never end: its condition still matches {again} of "
                f"the {rows} rows of the first batch after they were changed."
            )
    except BaseException:
        _undo(database)
        raise
    database.commit()
    return rows, last


def _undo(database: Any) -> None:
    try:
        database.rollback()
    except Exception:
        logger.debug("ROLLBACK failed; the server rolls back by itself.", exc_info=True)


def statement(
    table: str, set_sql: str, where_sql: str, *, key: str = "id", batch: int = BATCH
) -> str:
    """The SQL of one batch; its two parameters are the last key done, or None."""
    if batch < 1:
        raise InvalidValue("A batch has one row or more.")
    if not all(one.strip() for one in (table, set_sql, where_sql, key)):
        raise InvalidValue("A backfill needs a table, what to set, where, and a key.")
    return _STATEMENT.format(
        table=table, set_sql=set_sql, where_sql=where_sql, key=key, batch=int(batch)
    )


_SOURCE: Final = '''"""Backfills {table}: {words}"""

import logging

BATCH = """
{sql}
"""


def migrate(migrator, database, *, fake=False):
    if fake:
        return
    rows = before = total = 0
    last = None
    while True:
        database.commit()  # each batch stands: an interrupted run goes on where it was
        database.begin()
        database.execute_sql("SET LOCAL lock_timeout = '{timeout}'")
        rows, again, last = database.execute_sql(BATCH, (last, last)).fetchone()
        if again:
            raise RuntimeError("The condition still matches rows that are done.")
        if not rows and not before:
            break
        before = before + rows if rows else 0  # rows may have come behind us: once more
        total += rows
        logging.getLogger("peewee_migrate").info("{table}: %d rows", total)


def rollback(migrator, database, *, fake=False):
    pass
'''


def source(table: str, set_sql: str, where_sql: str, *, key: str = "id", batch: int = BATCH) -> str:
    """The text of a migration file that does it without importing orm_core."""
    sql = statement(table, set_sql, where_sql, key=key, batch=batch)
    if '"""' in sql or "\\" in sql:
        raise InvalidValue('The SQL can have neither a backslash nor """.')
    words = " ".join(set_sql.split()).replace('"', "'").replace("%%", "%")
    return _SOURCE.format(table=table.replace('"', ""), words=words, sql=sql, timeout=LOCK_TIMEOUT)
