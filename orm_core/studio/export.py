"""A view's rows as CSV, JSON or SQL, sent while they are read.

Secrets have no place in an export. Rows come through a cursor on the server, so neither side
holds them all. CSV is RFC 4180 with NULL as nothing and the empty text as ``""``, as COPY has it.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, Final, cast

from orm_core.database.database import Database
from orm_core.errors import InvalidValue
from orm_core.studio.explorer import filtered
from orm_core.studio.filters import View
from orm_core.studio.tables import Column
from orm_core.studio.values import plain

#: format -> what a browser is told of it
FORMATS: Final = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "sql": "application/sql; charset=utf-8",
}
MAX_ROWS: Final = 2_000_000
BATCH: Final = 2_000


def check(kind: str) -> None:
    """Raise ``InvalidValue`` for a format that there is not."""
    if kind not in FORMATS:
        raise InvalidValue(f"Rows can be exported as {', '.join(FORMATS)}.")


def columns_of(view: View) -> tuple[Column, ...]:
    """The columns that are exported: those shown, without secrets."""
    return tuple(column for column in view.shown if not column.is_secret)


def export(reader: Database, view: View, kind: str) -> Generator[str, None, None]:
    """The text of all rows of a view, in its order, at most ``MAX_ROWS``, in large pieces."""
    columns = columns_of(view)
    rows = _read(reader, view, columns)
    if kind == "csv":
        lines = _csv(columns, rows)
    elif kind == "json":
        lines = _json(columns, rows)
    else:
        lines = _sql(view, columns, rows)
    with closing(rows):
        while piece := "".join(islice(lines, BATCH)):
            yield piece


def _read(
    reader: Database, view: View, columns: tuple[Column, ...]
) -> Generator[list[Any], None, None]:
    order, key = view.order.field, view.table.key.field
    terms = [order] if view.order is view.table.key else [order, key]
    query = filtered(view.table.model.select(*[column.field for column in columns]), view)
    query = query.order_by(*(term.desc() if view.descending else term.asc() for term in terms))
    sql, params = query.limit(MAX_ROWS).sql()
    readers = [column.field.python_value for column in columns]
    with reader.atomic("repeatable read", read_only=True):
        reader.execute_sql(f"DECLARE export NO SCROLL CURSOR FOR {sql}", params)
        while batch := reader.execute_sql(f"FETCH {BATCH} FROM export").fetchall():
            for row in batch:
                yield [
                    value if value is None else read(value)
                    for read, value in zip(readers, row, strict=True)
                ]


def _csv(columns: tuple[Column, ...], rows: Iterable[list[Any]]) -> Iterator[str]:
    yield ",".join(_cell(column.name) for column in columns) + "\r\n"
    for row in rows:
        yield ",".join("" if value is None else _cell(plain(value)) for value in row) + "\r\n"


def _cell(text: str) -> str:
    if text and not any(sign in text for sign in ',"\r\n') and text.strip() == text:
        return text
    return '"' + text.replace('"', '""') + '"'


def _json(columns: tuple[Column, ...], rows: Iterable[list[Any]]) -> Iterator[str]:
    names = [column.name for column in columns]
    before = "[\n"
    for row in rows:
        yield before + json.dumps(
            {name: _jsonable(value) for name, value in zip(names, row, strict=True)},
            ensure_ascii=False,
        )
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | dict):
        return cast("Any", value)
    if isinstance(value, list):
        return [_jsonable(one) for one in cast("list[Any]", value)]
    return plain(value)


def _sql(view: View, columns: tuple[Column, ...], rows: Iterable[list[Any]]) -> Iterator[str]:
    meta = view.table.model._meta
    parts = [part for part in (meta.schema, meta.table_name) if part]
    table = ".".join(map(_quoted, parts))
    left_out = [column.name for column in view.shown if column.is_secret]
    if left_out:
        yield f"-- Left out, as they are secret: {', '.join(left_out)}\n"
    names = ", ".join(_quoted(column.name) for column in columns)
    for row in rows:
        values = ", ".join(
            _literal(column, value) for column, value in zip(columns, row, strict=True)
        )
        yield f"INSERT INTO {table} ({names}) VALUES ({values});\n"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(column: Column, value: Any) -> str:
    if value is None:
        return "NULL"
    if column.kind in ("integer", "float", "decimal", "boolean"):
        return plain(value)
    text = column.field.db_value(value) if column.kind == "array" else plain(value)
    # with standard_conforming_strings, which is on since PostgreSQL 9.1
    return "'" + str(text).replace("'", "''") + "'"
