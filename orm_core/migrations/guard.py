"""What is dangerous in the pending files for the rows that are there now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orm_core.database.database import Database
from orm_core.errors import EmbeddedError, MigrationError
from orm_core.migrations import catalog
from orm_core.migrations.effects import FileReport
from orm_core.migrations.names import qualified


def dangers(
    database: Database, pending: Sequence[str], plan: Callable[[], list[FileReport]]
) -> list[str]:
    """The dangers of these files for tables that hold rows; no plan is made where none does."""
    tables = [qualified(name) for name in catalog.read(database).tables]
    if not pending or not any(_holds_rows(database, table) for table in tables):
        return []
    try:
        reports = plan()
    except EmbeddedError as error:
        raise MigrationError(
            "Nothing was applied: tables hold rows, and the pending files can't be tried on a "
            f"scratch database first to see whether they are dangerous. {error} Or give --allow "
            "(in Python allow=True) to apply them unseen."
        ) from error
    return [
        f"{report.name}: {danger}"
        for report in reports[: len(pending)]
        for effect in report.effects
        if any(_holds_rows(database, table) for table in effect.tables)
        for danger in effect.dangers
    ]


def _holds_rows(database: Database, table: str) -> bool:
    sql = f"SELECT EXISTS (SELECT FROM {table})".replace("%", "%%")
    return bool(database.execute_sql(sql).fetchone()[0])
