"""Who acts: what the audit trail tells of everything that is written inside a block.

::

    with acting_as("user:42", request_id="8f0c"):
        UsersService.update(id, {"email": "ada@example.com"})

It travels to the server as settings of the transaction (``orm_core.actor``,
``orm_core.request_id``), in one text with the first statement that needs it, and only where tables
are audited. So it costs no round trip and is right behind a pooler.
"""

from __future__ import annotations

import re
import string
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orm_core.database.drivers.protocol import IDLE, IN_ERROR
from orm_core.database.plain_functions import block
from orm_core.errors import InvalidValue

if TYPE_CHECKING:
    from orm_core.database.transactions import Transaction

#: characters of an actor or a request id
LONGEST: Final = 200
#: the first part of the names of row_scope's settings
SCOPE: Final = "orm_core_scope"
#: statements that write, of those that may travel in one text with another
_WRITES: Final = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:INSERT|UPDATE|DELETE|MERGE|WITH|TRUNCATE|EXECUTE)\b",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN: Final = frozenset(f"{string.ascii_letters}{string.digits} _:.@/-")
_CONTROLS: Final = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "START", "END", "ABORT")


class Acting(NamedTuple):
    """Somebody, and the request that is served; None where that is not known."""

    actor: str | None = None
    request_id: str | None = None
    #: the settings of row_scope(), by name
    scope: tuple[tuple[str, str], ...] = ()

    @property
    def sql(self) -> str:
        """The statement that tells the server."""
        return _settings_sql(self, tuple(scope_names))


@lru_cache(maxsize=1024)
def _settings_sql(acting: Acting, scope_names: tuple[str, ...]) -> str:
    settings = {"orm_core.actor": acting.actor, "orm_core.request_id": acting.request_id}
    scope = dict(acting.scope)
    settings |= {f"{SCOPE}.{name}": scope.get(name) for name in scope_names}
    told = [
        f"pg_catalog.set_config('{name}', {_literal(text)}, true)"
        for name, text in settings.items()
    ]
    return f"SELECT {', '.join(told)};"


def _literal(text: str | None) -> str:
    """A text as a literal of plain letters; all else is escaped, whatever the session's settings."""
    kept = [one if one in _PLAIN else f"\\U{ord(one):08x}" for one in text or ""]
    return f"E'{''.join(kept)}'"


NOBODY: Final = Acting()
#: what the server was told last, when that can't be known; equal to nobody real
UNKNOWN: Final = Acting("", "")
_now: ContextVar[Acting] = ContextVar("orm_core.acting", default=NOBODY)
#: the settings of row_scope() that were ever used here, of which the server is told: also when they
#: are not set, as they are emptied then
scope_names: dict[str, None] = {}


@block
def acting_as(actor: str | None, *, request_id: str | None = None) -> Generator[None]:
    """Name who acts inside the block, on this thread or in this task, for the audit trail.

    Also a decorator. ``request_id`` is that of the block around when none is given; None for the
    actor leaves the database's role alone to tell. Texts of 1 to 200 characters; raises
    ``InvalidValue`` for others.
    """
    _check("actor", actor)
    _check("request_id", request_id)
    around = _now.get()
    inherited = around.request_id if request_id is None else request_id
    token = _now.set(around._replace(actor=actor, request_id=inherited))
    try:
        yield
    finally:
        _now.reset(token)


@contextmanager
def scoped(settings: Mapping[str, str]) -> Generator[None]:
    """Have settings of ``row_scope``, besides those of the block around, inside the block."""
    scope_names.update(dict.fromkeys(settings))
    around = _now.get()
    token = _now.set(around._replace(scope=tuple({**dict(around.scope), **settings}.items())))
    try:
        yield
    finally:
        _now.reset(token)


def _check(name: str, text: Any) -> None:
    if text is None:
        return
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST or not text.isprintable():
        raise InvalidValue(
            f"acting_as() takes for {name} a text of 1 to {LONGEST} printable characters, or None."
        )


def now(*, audited: bool) -> Acting:
    """Who acts here; of a database that is not audited only the settings of ``row_scope``."""
    acting = _now.get()
    return acting if audited or acting is NOBODY else Acting(scope=acting.scope)


def is_named() -> bool:
    """Whether somebody is named here."""
    return _now.get() is not NOBODY


def telling(acting: Acting, block: Transaction | None, connection: Any, sql: str) -> str:
    """SQL to go before ``sql`` that tells the server who acts; empty when it need not be told.

    ``block`` is the innermost one; its ``told`` is to be set once the server knows. Outside of
    blocks, what a transaction begun by hand was told is not known, so each of its statements is.
    """
    if block is not None:
        if sql.startswith(_CONTROLS):
            block.forget_told()  # a savepoint that is rolled back takes what was told along
        elif acting != (block.told or NOBODY) and connection.get_transaction_status() != IN_ERROR:
            block.told = UNKNOWN
            return acting.sql
        return ""
    status = connection.get_transaction_status()
    if sql.startswith(_CONTROLS):
        return ""
    if status == IDLE:
        return acting.sql if acting.scope or (acting != NOBODY and _WRITES.match(sql)) else ""
    return "" if status == IN_ERROR else acting.sql
