"""What is told and what is left when a migration can't go through, or a process is gone."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import peewee
import pytest
from migration_tools import run_sql, write
from peewee_migrate import Router
from service_helpers import connect_params

from orm_core import MigrationError, Registry, initialize_db, registry
from orm_core.database import deploy_lock
from orm_core.embedded import EmbeddedPostgres
from orm_core.errors import EmbeddedError
from orm_core.migrations import runner, scratch, sums
from orm_core.migrations.migrations import Migrations
from orm_core.migrations.trace import without_values

# -- the statement that failed -------------------------------------------------------------------


def failure(database, folder):
    with pytest.raises(MigrationError) as raised:
        runner.apply(database, folder)
    return str(raised.value)


def test_a_failed_file_names_its_statement(database, folder):
    write(
        folder,
        "001_items",
        "migrator.sql(\"SET LOCAL lock_timeout = '5s'\")",
        'migrator.sql("CREATE TABLE items (id int)")',
        "migrator.sql(\"ALTER TABLE items ADD CHECK (nick LIKE 'a%%')\")",
    )
    told = failure(database, folder)
    assert "001_items failed at statement 3 (ALTER TABLE items ADD CHECK (nick LIKE 'a%'))" in told
    assert "was rolled back; the ones before it stand" in told


def test_values_of_rows_are_left_out_of_what_is_told(database, folder):
    write(
        folder,
        "001_items",
        'database.execute_sql("CREATE TABLE items (name text PRIMARY KEY, n int)")',
        "database.execute_sql(\"INSERT INTO items VALUES ('secret-1', 4711), ('secret-1', 4711)\")",
    )
    told = failure(database, folder)
    assert "at statement 2 (INSERT INTO items VALUES (?, ?), (?, ?))" in told
    assert "secret" not in told
    assert "4711" not in told


def test_parameters_are_left_out_of_what_is_told(database, folder):
    write(folder, "001_a", 'migrator.sql("SELECT %s::int", "secret")')
    told = failure(database, folder)
    assert "at statement 1 (SELECT %s::int)" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    "call",
    [
        "migrator.run(lambda: Item.create(name='secret'))",
        "migrator.run(lambda: Item.insert_many([{'name': 'secret'}] * 2).execute())",
        "migrator.run(lambda: Item.update(name='secret').execute())",
        "Item.create(name='secret')",
        """migrator.sql("INSERT INTO item VALUES ('secret')")""",
        """migrator.sql("INSERT INTO item VALUES (%s)", 'secret')""",
        """migrator.run(lambda: database.execute_sql("UPDATE item SET name = 'secret'"))""",
    ],
)
def test_values_are_left_out_whichever_way_a_file_writes_rows(call, database, folder):
    write(
        folder,
        "001_items",
        'database.execute_sql("CREATE TABLE item (name text UNIQUE)")',
        "database.execute_sql(\"INSERT INTO item VALUES ('secret'), ('other')\")",
        "if not fake:",
        "    import peewee",
        "    here = database",
        "    class Item(peewee.Model):",
        "        name = peewee.TextField()",
        "        class Meta:",
        "            database = here",
        "            primary_key = False",
        f"    {call}",
    )
    with pytest.raises(MigrationError) as raised:
        runner.apply(database, folder)
    assert "at statement 3 (" in str(raised.value)
    link = raised.value
    while link is not None:
        assert "secret" not in str(link)
        link = link.__cause__ or link.__context__


def test_a_statement_of_an_orm_operation_is_named(database, folder):
    write(folder, "001_a", 'migrator.sql("SELECT 1")', 'migrator.sql("DROP TABLE missing")')
    plain = peewee.PostgresqlDatabase(database.database, **database.connect_params)
    try:
        told = failure(plain, folder)
    finally:
        plain.close()
    assert "at statement 2 (DROP TABLE missing)" in told


def test_a_failure_at_the_commit_says_so(database, folder):
    write(
        folder,
        "001_items",
        'migrator.sql("CREATE TABLE a (id int PRIMARY KEY)")',
        'migrator.sql("CREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED)")',
        'migrator.sql("INSERT INTO b VALUES (1)")',
    )
    assert "001_items failed at COMMIT and was rolled back" in failure(database, folder)


def test_an_error_that_is_no_statements_names_none(database, folder):
    write(folder, "001_a", 'database.execute_sql("SELECT 1")', "raise KeyError('gone')")
    assert "001_a failed and was rolled back; " in failure(database, folder)


def test_what_a_file_committed_itself_is_not_called_rolled_back(database, folder, url):
    write(
        folder,
        "001_a",
        "if fake: return",
        'database.execute_sql("CREATE TABLE items (id int)")',
        "database.commit()",
        "database.begin()",
        'database.execute_sql("nonsense")',
    )
    told = failure(database, folder)
    assert "at statement 2 (nonsense); what it committed itself stands" in told
    assert run_sql(url, "SELECT to_regclass('items') IS NULL") == [(False,)]


def test_a_failed_rollback_is_called_one(database, folder):
    write(folder, "001_a", "pass", back=['migrator.sql("DROP TABLE missing")'])
    runner.apply(database, folder)
    with pytest.raises(MigrationError, match=r"rollback of 001_a failed at statement 1 \(DROP"):
        runner.rollback(database, folder)


def test_a_plan_and_a_rehearsal_name_the_statement_of_the_file(database, folder, new_url):
    write(folder, "001_a", 'migrator.sql("SELECT 1")', 'migrator.sql("DROP TABLE missing")')
    team = Migrations(database, Registry(), folder)
    with pytest.raises(MigrationError, match=r"at statement 2 \(DROP TABLE missing\)"):
        team.plan()
    assert "at statement 2 (DROP TABLE missing)" in team.rehearse(new_url()).failure


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT 1", "SELECT ?"),
        ("UPDATE t1 SET \"a'1\" = E'it\\'s', b = $x$ y $x$", 'UPDATE t1 SET "a\'1" = ?, b = ?'),
        ("delete from a where b = 'it''s' and c > 1.5", "delete from a where b = ? and c > ?"),
        ("ALTER TABLE a ADD b text DEFAULT '7%%'", "ALTER TABLE a ADD b text DEFAULT '7%'"),
        ("CREATE UNIQUE INDEX i ON a (b) WHERE b <> 'c'",) * 2,
        ("CREATE TABLE a AS SELECT 'secret' AS b", "CREATE TABLE a AS SELECT ? AS b"),
        ("-- first\nINSERT INTO a VALUES ('secret')", "-- first INSERT INTO a VALUES (?)"),
        ("/* x */ UPDATE a SET b = 'secret'", "/* x */ UPDATE a SET b = ?"),
        ("DROP TABLE a; INSERT INTO b VALUES ('secret')", "DROP TABLE a; INSERT INTO b VALUES (?)"),
        ("DO $$BEGIN INSERT INTO a VALUES ('secret'); END$$", "DO ?"),
        ("ALTER ROLE app PASSWORD 'secret'", "ALTER ROLE app PASSWORD ?"),
        (
            "EXPLAIN ANALYZE DELETE FROM a WHERE b = 'secret'",
            "EXPLAIN ANALYZE DELETE FROM a WHERE b = ?",
        ),
        ("x" * 400, "x" * 300 + "..."),
    ],
)
def test_literals_of_statements_on_rows_are_hidden(sql, told):
    assert without_values(sql) == told


# -- what does not fit the history ---------------------------------------------------------------


@pytest.fixture
def applied(database, folder):
    write(folder, "001_a", 'migrator.sql("CREATE TABLE a (id int)")')
    write(folder, "003_c", 'migrator.sql("CREATE TABLE c (id int)")')
    assert registry.router(database, folder).run() == ["001_a", "003_c"]
    database.close()
    return database


def test_a_router_refuses_a_file_of_a_branch_merged_late_and_names_the_way_out(applied, folder):
    write(folder, "002_b", 'migrator.sql("CREATE TABLE b (id int)")')
    for call in (registry.router(applied, folder).run, lambda: runner.apply(applied, folder)):
        with pytest.raises(MigrationError, match=r"002_b is pending.*003_c.*rename it to 004_b"):
            call()
    (folder / "002_b.py").rename(folder / "004_b.py")
    assert registry.router(applied, folder).run() == ["004_b"]


def test_a_late_file_that_was_run_by_hand_can_be_noted(applied, folder):
    write(folder, "002_b", "pass")
    assert runner.fake(applied, folder) == ["002_b"]
    assert registry.router(applied, folder).run() == []


@pytest.mark.parametrize("call", ["run", "rollback"])
def test_a_router_says_which_applied_file_is_missing(call, applied, folder):
    (folder / "001_a.py").unlink()
    with pytest.raises(MigrationError, match="001_a is applied, and its file is missing"):
        getattr(registry.router(applied, folder), call)()


def test_an_applied_file_that_can_not_be_replayed_says_what_to_write(applied, folder):
    write(folder, "001_a", "raise LookupError('what')")
    write(folder, "004_d", "pass")
    with pytest.raises(MigrationError, match=r"001_a can't be replayed.*if fake: return"):
        registry.router(applied, folder).run()


# -- the deploy lock of stock routers ------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"migrate_table": "my_history"}, {"schema": "ops"}, {"migrate_table": "h", "schema": "ops"}],
)
def test_a_stock_router_with_a_history_of_its_own_takes_the_lock(options, database, url, folder):
    run_sql(url, "CREATE SCHEMA ops")
    write(folder, "001_a", 'migrator.sql("CREATE TABLE a (id int)")')
    router = Router(database, migrate_dir=folder, **options)
    for done in (["001_a"], []):
        assert router.run() == done
        assert database.is_deploying()
        held = f"SELECT count(*) FROM pg_locks WHERE objid = {deploy_lock.KEY & 0xFFFFFFFF}"
        assert run_sql(url, held) == [(1,)]
        database.close()
        assert run_sql(url, held) == [(0,)]


def test_a_table_that_is_no_history_takes_no_lock(database):
    class Plain(peewee.Model):
        name = peewee.CharField()

        class Meta:
            database = None
            table_name = "migrated"

    with Plain.bind_ctx(database), database.connection_context():
        Plain.create_table()
        assert not list(Plain.select())
        assert not database.is_deploying()


# -- scratch databases of the dead ---------------------------------------------------------------

OWNER = """
import sys, time
from orm_core import initialize_db
from orm_core.migrations.scratch import ScratchServer
with ScratchServer(initialize_db(sys.argv[1])) as server, server.database() as made:
    print(made.database, flush=True)
    time.sleep(600)
"""


def exists(url, name):
    return bool(run_sql(url, f"SELECT 1 FROM pg_database WHERE datname = '{name}'"))


def gone(url, name):
    """Until the server has seen that the owner's sessions ended."""
    deadline = threading.Event()
    for _ in range(3000):
        left = run_sql(
            url,
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1869770083 "
            f"AND objid = {int(name.split('_')[3], 16)}",
        )
        if left == [(0,)]:
            return True
        deadline.wait(0.01)
    return False


def test_what_a_killed_owner_left_is_dropped_and_a_living_ones_is_kept(database, url):
    owners = [
        subprocess.Popen([sys.executable, "-c", OWNER, url], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        dead, alive = (one.stdout.readline().strip() for one in owners)
        owners[0].send_signal(signal.SIGKILL)
        owners[0].wait()
        assert gone(url, dead)
        assert exists(url, dead)
        with scratch.ScratchServer(database):
            assert not exists(url, dead)
            assert exists(url, alive)
    finally:
        for one in owners:
            one.kill()
            one.communicate()
    assert gone(url, alive)
    with scratch.ScratchServer(database):
        assert not exists(url, alive)


def test_other_databases_are_never_swept(database, url):
    other = f"orm_core_scratch_mine_{os.getpid()}"
    run_sql(url, f"CREATE DATABASE {other}")
    try:
        with scratch.ScratchServer(database):
            assert exists(url, other)
    finally:
        run_sql(url, f"DROP DATABASE {other}")


# -- a role that may make no databases -----------------------------------------------------------


def test_without_scratch_databases_what_may_be_dangerous_is_not_applied_unseen(
    orm_core_server, url, folder, monkeypatch
):
    name = f"orm_core_bound_{os.getpid()}"
    run_sql(url, f"CREATE ROLE {name} LOGIN PASSWORD 'x'", f"GRANT ALL ON SCHEMA public TO {name}")
    try:
        server = replace(orm_core_server, user=name, password="x")
        database = initialize_db(server.url(connect_params(url)["dbname"]))
        team = Migrations(database, Registry(), folder)
        write(folder, "001_a", 'migrator.sql("CREATE TABLE a AS SELECT 1 AS id")')
        assert team.apply(allow=False) == ["001_a"]
        write(folder, "002_b", 'migrator.sql("CREATE TABLE b (id int)")')

        def missing(*_, **__):
            raise EmbeddedError("No PostgreSQL programs are found.")

        monkeypatch.setattr(EmbeddedPostgres, "__enter__", missing)
        with pytest.raises(MigrationError) as raised:
            team.apply(allow=False)
        for part in ("Nothing was applied", f"ALTER ROLE {name} CREATEDB", "--allow"):
            assert part in str(raised.value)
        assert team.apply() == ["002_b"]
        database.close_all()
    finally:
        run_sql(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


# -- sums and files ------------------------------------------------------------------------------


def test_a_crash_while_sums_are_written_leaves_the_old_ones(folder, monkeypatch):
    write(folder, "001_a", "pass")
    before = sums.write(folder).read_text()
    write(folder, "002_b", "pass")

    def crash(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        with pytest.raises(OSError, match="No space"):
            sums.write(folder)
    assert (folder / "migrations.sum").read_text() == before
    assert sums.write(folder).read_text() != before
    assert sorted(one.name for one in folder.iterdir()) == [
        "001_a.py",
        "002_b.py",
        "migrations.sum",
    ]
