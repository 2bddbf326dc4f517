"""The text of a statement that is sent again and again, and its values as literals in it.

psycopg 2 writes a value into a statement at about six times the cost of doing it here. So values
whose literal leaves nothing to decide are written here, to what the driver would have made of
them, and the rest is left to the driver. A text without a backslash, its quotes doubled, means the
same whatever the session's ``standard_conforming_strings`` (PostgreSQL manual, "String
Constants"); and the server decodes a statement before it reads it, so no encoding hides a quote.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from psycopg2.extras import Json

_PLACE = re.compile(r"%(s|%)")


class CompiledSql(str):
    """The text of a statement that is sent again and again, always with values of one type."""

    def numbered(self) -> str:
        """The text with ``$1``, ``$2`` for the values, as PREPARE wants it."""
        places = itertools.count(1)
        return _PLACE.sub(lambda found: "%" if found[1] == "%" else f"${next(places)}", self)

    def call(self, name: str) -> CompiledSql:
        """``EXECUTE name (%s, %s)``."""
        values = ", ".join("%s" for found in _PLACE.finditer(self) if found[1] == "s")
        return CompiledSql(f"EXECUTE {name} ({values})" if values else f"EXECUTE {name}")

    @cached_property
    def _pieces(self) -> list[str]:
        """The text around the values, and an empty place for each of them."""
        pieces = [""]
        end = 0
        for found in _PLACE.finditer(self):
            pieces[-1] += self[end : found.start()]
            end = found.end()
            if found[1] == "%":
                pieces[-1] += "%"
            else:
                pieces += ["", ""]
        pieces[-1] += self[end:]
        return pieces

    def with_literals(self, values: Sequence[Any]) -> str | None:
        """The statement with these values in it; None where the driver has to write one."""
        literals: list[str] = []
        for value in values:
            write = _WRITERS.get(value.__class__)
            literal = write and write(value)
            if literal is None:
                return None
            literals.append(literal)
        pieces = self._pieces.copy()
        if len(pieces) != 2 * len(literals) + 1:
            return None
        pieces[1::2] = literals
        return "".join(pieces)


def _text(value: str) -> str | None:
    # A backslash may need E'', and a NUL would end the statement.
    return None if "\\" in value or "\0" in value else "'" + value.replace("'", "''") + "'"


def _integer(value: int) -> str:
    return f" {value}" if value < 0 else str(value)  # "--" begins a comment


def _moment(value: datetime) -> str:
    return f"'{value.isoformat()}'::timestamp{'' if value.tzinfo is None else 'tz'}"


#: by the exact type: a class of somebody else's may have an adapter of its own
_WRITERS: Final[dict[type, Callable[[Any], str | None]]] = {
    str: _text,
    type(None): lambda _: "NULL",
    bool: lambda value: "true" if value else "false",
    int: _integer,
    datetime: _moment,
    Json: lambda value: _text(value.dumps(value.adapted)),
}
