"""Comments on a table and on all that belongs to it."""

from __future__ import annotations

from orm_core.migrations.catalog import Constraint, Index, Table
from orm_core.migrations.diff.change import Change
from orm_core.migrations.diff.steps import Phase
from orm_core.migrations.names import qualified, quote, text


def compare(change: Change, old: Table, new: Table) -> None:
    """Write those that are not there already; what is made anew has lost its own."""
    table = qualified(new.name)
    _comment(change, f"TABLE {table}", old.comment, new.comment)
    for column in new.columns.values():
        before = old.columns.get(column.name)
        kept = before and (new.name, column.name) not in change.regenerated
        target = f"COLUMN {table}.{quote(column.name)}"
        _comment(change, target, before.comment if before and kept else None, column.comment)
    for one in new.constraints.values():
        target = f"CONSTRAINT {quote(one.name)} ON {table}"
        known = _kept(change, new, one, old.constraints.get(one.name))
        _comment(change, target, known, one.comment)
    for index in new.indexes.values():
        target = f"INDEX {qualified((new.name[0], index.name))}"
        known = _kept(change, new, index, old.indexes.get(index.name))
        _comment(change, target, known, index.comment)


def _kept(
    change: Change, table: Table, one: Constraint | Index, before: Constraint | Index | None
) -> str | None:
    if before is None or change.differs(table.name, one, before):
        return None
    return before.comment


def _comment(change: Change, target: str, before: str | None, after: str | None) -> None:
    if before != after:
        change.add(Phase.COMMENTS, f"COMMENT ON {target} IS {text(after)}")
