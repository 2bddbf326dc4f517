"""``orm-core migrate``: apply, status, rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orm_core.cli import session
from orm_core.migrations import runner

_folder = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the migration files. Default: ORM_CORE_MIGRATIONS_DIR, else migrations.",
)


def _in(folder: Path | None) -> Path:
    return folder or session.load_settings().migrations_dir


@click.group()
def migrate() -> None:
    """Bring a database to the schema of the migration files, or back.

    The same as a deploy script does with registry.router(db).run().
    """


@migrate.command()
@session.url_option
@_folder
@click.option("--to", metavar="NAME", help="Stop after this file, e.g. 001_users.")
def apply(url: str | None, folder: Path | None, to: str | None) -> None:
    """Apply the pending migrations, each in a transaction of its own."""
    with session.database(url) as database:
        names = runner.apply(database, _in(folder), to)
    for name in names:
        click.echo(f"applied  {name}")
    click.echo(f"{len(names)} migration(s) applied." if names else "Nothing to apply.")


@migrate.command()
@session.url_option
@_folder
def status(url: str | None, folder: Path | None) -> None:
    """List the migrations, applied and pending."""
    with session.database(url) as database:
        found = runner.status(database, _in(folder))
    for name in found.applied:
        click.echo(f"applied  {name}")
    for name in found.pending:
        click.secho(f"pending  {name}", fg="yellow")
    click.echo(f"{len(found.applied)} applied, {len(found.pending)} pending.")


@migrate.command()
@session.url_option
@_folder
@click.option("--count", default=1, show_default=True, help="How many migrations to undo.")
@click.confirmation_option("--yes", prompt="Rolling back can drop tables with their rows. Go on?")
def rollback(count: int, url: str | None, folder: Path | None, **_: Any) -> None:
    """Undo the latest migrations."""
    with session.database(url) as database:
        names = runner.rollback(database, _in(folder), count)
    for name in names:
        click.echo(f"rolled back  {name}")
