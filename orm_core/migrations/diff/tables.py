"""Tables that come, go and change."""

from __future__ import annotations

from collections.abc import Iterable

from orm_core.migrations.catalog import Table
from orm_core.migrations.diff import comments, constraints
from orm_core.migrations.diff.change import Change
from orm_core.migrations.diff.columns import add_column, alter_column, definition
from orm_core.migrations.diff.steps import Phase
from orm_core.migrations.names import qualified, quote


def compare(change: Change) -> None:
    """Drop, alter and create."""
    for name, table in change.old.tables.items():
        if name not in change.new.tables:
            for link in constraints.links(table):
                constraints.drop(change, name, link)
            change.add(Phase.DROP_TABLES, f"DROP TABLE {qualified(name)}", f"table {name[1]}")
    for name, table in change.new.tables.items():
        if name in change.old.tables:
            _alter(change, change.old.tables[name], table)
        else:
            _create(change, table)


def _create(change: Change, table: Table) -> None:
    lines = [definition(change, table, column) for column in table.columns.values()]
    # The primary key first, then unique ones, exclusions and checks; references when all tables are
    # there.
    kept = sorted(table.constraints.values(), key=lambda one: "puxcf".index(one.kind))
    lines += [f"CONSTRAINT {quote(one.name)} {one.definition}" for one in kept if one.kind != "f"]
    body = ",\n    ".join(lines)
    options = f" WITH ({', '.join(table.options)})" if table.options else ""
    change.add(Phase.TABLES, f"CREATE TABLE {qualified(table.name)} (\n    {body}\n){options}")
    for index in table.indexes.values():
        change.add(Phase.TIGHTEN, index.definition)
    for link in constraints.links(table):
        constraints.add(change, table.name, link)
    comments.compare(change, Table(table.name), table)


def _alter(change: Change, old: Table, new: Table) -> None:
    _options(change, old, new)
    _drop_columns(change, old, new)
    for column in new.columns.values():
        before = old.columns.get(column.name)
        if before is None or (new.name, column.name) in change.regenerated:
            add_column(change, new, column)
        elif before != column:
            alter_column(change, new, before, column)
    constraints.compare(change, old, new)
    comments.compare(change, old, new)


def _drop_columns(change: Change, old: Table, new: Table) -> None:
    name = new.name
    for column in old.columns.values():
        again = (name, column.name) in change.regenerated
        if again or column.name not in new.columns:
            computed = column.generated is not None
            change.add(
                Phase.DROP_GENERATED if computed or again else Phase.DROP_COLUMNS,
                f"ALTER TABLE {qualified(name)} DROP COLUMN {quote(column.name)}",
                None if computed else f"column {name[1]}.{column.name}",
            )


def _by_name(options: Iterable[str]) -> dict[str, str]:
    """``fillfactor=70`` by its name."""
    pairs = (one.partition("=") for one in options)
    return {name: value for name, _, value in pairs}


def _options(change: Change, old: Table, new: Table) -> None:
    before, after = (_by_name(table.options) for table in (old, new))
    alter = f"ALTER TABLE {qualified(new.name)}"
    gone = [name for name in before if name not in after]
    if gone:
        change.add(Phase.COLUMNS, f"{alter} RESET ({', '.join(gone)})")
    if after.items() - before.items():
        change.add(Phase.COLUMNS, f"{alter} SET ({', '.join(new.options)})")
