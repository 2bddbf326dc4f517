"""Rows as JSON and Pydantic models, from one description of the columns."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from uuid import UUID

import pydantic
import pytest

from domains.orders import Order
from domains.users import Session, SessionProvider, SessionStatus, User, UserRow
from orm_core import (
    BaseModel,
    BigIntegerField,
    CharField,
    ConfigurationError,
    InvalidValue,
    Secret,
    to_dict,
    to_pydantic,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = UUID("01938d3f-0000-7000-8000-000000000001")


@pytest.fixture
def user() -> User:
    return User(id=KEY, email="ada@example.com", first_name="Ada", last_name=None, avatar=None,
                provider_account_id="g", created_at=NOW, updated_at=NOW, deleted_at=None)  # fmt: skip


@pytest.fixture
def session() -> Session:
    session = Session(id=KEY, user_id=KEY, provider=SessionProvider.GOOGLE, expires_at=NOW)
    for field in Session._meta.sorted_fields:
        session.__data__.setdefault(field.name, None)
    session.provider_access_token = Secret("plain-token")
    session.metadata = {"a": [1]}
    return session


def test_a_row_becomes_json(user):
    assert json.loads(json.dumps(to_dict(user))) == {
        "id": str(KEY),
        "email": "ada@example.com",
        "first_name": "Ada",
        "last_name": None,
        "avatar": None,
        "provider_account_id": "g",
        "created_at": "2026-01-02T03:04:05+00:00",
        "updated_at": "2026-01-02T03:04:05+00:00",
        "deleted_at": None,
    }


def test_a_row_becomes_the_typed_dict_with_values_of_python(user):
    row = to_dict(user, UserRow)
    assert set(row) == UserRow.__required_keys__
    assert row["id"] == KEY
    assert row["created_at"] is NOW


def test_secrets_are_left_out(session):
    shown = to_dict(session)
    assert "plain-token" not in json.dumps(shown)
    assert not [name for name in shown if "access_token" in name and not name.endswith("_at")]
    assert shown["user_id"] == str(KEY)
    assert shown["status"] == "active"
    for kind in ("row", "new", "update"):
        assert "provider_access_token" not in to_pydantic(Session, kind).model_fields


def test_a_row_loaded_in_part_is_refused():
    with pytest.raises(InvalidValue, match=r"User\.email was not loaded"):
        to_dict(User(id=KEY))


def test_what_is_no_row_is_refused():
    with pytest.raises(InvalidValue, match="takes a row"):
        to_dict({"id": KEY})  # type: ignore[arg-type]


def test_a_pydantic_model_reads_rows(user):
    body = to_pydantic(User).model_validate(user)
    assert body.model_dump()["email"] == "ada@example.com"
    assert json.loads(body.model_dump_json())["id"] == str(KEY)


def test_a_request_is_checked_and_converted():
    body = to_pydantic(Order, "new").model_validate({"user_id": str(KEY), "total": 3})
    assert body.model_dump(exclude_unset=True) == {"user_id": KEY, "total": 3}


@pytest.mark.parametrize(
    "body",
    [
        {"user_id": str(KEY)},
        {"user_id": str(KEY), "total": "many"},
        {"user_id": "x", "total": 3},
        {"user_id": str(KEY), "total": 3, "nope": 1},
        {"user_id": str(KEY), "total": 3, "id": str(KEY)},
        {"user_id": str(KEY), "total": 3, "deleted_at": None},
    ],
)
def test_a_wrong_request_is_refused(body):
    with pytest.raises(pydantic.ValidationError):
        to_pydantic(Order, "new").model_validate(body)


def test_an_update_may_leave_everything_out_but_not_be_null():
    made = to_pydantic(Session, "update")
    assert made.model_validate({}).model_dump(exclude_unset=True) == {}
    changed = made.model_validate({"status": "revoked"}).model_dump(exclude_unset=True)
    assert changed == {"status": SessionStatus.REVOKED}
    with pytest.raises(pydantic.ValidationError):
        made.model_validate({"status": None})


class Limited(BaseModel):
    name = CharField(3, null=True)
    views = BigIntegerField(server_default="0")

    class Meta:
        table_name = "limited"


def test_the_length_of_a_column_is_checked_and_the_servers_defaults_may_be_left_out():
    made = to_pydantic(Limited, "new", name="Body")
    assert made.__name__ == "Body"
    assert made.model_validate({}).model_dump(exclude_unset=True) == {}
    with pytest.raises(pydantic.ValidationError):
        made.model_validate({"name": "four"})


def test_an_unknown_kind_is_refused():
    with pytest.raises(InvalidValue, match="row, new, update"):
        to_pydantic(User, "all")  # type: ignore[arg-type]


def test_without_pydantic_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ConfigurationError, match=r"orm_core\[pydantic\]"):
        to_pydantic(User)
