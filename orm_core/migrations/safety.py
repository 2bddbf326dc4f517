"""What pending migrations would do to a busy database, seen on a scratch copy.

Each statement is really run, on a copy of the schema, and PostgreSQL is asked what it did: which
locks it holds on tables that were there before (``pg_locks``), whether a table was written anew
(``pg_relation_filenode``) or read as a whole (its own debug messages), which tables, columns and
names are gone. What holds up others or loses data is called dangerous and comes with the safer
way. After strong_migrations and squawk, and the PostgreSQL manual, "Explicit Locking" and "ALTER
TABLE".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from orm_core.database.connection import Database
from orm_core.errors import MigrationError
from orm_core.migrations import catalog, runner
from orm_core.migrations.catalog import HISTORY
from orm_core.migrations.scratch import ScratchServer

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
#: the weakest lock under which nobody else can write
_STOPS_WRITES: Final = _MODES.index("ShareLock")

#: what the Router says of transactions
_TRANSACTION: Final = ("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT", "ROLLBACK")
_SETTING = re.compile(r"SET\s+LOCAL\s[^;]*;?\s*", re.IGNORECASE)
_OUTSIDE = re.compile(
    r"(CREATE (UNIQUE )?INDEX|DROP INDEX|REINDEX \w+|ALTER TABLE .* DETACH PARTITION .*)"
    r" CONCURRENTLY\b|VACUUM\b",
    re.IGNORECASE,
)
#: how PostgreSQL says at DEBUG1, in every language, that it reads all rows of a table
_READS: Final = (
    re.compile(r'verifying table "(?P<table>.+)"'),
    re.compile(r'building index ".+" on table "(?P<table>.+)" '),
    re.compile(r'validating foreign key constraint "(?P<constraint>.+)"'),
)


@dataclass(frozen=True, slots=True)
class Effect:
    """What one statement did on the scratch copy.

    ``locks`` are the strongest ones it took on tables that were there before; ``rewrites`` are
    tables written anew; ``dangers`` say what would hurt and how to do it better; ``reads`` are
    tables of which all rows are read under a lock that stops writes; ``loses`` are tables and
    columns that are gone, or whose rows are; ``renames`` are names that are gone. ``tables`` are
    the tables locked, by the names that they have in the database now.
    """

    sql: str
    locks: tuple[tuple[str, str], ...] = ()
    rewrites: tuple[str, ...] = ()
    dangers: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()
    renames: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


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

    @property
    def loses(self) -> tuple[str, ...]:
        """All that is gone after the file."""
        return tuple(one for effect in self.effects for one in effect.loses)


@dataclass(frozen=True, slots=True)
class _State:
    """What can be seen to change: by oid the name and file of a table, by number a column."""

    tables: dict[int, tuple[str, int | None]]
    columns: dict[tuple[int, int], str]
    indexes: dict[int, int]


class _Observed(Database):
    """A scratch database that notes what each statement does to the tables present before.

    While it observes, it runs each statement in a transaction of its own, whatever the Router
    asks for, so that the locks seen are that statement's.
    """

    effects: list[Effect] | None = None
    #: the tables there when the file began, and when the first pending file did
    present: dict[int, str]
    live: dict[int, str]
    settings: list[str]

    def _send(self, sql: str, params: Any, **options: Any) -> Any:
        if self.effects is None or HISTORY in sql:
            return super()._send(sql, params, **options)
        if sql.lstrip().startswith(_TRANSACTION):
            if sql.startswith(("COMMIT", "ROLLBACK")):
                self.settings.clear()
            return None
        if _SETTING.fullmatch(sql.strip()):
            self.settings.append(sql)
            return None
        cursor, effect = self._observe(sql, params, options)
        is_read = not effect.locks and sql.lstrip().upper().startswith("SELECT")
        if not is_read and effect not in self.effects[-1:]:  # batches repeat one statement
            self.effects.append(effect)
        return cursor

    def _observe(self, sql: str, params: Any, options: Any) -> tuple[Any, Effect]:
        outside = bool(_OUTSIDE.match(" ".join(sql.split())))
        before = self._look()
        notices = self.connection().notices
        del notices[:]
        if outside:
            cursor = super()._send(sql, params, **options)
            after = self._look()
            locks = self._locks_outside(before, after)
        else:
            super()._send("BEGIN", None)
            try:
                for setting in self.settings:
                    super()._send(setting, None)
                cursor = super()._send(sql, params, **options)
                told = [str(notice) for notice in notices]
                locks = self._locks()
                super()._send("COMMIT", None)
            except BaseException:
                super()._send("ROLLBACK", None)
                raise
            after = self._look()
        text = " ".join((sql % tuple("?" for _ in params) if params else sql).split())
        effect = Effect(
            text.replace("%%", "%"),
            tuple((self.present[oid], mode) for oid, mode in locks.items()),
            tuple(self._rewritten(before, after)),
            loses=tuple(self._lost(before, after)),
            renames=tuple(self._renamed(before, after)),
            tables=tuple(self.live[oid] for oid in locks if oid in self.live),
        )
        if not outside:
            read = self._read_whole(told, before, locks)
            effect = replace(effect, reads=tuple(one for one in read if one not in effect.rewrites))
        return cursor, effect

    # -- asking -----------------------------------------------------------------------------

    def _rows(self, sql: str, *params: Any) -> list[Any]:
        return list(super()._send(sql, params).fetchall())

    def _look(self) -> _State:
        oids = list(self.present)
        tables = self._rows(
            "SELECT oid::bigint, relname, pg_relation_filenode(oid)::bigint FROM pg_class "
            "WHERE oid = ANY(%s::oid[])",
            oids,
        )
        columns = self._rows(
            "SELECT attrelid::bigint, attnum, attname FROM pg_attribute "
            "WHERE attrelid = ANY(%s::oid[]) AND attnum > 0 AND NOT attisdropped",
            oids,
        )
        indexes = self._rows("SELECT indexrelid::bigint, indrelid::bigint FROM pg_index")
        return _State(
            {oid: (name, node) for oid, name, node in tables},
            {(oid, number): name for oid, number, name in columns},
            dict(indexes),
        )

    def _locks(self) -> dict[int, str]:
        sql = (
            "SELECT relation::bigint, mode FROM pg_locks "
            "WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted"
        )
        strongest: dict[int, str] = {}
        for oid, mode in self._rows(sql):
            if oid in self.present:
                known = strongest.setdefault(oid, mode)
                strongest[oid] = max(known, mode, key=_MODES.index)
        return strongest

    def _locks_outside(self, before: _State, after: _State) -> dict[int, str]:
        """CONCURRENTLY lets go of its locks by itself; they are in the manual."""
        changed = before.indexes.items() ^ after.indexes.items()
        tables = sorted({table for _, table in changed if table in self.present})
        return dict.fromkeys(tables, "ShareUpdateExclusiveLock")

    # -- comparing --------------------------------------------------------------------------

    def _rewritten(self, before: _State, after: _State) -> Iterator[str]:
        for oid, (_, node) in after.tables.items():
            if before.tables[oid][1] != node:
                yield self.present[oid]

    def _lost(self, before: _State, after: _State) -> Iterator[str]:
        for oid in before.tables.keys() - after.tables.keys():
            yield f"table {self.present[oid]}"
        for (oid, number), name in before.columns.items():
            if oid in after.tables and (oid, number) not in after.columns:
                yield f"column {self.present[oid]}.{name}"

    def _renamed(self, before: _State, after: _State) -> Iterator[str]:
        for oid, (name, _) in after.tables.items():
            if before.tables[oid][0] != name:
                yield self.present[oid]
        for (oid, number), name in before.columns.items():
            if after.columns.get((oid, number), name) != name:
                yield f"{self.present[oid]}.{name}"

    def _read_whole(self, told: list[str], before: _State, locks: dict[int, str]) -> Iterator[str]:
        oids = {oid for oid, mode in locks.items() if _MODES.index(mode) >= _STOPS_WRITES}
        for oid in oids:
            name = before.tables[oid][0]
            for match in (pattern.search(one) for one in told for pattern in _READS):
                if match and self._is_of(match, oid, name):
                    yield self.present[oid]
                    break

    def _is_of(self, match: re.Match[str], oid: int, name: str) -> bool:
        found = match.groupdict()
        if "table" in found:
            return found["table"] == name
        sql = "SELECT EXISTS (SELECT FROM pg_constraint WHERE conname = %s AND conrelid = %s)"
        return bool(self._rows(sql, found["constraint"], oid)[0][0])

    def begin_file(self) -> None:
        """Take the tables that are there now as those that are in use, and observe."""
        sql = """
            SELECT c.oid::bigint, c.oid::regclass::text
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'm') AND c.relname <> %s
              AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
        """
        self.present = dict(self.execute_sql(sql, (HISTORY,)).fetchall())
        if not hasattr(self, "live"):
            self.live = self.present
        self.execute_sql("SET client_min_messages = debug1")
        self.settings = []
        self.effects = []

    def end_file(self) -> list[Effect]:
        """Observe no more; answers what was seen."""
        effects, self.effects = self.effects or [], None
        self.execute_sql("RESET client_min_messages")
        return effects


def inspect(
    server: ScratchServer, folder: Path, applied: Sequence[str], pending: Iterable[str]
) -> list[FileReport]:
    """Run the pending files on a scratch database that has the applied ones' schema."""
    with server.database() as scratch:
        observed = _Observed(str(scratch.database), pool_size=2, **scratch.connect_params)
        try:
            runner.replay(observed, folder, applied)
            return [_inspect_file(server, observed, folder, name) for name in pending]
        finally:
            observed.close_all()


def _inspect_file(
    server: ScratchServer, observed: _Observed, folder: Path, name: str
) -> FileReport:
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
    return FileReport(name, tuple(_judged(effects)), reversible)


def _comes_back(copy: Database, folder: Path, before: catalog.Catalog) -> bool:
    try:
        runner.rollback(copy, folder, 1)
        return catalog.read(copy) == before
    except MigrationError:
        return False


# -- dangers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Way:
    """Statements that read all rows, and the safer way to the same."""

    pattern: re.Pattern[str]
    advice: str


def _way(pattern: str, advice: str) -> _Way:
    return _Way(re.compile(pattern, re.IGNORECASE), advice)


_WAYS: Final = (
    _way(
        r"^CREATE (UNIQUE )?INDEX",
        "while the index is built; --safe writes CREATE INDEX CONCURRENTLY",
    ),
    _way(r"^REINDEX", "while the index is built; REINDEX CONCURRENTLY, in a file of its own"),
    _way(r"\bEXCLUDE\b", "while an index is built; do it at a quiet hour"),
    _way(
        r"\b(UNIQUE|PRIMARY KEY)\b",
        "while an index is built; make the index CONCURRENTLY first and add the constraint USING "
        "INDEX",
    ),
    _way(
        r"\b(FOREIGN KEY|REFERENCES|CHECK)\b",
        "while all rows are checked; --safe writes NOT VALID, then VALIDATE",
    ),
    _way(
        r"SET NOT NULL",
        "while all rows are checked; --safe writes a CHECK NOT VALID first",
    ),
    _way(
        r"ATTACH PARTITION",
        "while all rows are checked; add a CHECK of the partition's bounds NOT VALID and VALIDATE "
        "it first",
    ),
    _way("", "while all rows are read; do it at a quiet hour"),
)
_ALL_ROWS = re.compile(r"^UPDATE\b(?!.*\bWHERE\b)", re.IGNORECASE)
_CHANGES_ROWS = re.compile(r"^UPDATE\b", re.IGNORECASE)
_DELETES = re.compile(r"^(WITH\b.*)?\bDELETE FROM\b", re.IGNORECASE)


def _judged(effects: list[Effect]) -> Iterator[Effect]:
    changes_schema = any(
        _MODES.index(mode) >= _STOPS_WRITES for one in effects for _, mode in one.locks
    )
    for effect in effects:
        truncated = effect.sql.upper().startswith("TRUNCATE")
        loses = effect.loses
        if truncated:
            loses += tuple(f"rows of {table}" for table in effect.rewrites)
        elif effect.locks and _DELETES.search(effect.sql):
            loses += ("rows",)
        dangers = _dangers(effect, loses, changes_schema=changes_schema)
        yield replace(effect, loses=loses, dangers=tuple(dangers))


def _dangers(effect: Effect, loses: Sequence[str], *, changes_schema: bool) -> Iterator[str]:
    sql, modes = effect.sql, dict(effect.locks)
    yield from (_loss(one) for one in loses)
    if not sql.upper().startswith("TRUNCATE"):
        yield from (_rewrite(table, sql) for table in effect.rewrites)
    for table in effect.reads:
        stopped = "reads and writes" if modes[table] == _MODES[-1] else "writes"
        way = next(one for one in _WAYS if one.pattern.search(sql))
        yield f"stops {stopped} of {table} {way.advice}"
    for name in effect.renames:
        yield (
            f"breaks the code that runs and uses the old name {name}; add the new one, move over, "
            "drop the old one in a later migration"
        )
    if effect.locks and (_ALL_ROWS.search(sql) or (changes_schema and _CHANGES_ROWS.search(sql))):
        beside = "in the same transaction as the schema" if changes_schema else "in one transaction"
        yield f"changes rows {beside}; for many rows use a batched backfill, in a file of its own"


def _loss(what: str) -> str:
    kind, _, name = what.partition(" ")
    if kind == "table":
        return f"loses a table with its rows, {name}"
    if kind == "column":
        return f"loses a column, {name}; stop using it in the code that runs first"
    return f"loses all {what}" if name else "loses rows"


def _rewrite(table: str, sql: str) -> str:
    if sql.upper().startswith("REFRESH"):
        return (
            f"{table} is written anew, and nobody can read it meanwhile; REFRESH MATERIALIZED VIEW "
            "CONCURRENTLY, which needs a unique index"
        )
    return (
        f"{table} is written anew, and nobody can read or write it meanwhile; add a new column, "
        "fill it in batches and switch over"
    )
