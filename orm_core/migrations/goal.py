"""The schema that the models ask for, beside what only hand-written files make."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from orm_core.database.database import Database
from orm_core.database.transactions import Transaction
from orm_core.errors import QueryError
from orm_core.migrations import catalog
from orm_core.migrations.catalog import Catalog, Table
from orm_core.migrations.names import Name, qualified, quote
from orm_core.migrations.scratch import ScratchServer
from orm_core.models.schema import create_all

#: tables up to which the locks of one transaction that drops and makes them all are sure to fit
#: (PostgreSQL manual, max_locks_per_transaction: 64 for each of 100 connections)
_FEW: Final = 200


def goal(server: ScratchServer, files: Database, start: Catalog, models: Sequence[Any]) -> Catalog:
    """What the files, which made ``start``, would make if they were up to date.

    The models' tables are created in place of those of the files, and all of it undone, so that
    columns can use extensions, functions and domains which a file made by hand.
    """
    with _stage(server, files, len(start.tables) + len(models)) as scratch:
        _clear(scratch, start)
        create_all(scratch, models)
        found = catalog.read(scratch)
    views = {one.name[0] for one in start.dependents if one.kind != "trigger"}
    schemas = found.schemas | (views & start.schemas)
    tables = dict(_with_policies_by_hand(found, start, models))
    return replace(found, schemas=schemas, tables=tables, dependents=start.dependents)


def _with_policies_by_hand(
    found: Catalog, start: Catalog, models: Sequence[Any]
) -> Iterator[tuple[Name, Table]]:
    """The tables; one whose model says nothing of policies keeps those that a file made."""
    spoken = {
        (model._meta.schema or "public", model._meta.table_name)
        for model in models
        if hasattr(model._meta, "policies")
    }
    for name, table in found.tables.items():
        before = start.tables.get(name)
        if before is None or name in spoken:
            yield name, table
            continue
        yield name, replace(table, row_security=before.row_security)


@contextmanager
def _stage(server: ScratchServer, files: Database, tables: int) -> Generator[Database]:
    """A transaction that is undone, which spares a copy; a copy where there are many tables."""
    if tables > _FEW:
        files.close_all()  # a database that is copied has no sessions
        with server.database(template=str(files.database)) as copy:
            yield copy
        return
    with Transaction(files) as tx:
        yield files
        tx.rollback()


def _clear(scratch: Database, start: Catalog) -> None:
    for kind, names in (
        ("TABLE", start.tables),
        ("TYPE", start.enums),
        ("SEQUENCE", start.sequences),
        ("FUNCTION", start.functions),
    ):
        if names:
            listed = ", ".join(map(qualified, names)).replace("%", "%%")
            scratch.execute_sql(f"DROP {kind} IF EXISTS {listed} CASCADE")
    for schema in start.schemas - {"public"}:
        try:
            with scratch.atomic():
                scratch.execute_sql(f"DROP SCHEMA {quote(schema)}".replace("%", "%%"))
        except QueryError:
            continue  # a file made something in it that no model asks for
