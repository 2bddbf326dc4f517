"""Tortoise on asyncpg, in its event loop."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import tortoise
from tortoise import fields
from tortoise.connection import connections
from tortoise.models import Model
from tortoise.query_utils import Prefetch
from tortoise.transactions import in_transaction

from benchmarks.contenders import EXPIRES, TOKENS, Base
from benchmarks.sealing import seal
from benchmarks.workloads import MANY, PAGE, PARENTS, bulk_totals, key_of, new_user, user_number
from orm_core.database.url import parse


def now() -> datetime:
    return datetime.now(UTC)


class Row(Model):
    id = fields.UUIDField(primary_key=True)
    created_at = fields.DatetimeField(default=now)
    updated_at = fields.DatetimeField(default=now)
    deleted_at = fields.DatetimeField(null=True)

    class Meta:
        abstract = True


class User(Row):
    email = fields.TextField()
    first_name = fields.TextField()
    last_name = fields.TextField(null=True)
    avatar = fields.TextField(null=True)
    provider_account_id = fields.TextField()
    sessions: fields.ReverseRelation[Session]

    class Meta:
        table = "users"


class Session(Row):
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", "sessions")
    status = fields.TextField(default="active")
    provider = fields.TextField()
    provider_access_token = fields.TextField()
    provider_access_token_iv = fields.TextField()
    provider_access_token_tag = fields.TextField()
    provider_access_token_expires_at = fields.DatetimeField(null=True)
    provider_refresh_token = fields.TextField(null=True)
    provider_refresh_token_iv = fields.TextField(null=True)
    provider_refresh_token_tag = fields.TextField(null=True)
    provider_refresh_token_expires_at = fields.DatetimeField(null=True)
    provider_account_id = fields.TextField()
    provider_scope = fields.TextField(null=True)
    expires_at = fields.DatetimeField()
    last_accessed_at = fields.DatetimeField(null=True)
    metadata: Any = fields.JSONField(default=dict)

    class Meta:
        table = "sessions"


class Order(Row):
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", "orders")
    status = fields.TextField(default="pending")
    total = fields.IntField()

    class Meta:
        table = "orders"


class Contender(Base):
    returns = "model"
    asynchronous = True

    def __init__(self, url: str, pool_size: int = 10) -> None:
        target = parse(url)
        self._config = {
            "connections": {
                "default": {
                    "engine": "tortoise.backends.asyncpg",
                    "credentials": {
                        "host": target.host,
                        "port": target.port,
                        "user": target.user,
                        "password": target.password,
                        "database": target.database,
                        "minsize": 1,
                        "maxsize": pool_size,
                        "ssl": False,
                    },
                }
            },
            "apps": {"models": {"models": [__name__], "default_connection": "default"}},
            "use_tz": True,
        }
        self._ready = False

    def versions(self) -> dict[str, str]:
        import asyncpg

        return {"tortoise-orm": tortoise.__version__, "asyncpg": asyncpg.__version__}

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        # Its queries take a connection of the pool each; there is no way to hold one.
        if not self._ready:
            self._ready = True
            await tortoise.Tortoise.init(config=self._config, _enable_global_fallback=True)
        yield None

    async def mark(self, index: int) -> Any:
        _, rows = await connections.get("default").execute_query("SELECT pg_backend_pid()")
        return rows[0][0]

    async def find(self, index: int) -> Any:
        email = f"user{user_number(index)}@example.com"
        return await User.get(email=email, deleted_at__isnull=True)

    def _live(self, limit: int) -> Any:
        return User.filter(deleted_at__isnull=True).order_by("id").limit(limit)

    async def page(self, index: int) -> Any:
        return (await self._live(PAGE + 1))[:PAGE]

    async def many(self, index: int) -> Any:
        return await self._live(MANY)

    async def relations(self, index: int) -> Any:
        sessions = Prefetch("sessions", Session.filter(deleted_at__isnull=True))
        users = await self._live(PARENTS).prefetch_related(sessions)
        return [(user, list(user.sessions)) for user in users]

    async def create(self, index: int) -> Any:
        return await User.create(**new_user(index))

    async def update(self, index: int) -> Any:
        # It has no UPDATE .. RETURNING: the row is read, then written.
        user = await User.get(id=key_of(user_number(index)), deleted_at__isnull=True)
        user.first_name, user.last_name, user.updated_at = "Grace", "Hopper", now()
        await user.save(update_fields=["first_name", "last_name", "updated_at"])
        return user

    async def soft_delete(self, index: int) -> Any:
        order = await Order.get(id=key_of(index + 1), deleted_at__isnull=True)
        order.deleted_at = order.updated_at = now()
        await order.save(update_fields=["deleted_at", "updated_at"])
        return order

    async def sign_up(self, index: int) -> Any:
        async with in_transaction():
            user = await self.create(index)
            key = uuid.uuid4()
            values: dict[str, Any] = {}
            for column, token in TOKENS.items():
                parts = seal(token, column, str(key))
                values |= zip((column, f"{column}_iv", f"{column}_tag"), parts, strict=True)
            session = await Session.create(
                id=key,
                user=user,
                provider="google",
                provider_account_id=user.provider_account_id,
                expires_at=EXPIRES,
                **values,
            )
        return user, session

    async def bulk(self, index: int) -> Any:
        user = uuid.UUID(key_of(1))
        orders = [Order(user_id=user, status="paid", total=total) for total in bulk_totals()]
        await Order.bulk_create(orders, batch_size=1000)
        return [order.id for order in orders]
