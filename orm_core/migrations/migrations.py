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

from orm_core import settings
from orm_core.database.connection import Database
from orm_core.database.url import parse
from orm_core.errors import EmbeddedError, MigrationError
from orm_core.migrations import backfill, catalog, history, runner, sums
from orm_core.migrations.answers import Answers
from orm_core.migrations.catalog import Catalog
from orm_core.migrations.diff import diff
from orm_core.migrations.files import file_name, names_in, next_number
from orm_core.migrations.generate import Proposal, propose
from orm_core.migrations.goal import goal
from orm_core.migrations.names import qualified
from orm_core.migrations.pull import source
from orm_core.migrations.rehearsal import Rehearsal, is_same, rehearse
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
        path.write_text(text, encoding="utf-8")
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
        if not pending or not any(map(self._holds_rows, self._tables())):
            return []
        try:
            reports = self.plan()
        except EmbeddedError as error:
            raise MigrationError(
                "The pending files can't be looked at for dangers, as that needs a scratch "
                f"database: {error} Or give --allow to apply them unseen."
            ) from error
        return [
            f"{report.name}: {danger}"
            for report in reports[: len(pending)]
            for effect in report.effects
            if any(map(self._holds_rows, effect.tables))
            for danger in effect.dangers
        ]

    def _tables(self) -> list[str]:
        return [qualified(name) for name in catalog.read(self._live).tables]

    def _holds_rows(self, table: str) -> bool:
        sql = f"SELECT EXISTS (SELECT FROM {table})".replace("%", "%%")
        return bool(self._live.execute_sql(sql).fetchone()[0])

    def rehearse(self, url: str) -> Rehearsal:
        """Apply the pending files to a copy with real data, and tell how long each step takes.

        The copy is left as it was; where that can't be done, as for an index built
        CONCURRENTLY, the answer's ``changed`` says so. Raises ``MigrationError`` when ``url``
        leads to the database itself.
        """
        config = settings.load({"url": url})
        params = parse(str(config.url)).connect_params(
            ssl=config.ssl_mode,
            ssl_root_cert=config.ssl_root_cert,
            connect_timeout=config.connect_timeout,
        )
        name = str(params.pop("dbname"))
        if self.database is not None and not self.database.deferred:
            copy = Database(name, pool_size=1, **params)
            try:
                if is_same(self.database, copy):
                    raise MigrationError(
                        "The URL to rehearse on leads to the live database itself; give the one "
                        "of a copy."
                    )
            finally:
                copy.close_all()
        return rehearse(name, params, self.folder)

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
        parts = []
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

    def _missing(self, applied: Iterable[str]) -> list[str]:
        files = names_in(self.folder)
        return [
            f"{name} is applied, and its file is missing from {self.folder}/."
            for name in applied
            if name not in files
        ]

    def _history_problems(self) -> list[str]:
        applied = history.known(self._live, self.folder)
        files = names_in(self.folder)
        partial = history.problems(applied, self.folder)
        if partial:
            return partial
        found = self._missing(applied)
        last = max(applied, default="")
        found += [
            f"{name} is pending and sorts before {last}, which is applied: give it a later number."
            for name in files
            if name not in applied and name < last
        ]
        return found

    def _model_differences(self) -> list[str]:
        with ScratchServer(self.database) as server, server.database() as files:
            names = names_in(self.folder)
            if names:
                runner.replay(files, self.folder, names)
            made = catalog.read(files)
            wanted = goal(server, files, made, self.registry.models)
        if made == wanted:
            return []
        words = "; ".join(differences(made, wanted))
        return [f"The models are ahead of the files ({words}): run orm-core migrate generate."]

    def _made_by_files(self, server: ScratchServer, names: Iterable[str]) -> Catalog:
        with server.database() as scratch:
            chosen = list(names)
            if chosen:
                runner.replay(scratch, self.folder, chosen)
            return catalog.read(scratch)

    def drift(self) -> Drift:
        """How the live database differs from what its applied files make."""
        live = catalog.read(self._live)
        applied = history.known(self._live, self.folder)
        missing = self._missing(applied)
        if missing:
            raise MigrationError(" ".join(missing))
        with ScratchServer(self.database) as server:
            wanted = self._made_by_files(server, applied)
        if live == wanted:
            return Drift((), ())
        steps = diff(live, wanted, cast_exists=lambda *_: True)
        return Drift(tuple(differences(live, wanted)), tuple(step.sql for step in steps))


def _drops(drops: Iterable[str] | bool) -> tuple[str, ...] | bool:
    return drops if isinstance(drops, bool) else tuple(drops)
