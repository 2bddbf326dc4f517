"""Sequences: those of serial columns come and go with them, others by themselves."""

from __future__ import annotations

from typing import Final

from orm_core.migrations.catalog import Catalog, Column, Table
from orm_core.migrations.diff.change import Change, Path
from orm_core.migrations.diff.steps import Phase
from orm_core.migrations.names import Name, qualified, quote, text

_SERIAL: Final = {"smallint": "smallserial", "integer": "serial", "bigint": "bigserial"}


def compare(change: Change) -> None:
    """See to all that did not go or come with a column."""
    for name, sequence in change.new.sequences.items():
        owner, before = sequence.owner, change.old.sequences.get(name)
        if sequence.identity or name in change.counted:
            continue
        if before is not None:
            if before.type != sequence.type:
                alter = f"ALTER SEQUENCE {qualified(name)} AS {sequence.type}"
                change.add(Phase.SEQUENCES, alter)
            if before.owner != owner:
                _own(change, name, owner)
        elif not (owner and _comes_with_column(change, owner)):
            change.add(Phase.SEQUENCES, f"CREATE SEQUENCE {qualified(name)} AS {sequence.type}")
            if owner:
                _own(change, name, owner)
    for name, sequence in change.old.sequences.items():
        if sequence.identity or name in change.new.sequences or name in change.counted:
            continue
        if not _went_with_column(change, sequence.owner):
            change.add(Phase.DROP_TYPES, f"DROP SEQUENCE {qualified(name)}")


def serial(schema: Catalog, table: Table, column: Column) -> str | None:
    """``serial`` and its kin, when the column's default is a sequence of its own."""
    name = (table.name[0], f"{table.name[1]}_{column.name}_seq")
    sequence = schema.sequences.get(name)
    if sequence is None or sequence.owner != (table.name, column.name):
        return None
    if column.default != _nextval(name):
        return None
    return _SERIAL.get(column.type) if sequence.type == column.type else None


def identity(column: Column) -> str:
    """The clause of an identity column."""
    return f"GENERATED {'ALWAYS' if column.identity == 'a' else 'BY DEFAULT'} AS IDENTITY"


def count(change: Change, table: Table, alter: str, old: Column, new: Column) -> None:
    """Sequences and identities of a column that was there: they go on after its rows."""
    if new.identity and old.identity:
        if new.identity != old.identity:
            change.add(Phase.COLUMNS, f"{alter} SET {identity(new).partition(' AS ')[0]}")
        return
    counter = None
    if new.identity:
        _drop_own(change, (table.name, new.name))
        change.add(Phase.COLUMNS, f"{alter} ADD {identity(new)}")
        counter = f"pg_get_serial_sequence({text(qualified(table.name))}, {text(new.name)})"
    elif new.default != old.default:
        counter = _create_own(change, new)
    if counter is not None:
        largest = f"SELECT coalesce(max({quote(new.name)}), 0) + 1 FROM {qualified(table.name)}"
        change.add(Phase.COLUMNS, f"SELECT setval({counter}, ({largest}), false)")


def _drop_own(change: Change, owner: Path) -> None:
    """Drop the column's sequence: its name is the one that the identity's takes."""
    for name, one in change.old.sequences.items():
        if one.owner == owner and not one.identity and name not in change.counted:
            change.counted.add(name)
            change.add(Phase.COLUMNS, f"DROP SEQUENCE {qualified(name)}")


def _create_own(change: Change, column: Column) -> str | None:
    """Create the sequence that the column counts on from now on; answers it as a text."""
    for name, one in change.new.sequences.items():
        known = change.old.sequences.get(name)
        if column.default != _nextval(name) or (known and not known.identity):
            continue
        if name in change.counted:
            continue
        change.counted.add(name)
        change.add(Phase.COLUMNS, f"CREATE SEQUENCE {qualified(name)} AS {one.type}")
        _own(change, name, one.owner)
        return text(qualified(name))
    return None


def _own(change: Change, name: Name, owner: Path | None) -> None:
    column = f"{qualified(owner[0])}.{quote(owner[1])}" if owner else "NONE"
    change.add(Phase.LINK, f"ALTER SEQUENCE {qualified(name)} OWNED BY {column}")


def _nextval(sequence: Name) -> str:
    """The default of a column that counts on this sequence."""
    return f"nextval({text(qualified(sequence))}::regclass)"


def _comes_with_column(change: Change, owner: Path) -> bool:
    table = change.new.tables[owner[0]]
    before = change.old.tables.get(owner[0])
    if before is not None and owner[1] in before.columns:
        return False
    return serial(change.new, table, table.columns[owner[1]]) is not None


def _went_with_column(change: Change, owner: Path | None) -> bool:
    if owner is None:
        return False
    table = change.new.tables.get(owner[0])
    return table is None or owner[1] not in table.columns
