"""Soft delete: queries that see live rows only, unless told otherwise.

``User.select()`` sees live rows, ``.with_deleted()`` all, ``.only_deleted()`` the deleted ones.
The condition is added when the SQL is rendered, so nothing built on a query can lose it: joins,
aliases, back-references, subqueries, counts, eager loads, ``orwhere``.

A joined model's condition goes into ON, so that an outer join keeps its left rows. In a RIGHT or
FULL join, which keep rows of both sides, the table is replaced by its live rows.
``only_deleted()`` is about the model that is selected from; joined rows may be live or deleted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self, TypeAlias, TypeVar, overload

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.models import shapes
from orm_core.models.encrypted import EncryptedField
from orm_core.models.identifiers import utcnow
from orm_core.models.relations import Related
from orm_core.models.rows import MakesRows
from orm_core.models.versions import counted
from orm_core.peewee_facade import (
    Column,
    ColumnBase,
    Expression,
    Join,
    Load,
    ModelAlias,
    Node,
    Predicate,
    Relation,
    Term,
)

Visibility: TypeAlias = Literal["live", "all", "deleted"]
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")


class SeesLiveRows(peewee.Query):
    """What our queries share: which rows they see."""

    _visibility: Visibility = "live"

    def with_deleted(self) -> Self:
        """The same query over live and deleted rows, in joined models too."""
        return self._seeing("all")

    def only_deleted(self) -> Self:
        """The same query over deleted rows only; joined models' rows may be either."""
        check_soft(self.model)
        return self._seeing("deleted")

    def where(self, *expressions: Predicate) -> Self:
        """The same query with more conditions, all of which must hold."""
        return super().where(*predicates(expressions))

    def orwhere(self, *expressions: Predicate) -> Self:
        """The same query, or these conditions."""
        return super().orwhere(*predicates(expressions))

    def _seeing(self, visibility: Visibility) -> Self:
        query = self.clone()
        query._visibility = visibility
        return query

    def _rendered(self) -> Self:
        """A twin to render. Unlike ``clone()`` it keeps the hash, by which aliases are found."""
        twin = object.__new__(type(self))
        twin.__dict__ = self.__dict__.copy()
        return twin


def is_soft(source: Any) -> bool:
    """Whether a source of a query (a model or an alias of one) has soft-deleted rows."""
    model = source.model if isinstance(source, ModelAlias) else source
    meta = getattr(model, "_meta", None)
    return isinstance(model, type) and meta is not None and "deleted_at" in meta.fields


def check_soft(model: Any) -> None:
    """Raise ``InvalidValue`` for a model that has no soft delete."""
    if not is_soft(model):
        name = getattr(model, "__name__", "This model")
        raise InvalidValue(f"{name} has no deleted_at, so it has no soft-deleted rows.")


def condition(source: Any, visibility: Visibility) -> Expression | None:
    """The condition on a source's rows, or None when all are seen."""
    if visibility == "all" or not is_soft(source):
        return None
    expression: Expression = source.deleted_at.is_null(visibility == "live")
    return expression


def both(one: Any, other: Any) -> Any:
    """``one AND other``, where either may be None."""
    if one is None or other is None:
        return other if one is None else one
    return Expression(_closed(one), peewee.OP.AND, other)


def _closed(predicate: Any) -> Any:
    """In parentheses, which only an expression has by itself: raw SQL may hold an OR."""
    if isinstance(predicate, Expression):
        return predicate
    return peewee.EnclosedNodeList((predicate,))


def predicates(where: tuple[Any, ...]) -> tuple[Any, ...]:
    """What was given to where(); a str, which SQL would take for a value, is refused."""
    if not all(isinstance(one, Node | bool) for one in where):
        raise InvalidValue(
            'where() takes predicates, as in where(User.email == "ada@example.com"); no SQL was '
            "sent."
        )
    return where


class SelectQuery(MakesRows, SeesLiveRows, peewee.ModelSelect[R]):
    """SELECT from a model; sees live rows only."""

    def __sql__(self, ctx: Any) -> Any:
        if ctx.scope == peewee.SCOPE_COLUMN or self._visibility == "all" or not self._from_list:
            return super().__sql__(ctx)
        twin = self._rendered()
        twin._visibility = "all"
        sources: list[Any] = []
        for source in self._from_list:
            filtered, predicate = _filter(source, self._visibility)
            sources.append(filtered)
            twin._where = both(twin._where, predicate)
        twin._from_list = sources
        return twin.__sql__(ctx)

    def rendered(self, database: Any) -> tuple[str, list[Any]]:
        """The SQL and its values; not made anew for a shape that was sent before."""
        return shapes.render(self, database)

    def count(self, database: Any = None, clear_limit: bool = False) -> int:
        """How many rows it has."""
        query = self.order_by()
        query = query.limit(None).offset(None) if clear_limit else query
        return int(query._answer(shapes.count_of, database))

    def exists(self, database: Any = None) -> bool:
        """Whether it has any row."""
        return bool(self._answer(shapes.any_of, database))

    def _answer(self, ask: shapes.Ask, database: Any) -> Any:
        sender = self._database if database is None else database
        return sender.execute_sql(*shapes.render(self, sender, ask)).fetchone()[0]

    def get(self, database: Any = None) -> R:
        """The first row. Raises the model's ``DoesNotExist``, a ``NotFound``, when none matches."""
        query = self.paginate(1, 1)
        query._cursor_wrapper = None
        rows = query.execute(database)[:1]
        if not rows:
            model = self.model.model if isinstance(self.model, ModelAlias) else self.model
            raise model.DoesNotExist(f"No row of {model._meta.table_name} matches the query.")
        return rows[0]

    @overload
    def values(self, a: Term[A], /) -> SelectQuery[tuple[A]]: ...
    @overload
    def values(self, a: Term[A], b: Term[B], /) -> SelectQuery[tuple[A, B]]: ...
    @overload
    def values(self, a: Term[A], b: Term[B], c: Term[C], /) -> SelectQuery[tuple[A, B, C]]: ...
    @overload
    def values(
        self, a: Term[A], b: Term[B], c: Term[C], d: Term[D], /
    ) -> SelectQuery[tuple[A, B, C, D]]: ...
    @overload
    def values(
        self, a: Term[A], b: Term[B], c: Term[C], d: Term[D], e: Term[E], /
    ) -> SelectQuery[tuple[A, B, C, D, E]]: ...
    @overload
    def values(
        self, a: Term[A], b: Term[B], c: Term[C], d: Term[D], e: Term[E], f: Term[F], /
    ) -> SelectQuery[tuple[A, B, C, D, E, F]]: ...
    @overload
    def values(
        self,
        a: Column,
        b: Column,
        c: Column,
        d: Column,
        e: Column,
        f: Column,
        g: Column,
        /,
        *more: Column,
    ) -> SelectQuery[tuple[Any, ...]]: ...
    def values(self, *columns: Any) -> Any:
        """Rows as tuples of these columns: ``for id, email in query.values(User.id, User.email)``.

        Checkers know the types of up to six; a column of an outer join may be None for all that.
        A secret is bound to its row, so it is read from the row and not taken here.
        """
        for column in columns:
            if not isinstance(column, ColumnBase) or isinstance(column, EncryptedField):
                raise InvalidValue(
                    "values() takes columns, as in values(User.id, User.email), and no encrypted "
                    "one; no SQL was sent."
                )
        if not columns:
            raise InvalidValue("values() takes at least one column; no SQL was sent.")
        return self.select(*columns).tuples()

    def limit(self, value: int | Node | None = None) -> Self:
        """At most ``value`` rows; None for no limit. A ``parameter`` of a compiled query will do."""
        return super().limit(_count("limit", value))

    def offset(self, value: int | Node | None = None) -> Self:
        """Pass over the first ``value`` rows."""
        return super().offset(_count("offset", value))

    def order_by(self, *values: Column) -> Self:
        """Sort by fields or expressions; a str, which SQL would take for a constant, is refused."""
        for value in values:
            if not isinstance(value, Node):
                raise InvalidValue(
                    "order_by() takes fields, as in order_by(User.created_at.desc()); no SQL was "
                    "sent."
                )
        return super().order_by(*values)

    def order_by_extend(self, *values: Column) -> Self:
        """Sort by these too, after what was given before."""
        return self.order_by(*(self._order_by or ()), *values) if values else self.clone()

    def with_related(self, *loads: Load | Relation) -> Self:
        """Load related rows along, each relation of all rows in one query.

        ``User.select().with_related(User.orders)``; ``Load(User.orders, query, per_parent=3)``
        chooses, sorts and limits them, ``.then(...)`` goes on from there.
        """
        return super().with_related(*map(Related.of, loads))


def _count(name: str, value: Any) -> Any:
    # A parameter's values are checked by its compiled query.
    if value is None or getattr(value, "is_parameter", False) is True:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return value
    raise InvalidValue(f"{name}() takes a whole number from 0 to 2^63 - 1; no SQL was sent.")


class ManyToManyQuery(SelectQuery[R], peewee.ManyToManyQuery):
    """Rows on the other side of a many-to-many field; live ones only."""


class ManyToManyAccessor(peewee.ManyToManyFieldAccessor):
    """What a many-to-many field of ours is read and set through."""

    def get_query(self, instance: Any) -> Any:
        """The rows on the other side of ``instance``, live ones only."""
        key = getattr(instance, self.src_fk.rel_field.name)
        if key is None:
            return super().get_query(instance)  # refuses with Peewee's error
        query: ManyToManyQuery[Any] = ManyToManyQuery(instance, self, self.rel_model)
        return query.join(self.through_model).join(self.model).where(self.src_fk == key)


class Alias(ModelAlias):
    """A second name for a model in one query; sees live rows like the model itself."""

    def select(self, *selection: Any) -> SelectQuery[Any]:
        """SELECT from the alias."""
        return SelectQuery(self, selection or self.get_field_aliases())

    def with_deleted(self) -> SelectQuery[Any]:
        """SELECT all rows, soft-deleted ones too."""
        return self.select().with_deleted()

    def only_deleted(self) -> SelectQuery[Any]:
        """SELECT soft-deleted rows."""
        return self.select().only_deleted()


def _filter(source: Any, visibility: Visibility) -> tuple[Any, Expression | None]:
    """The source with conditions inside its joins, and the condition left for WHERE.

    ``visibility`` holds for the leftmost source, the model that is selected from.
    """
    if not isinstance(source, Join):
        return source, condition(source, visibility)
    joined: Visibility = "live" if visibility == "live" else "all"
    kind = source.join_type
    if "RIGHT" in kind or "FULL" in kind:
        left, right = _live(source.lhs, visibility), _live(source.rhs, joined)
        return Join(left, right, kind, source._on), None
    left, predicate = _filter(source.lhs, visibility)
    if isinstance(source.rhs, Join):
        return Join(left, _live(source.rhs, joined), kind, source._on), predicate
    on_right = condition(source.rhs, joined)
    if source._on is None:
        return Join(left, source.rhs, kind, None), both(predicate, on_right)
    return Join(left, source.rhs, kind, both(source._on, on_right)), predicate


def _live(source: Any, visibility: Visibility) -> Any:
    """The source with each table in it replaced by its visible rows."""
    if isinstance(source, Join):
        joined: Visibility = "live" if visibility == "live" else "all"
        left, right = _live(source.lhs, visibility), _live(source.rhs, joined)
        return Join(left, right, source.join_type, source._on)
    return source if condition(source, visibility) is None else _VisibleRows(source, visibility)


class _VisibleRows(Node):
    """``(SELECT * FROM "users" WHERE "deleted_at" IS NULL) AS "t1"``"""

    def __init__(self, source: Any, visibility: Visibility) -> None:
        self.source = source
        self.visibility = visibility

    def __sql__(self, ctx: Any) -> Any:
        alias = isinstance(self.source, ModelAlias)
        model = self.source.model if alias else self.source
        key = self.source if alias else model._meta.table
        if alias and self.source.alias:
            ctx.alias_manager[key] = self.source.alias
        test = "IS NULL" if self.visibility == "live" else "IS NOT NULL"
        ctx.literal("(SELECT * FROM ").sql(model._meta.entity).literal(" WHERE ")
        ctx.sql(peewee.Entity(model.deleted_at.column_name)).literal(f" {test}) AS ")
        return ctx.sql(peewee.Entity(ctx.alias_manager[key]))


class UpdateQuery(MakesRows, SeesLiveRows, peewee.ModelUpdate[R]):
    """UPDATE of a model's live rows; moves ``updated_at`` unless it is given, counts a version."""

    def __sql__(self, ctx: Any) -> Any:
        if not self._update:
            raise InvalidValue(
                f"{self.model.__name__}.update() has nothing to set; no SQL was sent."
            )
        twin = self._rendered()
        twin._update = counted(self.model, self._changes())
        twin._where = both(self._where, condition(self.model, self._visibility))
        joined: Visibility = "live" if self._visibility == "live" else "all"
        sources: list[Any] = []
        for source in self._from or ():
            filtered, predicate = _filter(source, joined)
            sources.append(filtered)
            twin._where = both(twin._where, predicate)
        twin._from = sources or None
        return super(UpdateQuery, twin).__sql__(ctx)

    def rendered(self, database: Any) -> tuple[str, list[Any]]:
        """The SQL and its values; not made anew for a shape that was sent before."""
        return shapes.render_update(self, self._changes(), database)

    def _changes(self) -> Any:
        moved = self.model._meta.fields.get("updated_at")
        if not self._update or moved is None or moved in self._update:
            return self._update
        return {**self._update, moved: utcnow()}


class _Cascade(UpdateQuery[int]):
    """An UPDATE after which the same happens to the rows that cascade, in one transaction."""

    def _execute(self, database: Any) -> Any:
        if not cascading(self.model):
            return super()._execute(database)
        with database.atomic():
            before = self._look(database)
            if self._returning:
                result = super()._execute(database)
                ids = [row._pk for row in result if isinstance(row, self.model)]
                if len(ids) != len(result) or None in ids:
                    raise InvalidValue(
                        f"{self.model.__name__}.delete() and restore() cascade, so returning() "
                        "takes the model itself and no other row type; nothing was changed."
                    )
            else:
                keyed: Any = self.returning(self.model._meta.primary_key).tuples()
                ids = [key for (key,) in UpdateQuery[Any]._execute(keyed, database)]
                result = len(ids)
            self._follow(database, ids, before)
        return result

    def _seeing(self, visibility: Visibility) -> Self:  # noqa: ARG002
        raise InvalidValue(
            "delete() is about live rows and restore() about deleted ones; their moment of "
            "deletion tells what went together. No SQL was sent."
        )

    def _look(self, database: Any) -> Any:
        """What must be known before the rows change."""

    def _follow(self, database: Any, ids: list[Any], before: Any) -> None:
        raise NotImplementedError


class SoftDelete(_Cascade):
    """What ``Model.delete()`` makes: sets ``deleted_at`` on live rows, and on those that cascade.

    ``moment`` is the ``deleted_at`` that marks all rows that went together.
    """

    def __init__(self, model: Any, moment: datetime | None = None) -> None:
        self.moment: datetime = moment or utcnow()
        fields = model._meta.fields
        times = (fields.get("deleted_at"), fields.get("updated_at"))
        super().__init__(model, {time: self.moment for time in times if time is not None})

    def _follow(self, database: Any, ids: list[Any], before: Any) -> None:  # noqa: ARG002
        for key in cascading(self.model) if ids else ():
            SoftDelete(key.model, self.moment).where(key.in_(ids)).execute(database)


class Restore(_Cascade):
    """What ``Model.restore()`` makes: brings deleted rows back, with those that went with them."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, {model._meta.fields["deleted_at"]: None})
        self._visibility = "deleted"

    def _look(self, database: Any) -> dict[datetime, list[Any]]:
        moments: dict[datetime, list[Any]] = {}
        rows = self.model.select(self.model._meta.primary_key, self.model.deleted_at)
        rows = rows.only_deleted().for_update().tuples()
        if self._where is not None:
            rows = rows.where(self._where)
        for key, moment in rows.execute(database):
            moments.setdefault(moment, []).append(key)
        return moments

    def _follow(self, database: Any, ids: list[Any], before: Any) -> None:  # noqa: ARG002
        for moment, keys in before.items():
            for key in cascading(self.model):
                together = key.model.deleted_at == moment
                Restore(key.model).where(key.in_(keys), together).execute(database)


def cascading(model: Any) -> list[Any]:
    """The foreign keys to ``model`` whose rows are soft-deleted and restored with theirs."""
    return [
        key
        for key in model._meta.backrefs
        if getattr(key, "on_soft_delete", None) == "cascade" and is_soft(key.model)
    ]
