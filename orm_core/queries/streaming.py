"""Rows of any number in constant memory: a cursor on the server, read by batches.

::

    for user in stream(User.select().order_by(User.id)):
        ...

Inside a transaction the rows are read in it, what it wrote included. Outside, the stream has a
connection of the pool for itself until it ends, in a read-only transaction of its own: it sees the
table as it was at the start, and statements in the loop are committed as they would be without it.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.database import acting, limits
from orm_core.database.pool import Lease
from orm_core.database.transactions import Transaction
from orm_core.errors import InvalidStatement, InvalidValue, QueryError, StaleTransaction
from orm_core.models.relations import load_related
from orm_core.models.rows import MakesRows
from orm_core.queries.paging import check_count

Progress = Callable[[int], object]

#: rows of a batch at most
MAX_BATCH: Final = 100_000
#: SQLSTATE of a cursor that does not exist (any more)
_NO_CURSOR: Final = "34000"

_numbers = itertools.count(1)


def stream(query: Any, batch: int = 1000, progress: Progress | None = None) -> Iterator[Any]:
    """The rows of a query, one after the other; ``batch`` of them are in memory at a time.

    ``progress`` is called with the number of rows read so far, each time a batch was used up. The
    cursor is closed when the loop ends, by ``break`` and by an exception, too. Related rows
    (``with_related``) are read for each batch. Raises ``InvalidValue`` for what is no query of a
    model, ``StaleTransaction`` when the transaction that it began in has ended.
    """
    if not isinstance(query, peewee.SelectBase) or not hasattr(query, "model"):
        raise InvalidValue("stream() takes a query that selects, as in stream(User.select()).")
    if progress is not None and not callable(progress):
        raise InvalidValue("progress must be a function of the number of rows; no SQL was sent.")
    check_count("batch", batch, 1, MAX_BATCH)
    return _rows(query, batch, progress)


def _rows(query: Any, batch: int, progress: Progress | None) -> Iterator[Any]:
    cursor = _Cursor(query, batch)
    count = 0
    try:
        while rows := cursor.fetch():
            yield from rows
            count += len(rows)
            if progress is not None:
                progress(count)
            if len(rows) < batch:
                break
    finally:
        cursor.close()


def _scope() -> str:
    """What tells the server of ``row_scope``, in a transaction of the stream's own."""
    who = acting.now(audited=False)
    return who.sql if who.scope else ""


class _Cursor:
    """A cursor on the server, made by its first ``fetch``."""

    def __init__(self, query: Any, batch: int) -> None:
        database: Any = query._database or query.model._meta.database
        if database.deferred:
            database.connect()  # says so
        self._database = database
        self._query, self._batch = query, batch
        self._is_ours = isinstance(query, MakesRows)  # a UNION of ours is Peewee's
        context = database.get_sql_context()
        sql, self._values = query.rendered(database) if self._is_ours else context.parse(query)
        self._sql = str(sql)
        self._name = f"orm_core_stream_{next(_numbers)}"
        self._declared = False
        self._process = os.getpid()
        self._tx: Any = database.top_transaction() if database.in_transaction() else None
        self._lease: Lease | None = None
        if self._tx is None:
            self._lease = database.pool.acquire()
        elif not isinstance(self._tx, Transaction):
            raise InvalidStatement("stream() can't be used inside manual_commit().")

    def fetch(self) -> list[Any]:
        """The next rows; none at the end."""
        self._check()
        try:
            # Told as the SELECT that it is a part of.
            cursor = self._database._run(self._begin, self._sql, self._values)
        except QueryError as error:
            if error.sqlstate != _NO_CURSOR:
                raise
            gone = _ended()
        else:
            return self._made(cursor)
        raise gone

    def _begin(self) -> _Cursor:
        self.driver = (self._lease.connection if self._lease else self._database).cursor()
        self.connection = self.driver.connection
        return self

    def execute(self, sql: str, values: Any) -> None:
        """FETCH; the first time with what makes the cursor, in one round trip."""
        before = ""
        if not self._declared:
            if self._lease is not None:
                # All rows will be read, not a tenth of them, as is planned for otherwise. The
                # transaction is idle while the caller is busy with a batch.
                before = (
                    "BEGIN READ ONLY;SET LOCAL cursor_tuple_fraction = 1;"
                    f"SET LOCAL idle_in_transaction_session_timeout = 0;{_scope()}"
                )
            until = limits.deadline()
            if until != math.inf:
                self.connection.is_limited = True
                milliseconds = limits.milliseconds(until - monotonic())
                before += f"SET LOCAL statement_timeout = {milliseconds};"
            before += f"DECLARE {self._name} NO SCROLL CURSOR FOR {sql};"
        fetch = f"FETCH FORWARD {self._batch} FROM {self._name}"
        self.driver.execute(before + fetch, values if before else None)
        self._declared = True

    def close(self) -> None:
        """Close the cursor and give its connection back; nothing to do when both are gone."""
        if self._process != os.getpid():
            return  # the parent process reads on
        if self._lease is not None:
            self._lease.end()  # and its transaction
            self._lease = None
        elif self._declared and self._tx is not None and self._is_usable():
            self._database.statement(f"CLOSE {self._name}")

    def _is_usable(self) -> bool:
        try:
            self._tx.check(self._database)
        except StaleTransaction:
            return False
        return not self._database.transaction_failed()

    def _check(self) -> None:
        if self._process != os.getpid():
            raise StaleTransaction("A stream can't be read on in a forked process.")
        if self._tx is None:
            return
        if not self._tx.is_open:
            raise _ended()
        self._tx.check(self._database)

    def _made(self, cursor: _Cursor) -> list[Any]:
        make = self._query.row_maker() if self._is_ours else None
        if make is not None:
            rows: list[Any] = make(cursor.driver.fetchall())
        else:
            rows = list(self._query._get_cursor_wrapper(cursor.driver))
        if self._is_ours and self._query._load_tree and self._query._model_rows():
            load_related(rows, self._query, self._query._load_tree)
        return rows


def _ended() -> StaleTransaction:
    return StaleTransaction(
        "The transaction that this stream began in has ended, and its cursor with it; read a stream "
        "to its end inside the block."
    )
