"""Columns of text, numbers, times, JSON, enums and arrays.

Peewee's fields, which refuse a wrong value with ``InvalidValue`` before any SQL; see
``orm_core.models.columns`` for what they all take.
"""

from orm_core.models.fields.arrays import ArrayField, array_literal
from orm_core.models.fields.enums import EnumField
from orm_core.models.fields.jsonb import JSONField
from orm_core.models.fields.numbers import (
    AutoField,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    DecimalField,
    DoubleField,
    IntegerField,
    SmallIntegerField,
)
from orm_core.models.fields.others import OtherField, UUIDField
from orm_core.models.fields.text import CharField, TextField
from orm_core.models.fields.times import DateField, DateTimeField
from orm_core.models.fields.versions import VersionField

__all__ = [
    "ArrayField",
    "AutoField",
    "BigAutoField",
    "BigIntegerField",
    "BooleanField",
    "CharField",
    "DateField",
    "DateTimeField",
    "DecimalField",
    "DoubleField",
    "EnumField",
    "IntegerField",
    "JSONField",
    "OtherField",
    "SmallIntegerField",
    "TextField",
    "UUIDField",
    "VersionField",
    "array_literal",
]
