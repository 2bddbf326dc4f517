"""What orm_core asks of a driver.

The words are those of psycopg 2, which fulfils it as it is; the module of another driver makes up
for what that one names or does differently. A cursor is one of DB-API 2.0 (PEP 249) that binds
values into the text, so that one ``execute`` may carry several statements; it is left at the
result of the last. It refuses what it can't bind before anything is sent: with ``IndexError`` or
``TypeError`` for another number of values than places, ``UnicodeEncodeError`` for a lone
surrogate, ``ValueError`` for a NUL, ``ProgrammingError`` for a type that it does not know.
"""

from __future__ import annotations

# Docstrings alone are bodies here.
# pyright: reportReturnType=false
from collections.abc import Mapping
from typing import Any, Final, Protocol

#: what ``get_transaction_status`` answers: PGTransactionStatusType of libpq
IDLE: Final = 0
ACTIVE: Final = 1
IN_TRANSACTION: Final = 2
IN_ERROR: Final = 3


class Connection(Protocol):
    """A session in autocommit, whose rows have the types that psycopg 2 gives them."""

    #: messages of the server, the last 50
    notices: list[str]
    #: what is prepared on it, None where nothing may be
    prepared: Any
    #: whether the watchdog ended it, as the server was silent for too long
    was_cut: bool
    #: whether the watchdog is about to end it, or did
    is_being_cut: bool
    #: whether the watchdog knows it
    is_watched: bool
    #: when the call under way is overdue, by the monotonic clock; infinite without one
    overdue_at: float
    #: whether the transaction that runs was told a limit of its own
    is_limited: bool

    @property
    def closed(self) -> Any:
        """True once it is closed or found broken."""

    @property
    def server_version(self) -> int:
        """As in 150004."""

    def cursor(self, name: str = ..., *, withhold: bool = ...) -> Any:
        """A cursor; with a name one that lives on the server.

        Beside PEP 249: ``statusmessage``, and ``copy_expert(sql, file)`` for COPY FROM STDIN.
        """

    def take_cursor(self) -> Any:
        """A cursor: one that was given back, as a new one costs a tenth of a statement."""

    def give_back(self, cursor: Any) -> None:
        """Say that a cursor's answer was read and that nobody else has it."""

    def let_go(self) -> None:
        """Keep no cursor from now on; the connection is about to be closed or dropped."""

    def prepare_statements(self) -> None:
        """Have the server keep plans from now on, where no pooler stands between."""

    def retire(self) -> None:
        """Close it, but for rows that were received and are not read yet."""

    def forget_prepared(self) -> None:
        """The server is about to drop these plans."""

    def get_transaction_status(self) -> int:
        """See ``IDLE`` and the others; asks nobody."""

    def get_backend_pid(self) -> int:
        """The process of the server that this was connected to."""

    def fileno(self) -> int:
        """The socket, which has nothing to read while the session is idle and healthy."""

    def cancel(self) -> None:
        """Have the server give up the statement that another thread waits for."""

    def close(self) -> None:
        """End the session; twice is no error."""


class Driver(Protocol):
    """A module of this package."""

    NAME: str
    Error: type[Exception]
    ProgrammingError: type[Exception]

    def connect(self, params: Mapping[str, Any], *, prepare: bool) -> Connection:
        """A connection by libpq's parameters. Raises ``Error``."""

    def sqlstate(self, error: Any) -> str | None:
        """The SQLSTATE of an ``Error``, None when it is not the server's."""
