"""The shape of a SELECT or UPDATE: what its SQL depends on, apart from its values.

Two queries of one shape have the same SQL, so that of the first is kept with the model and sent
for the others too, which saves walking them with all of Peewee's rules. Only shapes that are
surely understood are kept: rows of a model, or of models that are joined, compared with values by
the usual operators, or set to values. When a shape is met first, its values as read here must be those that Peewee rendered,
else it is never taken from here.
"""

from __future__ import annotations

# It takes queries of any kind apart, whose parts no stub describes.
# pyright: basic
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from orm_core import peewee_facade as peewee
from orm_core.database.compiled_sql import CompiledSql
from orm_core.models.columns import CheckedField, has_one_type
from orm_core.models.relations import AnyOf, ParentKey
from orm_core.peewee_facade import OP

#: what makes of a query another one that asks something of its rows
Ask: TypeAlias = Callable[[Any], Any]

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
        "_for_update",
    ]
)
#: the same of an UPDATE
_READ_OF_UPDATE: Final = frozenset(
    [
        "model",
        "table",
        "_update",
        "_where",
        "_returning",
        "_return_cursor",
        "_visibility",
        "_database",
        "_cursor_wrapper",
        "_row_type",
        "_constructor",
        "_hash",
        "moment",
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
_NULL: Final = "NULL"


class _Unknown(Exception):
    """The query has a part that is not read here."""


def render(query: Any, database: Any, ask: Ask | None = None) -> tuple[str, list[Any]]:
    """The SQL of a SELECT and its values, as ``query.sql()`` has them; or of what ``ask`` makes."""
    values: list[Any] = []

    def asked() -> Any:
        return query if ask is None else ask(query)

    try:
        key = _key(query, values)
    except _Unknown:
        return _rendered(asked(), database)
    if ask is not None:
        key = ask, key
        values.append(1)  # its LIMIT
    meta = query.model._meta
    shapes = meta.shapes if _is_alone(query) else meta.joins
    return _of_shape(shapes, key, values, asked, database)


def render_update(query: Any, changes: Any, database: Any) -> tuple[str, list[Any]]:
    """The SQL of an UPDATE that sets ``changes``, and its values."""
    values: list[Any] = []

    def changing() -> Any:
        twin = query._rendered()
        twin._update = changes
        return twin

    try:
        key = _update_key(query, changes, values)
    except _Unknown:
        return _rendered(changing(), database)
    return _of_shape(query.model._meta.shapes, key, values, changing, database)


def count_of(query: Any) -> Any:
    """How many rows a query has, as Peewee asks for it."""
    rows = query.alias("_wrapped")
    if rows._count_can_project_one():
        rows = rows.select(peewee.SQL("1"))
    return peewee.Select([rows], [peewee.fn.COUNT(peewee.SQL("1"))]).limit(1)


def any_of(query: Any) -> Any:
    """Whether a query has a row, as Peewee asks for it."""
    rows = query.select(peewee.SQL("1")) if query._is_default else query
    return peewee.Select(columns=[peewee.fn.EXISTS(rows)]).limit(1)


def _of_shape(
    shapes: dict[Any, str], key: Any, values: list[Any], make: Callable[[], Any], database: Any
) -> tuple[str, list[Any]]:
    kept = shapes.get(key)
    if kept is not None:
        return kept, values
    sql, rendered = _rendered(make(), database)
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


def _is_alone(query: Any) -> bool:
    """Whether nothing is joined."""
    return query._from_list[0] is query.model


def _key(query: Any, values: list[Any]) -> Any:
    if len(query._from_list) != 1 or isinstance(query.model, peewee.ModelAlias):
        raise _Unknown
    _check_parts(query, _READ)
    models = [query.model]
    tables = None if _is_alone(query) else _tables(query._from_list[0], models, values)
    columns = None if query._selects_all() else _columns(query._returning, models)
    where = query._where if query._where is None else _part(query._where, models, values, None)
    order = tuple([_term(term, models) for term in query._order_by or ()])
    values.extend(count for count in (query._limit, query._offset) if count is not None)
    paging = query._limit is not None, query._offset is not None
    lock = query._for_update and _lock(query._for_update)
    return query._visibility, tables, columns, where, order, paging, query._simple_distinct, lock


def _update_key(query: Any, changes: Mapping[Any, Any], values: list[Any]) -> Any:
    models = [query.model]
    if not query._update or query.model._meta.version is not None:
        raise _Unknown
    _check_parts(query, _READ_OF_UPDATE)
    fields = sorted([(_field(field, models), field) for field in changes], key=_place)
    settings = [(name, _setting(field, changes[field], values)) for name, field in fields]
    where = query._where if query._where is None else _part(query._where, models, values, None)
    returning = query._returning and (_columns(query._returning, models), query._row_type)
    return "update", query._visibility, tuple(settings), where, returning


def _tables(source: Any, models: list[Any], values: list[Any]) -> Any:
    """The shape of a FROM, whose models are added to ``models``."""
    if type(source) is peewee.Join and getattr(source, "_alias", None) is None:
        joined = _tables(source.lhs, models, values), _tables(source.rhs, models, values)
        on = source._on if source._on is None else _part(source._on, models, values, None)
        return joined, source.join_type, on
    if not isinstance(source, type) or not hasattr(getattr(source, "_meta", None), "joins"):
        raise _Unknown  # an alias, a subquery, a model that is not ours
    models.append(source)
    return source


def _place(named: tuple[str, Any]) -> Any:
    return named[1]._sort_key  # as Peewee sorts what is set


def _setting(field: Any, value: Any, values: list[Any]) -> str:
    if isinstance(value, (*_MANY, peewee.Node, type, range)):
        raise _Unknown
    value = field.db_value(value)
    if isinstance(value, peewee.Node):
        raise _Unknown
    values.append(value)
    if value is None:
        return _NULL  # a field may write NULL in another way than its values
    return _TYPED if has_one_type(field) else _UNTYPED


def _check_parts(query: Any, read: frozenset[str]) -> None:
    for name, part in vars(query).items():
        if part is not None and part is not False and name not in read:
            raise _Unknown


def _lock(lock: Any) -> tuple[Any, ...]:
    if getattr(lock, "_of", lock) is not None:
        raise _Unknown
    return lock._expr, lock._nowait, lock._skip_locked


def _columns(nodes: Any, models: list[Any]) -> tuple[Any, ...]:
    return tuple([_field(node, models) for node in nodes])


def _field(node: Any, models: list[Any]) -> Any:
    """The name of a plain field of the first model; that of another one with its model."""
    if isinstance(node, CheckedField):
        for model in models:
            if model._meta.fields.get(node.name) is node:
                return node.name if model is models[0] else (model, node.name)
    raise _Unknown


def _term(term: Any, models: list[Any]) -> Any:
    if type(term) is peewee.Ordering:
        return _field(term.node, models), term.direction, term.nulls, term.collation
    return _field(term, models)


def _part(
    part: Any, models: list[Any], values: list[Any], field: Any, *, typed: bool = False
) -> Any:
    """The shape of a part of WHERE; ``field`` converts its values, ``typed`` if it compares them."""
    kind = type(part)
    if kind is peewee.Expression:
        left, right = part.lhs, part.rhs
        compared = left if isinstance(left, CheckedField) else None
        if part.op in (OP.IN, OP.NOT_IN) and not isinstance(right, _MANY):
            raise _Unknown
        first = _part(left, models, values, compared)
        if right is None and part.op in (OP.IS, OP.IS_NOT):
            return first, part.op, part.flat
        typed = part.op in _COMPARES
        return first, part.op, part.flat, _part(right, models, values, compared, typed=typed)
    if isinstance(part, CheckedField):
        return _field(part, models)
    if kind is AnyOf:
        values.append(part.array)
        return part.sql_type
    if kind is ParentKey:
        return "parent"
    if kind is peewee.NodeList and part.parens:  # peewee.Tuple
        items = [_part(item, models, values, None, typed=typed) for item in part.nodes]
        return (part.glue, *items)
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
    writer = field if converter is None else getattr(converter, "__self__", None)
    return _TYPED if typed and has_one_type(writer) else _UNTYPED
