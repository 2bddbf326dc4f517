"""A pool of driver connections: first come, first served, no network under its lock.

A thread that finds no free connection queues up and is handed one in turn. Connecting, rolling
back and closing happen outside the lock, so a slow server delays only those who wait for it. An
idle connection is looked at with ``poll()`` before use: a healthy idle socket has nothing to
read, one that the server closed has.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from orm_core.database.drivers.protocol import IDLE, IN_ERROR, IN_TRANSACTION
from orm_core.errors import PoolTimeout

logger: logging.Logger = logging.getLogger("orm_core.pool")

#: seconds idle after which a connection is pinged before use: firewalls forget silent ones
PING_AFTER = 60.0
#: seconds between looks for threads that died with a connection, while somebody waits for one
RECLAIM_EVERY = 0.5


class PoolStats(NamedTuple):
    """``size`` is the limit; ``in_use + idle`` are open now; ``waiting`` threads queue."""

    size: int
    in_use: int
    idle: int
    waiting: int


class _Waiter:
    """A place in the queue: either a connection or the right to open one is handed to it."""

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.ready = threading.Event()
        self.connection: Any = None


class Pool:
    """Connections made by ``connect``, at most ``size`` at a time.

    ``timeout`` is the longest wait for one, in seconds.
    """

    def __init__(self, connect: Callable[[], Any], *, size: int, timeout: float) -> None:
        self._connect = connect
        self._size = size
        self._timeout = timeout
        self.forget()

    def forget(self) -> None:
        """Start empty, without touching the connections: they belong to a parent process.

        The driver closes no connection that another process made.
        """
        self._lock = threading.Lock()
        self._idle: list[tuple[Any, float]] = []
        self._in_use: dict[int, tuple[Any, threading.Thread]] = {}
        self._opening = 0
        self._waiters: deque[_Waiter] = deque()

    def stats(self) -> PoolStats:
        """How many connections are in use and idle, how many threads wait."""
        with self._lock:
            in_use = len(self._in_use) + self._opening
            return PoolStats(self._size, in_use, len(self._idle), len(self._waiters))

    def acquire(self) -> Any:
        """A connection for this thread; give it back with ``release``.

        Raises ``PoolTimeout`` when none comes free in time, and what ``connect`` raises.
        """
        connection, idle_since = self._take()
        if connection is not None:
            if _is_usable(connection, idle_since):
                return connection
            _close(connection)
            with self._lock:
                self._in_use.pop(id(connection), None)
                self._opening += 1
        try:
            connection = self._connect()
        except BaseException:
            with self._lock:
                self._opening -= 1
                self._grant()
            raise
        with self._lock:
            self._opening -= 1
            self._hold(connection, threading.current_thread())
        return connection

    def _take(self) -> tuple[Any, float]:
        """An idle connection and since when, or None and the right (counted) to open one."""
        with self._lock:
            self._reclaim()
            if not self._waiters:
                if self._idle:
                    connection, since = self._idle.pop()
                    self._hold(connection, threading.current_thread())
                    return connection, since
                if self._open_count() < self._size:
                    self._opening += 1
                    return None, 0.0
            waiter = _Waiter()
            self._waiters.append(waiter)
        try:
            arrived = self._wait(waiter)
        except BaseException:
            if not self._leave(waiter):
                self._return_grant(waiter)
            raise
        if not arrived and self._leave(waiter):
            raise PoolTimeout(
                f"No connection came free within {self._timeout:g} s: all {self._size} are in "
                "use. Give connections back sooner (with db.connection_context(): ...), or raise "
                "ORM_CORE_POOL_SIZE / pool_size."
            )
        return waiter.connection, time.monotonic()

    def _wait(self, waiter: _Waiter) -> bool:
        """Whether something was handed over in time; looks for dead threads meanwhile."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0:
            if waiter.ready.wait(min(left, RECLAIM_EVERY)):
                return True
            with self._lock:
                self._reclaim()
        return waiter.ready.is_set()

    def _leave(self, waiter: _Waiter) -> bool:
        """Leave the queue; False when something was handed over in the meantime."""
        with self._lock:
            if not waiter.ready.is_set():
                self._waiters.remove(waiter)
                return True
        return False

    def _return_grant(self, waiter: _Waiter) -> None:
        if waiter.connection is not None:
            self.release(waiter.connection)
            return
        with self._lock:
            self._opening -= 1
            self._grant()

    def _open_count(self) -> int:
        return len(self._idle) + len(self._in_use) + self._opening

    def _hold(self, connection: Any, thread: threading.Thread) -> None:
        self._in_use[id(connection)] = (connection, thread)

    def _reclaim(self) -> None:
        """Take back the connections of threads that died without giving them back."""
        dead = [key for key, (_, thread) in self._in_use.items() if not thread.is_alive()]
        for key in dead:
            connection, thread = self._in_use.pop(key)
            logger.warning("Thread %s ended without returning its connection.", thread.name)
            _close(connection)
            self._grant()

    def release(self, connection: Any) -> None:
        """Give a connection back; one that is broken is closed instead.

        A transaction that is still open is rolled back.
        """
        reusable = _reset(connection)
        with self._lock:
            if self._in_use.pop(id(connection), None) is None:
                reusable = False  # closed by close(), or the pool is not its pool any more
            elif reusable and self._waiters:
                waiter = self._waiters.popleft()
                self._hold(connection, waiter.thread)
                waiter.connection = connection
                waiter.ready.set()
                return
            elif reusable:
                self._idle.append((connection, time.monotonic()))
            else:
                self._grant()
        if not reusable:
            _close(connection)

    def _grant(self) -> None:
        """A place came free: let the first in the queue open a connection."""
        if self._waiters and self._open_count() < self._size:
            self._opening += 1
            self._waiters.popleft().ready.set()

    def close(self) -> None:
        """Close the idle connections now, those in use when they come back."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._in_use.clear()
            for _ in range(self._size):
                self._grant()
        for connection, _ in idle:
            _close(connection)


def _is_usable(connection: Any, idle_since: float) -> bool:
    if connection.closed:
        return False
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    if poller.poll(0):
        return False
    if time.monotonic() - idle_since > PING_AFTER:
        try:
            connection.cursor().execute("SELECT 1")
        except Exception:
            return False
    return True


def _reset(connection: Any) -> bool:
    """Whether the connection can serve somebody else."""
    if connection.closed:
        return False
    status = connection.get_transaction_status()
    if status == IDLE:
        return True
    if status in (IN_TRANSACTION, IN_ERROR):
        try:
            connection.cursor().execute("ROLLBACK")
        except Exception:
            return False
        return True
    return False


def _close(connection: Any) -> None:
    try:
        connection.close()
    except Exception:
        logger.debug("Closing a connection failed.", exc_info=True)
