"""What is dangerous needs leave; a rehearsal on a copy tells times and leaves it as it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from migration_tools import run_sql, session, write_sql
from service_helpers import connect_params

from orm_core import Database, MigrationError, Registry, settings
from orm_core.cli import main
from orm_core.migrations import catalog, runner
from orm_core.migrations.backfill import source
from orm_core.migrations.migrations import Migrations


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "migrations"
    path.mkdir()
    write_sql(
        path,
        "001_tables",
        "CREATE TYPE mood AS ENUM ('glad')",
        "CREATE TABLE users (id serial PRIMARY KEY, name text, nick text)",
        "CREATE TABLE orders (id serial PRIMARY KEY, name text)",
    )
    return path


@pytest.fixture
def team(database, folder):
    found = Migrations(database, Registry(), folder)
    found.apply()
    return found


def command(url, folder, *options):
    given = ["migrate", "apply", "--url", url, "--folder", str(folder), *options]
    result = CliRunner().invoke(main, given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


DANGEROUS = "ALTER TABLE users ALTER COLUMN id TYPE bigint"

# -- leave for what is dangerous ----------------------------------------------------------------


def test_a_dangerous_step_for_a_table_with_rows_is_refused_by_the_command(team, url, folder):
    run_sql(url, "INSERT INTO users (name) VALUES ('Ada')")
    write_sql(folder, "002_harmless", "CREATE TABLE more (id int)")
    write_sql(folder, "003_wide", DANGEROUS, "ALTER TABLE users DROP COLUMN nick")
    result = command(url, folder)
    assert result.exit_code == 1
    assert "Nothing was applied: 2 step(s) are dangerous" in result.output
    assert "003_wide: users is written anew" in result.output
    assert "003_wide: loses a column, users.nick" in result.output
    assert "--allow" in result.output
    assert team.pending() == ("002_harmless", "003_wide")


def test_it_is_applied_with_leave(team, url, folder):
    run_sql(url, "INSERT INTO users (name) VALUES ('Ada')")
    write_sql(folder, "002_wide", DANGEROUS)
    result = command(url, folder, "--allow", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"applied": ["002_wide"]}


def test_python_needs_no_leave_unless_it_asks(team, url, folder):
    run_sql(url, "INSERT INTO users (name) VALUES ('Ada')")
    write_sql(folder, "002_wide", DANGEROUS)
    with pytest.raises(MigrationError, match="002_wide: users is written anew"):
        team.apply(allow=False)
    assert team.dangers()
    assert team.apply() == ["002_wide"]


def test_a_table_without_rows_is_in_no_danger(team, url, folder):
    run_sql(url, "INSERT INTO orders (name) VALUES ('one')")
    write_sql(folder, "002_wide", DANGEROUS)
    assert command(url, folder).exit_code == 0


def test_a_table_renamed_by_an_earlier_file_is_known_by_its_name_of_now(team, url, folder):
    run_sql(url, "INSERT INTO users (name) VALUES ('Ada')")
    write_sql(folder, "002_rename", "ALTER TABLE users RENAME TO people")
    write_sql(folder, "003_wide", DANGEROUS.replace("users", "people"))
    assert [one.partition(":")[0] for one in team.dangers()] == ["002_rename", "003_wide"]


def test_a_table_of_an_earlier_pending_file_is_in_no_danger(team, url, folder):
    run_sql(url, "INSERT INTO users (name) VALUES ('Ada')")
    write_sql(folder, "002_new", "CREATE TABLE fresh (id int)")
    write_sql(folder, "003_wide", "ALTER TABLE fresh ALTER COLUMN id TYPE bigint")
    assert team.dangers() == []


def test_what_comes_after_the_last_file_asked_for_does_not_count(team, url, folder):
    run_sql(url, "INSERT INTO users (name) VALUES ('Ada')")
    write_sql(folder, "002_harmless", "CREATE TABLE more (id int)")
    write_sql(folder, "003_wide", DANGEROUS)
    assert command(url, folder, "--to", "2").exit_code == 0
    assert team.pending() == ("003_wide",)


def test_the_tables_are_not_changed_while_it_looks(team, url, folder):
    run_sql(url, "INSERT INTO users (name) VALUES ('Ada')")
    write_sql(folder, "002_wide", DANGEROUS)
    before = catalog.read(team.database)
    assert team.dangers()
    assert catalog.read(team.database) == before


# -- rehearsing ---------------------------------------------------------------------------------


@pytest.fixture
def copy(team, url, new_url, folder):
    """The URL of a copy with rows, at the state of the live database."""
    found = new_url()
    params = connect_params(found)
    name = params.pop("dbname")
    database = Database(name, driver=settings.load().driver, **params)
    runner.apply(database, folder)
    database.execute_sql("INSERT INTO users (name) SELECT 'u' || n FROM generate_series(1, 500) n")
    database.execute_sql("INSERT INTO orders (name) VALUES ('one')")
    database.close_all()
    return found


SNAPSHOT = """
    SELECT (SELECT array_agg(name ORDER BY id) FROM migratehistory),
           (SELECT array_agg(u::text ORDER BY id) FROM users u),
           (SELECT array_agg(relname || '/' || relfilenode ORDER BY relname) FROM pg_class
            WHERE relnamespace = 'public'::regnamespace)
"""


def snapshot(url):
    with session(url) as cursor:
        cursor.execute(SNAPSHOT)
        return cursor.fetchone()


def test_a_rehearsal_tells_times_and_rows_and_leaves_the_copy_as_it_was(team, copy, folder):
    write_sql(folder, "002_wide", "SET LOCAL lock_timeout = '5s'", DANGEROUS)
    write_sql(
        folder,
        "003_fill",
        "ALTER TABLE users ADD COLUMN more text",
        "UPDATE users SET more = '100%%' WHERE id <= 100",
        "SELECT pg_sleep(0.05)",
    )
    before = snapshot(copy)
    found = team.rehearse(copy)
    assert found.failure is None
    assert not found.changed
    assert [file.name for file in found.files] == ["002_wide", "003_fill"]
    assert [one.sql for one in found.files[0].statements] == [DANGEROUS]
    add, update, sleep = found.files[1].statements
    assert sleep.seconds > 0.04
    assert update.rows == 100
    assert update.sql == "UPDATE users SET more = '100%' WHERE id <= 100"
    assert 0 < add.seconds < found.files[1].seconds
    assert found.tables == {"users": 500}
    assert snapshot(copy) == before
    assert team.pending() == ("002_wide", "003_fill")


def test_what_fails_on_the_rows_is_told(team, copy, folder):
    write_sql(folder, "002_first", "ALTER TABLE users ADD COLUMN more text")
    write_sql(folder, "003_strict", "ALTER TABLE users ALTER COLUMN nick SET NOT NULL")
    write_sql(folder, "004_never", "CREATE TABLE never (id int)")
    before = snapshot(copy)
    found = team.rehearse(copy)
    assert "003_strict" in str(found.failure)
    assert [file.name for file in found.files] == ["002_first", "003_strict"]
    assert not found.changed
    assert snapshot(copy) == before


def test_constraints_that_are_checked_at_the_end_are_checked(team, copy, folder):
    write_sql(
        folder,
        "002_late",
        "ALTER TABLE orders ADD COLUMN owner int REFERENCES users DEFERRABLE INITIALLY DEFERRED",
        "UPDATE orders SET owner = -1",
    )
    before = snapshot(copy)
    assert "002_late" in str(team.rehearse(copy).failure)
    assert snapshot(copy) == before


def test_a_batched_backfill_is_rolled_back_too(team, copy, folder):
    (folder / "002_fill.py").write_text(source("users", "nick = name", "nick IS NULL", batch=200))
    before = snapshot(copy)
    found = team.rehearse(copy)
    assert not found.changed
    assert len(found.files[0].statements) == 5
    assert found.tables == {"users": 500}
    assert snapshot(copy) == before


CONCURRENTLY = """
def migrate(migrator, database, *, fake=False):
    if fake:
        return
    database.commit()
    database.execute_sql("DROP INDEX CONCURRENTLY IF EXISTS users_name_idx")
    database.execute_sql("CREATE INDEX CONCURRENTLY users_name_idx ON users (name)")
    database.begin()
"""


def test_what_can_not_be_rolled_back_stands_and_is_told(team, copy, folder):
    write_sql(folder, "002_first", "ALTER TABLE users ADD COLUMN more text")
    (folder / "003_index.py").write_text(CONCURRENTLY)
    write_sql(folder, "004_last", "ALTER TABLE users ADD COLUMN last text")
    found = team.rehearse(copy)
    assert found.changed
    assert found.failure is None
    assert [file.name for file in found.files] == ["002_first", "003_index", "004_last"]
    assert snapshot(copy)[0] == ["001_tables", "002_first", "003_index", "004_last"]
    assert team.rehearse(copy).files == ()


def test_a_new_label_can_be_used_by_the_next_file(team, copy, folder):
    write_sql(folder, "002_label", "ALTER TYPE mood ADD VALUE 'sad'")
    write_sql(folder, "003_use", "ALTER TABLE users ADD COLUMN mood mood DEFAULT 'sad'")
    found = team.rehearse(copy)
    assert found.failure is None
    assert found.changed


def test_the_live_database_itself_is_refused(team, url, folder):
    write_sql(folder, "002_first", "ALTER TABLE users ADD COLUMN more text")
    with pytest.raises(MigrationError, match="the live database itself"):
        team.rehearse(url)
    assert team.pending() == ("002_first",)


def test_a_copy_that_has_no_history_yet_gets_none(team, new_url, folder):
    url = new_url()
    found = team.rehearse(url)
    assert [file.name for file in found.files] == ["001_tables"]
    assert not found.changed
    with session(url) as cursor:
        cursor.execute("SELECT to_regclass('migratehistory'), to_regclass('users')")
        assert cursor.fetchone() == (None, None)


def test_the_command_prints_times_and_exits_with_1_when_a_file_fails(team, url, copy, folder):
    write_sql(folder, "002_fill", "UPDATE users SET nick = name WHERE id <= 100")
    result = command(url, folder, "--rehearse", copy)
    assert result.exit_code == 0
    assert "s  UPDATE users SET nick = name WHERE id <= 100  (100 rows)" in result.output
    assert "users has 500 rows." in result.output
    assert "The copy is as it was." in result.output
    told = json.loads(command(url, folder, "--rehearse", copy, "--json").stdout)
    assert told["files"][0]["statements"][0]["rows"] == 100
    write_sql(folder, "003_strict", "ALTER TABLE users ALTER COLUMN nick SET NOT NULL")
    result = command(url, folder, "--rehearse", copy)
    assert result.exit_code == 1
    assert "! Migration 003_strict failed" in result.output
    assert "The copy is as it was." in result.output


def test_a_rehearsal_that_is_killed_leaves_the_copy_as_it_was(team, url, copy, folder):
    write_sql(folder, "002_slow", "UPDATE users SET nick = name", "SELECT pg_sleep(600)")
    before = snapshot(copy)
    process = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("orm-core"), "migrate", "apply", "--url", url),
            *("--folder", folder, "--rehearse", copy),
        ],
        env=os.environ,
        stdout=subprocess.DEVNULL,
    )
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with session(copy) as cursor:
        while True:
            assert process.poll() is None
            cursor.execute(sleeping)
            if cursor.fetchone() == (1,):
                break
        process.kill()
        process.wait(30)
    assert snapshot(copy) == before
