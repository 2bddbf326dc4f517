"""Applies migration files with peewee-migrate's Router, one deployer at a time.

::

    router(db, "migrations").run()

For deploy scripts and the command line, in a process of their own: a Router replays the files
applied before under process-wide mocks of Peewee (``Database.execute_sql`` says who meets them).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orm_core import peewee_facade as peewee
from orm_core.database.database import Database
from orm_core.errors import (
    CommitUnknown,
    LockTimeout,
    MigrationError,
    OrmCoreError,
    SerializationFailure,
)
from orm_core.migrations.files import names_in
from orm_core.migrations.history import adopt, known, reached, refuse_misfit
from orm_core.migrations.trace import Trace

if TYPE_CHECKING:
    from peewee_migrate import Router

logger: logging.Logger = logging.getLogger("orm_core.migrations")

#: how often a file that met a busy table is tried, and the first pause between, in seconds
ATTEMPTS: Final = 8
PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Status:
    """The migrations of a database: applied ones in order, pending ones in order."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]


def router(database: peewee.Database, folder: str | Path) -> Router:
    """A Router over ``folder`` that tries a file again when a table is busy.

    Raises ``MigrationError`` when there is no such folder; its ``run`` does, too, when the files
    do not fit the history.
    """
    from peewee_migrate import Router
    from peewee_migrate.router import void  # pyright: ignore[reportUnknownVariableType]

    path = Path(folder)
    if not path.is_dir():
        raise MigrationError(
            f"There is no folder {str(path)!r} of migrations; run from the project's top, or set "
            "ORM_CORE_MIGRATIONS_DIR."
        )

    class PatientRouter(Router):
        """A Router whose files wait for busy tables without making others wait."""

        #: the files that are about to be run, to tell how far it is
        names: Sequence[str] = ()
        #: the function that the file being run can't do without
        wanted: str | None = None

        def run(self, name: str | None = None, *, fake: bool = False) -> list[str]:
            """What is pending, under the deploy lock."""
            with deploying(database):
                self.prepare()
                if not fake:
                    refuse_misfit(database, path)
                pending = list(self.diff)
                self.names = pending[: pending.index(name) + 1] if name in pending else pending
                return list(super().run(name, fake=fake))

        def rollback(self) -> None:
            """The latest file, under the deploy lock."""
            with deploying(database):
                self.prepare()
                super().rollback()  # type: ignore[no-untyped-call]

        def prepare(self) -> None:
            """Make sure of the history, in the names of the files that are there now."""
            with reached("made or written"):
                _ = self.model
                adopt(database, path)

        def read(self, name: str) -> Any:
            """The two functions of a file."""
            try:
                read: Any = super().read
                migrate, back = read(name)
            except FileNotFoundError:
                raise MigrationError(
                    f"{name} is applied, and its file is missing from {path}/."
                ) from None
            if {"migrate": migrate, "rollback": back}.get(self.wanted or "") is void:
                raise MigrationError(
                    f"The file has no function {self.wanted}(migrator, database, *, fake=False)."
                )
            return migrate, back

        def run_one(self, name: str, migrator: Any, **options: Any) -> Any:
            """One file; each attempt is a transaction of its own."""
            if options.get("fake", True):
                return self.replay_one(name, migrator, **options)
            back = bool(options.get("downgrade"))
            self.wanted = "rollback" if back else "migrate"
            if back:
                logger.info("Rolling back %s", name)
            else:
                at = self.names.index(name) + 1 if name in self.names else 1
                logger.info("Applying %s (%d of %d)", name, at, max(len(self.names), 1))
            for attempt in range(1, ATTEMPTS + 1):
                with Trace(database) as trace:
                    try:
                        return super().run_one(name, migrator, **options)
                    except Exception as error:
                        migrator.__ops__ = []
                        # A deadlock, too, is somebody else at work on the tables.
                        busy = isinstance(error, LockTimeout | SerializationFailure)
                        if not busy or attempt == ATTEMPTS:
                            told = _told(name, error, trace, attempt, back=back)
                            raise MigrationError(told) from error
                _pause(name, attempt)
            raise AssertionError  # the last attempt returns or raises

        def replay_one(self, name: str, migrator: Any, **options: Any) -> Any:
            """One file that is applied already, without touching the database."""
            self.wanted = None
            try:
                return super().run_one(name, migrator, **options)
            except MigrationError:
                raise
            except Exception as error:
                raise MigrationError(
                    f"{name} can't be replayed, as a Router does with applied files before it goes "
                    f"on: {type(error).__name__}: {error}. A file that asks the database begins "
                    "with `if fake: return`."
                ) from error

    return PatientRouter(database, migrate_dir=path, logger=logging.getLogger("orm_core.router"))


def _told(name: str, error: Exception, trace: Trace, attempt: int, *, back: bool) -> str:
    what = f"The rollback of {name}" if back else f"Migration {name}"
    place = trace.place(error)
    kind = "" if isinstance(error, OrmCoreError) else f"{type(error).__name__}: "
    text = (
        f"{what} failed{' ' if place else ''}{place}{_left(error, trace, back=back)} {kind}{error}"
    )
    if attempt > 1:
        text += (
            f" It was tried {attempt} times. Look in pg_stat_activity for a session whose "
            "transaction has been open for long, or apply it at a quieter hour."
        )
    return text


def _left(error: Exception, trace: Trace, *, back: bool) -> str:
    """What stands after the failure."""
    if isinstance(error, CommitUnknown):
        return "; orm-core migrate status tells whether it went through."
    if trace.committed:
        return "; what it committed itself stands, and running it again goes on."
    return " and was rolled back." if back else " and was rolled back; the ones before it stand."


def _pause(name: str, attempt: int) -> None:
    seconds = PAUSE * 2 ** min(attempt - 1, 4) * random.uniform(0.5, 1)  # noqa: S311
    logger.warning("%s met a busy table; trying again in %.1f s.", name, seconds)
    time.sleep(seconds)


@contextmanager
def deploying(database: peewee.Database) -> Generator[None]:
    """The deploy lock, and one connection throughout, so that it is held to the end."""
    with database.connection_context():
        if isinstance(database, Database):
            database.begin_deploy()
        yield


def status(database: peewee.Database, folder: str | Path) -> Status:
    """What is applied and what is pending; changes nothing and waits for nobody.

    Raises ``MigrationError`` when there is no such folder.
    """
    path = Path(folder)
    if not path.is_dir():
        router(database, path)
    done = known(database, path)
    return Status(done, tuple(name for name in names_in(path) if name not in done))


def apply(database: peewee.Database, folder: str | Path, to: str | None = None) -> list[str]:
    """Apply what is pending, up to and including the file ``to``; answers the names applied.

    Each file is one transaction. Waits for another deployer. Raises what a file raises; the files
    before it stand. ``to`` is a name or a number (``"7"``).
    """
    stock: Any = router(database, folder)
    with deploying(database):
        stock.prepare()
        pending = list(stock.diff)
        if to is not None:
            to = pick(to, pending)
        return list(stock.run(to))


def replay(database: peewee.Database, folder: str | Path, names: Iterable[str]) -> None:
    """Apply exactly these files, in this order, to a scratch database."""
    stock: Any = router(database, folder)
    with deploying(database):
        _ = stock.model
        stock.names = list(names)
        for name in stock.names:
            stock.run_one(name, stock.migrator, fake=False)


def pick(wanted: str, pending: Sequence[str]) -> str:
    """The pending file of a name or a number. Raises ``MigrationError``."""
    for name in pending:
        if wanted == name or (wanted.isdecimal() and int(wanted) == int(name[:3])):
            return name
    raise MigrationError(f"{wanted} is not among the pending migrations.")


def fake(database: peewee.Database, folder: str | Path, to: str | None = None) -> list[str]:
    """Note pending files as applied without running them; answers their names."""
    stock: Any = router(database, folder)
    with deploying(database):
        stock.prepare()
        pending = list(stock.diff)
        if to is not None:
            to = pick(to, pending)
        return list(stock.run(to, fake=True))


def rollback(database: peewee.Database, folder: str | Path, count: int = 1) -> list[str]:
    """Undo the last ``count`` migrations; answers their names, the latest first."""
    stock: Any = router(database, folder)
    with deploying(database):
        stock.prepare()
        done = list(stock.done)
        if not 0 < count <= len(done):
            raise MigrationError(f"Can't roll back {count}: {len(done)} migration(s) are applied.")
        names = done[::-1][:count]
        for _ in names:
            stock.rollback()
        return names
