"""``orm-core purge``: remove soft-deleted rows that are past their retention."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

import click

from orm_core.cli import progress, session

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _age(_: Any, __: Any, value: str | None) -> timedelta | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([mhdw])", value)
    if not found:
        raise click.BadParameter("write a number and m, h, d or w (minutes to weeks), as in 90d.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@click.command(short_help="Remove soft-deleted rows that are past their retention.")
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@click.option("--dry-run", is_flag=True, help="Count what would be removed, and remove nothing.")
@click.option("--older-than", callback=_age, metavar="AGE", help="In place of the retention: 90d.")
@click.option("--batch", default=1000, show_default=True, help="Rows of one transaction.")
@session.url_option
def purge(
    domains: tuple[str, ...],
    dry_run: bool,
    older_than: timedelta | None,
    batch: int,
    url: str | None,
) -> None:
    """Remove for good what was soft-deleted longer ago than its domain's retention.

    Of these domains, else of all that have a retention; see docs/erasure.md. Rows that others
    refer to are kept and told. Can be interrupted and run again.
    """
    from orm_core import purging, registry

    session.discover()
    chosen = [registry[name] for name in domains] if domains else list(registry)
    if older_than is None:
        without = [one.name for one in chosen if one.retention is None]
        if domains and without:
            raise click.UsageError(
                f"{', '.join(without)}: no retention. Write Domain(..., retention=timedelta(days=90))"
                " or give --older-than."
            )
        if len(without) == len(chosen):
            click.echo("No domain has a retention: nothing to purge.")
            return
    with session.database(url), progress.shown():
        report = purging.purge(chosen, older_than=older_than, dry_run=dry_run, batch=batch)
    done = "would be removed" if dry_run else "removed"
    for table in report.tables:
        click.echo(f"{table.table}: {table.rows} row(s) {done}.")
        for reason, rows in sorted(table.kept.items()):
            why = reason if reason == purging.BUSY else f"{reason} refers to them"
            click.echo(f"{table.table}: {rows} row(s) kept: {why}.")
    if report.data_keys:
        click.echo(f"{report.data_keys} data key(s) of owners that are no more {done}.")
