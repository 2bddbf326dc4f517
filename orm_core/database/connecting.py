"""A PostgreSQL database whose connections come from a pool, one for a thread at a time."""

from __future__ import annotations

import math
import os
import weakref
from time import monotonic
from typing import Any

from orm_core import peewee_facade as peewee
from orm_core.choices import DRIVERS
from orm_core.database import deploy_lock, drivers, limits
from orm_core.database.drivers.protocol import Driver
from orm_core.database.leaving import Exit
from orm_core.database.limits import GRACE, Limits
from orm_core.database.opening import open_in_time
from orm_core.database.plain_functions import F, check_plain
from orm_core.database.pool import PATIENCE, Lease, Pool, PoolOptions, Reset
from orm_core.database.pool_stats import PoolStats
from orm_core.database.tasks import check_runs, current_task
from orm_core.database.transactions import disown
from orm_core.errors import (
    ConfigurationError,
    TransactionError,
)

_databases: weakref.WeakSet[PooledDatabase] = weakref.WeakSet()


class _ConnectionContext(peewee.ConnectionContext):
    """Leaves the connection to the transaction that is around it, if there is one."""

    def __call__(self, fn: F) -> F:
        check_plain(fn, "This decorator")
        decorated: F = super().__call__(fn)
        return decorated

    def __enter__(self) -> None:
        here = self.db.here()
        was_closed = here["closed"]
        try:
            self.db.connect(reuse_if_open=True)
            here["ctx"].append(self)
        except BaseException:
            if was_closed:
                self.db.close()
            raise

    def _leave(self, _: BaseException | None) -> None:
        here = self.db.here()
        contexts = here["ctx"]
        if self in contexts:
            contexts.remove(self)
        if not contexts and not here["transactions"]:
            self.db.close()

    __exit__: Any = Exit(_leave, _leave)


class PooledDatabase(peewee.PostgresqlDatabase):
    """Peewee's database on a pool of ours; see ``Database``."""

    pool: Pool

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

    # -- opening ----------------------------------------------------------------------------

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

    # -- the connection of a thread ---------------------------------------------------------

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Take a connection of the pool for this thread, until ``close``."""
        if self.deferred:
            raise ConfigurationError(
                "The database is not initialized: call initialize_db(url) before the first query."
            )
        here = self.here()
        if not here["closed"]:
            self.check_task()
            if reuse_if_open:
                if here["conn"].closed:
                    self._replace_broken()
                return False
            raise peewee.OperationalError("Connection already opened.")
        try:
            here["lease"] = lease = self.pool.acquire()
            _set_here(here, lease.connection, current_task())
            return True
        except BaseException:
            self.close()
            raise

    def here(self) -> dict[str, Any]:
        """The state of this thread, by the names of Peewee's ``_ConnectionState``.

        Whoever needs more than one of them takes it once: each look at a thread's own is dear.
        """
        here: dict[str, Any] = self._state.__dict__
        return here

    def check_task(self) -> None:
        """Raise ``ConnectionInUse`` when another asyncio task holds this thread's connection."""
        here = self.here()
        blocks = here["transactions"]
        holder = blocks[-1].task if blocks else here.get("task")
        if not here["closed"] and holder is not None:
            check_runs(holder)

    def _replace_broken(self) -> None:
        """A connection that broke earlier in this block is exchanged, outside transactions."""
        here = self.here()
        if not here["conn"].closed or here["transactions"]:
            return
        contexts = here["ctx"]
        self.close()
        try:
            self.connect()
        finally:
            here["ctx"] = contexts

    def close(self) -> bool:
        """Give this thread's connection back to the pool; False when it had none."""
        here = self.here()
        if here["transactions"]:
            raise peewee.OperationalError("Attempting to close database while transaction is open.")
        was_open = not here["closed"]
        lease: Lease | None = here.get("lease")
        try:
            if was_open and self._deployers:
                self._end_deploy()
        finally:
            _set_here(here, None)
            here["lease"] = None
            if lease is not None:
                try:
                    lease.end()
                except BaseException:
                    lease.end()  # or the traceback would keep it as long as it is handled
                    raise
        return was_open

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

    # -- deploying --------------------------------------------------------------------------

    def begin_deploy(self) -> None:
        """Wait for other deployers; from here to ``close`` this thread is the only one."""
        self.connect(reuse_if_open=True)
        if not self.is_deploying():
            deploy_lock.acquire(self)
            self._deployers.add(id(self._state.conn))

    def is_deploying(self) -> bool:
        """Whether this thread's connection holds the deploy lock."""
        return not self.is_closed() and id(self._state.conn) in self._deployers

    def _end_deploy(self) -> None:
        connection = self._state.conn
        try:
            if self.is_deploying() and not connection.closed:
                deploy_lock.release(self)
        finally:
            self._deployers.discard(id(connection))


def _set_here(here: dict[str, Any], connection: Any, task: Any = None) -> None:
    """What ``set_connection`` and ``reset`` of Peewee's state do, at a tenth of their price."""
    here.update(
        closed=connection is None,
        conn=connection,
        ctx=[],
        transactions=[],
        commit_callbacks=[],
        task=task,
    )


def _after_fork_in_child() -> None:
    database: Any
    # A child that used the parent's sockets would mix both their sessions.
    for database in list(_databases):
        here = database.here()
        disown(here["transactions"])
        _set_here(here, None)
        here["lease"] = None
        database._deployers.clear()
        database.pool.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
