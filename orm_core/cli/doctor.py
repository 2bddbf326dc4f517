"""``orm-core doctor``: is everything in place?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from orm_core import connect_db, registry
from orm_core.cli import session
from orm_core.cli.main import told
from orm_core.crypto.in_use import key_ring
from orm_core.errors import OrmCoreError
from orm_core.migrations import runner
from orm_core.models.policies import policies_of
from orm_core.settings import VARIABLES, environment


def _connection() -> str:
    from orm_core import db

    connect_db()
    version, encrypted = db.execute_sql(
        "SELECT current_setting('server_version'), "
        "coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)"
    ).fetchone()
    return f"PostgreSQL {version}, {'TLS' if encrypted else 'no TLS'}"


def _registry() -> str:
    session.discover()
    registry.check()
    names = ", ".join(domain.name for domain in registry) or "none"
    return f"domains: {names}; {len(registry.tables)} table(s)"


def _migrations() -> str:
    from orm_core import db

    found = runner.status(db, session.load_settings().migrations_dir)
    if found.pending:
        raise OrmCoreError(
            f"{len(found.pending)} migration(s) are pending, the first is {found.pending[0]}. "
            "Apply them: orm-core migrate apply."
        )
    return f"{len(found.applied)} applied, none pending"


def row_security(models: Iterable[Any]) -> str:
    """Whether policies bind the role; empty where there are none."""
    from orm_core import db

    bound = [model for model in models if policies_of(model)]
    if not bound:
        return ""
    role, passes = db.execute_sql(
        "SELECT rolname, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    if passes:
        raise OrmCoreError(
            f"The role {role} passes row security by, so it sees all rows of {len(bound)} table(s) "
            "with policies. Serve with another: orm-core db roles prints its SQL."
        )
    return f"the role {role} is bound by the policies of {len(bound)} table(s)"


def _keys() -> str:
    ring = key_ring()
    return f"{len(ring)} key(s), {ring.sealing_id} seals"


_CHECKS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("connection", _connection),
    ("registry", _registry),
    ("migrations", _migrations),
    ("keys", _keys),
    ("row security", lambda: row_security(registry.models)),
)


@click.command()
@session.url_option
@click.option("--settings", is_flag=True, help="List the environment variables and which are set.")
def doctor(url: str | None, settings: bool) -> None:
    """Check connection, registry, migrations, keys and whether policies bind the role.

    Exit code 1 when one is not well.
    """
    if settings:
        environ = environment()
        for _, variable, purpose in VARIABLES:
            state = "set  " if environ.get(variable) else "unset"
            click.echo(f"{state}  {variable:<28}  {purpose}")
        return
    failed: set[str] = set()
    with session.database(url):
        for name, check in _CHECKS:
            if name in ("migrations", "row security") and "connection" in failed:
                continue  # the same trouble again
            try:
                if said := check():
                    click.echo(f"{click.style('ok  ', fg='green')}  {name:<10}  {said}")
            except OrmCoreError as error:
                failed.add(name)
                click.echo(f"{click.style('FAIL', fg='red')}  {name:<10}  {told(error)}")
    if failed:
        raise SystemExit(1)
