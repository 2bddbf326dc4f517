"""Old entries go, batch by batch, from the beginning; the rest stays a chain.

Each batch leaves an entry that tells what went, with the hash of the last one, in the same
transaction, so that ``verify`` tells pruning from theft. The newest entry of a chain always stays.
"""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any, Final

from orm_core.database.database import Database
from orm_core.errors import InvalidValue
from orm_core.models.audit_log import AuditEntry
from orm_core.models.identifiers import utcnow

logger: logging.Logger = logging.getLogger("orm_core.audit")

BATCH: Final = 5_000
#: what was written before the trail was a chain, then the chain; each with its order
_PARTS: Final = (("", "id"), ("NOT", "position"))
# Only a beginning goes: up to the first entry that is young, or what was the last of the chain.
_OLD: Final = """
    SELECT id, position, hash FROM (
        SELECT id, position, hash, bool_and(recorded_at < %s) OVER (ORDER BY {order}) AS is_old
        FROM (SELECT * FROM audit_log WHERE position IS {linked} NULL
              ORDER BY {order} LIMIT {limit}) AS first
    ) AS e
    WHERE is_old AND (position IS NULL OR position < %s)
"""
_ALL: Final = "SELECT count(*) FROM (({unlinked}) UNION ALL ({linked})) AS _"
_REMOVE: Final = f"""
    WITH old AS ({_OLD}), removed AS (
        DELETE FROM audit_log USING old WHERE audit_log.id = old.id
        RETURNING old.position, old.hash
    )
    SELECT count(*), max(position), (array_agg(hash ORDER BY position DESC))[1] FROM removed
"""
_TELL: Final = """
    INSERT INTO audit_log (table_name, operation, new, actor, request_id)
    VALUES ('audit_log', 'prune', %s::jsonb, nullif(current_setting('orm_core.actor', true), ''),
            nullif(current_setting('orm_core.request_id', true), ''))
"""


def prune(older_than: timedelta, *, batch: int = BATCH, dry_run: bool = False) -> int:
    """Remove entries older than this, ``batch`` in a transaction; answers how many.

    For the role that owns the table: the migrations'. ``dry_run`` only counts. Raises
    ``InvalidValue`` for an age of nothing or a batch of none.
    """
    if older_than <= timedelta(0) or batch < 1:
        raise InvalidValue("Pruning takes an age above zero, and one entry or more in a batch.")
    database: Database = AuditEntry._meta.database
    before = utcnow() - older_than
    last = database.execute_sql("SELECT max(position) FROM audit_log").fetchone()[0]
    values = (before, last)
    if dry_run:
        return _count(database, values)
    done = 0
    for linked, order in _PARTS:
        sql = _REMOVE.format(linked=linked, order=order, limit=batch)
        while removed := _remove(database, sql, values):
            done += removed
            logger.info("audit_log: %d entries removed", done)
    return done


def _count(database: Database, values: tuple[Any, ...]) -> int:
    unlinked, linked = (_OLD.format(linked=one, order=order, limit="ALL") for one, order in _PARTS)
    sql = _ALL.format(unlinked=unlinked, linked=linked)
    return int(database.execute_sql(sql, values * 2).fetchone()[0])


def _remove(database: Database, sql: str, values: tuple[Any, ...]) -> int:
    with database.atomic():
        database.execute_sql("SELECT set_config('orm_core.audit_prune', 'on', true)")
        count, position, last = database.execute_sql(sql, values).fetchone()
        if count:
            told: dict[str, Any] = {"entries": count, "older_than": values[0].isoformat()}
            if position is not None:
                told |= {"position": position, "hash": last}
            database.execute_sql(_TELL, (json.dumps(told),))
        database.execute_sql("SELECT set_config('orm_core.audit_prune', '', true)")
    return int(count)
