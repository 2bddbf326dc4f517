"""The column of optimistic locking."""

from __future__ import annotations

from typing import Any

from orm_core.models.fields.numbers import IntegerField


class VersionField(IntegerField[int]):
    """``integer``: counts the changes of a row from 1; a write of a stale row is refused.

    ``version = VersionField()``, one in a model. Every UPDATE through the model adds one. A write
    of a row that somebody changed since it was read raises ``StaleRow``. Nobody sets it by hand.
    """

    def __init__(self, *, column_name: str | None = None, comment: str | None = None) -> None:
        options: dict[str, Any] = {"column_name": column_name, "comment": comment}
        super().__init__(default=1, **options)
