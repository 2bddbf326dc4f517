"""What a team checks: files, their sums, the history, the models, the live database."""

import json
import os
import re
import textwrap
from contextlib import closing
from dataclasses import replace

import psycopg2
import pytest
from click.testing import CliRunner
from migration_tools import run_sql, session, write_sql
from peewee_migrate import Router
from service_helpers import connect_params

from orm_core import (
    BaseModel,
    Domain,
    IntegerField,
    MigrationError,
    OrmCoreError,
    Registry,
    TextField,
    initialize_db,
)
from orm_core.cli import main
from orm_core.migrations import history, scratch, sums
from orm_core.migrations.migrations import Drift, Migrations

NOBODY_LISTENS = "postgresql://bob:hunter2@127.0.0.1:1/shop"

pytestmark = pytest.mark.usefixtures("bare_surroundings")


class Item(BaseModel):
    name = TextField()
    size = IntegerField(default=1)


domain = Domain("items", models=(Item,))


@pytest.fixture
def items():
    """A registry of its own with one table."""
    registry = Registry()
    registry.register(domain)
    return registry


ITEMS = """
    CREATE TABLE items (
        id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
        name text NOT NULL,
        size integer DEFAULT 1 NOT NULL,
        created_at timestamptz DEFAULT now() NOT NULL,
        updated_at timestamptz DEFAULT now() NOT NULL,
        deleted_at timestamptz
    )
"""


@pytest.fixture
def folder(tmp_path):
    """Two files, with sums: the table of the registry, and a change of data."""
    path = tmp_path / "migrations"
    path.mkdir()
    write_sql(path, "001_items", ITEMS, back=["DROP TABLE items"])
    write_sql(path, "002_fill", "INSERT INTO items (name, size) VALUES ('100%%', 7)")
    sums.write(path)
    return path


@pytest.fixture
def team(database, items, folder):
    return Migrations(database, items, folder)


def command(*arguments):
    """A command of ``orm-core migrate``; an exception that is no exit is raised."""
    result = CliRunner().invoke(main, ["migrate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# -- files and their sums -----------------------------------------------------------------------


def edit(folder):
    path = folder / "001_items.py"
    path.write_text(path.read_text() + "# an afterthought\n")


def lose(folder):
    (folder / "001_items.py").unlink()


def add_without_sum(folder):
    write_sql(folder, "003_more", "SELECT 1")


def take_the_same_number(folder):
    write_sql(folder, "002_other", "SELECT 1")
    sums.write(folder)


def three_with_one_number(folder):
    write_sql(folder, "002_a", "SELECT 1")
    write_sql(folder, "002_b", "SELECT 1")
    sums.write(folder)


def pass_the_last_number(folder):
    write_sql(folder, "1000_more", "SELECT 1")
    sums.write(folder)


def put_a_dot_into_a_name(folder):
    write_sql(folder, "003_v1.2", "SELECT 1")
    sums.write(folder)


FAULTS = {
    edit: "001_items was edited after it was written",
    lose: "001_items has a sum and no file",
    add_without_sum: "003_more has no sum: run orm-core migrate sum",
    take_the_same_number: "002_fill and 002_other have the same number",
    three_with_one_number: "002_a and 002_b and 002_fill have the same number",
    pass_the_last_number: "1000_more",
    put_a_dot_into_a_name: r"003_v1\.2",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("applied", [False, True], ids=["before", "after apply"])
def test_a_faulty_folder_does_not_pass(fault, applied, team, folder):
    if applied:
        team.apply()
    fault(folder)
    with pytest.raises(MigrationError, match=FAULTS[fault]):
        team.check()
    assert any(re.search(FAULTS[fault], one) for one in team.problems())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_command_check_exits_with_1_and_says_why(fault, folder, url):
    fault(folder)
    result = command("check", "--url", url)
    assert result.exit_code == 1
    assert re.search(FAULTS[fault], result.output)
    result = command("check", "--url", url, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["ok"] is False
    assert re.search(FAULTS[fault], told["problem"])


def test_files_and_models_that_agree_pass(team):
    assert team.problems() == []
    team.check()
    team.apply()
    team.check()


def test_all_faults_are_told_at_once(team, folder):
    edit(folder)
    add_without_sum(folder)
    with pytest.raises(MigrationError, match=r"001_items was edited.*003_more has no sum"):
        team.check()


def test_a_folder_without_sums_is_checked_without_them(team, folder):
    (folder / sums.FILE).unlink()
    edit(folder)
    add_without_sum(folder)
    team.check()
    take = folder / "003_other.py"
    take.write_text((folder / "003_more.py").read_text())
    with pytest.raises(MigrationError, match="have the same number"):
        team.check()


def test_other_files_of_the_folder_do_not_matter(team, folder):
    (folder / "__init__.py").touch()
    (folder / "helpers.py").write_text("A = 1\n")
    (folder / "README.md").write_text("1. Read me.\n")
    team.check()


def test_line_ends_that_git_changed_are_no_edit(team, folder):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    team.check()


def test_a_conflict_of_two_branches_that_nobody_resolved_does_not_pass(team, folder):
    path = folder / sums.FILE
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(f"{first}<<<<<<< HEAD\n{second}=======\n{second}>>>>>>> theirs\n")
    with pytest.raises(MigrationError, match=r"migrations\.sum"):
        team.check()


def test_an_edit_taken_back_passes_again(team, folder):
    path = folder / "001_items.py"
    before = path.read_text()
    edit(folder)
    assert team.problems()
    path.write_text(before)
    assert team.problems() == []


def test_the_command_sum_accepts_what_is_there(team, folder):
    edit(folder)
    assert command("sum").exit_code == 0
    assert team.problems() == []


def test_the_sums_name_each_file_in_order(folder):
    lines = (folder / sums.FILE).read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["001_items", "002_fill"]
    assert all(re.fullmatch(r"[0-9a-f]{64}  \w+", line) for line in lines)


# -- the history --------------------------------------------------------------------------------


def test_an_applied_file_that_is_missing_is_told_and_nothing_is_applied(team, folder):
    team.apply()
    (folder / "002_fill.py").unlink()
    write_sql(folder, "003_more", "CREATE TABLE more (id int)")
    sums.write(folder)
    for call in (team.check, team.apply):
        with pytest.raises(MigrationError, match="002_fill is applied, and its file is missing"):
            call()
    assert team.status().applied == ("001_items", "002_fill")


def test_a_pending_file_before_applied_ones_is_told_and_nothing_is_applied(team, folder):
    team.apply()
    write_sql(folder, "001_late", "CREATE TABLE late (id int)")
    (folder / "001_late.py").rename(folder / "000_late.py")
    sums.write(folder)
    for call in (team.check, team.apply):
        with pytest.raises(
            MigrationError, match="000_late is pending and sorts before 002_fill, which is applied"
        ):
            call()
    assert team.pending() == ("000_late",)


def test_two_files_with_one_number_are_not_applied(team, folder):
    take_the_same_number(folder)
    with pytest.raises(MigrationError, match="have the same number"):
        team.apply()
    assert team.status().applied == ()


@pytest.mark.parametrize("call", ["drift", "plan"])
def test_what_needs_the_applied_files_says_which_one_is_missing(call, team, folder):
    team.apply()
    (folder / "001_items.py").unlink()
    with pytest.raises(MigrationError, match="001_items is applied, and its file is missing"):
        getattr(team, call)()


# -- the models ---------------------------------------------------------------------------------


def test_models_ahead_of_the_files_do_not_pass(team, folder, items):
    class Late(BaseModel):
        text = TextField()

    items.register(Domain("late", models=(Late,)))
    with pytest.raises(MigrationError, match=r"creates lates.*orm-core migrate generate"):
        team.check()


def test_files_ahead_of_the_models_do_not_pass(team, folder):
    write_sql(folder, "003_more", "ALTER TABLE items ADD COLUMN more text")
    sums.write(folder)
    with pytest.raises(MigrationError, match=r"items\.more"):
        team.check()


def test_a_check_without_a_database_uses_the_embedded_one(items, folder, tmp_path):
    team = Migrations(None, items, folder)
    team.check()
    edit(folder)
    with pytest.raises(MigrationError, match="001_items was edited"):
        team.check()


def test_a_check_leaves_the_database_alone(team, url):
    team.check()
    with session(url) as cursor:
        cursor.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert cursor.fetchone() == (0,)


def test_the_command_check_says_that_all_is_well(url, folder, tmp_path):
    package = tmp_path / "domains" / "items"
    package.mkdir(parents=True)
    result = command("check", "--url", url, "--json", "--folder", folder)
    assert result.exit_code == 1  # users and orders are installed, and not in the folder
    assert "creates orders" in json.loads(result.stdout)["problem"]


def test_wrong_usage_exits_with_2(url):
    assert command("check", "--nonsense").exit_code == 2


# -- drift --------------------------------------------------------------------------------------

RICH = (
    "CREATE TYPE mood AS ENUM ('glad', 'sad')",
    """
    CREATE TABLE parents (
        id integer PRIMARY KEY,
        name text NOT NULL DEFAULT '100%%',
        mood mood DEFAULT 'glad',
        total numeric(8, 2),
        CONSTRAINT parents_total_check CHECK (total >= 0)
    )
    """,
    "COMMENT ON COLUMN parents.name IS 'what it is called'",
    "CREATE INDEX parents_name_idx ON parents (name) WHERE total > 0",
    "CREATE TABLE children (id serial PRIMARY KEY, parent integer REFERENCES parents)",
)

#: what somebody did by hand, and the words that must be in the answer
BY_HAND = {
    "extra column": ("ALTER TABLE parents ADD COLUMN extra int", "drops parents.extra"),
    "missing column": ("ALTER TABLE parents DROP COLUMN total CASCADE", "adds parents.total"),
    "missing index": ("DROP INDEX parents_name_idx", "adds index parents_name_idx"),
    "extra index": ("CREATE INDEX handmade ON parents (mood)", "drops index handmade"),
    "other index": (
        "DROP INDEX parents_name_idx; CREATE INDEX parents_name_idx ON parents (name)",
        "changes index parents_name_idx",
    ),
    "changed default": (
        "ALTER TABLE parents ALTER COLUMN name SET DEFAULT 'other'",
        "changes parents.name",
    ),
    "dropped default": (
        "ALTER TABLE parents ALTER COLUMN name DROP DEFAULT",
        "changes parents.name",
    ),
    "other type": (
        "ALTER TABLE parents ALTER COLUMN total TYPE numeric(10, 2)",
        "changes parents.total",
    ),
    "nullable": ("ALTER TABLE parents ALTER COLUMN name DROP NOT NULL", "changes parents.name"),
    "not null": ("ALTER TABLE parents ALTER COLUMN mood SET NOT NULL", "changes parents.mood"),
    "missing check": (
        "ALTER TABLE parents DROP CONSTRAINT parents_total_check",
        "adds constraint parents_total_check",
    ),
    "extra check": (
        "ALTER TABLE parents ADD CONSTRAINT handmade CHECK (name <> '%')",
        "drops constraint handmade",
    ),
    "missing foreign key": (
        "ALTER TABLE children DROP CONSTRAINT children_parent_fkey",
        "adds constraint children_parent_fkey",
    ),
    "other foreign key": (
        "ALTER TABLE children DROP CONSTRAINT children_parent_fkey, ADD CONSTRAINT "
        "children_parent_fkey FOREIGN KEY (parent) REFERENCES parents ON DELETE CASCADE",
        "changes constraint children_parent_fkey",
    ),
    "not validated": (
        "ALTER TABLE children DROP CONSTRAINT children_parent_fkey, ADD CONSTRAINT "
        "children_parent_fkey FOREIGN KEY (parent) REFERENCES parents NOT VALID",
        "changes constraint children_parent_fkey",
    ),
    "extra table": ("CREATE TABLE handmade (id int)", "drops handmade"),
    "missing table": ("DROP TABLE children", "creates children"),
    "extra label": ("ALTER TYPE mood ADD VALUE 'so so'", "changes the labels of mood"),
    "renamed label": (
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'it''s'",
        "changes the labels of mood",
    ),
    "extra type": ("CREATE TYPE handmade AS ENUM ('a')", "drops type handmade"),
    "extra schema": (
        "CREATE SCHEMA handmade; CREATE TABLE handmade.parents (id int)",
        "drops schema handmade",
    ),
    "comment": ("COMMENT ON COLUMN parents.name IS NULL", "changes parents.name"),
    "quoted names": (
        'ALTER TABLE parents ADD COLUMN "We""ird % name" int DEFAULT 100 % 7',
        'drops parents.We"ird % name',
    ),
}


@pytest.fixture
def rich(database, items, tmp_path):
    path = tmp_path / "rich"
    path.mkdir()
    write_sql(path, "001_rich", *RICH)
    team = Migrations(database, items, path)
    team.apply()
    database.execute_sql("INSERT INTO parents (id, total) VALUES (1, 5), (2, NULL)")
    database.execute_sql("INSERT INTO children (parent) VALUES (1)")
    return team


@pytest.mark.parametrize(("sql", "words"), BY_HAND.values(), ids=BY_HAND)
def test_what_was_changed_by_hand_is_told_and_the_sql_mends_it(sql, words, rich, url):
    run_sql(url, sql)
    found = rich.drift()
    assert found
    assert words in found.differences
    with session(url) as cursor:
        cursor.execute("BEGIN")
        for statement in found.sql:
            cursor.execute(statement)
        cursor.execute("COMMIT")
    assert rich.drift() == Drift((), ())


def test_rows_that_stay_are_kept_when_a_drift_is_mended(rich, url):
    run_sql(url, *(BY_HAND[name][0] for name in ("extra column", "extra label", "other type")))
    found = rich.drift()
    run_sql(url, *found.sql)
    assert not rich.drift()
    with session(url) as cursor:
        cursor.execute("SELECT id, name, mood::text, total FROM parents ORDER BY id")
        assert cursor.fetchall() == [(1, "100%", "glad", 5), (2, "100%", "glad", None)]


def test_a_database_that_is_what_its_files_make_does_not_drift(rich):
    assert rich.drift() == Drift((), ())
    assert not rich.drift()


def test_pending_files_are_no_drift(rich):
    write_sql(rich.folder, "002_more", "CREATE TABLE more (id int)")
    assert not rich.drift()


def test_a_database_without_any_history_drifts_by_what_is_in_it(database, items, folder, url):
    team = Migrations(database, items, folder)
    assert not team.drift()
    run_sql(url, "CREATE TABLE handmade (id int)")
    assert team.drift().differences == ("drops handmade",)


def test_files_applied_out_of_order_are_compared_as_they_were_applied(rich, url):
    """As a stock Router does when a branch brings an earlier number late."""
    write_sql(rich.folder, "003_three", "CREATE TABLE three (id int)")
    rich.apply()
    write_sql(rich.folder, "002_two", "CREATE TABLE two (id int)")
    assert not rich.drift()
    Router(rich.database, migrate_dir=rich.folder).run()
    rich.database.close()
    assert history.applied(rich.database) == ("001_rich", "003_three", "002_two")
    assert not rich.drift()


def test_drift_changes_nothing(rich, url):
    run_sql(url, "CREATE TABLE handmade (id int)")
    assert rich.drift() == rich.drift()


def test_the_command_drift_tells_words_and_sql_and_exits_with_1(rich, url):
    options = ("--url", url, "--folder", rich.folder)
    assert command("drift", *options).exit_code == 0
    assert json.loads(command("drift", "--json", *options).stdout)["differences"] == []
    run_sql(url, "ALTER TABLE parents ADD COLUMN extra int")
    result = command("drift", *options)
    assert result.exit_code == 1
    assert "drops parents.extra" in result.output
    assert "ALTER TABLE public.parents DROP COLUMN extra;" in result.output
    result = command("drift", "--json", *options)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["differences"] == ["drops parents.extra"]
    assert told["sql"] == ["ALTER TABLE public.parents DROP COLUMN extra"]


# -- SQL, offline -------------------------------------------------------------------------------


@pytest.fixture
def offline(items, folder):
    write_sql(folder, "003_back", "SELECT 3", back=["SELECT -3"])
    return Migrations(None, items, folder)


def test_sql_is_printed_in_order_without_a_database(offline):
    text = offline.sql()
    assert re.findall(r"^-- (\w+)$", text, re.MULTILINE) == ["001_items", "002_fill", "003_back"]
    assert "VALUES ('100%', 7);" in text


def test_sql_of_the_way_back_is_printed_in_reverse(offline):
    text = offline.sql(down=True)
    assert re.findall(r"^-- (\w+)$", text, re.MULTILINE) == ["003_back", "002_fill", "001_items"]
    assert text.index("SELECT -3;") < text.index("DROP TABLE items;")


def test_sql_of_some_files_is_printed(offline):
    assert "CREATE TABLE" not in offline.sql(["003_back"])
    assert "SELECT 3;" in offline.sql(["003_back"])


def test_sql_of_a_file_that_is_not_there_is_refused(offline):
    with pytest.raises(MigrationError, match="009_none"):
        offline.sql(["009_none"])


@pytest.mark.parametrize("name", ["3", "003", "003_back"])
def test_the_command_sql_takes_names_and_numbers(offline, name, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", NOBODY_LISTENS)
    result = command("sql", name)
    assert result.exit_code == 0
    assert "SELECT 3;" in result.stdout
    assert "SELECT -3;" in command("sql", "--down", name).stdout


def test_the_sql_printed_makes_the_schema(offline, url, database):
    run_sql(url, offline.sql())
    database.execute_sql("INSERT INTO items (name) VALUES ('works')")
    assert database.execute_sql("SELECT count(*) FROM items").fetchone() == (2,)


def test_sql_tells_what_runs_outside_the_transaction(offline):
    (offline.folder / "004_index.py").write_text(
        textwrap.dedent(
            """
            def migrate(migrator, database, *, fake=False):
                if fake:
                    return
                database.commit()
                database.execute_sql("DROP INDEX CONCURRENTLY IF EXISTS items_name_idx")
                database.execute_sql("CREATE INDEX CONCURRENTLY items_name_idx ON items (name)")
                database.begin()
            """
        )
    )
    text = offline.sql(["004_index"])
    assert "DROP INDEX CONCURRENTLY IF EXISTS items_name_idx;" in text
    assert "CREATE INDEX CONCURRENTLY items_name_idx ON items (name);" in text


def test_sql_of_a_file_that_asks_the_database_says_where_it_ends(offline):
    (offline.folder / "004_asks.py").write_text(
        textwrap.dedent(
            """
            def migrate(migrator, database, *, fake=False):
                migrator.sql("SELECT 'before'")
                if not fake:
                    count = database.execute_sql("SELECT count(*) FROM items").fetchone()[0]
                    migrator.sql(f"SELECT {count}")
            """
        )
    )
    text = offline.sql(["004_asks"])
    assert "SELECT 'before';" in text
    assert "SELECT count(*) FROM items;" in text
    assert re.search(r"^-- .*database", text, re.MULTILINE)


# -- scratch databases --------------------------------------------------------------------------


def scratches(url):
    with session(url) as cursor:
        cursor.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'orm_core_scratch_%'")
        return cursor.fetchone()[0]


def test_a_scratch_database_is_dropped_after_its_block(database, url):
    with scratch.ScratchServer(database) as server, server.database() as made:
        made.execute_sql("CREATE TABLE one (id int)")
        assert scratches(url) == 1
    assert scratches(url) == 0


def test_a_scratch_database_is_dropped_though_somebody_is_connected(database, url):
    with scratch.ScratchServer(database) as server, server.database() as made:
        made.connect()
        with closing(psycopg2.connect(dbname=made.database, **made.connect_params)):
            made.begin()
    assert scratches(url) == 0


@pytest.mark.parametrize("call", ["check", "plan", "generate", "drift"])
def test_scratch_databases_are_dropped_after_an_error(call, team, folder, url):
    if call == "drift":
        team.apply()
    write_sql(folder, "001_items", "CREATE TABLE items (id int)", "nonsense")
    sums.write(folder)
    with pytest.raises(OrmCoreError, match="syntax error"):
        getattr(team, call)()
    assert scratches(url) == 0


def test_scratch_databases_are_dropped_after_an_interrupt(database, url):
    with (
        pytest.raises(KeyboardInterrupt),
        scratch.ScratchServer(database) as server,
        server.database(),
    ):
        raise KeyboardInterrupt
    assert scratches(url) == 0


@pytest.fixture
def poor(orm_core_server, url):
    """``orm_core.db`` for a role that may create no databases."""
    name = f"orm_core_poor_{os.getpid()}"
    run_sql(url, f"DROP ROLE IF EXISTS {name}", f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    run_sql(url, f"GRANT ALL ON SCHEMA public TO {name}")
    server = replace(orm_core_server, user=name, password="x")
    database = initialize_db(server.url(connect_params(url)["dbname"]))
    yield database
    database.close_all()
    run_sql(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_for_a_role_that_may_create_none_they_come_from_the_embedded_server(
    poor, items, folder, tmp_path, caplog
):
    team = Migrations(poor, items, folder)
    team.check()
    assert (tmp_path / "embedded").is_dir()
    assert team.apply() == ["001_items", "002_fill"]
    assert not team.drift()
    assert team.plan() == []
    assert not [one for one in caplog.records if one.name == "orm_core.migrations"]


def test_embedded_scratch_databases_of_another_major_version_are_warned_of(
    poor, items, folder, caplog, monkeypatch
):
    given = poor.connect_params["user"]
    monkeypatch.setattr(
        scratch, "_major", lambda one: 15 if one.connect_params["user"] == given else 18
    )
    Migrations(poor, items, folder).check()
    [told] = [one for one in caplog.messages if "embedded" in one]
    assert "may create no databases on the PostgreSQL 15 given" in told
    assert "embedded PostgreSQL 18" in told
