"""BaseModel: a UUID key, timestamps, soft delete, and no silent loss.

::

    class Order(BaseModel):
        user = ForeignKeyField(User, backref="orders")
        status = TextField(default="pending")
        total = IntegerField()

    order = Order.create(user=user, total=1200)     # read back from the server
    Order.select().where(Order.total > 1000)        # live rows
    Order.delete().where(Order.id == order.id).execute()         # soft
    Order.restore().where(Order.id == order.id).execute()
    Order.hard_delete().where(Order.id == order.id).execute()    # gone
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self
from uuid import UUID

from orm_core import peewee_facade as peewee
from orm_core.database.connection import db
from orm_core.errors import InvalidValue, NotFound, RegistryError
from orm_core.models.bulk_insert import insert_rows
from orm_core.models.columns import CheckedField, is_sql, unknown_field
from orm_core.models.encrypted import EncryptedField
from orm_core.models.fields import DateTimeField, UUIDField
from orm_core.models.identifiers import utcnow, uuid7
from orm_core.models.insert import InsertQuery
from orm_core.models.owners import refuse_other_owner, writing
from orm_core.models.rows import MadeOnDemand
from orm_core.models.schema import Metadata, SchemaManager
from orm_core.models.sealing import seal_changes
from orm_core.models.soft_delete import (
    Alias,
    Restore,
    SelectQuery,
    SoftDelete,
    UpdateQuery,
    check_soft,
    is_soft,
)
from orm_core.models.versions import check_fresh, refuse_by_hand, version_read, write

#: puts the timestamps after a model's own columns, as in the guide
_LAST = 1 << 30


class BaseModel(peewee.Model):
    """Base of all models: ``id`` (UUID version 7), ``created_at``, ``updated_at``, ``deleted_at``.

    Times are aware and in UTC. ``updated_at`` moves with every update, bulk ones included.
    Queries see live rows; ``with_deleted()`` and ``only_deleted()`` see others. A value that
    does not fit its column is refused with ``InvalidValue`` before any SQL.

    A table that was there before may lack a standard column: ``deleted_at = None`` leaves it out,
    and ``delete()`` is a DELETE then; ``id = AutoField()`` gives another key.
    """

    #: the ``NotFound`` of this model
    DoesNotExist: ClassVar[type[NotFound]]

    id: UUIDField[UUID] = UUIDField(
        primary_key=True, default=uuid7, server_default="gen_random_uuid()"
    )
    created_at: DateTimeField[datetime] = DateTimeField(default=utcnow, server_default="now()")
    updated_at: DateTimeField[datetime] = DateTimeField(default=utcnow, server_default="now()")
    deleted_at: DateTimeField[datetime | None] = DateTimeField(null=True)

    _times: ClassVar[Any] = (created_at, updated_at, deleted_at)
    for _place, _field in enumerate(_times):
        _field._order = _LAST + _place
        _field._sort_key = (2, _field._order)
    del _place, _field, _times  # pyright: ignore[reportPossiblyUnboundVariable]

    # A loaded row starts with its columns only; see also validate_model.
    _stored = True

    if not TYPE_CHECKING:  # to checkers these are what they make, and a Meta is none of ours
        _dirty = MadeOnDemand("_dirty", set)

        class Meta:
            database = db
            table_name = "base_models"  # Peewee wants one; making it up takes long
            only_save_dirty = True
            model_metadata_class = Metadata
            schema_manager_class = SchemaManager

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        loaded = "__no_default__" in kwargs
        if not loaded:
            for name in kwargs:
                if name not in self._meta.combined and name not in self._meta.manytomany:
                    raise unknown_field(type(self), name)
        super().__init__(*args, **kwargs)
        self._stored = loaded

    @classmethod
    def validate_model(cls) -> None:
        """Peewee's hook at the end of a class: our ``DoesNotExist`` and the constraints' names."""
        cls.DoesNotExist = type(
            cls.DoesNotExist.__name__, (NotFound,), {"__module__": cls.__module__}
        )
        cls._meta.declare()
        cls._meta.check_policies()
        relations: Any = MadeOnDemand("__rel__", dict)
        cls.__rel__ = relations  # Peewee gives each class one of its own
        cls._meta.loads_plainly = cls.__init__.__module__ == __name__
        for key in cls._meta.refs:
            cascades = getattr(key, "on_soft_delete", None) == "cascade"
            if cascades and key.rel_field is not key.rel_model._meta.primary_key:
                raise RegistryError(
                    f"{cls.__name__}.{key.name}: on_soft_delete works for references to a "
                    "primary key."
                )

    # -- queries ----------------------------------------------------------------------------

    @classmethod
    def select(cls, *fields: Any) -> SelectQuery[Self]:
        """SELECT live rows: of all columns, or of those given."""
        return SelectQuery(cls, fields or cls._meta.sorted_fields, is_default=not fields)

    @classmethod
    def with_deleted(cls) -> SelectQuery[Self]:
        """SELECT all rows, soft-deleted ones too."""
        return cls.select().with_deleted()

    @classmethod
    def only_deleted(cls) -> SelectQuery[Self]:
        """SELECT soft-deleted rows."""
        return cls.select().only_deleted()

    @classmethod
    def alias(cls, alias: str | None = None) -> type[Self]:
        """A second name for this model in one query."""
        named: Any = Alias(cls, alias)
        return named  # type: ignore[no-any-return]

    @classmethod
    def insert(cls, data: Any = None, /, **values: Any) -> InsertQuery[Any]:
        """INSERT one row; executing answers its id."""
        return InsertQuery(cls, cls._normalize_data(data, values))

    @classmethod
    def insert_many(cls, rows: Iterable[Any], fields: Any = None) -> InsertQuery[Any]:
        """INSERT rows, dicts (of any keys) or tuples in the order of ``fields``, in a statement."""
        return InsertQuery(cls, insert=rows, columns=fields)

    @classmethod
    def update(cls, data: Any = None, /, **values: Any) -> UpdateQuery[int]:
        """UPDATE live rows; executing answers how many."""
        changes = cls._normalize_data(data, values)
        secrets: list[Any] = [one for one in changes if isinstance(one, EncryptedField)]
        for field in secrets:
            if changes[field] is None:
                changes |= dict.fromkeys(field.columns)
        refuse_by_hand(cls, changes)
        refuse_other_owner(cls, changes)
        return UpdateQuery(cls, changes)

    @classmethod
    def delete(cls) -> SoftDelete | peewee.ModelDelete[int]:
        """Soft-delete live rows, and those that cascade; executing answers how many of these.

        DELETE, for a model that has no ``deleted_at``.
        """
        return SoftDelete(cls) if is_soft(cls) else peewee.ModelDelete(cls)

    @classmethod
    def restore(cls) -> Restore:
        """Bring soft-deleted rows back, and those that went with them."""
        check_soft(cls)
        return Restore(cls)

    @classmethod
    def hard_delete(cls) -> peewee.ModelDelete[int]:
        """DELETE rows for good, live or soft-deleted."""
        return peewee.ModelDelete(cls)

    @classmethod
    def _normalize_data(cls, data: Any, kwargs: Mapping[str, Any]) -> dict[Any, Any]:
        if data is not None and not isinstance(data, Mapping):
            raise InvalidValue(f"{cls.__name__} takes a dict of fields; no SQL was sent.")
        normalized: dict[Any, Any] = {}
        given: dict[Any, Any] = {**(data or {}), **kwargs}
        for name, value in given.items():
            field: Any = cls._meta.combined.get(name) if isinstance(name, str) else name
            if (
                not isinstance(field, peewee.AnyField)
                or cls._meta.fields.get(field.name) is not field
            ):
                raise unknown_field(cls, field.name if isinstance(field, peewee.AnyField) else name)
            if field in normalized:
                raise InvalidValue(f"{cls.__name__}.{field.name} is given twice; no SQL was sent.")
            normalized[field] = field.db_value(value) if isinstance(value, peewee.Model) else value
        return normalized

    @classmethod
    def get_or_create(cls, **kwargs: Any) -> tuple[Self, bool]:
        """The live row with these values, or a new one; and whether it is new.

        ``defaults={...}`` are more values for a new row.
        """
        for name in {*kwargs, *kwargs.get("defaults", ())} - {"defaults"}:
            if name not in cls._meta.combined:
                raise unknown_field(cls, name)
        found: tuple[Self, bool] = super().get_or_create(**kwargs)
        return found

    @classmethod
    def bulk_create(cls, model_list: Iterable[Self], batch_size: int | None = None) -> None:
        """INSERT new instances, ``batch_size`` a statement, and read them back."""
        instances = list(model_list)
        size = batch_size or len(instances) or 1
        with cls._meta.database.atomic():
            for start in range(0, len(instances), size):
                batch = instances[start : start + size]
                rows = [
                    {field.name: value for field, value in cls._values(one.__data__).items()}
                    for one in batch
                ]
                computed = any(is_sql(value) for row in rows for value in row.values())
                stored = (
                    cls.insert_many(rows).returning(cls).execute()
                    if computed
                    else insert_rows(cls, rows)
                )
                for one, row in zip(batch, stored, strict=True):
                    one._take(row)

    @classmethod
    def bulk_update(
        cls, model_list: Iterable[Any], fields: Iterable[Any], batch_size: int | None = None
    ) -> int:
        """UPDATE these fields of instances, ``batch_size`` a statement; answers how many.

        Where rows have a version: one by one, all or none. Raises ``StaleRow`` and ``NotFound``.
        """
        instances = list(model_list)
        if cls._meta.version is None:
            return int(super().bulk_update(instances, fields, batch_size))
        known = cls._meta.combined
        chosen = [known[one] if isinstance(one, str) else one for one in fields]
        with cls._meta.database.atomic():
            rows = [
                cls._update_row(
                    one._pk,
                    {field: one.__data__[field.name] for field in chosen},
                    version_read(one),
                )
                for one in instances
            ]
        for one, row in zip(instances, rows, strict=True):
            one._take(row)
        return len(rows)

    # -- instances --------------------------------------------------------------------------

    @classmethod
    def _values(cls, data: Mapping[str, Any]) -> dict[Any, Any]:
        """An instance's data by field; parts of an encrypted column go with the column."""
        fields = cls._meta.fields
        secrets: set[Any] = {f for f in fields.values() if isinstance(f, EncryptedField)}
        parts = {part.name for f in secrets for part in f.columns[1:]}
        return {fields[name]: value for name, value in data.items() if name not in parts}

    def __sql__(self, ctx: Any) -> Any:
        field = getattr(ctx.state.converter, "__self__", None)
        if isinstance(field, CheckedField) and field is not self._meta.primary_key:
            return ctx.sql(peewee.Value(self, converter=field.db_value))
        return super().__sql__(ctx)

    def _take(self, row: Self) -> None:
        """Become what the server answered."""
        self.__data__.update(row.__data__)
        self._dirty.clear()
        self._stored = True

    def save(self, force_insert: bool = False, only: Any = None) -> int:
        """Write this instance: INSERT when it is new, else UPDATE its changed fields.

        Values are read back. ``only`` limits an UPDATE to these fields. Raises ``NotFound`` when
        the row is gone or soft-deleted, ``StaleRow`` when its version is not the one that was
        read, so that no change is lost; answers the rows written.
        """
        self._populate_unsaved_relations(self.__data__)
        if force_insert or not self._stored:
            row = next(iter(type(self).insert(self._values(self.__data__)).returning(type(self))))
            self._take(row)
            return 1
        changed = self._prune_fields(self.__data__, self.dirty_fields)
        if only is not None:
            changed = self._prune_fields(changed, only)
        values = self._values(changed)
        if self._meta.primary_key in values:
            raise InvalidValue(f"{type(self).__name__}.id of a stored row can't be changed.")
        if not values:
            return 0
        self._take(type(self)._update_row(self._pk, values, version_read(self)))
        return 1

    @classmethod
    def _update_row(cls, key: Any, values: Mapping[Any, Any], expected: int | None = None) -> Self:
        with writing(cls):
            query = cls.update(seal_changes(values, key)).where(cls._meta.primary_key == key)
            if expected is not None:
                query = query.where(cls._meta.version == expected)
            for row in query.returning(cls).execute():
                return row
        if expected is not None:
            check_fresh(cls.select(), {cls._meta.primary_key.db_value(key): expected})
        raise NotFound(
            f"The row of {cls._meta.table_name} is gone or soft-deleted; nothing was written."
        )

    def delete_instance(self, recursive: bool = False, delete_nullable: bool = False) -> int:
        """Soft-delete this row; ``recursive`` takes along what refers to it (Peewee's meaning)."""
        moment = utcnow()  # of all of them, so that restoring brings back what cascades
        with self._meta.database.atomic():
            if recursive:
                below = self.dependencies(exclude_null_children=not delete_nullable)
                for predicate, key in below:
                    _cut_off(key, predicate, moment, unlink=key.null and not delete_nullable)
            query = SoftDelete(type(self), moment) if is_soft(type(self)) else type(self).delete()
            count = write(query, self, type(self).select())
        self._reload_times()
        return count

    def restore_instance(self) -> int:
        """Bring this row back, with those that went with it."""
        count = write(type(self).restore(), self, type(self).only_deleted())
        self._reload_times()
        return count

    def hard_delete_instance(self) -> int:
        """DELETE this row for good."""
        return write(type(self).hard_delete(), self, type(self).with_deleted())

    def _reload_times(self) -> None:
        version = self._meta.version
        kept = ("updated_at", "deleted_at", *([version.name] if version is not None else ()))
        names = [name for name in kept if name in self._meta.fields]
        times = [self._meta.fields[name] for name in names]
        query = type(self).select(*times).with_deleted().where(self._pk_expr())
        for row in query.tuples() if times else ():
            self.__data__.update(zip(names, row, strict=True))

    @property
    def is_deleted(self) -> bool:
        """Whether this row was soft-deleted when it was read."""
        return getattr(self, "deleted_at", None) is not None


def _cut_off(key: Any, predicate: Any, moment: datetime, *, unlink: bool) -> None:
    if unlink:
        key.model.update(**{key.name: None}).where(predicate).execute()
    elif is_soft(key.model):
        SoftDelete(key.model, moment).where(predicate).execute()
    else:
        key.model.delete().where(predicate).execute()
