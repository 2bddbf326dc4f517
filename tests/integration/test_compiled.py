"""``compiled``: SQL made once, values checked each time, misuse refused before SQL."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from peewee import JOIN, SQL, fn
from service_helpers import Session, User, UsersService, new_session, new_user, no_statement
from wide_models import MODELS, Bare, Colour, Shelf, Thing

from orm_core import (
    Database,
    InvalidValue,
    QueryError,
    Secret,
    compiled,
    db,
    parameter,
    transaction,
    utcnow,
)
from orm_core.database.compiled_sql import CompiledSql
from orm_core.models.schema import create_all

by_email = compiled(User.select().where(User.email == parameter("email")))


@pytest.fixture
def keys() -> Iterator[None]:
    from orm_core import KeyRing, use_key_ring

    use_key_ring(KeyRing.parse(KeyRing.generate()))
    yield
    use_key_ring(None)


def test_the_sql_is_that_of_the_query(rollback_db):
    query = User.select(User.id).where(User.email == "x").order_by(User.id).limit(3)
    made = compiled(
        User.select(User.id).where(User.email == parameter("email")).order_by(User.id).limit(3)
    )
    assert made.sql == query.sql()[0]
    assert type(made.sql) is str


def test_each_call_sees_the_rows_of_its_moment(rollback_db):
    assert by_email(email="ada@example.com") == []
    ada = new_user(email="ada@example.com")
    assert by_email(email="ada@example.com") == [ada]
    assert by_email.first(email="ada@example.com") == ada
    UsersService.soft_delete(ada.id)
    assert by_email.first(email="ada@example.com") is None


def test_deleted_rows_are_seen_as_the_query_says(rollback_db):
    kept, gone = new_user(first_name="x"), new_user(first_name="x")
    UsersService.soft_delete(gone.id)
    named = User.select().where(User.first_name == parameter("name"))
    assert compiled(named)(name="x") == [kept]
    assert set(compiled(named.with_deleted())(name="x")) == {kept, gone}
    assert compiled(named.only_deleted())(name="x") == [gone]


def test_deleted_rows_of_a_joined_model_are_not_seen(rollback_db, keys):
    session = new_session()
    query = (
        Session.select(Session.id, User.email)
        .join(User)
        .where(User.email == parameter("email"))
        .order_by(Session.id)
    )
    find = compiled(query)
    email = session.user.email
    found = find(email=email)
    assert [(one.id, one.user.email) for one in found] == [(session.id, email)]
    UsersService.soft_delete(session.user_id)
    assert find(email=email) == []


@pytest.mark.parametrize("kind", ["dicts", "tuples", "namedtuples", "records"])
def test_rows_come_as_the_query_asks(rollback_db, kind):
    ada = new_user(email="ada@example.com")
    query = getattr(User.select(User.id, User.email), kind)()
    (row,) = compiled(query.where(User.email == parameter("email")))(email=ada.email)
    values = {
        "dicts": lambda: (row["id"], row["email"]),
        "tuples": lambda: row,
        "namedtuples": lambda: tuple(row),
        "records": lambda: (row.id, row.email),
    }[kind]()
    assert values == (ada.id, ada.email)


def test_expressions_and_joins_make_peewees_rows(rollback_db):
    new_user(first_name="x")
    count = compiled(
        User.select(fn.COUNT(User.id)).where(User.first_name == parameter("name")).tuples()
    )
    assert count(name="x") == [(1,)]


def test_one_name_in_two_places_is_converted_for_each(rollback_db):
    text = "0123456789ABCDEF0123456789ABCDEF"
    new_user(first_name=text)
    find = compiled(
        User.select().where((User.first_name == parameter("x")) | (User.id == parameter("x")))
    )
    assert len(find(x=text)) == 1


def test_a_list_is_compared_with_any(rollback_db):
    create_all(db, MODELS)
    users = [new_user() for _ in range(3)]
    find = compiled(User.select().where(User.id == fn.ANY(parameter("ids"))).order_by(User.id))
    assert find(ids=[users[0].id, str(users[1].id)]) == users[:2]
    assert find(ids={users[2].id}) == users[2:]
    assert find(ids=[]) == []
    tricky = ['a,"b', "{}", "NULL", "\\", ""]
    for text in tricky:
        Shelf.create(label=text)
    shelves = compiled(Shelf.select().where(Shelf.label == fn.ANY(parameter("labels"))))
    assert {one.label for one in shelves(labels=tricky)} == set(tricky)
    for colour in (Colour.ODD, Colour.RED):
        Thing.create(colour=colour, price=Decimal("1.50"), number=7, moment=utcnow())
    coloured = compiled(Thing.select().where(Thing.colour == fn.ANY(parameter("some"))))
    assert [one.colour for one in coloured(some=[Colour.ODD])] == [Colour.ODD]
    numbers = compiled(
        Thing.select().where(
            Thing.number == fn.ANY(parameter("numbers")), Thing.price == fn.ANY(parameter("prices"))
        )
    )
    assert len(numbers(numbers=[7, 8], prices=[Decimal("1.5")])) == 2
    with no_statement(), pytest.raises(InvalidValue, match=r"User\.id must be a UUID"):
        find(ids=["nonsense"])
    for no_list in (users[0].id, str(users[0].id), iter([users[0].id]), {users[0].id: 1}):
        with no_statement(), pytest.raises(InvalidValue, match=r"ANY\(\), which takes a list"):
            find(ids=no_list)


def test_limit_and_offset_may_be_parameters(rollback_db):
    users = [new_user() for _ in range(4)]
    some = compiled(
        User.select().order_by(User.id).limit(parameter("size")).offset(parameter("start"))
    )
    assert some(size=2, start=1) == users[1:3]
    assert some(size=0, start=0) == []
    assert some.first(size=1, start=3) == users[3]
    for wrong in (None, -1, "1", 1.5, True, 1 << 63, [1]):
        with no_statement(), pytest.raises(InvalidValue, match="size must be a whole number"):
            some(size=wrong, start=0)
    with pytest.raises(InvalidValue, match=r"limit\(\) takes a whole number"):
        User.select().limit(fn.NOW())


def test_a_parameter_stands_in_sql_of_ones_own(rollback_db):
    user = new_user()
    new_user()
    find = compiled(User.select().where(SQL("email = %s", [parameter("email")])))
    assert find(email=user.email) == [user]


def test_a_parameter_may_have_any_name(rollback_db):
    user = new_user()
    find = compiled(User.select().where(User.email == parameter("self")))
    assert find(self=user.email) == [user]
    assert find.first(self=user.email) == user


def test_in_with_a_parameter_is_refused_with_the_way_that_works():
    for query in (
        User.select().where(User.id.in_(parameter("ids"))),
        User.select().where(User.id.not_in(parameter("ids"))),
    ):
        with pytest.raises(InvalidValue, match=r"fn\.ANY\(parameter\('ids'\)\)"):
            compiled(query)


def test_several_parameters_may_stand_in_a_list(rollback_db):
    ada, ben = new_user(), new_user()
    find = compiled(User.select().where(User.id.in_([parameter("one"), parameter("other")])))
    assert set(find(one=ada.id, other=ben.id)) == {ada, ben}


@pytest.mark.parametrize(
    "values",
    [{}, {"mail": "x"}, {"email": "x", "more": 1}, {"the time": utcnow(), "email": "x"}],
    ids=["missing", "misnamed", "one more", "inner name"],
)
def test_other_parameters_than_the_querys_are_refused_before_sql(rollback_db, values):
    with no_statement(), pytest.raises(InvalidValue, match="takes email"):
        by_email(**values)


@pytest.mark.parametrize("value", [None, 3, b"x", ["x"], User.email, "a\0b", "\ud800"], ids=repr)
def test_a_value_that_does_not_fit_is_refused_before_sql(rollback_db, value):
    with no_statement(), pytest.raises(InvalidValue, match=r"(n|N)o SQL") as caught:
        by_email(email=value)
    assert "ud800" not in str(caught.value)


def test_none_is_taken_where_a_column_is_set_and_refused_where_it_is_compared(rollback_db):
    ada = new_user(last_name="Lovelace")
    rename = compiled(
        User.update(last_name=parameter("name"), first_name=parameter("first"))
        .where(User.id == parameter("id"))
        .returning(User)
    )
    (row,) = rename(name=None, first="A", id=ada.id)
    assert row.last_name is None
    with no_statement(), pytest.raises(InvalidValue, match="first_name may not be None"):
        rename(name="x", first=None, id=ada.id)
    with no_statement(), pytest.raises(InvalidValue, match="id may not be None"):
        rename(name="x", first="A", id=None)


@pytest.mark.parametrize(
    "query",
    [
        User.insert(email="x", first_name="x", provider_account_id="x"),
        User.delete(),
        User.restore(),
        User.hard_delete(),
        User.select().with_related(User.sessions),
        User,
        "SELECT 1",
        None,
    ],
    ids=["insert", "delete", "restore", "hard delete", "related", "model", "text", "none"],
)
def test_what_is_no_select_or_update_is_refused(query):
    with pytest.raises(InvalidValue, match=r"compiled\(\) takes a select\(\) or update\(\)"):
        compiled(query)


@pytest.mark.parametrize("name", ["", "two words", "1st", None, 3, User.email], ids=repr)
def test_a_parameter_has_a_name(name):
    with pytest.raises(InvalidValue, match=r"parameter\('email'\)"):
        parameter(name)


def test_an_empty_update_is_refused():
    with pytest.raises(InvalidValue, match="nothing to set"):
        compiled(User.update())


def test_first_of_an_update_without_rows_is_refused_before_sql(rollback_db):
    ada = new_user(first_name="before")
    rename = compiled(User.update(first_name=parameter("name")).where(User.id == parameter("id")))
    with no_statement(), pytest.raises(InvalidValue, match=r"add returning\(\)"):
        rename.first(name="after", id=ada.id)
    assert User.get_by_id(ada.id).first_name == "before"


def test_an_update_moves_updated_at_at_each_call(rollback_db):
    ada = new_user()
    rename = compiled(
        User.update(first_name=parameter("name")).where(User.id == parameter("id")).returning(User)
    )
    times = [rename.first(name=str(number), id=ada.id).updated_at for number in range(3)]
    assert ada.updated_at < times[0] < times[1] < times[2]
    given = utcnow() - timedelta(days=3)
    stamped = compiled(User.update(updated_at=parameter("at")).where(User.id == parameter("id")))
    assert stamped(at=given, id=ada.id) == 1
    assert User.get_by_id(ada.id).updated_at == given


def test_an_update_leaves_deleted_rows_alone_unless_asked(rollback_db):
    gone = new_user()
    UsersService.soft_delete(gone.id)
    query = User.update(first_name=parameter("name")).where(User.id == parameter("id"))
    assert compiled(query)(name="x", id=gone.id) == 0
    assert compiled(query.with_deleted())(name="x", id=gone.id) == 1


def test_an_update_of_a_model_without_times_works(rollback_db):
    create_all(db, MODELS)
    bare = Bare.create(name="a")
    rename = compiled(Bare.update(name=parameter("name")).where(Bare.id == parameter("id")))
    assert rename(name="b", id=bare.id) == 1


def test_a_secret_can_not_be_set_in_bulk(rollback_db, keys):
    session = new_session()
    seal = compiled(
        Session.update(provider_access_token=parameter("token")).where(
            Session.id == parameter("id")
        )
    )
    for value in ("plain text", Secret("plain text")):
        with no_statement(), pytest.raises(InvalidValue) as caught:
            seal(token=value, id=session.id)
        assert "plain text" not in str(caught.value)


def test_a_query_bound_to_a_database_is_sent_there(rollback_db):
    other = Database("nowhere")
    sent: list[str] = []

    def execute(sql: str, params: Any = None) -> Any:
        sent.append(sql)
        return db.execute_sql(sql, params)

    other.execute_sql = execute  # type: ignore[method-assign]
    compiled(User.select().bind(other))()
    with other.bind_ctx([User]):
        by_email(email="x")
    by_email(email="x")
    assert len(sent) == 2


def test_a_change_of_the_model_changes_the_statement(rollback_db):
    create_all(db, MODELS)
    find = compiled(Shelf.select(Shelf.id).where(Shelf.label == parameter("label")))
    assert find(label="x") == []
    try:
        Shelf._meta.set_table_name("wide_renamed")
        assert '"wide_renamed"' in find.sql
        db.execute_sql("ALTER TABLE wide_shelves RENAME TO wide_renamed")
        assert find(label="x") == []
    finally:
        Shelf._meta.set_table_name("wide_shelves")


def test_errors_of_the_server_are_ours(rollback_db):
    divide = compiled(User.select(1 / (fn.LENGTH(User.first_name) - 1)).tuples())
    new_user(first_name="x")
    with pytest.raises(QueryError):
        divide()


def test_hooks_see_each_statement_once(rollback_db):
    seen: list[Any] = []
    db.query_hooks.append(seen.append)
    try:
        by_email(email="a@example.com")
        by_email(email="b@example.com")
    finally:
        db.query_hooks.remove(seen.append)
    assert [event.sql for event in seen] == [by_email.sql] * 2
    assert [event.params for event in seen] == [("a@example.com",), ("b@example.com",)]


def test_it_takes_part_in_a_transaction(clone_db):
    ada = new_user(first_name="before")
    rename = compiled(User.update(first_name=parameter("name")).where(User.id == parameter("id")))
    with pytest.raises(ZeroDivisionError), transaction():  # noqa: PT012
        rename(name="after", id=ada.id)
        raise ZeroDivisionError
    assert User.get_by_id(ada.id).first_name == "before"


def test_threads_may_share_it(clone_db):
    users = [new_user() for _ in range(4)]
    related = compiled(
        User.select(User.id, Session.id)
        .join(Session, JOIN.LEFT_OUTER)
        .where(User.id == parameter("id"))
        .dicts()
    )
    wrong: list[Any] = []

    def work(user: Any) -> None:
        for _ in range(50):
            if by_email.first(email=user.email) != user:
                wrong.append(user)
            if [row["id"] for row in related(id=user.id)] != [user.id]:
                wrong.append(user)

    threads = [threading.Thread(target=work, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("query", "prepared"),
    [
        (User.select().where(User.email == parameter("x")).limit(3).offset(1), True),
        (User.select().limit(parameter("x")).offset(parameter("y")), True),
        (User.select().where(SQL("email = %s", [parameter("x")])), False),
        (User.update(first_name=parameter("x")).where(User.id == uuid.uuid4()), True),
        (Thing.select().where(Thing.number == 3, Thing.title == parameter("x")), True),
        (Thing.select().where(Thing.uid == fn.ANY(parameter("x"))), True),
        (Thing.select().where((Thing.number + 1) * 1.5 > 3, Thing.title == parameter("x")), False),
        (Thing.select().where((Thing.number + 1) > parameter("x")), False),
        (Thing.select().where(Thing.address == parameter("x")), False),
        (Thing.select().where(fn.LOWER(Thing.title) == parameter("x")), False),
    ],
)
def test_only_values_of_a_columns_type_are_left_for_the_server_to_read(query, prepared):
    assert (type(compiled(query)._statement.sql) is CompiledSql) is prepared
