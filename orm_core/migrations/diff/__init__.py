"""The statements that turn one catalog into another.

``diff(old, new)`` answers ``Step`` values in an order that works: what hinders goes first
(foreign keys, constraints and indexes that change), then types, tables and columns, then what
leans on them. Renames are no part of it: they are made before, so that both catalogs already
agree on names. Every name is quoted where it must be and carries its schema.
"""

from __future__ import annotations

from collections.abc import Mapping

from orm_core.migrations.catalog import Catalog
from orm_core.migrations.diff import (
    dependents,
    enums,
    policies,
    schemas,
    sequences,
    tables,
    triggers,
)
from orm_core.migrations.diff.change import CastExists, Change
from orm_core.migrations.diff.steps import Phase, Step

__all__ = ["CastExists", "Phase", "Step", "any_cast", "diff"]


def any_cast(_old: str, _new: str) -> bool:
    """For SQL that is only read: every change of a type has its cast."""
    return True


def diff(
    old: Catalog,
    new: Catalog,
    *,
    cast_exists: CastExists,
    fills: Mapping[str, str] | None = None,
    add_labels: bool = True,
) -> list[Step]:
    """The steps from ``old`` to ``new``, in order.

    ``add_labels=False`` makes an enum that gains labels anew, so that they can be used in the
    same transaction, which PostgreSQL forbids after ADD VALUE.

    ``fills`` maps ``table.column`` to SQL for the rows that are there when the column becomes
    NOT NULL. ``cast_exists`` is asked when a column changes its type.
    """
    change = Change(old, new, cast_exists, fills or {}, add_labels)
    # Columns and enums see to sequences of their own, so the others come last.
    for compare in (
        schemas.compare,
        dependents.compare,
        triggers.compare,
        tables.compare,
        policies.compare,
        enums.compare,
        sequences.compare,
    ):
        compare(change)
    return sorted(change.steps, key=lambda step: step.phase)
