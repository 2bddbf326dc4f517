"""Finders: verbs of a service that find one row by some of its fields.

::

    class UsersService(Service[User]):
        find_by_email = finder(User.email)

    UsersService.find_by_email("ada@example.com", include_deleted=True)
"""

from __future__ import annotations

# A finder is a verb of a service, in a module of its own.
# pyright: reportPrivateUsage=false
from typing import Any, Generic, Protocol, TypeVar, TypeVarTuple, overload

from orm_core import peewee_facade as peewee
from orm_core.database.transactions import Transaction
from orm_core.errors import InvalidValue, RegistryError
from orm_core.loggers import Logger
from orm_core.models.base import BaseModel
from orm_core.queries.one_row import find as find_row
from orm_core.service import Service

M = TypeVar("M", bound=BaseModel)
M_co = TypeVar("M_co", bound=BaseModel, covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Values = TypeVarTuple("Values")


class Find(Protocol[M_co, *Values]):
    """A finder of one service; see ``finder``."""

    @overload
    def __call__(
        self,
        *values: *Values,
        logger: Logger | None = None,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> M_co | None: ...
    @overload
    def __call__(
        self,
        *values: *tuple[*Values, Logger | None],
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> M_co | None: ...


class Finder(Generic[*Values]):
    """``find_by_email(email, logger=None, *, tx=None, include_deleted=False)``; see ``finder``."""

    def __init__(self, fields: tuple[Any, ...]) -> None:
        self._fields = fields
        self._name = "find_by"
        self._bound: dict[type, Any] = {}

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: None, owner: type[Service[M, Any, Any]]) -> Find[M, *Values]:
        find: Any = self._bound.get(owner)
        if find is None:
            find = self._bound[owner] = self._bind(owner)
        return find  # type: ignore[no-any-return]

    def _bind(self, service: type[Service[Any, Any, Any]]) -> Any:
        """The finder as a function of this service."""
        name, names = self._name, tuple(field.name for field in self._fields)
        count = len(names)

        def find(
            *values: Any,
            logger: Logger | None = None,
            tx: Transaction | None = None,
            include_deleted: bool = False,
        ) -> Any:
            if len(values) != count:
                if len(values) != count + 1 or logger is not None:
                    raise InvalidValue(
                        f"{name}() takes {count} value(s), then logger; no SQL was sent."
                    )
                *values, logger = values  # type: ignore[assignment]
            if logger is None:  # nobody to tell of it
                return find_row(service._model(tx), names, values, include_deleted)
            with service.verb(name, logger, tx):
                return find_row(service.model, names, values, include_deleted)

        find.__name__ = name
        find.__qualname__ = f"{service.__qualname__}.{name}"
        find.__module__ = service.__module__
        find.__doc__ = f"The row with this {', '.join(names)}, or None."
        return find


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
