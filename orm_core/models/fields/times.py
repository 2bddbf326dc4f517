"""Columns of days and moments."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Literal, Unpack, overload

from orm_core import peewee_facade as peewee
from orm_core.models.columns import (
    CheckedField,
    G,
    Options,
)


class DateField(CheckedField[date, G], peewee.DateField):
    """``date``: a ``datetime.date``."""

    expected = "a date (not a datetime)"

    @overload
    def __init__(
        self: DateField[date], *, null: Literal[False] = False, **options: Unpack[Options[date]]
    ) -> None: ...
    @overload
    def __init__(
        self: DateField[date | None], *, null: Literal[True], **options: Unpack[Options[date]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> date:
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.refuse()
        return value


class DateTimeField(CheckedField[datetime, G], peewee.DateTimeField):
    """``timestamptz``: an aware datetime, stored and read as UTC; naive ones are refused."""

    refuses_sql = True
    field_type = "TIMESTAMPTZ"
    expected = "an aware datetime, e.g. datetime.now(UTC); a naive one names no moment"

    @overload
    def __init__(
        self: DateTimeField[datetime],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[datetime]],
    ) -> None: ...
    @overload
    def __init__(
        self: DateTimeField[datetime | None],
        *,
        null: Literal[True],
        **options: Unpack[Options[datetime]],
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> datetime:
        if not isinstance(value, datetime) or value.utcoffset() is None:
            raise self.refuse()
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise self.refuse("a datetime that exists in UTC") from None

    def python_value(self, value: Any) -> Any:
        return value.astimezone(UTC) if isinstance(value, datetime) else value
