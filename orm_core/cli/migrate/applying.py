"""Commands that change a database, and tell what is applied to it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from orm_core.cli.migrate.options import common, json_option, opened
from orm_core.cli.migrate.reports import print_plan, print_rehearsal


@click.command(short_help="Apply the pending migrations.")
@common
@click.option("--to", metavar="NAME", help="Stop after this file: 001_users, or 1.")
@click.option("--plan", is_flag=True, help="Tell what would be done, and do nothing.")
@click.option("--allow", is_flag=True, help="Also what is dangerous for tables with rows.")
@click.option("--rehearse", metavar="URL", help="Time it on a copy of the data; apply nothing.")
@json_option
def apply(
    url: str | None,
    folder: Path | None,
    to: str | None,
    plan: bool,
    allow: bool,
    rehearse: str | None,
    as_json: bool,
) -> None:
    """Apply the pending migrations, each in a transaction of its own.

    One deployer at a time: another one waits, and then finds nothing to do. A migration that
    meets a busy table is tried again. --plan runs each statement on a scratch copy of the schema
    and tells which locks it takes on tables that are there, which it writes anew, and what is
    dangerous about it, with the safer way. What is dangerous for a table that holds rows is
    applied with --allow only. --rehearse applies the pending migrations to a copy of the database
    with real data, tells how long each statement takes, and rolls them back where it can.
    """
    with opened(url, folder, as_json=as_json) as migrations:
        reports = migrations.plan() if plan else None
        found = migrations.rehearse(rehearse) if rehearse is not None and not plan else None
        names = migrations.apply(to, allow=allow) if reports is None and found is None else []
    if reports is not None:
        print_plan(reports, as_json)
        return
    if found is not None:
        print_rehearsal(found, as_json)
        return
    if as_json:
        click.echo(json.dumps({"applied": names}))
        return
    for name in names:
        click.echo(f"applied  {name}")
    click.echo(f"{len(names)} migration(s) applied." if names else "Nothing to apply.")


@click.command()
@common
@json_option
def status(url: str | None, folder: Path | None, as_json: bool) -> None:
    """List the migrations, applied and pending."""
    with opened(url, folder, as_json=as_json) as migrations:
        found = migrations.status()
    if as_json:
        click.echo(json.dumps({"applied": found.applied, "pending": found.pending}))
        return
    for name in found.applied:
        click.echo(f"applied  {name}")
    for name in found.pending:
        click.secho(f"pending  {name}", fg="yellow")
    click.echo(f"{len(found.applied)} applied, {len(found.pending)} pending.")


@click.command()
@common
@click.option("--count", default=1, show_default=True, help="How many migrations to undo.")
@click.confirmation_option("--yes", prompt="Rolling back can drop tables with their rows. Go on?")
def rollback(count: int, url: str | None, folder: Path | None) -> None:
    """Undo the latest migrations."""
    with opened(url, folder) as migrations:
        names = migrations.rollback(count)
    for name in names:
        click.echo(f"rolled back  {name}")


@click.command(short_help="Note pending migrations as applied.")
@common
@click.option("--to", metavar="NAME", help="Stop after this file.")
def fake(url: str | None, folder: Path | None, to: str | None) -> None:
    """Note the pending migrations as applied, without running them."""
    with opened(url, folder) as migrations:
        names = migrations.fake(to)
    for name in names:
        click.echo(f"noted  {name}")
