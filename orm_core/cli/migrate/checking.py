"""Commands that compare and print, and change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from orm_core.cli.migrate.options import common, folder_option, json_option, offline, opened


@click.command(short_help="Fail when models, files, history disagree.")
@common
@json_option
def check(url: str | None, folder: Path | None, as_json: bool) -> None:
    """Exit with 1 when models, files and history do not fit together; for CI.

    Looks for models that the files do not give, two files with one number, files edited after
    they were written, applied files that are missing and pending ones that sort before them.
    """
    from orm_core.errors import MigrationError

    with opened(url, folder, as_json=as_json) as migrations:
        try:
            migrations.check()
        except MigrationError as error:
            if not as_json:
                raise
            click.echo(json.dumps({"ok": False, "problem": str(error)}))
            raise SystemExit(1) from None
    click.echo(json.dumps({"ok": True}) if as_json else "Models, files and history agree.")


@click.command(short_help="Compare the live database with its files.")
@common
@json_option
def drift(url: str | None, folder: Path | None, as_json: bool) -> None:
    """Compare the live database with its applied files; exit with 1 when they differ.

    Says what differs, and the SQL that would mend the database.
    """
    with opened(url, folder, as_json=as_json) as migrations:
        found = migrations.drift()
    if as_json:
        click.echo(json.dumps({"differences": found.differences, "sql": found.sql}))
    elif found:
        click.echo("What would make the database agree with its files:")
        for words in found.differences:
            click.echo(f"  {words}")
        click.echo("SQL that would mend it:")
        for statement in found.sql:
            click.echo(f"{statement};")
    else:
        click.echo("The database is what its files make.")
    if found:
        raise SystemExit(1)


@click.command(short_help="Print the SQL of files, without a database.")
@click.argument("names", nargs=-1)
@click.option("--down", is_flag=True, help="The way back.")
@folder_option
def sql(names: tuple[str, ...], down: bool, folder: Path | None) -> None:
    """Print what files would run, all of them by default; needs no database."""
    click.echo(offline(folder).sql(names or None, down=down), nl=False)
