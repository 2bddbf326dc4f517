"""Values a new row gets in Python: its id and its times."""

from __future__ import annotations

import os
import struct
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from orm_core.database.decoding import uuid_of_int

_VERSION: Final = 7 << 12
_VARIANT: Final = 1 << 63
#: each byte with the variant for its two upper bits
_WITH_VARIANT: Final = bytes(0x80 | byte & 0x3F for byte in range(256))
_pack = struct.Struct("!QQ").pack
_unpack = struct.Struct("!Q").unpack


def utcnow() -> datetime:
    """The time now, aware, in UTC, to the microsecond that PostgreSQL keeps."""
    return datetime.now(UTC)


#: the last second that was written as text, and its text, which wants the microseconds; replaced as
#: a whole, so threads may share it
_second: tuple[int, str] = (0, "")


def utcnow_text() -> str:
    """The time now as PostgreSQL writes it, which costs driver and server less than a ``datetime``."""
    global _second
    now, micros = divmod(time.time_ns() // 1000, 1_000_000)
    second, text = _second
    if second != now:
        text = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S.%%06d+00")
        _second = now, text
    return text % micros


def uuid7() -> uuid.UUID:
    """A version 7 UUID: 48 bits of Unix time in ms, 12 of the fraction, 62 random ones.

    New ids sort by time, which keeps the primary key's index local (RFC 9562, 5.7 and 6.2,
    method 3). No state, so threads and forks need no care.
    """
    return uuid_of_int(int.from_bytes(_uuid7()))


def uuid7_text() -> str:
    """The text of a new version 7 UUID, as the driver takes it."""
    return _uuid7().hex()


def _uuid7() -> bytes:
    ms, rest = divmod(time.time_ns(), 1_000_000)
    first = ms << 16 | _VERSION | (rest << 12) // 1_000_000
    return _pack(first, _VARIANT | _unpack(os.urandom(8))[0] >> 2)


def uuid7s(count: int) -> list[uuid.UUID]:
    """Version 7 UUIDs that sort in this order: from the first on, the fraction counts up."""
    firsts = chain.from_iterable(_first_halves((time.time_ns() << 12) // 1_000_000, count))
    random = bytearray(os.urandom(8 * count))
    random[::8] = random[::8].translate(_WITH_VARIANT)
    seconds = struct.unpack(f"!{count}Q", random)
    return [
        uuid_of_int(first << 64 | second) for first, second in zip(firsts, seconds, strict=True)
    ]


def _first_halves(ticks: int, count: int) -> Iterator[range]:
    """``count`` of them from a time on, which is given in 4096ths of a millisecond."""
    end = ticks + count
    while ticks < end:
        ms, fraction = divmod(ticks, 4096)
        some = min(4096 - fraction, end - ticks)
        first = ms << 16 | _VERSION | fraction
        yield range(first, first + some)
        ticks += some
