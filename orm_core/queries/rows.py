"""Running a query for its rows."""

from __future__ import annotations

from typing import Any


def returned(query: Any) -> list[Any]:
    """Execute a write and answer the rows it touched, as the server stored them."""
    return list(query.returning(query.model).execute())


def first_returned(query: Any) -> Any:
    """The one row that a write touched, or None."""
    return next(iter(returned(query)), None)
