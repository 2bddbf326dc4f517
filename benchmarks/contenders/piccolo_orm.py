"""Piccolo on asyncpg, in its event loop; rows as dicts would be its other form."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from piccolo.columns import (
    JSONB,
    UUID,
    ForeignKey,
    Integer,
    Text,
    Timestamptz,
    Varchar,
)
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

from benchmarks.contenders import EXPIRES, TOKENS, Base
from benchmarks.sealing import seal
from benchmarks.workloads import MANY, PAGE, PARENTS, bulk_totals, key_of, new_user, user_number
from orm_core.database.url import parse


def now() -> datetime:
    return datetime.now(UTC)


class User(Table, tablename="users"):
    id = UUID(primary_key=True, default=uuid.uuid4)
    email = Text()
    first_name = Text()
    last_name = Text(null=True, default=None)
    avatar = Text(null=True, default=None)
    provider_account_id = Text()
    created_at = Timestamptz(default=now)
    updated_at = Timestamptz(default=now)
    deleted_at = Timestamptz(null=True, default=None)


class Session(Table, tablename="sessions"):
    id = UUID(primary_key=True, default=uuid.uuid4)
    user_id = ForeignKey(User)
    status = Varchar(default="active")
    provider = Varchar()
    provider_access_token = Varchar(2048)
    provider_access_token_iv = Varchar(32)
    provider_access_token_tag = Varchar(32)
    provider_access_token_expires_at = Timestamptz(null=True, default=None)
    provider_refresh_token = Varchar(2048, null=True, default=None)
    provider_refresh_token_iv = Varchar(32, null=True, default=None)
    provider_refresh_token_tag = Varchar(32, null=True, default=None)
    provider_refresh_token_expires_at = Timestamptz(null=True, default=None)
    provider_account_id = Varchar(255)
    provider_scope = Text(null=True, default=None)
    expires_at = Timestamptz()
    last_accessed_at = Timestamptz(null=True, default=None)
    metadata = JSONB(default="{}")
    created_at = Timestamptz(default=now)
    updated_at = Timestamptz(default=now)
    deleted_at = Timestamptz(null=True, default=None)


class Order(Table, tablename="orders"):
    id = UUID(primary_key=True, default=uuid.uuid4)
    user_id = ForeignKey(User)
    status = Text(default="pending")
    total = Integer()
    created_at = Timestamptz(default=now)
    updated_at = Timestamptz(default=now)
    deleted_at = Timestamptz(null=True, default=None)


class Contender(Base):
    returns = "table object"
    asynchronous = True

    def __init__(self, url: str, pool_size: int = 10) -> None:
        target = parse(url)
        self._engine = PostgresEngine(
            {
                "host": target.host,
                "port": target.port,
                "user": target.user,
                "password": target.password,
                "database": target.database,
                "ssl": False,
            }
        )
        for table in (User, Session, Order):
            table._meta.db = self._engine
        self._pool_size = pool_size

    def versions(self) -> dict[str, str]:
        return {"piccolo": version("piccolo"), "asyncpg": version("asyncpg")}

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        # Its queries take a connection of the pool each; one is held by a transaction only.
        if self._engine.pool is None:
            await self._engine.start_connection_pool(min_size=1, max_size=self._pool_size)
        yield None

    async def mark(self, index: int) -> Any:
        rows = await User.raw("SELECT pg_backend_pid() AS pid")
        return rows[0]["pid"]

    async def find(self, index: int) -> Any:
        email = f"user{user_number(index)}@example.com"
        return await User.objects().get((User.email == email) & User.deleted_at.is_null())

    def _live(self, limit: int) -> Any:
        return User.objects().where(User.deleted_at.is_null()).order_by(User.id).limit(limit)

    async def page(self, index: int) -> Any:
        return (await self._live(PAGE + 1))[:PAGE]

    async def many(self, index: int) -> Any:
        return await self._live(MANY)

    async def relations(self, index: int) -> Any:
        # It has no loading of a foreign key's other side: by hand, as its docs say.
        users = await self._live(PARENTS)
        keys = [user.id for user in users]
        sessions = await (
            Session.objects()
            .where(Session.user_id.is_in(keys), Session.deleted_at.is_null())
            .output(load_json=True)
        )
        by_user: dict[Any, list[Session]] = {user.id: [] for user in users}
        for session in sessions:
            by_user[session.user_id].append(session)
        return [(user, by_user[user.id]) for user in users]

    async def create(self, index: int) -> Any:
        user = User(**new_user(index))
        await user.save()
        return user

    async def update(self, index: int) -> Any:
        changes = {User.first_name: "Grace", User.last_name: "Hopper", User.updated_at: now()}
        key = uuid.UUID(key_of(user_number(index)))
        rows = await (
            User.update(changes)
            .where(User.id == key, User.deleted_at.is_null())
            .returning(*User.all_columns())
        )
        return User(**rows[0], _exists_in_db=True)

    async def soft_delete(self, index: int) -> Any:
        changes = {Order.deleted_at: now(), Order.updated_at: now()}
        rows = await (
            Order.update(changes)
            .where(Order.id == uuid.UUID(key_of(index + 1)), Order.deleted_at.is_null())
            .returning(*Order.all_columns())
        )
        return Order(**rows[0], _exists_in_db=True)

    async def sign_up(self, index: int) -> Any:
        async with self._engine.transaction():
            user = await self.create(index)
            key = uuid.uuid4()
            values: dict[str, Any] = {}
            for column, token in TOKENS.items():
                parts = seal(token, column, str(key))
                values |= zip((column, f"{column}_iv", f"{column}_tag"), parts, strict=True)
            session = Session(
                id=key,
                user_id=user.id,
                provider="google",
                provider_account_id=user.provider_account_id,
                expires_at=EXPIRES,
                **values,
            )
            await session.save()
        return user, session

    async def bulk(self, index: int) -> Any:
        user = uuid.UUID(key_of(1))
        orders = [Order(user_id=user, status="paid", total=total) for total in bulk_totals()]
        ids: list[Any] = []
        async with self._engine.transaction():
            for start in range(0, len(orders), 1000):
                ids += await Order.insert(*orders[start : start + 1000])
        return [row["id"] for row in ids]
