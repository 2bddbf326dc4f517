"""Encrypted text columns: a ``Secret`` in Python, value, iv and tag in the table.

``provider_access_token = EncryptedTextField()`` makes the columns ``provider_access_token``,
``provider_access_token_iv`` and ``provider_access_token_tag``. A row's secret is bound to its
table, column and id, so it opens nowhere else. It is sealed when the row is written: by
``create``, ``insert``, ``save`` and the services. A bulk ``update()`` can't write one, as it does
not know the rows' ids, and a plain str is refused everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Unpack, overload

from orm_core import peewee_facade as peewee
from orm_core import settings
from orm_core.crypto import KeyRing, Sealed, Secret, encode
from orm_core.errors import KeyRingError, SecretUnreadable
from orm_core.models.columns import CheckedField, G, Options
from orm_core.models.fields import CharField

VALUE_LENGTH: Final = 2048
PART_LENGTH: Final = 32
#: the value column holds hex, two digits a byte
MAX_BYTES: Final = VALUE_LENGTH // 2

_ring: KeyRing | None = None


def key_ring() -> KeyRing:
    """The key ring in use: what ``use_key_ring`` set, else ``ORM_CORE_TOKEN_KEYS``, read once.

    Raises ``KeyRingError`` when there is none.
    """
    global _ring
    if _ring is None:
        text = settings.load().token_keys
        if not text:
            raise KeyRingError(
                "No keys for encrypted columns: set ORM_CORE_TOKEN_KEYS to id:key, the key as 64 "
                'hex digits. python -c "from orm_core import KeyRing; print(KeyRing.generate())" '
                "makes one."
            )
        _ring = KeyRing.parse(text)
    return _ring


def use_key_ring(ring: KeyRing | None) -> None:
    """Use this key ring from now on; None reads ``ORM_CORE_TOKEN_KEYS`` anew."""
    global _ring
    _ring = ring


class SealedText(str):
    """One of the three stored parts; only sealing makes them, so no plain text passes for one."""

    __slots__ = ()


class StoredSecret(Secret):
    """The secret of a loaded row; opened when it is revealed."""

    __slots__ = ("_context", "_sealed")

    def __init__(self, sealed: Sealed, context: tuple[str, str, str]) -> None:
        self._sealed = sealed
        self._context = context

    def reveal(self) -> str:
        """Decrypt. Raises ``SecretUnreadable``, which names the row, when that is impossible."""
        try:
            return key_ring().open_sealed(self._sealed, self._context)
        except SecretUnreadable as error:
            table, column, row = self._context
            failure = SecretUnreadable(f"{table}.{column} of row {row}: {error}")
        raise failure


class SealedPartField(CharField[Any]):
    """The iv or the tag of an encrypted column."""

    secret = True

    def to_database(self, value: Any) -> str:
        if type(value) is not SealedText:
            raise self.refuse("left to the encrypted column it belongs to")
        return str(value)

    def python_value(self, value: Any) -> Any:
        return value if value is None else SealedText(value)


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
        return field.stored(value, *parts, instance._pk)

    def __set__(self, instance: Any, value: Any) -> None:
        if value is not None and type(value) is not SealedText:
            self.field.check(value)
        super().__set__(instance, value)


class EncryptedTextField(CheckedField[Secret, G]):
    """A text of at most 1,024 bytes (UTF-8), stored encrypted by AES-256-GCM.

    Assign a ``Secret`` or None; reading gives a ``Secret`` that opens on ``reveal()``.
    """

    accessor_class = SecretAccessor
    field_type = "VARCHAR"
    secret = True
    expected = 'a Secret, as in Secret("..."); a plain str would be stored unencrypted'

    @overload
    def __init__(
        self: EncryptedTextField[Secret],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[Secret]],
    ) -> None: ...
    @overload
    def __init__(
        self: EncryptedTextField[Secret | None],
        *,
        null: Literal[True],
        **options: Unpack[Options[Secret]],
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    @property
    def iv_field(self) -> Any:
        """The field of the iv, in hex, with the key's id."""
        return self.model._meta.fields[f"{self.name}_iv"]

    @property
    def tag_field(self) -> Any:
        """The field of the authentication tag, in hex."""
        return self.model._meta.fields[f"{self.name}_tag"]

    def get_modifiers(self) -> list[int]:
        """The length of the value column."""
        return [VALUE_LENGTH]

    def bind(self, model: Any, name: str, set_attribute: bool = True) -> None:
        """Peewee's hook; adds the columns of the iv and the tag to the model."""
        super().bind(model, name, set_attribute)
        for place, part in enumerate(("iv", "tag"), start=1):
            make: Any = SealedPartField
            field = make(PART_LENGTH, null=self.null, column_name=f"{self.column_name}_{part}")
            field._sort_key = (self._sort_key[0], self._sort_key[1] + place / 4)
            model._meta.add_field(f"{name}_{part}", field)

    def context(self, key: Any) -> tuple[str, str, str]:
        """What a value of this column in the row ``key`` is bound to."""
        meta = self.model._meta
        return meta.table_name, self.column_name, str(meta.primary_key.db_value(key))

    def stored(self, value: str | None, iv: Any, tag: Any, key: Any) -> StoredSecret | None:
        """The secret of the row ``key`` from what its three columns hold."""
        if value is None:
            return None
        return StoredSecret(Sealed(value, iv, tag), self.context(key))

    def check(self, value: Any) -> None:
        """Raise ``InvalidValue`` unless this is a ``Secret`` that fits."""
        if not isinstance(value, Secret):
            raise self.refuse()
        if isinstance(value, StoredSecret):
            return
        data = encode(value.reveal())
        if data is None:
            raise self.refuse("a Secret without lone surrogates")
        if len(data) > MAX_BYTES:
            raise self.refuse(f"a Secret of at most {MAX_BYTES} bytes in UTF-8")

    def python_value(self, value: Any) -> Any:
        return value if value is None else SealedText(value)

    def to_database(self, value: Any) -> str:
        if type(value) is not SealedText:
            reason = (
                "written through create(), save() or a service, which seal it for its row; it "
                "can't be compared or set in bulk"
                if isinstance(value, Secret)
                else None
            )
            raise self.refuse(reason)
        return str(value)

    def seal(
        self, secret: Secret | None, key: Any
    ) -> dict[peewee.Field[Any, Any], SealedText | None]:
        """The three columns' values for a secret of the row ``key``."""
        columns: tuple[peewee.Field[Any, Any], ...] = (self, self.iv_field, self.tag_field)
        if secret is None:
            return dict.fromkeys(columns)
        self.check(secret)
        if key is None or isinstance(key, peewee.Node):
            raise self.refuse("written with the id of its row, which it is bound to")
        sealed = key_ring().seal(secret.reveal(), self.context(key))
        return dict(zip(columns, map(SealedText, sealed), strict=True))


def seal_values(values: Mapping[Any, Any], key: Any) -> dict[Any, Any]:
    """The values of one row, by field, with every secret replaced by what is stored of it."""
    result: dict[Any, Any] = {}
    for field, value in values.items():
        if isinstance(field, EncryptedTextField) and type(value) is not SealedText:
            result.update(field.seal(value, key))
        else:
            result[field] = value
    return result
