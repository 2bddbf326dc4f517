"""Fixtures for the tests of a service, on a real PostgreSQL. In its ``conftest.py``::

    pytest_plugins = ["orm_core.testing"]

    def test_sign_up(rollback_db):
        UsersService.create({...})      # undone after the test

``rollback_db`` runs a test inside a transaction that is rolled back: the fastest. ``clone_db``
gives a test a database of its own, for tests that commit, use threads or break connections. Both
point ``orm_core.db`` at a database with the schema of the migrations folder
(``ORM_CORE_MIGRATIONS_DIR``), or of the registry's models where there is no such folder.

The server is the one of ``ORM_CORE_TEST_URL`` (its role must be allowed to create databases),
else an embedded one of each test process, in memory where there is room. Databases are named by
process, so pytest-xdist and runs side by side do not meet.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_postgresql import factories
from pytest_postgresql.janitor import DatabaseJanitor

from orm_core import settings
from orm_core.database.connection import db, initialize_db
from orm_core.database.database import Database
from orm_core.database.url import DatabaseUrl, parse

#: where pytest was started; a test may have gone elsewhere by the time the schema is made
_HERE = Path.cwd()
#: bytes that a cluster in memory may need
_ROOM = 1 << 30
_SHM = Path("/dev/shm")  # noqa: S108 - only with room, in a folder of our own


@dataclass(frozen=True)
class Server:
    """A server for tests, in the words of pytest-postgresql."""

    host: str
    port: int
    user: str
    password: str | None
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str | None = None

    def url(self, database: str) -> str:
        """The URL of one database."""
        return _text(DatabaseUrl(self.host, self.port, self.user, self.password, database))


def _text(url: DatabaseUrl) -> str:
    from urllib.parse import quote

    password = f":{quote(url.password, safe='')}" if url.password else ""
    host = quote(url.host, safe="")
    return f"postgresql://{url.user}{password}@/{url.database}?host={host}&port={url.port}"


@pytest.fixture(scope="session")
def orm_core_server() -> Iterator[Server]:
    """The server of this test process."""
    given = os.environ.get("ORM_CORE_TEST_URL")
    if given:
        target = parse(given)
        _reach(target)  # pytest-postgresql would try for a minute
        yield _server(target)
        return
    from orm_core.embedded import EmbeddedPostgres

    roomy = _SHM.is_dir() and shutil.disk_usage(_SHM).free > _ROOM
    folder = Path(tempfile.mkdtemp(prefix="orm_core-tests-", dir=_SHM if roomy else None))
    folder.chmod(0o711)  # the server's user, when we are root, must get through
    server = EmbeddedPostgres(folder, durable=False)
    try:
        yield _server(parse(server.start().url))
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _reach(url: DatabaseUrl) -> None:
    """Raise a ``ConnectionFailed`` that says why when the server can't be reached."""
    params = url.replace_database("postgres").connect_params()
    name = params.pop("dbname")
    database = Database(str(name), driver=settings.load().driver, **params)
    try:
        database.execute_sql("SELECT 1")
    finally:
        database.close_all()


def _server(url: DatabaseUrl) -> Server:
    return Server(url.host, url.port, url.user or "postgres", url.password)


def load_schema(
    *, host: str, port: int, user: str, dbname: str, password: str | None, **_: Any
) -> None:
    """Bring a database to the schema of the migrations, else of the registered models."""
    from orm_core.domain import registry
    from orm_core.migrations import runner
    from orm_core.models.schema import create_all

    config = settings.load()
    folder = _HERE / config.migrations_dir
    database = Database(
        dbname, driver=config.driver, host=host, port=int(port), user=user, password=password
    )
    try:
        if folder.is_dir():
            runner.apply(database, folder)
        else:
            create_all(database, registry.models)
    finally:
        database.close_all()


_name = f"orm_core_{os.getpid()}"
orm_core_template: Any = factories.postgresql_noproc(  # pyright: ignore[reportUnknownMemberType]
    depends_on="orm_core_server", dbname=_name, load=[load_schema]
)
orm_core_clone: Any = factories.postgresql("orm_core_template", dbname=f"{_name}_clone")


@pytest.fixture(scope="session")
def orm_core_worker_url(orm_core_server: Server, orm_core_template: Any) -> Iterator[str]:
    """The URL of the database that ``rollback_db`` uses, made once for each test process."""
    name = f"{_name}_worker"
    with DatabaseJanitor(
        user=orm_core_server.user,
        host=orm_core_server.host,
        port=orm_core_server.port,
        password=orm_core_server.password,
        dbname=name,
        template_dbname=orm_core_template.template_dbname,
    ):
        yield orm_core_server.url(name)


class _Undo(Exception):
    pass


@pytest.fixture
def rollback_db(orm_core_worker_url: str) -> Iterator[Database]:
    """``orm_core.db`` inside a transaction that is rolled back after the test."""
    initialize_db(orm_core_worker_url, idle_in_transaction_timeout=0)  # for breakpoint()
    try:
        with db.connection_context(), db.atomic():
            db.connection()  # sends BEGIN, so that a test sees its own statements only
            yield db
            raise _Undo
    except _Undo:
        pass
    finally:
        db.close_all()


@pytest.fixture
def clone_db(orm_core_server: Server, orm_core_clone: Any) -> Iterator[Database]:
    """``orm_core.db`` on a fresh database of this test's own."""
    name = orm_core_clone.info.dbname
    orm_core_clone.close()
    initialize_db(orm_core_server.url(name), idle_in_transaction_timeout=0)
    yield db
    db.close_all()
