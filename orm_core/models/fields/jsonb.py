"""Columns of JSON."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar, Unpack, cast, overload

from psycopg2.extras import Json

from orm_core import peewee_facade as peewee
from orm_core.models.columns import (
    CheckedField,
    G,
    Options,
    V,
    is_sql,
    quote_literal,
)
from orm_core.models.fields.text import is_utf8

Held = TypeVar("Held")


class JSONField(CheckedField[V, G], peewee.JSONField):
    """``jsonb``: dicts, lists, str, int, finite float, bool; no NaN, no NUL, str keys only.

    ``JSONField(dict[str, str])`` declares what checkers and generated types take the values for;
    the values themselves are checked to be JSON, no more.

    Assign a new value to change one: what is changed inside a dict or list of a loaded row is not
    seen by ``save()``. jsonb keeps numbers as numeric, so a float of 1e16 or more comes back as an
    int.
    """

    expected = "JSON: dicts with str keys, lists, str, numbers (no NaN), bool or None"

    @overload
    def __init__(
        self: JSONField[Any, Any], *, null: bool = False, **options: Unpack[Options[Any]]
    ) -> None: ...
    @overload
    def __init__(
        self: JSONField[Held, Held],
        holds: type[Held],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[Any]],
    ) -> None: ...
    @overload
    def __init__(
        self: JSONField[Held, Held | None],
        holds: type[Held],
        *,
        null: Literal[True],
        **options: Unpack[Options[Any]],
    ) -> None: ...
    def __init__(self, holds: Any = Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.holds = holds
        self.copy_default()

    def literal(self, value: Any) -> str:
        return quote_literal(json.dumps(value)) + "::jsonb"

    def db_value(self, value: Any) -> Any:
        if value is None or is_sql(value):
            return value
        # Peewee wraps the value of a comparison itself, and has it converted once more.
        self._check(value.adapted if isinstance(value, Json) else value)
        return self._wrap(value) if self._wrap is not None else value

    to_database = db_value

    def array_item(self, value: Any) -> Any:
        if value is not None:
            self._check(value)
        return None if value is None else json.dumps(value)

    def case_value(self, value: Any) -> Any:
        if value is not None and not is_sql(value):
            self._check(value)
        return super().case_value(value)

    def _check(self, value: Any) -> None:
        problem = _json_problem(value)
        if problem is not None:
            raise self.refuse(problem or None)


def _json_problem(value: Any) -> str | None:
    """What is wrong with a value as jsonb: None for nothing, "" for what the field's text says."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        if "\\u0000" in text and _has_nul(value):
            return "JSON without NUL characters, which jsonb can't store"
        return None if _has_text_keys(value) and is_utf8(text) else ""
    except (TypeError, ValueError, RecursionError):
        return ""


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value)
        return any(_has_nul(key) or _has_nul(item) for key, item in pairs.items())
    items = cast("list[Any]", value)
    return isinstance(value, list | tuple) and any(map(_has_nul, items))


def _has_text_keys(value: Any) -> bool:
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value)
        return all(isinstance(key, str) and _has_text_keys(item) for key, item in pairs.items())
    items = cast("list[Any]", value)
    return not isinstance(value, list | tuple) or all(map(_has_text_keys, items))
