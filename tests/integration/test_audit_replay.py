"""Replaying the trail, old to new, rebuilds the table exactly."""

import json
from datetime import UTC, datetime

import pytest
from auditing import Item, ItemsService, Mood, audited
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orm_core import acting_as, db
from orm_core.models import bulk_insert

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=6
)
JSON = st.recursive(
    st.booleans() | st.integers(-(10**6), 10**6) | TEXT | st.just("1"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
VALUES = {
    "name": TEXT,
    "amount": st.decimals(-(10**6), 10**6, places=4) | st.none(),
    "share": st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    "count": st.integers(-(2**31), 2**31 - 1) | st.none(),
    "is_open": st.booleans() | st.none(),
    "at": st.datetimes(
        datetime(1900, 1, 1),
        datetime(2200, 1, 1),
        timezones=st.just(UTC),
    )
    | st.none(),
    "mood": st.sampled_from(Mood) | st.none(),
    "tags": st.lists(TEXT | st.none(), max_size=3) | st.none(),
    "facts": JSON | st.none(),
    "other": st.uuids() | st.none(),
    "data": st.binary(max_size=4) | st.none(),
}
OTHERS = {name: values for name, values in VALUES.items() if name != "name"}
ROW = st.fixed_dictionaries({"name": TEXT}, optional=OTHERS)
CHANGES = st.fixed_dictionaries({}, optional=VALUES).filter(bool)
PLACE = st.integers(0, 5)
RAW = st.sampled_from(
    [
        "UPDATE audited_items SET count = coalesce(count, 0) / 2, amount = amount::numeric(20, 1)",
        "UPDATE audited_items SET share = 'NaN', at = 'infinity'",
        "UPDATE audited_items SET name = name, data = NULL WHERE is_open",
        "DELETE FROM audited_items WHERE count < 0",
        "INSERT INTO audited_items (name, code) VALUES ('raw', 'c') "
        "ON CONFLICT (code) WHERE deleted_at IS NULL DO UPDATE SET count = audited_items.count + 1",
        "UPDATE audited_items SET id = gen_random_uuid() WHERE name < 'm'",
        "WITH gone AS (DELETE FROM audited_items WHERE is_open RETURNING name) "
        "INSERT INTO audited_items (name) SELECT name FROM gone",
        "TRUNCATE audited_items",
    ]
)
# The trail doesn't depend on the settings of who writes.
STRANGE = (
    "SET LOCAL timezone TO 'Asia/Kolkata'; SET LOCAL datestyle TO 'SQL, DMY'; "
    "SET LOCAL bytea_output TO 'escape'; SET LOCAL extra_float_digits TO -5"
)
USUAL = (
    "SET LOCAL timezone TO 'UTC'; SET LOCAL datestyle TO 'ISO'; "
    "SET LOCAL bytea_output TO 'hex'; SET LOCAL extra_float_digits TO 1"
)
STEPS = st.lists(
    st.tuples(st.just("create"), ROW)
    | st.tuples(st.just("create_many"), st.lists(ROW, max_size=4))
    | st.tuples(st.just("update"), PLACE, CHANGES)
    | st.tuples(st.just("update_many"), CHANGES)
    | st.tuples(st.just("update_where"), CHANGES)
    | st.tuples(st.just("upsert"), st.sampled_from("ab"), CHANGES)
    | st.tuples(st.just("soft_delete"), PLACE)
    | st.tuples(st.just("restore"), PLACE)
    | st.tuples(st.just("hard_delete"), PLACE)
    | st.tuples(st.just("raw"), RAW)
    | st.tuples(st.just("undone"), RAW),
    max_size=12,
)


def run(step):
    kind, *given = step
    rows = list(Item.with_deleted().order_by(Item.id))
    row = rows[given[0] % len(rows)] if rows and isinstance(given[0], int) else None
    match kind:
        case "create":
            ItemsService.create(given[0])
        case "create_many":
            ItemsService.create_many(given[0])
        case "update_many":
            ItemsService.update_many([{"id": one.id, **given[0]} for one in rows[:3]])
        case "update_where":
            ItemsService.update_where(None, given[0])
        case "upsert":
            ItemsService.upsert({"name": "u", **given[1], "code": given[0]}, on=["code"])
        case "raw":
            db.execute_sql(f"{STRANGE}; {given[0]}; {USUAL}")
        case "undone":
            with db.atomic() as tx:
                db.execute_sql(given[0])
                tx.rollback()
        case _ if row is None:
            pass
        case "update":
            ItemsService.update(row.id, given[1])
        case "restore" if row.code is not None:
            pass  # another may have the code by now
        case _:
            getattr(ItemsService, kind)(row.id)


def rebuilt():
    """The rows by key, each column as the text of its JSON: every ``old`` must be what is there."""
    texts = "SELECT json_object_agg(c.key, c.value::text) FROM jsonb_each(e.{}) AS c"
    found = db.execute_sql(
        f"SELECT operation, row_id, ({texts.format('old')}), ({texts.format('new')}) "
        "FROM audit_log AS e ORDER BY id"
    ).fetchall()
    table = {}
    for operation, key, old, new in found:
        match operation:
            case "truncate":
                table.clear()
            case "insert":
                assert key not in table
                table[key] = new
            case "hard_delete":
                assert table.pop(key) == old
            case _:
                row = table.pop(key)
                assert {name: row[name] for name in old} == old
                table[json.loads(new["id"]) if "id" in new else key] = row | new
    return table


def replayed():
    """What PostgreSQL makes of the rebuilt rows."""
    sql = "SELECT r::text FROM jsonb_populate_record(NULL::audited_items, %s::jsonb) AS r"
    return [
        (key, db.execute_sql(sql, (as_json(row),)).fetchone()[0])
        for key, row in sorted(rebuilt().items())
    ]


def as_json(row):
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in row.items()) + "}"


def stored():
    """The table itself, each column as its type writes it."""
    return db.execute_sql("SELECT id::text, i::text FROM audited_items AS i ORDER BY 1").fetchall()


@pytest.fixture
def trail(rollback_db, monkeypatch):
    monkeypatch.setattr(bulk_insert, "COPY_FROM", 3)
    with audited():
        yield rollback_db


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_replaying_the_trail_rebuilds_the_table(trail, steps):
    with trail.atomic() as tx:
        for number, step in enumerate(steps):
            with acting_as(f"step:{number}"):
                run(step)
        assert replayed() == stored()
        tx.rollback()
