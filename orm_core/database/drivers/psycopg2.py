"""psycopg 2, the driver that is always there."""

from __future__ import annotations

# psycopg2's stubs describe another signature.
# pyright: basic, reportArgumentType=false
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

import psycopg2
from psycopg2 import Error, ProgrammingError, extensions, extras

from orm_core.database.decoding import read_json, uuid_of
from orm_core.database.prepared import Prepares

__all__ = ["NAME", "Connection", "Error", "ProgrammingError", "connect", "sqlstate"]

NAME: Final = "psycopg2"
#: oid of the type uuid (pg_type.dat of PostgreSQL)
_UUID_OID: Final = 2950


def _read_uuid(text: str | None, _: Any) -> uuid.UUID | None:
    return None if text is None else uuid_of(text)


_UUID = extensions.new_type((_UUID_OID,), "UUID", _read_uuid)


class Connection(Prepares, extensions.connection):  # type: ignore[misc]
    """A connection, and what is prepared on it."""

    was_cut = False
    is_limited = False

    def retire(self) -> None:
        """Left to its end, which closes it: a cursor keeps it, and can't be read once it is closed."""


def connect(params: Mapping[str, Any], *, prepare: bool) -> Connection:
    """A connection that reads UUIDs and JSON the fast way; others of the process do not."""
    connection: Connection = psycopg2.connect(**params, connection_factory=Connection)
    connection.autocommit = True
    extensions.register_type(_UUID, connection)
    if read_json is not json.loads:
        extras.register_default_json(connection, loads=read_json)
        extras.register_default_jsonb(connection, loads=read_json)
    if prepare:
        connection.prepare_statements()
    return connection


def sqlstate(error: Any) -> str | None:
    """The SQLSTATE of an error, None when it is not the server's."""
    state: str | None = error.pgcode
    return state
