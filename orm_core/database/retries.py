"""Transactions that are run again when another one got in the way.

::

    def move(tx):
        AccountsService.update(source, {...}, tx=tx)
        AccountsService.update(target, {...}, tx=tx)
        tx.on_commit(lambda: mail.moved(source))

    run_transaction(move, isolation="serializable")
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

from orm_core.database.connection import db
from orm_core.database.database import Database
from orm_core.database.limits import deadline
from orm_core.database.plain_functions import check_plain
from orm_core.database.transactions import Isolation, Transaction
from orm_core.errors import (
    CommitUnknown,
    ConnectionLost,
    ConnectionRefused,
    DeadlockDetected,
    InvalidValue,
    OrmCoreError,
    SerializationFailure,
    ServerUnavailable,
    TransactionError,
)

R = TypeVar("R")

#: seconds: the pause before attempt n + 1 is random up to FIRST_PAUSE * 2^(n - 1), "full jitter" in
#: "Exponential Backoff And Jitter", AWS Architecture Blog
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0

_lock = threading.Lock()
_retries: Counter[str] = Counter()
os.register_at_fork(after_in_child=_retries.clear)  # the parent counts its own


def retries() -> dict[str, int]:
    """How often this process ran a transaction again, by reason."""
    return dict(_retries)


def run_transaction(
    fn: Callable[[Transaction], R],
    *,
    isolation: Isolation | None = None,
    attempts: int = 5,
    idempotent: bool = False,
    database: Database | None = None,
) -> R:
    """Call ``fn(tx)`` inside a transaction, again when nothing was applied, and answer its result.

    At most ``attempts`` times: after ``SerializationFailure``, ``DeadlockDetected`` and a
    connection that was lost or refused before COMMIT. After a COMMIT that was not answered the
    server is asked what became of it; ``CommitUnknown`` is raised when it can't tell, unless
    ``idempotent`` says that a second run does no harm. Whatever ``fn`` does beside the database is
    done again, too, so leave it to ``tx.on_commit``, which counts for the attempt that held.

    No attempt begins after the end of a ``time_limit``.

    The error of the last attempt carries their number as ``attempts``. Raises ``TransactionError``
    inside a running transaction, as that one would have to be run again as a whole.
    """
    check_plain(fn, "run_transaction()")
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise InvalidValue("attempts must be a whole number, 1 or more.")
    target = database or db
    if target.in_transaction():
        raise TransactionError(
            "run_transaction() can't be used inside a transaction: what is repeated must be the "
            "whole of it. Call the function with the tx that is running."
        )
    for attempt in itertools.count(1):
        block = Transaction(target, isolation)
        results: list[R] = []
        try:
            with block as tx:
                results.append(fn(tx))
        except OrmCoreError as error:
            error.attempts = attempt
            outcome = block.outcome
            if isinstance(error, CommitUnknown) and results:  # else it is that of another block
                outcome = error.find_out()
                if outcome == "applied":
                    block.run_callbacks()
                    return results[0]
            may_repeat = outcome == "not applied" or (outcome == "unknown" and idempotent)
            reason = None if block.has_committed else _reason(error, is_ours=bool(results))
            longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt - 1, 10))
            pause = random.uniform(0, longest)  # noqa: S311
            is_last = attempt == attempts or time.monotonic() + pause >= deadline()
            if reason is None or not may_repeat or is_last:
                raise
        else:
            return results[0]
        with _lock:
            _retries[reason] += 1
        time.sleep(pause)
    raise AssertionError  # the loop has no end of its own


def _reason(error: OrmCoreError, *, is_ours: bool) -> str | None:
    """Why to try again; None when that is of no use.

    A CommitUnknown is that of our block when the function had ended.
    """
    if isinstance(error, DeadlockDetected):
        return "deadlock"
    if isinstance(error, SerializationFailure):
        return "serialization"
    if isinstance(error, CommitUnknown):
        return "connection" if is_ours else None
    if isinstance(error, ConnectionRefused | ServerUnavailable):
        return "connection"
    if isinstance(error, ConnectionLost) and error.outcome == "not applied":
        return "connection"
    return None
