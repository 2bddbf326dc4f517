"""Messages that are sent if, and only if, the transaction that put them is committed.

::

    from orm_core import outbox

    with transaction() as tx:
        order = OrdersService.create({...}, tx=tx)
        outbox.put("order.created", {"order_id": str(order.id)}, key=str(order.user_id))

    outbox.relay(send)      # in a worker, again and again

``relay`` calls ``send(message)`` at least once for each message: again when it raised, and when its
process died. So what receives messages should know their ``id``. Several relays may run at once.
Messages with the same key are sent one after the other, in the order of ``put``.

The table belongs to the domain ``outbox``. A file ``domains/outbox/__init__.py`` with
``from orm_core.outbox import domain`` makes migrations create it.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false, reportAssignmentType=false
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, NamedTuple

from orm_core.database.connection import db
from orm_core.domain import Domain
from orm_core.errors import InvalidValue, TransactionError
from orm_core.models.base import BaseModel
from orm_core.models.fields import BigAutoField, DateTimeField, IntegerField, JSONField, TextField
from orm_core.models.identifiers import utcnow

logger: logging.Logger = logging.getLogger("orm_core.outbox")

#: seconds between attempts at most; the first pause is 2, each is twice the one before
LONGEST_PAUSE: Final = 3600


class Outbox(BaseModel):
    """A message to be sent.

    ``due_at`` is when to try next; null once it was delivered, or given up (``delivered_at`` is null
    then). ``error`` is the class of the last failure.
    """

    id = BigAutoField(primary_key=True)  # type: ignore[assignment]
    topic: TextField[str] = TextField()
    key: TextField[str | None] = TextField(null=True)
    payload: JSONField[Any, Any] = JSONField()
    attempts: IntegerField[int] = IntegerField(default=0)
    due_at: DateTimeField[datetime | None] = DateTimeField(null=True, default=utcnow, index=True)
    delivered_at: DateTimeField[datetime | None] = DateTimeField(null=True)
    error: TextField[str | None] = TextField(null=True)
    deleted_at = None

    class Meta:
        table_name = "outbox"
        indexes: ClassVar[Any] = ((("key", "id"), False),)


domain: Domain = Domain("outbox", models=(Outbox,))


class Message(NamedTuple):
    """What a relay hands over; ``attempts`` counts this one."""

    id: int
    topic: str
    key: str | None
    payload: Any
    attempts: int


# The array is made once, which IN (SELECT .. LIMIT) does not promise.
_CLAIM: Final = """
UPDATE outbox SET attempts = attempts + 1, due_at = now() + %s, updated_at = now()
WHERE id = ANY (ARRAY(
    SELECT id FROM outbox AS mine WHERE due_at <= now() AND NOT EXISTS (
        SELECT FROM outbox AS earlier WHERE earlier.key = mine.key AND earlier.id < mine.id
        AND earlier.due_at IS NOT NULL)
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id, topic, key, payload, attempts
"""
_DELIVERED: Final = """
UPDATE outbox SET due_at = NULL, delivered_at = now(), error = NULL, updated_at = now()
WHERE id = %s AND delivered_at IS NULL
"""
_FAILED: Final = """
UPDATE outbox SET due_at = now() + %s, error = %s, updated_at = now()
WHERE id = %s AND attempts = %s AND delivered_at IS NULL
"""
_PRUNE: Final = "DELETE FROM outbox WHERE delivered_at < now() - %s"


def put(topic: str, payload: Any, *, key: str | None = None) -> int:
    """Have a message sent once the running transaction is committed; answers its id.

    ``payload`` is what JSON can hold. Raises ``TransactionError`` outside a transaction, as the
    message could then be lost, or sent without what it tells of; ``InvalidValue`` for None and for a
    ``Secret``.
    """
    if not db.in_transaction():
        raise TransactionError(
            "outbox.put() is for the transaction whose changes the message tells of: call it "
            "inside with transaction()."
        )
    if payload is None:
        raise InvalidValue("outbox.put() takes a payload that says something; no SQL was sent.")
    number: Any = Outbox.create(topic=topic, key=key, payload=payload).id
    return int(number)


def relay(
    send: Callable[[Message], object],
    *,
    batch: int = 100,
    lease: float = 60.0,
    attempts: int = 10,
) -> int:
    """Send the messages that are due, ``batch`` at most, and answer how many were delivered.

    One whose ``send`` raises is tried again later, and given up after ``attempts``. One whose
    relay died is free for others ``lease`` seconds after it was taken, so a batch must be sent
    within that time. Raises ``TransactionError`` inside a transaction.
    """
    if not callable(send):
        raise InvalidValue("relay() takes a function of a message.")
    for name, number in (("batch", batch), ("lease", lease), ("attempts", attempts)):
        if isinstance(number, bool) or not isinstance(number, int | float) or number <= 0:
            raise InvalidValue(f"{name} must be a number above 0; no SQL was sent.")
    if db.in_transaction():
        raise TransactionError("outbox.relay() can't be used inside a transaction.")
    rows = db.execute_sql(_CLAIM, (timedelta(seconds=lease), int(batch))).fetchall()
    return sum(_deliver(send, Message(*row), attempts) for row in sorted(rows))


def _deliver(send: Callable[[Message], object], message: Message, attempts: int) -> bool:
    try:
        send(message)
    except Exception as error:
        is_last = message.attempts >= attempts
        # Of the message only what is no data.
        logger.exception("Message %s failed%s.", message.id, " for good" if is_last else "")
        pause = timedelta(seconds=min(LONGEST_PAUSE, 2.0 ** min(message.attempts, 20)))
        later = None if is_last else pause
        db.execute_sql(_FAILED, (later, type(error).__name__, message.id, message.attempts))
        return False
    db.execute_sql(_DELIVERED, (message.id,))
    return True


def prune(older_than: timedelta = timedelta(days=7)) -> int:
    """Delete messages delivered longer ago than that; answers how many."""
    if not isinstance(older_than, timedelta):
        raise InvalidValue("older_than must be a timedelta; no SQL was sent.")
    return int(db.execute_sql(_PRUNE, (older_than,)).rowcount)


def given_up() -> Any:
    """The messages that are not tried any more, as a query of ``Outbox``."""
    return Outbox.select().where(Outbox.due_at.is_null() & Outbox.delivered_at.is_null())
