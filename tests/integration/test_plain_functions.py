"""What works later than its call is no use to a block, a retry or a callback: it is refused."""

from __future__ import annotations

import pytest

from orm_core import (
    InvalidValue,
    acting_as,
    db,
    row_scope,
    run_transaction,
    time_limit,
    transaction,
)

DECORATORS = {
    "transaction": transaction,
    "transaction()": transaction("serializable"),
    "db.atomic()": db.atomic(),
    "db.manual_commit()": db.manual_commit(),
    "db.connection_context()": db.connection_context(),
    "time_limit": time_limit(1),
    "acting_as": acting_as("job:nightly"),
    "row_scope": row_scope(tenant=1),
}


async def an_async_function(*_: object) -> None: ...


def a_generator(*_: object):
    yield


async def an_async_generator(*_: object):
    yield


LATER = [an_async_function, a_generator, an_async_generator]


@pytest.mark.parametrize("fn", LATER)
@pytest.mark.parametrize("decorator", DECORATORS.values(), ids=DECORATORS)
def test_a_block_is_no_decorator_of_what_works_after_its_call(decorator, fn):
    with pytest.raises(InvalidValue, match="takes a"):
        decorator(fn)


@pytest.mark.parametrize("decorator", DECORATORS.values(), ids=DECORATORS)
def test_a_block_is_a_decorator_of_a_plain_function_any_number_of_times(clone_db, decorator):
    @decorator
    def ask(number: int) -> int:
        return int(db.execute_sql("SELECT %s", (number,)).fetchone()[0])

    assert [ask(1), ask(number=2)] == [1, 2]
    assert ask.__name__ == "ask"


@pytest.mark.parametrize("fn", [*LATER, None, "no function"])
def test_what_works_after_its_call_is_not_run_again(clone_db, fn):
    with pytest.raises(InvalidValue, match=r"run_transaction\(\) takes a"):
        run_transaction(fn)


@pytest.mark.parametrize("fn", [*LATER, None, "no function"])
def test_a_callback_is_a_plain_function(clone_db, fn):
    with transaction() as tx, pytest.raises(InvalidValue, match=r"on_commit\(\) takes a"):
        tx.on_commit(fn)
    assert tx.outcome == "applied"
