"""The studio's dashboard, migrations, drift, diagram and command."""

import http.server
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from service_helpers import new_session, new_user
from studio_helpers import ROOT, browser, everything, words

from domains.users import User
from orm_core import (
    BaseModel,
    ConfigurationError,
    Domain,
    EncryptedTextField,
    ForeignKeyField,
    IndexKeys,
    KeyRing,
    Registry,
    Secret,
    use_index_keys,
    use_key_ring,
)
from orm_core.cli import main
from orm_core.studio import dashboard, diagram, health, slow
from orm_core.studio.tables import Tables

# -- dashboard --------------------------------------------------------------------------------------


def test_the_dashboard_shows_queries_pool_server_keys_and_activity(look):
    new_session()
    look.studio.sampler.take()
    User.select().count()
    look.studio.sampler.take()
    page = words(look.get("/-/dashboard"))
    for text in ("Queries by table and operation", "users select", "of 10 connections", "PostgreSQL",
                 "sessions.provider_access_token_iv k1", "in use"):  # fmt: skip
        assert text in page, text


def test_a_key_that_is_not_in_the_ring_is_told(look):
    new_session()
    use_key_ring(KeyRing.parse(KeyRing.generate("k9")))
    assert "key is missing" in words(look.get("/-/dashboard"))


def test_data_keys_and_blind_indexes_are_told_too(clone_db):
    class Guest(BaseModel):
        code = EncryptedTextField(blind_index=True, owner="self")

    registry = Registry()
    registry.register(Domain("guests", models=(Guest,)))
    use_key_ring(KeyRing.parse(KeyRing.generate("k1")))
    use_index_keys(IndexKeys.parse(IndexKeys.generate("i1")))
    try:
        clone_db.create_tables(registry.models)
        Guest.create(code=Secret("1234"))
        found = health.keys(clone_db, Tables(registry))
        assert {(one.column, one.key, one.state) for one in found} == {
            ("code_iv", "@owner", "seals"),
            ("code_index", "i1", "seals"),
            ("wrapped_iv", "k1", "seals"),
        }
    finally:
        use_key_ring(None)
        use_index_keys(None)


PAGE = """
# TYPE db_queries counter
db_queries_total{{operation="select",table="carts"}} {count}
# TYPE db_query_duration_seconds histogram
db_query_duration_seconds_bucket{{operation="select",table="carts",le="0.001"}} {half}
db_query_duration_seconds_bucket{{operation="select",table="carts",le="0.01"}} {count}
db_query_duration_seconds_bucket{{operation="select",table="carts",le="+Inf"}} {count}
db_query_duration_seconds_sum{{operation="select",table="carts"}} {seconds}
db_query_duration_seconds_count{{operation="select",table="carts"}} {count}
# TYPE db_query_errors counter
db_query_errors_total{{operation="select",table="carts",kind="timeout"}} 2
db_query_errors_total{{operation="select",table="carts",kind="lock"}} 1
# TYPE db_connections_in_use gauge
db_connections_in_use 3
# TYPE db_connection_pool_limit gauge
db_connection_pool_limit 20
"""


@contextmanager
def exporting(pages):
    """The address of a service's /metrics page, which answers these texts in turn."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, text = next(pages)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def test_the_metrics_of_a_service_are_shown_where_it_is_told_of_them(studio_db):
    texts = (
        (200, PAGE.format(count=count, half=count / 2, seconds=count / 200))
        for count in itertools.count(100, 100)
    )
    with exporting(texts) as url:
        found = browser(studio_db, metrics_url=url)
        found.studio.sampler.take()
        found.studio.sampler.take()
        page = words(found.get("/-/dashboard"))
        line = found.studio.sampler.lines()[0]
        found.studio.close()
    assert (line.table, line.operation, line.count, line.errors) == ("carts", "select", 200, 3)
    assert line.mean == pytest.approx(5)
    assert line.p95 == pytest.approx(9.1)
    assert "3 of 20 connections" in page


def test_a_service_that_does_not_answer_is_told_and_nothing_fails(studio_db):
    with exporting(iter([(500, "no"), (200, "{ nonsense")])) as url:
        found = browser(studio_db, metrics_url=url)
        for _ in range(2):
            found.studio.sampler.take()
            assert "can't be read" in words(found.get("/-/dashboard"))
            assert found.studio.sampler.problem
    assert "can't be read" in words(found.get("/-/dashboard"))
    found.studio.close()


def test_metrics_come_by_http_only():
    with pytest.raises(ConfigurationError, match="http://"):
        dashboard.Sampler("file:///etc/passwd")


def test_a_counter_that_fell_began_anew():
    assert dashboard._rates([(0, 10), (5, 20), (10, 0), (15, 5)]) == [2, 0, 1]


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({}, None),
        ({0.1: 0, float("inf"): 0}, None),
        ({0.1: 100, float("inf"): 100}, 95),
        ({0.1: 50, 0.2: 100, float("inf"): 100}, 190),
        ({0.1: 10, float("inf"): 100}, 100),
    ],
)
def test_quantiles_are_reckoned_as_prometheus_does(buckets, expected):
    found = dashboard.quantile(buckets, 0.95)
    assert found == (None if expected is None else pytest.approx(expected))


def test_samples_are_taken_while_the_studio_runs(studio_db, monkeypatch):
    monkeypatch.setattr(dashboard, "EVERY", 0.01)
    found = browser(studio_db)
    found.studio.sampler.start()
    deadline = time.monotonic() + 30
    while len(found.studio.sampler.samples) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    found.studio.close()
    assert len(found.studio.sampler.samples) >= 3


def test_slow_queries_are_kept_as_text_without_values(look, monkeypatch):
    monkeypatch.setattr(slow, "SLOW", 0.0)
    user = new_user()
    look.get(f"/users?email={user.email}")
    texts = [one.sql for one in look.studio.slow.slowest()]
    assert any('"users"' in text for text in texts)
    assert not [text for text in texts if user.email in text]
    assert user.email not in look.get("/-/dashboard").get_data(as_text=True)
    assert len(texts) <= slow.KEPT


# -- migrations and drift -----------------------------------------------------------------------------


def test_migrations_are_shown_with_their_sql_and_whether_they_are_applied(look, studio_db):
    page = look.get("/-/migrations")
    assert "applied 001_users_sessions_orders" in words(page)
    assert "CREATE TABLE users" in words(page)
    studio_db.execute_sql("DELETE FROM migratehistory")
    try:
        page = words(look.get("/-/migrations"))
        assert "pending 001_users_sessions_orders" in page
        assert "orm-core migrate apply" in page
    finally:
        studio_db.execute_sql(
            "INSERT INTO migratehistory (name, migrated_at) "
            "VALUES ('001_users_sessions_orders', now())"
        )


def test_a_folder_without_migrations_is_told(look, tmp_path):
    look.studio.folder = tmp_path
    assert "There are no migration files yet" in words(look.get("/-/migrations"))
    look.studio.folder = tmp_path / "nowhere"
    assert "There is no folder" in words(look.get("/-/migrations"))


def test_drift_is_looked_for_beside_the_studio(clone_db, orm_core_server, monkeypatch):
    monkeypatch.chdir(ROOT)
    url = orm_core_server.url(clone_db.database)
    found = browser(clone_db, url=url)
    assert found.post("/-/migrations/drift").status_code == 303
    assert "The database is what its files make." in words(found.get("/-/migrations"))
    clone_db.execute_sql("ALTER TABLE users ADD COLUMN extra text")
    found.post("/-/migrations/drift")
    page = words(found.get("/-/migrations"))
    assert "extra" in page
    assert "ALTER TABLE public.users DROP COLUMN extra" in page
    found.studio.close()


def test_drift_that_can_not_be_told_is_a_problem_in_words(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = health.drift("postgresql://app@127.0.0.1:1/shop", ROOT / "migrations")
    assert found.problem is not None
    assert "Connection refused" in found.problem


# -- diagram ----------------------------------------------------------------------------------------


def test_the_diagram_shows_each_table_in_its_domain_and_each_reference(look):
    page = look.get("/-/diagram")
    text = page.get_data(as_text=True)
    for table in Tables(everything):
        assert f'data-box="{table.name}"' in text
    assert "studio_pieces.parent_id refers to studio_pieces, or to none" in words(page).replace(
        " .", "."
    ).replace(" ,", ",")
    assert text.count('class="group ') == 3


def chain(count):
    """Domains that each refer to the one before, and a table that refers to all."""
    models = []
    for number in range(count):
        body = {
            f"to{other}": ForeignKeyField(model, null=bool(other % 2), backref=f"from{number}")
            for other, model in enumerate(models)
        }
        meta = type("Meta", (), {"table_name": f"studio_chain_{number}"})
        models.append(type(f"Chain{number}", (BaseModel,), {**body, "Meta": meta}))
    registry = Registry()
    registry.register(
        *(Domain(f"d{number // 3}", tuple(models[number : number + 3]))
          for number in range(0, count, 3))
    )  # fmt: skip
    return diagram.draw(Tables(registry))


@pytest.fixture(scope="module")
def large():
    return chain(15)


def segments(line):
    points = [
        (float(x), float(y)) for x, y in re.findall(r"[MLQ ](-?\d+\.\d) (-?\d+\.\d)", line.path)
    ]
    return list(itertools.pairwise(points))


def test_no_line_of_the_diagram_crosses_a_box(large):
    for line in large.lines:
        for (x, y), (u, v) in segments(line):
            for box in large.boxes:
                inside = (
                    min(x, u) < box.x + diagram.WIDTH - 1
                    and max(x, u) > box.x + 1
                    and min(y, v) < box.y + box.height - 1
                    and max(y, v) > box.y + 1
                )
                assert not inside, (line.table, line.target, box.table.name)


def test_boxes_and_domains_do_not_overlap(large):
    def apart(one, other):
        return (
            one.x + one.width <= other.x
            or other.x + other.width <= one.x
            or one.y + one.height <= other.y
            or other.y + other.height <= one.y
        )

    for one, other in itertools.combinations(large.groups, 2):
        assert apart(one, other)
    for one, other in itertools.combinations(large.boxes, 2):
        assert one.x != other.x or abs(one.y - other.y) >= min(one.height, other.height)
    for box in large.boxes:
        assert 0 < box.x < large.width - diagram.WIDTH
        assert box.y + box.height < large.height


def test_vertical_lines_have_lanes_of_their_own(large):
    lanes = {}
    for line in large.lines:
        for (x, y), (u, v) in segments(line):
            if x == u and abs(y - v) > diagram.CORNER * 2:
                lanes.setdefault(x, set()).add((line.table, line.column))
    assert all(len(lines) == 1 for lines in lanes.values())


def test_an_empty_registry_has_a_diagram_too(studio_db):
    assert diagram.draw(Tables(Registry())).boxes == []


# -- the command ------------------------------------------------------------------------------------


@pytest.fixture
def shell(monkeypatch):
    from orm_core.settings import VARIABLES

    for _, variable, _ in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(ROOT)


def test_the_command_serves_until_it_is_interrupted(clone_db, orm_core_server):
    url = orm_core_server.url(clone_db.database)
    # A test run in the background of a shell passes an ignored SIGINT on.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from orm_core.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "studio", "--port", "0", "--no-open"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert "read-only" in line, process.communicate()[1]
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{address}users", timeout=30) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert errors == ""


def test_the_command_refuses_to_write_to_a_remote_database(shell):
    result = CliRunner().invoke(
        main, ["studio", "--write", "--no-open", "--url", "postgresql://db.example.com/shop"]
    )
    assert result.exit_code == 1
    assert "--yes-remote" in result.output


def test_the_command_says_what_to_install():
    code = "import sys; sys.modules['flask'] = None; from orm_core.cli import main; main()"
    command = [sys.executable, "-c", code, "studio", "--no-open"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "orm_core[studio]"' in done.stderr


def test_importing_orm_core_brings_no_flask():
    code = "import sys, orm_core; assert 'flask' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
