"""The pool of connections: fair, bounded, and robust against what happens to connections."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import peewee
import psycopg2
import pytest
from concurrency import DEADLINE, in_child, threads, until

from domains.orders import Order
from domains.users import User, UsersService
from orm_core import (
    ConnectionFailed,
    ConnectionLost,
    InvalidValue,
    OrmCoreError,
    PoolClosed,
    PoolTimeout,
    ServerUnavailable,
    StaleTransaction,
    StatementTimeout,
    Transaction,
    close_db,
    connect_db,
    db,
    initialize_db,
    transaction,
)
from orm_core.database import pool as pool_module
from orm_core.database.pool import Pool, PoolOptions
from orm_core.database.pool_stats import PoolStats
from orm_core.metrics import PoolCollector

Point = Callable[..., None]


@pytest.fixture
def point(orm_core_worker_url: str) -> Iterator[Point]:
    """Points ``db`` at an empty database that nobody writes to, with a pool of this size."""

    def point_at(size: int = 10, **settings: Any) -> None:
        initialize_db(orm_core_worker_url, pool_size=size, **settings)

    yield point_at
    close_db()


def backend() -> int:
    """The server process that answers this thread."""
    return int(db.execute_sql("SELECT pg_backend_pid()").fetchone()[0])


@contextmanager
def another_session() -> Iterator[Any]:
    """A cursor of a connection beside the pool."""
    connection = psycopg2.connect(dbname=db.database, **db.connect_params)
    try:
        connection.autocommit = True
        yield connection.cursor()
    finally:
        connection.close()


def kill(*pids: int) -> None:
    """End server processes, and wait until they are gone."""
    with another_session() as cursor:
        for pid in pids:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
            assert cursor.fetchone() == (True,)


class Holder:
    """What holds a connection in another thread until it is told to go."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self.pids: list[int] = []

    def __call__(self) -> int:
        with db.connection_context():
            self.pids.append(backend())
            assert self._go.wait(DEADLINE)
            return backend()

    def until_it_holds(self) -> None:
        until(lambda: self.pids, "it has a connection")

    def go(self) -> None:
        self._go.set()


# What a thread holds, and for how long


def test_a_statement_outside_a_block_gives_its_connection_back_at_once(point):
    point()
    rows = iter(User.select())
    assert (db.pool_stats(), list(rows)) == (PoolStats(10, 0, 1, 0), [])


def test_a_statement_that_fails_gives_its_connection_back_too(point):
    point()
    with pytest.raises(OrmCoreError):
        db.execute_sql("SELECT 1 / 0")
    assert db.pool_stats() == PoolStats(10, 0, 1, 0)


def test_a_context_holds_one_connection_for_the_whole_block(point):
    point()
    with db.connection_context():
        pids = {backend() for _ in range(3)}
        assert db.pool_stats() == PoolStats(10, 1, 0, 0)
        with another_session() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", ([*pids],))
            assert (len(pids), cursor.fetchone()) == (1, (1,))
    assert db.pool_stats() == PoolStats(10, 0, 1, 0)


def test_a_context_inside_a_context_holds_the_same_connection(point):
    point()
    with db.connection_context():
        outer = backend()
        with db.connection_context():
            assert backend() == outer
        assert (backend(), db.pool_stats().in_use) == (outer, 1)


def test_a_context_inside_a_transaction_holds_the_same_connection(point):
    point()
    with transaction():
        outer = backend()
        with db.connection_context():
            assert backend() == outer
        assert backend() == outer
    assert db.pool_stats() == PoolStats(10, 0, 1, 0)


def test_a_transaction_holds_one_connection_and_gives_it_back(point):
    point()
    with transaction():
        assert backend() == backend()
        assert db.pool_stats().in_use == 1
    assert db.pool_stats() == PoolStats(10, 0, 1, 0)


def test_an_open_connection_is_not_opened_twice(point):
    point()
    assert db.connect() is True
    assert db.connect(reuse_if_open=True) is False
    with pytest.raises(peewee.OperationalError):
        db.connect()
    assert (db.close(), db.close()) == (True, False)


def test_a_connection_is_not_closed_inside_a_transaction(point):
    point()
    with transaction(), pytest.raises(peewee.OperationalError):
        db.close()
    assert db.is_closed()


def test_the_connection_used_last_is_used_first(point):
    point()
    with threads(backend, backend) as found, db.connection_context():
        first = backend()
    assert backend() in (first, *found)
    assert backend() == backend()


def test_sessions_speak_utc(point):
    point()
    assert db.execute_sql("SHOW timezone").fetchone() == ("UTC",)


def test_the_statement_timeout_is_in_force(point):
    point(statement_timeout=0.05)
    with pytest.raises(StatementTimeout):
        db.execute_sql("SELECT pg_sleep(10)")


# Many threads


def test_there_are_never_more_connections_than_the_pools_size(point, orm_core_worker_url):
    initialize_db(f"{orm_core_worker_url}&application_name=bounded", pool_size=3)
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bounded'"
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            with db.connection_context():
                most.append(db.execute_sql(query).fetchone()[0])
            assert db.pool_stats().in_use <= 3

    with threads(*[work] * 12) as results:
        pass
    assert results == [None] * 12
    assert max(most) == 3
    assert db.pool_stats() == PoolStats(3, 0, 3, 0)


def test_no_two_threads_have_the_same_connection_at_a_time(point):
    point(size=4)
    guard = threading.Lock()
    held: set[int] = set()
    clashes: list[int] = []

    def work() -> None:
        for _ in range(30):
            with db.connection_context():
                pid = backend()
                with guard:
                    clashes.extend(held & {pid})
                    held.add(pid)
                backend()
                with guard:
                    held.remove(pid)

    with threads(*[work] * 12) as results:
        pass
    assert (results, clashes) == ([None] * 12, [])


def test_those_who_wait_are_served_in_the_order_they_came(point):
    point(size=1)
    served: list[int] = []

    def visitor(number: int) -> Callable[[], None]:
        def visit() -> None:
            with db.connection_context():
                served.append(number)

        return visit

    with db.connection_context():
        waiting = []
        for number in range(8):
            block = threads(visitor(number))
            block.__enter__()
            waiting.append(block)
            until(lambda number=number: db.pool_stats().waiting == number + 1, "it waits")
    for block in waiting:
        block.__exit__(None, None, None)
    assert served == list(range(8))


def test_a_thread_that_comes_back_does_not_overtake_those_who_wait(point):
    point(size=1)
    order: list[str] = []

    def visit() -> None:
        with db.connection_context():
            order.append("the one who waited")

    db.connect()
    with threads(visit):
        until(lambda: db.pool_stats().waiting == 1, "it waits")
        db.close()
        with db.connection_context():
            order.append("the one who came back")
    assert order == ["the one who waited", "the one who came back"]


def test_a_pool_that_is_exhausted_says_how_large_it_is(point):
    point(size=2, pool_timeout=0.1)

    one, two = Holder(), Holder()
    with threads(one, two):
        one.until_it_holds()
        two.until_it_holds()
        with pytest.raises(PoolTimeout) as caught:
            db.execute_sql("SELECT 1")
        one.go()
        two.go()
    for told in ("0.1 s", "all 2", "ORM_CORE_POOL_SIZE", "connection_context"):
        assert told in str(caught.value)
    assert isinstance(caught.value, peewee.OperationalError)


def test_who_gave_up_waiting_leaves_the_queue(point):
    point(size=1, pool_timeout=0.05)
    with db.connection_context(), threads(lambda: db.execute_sql("SELECT 1")) as results:
        until(lambda: isinstance(results[0], PoolTimeout), "it gave up")
        assert db.pool_stats() == PoolStats(1, 1, 0, 0)
    connect_db()


def test_who_is_interrupted_while_waiting_leaves_the_queue(point):
    point(size=1)

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    holder = Holder()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with threads(holder):
            holder.until_it_holds()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Interrupted):
                db.execute_sql("SELECT 1")
            assert db.pool_stats() == PoolStats(1, 1, 0, 0)
            holder.go()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    connect_db()


def test_a_statement_that_is_interrupted_gives_its_connection_back(point):
    point(size=1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            db.execute_sql("SELECT pg_sleep(0.2)")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert db.pool_stats().in_use == 0
    connect_db()


def test_the_statistics_tell_who_holds_and_who_waits(point):
    point(size=1)
    assert db.pool_stats() == PoolStats(size=1, in_use=0, idle=0, waiting=0)
    db.connect()
    with threads(backend):
        until(lambda: db.pool_stats() == PoolStats(size=1, in_use=1, idle=0, waiting=1))
        db.close()
        until(lambda: db.pool_stats() == PoolStats(size=1, in_use=0, idle=1, waiting=0))


# Connections that break


def test_idle_connections_that_broke_are_replaced_before_use(point):
    point()
    with db.connection_context(), threads(backend) as other:
        pids = {backend()}
    pids.add(other[0])
    kill(*pids)
    assert backend() not in pids
    assert db.pool_stats().idle <= 2
    assert len({backend() for _ in range(5)} & pids) == 0


def test_a_connection_that_was_idle_for_long_is_asked_before_use(point, monkeypatch):
    point()
    monkeypatch.setattr(pool_module, "PING_AFTER", -1.0)
    assert backend() == backend()
    assert db.pool_stats() == PoolStats(10, 0, 1, 0)


def test_a_connection_that_breaks_in_a_context_is_replaced_after_one_error(point):
    point()
    with db.connection_context():
        first = backend()
        kill(first)
        with pytest.raises(ConnectionLost):
            db.execute_sql("SELECT 1")
        second = backend()
        assert second != first
        assert backend() == second
        assert db.pool_stats() == PoolStats(10, 1, 0, 0)
    assert db.pool_stats() == PoolStats(10, 0, 1, 0)


def test_a_connection_that_broke_makes_room_for_one_who_waits(point):
    point(size=1)
    db.connect()
    first = backend()
    with threads(backend) as found:
        until(lambda: db.pool_stats().waiting == 1, "it waits")
        kill(first)
        with pytest.raises(ConnectionLost):
            db.execute_sql("SELECT 1")
        db.close()
    assert isinstance(found[0], int)
    assert found[0] != first


@pytest.mark.parametrize("then", ["SELECT 1", "SELECT 1 / 0"])
def test_a_transaction_left_open_is_rolled_back_on_return(clone_db, then):
    db.connect()
    first = backend()
    db.execute_sql("BEGIN")
    db.execute_sql(
        "INSERT INTO users (email, first_name, provider_account_id) VALUES ('a', 'b', 'c')"
    )
    with suppress(OrmCoreError):
        db.execute_sql(then)
    db.close()
    assert (backend(), User.select().count()) == (first, 0)
    assert db.execute_sql("SELECT now() = statement_timestamp()").fetchone() == (True,)


def test_a_connection_in_the_middle_of_a_copy_is_not_used_again(point):
    point()

    class Broken:
        def read(self, _: int = -1) -> bytes:
            raise KeyboardInterrupt

    with db.connection_context():
        db.execute_sql("CREATE TEMP TABLE lines (line text)")
        with pytest.raises((KeyboardInterrupt, psycopg2.Error)):
            db.connection().cursor().copy_expert("COPY lines FROM STDIN", Broken())
    assert db.execute_sql("SELECT 1").fetchone() == (1,)


def test_the_connection_of_a_dead_thread_is_taken_back(point, caplog):
    point(size=1)
    with threads(db.connect):
        pass
    connect_db()
    assert db.pool_stats() == PoolStats(1, 0, 1, 0)
    assert "ended without returning its connection" in caplog.text


def test_one_who_waits_gets_the_place_of_a_thread_that_died(point):
    point(size=1, pool_timeout=3)
    held, die = threading.Event(), threading.Event()

    def hold_and_die() -> None:
        db.connect()
        held.set()
        die.wait(DEADLINE)

    with threads(hold_and_die):
        assert held.wait(DEADLINE)
        with threads(backend) as found:
            until(lambda: db.pool_stats().waiting == 1, "it waits")
            die.set()
    assert isinstance(found[0], int)


# Connecting


class Gate:
    """Opens real connections, once it is told to; or fails."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.fail = False
        self.opened = 0

    def connect(self) -> Any:
        assert self.open.wait(DEADLINE)
        if self.fail:
            raise ConnectionFailed("no")
        self.opened += 1
        return db.driver.connect(db.startup_params(), prepare=False)


@pytest.fixture
def gate(point: Point) -> Gate:
    point()
    return Gate()


def test_a_connect_that_hangs_delays_no_thread_that_finds_an_idle_connection(gate):
    pool = Pool(gate.connect, PoolOptions(2, DEADLINE))
    gate.open.set()
    mine = pool.acquire()
    gate.open.clear()
    with threads(pool.acquire) as found:
        until(lambda: pool.stats().in_use == 2, "it connects")
        pool.release(mine)
        started = time.monotonic()
        for _ in range(10):
            pool.release(pool.acquire())
        assert time.monotonic() - started < 10
        assert found == [None]
        gate.open.set()
    assert found[0] is not None
    pool.release(found[0])
    pool.close()


def test_a_connect_that_fails_gives_its_place_back(gate):
    pool = Pool(gate.connect, PoolOptions(1, DEADLINE))
    gate.open.set()
    gate.fail = True
    for _ in range(3):
        with pytest.raises(ConnectionFailed):
            pool.acquire()
    assert pool.stats() == PoolStats(1, 0, 0, 0)
    gate.fail = False
    pool.release(pool.acquire())
    assert pool.stats() == PoolStats(1, 0, 1, 0)
    pool.close()


def test_a_connect_that_fails_lets_the_next_in_the_queue_try(gate):
    pool = Pool(gate.connect, PoolOptions(1, DEADLINE))
    gate.fail = True
    with threads(pool.acquire) as first:
        until(lambda: pool.stats().in_use == 1, "it connects")
        with threads(pool.acquire) as second:
            until(lambda: pool.stats().waiting == 1, "it waits")
            gate.open.set()
    assert [type(one) for one in (*first, *second)] == [ConnectionFailed, ConnectionFailed]
    assert pool.stats() == PoolStats(1, 0, 0, 0)


def test_a_connection_is_opened_only_when_none_is_idle(gate):
    gate.open.set()
    pool = Pool(gate.connect, PoolOptions(5, DEADLINE))
    for _ in range(10):
        pool.release(pool.acquire())
    assert gate.opened == 1
    pool.close()


# Closing


def test_closing_ends_the_idle_sessions(point):
    point()
    pid = backend()
    close_db()
    assert db.pool_stats() == PoolStats(10, 0, 0, 0)
    with another_session() as cursor:
        until(lambda: not _is_alive(cursor, pid), "the session is gone")


def test_a_closed_database_opens_again_at_the_next_statement(point):
    point()
    first = backend()
    close_db()
    assert backend() != first


def test_closing_leaves_connections_that_others_use_until_they_return(point):
    point()
    holder = Holder()
    with threads(holder) as again, another_session() as cursor:
        holder.until_it_holds()
        close_db()
        assert _is_alive(cursor, holder.pids[0])
        holder.go()
        until(lambda: not _is_alive(cursor, holder.pids[0]), "the session is gone")
    assert again == holder.pids
    assert db.pool_stats() == PoolStats(10, 0, 0, 0)


def test_a_statement_that_is_under_way_when_others_close_answers_its_rows(point):
    point()

    def close_by_another_thread(_: Any) -> None:
        with threads(close_db):
            pass

    db.query_hooks.append(close_by_another_thread)
    try:
        assert db.execute_sql("SELECT generate_series(1, 3)").fetchall() == [(1,), (2,), (3,)]
    finally:
        db.query_hooks.remove(close_by_another_thread)
    assert db.pool_stats().closed["closed"] == 1


def test_closing_tells_those_who_wait(point):
    point(size=1)
    holder = Holder()
    with threads(holder):
        holder.until_it_holds()
        with threads(backend) as found:
            until(lambda: db.pool_stats().waiting == 1, "it waits")
            close_db()
            holder.go()
    assert isinstance(found[0], PoolClosed)


def test_a_database_is_not_closed_inside_a_transaction(point):
    point()
    with transaction(), pytest.raises(peewee.OperationalError):
        close_db()


def test_initializing_anew_closes_what_was_open(point, orm_core_worker_url):
    point()
    pid = backend()
    initialize_db(orm_core_worker_url)
    with another_session() as cursor:
        until(lambda: not _is_alive(cursor, pid), "the session is gone")


def _is_alive(cursor: Any, pid: int) -> bool:
    cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,))
    return cursor.fetchone() is not None


# What the pool tells


def test_a_pool_that_is_exhausted_says_who_holds_its_connections(point):
    point(size=1, pool_timeout=0.05)
    with db.connection_context(), threads(lambda: db.execute_sql("SELECT 1")) as results:
        until(lambda: results[0] is not None, "it gave up")
    assert "MainThread for 0." in str(results[0])
    assert "ORM_CORE_POOL_DEBUG" in str(results[0])
    assert __file__ not in str(results[0])


def test_in_debug_mode_it_says_which_line_took_each(point):
    point(size=1, pool_timeout=0.05, pool_debug=True)
    with db.connection_context(), threads(lambda: db.execute_sql("SELECT 1")) as results:
        (holder,) = db.pool_stats().holders
        until(lambda: results[0] is not None, "it gave up")
    assert f"taken at {__file__}:" in str(results[0])
    assert "in test_in_debug_mode_it_says_which_line_took_each" in str(results[0])
    assert holder.thread == "MainThread"
    assert holder.site is not None
    assert holder.site in str(results[0])


def test_in_debug_mode_the_log_says_which_line_lost_a_connection(point, caplog):
    point(pool_debug=True)

    def take_and_die() -> None:
        db.connect()

    with threads(take_and_die):
        pass
    assert db.pool_stats() == PoolStats(10, 0, 0, 0)
    assert f" ago at {__file__}:" in caplog.text
    assert "in take_and_die" in caplog.text


def test_a_lease_that_is_dropped_gives_its_place_back(point, caplog):
    point(size=1)
    db.pool.acquire()
    connect_db()
    assert db.pool_stats().closed["lost"] == 1
    assert "Thread MainThread lost its connection" in caplog.text


def test_the_statistics_count_from_the_start(point):
    point(size=1, pool_timeout=0.05)
    with db.connection_context(), threads(lambda: db.execute_sql("SELECT 1")):
        pass
    db.connect()
    kill(backend())
    with pytest.raises(ConnectionLost):
        db.execute_sql("SELECT 1")
    db.close()
    connect_db()
    close_db()
    stats = db.pool_stats()
    assert (stats.opened, stats.taken, stats.waits, stats.timeouts) == (2, 3, 1, 1)
    assert stats.closed == {"broken": 1, "expired": 0, "closed": 1, "lost": 0}
    assert 0.04 < stats.longest_wait == stats.waited < DEADLINE


def test_who_waited_is_counted_with_the_seconds(point):
    point(size=1)
    db.connect()
    with threads(backend):
        until(lambda: db.pool_stats().waiting == 1, "it waits")
        db.close()
    stats = db.pool_stats()
    assert (stats.waits, stats.timeouts, sum(stats.wait_counts)) == (1, 0, 1)


def test_prometheus_sees_the_waits_and_why_connections_were_closed(point):
    point()
    for _ in range(3):
        connect_db()
    close_db()
    families = {family.name: family for family in PoolCollector().collect()}
    waits = {sample.name: sample for sample in families["db_connection_wait_seconds"].samples}
    assert waits["db_connection_wait_seconds_count"].value == 3
    assert waits["db_connection_wait_seconds_sum"].value == 0
    closed = families["db_connections_closed"].samples
    assert {one.labels["reason"]: one.value for one in closed if one.value} == {"closed": 1}
    assert families["db_connections_opened"].samples[0].value == 1


# The life of a connection


def test_rows_can_be_read_of_a_connection_that_was_replaced_meanwhile(orm_core_worker_url):
    initialize_db(orm_core_worker_url, pool_size=1, pool_max_lifetime=0.001)
    first = db.execute_sql("SELECT generate_series(1, 3), pg_sleep(0.01)")
    assert db.pool_stats().closed["expired"] == 1
    assert len(first.fetchall()) == 3
    close_db()


@pytest.mark.parametrize("reason", ["expired", "broken"])
def test_rows_are_read_on_after_a_later_statement_replaced_their_connection(point, reason):
    point(size=1)
    rows = db.execute_sql("SELECT generate_series(1, 3), pg_backend_pid()")
    _, pid = rows.fetchone()
    if reason == "broken":
        kill(pid)
    else:
        db.pool._idle[0].expires_at = 0.0
    assert backend() != pid
    assert db.pool_stats().closed[reason] == 1
    assert [number for number, _ in rows.fetchall()] == [2, 3]


def test_a_connection_is_replaced_when_it_is_too_old(point):
    point(pool_max_lifetime=0.01)
    first = backend()
    time.sleep(0.02)
    assert backend() != first
    assert db.pool_stats().closed["expired"] >= 1


def test_the_ages_at_which_connections_are_replaced_differ(point):
    point(pool_max_lifetime=1000)
    leases = [db.pool.acquire() for _ in range(5)]
    ages = [lease.place.expires_at - time.monotonic() for lease in leases if lease.place]
    assert len(set(ages)) == 5
    assert all(790 < age <= 1000 for age in ages)
    for lease in leases:
        lease.end()


def leave_traces() -> None:
    with db.connection_context():
        db.execute_sql("SET search_path TO pg_catalog")
        db.execute_sql("SET work_mem TO '7MB'")
        db.execute_sql("CREATE TEMP TABLE IF NOT EXISTS left_over (line text)")
        db.execute_sql("SELECT pg_advisory_lock(7)")
        db.execute_sql("PREPARE mine AS SELECT 1")


def traces() -> list[Any]:
    with db.connection_context():
        return [
            db.execute_sql("SHOW search_path").fetchone()[0] == "pg_catalog",
            db.execute_sql("SHOW work_mem").fetchone()[0] == "7MB",
            db.execute_sql("SELECT to_regclass('pg_temp.left_over') IS NOT NULL").fetchone()[0],
            db.execute_sql("SELECT count(*) > 0 FROM pg_locks WHERE objid = 7").fetchone()[0],
            db.execute_sql("SELECT count(*) > 0 FROM pg_prepared_statements").fetchone()[0],
        ]


def test_what_a_user_leaves_in_a_session_stays_by_default(point):
    point()
    leave_traces()
    assert traces() == [True] * 5


@pytest.mark.parametrize("prepare", [False, True])
def test_with_discard_the_next_user_gets_a_fresh_session(point, prepare):
    point(pool_reset="discard", prepare=prepare)
    first = backend()
    for _ in range(3):
        leave_traces()
        assert traces() == [False] * 5
        assert db.execute_sql("SHOW timezone").fetchone() == ("UTC",)
        assert db.execute_sql("SHOW statement_timeout").fetchone() == ("30s",)
        with db.connection_context():
            for _ in range(4):
                assert User.select().count() == 0
    assert backend() == first


def test_with_discard_a_transaction_left_open_is_rolled_back_too(clone_db, orm_core_server):
    initialize_db(orm_core_server.url(clone_db.database), pool_reset="discard")
    db.connect()
    db.execute_sql("BEGIN")
    User.create(email="a", first_name="b", provider_account_id="c")
    db.close()
    assert User.select().count() == 0


# Draining


def test_closing_may_wait_for_those_who_use_a_connection(point):
    point()
    holder = Holder()
    with threads(holder):
        holder.until_it_holds()
        threading.Timer(0.1, holder.go).start()
        assert close_db(timeout=DEADLINE) is True
        assert db.pool_stats() == PoolStats(10, 0, 0, 0)


def test_closing_names_those_who_did_not_come_back(point, caplog):
    point()
    holder = Holder()
    with threads(holder):
        holder.until_it_holds()
        assert close_db(timeout=0.05) is False
        holder.go()
    assert "still has its connection, taken" in caplog.text


@pytest.mark.parametrize("wrong", [-1, "soon", None, True, float("nan")])
def test_times_to_wait_are_seconds(point, wrong):
    point()
    with pytest.raises(InvalidValue):
        close_db(timeout=wrong)
    with pytest.raises(InvalidValue):
        connect_db(retry_for=wrong)


# Fairness


def test_fifty_threads_on_ten_connections_get_the_same_number_of_turns(point):
    point()
    turns = [0] * 50
    end = time.monotonic() + 3

    def work(place: int) -> None:
        while time.monotonic() < end:
            with db.connection_context():
                time.sleep(0.05)
            turns[place] += 1

    with threads(*[partial(work, place) for place in range(50)]):
        pass
    assert min(turns) >= sorted(turns)[25] / 2


# Forks


forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@forks
def test_a_forked_child_opens_a_connection_of_its_own(point):
    point()
    mine = backend()
    assert in_child(backend) not in (None, mine)
    assert backend() == mine


@forks
def test_a_fork_inside_a_context_leaves_the_parents_connection_alone(point):
    point()
    with db.connection_context():
        mine = backend()
        childs = in_child(backend)
        assert isinstance(childs, int)
        assert childs != mine
        assert backend() == mine


@forks
def test_a_fork_inside_a_transaction_leaves_the_parents_transaction_alone(clone_db):
    def insert(name: str) -> int:
        User.create(email=name, first_name=name, provider_account_id=name)
        return User.select().count()

    with transaction():
        insert("parent")
        assert in_child(lambda: insert("child")) == 1
        assert [user.email for user in User.select().order_by(User.email)] == ["child", "parent"]
    assert User.select().count() == 2


@forks
def test_a_forked_child_is_refused_the_tx_of_its_parent(clone_db):
    def use(tx: Transaction) -> list[str]:
        told = []
        calls = (
            lambda: UsersService.count(tx=tx),
            tx.rollback,
            tx.commit,
            lambda: tx.on_commit(bool),
        )
        for call in calls:
            try:
                call()
            except StaleTransaction as error:
                told.append(str(error))
        return told

    with transaction() as outer, transaction() as inner:
        User.create(email="a", first_name="a", provider_account_id="a")
        for tx in (outer, inner):
            told = in_child(lambda tx=tx: use(tx))
            assert len(told) == 4
            assert all("process" in text for text in told)
    assert (outer.outcome, User.select().count()) == ("applied", 1)


@forks
def test_a_forked_child_starts_with_an_empty_pool(point):
    point(size=2)
    with db.connection_context():
        assert in_child(db.pool_stats) == PoolStats(2, 0, 0, 0)


@forks
def test_a_fork_while_other_threads_use_the_pool_does_not_hang_the_child(point):
    point(size=2)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            db.execute_sql("SELECT 1")

    with threads(work, work, work):
        children = [in_child(backend) for _ in range(5)]
        stop.set()
    assert all(isinstance(child, int) for child in children)
    assert len(set(children)) == 5


# All at once


def test_threads_that_lose_connections_all_the_time_keep_the_books_right(point):
    point(size=3)
    stop = threading.Event()

    def work() -> int:
        done = 0
        while not stop.is_set():
            # A session that was ended just now may still hold its place on the server.
            with suppress(ConnectionLost, ServerUnavailable), db.connection_context():
                done += db.execute_sql("SELECT 1").fetchone()[0]
                Order.select().count()
        return done

    with threads(*[work] * 6) as done:
        with another_session() as cursor:
            for _ in range(15):
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                stats = db.pool_stats()
                assert stats.in_use + stats.idle <= 3
                time.sleep(0.02)
        stop.set()
    assert all(isinstance(count, int) for count in done), done
    assert sum(done) > 15
    stats = db.pool_stats()
    assert (stats.in_use, stats.waiting) == (0, 0)
    assert stats.idle <= 3
