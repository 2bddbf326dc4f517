"""Query events: every statement tells the receivers of its table, once.

::

    from orm_core import signals

    def slow(event):
        if event.seconds > 1:
            log.warning("slow %s on %s", event.operation, event.table)

    signals.connect(slow, "users")

A table is known once a domain that has it is registered. Statements on other tables go to the
receivers of ``other``, BEGIN, COMMIT and their kin to those of ``none``. An exception in a
receiver is logged and does not reach the caller of the query.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from orm_core.database.statements import TRANSACTION_OPERATIONS, describe
from orm_core.errors import RegistryError

OTHER = "other"
NONE = "none"

#: statements whose subject is kept, and the longest of them, in characters
_MOST_SUBJECTS = 1024
_SHORT = 20_000

logger: logging.Logger = logging.getLogger("orm_core.events")


class QueryEvent(NamedTuple):
    """One statement: its operation, its table, the seconds it took and its error, if any."""

    operation: str
    table: str
    seconds: float
    error: BaseException | None


Receiver: TypeAlias = Callable[[QueryEvent], None]
#: takes the seconds and the error of one statement; the rest of the event is known before
Told: TypeAlias = Callable[[float, BaseException | None], None]


class Counts:
    """A receiver that only counts: it needs no event made, which would cost more than the count."""

    def counter(self, operation: str, table: str) -> Told:
        """What is told of each statement with this operation and table."""
        raise NotImplementedError


def _told(receiver: Receiver | Counts, operation: str, table: str) -> Told:
    if isinstance(receiver, Counts):
        return receiver.counter(operation, table)
    return lambda seconds, error: receiver(QueryEvent(operation, table, seconds, error))


class Signals:
    """The receivers of query events, by table."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Tuples are replaced, never changed, so sending needs no lock.
        self._receivers: dict[str, tuple[Receiver | Counts, ...]] = {OTHER: (), NONE: ()}
        #: by statement its operation, its table and whom to tell; a new dict after each change,
        #: so that who looks meanwhile keeps what it found in the old one
        self._subjects: dict[str, tuple[str, str, tuple[Told, ...]]] = {}

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables known so far, with ``other`` and ``none``."""
        return tuple(self._receivers)

    def declare(self, tables: Iterable[str]) -> None:
        """Make tables known, so that events carry their names."""
        with self._lock:
            for table in tables:
                self._receivers.setdefault(table, ())
            self._subjects = {}

    def connect(self, receiver: Receiver | Counts, table: str) -> None:
        """Call ``receiver`` for each statement on ``table``; twice the same counts once.

        Raises ``RegistryError`` for a table that no registered domain has.
        """
        with self._lock:
            current = self._known(table)
            if receiver not in current:
                self._receivers[table] = (*current, receiver)
                self._subjects = {}

    def disconnect(self, receiver: Receiver | Counts, table: str) -> None:
        """Stop calling ``receiver`` for ``table``; unknown receivers are no error."""
        with self._lock:
            current = self._known(table)
            self._receivers[table] = tuple(one for one in current if one != receiver)
            self._subjects = {}

    def _known(self, table: str) -> tuple[Receiver | Counts, ...]:
        try:
            return self._receivers[table]
        except KeyError:
            raise RegistryError(
                f"No registered domain has a table {table!r}; register its domain first, or use "
                f"one of: {', '.join(sorted(self._receivers))}."
            ) from None

    def subject(self, sql: str) -> tuple[str, str]:
        """The operation and the table that an event of this statement carries."""
        operation, table, _ = self._subjects.get(sql) or self._learn(sql)
        return operation, table

    def _learn(self, sql: str) -> tuple[str, str, tuple[Told, ...]]:
        subjects = self._subjects
        operation, table = self._find_subject(sql)
        told = tuple(_told(receiver, operation, table) for receiver in self._receivers[table])
        if len(sql) <= _SHORT:
            if len(subjects) >= _MOST_SUBJECTS:
                subjects.clear()
            subjects[sql] = operation, table, told
        return operation, table, told

    def _find_subject(self, sql: str) -> tuple[str, str]:
        operation, candidates = describe(sql)
        if operation in TRANSACTION_OPERATIONS:
            return operation, NONE
        for name in candidates:
            if name in self._receivers:
                return operation, name
            bare = name.rpartition(".")[2]
            if bare in self._receivers:
                return operation, bare
        return operation, OTHER

    def tell(self, sql: str, seconds: float, error: BaseException | None) -> None:
        """Call the receivers of a statement's table."""
        for told in (self._subjects.get(sql) or self._learn(sql))[2]:
            try:
                told(seconds, error)
            except Exception:
                logger.exception("A receiver of query events failed; the query went on.")


#: the one set of receivers, shared by all databases of the process
signals: Signals = Signals()
