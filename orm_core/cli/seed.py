"""``orm-core seed``: fill tables with plausible rows."""

from __future__ import annotations

import click

from orm_core.cli import session


def _read(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, int]:
    """``("users=1000",)`` -> ``{"users": 1000}``"""
    counts: dict[str, int] = {}
    for text in given:
        table, equals, count = text.partition("=")
        if not equals or not table.strip() or not count.replace("_", "").isdecimal():
            raise click.BadParameter(f"{text!r} is not of the form users=1000")
        counts[table.strip()] = int(count)
    return counts


@click.command(short_help="Fill tables with plausible rows.")
@click.argument("counts", nargs=-1, required=True, callback=_read, metavar="TABLE=ROWS...")
@click.option("--seed", default=1, show_default=True, help="Another number gives other rows.")
@click.option("--yes-remote", is_flag=True, help="On another machine's database too.")
@session.url_option
def seed(counts: dict[str, int], seed: int, yes_remote: bool, url: str | None) -> None:
    """Fill tables with plausible rows, through the domains' services.

    The same seed gives the same rows on an empty database. References lead to rows that are
    there. Tables that others refer to come first, in whatever order they are named.

        orm-core seed users=1000 orders=5000
    """
    from orm_core import registry
    from orm_core.studio import place
    from orm_core.studio.seed import plant

    session.discover()
    with session.database(url) as database:
        place.check_writable(database, yes_remote=yes_remote)
        with click.progressbar(length=sum(counts.values()), label="Planting") as bar:
            before: dict[str, int] = {}

            def told(name: str, done: int) -> None:
                bar.update(done - before.get(name, 0))
                before[name] = done

            planted = plant(registry, counts, seed, told)
    for name, count in planted.items():
        click.echo(f"{count:>9,}  {name}")
