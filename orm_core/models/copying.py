"""COPY: the fastest way of many rows into a table, as one statement that holds or not at all.

In the binary format where the table's columns have just the types that it was written for, which
spares the server a third of its work; else as text, which the server converts.
"""

from __future__ import annotations

import math
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import chain, islice, repeat
from operator import attrgetter, is_
from typing import Any, Final, TypeAlias

from psycopg2.extras import Json

from orm_core.database import acting, limits
from orm_core.models.batches import Column, quoted, table_of
from orm_core.models.sealed_parts import SealedText

#: makes fields of the values of a column
Write: TypeAlias = Callable[[Iterable[Any]], Iterable[bytes]]

#: rows that are written in one piece of the stream
_ROWS: Final = 1000
#: COPY has no RETURNING, passes by rules and can't write through row security; what a trigger
#: changes or leaves out would go unseen
_TABLE: Final = """
SELECT c.relkind = 'r' AND NOT c.relhasrules AND NOT c.relrowsecurity AND NOT EXISTS (
         SELECT FROM pg_catalog.pg_trigger t
          WHERE t.tgrelid = c.oid AND t.tgtype & 7 = 7 AND t.tgenabled <> 'D'),
       current_setting('client_encoding') = 'UTF8',
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 ORDER BY a.attnum),
       ARRAY(SELECT CASE WHEN t.typtype = 'e' THEN 'enum'
                         WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text
                         ELSE '' END
               FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = c.oid AND a.attnum > 0 ORDER BY a.attnum)
  FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"""


def types_to_copy(model: Any) -> Mapping[str, str] | None:
    """The types of the table's columns by their names; None where COPY may not write.

    It may where the table takes rows as they are: no trigger before, rule or row security. There
    are no types where the binary format can't be used.
    """
    name = table_of(model).replace("%%", "%")
    row = model._meta.database.execute_sql(_TABLE, (name,)).fetchone()
    if row is None or not row[0]:
        return None
    return dict(zip(row[2], row[3], strict=True)) if row[1] else {}


def copy_rows(model: Any, columns: Sequence[Column], types: Mapping[str, str]) -> None:
    """Write the rows; ``types`` are those of the table. Raises what an INSERT of them would."""
    names = ", ".join(quoted(one.field.column_name) for one in columns)
    fields = _fields(columns, types)
    pieces = _text(columns) if fields is None else _binary(fields)
    how = "" if fields is None else " (FORMAT binary)"
    sql = f"COPY {table_of(model)} ({names}) FROM STDIN{how}".replace("%%", "%")
    database = model._meta.database
    # COPY takes no other statement along: who acts is told in a transaction around it.
    told = database.audited and acting.is_named()
    with database.atomic() if told else database.connection_context():
        database.connect(reuse_if_open=True)
        if limits.deadline() == math.inf:
            database._run(lambda: _Copying(database.cursor(), pieces), sql, None)
            return
        with database.atomic():
            database.statement("SELECT 1")  # takes the limit to the server; COPY can't
            database._run(lambda: _Copying(database.cursor(), pieces), sql, None)


class _Copying:
    """A cursor whose ``execute`` is a COPY, which is sent and told like any other statement."""

    def __init__(self, cursor: Any, pieces: Iterator[str] | Iterator[bytes]) -> None:
        self._cursor = cursor
        self.connection = cursor.connection
        self._pieces = pieces

    def execute(self, sql: str, _: Any) -> None:
        self._cursor.copy_expert(sql, self)

    def read(self, _: int) -> str | bytes:
        """The next piece of the data, for the driver; empty at the end."""
        return next(self._pieces, b"")


def _text(columns: Sequence[Column]) -> Iterator[str]:
    lines = map("\t".join, zip(*(one.copied() for one in columns), strict=True))
    while piece := "".join(f"{line}\n" for line in islice(lines, _ROWS)):
        yield piece


# -- the binary format (PostgreSQL manual, COPY, "Binary Format") ---------------------------------

_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_count: Final = struct.Struct("!h").pack
_length: Final = struct.Struct("!i").pack


def _fields(columns: Sequence[Column], types: Mapping[str, str]) -> list[list[bytes]] | None:
    """The columns in binary; None where they have to go as text, which the server may refuse."""
    fields: list[list[bytes]] = []
    for column in columns:
        write = _WRITERS.get((types.get(column.field.column_name, ""), column.kind))
        if write is None:
            return None
        try:
            fields.append(_written(column, write))
        except (struct.error, ValueError):
            return None
    return fields


def _binary(fields: Sequence[list[bytes]]) -> Iterator[bytes]:
    rows = zip(repeat(_count(len(fields))), *fields, strict=False)
    yield _BEGIN
    while piece := b"".join(chain.from_iterable(islice(rows, _ROWS))):
        yield piece
    yield _END


def _written(column: Column, write: Write) -> list[bytes]:
    values = column.values
    if column.has_null:
        written = iter(write(value for value in values if value is not None))
        return [_NULL if value is None else next(written) for value in values]
    if all(map(is_, values, repeat(values[0]))):  # a parent's id, the moment of the statement
        return [*write(values[:1])] * len(values)
    return list(write(values))


def _sized(data: bytes) -> bytes:
    return _length(len(data)) + data


def _fixed(code: str) -> Write:
    """The length, which is always the same, and the value."""
    pack, size = struct.Struct(f"!i{code}").pack, struct.calcsize(f"!{code}")
    return lambda values: map(pack, repeat(size), values)


_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_micros: Final = _fixed("q")
_days: Final = _fixed("i")
_sixteen: Final = _fixed("16s")


def _words(values: Iterable[str]) -> Iterable[bytes]:
    return map(_sized, map(str.encode, values))


def _moments(values: Iterable[datetime]) -> Iterable[bytes]:
    return _micros((value - _EPOCH) // _MICROSECOND for value in values)


def _dates(values: Iterable[date]) -> Iterable[bytes]:
    return _days(value.toordinal() - _EPOCH.toordinal() for value in values)


def _jsons(values: Iterable[Json]) -> Iterable[bytes]:
    return (_sized(b"\1" + value.dumps(value.adapted).encode()) for value in values)


def _uuids(values: Iterable[uuid.UUID]) -> Iterable[bytes]:
    return _sixteen(map(int.to_bytes, map(attrgetter("int"), values), repeat(16)))


def _uuid_texts(values: Iterable[str]) -> Iterable[bytes]:
    return (_sized(bytes.fromhex(value.replace("-", ""))) for value in values)


#: fields, the length in front of each, by the type of the column and by that of all its values
_WRITERS: Final[dict[tuple[str, type], Write]] = {
    ("bool", bool): _fixed("?"),
    ("date", date): _dates,
    ("enum", str): _words,
    ("float8", float): _fixed("d"),
    ("int2", int): _fixed("h"),
    ("int4", int): _fixed("i"),
    ("int8", int): _fixed("q"),
    ("jsonb", Json): _jsons,
    ("text", str): _words,
    ("timestamptz", datetime): _moments,
    ("uuid", str): _uuid_texts,
    ("uuid", uuid.UUID): _uuids,
    ("varchar", SealedText): _words,
    ("varchar", str): _words,
}
