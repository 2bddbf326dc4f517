"""Renames: answered by the author, never guessed.

``orders:purchases`` renames a table, ``users.mail:email`` a column, ``session_status.open:active``
a label of an enum, ``users_mail_idx:users_email_idx`` an index or a constraint,
``notes:archive.notes`` moves a table to another schema. A schema may stand before:
``billing.users.mail:email``. The new side may repeat what stands before the name. Columns and
labels may be told of by the old or the new name of their table or type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from orm_core.errors import MigrationError
from orm_core.migrations.catalog import Catalog, Column, Enum, Name, Table
from orm_core.migrations.catalog import Sequence as Counter
from orm_core.migrations.names import qualified, quote, spellings, text

N = TypeVar("N", str, Name)


@dataclass(frozen=True, slots=True)
class Rename:
    """A rename as SQL, there and back."""

    up: tuple[str, ...]
    down: tuple[str, ...]
    words: str
    #: what a table or a type was called, and is called now
    names: tuple[Name, Name] | None = None


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something that went while something like it came: a rename, or a loss?"""

    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old}:{self.new}"


@dataclass(slots=True)
class Renames:
    """Finds what the author's answers mean, while the schema changes under them."""

    answers: Sequence[str]
    goal: Catalog
    #: what tables and types were called, by what they are called now
    former: dict[Name, list[Name]] = field(default_factory=dict)
    _left: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._left = [answer.strip() for answer in self.answers]

    def next(self, current: Catalog) -> Rename | None:
        """The next rename to make; tables and types go first. None when all are made.

        Raises ``MigrationError`` when an answer fits nothing.
        """
        for meanings in (self._of_wholes, self._of_parts):
            known = dict(meanings(current))
            for answer in self._left:
                rename = known.get(answer)
                if rename is not None:
                    self._left.remove(answer)
                    if rename.names:
                        old, new = rename.names
                        self.former[new] = [*self.former.pop(old, []), old]
                    return rename
        if self._left:
            raise MigrationError(
                f"The rename {self._left[0]!r} fits nothing: the old name must be in the "
                "migrations and not in the models, the new one the other way round. Forms: "
                "table:new, table:schema.new, table.column:new, enum.label:new, index:new."
            )
        return None

    def _of_wholes(self, current: Catalog) -> Iterator[tuple[str, Rename]]:
        """Renames of tables and types, by the answers that mean them."""
        for old, new in _gone_and_come(current.tables, self.goal.tables):
            rename = _table(old, new, current)
            for before in spellings(old, current.tables):
                for after in (".".join(new), *([new[1]] if new[0] == old[0] else [])):
                    yield f"{before}:{after}", rename
        for old, new in _gone_and_come(current.enums, self.goal.enums):
            if old[0] == new[0]:
                for before in spellings(old, current.enums):
                    for after in (".".join(new), new[1]):
                        yield f"{before}:{after}", _enum(old, new[1])

    def _of_parts(self, current: Catalog) -> Iterator[tuple[str, Rename]]:
        """Renames of columns, indexes, constraints and labels, by the answers that mean them."""
        for name, table in current.tables.items():
            kept = self.goal.tables.get(name)
            if kept is None:
                continue
            owners = self._spellings(name, current.tables)
            for old, new in self._come(table.columns, kept.columns):
                yield from _answers(owners, old, new, _column(name, old, new))
            inside = ["", name[0], *owners]
            for old, new in self._come(table.indexes, kept.indexes):
                yield from _answers(inside, old, new, _index(name, old, new))
            for old, new in self._come(table.constraints, kept.constraints):
                yield from _answers(inside, old, new, _constraint(name, old, new))
        for name, enum in current.enums.items():
            goal = self.goal.enums.get(name)
            if goal is not None:
                owners = self._spellings(name, current.enums)
                for old, new in self._come(enum.labels, goal.labels):
                    yield from _answers(owners, old, new, _label(name, old, new))

    def _come(self, old: Iterable[str], new: Iterable[str]) -> Iterator[tuple[str, str]]:
        """What went, or makes room for another that is renamed to it, with what came."""
        before, after = list(old), list(new)
        for one in before:
            room = any(answer.endswith((f":{one}", f".{one}")) for answer in self._left)
            if one not in after or room:
                yield from ((one, other) for other in after if other not in before)

    def _spellings(self, name: Name, names: Mapping[Name, object]) -> list[str]:
        all_names = [name, *self.former.get(name, [])]
        return [spelling for one in all_names for spelling in spellings(one, names)]


def _gone_and_come(
    old: Mapping[Name, object], new: Mapping[Name, object]
) -> Iterator[tuple[Name, Name]]:
    come = [name for name in new if name not in old]
    yield from ((name, other) for name in old if name not in new for other in come)


def _answers(
    owners: Iterable[str], old: str, new: str, rename: Rename
) -> Iterator[tuple[str, Rename]]:
    prefixes = [f"{owner}." if owner else "" for owner in owners]
    for before in prefixes:
        for after in {"", *prefixes}:
            yield f"{before}{old}:{after}{new}", rename


def _table(old: Name, new: Name, current: Catalog) -> Rename:
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
    return Rename(tuple(up), tuple(down[::-1]), f"renames {old[1]} to {spoken}", (old, new))


def _column(table: Name, column: str, name: str) -> Rename:
    alter = f"ALTER TABLE {qualified(table)} RENAME COLUMN"
    return Rename(
        (f"{alter} {quote(column)} TO {quote(name)}",),
        (f"{alter} {quote(name)} TO {quote(column)}",),
        f"renames {table[1]}.{column} to {name}",
    )


def _index(table: Name, index: str, name: str) -> Rename:
    return Rename(
        (f"ALTER INDEX {qualified((table[0], index))} RENAME TO {quote(name)}",),
        (f"ALTER INDEX {qualified((table[0], name))} RENAME TO {quote(index)}",),
        f"renames index {index} to {name}",
    )


def _sequence(old: Name, name: str) -> Rename:
    return Rename(
        (f"ALTER SEQUENCE {qualified(old)} RENAME TO {quote(name)}",),
        (f"ALTER SEQUENCE {qualified((old[0], name))} RENAME TO {quote(old[1])}",),
        f"renames sequence {old[1]} to {name}",
    )


def _constraint(table: Name, constraint: str, name: str) -> Rename:
    alter = f"ALTER TABLE {qualified(table)} RENAME CONSTRAINT"
    return Rename(
        (f"{alter} {quote(constraint)} TO {quote(name)}",),
        (f"{alter} {quote(name)} TO {quote(constraint)}",),
        f"renames constraint {constraint} to {name}",
    )


def _label(enum: Name, label: str, name: str) -> Rename:
    alter = f"ALTER TYPE {qualified(enum)} RENAME VALUE"
    return Rename(
        (f"{alter} {text(label)} TO {text(name)}",),
        (f"{alter} {text(name)} TO {text(label)}",),
        f"renames label {label} of {enum[1]} to {name}",
    )


def _enum(enum: Name, name: str) -> Rename:
    return Rename(
        (f"ALTER TYPE {qualified(enum)} RENAME TO {quote(name)}",),
        (f"ALTER TYPE {qualified((enum[0], name))} RENAME TO {quote(enum[1])}",),
        f"renames type {enum[1]} to {name}",
        (enum, (enum[0], name)),
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
    sequences = _moved(_owners(old.sequences, new), _owners(new.sequences, old))
    return found + [_sequence(a, b[1]) for a, b in sequences if a[0] == b[0]]


def _owners(sequences: Mapping[Name, Counter], other: Catalog) -> dict[Name, object]:
    """Sequences that the other catalog has not, each as the column that it goes with."""
    return {
        name: (one.owner, one.identity)
        for name, one in sequences.items()
        if one.owner and name not in other.sequences
    }


def _moved(old: Mapping[N, object], new: Mapping[N, object]) -> Iterator[tuple[N, N]]:
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
    """What went while something came in its place: each is a question to the author.

    Of the columns that came the most alike is named first.
    """
    found = list(_alike_tables(old, new))
    for name, table in old.tables.items():
        if name in new.tables:
            gone, come = _unmatched(table.columns, new.tables[name].columns)
            spoken = spellings(name, old.tables)[-1]
            found += [
                Suspicion(f"{spoken}.{one.name}", f"{spoken}.{other.name}")
                for one in gone
                for other in sorted(come, key=lambda other: not _alike(one, other))
            ]
    for name, enum in old.enums.items():
        if name in new.enums:
            found += _alike_labels(enum, new.enums[name])
    return found


def _unmatched(old: dict[str, Column], new: dict[str, Column]) -> tuple[list[Column], list[Column]]:
    """What holds values of its own and went, and what came."""
    return (
        [column for name, column in old.items() if name not in new and column.generated is None],
        [column for name, column in new.items() if name not in old and column.generated is None],
    )


def _alike(one: Column, other: Column) -> bool:
    return one.type.split("(")[0] == other.type.split("(")[0]


def _alike_tables(old: Catalog, new: Catalog) -> Iterator[Suspicion]:
    gone = [table for name, table in old.tables.items() if name not in new.tables]
    come = [table for name, table in new.tables.items() if name not in old.tables]
    for one in gone:
        for other in come:
            common = set(one.columns) & set(other.columns)
            near = one.name[0] == other.name[0] or one.name[1] == other.name[1]
            if near and 2 * len(common) >= len(one.columns):
                after = other.name[1] if one.name[0] == other.name[0] else ".".join(other.name)
                yield Suspicion(spellings(one.name, old.tables)[-1], after)


def _alike_labels(old: Enum, new: Enum) -> Iterable[Suspicion]:
    gone = [label for label in old.labels if label not in new.labels]
    come = [label for label in new.labels if label not in old.labels]
    return [
        Suspicion(f"{old.name[1]}.{one}", f"{old.name[1]}.{other}")
        for one in gone
        for other in come
    ]
