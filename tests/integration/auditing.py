"""An audited domain of every kind of column, and what tests of the audit trail share."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orm_core import (
    ArrayField,
    AuditEntry,
    BaseModel,
    BooleanField,
    DateTimeField,
    DecimalField,
    Domain,
    DoubleField,
    EncryptedTextField,
    EnumField,
    IntegerField,
    JSONField,
    OtherField,
    Registry,
    Service,
    TextField,
    UUIDField,
    db,
)
from orm_core.models.schema import create_all


class Mood(enum.Enum):
    """A native enum."""

    GOOD = "good"
    BAD = "bad"


class Item(BaseModel):
    """A row with a column of each kind."""

    name = TextField()
    code = TextField(null=True, unique="live")
    amount = DecimalField(null=True, max_digits=20, decimal_places=4)
    share: DoubleField[Any] = DoubleField(null=True)
    count = IntegerField(null=True)
    is_open = BooleanField(null=True)
    at = DateTimeField(null=True)
    mood = EnumField(Mood, null=True)
    tags = ArrayField(TextField(), null=True)
    facts = JSONField(null=True)
    other = UUIDField(null=True)
    data = OtherField("bytea", null=True)
    secret = EncryptedTextField(null=True, blind_index=True)

    class Meta:
        table_name = "audited_items"


class ItemsService(Service[Item]):
    """Items."""


def domain(audit: Any = True) -> Domain:
    """The domain, audited or not."""
    return Domain("audited_items", models=(Item,), services=(ItemsService,), audit=audit)


@contextmanager
def audited(audit: Any = True) -> Iterator[Registry]:
    """Tables of the domain and the trail, in the schema of ``db``."""
    registry = Registry()
    registry.register(domain(audit))
    create_all(db, registry.models)
    try:
        yield registry
    finally:
        db.audited = False
        Item._meta.audit = False
        AuditEntry._meta.audit = "trail"


def entries(*fields: Any) -> list[Any]:
    """The trail in its order, or fields of it."""
    query = AuditEntry.select(*fields).order_by(AuditEntry.id)
    return list(query.tuples() if fields else query)


def told(entry: AuditEntry) -> tuple[str, set[str]]:
    """An entry's operation, and the columns that changed but for ``updated_at``."""
    return entry.operation, {*(entry.new or {}), *(entry.masked or ())} - {"updated_at"}
