"""Commands that write files and models: generate, new, backfill, pull, squash, sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orm_core.cli import session
from orm_core.cli.migrate.options import common, folder_option, folder_or_default, offline, opened


@click.command(short_help="Write the migration to the models.")
@click.argument("name", required=False)
@click.option("--rename", "renames", multiple=True, metavar="OLD:NEW", help="users.mail:email")
@click.option("--drop", "drops", multiple=True, metavar="NAME", help="users.mail went for good.")
@click.option("--allow-drop", is_flag=True, help="All that is missing in the models went for good.")
@click.option("--fill", "fills", multiple=True, metavar="COLUMN=SQL", help="users.nick=''")
@click.option("--safe", is_flag=True, help="Write stages that hold nobody up.")
@click.option("--dry-run", is_flag=True, help="Print the files instead of writing them.")
@common
def generate(
    name: str | None,
    renames: tuple[str, ...],
    drops: tuple[str, ...],
    allow_drop: bool,
    fills: tuple[str, ...],
    safe: bool,
    dry_run: bool,
    url: str | None,
    folder: Path | None,
) -> None:
    """Write the migration from the files' schema to the models', proved on scratch databases.

    The live database is not read. Something that went while something alike came is a question:
    answer it with --rename or --drop. --fill gives the value of a new NOT NULL column for the
    rows that are there. --safe builds indexes CONCURRENTLY and validates constraints in a second
    file, so that reads and writes go on meanwhile.
    """
    answers: dict[str, Any] = {"renames": renames, "drops": allow_drop or drops}
    answers |= {"fills": dict(_fill(one) for one in fills), "safe": safe}
    with opened(url, folder) as migrations:
        if dry_run:
            proposal = migrations.propose(name, **answers)
            for file in proposal.files if proposal else ():
                click.echo(f"# {file.name}.py\n{file.text()}")
            paths: list[Path] = []
        else:
            paths = migrations.generate(name, **answers)
            proposal = None
    for path in paths:
        click.echo(f"wrote  {path}")
    if not paths and not proposal:
        click.echo("No changes: the files give the models' schema.")


def _fill(text: str) -> tuple[str, str]:
    column, equals, sql = text.partition("=")
    if not equals or "." not in column or not sql.strip():
        raise click.BadParameter(f"{text!r} is not of the form table.column=SQL")
    return column.strip(), sql.strip()


@click.command(short_help="Write a file to be filled by hand.")
@click.argument("name")
@folder_option
def new(name: str, folder: Path | None) -> None:
    """Write a file to be filled by hand: a data migration, a trigger, a view."""
    from orm_core.migrations import files, sums

    folder = folder_or_default(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = files.write_template(folder, name)
    sums.write(folder)
    click.echo(f"wrote  {path}\nAfter you filled it: orm-core migrate sum")


@click.command(short_help="Write a change of many rows.")
@click.argument("table")
@click.option("--set", "set_sql", metavar="SQL", required=True, help="nick = first_name")
@click.option("--where", "where_sql", metavar="SQL", required=True, help="nick IS NULL")
@click.option("--key", default="id", show_default=True, help="A column with a unique index.")
@click.option("--batch", default=1000, show_default=True, help="Rows of one transaction.")
@folder_option
def backfill(
    table: str, set_sql: str, where_sql: str, key: str, batch: int, folder: Path | None
) -> None:
    """Write a migration that changes many rows, a batch at a time.

    Each batch is a short transaction of its own. The condition of --where must no longer match a
    row that is done: an interrupted run goes on with the rows that still match.
    """
    set_sql, where_sql = (sql.replace("%", "%%") for sql in (set_sql, where_sql))
    path = offline(folder).write_backfill(table, set_sql, where_sql, key=key, batch=batch)
    click.echo(f"wrote  {path}")


@click.command(short_help="Write models from a database that is there.")
@session.url_option
def pull(url: str | None) -> None:
    """Print models that make the schema of a database that is there already.

    To adopt orm_core on it: put them into a domain, generate the first migration, and note it as
    applied (migrate fake) where the tables are.
    """
    from orm_core import registry
    from orm_core.migrations.migrations import Migrations

    with session.database(url) as database:
        click.echo(Migrations(database, registry).pull(), nl=False)


@click.command()
@common
@click.confirmation_option("--yes", prompt="This puts one file in place of all. Go on?")
def squash(url: str | None, folder: Path | None) -> None:
    """Put one file in place of all.

    Databases that have the old files note the new one in their place when they are migrated next.
    """
    with opened(url, folder) as migrations:
        path = migrations.squash()
    click.echo(f"wrote  {path}")


@click.command(name="sum", short_help="Write migrations.sum anew.")
@folder_option
def sum_(folder: Path | None) -> None:
    """Write migrations.sum anew, after files were written or edited by hand."""
    from orm_core.migrations import sums

    click.echo(f"wrote  {sums.write(folder_or_default(folder))}")
