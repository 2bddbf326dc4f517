"""Values a new row gets in Python: its id and its times."""

from __future__ import annotations

import os
import struct
import time
import uuid
from datetime import UTC, datetime

from orm_core.database.decoding import uuid_of_int


def utcnow() -> datetime:
    """The time now, aware, in UTC, to the microsecond that PostgreSQL keeps."""
    return datetime.now(UTC)


def utcnow_text() -> str:
    """The time now in ISO 8601, which costs the driver less than a ``datetime``."""
    return datetime.now(UTC).isoformat()


def uuid7() -> uuid.UUID:
    """A version 7 UUID: 48 bits of Unix time in ms, 12 of the fraction, 62 random ones.

    New ids sort by time, which keeps the primary key's index local (RFC 9562, 5.7 and 6.2,
    method 3). No state, so threads and forks need no care.
    """
    return uuid_of_int(_uuid7_number())


def _uuid7_number() -> int:
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = (rest << 12) // 1_000_000
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random


def uuid7_text() -> str:
    """The text of a new version 7 UUID, as the driver takes it."""
    digits = f"{_uuid7_number():032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def uuid7s(count: int) -> list[uuid.UUID]:
    """Version 7 UUIDs that sort in this order: from the first on, the fraction counts up."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    ticks = (milliseconds << 12) + (rest << 12) // 1_000_000
    random = struct.unpack(f"{count}Q", os.urandom(8 * count))
    return [
        uuid_of_int((one >> 12) << 80 | 7 << 76 | (one & 0xFFF) << 64 | 2 << 62 | bits >> 2)
        for one, bits in enumerate(random, start=ticks)
    ]
