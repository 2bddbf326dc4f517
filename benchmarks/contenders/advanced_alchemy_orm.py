"""advanced-alchemy's repositories and services over SQLAlchemy's models."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from advanced_alchemy.filters import LimitOffset
from advanced_alchemy.repository import SQLAlchemySyncRepository
from advanced_alchemy.service import SQLAlchemySyncRepositoryService
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import selectinload

from benchmarks.contenders import sqlalchemy_orm as plain
from benchmarks.contenders.sqlalchemy_orm import Order, Session, User, now
from benchmarks.workloads import MANY, PAGE, PARENTS, key_of, new_user, user_number


class UserRepository(SQLAlchemySyncRepository[User]):
    model_type = User


class SessionRepository(SQLAlchemySyncRepository[Session]):
    model_type = Session


class OrderRepository(SQLAlchemySyncRepository[Order]):
    model_type = Order


class UserService(SQLAlchemySyncRepositoryService[User, UserRepository]):
    repository_type = UserRepository


class SessionService(SQLAlchemySyncRepositoryService[Session, SessionRepository]):
    repository_type = SessionRepository


class OrderService(SQLAlchemySyncRepositoryService[Order, OrderRepository]):
    repository_type = OrderRepository


class Contender(plain.Contender):
    returns = "mapped object"

    def versions(self) -> dict[str, str]:
        from importlib.metadata import version

        return {**super().versions(), "advanced-alchemy": version("advanced-alchemy")}

    @contextmanager
    def connection(self) -> Iterator[Any]:
        with super().connection() as session:
            self._local.users = UserService(session)
            self._local.orders = OrderService(session)
            yield session

    def find(self, index: int) -> Any:
        return self._local.users.get_one(
            User.deleted_at.is_(None), email=f"user{user_number(index)}@example.com"
        )

    def _live(self, limit: int, **options: Any) -> Any:
        return self._local.users.list(
            User.deleted_at.is_(None), LimitOffset(limit, 0), order_by=(User.id, False), **options
        )

    def page(self, index: int) -> Any:
        return self._live(PAGE + 1)[:PAGE]

    def many(self, index: int) -> Any:
        return self._live(MANY)

    def relations(self, index: int) -> Any:
        users = self._live(PARENTS, load=[selectinload(User.sessions)])
        return [(user, list(user.sessions)) for user in users]

    def create(self, index: int) -> Any:
        return self._local.users.create(new_user(index), auto_commit=True)

    def update(self, index: int) -> Any:
        changes = {"first_name": "Grace", "last_name": "Hopper", "updated_at": now()}
        key = uuid.UUID(key_of(user_number(index)))
        return self._local.users.update(changes, item_id=key, auto_commit=True)

    def soft_delete(self, index: int) -> Any:
        changes = {"deleted_at": now(), "updated_at": now()}
        key = uuid.UUID(key_of(index + 1))
        return self._local.orders.update(changes, item_id=key, auto_commit=True)

    def sign_up(self, index: int) -> Any:
        with OrmSession(self._engine, expire_on_commit=False) as session, session.begin():
            user = UserService(session).create(new_user(index))
            one = SessionService(session).create(plain.new_session(uuid.uuid4(), user))
        return user, one

    def bulk(self, index: int) -> Any:
        orders = self._local.orders.create_many(plain.new_orders(), auto_commit=True)
        return [order.id for order in orders]
