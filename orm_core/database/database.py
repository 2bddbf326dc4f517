"""A PostgreSQL database as services use it: pooled, with one road for statements, and transactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from orm_core.database import outcome
from orm_core.database.drivers.protocol import IN_ERROR, IN_TRANSACTION
from orm_core.database.leaving import Exit
from orm_core.database.plain_functions import PlainDecorator
from orm_core.database.pool import Lease
from orm_core.database.sending import SendingDatabase, is_idle
from orm_core.database.tasks import current_task
from orm_core.database.transactions import Isolation, Transaction, mark, unsent
from orm_core.errors import (
    InvalidStatement,
    Outcome,
    TransactionError,
)


class ManualCommit(PlainDecorator):
    """A block in which the caller sends BEGIN and COMMIT; what is open at its end is rolled back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connected_here = False
        self.task: Any = current_task()
        #: the caller sends BEGIN
        self.sent: Final = True

    def _recreate_cm(self) -> ManualCommit:
        return ManualCommit(self._database)

    def __enter__(self) -> None:
        if isinstance(self._database.top_transaction(), Transaction):
            raise TransactionError("manual_commit() can't be used inside a transaction block.")
        self._connected_here = self._database.is_closed()
        try:
            self._database.connect(reuse_if_open=True)
            self._database.push_transaction(self)
        except BaseException:
            self._leave()
            raise

    def _end(self, _: BaseException | None) -> None:
        if self._database.transaction_is_open():
            self._database.statement("ROLLBACK")
        self._leave()

    def _leave(self, _: BaseException | None = None) -> None:
        self._database.leave(self, disconnect=self._connected_here)

    __exit__: Exit[Any] = Exit(_end, _leave)


class Database(SendingDatabase):
    """A PostgreSQL database behind a pool; the one place that all statements pass.

    Takes what ``peewee.PostgresqlDatabase`` takes, ``pool_size`` (connections), ``pool_timeout``
    and ``pool_max_lifetime`` (seconds, 0: no limit), ``pool_reset`` and ``pool_debug``
    (``orm_core.database.pool``), ``limits`` (default: none), ``prepare``
    (``orm_core.database.prepared``) and ``driver`` (its name). Services use the ready-made ``db``.
    """

    def __enter__(self) -> Database:
        block = self.atomic()
        block.__enter__()
        try:
            self._state.ctx.append(block)
            return self
        except BaseException as interrupt:
            block.__exit__(type(interrupt), interrupt, None)
            raise

    def _innermost(self) -> Transaction:
        block: Transaction = self._state.ctx[-1]
        return block

    __exit__: Exit[Any] = Transaction.__exit__.of(_innermost)

    def begin(self, mode: str | None = None) -> None:
        """Send BEGIN; ``mode`` is SQL after it (``READ ONLY``)."""
        self.statement(f"BEGIN {mode}" if mode else "BEGIN")

    def commit(self) -> None:
        """Send COMMIT."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Send ROLLBACK."""
        self._end("ROLLBACK")

    def _end(self, sql: str) -> None:
        waiting = unsent(self._state.transactions)
        mark(waiting, sent=True)  # whoever ends a block's transaction by hand begins the next
        if not waiting or waiting[0].is_savepoint:
            self.statement(sql)

    def transaction_id(self, number: str | None = None) -> str | None:
        """What ``outcome_of`` asks by; None as long as the transaction has written nothing.

        ``number`` is the transaction's where it is known already; else the server is asked.
        """
        here = self.here()
        server: str | None = getattr(here["conn"], "server", None)
        if server is None:
            return None
        if number is None:
            cursor = self._send(here, outcome.NUMBER, ())
            (number,) = cursor.fetchone()
            here["conn"].give_back(cursor)
        return f"{server}/{number}" if number else None

    def outcome_of(self, transaction_id: str, timeout: float = 10.0) -> Outcome:
        """What became of a transaction: "applied", "not applied" or "unknown".

        ``transaction_id`` is that of a ``CommitUnknown``, also of another process. See
        ``CommitUnknown.find_out``. Raises ``InvalidValue`` for what is no such id.
        """
        return outcome.ask(self, transaction_id, timeout)

    def can_commit(self) -> bool:
        """Whether the running transaction is alive: no statement failed, the connection is there."""
        connection = self.here()["conn"]
        return not connection.closed and connection.get_transaction_status() != IN_ERROR

    def server_spoke(self) -> bool:
        """Whether this thread's connection has something to read that nobody asked for."""
        lease: Lease = self.here()["lease"]
        return lease.has_news()

    def transaction_failed(self) -> bool:
        """Whether a statement of the running transaction failed, so that it can't commit."""
        return self._status() == IN_ERROR

    def transaction_is_open(self) -> bool:
        """Whether the server waits for statements of a transaction."""
        return self._status() in (IN_TRANSACTION, IN_ERROR)

    def transaction(
        self, isolation: Isolation | None = None, *, read_only: bool = False, track: bool = True
    ) -> Transaction:
        """A transaction block on this database; inside another block a savepoint."""
        return Transaction(self, isolation, read_only=read_only, track=track)

    def atomic(
        self, isolation: Isolation | None = None, *, read_only: bool = False, track: bool = True
    ) -> Transaction:
        """The same as ``transaction``; Peewee's name for it."""
        return Transaction(self, isolation, read_only=read_only, track=track)

    def manual_commit(self) -> ManualCommit:
        """A block whose BEGIN, COMMIT and ROLLBACK are sent by hand, on one connection."""
        return ManualCommit(self)

    def leave(self, block: object, *, disconnect: bool) -> None:
        """Take a block off this thread's stack; after an interrupt again, which is no harm.

        A connection whose transaction nobody ended by then is closed, as is one in the middle of
        a statement.
        """
        here = self.here()
        blocks, contexts = here["transactions"], here["ctx"]
        if block in blocks:
            del blocks[blocks.index(block) :]
        if block in contexts:
            contexts.remove(block)
        if blocks:
            return
        connection = here["conn"]
        if connection is not None and not self.is_at_rest(connection):
            connection.close()
        if disconnect:
            self.close()

    def is_at_rest(self, connection: Any) -> bool:
        """Whether a connection is as it should be between two blocks."""
        return is_idle(connection)

    def savepoint(self) -> Transaction:
        """A block inside a running transaction."""
        return Transaction(self)

    def after_commit(self, fn: Callable[[], object]) -> Callable[[], object]:
        """Call ``fn`` once the running transaction is committed; at once when none runs."""
        top = self.top_transaction()
        if top is None:
            fn()
        elif isinstance(top, Transaction):
            top.on_commit(fn)
        else:
            raise InvalidStatement("after_commit() can't be used inside manual_commit().")
        return fn
