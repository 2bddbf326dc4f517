"""Where a database is: on this machine, or on another, where changes need a second word."""

from __future__ import annotations

from orm_core.database.database import Database
from orm_core.database.url import DatabaseUrl
from orm_core.errors import ConfigurationError


def is_local(database: Database) -> bool:
    """Whether the database is on this machine, as far as its address tells."""
    params = database.connect_params
    # libpq goes to hostaddr when it is given, whatever the host says; both may be lists.
    address = str(params.get("hostaddr") or params.get("host") or "localhost")
    hosts = [one.strip() for one in address.split(",")]
    return all(DatabaseUrl(host, 5432, None, None, "").is_local for host in hosts)


def check_writable(database: Database, *, yes_remote: bool) -> None:
    """Raise ``ConfigurationError`` for another machine's database, unless that is meant."""
    if not yes_remote and not is_local(database):
        raise ConfigurationError(
            "The database is on another machine, where others may depend on it. To change its "
            "rows nevertheless, add --yes-remote."
        )
