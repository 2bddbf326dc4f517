"""Queries whose SQL is made once and then sent with other values.

::

    by_email = compiled(User.select().where(User.email == parameter("email")))
    by_email(email="ada@example.com")           # a list of users
    by_email.first(email="ada@example.com")     # one, or None

The SQL is what Peewee renders for the query; a value is checked and converted as the column that
it is compared with would. Soft-deleted rows are seen as the query says.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

from orm_core import peewee_facade as peewee
from orm_core.database.prepared import CompiledSql
from orm_core.errors import InvalidValue
from orm_core.models.columns import is_sql
from orm_core.models.identifiers import utcnow
from orm_core.models.payloads import driver_value
from orm_core.models.soft_delete import SelectQuery, UpdateQuery

#: what calling it answers
R = TypeVar("R")
M = TypeVar("M")
Writes: TypeAlias = "peewee.ModelInsert[M] | peewee.ModelUpdate[M] | peewee.ModelDelete[M]"


class Parameter(peewee.AnyColumn):
    """The place of a value that is given when the query is sent; see ``parameter``."""

    def __init__(self, name: str, convert: Callable[[Any], Any] | None = None) -> None:
        self.name = name
        self.convert = convert

    def __sql__(self, ctx: Any) -> Any:
        convert = self.convert or ctx.state.converter or _unchanged
        slot = _Slot(self.name, convert, is_compared=bool(ctx.state.in_expr))
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

    def __init__(
        self, name: str, convert: Callable[[Any], Any], *, is_compared: bool = False
    ) -> None:
        self.name = name
        self.convert = convert
        self.is_compared = is_compared


#: the parameter of the time of an UPDATE, which no caller can name
_NOW = "the time"


def _unchanged(value: Any) -> Any:
    return value


class Statement:
    """The SQL of a query with parameters, and what makes its rows.

    ``values`` are given by the parameters' names, converted for the driver.
    """

    def __init__(self, query: Any) -> None:
        self._meta = query.model._meta
        sql, values = self._meta.database.get_sql_context().parse(query)
        self.slots: list[_Slot] = [value for value in values if isinstance(value, _Slot)]
        # A value's type must be that of its column, which the server infers when it prepares.
        typed = all(slot.convert is not _unchanged for slot in self.slots)
        self.sql: str = CompiledSql(sql) if typed else sql
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
        if self.make is None:
            return next(iter(self.rows(values)), None)
        row = self.cursor(values).fetchone()
        return None if row is None else self.make((row,))[0]


def _in_order(keys: list[Any]) -> Callable[[Mapping[Any, Any]], tuple[Any, ...]]:
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda values: tuple([values[key] for key in keys])


class Compiled(Generic[R]):
    """A query compiled by ``compiled``; call it with a value for each parameter."""

    def __init__(self, query: Any) -> None:
        self._moves = isinstance(query, UpdateQuery)
        self._returns = not self._moves or bool(query._returning)
        self._statement = Statement(_with_parameters(query) if self._moves else query)
        self._slots = [slot for slot in self._statement.slots if slot.name != _NOW]
        self._names = {slot.name for slot in self._slots}

    @property
    def sql(self) -> str:
        """The SQL that is sent."""
        return self._statement.sql

    def __repr__(self) -> str:
        return f"<compiled {self.sql}>"

    def __call__(self, **values: Any) -> R:
        """The rows, or for an UPDATE without RETURNING how many it touched.

        Raises ``InvalidValue`` when a parameter is missing, unknown, or does not fit its column.
        """
        if self._returns:
            rows: Any = self._statement.rows(self._converted(values))
            return rows  # type: ignore[no-any-return]
        count: Any = self._statement.cursor(self._converted(values)).rowcount
        return count  # type: ignore[no-any-return]

    def first(self: Compiled[list[M]], **values: Any) -> M | None:
        """The first row, or None."""
        row: M | None = self._statement.first(self._converted(values))
        return row

    def _converted(self, values: dict[str, Any]) -> dict[Any, Any]:
        if values.keys() != self._names:
            wanted = ", ".join(sorted(self._names)) or "no parameters"
            raise InvalidValue(f"This compiled query takes {wanted}; no SQL was sent.")
        converted: dict[Any, Any] = {_NOW: utcnow()} if self._moves else {}
        for slot in self._slots:
            value = values[slot.name]
            if is_sql(value):
                raise InvalidValue(f"{slot.name} takes a value, not SQL; no SQL was sent.")
            if value is None and slot.is_compared:
                raise InvalidValue(
                    f"{slot.name} may not be None, which equals nothing in SQL; compile another "
                    "query with is_null(). No SQL was sent."
                )
            converted[slot.name] = slot.convert(value)
        return converted


def _with_parameters(query: Any) -> Any:
    """An UPDATE whose parameters are checked as their columns' values, and that moves the time."""
    changes = {
        field: Parameter(value.name, partial(driver_value, field))
        if isinstance(value, Parameter)
        else value
        for field, value in query._update.items()
    }
    moved = query.model._meta.fields.get("updated_at")
    if moved is not None:
        changes.setdefault(moved, Parameter(_NOW, moved.db_value))
    twin = query.clone()
    twin._update = changes
    return twin


@overload
def compiled(query: peewee.ModelSelect[M]) -> Compiled[list[M]]: ...
@overload
def compiled(query: Writes[peewee.Rows[M]]) -> Compiled[list[M]]: ...
@overload
def compiled(query: Writes[int]) -> Compiled[int]: ...
def compiled(query: Any) -> Compiled[Any]:
    """Make the SQL of a query once; see ``orm_core.queries.compiled``.

    Raises ``InvalidValue`` for what is no SELECT or UPDATE of a model: the values of a new row, and
    what a soft delete takes along, are other ones each time, so these are left to the services.
    """
    kind = cast("type[Any]", type(query))
    if kind not in (SelectQuery, UpdateQuery) or getattr(query, "_load_tree", None):
        raise InvalidValue(
            "compiled() takes a select() or update() of a model, without with_related(); use a "
            "service's verbs for the rest."
        )
    return Compiled(query)
