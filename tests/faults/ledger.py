"""What the fault tests write, what the caller is told of it, and what the database says is true.

A transfer is a row in each of two tables, with a token that nobody else uses. The truth is read by
a superuser on a way that has no proxy.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import psycopg2
from concurrency import until
from private_server import PrivateServer

from orm_core import (
    BaseModel,
    CommitUnknown,
    Database,
    OrmCoreError,
    Service,
    TextField,
    db,
    transaction,
)
from orm_core.models.schema import create_all

APPLIED, NOT_APPLIED, UNKNOWN = "applied", "not applied", "unknown"
#: no second round of connecting, whose messages the proxy would have to know
PLAIN = {"sslmode": "disable", "gssencmode": "disable"}
DATABASE = "ledger"

_number = itertools.count(1)


class Debit(BaseModel):
    token = TextField()

    class Meta:
        table_name = "debits"


class Credit(BaseModel):
    token = TextField()

    class Meta:
        table_name = "credits"


class Debits(Service[Debit, Any, Any]):
    """The first half of a transfer."""


class Credits(Service[Credit, Any, Any]):
    """The second half."""


def new_token() -> str:
    """A text that no other row of any process has."""
    return f"{os.getpid()}-{next(_number)}"


def transfer(token: str, between: Callable[[], object] = bool) -> None:
    """Both rows, or none; something may happen between them."""
    with transaction() as tx:
        Debits.create({"token": token}, tx=tx)
        between()
        Credits.create({"token": token}, tx=tx)


def outcome_of(token: str, between: Callable[[], object] = bool) -> str:
    """Transfer, and answer what a caller can tell from it."""
    try:
        transfer(token, between)
    except CommitUnknown:
        return UNKNOWN
    except OrmCoreError:
        return NOT_APPLIED
    return APPLIED


def state() -> tuple[int, int, int, int]:
    """The pool's size, and how many connections are in use, idle and waited for."""
    stats = db.pool_stats()
    return stats.size, stats.in_use, stats.idle, stats.waiting


class Truth:
    """What is in the database."""

    def __init__(self, server: PrivateServer) -> None:
        self._server = server

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """Ask, in a session of its own."""
        with closing(psycopg2.connect(self._server.url(DATABASE), connect_timeout=10)) as session:
            session.autocommit = True
            cursor = session.cursor()
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    def halves(self, token: str) -> tuple[int, int]:
        """How many debits and credits there are, once nobody is writing them any more."""
        self.wait_for_writers()
        sql = "SELECT count(*) FROM {} WHERE token = %s"
        return tuple(self.rows(sql.format(table), token)[0][0] for table in ("debits", "credits"))  # type: ignore[return-value]

    def lies(self, told: Iterable[tuple[str, str]]) -> list[tuple[str, str, tuple[int, int]]]:
        """The tokens for which what the caller was told is not what happened."""
        self.wait_for_writers()
        debited, credited = (
            dict(self.rows(f"SELECT token, count(*) FROM {table} GROUP BY token"))
            for table in ("debits", "credits")
        )
        found = []
        for token, outcome in told:
            halves = (debited.get(token, 0), credited.get(token, 0))
            if not agrees(outcome, halves):
                found.append((token, outcome, halves))
        return found

    def strangers(self, told: Iterable[tuple[str, str]]) -> set[str]:
        """The tokens that are there, and that nobody wrote."""
        there = self.rows("SELECT token FROM debits UNION SELECT token FROM credits")
        return {token for (token,) in there} - {token for token, _ in told}

    def forget(self) -> None:
        """Begin with empty tables."""
        self.rows("TRUNCATE debits, credits; SELECT 1")

    def wait_for_writers(self) -> None:
        """Wait until the server has noticed that clients are gone, and ended what they began."""
        until(lambda: not self.rows(_OPEN), "no transaction is open")

    def sessions(self) -> int:
        """How many the service has."""
        return int(self.rows("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")[0][0])


_OPEN = "SELECT 1 FROM pg_stat_activity WHERE usename = 'app' AND xact_start IS NOT NULL"


def agrees(outcome: str, halves: tuple[int, int]) -> bool:
    """Whether what the caller was told is what happened."""
    allowed: dict[str, Iterable[tuple[int, int]]] = {
        APPLIED: [(1, 1)],
        NOT_APPLIED: [(0, 0)],
        UNKNOWN: [(0, 0), (1, 1)],
    }
    return halves in allowed[outcome]


def prepare(server: PrivateServer) -> None:
    """Make the database, its tables and the role of the service."""
    server.run(
        "CREATE ROLE app LOGIN PASSWORD '{password}'", f"CREATE DATABASE {DATABASE} OWNER app"
    )
    database = Database(
        DATABASE, host=server.host, port=server.port, user="app", password=server.password
    )
    try:
        create_all(database, [Debit, Credit])
    finally:
        database.close_all()
