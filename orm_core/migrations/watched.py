"""A database of which every statement is seen, and may be replaced, by the part that watches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from orm_core.database.database import Database
from orm_core.database.diagnostics import translate
from orm_core.database.transactions import Transaction


class Watched(Database):
    """Asks ``watch`` of each statement; BEGIN and SAVEPOINT come on their own."""

    begins_together = False

    def _run(
        self,
        make_cursor: Callable[[], Any],
        sql: str,
        params: Any,
        opening: list[Transaction] | None = None,
        limit_sql: str = "",
    ) -> Any:
        run = super()._run
        return self.watch(sql, params, lambda: run(make_cursor, sql, params, opening, limit_sql))

    @abstractmethod
    def watch(self, sql: str, params: Any, send: Callable[[], Any]) -> Any:
        """Called in the place of each statement; ``send`` sends it and answers its cursor."""
        raise NotImplementedError

    def send_unseen(self, sql: str, params: Any = None) -> Any:
        """Send a statement of the watching part's own; neither ``watch`` nor hooks learn of it."""
        cursor = self._state.conn.cursor()
        try:
            cursor.execute(sql, params or ())
        except self.driver.Error as error:
            raise translate(error, self.driver, self._state.conn) or error from None
        return cursor
