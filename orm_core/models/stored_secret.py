"""The secret of a loaded row, and how an instance's attribute gives it."""

from __future__ import annotations

from typing import Any

from orm_core import peewee_facade as peewee
from orm_core.crypto.in_use import index_keys, key_ring
from orm_core.crypto.ring import Sealed
from orm_core.crypto.secret import Secret, SecretJSON
from orm_core.errors import SecretUnreadable
from orm_core.models.sealed_parts import SealedText


class StoredSecret(Secret):
    """The secret of a loaded row; opened when it is revealed."""

    __slots__ = ("_context", "_digest", "_sealed")

    def __init__(
        self, sealed: Sealed, context: tuple[str, str, str], digest: str | None = None
    ) -> None:
        self._sealed = sealed
        self._context = context
        self._digest = digest

    def plain(self) -> str:
        """Decrypt. Raises ``SecretUnreadable``, which names the row, when that is impossible."""
        try:
            text = key_ring().open_sealed(self._sealed, self._context)
            if self._digest is None or index_keys().fits(self._digest, text, self._context[:2]):
                return text
            problem = (
                "Its blind index is not the one of its value: one of them was altered or moved."
            )
        except SecretUnreadable as error:
            problem = str(error)
        raise SecretUnreadable(f"{self._place}: {problem}")

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
        return field.stored(value, *parts, instance._pk, data.get(field.index_name))

    def __set__(self, instance: Any, value: Any) -> None:
        if value is not None and type(value) is not SealedText:
            self.field.check(value)
        super().__set__(instance, value)
