"""Migrations written by comparing what the files make with what the models say.

Two scratch databases: the folder's files are applied to one by the stock Router, the models'
tables are created in the other, and PostgreSQL's own catalogs of both are compared. The live
database is never read. What comes out is proved on the first scratch database before it is
written: applied, it gives the models' schema; rolled back, the earlier one; and it can be applied
again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from orm_core.database.connection import Database
from orm_core.errors import MigrationError, QueryError
from orm_core.migrations import catalog, runner
from orm_core.migrations.catalog import HISTORY, Catalog, Table
from orm_core.migrations.diff import Phase, Step, diff
from orm_core.migrations.files import MigrationFile, file_name, names_in, next_number
from orm_core.migrations.names import spellings
from orm_core.migrations.placeholders import stand_in
from orm_core.migrations.renames import Rename, Renames, Suspicion, followers, suspicions
from orm_core.migrations.scratch import ScratchServer
from orm_core.migrations.staging import index_name, stages
from orm_core.migrations.words import differences, summary
from orm_core.models.schema import create_all

#: the kind of a file that builds an index without holding up writes
CONCURRENTLY = "concurrently"


@dataclass(frozen=True, slots=True)
class Answers:
    """What the author says of changes that a comparison can't tell.

    ``renames``: see ``orm_core.migrations.renames``. ``drops``: names (``orders``,
    ``users.mail``, ``session_status.open``) that may go, or True for all. ``fills``: SQL for rows
    that are there when a column becomes NOT NULL, by ``table.column``. ``safe``: see
    ``orm_core.migrations.staging``.
    """

    renames: Sequence[str] = ()
    drops: Iterable[str] | bool = ()
    fills: Mapping[str, str] = field(default_factory=dict)
    safe: bool = False

    def allow(self, name: str) -> bool:
        """Whether this may be dropped; ``public.`` goes without saying."""
        if isinstance(self.drops, bool):
            return self.drops
        return name in {drop.removeprefix("public.") for drop in self.drops}


@dataclass(frozen=True, slots=True)
class Proposal:
    """Files that were proved and are not written yet, and what they lose."""

    files: tuple[MigrationFile, ...]
    losses: tuple[str, ...]


def propose(
    given: Database | None,
    models: Iterable[Any],
    owners: Mapping[str, str],
    folder: Path,
    name: str | None = None,
    answers: Answers | None = None,
) -> Proposal | None:
    """What would bring the files up to the models, proved; None when nothing changed.

    ``owners`` tells the domain of each table. Raises ``MigrationError`` for an open question
    (a rename or a loss that nobody answered) and for files that fail their proof.
    """
    answers = answers or Answers()
    with ScratchServer(given) as server, ExitStack() as stack:
        files = stack.enter_context(server.database())
        goal_database = stack.enter_context(server.database())
        if names_in(folder):
            runner.apply(files, folder)
        create_all(goal_database, models)
        start, goal = catalog.read(files), catalog.read(goal_database)
        if start == goal:
            return None
        author = _Author(lambda: stack.enter_context(_copy(server, files)), start, goal, answers)
        drafts = author.drafts()
        proposal = _files(drafts, author.losses, folder, name, owners)
        _prove(files, proposal.files, start, goal)
    return proposal


@dataclass(slots=True)
class _Draft:
    """One file in the making; ``kind`` tells it from the others of its migration."""

    kind: str
    words: str
    up: list[str]
    down: list[str]


def _copy(server: ScratchServer, database: Database) -> AbstractContextManager[Database]:
    database.close_all()
    return server.database(template=str(database.database))


class _Author:
    """Works, where it must, on a copy of the files' schema, which it changes as it goes."""

    def __init__(
        self, copy: Callable[[], Database], start: Catalog, goal: Catalog, answers: Answers
    ) -> None:
        self._copy = copy
        self.start = start
        self.goal = goal
        self.answers = answers
        self.losses: list[str] = []

    @cached_property
    def work(self) -> Database:
        """The copy."""
        return self._copy()

    def drafts(self) -> list[_Draft]:
        """The files' contents, in order."""
        if self.answers.safe and self.answers.renames:
            raise MigrationError(
                "A rename breaks the code that runs and knows the old name, so it has no safe "
                "stages: add the new column, fill it in batches, let the code use both, and drop "
                "the old one in a later migration. Or write it without --safe."
            )
        renames = self._renames()
        before = catalog.read(self.work) if renames else self.start
        self._check_losses(before)
        steps = self._forward(before, self.goal)
        self.losses = _losses(steps)
        drafts = []
        parts = self._parts(steps, before)
        for kind, statements in parts:
            after = self.goal  # of one file alone the proof tells
            if len(parts) > 1:
                for sql in statements:
                    self._run(sql)
                after = catalog.read(self.work)
            drafts.append(
                _Draft(kind, summary(before, after), statements, self._back(after, before))
            )
            before = after
        return _with_renames(drafts, renames)

    def _parts(self, steps: list[Step], present: Catalog) -> list[tuple[str, list[str]]]:
        """The statements of each file, with what the file is for."""
        labels = [step.sql for step in steps if step.phase == Phase.ENUM_VALUES]
        rest = [step.sql for step in steps if step.phase != Phase.ENUM_VALUES]
        # PostgreSQL can't use a new label in the transaction that adds it.
        parts = [("labels" if rest else "", labels)] if labels else []
        if self.answers.safe:
            staged = stages(rest, present)
            parts += [("", staged.first)] if staged.first else []
            parts += [("validate", staged.validating)] if staged.validating else []
            parts += [(CONCURRENTLY, [sql]) for sql in staged.indexes]
        elif rest:
            parts.append(("", rest))
        return parts

    def _renames(self) -> list[Rename]:
        made: list[Rename] = []
        current = self.start
        asked = Renames(self.answers.renames, self.goal)
        while (rename := asked.next(current)) is not None:
            made.append(self._rename(rename))
            current = catalog.read(self.work)
        return made + [self._rename(rename) for rename in followers(current, self.goal)]

    def _rename(self, rename: Rename) -> Rename:
        for sql in rename.up:
            self._run(sql)
        return rename

    def _run(self, sql: str) -> None:
        try:
            self.work.execute_sql(sql.replace("%", "%%"))
        except QueryError as error:
            raise MigrationError(f"The schema can't be changed by: {sql}. {error}") from error

    def _forward(self, old: Catalog, new: Catalog) -> list[Step]:
        return diff(old, new, cast_exists=self._cast_exists, fills=self.answers.fills)

    def _back(self, old: Catalog, new: Catalog) -> list[str]:
        fills = _placeholders(old, new)
        steps = diff(old, new, cast_exists=self._cast_exists, fills=fills, add_labels=False)
        return [step.sql for step in steps]

    def _cast_exists(self, old: str, new: str) -> bool:
        try:
            self.work.execute_sql(f"SELECT NULL::{old}::{new}".replace("%", "%%"))
        except QueryError:
            return False
        return True

    def _check_losses(self, named: Catalog) -> None:
        doubts: dict[str, list[Suspicion]] = {}
        for doubt in suspicions(named, self.goal):
            if not self.answers.allow(doubt.old):
                doubts.setdefault(doubt.old, []).append(doubt)
        questions = [
            f"{old} went and {', '.join(doubt.new for doubt in found[:4])} came: a rename "
            f"(--rename {found[0]}) or a loss (--drop {old})?"
            for old, found in doubts.items()
        ]
        for name in named.tables:
            known = spellings(name, named.tables)
            told = name in self.goal.tables or known[-1] in doubts
            if not told and not any(map(self.answers.allow, known)):
                questions.append(
                    f"Table {known[-1]} is in the migrations and no registered domain has it: "
                    f"give --drop {known[-1]} to drop it with its rows."
                )
        for table in self.goal.tables.values():
            if table.name in named.tables:
                questions += self._questions_of(named.tables[table.name], table)
        if questions:
            raise MigrationError("Nothing was written; there are questions. " + " ".join(questions))

    def _questions_of(self, old: Table, new: Table) -> Iterator[str]:
        for column in new.columns.values():
            paths = [f"{name}.{column.name}" for name in spellings(new.name, self.goal.tables)]
            before = old.columns.get(column.name)
            filled = any(path in self.answers.fills for path in paths)
            if before is None and _needs_fill(column) and not filled:
                yield (
                    f"{paths[-1]} is NOT NULL and has no default for the rows that are there: "
                    f'give --fill "{paths[-1]}=<SQL>", or a default in the model.'
                )
            computed = before and before.generated is None and column.generated is not None
            if computed and not any(map(self.answers.allow, paths)):
                yield (
                    f"{paths[-1]} is computed from now on: give --drop {paths[-1]} to lose what "
                    "is in it."
                )


def _needs_fill(column: catalog.Column) -> bool:
    return (
        column.not_null
        and column.default is None
        and column.generated is None
        and not column.identity
    )


def _placeholders(old: Catalog, new: Catalog) -> dict[str, str]:
    """Values for NOT NULL columns that a rollback brings back: what was in them is gone."""
    return {
        f"{'.'.join(table.name)}.{column.name}": stand_in(table, column, new)
        for table in new.tables.values()
        if table.name in old.tables
        for column in table.columns.values()
        if _needs_fill(column) and column.name not in old.tables[table.name].columns
    }


def _losses(steps: Iterable[Step]) -> list[str]:
    return list(dict.fromkeys(step.loses for step in steps if step.loses))


def _with_renames(drafts: list[_Draft], renames: list[Rename]) -> list[_Draft]:
    """Renames come first, and their undoing last."""
    if not renames:
        return drafts
    if not drafts or drafts[0].kind == CONCURRENTLY:
        drafts = [_Draft("", "", [], []), *drafts]
    first = drafts[0]
    first.up = [sql for rename in renames for sql in rename.up] + first.up
    first.down += [sql for rename in reversed(renames) for sql in rename.down]
    first.words = "; ".join([*dict.fromkeys(one.words for one in renames), first.words]).strip("; ")
    return drafts


def _files(
    drafts: list[_Draft],
    losses: list[str],
    folder: Path,
    name: str | None,
    owners: Mapping[str, str],
) -> Proposal:
    number = next_number(folder)
    files = []
    for place, draft in enumerate(drafts):
        words = name or draft.words.split(";")[0]
        base = f"{words}_{draft.kind}" if name and draft.kind else words
        if name and draft.kind == CONCURRENTLY:
            base = f"{name}_{index_name(draft.up[0])}"
        domains = sorted(
            {owner for table, owner in owners.items() if table in _tables_of(draft.words)}
        )
        header = f"{_domains(domains)}{draft.words}"
        if losses and not draft.kind:
            header += f". Loses: {'; '.join(losses)}."
        files.append(
            MigrationFile(
                file_name(number + place, base),
                header,
                tuple(draft.up),
                tuple(draft.down),
                concurrent=draft.kind == CONCURRENTLY,
            )
        )
    return Proposal(tuple(files), tuple(losses))


def _tables_of(words: str) -> set[str]:
    import re

    return set(re.findall(r"\w+", words))


def _domains(names: list[str]) -> str:
    if not names:
        return ""
    return f"Domain{'s' if len(names) > 1 else ''} {', '.join(names)}: "


def _prove(
    database: Database, files: Sequence[MigrationFile], start: Catalog, goal: Catalog
) -> None:
    """Apply, compare, roll back, compare, apply again, compare; in a folder of their own."""
    # With its history forgotten, a Router does not replay the files before at every step.
    database.execute_sql(f"DROP TABLE IF EXISTS {HISTORY}")
    with tempfile.TemporaryDirectory(prefix="orm_core-proof-") as place:
        copy = Path(place)
        for one in files:
            one.write(copy)
        try:
            runner.apply(database, copy)
            _expect(database, goal, "Applied, the files do not give the models' schema")
            runner.rollback(database, copy, len(files))
            _expect(database, start, "Rolled back, the files do not give the earlier schema")
            runner.apply(database, copy)
            _expect(database, goal, "Applied again, the files do not give the models' schema")
        except MigrationError as error:
            raise MigrationError(f"The proof failed, nothing was written. {error}") from error


def _expect(database: Database, wanted: Catalog, complaint: str) -> None:
    found = catalog.read(database)
    if found != wanted:
        raise MigrationError(f"{complaint}: {'; '.join(differences(found, wanted))}.")
