"""A pool of driver connections: first come, first served, no network under its lock.

A thread that finds no free connection queues up and is handed one in turn. Connecting, asking,
rolling back and closing happen outside the lock, so a slow server delays only those who wait for
it. An idle connection is looked at with ``poll()`` before use: a healthy idle socket has nothing to
read, one that the server closed has.

A place is a connection, or the right to open one. Each is in ``_idle`` or in ``_held``, which alone
say how many there are, and is owned by one ``Lease``. A lease that is dropped, because its thread
died or was interrupted at whatever line, gives its place up as lost.
"""

from __future__ import annotations

import logging
import math
import random
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from orm_core.database import limits
from orm_core.database.drivers.protocol import IDLE, IN_ERROR, IN_TRANSACTION
from orm_core.database.pool_stats import Holder, PoolStats, Tally, call_site, holder, named
from orm_core.database.watchdog import watchdog
from orm_core.errors import PoolClosed, PoolTimeout

logger: logging.Logger = logging.getLogger("orm_core.pool")

Reset: TypeAlias = Literal["rollback", "discard"]
_new_lock = threading.Lock
_this_thread = threading.current_thread

#: seconds idle after which a connection is asked before use: firewalls forget silent ones
PING_AFTER = 60.0
#: seconds between looks for connections that were lost, while somebody waits for one
RECLAIM_EVERY: Final = 0.5
#: seconds to wait for the answer of a connection that is asked or reset
PATIENCE: Final = 5.0
#: the part of its lifetime that chance takes off a connection, so that not all end at once
_JITTER: Final = 0.2
_DRAIN_EVERY: Final = 0.01
_OPEN: Final = (IN_TRANSACTION, IN_ERROR)


class PoolOptions(NamedTuple):
    """Of a pool; times are seconds.

    ``size``: most connections. ``timeout``: longest wait for one. ``max_lifetime``: age at which
    one is replaced, 0 for none. ``reset``: "discard" has each user begin with a fresh session,
    "rollback" only without a transaction. ``debug``: remember which line took a connection.
    ``patience``: longest wait for the answer of a connection that is asked or reset.
    """

    size: int = 10
    timeout: float = 10.0
    max_lifetime: float = 0.0
    reset: Reset = "rollback"
    debug: bool = False
    patience: float = PATIENCE


class _Place:
    """A connection of the pool, or None while it is being opened, and who has it."""

    __slots__ = (
        "connection",
        "expires_at",
        "idle_since",
        "is_retired",
        "poller",
        "since",
        "site",
        "thread",
    )

    def __init__(self) -> None:
        self.connection: Any = None
        self.poller: Any = None
        self.expires_at: float = math.inf
        self.is_retired: bool = False
        self.idle_since: float = 0.0
        #: since when it is held
        self.since: float = 0.0
        self.thread: threading.Thread
        self.site: str | None = None

    def put(self, connection: Any, max_lifetime: float) -> None:
        """Have it be a connection, which has just been opened."""
        self.idle_since = monotonic()
        self.poller = select.poll()
        self.poller.register(connection.fileno(), select.POLLIN)
        if max_lifetime:
            share = 1 - _JITTER * random.random()  # noqa: S311
            self.expires_at = monotonic() + max_lifetime * share
        self.connection = connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            _close(connection)

    def retire(self) -> None:
        """Close the connection once the rows are read that it received."""
        connection, self.connection = self.connection, None
        connection.let_go()
        connection.retire()


class Lease:
    """The use of one connection, from ``Pool.acquire`` to ``end``."""

    __slots__ = ("_lost", "is_refused", "place", "pool", "ready", "site", "thread")

    def __init__(self, pool: Pool) -> None:
        self.place: _Place | None = None
        self.pool: Pool = pool
        self.thread: threading.Thread = _this_thread()
        self.site: str | None = call_site() if pool.options.debug else None
        #: set when a place is handed over, or refused, to one who waits
        self.ready: threading.Event | None = None
        self.is_refused: bool = False
        self._lost = pool.lost

    @property
    def connection(self) -> Any:
        """The driver's connection."""
        return self.place.connection if self.place is not None else None

    def has_news(self) -> bool:
        """Whether there is something to read that nobody asked for: most often the end."""
        return self.place is None or bool(self.place.poller.poll(0))

    def end(self) -> None:
        """Give the connection back; twice is no error."""
        self.pool.release(self)

    def __del__(self) -> None:
        # Whoever runs this may be anywhere, also under the pool's lock.
        place = getattr(self, "place", None)
        if place is not None:
            self._lost.append(place)


class Pool:
    """Connections made by ``connect``, at most ``options.size`` at a time."""

    def __init__(
        self,
        connect: Callable[[], Any],
        options: PoolOptions | None = None,
    ) -> None:
        self._connect = connect
        self.options: PoolOptions = options or PoolOptions()
        self.forget()

    def forget(self) -> None:
        """Start empty, without touching the connections: they belong to a parent process.

        The driver closes no connection that another process made.
        """
        self._lock = _new_lock()
        self._idle: list[_Place] = []
        self._held: set[_Place] = set()
        self._queue: deque[Lease] = deque()
        self.lost: deque[_Place] = deque()
        self._tally = Tally()

    def stats(self) -> PoolStats:
        """The connections, who holds and who waits for them, and what was counted so far."""
        self._reclaim()
        with self._lock:
            return self._tally.stats(
                self.options.size, len(self._idle), len(self._queue), self._holders()
            )

    def _holders(self) -> list[Holder]:
        return [holder(place.thread, place.since, place.site) for place in self._held]

    # -- taking -----------------------------------------------------------------------------

    def acquire(self) -> Lease:
        """A connection, until its ``end``.

        Raises ``PoolTimeout`` when none comes free in time, ``PoolClosed`` when the pool is closed
        meanwhile, and what ``connect`` raises.
        """
        lease = Lease(self)
        try:
            place = self._take(lease)
            if place.connection is not None:
                reason = self._unfit(place)
                if reason is not None:
                    self._discard(place, reason)
            if place.connection is None:
                place.put(self._connect(), self.options.max_lifetime)
                with self._lock:
                    self._tally.opened += 1
        except BaseException:
            self.release(lease)
            raise
        return lease

    def _take(self, lease: Lease) -> _Place:
        """A place for the lease: with an idle connection, or with the right to open one."""
        if self.lost:
            self._reclaim()
        with self._lock:
            # In this order an interrupt loses a connection at worst, which closes itself.
            if not self._queue and (place := self._free_place()) is not None:
                lease.place = place
                self._hold(place, lease)
                return place
            lease.ready = threading.Event()
            self._queue.append(lease)
        return self._wait(lease)

    def _free_place(self) -> _Place | None:
        if self._idle:
            return self._idle.pop()
        return _Place() if len(self._held) < self.options.size else None

    def _hold(self, place: _Place, lease: Lease) -> None:
        place.thread, place.site = lease.thread, lease.site
        place.since = monotonic()
        self._held.add(place)
        self._tally.taken += 1

    def _wait(self, lease: Lease) -> _Place:
        ready: Any = lease.ready
        started = monotonic()
        until = min(started + self.options.timeout, limits.deadline())
        while not ready.is_set() and (left := until - monotonic()) > 0:
            if not ready.wait(min(left, RECLAIM_EVERY)):
                self._reclaim()
                with self._lock:
                    self._serve()
        waited = monotonic() - started
        with self._lock:
            if not lease.is_refused:
                self._tally.add_wait(waited)
            if not ready.is_set():
                self._tally.timeouts += 1
            holders = self._holders() if lease.place is None else []
        if lease.is_refused:
            raise PoolClosed("The database was closed while this thread waited for a connection.")
        if lease.place is None:
            raise PoolTimeout(self._told(until - started, tuple(holders)))
        lease.ready = None
        return lease.place

    def _told(self, seconds: float, holders: tuple[Holder, ...]) -> str:
        ordered = tuple(sorted(holders, key=lambda one: -one.seconds))
        debug = "" if self.options.debug else " ORM_CORE_POOL_DEBUG=1 tells which line took each."
        return (
            f"No connection came free within {max(0.01, round(seconds, 2)):g} s: all {self.options.size} are in use, "
            f"by {named(ordered)}. Give connections back sooner (with db.connection_context(): "
            f"...), or raise ORM_CORE_POOL_SIZE / pool_size.{debug}"
        )

    def _serve(self) -> None:
        """Hand what is free to those who wait; goes on where an interrupt left off."""
        queue = self._queue
        while queue:
            lease = queue[0]
            ready = lease.ready
            if ready is not None and not ready.is_set():
                if lease.place is None:
                    lease.place = self._free_place()
                if lease.place is None:
                    return
                self._hold(lease.place, lease)
                ready.set()
            queue.popleft()

    # -- giving back ------------------------------------------------------------------------

    def release(self, lease: Lease) -> None:
        """Take a connection back; one that is broken or too old is closed instead.

        A transaction that is still open is rolled back. Called twice it ends what the first call,
        interrupted, began.
        """
        if lease.ready is not None:
            with self._lock:
                if lease in self._queue:
                    self._queue.remove(lease)
            lease.ready = None
        place = lease.place
        if place is None:
            return
        reason = self._unreturnable(place)
        with self._lock:
            if place not in self._held and reason is None:
                reason = "closed"
            self._held.discard(place)
            lease.place = None
            if reason is None:
                place.idle_since = monotonic()
                self._idle.append(place)
            elif place.connection is not None:
                self._tally.closed[reason] += 1
            if self._queue:
                self._serve()
        if reason is None:
            return
        if reason in ("expired", "closed") and sys.exc_info()[0] is None:
            place.retire()  # of a statement whose rows are still to be read
        else:
            place.close()

    def _unreturnable(self, place: _Place) -> str | None:
        """Why a connection can't serve somebody else, if so."""
        connection = place.connection
        if connection is None:
            return "broken"
        if watchdog.watches(connection):
            watchdog.clear(connection)  # of a call that was interrupted
        if place.is_retired or place not in self._held:
            return "closed"
        if monotonic() >= place.expires_at:
            return "expired"
        return None if self._reset(connection) else "broken"

    def _reset(self, connection: Any) -> bool:
        """Bring a session to where the next user expects it; whether that worked."""
        if connection.closed or connection.was_cut:
            return False
        status = connection.get_transaction_status()
        if status != IDLE and not (status in _OPEN and self._ask(connection, "ROLLBACK")):
            return False
        if self.options.reset == "rollback":
            return True
        connection.forget_prepared()
        return self._ask(connection, "DISCARD ALL")

    def _ask(self, connection: Any, sql: str) -> bool:
        """Whether the server does it in time."""
        watchdog.watch(connection, monotonic() + self.options.patience)
        try:
            connection.cursor().execute(sql)
        except Exception:
            return False
        finally:
            was_cut = watchdog.clear(connection)
        return not was_cut

    def _unfit(self, place: _Place) -> str | None:
        """Why an idle connection can't be used, if so."""
        if place.connection.closed or place.poller.poll(0):
            return "broken"
        now = monotonic()
        if now >= place.expires_at:
            return "expired"
        if now - place.idle_since > PING_AFTER and not self._ask(place.connection, "SELECT 1"):
            return "broken"
        return None

    def _discard(self, place: _Place, reason: str) -> None:
        """Have a held place be one to open a connection for."""
        with self._lock:
            self._tally.closed[reason] += 1
        place.retire()  # somebody may still read what it answered last

    def _reclaim(self) -> None:
        """Take the places of leases that were dropped without being ended."""
        while self.lost:
            with self._lock:
                if not self.lost:
                    return
                place = self.lost[0]
                self._held.discard(place)
                self._tally.closed["lost"] += place.connection is not None
                self.lost.popleft()
                self._serve()
            if place.connection is not None:
                told = "Thread %s ended without returning its connection%s."
                if place.thread.is_alive():
                    told = "Thread %s lost its connection%s."
                logger.warning(told, place.thread.name, _taken(place))
            place.close()

    # -- the end ----------------------------------------------------------------------------

    def close(self, timeout: float = 0.0) -> bool:
        """Close the idle connections now, those in use when they come back.

        Waits ``timeout`` seconds at most for those in use, and answers whether all came back. Who
        waits for a connection gets ``PoolClosed``. The next ``acquire`` opens anew.
        """
        with self._lock:
            idle, self._idle = self._idle, []
            retired = set(self._held)
            for place in retired:
                place.is_retired = True
            self._tally.closed["closed"] += len(idle)
            for lease in self._queue:
                lease.is_refused = lease.place is None
                if lease.is_refused and lease.ready is not None:
                    lease.ready.set()
            self._queue.clear()
        for place in idle:
            place.close()
        return self._drain(retired, timeout)

    def _drain(self, retired: set[_Place], timeout: float) -> bool:
        until = monotonic() + timeout
        while retired & self._held:
            self._reclaim()
            if monotonic() >= until:
                break
            sleep(_DRAIN_EVERY)
        left = retired & self._held
        if left and timeout:
            for place in left:
                name = place.thread.name
                logger.warning("Thread %s still has its connection%s.", name, _taken(place))
        return not left


def _taken(place: _Place) -> str:
    where = f" at {place.site}" if place.site else ""
    return f", taken {monotonic() - place.since:.1f} s ago{where}"


def _close(connection: Any) -> None:
    connection.let_go()
    try:
        connection.close()
    except Exception:
        logger.debug("Closing a connection failed.", exc_info=True)
