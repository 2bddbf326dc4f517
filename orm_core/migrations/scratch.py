"""Scratch databases: made on a server that lets us, dropped when they are done with."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import peewee

from orm_core import settings
from orm_core.database.connection import Database
from orm_core.errors import ConfigurationError, OrmCoreError
from orm_core.migrations.names import quote

logger = logging.getLogger("orm_core.migrations")


class ScratchServer:
    """A server on which empty databases can be made.

    ``given`` is used when its role may create databases; else, or without one, the embedded
    PostgreSQL. Use it as a context manager.
    """

    def __init__(self, given: Database | None = None) -> None:
        self._given = given
        self._stack = ExitStack()
        self._admin: Database | None = None

    def __enter__(self) -> ScratchServer:
        try:
            self._admin = self._administer()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _administer(self) -> Database:
        given = self._given
        if given is None or given.deferred:
            return self._embedded(None)
        admin = _maintenance(given)
        return admin if _may_create(admin) else self._embedded(admin)

    def __exit__(self, *_: object) -> None:
        if self._admin is not None:
            self._admin.close_all()
        self._stack.close()

    def _embedded(self, refused: Database | None) -> Database:
        from orm_core.database.url import parse
        from orm_core.embedded import EmbeddedPostgres

        server = self._stack.enter_context(EmbeddedPostgres(settings.load().embedded_dir))
        params = parse(server.url_for("postgres")).connect_params()
        admin = Database(str(params.pop("dbname")), **params)
        if refused is not None:
            theirs, ours = (_major(one) for one in (refused, admin))
            refused.close_all()
            if theirs != ours:
                logger.warning(
                    "The role may create no databases on the PostgreSQL %d given, so migrations "
                    "are tried on the embedded PostgreSQL %d; the two may differ.",
                    theirs,
                    ours,
                )
        return admin

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[Database]:
        """An empty database, or a copy of one that nobody is connected to; gone after the block."""
        admin = self._admin
        if admin is None:
            raise ConfigurationError("A ScratchServer is used inside its with block.")
        name = f"orm_core_scratch_{os.getpid()}_{secrets.token_hex(4)}"
        admin.execute_sql(f"CREATE DATABASE {quote(name)} TEMPLATE {quote(template)}")
        # Nobody misses what a crash takes of it; each file's COMMIT need not wait for the disk.
        admin.execute_sql(f"ALTER DATABASE {quote(name)} SET synchronous_commit = off")
        database = _beside(admin, name)
        try:
            yield database
        finally:
            database.close_all()
            admin.execute_sql(f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)")


def _beside(database: Database, name: str) -> Database:
    """Another database of the same server."""
    return Database(name, pool_size=4, **database.connect_params)


def _maintenance(given: Database) -> Database:
    """A database to work from on the same server; the live one only where there is no other."""
    maintenance = _beside(given, "postgres")
    try:
        maintenance.execute_sql("SELECT 1")
    except OrmCoreError:
        maintenance.close_all()
        return _beside(given, given.database)
    return maintenance


def _may_create(database: Database) -> bool:
    sql = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
    try:
        return bool(database.execute_sql(sql).fetchone()[0])
    except peewee.OperationalError:
        return False


def _major(database: Database) -> int:
    return int(database.execute_sql("SHOW server_version_num").fetchone()[0]) // 10_000
