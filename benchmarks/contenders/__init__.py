"""The contenders: a module each, with a class ``Contender``; see ``Base``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final


@dataclass(frozen=True)
class Entry:
    """Where a contender is, the options of its ``Contender``, and its workloads if not all."""

    module: str
    options: dict[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    #: times the warm-up calls; a compiler that works at run time needs more
    warm: int = 1


CONTENDERS: Final = {
    "psycopg2": Entry("psycopg2_plain"),
    "orm_core": Entry("orm_core_services"),
    "orm_core prepared": Entry("orm_core_services", {"prepare": True}),
    "orm_core records": Entry("orm_core_services", {"records": True}, ("W7",)),
    "orm_core no metrics": Entry("orm_core_services", {"metrics": False}, ("W12",)),
    "orm_core audited": Entry("orm_core_services", {"audit": True}, ("W3",)),
    "orm_core chained": Entry("orm_core_services", {"audit": "chain"}, ("W3",)),
    "peewee": Entry("peewee_orm"),
    "sqlalchemy": Entry("sqlalchemy_orm"),
    "advanced-alchemy": Entry("advanced_alchemy_orm"),
    "django": Entry("django_orm"),
    "piccolo": Entry("piccolo_orm"),
    "tortoise": Entry("tortoise_orm"),
    "drizzle": Entry("drizzle", warm=20),
}
#: the one that the others are measured by
BASELINE: Final = "psycopg2"

EXPIRES: Final = datetime(2030, 1, 1, tzinfo=UTC)
TOKENS: Final = {
    "provider_access_token": "ya29." + "a" * 150,
    "provider_refresh_token": "1//" + "r" * 100,
}


class Unable(Exception):
    """The contender can't do this workload; the text says why."""


class Base:
    """What a contender does. Calls take an index, so that all do the same, and answer objects.

    In an asynchronous contender the calls are coroutines and ``connection`` an asynchronous
    context manager. ``unable`` has the reasons why workloads are left out, by key.
    """

    #: what a row is in this contender's answers
    returns: str
    asynchronous = False
    unable: dict[str, str] = {}  # noqa: RUF012 - a table of the class

    def __init__(self, url: str, pool_size: int = 10) -> None:
        """Connect nothing yet; the pool has this size."""

    def versions(self) -> dict[str, str]:
        """Of the libraries that it stands on."""
        raise NotImplementedError

    def connection(self) -> AbstractContextManager[Any]:
        """A connection of the pool for this thread, given back at the end of the block."""
        raise NotImplementedError

    def mark(self, index: int) -> Any:
        """Run ``SELECT pg_backend_pid()`` on this thread's connection, answer the number."""
        raise NotImplementedError

    def find(self, index: int) -> Any:
        """A live user, by e-mail."""
        raise NotImplementedError

    def page(self, index: int) -> Any:
        """The first page of live users by id, with one row more to know if another follows."""
        raise NotImplementedError

    def many(self, index: int) -> Any:
        """Live users in the order of their ids."""
        raise NotImplementedError

    def relations(self, index: int) -> Any:
        """Pairs of a user and the list of its sessions."""
        raise NotImplementedError

    def create(self, index: int) -> Any:
        """A user, as stored."""
        raise NotImplementedError

    def update(self, index: int) -> Any:
        """A user with two fields changed, as stored."""
        raise NotImplementedError

    def soft_delete(self, index: int) -> Any:
        """An order, deleted_at set, as stored."""
        raise NotImplementedError

    def sign_up(self, index: int) -> Any:
        """A user and its session with two tokens sealed, in one transaction, as stored."""
        raise NotImplementedError

    def bulk(self, index: int) -> Any:
        """Insert orders, answer the list of their ids."""
        raise NotImplementedError
