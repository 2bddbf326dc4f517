"""Row-level security: a tenant sees and writes its own rows only, whatever the code asks for."""

import threading
import uuid
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from migration_tools import Models, run_sql, session
from service_helpers import connect_params

from orm_core import (
    BaseModel,
    EncryptedTextField,
    ForeignKeyField,
    InsufficientPrivilege,
    IntegerField,
    InvalidValue,
    KeyRing,
    NotFound,
    OrmCoreError,
    Policy,
    PolicyViolation,
    QueryError,
    RegistryError,
    Secret,
    Service,
    StaleRow,
    TextField,
    UUIDField,
    VersionField,
    close_db,
    db,
    initialize_db,
    row_scope,
    setting,
    stream,
    transaction,
    use_key_ring,
)
from orm_core.cli import doctor
from orm_core.migrations.migrations import Migrations
from orm_core.migrations.roles import roles_sql
from orm_core.models.schema import create_all
from orm_core.rotation import check, rotate, status

OWN = Policy("tenant", using=f"tenant_id = {setting('tenant')}::uuid")


class Note(BaseModel):
    tenant_id = UUIDField()
    code = TextField(unique="live")
    text = TextField(default="")
    amount = IntegerField(default=0)
    token = EncryptedTextField(null=True)
    version = VersionField()

    class Meta:
        table_name = "secured_notes"
        policies = (OWN,)


class Line(BaseModel):
    note = ForeignKeyField(Note, backref="lines", on_soft_delete="cascade")
    tenant_id = UUIDField()

    class Meta:
        table_name = "secured_lines"
        policies = (OWN,)


class NotesService(Service[Note]):
    """Notes."""


class LinesService(Service[Line]):
    """Lines."""


MODELS = [Note, Line]
A, B = uuid.UUID(int=10), uuid.UUID(int=11)


def note(tenant, **given):
    return {"tenant_id": tenant, "code": uuid.uuid4().hex, **given}


@pytest.fixture
def roles(url, orm_core_server):
    """``db`` as the service's role; the tables are the migrator's."""
    database = connect_params(url)["dbname"]
    app, deploy = f"{database}_app", f"{database}_deploy"
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    create_all(initialize_db(url), MODELS)
    close_db()
    run_sql(url, roles_sql(MODELS, runtime=app, migrator=deploy))
    run_sql(url, *(f"ALTER ROLE {one} PASSWORD 'x'" for one in (app, deploy)))
    server = replace(orm_core_server, user=app, password="x")
    owner = replace(server, user=deploy)
    initialize_db(server.url(database))
    yield SimpleNamespace(
        admin=url, owner=owner.url(database), runtime=server.url(database), app=app, deploy=deploy
    )
    close_db()
    use_key_ring(None)
    with session(url) as cursor:
        for role in (app, deploy):
            cursor.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.fixture
def rows(roles):
    """A row of each tenant."""
    made = SimpleNamespace()
    with row_scope(tenant=A):
        made.a = NotesService.create(note(A, text="of a"))
    with row_scope(tenant=B):
        made.b = NotesService.create(note(B, text="of b"))
    return made


def stored(roles, row):
    """A row as a superuser sees it."""
    sql = f"SELECT text, amount, version, deleted_at IS NOT NULL FROM secured_notes WHERE id = '{row.id}'"
    return run_sql(roles.admin, sql)


# -- what is seen -----------------------------------------------------------------------------


def test_without_a_scope_no_row_is_seen(rows):
    for _ in range(2):  # in a session that knew one before, too
        assert NotesService.list() == []
        assert NotesService.count() == 0
        assert db.execute_sql("SELECT count(*) FROM secured_notes").fetchone() == (0,)
        with row_scope(tenant=A):
            assert NotesService.count() == 1
    with transaction():
        assert NotesService.count() == 0
        with row_scope(tenant=A):
            assert NotesService.count() == 1
        assert NotesService.count() == 0


def test_another_tenants_row_is_not_found_by_any_verb(rows, roles):
    other = rows.b.id
    with row_scope(tenant=A):
        with pytest.raises(NotFound):
            NotesService.get(other)
        assert NotesService.find_by_id(other) is None
        assert NotesService.find({"code": rows.b.code}) is None
        assert NotesService.list() == [rows.a]
        assert NotesService.page().items == [rows.a]
        assert NotesService.page(number=1).total == 1
        assert list(NotesService.iterate(batch=1)) == [rows.a]
        assert list(stream(Note.select())) == [rows.a]
        assert NotesService.count() == 1
        assert not NotesService.exists({"code": rows.b.code})
        assert NotesService.update(other, {"text": "x", "version": 1}) is None
        assert NotesService.update_many([{"id": other, "text": "x", "version": 1}]) == []
        assert NotesService.update_where(None, {"text": "mine"}) == 1
        assert NotesService.soft_delete(other) is None
        assert NotesService.restore(other) is None
        assert NotesService.hard_delete(other) is False
        rows.b.text = "x"
        with pytest.raises(NotFound):
            rows.b.save()
    assert stored(roles, rows.b) == [("of b", 0, 1, False)]
    assert stored(roles, rows.a) == [("mine", 0, 2, False)]


def test_relations_show_rows_of_the_tenant_only(rows):
    with row_scope(tenant=A):
        LinesService.create({"note": rows.a, "tenant_id": A})
    with row_scope(tenant=B):
        LinesService.create({"note": rows.a, "tenant_id": B})  # a key that B was told
    with row_scope(tenant=A):
        assert rows.a.lines.count() == 1
        assert [len(one.lines) for one in Note.select().with_related(Note.lines)] == [1]


# -- what is written --------------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, 3, 1500])
def test_rows_for_another_tenant_are_refused(roles, many):
    with row_scope(tenant=A):
        for payloads in (
            [note(B) for _ in range(many)],
            [*(note(A) for _ in range(many)), note(B)],
        ):
            with pytest.raises(PolicyViolation, match="row-level security policy"):
                NotesService.create_many(payloads)
        made = NotesService.create_many([note(A) for _ in range(many)])
        assert len(made) == NotesService.count() == many
        ids = NotesService.create_many([note(A) for _ in range(many)], returning="ids")
        assert len(set(ids)) == many
    with pytest.raises(PolicyViolation):
        NotesService.create(note(A))
    assert run_sql(roles.admin, "SELECT count(*) FROM secured_notes") == [(2 * many,)]


def test_no_row_is_given_away(rows, roles):
    with row_scope(tenant=A):
        with pytest.raises(PolicyViolation) as caught:
            NotesService.update(rows.a.id, {"tenant_id": B, "version": 1})
        with pytest.raises(PolicyViolation):
            NotesService.update_where(None, {"tenant_id": B})
        with pytest.raises(PolicyViolation):
            NotesService.create(note(B, text="canary"))
    assert isinstance(caught.value, InsufficientPrivilege)
    assert caught.value.kind == "policy"
    assert "canary" not in str(caught.value)
    assert stored(roles, rows.a) == [("of a", 0, 1, False)]


def test_upsert_meets_rows_of_the_tenant_only(rows, roles):
    with row_scope(tenant=A):
        row = NotesService.upsert(note(A, code=rows.a.code, amount=3), on=["code"])
        assert (row.id, row.amount, row.version) == (rows.a.id, 3, 2)
        row = NotesService.upsert(note(A, code=rows.a.code, token=Secret("t")), on=["code"])
        assert row.token.reveal() == "t"
        (row,) = NotesService.upsert_many([note(A, code=rows.a.code, amount=4)], on=["code"])
        assert row.amount == 4
        for write in (
            lambda: NotesService.upsert(note(A, code=rows.b.code), on=["code"]),
            lambda: NotesService.upsert_many([note(A, code=rows.b.code)], on=["code"]),
            lambda: NotesService.upsert(note(A, code=rows.b.code, token=Secret("t")), on=["code"]),
        ):
            with pytest.raises(QueryError):
                write()
    assert stored(roles, rows.b) == [("of b", 0, 1, False)]


def test_soft_delete_restore_and_versions_work_as_ever(rows):
    with row_scope(tenant=A):
        line = LinesService.create({"note": rows.a, "tenant_id": A})
        assert NotesService.soft_delete(rows.a.id).is_deleted
        assert LinesService.find_by_id(line.id) is None
        assert NotesService.restore(rows.a.id).version == 3
        with pytest.raises(StaleRow):
            NotesService.update(rows.a.id, {"text": "x", "version": 1})


def test_the_migration_role_sees_all_rows_for_maintenance(rows, roles):
    close_db()
    initialize_db(roles.owner)
    assert NotesService.count() == 2
    rotate(MODELS)


def test_the_doctor_tells_of_a_role_that_policies_do_not_bind(roles):
    assert doctor.row_security([]) == ""
    assert doctor.row_security(MODELS) == (
        f"the role {roles.app} is bound by the policies of 2 table(s)"
    )
    close_db()
    initialize_db(roles.owner)
    with pytest.raises(OrmCoreError, match=f"{roles.deploy} passes row security by"):
        doctor.row_security(MODELS)


def test_an_owner_without_bypassrls_is_bound_as_well(rows, roles):
    close_db()
    run_sql(roles.admin, f"ALTER ROLE {roles.deploy} NOBYPASSRLS")
    initialize_db(roles.owner)
    assert NotesService.count() == 0
    with row_scope(tenant=B):
        assert NotesService.list() == [rows.b]


def test_keys_are_not_rotated_by_a_role_that_sees_a_part_of_the_rows(rows):
    for run in (rotate, check, status):
        with row_scope(tenant=A), pytest.raises(InsufficientPrivilege, match="secured_notes"):
            run(MODELS)


# -- the scope --------------------------------------------------------------------------------


def test_blocks_inside_blocks_change_what_they_name(rows):
    with row_scope(tenant=A, region="north"):
        with row_scope(tenant=B):
            assert NotesService.list() == [rows.b]
            told = db.execute_sql(f"SELECT {setting('region')}, {setting('tenant')}").fetchone()
            assert told == ("north", str(B))
        assert NotesService.list() == [rows.a]
    with transaction(), row_scope(tenant=A):
        with row_scope(tenant=B), transaction():
            assert NotesService.list() == [rows.b]
        assert NotesService.list() == [rows.a]
        with suppress(ZeroDivisionError), transaction(), row_scope(tenant=B):
            assert NotesService.list() == [rows.b]
            raise ZeroDivisionError
        assert NotesService.list() == [rows.a]
        with transaction() as tx, row_scope(tenant=B):
            assert NotesService.list() == [rows.b]
            tx.rollback()
            assert NotesService.list() == [rows.b]
        assert NotesService.list() == [rows.a]
    assert db.execute_sql(f"SELECT {setting('tenant')}").fetchone() == (None,)


def test_a_scope_reaches_statements_of_the_driver_and_transactions_by_hand(rows):
    with row_scope(tenant=A):
        with transaction():
            cursor = db.cursor()
            cursor.execute("SELECT count(*) FROM secured_notes")
            assert cursor.fetchone() == (1,)
        with db.connection_context():
            db.begin()
            assert NotesService.count() == 1
            db.rollback()
        db.execute_sql("VACUUM")  # may be told nothing, and runs


def test_a_scope_is_a_decorator_too(rows):
    @row_scope(tenant=B)
    def count():
        return NotesService.count()

    assert (count(), count(), NotesService.count()) == (1, 1, 0)


@pytest.mark.parametrize("value", ["", None, True, 1.5, b"x", "a\nb", "\0", "x" * 201, []])
def test_a_value_that_is_no_setting_is_refused(value):
    with pytest.raises(InvalidValue, match="row_scope") as caught, row_scope(tenant=value):
        pass
    assert repr(value) not in str(caught.value) or value in ("", None, [])


@pytest.mark.parametrize("name", ["Tenant", "a.b", "x" * 41, "a'b"])
def test_a_name_that_is_no_setting_is_refused(name):
    with pytest.raises(InvalidValue), row_scope(**{name: "x"}):
        pass
    with pytest.raises(InvalidValue):
        setting(name)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(min_size=1, max_size=40).filter(str.isprintable))
def test_any_text_arrives_as_it_is(rollback_db, text):
    with row_scope(anything=text):
        assert rollback_db.execute_sql(f"SELECT {setting('anything')}").fetchone() == (text,)


def test_threads_see_rows_of_their_own_tenant_through_one_pool(roles):
    tenants = [uuid.UUID(int=100 + number) for number in range(6)]
    failures = []

    def serve(tenant):
        try:
            for _ in range(15):
                with row_scope(tenant=tenant):
                    NotesService.create(note(tenant))
                    assert {row.tenant_id for row in NotesService.list()} == {tenant}
                assert NotesService.list() == []
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=serve, args=[tenant]) for tenant in tenants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert run_sql(roles.admin, "SELECT count(*) FROM secured_notes") == [(90,)]


# -- policies of models -----------------------------------------------------------------------

BAD = {
    "no name": (lambda: Policy("", using="true"), "needs a name"),
    "a long name": (lambda: Policy("x" * 64, using="true"), "needs a name"),
    "an unknown command": (lambda: Policy("p", using="true", command="merge"), "is for one of"),
    "roles as a text": (lambda: Policy("p", using="true", roles="app"), "a tuple of their names"),
    "nothing": (lambda: Policy("p"), "needs SQL"),
    "an empty condition": (lambda: Policy("p", using=" "), "conditions as SQL text"),
    "no text": (lambda: Policy("p", using=True), "conditions as SQL text"),
    "using of an INSERT": (
        lambda: Policy("p", using="true", command="insert"),
        "takes check=... only",
    ),
    "check of a SELECT": (
        lambda: Policy("p", using="true", check="true", command="select"),
        "takes using=... only",
    ),
    "all rows seen, some written": (lambda: Policy("p", check="a = 1"), "would show all rows"),
    "a setting that fails when it is not set": (
        lambda: Policy("p", using="a = current_setting('app.a')"),
        "fails where nothing is set",
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_policy_that_can_not_be_right_is_refused(case):
    make, message = case
    with pytest.raises(RegistryError, match=message):
        make()


@pytest.mark.parametrize(
    "declared", [[OWN], (OWN, OWN), ("tenant = 1",), OWN], ids=["list", "twice", "text", "bare"]
)
def test_a_model_whose_policies_can_not_be_right_is_refused(declared):
    meta = type("Meta", (), {"policies": declared})
    with pytest.raises(RegistryError, match=r"polic"):
        type(BaseModel)("Bad", (BaseModel,), {"Meta": meta, "__module__": __name__})


def test_a_setting_may_be_asked_for_when_it_may_be_missing():
    Policy("p", using="a = current_setting('app.a', true)")
    Policy("p", using="a <> 'current_setting(''x'')'")


def test_a_policy_that_is_no_sql_is_named(rollback_db):
    meta = type("Meta", (), {"policies": (Policy("broken", using="tenant ="),)})
    broken = type(BaseModel)("Broken", (BaseModel,), {"Meta": meta, "__module__": __name__})
    with pytest.raises(QueryError) as caught:
        create_all(rollback_db, [broken])
    assert 'CREATE POLICY "broken"' in caught.value.__notes__[0]


def test_create_tables_makes_policies_too(rollback_db):
    rollback_db.create_tables(MODELS)
    rollback_db.create_tables(MODELS)
    sql = """SELECT relname, relrowsecurity, relforcerowsecurity, polname FROM pg_class AS c
             JOIN pg_policy AS p ON p.polrelid = c.oid ORDER BY 1"""
    assert rollback_db.execute_sql(sql).fetchall() == [
        ("secured_lines", True, True, "tenant"),
        ("secured_notes", True, True, "tenant"),
    ]


def test_what_was_changed_by_hand_is_drift_and_opening_is_a_danger(url, folder):
    database = initialize_db(url)
    team = Migrations(database, Models(tuple(MODELS)), folder)
    team.generate("first")
    team.apply()
    assert not team.drift()
    for sql, said in (
        ("ALTER TABLE secured_notes NO FORCE ROW LEVEL SECURITY", "owner of secured_notes"),
        ("ALTER TABLE secured_notes DISABLE ROW LEVEL SECURITY", "row security of secured_notes"),
        ("ALTER POLICY tenant ON secured_notes USING (true)", "policy secured_notes.tenant"),
        ("DROP POLICY tenant ON secured_notes", "policy secured_notes.tenant"),
    ):
        with database.atomic() as tx:
            database.execute_sql(sql)
            assert said in str(team.drift()), sql
            tx.rollback()
    opened = type("Meta", (), {"table_name": "secured_lines", "policies": ()})
    line = type(BaseModel)(
        "Line",
        (BaseModel,),
        {
            "note": ForeignKeyField(Note),
            "tenant_id": UUIDField(),
            "Meta": opened,
            "__module__": __name__,
        },
    )
    team = Migrations(database, Models((Note, line)), folder)
    team.generate("second")
    text = "\n".join(str(one) for one in team.plan())
    assert "row security kept from them" in text
    close_db()
