"""Columns of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from orm_core import peewee_facade as peewee
from orm_core.models.columns import (
    CheckedField,
    G,
    Options,
)


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can carry it; the codec's error, which quotes the text, stays in here."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _TextChecks(CheckedField[str, G]):
    refuses_sql = True
    max_length: int | None = None
    expected = "a str"

    def to_database(self, value: Any) -> str:
        text = self.pattern(value)
        if self.max_length is not None and len(text) > self.max_length:
            raise self.refuse(f"a str of at most {self.max_length} characters")
        return text

    def pattern(self, value: Any) -> str:
        """Check a text that the column is matched with, which may be longer than its values."""
        if not isinstance(value, str):
            raise self.refuse()
        if "\0" in value:
            raise self.refuse("a str without NUL characters, which PostgreSQL can't store")
        if not (value.isascii() or is_utf8(value)):
            raise self.refuse("a str without lone surrogates, which UTF-8 can't carry")
        return str.__str__(value)  # of a str Enum the value, not the name


def _matching(operator: Any) -> Any:
    """An operator whose right side is a pattern, not a value of the column."""

    def match(field: Any, rhs: Any) -> Any:
        expression = operator(field, rhs)
        if isinstance(expression.rhs, str):
            expression.rhs = peewee.Value(expression.rhs, converter=field.pattern)
        return expression

    return match


class TextField(_TextChecks[G], peewee.TextField):
    """``text``: a str of any length."""

    @overload
    def __init__(
        self: TextField[str], *, null: Literal[False] = False, **options: Unpack[Options[str]]
    ) -> None: ...
    @overload
    def __init__(
        self: TextField[str | None], *, null: Literal[True], **options: Unpack[Options[str]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class CharField(_TextChecks[G], peewee.CharField):
    """``varchar(max_length)``: a str; a longer one is refused, trailing blanks count."""

    if not TYPE_CHECKING:  # their types are those of the facade
        like, ilike = map(_matching, (peewee.CharField.like, peewee.CharField.ilike))
        regexp, iregexp = map(_matching, (peewee.CharField.regexp, peewee.CharField.iregexp))
        contains = _matching(peewee.CharField.contains)
        startswith = _matching(peewee.CharField.startswith)
        endswith = _matching(peewee.CharField.endswith)

    @overload
    def __init__(
        self: CharField[str],
        max_length: int = 255,
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[str]],
    ) -> None: ...
    @overload
    def __init__(
        self: CharField[str | None],
        max_length: int = 255,
        *,
        null: Literal[True],
        **options: Unpack[Options[str]],
    ) -> None: ...
    def __init__(self, max_length: int = 255, *args: Any, **kwargs: Any) -> None:
        super().__init__(max_length, *args, **kwargs)
