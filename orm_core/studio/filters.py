"""The address of a view of a table, and the conditions that it stands for.

``/users?email__contains=ada&_sort=-created_at&_deleted=1``: a column's name with an operator and
a value; names that begin with ``_`` say how to show the rows. Names are looked up among the
table's columns and values are read by the column's type, so nothing of an address becomes SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidValue
from orm_core.studio.tables import Column, Table
from orm_core.studio.values import parse, parse_item

Deleted: TypeAlias = Literal["live", "all", "only"]

SIZES: Final = (25, 50, 100, 250)
DEFAULT_SIZE: Final = 50
MAX_CONDITIONS: Final = 20
MAX_CHOICES: Final = 100
MAX_WORDS: Final = 8

#: operator -> how it reads
WORDS: Final = {
    "eq": "is",
    "ne": "is not",
    "contains": "contains",
    "starts": "starts with",
    "ends": "ends with",
    "gt": "is more than",
    "gte": "is at least",
    "lt": "is less than",
    "lte": "is at most",
    "in": "is one of",
    "has": "has",
    "null": "is NULL",
    "notnull": "is not NULL",
    "empty": "is the empty text",
}
_EQUAL = ("eq", "ne", "in")
_NULL = ("null", "notnull")
_ORDER = ("gt", "gte", "lt", "lte")
#: kind -> the operators that make sense for it
OPERATORS: Final[dict[str, tuple[str, ...]]] = {
    "text": ("contains", "eq", "ne", "starts", "ends", "in", "empty", *_NULL),
    **dict.fromkeys(("integer", "float", "decimal", "time", "date"), (*_EQUAL, *_ORDER, *_NULL)),
    "boolean": ("eq", *_NULL),
    "enum": (*_EQUAL, *_NULL),
    "uuid": (*_EQUAL, *_NULL),
    "json": ("has", "contains", *_NULL),
    "array": ("has", *_NULL),
    "other": _NULL,
    "secret": (),
}
#: operators that take no value
BARE: Final = ("null", "notnull", "empty")
_DELETED: Final[dict[str, Deleted]] = {"0": "live", "1": "all", "only": "only"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on a column, with the text of its value."""

    column: Column
    operator: str
    text: str

    @classmethod
    def of(cls, column: Column, operator: str, text: str) -> Condition:
        """A checked condition. Raises ``InvalidValue``."""
        if column.is_secret:
            raise InvalidValue(
                f"{column.name} is secret: rows can't be filtered or sorted by it, and its content "
                "never leaves the database."
            )
        if operator not in OPERATORS[column.kind]:
            known = ", ".join(OPERATORS[column.kind])
            raise InvalidValue(f"{column.name} can't be filtered that way; it takes: {known}.")
        condition = cls(column, operator, "1" if operator in BARE else text)
        condition.predicate()
        return condition

    @property
    def name(self) -> str:
        """Its name in an address."""
        return self.column.name if self.operator == "eq" else f"{self.column.name}__{self.operator}"

    @property
    def words(self) -> str:
        """How its operator reads."""
        return WORDS[self.operator]

    @property
    def is_bare(self) -> bool:
        """Whether it has no value."""
        return self.operator in BARE

    def predicate(self) -> Any:
        """The condition for the query."""
        field, kind = self.column.field, self.column.kind
        match self.operator:
            case "null" | "notnull":
                return field.is_null(self.operator == "null")
            case "empty":
                return field == ""
            case "in":
                return field.in_(self._choices())
            case "contains" | "starts" | "ends":
                # As text: a varchar would refuse a pattern that is longer than its values.
                method = {"starts": "startswith", "ends": "endswith"}.get(self.operator, "contains")
                return getattr(field.cast("text"), method)(_text(self.text))
            case "has" if kind == "json":
                return peewee.Expression(field, "?", _raw(_text(self.text)))
            case "has":
                items = [parse_item(self.column, self.text)]
                value = peewee.Value(items, converter=field.db_value, unpack=False)
                return peewee.Expression(field, "@>", value)
            case _:
                pass
        value = parse(self.column, self.text)
        return {
            "eq": field.__eq__,
            "ne": field.__ne__,
            "gt": field.__gt__,
            "gte": field.__ge__,
            "lt": field.__lt__,
            "lte": field.__le__,
        }[self.operator](value)

    def _choices(self) -> list[Any]:
        texts = [one.strip() for one in self.text.split(",")]
        if len(texts) > MAX_CHOICES:
            raise InvalidValue(f"{self.column.name} takes at most {MAX_CHOICES} choices.")
        return [parse(self.column, one) for one in texts]


def _raw(text: str) -> Any:
    """A text as a parameter, whose type the server finds out."""
    return peewee.Value(text, converter=False)


def _text(text: str) -> str:
    if "\0" in text:
        raise InvalidValue("A text with a NUL character can't be looked for in PostgreSQL.")
    return text


@dataclass(frozen=True, slots=True)
class View:
    """Which rows and columns of a table to show, in which order, from where."""

    table: Table
    conditions: tuple[Condition, ...] = ()
    #: None: by the key, the newest first
    sort: Column | None = None
    descending: bool = True
    deleted: Deleted = "live"
    columns: tuple[Column, ...] = ()
    search: str = ""
    size: int = DEFAULT_SIZE
    after: str | None = None
    before: str | None = None
    exact: bool = False

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns to show: the chosen ones, else all."""
        return self.columns or self.table.columns

    @property
    def order(self) -> Column:
        """The column that the rows are in the order of."""
        return self.sort or self.table.key

    @property
    def is_filtered(self) -> bool:
        """Whether some rows are left out, other than deleted ones."""
        return bool(self.conditions or self.search)

    def predicates(self) -> Iterator[Any]:
        """The conditions for the query, which rows are deleted left aside."""
        for condition in self.conditions:
            yield condition.predicate()
        words = self.search.split()
        if len(words) > MAX_WORDS:
            raise InvalidValue(f"The quick search takes at most {MAX_WORDS} words.")
        for word in words:
            yield _anywhere(self.table, _text(word))

    # -- addresses --------------------------------------------------------------------------

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for condition in self.conditions:
            yield condition.name, condition.text
        if self.search:
            yield "_q", self.search
        if self.sort is not None:
            yield "_sort", f"{'-' if self.descending else ''}{self.sort.name}"
        if self.deleted != "live":
            yield "_deleted", "1" if self.deleted == "all" else "only"
        if self.columns:
            yield "_columns", ",".join(column.name for column in self.columns)
        if self.size != DEFAULT_SIZE:
            yield "_size", str(self.size)
        if self.after:
            yield "_after", self.after
        if self.before:
            yield "_before", self.before
        if self.exact:
            yield "_count", "exact"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What an address, or the hidden fields of a form, says of this view."""
        return list(self._pairs())

    @property
    def query(self) -> str:
        """The address's part after the table, with its question mark, or nothing."""
        text = urlencode(self.pairs)
        return f"?{text}" if text else ""

    def but(self, **changes: Any) -> View:
        """The same view, changed, from its first page."""
        changes = {"after": None, "before": None, "exact": False, **changes}
        return replace(self, **changes)

    def without(self, condition: Condition) -> View:
        """The same view without one of its conditions."""
        return self.but(conditions=tuple(one for one in self.conditions if one is not condition))

    def sorted_by(self, column: Column) -> View:
        """The same view in the order of a column; the other way round when it is already."""
        turned = column is self.order and not self.descending
        return self.but(sort=column, descending=turned)


def _anywhere(table: Table, word: str) -> Any:
    """Some column holds the word; what can't hold it is not looked at."""
    found: list[Any] = []
    for column in table.columns:
        if column.kind in ("text", "enum", "json", "array", "other"):
            found.append(column.field.cast("text").contains(word))
        elif column.kind in ("uuid", "integer", "decimal", "date"):
            try:
                found.append(column.field == parse(column, word))
            except InvalidValue:
                continue
    return reduce(_either, found) if found else peewee.SQL("false")


def _either(one: Any, other: Any) -> Any:
    return one | other


def read(table: Table, arguments: Iterable[tuple[str, str]]) -> View:
    """The view that an address's arguments ask for. Raises ``InvalidValue``, ``UnknownField``."""
    conditions: list[Condition] = []
    options: dict[str, str] = {}
    for name, text in arguments:
        if name.startswith("_"):
            # a form with a box for each column gives the name several times
            several = name == "_columns" and name in options
            options[name] = f"{options[name]},{text}" if several else text
            continue
        column, _, operator = name.partition("__")
        conditions.append(Condition.of(table.column(column), operator or "eq", text))
    if len(conditions) > MAX_CONDITIONS:
        raise InvalidValue(f"A view takes at most {MAX_CONDITIONS} conditions.")
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise InvalidValue(
            f"A view has no option of that name; it has {', '.join(sorted(_OPTIONS))}."
        )
    sort = options.get("_sort", "")
    view = View(
        table,
        tuple(conditions),
        sort=_sort(table, sort.removeprefix("-")) if sort else None,
        descending=sort.startswith("-") or not sort,
        deleted=_deleted(table, options.get("_deleted", "0")),
        columns=_columns(table, options.get("_columns", "")),
        search=options.get("_q", "").strip(),
        size=_size(options.get("_size", str(DEFAULT_SIZE))),
        after=options.get("_after") or None,
        before=options.get("_before") or None,
        exact=options.get("_count") == "exact",
    )
    list(view.predicates())
    return view


_OPTIONS: Final = frozenset(
    {"_sort", "_deleted", "_columns", "_q", "_size", "_after", "_before", "_count"}
)


def _sort(table: Table, name: str) -> Column:
    column = table.column(name)
    if not column.sortable:
        raise InvalidValue(f"Rows can't be sorted by {column.name}, which is {column.kind}.")
    return column


def _deleted(table: Table, text: str) -> Deleted:
    if text not in _DELETED:
        raise InvalidValue("_deleted is 0 (live rows), 1 (deleted ones too) or only.")
    return _DELETED[text] if table.is_soft else "live"


def _columns(table: Table, text: str) -> tuple[Column, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(dict.fromkeys(table.column(name) for name in names))


def _size(text: str) -> int:
    if text not in map(str, SIZES):
        raise InvalidValue(f"_size is one of {', '.join(map(str, SIZES))}.")
    return int(text)
