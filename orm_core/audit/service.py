"""What happened to a row, and what it was.

::

    page = AuditService.history(User, user.id)
    for entry in page:
        print(entry.recorded_at, entry.actor, entry.operation, entry.old, entry.new)
    before = AuditService.as_of(User, user.id, yesterday)
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from orm_core.database.transactions import Transaction
from orm_core.errors import InvalidValue, NotFound
from orm_core.loggers import Logger
from orm_core.models.audit_log import AuditEntry
from orm_core.models.base import BaseModel
from orm_core.models.payloads import key_value
from orm_core.queries.paging import MAX_PAGE_SIZE, Keyset, Page, check_count, keyset_page
from orm_core.verb import Verb

# A row is born and goes by these; what changed in between is merged in the server, where numbers
# stay what they are.
_AS_OF = """
    WITH entries AS (
        SELECT e.id, e.operation, e.new FROM audit_log AS e
        WHERE e.table_name = %s AND e.row_id = %s AND e.recorded_at <= %s
    ), born AS (
        SELECT max(id) AS id FROM entries WHERE operation = 'insert'
    ), gone AS (
        SELECT max(id) AS id FROM (
            SELECT id FROM entries WHERE operation = 'hard_delete'
            UNION ALL SELECT e.id FROM audit_log AS e
            WHERE e.table_name = %s AND e.row_id IS NULL AND e.operation = 'truncate'
              AND e.recorded_at <= %s
        ) AS _
    )
    SELECT born.id IS NULL, coalesce(gone.id > born.id, gone.id IS NOT NULL), (
        SELECT jsonb_object_agg(c.key, c.value ORDER BY entries.id)
        FROM entries, jsonb_each(entries.new) AS c WHERE entries.id >= born.id
    )::text FROM born, gone
"""


class AuditService:
    """Reads the audit trail; nobody writes it but the triggers of audited tables."""

    @classmethod
    def history(
        cls,
        table: type[BaseModel] | str,
        id: Any = None,
        logger: Logger | None = None,
        *,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        size: int = 50,
        after: str | None = None,
        tx: Transaction | None = None,
    ) -> Page[AuditEntry]:
        """The entries of a table, or of one row, the newest first: ``size`` of them (up to 1,000).

        ``table`` is a model or a name, also of a table that is gone. ``since`` is included, ``until``
        is not. ``after`` is the ``next_cursor`` of the page before. A key that was changed is found
        under the old one. Raises ``InvalidValue``.
        """
        with Verb(AuditEntry, "history", logger, tx):
            check_count("size", size, 1, MAX_PAGE_SIZE)
            entry: Any = AuditEntry
            conditions = [entry.table_name == _name(table)]
            if id is not None:
                conditions.append(entry.row_id == _key(table, id))
            if actor is not None:
                conditions.append(entry.actor == actor)
            if since is not None:
                conditions.append(entry.recorded_at >= since)
            if until is not None:
                conditions.append(entry.recorded_at < until)
            query = AuditEntry.select().where(*conditions)
            return keyset_page(query, Keyset(AuditEntry, [entry.id.desc()]), size, after)

    @classmethod
    def as_of(
        cls,
        model: type[BaseModel],
        id: Any,
        moment: datetime,
        logger: Logger | None = None,
        *,
        tx: Transaction | None = None,
    ) -> dict[str, Any] | None:
        """The row's fields as the trail had them at a moment, without secrets; None without a row.

        Of columns that came later it holds None. Raises ``NotFound`` when the trail does not go
        back to the row's beginning, ``InvalidValue`` for what is no aware datetime.
        """
        with Verb(AuditEntry, "as_of", logger, tx):
            at = AuditEntry.recorded_at.db_value(moment)
            if at is None:
                raise InvalidValue("as_of() takes a moment; no SQL was sent.")
            name, key = _name(model), _key(model, id)
            database = AuditEntry._meta.database
            values = (name, key, at, name, at)
            unborn, gone, state = database.execute_sql(_AS_OF, values).fetchone()
            if gone:
                return None
            if unborn:
                if _begins_later(name, key):
                    return None
                raise NotFound(
                    f"The audit trail does not go back to the beginning of this row of {name}."
                )
            return _typed(model, state)


def _name(table: Any) -> str:
    """A table as the trail names it."""
    if isinstance(table, str):
        return table.removeprefix("public.")
    if not (isinstance(table, type) and issubclass(table, BaseModel)):
        raise InvalidValue("The audit trail is asked by a model or the name of a table.")
    meta = table._meta
    schema = meta.schema if meta.schema != "public" else None
    return f"{schema}.{meta.table_name}" if schema else str(meta.table_name)


def _key(table: Any, id: Any) -> str:
    """A key as the trail has it."""
    if isinstance(table, str) or len(table._meta.get_primary_keys()) != 1:
        if not isinstance(id, str | int | UUID) or isinstance(id, bool):
            raise InvalidValue("A row's id is a UUID, an int or a text.")
        return str(id)
    return str(key_value(table, id))


def _begins_later(name: str, key: str) -> bool:
    entry: Any = AuditEntry
    first = (
        AuditEntry.select()
        .where(entry.table_name == name, entry.row_id == key)
        .order_by(entry.id)
        .limit(1)
    )
    return any(one.operation == "insert" for one in first)


def _typed(model: Any, state: str) -> dict[str, Any]:
    """The fields' values, read by the server into the columns' types."""
    fields = [one for one in model._meta.sorted_fields if not getattr(one, "secret", False)]
    table = ".".join(
        '"' + part.replace('"', '""').replace("%", "%%") + '"'
        for part in (model._meta.schema, model._meta.table_name)
        if part
    )
    names = ", ".join(
        '"' + one.column_name.replace('"', '""').replace("%", "%%") + '"' for one in fields
    )
    sql = f"SELECT {names} FROM jsonb_populate_record(NULL::{table}, %s::jsonb)"
    row = model._meta.database.execute_sql(sql, (state,)).fetchone()
    return {one.name: one.python_value(value) for one, value in zip(fields, row, strict=True)}
