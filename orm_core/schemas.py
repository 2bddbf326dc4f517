"""Rows as JSON, and Pydantic models of request and response bodies; secrets are in neither.

::

    to_dict(user)                       # {"id": "0193...", "email": "ada@example.com", ...}
    UserBody = to_pydantic(User)        # a response: UserBody.model_validate(user)
    NewUserBody = to_pydantic(User, "new")      # a request
    UsersService.create(body.model_dump(exclude_unset=True))
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast, overload
from uuid import UUID

from orm_core.errors import ConfigurationError, InvalidValue
from orm_core.models.base import BaseModel
from orm_core.models.entries import Entry, change_entries, new_entries, row_entries

if TYPE_CHECKING:
    import pydantic

#: a TypedDict, such as ``UserRow``
D = TypeVar("D")
Kind: TypeAlias = Literal["row", "new", "update"]

_ENTRIES: Final[dict[str, Callable[[Any], list[Entry]]]] = {
    "row": row_entries,
    "new": new_entries,
    "update": change_entries,
}


@overload
def to_dict(row: BaseModel) -> dict[str, Any]: ...
@overload
def to_dict(row: BaseModel, shape: type[D]) -> D: ...
def to_dict(row: BaseModel, shape: type[Any] | None = None) -> Any:
    """The columns of a row without its secrets, ready for ``json.dumps``.

    Times, dates, UUIDs and decimals are text (ISO 8601 for times), enums their values; a foreign
    key goes by the name of its id. ``to_dict(user, UserRow)`` keeps Python's values instead, for
    the TypedDict that ``orm-core types generate`` wrote. Raises ``InvalidValue`` for what is no
    row, or when a column was not loaded.
    """
    if not isinstance(cast("Any", row), BaseModel):
        raise InvalidValue("to_dict() takes a row, an instance of a model.")
    values: dict[str, Any] = {}
    for entry in row_entries(type(row)):
        if entry.field.name not in row.__data__:
            raise InvalidValue(
                f"{type(row).__name__}.{entry.field.name} was not loaded; select the whole row."
            )
        value = row.__data__[entry.field.name]
        values[entry.name] = value if shape is not None else _plain(value)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value


def to_pydantic(
    model: type[BaseModel], kind: Kind = "row", *, name: str | None = None
) -> type[pydantic.BaseModel]:
    """A Pydantic model of a table: of its rows, of the payload of ``create`` or of ``update``.

    "row" reads instances (``from_attributes``). "new" and "update" refuse unknown keys and leave
    the key and the times to the model, so that a client can't set them; dump them with
    ``exclude_unset=True``, so that what was left out is left to the model. Needs Pydantic 2 (``orm_core[pydantic]``), else ``ConfigurationError``.
    """
    try:
        import pydantic
    except ImportError:
        raise ConfigurationError(
            "to_pydantic() needs Pydantic: pip install 'orm_core[pydantic]'."
        ) from None
    if kind not in _ENTRIES:
        raise InvalidValue(f"to_pydantic() makes one of: {', '.join(_ENTRIES)}.")
    entries = [
        entry
        for entry in _ENTRIES[kind](model)
        if not entry.is_secret
        and (kind == "row" or not entry.is_kept_by_the_model)
        and (kind != "new" or entry.field is not model._meta.version)
    ]
    row = kind == "row"
    config = pydantic.ConfigDict(from_attributes=row, extra="ignore" if row else "forbid")
    prefix = {"row": "", "new": "New", "update": "Update"}[kind]
    fields: dict[str, Any] = {entry.name: _field(pydantic, entry, kind) for entry in entries}
    made: Any = pydantic.create_model(
        name or f"{prefix}{model.__name__}Body", __config__=config, **fields
    )
    return cast("type[pydantic.BaseModel]", made)


def _field(library: Any, entry: Entry, kind: Kind) -> tuple[Any, Any]:
    """The annotation and the default of one field; what has a default may be left out."""
    annotation: Any = entry.type | None if entry.nullable and entry.type is not Any else entry.type
    length = getattr(entry.field, "max_length", None) if entry.type is str else None
    if kind == "row" or entry.required:
        default: Any = ...
    elif kind == "new" and entry.field.default is not None:
        given = entry.field.default
        if callable(given):
            return annotation, library.Field(default_factory=given, max_length=length)
        default = given
    else:
        default = None
    return annotation, library.Field(default, max_length=length)
