"""How UUIDs and JSON are read, by whatever driver, on our connections only."""

from __future__ import annotations

# orjson may be missing.
# pyright: basic, reportMissingImports=false
import json
import re
import uuid
from collections.abc import Callable
from typing import Any

_new = object.__new__
# UUID() parses, checks and guards its attributes, which is most of the cost of reading rows of
# ids; its two slots are all that it has.
_set_int = vars(uuid.UUID)["int"].__set__
_set_is_safe = vars(uuid.UUID)["is_safe"].__set__
_UNKNOWN = uuid.SafeUUID.unknown

#: orjson makes a float of an int that 64 bits can't hold
_LONG_NUMBER = re.compile(r"\d{19}")


def uuid_of_int(number: int) -> uuid.UUID:
    """The UUID with this number, of 128 bits."""
    made = _new(uuid.UUID)
    _set_int(made, number)
    _set_is_safe(made, _UNKNOWN)
    return made


def uuid_of(text: str) -> uuid.UUID:
    """The UUID of a text that the server wrote: 32 hex digits, with or without hyphens."""
    made = _new(uuid.UUID)  # as in uuid_of_int, whose call would cost as much as its work
    _set_int(made, int(text.replace("-", ""), 16))
    _set_is_safe(made, _UNKNOWN)
    return made


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
