"""How psycopg 3 writes values and reads columns on our connections: as psycopg 2 does.

``quote`` makes the literal of psycopg 2, with its cast. ``dump`` makes the same text without a type
(oid 0), which the server takes from the column, as it does for PREPARE. A column of a type that
psycopg 2 has no reader for is read as str. Only ranges are the driver's own class.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import psycopg
from psycopg import adapt, postgres
from psycopg.adapt import Dumper, Loader
from psycopg.types.string import TextLoader
from psycopg2 import Binary, extensions
from psycopg2.extras import Json

from orm_core.database.decoding import read_json, uuid_of

#: the server's words for what lies beyond Python's calendar, read as psycopg 2 does
_INFINITIES: Final = ("infinity", "-infinity")
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)


# -- values ---------------------------------------------------------------------------------


def _literal(text: Callable[[Any], str], cast: Callable[[Any], str]) -> type[Dumper]:
    """A quoted literal and its cast."""

    class Literal(Dumper):
        def dump(self, obj: Any) -> bytes:
            return text(obj).encode()

        def quote(self, obj: Any) -> bytes:
            return bytes(super().quote(obj)) + cast(obj).encode()

    return Literal


def _number(text: Callable[[Any], str], cast: str) -> type[Dumper]:
    """A bare number; what is none (NaN, Infinity) is a literal."""

    class Number(Dumper):
        def dump(self, obj: Any) -> bytes:
            return text(obj).encode()

        def quote(self, obj: Any) -> bytes:
            plain = text(obj)
            if plain[-1].isdigit() or plain[-1] == ".":
                return (" " + plain if plain[0] == "-" else plain).encode()
            return f"'{plain}'::{cast}".encode()

    return Number


def _interval(value: timedelta) -> str:
    return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"


class _Bool(Dumper):
    def dump(self, obj: bool) -> bytes:
        return b"t" if obj else b"f"

    def quote(self, obj: bool) -> bytes:
        return b"true" if obj else b"false"


class _Nested(Dumper):
    """Made of other values."""

    def __init__(self, cls: type, context: Any = None) -> None:
        super().__init__(cls, context)
        self._values = adapt.Transformer.from_context(context)

    def _quoted(self, items: Iterable[Any]) -> bytes:
        return b", ".join([bytes(self._values.as_literal(item)) for item in items])


class _List(_Nested):
    """``ARRAY[...]``, or the text of an array."""

    def dump(self, obj: list[Any]) -> bytes:
        return b"{" + b",".join([self._item(item) for item in obj]) + b"}"

    def _item(self, item: Any) -> bytes:
        if item is None:
            return b"NULL"
        found = self._values.get_dumper(item, adapt.PyFormat.TEXT).dump(item)
        text = bytes(found or b"")
        if isinstance(item, list):
            return text
        return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'

    def quote(self, obj: list[Any]) -> bytes:
        if all(item is None for item in obj):
            return b"'{" + b",".join([b"NULL"] * len(obj)) + b"}'"
        return b"ARRAY[" + self._quoted(obj) + b"]"


class _Tuple(_Nested):
    """``(1, 2)``, as IN wants it."""

    def dump(self, obj: tuple[Any, ...]) -> bytes:  # noqa: ARG002
        raise psycopg.ProgrammingError("a tuple is no value")

    def quote(self, obj: tuple[Any, ...]) -> bytes:
        return b"(" + self._quoted(obj) + b")"


class _Refused(Dumper):
    """A member of a plain Enum, which is no value that SQL has."""

    def dump(self, obj: Any) -> bytes:  # noqa: ARG002
        raise psycopg.ProgrammingError("can't adapt a member of an Enum")


class _Binary(Dumper):
    """What ``psycopg2.Binary`` wraps; Peewee's BlobField does it."""

    oid = postgres.types["bytea"].oid

    def dump(self, obj: Any) -> bytes:
        return b"\\x" + bytes(obj.adapted).hex().encode()


# -- columns --------------------------------------------------------------------------------


def _reader(read: Callable[[str], Any]) -> type[Loader]:
    class Reader(Loader):
        def load(self, data: Any) -> Any:
            return read(str(data, "utf-8"))

    return Reader


def _reader_of_times(kind: Any, most: Any, least: Any) -> type[Loader]:
    of_iso = kind.fromisoformat

    def read(text: str) -> Any:
        if text in _INFINITIES:
            return most if text == _INFINITIES[0] else least
        return of_iso(text)

    return _reader(read)


def _time(text: str) -> time:
    return time.fromisoformat(text.replace("24:", "00:", 1) if text.startswith("24:") else text)


class _Bytes(Loader):
    def load(self, data: Any) -> memoryview:
        return memoryview(psycopg.pq.Escaping().unescape_bytea(bytes(data)))


def _adapters() -> adapt.AdaptersMap:
    made = adapt.AdaptersMap(psycopg.adapters)
    for kind in psycopg.adapters.types:
        for oid in (kind.oid, kind.array_oid):
            if oid and oid not in extensions.string_types:
                made.register_loader(oid, TextLoader)
    readers: dict[str, type[Loader]] = {
        "bytea": _Bytes,
        "date": _reader_of_times(date, date.max, date.min),
        "json": _reader(read_json),
        "jsonb": _reader(read_json),
        "time": _reader(_time),
        "timestamp": _reader_of_times(datetime, datetime.max, datetime.min),
        "timestamptz": _reader_of_times(datetime, _LAST, _FIRST),
        "timetz": _reader(_time),
        "uuid": _reader(uuid_of),
    }
    for name, reader in readers.items():
        made.register_loader(name, reader)
    writers: dict[Any, type[Dumper]] = {
        Binary: _Binary,
        Enum: _Refused,
        Json: _literal(lambda value: str(value.dumps(value.adapted)), lambda _: ""),
        bool: _Bool,
        date: _literal(str, lambda _: "::date"),
        datetime: _literal(datetime.isoformat, lambda value: _with_zone("::timestamp", value)),
        Decimal: _number(str, "numeric"),
        float: _number(float.__repr__, "float"),
        int: _number(int.__repr__, "int"),
        list: _List,
        time: _literal(str, lambda value: _with_zone("::time", value)),
        timedelta: _literal(_interval, lambda _: "::interval"),
        tuple: _Tuple,
        uuid.UUID: _literal(str, lambda _: "::uuid"),
    }
    for kind_of, writer in writers.items():
        made.register_dumper(kind_of, writer)
    return made


def _with_zone(cast: str, value: Any) -> str:
    return f"{cast}tz" if value.tzinfo is not None else cast


ADAPTERS = _adapters()
