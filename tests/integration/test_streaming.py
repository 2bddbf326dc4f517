"""Streams: rows by batches from a cursor on the server."""

import os
import threading
import tracemalloc

import peewee
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_helpers import Log, new_user, no_statement, statements

from domains.orders import Order, OrdersService
from domains.users import User
from orm_core import (
    ConfigurationError,
    Database,
    InvalidValue,
    PoolTimeout,
    QueryError,
    StaleTransaction,
    UnknownField,
    db,
    initialize_db,
    stream,
    transaction,
)


def orders(count):
    user = new_user()
    OrdersService.create_many({"user": user, "total": n} for n in range(count))
    return user


def totals(rows):
    return [row.total for row in rows]


IN_ORDER = Order.select().order_by(Order.total)


def test_a_stream_has_all_rows_in_order(clone_db):
    orders(25)
    assert totals(stream(IN_ORDER, batch=10)) == list(range(25))
    with transaction():
        assert totals(stream(IN_ORDER, batch=10)) == list(range(25))


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20])
def test_batches_end_where_the_rows_do(rollback_db, count):
    orders(count)
    done = []
    assert totals(stream(IN_ORDER, 10, done.append)) == list(range(count))
    assert done == [n for n in (10, 20) if n <= count] + ([count] if count % 10 else [])


def test_rows_are_of_the_kind_that_the_query_says(rollback_db):
    user = orders(2)
    assert list(stream(IN_ORDER.select(Order.total).tuples())) == [(0,), (1,)]
    assert list(stream(IN_ORDER.select(Order.total).dicts())) == [{"total": 0}, {"total": 1}]
    assert totals(stream(IN_ORDER.records())) == [0, 1]
    joined = Order.select(Order, User).join(User).order_by(Order.total)
    assert [row.user.email for row in stream(joined, 1)] == [user.email] * 2
    counted = Order.select(peewee.fn.COUNT(Order.id).alias("n")).dicts()
    assert list(stream(counted)) == [{"n": 2}]


def test_a_union_is_streamed_like_any_other_query(rollback_db):
    ada, bob, gone = [new_user() for _ in range(3)]
    gone.delete_instance()
    some = User.select().where(User.id == ada.id)
    union = some.union_all(User.select().where(User.id.in_([bob.id, gone.id])))
    assert list(stream(union, batch=1)) == [ada, bob] == list(union)
    assert list(stream(union.tuples())) == list(union.tuples())


def test_a_stream_sees_live_rows_unless_told_otherwise(rollback_db):
    orders(3)
    Order.delete().where(Order.total == 1).execute()
    assert totals(stream(IN_ORDER)) == [0, 2]
    assert totals(stream(IN_ORDER.with_deleted())) == [0, 1, 2]
    assert totals(stream(IN_ORDER.only_deleted())) == [1]


def test_related_rows_come_with_each_batch(rollback_db):
    orders(2)
    orders(1)
    users = User.select().order_by(User.id).with_related(User.orders)
    with statements() as events:
        found = [len(user.orders) for user in stream(users, batch=1)]
    assert found == [2, 1]
    assert [event.table for event in events if event.operation == "select"] == (
        ["users", "orders"] * 2 + ["users"]
    )


def test_values_are_bound_and_never_text(rollback_db):
    user = new_user(first_name="50%s'; --")
    assert list(stream(User.select().where(User.first_name == "50%s'; --"))) == [user]


def test_each_batch_is_told_as_a_select_of_the_table(clone_db):
    orders(5)
    with statements() as events:
        list(stream(IN_ORDER, batch=2))
    assert [(event.operation, event.table) for event in events] == [("select", "orders")] * 3


def test_in_a_transaction_a_stream_sees_what_was_written_in_it(clone_db):
    with transaction():
        orders(2)
        assert totals(stream(IN_ORDER)) == [0, 1]


def test_outside_a_transaction_the_loop_commits_for_itself(clone_db):
    orders(6)
    for row in stream(IN_ORDER, batch=2):
        OrdersService.update(row.id, {"total": row.total + 100})
        if row.total == 3:
            break
    assert totals(OrdersService.list(order_by=Order.total)) == [4, 5, 100, 101, 102, 103]


def test_a_stream_sees_the_table_as_it_was_at_its_start(clone_db):
    user = orders(3)
    seen = []
    for row in stream(IN_ORDER, batch=1):
        seen.append(row.total)
        OrdersService.create({"user": user, "total": 100})
    assert seen == [0, 1, 2]


def leave_by_break(rows):
    for _ in rows:
        break


def leave_by_exception(rows):
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the loop is the subject
        for _ in rows:
            raise ZeroDivisionError


def leave_by_close(rows):
    next(rows)
    rows.close()


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_exception, leave_by_close, list])
def test_the_cursor_is_closed_and_the_connection_given_back(clone_db, leave):
    orders(5)
    leave(stream(IN_ORDER, batch=2))
    assert clone_db.pool_stats().in_use == 0
    with transaction():
        leave(stream(IN_ORDER, batch=2))
        cursors = "SELECT count(*) FROM pg_cursors WHERE name LIKE 'orm_core_stream%%'"
        assert db.execute_sql(cursors).fetchone() == (0,)
    idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'"
    assert db.execute_sql(idle).fetchone() == (0,)


def test_a_stream_that_is_never_read_takes_no_connection(clone_db):
    with no_statement():
        rows = stream(IN_ORDER)
        assert clone_db.pool_stats().in_use == 0
        rows.close()


def test_a_stream_is_not_read_on_after_its_transaction(clone_db):
    orders(5)
    with transaction():
        rows = stream(IN_ORDER, batch=2)
        next(rows)
    with pytest.raises(StaleTransaction, match="inside the block"):
        list(rows)
    assert clone_db.pool_stats().in_use == 0


def test_a_stream_is_not_read_on_after_a_rollback_inside_the_block(clone_db):
    orders(5)
    with transaction() as tx:
        rows = stream(IN_ORDER, batch=2)
        next(rows)
        tx.rollback()
        db.execute_sql("SELECT 1")
        with pytest.raises(StaleTransaction, match="inside the block"), transaction():
            list(rows)


def test_a_stream_goes_on_beside_inner_blocks(clone_db):
    orders(5)
    with transaction():
        for row in stream(IN_ORDER, batch=2):
            with transaction():
                OrdersService.update(row.id, {"total": row.total + 10})
    assert totals(OrdersService.list(order_by=Order.total)) == [10, 11, 12, 13, 14]


def test_streams_can_run_side_by_side(clone_db):
    orders(3)
    pairs = [(0, 0), (1, 1), (2, 2)]

    def both():
        rows = zip(stream(IN_ORDER, 1), stream(IN_ORDER, 2), strict=True)
        return [(one.total, other.total) for one, other in rows]

    assert both() == pairs
    with transaction():
        assert both() == pairs


def test_a_stream_in_a_transaction_belongs_to_its_thread(clone_db):
    orders(5)
    errors = []
    with transaction():
        rows = stream(IN_ORDER, batch=1)
        next(rows)

        def read():
            try:
                next(rows)
            except StaleTransaction as error:
                errors.append(str(error))

        thread = threading.Thread(target=read)
        thread.start()
        thread.join(10)
    assert "another thread" in errors[0]


def test_a_failure_of_the_server_goes_on_and_leaves_nothing(clone_db):
    orders(3)
    wrong = Order.select(1 / (Order.total - 1)).order_by(Order.total).tuples()
    with pytest.raises(QueryError, match="22012"):
        list(stream(wrong, batch=1))
    assert clone_db.pool_stats().in_use == 0
    with pytest.raises(QueryError, match="22012"), transaction():
        list(stream(wrong, batch=1))
    assert totals(stream(IN_ORDER)) == [0, 1, 2]


def test_a_stream_needs_a_connection_of_its_own(clone_db):
    orders(3)
    initialize_db(
        f"postgresql:///{clone_db.database}?host={clone_db.connect_params['host']}"
        f"&port={clone_db.connect_params['port']}&user={clone_db.connect_params['user']}",
        pool_size=1,
        pool_timeout=0.2,
    )
    rows = stream(IN_ORDER, batch=1)
    next(rows)
    with pytest.raises(PoolTimeout):
        OrdersService.count()
    rows.close()
    assert OrdersService.count() == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_touch_the_stream_of_its_parent(clone_db):
    orders(4)
    rows = stream(IN_ORDER, batch=1)
    next(rows)
    child = os.fork()
    if child == 0:
        try:
            next(rows)
        except StaleTransaction:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert totals(rows) == [1, 2, 3]


@pytest.mark.parametrize("query", [None, 3, "SELECT 1", User, User.id, User.update(avatar="x")])
def test_what_is_no_query_is_refused(rollback_db, query):
    with no_statement(), pytest.raises(InvalidValue, match="a query that selects"):
        stream(query)


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"batch": True}, {"batch": 1.5}, {"batch": 10**6}, {"progress": 3}]
)
def test_options_that_do_not_fit_are_refused_before_any_sql(rollback_db, options):
    for make in (lambda: stream(IN_ORDER, **options), lambda: OrdersService.iterate(**options)):
        with no_statement(), pytest.raises(InvalidValue, match=next(iter(options))):
            make()


def test_a_stream_of_no_database_says_so():
    unbound = Database(None)
    with unbound.bind_ctx([User]), pytest.raises(ConfigurationError, match="initialize_db"):
        list(stream(User.select()))


def test_iterate_takes_what_list_takes(rollback_db):
    orders(5)
    rows = OrdersService.iterate(Order.total >= 2, order_by=[Order.total.desc()], batch=2)
    assert totals(rows) == [4, 3, 2]
    first = OrdersService.list(limit=1)[0]
    OrdersService.soft_delete(first.id)
    assert next(OrdersService.iterate()) != first
    assert next(OrdersService.iterate(include_deleted=True)) == first


def test_iterate_tells_its_progress(rollback_db):
    orders(5)
    done = []
    assert len(list(OrdersService.iterate(batch=2, progress=done.append))) == 5
    assert done == [2, 4, 5]


def test_iterate_logs_its_failures_and_leaves_those_of_the_loop(clone_db):
    log = Log()
    with pytest.raises(UnknownField):
        OrdersService.iterate({"colour": 1}, log)
    rows = OrdersService.iterate(logger=log)
    db.execute_sql("ALTER TABLE orders RENAME TO old")
    with pytest.raises(QueryError):
        next(rows)
    told = [(message, meta["action"]) for message, meta in log.errors]
    assert told == [("Failed to iterate orders", "service:iterate")] * 2
    db.execute_sql("ALTER TABLE old RENAME TO orders")
    orders(1)
    leave_by_exception(OrdersService.iterate(logger=log))
    assert len(log.errors) == 2


def test_iterate_checks_its_tx(clone_db):
    with transaction() as tx:
        pass
    with no_statement(), pytest.raises(StaleTransaction):
        OrdersService.iterate(tx=tx)


def test_memory_does_not_grow_with_the_rows(clone_db):
    """Ten times the rows in no more memory, within what the allocator's noise is."""
    user = orders(0)
    peaks = []
    for count in (2_000, 20_000):
        OrdersService.create_many(
            ({"user": user, "total": n} for n in range(count)), returning="ids"
        )
        list(stream(IN_ORDER.limit(1)))
        tracemalloc.start()
        assert sum(1 for _ in stream(IN_ORDER.limit(count), batch=200)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(0, 30), batch=st.integers(1, 12), taken=st.integers(0, 30))
def test_a_stream_is_the_list_of_the_query(rollback_db, count, batch, taken):
    with db.atomic() as undo:
        orders(count)
        rows = stream(IN_ORDER, batch)
        found = [row for _, row in zip(range(taken), rows, strict=False)]
        rows.close()
        assert found == list(IN_ORDER.clone())[:taken]
        undo.rollback()
