"""Encrypted columns under changing keys: count them by key, open them all, seal them anew.

::

    for use in status(registry.models):
        print(use.table, use.column, use.key, use.rows)
    report = rotate(registry.models)        # orm-core keys rotate

``rotate`` may be stopped at any moment, by kill -9 too, and run again: a row that is sealed with
the first key is passed over. What it tells holds tables, columns and ids, never a value.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from orm_core import peewee_facade as peewee
from orm_core.crypto.data_key import OWNER
from orm_core.crypto.in_use import index_keys, key_ring
from orm_core.crypto.secret import Secret
from orm_core.database.database import Database
from orm_core.errors import (
    DuplicateKey,
    InvalidValue,
    LockTimeout,
    NotFound,
    SecretErased,
    SecretUnreadable,
    SerializationFailure,
)
from orm_core.models.encrypted import EncryptedField
from orm_core.models.owners import KeyPage, owner_field, owner_model
from orm_core.models.row_security import refuse_hidden_rows
from orm_core.models.sealing import seal_columns
from orm_core.models.soft_delete import UpdateQuery
from orm_core.peewee_facade import SQL, fn

logger: logging.Logger = logging.getLogger("orm_core.rotation")
_Encrypted: TypeAlias = EncryptedField[Any, Any]

BATCH: Final = 500
#: how long a batch waits for a row that somebody else is changing
LOCK_TIMEOUT: Final = "5s"
#: passes over a table in which nothing could be sealed, because others held the rows
_IDLE_PASSES: Final = 3

#: what stands for the key of a value that names none
LEGACY: Final = "legacy"
#: what stands for the key of a blind index that a row does not have yet
MISSING: Final = "missing"


class KeyUse(NamedTuple):
    """How many rows of a column were written with a key, soft-deleted ones included.

    ``key`` is an id, ``LEGACY`` for values of the Node system, or, of a blind index, ``MISSING``.
    """

    table: str
    column: str
    key: str
    rows: int


class Place(NamedTuple):
    """One stored value, by where it is."""

    table: str
    column: str
    row: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of row {self.row}"


@dataclass
class Report:
    """What became of the values that ``check`` and ``rotate`` met."""

    #: opened by ``check``; sealed anew by ``rotate``, or to be by a run that is not dry
    done: int = 0
    unreadable: list[Place] = field(default_factory=list[Place])
    #: of a unique column, where a live row has the same value under another key
    repeated: list[Place] = field(default_factory=list[Place])
    #: whose owner's data key was erased, so that nobody can open them
    erased: int = 0
    #: left because others held their rows; run it again
    busy: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was left."""
        return not (self.unreadable or self.repeated or self.busy)


class _Change(NamedTuple):
    """What replaces a value of the row ``key`` while that has the iv that was read."""

    key: Any
    old_iv: str
    secret: Secret


def secrets_of(model: Any) -> list[_Encrypted]:
    """The encrypted fields of a model."""
    return [one for one in model._meta.sorted_fields if isinstance(one, EncryptedField)]


def _all_seen(model: Any) -> list[_Encrypted]:
    """The same, once it is sure that row security hides no row: those would keep their old key."""
    found = secrets_of(model)
    if found:
        refuse_hidden_rows(model)
    return found


def status(models: Iterable[Any], *, database: Database | None = None) -> list[KeyUse]:
    """Count the rows of each encrypted column, and of each blind index, by key.

    ``database`` counts through another pool than that of the models.
    """
    uses: list[KeyUse] = []
    for model in models:
        for secret in _all_seen(model):
            _, iv, _, *index = secret.columns
            uses += _key_uses(secret, iv, LEGACY, database)
            for part in index:
                uses += _key_uses(secret, part, MISSING, database)
    return uses


def _key_uses(
    secret: _Encrypted, part: Any, absent: str, database: Database | None
) -> list[KeyUse]:
    key: Any = fn.coalesce(fn.nullif(_key_of(part), ""), absent)
    query = secret.model.select(key.coerce(False), fn.count(SQL("*"))).with_deleted()
    query = query.where(secret.is_null(False)).group_by(SQL("1")).order_by(SQL("1"))
    table, _ = secret.place
    counted = query.tuples().execute(database or secret.model._meta.database)
    return [KeyUse(table, part.column_name, found, rows) for found, rows in counted]


def check(models: Iterable[Any], *, batch: int = BATCH) -> Report:
    """Open every encrypted value, soft-deleted rows' too, and change nothing."""
    report = Report()
    for model in models:
        for secret in _all_seen(model):
            for rows in _batches(secret, secret.is_null(False), batch):
                opened = [_opened(secret, row, report) for row in rows]
                report.done += len(opened) - opened.count(None)
                logger.info("%s.%s: %d values opened", *secret.place, report.done)
    return report


def rotate(models: Iterable[Any], *, batch: int = BATCH, dry_run: bool = False) -> Report:
    """Seal anew what is not sealed and indexed with the first keys; answers what was done.

    Soft-deleted rows are included, ``updated_at`` does not move. Each ``batch`` of rows is a
    transaction of its own. A value that somebody else writes meanwhile wins: it is replaced only
    while it has the iv that was read. ``dry_run`` opens and counts what would be sealed. Values
    that can't be opened are left as they are, and told.
    """
    report = Report()
    for model in models:
        for secret in _all_seen(model):
            _rotate_column(secret, batch, report, dry_run=dry_run)
    return report


def _rotate_column(secret: _Encrypted, batch: int, report: Report, *, dry_run: bool) -> None:
    idle = 0
    while True:
        found = _pass(secret, batch, dry_run=dry_run)
        report.done += found.done
        idle = 0 if found.done else idle + 1
        if dry_run or not found.busy or idle == _IDLE_PASSES:
            break
    report.unreadable += found.unreadable
    report.repeated += found.repeated
    report.erased += found.erased
    report.busy += found.busy


def _pass(secret: _Encrypted, batch: int, *, dry_run: bool) -> Report:
    """Once over the rows of a column that are not as they should be."""
    found = Report()
    for rows in _batches(secret, _is_stale(secret), batch):
        changes = [change for row in rows if (change := _sealed_anew(secret, row, found))]
        found.done += len(changes) if dry_run else _write(secret, changes, found)
        logger.info("%s.%s: %d values sealed anew", *secret.place, found.done)
    return found


def _key_of(part: Any) -> Any:
    return fn.split_part(part, ".", 2)


def _is_stale(secret: _Encrypted) -> Any:
    """Whether a row's value, or its blind index, is not by the first key."""
    _, iv, _, *index = secret.columns
    sealing = OWNER if secret.owner else key_ring().first_id
    stale = fn.coalesce(_key_of(iv), "") != sealing
    for part in index:
        stale |= fn.coalesce(_key_of(part), "") != index_keys().first_id
    return secret.is_null(False) & stale


def _batches(secret: _Encrypted, where: Any, batch: int) -> Iterator[list[tuple[Any, ...]]]:
    """The keys and the columns of the rows that match, in the order of their keys."""
    if batch < 1:
        raise InvalidValue("A batch has one row or more.")
    primary = secret.model._meta.primary_key
    owner = [owner_field(secret)] if secret.owner else []
    query = secret.model.select(primary, *secret.columns, *owner).with_deleted().where(where)
    query = query.order_by(primary).limit(batch).tuples()
    rows = list(query)
    while rows:
        page = KeyPage()
        for row in rows if secret.owner else ():
            page.adder(owner_model(secret))(row[-1])
        yield [(*row[:-1], (page, row[-1])) for row in rows] if secret.owner else rows
        rows = list(query.where(primary > rows[-1][0])) if len(rows) == batch else []


def _opened(secret: _Encrypted, row: tuple[Any, ...], report: Report) -> Secret | None:
    """The secret of a row; None, and a line in the report, when it can't be opened."""
    key, value, iv, tag, *more = row
    owner = more.pop() if secret.owner else None
    digest = more[0] if more else None
    if None not in (iv, tag):
        stored = secret.stored(value, iv, tag, key, digest, owner)
        try:
            return secret.secret_class(stored.reveal()) if stored is not None else None
        except SecretErased:
            report.erased += 1
            return None
        except SecretUnreadable:
            pass
    report.unreadable.append(Place(*secret.context(key)))
    return None


def _sealed_anew(secret: _Encrypted, row: tuple[Any, ...], report: Report) -> _Change | None:
    opened = _opened(secret, row, report)
    if opened is None:
        return None
    key, _, iv, *_ = row
    return _Change(key, iv, opened)


def _write(secret: _Encrypted, changes: list[_Change], report: Report) -> int:
    """Replace the values of a batch; answers how many. The report gets those that were not."""
    if not changes:
        return 0
    database = secret.model._meta.database
    try:
        with database.atomic():
            database.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            written = int(_replacement(secret, changes).execute())
            report.busy += len(changes) - written
            return written
    except (LockTimeout, SerializationFailure):
        report.busy += len(changes)
        return 0
    except DuplicateKey:
        if len(changes) == 1:
            report.repeated.append(Place(*secret.context(changes[0].key)))
            return 0
    except (SecretErased, NotFound) as error:  # nobody can read it any more, or it was purged
        if len(changes) == 1:
            report.erased += isinstance(error, SecretErased)
            return 0
    return sum(_write(secret, [change], report) for change in changes)


def _replacement(secret: _Encrypted, changes: list[_Change]) -> Any:
    """UPDATE ... FROM (VALUES ...) of the rows that still have the old iv."""
    model, (_, iv, *_) = secret.model, secret.columns
    primary, moved = model._meta.primary_key, model._meta.fields.get("updated_at")
    names = ["key", "old_iv", *(f"new_{place}" for place in range(len(secret.columns)))]
    keys, old_ivs, secrets = zip(*changes, strict=True)
    columns = seal_columns({primary: keys, secret: secrets}, primary, stored=True)
    sealed = zip(*columns.values(), strict=True)
    rows = [
        (primary.db_value(key), old_iv, *parts)
        for key, old_iv, (_, *parts) in zip(keys, old_ivs, sealed, strict=True)
    ]
    table = peewee.ValuesList(rows, columns=names, alias="new")
    new = table.c
    values = {column: new[f"new_{place}"] for place, column in enumerate(secret.columns)}
    if moved is not None:
        values[moved] = moved
    key_type = primary.ddl_datatype(model._meta.database.get_sql_context()).sql
    if model._meta.version is not None:
        values[model._meta.version] = model._meta.version  # what the row says stays the same
    query: UpdateQuery[int] = UpdateQuery(model, values)
    query = query.from_(table)
    return query.where(primary == new.key.cast(key_type), iv == new.old_iv).with_deleted()
