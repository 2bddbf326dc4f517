"""What tests of migrations share: a registry of any models, a stock Router, a look at the schema."""

from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import peewee
import peewee_migrate
import psycopg2
import pytest
from psycopg2.sql import SQL, Identifier
from service_helpers import connect_params

from orm_core import Database, settings
from orm_core.migrations.migrations import Migrations
from orm_core.migrations.scratch import ScratchServer


@dataclass(frozen=True)
class Models:
    """As much of a registry as migrations need: one domain of any models."""

    models: tuple

    def __iter__(self):
        return iter([SimpleNamespace(name="library", models=self.models)])


@pytest.fixture(scope="module")
def given(orm_core_server):
    """The server, as the database that ``Migrations`` is given."""
    params = connect_params(orm_core_server.url("postgres"))
    database = Database(params.pop("dbname"), driver=settings.load().driver, **params)
    yield database
    database.close_all()


@pytest.fixture(scope="module")
def server(given):
    with ScratchServer(given) as server:
        yield server


@contextmanager
def stock_database(database):
    """Peewee's own database in the place of ours."""
    theirs = peewee.PostgresqlDatabase(database.database, **database.connect_params)
    try:
        yield theirs
    finally:
        theirs.close()


def migrations(given, folder, models):
    return Migrations(given, Models(tuple(models)), folder)


def router(database, folder):
    return peewee_migrate.Router(database, migrate_dir=folder)


def execute(database, statements):
    if statements:
        database.cursor().execute(statements)


@contextmanager
def session(url):
    """A cursor of a connection of its own, in autocommit."""
    with closing(psycopg2.connect(**connect_params(url))) as link, link.cursor() as cursor:
        link.autocommit = True
        yield cursor


def run_sql(url, *statements):
    """Run statements in a session of their own; the rows of the last, if it has some."""
    with session(url) as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


# -- files by hand ------------------------------------------------------------------------------


def write(folder, name, *lines, back=("pass",)):
    """A migration file of these lines of Python."""
    text = ""
    for function, body in (("migrate", lines or ("pass",)), ("rollback", back)):
        text += f"def {function}(migrator, database, *, fake=False):\n"
        text += "".join(f"    {line}\n" for line in body)
    (folder / f"{name}.py").write_text(text)


def write_sql(folder, name, *statements, back=()):
    """A migration file of these statements."""
    up, down = ([f"migrator.sql({one!r})" for one in found] for found in (statements, back))
    write(folder, name, *up, back=down or ("pass",))


# -- a second opinion on the schema, which shares nothing with the one under test ---------------

OURS = "n.nspname NOT LIKE 'pg%' AND n.nspname <> 'information_schema'"
SCHEMA = (
    f"SELECT n.nspname FROM pg_namespace n WHERE {OURS}",
    f"""SELECT n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.reloptions::text,
               obj_description(c.oid, 'pg_class')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {OURS} AND c.relkind IN ('r', 'i', 'S', 'v', 'm')
          AND c.relname NOT LIKE 'migratehistory%%'""",
    f"""SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
               a.attcollation::regcollation::text, col_description(c.oid, a.attnum)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE {OURS} AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
          AND c.relname <> 'migratehistory'""",
    f"SELECT * FROM pg_indexes n(nspname) WHERE {OURS} AND tablename <> 'migratehistory'",
    f"""SELECT n.nspname, o.conrelid::regclass::text, o.conname, pg_get_constraintdef(o.oid),
               o.condeferrable, o.condeferred, o.convalidated
        FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace
        WHERE {OURS} AND o.contype <> 'n' AND o.conrelid::regclass::text <> 'migratehistory'""",
    """SELECT n.nspname, t.typname, array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
        FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid
        JOIN pg_namespace n ON n.oid = t.typnamespace GROUP BY 1, 2""",
    """SELECT polrelid::regclass::text, relrowsecurity, relforcerowsecurity, polname, polcmd,
               polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid),
               polroles
        FROM pg_class AS c LEFT JOIN pg_policy AS p ON p.polrelid = c.oid
        WHERE relrowsecurity OR relforcerowsecurity OR polname IS NOT NULL""",
    """SELECT schemaname, sequencename, data_type::text, start_value, min_value, max_value,
               increment_by, cycle,
               pg_get_serial_sequence(c.table, c.column)
        FROM pg_sequences n
        LEFT JOIN LATERAL (
            SELECT d.refobjid::regclass::text AS table, a.attname AS column
            FROM pg_depend d
            JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.objid = format('%I.%I', schemaname, sequencename)::regclass
              AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        ) c ON true
        WHERE sequencename <> 'migratehistory_id_seq'""",
)


def schema(database):
    """All of a database's schema, without the order of columns, which can't be changed."""
    return [sorted(map(repr, rows(database, query))) for query in SCHEMA]


def rows(database, query):
    cursor = database.cursor()
    cursor.execute(query)
    return cursor.fetchall()


def counts(database, tables):
    """How many rows there are in each table."""
    queries = [
        SQL("SELECT count(*) FROM {}").format(Identifier(*name)).as_string(database.connection())
        for name in tables
    ]
    return [rows(database, query) for query in queries]
