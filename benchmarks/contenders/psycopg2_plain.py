"""psycopg2, written by hand: SQL texts, tuples by position into dataclasses with slots.

Autocommit, so a single statement needs no BEGIN; ids as ``uuid.UUID``, times aware.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import psycopg2.extras
from psycopg2.pool import ThreadedConnectionPool

from benchmarks.contenders import EXPIRES, TOKENS, Base
from benchmarks.sealing import seal
from benchmarks.workloads import (
    MANY,
    PAGE,
    PARENTS,
    bulk_totals,
    key_of,
    new_user,
    user_number,
)

psycopg2.extras.register_uuid()

USER = (
    "id, email, first_name, last_name, avatar, provider_account_id, created_at, updated_at, "
    "deleted_at"
)
SESSION = (
    "id, user_id, status, provider, provider_access_token, provider_access_token_iv, "
    "provider_access_token_tag, provider_access_token_expires_at, provider_refresh_token, "
    "provider_refresh_token_iv, provider_refresh_token_tag, provider_refresh_token_expires_at, "
    "provider_account_id, provider_scope, expires_at, last_accessed_at, metadata, created_at, "
    "updated_at, deleted_at"
)
ORDER = "id, user_id, status, total, created_at, updated_at, deleted_at"

FIND = f"SELECT {USER} FROM users WHERE email = %s AND deleted_at IS NULL LIMIT 1"
LIST = f"SELECT {USER} FROM users WHERE deleted_at IS NULL ORDER BY id LIMIT %s"
SESSIONS = f"SELECT {SESSION} FROM sessions WHERE user_id = ANY(%s) AND deleted_at IS NULL"
CREATE = (
    "INSERT INTO users (email, first_name, last_name, provider_account_id) "
    f"VALUES (%s, %s, %s, %s) RETURNING {USER}"
)
UPDATE = (
    "UPDATE users SET first_name = %s, last_name = %s, updated_at = now() "
    f"WHERE id = %s AND deleted_at IS NULL RETURNING {USER}"
)
SOFT_DELETE = (
    "UPDATE orders SET deleted_at = now(), updated_at = now() "
    f"WHERE id = %s AND deleted_at IS NULL RETURNING {ORDER}"
)
CREATE_SESSION = (
    "INSERT INTO sessions (id, user_id, provider, provider_account_id, expires_at, "
    "provider_access_token, provider_access_token_iv, provider_access_token_tag, "
    "provider_refresh_token, provider_refresh_token_iv, provider_refresh_token_tag) "
    f"VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING {SESSION}"
)
BULK = "INSERT INTO orders (user_id, status, total) VALUES %s RETURNING id"


@dataclass(slots=True)
class User:
    id: UUID
    email: str
    first_name: str
    last_name: str | None
    avatar: str | None
    provider_account_id: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    sessions: list[Session] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    id: UUID
    user_id: UUID
    status: str
    provider: str
    provider_access_token: str
    provider_access_token_iv: str
    provider_access_token_tag: str
    provider_access_token_expires_at: datetime | None
    provider_refresh_token: str | None
    provider_refresh_token_iv: str | None
    provider_refresh_token_tag: str | None
    provider_refresh_token_expires_at: datetime | None
    provider_account_id: str
    provider_scope: str | None
    expires_at: datetime
    last_accessed_at: datetime | None
    metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


@dataclass(slots=True)
class Order:
    id: UUID
    user_id: UUID
    status: str
    total: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class Contender(Base):
    returns = "dataclass with slots"

    def __init__(self, url: str, pool_size: int = 10) -> None:
        self._pool = ThreadedConnectionPool(pool_size, pool_size, url)
        self._free = threading.Semaphore(pool_size)  # the pool raises instead of waiting
        self._local = threading.local()

    def versions(self) -> dict[str, str]:
        return {"psycopg2": psycopg2.__version__.split()[0]}

    @contextmanager
    def connection(self) -> Iterator[Any]:
        with self._free:
            connection = self._pool.getconn()
            if not connection.autocommit:
                connection.autocommit = True
            self._local.connection = connection
            try:
                yield connection
            finally:
                self._pool.putconn(connection)

    def _rows(self, sql: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._local.connection.cursor() as cursor:
            cursor.execute(sql, params)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def _row(self, sql: str, params: tuple[Any, ...]) -> tuple[Any, ...]:
        with self._local.connection.cursor() as cursor:
            cursor.execute(sql, params)
            row: tuple[Any, ...] = cursor.fetchone()
            return row

    def mark(self, index: int) -> Any:
        return self._row("SELECT pg_backend_pid()", ())[0]

    def find(self, index: int) -> User:
        return User(*self._row(FIND, (f"user{user_number(index)}@example.com",)))

    def page(self, index: int) -> list[User]:
        return [User(*row) for row in self._rows(LIST, (PAGE + 1,))[:PAGE]]

    def many(self, index: int) -> list[User]:
        return [User(*row) for row in self._rows(LIST, (MANY,))]

    def relations(self, index: int) -> list[tuple[User, list[Session]]]:
        users = {row[0]: User(*row) for row in self._rows(LIST, (PARENTS,))}
        for row in self._rows(SESSIONS, (list(users),)):
            users[row[1]].sessions.append(Session(*row))
        return [(user, user.sessions) for user in users.values()]

    def create(self, index: int) -> User:
        new = new_user(index)
        return User(*self._row(CREATE, tuple(new.values())))

    def update(self, index: int) -> User:
        return User(*self._row(UPDATE, ("Grace", "Hopper", key_of(user_number(index)))))

    def soft_delete(self, index: int) -> Order:
        return Order(*self._row(SOFT_DELETE, (key_of(index + 1),)))

    def sign_up(self, index: int) -> tuple[User, Session]:
        connection = self._local.connection
        connection.autocommit = False
        try:
            with connection:
                user = self.create(index)
                key = uuid4()
                sealed = [
                    part
                    for column, token in TOKENS.items()
                    for part in seal(token, column, str(key))
                ]
                values = (key, user.id, "google", user.provider_account_id, EXPIRES, *sealed)
                return user, Session(*self._row(CREATE_SESSION, values))
        finally:
            connection.autocommit = True

    def bulk(self, index: int) -> list[UUID]:
        user = key_of(1)
        rows = [(user, "paid", total) for total in bulk_totals()]
        with self._local.connection.cursor() as cursor:
            found = psycopg2.extras.execute_values(cursor, BULK, rows, page_size=1000, fetch=True)
        return [row[0] for row in found]
