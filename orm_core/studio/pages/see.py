"""Pages that show how things are: metrics, migrations, the diagram; and the choice of colours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Flask, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from orm_core.errors import OrmCoreError
from orm_core.studio import diagram, health, slow
from orm_core.studio.app import Studio, told

#: seconds that a choice of colours is kept
YEAR = 365 * 24 * 3600


def install(app: Flask, studio: Studio) -> None:
    """Add these pages."""
    checked: dict[str, Any] = {}

    @app.get("/-/dashboard")
    def dashboard() -> str:
        if not studio.sampler.samples:
            studio.sampler.take()
        return render_template(
            "dashboard.html",
            tiles=studio.sampler.tiles(),
            lines=studio.sampler.lines(),
            problem=studio.sampler.problem,
            slowest=studio.slow.slowest(),
            of_server=slow.of_server(studio.reader),
            activity=health.activity(studio.reader, studio.tables),
            server=health.server(studio.reader),
            keys=health.keys(studio.reader, studio.tables),
        )

    @app.get("/-/migrations")
    def migrations() -> str:
        try:
            files, problem = health.migrations(studio.database, studio.folder), None
        except OrmCoreError as error:
            files, problem = [], told(error)
        return render_template(
            "migrations.html", files=files, problem=problem, drift=checked.get("drift")
        )

    @app.post("/-/migrations/drift")
    def drift() -> AnyResponse:
        found = health.drift(studio.url, studio.folder)
        checked["drift"] = (datetime.now(UTC), found)
        return redirect(url_for("migrations"), 303)

    @app.get("/-/diagram")
    def picture() -> str:
        return render_template(
            "diagram.html", drawing=diagram.draw(studio.tables), box_width=diagram.WIDTH
        )

    @app.post("/-/theme")
    def theme() -> AnyResponse:
        chosen = request.form.get("theme", "auto")
        answer = redirect(_same_page(request.form.get("_path", "/")), 303)
        answer.set_cookie("orm_core_studio_theme", chosen[:8], max_age=YEAR, samesite="Lax")
        return answer


def _same_page(path: str) -> str:
    """A path of ours: what begins with two slashes would lead to another host."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if ours and path.isprintable() else "/"
