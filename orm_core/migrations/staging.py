"""A migration in stages that hold nobody up: what ``generate(safe=True)`` writes.

An index on a table that is in use is built CONCURRENTLY, in a file of its own. A CHECK or a
foreign key is added NOT VALID, which looks at no row, and validated in the next file, under a
lock that lets reads and writes through. NOT NULL goes by way of such a CHECK, which spares SET NOT
NULL its scan (PostgreSQL manual, "ALTER TABLE", notes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from orm_core.migrations.catalog import Catalog
from orm_core.migrations.names import qualified, quote
from orm_core.models.columns import shorten

_TABLE: Final = r'(?P<table>(?:"(?:[^"]|"")+"|[\w$]+)\.(?:"(?:[^"]|"")+"|[\w$]+))'
_NAME: Final = r'(?P<name>"(?:[^"]|"")+"|[\w$]+)'
_INDEX = re.compile(rf"CREATE (?P<unique>UNIQUE )?INDEX {_NAME} ON {_TABLE} ")
_CONSTRAINT = re.compile(
    rf"ALTER TABLE {_TABLE} ADD CONSTRAINT {_NAME} (?:FOREIGN KEY|CHECK) ", re.DOTALL
)
_NOT_NULL = re.compile(rf"ALTER TABLE {_TABLE} ALTER COLUMN {_NAME} SET NOT NULL")


@dataclass(slots=True)
class Stages:
    """Statements of the first file, of the one that validates, and one index a file."""

    first: list[str] = field(default_factory=list[str])
    validating: list[str] = field(default_factory=list[str])
    indexes: list[str] = field(default_factory=list[str])


def stages(statements: Iterable[str], present: Catalog) -> Stages:
    """Divide the statements; ``present`` is the schema in use before them."""
    used = {qualified(name) for name in present.tables}
    result = Stages()
    for sql in statements:
        index, constraint = _INDEX.match(sql), _CONSTRAINT.match(sql)
        not_null = _NOT_NULL.fullmatch(sql)
        if index and index["table"] in used:
            result.indexes.append(sql.replace("INDEX ", "INDEX CONCURRENTLY ", 1))
        elif constraint and constraint["table"] in used:
            result.first.append(f"{sql} NOT VALID")
            result.validating.append(
                f"ALTER TABLE {constraint['table']} VALIDATE CONSTRAINT {constraint['name']}"
            )
        elif not_null and not_null["table"] in used:
            _by_check(result, not_null["table"], not_null["name"], sql)
        else:
            result.first.append(sql)
    return result


def _by_check(result: Stages, table: str, column: str, sql: str) -> None:
    bare = table.rpartition(".")[2].strip('"'), column.strip('"')
    check = quote(shorten("_".join((*bare, "not_null"))))
    result.first.append(
        f"ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID"
    )
    result.validating += [
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}",
        sql,
        f"ALTER TABLE {table} DROP CONSTRAINT {check}",
    ]


def index_name(sql: str) -> str:
    """The schema and name of the index that a CREATE INDEX CONCURRENTLY makes."""
    found = _INDEX.match(sql.replace("CONCURRENTLY ", "", 1))
    assert found is not None  # noqa: S101 - made by stages()
    return f"{found['table'].rpartition('.')[0]}.{found['name']}"
