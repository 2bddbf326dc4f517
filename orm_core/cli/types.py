"""``orm-core types``: payload and row types from the models."""

from __future__ import annotations

from pathlib import Path

import click

from orm_core import registry
from orm_core.cli.session import discover


@click.group()
def types() -> None:
    """Types of payloads and rows, written from the models."""


@types.command()
@click.option("--check", is_flag=True, help="Write nothing; fail when a file is out of date.")
def generate(check: bool) -> None:
    """Write payloads.py beside the models of the domains in this folder.

    Domains that are installed from elsewhere bring their own. Needs no database.
    """
    from orm_core.typegen import files, is_stale, without_files

    with without_files():
        discover()
    here = Path.cwd()
    wanted = files(registry.models, here)
    stale = [path for path, text in wanted.items() if is_stale(path, text)]
    if check and stale:
        names = ", ".join(str(path.relative_to(here)) for path in stale)
        raise click.ClickException(f"Out of date: {names}. Run `orm-core types generate`.")
    for path in stale:
        path.write_text(wanted[path])
        click.echo(f"Wrote {path.relative_to(here)}.")
    if not stale:
        click.echo(f"{len(wanted)} file(s), all up to date.")
