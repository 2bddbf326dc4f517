"""Views and triggers of hand-written files, which lean on columns that the models change.

PostgreSQL alters no column that a view reads or a trigger names, so they are dropped before and
made again after. The models know nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.migrations.names import Name, qualified, quote, text


@dataclass(frozen=True, slots=True)
class Dependent:
    """A view or a trigger written by hand, and the columns it leans on, which can't change below it.

    ``create`` makes it again, with its rights and comments. A trigger leans on the columns of
    ``UPDATE OF`` and ``WHEN``, and on all of a view.
    """

    kind: str
    name: Name
    drop: str
    create: tuple[str, ...]
    uses: frozenset[tuple[Name, str]]

    def leans_on(self, other: Dependent) -> bool:
        """Whether this reads or belongs to a view."""
        return other.kind != "trigger" and any(name == other.name for name, _ in self.uses)


#: how triggers and functions are called that the models ask for; in the Catalog, not here
OF_MODELS: Final = "'orm\\_core\\_%%'"
_OURS: Final = "n.nspname NOT LIKE ALL (ARRAY['pg\\_%%', 'information_schema'])"
_USES = """
    SELECT pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_array(
               pg_catalog.jsonb_build_array(un.nspname, u.relname), a.attname))
    FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_class AS u ON u.oid = d.refobjid
    JOIN pg_catalog.pg_namespace AS un ON un.oid = u.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = u.oid AND a.attnum = d.refobjsubid
    WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND {condition}
"""
_VIEW_USES = _USES.format(
    condition="""u.oid <> c.oid AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      AND d.objid IN (SELECT r.oid FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid)"""
)
_TRIGGER_USES = _USES.format(
    condition="d.objid = t.oid AND d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass"
)
_GRANTS = """
    SELECT pg_catalog.array_agg(pg_catalog.format('GRANT %%s ON %%I.%%I TO %%s', g.privilege_type,
               n.nspname, c.relname, CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE
               pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END))
    FROM pg_catalog.aclexplode(c.relacl) AS g WHERE g.grantee <> c.relowner
"""
_VIEWS = f"""
    SELECT CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END,
           n.nspname, c.relname, pg_catalog.pg_get_viewdef(c.oid), coalesce(c.reloptions, '{{}}'),
           pg_catalog.obj_description(c.oid, 'pg_class'),
           (SELECT pg_catalog.array_agg(pg_catalog.pg_get_indexdef(i.indexrelid))
            FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid),
           ({_GRANTS}), ({_VIEW_USES})
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('v', 'm') AND {_OURS}
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                      WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND e.objid = c.oid AND e.deptype = 'e')
    ORDER BY c.oid
"""
_TRIGGERS = f"""
    SELECT n.nspname, c.relname, t.tgname, pg_catalog.pg_get_triggerdef(t.oid),
           c.relkind = 'v', ({_TRIGGER_USES})
    FROM pg_catalog.pg_trigger AS t
    JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND {_OURS} AND t.tgname NOT LIKE {OF_MODELS}
    ORDER BY t.oid
"""


def read(database: peewee.Database) -> tuple[Dependent, ...]:
    """All of them, in the order in which they were made; ``search_path`` must be empty."""
    return (*_views(database), *_triggers(database))


def _views(database: peewee.Database) -> Iterator[Dependent]:
    for kind, schema, view, query, options, comment, indexes, grants, uses in _rows(
        database, _VIEWS
    ):
        what = f"{kind.upper()} {qualified((schema, view))}"
        settings = f" WITH ({', '.join(options)})" if options else ""
        create = [f"CREATE {what}{settings} AS\n{query.strip().rstrip(';')}"]
        create += [*(indexes or ()), *(grants or ())]
        if comment is not None:
            create.append(f"COMMENT ON {what} IS {text(comment)}")
        yield Dependent(kind, (schema, view), f"DROP {what}", tuple(create), _paths(uses))


def _triggers(database: peewee.Database) -> Iterator[Dependent]:
    for schema, table, trigger, create, of_view, uses in _rows(database, _TRIGGERS):
        name = (schema, table)
        drop = f"DROP TRIGGER {quote(trigger)} ON {qualified(name)}"
        whole: set[Any] = {(name, "*")} if of_view else set()
        paths = _paths(uses) | whole
        yield Dependent("trigger", (schema, trigger), drop, (create,), paths)


def _paths(uses: list[Any] | None) -> frozenset[tuple[Name, str]]:
    return frozenset(((schema, table), column) for (schema, table), column in uses or ())


def _rows(database: peewee.Database, sql: str) -> list[Any]:
    return list(database.execute_sql(sql, ()).fetchall())
