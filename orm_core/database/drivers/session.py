"""What a connection of ours knows beside what its driver's does."""

from __future__ import annotations

from math import inf
from typing import Any

from orm_core.database.prepared import Prepares


class Session(Prepares):
    """A mixin for the connections of both drivers; see ``protocol.Connection``."""

    was_cut = False
    is_watched = False
    is_being_cut = False
    overdue_at = inf
    is_limited = False
    _spare: Any = None
    _is_over = False
    #: the attributes that all these are, by name
    STATE = (
        "was_cut",
        "is_watched",
        "is_being_cut",
        "overdue_at",
        "is_limited",
        "prepared",
        "_spare",
        "_is_over",
    )

    def take_cursor(self: Any) -> Any:
        """A cursor: the spare one, or another while that is in use."""
        cursor, self._spare = self._spare, None
        return self.cursor() if cursor is None else cursor

    def give_back(self, cursor: Any) -> None:
        """Have a cursor whose answer was read be the spare one."""
        if not self._is_over:
            self._spare = cursor

    def let_go(self) -> None:
        """Keep no cursor any more: it refers to the connection, so neither would end."""
        self._is_over = True
        self._spare = None
