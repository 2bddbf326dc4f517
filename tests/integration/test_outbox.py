"""The outbox: a message for each transaction that stands, none for the others."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest

from orm_core import InvalidValue, Secret, TransactionError, db, outbox, transaction
from orm_core.models.schema import create_all
from orm_core.outbox import Message, Outbox


class Oops(Exception):
    """What a receiver raises."""


@pytest.fixture(autouse=True)
def table(clone_db: Any) -> None:
    create_all(clone_db, [Outbox])


def put(*topics: str, key: str | None = None) -> None:
    with transaction():
        for topic in topics:
            outbox.put(topic, {"text": topic}, key=key)


def due_now() -> None:
    db.execute_sql("UPDATE outbox SET due_at = now() WHERE due_at IS NOT NULL")


def relay_all(send: Any, **options: Any) -> list[int]:
    counts = []
    while counts[-1:] != [0]:
        counts.append(outbox.relay(send, **options))
    return counts[:-1]


def test_a_message_of_a_transaction_that_stands_is_delivered_once():
    seen: list[Message] = []
    with transaction():
        number = outbox.put("user.created", {"id": 3, "tags": ["a"]}, key="3")
    assert outbox.relay(seen.append) == 1
    assert seen == [Message(number, "user.created", "3", {"id": 3, "tags": ["a"]}, 1)]
    assert outbox.relay(seen.append) == 0
    assert Outbox.get_by_id(number).delivered_at is not None


def test_a_message_of_a_transaction_that_is_rolled_back_is_none():
    with suppress(Oops), transaction():
        outbox.put("a", {})
        raise Oops
    assert outbox.relay(print) == 0


def test_outside_a_transaction_nothing_is_put():
    with pytest.raises(TransactionError, match="with transaction"):
        outbox.put("a", {})
    with transaction(), pytest.raises(TransactionError, match="inside a transaction"):
        outbox.relay(print)


@pytest.mark.parametrize(
    "payload", [Secret("x"), {"token": Secret("x")}, float("nan"), object(), None]
)
def test_what_is_no_json_is_refused(payload):
    with transaction(), pytest.raises(InvalidValue):
        outbox.put("a", payload)


@pytest.mark.parametrize("given", [{"batch": 0}, {"lease": -1}, {"attempts": "3"}, {"batch": True}])
def test_limits_must_be_numbers_above_0(given):
    with pytest.raises(InvalidValue, match=next(iter(given))):
        outbox.relay(print, **given)


def test_a_message_that_fails_is_tried_again_later_and_given_up_in_the_end(caplog):
    put("a")
    tried: list[int] = []

    def send(message: Message) -> None:
        tried.append(message.attempts)
        raise Oops("a value")

    for _ in range(5):
        assert outbox.relay(send, attempts=3) == 0
        assert outbox.relay(send, attempts=3) == 0
        due_now()
    assert tried == [1, 2, 3]
    (dead,) = outbox.given_up()
    assert (dead.topic, dead.error, dead.attempts) == ("a", "Oops", 3)
    Outbox.update(due_at=dead.created_at, attempts=0).execute()
    assert outbox.relay(tried.append) == 1
    assert list(outbox.given_up()) == []


def test_messages_with_a_key_keep_their_order_and_hold_up_no_others():
    put("a1", "a2", "a3", key="a")
    put("b1", key="b")
    put("free")
    seen: list[str] = []
    fails = {"a1"}

    def send(message: Message) -> None:
        if message.topic in fails:
            raise Oops
        seen.append(message.topic)

    relay_all(send)
    assert seen == ["b1", "free"]
    fails.clear()
    due_now()
    relay_all(send)
    assert seen == ["b1", "free", "a1", "a2", "a3"]


def test_a_message_whose_relay_died_is_taken_by_another_after_the_lease():
    put("a")
    seen: list[Message] = []

    def die(message: Message) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outbox.relay(die)
    assert outbox.relay(seen.append) == 0
    due_now()
    assert outbox.relay(seen.append) == 1
    assert [message.attempts for message in seen] == [2]


def test_a_relay_that_was_too_slow_does_not_delay_the_one_that_took_over():
    put("a")
    seen: list[Message] = []

    def slow(message: Message) -> None:
        due_now()
        assert outbox.relay(seen.append) == 1
        raise Oops

    assert outbox.relay(slow) == 0
    assert Outbox.get().delivered_at is not None
    assert Outbox.get().due_at is None


def test_several_relays_share_the_work_and_keep_the_order():
    for number in range(60):
        put(f"{number}", key=f"{number % 7}")
    seen: list[Message] = []
    lock = threading.Lock()

    def send(message: Message) -> None:
        with lock:
            seen.append(message)

    def work() -> None:
        relay_all(send, batch=3)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    relay_all(send)
    assert sorted(int(message.topic) for message in seen) == list(range(60))
    for key in range(7):
        order = [int(message.topic) for message in seen if message.key == f"{key}"]
        assert order == sorted(order)


def test_delivered_messages_are_pruned():
    put("a", "b")
    outbox.relay(print, batch=1)
    assert outbox.prune() == 0
    db.execute_sql("UPDATE outbox SET delivered_at = now() - interval '8 days' WHERE topic = 'a'")
    assert outbox.prune() == 1
    assert [message.topic for message in Outbox.select()] == ["b"]
    with pytest.raises(InvalidValue, match="timedelta"):
        outbox.prune(7)  # type: ignore[arg-type]
