"""How a plan and a rehearsal are printed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orm_core.migrations.effects import FileReport
    from orm_core.migrations.rehearsal import Rehearsal


def print_plan(reports: list[FileReport], as_json: bool) -> None:
    """Print what each pending file would do, or that there is none."""
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports]))
        return
    if not reports:
        click.echo("Nothing to apply.")
    for report in reports:
        way_back = "can be rolled back" if report.reversible else "can NOT be rolled back"
        click.secho(f"{report.name}  ({way_back})", bold=True)
        for effect in report.effects:
            click.echo(f"  {effect.sql}")
            for table, mode in effect.locks:
                click.echo(f"      {mode} on {table}")
            for danger in effect.dangers:
                click.secho(f"      ! {danger}", fg="red")


def print_rehearsal(found: Rehearsal, as_json: bool) -> None:
    """Print times, rows and the state of the copy; exit with 1 when a file failed."""
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        for file in found.files:
            click.secho(f"{file.name}  {file.seconds:.3f} s", bold=True)
            for one in file.statements:
                rows = "" if one.rows is None else f"  ({one.rows:,} rows)"
                click.echo(f"  {one.seconds:9.3f} s  {one.sql}{rows}")
        for table, count in found.tables.items():
            click.echo(f"{table} has {count:,} rows.")
        if found.failure:
            click.secho(f"! {found.failure}", fg="red")
        click.echo(_state_of_copy(found))
    if found.failure:
        raise SystemExit(1)


def _state_of_copy(found: Rehearsal) -> str:
    if not found.files:
        return "Nothing to apply."
    if found.changed:
        return "The copy was changed: not everything could be rolled back. Make it anew."
    return "The copy is as it was."
