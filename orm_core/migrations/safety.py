"""What pending migrations would do to a busy database, seen on a scratch copy.

Each statement is really run, on a copy of the schema, and PostgreSQL is asked what it did: which
locks it holds on tables that were there before (``pg_locks``), whether a table was written anew
(``pg_relation_filenode``). Statements that hold up others or lose data are called dangerous and
come with the safer way. Rules after strong_migrations and squawk, and the PostgreSQL manual,
"Explicit Locking" and "ALTER TABLE".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orm_core.database.connection import Database
from orm_core.errors import MigrationError
from orm_core.migrations import catalog, runner
from orm_core.migrations.catalog import HISTORY
from orm_core.migrations.history import applied

#: lock modes from weak to strong
_MODES: Final = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)


_NOT_NULL: Final = re.compile(r"ALTER COLUMN .* SET NOT NULL")
_VALIDATED: Final = re.compile(r"VALIDATE CONSTRAINT .*_not_null\b")
#: what the Router says of transactions, and settings of them
_TRANSACTION: Final = ("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT", "ROLLBACK", "SET LOCAL")


@dataclass(frozen=True, slots=True)
class Effect:
    """What one statement did on the scratch copy.

    ``locks`` are the strongest ones it took on tables that were there before; ``rewrites`` are
    tables written anew; ``dangers`` say what would hurt and how to do it better.
    """

    sql: str
    locks: tuple[tuple[str, str], ...] = ()
    rewrites: tuple[str, ...] = ()
    dangers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileReport:
    """The effects of one file, and whether its rollback brings the schema back."""

    name: str
    effects: tuple[Effect, ...]
    reversible: bool

    @property
    def dangers(self) -> tuple[str, ...]:
        """All dangers of the file."""
        return tuple(danger for effect in self.effects for danger in effect.dangers)


class _Observed(Database):
    """A scratch database that notes what each statement does to the tables present before.

    While it observes, it runs each statement in a transaction of its own, whatever the Router
    asks for, so that the locks seen are that statement's.
    """

    effects: list[Effect] | None = None
    present: dict[int, str]

    def _send(self, sql: str, params: Any, **options: Any) -> Any:
        effects = self.effects
        if effects is None:
            return super()._send(sql, params, **options)
        if sql.lstrip().startswith(_TRANSACTION):
            return None
        if HISTORY in sql or sql.lstrip().startswith("SELECT"):
            return super()._send(sql, params, **options)
        alone = "CONCURRENTLY" in sql.upper()
        files = self._files()
        if not alone:
            super()._send("BEGIN", None)
        cursor = super()._send(sql, params, **options)
        locks = () if alone else self._locks()
        rewrites = tuple(
            self.present[oid] for oid, node in self._files().items() if files[oid] != node
        )
        if not alone:
            super()._send("COMMIT", None)
        text = " ".join((sql % tuple("?" for _ in params) if params else sql).split())
        effects.append(Effect(text.replace("%%", "%"), locks, rewrites))
        return cursor

    def _files(self) -> dict[int, int]:
        sql = "SELECT oid::bigint, pg_relation_filenode(oid)::bigint FROM pg_class"
        return {oid: node for oid, node in self._rows(sql) if oid in self.present}

    def _locks(self) -> tuple[tuple[str, str], ...]:
        sql = (
            "SELECT relation::bigint, mode FROM pg_locks "
            "WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted"
        )
        strongest: dict[int, str] = {}
        for oid, mode in self._rows(sql):
            if oid in self.present:
                known = strongest.setdefault(oid, mode)
                strongest[oid] = max(known, mode, key=_MODES.index)
        return tuple((self.present[oid], mode) for oid, mode in strongest.items())

    def _rows(self, sql: str) -> list[Any]:
        return list(super()._send(sql, None).fetchall())

    def note_present(self) -> None:
        """Take the tables that are there now as those that are in use."""
        sql = """
            SELECT c.oid::bigint, c.oid::regclass::text
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'm') AND c.relname <> %s
              AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
        """
        self.present = dict(self.execute_sql(sql, (HISTORY,)).fetchall())


def inspect(
    scratch: Database, folder: Path, applied: Sequence[str], pending: Iterable[str]
) -> list[FileReport]:
    """Run the pending files on an empty scratch database that has the applied ones' schema."""
    observed = _Observed(str(scratch.database), pool_size=2, **scratch.connect_params)
    try:
        if applied:
            runner.apply(observed, folder, applied[-1])
        return [_inspect_file(observed, folder, name) for name in pending]
    finally:
        observed.close_all()


def _inspect_file(observed: _Observed, folder: Path, name: str) -> FileReport:
    before = catalog.read(observed)
    observed.note_present()
    observed.effects = []
    try:
        runner.apply(observed, folder, name)
        effects = observed.effects
    finally:
        observed.effects = None
    judged = [
        Effect(one.sql, one.locks, one.rewrites, tuple(_dangers(one, effects[:place])))
        for place, one in enumerate(effects)
    ]
    return FileReport(name, tuple(judged), _comes_back(observed, folder, name, before))


def _comes_back(observed: Database, folder: Path, name: str, before: catalog.Catalog) -> bool:
    try:
        runner.rollback(observed, folder, 1)
        same = catalog.read(observed) == before
    except MigrationError:
        same = False
    if name not in applied(observed):
        runner.apply(observed, folder, name)
    return same


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    danger: str


def _rule(pattern: str, danger: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), danger)


_RULES: Final = (
    _rule(r"^DROP TABLE", "loses a table with its rows"),
    _rule(r"\bDROP COLUMN\b", "loses a column; stop using it in the code that runs first"),
    _rule(
        r"^CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)",
        "stops writes while the index is built; --safe writes CREATE INDEX CONCURRENTLY",
    ),
    _rule(
        r"ADD CONSTRAINT .*(FOREIGN KEY|CHECK)(?!.*NOT VALID)",
        "stops writes while all rows are checked; --safe writes NOT VALID, then VALIDATE",
    ),
    _rule(
        r"ADD CONSTRAINT .* (UNIQUE|PRIMARY KEY) \(",
        "stops reads and writes while an index is built; make the index CONCURRENTLY first and "
        "add the constraint USING INDEX",
    ),
    _rule(
        r"ALTER COLUMN .* SET NOT NULL",
        "stops reads and writes while all rows are checked; --safe writes a CHECK NOT VALID first",
    ),
    _rule(
        r"RENAME (COLUMN|TO)\b",
        "breaks the code that runs and uses the old name; add the new one, move over, drop the "
        "old one in a later migration",
    ),
    _rule(
        r"^UPDATE\b",
        "changes rows in the same transaction as the schema; for many rows use a batched backfill",
    ),
)


def _dangers(effect: Effect, earlier: Sequence[Effect]) -> list[str]:
    if _NOT_NULL.search(effect.sql) and any(_VALIDATED.search(one.sql) for one in earlier):
        return []  # a validated CHECK spares the scan
    found = [
        f"{table} is written anew, and nobody can read or write it meanwhile; add a new column, "
        "fill it in batches and switch over"
        for table in effect.rewrites
    ]
    if effect.locks:  # on new tables nobody waits
        found += [rule.danger for rule in _RULES if rule.pattern.search(effect.sql)]
    return found
