"""What services send is what the same query built by hand would send."""

from __future__ import annotations

import itertools
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import peewee
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wide_models import MODELS, VALUES, Bare, Shelf, Thing

from orm_core import (
    AutoField,
    BaseModel,
    Database,
    DateTimeField,
    EncryptedTextField,
    ForeignKeyField,
    InvalidValue,
    KeyRing,
    NotFound,
    OrmCoreError,
    Secret,
    Service,
    TextField,
    db,
    finder,
    use_key_ring,
    uuid7,
)
from orm_core.models.schema import Metadata, create_all
from orm_core.models.soft_delete import SoftDelete
from orm_core.queries import plans

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


class Things(Service[Thing]):
    find_by_title = finder(Thing.title)
    find_by_shelf = finder(Thing.shelf)


class Shelves(Service[Shelf]):
    pass


class Bares(Service[Bare]):
    find_by_name = finder(Bare.name)


finders = {
    name: type("Finding", (Service,), {"model": Thing, "by": finder(getattr(Thing, name))})
    for name in VALUES
    if name not in {"colours", "tags", "uids", "data"}
}


@pytest.fixture(autouse=True)
def one_moment(monkeypatch) -> Iterator[None]:
    """Times and keys that do not differ between two calls of the same."""
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    for place in ("orm_core.models.soft_delete", "orm_core.queries.plans"):
        monkeypatch.setattr(f"{place}.utcnow", lambda: NOW)
    monkeypatch.setattr("orm_core.queries.plans.utcnow_text", lambda: NOW)
    yield
    use_key_ring(None)


@pytest.fixture
def tables(rollback_db) -> None:
    create_all(db, MODELS)


@contextmanager
def sent() -> Iterator[list[tuple[str, list[tuple[type, Any]]]]]:
    """SQL and values of the block's statements on rows."""
    events: list[Any] = []
    db.query_hooks.append(events.append)
    told: list[tuple[str, list[tuple[type, Any]]]] = []
    try:
        yield told
    finally:
        db.query_hooks.remove(events.append)
        for event in events:
            if event.sql.split()[0] in {"SELECT", "INSERT", "UPDATE", "DELETE"}:
                values = [_value(one) for one in event.params or ()]
                told.append((event.sql, values))


_AS_TEXT: dict[str, Callable[[str], Any]] = {
    r"[0-9a-f-]{32,36}": uuid.UUID,
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00": datetime.fromisoformat,
    r"[{\[].*[}\]]": json.loads,
}


def _value(value: Any) -> tuple[type, Any]:
    """A value; what a statement holds as a text is what the text says."""
    value = getattr(value, "adapted", value)
    for pattern, read in _AS_TEXT.items():
        if isinstance(value, str) and re.fullmatch(pattern, value):
            with suppress(ValueError):
                value = read(value)
    return type(value), value


def both(ours: Callable[[], Any], by_hand: Callable[[], Any]) -> None:
    """Both send the same and answer the same, and both leave nothing behind."""
    outcomes = []
    for work in (ours, by_hand):
        with sent() as told, pytest.raises(_Undo) as undone, db.atomic():  # noqa: PT012
            try:
                row = work()
            except OrmCoreError as error:
                raise _Undo(type(error)) from None
            raise _Undo(_described(row))
        outcomes.append((told, undone.value.args))
    assert outcomes[0] == outcomes[1]


class _Undo(Exception):
    pass


def _described(row: Any) -> Any:
    if not isinstance(row, BaseModel):
        return row
    data = {name: value for name, value in row.__data__.items() if not name.startswith("token")}
    types = {name: type(value) for name, value in data.items()}
    return type(row), data, types, row.dirty_fields, row._stored, row.__rel__


quick = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
moments = st.just(NOW)
payloads = st.fixed_dictionaries(
    {},
    optional={
        **{name: values | st.none() for name, values in VALUES.items() if name != "title"},
        "title": VALUES["title"],
        "counted": st.text("ab", max_size=3),
    },
)
fixed = st.fixed_dictionaries(
    {"id": st.uuids() | st.uuids().map(str), "created_at": moments, "updated_at": moments}
)


@quick
@given(payloads, fixed)
def test_create_sends_what_an_insert_does(tables, payload, standard):
    payload = {**payload, **standard}
    both(
        lambda: Things.create(payload),
        lambda: next(iter(Thing.insert(payload).returning(Thing).execute())),
    )


@quick
@given(payloads, st.booleans())
def test_update_sends_what_an_update_does(tables, payload, include_deleted):
    thing = Thing.create(id=uuid7())

    def by_hand() -> Any:
        if not payload:
            raise InvalidValue("nothing to change")
        query = Thing.update(payload).where(Thing.id == thing.id)
        query = query.with_deleted() if include_deleted else query
        return next(iter(query.returning(Thing).execute()), None)

    both(lambda: Things.update(thing.id, payload, include_deleted=include_deleted), by_hand)


@pytest.mark.parametrize("name", finders)
@settings(quick, max_examples=10)
@given(data=st.data())
def test_a_finder_sends_what_a_select_does(tables, name, data):
    value = data.draw(VALUES[name])
    field = getattr(Thing, name)
    Thing.create(**{name: value})
    for include_deleted in (False, True):
        query = Thing.select().where(field == value).order_by(Thing.id).limit(1)
        query = query.with_deleted() if include_deleted else query
        both(
            lambda flag=include_deleted: finders[name].by(value, include_deleted=flag),
            lambda query=query: next(iter(query), None),
        )


@pytest.mark.parametrize("include_deleted", [False, True])
def test_a_row_by_its_id_is_what_a_select_finds(tables, include_deleted):
    live, gone = Thing.create(), Thing.create(deleted_at=NOW)
    for key in (live.id, str(live.id), gone.id, gone.id.hex, uuid7()):
        query = Thing.select().where(Thing.id == key)
        query = query.with_deleted() if include_deleted else query
        both(
            lambda key=key: Things.find_by_id(key, include_deleted=include_deleted),
            lambda query=query: next(iter(query), None),
        )


def test_soft_delete_sends_what_delete_does(tables):
    thing = Thing.create()
    both(
        lambda: Things.soft_delete(thing.id),
        lambda: next(
            iter(SoftDelete(Thing).where(Thing.id == thing.id).returning(Thing).execute())
        ),
    )


def test_a_reference_is_given_by_the_row_the_id_or_its_text(tables):
    shelf = Shelf.create()
    for payload in (
        {"shelf": shelf}, {"shelf": shelf.id}, {"shelf": str(shelf.id)},
        {"shelf_id": shelf.id}, {"shelf_id": shelf},
    ):  # fmt: skip
        thing = Things.create(payload)
        assert thing.shelf_id == shelf.id
        assert Things.update(thing.id, payload).shelf == shelf
        assert Things.find_by_shelf(next(iter(payload.values()))).shelf_id == shelf.id
    with pytest.raises(InvalidValue, match="given twice"):
        Things.create({"shelf": shelf, "shelf_id": shelf.id})
    with pytest.raises(InvalidValue, match=r"Thing\.shelf must be a Shelf"):
        Things.create({"shelf": Thing.create()})


def test_the_order_of_a_payload_does_not_matter(tables):
    values = {"title": "t", "number": 3, "code": "c", "flag": True}
    for names in itertools.permutations(values):
        thing = Things.create({name: values[name] for name in names})
        assert {name: getattr(thing, name) for name in names} == values


def test_what_the_server_fills_or_computes_is_in_the_answer(tables):
    thing = Things.create({"number": 1234})
    assert (thing.counted, thing.twice) == ("by the server", 234)
    assert Things.update(thing.id, {"number": 2}).twice == 2
    for call in (
        lambda: Things.create({"twice": 3}),
        lambda: Things.update(thing.id, {"twice": 3}),
    ):
        with pytest.raises(InvalidValue, match="computed by the server"):
            call()


def test_each_new_row_has_defaults_of_its_own(tables):
    one, other = Things.create({}), Things.create({})
    assert one.id != other.id
    assert one.created_at == one.updated_at < other.created_at


def test_secrets_are_sealed_for_their_row_each_time(tables):
    one, other = (Things.create({"token": Secret("same")}) for _ in range(2))
    assert one.token_iv != other.token_iv
    assert [Thing.get_by_id(row.id).token.reveal() for row in (one, other)] == ["same", "same"]
    changed = Things.update(one.id, {"token": Secret("new"), "title": "x"})
    assert (changed.token.reveal(), changed.title) == ("new", "x")
    assert Things.update(one.id, {"token": None}).token is None
    for wrong in ("plain", b"plain", 3):
        with pytest.raises(InvalidValue, match="must be a Secret"):
            Things.create({"token": wrong})


def test_a_default_secret_is_sealed(rollback_db):
    class Locked(BaseModel):
        code = EncryptedTextField(default=lambda: Secret("0000"))

        class Meta:
            table_name = "plans_locked"

    class LockedService(Service[Locked]):
        pass

    create_all(db, [Locked])
    assert LockedService.create({}).code.reveal() == "0000"
    assert LockedService.create({"code": Secret("1")}).code.reveal() == "1"


def test_a_model_without_the_standard_columns_has_all_verbs(tables):
    first = Bares.create({"name": "a"})
    second = Bares.create({"name": "b", "twin": first})
    assert (type(first.id), second.twin_id) == (int, first.id)
    assert Bares.find_by_name("b") == second
    assert Bares.get(first.id) == first
    assert Bares.update(second.id, {"twin_id": None}).twin_id is None
    assert Bares.soft_delete(second.id) == second
    assert Bares.find_by_id(second.id) is None
    with pytest.raises(NotFound):
        Bares.get(second.id)


def test_rows_that_are_declared_to_cascade_later_go_too(rollback_db):
    class Parent(BaseModel):
        class Meta:
            table_name = "plans_parents"

    class Parents(Service[Parent]):
        pass

    create_all(db, [Parent])
    Parents.soft_delete(Parents.create({}).id)

    class Child(BaseModel):
        parent = ForeignKeyField(Parent, on_soft_delete="cascade")

        class Meta:
            table_name = "plans_children"

    create_all(db, [Child])
    parent = Parents.create({})
    Child.create(parent=parent)
    Parents.soft_delete(parent.id)
    assert Child.select().count() == 0

    class Grandchild(BaseModel):
        child = ForeignKeyField(Child, on_soft_delete="cascade")

        class Meta:
            table_name = "plans_grandchildren"

    create_all(db, [Grandchild])
    parent = Parents.create({})
    Grandchild.create(child=Child.create(parent=parent))
    Parents.soft_delete(parent.id)
    assert (Child.select().count(), Grandchild.select().count()) == (0, 0)
    Parents.restore(parent.id)
    assert (Child.select().count(), Grandchild.select().count()) == (1, 1)


def test_a_child_whose_table_is_renamed_still_goes_with_its_parent(rollback_db):
    class Owner(BaseModel):
        class Meta:
            table_name = "plans_owners"

    class Owners(Service[Owner]):
        pass

    class Pet(BaseModel):
        owner = ForeignKeyField(Owner, on_soft_delete="cascade")

        class Meta:
            table_name = "plans_pets"

    create_all(db, [Owner, Pet])
    Owners.soft_delete(Owners.create({}).id)
    db.execute_sql("ALTER TABLE plans_pets RENAME TO plans_animals")
    Pet._meta.set_table_name("plans_animals")
    owner = Owners.create({})
    Pet.create(owner=owner)
    Owners.soft_delete(owner.id)
    assert Pet.select().count() == 0


def test_a_change_of_the_model_changes_what_is_sent(rollback_db):
    class Moving(BaseModel):
        name = TextField(default="")

        class Meta:
            table_name = "plans_moving"

    class Movings(Service[Moving]):
        find_by_name = finder(Moving.name)

    create_all(db, [Moving])

    def verbs() -> list[str]:
        with sent() as told:
            row = Movings.create({"name": "x"})
            assert Movings.find_by_name("x") == Movings.get(row.id) == row
            assert Movings.update(row.id, {"name": "y"}) == row
            assert Movings.soft_delete(row.id) == row
        return [sql for sql, _ in told]

    assert all('"plans_moving"' in sql for sql in verbs())
    db.execute_sql("CREATE SCHEMA plans_elsewhere")
    db.execute_sql("ALTER TABLE plans_moving SET SCHEMA plans_elsewhere")
    Moving._meta.schema = "plans_elsewhere"
    assert all('"plans_elsewhere"."plans_moving"' in sql for sql in verbs())
    db.execute_sql('ALTER TABLE plans_elsewhere.plans_moving RENAME TO "plans ""moved"""')
    Moving._meta.set_table_name('plans "moved"')
    assert all('"plans ""moved"""' in sql for sql in verbs())
    db.execute_sql('ALTER TABLE plans_elsewhere."plans ""moved""" ADD COLUMN extra timestamptz')
    Moving._meta.add_field("extra", DateTimeField(null=True))
    assert all('"extra"' in sql for sql in verbs())
    assert Movings.create({"name": "x", "extra": NOW}).extra == NOW


def test_what_is_sent_goes_to_the_database_that_the_model_is_bound_to(tables):
    shelf = Shelves.create({"label": "x"})
    other = Database("nowhere")
    sent_there: list[str] = []

    def execute(sql: str, params: Any = None) -> Any:
        sent_there.append(sql)
        return db.execute_sql(sql, params)

    other.execute_sql = execute  # type: ignore[method-assign]
    with other.bind_ctx([Shelf]):
        assert Shelves.get(shelf.id) == shelf
        assert Shelves.update(shelf.id, {"label": "y"}).label == "y"
    assert len(sent_there) == 2
    assert Shelves.get(shelf.id).label == "y"
    assert len(sent_there) == 2


def test_verbs_work_on_a_database_that_is_peewees_own(clone_db, orm_core_server):
    create_all(clone_db, MODELS)
    server = {name: getattr(orm_core_server, name) for name in ("host", "port", "user", "password")}
    plain = peewee.PostgresqlDatabase(clone_db.database, **server)
    with plain.bind_ctx(MODELS):
        shelf = Shelves.create({"label": "x"})
        assert Shelves.get(shelf.id) == shelf
        assert Shelves.update(shelf.id, {"label": "y"}).label == "y"
        assert Shelves.soft_delete(shelf.id) == shelf
    plain.close()
    assert Shelf.with_deleted().get().label == "y"


def test_a_replaced_execute_sql_is_respected(tables, monkeypatch):
    """peewee-migrate replaces it while it replays old files, so that nothing is sent."""
    from unittest.mock import MagicMock

    shelf = Shelves.create({})
    mock = MagicMock()
    mock.return_value.fetchall.return_value = []
    mock.return_value.fetchone.return_value = None
    monkeypatch.setattr(db, "execute_sql", mock)
    assert Shelves.find_by_id(shelf.id) is None
    assert Shelves.update(shelf.id, {"label": "x"}) is None
    assert list(Shelf.select().where(Shelf.label == "x")) == []
    assert mock.call_count == 3


def test_plans_are_bounded(tables, monkeypatch):
    monkeypatch.setattr(plans, "MOST_PLANS", 8)
    for names in itertools.permutations(["title", "number", "code", "flag"]):
        Things.create(dict.fromkeys(names, None) | {"title": "x"})
        assert len(Metadata.plans) <= 8


def test_a_refused_shape_is_not_kept(tables):
    Shelves.create({})
    before = len(Metadata.plans)
    for payload in ({"nonsense": 1}, {1: 2}, {"label": "x", None: 1}):
        with pytest.raises(OrmCoreError):
            Shelves.create(payload)
        with pytest.raises(OrmCoreError):
            Shelves.update(uuid7(), payload)
    assert len(Metadata.plans) == before


def test_threads_may_share_plans_while_models_are_declared(clone_db):
    create_all(db, MODELS)
    wrong: list[Any] = []
    done = threading.Event()

    def work() -> None:
        try:
            for number in range(60):
                shelf = Shelves.create({"label": str(number)})
                if Shelves.get(shelf.id).label != str(number):
                    wrong.append(shelf)
        except Exception as error:
            wrong.append(error)

    def declare() -> None:
        count = itertools.count()
        while not done.is_set():
            number = next(count)
            meta = type("Meta", (), {"table_name": f"plans_declared_{number}"})
            type(f"Declared{number}", (BaseModel,), {"id": AutoField(), "Meta": meta})

    declaring = threading.Thread(target=declare)
    declaring.start()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    declaring.join()
    assert wrong == []
