"""What tests of services and of the tools around them share.

Payloads and rows, a logger that remembers, a recorder of statements, empty databases.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import psycopg2
from psycopg2 import sql

from domains.users import Session, SessionService, User, UsersService
from orm_core import QueryEvent, Secret, registry, signals, utcnow
from orm_core.database.url import parse

registry.discover()

_number = itertools.count(1)

#: where no test needs another
TOKEN = "ya29.token-of-the-provider"


def user_data(**given: Any) -> dict[str, Any]:
    """A payload of a user of her own."""
    number = next(_number)
    return {
        "email": f"user{number}@example.com",
        "first_name": f"First{number}",
        "provider_account_id": f"google-{number}",
        **given,
    }


def session_data(user: Any, **given: Any) -> dict[str, Any]:
    """A payload of an active session."""
    return {
        "user": user,
        "provider": "google",
        "provider_account_id": "google-1",
        "provider_access_token": Secret(TOKEN),
        "expires_at": utcnow() + timedelta(hours=1),
        **given,
    }


def new_user(**given: Any) -> User:
    """A stored user."""
    return UsersService.create(user_data(**given))


def new_session(user: Any = None, **given: Any) -> Session:
    """A stored session."""
    return SessionService.create(session_data(user or new_user(), **given))


class Log:
    """A logger that remembers what it was told."""

    def __init__(self) -> None:
        self.audits: list[tuple[str, dict[str, Any]]] = []
        self.errors: list[tuple[str, dict[str, Any]]] = []

    def audit(self, message: str, meta: Any, /) -> None:
        self.audits.append((message, dict(meta)))

    def error(self, message: str, meta: Any, /) -> None:
        self.errors.append((message, dict(meta)))


@contextmanager
def statements() -> Iterator[list[QueryEvent]]:
    """The query events of the block, of every table."""
    events: list[QueryEvent] = []
    for table in signals.tables:
        signals.connect(events.append, table)
    try:
        yield events
    finally:
        for table in signals.tables:
            signals.disconnect(events.append, table)


@contextmanager
def no_statement() -> Iterator[None]:
    """Fails when the block sends anything to the server."""
    with statements() as events:
        yield
    assert events == []


def connect_params(url: str) -> dict[str, Any]:
    """What a driver is told to connect to a URL."""
    return {name: one for name, one in parse(url).connect_params().items() if one is not None}


@contextmanager
def empty_databases(server: Any) -> Iterator[Callable[[], str]]:
    """A maker of empty databases, which answers their URLs; they are dropped at the end."""
    names: list[str] = []

    def execute(text: str, name: str) -> None:
        with closing(psycopg2.connect(**connect_params(server.url("postgres")))) as link:
            link.autocommit = True
            with link.cursor() as cursor:
                cursor.execute(sql.SQL(text).format(sql.Identifier(name)))

    def make() -> str:
        name = f"orm_core_{os.getpid()}_empty_{next(_number)}"
        execute("CREATE DATABASE {} TEMPLATE template0", name)
        names.append(name)
        return str(server.url(name))

    try:
        yield make
    finally:
        for name in names:
            execute("DROP DATABASE {} WITH (FORCE)", name)
