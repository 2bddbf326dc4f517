"""Insert or, when the key is taken, update: INSERT ... ON CONFLICT, or by lock for secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orm_core.errors import DuplicateKey, InvalidValue
from orm_core.models.encrypted import EncryptedTextField
from orm_core.models.soft_delete import condition
from orm_core.queries.rows import first_returned


def upsert(model: Any, values: Mapping[Any, Any], on: Iterable[str] | None) -> Any:
    """Insert the row or update the live one with the same key; answers it as stored.

    ``on`` names the key's fields; None finds the one unique key that ``values`` fill. Raises
    ``InvalidValue`` when that is not one, ``DuplicateKey`` when a soft-deleted row holds it.
    """
    if model._meta.fields.get("deleted_at") in values:
        raise InvalidValue(
            f"{model.__name__}.deleted_at is set by soft_delete() and cleared by restore(); no SQL "
            "was sent."
        )
    target, live = _key(model, values, on)
    if any(isinstance(field, EncryptedTextField) for field in values):
        return _by_lock(model, values, target)
    return _at_once(model, values, target, live)


def _key(
    model: Any, values: Mapping[Any, Any], on: Iterable[str] | None
) -> tuple[tuple[Any, ...], bool]:
    """The fields of the key that an upsert goes by, and whether it covers live rows only."""
    primary = model._meta.primary_key
    keys = {tuple(one.name for one in fields): live for fields, live in model._meta.unique_keys()}
    keys[(primary.name,)] = False
    given = {field.name for field in values}
    if on is not None:
        names = tuple([on] if isinstance(on, str) else on)
        match = [key for key in keys if sorted(key) == sorted(names)]
    else:
        match = [key for key in keys if given.issuperset(key)]
    if len(match) != 1 or not given.issuperset(match[0]):
        choices = "; ".join(", ".join(key) for key in keys)
        raise InvalidValue(
            f"upsert of {model.__name__} needs one unique key whose fields are in the payload: "
            f"name it with on=(...), one of: {choices}. No SQL was sent."
        )
    return tuple(model._meta.fields[name] for name in match[0]), keys[match[0]]


def _at_once(model: Any, values: Any, target: tuple[Any, ...], live: bool) -> Any:
    kept = {field.name for field in (*target, model._meta.primary_key)}
    changed = [field for field in values if field.name not in kept]
    query = model.insert(values).on_conflict(
        conflict_target=target,
        conflict_where=model.deleted_at.is_null() if live else None,
        preserve=changed or [model._meta.fields.get("updated_at", target[0])],
        where=condition(model, "live"),
    )
    row = _first_in_race(model, query)
    if row is None:
        raise DuplicateKey(
            f"A soft-deleted row of {model._meta.table_name} has this key; restore() it first.",
            table=model._meta.table_name,
            columns=tuple(field.column_name for field in target),
        )
    return row


def _first_in_race(model: Any, query: Any) -> Any:
    """ON CONFLICT arbitrates one key: a twin of this row, inserted meanwhile, may meet another key
    first. By then the twin is there, so that the second attempt meets it where it should."""
    database = model._meta.database
    try:
        return first_returned(query)
    except DuplicateKey:
        if database.in_transaction():
            raise  # nothing can follow a failed statement; the caller may run the block again
        return first_returned(query)


def _by_lock(model: Any, values: Any, target: tuple[Any, ...]) -> Any:
    """Secrets are bound to the row's id, so that must be known before they are sealed."""
    database = model._meta.database
    same = [field == values[field] for field in target]
    kept = {field.name for field in (*target, model._meta.primary_key)}
    changed = {field: value for field, value in values.items() if field.name not in kept}
    taken: DuplicateKey | None = None
    with database.atomic():
        for attempt in ("update", "insert", "update"):
            if attempt == "insert":
                try:
                    with database.atomic():
                        return first_returned(model.insert(values))
                except DuplicateKey as error:
                    taken = error
                    continue
            key = model.select(model._meta.primary_key).where(*same).for_update().scalar()
            if key is not None and changed:
                return model._update_row(key, changed)
        assert taken is not None  # noqa: S101 - the insert was refused
        raise taken
