"""``orm-core db``: the embedded PostgreSQL of a laptop, and psql on whichever database is used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from orm_core.embedded import EmbeddedPostgres
    from orm_core.settings import Settings

Command = TypeVar("Command", bound=Callable[..., object])


@click.group(short_help="Run the embedded PostgreSQL; psql; roles.")
def db() -> None:
    """Run the embedded PostgreSQL, the one used when DATABASE_URL is not set; psql and roles.

    Its data is in one folder (.orm_core, or ORM_CORE_EMBEDDED_DIR). All programs of yours that
    use the folder share one server.
    """


def _folder_option(command: Command) -> Command:
    return click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="The folder of the data.  [default: ORM_CORE_EMBEDDED_DIR, else .orm_core]",
    )(command)


@db.command()
@_folder_option
def start(folder: Path | None) -> None:
    """Start the server and print its URL.

    The server runs on in the background until "orm-core db stop".
    """
    with _errors():
        postgres = _postgres(folder).start(keep=True)
        click.echo(postgres.url)
        postgres.close()


@db.command()
@_folder_option
def stop(folder: Path | None) -> None:
    """Stop the server, for all programs that use it."""
    with _errors():
        stopped = _postgres(folder).stop()
    click.echo("The server is stopped." if stopped else "No server was running.")


@db.command()
@_folder_option
@click.confirmation_option("--yes", prompt="This deletes all data of the embedded server. Go on?")
def remove(folder: Path | None) -> None:
    """Stop the server and delete its data, wherever it lies."""
    with _errors():
        _postgres(folder).remove()
    click.echo("The server and its data are gone.")


@db.command(short_help="Print the URL; starts the server when needed.")
@_folder_option
def url(folder: Path | None) -> None:
    """Print the server's URL and nothing else; starts the server when needed.

    The server runs on until "orm-core db stop", so that the URL can be used:

        export DATABASE_URL="$(orm-core db url)"
    """
    with _errors():
        postgres = _postgres(folder).start(keep=True)
        click.echo(postgres.url)
        postgres.close()


@db.command()
@_folder_option
def status(folder: Path | None) -> None:
    """Say whether the server runs, and where its data and its log are. Starts nothing."""
    with _errors():
        found = _postgres(folder).status()
    if not found.running:
        state = "not running"
    elif found.kept:
        state = 'running until "orm-core db stop"'
    else:
        state = "running while a program uses it"
    rows = {
        "server": state,
        "pid": found.pid,
        "url": found.url if found.running else None,
        "version": found.version,
        "data": found.data,
        "log": found.log if found.log.exists() else None,
    }
    for name, value in rows.items():
        if value is not None:
            click.echo(f"{name:<8} {value}")


@db.command(
    short_help="Open psql on the database in use.",
    context_settings={"ignore_unknown_options": True},
)
@_folder_option
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def psql(folder: Path | None, arguments: tuple[str, ...]) -> None:
    """Open psql on DATABASE_URL, or on the embedded server when that is not set.

    ARGS go to psql, and the exit code is psql's. Long results are not sent to a pager; for one
    add: -P pager=on

        orm-core db psql -c "SELECT version()"
    """
    from orm_core import settings

    with _errors():
        given = settings.load()
        postgres = _postgres(folder)
        if given.url and not folder:
            # The system's psql first: a wheel's may lack TLS.
            program = shutil.which("psql") or str(postgres.bin_dir / "psql")
            target, password = _target(given, given.url)
        else:
            program = str(postgres.bin_dir / "psql")
            target, password = postgres.start().url, None
            postgres.hold_across_exec()
    _execute(program, target, password, arguments)


@db.command(short_help="Print the SQL of roles with the least rights.")
@click.option("--runtime", required=True, metavar="ROLE", help="The role that the service uses.")
@click.option("--migrator", required=True, metavar="ROLE", help="The role that migrates.")
@click.option(
    "--reader", "readers", multiple=True, metavar="ROLE", help="A role that reads; more than once."
)
def roles(runtime: str, migrator: str, readers: tuple[str, ...]) -> None:
    """Print the SQL that makes roles and gives them the rights they need, and no others.

    The runtime role reads and writes rows and can't change tables. The migrator owns the tables. A
    reader sees no column of a secret. Needs no database; run what it prints as a superuser, again
    after each change of the models:

        orm-core db roles --runtime app --migrator deploy | orm-core db psql -v ON_ERROR_STOP=1
    """
    from orm_core import registry
    from orm_core.migrations.roles import roles_sql

    with _errors():
        registry.discover()
        script = roles_sql(registry.models, runtime=runtime, migrator=migrator, readers=readers)
    click.echo(script)


def _execute(program: str, target: str, password: str | None, arguments: tuple[str, ...]) -> None:
    environment = dict(os.environ)
    if password is not None:
        environment["PGPASSWORD"] = password  # others can read a command line
    command = ["psql", "--pset=pager=off", f"--dbname={target}", *arguments]
    try:
        os.execve(program, command, environment)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        raise click.ClickException(
            f"psql could not be run from {program}: {error.strerror}. Install PostgreSQL's client "
            "programs, or point ORM_CORE_PG_BINDIR at a folder that holds psql."
        ) from error


def _target(given: Settings, address: str) -> tuple[str, str | None]:
    """What psql is told, with the same TLS as our own connections, and the password apart."""
    from orm_core.database.url import parse

    params = parse(address).connect_params(
        ssl=given.ssl_mode,
        ssl_root_cert=given.ssl_root_cert,
        connect_timeout=given.connect_timeout,
    )
    password = params.pop("password", None)
    quoted = {
        name: str(value).replace("\\", "\\\\").replace("'", "\\'") for name, value in params.items()
    }
    target = " ".join(f"{name}='{value}'" for name, value in quoted.items())
    return target, None if password is None else str(password)


def _postgres(folder: Path | None) -> EmbeddedPostgres:
    from orm_core import settings
    from orm_core.embedded import EmbeddedPostgres

    return EmbeddedPostgres(folder or settings.load().embedded_dir)


@contextmanager
def _errors() -> Generator[None]:
    from orm_core.errors import OrmCoreError

    try:
        yield
    except OrmCoreError as error:
        raise click.ClickException(str(error)) from error
