"""What the server refuses becomes an error of ours: its class and its facts, never a value."""

# ruff: noqa: PT012 - what a whole block raises is the matter of some tests

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from typing import Any

import peewee
import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domains.orders import Order
from domains.users import Session, User
from orm_core import (
    CheckViolation,
    ConnectionLost,
    ConstraintViolation,
    Database,
    DeadlockDetected,
    DuplicateKey,
    ForeignKeyViolation,
    InvalidStatement,
    InvalidValue,
    LockTimeout,
    NotNullViolation,
    OrmCoreError,
    QueryError,
    SerializationFailure,
    ServerRejectedValue,
    StatementTimeout,
    db,
    transaction,
    uuid7,
)

TABLES = """
CREATE TEMP TABLE shelves (
    name text CONSTRAINT shelves_name_key UNIQUE,
    label varchar(20),
    weight integer,
    site integer NOT NULL DEFAULT 1,
    span int4range,
    CONSTRAINT shelves_weight_check CHECK (weight > 0),
    CONSTRAINT shelves_span_excl EXCLUDE USING gist (span WITH &&)
);
CREATE TEMP TABLE books (
    title text,
    shelf text CONSTRAINT books_shelf_fkey REFERENCES shelves (name)
);
CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'refused: %%', new.label USING DETAIL = new.label, HINT = new.name; END $$;
CREATE TRIGGER guard BEFORE UPDATE ON shelves FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse();
"""


@pytest.fixture
def shelves(rollback_db: Database) -> Database:
    rollback_db.execute_sql(TABLES)
    return rollback_db


def failure(sql: str, *params: Any) -> QueryError:
    """The error of one statement, inside a savepoint."""
    with pytest.raises(QueryError) as caught, transaction():
        db.execute_sql(sql, params or None)
    return caught.value


def add_user(**given: Any) -> User:
    return User.create(**{"email": "a", "first_name": "A", "provider_account_id": "p", **given})


# The matrix


@pytest.mark.parametrize(
    ("sql", "kind", "sqlstate", "table", "columns", "constraint"),
    [
        (
            "INSERT INTO shelves (name) VALUES ('x'), ('x')",
            DuplicateKey,
            "23505",
            "shelves",
            (),
            "shelves_name_key",
        ),
        (
            "INSERT INTO shelves (span) VALUES ('[1,5)'), ('[2,3)')",
            DuplicateKey,
            "23P01",
            "shelves",
            (),
            "shelves_span_excl",
        ),
        (
            "INSERT INTO shelves (weight) VALUES (-1)",
            CheckViolation,
            "23514",
            "shelves",
            (),
            "shelves_weight_check",
        ),
        (
            "INSERT INTO shelves (site) VALUES (NULL)",
            NotNullViolation,
            "23502",
            "shelves",
            ("site",),
            None,
        ),
        (
            "INSERT INTO books (shelf) VALUES ('none')",
            ForeignKeyViolation,
            "23503",
            "books",
            (),
            "books_shelf_fkey",
        ),
        (
            "INSERT INTO shelves (label) VALUES (repeat('x', 21))",
            ServerRejectedValue,
            "22001",
            None,
            (),
            None,
        ),
        ("SELECT 1 / 0", ServerRejectedValue, "22012", None, (), None),
        ("SELECT 'x'::integer", ServerRejectedValue, "22P02", None, (), None),
        ("SELECT 3000000000::integer", ServerRejectedValue, "22003", None, (), None),
        ("SELECT '2024-02-30'::date", ServerRejectedValue, "22008", None, (), None),
        ("SELECT 'x'::session_status", ServerRejectedValue, "22P02", None, (), None),
        ("SELECT '{'::jsonb", ServerRejectedValue, "22P02", None, (), None),
        ("SELECT * FROM nowhere", InvalidStatement, "42P01", None, (), None),
        ("SELECT nothing FROM users", InvalidStatement, "42703", None, (), None),
        ("SELECT 1::nonsense", InvalidStatement, "42704", None, (), None),
        ("SELECT nonsense(1)", InvalidStatement, "42883", None, (), None),
        ("SELEC 1", InvalidStatement, "42601", None, (), None),
        ("CREATE TABLE users ()", InvalidStatement, "42P07", None, (), None),
        ("UPDATE shelves SET label = 'x'", QueryError, "P0001", None, (), None),
    ],
)
def test_the_server_s_refusal_has_its_class_and_its_facts(
    shelves, sql, kind, sqlstate, table, columns, constraint
):
    db.execute_sql("INSERT INTO shelves (name) VALUES ('some')")
    error = failure(sql)
    assert type(error) is kind
    facts = (error.sqlstate, error.table, error.columns, error.constraint)
    assert facts == (sqlstate, table, columns, constraint)
    for told in (sqlstate, table, constraint, *columns):
        assert told is None or told in str(error)
    assert isinstance(error, peewee.DatabaseError)
    assert error.__cause__ is None


def test_a_taken_key_names_the_table_and_its_columns(rollback_db):
    add_user()
    with pytest.raises(DuplicateKey) as caught, transaction():
        add_user(provider_account_id="other")
    error = caught.value
    assert (error.table, error.columns) == ("users", ("email",))
    assert error.constraint == "users_email_key"
    assert str(error).startswith("users.email: another row has this key already")


def test_a_missing_parent_names_the_column_that_refers_to_it(rollback_db):
    with pytest.raises(ForeignKeyViolation) as caught, transaction():
        Order.create(user=uuid7(), total=1)
    error = caught.value
    assert (error.table, error.columns) == ("orders", ("user_id",))
    assert error.constraint == "orders_user_id_fkey"


def test_a_parent_that_is_referred_to_names_the_referring_column(rollback_db):
    user = add_user()
    Order.create(user=user, total=1)
    with pytest.raises(ForeignKeyViolation) as caught, transaction():
        user.hard_delete_instance()
    error = caught.value
    assert (error.table, error.columns) == ("orders", ("user_id",))
    assert error.constraint == "orders_user_id_fkey"


def test_a_missing_value_names_its_column(rollback_db):
    error = failure("INSERT INTO users (email, first_name) VALUES ('a', 'b')")
    assert isinstance(error, NotNullViolation)
    assert (error.table, error.columns) == ("users", ("provider_account_id",))


@pytest.mark.parametrize("sql", ["SELECT * FROM nowhere", "SELECT nothing FROM users"])
def test_what_is_missing_points_at_the_migrations(rollback_db, sql):
    assert "orm-core migrate status" in str(failure(sql))


def test_each_class_of_errors_has_a_kind_of_its_own():
    classes = {QueryError, ConstraintViolation}
    classes |= {one for base in classes for one in base.__subclasses__()}
    classes |= {DeadlockDetected}
    kinds = [one.kind for one in classes]
    assert len(set(kinds)) == len(kinds)


# Two sessions


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start ``work`` in a thread; calling the answer waits for what it answers or raises."""
    answer: list[Any] = []

    def run() -> None:
        try:
            answer.append(work())
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait() -> Any:
        thread.join(15)
        return answer[0]

    return wait


def test_a_concurrent_change_is_a_serialization_failure(clone_db):
    user = add_user()
    with pytest.raises(SerializationFailure) as caught, transaction("repeatable read"):
        User.get_by_id(user.id)
        in_thread(lambda: User.update(first_name="B").execute())()
        User.update(first_name="C").execute()
    assert type(caught.value) is SerializationFailure
    assert caught.value.sqlstate == "40001"


def test_two_who_wait_for_each_other_are_a_deadlock(clone_db):
    users = [add_user(email=name, provider_account_id=name) for name in "ab"]
    db.execute_sql("SET deadlock_timeout = '50ms'")
    both = threading.Barrier(2, timeout=10)

    def change(first: User, second: User) -> None:
        with transaction():
            db.execute_sql("SET LOCAL deadlock_timeout = '50ms'")
            User.update(first_name="x").where(User.id == first.id).execute()
            both.wait()
            User.update(first_name="x").where(User.id == second.id).execute()

    one = in_thread(lambda: change(*users))
    two = in_thread(lambda: change(*reversed(users)))
    (error,) = [found for found in (one(), two()) if found is not None]
    assert type(error) is DeadlockDetected
    assert error.sqlstate == "40P01"


def test_a_lock_that_is_not_to_be_had_is_a_lock_timeout(clone_db):
    add_user()

    def wait() -> None:
        with transaction():
            db.execute_sql("SET LOCAL lock_timeout = '50ms'")
            User.update(first_name="x").execute()

    with transaction():
        User.update(first_name="y").execute()
        error = in_thread(wait)()
        nowait = in_thread(lambda: list(User.select().for_update("FOR UPDATE NOWAIT")))()
    assert (type(error), error.sqlstate) == (LockTimeout, "55P03")
    assert type(nowait) is LockTimeout


def test_a_statement_that_takes_too_long_is_a_statement_timeout(rollback_db):
    error = failure("SET LOCAL statement_timeout = '20ms'; SELECT pg_sleep(10)")
    assert (type(error), error.sqlstate) == (StatementTimeout, "57014")


@pytest.mark.parametrize("after_the_news", [False, True])
def test_a_session_that_the_server_ended_is_a_lost_connection(clone_db, after_the_news):
    other = Database(clone_db.database, driver=db.driver.NAME, **clone_db.connect_params)
    with db.connection_context():
        (pid,) = db.execute_sql("SELECT pg_backend_pid()").fetchone()
        other.execute_sql("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        with pytest.raises(ConnectionLost) as caught:
            db.execute_sql("SELECT 1")
        if after_the_news:
            db.connection().close()
            with pytest.raises(ConnectionLost) as caught, db.atomic():
                db.connection().close()
                db.execute_sql("SELECT 1")
    other.close_all()
    assert type(caught.value) is ConnectionLost
    assert isinstance(caught.value, peewee.OperationalError)


# Not the server's word


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT '50%' WHERE 1 = %s", (1,)),
        ("SELECT '50% of'", None),
        ("SELECT %s", None),
        ("SELECT %s, %s", (1,)),
        ("SELECT %s", (1, 2)),
    ],
)
def test_a_percent_sign_that_the_driver_takes_for_a_parameter_is_explained(
    rollback_db, sql, params
):
    with pytest.raises(OrmCoreError, match="%"):
        db.execute_sql(sql, params)


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_text_that_can_not_be_sent_is_an_invalid_value(rollback_db, value):
    with pytest.raises(InvalidValue, match="no SQL was sent"):
        db.execute_sql("SELECT %s", (value,))


def test_a_parameter_of_a_strange_type_is_an_invalid_value(rollback_db):
    with pytest.raises(InvalidValue, match="type"):
        db.execute_sql("SELECT %s", (object(),))


# No value is ever told

values = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40
).map(lambda text: f"Zq9{text}9qZ")


def literal(value: str) -> str:
    return "'" + value.replace("'", "''").replace("%", "%%") + "'"


def name(value: str) -> str:
    return '"' + value.replace('"', '""').replace("%", "%%") + '"'


LEAKS: dict[str, Callable[[str], object]] = {
    "duplicate, by the model": lambda value: [add_user(email=value) for _ in range(2)],
    "duplicate, bulk": lambda value: User.insert_many(
        [
            {"email": value, "first_name": value, "provider_account_id": number}
            for number in ("1", "2")
        ]
    ).execute(),
    "duplicate, literal": lambda value: db.execute_sql(
        f"INSERT INTO shelves (name) SELECT {literal(value)} FROM generate_series(1, 2)"
    ),
    "excluded": lambda value: db.execute_sql(
        "INSERT INTO shelves (name, span) VALUES (%s, '[1,5)'), ('x', '[1,5)')", (value,)
    ),
    "missing parent": lambda value: db.execute_sql("INSERT INTO books VALUES ('x', %s)", (value,)),
    "parent that is referred to": lambda value: db.execute_sql(
        "INSERT INTO shelves (name) VALUES (%s); INSERT INTO books VALUES ('x', %s);"
        "DELETE FROM shelves",
        (value, value),
    ),
    "not null": lambda value: db.execute_sql(
        "INSERT INTO shelves (name, site) VALUES (%s, NULL)", (value,)
    ),
    "not null, literal": lambda value: db.execute_sql(
        f"INSERT INTO shelves (name, site) VALUES ({literal(value)}, NULL)"
    ),
    "check": lambda value: db.execute_sql(
        "INSERT INTO shelves (name, weight) VALUES (%s, -1)", (value,)
    ),
    "too long": lambda value: db.execute_sql(
        "INSERT INTO shelves (label) VALUES (%s || repeat('x', 20))", (value,)
    ),
    "no integer": lambda value: db.execute_sql("SELECT %s::integer", (value,)),
    "no integer, literal": lambda value: db.execute_sql(f"SELECT {literal(value)}::integer"),
    "no timestamp": lambda value: db.execute_sql("SELECT %s::timestamptz", (value,)),
    "no json": lambda value: db.execute_sql("SELECT %s::jsonb", (value,)),
    "no uuid": lambda value: db.execute_sql("SELECT %s::uuid", (value,)),
    "no such status": lambda value: db.execute_sql("SELECT %s::session_status", (value,)),
    "no pattern": lambda value: db.execute_sql("SELECT 'x' ~ ('**' || %s)", (value,)),
    "syntax error": lambda value: db.execute_sql(f"SELEC {literal(value)}"),
    "syntax error by the value": lambda value: db.execute_sql(
        f"SELECT 1 {name(value)} {value.replace('%', '%%')}"
    ),
    "unknown column": lambda value: db.execute_sql(f"SELECT {name(value)}"),
    "unknown table": lambda value: db.execute_sql(f"SELECT * FROM {name(value)}"),
    "unknown function": lambda value: db.execute_sql(f"SELECT {name(value)}({literal(value)})"),
    "raised": lambda value: db.execute_sql(
        "INSERT INTO shelves (name, label) VALUES (%s, %s); UPDATE shelves SET weight = 2",
        (value, value[:20]),
    ),
    "division": lambda value: db.execute_sql("SELECT 1 / (length(%s) - length(%s))", (value,) * 2),
    "lone surrogate": lambda value: db.execute_sql("SELECT %s", (f"{value}\ud800",)),
    "NUL": lambda value: db.execute_sql("SELECT %s", (f"{value}\0",)),
    "strange type": lambda value: db.execute_sql("SELECT %s", (type(value, (), {}),)),
    "back-reference, by the model": lambda value: Session.insert(
        user=uuid7(), provider="google", provider_account_id=value, expires_at=value
    ).execute(),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=values)
def test_no_error_tells_a_value(shelves, leak, value):
    with pytest.raises(OrmCoreError) as caught, transaction():
        leak(value)
    error = caught.value
    told = [str(error), repr(error), repr(error.args), *map(repr, vars(error).values())]
    told += [*traceback.format_exception(error), repr(error.__cause__), repr(error.__context__)]
    for text in told:
        for part in {value, value[:20], repr(value)[1:-1], "Zq9", "9qZ"}:
            assert part not in text


def test_the_log_of_statements_has_no_parameters(rollback_db, caplog):
    with caplog.at_level(logging.DEBUG):
        add_user(email="Zq9-secret")
        with pytest.raises(DuplicateKey), transaction():
            add_user(email="Zq9-secret")
    assert "INSERT INTO" in caplog.text
    assert "Zq9-secret" not in caplog.text


def test_the_driver_would_have_told_the_value(rollback_db):
    """Or the tests above would prove nothing."""
    connection = psycopg2.connect(dbname=db.database, **db.connect_params)
    try:
        with pytest.raises(psycopg2.Error, match="Zq9"):
            connection.cursor().execute("SELECT 'Zq9'::integer")
    finally:
        connection.close()
