"""Transactions: all or nothing, savepoints inside, callbacks after, and nothing lost in silence."""

# ruff: noqa: PT012 - what a whole block raises is the matter of these tests

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import peewee
import psycopg2
import pytest

from domains.orders import Order, OrdersService
from domains.users import User, UsersService
from orm_core import (
    CommitUnknown,
    ConnectionLost,
    Database,
    DuplicateKey,
    ForeignKeyViolation,
    InvalidStatement,
    InvalidValue,
    OrmCoreError,
    QueryError,
    SerializationFailure,
    StaleTransaction,
    Transaction,
    TransactionAborted,
    TransactionError,
    db,
    initialize_db,
    transaction,
    uuid7,
)

_number = itertools.count(1)


@pytest.fixture
def reading_db(orm_core_worker_url: str) -> Iterator[None]:
    """``db`` at a database that the test only reads."""
    initialize_db(orm_core_worker_url)
    yield
    db.close_all()


class Oops(Exception):
    """What a caller raises."""


def add(email: str) -> User:
    return User.create(email=email, first_name="A", provider_account_id=f"p{next(_number)}")


def stored() -> list[str]:
    """What another session sees."""
    connection = psycopg2.connect(dbname=db.database, **db.connect_params)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT email FROM users ORDER BY email")
        return [email for (email,) in cursor]
    finally:
        connection.close()


def setting(name: str) -> str:
    return str(db.execute_sql(f"SHOW {name}").fetchone()[0])


def break_connection() -> None:
    """End this thread's session from another one."""
    (pid,) = db.execute_sql("SELECT pg_backend_pid()").fetchone()
    connection = psycopg2.connect(dbname=db.database, **db.connect_params)
    try:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        assert cursor.fetchone() == (True,)
    finally:
        connection.close()


def fail() -> None:
    """A statement that the server refuses."""
    db.execute_sql("SELECT 1 / 0")


def in_thread(work: Any) -> Any:
    """What ``work`` raises in a thread of its own, or answers."""
    answer: list[Any] = []

    def run() -> None:
        try:
            answer.append(work())
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return answer[0]


# All or nothing


def test_what_a_block_did_stands_after_it(clone_db):
    with transaction():
        add("a")
        assert stored() == []
        add("b")
    assert stored() == ["a", "b"]


@pytest.mark.parametrize("error", [Oops, KeyboardInterrupt, GeneratorExit])
def test_an_exception_undoes_the_block_and_goes_on(clone_db, error):
    with pytest.raises(error), transaction():
        add("a")
        raise error
    assert stored() == []


def test_an_error_of_a_statement_undoes_the_block(clone_db):
    with pytest.raises(DuplicateKey), transaction():
        add("a")
        add("a")
    assert stored() == []


def test_services_take_part(clone_db):
    with pytest.raises(ForeignKeyViolation), transaction() as tx:
        data = {"email": "a", "first_name": "A", "provider_account_id": "p"}
        UsersService.create(data, tx=tx)
        OrdersService.create({"user_id": uuid7(), "total": 1}, tx=tx)
    assert stored() == []


def test_the_thread_is_usable_after_a_failed_transaction(clone_db):
    with suppress(OrmCoreError), transaction():
        fail()
    add("a")
    assert stored() == ["a"]


# Nesting


def test_a_block_inside_a_block_is_a_savepoint(clone_db):
    with transaction():
        add("a")
        with suppress(Oops), transaction():
            add("b")
            raise Oops
        with transaction():
            add("c")
    assert stored() == ["a", "c"]


def test_an_inner_block_falls_with_the_outer_one(clone_db):
    with suppress(Oops), transaction():
        with transaction():
            add("a")
        raise Oops
    assert stored() == []


def test_a_statement_that_fails_in_an_inner_block_harms_nothing_outside_it(clone_db):
    with transaction():
        add("a")
        with pytest.raises(DuplicateKey), transaction():
            add("a")
        add("b")
    assert stored() == ["a", "b"]


def test_savepoints_nest_and_follow_each_other(clone_db):
    with transaction():
        for number in range(3):
            with suppress(Oops), transaction():
                add(f"{number}")
                with suppress(Oops), transaction():
                    add(f"{number}.1")
                    if number != 1:
                        raise Oops
                if number == 2:
                    raise Oops
    assert stored() == ["0", "1", "1.1"]


# The decorator


def test_a_decorator_with_brackets_begins_a_transaction_for_each_call(clone_db):
    @transaction("serializable")
    def work(email: str) -> str:
        add(email)
        return setting("transaction_isolation")

    assert [work("a"), work("b")] == ["serializable"] * 2
    assert stored() == ["a", "b"]


def test_a_decorator_without_brackets_does_too(clone_db):
    @transaction
    def work(email: str, error: type[Exception] | None = None) -> str:
        """Works."""
        add(email)
        if error:
            raise error
        return email

    assert (work("a"), work.__name__, work.__doc__) == ("a", "work", "Works.")
    with pytest.raises(Oops):
        work("b", error=Oops)
    assert stored() == ["a"]


def test_a_decorated_function_that_calls_itself_nests(clone_db):
    @transaction
    def work(depth: int) -> None:
        add(f"{depth}")
        with suppress(Oops):
            if depth < 3:
                work(depth + 1)
        if depth == 2:
            raise Oops

    work(1)
    assert stored() == ["1"]


def test_a_decorated_function_serves_several_threads_at_a_time(clone_db):
    both = threading.Barrier(2, timeout=10)

    @transaction
    def work(email: str) -> None:
        add(email)
        both.wait()

    other = threading.Thread(target=work, args=("a",))
    other.start()
    work("b")
    other.join(10)
    assert stored() == ["a", "b"]


# Isolation and read-only


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_an_isolation_level_is_in_force_in_the_block_and_not_after_it(reading_db, level):
    for block in (transaction(level), db.transaction(level), db.atomic(level)):
        with block:
            assert setting("transaction_isolation") == level
    with transaction():
        assert setting("transaction_isolation") == "read committed"


def test_repeatable_read_sees_one_snapshot(clone_db):
    with transaction("repeatable read"):
        assert User.select().count() == 0
        assert isinstance(in_thread(lambda: add("a")), User)
        assert User.select().count() == 0
    assert User.select().count() == 1


def test_serializable_refuses_what_could_not_have_happened_in_turn(clone_db):
    with pytest.raises(SerializationFailure), transaction("serializable"):
        add(f"{User.select().count()}-mine")

        def other() -> None:
            with transaction("serializable"):
                add(f"{User.select().count()}-other")

        in_thread(other)
    assert stored() == ["0-other"]


@pytest.mark.parametrize("level", [None, "serializable"])
def test_a_read_only_transaction_refuses_writes(clone_db, level):
    with pytest.raises(QueryError, match="read-only"), transaction(level, read_only=True):
        assert User.select().count() == 0
        add("a")
    add("b")
    assert stored() == ["b"]


@pytest.mark.parametrize("given", [{"isolation": "serializable"}, {"read_only": True}])
def test_only_the_outermost_block_sets_isolation_and_read_only(clone_db, given):
    with transaction():
        add("a")
        with pytest.raises(TransactionError, match="outermost"), db.transaction(**given):
            add("b")
        add("c")
    assert stored() == ["a", "c"]


@pytest.mark.parametrize("level", ["SERIALIZABLE; DROP TABLE users", "chaos", 3, ""])
def test_an_unknown_isolation_level_is_refused(reading_db, level):
    with pytest.raises(TransactionError, match="read committed, repeatable read, serializable"):
        transaction(level)


# The handle


def test_a_handle_that_has_ended_is_refused(clone_db):
    with transaction() as tx:
        assert tx.is_open
        assert repr(tx) == "<transaction open>"
    assert not tx.is_open
    assert repr(tx) == "<transaction closed>"
    for use in (
        lambda: tx.on_commit(print),
        tx.commit,
        tx.rollback,
        lambda: UsersService.list(tx=tx),
    ):
        with pytest.raises(StaleTransaction, match="ended"):
            use()


def test_a_handle_of_another_thread_is_refused(clone_db):
    with transaction() as tx:
        for use in (
            lambda: tx.on_commit(print),
            tx.commit,
            tx.rollback,
            lambda: UsersService.list(tx=tx),
        ):
            error = in_thread(use)
            assert isinstance(error, StaleTransaction)
            assert "another thread" in str(error)
        add("a")
    assert stored() == ["a"]


def test_a_handle_of_another_database_is_refused(clone_db):
    other = Database(clone_db.database, driver=db.driver.NAME, **clone_db.connect_params)
    with (
        transaction(database=other) as tx,
        pytest.raises(StaleTransaction, match="another database"),
    ):
        UsersService.list(tx=tx)
    other.close_all()


def test_what_is_no_handle_is_refused(clone_db):
    with pytest.raises(InvalidValue, match="tx"):
        UsersService.list(tx=object())


def test_a_block_is_entered_once(clone_db):
    block = transaction()
    with block:
        with pytest.raises(StaleTransaction, match="entered once"):
            block.__enter__()
        add("a")
    with pytest.raises(StaleTransaction, match="entered once"):
        block.__enter__()
    assert stored() == ["a"]


def test_blocks_that_end_in_another_order_are_refused_and_rolled_back(clone_db):
    outer, inner = transaction(), transaction()
    outer.__enter__()
    inner.__enter__()
    add("a")
    with pytest.raises(StaleTransaction, match="order"):
        outer.__exit__(None, None, None)
    with pytest.raises(StaleTransaction, match="order"):
        inner.__exit__(None, None, None)
    add("b")
    assert (stored(), db.pool_stats().in_use) == (["b"], 0)


def test_a_block_that_another_thread_ends_goes_on(clone_db):
    with transaction() as tx:
        add("a")
        for failure in (None, Oops()):
            error = in_thread(lambda failure=failure: tx.__exit__(type(failure), failure, None))
            assert "another thread" in str(error)
        add("b")
    assert stored() == ["a", "b"]


def test_an_inner_block_that_was_never_left_falls_with_the_outer_one(clone_db):
    with pytest.raises(Oops), transaction():
        transaction().__enter__()
        add("a")
        raise Oops
    add("b")
    assert stored() == ["b"]


def test_a_transaction_belongs_to_its_thread(clone_db):
    with suppress(Oops), transaction():
        add("a")
        in_thread(lambda: add("b"))
        raise Oops
    assert stored() == ["b"]


# Callbacks


def test_callbacks_run_after_the_commit_in_the_order_of_the_calls(clone_db):
    seen: list[Any] = []
    with transaction() as tx:
        for name in ("first", "second"):
            tx.on_commit(lambda name=name: seen.append((name, stored(), db.in_transaction())))
        add("a")
        assert seen == []
    assert seen == [("first", ["a"], False), ("second", ["a"], False)]


def test_callbacks_of_a_transaction_that_is_rolled_back_never_run(clone_db):
    seen: list[str] = []
    with suppress(Oops), transaction() as tx:
        tx.on_commit(lambda: seen.append("outer"))
        with transaction() as inner:
            inner.on_commit(lambda: seen.append("inner"))
        raise Oops
    with transaction():
        pass
    assert seen == []


def test_callbacks_of_savepoints_run_in_the_order_of_the_blocks_unless_rolled_back(clone_db):
    seen: list[str] = []
    with transaction() as tx:
        tx.on_commit(lambda: seen.append("1"))
        with transaction() as released:
            released.on_commit(lambda: seen.append("2"))
            with transaction() as nested:
                nested.on_commit(lambda: seen.append("3"))
            with suppress(Oops), transaction() as undone:
                undone.on_commit(lambda: seen.append("undone"))
                raise Oops
        with suppress(Oops), transaction() as around:
            around.on_commit(lambda: seen.append("around"))
            with transaction() as within:
                within.on_commit(lambda: seen.append("within"))
            raise Oops
        assert seen == []
        tx.on_commit(lambda: seen.append("4"))
    assert seen == ["1", "2", "3", "4"]


def test_an_outer_handle_used_in_an_inner_block_outlives_that_block(clone_db):
    seen: list[str] = []
    with transaction() as tx, suppress(Oops), transaction():
        tx.on_commit(lambda: seen.append("outer"))
        raise Oops
    assert seen == ["outer"]


def test_an_exception_in_a_callback_is_logged_and_stops_nothing(clone_db, caplog):
    seen: list[str] = []

    def explode() -> None:
        raise Oops

    with transaction() as tx:
        tx.on_commit(explode)
        tx.on_commit(lambda: seen.append("next"))
        add("a")
    assert (seen, stored()) == (["next"], ["a"])
    (record,) = [one for one in caplog.records if one.name == "orm_core.transactions"]
    assert (record.levelno, record.exc_info[0]) == (logging.ERROR, Oops)


def test_a_callback_may_use_the_database(clone_db):
    def more() -> None:
        with transaction() as tx:
            add("b")
            tx.on_commit(lambda: add("c"))

    with transaction() as tx:
        add("a")
        tx.on_commit(more)
    assert stored() == ["a", "b", "c"]


def test_after_commit_waits_for_the_running_transaction(clone_db):
    seen: list[str] = []

    @db.after_commit
    def _() -> None:
        seen.append("at once")

    with transaction():
        with transaction():
            db.after_commit(lambda: seen.append("inner"))
        with suppress(Oops), transaction():
            db.after_commit(lambda: seen.append("undone"))
            raise Oops
        assert seen == ["at once"]
    assert seen == ["at once", "inner"]


def test_after_commit_is_refused_where_the_commit_is_not_ours(clone_db):
    with db.connection_context(), db.manual_commit():
        with pytest.raises(InvalidStatement, match="manual_commit"):
            db.after_commit(print)
        with pytest.raises(TransactionError, match="manual_commit"), transaction():
            add("a")
    assert stored() == []


# Errors that are swallowed


def test_a_swallowed_error_aborts_the_transaction_loudly(clone_db):
    seen: list[str] = []
    with pytest.raises(TransactionAborted) as caught, transaction() as tx:
        tx.on_commit(lambda: seen.append("committed"))
        add("a")
        with suppress(OrmCoreError):
            fail()
    assert "swallowed" in str(caught.value)
    assert (seen, stored()) == ([], [])
    add("b")
    assert stored() == ["b"]


def test_a_swallowed_error_aborts_the_savepoint_only(clone_db):
    seen: list[str] = []
    with transaction():
        add("a")
        with pytest.raises(TransactionAborted, match="savepoint"), transaction() as inner:
            inner.on_commit(lambda: seen.append("inner"))
            add("b")
            with suppress(OrmCoreError):
                fail()
        add("c")
    assert (seen, stored()) == ([], ["a", "c"])


def test_a_block_of_its_own_lets_an_error_be_swallowed(clone_db):
    with transaction():
        add("a")
        with suppress(OrmCoreError), transaction():
            fail()
        add("b")
    assert stored() == ["a", "b"]


def test_a_statement_after_a_swallowed_error_says_what_happened(clone_db):
    with pytest.raises(QueryError, match="earlier statement"), transaction():
        with suppress(OrmCoreError):
            fail()
        add("a")


# Connections that break


def test_the_callers_exception_wins_over_a_broken_connection(clone_db):
    with pytest.raises(Oops) as caught, transaction():
        add("a")
        break_connection()
        raise Oops
    assert caught.value.__context__ is None
    add("b")
    assert stored() == ["b"]


def test_the_callers_exception_wins_in_a_savepoint_too(clone_db):
    with pytest.raises(Oops), transaction(), transaction():
        break_connection()
        raise Oops
    add("a")
    assert stored() == ["a"]


def test_a_connection_that_breaks_inside_is_told_by_the_next_statement(clone_db):
    with pytest.raises(ConnectionLost), transaction():
        add("a")
        break_connection()
        add("b")
    assert stored() == []


def test_a_broken_connection_is_not_replaced_inside_a_transaction(clone_db):
    with pytest.raises(OrmCoreError), transaction():
        add("a")
        break_connection()
        with suppress(ConnectionLost):
            add("b")
        with pytest.raises(ConnectionLost):
            add("c")
    assert stored() == []


def test_a_connection_that_breaks_before_the_commit_has_applied_nothing(clone_db):
    seen: list[str] = []
    with pytest.raises(ConnectionLost) as caught, transaction() as tx:
        tx.on_commit(lambda: seen.append("committed"))
        add("a")
        break_connection()
    assert (caught.value.outcome, seen) == ("not applied", [])
    add("b")
    assert stored() == ["b"]


@pytest.mark.parametrize("options", [{"track": False}, {"read_only": True}], ids=str)
def test_an_untracked_block_whose_session_was_ended_before_commit_knows_it(clone_db, options):
    with pytest.raises(ConnectionLost) as caught, transaction(**options):
        db.execute_sql("SELECT 1")
        break_connection()
    assert not isinstance(caught.value, CommitUnknown)
    assert caught.value.outcome == "not applied"
    add("b")
    assert stored() == ["b"]


def test_the_context_around_a_broken_transaction_goes_on_with_a_new_connection(clone_db):
    with db.connection_context():
        with pytest.raises(ConnectionLost), transaction():
            add("a")
            break_connection()
        with transaction():
            add("b")
        assert db.pool_stats().in_use == 1
    assert (stored(), db.pool_stats().in_use) == (["b"], 0)


def test_a_deferred_constraint_that_fails_in_commit_is_a_foreign_key_violation(clone_db):
    db.execute_sql("ALTER TABLE orders ALTER CONSTRAINT orders_user_id_fkey DEFERRABLE")
    with pytest.raises(ForeignKeyViolation) as caught, transaction():
        db.execute_sql("SET CONSTRAINTS ALL DEFERRED")
        add("a")
        Order.create(user=uuid7(), total=1)
    assert (caught.value.table, caught.value.columns) == ("orders", ("user_id",))
    add("b")
    assert stored() == ["b"]


# rollback() and commit() inside a block


def test_rollback_undoes_what_the_block_did_so_far(clone_db):
    seen: list[str] = []
    with transaction("repeatable read") as tx:
        add("a")
        tx.on_commit(lambda: seen.append("a"))
        tx.rollback()
        assert setting("transaction_isolation") == "repeatable read"
        add("b")
        tx.on_commit(lambda: seen.append("b"))
    assert (stored(), seen) == (["b"], ["b"])


def test_commit_makes_what_the_block_did_so_far_stand(clone_db):
    seen: list[str] = []
    with pytest.raises(Oops), transaction("repeatable read") as tx:
        add("a")
        tx.on_commit(lambda: seen.append("a"))
        tx.commit()
        assert (stored(), seen) == (["a"], ["a"])
        assert setting("transaction_isolation") == "repeatable read"
        add("b")
        tx.on_commit(lambda: seen.append("b"))
        raise Oops
    assert (stored(), seen) == (["a"], ["a"])


def test_rollback_in_a_savepoint_undoes_the_savepoint_only(clone_db):
    with transaction():
        add("a")
        with transaction() as inner:
            add("b")
            inner.rollback()
            add("c")
    assert stored() == ["a", "c"]


def test_commit_in_a_savepoint_keeps_what_it_did_if_the_outer_block_is_kept(clone_db):
    seen: list[str] = []
    with transaction():
        with suppress(Oops), transaction() as inner:
            add("a")
            inner.on_commit(lambda: seen.append("a"))
            inner.commit()
            add("b")
            inner.on_commit(lambda: seen.append("b"))
            raise Oops
        assert (stored(), seen) == ([], [])
    assert (stored(), seen) == (["a"], ["a"])


def test_rollback_makes_a_block_usable_after_a_swallowed_error(clone_db):
    with transaction() as tx:
        with suppress(OrmCoreError):
            fail()
        tx.rollback()
        add("a")
    assert stored() == ["a"]


def test_a_commit_inside_that_fails_leaves_the_block_in_a_transaction(clone_db):
    with suppress(Oops), transaction() as tx:
        with suppress(OrmCoreError):
            fail()
        with pytest.raises(TransactionAborted):
            tx.commit()
        add("a")
        raise Oops
    assert stored() == []


def test_callbacks_of_a_commit_inside_that_failed_never_run(clone_db):
    seen: list[str] = []
    with transaction() as tx:
        tx.on_commit(lambda: seen.append("a"))
        with suppress(OrmCoreError):
            fail()
        with pytest.raises(TransactionAborted):
            tx.commit()
        tx.on_commit(lambda: seen.append("b"))
    assert seen == ["b"]


@pytest.mark.parametrize("verb", ["commit", "rollback"])
def test_an_outer_block_is_not_ended_inside_an_inner_one(clone_db, verb):
    with suppress(Oops), transaction() as tx:
        add("a")
        with transaction():
            add("b")
            with pytest.raises(TransactionError):
                getattr(tx, verb)()
        raise Oops
    assert stored() == []


def test_the_database_is_not_initialized_anew_inside_a_transaction(clone_db):
    with transaction():
        add("a")
        with pytest.raises(TransactionError, match="initialized"):
            initialize_db("postgresql:///elsewhere")
    assert stored() == ["a"]


# Peewee's names


def test_peewees_names_mean_the_same(clone_db):
    seen: list[str] = []
    with db.atomic() as outer:
        assert isinstance(outer, Transaction)
        outer.on_commit(lambda: seen.append("atomic"))
        add("a")
        with db.transaction() as inner:
            inner.on_commit(lambda: seen.append("transaction"))
            add("b")
        with suppress(Oops), db.savepoint() as savepoint:
            savepoint.on_commit(lambda: seen.append("savepoint"))
            add("c")
            raise Oops
    assert (stored(), seen) == (["a", "b"], ["atomic", "transaction"])


def test_the_database_itself_is_a_block(clone_db):
    with db:
        add("a")
        assert db.in_transaction()
    with suppress(Oops), db:
        add("b")
        raise Oops
    assert (stored(), db.pool_stats().in_use) == (["a"], 0)


def test_peewees_atomic_decorator_works(clone_db):
    @db.atomic()
    def work(email: str) -> None:
        add(email)
        if email == "b":
            raise Oops

    work("a")
    with suppress(Oops):
        work("b")
    work("c")
    assert stored() == ["a", "c"]


def test_our_errors_are_peewees_errors(clone_db):
    with pytest.raises(peewee.IntegrityError), db.atomic():
        add("a")
        add("a")


def test_a_transaction_on_another_database_leaves_ours_alone(clone_db):
    other = Database(clone_db.database, driver=db.driver.NAME, **clone_db.connect_params)
    with suppress(Oops), other.atomic():
        other.execute_sql("CREATE TABLE elsewhere ()")
        add("a")
        raise Oops
    other.close_all()
    assert (stored(), db.table_exists("elsewhere")) == (["a"], False)


def test_a_transaction_that_can_not_begin_gives_its_connection_back(clone_db):
    @contextmanager
    def refused_begin() -> Any:
        db.connect()
        break_connection()
        try:
            yield
        finally:
            db.close()

    with refused_begin(), pytest.raises(ConnectionLost), transaction():
        add("a")
    assert db.pool_stats().in_use == 0
    assert not db.in_transaction()
    with transaction():
        add("b")
    assert stored() == ["b"]


# What opens a block travels with its first statement


def backend_texts(database):
    """The last text that each other session of this database sent."""
    sql = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
    pid = psycopg2.connect(dbname=database.database, **database.connect_params)
    pid.autocommit = True
    cursor = pid.cursor()
    cursor.execute(sql, (pid.info.backend_pid,))
    texts = [text for (text,) in cursor.fetchall()]
    pid.close()
    return texts


def test_begin_and_savepoint_travel_with_the_first_statement(clone_db):
    with transaction(), transaction():
        db.execute_sql("SELECT 42")
        assert "BEGIN;SAVEPOINT sp_1;SELECT 42" in backend_texts(clone_db)


def test_a_block_without_statements_sends_nothing(clone_db):
    with db.connection_context():
        db.execute_sql("SELECT 'before'")
        called: list[int] = []
        with transaction() as tx, transaction():
            tx.on_commit(lambda: called.append(1))
        assert "SELECT 'before'" in backend_texts(clone_db)
        assert called == [1]


def test_a_first_statement_that_does_not_parse_fails_the_block_as_any_other(clone_db):
    with pytest.raises(TransactionAborted), transaction(), suppress(InvalidStatement):
        db.execute_sql("SELEC 1")
    with pytest.raises(InvalidStatement), transaction():
        with suppress(InvalidStatement):
            db.execute_sql("SELEC 1")
        add("a")
    assert stored() == []


def test_a_savepoint_whose_first_statement_does_not_parse_takes_nothing_else_along(clone_db):
    with transaction():
        add("outer")
        with suppress(InvalidStatement), transaction():
            db.execute_sql("SELEC 1")
        add("after")
    with transaction():
        with suppress(InvalidStatement), transaction():
            db.execute_sql("SELEC 1")
        add("first")
    assert stored() == ["after", "first", "outer"]


def test_a_value_refused_before_sql_leaves_the_block_usable(clone_db):
    with transaction():
        with pytest.raises(InvalidValue):
            db.execute_sql("SELECT %s", ("\0",))
        add("a")
        with transaction():
            with pytest.raises(InvalidValue):
                db.execute_sql("SELECT %s", ("\0",))
            add("b")
    assert stored() == ["a", "b"]


def test_a_cursor_or_connection_of_the_driver_is_inside_the_block(clone_db):
    for take in (lambda: db.connection().cursor(), db.cursor):
        with suppress(KeyError), transaction():
            take().execute("DELETE FROM users WHERE false; CREATE TABLE inside (id int)")
            raise KeyError
        assert not db.table_exists("inside")


def test_commit_by_hand_in_a_block_without_statements_begins_nothing(clone_db):
    with transaction():
        db.commit()
        db.execute_sql("CREATE INDEX CONCURRENTLY some_idx ON users (last_name)")
        db.begin()
    assert "some_idx" in {index.name for index in db.get_indexes("users")}


def test_begin_and_the_end_by_hand_need_no_context(clone_db):
    for end, name in ((db.commit, "a"), (db.rollback, "b")):
        db.begin()
        add(name)
        end()
        db.close()
    assert stored() == ["a"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_end_by_hand_with_nothing_begun_does_nothing(clone_db, end):
    getattr(db, end)()
    assert not db.transaction_is_open()
    db.close()
    db.autoconnect = False
    try:
        with pytest.raises(peewee.InterfaceError, match="not opened"):
            getattr(db, end)()
    finally:
        db.autoconnect = True
