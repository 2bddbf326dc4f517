"""The values of a statement, made from a payload by a function that is written for its shape.

A value that fits as it is, or is of the type that nearly all are, is seen to in the text of that
function; any other goes to its field, which converts or refuses it. Where it can, a value becomes
a text: of these the statement is put together at once, see ``CompiledSql``::

    def bind(payload, key):
        v0 = payload['email']
        if not (v0.__class__ is str and v0.isascii() and '\\0' not in v0):
            v0 = make0(v0)
        v3 = payload['user_id']
        v3 = '%032x' % v3.int if v3.__class__ is UUID else make3(v3)
        v5 = make5()
        return (key, v0, v3, v5, v5,)
"""

from __future__ import annotations

# It compares functions and writes source: types would tell nothing of what it makes.
# pyright: basic
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

from orm_core.crypto.secret import Secret
from orm_core.database.encoding import hyphenated, moment_text
from orm_core.errors import InvalidValue
from orm_core.models.columns import CheckedField
from orm_core.models.encrypted import EncryptedField
from orm_core.models.fields import (
    BooleanField,
    DateTimeField,
    EnumField,
    IntegerField,
    TextField,
    UUIDField,
)
from orm_core.models.identifiers import uuid7_text
from orm_core.models.owners import SELF, owner_field
from orm_core.models.payloads import checked, driver_value
from orm_core.models.references import ForeignKeyField
from orm_core.models.sealing import data_keys

Convert: TypeAlias = Callable[[Any], Any]
Bind: TypeAlias = Callable[[Any, Any], tuple[Any, ...]]

#: which values ``to_database`` answers as they are; ``{v}`` is the value, ``{f}`` the field
_FITS: Final[dict[Any, str]] = {
    TextField.to_database: "{v}.__class__ is str and {v}.isascii() and '\\0' not in {v}",
    IntegerField.to_database: "{v}.__class__ is int and {f.least} <= {v} <= {f.most}",
    BooleanField.to_database: "{v}.__class__ is bool",
}
#: which values have a text that is made at once, and how; ``{c}`` is the class of an enum
_TEXTS: Final[dict[Any, tuple[str, str]]] = {
    DateTimeField.to_database: (
        "{v}.__class__ is datetime and {v}.tzinfo is UTC",
        "moment_text({v})",
    ),
    EnumField.to_database: ("{v}.__class__ is {c}", "{v}._value_"),
    UUIDField.to_database: ("{v}.__class__ is UUID", "'%032x' % {v}.int"),
}


class Binding:
    """What each value of a statement is made of, step by step; ``function`` is the end."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._scope: dict[str, Any] = {
            "datetime": datetime,
            "moment_text": moment_text,
            "Secret": Secret,
            "UTC": UTC,
            "UUID": UUID,
        }
        #: the variable of each parameter, by its name
        self._variables: dict[str, str] = {}
        #: parameters that are new ids, which are written without hyphens
        self._new_ids: set[str] = set()

    def key(self, name: str) -> None:
        """The parameter is the key that is handed over."""
        self._variables[name] = "key"

    def whole(self, *names: str) -> None:
        """The parameters share what is handed over as the payload."""
        self._variables.update(dict.fromkeys(names, "payload"))

    def made(self, make: Callable[[], Any], *names: str) -> None:
        """The parameters share what ``make()`` answers."""
        place, variable = self._next()
        self._scope[f"make{place}"] = make
        self._lines.append(f"{variable} = make{place}()")
        self._variables.update(dict.fromkeys(names, variable))
        if make is uuid7_text:
            self._new_ids.update(names)

    def given(self, source: str | int, field: Any) -> None:
        """The parameter of the field is the payload's value of this name, or at this place."""
        self._given(source, field, converter(field))

    def compared(self, source: str | int, field: Any) -> None:
        """The same for a value that rows are found by, so not by None."""
        digests = field.digests if isinstance(field, EncryptedField) else None
        self._given(source, field, _of_value(field, digests or converter(field)))

    def _given(self, source: str | int, field: Any, convert: Convert) -> None:
        place, variable = self._next()
        self._scope[f"make{place}"] = convert
        self._lines.append(f"{variable} = payload[{source!r}]")
        otherwise = f"make{place}({variable})"
        self._lines.append(self._quick(place, field, otherwise) or f"{variable} = {otherwise}")
        self._variables[field.name] = variable

    def _quick(self, place: int, field: Any, otherwise: str) -> str | None:
        """The line for a field whose usual values are told from others by a look at them."""
        variable, kind = f"v{place}", _to_database(field)
        test = _test_of(field)
        if test is not None:
            return f"if not ({test.format(v=variable, f=field)}): {variable} = {otherwise}"
        if kind not in _TEXTS or field.primary_key:  # secrets are bound to a key's usual text
            return None
        self._scope[f"enum{place}"] = getattr(field, "enum_class", None)
        test, text = (one.format(v=variable, c=f"enum{place}") for one in _TEXTS[kind])
        return f"{variable} = {text} if {test} else {otherwise}"

    def sealed(self, source: str, field: Any, key: str) -> None:
        """The parameters of an encrypted column are the payload's secret, sealed for a row.

        ``key`` is the parameter of the row's id.
        """
        self._seal(f"payload[{source!r}]", field, key)

    def sealed_default(self, make: Callable[[], Any], field: Any, key: str) -> None:
        """The same of the secret that ``make()`` answers."""
        place, _ = self._next()
        self._scope[f"make{place}"] = make
        self._seal(f"make{place}()", field, key)

    def _seal(self, secret: str, field: Any, key: str) -> None:
        place, _ = self._next()
        count = len(field.columns)
        parts = [f"v{place}_{number}" for number in range(count)]
        self._scope.update({f"check{place}": partial(checked, field), f"field{place}": field})
        bound_to = self._variables.get(key, "None")
        data_key = ""
        if field.owner:
            self._scope[f"owners{place}"] = partial(_data_key, field)
            data_key = f", owners{place}(v{place}, row{self._owner(field, key)})"
        if "identity" not in self._scope:  # one for all secrets of the row
            self._scope["identity"] = hyphenated if key in self._new_ids else field.identity
            self._lines.append("row = None")
        self._lines += [
            f"v{place} = {secret}",
            f"if isinstance(v{place}, Secret):",
            f"    row = row or identity({bound_to})",
            f"    {', '.join(parts)} = field{place}.sealed(v{place}, row{data_key})",
            "else:",
            f"    check{place}(v{place})  # refuses all but None, where the column takes it",
            f"    {' = '.join(parts)} = None",
        ]
        columns = [column.name for column in field.columns]
        self._variables.update(zip(columns, parts, strict=True))

    def _owner(self, field: Any, key: str) -> str:
        """The owner's id as one more argument, for a new row; that of a stored row is looked up."""
        if self._variables.get(key) == "key":
            return ""
        name = key if field.owner == SELF else owner_field(field).name
        return f", {self._variables.get(name, 'None')}"

    def _next(self) -> tuple[int, str]:
        place = len(self._lines)
        self._lines.append("")
        return place, f"v{place}"

    def function(self, keys: Sequence[str | int], constants: Mapping[int, Any]) -> Bind:
        """``bind(payload, key)``, which answers the parameters in this order."""
        for place, value in constants.items():
            self._scope[f"constant{place}"] = value
        values = [
            f"constant{key}" if isinstance(key, int) else self._variables[key] for key in keys
        ]
        body = "".join(f"    {line}\n" for line in self._lines if line)
        source = (
            f"def bind(payload, key):\n{body}    return ({''.join(f'{v}, ' for v in values)})\n"
        )
        exec(source, self._scope)  # noqa: S102 - of names, quoted, and code of this module
        bind: Bind = self._scope["bind"]
        return bind


def _to_database(field: Any) -> Any:
    """The function that converts values of a field, or of the one that it refers to.

    None when something of a subclass comes before it.
    """
    kind, own = cast("Any", type(field)), cast("Any", CheckedField)
    if getattr(kind, "db_value", None) is not own.db_value:
        return None
    if kind.to_database is cast("Any", ForeignKeyField).to_database:
        return _to_database(field.rel_field)
    return kind.to_database


def _test_of(field: Any) -> str | None:
    """What tells of a value that the driver takes it as it is."""
    kind = cast("Any", type(field))
    test = _FITS.get(_to_database(field))
    if test is None or kind.to_database not in _FITS:  # a reference takes rows as well
        return None
    if kind.to_database is TextField.to_database:
        if kind.pattern is not TextField.pattern:
            return None
        if field.max_length is not None:
            test += " and len({v}) <= {f.max_length}"
    return test


def _of_value(field: Any, convert: Convert) -> Convert:
    """``convert``, but for None."""

    def convert_value(value: Any) -> Any:
        if value is None:
            raise InvalidValue(
                f"{field.model.__name__}.{field.name}: rows are found by a value, not by None; "
                "no SQL was sent."
            )
        return convert(value)

    return convert_value


def _data_key(field: Any, secret: Any, key: Any, *owners: Any) -> Any:
    """The data key of the owner: the one given, or that of the stored row."""
    return data_keys(field, [secret], [key], owners or None)[0]


def converter(field: Any) -> Convert:
    """What makes a value of this field ready for the driver, or refuses it."""
    if not field.refuses_sql or _to_database(field) is None:
        return partial(driver_value, field)
    to_database = field.to_database

    def convert(value: Any) -> Any:
        try:
            if value is not None:
                return to_database(value)
        except InvalidValue:
            pass  # told in full by the other way, once more
        return driver_value(field, value)

    if _to_database(field) is not DateTimeField.to_database:
        return convert

    def convert_moment(value: Any) -> str | None:
        moment = convert(value)
        return None if moment is None else moment_text(moment)

    return convert_moment
