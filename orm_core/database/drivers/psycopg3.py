"""psycopg 3, which is told to bind and to read as psycopg 2 does.

Statements go as text in the simple protocol, with their values bound into it, so that BEGIN can
travel with one. psycopg's own preparing is off: it can't tell which types the server took the values
for, and sends no BEGIN along (``orm_core.database.prepared``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import ClientCursor, Error, ProgrammingError, ServerCursor
from psycopg.client_cursor import ClientCursorMixin
from psycopg.pq import ExecStatus

from orm_core.database.drivers.psycopg3_types import ADAPTERS
from orm_core.database.drivers.session import Session

__all__ = ["NAME", "Connection", "Error", "ProgrammingError", "connect", "sqlstate"]

NAME: Final = "psycopg3"
#: messages of the server that are kept, as psycopg 2 does
_NOTICES: Final = 50
#: what a % begins in a text
_PLACE = re.compile(r"%(?:\(.*?\))?(.?)", re.DOTALL)


class _Refusals:
    """Refuses what can't be bound with the errors that ``protocol`` names."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Run a statement, or several; the result is that of the last."""
        try:
            super().execute(query, params, **options)  # type: ignore[misc]
        except psycopg.DataError as error:
            if error.sqlstate is not None:
                raise
            raise ValueError("a text has a NUL") from None
        except (ProgrammingError, ValueError) as error:
            if getattr(error, "sqlstate", None) is not None or _fits(str(query), params):
                raise
            raise TypeError("not as many values as places") from None
        return self


def _fits(sql: str, params: Any) -> bool:
    """Whether there are as many values as places, and nothing but ``%s`` and ``%%``."""
    if params is None:
        return True
    places = [kind for kind in _PLACE.findall(sql) if kind != "%"]
    return set(places) <= {"s"} and (isinstance(params, Mapping) or len(places) == len(params))


class Cursor(_Refusals, ClientCursor[Any]):
    """Binds values into the text."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Run a statement, or several; the result is that of the last."""
        super().execute(query, params, **options)
        while self.nextset():
            pass
        if self.pgresult is not None and self.pgresult.status == ExecStatus.EMPTY_QUERY:
            raise ProgrammingError("can't execute an empty query")
        return self

    def copy_expert(self, sql: Any, file: Any) -> None:
        """COPY FROM STDIN of what ``file.read(size)`` answers until it answers nothing."""
        with self.copy(sql) as copy:
            while data := file.read(8192):
                copy.write(data)


class _NamedCursor(_Refusals, ClientCursorMixin[Any, Any], ServerCursor[Any]):
    """Lives on the server; the server drops it with the session, as it does psycopg 2's."""

    def __del__(self, *_: Any) -> None:
        pass


class Connection(Session, psycopg.Connection[Any]):
    """A connection with the words of psycopg 2."""

    def retire(self) -> None:
        """Close it; cursors keep the rows that they received."""
        self.close()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory: type[psycopg.Cursor[Any]] = Cursor
        self.server_cursor_factory: type[ServerCursor[Any]] = _NamedCursor
        self.notices: list[str] = []
        self.add_notice_handler(partial(_keep, self.notices))

    def __del__(self, *_: Any) -> None:
        pass  # libpq closes it, in the process that opened it; the pool tells of lost ones

    @property
    def server_version(self) -> int:
        """As in 150004."""
        return self.pgconn.server_version

    def get_transaction_status(self) -> int:
        """libpq's PGTransactionStatusType."""
        return int(self.pgconn.transaction_status)

    def get_backend_pid(self) -> int:
        """The process of the server that this was connected to."""
        return self.pgconn.backend_pid


def _keep(notices: list[str], notice: Any) -> None:
    notices.append(f"{notice.severity}:  {notice.message_primary}\n")
    del notices[:-_NOTICES]


def connect(params: Mapping[str, Any], *, prepare: bool) -> Connection:
    """A connection that binds and reads as psycopg 2 does; others of the process do not."""
    given: dict[str, Any] = {**params, "client_encoding": "UTF8"}
    connection = Connection.connect(
        **given,
        autocommit=True,
        context=ADAPTERS,
        prepare_threshold=None,
    )
    if not (connection.pgconn.parameter_status(b"DateStyle") or b"").startswith(b"ISO"):
        connection.execute("SET datestyle TO 'ISO'")
    if prepare:
        connection.prepare_statements()
    return connection


def sqlstate(error: Any) -> str | None:
    """The SQLSTATE of an error, None when it is not the server's."""
    state: str | None = error.sqlstate
    return state
