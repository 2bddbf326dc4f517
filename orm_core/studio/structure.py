"""What a table is made of, as the server tells it: columns, indexes, constraints, DDL."""

from __future__ import annotations

from dataclasses import dataclass

from orm_core.database.database import Database
from orm_core.migrations import catalog
from orm_core.migrations.catalog import Catalog, Constraint
from orm_core.migrations.diff import any_cast, diff
from orm_core.studio.tables import Table

_KINDS = {"p": "primary key", "u": "unique", "f": "foreign key", "c": "check", "x": "exclusion"}


@dataclass(frozen=True, slots=True)
class IndexUse:
    """An index: its definition, its size in bytes and how often the server used it."""

    name: str
    definition: str
    bytes: int
    scans: int


@dataclass(frozen=True, slots=True)
class Structure:
    """A table of the live database."""

    table: catalog.Table
    indexes: list[IndexUse]
    ddl: list[str]

    @property
    def constraints(self) -> list[tuple[str, Constraint]]:
        """Its constraints, each with the word for its kind."""
        return [(_KINDS[one.kind], one) for one in self.table.constraints.values()]


def read(reader: Database, table: Table) -> Structure | None:
    """The structure of a table, or None when the database does not have it."""
    whole = catalog.read(reader)
    meta = table.model._meta
    schema = meta.schema or "public"
    found = whole.tables.get((schema, meta.table_name))
    if found is None:
        return None
    sql = """
        SELECT s.indexrelname, pg_get_indexdef(s.indexrelid), pg_relation_size(s.indexrelid),
               s.idx_scan
        FROM pg_stat_user_indexes AS s
        WHERE s.schemaname = %s AND s.relname = %s ORDER BY 1
    """
    used = reader.execute_sql(sql, (schema, meta.table_name)).fetchall()
    # Types and sequences are there on both sides, so that only the table is written out.
    empty = Catalog(whole.schemas, {}, whole.enums, whole.sequences)
    alone = Catalog(whole.schemas, {found.name: found}, whole.enums, whole.sequences)
    ddl = [step.sql for step in diff(empty, alone, cast_exists=any_cast)]
    return Structure(found, [IndexUse(*row) for row in used], ddl)
