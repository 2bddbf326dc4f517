"""Encrypted columns: a ``Secret`` in Python, value, iv and tag in the table.

``provider_access_token = EncryptedTextField()`` makes the columns ``provider_access_token``,
``provider_access_token_iv`` and ``provider_access_token_tag``. A row's secret is bound to its
table, column and id, so it opens nowhere else. It is sealed when the row is written: by
``create``, ``insert``, ``save`` and the services. A bulk ``update()`` can't write one, as it does
not know the rows' ids, and a plain str is refused everywhere.

``EncryptedTextField(blind_index=True)`` adds ``<name>_index``, a keyed hash by which
``where(Model.token == Secret("..."))`` finds the row; ``unique=True`` and ``unique="live"`` imply it.

``EncryptedTextField(owner="user")`` seals with the data key of the row's user, which
``orm_core.erasure`` destroys; ``owner="self"`` with one of the row itself.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Unpack, overload

from orm_core import peewee_facade as peewee
from orm_core.crypto.data_key import DataKey
from orm_core.crypto.in_use import index_keys, key_ring
from orm_core.crypto.ring import Sealed
from orm_core.crypto.secret import Secret, SecretJSON, encode
from orm_core.errors import RegistryError
from orm_core.models.columns import CheckedField, G, Options, Unique
from orm_core.models.owners import KeyPage, owner_model
from orm_core.models.sealed_parts import (
    INDEX_LENGTH,
    PART_LENGTH,
    BlindIndexField,
    SealedPartField,
    SealedText,
)
from orm_core.models.stored_secret import SecretAccessor, StoredSecret, StoredSecretJSON

S = TypeVar("S", bound=Secret)


class EncryptedField(CheckedField[S, G]):
    """What encrypted columns share; see ``EncryptedTextField`` and ``EncryptedJSONField``."""

    accessor_class = SecretAccessor
    field_type = "VARCHAR"
    secret = True
    #: the most that is encrypted, in bytes of UTF-8; the column holds two hex digits a byte
    max_bytes: ClassVar[int]
    #: what is assigned, and what a loaded row gives
    secret_class: ClassVar[type[Secret]]
    stored_class: ClassVar[type[StoredSecret]]

    def __init__(
        self,
        *args: Any,
        blind_index: bool = False,
        unique: Unique = False,
        owner: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        #: the foreign key whose row has the data key, or "self"
        self.owner: str | None = owner
        named: Any = owner
        if named is not None and not (isinstance(named, str) and named):
            raise RegistryError(
                f'{type(self).__name__}: owner names a foreign key of the model, or is "self".'
            )
        self.blind_index: bool = blind_index or bool(unique)
        self._unique_by_index = unique
        if self.index or self.primary_key:
            raise RegistryError(
                f"{type(self).__name__}: the stored value differs each time it is encrypted; index "
                "it with blind_index=True."
            )
        default = self.default
        is_constant = default is not None and not callable(default)
        if self.server_default or self.generated or (is_constant and not self.holds(default)):
            raise RegistryError(
                f"{type(self).__name__}: the server can't encrypt; give a default of "
                f"{self.secret_class.__name__}, or a function that answers one."
            )
        if is_constant:
            self.default: Any = lambda: default  # Python's only, as it is sealed for each row

    @property
    def iv_field(self) -> Any:
        """The field of the iv, in hex, with the key's id."""
        return self.model._meta.fields[f"{self.name}_iv"]

    @property
    def tag_field(self) -> Any:
        """The field of the authentication tag, in hex."""
        return self.model._meta.fields[f"{self.name}_tag"]

    @property
    def index_name(self) -> str:
        """What the field of the blind index is called, where there is one."""
        return f"{self.name}_index"

    @property
    def columns(self) -> tuple[Any, ...]:
        """The field itself, then those of the iv, the tag and, if there is one, the blind index."""
        names = ["iv", "tag", "index"] if self.blind_index else ["iv", "tag"]
        fields = self.model._meta.fields
        return self, *(fields[f"{self.name}_{name}"] for name in names)

    def get_modifiers(self) -> list[int]:
        """The length of the value column."""
        return [2 * self.max_bytes]

    def bind(self, model: Any, name: str, set_attribute: bool = True) -> None:
        """Peewee's hook; adds the columns of the parts to the model."""
        super().bind(model, name, set_attribute)
        make: Any = SealedPartField
        parts = {part: make(PART_LENGTH, null=self.null) for part in ("iv", "tag")}
        if self.blind_index:
            unique, make = self._unique_by_index, BlindIndexField
            parts["index"] = make(INDEX_LENGTH, null=True, unique=unique, index=not unique)
        for place, (part, field) in enumerate(parts.items(), start=1):
            field.column_name = f"{self.column_name}_{part}"
            field._sort_key = (self._sort_key[0], self._sort_key[1] + place / 4)
            model._meta.add_field(f"{name}_{part}", field)

    @property
    def place(self) -> tuple[str, str]:
        """The table and the column, which a digest is bound to."""
        return self.model._meta.table_name, self.column_name

    def identity(self, key: Any) -> str:
        """The text of a row's key, which its secrets are bound to."""
        if key is None or isinstance(key, peewee.Node):
            raise self.refuse("written with the id of its row, which it is bound to")
        return str(self.model._meta.primary_key.db_value(key))

    def context(self, key: Any) -> tuple[str, str, str]:
        """What a value of this column in the row ``key`` is bound to."""
        return *self.place, str(self.model._meta.primary_key.db_value(key))

    def stored(
        self,
        value: str | None,
        iv: Any,
        tag: Any,
        key: Any,
        digest: Any = None,
        owner: tuple[KeyPage, Any] | None = None,
    ) -> StoredSecret | None:
        """The secret of the row ``key`` from what its columns hold.

        ``owner`` is the page of data keys that its owner's is found in, and the owner's id.
        """
        if value is None:
            return None
        find_key = None
        if owner is not None:
            page, owner_id = owner
            find_key = partial(page.key, self.model._meta.database, owner_model(self), owner_id)
        return self.stored_class(Sealed(value, iv, tag), self.context(key), digest, find_key)

    def holds(self, value: Any) -> bool:
        """Whether this is a secret of the field's kind."""
        raise NotImplementedError

    def from_text(self, text: str) -> Secret:
        """The secret that somebody typed. Raises ``InvalidValue`` when the text is none."""
        return self.secret_class(text)

    def check(self, value: Any) -> None:
        """Raise ``InvalidValue`` unless this is a secret of the field's kind that fits."""
        if not self.holds(value):
            raise self.refuse()
        if not isinstance(value, StoredSecret):  # which is not opened for it
            self._plain(value)

    def _plain(self, secret: Secret) -> bytes:
        """What is encrypted of a secret. Raises ``InvalidValue`` when it does not fit."""
        plain = encode(secret.plain())
        if plain is None:
            raise self.refuse("a Secret without lone surrogates")
        if len(plain) > self.max_bytes:
            raise self.refuse(f"a Secret of at most {self.max_bytes} bytes in UTF-8")
        return plain

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
        self, secret: Secret | None, key: Any, data_key: DataKey | None = None
    ) -> dict[peewee.Field[Any, Any], SealedText | None]:
        """The columns' values for a secret of the row ``key``, whose owner has ``data_key``."""
        if secret is None:
            return dict.fromkeys(self.columns)
        texts = self.sealed(secret, self.identity(key), data_key)
        return dict(zip(self.columns, map(SealedText, texts), strict=True))

    def sealed(
        self, secret: Secret, identity: str, data_key: DataKey | None = None
    ) -> tuple[str, ...]:
        """The texts that are stored of a secret; ``identity`` is that of its row."""
        if not self.holds(secret):
            raise self.refuse()
        plain = self._plain(secret)
        if self.owner and data_key is None:
            raise self.refuse("written with its owner, whose data key seals it")
        context = self.model._meta.table_name, self.column_name, identity
        stored = (data_key or key_ring()).encrypt(plain, context)
        if self.blind_index:
            return *stored, index_keys().digest(plain.decode(), self.place)
        return stored

    def digests(self, secret: Any) -> list[str]:
        """What a row that holds this secret may have in its blind index, one for each key.

        Raises ``InvalidValue`` for what is no secret, or where there is no blind index.
        """
        if not self.blind_index:
            self.to_database(secret)
        self.check(secret)
        return index_keys().digests(secret.plain(), self.place)

    if not TYPE_CHECKING:  # to checkers it compares like any column

        def __eq__(self, other: Any) -> Any:
            if self.blind_index and isinstance(other, Secret):
                found = peewee.Value(self.digests(other), converter=False, unpack=False)
                return getattr(self.model, self.index_name) == peewee.fn.ANY(found)
            return super().__eq__(other)

        __hash__ = CheckedField.__hash__


class EncryptedTextField(EncryptedField[Secret, G]):
    """A text of at most 1,024 bytes (UTF-8), stored encrypted by AES-256-GCM.

    Assign a ``Secret`` or None; reading gives a ``Secret`` that opens on ``reveal()``.
    ``blind_index=True`` makes it findable by ``==``, ``unique=True`` or ``"live"`` unique as well.
    ``owner="user"`` (a foreign key) or ``"self"`` seals it with a data key that can be erased.
    """

    max_bytes = 1024
    secret_class = Secret
    stored_class = StoredSecret
    expected = 'a Secret, as in Secret("..."); a plain str would be stored unencrypted'

    @overload
    def __init__(
        self: EncryptedTextField[Secret],
        *,
        null: Literal[False] = False,
        blind_index: bool = False,
        owner: str | None = None,
        **options: Unpack[Options[Secret]],
    ) -> None: ...
    @overload
    def __init__(
        self: EncryptedTextField[Secret | None],
        *,
        null: Literal[True],
        blind_index: bool = False,
        owner: str | None = None,
        **options: Unpack[Options[Secret]],
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def holds(self, value: Any) -> bool:
        return isinstance(value, Secret) and not isinstance(value, SecretJSON)


class EncryptedJSONField(EncryptedField[SecretJSON, G]):
    """A value of JSON of at most 32,768 bytes as text, stored encrypted by AES-256-GCM.

    Assign a ``SecretJSON`` or None; reading gives a ``SecretJSON`` that opens on ``reveal()``.
    """

    max_bytes = 32_768
    secret_class: ClassVar[type[Secret]] = SecretJSON
    stored_class: ClassVar[type[StoredSecret]] = StoredSecretJSON
    expected = "a SecretJSON, as in SecretJSON({...}); a plain value would be stored unencrypted"

    @overload
    def __init__(
        self: EncryptedJSONField[SecretJSON],
        *,
        null: Literal[False] = False,
        owner: str | None = None,
        **options: Unpack[Options[SecretJSON]],
    ) -> None: ...
    @overload
    def __init__(
        self: EncryptedJSONField[SecretJSON | None],
        *,
        null: Literal[True],
        owner: str | None = None,
        **options: Unpack[Options[SecretJSON]],
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.blind_index:
            raise RegistryError("EncryptedJSONField has no blind index; only a text is looked up.")

    def holds(self, value: Any) -> bool:
        return isinstance(value, SecretJSON)

    def from_text(self, text: str) -> SecretJSON:
        """The secret of the value that somebody typed as JSON."""
        try:
            return SecretJSON(json.loads(text))
        except ValueError:
            pass  # not raised here: the error of json carries the text
        raise self.refuse("a text of JSON")
