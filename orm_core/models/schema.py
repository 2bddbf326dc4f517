"""What a model's table is called and made of: names, indexes, enum types.

Names are stable: they come from the table and the columns, not from the class. A table is the
snake_case plural of its model unless ``table_name`` says otherwise; an index is
``<table>_<columns>_idx``, a unique one ``<table>_<columns>_key``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import inflection

from orm_core import peewee_facade as peewee
from orm_core.database.database import Database
from orm_core.database.diagnostics import declare_constraints
from orm_core.errors import QueryError, RegistryError
from orm_core.models.columns import quote_literal, shorten
from orm_core.models.fields import ArrayField, EnumField, VersionField
from orm_core.models.soft_delete import ManyToManyAccessor
from orm_core.models.triggers import create_triggers
from orm_core.peewee_facade import ModelIndex, Node


class Metadata(peewee.Metadata):
    """Names and indexes of a model; ``Model._meta``."""

    #: what the verbs of services send, by shape (orm_core.queries.plans); of all models, as a
    #: soft delete takes rows of others along
    plans: ClassVar[dict[Any, Any]] = {}
    #: SQL of joins, by shape (orm_core.models.shapes); of all models, as several take part in one
    joins: ClassVar[dict[Any, str]] = {}

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["legacy_table_names"] = False
        #: loops that make rows of a selection, by row type and names (orm_core.models.rows)
        self.row_makers: dict[Any, Any] = {}
        #: SQL of queries, by shape (orm_core.models.shapes)
        self.shapes: dict[Any, str] = {}
        #: the field that counts a row's changes (orm_core.models.versions)
        self.version: VersionField | None = None
        #: whether instances are made without code of the model's own
        self.loads_plainly = False
        #: whether changes of rows are kept in the audit trail, as the registered domain says; of the
        #: trail itself "trail" or "chain"
        self.audit: bool | str = False
        super().__init__(model, *args, **kwargs)

    def check_policies(self) -> None:
        """Raise ``RegistryError`` for what are no policies."""
        if getattr(self, "policies", ()) != ():
            from orm_core.models.policies import policies_of  # few models have some

            policies_of(self.model)

    def add_field(self, field_name: str, field: Any, set_attribute: bool = True) -> None:
        """Peewee's hook; a many-to-many field gets the accessor that sees live rows."""
        if isinstance(field, peewee.ManyToManyField):
            field.accessor_class = ManyToManyAccessor
        if isinstance(field, VersionField):
            if self.version is not None and self.version.name != field_name:
                raise RegistryError(f"{self.model.__name__} has two VersionFields; one is enough.")
            self.version = field
        super().add_field(field_name, field, set_attribute)
        self._forget_sql()

    def remove_field(self, field_name: str) -> None:
        """Peewee's hook."""
        if self.version is self.fields.get(field_name):
            self.version = None
        super().remove_field(field_name)
        self._forget_sql()

    @peewee.Metadata.table.deleter  # type: ignore[untyped-decorator, attr-defined]
    def table(self) -> None:
        """Peewee's hook for each change of the table's name, schema or fields."""
        self._table = None
        self._forget_sql()

    def _forget_sql(self) -> None:
        # New ones: who makes SQL right now keeps it in the old ones, where nobody looks any more.
        self.row_makers = {}
        self.shapes = {}
        Metadata.plans = {}
        Metadata.joins = {}

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
        indexes: list[Any] = [
            self._index((field,), _unique(field), field.index_type)
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
        columns = "_".join(map(_word, fields))
        if unique == "live" and "deleted_at" not in self.fields:
            raise RegistryError(f"{self.model.__name__} has no deleted_at to be unique among live.")
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
            (tuple(map(_meant, index._expressions)), index._where is not None)
            for index in self.fields_to_index()
            if isinstance(index, peewee.Index) and index._unique
        ]

    def declare(self) -> None:
        """Tell the diagnostics which columns each constraint has."""
        table = self.table_name
        known = {
            index._name: tuple(
                getattr(_meant(one), "column_name", "") for one in index._expressions
            )
            for index in self.fields_to_index()
            if isinstance(index, peewee.Index) and index._unique
        }
        for field in self.sorted_fields:
            if isinstance(field, peewee.ForeignKeyField):
                known[field.get_constraint_name()] = (field.column_name,)
        keys = [field.column_name for field in self.get_primary_keys()]
        known[shorten(f"{table}_pkey")] = tuple(keys)
        declare_constraints(table, known)


def _meant(part: Any) -> Any:
    """What a part of a key is for callers: a blind index stands for its encrypted column."""
    return getattr(part, "stands_for", part)


def _unique(field: Any) -> Any:
    """True, False or "live"; Peewee's own fields know no "live"."""
    return "live" if getattr(field, "unique_live", False) else field.unique


def _word(part: Any) -> str:
    """A column, or the words of an expression, in the name of an index."""
    if isinstance(part, peewee.SQL):
        return "_".join(re.findall(r"\w+", part.sql)) or "expr"
    return str(getattr(part, "column_name", "expr"))


def create_all(database: Database, models: Iterable[Any]) -> None:
    """Create the tables of these models, with schemas, types, references, comments and triggers.

    For scratch databases and tests; a service's own database is made by its migrations.
    """
    everything = list(dict.fromkeys(one for model in models for one in _with_links(model)))
    with database.bind_ctx(everything, bind_refs=False, bind_backrefs=False):
        for schema in sorted({m._meta.schema for m in everything if m._meta.schema}):
            database.execute_sql(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
        # Not passing over what is there: of two indexes of one name the second would be missing.
        for model in peewee.sort_models(everything):
            ours = isinstance(model._schema, SchemaManager)
            model.create_table(safe=False, **({"with_policies": False} if ours else {}))
        for model in everything:
            for key in model._meta.refs:
                if key.deferred:
                    model._schema.create_foreign_key(key)
            for statement in _comments(model):
                database.execute_sql(statement)
        for model in everything:  # a policy may ask other tables
            _make_policies(database, model)
        create_triggers(database, everything)


def _make_policies(database: peewee.Database, model: Any) -> None:
    from orm_core.models.policies import policies_sql

    for statement in policies_sql(model):
        try:
            database.execute_sql(_doubled(statement))
        except QueryError as error:
            error.add_note(f"A policy of {model.__name__} can't be made: {statement}")
            raise


def _with_links(model: Any) -> list[Any]:
    """The model and the tables of its many-to-many fields."""
    return [model, *(field.through_model for field in model._meta.manytomany.values())]


def _comments(model: Any) -> Iterator[str]:
    meta = model._meta
    table = ".".join(_quoted(part) for part in (meta.schema, meta.table_name) if part)
    if getattr(meta, "comment", None):
        yield f"COMMENT ON TABLE {table} IS {quote_literal(meta.comment)}"
    for field in meta.sorted_fields:
        if getattr(field, "comment", None):
            column = f"{table}.{_quoted(field.column_name)}"
            yield f"COMMENT ON COLUMN {column} IS {quote_literal(field.comment)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class SchemaManager(peewee.SchemaManager):
    """Creates a model's table with the enum types it needs."""

    def create_all(
        self, safe: bool = True, *, with_policies: bool = True, **table_options: Any
    ) -> None:
        """Create types, table, indexes and policies; ``safe`` passes over what is there."""
        for declared in self.model._meta.sorted_fields:
            field = declared.inner if isinstance(declared, ArrayField) else declared
            if isinstance(field, EnumField):
                self.database.execute_sql(field.create_type_sql())
        super().create_all(safe=safe, **table_options)
        from orm_core.models.policies import enable_sql

        for sql in enable_sql(self.model):
            self.database.execute_sql(_doubled(sql))
        if with_policies:
            _make_policies(self.database, self.model)

    def _create_table(self, safe: bool = True, **options: Any) -> Any:
        return _with_percent_signs(super()._create_table(safe=safe, **options))

    def _create_index(self, index: Any, safe: bool = True) -> Any:
        return _with_percent_signs(super()._create_index(index, safe))

    def _create_foreign_key(self, field: Any) -> Any:
        return _with_percent_signs(super()._create_foreign_key(field))


def _with_percent_signs(ctx: Any) -> Any:
    """A statement in which a percent sign may stand alone, or twice, as the driver wants it."""
    sql, params = ctx.query()
    if params or "%" not in sql:
        return ctx
    return peewee.Context().literal(_doubled(sql))


def _doubled(sql: str) -> str:
    return re.sub("%%?", "%%", sql)
