"""``orm-core audit``: read, verify and prune the audit trail."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

from orm_core.cli import progress, session

if TYPE_CHECKING:
    from orm_core import AuditEntry

_AGE: Final = re.compile(r"([1-9]\d{0,5})([dh])")


def _age(text: str) -> timedelta:
    found = _AGE.fullmatch(text)
    if found is None:
        raise click.BadParameter("an age is a number of days or hours, as in 400d or 12h.")
    number = int(found[1])
    return timedelta(days=number) if found[2] == "d" else timedelta(hours=number)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = "a time is written as 2026-01-31 or 2026-01-31T12:00:00Z."
        raise click.BadParameter(message) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group(short_help="Read, verify and prune the audit trail.")
def audit() -> None:
    """Read, verify and prune the audit trail; see docs/audit.md."""


@audit.command(short_help="Show what happened to a table or a row.")
@click.argument("table")
@click.argument("id", required=False)
@click.option("--since", type=_moment, metavar="TIME", help="Not before; UTC unless it says.")
@click.option("--actor", metavar="NAME", help="Only what this actor did.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Entries shown."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@session.url_option
def show(
    table: str,
    id: str | None,
    since: datetime | None,
    actor: str | None,
    limit: int,
    as_json: bool,
    url: str | None,
) -> None:
    """Show the entries of TABLE, or of the row ID in it, the newest first."""
    from orm_core import AuditService

    with session.database(url):
        page = AuditService.history(table, id, actor=actor, since=since, size=limit)
        for entry in page:
            click.echo(_json(entry) if as_json else _text(entry))
    if not page.items and not as_json:
        click.echo("The audit trail has no such entry.")
    if page.has_next:
        click.echo(f"There are more than {limit}; --limit shows them.", err=True)


@audit.command(short_help="Find any entry that was altered, removed or put in.")
@click.option("--head", "recorded", metavar="POSITION:HASH", help="A head recorded before.")
@session.url_option
def verify(recorded: str | None, url: str | None) -> None:
    """Check every entry of the chain, and print its head, to be recorded elsewhere.

    With a recorded head an end that was cut off is found too. Exit code 1 for a problem, the first
    of which is told.
    """
    from orm_core.audit import chain

    head = chain.Head.read(recorded) if recorded else None
    with session.database(url):
        found = chain.verify(head)
    if found.problem:
        raise click.ClickException(found.problem)
    before = f", {found.unlinked} from before the chain" if found.unlinked else ""
    click.echo(f"{found.entries} entries are as they were written{before}.")
    click.echo(f"Head: {found.head}")


@audit.command(short_help="Remove old entries.")
@click.option("--older-than", type=_age, required=True, metavar="AGE", help="400d or 12h.")
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=5000,
    show_default=True,
    help="Entries of one transaction.",
)
@click.option("--dry-run", is_flag=True, help="Count what would be removed.")
@session.url_option
def prune(older_than: timedelta, batch: int, dry_run: bool, url: str | None) -> None:
    """Remove entries older than AGE, in batches; the chain stays verifiable.

    Uses the role that owns the table, which migrations have. Can be interrupted and run again.
    """
    from orm_core.audit import pruning

    with session.database(url), progress.shown():
        count = pruning.prune(older_than, batch=batch, dry_run=dry_run)
    click.echo(f"{count} entries {'would be ' if dry_run else ''}removed.")


def _json(entry: AuditEntry) -> str:
    return json.dumps(entry.__data__, default=str)


def _text(entry: AuditEntry) -> str:
    when = entry.recorded_at.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds")
    by = entry.actor or f"role {entry.role}"
    request = f" (request {entry.request_id})" if entry.request_id else ""
    row = f" {entry.row_id}" if entry.row_id is not None else ""
    lines = [f"{when}  {entry.operation}  {entry.table_name}{row}  by {by}{request}"]
    old, new = entry.old or {}, entry.new or {}
    for name in sorted({*old, *new}):
        before = f"{json.dumps(old[name])} -> " if name in old else ""
        lines.append(f"    {name}: {before}{json.dumps(new[name]) if name in new else 'gone'}")
    lines += [f"    {name}: changed, secret" for name in sorted(entry.masked or ())]
    return "\n".join(lines)
