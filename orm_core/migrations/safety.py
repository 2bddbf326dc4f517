"""What pending migrations would do to a busy database, seen on a scratch copy.

Each statement is really run, on a copy of the schema, and PostgreSQL is asked what it did. What
holds up others or loses data is called dangerous and comes with the safer way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from orm_core.database.database import Database
from orm_core.errors import MigrationError
from orm_core.migrations import catalog, runner
from orm_core.migrations.dangers import judged
from orm_core.migrations.effects import FileReport
from orm_core.migrations.observed import Observed
from orm_core.migrations.scratch import ScratchServer


def inspect(
    server: ScratchServer, folder: Path, applied: Sequence[str], pending: Iterable[str]
) -> list[FileReport]:
    """Run the pending files on a scratch database that has the applied ones' schema."""
    with server.database() as scratch:
        observed = Observed(
            str(scratch.database),
            pool_size=2,
            driver=scratch.driver.NAME,
            **scratch.connect_params,
        )
        try:
            runner.replay(observed, folder, applied)
            return [_inspect_file(server, observed, folder, name) for name in pending]
        finally:
            observed.close_all()


def _inspect_file(server: ScratchServer, observed: Observed, folder: Path, name: str) -> FileReport:
    before = catalog.read(observed)
    with observed.connection_context():
        observed.begin_file()
        try:
            runner.replay(observed, folder, [name])
        finally:
            effects = observed.end_file()
    observed.close_all()  # a database that is copied has no sessions
    with server.database(template=str(observed.database)) as copy:
        reversible = _comes_back(copy, folder, before)
    return FileReport(name, tuple(judged(effects)), reversible)


def _comes_back(copy: Database, folder: Path, before: catalog.Catalog) -> bool:
    try:
        runner.rollback(copy, folder, 1)
        return catalog.read(copy) == before
    except MigrationError:
        return False
