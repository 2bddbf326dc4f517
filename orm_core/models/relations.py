"""Rows that belong to others: one query for each relation, whatever the number of parents.

The children are found by the parents' keys in one array, so that the SQL is always the same and the
parents are not selected anew; a limit for each parent is a LATERAL subquery, which an index on the
reference and the order serves. What Peewee's ``Load`` can ask beyond that is left to Peewee.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.models.batches import Column, sql_type
from orm_core.peewee_facade import Expression, Load

#: Peewee's PREFETCH_TYPE.JOIN
_JOIN: Final = 2


class AnyOf(peewee.Node):
    """``ANY(...)`` of the values of a field, as one array."""

    def __init__(self, column: Column) -> None:
        self.array: str = column.array()
        self.sql_type: str = sql_type(column.field)

    def __sql__(self, ctx: Any) -> Any:
        ctx.literal("ANY(").value(self.array, converter=False, add_param=True)
        return ctx.literal(f"::{self.sql_type}[])")


class ParentKey(peewee.Node):
    """The key of the parent whose children a LATERAL subquery selects."""

    def __sql__(self, ctx: Any) -> Any:
        return ctx.literal('"parents"."key"')


class Related(Load):
    """A ``Load`` whose rows are those that its query sees, found by the parents' keys."""

    @classmethod
    def of(cls, load: Any) -> Any:
        """The same as a ``Load``, or as a reference. Raises ``InvalidValue`` for a wrong limit."""
        given = load if isinstance(load, Load) else Load(load)
        limit = given._per_parent
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, int) or limit < 1
        ):
            raise InvalidValue("per_parent must be a whole number, 1 or more; no SQL was sent.")
        ours = object.__new__(cls)
        ours.__dict__ = {**given.__dict__, "_children": tuple(map(cls.of, given._children))}
        return ours

    def _run(
        self, parents: Sequence[Any], parent_query: Any, depth: int = 0, database: Any = None
    ) -> tuple[list[Any], Any]:
        field = self._field
        here, there = (field.rel_field, field) if self._is_backref else (field, field.rel_field)
        keys = Column(here, list(dict.fromkeys(_keys(parents, here))))
        base = self._base(there.model)
        if not keys.has_text or not self._is_plain(base):
            children, query = super()._run(parents, parent_query, depth, database)
            return children, query
        database = database or there.model._meta.database
        if self._is_backref and self._per_parent is not None:
            query, children = base, self._of_each(base, keys, database)
        else:
            query = base.where(Expression(there, peewee.OP.EQ, AnyOf(keys)))
            children = list(query.execute(database)) if keys.values else []
        if self._is_backref:
            _give_children(field, parents, children)
        else:
            _give_parent(field, parents, children)
        return children, query

    def _is_plain(self, base: Any) -> bool:
        """Whether nothing is asked for that only Peewee's way of linking knows."""
        strategies = {self._strategy, *(child._strategy for child in self._children)}
        if _JOIN in strategies or not hasattr(base, "_visibility"):
            return False
        alone = not base._joins and base._from_list == [base.model] and base._group_by is None
        return self._per_parent is None or not self._is_backref or alone

    def _of_each(self, base: Any, keys: Column, database: Any) -> list[Any]:
        one = base.where(Expression(self._field, peewee.OP.EQ, ParentKey()))
        if not base._order_by:
            one = one.order_by(*self._field.model._meta.get_primary_keys())
        sql, values = one.limit(self._per_parent).offset(None).rendered(database)
        # Of the class of its subquery's: it tells whether it can be prepared.
        of_each = sql.__class__(
            f"SELECT related.* FROM unnest(%s::{sql_type(keys.field)}[]) "
            f'AS "parents" ("key") CROSS JOIN LATERAL ({sql}) AS related'
        )
        cursor = database.execute_sql(of_each, [keys.array(), *values])
        return list(base._get_cursor_wrapper(cursor))

    def _windowed(self, *args: Any, **kwargs: Any) -> Any:
        query = super()._windowed(*args, **kwargs)
        base: Any = self._query
        return query._seeing(base._visibility) if hasattr(base, "_visibility") else query


def load_related(rows: Sequence[Any], query: Any, loads: Sequence[Any], depth: int = 0) -> None:
    """Load along with ``rows`` of ``query`` what it asks for; for rows that Peewee does not see."""
    for load in loads if rows else ():
        children, below = load._run(rows, query, depth)
        load_related(children, below, load._children, depth + 1)


def _keys(rows: Sequence[Any], field: Any) -> list[Any]:
    try:
        keys = [row.__data__[field.name] for row in rows]
    except KeyError:
        raise InvalidValue(
            f"with_related() finds rows by {field.label}; select it, too. No SQL was sent for them."
        ) from None
    return [key for key in keys if key is not None]


def _give_children(field: Any, parents: Sequence[Any], children: Sequence[Any]) -> None:
    """Each parent's back-reference becomes the list of its children."""
    name, key, backref = field.name, field.rel_field.name, field.backref
    families: dict[Any, tuple[list[Any], Any]] = {}
    for parent in parents:
        value = parent.__data__[key]
        known = families.get(value)
        families[value] = family = ([] if known is None else known[0], parent)
        setattr(parent, backref, family[0])
    for child in children:
        siblings, parent = families[child.__data__[name]]
        siblings.append(child)
        child.__dict__.setdefault("__rel__", {})[name] = parent


def _give_parent(field: Any, rows: Sequence[Any], parents: Sequence[Any]) -> None:
    name, key = field.name, field.rel_field.name
    by_key = {parent.__data__[key]: parent for parent in parents}
    for row in rows:
        parent = by_key.get(row.__data__[name])
        if parent is not None:
            row.__rel__[name] = parent
