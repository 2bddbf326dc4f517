"""Serves the studio: the connections, the application and the socket, opened and closed together.

Werkzeug's threaded server: one person on one machine is what it is for. It logs no requests, as
an address may hold values of rows.
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from orm_core.database.database import Database
from orm_core.domain import Registry
from orm_core.errors import ConfigurationError
from orm_core.studio.app import Studio, create_app
from orm_core.studio.guard import Guard
from orm_core.studio.place import check_writable
from orm_core.studio.reader import read_only


@dataclass(frozen=True, slots=True)
class Options:
    """Where to listen and what to allow."""

    host: str = "127.0.0.1"
    port: int = 0
    write: bool = False
    yes_remote: bool = False
    sql: bool = False
    url: str | None = None
    metrics_url: str | None = None


class _Silent(WSGIRequestHandler):
    """Writes no line for a request."""

    # with which a download that breaks off is seen to be one (RFC 9112, "Chunked Transfer Coding")
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def log(self, type: str, message: str, *args: Any) -> None:
        pass

    def version_string(self) -> str:
        return "orm_core"


@contextmanager
def open_studio(
    registry: Registry, database: Database, folder: Path, options: Options
) -> Generator[tuple[BaseWSGIServer, str]]:
    """A server that is ready to serve, and the link to open.

    Without ``write``, ``database`` itself is made read-only, so nothing in this process can
    change a row. Raises ``ConfigurationError`` for a port in use, and for ``write`` on a remote
    database without ``yes_remote``.
    """
    if options.write:
        check_writable(database, yes_remote=options.yes_remote)
    else:
        read_only(database)
    guard = Guard(options.host, options.port)
    studio = Studio(
        registry,
        database,
        guard,
        folder,
        write=options.write,
        sql=options.sql,
        url=options.url,
        metrics_url=options.metrics_url,
    )
    try:
        httpd = _listen(options, create_app(studio))
        guard.port = httpd.server_port
        studio.sampler.start()
        try:
            yield httpd, guard.link()
        finally:
            httpd.server_close()
    finally:
        studio.close()


def _listen(options: Options, app: Any) -> BaseWSGIServer:
    try:
        return make_server(options.host, options.port, app, threaded=True, request_handler=_Silent)
    except OSError as error:
        reason = error.errno
    except SystemExit:  # Werkzeug's way of telling that the port is taken
        reason = errno.EADDRINUSE
    if reason == errno.EADDRINUSE:
        raise ConfigurationError(
            f"Something listens on port {options.port} already, perhaps another studio: choose "
            "another one with --port."
        )
    raise ConfigurationError(
        f"The studio can't listen on {options.host}: is it an address of this machine?"
    )
