"""Our short ways answer what Peewee's long ones do: the SQL, its values, the rows."""

from __future__ import annotations

import copy
import itertools
import operator
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import peewee
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import SQL, Value, fn
from wide_models import MODELS, VALUES, Bare, Colour, LowerField, Shelf, Thing, row

from orm_core import InvalidValue, OrmCoreError, TextField, compiled, db
from orm_core.database.compiled_sql import CompiledSql
from orm_core.models import shapes, soft_delete
from orm_core.models.rows import MOST_LOOPS, MadeRows, MakesRows, Record
from orm_core.models.schema import create_all

quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Draw = Callable[[Any], Any]
Build = Callable[[Draw], Any]

COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
TEXTS = ["title", "code", "shout"]
#: fields whose values have an order that the server knows
SORTED = [name for name in VALUES if name not in {"data", "colours", "tags", "uids"}]


@st.composite
def leaves(draw: Any) -> Build:
    """A predicate, as a function that draws its values: the same shape with other values."""
    name = draw(st.sampled_from(SORTED))
    field, value = getattr(Thing, name), VALUES[name]
    compare = draw(st.sampled_from(COMPARISONS))
    size = draw(st.integers(0, 3))
    text = getattr(Thing, draw(st.sampled_from(TEXTS)))
    whole = draw(st.sampled_from([Thing.data, Thing.tags, Thing.colours]))
    number = st.integers(-5, 5) | st.sampled_from([0.5, 1.5, Decimal("2.5")])
    few = st.lists(value, min_size=size, max_size=size)
    makers: list[Build] = [
        lambda take: compare(field, take(value)),
        lambda take: compare(field, Value(take(value))),
        lambda take: field.in_(take(few)),
        lambda take: field.not_in(tuple(take(few))),
        lambda take: field.between(take(value), take(value)),
        lambda take: field.is_null(),
        lambda take: field.is_null(False),
        lambda take: field == None,  # noqa: E711
        lambda take: field == field,
        lambda take: text.contains(take(VALUES["code"])),
        lambda take: text.startswith(take(VALUES["code"])),
        lambda take: text % take(VALUES["code"]),
        lambda take: whole == take(VALUES[whole.name]),
        lambda take: field.cast("text") == take(VALUES["title"]),
        lambda take: fn.LOWER(text) == take(VALUES["title"]),
        lambda take: (Thing.number + 0) * take(number) > take(number),
        lambda take: Thing.number > Value(take(number), converter=False),
        lambda take: Thing.small - take(st.integers(0, 3)) == take(st.integers(0, 3)),
        lambda take: Thing.shelf == take(st.uuids() | st.uuids().map(str)),
        lambda take: Thing.shelf == Shelf(id=take(st.uuids())),
        lambda take: Thing.shelf.in_(
            Shelf.select(Shelf.id).where(Shelf.label != take(st.text("ab")))
        ),
        lambda take: (
            peewee.Tuple(Thing.title, Thing.id)
            > peewee.Tuple(
                Value(take(VALUES["title"]), converter=Thing.title.db_value),
                Value(take(st.uuids()), converter=Thing.id.db_value),
            )
        ),
        lambda take: take(st.booleans()),
        lambda take: SQL("1 = %s", [take(st.integers(0, 1))]),
    ]
    return draw(st.sampled_from(makers))


def _joined(parts: Any) -> Build:
    how, one, other = parts
    if how == "not":
        return lambda take: ~_expression(one(take))
    combine = operator.and_ if how == "and" else operator.or_
    return lambda take: combine(_expression(one(take)), _expression(other(take)))


def _expression(part: Any) -> Any:
    return Value(part) == True if isinstance(part, bool) else part  # noqa: E712


trees = st.recursive(
    leaves(),
    lambda inner: st.tuples(st.sampled_from(["and", "or", "not"]), inner, inner).map(_joined),
    max_leaves=4,
)
_other = Thing.alias("other")
SELECTIONS: list[tuple[Any, ...]] = [
    (),
    (Thing.id, Thing.title),
    (Thing.title, Thing.id),
    (Thing.number, Thing.number),
    (Thing.colour, Thing.shout, Thing.shelf, Thing.data, Thing.moment),
    (Thing.title.alias("number"),),
    (Thing.uid.coerce(False), Thing.shout.coerce(False)),
    (fn.LOWER(Thing.title), Thing.number + 1),
    (fn.MAX(Thing.moment), fn.COUNT(Thing.id)),
]


#: how a query is joined with shelves
JOINS: list[Callable[[Any, Draw], Any]] = [
    lambda query, take: query.join(Shelf, peewee.JOIN.LEFT_OUTER, on=Thing.shelf),
    lambda query, take: query.join(Shelf).where(Shelf.label != take(st.text("ab"))),
    lambda query, take: query.join(Shelf).order_by(Shelf.label.desc()),
    lambda query, take: query.join(Shelf, peewee.JOIN.RIGHT_OUTER),
    lambda query, take: query.join(
        Shelf, on=(Thing.shelf == Shelf.id) & (Shelf.label == take(st.text("ab")))
    ),
    lambda query, take: query.join(Shelf.alias("there"), on=Thing.shelf),
    lambda query, take: query.join(Shelf).switch(Thing).join(Bare, on=Bare.name == Thing.title),
]


@st.composite
def queries(draw: Any) -> Build:
    """A SELECT, as a function that draws its values."""
    selection = draw(st.sampled_from(SELECTIONS))
    wheres = draw(st.lists(trees, max_size=2))
    order = draw(st.lists(st.sampled_from(SORTED), max_size=2, unique=True))
    turned = draw(st.sampled_from(["asc", "desc"]))
    nulls = draw(st.sampled_from([None, "FIRST", "LAST"]))
    limit, offset, distinct = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    visibility = draw(st.sampled_from(["live", "all", "deleted"]))
    aggregated = any("MAX" in str(getattr(one, "name", "")) for one in selection)
    joined = draw(st.sampled_from([None, None, *JOINS]))
    with_shelf = joined is not None and not distinct and not aggregated and draw(st.booleans())
    lock = draw(st.sampled_from([None, None, "FOR UPDATE", "FOR SHARE", "FOR UPDATE SKIP LOCKED"]))

    def build(take: Draw) -> Any:
        chosen = (*(selection or (Thing,)), Shelf) if with_shelf else selection
        query = Thing.select(*chosen)
        query = joined(query, take) if joined else query
        for where in wheres:
            query = query.where(where(take))
        if not aggregated and not distinct:
            terms = [getattr(getattr(Thing, name), turned)(nulls=nulls) for name in order]
            query = query.order_by(*terms, Thing.id)
        query = query.distinct() if distinct else query
        query = query.limit(take(st.integers(0, 5))) if limit else query
        query = query.offset(take(st.integers(0, 5))) if offset else query
        query = query.for_update(lock) if lock else query
        return query._seeing(visibility)

    return build


def told(sql_and_values: Any) -> tuple[str, list[tuple[type, Any]]]:
    """SQL and values, with their types; adapters of the driver by what they adapt."""
    sql, values = sql_and_values
    return sql, [(type(value), getattr(value, "adapted", value)) for value in values]


@settings(quick, max_examples=300)
@given(queries(), st.data())
def test_a_query_of_a_known_shape_is_rendered_as_peewee_does(build, data):
    for _ in range(3):
        query = build(data.draw)
        assert told(query.rendered(db)) == told(db.get_sql_context().parse(query))


NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHANGED = [name for name in VALUES if name != "address"]


@st.composite
def updates(draw: Any) -> Build:
    """An UPDATE, as a function that draws its values."""
    names = draw(st.lists(st.sampled_from(CHANGED), min_size=1, max_size=4, unique=True))
    empty = {name for name in names if name != "title" and draw(st.booleans())}
    computed = draw(st.sampled_from([None, None, None, "twice", "moved"]))
    wheres = draw(st.lists(trees, max_size=2))
    returning = draw(st.sampled_from([(), (Thing,), (Thing.id, Thing.title), (Thing.number + 1,)]))
    kind = draw(st.sampled_from(["objects", "dicts", "tuples", "namedtuples"]))
    visibility = draw(st.sampled_from(["live", "all", "deleted"]))

    def build(take: Draw) -> Any:
        changes = {name: None if name in empty else take(VALUES[name]) for name in names}
        if computed == "twice":
            changes["big"] = Thing.big + take(st.integers(0, 3))
        elif computed == "moved":
            changes["updated_at"] = take(VALUES["moment"])
        query = Thing.update(changes)._seeing(visibility)
        for where in wheres:
            query = query.where(where(take))
        return getattr(query.returning(*returning), kind)() if returning else query

    return build


@settings(quick, max_examples=200)
@given(updates(), st.data())
def test_an_update_of_a_known_shape_is_rendered_as_peewee_does(build, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soft_delete, "utcnow", lambda: NOW)
        for _ in range(3):
            query = build(data.draw)
            assert told(query.rendered(db)) == told(db.get_sql_context().parse(query))


@quick
@given(updates(), st.booleans(), st.data())
def test_an_update_of_a_known_shape_does_what_peewees_does(things, build, prepare, data):
    if prepare and db._state.conn.prepared is None:
        db._state.conn.prepare_statements()
    for _ in range(3):
        query = build(data.draw)
        changed = []
        for send in (ordinarily, plainly):
            with db.atomic() as block:
                changed.append((outcome(partial(send, query)), stored()))
                block.rollback()
        assert changed[0] == changed[1]


def ordinarily(query: Any) -> int:
    """How many rows it changed."""
    answer = query.execute()
    return answer if isinstance(answer, int) else len(answer)


def plainly(query: Any) -> int:
    """The same, by the text that Peewee renders."""
    sql, values = db.get_sql_context().parse(query)
    return int(db.execute_sql(str(sql), values).rowcount)


def stored() -> Any:
    """All that an UPDATE may have changed, but for its moment."""
    rows = Thing.with_deleted().order_by(Thing.id).dicts()
    return [{name: row[name] for name in CHANGED} for row in rows]


@settings(quick, max_examples=100)
@given(queries(), st.data())
def test_how_many_rows_there_are_is_asked_as_peewee_does(things, build, data):
    asked: list[Any] = []

    def note(event: Any) -> None:
        if event.params:  # not the SAVEPOINTs of outcome()
            asked.append(told((event.sql, event.params)))

    db.query_hooks.append(note)
    try:
        for ask, _ in itertools.product(("count", "exists"), range(3)):
            query = build(data.draw)
            asked.append(outcome(getattr(query, ask)))
            ours = asked.copy()
            asked.clear()
            asked.append(outcome(partial(getattr(peewee.ModelSelect, ask), query)))
            assert ours == asked
            asked.clear()
    finally:
        db.query_hooks.remove(note)


def test_queries_that_differ_in_one_part_are_rendered_apart():
    parts = itertools.product(
        [*COMPARISONS, lambda one, other: one % other, lambda one, other: one**other],
        ["asc", "desc"],
        [None, "FIRST", "LAST"],
        ["live", "all", "deleted"],
        [False, True],
        [None, 2],
        [None, 3],
    )
    queries_ = [
        (Thing.select().distinct() if distinct else Thing.select())
        .where(compare(Thing.title, "x"))
        .order_by(getattr(Thing.number, turned)(nulls=nulls))
        .limit(limit)
        .offset(offset)
        ._seeing(visibility)
        for compare, turned, nulls, visibility, distinct, limit, offset in parts
    ]
    found = Thing.select().where(Thing.title == "x")
    queries_ += [
        found.for_update(lock) for lock in ("FOR UPDATE", "FOR SHARE", "FOR UPDATE NOWAIT")
    ]
    several = [Thing.title, Thing.code, Thing.id]
    queries_ += [
        found.where(compare(peewee.Tuple(*fields), peewee.Tuple("x", "y")))
        for fields in itertools.permutations(several, 2)
        for compare in (operator.lt, operator.gt)
    ]
    parts = itertools.product(
        [peewee.JOIN.INNER, peewee.JOIN.LEFT_OUTER, peewee.JOIN.FULL],
        [
            Thing.shelf,
            (Thing.shelf == Shelf.id) & (Shelf.label == "y"),
            (Thing.shelf == Shelf.id) & (Thing.title == "y"),
        ],
        [Thing.id == Shelf.id, Shelf.id == Thing.id, Thing.id == Thing.id, Shelf.id == "0" * 32],
        [(), (Thing.id,), (Shelf.id,), (Thing, Shelf)],
        [Thing.id, Shelf.id],
        ["live", "all"],
    )
    queries_ += [
        Thing.select(*columns).join(Shelf, how, on).where(where).order_by(first)._seeing(visibility)
        for how, on, where, columns, first, visibility in parts
    ]
    queries_ += [
        Shelf.select().join(Thing).where(Thing.id == Shelf.id),
        Thing.select().from_(Shelf).where(Thing.id == Shelf.id),
    ]
    for query in queries_ * 2:
        assert told(query.rendered(db)) == told(db.get_sql_context().parse(query))
    for ask in (shapes.count_of, shapes.any_of) * 2:
        asked = shapes.render(found, db, ask)
        assert told(asked) == told(db.get_sql_context().parse(ask(found)))


def test_updates_that_differ_in_one_part_are_rendered_apart():
    parts = itertools.product(
        [{}, {"code": "x"}, {"code": None}, {"number": 1}],
        [(), (Thing,), (Thing.id,), (Thing.code,)],
        ["objects", "dicts"],
        ["live", "all", "deleted"],
        [Thing.number == 1, Thing.code == "x", Thing.code.is_null()],
    )
    queries_ = [
        getattr(Thing.update({"updated_at": NOW, **changes}).returning(*returning), kind)()
        ._seeing(visibility)
        .where(where)
        for changes, returning, kind, visibility, where in parts
    ]
    for query in queries_ * 2:
        assert told(query.rendered(db)) == told(db.get_sql_context().parse(query))


@pytest.fixture
def things(rollback_db) -> list[Any]:
    create_all(db, MODELS)
    shelves = [Shelf.create(label=str(number)) for number in range(2)]
    return [Thing.create(**row(seed, shelves)) for seed in range(12)]


def outcome(work: Callable[[], Any]) -> Any:
    """What a statement answers, or its kind of error; the transaction goes on."""
    try:
        with db.atomic():
            return work()
    except OrmCoreError as error:
        return type(error)


def peewees(query: Any) -> Any:
    """The rows as Peewee makes them."""
    sql, values = db.get_sql_context().parse(query)
    cursor = db.execute_sql(str(sql), values)
    return super(MakesRows, query)._get_cursor_wrapper(cursor)


def described(value: Any) -> Any:
    if isinstance(value, peewee.Model):
        related = {name: described(one) for name, one in value.__rel__.items()}
        return type(value), value.__data__, value.dirty_fields, related, value._stored
    return value


@quick
@given(queries(), st.sampled_from(["models", "dicts", "tuples", "namedtuples"]), st.data())
def test_rows_are_those_that_peewee_makes(things, build, kind, data):
    query = build(data.draw)
    query = query if kind == "models" else getattr(query, kind)()
    ours = outcome(lambda: [described(one) for one in query])
    theirs = outcome(lambda: [described(one) for one in peewees(query)])
    assert ours == theirs
    assert _types(ours) == _types(theirs)


def _types(rows: Any) -> Any:
    if not isinstance(rows, list):
        return rows
    flat = [one[1].values() if _is_model(one) else _items(one) for one in rows]
    return [[type(value) for value in values] for values in flat]


def _is_model(one: Any) -> bool:
    return isinstance(one, tuple) and len(one) == 5 and isinstance(one[0], type)


def _items(one: Any) -> Any:
    return one.values() if isinstance(one, dict) else one


@quick
@given(queries(), st.data())
def test_a_prepared_query_answers_what_its_text_does(things, build, data):
    if db._state.conn.prepared is None:
        db._state.conn.prepare_statements()
    for _ in range(4):
        query = build(data.draw).tuples()
        sql, values = db.get_sql_context().parse(query)
        text = outcome(lambda sql=sql, values=values: db.execute_sql(str(sql), values).fetchall())
        made = outcome(lambda query=query: db.execute(query).fetchall())
        assert made == text


def test_a_number_that_no_column_converts_is_not_rounded_by_a_prepared_statement(things):
    db._state.conn.prepare_statements()
    Bare.create(name="1")
    for factor in (1, 1, 1, 1.5, 0.5):
        query = Bare.select().where((Bare.id * 0 + 1) * factor == factor)
        assert len(query) == 1
    query = Thing.select().where(Thing.number > Value(1.5, converter=False))
    assert all(not isinstance(one, CompiledSql) for one in Bare._meta.shapes.values())
    assert len({len(query.clone()) for _ in range(4)}) == 1


@pytest.mark.parametrize("prepare", [False, True])
def test_a_value_is_never_kept(things, prepare):
    if prepare:
        db._state.conn.prepare_statements()
    secret = "nobody-keeps-this"
    for _ in range(3):
        list(Thing.select().where(Thing.title == secret, Thing.code.contains(secret)))
        list(Thing.select(Thing.id, fn.CONCAT(Thing.title, secret)).where(Thing.code == secret))
        list(Thing.select(Value(secret).alias("x")).tuples())
        list(Thing.select(Thing.title, SQL("%s AS y", [secret])).dicts())
        list(Thing.select(Thing, Shelf).join(Shelf).where(Shelf.label == secret))
    meta = Thing._meta
    kept = [meta.shapes, meta.joins, meta.plans, list(_nodes(meta.row_makers))]
    assert secret not in repr(kept)
    if prepare:
        cursor = db.execute_sql("SELECT statement FROM pg_prepared_statements")
        assert secret not in str(cursor.fetchall())
        assert secret not in repr(vars(db._state.conn.prepared))


def _nodes(makers: dict[Any, Any]) -> Iterator[Any]:
    for maker in makers.values():
        for node in maker._kept:
            assert Thing._meta.fields[node.name] is node
            yield vars(node)


def test_what_is_kept_of_a_model_is_bounded(monkeypatch):
    monkeypatch.setattr(shapes, "MOST_SHAPES", 10)
    for count in range(2, 60):
        numbers = list(range(count))
        for names in (numbers, numbers[::-1]):
            Thing.select().where(Thing.number.in_(names)).rendered(db)
        assert len(Thing._meta.shapes) <= 10
    long = list(range(shapes.MOST_ITEMS + 1))
    before = len(Thing._meta.shapes)
    Thing.select().where(Thing.number.in_(long)).rendered(db)
    assert len(Thing._meta.shapes) == before


def test_a_join_of_a_known_shape_is_not_rendered_again(things, monkeypatch):
    def query(label: str) -> Any:
        joined = Thing.select(Thing, Shelf).join(Shelf, peewee.JOIN.LEFT_OUTER)
        return joined.where((Shelf.label == label) | Shelf.label.is_null())

    sql, _ = query("a").rendered(db)
    monkeypatch.setattr(shapes, "_rendered", None)
    assert query("b").rendered(db) == (sql, ["b"])
    monkeypatch.undo()
    Shelf._meta.set_table_name("elsewhere")
    try:
        assert query("c").rendered(db) == (sql.replace("wide_shelves", "elsewhere"), ["c"])
    finally:
        Shelf._meta.set_table_name("wide_shelves")


def test_joins_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(shapes, "MOST_SHAPES", 10)
    Thing._meta._forget_sql()
    for count in range(2, 30):
        Thing.select().join(Shelf).where(Thing.number.in_(list(range(count)))).rendered(db)
        assert len(Thing._meta.joins) <= 10


def test_loops_that_make_rows_are_bounded(things):
    fields = Thing._meta.sorted_fields
    for place in range(len(fields)):
        for width in range(1, 16):
            chosen = [fields[(place + step) % len(fields)] for step in range(width)]
            Thing.select(*chosen).row_maker()
    assert len(Thing._meta.row_makers) <= MOST_LOOPS


def test_a_loaded_row_can_be_pickled_copied_and_changed(things):
    loaded = Thing.select().where(Thing.id == things[0].id).get()
    assert "_dirty" not in vars(loaded)
    for twin in (pickle.loads(pickle.dumps(loaded)), copy.copy(loaded), copy.deepcopy(loaded)):
        assert twin == loaded
        assert twin.__data__ == loaded.__data__
        assert twin.dirty_fields == []
        assert twin.__rel__ == {}
    twin = copy.deepcopy(loaded)
    twin.title = "changed"
    assert (twin.is_dirty(), loaded.is_dirty()) == (True, False)
    assert twin.save() == 1
    assert Thing.select().where(Thing.title == "changed").count() == 1


def test_two_rows_do_not_share_their_changes(things):
    one, other = Thing.select().limit(2)
    one.title = "changed"
    assert other.dirty_fields == []


def test_a_model_with_code_of_its_own_runs_it_for_loaded_rows(rollback_db):
    class Watching(Shelf):
        seen = 0

        def __setattr__(self, name, value):
            type(self).seen += name == "label"
            super().__setattr__(name, value)

        class Meta:
            table_name = "wide_watching"

    class Counting(Shelf):
        made = 0

        def __new__(cls, *args, **kwargs):
            cls.made += 1
            return super().__new__(cls)

        class Meta:
            table_name = "wide_counting"

    class Beginning(Shelf):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.ready = True

        class Meta:
            table_name = "wide_beginning"

    create_all(db, [Watching, Counting, Beginning])
    for model in (Watching, Counting, Beginning):
        model.insert(label="x").execute()
    assert [one.label for one in Watching.select()] == ["x"]
    assert Watching.seen == 1
    assert list(Counting.select())
    assert Counting.made == 1
    assert [one.ready for one in Beginning.select()] == [True]


def test_a_reference_to_an_enum_key_is_read(rollback_db):
    from orm_core import BaseModel, EnumField, ForeignKeyField

    class Shade(BaseModel):
        id = EnumField(Colour, type_name="wide_shade", primary_key=True)

        class Meta:
            table_name = "wide_shades"

    class Wall(BaseModel):
        shade = ForeignKeyField(Shade)

        class Meta:
            table_name = "wide_walls"

    create_all(db, [Shade, Wall])
    Shade.create(id=Colour.RED)
    Wall.create(shade=Colour.RED)
    assert list(Wall.select(Wall.shade).tuples()) == [(Colour.RED,)]


def test_records_carry_the_columns_and_nothing_else(things):
    for made, model in zip(
        Thing.select().with_deleted().order_by(Thing.id).records(),
        Thing.select().with_deleted().order_by(Thing.id),
        strict=True,
    ):
        assert isinstance(made, Record)
        for name, value in model.__data__.items():
            if not name.startswith("token"):
                assert getattr(made, name) == value
        assert not hasattr(made, "__dict__")


def test_records_of_two_equal_queries_are_equal(things):
    one = list(Thing.select(Thing.id, Thing.title).records())
    Thing._meta.row_makers.clear()
    assert one == list(Thing.select(Thing.id, Thing.title).records())
    assert one != list(Thing.select(Thing.id, Thing.code).records())


@pytest.mark.parametrize(
    "query",
    [
        Thing.select(fn.COUNT(Thing.id)),
        Thing.select(Thing.number, Thing.number),
        Thing.select(Thing.id, Shelf.label).join(Shelf),
        Thing.select(Thing.title.alias("name")),
        Thing.alias().select(),
    ],
    ids=["function", "twice", "join", "renamed", "alias"],
)
def test_records_of_what_is_no_plain_column_are_refused_before_sql(things, query):
    sent: list[Any] = []
    db.query_hooks.append(sent.append)
    try:
        with pytest.raises(InvalidValue, match=r"records\(\) takes plain columns"):
            list(query.records())
    finally:
        db.query_hooks.remove(sent.append)
    assert sent == []


def test_a_field_called_like_a_word_of_python_is_read(rollback_db):
    class Worded(Shelf):
        class Meta:
            table_name = "wide_worded"

    Worded._meta.add_field("class", TextField(default="first"))
    create_all(db, [Worded])
    Worded.insert(label="x").execute()
    assert list(Worded.select(getattr(Worded, "class")).tuples()) == [("first",)]
    assert next(iter(Worded.select().dicts()))["class"] == "first"


def test_a_change_of_the_model_is_seen_by_the_next_query(rollback_db):
    class Changing(Shelf):
        class Meta:
            table_name = "wide_changing"

    def query() -> str:
        return Changing.select().where(Changing.label == "x").rendered(db)[0]

    assert query() == query()
    Changing._meta.set_table_name("wide_changed")
    assert '"wide_changed"' in query()
    Changing._meta.schema = "elsewhere"
    assert '"elsewhere"."wide_changed"' in query()
    Changing._meta.add_field("added", LowerField(null=True))
    assert '"added"' in query()
    Changing._meta.remove_field("added")
    assert '"added"' not in query()


def test_a_query_that_is_older_than_a_field_of_its_model_changes_nothing_for_newer_ones(things):
    older, hot = Shelf.select(), compiled(Shelf.select())
    before = [described(one) for one in older]
    db.execute_sql("ALTER TABLE wide_shelves ADD COLUMN added text DEFAULT 'yes'")
    try:
        Shelf._meta.add_field("added", TextField(null=True))
        assert [described(one)[1] for one in older.clone()] == [one[1] for one in before]
        assert [described(one)[1] for one in hot()] == [one[1] for one in before]
        assert {one.added for one in Shelf.select()} == {"yes"}
    finally:
        Shelf._meta.remove_field("added")
        del Shelf.added
    assert [described(one) for one in Shelf.select()] == before


def test_rows_are_read_on_either_road_of_the_cursor(things):
    query = Thing.select(Thing.id, Thing.title).order_by(Thing.id).with_deleted()
    all_rows = [one.id for one in query]
    assert isinstance(query._cursor_wrapper, MadeRows)
    assert [one.id for one in query.clone().iterator()] == all_rows
    assert query[0].id == all_rows[0]
    assert [one.id for one in query[2:4]] == all_rows[2:4]
    assert len(query) == len(all_rows)
    assert query.first().id == all_rows[0]
