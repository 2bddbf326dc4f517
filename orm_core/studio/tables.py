"""What the studio knows of a table: its domain, its service and its columns, by kind.

``Tables(registry)`` holds all registered tables. A column goes by its name in the database; the
field's name is understood too. The iv and tag of a secret are no columns of their own here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from orm_core import peewee_facade as peewee
from orm_core.domain import Registry, table_of
from orm_core.errors import InvalidValue, NotFound, UnknownField
from orm_core.models import fields
from orm_core.models.columns import is_generated, unknown_field
from orm_core.models.encrypted import EncryptedField
from orm_core.models.soft_delete import is_soft

Kind: TypeAlias = Literal[
    "text", "integer", "float", "decimal", "boolean", "enum", "uuid", "time", "date", "json",
    "array", "secret", "other",
]  # fmt: skip

_KINDS: tuple[tuple[type[Any], Kind], ...] = (
    (fields.EnumField, "enum"),
    (fields.BooleanField, "boolean"),
    (peewee.IntegerField, "integer"),
    (peewee.BigIntegerField, "integer"),
    (fields.DoubleField, "float"),
    (fields.DecimalField, "decimal"),
    (fields.DateTimeField, "time"),
    (fields.DateField, "date"),
    (fields.UUIDField, "uuid"),
    (fields.JSONField, "json"),
    (fields.ArrayField, "array"),
    (fields.TextField, "text"),
    (fields.CharField, "text"),
)

#: names of columns that tell a person which row it is, the best first
_TELLING = ("name", "title", "email", "label", "subject", "slug", "code", "number", "first_name")


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One column of a table; ``target`` is the model that a foreign key leads to."""

    field: Any
    kind: Kind

    @property
    def name(self) -> str:
        """Its name in the database."""
        return str(self.field.column_name)

    @property
    def target(self) -> Any:
        """The model that this refers to, or None."""
        return getattr(self.field, "rel_model", None)

    @property
    def nullable(self) -> bool:
        """Whether it may be NULL."""
        return bool(self.field.null)

    @property
    def sortable(self) -> bool:
        """Whether rows can be put in its order."""
        return self.kind not in ("secret", "json", "array", "other")

    @property
    def is_secret(self) -> bool:
        """Whether its content stays in the database."""
        return self.kind == "secret"

    @property
    def is_generated(self) -> bool:
        """Whether the server computes it."""
        return is_generated(self.field)

    @property
    def labels(self) -> tuple[str, ...]:
        """The choices of an enum."""
        return tuple(getattr(self.field, "labels", ()))


def kind_of(one: Any) -> Kind:
    """The kind of a field; a reference has the kind of what it refers to."""
    if getattr(one, "secret", False):
        return "secret"
    if isinstance(one, peewee.ForeignKeyField):
        return kind_of(one.rel_field)
    for cls, kind in _KINDS:
        if isinstance(one, cls):
            return kind
    return "other"


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A registered table."""

    name: str
    domain: str
    model: Any
    service: Any
    columns: tuple[Column, ...]
    _names: dict[str, Column] = field(repr=False)

    @classmethod
    def of(cls, domain: Any, model: Any) -> Table:
        """What there is to know of a model of a domain."""
        meta = model._meta
        parts = {
            part.name
            for secret in meta.sorted_fields
            if isinstance(secret, EncryptedField)
            for part in secret.columns[1:]
        }
        shown = [one for one in meta.sorted_fields if one.name not in parts]
        columns = tuple(Column(one, kind_of(one)) for one in shown)
        service = next((one for one in domain.services if one.model is model), None)
        names = {column.field.name: column for column in columns}
        names |= {column.name: column for column in columns}
        return cls(table_of(model), domain.name, model, service, columns, names)

    @property
    def key(self) -> Column:
        """The primary key. Raises ``InvalidValue`` when it is not one column."""
        if len(self.keys) != 1:
            raise InvalidValue(
                f"{self.name} has no primary key of one column, so the studio can't tell its rows "
                "apart; its structure is shown."
            )
        return self.keys[0]

    @property
    def keys(self) -> list[Column]:
        """The columns of the primary key."""
        return [self._names[one.name] for one in self.model._meta.get_primary_keys()]

    @property
    def is_soft(self) -> bool:
        """Whether deleted rows stay, marked by ``deleted_at``."""
        return is_soft(self.model)

    @property
    def telling(self) -> Column | None:
        """The column that tells a person which row it is."""
        texts = [one for one in self.columns if one.kind == "text" and not one.target]
        for name in _TELLING:
            for column in texts:
                if column.name == name:
                    return column
        return next((one for one in texts if not one.nullable), None)

    def column(self, name: str) -> Column:
        """The column of this name. Raises ``UnknownField``."""
        found = self._names.get(name)
        if found is None:
            raise self.unknown(name)
        return found

    def unknown(self, name: str) -> UnknownField:
        """The error for a name that is no column."""
        return unknown_field(self.model, name)

    @property
    def references(self) -> list[Column]:
        """The columns that refer to other tables."""
        return [column for column in self.columns if column.target is not None]


class Tables:
    """The registered tables, by name and by model, in the order of their domains."""

    def __init__(self, registry: Registry) -> None:
        self._tables = {
            table_of(model): Table.of(domain, model)
            for domain in registry
            for model in domain.models
        }
        self._by_model = {table.model: table for table in self}

    def __iter__(self) -> Iterator[Table]:
        return iter(self._tables.values())

    def __len__(self) -> int:
        return len(self._tables)

    def __getitem__(self, name: str) -> Table:
        try:
            return self._tables[name]
        except KeyError:
            raise NotFound(
                "No registered domain has a table of that name. The tables at the left are those "
                "that the studio knows; ORM_CORE_DOMAINS may leave some out."
            ) from None

    def of(self, model: Any) -> Table | None:
        """The table of a model, if it is registered."""
        return self._by_model.get(model)

    @property
    def domains(self) -> dict[str, list[Table]]:
        """The tables of each domain."""
        found: dict[str, list[Table]] = {}
        for table in self:
            found.setdefault(table.domain, []).append(table)
        return found

    def referring_to(self, table: Table) -> Iterable[tuple[Table, Column]]:
        """The tables and columns that refer to a table."""
        return [
            (other, column)
            for other in self
            for column in other.references
            if column.target is table.model
        ]
