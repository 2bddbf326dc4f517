"""Plausible rows for a table, the same ones for the same seed.

::

    plant(registry, {"users": 1_000, "orders": 5_000}, seed=7)

Values are guessed from a column's name and type; unique ones carry the row's number; references
lead to rows that are there. Rows go through the domains' services, so what a model refuses is
refused here. Names come from short lists of our own: a library's would change with its version,
and the rows with them.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Final

import inflection
import peewee

from orm_core.crypto import Secret
from orm_core.errors import DuplicateKey, InvalidValue
from orm_core.models.fields import DecimalField
from orm_core.registry import Registry
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

_FIRST = [
    "Ada",
    "Alan",
    "Alonzo",
    "Annie",
    "Barbara",
    "Blaise",
    "Carl",
    "Claude",
    "Donald",
    "Dorothy",
    "Edsger",
    "Emmy",
    "Evelyn",
    "Frances",
    "Grace",
    "Hedy",
    "Ida",
    "Joan",
    "John",
    "Karen",
    "Katherine",
    "Kurt",
    "Leslie",
    "Margaret",
    "Mary",
    "Niklaus",
    "Noether",
    "Radia",
    "Rózsa",
    "Shafi",
    "Sofia",
    "Tim",
    "Tony",
    "Ursula",
    "Vint",
    "Xiaoyun",
    "Yukihiro",
]
_LAST = [
    "Allen",
    "Babbage",
    "Bartik",
    "Boole",
    "Cerf",
    "Church",
    "Dijkstra",
    "Engelbart",
    "Goldwasser",
    "Gödel",
    "Hamilton",
    "Hoare",
    "Holberton",
    "Hopper",
    "Johnson",
    "Keller",
    "Knuth",
    "Lamport",
    "Lamarr",
    "Liskov",
    "Lovelace",
    "McCarthy",
    "Noether",
    "Pascal",
    "Perlman",
    "Péter",
    "Rhodes",
    "Ritchie",
    "Shannon",
    "Turing",
    "Wilkes",
    "Wirth",
    "Zuse",
    "O'Neil",
]
_WORDS = [
    "amber",
    "birch",
    "cedar",
    "clover",
    "copper",
    "coral",
    "delta",
    "ember",
    "fern",
    "flint",
    "harbor",
    "hazel",
    "indigo",
    "juniper",
    "lagoon",
    "linen",
    "maple",
    "meadow",
    "mint",
    "moss",
    "nimbus",
    "opal",
    "pebble",
    "pine",
    "quartz",
    "river",
    "saffron",
    "sage",
    "sierra",
    "slate",
    "spruce",
    "timber",
    "willow",
]
_CITIES = [
    "Berlin",
    "Lisbon",
    "Kraków",
    "Osaka",
    "Oslo",
    "Porto",
    "Quito",
    "Riga",
    "Toronto",
    "Utrecht",
    "Valencia",
    "Wellington",
]
_COUNTRIES = ["DE", "PT", "PL", "JP", "NO", "EC", "LV", "CA", "NL", "ES", "NZ", "SE"]


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
    planted = {}
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
        return not (column.is_generated or getattr(field, "auto_increment", False))

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
        person = self._dice.choice(_FIRST), self._dice.choice(_LAST)
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
            return Secret(f"seed-{self._seed}-{number}-{dice.getrandbits(64):016x}")
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
                return number if name in self._unique else min(_integer(dice, name), limit)
            case "float":
                return round(dice.uniform(0, 100), 3)
            case "decimal":
                return _decimal(dice, field, number if name in self._unique else None)
            case "time":
                return _moment(dice, name, moment)
            case "date":
                return _moment(dice, name, moment).date()
            case "uuid":
                return self._uuid(moment)
            case "json":
                return _document(dice)
            case "array":
                inner = field.inner
                some = range(dice.randrange(4))
                return [
                    self._plain(inner, name, kind_of(inner), number, moment, person) for _ in some
                ]
            case "text":
                text = _text(dice, name, number, self._seed, person, name in self._unique)
                return text[: field.max_length] if getattr(field, "max_length", None) else text
        raise InvalidValue(f"{field.label} is of a type that seeding knows no values for.")


def _is_field(one: Any) -> bool:
    return isinstance(one, peewee.Field)


def _integer(dice: random.Random, name: str) -> int:
    if any(word in name for word in ("total", "amount", "price", "cents", "balance")):
        return int(dice.lognormvariate(8, 1))
    if any(word in name for word in ("count", "quantity", "position", "rank")):
        return 1 + int(dice.expovariate(0.5))
    if "year" in name:
        return dice.randrange(1990, 2026)
    return dice.randrange(1_000)


def _decimal(dice: random.Random, field: DecimalField[Any], number: int | None) -> Decimal:
    most = 10**field.max_digits - 1
    units = int(dice.lognormvariate(3.5, 1) * 10**field.decimal_places)
    return Decimal(min(number or units, most)).scaleb(-field.decimal_places)


def _moment(dice: random.Random, name: str, created: datetime) -> datetime:
    if "expire" in name or "due" in name or "until" in name:
        return created + timedelta(days=30, seconds=dice.randrange(86_400))
    if "birth" in name:
        return datetime(1960, 1, 1, tzinfo=UTC) + timedelta(days=dice.randrange(16_000))
    return created + timedelta(seconds=dice.randrange(20 * 86_400))


def _document(dice: random.Random) -> dict[str, Any]:
    return {
        "client": dice.choice(("web", "ios", "android", "cli")),
        "version": f"{dice.randrange(1, 6)}.{dice.randrange(10)}",
        "flags": dice.sample(("beta", "dark", "trial", "team"), dice.randrange(3)),
        "place": {"city": dice.choice(_CITIES), "country": dice.choice(_COUNTRIES)},
    }


#: parts of a column's name -> its texts; the first that fits counts
_TEXTS: Final[tuple[tuple[tuple[str, ...], Callable[[Any, tuple[str, str]], str]], ...]] = (
    (("first_name", "given"), lambda _, person: person[0]),
    (("last_name", "surname", "family"), lambda _, person: person[1]),
    (("avatar", "image", "photo"), lambda d, _: f"https://example.com/a/{d.getrandbits(32):08x}.png"),
    (("url", "link", "website"), lambda d, _: f"https://example.com/{d.choice(_WORDS)}"),
    (("city", "town"), lambda d, _: d.choice(_CITIES)),
    (("country",), lambda d, _: d.choice(_COUNTRIES)),
    (("currency",), lambda d, _: d.choice(("EUR", "USD", "JPY"))),
    (("phone",), lambda d, _: f"+49 30 {d.randrange(10**6, 10**7)}"),
    (("scope",), lambda d, _: d.choice(("openid email", "openid email profile"))),
    (("status", "state"), lambda d, _: d.choice(("pending", "paid", "paid", "shipped", "cancelled"))),
    (("description", "notes", "body", "comment", "summary", "message"), lambda d, _: _sentence(d)),
    (("title", "subject", "label"), lambda d, _: _title(d)),
    (("name",), lambda d, person: f"{person[0]} {person[1]}" if d.random() < 0.3 else _title(d)),
)  # fmt: skip


def _text(
    dice: random.Random, name: str, number: int, seed: int, person: tuple[str, str], unique: bool
) -> str:
    mark = f"{number}" if seed == 1 else f"{seed}.{number}"
    if "email" in name:
        local = inflection.transliterate(f"{person[0]}.{person[1]}").lower().replace("'", "")
        return f"{local}.{mark}@example.com"
    if unique or "account_id" in name or name in ("slug", "code", "sku", "number", "reference"):
        return f"{dice.choice(_WORDS)}-{mark}"
    for words, make in _TEXTS:
        if any(word in name for word in words):
            return make(dice, person)
    return f"{dice.choice(_WORDS)} {dice.choice(_WORDS)}"


def _title(dice: random.Random) -> str:
    return f"{dice.choice(_WORDS)} {dice.choice(_WORDS)}".capitalize()


def _sentence(dice: random.Random) -> str:
    words = [dice.choice(_WORDS) for _ in range(dice.randrange(6, 16))]
    return " ".join(words).capitalize() + "."
