"""Every statement is told once, whoever sends it; and counted once, under labels that are bounded."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import peewee
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from domains.orders import Order, OrdersService
from domains.users import Session, SessionService, User, UsersService
from orm_core import (
    DuplicateKey,
    KeyRing,
    OrmCoreError,
    QueryEvent,
    RegistryError,
    Secret,
    close_db,
    db,
    metrics,
    registry,
    signals,
    transaction,
    use_key_ring,
    utcnow,
    uuid7,
)
from orm_core.database.statements import OPERATIONS

registry.discover()

_number = itertools.count(1)
Steps = list[tuple[str, str]]


@pytest.fixture(autouse=True)
def keys() -> Iterator[None]:
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    yield
    use_key_ring(None)


def user_data(**given: Any) -> dict[str, Any]:
    number = next(_number)
    return {
        "email": f"user{number}@example.com",
        "first_name": "A",
        "provider_account_id": f"p{number}",
        **given,
    }


def session_data(user: User) -> dict[str, Any]:
    return {
        "user_id": user.id,
        "provider": "google",
        "provider_account_id": "p",
        "provider_access_token": Secret("token"),
        "expires_at": utcnow() + timedelta(hours=1),
    }


@contextmanager
def told() -> Iterator[Steps]:
    """The operation and the table of each statement inside the block."""
    steps: Steps = []

    def note(event: QueryEvent) -> None:
        steps.append((event.operation, event.table))

    for table in signals.tables:
        signals.connect(note, table)
    try:
        yield steps
    finally:
        for table in signals.tables:
            signals.disconnect(note, table)


def samples(name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """What a scrape says of one metric, by its labels."""
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
        if sample.name == name
    }


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(given.items()))


@contextmanager
def growth(*names: str) -> Iterator[dict[str, Counter[tuple[tuple[str, str], ...]]]]:
    """How much metrics grew during the block, where they did."""
    before = {name: samples(name) for name in names}
    grown: dict[str, Counter[Any]] = {name: Counter() for name in names}
    yield grown
    for name in names:
        after = Counter(samples(name))
        after.subtract(before[name])
        grown[name].update({key: value for key, value in after.items() if value})


# Who sends what


def _user_with_orders() -> User:
    user = User.create(**user_data())
    Order.create(user=user, total=1)
    return user


def _cte() -> Any:
    recent = User.select(User.id).cte("recent")
    return Order.select().join(recent, on=(Order.user == recent.c.id)).with_cte(recent)


def _subquery() -> Any:
    return Order.select().where(Order.user.in_(User.select(User.id)))


def _derived() -> Any:
    inner = Order.select(Order.user).alias("inner")
    return User.select().join(inner, on=(User.id == inner.c.user_id))


S, I, U, D = "select", "insert", "update", "delete"  # noqa: E741
B, C, R = ("begin", "none"), ("commit", "none"), ("rollback", "none")
SP, RE = ("savepoint", "none"), ("release", "none")

SENDERS: dict[str, tuple[Callable[[User], Any], Steps]] = {
    "select": (lambda _: list(User.select()), [(S, "users")]),
    "get by id": (lambda user: User.get_by_id(user.id), [(S, "users")]),
    "count": (lambda _: Order.select().count(), [(S, "orders")]),
    "exists": (lambda _: Session.select().exists(), [(S, "sessions")]),
    "scalar": (lambda _: User.select(peewee.fn.MAX(User.email)).scalar(), [(S, "users")]),
    "distinct count": (
        lambda _: User.select(User.email).distinct().limit(3).count(),
        [(S, "users")],
    ),
    "back-reference": (lambda user: list(user.orders), [(S, "orders")]),
    "foreign key": (lambda _: Order.get().user.email, [(S, "orders"), (S, "users")]),
    "join": (lambda _: list(Order.select(Order, User).join(User)), [(S, "orders")]),
    "join from the other side": (lambda _: list(User.select().join(Order)), [(S, "users")]),
    "alias": (lambda _: list(User.alias("u").select()), [(S, "users")]),
    "common table expression": (lambda _: list(_cte()), [(S, "orders")]),
    "subquery in where": (lambda _: list(_subquery()), [(S, "orders")]),
    "subquery in from": (lambda _: list(_derived()), [(S, "users")]),
    "union": (
        lambda _: list(User.select(User.id) | User.select(User.id)),
        [(S, "users")],
    ),
    "for update": (lambda _: list(User.select().for_update()), [(S, "users")]),
    "prefetch": (
        lambda _: list(peewee.prefetch(User.select(), Order.select())),
        [(S, "orders"), (S, "users")],
    ),
    "Load": (
        lambda _: list(User.select().with_related(peewee.Load(User.orders))),
        [(S, "users"), (S, "orders")],
    ),
    "insert": (lambda _: User.create(**user_data()), [(I, "users")]),
    "insert many": (
        lambda _: User.insert_many([user_data(), user_data()]).execute(),
        [(I, "users")],
    ),
    "insert from select": (
        lambda _: Order.insert_from(
            User.select(User.id, 1), fields=[Order.user, Order.total]
        ).execute(),
        [(I, "orders")],
    ),
    "bulk create": (
        lambda _: User.bulk_create([User(**user_data()), User(**user_data())]),
        [SP, (I, "users"), RE],
    ),
    "update": (lambda _: User.update(first_name="B").execute(), [(U, "users")]),
    "update from": (
        lambda _: (
            Order.update(status=User.email).from_(User).where(Order.user == User.id).execute()
        ),
        [(U, "orders")],
    ),
    "hard delete": (lambda _: Order.hard_delete().execute(), [(D, "orders")]),
    "soft delete": (lambda _: Order.delete().execute(), [(U, "orders")]),
    "soft delete that cascades": (
        lambda _: User.delete().execute(),
        [SP, (U, "users"), (U, "sessions"), RE],
    ),
    "service create": (lambda _: UsersService.create(user_data()), [(I, "users")]),
    "service create many": (
        lambda user: OrdersService.create_many([{"user_id": user.id, "total": 1}] * 3),
        [(I, "orders")],
    ),
    "service create session": (
        lambda user: SessionService.create(session_data(user)),
        [(I, "sessions")],
    ),
    "service find": (lambda user: UsersService.find_by_email(user.email), [(S, "users")]),
    "service list": (lambda _: OrdersService.list(), [(S, "orders")]),
    "service count": (lambda _: OrdersService.count(), [(S, "orders")]),
    "service exists": (lambda _: OrdersService.exists(), [(S, "orders")]),
    "service page by number": (
        lambda _: OrdersService.page(number=1),
        [(S, "orders"), (S, "orders")],
    ),
    "service keyset page": (lambda _: OrdersService.page(), [(S, "orders")]),
    "service update": (
        lambda user: UsersService.update(user.id, {"avatar": "x"}),
        [(U, "users")],
    ),
    "service update many": (
        lambda user: UsersService.update_many([{"id": user.id, "avatar": "x"}]),
        [(U, "users")],
    ),
    "service upsert": (
        lambda user: UsersService.upsert(user_data(email=user.email), on=["email"]),
        [(I, "users")],
    ),
    "raw, by the model": (lambda _: list(User.raw("SELECT * FROM users")), [(S, "users")]),
    "raw, by the database": (
        lambda _: db.execute_sql('SELECT count(*) FROM "orders" o'),
        [(S, "orders")],
    ),
    "raw, on no table of ours": (
        lambda _: db.execute_sql("SELECT * FROM pg_class LIMIT 1"),
        [(S, "other")],
    ),
    "table that is not a model": (
        lambda _: list(peewee.Table("users").bind(db).select()),
        [(S, "users")],
    ),
    "empty savepoint": (lambda _: transaction().__enter__().__exit__(None, None, None), []),
}


@pytest.mark.parametrize(("send", "expected"), SENDERS.values(), ids=SENDERS)
def test_each_statement_is_told_with_its_operation_and_table(rollback_db, send, expected):
    user = _user_with_orders()
    with told() as steps:
        send(user)
    assert steps == expected


def test_transactions_are_told_too(clone_db):
    with told() as steps:
        with suppress(ZeroDivisionError), transaction() as tx:
            User.create(**user_data())
            with transaction():
                Order.select().count()
            with suppress(KeyError), transaction():
                raise KeyError
            tx.commit()
            1 / 0  # noqa: B018
        with transaction("serializable", read_only=True):
            Order.select().count()
        with transaction():
            pass
    inner = [SP, (S, "orders"), RE]
    assert steps == [B, (I, "users"), *inner, C, B, (S, "orders"), C]


def test_a_statement_that_fails_is_told_with_its_error(rollback_db):
    events: list[QueryEvent] = []
    signals.connect(events.append, "users")
    try:
        User.create(**user_data(email="a"))
        with pytest.raises(DuplicateKey) as caught, transaction():
            User.create(**user_data(email="a"))
    finally:
        signals.disconnect(events.append, "users")
    good, bad = events
    assert (good.error, bad.error) == (None, caught.value)
    assert good.seconds > 0
    assert (bad.operation, bad.table) == ("insert", "users")


def test_what_was_never_sent_is_not_told(rollback_db):
    with told() as steps, pytest.raises(OrmCoreError):
        db.execute_sql("SELECT %s", ("a\0b",))
    assert steps == []


def test_the_time_of_an_event_is_that_of_the_statement(rollback_db):
    events: list[QueryEvent] = []
    signals.connect(events.append, "other")
    try:
        db.execute_sql("SELECT pg_sleep(0.05)")
    finally:
        signals.disconnect(events.append, "other")
    assert 0.05 <= events[0].seconds < 5


def test_the_time_of_an_event_leaves_out_the_wait_for_a_connection(clone_db):
    clone_db.init(clone_db.database, pool_size=1, **clone_db.connect_params)
    events: list[QueryEvent] = []
    holds, waits = threading.Event(), threading.Event()

    def hold() -> None:
        with db.connection_context():
            db.execute_sql("SELECT 1")
            holds.set()
            while not db.pool_stats().waiting:
                waits.wait(0.01)
            waits.wait(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(10)
    signals.connect(events.append, "users")
    try:
        User.select().count()
    finally:
        signals.disconnect(events.append, "users")
        thread.join(10)
    assert events[0].seconds < 0.2


def test_peewees_query_hooks_hear_of_each_statement_too(rollback_db):
    heard: list[peewee.QueryEvent] = []
    db.query_hooks.append(heard.append)
    try:
        User.select().count()
        with pytest.raises(OrmCoreError) as caught, transaction():
            db.execute_sql("SELECT 1 / 0")
    finally:
        db.query_hooks.clear()
    assert [event.sql.split(" ")[0] for event in heard] == [
        *("SELECT", "SAVEPOINT", "SELECT", "ROLLBACK", "RELEASE")
    ]
    assert [event.exception for event in heard] == [None, None, caught.value, None, None]


# Receivers


def test_a_receiver_hears_of_its_table_only(rollback_db):
    events: list[QueryEvent] = []
    signals.connect(events.append, "orders")
    try:
        _user_with_orders()
        list(User.select())
    finally:
        signals.disconnect(events.append, "orders")
    Order.select().count()
    assert [(event.operation, event.table) for event in events] == [("insert", "orders")]


def test_a_receiver_connected_twice_hears_once(rollback_db):
    events: list[QueryEvent] = []
    signals.connect(events.append, "users")
    signals.connect(events.append, "users")
    try:
        User.select().count()
    finally:
        signals.disconnect(events.append, "users")
    User.select().count()
    assert len(events) == 1


def test_a_receiver_that_raises_breaks_neither_the_query_nor_other_receivers(rollback_db, caplog):
    events: list[QueryEvent] = []

    def broken(event: QueryEvent) -> None:
        raise RuntimeError

    signals.connect(broken, "users")
    signals.connect(events.append, "users")
    try:
        User.create(**user_data())
        with pytest.raises(OrmCoreError), transaction():
            db.execute_sql("SELECT 1 / 0 FROM users")
    finally:
        signals.disconnect(broken, "users")
        signals.disconnect(events.append, "users")
    assert len(events) == 2
    assert [one.exc_info[0] for one in caplog.records if one.name == "orm_core.events"] == [
        RuntimeError,
        RuntimeError,
    ]


def test_a_receiver_may_send_statements_of_its_own(rollback_db):
    found: list[int] = []

    def look(event: QueryEvent) -> None:
        found.append(Order.select().count())

    signals.connect(look, "users")
    try:
        User.select().count()
    finally:
        signals.disconnect(look, "users")
    assert found == [0]


@pytest.mark.parametrize("verb", ["connect", "disconnect"])
def test_a_table_that_no_domain_has_is_refused(verb):
    with pytest.raises(RegistryError, match=r"'user'.*orders,.*other,.*sessions,.*users"):
        getattr(signals, verb)(print, "user")


def test_disconnecting_a_stranger_does_no_harm():
    signals.disconnect(print, "users")


# Metrics


def test_a_query_is_counted_and_timed_once(rollback_db):
    count, timed = "db_queries_total", "db_query_duration_seconds_count"
    with growth(count, timed, "db_query_duration_seconds_sum", "db_query_errors_total") as grown:
        UsersService.find_by_email("a")
    key = labels(operation="select", table="users")
    assert grown[count] == {key: 1}
    assert grown[timed] == {key: 1}
    assert 0 < grown["db_query_duration_seconds_sum"][key] < 5
    assert grown["db_query_errors_total"] == {}


def test_a_failure_is_counted_by_its_kind(rollback_db):
    with growth("db_queries_total", "db_query_errors_total") as grown:
        User.create(**user_data(email="a"))
        with suppress(DuplicateKey), transaction():
            User.create(**user_data(email="a"))
        with suppress(OrmCoreError), transaction():
            db.execute_sql("SELECT 1 / 0 FROM orders")
    assert grown["db_queries_total"][labels(operation="insert", table="users")] == 2
    assert grown["db_query_errors_total"] == {
        labels(operation="insert", table="users", kind="duplicate_key"): 1,
        labels(operation="select", table="orders", kind="data"): 1,
    }


def test_registering_again_counts_no_query_twice(rollback_db):
    registry.discover()
    metrics.observe(["users"])
    with growth("db_queries_total") as grown:
        User.select().count()
    assert grown["db_queries_total"] == {labels(operation="select", table="users"): 1}


def _work(number: int, user: User) -> Steps:
    """One piece of work of a service, and what it sends; the tenth kind fails."""
    kind = number % 10
    if kind == 0:
        UsersService.create(user_data())
        return [(I, "users")]
    if kind == 1:
        UsersService.find_by_email(user.email)
        return [(S, "users")]
    if kind == 2:
        OrdersService.create({"user_id": user.id, "total": number})
        return [(I, "orders")]
    if kind == 3:
        with transaction():
            OrdersService.count({"user_id": user.id})
        return [B, (S, "orders"), C]
    if kind == 4:
        db.execute_sql("SELECT 1")
        return [(S, "other")]
    if kind == 5:
        Session.select().exists()
        return [(S, "sessions")]
    if kind == 6:
        Order.update(status="paid").where(Order.user == user.id).execute()
        return [(U, "orders")]
    if kind == 7:
        with suppress(ZeroDivisionError), transaction(), transaction():
            User.get_by_id(user.id)
            1 / 0  # noqa: B018
        return [B, SP, (S, "users"), R, RE, R]
    if kind == 8:
        Order.hard_delete().where(Order.id == uuid7()).execute()
        return [(D, "orders")]
    list(User.raw("SELECT id FROM users LIMIT 1"))
    return [(S, "users")]


def _fail(number: int) -> tuple[str, str, str]:
    """A statement that fails: its operation, its table and the kind of its error."""
    if number % 4 == 0:
        with suppress(DuplicateKey):
            User.create(**user_data(email="taken"))
        return (I, "users", "duplicate_key")
    if number % 4 == 1:
        with suppress(OrmCoreError):
            OrdersService.create({"user_id": uuid7(), "total": 1})
        return (I, "orders", "foreign_key")
    if number % 4 == 2:
        with suppress(OrmCoreError):
            db.execute_sql("SELECT * FROM nowhere")
        return (S, "other", "statement")
    with suppress(OrmCoreError):
        db.execute_sql("SELECT 1 / 0 FROM users")
    return (S, "users", "data")


def test_ten_thousand_queries_of_sixteen_threads_are_counted_exactly(clone_db):
    User.create(**user_data(email="taken"))
    sent: list[Counter[tuple[str, str]]] = []
    failed: list[Counter[tuple[str, str, str]]] = []
    threads, each, failing = 16, 625, (13, 12)  # 8 * 13 + 8 * 12 = 200 failures

    def run(number: int) -> None:
        mine: Counter[tuple[str, str]] = Counter()
        errors: Counter[tuple[str, str, str]] = Counter()
        choose = random.Random(number)
        user = User.create(**user_data())
        mine[I, "users"] += 1
        for turn in range(failing[number % 2]):
            operation, table, kind = _fail(turn)
            mine[operation, table] += 1
            errors[operation, table, kind] += 1
        while (left := each - mine.total()) > 0:
            mine.update(_work(choose.randrange(10) if left > 6 else 4, user))
        sent.append(mine)
        failed.append(errors)

    names = ("db_queries_total", "db_query_duration_seconds_count", "db_query_errors_total")
    with growth(*names) as grown:
        workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
    total = sum(sent, Counter())
    expected = {
        labels(operation=operation, table=table): count
        for (operation, table), count in total.items()
    }
    assert (total.total(), len(sent)) == (10_000, threads)
    assert grown["db_queries_total"] == expected
    assert grown["db_query_duration_seconds_count"] == expected
    errors = sum(failed, Counter())
    assert errors.total() == 200
    assert grown["db_query_errors_total"] == {
        labels(operation=operation, table=table, kind=kind): count
        for (operation, table, kind), count in errors.items()
    }


# Cardinality

KINDS = {
    *{"other", "constraint", "duplicate_key", "foreign_key", "not_null", "check", "statement"},
    *{"data", "serialization", "deadlock", "lock", "timeout", "connection", "privilege"},
}


def assert_labels_are_bounded() -> None:
    families = [one for one in REGISTRY.collect() if one.name.startswith("db_quer")]
    assert len(families) == 3
    for sample in (sample for family in families for sample in family.samples):
        assert sample.labels["operation"] in OPERATIONS
        assert sample.labels["table"] in signals.tables
        assert sample.labels.get("kind", "other") in KINDS


HOSTILE = [
    'SELECT * FROM "evil_{n}"',
    'SELECT * FROM "evil ""{n}"" quoted"',
    "SELECT * FROM evil_{n}.users",
    "INSERT INTO evil_{n} DEFAULT VALUES",
    "/* evil_{n} */ SELECT 1",
    "-- evil_{n}\nSELECT 1",
    "/* /* evil_{n} */ evil */ SELECT 1",
    "SELECT $evil_{n}$ FROM evil_{n} $evil_{n}$",
    "SELECT 'FROM evil_{n}'",
    "SELECT E'\\' FROM evil_{n}'",
    "evil_{n} FROM evil_{n}",
    "SELECT 1; DROP TABLE evil_{n}",
    "WITH evil_{n} AS (SELECT 1) SELECT * FROM evil_{n}",
    "SET evil.evil_{n} = 'evil_{n}'",
    "SAVEPOINT evil_{n}",
    "CALL evil_{n}()",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_hostile_statements_make_no_labels(rollback_db, sql):
    def send(number: int) -> None:
        with suppress(OrmCoreError), transaction():
            db.execute_sql(sql.replace("{n}", str(number)))

    send(0)  # may be the first of its operation, or of its kind of error
    series = metrics.text().count("\ndb_quer")
    for number in range(1, 20):
        send(number)
    assert metrics.text().count("\ndb_quer") == series
    assert "evil" not in metrics.text()
    assert_labels_are_bounded()


words = st.sampled_from(
    ["select", "*", "from", "users", "evil", '"', "'", "(", ")", ",", ";", "--", "/*", "*/", "$$"]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=40) | st.lists(words).map(" ".join) | st.lists(words).map("".join))
def test_whatever_is_sent_the_labels_are_from_the_fixed_sets(rollback_db, sql):
    with suppress(OrmCoreError, peewee.PeeweeException):
        db.execute_sql(sql.replace("%", "%%"))
    db.execute_sql("ROLLBACK; BEGIN")
    assert_labels_are_bounded()


def test_hostile_values_make_no_labels(rollback_db):
    User.select().count()
    before = metrics.text().count("\ndb_quer")
    for value in ("'; DROP TABLE users; -- evil", "evil", "FROM evil"):
        list(User.select().where(User.email == value))
    assert metrics.text().count("\ndb_quer") == before
    assert "evil" not in metrics.text()


# The pool's gauges

GAUGES = (
    "db_connection_pool_size",
    "db_connection_pool_limit",
    "db_connections_in_use",
    "db_connections_idle",
    "db_connections_waiting",
)


def gauges() -> tuple[float | None, ...]:
    return tuple(REGISTRY.get_sample_value(name) for name in GAUGES)


def test_the_pools_gauges_tell_its_state_at_the_scrape(clone_db):
    clone_db.init(clone_db.database, pool_size=4, **clone_db.connect_params)
    assert gauges() == (0, 4, 0, 0, 0)
    with db.connection_context():
        User.select().count()
        assert gauges() == (1, 4, 1, 0, 0)
    assert gauges() == (1, 4, 0, 1, 0)
    close_db()
    assert gauges() == (0, 4, 0, 0, 0)


def test_the_gauges_count_those_who_wait(clone_db):
    clone_db.init(clone_db.database, pool_size=1, **clone_db.connect_params)
    db.connect()
    thread = threading.Thread(target=User.select().count)
    thread.start()
    deadline = threading.Event()
    for _ in range(1000):
        if gauges() == (1, 1, 1, 0, 1):
            break
        deadline.wait(0.01)
    waiting = gauges()
    db.close()
    thread.join(10)
    assert waiting == (1, 1, 1, 0, 1)
    assert gauges() == (1, 1, 0, 1, 0)


def test_the_gauges_of_a_database_that_is_not_initialized_are_zero(clone_db):
    before = clone_db.database, clone_db.connect_params
    clone_db.init(None)
    assert gauges() == (0, 0, 0, 0, 0)
    clone_db.init(before[0], **before[1])


def test_the_text_is_prometheus_own_format(rollback_db):
    User.select().count()
    families = {one.name: one.type for one in text_string_to_metric_families(metrics.text())}
    assert families["db_queries"] == "counter"
    assert families["db_query_duration_seconds"] == "histogram"
    assert families["db_query_errors"] == "counter"
    assert {families[name] for name in GAUGES} == {"gauge"}


def test_another_collector_registry_can_be_printed():
    assert metrics.text(CollectorRegistry()) == ""
