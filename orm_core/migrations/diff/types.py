"""Types as PostgreSQL spells them: what they share, and how values get from one to another."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from orm_core.migrations.catalog import Column, Enum
from orm_core.migrations.names import qualified, quote

_TIMES: Final = {"timestamp without time zone", "timestamp with time zone"}
_WIDER: Final = {
    ("smallint", "integer"),
    ("smallint", "bigint"),
    ("integer", "bigint"),
    ("real", "double precision"),
    ("date", "timestamp with time zone"),
}
_SIZED: Final = re.compile(r"(character varying|numeric)\((\d+)(?:,(\d+))?\)")


def base(kind: str) -> str:
    """A type without its length or precision."""
    return re.sub(r"\(.*?\)", "", kind)


def family(kind: str) -> str:
    """What types have in common that PostgreSQL turns into each other by itself."""
    name = base(kind)
    if name in ("smallint", "integer", "bigint"):
        return "integer"
    return "text" if name == "character varying" else name


def uses(definition: str, enum: Enum) -> bool:
    """Whether a type or an expression names this enum."""
    name = re.escape(qualified(enum.name))
    return re.search(rf"(?<![\w\"]){name}(?![\w\"])", definition) is not None


def is_extension(old: tuple[str, ...], new: tuple[str, ...]) -> bool:
    """Whether ``new`` is ``old`` with labels put in between."""
    return tuple(label for label in new if label in old) == old


def using(old: Column, new: Column, cast_exists: Callable[[str, str], bool]) -> str:
    """How the values get from one type to the other, where PostgreSQL must be told."""
    if family(new.type) in ("text", "character", family(old.type)) and old.type != "bytea":
        return ""  # and a text that is too long is refused, not cut
    return f" USING {_converted(quote(new.name), old.type, new.type, cast_exists)}"


def replaced(column: Column) -> str:
    """How a column's values get into an enum that was made anew."""
    through = "text[]" if column.type.endswith("[]") else "text"
    return f" USING {quote(column.name)}::{through}::{column.type}"


def _converted(value: str, old: str, new: str, cast_exists: Callable[[str, str], bool]) -> str:
    from_text = family(old) in ("text", "character")
    if {base(old), base(new)} == _TIMES:
        # Times without a zone are UTC here, whatever the zone of who applies the file.
        return f"{value} AT TIME ZONE 'UTC'"
    if new == "bytea" and from_text:
        return f"convert_to({value}, 'UTF8')"
    if old == "bytea":
        return f"convert_from({value}, 'UTF8')::{new}"
    if new.endswith("[]") and not old.endswith("[]") and not from_text:
        through = "" if cast_exists(old, new.removesuffix("[]")) else "::text"
        return f"CASE WHEN {value} IS NOT NULL THEN ARRAY[{value}{through}]::{new} END"
    if old.endswith("[]") and not new.endswith("[]") and new not in ("json", "jsonb"):
        # A list of more than one value does not fit, and its text makes the cast fail.
        one = f"CASE WHEN cardinality({value}) > 1 THEN {value}::text ELSE {value}[1]::text END"
        return f"({one})::{new}"
    if cast_exists(old, new):
        return f"{value}::{new}"
    if new in ("json", "jsonb") and not from_text:
        return f"to_{new}({value})"
    if old in ("json", "jsonb") and not new.endswith("[]"):
        return f"({value} #>> '{{}}')::{new}"
    if cast_exists(old, "integer") and cast_exists("integer", new):
        return f"{value}::integer::{new}"
    return f"{value}::text::{new}"


def narrows(table: str, old: Column, new: Column) -> str | None:
    """What a change of type may lose; None for those that keep every value."""
    if old.type == new.type or (old.type, new.type) in _WIDER or new.type == "text":
        return None
    before, after = _SIZED.fullmatch(old.type), _SIZED.fullmatch(new.type)
    if before and after and before[1] == after[1]:
        digits, places = int(before[2]), int(before[3] or 0)
        if int(after[3] or 0) >= places and int(after[2]) - int(after[3] or 0) >= digits - places:
            return None
    if new.type in ("character varying", "numeric") and old.type.startswith(new.type):
        return None
    return f"values of {table}.{new.name} that do not fit {new.type}"
