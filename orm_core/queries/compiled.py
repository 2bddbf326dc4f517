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
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from typing import Any, Generic, TypeVar, cast, overload

from orm_core import peewee_facade as peewee
from orm_core.database.compiled_sql import AskingSql, CompiledSql
from orm_core.database.drivers.session import Session
from orm_core.database.transactions import Transaction
from orm_core.errors import InvalidValue
from orm_core.models.columns import has_one_type, is_sql
from orm_core.models.fields import array_literal
from orm_core.models.identifiers import utcnow
from orm_core.models.insert import InsertQuery
from orm_core.models.payloads import driver_value
from orm_core.models.schema import Metadata
from orm_core.models.soft_delete import SelectQuery, UpdateQuery
from orm_core.queries.paging import MOST, check_count

#: what calling it answers
R = TypeVar("R")
M = TypeVar("M")


class Parameter(peewee.AnyColumn):
    """The place of a value that is given when the query is sent; see ``parameter``."""

    is_parameter = True

    def __init__(self, name: str, convert: Callable[[Any], Any] | None = None) -> None:
        self.name = name
        self.convert = convert

    def __sql__(self, ctx: Any) -> Any:
        if ctx._sql and ctx._sql[-1].strip() in (peewee.OP.IN, peewee.OP.NOT_IN):
            raise InvalidValue(
                f"{self.name} is one value, so IN can't take it: compare with "
                f"fn.ANY(parameter({self.name!r})), which takes a list. No SQL was sent."
            )
        slot = _Slot(self.name, self.convert or ctx.state.converter or _unchanged)
        slot.is_compared = bool(ctx.state.in_expr)
        slot.takes_lists = self.convert is None and bool(ctx.state.in_function)
        slot.takes_lists_only = _text_before(ctx, 2) in ("ANY(", "ALL(", "SOME(")
        slot.counts = _text_before(ctx, 1) in _COUNTS
        return ctx.value(slot, converter=False)


def parameter(name: str) -> Parameter:
    """A value of a ``compiled`` query that each call gives by this name.

    Stands where a value would: ``User.email == parameter("email")``, ``.limit(parameter("size"))``.
    A parameter is one value; for a list of them compare with ``fn.ANY(parameter("ids"))``.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InvalidValue("parameter() takes a name, as in parameter('email').")
    return Parameter(name)


class _Slot:
    """Where a parameter's value goes among the values of the SQL."""

    is_compared = takes_lists = takes_lists_only = counts = False

    def __init__(self, name: str, convert: Callable[[Any], Any]) -> None:
        self.name = name
        self._convert = convert
        # partial(driver_value, field) or field.db_value
        field = convert.args[0] if isinstance(convert, partial) else _owner(convert)
        self._one_type = convert is as_given or has_one_type(field)

    @property
    def typed(self) -> bool:
        """Whether all its values reach the driver as one type."""
        return self.counts or self._one_type

    def value(self, given: Any) -> Any:
        """A value for the driver. Raises ``InvalidValue`` when it does not fit the column."""
        if is_sql(given):
            raise InvalidValue(f"{self.name} takes a value, not SQL; no SQL was sent.")
        if given is None and self.is_compared:
            raise InvalidValue(
                f"{self.name} may not be None, which equals nothing in SQL; compile another "
                "query with is_null(). No SQL was sent."
            )
        if self.counts:
            return check_count(self.name, given, 0, MOST)
        if self.takes_lists and isinstance(given, _LISTS):
            return array_literal(map(self._convert, cast("Iterable[Any]", given)))
        if self.takes_lists_only:
            raise InvalidValue(
                f"{self.name} stands in ANY(), which takes a list, tuple or set; no SQL was sent."
            )
        return self._convert(given)


def _text_before(ctx: Any, pieces: int) -> str:
    """What was rendered just before."""
    return "".join(ctx._sql[-pieces:]).upper()


#: the parameter of the time of an UPDATE, which no caller can name
_NOW = "the time"
_LISTS = (list, tuple, set, frozenset)
_NUMBERS = (int, float, Decimal)
_COUNTS = (" LIMIT ", " OFFSET ")


def _unchanged(value: Any) -> Any:
    return value


def as_given(value: Any) -> Any:
    """For a value that is converted already."""
    return value


def _owner(method: Any) -> Any:
    return getattr(method, "__self__", None)


class _Context(peewee.Context):
    """Renders, and looks whether the server would read each constant as its column's type."""

    typed = True

    def value(self, value: Any, converter: Any = None, add_param: bool = True) -> Any:
        if isinstance(value, Parameter) and not add_param:  # SQL("...") has its %s in the text
            value = _Slot(value.name, _unchanged)
        given = converter or (self.state.converter if converter is None else None)
        if isinstance(value, _NUMBERS) and not isinstance(value, bool):
            counts = self._sql[-1] in _COUNTS
            self.typed &= counts or has_one_type(_owner(given))
        return super().value(value, converter, add_param)


class Statement:
    """The SQL of a query with parameters, and what makes its rows.

    Its parameters are given in the order of ``keys``, converted for the driver.
    """

    def __init__(self, query: Any, database: Any = None) -> None:
        self._query: Any = query
        self._meta = query.model._meta
        self._bound_to = database
        context = _Context(**self.database.get_context_options())
        sql, values = context.parse(query)
        places = dict(enumerate(values))
        self.slots: dict[int, _Slot] = {
            place: one for place, one in places.items() if isinstance(one, _Slot)
        }
        # A value must be of its column's type, which the server infers when it prepares.
        typed = context.typed and all(slot.typed for slot in self.slots.values())
        compiled_sql = CompiledSql(sql) if typed else None
        self.sql: str = compiled_sql or sql
        self.make: Callable[[Any], list[Any]] | None = query.row_maker()
        self._make_one: Callable[[Any], Any] | None = query.one_maker()
        #: of a write that answers rows
        self._asking: AskingSql | None = None
        if compiled_sql and self.make and isinstance(query, UpdateQuery | InsertQuery):
            self._asking = AskingSql.of(compiled_sql)
        #: the parameters in their order, by name; a constant has its place instead
        self.keys: list[str | int] = [
            self.slots[place].name if place in self.slots else place for place in places
        ]
        self.constants: dict[int, Any] = {
            place: one for place, one in places.items() if place not in self.slots
        }

    @property
    def database(self) -> Any:
        """Where it is sent: ``database`` if one was given, else that of the model by now."""
        return self._bound_to or self._meta.database

    def cursor(self, values: tuple[Any, ...]) -> Any:
        """Send the statement with its parameters; answers the driver's cursor."""
        return self.database.execute_sql(self.sql, values)

    def read(self, cursor: Any) -> list[Any]:
        """The rows of a cursor."""
        if self.make is None:
            return list(self._query._get_cursor_wrapper(cursor))
        return self.make(cursor.fetchall())

    def read_first(self, cursor: Any) -> Any:
        """The first row of a cursor, or None."""
        if self._make_one is None:
            return next(iter(self.read(cursor)), None)
        row = cursor.fetchone()
        return None if row is None else self._make_one(row)

    def first(self, values: tuple[Any, ...]) -> Any:
        """Send the statement with its parameters; answers its first row, or None."""
        database = self._bound_to or self._meta.database
        make = self._make_one
        if make is None:
            return self.read_first(database.execute_sql(self.sql, values))
        block: Transaction | None = None
        if self._asking is not None:
            block = getattr(database, "unnumbered", None)  # Peewee's own database has none
        cursor = database.execute_sql(self.sql if block is None else self._asking, values)
        row = cursor.fetchone()
        connection = cursor.connection
        if isinstance(connection, Session):
            connection.give_back(cursor)
        if row is None:
            return None
        if block is not None:
            *row, block.number = row
        return make(row)


class Compiled(Generic[R]):
    """A query compiled by ``compiled``; call it with a value for each parameter."""

    def __init__(self, query: Any) -> None:
        self._query = query
        bound = query._database is not query.model._meta.database
        self._bound_to = query._database if bound else None
        self._moves = isinstance(query, UpdateQuery)
        self._returns = not self._moves or bool(query._returning)
        self._compile()

    def _compile(self) -> Statement:
        made_for = Metadata.plans
        query = _with_parameters(self._query) if self._moves else self._query
        self._statement = Statement(query, self._bound_to)
        self._names = {slot.name for slot in self._statement.slots.values()} - {_NOW}
        self._made_for = made_for
        return self._statement

    def _current(self) -> Statement:
        """The statement; made anew after a change of a model, of its table's name for instance."""
        return self._statement if self._made_for is Metadata.plans else self._compile()

    @property
    def sql(self) -> str:
        """The SQL that is sent."""
        return str(self._current().sql)

    def __repr__(self) -> str:
        return f"<compiled {self.sql}>"

    def __call__(self, /, **values: Any) -> R:
        """The rows, or for an UPDATE without RETURNING how many it touched.

        Raises ``InvalidValue`` when a parameter is missing, unknown, or does not fit its column.
        """
        statement, cursor = self._send(values)
        answer: Any = statement.read(cursor) if self._returns else cursor.rowcount
        return answer  # type: ignore[no-any-return]

    def first(self: Compiled[list[M]], /, **values: Any) -> M | None:
        """The first row, or None. Raises ``InvalidValue`` for an UPDATE without RETURNING."""
        if not self._returns:
            raise InvalidValue(
                "first() needs rows: add returning() to the update(), or call it. No SQL was sent."
            )
        statement, cursor = self._send(values)
        row: M | None = statement.read_first(cursor)
        return row

    def _send(self, values: dict[str, Any]) -> tuple[Statement, Any]:
        statement = self._current()
        converted = self._converted(statement, values)
        return statement, statement.database.execute_sql(statement.sql, converted)

    def _converted(self, statement: Statement, values: dict[str, Any]) -> tuple[Any, ...]:
        if values.keys() != self._names:
            wanted = ", ".join(sorted(self._names)) or "no parameters"
            raise InvalidValue(f"This compiled query takes {wanted}; no SQL was sent.")
        if self._moves:
            values[_NOW] = utcnow()
        slots, constants = statement.slots, statement.constants
        return tuple(
            [
                constants[place]
                if place in constants
                else slots[place].value(values[slots[place].name])
                for place in range(len(statement.keys))
            ]
        )


def _with_parameters(query: Any) -> Any:
    """An UPDATE whose parameters are checked as their columns' values, and that moves the time."""
    changes = {
        field: Parameter(value.name, partial(driver_value, field))
        if isinstance(value, Parameter)
        else value
        for field, value in query._update.items()
    }
    moved = query.model._meta.fields.get("updated_at")
    if moved is not None and changes:
        changes.setdefault(moved, Parameter(_NOW, moved.db_value))
    twin = query.clone()
    twin._update = changes
    return twin


@overload
def compiled(query: peewee.ModelSelect[M]) -> Compiled[list[M]]: ...
@overload
def compiled(query: peewee.ModelUpdate[peewee.Rows[M]]) -> Compiled[list[M]]: ...
@overload
def compiled(query: peewee.ModelUpdate[int]) -> Compiled[int]: ...
def compiled(query: Any) -> Compiled[Any]:
    """Make the SQL of a query once; see ``orm_core.queries.compiled``.

    Raises ``InvalidValue`` for what is no SELECT or UPDATE of a model: the values of a new row, and
    what a soft delete takes along, are other ones each time, so these are left to the services.
    Threads may share what it answers.
    """
    kind = cast("type[Any]", type(query))
    if kind not in (SelectQuery, UpdateQuery) or getattr(query, "_load_tree", None):
        raise InvalidValue(
            "compiled() takes a select() or update() of a model, without with_related(); use a "
            "service's verbs for the rest."
        )
    return Compiled(query)
