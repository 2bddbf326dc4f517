"""The roles of least privilege: what each can do on a real server, and what it can't."""

import enum
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from migration_tools import Models, run_sql, session, write_sql
from peewee_migrate import Router
from service_helpers import connect_params, session_data, user_data

from domains.users import SessionService, User, UsersService
from orm_core import (
    AutoField,
    BaseModel,
    Domain,
    EncryptedTextField,
    EnumField,
    IndexKeys,
    InsufficientPrivilege,
    InvalidStatement,
    InvalidValue,
    KeyRing,
    ManyToManyField,
    Registry,
    Secret,
    Service,
    TextField,
    close_db,
    db,
    initialize_db,
    registry,
    use_index_keys,
    use_key_ring,
)
from orm_core.cli import main
from orm_core.migrations.migrations import Migrations
from orm_core.migrations.roles import roles_sql
from orm_core.models.schema import create_all

FILES = Path(__file__).parents[2] / "migrations"


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Tag(BaseModel):
    id = AutoField()
    name = TextField()

    class Meta:
        table_name = "role tags"


class Paper(BaseModel):
    mood = EnumField(Mood, type_name="Mood", default=Mood.GOOD)
    token = EncryptedTextField(null=True, blind_index=True)
    tags = ManyToManyField(Tag)

    class Meta:
        table_name = "role_papers"
        schema = "role library"


class Sheet(BaseModel):
    id = AutoField()

    class Meta:
        table_name = "role_sheets"


class TagsService(Service[Tag]):
    """Tags."""


class PapersService(Service[Paper]):
    """Papers, of a schema of their own."""


@pytest.fixture
def roles(url, orm_core_server):
    """The names of the roles, and the URL of each."""
    name = connect_params(url)["dbname"]
    names = [f"{name}_{one}" for one in ("app", "Deploy", "reader")]
    given = SimpleNamespace(admin=url, runtime=names[0], migrator=names[1], reader=names[2])

    def url_of(role):
        run_sql(url, f"""ALTER ROLE "{role}" PASSWORD 'x'""")
        return replace(orm_core_server, user=role, password="x").url(name)

    given.url_of = url_of
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    use_index_keys(IndexKeys.parse(IndexKeys.generate()))
    yield given
    close_db()
    use_key_ring(None)
    use_index_keys(None)
    with session(url) as cursor:
        for role in names:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
            if cursor.fetchone() is not None:
                cursor.execute(f'DROP OWNED BY "{role}" CASCADE; DROP ROLE "{role}"')


def script(roles, models=None):
    registry.discover()
    models = registry.models if models is None else models
    return roles_sql(
        models, runtime=roles.runtime, migrator=roles.migrator, readers=(roles.reader,)
    )


def as_role(roles, role):
    close_db()
    return initialize_db(roles.url_of(role))


def refused(sql):
    with pytest.raises(InsufficientPrivilege, match="lacks a privilege; orm-core db roles"):
        db.execute_sql(sql)


def all_verbs():
    """Every verb that a service has."""
    user = UsersService.create(user_data())
    UsersService.create_many([user_data(), user_data()])
    UsersService.create_many([user_data() for _ in range(1000)], returning="ids")
    UsersService.upsert({**user_data(), "email": user.email}, on=["email"])
    UsersService.upsert_many([user_data()], on=["email"])
    assert UsersService.get(user.id) == UsersService.find_by_id(user.id) == user
    assert UsersService.find({"email": user.email}) == user
    assert len(UsersService.list(limit=3)) == 3
    assert UsersService.page(size=2).next_cursor
    assert sum(1 for _ in UsersService.iterate()) == UsersService.count() == 1004
    assert UsersService.exists()
    assert UsersService.update(user.id, {"first_name": "Ada"}).first_name == "Ada"
    assert UsersService.update_many([{"id": user.id, "first_name": "Eve"}])
    assert UsersService.update_where({"id": user.id}, {"first_name": "Ida"}) == 1
    session = SessionService.create(session_data(user))
    assert SessionService.upsert({**session_data(user), "id": session.id}, on=["id"])
    assert UsersService.soft_delete(user.id)
    assert UsersService.restore(user.id)
    assert SessionService.hard_delete(session.id)
    assert UsersService.hard_delete(user.id)


@pytest.mark.parametrize("order", ["roles first", "tables first"])
def test_the_service_works_and_can_not_run_ddl(roles, order):
    if order == "tables first":
        Migrations(initialize_db(roles.admin), registry, FILES).apply()
        assert UsersService.count() == 0
    run_sql(roles.admin, script(roles))
    if order == "roles first":
        assert Router(as_role(roles, roles.migrator), migrate_dir=FILES).run()
    as_role(roles, roles.runtime)
    all_verbs()
    team = Migrations(db, registry, FILES)
    assert team.pending() == ()
    for sql in (
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE users ADD COLUMN mine int",
        "DROP TABLE orders",
        "TRUNCATE orders",
        "CREATE INDEX mine ON users (email)",
        "CREATE TRIGGER mine AFTER UPDATE ON users EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TYPE session_status ADD VALUE 'mine'",
        "INSERT INTO migratehistory (name, migrated_at) VALUES ('009_mine', now())",
        "DELETE FROM migratehistory",
        "SELECT nextval('migratehistory_id_seq')",
        f'SET ROLE "{roles.migrator}"',
        "CREATE ROLE mine",
    ):
        refused(sql)


def test_what_the_migrator_makes_later_is_used_at_once(roles, folder):
    run_sql(roles.admin, script(roles, [Tag, Paper]))
    models = Models((Tag, Paper, Paper.tags.get_through_model()))
    made = Migrations(initialize_db(roles.admin), models, folder).generate()
    assert made
    close_db()
    Migrations(as_role(roles, roles.migrator), models, folder).apply()
    write_sql(folder, "090_later", "CREATE TABLE later (id serial PRIMARY KEY, name text)")
    assert Router(db, migrate_dir=folder).run() == ["090_later"]
    as_role(roles, roles.runtime)
    tag = TagsService.create({"name": "a"})
    paper = PapersService.create({"token": Secret("t"), "mood": Mood.BAD})
    paper.tags.add(tag)
    assert [one.name for one in PapersService.get(paper.id).tags] == ["a"]
    db.execute_sql("INSERT INTO later (name) VALUES ('x')")
    refused("ALTER TABLE later ADD COLUMN mine int")
    # Rights are no difference to migrations.
    close_db()
    team = Migrations(initialize_db(roles.admin), models, folder)
    assert not team.drift()
    (folder / "090_later.py").unlink()
    assert not team.generate()


def test_a_reader_sees_no_secret_and_writes_nothing(roles):
    create_all(initialize_db(roles.admin), [Tag, Paper])
    close_db()
    run_sql(roles.admin, script(roles, [Tag, Paper]))
    as_role(roles, roles.runtime)
    PapersService.create({"token": Secret("t")})
    as_role(roles, roles.reader)
    assert db.execute_sql('SELECT id, mood FROM "role library".role_papers').fetchone()[1] == "good"
    for column in ("token", "token_iv", "token_tag", "token_index", "*"):
        refused(f'SELECT {column} FROM "role library".role_papers')
    refused('DELETE FROM "role library".role_papers')
    refused("SELECT * FROM migratehistory")


def test_of_the_audit_trail_the_service_may_read_only(roles):
    audited = Registry()
    audited.register(Domain("library", models=(Sheet,), audit=True))
    try:
        create_all(initialize_db(roles.admin), audited.models)
        close_db()
        run_sql(roles.admin, script(roles, audited.models))
        as_role(roles, roles.runtime)
        Sheet.create()
        (said,) = db.execute_sql("SELECT operation, role FROM audit_log").fetchall()
        assert said == ("insert", roles.runtime)
        for sql in (
            "INSERT INTO audit_log (table_name, operation) VALUES ('role_sheets', 'insert')",
            "UPDATE audit_log SET operation = 'x'",
            "DELETE FROM audit_log",
            "ALTER TABLE role_sheets DISABLE TRIGGER ALL",
        ):
            refused(sql)
    finally:
        db.audited = False


def test_the_script_runs_again_and_takes_back_what_was_given_too_much(roles):
    Migrations(initialize_db(roles.admin), registry, FILES).apply()
    close_db()
    for _ in range(2):
        run_sql(roles.admin, script(roles))
    run_sql(
        roles.admin,
        f'GRANT ALL ON users, migratehistory TO "{roles.runtime}"',
        f'GRANT SELECT ON sessions TO "{roles.reader}"',
        "GRANT ALL ON orders TO PUBLIC",
        f'ALTER TABLE users OWNER TO "{roles.runtime}"',
        f'GRANT CREATE ON SCHEMA public TO "{roles.runtime}"',
        script(roles),
    )
    as_role(roles, roles.runtime)
    for sql in ("TRUNCATE users", "DROP TABLE users", "CREATE TABLE mine (id int)"):
        refused(sql)
    refused("UPDATE migratehistory SET name = ''")
    as_role(roles, roles.reader)
    refused("SELECT provider_access_token FROM sessions")
    refused("UPDATE orders SET total = 0")


def test_a_role_that_may_do_too_much_is_refused(roles):
    run_sql(roles.admin, script(roles), f'ALTER ROLE "{roles.runtime}" BYPASSRLS')
    with pytest.raises(Exception, match=f"role {roles.runtime} may do too much"):
        run_sql(roles.admin, script(roles))
    run_sql(
        roles.admin,
        f'ALTER ROLE "{roles.runtime}" NOBYPASSRLS',
        f'GRANT "{roles.migrator}" TO "{roles.runtime}"',
    )
    with pytest.raises(Exception, match="may do too much"):
        run_sql(roles.admin, script(roles))


@pytest.mark.parametrize("name", ["", "pg_mine", "public", "none", "a\nb", "x" * 64, "deploy"])
def test_a_name_that_can_be_no_role_is_refused(name):
    with pytest.raises(InvalidValue, match=r"nothing\s+was made"):
        roles_sql([User], runtime=name, migrator="deploy")


def test_names_are_quoted_wherever_they_stand(url):
    name = "x'\"; $do$ %s"
    run_sql(url, roles_sql([User], runtime=f"{name}1", migrator=f"{name}2", readers=[f"{name}3"]))
    for number in "123":
        quoted = f"{name}{number}".replace('"', '""')
        run_sql(url, f'DROP OWNED BY "{quoted}"', f'DROP ROLE "{quoted}"')


def test_the_command_prints_the_script_and_needs_no_database(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@localhost:1/nothing")
    options = ["--runtime", "app", "--migrator", "deploy", "--reader", "a", "--reader", "b"]
    found = CliRunner().invoke(main, ["db", "roles", *options])
    assert found.exit_code == 0
    registry.discover()
    expected = roles_sql(registry.models, runtime="app", migrator="deploy", readers=("a", "b"))
    assert found.output == f"{expected}\n"
    again = CliRunner().invoke(main, ["db", "roles", "--runtime", "app", "--migrator", "app"])
    assert again.exit_code == 1
    assert "Each role has a name of its own" in again.output


def test_a_missing_privilege_is_an_invalid_statement_still():
    assert issubclass(InsufficientPrivilege, InvalidStatement)
