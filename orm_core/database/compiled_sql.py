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
from typing import Any, Final, cast

from psycopg2.extras import Json

_ASKING: Final = ", pg_current_xact_id_if_assigned()"
_PLACE = re.compile(r"%(s|%)")


class CompiledSql(str):
    """The text of a statement that is sent again and again, always with values of one type."""

    __slots__ = ("_bare", "_quoted")

    def __init__(self, text: str) -> None:
        pieces = _pieces(text)
        #: the text around the values, with an empty place for each of them: for any literals
        self._bare = _with_places(pieces, quote="")
        #: the same, where quotes stand around each place: for texts as they are
        self._quoted = _with_places(pieces, quote="'")

    def numbered(self) -> str:
        """The text with ``$1``, ``$2`` for the values, as PREPARE wants it."""
        places = itertools.count(1)
        return _PLACE.sub(lambda found: "%" if found[1] == "%" else f"${next(places)}", self)

    def call(self, name: str) -> CompiledSql:
        """``EXECUTE name (%s, %s)``."""
        values = ", ".join("%s" for found in _PLACE.finditer(self) if found[1] == "s")
        return CompiledSql(f"EXECUTE {name} ({values})" if values else f"EXECUTE {name}")

    def send(self, cursor: Any, values: Sequence[Any], before: str = "") -> None:
        """Run it, with what goes ``before`` it in the same text."""
        text = self.with_literals(values)
        if text is None:
            cursor.execute(before + self, values)
        else:
            cursor.execute(before + text)

    def with_literals(self, values: Sequence[Any]) -> str | None:
        """The statement with these values in it; None where the driver has to write one."""
        try:
            texts = "".join(values)
        except TypeError:  # not all are texts
            return self._with_written(values)
        if "\\" in texts or "\0" in texts or "'" in texts:
            return self._with_written(values)
        pieces = self._quoted.copy()
        try:
            pieces[1::2] = values
        except ValueError:  # not as many values as places
            return None
        return "".join(pieces)

    def _with_written(self, values: Sequence[Any]) -> str | None:
        texts = "".join([value for value in values if isinstance(value, str)])
        if "\\" in texts or "\0" in texts:  # may need E'', and would end the statement
            return None
        if "'" in texts:
            values = [_doubled(value) if isinstance(value, str) else value for value in values]
        literals = [f"'{value}'" if isinstance(value, str) else _literal(value) for value in values]
        pieces = self._bare.copy()
        if None in literals or len(pieces) != 2 * len(literals) + 1:
            return None
        pieces[1::2] = cast("list[str]", literals)
        return "".join(pieces)


class AskingSql(CompiledSql):
    """A statement with RETURNING that also answers the transaction's number, as the last column.

    So that a COMMIT without an answer can be found out needs no round trip of its own.
    """

    __slots__ = ("plain",)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        #: the statement, as it is told to those who listen
        self.plain: CompiledSql = CompiledSql(text.removesuffix(_ASKING))

    @classmethod
    def of(cls, sql: CompiledSql) -> AskingSql:
        """The asking form of a statement that ends with RETURNING."""
        return cls(f"{sql}{_ASKING}")


def _pieces(text: str) -> list[str]:
    """What stands before, between and after the places of the values."""
    pieces = [""]
    end = 0
    for found in _PLACE.finditer(text):
        pieces[-1] += text[end : found.start()]
        end = found.end()
        if found[1] == "%":
            pieces[-1] += "%"
        else:
            pieces.append("")
    pieces[-1] += text[end:]
    return pieces


def _with_places(pieces: list[str], *, quote: str) -> list[str]:
    first, *rest = pieces
    placed = [first]
    for piece in rest:
        placed[-1] += quote
        placed += ["", quote + piece]
    return placed


def _literal(value: Any) -> str | None:
    """What is no text; None where the driver has to write it."""
    write = _WRITERS.get(value.__class__)
    return write and write(value)


def _doubled(text: str) -> str:
    return text.replace("'", "''")


def _integer(value: int) -> str:
    return f" {value}" if value < 0 else str(value)  # "--" begins a comment


def _moment(value: datetime) -> str:
    return f"'{value.isoformat()}'::timestamp{'' if value.tzinfo is None else 'tz'}"


def _json(value: Json) -> str | None:
    text = value.dumps(value.adapted)
    return None if "\\" in text else f"'{_doubled(text)}'"


#: beside texts; by the exact type, as a class of somebody else's may have an adapter of its own
_WRITERS: Final[dict[type, Callable[[Any], str | None]]] = {
    type(None): lambda _: "NULL",
    bool: lambda value: "true" if value else "false",
    int: _integer,
    datetime: _moment,
    Json: _json,
}
