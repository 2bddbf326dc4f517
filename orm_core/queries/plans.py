"""What the verbs of a service send: compiled once for each shape of a call.

A shape is a verb, a model and the names of the fields that are given. The names are checked, and
the SQL is made, when a shape is met first; a later call converts its values and sends them. The
SQL is that of the same query built by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeAlias, cast

from orm_core import peewee_facade as peewee
from orm_core.crypto.secret import Secret
from orm_core.errors import InvalidValue, NotFound, SecretUnreadable
from orm_core.models import soft_delete, versions
from orm_core.models.columns import CheckedField
from orm_core.models.encrypted import EncryptedField
from orm_core.models.fields import DateTimeField, UUIDField
from orm_core.models.identifiers import utcnow, utcnow_text, uuid7, uuid7_text
from orm_core.models.insert import InsertQuery, complete_row
from orm_core.models.owners import SELF, owner_field, writing
from orm_core.models.payloads import check_changes, check_new, checked, driver_value, fields_of
from orm_core.models.sealing import data_keys
from orm_core.models.soft_delete import Visibility, cascading
from orm_core.queries.compiled import Parameter, Statement, as_given

Convert: TypeAlias = Callable[[Any], Any]

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
        secrets: dict[str, Any] = {
            one.name: one for one in defaults if isinstance(one, EncryptedField)
        }
        plain = [one for one in defaults if one.name not in secrets]
        self._one_moment = {"created_at", "updated_at"} <= {one.name for one in plain}
        self._defaults = [
            (one.name, _default(one))
            for one in plain
            if not (self._one_moment and one.name == "updated_at")
        ]
        self._secrets = [(name, field.default) for name, field in secrets.items()]
        self._values = _Values({**given, **secrets})
        set_here = (*self._values.fields, *plain)
        values = {field: Parameter(field.name, as_given) for field in set_here}
        query: InsertQuery[Any] = InsertQuery(model)
        query._insert = complete_row(model, values, set(values))
        self._model = model
        self._key = model._meta.primary_key.name
        self._statement = Statement(query.returning(model))

    def row(self, payload: Mapping[str, Any]) -> Any:
        """Insert; answers the row as stored."""
        values = {name: default() for name, default in self._defaults}
        if self._one_moment:
            values["updated_at"] = values["created_at"]
        if self._secrets:
            made = {name: one() if callable(one) else one for name, one in self._secrets}
            payload = {**payload, **made}
        if not self._values.owned:
            self._values.read(payload, values, self._key)
            return self._statement.first(values)
        with writing(self._model):
            self._values.read(payload, values, self._key)
            return self._statement.first(values)


class ByKey:
    """SELECT of the row with a key."""

    def __init__(self, model: Any, visibility: Visibility) -> None:
        query = model.select().where(model._meta.primary_key == Parameter(_KEY, as_given))
        self._statement = Statement(query._seeing(visibility))

    def row(self, key: Any) -> Any:
        """The row, or None."""
        return self._statement.first({_KEY: key})


class Find:
    """SELECT of the first row, by key, with values in these fields."""

    def __init__(self, model: Any, names: tuple[str, ...], visibility: Visibility) -> None:
        fields = fields_of(model, names).values()
        self._secrets = [
            (place, field)
            for place, field in enumerate(fields)
            if isinstance(field, EncryptedField)
        ]
        self._converters = [(field.name, _sought(field)) for field in fields]
        query = model.select().where(*map(_equals, fields))
        if not _at_most_one(model, names, visibility):
            query = query.order_by(model._meta.primary_key).limit(1)
        self._statement = Statement(query._seeing(visibility))

    def row(self, values: Iterable[Any]) -> Any:
        """The row, or None; ``values`` in the order of the names."""
        values = tuple(values)
        given = zip(self._converters, values, strict=True)
        row: Any = self._statement.first({name: convert(value) for (name, convert), value in given})
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


def _sought(field: Any) -> Convert:
    """What makes a value ready to be compared with a field."""
    if isinstance(field, EncryptedField):
        return field.digests
    return converter(field)


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
        self._values = _Values(given)
        changes = {field: Parameter(field.name, as_given) for field in self._values.fields}
        expected = changes.pop(self._version, None)
        moved = model._meta.fields.get("updated_at")
        self._moves = moved is not None and moved not in changes
        if self._moves:
            changes[moved] = Parameter("updated_at", as_given)
        query = cast("Any", soft_delete.UpdateQuery)(model, changes)
        query = query.where(model._meta.primary_key == Parameter(_KEY, as_given))
        if self._version is not None:
            query = query.where(self._version == expected)
        self._statement = Statement(query._seeing(visibility).returning(model))

    def row(self, key: Any, payload: Mapping[str, Any]) -> Any:
        """Update; answers the row as stored, or None without one. Raises ``StaleRow``."""
        values: dict[str, Any] = {_KEY: key}
        if self._moves:
            values["updated_at"] = utcnow_text()
        if not self._values.owned:
            return self._row(key, payload, values)
        with writing(self._model):
            try:
                return self._row(key, payload, values)
            except NotFound:
                return None

    def _row(self, key: Any, payload: Mapping[str, Any], values: dict[str, Any]) -> Any:
        self._values.read(payload, values, _KEY)
        row = self._statement.first(values)
        if row is None and self._version is not None:
            seen = self._model.select()._seeing(self._visibility)
            versions.check_fresh(seen, {key: values[self._version.name]})
        return row


class SoftDelete:
    """UPDATE that marks the row with a key as deleted, and those that cascade from it."""

    def __init__(self, model: Any) -> None:
        self._database = model._meta.get_database_instance
        self._statement = _marking(
            model, model._meta.primary_key == Parameter(_KEY, as_given), model
        )
        self._below = [_Below(reference) for reference in cascading(model)]

    def row(self, key: Any) -> Any:
        """Mark; answers the row, or None without a live one."""
        moment = utcnow()
        values = {_KEY: key, **dict.fromkeys(_TIMES, moment)}
        if not self._below:
            return self._statement.first(values)
        with self._database().atomic():
            row = self._statement.first(values)
            for below in self._below if row is not None else ():
                below.mark(values[_KEY], moment)
        return row


class _Below:
    """The rows that are deleted with the one that they refer to."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference
        # What cascades further is found row by row, by the query of any number of rows.
        self._statement = (
            None
            if cascading(reference.model)
            else _marking(reference.model, reference.in_([Parameter(_KEY, as_given)]))
        )

    def mark(self, key: Any, moment: datetime) -> None:
        if self._statement is not None:
            self._statement.cursor({_KEY: key, **dict.fromkeys(_TIMES, moment)})
            return
        query = soft_delete.SoftDelete(self._reference.model, moment)
        query.where(self._reference.in_([key])).execute()


def _marking(model: Any, where: Any, *returning: Any) -> Statement:
    times = [one for one in _TIMES if one in model._meta.fields]
    changes = {model._meta.fields[one]: Parameter(one, as_given) for one in times}
    update: soft_delete.UpdateQuery[int] = soft_delete.UpdateQuery(model, changes)
    query = update.where(where)
    return Statement(query.returning(*returning) if returning else query)


class _Values:
    """How a payload's values become those of a statement."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        secrets: dict[str, Any] = {n: f for n, f in fields.items() if isinstance(f, EncryptedField)}
        self._secrets = list(secrets.items())
        self._plain = [
            (name, field.name, converter(field))
            for name, field in fields.items()
            if name not in secrets
        ]
        self.fields = [field for name, field in fields.items() if name not in secrets]
        for field in secrets.values():
            self.fields += field.columns
        #: whether a data key is needed
        self.owned = any(field.owner for field in secrets.values())

    def read(self, payload: Mapping[str, Any], values: dict[str, Any], key: str) -> None:
        """Add the payload's values to those of a statement; secrets are bound to ``key`` there."""
        for name, target, convert in self._plain:
            values[target] = convert(payload[name])
        for name, field in self._secrets:
            secret = payload[name]
            if not isinstance(secret, Secret):
                checked(field, secret)  # passes None where it may be, refuses the rest
            data_key = _data_key(field, secret, values, key) if field.owner else None
            sealed = field.seal(secret, values.get(key), data_key)
            values.update((part.name, text) for part, text in sealed.items())


def _data_key(field: Any, secret: Any, values: Mapping[str, Any], key: str) -> Any:
    """The data key of the owner, by the values of a new row or by the key of a stored one."""
    owners = None
    if key != _KEY:
        owners = [values.get(key if field.owner == SELF else owner_field(field).name)]
    return data_keys(field, [secret], [values.get(key)], owners)[0]


def converter(field: Any) -> Convert:
    """What makes a value of this field ready for the driver, or refuses it."""
    kind, own = cast("Any", type(field)), cast("Any", CheckedField)
    if not field.refuses_sql or kind.db_value is not own.db_value:
        return partial(driver_value, field)
    to_database = field.to_database

    def convert(value: Any) -> Any:
        try:
            if value is not None:
                return to_database(value)
        except InvalidValue:
            pass  # told in full by the other way, once more
        return driver_value(field, value)

    return convert


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
    if callable(field.default):
        return lambda: convert(field.default())
    return lambda: convert(field.default)
