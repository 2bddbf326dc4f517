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
from pathlib import Path
from typing import Any, Protocol

from orm_core.database.database import Database
from orm_core.errors import MigrationError
from orm_core.migrations import backfill, catalog, comparing, guard, history, runner, sums
from orm_core.migrations.answers import Answers
from orm_core.migrations.comparing import Drift
from orm_core.migrations.effects import FileReport
from orm_core.migrations.files import file_name, names_in, next_number, write_whole
from orm_core.migrations.generate import Proposal, propose
from orm_core.migrations.pull import source
from orm_core.migrations.rehearsal import Rehearsal, rehearse
from orm_core.migrations.safety import inspect
from orm_core.migrations.scratch import ScratchServer
from orm_core.migrations.squash import squash
from orm_core.migrations.statements import Direction, statements


class Domains(Protocol):
    """What is needed of a registry: its domains, each with a name and models."""

    @property
    def models(self) -> tuple[Any, ...]:
        """All models, each after those that it refers to."""
        ...

    def __iter__(self) -> Any:
        """The domains."""


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
        self.folder: Path = Path(folder)

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
        CONCURRENTLY, constraints NOT VALID and validated afterwards, renames in steps between which
        old and new code work. Each file is applied, rolled back and applied again on a scratch
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

    def write_backfill(
        self,
        table: str,
        set_sql: str,
        where_sql: str,
        *,
        key: str = "id",
        batch: int = backfill.BATCH,
        name: str | None = None,
    ) -> Path:
        """Write a file that changes the rows of ``table`` that match, batch by batch.

        ``where_sql`` must no longer match a row that is done; ``key`` is a column with a unique
        index. In the SQL ``%%`` stands for a percent sign. See ``orm_core.migrations.backfill``.
        """
        text = backfill.source(table, set_sql, where_sql, key=key, batch=batch)
        self.folder.mkdir(parents=True, exist_ok=True)
        words = name or f"backfills {table}"
        path = self.folder / f"{file_name(next_number(self.folder), words)}.py"
        write_whole(path, text)
        sums.write(self.folder)
        return path

    # -- applying ---------------------------------------------------------------------------

    def status(self) -> runner.Status:
        """What is applied to the database and what is pending."""
        return runner.status(self._live, self.folder)

    def pending(self) -> tuple[str, ...]:
        """The names of the files that are not applied yet, in order."""
        return self.status().pending

    def apply(self, to: str | None = None, *, allow: bool = True) -> list[str]:
        """Apply the pending files, up to and including ``to`` (a name or a number).

        One deployer at a time; others wait and find nothing to do. A file that meets a busy
        table is tried again. Raises ``MigrationError`` when the history does not fit the files
        and, with ``allow=False``, when a step is dangerous for a table that holds rows; nothing
        is applied then.
        """
        with runner.deploying(self._live):
            self._check_history()
            found = [] if allow else self.dangers(to)
            if found:
                raise MigrationError(
                    f"Nothing was applied: {len(found)} step(s) are dangerous for tables that hold "
                    f"rows. {'. '.join(found)}. Give --allow to apply them nevertheless; "
                    "orm-core migrate apply --plan tells more."
                )
            return runner.apply(self._live, self.folder, to)

    def dangers(self, to: str | None = None) -> list[str]:
        """What in the pending files is dangerous for tables that hold rows now."""
        pending = self.pending()
        if to is not None:
            pending = pending[: pending.index(runner.pick(to, pending)) + 1]
        return guard.dangers(self._live, pending, self.plan)

    def rehearse(self, url: str) -> Rehearsal:
        """Apply the pending files to a copy with real data, and tell how long each step takes.

        The copy is left as it was; where that can't be done, as for an index built
        CONCURRENTLY, the answer's ``changed`` says so. Raises ``MigrationError`` when ``url``
        leads to the database itself.
        """
        given = self.database if self.database is not None and not self.database.deferred else None
        return rehearse(url, self.folder, given)

    def rollback(self, count: int = 1) -> list[str]:
        """Undo the last ``count`` files; answers their names, the latest first."""
        return runner.rollback(self._live, self.folder, count)

    def plan(self) -> list[FileReport]:
        """What the pending files would do, each statement run on a scratch copy of the schema.

        Tells the locks taken on tables that are there, the tables written anew, whether the file
        can be rolled back, and what is dangerous, with the safer way.
        """
        self._check_history()
        found = self.status()
        if not found.pending:
            return []
        with ScratchServer(self.database) as server:
            return inspect(server, self.folder, found.applied, found.pending)

    def fake(self, to: str | None = None) -> list[str]:
        """Note the pending files as applied without running them."""
        return runner.fake(self._live, self.folder, to)

    def sql(self, names: Iterable[str] | None = None, *, down: bool = False) -> str:
        """What files would run, as SQL, read without a database; all files by default."""
        direction: Direction = "rollback" if down else "migrate"
        chosen = names_in(self.folder)
        if names is not None:
            chosen = [self._named(name) for name in names]
        parts: list[str] = []
        for name in chosen[::-1] if down else chosen:
            body = ";\n".join(statements(self.folder / f"{name}.py", direction))
            parts.append(f"-- {name}\n{body};\n")
        return "\n".join(parts)

    def _named(self, wanted: str) -> str:
        names = names_in(self.folder)
        for name in names:
            if wanted == name or (wanted.isdecimal() and int(wanted) == int(name[:3])):
                return name
        raise MigrationError(f"There is no migration {wanted} in {self.folder}/.")

    # -- checking ---------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What is wrong with the folder and, where a database is given, with its history."""
        found = sums.problems(self.folder)
        if self.database is not None and not self.database.deferred:
            found += self._history_problems()
        return found

    def _history_problems(self) -> list[str]:
        return history.problems(history.known(self._live, self.folder), self.folder)

    def check(self) -> None:
        """Raise ``MigrationError`` when files, models and history do not fit together.

        Two files with one number, a file edited after it was written, an applied file that is
        missing or a pending one that sorts before applied ones, and models that the files do not
        give. For CI.
        """
        found = self.problems()
        if not found:
            found = comparing.models_ahead(self.database, self.registry.models, self.folder)
        if found:
            raise MigrationError(" ".join(found))

    def _check_history(self) -> None:
        history.refuse_misfit(self._live, self.folder)

    def drift(self) -> Drift:
        """How the live database differs from what its applied files make."""
        return comparing.drift(self._live, self.folder)


def _drops(drops: Iterable[str] | bool) -> tuple[str, ...] | bool:
    return drops if isinstance(drops, bool) else tuple(drops)
