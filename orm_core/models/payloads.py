"""What callers hand to services, checked against a model before any SQL.

A payload maps field names to values; a foreign key goes by its name (a model or an id) or by
``<name>_id``. A condition is a Peewee predicate (``User.email == "x"``) or a mapping of field
names to the values they must equal.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias, cast

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.models.columns import is_generated, is_sql, missing_fields, unknown_field
from orm_core.models.encrypted import EncryptedField
from orm_core.models.owners import refuse_other_owner
from orm_core.peewee_facade import Node, Predicate

Payload: TypeAlias = Mapping[str, Any]
Condition: TypeAlias = "Predicate | Mapping[str, Any]"
Where: TypeAlias = "Condition | Iterable[Condition] | None"


def names_of(model: Any) -> dict[str, peewee.Field[Any, Any]]:
    """The names that a payload may use, with their fields; parts of secrets have none."""
    meta = model._meta
    hidden = {
        part.name
        for field in meta.sorted_fields
        if isinstance(field, EncryptedField)
        for part in field.columns[1:]
    }
    names = {field.name: field for field in meta.sorted_fields if field.name not in hidden}
    for key in meta.refs:
        names[key.object_id_name] = key
    return names


def is_required(field: Any) -> bool:
    """Whether a new row must be given a value: NOT NULL, and neither default nor counter."""
    return not (
        field.null
        or field.default is not None
        or getattr(field, "server_default_sql", None) is not None
        or is_generated(field)
        or getattr(field, "auto_increment", False)
    )


def fields_of(model: Any, names: Iterable[Any]) -> dict[str, peewee.Field[Any, Any]]:
    """The fields that a payload names, by its names. Raises ``InvalidValue``, ``UnknownField``."""
    known = names_of(model)
    fields: dict[str, peewee.Field[Any, Any]] = {}
    for name in names:
        field = known.get(name) if isinstance(name, str) else None
        if field is None:
            raise unknown_field(model, name)
        if any(field is one for one in fields.values()):
            raise InvalidValue(f"{model.__name__}.{field.name} is given twice; no SQL was sent.")
        fields[name] = field
    return fields


def _written(model: Any, payload: Payload) -> dict[str, peewee.Field[Any, Any]]:
    if not isinstance(payload, Mapping):
        raise not_a_payload(model)
    return fields_of(model, payload)


def not_a_payload(model: Any) -> InvalidValue:
    """The error for a payload that is no mapping."""
    return InvalidValue(
        f"The payload of {model.__name__} must be a dict of its fields; no SQL was sent."
    )


def check_new(model: Any, given: Collection[peewee.Field[Any, Any]]) -> None:
    """Raise ``MissingField`` unless these fields suffice for a new row, or ``InvalidValue``."""
    _check_written(model, given)
    names = {field.name for field in given}
    missing = [
        field.name
        for field in names_of(model).values()
        if field.name not in names and is_required(field)
    ]
    if missing:
        raise missing_fields(model, dict.fromkeys(missing))


def check_changes(model: Any, given: Collection[peewee.Field[Any, Any]]) -> None:
    """Raise ``InvalidValue`` unless these fields of a row may be changed."""
    _check_written(model, given)
    names = {field.name for field in given}
    if not names - {getattr(model._meta.version, "name", None)}:
        raise InvalidValue(f"The changes of {model.__name__} are empty; no SQL was sent.")
    if model._meta.primary_key.name in names:
        raise InvalidValue(f"{model.__name__}.id of a row can't be changed; no SQL was sent.")
    refuse_other_owner(model, given)
    if "deleted_at" in names:
        raise InvalidValue(
            f"{model.__name__}.deleted_at is set by soft_delete() and cleared by restore(), which "
            "take along what belongs to the row; no SQL was sent."
        )


def _check_written(model: Any, given: Iterable[peewee.Field[Any, Any]]) -> None:
    for field in given:
        if is_generated(field):
            raise InvalidValue(
                f"{model.__name__}.{field.name} is computed by the server; no SQL was sent."
            )


def read_new(model: Any, payload: Payload) -> dict[peewee.Field[Any, Any], Any]:
    """The values of a new row. Raises ``InvalidValue``, ``UnknownField`` or ``MissingField``."""
    given = _written(model, payload)
    check_new(model, given.values())
    return {field: checked(field, payload[name]) for name, field in given.items()}


def read_changes(model: Any, payload: Payload) -> dict[peewee.Field[Any, Any], Any]:
    """The values to change in rows, and the version that they must have, if it names one.

    Raises ``InvalidValue`` or ``UnknownField``.
    """
    given = _written(model, payload)
    check_changes(model, given.values())
    return {field: checked(field, payload[name]) for name, field in given.items()}


def checked(field: Any, value: Any) -> Any:
    """The value, when it fits the field. Raises ``InvalidValue`` otherwise."""
    if isinstance(field, EncryptedField) and value is not None and not is_sql(value):
        field.check(value)
    else:
        driver_value(field, value)
    return value


def driver_value(field: Any, value: Any) -> Any:
    """The value as the driver takes it. Raises ``InvalidValue`` when it does not fit the field."""
    if value is None:
        if not field.null:
            raise InvalidValue(f"{field.label} may not be None; no SQL was sent.")
        return None
    if is_sql(value):
        raise field.refuse(f"{field.expected}, not an SQL expression")
    return field.db_value(value)


def key_value(model: Any, key: Any) -> Any:
    """A row's id as the driver takes it. Raises ``InvalidValue`` for what is no id."""
    if key is None:
        raise InvalidValue(f"{model.__name__}.id may not be None; no SQL was sent.")
    return model._meta.primary_key.to_database(key)


def read_where(model: Any, where: Any) -> list[Any]:
    """Predicates for ``query.where(*...)``. Raises ``InvalidValue`` or ``UnknownField``."""
    if where is None:
        return []
    if isinstance(where, Mapping):
        pairs = cast("Mapping[Any, Any]", where)
        return [_equals(model, name, value) for name, value in pairs.items()]
    if isinstance(where, peewee.ColumnBase) and not isinstance(where, peewee.Value):
        return [where]
    if isinstance(where, str | bytes | type | Node) or not isinstance(where, Iterable):
        raise InvalidValue(
            f"A condition is a predicate like {model.__name__}.id == ..., or a dict of fields and "
            "values; text is never taken for SQL. No SQL was sent."
        )
    some = cast("Iterable[Any]", where)
    return [predicate for one in some for predicate in read_where(model, one)]


def _equals(model: Any, name: Any, value: Any) -> Any:
    field = names_of(model).get(name) if isinstance(name, str) else None
    if field is None:
        raise unknown_field(model, name)
    if value is not None:
        if is_sql(value):
            raise InvalidValue(f"{model.__name__}.{name} takes a value, not an SQL expression.")
        if not isinstance(field, EncryptedField) or not field.blind_index:
            field.db_value(value)
    return field == value
