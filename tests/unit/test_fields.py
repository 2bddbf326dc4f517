"""Fields: each value fits its column exactly or is refused, and an error never shows it."""

import contextlib
import enum
import math
import traceback
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from peewee import fn

from orm_core import (
    AutoField,
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
)
from orm_core.models.columns import shorten

CANARY = "canary4711"
SOME_ID = uuid.UUID("0190c6f0-1111-7abc-8def-000000000001")


class Mood(enum.Enum):
    CALM = "calm"
    CROSS = 'it\'s 100% "cross"'


class OtherMood(enum.Enum):
    CALM = "calm"


class TextMood(enum.StrEnum):
    CALM = "calm"


class Shelf(BaseModel):
    label = TextField()


class Box(BaseModel):
    label = TextField()


class Thing(BaseModel):
    text = TextField()
    short = CharField(5)
    number = IntegerField()
    big = BigIntegerField()
    small = SmallIntegerField()
    flag = BooleanField()
    ratio = DoubleField()
    price = DecimalField(max_digits=8, decimal_places=2)
    day = DateField()
    moment = DateTimeField()
    code = UUIDField()
    data = JSONField()
    mood = EnumField(Mood)
    shelf = ForeignKeyField(Shelf)


def stored(name: str, value: Any) -> Any:
    return Thing._meta.fields[name].db_value(value)


def refused(name: str, value: Any) -> str:
    with pytest.raises(InvalidValue) as caught:
        stored(name, value)
    message = str(caught.value)
    assert message.startswith(f"Thing.{name} must be ")
    assert message.endswith("no SQL was sent.")
    return message


LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
EAST, WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))

ACCEPTED: list[tuple[str, Any, Any]] = [
    ("text", "", ""),
    ("text", "Grüße 世界 🔑", "Grüße 世界 🔑"),
    ("text", " \t\r\n\x01\x7f\x85\u2028\ufffe\uffff", " \t\r\n\x01\x7f\x85\u2028\ufffe\uffff"),
    ("text", "'; DROP TABLE users; -- %s %% \\", "'; DROP TABLE users; -- %s %% \\"),
    ("text", TextMood.CALM, "calm"),
    ("short", "12345", "12345"),
    ("short", "🔑🔑🔑🔑🔑", "🔑🔑🔑🔑🔑"),
    ("short", "a    ", "a    "),
    ("number", 0, 0),
    ("number", 2**31 - 1, 2**31 - 1),
    ("number", -(2**31), -(2**31)),
    ("big", 2**63 - 1, 2**63 - 1),
    ("big", -(2**63), -(2**63)),
    ("small", 32767, 32767),
    ("small", -32768, -32768),
    ("number", enum.IntEnum("Level", {"ONE": 1}).ONE, 1),
    ("flag", True, True),
    ("flag", False, False),
    ("ratio", 0.1, 0.1),
    ("ratio", -0.0, 0.0),
    ("ratio", 5e-324, 5e-324),
    ("ratio", 1.7976931348623157e308, 1.7976931348623157e308),
    ("ratio", 3, 3.0),
    ("price", Decimal("999999.99"), Decimal("999999.99")),
    ("price", Decimal("-999999.99"), Decimal("-999999.99")),
    ("price", Decimal("1E+5"), Decimal(100000)),
    ("price", 7, Decimal(7)),
    ("day", date.min, date.min),
    ("day", date.max, date.max),
    ("moment", FIRST_MOMENT, FIRST_MOMENT),
    ("moment", LAST_MOMENT, LAST_MOMENT),
    ("moment", datetime(2024, 2, 29, 12, tzinfo=EAST), datetime(2024, 2, 28, 22, tzinfo=UTC)),
    (
        "moment",
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2024, 10, 27, 1, 30, tzinfo=UTC),
    ),
    ("code", SOME_ID, str(SOME_ID)),
    ("code", str(SOME_ID), str(SOME_ID)),
    ("code", SOME_ID.hex, str(SOME_ID)),
    ("code", str(SOME_ID).upper(), str(SOME_ID)),
    ("code", uuid.UUID(int=0), str(uuid.UUID(int=0))),
    ("mood", Mood.CALM, "calm"),
    ("mood", "calm", "calm"),
    ("mood", Mood.CROSS, 'it\'s 100% "cross"'),
    ("shelf", SOME_ID, str(SOME_ID)),
    ("shelf", str(SOME_ID), str(SOME_ID)),
    ("shelf", Shelf(id=SOME_ID), str(SOME_ID)),
]


@pytest.mark.parametrize(("name", "value", "expected"), ACCEPTED)
def test_a_value_that_fits_is_kept(name, value, expected):
    found = stored(name, value)
    assert found == expected
    assert type(found) is type(expected)


JSON_VALUES = [
    {},
    [],
    "text",
    "",
    0,
    -1,
    10**30,
    1.5,
    True,
    {"a": [1, {"b": None}]},
    {"": ""},
    "\\u0000",
    {"\\u0000": "\\\\u0000"},
    "\x01\x1f\x7f",
    {"🔑": "世界"},
    [None],
]


@pytest.mark.parametrize("value", JSON_VALUES)
def test_json_takes_what_json_can_say(value):
    assert stored("data", value) is not None


@pytest.mark.parametrize("name", [n for n in Thing._meta.fields if n != "data"])
def test_none_and_sql_are_left_to_the_server(name):
    now = fn.now()
    assert stored(name, None) is None
    assert stored(name, now) is now


deep: list[Any] = []
for _ in range(100_000):
    deep = [deep]
endless: list[Any] = []
endless.append(endless)
endless_dict: dict[str, Any] = {}
endless_dict["a"] = endless_dict

NOT_TEXTS = [b"canary4711", 4711, 4.7, None.__class__, [CANARY], {CANARY: 1}, bytearray(b"a"), ...]
BAD_TEXTS = [f"{CANARY}\0", f"\0{CANARY}", f"{CANARY}\ud800", f"\udfff{CANARY}", "\ud83d\udd11"[:1]]
NOT_INTS = [True, False, 1.0, math.nan, math.inf, "4711", b"4711", Decimal(4711), 1j, [4711], {}]
REFUSED: list[tuple[str, Any]] = [
    *(("text", value) for value in NOT_TEXTS + BAD_TEXTS),
    *(("short", value) for value in NOT_TEXTS + BAD_TEXTS),
    ("text", Mood.CALM),
    ("short", "123456"),
    ("short", "12345 "),
    ("short", "a" + " " * 5),
    ("short", " " * 1_000_000),
    ("short", "🔑" * 6),
    *((name, value) for name in ("number", "big", "small") for value in NOT_INTS),
    ("number", 2**31),
    ("number", -(2**31) - 1),
    ("big", 2**63),
    ("big", -(2**63) - 1),
    ("small", 32768),
    ("small", -32769),
    *((name, 10**5000) for name in ("number", "big", "small", "price", "ratio")),
    *(("flag", value) for value in (0, 1, "true", "", "t", None.__class__, [], 1.0, b"\1")),
    *(("ratio", value) for value in (math.nan, math.inf, -math.inf, True, "1.5", Decimal(1), 1j)),
    ("ratio", 10**400),
    ("ratio", -(10**309)),
    *(("price", value) for value in (0.5, 1.0, "1.50", True, math.nan, b"1", 1j)),
    ("price", Decimal("NaN")),
    ("price", Decimal("sNaN")),
    ("price", Decimal("Infinity")),
    ("price", Decimal("-Infinity")),
    ("price", Decimal("0.001")),
    ("price", Decimal("1000000")),
    ("price", Decimal("1E+6")),
    ("price", Decimal("1E+1000000")),
    ("price", Decimal("1E-1000000")),
    ("price", 1_000_000),
    *(("day", value) for value in ("2024-01-01", datetime.now(UTC), datetime(2024, 1, 1), 0, ())),
    *(("moment", value) for value in ("2024-01-01T00:00:00Z", 0, 1.7e9, date(2024, 1, 1), ())),
    ("moment", datetime(2024, 1, 1)),
    ("moment", datetime.min),
    ("moment", datetime.max),
    ("moment", datetime.min.replace(tzinfo=EAST)),
    ("moment", datetime.max.replace(tzinfo=WEST)),
    *(("code", value) for value in (SOME_ID.bytes, SOME_ID.int, SOME_ID.bytes_le, bytearray(16))),
    ("code", b"0190c6f011117abc"),
    ("code", "0190c6f011117abc"),
    ("code", SOME_ID.urn),
    ("code", f"{{{SOME_ID}}}"),
    ("code", f"{{{SOME_ID.hex}}}"),
    ("code", f"urn:uuid:{SOME_ID.hex}"),
    ("code", ""),
    ("code", str(SOME_ID)[:-1]),
    ("code", str(SOME_ID) + "0"),
    ("code", " " + str(SOME_ID)),
    ("code", str(SOME_ID) + "\n"),
    ("code", str(SOME_ID).replace("-", "_")),
    ("code", str(SOME_ID).replace("-", " ")),
    ("code", "0190c6f01-111-7abc-8def-00000000000"),
    ("code", "g" * 32),
    ("code", "\u0660" * 32),
    ("code", "\0" * 36),
    ("code", "\ud800" * 36),
    *(("data", {"a": [value]}) for value in (math.nan, math.inf, -math.inf, b"a", {1}, 1j, ...)),
    *(("data", {"a": [value]}) for value in ("\0", "\ud800", SOME_ID, Decimal(1), date.max)),
    *(("data", value) for value in (math.nan, "\0", "\ud800", b"a", SOME_ID, {1})),
    *(("data", {key: 1}) for key in (1, None, True, 1.5, (1,), b"a", "\0", "\ud800", SOME_ID)),
    ("data", {"a": {"b": [{"c\0": 1}]}}),
    ("data", [[[{"a": {2: 1}}]]]),
    ("data", {1: "a", "1": "b"}),
    ("data", deep),
    ("data", endless),
    ("data", endless_dict),
    *(
        ("mood", value)
        for value in (CANARY, "CALM", "Calm", "calm ", "", 0, None.__class__, b"calm")
    ),
    ("mood", OtherMood.CALM),
    ("mood", TextMood.CALM),
    ("mood", ["calm"]),
    ("mood", "calm\0"),
    ("shelf", Box(id=SOME_ID)),
    ("shelf", Thing()),
    ("shelf", Shelf),
    ("shelf", CANARY),
    ("shelf", 4711),
    ("shelf", SOME_ID.bytes),
    ("shelf", SOME_ID.urn),
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda v: type(v).__name__)
def test_a_value_that_does_not_fit_is_refused(name, value):
    refused(name, value)


def nested(depth: int, wrap: Any) -> Any:
    value: Any = "leaf"
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("depth", [1, 50, 200, 300, 400, 600, 800, 990, 1100, 2000, 20_000])
@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}], ids=["lists", "dicts"])
def test_json_of_any_depth_is_taken_or_refused(wrap, depth):
    try:
        stored("data", nested(depth, wrap))
    except InvalidValue:
        assert depth > 200


def errors_shown(action: Any) -> str:
    try:
        action()
    except OrmCoreError as error:
        return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)
    raise AssertionError("was not refused")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", CANARY.encode()),
        ("text", f"{CANARY}\0"),
        ("text", f"{CANARY}\ud800"),
        ("short", CANARY),
        ("number", CANARY),
        ("number", 4711_4711_4711),
        ("flag", CANARY),
        ("ratio", CANARY),
        ("price", Decimal("4711.4711")),
        ("day", CANARY),
        ("moment", CANARY),
        ("code", CANARY),
        ("code", CANARY.ljust(32, "0")),
        ("data", {CANARY: b""}),
        ("data", [f"{CANARY}\0"]),
        ("data", {CANARY: {1: 1}}),
        ("mood", CANARY),
        ("shelf", CANARY),
        ("shelf", Box(label=CANARY)),
    ],
)
def test_an_error_names_the_field_and_never_the_value(name, value):
    shown = errors_shown(lambda: stored(name, value))
    assert f"Thing.{name} must be" in shown
    assert CANARY not in shown
    assert "4711" not in shown


def test_an_enum_error_lists_what_is_possible():
    assert "a Mood or one of: calm" in refused("mood", CANARY)


def test_a_foreign_key_error_names_the_other_model():
    assert "a Shelf or its id" in refused("shelf", CANARY)


def test_a_field_without_a_model_names_its_class():
    with pytest.raises(InvalidValue, match=r"^IntegerField must be an int"):
        IntegerField().db_value("1")


# -- properties -----------------------------------------------------------------------------


@given(st.integers())
@example(2**31)
@example(-(2**63) - 1)
def test_an_int_is_kept_when_its_bits_suffice(value):
    for name, bits in (("small", 16), ("number", 32), ("big", 64)):
        if -(1 << bits - 1) <= value < 1 << bits - 1:
            assert stored(name, value) == value
        else:
            refused(name, value)


@given(st.text(st.characters(), max_size=12))
@example("\ud800")
@example("a\0b")
def test_a_text_is_kept_when_utf_8_without_nul_can_say_it(value):
    sayable = "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
    for name, limit in (("text", math.inf), ("short", 5)):
        if sayable and len(value) <= limit:
            assert stored(name, value) == value
        else:
            refused(name, value)


@given(st.decimals() | st.decimals(allow_nan=False, allow_infinity=False, places=2))
@example(Decimal("0.00"))
@example(Decimal("-0"))
def test_a_decimal_is_kept_when_its_digits_fit(value):
    try:
        kept = stored("price", value)
    except InvalidValue:
        assert not (value.is_finite() and value.as_tuple().exponent == -2 and abs(value) < 10**6)
    else:
        assert kept == value
        assert kept == kept.quantize(Decimal("0.01"))
        assert abs(kept) < 10**6


offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
zones = st.timezones() | st.builds(timezone, offsets)


@given(st.datetimes(timezones=zones, allow_imaginary=False))
@example(datetime.max.replace(tzinfo=WEST))
@example(datetime.min.replace(tzinfo=EAST))
def test_a_datetime_of_any_zone_becomes_the_same_moment_in_utc(value):
    naive = value.replace(tzinfo=None)
    distance = min(naive - datetime.min, datetime.max - naive)
    try:
        kept = stored("moment", value)
    except InvalidValue:
        assert distance < timedelta(days=1)
    else:
        assert kept.tzinfo is UTC
        assert kept - value == timedelta(0)


@given(st.datetimes())
def test_a_naive_datetime_is_refused(value):
    refused("moment", value)


@given(st.uuids())
def test_an_id_is_read_from_its_two_usual_texts(value):
    for text in (str(value), value.hex, str(value).upper(), value.hex.upper()):
        assert stored("code", text) == str(value)
    for text in (value.urn, f"{{{value}}}", value.bytes, value.int):
        refused("code", text)


@given(st.text(max_size=40) | st.text("0123456789abcdefABCDEF-{}_ ", min_size=32, max_size=36))
def test_any_other_text_is_no_id(text):
    try:
        kept = stored("code", text)
    except InvalidValue:
        return
    assert kept.replace("-", "") == text.lower().replace("-", "")
    assert text.lower() in (kept, kept.replace("-", ""))


scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.text(st.characters()),
    st.binary(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.just(...),
    st.sampled_from(OtherMood),
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=5,
)


@given(anything, st.sampled_from(sorted(Thing._meta.fields)))
def test_no_value_at_all_gets_another_error(value, name):
    with contextlib.suppress(InvalidValue):
        stored(name, value)


# -- definitions ----------------------------------------------------------------------------


class Defaults(BaseModel):
    text = TextField(default='it\'s 100% "sure"')
    number = IntegerField(default=-7)
    flag = BooleanField(default=False)
    ratio = DoubleField(default=-1e22)
    price = DecimalField(default=Decimal("1.50"))
    mood = EnumField(Mood, default=Mood.CROSS)
    data = JSONField(default={"a": ["it's %"]})
    moment = DateTimeField(server_default="now()")
    made = TextField(default=lambda: "made in Python")
    bare = TextField(null=True)


@pytest.mark.parametrize(
    ("name", "sql"),
    [
        ("text", "'it''s 100%% \"sure\"'"),
        ("number", "-7"),
        ("flag", "false"),
        ("ratio", "-1e+22"),
        ("price", "1.50"),
        ("mood", "'it''s 100%% \"cross\"'"),
        ("data", "'{\"a\": [\"it''s %%\"]}'::jsonb"),
        ("moment", "now()"),
        ("made", None),
        ("bare", None),
        ("id", "gen_random_uuid()"),
        ("created_at", "now()"),
        ("updated_at", "now()"),
        ("deleted_at", None),
    ],
)
def test_a_constant_default_is_the_servers_too(name, sql):
    assert Defaults._meta.fields[name].server_default_sql == sql


def test_a_server_default_wins_over_the_constant():
    field = TextField(default="python", server_default="'server'")
    assert (field.default, field.server_default_sql) == ("python", "'server'")


def test_a_default_that_does_not_fit_is_refused():
    field = CharField(3, default="long text")
    with pytest.raises(InvalidValue, match="at most 3"):
        _ = field.server_default_sql


def test_a_json_default_is_not_shared():
    one, other = Defaults(), Defaults()
    one.data["a"].append("more")
    assert other.data == Defaults().data == {"a": ["it's %"]}


def test_an_enum_is_named_after_its_class():
    class OrderState(enum.Enum):
        OPEN = "open"

    assert EnumField(OrderState).type_name == "order_state"
    assert EnumField(OrderState, type_name="state of it").field_type == '"state of it"'
    assert EnumField(OrderState, type_name='a"b').field_type == '"a""b"'


@pytest.mark.parametrize("label", [1, None, "", "ä" * 32, "x" * 64, ("a",), b"a"])
def test_an_enum_whose_values_are_no_labels_is_refused(label):
    with pytest.raises(InvalidValue, match="to be a label of a PostgreSQL enum"):
        EnumField(enum.Enum("Odd", {"A": label}))


def test_an_enum_label_of_63_bytes_is_taken():
    assert EnumField(enum.Enum("Long", {"A": "ä" * 31 + "x"})).labels == ("ä" * 31 + "x",)


def test_an_alias_of_an_enum_member_is_no_label_of_its_own():
    assert EnumField(enum.Enum("Twice", [("A", "a"), ("B", "a")])).labels == ("a",)


@pytest.mark.parametrize("word", ["set null", True, "CASCADE", ""])
def test_a_foreign_key_refuses_another_word_for_soft_deletes(word):
    with pytest.raises(InvalidValue, match='"cascade" or None'):
        ForeignKeyField(Shelf, on_soft_delete=word)


def test_what_is_read_has_the_type_of_the_field():
    fields = Thing._meta.fields
    there = datetime(2024, 1, 1, 2, tzinfo=EAST)
    assert fields["code"].python_value(str(SOME_ID)) == SOME_ID
    assert fields["shelf"].python_value(str(SOME_ID)) == SOME_ID
    assert fields["mood"].python_value("calm") is Mood.CALM
    assert fields["mood"].python_value("a label added later") == "a label added later"
    assert fields["moment"].python_value(there).isoformat() == "2023-12-31T12:00:00+00:00"
    assert all(field.python_value(None) is None for field in fields.values())


# -- names of fields ------------------------------------------------------------------------


def test_a_field_of_another_model_is_not_taken():
    with pytest.raises(UnknownField):
        Shelf.update({Thing.text: "x"})
    with pytest.raises(UnknownField):
        Shelf.insert({Box.label: "x"})
    with pytest.raises(UnknownField):
        Shelf.update({Shelf.alias().label: "x"})


@pytest.mark.parametrize("name", [1, None, b"label", ("label",)])
def test_what_is_no_text_names_no_field(name):
    with pytest.raises(UnknownField, match="by name"):
        Shelf.update({name: "x"})


# -- identifiers ----------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=100))
def test_an_identifier_fits_postgresql(name):
    short = shorten(name)
    assert len(short.encode()) <= 63
    assert (short == name) is (len(name.encode()) <= 63)
    assert shorten(name) == short


def names_of_one_beginning() -> Iterator[str]:
    for number in range(300):
        yield "x" * 70 + str(number)


def test_long_identifiers_of_one_beginning_stay_apart():
    assert len({shorten(name) for name in names_of_one_beginning()}) == 300


def test_a_shortened_identifier_never_changes():
    assert shorten("a" * 64) == "a" * 54 + "_ffe054fe"
    assert shorten("é" * 40) == "é" * 27 + "_84fe2e03"


@pytest.mark.parametrize(
    "operator", ["contains", "startswith", "endswith", "like", "ilike", "regexp", "iregexp"]
)
def test_a_pattern_may_be_longer_than_the_column(operator):
    class Tag(BaseModel):
        name = CharField(3)

    query = Tag.select().where(getattr(Tag.name, operator)("longer"))
    assert any("longer" in str(value) for value in query.sql()[1])
    with pytest.raises(InvalidValue, match="NUL"):
        Tag.select().where(getattr(Tag.name, operator)("\0")).sql()


def test_a_parent_without_a_key_is_refused():
    class Crew(BaseModel):
        id = AutoField()

    class Sailor(BaseModel):
        crew = ForeignKeyField(Crew, null=True)

    with pytest.raises(InvalidValue, match="a Crew that was saved before"):
        Sailor.insert(crew=Crew()).sql()
    with pytest.raises(InvalidValue, match="a Crew that was saved before"):
        Sailor.select().where(Sailor.crew == Crew()).sql()
