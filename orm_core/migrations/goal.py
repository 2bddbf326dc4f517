"""The schema that the models ask for, beside what only hand-written files make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from orm_core.database.connection import Database
from orm_core.errors import QueryError
from orm_core.migrations import catalog
from orm_core.migrations.catalog import Catalog
from orm_core.migrations.names import qualified, quote
from orm_core.migrations.scratch import ScratchServer
from orm_core.models.schema import create_all


def goal(server: ScratchServer, files: Database, start: Catalog, models: Iterable[Any]) -> Catalog:
    """What the files, which made ``start``, would make if they were up to date.

    The models' tables are created on a copy in place of those of the files, so that columns can
    use extensions, functions and domains which a file made by hand.
    """
    files.close_all()  # a database that is copied has no sessions
    with server.database(template=str(files.database)) as scratch:
        _clear(scratch, start)
        create_all(scratch, models)
        found = catalog.read(scratch)
    views = {one.name[0] for one in start.dependents if one.kind != "trigger"}
    schemas = found.schemas | (views & start.schemas)
    return replace(found, schemas=schemas, dependents=start.dependents)


def _clear(scratch: Database, start: Catalog) -> None:
    for kind, names in (
        ("TABLE", start.tables),
        ("TYPE", start.enums),
        ("SEQUENCE", start.sequences),
    ):
        if names:
            listed = ", ".join(map(qualified, names)).replace("%", "%%")
            scratch.execute_sql(f"DROP {kind} IF EXISTS {listed} CASCADE")
    for schema in start.schemas - {"public"}:
        try:
            scratch.execute_sql(f"DROP SCHEMA {quote(schema)}".replace("%", "%%"))
        except QueryError:
            continue  # a file made something in it that no model asks for
