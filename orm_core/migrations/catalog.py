"""The schema of a database as PostgreSQL itself tells it, to compare two of them.

``read(database)`` answers tables, columns, constraints, indexes, row security, enums, sequences and
the triggers that models ask for, with every
name qualified and every expression in the server's own spelling, so that two schemas are equal
exactly when their catalogs are (PostgreSQL manual, "System Catalogs" and "System Catalog
Information Functions"). What an extension owns and the migrations' own table are left out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.migrations import dependents, row_security
from orm_core.migrations.dependents import Dependent
from orm_core.migrations.names import Name
from orm_core.migrations.row_security import RowSecurity

#: the table in which peewee-migrate keeps what is applied
HISTORY: Final = "migratehistory"


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``default``, ``generated`` are SQL expressions, ``identity`` is 'a', 'd' or ''."""

    name: str
    type: str
    not_null: bool
    default: str | None = None
    generated: str | None = None
    identity: str = ""
    collation: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Constraint:
    """A constraint; ``kind`` is 'p', 'u', 'f', 'c' or 'x' as in pg_constraint."""

    name: str
    kind: str
    definition: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """An index that no constraint owns; ``definition`` is the whole CREATE INDEX."""

    name: str
    definition: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that the models ask for; ``enabled`` as in pg_trigger."""

    name: str
    definition: str
    enabled: str = "O"


@dataclass(frozen=True, slots=True)
class Table:
    """A table with all that belongs to it; ``options`` are those of WITH."""

    name: Name
    columns: dict[str, Column] = field(default_factory=dict[str, Column])
    constraints: dict[str, Constraint] = field(default_factory=dict[str, Constraint])
    indexes: dict[str, Index] = field(default_factory=dict[str, Index])
    comment: str | None = None
    options: tuple[str, ...] = ()
    triggers: dict[str, Trigger] = field(default_factory=dict[str, Trigger])
    row_security: RowSecurity = field(default_factory=RowSecurity)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of such triggers; ``is_public`` when every role may use it for its own."""

    name: Name
    definition: str
    is_public: bool


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum type; labels are in their order."""

    name: Name
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence; ``owner`` is the column that it goes with, if any, as its identity or not."""

    name: Name
    type: str
    owner: tuple[Name, str] | None = None
    identity: bool = False


@dataclass(frozen=True, slots=True)
class Catalog:
    """All of a database's schema that migrations are about.

    ``dependents`` are none of the models' business: they don't count when catalogs are compared.
    """

    schemas: frozenset[str] = frozenset()
    tables: dict[Name, Table] = field(default_factory=dict[Name, Table])
    enums: dict[Name, Enum] = field(default_factory=dict[Name, Enum])
    sequences: dict[Name, Sequence] = field(default_factory=dict[Name, Sequence])
    functions: dict[Name, Function] = field(default_factory=dict[Name, Function])
    dependents: tuple[Dependent, ...] = field(default=(), compare=False)


_OURS = """
    NOT LIKE ALL (ARRAY['pg\\_%%', 'information_schema'])
"""
_NO_EXTENSION = """
    NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = '{catalog}'::pg_catalog.regclass
                  AND d.objid = {oid} AND d.deptype = 'e')
"""
_TABLES = f"""
    SELECT n.nspname, c.relname, pg_catalog.obj_description(c.oid, 'pg_class'),
           coalesce(c.reloptions, '{{}}')
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname {_OURS} AND c.relname <> %s
      AND {_NO_EXTENSION.format(catalog="pg_catalog.pg_class", oid="c.oid")}
    ORDER BY 1, 2
"""
_COLUMNS = f"""
    SELECT n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
           a.attnotnull,
           CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
           CASE WHEN a.attgenerated <> '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
           a.attidentity,
           CASE WHEN a.attcollation <> t.typcollation THEN o.collname END,
           pg_catalog.col_description(c.oid, a.attnum)
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
    LEFT JOIN pg_catalog.pg_collation AS o ON o.oid = a.attcollation
    WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
      AND n.nspname {_OURS}
    ORDER BY c.oid, a.attnum
"""
_CONSTRAINTS = f"""
    SELECT n.nspname, c.relname, o.conname, o.contype,
           pg_catalog.pg_get_constraintdef(o.oid, true),
           pg_catalog.obj_description(o.oid, 'pg_constraint')
    FROM pg_catalog.pg_constraint AS o
    JOIN pg_catalog.pg_class AS c ON c.oid = o.conrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE o.contype IN ('p', 'u', 'f', 'c', 'x') AND n.nspname {_OURS}
    ORDER BY 1, 2, 3
"""
_INDEXES = f"""
    SELECT n.nspname, c.relname, i.relname, pg_catalog.pg_get_indexdef(i.oid),
           pg_catalog.obj_description(i.oid, 'pg_class')
    FROM pg_catalog.pg_index AS x
    JOIN pg_catalog.pg_class AS c ON c.oid = x.indrelid
    JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS o
                      WHERE o.conindid = i.oid AND o.contype IN ('p', 'u', 'x'))
      AND n.nspname {_OURS}
    ORDER BY 1, 2, 3
"""
_TRIGGERS = f"""
    SELECT n.nspname, c.relname, t.tgname, pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled
    FROM pg_catalog.pg_trigger AS t
    JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND n.nspname {_OURS} AND t.tgname LIKE {dependents.OF_MODELS}
    ORDER BY 1, 2, 3
"""
_FUNCTIONS = f"""
    SELECT n.nspname, p.proname, pg_catalog.pg_get_functiondef(p.oid),
           EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(
               p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a WHERE a.grantee = 0)
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname {_OURS} AND p.proname LIKE {dependents.OF_MODELS}
      AND p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype
    ORDER BY 1, 2
"""
_ENUMS = f"""
    SELECT n.nspname, t.typname,
           pg_catalog.array_agg(e.enumlabel::pg_catalog.text ORDER BY e.enumsortorder)
    FROM pg_catalog.pg_enum AS e
    JOIN pg_catalog.pg_type AS t ON t.oid = e.enumtypid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    WHERE {_NO_EXTENSION.format(catalog="pg_catalog.pg_type", oid="t.oid")}
    GROUP BY 1, 2
    ORDER BY 1, 2
"""
_SEQUENCES = f"""
    SELECT n.nspname, s.relname, pg_catalog.format_type(q.seqtypid, NULL),
           tn.nspname, t.relname, a.attname, coalesce(d.deptype = 'i', false)
    FROM pg_catalog.pg_sequence AS q
    JOIN pg_catalog.pg_class AS s ON s.oid = q.seqrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = s.relnamespace
    LEFT JOIN pg_catalog.pg_depend AS d
           ON d.objid = s.oid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
          AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0
          AND d.deptype IN ('a', 'i')
    LEFT JOIN pg_catalog.pg_class AS t ON t.oid = d.refobjid
    LEFT JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    WHERE n.nspname {_OURS} AND coalesce(t.relname, '') <> %s
    ORDER BY 1, 2
"""
_SCHEMAS = f"""
    SELECT n.nspname FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname {_OURS}
      AND {_NO_EXTENSION.format(catalog="pg_catalog.pg_namespace", oid="n.oid")}
"""


def read(database: peewee.Database) -> Catalog:
    """The catalog of the database, seen in one transaction."""
    with database.atomic():
        # With an empty path every name in an expression is written with its schema.
        path = _rows(database, "SELECT pg_catalog.current_setting('search_path')")[0][0]
        database.execute_sql("SET LOCAL search_path = ''")
        try:
            return _read(database)
        finally:
            restore = "SELECT pg_catalog.set_config('search_path', %s, true)"
            database.execute_sql(restore, (path,))


def _read(database: peewee.Database) -> Catalog:
    columns: dict[Name, dict[str, Column]] = defaultdict(dict)
    for schema, table, *rest in _rows(database, _COLUMNS):
        columns[schema, table][rest[0]] = Column(*rest)
    constraints: dict[Name, dict[str, Constraint]] = defaultdict(dict)
    for schema, table, *rest in _rows(database, _CONSTRAINTS):
        constraints[schema, table][rest[0]] = Constraint(*rest)
    indexes: dict[Name, dict[str, Index]] = defaultdict(dict)
    for schema, table, *rest in _rows(database, _INDEXES):
        indexes[schema, table][rest[0]] = Index(*rest)
    triggers: dict[Name, dict[str, Trigger]] = defaultdict(dict)
    for schema, table, *rest in _rows(database, _TRIGGERS):
        triggers[schema, table][rest[0]] = Trigger(*rest)
    security = row_security.read(database)
    tables: dict[Name, Table] = {}
    for schema, table, comment, options in _rows(database, _TABLES, HISTORY):
        name = (schema, table)
        tables[name] = Table(
            name,
            columns[name],
            constraints[name],
            indexes[name],
            comment,
            tuple(options),
            triggers[name],
            security[name],
        )
    sequences: dict[Name, Sequence] = {}
    for schema, sequence, kind, *owner, identity in _rows(database, _SEQUENCES, HISTORY):
        owned_by = ((owner[0], owner[1]), owner[2]) if owner[1] else None
        sequences[schema, sequence] = Sequence((schema, sequence), kind, owned_by, identity)
    enums = {
        (schema, name): Enum((schema, name), tuple(labels))
        for schema, name, labels in _rows(database, _ENUMS)
    }
    schemas = frozenset(name for (name,) in _rows(database, _SCHEMAS))
    functions = {
        (schema, name): Function((schema, name), *rest)
        for schema, name, *rest in _rows(database, _FUNCTIONS)
    }
    return Catalog(schemas, tables, enums, sequences, functions, dependents.read(database))


def _rows(database: peewee.Database, sql: str, *params: str) -> list[Any]:
    return list(database.execute_sql(sql, params).fetchall())
