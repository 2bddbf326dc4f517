"""The plan: what PostgreSQL does for each statement, and what is dangerous about it.

The lock modes are those of the PostgreSQL manual, "Explicit Locking" and "ALTER TABLE".
"""

import json
import re

import pytest
from click.testing import CliRunner
from migration_tools import session
from service_helpers import empty_databases

from orm_core import MigrationError, Registry
from orm_core.cli import main
from orm_core.migrations import catalog
from orm_core.migrations.migrations import Migrations

SCHEMA = (
    "CREATE TYPE mood AS ENUM ('glad', 'sad')",
    "CREATE TABLE parents (id int PRIMARY KEY, name varchar(20), total numeric(8, 2), note text, mood mood)",
    "CREATE TABLE children (id int CONSTRAINT children_pkey PRIMARY KEY, parent int, n int NOT NULL DEFAULT 0,"
    " area int4range)",
    "CREATE TABLE linked (id int PRIMARY KEY, parent int CONSTRAINT linked_fkey REFERENCES parents)",
    "CREATE INDEX children_n_idx ON children (n)",
    "CREATE UNIQUE INDEX parents_name_key ON parents (name)",
    "ALTER TABLE parents ADD CONSTRAINT parents_total_check CHECK (total > 0) NOT VALID",
    "ALTER TABLE children ADD CONSTRAINT children_parent_fkey FOREIGN KEY (parent) REFERENCES parents NOT VALID",
    "CREATE TABLE proved (id int, CONSTRAINT proved_id_check CHECK (id IS NOT NULL))",
    "CREATE TABLE events (at date NOT NULL) PARTITION BY RANGE (at)",
    "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
    "CREATE TABLE events_2 (at date NOT NULL)",
    "CREATE MATERIALIZED VIEW sums AS SELECT id, total FROM parents",
    "CREATE UNIQUE INDEX sums_id_key ON sums (id)",
    "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER quiet BEFORE INSERT ON children FOR EACH ROW EXECUTE FUNCTION nothing()",
)

AX, X, SRX = "AccessExclusiveLock", "ExclusiveLock", "ShareRowExclusiveLock"
S, SUX, RX = "ShareLock", "ShareUpdateExclusiveLock", "RowExclusiveLock"
RS, AS = "RowShareLock", "AccessShareLock"

pytestmark = pytest.mark.usefixtures("bare_surroundings")


def both(mode):
    return {"parents": mode, "children": mode}


#: statement -> its lock on each table that was there, the tables written anew, words of the danger
STATEMENTS = {
    # columns
    "ALTER TABLE parents ADD COLUMN a int": ({"parents": AX}, (), None),
    "ALTER TABLE parents ADD COLUMN a int NOT NULL DEFAULT 1": ({"parents": AX}, (), None),
    "ALTER TABLE parents ADD COLUMN a timestamptz DEFAULT now()": ({"parents": AX}, (), None),
    "ALTER TABLE parents ADD COLUMN a uuid DEFAULT gen_random_uuid()": (
        {"parents": AX},
        ("parents",),
        "written anew",
    ),
    "ALTER TABLE parents ADD COLUMN a int GENERATED ALWAYS AS (id * 2) STORED": (
        {"parents": AX},
        ("parents",),
        "written anew",
    ),
    "ALTER TABLE parents ADD COLUMN a bigint GENERATED ALWAYS AS IDENTITY": (
        {"parents": AX},
        ("parents",),
        "written anew",
    ),
    "ALTER TABLE parents ADD COLUMN a int REFERENCES children": (
        {"parents": AX, "children": SRX},
        (),
        None,
    ),
    "ALTER TABLE parents ADD COLUMN a int UNIQUE": ({"parents": AX}, (), "index"),
    "ALTER TABLE parents ADD COLUMN a int CHECK (a > 0)": ({"parents": AX}, (), "NOT VALID"),
    "ALTER TABLE parents DROP COLUMN note": ({"parents": AX}, (), "loses a column"),
    "ALTER TABLE parents DROP note": ({"parents": AX}, (), "loses a column"),
    "ALTER TABLE parents RENAME COLUMN note TO remark": ({"parents": AX}, (), "old name"),
    "ALTER TABLE parents RENAME note TO remark": ({"parents": AX}, (), "old name"),
    "ALTER TABLE parents ALTER COLUMN name TYPE varchar(40)": ({"parents": AX}, (), None),
    "ALTER TABLE parents ALTER COLUMN name TYPE text": (
        {"parents": AX},
        (),
        None,
    ),
    "ALTER TABLE parents ALTER COLUMN mood TYPE text": (
        {"parents": AX},
        ("parents",),
        "written anew",
    ),
    "ALTER TABLE children ALTER COLUMN n TYPE bigint": (
        {"children": AX},
        ("children",),
        "written anew",
    ),
    "ALTER TABLE parents ALTER COLUMN note SET DEFAULT 'x'": ({"parents": AX}, (), None),
    "ALTER TABLE children ALTER COLUMN n DROP DEFAULT": ({"children": AX}, (), None),
    "ALTER TABLE children ALTER COLUMN n DROP NOT NULL": ({"children": AX}, (), None),
    "ALTER TABLE parents ALTER COLUMN note SET NOT NULL": ({"parents": AX}, (), "NOT VALID"),
    "ALTER TABLE proved ALTER COLUMN id SET NOT NULL": ({"proved": AX}, (), None),
    "ALTER TABLE parents ALTER COLUMN note SET STATISTICS 100": ({"parents": SUX}, (), None),
    "COMMENT ON COLUMN parents.note IS 'RENAME TO something'": ({"parents": SUX}, (), None),
    # constraints
    "ALTER TABLE parents ADD CONSTRAINT c CHECK (id > 0)": ({"parents": AX}, (), "NOT VALID"),
    "ALTER TABLE parents ADD CHECK (id > 0)": ({"parents": AX}, (), "NOT VALID"),
    "ALTER TABLE parents ADD CONSTRAINT c CHECK (id > 0) NOT VALID": ({"parents": AX}, (), None),
    "ALTER TABLE parents VALIDATE CONSTRAINT parents_total_check": ({"parents": SUX}, (), None),
    "ALTER TABLE children ADD CONSTRAINT c FOREIGN KEY (n) REFERENCES parents": (
        both(SRX),
        (),
        "NOT VALID",
    ),
    "ALTER TABLE children ADD FOREIGN KEY (n) REFERENCES parents": (both(SRX), (), "NOT VALID"),
    "ALTER TABLE children ADD CONSTRAINT c FOREIGN KEY (n) REFERENCES parents NOT VALID": (
        both(SRX),
        (),
        None,
    ),
    "ALTER TABLE children VALIDATE CONSTRAINT children_parent_fkey": (
        {"parents": RS, "children": SUX},
        (),
        None,
    ),
    "ALTER TABLE parents ADD CONSTRAINT c UNIQUE (note)": ({"parents": AX}, (), "USING INDEX"),
    "ALTER TABLE parents ADD UNIQUE (note)": ({"parents": AX}, (), "USING INDEX"),
    "ALTER TABLE events_2 ADD PRIMARY KEY (at)": ({"events_2": AX}, (), "USING INDEX"),
    "ALTER TABLE parents ADD CONSTRAINT parents_name_key UNIQUE USING INDEX parents_name_key": (
        {"parents": AX},
        (),
        None,
    ),
    "ALTER TABLE children ADD CONSTRAINT c EXCLUDE USING gist (area WITH &&)": (
        {"children": AX},
        (),
        "index",
    ),
    "ALTER TABLE children RENAME CONSTRAINT children_parent_fkey TO c": (
        {"children": AX},
        (),
        None,
    ),
    "ALTER TABLE parents DROP CONSTRAINT parents_total_check": ({"parents": AX}, (), None),
    "ALTER TABLE linked DROP CONSTRAINT linked_fkey": (
        {"parents": AX, "linked": AX},
        (),
        None,
    ),
    # indexes
    "CREATE INDEX i ON parents (note)": ({"parents": S}, (), "CONCURRENTLY"),
    "CREATE UNIQUE INDEX i ON parents (note)": ({"parents": S}, (), "CONCURRENTLY"),
    "DROP INDEX children_n_idx": ({"children": AX}, (), None),
    "ALTER INDEX children_n_idx RENAME TO i": ({}, (), None),
    "REINDEX INDEX children_n_idx": ({"children": S}, (), "CONCURRENTLY"),
    "REINDEX TABLE children": ({"children": S}, (), "CONCURRENTLY"),
    # tables
    "CREATE TABLE more (id int PRIMARY KEY)": ({}, (), None),
    "CREATE TABLE more (id int REFERENCES parents)": ({"parents": SRX}, (), None),
    "CREATE TABLE more (LIKE parents INCLUDING ALL)": ({"parents": AS}, (), None),
    "DROP TABLE linked": ({"parents": AX, "linked": AX}, (), "loses a table"),
    "DROP TABLE IF EXISTS events_2": ({"events_2": AX}, (), "loses a table"),
    "ALTER TABLE children RENAME TO kids": ({"children": AX}, (), "old name"),
    "ALTER TABLE children SET (fillfactor = 70)": ({"children": SUX}, (), None),
    "ALTER TABLE children SET UNLOGGED": ({"children": AX}, ("children",), "written anew"),
    "ALTER TABLE children ENABLE ROW LEVEL SECURITY": ({"children": AX}, (), None),
    "CLUSTER children USING children_pkey": ({"children": AX}, ("children",), "written anew"),
    "LOCK TABLE parents IN SHARE MODE": ({"parents": S}, (), None),
    "ANALYZE parents": ({"parents": SUX}, (), None),
    "CREATE STATISTICS s ON id, note FROM parents": ({"parents": SUX}, (), None),
    # partitions
    "ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')": (
        {"events": SUX, "events_2": AX},
        (),
        "CHECK",
    ),
    "ALTER TABLE events DETACH PARTITION events_1": (
        {"events": AX, "events_1": AX},
        (),
        None,
    ),
    # rows
    "INSERT INTO parents (id) VALUES (1)": ({"parents": RX}, (), None),
    "UPDATE parents SET note = 'x' WHERE id = 1": ({"parents": RX}, (), None),
    "UPDATE parents SET note = 'x'": ({"parents": RX}, (), "batches|batched"),
    "DELETE FROM parents WHERE id = 1": ({"parents": RX}, (), "loses rows"),
    "TRUNCATE events_2": ({"events_2": AX}, ("events_2",), "loses all rows"),
    # the rest
    "CREATE VIEW v AS SELECT id FROM parents": ({"parents": AS}, (), None),
    "REFRESH MATERIALIZED VIEW sums": ({"sums": AX, "parents": AS}, ("sums",), "CONCURRENTLY"),
    "REFRESH MATERIALIZED VIEW CONCURRENTLY sums": ({"sums": X, "parents": AS}, (), None),
    "CREATE TRIGGER t BEFORE INSERT ON parents FOR EACH ROW EXECUTE FUNCTION nothing()": (
        {"parents": SRX},
        (),
        None,
    ),
    "DROP TRIGGER quiet ON children": ({"children": AX}, (), None),
    "ALTER TYPE mood ADD VALUE 'so so'": ({}, (), None),
    "CREATE SEQUENCE s": ({}, (), None),
}


@pytest.fixture(scope="module")
def url(orm_core_server):
    """The URL of a database with the schema; no test of this module may change it."""
    with empty_databases(orm_core_server) as make:
        yield make()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "migrations"
    path.mkdir()
    write(path, "001_schema", *SCHEMA)
    return path


@pytest.fixture
def team(database, folder):
    found = Migrations(database, Registry(), folder)
    found.apply()
    return found


def write(folder, name, *statements, back=()):
    lines = []
    for function, found in (("migrate", statements), ("rollback", back)):
        lines.append(f"def {function}(migrator, database, *, fake=False):")
        body = ["SET LOCAL lock_timeout = '5s'", *found]
        lines += [f"    migrator.sql({one!r})" for one in body]
    (folder / f"{name}.py").write_text("\n".join(lines) + "\n")


def effects(team, *statements):
    write(team.folder, "002_change", *statements)
    [report] = team.plan()
    return report.effects


@pytest.mark.parametrize(
    ("sql", "locks", "rewrites", "danger"),
    [(sql, *expected) for sql, expected in STATEMENTS.items()],
    ids=STATEMENTS,
)
def test_a_statement_is_reported_as_the_manual_has_it(sql, locks, rewrites, danger, team):
    [effect] = effects(team, sql)
    assert effect.sql == sql
    assert dict(effect.locks) == locks
    assert effect.rewrites == rewrites
    told = " ".join(effect.dangers)
    if danger is None:
        assert effect.dangers == ()
    else:
        assert re.search(danger, told), told


CONCURRENTLY = {
    "CREATE INDEX CONCURRENTLY i ON parents (note)": {"parents": SUX},
    "CREATE UNIQUE INDEX CONCURRENTLY i ON parents (note)": {"parents": SUX},
    "DROP INDEX CONCURRENTLY IF EXISTS children_n_idx": {"children": SUX},
    "DROP INDEX CONCURRENTLY IF EXISTS not_there": {},
    "REINDEX TABLE CONCURRENTLY children": {"children": SUX},
}


@pytest.mark.parametrize(("sql", "locks"), CONCURRENTLY.items(), ids=CONCURRENTLY)
def test_what_runs_outside_a_transaction_is_reported_too(sql, locks, team):
    (team.folder / "002_change.py").write_text(
        "def migrate(migrator, database, *, fake=False):\n    if fake:\n        return\n"
        f"    database.commit()\n    database.execute_sql({sql!r})\n    database.begin()\n"
    )
    [report] = team.plan()
    [effect] = report.effects
    assert effect.sql == sql
    assert dict(effect.locks) == locks
    assert effect.dangers == ()


NEW = (
    "CREATE TABLE fresh (id int, parent int, name text)",
    "ALTER TABLE fresh ADD CONSTRAINT fresh_pkey PRIMARY KEY (id)",
    "ALTER TABLE fresh ADD CONSTRAINT fresh_parent_fkey FOREIGN KEY (parent) REFERENCES parents",
    "ALTER TABLE fresh ADD CONSTRAINT fresh_check CHECK (id > 0)",
    "CREATE INDEX fresh_name_idx ON fresh (name)",
    "ALTER TABLE fresh ALTER COLUMN name SET NOT NULL",
    "ALTER TABLE fresh ALTER COLUMN id TYPE bigint",
    "UPDATE fresh SET name = 'x'",
    "ALTER TABLE fresh DROP COLUMN name",
    "ALTER TABLE fresh RENAME TO fresher",
    "DROP TABLE fresher",
)


def test_nothing_is_dangerous_for_a_table_that_the_same_file_makes(team):
    write(team.folder, "002_change", *NEW)
    [report] = team.plan()
    assert [effect.sql for effect in report.effects] == list(NEW)
    assert report.dangers == ()


def test_a_table_of_an_earlier_pending_file_may_hold_rows_by_then(team):
    write(team.folder, "002_new", "CREATE TABLE fresh (id int)")
    write(team.folder, "003_change", "ALTER TABLE fresh ALTER COLUMN id TYPE bigint")
    first, second = team.plan()
    assert first.dangers == ()
    assert second.effects[0].rewrites == ("fresh",)


def test_each_statement_of_a_file_is_reported_on_its_own(team):
    found = effects(
        team,
        "ALTER TABLE parents ADD COLUMN a int",
        "UPDATE children SET n = 1 WHERE id = 1",
        "CREATE INDEX i ON parents (a)",
    )
    assert [dict(one.locks) for one in found] == [{"parents": AX}, {"children": RX}, {"parents": S}]


RENAMED = "ALTER TABLE children RENAME TO kids"


def test_a_table_whose_old_name_is_a_view_with_all_its_columns_is_renamed_without_danger(team):
    view = "CREATE VIEW children AS SELECT id, parent, n, area FROM kids"
    assert [one.dangers for one in effects(team, RENAMED, view)] == [(), ()]


@pytest.mark.parametrize(
    "stand_in",
    [
        "CREATE VIEW children AS SELECT id, parent, n FROM kids",
        "CREATE VIEW children AS SELECT DISTINCT id, parent, n, area FROM kids",
        "CREATE VIEW children AS SELECT id, parent, n + 0 AS n, area FROM kids",
        "CREATE TABLE children AS SELECT id, parent, n, area FROM kids",
        "CREATE VIEW elsewhere AS SELECT id, parent, n, area FROM kids",
    ],
)
def test_what_can_not_stand_in_for_a_table_leaves_its_rename_dangerous(stand_in, team):
    [danger] = effects(team, RENAMED, stand_in)[0].dangers
    assert "old name children" in danger


def test_a_view_that_comes_after_the_commit_comes_too_late(team):
    view = "CREATE VIEW children AS SELECT id, parent, n, area FROM kids"
    (team.folder / "002_change.py").write_text(
        "def migrate(migrator, database, *, fake=False):\n    if fake:\n        return\n"
        f"    database.execute_sql({RENAMED!r})\n    database.commit()\n    database.begin()\n"
        f"    database.execute_sql({view!r})\n"
    )
    [report] = team.plan()
    assert len(report.dangers) == 1


def test_an_update_beside_a_change_of_schema_is_told(team):
    """Its locks, and those of the change, are held until all rows are written."""
    found = effects(
        team,
        "ALTER TABLE parents ADD COLUMN a int",
        "UPDATE parents SET a = 1 WHERE a IS NULL",
    )
    assert any("batche" in danger for danger in found[1].dangers)


def test_the_safe_way_to_not_null_is_without_danger(team):
    write(
        team.folder,
        "002_check",
        "ALTER TABLE parents ADD CONSTRAINT note_there CHECK (note IS NOT NULL) NOT VALID",
    )
    write(team.folder, "003_validate", "ALTER TABLE parents VALIDATE CONSTRAINT note_there")
    write(
        team.folder,
        "004_not_null",
        "ALTER TABLE parents ALTER COLUMN note SET NOT NULL",
        "ALTER TABLE parents DROP CONSTRAINT note_there",
    )
    assert [report.dangers for report in team.plan()] == [(), (), ()]


def test_a_percent_sign_is_reported_as_it_runs(team):
    [effect] = effects(team, "ALTER TABLE parents ALTER COLUMN note SET DEFAULT '5 %%'")
    assert effect.sql == "ALTER TABLE parents ALTER COLUMN note SET DEFAULT '5 %'"


def test_parameters_are_not_reported(team):
    (team.folder / "002_change.py").write_text(
        "def migrate(migrator, database, *, fake=False):\n"
        "    migrator.sql('UPDATE parents SET note = %s WHERE id = %s', 'secret', 1)\n"
    )
    [report] = team.plan()
    assert report.effects[0].sql == "UPDATE parents SET note = ? WHERE id = ?"


def test_a_setting_for_the_file_holds_for_its_statements(team):
    found = effects(
        team, "SET LOCAL search_path = pg_catalog, public", "CREATE TABLE public.more (id int)"
    )
    assert [one.sql for one in found] == ["CREATE TABLE public.more (id int)"]
    (team.folder / "002_change.py").unlink()
    write(
        team.folder,
        "002_change",
        "CREATE SCHEMA other",
        "SET LOCAL search_path = other",
        "CREATE TABLE parents (id int)",
        "ALTER TABLE parents ADD COLUMN a uuid DEFAULT gen_random_uuid()",
    )
    [report] = team.plan()
    assert report.dangers == ()


# -- the way back -------------------------------------------------------------------------------


def test_a_file_whose_rollback_brings_the_schema_back_is_reversible(team):
    write(
        team.folder,
        "002_change",
        "ALTER TABLE parents ADD COLUMN a int",
        back=["ALTER TABLE parents DROP COLUMN a"],
    )
    assert team.plan()[0].reversible


@pytest.mark.parametrize(
    "back",
    [[], ["ALTER TABLE parents ALTER COLUMN a SET DEFAULT 1"], ["nonsense"]],
    ids=["none", "another", "failing"],
)
def test_a_file_whose_rollback_does_not_is_not_reversible(back, team):
    write(team.folder, "002_change", "ALTER TABLE parents ADD COLUMN a int", back=back)
    write(team.folder, "003_next", "ALTER TABLE parents ADD COLUMN b int")
    first, second = team.plan()
    assert not first.reversible
    assert [effect.sql for effect in second.effects] == ["ALTER TABLE parents ADD COLUMN b int"]


def test_a_change_of_rows_alone_is_reversible(team):
    write(team.folder, "002_change", "INSERT INTO parents (id) VALUES (1)")
    assert team.plan()[0].reversible


# -- what a plan leaves alone -------------------------------------------------------------------


def test_a_plan_leaves_the_live_database_alone(team, url, database):
    select = "SELECT name FROM migratehistory ORDER BY id"
    sizes = "SELECT oid, relfilenode FROM pg_class ORDER BY oid"
    with session(url) as cursor:
        cursor.execute(sizes)
        before = cursor.fetchall()
    schema = catalog.read(database)
    write(team.folder, "002_change", "DROP TABLE linked", "INSERT INTO parents (id) VALUES (9)")
    assert len(team.plan()) == 1
    assert catalog.read(database) == schema
    with session(url) as cursor:
        cursor.execute(select)
        assert cursor.fetchall() == [("001_schema",)]
        cursor.execute(sizes)
        assert cursor.fetchall() == before
        cursor.execute("SELECT count(*) FROM parents")
        assert cursor.fetchone() == (0,)


def test_a_plan_waits_for_nobody(team, url):
    write(team.folder, "002_change", "ALTER TABLE parents ADD COLUMN a int")
    with session(url) as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE parents IN ACCESS EXCLUSIVE MODE")
        [report] = team.plan()
    assert dict(report.effects[0].locks) == {"parents": AX}


def test_nothing_pending_is_an_empty_plan(team):
    assert team.plan() == []


def test_a_file_that_fails_names_itself(team):
    write(team.folder, "002_change", "ALTER TABLE nowhere ADD COLUMN a int")
    with pytest.raises(MigrationError, match="002_change"):
        team.plan()


def test_the_command_tells_the_plan_and_does_nothing(team, url):
    write(
        team.folder,
        "002_change",
        "ALTER TABLE parents ADD COLUMN a uuid DEFAULT gen_random_uuid()",
        back=["ALTER TABLE parents DROP COLUMN a"],
    )
    options = ["migrate", "apply", "--plan", "--url", url, "--folder", str(team.folder)]
    result = CliRunner().invoke(main, options, catch_exceptions=False)
    assert result.exit_code == 0
    assert "002_change  (can be rolled back)" in result.output
    assert "AccessExclusiveLock on parents" in result.output
    assert "! parents is written anew" in result.output
    result = CliRunner().invoke(main, [*options, "--json"], catch_exceptions=False)
    [told] = json.loads(result.stdout)
    assert told["name"] == "002_change"
    assert told["reversible"] is True
    assert told["effects"][0]["locks"] == [["parents", AX]]
    assert told["effects"][0]["rewrites"] == ["parents"]
    assert team.pending() == ("002_change",)
