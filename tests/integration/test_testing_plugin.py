"""``orm_core.testing``, as the tests of a service use it."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from service_helpers import connect_params, new_user

from domains.users import User
from orm_core import db, transaction

ROOT = Path(__file__).parents[2]


# -- the fixtures, in this process --------------------------------------------------------------


def test_rollback_db_is_the_global_database_with_the_schema(rollback_db):
    assert rollback_db is db
    assert {"users", "sessions", "orders"} <= set(db.get_tables())


def test_rollback_db_runs_the_test_inside_a_transaction(rollback_db):
    assert db.in_transaction()


def test_a_transaction_inside_rollback_db_is_a_savepoint(rollback_db):
    with transaction() as tx:
        new_user()
        assert "savepoint" in repr(tx)
    assert User.select().count() == 1


def test_clone_db_is_the_global_database_with_the_schema_and_no_rows(clone_db):
    assert clone_db is db
    assert not db.in_transaction()
    assert User.with_deleted().count() == 0


def test_other_threads_see_what_is_committed_on_clone_db(clone_db):
    new_user()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(User.select().count()))
    thread.start()
    thread.join()
    assert seen == [1]


# -- a service's own tests, in a process of their own -------------------------------------------

CONFTEST = """
    import pytest
    from orm_core import BaseModel, Domain, Service, TextField, registry

    pytest_plugins = ["orm_core.testing"]

    class Note(BaseModel):
        text = TextField()

        class Meta:
            table_name = "notes"

    class NotesService(Service[Note]):
        pass

    registry.register(Domain("notes", models=(Note,), services=(NotesService,)))

    @pytest.fixture
    def notes():
        return NotesService
"""
TESTS = """
    import threading
    import pytest
    from orm_core import db

    @pytest.mark.parametrize("turn", range(3))
    def test_rolled_back(rollback_db, notes, turn):
        assert notes.count() == 0
        notes.create({"text": "x"})
        assert notes.count() == 1

    def test_that_fails_half_way(rollback_db, notes):
        notes.create({"text": "x"})
        with pytest.raises(ZeroDivisionError), db.atomic():
            1 / 0

    @pytest.mark.parametrize("turn", range(2))
    def test_cloned(clone_db, notes, turn):
        assert notes.count() == 0
        thread = threading.Thread(target=notes.create, args=({"text": "x"},))
        thread.start()
        thread.join()
        assert notes.count() == 1

    def test_after_all(rollback_db, notes):
        assert notes.count() == 0
"""
MIGRATION = """
    def migrate(migrator, database, *, fake=False):
        migrator.sql('''CREATE TABLE notes (
            id uuid PRIMARY KEY, text text NOT NULL, created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL, deleted_at timestamptz, made_by_a_file int)''')
"""


@pytest.fixture
def project(tmp_path):
    """A service with a domain and tests, and without migrations."""
    return new_project(tmp_path)


def new_project(folder):
    write(folder / "conftest.py", CONFTEST)
    write(folder / "test_notes.py", TESTS)
    return folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def run(project, *arguments, **environ):
    """The process id and the last line of a test run that must succeed."""
    given = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", **environ}
    for name in ("DATABASE_URL", "ORM_CORE_MIGRATIONS_DIR", "PYTEST_XDIST_WORKER"):
        given.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=project,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return process.pid, output.strip().splitlines()[-1]


@pytest.fixture
def given_server(orm_core_server):
    return orm_core_server.url("postgres")


def databases(url):
    with closing(psycopg2.connect(**connect_params(url))) as link, link.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        return [name for (name,) in cursor]


@pytest.fixture(scope="module")
def run_on_a_given_server(orm_core_server, tmp_path_factory):
    """The process id and the last line of a run, and the databases that are there after it."""
    url = orm_core_server.url("postgres")
    ran = run(new_project(tmp_path_factory.mktemp("project")), ORM_CORE_TEST_URL=url)
    return *ran, databases(url)


def test_each_test_starts_without_rows_in_the_tables_of_the_registry(run_on_a_given_server):
    _, last, _ = run_on_a_given_server
    assert last.startswith("7 passed")


def test_nothing_is_left_on_a_server_that_was_given(run_on_a_given_server):
    pid, _, after = run_on_a_given_server
    assert [name for name in after if f"_{pid}" in name] == []


def test_with_migrations_the_tables_are_the_files(project, given_server):
    write(project / "migrations/001_notes.py", MIGRATION)
    write(
        project / "test_columns.py",
        """
        from orm_core import db

        def test_columns(rollback_db):
            assert "made_by_a_file" in {one.name for one in db.get_columns("notes")}
        """,
    )
    _, last = run(project, ORM_CORE_TEST_URL=given_server)
    assert last.startswith("8 passed")


def test_workers_of_xdist_do_not_meet(project, given_server):
    before = set(databases(given_server))
    _, last = run(project, "-n", "2", ORM_CORE_TEST_URL=given_server)
    assert last.startswith("7 passed")
    assert set(databases(given_server)) <= before


def test_without_a_server_an_embedded_one_is_used_and_ended(project):
    write(
        project / "test_server.py",
        """
        import json, pathlib

        def test_server(orm_core_server, rollback_db):
            told = {"url": orm_core_server.url("postgres"), "host": orm_core_server.host}
            pathlib.Path("server.json").write_text(json.dumps(told))
        """,
    )
    _, last = run(project, ORM_CORE_TEST_URL="")
    assert last.startswith("8 passed")
    server = json.loads((project / "server.json").read_text())
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(**connect_params(server["url"]))
    assert not Path(server["host"]).exists()


def test_a_server_that_is_not_there_is_told_soon_and_without_its_password(project):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"],
        cwd=project,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTEST_ADDOPTS": "",
            "ORM_CORE_TEST_URL": "postgresql://bob:hunter2@127.0.0.1:1/x",
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert "Connection refused" in done.stdout
    assert "hunter2" not in done.stdout
