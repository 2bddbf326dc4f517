"""What a foreign key refers to, read from its definition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from orm_core.migrations.catalog import Constraint, Index
from orm_core.migrations.names import identifiers

_IDENTIFIER: Final = r'(?:"(?:[^"]|"")+"|[^\s"(),.]+)'
_LINK: Final = re.compile(
    rf"FOREIGN KEY \((?P<own>.+?)\) REFERENCES "
    rf"(?P<table>{_IDENTIFIER}\.{_IDENTIFIER})\((?P<columns>.+?)\)(?= |$)"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a foreign key says: its columns, the table as it stands in SQL, that one's columns."""

    own: frozenset[str]
    table: str
    columns: frozenset[str]


def reference(one: Constraint | Index) -> Reference | None:
    """What a constraint refers to, if it is a foreign key."""
    if not isinstance(one, Constraint) or one.kind != "f":
        return None
    found = _LINK.match(one.definition)
    assert found is not None, one.definition  # noqa: S101 - so PostgreSQL writes it
    return Reference(identifiers(found["own"]), found["table"], identifiers(found["columns"]))
