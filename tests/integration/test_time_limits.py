"""Time limits: of the settings, of a block, and of a server that does not answer at all."""

# ruff: noqa: PT012 - what a whole block raises is the matter of these tests
from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import peewee
import psycopg2
import pytest

from domains.users import User
from orm_core import (
    CommitUnknown,
    ConnectionLost,
    InvalidValue,
    LockTimeout,
    NoAnswer,
    PoolTimeout,
    StatementTimeout,
    close_db,
    connect_db,
    db,
    initialize_db,
    stream,
    time_limit,
    transaction,
)
from orm_core.database import limits
from orm_core.database.pool_stats import PoolStats
from orm_core.models.batches import new_columns
from orm_core.models.copying import copy_rows, types_to_copy

DEADLINE = 10.0
Point = Callable[..., None]


@pytest.fixture
def point(orm_core_worker_url: str) -> Iterator[Point]:
    """Points ``db`` at an empty database that nobody writes to."""

    def point_at(**settings: Any) -> None:
        initialize_db(orm_core_worker_url, **settings)

    yield point_at
    close_db()


def shown(name: str = "statement_timeout") -> str:
    return str(db.execute_sql(f"SHOW {name}").fetchone()[0])


def backend() -> int:
    return int(db.execute_sql("SELECT pg_backend_pid()").fetchone()[0])


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Processes of the server that take no step."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block hangs not longer; generous, as the machine may be busy."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


# The settings


def test_a_session_has_limits_unless_they_are_switched_off(point):
    point()
    assert (shown(), shown("idle_in_transaction_session_timeout")) == ("30s", "1min")
    assert shown("lock_timeout") == "0"
    point(statement_timeout=0, idle_in_transaction_timeout=0)
    assert (shown(), shown("idle_in_transaction_session_timeout")) == ("0", "0")


def test_limits_are_set_each(point):
    point(statement_timeout=1.5, lock_timeout=0.25, idle_in_transaction_timeout=5)
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    assert [shown(name) for name in names] == ["1500ms", "250ms", "5s"]


def test_limits_in_the_url_go_before_the_settings(orm_core_worker_url):
    initialize_db(f"{orm_core_worker_url}&options=-c%20statement_timeout%3D2min")
    assert shown() == "2min"


def test_a_lock_that_is_not_to_be_had_is_a_lock_timeout(clone_db, orm_core_server):
    initialize_db(orm_core_server.url(clone_db.database), lock_timeout=0.05)
    with psycopg2.connect(dbname=db.database, **db.connect_params) as other:
        other.cursor().execute("LOCK TABLE users")
        with pytest.raises(LockTimeout):
            User.select().count()
        other.rollback()
    other.close()


def test_a_transaction_that_is_left_idle_is_ended_by_the_server(point):
    point(idle_in_transaction_timeout=0.05)
    with pytest.raises(ConnectionLost), transaction():
        db.execute_sql("SELECT 1")
        connection = db._state.conn
        waits_until_it_ends(connection.fileno())
        db.execute_sql("SELECT 1")
    assert db.execute_sql("SELECT 1").fetchone() == (1,)


def waits_until_it_ends(descriptor: int) -> None:
    import select

    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(DEADLINE * 1000)


def test_a_stream_may_be_read_slowly(point):
    point(idle_in_transaction_timeout=0.05)
    rows = iter(stream(User.select()))
    assert list(rows) == []


# Blocks


def test_a_statement_ends_with_its_block(point):
    point()
    with within(8), time_limit(0.1), pytest.raises(StatementTimeout) as caught:
        db.execute_sql("SELECT pg_sleep(20)")
    assert not isinstance(caught.value, ConnectionLost)
    assert db.pool_stats() == PoolStats(10, 0, 1, 0)


def new_user(email: str) -> dict[str, Any]:
    return {"email": email, "first_name": "Ada", "provider_account_id": email}


def test_a_block_may_be_longer_than_the_setting(point):
    point(statement_timeout=0.05)
    with time_limit(20):
        assert db.execute_sql("SELECT 1 FROM pg_sleep(0.2)").fetchone() == (1,)
    with pytest.raises(StatementTimeout):
        db.execute_sql("SELECT pg_sleep(20)")


def test_the_limit_that_ends_first_counts(point):
    point()
    with time_limit(0.1), time_limit(30), pytest.raises(StatementTimeout):
        db.execute_sql("SELECT pg_sleep(20)")
    with time_limit(30), time_limit(0.1), pytest.raises(StatementTimeout):
        db.execute_sql("SELECT pg_sleep(20)")


def test_statements_of_a_block_share_its_limit(point):
    point()
    with time_limit(0.2), pytest.raises(StatementTimeout):
        for _ in range(100):
            db.execute_sql("SELECT pg_sleep(0.05)")


def test_nothing_is_sent_once_the_limit_is_over(clone_db):
    connect_db()
    with time_limit(0.01):
        time.sleep(0.02)
        with pytest.raises(StatementTimeout, match="not sent"):
            User.create(email="a", first_name="b", provider_account_id="c")
    assert User.select().count() == 0


@pytest.mark.parametrize("inside", [False, True])
def test_the_limit_before_is_back_after_the_block(point, inside):
    point()
    with transaction():
        assert shown() == "30s"
        with time_limit(5):
            assert shown() not in ("30s", "0")
            if inside:
                with time_limit(2):
                    assert shown().startswith(("1", "2s"))
        assert shown() == "30s"
        with transaction():
            assert shown() == "30s"
        assert shown() == "30s"
    assert shown() == "30s"


def test_a_savepoint_rolled_back_after_a_block_leaves_the_setting_in_force(point):
    point()
    with transaction():
        with time_limit(5):
            db.execute_sql("SELECT 1")
        with pytest.raises(ZeroDivisionError), transaction():
            assert shown() == "30s"
            raise ZeroDivisionError
        assert shown() == "30s"


def test_a_transaction_that_ends_late_is_committed(clone_db):
    with time_limit(5) as nothing, transaction():
        User.create(email="a", first_name="b", provider_account_id="c")
        limits._deadline.set(time.monotonic())
    assert (nothing, User.select().count()) == (None, 1)


def test_a_transaction_that_ends_late_is_rolled_back(clone_db):
    with pytest.raises(ZeroDivisionError), time_limit(5), transaction():
        User.create(email="a", first_name="b", provider_account_id="c")
        limits._deadline.set(time.monotonic())
        raise ZeroDivisionError
    assert User.select().count() == 0
    assert db.pool_stats().in_use == 0


def test_a_block_costs_no_round_trip(point):
    point()
    seen: list[str] = []
    db.query_hooks.append(lambda event: seen.append(event.sql))
    try:
        with time_limit(5), transaction():
            db.execute_sql("SELECT 1")
        with time_limit(5):
            db.execute_sql("SELECT 2")
    finally:
        db.query_hooks.clear()
    assert seen == ["BEGIN", "SELECT 1", "COMMIT", "SELECT 2"]


def test_a_statement_that_must_stand_alone_works_in_a_block(point):
    point()
    with time_limit(20):
        db.execute_sql("VACUUM users")


def test_prepared_statements_work_in_a_block(point):
    point(prepare=True)
    with db.connection_context():
        for _ in range(4):
            with time_limit(20):
                assert User.select().count() == 0
                with transaction():
                    assert list(User.select()) == []


@pytest.mark.parametrize("inside", [False, True])
def test_copy_and_streams_may_take_as_long_as_their_block(clone_db, orm_core_server, inside):
    slow = "CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(0.3)'"
    db.execute_sql(slow)
    db.execute_sql("ALTER TABLE users ADD CHECK (slow() = 1)")
    rows = [new_user(f"{number}@example.com") for number in (1, 2)]
    initialize_db(orm_core_server.url(clone_db.database), statement_timeout=0.2)
    with time_limit(30), transaction() if inside else nullcontext():
        copy_rows(User, new_columns(User, rows) or [], types_to_copy(User) or {})
        query = User.select().where(peewee.SQL("slow() = 1"))
        assert len(list(stream(query))) == 2
    with pytest.raises(StatementTimeout):
        list(stream(query))
    assert shown() == "200ms"


def test_a_decorated_function_has_a_limit_each_time(point):
    point()

    @time_limit(0.2)
    def slow() -> None:
        db.execute_sql("SELECT pg_sleep(20)")

    for _ in range(2):
        with pytest.raises(StatementTimeout):
            slow()


def test_other_threads_have_limits_of_their_own(point):
    point()
    seen: list[str] = []
    with time_limit(5):
        thread = threading.Thread(target=lambda: seen.append(shown()))
        thread.start()
        thread.join(DEADLINE)
    assert seen == ["30s"]


@pytest.mark.parametrize("wrong", [0, -1, "2", None, True, float("nan"), float("inf")])
def test_a_limit_is_seconds_above_0(wrong):
    with pytest.raises(InvalidValue), time_limit(wrong):
        pass


def test_the_wait_for_a_connection_ends_with_the_block(point):
    point(pool_size=1)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            with time_limit(0.1):
                db.execute_sql("SELECT 1")
        except PoolTimeout as error:
            caught.append(error)

    with db.connection_context():
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(8)
    assert "0.1 s" in str(caught[0])


# A server that is silent


def test_a_call_to_a_frozen_server_ends_with_its_block(point):
    point()
    with db.connection_context():
        with frozen(backend()), within(8), time_limit(0.2), pytest.raises(NoAnswer, match="frozen"):
            db.execute_sql("SELECT 1")
        assert db.execute_sql("SELECT 1").fetchone() == (1,)
    assert db.pool_stats() == PoolStats(10, 0, 1, 0)


def test_a_call_to_a_frozen_server_ends_by_the_setting(point):
    point(statement_timeout=0.1)
    with db.connection_context():
        with frozen(backend()), within(8), pytest.raises(NoAnswer):
            db.execute_sql("SELECT 1")
        assert db.execute_sql("SELECT 1").fetchone() == (1,)


def test_a_commit_that_is_not_answered_is_unknown(clone_db, orm_core_server):
    initialize_db(orm_core_server.url(clone_db.database), statement_timeout=0.3)
    with ExitStack() as until_the_end:
        with within(8), pytest.raises(CommitUnknown), transaction(track=False):
            User.create(email="a", first_name="b", provider_account_id="c")
            until_the_end.enter_context(frozen(backend()))
        assert db.pool_stats().in_use == 0
        connect_db()


def test_a_rollback_that_is_not_answered_leaves_the_error_as_it_is(point):
    point(statement_timeout=0.3)
    with ExitStack() as until_the_end:
        with within(8), pytest.raises(ZeroDivisionError), transaction():
            until_the_end.enter_context(frozen(backend()))
            raise ZeroDivisionError
        assert db.pool_stats().in_use == 0
        connect_db()


def test_a_begin_that_is_not_answered_leaves_the_thread_usable(point):
    point(statement_timeout=0.3)
    pid = backend()
    with frozen(pid), within(8), pytest.raises(NoAnswer), transaction():
        db.execute_sql("SELECT 1")
    assert db.pool_stats().in_use == 0
    with transaction():
        assert backend() != pid


def test_a_stream_from_a_frozen_server_ends(point):
    point(statement_timeout=0.3)
    query = User.select()
    with db.connection_context():
        pid = backend()
    with frozen(pid), within(8), pytest.raises(NoAnswer):
        list(stream(query))
    assert db.pool_stats().in_use == 0


def test_a_reset_that_is_not_answered_closes_the_connection(point, monkeypatch):
    point(connect_timeout=1)
    db.connect()
    db.execute_sql("BEGIN")
    with frozen(backend()), within(8):
        db.close()
    assert db.pool_stats() == PoolStats(10, 0, 0, 0)
    connect_db()


def test_a_ping_that_is_not_answered_leads_to_another_connection(point, monkeypatch):
    from orm_core.database import pool

    point(connect_timeout=1)
    pid = backend()
    monkeypatch.setattr(pool, "PING_AFTER", -1.0)
    with frozen(pid), within(8):
        assert backend() != pid


def test_a_result_in_time_is_not_cut(point):
    point()
    for _ in range(20):
        with db.connection_context():
            with time_limit(20):
                first = backend()
            assert backend() == first


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_limits_work_in_a_forked_child_and_in_its_parent(point):
    point()
    with time_limit(20):
        connect_db()
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(int(DEADLINE))
            with db.connection_context(), frozen(backend()), time_limit(0.2):
                try:
                    db.execute_sql("SELECT 1")
                except NoAnswer:
                    status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    with db.connection_context(), frozen(backend()), time_limit(0.2), pytest.raises(NoAnswer):
        db.execute_sql("SELECT 1")
