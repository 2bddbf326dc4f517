"""Values a new row gets in Python: its id and its times."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime


def utcnow() -> datetime:
    """The time now, aware, in UTC, to the microsecond that PostgreSQL keeps."""
    return datetime.now(UTC)


def uuid7() -> uuid.UUID:
    """A version 7 UUID: 48 bits of Unix time in ms, 12 of the fraction, 62 random ones.

    New ids sort by time, which keeps the primary key's index local (RFC 9562, 5.7 and 6.2,
    method 3). No state, so threads and forks need no care.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = (rest << 12) // 1_000_000
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return _uuid(milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random)


_new = object.__new__
# UUID() parses, checks and guards its attributes, which is most of the cost of reading rows of
# ids; its two slots are all that it has.
_set_int = vars(uuid.UUID)["int"].__set__
_set_is_safe = vars(uuid.UUID)["is_safe"].__set__
_UNKNOWN = uuid.SafeUUID.unknown


def uuid_of(text: str) -> uuid.UUID:
    """The UUID of a text that the server wrote: 32 hex digits, with or without hyphens."""
    return _uuid(int(text.replace("-", ""), 16))


def _uuid(number: int) -> uuid.UUID:
    made = _new(uuid.UUID)
    _set_int(made, number)
    _set_is_safe(made, _UNKNOWN)
    return made
