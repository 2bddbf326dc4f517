"""Changes of many rows: in batches, resumable, whoever applies the file."""

import os
import re
import signal
import subprocess
import sys

import peewee
import peewee_migrate
import pytest
from click.testing import CliRunner
from migration_tools import session
from service_helpers import connect_params

from orm_core import InvalidValue, MigrationError, OrmCoreError, Registry, initialize_db
from orm_core.cli import main
from orm_core.migrations import runner, sums
from orm_core.migrations.backfill import backfill, source
from orm_core.migrations.migrations import Migrations

ROWS = 25


@pytest.fixture
def database(url):
    found = initialize_db(url)
    found.execute_sql("CREATE TABLE users (id serial PRIMARY KEY, name text, nick text)")
    found.execute_sql(
        "INSERT INTO users (name) SELECT 'user ' || n FROM generate_series(1, %s) AS n", (ROWS,)
    )
    # Which transaction changed a row tells the batches apart.
    yield found
    found.close_all()


def left(database):
    sql = "SELECT count(*) FROM users WHERE nick IS DISTINCT FROM name"
    return database.execute_sql(sql).fetchone()[0]


def transactions(database):
    """How many rows each transaction changed."""
    sql = "SELECT count(*) FROM users GROUP BY xmin ORDER BY min(id)"
    return [count for (count,) in database.execute_sql(sql).fetchall()]


FILL = ("users", "nick = name", "nick IS NULL")


# -- the helper ---------------------------------------------------------------------------------


def test_all_rows_that_match_are_changed_a_batch_at_a_time(database):
    told = []
    assert backfill(database, *FILL, batch=10, progress=told.append) == ROWS
    assert left(database) == 0
    assert transactions(database) == [10, 10, 5]
    assert told == [10, 20, 25]


def test_rows_that_do_not_match_are_left_alone(database):
    database.execute_sql("UPDATE users SET nick = 'mine' WHERE id = 3")
    assert backfill(database, *FILL) == ROWS - 1
    assert database.execute_sql("SELECT nick FROM users WHERE id = 3").fetchone() == ("mine",)


def test_nothing_to_do_is_no_change(database):
    backfill(database, *FILL)
    before = transactions(database)
    assert backfill(database, *FILL) == 0
    assert transactions(database) == before


@pytest.mark.parametrize("key", ["uuid DEFAULT gen_random_uuid()", "text", '"odd key" bigint'])
def test_keys_of_any_type_serve(key, database):
    name = '"odd key"' if "odd" in key else "key"
    column = key if "odd" in key else f"key {key}"
    database.execute_sql(f"ALTER TABLE users ADD COLUMN {column} UNIQUE")
    if "DEFAULT" not in key:
        database.execute_sql(f"UPDATE users SET {name} = id")
    assert backfill(database, *FILL, key=name, batch=7) == ROWS
    assert left(database) == 0


def test_rows_that_come_behind_it_are_found(database):
    def come(total):
        if total == 20:
            database.execute_sql("INSERT INTO users (id, name) VALUES (-1, 'late')")

    assert backfill(database, *FILL, batch=10, progress=come) == ROWS + 1
    assert left(database) == 0


def test_an_interrupted_run_goes_on_where_it_was(database):
    def interrupt(total):
        if total == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backfill(database, *FILL, batch=10, progress=interrupt)
    assert left(database) == 5
    assert backfill(database, *FILL, batch=10) == 5


def test_a_condition_that_still_matches_is_refused_and_nothing_is_changed(database):
    with pytest.raises(MigrationError, match="would never end"):
        backfill(database, "users", "nick = name", "id > 0", batch=10)
    assert left(database) == ROWS


def test_a_batch_waits_for_a_row_only_so_long(database, url, monkeypatch):
    monkeypatch.setattr("orm_core.migrations.backfill.LOCK_TIMEOUT", "50ms")
    with session(url) as other:
        other.execute("BEGIN")
        other.execute("UPDATE users SET name = 'mine' WHERE id = 15")
        with pytest.raises(OrmCoreError, match="lock"):
            backfill(database, *FILL, batch=10)
        assert left(database) == ROWS - 10
        other.execute("COMMIT")
    backfill(database, *FILL, batch=10)
    assert database.execute_sql("SELECT nick FROM users WHERE id = 15").fetchone() == ("mine",)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_has_a_row_or_more(batch, database):
    with pytest.raises(InvalidValue):
        backfill(database, *FILL, batch=batch)


def test_a_percent_sign_is_written_twice(database):
    where = "nick IS NULL AND name LIKE '%% 1%%'"
    assert backfill(database, "users", "nick = '100%%'", where) == 11
    assert database.execute_sql("SELECT nick FROM users WHERE id = 1").fetchone() == ("100%",)


# -- in a file ----------------------------------------------------------------------------------

IMPORTING = """
def migrate(migrator, database, *, fake=False):
    from orm_core.migrations.backfill import backfill

    if not fake:
        backfill(database, "users", "nick = name", "nick IS NULL", batch=10)
"""


@pytest.fixture(params=["written out", "with the helper"])
def file(request, folder):
    text = IMPORTING if "helper" in request.param else source(*FILL, batch=10)
    (folder / "001_fill.py").write_text(text)
    return folder


def test_a_stock_router_applies_it_in_batches(file, database):
    assert peewee_migrate.Router(database, migrate_dir=file).run() == ["001_fill"]
    database.close()
    assert left(database) == 0
    assert transactions(database) == [10, 10, 5]
    assert not database.in_transaction()


def test_a_stock_router_on_plain_peewee_applies_it(file, url, database):
    params = connect_params(url)
    plain = peewee.PostgresqlDatabase(params.pop("dbname"), **params)
    assert peewee_migrate.Router(plain, migrate_dir=file).run() == ["001_fill"]
    plain.close()
    assert transactions(database) == [10, 10, 5]


def test_a_later_run_replays_it_without_touching_rows(file, database):
    runner.apply(database, file)
    database.execute_sql("INSERT INTO users (name) VALUES ('new')")
    (file / "002_next.py").write_text("def migrate(migrator, database, *, fake=False):\n    pass\n")
    assert runner.apply(database, file) == ["002_next"]
    assert left(database) == 1


def test_a_killed_run_is_taken_up_by_the_next(file, url, database):
    """The process is killed in its third batch."""
    database.execute_sql("CREATE TABLE pids (pid int)")
    database.execute_sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.id = 21 AND EXISTS (SELECT FROM pids) THEN PERFORM pg_sleep(600); END IF; "
        "RETURN NEW; END $$"
    )
    database.execute_sql(
        "CREATE TRIGGER wait BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    database.execute_sql("INSERT INTO pids VALUES (1)")
    code = (
        "import sys; from peewee_migrate import Router; from orm_core import initialize_db; "
        "Router(initialize_db(sys.argv[1]), migrate_dir=sys.argv[2]).run()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, url, str(file)], stderr=subprocess.DEVNULL, env=os.environ
    )
    with session(url) as look:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        while True:
            assert process.poll() is None
            look.execute(sleeping)
            if look.fetchone() == (1,):
                break
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        look.execute("DELETE FROM pids")
    assert left(database) == 5
    assert runner.status(database, file).pending == ("001_fill",)
    assert runner.apply(database, file) == ["001_fill"]
    assert left(database) == 0
    assert transactions(database) == [10, 10, 5]


def test_a_busy_row_has_the_file_tried_again_from_where_it_was(file, url, database, monkeypatch):
    monkeypatch.setattr(runner, "PAUSE", 0.01)
    path = file / "001_fill.py"
    path.write_text(path.read_text().replace("'5s'", "'50ms'"))
    monkeypatch.setattr("orm_core.migrations.backfill.LOCK_TIMEOUT", "50ms")
    with session(url) as other:
        other.execute("BEGIN")
        other.execute("UPDATE users SET name = 'mine' WHERE id = 15")
        with pytest.raises(MigrationError, match="001_fill"):
            runner.apply(database, file)
        assert left(database) == ROWS - 10
    assert runner.apply(database, file) == ["001_fill"]
    assert transactions(database) == [10, 10, 5]


def test_a_condition_that_still_matches_fails_the_file(folder, database):
    (folder / "001_fill.py").write_text(source("users", "nick = name", "id > 0", batch=10))
    with pytest.raises(MigrationError, match="still matches"):
        runner.apply(database, folder)
    assert left(database) == ROWS


def test_the_file_imports_nothing_of_orm_core(file):
    text = source(*FILL)
    assert "orm_core" not in text
    assert "nick = name" in text.splitlines()[0]


@pytest.mark.parametrize("sql", ['nick = """x"""', r"nick = E'\n'"])
def test_sql_that_a_python_text_can_not_hold_is_refused(sql):
    with pytest.raises(InvalidValue):
        source("users", sql, "nick IS NULL")


def test_the_plan_tells_its_locks_and_no_danger(database, folder):
    (folder / "001_users.py").write_text(
        "def migrate(migrator, database, *, fake=False):\n"
        "    migrator.sql('CREATE TABLE users (id int PRIMARY KEY, name text, nick text)')\n"
    )
    runner.fake(database, folder)
    (folder / "002_fill.py").write_text(source(*FILL))
    [report] = Migrations(database, Registry(), folder).plan()
    [effect] = report.effects
    assert dict(effect.locks) == {"users": "RowExclusiveLock"}
    assert effect.dangers == ()


def test_its_sql_is_printed_without_a_database(folder):
    (folder / "001_fill.py").write_text(source(*FILL))
    text = Migrations(None, Registry(), folder).sql()
    assert "UPDATE users SET nick = name" in text
    assert "depends on what the database answers" in text


def test_the_command_writes_a_file_that_works(folder, database, url, monkeypatch):
    monkeypatch.chdir(folder.parent)
    result = CliRunner().invoke(
        main,
        [
            *("migrate", "backfill", "users", "--set", "nick = name || '%'"),
            *("--where", "nick IS NULL AND name LIKE 'user%'", "--batch", "10"),
        ],
        catch_exceptions=False,
    )
    assert re.fullmatch(r"wrote  migrations/001_backfills_users\.py\n", result.output)
    assert sums.problems(folder) == []
    assert runner.apply(database, folder) == ["001_backfills_users"]
    assert transactions(database) == [10, 10, 5]
    assert database.execute_sql("SELECT nick FROM users WHERE id = 1").fetchone() == ("user 1%",)
