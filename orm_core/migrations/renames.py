"""Renames: answered by the author, never guessed.

``orders:purchases`` renames a table, ``users.mail:email`` a column, ``session_status.open:active``
a label of an enum, ``users_mail_idx:users_email_idx`` an index or a constraint. A schema may
stand before: ``billing.users.mail:email``. The new side may repeat what stands before the name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from orm_core.errors import MigrationError
from orm_core.migrations.catalog import Catalog, Column, Enum, Name, Table
from orm_core.migrations.names import qualified, quote, text


@dataclass(frozen=True, slots=True)
class Rename:
    """A rename as SQL, there and back."""

    up: str
    down: str
    words: str


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something that went while something like it came: a rename, or a loss?"""

    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old}:{self.new}"


def resolve(answer: str, old: Catalog, new: Catalog) -> Rename:
    """The rename that an answer means. Raises ``MigrationError`` when it means none."""
    before, colon, after = answer.partition(":")
    path = tuple(part.strip() for part in before.split("."))
    name = after.strip().rpartition(".")[2]
    if colon and name and all(path):
        for rename in _meanings(path, name, old, new):
            return rename
    raise MigrationError(
        f"The rename {answer!r} fits nothing: the old name must be in the migrations and not in "
        "the models, the new one the other way round. Forms: table:new, table.column:new, "
        "enum.label:new, index:new."
    )


def _meanings(path: tuple[str, ...], name: str, old: Catalog, new: Catalog) -> Iterator[Rename]:
    for table in old.tables.values():
        target = (table.name[0], name)
        came = target in new.tables and target not in old.tables
        if _is(path, table.name) and table.name not in new.tables and came:
            yield _table(table.name, name)
        if len(path) > 1 and _is(path[:-1], table.name):
            renamed = new.tables.get(table.name)
            if path[-1] in table.columns and (renamed is None or path[-1] not in renamed.columns):
                yield _column(table.name, path[-1], name)
        kept = new.tables.get(table.name)
        if kept and path[-1] in table.indexes and name in kept.indexes:
            yield _index(table.name, path[-1], name)
        if kept and path[-1] in table.constraints and name in kept.constraints:
            yield _constraint(table.name, path[-1], name)
    for enum in old.enums.values():
        if len(path) > 1 and _is(path[:-1], enum.name) and path[-1] in enum.labels:
            yield _label(enum.name, path[-1], name)
        came = (enum.name[0], name) in new.enums
        if _is(path, enum.name) and enum.name not in new.enums and came:
            yield _enum(enum.name, name)


def _is(path: tuple[str, ...], name: Name) -> bool:
    return path == (name[1],) or path == name


def _table(table: Name, name: str) -> Rename:
    return Rename(
        f"ALTER TABLE {qualified(table)} RENAME TO {quote(name)}",
        f"ALTER TABLE {qualified((table[0], name))} RENAME TO {quote(table[1])}",
        f"renames {table[1]} to {name}",
    )


def _column(table: Name, column: str, name: str) -> Rename:
    alter = f"ALTER TABLE {qualified(table)} RENAME COLUMN"
    return Rename(
        f"{alter} {quote(column)} TO {quote(name)}",
        f"{alter} {quote(name)} TO {quote(column)}",
        f"renames {table[1]}.{column} to {name}",
    )


def _index(table: Name, index: str, name: str) -> Rename:
    return Rename(
        f"ALTER INDEX {qualified((table[0], index))} RENAME TO {quote(name)}",
        f"ALTER INDEX {qualified((table[0], name))} RENAME TO {quote(index)}",
        f"renames index {index} to {name}",
    )


def _constraint(table: Name, constraint: str, name: str) -> Rename:
    alter = f"ALTER TABLE {qualified(table)} RENAME CONSTRAINT"
    return Rename(
        f"{alter} {quote(constraint)} TO {quote(name)}",
        f"{alter} {quote(name)} TO {quote(constraint)}",
        f"renames constraint {constraint} to {name}",
    )


def _label(enum: Name, label: str, name: str) -> Rename:
    alter = f"ALTER TYPE {qualified(enum)} RENAME VALUE"
    return Rename(
        f"{alter} {text(label)} TO {text(name)}",
        f"{alter} {text(name)} TO {text(label)}",
        f"renames label {label} of {enum[1]} to {name}",
    )


def _enum(enum: Name, name: str) -> Rename:
    return Rename(
        f"ALTER TYPE {qualified(enum)} RENAME TO {quote(name)}",
        f"ALTER TYPE {qualified((enum[0], name))} RENAME TO {quote(enum[1])}",
        f"renames type {enum[1]} to {name}",
    )


def followers(old: Catalog, new: Catalog) -> list[Rename]:
    """Renames of constraints, indexes and sequences that only follow a rename made before.

    Same table, same definition, another name: nothing is lost or guessed.
    """
    found = []
    for name, table in old.tables.items():
        target = new.tables.get(name)
        if target is None:
            continue
        found += [_constraint(name, a, b) for a, b in _moved(table.constraints, target.constraints)]
        found += [_index(name, a, b) for a, b in _moved(_nameless(table), _nameless(target))]
    return found


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


def suspicions(old: Catalog, new: Catalog) -> list[Suspicion]:
    """What went while something alike came: each is a question to the author."""
    found = list(_alike_tables(old, new))
    for name, table in old.tables.items():
        if name in new.tables:
            gone, come = _unmatched(table.columns, new.tables[name].columns)
            found += [
                Suspicion(f"{name[1]}.{one.name}", f"{name[1]}.{other.name}")
                for one in gone
                for other in come
                if _alike(one, other)
            ]
    for name, enum in old.enums.items():
        if name in new.enums:
            found += _alike_labels(enum, new.enums[name])
    return found


def _unmatched(old: dict[str, Column], new: dict[str, Column]) -> tuple[list[Column], list[Column]]:
    return (
        [column for name, column in old.items() if name not in new],
        [column for name, column in new.items() if name not in old],
    )


def _alike(one: Column, other: Column) -> bool:
    return one.type.split("(")[0] == other.type.split("(")[0]


def _alike_tables(old: Catalog, new: Catalog) -> Iterator[Suspicion]:
    gone = [table for name, table in old.tables.items() if name not in new.tables]
    come = [table for name, table in new.tables.items() if name not in old.tables]
    for one in gone:
        for other in come:
            common = set(one.columns) & set(other.columns)
            if one.name[0] == other.name[0] and 2 * len(common) >= len(one.columns):
                yield Suspicion(one.name[1], other.name[1])


def _alike_labels(old: Enum, new: Enum) -> Iterable[Suspicion]:
    gone = [label for label in old.labels if label not in new.labels]
    come = [label for label in new.labels if label not in old.labels]
    return [
        Suspicion(f"{old.name[1]}.{one}", f"{old.name[1]}.{other}")
        for one in gone
        for other in come
    ]
