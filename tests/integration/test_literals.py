"""Values written into a compiled statement are those that the driver would have written."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extras import Json

from orm_core import db
from orm_core.database.compiled_sql import CompiledSql
from orm_core.models.sealed_parts import SealedText

ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=-3, minutes=-30))])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("'\\%\"\0;-\n$"))
VALUES = (
    TEXTS
    | TEXTS.map(SealedText)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.datetimes(timezones=ZONES)
    | TEXTS.map(lambda text: Json({"text": text}))
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary()
)
each = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def by_the_driver(sql: str, values: list[Any]) -> str:
    text = db.cursor().mogrify(sql, values)
    return text if isinstance(text, str) else text.decode()


def statement(count: int) -> CompiledSql:
    return CompiledSql("SELECT '100 %% %%s %%', " + ", ".join(["%s"] * count))


@each
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_a_statement_with_literals_is_the_one_that_the_driver_makes(rollback_db, values):
    sql = statement(len(values))
    text = sql.with_literals(values)
    if text is not None:
        assert text == by_the_driver(sql, values)


@each
@given(TEXTS)
def test_a_text_comes_back_as_it_was(rollback_db, value):
    text = CompiledSql("SELECT %s").with_literals([value])
    if text is None:
        assert "\\" in value or "\0" in value
        return
    for setting in ("on", "off"):
        db.execute_sql(f"SET LOCAL standard_conforming_strings = {setting}")
        cursor = db.cursor()
        cursor.execute(text)
        assert cursor.fetchone() == (value,)


@pytest.mark.parametrize("values", [["a\\b"], ["a\0b"], [b"a"], ["too", "many"], []], ids=repr)
def test_what_leaves_something_to_decide_is_left_to_the_driver(values):
    assert CompiledSql("SELECT %s").with_literals(values) is None


def test_a_negative_number_does_not_begin_a_comment(rollback_db):
    text = CompiledSql("SELECT 5 -%s").with_literals([-3])
    assert text is not None
    assert db.execute_sql(text.replace("%", "%%")).fetchone() == (8,)
