"""The contents of a migration's files, before they have a number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from orm_core.database.database import Database
from orm_core.errors import MigrationError, QueryError
from orm_core.migrations import catalog, questions
from orm_core.migrations.answers import Answers, Renames
from orm_core.migrations.bound_names import BoundNames
from orm_core.migrations.catalog import Catalog
from orm_core.migrations.diff import Phase, Step, diff
from orm_core.migrations.expand import Expansion, Ways
from orm_core.migrations.placeholders import stand_ins
from orm_core.migrations.renames import Rename, followers
from orm_core.migrations.staging import stages
from orm_core.migrations.words import summary

#: the kind of a file that builds an index without holding up writes
CONCURRENTLY = "concurrently"


@dataclass(slots=True)
class Draft:
    """One file in the making; ``kind`` tells it from the others of its migration.

    ``source`` is the whole text of a file that is more than statements.
    """

    kind: str
    words: str
    up: list[str]
    down: list[str]
    source: str | None = None
    #: what the file is called when the author has no name for it
    title: str = ""


class Author:
    """Works, where it must, on a copy of the files' schema, which it changes as it goes."""

    def __init__(
        self,
        copy: Callable[[], Database],
        start: Catalog,
        goal: Catalog,
        answers: Answers,
        bound: BoundNames,
    ) -> None:
        self._copy = copy
        self.start = start
        self.goal = goal
        self.answers = answers
        self._bound = bound
        self.losses: list[str] = []

    @cached_property
    def work(self) -> Database:
        """The copy."""
        return self._copy()

    def drafts(self) -> list[Draft]:
        """The files' contents, in order."""
        if self.answers.safe and self.answers.renames:
            return self._in_stages()
        renames = self._renames()
        before = catalog.read(self.work) if renames else self.start
        questions.ask(before, self.goal, self.answers)
        made = Ways()
        for rename in renames:
            made.add(rename.up, rename.down)
        told = [rename.words for rename in renames if rename.words]
        return _with_renames(self._drafts(before, self.goal), made, told)

    def _drafts(self, before: Catalog, goal: Catalog, *, run: bool = False) -> list[Draft]:
        """From one schema to the other, without renames; run on the copy where it must be."""
        goal = replace(goal, dependents=before.dependents)
        steps = diff(before, goal, cast_exists=self._cast_exists, fills=self.answers.fills)
        self.losses += _losses(steps)
        parts = self._parts(steps, before)
        drafts: list[Draft] = []
        for kind, statements in parts:
            after = self._run(statements) if run or len(parts) > 1 else goal
            drafts.append(
                Draft(kind, summary(before, after), statements, self._back(after, before))
            )
            before = after
        return drafts

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

    # -- renames ----------------------------------------------------------------------------

    def _renames(self) -> list[Rename]:
        """Make the renames, at once."""
        made: list[Rename] = []
        current = self.start
        asked = Renames(self.answers.renames, self.goal)
        while (rename := asked.next(current)) is not None:
            self._bound.refuse(rename)
            made.append(rename)
            current = self._run(rename.up)
        follow = followers(current, self.goal)
        self._run([sql for rename in follow for sql in rename.up])
        return made + follow

    def _in_stages(self) -> list[Draft]:
        """Expand, fill, build what leans on the new names, contract."""
        expansion = Expansion(self.goal)
        current = self.start
        asked = Renames(self.answers.renames, self.goal)
        while (rename := asked.next(current)) is not None:
            self._bound.refuse(rename)
            current = self._run(expansion.take(rename, current))
        for rename in followers(current, self.goal):
            self._run(expansion.take(replace(rename, words=""), current))
        current = catalog.read(self.work)
        questions.ask(expansion.named(current), self.goal, self.answers)
        current = self._run(expansion.beside(current))
        first = Draft("expand", "", expansion.first.up, expansion.first.down)
        fills = [
            Draft("backfill", f": fills the new columns of {table}", up, [], source)
            for table, up, source in expansion.backfills(current)
        ]
        middle, bare, back = expansion.middle(current)
        builds = self._drafts(current, middle, run=True)
        last = self._contract(expansion, bare, back)
        if not last.up:  # of indexes and constraints only, which no code names
            return _with_renames(builds, expansion.first, expansion.told)
        first.words = ": the new names beside the old ones"
        last.words = ": the old names go, apply it when no code uses them any more"
        title = "; ".join(expansion.told)
        for draft in (first, *fills, last):
            draft.words = title + draft.words
            draft.title = f"{title[:45]} {draft.kind}"
        return [first, *fills, *builds, last]

    def _contract(self, expansion: Expansion, bare: Catalog, back: list[Rename]) -> Draft:
        current = self._run(expansion.last.up)
        bare = replace(bare, dependents=current.dependents)
        steps = diff(current, bare, cast_exists=self._cast_exists)
        up = [*expansion.last.up, *(step.sql for step in steps)]
        up += [sql for rename in back for sql in rename.up]
        down = [sql for rename in reversed(back) for sql in rename.down]
        down += self._back(bare, current, expansion.fills()) + expansion.last.down
        return Draft("contract", "", up, down)

    # -- SQL --------------------------------------------------------------------------------

    def _run(self, statements: Iterable[str]) -> Catalog:
        """Run them on the copy; answers the schema after."""
        for sql in statements:
            try:
                self.work.execute_sql(sql.replace("%", "%%"))
            except QueryError as error:
                raise MigrationError(f"The schema can't be changed by: {sql}. {error}") from error
        return catalog.read(self.work)

    def _back(
        self, old: Catalog, new: Catalog, fills: Mapping[str, str] | None = None
    ) -> list[str]:
        fills = {**stand_ins(old, new), **(fills or {})}
        steps = diff(old, new, cast_exists=self._cast_exists, fills=fills, add_labels=False)
        return [step.sql for step in steps]

    def _cast_exists(self, old: str, new: str) -> bool:
        try:
            self.work.execute_sql(f"SELECT NULL::{old}::{new}".replace("%", "%%"))
        except QueryError:
            return False
        return True


def _losses(steps: Iterable[Step]) -> list[str]:
    return list(dict.fromkeys(step.loses for step in steps if step.loses))


def _with_renames(drafts: list[Draft], made: Ways, told: Iterable[str]) -> list[Draft]:
    """Renames come first, and their undoing last."""
    if not made.up:
        return drafts
    if not drafts or drafts[0].kind == CONCURRENTLY:
        drafts = [Draft("", "", [], []), *drafts]
    first = drafts[0]
    first.up = made.up + first.up
    first.down = first.down + made.down
    first.words = "; ".join([*dict.fromkeys(told), first.words]).strip("; ")
    return drafts
