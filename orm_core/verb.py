"""What surrounds each call of a service: ``tx`` checked, failures logged, changes audited."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import inflection

from orm_core.database.database import Database
from orm_core.database.transactions import Transaction
from orm_core.errors import InvalidValue, OrmCoreError
from orm_core.loggers import Logger, check_logger
from orm_core.models.base import BaseModel
from orm_core.models.payloads import key_value

log: logging.Logger = logging.getLogger("orm_core.service")


class Verb:
    """One call of a service: ``tx`` checked, failures logged, changes audited after commit.

    For verbs of your own: ``with cls.verb("revoke", logger, tx) as verb: ...
    verb.audit("revoked", session)``.
    """

    __slots__ = ("_logger", "_model", "_tx", "_verb")

    def __init__(self, model: Any, action: str, logger: Logger | None, tx: Any) -> None:
        self._model = model
        self._verb = action
        self._logger = logger
        self._tx = tx

    @property
    def database(self) -> Database:
        """The database of the service's model."""
        database: Database = self._model._meta.database
        return database

    def is_key(self, id: Any) -> Any:
        """The condition on the row with this id. Raises ``InvalidValue`` for what is no id."""
        return is_key(self._model, id)

    def __enter__(self) -> Verb:
        if self._logger is not None:
            check_logger(self._logger)
        if self._tx is not None:
            self._check_tx()
        return self

    @property
    def _action(self) -> str:
        return f"service:{self._verb}"

    def _check_tx(self) -> None:
        try:
            check_tx(self._tx, self._model)
        except OrmCoreError as error:
            self._log_failure(error)
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and isinstance(exc, Exception):
            self._log_failure(exc)

    def _log_failure(self, error: Exception) -> None:
        if self._logger is not None:
            meta = {"module": "db", "action": self._action, "error": error}
            self._tell("error", f"Failed to {self._doing}", meta)

    @property
    def _noun(self) -> str:
        return inflection.underscore(self._model.__name__)

    @property
    def _doing(self) -> str:
        """``find_by_email`` -> "find user", ``create_many`` -> "create users"."""
        words = self._verb
        what = re.sub(r"_(by_.*|many|where)$", "", words).replace("_", " ")
        noun = self._noun.replace("_", " ")
        several = words.endswith(("_many", "_where")) or words in {
            "list",
            "page",
            "count",
            "iterate",
        }
        return f"{what} {inflection.pluralize(noun) if several else noun}"

    def audit(self, done: str, row: BaseModel | None = None, **facts: Any) -> None:
        """Log ``<Model> <done>`` with the row's id once everything is committed."""
        if self._logger is None:
            return
        meta: dict[str, Any] = {"module": "db", "action": self._action, **facts}
        if row is not None:
            meta[f"{self._noun}_id"] = row._pk
        message = f"{self._model.__name__} {done}"
        self.database.after_commit(lambda: self._tell("audit", message, meta))

    def audit_many(self, done: str, rows: Iterable[Any]) -> None:
        """The same for several rows, or ids of them, in one line."""
        if self._logger is None:
            return
        ids = [row._pk if isinstance(row, BaseModel) else row for row in rows]
        if ids:
            self.audit(done, None, count=len(ids), **{f"{self._noun}_ids": ids})

    def _tell(self, level: str, message: str, meta: Mapping[str, Any]) -> None:
        try:
            getattr(self._logger, level)(message, meta)
        except Exception:
            log.exception("The logger given to a service failed; the call went on.")


def check_tx(tx: Any, model: Any) -> None:
    """Raise ``InvalidValue`` or ``StaleTransaction`` unless it is open and of this database."""
    if not isinstance(tx, Transaction):
        raise InvalidValue("tx must be what `with transaction() as tx:` gives.")
    tx.check(model._meta.database)


def is_key(model: Any, id: Any) -> Any:
    """The condition on the row with this id. Raises ``InvalidValue`` for what is no id."""
    return model._meta.primary_key == key_value(model, id)
