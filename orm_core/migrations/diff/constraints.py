"""Constraints and indexes of a table that was there."""

from __future__ import annotations

import re

from orm_core.migrations.catalog import Constraint, Table
from orm_core.migrations.diff.change import Change
from orm_core.migrations.diff.steps import Phase
from orm_core.migrations.names import Name, qualified, quote


def links(table: Table) -> list[Constraint]:
    """The table's foreign keys."""
    return [one for one in table.constraints.values() if one.kind == "f"]


def compare(change: Change, old: Table, new: Table) -> None:
    """Drop those that can't stay, add those that are not there."""
    gone = set(old.columns) - set(new.columns)
    for one in old.constraints.values():
        if change.differs(new.name, one, new.constraints.get(one.name)):
            leaves = (new.name, one.name) in change.remade
            if leaves or not (gone and _dropped_with(one, old, gone)):
                drop(change, new.name, one)
    for one in new.constraints.values():
        if change.differs(new.name, one, old.constraints.get(one.name)):
            add(change, new.name, one)
    for index in old.indexes.values():
        if change.differs(new.name, index, new.indexes.get(index.name)):
            name = (new.name[0], index.name)
            change.add(Phase.LOOSEN, f"DROP INDEX {qualified(name)}")
    for index in new.indexes.values():
        if change.differs(new.name, index, old.indexes.get(index.name)):
            change.add(Phase.TIGHTEN, index.definition)


def drop(change: Change, table: Name, one: Constraint) -> None:
    """References before all, as they stand on other tables' keys."""
    phase = Phase.UNLINK if one.kind == "f" else Phase.LOOSEN
    change.add(phase, f"ALTER TABLE {qualified(table)} DROP CONSTRAINT {quote(one.name)}")


def add(change: Change, table: Name, one: Constraint) -> None:
    """References after all, as they stand on other tables' keys."""
    phase = Phase.LINK if one.kind == "f" else Phase.TIGHTEN
    change.add(
        phase,
        f"ALTER TABLE {qualified(table)} ADD CONSTRAINT {quote(one.name)} {one.definition}",
    )


def _dropped_with(one: Constraint, table: Table, gone: set[str]) -> bool:
    """Whether PostgreSQL drops a constraint by itself with one of its columns."""
    if one.kind == "c":
        named = [
            c for c in table.columns if re.search(rf"\b{re.escape(quote(c))}\b", one.definition)
        ]
        return bool(named) and set(named) <= gone
    own = one.definition.split(" REFERENCES ")[0]
    return any(re.search(rf"[(, ]{re.escape(quote(name))}[,)]", own) for name in gone)
