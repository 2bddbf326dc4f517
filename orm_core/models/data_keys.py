"""The table of data keys, which the registry adds where a model's secrets have an owner."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from orm_core.crypto.secret import Secret
from orm_core.models.base import BaseModel
from orm_core.models.columns import G
from orm_core.models.encrypted import EncryptedField
from orm_core.models.fields import DateTimeField, TextField
from orm_core.models.owners import TABLE, unwrap
from orm_core.models.stored_secret import StoredSecret


class StoredDataKey(StoredSecret):
    """A data key of a loaded row; one that is not bound to its owner does not open."""

    __slots__ = ()

    def plain(self) -> str:
        """Unwrap. Raises ``SecretUnreadable``."""
        return unwrap(self._context[2], self._sealed)


class WrappedKeyField(EncryptedField[Secret, G]):
    """A data key, sealed with the key ring for its owner."""

    max_bytes = 64
    secret_class = Secret
    stored_class: ClassVar[type[StoredSecret]] = StoredDataKey

    def holds(self, value: Any) -> bool:
        """Whether this is a ``Secret``."""
        return isinstance(value, Secret)


class DataKey(BaseModel):
    """The data key of an owner, whose name is the id; without a key once it was erased."""

    id = TextField(primary_key=True)  # type: ignore[assignment]
    wrapped: WrappedKeyField[Secret | None] = WrappedKeyField(null=True)
    erased_at: DateTimeField[datetime | None] = DateTimeField(null=True)
    deleted_at = None  # pyright: ignore

    class Meta:
        table_name = TABLE
