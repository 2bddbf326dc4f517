"""Pages to read: the start, a table's rows, one row, a table's structure, an export."""

from __future__ import annotations

import itertools
from typing import Any

from flask import Flask, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from orm_core.errors import InvalidValue
from orm_core.studio import explorer, export, filters, relations, structure
from orm_core.studio.app import Studio
from orm_core.studio.edits import writable
from orm_core.studio.filters import OPERATORS, SIZES, WORDS
from orm_core.studio.tables import Table


def install(app: Flask, studio: Studio) -> None:
    """Add these pages."""

    def link(model: Any) -> str | None:
        """The name of a model's table, for links."""
        table = studio.tables.of(model)
        return table.name if table is not None else None

    known: dict[str, Any] = {
        "link": link,
        "OPERATORS": OPERATORS,
        "WORDS": WORDS,
        "SIZES": SIZES,
        "writable": writable,
    }
    app.jinja_env.globals.update(known)

    @app.get("/")
    def start() -> str:
        return render_template("start.html", domains=studio.tables.domains)

    @app.get("/<name>")
    def rows(name: str) -> str | AnyResponse:
        table = studio.tables[name]
        if request.args.get("_add") is not None:
            return redirect(_with_condition(table), 303)
        view = filters.read(table, _arguments())
        size = explorer.sizes(studio.reader, studio.tables).get(table.name)
        if size is None:
            return render_template("missing.html", table=table)
        found = explorer.read_page(studio.reader, view, size)
        labels = relations.labels(studio.reader, studio.tables, found.rows, view.shown)
        return render_template("rows.html", table=table, view=view, found=found, labels=labels)

    @app.get("/<name>/-/structure")
    def shape(name: str) -> str:
        table = studio.tables[name]
        found = structure.read(studio.reader, table)
        if found is None:
            return render_template("missing.html", table=table)
        referring = studio.tables.referring_to(table)
        return render_template("structure.html", table=table, structure=found, referring=referring)

    @app.get("/<name>/-/export.<kind>")
    def download(name: str, kind: str) -> AnyResponse:
        table = studio.tables[name]
        export.check(kind)
        view = filters.read(table, _arguments())
        pieces = export.export(studio.reader, view, kind)
        first = next(pieces, "")  # what is wrong with the query gets a page of its own
        answer = Response(itertools.chain([first], pieces), mimetype=export.FORMATS[kind])
        answer.call_on_close(pieces.close)
        answer.headers["Content-Disposition"] = f'attachment; filename="{_file_name(name)}.{kind}"'
        return answer

    @app.get("/<name>/<path:key>")
    def row(name: str, key: str) -> str:
        table = studio.tables[name]
        found = explorer.read_row(studio.reader, table, key)
        related = relations.related_rows(studio.reader, studio.tables, table, found)
        labels = relations.labels(studio.reader, studio.tables, [found], table.columns)
        return render_template("row.html", table=table, row=found, related=related, labels=labels)


def _arguments() -> list[tuple[str, str]]:
    return list(request.args.items(multi=True))


def _with_condition(table: Table) -> str:
    """The address of the view that the form for a condition asks for."""
    given = [pair for pair in _arguments() if pair[0] not in ("_add", "_column", "_operator")]
    value = next((text for name, text in given if name == "_value"), "")
    view = filters.read(table, [pair for pair in given if pair[0] != "_value"])
    column = table.column(request.args.get("_column", ""))
    operator = request.args.get("_operator", "eq")
    if operator not in WORDS:
        raise InvalidValue("There is no such condition.")
    condition = filters.Condition.of(column, operator, value)
    changed = view.but(conditions=(*view.conditions, condition))
    return url_for("rows", name=table.name) + changed.query


def _file_name(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in name)
