"""References to other models, defined earlier or later."""

from __future__ import annotations

from typing import Any, Literal

import peewee

from orm_core.errors import InvalidValue, OrmCoreError
from orm_core.models.columns import CheckedField, shorten


class ForeignKeyAccessor(peewee.ForeignKeyAccessor):
    """Loads the parent, soft-deleted or not: the row that is referred to exists."""

    def __set__(self, instance: Any, obj: Any) -> None:
        if isinstance(obj, peewee.Model) and not isinstance(obj, self.rel_model):
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


class ForeignKeyField(CheckedField, peewee.ForeignKeyField):
    """A reference to another model: takes an instance, its id, or the id's text.

    ``user = ForeignKeyField(User, backref="sessions")`` gives ``session.user`` (a soft-deleted
    one too), ``session.user_id`` and ``user.sessions``. ``on_soft_delete="cascade"``: rows go
    with their parent when it is soft-deleted, and exactly those come back with it.
    """

    accessor_class = ForeignKeyAccessor

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
        try:
            return self.rel_field.db_value(value)
        except OrmCoreError:
            raise self.refuse() from None

    def python_value(self, value: Any) -> Any:
        return value if isinstance(value, self.rel_model) else self.rel_field.python_value(value)


class DeferredForeignKey(peewee.DeferredForeignKey):
    """A reference to a model that is defined later, by its name; for cycles.

    ``DeferredForeignKey("Team", null=True)`` takes what ``ForeignKeyField`` takes.
    """

    def __deepcopy__(self, memo: Any = None) -> DeferredForeignKey:
        return DeferredForeignKey(self.rel_model_name, **self.field_kwargs)

    def set_model(self, rel_model: Any) -> None:
        """Peewee's hook, once the model is there."""
        field = ForeignKeyField(rel_model, _deferred=True, **self.field_kwargs)
        field._sort_key = self._sort_key
        if field.primary_key:
            self.model._meta.set_primary_key(self.name, field)
        else:
            self.model._meta.add_field(self.name, field)
