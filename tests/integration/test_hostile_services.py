"""Hostile values at the verbs of a service: refused before SQL, and never shown."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from test_hostile_values import BAD, CANARY, Item, Rack, everything_shown_by, statements

from orm_core import InvalidValue, OrmCoreError, Service, compiled, db, parameter, stream

HOSTILE = f"{CANARY}; DROP TABLE hostile_items; --"


class Items(Service[Item, Any, Any]):
    """The rows that hostile values are for."""


@pytest.fixture
def tables(rollback_db):
    db.create_tables([Rack, Item])
    return rollback_db


VERBS: dict[str, Callable[[str, Any], Any]] = {
    "create": lambda name, value: Items.create({name: value}),
    "create_many": lambda name, value: Items.create_many([{}, {name: value}]),
    "upsert": lambda name, value: Items.upsert({"id": uuid.uuid4(), name: value}, on=["id"]),
    "upsert_many": lambda name, value: Items.upsert_many(
        [{"id": uuid.uuid4()}, {"id": uuid.uuid4(), name: value}], on=["id"]
    ),
    "update": lambda name, value: Items.update(uuid.uuid4(), {name: value}),
    "update_many": lambda name, value: Items.update_many([{"id": uuid.uuid4(), name: value}]),
    "update_where": lambda name, value: Items.update_where(None, {name: value}),
    "update_where's condition": lambda name, value: Items.update_where({name: value}, {}),
    "find": lambda name, value: Items.find({name: value}),
    "list": lambda name, value: Items.list({name: value}),
    "page": lambda name, value: Items.page({name: value}),
    "iterate": lambda name, value: list(Items.iterate({name: value})),
    "count": lambda name, value: Items.count({name: value}),
    "exists": lambda name, value: Items.exists({name: value}),
    "stream": lambda name, value: list(stream(Item.select().where(getattr(Item, name) == value))),
}


def is_let_in(verb: str, name: str, value: Any) -> str | None:
    """What is wrong with how a verb treats a hostile value, None when it refuses as it should."""
    with statements() as sent:
        try:
            with db.atomic():
                VERBS[verb](name, value)
        except InvalidValue as error:
            if CANARY in everything_shown_by(error):
                return "the value shows"
        except OrmCoreError as error:
            return f"refused late, as {type(error).__name__}"
        else:
            return "let in"
    return (
        "was sent"
        if any(not sql.startswith(("BEGIN", "SAVE", "ROLL", "REL")) for sql in sent)
        else None
    )


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_lets_a_hostile_value_in(tables, verb):
    wrong = {bad: is_let_in(verb, name, value) for bad, (name, value) in BAD.items()}
    assert {bad: what for bad, what in wrong.items() if what} == {}


def test_no_parameter_of_a_compiled_query_lets_a_hostile_value_in(tables):
    for bad, (name, value) in BAD.items():
        field = getattr(Item, name)
        query = compiled(Item.select().where(field == parameter("given")))
        with pytest.raises(InvalidValue) as caught:
            list(query(given=value))
        assert CANARY not in everything_shown_by(caught.value), bad


@pytest.mark.parametrize(
    "call",
    [
        lambda: Items.list(order_by=HOSTILE),
        lambda: Items.list(order_by=[HOSTILE]),
        lambda: Items.find(order_by=HOSTILE),
        lambda: Items.page(order_by=HOSTILE),
        lambda: list(Items.iterate(order_by=HOSTILE)),
        lambda: Items.list(limit=HOSTILE),
        lambda: Items.list(offset=HOSTILE),
        lambda: Items.list(limit="1"),
        lambda: Items.list(offset=-1),
        lambda: Items.page(size=HOSTILE),
        lambda: Items.page(number=HOSTILE),
        lambda: Items.page(after=HOSTILE),
        lambda: list(Items.iterate(batch=HOSTILE)),
        lambda: Items.list({HOSTILE: 1}),
        lambda: Items.list(HOSTILE),
        lambda: Items.count({f"text__{HOSTILE}": 1}),
        lambda: Items.update_where(HOSTILE, {"text": "x"}),
        lambda: Items.upsert({"text": "x"}, on=[HOSTILE]),
        lambda: Items.get(HOSTILE),
        lambda: Items.soft_delete(HOSTILE),
        lambda: Items.restore(HOSTILE),
        lambda: Items.hard_delete(HOSTILE),
    ],
)
def test_no_argument_of_a_verb_carries_sql(tables, call):
    with pytest.raises(InvalidValue) as caught:
        call()
    assert CANARY not in everything_shown_by(caught.value)
    assert db.table_exists("hostile_items")
