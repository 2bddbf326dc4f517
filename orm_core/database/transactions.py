"""Transactions: a block of statements that holds as a whole or not at all.

::

    with transaction() as tx:
        user = UsersService.create({...}, logger, tx=tx)
        SessionService.create({..., "user_id": user.id}, logger, tx=tx)
        tx.on_commit(lambda: mail.welcome(user))

A block inside a block is a savepoint. BEGIN and SAVEPOINT are sent with the first statement inside
the block, so a block without one sends nothing. A transaction belongs to its thread: every query of that
thread takes part, whether ``tx`` is passed or not; passing it has it checked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from orm_core.database.acting import UNKNOWN, Acting
from orm_core.database.leaving import Exit
from orm_core.database.plain_functions import PlainDecorator, check_plain
from orm_core.database.tasks import current_task
from orm_core.errors import (
    CommitUnknown,
    Outcome,
    QueryError,
    StaleTransaction,
    TransactionAborted,
    TransactionError,
)

if TYPE_CHECKING:
    from orm_core.database.database import Database

logger: logging.Logger = logging.getLogger("orm_core.transactions")

Isolation: TypeAlias = Literal["read committed", "repeatable read", "serializable"]
_ISOLATION_LEVELS = ("read committed", "repeatable read", "serializable")


class Transaction(PlainDecorator):
    """One transaction or, inside another, one savepoint; made by ``transaction()``.

    Usable once as a context manager, any number of times as a decorator.
    """

    def __init__(
        self,
        database: Database,
        isolation: Isolation | None = None,
        *,
        read_only: bool = False,
        track: bool = True,
    ) -> None:
        if isolation is not None and isolation not in _ISOLATION_LEVELS:
            raise TransactionError(
                f"There is no such isolation level; use one of {', '.join(_ISOLATION_LEVELS)}."
            )
        self._database = database
        self._isolation: Isolation | None = isolation
        self._read_only = read_only
        #: whether its number is wanted before COMMIT, to find out what became of it
        self.is_tracked: bool = track and not read_only
        self._thread: int | None = None
        #: the asyncio task that entered it
        self.task: object | None = None
        self._savepoint: str | None = None
        self._outer: Transaction = self
        self._connected_here = False
        self._callbacks: list[Callable[[], object]] = []
        self._open = False
        #: whether this process was forked inside it
        self.is_parents = False
        #: whether a block inside could not be undone, so that nothing may be committed
        self._is_doomed = False
        self._outcome: Outcome = "not applied"
        #: the server's for it, once a statement that writes has told
        self.number: str | None = None
        #: whether ``commit()`` was called inside, so that it can't be undone as a whole
        self.has_committed: bool = False
        #: whether its BEGIN or SAVEPOINT is under way
        self.sent: bool = False
        #: who acts, as the server was told last in this block; None when it was told nothing
        self.told: Acting | None = None

    def __repr__(self) -> str:
        kind = "savepoint" if self._savepoint else "transaction"
        return f"<{kind} {'open' if self._open else 'closed'}>"

    def _recreate_cm(self) -> Transaction:
        return Transaction(
            self._database, self._isolation, read_only=self._read_only, track=self.is_tracked
        )

    # -- use inside the block ---------------------------------------------------------------

    @property
    def is_savepoint(self) -> bool:
        """Whether this block is inside another."""
        return self._savepoint is not None

    @property
    def outcome(self) -> Outcome:
        """What became of it, also after an interrupt; "not applied" while it runs."""
        if self._savepoint and self._outcome == "applied":
            return self._outer.outcome
        return self._outcome

    @property
    def opening_sql(self) -> str:
        """The statement that begins the block."""
        if self._savepoint:
            return f"SAVEPOINT {self._savepoint}"
        mode = f" ISOLATION LEVEL {self._isolation.upper()}" if self._isolation else ""
        return f"BEGIN{mode}{' READ ONLY' if self._read_only else ''}"

    @property
    def is_open(self) -> bool:
        """Whether the block is still running."""
        return self._open

    def check(self, database: Database | None = None) -> None:
        """Raise ``StaleTransaction`` unless this is open, on this thread and on ``database``."""
        if not self._open:
            raise StaleTransaction(
                "This tx has ended. Use the tx of the block that is running, or none."
            )
        if self._thread != threading.get_ident():
            raise StaleTransaction(
                "This tx belongs to another thread; a transaction is used by the thread that "
                "began it. Begin one here: with transaction() as tx."
            )
        if self.is_parents:
            raise StaleTransaction(
                "This tx belongs to the process that this one was forked from. Begin one here: with "
                "transaction() as tx."
            )
        if database is not None and database is not self._database:
            raise StaleTransaction("This tx belongs to another database than the model.")

    def on_commit(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once everything is committed, in the order of the calls.

        Never called when this block, or a block around it, is rolled back. An exception in it
        is logged, as the transaction stands by then. Raises ``InvalidValue`` for what is no plain
        function.
        """
        self.check()
        check_plain(callback, "on_commit()")
        self._callbacks.append(callback)

    def rollback(self, begin: bool = True) -> None:
        """Undo what the block did so far; it goes on empty.

        ``begin`` is there for code written for Peewee; only True is meaningful inside a block.
        """
        self._check_innermost()
        self._callbacks.clear()
        if not self.sent:
            return
        if self._savepoint:
            self._database.statement(f"ROLLBACK TO SAVEPOINT {self._savepoint}")
            self.told = self._outer.told
            return
        self._database.statement("ROLLBACK")
        self.told = self.number = None
        self.sent = not begin

    def commit(self, begin: bool = True) -> None:
        """Make what the block did so far stand; it goes on in a new transaction.

        ``begin``: see ``rollback``.
        """
        self._check_innermost()
        if self._savepoint:
            self._release()
            return
        callbacks, self._callbacks = self._callbacks, []
        self.has_committed = True
        try:
            self._commit()
        finally:
            # Also after a COMMIT that failed, so that what follows is not committed one by one.
            self.sent = not begin
            self.told = self.number = None
        _call(callbacks)

    def _check_innermost(self) -> None:
        self.check()
        if self._database.top_transaction() is not self:
            raise TransactionError(
                "A block inside this one is still running; only the innermost block can be "
                "committed or rolled back by hand."
            )

    def forget_told(self) -> None:
        """Have who acts told again before the next statement, if it was told at all."""
        if self.told is not None:
            self.told = UNKNOWN

    # -- the block --------------------------------------------------------------------------

    def __enter__(self) -> Transaction:
        if self._thread is not None:
            raise StaleTransaction("A transaction block is entered once; make a new one.")
        self._thread = threading.get_ident()
        try:
            here = self._database.here()
            self.task = current_task()
            if here["transactions"]:
                self._database.check_task()
                self._enter_savepoint(here["transactions"])
            else:
                self._connected_here = here["closed"]
                self._database.connect(reuse_if_open=True)
            self._open = True
            here["transactions"].append(self)
            return self
        except BaseException:
            self._leave()
            raise

    def _enter_savepoint(self, around: Sequence[Any]) -> None:
        if self._isolation or self._read_only:
            raise TransactionError(
                "Isolation and read_only are set by the outermost block; this one is inside "
                "another and becomes a savepoint."
            )
        outer = around[-1]
        if not isinstance(outer, Transaction):
            raise TransactionError("A transaction can't begin inside manual_commit().")
        self._savepoint = f"sp_{len(around)}"
        self.is_tracked = False
        self._outer = outer
        self.told = outer.told

    def _end(self, error: BaseException | None) -> None:
        if not self._is_mine:
            raise _out_of_order("on another thread")
        if error is not None:
            self._roll_back_quietly()
        elif self._database.top_transaction() is not self:
            raise _out_of_order("in another order")
        elif self._savepoint:
            self._commit_savepoint()
        else:
            self._commit()
        self._leave()
        if error is None and not self._savepoint:
            self.run_callbacks()

    def _give_up(self, raised: BaseException) -> None:
        is_sure = isinstance(raised, Exception) and not isinstance(raised, StaleTransaction)
        if self._is_mine and not is_sure:
            self._outer._is_doomed = True  # a savepoint may stand that was to be undone
        self._leave()

    __exit__: Exit[Any] = Exit(_end, _give_up)

    def run_callbacks(self) -> None:
        """Call what waits for the COMMIT, which stands."""
        callbacks, self._callbacks = self._callbacks, []
        _call(callbacks)

    @property
    def _is_mine(self) -> bool:
        return self._thread == threading.get_ident()

    def _leave(self) -> None:
        """The block is over, whatever happened; twice is no harm."""
        if not self._is_mine:
            return
        self._open = False
        self._database.leave(self, disconnect=self._connected_here)

    def _commit_savepoint(self) -> None:
        if self._is_doomed or self._database.transaction_failed():
            self._roll_back_quietly()
            raise _aborted("savepoint")
        self._release()

    def _release(self) -> None:
        """What the savepoint did, and its callbacks, now hang on the block around it."""
        if self.sent:
            self._database.statement(f"RELEASE SAVEPOINT {self._savepoint}")
            self.sent = False
            self._outer.told = self.told
        self._outcome = "applied"  # if the block around it is
        self._outer._callbacks.extend(self._callbacks)
        self._callbacks.clear()

    def _commit(self) -> None:
        if not self.sent:
            self._outcome = "applied"
            return
        if self._is_doomed or not self._database.can_commit():
            self._roll_back_quietly()
            raise _aborted("transaction")
        try:
            # Also tells, before COMMIT is sent, whether there is still somebody to send it to.
            number = self._database.transaction_id(self.number) if self.is_tracked else None
            was_asked = number is not None and self.number is None
            if not was_asked and self._database.server_spoke():
                self._database.statement("SELECT 1")  # most often it ended the session
        except BaseException:
            self._roll_back_quietly()
            raise
        self._outcome = "unknown"
        try:
            self._database.statement("COMMIT")
            self._outcome = "applied"
            return
        except QueryError as error:
            if error.outcome != "unknown":
                self._outcome = "not applied"
                raise
            unknown = self._commit_unknown(number)
        except BaseException as interrupt:
            if self._outcome == "applied":
                raise
            if self._database.transaction_is_open():
                self._roll_back_quietly()  # it came before COMMIT was sent
                self._outcome = "not applied"
                raise
            raise interrupt from self._commit_unknown(number)
        raise unknown

    def _commit_unknown(self, number: str | None) -> CommitUnknown:
        return CommitUnknown(
            "The connection broke during COMMIT: the server may have committed or not. Ask "
            "find_out() of this error before you repeat the transaction.",
            transaction_id=number,
            ask=self._database.outcome_of,
        )

    def _roll_back_quietly(self) -> None:
        """Roll back; on a broken connection the server did so itself, and the caller's
        exception must not be masked."""
        if not self.sent:
            return
        try:
            if self._savepoint:
                self._database.statement(f"ROLLBACK TO SAVEPOINT {self._savepoint}")
                self._database.statement(f"RELEASE SAVEPOINT {self._savepoint}")
            else:
                self._database.statement("ROLLBACK")
        except Exception:
            logger.debug("ROLLBACK failed; the server rolls back by itself.", exc_info=True)


def unsent(blocks: Sequence[Any]) -> list[Transaction]:
    """The blocks whose BEGIN or SAVEPOINT waits for a statement: the last ones, if any."""
    waiting: list[Transaction] = []
    for block in reversed(blocks):
        if not isinstance(block, Transaction) or block.sent:
            break
        waiting.insert(0, block)
    return waiting


def _call(callbacks: list[Callable[[], object]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("An on_commit callback failed; the transaction is committed.")


def _out_of_order(how: str) -> StaleTransaction:
    return StaleTransaction(
        f"Transaction blocks were left {how} than they were entered; what they did is rolled back."
    )


def _aborted(kind: str) -> TransactionAborted:
    return TransactionAborted(
        f"A statement inside the {kind} failed and its error was swallowed, so PostgreSQL keeps "
        "nothing of it: all was rolled back. Let the error out, or put the statement that may "
        "fail in a block of its own: with transaction()."
    )


def disown(blocks: Iterable[Any]) -> None:
    """In a forked child: the blocks are its parent's."""
    for block in blocks:
        if isinstance(block, Transaction):
            block.is_parents = True


def mark(blocks: Iterable[Transaction], *, sent: bool) -> None:
    """Note whether what opens these blocks was sent."""
    for block in blocks:
        block.sent = sent
