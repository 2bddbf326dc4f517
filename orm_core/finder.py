"""Finders: verbs of a service that find one row by some of its fields.

::

    class UsersService(Service[User]):
        find_by_email = finder(User.email)

    UsersService.find_by_email("ada@example.com", include_deleted=True)
"""

from __future__ import annotations

from typing import Any, Generic, TypeVarTuple, cast, overload

from typing_extensions import TypeVar

from orm_core import peewee_facade as peewee
from orm_core.database.transactions import Transaction
from orm_core.errors import InvalidValue, RegistryError
from orm_core.loggers import Logger
from orm_core.models.base import BaseModel
from orm_core.queries import plans
from orm_core.queries.plans import plan_for
from orm_core.service import Service, visibility

M = TypeVar("M", bound=BaseModel)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Values = TypeVarTuple("Values")


class Finder(Generic[*Values]):
    """``find_by_email(email, logger=None, *, tx=None, include_deleted=False)``; see ``finder``."""

    def __init__(self, fields: tuple[Any, ...]) -> None:
        self._fields = fields
        self._name = "find_by"
        self._bound: dict[type, Any] = {}

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: None, owner: type[Service[M, Any, Any]]) -> Find[M, *Values]:
        find: Find[M, *Values] | None = self._bound.get(owner)
        if find is None:
            find = cast("Find[M, *Values]", Find(owner, self._name, self._fields))
            self._bound[owner] = find
        return find


class Find(Generic[M, *Values]):
    """A finder of one service, ready to be called."""

    def __init__(
        self, service: type[Service[M, Any, Any]], name: str, fields: tuple[Any, ...]
    ) -> None:
        self._service = service
        self._names = tuple(field.name for field in fields)
        self.__name__ = name
        self.__doc__ = f"The row with this {', '.join(self._names)}, or None."

    @overload
    def __call__(
        self,
        *values: *Values,
        logger: Logger | None = None,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> M | None: ...
    @overload
    def __call__(
        self,
        *values: *tuple[*Values, Logger | None],
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> M | None: ...
    def __call__(  # type: ignore[misc] # mypy can't tell that Any takes all of Values
        self,
        *values: Any,
        logger: Logger | None = None,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> M | None:
        """The values of the fields, in their order, then the logger may follow."""
        count = len(self._names)
        if len(values) == count + 1 and logger is None:
            logger, values = values[-1], values[:-1]
        if len(values) != count:
            raise InvalidValue(
                f"{self.__name__}() takes {count} value(s), then logger; no SQL was sent."
            )
        service = self._service
        with service.verb(self.__name__, logger, tx):
            for value in values:
                if value is None:
                    raise InvalidValue(f"{self.__name__}() needs a value, not None.")
            shape = self._names, visibility(include_deleted)
            row: M | None = plan_for(service.model, plans.Find, *shape).row(values)
            return row


@overload
def finder(a: peewee.Term[A], /) -> Finder[A]: ...
@overload
def finder(a: peewee.Term[A], b: peewee.Term[B], /) -> Finder[A, B]: ...
@overload
def finder(a: peewee.Term[A], b: peewee.Term[B], c: peewee.Term[C], /) -> Finder[A, B, C]: ...
@overload
def finder(*fields: peewee.Column) -> Finder[*tuple[Any, ...]]: ...
def finder(*fields: Any) -> Any:
    """A verb that finds one row by these fields: ``find_by_email = finder(User.email)``."""
    if not fields or not all(isinstance(field, peewee.AnyField) for field in fields):
        raise RegistryError("finder() takes fields of the model, as in finder(User.email).")
    found: Finder[*tuple[Any, ...]] = Finder(fields)
    return found
