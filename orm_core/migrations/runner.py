"""Applies migration files with a stock peewee-migrate Router.

::

    router(db, "migrations").run()

For deploy scripts and the command line. A process that serves requests never runs a Router: it
replays the files applied before under a process-wide mock of ``execute_sql``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import peewee

from orm_core.errors import MigrationError

if TYPE_CHECKING:
    from peewee_migrate import Router

#: peewee-migrate numbers files with three digits
MAX_MIGRATIONS = 999


@dataclass(frozen=True, slots=True)
class Status:
    """The migrations of a database: applied ones in order, pending ones in order."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]


def router(database: peewee.Database, folder: str | Path) -> Router:
    """A stock Router over ``folder``. Raises ``MigrationError`` when there is no such folder."""
    from peewee_migrate import Router

    path = Path(folder)
    if not path.is_dir():
        raise MigrationError(
            f"There is no folder {str(path)!r} of migrations; run from the project's top, or set "
            "ORM_CORE_MIGRATIONS_DIR."
        )
    quiet = logging.getLogger("orm_core.migrations")
    return Router(database, migrate_dir=path, logger=quiet)


def status(database: peewee.Database, folder: str | Path) -> Status:
    """What is applied and what is pending."""
    stock = router(database, folder)
    return Status(tuple(stock.done), tuple(stock.diff))


def apply(database: peewee.Database, folder: str | Path, to: str | None = None) -> list[str]:
    """Apply what is pending, up to and including the file ``to``; answers the names applied.

    Each file is one transaction. Raises what a file raises; the files before it stand.
    """
    stock = router(database, folder)
    if to is not None and to not in stock.diff:
        raise MigrationError(f"{to} is not among the pending migrations.")
    return list(stock.run(to))


def rollback(database: peewee.Database, folder: str | Path, count: int = 1) -> list[str]:
    """Undo the last ``count`` migrations; answers their names, the latest first."""
    stock = router(database, folder)
    done = list(stock.done)
    if not 0 < count <= len(done):
        raise MigrationError(f"Can't roll back {count}: {len(done)} migration(s) are applied.")
    names = done[::-1][:count]
    for _ in names:
        stock.rollback()
    return names
