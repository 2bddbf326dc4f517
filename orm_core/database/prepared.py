"""Statements that the server keeps parsed and planned, on each connection for itself.

On with ``initialize_db(prepare=True)`` or ``ORM_CORE_PREPARE=1``. A compiled statement that a
connection sends for the second time is prepared (PostgreSQL manual, PREPARE) and executed by its
name from then on; the rest goes as text. Behind a pooler, where the next statement may reach
another session, nothing is prepared.
"""

from __future__ import annotations

import itertools
import logging
import re
from typing import Any, Final

from psycopg2 import Error, errorcodes, extensions
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from orm_core.errors import SerializationFailure

logger: logging.Logger = logging.getLogger("orm_core.database")

#: statements kept on a connection; the oldest makes room
MOST: Final = 100
_PLACE = re.compile(r"%(s|%)")
#: the kept statement is not there any more, or no longer answers the columns that it did
GONE: Final = frozenset({errorcodes.INVALID_SQL_STATEMENT_NAME, errorcodes.FEATURE_NOT_SUPPORTED})


class CompiledSql(str):
    """The text of a statement that is sent again and again, always with values of one type."""

    def numbered(self) -> str:
        """The text with ``$1``, ``$2`` for the values, as PREPARE wants it."""
        places = itertools.count(1)
        return _PLACE.sub(lambda found: "%" if found[1] == "%" else f"${next(places)}", self)

    def call(self, name: str) -> str:
        """``EXECUTE name (%s, %s)``."""
        values = ", ".join("%s" for found in _PLACE.finditer(self) if found[1] == "s")
        return f"EXECUTE {name} ({values})" if values else f"EXECUTE {name}"


class PreparedStatements:
    """The statements that one connection keeps."""

    def __init__(self) -> None:
        self._calls: dict[str, str] = {}
        self._seen: set[str] = set()
        self._outdated: list[str] = []
        self._numbers = itertools.count(1)

    def call(self, cursor: Any, sql: CompiledSql) -> str:
        """What to send for ``sql``: its text the first time, later the call by name."""
        call = self._calls.get(sql)
        if call is not None:
            return call
        if sql not in self._seen:
            if len(self._seen) >= 10 * MOST:
                self._seen.clear()
            self._seen.add(sql)
            return sql
        if len(self._calls) >= MOST:
            self.forget(next(iter(self._calls)))
        self._drop_outdated(cursor)
        name = f"orm_core_{next(self._numbers)}"
        cursor.execute(f"PREPARE {name} AS {sql.numbered()}")
        call = self._calls[sql] = sql.call(name)
        return call

    def forget(self, sql: str) -> None:
        """Prepare it anew next time; what the server keeps of it is dropped then."""
        self._outdated.append(self._calls.pop(sql).split()[1])

    def _drop_outdated(self, cursor: Any) -> None:
        while self._outdated:
            # No plain DEALLOCATE: it may be gone already, by DISCARD for instance.
            cursor.execute(
                "DO $$ BEGIN IF EXISTS (SELECT FROM pg_prepared_statements WHERE name = "
                f"'{self._outdated[-1]}') THEN DEALLOCATE {self._outdated[-1]}; END IF; END $$"
            )
            self._outdated.pop()


class Connection(extensions.connection):  # type: ignore[misc]
    """A connection of the driver, and what is prepared on it: None where nothing may be."""

    prepared: PreparedStatements | None = None

    def prepare_statements(self) -> None:
        """Prepare from now on, unless a pooler stands between: its session is not the server's."""
        cursor = self.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        if cursor.fetchone() == (self.get_backend_pid(),):
            self.prepared = PreparedStatements()
        else:
            logger.info("The connection goes through a pooler, so no statement is prepared.")


def execute_prepared(cursor: Any, sql: CompiledSql, params: Any, before: str) -> None:
    """Run a statement by its name, or as text where that is not prepared (any more).

    Raises ``SerializationFailure`` when a table changed inside a running transaction, which the
    server has given up then; run it again.
    """
    connection = cursor.connection
    prepared = connection.prepared
    call = prepared.call(cursor, sql)
    try:
        cursor.execute(before + call, params or ())
    except Error as error:
        if call is sql or error.pgcode not in GONE:
            raise
        in_transaction = connection.get_transaction_status() != TRANSACTION_STATUS_IDLE
    else:
        return
    if in_transaction and not before:
        prepared.forget(sql)
        raise SerializationFailure(
            "A table was changed, or prepared statements were dropped, while the transaction ran; "
            "run it again."
        )
    if in_transaction:
        cursor.execute("ROLLBACK")  # of BEGIN alone: this statement was its first
    prepared.forget(sql)
    cursor.execute(before + sql, params or ())
