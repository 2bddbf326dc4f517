"""Ctrl-C at each line of taking, using and giving back a connection, one after the other."""

from __future__ import annotations

import linecache
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from orm_core import Database, close_db, connect_db, db, initialize_db, time_limit
from orm_core.database import connecting, opening, pool, sending, watchdog
from orm_core.database.drivers.session import Session

DEADLINE = 10.0
FILES = {str(module.__file__) for module in (connecting, sending, pool, watchdog, opening)}
#: an interrupt is never delivered on these, nor where a ``with`` ends
_NO_CALL = ("try:", "finally:", "else:", "except ")


class Interrupter:
    """Raises KeyboardInterrupt on the ``number``-th line of the pool's that this thread runs."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.place = ""
        self._entered: dict[tuple[int, int], int] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in FILES or frame.f_code.co_name == "__del__":
            return None
        if event == "line" and not self.place and self._counts(frame):
            self.left -= 1
            if not self.left:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self

    def _counts(self, frame: FrameType) -> bool:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if text.startswith("with "):
            key = id(frame), frame.f_lineno
            self._entered[key] = self._entered.get(key, 0) + 1
            return self._entered[key] % 2 == 1
        return not text.startswith(_NO_CALL)


def interrupted_at(number: int, action: Callable[[], Any]) -> str:
    """Where the action was interrupted; empty when it ended before."""
    interrupter = Interrupter(number)
    sys.settrace(interrupter)
    try:
        action()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return interrupter.place


@pytest.fixture
def sessions(orm_core_worker_url: str) -> Iterator[Callable[[], int]]:
    """Points ``db`` at a pool of two; answers how many sessions of it the server has."""
    initialize_db(f"{orm_core_worker_url}&application_name=interrupted", pool_size=2)
    watcher = Database(db.database, **db.connect_params | {"application_name": "watcher"})
    silent = Session()
    watchdog.watchdog.watch(silent, time.monotonic() + 600)  # its thread runs
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'interrupted' AND state <> 'active'"
    )
    watcher.connect()
    yield lambda: int(watcher.execute_sql(query).fetchone()[0])
    watcher.close_all()
    close_db()


def check(place: str, sessions: Callable[[], int]) -> None:
    """Nothing is held, nothing is lost, and all places can be used."""
    db.close()
    stats = db.pool_stats()
    assert (stats.in_use, stats.waiting) == (0, 0), place
    assert not watchdog.watchdog._lock.locked(), place
    leases = [db.pool.acquire(), db.pool.acquire()]
    assert [lease.connection.get_transaction_status() for lease in leases] == [0, 0], place
    for lease in leases:
        lease.connection.cursor().execute("SELECT 1")
        lease.end()
    deadline = time.monotonic() + DEADLINE
    while sessions() != db.pool_stats().idle:
        assert time.monotonic() < deadline, f"{place}: {sessions()} sessions, {db.pool_stats()}"
        time.sleep(0.005)


def statement() -> None:
    db.execute_sql("SELECT 1")


def statement_in_a_block() -> None:
    with time_limit(30):
        db.execute_sql("SELECT 1")


def block() -> None:
    try:
        db.connect()
        db.execute_sql("BEGIN")
    finally:
        db.close()


@pytest.mark.parametrize("action", [statement, statement_in_a_block, block])
@pytest.mark.parametrize("is_open", [True, False])
def test_an_interrupt_at_any_line_loses_no_connection(sessions, action, is_open, caplog):
    caplog.set_level(logging.CRITICAL)
    number, places = 0, set()
    while True:
        number += 1
        if not is_open:
            close_db()
        place = interrupted_at(number, action)
        if not place:
            break
        places.add(place)
        check(place, sessions)
    assert len(places) > 40


def test_an_interrupt_while_others_wait_leaves_nobody_waiting(sessions, caplog, monkeypatch):
    monkeypatch.setattr(pool, "RECLAIM_EVERY", 0.01)
    caplog.set_level(logging.CRITICAL)
    number = 0
    while True:
        number += 1
        held = [db.pool.acquire(), db.pool.acquire()]
        served: list[Any] = []

        def visit(served: list[Any] = served) -> None:
            db.execute_sql("SELECT 1")
            served.append(True)

        thread = threading.Thread(target=visit)
        thread.start()
        while not db.pool_stats().waiting:
            time.sleep(0.001)
        place = interrupted_at(number, held.pop().end)
        held.clear()
        thread.join(DEADLINE)
        assert served == [True], place
        if not place:
            break
        check(place, sessions)
    connect_db()
    assert number > 10
