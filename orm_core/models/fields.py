"""Columns of text, numbers, times, JSON, enums and arrays.

Peewee's fields, which refuse a wrong value with ``InvalidValue`` before any SQL; see
``orm_core.models.columns`` for what they all take.
"""

from __future__ import annotations

import enum
import json
import math
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

import inflection
from psycopg2 import extensions
from psycopg2.extras import Json

from orm_core import peewee_facade as peewee
from orm_core.database.decoding import uuid_of
from orm_core.errors import InvalidValue
from orm_core.models.columns import (
    MAX_NAME_BYTES,
    CheckedField,
    G,
    Options,
    V,
    is_sql,
    quote_literal,
)

#: with all hyphens or with none
_UUID = re.compile(
    r"([0-9a-f]{8})(-?)([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{12})", re.IGNORECASE
)

E = TypeVar("E", bound=enum.Enum)
Item = TypeVar("Item")
Held = TypeVar("Held")


def _is_utf8(text: str) -> bool:
    """Whether UTF-8 can carry it; the codec's error, which quotes the text, stays in here."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _TextChecks(CheckedField[str, G]):
    refuses_sql = True
    max_length: int | None = None
    expected = "a str"

    def to_database(self, value: Any) -> str:
        text = self.pattern(value)
        if self.max_length is not None and len(text) > self.max_length:
            raise self.refuse(f"a str of at most {self.max_length} characters")
        return text

    def pattern(self, value: Any) -> str:
        """Check a text that the column is matched with, which may be longer than its values."""
        if not isinstance(value, str):
            raise self.refuse()
        if "\0" in value:
            raise self.refuse("a str without NUL characters, which PostgreSQL can't store")
        if not (value.isascii() or _is_utf8(value)):
            raise self.refuse("a str without lone surrogates, which UTF-8 can't carry")
        return str.__str__(value)  # of a str Enum the value, not the name


def _matching(operator: Any) -> Any:
    """An operator whose right side is a pattern, not a value of the column."""

    def match(field: Any, rhs: Any) -> Any:
        expression = operator(field, rhs)
        if isinstance(expression.rhs, str):
            expression.rhs = peewee.Value(expression.rhs, converter=field.pattern)
        return expression

    return match


class TextField(_TextChecks[G], peewee.TextField):
    """``text``: a str of any length."""

    @overload
    def __init__(
        self: TextField[str], *, null: Literal[False] = False, **options: Unpack[Options[str]]
    ) -> None: ...
    @overload
    def __init__(
        self: TextField[str | None], *, null: Literal[True], **options: Unpack[Options[str]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class CharField(_TextChecks[G], peewee.CharField):
    """``varchar(max_length)``: a str; a longer one is refused, trailing blanks count."""

    if not TYPE_CHECKING:  # their types are those of the facade
        like, ilike = map(_matching, (peewee.CharField.like, peewee.CharField.ilike))
        regexp, iregexp = map(_matching, (peewee.CharField.regexp, peewee.CharField.iregexp))
        contains = _matching(peewee.CharField.contains)
        startswith = _matching(peewee.CharField.startswith)
        endswith = _matching(peewee.CharField.endswith)

    @overload
    def __init__(
        self: CharField[str],
        max_length: int = 255,
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[str]],
    ) -> None: ...
    @overload
    def __init__(
        self: CharField[str | None],
        max_length: int = 255,
        *,
        null: Literal[True],
        **options: Unpack[Options[str]],
    ) -> None: ...
    def __init__(self, max_length: int = 255, *args: Any, **kwargs: Any) -> None:
        super().__init__(max_length, *args, **kwargs)


class _IntegerChecks(CheckedField[int, G]):
    refuses_sql = True
    bits = 32
    expected = "an int"

    def to_database(self, value: Any) -> int:
        limit = 1 << (self.bits - 1)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse("an int (no bool, float or str)")
        if not -limit <= value < limit:
            raise self.refuse(f"an int of {self.bits} bits, from {-limit} to {limit - 1}")
        return int(value)

    def literal(self, value: Any) -> str:
        return str(self.to_database(value))


class IntegerField(_IntegerChecks[G], peewee.IntegerField):
    """``integer``: an int of 32 bits."""

    @overload
    def __init__(
        self: IntegerField[int], *, null: Literal[False] = False, **options: Unpack[Options[int]]
    ) -> None: ...
    @overload
    def __init__(
        self: IntegerField[int | None], *, null: Literal[True], **options: Unpack[Options[int]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class BigIntegerField(_IntegerChecks[G], peewee.BigIntegerField):
    """``bigint``: an int of 64 bits."""

    bits = 64

    @overload
    def __init__(
        self: BigIntegerField[int], *, null: Literal[False] = False, **options: Unpack[Options[int]]
    ) -> None: ...
    @overload
    def __init__(
        self: BigIntegerField[int | None], *, null: Literal[True], **options: Unpack[Options[int]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class SmallIntegerField(_IntegerChecks[G], peewee.SmallIntegerField):
    """``smallint``: an int of 16 bits."""

    bits = 16

    @overload
    def __init__(
        self: SmallIntegerField[int],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[int]],
    ) -> None: ...
    @overload
    def __init__(
        self: SmallIntegerField[int | None], *, null: Literal[True], **options: Unpack[Options[int]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class AutoField(_IntegerChecks[int], peewee.AutoField):
    """``serial``: an int of 32 bits that the server counts; for tables that have such a key."""


class BigAutoField(_IntegerChecks[int], peewee.BigAutoField):
    """``bigserial``: an int of 64 bits that the server counts."""

    bits = 64


class BooleanField(CheckedField[bool, G], peewee.BooleanField):
    """``boolean``: True or False, nothing that only acts like one."""

    refuses_sql = True
    expected = "True or False"

    @overload
    def __init__(
        self: BooleanField[bool], *, null: Literal[False] = False, **options: Unpack[Options[bool]]
    ) -> None: ...
    @overload
    def __init__(
        self: BooleanField[bool | None], *, null: Literal[True], **options: Unpack[Options[bool]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.refuse()
        return value

    def literal(self, value: Any) -> str:
        return "true" if self.to_database(value) else "false"


class DoubleField(CheckedField[float, G], peewee.DoubleField):
    """``double precision``: a float, or an int that is one exactly; no infinity, no NaN."""

    refuses_sql = True
    expected = "a finite float"

    @overload
    def __init__(
        self: DoubleField[float], *, null: Literal[False] = False, **options: Unpack[Options[float]]
    ) -> None: ...
    @overload
    def __init__(
        self: DoubleField[float | None], *, null: Literal[True], **options: Unpack[Options[float]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse()
        try:
            number = float(value)
        except OverflowError:
            raise self.refuse() from None
        if not math.isfinite(number) or number != value:
            raise self.refuse()
        return number

    def literal(self, value: Any) -> str:
        return repr(self.to_database(value))


class DecimalField(CheckedField[Decimal, G], peewee.DecimalField):
    """``numeric(max_digits, decimal_places)``: a Decimal or int that fits without rounding."""

    max_digits: int
    decimal_places: int

    @overload
    def __init__(
        self: DecimalField[Decimal],
        max_digits: int = 10,
        decimal_places: int = 5,
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[Decimal]],
    ) -> None: ...
    @overload
    def __init__(
        self: DecimalField[Decimal | None],
        max_digits: int = 10,
        decimal_places: int = 5,
        *,
        null: Literal[True],
        **options: Unpack[Options[Decimal]],
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, Decimal | int):
            raise self.refuse("a Decimal or an int (a float is not exact)")
        number = Decimal(value)
        if not number.is_finite():
            raise self.refuse("a finite Decimal")
        _, digits, exponent = number.as_tuple()
        assert isinstance(exponent, int)  # noqa: S101 - finite
        if -exponent > self.decimal_places or len(digits) + exponent > (
            self.max_digits - self.decimal_places
        ):
            raise self.refuse(
                f"a Decimal of at most {self.max_digits} digits, {self.decimal_places} of them "
                "after the point"
            )
        return number

    def literal(self, value: Any) -> str:
        return str(self.to_database(value))


class DateField(CheckedField[date, G], peewee.DateField):
    """``date``: a ``datetime.date``."""

    expected = "a date (not a datetime)"

    @overload
    def __init__(
        self: DateField[date], *, null: Literal[False] = False, **options: Unpack[Options[date]]
    ) -> None: ...
    @overload
    def __init__(
        self: DateField[date | None], *, null: Literal[True], **options: Unpack[Options[date]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> date:
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.refuse()
        return value


class DateTimeField(CheckedField[datetime, G], peewee.DateTimeField):
    """``timestamptz``: an aware datetime, stored and read as UTC; naive ones are refused."""

    refuses_sql = True
    field_type = "TIMESTAMPTZ"
    expected = "an aware datetime, e.g. datetime.now(UTC); a naive one names no moment"

    @overload
    def __init__(
        self: DateTimeField[datetime],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[datetime]],
    ) -> None: ...
    @overload
    def __init__(
        self: DateTimeField[datetime | None],
        *,
        null: Literal[True],
        **options: Unpack[Options[datetime]],
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> datetime:
        if not isinstance(value, datetime) or value.utcoffset() is None:
            raise self.refuse()
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise self.refuse("a datetime that exists in UTC") from None

    def python_value(self, value: Any) -> Any:
        return value.astimezone(UTC) if isinstance(value, datetime) else value


class UUIDField(CheckedField[uuid.UUID, G], peewee.UUIDField):
    """``uuid``: a ``uuid.UUID``, or its text in 32 or 36 characters."""

    refuses_sql = True
    expected = "a UUID or its text (32 hex digits, with or without hyphens)"

    @overload
    def __init__(
        self: UUIDField[uuid.UUID],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[uuid.UUID]],
    ) -> None: ...
    @overload
    def __init__(
        self: UUIDField[uuid.UUID | None],
        *,
        null: Literal[True],
        **options: Unpack[Options[uuid.UUID]],
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> str:
        if isinstance(value, uuid.UUID):
            return str(value)
        if isinstance(value, str) and (match := _UUID.fullmatch(value)):
            return "-".join(match.group(1, 3, 4, 5, 6)).lower()
        raise self.refuse()

    def python_value(self, value: Any) -> Any:
        return uuid_of(value) if isinstance(value, str) else value


class JSONField(CheckedField[V, G], peewee.JSONField):
    """``jsonb``: dicts, lists, str, int, finite float, bool; no NaN, no NUL, str keys only.

    ``JSONField(dict[str, str])`` declares what checkers and generated types take the values for;
    the values themselves are checked to be JSON, no more.

    Assign a new value to change one: what is changed inside a dict or list of a loaded row is not
    seen by ``save()``. jsonb keeps numbers as numeric, so a float of 1e16 or more comes back as an
    int.
    """

    expected = "JSON: dicts with str keys, lists, str, numbers (no NaN), bool or None"

    @overload
    def __init__(
        self: JSONField[Any, Any], *, null: bool = False, **options: Unpack[Options[Any]]
    ) -> None: ...
    @overload
    def __init__(
        self: JSONField[Held, Held],
        holds: type[Held],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[Any]],
    ) -> None: ...
    @overload
    def __init__(
        self: JSONField[Held, Held | None],
        holds: type[Held],
        *,
        null: Literal[True],
        **options: Unpack[Options[Any]],
    ) -> None: ...
    def __init__(self, holds: Any = Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.holds = holds
        self.copy_default()

    def literal(self, value: Any) -> str:
        return quote_literal(json.dumps(value)) + "::jsonb"

    def db_value(self, value: Any) -> Any:
        if value is None or is_sql(value):
            return value
        # Peewee wraps the value of a comparison itself, and has it converted once more.
        self._check(value.adapted if isinstance(value, Json) else value)
        return self._wrap(value) if self._wrap is not None else value

    to_database = db_value

    def array_item(self, value: Any) -> Any:
        if value is not None:
            self._check(value)
        return None if value is None else json.dumps(value)

    def case_value(self, value: Any) -> Any:
        if value is not None and not is_sql(value):
            self._check(value)
        return super().case_value(value)

    def _check(self, value: Any) -> None:
        problem = _json_problem(value)
        if problem is not None:
            raise self.refuse(problem or None)


def _json_problem(value: Any) -> str | None:
    """What is wrong with a value as jsonb: None for nothing, "" for what the field's text says."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        if "\\u0000" in text and _has_nul(value):
            return "JSON without NUL characters, which jsonb can't store"
        return None if _has_text_keys(value) and _is_utf8(text) else ""
    except (TypeError, ValueError, RecursionError):
        return ""


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value)
        return any(_has_nul(key) or _has_nul(item) for key, item in pairs.items())
    items = cast("list[Any]", value)
    return isinstance(value, list | tuple) and any(map(_has_nul, items))


def _has_text_keys(value: Any) -> bool:
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value)
        return all(isinstance(key, str) and _has_text_keys(item) for key, item in pairs.items())
    items = cast("list[Any]", value)
    return not isinstance(value, list | tuple) or all(map(_has_text_keys, items))


class OtherField(CheckedField[Any, Any]):
    """A column of any other SQL type, as in ``OtherField("inet")``; values pass as they are."""

    def __init__(self, sql_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.field_type = sql_type


class EnumField(CheckedField[V, G]):
    """A native PostgreSQL enum from a Python ``Enum`` whose values are its labels.

    ``EnumField(SessionStatus, default=SessionStatus.ACTIVE)`` makes the type ``session_status``
    (``type_name`` names another). Takes a member or its value; rows carry members.
    """

    refuses_sql = True

    @overload
    def __init__(
        self: EnumField[E, E],
        enum_class: type[E],
        *,
        type_name: str | None = None,
        null: Literal[False] = False,
        **options: Unpack[Options[E]],
    ) -> None: ...
    @overload
    def __init__(
        self: EnumField[E, E | None],
        enum_class: type[E],
        *,
        type_name: str | None = None,
        null: Literal[True],
        **options: Unpack[Options[E]],
    ) -> None: ...
    def __init__(
        self, enum_class: type[enum.Enum], *args: Any, type_name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.enum_class = enum_class
        self.type_name: str = type_name or inflection.underscore(enum_class.__name__)
        self.labels: tuple[Any, ...] = tuple(member.value for member in enum_class)
        self.members: dict[str, enum.Enum] = {member.value: member for member in enum_class}
        for label in self.labels:
            if not isinstance(label, str) or not 0 < len(label.encode()) <= MAX_NAME_BYTES:
                raise InvalidValue(
                    f"Each value of {enum_class.__name__} must be a str of 1 to {MAX_NAME_BYTES} "
                    "bytes to be a label of a PostgreSQL enum."
                )

    @property
    def field_type(self) -> str:
        """The SQL type: the quoted name of the enum."""
        return '"' + self.type_name.replace('"', '""') + '"'

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a {self.enum_class.__name__} or one of: {', '.join(self.labels)}"

    def create_type_sql(self) -> str:
        """CREATE TYPE; nothing happens when the type is there already."""
        labels = ", ".join(map(quote_literal, self.labels))
        quote = "$$"
        while quote in labels or quote in self.type_name:
            quote = f"{quote[:-1]}_$"
        return (
            f"DO {quote} BEGIN CREATE TYPE {self.field_type} AS ENUM ({labels}); "
            f"EXCEPTION WHEN duplicate_object THEN NULL; END {quote}"
        )

    def to_database(self, value: Any) -> str:
        if isinstance(value, self.enum_class):
            return str(value.value)
        if isinstance(value, str) and not isinstance(value, enum.Enum) and value in self.members:
            return value
        raise self.refuse()

    def case_value(self, value: Any) -> Any:
        """A branch of CASE, which PostgreSQL would take for text."""
        return peewee.Cast(self.to_value(value), self.field_type)

    def python_value(self, value: Any) -> Any:
        return self.members.get(value, value) if isinstance(value, str) else value


class ArrayField(CheckedField[V, G]):
    """An array, as in ``ArrayField(TextField())``: a list of what the inner field takes, or None."""

    @overload
    def __init__(
        self: ArrayField[list[Item], list[Item]],
        inner: CheckedField[Item, Item],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[list[Item]]],
    ) -> None: ...
    @overload
    def __init__(
        self: ArrayField[list[Item], list[Item] | None],
        inner: CheckedField[Item, Item],
        *,
        null: Literal[True],
        **options: Unpack[Options[list[Item]]],
    ) -> None: ...
    def __init__(self, inner: CheckedField[Any, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inner = inner
        self.copy_default()

    def _whole(self, value: Any) -> Any:
        """A list as one value; Peewee would compare with its items."""
        if isinstance(value, list | tuple):
            return peewee.Value(value, converter=self.db_value, unpack=False)
        return value

    if not TYPE_CHECKING:  # to checkers it compares like any column

        def __eq__(self, other: Any) -> Any:
            return super().__eq__(self._whole(other))

        def __ne__(self, other: Any) -> Any:
            return super().__ne__(self._whole(other))

        __hash__ = CheckedField.__hash__

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a list whose items are each {self.inner.expected}"

    def ddl_datatype(self, ctx: Any) -> Any:
        """The inner type with brackets."""
        return peewee.SQL(f"{self.inner.ddl_datatype(ctx).sql}[]")

    def to_database(self, value: Any) -> str:
        if not isinstance(value, list | tuple):
            raise self.refuse()
        try:
            given = cast("list[Any]", value)
            items = [self.inner.array_item(item) for item in given]
        except InvalidValue:
            raise self.refuse() from None
        return array_literal(items)

    def python_value(self, value: Any) -> Any:
        if isinstance(value, str):  # a type that the driver has no reader for
            value = extensions.STRINGARRAY(value, None)
        return value if value is None else [self.inner.python_value(item) for item in value]


def array_literal(items: Iterable[Any]) -> str:
    """The text of an array whose items are texts, numbers or None (PostgreSQL manual, Arrays)."""
    return "{" + ",".join(map(_array_item, items)) + "}"


def _array_item(item: Any) -> str:
    if item is None:
        return "NULL"
    escaped = str(item).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
