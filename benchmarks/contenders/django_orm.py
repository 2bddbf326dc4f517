"""Django's ORM on psycopg2, with a lasting connection for each thread."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import django
from django.conf import settings
from django.db import close_old_connections, connections, models, transaction
from django.db import connection as link
from psycopg2.extensions import parse_dsn

from benchmarks.contenders import EXPIRES, TOKENS, Base
from benchmarks.sealing import seal
from benchmarks.workloads import MANY, PAGE, PARENTS, bulk_totals, key_of, new_user, user_number

ENGINE = "django.db.backends.postgresql"
settings.configure(DATABASES={"default": {"ENGINE": ENGINE}}, USE_TZ=True)
django.setup()


def now() -> datetime:
    return datetime.now(UTC)


class Row(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    created_at = models.DateTimeField(default=now)
    updated_at = models.DateTimeField(default=now)
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True


class User(Row):
    email = models.TextField()
    first_name = models.TextField()
    last_name = models.TextField(null=True)
    avatar = models.TextField(null=True)
    provider_account_id = models.TextField()

    class Meta:
        app_label = "benchmarks"
        db_table = "users"


class Session(Row):
    user = models.ForeignKey(User, models.CASCADE, related_name="sessions")
    status = models.TextField(default="active")
    provider = models.TextField()
    provider_access_token = models.TextField()
    provider_access_token_iv = models.TextField()
    provider_access_token_tag = models.TextField()
    provider_access_token_expires_at = models.DateTimeField(null=True)
    provider_refresh_token = models.TextField(null=True)
    provider_refresh_token_iv = models.TextField(null=True)
    provider_refresh_token_tag = models.TextField(null=True)
    provider_refresh_token_expires_at = models.DateTimeField(null=True)
    provider_account_id = models.TextField()
    provider_scope = models.TextField(null=True)
    expires_at = models.DateTimeField()
    last_accessed_at = models.DateTimeField(null=True)
    metadata = models.JSONField(default=dict)

    class Meta:
        app_label = "benchmarks"
        db_table = "sessions"


class Order(Row):
    user = models.ForeignKey(User, models.CASCADE)
    status = models.TextField(default="pending")
    total = models.IntegerField()

    class Meta:
        app_label = "benchmarks"
        db_table = "orders"


class Contender(Base):
    returns = "model"
    unable = {"W14": "has a pool only with psycopg 3; here each thread has a connection"}  # noqa: RUF012

    def __init__(self, url: str, pool_size: int = 10) -> None:
        params = parse_dsn(url)
        connections.settings["default"].update(
            NAME=params["dbname"],
            USER=params["user"],
            PASSWORD=params.get("password", ""),
            HOST=params["host"],
            PORT=params["port"],
            CONN_MAX_AGE=None,
        )

    def versions(self) -> dict[str, str]:
        import psycopg2

        return {"django": django.__version__, "psycopg2": psycopg2.__version__.split()[0]}

    @contextmanager
    def connection(self) -> Iterator[Any]:
        close_old_connections()  # what Django does at the start and the end of a request
        yield link
        close_old_connections()

    def mark(self, index: int) -> Any:
        with link.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return cursor.fetchone()[0]

    def find(self, index: int) -> Any:
        email = f"user{user_number(index)}@example.com"
        return User.objects.get(email=email, deleted_at__isnull=True)

    def _live(self, limit: int) -> Any:
        return User.objects.filter(deleted_at__isnull=True).order_by("id")[:limit]

    def page(self, index: int) -> Any:
        return list(self._live(PAGE + 1))[:PAGE]

    def many(self, index: int) -> Any:
        return list(self._live(MANY))

    def relations(self, index: int) -> Any:
        sessions = models.Prefetch("sessions", Session.objects.filter(deleted_at__isnull=True))
        users = self._live(PARENTS).prefetch_related(sessions)
        return [(user, list(user.sessions.all())) for user in users]

    def create(self, index: int) -> Any:
        return User.objects.create(**new_user(index))

    def update(self, index: int) -> Any:
        # It has no UPDATE .. RETURNING: the row is read, then written.
        user = User.objects.get(id=key_of(user_number(index)), deleted_at__isnull=True)
        user.first_name, user.last_name, user.updated_at = "Grace", "Hopper", now()
        user.save(update_fields=["first_name", "last_name", "updated_at"])
        return user

    def soft_delete(self, index: int) -> Any:
        order = Order.objects.get(id=key_of(index + 1), deleted_at__isnull=True)
        order.deleted_at = order.updated_at = now()
        order.save(update_fields=["deleted_at", "updated_at"])
        return order

    def sign_up(self, index: int) -> Any:
        with transaction.atomic():
            user = self.create(index)
            key = uuid.uuid4()
            values: dict[str, Any] = {}
            for column, token in TOKENS.items():
                parts = seal(token, column, str(key))
                values |= zip((column, f"{column}_iv", f"{column}_tag"), parts, strict=True)
            session = Session.objects.create(
                id=key,
                user=user,
                provider="google",
                provider_account_id=user.provider_account_id,
                expires_at=EXPIRES,
                **values,
            )
        return user, session

    def bulk(self, index: int) -> Any:
        user = uuid.UUID(key_of(1))
        orders = [Order(user_id=user, status="paid", total=total) for total in bulk_totals()]
        return [order.id for order in Order.objects.bulk_create(orders, batch_size=1000)]
