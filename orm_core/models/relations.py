"""References between models that a plain foreign key does not say: to later models, to many."""

from __future__ import annotations

from typing import Any

import peewee

from orm_core.models.fields import ForeignKeyField
from orm_core.models.soft_delete import ManyToManyQuery


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


class _ManyToManyAccessor(peewee.ManyToManyFieldAccessor):
    def get_query(self, instance: Any) -> Any:
        key = getattr(instance, self.src_fk.rel_field.name)
        query = ManyToManyQuery(instance, self, self.rel_model)
        return query.join(self.through_model).join(self.model).where(self.src_fk == key)


class ManyToManyField(peewee.ManyToManyField):
    """Rows on both sides, linked by a table of their own; live ones only.

    ``roles = ManyToManyField(Role, backref="users")`` gives ``user.roles`` and ``role.users``,
    each a query with ``add``, ``remove`` and ``clear``. The links are in ``field.through_model``.
    """

    accessor_class = _ManyToManyAccessor

    def bind(self, model: Any, name: str, set_attribute: bool = True) -> None:
        """Peewee's hook; makes the other side one of ours too."""
        super().bind(model, name, set_attribute)
        other = None if self._is_backref else self.rel_model._meta.manytomany.get(self.backref)
        if type(other) is peewee.ManyToManyField:
            ours = ManyToManyField(
                model, backref=name, through_model=self.through_model, _is_backref=True
            )
            self.rel_model._meta.add_field(self.backref, ours)
