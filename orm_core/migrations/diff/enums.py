"""Enum types that come, go and change their labels."""

from __future__ import annotations

from orm_core.migrations.catalog import Enum
from orm_core.migrations.diff.change import Change
from orm_core.migrations.diff.columns import alter_column
from orm_core.migrations.diff.steps import Phase
from orm_core.migrations.diff.types import uses
from orm_core.migrations.names import qualified, quote, text
from orm_core.models.columns import shorten


def compare(change: Change) -> None:
    """Create, extend, replace and drop."""
    for name, enum in change.new.enums.items():
        before = change.old.enums.get(name)
        if before is None:
            change.add(Phase.TYPES, _create(enum))
        elif before.labels == enum.labels:
            continue
        elif change.can_add(before, enum):
            _add_labels(change, before, enum)
        else:
            _replace(change, before, enum)
    for name in change.old.enums:
        if name not in change.new.enums:
            change.add(Phase.DROP_TYPES, f"DROP TYPE {qualified(name)}")


def _create(enum: Enum) -> str:
    return f"CREATE TYPE {qualified(enum.name)} AS ENUM ({', '.join(map(text, enum.labels))})"


def _add_labels(change: Change, before: Enum, enum: Enum) -> None:
    known = list(before.labels)
    for place, label in enumerate(enum.labels):
        if label in known:
            continue
        if place == 0:
            where = f"BEFORE {text(known[0])}"
        else:
            where = f"AFTER {text(enum.labels[place - 1])}"
        known.insert(place, label)
        change.add(
            Phase.ENUM_VALUES,
            f"ALTER TYPE {qualified(enum.name)} ADD VALUE {text(label)} {where}",
        )


def _replace(change: Change, before: Enum, enum: Enum) -> None:
    """Make the type anew and turn its columns over."""
    aside = (enum.name[0], shorten(f"{enum.name[1]}__old"))
    change.add(Phase.TYPES, f"ALTER TYPE {qualified(enum.name)} RENAME TO {quote(aside[1])}")
    change.add(Phase.TYPES, _create(enum))
    lost = [label for label in before.labels if label not in enum.labels]
    loses = None
    if lost:
        loses = f"label(s) {', '.join(lost)} of {enum.name[1]}; rows that use one stop it"
    change.add(Phase.DROP_TYPES, f"DROP TYPE {qualified(aside)}", loses)
    for table in change.new.tables.values():
        old = change.old.tables.get(table.name)
        for column in table.columns.values():
            same = old is not None and old.columns.get(column.name) == column
            again = (table.name, column.name) in change.regenerated
            if same and not again and uses(column.type, enum):
                alter_column(change, table, column, column)
