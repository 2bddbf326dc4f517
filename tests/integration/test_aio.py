"""Services from asyncio: in threads, never two tasks in one transaction by accident."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest
from concurrency import until
from service_helpers import Log, user_data

from domains.users import User, UsersService
from orm_core import (
    ConnectionInUse,
    DuplicateKey,
    InvalidValue,
    PoolTimeout,
    StaleTransaction,
    StatementTimeout,
    acting_as,
    aio,
    db,
    initialize_db,
    row_scope,
    run_transaction,
    setting,
    time_limit,
    transaction,
)


class Oops(Exception):
    """What a caller raises."""


@pytest.fixture
def small_pool(clone_db: Any, orm_core_server: Any) -> Iterator[None]:
    """Two connections, half a second of patience."""
    initialize_db(orm_core_server.url(clone_db.database), pool_size=2, pool_timeout=0.5)
    yield
    until(lambda: db.pool_stats().in_use == 0, "threads that outlive their loop are done")


def go(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


def emails() -> list[str]:
    return [user.email for user in User.select().order_by(User.email)]


def add(email: str) -> None:
    UsersService.create(user_data(email=email))


def sleep(seconds: float) -> None:
    db.execute_sql("SELECT pg_sleep(%s)", (seconds,))


# Calls


def test_a_service_runs_in_a_thread_and_answers(clone_db):
    log = Log()

    async def work() -> User:
        return await aio.run(UsersService.create, user_data(email="a"), log)

    assert go(work()).email == "a"
    assert (emails(), len(log.audits)) == (["a"], 1)


def test_calls_run_at_the_same_time_up_to_the_size_of_the_pool(small_pool):
    both = threading.Barrier(2, timeout=10)
    most = 0

    def call() -> None:
        nonlocal most
        with db.connection_context():
            db.execute_sql("SELECT 1")
            most = max(most, db.pool_stats().in_use)
            both.wait()

    async def work() -> None:
        await asyncio.gather(*[aio.run(call) for _ in range(6)])

    go(work())
    assert most == 2


def test_errors_come_through(clone_db):
    async def work() -> None:
        await aio.run(add, "a")
        with pytest.raises(DuplicateKey):
            await aio.run(add, "a")
        with pytest.raises(Oops):
            await aio.run(_raise, Oops())
        with pytest.raises(RuntimeError, match="StopIteration"):
            await aio.run(_raise, StopIteration())

    go(work())


def _raise(error: BaseException) -> None:
    raise error


def test_who_acts_and_whose_rows_hold_in_calls_and_transactions(small_pool, monkeypatch):
    monkeypatch.setattr(db, "audited", True)

    def told() -> tuple[Any, ...]:
        actor = "nullif(current_setting('orm_core.actor', true), '')"
        sql = f"WITH one AS (SELECT 1) SELECT {actor}, {setting('tenant')}"
        row: tuple[Any, ...] = db.execute_sql(sql).fetchone()
        return row

    async def request(number: int) -> None:
        with acting_as(f"user:{number}"), row_scope(tenant=number):
            assert await aio.run(told) == (f"user:{number}", str(number))
            async with aio.transaction() as tx:
                assert await aio.run(told) == (f"user:{number}", str(number))
                with acting_as("job"), row_scope(tenant=number + 100):
                    assert await tx.run(told) == ("job", str(number + 100))
                assert await aio.run(told) == (f"user:{number}", str(number))
        assert await aio.run(told) == (None, None)

    async def work() -> None:
        await aio.run(told)
        await asyncio.gather(*[request(number) for number in range(6)])

    go(work())


def test_a_time_limit_is_in_force_in_the_call(clone_db):
    async def work() -> None:
        with time_limit(0.2):
            await aio.run(sleep, 10)

    with pytest.raises(StatementTimeout):
        go(work())


def test_a_connection_that_a_call_keeps_is_given_back(small_pool):
    async def work() -> None:
        await aio.run(db.connect)
        await aio.run(add, "a")

    go(work())
    assert db.pool_stats().in_use == 0


def test_a_transaction_that_is_run_again_works_too(clone_db):
    async def work() -> None:
        await aio.run(run_transaction, lambda tx: add("a"), isolation="serializable")

    go(work())
    assert emails() == ["a"]


def test_an_async_function_is_refused(clone_db):
    async def call() -> None:
        """Never runs."""

    with pytest.raises(InvalidValue, match="plain function"):
        go(aio.run(call))
    with pytest.raises(InvalidValue, match="plain function"):
        go(aio.run("call"))  # type: ignore[arg-type]


def test_who_finds_no_free_thread_is_told(small_pool):
    async def work() -> None:
        async with aio.transaction():
            other = asyncio.create_task(_hold(asyncio.Event()))
            await asyncio.sleep(0)
            with pytest.raises(PoolTimeout, match="pool_size"):
                await asyncio.create_task(aio.run(add, "a"))
            other.cancel()
            with suppress(asyncio.CancelledError):
                await other

    go(work())


async def _hold(until: asyncio.Event) -> None:
    async with aio.transaction():
        await until.wait()


def test_each_event_loop_has_threads_of_its_own(small_pool):
    for email in ("a", "b", "c"):
        go(aio.run(add, email))
    loops = [threading.Thread(target=go, args=(aio.run(add, email),)) for email in ("d", "e")]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(30)
    assert emails() == ["a", "b", "c", "d", "e"]


# Transactions


def test_calls_in_a_block_are_one_transaction(clone_db):
    seen: list[str] = []

    async def work() -> aio.AsyncTransaction:
        async with aio.transaction("serializable") as tx:
            user = await aio.run(UsersService.create, user_data(email="a"), tx=tx.handle)
            await tx.run(UsersService.update, user.id, {"last_name": "B"})
            await tx.on_commit(lambda: seen.append("committed"))
            level = await tx.run(db.execute_sql, "SHOW transaction_isolation")
            assert level.fetchone() == ("serializable",)
            assert seen == []
        return tx

    assert go(work()).outcome == "applied"
    assert (emails(), seen) == (["a"], ["committed"])


def test_an_exception_undoes_the_block_and_goes_on(small_pool):
    async def work() -> None:
        async with aio.transaction():
            await aio.run(add, "a")
            raise Oops

    with pytest.raises(Oops):
        go(work())
    assert emails() == []


def test_a_block_in_a_block_is_a_savepoint(small_pool):
    async def work() -> None:
        async with aio.transaction():
            await aio.run(add, "a")
            with suppress(Oops):
                async with aio.transaction() as inner:
                    await inner.run(add, "b")
                    raise Oops
            await aio.run(add, "c")

    go(work())
    assert emails() == ["a", "c"]


def test_transactions_of_tasks_do_not_meet(small_pool):
    async def one(email: str, fails: bool) -> None:
        async with aio.transaction():
            await aio.run(add, email)
            await asyncio.sleep(0.01)
            await aio.run(add, f"{email}2")
            if fails:
                raise Oops

    async def work() -> None:
        tasks = [one(f"{number}", number % 2 == 1) for number in range(6)]
        await asyncio.gather(*tasks, return_exceptions=True)

    go(work())
    assert emails() == ["0", "02", "2", "22", "4", "42"]


def test_a_task_that_began_in_the_block_takes_no_part_in_it(small_pool):
    async def work() -> None:
        async with aio.transaction() as tx:
            await asyncio.create_task(aio.run(add, "outside"))
            with pytest.raises(StaleTransaction, match="another task"):
                await asyncio.create_task(tx.run(add, "b"))
            raise Oops

    with pytest.raises(Oops):
        go(work())
    assert emails() == ["outside"]


def test_a_block_that_has_ended_is_refused(clone_db):
    async def work() -> None:
        async with aio.transaction() as tx:
            pass
        with pytest.raises(StaleTransaction, match="ended"):
            await tx.run(add, "a")
        with pytest.raises(StaleTransaction, match="entered once"):
            await tx.__aenter__()

    go(work())


def test_a_transaction_that_is_cancelled_is_rolled_back_after_its_statement(small_pool):
    async def one() -> None:
        async with aio.transaction():
            await aio.run(add, "a")
            await aio.run(sleep, 0.3)
            await aio.run(add, "b")

    async def work() -> None:
        task = asyncio.create_task(one())
        await asyncio.sleep(0.15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert db.pool_stats().in_use == 0
        await aio.run(add, "c")

    go(work())
    assert emails() == ["c"]


def test_a_block_is_cancelled_at_any_moment_and_the_thread_comes_back(small_pool):
    async def one(number: int) -> None:
        async with aio.transaction():
            await aio.run(add, f"{number}")
            await aio.run(add, f"{number}b")

    async def work() -> None:
        for number in range(40):
            task = asyncio.create_task(one(number))
            await asyncio.sleep(number / 4000)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(*[aio.run(sleep, 0.01) for _ in range(4)])

    go(work())
    stored = emails()
    assert {email.removesuffix("b") for email in stored} == set(stored) - {
        email for email in stored if email.endswith("b")
    }


def test_a_call_that_is_cancelled_keeps_its_thread_until_its_end(small_pool):
    async def work() -> None:
        calls = [asyncio.create_task(aio.run(sleep, 0.3)) for _ in range(2)]
        await asyncio.sleep(0.1)
        for call in calls:
            call.cancel()
        with time_limit(0.05), pytest.raises(PoolTimeout):
            await aio.run(add, "a")
        await aio.run(add, "b")

    go(work())
    assert emails() == ["b"]


# Without orm_core.aio


def test_two_tasks_do_not_share_a_connection_by_accident(small_pool):
    async def holds(held: asyncio.Event, over: asyncio.Event) -> None:
        with transaction():
            add("a")
            held.set()
            await over.wait()

    async def work() -> None:
        held, over = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(holds(held, over))
        await held.wait()
        for use in (
            lambda: add("b"),
            db.connection,
            db.cursor,
            transaction().__enter__,
            db.connection_context().__enter__,
            lambda: db.connect(reuse_if_open=True),
        ):
            with pytest.raises(ConnectionInUse, match="aio"):
                use()
        await aio.run(add, "c")
        over.set()
        await task
        add("d")

    go(work())
    assert emails() == ["a", "c", "d"]


def test_a_context_of_another_task_is_not_used_either(small_pool):
    async def holds(held: asyncio.Event, over: asyncio.Event) -> None:
        with db.connection_context():
            held.set()
            await over.wait()

    async def work() -> None:
        held, over = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(holds(held, over))
        await held.wait()
        with pytest.raises(ConnectionInUse):
            add("a")
        over.set()
        await task
        add("b")

    go(work())
    assert emails() == ["b"]


def test_one_task_may_use_the_thread_as_it_likes(rollback_db):
    async def work() -> None:
        with transaction(), transaction():
            add("a")
            await asyncio.sleep(0)
            add("b")

    go(work())
    assert emails() == ["a", "b"]


def test_what_a_task_left_behind_does_not_lock_the_thread(small_pool):
    async def work() -> None:
        db.connect()

    go(work())
    add("a")
    db.close()
    assert emails() == ["a"]
