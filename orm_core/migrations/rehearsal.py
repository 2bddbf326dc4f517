"""Pending migrations on a copy of real data: how long each statement takes, and what fails.

All files run in one transaction that is rolled back, so that the copy is as it was and can be used
again. What can't run inside a transaction (CREATE INDEX CONCURRENTLY, a new enum label that the
next file uses) can't be rolled back: from there on, everything is committed as a deployment would
commit it, and the answer says that the copy was changed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orm_core import settings
from orm_core.database.database import Database
from orm_core.database.url import parse
from orm_core.errors import MigrationError
from orm_core.migrations import runner
from orm_core.migrations.catalog import HISTORY
from orm_core.migrations.history import adopt, known
from orm_core.migrations.watched import Watched

_SAVEPOINT: Final = "rehearsed_file"
#: a label can't be used before it is committed
_ADDS_LABEL = re.compile(r"ALTER\s+TYPE\b.*\bADD\s+VALUE\b", re.IGNORECASE | re.DOTALL)
_SETS = re.compile(r"\s*(SHOW|SET|RESET|SAVEPOINT|RELEASE|ROLLBACK TO)\b", re.IGNORECASE)
_SELECTS = re.compile(r"\s*SELECT\b", re.IGNORECASE)
_WRITES: Final = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a statement took, and how many rows it wrote, where it tells."""

    sql: str
    seconds: float
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class FileTimes:
    """The statements of one file; ``seconds`` are those of the whole file."""

    name: str
    seconds: float
    statements: tuple[Timing, ...]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a rehearsal told.

    ``tables`` are the tables that were locked against writers, or written to, with their rows;
    ``changed`` says that the copy is not as it was; ``failure`` is what the last file failed with.
    """

    files: tuple[FileTimes, ...] = ()
    tables: dict[str, int] = field(default_factory=dict[str, int])
    changed: bool = False
    failure: str | None = None


class _Stage(Watched):
    """A database on which a Router's transactions are savepoints of one that is rolled back."""

    rehearsing = False
    changed = False
    _is_open = False
    _in_file = False
    _commit_file = False

    def __init__(self, database: str, **connect_params: Any) -> None:
        super().__init__(database, pool_size=2, **connect_params)
        self.timings: list[Timing] = []
        self.touched: set[str] = set()

    def watch(self, sql: str, params: Any, send: Callable[[], Any]) -> Any:
        """Take the time of a file's statement; replace what would end the transaction."""
        if not self.rehearsing:
            return send()
        if sql.startswith(("BEGIN", "COMMIT")) or sql == "ROLLBACK":
            return self._transaction(sql, send)
        if HISTORY in sql or _SETS.match(sql) or (_SELECTS.match(sql) and not self._in_file):
            return send()
        if not self._in_file:
            self._let_go()
        self._commit_file = self._commit_file or bool(_ADDS_LABEL.match(sql.lstrip()))
        started = time.perf_counter()
        cursor = send()
        seconds = time.perf_counter() - started
        text = " ".join((sql % tuple("?" for _ in params) if params else sql).split())
        rows = cursor.rowcount if str(cursor.statusmessage).startswith(_WRITES) else None
        self.timings.append(Timing(text.replace("%%", "%"), seconds, rows))
        return cursor

    def _transaction(self, sql: str, send: Callable[[], Any]) -> Any:
        self._in_file = sql.startswith("BEGIN")
        if self.changed:
            if sql == "COMMIT":
                self._note_tables()
            return send()
        if self._in_file:
            self._commit_file = False
            if not self._is_open:
                self.send_unseen("BEGIN")
                self._is_open = True
            return self.send_unseen(f"SAVEPOINT {_SAVEPOINT}")
        if sql == "ROLLBACK":
            if self._is_open:
                self.send_unseen(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            return None
        self.send_unseen("SET CONSTRAINTS ALL IMMEDIATE")
        self._note_tables()
        self.send_unseen(f"RELEASE SAVEPOINT {_SAVEPOINT}")
        if self._commit_file:
            self._let_go()
        return None

    def is_at_rest(self, connection: Any) -> bool:
        """A file's block is over; the rehearsal's transaction goes on."""
        return self._is_open or super().is_at_rest(connection)

    def _let_go(self) -> None:
        """From here on everything stands."""
        if self._is_open:
            self.send_unseen("COMMIT")
            self._is_open = False
        self.changed = True

    def _note_tables(self) -> None:
        sql = """
            SELECT l.relation::regclass::text FROM pg_locks AS l
            JOIN pg_class AS c ON c.oid = l.relation
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE l.pid = pg_backend_pid() AND l.granted AND c.relkind IN ('r', 'p', 'm')
              AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') AND c.relname <> %s
              AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
        """
        self.touched |= {name for (name,) in self.send_unseen(sql, (HISTORY,)).fetchall()}

    def start(self) -> None:
        """From here on what is done can be undone."""
        self.statement("BEGIN")
        self._is_open = self.rehearsing = True

    def finish(self) -> None:
        """Undo what can be undone."""
        self.rehearsing = False
        if self._is_open and not self.connection().closed:
            self.statement("ROLLBACK")
            self._is_open = False


def rehearse(url: str, folder: Path, live: Database | None = None) -> Rehearsal:
    """Apply the pending files to a database that is a copy, and leave it as it was if possible.

    Raises ``MigrationError`` when ``url`` leads to the database ``live``.
    """
    config = settings.load({"url": url})
    params = parse(str(config.url)).connect_params(
        ssl=config.ssl_mode,
        ssl_root_cert=config.ssl_root_cert,
        connect_timeout=config.connect_timeout,
    )
    stage = _Stage(str(params.pop("dbname")), driver=config.driver, **params)
    try:
        if live is not None and _is_same(live, stage):
            raise MigrationError(
                "The URL to rehearse on leads to the live database itself; give the one of a copy."
            )
        with stage.connection_context():
            return _rehearse(stage, folder)
    finally:
        stage.close_all()


def _rehearse(stage: _Stage, folder: Path) -> Rehearsal:
    router = runner.router(stage, folder)
    files: list[FileTimes] = []
    failure: str | None = None
    with runner.deploying(stage):
        stage.start()  # the history's part is undone, too
        try:
            _ = router.model
            adopt(stage, folder)
            done = known(stage, folder)
            for one in [name for name in router.todo if name not in done]:
                stage.timings.clear()
                started = time.perf_counter()
                try:
                    router.run_one(one, router.migrator, fake=False)
                except MigrationError as error:
                    failure = str(error)
                seconds = time.perf_counter() - started
                files.append(FileTimes(one, seconds, tuple(stage.timings)))
                if failure:
                    break
        finally:
            stage.finish()
        tables = {table: _rows(stage, table) for table in sorted(stage.touched)}
    there = {table: rows for table, rows in tables.items() if rows is not None}
    return Rehearsal(tuple(files), there, stage.changed, failure)


def _rows(stage: _Stage, table: str) -> int | None:
    found = stage.execute_sql("SELECT to_regclass(%s)", (table,)).fetchone()[0]
    if found is None:
        return None
    sql = f"SELECT count(*) FROM {table}".replace("%", "%%")
    return int(stage.execute_sql(sql).fetchone()[0])


def _is_same(one: Database, other: Database) -> bool:
    """Whether two URLs lead to one database, by a lock that only one session can have."""
    key = time.time_ns()
    with one.connection_context(), other.connection_context():
        one.execute_sql(f"SELECT pg_advisory_lock({key})")
        try:
            free = other.execute_sql(f"SELECT pg_try_advisory_lock({key})").fetchone()[0]
            if free:
                other.execute_sql(f"SELECT pg_advisory_unlock({key})")
        finally:
            one.execute_sql(f"SELECT pg_advisory_unlock({key})")
    return not free
