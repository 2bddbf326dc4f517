"""psycopg 2, the driver that is always there."""

from __future__ import annotations

# psycopg2's stubs describe another signature.
# pyright: basic, reportArgumentType=false
import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import psycopg2
from psycopg2 import Error, ProgrammingError, extensions, extras

from orm_core.database.decoding import read_json, uuid_of
from orm_core.database.drivers.session import Session

__all__ = ["NAME", "Connection", "Error", "ProgrammingError", "connect", "sqlstate"]

NAME: Final = "psycopg2"
#: oids of the types uuid and timestamptz (pg_type.dat of PostgreSQL)
_UUID_OID: Final = 2950
_MOMENT_OID: Final = 1184

_of_iso = datetime.fromisoformat


def _read_uuid(text: str | None, _: Any) -> uuid.UUID | None:
    return None if text is None else uuid_of(text)


def _read_moment(text: str | None, cursor: Any) -> datetime | None:
    if text is None:
        return None
    try:
        return _of_iso(text)  # half the cost of the driver's reader
    except ValueError:  # infinity, a year before Christ, a session with a DateStyle of its own
        moment: datetime = extensions.PYDATETIMETZ(text, cursor)
        return moment


_UUID = extensions.new_type((_UUID_OID,), "UUID", _read_uuid)
_MOMENT = extensions.new_type((_MOMENT_OID,), "TIMESTAMPTZ", _read_moment)


class Connection(Session, extensions.connection):  # type: ignore[misc]
    """A connection, and what is prepared on it."""

    # Of a class that C wrote, an attribute in the dict costs four times as much as one in a slot.
    __slots__ = Session.STATE

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in Session.STATE:
            setattr(self, name, getattr(Session, name))

    def retire(self) -> None:
        """Left to its end, which closes it: a cursor keeps it, and can't be read once it is closed."""


def connect(params: Mapping[str, Any], *, prepare: bool) -> Connection:
    """A connection that reads UUIDs, times and JSON the fast way; others of the process do not."""
    connection: Connection = psycopg2.connect(**params, connection_factory=Connection)
    connection.autocommit = True
    extensions.register_type(_UUID, connection)
    extensions.register_type(_MOMENT, connection)
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
