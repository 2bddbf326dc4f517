"""The studio's own connections, which PostgreSQL keeps read-only and whose statements it ends."""

from __future__ import annotations

from typing import Any, Final

from orm_core.database.database import Database

#: seconds that a statement of the studio may take
TIME_LIMIT: Final = 5.0


def reader_of(database: Database, seconds: float = TIME_LIMIT) -> Database:
    """A second pool on the same database, for reading only."""
    params = _limited(database, f"-c statement_timeout={int(seconds * 1000)}")
    return Database(database.database, pool_size=4, pool_timeout=TIME_LIMIT, **params)


def read_only(database: Database) -> None:
    """Have the server refuse all changes of this database's connections from now on."""
    database.init(database.database, **_limited(database))


def _limited(database: Database, more: str = "") -> dict[str, Any]:
    options = database.connect_params.get("options", "")
    limits = f"{options} -c default_transaction_read_only=on {more}".strip()
    return {**database.connect_params, "options": limits, "driver": database.driver.NAME}


def reader_rows(reader: Database, query: Any) -> list[Any]:
    """The rows of a query, read through the studio's own connections."""
    return list(query.tuples().execute(reader))
