"""A PostgreSQL database behind a pool: the one place that all statements pass.

A statement outside a transaction or ``connection_context()`` takes a connection of the pool for
itself and gives it back at once, so no thread keeps one by accident.
"""

from __future__ import annotations

import logging
import math
import os
import re
import weakref
from collections.abc import Callable, Iterable
from contextlib import ContextDecorator
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, cast

from psycopg2.errorcodes import ACTIVE_SQL_TRANSACTION

from orm_core import peewee_facade as peewee
from orm_core.database import acting, deploy_lock, drivers, limits, outcome
from orm_core.database.compiled_sql import CompiledSql
from orm_core.database.diagnostics import no_answer, translate
from orm_core.database.drivers.protocol import ACTIVE, IDLE, IN_ERROR, IN_TRANSACTION, Driver
from orm_core.database.events import NONE, signals
from orm_core.database.limits import GRACE, Limits, milliseconds
from orm_core.database.opening import open_in_time
from orm_core.database.pool import PATIENCE, Lease, Pool, PoolOptions, Reset
from orm_core.database.pool_stats import PoolStats
from orm_core.database.prepared import execute_compiled
from orm_core.database.tasks import current_task, is_running
from orm_core.database.transactions import Isolation, Transaction, unsent
from orm_core.database.watchdog import watchdog
from orm_core.errors import (
    ConfigurationError,
    ConnectionInUse,
    ConnectionLost,
    InvalidStatement,
    InvalidValue,
    Outcome,
    QueryError,
    StatementTimeout,
    TransactionError,
)
from orm_core.settings import DRIVERS

logger: logging.Logger = logging.getLogger("orm_core.database")
_is_debugging = logger.isEnabledFor

_EXECUTE_SQL = peewee.Database.execute_sql

_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _mark(blocks: Iterable[Transaction], *, sent: bool) -> None:
    for block in blocks:
        block.sent = sent


#: what ends a transaction, or may, inside a text of several statements
_ENDS = re.compile(r"(?:^|;)\s*(?:commit|end|call|prepare\s+transaction)\b", re.IGNORECASE)


def _is_idle(connection: Any) -> bool:
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
        lost = connection is None or (inside and not _ENDS.search(sql))
        told: Outcome = "not applied" if lost else "unknown"
        if isinstance(failure, QueryError):
            failure.outcome = told
        elif is_interrupt:
            failure.add_note(f"The statement under way: {told}.")


class _ConnectionContext(peewee.ConnectionContext):
    """Leaves the connection to the transaction that is around it, if there is one."""

    def __enter__(self) -> None:
        was_closed = self.db.is_closed()
        self.db.check_task()
        try:
            super().__enter__()
        except BaseException:
            if was_closed:
                self.db.close()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self._leave()
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        contexts = self.db._state.ctx
        if self in contexts:
            contexts.remove(self)
        if not contexts and not self.db.in_transaction():
            self.db.close()


class ManualCommit(ContextDecorator):
    """A block in which the caller sends BEGIN and COMMIT; what is open at its end is rolled back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connected_here = False
        self.task = current_task()

    def _recreate_cm(self) -> ManualCommit:
        return ManualCommit(self._database)

    def __enter__(self) -> None:
        if isinstance(self._database.top_transaction(), Transaction):
            raise TransactionError("manual_commit() can't be used inside a transaction block.")
        self._connected_here = self._database.is_closed()
        try:
            self._database.connect(reuse_if_open=True)
            self._database.push_transaction(self)
        except BaseException:
            self._database.leave(self, disconnect=self._connected_here)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            if self._database.transaction_is_open():
                self._database.statement("ROLLBACK")
            self._database.leave(self, disconnect=self._connected_here)
        except BaseException:
            self._database.leave(self, disconnect=self._connected_here)
            raise


class Database(peewee.PostgresqlDatabase):
    """A PostgreSQL database behind a pool; the one place that all statements pass.

    Takes what ``peewee.PostgresqlDatabase`` takes, ``pool_size`` (connections), ``pool_timeout``
    and ``pool_max_lifetime`` (seconds, 0: no limit), ``pool_reset`` and ``pool_debug``
    (``orm_core.database.pool``), ``limits`` (default: none), ``prepare``
    (``orm_core.database.prepared``) and ``driver`` (its name). Services use the ready-made ``db``.
    """

    pool: Pool
    #: whether BEGIN is sent in one text with the statement after it; else ``_run`` gets each alone
    begins_together = True
    #: whether tables of it are audited, so that the server is told who acts (orm_core.acting_as)
    audited = False

    def init(
        self,
        database: str | None,
        *,
        pool_size: int = 10,
        pool_timeout: float = 10.0,
        pool_max_lifetime: float = 0.0,
        pool_reset: Reset = "rollback",
        pool_debug: bool = False,
        limits: Limits | None = None,
        prepare: bool = False,
        driver: str = DRIVERS[0],
        **connect_params: Any,
    ) -> None:
        """Point at a database (again); open connections of an earlier one are closed."""
        if self.in_transaction():
            raise TransactionError("A database can't be initialized anew inside a transaction.")
        if hasattr(self, "pool"):
            self.close_all()
        self.connect_params: dict[str, Any] = {}
        super().init(database, **connect_params)
        if database is not None:
            drivers.check_waits(driver)
        self.driver: Driver = drivers.load(driver)
        self._prepare = prepare
        self.limits: Limits = limits or Limits()
        #: seconds after which a connection whose server is silent is cut
        self._patience = self._own_patience()
        options = PoolOptions(
            pool_size,
            pool_timeout,
            pool_max_lifetime,
            pool_reset,
            pool_debug,
            float(connect_params.get("connect_timeout") or PATIENCE),
        )
        self.pool = Pool(self._open, options)
        self._deployers: set[int] = set()
        _databases.add(self)

    # -- connections ------------------------------------------------------------------------

    def _own_patience(self) -> float:
        """Seconds for a statement outside ``time_limit``; for ever where the server knows none.

        Limits in the URL's own ``options`` go before ours, and we do not know them.
        """
        is_ours = "statement_timeout" not in str(self.connect_params.get("options", ""))
        return self.limits.statement + GRACE if self.limits.statement and is_ours else math.inf

    def startup_params(self) -> dict[str, Any]:
        """What the driver is given to connect with, the limits of the session included."""
        params: dict[str, Any] = {
            "dbname": self.database,
            "host": "localhost",
            "port": 5432,
            **self.connect_params,
        }
        # A connection is ready to be reset with DISCARD ALL, which undoes what a driver SETs.
        parts = ("-c datestyle=ISO", self.limits.startup_options, params.get("options", ""))
        params["options"] = " ".join(filter(None, parts))
        return params

    def _open(self) -> Any:
        until = limits.deadline()
        return self._connect() if until == math.inf else open_in_time(self._connect, until)

    def _connect(self) -> Any:
        params = self.startup_params()
        started = monotonic()
        try:
            connection = self.driver.connect(params, prepare=self._prepare)
        except self.driver.Error:
            from orm_core.database import reachability  # brings ssl, for a failure only

            failure = reachability.explain(params, monotonic() - started)
        else:
            self._set_server_version(connection)
            return connection
        raise failure

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Take a connection of the pool for this thread, until ``close``."""
        if self.deferred:
            raise ConfigurationError(
                "The database is not initialized: call initialize_db(url) before the first query."
            )
        if not self.is_closed():
            self.check_task()
            if reuse_if_open:
                self._replace_broken()
                return False
            raise peewee.OperationalError("Connection already opened.")
        state = self._state
        state.reset()
        try:
            state.lease = lease = self.pool.acquire()
            state.set_connection(lease.connection)
            state.task = current_task()
            return True
        except BaseException:
            self.close()
            raise

    def check_task(self) -> None:
        """Raise ``ConnectionInUse`` when another asyncio task holds this thread's connection."""
        state = self._state.__dict__  # of this thread; each look at a thread's own is dear
        if state["closed"]:
            return
        blocks = state["transactions"]
        holder = blocks[-1].task if blocks else state.get("task")
        if holder is not None and not is_running(holder) and not holder.done():
            raise ConnectionInUse(
                "Another asyncio task holds the connection of this thread, so this call would take "
                "part in its transaction. Run calls by orm_core.aio: await aio.run(...), async "
                "with aio.transaction()."
            )

    def _replace_broken(self) -> None:
        """A connection that broke earlier in this block is exchanged, outside transactions."""
        state = self._state
        if not state.conn.closed or state.transactions:
            return
        contexts = state.ctx
        self.close()
        try:
            self.connect()
        finally:
            state.ctx = contexts

    def close(self) -> bool:
        """Give this thread's connection back to the pool; False when it had none."""
        if self.in_transaction():
            raise peewee.OperationalError("Attempting to close database while transaction is open.")
        state = self._state
        was_open = not state.closed
        lease: Lease | None = getattr(state, "lease", None)
        try:
            if was_open and self._deployers:
                self._end_deploy()
        finally:
            state.reset()
            state.lease = None
            if lease is not None:
                lease.end()
        return was_open

    def _end_deploy(self) -> None:
        connection = self._state.conn
        try:
            if self.is_deploying() and not connection.closed:
                deploy_lock.release(self)
        finally:
            self._deployers.discard(id(connection))

    def __enter__(self) -> Database:
        block = self.atomic()
        block.__enter__()
        try:
            self._state.ctx.append(block)
            return self
        except BaseException as interrupt:
            block.__exit__(type(interrupt), interrupt, None)
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._state.ctx[-1].__exit__(exc_type, exc, traceback)
        except BaseException as error:
            if not isinstance(error, Exception):
                self.leave(self.top_transaction(), disconnect=not self._state.ctx[1:])
            raise

    def connection_context(self) -> peewee.ConnectionContext:
        """A block that holds one connection; inside another, or a transaction, the same one."""
        return _ConnectionContext(self)

    def close_all(self, timeout: float = 0.0) -> bool:
        """Close every connection: the idle ones now, those of other threads on their return.

        Waits up to ``timeout`` seconds for these, and answers whether all came back. Raises
        ``peewee.OperationalError`` inside a transaction.
        """
        self.close()
        return self.pool.close(timeout)

    def pool_stats(self) -> PoolStats:
        """The pool's connections, who holds and who waits for them, and what was counted."""
        return self.pool.stats()

    # -- statements -------------------------------------------------------------------------

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
        if peewee.Database.execute_sql is _EXECUTE_SQL or not self.is_deploying():
            return self._execute_cursor(sql, params)
        return super().execute_sql(sql, params)

    def _execute_cursor(self, sql: str, params: Any, **cursor_options: Any) -> Any:
        # Not execute_sql: peewee-migrate replaces that one while it replays old files.
        if sql.__class__ is not CompiledSql and deploy_lock.is_routers(sql):
            self.begin_deploy()
        state = self._state
        if not state.closed:
            self.check_task()
            if state.conn.closed:
                self._replace_broken()
            return self._send(sql, params, **cursor_options)
        if not self.autoconnect or cursor_options:
            return self._send(sql, params, **cursor_options)
        try:
            self.connect()
            cursor = self._send(sql, params)
            self.close()
            return cursor
        except BaseException:
            self.close()
            raise

    def _send(self, sql: str, params: Any, **cursor_options: Any) -> Any:
        """Send a statement, and with it what opens the blocks that it is the first of."""
        state = self._state
        if cursor_options or state.closed:
            return self._run(partial(self.cursor, **cursor_options), sql, params)
        opening = unsent(state.transactions) if state.transactions else None
        if opening and (opening[0].is_savepoint or not self.begins_together):
            self._open_blocks()  # a failure would not tell whether a SAVEPOINT was reached
            opening = None
        elif opening and opening[0].is_tracked and not hasattr(state.conn, "server"):
            self._learn_server(state.conn)
        settings = self._limit_sql(sql)
        if not (self.audited or acting.is_scoped()):
            return self._run(state.conn.cursor, sql, params, opening, settings)
        block = self._block
        who = acting.now(audited=self.audited)
        telling = acting.telling(who, block, state.conn, sql)
        cursor = self._run(state.conn.cursor, sql, params, opening, settings + telling)
        if telling and block is not None:
            block.told = who
        return cursor

    @property
    def _block(self) -> Transaction | None:
        """The innermost block that is open."""
        block = self.top_transaction()
        return block if isinstance(block, Transaction) else None

    def _limit_sql(self, sql: str) -> str:
        """What tells the server the limit of ``time_limit``; it travels with the statement."""
        connection = self._state.conn
        until = limits.deadline()
        if until == math.inf and not connection.is_limited:
            return ""
        status = connection.get_transaction_status()
        if until == math.inf:
            connection.is_limited = status != IDLE  # until the transaction ends
            if status != IN_TRANSACTION or signals.subject(sql)[1] == NONE:
                return ""
            return "SET LOCAL statement_timeout TO DEFAULT;"
        if status == IN_ERROR or sql is outcome.NUMBER or signals.subject(sql)[1] == NONE:
            return ""
        connection.is_limited = True
        return f"SET LOCAL statement_timeout = {milliseconds(until - monotonic())};"

    def _overdue_at(self, sql: str, now: float) -> float:
        """When to cut the connection if the server has not answered; the end of a limit at once.

        What ends a transaction is always sent, so that none is left open.
        """
        until = limits.deadline()
        if until == math.inf:
            return math.inf if self._deployers and self.is_deploying() else now + self._patience
        if until <= now and sql is not outcome.NUMBER and signals.subject(sql)[1] != NONE:
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
            _mark(opening, sent=True)  # here, so that an interrupt leads to a needless ROLLBACK
        inside = bool(opening) or self._status() in (IN_TRANSACTION, IN_ERROR)
        cursor: Any = None
        connection: Any = None
        failure: BaseException | None = None
        started = monotonic()
        try:
            cursor = make_cursor()
            started = monotonic()
            overdue_at = self._overdue_at(sql, started)
            connection = cursor.connection
            watchdog.watch(connection, overdue_at)
            if sql.__class__ is CompiledSql:
                compiled = cast("CompiledSql", sql)
                execute_compiled(cursor, compiled, params, before, begins=bool(opening))
            else:
                cursor.execute(before + sql if before else sql, params or ())
        except BaseException as error:
            failure = error
        was_cut = connection is not None and watchdog.clear(connection)
        seconds = monotonic() - started
        if isinstance(failure, Exception):
            if was_cut and isinstance(failure, self.driver.Error):
                failure = no_answer(seconds)
            else:
                failure = translate(failure, self.driver, connection or self._state.conn) or failure
        if failure is not None:
            _judge(failure, sql, connection, inside=inside)
        if connection is None or isinstance(failure, InvalidValue):  # nothing was sent
            _mark(opening or (), sent=False)
            raise failure or AssertionError
        if opening:
            if isinstance(failure, Exception) and _is_idle(self._state.conn):
                # A text that does not parse took its BEGIN down with it: let it fail inside.
                _mark(opening, sent=False)
                self._open_blocks()
                return self._run(make_cursor, sql, params, None, limit_sql)
            for block in opening:
                self._tell(block.opening_sql, None, 0.0, None)
        elif limit_sql and _is_refused_in_block(failure) and _is_idle(connection):
            # VACUUM and its kin travel alone; only this side knows their limit.
            return self._run(make_cursor, sql, params)
        self._tell(sql, params, seconds, failure)
        if failure is not None:
            raise failure
        return cursor

    def _tell(self, sql: str, params: Any, seconds: float, failure: BaseException | None) -> None:
        if sql is outcome.NUMBER or sql is outcome.SERVER:
            return  # asked by us, not by the service
        if _is_debugging(logging.DEBUG):
            logger.debug("%.6fs %s", seconds, sql)  # never the parameters: they are data
        signals.tell(sql, seconds, failure)
        if self.query_hooks:
            for hook in self.query_hooks:
                hook(peewee.QueryEvent(sql, params, seconds, failure))

    def _open_blocks(self) -> None:
        for block in unsent(self._state.transactions):
            block.sent = True
            self._run(self._state.conn.cursor, block.opening_sql, None)

    def _open_for_driver(self) -> None:
        """Begin what waits to begin, and tell who acts, before the driver itself is used."""
        self._open_blocks()
        block = self._block
        if not (self.audited or acting.is_scoped()) or block is None:
            return
        if acting.telling(acting.now(audited=self.audited), block, self._state.conn, ""):
            self.statement("SELECT 1")

    def _learn_server(self, connection: Any) -> None:
        """Once for each connection, before its first transaction."""
        row = None
        try:
            row = self._run(connection.cursor, outcome.SERVER, None).fetchone()
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

    def begin_deploy(self) -> None:
        """Wait for other deployers; from here to ``close`` this thread is the only one."""
        self.connect(reuse_if_open=True)
        if not self.is_deploying():
            deploy_lock.acquire(self)
            self._deployers.add(id(self._state.conn))

    def is_deploying(self) -> bool:
        """Whether this thread's connection holds the deploy lock."""
        return not self.is_closed() and id(self._state.conn) in self._deployers

    def statement(self, sql: str) -> None:
        """Run one statement without parameters on this thread's connection."""
        self._send(sql, None)

    # -- transactions -----------------------------------------------------------------------

    def begin(self, mode: str | None = None) -> None:
        """Send BEGIN; ``mode`` is SQL after it (``READ ONLY``)."""
        self.statement(f"BEGIN {mode}" if mode else "BEGIN")

    def commit(self) -> None:
        """Send COMMIT."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Send ROLLBACK."""
        self._end("ROLLBACK")

    def _end(self, sql: str) -> None:
        waiting = unsent(self._state.transactions)
        _mark(waiting, sent=True)  # whoever ends a block's transaction by hand begins the next
        if not waiting or waiting[0].is_savepoint:
            self.statement(sql)

    def transaction_id(self) -> str | None:
        """What ``outcome_of`` asks by; None as long as the transaction has written nothing."""
        server: str | None = getattr(self._state.conn, "server", None)
        if server is None:
            return None
        (number,) = self._send(outcome.NUMBER, None).fetchone()
        return f"{server}/{number}" if number else None

    def outcome_of(self, transaction_id: str, timeout: float = 10.0) -> Outcome:
        """What became of a transaction: "applied", "not applied" or "unknown".

        ``transaction_id`` is that of a ``CommitUnknown``, also of another process. See
        ``CommitUnknown.find_out``. Raises ``InvalidValue`` for what is no such id.
        """
        return outcome.ask(self, transaction_id, timeout)

    def connection_broke(self) -> bool:
        """Whether this thread's connection broke, so that the server gave up its transaction."""
        connection = self._state.conn
        return connection is not None and bool(connection.closed)

    def transaction_failed(self) -> bool:
        """Whether a statement of the running transaction failed, so that it can't commit."""
        return self._status() == IN_ERROR

    def transaction_is_open(self) -> bool:
        """Whether the server waits for statements of a transaction."""
        return self._status() in (IN_TRANSACTION, IN_ERROR)

    def _status(self) -> int | None:
        connection = self._state.conn
        if connection is None or connection.closed:
            return None
        return int(connection.get_transaction_status())

    def transaction(
        self, isolation: Isolation | None = None, *, read_only: bool = False, track: bool = True
    ) -> Transaction:
        """A transaction block on this database; inside another block a savepoint."""
        return Transaction(self, isolation, read_only=read_only, track=track)

    def atomic(
        self, isolation: Isolation | None = None, *, read_only: bool = False, track: bool = True
    ) -> Transaction:
        """The same as ``transaction``; Peewee's name for it."""
        return Transaction(self, isolation, read_only=read_only, track=track)

    def manual_commit(self) -> ManualCommit:
        """A block whose BEGIN, COMMIT and ROLLBACK are sent by hand, on one connection."""
        return ManualCommit(self)

    def leave(self, block: object, *, disconnect: bool) -> None:
        """Take a block off this thread's stack; after an interrupt again, which is no harm.

        A connection whose transaction nobody ended by then is closed, as is one in the middle of
        a statement.
        """
        state = self._state
        if block in state.transactions:
            del state.transactions[state.transactions.index(block) :]
        if block in state.ctx:
            state.ctx.remove(block)
        if state.transactions or state.closed:
            return
        if not _is_idle(state.conn):
            state.conn.close()
        if disconnect:
            self.close()

    def savepoint(self) -> Transaction:
        """A block inside a running transaction."""
        return Transaction(self)

    def after_commit(self, fn: Callable[[], object]) -> Callable[[], object]:
        """Call ``fn`` once the running transaction is committed; at once when none runs."""
        top = self.top_transaction()
        if top is None:
            fn()
        elif isinstance(top, Transaction):
            top.on_commit(fn)
        else:
            raise InvalidStatement("after_commit() can't be used inside manual_commit().")
        return fn


def _after_fork_in_child() -> None:
    database: Any
    # A child that used the parent's sockets would mix both their sessions.
    for database in list(_databases):
        database._state.reset()
        database._state.lease = None
        database._deployers.clear()
        database.pool.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
