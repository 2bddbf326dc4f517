"""What is stored of an encrypted column: sealed texts, and the columns beside its own."""

from __future__ import annotations

from typing import Any, Final

from orm_core.models.fields import CharField

PART_LENGTH: Final = 32
#: 64 hex digits, a dot, the key's id
INDEX_LENGTH: Final = 72


class SealedText(str):
    """One of the stored parts; only sealing makes them, so no plain text passes for one."""

    __slots__ = ()


class SealedPartField(CharField[Any]):
    """The iv or the tag of an encrypted column."""

    secret = True

    def to_database(self, value: Any) -> str:
        if type(value) is not SealedText:
            raise self.refuse("left to the encrypted column it belongs to")
        return str(value)

    def python_value(self, value: Any) -> Any:
        return value if value is None else SealedText(value)


class BlindIndexField(SealedPartField):
    """The keyed hash of an encrypted column; NULL in rows written before there was one."""

    @property
    def stands_for(self) -> Any:
        """The encrypted field whose values this one tells apart."""
        return self.model._meta.fields[self.name.removesuffix("_index")]
