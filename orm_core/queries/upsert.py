"""Insert or, when the key is taken, update: INSERT ... ON CONFLICT, or by lock for secrets.

Of many rows those with the same names go in one statement, sorted by their keys, so that two
batches do not wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from orm_core.errors import DuplicateKey, InvalidValue
from orm_core.models.batches import (
    Column,
    by_names,
    convert_column,
    new_columns,
    quoted,
    returning,
    table_of,
    unnested,
)
from orm_core.models.bulk_insert import answered
from orm_core.models.encrypted import EncryptedField
from orm_core.models.owners import SELF, owned_fields, owner_field
from orm_core.models.payloads import check_new, read_new
from orm_core.models.soft_delete import condition, is_soft
from orm_core.models.versions import refuse_by_hand
from orm_core.queries.rows import first_returned


def upsert(model: Any, values: Mapping[Any, Any], on: Iterable[str] | None) -> Any:
    """Insert the row or update the live one with the same key; answers it as stored.

    ``on`` names the key's fields; None finds the one unique key that ``values`` fill. Raises
    ``InvalidValue`` when that is not one, ``DuplicateKey`` when a soft-deleted row holds it.
    """
    _refuse_kept(model, values)
    target, live = _key(model, values, on)
    if owned_fields(model) or any(isinstance(field, EncryptedField) for field in values):
        return _by_lock(model, values, target)
    return _at_once(model, values, target, live)


def upsert_rows(
    model: Any, payloads: Sequence[Mapping[str, Any]], on: Iterable[str] | None
) -> list[Any]:
    """``upsert`` of each payload, all or none; answers the rows in the same order.

    Raises ``InvalidValue`` when two payloads have the same key, or go by different ones.
    """
    database = model._meta.database
    batches = _batches(model, payloads, on)

    def write() -> list[Any]:
        rows: list[Any] = [None] * len(payloads)
        with database.atomic():
            for batch in batches:
                for place, row in zip(batch.places, batch.write(), strict=True):
                    rows[place] = row
        return rows

    try:
        return write()
    except DuplicateKey:
        if database.in_transaction():
            raise
        return write()  # see _first_in_race


def _batches(
    model: Any, payloads: Sequence[Mapping[str, Any]], on: Iterable[str] | None
) -> list[_Batch]:
    names = None if on is None else [on] if isinstance(on, str) else list(on)
    batches = [
        _Batch(model, payloads, given, places, names) for given, places in by_names(model, payloads)
    ]
    if len({batch.target for batch in batches}) > 1:
        raise InvalidValue(
            f"The payloads of {model.__name__}.upsert_many go by different keys; name one with "
            "on=(...). No SQL was sent."
        )
    keys = [key for batch in batches for key in batch.keys if None not in key]
    if len(set(keys)) != len(keys):
        raise InvalidValue(
            f"Two payloads of {model.__name__}.upsert_many have the same key; no SQL was sent."
        )
    return batches


class _Batch:
    """Payloads of the same names, in the order of their keys."""

    def __init__(
        self,
        model: Any,
        payloads: Sequence[Mapping[str, Any]],
        given: Mapping[str, Any],
        places: Sequence[int],
        on: Iterable[str] | None,
    ) -> None:
        fields = list(given.values())
        _refuse_kept(model, set(fields))
        check_new(model, fields)
        self._model, self._fields = model, fields
        self.target, self._live = _key(model, dict.fromkeys(fields), on)
        by_field = {field: name for name, field in given.items()}
        columns = [
            _key_values(one, [payloads[place][by_field[one]] for place in places])
            for one in self.target
        ]
        keyed = sorted(
            zip(zip(*columns, strict=True), places, strict=True), key=lambda one: str(one[0])
        )
        self.keys = [key for key, _ in keyed]
        self.places = [place for _, place in keyed]
        self._payloads = [payloads[place] for place in self.places]
        # Secrets are written row by row, and those of an owner not sealed before.
        secret = owned_fields(model) or any(isinstance(one, EncryptedField) for one in fields)
        self._columns = None if secret else new_columns(model, self._payloads)
        self._rows = [read_new(model, payload) for payload in self._payloads] if secret else None

    def write(self) -> list[Any]:
        """Insert or update; answers the rows in the order of ``places``."""
        columns = self._columns
        if columns is None or not all(column.has_text for column in columns):
            rows = self._rows or [read_new(self._model, payload) for payload in self._payloads]
            names = [field.name for field in self.target]
            return [upsert(self._model, row, names) for row in rows]
        rows = self._send(columns)
        if len(rows) != len(self.places):
            raise _held_by_deleted(self._model, self.target)
        return rows

    def _send(self, columns: Sequence[Column]) -> list[Any]:
        model, meta = self._model, self._model._meta
        fields = [column.field for column in columns]
        source, selected = unnested(fields, "new")
        changed = _changed(model, self._fields, self.target)
        moved = meta.fields.get("updated_at")
        if moved is not None and moved not in set(changed):
            changed.append(moved)
        settings = [
            f"{quoted(one.column_name)} = EXCLUDED.{quoted(one.column_name)}" for one in changed
        ]
        is_live = (
            f"{quoted(meta.fields['deleted_at'].column_name)} IS NULL" if is_soft(model) else ""
        )
        if meta.version is not None:
            counter = quoted(meta.version.column_name)
            settings.append(f"{counter} = {quoted(meta.table_name)}.{counter} + 1")
        arbiter = ", ".join(quoted(field.column_name) for field in self.target)
        sql = (
            f"INSERT INTO {table_of(model)} "
            f"({', '.join(quoted(field.column_name) for field in fields)}) "
            f"SELECT {', '.join(selected)} FROM {source} "
            f"ON CONFLICT ({arbiter}){f' WHERE {is_live}' if self._live else ''} "
            f"DO UPDATE SET {', '.join(settings)} "
            f"{f'WHERE {quoted(meta.table_name)}.{is_live} ' if is_live else ''}"
            f"{returning(model, alone=True)}"
        )
        arrays = [column.array() for column in columns]
        return answered(model, meta.database.execute_sql(sql, arrays))


def _key_values(field: Any, values: list[Any]) -> Sequence[Any]:
    """The values of a key, to be told apart; those of a secret are its digests."""
    if not isinstance(field, EncryptedField):
        return convert_column(field, values)
    return [None if value is None else field.digests(value)[0] for value in values]


def _refuse_kept(model: Any, fields: Collection[Any]) -> None:
    refuse_by_hand(model, fields)
    if model._meta.fields.get("deleted_at") in fields:
        raise InvalidValue(
            f"{model.__name__}.deleted_at is set by soft_delete() and cleared by restore(); no SQL "
            "was sent."
        )


def _changed(model: Any, fields: Iterable[Any], target: Sequence[Any]) -> list[Any]:
    """The fields that an update sets; at least one, as it answers the row."""
    kept = {field.name for field in (*target, model._meta.primary_key)}
    changed = [field for field in fields if field.name not in kept]
    return changed or [model._meta.fields.get("updated_at", target[0])]


def _held_by_deleted(model: Any, target: Sequence[Any]) -> DuplicateKey:
    return DuplicateKey(
        f"A soft-deleted row of {model._meta.table_name} has this key; restore() it first.",
        table=model._meta.table_name,
        columns=tuple(field.column_name for field in target),
    )


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
    query = model.insert(values).on_conflict(
        conflict_target=target,
        conflict_where=model.deleted_at.is_null() if live else None,
        preserve=_changed(model, values, target),
        where=condition(model, "live"),
    )
    row = _first_in_race(model, query)
    if row is None:
        raise _held_by_deleted(model, target)
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
    owners = [one for one in _owner_keys(model) if one in values]
    kept |= {field.name for field in owners}
    changed = {field: value for field, value in values.items() if field.name not in kept}
    if not changed:
        changed = {target[0]: values[target[0]]}  # to answer the row
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
            query = model.select(model._meta.primary_key, *owners).where(*same).for_update()
            for key, *found in query.tuples():
                _refuse_other_owner(values, dict(zip(owners, found, strict=True)))
                return model._update_row(key, changed)
        assert taken is not None  # noqa: S101 - the insert was refused
        raise taken


def _owner_keys(model: Any) -> list[Any]:
    """The foreign keys that tell the owners of a model's secrets."""
    fields = [owner_field(one) for one in owned_fields(model) if one.owner != SELF]
    return list(dict.fromkeys(fields))


def _refuse_other_owner(values: Mapping[Any, Any], stored: Mapping[Any, Any]) -> None:
    for owner, found in stored.items():
        if owner.db_value(values[owner]) != owner.db_value(found):
            raise InvalidValue(
                f"{owner.label} of a row can't be changed: its data key opens the row's secrets. "
                "Nothing was written."
            )
