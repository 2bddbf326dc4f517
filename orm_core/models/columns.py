"""What all columns share: checks before SQL, defaults of Python and the server, names.

A constant ``default`` is Python's *and* the server's (``DEFAULT 'pending'``); a callable one is
Python's only, ``server_default`` adds SQL for the server (``server_default="now()"``).
``generated="lower(email)"`` makes a column that the server computes and nobody writes,
``comment`` is stored with the column. ``unique="live"`` makes a partial unique index over the
rows that are not soft-deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, cast

from orm_core.errors import InvalidValue, MissingField, UnknownField
from orm_core.peewee_facade import SQL, Field, Model, Node

#: what a column is compared with
V = TypeVar("V")
#: what a row carries: ``V``, or ``V | None`` where ``null=True``
G = TypeVar("G")

Unique: TypeAlias = bool | Literal["live"]

#: PostgreSQL's limit for identifiers and enum labels, in bytes (NAMEDATALEN - 1)
MAX_NAME_BYTES = 63


def quote_literal(text: str) -> str:
    """A text as an SQL literal in a statement that the driver formats (hence ``%%``)."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"


def is_sql(value: Any) -> bool:
    """Whether this is an SQL expression; Peewee's rows are nodes too, but they are values."""
    return isinstance(value, Node) and not isinstance(value, Model)


class Options(TypedDict, Generic[V], total=False):
    """What each field takes besides ``null``."""

    primary_key: bool
    index: bool
    unique: Unique
    default: V | Callable[[], V] | None
    server_default: str | None
    generated: str | None
    comment: str | None
    column_name: str | None
    constraints: list[Any] | None
    choices: Iterable[tuple[V, str]] | None
    help_text: str | None
    verbose_name: str | None
    index_type: str | None
    collation: str | None
    sequence: str | None


class CheckedField(Field[V, G]):
    """What all our columns share: checks, server defaults, uniqueness among live rows."""

    #: what a value must be, for the error's text
    expected: str = "a value of its type"
    #: whether ``to_database`` takes values of its type only, so that no SQL passes for one
    refuses_sql: bool = False
    #: whether tools that show rows must leave the content in the database
    secret: bool = False
    #: the constant that ``default`` answers copies of; None for any other default
    copied_default: Any = None

    def __init__(
        self,
        *args: Any,
        unique: Unique = False,
        server_default: str | None = None,
        generated: str | None = None,
        comment: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, unique=bool(unique), **kwargs)
        self.unique_live: bool = unique == "live"
        self.server_default = server_default
        self.generated = generated
        self.comment = comment

    @property
    def server_default_sql(self) -> str | None:
        """SQL of the column's DEFAULT, from ``server_default`` or a constant ``default``."""
        if self.server_default is not None or self.default is None or callable(self.default):
            return self.server_default
        return self.literal(self.default)

    def literal(self, value: Any) -> str:
        """The value as SQL for DEFAULT."""
        return quote_literal(str(self.to_database(value)))

    def ddl(self, ctx: Any) -> Any:
        """The column's definition, with its DEFAULT or its expression."""
        node = super().ddl(ctx)
        default = self.server_default_sql
        if self.generated is not None:
            node.nodes.append(SQL(f"GENERATED ALWAYS AS ({self.generated}) STORED"))
        elif default is not None:
            node.nodes.append(SQL(f"DEFAULT {default}"))
        return node

    def db_value(self, value: Any) -> Any:
        """The value for the driver. Raises ``InvalidValue`` when it does not fit."""
        if value is None or is_sql(value):
            return value
        return self.to_database(value)

    def copy_default(self) -> None:
        """Give each row a copy of a mutable ``default``; the constant stays the server's."""
        constant = self.default
        if constant is not None and not callable(constant):
            self.server_default = self.server_default or self.literal(constant)
            self.copied_default = constant
            self.default: Any = lambda: deepcopy(constant)

    def to_database(self, value: Any) -> Any:
        """Check and convert a value that is not None; ``refuse`` what does not fit."""
        return value

    def python_value(self, value: Any) -> Any:
        """The value that a row carries for what the driver read."""
        return value

    def array_item(self, value: Any) -> Any:
        """The value as an item of an array, to be written as text."""
        return self.db_value(value)

    def refuse(self, reason: str | None = None) -> InvalidValue:
        """The error for a value that does not fit; it never shows the value."""
        return InvalidValue(f"{self.label} must be {reason or self.expected}; no SQL was sent.")

    @property
    def label(self) -> str:
        """``Model.field``, for messages."""
        model = getattr(self, "model", None)
        return f"{model.__name__}.{self.name}" if model is not None else type(self).__name__


def has_one_type(field: object) -> bool:
    """Whether its values reach the driver as one type, whatever a caller gave.

    A field that passes values as they are, or that is not ours, may send 1 and then 1.5.
    """
    check = getattr(type(field), "to_database", None)
    if check is None or check is cast("Any", CheckedField).to_database:
        return False
    return str(check.__module__).startswith("orm_core.models.")


def is_generated(field: Any) -> bool:
    """Whether the server computes the column."""
    return getattr(field, "generated", None) is not None


def unknown_field(model: Any, name: Any) -> UnknownField:
    """The error for a name that the model has no field for, with the likeliest one."""
    if not isinstance(name, str):
        return UnknownField(f"{model.__name__}: fields are given by name; no SQL was sent.")
    if len(name) > 63 or not name.isidentifier():
        return UnknownField(f"{model.__name__} has no field of that name. No SQL was sent.")
    import difflib

    known: list[str] = list(model._meta.combined)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UnknownField(f"{model.__name__} has no field {name}.{hint} No SQL was sent.")


def missing_fields(model: Any, names: Iterable[str]) -> MissingField:
    """The error for fields that must be given."""
    return MissingField(f"{model.__name__} needs {', '.join(names)}; no SQL was sent.")


def shorten(name: str) -> str:
    """An identifier within PostgreSQL's 63 bytes; a longer one ends in a hash of itself."""
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    import hashlib

    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: MAX_NAME_BYTES - 9].decode(errors='ignore')}_{digest}"
