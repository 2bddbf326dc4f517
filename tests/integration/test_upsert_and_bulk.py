"""Services' verbs for many rows, and upsert."""

import threading
import uuid
from collections.abc import Callable

import peewee
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_helpers import (
    Log,
    new_session,
    new_user,
    no_statement,
    session_data,
    statements,
    user_data,
)

from domains.orders import Order, OrdersService
from domains.users import Session, SessionService, SessionStatus, User, UsersService
from orm_core import (
    BaseModel,
    DuplicateKey,
    EncryptedTextField,
    ForeignKeyViolation,
    IntegerField,
    InvalidValue,
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
    uuid7,
)

NOBODY = uuid.UUID(int=7)


@pytest.fixture(autouse=True)
def _keys():
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    yield
    use_key_ring(None)


class Setting(BaseModel):
    """A table with one natural key, of two columns."""

    scope = TextField()
    name = TextField()
    number = IntegerField(default=0)
    note = TextField(null=True)

    class Meta:
        table_name = "bulk_settings"
        indexes = ((("scope", "name"), "live"),)


class SettingsService(Service[Setting]):
    """Settings."""


class Credential(BaseModel):
    """A table with a natural key and a secret."""

    name = TextField(unique="live")
    token = EncryptedTextField()

    class Meta:
        table_name = "bulk_credentials"


class CredentialsService(Service[Credential]):
    """Credentials."""


class Tag(BaseModel):
    """A table whose key covers deleted rows, too."""

    name = TextField(unique=True)
    color = TextField(default="red")

    class Meta:
        table_name = "bulk_tags"


class TagsService(Service[Tag]):
    """Tags."""


@pytest.fixture
def tables(rollback_db):
    """The tables of this file, gone with the transaction."""
    rollback_db.create_tables([Setting, Credential, Tag])
    return rollback_db


# -- create_many --------------------------------------------------------------------------------


def test_create_many_keeps_the_order(rollback_db):
    data = [user_data() for _ in range(500)]
    users = UsersService.create_many(data)
    assert [user.email for user in users] == [one["email"] for one in data]


def test_create_many_answers_the_rows_as_stored(rollback_db):
    users = UsersService.create_many([user_data(), user_data(last_name="X")])
    for user in users:
        assert UsersService.get(user.id).__data__ == user.__data__


def test_create_many_is_one_statement(rollback_db):
    with statements() as events:
        UsersService.create_many([user_data() for _ in range(100)])
    assert [(event.operation, event.table) for event in events] == [("insert", "users")]


def test_create_many_takes_payloads_of_different_keys(tables):
    rows = SettingsService.create_many(
        [
            {"scope": "a", "name": "1"},
            {"scope": "a", "name": "2", "number": 5},
            {"scope": "a", "name": "3", "note": "x"},
        ]
    )
    assert [(row.number, row.note) for row in rows] == [(0, None), (5, None), (0, "x")]


def test_create_many_takes_a_generator(rollback_db):
    assert len(UsersService.create_many(user_data() for _ in range(3))) == 3


def test_create_many_seals_each_secret_for_its_row(rollback_db):
    user = new_user()
    tokens = [f"token-{number}" for number in range(5)]
    SessionService.create_many(
        session_data(user, provider_access_token=Secret(token)) for token in tokens
    )
    sessions = SessionService.list()
    assert [one.provider_access_token.reveal() for one in sessions] == tokens


def test_create_many_of_nothing_sends_nothing(rollback_db):
    with no_statement():
        assert UsersService.create_many([]) == []


def test_create_many_is_all_or_nothing_before_sql(rollback_db):
    with no_statement(), pytest.raises(MissingField):
        UsersService.create_many([user_data(), {}])


def test_create_many_is_all_or_nothing_on_the_server(clone_db):
    same = user_data()
    with pytest.raises(DuplicateKey):
        UsersService.create_many([user_data(), same, user_data(email=same["email"])])
    assert User.select().count() == 0


def test_create_many_with_one_missing_parent_stores_none(clone_db):
    user = new_user()
    with pytest.raises(ForeignKeyViolation):
        OrdersService.create_many([{"user": user, "total": 1}, {"user": NOBODY, "total": 1}])
    assert Order.select().count() == 0


NO_LIST = [None, 3, "rows", b"rows", {}, {"email": "x"}, User.email]


@pytest.mark.parametrize("payloads", NO_LIST)
@pytest.mark.parametrize("verb", [UsersService.create_many, UsersService.update_many])
def test_what_is_no_list_of_payloads_is_refused_before_any_sql(rollback_db, verb, payloads):
    with no_statement(), pytest.raises(InvalidValue):
        verb(payloads)


# -- update_many --------------------------------------------------------------------------------


def orders(count):
    user = new_user()
    return OrdersService.create_many({"user": user, "total": n} for n in range(count))


def test_update_many_gives_each_row_its_own_values(rollback_db):
    rows = orders(50)
    changed = OrdersService.update_many({"id": row.id, "total": row.total * 10} for row in rows)
    assert [row.total for row in changed] == [row.total * 10 for row in rows]
    assert [row.total for row in OrdersService.list()] == [row.total * 10 for row in rows]


def test_update_many_of_the_same_fields_is_one_update(rollback_db):
    rows = orders(20)
    with statements() as events:
        OrdersService.update_many([{"id": row.id, "total": 1} for row in rows])
    assert [event.operation for event in events if event.table == "orders"] == ["update"]


def test_update_many_takes_different_fields_for_each_row(rollback_db):
    one, two, three = orders(3)
    OrdersService.update_many(
        [
            {"id": one.id, "total": 100},
            {"id": two.id, "status": "paid"},
            {"status": "sent", "total": 300, "id": three.id},
        ]
    )
    assert [(row.total, row.status) for row in OrdersService.list()] == [
        (100, "pending"),
        (1, "paid"),
        (300, "sent"),
    ]


def test_update_many_answers_in_the_order_of_the_payloads(rollback_db):
    one, two, three = orders(3)
    changed = OrdersService.update_many(
        [
            {"id": three.id, "total": 1},
            {"id": str(one.id).upper(), "status": "paid"},
            {"id": two.id.hex, "total": 1},
        ]
    )
    assert changed == [three, one, two]


def test_update_many_leaves_out_ids_without_a_live_row(rollback_db):
    one, two = orders(2)
    OrdersService.soft_delete(two.id)
    changed = OrdersService.update_many(
        [
            {"id": NOBODY, "total": 9},
            {"id": two.id, "total": 9},
            {"id": one.id, "total": 9},
        ]
    )
    assert changed == [one]
    assert OrdersService.get(two.id, include_deleted=True).total == 1


def test_update_many_changes_deleted_rows_when_asked_to(rollback_db):
    (one,) = orders(1)
    OrdersService.soft_delete(one.id)
    assert OrdersService.update_many([{"id": one.id, "total": 9}], include_deleted=True) == [one]


def test_update_many_leaves_other_rows_alone(rollback_db):
    one, two = orders(2)
    OrdersService.update_many([{"id": one.id, "total": 9}])
    assert OrdersService.get(two.id).__data__ == two.__data__


def test_update_many_moves_updated_at(rollback_db):
    (one,) = orders(1)
    (changed,) = OrdersService.update_many([{"id": one.id, "total": 9}])
    assert changed.updated_at > one.updated_at


def test_update_many_seals_each_secret_for_its_row(rollback_db):
    user = new_user()
    rows = [new_session(user) for _ in range(3)]
    SessionService.update_many(
        {"id": str(row.id).upper(), "provider_access_token": Secret(f"new-{number}")}
        for number, row in enumerate(rows)
    )
    tokens = [row.provider_access_token.reveal() for row in SessionService.list()]
    assert tokens == ["new-0", "new-1", "new-2"]


def test_update_many_writes_every_kind_of_column(rollback_db):
    other = new_user()
    row = new_session()
    moment = utcnow()
    values = {
        "user": other,
        "status": SessionStatus.EXPIRED,
        "provider": "google",
        "provider_access_token_expires_at": moment,
        "provider_account_id": "ä'%s\"\\",
        "provider_scope": None,
        "expires_at": moment,
        "metadata": {"a": [1, None, {"b": "ü'"}]},
    }
    (changed,) = SessionService.update_many([{"id": row.id, **values}])
    assert changed.user_id == other.id
    assert changed.status is SessionStatus.EXPIRED
    assert changed.expires_at == changed.provider_access_token_expires_at == moment
    assert changed.provider_account_id == values["provider_account_id"]
    assert changed.metadata == values["metadata"]
    assert SessionService.get(row.id).__data__ == changed.__data__


@pytest.mark.parametrize("metadata", [[], [1, 2], [[1], [2]], {}, "text", 3, 1.5, True, None])
def test_update_many_writes_any_json(rollback_db, metadata):
    row = new_session()
    (changed,) = SessionService.update_many([{"id": row.id, "metadata": metadata}])
    assert changed.metadata == metadata


def test_update_many_sets_null_in_some_rows_and_values_in_others(rollback_db):
    one, two = new_user(last_name="X"), new_user()
    UsersService.update_many([{"id": one.id, "last_name": None}, {"id": two.id, "last_name": "Y"}])
    assert [user.last_name for user in UsersService.list()] == [None, "Y"]


@pytest.mark.parametrize(
    ("payload", "error", "told"),
    [
        ({"first_name": "x"}, InvalidValue, "names its id"),
        ({"id": None, "first_name": "x"}, InvalidValue, "names its id"),
        ({"id": "junk", "first_name": "x"}, InvalidValue, r"User\.id must be a UUID"),
        ({"id": User.id, "first_name": "x"}, InvalidValue, r"User\.id must be a UUID"),
        ({"id": NOBODY}, InvalidValue, "changes of User are empty"),
        ({"id": NOBODY, "nickname": "x"}, UnknownField, "no field nickname"),
        ({"id": NOBODY, "email": 3}, InvalidValue, r"User\.email must be a str"),
        ({"id": NOBODY, "email": User()}, InvalidValue, r"User\.email must be a str"),
        ({"id": NOBODY, "email": peewee.SQL("1")}, InvalidValue, "not an SQL expression"),
        ({"id": NOBODY, "deleted_at": utcnow()}, InvalidValue, r"soft_delete\(\)"),
        (["id"], InvalidValue, "names its id"),
        (None, InvalidValue, "names its id"),
    ],
)
def test_update_many_refuses_a_payload_before_any_sql(rollback_db, payload, error, told):
    good = {"id": uuid7(), "first_name": "x"}
    with no_statement(), pytest.raises(error, match=told):
        UsersService.update_many([good, payload])


def test_update_many_refuses_an_id_twice_in_any_spelling(rollback_db):
    key = uuid7()
    twice = [{"id": key, "first_name": "x"}, {"id": str(key).upper(), "last_name": "y"}]
    with no_statement(), pytest.raises(InvalidValue, match="the same id"):
        UsersService.update_many(twice)


def test_update_many_is_all_or_nothing(clone_db):
    one, two, three = (new_user() for _ in range(3))
    with pytest.raises(DuplicateKey):
        UsersService.update_many(
            [
                {"id": one.id, "first_name": "changed"},
                {"id": two.id, "email": three.email},
            ]
        )
    assert UsersService.get(one.id).first_name == one.first_name


def test_update_many_can_swap_a_key_for_a_free_one(rollback_db):
    one, two = new_user(), new_user()
    free = user_data()["email"]
    UsersService.update_many([{"id": one.id, "email": free}, {"id": two.id, "first_name": "x"}])
    assert UsersService.find_by_email(free) == one


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "number": st.integers(-(2**31), 2**31 - 1),
                "note": st.none()
                | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            },
        ).filter(bool),
        max_size=8,
    )
)
def test_update_many_does_what_single_updates_do(tables, changes):
    with db.atomic() as undo:
        rows = SettingsService.create_many(
            {"scope": "a", "name": str(number)} for number in range(len(changes))
        )
        payloads = [{"id": row.id, **change} for row, change in zip(rows, changes, strict=True)]
        many = [(row.number, row.note) for row in SettingsService.update_many(payloads)]
        single = []
        for row, change in zip(rows, changes, strict=True):
            SettingsService.update(row.id, {"number": 0, "note": None})
            changed = SettingsService.update(row.id, change)
            single.append((changed.number, changed.note))
        undo.rollback()
    assert many == single


# -- update_where -------------------------------------------------------------------------------


def test_update_where_changes_what_matches_and_counts_it(rollback_db):
    orders(5)
    assert OrdersService.update_where(Order.total >= 3, {"status": "paid"}) == 2
    assert OrdersService.count({"status": "paid"}) == 2


def test_update_where_moves_updated_at(rollback_db):
    (one,) = orders(1)
    OrdersService.update_where({"id": one.id}, {"total": 9})
    assert OrdersService.get(one.id).updated_at > one.updated_at


def test_update_where_without_a_condition_changes_all_live_rows(rollback_db):
    one, _ = orders(2)
    OrdersService.soft_delete(one.id)
    assert OrdersService.update_where(None, {"total": 9}) == 1
    assert OrdersService.update_where(None, {"total": 8}, include_deleted=True) == 2


@pytest.mark.parametrize("where", [[], {}, [None], ()])
def test_update_where_without_a_condition_in_its_conditions_is_refused(rollback_db, where):
    with no_statement(), pytest.raises(InvalidValue, match="all rows are meant by None"):
        UsersService.update_where(where, {"first_name": "X"})


def test_update_where_cannot_write_a_secret(rollback_db):
    new_session()
    with no_statement(), pytest.raises(InvalidValue, match=r"Session\.provider_access_token"):
        SessionService.update_where(None, {"provider_access_token": Secret("x")})


# -- upsert -------------------------------------------------------------------------------------


def test_upsert_inserts_a_row_that_is_new(tables):
    row = SettingsService.upsert({"scope": "a", "name": "x", "number": 1})
    assert SettingsService.list() == [row]
    assert row.number == 1


def test_upsert_updates_the_row_with_the_same_key(tables):
    first = SettingsService.upsert({"scope": "a", "name": "x", "number": 1, "note": "kept"})
    second = SettingsService.upsert({"scope": "a", "name": "x", "number": 2})
    assert (second.id, second.number, second.note) == (first.id, 2, "kept")
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    assert SettingsService.get(first.id).__data__ == second.__data__


def test_upsert_keeps_what_the_payload_does_not_name(tables):
    first = SettingsService.create({"scope": "a", "name": "x", "number": 7})
    assert SettingsService.upsert({"scope": "a", "name": "x"}).number == 7
    assert SettingsService.list() == [first]


def test_upsert_takes_a_row_of_another_key_for_new(tables):
    SettingsService.upsert({"scope": "a", "name": "x"})
    SettingsService.upsert({"scope": "b", "name": "x"})
    assert SettingsService.count() == 2


def test_upsert_by_id_updates_that_row(rollback_db):
    (order,) = orders(1)
    row = OrdersService.upsert({"id": str(order.id), "user": order.user_id, "total": 9})
    assert (row.id, row.total) == (order.id, 9)
    assert OrdersService.count() == 1


def test_upsert_by_an_id_that_is_new_inserts(rollback_db):
    assert OrdersService.upsert({"id": NOBODY, "user": new_user(), "total": 9}).id == NOBODY


@pytest.mark.parametrize("on", [["email"], ("email",), "email"])
def test_upsert_goes_by_the_key_that_on_names(rollback_db, on):
    user = new_user()
    row = UsersService.upsert(user_data(email=user.email), on=on)
    assert row.id == user.id
    assert row.provider_account_id != user.provider_account_id


def test_on_may_name_the_fields_in_any_order(tables):
    SettingsService.upsert({"scope": "a", "name": "x"}, on=["name", "scope"])
    SettingsService.upsert({"scope": "a", "name": "x"}, on=["scope", "name"])
    assert SettingsService.count() == 1


def test_upsert_by_a_natural_key_never_changes_the_id(tables):
    first = SettingsService.create({"scope": "a", "name": "x"})
    row = SettingsService.upsert(
        {"id": NOBODY, "scope": "a", "name": "x", "number": 3}, on=["scope", "name"]
    )
    assert (row.id, row.number) == (first.id, 3)


def test_upsert_by_several_keys_asks_which(rollback_db):
    with no_statement(), pytest.raises(InvalidValue, match=r"needs one unique key.*on="):
        UsersService.upsert(user_data())


@pytest.mark.parametrize(
    "on", [["first_name"], ["email", "id"], [], "", ["nope"], ["id"], [3], ["email; DROP TABLE"]]
)
def test_on_must_name_a_key_that_the_payload_fills(rollback_db, on):
    with no_statement(), pytest.raises(InvalidValue, match="needs one unique key"):
        UsersService.upsert(user_data(), on=on)


def test_upsert_without_any_key_in_the_payload_is_refused(rollback_db):
    with no_statement(), pytest.raises(InvalidValue, match="one of: id"):
        OrdersService.upsert({"user": NOBODY, "total": 1})


def test_upsert_by_a_live_key_passes_over_a_deleted_row(tables):
    old = SettingsService.upsert({"scope": "a", "name": "x"})
    SettingsService.soft_delete(old.id)
    new = SettingsService.upsert({"scope": "a", "name": "x"})
    assert new.id != old.id
    assert SettingsService.get(old.id, include_deleted=True).is_deleted


def test_upsert_of_a_key_that_a_deleted_row_holds_is_a_duplicate(tables):
    tag = TagsService.create({"name": "x"})
    TagsService.soft_delete(tag.id)
    with pytest.raises(
        DuplicateKey, match=r"soft-deleted row of bulk_tags.*restore\(\)"
    ) as refusal:
        TagsService.upsert({"name": "x", "color": "blue"})
    assert (refusal.value.table, refusal.value.columns) == ("bulk_tags", ("name",))
    assert TagsService.get(tag.id, include_deleted=True).color == "red"


def test_upsert_of_an_id_that_a_deleted_row_holds_is_a_duplicate(rollback_db):
    (order,) = orders(1)
    OrdersService.soft_delete(order.id)
    with pytest.raises(DuplicateKey):
        OrdersService.upsert({"id": order.id, "user": order.user_id, "total": 9})


def test_upsert_that_meets_another_rows_key_is_a_duplicate(rollback_db):
    one, two = new_user(), new_user()
    data = user_data(email=one.email, provider_account_id=two.provider_account_id)
    with pytest.raises(DuplicateKey, match="provider_account_id"), db.atomic():
        UsersService.upsert(data, on="email")


def test_upsert_does_not_delete(tables):
    row = TagsService.create({"name": "x"})
    with no_statement(), pytest.raises(InvalidValue, match="deleted_at"):
        TagsService.upsert({"name": "x", "deleted_at": utcnow()})
    assert TagsService.list() == [row]


def test_upsert_with_a_secret_does_not_delete(tables):
    CredentialsService.create({"name": "x", "token": Secret("t")})
    with no_statement(), pytest.raises(InvalidValue, match="deleted_at"):
        CredentialsService.upsert({"name": "x", "token": Secret("t"), "deleted_at": utcnow()})


def test_upsert_of_a_new_row_with_a_secret_seals_it(tables):
    CredentialsService.upsert({"name": "x", "token": Secret("first")})
    assert [row.token.reveal() for row in CredentialsService.list()] == ["first"]


def test_upsert_of_a_row_with_a_secret_seals_it_for_that_row(tables):
    first = CredentialsService.upsert({"name": "x", "token": Secret("first")})
    second = CredentialsService.upsert({"name": "x", "token": Secret("second")})
    assert second.id == first.id
    assert [row.token.reveal() for row in CredentialsService.list()] == ["second"]


def test_upsert_of_a_row_with_a_secret_never_changes_the_id(tables):
    first = CredentialsService.create({"name": "x", "token": Secret("first")})
    CredentialsService.upsert({"id": NOBODY, "name": "x", "token": Secret("second")}, on="name")
    (row,) = CredentialsService.list()
    assert row.id == first.id
    assert row.token.reveal() == "second"


def test_upsert_of_a_session_by_id_seals_its_tokens(rollback_db):
    session = new_session()
    data = session_data(session.user_id, id=session.id, provider_access_token=Secret("new"))
    row = SessionService.upsert(data)
    assert (row.id, row.provider_access_token.reveal()) == (session.id, "new")
    assert row.created_at == session.created_at
    assert SessionService.count() == 1


def test_upsert_of_a_session_by_a_new_id_inserts(rollback_db):
    row = SessionService.upsert(session_data(new_user(), id=NOBODY))
    assert SessionService.get(NOBODY).provider_access_token == row.provider_access_token


def test_upsert_of_a_deleted_session_is_a_duplicate(rollback_db):
    session = new_session()
    SessionService.soft_delete(session.id)
    with pytest.raises(DuplicateKey):
        SessionService.upsert(session_data(session.user_id, id=session.id))
    assert Session.select().count() == 0


def at_once(count: int, call: Callable[[int], object]) -> list[BaseException]:
    """Call from ``count`` threads at the same moment; the exceptions of them all."""
    ready = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        ready.wait(10)
        try:
            call(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return errors


def test_upserts_of_one_new_key_at_the_same_time_make_one_row(clone_db):
    data = user_data()

    def call(number):
        UsersService.upsert({**data, "first_name": f"name-{number}"}, on="email")

    for _ in range(5):
        assert at_once(8, call) == []
        (user,) = UsersService.list()
        assert user.first_name.startswith("name-")
        UsersService.hard_delete(user.id)


def test_upserts_of_one_new_key_of_two_columns_at_the_same_time_make_one_row(clone_db):
    clone_db.create_tables([Setting])

    def call(number):
        SettingsService.upsert({"scope": "a", "name": "x", "number": number})

    assert at_once(8, call) == []
    assert SettingsService.count() == 1


def test_upserts_of_one_new_secret_at_the_same_time_make_one_row(clone_db):
    clone_db.create_tables([Credential])

    def call(number):
        row = CredentialsService.upsert({"name": "x", "token": Secret(f"token-{number}")})
        assert row.token.reveal() == f"token-{number}"

    for _ in range(5):
        assert at_once(8, call) == []
        (row,) = CredentialsService.list()
        assert row.token.reveal().startswith("token-")
        CredentialsService.hard_delete(row.id)


def test_upserts_of_sessions_by_id_at_the_same_time_make_one_row(clone_db):
    user = new_user()

    def call(number):
        SessionService.upsert(session_data(user.id, id=NOBODY))

    assert at_once(8, call) == []
    assert SessionService.count() == 1


def test_an_upsert_that_fails_leaves_the_transaction_usable(clone_db):
    tag = new_user()
    UsersService.soft_delete(tag.id)
    with transaction():
        with pytest.raises(DuplicateKey):
            UsersService.upsert(user_data(id=tag.id), on="id")
        kept = new_user()
    assert UsersService.list() == [kept]


def test_an_upsert_is_audited_after_commit_with_the_id(clone_db):
    log, user = Log(), new_user()
    UsersService.upsert(user_data(email=user.email), log, on="email")
    meta = {"module": "db", "action": "service:upsert", "user_id": user.id}
    assert log.audits == [("User upserted", meta)]
