"""Values for NOT NULL columns that a rollback brings back: what was in them is gone."""

from __future__ import annotations

import re
from typing import Final

from orm_core.migrations.catalog import Catalog, Column, Table
from orm_core.migrations.diff.references import reference
from orm_core.migrations.names import body, identifiers, qualified, quote, text

_VALUES: Final = {
    "uuid": "gen_random_uuid()",
    "boolean": "false",
    "date": "current_date",
    "timestamp with time zone": "now()",
    "timestamp without time zone": "now()",
    "time without time zone": "'00:00'",
    "time with time zone": "'00:00+00'",
    "inet": "'0.0.0.0'",
    "cidr": "'0.0.0.0/0'",
    "macaddr": "'00:00:00:00:00:00'",
    "json": "'{}'",
    "jsonb": "'{}'",
    "point": "'(0,0)'",
}
_EMPTY: Final = ("text", "character varying", "character", "bytea", "tsvector", "tsquery", "xml")
#: how many random bits a positive number holds
_BITS: Final = {"smallint": 15, "integer": 31, "bigint": 48}


def needs_fill(column: Column) -> bool:
    """Whether rows that are there need a value when this column comes."""
    return (
        column.not_null
        and column.default is None
        and column.generated is None
        and not column.identity
    )


def stand_ins(old: Catalog, new: Catalog) -> dict[str, str]:
    """SQL for the NOT NULL columns that come back, by ``schema.table.column``."""
    return {
        f"{'.'.join(table.name)}.{column.name}": _stand_in(table, column, new)
        for table in new.tables.values()
        if table.name in old.tables
        for column in table.columns.values()
        if needs_fill(column) and column.name not in old.tables[table.name].columns
    }


def _stand_in(table: Table, column: Column, schema: Catalog) -> str:
    """SQL for a value: one that the column's type, its keys and references let pass."""
    for one in table.constraints.values():
        link = reference(one)
        if link and link.own == frozenset((column.name,)):
            target = next(iter(link.columns))
            return f"(SELECT {quote(target)} FROM {link.table} LIMIT 1)"
    if column.name in _unique_alone(table):
        return _different(column.type)
    return _value(column.type, schema)


def _unique_alone(table: Table) -> set[str]:
    """Columns that are a key by themselves."""
    keys = [one.definition for one in table.constraints.values() if one.kind in "pu"]
    keys += [
        body(one.definition, table.name).partition(" WHERE ")[0]
        for one in table.indexes.values()
        if one.definition.startswith("CREATE UNIQUE ")
    ]
    named = [identifiers(key.partition("(")[2]) & set(table.columns) for key in keys]
    return {column for columns in named if len(columns) == 1 for column in columns}


def _different(kind: str) -> str:
    """A value for each row."""
    base, size = _parts(kind)
    if base in _BITS:
        return f"('x' || right(gen_random_uuid()::text, 12))::bit(48)::bit({_BITS[base]})::bigint"
    if base in ("numeric", "real", "double precision"):
        return f"random() * 1e{max((size or 12) // 2, 1)}"
    if base in ("text", "character varying", "character") and size and size < 36:
        return f"right(gen_random_uuid()::text, {min(size, 12)})"
    if base.startswith(("timestamp", "date")):
        return "now() + random() * interval '1 day'"
    return "gen_random_uuid()::text" if base in _EMPTY else "gen_random_uuid()"


def _value(kind: str, schema: Catalog) -> str:
    if kind.endswith("[]"):
        return "'{}'"
    base, size = _parts(kind)
    for name, enum in schema.enums.items():
        if base in (".".join(name), name[1], qualified(name)):
            return text(enum.labels[0])
    if base in ("bit", "bit varying"):
        return f"B'{'0' * (size or 1)}'"
    if base.endswith("range"):
        return "'empty'" if "multi" not in base else "'{}'"
    return _VALUES.get(base) or ("''" if base in _EMPTY else "'0'")


def _parts(kind: str) -> tuple[str, int | None]:
    """``character varying(20)`` -> ``character varying``, 20."""
    size = re.search(r"\((\d+)", kind)
    return re.sub(r"\(.*?\)", "", kind), int(size[1]) if size else None
