"""Many rows by columns: checked and converted a column at a time, written as text.

The text of a value is what the input function of its PostgreSQL type reads. A column of texts
travels in COPY, or as one array that ``unnest`` makes rows of, so that the SQL is the same for any
number of rows.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import EnumMeta
from operator import itemgetter
from types import NoneType
from typing import Any, Final

from psycopg2.extras import Json

from orm_core.errors import InvalidValue
from orm_core.models.columns import is_generated
from orm_core.models.encrypted import EncryptedField
from orm_core.models.fields import (
    ArrayField,
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    DoubleField,
    EnumField,
    IntegerField,
    JSONField,
    OtherField,
    TextField,
    UUIDField,
)
from orm_core.models.identifiers import utcnow, uuid7, uuid7s
from orm_core.models.payloads import check_new, checked, driver_value, fields_of, not_a_payload
from orm_core.models.sealed_parts import SealedPartField, SealedText
from orm_core.models.sealing import seal_columns

#: how a value of exactly this type is written; a value of another type has no text here
_TEXT: Final[dict[type, Callable[[Any], str]]] = {
    str: str,
    SealedText: str.__str__,
    int: str,
    float: repr,
    bool: lambda value: "t" if value else "f",
    Decimal: str,
    date: date.isoformat,
    datetime: datetime.isoformat,
    uuid.UUID: lambda value: f"{value.int:032x}",
    Json: lambda value: str(value.dumps(value.adapted)),
}
#: types whose text has no character that COPY or an array gives a meaning to
_SAFE: Final = frozenset([int, float, bool, Decimal, date, datetime, uuid.UUID])
#: fields whose column gives back the very value that was written
_KEEPING: Final[tuple[Any, ...]] = (
    TextField,
    CharField,
    IntegerField,
    BooleanField,
    DoubleField,
    DateField,
    DateTimeField,
    UUIDField,
    EnumField,
    EncryptedField,
    SealedPartField,
)
_ECHOES: Final[frozenset[Any]] = frozenset(one.to_database for one in _KEEPING)
#: SQL types that only CREATE TABLE knows
_SERIAL: Final = {"SERIAL": "INTEGER", "BIGSERIAL": "BIGINT"}


class Column:
    """The values of one field, row by row, as the driver takes them."""

    def __init__(self, field: Any, values: Sequence[Any]) -> None:
        self.field = field
        self.values = values
        kinds = set(map(type, values))
        self.has_null: bool = NoneType in kinds
        kinds.discard(NoneType)
        #: the type of all values; of one of them, when there are several
        self.kind: type = kinds.pop() if kinds else str
        #: whether all values have a text
        self.has_text: bool = not kinds and self.kind in _TEXT

    @property
    def echoes(self) -> bool:
        """Whether the server keeps the values as they are."""
        return _writer(_referred(self.field)) in _ECHOES

    def _texts(self) -> list[Any]:
        if self.kind is str:
            return list(self.values)
        write: Any = _TEXT[self.kind]
        if self.kind is int and not self.has_null:
            return list(map(write, self.values))
        return self.each(lambda value: None if value is None else write(value))

    def each(self, write: Callable[[Any], Any]) -> list[Any]:
        """What ``write`` makes of each value."""
        # Often the same object stands in many rows: a parent's id, the moment of the statement.
        places = list(map(id, self.values))
        distinct = dict(zip(places, self.values, strict=True))
        if len(distinct) == len(places):
            return list(map(write, self.values))
        written = {place: write(value) for place, value in distinct.items()}
        return list(map(written.__getitem__, places))

    def copied(self) -> list[str]:
        """The values as COPY reads them (PostgreSQL manual, COPY, "Text Format")."""
        texts: list[Any] = self._texts()
        if self.kind not in _SAFE and _has_any("\\\t\n\r", texts):
            texts = [None if text is None else text.translate(_COPY_ESCAPES) for text in texts]
        if self.has_null:
            return ["\\N" if text is None else text for text in texts]
        return texts

    def array(self) -> str:
        """The values as one array, in text (PostgreSQL manual, "Array Input and Output Syntax")."""
        texts: list[Any] = self._texts()
        if self.kind not in _SAFE:
            if _has_any('\\"', texts):
                texts = [None if one is None else one.translate(_ARRAY_ESCAPES) for one in texts]
            texts = [None if text is None else f'"{text}"' for text in texts]
        if self.has_null:
            texts = ["NULL" if text is None else text for text in texts]
        return "{" + ",".join(texts) + "}"


_COPY_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_ARRAY_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"'})


def _has_any(characters: str, texts: Iterable[str | None]) -> bool:
    everything = "".join(filter(None, texts))
    return any(one in everything for one in characters)


def quoted(name: str) -> str:
    """An identifier in the text of a statement with parameters."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def table_of(model: Any) -> str:
    """The quoted name of a model's table, with its schema."""
    parts = (model._meta.schema, model._meta.table_name)
    return ".".join(quoted(part) for part in parts if part)


def unnested(fields: Sequence[Any], alias: str) -> tuple[str, list[str]]:
    """SQL of a source whose rows are made of one array for each field, and of its columns."""
    types: list[str] = []
    columns: list[str] = []
    context = fields[0].model._meta.database.get_sql_context()
    for place, field in enumerate(fields):
        sql = sql_type(field, context)
        # Arrays of arrays would be taken apart, and some types part their items by another mark.
        as_text = isinstance(field, ArrayField | JSONField | OtherField)
        types.append("%s::text[]" if as_text else f"%s::{sql}[]")
        columns.append(f"{alias}.c{place}::{sql}" if as_text else f"{alias}.c{place}")
    names = ", ".join(f"c{place}" for place in range(len(fields)))
    return f"unnest({', '.join(types)}) AS {alias} ({names})", columns


def sql_type(field: Any, context: Any = None) -> str:
    """The SQL type of a column, for a cast."""
    context = context or field.model._meta.database.get_sql_context()
    name = str(field.ddl_datatype(context).sql)
    return _SERIAL.get(name, name).replace("%", "%%")


def returning(model: Any, fields: Iterable[Any] | None = None, *, alone: bool = False) -> str:
    """RETURNING with columns of a model: these, or all; ``alone`` when no other table is there."""
    table = "" if alone else f"{quoted(model._meta.table_name)}."
    columns = [quoted(one.column_name) for one in fields or model._meta.sorted_fields]
    return "RETURNING " + ", ".join(f"{table}{column}" for column in columns)


# -- new rows -----------------------------------------------------------------------------------


def new_columns(model: Any, payloads: Sequence[Mapping[str, Any]]) -> list[Column] | None:
    """The columns of new rows, defaults included; None when some rows leave a column to the server
    that others fill.

    Payloads may have different names; each set of names is checked once. Raises ``InvalidValue``,
    ``UnknownField`` or ``MissingField``.
    """
    groups = by_names(model, payloads)
    fields: dict[Any, None] = {}
    for given, _ in groups:
        check_new(model, given.values())
        fields.update(dict.fromkeys(given.values()))
    for field in model._meta.sorted_fields:
        if field.default is not None and not is_generated(field):
            fields.setdefault(field)
    key = model._meta.primary_key
    shared = _shared_defaults(fields, len(payloads))
    values: dict[Any, list[Any]] = {field: [None] * len(payloads) for field in fields}
    for given, places in groups:
        rows = payloads if len(places) == len(payloads) else [payloads[one] for one in places]
        defaults = {
            field: column if rows is payloads else [column[one] for one in places]
            for field, column in shared.items()
        }
        made = _filled(model, given, fields, rows, defaults)
        if made is None:
            return None
        sealed = seal_columns(made, key)
        for field, column in sealed.items():
            whole = values.setdefault(field, [None] * len(payloads))
            if len(places) == len(payloads):
                values[field] = list(column)
                continue
            for place, value in zip(places, column, strict=True):
                whole[place] = value
    order = {field: place for place, field in enumerate(model._meta.sorted_fields)}
    return [Column(field, values[field]) for field in sorted(values, key=order.__getitem__)]


def by_names(
    model: Any, payloads: Sequence[Mapping[str, Any]]
) -> list[tuple[dict[str, Any], Sequence[int]]]:
    """The fields of each set of names that payloads have, and their places.

    Raises ``InvalidValue`` or ``UnknownField``.
    """
    for kind in set(map(type, payloads)):
        if not issubclass(kind, Mapping):
            raise not_a_payload(model)
    distinct: set[tuple[Any, ...]] = set(map(tuple, payloads))
    if len(distinct) == 1:
        return [(fields_of(model, one), range(len(payloads))) for one in distinct]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, payload in enumerate(payloads):
        groups.setdefault(tuple(payload), []).append(place)
    return [(fields_of(model, one), places) for one, places in groups.items()]


def _filled(
    model: Any,
    given: Mapping[str, Any],
    fields: Iterable[Any],
    rows: Sequence[Mapping[str, Any]],
    defaults: Mapping[Any, Sequence[Any]],
) -> dict[Any, Sequence[Any]] | None:
    """The columns of rows of one set of names; None when the server is to fill one of them."""
    values: dict[Any, Sequence[Any]] = {
        field: convert_column(field, list(map(itemgetter(name), rows)))
        for name, field in given.items()
    }
    for field in fields:
        if field in values:
            continue
        if field.default is not None:
            values[field] = defaults.get(field) or _defaults(field, len(rows))
        elif _is_for_the_server(field):
            return None
        else:
            values[field] = [None] * len(rows)
    times = [model._meta.fields.get(name) for name in ("created_at", "updated_at")]
    if not {*times} & {*given.values()} and {*times} <= values.keys():
        values[times[1]] = values[times[0]]  # of a new row they are one moment
    return values


def _is_for_the_server(field: Any) -> bool:
    return field.auto_increment or getattr(field, "server_default_sql", None) is not None


def _shared_defaults(fields: Iterable[Any], count: int) -> dict[Any, list[Any]]:
    """Defaults that rows of all names have in common: ids in their order, one moment, like now()."""
    made: dict[Any, list[Any]] = {}
    for field in fields:
        if field.default is uuid7:
            made[field] = uuid7s(count)
        elif field.default is utcnow:
            made[field] = [utcnow()] * count
    return made


def _defaults(field: Any, count: int) -> Sequence[Any]:
    if callable(field.default):
        return convert_column(field, [field.default() for _ in range(count)])
    return [driver_value(field, field.default)] * count


def convert_column(field: Any, values: list[Any]) -> list[Any]:
    """The values as the driver takes them. Raises ``InvalidValue`` when one does not fit."""
    if isinstance(field, EncryptedField):
        return [checked(field, value) for value in values]
    kinds = set(map(type, values))
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is uuid.UUID and _is_written_by(_referred(field), UUIDField):
        return values
    if kind is int and _is_written_by(field, IntegerField):
        driver_value(field, min(values))
        driver_value(field, max(values))
        return values
    if kind is str and _is_written_by(field, TextField) and _are_texts(field, values):
        return values
    if kind in (str, int) or isinstance(kind, EnumMeta):
        converted = {value: driver_value(field, value) for value in set(values)}
        return list(map(converted.__getitem__, values))
    return [driver_value(field, value) for value in values]


def _referred(field: Any) -> Any:
    """The field that a reference leads to in the end, or the field itself."""
    while getattr(field, "rel_field", None) is not None:
        field = field.rel_field
    return field


def _writer(field: Any) -> Any:
    """What checks and converts values of a field: a class of one's own may have another."""
    kind: Any = field.__class__
    return getattr(kind, "to_database", None)


def _is_written_by(field: Any, kind: Any) -> bool:
    return _writer(field) is kind.to_database


def _are_texts(field: Any, values: list[str]) -> bool:
    """Whether all are texts that fit; a search for the one that does not is left to the field."""
    limit = field.max_length
    if limit is not None and max(map(len, values)) > limit:
        return False
    try:
        driver_value(TextField(), "".join(values))
    except InvalidValue:
        return False
    return True
