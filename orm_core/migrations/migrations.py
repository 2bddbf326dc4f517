"""All that is done with a service's migrations, in one place.

::

    migrations = Migrations(db, registry, "migrations")
    migrations.generate("add notes")     # writes proved files
    migrations.check()                   # for CI: do files and models agree?
    migrations.apply()                   # in the deploy script

The command line (``orm-core migrate``) is a thin face of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orm_core.database.connection import Database
from orm_core.errors import MigrationError
from orm_core.migrations import catalog, history, runner, sums
from orm_core.migrations.catalog import Catalog
from orm_core.migrations.diff import diff
from orm_core.migrations.files import names_in
from orm_core.migrations.generate import Answers, Proposal, propose
from orm_core.migrations.pull import source
from orm_core.migrations.safety import FileReport, inspect
from orm_core.migrations.scratch import ScratchServer
from orm_core.migrations.squash import squash
from orm_core.migrations.statements import Direction, statements
from orm_core.migrations.words import differences


class Domains(Protocol):
    """What is needed of a registry: its domains, each with a name and models."""

    @property
    def models(self) -> tuple[Any, ...]:
        """All models, each after those that it refers to."""

    def __iter__(self) -> Any:
        """The domains."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How a live database differs from its files: in words, and as SQL that would mend it."""

    differences: tuple[str, ...]
    sql: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.differences)


class Migrations:
    """The migrations in ``folder`` of the models in ``registry``, on ``database``.

    ``database`` may be None, or not initialized, for what needs none: ``generate`` and ``check``
    work on scratch databases, made on its server when its role may, else on the embedded one.
    """

    def __init__(
        self, database: Database | None, registry: Domains, folder: Path | str = "migrations"
    ) -> None:
        self.database = database
        self.registry = registry
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"<Migrations in {self.folder}: {len(names_in(self.folder))} file(s)>"

    @property
    def _live(self) -> Database:
        if self.database is None or self.database.deferred:
            raise MigrationError("This needs a database: call initialize_db(url) first.")
        return self.database

    # -- writing ----------------------------------------------------------------------------

    def propose(
        self,
        name: str | None = None,
        *,
        renames: Iterable[str] = (),
        drops: Iterable[str] | bool = (),
        fills: Mapping[str, str] | None = None,
        safe: bool = False,
    ) -> Proposal | None:
        """What ``generate`` would write, proved; None when files and models agree."""
        answers = Answers(tuple(renames), _drops(drops), dict(fills or {}), safe)
        owners = {
            model._meta.table_name: domain.name
            for domain in self.registry
            for model in domain.models
        }
        return propose(self.database, self.registry.models, owners, self.folder, name, answers)

    def generate(
        self,
        name: str | None = None,
        *,
        renames: Iterable[str] = (),
        drops: Iterable[str] | bool = (),
        fills: Mapping[str, str] | None = None,
        safe: bool = False,
    ) -> list[Path]:
        """Write the files that bring the schema to the models; none when they agree.

        ``renames``: ``"orders:purchases"``, ``"users.mail:email"``, ``"session_status.open:active"``.
        ``drops``: names that went for good (``"users.mail"``), or True for all of them.
        ``fills``: SQL for rows that are there when a column becomes NOT NULL, by
        ``"table.column"``. ``safe`` writes stages that hold nobody up on tables in use: indexes
        CONCURRENTLY, constraints NOT VALID and validated afterwards. Each file is applied, rolled back and applied again on a scratch
        database before it is written. Raises ``MigrationError`` for an open question or a failed
        proof; nothing is written then.
        """
        proposal = self.propose(name, renames=renames, drops=drops, fills=fills, safe=safe)
        if proposal is None:
            return []
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = [file.write(self.folder) for file in proposal.files]
        sums.write(self.folder)
        return paths

    def pull(self) -> str:
        """The source of models that make the database's schema, enums, indexes and all.

        For a team that adopts orm_core on what it has. Write it to a domain's ``models.py``, then
        ``generate`` the first migration and ``fake`` it where the tables are.
        """
        return source(catalog.read(self._live))

    def squash(self, name: str = "squashed") -> Path:
        """Put one file in place of all; databases that have the old ones are left working.

        They note the new file in place of the old ones at their next ``apply``, or by a Router of
        ``registry.router(db)``. Raises ``MigrationError`` when the files make what a catalog does
        not tell: triggers, functions, views, rows.
        """
        with ScratchServer(self.database) as server:
            path = squash(server, self.folder, name)
        sums.write(self.folder)
        return path

    # -- applying ---------------------------------------------------------------------------

    def status(self) -> runner.Status:
        """What is applied to the database and what is pending."""
        return runner.status(self._live, self.folder)

    def pending(self) -> tuple[str, ...]:
        """The names of the files that are not applied yet, in order."""
        return self.status().pending

    def apply(self, to: str | None = None) -> list[str]:
        """Apply the pending files, up to and including ``to`` (a name or a number).

        One deployer at a time; others wait and find nothing to do. A file that meets a busy
        table is tried again. Raises ``MigrationError`` when the history does not fit the files.
        """
        self._check_history()
        return runner.apply(self._live, self.folder, to)

    def rollback(self, count: int = 1) -> list[str]:
        """Undo the last ``count`` files; answers their names, the latest first."""
        return runner.rollback(self._live, self.folder, count)

    def plan(self) -> list[FileReport]:
        """What the pending files would do, each statement run on a scratch copy of the schema.

        Tells the locks taken on tables that are there, the tables written anew, whether the file
        can be rolled back, and what is dangerous, with the safer way.
        """
        found = self.status()
        with ScratchServer(self.database) as server, server.database() as scratch:
            return inspect(scratch, self.folder, found.applied, found.pending)

    def fake(self, to: str | None = None) -> list[str]:
        """Note the pending files as applied without running them."""
        return runner.fake(self._live, self.folder, to)

    def sql(self, names: Iterable[str] | None = None, *, down: bool = False) -> str:
        """What files would run, as SQL, read without a database; all files by default."""
        direction: Direction = "rollback" if down else "migrate"
        chosen = list(names) if names is not None else names_in(self.folder)
        parts = []
        for name in chosen[::-1] if down else chosen:
            body = ";\n".join(statements(self.folder / f"{name}.py", direction))
            parts.append(f"-- {name}\n{body};\n")
        return "\n".join(parts)

    # -- checking ---------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What is wrong with the folder and, where a database is given, with its history."""
        found = sums.problems(self.folder)
        if self.database is not None and not self.database.deferred:
            found += self._history_problems()
        return found

    def check(self) -> None:
        """Raise ``MigrationError`` when files, models and history do not fit together.

        Two files with one number, a file edited after it was written, an applied file that is
        missing or a pending one that sorts before applied ones, and models that the files do not
        give. For CI.
        """
        found = self.problems()
        if not found:
            found = self._model_differences()
        if found:
            raise MigrationError(" ".join(found))

    def _check_history(self) -> None:
        found = sums.conflicts(self.folder) + self._history_problems()
        if found:
            raise MigrationError(" ".join(found))

    def _history_problems(self) -> list[str]:
        applied = history.known(self._live, self.folder)
        files = names_in(self.folder)
        partial = history.problems(applied, self.folder)
        if partial:
            return partial
        found = [
            f"{name} is applied, and its file is missing from {self.folder}/."
            for name in applied
            if name not in files
        ]
        last = max(applied, default="")
        found += [
            f"{name} is pending and sorts before {last}, which is applied: give it a later number."
            for name in files
            if name not in applied and name < last
        ]
        return found

    def _model_differences(self) -> list[str]:
        with ScratchServer(self.database) as server:
            made, wanted = self._made_by_files(server), self._made_by_models(server)
        if made == wanted:
            return []
        words = "; ".join(differences(made, wanted))
        return [f"The models are ahead of the files ({words}): run orm-core migrate generate."]

    def _made_by_files(self, server: ScratchServer, names: Iterable[str] | None = None) -> Catalog:
        with server.database() as scratch:
            chosen = list(names) if names is not None else names_in(self.folder)
            if chosen:
                runner.apply(scratch, self.folder, chosen[-1])
            return catalog.read(scratch)

    def _made_by_models(self, server: ScratchServer) -> Catalog:
        from orm_core.models.schema import create_all

        with server.database() as scratch:
            create_all(scratch, self.registry.models)
            return catalog.read(scratch)

    def drift(self) -> Drift:
        """How the live database differs from what its applied files make."""
        live = catalog.read(self._live)
        applied = history.known(self._live, self.folder)
        with ScratchServer(self.database) as server:
            wanted = self._made_by_files(server, applied)
        if live == wanted:
            return Drift((), ())
        steps = diff(live, wanted, cast_exists=lambda *_: True)
        return Drift(tuple(differences(live, wanted)), tuple(step.sql for step in steps))


def _drops(drops: Iterable[str] | bool) -> tuple[str, ...] | bool:
    return drops if isinstance(drops, bool) else tuple(drops)
