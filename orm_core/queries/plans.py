"""What the verbs of a service send: compiled once for each shape of a call.

A shape is a verb, a model and the names of the fields that are given. The names are checked, and
the SQL is made, when a shape is met first; a later call converts its values and sends them. The
SQL is that of the same query built by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from psycopg2.extras import Json

from orm_core import peewee_facade as peewee
from orm_core.errors import NotFound, SecretUnreadable, ServerRejectedValue
from orm_core.models import soft_delete, versions
from orm_core.models.columns import CheckedField
from orm_core.models.encrypted import EncryptedField
from orm_core.models.fields import DateTimeField, UUIDField
from orm_core.models.identifiers import utcnow, utcnow_text, uuid7, uuid7_text
from orm_core.models.insert import InsertQuery, complete_row
from orm_core.models.owners import writing
from orm_core.models.payloads import check_changes, check_new, fields_of
from orm_core.models.soft_delete import Visibility, cascading
from orm_core.queries.binding import Binding, converter
from orm_core.queries.compiled import Parameter, Statement, as_given

#: the parameter of a row's id, which no field is called
_KEY = "the key"
_TIMES = "deleted_at", "updated_at"
#: shapes that plans are kept for; then they start anew
MOST_PLANS = 2048


def plan_for(model: Any, kind: Callable[..., Any], *shape: Any) -> Any:
    """The plan of a shape, made by ``kind(model, *shape)`` and kept until a model changes."""
    plans = model._meta.plans
    plan = plans.get((kind, model, shape))
    if plan is None:
        plan = kind(model, *shape)
        if len(plans) >= MOST_PLANS:
            plans.clear()
        plans[kind, model, shape] = plan
    return plan


class Insert:
    """INSERT of one row from a payload with these names."""

    def __init__(self, model: Any, names: tuple[Any, ...]) -> None:
        given = fields_of(model, names)
        check_new(model, given.values())
        filled = {field.name for field in given.values()}
        defaults = [
            field
            for field in model._meta.sorted_fields
            if field.default is not None and field.name not in filled
        ]
        key = model._meta.primary_key.name
        binding = Binding()
        times = [one.name for one in defaults if one.name in ("created_at", "updated_at")]
        shared = times if len(times) == 2 else []  # of a new row they are one moment
        plain, secrets = _apart({one.name: one for one in defaults})
        for name, field in plain.items():
            if name not in shared:
                binding.made(_default(field), name)
        if shared:
            binding.made(_default(model._meta.fields["created_at"]), *shared)
        given_plain, given_secrets = _apart(given)
        for name, field in given_plain.items():
            binding.given(name, field)
        for name, field in given_secrets.items():
            binding.sealed(name, field, key)
        for field in secrets.values():
            binding.sealed_default(_called(field.default), field, key)
        every = [*plain.values(), *given_plain.values(), *secrets.values(), *given_secrets.values()]
        values = {
            column: Parameter(column.name, as_given) for one in every for column in _columns(one)
        }
        query: InsertQuery[Any] = InsertQuery(model)
        query._insert = complete_row(model, values, set(values))
        self._statement = Statement(query.returning(model))
        self._bind = binding.function(self._statement.keys, self._statement.constants)
        self._model = model
        self._owned = _have_owners(every)

    def row(self, payload: Mapping[str, Any]) -> Any:
        """Insert; answers the row as stored. Raises ``ServerRejectedValue`` when none was."""
        if not self._owned:
            row = self._statement.first(self._bind(payload, None))
        else:
            with writing(self._model):
                row = self._statement.first(self._bind(payload, None))
        if row is None:
            table = self._model._meta.table_name
            raise ServerRejectedValue(
                f"No row was stored in {table}: a trigger or rule of it passed it over.",
                table=table,
            )
        return row


class ByKey:
    """SELECT of the row with a key."""

    def __init__(self, model: Any, visibility: Visibility) -> None:
        query = model.select().where(model._meta.primary_key == Parameter(_KEY, as_given))
        self._statement = Statement(query._seeing(visibility))

    def row(self, key: Any) -> Any:
        """The row, or None."""
        return self._statement.first((key,))


class Find:
    """SELECT of the first row, by key, with values in these fields."""

    def __init__(self, model: Any, names: tuple[str, ...], visibility: Visibility) -> None:
        fields = fields_of(model, names).values()
        self._secrets = [
            (place, field)
            for place, field in enumerate(fields)
            if isinstance(field, EncryptedField)
        ]
        query = model.select().where(*map(_equals, fields))
        if not _at_most_one(model, names, visibility):
            query = query.order_by(model._meta.primary_key).limit(1)
        self._statement = Statement(query._seeing(visibility))
        binding = Binding()
        for place, field in enumerate(fields):
            binding.compared(place, field)
        self._bind = binding.function(self._statement.keys, self._statement.constants)

    def row(self, values: Sequence[Any]) -> Any:
        """The row, or None; ``values`` in the order of the names."""
        row: Any = self._statement.first(self._bind(values, None))
        for place, field in self._secrets:
            # A blind index is not bound to its row, so what was found is opened.
            if row is not None and getattr(row, field.name) != values[place]:
                raise SecretUnreadable(
                    f"{'.'.join(field.place)} of row {row._pk}: its blind index is that of another "
                    "value: one of them was altered or moved."
                )
        return row


def _equals(field: Any) -> Any:
    if isinstance(field, EncryptedField) and field.blind_index:
        digests = Parameter(field.name, as_given)
        return getattr(field.model, field.index_name) == peewee.fn.ANY(digests)
    return field == Parameter(field.name)


def _at_most_one(model: Any, names: Iterable[str], visibility: Visibility) -> bool:
    """Whether a unique key lets only one row have these values."""
    given = {field.name for field in fields_of(model, names).values()}
    return any(
        given.issuperset(field.name for field in fields) and (visibility == "live" or not live_only)
        for fields, live_only in model._meta.unique_keys()
        if all(hasattr(field, "name") for field in fields)
    )


class Update:
    """UPDATE of the row with a key, by a payload with these names."""

    def __init__(self, model: Any, names: tuple[Any, ...], visibility: Visibility) -> None:
        given = fields_of(model, names)
        check_changes(model, given.values())
        versions.check_named(model, given, "update")
        self._model, self._visibility = model, visibility
        self._version = model._meta.version
        plain, secrets = _apart(given)
        binding = Binding()
        binding.key(_KEY)
        for name, field in plain.items():
            binding.given(name, field)
        for name, field in secrets.items():
            binding.sealed(name, field, _KEY)
        written = [*plain.values(), *secrets.values()]
        changes = {
            column: Parameter(column.name, as_given) for one in written for column in _columns(one)
        }
        expected = changes.pop(self._version, None)
        moved = model._meta.fields.get("updated_at")
        if moved is not None and moved not in changes:
            changes[moved] = Parameter("updated_at", as_given)
            binding.made(_now, "updated_at")
        query = cast("Any", soft_delete.UpdateQuery)(model, changes)
        query = query.where(model._meta.primary_key == Parameter(_KEY, as_given))
        if self._version is not None:
            query = query.where(self._version == expected)
        self._statement = Statement(query._seeing(visibility).returning(model))
        self._bind = binding.function(self._statement.keys, self._statement.constants)
        self._owned = _have_owners(written)

    def row(self, key: Any, payload: Mapping[str, Any]) -> Any:
        """Update; answers the row as stored, or None without one. Raises ``StaleRow``."""
        if not self._owned:
            return self._row(key, payload)
        with writing(self._model):
            try:
                return self._row(key, payload)
            except NotFound:
                return None

    def _row(self, key: Any, payload: Mapping[str, Any]) -> Any:
        values = self._bind(payload, key)
        row = self._statement.first(values)
        if row is None and self._version is not None:
            seen = self._model.select()._seeing(self._visibility)
            expected = values[self._statement.keys.index(self._version.name)]
            versions.check_fresh(seen, {key: expected})
        return row


class SoftDelete:
    """UPDATE that marks the row with a key as deleted, and those that cascade from it."""

    def __init__(self, model: Any) -> None:
        self._database = model._meta.get_database_instance
        self._mark = _Marking(model, model._meta.primary_key == Parameter(_KEY, as_given), model)
        self._below = [_Below(reference) for reference in cascading(model)]

    def row(self, key: Any) -> Any:
        """Mark; answers the row, or None without a live one."""
        if not self._below:
            return self._mark.row(key, utcnow_text())
        moment = utcnow()
        with self._database().atomic():
            row = self._mark.row(key, moment)
            for below in self._below if row is not None else ():
                below.mark(key, moment)
        return row


class _Below:
    """The rows that are deleted with the one that they refer to."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference
        # What cascades further is found row by row, by the query of any number of rows.
        self._mark = (
            None
            if cascading(reference.model)
            else _Marking(reference.model, reference.in_([Parameter(_KEY, as_given)]))
        )

    def mark(self, key: Any, moment: datetime) -> None:
        if self._mark is not None:
            self._mark.rows(key, moment)
            return
        query = soft_delete.SoftDelete(self._reference.model, moment)
        query.where(self._reference.in_([key])).execute()


class _Marking:
    """UPDATE of the times of the rows that a condition on a key finds."""

    def __init__(self, model: Any, where: Any, *returning: Any) -> None:
        times = [one for one in _TIMES if one in model._meta.fields]
        changes = {model._meta.fields[one]: Parameter(one, as_given) for one in times}
        update: soft_delete.UpdateQuery[int] = soft_delete.UpdateQuery(model, changes)
        query = update.where(where)
        self._statement = Statement(query.returning(*returning) if returning else query)
        binding = Binding()
        binding.key(_KEY)
        binding.whole(*times)
        self._bind = binding.function(self._statement.keys, self._statement.constants)

    def rows(self, key: Any, moment: Any) -> Any:
        """Mark them; answers the driver's cursor."""
        return self._statement.cursor(self._bind(moment, key))

    def row(self, key: Any, moment: Any) -> Any:
        """Mark them; answers the first, or None."""
        return self._statement.first(self._bind(moment, key))


def _apart(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain columns, and the encrypted ones."""
    names = {name for name, one in fields.items() if isinstance(one, EncryptedField)}
    plain = {name: one for name, one in fields.items() if name not in names}
    return plain, {name: fields[name] for name in fields if name in names}


def _have_owners(fields: Iterable[Any]) -> bool:
    """Whether a data key is needed."""
    return any(getattr(field, "owner", None) for field in fields)


def _columns(field: Any) -> tuple[Any, ...]:
    columns: tuple[Any, ...] = field.columns if isinstance(field, EncryptedField) else (field,)
    return columns


def _called(default: Any) -> Callable[[], Any]:
    return default if callable(default) else lambda: default


def _now() -> Any:
    return utcnow_text()  # looked up by each call, so that tests may have one moment


#: our own defaults as the driver takes them; they need no check
_READY: Final[dict[Any, tuple[type[CheckedField[Any, Any]], Callable[[], str]]]] = {
    uuid7: (UUIDField, uuid7_text),
    utcnow: (DateTimeField, utcnow_text),
}


def _default(field: Any) -> Callable[[], Any]:
    """What makes the value of a field that is not given, ready for the driver."""
    kind, ready = _READY.get(field.default, (None, None))
    if ready is not None and type(field) is kind:
        return ready
    convert = converter(field)
    if callable(field.default) and field.copied_default is None:
        return lambda: convert(field.default())
    value = convert(field.copied_default if callable(field.default) else field.default)
    if isinstance(value, Json):
        value = str(value.dumps(value.adapted))  # once for all rows
    return lambda: value
