"""orm_core: the services of this repository's domains, with metrics on."""

from __future__ import annotations

import dataclasses
import os
from contextlib import AbstractContextManager
from typing import Any

from peewee import Load

from benchmarks import auditing
from benchmarks.contenders import EXPIRES, TOKENS, Base, Unable
from benchmarks.dynamic import Dynamic
from benchmarks.sealing import KEY_RING
from benchmarks.workloads import MANY, PAGE, PARENTS, bulk_totals, key_of, new_user, user_number
from domains.orders import OrdersService
from domains.users import Session, SessionProvider, SessionService, User, UsersService
from orm_core import Secret, Settings, acting_as, db, initialize_db, registry, transaction


class Contender(Dynamic, Base):
    returns = "model"
    User, Session = User, Session

    def __init__(
        self,
        url: str,
        pool_size: int = 10,
        *,
        prepare: bool = False,
        records: bool = False,
        metrics: bool = True,
        audit: Any = False,
    ) -> None:
        os.environ["ORM_CORE_TOKEN_KEYS"] = KEY_RING
        options: dict[str, Any] = {"pool_size": pool_size}
        if prepare:
            if "prepare" not in {field.name for field in dataclasses.fields(Settings)}:
                raise Unable("there is no setting for prepared statements")
            options["prepare"] = True
        self._records = records
        if records:
            self.returns = "record"
        if metrics:
            registry.discover()
        initialize_db(url, **options)
        self._actor = "user:42" if audit else None
        if audit:
            auditing.begin(audit)

    def versions(self) -> dict[str, str]:
        import peewee
        import psycopg2

        return {"peewee": peewee.__version__, "psycopg2": psycopg2.__version__.split()[0]}

    def connection(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = db.connection_context()
        return context

    def mark(self, index: int) -> Any:
        return db.execute_sql("SELECT pg_backend_pid()").fetchone()[0]

    def live(self, model: Any, *columns: Any) -> Any:
        return model.select(*columns)

    def find(self, index: int) -> Any:
        return UsersService.find_by_email(f"user{user_number(index)}@example.com")

    def page(self, index: int) -> Any:
        return UsersService.page(size=PAGE).items

    def many(self, index: int) -> Any:
        if self._records:
            return list(User.select().order_by(User.id).limit(MANY).records())
        return UsersService.list(limit=MANY)

    def relations(self, index: int) -> Any:
        users = User.select().order_by(User.id).limit(PARENTS).with_related(Load(User.sessions))
        return [(user, list(user.sessions)) for user in users]

    def create(self, index: int) -> Any:
        return UsersService.create(new_user(index))

    def update(self, index: int) -> Any:
        changes = {"first_name": "Grace", "last_name": "Hopper"}
        if self._actor is None:
            return UsersService.update(key_of(user_number(index)), changes)
        with acting_as(self._actor, request_id="3f1c9a52"):
            return UsersService.update(key_of(user_number(index)), changes)

    def soft_delete(self, index: int) -> Any:
        return OrdersService.soft_delete(key_of(index + 1))

    def sign_up(self, index: int) -> tuple[User, Session]:
        with transaction() as tx:
            user = UsersService.create(new_user(index), tx=tx)
            tokens = {name: Secret(token) for name, token in TOKENS.items()}
            session = SessionService.create(
                {
                    "user_id": user.id,
                    "provider": SessionProvider.GOOGLE,
                    "provider_account_id": user.provider_account_id,
                    "expires_at": EXPIRES,
                    **tokens,
                },
                tx=tx,
            )
            return user, session

    def bulk(self, index: int) -> Any:
        user = key_of(1)
        rows = [{"user_id": user, "status": "paid", "total": total} for total in bulk_totals()]
        return OrdersService.create_many(rows, returning="ids")
