"""What commands share: the database they use and the service's domains."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import click

from orm_core import close_db, initialize_db, registry, settings
from orm_core.database.database import Database
from orm_core.settings import Settings

url_option: Callable[[Any], Any] = click.option(
    "--url", metavar="URL", help="The database. Default: DATABASE_URL, else the embedded one."
)


@contextmanager
def database(url: str | None) -> Generator[Database]:
    """``db``, on the given URL, else ``DATABASE_URL``, else the embedded PostgreSQL.

    A statement may take as long as it does: somebody is watching.
    """
    config = settings.load({"url": url})
    if config.url:
        try:
            yield initialize_db(config.url, statement_timeout=0)
        finally:
            close_db()
        return
    from orm_core.embedded import EmbeddedPostgres

    click.secho(
        f"No DATABASE_URL: using the embedded PostgreSQL in {config.embedded_dir}/.",
        fg="yellow",
        err=True,
    )
    with EmbeddedPostgres(config.embedded_dir) as server:
        try:
            yield initialize_db(server.start().url, statement_timeout=0)
        finally:
            close_db()


def discover() -> None:
    """Register the domains found here."""
    registry.discover()


def load_settings() -> Settings:
    """The settings of this folder and environment."""
    return settings.load()
