"""Queries whose SQL is made once and then sent with other values.

::

    by_email = compiled(User.select().where(User.email == parameter("email")))
    by_email(email="ada@example.com")           # a list of users
    by_email.first(email="ada@example.com")     # one, or None

The SQL is what Peewee renders for the query; a value is checked and converted as the column that
it is compared with would. Soft-deleted rows are seen as the query says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

import peewee

from orm_core.errors import InvalidValue
from orm_core.models.columns import is_sql


class Parameter(peewee.ColumnBase):
    """The place of a value that is given when the query is sent; see ``parameter``."""

    def __init__(self, name: str, convert: Callable[[Any], Any] | None = None) -> None:
        self.name = name
        self.convert = convert

    def __sql__(self, ctx: Any) -> Any:
        slot = _Slot(self.name, self.convert or ctx.state.converter or _unchanged)
        return ctx.value(slot, converter=False)


def parameter(name: str) -> Parameter:
    """A value of a ``compiled`` query that each call gives by this name.

    Stands where a value would: ``User.email == parameter("email")``. A parameter is one value;
    for a list of them compare with ``fn.ANY(parameter("ids"))``.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InvalidValue("parameter() takes a name, as in parameter('email').")
    return Parameter(name)


class _Slot:
    """Where a parameter's value goes among the values of the SQL."""

    def __init__(self, name: str, convert: Callable[[Any], Any]) -> None:
        self.name = name
        self.convert = convert


def _unchanged(value: Any) -> Any:
    return value


class Statement:
    """The SQL of a query with parameters, and what makes its rows.

    ``values`` are given by the parameters' names, converted for the driver.
    """

    def __init__(self, query: Any) -> None:
        self._meta = query.model._meta
        self.sql, values = self._meta.database.get_sql_context().parse(query)
        self.slots = [value for value in values if isinstance(value, _Slot)]
        self._constants = {
            place: value for place, value in enumerate(values) if not isinstance(value, _Slot)
        }
        keys = [one.name if isinstance(one, _Slot) else place for place, one in enumerate(values)]
        self._in_order = _in_order(keys)
        self.make: Callable[[Any], list[Any]] | None = query.row_maker()
        self._query = query

    def cursor(self, values: Mapping[Any, Any]) -> Any:
        """Send the statement; answers the driver's cursor."""
        if self._constants:
            values = {**self._constants, **values}
        return self._meta.database.execute_sql(self.sql, self._in_order(values))

    def rows(self, values: Mapping[Any, Any]) -> list[Any]:
        """Send the statement; answers its rows."""
        cursor = self.cursor(values)
        if self.make is None:
            return list(self._query._get_cursor_wrapper(cursor))
        return self.make(cursor.fetchall())

    def first(self, values: Mapping[Any, Any]) -> Any:
        """Send the statement; answers its first row, or None."""
        rows = self.rows(values)
        return rows[0] if rows else None


def _in_order(keys: list[Any]) -> Callable[[Mapping[Any, Any]], tuple[Any, ...]]:
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda values: tuple([values[key] for key in keys])


class Compiled:
    """A query compiled by ``compiled``; call it with a value for each parameter."""

    def __init__(self, query: Any) -> None:
        self._statement = Statement(query)
        self._names = {slot.name for slot in self._statement.slots}
        self._returns = isinstance(query, peewee.SelectBase) or bool(query._returning)

    @property
    def sql(self) -> str:
        """The SQL that is sent."""
        return str(self._statement.sql)

    def __repr__(self) -> str:
        return f"<compiled {self.sql}>"

    def __call__(self, **values: Any) -> Any:
        """The rows, or for a write without RETURNING how many it touched.

        Raises ``InvalidValue`` when a parameter is missing, unknown, or does not fit its column.
        """
        if self._returns:
            return self._statement.rows(self._converted(values))
        return self._statement.cursor(self._converted(values)).rowcount

    def first(self, **values: Any) -> Any:
        """The first row, or None."""
        return self._statement.first(self._converted(values))

    def _converted(self, values: dict[str, Any]) -> dict[Any, Any]:
        if values.keys() != self._names:
            wanted = ", ".join(sorted(self._names)) or "no parameters"
            raise InvalidValue(f"This compiled query takes {wanted}; no SQL was sent.")
        converted: dict[Any, Any] = {}
        for slot in self._statement.slots:
            value = values[slot.name]
            if is_sql(value):
                raise InvalidValue(f"{slot.name} takes a value, not SQL; no SQL was sent.")
            converted[slot.name] = slot.convert(value)
        return converted


def compiled(query: Any) -> Compiled:
    """Make the SQL of a query once; see ``orm_core.queries.compiled``.

    Raises ``InvalidValue`` for what is no query of a model.
    """
    if not isinstance(query, peewee.BaseQuery) or not hasattr(query, "row_maker"):
        raise InvalidValue("compiled() takes a query of a model, as in compiled(User.select()).")
    return Compiled(query)
