"""The secret of a loaded row, and how an instance's attribute gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orm_core import peewee_facade as peewee
from orm_core.crypto.data_key import DataKey, is_owned
from orm_core.crypto.in_use import index_keys, key_ring
from orm_core.crypto.ring import KeyRing, Sealed
from orm_core.crypto.secret import Secret, SecretJSON
from orm_core.errors import SecretUnreadable
from orm_core.models.owners import KeyPage, owner_field
from orm_core.models.sealed_parts import SealedText


class StoredSecret(Secret):
    """The secret of a loaded row; opened when it is revealed."""

    __slots__ = ("_context", "_digest", "_find_key", "_sealed")

    def __init__(
        self,
        sealed: Sealed,
        context: tuple[str, str, str],
        digest: str | None = None,
        find_key: Callable[[], DataKey] | None = None,
    ) -> None:
        self._sealed = sealed
        self._context = context
        self._digest = digest
        #: finds the data key of its owner, if it has one
        self._find_key = find_key

    def plain(self) -> str:
        """Decrypt. Raises ``SecretUnreadable``, which names the row, when that is impossible."""
        try:
            text = self._key.open_sealed(self._sealed, self._context)
            if self._digest is None or index_keys().fits(self._digest, text, self._context[:2]):
                return text
            problem = (
                "Its blind index is not the one of its value: one of them was altered or moved."
            )
            kind = SecretUnreadable
        except SecretUnreadable as error:
            problem, kind = str(error), type(error)
        raise kind(f"{self._place}: {problem}")

    @property
    def _key(self) -> DataKey | KeyRing:
        # Rows from before the column had an owner are sealed with the key ring.
        owned = self._find_key is not None and is_owned(self._sealed.iv)
        return self._find_key() if owned and self._find_key is not None else key_ring()

    @property
    def _place(self) -> str:
        table, column, row = self._context
        return f"{table}.{column} of row {row}"


class StoredSecretJSON(StoredSecret, SecretJSON):
    """The secret of JSON of a loaded row; opened when it is revealed."""

    __slots__ = ()


class SecretAccessor(peewee.FieldAccessor):
    """Reads an encrypted column as a ``Secret``, and lets no plain text in."""

    def __get__(self, instance: Any, instance_type: Any = None) -> Any:
        if instance is None:
            return self.field
        data = instance.__data__
        value = data.get(self.name)
        if value is None or isinstance(value, Secret):
            return value
        field = self.field
        parts = [data.get(part.name) for part in (field.iv_field, field.tag_field)]
        if instance._pk is None or None in parts:
            raise SecretUnreadable(
                f"{field.label} was loaded without its other columns; select "
                f"{self.name}, {field.iv_field.name}, {field.tag_field.name} and the id, or the "
                "whole row."
            )
        owner = self._owner(instance) if field.owner else None
        return field.stored(value, *parts, instance._pk, data.get(field.index_name), owner)

    def _owner(self, instance: Any) -> tuple[KeyPage, Any]:
        """The page of data keys of the rows that this one was read with, and its owner."""
        name = owner_field(self.field).name
        if name not in instance.__data__:
            raise SecretUnreadable(
                f"{self.field.label} was loaded without its owner; select {name}, or the whole row."
            )
        page = instance.__dict__.get("_keys")
        if page is None:
            page = instance._keys = KeyPage()
        return page, instance.__data__[name]

    def __set__(self, instance: Any, value: Any) -> None:
        if value is not None and type(value) is not SealedText:
            self.field.check(value)
        super().__set__(instance, value)
