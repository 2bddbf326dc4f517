"""``orm-core demo`` as a newcomer runs it: no URL, no keys, nothing installed but the package."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest

from orm_core.embedded import EmbeddedPostgres
from orm_core.settings import VARIABLES

ROOT = Path(__file__).parents[2]
COUNT_ALL = (
    "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM sessions), "
    "(SELECT count(*) FROM orders)"
)


def demo(folder):
    """One run of the demo in the repository, with its data in ``folder``."""
    names = {variable for _, variable, _ in VARIABLES}
    environ = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [Path(sys.executable).with_name("orm-core"), "demo"],
        cwd=ROOT,
        env={**environ, "ORM_CORE_EMBEDDED_DIR": str(folder), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The demo twice in one folder, and the rows that it left."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    done = [demo(folder), demo(folder)]
    with EmbeddedPostgres(folder, database="orm_core_demo") as server:
        link = psycopg2.connect(server.start().url)
        with link, link.cursor() as cursor:
            cursor.execute(COUNT_ALL)
            left = cursor.fetchone()
        link.close()
    return done, left


@pytest.fixture(params=[0, 1], ids=["first run", "second run"])
def run(runs, request):
    return runs[0][request.param]


def test_the_demo_ends_well(run):
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_the_demo_can_be_run_twice(runs):
    (first, second), _ = runs
    assert re.search(r"Migrations\n  001_\w+", first.stdout)
    assert "Migrations\n  all applied already" in second.stdout


def test_the_demo_leaves_no_rows(runs):
    assert runs[1] == (0, 0, 0)


def test_the_demo_shows_what_it_creates(run):
    for step in ("User created", "Session created", "Order created"):
        assert f"audit  {step}  service:create" in run.stdout


def test_the_demo_shows_the_audit_after_the_commit(run):
    assert run.stdout.index("follow the commit") < run.stdout.index("User created")


def test_the_demo_shows_a_rollback(run):
    assert "error  Failed to create user: DuplicateKey" in run.stdout
    assert "users before: 1, after: 1" in run.stdout
    assert run.stdout.count("audit  User created") == 1


def test_the_demo_shows_find_delete_and_restore(run):
    for line in (
        "find_by_email: Ada",
        "deleted: found None; with include_deleted: Ada",
        "sessions that went with her: 1",
        "restored, with 1 session",
    ):
        assert line in run.stdout


def test_the_demo_shows_an_encrypted_token(run):
    stored = re.search(r"token in the database: (\w+)", run.stdout)[1]
    assert re.fullmatch(r"[0-9a-f]{32}", stored)
    assert "token in Python: Secret('********')" in run.stdout


def test_the_demo_ends_with_the_metrics(run):
    title = "db_queries_total and db_query_duration_seconds"
    table = run.stdout.partition(title)[2]
    rows = dict(re.findall(r"│ (\w+ +│ \w+) +│ +(\d+) │", table))
    counts = {tuple(re.split(r" +│ ", name)): int(count) for name, count in rows.items()}
    assert counts["insert", "users"] == 3
    assert counts["insert", "sessions"] == 1
    assert counts["insert", "orders"] == 1
    assert counts["rollback", "none"] == 1


def test_the_metrics_count_what_failed(run):
    assert re.search(r"│ insert +│ users +│ +3 │ +1 │", run.stdout)


def test_the_demo_tells_its_story_in_order(run):
    titles = re.findall(r"^(\w[^\n│]*)$", run.stdout, re.MULTILINE)
    assert titles[:5] == [
        "Starting the embedded PostgreSQL",
        "Migrations",
        "User, session and order in one transaction",
        "A transaction that fails is rolled back whole",
        "Find, soft-delete, restore",
    ]
