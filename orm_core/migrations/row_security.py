"""Row security of tables, as PostgreSQL tells it: part of the catalog."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from orm_core import peewee_facade as peewee
from orm_core.migrations.names import Name


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy; ``command`` is '*', 'r', 'a', 'w' or 'd' as in pg_policy."""

    name: str
    command: str
    permissive: bool
    roles: tuple[str, ...]
    using: str | None
    check: str | None


@dataclass(frozen=True, slots=True)
class RowSecurity:
    """Whether a table heeds policies, whether its owner does, and the policies."""

    enabled: bool = False
    forced: bool = False
    policies: dict[str, Policy] = field(default_factory=dict[str, Policy])


_OURS: Final = "n.nspname NOT LIKE ALL (ARRAY['pg\\_%%', 'information_schema'])"
_TABLES: Final = f"""
    SELECT n.nspname, c.relname, c.relrowsecurity, c.relforcerowsecurity
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND {_OURS}
"""
_POLICIES: Final = f"""
    SELECT n.nspname, c.relname, p.polname, p.polcmd, p.polpermissive,
           ARRAY(SELECT CASE r WHEN 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(r) END
                 FROM pg_catalog.unnest(p.polroles) AS r ORDER BY 1),
           pg_catalog.pg_get_expr(p.polqual, p.polrelid),
           pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
    FROM pg_catalog.pg_policy AS p
    JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE {_OURS}
    ORDER BY 1, 2, 3
"""


def read(database: peewee.Database) -> dict[Name, RowSecurity]:
    """That of each table; ``search_path`` must be empty."""
    policies: dict[Name, dict[str, Policy]] = defaultdict(dict)
    rows = database.execute_sql(_POLICIES, ()).fetchall()
    for schema, table, name, command, permissive, roles, *terms in rows:
        policies[schema, table][name] = Policy(name, command, permissive, tuple(roles), *terms)
    rows = database.execute_sql(_TABLES, ()).fetchall()
    return {
        (schema, table): RowSecurity(enabled, forced, policies[schema, table])
        for schema, table, enabled, forced in rows
    }
