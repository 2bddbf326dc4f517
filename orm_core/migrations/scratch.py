"""Scratch databases: made on a server that lets us, dropped when they are done with.

A process that is killed can't drop its own. So each owner holds an advisory lock as long as its
session lives, its databases are named after the lock, and the next owner, on whatever host, drops
those whose lock nobody holds. PostgreSQL shows the locks of all its databases to everybody
(``pg_locks``).
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from orm_core import peewee_facade as peewee
from orm_core import settings
from orm_core.database.database import Database
from orm_core.errors import ConfigurationError, EmbeddedError, OrmCoreError, QueryError
from orm_core.migrations.names import quote

logger: logging.Logger = logging.getLogger("orm_core.migrations")


#: the first half of an owner's lock, "ormc"; the second is its number
_LOCK_CLASS: Final = 0x6F726D63
_NAME = re.compile(r"orm_core_scratch_([0-9a-f]{8})_\d+")


class ScratchServer:
    """A server on which empty databases can be made.

    ``given`` is used when its role may create databases; else, or without one, the embedded
    PostgreSQL. Use it as a context manager.
    """

    def __init__(self, given: Database | None = None) -> None:
        self._given = given
        self._stack = ExitStack()
        self._admin: Database | None = None
        self._owner = secrets.randbits(31)
        self._made = 0

    def __enter__(self) -> ScratchServer:
        try:
            self._admin = self._administer()
            self._hold(self._admin)
            _sweep(self._admin)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _hold(self, admin: Database) -> None:
        """Say that this owner lives, on a connection that stays open."""
        admin.connect(reuse_if_open=True)
        admin.execute_sql(f"SELECT pg_try_advisory_lock_shared({_LOCK_CLASS}, {self._owner})")

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

        try:
            server = self._stack.enter_context(EmbeddedPostgres(settings.load().embedded_dir))
            url = server.url_for("postgres")
        except EmbeddedError as error:
            if refused is None:
                raise
            refused.close_all()
            role = quote(str(refused.connect_params.get("user", "your role")))
            raise EmbeddedError(
                "Scratch databases are needed, and the role may create none (a superuser can allow "
                f"it: ALTER ROLE {role} CREATEDB). {error}"
            ) from error
        params = parse(url).connect_params()
        admin = Database(str(params.pop("dbname")), driver=settings.load().driver, **params)
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
    def database(self, template: str = "template0") -> Generator[Database]:
        """An empty database, or a copy of one that nobody is connected to; gone after the block."""
        admin = self._admin
        if admin is None:
            raise ConfigurationError("A ScratchServer is used inside its with block.")
        self._hold(admin)  # anew, if the connection broke since
        self._made += 1
        name = f"orm_core_scratch_{self._owner:08x}_{self._made}"
        admin.execute_sql(f"CREATE DATABASE {quote(name)} TEMPLATE {quote(template)}")
        # Nobody misses what a crash takes of it; each file's COMMIT need not wait for the disk.
        admin.execute_sql(f"ALTER DATABASE {quote(name)} SET synchronous_commit = off")
        database = _beside(admin, name)
        try:
            yield database
        finally:
            database.close_all()
            admin.execute_sql(f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)")


def _sweep(admin: Database) -> None:
    """Drop what owners that are gone left behind."""
    # The names first: an owner takes its lock before it makes a database.
    names = admin.execute_sql(
        "SELECT datname FROM pg_database AS d WHERE datname LIKE 'orm_core_scratch_%%' "
        "AND pg_has_role(datdba, 'USAGE') "
        "AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.datid = d.oid)"
    ).fetchall()
    found = [match for (name,) in names if (match := _NAME.fullmatch(name))]
    if not found:
        return
    sql = "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = %s"
    alive = {owner for (owner,) in admin.execute_sql(sql, (_LOCK_CLASS,)).fetchall()}
    for match in found:
        if int(match[1], 16) not in alive:
            with suppress(QueryError):  # somebody else drops it, or looks into it
                admin.execute_sql(f"DROP DATABASE IF EXISTS {quote(match[0])}")
                logger.info("Dropped %s, which a process that is gone had left.", match[0])


def _beside(database: Database, name: str) -> Database:
    """Another database of the same server."""
    return Database(name, pool_size=4, driver=database.driver.NAME, **database.connect_params)


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
