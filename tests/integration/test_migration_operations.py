"""A day of operating: roles without rights, tools side by side, threads that serve, what drifts."""

import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import peewee_migrate
import pytest
from migration_tools import Models, run_sql, write
from service_helpers import connect_params

from orm_core import (
    BaseModel,
    Database,
    IntegerField,
    InvalidValue,
    MigrationError,
    Registry,
    TextField,
    initialize_db,
    registry,
    transaction,
)
from orm_core.migrations import catalog, runner
from orm_core.migrations.backfill import source
from orm_core.migrations.migrations import Migrations

PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def team(database, folder):
    return Migrations(database, Registry(), folder)


def sql(*statements):
    return [f"migrator.sql({one!r})" for one in statements]


# -- who may not --------------------------------------------------------------------------------


def test_a_read_only_database_is_told_and_can_be_looked_at(team, url, folder):
    write(folder, "001_a", *sql("CREATE TABLE a (id int)"))
    team.apply()
    write(folder, "002_b", *sql("CREATE TABLE b (id int)"))
    name = connect_params(url)["dbname"]
    run_sql(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    team.database.close_all()
    for change in (team.apply, team.rollback, team.fake):
        with pytest.raises(MigrationError, match=r"migratehistory can't be .* read-only"):
            change()
    assert team.pending() == ("002_b",)
    assert not team.drift()
    assert team.plan()[0].dangers == ()


@contextmanager
def role(url, server):
    name = f"orm_core_bound_{connect_params(url)['dbname']}"
    run_sql(url, f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    bound = replace(server, user=name, password="x")
    found = initialize_db(bound.url(connect_params(url)["dbname"]))
    try:
        yield name, found
    finally:
        found.close_all()
        run_sql(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_a_role_without_rights_is_told_what_it_can_not_do(orm_core_server, url, folder):
    write(folder, "001_a", *sql("CREATE TABLE a (id int)"))
    with role(url, orm_core_server) as (name, bound):
        team = Migrations(bound, Registry(), folder)
        assert team.pending() == ("001_a",)
        with pytest.raises(MigrationError, match=r"migratehistory can't be made .* lacks a priv"):
            team.apply()
        run_sql(url, "CREATE TABLE migratehistory (id serial, name text, migrated_at timestamp)")
        with pytest.raises(MigrationError, match=r"migratehistory can't be read.* lacks a priv"):
            team.status()
        run_sql(
            url,
            f"GRANT CREATE ON SCHEMA public TO {name}",
            f"GRANT ALL ON migratehistory, migratehistory_id_seq TO {name}",
            "CREATE TABLE a (id int)",
        )
        write(folder, "001_a", *sql("ALTER TABLE a ADD COLUMN b int"))
        with pytest.raises(MigrationError, match=r"001_a failed at statement 1 .* lacks a priv"):
            team.apply()
        assert team.pending() == ("001_a",)


# -- files that can't be run --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "x = 1\n", "def migrat(migrator, database, *, fake=False):\n    pass\n"]
)
def test_a_file_without_its_function_is_not_taken_for_applied(text, team, folder):
    (folder / "001_a.py").write_text(text)
    with pytest.raises(MigrationError, match=r"001_a failed .* no function migrate"):
        team.apply()
    assert team.pending() == ("001_a",)


def test_a_file_without_a_way_back_is_not_taken_for_rolled_back(team, folder):
    (folder / "001_a.py").write_text("def migrate(migrator, database, *, fake=False):\n    pass\n")
    team.apply()
    assert registry.router(team.database, folder).run() == []
    with pytest.raises(MigrationError, match=r"rollback of 001_a failed .* no function rollback"):
        team.rollback()
    assert team.status().applied == ("001_a",)


def test_a_file_that_is_no_utf_8_is_told_and_listed(team, folder):
    (folder / "001_a.py").write_bytes(b"replaces = 1  # caf\xe9\n")
    assert team.pending() == ("001_a",)
    with pytest.raises(MigrationError, match=r"001_a failed .* UnicodeDecodeError"):
        team.apply()


def test_a_lost_connection_names_the_statement_at_which_it_was_lost(team, folder):
    lost = "SELECT pg_terminate_backend(pg_backend_pid())"
    write(folder, "001_a", *sql("CREATE TABLE a (id int)", lost))
    with pytest.raises(MigrationError, match=r"001_a failed at statement 2 \(SELECT pg_term"):
        team.apply()
    write(folder, "001_a", *sql("CREATE TABLE a (id int)"))
    assert team.apply() == ["001_a"]


def test_a_label_that_is_used_too_early_is_explained(team, folder):
    write(folder, "001_a", *sql("CREATE TYPE mood AS ENUM ('glad')"))
    team.apply()
    write(folder, "002_b", *sql("ALTER TYPE mood ADD VALUE 'sad'", "SELECT 'sad'::mood"))
    with pytest.raises(MigrationError, match=r"statement 2 .* use it in the next migration"):
        team.apply()


def test_what_can_not_run_inside_a_transaction_is_refused_by_the_plan_too(team, folder):
    write(folder, "001_a", *sql("CREATE TABLE a (id int)"))
    team.apply()
    write(folder, "002_b", *sql("CREATE INDEX CONCURRENTLY i ON a (id)"))
    for call in (team.plan, team.apply):
        with pytest.raises(MigrationError, match=r"call database.commit\(\) before it"):
            call()


def test_sql_of_a_file_that_uses_models_says_where_it_ends(team, folder):
    write(
        folder,
        "001_a",
        "import peewee",
        "here = database",
        "class A(peewee.Model):",
        "    class Meta:",
        "        database = here",
        *sql("CREATE TABLE a (id serial)"),
        "A.insert_many([{}]).execute()",
        *sql("DROP TABLE a"),
    )
    told = team.sql()
    assert "CREATE TABLE a (id serial);" in told
    assert "-- execute(...), which only a database can tell;" in told
    assert "DROP TABLE a;" in told


@pytest.mark.parametrize("given", [("", "b = 1", "true"), ("a", " ", "true"), ("a", "b = 1", "")])
def test_a_backfill_needs_all_its_parts(given):
    with pytest.raises(InvalidValue, match="needs a table"):
        source(*given)


# -- side by side -------------------------------------------------------------------------------

STOCK = """
import sys
from peewee_migrate import Router
from orm_core import close_db, initialize_db
Router(initialize_db(sys.argv[1]), migrate_dir=sys.argv[2]).run()
close_db()
"""


def commands(url, folder):
    place = ["--directory", str(folder), "--database", url]
    return {
        "ours": [PROGRAMS / "orm-core", "migrate", "apply", "--url", url, "--folder", folder],
        "stock": [sys.executable, "-c", STOCK, url, folder],
        "pw_migrate": [PROGRAMS / "pw_migrate", "migrate", *place],
    }


@pytest.mark.parametrize("tools", [("ours", "stock", "ours"), ("pw_migrate", "ours", "pw_migrate")])
def test_deployers_of_several_kinds_at_once_apply_each_file_once(tools, team, url, folder):
    for number in range(1, 4):
        create = f"CREATE TABLE t{number} (id int)"
        write(folder, f"00{number}_t", *sql(create, "SELECT pg_sleep(0.1)"))
    ways = commands(url, folder)
    started = [subprocess.Popen(ways[one], stderr=subprocess.PIPE) for one in tools]
    for one in started:
        one.communicate(timeout=60)
    if "pw_migrate" not in tools:  # which takes no lock, so that one of two may fail
        assert [one.returncode for one in started] == [0, 0, 0]
    team.apply()
    assert team.status().applied == ("001_t", "002_t", "003_t")
    assert not team.drift()


class Visit(BaseModel):
    page = TextField()


def test_threads_that_serve_lose_nothing_while_a_router_replays(team, url, folder):
    """A Router replaces Peewee's execute_sql by a mock, for the whole process."""
    team = Migrations(team.database, Models((Visit,)), folder)
    team.generate("visits")
    for number in range(2, 12):
        write(folder, f"{number:03}_t", "import time", "time.sleep(0.01)", *sql("SELECT 1"))
    team.apply()
    team.database.close()
    stop, served, faults = threading.Event(), [0], []

    def serve():
        while not stop.is_set():
            try:
                with team.database.connection_context(), transaction():
                    Visit.create(page="home")
                    served[0] += 1
                    assert Visit.select().count() == served[0]
            except BaseException as error:
                faults.append(error)
                raise

    thread = threading.Thread(target=serve)
    with Visit.bind_ctx(team.database):
        thread.start()
        try:
            for name, make in (("012_a", peewee_migrate.Router), ("013_b", registry.router)):
                write(folder, name, *sql("SELECT 1"))
                options = {"migrate_dir": folder} if make is peewee_migrate.Router else {}
                router = make(team.database, **options) if options else make(team.database, folder)
                before = served[0]
                assert router.run() == [name]
                assert served[0] > before
                team.database.close()
        finally:
            stop.set()
            thread.join()
    assert faults == []
    assert run_sql(url, "SELECT count(*) FROM visits") == [(served[0],)]


# -- progress -----------------------------------------------------------------------------------


def test_a_terminal_shows_how_far_it_is_and_no_value(url, folder):
    write(
        folder, "001_a", *sql("CREATE TABLE a (name text)"), 'migrator.sql("SELECT %s", "secret")'
    )
    (folder / "002_fill.py").write_text(source("a", "name = 'x'", "name IS NULL", key="name"))
    ours, theirs = pty.openpty()
    apply = subprocess.Popen(commands(url, folder)["ours"], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    assert apply.communicate(timeout=60)[0].endswith(b"2 migration(s) applied.\n")
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert [one for one in shown.split("\r\x1b[K") if one] == [
        "Applying 001_a (1 of 2)",
        "Applying 002_fill (2 of 2)",
    ]


# -- killed in the middle of a rename in stages --------------------------------------------------

KILLED = """
import os, signal, sys
from orm_core import initialize_db
from orm_core.migrations import runner
sent, at, database = 0, int(sys.argv[3]), initialize_db(sys.argv[1])
def count(event):
    global sent
    sent += 1
    if sent == at:
        os.kill(os.getpid(), signal.SIGKILL)
database.query_hooks.append(count)
runner.apply(database, sys.argv[2])
print(sent)
"""


def people(name, column, **options):
    fields = {column: TextField(unique=True), "n": IntegerField(default=1, **options)}
    return type("Person", (BaseModel,), {**fields, "Meta": type("Meta", (), {"table_name": name})})


def test_a_rename_in_stages_that_is_killed_anywhere_is_finished_by_the_next_run(
    database, folder, new_url
):
    Migrations(database, Models((people("ppl", "mail"),)), folder).generate("before")
    after = Migrations(database, Models((people("persons", "email", index=True),)), folder)
    after.generate("after", renames=["ppl:persons", "persons.mail:email"], safe=True)

    def prepared():
        url = new_url()
        params = connect_params(url)
        live = Database(params.pop("dbname"), **params)
        runner.apply(live, folder, "1")
        live.execute_sql("INSERT INTO ppl (mail) SELECT 'm' || n FROM generate_series(1, 20) n")
        live.close_all()
        return url, live

    def killed(url, at):
        command = [sys.executable, "-c", KILLED, url, folder, str(at)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    url, live = prepared()
    statements = int(killed(url, 0).stdout)
    wanted = catalog.read(live)
    live.close_all()
    for at in range(5, statements, statements // 8):
        url, live = prepared()
        assert killed(url, at).returncode == -signal.SIGKILL
        runner.apply(live, folder)
        assert catalog.read(live) == wanted
        assert live.execute_sql("SELECT count(email) FROM persons").fetchone() == (20,)
        live.close_all()


# -- drift --------------------------------------------------------------------------------------

DRIFTS = (
    "ALTER TYPE mood ADD VALUE 'c'",
    "ALTER TYPE mood RENAME VALUE 'it''s' TO 'z'",
    "ALTER TYPE mood RENAME TO mood9",
    "ALTER TABLE a ADD COLUMN extra int NOT NULL DEFAULT 3",
    "ALTER TABLE a DROP CONSTRAINT a_n_check",
    "ALTER TABLE a ALTER n TYPE bigint",
    "ALTER TABLE a ALTER n SET DEFAULT 7",
    "ALTER TABLE a DROP COLUMN t CASCADE",
    "CREATE UNIQUE INDEX handmade ON a (t) WHERE t LIKE '%a'",
    "COMMENT ON TABLE a IS 'it''s 5%'",
    "CREATE SCHEMA other; CREATE TABLE other.a (id int)",
    "ALTER TABLE a RENAME TO aa",
    "DROP TABLE a",
    "ALTER TABLE a SET (fillfactor = 70)",
)


def test_the_sql_that_is_told_mends_what_drifted(team, url, folder):
    write(
        folder,
        "001_a",
        *sql(
            "CREATE TYPE mood AS ENUM ('it''s', '50%%')",
            "CREATE TABLE a (id serial PRIMARY KEY, n int DEFAULT 1 CHECK (n > 0), t text UNIQUE,"
            " m mood DEFAULT '50%%')",
        ),
    )
    team.apply()
    for change in DRIFTS:
        run_sql(url, change)
        found = team.drift()
        assert found.differences, change
        run_sql(url, *found.sql)
        assert not team.drift(), change
