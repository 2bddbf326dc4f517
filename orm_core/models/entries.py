"""What a model's payloads and rows are made of: the one source of their types.

The TypedDicts of ``orm-core types generate``, ``to_pydantic`` and ``to_dict`` all read it, and it
asks ``payloads`` what may and must be given, so that none of them tells another story.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from orm_core import peewee_facade as peewee
from orm_core.crypto.secret import Secret, SecretJSON
from orm_core.models.columns import is_generated
from orm_core.models.encrypted import EncryptedField, EncryptedJSONField
from orm_core.models.fields import ArrayField, EnumField, JSONField
from orm_core.models.payloads import is_required, names_of

#: the type of a column's values, by Peewee's class of the field
_TYPES: tuple[tuple[type, Any], ...] = (
    (EncryptedJSONField, SecretJSON),
    (EncryptedField, Secret),
    (peewee.CharField, str),
    (peewee.TextField, str),
    (peewee.IntegerField, int),
    (peewee.BooleanField, bool),
    (peewee.DoubleField, float),
    (peewee.DecimalField, Decimal),
    (peewee.DateTimeField, datetime),
    (peewee.DateField, date),
    (peewee.UUIDField, UUID),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a payload or a row; ``type`` leaves out the None of a nullable column."""

    name: str
    field: Any
    type: Any
    nullable: bool
    required: bool

    @property
    def is_secret(self) -> bool:
        """Whether the column is encrypted."""
        return isinstance(self.field, EncryptedField)

    @property
    def is_kept_by_the_model(self) -> bool:
        """Whether it is the key or one of the times, which BaseModel fills."""
        standard = ("created_at", "updated_at", "deleted_at")
        return bool(self.field.primary_key) or self.name in standard


def type_of(field: Any) -> Any:
    """What a row carries for this column: a class, a generic such as ``list[str]``, or Any."""
    if isinstance(field, peewee.ForeignKeyField):
        return type_of(field.rel_field)
    if isinstance(field, EnumField):
        return field.enum_class
    if isinstance(field, JSONField):
        return field.holds
    if isinstance(field, ArrayField):
        return list[type_of(field.inner)]  # type: ignore[misc]
    return next((found for kind, found in _TYPES if isinstance(field, kind)), Any)


def new_entries(model: Any) -> list[Entry]:
    """The keys of the payload of ``create``."""
    return [entry for entry in _entries(model) if not is_generated(entry.field)]


def change_entries(model: Any) -> list[Entry]:
    """The keys of the payload of ``update``; only a version is required."""
    return [
        replace(entry, required=entry.field is model._meta.version)
        for entry in new_entries(model)
        if not entry.field.primary_key and entry.name != "deleted_at"
    ]


def row_entries(model: Any) -> list[Entry]:
    """The keys of a row that may be shown; secrets are left out."""
    return [entry for entry in _entries(model) if not entry.is_secret]


def _entries(model: Any) -> Iterator[Entry]:
    """The columns; a foreign key goes by the name of its id."""
    hidden = set(model._meta.fields) - set(names_of(model))
    for field in model._meta.sorted_fields:
        if field.name not in hidden:
            key = isinstance(field, peewee.ForeignKeyField)
            name = field.object_id_name if key else field.name
            yield Entry(name, field, type_of(field), bool(field.null), is_required(field))
