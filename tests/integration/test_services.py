"""The verbs of a service for one row: what they answer, refuse and log."""

import inspect
import threading
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import peewee
import pytest
from hypothesis import HealthCheck, given, settings
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
    Database,
    DuplicateKey,
    ForeignKeyViolation,
    InvalidValue,
    KeyRing,
    MissingField,
    NotFound,
    RegistryError,
    Secret,
    ServerRejectedValue,
    Service,
    StaleTransaction,
    UnknownField,
    db,
    finder,
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


# -- create -------------------------------------------------------------------------------------


def test_create_tells_when_a_trigger_passes_the_row_over(rollback_db):
    db.execute_sql(
        "CREATE FUNCTION pass_over() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER pass_over BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION pass_over()"
    )
    log = Log()
    with pytest.raises(ServerRejectedValue, match="No row was stored in users: a trigger"):
        UsersService.create(user_data(), log)
    assert (len(log.audits), len(log.errors)) == (0, 1)


def test_create_answers_the_row_as_the_server_stored_it(rollback_db):
    data = user_data(last_name="Lovelace")
    user = UsersService.create(data)
    stored = User.select().dicts().get()
    assert {name: stored[name] for name in data} == data
    assert user.__data__ == stored
    assert user.id.version == 7


def test_create_fills_the_defaults(rollback_db):
    session = SessionService.create(session_data(new_user()))
    assert session.status is SessionStatus.ACTIVE
    assert session.metadata == {}
    assert session.created_at == session.updated_at
    assert session.deleted_at is None


def test_create_takes_an_id_of_the_callers(rollback_db):
    assert new_user(id=NOBODY).id == NOBODY


def test_create_does_not_change_the_payload(rollback_db):
    data = user_data()
    before = dict(data)
    UsersService.create(data)
    assert data == before


@pytest.mark.parametrize(
    "named",
    [
        lambda user: {"user": user},
        lambda user: {"user": user.id},
        lambda user: {"user": str(user.id)},
        lambda user: {"user_id": user.id},
        lambda user: {"user_id": str(user.id).upper()},
        lambda user: {"user_id": user.id.hex},
        lambda user: {"user_id": user},
    ],
)
def test_a_foreign_key_is_given_as_a_row_an_id_or_its_text(rollback_db, named):
    user = new_user()
    assert OrdersService.create({**named(user), "total": 1}).user_id == user.id


def test_a_secret_is_stored_encrypted_and_opens(rollback_db):
    session = new_session(provider_access_token=Secret("a-token"))
    stored = db.execute_sql("SELECT provider_access_token FROM sessions").fetchone()[0]
    assert "a-token" not in stored
    assert session.provider_access_token.reveal() == "a-token"
    assert SessionService.get(session.id).provider_access_token.reveal() == "a-token"


def test_a_key_that_is_taken_is_a_duplicate_that_names_the_column_and_no_value(rollback_db):
    user = new_user()
    with pytest.raises(DuplicateKey, match=r"users\.email") as refusal, db.atomic():
        new_user(email=user.email)
    assert (refusal.value.table, refusal.value.columns) == ("users", ("email",))
    assert refusal.value.constraint == "users_email_key"
    assert user.email not in str(refusal.value)


def test_a_deleted_users_email_is_free_again(rollback_db):
    user = new_user()
    UsersService.soft_delete(user.id)
    assert new_user(email=user.email).id != user.id


def test_a_parent_that_is_missing_is_a_foreign_key_violation(rollback_db):
    with pytest.raises(ForeignKeyViolation, match=r"orders\.user_id"), db.atomic():
        OrdersService.create({"user_id": NOBODY, "total": 1})


# -- payloads that are refused before any SQL ---------------------------------------------------

HOSTILE = {
    "none": (None, "must be a dict"),
    "a list": ([("email", "x")], "must be a dict"),
    "a str": ("email", "must be a dict"),
    "a model": (User(), "must be a dict"),
    "an unknown key": ({"e_mail": "x"}, "User has no field e_mail. Did you mean 'email'"),
    "a key that is no str": ({1: "x"}, "given by name"),
    "a key that is a field": ({User.email: "x"}, "given by name"),
    "a key of SQL": ({'email" = 1; --': "x"}, "no field of that name"),
    "a key with NUL": ({"email\0": "x"}, "no field of that name"),
    "a key of 10 MB": ({"e" * 10_000_000: "x"}, "no field of that name"),
    "a column's name that is no field's": ({"__data__": "x"}, "no field"),
    "an int": ({"email": 3}, "User.email must be a str"),
    "bytes": ({"email": b"x"}, "User.email must be a str"),
    "a list for a text": ({"email": ["x"]}, "User.email must be a str"),
    "a dict for a text": ({"email": {"x": 1}}, "User.email must be a str"),
    "a NUL": ({"email": "a\0b"}, "User.email must be a str without NUL"),
    "a lone surrogate": ({"email": "\ud800"}, "User.email must be a str without lone"),
    "None for what is never NULL": ({"email": None}, "User.email may not be None"),
    "an SQL expression": ({"email": peewee.SQL("now()")}, "User.email .* not an SQL expression"),
    "a function": ({"email": peewee.fn.version()}, "User.email .* not an SQL expression"),
    "a column": ({"email": User.first_name}, "User.email .* not an SQL expression"),
    "a query": ({"email": User.select(User.email)}, "User.email .* not an SQL expression"),
    "a class": ({"email": User}, "User.email must be"),
    "a row": ({"email": User()}, "User.email must be"),
    "a naive date": ({"created_at": datetime(2026, 1, 1)}, "User.created_at must be an aware"),
    "text for a date": ({"created_at": "2026-01-01"}, "User.created_at must be an aware"),
}
hostile = pytest.mark.parametrize(("payload", "told"), HOSTILE.values(), ids=HOSTILE)


def completed(payload):
    """The same payload with all other fields that a user needs."""
    return {**user_data(), **payload} if isinstance(payload, dict) else payload


@hostile
def test_create_refuses_it_before_any_sql(rollback_db, payload, told):
    with no_statement(), pytest.raises(InvalidValue, match=told):
        UsersService.create(completed(payload))


@hostile
def test_create_many_refuses_it_before_any_sql(rollback_db, payload, told):
    with no_statement(), pytest.raises(InvalidValue, match=told):
        UsersService.create_many([user_data(), completed(payload)])


@hostile
def test_upsert_refuses_it_before_any_sql(rollback_db, payload, told):
    with no_statement(), pytest.raises(InvalidValue, match=told):
        UsersService.upsert(completed(payload), on=["email"])


@hostile
def test_update_refuses_it_before_any_sql(rollback_db, payload, told):
    with no_statement(), pytest.raises(InvalidValue, match=told):
        UsersService.update(NOBODY, payload)


@hostile
def test_update_where_refuses_it_before_any_sql(rollback_db, payload, told):
    with no_statement(), pytest.raises(InvalidValue, match=told):
        UsersService.update_where({"first_name": "x"}, payload)


SESSION_HOSTILE = {
    "a token as plain text": ({"provider_access_token": "t"}, "provider_access_token must be a Se"),
    "a token too long": ({"provider_access_token": Secret("é" * 513)}, "at most 1024 bytes"),
    "a token with a surrogate": ({"provider_access_token": Secret("\ud800")}, "surrogates"),
    "an iv": ({"provider_access_token_iv": "00"}, "no field provider_access_token_iv"),
    "a tag": ({"provider_access_token_tag": "00"}, "no field provider_access_token_tag"),
    "a label that is none": ({"provider": "github"}, "Session.provider must be .* google"),
    "an enum in another case": ({"provider": "GOOGLE"}, "Session.provider must be"),
    "a member of another enum": ({"provider": SessionStatus.ACTIVE}, "Session.provider must be"),
    "a parent of another kind": ({"user": Order()}, "Session.user must be a User"),
    "a parent by bytes": ({"user": uuid7().bytes}, "Session.user must be a User"),
    "a parent by junk": ({"user": "1; DROP TABLE users"}, "Session.user must be a User"),
    "a parent twice": ({"user": NOBODY, "user_id": NOBODY}, "Session.user is given twice"),
    "more than the column holds": ({"provider_account_id": "a" * 256}, "at most 255 characters"),
    "10 MB in a short column": ({"provider_account_id": "a" * 10_000_000}, "at most 255"),
    "JSON with NaN": ({"metadata": {"a": float("nan")}}, "Session.metadata must be JSON"),
    "JSON with NUL": ({"metadata": {"a": "\0"}}, "Session.metadata must be JSON"),
    "JSON with a set": ({"metadata": {1, 2}}, "Session.metadata must be JSON"),
    "JSON with int keys": ({"metadata": {"a": [{1: 2}]}}, "Session.metadata must be JSON"),
    "JSON with SQL inside": ({"metadata": [peewee.SQL("1")]}, "Session.metadata must be JSON"),
}


@pytest.mark.parametrize(("payload", "told"), SESSION_HOSTILE.values(), ids=SESSION_HOSTILE)
def test_a_sessions_payload_is_refused_before_any_sql(rollback_db, payload, told):
    with no_statement(), pytest.raises(InvalidValue, match=told):
        SessionService.create({**session_data(NOBODY), **payload})


def test_json_too_deep_to_write_is_refused_before_any_sql(rollback_db):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with no_statement(), pytest.raises(InvalidValue, match=r"Session\.metadata must be JSON"):
        SessionService.create(session_data(NOBODY, metadata=nested))
    while nested:  # freed level by level, not by recursion
        nested = nested.pop()


@pytest.mark.parametrize(
    "total", [True, 1.0, "1", 2**31, -(2**31) - 1, None, {}, Order.total, Order()]
)
def test_an_orders_total_is_refused_before_any_sql(rollback_db, total):
    with no_statement(), pytest.raises(InvalidValue, match=r"Order\.total (must|may)"):
        OrdersService.create({"user_id": NOBODY, "total": total})


def test_all_missing_fields_are_named_before_any_sql(rollback_db):
    missing = "User needs email, first_name, provider_account_id;"
    with no_statement(), pytest.raises(MissingField, match=missing):
        UsersService.create({"last_name": "x"})


def test_a_missing_foreign_key_is_named_once(rollback_db):
    with no_statement(), pytest.raises(MissingField, match="Order needs user, total;"):
        OrdersService.create({})


def test_an_unknown_field_has_an_error_of_its_own(rollback_db):
    with no_statement(), pytest.raises(UnknownField):
        UsersService.create(user_data(nickname="x"))


def test_no_refusal_shows_the_value(rollback_db):
    with pytest.raises(InvalidValue) as refusal:
        OrdersService.create({"user_id": "tell-nobody", "total": 1})
    assert "tell-nobody" not in str(refusal.value)


def test_ten_megabytes_of_text_are_stored_whole(rollback_db):
    big = "ä" * 5_000_000
    user = new_user(avatar=big)
    assert UsersService.get(user.id).avatar == big


@pytest.mark.parametrize(
    "text",
    ["", "'; DROP TABLE users; --", "%s %(x)s %%", "\\", "\U0001f600", "a\u0301", "\x01\x7f\n\r"],
)
def test_any_other_text_is_stored_as_it_is(rollback_db, text):
    assert UsersService.get(new_user(first_name=text).id).first_name == text


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.uuids()
    | st.sampled_from([User, User.email, peewee.SQL("1"), peewee.fn.now(), Secret("x"), ...]),
    lambda some: st.lists(some) | st.dictionaries(st.text() | st.integers(), some),
    max_leaves=5,
)
names = st.sampled_from(["email", "id", "avatar", "deleted_at", "nope"]) | junk.filter(
    lambda one: isinstance(one, str | int | bytes | None)
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(payload=st.dictionaries(names, junk, max_size=3) | junk)
def test_a_random_payload_is_stored_or_refused_without_sql(rollback_db, payload):
    whole = {**user_data(), **payload} if isinstance(payload, dict) else payload
    with statements() as events:
        try:
            UsersService.create(whole)
        except InvalidValue:
            assert events == []
            return
    assert [event.operation for event in events] == ["insert"]
    assert User.hard_delete().execute() == 1


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=junk)
def test_a_random_condition_is_asked_or_refused_without_sql(rollback_db, value):
    for where in ({"email": value}, {"user_id": value}, {"id": value}):
        with statements() as events:
            try:
                UsersService.exists(where)
            except InvalidValue:
                assert events == []


# -- get, find, list, count, exists -------------------------------------------------------------


def test_get_answers_the_row(rollback_db):
    user = new_user()
    assert UsersService.get(user.id) == user


def test_get_of_nothing_raises_not_found_that_is_peewees_too(rollback_db):
    with pytest.raises(NotFound, match="No live row of users") as refusal:
        UsersService.get(NOBODY)
    assert isinstance(refusal.value, peewee.DoesNotExist)


def test_find_by_id_of_nothing_is_none(rollback_db):
    assert UsersService.find_by_id(NOBODY) is None


@pytest.mark.parametrize(
    "read",
    [
        lambda user, **how: UsersService.find_by_id(user.id, **how),
        lambda user, **how: UsersService.find({"id": user.id}, **how),
        lambda user, **how: UsersService.find(User.email == user.email, **how),
        lambda user, **how: UsersService.find_by_email(user.email, **how),
        lambda user, **how: next(iter(UsersService.list(**how)), None),
        lambda user, **how: next(iter(UsersService.page(**how)), None),
        lambda user, **how: next(iter(UsersService.page(number=1, **how)), None),
        lambda user, **how: user if UsersService.count(**how) else None,
        lambda user, **how: user if UsersService.exists({"id": user.id}, **how) else None,
    ],
    ids=["by id", "mapping", "predicate", "finder", "list", "page", "number", "count", "exists"],
)
def test_a_deleted_row_is_read_only_when_asked_for(rollback_db, read):
    user = new_user()
    assert read(user) == user
    UsersService.soft_delete(user.id)
    assert read(user) is None
    assert read(user, include_deleted=True) == user


def test_get_reads_a_deleted_row_only_when_asked_for(rollback_db):
    user = new_user()
    UsersService.soft_delete(user.id)
    assert UsersService.get(user.id, include_deleted=True).is_deleted
    with pytest.raises(NotFound):
        UsersService.get(user.id)


BAD_IDS = [
    None,
    "",
    "x",
    1,
    1.5,
    True,
    b"0" * 16,
    [],
    {},
    User,
    User.id,
    peewee.SQL("id"),
    "a" * 36,
]


@pytest.mark.parametrize("id", BAD_IDS)
@pytest.mark.parametrize(
    "verb",
    [
        UsersService.get,
        UsersService.find_by_id,
        UsersService.soft_delete,
        UsersService.restore,
        UsersService.hard_delete,
        lambda key: UsersService.update(key, {"first_name": "x"}),
    ],
    ids=["get", "find_by_id", "soft_delete", "restore", "hard_delete", "update"],
)
def test_what_is_no_id_is_refused_before_any_sql(rollback_db, verb, id):
    with no_statement(), pytest.raises(InvalidValue, match=r"User\.id"):
        verb(id)


@pytest.mark.parametrize("shape", [str, lambda key: key.hex, lambda key: str(key).upper()])
def test_an_id_may_be_text(rollback_db, shape):
    user = new_user()
    assert UsersService.get(shape(user.id)) == user


def people(*names):
    return [new_user(first_name=name) for name in names]


@pytest.mark.parametrize(
    "where",
    [
        User.first_name == "Ada",
        {"first_name": "Ada"},
        [User.first_name == "Ada"],
        (User.first_name == "Ada", {"last_name": None}),
        [{"first_name": "Ada"}, User.email.is_null(False)],
        [[{"first_name": "Ada"}]],
        ~(User.first_name == "Bob"),
        User.first_name.in_(["Ada", "Cid"]),
        User.first_name << ["Ada"],
        User.first_name.startswith("A"),
        (User.first_name == "Ada") | (User.first_name == "Cid"),
    ],
)
def test_a_condition_is_a_predicate_a_mapping_or_a_list_of_them(rollback_db, where):
    ada, _ = people("Ada", "Bob")
    assert UsersService.list(where) == [ada]
    assert UsersService.find(where) == ada
    assert UsersService.count(where) == 1
    assert UsersService.exists(where) is True


def test_a_generator_of_conditions_is_read(rollback_db):
    ada, _ = people("Ada", "Bob")
    assert UsersService.list(one for one in [User.first_name == "Ada"]) == [ada]


def test_no_condition_means_all_live_rows(rollback_db):
    rows = people("Ada", "Bob")
    assert UsersService.list() == rows
    assert UsersService.count() == 2


def test_none_in_a_mapping_means_null(rollback_db):
    nameless = new_user()
    new_user(last_name="Lovelace")
    assert UsersService.list({"last_name": None}) == [nameless]


def test_several_conditions_must_all_hold(rollback_db):
    new_user(first_name="Ada", last_name="X")
    assert UsersService.count({"first_name": "Ada", "last_name": "Y"}) == 0
    assert UsersService.count([User.first_name == "Ada", User.last_name == "Y"]) == 0


def test_an_or_does_not_let_deleted_rows_in(rollback_db):
    ada, bob = people("Ada", "Bob")
    UsersService.soft_delete(ada.id)
    either = (User.first_name == "Ada") | (User.first_name == "Bob")
    assert UsersService.list(either) == [bob]


def test_a_condition_may_name_a_parent_by_row_id_or_text(rollback_db):
    user = new_user()
    order = OrdersService.create({"user": user, "total": 1})
    for where in ({"user": user}, {"user_id": user.id}, {"user": str(user.id)}, Order.user == user):
        assert OrdersService.list(where) == [order]


def test_a_condition_may_name_an_enum_by_member_or_label(rollback_db):
    session = new_session()
    for status in (SessionStatus.ACTIVE, "active"):
        assert SessionService.list({"status": status}) == [session]
        assert SessionService.list(Session.status == status) == [session]


def test_a_condition_on_json_compares_the_value(rollback_db):
    session = new_session(metadata={"device": "phone"})
    assert SessionService.list({"metadata": {"device": "phone"}}) == [session]
    assert SessionService.list({"metadata": {"device": "tv"}}) == []


BAD_CONDITIONS = {
    "text": "first_name = 'Ada'",
    "bytes": b"1 = 1",
    "text in a list": ["1 = 1"],
    "a bool": True,
    "a number": 1,
    "a lone value": peewee.Value("1 = 1"),
    "a model": User,
    "an unknown name": {"nickname": "x"},
    "a name that is no str": {3: "x"},
    "an expression as a value": {"email": peewee.SQL("1")},
    "a column as a value": {"email": User.first_name},
    "a list as a value": {"email": ["x"]},
    "a wrong id": {"id": "junk"},
    "a row as a value": {"email": User()},
    "a row of another model as the id": {"id": Order()},
    "a part of a secret": {"email_iv": "x"},
}


@pytest.mark.parametrize("where", BAD_CONDITIONS.values(), ids=BAD_CONDITIONS)
@pytest.mark.parametrize(
    "verb",
    [
        UsersService.find,
        UsersService.list,
        UsersService.page,
        UsersService.count,
        UsersService.exists,
        lambda where: UsersService.update_where(where, {"first_name": "x"}),
    ],
    ids=["find", "list", "page", "count", "exists", "update_where"],
)
def test_what_is_no_condition_is_refused_before_any_sql(rollback_db, verb, where):
    with no_statement(), pytest.raises(InvalidValue):
        verb(where)


@pytest.mark.parametrize("part", ["iv", "tag"])
def test_parts_of_a_secret_are_no_conditions(rollback_db, part):
    with no_statement(), pytest.raises(UnknownField):
        SessionService.list({f"provider_access_token_{part}": "00"})


def test_a_secret_cannot_be_searched_for(rollback_db):
    with no_statement(), pytest.raises(InvalidValue, match="can't be compared"):
        SessionService.list({"provider_access_token": Secret("x")})


def test_list_is_in_the_order_of_creation_unless_told_otherwise(rollback_db):
    rows = people("Cid", "Ada", "Bob")
    assert UsersService.list() == rows
    assert UsersService.list(order_by=User.first_name) == [rows[1], rows[2], rows[0]]
    assert UsersService.list(order_by=[User.first_name.desc()]) == [rows[0], rows[2], rows[1]]
    assert UsersService.find(order_by=User.first_name) == rows[1]


def test_list_takes_limit_and_offset(rollback_db):
    rows = people("Ada", "Bob", "Cid")
    assert UsersService.list(limit=1, offset=1) == [rows[1]]
    assert UsersService.list(limit=0) == []
    assert UsersService.list(offset=2) == [rows[2]]


@pytest.mark.parametrize("count", [-1, True, 1.5, "1", "1; DROP TABLE users", User.id])
@pytest.mark.parametrize("name", ["limit", "offset"])
def test_a_limit_that_is_no_count_is_refused_before_any_sql(rollback_db, name, count):
    with no_statement(), pytest.raises(InvalidValue, match=name):
        UsersService.list(**{name: count})


@pytest.mark.parametrize("name", ["limit", "offset"])
def test_a_limit_beyond_the_servers_numbers_is_refused_before_any_sql(rollback_db, name):
    with no_statement(), pytest.raises(InvalidValue, match=name):
        UsersService.list(**{name: 2**63})


@pytest.mark.parametrize("order", ["email", b"email", ["email"], [], 1, [User.email, "id"], User])
@pytest.mark.parametrize("verb", [UsersService.list, UsersService.find, UsersService.page])
def test_an_order_by_text_is_refused_before_any_sql(rollback_db, verb, order):
    with no_statement(), pytest.raises(InvalidValue, match="order_by takes fields"):
        verb(order_by=order)


def test_reading_sends_one_statement(rollback_db):
    user = new_user()
    for read in (
        lambda: UsersService.get(user.id),
        lambda: UsersService.list(),
        lambda: UsersService.find_by_email(user.email),
        lambda: UsersService.exists(),
        lambda: UsersService.count(),
    ):
        with statements() as events:
            read()
        assert [(event.operation, event.table) for event in events] == [("select", "users")]


# -- update -------------------------------------------------------------------------------------


def test_update_changes_what_is_named_and_answers_the_row(rollback_db):
    user = new_user()
    changed = UsersService.update(user.id, {"first_name": "Ada"})
    assert (changed.first_name, changed.email) == ("Ada", user.email)
    assert UsersService.get(user.id).__data__ == changed.__data__


def test_update_moves_updated_at_and_not_created_at(rollback_db):
    user = new_user()
    changed = UsersService.update(user.id, {"first_name": "Ada"})
    assert changed.updated_at > user.updated_at
    assert changed.created_at == user.created_at


def test_update_leaves_other_rows_alone(rollback_db):
    ada, bob = people("Ada", "Bob")
    UsersService.update(ada.id, {"first_name": "Eve"})
    assert UsersService.get(bob.id).__data__ == bob.__data__


def test_update_can_set_null(rollback_db):
    user = new_user(last_name="X")
    assert UsersService.update(user.id, {"last_name": None}).last_name is None


def test_update_of_a_missing_row_is_none(rollback_db):
    assert UsersService.update(NOBODY, {"first_name": "Ada"}) is None


def test_update_does_not_touch_a_deleted_row(rollback_db):
    user = new_user(first_name="Ada")
    UsersService.soft_delete(user.id)
    assert UsersService.update(user.id, {"first_name": "Eve"}) is None
    assert UsersService.get(user.id, include_deleted=True).first_name == "Ada"


def test_update_touches_a_deleted_row_when_asked_to(rollback_db):
    user = new_user()
    UsersService.soft_delete(user.id)
    changed = UsersService.update(user.id, {"first_name": "Eve"}, include_deleted=True)
    assert changed.first_name == "Eve"
    assert changed.is_deleted


def test_update_seals_a_secret_for_its_row(rollback_db):
    session = new_session()
    changed = SessionService.update(session.id, {"provider_access_token": Secret("another")})
    assert changed.provider_access_token.reveal() == "another"
    assert SessionService.get(str(session.id)).provider_access_token.reveal() == "another"


def test_update_seals_under_an_id_given_in_capitals(rollback_db):
    session = new_session()
    SessionService.update(str(session.id).upper(), {"provider_access_token": Secret("another")})
    assert SessionService.get(session.id).provider_access_token.reveal() == "another"


def test_update_can_remove_an_optional_secret(rollback_db):
    session = new_session(provider_refresh_token=Secret("r"))
    changed = SessionService.update(session.id, {"provider_refresh_token": None})
    assert changed.provider_refresh_token is None
    columns = "provider_refresh_token, provider_refresh_token_iv, provider_refresh_token_tag"
    assert db.execute_sql(f"SELECT {columns} FROM sessions").fetchone() == (None, None, None)


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ({}, "changes of User are empty"),
        ({"id": NOBODY}, r"User\.id of a row can't be changed"),
        ({"id": None}, r"User\.id of a row can.t be changed"),
        ({"deleted_at": utcnow()}, r"User\.deleted_at is set by soft_delete\(\)"),
        ({"deleted_at": None}, r"User\.deleted_at is set by soft_delete\(\)"),
    ],
)
@pytest.mark.parametrize(
    "verb",
    [
        lambda payload: UsersService.update(NOBODY, payload),
        lambda payload: UsersService.update_where({"id": NOBODY}, payload),
    ],
    ids=["update", "update_where"],
)
def test_key_and_deletion_are_not_changed_by_an_update(rollback_db, verb, payload, told):
    with no_statement(), pytest.raises(InvalidValue, match=told):
        verb(payload)


# -- delete, restore ----------------------------------------------------------------------------


def test_soft_delete_answers_the_row_with_its_time(rollback_db):
    user = new_user()
    deleted = UsersService.soft_delete(user.id)
    assert deleted == user
    assert user.created_at < deleted.deleted_at <= utcnow()


def test_soft_delete_twice_answers_none_and_keeps_the_first_time(rollback_db):
    user = new_user()
    first = UsersService.soft_delete(user.id)
    assert UsersService.soft_delete(user.id) is None
    kept = UsersService.get(user.id, include_deleted=True)
    assert (kept.deleted_at, kept.updated_at) == (first.deleted_at, first.updated_at)


@pytest.mark.parametrize("verb", [UsersService.soft_delete, UsersService.restore])
def test_a_missing_row_is_none(rollback_db, verb):
    assert verb(NOBODY) is None


def test_restore_brings_the_row_back(rollback_db):
    user = new_user()
    UsersService.soft_delete(user.id)
    restored = UsersService.restore(user.id)
    assert restored == user
    assert restored.deleted_at is None
    assert UsersService.find_by_id(user.id) == user


def test_restore_of_a_live_row_is_none(rollback_db):
    assert UsersService.restore(new_user().id) is None


def test_restore_of_a_row_whose_key_is_taken_again_is_a_duplicate(rollback_db):
    user = new_user()
    UsersService.soft_delete(user.id)
    new_user(email=user.email)
    with pytest.raises(DuplicateKey), db.atomic():
        UsersService.restore(user.id)


def test_hard_delete_removes_a_live_row_and_says_so(rollback_db):
    user = new_user()
    assert UsersService.hard_delete(user.id) is True
    assert UsersService.find_by_id(user.id, include_deleted=True) is None


def test_hard_delete_removes_a_deleted_row(rollback_db):
    user = new_user()
    UsersService.soft_delete(user.id)
    assert UsersService.hard_delete(user.id) is True
    assert User.with_deleted().count() == 0


def test_hard_delete_of_nothing_says_so(rollback_db):
    assert UsersService.hard_delete(NOBODY) is False


def test_hard_delete_of_a_row_that_others_refer_to_is_refused(rollback_db):
    user = new_session().user
    with pytest.raises(ForeignKeyViolation, match="sessions"), db.atomic():
        UsersService.hard_delete(user.id)


# -- logging ------------------------------------------------------------------------------------


def test_the_audit_of_a_create_is_the_guides(clone_db):
    log = Log()
    user = UsersService.create(user_data(), log)
    meta = {"module": "db", "action": "service:create", "user_id": user.id}
    assert log.audits == [("User created", meta)]
    assert log.errors == []


def test_each_change_is_audited_by_its_verb(clone_db):
    log = Log()
    user = UsersService.create(user_data(), log)
    UsersService.update(user.id, {"first_name": "Ada"}, log)
    UsersService.soft_delete(user.id, log)
    UsersService.restore(user.id, log)
    UsersService.upsert(user_data(email=user.email), log, on="email")
    UsersService.hard_delete(user.id, log)
    assert [(message, meta["action"]) for message, meta in log.audits] == [
        ("User created", "service:create"),
        ("User updated", "service:update"),
        ("User deleted", "service:soft_delete"),
        ("User restored", "service:restore"),
        ("User upserted", "service:upsert"),
        ("User deleted for good", "service:hard_delete"),
    ]
    assert {meta["user_id"] for _, meta in log.audits} == {user.id}
    assert {meta["module"] for _, meta in log.audits} == {"db"}


def test_changes_of_many_rows_are_one_line_with_their_ids(clone_db):
    log = Log()
    users = UsersService.create_many([user_data(), user_data()], log)
    ids = [user.id for user in users]
    UsersService.update_many([{"id": key, "first_name": "A"} for key in ids], log)
    UsersService.update_where({"first_name": "A"}, {"first_name": "B"}, log)
    common = {"module": "db", "count": 2}
    assert log.audits == [
        ("User created", {**common, "action": "service:create_many", "user_ids": ids}),
        ("User updated", {**common, "action": "service:update_many", "user_ids": ids}),
        ("User updated", {**common, "action": "service:update_where"}),
    ]


def test_the_id_of_another_model_has_its_name(clone_db):
    log = Log()
    order = OrdersService.create({"user": new_user(), "total": 1}, log)
    meta = {"module": "db", "action": "service:create", "order_id": order.id}
    assert log.audits == [("Order created", meta)]


def test_what_changed_nothing_is_not_audited(clone_db):
    log = Log()
    UsersService.update(NOBODY, {"first_name": "x"}, log)
    UsersService.soft_delete(NOBODY, log)
    UsersService.restore(NOBODY, log)
    UsersService.hard_delete(NOBODY, log)
    UsersService.create_many([], log)
    UsersService.update_many([], log)
    UsersService.update_many([{"id": NOBODY, "first_name": "x"}], log)
    UsersService.update_where({"id": NOBODY}, {"first_name": "x"}, log)
    assert (log.audits, log.errors) == ([], [])


def test_reading_is_not_audited(clone_db):
    log, user = Log(), new_user()
    UsersService.get(user.id, log)
    UsersService.find_by_id(user.id, log)
    UsersService.find({"id": user.id}, log)
    UsersService.list(None, log)
    UsersService.page(None, log)
    UsersService.count(None, log)
    UsersService.exists(None, log)
    UsersService.find_by_email(user.email, log)
    assert (log.audits, log.errors) == ([], [])


def test_the_audit_follows_the_commit(clone_db):
    log = Log()
    with transaction() as tx:
        UsersService.create(user_data(), log, tx=tx)
        assert log.audits == []
    assert [message for message, _ in log.audits] == ["User created"]


def test_at_the_time_of_the_audit_others_see_the_row(clone_db):
    seen = []

    def look():
        seen.append(User.select().count())

    class Looks(Log):
        def audit(self, message, meta, /):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()

    with transaction() as tx:
        UsersService.create(user_data(), Looks(), tx=tx)
    assert seen == [1]


def test_the_audits_of_a_transaction_keep_their_order(clone_db):
    log = Log()
    with transaction() as tx:
        user = UsersService.create(user_data(), log, tx=tx)
        with transaction() as inner:
            OrdersService.create({"user": user, "total": 1}, log, tx=inner)
        UsersService.update(user.id, {"first_name": "x"}, log, tx=tx)
    assert [message for message, _ in log.audits] == [
        "User created",
        "Order created",
        "User updated",
    ]


def create_and_fail(log):
    with transaction() as tx:
        UsersService.create(user_data(), log, tx=tx)
        raise LookupError


def test_a_transaction_that_is_rolled_back_audits_nothing(clone_db):
    log = Log()
    with pytest.raises(LookupError):
        create_and_fail(log)
    assert (log.audits, log.errors) == ([], [])
    assert User.select().count() == 0


def test_a_savepoint_that_is_rolled_back_audits_nothing_of_its_own(clone_db):
    log = Log()
    with transaction() as tx:
        kept = UsersService.create(user_data(), log, tx=tx)
        with pytest.raises(LookupError):
            create_and_fail(log)
    assert [meta["user_id"] for _, meta in log.audits] == [kept.id]


def test_a_failure_is_logged_and_the_same_exception_goes_on(clone_db):
    log, user = Log(), new_user()
    with pytest.raises(DuplicateKey) as refusal:
        UsersService.create(user_data(email=user.email), log)
    meta = {"module": "db", "action": "service:create", "error": refusal.value}
    assert log.errors == [("Failed to create user", meta)]
    assert log.errors[0][1]["error"] is refusal.value
    assert log.audits == []


def test_a_failure_inside_a_transaction_is_logged_at_once(rollback_db):
    log = Log()
    with transaction() as tx:
        with pytest.raises(InvalidValue):
            UsersService.create({}, log, tx=tx)
        assert len(log.errors) == 1


FAILURES = [
    (lambda log: UsersService.create({}, log), "create user", "create"),
    (lambda log: UsersService.create_many([{}], log), "create users", "create_many"),
    (lambda log: UsersService.get("x", log), "get user", "get"),
    (lambda log: UsersService.find_by_id("x", log), "find user", "find_by_id"),
    (lambda log: UsersService.find("x", log), "find user", "find"),
    (lambda log: UsersService.find_by_email(1, log), "find user", "find_by_email"),
    (lambda log: UsersService.list("x", log), "list users", "list"),
    (lambda log: UsersService.page("x", log), "page users", "page"),
    (lambda log: UsersService.count("x", log), "count users", "count"),
    (lambda log: UsersService.exists("x", log), "exists user", "exists"),
    (lambda log: UsersService.update("x", {}, log), "update user", "update"),
    (lambda log: UsersService.update_many([{}], log), "update users", "update_many"),
    (lambda log: UsersService.update_where("x", {}, log), "update users", "update_where"),
    (lambda log: UsersService.upsert({}, log), "upsert user", "upsert"),
    (lambda log: UsersService.soft_delete("x", log), "soft delete user", "soft_delete"),
    (lambda log: UsersService.restore("x", log), "restore user", "restore"),
    (lambda log: UsersService.hard_delete("x", log), "hard delete user", "hard_delete"),
]


@pytest.mark.parametrize(("call", "doing", "action"), FAILURES, ids=[one[2] for one in FAILURES])
def test_the_line_of_a_failure_names_the_verb(rollback_db, call, doing, action):
    log = Log()
    with pytest.raises(InvalidValue) as refusal:
        call(log)
    meta = {"module": "db", "action": f"service:{action}", "error": refusal.value}
    assert log.errors == [(f"Failed to {doing}", meta)]


def test_a_row_that_is_not_found_is_a_failure_of_get(rollback_db):
    log = Log()
    with pytest.raises(NotFound):
        UsersService.get(NOBODY, log)
    assert [message for message, _ in log.errors] == ["Failed to get user"]


class BrokenLogger:
    def audit(self, message, meta, /):
        raise RuntimeError("disk full")

    error = audit


def test_a_logger_that_fails_does_not_undo_the_call(clone_db, caplog):
    user = UsersService.create(user_data(), BrokenLogger())
    assert UsersService.get(user.id) == user
    assert "The logger given to a service failed" in caplog.text


def test_a_logger_that_fails_does_not_hide_the_error(rollback_db):
    with pytest.raises(MissingField):
        UsersService.create({}, BrokenLogger())


@pytest.mark.parametrize("logger", [print, "log", 1, {}, object()])
def test_what_is_no_logger_is_refused_before_any_sql(rollback_db, logger):
    with no_statement(), pytest.raises(InvalidValue, match=r"logger has no audit.*StdlibLogger"):
        UsersService.create(user_data(), logger)


# -- tx -----------------------------------------------------------------------------------------


def test_a_tx_that_is_open_is_taken(rollback_db):
    with transaction() as tx:
        user = UsersService.create(user_data(), tx=tx)
        assert UsersService.get(user.id, tx=tx) == user


def test_what_was_done_with_a_tx_is_rolled_back_with_it(rollback_db):
    with pytest.raises(LookupError):
        create_and_fail(None)
    assert User.select().count() == 0


CALLS = {
    "create": lambda **how: UsersService.create(user_data(), **how),
    "create_many": lambda **how: UsersService.create_many([user_data()], **how),
    "create_many of none": lambda **how: UsersService.create_many([], **how),
    "upsert": lambda **how: UsersService.upsert(user_data(), on="email", **how),
    "get": lambda **how: UsersService.get(NOBODY, **how),
    "find_by_id": lambda **how: UsersService.find_by_id(NOBODY, **how),
    "find": lambda **how: UsersService.find(**how),
    "find_by_email": lambda **how: UsersService.find_by_email("x", **how),
    "list": lambda **how: UsersService.list(**how),
    "page": lambda **how: UsersService.page(**how),
    "count": lambda **how: UsersService.count(**how),
    "exists": lambda **how: UsersService.exists(**how),
    "update": lambda **how: UsersService.update(NOBODY, {"first_name": "x"}, **how),
    "update_many": lambda **how: UsersService.update_many([], **how),
    "update_where": lambda **how: UsersService.update_where(None, {"first_name": "x"}, **how),
    "soft_delete": lambda **how: UsersService.soft_delete(NOBODY, **how),
    "restore": lambda **how: UsersService.restore(NOBODY, **how),
    "hard_delete": lambda **how: UsersService.hard_delete(NOBODY, **how),
    "list_active": lambda **how: SessionService.list_active(NOBODY, **how),
    "touch": lambda **how: SessionService.touch(NOBODY, **how),
    "revoke": lambda **how: SessionService.revoke(NOBODY, **how),
    "expire_overdue": lambda **how: SessionService.expire_overdue(**how),
}
every_verb = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_verb
def test_a_stale_tx_is_refused_before_any_sql(rollback_db, call):
    with transaction() as tx:
        pass
    with no_statement(), pytest.raises(StaleTransaction, match="has ended"):
        call(tx=tx)


@every_verb
@pytest.mark.parametrize("tx", [True, "tx", db], ids=["bool", "str", "database"])
def test_what_is_no_tx_is_refused_before_any_sql(rollback_db, call, tx):
    with no_statement(), pytest.raises(InvalidValue, match="tx must be"):
        call(tx=tx)


@every_verb
def test_logger_and_tx_go_by_keyword(rollback_db, call):
    with transaction() as tx, suppress(NotFound):
        call(logger=Log(), tx=tx)


def test_tx_goes_by_keyword_only():
    verbs = [name for name, _ in inspect.getmembers(Service, inspect.ismethod) if name[0] != "_"]
    for name in set(verbs) - {"verb"}:
        parameters = inspect.signature(getattr(UsersService, name)).parameters
        assert parameters["tx"].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters["logger"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def test_a_tx_of_another_thread_is_refused(clone_db):
    caught = []

    def elsewhere(tx):
        try:
            UsersService.create(user_data(), tx=tx)
        except StaleTransaction as error:
            caught.append(str(error))

    with transaction() as tx:
        thread = threading.Thread(target=elsewhere, args=(tx,))
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert "another thread" in caught[0]
    assert User.select().count() == 0


def test_a_tx_of_another_database_is_refused(rollback_db, orm_core_worker_url):
    other = Database(db.database, driver=db.driver.NAME, **db.connect_params)
    try:
        with (
            other.transaction() as tx,
            pytest.raises(StaleTransaction, match="another database"),
        ):
            UsersService.create(user_data(), tx=tx)
    finally:
        other.close_all()
    assert User.select().count() == 0


# -- finders and verbs of one's own -------------------------------------------------------------


class PeopleService(Service[User]):
    """A second service of users, for verbs that the first one lacks."""

    find_by_name = finder(User.first_name, User.last_name)
    find_by_first_name = finder(User.first_name)

    @classmethod
    def rename(cls, id, name, logger=None, *, tx=None):
        with cls.verb("rename", logger, tx) as verb:
            user = cls.update(id, {"first_name": name}, tx=tx)
            if user is not None:
                verb.audit("renamed", user, by="test")
            return user

    @classmethod
    def fail_by_mistake(cls, logger=None, *, tx=None):
        with cls.verb("fail_by_mistake", logger, tx):
            raise LookupError("a mistake")


def test_a_finder_finds_by_its_field(rollback_db):
    user = new_user()
    assert UsersService.find_by_email(user.email) == user
    assert UsersService.find_by_email("nobody@example.com") is None


def test_a_finder_of_two_fields_finds_by_both(rollback_db):
    user = new_user(first_name="Ada", last_name="Lovelace")
    new_user(first_name="Ada", last_name="Byron")
    assert PeopleService.find_by_name("Ada", "Lovelace") == user


def test_a_finder_answers_the_first_of_several(rollback_db):
    first, _ = people("Ada", "Ada")
    assert PeopleService.find_by_first_name("Ada") == first


def test_a_finder_takes_the_logger_after_the_values(rollback_db):
    log = Log()
    with pytest.raises(InvalidValue):
        PeopleService.find_by_name("Ada", 3, log)
    assert [meta["action"] for _, meta in log.errors] == ["service:find_by_name"]


def test_a_finder_takes_none_for_the_logger(rollback_db):
    assert UsersService.find_by_email("x", None) is None


@pytest.mark.parametrize(
    "value", [None, 3, b"x", ["x"], {"x": 1}, peewee.SQL("1"), User.email, User(), "a\0"]
)
def test_a_finder_refuses_what_is_no_value_before_any_sql(rollback_db, value):
    with no_statement(), pytest.raises(InvalidValue):
        UsersService.find_by_email(value)


@pytest.mark.parametrize("values", [(), ("Ada",), ("Ada", "Lovelace", None, None)])
def test_a_finder_refuses_another_number_of_values(rollback_db, values):
    with no_statement(), pytest.raises(InvalidValue, match=r"find_by_name\(\) takes 2 value"):
        PeopleService.find_by_name(*values)


def test_a_finder_has_a_name_and_says_what_it_does():
    assert UsersService.find_by_email.__name__ == "find_by_email"
    assert UsersService.find_by_email.__doc__ == "The row with this email, or None."


@pytest.mark.parametrize("fields", [(), ("email",), (User,), (User.email, "id")])
def test_a_finder_is_made_of_fields(fields):
    with pytest.raises(RegistryError, match="finder"):
        finder(*fields)


def test_a_verb_of_ones_own_is_audited_like_the_others(clone_db):
    log, user = Log(), new_user()
    PeopleService.rename(user.id, "Ada", log)
    meta = {"module": "db", "action": "service:rename", "by": "test", "user_id": user.id}
    assert log.audits == [("User renamed", meta)]


def test_a_verb_of_ones_own_logs_its_failure_and_lets_it_go_on():
    log = Log()
    with pytest.raises(LookupError, match="a mistake") as failure:
        PeopleService.fail_by_mistake(log)
    meta = {"module": "db", "action": "service:fail_by_mistake", "error": failure.value}
    assert log.errors == [("Failed to fail user", meta)]


def test_a_verb_of_ones_own_checks_tx(rollback_db):
    with transaction() as tx:
        pass
    with pytest.raises(StaleTransaction):
        PeopleService.rename(NOBODY, "Ada", tx=tx)


def test_a_service_is_a_namespace_and_no_object():
    with pytest.raises(TypeError, match="UsersService is a namespace"):
        UsersService()


def test_a_service_without_a_model_says_how_to_give_it_one():
    class Bare(Service):
        """No model."""

    with pytest.raises(RegistryError, match=r"class Bare\(Service\[YourModel\]\)"):
        Bare.list()


def test_a_service_takes_its_model_from_its_base(rollback_db):
    class Special(UsersService):
        """Inherits."""

    user = new_user()
    assert Special.model is User
    assert Special.find_by_email(user.email) == user


def test_times_are_read_in_utc(rollback_db):
    user = new_user(created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=1))
    assert UsersService.get(user.id).created_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
