"""INSERT of many rows: by COPY, or in one statement whose SQL is the same for any number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast
from uuid import UUID

from orm_core.models.batches import (
    Column,
    new_columns,
    quoted,
    returning,
    table_of,
    unnested,
)
from orm_core.models.copying import copy_rows, types_to_copy
from orm_core.models.fields import UUIDField
from orm_core.models.owners import writing
from orm_core.models.payloads import read_new

Returning: TypeAlias = Literal["rows", "ids"]

#: rows from which COPY saves more than its two round trips more cost (docs/queries.md)
COPY_FROM: Final = 1000


def insert_rows(
    model: Any, payloads: Sequence[Mapping[str, Any]], answer: Returning = "rows"
) -> list[Any]:
    """Insert rows, all or none; answers them, or their ids, in the same order.

    Raises ``InvalidValue``, ``UnknownField`` or ``MissingField`` before any SQL.
    """
    with writing(model):
        return _written(model, payloads, answer)


def _written(model: Any, payloads: Sequence[Mapping[str, Any]], answer: Returning) -> list[Any]:
    columns = new_columns(model, payloads)
    if columns is None or not all(column.has_text for column in columns):
        return _one_by_one(model, payloads, answer)
    if len(payloads) >= COPY_FROM and _can_copy(model, columns, answer):
        types = types_to_copy(model)
        if types is not None:
            copy_rows(model, columns, types)
            return _as_stored(model, columns, len(payloads), answer)
    return _insert(model, columns, answer)


def _can_copy(model: Any, columns: Sequence[Column], answer: Returning) -> bool:
    """Whether what is to be answered is known here, as COPY answers nothing."""
    given = {column.field: column for column in columns}
    if answer == "ids":
        key = given.get(model._meta.primary_key)
        return key is not None and key.echoes
    return model.select().row_maker() is not None and all(
        given[field].echoes if field in given else _stays_empty(field)
        for field in model._meta.sorted_fields
    )


def _stays_empty(field: Any) -> bool:
    filled = getattr(field, "server_default_sql", None) or getattr(field, "generated", None)
    return field.null and filled is None


def _as_stored(model: Any, columns: Sequence[Column], count: int, answer: Returning) -> list[Any]:
    if answer == "ids":
        return next(_as_read(column) for column in columns if column.field.primary_key)
    given = {column.field: column.values for column in columns}
    values = [given.get(field) or [None] * count for field in model._meta.sorted_fields]
    make = model.select().row_maker()
    rows: list[Any] = make(zip(*values, strict=True))
    return rows


_READ_UUID: Final = cast("Any", UUIDField).python_value


def _as_read(column: Column) -> list[Any]:
    read = column.field.python_value
    if column.kind is UUID and getattr(read, "__func__", None) is _READ_UUID:
        return list(column.values)
    return list(map(read, column.values))


def _insert(model: Any, columns: Sequence[Column], answer: Returning) -> list[Any]:
    fields = [column.field for column in columns]
    source, selected = unnested(fields, "new")
    names = ", ".join(quoted(field.column_name) for field in fields)
    key = model._meta.primary_key
    sql = (
        f"INSERT INTO {table_of(model)} ({names}) SELECT {', '.join(selected)} FROM {source} "
        f"{returning(model, [key] if answer == 'ids' else None, alone=True)}"
    )
    cursor = model._meta.database.execute_sql(sql, [column.array() for column in columns])
    if answer == "ids":
        return [key.python_value(value) for (value,) in cursor.fetchall()]
    return answered(model, cursor)


def answered(model: Any, cursor: Any) -> list[Any]:
    """The rows that a statement with ``returning(model)`` answered."""
    return list(model.select()._get_cursor_wrapper(cursor))


def _one_by_one(model: Any, payloads: Sequence[Mapping[str, Any]], answer: Returning) -> list[Any]:
    """The INSERT of Peewee: it knows DEFAULT, and any type that the driver does."""
    values = [read_new(model, payload) for payload in payloads]
    query = model.insert_many(values)
    rows = list(query.returning(model).execute())
    return [row._pk for row in rows] if answer == "ids" else rows
