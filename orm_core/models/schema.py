"""What a model's table is called and made of: names, indexes, enum types.

Names are stable: they come from the table and the columns, not from the class. A table is the
snake_case plural of its model unless ``table_name`` says otherwise; an index is
``<table>_<columns>_idx``, a unique one ``<table>_<columns>_key``.
"""

from __future__ import annotations

from typing import Any

import inflection
import peewee
from peewee import ModelIndex, Node

from orm_core.database.diagnostics import declare_constraints
from orm_core.models.fields import EnumField, shorten


class Metadata(peewee.Metadata):
    """Names and indexes of a model; ``Model._meta``."""

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["legacy_table_names"] = False
        super().__init__(model, *args, **kwargs)

    def make_table_name(self) -> str:
        """``OrderItem`` -> ``order_items``."""
        return shorten(inflection.tableize(self.model.__name__))

    def get_default_dict(self) -> dict[str, Any]:
        """The defaults of a new row; its times are one moment."""
        values: dict[str, Any] = super().get_default_dict()
        if "updated_at" in values and "created_at" in values:
            values["updated_at"] = values["created_at"]
        return values

    def fields_to_index(self) -> list[Any]:
        """The indexes of the table: of single fields, then ``Meta.indexes``.

        ``Meta.indexes`` holds ``(("a", "b"), unique)``, where unique is False, True or "live".
        """
        indexes = [
            self._index((field,), "live" if field.unique_live else field.unique, field.index_type)
            for field in self.sorted_fields
            if not field.primary_key and (field.index or field.unique)
        ]
        for declared in self.indexes:
            if isinstance(declared, Node):
                indexes.append(declared)
                continue
            names, unique = declared
            fields = [self.combined[one] if isinstance(one, str) else one for one in names]
            indexes.append(self._index(tuple(fields), unique, None))
        return indexes

    def _index(self, fields: tuple[Any, ...], unique: Any, using: str | None) -> ModelIndex:
        columns = "_".join(getattr(field, "column_name", "expr") for field in fields)
        live = self.fields["deleted_at"].is_null() if unique == "live" else None
        return ModelIndex(
            self.model,
            fields,
            unique=bool(unique),
            where=live,
            using=using,
            name=shorten(f"{self.table_name}_{columns}_{'key' if unique else 'idx'}"),
        )

    def unique_keys(self) -> list[tuple[tuple[Any, ...], bool]]:
        """The fields of each unique index, and whether it covers live rows only."""
        return [
            (tuple(index._expressions), index._where is not None)
            for index in self.fields_to_index()
            if index._unique
        ]

    def declare(self) -> None:
        """Tell the diagnostics which columns each constraint has."""
        table = self.table_name
        known = {
            index._name: tuple(getattr(one, "column_name", "") for one in index._expressions)
            for index in self.fields_to_index()
            if index._unique
        }
        for field in self.sorted_fields:
            if isinstance(field, peewee.ForeignKeyField):
                known[field.get_constraint_name()] = (field.column_name,)
        keys = [field.column_name for field in self.get_primary_keys()]
        known[shorten(f"{table}_pkey")] = tuple(keys)
        declare_constraints(table, known)


class SchemaManager(peewee.SchemaManager):
    """Creates a model's table with the enum types it needs."""

    def create_all(self, safe: bool = True, **table_options: Any) -> None:
        """Create types, table and indexes; ``safe`` passes over what is there."""
        for field in self.model._meta.sorted_fields:
            if isinstance(field, EnumField):
                self.database.execute_sql(field.create_type_sql())
        super().create_all(safe=safe, **table_options)
