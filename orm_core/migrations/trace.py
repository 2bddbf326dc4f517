"""Which statement of a migration file failed: its number and its text, without values of rows."""

from __future__ import annotations

import re
import threading
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.migrations.catalog import HISTORY

#: what the Router sends around a file's own statements
_CONTROL = re.compile(
    r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET CONSTRAINTS ALL IMMEDIATE)\b", re.IGNORECASE
)
#: statements about the schema alone, whose literals are no values of rows
_SCHEMA = re.compile(
    r"\s*(ALTER\s+(TABLE|TYPE|INDEX|DOMAIN|SEQUENCE)|CREATE\s+(TABLE|TYPE|DOMAIN|SEQUENCE|"
    r"(UNIQUE\s+)?INDEX)|COMMENT\s+ON|DROP)\b(?!.*(;\s*\S|\bSELECT\b))",
    re.IGNORECASE | re.DOTALL,
)
_VALUE = re.compile(
    r"""
      (?P<name> "(?:[^"]|"")*" | [^\W\d][\w$]* (?! ['\w$] ) )
    | (?: [EBXU]&? )? '(?:[^'\\]|''|\\.)*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | \d[\d.]*
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
#: characters of a statement that a message shows
_SHOWN: Final = 300


class Trace:
    """Counts the statements that this thread sends while the block runs."""

    def __init__(self, database: peewee.Database) -> None:
        self._hooks = database.query_hooks
        self._thread = threading.get_ident()
        self._number = 0
        self._failed: tuple[BaseException, str] | None = None
        #: whether a COMMIT went through, so that not everything can be rolled back
        self.committed: bool = False

    def __enter__(self) -> Trace:
        self._hooks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.remove(self._note)

    def _note(self, event: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        control = _CONTROL.match(event.sql)
        if not control and f'"{HISTORY}"' not in event.sql:
            self._number += 1
        if event.exception is not None:
            if control and control[1].upper() == "ROLLBACK":
                return  # what led to it is told
            place = control[1].upper() if control else f"statement {self._number}"
            text = "" if control else f" ({without_values(event.sql)})"
            self._failed = (event.exception, f"at {place}{text}")
        elif control and control[1].upper() == "COMMIT":
            self.committed = True

    def place(self, error: BaseException) -> str:
        """Where ``error`` came from: "at statement 2 (ALTER TABLE ...)"; empty for no statement."""
        if self._failed is None:
            return ""
        failed, told = self._failed
        return told if failed in (error, error.__cause__, error.__context__) else ""


def without_values(sql: str) -> str:
    """A statement on one line, cut; its literals are left out unless it is about the schema."""
    text = sql.replace("%%", "%")
    if not _SCHEMA.match(text):
        text = _VALUE.sub(lambda found: found["name"] or "?", text)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
