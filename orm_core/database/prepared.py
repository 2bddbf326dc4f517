"""Statements that the server keeps parsed and planned, on each connection for itself.

On with ``initialize_db(prepare=True)`` or ``ORM_CORE_PREPARE=1``. A compiled statement that a
connection sends for the second time is prepared (PostgreSQL manual, PREPARE) and executed by its
name from then on; the rest goes as text. Behind a pooler, where the next statement may reach
another session, nothing is prepared.
"""

from __future__ import annotations

import itertools
import logging
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from psycopg2 import errorcodes
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from psycopg2.extras import Json

from orm_core.database.compiled_sql import CompiledSql
from orm_core.errors import SerializationFailure

logger: logging.Logger = logging.getLogger("orm_core.database")

#: statements kept on a connection; the oldest makes room
MOST: Final = 100
#: the kept statement is not there any more, or no longer answers the columns that it did
_GONE: Final = frozenset({errorcodes.INVALID_SQL_STATEMENT_NAME, errorcodes.FEATURE_NOT_SUPPORTED})
#: where the server tells the second of these; others refuse with the same state (plancache.c)
_CHECKS_COLUMNS: Final = "RevalidateCachedQuery"
#: what a value meets whose column has another type than when the statement was prepared
_OUTDATED: Final = _GONE | {
    errorcodes.UNDEFINED_FUNCTION,
    errorcodes.DATATYPE_MISMATCH,
    errorcodes.CANNOT_COERCE,
    errorcodes.NUMERIC_VALUE_OUT_OF_RANGE,
    errorcodes.INVALID_TEXT_REPRESENTATION,
}
#: types that EXECUTE may give a value without altering it; a str takes any, like a literal
_SAME: Final[dict[type, frozenset[str]]] = {
    int: frozenset({"smallint", "integer", "bigint", "numeric", "double precision"}),
    float: frozenset({"double precision"}),
    Decimal: frozenset({"numeric"}),
    bool: frozenset({"boolean"}),
    date: frozenset({"date"}),
    datetime: frozenset({"timestamp with time zone"}),
}
_LITERALS: Final = (str, type(None), Json)


class PreparedStatements:
    """The statements that one connection keeps."""

    def __init__(self) -> None:
        self._calls: dict[str, CompiledSql] = {}
        self._seen: set[str] = set()
        self._refused: set[str] = set()
        self._dropped: list[str] = []
        self._numbers = itertools.count(1)

    def call(self, cursor: Any, sql: CompiledSql, params: Any) -> CompiledSql:
        """What to send for ``sql``: its text the first time, later the call by name."""
        call = self._calls.get(sql)
        if call is not None:
            return call
        if sql not in self._seen or sql in self._refused:
            _add(self._seen, sql)
            return sql
        if len(self._calls) >= MOST:
            self.forget(next(iter(self._calls)))
        self._deallocate(cursor)
        name = f"orm_core_{next(self._numbers)}"
        if not self._prepare(cursor, name, sql, params or ()):
            _add(self._refused, sql)
            return sql
        call = self._calls[sql] = sql.call(name)
        return call

    def _prepare(self, cursor: Any, name: str, sql: CompiledSql, params: Any) -> bool:
        """Prepare; False when the server took a value's type for another than the value has.

        It would round 1.5 to the integer that it expects, without a word.
        """
        outside = cursor.connection.get_transaction_status() == TRANSACTION_STATUS_IDLE
        try:
            cursor.execute(
                f"PREPARE {name} AS {sql.numbered()}; SELECT parameter_types::text[] "
                f"FROM pg_catalog.pg_prepared_statements WHERE name = '{name}'"
            )
        except Exception as error:
            if outside and (_state(error) or "").startswith("42"):
                return False  # sent as text, it may be fine; if not, that tells why
            _add(self._refused, sql)
            raise
        types = cursor.fetchone()[0]
        if len(types) == len(params) and all(map(_takes, types, params)):
            return True
        cursor.execute(f"DEALLOCATE {name}")
        return False

    def forget(self, sql: str) -> None:
        """Send its text the next time; what the server keeps of it is dropped then."""
        self._dropped.append(self._calls.pop(sql).split()[1])
        self._seen.discard(sql)

    def _deallocate(self, cursor: Any) -> None:
        while self._dropped:
            name = self._dropped[-1]
            # It may be gone already, by DISCARD for instance.
            cursor.execute(f"SELECT FROM pg_catalog.pg_prepared_statements WHERE name = '{name}'")
            if cursor.rowcount:
                cursor.execute(f"DEALLOCATE {name}")
            self._dropped.pop()


def _add(statements: set[str], sql: str) -> None:
    if len(statements) >= 10 * MOST:
        statements.clear()
    statements.add(sql)


def _takes(type_name: str, value: object) -> bool:
    return isinstance(value, _LITERALS) or type_name in _SAME.get(type(value), ())


def _is_outdated(error: Any) -> bool:
    """Whether an error may be that of the kept statement, not of the statement itself."""
    state = _state(error)
    if state == errorcodes.FEATURE_NOT_SUPPORTED:
        return bool(error.diag.source_function == _CHECKS_COLUMNS)
    return state in _OUTDATED


def _state(error: Exception) -> str | None:
    """The SQLSTATE of psycopg 3, or of psycopg 2."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


class Prepares:
    """A connection, and what is prepared on it: None where nothing may be."""

    prepared: PreparedStatements | None = None

    def forget_prepared(self) -> None:
        """The server is about to drop what it keeps."""
        if self.prepared is not None:
            self.prepared = PreparedStatements()

    def prepare_statements(self: Any) -> None:
        """Prepare from now on, unless a pooler stands between: its session is not the server's."""
        cursor = self.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        if cursor.fetchone() == (self.get_backend_pid(),):
            self.prepared = PreparedStatements()
        else:
            logger.info("The connection goes through a pooler, so no statement is prepared.")


def execute_prepared(
    cursor: Any, connection: Any, sql: CompiledSql, params: Any, before: str, *, begins: bool
) -> None:
    """Run a statement on a connection that prepares: by its name where it is prepared.

    ``before`` is sent along; ``begins`` tells that it begins the transaction. Raises
    ``SerializationFailure`` when a table changed inside a running transaction, which the server
    has given up then; run it again.
    """
    prepared = connection.prepared
    call = prepared.call(cursor, sql, params)
    try:
        call.send(cursor, params, before)
    except Exception as error:
        if call is sql or not _is_outdated(error):
            raise
        prepared.forget(sql)
        in_transaction = connection.get_transaction_status() != TRANSACTION_STATUS_IDLE
        if in_transaction and not begins and _state(error) not in _GONE:
            raise
    else:
        return
    if in_transaction and not begins:
        raise SerializationFailure(
            "A table was changed, or prepared statements were dropped, while the transaction ran; "
            "run it again."
        )
    if in_transaction:
        cursor.execute("ROLLBACK")  # of BEGIN alone: this statement was its first
    sql.send(cursor, params, before)
