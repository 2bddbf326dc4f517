"""``orm-core studio``: look at the data, in a browser on this machine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import click

from orm_core.cli import session
from orm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

PORT = 4983


@click.command(short_help="Look at the data, in a browser.")
@session.url_option
@click.option(
    "--port",
    default=PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Where to listen; 0 takes a free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--write", is_flag=True, help="Allow edits, through the domains' services.")
@click.option("--yes-remote", is_flag=True, help="With --write, on another machine's database too.")
@click.option("--sql", is_flag=True, help="Offer a box for SELECT statements.")
@click.option("--metrics", metavar="URL", help="A service's /metrics page, for the dashboard.")
@click.option("--no-open", is_flag=True, help="Do not open the browser.")
def studio(
    url: str | None,
    port: int,
    host: str,
    write: bool,
    yes_remote: bool,
    sql: bool,
    metrics: str | None,
    no_open: bool,
) -> None:
    """Look at the data, in a browser on this machine: http://localhost:4983.

    Reads only, unless --write is given. Secrets are never read from the database. On another host
    than this machine's own, the printed link lets one browser in, once. Ctrl-C ends it.
    """
    try:
        from orm_core.studio import server
    except ModuleNotFoundError as error:
        if error.name not in ("flask", "jinja2", "werkzeug"):
            raise
        raise ConfigurationError(
            'The studio needs Flask: pip install "orm_core[studio]".'
        ) from None
    from orm_core import connect_db, registry

    session.discover()
    with session.database(url) as database:
        options = server.Options(
            host,
            port,
            write=write,
            yes_remote=yes_remote,
            sql=sql,
            url=url,
            metrics_url=metrics,
        )
        folder = session.load_settings().migrations_dir
        with server.open_studio(registry, database, folder, options) as (httpd, link):
            connect_db()
            _serve(httpd, link, write=write, open_browser=not no_open)


def _serve(httpd: BaseWSGIServer, link: str, *, write: bool, open_browser: bool) -> None:
    click.echo(f"Studio: {link}  ({'edits allowed' if write else 'read-only'}; Ctrl-C ends it)")
    if open_browser:
        threading.Timer(0.2, click.launch, (link,)).start()
    try:
        httpd.serve_forever()
    except KeyboardInterrupt:
        click.echo()
