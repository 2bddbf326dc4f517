"""Columns that come and change."""

from __future__ import annotations

import re

from orm_core.migrations.catalog import Column, Table
from orm_core.migrations.diff import sequences, types
from orm_core.migrations.diff.change import Change
from orm_core.migrations.diff.steps import Phase
from orm_core.migrations.names import qualified, quote


def definition(
    change: Change, table: Table, column: Column, *, not_null: bool | None = None
) -> str:
    """The column as it stands in CREATE TABLE and ADD COLUMN."""
    parts = [quote(column.name), sequences.serial(change.new, table, column) or column.type]
    if column.collation:
        parts.append(f"COLLATE {quote(column.collation)}")
    if column.generated is not None:
        parts.append(f"GENERATED ALWAYS AS ({column.generated}) STORED")
    elif column.identity:
        parts.append(sequences.identity(column))
    elif column.default is not None and parts[1] == column.type:
        parts.append(f"DEFAULT {column.default}")
    if column.not_null if not_null is None else not_null:
        parts.append("NOT NULL")
    return " ".join(parts)


def add_column(change: Change, table: Table, column: Column) -> None:
    """A column that was not there, filled for the rows that are."""
    alter = f"ALTER TABLE {qualified(table.name)}"
    fill = change.fill(table, column.name)
    if column.generated is not None or fill is None:
        phase = Phase.COLUMNS if column.generated is None else Phase.GENERATED
        change.add(phase, f"{alter} ADD COLUMN {definition(change, table, column)}")
        return
    bare = definition(change, table, column, not_null=False)
    change.add(Phase.COLUMNS, f"{alter} ADD COLUMN {bare}")
    _update(change, table, column.name, fill)
    if column.not_null:
        change.add(Phase.COLUMNS, f"{alter} ALTER COLUMN {quote(column.name)} SET NOT NULL")


def alter_column(change: Change, table: Table, old: Column, new: Column) -> None:
    """A column that was there and is another now."""
    alter = f"ALTER TABLE {qualified(table.name)} ALTER COLUMN {quote(new.name)}"
    if old.generated is not None and new.generated is None:
        change.add(Phase.LOOSEN, f"{alter} DROP EXPRESSION")
    retyped = change.type_changes(old, new)
    again = old.default is not None and (
        old.default != new.default or (retyped and not old.default.startswith("nextval("))
    )
    if old.identity and not new.identity:
        change.add(Phase.COLUMNS, f"{alter} DROP IDENTITY")
    if again:
        change.add(Phase.COLUMNS, f"{alter} DROP DEFAULT")
    if retyped:
        _retype(change, table, alter, old, new)
    sequences.count(change, table, alter, old, new)
    if new.default is not None and (again or old.default is None):
        change.add(Phase.COLUMNS, f"{alter} SET DEFAULT {new.default}")
    _nullness(change, table, alter, old, new)


def _retype(change: Change, table: Table, alter: str, old: Column, new: Column) -> None:
    collate = f" COLLATE {quote(new.collation)}" if new.collation else ""
    if change.uses_replaced(new.type):
        using = types.replaced(new)
    else:
        using = types.using(old, new, change.cast_exists)
    change.add(
        Phase.COLUMNS,
        f"{alter} TYPE {new.type}{collate}{using}",
        types.narrows(table.name[1], old, new),
    )


def _nullness(change: Change, table: Table, alter: str, old: Column, new: Column) -> None:
    if old.not_null and not new.not_null:
        if not _is_key(table, new):
            change.add(Phase.COLUMNS, f"{alter} DROP NOT NULL")
    elif new.not_null and not old.not_null:
        fill = change.fill(table, new.name)
        fill = fill or ("DEFAULT" if new.default is not None else None)
        if fill is not None:
            _update(change, table, new.name, fill, f" WHERE {quote(new.name)} IS NULL")
        change.add(Phase.COLUMNS, f"{alter} SET NOT NULL")


def _update(change: Change, table: Table, column: str, value: str, condition: str = "") -> None:
    name = qualified(table.name)
    change.add(Phase.COLUMNS, f"UPDATE {name} SET {quote(column)} = {value}{condition}")
    if any("INITIALLY DEFERRED" in one.definition for one in table.constraints.values()):
        # A table with checks that are still to come can't be altered.
        change.add(Phase.COLUMNS, "SET CONSTRAINTS ALL IMMEDIATE")


def _is_key(table: Table, column: Column) -> bool:
    return any(
        one.kind == "p" and re.search(rf"[(, ]{re.escape(quote(column.name))}[,)]", one.definition)
        for one in table.constraints.values()
    )
