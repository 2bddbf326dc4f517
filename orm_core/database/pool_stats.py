"""What a pool tells of itself: how many connections, who holds them, how long threads waited."""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from os.path import dirname
from time import monotonic
from typing import Final, NamedTuple

#: seconds, upper bounds of the histogram of waits; the last bucket takes the rest
WAIT_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)
#: why a connection was closed
REASONS: Final = ("broken", "expired", "closed", "lost")
#: holders that an error names
_NAMED: Final = 10
#: folders whose lines are not the caller's
_OURS: Final = (
    dirname(dirname(__file__)),
    f"{dirname(sys.modules['peewee'].__file__ or 'peewee')}/peewee",
)
_STDLIB: Final = ("contextlib.py", "functools.py")


class Holder(NamedTuple):
    """Who has a connection: the thread, for how many seconds, and, in debug mode, taken where."""

    thread: str
    seconds: float
    site: str | None = None

    def __str__(self) -> str:
        where = f", taken at {self.site}" if self.site else ""
        return f"{self.thread} for {self.seconds:.1f} s{where}"


@dataclass(frozen=True, slots=True)
class PoolStats:
    """``size`` is the limit; ``in_use + idle`` are open now; ``waiting`` threads queue.

    The rest counts from the start of the process. ``opened`` connections, ``closed`` by reason:
    "broken", "expired" (``pool_max_lifetime``), "closed" (``close_db``), "lost" (never returned).
    ``taken`` is how often a thread got a connection, ``waits`` how often it had to queue,
    ``timeouts`` how often in vain; ``waited`` and ``longest_wait`` are seconds. ``holders`` are
    those of the connections in use, the longest first. Only the first four count in ``==``.
    """

    size: int
    in_use: int
    idle: int
    waiting: int
    opened: int = field(default=0, compare=False)
    closed: dict[str, int] = field(default_factory=dict[str, int], compare=False)
    taken: int = field(default=0, compare=False)
    waits: int = field(default=0, compare=False)
    timeouts: int = field(default=0, compare=False)
    waited: float = field(default=0.0, compare=False)
    longest_wait: float = field(default=0.0, compare=False)
    holders: tuple[Holder, ...] = field(default=(), compare=False)
    #: waits by ``WAIT_BUCKETS``; who found an idle connection is in none
    wait_counts: tuple[int, ...] = field(default=(), compare=False, repr=False)


class Tally:
    """The counters of a pool; changed under its lock."""

    def __init__(self) -> None:
        self.opened = 0
        self.taken = 0
        self.timeouts = 0
        self.waited: float = 0.0
        self.longest_wait: float = 0.0
        self.closed: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.wait_counts: list[int] = [0] * (len(WAIT_BUCKETS) + 1)

    def add_wait(self, seconds: float) -> None:
        """Somebody queued for so long."""
        self.wait_counts[bisect_left(WAIT_BUCKETS, seconds)] += 1
        self.waited += seconds
        self.longest_wait = max(self.longest_wait, seconds)

    def stats(self, size: int, idle: int, waiting: int, holders: list[Holder]) -> PoolStats:
        """These counters and the state of now."""
        return PoolStats(
            size=size,
            in_use=len(holders),
            idle=idle,
            waiting=waiting,
            opened=self.opened,
            closed=dict(self.closed),
            taken=self.taken,
            waits=sum(self.wait_counts),
            timeouts=self.timeouts,
            waited=self.waited,
            longest_wait=self.longest_wait,
            holders=tuple(sorted(holders, key=lambda holder: -holder.seconds)),
            wait_counts=tuple(self.wait_counts),
        )


def holder(thread: threading.Thread, taken_at: float, site: str | None) -> Holder:
    """Who holds a connection since ``taken_at``."""
    return Holder(thread.name, max(0.0, monotonic() - taken_at), site)


def named(holders: tuple[Holder, ...]) -> str:
    """The holders for an error's text, the longest first."""
    more = len(holders) - _NAMED
    text = "; ".join(map(str, holders[:_NAMED]))
    return f"{text}; and {more} more" if more > 0 else text


def call_site() -> str | None:
    """``file:line in function`` of who called orm_core."""
    import inspect  # slow to import, and for debugging only

    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS) and not code.co_filename.endswith(_STDLIB):
            return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
        frame = frame.f_back
    return None
