"""The orders domain: its columns and defaults as in the guide."""

import pytest
from service_helpers import new_user

from domains.orders import Order, OrdersService
from domains.users import UsersService
from orm_core import NotNullViolation, db


def test_the_columns_of_orders_are_the_guides(rollback_db):
    columns = db.execute_sql(
        "SELECT column_name, data_type, is_nullable, column_default "
        "FROM information_schema.columns WHERE table_name = 'orders' ORDER BY ordinal_position"
    )
    assert columns.fetchall() == [
        ("id", "uuid", "NO", "gen_random_uuid()"),
        ("user_id", "uuid", "NO", None),
        ("status", "text", "NO", "'pending'::text"),
        ("total", "integer", "NO", None),
        ("created_at", "timestamp with time zone", "NO", "now()"),
        ("updated_at", "timestamp with time zone", "NO", "now()"),
        ("deleted_at", "timestamp with time zone", "YES", None),
    ]


def test_an_order_is_pending_unless_told_otherwise(rollback_db):
    user = new_user()
    assert OrdersService.create({"user": user, "total": 1}).status == "pending"
    assert OrdersService.create({"user": user, "total": 1, "status": "paid"}).status == "paid"


def test_an_order_reaches_its_user_and_a_user_her_orders(rollback_db):
    user = new_user()
    order = OrdersService.create({"user": user, "total": 1})
    assert OrdersService.get(order.id).user == user
    assert list(UsersService.get(user.id).orders) == [order]


def test_an_order_stays_when_its_user_is_deleted(rollback_db):
    user = new_user()
    order = OrdersService.create({"user": user, "total": 1})
    UsersService.soft_delete(user.id)
    assert OrdersService.get(order.id).user == user


def test_a_users_orders_are_live_ones(rollback_db):
    user = new_user()
    kept, gone = OrdersService.create_many([{"user": user, "total": n} for n in range(2)])
    OrdersService.soft_delete(gone.id)
    assert list(user.orders) == [kept]


@pytest.mark.parametrize("total", [0, -1, 2**31 - 1, -(2**31)])
def test_a_total_is_any_int_of_32_bits(rollback_db, total):
    order = OrdersService.create({"user": new_user(), "total": total})
    assert OrdersService.get(order.id).total == total


def test_the_server_too_refuses_an_order_without_a_total(rollback_db):
    user = new_user()
    with pytest.raises(NotNullViolation, match=r"orders\.total"), db.atomic():
        db.execute_sql("INSERT INTO orders (user_id) VALUES (%s)", (user.id,))
    assert Order.select().count() == 0
