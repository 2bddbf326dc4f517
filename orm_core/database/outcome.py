"""What became of a transaction whose COMMIT was not answered: the server is asked by its id.

The id of a transaction names the server too (its identifier and its timeline, PostgreSQL manual,
"Timelines"). After a failover the new server may give the same number to another transaction, so
its answer would be worth nothing; it is not asked then. The same may happen in a crash, to a number
that had not reached the disk: "aborted" is still true afterwards, of either transaction, and
"committed" is not. That a server crashed is told by its statistics, which begin anew (PostgreSQL
manual, "The Cumulative Statistics System").
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false, reportPrivateUsage=false
import re
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from orm_core.database import limits
from orm_core.database.compiled_sql import CompiledSql
from orm_core.database.watchdog import watchdog
from orm_core.errors import ConnectionFailed, InvalidValue, Outcome

if TYPE_CHECKING:
    from orm_core.database.database import Database

#: which server this is; no row on a standby
SERVER: Final = (
    "SELECT system_identifier || '.' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '.' "
    "|| coalesce((SELECT extract(epoch FROM stats_reset) * 1000000 FROM pg_stat_bgwriter), 0)::bigint "
    "FROM pg_control_system() WHERE NOT pg_is_in_recovery()"
)
#: the number of the running transaction, null until it writes
NUMBER: Final = CompiledSql("SELECT pg_current_xact_id_if_assigned()")
_STATUS: Final = "SELECT pg_xact_status(%s::xid8)"
#: after a crash: not given to anybody yet, so what was done under this number never reached the disk
_IS_FREE: Final = "SELECT %s::xid8 >= pg_snapshot_xmax(pg_current_snapshot())"
#: a session that waits for a COMMIT that its client has given up
_END: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE backend_xid = (%s::xid8)::xid AND datname = current_database()"
)
_ID: Final = r"(\d+\.[0-9A-F]{8})\.(\d+)/(\d+)"
_MEANING: Final[dict[str | None, Outcome]] = {"committed": "applied", "aborted": "not applied"}
#: seconds between two looks
_PAUSE: Final = 0.05


def ask(database: Database, transaction_id: str, timeout: float) -> Outcome:
    """See ``Database.outcome_of``."""
    found = re.fullmatch(_ID, transaction_id) if isinstance(transaction_id, str) else None
    if found is None:
        raise InvalidValue("transaction_id must be that of a CommitUnknown.")
    deadline = min(time.monotonic() + timeout, limits.deadline())
    while (left := deadline - time.monotonic()) > 0:
        try:
            with limits.time_limit(left):
                answer = _look(database, found[1], found[2], found[3], deadline)
        except (ConnectionFailed, database.driver.Error):
            answer = None  # it may be restarting
        if answer is not None:
            return answer
        time.sleep(min(left, _PAUSE))
    return "unknown"


def _look(
    database: Database, server: str, statistics: str, number: str, deadline: float
) -> Outcome | None:
    """The outcome; None while it is open."""
    # Not one of the pool: the thread may be inside a transaction, or no connection free.
    with closing(database._open()) as connection, watchdog.watching(connection, deadline):
        cursor: Any = connection.cursor()
        cursor.execute(SERVER)
        row = cursor.fetchone()
        now, _, statistics_now = row[0].rpartition(".") if row else ("", "", "")
        if now != server:
            return "unknown"
        has_crashed = statistics_now != statistics
        if has_crashed:
            cursor.execute(_IS_FREE, (number,))
            if cursor.fetchone()[0]:
                return "not applied"
        cursor.execute(_STATUS, (number,))
        (status,) = cursor.fetchone()
        if status == "in progress":
            cursor.execute(_END, (number,))
            return None
        outcome = _MEANING.get(status, "unknown")  # null: too long ago
        return "unknown" if has_crashed and outcome == "applied" else outcome
