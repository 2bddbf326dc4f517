"""Cuts connections whose server does not answer in time, so that no call hangs for ever.

A driver waits for the server inside libpq, where nothing of Python reaches it. One thread, started
when the first deadline is set, shuts the socket down under a call that is overdue; the driver then
reports a lost connection. Setting and clearing a deadline take no lock: they are attributes of the
connection.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

logger: logging.Logger = logging.getLogger("orm_core.pool")

NEVER: Final = math.inf


class Watchdog:
    """Knows connections, each of which has the time when the call under way is overdue."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Watch nothing, as a process does that was forked: the thread stayed with its parent."""
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._wakes_at = math.inf
        self._bell = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, connection: Any, deadline: float) -> None:
        """Cut the connection at ``deadline``, by the monotonic clock, unless ``clear`` is called."""
        connection.overdue_at = deadline
        # A deadline is later than the last one as a rule, so the thread is seldom woken. It resets
        # _wakes_at before it looks: what it does not see there finds the new value here.
        if deadline < self._wakes_at or not connection.is_watched:
            self._wake(connection, deadline)

    def clear(self, connection: Any) -> bool:
        """The call is over; answers whether the connection was cut."""
        connection.overdue_at = NEVER
        if not connection.is_being_cut:
            return False
        with self._lock:  # which the thread has while it cuts, if it does
            return bool(connection.was_cut)

    def watches(self, connection: Any) -> bool:
        """Whether it might still be cut."""
        return bool(connection.overdue_at != NEVER or connection.is_being_cut)

    @contextmanager
    def watching(self, connection: Any, deadline: float) -> Generator[None]:
        """Cut the connection at ``deadline`` unless the block is over by then."""
        self.watch(connection, deadline)
        try:
            yield
        finally:
            self.clear(connection)

    def _wake(self, connection: Any, deadline: float) -> None:
        with self._lock:
            self._connections.add(connection)
            connection.is_watched = True
            # Kept when the call is over before: the next ones need not wake the thread then.
            self._wakes_at = min(self._wakes_at, deadline)
            if self._thread is None:
                self._start()
            self._bell.set()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="orm_core-watchdog", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is about to end, or the system has no thread left
            logger.warning("No thread to watch the time limits; the server's own are in force.")
        else:
            self._thread = thread

    def _run(self) -> None:
        bell = self._bell
        while bell is self._bell:
            left = self._wakes_at - monotonic()
            if left > 0:
                bell.wait(min(left, threading.TIMEOUT_MAX))
                bell.clear()
                continue
            with self._lock:
                self._wakes_at = math.inf
                self._wakes_at = self._cut_overdue(monotonic())

    def _cut_overdue(self, now: float) -> float:
        """Cut what is overdue; answers when the next one will be."""
        next_at = NEVER
        for connection in self._connections:
            if connection.overdue_at <= now:
                _cut(connection, now)
            next_at = min(next_at, connection.overdue_at)
        return next_at


def _cut(connection: Any, now: float) -> None:
    # One side says what it does and then looks at the other: ``clear`` sees that it may be cut, or
    # the second look here sees that the call is over.
    connection.is_being_cut = True
    if connection.overdue_at > now:
        connection.is_being_cut = False
        return
    try:
        connection.was_cut = True
        link = socket.socket(fileno=connection.fileno())
        try:
            link.shutdown(socket.SHUT_RDWR)
        finally:
            link.detach()  # the driver closes it
    except Exception:
        logger.debug("Cutting a connection failed.", exc_info=True)
    else:
        logger.warning("The server did not answer in time; the connection was cut.")
    connection.overdue_at = NEVER


#: the one of the process
watchdog: Watchdog = Watchdog()
os.register_at_fork(after_in_child=watchdog.start_anew)
