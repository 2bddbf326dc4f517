"""Renames of tables, columns, types, labels, indexes, constraints and sequences, as SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from orm_core.migrations.catalog import Catalog, Table
from orm_core.migrations.names import Name, qualified, quote, text
from orm_core.models.columns import shorten


@dataclass(frozen=True, slots=True)
class Rename:
    """A rename as SQL, there and back."""

    kind: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    words: str
    #: what a table or a type was called, and is called now
    names: tuple[Name, Name] | None = None
    #: the table of a column, what it was called, and is called now
    column: tuple[Name, str, str] | None = None


def aside(name: str) -> str:
    """What something is called while another takes its name."""
    return shorten(f"{name}__aside")


def table(old: Name, new: Name, current: Catalog) -> Rename:
    """A table's new name, in its schema or another."""
    up: list[str] = []
    down: list[str] = []
    at = old
    steps = [(at[0], new[1]), new]
    if (new[0], old[1]) not in current.tables:
        steps = [(new[0], at[1]), new]
    if new[0] not in current.schemas:
        up.append(f"CREATE SCHEMA {quote(new[0])}")
        down.append(f"DROP SCHEMA {quote(new[0])}")
    for name in steps:
        if name == at:
            continue
        for place, one, other in ((up, at, name), (down, name, at)):
            what = f"RENAME TO {quote(other[1])}"
            if one[0] != other[0]:
                what = f"SET SCHEMA {quote(other[0])}"
            place.append(f"ALTER TABLE {qualified(one)} {what}")
        at = name
    spoken = new[1] if old[0] == new[0] else ".".join(new)
    words = f"renames {old[1]} to {spoken}"
    return Rename("table", tuple(up), tuple(down[::-1]), words, (old, new))


def column(table: Name, old: str, name: str) -> Rename:
    """A column's new name."""
    alter = f"ALTER TABLE {qualified(table)} RENAME COLUMN"
    return Rename(
        "column",
        (f"{alter} {quote(old)} TO {quote(name)}",),
        (f"{alter} {quote(name)} TO {quote(old)}",),
        f"renames {table[1]}.{old} to {name}",
        column=(table, old, name),
    )


def index(table: Name, old: str, name: str) -> Rename:
    """An index's new name."""
    return Rename(
        "index",
        (f"ALTER INDEX {qualified((table[0], old))} RENAME TO {quote(name)}",),
        (f"ALTER INDEX {qualified((table[0], name))} RENAME TO {quote(old)}",),
        f"renames index {old} to {name}",
    )


def sequence(owner: Name, old: str, name: str) -> Rename:
    """A sequence's new name, in the schema of ``owner``."""
    return Rename(
        "sequence",
        (f"ALTER SEQUENCE {qualified((owner[0], old))} RENAME TO {quote(name)}",),
        (f"ALTER SEQUENCE {qualified((owner[0], name))} RENAME TO {quote(old)}",),
        f"renames sequence {old} to {name}",
    )


def constraint(table: Name, old: str, name: str) -> Rename:
    """A constraint's new name."""
    alter = f"ALTER TABLE {qualified(table)} RENAME CONSTRAINT"
    return Rename(
        "constraint",
        (f"{alter} {quote(old)} TO {quote(name)}",),
        (f"{alter} {quote(name)} TO {quote(old)}",),
        f"renames constraint {old} to {name}",
    )


def label(enum: Name, old: str, name: str) -> Rename:
    """A label's new name."""
    alter = f"ALTER TYPE {qualified(enum)} RENAME VALUE"
    return Rename(
        "label",
        (f"{alter} {text(old)} TO {text(name)}",),
        (f"{alter} {text(name)} TO {text(old)}",),
        f"renames label {old} of {enum[1]} to {name}",
    )


def enum(old: Name, new: Name) -> Rename:
    """A type's new name, in its schema."""
    return Rename(
        "type",
        (f"ALTER TYPE {qualified(old)} RENAME TO {quote(new[1])}",),
        (f"ALTER TYPE {qualified(new)} RENAME TO {quote(old[1])}",),
        f"renames type {old[1]} to {new[1]}",
        (old, new),
    )


def followers(old: Catalog, new: Catalog) -> list[Rename]:
    """Renames of constraints, indexes and sequences that only follow a rename made before.

    Same table, same definition, another name: nothing is lost or guessed.
    """
    found: list[tuple[Callable[[Name, str, str], Rename], Name, str, str]] = []
    for name, one in old.tables.items():
        target = new.tables.get(name)
        if target is None:
            continue
        pairs = _moved(one.constraints, target.constraints)
        found += [(constraint, name, before, after) for before, after in pairs]
        pairs = _moved(_nameless(one), _nameless(target))
        found += [(index, name, before, after) for before, after in pairs]
    found += [(sequence, a, a[1], b[1]) for a, b in _counters(old, new)]
    taken = _relations(old)
    first: list[Rename] = []
    then: list[Rename] = []
    last: list[Rename] = []
    for make, owner, before, after in found:
        if (owner[0], after) in taken:
            # Somebody else gives this name up; until then the one that takes it waits aside.
            first.append(replace(make(owner, before, aside(before)), words=""))
            last.append(replace(make(owner, aside(before), after), words=""))
        else:
            then.append(make(owner, before, after))
    return first + then + last


def _relations(schema: Catalog) -> set[Name]:
    """The names that a schema gives out once only: indexes, with keys', and sequences."""
    return {
        *schema.sequences,
        *((name[0], one) for name, table in schema.tables.items() for one in table.indexes),
        *(
            (name[0], one.name)
            for name, table in schema.tables.items()
            for one in table.constraints.values()
            if one.kind in "pux"
        ),
    }


def _counters(old: Catalog, new: Catalog) -> Iterator[tuple[Name, Name]]:
    """Sequences of a column that are called otherwise from now on."""
    by_owner = {(one.owner, one.identity): name for name, one in new.sequences.items()}
    for name, one in old.sequences.items():
        other = by_owner.get((one.owner, one.identity)) if one.owner else None
        if other and other != name and other[0] == name[0]:
            yield name, other


def _moved(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    free = {name: one for name, one in new.items() if name not in old}
    for name, one in old.items():
        if name in new:
            continue
        for other, candidate in free.items():
            if _definition(one) == _definition(candidate):
                yield name, other
                del free[other]
                break


def _definition(one: object) -> str:
    return str(getattr(one, "definition", one))


def _nameless(table: Table) -> dict[str, object]:
    """The indexes by name, each as its definition without the name."""
    return {
        name: index.definition.replace(f" INDEX {quote(name)} ON ", " INDEX ON ", 1)
        for name, index in table.indexes.items()
    }
