"""values(): rows as tuples of columns."""

from __future__ import annotations

import pytest

from domains.orders import Order
from domains.users import Session, User
from orm_core import InvalidValue, fn


@pytest.fixture(autouse=True)
def ada(rollback_db) -> User:
    user = User.create(email="ada@example.com", first_name="Ada", provider_account_id="a")
    Order.create(user=user, total=3)
    Order.create(user=user, total=4)
    return user


def test_values_are_tuples_of_the_columns_in_their_order(ada):
    query = User.select().where(User.email == "ada@example.com")
    assert list(query.values(User.id, User.email)) == [(ada.id, "ada@example.com")]
    assert query.values(User.last_name).get() == (None,)


def test_values_of_joined_models_and_of_functions(ada):
    query = Order.select().join(User).order_by(Order.total)
    assert list(query.values(Order.user_id, User.first_name, Order.total)) == [
        (ada.id, "Ada", 3),
        (ada.id, "Ada", 4),
    ]
    counted = User.select().join(Order).group_by(User.id)
    assert counted.values(User.email, fn.COUNT(Order.id)).first() == ("ada@example.com", 2)


def test_values_see_live_rows_only(ada):
    ada.delete_instance()
    assert list(User.select().values(User.id)) == []
    assert list(User.with_deleted().values(User.id)) == [(ada.id,)]


@pytest.mark.parametrize("columns", [(), ("email",), (Session.provider_access_token,), (User,)])
def test_what_is_no_plain_column_is_refused_before_sql(columns):
    with pytest.raises(InvalidValue, match="values"):
        User.select().values(*columns)
