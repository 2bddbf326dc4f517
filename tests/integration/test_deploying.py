"""Deploying as a team does: several deployers, busy tables, and whatever is killed midway."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import peewee_migrate
import psycopg2
import pytest
from service_helpers import connect_params

from orm_core import MigrationError, initialize_db, registry
from orm_core.database import deploy_lock
from orm_core.embedded import EmbeddedPostgres
from orm_core.migrations import runner
from orm_core.migrations.migrations import Migrations

DEADLINE = 30.0


# -- databases, files and deployers -------------------------------------------------------------


def write(folder, name, body, back="pass"):
    up, down = (textwrap.indent(textwrap.dedent(one).strip(), "    ") for one in (body, back))
    head = "import os, signal, time\n\n\ndef {}(migrator, database, *, fake=False):\n{}\n\n\n"
    text = head.format("migrate", up) + head.format("rollback", down).partition("\n\n\n")[2]
    (folder / f"{name}.py").write_text(text)


@contextmanager
def client(url):
    """Another client of the database, in autocommit; answers what runs a statement."""
    with closing(psycopg2.connect(**connect_params(url))) as link:
        link.autocommit = True

        def run(sql, *params):
            with link.cursor() as cursor:
                cursor.execute(sql, params or None)
                return cursor.fetchall() if cursor.description else []

        run.cancel = link.cancel
        yield run


def rows(url, sql, *params):
    with client(url) as run:
        return run(sql, *params)


def wait_for(url, condition, *params, what=None):
    """Until a query answers true."""
    deadline = time.monotonic() + DEADLINE
    with client(url) as run:
        while not run(f"SELECT {condition}", *params)[0][0]:
            assert time.monotonic() < deadline, what or condition
            time.sleep(0.01)


SLEEPS = "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database())"
WAITS = """EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'relation'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
POLLING = """(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND query LIKE 'SELECT pg_try_advisory_lock%%') = %s"""

DOORS = {
    "stock Router": "done = Router(initialize_db(url), migrate_dir=folder).run()",
    "registry.router": "done = registry.router(initialize_db(url), folder).run()",
    "Migrations": "done = Migrations(initialize_db(url), registry, folder).apply()",
    "command": """
from click.testing import CliRunner
from orm_core.cli import main
options = ["--url", url, "--folder", folder, "--json"]
result = CliRunner().invoke(main, ["migrate", "apply", *options], catch_exceptions=False)
assert result.exit_code == 0, result.output
done = json.loads(result.output)["applied"]
""",
}
PROGRAM = """
import json, logging, sys
from peewee_migrate import Router
from orm_core import close_db, initialize_db, registry
from orm_core.migrations.migrations import Migrations
url, folder, answer = sys.argv[1:]
{door}
close_db()
open(answer, "w").write(json.dumps(done))
"""


class Deployer:
    """A deploy script in a process of its own."""

    def __init__(self, door, url, folder, **environ):
        self.answer = folder.parent / f"answer-{time.monotonic_ns()}.json"
        code = PROGRAM.format(door=DOORS[door])
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, url, str(folder), str(self.answer)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environ},
        )

    def done(self):
        """The files it applied, once it has ended."""
        output, _ = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0, output
        return json.loads(self.answer.read_text())

    def dies(self):
        self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == -signal.SIGKILL

    def kill(self):
        self.process.kill()
        self.dies()


@pytest.fixture
def deploy(url, folder):
    """Starts deployers; those that a failed test left are ended."""
    started = []

    def start(door="stock Router", **environ):
        started.append(Deployer(door, url, folder, **environ))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


#: as documented: a file of its own, which a stock Router applies and which can be run again
CONCURRENT_INDEX = """
    if fake:
        return
    database.commit()
    database.execute_sql("DROP INDEX CONCURRENTLY IF EXISTS items_name_key")
    database.execute_sql("CREATE UNIQUE INDEX CONCURRENTLY items_name_key ON items (name)")
    database.begin()
"""
DROP_CONCURRENT_INDEX = """
    if fake:
        return
    database.commit()
    database.execute_sql("DROP INDEX CONCURRENTLY IF EXISTS items_name_key")
    database.begin()
"""


@pytest.fixture
def three_files(folder):
    """A table, a change of data that counts its runs, an index built CONCURRENTLY."""
    write(
        folder,
        "001_items",
        """
        migrator.sql("CREATE TABLE items (id serial PRIMARY KEY, name text)")
        migrator.sql("CREATE TABLE runs (at timestamptz DEFAULT clock_timestamp())")
        """,
        'migrator.sql("DROP TABLE items, runs")',
    )
    write(
        folder,
        "002_fill",
        """
        migrator.sql("INSERT INTO runs DEFAULT VALUES")
        migrator.sql("INSERT INTO items (name) SELECT 'item ' || n FROM generate_series(1, 50) AS n")
        """,
    )
    write(folder, "003_index", CONCURRENT_INDEX, DROP_CONCURRENT_INDEX)
    return folder


THREE = ["001_items", "002_fill", "003_index"]


def is_index_valid(url):
    return rows(
        url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'items_name_key'::regclass"
    )


# -- several deployers at once ------------------------------------------------------------------


@contextmanager
def starting_gate(url, count):
    """The block's deployers all stand in line for the lock before one of them gets it."""
    with client(url) as run:
        run("SELECT pg_advisory_lock(%s)", deploy_lock.KEY)
        yield
        wait_for(url, POLLING, count, what="all deployers wait for the lock")
        run("SELECT pg_advisory_unlock(%s)", deploy_lock.KEY)


@pytest.mark.parametrize(
    "doors",
    [
        *[(door, door) for door in DOORS],
        ("stock Router", "registry.router", "Migrations", "command", "stock Router"),
    ],
    ids=lambda doors: f"{len(doors)} {doors[0] if len(set(doors)) == 1 else 'mixed'}",
)
def test_of_deployers_at_once_one_applies_and_the_others_find_nothing_to_do(
    doors, url, three_files, deploy
):
    with starting_gate(url, len(doors)):
        deployers = [deploy(door) for door in doors]
    assert sorted(one.done() for one in deployers) == [[]] * (len(doors) - 1) + [THREE]
    assert rows(url, "SELECT count(*) FROM runs") == [(1,)]
    assert rows(url, "SELECT count(*) FROM items") == [(50,)]
    assert rows(url, "SELECT name FROM migratehistory ORDER BY id") == [(name,) for name in THREE]


def test_threads_of_one_process_deploy_one_after_the_other(database, url, three_files):
    """The Router's mock is the process's, so only the history's part is looked at."""
    with database.connection_context():
        peewee_migrate.Router(database, migrate_dir=three_files).run()
        found = []
        other = threading.Thread(
            target=lambda: found.append(runner.apply(database, three_files)), daemon=True
        )
        other.start()
        wait_for(url, POLLING, 1)
        assert not found
    other.join(DEADLINE)
    assert found == [[]]


def test_a_deployer_that_waits_says_so_once(database, url, three_files, caplog):
    caplog.set_level(logging.INFO, "orm_core.migrations")
    with starting_gate(url, 1):
        other = threading.Thread(target=runner.apply, args=(database, three_files), daemon=True)
        other.start()
    other.join(DEADLINE)
    assert caplog.messages.count("Waiting for another deployer to finish.") == 1


def test_a_deployer_that_waited_too_long_says_whom_to_look_for(
    database, url, three_files, monkeypatch
):
    monkeypatch.setattr(deploy_lock.acquire, "__defaults__", (0.2,))
    with client(url) as run:
        run("SELECT pg_advisory_lock(%s)", deploy_lock.KEY)
        with pytest.raises(Exception, match=r"Another deployer has been .* pg_locks"):
            runner.apply(database, three_files)
    assert runner.apply(database, three_files) == THREE


def test_other_databases_of_the_server_are_deployed_meanwhile(new_url, three_files):
    with client(new_url()) as run:
        run("SELECT pg_advisory_lock(%s)", deploy_lock.KEY)
        database = initialize_db(new_url())
        assert runner.apply(database, three_files) == THREE
        database.close_all()


@pytest.mark.parametrize("call", ["status", "pending", "problems", "command"])
def test_looking_waits_for_no_deployer(call, database, url, three_files, deploy):
    write(three_files, "004_long", 'migrator.sql("SELECT pg_sleep(600)")')
    deployer = deploy()
    wait_for(url, SLEEPS)
    look = Migrations(database, registry, three_files)
    if call == "status":
        assert look.status() == runner.Status(tuple(THREE), ("004_long",))
    elif call == "pending":
        assert look.pending() == ("004_long",)
    elif call == "problems":
        assert look.problems() == []
    else:
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("orm-core"), "migrate", "status", "--json"),
                *("--url", url, "--folder", three_files),
            ],
            capture_output=True,
            timeout=DEADLINE,
            check=True,
        )
        assert json.loads(done.stdout) == {"applied": THREE, "pending": ["004_long"]}
    deployer.kill()


def test_the_lock_is_free_once_the_connection_is_closed(database, url, three_files):
    peewee_migrate.Router(database, migrate_dir=three_files).run()
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert database.is_deploying()
    assert rows(url, held) == [(1,)]
    database.close()
    assert rows(url, held) == [(0,)]


@pytest.mark.parametrize("make", [registry.router, peewee_migrate.Router])
def test_a_router_that_runs_again_takes_the_lock_again(make, database, url, three_files):
    router = make(database, three_files)
    router.run()
    database.close()
    write(three_files, "004_last", 'migrator.sql("CREATE TABLE last (id int)")')
    done = []
    with starting_gate(url, 1):
        thread = threading.Thread(target=lambda: done.append(router.run()), daemon=True)
        thread.start()
    thread.join(DEADLINE)
    assert done == [["004_last"]]


def test_the_history_is_looked_at_once_the_lock_is_held(database, url, three_files):
    """What another deployer applied while this one waited counts."""
    write(three_files, "004_theirs", 'migrator.sql("SELECT 4")')
    failures = []

    def deploy():
        try:
            Migrations(database, registry, three_files).apply()
        except MigrationError as error:
            failures.append(str(error))

    thread = threading.Thread(target=deploy, daemon=True)
    with starting_gate(url, 1):
        thread.start()
        wait_for(url, POLLING, 1)
        with client(url) as run:
            run(
                "CREATE TABLE migratehistory (id serial PRIMARY KEY, name varchar(255) NOT NULL, "
                "migrated_at timestamp NOT NULL)"
            )
            run("INSERT INTO migratehistory (name, migrated_at) VALUES ('004_theirs', now())")
    thread.join(DEADLINE)
    assert len(failures) == 1
    assert "001_items is pending and sorts before 004_theirs" in failures[0]
    assert rows(url, "SELECT to_regclass('items')") == [(None,)]


@pytest.mark.parametrize("call", [runner.apply, runner.fake])
def test_our_own_calls_let_go_of_the_lock_by_themselves(call, database, url, three_files):
    call(database, three_files)
    assert rows(url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


def test_a_deployer_whose_connection_was_lost_between_files_does_not_go_on_without_the_lock(
    database, url, folder
):
    """It lost the lock with the session, so another one may be at work by now."""
    write(folder, "001_items", 'migrator.sql("CREATE TABLE items (id int)")')
    write(folder, "002_more", 'migrator.sql("CREATE TABLE more (id int)")')

    class Interrupted(peewee_migrate.Router):
        def run_one(self, name, migrator, **options):
            if name == "002_more":
                with client(url) as run:
                    run(
                        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                    run("SELECT pg_advisory_lock(%s)", deploy_lock.KEY)
                    return super().run_one(name, migrator, **options)
            return super().run_one(name, migrator, **options)

    with pytest.raises(Exception, match=r"connection|lock"):
        Interrupted(database, migrate_dir=folder).run()
    database.close()
    assert rows(url, "SELECT to_regclass('more')") == [(None,)]
    assert runner.apply(database, folder) == ["002_more"]


# -- killed -------------------------------------------------------------------------------------


def test_after_a_deployer_was_killed_in_a_statement_the_next_one_proceeds(url, three_files, deploy):
    """The server does not see that its client is gone while a statement runs, unless told to."""
    write(
        three_files,
        "004_long",
        "if 'LONG' in os.environ: migrator.sql('SELECT pg_sleep(600)')",
    )
    first = deploy(LONG="1")
    wait_for(url, SLEEPS)
    first.kill()
    assert deploy().done() == ["004_long"]


def test_after_a_deployer_was_killed_between_statements_the_next_one_proceeds(
    url, three_files, deploy
):
    write(
        three_files,
        "004_dies",
        """
        migrator.sql("CREATE TABLE half (id int)")
        if 'DIE' in os.environ: migrator.run(os.kill, os.getpid(), signal.SIGKILL)
        """,
    )
    deploy(DIE="1").dies()
    assert rows(url, "SELECT to_regclass('half')") == [(None,)]
    assert deploy().done() == ["004_dies"]


def test_one_that_waits_goes_on_when_the_holder_is_killed(url, three_files, deploy):
    write(three_files, "004_long", "if 'LONG' in os.environ: time.sleep(600)")
    first = deploy(LONG="1")
    wait_for(url, "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')")
    second = deploy("registry.router")
    wait_for(url, POLLING, 1)
    first.kill()
    done = second.done()
    assert done[-1:] == ["004_long"]
    assert rows(url, "SELECT count(*) FROM runs") == [(1,)]


MANY = (
    "SET LOCAL lock_timeout = '5s'",
    "CREATE TYPE mood AS ENUM ('glad', 'sad')",
    "CREATE TABLE parents (id int PRIMARY KEY, mood mood)",
    "INSERT INTO parents SELECT n, 'glad' FROM generate_series(1, 9) AS n",
    "CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents)",
    "CREATE INDEX children_parent_idx ON children (parent)",
    "ALTER TABLE parents ADD COLUMN note text NOT NULL DEFAULT 'none'",
    "UPDATE parents SET note = 'first' WHERE id = 1",
)
SCHEMA = """
    SELECT table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'migratehistory'
    UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes
    WHERE schemaname = 'public' AND tablename <> 'migratehistory'
    ORDER BY 1, 2
"""


def write_many(folder):
    """A file of many statements, killed after one of them, and one file after it."""
    lines = ["if fake: return"]
    for place, statement in enumerate(MANY):
        lines.append(f'migrator.sql("{statement}")')
        lines.append(
            f"if os.environ.get('DIE_AFTER') == '{place}': "
            "migrator.run(os.kill, os.getpid(), signal.SIGKILL)"
        )
    write(folder, "001_many", "\n".join(lines))
    write(
        folder,
        "002_next",
        f"""
        if os.environ.get('DIE_AFTER') == '{len(MANY)}' and not fake:
            os.kill(os.getpid(), signal.SIGKILL)
        migrator.sql("CREATE TABLE last (id int)")
        """,
    )


@pytest.mark.parametrize("place", range(len(MANY) + 1))
def test_killed_after_any_statement_a_run_again_reaches_the_same(
    place, database, url, new_url, folder, deploy
):
    write_many(folder)
    deploy("registry.router" if place % 2 else "stock Router", DIE_AFTER=str(place)).dies()
    whole = place == len(MANY)
    assert runner.apply(database, folder) == (["002_next"] if whole else ["001_many", "002_next"])
    straight = new_url()
    database = initialize_db(straight)
    runner.apply(database, folder)
    assert rows(url, SCHEMA) == rows(straight, SCHEMA)
    select = "SELECT id, mood::text, note FROM parents ORDER BY id"
    assert rows(url, select) == rows(straight, select)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    """A server that a test may kill."""
    folder = tmp_path_factory.mktemp("server") / "pg"
    for parent in folder.parents[:3]:
        parent.chmod(0o711)
    server = EmbeddedPostgres(folder)
    yield server.start()
    server.remove()


def kill_server(server):
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE
    while server.pid == pid and server.running:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("router", ["stock Router", "ours"])
@pytest.mark.parametrize("kind", ["transaction", "concurrent index"])
def test_when_the_server_is_killed_midway_a_run_again_reaches_the_same(
    router, kind, own_server, three_files, new_url
):
    url = own_server.start().url
    with client(url) as run:
        run("DROP SCHEMA public CASCADE")
        run("CREATE SCHEMA public")
    if kind == "transaction":
        write_many(three_files)
        (three_files / "001_many.py").rename(three_files / "004_many.py")
        (three_files / "002_next.py").rename(three_files / "005_next.py")
        text = (three_files / "004_many.py").read_text()
        slow = 'if os.environ.get("SLOW"): migrator.sql("SELECT pg_sleep(600)")\n    migrator.sql("'
        (three_files / "004_many.py").write_text(
            text.replace('migrator.sql("CREATE INDEX', f"{slow}CREATE INDEX")
        )
        names = [*THREE, "004_many", "005_next"]
    else:
        names = THREE
        database = initialize_db(url)
        runner.apply(database, three_files, "2")

    def apply():
        database = initialize_db(url)
        try:
            if router == "ours":
                return runner.apply(database, three_files)
            return peewee_migrate.Router(database, migrate_dir=three_files).run()
        finally:
            database.close_all()

    failures = []

    def deploy():
        try:
            apply()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=deploy, daemon=True)
    with pytest.MonkeyPatch.context() as patch, client(url) as other:
        patch.setenv("SLOW", "1")
        if kind == "concurrent index":
            other("BEGIN")
            other("INSERT INTO items (name) VALUES ('open')")
        thread.start()
        building = (
            "EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%%CREATE UNIQUE INDEX CONC%%' "
            "AND wait_event_type = 'Lock')"
        )
        wait_for(url, SLEEPS if kind == "transaction" else building.replace("%%", "%"))
        kill_server(own_server)
        thread.join(DEADLINE)
    assert len(failures) == 1
    own_server.start()
    apply()
    straight = new_url()
    database = initialize_db(straight)
    assert runner.apply(database, three_files) == names
    assert rows(url, SCHEMA) == rows(straight, SCHEMA)
    assert is_index_valid(url) == [(True,)]
    assert rows(url, "SELECT count(*) FROM runs") == [(1,)]


# -- busy tables --------------------------------------------------------------------------------


@pytest.fixture
def busy(database, url, folder, monkeypatch):
    """A file that changes a table which another session reads in a long transaction."""
    monkeypatch.setattr(runner, "PAUSE", 0.02)
    write(folder, "001_items", 'migrator.sql("CREATE TABLE items (id int)")')
    runner.apply(database, folder)
    write(
        folder,
        "002_change",
        """
        migrator.sql("SET LOCAL lock_timeout = '200ms'")
        migrator.sql("CREATE TABLE more (id int)")
        migrator.sql("ALTER TABLE items ADD COLUMN name text")
        """,
    )
    with client(url) as holder:
        holder("BEGIN")
        holder("SELECT * FROM items")
        yield holder


def test_a_busy_table_is_tried_again_until_its_holder_leaves(busy, database, folder, url, caplog):
    caplog.set_level(logging.WARNING, "orm_core.migrations")
    failures = []

    class Leaves(logging.Handler):
        def emit(self, record):
            failures.append(record.getMessage())
            if len(failures) == 3:
                busy("ROLLBACK")

    handler = Leaves(logging.WARNING)
    logging.getLogger("orm_core.migrations").addHandler(handler)
    try:
        assert runner.apply(database, folder) == ["002_change"]
    finally:
        logging.getLogger("orm_core.migrations").removeHandler(handler)
    assert len(failures) == 3
    assert all("002_change" in one for one in failures)
    assert rows(url, "SELECT to_regclass('more')") == [("more",)]


def test_readers_that_come_meanwhile_get_through_though_the_holder_stays(
    busy, database, folder, url
):
    """They stand behind the change for as long as its lock_timeout, and no longer."""
    failures = []

    def deploy():
        try:
            runner.apply(database, folder)
        except MigrationError as error:
            failures.append(error)

    thread = threading.Thread(target=deploy, daemon=True)
    thread.start()
    with client(url) as reader:
        reader("SET statement_timeout = '10s'")
        for _ in range(3):
            wait_for(url, WAITS)
            assert reader("SELECT * FROM items") == []
    thread.join(DEADLINE)
    assert len(failures) == 1


def test_it_gives_up_after_its_attempts_and_names_the_file(busy, database, folder, url, caplog):
    caplog.set_level(logging.WARNING, "orm_core.migrations")
    with pytest.raises(MigrationError, match=r"002_change .* lock"):
        runner.apply(database, folder)
    assert len([one for one in caplog.messages if "busy table" in one]) == runner.ATTEMPTS - 1
    assert rows(url, "SELECT to_regclass('more')") == [(None,)]
    assert runner.status(database, folder).pending == ("002_change",)
    busy("ROLLBACK")
    assert runner.apply(database, folder) == ["002_change"]


def test_the_deploy_lock_is_held_through_the_pauses(
    busy, database, folder, url, deploy, monkeypatch
):
    monkeypatch.setattr(runner, "PAUSE", 0.2)
    thread = threading.Thread(target=runner.apply, args=(database, folder), daemon=True)
    thread.start()
    wait_for(url, WAITS)
    other = deploy()
    wait_for(url, POLLING, 1)
    busy("ROLLBACK")
    thread.join(DEADLINE)
    assert other.done() == []


def test_a_stock_router_gives_up_at_the_lock_timeout_and_can_be_run_again(busy, database, folder):
    router = peewee_migrate.Router(database, migrate_dir=folder)
    with pytest.raises(Exception, match="lock"):
        router.run()
    busy("ROLLBACK")
    assert peewee_migrate.Router(database, migrate_dir=folder).run() == ["002_change"]


def test_a_file_that_is_the_victim_of_a_deadlock_is_tried_again(database, url, folder, monkeypatch):
    monkeypatch.setattr(runner, "PAUSE", 0.02)
    write(folder, "001_items", 'migrator.sql("CREATE TABLE a (id int); CREATE TABLE b (id int)")')
    runner.apply(database, folder)
    write(
        folder,
        "002_both",
        """
        migrator.sql("SET LOCAL lock_timeout = '30s'")
        migrator.sql("ALTER TABLE a ADD COLUMN name text")
        migrator.sql("ALTER TABLE b ADD COLUMN name text")
        """,
    )
    results = []

    def deploy():
        try:
            results.append(runner.apply(database, folder))
        except MigrationError as error:
            results.append(error)

    thread = threading.Thread(target=deploy, daemon=True)
    with client(url) as other:
        other("SET deadlock_timeout = '60s'")
        other("BEGIN")
        other("LOCK TABLE b")
        thread.start()
        wait_for(url, WAITS)
        other("SELECT * FROM a")
        other("COMMIT")
    thread.join(DEADLINE)
    assert results == [["002_both"]]


def test_other_failures_are_not_tried_again(database, folder, caplog):
    caplog.set_level(logging.WARNING, "orm_core.migrations")
    write(folder, "001_wrong", 'migrator.sql("nonsense")')
    with pytest.raises(MigrationError, match="001_wrong"):
        runner.apply(database, folder)
    assert not [one for one in caplog.messages if "busy" in one]


# -- indexes built CONCURRENTLY -----------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_a_concurrent_index_is_built_with_the_deploy_lock_held(door, url, three_files, deploy):
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    path = three_files / "003_index.py"
    note = f'    database.execute_sql("INSERT INTO locks ({held})")\n'
    text = path.read_text().replace("    database.begin()\n", f"{note}    database.begin()\n", 1)
    path.write_text(text)
    with client(url) as run:
        run("CREATE TABLE locks (count int)")
    assert deploy(door).done() == THREE
    assert is_index_valid(url) == [(True,)]
    assert rows(url, "SELECT * FROM locks") == [(1,)]


def test_a_concurrent_index_waits_for_writers_and_not_for_a_deployer_that_waits(
    url, three_files, deploy
):
    with client(url) as writer:
        first = deploy()
        wait_for(url, "to_regclass('items') IS NOT NULL")
        first.done()
        writer("DELETE FROM migratehistory WHERE name = '003_index'")
        writer("BEGIN")
        writer("INSERT INTO items (name) VALUES ('open')")
        builder = deploy()
        wait_for(
            url,
            "EXISTS (SELECT FROM pg_stat_activity WHERE query ~ 'INDEX CONCURRENTLY' "
            "AND wait_event_type = 'Lock')",
        )
        waiting = deploy("Migrations")
        wait_for(url, POLLING, 1)
        writer("COMMIT")
        assert builder.done() == ["003_index"]
        assert waiting.done() == []
    assert is_index_valid(url) == [(True,)]


@pytest.mark.parametrize("stock", [True, False], ids=["stock Router", "ours"])
def test_a_concurrent_index_that_failed_is_built_by_the_next_run(stock, database, url, three_files):
    def apply():
        if stock:
            return peewee_migrate.Router(database, migrate_dir=three_files).run()
        return runner.apply(database, three_files)

    runner.apply(database, three_files, "2")
    with client(url) as run:
        run("INSERT INTO items (name) VALUES ('twice'), ('twice')")
        with pytest.raises(Exception, match="key"):
            apply()
        assert is_index_valid(url) == [(False,)]
        assert not database.in_transaction()
        run("DELETE FROM items WHERE name = 'twice'")
    assert apply() == ["003_index"]
    assert is_index_valid(url) == [(True,)]


def test_a_deployer_killed_while_it_builds_an_index_does_not_hold_up_the_next(
    url, three_files, deploy
):
    write(three_files, "004_last", 'migrator.sql("CREATE TABLE last (id int)")')
    runner_database = initialize_db(url)
    runner.apply(runner_database, three_files, "2")
    runner_database.close_all()
    with client(url) as writer:
        writer("BEGIN")
        writer("INSERT INTO items (name) VALUES ('open')")
        first = deploy()
        wait_for(
            url,
            "EXISTS (SELECT FROM pg_stat_activity WHERE query ~ 'CREATE UNIQUE INDEX CONC' "
            "AND wait_event_type = 'Lock')",
        )
        first.kill()
        wait_for(
            url,
            "NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')",
            what="the server sees that its client is gone",
        )
        second = deploy()
        writer("COMMIT")
    assert second.done() == ["003_index", "004_last"]
    assert is_index_valid(url) == [(True,)]


def test_a_concurrent_index_is_rolled_back_concurrently(database, url, three_files):
    runner.apply(database, three_files)
    assert runner.rollback(database, three_files) == ["003_index"]
    assert rows(url, "SELECT to_regclass('items_name_key')") == [(None,)]
    assert runner.apply(database, three_files) == ["003_index"]


# -- to, fake, rollback -------------------------------------------------------------------------


def test_apply_to_stops_there_and_the_next_goes_on(database, three_files):
    team = Migrations(database, registry, three_files)
    assert team.apply(to="1") == THREE[:1]
    assert team.apply("002_fill") == THREE[1:2]
    assert team.pending() == ("003_index",)
    assert team.apply() == THREE[2:]
    assert team.apply() == []


def test_what_is_noted_as_applied_is_not_run(database, url, three_files):
    team = Migrations(database, registry, three_files)
    with client(url) as run:
        run("CREATE TABLE items (id serial PRIMARY KEY, name text)")
        run("CREATE TABLE runs (at timestamptz DEFAULT clock_timestamp())")
    assert team.fake(to="1") == THREE[:1]
    assert team.apply() == THREE[1:]
    assert is_index_valid(url) == [(True,)]


def test_rollback_undoes_the_latest_and_apply_does_them_again(database, url, three_files):
    team = Migrations(database, registry, three_files)
    team.apply()
    assert team.rollback(3) == THREE[::-1]
    assert rows(url, "SELECT to_regclass('items'), to_regclass('runs')") == [(None, None)]
    assert team.pending() == tuple(THREE)
    assert team.apply() == THREE


def test_a_rollback_waits_for_a_deployer(database, url, three_files):
    runner.apply(database, three_files)
    with starting_gate(url, 1):
        thread = threading.Thread(target=runner.rollback, args=(database, three_files), daemon=True)
        thread.start()
    thread.join(DEADLINE)
    assert runner.status(database, three_files).pending == ("003_index",)
