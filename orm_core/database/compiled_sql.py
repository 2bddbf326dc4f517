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
        pieces = self._pieces.copy()
        if len(pieces) != 2 * len(values) + 1:
            return None
        try:
            texts = "".join(values)
            literals = [f"'{value}'" for value in values]
        except TypeError:  # not all are texts
            texts = "".join([value for value in values if isinstance(value, str)])
            literals = [_literal(value) for value in values]
        if "\\" in texts or "\0" in texts:  # may need E'', and would end the statement
            return None
        if "'" in texts:
            literals = [_literal(value) for value in values]
        if None in literals:
            return None
        pieces[1::2] = literals
        return "".join(pieces)


def _literal(value: Any) -> Any:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    write = _WRITERS.get(value.__class__)
    return write and write(value)


def _integer(value: int) -> str:
    return f" {value}" if value < 0 else str(value)  # "--" begins a comment


def _moment(value: datetime) -> str:
    return f"'{value.isoformat()}'::timestamp{'' if value.tzinfo is None else 'tz'}"


def _json(value: Json) -> str | None:
    text = value.dumps(value.adapted)
    return None if "\\" in text else "'" + text.replace("'", "''") + "'"


#: beside texts; by the exact type, as a class of somebody else's may have an adapter of its own
_WRITERS: Final[dict[type, Callable[[Any], str | None]]] = {
    type(None): lambda _: "NULL",
    bool: lambda value: "true" if value else "false",
    int: _integer,
    datetime: _moment,
    Json: _json,
}
