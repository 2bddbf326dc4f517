"""Cuts connections whose server does not answer in time, so that no call hangs for ever.

A driver waits for the server inside libpq, where nothing of Python reaches it. One thread, started
when the first deadline is set, shuts the socket down under a call that is overdue; the driver then
reports a lost connection. Setting and clearing a deadline take no lock.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import Any

logger: logging.Logger = logging.getLogger("orm_core.pool")


class Watchdog:
    """The deadlines of the calls under way, by connection."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Watch nothing, as a process does that was forked: the thread stayed with its parent."""
        self._lock = threading.Lock()
        self._overdue_at: dict[int, tuple[float, Any]] = {}
        self._wakes_at = math.inf
        self._bell = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, connection: Any, deadline: float) -> None:
        """Cut the connection at ``deadline``, by the monotonic clock, unless ``clear`` is called."""
        self._overdue_at[id(connection)] = deadline, connection
        # A deadline is later than the last one as a rule, so the thread is seldom woken. It resets
        # _wakes_at before it looks: what it does not see there finds the new value here.
        if deadline < self._wakes_at:
            self._wake(deadline)

    def clear(self, connection: Any) -> bool:
        """The call is over; answers whether the connection was cut."""
        if self._overdue_at.pop(id(connection), None) is not None:
            return False
        with self._lock:  # it may be cut at this moment
            self._overdue_at.pop(id(connection), None)
        return bool(connection.was_cut)

    def watches(self, connection: Any) -> bool:
        """Whether it might still be cut."""
        return self._lock.locked() or id(connection) in self._overdue_at

    @contextmanager
    def watching(self, connection: Any, deadline: float) -> Generator[None]:
        """Cut the connection at ``deadline`` unless the block is over by then."""
        self.watch(connection, deadline)
        try:
            yield
        finally:
            self.clear(connection)

    def _wake(self, deadline: float) -> None:
        with self._lock:
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
        next_at = math.inf
        for key, (deadline, _) in list(self._overdue_at.items()):
            if deadline > now:
                next_at = min(next_at, deadline)
                continue
            taken = self._overdue_at.pop(key, None)
            if taken is None:
                continue  # over in the meantime
            if taken[0] > now:  # another call in the meantime
                self._overdue_at[key] = taken
                next_at = min(next_at, taken[0])
                continue
            _cut(taken[1])
        return next_at


def _cut(connection: Any) -> None:
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


#: the one of the process
watchdog: Watchdog = Watchdog()
os.register_at_fork(after_in_child=watchdog.start_anew)
