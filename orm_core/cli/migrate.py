"""``orm-core migrate``: write, apply, check and undo migrations."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orm_core.cli import progress, session

if TYPE_CHECKING:
    from orm_core.migrations.effects import FileReport
    from orm_core.migrations.migrations import Migrations
    from orm_core.migrations.rehearsal import Rehearsal

_folder = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the migration files. Default: ORM_CORE_MIGRATIONS_DIR, else migrations.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    wrapped: Callable[..., Any] = session.url_option(_folder(command))
    return wrapped


@contextmanager
def _migrations(
    url: str | None, folder: Path | None, *, as_json: bool = False
) -> Generator[Migrations]:
    from orm_core import registry
    from orm_core.migrations.migrations import Migrations

    folder = folder or session.load_settings().migrations_dir
    session.discover()
    with session.database(url) as database, progress.shown(quiet=as_json):
        yield Migrations(database, registry, folder)


@click.group(short_help="Write, apply and check migrations.")
def migrate() -> None:
    """Write migrations from the models, and bring a database to their schema, or back.

    Files are plain peewee-migrate: a deploy script may apply them with registry.router(db).run().
    """


@migrate.command(short_help="Write the migration to the models.")
@click.argument("name", required=False)
@click.option("--rename", "renames", multiple=True, metavar="OLD:NEW", help="users.mail:email")
@click.option("--drop", "drops", multiple=True, metavar="NAME", help="users.mail went for good.")
@click.option("--allow-drop", is_flag=True, help="All that is missing in the models went for good.")
@click.option("--fill", "fills", multiple=True, metavar="COLUMN=SQL", help="users.nick=''")
@click.option("--safe", is_flag=True, help="Write stages that hold nobody up.")
@click.option("--dry-run", is_flag=True, help="Print the files instead of writing them.")
@_common
def generate(
    name: str | None,
    renames: tuple[str, ...],
    drops: tuple[str, ...],
    allow_drop: bool,
    fills: tuple[str, ...],
    safe: bool,
    dry_run: bool,
    url: str | None,
    folder: Path | None,
) -> None:
    """Write the migration from the files' schema to the models', proved on scratch databases.

    The live database is not read. Something that went while something alike came is a question:
    answer it with --rename or --drop. --fill gives the value of a new NOT NULL column for the
    rows that are there. --safe builds indexes CONCURRENTLY and validates constraints in a second
    file, so that reads and writes go on meanwhile.
    """
    answers: dict[str, Any] = {"renames": renames, "drops": allow_drop or drops}
    answers |= {"fills": dict(_fill(one) for one in fills), "safe": safe}
    with _migrations(url, folder) as migrations:
        if dry_run:
            proposal = migrations.propose(name, **answers)
            for file in proposal.files if proposal else ():
                click.echo(f"# {file.name}.py\n{file.text()}")
            paths: list[Path] = []
        else:
            paths = migrations.generate(name, **answers)
            proposal = None
    for path in paths:
        click.echo(f"wrote  {path}")
    if not paths and not proposal:
        click.echo("No changes: the files give the models' schema.")


def _fill(text: str) -> tuple[str, str]:
    column, equals, sql = text.partition("=")
    if not equals or "." not in column or not sql.strip():
        raise click.BadParameter(f"{text!r} is not of the form table.column=SQL")
    return column.strip(), sql.strip()


@migrate.command(short_help="Apply the pending migrations.")
@_common
@click.option("--to", metavar="NAME", help="Stop after this file: 001_users, or 1.")
@click.option("--plan", is_flag=True, help="Tell what would be done, and do nothing.")
@click.option("--allow", is_flag=True, help="Also what is dangerous for tables with rows.")
@click.option("--rehearse", metavar="URL", help="Time it on a copy of the data; apply nothing.")
@_json
def apply(
    url: str | None,
    folder: Path | None,
    to: str | None,
    plan: bool,
    allow: bool,
    rehearse: str | None,
    as_json: bool,
) -> None:
    """Apply the pending migrations, each in a transaction of its own.

    One deployer at a time: another one waits, and then finds nothing to do. A migration that
    meets a busy table is tried again. --plan runs each statement on a scratch copy of the schema
    and tells which locks it takes on tables that are there, which it writes anew, and what is
    dangerous about it, with the safer way. What is dangerous for a table that holds rows is
    applied with --allow only. --rehearse applies the pending migrations to a copy of the database
    with real data, tells how long each statement takes, and rolls them back where it can.
    """
    with _migrations(url, folder, as_json=as_json) as migrations:
        reports = migrations.plan() if plan else None
        found = migrations.rehearse(rehearse) if rehearse is not None and not plan else None
        names = migrations.apply(to, allow=allow) if reports is None and found is None else []
    if reports is not None:
        _print_plan(reports, as_json)
        return
    if found is not None:
        _print_rehearsal(found, as_json)
        return
    if as_json:
        click.echo(json.dumps({"applied": names}))
        return
    for name in names:
        click.echo(f"applied  {name}")
    click.echo(f"{len(names)} migration(s) applied." if names else "Nothing to apply.")


def _print_plan(reports: list[FileReport], as_json: bool) -> None:
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


def _print_rehearsal(found: Rehearsal, as_json: bool) -> None:
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


@migrate.command()
@_common
@_json
def status(url: str | None, folder: Path | None, as_json: bool) -> None:
    """List the migrations, applied and pending."""
    with _migrations(url, folder, as_json=as_json) as migrations:
        found = migrations.status()
    if as_json:
        click.echo(json.dumps({"applied": found.applied, "pending": found.pending}))
        return
    for name in found.applied:
        click.echo(f"applied  {name}")
    for name in found.pending:
        click.secho(f"pending  {name}", fg="yellow")
    click.echo(f"{len(found.applied)} applied, {len(found.pending)} pending.")


@migrate.command()
@_common
@click.option("--count", default=1, show_default=True, help="How many migrations to undo.")
@click.confirmation_option("--yes", prompt="Rolling back can drop tables with their rows. Go on?")
def rollback(count: int, url: str | None, folder: Path | None) -> None:
    """Undo the latest migrations."""
    with _migrations(url, folder) as migrations:
        names = migrations.rollback(count)
    for name in names:
        click.echo(f"rolled back  {name}")


@migrate.command(short_help="Note pending migrations as applied.")
@_common
@click.option("--to", metavar="NAME", help="Stop after this file.")
def fake(url: str | None, folder: Path | None, to: str | None) -> None:
    """Note the pending migrations as applied, without running them."""
    with _migrations(url, folder) as migrations:
        names = migrations.fake(to)
    for name in names:
        click.echo(f"noted  {name}")


@migrate.command(short_help="Fail when models, files, history disagree.")
@_common
@_json
def check(url: str | None, folder: Path | None, as_json: bool) -> None:
    """Exit with 1 when models, files and history do not fit together; for CI.

    Looks for models that the files do not give, two files with one number, files edited after
    they were written, applied files that are missing and pending ones that sort before them.
    """
    from orm_core.errors import MigrationError

    with _migrations(url, folder, as_json=as_json) as migrations:
        try:
            migrations.check()
        except MigrationError as error:
            if not as_json:
                raise
            click.echo(json.dumps({"ok": False, "problem": str(error)}))
            raise SystemExit(1) from None
    click.echo(json.dumps({"ok": True}) if as_json else "Models, files and history agree.")


@migrate.command(short_help="Compare the live database with its files.")
@_common
@_json
def drift(url: str | None, folder: Path | None, as_json: bool) -> None:
    """Compare the live database with its applied files; exit with 1 when they differ.

    Says what differs, and the SQL that would mend the database.
    """
    with _migrations(url, folder, as_json=as_json) as migrations:
        found = migrations.drift()
    if as_json:
        click.echo(json.dumps({"differences": found.differences, "sql": found.sql}))
    elif found:
        click.echo("What would make the database agree with its files:")
        for words in found.differences:
            click.echo(f"  {words}")
        click.echo("SQL that would mend it:")
        for statement in found.sql:
            click.echo(f"{statement};")
    else:
        click.echo("The database is what its files make.")
    if found:
        raise SystemExit(1)


@migrate.command(short_help="Print the SQL of files, without a database.")
@click.argument("names", nargs=-1)
@click.option("--down", is_flag=True, help="The way back.")
@_folder
def sql(names: tuple[str, ...], down: bool, folder: Path | None) -> None:
    """Print what files would run, all of them by default; needs no database."""
    from orm_core import registry
    from orm_core.migrations.migrations import Migrations

    folder = folder or session.load_settings().migrations_dir
    click.echo(Migrations(None, registry, folder).sql(names or None, down=down), nl=False)


@migrate.command(short_help="Write a file to be filled by hand.")
@click.argument("name")
@_folder
def new(name: str, folder: Path | None) -> None:
    """Write a file to be filled by hand: a data migration, a trigger, a view."""
    from orm_core.migrations import files, sums

    folder = folder or session.load_settings().migrations_dir
    folder.mkdir(parents=True, exist_ok=True)
    path = files.write_template(folder, name)
    sums.write(folder)
    click.echo(f"wrote  {path}\nAfter you filled it: orm-core migrate sum")


@migrate.command(short_help="Write a change of many rows.")
@click.argument("table")
@click.option("--set", "set_sql", metavar="SQL", required=True, help="nick = first_name")
@click.option("--where", "where_sql", metavar="SQL", required=True, help="nick IS NULL")
@click.option("--key", default="id", show_default=True, help="A column with a unique index.")
@click.option("--batch", default=1000, show_default=True, help="Rows of one transaction.")
@_folder
def backfill(
    table: str, set_sql: str, where_sql: str, key: str, batch: int, folder: Path | None
) -> None:
    """Write a migration that changes many rows, a batch at a time.

    Each batch is a short transaction of its own. The condition of --where must no longer match a
    row that is done: an interrupted run goes on with the rows that still match.
    """
    from orm_core import registry
    from orm_core.migrations.migrations import Migrations

    migrations = Migrations(None, registry, folder or session.load_settings().migrations_dir)
    set_sql, where_sql = (sql.replace("%", "%%") for sql in (set_sql, where_sql))
    path = migrations.write_backfill(table, set_sql, where_sql, key=key, batch=batch)
    click.echo(f"wrote  {path}")


@migrate.command(short_help="Write models from a database that is there.")
@session.url_option
def pull(url: str | None) -> None:
    """Print models that make the schema of a database that is there already.

    To adopt orm_core on it: put them into a domain, generate the first migration, and note it as
    applied (migrate fake) where the tables are.
    """
    from orm_core import registry
    from orm_core.migrations.migrations import Migrations

    with session.database(url) as database:
        click.echo(Migrations(database, registry).pull(), nl=False)


@migrate.command()
@_common
@click.confirmation_option("--yes", prompt="This puts one file in place of all. Go on?")
def squash(url: str | None, folder: Path | None) -> None:
    """Put one file in place of all.

    Databases that have the old files note the new one in their place when they are migrated next.
    """
    with _migrations(url, folder) as migrations:
        path = migrations.squash()
    click.echo(f"wrote  {path}")


@migrate.command(name="sum", short_help="Write migrations.sum anew.")
@_folder
def sum_(folder: Path | None) -> None:
    """Write migrations.sum anew, after files were written or edited by hand."""
    from orm_core.migrations import sums

    click.echo(f"wrote  {sums.write(folder or session.load_settings().migrations_dir)}")
