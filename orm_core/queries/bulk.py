"""Different changes to many rows: one UPDATE ... FROM unnest(...) for each set of fields."""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.models.batches import (
    Column,
    by_names,
    convert_column,
    quoted,
    returning,
    sql_type,
    table_of,
    unnested,
)
from orm_core.models.bulk_insert import answered
from orm_core.models.identifiers import utcnow
from orm_core.models.owners import owned_fields, writing
from orm_core.models.payloads import Payload, check_changes
from orm_core.models.sealing import seal_columns
from orm_core.models.soft_delete import is_soft
from orm_core.models.versions import check_fresh, check_named
from orm_core.queries.rows import returned


def update_rows(model: Any, payloads: Iterable[Payload], *, include_deleted: bool) -> list[Any]:
    """Apply each payload to the row whose id it names, all or none; answers the rows found.

    One statement for each set of fields. Raises ``InvalidValue`` for a payload without an id,
    and for two with the same.
    """
    given = list(payloads)
    keys = _keys(model, given)
    with writing(model):
        return _updated(model, given, keys, include_deleted=include_deleted)


def _updated(
    model: Any, given: Sequence[Payload], keys: Sequence[Any], *, include_deleted: bool
) -> list[Any]:
    if owned_fields(model):
        given, keys = _stored_only(model, given, keys)
    groups = _by_fields(model, given, keys)
    found: dict[Any, Any] = {}
    database, version = model._meta.database, model._meta.version
    with database.atomic() if len(groups) > 1 or version is not None else nullcontext():
        for columns in groups:
            rows = _update(model, columns, include_deleted=include_deleted)
            found.update((model._meta.primary_key.db_value(row._pk), row) for row in rows)
        if version is not None and len(found) < len(keys):
            versions = zip(keys, (payload[version.name] for payload in given), strict=True)
            seen = model.with_deleted() if include_deleted else model.select()
            check_fresh(seen, {key: one for key, one in versions if key not in found})
    return [found[key] for key in keys if key in found]


def _keys(model: Any, payloads: Sequence[Any]) -> list[Any]:
    """The ids that payloads name, as the driver takes them."""
    primary = model._meta.primary_key
    payload: Any
    for payload in payloads:
        named = isinstance(payload, Mapping) and primary.name in payload
        if not named or payload[primary.name] is None:
            raise InvalidValue(
                f"Each payload of {model.__name__}.update_many names its {primary.name}; no SQL "
                "was sent."
            )
    keys = [primary.to_database(payload[primary.name]) for payload in payloads]
    if len(set(keys)) != len(keys):
        raise InvalidValue("Two payloads name the same id; no SQL was sent.")
    return keys


def _stored_only(
    model: Any, given: Sequence[Payload], keys: Sequence[Any]
) -> tuple[list[Payload], list[Any]]:
    """What is about rows that are there, whose owners can be told."""
    primary = model._meta.primary_key
    query = model.select(primary).with_deleted().where(primary.in_(list(keys))).tuples()
    stored = {primary.db_value(key) for (key,) in query}
    kept = [(payload, key) for payload, key in zip(given, keys, strict=True) if key in stored]
    return [payload for payload, _ in kept], [key for _, key in kept]


def _by_fields(
    model: Any, payloads: Sequence[Mapping[str, Any]], keys: Sequence[Any]
) -> list[list[Column]]:
    """The columns of each set of fields, that of the ids first."""
    primary = model._meta.primary_key
    groups: dict[frozenset[Any], dict[Any, list[Any]]] = {}
    for given, places in by_names(model, payloads):
        changed = {name: field for name, field in given.items() if field is not primary}
        check_changes(model, changed.values())
        check_named(model, changed, "update_many")
        columns: dict[Any, Sequence[Any]] = {primary: [keys[place] for place in places]}
        for name, field in changed.items():
            columns[field] = convert_column(field, [payloads[place][name] for place in places])
        sealed = seal_columns(columns, primary, stored=True)
        group = groups.setdefault(frozenset(sealed), {field: [] for field in sealed})
        for field, values in sealed.items():
            group[field].extend(values)
    return [[Column(field, values) for field, values in group.items()] for group in groups.values()]


def _update(model: Any, columns: Sequence[Column], *, include_deleted: bool) -> list[Any]:
    if not all(column.has_text for column in columns):
        query = _update_from_values(model, columns)
        return returned(query.with_deleted() if include_deleted else query)
    table, meta = table_of(model), model._meta
    fields = [column.field for column in columns]
    source, selected = unnested(fields, "changes")
    key, *changes = zip(fields, selected, strict=True)
    version = meta.version
    settings = [
        f"{quoted(field.column_name)} = {value}" for field, value in changes if field is not version
    ]
    values: list[Any] = []
    moved = meta.fields.get("updated_at")
    if moved is not None and moved not in set(fields):
        settings.append(f"{quoted(moved.column_name)} = %s")
        values.append(utcnow())
    where = f"{table}.{quoted(key[0].column_name)} = {key[1]}"
    if version is not None:
        counter = f"{table}.{quoted(version.column_name)}"
        settings.append(f"{quoted(version.column_name)} = {counter} + 1")
        where += f" AND {counter} = {dict(changes)[version]}"
    if is_soft(model) and not include_deleted:
        where += f" AND {table}.{quoted(meta.fields['deleted_at'].column_name)} IS NULL"
    sql = f"UPDATE {table} SET {', '.join(settings)} FROM {source} WHERE {where} {returning(model)}"
    values += [column.array() for column in columns]
    return answered(model, meta.database.execute_sql(sql, values))


def _update_from_values(model: Any, columns: Sequence[Column]) -> Any:
    """The same by Peewee, for types that only the driver can write."""
    fields = [column.field for column in columns]
    rows = list(zip(*(column.values for column in columns), strict=True))
    names = [field.column_name for field in fields]
    table = peewee.ValuesList(rows, columns=names, alias="changes")

    def typed(field: Any) -> Any:
        return peewee.Cast(getattr(table.c, field.column_name), sql_type(field))

    key, *changed = fields
    changes = {field: typed(field) for field in changed}
    same = [key == typed(key)]
    if model._meta.version is not None:
        same.append(model._meta.version == changes.pop(model._meta.version))
    return model.update(changes).from_(table).where(*same)
