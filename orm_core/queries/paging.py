"""Pages of rows: by number (OFFSET), or by keyset, which stays fast at any depth.

A keyset page starts after the last row of the one before, found by its sort values, so the
server reads an index from there and skips nothing (Markus Winand, "We need tool support for
keyset pagination", use-the-index-luke.com). Rows that are added or removed meanwhile shift
nothing. The cursor between two pages is an opaque text; it carries the sort values of one row.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import reduce
from typing import Any, Final, Generic, TypeVar, cast

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.models.encrypted import EncryptedField
from orm_core.models.fields import JSONField
from orm_core.models.sealed_parts import SealedPartField
from orm_core.peewee_facade import Ordering, Tuple, Value

M = TypeVar("M")

MAX_PAGE_SIZE: Final = 1000
#: the most that LIMIT and OFFSET take
MOST: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """Some rows and how to go on.

    ``number`` and ``total`` (rows of all pages) are there for pages by number, ``next_cursor``
    for keyset pages; None there means that this is the last one.
    """

    items: list[M]
    size: int
    number: int | None = None
    total: int | None = None
    next_cursor: str | None = None

    @property
    def pages(self) -> int | None:
        """How many pages there are, for pages by number."""
        return None if self.total is None else -(-self.total // self.size)

    @property
    def has_next(self) -> bool:
        """Whether a page follows."""
        if self.number is None or self.pages is None:
            return self.next_cursor is not None
        return self.number < self.pages

    def __iter__(self) -> Iterator[M]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def check_count(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number within limits. Raises ``InvalidValue``."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and value >= least and (most is None or value <= most):
        return int(value)
    limits = f"{least} or more" if most is None else f"from {least} to {most}"
    raise InvalidValue(f"{name} must be a whole number, {limits}; no SQL was sent.")


def read_order(model: Any, order_by: Any) -> list[Any]:
    """The sort terms, the primary key when none is given. Raises ``InvalidValue``."""
    if order_by is None:
        return [model._meta.primary_key]
    terms: Any = [order_by] if isinstance(order_by, peewee.ColumnBase) else order_by
    if isinstance(terms, str | bytes | type) or not isinstance(terms, Iterable):
        raise _bad_order(model)
    found = list(cast("Iterable[Any]", terms))
    if not found or not all(isinstance(term, peewee.ColumnBase) for term in found):
        raise _bad_order(model)
    return found


def _bad_order(model: Any) -> InvalidValue:
    return InvalidValue(
        f"order_by takes fields, as in [{model.__name__}.created_at.desc()]; text is never taken "
        "for SQL. No SQL was sent."
    )


class Keyset:
    """An order of rows that ends in the primary key, so that each row has one place in it."""

    def __init__(self, model: Any, order_by: Any) -> None:
        self.terms: list[tuple[Any, bool]] = []
        key = model._meta.primary_key
        for term in read_order(model, order_by):
            field = term.node if isinstance(term, Ordering) else term
            descending = isinstance(term, Ordering) and term.direction.upper() == "DESC"
            if (
                not isinstance(field, peewee.AnyField)
                or isinstance(field, JSONField | EncryptedField | SealedPartField)
                or field.model is not model
                or field.null
            ):
                raise InvalidValue(
                    f"Keyset pages are sorted by fields of {model.__name__} that are never NULL; "
                    "use page numbers for other orders. No SQL was sent."
                )
            self.terms.append((field, descending))
        if key not in [field for field, _ in self.terms if field is key]:
            self.terms.append((key, self.terms[-1][1]))
        self.signature: list[str] = [
            f"{'-' if descending else ''}{field.name}" for field, descending in self.terms
        ]

    @property
    def order_by(self) -> list[Any]:
        """The sort terms, with the primary key last."""
        return [field.desc() if down else field.asc() for field, down in self.terms]

    def cursor(self, row: Any) -> str:
        """The text from which the page after ``row`` starts."""
        values = [_plain(row.__data__[field.name]) for field, _ in self.terms]
        text = json.dumps([self.signature, values], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def after(self, cursor: str) -> list[Any]:
        """Conditions on the rows after a cursor; those of the first come first, and so on.

        Each is a range of an index on the terms; one condition with OR would be none. Raises
        ``InvalidValue``.
        """
        values = [
            Value(_restored(field, value), converter=field.db_value, unpack=False)
            for (field, _), value in zip(self.terms, self._decode(cursor), strict=True)
        ]
        fields = [field for field, _ in self.terms]
        directions = {down for _, down in self.terms}
        if len(directions) == 1:
            here, there = Tuple(*fields), Tuple(*values)
            return [here < there if directions == {True} else here > there]
        return [self._step(depth, values) for depth in reversed(range(len(fields)))]

    def _step(self, depth: int, values: list[Any]) -> Any:
        """Equal in the terms before ``depth``, past the cursor in this one."""
        equal = [
            field == value for (field, _), value in zip(self.terms[:depth], values, strict=False)
        ]
        field, down = self.terms[depth]
        past = field < values[depth] if down else field > values[depth]
        return reduce(_and, [*equal, past])

    def _decode(self, cursor: Any) -> list[Any]:
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            signature, values = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
        except (TypeError, ValueError, AttributeError, UnicodeError, RecursionError):
            raise _bad_cursor() from None
        if signature != self.signature or not isinstance(values, list):
            raise _bad_cursor()
        found = cast("list[Any]", values)
        if len(found) != len(self.terms):
            raise _bad_cursor()
        return found


def _bad_cursor() -> InvalidValue:
    return InvalidValue(
        "after must be the next_cursor of a page in the same order; no SQL was sent."
    )


def _and(one: Any, other: Any) -> Any:
    return one & other


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, bool | int | float | str) else str(value)


def _restored(field: Any, value: Any) -> Any:
    kind = cast("type[Any]", type(field))
    try:
        if issubclass(kind, peewee.DateTimeField):
            value = datetime.fromisoformat(value)
        elif issubclass(kind, peewee.DateField):
            value = date.fromisoformat(value)
        elif issubclass(kind, peewee.DecimalField):
            value = Decimal(value)
        if value is None:
            raise ValueError
        field.db_value(value)
    except (TypeError, ValueError, ArithmeticError):
        raise _bad_cursor() from None
    return value


def numbered_page(query: Any, order: Any, size: int, number: int) -> Page[Any]:
    """The page of this number, from 1, and the count of all rows."""
    check_count("number", number, 1, MOST // size)
    total = int(query.count())
    rows = query.order_by(*order).limit(size).offset((number - 1) * size)
    return Page(list(rows), size, number=number, total=total)


def keyset_page(query: Any, keyset: Keyset, size: int, after: str | None) -> Page[Any]:
    """The first page, or the one after a cursor; one row more is read to see whether it ends."""
    rows: list[Any] = []
    for condition in [None] if after is None else keyset.after(after):
        some = query if condition is None else query.where(condition)
        rows.extend(some.order_by(*keyset.order_by).limit(size + 1 - len(rows)))
        if len(rows) > size:
            break
    items = rows[:size]
    return Page(items, size, next_cursor=keyset.cursor(items[-1]) if len(rows) > size else None)
