"""Peewee under the types that checkers see, which ``peewee_facade.pyi`` declares.

Peewee's own stubs let ``User.age.ilike("x")`` pass and leave most queries untyped. So our classes
stand on these: the same classes when the program runs, generic ones for mypy and pyright.
"""

from __future__ import annotations

# Checkers read the stub beside this file; what Peewee's own stubs leave out is no matter here.
# pyright: basic, reportAttributeAccessIssue=false
from typing import Generic, TypeVar

import peewee
from peewee import (
    OP,
    ROW,
    SCOPE_COLUMN,
    SQL,
    AutoField,
    BaseQuery,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    Cast,
    CharField,
    ColumnBase,
    CommaNodeList,
    ConnectionContext,
    Context,
    CursorWrapper,
    Database,
    DateField,
    DateTimeField,
    DecimalField,
    DeferredForeignKey,
    DoubleField,
    EnclosedNodeList,
    Entity,
    Expression,
    FieldAccessor,
    ForeignKeyAccessor,
    ForeignKeyField,
    Index,
    IntegerField,
    Join,
    JSONField,
    Load,
    ManyToManyField,
    ManyToManyFieldAccessor,
    ManyToManyQuery,
    Metadata,
    Model,
    ModelAlias,
    ModelIndex,
    Node,
    NodeList,
    OnConflict,
    OperationalError,
    Ordering,
    PostgresqlDatabase,
    Query,
    QueryEvent,
    SchemaManager,
    Select,
    SelectBase,
    SmallIntegerField,
    TextField,
    Tuple,
    UUIDField,
    Value,
    ValuesList,
    fn,
    sort_models,
)

__all__ = [
    "OP",
    "ROW",
    "SCOPE_COLUMN",
    "SQL",
    "AnyColumn",
    "AnyField",
    "AutoField",
    "BaseQuery",
    "BigAutoField",
    "BigIntegerField",
    "BooleanField",
    "Cast",
    "CharField",
    "Column",
    "ColumnBase",
    "CommaNodeList",
    "ConnectionContext",
    "Context",
    "CursorWrapper",
    "Database",
    "DateField",
    "DateTimeField",
    "DecimalField",
    "DeferredForeignKey",
    "DoubleField",
    "EnclosedNodeList",
    "Entity",
    "Expression",
    "Field",
    "FieldAccessor",
    "ForeignKeyAccessor",
    "ForeignKeyField",
    "Index",
    "IntegerField",
    "JSONField",
    "Join",
    "Load",
    "ManyToManyField",
    "ManyToManyFieldAccessor",
    "ManyToManyQuery",
    "Metadata",
    "Model",
    "ModelAlias",
    "ModelDelete",
    "ModelIndex",
    "ModelInsert",
    "ModelSelect",
    "ModelUpdate",
    "Node",
    "NodeList",
    "OnConflict",
    "OperationalError",
    "Ordering",
    "PostgresqlDatabase",
    "Predicate",
    "Query",
    "QueryEvent",
    "Relation",
    "SchemaManager",
    "Select",
    "SelectBase",
    "SmallIntegerField",
    "Term",
    "TextField",
    "Tuple",
    "UUIDField",
    "Value",
    "ValuesList",
    "fn",
    "sort_models",
]

#: a term of any type
AnyColumn = ColumnBase
#: any field, also one that isn't of ours
AnyField = peewee.Field
#: what sorts, groups and is selected: a field, a computation, SQL
Column = ColumnBase
#: what where() takes: a comparison, a boolean column, SQL
Predicate = ColumnBase
#: what leads to related rows
Relation = (ForeignKeyField, peewee.BackrefAccessor)
#: a column or computation whose value in a row is of one type
Term = ColumnBase

_V = TypeVar("_V")
_G = TypeVar("_G")
_R = TypeVar("_R")


class Field(peewee.Field, Generic[_V, _G]):
    """A column: ``_V`` is what it is compared with, ``_G`` what a row carries (``_V | None``)."""


class ModelSelect(peewee.ModelSelect, Generic[_R]):
    """SELECT; ``_R`` is the type of its rows."""


class ModelUpdate(peewee.ModelUpdate, Generic[_R]):
    """UPDATE; ``_R`` is what executing answers."""


class ModelInsert(peewee.ModelInsert, Generic[_R]):
    """INSERT; ``_R`` is what executing answers."""


class ModelDelete(peewee.ModelDelete, Generic[_R]):
    """DELETE; ``_R`` is what executing answers."""
