"""Interrupts at every place where Python can deliver one: no connection is lost or half open."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from concurrency import DEADLINE
from conftest import PLAIN
from ledger import APPLIED, DATABASE, UNKNOWN, Truth, agrees, new_token, outcome_of

import orm_core.database
from orm_core import connect_db, db

WRITER = Path(__file__).with_name("writer.py")
ROOM = str(Path(orm_core.database.__file__).parent)


class InterruptAt:
    """Raises KeyboardInterrupt at the call of that number in ``orm_core.database``.

    A signal's handler runs where a function begins or after a call of one written in C, so these
    are the places that count.
    """

    def __init__(self, number: int) -> None:
        self._left = number
        self.place: str | None = None

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        code = frame.f_code
        if event not in ("call", "c_return") or not code.co_filename.startswith(ROOM):
            return
        if code.co_name == "__del__":
            return  # Python prints what is raised there, and goes on
        if event == "call" and code.co_name == "__exit__":
            return  # of which no line has run: nobody can make up for that (bpo-29988)
        self._left -= 1
        if not self._left:
            sys.setprofile(None)
            name = getattr(called, "__name__", code.co_name)
            self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {event} {name}"
            raise KeyboardInterrupt


def interrupted(number: int, call: Callable[[], str]) -> tuple[str, str | None]:
    """What ``call`` answers when it is interrupted there, and where that was."""
    interrupt = InterruptAt(number)
    before = sys.getprofile()
    try:
        sys.setprofile(interrupt)
        told = call()
    except KeyboardInterrupt:
        told = UNKNOWN  # who is interrupted knows nothing
    finally:
        sys.setprofile(before)
    return told, interrupt.place


def what_is_wrong(truth: Truth) -> list[str]:
    """What an interrupt left behind; it is cleared away."""
    found = []
    stats = db.pool_stats()
    if stats.in_use:
        found.append(f"{stats.in_use} in use")
    if db.in_transaction():
        found.append("in a transaction")
    token = new_token()
    told = outcome_of(token)
    there = truth.rows(
        "SELECT (SELECT count(*) FROM debits WHERE token = %s),"
        " (SELECT count(*) FROM credits WHERE token = %s)",
        token,
        token,
    )
    if (told, there) != (APPLIED, [(1, 1)]):
        found.append(f"the next transfer is {told}, and there are {there[0]}")
    if found:
        truth.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        db._state.reset()
        db.pool.forget()
    return found


def test_an_interrupt_at_any_call_of_a_transfer_leaves_nothing_half_open(point, truth):
    point(pool_size=2, pool_timeout=1)
    wrong: list[tuple[str, Any]] = []
    for number in range(1, 1000):
        connect_db()
        token = new_token()
        told, place = interrupted(number, lambda token=token: outcome_of(token))
        if place is None:
            break
        if left := what_is_wrong(truth):
            wrong.append((place, left))
        if not agrees(told, halves := truth.halves(token)):
            wrong.append((place, (told, halves)))
    assert wrong == []
    assert number > 50


def test_a_storm_of_interrupts_leaves_no_half_open_connection(point, server, truth):
    url = server.server.url(DATABASE, "app", **PLAIN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, WRITER, url, "300"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + DEADLINE
        while process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            process.send_signal(signal.SIGINT)
            time.sleep(random.uniform(0.001, 0.009))
        report = json.loads(process.stdout.read())
    assert process.returncode == 0
    assert report["told"][report["last"]] == APPLIED
    assert truth.lies(report["told"].items()) == []
    size, in_use, idle, waiting = report["stats"]
    assert (size, in_use, waiting) == (2, 0, 0)
    assert 1 <= idle <= 2
