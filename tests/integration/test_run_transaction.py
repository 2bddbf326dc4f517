"""``run_transaction``: again when that is right, once when it is not, and counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cutting import Way, before_commit_arrives, before_commit_is_answered, way_to
from prometheus_client import REGISTRY

from domains.users import User
from orm_core import (
    CommitUnknown,
    ConnectionRefused,
    DeadlockDetected,
    InvalidValue,
    SerializationFailure,
    Transaction,
    TransactionError,
    db,
    initialize_db,
    metrics,
    run_transaction,
    transaction,
)

assert metrics


def add(email: str) -> User:
    return User.create(email=email, first_name="A", provider_account_id=email)


@pytest.fixture
def way(clone_db: Any, orm_core_server: Any) -> Iterator[Way]:
    """``db`` reaches its database by a way that a test can cut."""
    with way_to(orm_core_server, clone_db.database) as (way, url):
        initialize_db(url)
        yield way
        db.close_all()


def once(way: Way, cuts: Any) -> None:
    """Cut one connection there."""

    def rule(name: str, data: bytes) -> bool:
        if not cuts(name, data):
            return False
        way.cuts = None
        return True

    way.cuts = rule


def stored() -> list[str]:
    return [user.email for user in User.select().order_by(User.email)]


def counted(reason: str) -> float:
    return REGISTRY.get_sample_value("db_transaction_retries_total", {"kind": reason}) or 0.0


def raise_state(state: str) -> None:
    db.execute_sql(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$")


def test_the_result_is_that_of_the_function(clone_db):
    def work(tx: Transaction) -> str:
        assert db.execute_sql("SHOW transaction_isolation").fetchone() == ("serializable",)
        add("a")
        return "done"

    assert run_transaction(work, isolation="serializable") == "done"
    assert stored() == ["a"]


@pytest.mark.parametrize(("state", "reason"), [("40001", "serialization"), ("40P01", "deadlock")])
def test_it_runs_again_until_it_holds_and_callbacks_run_once(clone_db, state, reason):
    seen: list[str] = []
    tried: list[Transaction] = []
    before = counted(reason)

    def work(tx: Transaction) -> int:
        tried.append(tx)
        number = len(tried)
        tx.on_commit(lambda: seen.append(f"committed {number}"))
        add(f"{number}")
        if number < 3:
            raise_state(state)
        return number

    assert run_transaction(work) == 3
    assert (seen, stored(), counted(reason) - before) == (["committed 3"], ["3"], 2)
    assert [tx.outcome for tx in tried] == ["not applied", "not applied", "applied"]


def test_transactions_that_get_in_each_others_way_all_hold(clone_db):
    add("a")

    def work(tx: Transaction) -> None:
        user = User.get(User.email == "a")
        user.last_name = str(int(user.last_name or 0) + 1)
        user.save()

    def several() -> None:
        for _ in range(5):
            run_transaction(work, isolation="serializable", attempts=50)

    threads = [threading.Thread(target=several) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert User.get(User.email == "a").last_name == "20"


@pytest.mark.parametrize(
    ("state", "error"), [("40001", SerializationFailure), ("40P01", DeadlockDetected)]
)
def test_the_last_error_carries_the_number_of_attempts(clone_db, state, error):
    tried: list[int] = []

    def work(tx: Transaction) -> None:
        tried.append(1)
        raise_state(state)

    with pytest.raises(error) as caught:
        run_transaction(work, attempts=3)
    assert (caught.value.attempts, caught.value.outcome, len(tried)) == (3, "not applied", 3)
    assert not db.in_transaction()


@pytest.mark.parametrize("failure", [KeyError("x"), KeyboardInterrupt(), InvalidValue("x")])
def test_other_errors_are_not_tried_again(clone_db, failure):
    tried: list[int] = []

    def work(tx: Transaction) -> None:
        tried.append(1)
        add("a")
        raise failure

    with pytest.raises(type(failure)) as caught:
        run_transaction(work)
    assert caught.value is failure
    assert (len(tried), stored()) == (1, [])


def test_a_connection_lost_before_commit_is_tried_again(way):
    before = counted("connection")
    tried: list[int] = []

    def work(tx: Transaction) -> None:
        tried.append(1)
        add("a")
        if len(tried) == 1:
            once(way, lambda name, data: b"INSERT" in data)
        add("b")

    run_transaction(work)
    assert (stored(), len(tried), counted("connection") - before) == (["a", "b"], 2, 1)


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize(
    ("cuts", "tries"), [(before_commit_arrives, 2), (before_commit_is_answered, 1)]
)
def test_a_commit_that_is_cut_holds_once_in_the_end(way, cuts, tries, idempotent):
    tried: list[int] = []
    seen: list[int] = []

    def work(tx: Transaction) -> int:
        number = len(tried)
        tried.append(number)
        tx.on_commit(lambda: seen.append(number))
        add(f"{number}")
        if number == 0:
            once(way, cuts)
        return number

    assert run_transaction(work, idempotent=idempotent) == tries - 1
    assert (stored(), seen, len(tried)) == ([f"{tries - 1}"], [tries - 1], tries)


@pytest.mark.parametrize("idempotent", [False, True])
def test_an_outcome_that_stays_unknown_is_repeated_only_where_that_does_no_harm(way, idempotent):
    tried: list[int] = []

    def work(tx: Transaction) -> None:
        tried.append(1)
        if not User.select().where(User.email == "a").exists():
            add("a")
        if len(tried) == 1:
            # Another server, as after a failover.
            db.connection().server = "1.00000001.5"
            once(way, before_commit_is_answered)

    if idempotent:
        run_transaction(work, idempotent=True)
    else:
        with pytest.raises(CommitUnknown) as caught:
            run_transaction(work)
        assert caught.value.attempts == 1
    assert (stored(), len(tried)) == (["a"], 1 + idempotent)


def test_what_was_committed_by_hand_is_not_run_again(clone_db):
    tried: list[int] = []

    def work(tx: Transaction) -> None:
        tried.append(1)
        add("a")
        tx.commit()
        raise_state("40001")

    with pytest.raises(SerializationFailure):
        run_transaction(work)
    assert (stored(), len(tried)) == (["a"], 1)


def test_a_commit_by_hand_that_was_cut_is_neither_run_again_nor_taken_for_the_end(way):
    tried: list[int] = []

    def work(tx: Transaction) -> None:
        tried.append(1)
        add("a")
        once(way, before_commit_is_answered)
        tx.commit()

    with pytest.raises(CommitUnknown) as caught:
        run_transaction(work, idempotent=True)
    assert (caught.value.find_out(), stored(), len(tried)) == ("applied", ["a"], 1)


def test_a_part_that_was_committed_by_hand_is_not_run_again_when_the_rest_is_lost(way):
    tried: list[int] = []

    def work(tx: Transaction) -> None:
        tried.append(1)
        add("a")
        tx.commit()
        add("b")
        once(way, before_commit_arrives)

    with pytest.raises(CommitUnknown) as caught:
        run_transaction(work, idempotent=True)
    assert (caught.value.find_out(), stored(), len(tried)) == ("not applied", ["a"], 1)


def test_a_server_that_refuses_is_tried_again(clone_db, orm_core_server):
    initialize_db("postgresql://u:p@127.0.0.1:1/x")
    with pytest.raises(ConnectionRefused) as caught:
        run_transaction(lambda tx: add("a"), attempts=2)
    assert caught.value.attempts == 2


def test_it_refuses_to_run_inside_a_transaction(clone_db):
    with transaction(), pytest.raises(TransactionError, match="run_transaction"):
        run_transaction(lambda tx: add("a"))
    assert stored() == []


@pytest.mark.parametrize("attempts", [0, -1, 1.5, "3", True, None])
def test_attempts_must_be_a_number_above_0(clone_db, attempts):
    with pytest.raises(InvalidValue, match="attempts"):
        run_transaction(lambda tx: add("a"), attempts=attempts)


def test_what_is_no_function_is_refused(clone_db):
    with pytest.raises(InvalidValue, match="function"):
        run_transaction("work")  # type: ignore[arg-type]
