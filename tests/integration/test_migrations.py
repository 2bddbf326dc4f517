"""The migrations of this repository, whoever applies them, and what the runner promises."""

import logging
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager
from pathlib import Path

import peewee
import peewee_migrate
import psycopg2
import pytest
from service_helpers import connect_params, new_user

from orm_core import (
    Database,
    DuplicateKey,
    MigrationError,
    OrmCoreError,
    initialize_db,
    registry,
    settings,
)
from orm_core.database.url import parse
from orm_core.migrations import runner

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "migrations"
FIRST = "001_users_sessions_orders"


# -- databases and what is in them --------------------------------------------------------------


@contextmanager
def plain(url):
    """Peewee's own database, which knows nothing of us."""
    params = connect_params(url)
    database = peewee.PostgresqlDatabase(params.pop("dbname"), **params)
    try:
        yield database
    finally:
        database.close()


CATALOG = {
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
               a.attstorage::text, a.attcollation::regcollation::text
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
          AND NOT a.attisdropped
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid),
               condeferrable, convalidated
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "enums": """
        SELECT t.typname, array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
        FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid GROUP BY 1
    """,
    "relations": """
        SELECT relname, relkind::text, relpersistence::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace
    """,
    "types": """
        SELECT typname, typtype::text FROM pg_type
        WHERE typnamespace = 'public'::regnamespace AND typtype NOT IN ('c', 'b')
    """,
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "triggers": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
    "schemas": "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'",
}


def schema(url):
    """All that a database holds, but for the table in which peewee-migrate keeps its books."""
    found = {}
    with closing(psycopg2.connect(**connect_params(url))) as link, link.cursor() as cursor:
        for kind, query in CATALOG.items():
            cursor.execute(query)
            rows = [row for row in cursor if not str(row[0]).startswith("migratehistory")]
            found[kind] = sorted(rows, key=repr)
    return found


NOTHING = {kind: [] for kind in CATALOG} | {"schemas": [("information_schema",), ("public",)]}


@pytest.fixture
def models_schema(new_url):
    """What the registry's models make of an empty database; ``db`` stays where it is."""
    url = new_url()
    params = connect_params(url)
    database = Database(params.pop("dbname"), driver=settings.load().driver, **params)
    with database.bind_ctx(list(registry.models)):
        database.create_tables(registry.models)
    database.close_all()
    return schema(url)


def test_the_comparison_sees_tables_indexes_constraints_and_enums(models_schema):
    keys = [row for row in models_schema["constraints"] if row[2] in "pf"]
    assert [len(models_schema["enums"]), len(keys), len(models_schema["indexes"])] == [2, 5, 7]
    assert len(models_schema["columns"]) == 9 + 20 + 7
    assert {kind for _, kind, _ in models_schema["relations"]} == {"r", "i"}


def test_the_comparison_sees_nothing_in_an_empty_database(url):
    assert schema(url) == NOTHING


# -- the repository's migrations, by each who may apply them ------------------------------------


def by_stock_router_on_plain_peewee(url):
    with plain(url) as database:
        peewee_migrate.Router(database, migrate_dir="migrations").run()


def by_stock_router_on_our_database(url):
    database = initialize_db(url)
    peewee_migrate.Router(database, migrate_dir="migrations").run()
    database.close_all()


def by_the_stock_command(url):
    target = parse(url)
    user = f"{target.user}:{target.password}" if target.password else target.user
    host = f"{target.host}:{target.port}"
    given = f"postgresql://{user}@{host}/{target.database}"
    if target.is_socket:
        given = f"postgresql://{user}@/{target.database}?host={target.host}&port={target.port}"
    command = Path(sys.executable).with_name("pw_migrate")
    subprocess.run(
        [command, "migrate", "--database", given, "--directory", "migrations"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )


def by_the_registrys_router(url):
    database = initialize_db(url)
    registry.router(database).run()
    database.close_all()


def by_our_runner(url):
    database = initialize_db(url)
    runner.apply(database, MIGRATIONS)
    database.close_all()


@pytest.mark.parametrize(
    "apply",
    [
        by_stock_router_on_plain_peewee,
        by_stock_router_on_our_database,
        by_the_stock_command,
        by_the_registrys_router,
        by_our_runner,
    ],
)
def test_the_migrated_schema_is_the_models_own(apply, url, models_schema, monkeypatch):
    monkeypatch.chdir(ROOT)
    apply(url)
    assert schema(url) == models_schema


def test_the_migrations_do_not_depend_on_the_search_path(url, models_schema):
    with plain(url) as database:
        database.execute_sql("SET search_path = public")
        peewee_migrate.Router(database, migrate_dir=MIGRATIONS).run()
    assert schema(url) == models_schema


def test_rolling_back_leaves_nothing_and_applying_works_again(database, url, models_schema):
    names = runner.apply(database, MIGRATIONS)
    assert runner.rollback(database, MIGRATIONS, len(names)) == names[::-1]
    assert schema(url) == NOTHING
    assert runner.apply(database, MIGRATIONS) == names
    assert schema(url) == models_schema


def test_applying_twice_does_nothing(database, url):
    first = runner.apply(database, MIGRATIONS)
    before = schema(url)
    assert FIRST in first
    assert runner.apply(database, MIGRATIONS) == []
    assert schema(url) == before


def test_a_migrated_database_serves(database):
    runner.apply(database, MIGRATIONS)
    user = new_user()
    with pytest.raises(DuplicateKey):
        new_user(email=user.email)


def test_a_schema_that_is_there_already_is_told_in_words(database):
    database.create_tables(registry.models)
    with pytest.raises(OrmCoreError, match="exists already"):
        runner.apply(database, MIGRATIONS)


def test_create_tables_twice_changes_nothing(database, url):
    database.create_tables(registry.models)
    before = schema(url)
    database.create_tables(registry.models)
    assert schema(url) == before


def test_each_file_sets_a_lock_timeout_first():
    for path in sorted(MIGRATIONS.glob("[0-9]*.py")):
        assert path.read_text().count("SET LOCAL lock_timeout") == 2, path.name


# -- the runner, on files of the test's own -----------------------------------------------------

TABLE = """
    def migrate(migrator, database, *, fake=False):
        migrator.sql("CREATE TABLE {0} (id int)")

    def rollback(migrator, database, *, fake=False):
        migrator.sql("DROP TABLE {0}")
"""


@pytest.fixture
def folder(tmp_path):
    """Three files: tables one, two and three."""
    for number, name in enumerate(("one", "two", "three"), start=1):
        write(tmp_path, f"00{number}_{name}", TABLE.format(name))
    return tmp_path


def write(folder, name, text):
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


def tables(database):
    return sorted(set(database.get_tables()) - {"migratehistory"})


def test_files_are_applied_in_the_order_of_their_numbers(database, folder):
    assert runner.apply(database, folder) == ["001_one", "002_two", "003_three"]
    assert tables(database) == ["one", "three", "two"]


def test_apply_stops_after_the_file_that_is_named(database, folder):
    assert runner.apply(database, folder, "002_two") == ["001_one", "002_two"]
    assert tables(database) == ["one", "two"]
    assert runner.apply(database, folder) == ["003_three"]


@pytest.mark.parametrize("name", ["004_four", "4", "0", "", "\u00b2", "002_two.py", "../001_one"])
def test_a_file_that_is_not_pending_is_refused_and_nothing_is_applied(database, folder, name):
    with pytest.raises(MigrationError, match="is not among the pending migrations"):
        runner.apply(database, folder, name)
    assert tables(database) == []


@pytest.mark.parametrize("number", ["2", "02", "002"])
def test_a_file_may_be_named_by_its_number(database, folder, number):
    assert runner.apply(database, folder, number) == ["001_one", "002_two"]


def test_a_file_that_is_applied_already_is_not_pending(database, folder):
    runner.apply(database, folder, "001_one")
    with pytest.raises(MigrationError, match="001_one is not among the pending"):
        runner.apply(database, folder, "001_one")


def test_status_tells_applied_and_pending_files(database, folder):
    assert runner.status(database, folder) == runner.Status((), ("001_one", "002_two", "003_three"))
    runner.apply(database, folder, "002_two")
    assert runner.status(database, folder) == runner.Status(("001_one", "002_two"), ("003_three",))


def test_status_changes_nothing(database, url, folder):
    runner.status(database, folder)
    assert database.get_tables() == []
    assert schema(url) == NOTHING


def test_files_noted_as_applied_are_not_run(database, folder):
    assert runner.fake(database, folder, "002_two") == ["001_one", "002_two"]
    assert tables(database) == []
    assert runner.apply(database, folder) == ["003_three"]
    assert tables(database) == ["three"]


def test_two_deployers_at_once_apply_each_file_once(url, tmp_path):
    folder = tmp_path / "migrations"
    folder.mkdir()
    write(folder, "001_rows", TABLE.format("rows"))
    write(
        folder,
        "002_fill",
        """
        def migrate(migrator, database, *, fake=False):
            migrator.sql("SELECT pg_sleep(0.2)")
            migrator.sql("INSERT INTO rows VALUES (1)")
        """,
    )
    code = (
        "import sys; from orm_core import initialize_db, registry; "
        "print(len(registry.router(initialize_db(sys.argv[1]), sys.argv[2]).run()))"
    )
    command = [sys.executable, "-c", code, url, str(folder)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(one.communicate(timeout=60)[0].strip() for one in both) == ["0", "2"]
    with plain(url) as database:
        assert database.execute_sql("SELECT * FROM rows").fetchall() == [(1,)]


def test_a_file_that_meets_a_busy_table_is_tried_again(database, url, folder, monkeypatch):
    monkeypatch.setattr(runner, "PAUSE", 0.001)
    runner.apply(database, folder)
    write(
        folder,
        "004_four",
        """
        def migrate(migrator, database, *, fake=False):
            migrator.sql("SET LOCAL lock_timeout = '20ms'")
            migrator.sql("CREATE TABLE four (id int)")
            migrator.sql("ALTER TABLE one ADD COLUMN name text")
        """,
    )
    with closing(psycopg2.connect(**connect_params(url))) as other:
        other.cursor().execute("SELECT * FROM one")

        class LetsGo(logging.Handler):
            def emit(self, record):
                other.rollback()

        handler = LetsGo(logging.WARNING)
        logging.getLogger("orm_core.migrations").addHandler(handler)
        try:
            assert runner.apply(database, folder) == ["004_four"]
        finally:
            logging.getLogger("orm_core.migrations").removeHandler(handler)
    assert "four" in tables(database)


def test_an_empty_folder_has_nothing_to_apply(database, tmp_path):
    assert runner.apply(database, tmp_path) == []
    assert runner.status(database, tmp_path) == runner.Status((), ())


def test_rollback_undoes_the_latest_first(database, folder):
    runner.apply(database, folder)
    assert runner.rollback(database, folder) == ["003_three"]
    assert runner.rollback(database, folder, 2) == ["002_two", "001_one"]
    assert tables(database) == []


@pytest.mark.parametrize("count", [0, -1, 4])
def test_a_rollback_of_what_is_not_there_is_refused(database, folder, count):
    runner.apply(database, folder)
    with pytest.raises(MigrationError, match=rf"Can't roll back {count}: 3 migration"):
        runner.rollback(database, folder, count)
    assert len(tables(database)) == 3


@pytest.mark.parametrize(
    "call", [runner.router, runner.status, runner.apply, runner.rollback], ids=lambda f: f.__name__
)
def test_a_folder_that_is_missing_is_told_and_not_made(database, tmp_path, call):
    with pytest.raises(MigrationError, match=r"no folder .*ORM_CORE_MIGRATIONS_DIR"):
        call(database, tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


FAILING = {
    "SQL": 'migrator.sql("CREATE TABLE half (id int)"); migrator.sql("nonsense")',
    "Python": 'migrator.sql("CREATE TABLE half (id int)"); 1 / 0',
    "SQL at once": (
        'database.execute_sql("CREATE TABLE half (id int)"); database.execute_sql("nonsense")'
    ),
    "an import": "import no_such_module",
}


@pytest.mark.parametrize("body", FAILING.values(), ids=FAILING)
def test_a_file_that_fails_leaves_those_before_it_and_nothing_of_itself(database, folder, body):
    write(folder, "003_three", f"def migrate(migrator, database, *, fake=False):\n    {body}\n")
    with pytest.raises(MigrationError, match="003_three"):
        runner.apply(database, folder)
    assert tables(database) == ["one", "two"]
    assert runner.status(database, folder).pending == ("003_three",)


def test_after_a_failure_the_mended_file_is_applied(database, folder):
    write(folder, "002_two", "def migrate(m, d, *, fake=False):\n    m.sql('nonsense')\n")
    with pytest.raises(MigrationError, match="syntax error"):
        runner.apply(database, folder)
    write(folder, "002_two", TABLE.format("two"))
    assert runner.apply(database, folder) == ["002_two", "003_three"]


def test_a_rollback_that_fails_leaves_its_file_applied(database, folder):
    write(
        folder,
        "003_three",
        TABLE.format("three").replace('"DROP TABLE three"', '"DROP TABLE three; nonsense"'),
    )
    runner.apply(database, folder)
    with pytest.raises(MigrationError, match="syntax error"):
        runner.rollback(database, folder, 2)
    assert tables(database) == ["one", "three", "two"]
    assert len(runner.status(database, folder).applied) == 3


def test_the_registrys_router_is_peewee_migrates(database, folder):
    router = registry.router(database, folder)
    assert isinstance(router, peewee_migrate.Router)
    assert router.run() == ["001_one", "002_two", "003_three"]


def test_a_percent_sign_is_written_twice(database, tmp_path):
    write(
        tmp_path,
        "001_percent",
        """
        def migrate(migrator, database, *, fake=False):
            migrator.sql("CREATE TABLE percents (text text DEFAULT '100%%')")
        """,
    )
    runner.apply(database, tmp_path)
    database.execute_sql("INSERT INTO percents DEFAULT VALUES")
    assert database.execute_sql("SELECT text FROM percents").fetchone() == ("100%",)
