"""From the driver's rows to models, dicts, tuples and records: a loop written for each shape.

Peewee looks up each column's converter, and calls it, for each value of each row. Here a loop is
generated once for a model and a set of its columns, with the conversions in its text, and kept
with the model; beside it stands the same for one row, without a loop and a list::

    for v0, v1 in rows:
        row = new(model)
        row.__data__ = {"id": uuid(v0), "email": v1}

Selections that are not plain columns of one model are left to Peewee.
"""

from __future__ import annotations

# It compares functions and writes source: types would tell nothing of what it makes.
# pyright: basic
import keyword
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from textwrap import indent
from typing import Any, ClassVar, Final, Self, TypeAlias

from orm_core import peewee_facade as peewee
from orm_core.database.decoding import uuid_of
from orm_core.errors import InvalidValue
from orm_core.models.columns import CheckedField
from orm_core.models.encrypted import EncryptedField
from orm_core.models.fields import DateTimeField, EnumField, UUIDField
from orm_core.models.owners import KeyPage, owned_fields, owner_field, share_keys
from orm_core.models.references import ForeignKeyAccessor, ForeignKeyField
from orm_core.models.sealed_parts import SealedPartField, SealedText
from orm_core.models.stored_secret import SecretAccessor

Rows: TypeAlias = Iterable[Sequence[Any]]
MakeRows: TypeAlias = Callable[[Rows], list[Any]]
MakeRow: TypeAlias = Callable[[Sequence[Any]], Any]

#: a row type of ours beside Peewee's (peewee.ROW)
RECORD: Final = 100
#: loops kept for a model; then they start anew
MOST_LOOPS: Final = 256

#: what ``python_value`` does, as text; ``{v}`` is the value, ``{f}`` the field
_INLINE: Final = {
    CheckedField.python_value: "{v}",
    UUIDField.python_value: "uuid_of({v}) if {v}.__class__ is str else {v}",
    DateTimeField.python_value: (
        "{v} if {v} is None or {v}.tzinfo is UTC else {f}.python_value({v})"
    ),
    EncryptedField.python_value: "{v} if {v} is None else SealedText({v})",
    SealedPartField.python_value: "{v} if {v} is None else SealedText({v})",
}
#: accessors whose __set__ stores what the server sends and does nothing else
_PLAIN_ACCESSORS: Final = {
    peewee.FieldAccessor.__set__,
    ForeignKeyAccessor.__set__,
    SecretAccessor.__set__,
}


class MadeRows(peewee.CursorWrapper):
    """The rows of a cursor, made all at once, or by the thousand when they are only passed on."""

    def __init__(self, cursor: Any, make: MakeRows) -> None:
        super().__init__(cursor)
        self.populated: bool = False
        self._make = make

    def fill_cache(self, n: float = 0) -> None:  # noqa: ARG002 - Peewee's signature
        """Make all rows; the driver has them already."""
        if not self.populated:
            self.row_cache: list[Any] = self._make(self.cursor.fetchall())
            self.count: int = len(self.row_cache)
            self.populated = True
            self.cursor.close()

    def __iter__(self) -> Iterator[Any]:
        self.fill_cache()
        return iter(self.row_cache)

    def iterator(self) -> Iterator[Any]:
        """The rows once, without keeping them."""
        while rows := self.cursor.fetchmany(1000):
            yield from self._make(rows)


class MakesRows(peewee.Query):
    """What our queries share: their rows come from a generated loop where one fits."""

    def records(self) -> Self:
        """Rows as read-only records with the columns as attributes; lighter than models."""
        query = self.clone()
        query._row_type = RECORD
        return query

    def _execute(self, database: Any) -> Any:
        if self._row_type == RECORD:
            self.row_maker()  # refuses before SQL
        return super()._execute(database)

    def _get_cursor_wrapper(self, cursor: Any) -> Any:
        make = self.row_maker()
        if make is not None:
            return MadeRows(cursor, make)
        return share_keys(self, super()._get_cursor_wrapper(cursor))

    def apply_returning(self, ctx: Any) -> Any:
        """RETURNING; where no other table stands beside it, columns go without their table.

        To read the table before each column costs the server a thousand instructions a column.
        """
        fields = self.model._meta.fields
        if (
            not self._returning
            or getattr(self, "_from", None)
            or any(fields.get(getattr(node, "name", "")) is not node for node in self._returning)
        ):
            return super().apply_returning(ctx)  # type: ignore[misc]
        return ctx.literal(" RETURNING ").sql(peewee.CommaNodeList(self._returning))

    def row_maker(self) -> MakeRows | None:
        """The loop for this query's rows; None when its selection is not plain columns."""
        maker = self._maker()
        loop = maker.make if maker is not None else None
        if loop is None and self._row_type == RECORD:
            raise InvalidValue(
                "records() takes plain columns of one model; dicts(), tuples() and namedtuples() "
                "take joins and expressions too. No SQL was sent."
            )
        return loop

    def one_maker(self) -> MakeRow | None:
        """What makes one of this query's rows; None when its selection is not plain columns."""
        maker = self._maker()
        return maker.make_one if maker is not None else None

    def _maker(self) -> Maker | None:
        if (
            not self._returning
            or getattr(self, "_joins", None)
            or len(getattr(self, "_from_list", ())) > 1
        ):
            return None
        model, kind = self.model, self._row_type or self.default_row_type
        meta = getattr(model, "_meta", None)
        makers = getattr(meta, "row_makers", None)
        if makers is None or isinstance(model, peewee.ModelAlias):
            return None
        key = kind if self._selects_all() else (kind, *map(id, self._returning))
        maker: Maker | None = makers.get(key)
        if maker is None:
            fields = model._meta.fields
            if any(fields.get(getattr(node, "name", "")) is not node for node in self._returning):
                return None  # an expression may hold values, and nothing of these is kept
            maker = Maker(model, self._returning, kind)
            if len(makers) >= MOST_LOOPS:
                makers.clear()
            makers[key] = maker
        return maker

    def _selects_all(self) -> bool:
        """Whether it selects the columns that the model has by now; a query may be older."""
        if not getattr(self, "_is_default", False):
            return False
        mine, fields = self._returning, self.model._meta.sorted_fields
        return len(mine) == len(fields) and mine[-1] is fields[-1]


class MadeOnDemand:
    """An attribute that a row gets when it is asked for first; most rows are only read."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self._name = name
        self._make = make

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return vars(instance).setdefault(self._name, self._make())


class Maker:
    """The loop for some columns of a model, or None where Peewee's own way is needed.

    ``make_one`` makes one row.
    """

    def __init__(self, model: Any, fields: Sequence[Any], kind: int) -> None:
        self._kept = tuple(fields)  # so that no other node takes their ids
        self.make: MakeRows | None = None
        self.make_one: MakeRow | None = None
        names = [getattr(field, "name", "") for field in fields]
        write = _WRITERS.get(kind)
        if (
            write is not None
            and names
            and all(isinstance(field, CheckedField) for field in fields)
            and len(set(names)) == len(names)
            and all(map(_is_plain, names))
            and (kind != peewee.ROW.MODEL or _loads_plainly(model, names))
        ):
            self.make, self.make_one = write(model, list(fields))


def _is_plain(name: str) -> bool:
    """Whether it can be written as an attribute; ``__name`` would be mangled in a class."""
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__")


def _loads_plainly(model: Any, names: Iterable[str]) -> bool:
    """Whether nothing in the class of the model looks at a row's values while they are set."""
    setters = {type(model.__dict__.get(name) or _inherited(model, name)).__set__ for name in names}
    own = model.__setattr__ is object.__setattr__ and model.__new__ is object.__new__
    return own and model._meta.loads_plainly and setters <= _PLAIN_ACCESSORS


def _inherited(model: Any, name: Any) -> Any:
    return next(vars(base)[name] for base in model.__mro__ if name in vars(base))


def _conversion(place: int, field: Any) -> str:
    reader = type(field).python_value
    if reader is ForeignKeyField.python_value and not isinstance(field.rel_field, ForeignKeyField):
        field = field.rel_field
        reader = type(field).python_value
    if reader is EnumField.python_value:
        return f"members{place}.get(v{place}, v{place})"
    return _INLINE.get(reader, "{f}.python_value({v})").format(v=f"v{place}", f=f"f{place}")


def _generate(
    fields: Sequence[Any], made: str, steps: str = "", before: str = "", **names: Any
) -> tuple[MakeRows, MakeRow]:
    """``make(rows)`` and ``make_one(row)``, whose columns are v0, v1, ...

    ``before`` are the lines that stand before the rows, ``steps`` those of each row, ``made`` is
    what it becomes.
    """
    columns = "".join(f"v{place}, " for place in range(len(fields)))
    source = (
        "def make(rows):\n"
        "    made = []\n"
        "    append = made.append\n"
        f"{indent(before, '    ')}"
        f"    for {columns}in rows:\n"
        f"{indent(steps, '        ')}"
        f"        append({made})\n"
        "    return made\n"
        "def make_one(row):\n"
        f"    {columns}= row\n"
        f"{indent(before + steps, '    ')}"
        f"    return {made}\n"
    )
    scope: dict[str, Any] = {"uuid_of": uuid_of, "UTC": UTC, "SealedText": SealedText, **names}
    scope["KeyPage"] = KeyPage
    for place, field in enumerate(fields):
        scope[f"f{place}"] = field
        target = field.rel_field if isinstance(field, ForeignKeyField) else field
        scope[f"members{place}"] = getattr(target, "members", None)
        scope[f"model{place}"] = getattr(field, "rel_model", field.model)
    exec(source, scope)  # noqa: S102 - of names of columns, quoted, and code of this module
    return scope["make"], scope["make_one"]


def _values(fields: Sequence[Any]) -> list[str]:
    return [_conversion(place, field) for place, field in enumerate(fields)]


def _pairs(fields: Sequence[Any]) -> str:
    pairs = zip(fields, _values(fields), strict=True)
    return "{" + ", ".join(f"{field.name!r}: {value}" for field, value in pairs) + "}"


def _objects(model: Any, fields: Sequence[Any]) -> tuple[MakeRows, MakeRow]:
    noted, notes = _noting_owners(model, fields)
    keys = "row._keys = keys\n" if notes else ""
    steps = f"row = new(model)\nrow.__data__ = {_pairs(fields)}\n{keys}{notes}"
    return _generate(fields, "row", steps, noted, new=object.__new__, model=model)


def _noting_owners(model: Any, fields: Sequence[Any]) -> tuple[str, str]:
    """What notes the owners of rows that are read together, before the loop and in it."""
    places = {field: place for place, field in enumerate(fields)}
    owners = dict.fromkeys(
        owner_field(field) for field in owned_fields(model) if owner_field(field) in places
    )
    before = "".join(f"note{places[one]} = keys.adder(model{places[one]})\n" for one in owners)
    notes = "".join(f"note{places[one]}(v{places[one]})\n" for one in owners)
    return ("keys = KeyPage()\n" + before if owners else ""), notes


def _dicts(_: Any, fields: Sequence[Any]) -> tuple[MakeRows, MakeRow]:
    return _generate(fields, _pairs(fields))


def _tuples(_: Any, fields: Sequence[Any]) -> tuple[MakeRows, MakeRow]:
    return _generate(fields, f"({', '.join(_values(fields))},)")


def _named_tuples(_: Any, fields: Sequence[Any]) -> tuple[MakeRows, MakeRow]:
    names: list[str] = [field.name for field in fields]
    row: type = namedtuple("Row", names, rename=True)  # type: ignore[misc]
    made = f"new(Row, ({', '.join(_values(fields))},))"
    return _generate(fields, made, Row=row, new=tuple.__new__)


class Record:
    """A row without a model: its columns as attributes, and nothing else."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record) or other.__slots__ != self.__slots__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__: ClassVar[None] = None  # type: ignore[assignment] # pyright: ignore[reportIncompatibleMethodOverride]


def _records(model: Any, fields: Sequence[Any]) -> tuple[MakeRows, MakeRow]:
    places = {field.name: f"v{place}" for place, field in enumerate(fields)}
    values = dict(zip(places, _values(fields), strict=True))
    readers = {}
    for secret in [field for field in fields if isinstance(field, EncryptedField)]:
        parts = (secret.name, secret.iv_field.name, secret.tag_field.name)
        key = model._meta.primary_key.name
        if not {*parts, key} <= places.keys():
            raise InvalidValue(
                f"records() reads {secret.label} with its other columns: select "
                f"{', '.join(parts)} and {key}, or the whole row."
            )
        readers[f"open_{secret.name}"] = secret.stored
        given = ", ".join(places[name] for name in parts)
        index = places.get(secret.index_name, "None")
        values[secret.name] = (
            f"open_{secret.name}({given}, {values[key]}, {index}{_owner(secret, places)})"
        )
        for part in secret.columns[1:]:
            values.pop(part.name, None)
    record = type(f"{model.__name__}Record", (Record,), {"__slots__": tuple(values)})
    stores = "".join(f"row.{name} = {value}\n" for name, value in values.items())
    noted, notes = _noting_owners(model, fields)
    steps = f"row = new(Record)\n{stores}{notes}"
    return _generate(fields, "row", steps, noted, new=object.__new__, Record=record, **readers)


def _owner(secret: Any, places: Mapping[str, str]) -> str:
    """The argument by which a secret finds the data key of its owner."""
    if not secret.owner:
        return ""
    name = owner_field(secret).name
    if name not in places:
        raise InvalidValue(f"records() reads {secret.label} with its owner: select {name} too.")
    return f", (keys, {places[name]})"


_WRITERS: Final = {
    peewee.ROW.MODEL: _objects,
    peewee.ROW.DICT: _dicts,
    peewee.ROW.TUPLE: _tuples,
    peewee.ROW.NAMED_TUPLE: _named_tuples,
    RECORD: _records,
}
