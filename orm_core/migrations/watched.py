"""A database of which every statement is seen, and may be replaced, by the part that watches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from orm_core.database.connection import Database


class Watched(Database):
    """Asks ``watch`` of each statement; BEGIN and SAVEPOINT come on their own."""

    begins_together = False

    def _run(self, make_cursor: Callable[[], Any], sql: str, params: Any) -> Any:
        return self.watch(sql, params, lambda: super(Watched, self)._run(make_cursor, sql, params))

    @abstractmethod
    def watch(self, sql: str, params: Any, send: Callable[[], Any]) -> Any:
        """Called in the place of each statement; ``send`` sends it and answers its cursor."""
        raise NotImplementedError

    def send_unseen(self, sql: str, params: Any = None) -> Any:
        """Send a statement of the watching part's own; neither ``watch`` nor hooks learn of it."""
        cursor, _, failure = self._execute(self._state.conn.cursor, sql, params)
        if failure is not None:
            raise failure
        return cursor
