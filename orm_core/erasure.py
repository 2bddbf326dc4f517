"""Erasure: destroy the data key of an owner, and with it all that was sealed for it.

::

    erasable(User, user.id)     # what would become unreadable, and nothing happens
    erase(User, user.id)        # orm-core erase users <id>

The rows stay and can be used; their secrets raise ``SecretErased``. Blind indexes, by which equal
values can be told, are emptied. Copies of the rows, wherever they are, can't be opened either; a
copy of ``data_keys`` can still be unwrapped by the key ring, see docs/erasure.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from orm_core.crypto.data_key import OWNER
from orm_core.errors import InvalidValue, NotFound
from orm_core.models.base import BaseModel
from orm_core.models.batches import quoted, table_of
from orm_core.models.owners import (
    TABLE,
    forget_keys,
    owned_fields,
    owner_field,
    owner_model,
    owner_name,
)
from orm_core.models.row_security import refuse_hidden_rows

#: the iv of a value that was removed, as it was not sealed with the data key
_REMOVED: Final = f"{'0' * 24}.{OWNER}"


@dataclass(frozen=True, slots=True)
class ErasedColumn:
    """How many rows of an owner have a secret in a column, soft-deleted ones included."""

    table: str
    column: str
    rows: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """What can't be read any more, or would not be, once an owner's data key is erased."""

    #: the table and the id of the owner
    table: str
    row: str
    columns: tuple[ErasedColumn, ...]
    #: when the data key was erased first; None when it was not
    erased_at: datetime | None

    @property
    def secrets(self) -> int:
        """How many values there are in all columns."""
        return sum(column.rows for column in self.columns)


def owns_secrets(model: type[BaseModel]) -> bool:
    """Whether rows of this model own secrets, of their own or in other tables."""
    return next(_owned_by(model), None) is not None


def erasable(model: type[BaseModel], id: UUID | str | int) -> Erasure:
    """What ``erase`` would make unreadable; changes nothing. Raises as ``erase`` does."""
    key = _checked(model, id)
    return _told(model, key)


def erase(model: type[BaseModel], id: UUID | str | int) -> Erasure:
    """Destroy the data key of the row ``id`` of ``model``, live or soft-deleted, for good.

    Answers what can't be read any more. Repeating it is no error: ``erased_at`` stays the first
    moment. Secrets can't be written for this owner again. Waits for transactions that are writing
    some; stopped in the middle, it is run again. Raises ``NotFound`` without such a row, and
    ``InvalidValue`` for a model whose rows own no secrets, and ``InsufficientPrivilege`` when row
    security hides rows from this role.
    """
    key = _checked(model, id)
    database = _database(model)
    with database.atomic():
        _erase_key(database, owner_name(model, key))
    # From here on nobody writes a secret of this owner, so what is found below is all there is.
    with database.atomic():
        for field in _owned_by(model):
            _empty(field, key)
    forget_keys()
    return _told(model, key)


def _database(model: Any) -> Any:
    return model._meta.database


def _owned_by(model: Any) -> Iterator[Any]:
    """The encrypted fields whose secrets rows of a model own."""
    models = {model: None, **{key.model: None for key in model._meta.backrefs}}
    for one in models:
        for field in owned_fields(one):
            if owner_model(field) is model:
                yield field


def _checked(model: Any, id: Any) -> Any:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise InvalidValue("The owner of secrets is told by its model and its id.")
    table, primary = model._meta.table_name, model._meta.primary_key
    if not owns_secrets(model):
        raise InvalidValue(
            f"Rows of {table} own no secrets: no encrypted column names them with owner=..., so "
            "there is nothing to erase."
        )
    for one in {model, *(field.model for field in _owned_by(model))}:
        refuse_hidden_rows(one)
    if id is None:
        raise InvalidValue(f"{model.__name__}.id may not be None; no SQL was sent.")
    key = primary.to_database(id)
    if not model.with_deleted().where(primary == key).exists():
        raise NotFound(f"No row of {table}, live or soft-deleted, has this id.")
    return key


def _erase_key(database: Any, name: str) -> None:
    # An owner without a key gets a row as well: it is not to have one from now on.
    database.execute_sql(
        f"INSERT INTO {TABLE} (id, erased_at) VALUES (%s, now()) ON CONFLICT (id) DO NOTHING",
        (name,),
    )
    # An UPDATE alone would not wait for who holds it FOR KEY SHARE.
    database.execute_sql(f"SELECT FROM {TABLE} WHERE id = %s FOR UPDATE", (name,))
    database.execute_sql(
        f"UPDATE {TABLE} SET wrapped = NULL, wrapped_iv = NULL, wrapped_tag = NULL, "
        "erased_at = coalesce(erased_at, now()), updated_at = now() WHERE id = %s",
        (name,),
    )


def _empty(field: Any, key: Any) -> None:
    """Remove what the data key does not cover: blind indexes, and values sealed before it."""
    value, iv, tag, *index = (quoted(one.column_name) for one in field.columns)
    table, database = table_of(field.model), _database(field.model)
    where = f"WHERE {quoted(owner_field(field).column_name)} = %s"
    for column in index:
        database.execute_sql(
            f"UPDATE {table} SET {column} = NULL {where} AND {column} IS NOT NULL",
            (key,),
        )
    database.execute_sql(
        f"UPDATE {table} SET {value} = '', {iv} = %s, {tag} = '' {where} "
        f"AND {value} IS NOT NULL AND {iv} NOT LIKE %s",
        (_REMOVED, key, f"%.{OWNER}"),
    )


def _told(model: Any, key: Any) -> Erasure:
    columns: list[ErasedColumn] = []
    for field in _owned_by(model):
        query = field.model.select().with_deleted()
        rows = query.where(owner_field(field) == key, field.is_null(False)).count()
        columns.append(ErasedColumn(field.model._meta.table_name, field.column_name, rows))
    found = _database(model).execute_sql(
        f"SELECT erased_at FROM {TABLE} WHERE id = %s",
        (owner_name(model, key),),
    )
    row = found.fetchone()
    return Erasure(model._meta.table_name, str(key), tuple(columns), row[0] if row else None)
