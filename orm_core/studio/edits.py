"""Changes to rows, made by the domain's service, so that checks, audit and updated_at hold.

A form carries the version of the row as it was opened; the row is locked and changed only while
it still has that version. The last change can be undone as long as nobody changed the row again.
Rows are never deleted for good here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from orm_core.errors import InvalidValue, NotFound, OrmCoreError, StaleRow
from orm_core.loggers import StdlibLogger
from orm_core.models.audit_log import AuditEntry
from orm_core.models.columns import CheckedField
from orm_core.studio.explorer import version_of
from orm_core.studio.tables import Column, Table
from orm_core.studio.values import parse, plain

Action: TypeAlias = Literal["create", "update", "delete", "restore"]

#: rows that one bulk action may take
MAX_BULK: Final = 250
_DONE: Final = {
    "create": "created",
    "update": "updated",
    "delete": "deleted",
    "restore": "restored",
}


class Conflict(OrmCoreError):
    """Somebody changed the row since it was opened; nothing was written."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was made: what undoing it needs. Never holds a secret."""

    action: Action
    table: Table
    #: key -> the version that the change left
    versions: dict[Any, str]
    #: the fields' values before, for an update
    before: dict[str, Any] = field(default_factory=dict[str, Any])
    #: secrets that were set, which can't be brought back
    secrets: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """``Updated a row of users``"""
        some = "a row" if len(self.versions) == 1 else f"{len(self.versions)} rows"
        return f"{_DONE[self.action].capitalize()} {some} of {self.table.name}"

    @property
    def can_be_undone(self) -> bool:
        """Whether there is a way back."""
        if self.action == "create":
            return self.table.is_soft
        return self.action != "update" or bool(self.before)


class Editor:
    """Makes changes and remembers the last one, for the one person at the studio."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Change | None = None
        self._logger = StdlibLogger(logging.getLogger("orm_core.studio"))

    @property
    def last(self) -> Change | None:
        """The last change that can be undone."""
        return self._last

    def _remember(self, change: Change | None) -> None:
        with self._lock:
            self._last = change if change is not None and change.can_be_undone else None

    def create(self, table: Table, form: Mapping[str, str]) -> Any:
        """Insert the row of a form; answers its key."""
        payload = {
            column.field.name: _typed(column, form)
            for column in writable(table)
            if _is_given(column, form)
        }
        with database_of(table).atomic() as tx:
            row = service_of(table).create(payload, self._logger, tx=tx)
            change = Change("create", table, _versions(table, [row._pk]))
        self._remember(change)
        return row._pk

    def update(self, table: Table, key: Any, version: str, form: Mapping[str, str]) -> list[str]:
        """Change the fields of a form that differ; answers their names, none when none do.

        Raises ``Conflict``, or ``StaleRow`` where rows have a version, when the row is not the one
        that was opened.
        """
        service = service_of(table)
        with database_of(table).atomic() as tx:
            row = _locked(table, key, version)
            payload, before, hidden = _differences(table, row, form)
            if not payload:
                return []
            if service.update(key, _versioned(row, payload), self._logger, tx=tx) is None:
                raise NotFound("A deleted row is not edited: restore it first.")
            change = Change("update", table, _versions(table, [key]), before, tuple(hidden))
        self._remember(change)
        return list(payload)

    def delete(self, table: Table, keys: Iterable[Any]) -> int:
        """Soft-delete rows, all or none; those that are deleted already stay as they are."""
        if not table.is_soft:
            raise InvalidValue(
                f"{table.name} has no deleted_at, so a delete would be for good; the studio does "
                "not do that."
            )
        return self._each(table, keys, "delete")

    def restore(self, table: Table, keys: Iterable[Any]) -> int:
        """Bring deleted rows back, all or none."""
        return self._each(table, keys, "restore")

    def _each(self, table: Table, keys: Iterable[Any], action: Action) -> int:
        chosen = list(dict.fromkeys(keys))
        if not 0 < len(chosen) <= MAX_BULK:
            raise InvalidValue(f"Choose from 1 to {MAX_BULK} rows.")
        service = service_of(table)
        verb = service.soft_delete if action == "delete" else service.restore
        with database_of(table).atomic() as tx:
            done = [key for key in chosen if verb(key, self._logger, tx=tx) is not None]
            change = Change(action, table, _versions(table, done)) if done else None
        if change is not None:
            self._remember(change)
        return len(done)

    def undo(self) -> Change:
        """Take the last change back. Raises as ``update`` when a row was changed since then."""
        with self._lock:
            change, self._last = self._last, None
        if change is None:
            raise InvalidValue("There is nothing to undo.")
        service = service_of(change.table)
        with database_of(change.table).atomic() as tx:
            for key, version in change.versions.items():
                row = _locked(change.table, key, version)
                match change.action:
                    case "update":
                        before = _versioned(row, change.before)
                        service.update(key, before, self._logger, tx=tx)
                    case "delete":
                        service.restore(key, self._logger, tx=tx)
                    case _:
                        service.soft_delete(key, self._logger, tx=tx)
        return change


def service_of(table: Table) -> Any:
    """The service that changes a table's rows. Raises ``InvalidValue`` when there is none."""
    if table.model is AuditEntry:
        raise InvalidValue("Nobody edits the audit trail: the triggers of audited tables write it.")
    if table.service is None:
        raise InvalidValue(
            f"The domain {table.domain} has no service for {table.name}, so its rows can't be "
            f"edited here: add class {table.model.__name__}Service(Service["
            f"{table.model.__name__}]) to it."
        )
    return table.service


def database_of(table: Table) -> Any:
    """The database that the table's service writes to."""
    return table.model._meta.database


def writable(table: Table) -> list[Column]:
    """The columns that a form offers; the rest is kept by the server or by the service."""
    kept = {"created_at", "updated_at", "deleted_at", table.key.name}
    return [
        column
        for column in table.columns
        if column.name not in kept
        and not column.is_generated
        and column.field is not table.model._meta.version
        and not getattr(column.field, "auto_increment", False)
    ]


def _is_given(column: Column, form: Mapping[str, str]) -> bool:
    """Whether a form says anything of a column; an untouched one is left to its default."""
    if f"null.{column.name}" in form:
        return True
    text = form.get(f"value.{column.name}")
    if text is None:
        return False
    return bool(text) or (column.kind == "text" and not has_default(column))


def has_default(column: Column) -> bool:
    """Whether a row that says nothing of the column gets a value."""
    one: Any = column.field
    return one.default is not None or (
        isinstance(one, CheckedField) and one.server_default_sql is not None
    )


def _typed(column: Column, form: Mapping[str, str]) -> Any:
    """What a form says of a column: None, a secret or a value."""
    if f"null.{column.name}" in form:
        return None
    # A browser sends line ends as CRLF (HTML, "Constructing the entry list").
    text = _lines(form.get(f"value.{column.name}", "")) or ""
    if column.is_secret:
        return column.field.from_text(text)
    if not text and column.kind != "text":
        return None
    return parse(column, text)


def _differences(
    table: Table, row: Any, form: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What a form changes, what was there before, and the secrets among it."""
    payload: dict[str, Any] = {}
    before: dict[str, Any] = {}
    hidden: list[str] = []
    for column in writable(table):
        name = column.field.name
        given = f"value.{column.name}" in form or f"null.{column.name}" in form
        if not given:
            continue
        if column.is_secret:
            if f"null.{column.name}" in form or form.get(f"value.{column.name}"):
                payload[name] = _typed(column, form)
                hidden.append(column.name)
            continue
        value, old = _typed(column, form), row.__data__[name]
        if _text(value) != _lines(_text(old)):
            payload[name], before[name] = value, old
    return payload, before, hidden


def _versioned(row: Any, payload: dict[str, Any]) -> dict[str, Any]:
    """The changes of a row, with the version that it has, where rows have one."""
    version = row._meta.version
    return payload if version is None else {**payload, version.name: row.__data__[version.name]}


def _text(value: Any) -> str | None:
    return None if value is None else plain(value)


def _lines(text: str | None) -> str | None:
    """A text as it comes back from a form that nobody touched: with LF for each end of line."""
    return None if text is None else text.replace("\r\n", "\n").replace("\r", "\n")


def _locked(table: Table, key: Any, version: str) -> Any:
    """The row, kept from others until the end of the transaction, if it is of this version."""
    plain_columns = [column.field for column in table.columns if not column.is_secret]
    query = table.model.select(*plain_columns, version_of(table).alias("studio_version"))
    query = query.where(table.key.field == key).for_update()
    query = query.with_deleted() if table.is_soft else query
    for row in query:
        if row.studio_version == version:
            return row
        counted = table.model._meta.version
        if counted is not None and version.isdecimal():
            raise StaleRow(table.name, key, int(version), row.__data__[counted.name])
        raise Conflict(
            f"Somebody changed this row of {table.name} since you opened it; nothing was written."
        )
    raise NotFound(f"The row of {table.name} is gone; nothing was written.")


def _versions(table: Table, keys: list[Any]) -> dict[Any, str]:
    """The rows' versions inside the transaction that wrote them."""
    query = table.model.select(table.key.field, version_of(table)).where(table.key.field.in_(keys))
    query = query.with_deleted() if table.is_soft else query
    return {key: str(version) for key, version in query.tuples()}
