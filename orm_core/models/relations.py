"""References to models that are defined later."""

from __future__ import annotations

from typing import Any

import peewee

from orm_core.models.fields import ForeignKeyField


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
