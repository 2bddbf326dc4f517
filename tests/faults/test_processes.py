"""Threads die, processes fork and are interrupted: no connection is lost, shared or half open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from concurrency import DEADLINE, in_child, threads, until
from ledger import (
    APPLIED,
    Debits,
    new_token,
    outcome_of,
    state,
    transfer,
)

from orm_core import TransactionAborted, connect_db, db, transaction

WRITER = Path(__file__).with_name("writer.py")


def test_twelve_threads_that_die_with_a_connection_leave_room_for_the_next(point, truth, caplog):
    point(pool_size=4, pool_timeout=DEADLINE)

    def take_and_die() -> None:
        db.connect()
        db.execute_sql("BEGIN")
        db.execute_sql("SELECT 1")

    with threads(*[take_and_die] * 12) as results:
        pass
    assert results == [None] * 12
    assert outcome_of(new_token()) == APPLIED
    assert db.pool_stats().in_use == 0
    assert caplog.text.count("ended without returning its connection") == 12
    until(lambda: truth.sessions() == db.pool_stats().idle, "the sessions of the dead are gone")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_four_children_forked_in_the_middle_of_work_share_nothing(point, truth):
    point(pool_size=3)
    stop = threading.Event()
    told: list[tuple[str, str]] = []

    def work() -> None:
        while not stop.is_set():
            token = new_token()
            told.append((token, outcome_of(token)))

    def childs_work() -> list[tuple[str, str]]:
        tokens = [new_token() for _ in range(10)]
        return [(token, outcome_of(token)) for token in tokens]

    with threads(work, work), transaction():
        mine = new_token()
        Debits.create({"token": mine})
        for _ in range(4):
            told.extend(in_child(childs_work))
        assert db.execute_sql("SELECT count(*) FROM debits WHERE token = %s", (mine,)).fetchone()
        stop.set()
    assert {outcome for _, outcome in told} == {APPLIED}
    assert len({token for token, _ in told}) == len(told)
    assert truth.lies(told) == []
    assert truth.halves(mine) == (1, 0)


def test_a_swallowed_error_is_told_and_nothing_is_kept(point, truth):
    point()
    token = new_token()

    def swallow() -> None:
        with transaction():
            Debits.create({"token": token})
            with suppress(Exception):  # the fault
                db.execute_sql("SELECT 1 / 0")

    with pytest.raises(TransactionAborted):
        swallow()
    assert truth.halves(token) == (0, 0)
    transfer(token)
    assert truth.halves(token) == (1, 1)


def test_a_begin_that_fails_leaves_the_thread_usable(point, proxy):
    point(proxy, pool_size=1)
    connect_db()
    proxy.freeze()
    proxy.cut()
    proxy.thaw()
    transfer(new_token())
    assert state() == (1, 0, 1, 0)


@pytest.mark.parametrize("fault", ["in a transaction", "outside one"])
def test_session_state_does_not_reach_the_next_user_when_that_is_asked_for(point, fault):
    point(pool_size=1, pool_reset="discard")
    settings = ("search_path", "timezone", "statement_timeout")
    with db.connection_context():
        first = db.execute_sql("SELECT pg_backend_pid()").fetchone()
        before = [db.execute_sql(f"SHOW {name}").fetchone() for name in settings]
    with transaction() if fault == "in a transaction" else db.connection_context():
        db.execute_sql("SET search_path = pg_catalog")
        db.execute_sql("SET timezone = 'Asia/Tokyo'")
        db.execute_sql("SET statement_timeout = 7")
        db.execute_sql("CREATE TEMP TABLE mine (id int)")
        db.execute_sql("SELECT pg_advisory_lock(7)")
        db.execute_sql("LISTEN somebody")
    with db.connection_context():
        assert db.execute_sql("SELECT pg_backend_pid()").fetchone() == first
        assert [db.execute_sql(f"SHOW {name}").fetchone() for name in settings] == before
        left = "SELECT to_regclass('pg_temp.mine'), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), (SELECT count(*) FROM pg_listening_channels())"
        assert db.execute_sql(left).fetchone() == (None, 0, 0)


def test_fifty_threads_get_their_turns_on_ten_connections(point):
    """Of 50 ms each; the slowest thread has at least half the turns of the middle one."""
    point(pool_size=10, pool_timeout=DEADLINE)
    turns = [0] * 50
    stop = threading.Event()

    def visitor(place: int) -> Callable[[], None]:
        def visit() -> None:
            while not stop.is_set():
                with db.connection_context():
                    db.execute_sql("SELECT pg_sleep(0.05)")
                turns[place] += 1

        return visit

    with threads(*map(visitor, range(50))) as results:
        until(lambda: sum(turns) >= 500, "everybody had some turns")
        stop.set()
    assert results == [None] * 50
    assert min(turns) >= sorted(turns)[25] / 2
    assert db.pool_stats().timeouts == 0
