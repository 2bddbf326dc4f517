"""What the commands of ``orm-core migrate`` share: options, and the migrations they work on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from orm_core.cli import progress, session

if TYPE_CHECKING:
    from orm_core.migrations.migrations import Migrations

#: what adds an option to a command
Option: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

folder_option: Option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the migration files. Default: ORM_CORE_MIGRATIONS_DIR, else migrations.",
)
json_option: Option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs."
)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that uses a database and the folder."""
    wrapped: Callable[..., Any] = session.url_option(folder_option(command))
    return wrapped


def folder_or_default(folder: Path | None) -> Path:
    """The folder given, else that of the settings."""
    return folder or session.load_settings().migrations_dir


@contextmanager
def opened(url: str | None, folder: Path | None, *, as_json: bool = False) -> Generator[Migrations]:
    """The migrations of the registered domains on the database; progress is shown meanwhile."""
    from orm_core import registry
    from orm_core.migrations.migrations import Migrations

    folder = folder_or_default(folder)
    session.discover()
    with session.database(url) as database, progress.shown(quiet=as_json):
        yield Migrations(database, registry, folder)


def offline(folder: Path | None) -> Migrations:
    """The migrations of a folder, for what needs no database."""
    from orm_core import registry
    from orm_core.migrations.migrations import Migrations

    return Migrations(None, registry, folder_or_default(folder))
