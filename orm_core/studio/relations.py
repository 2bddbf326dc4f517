"""What rows have to do with rows of other tables: how many refer to one, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.database.database import Database
from orm_core.studio.explorer import Row
from orm_core.studio.reader import reader_rows
from orm_core.studio.tables import Column, Table, Tables
from orm_core.studio.values import plain

#: counts of related rows stop here
MANY: Final = 1_000
#: rows that a form suggests for a reference
CHOICES: Final = 50


@dataclass(frozen=True, slots=True)
class Related:
    """Rows of another table that refer to a row; ``count`` stops after ``MANY``."""

    table: Table
    column: Column
    count: int

    @property
    def is_more(self) -> bool:
        """Whether there are more than counted."""
        return self.count > MANY


def related_rows(reader: Database, tables: Tables, table: Table, row: Row) -> list[Related]:
    """Which tables refer to a row, with how many live rows."""
    found: list[Related] = []
    for other, column in tables.referring_to(table):
        field = column.field
        value = row.values.get(table.column(field.rel_field.name), row.key)
        query = other.model.select(peewee.SQL("1")).where(field == value)
        found.append(Related(other, column, len(reader_rows(reader, query.limit(MANY + 1)))))
    return found


def labels(reader: Database, tables: Tables, rows: list[Row], columns: Any) -> dict[Any, str]:
    """What the rows that these refer to are called, by (column, key); one query a column."""
    found: dict[Any, str] = {}
    for column in columns:
        target = tables.of(column.target) if column.target is not None else None
        telling = target.telling if target is not None else None
        if target is None or telling is None:
            continue
        keys = {row.values[column] for row in rows if row.values.get(column) is not None}
        if not keys:
            continue
        key = column.field.rel_field
        text = peewee.fn.left(telling.field, 60).alias("c1")
        query = target.model.select(key.alias("c0"), text).where(key.in_(list(keys)))
        query = query.with_deleted() if target.is_soft else query
        for one, name in reader_rows(reader, query):
            found[column, one] = name
    return found


def choices(reader: Database, tables: Tables, column: Column) -> list[tuple[str, str]]:
    """The newest rows that a reference may lead to: their keys and what they are called."""
    target = tables.of(column.target) if column.target is not None else None
    if target is None or target.telling is None:
        return []
    key = column.field.rel_field
    text = peewee.fn.left(target.telling.field, 60).alias("c1")
    query = target.model.select(key.alias("c0"), text).order_by(target.key.field.desc())
    return [(plain(one), name) for one, name in reader_rows(reader, query.limit(CHOICES))]
