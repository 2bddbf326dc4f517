"""The query box; there only with --sql."""

from __future__ import annotations

from typing import Any

from flask import Flask, abort, render_template, request

from orm_core.errors import OrmCoreError
from orm_core.studio.app import Studio, status_of, told
from orm_core.studio.querybox import MAX_ROWS


def install(app: Flask, studio: Studio) -> None:
    """Add this page; without --sql it answers 403."""

    @app.get("/-/sql")
    def query_box() -> str:
        _check(studio)
        return render_template("query.html", text="", most=MAX_ROWS, history=studio.box.history)

    @app.post("/-/sql")
    def run_query() -> Any:
        _check(studio)
        text = request.form.get("sql", "")
        answer = steps = problem = None
        status = 200
        try:
            if request.form.get("action") == "explain":
                steps = studio.box.explain(text)
            else:
                answer = studio.box.run(text)
        except OrmCoreError as error:
            problem = told(error)
            status, _ = status_of(error)
            status = 400 if status == 500 else status
        page = render_template(
            "query.html", text=text, answer=answer, steps=steps, problem=problem, most=MAX_ROWS,
            history=studio.box.history,
        )  # fmt: skip
        return page, status


def _check(studio: Studio) -> None:
    if not studio.sql:
        abort(403, "The query box is off; start the studio with --sql.")
