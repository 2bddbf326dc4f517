"""Models with a column of each kind, and values for them."""

from __future__ import annotations

import enum
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from orm_core import (
    ArrayField,
    AutoField,
    BaseModel,
    BigIntegerField,
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    DoubleField,
    EncryptedTextField,
    EnumField,
    ForeignKeyField,
    IntegerField,
    JSONField,
    OtherField,
    SmallIntegerField,
    TextField,
    UUIDField,
)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "deep green"
    ODD = "it's 100% \\"


class LowerField(TextField):
    """A service's own field: stored in lower case, read in upper case."""

    def to_database(self, value: Any) -> str:
        return super().to_database(value).lower()

    def python_value(self, value: Any) -> Any:
        return value if value is None else value.upper()


class Shelf(BaseModel):
    label = TextField(default="")

    class Meta:
        table_name = "wide_shelves"


class Thing(BaseModel):
    title = TextField(default="untitled")
    code = CharField(20, null=True, column_name='The "Code"')
    number = IntegerField(null=True)
    big = BigIntegerField(null=True)
    small = SmallIntegerField(null=True)
    flag = BooleanField(null=True)
    ratio = DoubleField(null=True)
    price = DecimalField(12, 2, null=True)
    day = DateField(null=True)
    moment = DateTimeField(null=True)
    uid = UUIDField(null=True)
    colour = EnumField(Colour, type_name="wide_colour", null=True)
    colours = ArrayField(EnumField(Colour, type_name="wide_colour"), null=True)
    tags = ArrayField(TextField(), null=True)
    uids = ArrayField(UUIDField(), null=True)
    data = JSONField(null=True)
    address = OtherField("inet", null=True)
    shout = LowerField(null=True)
    shelf = ForeignKeyField(Shelf, null=True, backref="things")
    token = EncryptedTextField(null=True)
    counted = TextField(server_default="'by the server'")
    twice = IntegerField(generated="number::bigint % 1000", null=True)

    class Meta:
        table_name = 'wide "things"'


class Bare(BaseModel):
    """A table that was there before: a counted key, and none of the standard columns."""

    id = AutoField(column_name="Bare Id")
    name = TextField(null=True)
    twin = ForeignKeyField("self", null=True)
    created_at = None
    updated_at = None
    deleted_at = None

    class Meta:
        table_name = "wide_bare"


MODELS = (Shelf, Thing, Bare)

_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | _text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_text, inner, max_size=2),
    max_leaves=4,
)
_uuids = st.uuids(allow_nil=False)

#: what each field may be given, None aside
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "title": _text,
    "code": _text | st.sampled_from(["50%", "a_b", "\\"]),
    "number": st.integers(-(1 << 31), (1 << 31) - 1),
    "big": st.integers(-(1 << 63), (1 << 63) - 1),
    "small": st.integers(-(1 << 15), (1 << 15) - 1),
    "flag": st.booleans(),
    "ratio": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.1, 1.5]),
    "price": st.decimals(-(10**9), 10**9, places=2),
    "day": st.dates(date(1, 1, 2)),
    "moment": st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    "uid": _uuids | _uuids.map(str) | _uuids.map(lambda one: one.hex.upper()),
    "colour": st.sampled_from([*Colour, "red"]),
    "colours": st.lists(st.sampled_from([*Colour, None]), max_size=3),
    "tags": st.lists(_text | st.none(), max_size=3),
    "uids": st.lists(_uuids, max_size=2),
    "data": _json.filter(lambda value: value is not None),
    "address": st.ip_addresses(v=4).map(str),
    "shout": _text,
}


def row(seed: int, shelves: list[Any]) -> dict[str, Any]:
    """A payload of a thing, the same for each seed."""
    dice = random.Random(seed)
    several: dict[str, list[Any]] = {
        "title": ["", "a", "Ab_c", "50%", "it's", "\\"],
        "code": [None, "a", "50%", "$1", "%s"],
        "number": [None, 0, 1, 2, 3, -(1 << 31)],
        "big": [None, 1, 1 << 62],
        "small": [None, 1, 2, 32767],
        "flag": [None, True, False],
        "ratio": [None, 0.1, 1.5, 2.0],
        "price": [None, Decimal("1.50"), Decimal(2)],
        "day": [None, date(2024, 2, 29), date(1, 1, 1)],
        "moment": [None, datetime(2024, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)],
        "uid": [None, "0123456789abcdef0123456789abcdef"],
        "colour": [None, *Colour],
        "colours": [None, [], [Colour.ODD, None, Colour.RED]],
        "tags": [None, [], ['a,"b', None, "NULL", "{}", "\\"]],
        "uids": [None, [], ["0123456789abcdef0123456789abcdef"]],
        "data": [None, {}, [1.5, 10**30, "é"], "text", {"a": [None, True]}, 1e300],
        "address": [None, "10.0.0.1"],
        "shout": [None, "a", "Ab"],
        "shelf": [None, *shelves],
        "deleted_at": [None, None, None, datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=1)],
    }
    return {name: dice.choice(choices) for name, choices in several.items()}
