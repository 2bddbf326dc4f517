"""Values a new row gets in Python: its id and its times."""

from __future__ import annotations

import itertools
import os
import struct
import time
import uuid
from datetime import UTC, datetime

from orm_core.database.decoding import uuid_of_int

_random = struct.Struct("Q").unpack


def utcnow() -> datetime:
    """The time now, aware, in UTC, to the microsecond that PostgreSQL keeps."""
    return datetime.now(UTC)


#: the last second that was written as text, and its text; replaced as a whole, so threads may share
_second: tuple[int, str] = (0, "")


def utcnow_text() -> str:
    """The time now in ISO 8601, which costs the driver less than a ``datetime``."""
    global _second
    now, fraction = divmod(time.time_ns(), 1_000_000_000)
    second, text = _second
    if second != now:
        text = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second = now, text
    return f"{text}.{fraction // 1000:06}+00:00"


def uuid7() -> uuid.UUID:
    """A version 7 UUID: 48 bits of Unix time in ms, 12 of the fraction, 62 random ones.

    New ids sort by time, which keeps the primary key's index local (RFC 9562, 5.7 and 6.2,
    method 3). No state, so threads and forks need no care.
    """
    return uuid_of_int(_number(_ticks(), _random(os.urandom(8))[0]))


def uuid7_text() -> str:
    """The text of a new version 7 UUID, as the driver takes it."""
    return f"{_number(_ticks(), _random(os.urandom(8))[0]):032x}"


def _ticks() -> int:
    """The time now: milliseconds, and 12 bits of their fraction."""
    return (time.time_ns() << 12) // 1_000_000


def _number(ticks: int, random: int) -> int:
    """The number of a UUID, of 64 random bits of which 62 are taken."""
    return ((ticks >> 12) << 16 | 7 << 12 | ticks & 0xFFF) << 64 | 1 << 63 | random >> 2


def uuid7s(count: int) -> list[uuid.UUID]:
    """Version 7 UUIDs that sort in this order: from the first on, the fraction counts up."""
    random = struct.unpack(f"{count}Q", os.urandom(8 * count))
    return list(map(uuid_of_int, map(_number, itertools.count(_ticks()), random)))
