"""Erasure: what an owner's data key sealed is unreadable for good, and nothing else is."""

import pickle
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import pytest
from migration_tools import given

from orm_core import (
    AutoField,
    BaseModel,
    DuplicateKey,
    EncryptedJSONField,
    EncryptedTextField,
    ForeignKeyField,
    IndexKeys,
    InvalidValue,
    KeyRing,
    NotFound,
    RegistryError,
    Secret,
    SecretErased,
    SecretJSON,
    SecretUnreadable,
    Service,
    TextField,
    db,
    erasure,
    stream,
    to_dict,
    use_index_keys,
    use_key_ring,
)
from orm_core.domain import Domain, Registry
from orm_core.erasure import ErasedColumn, erasable, erase
from orm_core.migrations.migrations import Migrations
from orm_core.models import owners
from orm_core.models.data_keys import DataKey
from orm_core.rotation import KeyUse, check, rotate, status

__all__ = ["given"]  # a fixture

CANARY = "canary-ya29.a0AfH6"
OLD, NEW, INDEX = KeyRing.generate("k1"), KeyRing.generate("k2"), IndexKeys.generate("i1")


class Person(BaseModel):
    """Owns the secrets of its letters, and one of its own."""

    name = TextField(unique="live")
    diary = EncryptedTextField(null=True, owner="self")

    class Meta:
        table_name = "erased_people"


class Letter(BaseModel):
    """Belongs to a person."""

    person = ForeignKeyField(Person, backref="letters")
    subject = TextField(default="none")
    text = EncryptedTextField(null=True, owner="person")
    code = EncryptedTextField(null=True, owner="person", unique="live")
    card = EncryptedJSONField(null=True, owner="person")
    shared = EncryptedTextField(null=True)

    class Meta:
        table_name = "erased_letters"


class LettersService(Service[Letter]):
    """Letters."""


class PeopleService(Service[Person]):
    """People."""


MODELS = (Person, Letter)
domain = Domain("post", models=MODELS, services=(LettersService, PeopleService))


@pytest.fixture(autouse=True)
def keys() -> Iterator[None]:
    use_key_ring(KeyRing.parse(OLD))
    use_index_keys(IndexKeys.parse(INDEX))
    yield
    use_key_ring(None)
    use_index_keys(None)


@pytest.fixture
def tables(rollback_db: Any) -> Any:
    db.create_tables([DataKey, *MODELS])
    return rollback_db


@pytest.fixture
def committed(clone_db: Any) -> Any:
    db.create_tables([DataKey, *MODELS])
    return clone_db


def person(name: str = "ada") -> Person:
    return Person.create(name=name)


def letter(to: Person, **values: Any) -> Letter:
    return Letter.create(person=to, **{"text": Secret(CANARY), **values})


def fresh(row: Any) -> Any:
    return type(row).with_deleted().where(type(row).id == row.id).get()


def key_of(row: Person) -> Any:
    sql = "SELECT wrapped, erased_at FROM data_keys WHERE id = %s"
    return db.execute_sql(sql, [f"erased_people/{row.id}"]).fetchone()


@contextmanager
def sent() -> Iterator[list[str]]:
    """The statements sent inside the block."""
    found: list[str] = []
    original = db._run

    def note(make_cursor: Any, sql: str, *rest: Any) -> Any:
        found.append(str(sql))
        return original(make_cursor, sql, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "_run", note)
        yield found


# -- sealing --------------------------------------------------------------------------------


def test_each_way_of_writing_seals_with_the_data_key_of_the_owner(tables):
    ada = person()
    made = [
        letter(ada),
        LettersService.create({"person_id": ada.id, "text": Secret(CANARY)}),
        *LettersService.create_many([{"person_id": ada.id, "text": Secret(CANARY)}] * 2),
        LettersService.upsert({"person_id": ada.id, "code": Secret("1"), "text": Secret(CANARY)}),
        *LettersService.upsert_many(
            [{"person_id": ada.id, "code": Secret("2"), "text": Secret(CANARY)}]
        ),
        Letter.get_or_create(person=ada, subject="g", defaults={"text": Secret(CANARY)})[0],
    ]
    bulk = [Letter(person=ada, text=Secret(CANARY)) for _ in range(2)]
    Letter.bulk_create(bulk)
    Letter.insert_many([{"person": ada, "text": Secret(CANARY)}] * 2).execute()
    Letter.insert(person=ada, text=Secret(CANARY)).execute()
    assert len([*made, *bulk]) + 3 == Letter.select().count()
    for one in [*made, *bulk, *Letter.select()]:
        assert one.text.reveal() == CANARY
    ivs = {iv.partition(".")[2] for (iv,) in db.execute_sql("SELECT text_iv FROM erased_letters")}
    assert ivs == {"@owner"}
    assert DataKey.select().count() == 1


def test_many_rows_go_by_copy_with_one_query_for_their_keys(committed):
    people = [person(f"p{number}") for number in range(20)]
    payloads = [
        {"person_id": people[number % 20].id, "text": Secret(f"{CANARY}{number}")}
        for number in range(1200)
    ]
    with sent() as sql:
        made = LettersService.create_many(payloads)
    assert any(one.startswith("COPY") for one in sql)
    assert len([one for one in sql if "data_keys" in one]) == 3  # look, make, look again
    with sent() as sql:
        assert [one.text.reveal() for one in made] == [p["text"].reveal() for p in payloads]
    assert len(sql) == 1


def test_each_way_of_changing_a_row_seals_anew(tables):
    one = letter(person())
    LettersService.update(one.id, {"text": Secret("by update")})
    assert fresh(one).text.reveal() == "by update"
    LettersService.update_many([{"id": one.id, "text": Secret("by update_many")}])
    assert fresh(one).text.reveal() == "by update_many"
    one.text = Secret("by save")
    one.save()
    assert fresh(one).text.reveal() == one.text.reveal() == "by save"
    LettersService.update(one.id, {"text": None})
    assert fresh(one).text is None


def test_a_secret_of_the_row_itself_has_a_key_of_that_row(tables):
    ada = Person.create(name="ada", diary=Secret(CANARY))
    assert fresh(ada).diary.reveal() == CANARY
    PeopleService.update(ada.id, {"diary": Secret("new")})
    assert fresh(ada).diary.reveal() == "new"
    assert key_of(ada)[0]


def test_an_owner_may_have_a_number_as_its_key(tables):
    class Box(BaseModel):
        id = AutoField()  # type: ignore[assignment]
        pin = EncryptedTextField(owner="self")

        class Meta:
            table_name = "erased_boxes"

    db.create_tables([Box])
    with pytest.raises(InvalidValue, match="written with"):
        Box.create(pin=Secret("1"))  # what a secret is bound to must be known before
    box = Box.create(id=7, pin=Secret("1"))
    assert fresh(box).pin.reveal() == "1"
    assert erase(Box, 7).row == "7"
    with pytest.raises(SecretErased):
        fresh(box).pin.reveal()


def test_no_key_is_made_for_a_row_without_a_secret_or_that_is_not_there(tables):
    ada = person()
    letter(ada, text=None)
    missing = uuid.uuid4()
    assert LettersService.update(missing, {"text": Secret("x")}) is None
    assert PeopleService.update(missing, {"diary": Secret("x")}) is None
    changes = [{"id": missing, "text": Secret("x")}, {"id": missing.hex[::-1], "subject": "s"}]
    assert LettersService.update_many(changes) == []
    assert DataKey.select().count() == 0


def test_secrets_without_an_owner_stay_sealed_by_the_ring(tables):
    one = letter(person(), shared=Secret("all"))
    sql = "SELECT shared_iv FROM erased_letters"
    assert db.execute_sql(sql).fetchone()[0].endswith(".k1")
    assert fresh(one).shared.reveal() == "all"


@pytest.mark.parametrize(
    "change",
    [
        lambda one, other: LettersService.update(one.id, {"person_id": other.id}),
        lambda one, other: LettersService.update_many([{"id": one.id, "person_id": other.id}]),
        lambda one, other: LettersService.update_where(None, {"person_id": other.id}),
        lambda one, other: Letter.update(person=other).execute(),
        lambda one, other: (setattr(one, "person", other), one.save()),
        lambda one, other: LettersService.upsert(
            {"person_id": other.id, "code": Secret("1")}, on=["code"]
        ),
        lambda one, other: (
            Letter.insert(id=one.id, person=other)
            .on_conflict(conflict_target=[Letter.id], preserve=[Letter.person])
            .execute()
        ),
    ],
)
def test_the_owner_of_a_stored_row_does_not_change(tables, change):
    one, other = letter(person(), code=Secret("1")), person("bob")
    with pytest.raises(InvalidValue, match="person"):
        change(one, other)
    assert fresh(one).text.reveal() == CANARY


def test_an_upsert_that_names_the_same_owner_changes_the_row(tables):
    ada = person()
    one = letter(ada, code=Secret("1"))
    payload = {"person_id": ada.id, "code": Secret("1"), "text": Secret("new")}
    assert LettersService.upsert(payload, on=["code"]).id == one.id
    assert LettersService.upsert({"id": one.id, "person_id": ada.id}, on=["id"]).id == one.id
    assert fresh(one).text.reveal() == "new"


def test_a_bad_secret_is_refused_before_any_sql(tables):
    ada = person()
    with sent() as sql:
        for write in (
            lambda: LettersService.create({"person_id": ada.id, "text": "plain"}),
            lambda: Letter.insert(person=ada, text="plain"),
            lambda: Letter.insert(person=ada, text=SecretJSON({})),
            lambda: LettersService.create_many([{"person_id": ada.id, "text": "plain"}]),
            lambda: LettersService.update(uuid.uuid4(), {"text": Secret("x" * 2000)}),
        ):
            with pytest.raises(InvalidValue):
                write()
    assert sql == []


# -- reading --------------------------------------------------------------------------------


def test_rows_that_are_read_together_have_their_keys_read_together(tables):
    for number in range(12):
        letter(person(f"p{number}"), text=Secret(f"{CANARY}{number}"))
    with sent() as sql:
        for rows in (
            list(Letter.select()),
            LettersService.list(),
            LettersService.page(size=12).items,
            list(stream(Letter.select(), batch=100)),
            list(Letter.select().records()),
        ):
            assert len({row.text.reveal() for row in rows}) == 12
    assert len([one for one in sql if "data_keys" in one]) == 5


def test_rows_of_a_join_have_their_keys_read_together(tables):
    for number in range(12):
        ada = Person.create(name=f"p{number}", diary=Secret(f"d{number}"))
        letter(ada, text=Secret(f"{CANARY}{number}"))
    query = Letter.select(Letter, Person).join(Person).order_by(Letter.id)
    with sent() as sql:
        read = [(row.text.reveal(), row.person.diary.reveal()) for row in query]
    assert read == [(f"{CANARY}{number}", f"d{number}") for number in range(12)]
    assert [("data_keys" in one) for one in sql] == [False, True]
    passed = [row.text.reveal() for row in query.clone().iterator()]
    assert passed == [text for text, _ in read]
    outer = Person.select(Person, Letter).join(Letter, "LEFT OUTER JOIN")
    assert len({row.letter.text.reveal() for row in outer}) == 12


def test_a_row_without_its_owner_says_what_to_select(tables):
    letter(person())
    part = Letter.select(Letter.id, Letter.text, Letter.text_iv, Letter.text_tag)
    with pytest.raises(SecretUnreadable, match="select person"):
        part.get().text.reveal()
    with pytest.raises(InvalidValue, match="select person"):
        list(part.records())


def test_a_pickled_row_carries_no_key_and_opens(tables):
    one = fresh(letter(person()))
    assert one.text.reveal() == CANARY
    again = pickle.loads(pickle.dumps(one))
    assert again.text.reveal() == CANARY
    assert vars(again)["_keys"]._opened.keys() == vars(one)["_keys"]._opened.keys()


# -- what is bound --------------------------------------------------------------------------


def test_a_value_opens_only_in_its_row_column_and_owner(tables):
    ada, bob = person(), person("bob")
    first, second = letter(ada, code=Secret("c")), letter(ada)
    columns = "text, text_iv, text_tag"

    def moved(target: str, source: str, row: Letter, origin: Letter) -> None:
        db.execute_sql(
            f"UPDATE erased_letters SET ({target}) = (SELECT {source} FROM erased_letters "
            "WHERE id = %s) WHERE id = %s",
            (str(origin.id), str(row.id)),
        )

    moved(columns, columns, second, first)
    with pytest.raises(SecretUnreadable):
        fresh(second).text.reveal()
    moved(columns, "code, code_iv, code_tag", first, first)
    with pytest.raises(SecretUnreadable):
        fresh(first).text.reveal()
    third = letter(ada)
    letter(bob)
    db.execute_sql("UPDATE erased_letters SET person_id = %s WHERE id = %s", (bob.id, third.id))
    with pytest.raises(SecretUnreadable):
        fresh(third).text.reveal()


def test_a_wrapped_key_opens_for_its_owner_and_under_the_ring_only(tables):
    one, other = letter(person()), letter(person("bob"))
    sql = "SELECT wrapped, wrapped_iv, wrapped_tag FROM data_keys WHERE id = %s"
    ada_key = db.execute_sql(sql, [f"erased_people/{one.person_id}"]).fetchone()
    sql = "UPDATE data_keys SET (wrapped, wrapped_iv, wrapped_tag) = (%s, %s, %s) WHERE id = %s"
    db.execute_sql(sql, [*ada_key, f"erased_people/{other.person_id}"])
    with pytest.raises(SecretUnreadable):
        fresh(other).text.reveal()
    use_key_ring(KeyRing.parse(KeyRing.generate("k1")))
    with pytest.raises(SecretUnreadable):
        fresh(one).text.reveal()


def test_a_data_key_in_the_form_of_the_node_system_is_refused(tables):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    one, known, iv = letter(person()), "ab" * 32, bytes(12)
    data = AESGCM(bytes.fromhex(OLD.partition(":")[2])).encrypt(iv, known.encode(), None)
    db.execute_sql(
        "UPDATE data_keys SET wrapped = %s, wrapped_iv = %s, wrapped_tag = %s",
        (data[:-16].hex(), iv.hex(), data[-16:].hex()),
    )
    with pytest.raises(SecretUnreadable, match="was not wrapped"):
        fresh(one).text.reveal()
    use_key_ring(KeyRing.parse(f"{NEW},{OLD}"))
    assert len(rotate([DataKey]).unreadable) == 1


# -- erasing --------------------------------------------------------------------------------


def test_an_erased_owner_has_no_readable_secret_and_rows_that_can_be_used(tables):
    ada, bob = Person.create(name="ada", diary=Secret(CANARY)), person("bob")
    mine = letter(ada, code=Secret("1"), card=SecretJSON({"pin": 1}), shared=Secret("all"))
    gone = letter(ada)
    LettersService.soft_delete(gone.id)
    theirs = letter(bob, code=Secret("2"))
    preview = erasable(Person, ada.id)
    assert preview.columns == (
        ErasedColumn("erased_people", "diary", 1),
        ErasedColumn("erased_letters", "text", 2),
        ErasedColumn("erased_letters", "code", 1),
        ErasedColumn("erased_letters", "card", 1),
    )
    assert (preview.secrets, preview.erased_at) == (5, None)
    done = erase(Person, str(ada.id))
    assert (done.table, done.row) == ("erased_people", str(ada.id))
    assert done.columns == preview.columns
    assert done.erased_at is not None
    for secret in (fresh(ada).diary, fresh(mine).text, fresh(mine).code, fresh(gone).text):
        with pytest.raises(SecretErased, match="erased"):
            secret.reveal()
    with pytest.raises(SecretErased):
        fresh(mine).card.reveal()
    assert fresh(mine).shared.reveal() == "all"
    assert (fresh(theirs).text.reveal(), fresh(theirs).code.reveal()) == (CANARY, "2")
    assert to_dict(fresh(mine))["subject"] == "none"
    assert LettersService.update(mine.id, {"subject": "still here"}).subject == "still here"


def test_the_blind_index_of_an_erased_value_is_emptied(tables):
    ada = person()
    letter(ada, code=Secret("1"))
    erase(Person, ada.id)
    assert LettersService.find({"code": Secret("1")}) is None
    assert db.execute_sql("SELECT code_index FROM erased_letters").fetchone() == (None,)
    assert letter(person("bob"), code=Secret("1")).code.reveal() == "1"


def test_no_secret_is_written_for_an_erased_owner(tables):
    ada = person()
    one = letter(ada)
    erase(Person, ada.id)
    with db.atomic():
        for write in (
            lambda: letter(ada),
            lambda: LettersService.create({"person_id": ada.id, "text": Secret("x")}),
            lambda: LettersService.create_many([{"person_id": ada.id, "text": Secret("x")}]),
            lambda: LettersService.update(one.id, {"text": Secret("x")}),
            lambda: LettersService.update_many([{"id": one.id, "text": Secret("x")}]),
            lambda: PeopleService.update(ada.id, {"diary": Secret("x")}),
        ):
            with pytest.raises(SecretErased):
                write()
    assert Letter.select().count() == 1
    LettersService.update(one.id, {"text": None})
    assert letter(ada, text=None).text is None


def test_an_owner_without_secrets_is_erased_beforehand(tables):
    ada = person()
    assert erase(Person, ada.id).secrets == 0
    with pytest.raises(SecretErased):
        letter(ada)


def test_erasing_twice_tells_the_first_moment(tables):
    ada = person()
    letter(ada)
    first = erase(Person, ada.id)
    assert erase(Person, ada.id) == first == erasable(Person, ada.id)


def test_an_erasure_that_is_stopped_in_the_middle_is_finished_by_the_next(tables, monkeypatch):
    ada = person()
    one = letter(ada, code=Secret("1"))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(erasure, "_empty", stop)
        with pytest.raises(KeyboardInterrupt):
            erase(Person, ada.id)
    with pytest.raises(SecretErased):
        fresh(one).text.reveal()
    assert erase(Person, ada.id).erased_at is not None
    assert db.execute_sql("SELECT code_index FROM erased_letters").fetchone() == (None,)


def test_a_soft_deleted_owner_is_erased(tables):
    ada = person()
    one = letter(ada)
    PeopleService.soft_delete(ada.id)
    assert erase(Person, ada.id).secrets == 1
    with pytest.raises(SecretErased):
        fresh(one).text.reveal()


def test_what_can_not_be_erased_is_refused(tables):
    for call in (erase, erasable):
        with pytest.raises(NotFound, match="erased_people"):
            call(Person, uuid.uuid4())
        with pytest.raises(InvalidValue, match="own no secrets"):
            call(Letter, uuid.uuid4())
        with pytest.raises(InvalidValue, match="UUID"):
            call(Person, "no id")
        with pytest.raises(InvalidValue):
            call(Person, None)  # type: ignore[arg-type]
        with pytest.raises(InvalidValue):
            call("people", uuid.uuid4())  # type: ignore[arg-type]


def test_what_was_sealed_before_the_column_had_an_owner_is_read_upgraded_and_erased(tables):
    ada = person()
    rows = [letter(ada, code=Secret("1")), letter(ada), letter(person("bob"))]
    for row, kind in zip(rows, ("ring", "node", "ring"), strict=True):
        if kind == "ring":
            sealed = KeyRing.parse(OLD).seal(CANARY, ("erased_letters", "text", str(row.id)))
        else:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            cipher = AESGCM(bytes.fromhex(OLD.partition(":")[2]))
            data = cipher.encrypt(bytes(12), CANARY.encode(), None)
            sealed = (data[:-16].hex(), bytes(12).hex(), data[-16:].hex())  # type: ignore[assignment]
        db.execute_sql(
            "UPDATE erased_letters SET text = %s, text_iv = %s, text_tag = %s WHERE id = %s",
            (*sealed, str(row.id)),
        )
    for row in rows:
        assert fresh(row).text.reveal() == CANARY
    uses = {(use.column, use.key): use.rows for use in status([Letter, DataKey])}
    assert (uses["text_iv", "k1"], uses["text_iv", "legacy"]) == (2, 1)
    erase(Person, ada.id)
    for row in rows[:2]:
        with pytest.raises(SecretErased):
            fresh(row).text.reveal()
    use_key_ring(KeyRing.parse(f"{NEW},{OLD}"))
    report = rotate(MODELS)
    assert (report.done, report.is_clean) == (1, True)
    assert fresh(rows[2]).text.reveal() == CANARY
    assert {key for (_, column, key, _) in status([Letter]) if column == "text_iv"} == {"@owner"}


# -- rotating -------------------------------------------------------------------------------


def test_rotate_wraps_data_keys_anew_and_leaves_what_they_sealed(tables):
    rows = [letter(person(f"p{number}"), code=Secret(f"{number}")) for number in range(5)]
    before = list(db.execute_sql("SELECT id, text, text_iv FROM erased_letters ORDER BY id"))
    models = (*MODELS, DataKey)
    use_key_ring(KeyRing.parse(f"{NEW},{OLD}"))
    assert rotate(models, dry_run=True).done == 5
    assert KeyUse("data_keys", "wrapped_iv", "k1", 5) in status(models)
    assert (rotate(models, batch=2).done, rotate(models).done) == (5, 0)
    use_key_ring(KeyRing.parse(NEW))
    assert KeyUse("data_keys", "wrapped_iv", "k2", 5) in status(models)
    assert (
        list(db.execute_sql("SELECT id, text, text_iv FROM erased_letters ORDER BY id")) == before
    )
    assert [fresh(row).text.reveal() for row in rows] == [CANARY] * 5
    report = check(models)
    assert (report.done, report.is_clean) == (15, True)


def test_erased_values_are_counted_apart_and_are_no_problem(tables):
    ada = person()
    letter(ada, code=Secret("1"))
    letter(person("bob"))
    erase(Person, ada.id)
    report = check((*MODELS, DataKey))
    assert (report.done, report.erased, report.is_clean) == (2, 2, True)
    use_key_ring(KeyRing.parse(f"{NEW},{OLD}"))
    again = rotate((*MODELS, DataKey))
    assert (again.done, again.is_clean) == (1, True)


def test_a_rotation_passes_over_the_owner_that_is_erased_meanwhile(tables, monkeypatch):
    ada = person()
    one = letter(ada)
    sealed = KeyRing.parse(OLD).seal(CANARY, ("erased_letters", "text", str(one.id)))
    sql = "UPDATE erased_letters SET text = %s, text_iv = %s, text_tag = %s"
    erase(Person, ada.id)
    db.execute_sql(sql, tuple(sealed))  # as if it was written back by hand
    report = rotate([Letter])
    assert (report.done, report.erased, report.is_clean) == (0, 1, True)


# -- the registry ---------------------------------------------------------------------------


def test_the_table_of_data_keys_comes_with_the_first_model_that_needs_it():
    needed = Registry()
    needed.register(domain)
    assert DataKey in needed.models
    assert "data_keys" in needed.tables
    assert DataKey not in Registry().models


def test_the_table_of_data_keys_is_in_the_migrations(given, tmp_path):
    needed = Registry()
    needed.register(domain)
    migrations = Migrations(given, needed, tmp_path)
    (path,) = migrations.generate("post")
    assert "CREATE TABLE public.data_keys" in path.read_text()
    assert migrations.generate("again") == []


@pytest.mark.parametrize("owner", ["", 5, True])
def test_an_owner_that_is_no_name_is_refused(owner):
    with pytest.raises(RegistryError, match="owner"):
        EncryptedTextField(owner=owner)


@pytest.mark.parametrize("owner", ["nobody", "subject", "maybe", "Target"])
def test_an_owner_that_is_no_reference_is_refused_at_registration(owner):
    class Target(BaseModel):
        name = TextField()

    class Bad(BaseModel):
        subject = TextField()
        maybe = ForeignKeyField(Target, null=True)
        text = EncryptedTextField(null=True, owner=owner)

    with pytest.raises(RegistryError, match="owner="):
        Registry().register(Domain("bad", models=(Target, Bad)))


# -- at the same time -----------------------------------------------------------------------


def test_two_that_make_the_first_key_at_once_seal_with_the_same(committed):
    ada = person()
    start = threading.Barrier(6)

    def write(number: int) -> None:
        start.wait()
        LettersService.create({"person_id": ada.id, "text": Secret(f"{CANARY}{number}")})

    for _ in range(5):
        db.execute_sql("DELETE FROM erased_letters")
        db.execute_sql("DELETE FROM data_keys")
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(write, range(6)))
        assert {one.text.reveal() for one in Letter.select()} == {
            f"{CANARY}{number}" for number in range(6)
        }
        assert DataKey.select().count() == 1


def test_erasing_waits_for_a_secret_under_way_and_covers_it(committed):
    ada = person()
    letter(ada)
    written, erased = threading.Event(), threading.Event()

    def destroy() -> None:
        written.wait(10)
        erase(Person, ada.id)
        erased.set()

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(destroy)
        with db.atomic():
            late = letter(ada, code=Secret("late"))
            written.set()
            deadline = time.monotonic() + 20
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while not db.execute_sql(waiting).fetchone()[0]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert not erased.is_set()
        running.result(20)
    with pytest.raises(SecretErased):
        fresh(late).text.reveal()
    assert db.execute_sql("SELECT count(code_index) FROM erased_letters").fetchone() == (0,)


WRITES: dict[str, Any] = {
    "create": lambda one: LettersService.create({"person_id": one.person_id, "text": Secret("x")}),
    "create_many": lambda one: LettersService.create_many(
        [{"person_id": one.person_id, "text": Secret("x")}]
    ),
    "insert": lambda one: Letter.insert(person=one.person_id, text=Secret("x")).execute(),
    "update": lambda one: LettersService.update(one.id, {"text": Secret("x")}),
    "update_many": lambda one: LettersService.update_many([{"id": one.id, "text": Secret("x")}]),
    "save": lambda one: (setattr(one, "text", Secret("x")), one.save()),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_holds_the_data_key_until_it_is_committed(committed, orm_core_server, name):
    one = letter(person())

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 20
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while db.execute_sql(waiting).fetchone()[0] < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with closing(psycopg2.connect(orm_core_server.url(db.database))) as link:
        link.cursor().execute("LOCK TABLE erased_letters IN SHARE MODE")  # readers pass
        with ThreadPoolExecutor(2) as threads:
            written = threads.submit(WRITES[name], one)
            wait_for(1)
            erased = threads.submit(erase, Person, one.person_id)
            wait_for(2)
            key = key_of(one.person)
            link.rollback()
            written.result(20)
            erased.result(20)
    assert key[0] is not None
    assert check(MODELS).erased == Letter.select().count()


def test_many_writers_and_an_erasure_leave_nothing_that_can_be_read(committed):
    ada = person()
    stop = threading.Event()
    refused: list[int] = []

    def write(number: int) -> int:
        count = 0
        while not stop.is_set():
            try:
                LettersService.create(
                    {
                        "person_id": ada.id,
                        "text": Secret(CANARY),
                        "code": Secret(f"{number}.{count}"),
                    }
                )
            except SecretErased:
                refused.append(number)
                break
            count += 1
        return count

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(write, number) for number in range(4)]
        deadline = time.monotonic() + 20
        while Letter.select().count() < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        erase(Person, ada.id)
        made = sum(one.result(20) for one in running)
        stop.set()
    assert sorted(refused) == [0, 1, 2, 3]
    assert Letter.select().count() == made
    assert check(MODELS).erased == 2 * made
    assert Letter.select().where(Letter.code_index.is_null(False)).count() == 0


def test_an_erasure_elsewhere_takes_effect_on_rows_in_memory(committed, monkeypatch):
    ada = person()
    one = fresh(letter(ada))
    assert one.text.reveal() == CANARY
    db.execute_sql("UPDATE data_keys SET wrapped = NULL, wrapped_iv = NULL, wrapped_tag = NULL")
    with pytest.raises(SecretErased):
        fresh(one).text.reveal()
    monkeypatch.setattr(owners, "KEPT_SECONDS", 0.0)  # as when the time has passed
    with pytest.raises(SecretErased):
        one.text.reveal()


def test_a_key_of_a_transaction_that_is_undone_is_not_used_again(committed):
    ada = person()
    with pytest.raises(DuplicateKey), db.atomic():  # noqa: PT012
        letter(ada)
        Person.create(name="ada")
    assert DataKey.select().count() == 0
    assert letter(ada).text.reveal() == CANARY


# -- no text --------------------------------------------------------------------------------


def test_no_text_carries_a_secret_or_a_data_key(committed, caplog):
    ada = person()
    seen: list[str] = []
    with sent() as sql:
        one = letter(ada, code=Secret(CANARY))
        seen += [repr(one), str(to_dict(one)), repr(erase(Person, ada.id))]
        for secret in (fresh(one).text, fresh(one).code):
            with pytest.raises(SecretErased) as caught:
                secret.reveal()
            seen.append(f"{caught.value!r}")
    dump = [
        str(db.execute_sql(f"SELECT t FROM {t} t").fetchall())
        for t in ("data_keys", "erased_people", "erased_letters")
    ]
    texts = [*seen, *sql, *dump, caplog.text]
    assert not [text for text in texts if CANARY in text or CANARY.encode().hex() in text]
