"""Hostile values on their way to a real table: stored exactly, or refused before any SQL."""

import enum
import math
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domains.orders import Order
from domains.users import Session, User
from orm_core import (
    ArrayField,
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
    OrmCoreError,
    SmallIntegerField,
    TextField,
    UnknownField,
    UUIDField,
    db,
)

CANARY = "canary4711"
LONG_AGO = timezone(timedelta(hours=14))


class Mood(enum.Enum):
    CALM = "calm"
    CROSS = 'it\'s 100% "cross" \\ 🔑'


class Rack(BaseModel):
    label = TextField()

    class Meta:
        table_name = "hostile_racks"


class Item(BaseModel):
    text = TextField(null=True)
    short = CharField(5, null=True)
    number = IntegerField(null=True)
    big = BigIntegerField(null=True)
    small = SmallIntegerField(null=True)
    flag = BooleanField(null=True)
    ratio = DoubleField(null=True)
    price = DecimalField(max_digits=8, decimal_places=2, null=True)
    day = DateField(null=True)
    moment = DateTimeField(null=True)
    code = UUIDField(null=True)
    data = JSONField(null=True)
    mood = EnumField(Mood, null=True)
    rack = ForeignKeyField(Rack, null=True, backref="items")

    class Meta:
        table_name = "hostile_items"


@pytest.fixture
def tables(rollback_db):
    db.create_tables([Rack, Item])
    return rollback_db


@contextmanager
def statements() -> Iterator[list[str]]:
    """The SQL that is sent inside the block."""
    sent: list[str] = []

    def note(event: Any) -> None:
        sent.append(event.sql)

    db.query_hooks.append(note)
    try:
        yield sent
    finally:
        db.query_hooks.remove(note)


def everything_shown_by(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)


# -- every door refuses ---------------------------------------------------------------------

BAD: dict[str, tuple[str, Any]] = {
    "NUL": ("text", f"{CANARY}\0"),
    "surrogate": ("text", f"{CANARY}\ud800"),
    "bytes": ("text", CANARY.encode()),
    "too long": ("short", CANARY),
    "trailing blanks": ("short", CANARY[:5] + " "),
    "bool for int": ("number", True),
    "float for int": ("number", 1.0),
    "text for int": ("number", "4711"),
    "int of 33 bits": ("number", 2**31),
    "int of 65 bits": ("big", 2**63),
    "int for bool": ("flag", 1),
    "NaN": ("ratio", math.nan),
    "infinity": ("ratio", math.inf),
    "float for decimal": ("price", 0.5),
    "digits": ("price", Decimal("0.001")),
    "datetime for date": ("day", datetime(2024, 1, 1, tzinfo=UTC)),
    "naive": ("moment", datetime(2024, 1, 1)),
    "date for datetime": ("moment", date(2024, 1, 1)),
    "before the first year": ("moment", datetime.min.replace(tzinfo=LONG_AGO)),
    "16 bytes": ("code", uuid.uuid4().bytes),
    "urn": ("code", uuid.uuid4().urn),
    "NaN in JSON": ("data", {"a": [math.nan]}),
    "NUL in JSON": ("data", {"a": [f"{CANARY}\0"]}),
    "surrogate in JSON": ("data", [f"{CANARY}\ud800"]),
    "int key in JSON": ("data", {"a": {1: 2}}),
    "unknown label": ("mood", CANARY),
    "another enum": ("mood", enum.Enum("Mood", {"CALM": "calm"}).CALM),
    "no reference": ("rack", CANARY),
    "a row of another model": ("rack", User()),
}


def loaded() -> Item:
    return Item.get_by_id(Item.create().id)


def save(name: str, value: Any) -> None:
    item = loaded()
    setattr(item, name, value)
    item.save()


def bulk_update(name: str, value: Any) -> None:
    item = loaded()
    setattr(item, name, value)
    Item.bulk_update([item], [name])


DOORS: dict[str, Callable[[str, Any], Any]] = {
    "create": lambda name, value: Item.create(**{name: value}),
    "insert": lambda name, value: Item.insert({name: value}).execute(),
    "insert_many": lambda name, value: Item.insert_many([{}, {name: value}]).execute(),
    "bulk_create": lambda name, value: Item.bulk_create([Item(), Item(**{name: value})]),
    "update": lambda name, value: Item.update({name: value}).execute(),
    "save": save,
    "bulk_update": bulk_update,
    "set_by_id": lambda name, value: Item.set_by_id(uuid.uuid4(), {name: value}),
    "where": lambda name, value: list(Item.select().where(getattr(Item, name) == value)),
    "where in": lambda name, value: list(Item.select().where(getattr(Item, name).in_([value]))),
    "get": lambda name, value: Item.get(getattr(Item, name) == value),
    "get_or_none": lambda name, value: Item.get_or_none(**{name: value}),
    "get_or_create": lambda name, value: Item.get_or_create(**{name: value}),
    "filter": lambda name, value: list(Item.filter(**{name: value})),
    "on_conflict": lambda name, value: (
        Item.insert({}).on_conflict(conflict_target=[Item.id], update={name: value}).execute()
    ),
}


def is_let_in(door: str, name: str, value: Any) -> str | None:
    """What is wrong with how a door treats a hostile value, None when it refuses as it should."""
    with statements() as sent:
        try:
            with db.atomic():
                DOORS[door](name, value)
        except InvalidValue as error:
            if not str(error).startswith(f"Item.{name} must be"):
                return "another field is named"
            if CANARY in everything_shown_by(error):
                return "the value shows"
        except OrmCoreError as error:
            return f"refused late, as {type(error).__name__}"
        else:
            return "let in"
    return "was sent" if any(CANARY in sql or sql.startswith("UPDATE") for sql in sent) else None


@pytest.mark.parametrize("door", DOORS)
def test_no_door_lets_a_hostile_value_in(tables, door):
    wrong = {bad: is_let_in(door, name, value) for bad, (name, value) in BAD.items()}
    assert {bad: what for bad, what in wrong.items() if what} == {}
    assert all(getattr(row, name) is None for row in Item.select() for name, _ in BAD.values())


@pytest.mark.parametrize("door", ["create", "insert", "insert_many", "update", "set_by_id"])
def test_no_door_lets_an_unknown_field_in(tables, door):
    with statements() as sent, pytest.raises(UnknownField, match="Did you mean 'number'"):
        DOORS[door]("numbr", 1)
    assert sent == []


@pytest.mark.parametrize("door", ["update", "insert", "create", "bulk_create"])
def test_a_row_of_another_model_is_no_value_at_all(tables, door):
    other = Rack.create(label=CANARY)
    with pytest.raises(InvalidValue):
        DOORS[door]("text", other)


@pytest.mark.parametrize(
    "key",
    ["", "x", b"\0" * 16, 7, "' OR 1=1 --", "urn:uuid:8d362faf-f16f-4d8e-bf89-fdb05bc9bc8a", True],
)
def test_a_key_that_is_none_is_refused(tables, key):
    for find in (Item.get_by_id, Item.delete_by_id, Item.__class__.__getitem__.__get__(Item)):
        with statements() as sent, pytest.raises(InvalidValue, match=r"Item\.id must be"):
            find(key)
        assert sent == []


# -- what is accepted comes back exactly ----------------------------------------------------

no_surrogates = st.characters(exclude_categories=("Cs",))
texts = st.text(no_surrogates)
plain_floats = st.floats(-1e15, 1e15) | st.integers(-(2**70), 2**70)
json_values = st.recursive(
    st.none() | st.booleans() | plain_floats | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=12,
)
offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
VALUES = {
    "text": st.text(),
    "short": st.text(max_size=7),
    "number": st.integers(-(2**33), 2**33) | st.booleans(),
    "big": st.integers(-(2**65), 2**65),
    "small": st.integers(-(2**17), 2**17),
    "flag": st.booleans() | st.integers(0, 1),
    "ratio": st.floats(),
    "price": st.decimals() | st.decimals(-1000, 1000, places=2),
    "day": st.dates() | st.datetimes(),
    "moment": st.datetimes() | st.datetimes(timezones=st.timezones() | offsets.map(timezone)),
    "code": st.uuids() | st.uuids().map(str) | st.binary(min_size=16, max_size=16),
    "data": json_values,
    "mood": st.sampled_from(Mood) | st.text(max_size=3),
}


class _Undo(Exception):
    pass


@contextmanager
def undone() -> Iterator[None]:
    try:
        with db.atomic():
            yield
            raise _Undo
    except _Undo:
        pass


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_stored_exactly_or_refused(tables, name):
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(VALUES[name])
    def check(value: Any) -> None:
        with undone(), statements() as sent:
            try:
                key = Item.insert({name: value}).execute()
            except InvalidValue:
                assert sent == []
                return
            row = Item.get_by_id(key)
            back = getattr(row, name)
            if name == "mood" and not isinstance(value, Mood):
                value = Mood(value)
            if name == "code":
                value = uuid.UUID(str(value))
            if name == "moment" and value is not None:
                value = value.astimezone(UTC)  # one in the gap of a clock change equals none else
            assert back == value
            assert name in {"data", "ratio"} or type(back) is type(value)
            assert name != "moment" or back.tzinfo is UTC
            if value not in (None, [], {}):
                assert Item.select().where(getattr(Item, name) == value).count() == 1

    check()


def test_ten_megabytes_of_text_come_back(tables):
    text = "Grüße 🔑 '%s'\\\n" * 750_000
    assert len(text.encode()) > 10_000_000
    item = Item.create(text=text)
    assert item.text == text
    assert Item.get_by_id(item.id).text == text


def test_ten_megabytes_of_json_come_back(tables):
    data = {"rows": [{"n": n, "text": "Grüße 🔑 '%s'\\\n" * 10} for n in range(50_000)]}
    assert Item.get_by_id(Item.create(data=data).id).data == data


def test_ten_megabytes_are_too_long_for_a_short_column(tables):
    with statements() as sent, pytest.raises(InvalidValue, match="at most 5 characters"):
        Item.create(short=CANARY * 1_000_000)
    assert sent == []


@pytest.mark.parametrize("value", [0, 0.0, "", [], {}, False])
def test_json_that_is_empty_is_not_null(tables, value):
    item = Item.get_by_id(Item.create(data=value).id)
    assert item.data == value
    assert type(item.data) is type(value)
    assert Item.select().where(Item.data.is_null()).count() == 0


def test_the_moments_of_all_zones_are_one(tables):
    moment = datetime(2024, 7, 1, 12, tzinfo=UTC)
    zones = [timezone(timedelta(minutes=15 * n)) for n in range(-48, 57)]
    for zone in zones:
        Item.create(moment=moment.astimezone(zone))
    rows = list(Item.select())
    assert {row.moment.isoformat() for row in rows} == {"2024-07-01T12:00:00+00:00"}
    assert Item.select().where(Item.moment == moment.astimezone(zones[0])).count() == len(zones)


@pytest.mark.parametrize("given", [lambda rack: rack, lambda rack: rack.id, lambda rack: str(rack)])
def test_a_reference_is_given_by_row_by_id_or_by_text(tables, given):
    rack = Rack.create(label="a")
    keys = [
        Item.create(rack=given(rack)).id,
        Item.insert({Item.rack: given(rack)}).execute(),
        Item.insert({"rack_id": given(rack)}).execute(),
        Item.insert_many([{"rack": given(rack)}]).returning(Item).execute()[0].id,
    ]
    late = Item.create()
    Item.update(rack=given(rack)).where(Item.id == late.id).execute()
    assert {row.rack_id for row in Item.select().where(Item.id.in_([*keys, late.id]))} == {rack.id}
    assert Item.select().where(Item.rack == given(rack)).count() == 5
    assert Item.get_by_id(keys[0]).rack == rack


# -- defaults of the server -----------------------------------------------------------------


class Preset(BaseModel):
    text = TextField(default='it\'s 100% "sure" %s %(a)s \\ $$ 🔑')
    short = CharField(9, default="%%''%%")
    number = IntegerField(default=-7)
    big = BigIntegerField(default=-(2**63))
    flag = BooleanField(default=True)
    off = BooleanField(default=False)
    ratio = DoubleField(default=-1.5e22)
    price = DecimalField(max_digits=8, decimal_places=2, default=Decimal("-1.50"))
    day = DateField(default=date(2024, 2, 29))
    moment = DateTimeField(default=datetime(2024, 2, 29, 1, tzinfo=LONG_AGO))
    code = UUIDField(default=uuid.UUID(int=7))
    data = JSONField(default={"a": ["it's 100% \\ \" 🔑", None, 1.5]})
    mood = EnumField(Mood, default=Mood.CROSS)
    soon = DateTimeField(server_default="now() + interval '1 day'")

    class Meta:
        table_name = "hostile_presets"


def test_the_server_has_the_same_defaults_as_python(rollback_db):
    db.create_tables([Preset])
    db.execute_sql("INSERT INTO hostile_presets DEFAULT VALUES")
    (by_server,) = Preset.select()
    by_python = Preset()
    names = set(Preset._meta.fields) - {"id", "created_at", "updated_at", "soon"}
    assert {name: getattr(by_server, name) for name in names} == {
        name: getattr(by_python, name) for name in names
    }


def test_a_default_that_only_the_server_knows_is_read_back(rollback_db):
    db.create_tables([Preset])
    preset = Preset.create()
    assert preset.soon - preset.created_at > timedelta(hours=23)
    assert Preset.get_by_id(preset.id).soon == preset.soon


class Odd(enum.Enum):
    DOLLARS = "a $$ b"
    PERCENT = "%s"


class OddItem(BaseModel):
    odd = EnumField(Odd, type_name='odd "quoted" type')

    class Meta:
        table_name = "hostile_odd_items"


def test_an_enum_of_any_name_and_labels_is_created(rollback_db):
    db.create_tables([OddItem])
    for member in Odd:
        assert OddItem.get_by_id(OddItem.create(odd=member).id).odd is member


# -- arrays and computed columns ------------------------------------------------------------


class Bag(BaseModel):
    texts = ArrayField(TextField(), default=["it's 100%", 'a "b"'])
    numbers = ArrayField(IntegerField(), null=True)
    flags = ArrayField(BooleanField(), null=True)
    ratios = ArrayField(DoubleField(), null=True)
    days = ArrayField(DateField(), null=True)
    moments = ArrayField(DateTimeField(), null=True)
    codes = ArrayField(UUIDField(), null=True)
    moods = ArrayField(EnumField(Mood), null=True)
    data = ArrayField(JSONField(), null=True)
    loud = TextField(null=True, generated="upper(array_to_string_of(texts))")

    class Meta:
        table_name = "hostile_bags"


@pytest.fixture
def bags(rollback_db):
    db.execute_sql(
        "CREATE FUNCTION array_to_string_of(text[]) RETURNS text IMMUTABLE LANGUAGE sql "
        "AS $$ SELECT array_to_string($1, ',') $$"
    )
    db.create_tables([Bag])
    return rollback_db


ARRAYS: dict[str, list[Any]] = {
    "texts": ["", "NULL", "null", "a,b", '"', "\\", "{}", " x ", "it's", "%s", "🔑", "\n\t", None],
    "numbers": [0, -1, 2**31 - 1, None],
    "flags": [True, False, None],
    "ratios": [0.1, 5e-324, 1.7976931348623157e308, -1.0, None],
    "days": [date(2024, 2, 29), date.max, date.min, None],
    "moments": [datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC), None],
    "codes": [uuid.UUID(int=7), None],
    "moods": [*Mood, None],
    "data": [{"a": [1, "it's \\ \" 🔑"]}, [], "x", 1.5, True, None],
}


@pytest.mark.parametrize("values", [lambda items: items, lambda items: [], lambda items: None])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_exactly(bags, name, values):
    expected = values(ARRAYS[name]) if name != "texts" else values(ARRAYS[name]) or []
    bag = Bag.create(**{name: expected})
    assert getattr(bag, name) == getattr(Bag.get_by_id(bag.id), name) == expected


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_compared_as_a_whole(bags, name):
    bag = Bag.create(**{name: ARRAYS[name]})
    assert list(Bag.select().where(getattr(Bag, name) == ARRAYS[name])) == [bag]
    Bag.update({name: []}).execute()
    assert list(Bag.select().where(getattr(Bag, name) == [])) == [bag]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("texts", CANARY),
        ("texts", {CANARY}),
        ("texts", [f"{CANARY}\0"]),
        ("texts", [f"{CANARY}\ud800"]),
        ("texts", [[CANARY]]),
        ("texts", {"a": CANARY}),
        ("numbers", [True]),
        ("numbers", [2**31]),
        ("numbers", "{1}"),
        ("ratios", [math.nan]),
        ("moments", [datetime(2024, 1, 1)]),
        ("codes", [b"0" * 16]),
        ("moods", [CANARY]),
        ("data", [math.nan]),
    ],
)
def test_an_array_of_what_does_not_fit_is_refused(bags, name, value):
    with statements() as sent, pytest.raises(InvalidValue, match=rf"Bag\.{name} must be") as caught:
        Bag.create(**{name: value})
    assert sent == []
    assert CANARY not in everything_shown_by(caught.value)


def test_the_default_of_an_array_is_the_servers_too_and_each_rows_own(bags):
    one, other = Bag(), Bag()
    one.texts.append("more")
    assert other.texts == ["it's 100%", 'a "b"']
    db.execute_sql("INSERT INTO hostile_bags DEFAULT VALUES")
    assert Bag.get().texts == ["it's 100%", 'a "b"']


def test_a_computed_column_is_read_back_and_never_written(bags):
    bag = Bag.create(texts=["a", "b"])
    assert bag.loud == "A,B"
    bag.texts = ["c"]
    bag.save()
    assert bag.loud == Bag.get().loud == "C"
    Bag.bulk_create([Bag(texts=["x"]), Bag(texts=["y"])])
    assert sorted(row.loud for row in Bag.select()) == ["C", "X", "Y"]


# -- errors of the server -------------------------------------------------------------------


def user(**changes: Any) -> User:
    return User.create(
        **{"email": "a@b.c", "first_name": "A", "provider_account_id": "g", **changes}
    )


def fails(action: Callable[[], Any]) -> str:
    with pytest.raises(OrmCoreError) as caught, db.atomic():
        action()
    return everything_shown_by(caught.value)


@pytest.mark.parametrize(
    "action",
    [
        lambda: [user(email=CANARY), user(email=CANARY)],
        lambda: Order.create(user=uuid.UUID(int=0x4711), total=4711),
        lambda: User.insert({"email": CANARY}).execute(),
        lambda: User.insert_many([{"email": CANARY, "first_name": "A"}, {}]).execute(),
        lambda: db.execute_sql("SELECT %s::int", [CANARY]),
        lambda: db.execute_sql("INSERT INTO users (email) VALUES (%s)", [CANARY]),
        lambda: User.get(User.email == CANARY),
        lambda: User.get(User.first_name == CANARY, User.email == CANARY),
    ],
)
def test_no_value_of_a_row_shows_in_an_error(rollback_db, action):
    assert CANARY not in fails(action)


def test_no_value_shows_in_the_log_of_statements(rollback_db, caplog):
    caplog.set_level("DEBUG")
    user(email=CANARY)
    list(User.select().where(User.email == CANARY))
    db.execute_sql("SELECT %s", [CANARY])
    db.execute_sql(f"SELECT '{CANARY}', $${CANARY}$$, 4711 /* {CANARY} */")
    fails(lambda: db.execute_sql(f"SELECT '{CANARY}'::int"))
    assert "SELECT ?, ?, ? ?" in caplog.text
    assert CANARY not in caplog.text
    assert "4711" not in caplog.text


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_raw_sql_refuses_what_a_text_cannot_carry(rollback_db, text):
    with pytest.raises(InvalidValue, match="no SQL was sent"):
        db.execute_sql("SELECT %s", [text])
    assert db.execute_sql("SELECT 1").fetchone() == (1,)


def test_a_hostile_name_of_a_field_does_not_show(rollback_db):
    for name in ("a'; DROP TABLE users; --", "x" * 5000, "\0", "🔑 x"):
        with pytest.raises(UnknownField) as caught:
            User.insert({name: "x"})
        assert name not in str(caught.value)


def test_like_patterns_are_escaped(rollback_db):
    for number, email in enumerate(["100%", "100x", "a_b", "axb", "a\\b"]):
        user(email=email, provider_account_id=str(number))

    def found(part: str) -> list[str]:
        return [row.email for row in User.select().where(User.email.contains(part))]

    assert [found(part) for part in ("0%", "a_b", "\\")] == [["100%"], ["a_b"], ["a\\b"]]


def test_metadata_of_sessions_is_each_rows_own():
    one, other = Session(), Session()
    one.metadata["theme"] = "dark"
    assert (one.metadata, other.metadata) == ({"theme": "dark"}, {})
