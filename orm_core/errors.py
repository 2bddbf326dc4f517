"""Every error that orm_core raises on purpose.

Catch ``OrmCoreError`` for all of them. An error of a statement is also the Peewee error of its
kind (``DuplicateKey`` is a ``peewee.IntegrityError``), so code written for Peewee keeps working.
No message carries a value of a row: PostgreSQL's DETAIL and LINE texts, which do, are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import peewee

#: what became of a write
Outcome: TypeAlias = Literal["applied", "not applied", "unknown"]


class OrmCoreError(Exception):
    """Base of every error that orm_core raises on purpose.

    ``outcome`` tells what became of the write: "not applied", or "unknown" when the connection
    broke before the server's answer came.
    """

    outcome: Outcome = "not applied"
    #: how often ``run_transaction`` tried
    attempts: int = 1


# -- set-up ---------------------------------------------------------------------------------


class ConfigurationError(OrmCoreError):
    """A setting is missing or malformed."""


class EmbeddedError(OrmCoreError):
    """The embedded PostgreSQL can't be found, started or reached."""


class RegistryError(OrmCoreError):
    """A domain can't be registered, or the registry is not consistent."""


class MigrationError(OrmCoreError):
    """The migrations can't be applied, rolled back or read."""


# -- connecting -----------------------------------------------------------------------------


class ConnectionFailed(OrmCoreError, peewee.OperationalError):
    """The server could not be reached, or refused us; a subclass names the cause."""


class ConnectionRefused(ConnectionFailed):
    """Nothing listens at the address."""


class HostUnknown(ConnectionFailed):
    """The host's name does not resolve."""


class ConnectTimeout(ConnectionFailed):
    """The server did not answer in time."""


class AuthenticationFailed(ConnectionFailed):
    """The server refuses the user or the password."""


class DatabaseMissing(ConnectionFailed):
    """The server has no database of that name."""


class TlsFailed(ConnectionFailed):
    """No encrypted connection whose certificate can be verified."""


class ServerUnavailable(ConnectionFailed):
    """The server is starting, stopping or has no connection left."""


class ConnectionInUse(OrmCoreError, peewee.OperationalError):
    """Another asyncio task holds the connection of this thread; see ``orm_core.aio``."""


class PoolTimeout(OrmCoreError, peewee.OperationalError):
    """No connection of the pool came free in time."""


class PoolClosed(OrmCoreError, peewee.OperationalError):
    """The database was closed while the thread waited for a connection."""


# -- statements -----------------------------------------------------------------------------


class QueryError(OrmCoreError, peewee.DatabaseError):
    """A statement failed.

    ``sqlstate``, ``table``, ``columns`` and ``constraint`` are PostgreSQL's own diagnostics,
    ``kind`` is the label of the errors metric: a word from a fixed list.
    """

    kind = "other"

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str | None = None,
        table: str | None = None,
        columns: tuple[str, ...] = (),
        constraint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.table = table
        self.columns = columns
        self.constraint = constraint


class ConstraintViolation(QueryError, peewee.IntegrityError):
    """A constraint of the schema refuses the row."""

    kind = "constraint"


class DuplicateKey(ConstraintViolation):
    """Another row has this key already."""

    kind = "duplicate_key"


class ForeignKeyViolation(ConstraintViolation):
    """The row refers to one that does not exist, or is still referred to."""

    kind = "foreign_key"


class NotNullViolation(ConstraintViolation):
    """A column that must have a value has none."""

    kind = "not_null"


class CheckViolation(ConstraintViolation):
    """A CHECK constraint refuses the row."""

    kind = "check"


class InvalidStatement(QueryError, peewee.ProgrammingError):
    """The SQL is wrong: syntax, an unknown table or column, a missing privilege."""

    kind = "statement"


class InsufficientPrivilege(InvalidStatement):
    """The role may not do that; ``orm-core db roles`` prints the SQL of roles."""

    kind = "privilege"


class PolicyViolation(InsufficientPrivilege):
    """A row-level security policy of the table refuses the row."""

    kind = "policy"


class ServerRejectedValue(QueryError, peewee.DataError):
    """The server can't store or compute a value (out of range, division by zero, ...)."""

    kind = "data"


class SerializationFailure(QueryError, peewee.OperationalError):
    """A concurrent transaction got in the way; run this one again."""

    kind = "serialization"


class DeadlockDetected(SerializationFailure):
    """Two transactions waited for each other; run this one again."""

    kind = "deadlock"


class LockTimeout(QueryError, peewee.OperationalError):
    """A lock was not to be had in time."""

    kind = "lock"


class StatementTimeout(QueryError, peewee.OperationalError):
    """The statement took longer than it may, or was cancelled."""

    kind = "timeout"


class ConnectionLost(QueryError, peewee.OperationalError):
    """The connection broke during a statement.

    Inside a transaction its ``outcome`` is "not applied", outside one "unknown".
    """

    kind = "connection"
    outcome: Outcome = "unknown"


class NoAnswer(ConnectionLost):
    """The server was silent for too long; outside a transaction the outcome is unknown."""

    kind = "no_answer"


# -- transactions ---------------------------------------------------------------------------


class TransactionError(OrmCoreError, peewee.OperationalError):
    """A transaction can't go on as asked."""


class StaleTransaction(TransactionError):
    """The ``tx`` has ended, or belongs to another thread or database."""


class TransactionAborted(TransactionError):
    """A statement failed inside, the error was swallowed, and nothing was committed."""


class CommitUnknown(TransactionError):
    """The connection broke during COMMIT: the server may have committed or not.

    ``find_out()`` asks it. ``transaction_id`` is what ``db.outcome_of`` asks by, also later and
    from another process; None when nothing had been written that the server would remember.
    """

    outcome: Outcome = "unknown"

    def __init__(
        self,
        message: str,
        *,
        transaction_id: str | None = None,
        ask: Callable[[str, float], Outcome] | None = None,
    ) -> None:
        super().__init__(message)
        self.transaction_id = transaction_id
        self._ask = ask

    def find_out(self, timeout: float = 10.0) -> Outcome:
        """What became of the transaction, asked on a new connection.

        Tries for ``timeout`` seconds, as the server may be restarting. Ends the broken session if
        it is still there, so the answer is final. "unknown" when no answer came, or when another
        server answers than the one that was told to commit.
        """
        if self.transaction_id is None or self._ask is None:
            return "unknown"
        return self._ask(self.transaction_id, timeout)


# -- payloads and rows ----------------------------------------------------------------------


class InvalidValue(OrmCoreError, ValueError):
    """A value does not fit its column, its argument or its place; no SQL was sent."""


class UnknownField(InvalidValue):
    """A name that the model has no field for; no SQL was sent."""


class MissingField(InvalidValue):
    """A field that must be given is not; no SQL was sent."""


class NotFound(OrmCoreError, peewee.DoesNotExist):
    """No such row, or it is soft-deleted."""


class StaleRow(OrmCoreError):
    """Somebody changed the row since it was read; nothing was written. Read it again.

    ``expected`` is the version that was read, ``found`` the one that the row has.
    """

    def __init__(self, table: str, id: object, expected: int, found: int) -> None:
        super().__init__(table, id, expected, found)
        self.table = table
        self.id = id
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"The row {self.id} of {self.table} was changed since it was read: it has version "
            f"{self.found}, expected was {self.expected}. Nothing was written; read it again."
        )


# -- secrets --------------------------------------------------------------------------------


class KeyRingError(ConfigurationError):
    """The key ring is missing or malformed; entries are named by number, never by value."""


class SecretUnreadable(OrmCoreError):
    """An encrypted value is altered, moved from another row, or sealed with a key we lack."""


class SecretErased(SecretUnreadable):
    """The data key of the secret's owner was erased: nobody can read it, and none is written."""
