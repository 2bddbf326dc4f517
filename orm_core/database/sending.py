"""The one road of a statement: with what opens its block, its limits and who acts, to the server.

A statement outside a transaction or ``connection_context()`` takes a connection of the pool for
itself and gives it back at once, so no thread keeps one by accident.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from psycopg2.errorcodes import ACTIVE_SQL_TRANSACTION

from orm_core import peewee_facade as peewee
from orm_core.database import acting, deploy_lock
from orm_core.database.compiled_sql import AskingSql, CompiledSql
from orm_core.database.connecting import PooledDatabase
from orm_core.database.diagnostics import no_answer, translate
from orm_core.database.drivers.protocol import ACTIVE, IDLE, IN_ERROR, IN_TRANSACTION
from orm_core.database.events import NONE, signals
from orm_core.database.limits import GRACE, deadline, milliseconds
from orm_core.database.outcome import NUMBER, SERVER
from orm_core.database.prepared import execute_prepared
from orm_core.database.statements import masked
from orm_core.database.tasks import check_runs
from orm_core.database.transactions import Transaction, mark, unsent
from orm_core.database.watchdog import watchdog
from orm_core.errors import (
    ConnectionLost,
    InvalidValue,
    Outcome,
    QueryError,
    StatementTimeout,
)

logger: logging.Logger = logging.getLogger("orm_core.database")
_is_debugging = logger.isEnabledFor
_DEBUG: Final = logging.DEBUG

_EXECUTE_SQL = peewee.Database.execute_sql

#: what ends a transaction, or may, inside a text of several statements
_ENDS: Final = r"(?i)(?:^|;)\s*(?:commit|end|call|prepare\s+transaction)\b"


def is_idle(connection: Any) -> bool:
    """Whether no transaction runs on it."""
    if connection.closed:
        return False
    return bool(connection.get_transaction_status() == IDLE)


def _is_refused_in_block(failure: BaseException | None) -> bool:
    """Whether a statement can't run in a transaction, nor in one text with another."""
    return isinstance(failure, QueryError) and failure.sqlstate == ACTIVE_SQL_TRANSACTION


def _is_busy(connection: Any) -> bool:
    """Whether the server has not answered what was sent."""
    if connection is None or connection.closed:
        return False
    return bool(connection.get_transaction_status() == ACTIVE)


def _judge(failure: BaseException, sql: str, connection: Any, *, inside: bool) -> None:
    """Have the error of a statement tell what became of it.

    ``connection`` is None when it was not sent.
    """
    is_interrupt = not isinstance(failure, Exception)
    if is_interrupt and _is_busy(connection):
        connection.close()  # its answer would be taken for that of the next statement
    if connection is None or connection.closed or connection.was_cut:
        lost = connection is None or (inside and not re.search(_ENDS, sql))
        told: Outcome = "not applied" if lost else "unknown"
        if isinstance(failure, QueryError):
            failure.outcome = told
        elif is_interrupt:
            failure.add_note(f"The statement under way: {told}.")


def _limit_sql(connection: Any, sql: str) -> str:
    """What tells the server the limit of ``time_limit``; it travels with the statement."""
    until = deadline()
    status = connection.get_transaction_status()
    if until == math.inf:
        connection.is_limited = status != IDLE  # until the transaction ends
        if status != IN_TRANSACTION or signals.subject(sql)[1] == NONE:
            return ""
        return "SET LOCAL statement_timeout TO DEFAULT;"
    if status == IN_ERROR or sql is NUMBER or signals.subject(sql)[1] == NONE:
        return ""
    connection.is_limited = True
    return f"SET LOCAL statement_timeout = {milliseconds(until - monotonic())};"


class SendingDatabase(PooledDatabase):
    """A database whose statements all take one road; see ``Database``."""

    #: whether BEGIN is sent in one text with the statement after it; else ``_run`` gets each alone
    begins_together = True
    #: whether tables of it are audited, so that the server is told who acts (orm_core.acting_as)
    audited = False

    def execute(self, query: Any, **context_options: Any) -> Any:
        """Send a query; one that knows its SQL is not rendered anew."""
        rendered = None if context_options else getattr(query, "rendered", None)
        if rendered is None:
            return super().execute(query, **context_options)
        return self.execute_sql(*rendered(self))

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """Send SQL and answer its cursor.

        A Router that replays applied files puts a mock in the place of Peewee's method, for the
        whole process. Only the thread that deploys gets the mock; the others' queries are sent.
        """
        if peewee.Database.execute_sql is not _EXECUTE_SQL and self.is_deploying():
            return super().execute_sql(sql, params)
        if sql.__class__ is not CompiledSql and deploy_lock.is_routers(sql):
            self.begin_deploy()
        here = self._state.__dict__  # here(), whose call would cost as much as its work
        if here["closed"]:
            return self._execute_alone(sql, params)
        blocks = here["transactions"]
        holder = blocks[-1].task if blocks else here["task"]
        if holder is not None:
            check_runs(holder)
        if here["conn"].closed:
            self._replace_broken()
        return self._send(here, sql, params)

    def _execute_alone(self, sql: str, params: Any) -> Any:
        """Send a statement on a connection of the pool that is taken for it."""
        if not self.autoconnect:
            return self._run(self.cursor, sql, params)
        try:
            self.connect()
            cursor = self._send(self.here(), sql, params)
            self.close()
            return cursor
        except BaseException:
            self.close()
            raise

    def _send(self, here: dict[str, Any], sql: str, params: Any) -> Any:
        """Send a statement, and with it what opens the blocks that it is the first of.

        ``here`` is the state of this thread.
        """
        connection, blocks = here["conn"], here["transactions"]
        opening = None if not blocks or blocks[-1].sent else self._opening(blocks, connection)
        settings = ""
        if connection.is_limited or deadline() != math.inf:
            settings = _limit_sql(connection, sql)
        if not (self.audited or acting.scope_names):
            return self._run(connection.take_cursor, sql, params, opening, settings)
        block = self._block
        who = acting.now(audited=self.audited)
        telling = acting.telling(who, block, connection, sql)
        cursor = self._run(connection.take_cursor, sql, params, opening, settings + telling)
        if telling and block is not None:
            block.told = who
        return cursor

    def _opening(self, blocks: list[Any], connection: Any) -> list[Transaction] | None:
        """The blocks that open together with the next statement; others are opened here."""
        opening = unsent(blocks)
        if opening[0].is_savepoint or not self.begins_together:
            self._open_blocks()  # a failure would not tell whether a SAVEPOINT was reached
            return None
        if opening[0].is_tracked and not hasattr(connection, "server"):
            self._learn_server(connection)
        return opening

    def _overdue_at(self, sql: str, now: float) -> float:
        """When to cut the connection if the server has not answered; the end of a limit at once.

        What ends a transaction is always sent, so that none is left open.
        """
        until = deadline()
        if until == math.inf:
            return math.inf if self._deployers and self.is_deploying() else now + self._patience
        if until <= now and sql is not NUMBER and signals.subject(sql)[1] != NONE:
            raise StatementTimeout("The time limit was over before the statement; it was not sent.")
        return max(until, now) + GRACE

    def _run(
        self,
        make_cursor: Callable[[], Any],
        sql: str,
        params: Any,
        opening: list[Transaction] | None = None,
        limit_sql: str = "",
    ) -> Any:
        """Send a statement, in one round trip with BEGIN and SAVEPOINT of ``opening`` blocks."""
        before = limit_sql
        if opening:
            before = "".join([f"{block.opening_sql};" for block in opening]) + limit_sql
            mark(opening, sent=True)  # here, so that an interrupt leads to a needless ROLLBACK
        inside = False
        cursor: Any = None
        connection: Any = None
        failure: BaseException | None = None
        started = 0.0
        try:
            cursor = make_cursor()
            started = monotonic()
            is_free = deadline() == math.inf and not self._deployers
            overdue_at = started + self._patience if is_free else self._overdue_at(sql, started)
            connection = cursor.connection
            inside = opening is not None or connection.get_transaction_status() != IDLE
            watchdog.watch(connection, overdue_at)
            if not isinstance(sql, CompiledSql):
                cursor.execute(before + sql, params or ())
            elif connection.prepared is None:
                sql.send(cursor, params, before)
            else:
                begins = bool(opening)
                execute_prepared(cursor, connection, sql, params, before, begins=begins)
        except BaseException as error:
            failure = error
        was_cut = connection is not None and watchdog.clear(connection)
        seconds = monotonic() - started
        if failure is None:
            for block in opening or ():
                self._tell(block.opening_sql, None, 0.0, None)
            self._tell(sql, params, seconds, None)
            return cursor
        try:
            if was_cut and isinstance(failure, self.driver.Error):
                failure = no_answer(seconds)
            elif isinstance(failure, Exception):
                held = connection or self._state.conn
                failure = translate(failure, self.driver, held) or failure
            _judge(failure, sql, connection, inside=inside)
            if connection is None or isinstance(failure, InvalidValue):  # nothing was sent
                mark(opening or (), sent=False)
                raise failure
            if opening and isinstance(failure, Exception) and is_idle(connection):
                # A text that does not parse took its BEGIN down with it: let it fail inside.
                mark(opening, sent=False)
                self._open_blocks()
                return self._run(make_cursor, sql, params, None, limit_sql)
            if limit_sql and _is_refused_in_block(failure) and is_idle(connection):
                # VACUUM and its kin travel alone; only this side knows their limit.
                return self._run(make_cursor, sql, params)
            for block in opening or ():
                self._tell(block.opening_sql, None, 0.0, None)
            self._tell(sql, params, seconds, failure)
            raise failure
        finally:
            failure = None  # or the error and this frame would keep each other, and the cursor

    def _tell(self, sql: str, params: Any, seconds: float, failure: BaseException | None) -> None:
        if isinstance(sql, AskingSql):
            sql = sql.plain
        elif sql is NUMBER or sql is SERVER:
            return  # asked by us, not by the service
        if _is_debugging(_DEBUG):
            logger.debug("%.6fs %s", seconds, masked(sql))  # nor the parameters: they are data
        signals.tell(sql, seconds, failure)
        if self.query_hooks:
            for hook in self.query_hooks:
                hook(peewee.QueryEvent(sql, params, seconds, failure))

    @property
    def unnumbered(self) -> Transaction | None:
        """The running transaction, as long as its number is wanted and not known."""
        blocks = self._state.__dict__["transactions"]
        if not blocks or not isinstance(blocks[0], Transaction):
            return None
        outermost: Transaction = blocks[0]
        return outermost if outermost.is_tracked and outermost.number is None else None

    # -- what goes before -------------------------------------------------------------------

    @property
    def _block(self) -> Transaction | None:
        """The innermost block that is open."""
        block = self.top_transaction()
        return block if isinstance(block, Transaction) else None

    def _open_blocks(self) -> None:
        for block in unsent(self._state.transactions):
            block.sent = True
            self._run(self._state.conn.cursor, block.opening_sql, None)

    def _open_for_driver(self) -> None:
        """Begin what waits to begin, and tell who acts, before the driver itself is used."""
        self._open_blocks()
        block = self._block
        if not (self.audited or acting.scope_names) or block is None:
            return
        if acting.telling(acting.now(audited=self.audited), block, self._state.conn, ""):
            self.statement("SELECT 1")

    def _learn_server(self, connection: Any) -> None:
        """Once for each connection, before its first transaction."""
        row = None
        try:
            row = self._run(connection.cursor, SERVER, None).fetchone()
        except ConnectionLost as error:
            error.outcome = "not applied"  # the transaction did not begin
            raise
        except QueryError:
            logger.debug("The server does not tell who it is.", exc_info=True)
        connection.server = row[0] if row else None

    def connection(self) -> Any:
        """The driver's connection of this thread, inside the transaction that is running."""
        if not self.is_closed():
            self.check_task()
            self._open_for_driver()
        return super().connection()

    def cursor(self, named_cursor: str | None = None) -> Any:
        """A cursor of the driver, inside the transaction that is running."""
        if not self.is_closed():
            self.check_task()
            self._open_for_driver()
        return super().cursor(named_cursor)

    def statement(self, sql: str) -> None:
        """Run one statement without parameters on this thread's connection."""
        here = self.here()
        if here["closed"]:  # as Peewee does: it has a connection from now on
            self._run(self.cursor, sql, None)
            return
        cursor = self._send(here, sql, None)
        if cursor is not None:
            cursor.connection.give_back(cursor)

    def _status(self) -> int | None:
        connection = self._state.conn
        if connection is None or connection.closed:
            return None
        return int(connection.get_transaction_status())
