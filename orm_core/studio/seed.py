"""Plausible rows for a table, the same ones for the same seed.

::

    plant(registry, {"users": 1_000, "orders": 5_000}, seed=7)

Values are guessed from a column's name and type; unique ones carry the row's number; references
lead to rows that are there. Rows go through the domains' services, so what a model refuses is
refused here.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.domain import Registry
from orm_core.errors import DuplicateKey, InvalidValue
from orm_core.studio import plausible
from orm_core.studio.edits import service_of
from orm_core.studio.tables import Column, Table, Tables, kind_of

BATCH: Final = 1_000
#: rows of another table that references choose from
PARENTS: Final = 20_000
#: the share of rows that are soft-deleted, and of nullable columns that are NULL
DELETED: Final = 0.03
NULLS: Final = 0.15
#: the moment before which everything happened; fixed, so that rows are the same tomorrow
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
SPAN: Final = timedelta(days=540)


def plant(
    registry: Registry,
    counts: Mapping[str, int],
    seed: int = 1,
    told: Callable[[str, int], object] = lambda _name, _count: None,
) -> dict[str, int]:
    """Insert so many rows into each table; answers how many, by table.

    Parents come before what refers to them. ``told`` hears of each batch. Raises
    ``InvalidValue`` for a table without parents' rows or with the seed's rows already, and what
    the server refuses; a table's rows stand batch by batch.
    """
    tables = Tables(registry)
    for name, count in counts.items():
        tables[name]
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InvalidValue(f"The number of rows for {name} must be a whole number, 0 or more.")
    planted: dict[str, int] = {}
    for model in registry.models:
        table = tables.of(model)
        if table is not None and counts.get(table.name):
            planted[table.name] = _plant(table, counts[table.name], seed, told)
    return planted


def _plant(table: Table, count: int, seed: int, told: Callable[[str, int], object]) -> int:
    service, gardener = service_of(table), _Gardener(table, seed, count)
    done = 0
    rows = gardener.rows()
    while batch := list(islice(rows, BATCH)):
        try:
            service.create_many(batch)
        except DuplicateKey as error:
            raise InvalidValue(
                f"{table.name} has rows of seed {seed} already ({done} were planted now): use "
                f"another --seed. ({error})"
            ) from error
        done += len(batch)
        told(table.name, done)
    return done


class _Gardener:
    """Makes the rows of one table, one after the other."""

    def __init__(self, table: Table, seed: int, count: int) -> None:
        self._table = table
        self._count = count
        self._seed = seed
        # Not hash(), which differs between processes.
        self._dice = random.Random(f"orm_core:{seed}:{table.name}")  # noqa: S311 - no secret
        unique = [key for key, _ in table.model._meta.unique_keys()]
        self._unique = {getattr(one, "name", "") for key in unique for one in key}
        self._alone = {key[0].name for key in unique if len(key) == 1 and _is_field(key[0])}
        self._parents = {
            column.field.name: self._keys_of(column)
            for column in table.references
            if column.target is not table.model
        }
        self._columns = [column for column in table.columns if self._is_ours(column)]

    def _is_ours(self, column: Column) -> bool:
        field = column.field
        counted = field is self._table.model._meta.version
        return not (counted or column.is_generated or getattr(field, "auto_increment", False))

    def _keys_of(self, column: Column) -> list[Any]:
        field = column.field.rel_field
        rows = column.target.select(field).order_by(field).limit(PARENTS).tuples()
        keys = [key for (key,) in rows]
        if not keys and not column.nullable:
            raise InvalidValue(
                f"{self._table.name}.{column.name} needs rows of "
                f"{column.target._meta.table_name}: plant some of these too."
            )
        if column.field.name in self._alone:
            if len(keys) < self._count and not column.nullable:
                raise InvalidValue(
                    f"{self._table.name}.{column.name} is unique, so there can be no more rows "
                    f"than the {len(keys)} of {column.target._meta.table_name}."
                )
            self._dice.shuffle(keys)
        return keys

    def rows(self) -> Iterator[dict[str, Any]]:
        """The payloads, in the order of their creation."""
        for number in range(1, self._count + 1):
            yield self._row(number)

    def _row(self, number: int) -> dict[str, Any]:
        share = number / (self._count + 1)
        created = NOW - SPAN * (1 - share) + timedelta(seconds=self._dice.randrange(600))
        person = self._dice.choice(plausible.FIRST), self._dice.choice(plausible.LAST)
        row: dict[str, Any] = {}
        for column in self._columns:
            name = column.field.name
            if name == self._table.key.field.name:
                if column.kind == "uuid" and column.target is None:
                    row[name] = self._uuid(created)
                elif column.target is None:
                    row[name] = self._value(column, number, created, person)
                    continue
            if name in ("created_at", "updated_at"):
                row[name] = created
            elif name == "deleted_at":
                if self._dice.random() < DELETED:
                    row[name] = created + timedelta(days=self._dice.randrange(1, 30))
            elif name not in row:
                row[name] = self._value(column, number, created, person)
        return row

    def _uuid(self, moment: datetime) -> uuid.UUID:
        """RFC 9562 version 7, its random part from the seed."""
        milliseconds = int(moment.timestamp() * 1000)
        chance = self._dice.getrandbits(74)
        bits = milliseconds << 80 | 7 << 76 | (chance >> 62) << 64 | 2 << 62
        return uuid.UUID(int=bits | chance & ((1 << 62) - 1))

    def _value(self, column: Column, number: int, moment: datetime, person: tuple[str, str]) -> Any:
        field, dice = column.field, self._dice
        single = field.name in self._unique
        if column.nullable and not single and dice.random() < NULLS:
            return None
        if column.target is not None:
            return self._reference(column, number)
        if column.is_secret:
            return field.secret_class(f"seed-{self._seed}-{number}-{dice.getrandbits(64):016x}")
        return self._plain(field, field.name, column.kind, number, moment, person)

    def _reference(self, column: Column, number: int) -> Any:
        keys = self._parents.get(column.field.name, [])
        if not keys:
            return None
        if column.field.name in self._alone:
            return keys[number - 1] if number <= len(keys) else None
        # Some parents have many children, most have few.
        return keys[int(len(keys) * self._dice.random() ** 2)]

    def _plain(
        self,
        field: Any,
        name: str,
        kind: str,
        number: int,
        moment: datetime,
        person: tuple[str, str],
    ) -> Any:
        dice = self._dice
        match kind:
            case "enum":
                labels = field.labels
                return labels[min(int(len(labels) * dice.random() ** 1.7), len(labels) - 1)]
            case "boolean":
                return dice.random() < 0.8
            case "integer":
                limit = (1 << (getattr(field, "bits", 32) - 1)) - 1
                return number if name in self._unique else min(plausible.integer(dice, name), limit)
            case "float":
                return round(dice.uniform(0, 100), 3)
            case "decimal":
                return plausible.decimal(dice, field, number if name in self._unique else None)
            case "time":
                return plausible.moment(dice, name, moment)
            case "date":
                return plausible.moment(dice, name, moment).date()
            case "uuid":
                return self._uuid(moment)
            case "json":
                return plausible.document(dice)
            case "array":
                inner = field.inner
                some = range(dice.randrange(4))
                return [
                    self._plain(inner, name, kind_of(inner), number, moment, person) for _ in some
                ]
            case "text":
                text = plausible.text(dice, name, number, self._seed, person, name in self._unique)
                return text[: field.max_length] if getattr(field, "max_length", None) else text
            case _:
                raise InvalidValue(f"{field.label} is of a type that seeding knows no values for.")


def _is_field(one: Any) -> bool:
    return isinstance(one, peewee.AnyField)
