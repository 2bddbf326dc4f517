"""What the audit trail tells: every door, who acts, and nothing of a secret."""

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from auditing import Item, ItemsService, audited, domain, entries, told

from orm_core import (
    AuditEntry,
    AuditService,
    Database,
    Domain,
    IndexKeys,
    InsufficientPrivilege,
    InvalidValue,
    KeyRing,
    NotFound,
    Registry,
    RegistryError,
    Secret,
    acting_as,
    db,
    transaction,
    use_index_keys,
    use_key_ring,
    utcnow,
)
from orm_core.audit.pruning import prune
from orm_core.migrations.roles import roles_sql
from orm_core.models.bulk_insert import COPY_FROM


@pytest.fixture
def trail(clone_db):
    with audited():
        yield clone_db


@pytest.fixture
def keys():
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    use_index_keys(IndexKeys.parse(IndexKeys.generate("i1")))
    yield
    use_key_ring(None)
    use_index_keys(None)


def create_and_fail(name):
    ItemsService.create({"name": name})
    raise ZeroDivisionError


def actors():
    return [entry.actor for entry in entries()]


# -- doors --------------------------------------------------------------------------------------


def test_each_verb_leaves_an_entry_that_says_what_it_did(trail):
    item = ItemsService.create({"name": "one"})
    ItemsService.update(item.id, {"name": "two"})
    ItemsService.soft_delete(item.id)
    ItemsService.restore(item.id)
    ItemsService.hard_delete(item.id)
    found = entries()
    assert [entry.operation for entry in found] == [
        "insert", "update", "delete", "restore", "hard_delete",
    ]  # fmt: skip
    assert {(entry.table_name, entry.row_id) for entry in found} == {
        ("audited_items", str(item.id))
    }
    insert, update, delete, restore, gone = found
    assert (insert.old, insert.new["name"]) == (None, "one")
    assert (update.old["name"], update.new["name"]) == ("one", "two")
    assert set(update.new) == {"name", "updated_at"}
    assert delete.old["deleted_at"] is None
    assert restore.old["deleted_at"] == delete.new["deleted_at"]
    assert (gone.new, gone.old["name"]) == (None, "two")


def test_bulk_verbs_raw_sql_and_truncate_leave_entries_for_each_row(trail):
    made = ItemsService.create_many({"name": str(n)} for n in range(COPY_FROM))  # by COPY
    assert len(entries()) == COPY_FROM
    ItemsService.update_many([{"id": row.id, "count": 1} for row in made[:3]])
    ItemsService.upsert({"name": "new", "code": "a"}, on=["code"])
    ItemsService.upsert_many(
        [{"name": "newer", "code": "a"}, {"name": "x", "code": "b"}], on=["code"]
    )
    ItemsService.update_where({"count": 1}, {"count": 2})
    trail.execute_sql("UPDATE audited_items SET count = 3 WHERE count = 2")
    Item.hard_delete().where(Item.count == 3).execute()
    trail.execute_sql("TRUNCATE audited_items")
    some = [told(entry) for entry in entries()[COPY_FROM:]]
    assert [operation for operation, _ in some] == [
        *["update"] * 3, "insert", "update", "insert", *["update"] * 6,
        *["hard_delete"] * 3, "truncate",
    ]  # fmt: skip
    assert some[4][1] == {"name"}


def test_what_changes_nothing_leaves_no_entry(trail):
    item = ItemsService.create({"name": "one", "code": "a"})
    trail.execute_sql("UPDATE audited_items SET name = name")
    trail.execute_sql(
        "INSERT INTO audited_items (name, code) VALUES ('two', 'a') "
        "ON CONFLICT (code) WHERE deleted_at IS NULL DO NOTHING"
    )
    ItemsService.update(item.id, {"count": None})
    assert [told(entry) for entry in entries()[1:]] == [("update", set())]  # updated_at alone


def test_a_number_that_is_equal_and_written_otherwise_is_a_change(trail):
    ItemsService.create({"name": "one", "facts": 1})
    for text in ("1.0", "1.00"):
        trail.execute_sql("UPDATE audited_items SET facts = %s::jsonb", (text,))
    found = trail.execute_sql("SELECT new ->> 'facts' FROM audit_log ORDER BY id").fetchall()
    assert found == [("1",), ("1.0",), ("1.00",)]


def test_what_is_told_does_not_depend_on_the_settings_of_the_writer(trail):
    ItemsService.create({"name": "one"})
    trail.execute_sql(
        "SET LOCAL timezone TO 'Asia/Kolkata'; SET LOCAL datestyle TO 'SQL, DMY'; "
        "SET LOCAL bytea_output TO 'escape'; SET LOCAL extra_float_digits TO -5; "
        "UPDATE audited_items SET share = 0.30000000000000004, data = '\\x00ff', "
        "at = '2026-01-02 03:04:05Z'"
    )
    assert entries()[-1].new == {
        "share": 0.30000000000000004,
        "data": "\\x00ff",
        "at": "2026-01-02T03:04:05+00:00",
    }


def test_what_is_rolled_back_leaves_nothing(trail):
    with pytest.raises(ZeroDivisionError), transaction():
        create_and_fail("one")
    with transaction():
        with pytest.raises(ZeroDivisionError), transaction():
            create_and_fail("two")
        ItemsService.create({"name": "three"})
    assert [entry.new["name"] for entry in entries()] == ["three"]


def test_an_entry_tells_the_transaction_its_times_and_the_role(trail):
    before = utcnow()
    with transaction():
        ItemsService.create({"name": "one"})
        ItemsService.create({"name": "two"})
        number = trail.execute_sql("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]
    one, two = entries()
    assert one.transaction_id == two.transaction_id == number
    assert one.started_at == two.started_at
    assert before - timedelta(seconds=5) < one.started_at <= one.recorded_at < two.recorded_at
    role = trail.execute_sql("SELECT session_user").fetchone()[0]
    assert (one.role, one.actor, one.request_id) == (role, None, None)


def test_a_changed_key_is_told_under_the_old_one(trail):
    item = ItemsService.create({"name": "one"})
    new = "00000000-0000-7000-8000-000000000001"
    trail.execute_sql("UPDATE audited_items SET id = %s", (new,))
    entry = entries()[1]
    assert (entry.row_id, entry.old, entry.new) == (str(item.id), {"id": str(item.id)}, {"id": new})


# -- who ----------------------------------------------------------------------------------------

HOSTILE = "user:4'2\\ \"%s%%; DROP TABLE audited_items; -- ☃😀"


def test_who_acts_and_for_which_request_is_told_through_every_door(trail):
    with acting_as(HOSTILE, request_id="r'1"):
        item = ItemsService.create({"name": "one"})
        ItemsService.create_many({"name": str(n)} for n in range(COPY_FROM))
        trail.execute_sql("  -- raw\n UPDATE audited_items SET count = 1 WHERE name = 'one'")
        with transaction():
            trail.cursor().execute("UPDATE audited_items SET count = 2 WHERE name = 'one'")
        ItemsService.soft_delete(item.id)
    ItemsService.restore(item.id)
    found = entries()
    assert {(entry.actor, entry.request_id) for entry in found[:-1]} == {(HOSTILE, "r'1")}
    assert len(found) == COPY_FROM + 5
    assert (found[-1].actor, found[-1].request_id) == (None, None)


def test_actors_of_one_transaction_are_told_apart(trail):
    with acting_as("a"), transaction() as tx:
        ItemsService.create({"name": "1"})
        with acting_as("b", request_id="r"):
            ItemsService.create({"name": "2"})
            with acting_as(None):
                ItemsService.create({"name": "3"})
        ItemsService.create({"name": "4"})
        with acting_as("c"), pytest.raises(ZeroDivisionError), transaction():
            create_and_fail("lost")
        ItemsService.create({"name": "5"})
        with acting_as("c"), transaction():
            ItemsService.create({"name": "6"})
        ItemsService.create({"name": "7"})
        tx.commit()
        ItemsService.create({"name": "8"})
    ItemsService.create({"name": "9"})
    found = {entry.new["name"]: (entry.actor, entry.request_id) for entry in entries()}
    assert found == {
        "1": ("a", None), "2": ("b", "r"), "3": (None, "r"), "4": ("a", None), "5": ("a", None),
        "6": ("c", None), "7": ("a", None), "8": ("a", None), "9": (None, None),
    }  # fmt: skip


def test_savepoints_and_transactions_made_by_hand_are_told_apart_too(trail):
    with acting_as("a"), transaction():
        ItemsService.create({"name": "1"})
        trail.execute_sql("SAVEPOINT mine")
        with acting_as("b"):
            ItemsService.create({"name": "lost"})
            trail.execute_sql("ROLLBACK TO SAVEPOINT mine")
            ItemsService.create({"name": "2"})
    with trail.connection_context():
        trail.begin()
        with acting_as("c"):
            ItemsService.create({"name": "3"})
        ItemsService.create({"name": "4"})
        trail.commit()
    assert actors() == ["a", "b", "c", None]


def test_a_statement_that_fails_keeps_the_actor_of_what_follows_right(trail):
    with acting_as("a"), transaction():
        with pytest.raises(InvalidValue):
            ItemsService.create({"name": 1})
        with pytest.raises(Exception, match="42P01"), transaction():
            trail.execute_sql("UPDATE nowhere SET a = 1")
        ItemsService.create({"name": "1"})
    with acting_as("b"), pytest.raises(Exception, match="42P01"):
        trail.execute_sql("UPDATE nowhere SET a = 1")
    ItemsService.create({"name": "2"})
    assert actors() == ["a", None]


def test_each_thread_has_its_own_actor(trail):
    def work(name):
        with acting_as(name):
            for n in range(5):
                ItemsService.create({"name": f"{name}{n}"})

    threads = [threading.Thread(target=work, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(entry.new["name"].startswith(entry.actor) for entry in entries())
    assert len(entries()) == 15


def statements(database, work):
    seen = []
    database.query_hooks.append(lambda event: seen.append(event.sql))
    try:
        work()
    finally:
        database.query_hooks.clear()
    return seen


def test_telling_who_acts_sends_no_statement_of_its_own(trail):
    def work():
        with acting_as("a"):
            ItemsService.create({"name": "1"})
            with transaction():
                ItemsService.create({"name": "2"})

    assert [sql.split()[0] for sql in statements(trail, work)] == [
        "INSERT", "BEGIN", "INSERT", "COMMIT",
    ]  # fmt: skip
    assert actors() == ["a", "a"]


def test_nothing_is_told_where_nothing_is_audited(clone_db):
    with acting_as("a"), transaction():
        clone_db.execute_sql("SELECT 1")
        found = clone_db.execute_sql("SELECT current_setting('orm_core.actor', true)").fetchone()
    assert found[0] in (None, "")


def test_a_read_of_its_own_takes_nothing_along(trail):
    asked = "SELECT current_setting('orm_core.actor', true)"
    with acting_as("a"):
        assert trail.execute_sql(asked).fetchone()[0] in (None, "")
        with transaction():
            assert trail.execute_sql(asked).fetchone()[0] == "a"


def test_a_command_that_runs_in_no_transaction_still_runs(trail):
    with acting_as("a"):
        trail.execute_sql("VACUUM audited_items")
        trail.execute_sql("SELECT 1")


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "a\nb", "\ud800", 42])
def test_an_actor_that_is_no_name_is_refused(name):
    with pytest.raises(InvalidValue, match="actor"), acting_as(name):
        pass
    with pytest.raises(InvalidValue, match="request_id"), acting_as("a", request_id=name):
        pass


# -- secrets ------------------------------------------------------------------------------------


def test_that_a_secret_changed_is_told_and_never_what_it_is(trail, keys):
    item = ItemsService.create({"name": "one", "secret": Secret("canary-4711")})
    ItemsService.update(item.id, {"name": "two"})
    ItemsService.update(item.id, {"secret": Secret("canary-4712")})
    ItemsService.update(item.id, {"secret": None})
    parts = ["secret", "secret_index", "secret_iv", "secret_tag"]
    assert [sorted(entry.masked or ()) for entry in entries()] == [
        parts, [], parts, parts,
    ]  # fmt: skip
    stored = trail.execute_sql("SELECT string_agg(a::text, ' ') FROM audit_log AS a").fetchone()[0]
    assert "canary" not in stored
    for entry in entries():
        assert not {*(entry.old or {}), *(entry.new or {})} & set(parts)


# -- reading ------------------------------------------------------------------------------------


def test_the_history_of_a_row_is_paged_and_filtered(trail):
    item = ItemsService.create({"name": "0"})
    ItemsService.create({"name": "another"})
    for n in range(1, 4):
        with acting_as(f"user:{n % 2}"):
            ItemsService.update(item.id, {"name": str(n)})
    page = AuditService.history(Item, item.id, size=3)
    assert [entry.new["name"] for entry in page] == ["3", "2", "1"]
    rest = AuditService.history(Item, str(item.id), size=3, after=page.next_cursor)
    assert [entry.new["name"] for entry in rest] == ["0"]
    assert not rest.has_next
    assert len(AuditService.history("audited_items")) == 5
    assert len(AuditService.history("public.audited_items", actor="user:1")) == 2
    middle = page.items[1].recorded_at
    assert len(AuditService.history(Item, item.id, since=middle)) == 2
    assert len(AuditService.history(Item, item.id, until=middle)) == 2


def test_a_row_is_as_it_was(trail):
    started = utcnow()
    values = {"name": "one", "amount": Decimal("12.3400"), "at": datetime(2026, 1, 2, tzinfo=UTC)}
    item = ItemsService.create(values)
    created = entries()[-1].recorded_at
    ItemsService.update(item.id, {"name": "two", "tags": ["a", None]})
    changed = entries()[-1].recorded_at
    ItemsService.hard_delete(item.id)
    first = AuditService.as_of(Item, item.id, created)
    assert (first["name"], str(first["amount"]), first["at"]) == ("one", "12.3400", values["at"])
    assert "secret" not in first
    assert AuditService.as_of(Item, item.id, changed)["tags"] == ["a", None]
    assert AuditService.as_of(Item, item.id, utcnow() + timedelta(minutes=1)) is None
    assert AuditService.as_of(Item, item.id, started - timedelta(minutes=1)) is None
    with pytest.raises(NotFound, match="does not go back"):
        AuditService.as_of(Item, "00000000-0000-7000-8000-000000000001", utcnow())


@pytest.mark.parametrize(
    "ask",
    [
        lambda: AuditService.history(int),
        lambda: AuditService.history(Item, "no id"),
        lambda: AuditService.history("items", 1.5),
        lambda: AuditService.history(Item, size=0),
        lambda: AuditService.history(Item, since=datetime(2026, 1, 1)),
        lambda: AuditService.as_of(Item, "00000000-0000-7000-8000-000000000001", None),
    ],
)
def test_a_wrong_question_is_refused_before_any_sql(ask):
    with pytest.raises(InvalidValue):
        ask()


# -- keeping ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "SELECT set_config('orm_core.audit_prune', 'on', false); UPDATE audit_log SET actor = 'x'",
    ],
)
def test_the_trail_is_not_changed_by_hand(trail, sql):
    ItemsService.create({"name": "one"})
    with pytest.raises(InsufficientPrivilege):
        trail.execute_sql(sql)
    assert actors() == [None]


def test_a_role_with_rights_on_rows_can_neither_alter_nor_forge_the_trail(trail):
    trail.execute_sql("DROP ROLE IF EXISTS audit_runtime")
    trail.execute_sql("CREATE ROLE audit_runtime")
    trail.execute_sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO audit_runtime")
    trail.execute_sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO audit_runtime")
    try:
        with trail.connection_context():
            trail.execute_sql("SET ROLE audit_runtime")
            ItemsService.create({"name": "one"})
            for sql in (
                "SELECT set_config('orm_core.audit_prune', 'on', false)",
                "DELETE FROM audit_log",
                "UPDATE audit_log SET actor = 'x'",
                "INSERT INTO audit_log (table_name, operation) VALUES ('a', 'insert')",
                "CREATE TEMPORARY TABLE t (id int)",
                "CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW "
                "EXECUTE FUNCTION orm_core_audit('{id}', '{}', '')",
                "ALTER TABLE audited_items DISABLE TRIGGER ALL",
            ):
                if sql.startswith(("SELECT", "CREATE TEMP")):
                    trail.execute_sql(sql)
                    continue
                with pytest.raises(InsufficientPrivilege):
                    trail.execute_sql(sql)
            trail.execute_sql("RESET ROLE")
        assert [entry.operation for entry in entries()] == ["insert"]
    finally:
        trail.execute_sql("DROP OWNED BY audit_runtime")
        trail.execute_sql("DROP ROLE audit_runtime")


def test_the_service_s_role_of_least_privilege_writes_the_trail_and_only_reads_it(trail):
    names = {"runtime": "audit_app", "migrator": "audit_deploy"}
    registry = Registry()
    registry.register(domain())
    script = roles_sql(registry.models, **names)
    script = script.replace("BEGIN;\n", "", 1).removesuffix("COMMIT;")
    try:
        with trail.atomic():
            trail.execute_sql(script.replace("%", "%%"))
        with trail.connection_context():
            trail.execute_sql("SET ROLE audit_app")
            with acting_as("user:42"):
                ItemsService.create({"name": "one"})
            assert [entry.actor for entry in AuditService.history(Item)] == ["user:42"]
            for sql in (
                "DELETE FROM audit_log",
                "INSERT INTO audit_log (table_name, operation) VALUES ('a', 'insert')",
            ):
                with pytest.raises(InsufficientPrivilege):
                    trail.execute_sql(sql)
            trail.execute_sql("RESET ROLE")
        with trail.connection_context():
            trail.execute_sql("SET ROLE audit_deploy")
            assert prune(timedelta(microseconds=1)) == 1
            trail.execute_sql("RESET ROLE")
    finally:
        for role in names.values():
            trail.execute_sql(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
            trail.execute_sql(f"DROP OWNED BY {role}")
            trail.execute_sql(f"DROP ROLE {role}")


# -- the word -----------------------------------------------------------------------------------


def test_one_word_brings_the_trail_into_the_registry():
    registry = Registry()
    registry.register(Domain("audited_items", models=(Item,)))
    assert AuditEntry not in registry.models
    registry = Registry()
    registry.register(Domain("audited_items", models=(Item,), audit=True))
    assert (AuditEntry in registry.models, "audit_log" in registry) == (True, True)
    Item._meta.audit = db.audited = False
    with pytest.raises(RegistryError, match="audit takes"):
        Domain("x", audit="yes")
    with pytest.raises(RegistryError, match="is that of the audit trail"):
        Registry().register(Domain("audit_log"), Domain("audited_items", (Item,), audit=True))
    holder = Registry()
    holder.register(Domain("kept", models=(AuditEntry,)), Domain("audited_items", (Item,)))
    assert holder.models.count(AuditEntry) == 1


def test_another_database_is_not_told_anything():
    assert Database(None).audited is False


def test_the_studio_shows_the_trail_and_offers_no_edits(trail):
    from studio_helpers import PORT, ROOT, Browser, words

    from orm_core.studio.app import Studio
    from orm_core.studio.guard import Guard

    with acting_as("user:42"):
        ItemsService.create({"name": "one"})
    registry = Registry()
    registry.register(domain())
    guard = Guard("127.0.0.1", PORT)
    page = Browser(Studio(registry, trail, guard, ROOT / "migrations", write=True))
    try:
        shown = page.get("/audit_log")
        assert (shown.status_code, "user:42" in words(shown)) == (200, True)
        place = f"/audit_log/{entries()[0].id}"
        for path in ("/audit_log", place):
            assert "/-/new" not in page.get(path).get_data(as_text=True)
            assert "/-/edit" not in page.get(path).get_data(as_text=True)
        for path in ("/audit_log/-/new", f"{place}/-/edit"):
            assert "Nobody edits the audit trail" in words(page.get(path))
        changed = page.post(f"{place}/-/edit", {"version": "1", "value.actor": "x"})
        assert changed.status_code >= 400
        assert actors() == ["user:42"]
    finally:
        page.studio.close()
