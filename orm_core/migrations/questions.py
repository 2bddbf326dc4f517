"""What only the author can tell: a rename or a loss, and values for rows that are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orm_core.errors import MigrationError
from orm_core.migrations.answers import Answers
from orm_core.migrations.catalog import Catalog, Column, Enum, Table
from orm_core.migrations.names import spellings
from orm_core.migrations.placeholders import needs_fill


def ask(old: Catalog, goal: Catalog, answers: Answers) -> None:
    """Raise ``MigrationError`` with all questions that nobody answered."""
    questions = [*_losses(old, goal, answers), *_in_the_way(old, goal)]
    for table in goal.tables.values():
        if table.name in old.tables:
            questions += _of_table(old.tables[table.name], table, goal, answers)
    if questions:
        raise MigrationError("Nothing was written; there are questions. " + " ".join(questions))


def _losses(old: Catalog, goal: Catalog, answers: Answers) -> Iterator[str]:
    doubts: dict[str, list[Suspicion]] = {}
    for doubt in suspicions(old, goal):
        if not answers.allow(doubt.old):
            doubts.setdefault(doubt.old, []).append(doubt)
    for name, found in doubts.items():
        yield (
            f"{name} went and {', '.join(doubt.new for doubt in found[:4])} came: a rename "
            f"(--rename {found[0]}) or a loss (--drop {name})?"
        )
    for table in old.tables:
        known = spellings(table, old.tables)
        told = table in goal.tables or known[-1] in doubts
        if not told and not any(map(answers.allow, known)):
            yield (
                f"Table {known[-1]} is in the migrations and no registered domain has it: "
                f"give --drop {known[-1]} to drop it with its rows."
            )


def _in_the_way(old: Catalog, goal: Catalog) -> Iterator[str]:
    """Views and triggers that name a column which goes; they can't come back as they were."""
    for one in old.dependents:
        for table, column in sorted(one.uses):
            before, after = old.tables.get(table), goal.tables.get(table)
            if before and column in before.columns and not (after and column in after.columns):
                path = f"{spellings(table, old.tables)[-1]}.{column}"
                yield (
                    f"The {one.kind} {one.name[1]} uses {path}, which goes: write a migration by "
                    f"hand first that drops or changes the {one.kind}."
                )


def _of_table(old: Table, new: Table, goal: Catalog, answers: Answers) -> Iterator[str]:
    for column in new.columns.values():
        paths = [f"{name}.{column.name}" for name in spellings(new.name, goal.tables)]
        before = old.columns.get(column.name)
        filled = any(path in answers.fills for path in paths)
        if before is None and needs_fill(column) and not filled:
            yield (
                f"{paths[-1]} is NOT NULL and has no default for the rows that are there: "
                f'give --fill "{paths[-1]}=<SQL>", or a default in the model.'
            )
        computed = before and before.generated is None and column.generated is not None
        if computed and not any(map(answers.allow, paths)):
            yield (
                f"{paths[-1]} is computed from now on: give --drop {paths[-1]} to lose what "
                "is in it."
            )


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something that went while something like it came: a rename, or a loss?"""

    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old}:{self.new}"


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
                for other in sorted(come, key=lambda other: not _alike(one, other))  # pyright: ignore
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
