"""Columns of native enums."""

from __future__ import annotations

import enum
from typing import Any, Literal, TypeVar, Unpack, overload

import inflection

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.models.columns import (
    MAX_NAME_BYTES,
    CheckedField,
    G,
    Options,
    V,
    quote_literal,
)

E = TypeVar("E", bound=enum.Enum)


class EnumField(CheckedField[V, G]):
    """A native PostgreSQL enum from a Python ``Enum`` whose values are its labels.

    ``EnumField(SessionStatus, default=SessionStatus.ACTIVE)`` makes the type ``session_status``
    (``type_name`` names another). Takes a member or its value; rows carry members.
    """

    refuses_sql = True

    @overload
    def __init__(
        self: EnumField[E, E],
        enum_class: type[E],
        *,
        type_name: str | None = None,
        null: Literal[False] = False,
        **options: Unpack[Options[E]],
    ) -> None: ...
    @overload
    def __init__(
        self: EnumField[E, E | None],
        enum_class: type[E],
        *,
        type_name: str | None = None,
        null: Literal[True],
        **options: Unpack[Options[E]],
    ) -> None: ...
    def __init__(
        self, enum_class: type[enum.Enum], *args: Any, type_name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.enum_class = enum_class
        self.type_name: str = type_name or inflection.underscore(enum_class.__name__)
        self.labels: tuple[Any, ...] = tuple(member.value for member in enum_class)
        self.members: dict[str, enum.Enum] = {member.value: member for member in enum_class}
        for label in self.labels:
            if not isinstance(label, str) or not 0 < len(label.encode()) <= MAX_NAME_BYTES:
                raise InvalidValue(
                    f"Each value of {enum_class.__name__} must be a str of 1 to {MAX_NAME_BYTES} "
                    "bytes to be a label of a PostgreSQL enum."
                )

    @property
    def field_type(self) -> str:
        """The SQL type: the quoted name of the enum."""
        return '"' + self.type_name.replace('"', '""') + '"'

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a {self.enum_class.__name__} or one of: {', '.join(self.labels)}"

    def create_type_sql(self) -> str:
        """CREATE TYPE; nothing happens when the type is there already."""
        labels = ", ".join(map(quote_literal, self.labels))
        quote = "$$"
        while quote in labels or quote in self.type_name:
            quote = f"{quote[:-1]}_$"
        return (
            f"DO {quote} BEGIN CREATE TYPE {self.field_type} AS ENUM ({labels}); "
            f"EXCEPTION WHEN duplicate_object THEN NULL; END {quote}"
        )

    def to_database(self, value: Any) -> str:
        if isinstance(value, self.enum_class):
            return str(value.value)
        if isinstance(value, str) and not isinstance(value, enum.Enum) and value in self.members:
            return value
        raise self.refuse()

    def case_value(self, value: Any) -> Any:
        """A branch of CASE, which PostgreSQL would take for text."""
        return peewee.Cast(self.to_value(value), self.field_type)

    def python_value(self, value: Any) -> Any:
        return self.members.get(value, value) if isinstance(value, str) else value
