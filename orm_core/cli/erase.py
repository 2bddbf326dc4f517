"""``orm-core erase``: make the secrets of one owner unreadable for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orm_core.cli import session

if TYPE_CHECKING:
    from orm_core.erasure import Erasure


@click.command(short_help="Make the secrets of a row unreadable for good.")
@click.argument("table")
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would become unreadable, and stop.")
@session.url_option
def erase(table: str, id: str, yes: bool, dry_run: bool, url: str | None) -> None:
    """Destroy the data key of the row ID of TABLE, live or soft-deleted; see docs/erasure.md.

    Shows how many secrets become unreadable in each column, and asks. The rows stay. It can't be
    undone.
    """
    from orm_core import erasure

    session.discover()
    model = _model(table)
    key = _key(model, id)
    with session.database(url):
        found = erasure.erasable(model, key)
        _show(found)
        if dry_run:
            return
        if not yes and found.erased_at is None:
            click.confirm("Make them unreadable for good?", abort=True)
        done = erasure.erase(model, key)
    if found.erased_at is None:
        click.echo(f"The data key of {done.table} {done.row} is erased.")


def _model(table: str) -> Any:
    from orm_core import erasure, registry
    from orm_core.domain import table_of

    owners = {table_of(one): one for one in registry.models if erasure.owns_secrets(one)}
    if table not in owners:
        known = ", ".join(owners) or "none"
        raise click.UsageError(
            f"Rows of {table} own no secrets: no encrypted column names them with owner=.... "
            f"Tables whose rows do: {known}."
        )
    return owners[table]


def _key(model: Any, text: str) -> str | int:
    """The id that was typed: a number where the table's ids are."""
    from peewee import IntegerField

    if not isinstance(model._meta.primary_key, IntegerField):
        return text
    if not text.isascii() or not text.isdigit():
        raise click.UsageError(f"The ids of {model._meta.table_name} are numbers.")
    return int(text)


def _show(found: Erasure) -> None:
    width = max(len(f"{one.table}.{one.column}") for one in found.columns)
    for one in found.columns:
        click.echo(f"{f'{one.table}.{one.column}':<{width}}  {one.rows:>10}")
    if found.erased_at is None:
        click.echo(f"{found.secrets} secret(s) of {found.table} {found.row} can be read.")
    else:
        moment = found.erased_at.isoformat(timespec="seconds")
        click.echo(
            f"The data key of {found.table} {found.row} was erased at {moment}; no secret of it "
            "can be read."
        )
