"""Interrupts at every place where Python can deliver one: no connection is lost or half open."""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from concurrency import DEADLINE
from ledger import (
    APPLIED,
    DATABASE,
    NOT_APPLIED,
    PLAIN,
    UNKNOWN,
    Credits,
    Debits,
    Truth,
    agrees,
    new_token,
    outcome_of,
    transfer,
)

import orm_core.database
from orm_core import OrmCoreError, connect_db, db, transaction
from orm_core.database import leaving

WRITER = Path(__file__).with_name("writer.py")
ROOM = str(Path(orm_core.database.__file__).parent)
EXIT = leaving.__file__


class InterruptAt:
    """Raises KeyboardInterrupt at the call of that number in ``orm_core.database``.

    A signal's handler runs where a function begins or after a call of one written in C, so these
    are the places that count; with ``at_exit`` only those around the end of a block.
    """

    def __init__(self, number: int, *, at_exit: bool = False) -> None:
        self._left = number
        self._at_exit = at_exit
        self.place: str | None = None

    def _counts(self, frame: FrameType) -> bool:
        """Whether this is one of the places asked for."""
        return not self._at_exit or EXIT in (frame.f_code.co_filename, _file(frame.f_back))

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        code = frame.f_code
        if event not in ("call", "c_return") or not code.co_filename.startswith(ROOM):
            return
        if code.co_name == "__del__":
            return  # Python prints what is raised there, and goes on
        if event == "call" and code.co_filename == EXIT and "error" in frame.f_locals:
            return  # a generator that is closed, where Python looks for no signals
        if not self._counts(frame):
            return
        self._left -= 1
        if not self._left:
            sys.setprofile(None)
            name = getattr(called, "__name__", code.co_name)
            self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {event} {name}"
            raise KeyboardInterrupt


def _file(frame: FrameType | None) -> str | None:
    return frame.f_code.co_filename if frame is not None else None


def interrupted(
    interrupt: InterruptAt, call: Callable[[], str], truth: Truth
) -> tuple[str, list[str]]:
    """What ``call`` answers when it is interrupted there, and what is wrong then."""
    before = sys.getprofile()
    try:
        sys.setprofile(interrupt)
        told = call()
    except KeyboardInterrupt:
        sys.setprofile(before)
        # Here, as its traceback holds whatever was under way.
        return UNKNOWN, what_is_wrong(truth)  # who is interrupted knows nothing
    finally:
        sys.setprofile(before)
    return told, what_is_wrong(truth)


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
        interrupt = InterruptAt(number)
        told, left = interrupted(interrupt, lambda token=token: outcome_of(token), truth)
        if interrupt.place is None:
            break
        if left:
            wrong.append((interrupt.place, left))
        if not agrees(told, halves := truth.halves(token)):
            wrong.append((interrupt.place, (told, halves)))
    assert wrong == []
    assert number > 50


class Oops(Exception):
    """What a block is left by."""


OOPS = Oops()
#: what a block does last: it looks up "thing"
Last = Mapping[str, object]
Way = Callable[[str, Last], None]


def as_transaction(token: str, last: Last) -> None:
    with transaction():
        add(token)
        _ = last["thing"]


def as_atomic(token: str, last: Last) -> None:
    with db.atomic():
        add(token)
        _ = last["thing"]


def nested(token: str, last: Last) -> None:
    with transaction(), transaction():
        add(token)
        _ = last["thing"]


def decorated(token: str, last: Last) -> None:
    @transaction()
    def work() -> None:
        add(token)
        _ = last["thing"]

    work()


def with_db(token: str, last: Last) -> None:
    with db:
        add(token)
        _ = last["thing"]


def with_db_twice(token: str, last: Last) -> None:
    with db, db:
        add(token)
        _ = last["thing"]


def in_context(token: str, last: Last) -> None:
    with db.connection_context():
        transfer(token)
        _ = last["thing"]


def by_hand(token: str, last: Last) -> None:
    with db.manual_commit():
        db.begin()
        add(token)
        db.commit()
        _ = last["thing"]


def failing(token: str, last: Last) -> None:
    with suppress(Oops), transaction():
        add(token)
        _ = last["thing"]
        raise OOPS


def swallowing(token: str, last: Last) -> None:
    """What the inner block did must not stand, though the outer one goes on."""
    with transaction():
        try:
            with transaction():
                Debits.create({"token": token})
                _ = last["thing"]
                raise OOPS
        except (Oops, KeyboardInterrupt):
            pass
        add(token)


def swallowing_with_db(token: str, last: Last) -> None:
    with db:
        try:
            with db:
                Debits.create({"token": token})
                _ = last["thing"]
                raise OOPS
        except (Oops, KeyboardInterrupt):
            pass
        add(token)


def add(token: str) -> None:
    Debits.create({"token": token})
    Credits.create({"token": token})


def outcome_of_a(way: Way, token: str, last: Last) -> str:
    try:
        way(token, last)
    except OrmCoreError:
        return NOT_APPLIED
    return NOT_APPLIED if way is failing else APPLIED


SWALLOWING = (swallowing, swallowing_with_db)

each_way = pytest.mark.parametrize(
    "way",
    [
        as_transaction,
        as_atomic,
        nested,
        decorated,
        with_db,
        with_db_twice,
        in_context,
        by_hand,
        failing,
        swallowing,
        swallowing_with_db,
    ],
)


@each_way
def test_an_interrupt_before_the_first_line_of_an_exit_does_not_prevent_it(way, point, truth):
    point(pool_size=2, pool_timeout=1)
    wrong: list[tuple[str, Any]] = []
    for number in range(1, 100):
        token = new_token()
        interrupt = InterruptAt(number, at_exit=True)
        told, left = interrupted(interrupt, partial(outcome_of_a, way, token, {"thing": 1}), truth)
        if interrupt.place is None:
            break
        if left or not agrees(told, truth.halves(token)):
            wrong.append((interrupt.place, (left, told, truth.halves(token))))
    assert wrong == []
    assert number > 5


@each_way
def test_a_signal_after_all_that_a_block_does_does_not_prevent_its_exit(way, point, truth):
    point(pool_size=2, pool_timeout=1)
    # Python looks for signals after a call; after a look-up it does so at the next function.
    raises = defaultdict(partial(getattr(ctypes.CDLL(None), "raise"), signal.SIGINT))
    token = new_token()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) if way not in SWALLOWING else nullcontext():
            try:
                outcome_of_a(way, token, raises)
            except KeyboardInterrupt:
                assert what_is_wrong(truth) == []
                raise
    finally:
        signal.signal(signal.SIGINT, before)
    assert raises
    assert what_is_wrong(truth) == []
    assert truth.halves(token) == ((1, 1) if way in (in_context, by_hand) else (0, 0))


def test_a_storm_of_interrupts_leaves_no_half_open_connection(point, server, truth):
    url = server.server.url(DATABASE, "app", **PLAIN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, WRITER, url, "300"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + DEADLINE
        # Until the report comes, which is longer than what a pipe holds.
        while not select.select([process.stdout], [], [], random.uniform(0.001, 0.009))[0]:
            assert time.monotonic() < deadline, "it does not end"
            process.send_signal(signal.SIGINT)
        report = json.loads(process.stdout.read())
    assert process.returncode == 0
    assert report["told"][report["last"]] == APPLIED
    assert truth.lies(report["told"].items()) == []
    size, in_use, idle, waiting = report["stats"]
    assert (size, in_use, waiting) == (2, 0, 0)
    assert 1 <= idle <= 2
