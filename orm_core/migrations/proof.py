"""The proof of new files, on a scratch database that has the schema before them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from orm_core.database.database import Database
from orm_core.errors import MigrationError
from orm_core.migrations import catalog, runner
from orm_core.migrations.catalog import HISTORY, Catalog
from orm_core.migrations.files import MigrationFile
from orm_core.migrations.names import Name
from orm_core.migrations.words import differences


def prove(
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
    if _views(found) != _views(wanted):
        raise MigrationError(f"{complaint}: a view of a hand-written file is gone.")


def _views(schema: Catalog) -> set[Name]:
    return {one.name for one in schema.dependents if one.kind != "trigger"}
