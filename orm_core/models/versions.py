"""Optimistic locking: a write of a row holds only if nobody changed it since it was read.

A model with a ``VersionField`` has it. The server adds one in the same UPDATE that compares, so
that of two writers who read the same row one wins and the other gets ``StaleRow``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from orm_core.errors import InvalidValue, MissingField, StaleRow


def counted(model: Any, settings: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """What an UPDATE sets, and the next version with it, unless it sees to that itself."""
    version = model._meta.version
    if version is None or version in settings:
        return settings
    return {**settings, version: version + 1}


def refuse_by_hand(model: Any, fields: Collection[Any]) -> None:
    """Raise ``InvalidValue`` when a model's version is among what is to be set."""
    version = model._meta.version
    if version is not None and version in fields:
        raise InvalidValue(
            f"{model.__name__}.{version.name} is counted by the server and never set; no SQL was "
            "sent."
        )


def check_named(model: Any, names: Collection[str], verb: str) -> None:
    """Raise ``MissingField`` unless the changes of a row name the version that it must have."""
    version = model._meta.version
    if version is not None and version.name not in names:
        raise MissingField(
            f"{model.__name__}.{verb} needs {version.name}, that of the row as it was read, or it "
            "could undo what others did; no SQL was sent."
        )


def version_read(row: Any) -> int | None:
    """The version that an instance was read with; None when its model counts none."""
    version = row._meta.version
    if version is None:
        return None
    known = row.__data__.get(version.name)
    if known is None:
        raise InvalidValue(
            f"This {type(row).__name__} was read without its {version.name}; select that too to "
            "write the row. No SQL was sent."
        )
    refuse_by_hand(type(row), {row._meta.fields[name] for name in row._dirty})
    return int(known)


def check_fresh(query: Any, expected: Mapping[Any, int]) -> None:
    """Raise ``StaleRow`` when a row that ``query`` sees has another version than expected.

    ``expected`` is by key, as the driver takes it. For writes that missed a row: it is gone, or
    stale.
    """
    model = query.model
    key, version = model._meta.primary_key, model._meta.version
    for one, found in query.select(key, version).where(key.in_(list(expected))).tuples():
        wanted = expected[key.db_value(one)]
        if found != wanted:
            raise StaleRow(model._meta.table_name, one, wanted, found)


def write(query: Any, row: Any, seen: Any) -> int:
    """Run a DELETE or its like on a row, as it was read; answers how many there were.

    ``seen`` are the rows that it could be about. Raises ``StaleRow``.
    """
    query, expected = query.where(row._pk_expr()), version_read(row)
    if expected is not None:
        query = query.where(row._meta.version == expected)
    count: int = query.execute()
    if not count and expected is not None:
        check_fresh(seen, {row._meta.primary_key.db_value(row._pk): expected})
    return count
