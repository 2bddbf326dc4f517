"""Plain Peewee with ``playhouse.pool``: models, live rows asked for in each query."""

from __future__ import annotations

import uuid
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import peewee
from peewee import (
    CharField,
    DateTimeField,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
    UUIDField,
)
from playhouse.pool import PooledPostgresqlDatabase
from playhouse.postgres_ext import BinaryJSONField

from benchmarks.contenders import EXPIRES, TOKENS, Base
from benchmarks.dynamic import Dynamic
from benchmarks.sealing import seal
from benchmarks.workloads import MANY, PAGE, PARENTS, bulk_totals, key_of, new_user, user_number

database = PooledPostgresqlDatabase(None)


def now() -> datetime:
    return datetime.now(UTC)


class Row(Model):
    id = UUIDField(primary_key=True, default=uuid.uuid4)
    created_at = DateTimeField(default=now)
    updated_at = DateTimeField(default=now)
    deleted_at = DateTimeField(null=True)

    class Meta:
        database = database


class User(Row):
    email = TextField()
    first_name = TextField()
    last_name = TextField(null=True)
    avatar = TextField(null=True)
    provider_account_id = TextField()

    class Meta:
        table_name = "users"


class Session(Row):
    user = ForeignKeyField(User, backref="sessions")
    status = CharField(default="active")
    provider = CharField()
    provider_access_token = CharField()
    provider_access_token_iv = CharField()
    provider_access_token_tag = CharField()
    provider_access_token_expires_at = DateTimeField(null=True)
    provider_refresh_token = CharField(null=True)
    provider_refresh_token_iv = CharField(null=True)
    provider_refresh_token_tag = CharField(null=True)
    provider_refresh_token_expires_at = DateTimeField(null=True)
    provider_account_id = CharField()
    provider_scope = TextField(null=True)
    expires_at = DateTimeField()
    last_accessed_at = DateTimeField(null=True)
    metadata = BinaryJSONField(default=dict, index=False)

    class Meta:
        table_name = "sessions"


class Order(Row):
    user = ForeignKeyField(User, backref="orders")
    status = TextField(default="pending")
    total = IntegerField()

    class Meta:
        table_name = "orders"


class Contender(Dynamic, Base):
    returns = "model"
    User, Session = User, Session

    def __init__(self, url: str, pool_size: int = 10) -> None:
        from psycopg2.extensions import parse_dsn

        params = parse_dsn(url)
        # Without a timeout the pool raises when it is empty instead of waiting.
        database.init(params.pop("dbname"), max_connections=pool_size, timeout=30, **params)

    def versions(self) -> dict[str, str]:
        import psycopg2

        return {"peewee": peewee.__version__, "psycopg2": psycopg2.__version__.split()[0]}

    def connection(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = database.connection_context()
        return context

    def mark(self, index: int) -> Any:
        return database.execute_sql("SELECT pg_backend_pid()").fetchone()[0]

    def find(self, index: int) -> Any:
        email = f"user{user_number(index)}@example.com"
        return User.select().where(User.email == email, User.deleted_at.is_null()).get()

    def live(self, model: Any, *columns: Any) -> Any:
        return model.select(*columns).where(model.deleted_at.is_null())

    def _live(self, limit: int) -> Any:
        return self.live(User).order_by(User.id).limit(limit)

    def page(self, index: int) -> Any:
        return list(self._live(PAGE + 1))[:PAGE]

    def many(self, index: int) -> Any:
        return list(self._live(MANY))

    def relations(self, index: int) -> Any:
        sessions = Session.select().where(Session.deleted_at.is_null())
        return [
            (user, list(user.sessions)) for user in peewee.prefetch(self._live(PARENTS), sessions)
        ]

    def create(self, index: int) -> Any:
        return User.create(**new_user(index))

    def update(self, index: int) -> Any:
        query = User.update(first_name="Grace", last_name="Hopper", updated_at=now())
        key = key_of(user_number(index))
        return next(
            iter(query.where(User.id == key, User.deleted_at.is_null()).returning(User).execute())
        )

    def soft_delete(self, index: int) -> Any:
        query = Order.update(deleted_at=now(), updated_at=now())
        key = key_of(index + 1)
        return next(
            iter(
                query.where(Order.id == key, Order.deleted_at.is_null()).returning(Order).execute()
            )
        )

    def sign_up(self, index: int) -> Any:
        with database.atomic():
            user = self.create(index)
            key = uuid.uuid4()
            values: dict[str, Any] = {}
            for column, token in TOKENS.items():
                parts = seal(token, column, str(key))
                values |= zip((column, f"{column}_iv", f"{column}_tag"), parts, strict=True)
            session = Session.create(
                id=key,
                user=user,
                provider="google",
                provider_account_id=user.provider_account_id,
                expires_at=EXPIRES,
                **values,
            )
            return user, session

    def bulk(self, index: int) -> Any:
        user = key_of(1)
        rows = [{"user": user, "status": "paid", "total": total} for total in bulk_totals()]
        ids: list[Any] = []
        for start in range(0, len(rows), 1000):
            ids += Order.insert_many(rows[start : start + 1000]).returning(Order.id).tuples()
        return [row[0] for row in ids]
