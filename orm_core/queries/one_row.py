"""What is done to one row, by the plan of its shape (``orm_core.queries.plans``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from orm_core.models.payloads import key_value, not_a_payload
from orm_core.models.soft_delete import Visibility, is_soft
from orm_core.queries import plans
from orm_core.queries.plans import plan_for
from orm_core.queries.rows import first_returned


def insert(model: Any, payload: Any) -> Any:
    """Insert a row; answers it as stored."""
    return plan_for(model, plans.Insert, _names(model, payload)).row(payload)


def find(model: Any, names: tuple[str, ...], values: Sequence[Any], include_deleted: bool) -> Any:
    """The first row with these values in the fields of these names, or None."""
    return plan_for(model, plans.Find, names, _seen(include_deleted)).row(values)


def find_by_key(model: Any, id: Any, include_deleted: bool) -> Any:
    """The row with this id, or None."""
    return plan_for(model, plans.ByKey, _seen(include_deleted)).row(key_value(model, id))


def update(model: Any, id: Any, payload: Any, include_deleted: bool) -> Any:
    """Change fields of a row; answers it as stored, or None without one."""
    key, names = key_value(model, id), _names(model, payload)
    return plan_for(model, plans.Update, names, _seen(include_deleted)).row(key, payload)


def soft_delete(model: Any, id: Any) -> Any:
    """Mark a row, and those that cascade, as deleted; answers it, or None without one."""
    key = key_value(model, id)
    if is_soft(model):
        return plan_for(model, plans.SoftDelete).row(key)
    return first_returned(model.delete().where(model._meta.primary_key == key))


def _names(model: Any, payload: Any) -> tuple[Any, ...]:
    """The names of a payload, which make its shape."""
    if payload.__class__ is not dict and not isinstance(payload, Mapping):
        raise not_a_payload(model)
    return tuple(cast("Iterable[Any]", payload))


def _seen(include_deleted: bool) -> Visibility:
    return "all" if include_deleted else "live"
