"""Names and texts as they stand in SQL."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import TypeAlias

#: (schema, name)
Name: TypeAlias = tuple[str, str]

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[^\W\d][\w$]*)""")
#: words that can't be names without quotes ("SQL Key Words" in the PostgreSQL manual)
_RESERVED = frozenset(
    """all analyse analyze and any array as asc asymmetric authorization between binary both case
    cast check collate collation column concurrently constraint create cross current_catalog
    current_date current_role current_schema current_time current_timestamp current_user default
    deferrable desc distinct do else end except false fetch for foreign freeze from full grant
    group having ilike in initially inner intersect into is isnull join lateral leading left like
    limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps
    placing primary references returning right select session_user similar some symmetric system_user
    table tablesample then to trailing true union unique user using variadic verbose when where
    window with bigint bit boolean char character coalesce dec decimal exists extract float greatest
    grouping inout int integer interval json json_array json_arrayagg json_exists json_object
    json_objectagg json_query json_scalar json_serialize json_table json_value least merge_action
    national nchar none normalize nullif numeric out overlay position precision real row setof
    smallint substring time timestamp treat trim values varchar xmlattributes xmlconcat xmlelement
    xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable""".split()  # noqa: SIM905
)


def quote(name: str) -> str:
    """An identifier, quoted where it must be."""
    if _PLAIN.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def qualified(name: Name) -> str:
    """A schema and a name."""
    return f"{quote(name[0])}.{quote(name[1])}"


def body(definition: str, table: Name) -> str:
    """The definition of an index or a constraint, without the names of index and table."""
    return definition.rpartition(f" ON {qualified(table)} ")[2]


def identifiers(sql: str) -> frozenset[str]:
    """The words and quoted names in a piece of SQL; what stands in texts is none."""
    return frozenset(
        found["plain"] or found["quoted"].replace('""', '"')
        for found in _TOKEN.finditer(sql)
        if found["plain"] or found["quoted"]
    )


def spellings(name: Name, tables: Container[Name]) -> tuple[str, ...]:
    """How an author may call a table, the shortest last: ``public.users``, ``users``.

    Of twins in two schemas, the short name is that of the one in ``public``.
    """
    full = ".".join(name)
    short = name[0] == "public" or ("public", name[1]) not in tables
    return (full, name[1]) if short else (full,)


def text(value: str | None) -> str:
    """A text as an SQL literal, or NULL."""
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"
