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


class Signals:
    """The receivers of query events, by table."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Tuples are replaced, never changed, so sending needs no lock.
        self._receivers: dict[str, tuple[Receiver, ...]] = {OTHER: (), NONE: ()}
        self._subjects: dict[str, tuple[str, str]] = {}

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

    def connect(self, receiver: Receiver, table: str) -> None:
        """Call ``receiver`` for each statement on ``table``; twice the same counts once.

        Raises ``RegistryError`` for a table that no registered domain has.
        """
        with self._lock:
            current = self._known(table)
            if receiver not in current:
                self._receivers[table] = (*current, receiver)

    def disconnect(self, receiver: Receiver, table: str) -> None:
        """Stop calling ``receiver`` for ``table``; unknown receivers are no error."""
        with self._lock:
            current = self._known(table)
            self._receivers[table] = tuple(one for one in current if one != receiver)

    def _known(self, table: str) -> tuple[Receiver, ...]:
        try:
            return self._receivers[table]
        except KeyError:
            raise RegistryError(
                f"No registered domain has a table {table!r}; register its domain first, or use "
                f"one of: {', '.join(sorted(self._receivers))}."
            ) from None

    def subject(self, sql: str) -> tuple[str, str]:
        """The operation and the table that an event of this statement carries."""
        subjects = self._subjects
        subject = subjects.get(sql)
        if subject is None:
            subject = self._find_subject(sql)
            if len(sql) <= _SHORT:
                if len(subjects) >= _MOST_SUBJECTS:
                    subjects.clear()
                subjects[sql] = subject
        return subject

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
        operation, table = self._subjects.get(sql) or self.subject(sql)
        receivers = self._receivers[table]
        if receivers:
            # The constructor of a NamedTuple costs more than the rest of this method.
            event = tuple.__new__(  # pyright: ignore[reportUnknownMemberType]
                QueryEvent, (operation, table, seconds, error)
            )
            for receiver in receivers:
                try:
                    receiver(event)
                except Exception:
                    logger.exception("A receiver of query events failed; the query went on.")


#: the one set of receivers, shared by all databases of the process
signals: Signals = Signals()
