"""The audit trail's table, which triggers write (``orm_core.models.triggers``)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from orm_core.models.base import BaseModel
from orm_core.models.fields import (
    ArrayField,
    BigAutoField,
    BigIntegerField,
    DateTimeField,
    JSONField,
    TextField,
)


class AuditEntry(BaseModel):
    """One change of one row, as a trigger of its table wrote it; read with ``AuditService``.

    ``table_name`` has its schema before it unless that is ``public``. ``row_id`` is the key as text,
    before the change; of several columns a JSON array. ``operation`` is insert, update, delete and
    restore (soft), hard_delete, truncate or prune. ``old`` and ``new`` hold the columns that
    changed, as ``to_jsonb`` writes them; ``masked`` names secret ones that changed. ``actor`` and
    ``request_id`` are those of ``acting_as``, ``role`` is the database's. ``started_at`` is the
    transaction's time, ``recorded_at`` the clock's. ``position``, ``previous_hash`` and ``hash``
    are there when the trail is a chain.
    """

    id = BigAutoField()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    created_at = None  # type: ignore[assignment]  # pyright: ignore
    updated_at = None  # type: ignore[assignment]  # pyright: ignore
    deleted_at = None  # pyright: ignore

    table_name: TextField[str] = TextField()
    row_id: TextField[str | None] = TextField(null=True)
    operation: TextField[str] = TextField()
    old: JSONField[dict[str, Any], dict[str, Any] | None] = JSONField(dict[str, Any], null=True)
    new: JSONField[dict[str, Any], dict[str, Any] | None] = JSONField(dict[str, Any], null=True)
    masked: ArrayField[list[str], list[str] | None] = ArrayField(TextField(), null=True)
    actor: TextField[str | None] = TextField(null=True)
    role: TextField[str] = TextField(server_default="SESSION_USER")
    request_id: TextField[str | None] = TextField(null=True)
    transaction_id: BigIntegerField[int] = BigIntegerField(
        server_default="pg_current_xact_id()::text::bigint"
    )
    started_at: DateTimeField[datetime] = DateTimeField(server_default="now()")
    recorded_at: DateTimeField[datetime] = DateTimeField(server_default="clock_timestamp()")
    position: BigIntegerField[int | None] = BigIntegerField(null=True)
    previous_hash: TextField[str | None] = TextField(null=True)
    hash: TextField[str | None] = TextField(null=True)

    class Meta:
        table_name = "audit_log"
        indexes: ClassVar[Any] = ((("table_name", "row_id"), False),)
        audit = "trail"


_entry: Any = AuditEntry
_entry.add_index(
    _entry.index(
        _entry.position,
        unique=True,
        where=_entry.position.is_null(False),
        name="audit_log_position_key",
    )
)
