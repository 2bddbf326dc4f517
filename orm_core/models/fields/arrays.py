"""Columns of arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

from psycopg2 import extensions

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.models.columns import (
    CheckedField,
    G,
    Options,
    V,
)

Item = TypeVar("Item")


class ArrayField(CheckedField[V, G]):
    """An array, as in ``ArrayField(TextField())``: a list of what the inner field takes, or None."""

    @overload
    def __init__(
        self: ArrayField[list[Item], list[Item]],
        inner: CheckedField[Item, Item],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[list[Item]]],
    ) -> None: ...
    @overload
    def __init__(
        self: ArrayField[list[Item], list[Item] | None],
        inner: CheckedField[Item, Item],
        *,
        null: Literal[True],
        **options: Unpack[Options[list[Item]]],
    ) -> None: ...
    def __init__(self, inner: CheckedField[Any, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inner = inner
        self.copy_default()

    def _whole(self, value: Any) -> Any:
        """A list as one value; Peewee would compare with its items."""
        if isinstance(value, list | tuple):
            return peewee.Value(value, converter=self.db_value, unpack=False)
        return value

    if not TYPE_CHECKING:  # to checkers it compares like any column

        def __eq__(self, other: Any) -> Any:
            return super().__eq__(self._whole(other))

        def __ne__(self, other: Any) -> Any:
            return super().__ne__(self._whole(other))

        __hash__ = CheckedField.__hash__

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a list whose items are each {self.inner.expected}"

    def ddl_datatype(self, ctx: Any) -> Any:
        """The inner type with brackets."""
        return peewee.SQL(f"{self.inner.ddl_datatype(ctx).sql}[]")

    def to_database(self, value: Any) -> str:
        if not isinstance(value, list | tuple):
            raise self.refuse()
        try:
            given = cast("list[Any]", value)
            items = [self.inner.array_item(item) for item in given]
        except InvalidValue:
            raise self.refuse() from None
        return array_literal(items)

    def python_value(self, value: Any) -> Any:
        if isinstance(value, str):  # a type that the driver has no reader for
            value = extensions.STRINGARRAY(value, None)
        return value if value is None else [self.inner.python_value(item) for item in value]


def array_literal(items: Iterable[Any]) -> str:
    """The text of an array whose items are texts, numbers or None (PostgreSQL manual, Arrays)."""
    return "{" + ",".join(map(_array_item, items)) + "}"


def _array_item(item: Any) -> str:
    if item is None:
        return "NULL"
    escaped = str(item).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
