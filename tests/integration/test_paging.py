"""Pages of rows: by number and by keyset."""

import base64
import json
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum

import peewee
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_helpers import new_session, new_user, no_statement, statements

from domains.users import Session, SessionService, User, UsersService
from orm_core import (
    BaseModel,
    BigIntegerField,
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    DoubleField,
    EnumField,
    ForeignKeyField,
    IntegerField,
    InvalidValue,
    JSONField,
    KeyRing,
    Page,
    Service,
    SmallIntegerField,
    TextField,
    UUIDField,
    db,
    use_key_ring,
)
from orm_core.queries.paging import Keyset


class Size(Enum):
    """Not in the order of its labels."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Maker(BaseModel):
    class Meta:
        table_name = "paging_makers"


class Thing(BaseModel):
    """A column of every kind that can be sorted by."""

    text = TextField(default="")
    short = CharField(40, default="")
    number = IntegerField(default=0)
    big = BigIntegerField(default=0)
    small = SmallIntegerField(default=0)
    flag = BooleanField(default=False)
    real = DoubleField(default=0.0)
    price = DecimalField(12, 4, default=Decimal(0))
    day = DateField(default=date(2026, 1, 1))
    moment = DateTimeField(default=datetime(2026, 1, 1, tzinfo=UTC))
    size = EnumField(Size, type_name="paging_size", default=Size.SMALL)
    key = UUIDField(default=uuid.uuid4)
    maker = ForeignKeyField(Maker)
    data = JSONField(default={})
    note = TextField(null=True)

    class Meta:
        table_name = "paging_things"


class ThingsService(Service[Thing]):
    """Things."""


MAKERS = tuple(uuid.UUID(int=number) for number in (3, 1, 2))

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
few = {
    "text": st.sampled_from(["", "a", "A", "b", "ä", "é", "z", "\U0001f600", "'", "%s", '"'])
    | text,
    "short": st.sampled_from(["x", "y", "x "]) | text,
    "number": st.integers(-2, 2) | st.integers(-(2**31), 2**31 - 1),
    "big": st.sampled_from([0, 2**63 - 1, -(2**63)]),
    "small": st.integers(-1, 1),
    "flag": st.booleans(),
    "real": st.sampled_from([0.0, 0.1, 1e-300, -1.5])
    | st.floats(allow_nan=False, allow_infinity=False),
    "price": st.decimals(-10, 10, places=4),
    "day": st.dates(date(2025, 12, 30), date(2026, 1, 2)) | st.dates(),
    "moment": st.datetimes(
        datetime(2026, 1, 1),
        datetime(2026, 1, 1, 0, 0, 1),
        timezones=st.sampled_from([UTC]),
    ),
    "size": st.sampled_from(Size),
    "key": st.uuids(),
    "maker": st.sampled_from(MAKERS),
}
#: what Python sorts as PostgreSQL does; text depends on the server's collation
SORTED_ALIKE = sorted(set(few) - {"text", "short"})
ORDER_OF_SIZES = list(Size)

things = st.lists(st.fixed_dictionaries({}, optional=few), max_size=12)
orders = st.lists(
    st.tuples(st.sampled_from(sorted(few)), st.booleans()),
    min_size=1,
    max_size=3,
    unique_by=lambda term: term[0],
)
with_tables = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def _keys():
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    yield
    use_key_ring(None)


@pytest.fixture
def tables(rollback_db):
    """The tables of this file, gone with the transaction."""
    rollback_db.create_tables([Maker, Thing])
    for key in MAKERS:
        Maker.create(id=key)
    return rollback_db


def stored(payloads):
    Thing.hard_delete().execute()
    return ThingsService.create_many({"maker": MAKERS[0], **one} for one in payloads)


def terms(order):
    return [
        getattr(Thing, name).desc() if down else getattr(Thing, name).asc() for name, down in order
    ]


def walk(service, **how):
    """All pages of a keyset walk, one after the other."""
    pages = [service.page(**how)]
    while pages[-1].next_cursor is not None:
        assert len(pages) < 100
        pages.append(service.page(after=pages[-1].next_cursor, **how))
    return pages


def rows_of(pages):
    return [row for page in pages for row in page]


def sorted_by_python(rows, order):
    """The rows in this order, then by id in the direction of the last term."""
    rows = sorted(rows, key=lambda row: row.id, reverse=order[-1][1])
    for name, down in reversed(order):

        def value(row, name=name):
            found = row.__data__[name]
            return ORDER_OF_SIZES.index(found) if name == "size" else found

        rows = sorted(rows, key=value, reverse=down)
    return rows


# -- keyset -------------------------------------------------------------------------------------


@with_tables
@given(payloads=things, order=orders, size=st.integers(1, 5))
def test_a_walk_visits_each_row_once_in_the_servers_order(tables, payloads, order, size):
    rows = stored(payloads)
    pages = walk(ThingsService, size=size, order_by=terms(order))
    whole = ThingsService.list(order_by=[*terms(order), *terms([("id", order[-1][1])])])
    assert rows_of(pages) == whole
    assert len(whole) == len(rows)


@with_tables
@given(
    payloads=things,
    order=orders.filter(lambda order: all(name in SORTED_ALIKE for name, _ in order)),
    size=st.integers(1, 5),
)
def test_a_walk_goes_in_the_order_that_python_sorts(tables, payloads, order, size):
    rows = stored(payloads)
    pages = walk(ThingsService, size=size, order_by=terms(order))
    assert rows_of(pages) == sorted_by_python(rows, order)


@with_tables
@given(payloads=things, size=st.integers(1, 5))
def test_all_pages_but_the_last_are_full(tables, payloads, size):
    rows = stored(payloads)
    pages = walk(ThingsService, size=size)
    assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
    assert sum(map(len, pages)) == len(rows)
    assert len(pages) == 1 or len(pages[-1]) > 0


@pytest.mark.parametrize("name", sorted(few))
@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_rows_that_tie_are_each_visited_once(tables, name, down):
    rows = stored([{"key": MAKERS[0]}] * 7)
    field = getattr(Thing, name)
    pages = walk(ThingsService, size=2, order_by=[field.desc() if down else field])
    assert rows_of(pages) == sorted(rows, key=lambda row: row.id, reverse=down)


def test_the_order_is_that_of_creation_unless_told_otherwise(tables):
    rows = stored([{}] * 5)
    assert rows_of(walk(ThingsService, size=2)) == rows


def test_the_id_may_stand_first_in_an_order(tables):
    rows = stored([{"number": number} for number in (2, 1, 2, 1)])
    pages = walk(ThingsService, size=1, order_by=[Thing.id.desc(), Thing.number])
    assert rows_of(pages) == rows[::-1]


def test_a_walk_by_a_minus_sign_goes_down(tables):
    rows = stored([{"number": number} for number in range(3)])
    assert rows_of(walk(ThingsService, size=1, order_by=-Thing.number)) == rows[::-1]


def test_a_walk_keeps_to_its_condition(tables):
    rows = stored([{"number": number} for number in range(6)])
    pages = walk(ThingsService, where=Thing.number >= 3, size=2, order_by=Thing.number.desc())
    assert rows_of(pages) == rows[:2:-1]


def test_a_walk_by_an_or_keeps_to_its_condition(tables):
    rows = stored([{"number": number} for number in range(6)])
    either = (Thing.number == 1) | (Thing.number == 4)
    assert rows_of(walk(ThingsService, where=either, size=1)) == [rows[1], rows[4]]


def test_a_walk_passes_over_deleted_rows(tables):
    rows = stored([{}] * 5)
    ThingsService.soft_delete(rows[2].id)
    assert rows_of(walk(ThingsService, size=2)) == [*rows[:2], *rows[3:]]
    assert rows_of(walk(ThingsService, size=2, include_deleted=True)) == rows


def test_a_row_that_is_added_behind_shifts_nothing(tables):
    rows = stored([{"number": number} for number in range(4)])
    first = ThingsService.page(size=2, order_by=Thing.number)
    ThingsService.create({"maker": MAKERS[0], "number": -1})
    second = ThingsService.page(size=2, order_by=Thing.number, after=first.next_cursor)
    assert second.items == rows[2:]


def test_a_row_that_is_added_ahead_is_visited(tables):
    rows = stored([{"number": number} for number in (0, 1, 3)])
    first = ThingsService.page(size=2, order_by=Thing.number)
    added = ThingsService.create({"maker": MAKERS[0], "number": 2})
    second = ThingsService.page(size=2, order_by=Thing.number, after=first.next_cursor)
    assert second.items == [added, rows[2]]


def test_a_row_that_is_removed_skips_nothing(tables):
    rows = stored([{"number": number} for number in range(4)])
    first = ThingsService.page(size=2, order_by=Thing.number)
    ThingsService.hard_delete(rows[0].id)
    ThingsService.soft_delete(rows[1].id)
    second = ThingsService.page(size=2, order_by=Thing.number, after=first.next_cursor)
    assert second.items == rows[2:]


def test_a_page_after_the_last_row_is_empty(tables):
    rows = stored([{}] * 2)
    first = ThingsService.page(size=1)
    ThingsService.hard_delete(rows[1].id)
    page = ThingsService.page(size=1, after=first.next_cursor)
    assert (page.items, page.next_cursor, page.has_next) == ([], None, False)


def test_a_keyset_page_sends_one_statement(tables):
    stored([{}] * 3)
    with statements() as events:
        ThingsService.page(size=2)
    assert [event.operation for event in events] == ["select"]


def test_a_keyset_page_has_no_number_and_no_total(tables):
    stored([{}] * 3)
    page = ThingsService.page(size=2)
    assert (page.number, page.total, page.pages, page.has_next) == (None, None, None, True)
    assert (len(page), list(page), page.size) == (2, page.items, 2)


def test_a_cursor_can_stand_in_a_url(tables):
    stored([{"text": "ä?&/+ \U0001f600" * 9, "number": number} for number in range(3)])
    cursor = ThingsService.page(size=1, order_by=Thing.text).next_cursor
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(
    "order",
    [
        Thing.note,
        [Thing.number, Thing.note.desc()],
        Thing.deleted_at,
        User.id,
        peewee.fn.lower(Thing.text),
        peewee.SQL("text"),
        Thing.number + 1,
        Thing.alias().number,
    ],
    ids=["null", "null desc", "deleted_at", "another model", "function", "SQL", "sum", "alias"],
)
def test_an_order_without_a_place_for_each_row_is_refused_before_any_sql(tables, order):
    with no_statement(), pytest.raises(InvalidValue, match="fields of Thing that are never NULL"):
        ThingsService.page(order_by=order)


def test_a_walk_by_json_is_refused_before_any_sql(tables):
    with no_statement(), pytest.raises(InvalidValue, match="order"):
        ThingsService.page(order_by=Thing.data)


@pytest.mark.parametrize(
    "field",
    [
        Session.provider_access_token,
        Session.provider_access_token_iv,
        Session.provider_access_token_tag,
    ],
    ids=lambda field: field.name,
)
def test_a_walk_by_a_secret_is_refused_before_any_sql(rollback_db, field):
    with no_statement(), pytest.raises(InvalidValue, match="order"):
        SessionService.page(order_by=field)


# -- cursors that are not ours ------------------------------------------------------------------


def forged(content):
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def test_a_cursor_of_another_order_is_refused_before_any_sql(tables):
    stored([{}] * 3)
    cursor = ThingsService.page(size=1, order_by=Thing.number).next_cursor
    for order in (None, Thing.number.desc(), Thing.big, [Thing.number, Thing.big]):
        with no_statement(), pytest.raises(InvalidValue, match="next_cursor"):
            ThingsService.page(size=1, order_by=order, after=cursor)


def test_a_cursor_of_another_size_goes_on(tables):
    rows = stored([{}] * 4)
    cursor = ThingsService.page(size=1).next_cursor
    assert ThingsService.page(size=3, after=cursor).items == rows[1:]


NO_CURSORS = {
    "empty": "",
    "text": "next",
    "not ASCII": "ä",
    "surrogate": "\ud800",
    "NUL": "\0",
    "one letter": "A",
    "bytes": b"W10",
    "an int": 3,
    "a list": ["W10"],
    "no JSON": base64.urlsafe_b64encode(b"{").decode(),
    "a number": forged(3),
    "a dict": forged({"a": 1, "b": 2}),
    "three parts": forged([["id"], ["x"], 1]),
    "no values": forged([["id"], []]),
    "values of another kind": forged([["id"], "x"]),
    "too many values": forged([["id"], [str(MAKERS[0]), 1]]),
    "null": forged([["id"], [None]]),
    "no id": forged([["id"], ["x"]]),
    "a number for an id": forged([["id"], [3]]),
    "a list for an id": forged([["id"], [[1, 2]]]),
    "SQL": forged([["id"], ["' OR 1=1 --"]]),
    "deep JSON": base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    "deep values": base64.urlsafe_b64encode(
        b'[["id"],[' + b"[" * 900 + b"]" * 900 + b"]]"
    ).decode(),
    "long number": base64.urlsafe_b64encode(b"1" * 5000).decode(),
    "a megabyte": "A" * 1_000_000,
}


@pytest.mark.parametrize("cursor", NO_CURSORS.values(), ids=NO_CURSORS)
def test_what_is_no_cursor_is_refused_before_any_sql(tables, cursor):
    with no_statement(), pytest.raises(InvalidValue, match="next_cursor"):
        ThingsService.page(after=cursor)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", 2**31),
        ("number", "1"),
        ("number", True),
        ("small", 2**15),
        ("real", "nan"),
        ("real", float("nan")),
        ("real", float("inf")),
        ("price", "NaN"),
        ("price", "sNaN"),
        ("price", "Infinity"),
        ("price", "1E+999999999"),
        ("price", "x"),
        ("price", {}),
        ("day", "2026-13-01"),
        ("day", 3),
        ("moment", "2026-01-01"),
        ("moment", "0001-01-01T00:00:00+23:00"),
        ("moment", ""),
        ("size", "huge"),
        ("size", 1),
        ("text", "a\0b"),
        ("text", "\ud800"),
        ("text", 3),
        ("short", "x" * 41),
        ("flag", "true"),
        ("flag", 1),
        ("maker", "x"),
        ("maker", 1),
    ],
)
def test_a_cursor_with_a_value_that_does_not_fit_is_refused_before_any_sql(tables, name, value):
    cursor = forged([[name, "id"], [value, str(MAKERS[0])]])
    with no_statement(), pytest.raises(InvalidValue, match="next_cursor"):
        ThingsService.page(order_by=getattr(Thing, name), after=cursor)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(cursor=st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_random_text_is_refused_before_any_sql(tables, cursor):
    with no_statement(), pytest.raises(InvalidValue, match="next_cursor"):
        ThingsService.page(after=cursor)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(few)), value=json_values, key=json_values | st.uuids().map(str))
def test_a_forged_value_is_refused_or_a_place_in_the_order(tables, name, value, key):
    with statements() as events:
        try:
            ThingsService.page(
                order_by=getattr(Thing, name), after=forged([[name, "id"], [value, key]])
            )
        except InvalidValue:
            assert events == []


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_altered_cursor_is_refused_or_a_place_in_the_order(tables, data):
    stored([{"text": "a"}, {"text": "b"}])
    cursor = ThingsService.page(size=1, order_by=Thing.text).next_cursor
    place = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.characters())
    with statements() as events:
        try:
            ThingsService.page(
                size=1, order_by=Thing.text, after=cursor[:place] + letter + cursor[place + 1 :]
            )
        except InvalidValue:
            assert events == []


# -- by number ----------------------------------------------------------------------------------


@with_tables
@given(count=st.integers(0, 12), size=st.integers(1, 5))
def test_numbered_pages_hold_all_rows_in_order(tables, count, size):
    rows = stored([{"number": number} for number in range(count)])
    pages = [
        ThingsService.page(number=number, size=size, order_by=Thing.number.desc())
        for number in range(1, -(-count // size) + 1)
    ]
    assert rows_of(pages) == rows[::-1]
    assert all((page.total, page.pages) == (count, -(-count // size)) for page in pages)
    assert [page.has_next for page in pages] == [True] * (len(pages) - 1) + [False] * bool(pages)


def test_a_numbered_page_counts_what_matches(tables):
    rows = stored([{"number": number} for number in range(5)])
    ThingsService.soft_delete(rows[4].id)
    page = ThingsService.page(Thing.number >= 1, number=1, size=2)
    assert (page.items, page.total, page.pages) == (rows[1:3], 3, 2)
    assert (page.number, page.size, page.next_cursor) == (1, 2, None)


def test_a_page_beyond_the_last_is_empty(tables):
    stored([{}])
    page = ThingsService.page(number=9, size=1)
    assert (page.items, page.total, page.has_next) == ([], 1, False)


def test_a_numbered_page_may_be_sorted_by_what_is_null(tables):
    rows = stored([{"note": "b"}, {}, {"note": "a"}])
    page = ThingsService.page(number=1, order_by=Thing.note)
    assert page.items == [rows[2], rows[0], rows[1]]


def test_a_page_of_an_empty_table_is_the_last(tables):
    for how in ({}, {"number": 1}):
        page = ThingsService.page(**how)
        assert (page.items, page.has_next) == ([], False)


NO_COUNTS = [0, -1, 1.0, "1", True, float("nan"), [], User.id]


@pytest.mark.parametrize("size", [*NO_COUNTS, None, 1001])
def test_a_size_out_of_bounds_is_refused_before_any_sql(tables, size):
    for number in (None, 1):
        with no_statement(), pytest.raises(InvalidValue, match=r"size must be .* from 1 to 1000"):
            ThingsService.page(size=size, number=number)


def test_the_largest_size_is_taken(tables):
    rows = stored([{}] * 3)
    assert ThingsService.page(size=1000).items == rows


@pytest.mark.parametrize("number", NO_COUNTS)
def test_a_number_out_of_bounds_is_refused_before_any_sql(tables, number):
    with no_statement(), pytest.raises(InvalidValue, match="number must be"):
        ThingsService.page(number=number)


@pytest.mark.parametrize("number", [2**63, 10**40])
def test_a_number_beyond_the_servers_is_refused_before_any_sql(tables, number):
    with no_statement(), pytest.raises(InvalidValue, match="number"):
        ThingsService.page(number=number)


def test_a_page_is_named_in_one_way(tables):
    with no_statement(), pytest.raises(InvalidValue, match="by number or by after"):
        ThingsService.page(number=1, after="x")


def test_a_page_cannot_be_changed():
    page = Page([], 1)
    with pytest.raises(AttributeError):
        page.size = 2


def test_the_sessions_of_a_user_are_walked(rollback_db):
    user = new_user()
    sessions = [new_session(user) for _ in range(5)]
    new_session()
    order = [Session.status, Session.expires_at.desc()]
    pages = walk(SessionService, where={"user": user}, size=2, order_by=order)
    assert {row.id for row in rows_of(pages)} == {row.id for row in sessions}
    assert [len(page) for page in pages] == [2, 2, 1]


def test_users_created_at_one_moment_are_each_visited_once(rollback_db):
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)
    users = [new_user(created_at=moment) for _ in range(5)]
    pages = walk(UsersService, size=2, order_by=User.created_at.desc())
    assert rows_of(pages) == users[::-1]


def nodes(plan):
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.parametrize("down", [(False, False), (True, True), (True, False), (False, True)])
def test_a_page_is_read_from_an_index_where_the_last_one_ended(tables, down):
    """No row before the page is looked at, at any depth."""
    rows = stored([{"number": number // 10} for number in range(200)])
    directions = ", ".join(
        f"{name} {'DESC' if one else 'ASC'}"
        for name, one in zip(("number", "id"), down, strict=True)
    )
    db.execute_sql(f"CREATE INDEX page_order ON {Thing._meta.table_name} ({directions})")
    db.execute_sql("SET LOCAL enable_seqscan = off")
    db.execute_sql("SET LOCAL enable_bitmapscan = off")
    keyset = Keyset(Thing, terms(list(zip(("number", "id"), down, strict=True))))
    for condition in keyset.after(keyset.cursor(rows[100])):
        query = Thing.select().where(condition).order_by(*keyset.order_by).limit(5)
        sql, values = query.sql()
        (((plan,),),) = db.execute_sql(f"EXPLAIN (FORMAT JSON) {sql}", values).fetchall()
        scans = [node for node in nodes(plan["Plan"]) if node["Node Type"] != "Limit"]
        assert [node["Node Type"] for node in scans] == ["Index Scan"]
        assert scans[0]["Index Name"] == "page_order"
        assert "number" in scans[0]["Index Cond"]
