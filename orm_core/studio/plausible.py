"""Values that look like a service's own, guessed from the names of columns.

Names come from short lists of our own: a library's would change with its version, and the rows of
a seed with them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import inflection

from orm_core.models.fields import DecimalField

FIRST = [
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
LAST = [
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


def integer(dice: random.Random, name: str) -> int:
    """A whole number that fits a column of this name."""
    if any(word in name for word in ("total", "amount", "price", "cents", "balance")):
        return int(dice.lognormvariate(8, 1))
    if any(word in name for word in ("count", "quantity", "position", "rank")):
        return 1 + int(dice.expovariate(0.5))
    if "year" in name:
        return dice.randrange(1990, 2026)
    return dice.randrange(1_000)


def decimal(dice: random.Random, field: DecimalField[Any], number: int | None) -> Decimal:
    """A number that fits the field; of this many units where it must be unique."""
    most = 10**field.max_digits - 1
    units = int(dice.lognormvariate(3.5, 1) * 10**field.decimal_places)
    return Decimal(min(number or units, most)).scaleb(-field.decimal_places)


def moment(dice: random.Random, name: str, created: datetime) -> datetime:
    """A moment after the row's creation, before or long before it, by the column's name."""
    if "expire" in name or "due" in name or "until" in name:
        return created + timedelta(days=30, seconds=dice.randrange(86_400))
    if "birth" in name:
        return datetime(1960, 1, 1, tzinfo=UTC) + timedelta(days=dice.randrange(16_000))
    return created + timedelta(seconds=dice.randrange(20 * 86_400))


def document(dice: random.Random) -> dict[str, Any]:
    """A JSON document."""
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


def text(
    dice: random.Random, name: str, number: int, seed: int, person: tuple[str, str], unique: bool
) -> str:
    """A text by the column's name; one with the row's number where it must be unique."""
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
