"""How the database is doing: activity of tables, migrations, drift, keys in use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from orm_core import rotation
from orm_core.crypto.data_key import OWNER
from orm_core.crypto.in_use import index_keys, key_ring
from orm_core.crypto.keys import Keys
from orm_core.database.database import Database
from orm_core.errors import KeyRingError, OrmCoreError
from orm_core.migrations import runner
from orm_core.migrations.files import names_in
from orm_core.migrations.statements import statements
from orm_core.studio.tables import Table, Tables

DRIFT_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Activity:
    """What the server counted for a table since its statistics began."""

    table: str
    live: int
    dead: int
    whole_scans: int
    index_scans: int
    inserted: int
    updated: int
    deleted: int
    vacuumed: datetime | None


def activity(reader: Database, tables: Tables) -> list[Activity]:
    """The server's counters of the registered tables."""
    sql = """
        SELECT CASE WHEN schemaname = 'public' THEN relname ELSE schemaname || '.' || relname END,
               n_live_tup, n_dead_tup, seq_scan, coalesce(idx_scan, 0), n_tup_ins,
               n_tup_upd, n_tup_del, greatest(last_vacuum, last_autovacuum)
        FROM pg_stat_user_tables ORDER BY 1
    """
    known = {table.name for table in tables}
    return [Activity(*row) for row in reader.execute_sql(sql) if row[0] in known]


@dataclass(frozen=True, slots=True)
class Server:
    """The server and the database as a whole; ``hits`` is the share of pages found in memory."""

    version: str
    bytes: int
    connections: int
    most: int
    hits: float | None
    oldest: float | None


def server(reader: Database) -> Server:
    """What the server says of itself; ``oldest`` is the longest open transaction, in seconds."""
    sql = """
        SELECT current_setting('server_version'), pg_database_size(current_database()),
               numbackends, current_setting('max_connections')::int,
               blks_hit::float8 / nullif(blks_hit + blks_read, 0),
               (SELECT extract(epoch FROM now() - min(xact_start))::float8
                FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid())
        FROM pg_stat_database WHERE datname = current_database()
    """
    return Server(*reader.execute_sql(sql).fetchone())


# -- migrations -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class File:
    """A migration's name, whether it is applied, and its SQL both ways."""

    name: str
    applied: bool
    up: str
    down: str


def migrations(database: Database, folder: Path) -> list[File]:
    """The migrations of the folder, in order, read without running them."""
    found = runner.status(database, folder)
    files: list[File] = []
    for name in names_in(folder):
        path = folder / f"{name}.py"
        up, down = (_joined(statements(path, way)) for way in ("migrate", "rollback"))
        files.append(File(name, name in found.applied, up, down))
    return files


def _joined(found: list[str]) -> str:
    return ";\n".join(found) + ";" if found else "-- nothing"


@dataclass(frozen=True, slots=True)
class Drift:
    """How the database differs from what its files make, or why that can't be told."""

    differences: tuple[str, ...] = ()
    sql: tuple[str, ...] = ()
    problem: str | None = None


def drift(url: str | None, folder: Path) -> Drift:
    """Compare the database, by default that of the settings, with its applied files.

    In a process of its own: replaying files patches the process that does it, and the studio
    serves requests meanwhile.
    """
    command = "from orm_core.cli import main; main()"
    arguments = ["migrate", "drift", "--json", "--folder", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603 - our own program, no shell
            [sys.executable, "-c", command, *arguments],
            env={**os.environ, **({"DATABASE_URL": url} if url else {})},
            capture_output=True,
            text=True,
            timeout=DRIFT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Drift(problem=f"The comparison took longer than {DRIFT_SECONDS} s.")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return Drift(problem=done.stderr.removeprefix("Error: ").strip() or "It failed.")
    return Drift(tuple(found["differences"]), tuple(found["sql"]))


# -- keys -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How many values of a column a key sealed; ``rows`` None when they could not be counted."""

    table: str
    column: str
    key: str
    rows: int | None
    #: "seals", "opens", "missing" or "unknown", when there is no key ring here
    state: str


def keys(reader: Database, tables: Tables) -> list[KeyUse]:
    """Which keys sealed the values of each encrypted column and blind index."""
    return [use for table in tables for use in _keys_of(reader, table)]


def _keys_of(reader: Database, table: Table) -> list[KeyUse]:
    secrets = rotation.secrets_of(table.model)
    indexes = {part.column_name for secret in secrets for part in secret.columns[3:]}
    try:
        return [
            KeyUse(
                table.name,
                column,
                key,
                rows,
                _state(key, index_keys if column in indexes else key_ring),
            )
            for _, column, key, rows in rotation.status([table.model], database=reader)
        ]
    except OrmCoreError:
        return [KeyUse(table.name, one.column_name, "", None, "unknown") for one in secrets]


def _state(key_id: str, ring_in_use: Callable[[], Keys]) -> str:
    if key_id == OWNER:
        return "seals"
    try:
        ring = ring_in_use()
    except KeyRingError:
        return "unknown"
    if key_id in (rotation.LEGACY, rotation.MISSING):
        return "opens"
    if key_id not in ring:
        return "missing"
    return "seals" if key_id == ring.first_id else "opens"
