"""The studio as a Flask application: what its pages share, and what happens when one fails."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask, g, render_template, request
from werkzeug.exceptions import HTTPException

from orm_core.database.database import Database
from orm_core.domain import Registry
from orm_core.errors import (
    ConnectionFailed,
    ConstraintViolation,
    InvalidValue,
    NotFound,
    OrmCoreError,
    PoolTimeout,
    ServerRejectedValue,
    StaleRow,
    StatementTimeout,
)
from orm_core.studio import explorer, words
from orm_core.studio.dashboard import Sampler
from orm_core.studio.edits import Conflict, Editor
from orm_core.studio.guard import Guard
from orm_core.studio.querybox import QueryBox
from orm_core.studio.reader import TIME_LIMIT, reader_of
from orm_core.studio.slow import SlowQueries
from orm_core.studio.tables import Tables

logger: logging.Logger = logging.getLogger("orm_core.studio")


@dataclass(slots=True)
class Studio:
    """What the pages work with.

    ``write`` allows edits, ``sql`` the query box; ``url`` is the database's, for checks that run
    in a process of their own, ``metrics_url`` a service's ``/metrics``.
    """

    registry: Registry
    database: Database
    guard: Guard
    folder: Path
    write: bool = False
    sql: bool = False
    url: str | None = field(default=None, repr=False)
    metrics_url: str | None = None
    tables: Tables = field(init=False)
    reader: Database = field(init=False)
    editor: Editor = field(init=False, default_factory=Editor)
    slow: SlowQueries = field(init=False, default_factory=SlowQueries)
    sampler: Sampler = field(init=False)
    box: QueryBox = field(init=False)

    def __post_init__(self) -> None:
        self.tables = Tables(self.registry)
        self.reader = reader_of(self.database)
        self.sampler = Sampler(self.metrics_url)
        self.box = QueryBox(self.database, self.tables)
        for database in (self.reader, self.database):
            self.slow.watch(database)

    @property
    def place(self) -> str:
        """Which database is looked at, for people; without user and password."""
        host = str(self.database.connect_params.get("host", "localhost"))
        where = "embedded" if host.startswith("/") else host
        return f"{self.database.database} · {where}"

    def close(self) -> None:
        """Let go of the connections and stop taking samples."""
        self.sampler.stop()
        self.slow.unwatch()
        self.reader.close_all()


def create_app(studio: Studio) -> Flask:
    """The studio's pages as a WSGI application."""
    from orm_core.studio.pages import browse, edit, query, see

    app = Flask("orm_core.studio", static_url_path="/-/static")
    app.secret_key = secrets.token_bytes(32)
    app.config.from_mapping(
        SESSION_COOKIE_NAME="orm_core_studio",
        SESSION_COOKIE_SAMESITE="Strict",
        TRUSTED_HOSTS=None,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(words.FILTERS)
    studio.guard.install(app)
    app.before_request(_start_clock)
    app.context_processor(lambda: _shared(studio))
    for pages in (see, browse, edit, query):
        pages.install(app, studio)
    app.register_error_handler(OrmCoreError, _failed)
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(Exception, _broken)
    return app


def _start_clock() -> None:
    g.started = time.perf_counter()


def _shared(studio: Studio) -> dict[str, Any]:
    """What every page's template finds."""

    def sizes() -> dict[str, explorer.Size]:
        if "sizes" not in g:
            try:
                g.sizes = explorer.sizes(studio.reader, studio.tables)
            except OrmCoreError:
                g.sizes = {}  # the page itself says what is wrong
        return dict(g.sizes)

    return {
        "studio": studio,
        "sizes": sizes,
        "theme": _theme(),
        "csrf": studio.guard.form_token,
        "milliseconds": lambda: (time.perf_counter() - g.get("started", 0)) * 1000,
        "limit": TIME_LIMIT,
    }


def _theme() -> str:
    chosen = request.cookies.get("orm_core_studio_theme", "")
    return chosen if chosen in ("light", "dark") else "auto"


# -- errors -----------------------------------------------------------------------------------

_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (Conflict, 409, "Changed meanwhile"),
    (StaleRow, 409, "Changed meanwhile"),
    (NotFound, 404, "Not found"),
    (InvalidValue, 400, "That does not fit"),
    (StatementTimeout, 504, "That took too long"),
    (PoolTimeout, 503, "Busy"),
    (ConnectionFailed, 503, "No connection"),
    (ConstraintViolation, 400, "The database refused"),
    (ServerRejectedValue, 400, "The database refused"),
)


def status_of(error: Exception) -> tuple[int, str]:
    """The HTTP status and the title for an error of ours."""
    for cls, status, title in _STATUS:
        if isinstance(error, cls):
            return status, title
    return 500, "The database refused"


def told(error: Exception) -> str:
    """What a person reads of an error of ours."""
    text = str(error).replace(" No SQL was sent.", "").replace("; no SQL was sent.", ".")
    if isinstance(error, StatementTimeout):
        text = (
            f"The server ended the query after {TIME_LIMIT:g} seconds. Narrow the rows down by a "
            "condition on a column that has an index, or sort by such a column."
        )
    return text


def _page(status: int, title: str, text: str) -> tuple[str, int]:
    if request.headers.get("X-Fragment"):
        return text, status
    return render_template("error.html", title=title, text=text, status=status), status


def _failed(error: OrmCoreError) -> tuple[str, int]:
    return _page(*status_of(error), told(error))


def _refused(error: HTTPException) -> tuple[str, int]:
    titles = {413: "Too large", 414: "Too long", 401: "Who are you?", 403: "Not allowed"}
    status = error.code or 500
    text = error.description or ""
    if status in (400, 401, 403, 411, 413, 414) and request.headers.get("Host") is not None:
        # What may come from elsewhere gets no page of ours, and so no token.
        return f"{titles.get(status, error.name)}. {text}\n", status
    return _page(status, titles.get(status, error.name), text)


def _broken(error: Exception) -> tuple[str, int]:
    # Its text may quote a row, so only its kind and its place are told.
    place = _place_of(error)
    logger.error("The studio failed: %s at %s", type(error).__name__, place)
    text = f"{type(error).__name__} at {place}. This is a defect of the studio."
    return _page(500, "The studio failed", text)


def _place_of(error: Exception) -> str:
    step = error.__traceback__
    place = "an unknown place"
    while step is not None:
        name = step.tb_frame.f_globals.get("__name__", "")
        if str(name).startswith("orm_core"):
            place = f"{name}, line {step.tb_lineno}"
        step = step.tb_next
    return place
