"""Which effects of a migration hold up others or lose data, and the safer way.

After strong_migrations and squawk, and the PostgreSQL manual, "Explicit Locking" and "ALTER
TABLE".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from orm_core.migrations.effects import MODES, STOPS_WRITES, Effect


@dataclass(frozen=True, slots=True)
class _Way:
    """Statements that read all rows, and the safer way to the same."""

    pattern: re.Pattern[str]
    advice: str


def _way(pattern: str, advice: str) -> _Way:
    return _Way(re.compile(pattern, re.IGNORECASE), advice)


_WAYS: Final = (
    _way(
        r"^CREATE (UNIQUE )?INDEX",
        "while the index is built; --safe writes CREATE INDEX CONCURRENTLY",
    ),
    _way(r"^REINDEX", "while the index is built; REINDEX CONCURRENTLY, in a file of its own"),
    _way(r"\bEXCLUDE\b", "while an index is built; do it at a quiet hour"),
    _way(
        r"\b(UNIQUE|PRIMARY KEY)\b",
        "while an index is built; make the index CONCURRENTLY first and add the constraint USING "
        "INDEX",
    ),
    _way(
        r"\b(FOREIGN KEY|REFERENCES|CHECK)\b",
        "while all rows are checked; --safe writes NOT VALID, then VALIDATE",
    ),
    _way(
        r"SET NOT NULL",
        "while all rows are checked; --safe writes a CHECK NOT VALID first",
    ),
    _way(
        r"ATTACH PARTITION",
        "while all rows are checked; add a CHECK of the partition's bounds NOT VALID and VALIDATE "
        "it first",
    ),
    _way("", "while all rows are read; do it at a quiet hour"),
)
_ALL_ROWS = re.compile(r"^UPDATE\b(?!.*\bWHERE\b)", re.IGNORECASE)
_CHANGES_ROWS = re.compile(r"^UPDATE\b", re.IGNORECASE)
_OPENS = re.compile(
    r"^(ALTER TABLE\b.*\b(DISABLE|NO FORCE) ROW LEVEL|DROP POLICY\b)", re.IGNORECASE
)
_DELETES = re.compile(r"^(WITH\b.*)?\bDELETE FROM\b", re.IGNORECASE)


def judged(effects: list[Effect]) -> Iterator[Effect]:
    """The effects of one file, each with what it loses and what is dangerous about it."""
    changes_schema = any(
        MODES.index(mode) >= STOPS_WRITES for one in effects for _, mode in one.locks
    )
    for effect in effects:
        truncated = effect.sql.upper().startswith("TRUNCATE")
        loses = effect.loses
        if truncated:
            loses += tuple(f"rows of {table}" for table in effect.rewrites)
        elif effect.locks and _DELETES.search(effect.sql):
            loses += ("rows",)
        dangers = _dangers(effect, loses, changes_schema=changes_schema)
        yield replace(effect, loses=loses, dangers=tuple(dangers))


def _dangers(effect: Effect, loses: Sequence[str], *, changes_schema: bool) -> Iterator[str]:
    sql, modes = effect.sql, dict(effect.locks)
    yield from (_loss(one) for one in loses)
    if not sql.upper().startswith("TRUNCATE"):
        yield from (_rewrite(table, sql) for table in effect.rewrites)
    for table in effect.reads:
        stopped = "reads and writes" if modes[table] == MODES[-1] else "writes"
        way = next(one for one in _WAYS if one.pattern.search(sql))
        yield f"stops {stopped} of {table} {way.advice}"
    for name in effect.renames:
        yield (
            f"breaks the code that runs and uses the old name {name}; add the new one, move over, "
            "drop the old one in a later migration"
        )
    if _OPENS.search(sql):
        yield "lets roles see or write rows that row security kept from them"
    if effect.locks and (_ALL_ROWS.search(sql) or (changes_schema and _CHANGES_ROWS.search(sql))):
        beside = "in the same transaction as the schema" if changes_schema else "in one transaction"
        yield f"changes rows {beside}; for many rows use a batched backfill, in a file of its own"


def _loss(what: str) -> str:
    kind, _, name = what.partition(" ")
    if kind == "table":
        return f"loses a table with its rows, {name}"
    if kind == "column":
        return f"loses a column, {name}; stop using it in the code that runs first"
    return f"loses all {what}" if name else "loses rows"


def _rewrite(table: str, sql: str) -> str:
    if sql.upper().startswith("REFRESH"):
        return (
            f"{table} is written anew, and nobody can read it meanwhile; REFRESH MATERIALIZED VIEW "
            "CONCURRENTLY, which needs a unique index"
        )
    return (
        f"{table} is written anew, and nobody can read or write it meanwhile; add a new column, "
        "fill it in batches and switch over"
    )
