"""Different changes to many rows in few statements: UPDATE ... FROM (VALUES ...)."""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
from collections.abc import Iterable, Mapping
from typing import Any

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.models.encrypted import seal_values
from orm_core.models.payloads import Payload, read_changes
from orm_core.queries.rows import returned


def update_rows(model: Any, payloads: Iterable[Payload], *, include_deleted: bool) -> list[Any]:
    """Apply each payload to the row whose id it names, all or none; answers the rows found.

    One statement for each set of fields. Raises ``InvalidValue`` for a payload without an id,
    and for two with the same.
    """
    changes = _changes_by_id(model, payloads)
    found: dict[str, Any] = {}
    with model._meta.database.atomic():
        for fields, rows in _by_fields(changes).items():
            query = _update_from_values(model, fields, rows)
            query = query.with_deleted() if include_deleted else query
            found.update((str(row._pk), row) for row in returned(query))
    return [found[key] for key in changes if key in found]


def _changes_by_id(model: Any, payloads: Iterable[Payload]) -> dict[str, dict[Any, Any]]:
    """The sealed changes of each row, by the text of its id."""
    primary = model._meta.primary_key
    changes: dict[str, dict[Any, Any]] = {}
    for payload in payloads:
        if not isinstance(payload, Mapping) or payload.get(primary.name) is None:
            raise InvalidValue(
                f"Each payload of {model.__name__}.update_many names its {primary.name}; no SQL "
                "was sent."
            )
        key = primary.to_database(payload[primary.name])
        if key in changes:
            raise InvalidValue("Two payloads name the same id; no SQL was sent.")
        rest = {name: value for name, value in payload.items() if name != primary.name}
        changes[key] = seal_values(read_changes(model, rest), key)
    return changes


def _by_fields(changes: Mapping[str, Any]) -> dict[tuple[str, ...], list[Any]]:
    groups: dict[tuple[str, ...], list[Any]] = {}
    for key, values in changes.items():
        names = tuple(sorted(field.name for field in values))
        by_name = {field.name: value for field, value in values.items()}
        groups.setdefault(names, []).append((key, [by_name[name] for name in names]))
    return groups


def _update_from_values(model: Any, names: tuple[str, ...], rows: list[Any]) -> Any:
    """UPDATE ... FROM (VALUES ...): different values for each row, in one statement."""
    primary = model._meta.primary_key
    fields = [model._meta.fields[name] for name in names]
    columns = [primary.column_name, *(field.column_name for field in fields)]
    table = peewee.ValuesList(
        [
            (key, *(field.db_value(value) for field, value in zip(fields, values, strict=True)))
            for key, values in rows
        ],
        columns=columns,
        alias="changes",
    )
    context = model._meta.database.get_sql_context()

    def typed(field: Any) -> Any:
        datatype = field.ddl_datatype(context).sql
        return peewee.Cast(getattr(table.c, field.column_name), datatype)

    changes = {field: typed(field) for field in fields}
    return model.update(changes).from_(table).where(primary == typed(primary))
