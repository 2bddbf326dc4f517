"""Rows that are read in any order among other calls are the rows that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_helpers import new_user, user_data

from domains.users import User, UsersService
from orm_core import DuplicateKey, compiled, db, parameter, signals, stream, transaction

COUNT = 7
EMAILS = [f"reader{number}@example.com" for number in range(COUNT)]
by_email = compiled(User.select().where(User.email == parameter("email")))


def ordered() -> Any:
    return User.select().where(User.email.startswith("reader")).order_by(User.email)


def of_the_driver() -> Iterator[str]:
    sql = "SELECT email FROM users WHERE email LIKE 'reader%%' ORDER BY email"
    cursor = db.execute_sql(sql)
    while row := cursor.fetchone():
        yield row[0]


def sent_before(query: Any) -> Iterator[str]:
    query.execute()
    return (row.email for row in query)


#: ways to have e-mails in their order, read one after the other
READERS: list[Callable[[], Iterator[str]]] = [
    of_the_driver,
    lambda: (row.email for row in ordered().iterator()),
    lambda: (row.email for row in stream(ordered(), batch=2)),
    lambda: (email for (email,) in stream(ordered().select(User.email).tuples(), batch=3)),
    lambda: sent_before(ordered()),
    lambda: sent_before(ordered().records()),
]


def fails() -> None:
    with suppress(DuplicateKey), transaction():
        UsersService.create(user_data(email=EMAILS[0]))


def is_undone() -> None:
    with suppress(KeyError), transaction():
        new_user()
        raise KeyError


#: calls in between
CALLS: list[Callable[[str], object]] = [
    lambda email: UsersService.find_by_email(email).email == email,
    lambda email: by_email(email=email)[0].email == by_email.first(email=email).email == email,
    lambda email: UsersService.update(by_email.first(email=email).id, {"avatar": email}),
    lambda email: User.get(User.email == email).email == email,
    lambda email: UsersService.count({"email": email}) == 1,
    lambda _: UsersService.find_by_email("nobody@example.com") is None,
    lambda _: fails() is None,
    lambda _: is_undone() is None,
]

steps = st.one_of(
    st.tuples(st.just("begin"), st.integers(0, len(READERS) - 1)),
    st.tuples(st.just("read"), st.integers(0, 20)),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.just("call"), st.integers(0, len(CALLS) - 1)),
)


@pytest.fixture
def readers(clone_db) -> Iterator[None]:
    """Users to read, and a receiver of query events that reads one itself."""
    UsersService.create_many([user_data(email=email) for email in EMAILS])
    reads: list[bool] = []

    def receiver(event: Any) -> None:
        if reads or event.error is not None:
            return
        reads.append(True)
        try:
            assert by_email.first(email=EMAILS[3]).email == EMAILS[3]
        finally:
            reads.clear()

    signals.connect(receiver, "users")
    yield
    signals.disconnect(receiver, "users")


def take_turns(steps: list[tuple[str, int]]) -> None:
    reading: list[tuple[Iterator[str], list[str]]] = []
    for place, (step, number) in enumerate(steps):
        if step == "begin":
            reading.append((READERS[number](), []))
        elif step == "call":
            assert CALLS[number](EMAILS[place % COUNT])
        elif reading and step == "read":
            rows, seen = reading[number % len(reading)]
            seen.extend(email for email in [next(rows, None)] if email)
        elif reading:
            reading.pop(number % len(reading))
    for rows, seen in reading:
        assert [*seen, *rows] == EMAILS


@pytest.mark.parametrize("around", [nullcontext, db.connection_context, transaction])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(steps, max_size=25))
def test_readers_and_calls_take_turns(readers, caplog, around, steps):
    with around():
        take_turns(steps)
    assert db.pool_stats().in_use == 0
    assert "failed" not in caplog.text  # the receiver
