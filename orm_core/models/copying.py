"""COPY: the fastest way of many rows into a table, as one statement that holds or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from orm_core.database import acting, limits
from orm_core.models.batches import Column, quoted, table_of

#: rows that are written in one piece of the stream
_ROWS: Final = 1000
#: COPY has no RETURNING, passes by rules and can't write through row security; what a trigger
#: changes or leaves out would go unseen
_IS_PLAIN: Final = (
    "SELECT c.relkind = 'r' AND NOT c.relhasrules AND NOT c.relrowsecurity AND NOT EXISTS ("
    "SELECT FROM pg_catalog.pg_trigger t "
    "WHERE t.tgrelid = c.oid AND t.tgtype & 7 = 7 AND t.tgenabled <> 'D') "
    "FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"
)


def stores_as_given(model: Any) -> bool:
    """Whether the table takes rows as they are: no trigger before, rule or row security."""
    name = table_of(model).replace("%%", "%")
    row = model._meta.database.execute_sql(_IS_PLAIN, (name,)).fetchone()
    return row is not None and bool(row[0])


def copy_rows(model: Any, columns: Sequence[Column]) -> None:
    """Write the rows. Raises what an INSERT of them would."""
    names = ", ".join(quoted(one.field.column_name) for one in columns)
    sql = f"COPY {table_of(model)} ({names}) FROM STDIN".replace("%%", "%")
    database = model._meta.database
    # COPY takes no other statement along: who acts is told in a transaction around it.
    told = database.audited and acting.is_named()
    with database.atomic() if told else database.connection_context():
        database.connect(reuse_if_open=True)
        if limits.deadline() == math.inf:
            database._run(lambda: _Copying(database.cursor(), columns), sql, None)
            return
        with database.atomic():
            database.statement("SELECT 1")  # takes the limit to the server; COPY can't
            database._run(lambda: _Copying(database.cursor(), columns), sql, None)


class _Copying:
    """A cursor whose ``execute`` is a COPY, which is sent and told like any other statement."""

    def __init__(self, cursor: Any, columns: Sequence[Column]) -> None:
        self._cursor = cursor
        self.connection = cursor.connection
        self._lines: Iterator[str] = map(
            "\t".join, zip(*(one.copied() for one in columns), strict=True)
        )

    def execute(self, sql: str, _: Any) -> None:
        self._cursor.copy_expert(sql, self)

    def read(self, _: int) -> str:
        """The next piece of the text, for the driver; empty at the end."""
        return "".join(f"{line}\n" for line in islice(self._lines, _ROWS))
