"""References to other models, defined earlier or later."""

from __future__ import annotations

from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, overload
from uuid import UUID

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue, OrmCoreError
from orm_core.models.columns import CheckedField, G, Options, shorten
from orm_core.peewee_facade import Expression, Model

if TYPE_CHECKING:
    from orm_core.models.soft_delete import SelectQuery

#: the related model, or that ``| None``
R = TypeVar("R")
M = TypeVar("M", bound=Model)


class ForeignKeyAccessor(peewee.ForeignKeyAccessor):
    """Loads the parent, soft-deleted or not: the row that is referred to exists."""

    def __set__(self, instance: Any, obj: Any) -> None:
        if isinstance(obj, Model) and not isinstance(obj, self.rel_model):
            raise self.field.refuse()
        super().__set__(instance, obj)

    def get_rel_instance(self, instance: Any) -> Any:
        key = instance.__data__.get(self.name)
        if key is not None and self.name not in instance.__rel__ and self.field.lazy_load:
            parents = self.rel_model.select()
            if hasattr(parents, "with_deleted"):
                parents = parents.with_deleted()
            instance.__rel__[self.name] = parents.where(self.field.rel_field == key).get()
        return super().get_rel_instance(instance)


class _References(Options[UUID], total=False):
    backref: str | None
    field: Any
    on_delete: str | None
    on_update: str | None
    deferrable: str | None
    object_id_name: str | None
    lazy_load: bool
    constraint_name: str | None
    on_soft_delete: Literal["cascade"] | None


class ForeignKeyField(CheckedField[UUID, G], peewee.ForeignKeyField, Generic[R, G]):
    """A reference to another model: takes an instance, its id, or the id's text.

    ``user = ForeignKeyField(User, backref="sessions")`` gives ``session.user`` (a soft-deleted
    one too), ``session.user_id`` and ``user.sessions``. ``on_soft_delete="cascade"``: rows go
    with their parent when it is soft-deleted, and exactly those come back with it.
    """

    accessor_class = ForeignKeyAccessor

    @overload
    def __init__(
        self: ForeignKeyField[M, UUID],
        model: type[M],
        *,
        null: Literal[False] = False,
        **options: Unpack[_References],
    ) -> None: ...
    @overload
    def __init__(
        self: ForeignKeyField[M | None, UUID | None],
        model: type[M],
        *,
        null: Literal[True],
        **options: Unpack[_References],
    ) -> None: ...
    @overload
    def __init__(
        self: ForeignKeyField[Any, Any],
        model: Literal["self"],
        *,
        null: bool = False,
        **options: Unpack[_References],
    ) -> None: ...
    def __init__(
        self,
        model: Any,
        *args: Any,
        on_soft_delete: Literal["cascade"] | None = None,
        **kwargs: Any,
    ) -> None:
        if on_soft_delete not in (None, "cascade"):
            raise InvalidValue('on_soft_delete must be "cascade" or None.')
        super().__init__(model, *args, **kwargs)
        self.on_soft_delete = on_soft_delete

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: Model, owner: Any) -> R: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __set__(self, instance: Model, value: R) -> None: ...  # type: ignore[override]
        @overload  # type: ignore[override]
        def __eq__(self, other: R | UUID | G, /) -> Expression: ...
        @overload
        def __eq__(self, other: peewee.ColumnBase[UUID, Any], /) -> Expression: ...
        def __eq__(self, other: Any, /) -> Any: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        @overload  # type: ignore[override]
        def __ne__(self, other: R | UUID | G, /) -> Expression: ...
        @overload
        def __ne__(self, other: peewee.ColumnBase[UUID, Any], /) -> Expression: ...
        def __ne__(self, other: Any, /) -> Any: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __hash__(self) -> int: ...
        def in_(self, rhs: Any) -> Expression: ...

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a {self.rel_model.__name__} or its {self.rel_field.name}"

    def get_constraint_name(self) -> str:
        """PostgreSQL's own name for the constraint, ``<table>_<column>_fkey``, spelled out."""
        table = self.model._meta.table_name
        return self.constraint_name or shorten(f"{table}_{self.column_name}_fkey")

    def foreign_key_constraint(self, explicit_name: bool = True) -> Any:  # noqa: ARG002
        """The constraint's definition; its name is always spelled out."""
        return super().foreign_key_constraint(explicit_name=True)

    def to_database(self, value: Any) -> Any:
        if isinstance(value, self.rel_model):
            value = getattr(value, self.rel_field.name)
            if value is None:
                raise self.refuse(f"a {self.rel_model.__name__} that was saved before")
        try:
            return self.rel_field.db_value(value)
        except OrmCoreError:
            raise self.refuse() from None

    def python_value(self, value: Any) -> Any:
        return value if isinstance(value, self.rel_model) else self.rel_field.python_value(value)


K = TypeVar("K")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as Defaulting

    KG = Defaulting("KG", default=K)
else:
    KG = TypeVar("KG")


class ForeignKeyId(peewee.Field[K, KG]):
    """Declares the attribute that a foreign key adds: ``user_id: ForeignKeyId[UUID]``.

    For checkers only; Peewee makes the attribute. ``ForeignKeyId[UUID, UUID | None]`` where the
    key is nullable.
    """

    if not TYPE_CHECKING:  # an alias of typing knows no defaults before Python 3.13 (PEP 696)
        __class_getitem__ = classmethod(GenericAlias)


class Backref(Generic[M]):
    """Declares a ``backref`` of another model's foreign key: ``orders: Backref["Order"]``.

    For checkers only; Peewee makes the attribute. ``user.orders`` is a query.
    """

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: Model, owner: Any) -> SelectQuery[M]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...


class DeferredForeignKey(peewee.DeferredForeignKey, Generic[R, G]):
    """A reference to a model that is defined later, by its name; for cycles.

    ``DeferredForeignKey("Team", null=True)`` takes what ``ForeignKeyField`` takes. Checkers know
    the model from an annotation: ``team: "DeferredForeignKey[Team | None, UUID | None]" = ...``.
    """

    if TYPE_CHECKING:

        def __init__(self, rel_model_name: str, **options: Any) -> None: ...
        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: Model, owner: Any) -> R: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...
        def __set__(self, instance: Model, value: R) -> None: ...

    def __deepcopy__(self, memo: Any = None) -> DeferredForeignKey[Any, Any]:
        return DeferredForeignKey(self.rel_model_name, **self.field_kwargs)

    def set_model(self, rel_model: Any) -> None:
        """Peewee's hook, once the model is there."""
        make: Any = ForeignKeyField
        field = make(rel_model, _deferred=True, **self.field_kwargs)
        field._sort_key = self._sort_key
        if field.primary_key:
            self.model._meta.set_primary_key(self.name, field)
        else:
            self.model._meta.add_field(self.name, field)
