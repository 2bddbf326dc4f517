"""A scratch database that sees what each statement does: locks, rewrites, reads, losses.

PostgreSQL is asked: ``pg_locks`` for the locks on tables that were there before,
``pg_relation_filenode`` for a table written anew, its own debug messages for one read as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from orm_core.migrations.catalog import HISTORY
from orm_core.migrations.effects import MODES, STOPS_WRITES, Effect
from orm_core.migrations.watched import Watched

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

#: the columns of a view through which rows are inserted, changed and deleted; 28 stands for the
#: three (PostgreSQL source, rewriteHandler.c)
_WRITABLE: Final = """
    SELECT a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.oid = to_regclass(%s) AND c.relkind = 'v' AND a.attnum > 0
      AND pg_relation_is_updatable(c.oid, false) = 28
      AND pg_column_is_updatable(c.oid, a.attnum, false)
"""


@dataclass(frozen=True, slots=True)
class _State:
    """What can be seen to change: by oid the name and file of a table, by number a column."""

    tables: dict[int, tuple[str, int | None]]
    columns: dict[tuple[int, int], str]
    indexes: dict[int, int]


class Observed(Watched):
    """A scratch database that notes what each statement does to the tables present before.

    While it observes, it runs each statement in a transaction of its own, whatever the Router
    asks for, so that the locks seen are that statement's.
    """

    effects: list[Effect] | None = None
    #: the tables there when the file began, and when the first pending file did
    present: dict[int, str]
    live: dict[int, str]
    settings: list[str]
    #: the columns of those tables, and how many effects are of transactions that ended
    _columns: dict[str, set[str]]
    _settled: int
    #: whether the Router's transaction is open
    _inside = False

    def watch(self, sql: str, params: Any, send: Callable[[], Any]) -> Any:
        """Note what a file's statement does; leave out what begins and ends transactions."""
        if self.effects is None or HISTORY in sql:
            return send()
        if sql.lstrip().startswith(_TRANSACTION):
            self._inside = not sql.startswith(("COMMIT", "ROLLBACK")) or " TO " in sql
            if not self._inside:
                self.settings.clear()
                self._settle()
            return None
        if _SETTING.fullmatch(sql.strip()):
            self.settings.append(sql)
            return None
        cursor, effect = self._observe(sql, params, send)
        is_read = not effect.locks and sql.lstrip().upper().startswith("SELECT")
        if not is_read and effect not in self.effects[-1:]:  # batches repeat one statement
            self.effects.append(effect)
        return cursor

    def _observe(self, sql: str, params: Any, send: Callable[[], Any]) -> tuple[Any, Effect]:
        # What can't run inside a transaction is refused there, as it would be when applied.
        outside = not self._inside and bool(_OUTSIDE.match(" ".join(sql.split())))
        before = self._look()
        told: list[str] = []
        notices = self._state.conn.notices
        del notices[:]
        if outside:
            cursor = send()
            after = self._look()
            locks = self._locks_outside(before, after)
        else:
            self.send_unseen("BEGIN")
            try:
                for setting in self.settings:
                    self.send_unseen(setting)
                cursor = send()
                told = [str(notice) for notice in notices]
                locks = self._locks()
                self.send_unseen("COMMIT")
            except BaseException:
                self.send_unseen("ROLLBACK")
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

    def _settle(self) -> None:
        """Forget this transaction's renames of tables whose old name goes on working."""
        effects = self.effects or []
        for place in range(self._settled, len(effects)):
            one = effects[place]
            broken = tuple(name for name in one.renames if not self._has_view(name))
            effects[place] = replace(one, renames=broken)
        self._settled = len(effects)

    def _has_view(self, name: str) -> bool:
        """Whether a view has a table's name, and takes writes of all its columns."""
        columns = self._columns.get(name)
        found = {column for (column,) in self._rows(_WRITABLE, name)}
        return columns is not None and columns <= found

    # -- asking -----------------------------------------------------------------------------

    def _rows(self, sql: str, *params: Any) -> list[Any]:
        return list(self.send_unseen(sql, params).fetchall())

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
                strongest[oid] = max(known, mode, key=MODES.index)
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
        oids = {oid for oid, mode in locks.items() if MODES.index(mode) >= STOPS_WRITES}
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
        self._columns = {name: set() for name in self.present.values()}
        for (oid, _), column in self._look().columns.items():
            self._columns[self.present[oid]].add(column)
        self._settled = 0
        self._inside = False
        self.effects = []

    def end_file(self) -> list[Effect]:
        """Observe no more; answers what was seen."""
        effects, self.effects = self.effects or [], None
        self.execute_sql("RESET client_min_messages")
        return effects
