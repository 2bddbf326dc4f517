"""The slowest statements that were seen, as texts without values.

The studio's own are seen as they are sent; those of all programs are there when the server has
the extension pg_stat_statements, which keeps texts with ``$1`` in place of values.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final

from orm_core.database.database import Database
from orm_core.errors import QueryError

#: seconds from which a statement is kept
SLOW: Final = 0.05
KEPT: Final = 20


@dataclass(slots=True)
class Slow:
    """A statement's text, how often it was slow, its longest and its total time in seconds."""

    sql: str
    calls: int
    longest: float
    total: float


class SlowQueries:
    """Remembers the slow statements of the databases that it watches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, Slow] = {}
        self._watched: list[Database] = []

    def watch(self, database: Database) -> None:
        """Look at each statement of a database from now on."""
        database.query_hooks.append(self.note)
        self._watched.append(database)

    def unwatch(self) -> None:
        """Look no more."""
        while self._watched:
            self._watched.pop().query_hooks.remove(self.note)

    def note(self, event: Any) -> None:
        """Peewee's hook: keep the text of a slow statement, never its parameters."""
        if event.duration < SLOW:
            return
        with self._lock:
            seen = self._seen.setdefault(event.sql, Slow(event.sql, 0, 0.0, 0.0))
            seen.calls += 1
            seen.total += event.duration
            seen.longest = max(seen.longest, event.duration)
            if len(self._seen) > KEPT * 2:
                self._seen = {one.sql: one for one in self._slowest()}

    def _slowest(self) -> list[Slow]:
        return sorted(self._seen.values(), key=lambda one: -one.longest)[:KEPT]

    def slowest(self) -> list[Slow]:
        """The slowest so far, the longest first."""
        with self._lock:
            return self._slowest()


def of_server(reader: Database) -> list[Slow]:
    """The slowest of all programs on this database; none without pg_stat_statements."""
    sql = r"""
        SELECT left(query, 2000), calls, max_exec_time / 1000, total_exec_time / 1000
        FROM pg_stat_statements
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND query ~* '^\s*(select|insert|update|delete|with|merge)\M'
        ORDER BY max_exec_time DESC LIMIT %s
    """
    installed = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')"
    if not reader.execute_sql(installed).fetchone()[0]:
        return []
    try:
        return [Slow(*row) for row in reader.execute_sql(sql, (KEPT,))]
    except QueryError:
        return []  # installed, and not among shared_preload_libraries
