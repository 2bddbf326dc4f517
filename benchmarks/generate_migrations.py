"""How long it takes to write a migration when the folder holds hundreds of them.

    python benchmarks/generate_migrations.py [files]

``Migrations.propose`` on this repository's domains, scratch databases and proof included, on an
embedded PostgreSQL that is up. Beside it Alembic's autogenerate on the same tables, which compares
with a database that must be at the latest revision already; so it is timed twice, on such a
database and with the revisions applied to an empty one first, which is what a comparison that
never looks at the live database has to do. ``pip install alembic`` for that part.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from orm_core import BaseModel, Database, ForeignKeyField, TextField, registry
from orm_core.database.url import parse
from orm_core.embedded import EmbeddedPostgres
from orm_core.migrations.migrations import Migrations
from orm_core.migrations.scratch import ScratchServer

ROOT = Path(__file__).parents[1]
REPEATS = 5

#: what each small file does; the schema is the same after it
STEPS = (
    "ALTER TABLE public.orders ADD COLUMN step_{0} integer",
    "CREATE INDEX step_{0} ON public.orders USING btree (step_{0})",
    "ALTER TABLE public.orders DROP COLUMN step_{0}",
)
FILE = '''"""Step {0}"""


def migrate(migrator, database, *, fake=False):
    migrator.sql("SET LOCAL lock_timeout = '5s'")
{1}


def rollback(migrator, database, *, fake=False):
    pass
'''
REVISION = '''"""Step {0}"""

from alembic import op

revision = "{0:03}"
down_revision = {2}


def upgrade():
{1}


def downgrade():
    pass
'''
ENVIRONMENT = """
from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=context.config.attributes["metadata"])
with context.begin_transaction():
    context.run_migrations()
"""
TEMPLATE = """
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
"""


def main(count: int = 300) -> None:
    registry.discover()
    with workshop() as (folder, database):
        write_files(folder / "migrations", count)
        migrations = Migrations(database, registry, folder / "migrations")
        assert migrations.propose() is None, "the small files leave the schema as it was"
        print(f"{count} files in the folder, {len(registry.models)} tables; seconds, median")
        show("orm_core, no changes", median(migrations.propose))
        later = Migrations(database, with_notes(), folder / "migrations")
        ours = median(later.propose)
        show("orm_core, a new table, proved", ours)
        if importlib.util.find_spec("alembic") is None:
            print("Alembic is not installed; pip install alembic")
            return
        for name, seconds in alembic(database, folder, count):
            show(name, seconds)
            print(f"    orm_core takes {ours / seconds:.1f} times as long")


def show(name: str, seconds: float) -> None:
    print(f"{name:<52} {seconds:6.2f}")


def median(action: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@contextmanager
def workshop() -> Iterator[tuple[Path, Database]]:
    """A folder, and a database on an embedded server that is up."""
    with tempfile.TemporaryDirectory(prefix="orm_core-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root, the server's own user must get through
        server = EmbeddedPostgres(folder / "server")
        try:
            params = parse(server.start().url).connect_params()
            database = Database(str(params.pop("dbname")), **params)
            yield folder, database
            database.close_all()
        finally:
            server.remove()


def write_files(folder: Path, count: int) -> None:
    """The repository's own file and small ones after it."""
    folder.mkdir()
    own = sorted((ROOT / "migrations").glob("[0-9]*.py"))
    for path in own:
        shutil.copy(path, folder)
    for number in range(len(own) + 1, count + 1):
        lines = "\n".join(f'    migrator.sql("{step.format(number)}")' for step in STEPS)
        (folder / f"{number:03}_step.py").write_text(FILE.format(number, lines))


def with_notes() -> Any:
    """The registered domains, and one that has no migration yet."""
    from domains.orders import Order

    class Note(BaseModel):
        order = ForeignKeyField(Order, on_delete="CASCADE")
        text = TextField(default="")

    notes = SimpleNamespace(name="notes", models=(Note,))

    class Grown:
        models = (*registry.models, Note)

        def __iter__(self) -> Iterator[Any]:
            return iter([*registry, notes])

    return Grown()


def alembic(database: Database, folder: Path, count: int) -> Iterator[tuple[str, float]]:
    """Names and seconds of Alembic's way to the same migration."""
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    versions = folder / "alembic" / "versions"
    versions.mkdir(parents=True)
    (versions.parent / "env.py").write_text(ENVIRONMENT)
    (versions.parent / "script.py.mako").write_text(TEMPLATE)
    for number in range(1, count + 1):
        steps = STEPS if number > 1 else ()
        lines = (
            "\n".join(f'    op.execute("{step.format(number)}")' for step in steps) or "    pass"
        )
        before = f'"{number - 1:03}"' if number > 1 else None
        (versions / f"{number:03}_step.py").write_text(REVISION.format(number, lines, before))

    def engine(target: Database) -> Any:
        params = {**target.connect_params, "dbname": target.database}
        return sqlalchemy.create_engine(
            "postgresql+psycopg2://", connect_args=params, poolclass=sqlalchemy.NullPool
        )

    def autogenerate(link: Any, metadata: Any, upgrade: bool) -> None:
        config = Config(stdout=io.StringIO())
        config.set_main_option("script_location", str(versions.parent))
        config.set_main_option("path_separator", "os")
        config.attributes.update(connection=link, metadata=metadata)
        with contextlib.redirect_stdout(io.StringIO()):
            if upgrade:
                command.upgrade(config, "head")
            command.revision(config, "notes", autogenerate=True, rev_id="notes")
        next(versions.glob("notes_*.py")).unlink()

    first = sorted((ROOT / "migrations").glob("[0-9]*.py"))
    with ScratchServer(database) as server, server.database() as base:
        (folder / "first").mkdir()
        for path in first:
            shutil.copy(path, folder / "first")
        Migrations(base, registry, folder / "first").apply()
        metadata = sqlalchemy.MetaData()
        metadata.reflect(engine(base))
        metadata.remove(metadata.tables["migratehistory"])
        sqlalchemy.Table(
            "notes",
            metadata,
            sqlalchemy.Column("id", sqlalchemy.Uuid, primary_key=True),
            sqlalchemy.Column("order_id", sqlalchemy.ForeignKey("orders.id", ondelete="CASCADE")),
            sqlalchemy.Column("text", sqlalchemy.Text, nullable=False, server_default=""),
        )
        base.close_all()

        def on_empty() -> None:
            copy = server.database(template=str(base.database))
            with copy as scratch, engine(scratch).begin() as link:
                autogenerate(link, metadata, upgrade=True)

        def on_migrated() -> None:
            with engine(base).begin() as link:
                autogenerate(link, metadata, upgrade=False)

        with engine(base).begin() as link:
            autogenerate(link, metadata, upgrade=True)
        yield "Alembic, a database at the latest revision", median(on_migrated)
        with engine(base).begin() as link:
            link.execute(sqlalchemy.text("DROP TABLE alembic_version"))
        yield "Alembic, its revisions applied to an empty one first", median(on_empty)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
