"""``orm-core keys``: make keys, and change those of encrypted columns."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from orm_core.cli import progress, session

if TYPE_CHECKING:
    from orm_core.rotation import Report


@contextmanager
def _models(url: str | None) -> Generator[tuple[Any, ...]]:
    """The models of the registered domains, with the database at hand."""
    from orm_core import registry

    session.discover()
    with session.database(url), progress.shown():
        yield registry.models


@click.group(short_help="Make, check and change the keys of encrypted columns.")
def keys() -> None:
    """Make, check and change the keys of encrypted columns; see docs/secrets.md.

    Output names tables, columns, key ids and row ids, never a key or a value; only `generate`
    prints a key.
    """


@keys.command(short_help="Print a new key.")
@click.option("--id", "key_id", metavar="ID", help="1 to 7 letters, digits, - or _.")
@click.option("--index", is_flag=True, help="A key of blind indexes, for ORM_CORE_INDEX_KEYS.")
def generate(key_id: str | None, index: bool) -> None:
    """Print a new entry for ORM_CORE_TOKEN_KEYS, to be put first. Keep it secret."""
    from orm_core import IndexKeys, KeyRing

    kind, default = (IndexKeys, "i1") if index else (KeyRing, "k1")
    click.echo(kind.generate(key_id or default))


@keys.command(short_help="Open every encrypted value.")
@session.url_option
def check(url: str | None) -> None:
    """Open every encrypted value and change nothing. Exit code 1 when one can't be opened."""
    from orm_core import rotation

    with _models(url) as models:
        report = rotation.check(models)
    click.echo(f"{report.done} value(s) opened.")
    _tell_the_rest(report)


@keys.command(short_help="Encrypt everything with the first key.")
@click.option("--dry-run", is_flag=True, help="Open and count what would be encrypted anew.")
@click.option("--batch", default=500, show_default=True, help="Rows of one transaction.")
@session.url_option
def rotate(dry_run: bool, batch: int, url: str | None) -> None:
    """Encrypt with the first key what has another one, or none; index what has no blind index.

    Soft-deleted rows are included. Can be interrupted and run again. Exit code 1 when values were
    left.
    """
    from orm_core import rotation

    with _models(url) as models:
        report = rotation.rotate(models, batch=batch, dry_run=dry_run)
    done = "would be encrypted anew" if dry_run else "encrypted anew"
    click.echo(f"{report.done} value(s) {done}.")
    _tell_the_rest(report)


@keys.command(short_help="Count rows by key.")
@session.url_option
def status(url: str | None) -> None:
    """Count the rows of each encrypted column and blind index by key.

    "legacy" are values of the Node system, "missing" rows without their blind index. A key that
    no row has any more can be taken out of the ring.
    """
    from orm_core import rotation

    with _models(url) as models:
        uses = rotation.status(models)
    columns = [f"{use.table}.{use.column}" for use in uses]
    width = max(map(len, columns), default=0)
    for column, use in zip(columns, uses, strict=True):
        click.echo(f"{column:<{width}}  {use.key:<7}  {use.rows:>10}")
    if not uses:
        click.echo("No row has an encrypted value.")


def _tell_the_rest(report: Report) -> None:
    if report.erased:
        click.echo(f"{report.erased} value(s) were erased, see orm-core erase.")
    for place in report.unreadable:
        click.echo(f"{place} can't be opened.", err=True)
    for place in report.repeated:
        click.echo(f"{place} has the value of another row, which must be unique.", err=True)
    if report.busy:
        click.echo(f"{report.busy} value(s) were held by others: run it again.", err=True)
    if not report.is_clean:
        raise SystemExit(1)
