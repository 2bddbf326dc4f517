"""Names that secrets are bound to: under another, nobody could open what is stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orm_core.errors import MigrationError
from orm_core.migrations.names import Name
from orm_core.migrations.renames import Rename
from orm_core.models.encrypted import EncryptedField
from orm_core.models.owners import owned_fields, owner_model


class BoundNames:
    """The tables and the columns of the models whose names are part of what is sealed."""

    def __init__(self, models: Iterable[Any]) -> None:
        self._columns: set[tuple[Name, str]] = set()
        self._tables: set[Name] = set()
        #: tables that data keys are called after, with their schemas
        self._owners: set[Name] = set()
        for model in models:
            for field in model._meta.sorted_fields:
                if isinstance(field, EncryptedField):
                    self._tables.add(_name(model))
                    self._columns |= {(_name(model), part.column_name) for part in field.columns}
            self._owners |= {_name(owner_model(field)) for field in owned_fields(model)}

    def refuse(self, rename: Rename) -> None:
        """Raise ``MigrationError`` for a rename that would make secrets unreadable."""
        if rename.names is not None:
            old, new = rename.names
            moved = new in self._tables and old[1] != new[1]
            if rename.kind == "table" and (moved or new in self._owners):
                raise _refusal(rename, f'table_name = "{old[1]}" in the model\'s Meta')
        if rename.column is not None:
            table, _, after = rename.column
            if (table, after) in self._columns:
                raise _refusal(rename, "column_name=... in the model's field")


def _name(model: Any) -> Name:
    return model._meta.schema or "public", model._meta.table_name


def _refusal(rename: Rename, keep: str) -> MigrationError:
    return MigrationError(
        f"Nothing was written. A migration that {rename.words} would make the secrets that are "
        "stored unreadable, as they are bound to the names of their table and column. Keep the "
        f"name in the database, by {keep}, or add what is new, write the secrets into it by code, "
        "and drop the old in a later migration."
    )
