"""The data keys of owners: read for a page of rows at once, made once, locked while they seal.

An owner is a row; ``users/0192...`` names the one of the table ``users`` with that id. Its data
key, wrapped by the key ring, is the row of that name in the table ``data_keys``; once erased, that
row stays without a key, so that none is made anew.

Who writes a secret holds its owner's data key FOR KEY SHARE until the transaction ends, and who
erases takes it FOR UPDATE: what is under way is written before, or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import Any, Final

from orm_core.crypto.data_key import DataKey
from orm_core.crypto.in_use import key_ring
from orm_core.crypto.keys import key_of
from orm_core.crypto.ring import Sealed
from orm_core.errors import InvalidValue, RegistryError, SecretErased, SecretUnreadable
from orm_core.peewee_facade import Model

TABLE: Final = "data_keys"
#: what ``owner`` says for secrets that the row itself owns
SELF: Final = "self"
#: seconds for which rows in memory go on using a data key that was read for them
KEPT_SECONDS: Final = 5.0

_READ: Final = (
    f"SELECT id, wrapped, wrapped_iv, wrapped_tag FROM {TABLE} "
    "WHERE id = ANY(%s::text[]) ORDER BY id"
)
_MAKE: Final = (
    f"INSERT INTO {TABLE} (id, wrapped, wrapped_iv, wrapped_tag) "
    "SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) "
    "ON CONFLICT (id) DO NOTHING"
)

#: data keys that this process erased; pages read theirs anew when it has moved
_erased = 0


def owned_fields(model: Any) -> list[Any]:
    """The encrypted fields of a model whose secrets have an owner."""
    return [field for field in model._meta.sorted_fields if getattr(field, "owner", None)]


def owner_field(field: Any) -> Any:
    """The field that tells the owner of an encrypted field's secrets.

    Raises ``RegistryError`` unless it is the primary key (``owner="self"``) or a foreign key to
    one that is never NULL.
    """
    meta = field.model._meta
    if field.owner == SELF:
        return meta.primary_key
    found = meta.fields.get(field.owner)
    target = getattr(found, "rel_field", None)
    if target is None or target is not found.rel_model._meta.primary_key or found.null:
        raise RegistryError(
            f"{field.label}: owner={field.owner!r} must be {SELF!r}, or name a foreign key of "
            f"{field.model.__name__} to a primary key, which may not be NULL."
        )
    return found


def owner_model(field: Any) -> Any:
    """The model whose rows own the secrets of an encrypted field."""
    return field.model if field.owner == SELF else owner_field(field).rel_model


def owner_name(model: Any, key: Any) -> str:
    """The name of an owner: its table and its id."""
    return f"{owners_of(model)}{model._meta.primary_key.db_value(key)}"


def owners_of(model: Any) -> str:
    """What the names of all owners of a table begin with."""
    meta = model._meta
    return f"{meta.schema}.{meta.table_name}/" if meta.schema else f"{meta.table_name}/"


def refuse_other_owner(model: Any, fields: Collection[Any]) -> None:
    """Raise ``InvalidValue`` when the owner of a stored row's secrets is among what is to be set."""
    given = set(fields)
    for field in owned_fields(model):
        owner = owner_field(field)
        if field.owner != SELF and owner in given:
            raise InvalidValue(
                f"{owner.label} of a row can't be changed: its data key opens {field.name}. Make a "
                "new row; no SQL was sent."
            )


def writing(model: Any, database: Any = None) -> AbstractContextManager[Any]:
    """A transaction around sealing and writing, where secrets of the model have an owner."""
    database = database or model._meta.database
    if not owned_fields(model) or database.in_transaction():
        return nullcontext()
    block: AbstractContextManager[Any] = database.atomic()
    return block


def keys_to_write(database: Any, names: Iterable[str]) -> dict[str, DataKey]:
    """The data keys of owners by name, made where there is none, kept until the transaction ends.

    Raises ``SecretErased`` when one was erased.
    """
    wanted = sorted(set(names))
    found = _read(database, wanted, " FOR KEY SHARE")
    missing = [name for name in wanted if name not in found]
    if missing:
        wrapped = [_wrap(name) for name in missing]
        database.execute_sql(_MAKE, (missing, *map(list, zip(*wrapped, strict=True))))
        # Of two processes that made one, both get the key that is stored.
        found |= _read(database, missing, " FOR KEY SHARE")
    return {name: _unwrapped(name, found.get(name)) for name in wanted}


def _wrap(name: str) -> Sealed:
    return key_ring().seal(DataKey.generate().reveal(), (TABLE, "wrapped", name))


def _read(database: Any, names: list[str], lock: str = "") -> dict[str, Any]:
    rows = database.execute_sql(_READ + lock, (names,)).fetchall() if names else ()
    return {name: parts for name, *parts in rows}


def _unwrapped(name: str, parts: Any) -> DataKey:
    """The data key of an owner from what is stored of it."""
    if parts is None:
        raise SecretUnreadable(f"There is no data key of {name}.")
    if None in parts:
        raise SecretErased(
            f"The data key of {name} was erased: its secrets can't be read any more, and none can "
            "be written."
        )
    return DataKey.from_text(unwrap(name, Sealed(*parts)))


def unwrap(name: str, wrapped: Sealed) -> str:
    """The text of a wrapped data key; a value of the Node system, bound to nothing, is none."""
    if key_of(wrapped.iv) is None:
        raise SecretUnreadable(f"The data key of {name} was not wrapped for it.")
    return key_ring().open_sealed(wrapped, (TABLE, "wrapped", name))


class KeyPage:
    """The owners of rows that were read together; their data keys are read with the first one.

    A key is used for ``KEPT_SECONDS`` at most before it is read anew, so that an erasure in
    another process takes effect on rows in memory, and goes with the last of its rows.
    """

    __slots__ = ("_erased", "_fill", "_found", "_opened", "_owners", "_read_at")

    def __init__(self, fill: Callable[[], object] | None = None) -> None:
        #: reads the rest of the rows, which are made one by one
        self._fill = fill
        self._owners: dict[Any, set[Any]] = {}
        self._found: dict[str, Any] = {}
        self._opened: dict[str, DataKey] = {}
        self._read_at = 0.0
        self._erased = _erased

    def adder(self, model: Any) -> Callable[[Any], None]:
        """Takes the ids of owners, which are rows of ``model``."""
        return self._owners.setdefault(model, set()).add

    def cover(self, row: Any) -> None:
        """Have a row, and those that it was joined with, use this page."""
        if not isinstance(row, Model):
            return
        for field in owned_fields(row):
            row.__dict__["_keys"] = self
            self.adder(owner_model(field))(row.__data__.get(owner_field(field).name))
        for related in row.__rel__.values():
            self.cover(related)

    def key(self, database: Any, model: Any, owner: Any) -> DataKey:
        """The data key of an owner. Raises ``SecretErased`` or ``SecretUnreadable``."""
        name = owner_name(model, owner)
        now = monotonic()
        fresh = now - self._read_at < KEPT_SECONDS and self._erased == _erased
        if not fresh or name not in self._found:
            if self._fill is not None:
                fill, self._fill = self._fill, None
                fill()
            self.adder(model)(owner)
            self._erased, self._read_at = _erased, now
            self._found, self._opened = _read(database, sorted(self._names())), {}
        if name not in self._opened:
            self._opened[name] = _unwrapped(name, self._found.get(name))
        return self._opened[name]

    def _names(self) -> set[str]:
        return {
            owner_name(model, one)
            for model, owners in self._owners.items()
            for one in owners
            if one is not None
        }

    def __reduce__(self) -> Any:
        return KeyPage, ()  # no key leaves the process with a row that is pickled


def share_keys(query: Any, wrapper: Any) -> Any:
    """Have rows that Peewee makes, of joins, share a page."""
    joined = [target for some in getattr(query, "_joins", {}).values() for target, *_ in some]
    models = [getattr(one, "model", one) for one in (query.model, *joined)]
    if not any(owned_fields(one) for one in models if hasattr(one, "_meta")):
        return wrapper

    def fill() -> None:
        if len(wrapper.row_cache) == wrapper.count:  # not of iterator(), which keeps no row
            wrapper.fill_cache()

    make, page = wrapper.process_row, KeyPage(fill)

    def process_row(row: Any) -> Any:
        made = make(row)
        page.cover(made)
        return made

    wrapper.process_row = process_row
    return wrapper


def forget_keys() -> None:
    """Have the pages of this process read their data keys anew."""
    global _erased
    _erased += 1
