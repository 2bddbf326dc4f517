"""psycopg 2 and psycopg 3: the same rows, literals, refusals, errors and preparing."""

from __future__ import annotations

import enum
import io
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import peewee
import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from psycopg2.extras import Json
from service_helpers import connect_params, new_user

from domains.users import User, UsersService
from orm_core import (
    ConfigurationError,
    ConnectionLost,
    Database,
    DuplicateKey,
    InvalidStatement,
    InvalidValue,
    NotFound,
    OrmCoreError,
    SerializationFailure,
    StatementTimeout,
    close_db,
    compiled,
    db,
    initialize_db,
    parameter,
    transaction,
)
from orm_core.database import drivers
from orm_core.settings import DRIVERS

UTC_OPTION = "-c timezone=UTC"


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(driver: str, clone_db: Database, orm_core_server: Any) -> Iterator[Database]:
    """``db`` by each driver in turn."""
    yield initialize_db(orm_core_server.url(clone_db.database), driver=driver)
    close_db()


@pytest.fixture
def preparing(driver: str, clone_db: Database, orm_core_server: Any) -> Iterator[Database]:
    yield initialize_db(orm_core_server.url(clone_db.database), driver=driver, prepare=True)
    close_db()


@pytest.fixture(scope="module")
def both(orm_core_server: Any) -> Iterator[tuple[Database, Database]]:
    params = connect_params(orm_core_server.url("postgres"))
    name = params.pop("dbname")
    with ExitStack() as stack:
        made = []
        for one in DRIVERS:
            database = Database(name, driver=one, options=UTC_OPTION, **params)
            stack.callback(database.close_all)
            made.append(database)
        yield made[0], made[1]


def plain(value: Any) -> Any:
    """A value as a text, in which equal values of two types differ."""
    if isinstance(value, memoryview):
        return "memoryview", bytes(value)
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(item) for item in value]
    return repr(value)


def answer(database: Database, sql: str, *params: Any) -> Any:
    try:
        return plain(database.execute_sql(sql, params).fetchone())
    except OrmCoreError as error:
        return type(error), str(error)


class Word(enum.StrEnum):
    YES = "yes"


class Number(enum.IntEnum):
    ONE = 1


class Plain(enum.Enum):
    A = "a"


# Rows


@pytest.mark.parametrize(
    "expression",
    [
        "1::int2, 1::int4, 1::int8, 1::oid, -1",
        "1.5::float4, 1e300::float8, 'NaN'::float8, '-Infinity'::float8",
        "1.10::numeric, 'NaN'::numeric",
        "true, NULL, 'a'::char(3), 'a'::\"char\", 'a'::name, 'a'::varchar, 'é'::text",
        "'\\x00ff'::bytea, ''::bytea",
        "'2020-01-02'::date, 'infinity'::date, '-infinity'::date",
        "'2020-01-02 03:04:05.6'::timestamp, 'infinity'::timestamp, '-infinity'::timestamp",
        "'2020-01-02 03:04:05.6+02'::timestamptz, '1850-01-01'::timestamptz",
        "'infinity'::timestamptz, '-infinity'::timestamptz",
        "'03:04:05.6'::time, '24:00'::time, '03:04+02:30'::timetz",
        "'1 year 2 mons 3 days 04:05:06.7'::interval, '-1 mon -04:05'::interval",
        "'00000000-0000-0000-0000-00000000000f'::uuid",
        """'{"a": [1, 2.5, null, "é"], "n": 12345678901234567890}'::jsonb, 'null'::jsonb""",
        "'[1.10]'::json",
        "'1.2.3.4'::inet, '10.0.0.0/8'::cidr, '08:00:2b:01:02:03'::macaddr",
        "ROW(1, 'a'), '(1,2)'::point, B'101', '$1.00'::money, 'a b'::tsvector",
        "'pg_class'::regclass, '1'::xid, '1 2'::int2vector",
        "'{1,NULL}'::int[], '{{1,2},{3,4}}'::int[], '{}'::int[], '{1.5}'::numeric[]",
        """'{a,NULL,"b c","\\"\\\\"}'::text[], '{t,f}'::bool[], '{1.2.3.4}'::inet[]""",
        "'{00000000-0000-0000-0000-00000000000f,NULL}'::uuid[], '{2020-01-02}'::date[]",
        "'{2020-01-02 03:04+02}'::timestamptz[], '{1 day}'::interval[], '{\"[1]\"}'::jsonb[]",
        "'{\"(1,2)\"}'::point[]",
    ],
)
def test_a_row_has_the_same_values_by_either_driver(both, expression):
    two, three = (answer(database, f"SELECT {expression}") for database in both)
    assert two == three
    assert not isinstance(two[0], type), two


def test_the_style_of_dates_that_a_server_is_set_to_does_not_matter(both):
    rows = []
    for one in both:
        params = {**one.connect_params, "options": f"{UTC_OPTION} -c datestyle=German"}
        styled = Database(one.database, driver=one.driver.NAME, **params)
        try:
            sql = "SELECT '2020-01-31'::date, '2020-01-31 10:00'::timestamptz"
            rows.append(styled.execute_sql(sql).fetchone())
        finally:
            styled.close_all()
    assert rows == [(date(2020, 1, 31), datetime(2020, 1, 31, 10, tzinfo=UTC))] * 2


def test_rows_that_wait_to_be_read_survive_the_calls_in_between(database):
    """A cursor that was read is used again; one that somebody has is not."""
    with database.connection_context():
        UsersService.find_by_email("nobody@example.com")
        cursor = database.execute_sql("SELECT generate_series(1, 3)")
        UsersService.find_by_email("nobody@example.com")
        with transaction():
            new_user()
        assert cursor.fetchall() == [(1,), (2,), (3,)]


@pytest.fixture(scope="module")
def beside(orm_core_server: Any) -> Iterator[tuple[Any, Any]]:
    """Cursors of ours and of a plain psycopg 2, to the same server."""
    params = connect_params(orm_core_server.url("postgres"))
    name = params.pop("dbname")
    ours = Database(name, driver="psycopg2", **params)
    try:
        with closing(psycopg2.connect(dbname=name, **params)) as plain_one:
            yield ours.connection().cursor(), plain_one.cursor()
    finally:
        ours.close_all()


ZONES = ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Europe/Dublin"]


@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    st.sampled_from(ZONES),
)
def test_a_moment_is_the_one_that_psycopg_2_reads(beside, moment, zone):
    answers = []
    for cursor in beside:
        cursor.execute(
            f"SET timezone = '{zone}'; SELECT %s::timestamptz, NULL::timestamptz", (moment,)
        )
        read, nothing = cursor.fetchone()
        assert nothing is None
        answers.append((read, read.utcoffset(), type(read.tzinfo)))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("text", ["infinity", "-infinity", "0044-03-15 BC", "20000-01-01"])
def test_a_moment_beyond_the_calendar_is_what_psycopg_2_makes_of_it(beside, text):
    made = []
    for cursor in beside:
        cursor.execute("SELECT %s::timestamptz", (text,))
        try:
            made.append(repr(cursor.fetchone()[0]))
        except Exception as error:
            made.append(f"{type(error).__name__}: {error}")
    assert made[0] == made[1]


def test_an_enum_and_its_array_are_texts(both):
    sql = "SELECT 'on'::p3_mood, '{on}'::p3_mood[], 'on'::p3_mood = %s"
    for database in both:
        with database.atomic() as block:
            database.execute_sql("CREATE TYPE p3_mood AS ENUM ('on')")
            assert database.execute_sql(sql, ("on",)).fetchone() == ("on", "{on}", True)
            block.rollback()


# Values


VALUES = [
    *[0, 1, -1, 2**31, -(2**63), 10**30, True, False, None],
    *[1.5, -1.5, 1e300, float("inf"), float("nan")],
    *[Decimal("1.50"), Decimal("-3"), Decimal("1E+5"), Decimal("NaN")],
    *["", "a", "a'b\\c%s", "é", Word.YES, Number.ONE],
    *[b"", b"a\0\xff'\\", bytearray(b"x"), memoryview(b"y"), psycopg2.Binary(b"z\\")],
    *[date(2020, 1, 2), datetime(2020, 1, 2, 3, 4, 5, 6), datetime(1, 1, 1, tzinfo=UTC)],
    datetime(2020, 1, 2, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    *[time(1, 2, 3), time(1, 2, tzinfo=UTC), timedelta(days=-1, seconds=3, microseconds=5)],
    *[uuid.UUID(int=5), Json({"a": [1, "'\\é"]})],
    *[[], [None], [1, None], ["a'", 'b"\\{}'], [[1, 2], [3, 4]], [uuid.UUID(int=3)]],
    *[[Decimal("1.5")], [True], [datetime(2020, 1, 2, tzinfo=UTC)], [1.5]],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_sent_as_the_same_literal_of_the_same_type(both, value):
    two, three = (answer(one, "SELECT %s, pg_typeof(%s)::text", value, value) for one in both)
    assert two == three
    assert not isinstance(two[0], type), two


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(allow_infinity=False, allow_nan=False),
    st.text(),
    st.binary(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.times(),
    st.uuids(),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(scalars, min_size=1, max_size=4))
def test_any_values_give_the_same_row_or_the_same_refusal(both, values):
    sql = f"SELECT {', '.join(['%s, pg_typeof(%s)::text'] * len(values))}"
    twice = [value for value in values for _ in range(2)]
    two, three = (answer(database, sql, *twice) for database in both)
    assert two == three


def test_a_tuple_stands_for_the_values_of_in(both):
    for database in both:
        sql = "SELECT 2 IN %s, 'c' IN %s"
        assert database.execute_sql(sql, ((1, 2), ("a", "b"))).fetchone() == (True, False)


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT %s", ("a\0",)),
        ("SELECT %s", ("a\ud800",)),
        ("SELECT %s", ({"a": 1},)),
        ("SELECT %s", ({1},)),
        ("SELECT %s", (object(),)),
        ("SELECT %s", (Plain.A,)),
        ("SELECT %s, %s", (1,)),
        ("SELECT %s", (1, 2)),
        ("SELECT 5 % 2", (1,)),
        ("SELECT 'a%b'", ()),
        ("SELECT 1 %", ()),
        ("SELECT %d", (1,)),
    ],
)
def test_what_cannot_be_sent_is_refused_with_the_same_words(both, sql, params):
    two, three = (answer(database, sql, *params) for database in both)
    assert two == three
    assert two[0] is InvalidValue


# Statements


def test_errors_are_the_same_and_name_the_same(database):
    new_user(email="ada@example.com")
    with pytest.raises(DuplicateKey) as caught:
        new_user(email="ada@example.com")
    error = caught.value
    assert (error.sqlstate, error.table, error.columns) == ("23505", "users", ("email",))
    with pytest.raises(InvalidStatement) as unknown:
        db.execute_sql("SELECT FROM no_such_table")
    assert unknown.value.sqlstate == "42P01"


def test_several_statements_leave_the_result_of_the_last(database):
    with db.connection_context(), db.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT %s", (2,))
        assert cursor.fetchall() == [(2,)]


def test_a_failed_first_statement_leaves_its_transaction_failed(database):
    with db.connection_context():
        db.begin()
        with pytest.raises(peewee.DatabaseError):
            db.execute_sql("SELECT 1/0")
        assert db.transaction_failed()
        db.rollback()
        assert not db.transaction_failed()


def test_copy_reads_a_stream_of_text(database):
    with db.connection_context(), db.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE copied (id int, word text)")
        cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("1\tä\n2\t\\N\n"))
        assert cursor.rowcount == 2
        cursor.execute("SELECT id, word FROM copied ORDER BY id")
        assert cursor.fetchall() == [(1, "ä"), (2, None)]


def test_a_copy_that_fails_leaves_nothing(database):
    with db.connection_context(), db.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE copied (id int)")
        with pytest.raises(db.driver.Error) as caught:
            cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("1\nx\n"))
        assert db.driver.sqlstate(caught.value) == "22P02"
        cursor.execute("SELECT count(*) FROM copied")
        assert cursor.fetchone() == (0,)


def test_a_named_cursor_reads_from_the_server(database):
    with db.atomic():
        cursor = db.cursor(named_cursor=True)
        cursor.execute("SELECT n, %s FROM generate_series(1, 5000) AS n", ("a",))
        assert cursor.fetchmany(2) == [(1, "a"), (2, "a")]
        assert len(cursor.fetchall()) == 4998
        cursor.close()


def test_the_servers_messages_are_kept_and_bounded(database):
    with db.connection_context():
        notices = db.connection().notices
        db.execute_sql("DO $$ BEGIN FOR i IN 1..60 LOOP RAISE NOTICE 'n%%', i; END LOOP; END $$")
        assert [notices[0], notices[-1], len(notices)] == ["NOTICE:  n11\n", "NOTICE:  n60\n", 50]


def test_another_thread_can_cancel_a_statement(database):
    with db.connection_context():
        connection = db.connection()
        stop = threading.Event()

        def cancel() -> None:
            while not stop.wait(0.05):
                connection.cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        try:
            with pytest.raises(StatementTimeout):
                db.execute_sql("SELECT pg_sleep(30)")
        finally:
            stop.set()
            canceller.join()


def test_a_connection_knows_its_process_and_state(database):
    with db.connection_context():
        connection = db.connection()
        pid = db.execute_sql("SELECT pg_backend_pid()").fetchone()
        assert (connection.get_backend_pid(),) == pid
        assert connection.get_transaction_status() == 0
        with closing(psycopg2.connect(dbname=db.database, **db.connect_params)) as other:
            other.cursor().execute("SELECT pg_terminate_backend(%s)", pid)
        with pytest.raises(ConnectionLost):
            db.execute_sql("SELECT 1")
        assert connection.closed


# Preparing


FIND = {"email": "ada@example.com"}


def prepared() -> int:
    sql = "SELECT count(*) FROM pg_prepared_statements"
    return int(db.execute_sql(sql).fetchone()[0])


def finder() -> Any:
    return compiled(
        User.select(User.email, User.first_name).where(User.email == parameter("email"))
    )


def change_a_column() -> None:
    """So that prepared statements answer another type than they did."""
    with closing(psycopg2.connect(dbname=db.database, **db.connect_params)) as other:
        other.cursor().execute("ALTER TABLE users ALTER first_name TYPE varchar(1234)")
        other.commit()


def test_a_compiled_statement_is_prepared_at_its_second_use(preparing):
    user, find = new_user(**FIND), finder()
    with db.connection_context():
        before = prepared()
        assert find.first(**FIND).email == user.email
        assert prepared() == before
        assert find.first(**FIND).first_name == user.first_name
        assert prepared() == before + 1
        assert find.first(email="nobody@example.com") is None
        assert prepared() == before + 1


def test_nothing_is_prepared_unless_asked(unasked, database):
    find = finder()
    with db.connection_context():
        for _ in range(7):
            find.first(**FIND)
        assert prepared() == 0


def test_a_statement_is_prepared_anew_when_its_table_changed(preparing):
    user, find = new_user(**FIND), finder()
    with db.connection_context():
        find.first(**FIND), find.first(**FIND)
        change_a_column()
        assert [find.first(**FIND).first_name for _ in range(3)] == [user.first_name] * 3
        change = "ALTER TABLE users ALTER first_name TYPE text"
        db.execute_sql(change)
        with transaction():
            assert find.first(**FIND).first_name == user.first_name


def test_a_change_inside_a_running_transaction_says_to_run_it_again(preparing):
    user, find = new_user(**FIND), finder()
    with db.connection_context():
        find.first(**FIND), find.first(**FIND)
        with transaction() as tx:
            db.execute_sql("SELECT 1")
            change_a_column()
            with pytest.raises(SerializationFailure):
                find.first(**FIND)
            tx.rollback()
        assert find.first(**FIND).first_name == user.first_name


def test_statements_that_somebody_dropped_are_prepared_anew(preparing):
    user, find = new_user(**FIND), finder()
    with db.connection_context():
        find.first(**FIND), find.first(**FIND)
        with db.cursor() as cursor:
            cursor.execute("DO $$ BEGIN DEALLOCATE ALL; END $$")
        assert prepared() == 0
        assert [find.first(**FIND).email for _ in range(3)] == [user.email] * 3
        assert prepared() > 0


def test_the_verbs_of_a_service_answer_the_same_when_prepared(preparing):

    for turn in range(4):
        user = new_user(email=f"u{turn}@example.com")
        with transaction():
            changed = UsersService.update(user.id, {"first_name": f"n{turn}"})
            assert changed is not None
        found = UsersService.get(user.id)
        assert (found.first_name, found.created_at) == (f"n{turn}", user.created_at)
        assert found.updated_at == changed.updated_at
        assert UsersService.soft_delete(user.id)
        with pytest.raises(NotFound):
            UsersService.get(user.id)


# Choosing


def test_an_unknown_driver_is_refused():
    with pytest.raises(ConfigurationError, match="psycopg2, psycopg3"):
        initialize_db("postgresql://u@localhost/x", driver="psycopg")
    with pytest.raises(ConfigurationError, match="psycopg2, psycopg3"):
        Database("x", driver="sqlite")


def test_a_missing_driver_names_the_command(monkeypatch):
    name = "orm_core.database.drivers.psycopg3"
    for module in (name, f"{name}_types"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'orm_core\[psycopg3\]'"):
        drivers.load("psycopg3")


def test_the_environment_chooses_the_driver(monkeypatch, driver):
    monkeypatch.setenv("ORM_CORE_DRIVER", driver)
    try:
        assert driver == initialize_db("postgresql://u@localhost/x").driver.NAME
    finally:
        close_db()


def test_importing_orm_core_imports_no_psycopg_3():
    # Peewee imports every driver that it finds, which is its own affair.
    program = (
        "import sys; sys.modules['psycopg'] = None; import peewee; del sys.modules['psycopg'];"
        "import orm_core, domains.users; assert 'psycopg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
