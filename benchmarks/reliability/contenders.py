"""Those who are tried, each set up as its own documentation recommends for production.

All get the same limits, as far as they have them: the wait for a connection, libpq's
``connect_timeout``, ``statement_timeout`` of the server, keepalives and ``tcp_user_timeout``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

#: seconds a call may take
LIMIT = 1.0
LIBPQ = {
    "connect_timeout": 2,  # libpq's least
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 1000,
    "options": "-c statement_timeout=1000",
}
Run = Callable[..., Any]


class CanNotError(Exception):
    """It has nothing for this."""


class Contender:
    """A pool and its transactions, in few words."""

    name: str

    def open(self, params: dict[str, Any], size: int, timeout: float) -> None:
        raise NotImplementedError

    def hold(self) -> AbstractContextManager[Run]:
        """One connection; answers what runs a statement and answers its first row."""
        raise NotImplementedError

    def transaction(self) -> AbstractContextManager[Run]:
        raise NotImplementedError

    def take(self) -> Any:
        """A connection that is used once, and that nobody gives back."""
        raise NotImplementedError

    def one(self, sql: str, *params: Any) -> Any:
        with self.hold() as run:
            return run(sql, *params)

    def limited(self, call: Callable[[], Any]) -> Any:
        """Call with a limit of ``LIMIT`` seconds, where there is one for a block."""
        return call()

    def is_unknown(self, error: Exception) -> bool:
        """Whether the error says that a COMMIT may have been applied or not."""
        return False

    def find_out(self, error: Any) -> str:
        raise CanNotError("nothing asks the server what became of it")

    def wait_for_server(self, seconds: float) -> None:
        raise CanNotError("the first connection is tried once")

    def close(self) -> None:
        raise NotImplementedError


class OrmCore(Contender):
    name = "orm_core"

    def open(self, params: dict[str, Any], size: int, timeout: float) -> None:
        from orm_core import db, initialize_db

        self.db = db
        initialize_db(
            "postgresql://{user}:{password}@{host}:{port}/{dbname}?sslmode=disable".format(
                **params
            ),
            pool_size=size,
            pool_timeout=timeout,
            pool_reset="discard",
            statement_timeout=LIMIT,
            connect_timeout=2,
        )

    @contextmanager
    def hold(self) -> Iterator[Run]:
        with self.db.connection_context():
            yield self._run

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        from orm_core import transaction

        with transaction():
            yield self._run

    def _run(self, sql: str, *params: Any) -> Any:
        cursor = self.db.execute_sql(sql, params)
        return cursor.fetchone() if cursor.description else None

    def take(self) -> Any:
        self.db.connect()
        self._run("SELECT 1")

    def one(self, sql: str, *params: Any) -> Any:
        return self._run(sql, *params)

    def limited(self, call: Callable[[], Any]) -> Any:
        from orm_core import time_limit

        with time_limit(LIMIT):
            return call()

    def is_unknown(self, error: Exception) -> bool:
        from orm_core import CommitUnknown

        return isinstance(error, CommitUnknown)

    def find_out(self, error: Any) -> str:
        return str(error.find_out())

    def wait_for_server(self, seconds: float) -> None:
        from orm_core import connect_db

        connect_db(retry_for=seconds)

    def close(self) -> None:
        self.db.close_all()


class Peewee(Contender):
    name = "Peewee"

    def open(self, params: dict[str, Any], size: int, timeout: float) -> None:
        from playhouse.pool import PooledPostgresqlDatabase

        given = {**params, **LIBPQ}
        self.db = PooledPostgresqlDatabase(
            given.pop("dbname"),
            max_connections=size,
            stale_timeout=300,
            timeout=timeout,
            **given,
        )

    @contextmanager
    def hold(self) -> Iterator[Run]:
        with self.db.connection_context():
            yield self._run

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        with self.db:  # a connection and a transaction, as its manual says
            yield self._run

    def _run(self, sql: str, *params: Any) -> Any:
        cursor = self.db.execute_sql(sql, params)
        return cursor.fetchone() if cursor.description else None

    def take(self) -> Any:
        self.db.connect()
        self._run("SELECT 1")

    def close(self) -> None:
        self.db.close_all()


class SqlAlchemy(Contender):
    name = "SQLAlchemy"

    def open(self, params: dict[str, Any], size: int, timeout: float) -> None:
        from sqlalchemy import create_engine, event

        self.engine = create_engine(
            "postgresql+psycopg2://",
            connect_args={**params, **LIBPQ},
            pool_size=size,
            max_overflow=0,
            pool_timeout=timeout,
            pool_pre_ping=True,
            pool_recycle=1800,
            pool_reset_on_return=None,
        )

        # "Fully preventing rollback calls / custom reset-on-return schemes" in its manual.
        @event.listens_for(self.engine, "reset")
        def discard(connection: Any, _: Any, state: Any) -> None:
            connection.rollback()
            if not state.terminate_only:
                connection.autocommit = True
                connection.cursor().execute("DISCARD ALL")
                connection.autocommit = False

    @contextmanager
    def hold(self) -> Iterator[Run]:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield _of_alchemy(connection)

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        with self.engine.begin() as connection:
            yield _of_alchemy(connection)

    def take(self) -> Any:
        connection = self.engine.connect()
        connection.exec_driver_sql("SELECT 1")
        return connection

    def close(self) -> None:
        self.engine.dispose()


def _of_alchemy(connection: Any) -> Run:
    def run(sql: str, *params: Any) -> Any:
        result = connection.exec_driver_sql(sql, params)
        return tuple(result.fetchone()) if result.returns_rows else None

    return run


class PsycopgPool(Contender):
    name = "psycopg_pool"

    def open(self, params: dict[str, Any], size: int, timeout: float) -> None:
        from psycopg_pool import ConnectionPool

        self.pool: Any = ConnectionPool(
            # DISCARD ALL drops what the driver has prepared
            kwargs={**params, **LIBPQ, "autocommit": True, "prepare_threshold": None},
            min_size=0,
            max_size=size,
            timeout=timeout,
            check=ConnectionPool.check_connection,
            reset=lambda connection: connection.execute("DISCARD ALL"),
            reconnect_timeout=5,
            open=True,
        )

    @contextmanager
    def hold(self) -> Iterator[Run]:
        with self.pool.connection() as connection:
            yield _of_psycopg(connection)

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        with self.pool.connection() as connection, connection.transaction():
            yield _of_psycopg(connection)

    def take(self) -> Any:
        connection = self.pool.getconn()
        connection.execute("SELECT 1")
        return connection

    def wait_for_server(self, seconds: float) -> None:
        with self.pool.connection(timeout=seconds):
            pass

    def close(self) -> None:
        self.pool.close()


def _of_psycopg(connection: Any) -> Run:
    def run(sql: str, *params: Any) -> Any:
        cursor = connection.execute(sql, params or None)
        return cursor.fetchone() if cursor.description else None

    return run


CONTENDERS: dict[str, type[Contender]] = {
    one.name: one for one in (OrmCore, Peewee, SqlAlchemy, PsycopgPool)
}
