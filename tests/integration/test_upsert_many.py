"""``upsert_many``: what as many single upserts do."""

import threading
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_helpers import Log, new_user, no_statement, statements, user_data

from domains.users import User, UsersService
from orm_core import (
    BaseModel,
    DuplicateKey,
    EncryptedTextField,
    IntegerField,
    InvalidValue,
    JSONField,
    KeyRing,
    MissingField,
    Secret,
    Service,
    TextField,
    UnknownField,
    db,
    transaction,
    use_key_ring,
    utcnow,
)

NOBODY = uuid.UUID(int=7)


class Option(BaseModel):
    """A natural key of two columns among live rows."""

    scope = TextField()
    name = TextField()
    number = IntegerField(default=0)
    note = TextField(null=True)
    data = JSONField(null=True)

    class Meta:
        table_name = "upsert_options"
        indexes = ((("scope", "name"), "live"),)


class Label(BaseModel):
    """A key that covers deleted rows, too."""

    name = TextField(unique=True)
    color = TextField(default="red")

    class Meta:
        table_name = "upsert_labels"


class Login(BaseModel):
    """A natural key and a secret."""

    name = TextField(unique="live")
    token = EncryptedTextField()

    class Meta:
        table_name = "upsert_logins"


class OptionsService(Service[Option]):
    """Options."""


class LabelsService(Service[Label]):
    """Labels."""


class LoginsService(Service[Login]):
    """Logins."""


@pytest.fixture
def tables(rollback_db):
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    rollback_db.create_tables([Option, Label, Login])
    yield rollback_db
    use_key_ring(None)


def test_new_rows_are_inserted_and_known_ones_updated_in_one_statement(tables):
    old = OptionsService.create({"scope": "a", "name": "old", "number": 1, "note": "kept"})
    with statements() as events:
        rows = OptionsService.upsert_many(
            {"scope": "a", "name": name, "number": 2} for name in ("new", "old", "another")
        )
    assert [event.operation for event in events if event.table == "other"] == ["insert"]
    assert [row.name for row in rows] == ["new", "old", "another"]
    assert [(row.number, row.note) for row in rows] == [(2, None), (2, "kept"), (2, None)]
    assert rows[1].id == old.id
    assert rows[1].created_at == old.created_at
    assert rows[1].updated_at > old.updated_at
    assert OptionsService.count() == 3
    for row in rows:
        assert OptionsService.get(row.id).__data__ == row.__data__


def test_a_deleted_row_is_no_hindrance_where_keys_are_unique_among_live_rows(tables):
    old = OptionsService.create({"scope": "a", "name": "x"})
    OptionsService.soft_delete(old.id)
    (row,) = OptionsService.upsert_many([{"scope": "a", "name": "x", "number": 3}])
    assert row.id != old.id
    assert OptionsService.get(old.id, include_deleted=True).number == 0


def test_a_deleted_row_that_holds_the_key_is_a_duplicate_and_nothing_is_written(clone_db):
    clone_db.create_tables([Label])
    LabelsService.soft_delete(LabelsService.create({"name": "gone"}).id)
    with pytest.raises(DuplicateKey, match="soft-deleted") as caught:
        LabelsService.upsert_many([{"name": "new"}, {"name": "gone"}, {"name": "new2"}])
    assert caught.value.columns == ("name",)
    assert LabelsService.count() == 0


def test_payloads_of_different_names_keep_what_they_do_not_name(tables):
    OptionsService.create({"scope": "a", "name": "1", "number": 1, "note": "one"})
    OptionsService.create({"scope": "a", "name": "2", "number": 2, "note": "two"})
    rows = OptionsService.upsert_many(
        [
            {"scope": "a", "name": "2", "note": None},
            {"name": "1", "scope": "a", "number": 9},
            {"scope": "a", "name": "3", "data": {"x": ["\t'"]}},
            {"scope": "b", "name": "1"},
        ]
    )
    assert [(row.number, row.note, row.data) for row in rows] == [
        (2, None, None),
        (9, "one", None),
        (0, None, {"x": ["\t'"]}),
        (0, None, None),
    ]


def test_secrets_are_sealed_for_the_rows_that_are_written(tables):
    first = LoginsService.create({"name": "a", "token": Secret("1")})
    rows = LoginsService.upsert_many(
        [{"name": "b", "token": Secret("2")}, {"name": "a", "token": Secret("3")}]
    )
    assert rows[1].id == first.id
    assert [row.token.reveal() for row in rows] == ["2", "3"]
    assert [row.token.reveal() for row in LoginsService.list(order_by=[Login.name])] == ["3", "2"]


@pytest.mark.parametrize(
    ("payload", "error", "told"),
    [
        ({"scope": "a", "name": "x", "number": 5}, InvalidValue, "have the same key"),
        ({"name": "x", "scope": "a"}, InvalidValue, "have the same key"),
        ({"scope": "a", "name": "y", "number": "5"}, InvalidValue, "must be an int"),
        ({"scope": "a", "name": "y", "color": "5"}, UnknownField, "no field color"),
        ({"scope": "a"}, MissingField, "name"),
        ({"scope": "a", "name": "y", "deleted_at": utcnow()}, InvalidValue, "deleted_at"),
        ({"scope": "a", "name": "y", "id": NOBODY}, InvalidValue, "one unique key"),
        (None, InvalidValue, "must be a dict"),
    ],
)
def test_a_wrong_payload_is_refused_before_any_sql(tables, payload, error, told):
    with no_statement(), pytest.raises(error, match=told):
        OptionsService.upsert_many([{"scope": "a", "name": "x"}, payload])


def test_payloads_that_go_by_different_keys_are_refused_before_any_sql(rollback_db):
    class Both(BaseModel):
        one = TextField(unique="live", null=True)
        two = TextField(unique="live", null=True)

        class Meta:
            table_name = "upsert_both"

    class BothService(Service[Both]):
        """Both."""

    with no_statement(), pytest.raises(InvalidValue, match="different keys"):
        BothService.upsert_many([{"one": "x"}, {"two": "x"}])


def test_of_nothing_nothing_is_sent(rollback_db):
    with no_statement():
        assert UsersService.upsert_many([]) == []


@pytest.mark.parametrize("payloads", [None, 3, "rows", {}, User.email])
def test_what_is_no_list_is_refused_before_any_sql(rollback_db, payloads):
    with no_statement(), pytest.raises(InvalidValue):
        UsersService.upsert_many(payloads)


def test_the_key_is_named_where_payloads_have_several(rollback_db):
    one = new_user()
    data = [user_data(email=one.email), user_data()]
    with no_statement(), pytest.raises(InvalidValue, match=r"on=\(...\)"):
        UsersService.upsert_many(data)
    rows = UsersService.upsert_many(data, on="email")
    assert [rows[0].id, rows[0].first_name] == [one.id, data[0]["first_name"]]
    assert UsersService.count() == 2


def test_it_is_audited_in_one_line_after_the_commit(clone_db):
    log = Log()
    with transaction() as tx:
        rows = UsersService.upsert_many([user_data(), user_data()], log, on="email", tx=tx)
        assert log.audits == []
    meta = {"module": "db", "action": "service:upsert_many", "count": 2}
    assert log.audits == [("User upserted", {**meta, "user_ids": [row.id for row in rows]})]


def test_batches_of_the_same_keys_in_other_orders_do_not_wait_in_a_circle(clone_db):
    data = [user_data() for _ in range(40)]
    errors = []
    ready = threading.Barrier(4)

    def run(number):
        try:
            ready.wait(10)
            for turn in range(5):
                some = data if (turn + number) % 2 else data[::-1]
                UsersService.upsert_many(some, on="email")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert UsersService.count() == 40


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    before=st.dictionaries(
        st.sampled_from("abcdef"), st.none() | st.text("xyz\\\t'\"", max_size=3)
    ),
    payloads=st.dictionaries(
        st.sampled_from("abcdef"),
        st.fixed_dictionaries(
            {},
            optional={
                "number": st.integers(-5, 5),
                "note": st.none() | st.text("xyz\\\t'\"{}", max_size=4),
                "data": st.none() | st.lists(st.text("x\\\t'\"{}", max_size=3), max_size=2),
            },
        ),
    ),
)
def test_it_does_what_single_upserts_do(tables, before, payloads):
    some = [{"scope": "s", "name": name, **payload} for name, payload in payloads.items()]
    results = []
    for write in (
        lambda: OptionsService.upsert_many(some),
        lambda: [OptionsService.upsert(one) for one in some],
    ):
        with db.atomic() as undo:
            OptionsService.create_many(
                {"scope": "s", "name": name, "note": note} for name, note in before.items()
            )
            answered = [(row.name, row.number, row.note, row.data) for row in write()]
            stored = sorted((row.name, row.number, row.note or "") for row in OptionsService.list())
            results.append((answered, stored))
            undo.rollback()
    assert results[0] == results[1]
