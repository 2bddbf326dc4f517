"""The shape of a SELECT: what its SQL depends on, apart from its values.

Two queries of one shape have the same SQL, so that of the first is kept with the model and sent
for the others too, which saves walking them with all of Peewee's rules. Only shapes that are
surely understood are kept: rows of one model, compared with values by the usual operators. When a
shape is met first, its values as read here must be those that Peewee rendered, else it is never
taken from here.
"""

from __future__ import annotations

# It takes queries of any kind apart, whose parts no stub describes.
# pyright: basic
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.database.compiled_sql import CompiledSql
from orm_core.models.columns import CheckedField, has_one_type
from orm_core.models.relations import AnyOf, ParentKey
from orm_core.peewee_facade import OP

#: shapes kept for a model; then they start anew
MOST_SHAPES: Final = 512
#: items of a list in a shape that is kept: each length is a shape of its own
MOST_ITEMS: Final = 100
#: parts of a query that are read; any other one must be empty
_READ: Final = frozenset(
    [
        "model",
        "_join_ctx",
        "_joins",
        "_is_default",
        "_from_list",
        "_returning",
        "_where",
        "_order_by",
        "_limit",
        "_offset",
        "_visibility",
        "_database",
        "_cursor_wrapper",
        "_row_type",
        "_constructor",
        "_hash",
        "_simple_distinct",
    ]
)
_MANY: Final = (list, tuple, frozenset, set)
#: operators beside which the server takes a value for one of the column's type
_COMPARES: Final = frozenset(
    {OP.EQ, OP.NE, OP.LT, OP.LTE, OP.GT, OP.GTE, OP.IN, OP.NOT_IN, OP.LIKE, OP.ILIKE}
)
#: a value in a shape: one of its column's type, and any other
_TYPED: Final = "?"
_UNTYPED: Final = "?!"


class _Unknown(Exception):
    """The query has a part that is not read here."""


def render(query: Any, database: Any) -> tuple[str, list[Any]]:
    """The SQL of a query and its values, as ``query.sql()`` has them."""
    shapes = query.model._meta.shapes
    values: list[Any] = []
    try:
        key = _key(query, values)
    except _Unknown:
        return _rendered(query, database)
    kept = shapes.get(key)
    if kept is not None:
        return kept, values
    sql, rendered = _rendered(query, database)
    if key not in shapes and _same(values, rendered):
        if len(shapes) >= MOST_SHAPES:
            shapes.clear()
        sql = shapes[key] = CompiledSql(sql) if _is_typed(key) else sql
    return sql, rendered


def _rendered(query: Any, database: Any) -> tuple[str, list[Any]]:
    sql, values = database.get_sql_context().parse(query)
    return sql, values


def _is_typed(shape: Any) -> bool:
    """Whether each value is of its column's type: then the server may keep the plan."""
    return all(map(_is_typed, shape)) if isinstance(shape, tuple) else shape != _UNTYPED


def _same(values: list[Any], others: list[Any]) -> bool:
    """Whether both are the same, types included; what compares oddly is not."""
    return len(values) == len(others) and all(
        type(one) is type(other) and (one is other or repr(one) == repr(other))
        for one, other in zip(values, others, strict=True)
    )


def _key(query: Any, values: list[Any]) -> Any:
    model = query.model
    alone = not query._joins and len(query._from_list) == 1 and query._from_list[0] is model
    if not alone or isinstance(model, peewee.ModelAlias):
        raise _Unknown
    for name, part in vars(query).items():
        if part is not None and part is not False and name not in _READ:
            raise _Unknown
    columns = None if query._selects_all() else _columns(model, query._returning)
    where = query._where if query._where is None else _part(query._where, model, values, None)
    order = tuple([_term(term, model) for term in query._order_by or ()])
    values.extend(count for count in (query._limit, query._offset) if count is not None)
    paging = query._limit is not None, query._offset is not None
    return query._visibility, columns, where, order, paging, query._simple_distinct


def _columns(model: Any, nodes: Any) -> tuple[str, ...]:
    return tuple([_field(node, model) for node in nodes])


def _field(node: Any, model: Any) -> str:
    """The name of a plain field of the model."""
    if isinstance(node, CheckedField) and model._meta.fields.get(node.name) is node:
        return str(node.name)
    raise _Unknown


def _term(term: Any, model: Any) -> Any:
    if type(term) is peewee.Ordering:
        return _field(term.node, model), term.direction, term.nulls, term.collation
    return _field(term, model)


def _part(part: Any, model: Any, values: list[Any], field: Any, *, typed: bool = False) -> Any:
    """The shape of a part of WHERE; ``field`` converts its values, ``typed`` if it compares them."""
    kind = type(part)
    if kind is peewee.Expression:
        left, right = part.lhs, part.rhs
        compared = left if isinstance(left, CheckedField) else None
        if part.op in (OP.IN, OP.NOT_IN) and not isinstance(right, _MANY):
            raise _Unknown
        first = _part(left, model, values, compared)
        if right is None and part.op in (OP.IS, OP.IS_NOT):
            return first, part.op, part.flat
        typed = part.op in _COMPARES
        return first, part.op, part.flat, _part(right, model, values, compared, typed=typed)
    if isinstance(part, CheckedField):
        return _field(part, model)
    if kind is AnyOf:
        values.append(part.array)
        return part.sql_type
    if kind is ParentKey:
        return "parent"
    if kind is peewee.Value:
        if part.multi or part.value is None:
            raise _Unknown
        return _value(part.value, values, part.converter, field, typed=typed)
    if isinstance(part, peewee.Node):
        raise _Unknown
    if isinstance(part, _MANY) and 0 < len(part) <= MOST_ITEMS:
        return tuple([_value(item, values, None, field, typed=typed) for item in part])
    return _value(part, values, None, field, typed=typed)


def _value(value: Any, values: list[Any], converter: Any, field: Any, *, typed: bool) -> str:
    if value is None or isinstance(value, (*_MANY, peewee.Node, type, range)):
        raise _Unknown
    if converter:
        value = converter(value)
    elif converter is None and field is not None:
        value = field.db_value(value)
    if isinstance(value, peewee.Node):
        raise _Unknown
    values.append(value)
    return _TYPED if typed and converter is None and has_one_type(field) else _UNTYPED
