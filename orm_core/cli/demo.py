"""``orm-core demo``: a user, an encrypted session and an order, in a real PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from orm_core import (
    KeyRing,
    OrmCoreError,
    Secret,
    close_db,
    db,
    initialize_db,
    registry,
    transaction,
    use_key_ring,
    utcnow,
)
from orm_core.cli import session
from orm_core.errors import ConfigurationError
from orm_core.migrations import runner

if TYPE_CHECKING:
    from rich.console import Console

DATABASE = "orm_core_demo"


def _console() -> Console:
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        raise ConfigurationError(
            'The demo prints with rich: pip install "orm_core[demo]".'
        ) from None
    return Console(highlight=False)


class _Narrator:
    """Prints what happens; also the logger that the services get."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def step(self, title: str) -> None:
        self._console.print(f"\n[bold cyan]{title}[/]")

    def fact(self, text: str) -> None:
        self._console.print(f"  {text}")

    def audit(self, message: str, meta: Any, /) -> None:
        self._console.print(f"  [green]audit[/]  {message}  [dim]{meta['action']}[/]")

    def error(self, message: str, meta: Any, /) -> None:
        self._console.print(f"  [red]error[/]  {message}: {type(meta['error']).__name__}")


@click.command()
@click.option("--url", metavar="URL", help="A database to use instead of the embedded one.")
def demo(url: str | None) -> None:
    """Watch a user, an encrypted session and an order being created.

    Runs on the embedded PostgreSQL, in a database of its own (orm_core_demo), whatever
    DATABASE_URL says. Removes its rows at the end.
    """
    narrator = _Narrator(console := _console())
    if url:
        initialize_db(url)
        _tell(narrator, console)
        return
    from orm_core.embedded import EmbeddedPostgres

    folder = session.load_settings().embedded_dir
    narrator.step("Starting the embedded PostgreSQL")
    with EmbeddedPostgres(folder, database=DATABASE) as server:
        initialize_db(server.start().url)
        version = db.execute_sql("SHOW server_version").fetchone()[0]
        narrator.fact(f"PostgreSQL {version}, data in {folder}/")
        try:
            _tell(narrator, console)
        finally:
            close_db()


def _tell(narrator: _Narrator, console: Console) -> None:
    from domains.orders import Order, OrdersService
    from domains.users import (
        NewUser,
        Session,
        SessionProvider,
        SessionService,
        User,
        UsersService,
    )

    registry.discover()
    use_key_ring(KeyRing.parse(KeyRing.generate("demo")))

    narrator.step("Migrations")
    names = runner.apply(db, session.load_settings().migrations_dir)
    narrator.fact(", ".join(names) if names else "all applied already")

    email = f"ada-{utcnow():%H%M%S%f}@example.com"
    ada: NewUser = {
        "email": email,
        "first_name": "Ada",
        "provider_account_id": f"google-{email}",
    }

    narrator.step("User, session and order in one transaction")
    with transaction() as tx:
        user = UsersService.create(ada, narrator, tx=tx)
        signed_in = SessionService.create(
            {
                "user_id": user.id,
                "provider": SessionProvider.GOOGLE,
                "provider_account_id": user.provider_account_id,
                "provider_access_token": Secret("ya29.a-token-of-the-provider"),
                "expires_at": utcnow() + timedelta(hours=1),
            },
            narrator,
            tx=tx,
        )
        order = OrdersService.create({"user_id": user.id, "total": 4200}, narrator, tx=tx)
        narrator.fact("[dim]all three are written; the audit lines follow the commit[/]")
    stored = Session.select(Session.provider_access_token).where(Session.id == signed_in.id)
    narrator.fact(f"order {order.id}: {order.status}, {order.total}")
    narrator.fact(f"token in the database: {stored.scalar()[:32]}…")
    narrator.fact(f"token in Python: {signed_in.provider_access_token!r}")
    narrator.fact(f"token revealed: {signed_in.provider_access_token.reveal()}")

    narrator.step("A transaction that fails is rolled back whole")
    before = User.select().count()
    try:
        with transaction() as tx:
            UsersService.create(
                {**ada, "email": "bob@example.com", "provider_account_id": "bob"}, narrator, tx=tx
            )
            UsersService.create(ada, narrator, tx=tx)
    except OrmCoreError as error:
        narrator.fact(f"[yellow]{error}[/]")
    narrator.fact(f"users before: {before}, after: {User.select().count()}")

    narrator.step("Find, soft-delete, restore")
    found = UsersService.find_by_email(email, narrator)
    narrator.fact(f"find_by_email: {found.first_name if found else None}")
    UsersService.soft_delete(user.id, narrator)
    hidden = UsersService.find_by_email(email)
    kept = UsersService.find_by_email(email, include_deleted=True)
    narrator.fact(f"deleted: found {hidden}; with include_deleted: {kept and kept.first_name}")
    gone = Session.only_deleted().where(Session.user == user)
    narrator.fact(f"sessions that went with her: {gone.count()}")
    UsersService.restore(user.id, narrator)
    narrator.fact(f"restored, with {SessionService.count({'user_id': user.id})} session")

    for model in (Order, Session):
        model.hard_delete().where(model.user == user).execute()
    UsersService.hard_delete(user.id, narrator)
    _print_metrics(console)


def _print_metrics(console: Console) -> None:
    from rich.table import Table

    from orm_core.metrics import totals

    table = Table(title="\ndb_queries_total and db_query_duration_seconds", title_justify="left")
    for column in ("operation", "table"):
        table.add_column(column)
    for column in ("queries", "errors", "total ms"):
        table.add_column(column, justify="right")
    sent = [one for one in totals() if one.queries]
    for one in sorted(sent, key=lambda one: (one.table, -one.queries)):
        milliseconds = f"{one.seconds * 1000:.1f}"
        table.add_row(one.operation, one.table, str(one.queries), str(one.errors), milliseconds)
    console.print(table)
