"""What the studio reads of tables: pages of rows, one row, counts.

Everything goes through ``reader``, a database whose connections PostgreSQL keeps read-only and
whose statements it ends after some seconds. Secrets are not selected: of them the server answers
``IS NOT NULL``. Pages are found by keyset (see ``orm_core.queries.paging``), with NULLs as a part
of their own, so that a page is fast at any depth where the order has an index.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.database.database import Database
from orm_core.errors import InvalidValue, NotFound
from orm_core.studio.filters import View
from orm_core.studio.reader import reader_rows
from orm_core.studio.tables import Column, Table, Tables
from orm_core.studio.values import parse, plain

#: characters of a text or JSON that a page of rows shows
EXCERPT: Final = 160
#: characters of a text or JSON that a row's own page shows
WHOLE: Final = 100_000
#: tables of at most so many pages of 8 kB are counted, larger ones estimated
SMALL_PAGES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is shown: its key, its values by column, and whether it is deleted."""

    key: Any
    values: dict[Column, Any]
    is_deleted: bool
    version: str = ""

    def __getitem__(self, column: Column) -> Any:
        return self.values[column]

    @property
    def key_text(self) -> str:
        """The key as it stands in an address."""
        return plain(self.key)


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows a view has; ``exact`` or the planner's estimate."""

    rows: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """One page of a view's rows, and the cursors of its neighbours."""

    rows: list[Row]
    after: str | None
    before: str | None
    count: Count


@dataclass(frozen=True, slots=True)
class Size:
    """How large a table is; ``rows`` is -1 when it is large and the server never looked."""

    rows: int
    pages: int
    bytes: int


def sizes(reader: Database, tables: Tables) -> dict[str, Size]:
    """The sizes of the tables that are there, by name: estimated, small new ones counted."""
    sql = """
        SELECT t.name, c.reltuples::bigint, pg_relation_size(c.oid) / 8192,
               pg_total_relation_size(c.oid)
        FROM unnest(%s::text[], %s::text[]) AS t(name, place)
        JOIN pg_class AS c ON c.oid = to_regclass(t.place)
    """
    names = [table.name for table in tables]
    places = [_place(table) for table in tables]
    found = {name: Size(*rest) for name, *rest in reader.execute_sql(sql, (names, places))}
    for name, size in found.items():
        if size.rows < 0 and size.pages <= SMALL_PAGES:
            place = _place(tables[name]).replace("%", "%%")
            (rows,) = reader.execute_sql(f"SELECT count(*) FROM {place}").fetchone()
            found[name] = Size(rows, size.pages, size.bytes)
    return found


def _place(table: Table) -> str:
    meta = table.model._meta
    parts = [part for part in (meta.schema, meta.table_name) if part]
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


# -- pages ------------------------------------------------------------------------------------


def read_page(reader: Database, view: View, size: Size | None = None) -> Rows:
    """The rows of a view's page. Raises ``InvalidValue`` for a cursor of another order."""
    backwards = view.before is not None
    cursor = _decode(view, view.before or view.after)
    found: list[tuple[Any, ...]] = []
    for part in _parts(view, cursor, backwards=backwards):
        left = view.size + 1 - len(found)
        if left <= 0:
            break
        found += reader_rows(reader, part.limit(left))
    more, found = len(found) > view.size, found[: view.size]
    if backwards:
        found.reverse()
    rows = [_row(view.shown, one) for one in found]
    ends = [_encode(view, one) for one in (found[0], found[-1])] if found else [None, None]
    has_next = more if not backwards else bool(found)
    has_previous = more if backwards else cursor is not None and bool(found)
    whole = not has_next and not has_previous and cursor is None
    count = Count(len(rows), exact=True) if whole else count_rows(reader, view, size)
    return Rows(rows, ends[1] if has_next else None, ends[0] if has_previous else None, count)


def _query(view: View) -> Any:
    """The rows of a view, in no order: its columns, then key, sort value and deletion."""
    table = view.table
    selected = [expression.alias(f"c{place}") for place, expression in enumerate(_selected(view))]
    return filtered(table.model.select(*selected), view)


def filtered(query: Any, view: View) -> Any:
    """A query of a view's table with the view's conditions."""
    if view.deleted != "live":
        query = query.with_deleted() if view.deleted == "all" else query.only_deleted()
    conditions = list(view.predicates())
    return query.where(*conditions) if conditions else query


def _selected(view: View) -> Iterator[Any]:
    for column in view.shown:
        yield _expression(column, EXCERPT)
    yield view.table.key.field
    yield view.order.field
    yield _deletion(view.table)


def _expression(column: Column, length: int) -> Any:
    """What is selected of a column: of a secret only whether it is there, of a text the start."""
    if column.is_secret:
        return column.field.is_null(False)
    if column.kind in ("text", "json", "other") and column.target is None:
        return peewee.fn.left(column.field.cast("text"), length + 1)
    return column.field


def _deletion(table: Table) -> Any:
    return table.model.deleted_at.is_null(False) if table.is_soft else peewee.SQL("false")


def _row(columns: tuple[Column, ...], found: tuple[Any, ...]) -> Row:
    values = dict(zip(columns, found, strict=False))
    return Row(found[len(columns)], values, bool(found[len(columns) + 2]))


def _parts(view: View, cursor: tuple[Any, Any] | None, *, backwards: bool) -> Iterator[Any]:
    """The queries whose rows, one after the other, follow the cursor.

    PostgreSQL puts NULLs last, first in a descending order; they are a query of their own.
    """
    order, key = view.order.field, view.table.key.field
    down = view.descending != backwards
    query = _query(view)
    term = [key.desc() if down else key.asc()]
    if view.order is view.table.key:
        yield (query if cursor is None else query.where(_past(key, cursor[1], down))).order_by(
            *term
        )
        return
    both = [order.desc() if down else order.asc(), *term]
    filled, nulls = query.where(order.is_null(False)), query.where(order.is_null())
    parts = ["filled", "nulls"] if view.order.nullable else ["filled"]
    if down:
        parts.reverse()
    if cursor is not None:
        parts = parts[parts.index("nulls" if cursor[0] is None else "filled") :]
    for part in parts:
        rows = (nulls.order_by(*term) if part == "nulls" else (
            filled if view.order.nullable else query
        ).order_by(*both))  # fmt: skip
        if cursor is not None and part == parts[0]:
            rows = rows.where(
                _past(key, cursor[1], down)
                if cursor[0] is None
                else _past_both(order, key, cursor, down)
            )
        yield rows


def _past(field: Any, value: Any, down: bool) -> Any:
    return field < value if down else field > value


def _past_both(order: Any, key: Any, cursor: tuple[Any, Any], down: bool) -> Any:
    """After the cursor; the first condition alone lets the server start inside an index."""
    value, row = cursor
    from_here = order <= value if down else order >= value
    return from_here & (_past(order, value, down) | _past(key, row, down))


def _signature(view: View) -> str:
    return f"{'-' if view.descending else ''}{view.order.name}"


def _encode(view: View, found: tuple[Any, ...]) -> str:
    key, value = found[len(view.shown)], found[len(view.shown) + 1]
    texts = [_signature(view), None if value is None else plain(value), plain(key)]
    data = json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(view: View, cursor: str | None) -> tuple[Any, Any] | None:
    """The sort value and the key that a cursor stands for."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        signature, value, key = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
        if signature == _signature(view) and isinstance(key, str):
            read = None if value is None else parse(view.order, str(value))
            return read, parse(view.table.key, key)
    except (TypeError, ValueError, UnicodeError, RecursionError):
        pass
    raise InvalidValue("This page belongs to another order of the rows; go to the first page.")


# -- counts -----------------------------------------------------------------------------------


def count_rows(reader: Database, view: View, size: Size | None = None) -> Count:
    """How many rows a view has: counted where that is cheap or asked for, else estimated."""
    query = filtered(view.table.model.select(peewee.SQL("1")), view)
    if view.exact or (size is not None and size.pages <= SMALL_PAGES):
        counted = peewee.Select([query.alias("rows")], [peewee.fn.count(peewee.SQL("*"))])
        sql, params = view.table.model._meta.database.get_sql_context().sql(counted).query()
        return Count(int(reader.execute_sql(sql, params).fetchone()[0]), exact=True)
    sql, params = query.sql()
    plan = reader.execute_sql(f"EXPLAIN (FORMAT JSON) {sql}", params).fetchone()[0]
    return Count(int(plan[0]["Plan"]["Plan Rows"]), exact=False)


# -- one row ------------------------------------------------------------------------------------


def read_row(reader: Database, table: Table, key: str) -> Row:
    """A row, deleted or not, with its version. Raises ``NotFound``."""
    expressions = [_expression(column, WHOLE) for column in table.columns]
    selected = [
        expression.alias(f"c{place}")
        for place, expression in enumerate(
            [*expressions, table.key.field, table.key.field, _deletion(table), version_of(table)]
        )
    ]
    query = table.model.select(*selected).where(table.key.field == parse(table.key, key))
    query = query.with_deleted() if table.is_soft else query
    for found in reader_rows(reader, query):
        row = _row(table.columns, found)
        return Row(row.key, row.values, row.is_deleted, str(found[-1]))
    raise NotFound(f"No row of {table.name} has this key, live or deleted.")


def version_of(table: Table) -> Any:
    """What tells a row's versions apart: its model's own, else the server's.

    That is the transaction that wrote the row (PostgreSQL manual, "System Columns").
    """
    version = table.model._meta.version
    return peewee.SQL("xmin::text") if version is None else version.cast("text")
