"""History made short, models read from a database, and migrations in stages."""

import itertools
import types
from enum import Enum
from pathlib import Path

import peewee
import pytest
from peewee_migrate import Router

from orm_core import (
    BaseModel,
    CharField,
    Database,
    EnumField,
    ForeignKeyField,
    IntegerField,
    TextField,
    registry,
    settings,
)
from orm_core.database.url import parse
from orm_core.errors import MigrationError
from orm_core.migrations import catalog, pull
from orm_core.migrations.migrations import Migrations
from orm_core.models.schema import create_all


class Domains:
    """As much of a registry as migrations need."""

    def __init__(self, *models):
        self.models = models

    def __iter__(self):
        return iter(())


def first_models():
    class Team(BaseModel):
        name = TextField()

        class Meta:
            table_name = "teams"

    class Member(BaseModel):
        team = ForeignKeyField(Team)
        points = IntegerField()
        nick = TextField(null=True)

        class Meta:
            table_name = "members"

    return Team, Member


def later_models():
    class Team(BaseModel):
        name = TextField(index=True)

        class Meta:
            table_name = "teams"

    class Member(BaseModel):
        team = ForeignKeyField(Team, on_delete="CASCADE")
        points = IntegerField()
        nick = TextField()

        class Meta:
            table_name = "members"
            constraints = (peewee.Check("points >= 0"),)

    return Team, Member


@pytest.fixture
def databases(orm_core_server):
    """Makes empty databases on the server of the tests."""
    params = parse(orm_core_server.url("postgres")).connect_params()
    admin = Database(params.pop("dbname"), driver=settings.load().driver, **params)
    made = []

    def make():
        name = f"orm_core_squash_{id(made):x}_{len(made)}"
        admin.execute_sql(f'CREATE DATABASE "{name}" TEMPLATE template0')
        made.append(Database(name, driver=admin.driver.NAME, **params))
        return made[-1]

    yield make
    for database in made:
        database.close_all()
        admin.execute_sql(f'DROP DATABASE "{database.database}" WITH (FORCE)')
    admin.close_all()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "migrations"


def rows_of(database):
    database.execute_sql("INSERT INTO teams (name) VALUES ('a')")
    database.execute_sql("INSERT INTO members (team_id, points) SELECT id, 1 FROM teams")


# -- squash --------------------------------------------------------------------------------------


@pytest.fixture
def history(databases, folder):
    """A database with two files applied, and its migrations."""
    database = databases()
    Migrations(database, Domains(*first_models()), folder).generate("first")
    migrations = Migrations(database, Domains(*later_models()), folder)
    migrations.generate("later", fills={"members.nick": "''"})
    return migrations


def test_a_squashed_file_makes_what_all_files_made(history, databases, folder):
    history.apply()
    wanted = catalog.read(history.database)
    path = history.squash()
    assert [one.name for one in sorted(folder.glob("*.py"))] == [path.name] == ["001_squashed.py"]
    anew = databases()
    Migrations(anew, history.registry, folder).apply()
    assert catalog.read(anew) == wanted


def test_a_database_with_the_old_files_takes_the_new_one_for_applied(history):
    history.apply()
    rows_of_before = catalog.read(history.database)
    history.squash()
    assert history.pending() == ()
    assert history.apply() == []
    names = history.database.execute_sql("SELECT name FROM migratehistory").fetchall()
    assert names == [("001_squashed",)]
    assert catalog.read(history.database) == rows_of_before
    history.check()
    assert not history.drift()


def test_a_database_with_some_of_the_old_files_is_told_what_it_lacks(history):
    history.apply("1")
    history.squash()
    with pytest.raises(MigrationError, match="002_later"):
        history.apply()


def test_a_squashed_history_goes_on(history, databases, folder):
    history.apply()
    history.squash()
    more = Migrations(history.database, Domains(*first_models()), folder)
    (path,) = more.generate("back", drops=True)
    assert path.stem == "002_back"
    assert more.apply() == ["002_back"]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE VIEW rich AS SELECT * FROM members", "view rich"),
        ("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function one"),
        ("INSERT INTO teams (name) VALUES ('seed')", "rows of teams"),
    ],
)
def test_what_a_catalog_does_not_tell_is_not_lost_by_squashing(history, folder, statement, named):
    (folder / "003_more.py").write_text(
        f"def migrate(migrator, database, *, fake=False):\n    migrator.sql({statement!r})\n"
    )
    before = sorted(folder.iterdir())
    with pytest.raises(MigrationError, match=named):
        history.squash()
    assert sorted(folder.iterdir()) == before


def test_one_file_is_not_squashed(databases, folder):
    migrations = Migrations(databases(), Domains(*first_models()), folder)
    migrations.generate("first")
    with pytest.raises(MigrationError, match="nothing to squash"):
        migrations.squash()


# -- pull ----------------------------------------------------------------------------------------

LEGACY = """
CREATE TYPE mood AS ENUM ('happy', 'so so', 'it''s');
CREATE SCHEMA billing;
CREATE TABLE customer (
    id serial PRIMARY KEY, name varchar(80) NOT NULL, mood mood DEFAULT 'happy', ip inet,
    ts timestamp DEFAULT now(), tags text[] DEFAULT '{}', parent_id integer REFERENCES customer
    ON DELETE SET NULL, pct numeric(5,2) DEFAULT 1.5 CHECK (pct < 100), email text UNIQUE,
    loud text GENERATED ALWAYS AS (upper(name)) STORED);
CREATE INDEX customer_lower ON customer (lower(name)) WHERE name LIKE 'a%';
CREATE INDEX customer_name_idx ON customer (name);
COMMENT ON COLUMN customer.name IS 'the "name" 100%';
CREATE TABLE billing.invoice (
    no text PRIMARY KEY, customer_id integer NOT NULL REFERENCES customer DEFERRABLE INITIALLY
    DEFERRED, "order" integer, moods mood[], "from" text);
CREATE TABLE link (a integer REFERENCES customer, b text REFERENCES billing.invoice,
    PRIMARY KEY (a, b));
CREATE TABLE counted (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
                      n smallint GENERATED ALWAYS AS IDENTITY);
CREATE TABLE billing.counted (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n text);
CREATE TABLE log (msg text, at timestamptz DEFAULT now())
"""


def models_in(text):
    module = types.ModuleType("pulled")
    exec(compile(text, "pulled.py", "exec"), module.__dict__)
    found = (one for one in vars(module).values() if isinstance(one, type))
    return [one for one in found if issubclass(one, BaseModel) and one is not BaseModel]


def test_pulled_models_make_the_schema_they_were_read_from(databases):
    legacy, anew = databases(), databases()
    for statement in LEGACY.split(";"):
        legacy.execute_sql(statement.replace("%", "%%"))
    models = models_in(Migrations(legacy, Domains()).pull())
    create_all(anew, models)
    assert catalog.read(anew) == catalog.read(legacy)


def test_pulled_models_of_our_own_tables_need_no_sql(clone_db):
    text = pull.source(catalog.read(clone_db))
    assert 'email = TextField(unique="live")' in text
    assert "SQL(" not in text
    assert "created_at" not in text


def test_a_pulled_model_reads_and_writes_its_table(databases):
    legacy = databases()
    for statement in LEGACY.split(";"):
        legacy.execute_sql(statement.replace("%", "%%"))
    by_name = {one.__name__: one for one in models_in(Migrations(legacy, Domains()).pull())}
    customer = by_name["Customer"]
    with legacy.bind_ctx(list(by_name.values())):
        assert [by_name[one].create().id for one in ("Counted", "BillingCounted")] == [1, 1]
        ada = customer.create(name="Ada", tags=["x"])
        assert (ada.id, ada.loud, ada.tags) == (1, "ADA", ["x"])
        ada.name = "Bob"
        ada.save()
        assert customer.get_by_id(1).name == "Bob"
        assert ada.delete_instance() == 1
        assert customer.select().count() == 0


# -- stages --------------------------------------------------------------------------------------


def test_safe_stages_hold_nobody_up_and_keep_the_rows(databases, folder):
    database = databases()
    first = Migrations(database, Domains(*first_models()), folder)
    first.generate("first")
    first.apply()
    rows_of(database)
    database.execute_sql("UPDATE members SET nick = 'n'")
    later = Migrations(database, Domains(*later_models()), folder)
    paths = later.generate("later", safe=True)
    assert [path.stem for path in paths] == [
        "002_later",
        "003_later_validate",
        "004_later_public_teams_name_idx",
    ]
    modes = {
        mode for report in later.plan() for effect in report.effects for _, mode in effect.locks
    }
    dangers = list(itertools.chain.from_iterable(report.dangers for report in later.plan()))
    assert dangers == []
    assert "ShareLock" not in modes
    later.apply()
    assert catalog.read(database) == later_catalog(databases)
    assert database.execute_sql("SELECT count(*) FROM members").fetchone() == (1,)
    later.rollback(3)
    later.apply()


def later_catalog(databases):
    anew = databases()
    create_all(anew, later_models())
    return catalog.read(anew)


def test_a_new_label_may_be_used_at_once(databases, folder):
    class Old(Enum):
        A = "a"

    class New(Enum):
        B = "b"
        A = "a"

    def model(labels, default):
        class Thing(BaseModel):
            kind = EnumField(labels, type_name="kind", default=default)
            code = CharField(3, null=True)

            class Meta:
                table_name = "things"

        return Thing

    database = databases()
    Migrations(database, Domains(model(Old, Old.A)), folder).generate("first")
    migrations = Migrations(database, Domains(model(New, New.B)), folder)
    assert [path.stem for path in migrations.generate("more")] == ["002_more_labels", "003_more"]
    migrations.apply()
    database.execute_sql("INSERT INTO things DEFAULT VALUES")
    assert database.execute_sql("SELECT kind FROM things").fetchone() == ("b",)


# -- squash, interrupted and again ---------------------------------------------------------------


def test_a_squash_that_is_interrupted_loses_no_file_and_is_taken_up(history, folder, monkeypatch):
    history.apply()
    names = sorted(one.stem for one in folder.glob("*.py"))

    def crash(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        with pytest.raises(KeyboardInterrupt):
            history.squash()
    assert sorted(one.stem for one in folder.glob("*.py")) == sorted([*names, "001_squashed"])
    for call in (history.apply, history.plan, registry.router(history.database, folder).run):
        with pytest.raises(MigrationError, match=r"beside the squashed file.*migrate squash"):
            call()
    assert history.database.execute_sql("SELECT count(*) FROM migratehistory").fetchone() == (2,)
    assert history.squash().stem == "001_squashed"
    assert [one.stem for one in folder.glob("*.py")] == ["001_squashed"]
    assert history.apply() == []
    history.check()


def test_a_squashed_history_is_squashed_again(history, databases, folder):
    history.apply()
    history.squash()
    history.apply()
    Migrations(history.database, Domains(*first_models()), folder).generate("back", drops=True)
    history.apply()
    wanted = catalog.read(history.database)
    assert history.squash().stem == "001_squashed_2"
    assert history.apply() == []
    assert history.status().applied == ("001_squashed_2",)
    anew = Migrations(databases(), history.registry, folder)
    assert anew.apply() == ["001_squashed_2"]
    assert catalog.read(anew.database) == wanted


def test_a_squashed_file_stands_where_those_it_replaces_stood(history, folder):
    history.apply()
    functions = ("migrate", "rollback")
    text = "".join(f"def {one}(migrator, database, *, fake=False): pass\n" for one in functions)
    (folder / "003_more.py").write_text(text)
    history.apply()
    (folder / "003_more.py").rename(folder / "003_more.away")
    history.squash()
    (folder / "003_more.away").rename(folder / "003_more.py")
    assert history.status().applied == ("001_squashed", "003_more")
    assert history.apply() == []
    assert history.status().applied == ("001_squashed", "003_more")
    assert history.rollback() == ["003_more"]


def test_a_stock_router_does_nothing_to_an_old_database_of_a_squashed_history(history, folder):
    history.apply()
    before = catalog.read(history.database)
    history.squash()
    (folder / "002_more.py").write_text(
        "def migrate(migrator, database, *, fake=False):\n"
        "    migrator.sql('CREATE TABLE more (id int)')\n"
    )
    with pytest.raises(FileNotFoundError, match="001_first"):
        Router(history.database, migrate_dir=folder).run()
    history.database.close()
    assert catalog.read(history.database) == before
    assert registry.router(history.database, folder).run() == ["002_more"]
    history.database.close()
    assert Router(history.database, migrate_dir=folder).run() == []
