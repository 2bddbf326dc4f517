"""The chain of hashes over the trail: whether each entry is as it was written, and in its place.

Each entry carries SHA-256 over its content, its position and the hash of the one before. Whoever
may rewrite the whole table can rewrite its chain too, or cut off its end: a head that was recorded
elsewhere tells that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from orm_core.database.database import Database
from orm_core.errors import InvalidValue
from orm_core.models.audit_log import AuditEntry
from orm_core.models.triggers import CANONICAL

BATCH: Final = 5_000
_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
_CONTENT = CANONICAL.format(position="e.position", previous="e.previous_hash")
_LINKS = f"""
    SELECT e.position, e.id, e.previous_hash, e.hash, {_CONTENT} FROM audit_log AS e
    WHERE e.position > %s ORDER BY e.position LIMIT {BATCH}
"""
_PRUNED = """
    SELECT EXISTS (SELECT FROM audit_log AS e WHERE e.operation = 'prune' AND e.position >= %s
                   AND e.new ->> 'position' = %s AND e.new ->> 'hash' = %s)
"""
_UNLINKED = "SELECT count(*), max(id) FROM audit_log WHERE position IS NULL"
_FIRST = "SELECT min(id) FROM audit_log WHERE position IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain, to be recorded where nobody who writes the trail can reach it."""

    position: int
    hash: str

    def __str__(self) -> str:
        return f"{self.position}:{self.hash}"

    @classmethod
    def read(cls, text: str) -> Head:
        """The head that ``str`` wrote. Raises ``InvalidValue``."""
        found = _HEAD.fullmatch(text)
        if found is None:
            raise InvalidValue("A head is POSITION:HASH, as orm-core audit verify prints it.")
        return cls(int(found[1]), found[2])


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found: ``problem`` is the first that there is, None when all is as it was written.

    ``unlinked`` entries were written before the trail was a chain.
    """

    entries: int
    unlinked: int
    head: Head | None
    problem: str | None


class _Link(NamedTuple):
    position: int
    id: int
    previous: str
    hash: str
    content: str


def verify(head: Head | None = None) -> Verification:
    """Read the whole trail, in its order, as one transaction sees it, and compare each hash."""
    database: Database = AuditEntry._meta.database
    with database.atomic("repeatable read", read_only=True):
        return _Verifier(database, head).run()


class _Verifier:
    def __init__(self, database: Database, recorded: Head | None) -> None:
        self._database = database
        self._recorded = recorded
        self._entries = 0
        self._head: Head | None = None

    def run(self) -> Verification:
        problem = None
        for link in self._links():
            problem = self._problem(link)
            if problem is not None:
                break
            self._entries += 1
            self._head = Head(link.position, link.hash)
        unlinked, last = self._row(_UNLINKED)
        if problem is None:
            problem = self._problem_at_the_end(last)
        return Verification(self._entries, unlinked, self._head, problem)

    def _row(self, sql: str, *values: Any) -> Any:
        return self._database.execute_sql(sql, values).fetchone()

    def _links(self) -> Iterator[_Link]:
        last = 0
        while links := self._database.execute_sql(_LINKS, (last,)).fetchall():
            for row in links:
                yield _Link(*row)
            last = links[-1][0]

    def _problem(self, link: _Link) -> str | None:
        place = f"Entry {link.id} at position {link.position}"
        if self._head is None:
            if not self._begins(link):
                return (
                    f"{place} is the first: those before it were removed, and no pruning tells "
                    "of it."
                )
        elif link.position != self._head.position + 1:
            return f"{place} follows position {self._head.position}: those between were removed."
        elif link.previous != self._head.hash:
            return f"{place} does not follow the one before it: one was put in or exchanged."
        if hashlib.sha256(link.content.encode()).hexdigest() != link.hash:
            return f"{place} is not as it was written."
        recorded = self._recorded
        if recorded and recorded.position == link.position and recorded.hash != link.hash:
            return f"{place} has another hash than the recorded head."
        return None

    def _begins(self, link: _Link) -> bool:
        if link.position == 1:
            return link.previous == ""
        values = (link.position, str(link.position - 1), link.previous)
        return bool(self._row(_PRUNED, *values)[0])

    def _problem_at_the_end(self, last_unlinked: int | None) -> str | None:
        end = self._head.position if self._head else 0
        if self._recorded and end < self._recorded.position:
            return (
                f"The trail ends at position {end}, before the recorded head at "
                f"{self._recorded.position}: its end was removed."
            )
        if self._head is None:
            return 'No entry is in a chain: it is made with Domain(..., audit="chain").'
        first = self._row(_FIRST)[0]
        if last_unlinked is not None and last_unlinked > first:
            return f"Entry {last_unlinked} is in no place of the chain: it was put in."
        return None
