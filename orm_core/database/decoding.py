"""How UUIDs and JSON are read, by whatever driver, on our connections only."""

from __future__ import annotations

# orjson may be missing.
# pyright: basic, reportMissingImports=false
import json
import re
import uuid
from collections.abc import Callable
from typing import Any

_UNKNOWN = uuid.SafeUUID.unknown


class _Unguarded(uuid.UUID):
    """A UUID until its two slots, which are all that it has, are filled.

    ``UUID()`` parses, checks and guards its attributes, most of the cost of reading rows of ids.
    """

    __slots__ = ()
    __init__ = object.__init__  # pyright: ignore[reportAssignmentType]
    __setattr__ = object.__setattr__  # type: ignore[assignment]


#: orjson makes a float of an int that 64 bits can't hold
_LONG_NUMBER = re.compile(r"\d{19}")


def uuid_of_int(number: int) -> uuid.UUID:
    """The UUID with this number, of 128 bits."""
    made: Any = _Unguarded()
    made.int = number
    made.is_safe = _UNKNOWN
    made.__class__ = uuid.UUID
    return made  # type: ignore[no-any-return]


def uuid_of(text: str) -> uuid.UUID:
    """The UUID of a text that the server wrote: 32 hex digits, with or without hyphens."""
    made: Any = _Unguarded()  # as in uuid_of_int, whose call would cost as much as its work
    made.int = int(text.replace("-", ""), 16)
    made.is_safe = _UNKNOWN
    made.__class__ = uuid.UUID
    return made  # type: ignore[no-any-return]


def _json_reader() -> Callable[[str], Any]:
    try:
        import orjson
    except ImportError:
        return json.loads

    def loads(text: str) -> Any:
        if _LONG_NUMBER.search(text) is None:
            try:
                return orjson.loads(text)
            except orjson.JSONDecodeError:
                pass  # of the type json, which keeps what was written: 1e999, a lone surrogate
        return json.loads(text)

    return loads


#: a JSON text as Python's values; by orjson where that is installed
read_json: Callable[[str], Any] = _json_reader()
