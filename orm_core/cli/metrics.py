"""``orm-core metrics``: what a ``/metrics`` page shows."""

from __future__ import annotations

import click

from orm_core.cli import session


@click.command(short_help="Print the metrics that a service exports.")
@session.url_option
def metrics(url: str | None) -> None:
    """Connect, and print this process's metrics in Prometheus' text format.

    Shows the names and labels that a service exports; a service mounts the same text, see
    docs/metrics.md.
    """
    from orm_core import connect_db
    from orm_core.metrics import text

    session.discover()
    with session.database(url):
        connect_db()
        click.echo(text(), nl=False)
