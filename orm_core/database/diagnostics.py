"""A driver's error becomes ours: by SQLSTATE, never by its prose, and without values of rows.

The classes are those of the PostgreSQL manual, appendix "PostgreSQL Error Codes".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from psycopg2 import errorcodes

from orm_core import errors
from orm_core.database.drivers.protocol import Driver

#: (table, constraint) -> its columns, told by the models
_constraints: dict[tuple[str, str], tuple[str, ...]] = {}

_BY_STATE: Final[dict[str, type[errors.QueryError]]] = {
    errorcodes.UNIQUE_VIOLATION: errors.DuplicateKey,
    errorcodes.EXCLUSION_VIOLATION: errors.DuplicateKey,
    errorcodes.FOREIGN_KEY_VIOLATION: errors.ForeignKeyViolation,
    errorcodes.RESTRICT_VIOLATION: errors.ForeignKeyViolation,
    errorcodes.NOT_NULL_VIOLATION: errors.NotNullViolation,
    errorcodes.CHECK_VIOLATION: errors.CheckViolation,
    errorcodes.SERIALIZATION_FAILURE: errors.SerializationFailure,
    errorcodes.DEADLOCK_DETECTED: errors.DeadlockDetected,
    errorcodes.LOCK_NOT_AVAILABLE: errors.LockTimeout,
    errorcodes.QUERY_CANCELED: errors.StatementTimeout,
    errorcodes.ADMIN_SHUTDOWN: errors.ConnectionLost,
    errorcodes.CRASH_SHUTDOWN: errors.ConnectionLost,
    errorcodes.CANNOT_CONNECT_NOW: errors.ConnectionLost,
    errorcodes.IDLE_IN_TRANSACTION_SESSION_TIMEOUT: errors.ConnectionLost,
    errorcodes.INSUFFICIENT_PRIVILEGE: errors.InsufficientPrivilege,
    errorcodes.READ_ONLY_SQL_TRANSACTION: errors.InvalidStatement,
    errorcodes.IN_FAILED_SQL_TRANSACTION: errors.InvalidStatement,
}
_BY_CLASS: Final[dict[str, type[errors.QueryError]]] = {
    "08": errors.ConnectionLost,
    "22": errors.ServerRejectedValue,
    "23": errors.ConstraintViolation,
    "42": errors.InvalidStatement,
}
_ADVICE: Final[dict[str, str]] = {
    errorcodes.UNDEFINED_TABLE: "a table does not exist; are all migrations applied? "
    "(orm-core migrate status)",
    errorcodes.UNDEFINED_COLUMN: "a column does not exist; are all migrations applied? "
    "(orm-core migrate status)",
    errorcodes.UNDEFINED_OBJECT: "a type or another object does not exist; are all migrations "
    "applied? (orm-core migrate status)",
    errorcodes.DUPLICATE_TABLE: "a table or index of that name exists already; see orm-core "
    "migrate status for what was applied here",
    errorcodes.DUPLICATE_OBJECT: "a type or another object of that name exists already; see "
    "orm-core migrate status for what was applied here",
    errorcodes.INSUFFICIENT_PRIVILEGE: "the role lacks a privilege; orm-core db roles prints the "
    "SQL that gives a service what it needs, and tables are changed by the migration role",
    errorcodes.READ_ONLY_SQL_TRANSACTION: "the transaction is read-only",
    errorcodes.SYNTAX_ERROR: "the SQL has a syntax error",
    errorcodes.IN_FAILED_SQL_TRANSACTION: "an earlier statement of this transaction failed; "
    "roll it back",
    errorcodes.ACTIVE_SQL_TRANSACTION: "the statement can't run inside a transaction; in a "
    "migration file call database.commit() before it and database.begin() after it",
    errorcodes.UNSAFE_NEW_ENUM_VALUE_USAGE: "a new label of an enum can be used once its "
    "transaction is committed; use it in the next migration",
    errorcodes.ADMIN_SHUTDOWN: "the server ended the connection",
}
#: where PostgreSQL checks a new row against policies (src/backend/executor/execMain.c)
_POLICY_CHECK: Final = "ExecWithCheckOptions"


def declare_constraints(table: str, constraints: Mapping[str, tuple[str, ...]]) -> None:
    """Tell which columns each constraint or unique index of a table has."""
    for name, columns in constraints.items():
        _constraints[table, name] = columns


def translate(error: BaseException, driver: Driver, connection: Any) -> errors.OrmCoreError | None:
    """Our error for what the driver raised, or None when it is no matter of the database."""
    if isinstance(error, driver.Error):
        return _translate_driver(error, driver, connection)
    if isinstance(error, UnicodeEncodeError):
        return errors.InvalidValue(
            "A text has a lone surrogate, which UTF-8 can't carry; no SQL was sent."
        )
    if isinstance(error, IndexError | TypeError) or "format character" in str(error):
        return errors.InvalidValue(
            "The SQL has another number of %s than there are parameters, or a bare %, which is "
            "written %% in SQL text; no SQL was sent."
        )
    if isinstance(error, ValueError) and not isinstance(error, errors.OrmCoreError):
        return errors.InvalidValue(
            "A text has a NUL character, which PostgreSQL can't store; no SQL was sent."
        )
    return None


def no_answer(seconds: float) -> errors.NoAnswer:
    """The error of a statement whose connection was cut, as the server was silent."""
    return errors.NoAnswer(
        f"The server did not answer within {seconds:.1f} s, so the connection was cut. It is "
        "frozen, or the network loses packets. Outside a transaction it may have done the "
        "statement or not; a transaction that was not committed is rolled back."
    )


def _translate_driver(error: Any, driver: Driver, connection: Any) -> errors.OrmCoreError:
    state = driver.sqlstate(error)
    kind = _BY_STATE.get(state or "") or _BY_CLASS.get((state or "")[:2])
    if state is None and (connection is None or connection.closed):
        kind = errors.ConnectionLost
    if kind is None and state is None and isinstance(error, driver.ProgrammingError):
        return errors.InvalidValue(
            "A parameter has a type that the driver can't send; no SQL was sent."
        )
    diag = error.diag
    table: str | None = diag.table_name
    constraint: str | None = diag.constraint_name
    columns = _constraints.get((table or "", constraint or ""), ())
    if not columns and diag.column_name:
        columns = (diag.column_name,)
    kind = kind or errors.QueryError
    # The state is that of a missing privilege, so the place in the server's source must tell.
    if kind is errors.InsufficientPrivilege and diag.source_function == _POLICY_CHECK:
        kind = errors.PolicyViolation
    return kind(
        _message(kind, state, table, columns, constraint),
        sqlstate=state,
        table=table,
        columns=columns,
        constraint=constraint,
    )


def _message(
    kind: type[errors.QueryError],
    state: str | None,
    table: str | None,
    columns: tuple[str, ...],
    constraint: str | None,
) -> str:
    subject = table or ""
    if columns:
        subject = (
            f"{table}.{columns[0]}" if len(columns) == 1 else f"{table} ({', '.join(columns)})"
        )
    advice = "" if kind is errors.PolicyViolation else _ADVICE.get(state or "")
    gist = advice or (kind.__doc__ or "").split("\n")[0].rstrip(".")
    text = f"{subject}: {gist[0].lower()}{gist[1:]}" if subject else f"{gist[0].upper()}{gist[1:]}"
    facts: list[str] = []
    if constraint:
        facts.append(f"constraint {constraint}")
    if state:
        facts.append(f"SQLSTATE {state} {_condition(state)}")
    return f"{text} ({', '.join(facts)})." if facts else f"{text}."


def _condition(state: str) -> str:
    try:
        return str(errorcodes.lookup(state)).lower()
    except KeyError:
        return "unknown condition"
