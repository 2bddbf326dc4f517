"""Time limits: those of a database, and ``with time_limit(2):`` for a block.

A limit is kept twice. The server ends a statement that takes too long (``statement_timeout``); the
transaction is rolled back and the connection stays. When the server does not answer either, frozen
or behind a network that swallows packets, the connection is cut ``GRACE`` seconds later
(``orm_core.database.watchdog``).
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import math
import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar
from time import monotonic
from typing import Final, NamedTuple

from orm_core.database.plain_functions import block
from orm_core.errors import InvalidValue

#: seconds that the server has, after a limit, to say that it ended the statement
GRACE: Final = 1.0

#: when the block that is running must be over, by the monotonic clock
_deadline: ContextVar[float] = ContextVar("orm_core_deadline", default=math.inf)

#: the same, at the price of a look-up
deadline: Callable[[], float] = _deadline.get


@block
def time_limit(seconds: float) -> Generator[None]:
    """All calls of the database in the block must be over within ``seconds`` of its begin.

    The wait for a connection, connecting and each statement end by then, with ``PoolTimeout``,
    ``ConnectTimeout`` or ``StatementTimeout``; with ``NoAnswer`` one second later when the server
    is silent. Takes the place of the setting ``statement_timeout``, also for longer. Inside
    another block the limit that ends first counts. Python code between the calls is not
    interrupted, and a transaction that ends late is still committed or rolled back. Raises
    ``InvalidValue`` for what is no number above 0.
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= threading.TIMEOUT_MAX:
        raise InvalidValue("time_limit() takes a number of seconds above 0.")
    token = _deadline.set(min(deadline(), monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


class Limits(NamedTuple):
    """Seconds that the server is told when a session begins; 0 is no limit."""

    statement: float = 0
    lock: float = 0
    idle_in_transaction: float = 0

    @property
    def startup_options(self) -> str:
        """The same as libpq's ``options``."""
        told = {
            "statement_timeout": self.statement,
            "lock_timeout": self.lock,
            "idle_in_transaction_session_timeout": self.idle_in_transaction,
        }
        return " ".join(
            f"-c {name}={milliseconds(seconds)}" for name, seconds in told.items() if seconds
        )


def milliseconds(seconds: float) -> int:
    """What PostgreSQL takes: whole ones, and 1 at least, as 0 is no limit."""
    return max(1, round(seconds * 1000))
