"""How the driver reads UUIDs and JSON on our connections, and on no others of the process."""

from __future__ import annotations

# psycopg2's stubs describe another signature, and orjson may be missing.
# pyright: basic, reportMissingImports=false, reportArgumentType=false
import json
import re
import uuid
from collections.abc import Callable
from typing import Any, Final

from psycopg2 import extensions, extras

#: oid of the type uuid (pg_type.dat of PostgreSQL)
_UUID_OID: Final = 2950

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
    return uuid_of_int(int(text.replace("-", ""), 16))


def _read_uuid(text: str | None, _: Any) -> uuid.UUID | None:
    return None if text is None else uuid_of_int(int(text.replace("-", ""), 16))


_UUID = extensions.new_type((_UUID_OID,), "UUID", _read_uuid)


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


_read_json = _json_reader()


def set_up(connection: Any) -> None:
    """Read UUIDs and JSON the fast way on this connection; JSON by orjson where it is there."""
    extensions.register_type(_UUID, connection)
    if _read_json is not json.loads:
        extras.register_default_json(connection, loads=_read_json)
        extras.register_default_jsonb(connection, loads=_read_json)
