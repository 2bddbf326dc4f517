"""Empty databases, and the studio; what a fixture uses is imported when a test asks for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from orm_core import KeyRing, db, initialize_db, use_key_ring

if TYPE_CHECKING:
    from studio_helpers import Browser

    from orm_core import Database


@pytest.fixture
def new_url(orm_core_server: Any) -> Iterator[Callable[[], str]]:
    """Makes an empty database and answers its URL."""
    from service_helpers import empty_databases

    with empty_databases(orm_core_server) as make:
        yield make


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    """The URL of an empty database."""
    return new_url()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """``orm_core.db`` on the empty database at ``url``."""
    found = initialize_db(url)
    yield found
    found.close_all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for migration files."""
    path = tmp_path / "migrations"
    path.mkdir()
    return path


@pytest.fixture
def bare_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting but the driver, an empty working directory, ``sys.path`` as it was after."""
    from orm_core.settings import VARIABLES

    for _, variable, _ in VARIABLES:
        if variable != "ORM_CORE_DRIVER":  # the one that the tests run under
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ORM_CORE_EMBEDDED_DIR", str(tmp_path / "embedded"))
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asked for preparing, whatever the tests run under."""
    monkeypatch.delenv("ORM_CORE_PREPARE", raising=False)


@pytest.fixture(scope="module")
def studio_url(orm_core_server: Any, orm_core_template: Any) -> Iterator[str]:
    """A database of the module's own, with the tables of all three domains."""
    from studio_helpers import gallery

    from orm_core.models.schema import create_all

    name = f"orm_core_studio_{os.getpid()}"
    with DatabaseJanitor(
        user=orm_core_server.user,
        host=orm_core_server.host,
        port=orm_core_server.port,
        password=orm_core_server.password,
        dbname=name,
        template_dbname=orm_core_template.template_dbname,
    ):
        url = orm_core_server.url(name)
        create_all(initialize_db(url), gallery.models)
        db.close_all()
        yield url


@pytest.fixture
def studio_db(studio_url: str) -> Iterator[Any]:
    """``orm_core.db`` on the module's database, and keys for its secrets."""
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    yield initialize_db(studio_url)
    db.close_all()
    use_key_ring(None)


def _browser(database: Any, **options: Any) -> Iterator[Browser]:
    from studio_helpers import browser

    found = browser(database, **options)
    yield found
    found.studio.close()


@pytest.fixture
def look(studio_db: Any) -> Iterator[Browser]:
    """A read-only studio."""
    yield from _browser(studio_db)


@pytest.fixture
def edit(studio_db: Any) -> Iterator[Browser]:
    """A studio that may write."""
    yield from _browser(studio_db, write=True)


@pytest.fixture
def query(studio_db: Any) -> Iterator[Browser]:
    """A studio with the query box."""
    yield from _browser(studio_db, sql=True)
