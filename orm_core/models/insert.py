"""INSERT: rows completed with their defaults, secrets sealed, nothing dropped in silence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, TypeVar, cast

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.models.columns import is_generated, missing_fields
from orm_core.models.encrypted import EncryptedField
from orm_core.models.owners import owned_fields, refuse_other_owner, writing
from orm_core.models.rows import MakesRows
from orm_core.models.sealing import seal_new
from orm_core.models.versions import counted, refuse_by_hand
from orm_core.peewee_facade import SQL, Node

R = TypeVar("R")


class InsertQuery(MakesRows, peewee.ModelInsert[R]):
    """INSERT; every row is completed with its defaults, and its secrets are sealed."""

    def __init__(self, model: Any, insert: Any = None, columns: Any = None, **kwargs: Any) -> None:
        if isinstance(insert, Mapping):
            insert = _complete(model, [insert])[0]
        elif insert is not None and not isinstance(insert, Node):
            rows = _as_mappings(model, insert, columns)
            insert, columns = _complete(model, rows), None
        super().__init__(model, insert=insert, columns=columns, **kwargs)

    def get_default_data(self) -> dict[Any, Any]:
        """Nothing: the rows are complete."""
        return {}

    def _execute(self, database: Any) -> Any:
        rows: Any = self._insert
        one = isinstance(rows, dict)
        if not owned_fields(self.model) or not (one or isinstance(rows, list)):
            return super()._execute(database)
        # A data key is held from sealing to writing, so these are sealed no earlier.
        primary = self.model._meta.primary_key
        with writing(self.model, database):
            some = cast("list[dict[Any, Any]]", [rows] if one else rows)
            sealed = [seal_new(row, row.get(primary)) for row in some]
            self._insert = sealed[0] if one else sealed
            try:
                return super()._execute(database)
            finally:
                self._insert = rows

    def __sql__(self, ctx: Any) -> Any:
        conflict = self._on_conflict
        if conflict is None or not (conflict._update or conflict._preserve):
            return super().__sql__(ctx)
        twin = object.__new__(type(self))
        twin.__dict__ = self.__dict__.copy()
        twin._on_conflict = _as_update(self.model, conflict)
        return super(InsertQuery, twin).__sql__(ctx)


def _as_mappings(model: Any, rows: Iterable[Any], columns: Any) -> list[Mapping[Any, Any]]:
    names = list(columns or model._meta.sorted_fields)
    mappings: list[Mapping[Any, Any]] = []
    row: Any
    for row in rows:
        if isinstance(row, Mapping):
            mappings.append(cast("Mapping[Any, Any]", row))
        elif len(row) == len(names):
            mappings.append(dict(zip(names, row, strict=True)))
        else:
            raise InvalidValue(
                f"A row of {model.__name__}.insert_many() has {len(row)} values for {len(names)} "
                "columns; no SQL was sent."
            )
    return mappings


def _complete(model: Any, rows: list[Mapping[Any, Any]]) -> list[dict[Any, Any]]:
    """Rows by field, all with the same fields: given values, else defaults, else the server's."""
    given = [model._normalize_data(dict(row), {}) for row in rows]
    used = {field for row in given for field in row}
    rows_by_field = [complete_row(model, row, used) for row in given]
    key = model._meta.primary_key
    return [seal_new(row, row.get(key), owned=False) for row in rows_by_field]


def complete_row(model: Any, given: Mapping[Any, Any], used: Set[Any]) -> dict[Any, Any]:
    """The values of one row by field: those given, else defaults, else the server's.

    ``used`` are the fields of the statement, whose rows all have the same.
    """
    meta = model._meta
    values = {meta.fields[name]: value for name, value in meta.get_default_dict().items()}
    values.update(given)
    for field in meta.sorted_fields:
        if field in values:
            continue
        if _is_filled_by_server(field):
            values[field] = SQL("DEFAULT")
        elif field.null and field in used:
            values[field] = None
        elif field in used:
            raise missing_fields(model, [field.name])
    return values


def _is_filled_by_server(field: Any) -> bool:
    return getattr(field, "server_default_sql", None) is not None or is_generated(field)


def _as_update(model: Any, conflict: Any) -> Any:
    """The UPDATE of a conflict, which moves ``updated_at`` and counts a version as others do."""
    fields = model._meta.fields
    updates: dict[Any, Any] = conflict._update or {}
    for name, value in updates.items():
        if isinstance(value, peewee.Model):
            field = model._meta.combined.get(name, name) if isinstance(name, str) else name
            field.db_value(value)
    touched = {
        model._meta.combined.get(name, name) if isinstance(name, str) else name
        for name in (*(conflict._update or ()), *(conflict._preserve or ()))
    }
    if any(isinstance(field, EncryptedField) for field in touched):
        raise InvalidValue(
            "ON CONFLICT can't update an encrypted column, which is bound to its row's id; use "
            "the service's upsert(); no SQL was sent."
        )
    refuse_by_hand(model, touched)
    refuse_other_owner(model, touched)
    conflict = conflict.clone()
    conflict._update = counted(model, updates)
    moved = fields.get("updated_at")
    if moved is None or moved in touched:
        return conflict
    return conflict.preserve(*(conflict._preserve or ()), moved)
