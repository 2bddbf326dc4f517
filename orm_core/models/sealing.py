"""Secrets sealed for the rows that they are written to, with the data keys of their owners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from orm_core.crypto.data_key import DataKey
from orm_core.errors import NotFound
from orm_core.models.encrypted import EncryptedField
from orm_core.models.owners import SELF, keys_to_write, owner_field, owner_model, owner_name
from orm_core.models.sealed_parts import SealedText
from orm_core.peewee_facade import Model, Node


def seal_new(values: Mapping[Any, Any], key: Any, *, owned: bool = True) -> dict[Any, Any]:
    """The values of a new row, by field, with every secret replaced by what is stored of it.

    Without ``owned``, secrets that have an owner are checked and left.
    """
    return _sealed(values, key, owned=owned, stored=False)


def seal_changes(values: Mapping[Any, Any], key: Any) -> dict[Any, Any]:
    """The same for values to set in the row ``key``. Raises ``NotFound`` when it has no owner."""
    return _sealed(values, key, owned=True, stored=True)


def _sealed(values: Mapping[Any, Any], key: Any, *, owned: bool, stored: bool) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for field, value in values.items():
        if not isinstance(field, EncryptedField) or type(value) is SealedText:
            result[field] = value
        elif field.owner and not owned:
            if value is not None:
                field.check(value)
            result[field] = value
        else:
            owners = None if stored or not field.owner else [_owner_of(field, values, key)]
            (data_key,) = data_keys(field, [value], [key], owners)
            result.update(field.seal(value, key, data_key))
    return result


def seal_columns(
    columns: Mapping[Any, Sequence[Any]], key: Any, *, stored: bool = False
) -> dict[Any, Sequence[Any]]:
    """Columns of new or ``stored`` rows, with each secret sealed for its row."""
    result: dict[Any, Sequence[Any]] = {}
    for field, values in columns.items():
        if not isinstance(field, EncryptedField):
            result[field] = values
            continue
        secret = cast("Any", field)
        keys = columns.get(key) or [None] * len(values)
        owners = None
        if field.owner and not stored:
            owners = keys if field.owner == SELF else columns.get(owner_field(field))
            owners = owners or [None] * len(values)
        keyed = zip(values, keys, data_keys(field, values, keys, owners), strict=True)
        parts = [secret.seal(*one) for one in keyed]
        for part in secret.columns:
            result[part] = [one[part] for one in parts]
    return result


def data_keys(
    field: Any, secrets: Sequence[Any], keys: Sequence[Any], owners: Sequence[Any] | None
) -> list[DataKey | None]:
    """The data key for each secret; None where there is no secret, or it has no owner.

    ``owners`` are those of new rows; None looks up those of the stored rows ``keys``.
    """
    given = [place for place, secret in enumerate(secrets) if secret is not None]
    if not field.owner or not given:
        return [None] * len(secrets)
    for place in given:
        field.check(secrets[place])  # before SQL
    if owners is None:
        owners = _stored_owners(field, keys)
    model = owner_model(field)
    names = {
        place: owner_name(model, owners[place])
        for place in given
        if owners[place] is not None and not isinstance(owners[place], Node)
    }
    found = keys_to_write(field.model._meta.database, names.values())
    return [found[names[place]] if place in names else None for place in range(len(secrets))]


def _owner_of(field: Any, values: Mapping[Any, Any], key: Any) -> Any:
    """The owner's id in the values of a new row; None when it is not known before."""
    owner = owner_field(field)
    value = key if field.owner == SELF else values.get(owner)
    if isinstance(value, Model):
        return owner.db_value(value)
    return value


def _stored_owners(field: Any, keys: Sequence[Any]) -> list[Any]:
    """The owners' ids of stored rows. Raises ``NotFound`` when a row is not there."""
    model, owner = field.model, owner_field(field)
    primary = model._meta.primary_key
    query = model.select(primary, owner).with_deleted().where(primary.in_(list(keys)))
    found = {primary.db_value(key): value for key, value in query.tuples()}
    try:
        return [found[primary.db_value(key)] for key in keys]
    except KeyError:
        raise NotFound(f"A row of {model._meta.table_name} is gone; nothing was written.") from None
