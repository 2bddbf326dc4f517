"""Columns of UUIDs, and of types that have no field of their own."""

from __future__ import annotations

import re
import uuid
from typing import Any, Literal, Unpack, overload

from orm_core import peewee_facade as peewee
from orm_core.database.decoding import uuid_of
from orm_core.database.encoding import uuid_text
from orm_core.models.columns import (
    CheckedField,
    G,
    Options,
)

#: as the server writes it
_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch
#: with all hyphens or with none
_UUID = re.compile(
    r"([0-9a-f]{8})(-?)([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{12})", re.IGNORECASE
)


class UUIDField(CheckedField[uuid.UUID, G], peewee.UUIDField):
    """``uuid``: a ``uuid.UUID``, or its text in 32 or 36 characters."""

    refuses_sql = True
    expected = "a UUID or its text (32 hex digits, with or without hyphens)"

    @overload
    def __init__(
        self: UUIDField[uuid.UUID],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[uuid.UUID]],
    ) -> None: ...
    @overload
    def __init__(
        self: UUIDField[uuid.UUID | None],
        *,
        null: Literal[True],
        **options: Unpack[Options[uuid.UUID]],
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> str:
        if isinstance(value, uuid.UUID):
            return uuid_text(value)
        if isinstance(value, str):
            if _CANONICAL(value):
                return str.__str__(value)
            if match := _UUID.fullmatch(value):
                return "-".join(match.group(1, 3, 4, 5, 6)).lower()
        raise self.refuse()

    def python_value(self, value: Any) -> Any:
        return uuid_of(value) if isinstance(value, str) else value


class OtherField(CheckedField[Any, Any]):
    """A column of any other SQL type, as in ``OtherField("inet")``; values pass as they are."""

    def __init__(self, sql_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.field_type = sql_type
