"""SQLAlchemy 2's ORM on psycopg2: a session for each block, autocommit for single statements."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ENUM, JSONB
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    mapped_column,
    relationship,
    selectinload,
)
from sqlalchemy.orm import (
    Session as OrmSession,
)

from benchmarks.contenders import EXPIRES, TOKENS, Base
from benchmarks.sealing import seal
from benchmarks.workloads import MANY, PAGE, PARENTS, bulk_totals, key_of, new_user, user_number


def now() -> datetime:
    return datetime.now(UTC)


class Tables(DeclarativeBase):
    type_annotation_map = {datetime: sa.DateTime(timezone=True)}  # noqa: RUF012


class Standard:
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]


class User(Standard, Tables):
    __tablename__ = "users"
    email: Mapped[str]
    first_name: Mapped[str]
    last_name: Mapped[str | None]
    avatar: Mapped[str | None]
    provider_account_id: Mapped[str]
    sessions: Mapped[list[Session]] = relationship(
        primaryjoin="and_(User.id == Session.user_id, Session.deleted_at.is_(None))"
    )


class Session(Standard, Tables):
    __tablename__ = "sessions"
    user_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("users.id"))
    status: Mapped[str] = mapped_column(
        ENUM("active", "expired", "revoked", name="session_status"), default="active"
    )
    provider: Mapped[str] = mapped_column(ENUM("google", name="session_provider"))
    provider_access_token: Mapped[str]
    provider_access_token_iv: Mapped[str]
    provider_access_token_tag: Mapped[str]
    provider_access_token_expires_at: Mapped[datetime | None]
    provider_refresh_token: Mapped[str | None]
    provider_refresh_token_iv: Mapped[str | None]
    provider_refresh_token_tag: Mapped[str | None]
    provider_refresh_token_expires_at: Mapped[datetime | None]
    provider_account_id: Mapped[str]
    provider_scope: Mapped[str | None]
    expires_at: Mapped[datetime]
    last_accessed_at: Mapped[datetime | None]
    # "metadata" is a name that the declarative base keeps for itself
    facts: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB, default=dict)


class Order(Standard, Tables):
    __tablename__ = "orders"
    user_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("users.id"))
    status: Mapped[str] = mapped_column(default="pending")
    total: Mapped[int]


def sealed(key: uuid.UUID) -> dict[str, str]:
    """The columns of both tokens."""
    values: dict[str, str] = {}
    for column, token in TOKENS.items():
        parts = seal(token, column, str(key))
        values |= zip((column, f"{column}_iv", f"{column}_tag"), parts, strict=True)
    return values


def new_session(key: uuid.UUID, user: User) -> Session:
    return Session(
        id=key,
        user_id=user.id,
        provider="google",
        provider_account_id=user.provider_account_id,
        expires_at=EXPIRES,
        **sealed(key),
    )


def live(limit: int) -> Any:
    return sa.select(User).where(User.deleted_at.is_(None)).order_by(User.id).limit(limit)


def by_email(index: int) -> Any:
    email = f"user{user_number(index)}@example.com"
    return sa.select(User).where(User.email == email, User.deleted_at.is_(None)).limit(1)


def update_user(index: int) -> Any:
    return (
        sa.update(User)
        .where(User.id == uuid.UUID(key_of(user_number(index))), User.deleted_at.is_(None))
        .values(first_name="Grace", last_name="Hopper", updated_at=now())
        .returning(User)
    )


def delete_order(index: int) -> Any:
    return (
        sa.update(Order)
        .where(Order.id == uuid.UUID(key_of(index + 1)), Order.deleted_at.is_(None))
        .values(deleted_at=now(), updated_at=now())
        .returning(Order)
    )


def new_orders() -> list[dict[str, Any]]:
    user = uuid.UUID(key_of(1))
    return [{"user_id": user, "status": "paid", "total": total} for total in bulk_totals()]


class Contender(Base):
    returns = "mapped object"

    def __init__(self, url: str, pool_size: int = 10) -> None:
        self._engine = sa.create_engine(
            url.replace("postgresql:", "postgresql+psycopg2:"),
            pool_size=pool_size,
            max_overflow=0,
        )
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._local = threading.local()

    def versions(self) -> dict[str, str]:
        import psycopg2

        return {"sqlalchemy": sa.__version__, "psycopg2": psycopg2.__version__.split()[0]}

    @contextmanager
    def connection(self) -> Iterator[Any]:
        with (
            self._autocommit.connect() as connection,
            OrmSession(connection, expire_on_commit=False) as session,
        ):
            self._local.session = session
            yield session

    @property
    def _session(self) -> OrmSession:
        session: OrmSession = self._local.session
        return session

    def mark(self, index: int) -> Any:
        return self._session.scalar(sa.text("SELECT pg_backend_pid()"))

    def find(self, index: int) -> Any:
        return self._session.scalars(by_email(index)).one()

    def page(self, index: int) -> Any:
        return self._session.scalars(live(PAGE + 1)).all()[:PAGE]

    def many(self, index: int) -> Any:
        return self._session.scalars(live(MANY)).all()

    def relations(self, index: int) -> Any:
        query = live(PARENTS).options(selectinload(User.sessions))
        return [(user, list(user.sessions)) for user in self._session.scalars(query)]

    def create(self, index: int) -> Any:
        user = User(**new_user(index))
        self._session.add(user)
        self._session.commit()
        return user

    def update(self, index: int) -> Any:
        return self._session.scalars(update_user(index)).one()

    def soft_delete(self, index: int) -> Any:
        return self._session.scalars(delete_order(index)).one()

    def sign_up(self, index: int) -> Any:
        with OrmSession(self._engine, expire_on_commit=False) as session, session.begin():
            user = User(**new_user(index))
            session.add(user)
            session.flush()
            one = new_session(uuid.uuid4(), user)
            session.add(one)
        return user, one

    def bulk(self, index: int) -> Any:
        return list(self._session.scalars(sa.insert(Order).returning(Order.id), new_orders()))
