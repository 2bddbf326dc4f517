"""Fixtures of the studio's tests; what they use is imported when one of them asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from orm_core import KeyRing, db, initialize_db, use_key_ring

if TYPE_CHECKING:
    from studio_helpers import Browser


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
