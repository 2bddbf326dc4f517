"""Pages that change rows: forms, a cell, delete and restore, several rows at once, undo, seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from flask import Flask, abort, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from orm_core.errors import InvalidValue, OrmCoreError, StaleRow
from orm_core.studio import explorer, relations, seed
from orm_core.studio.app import Studio, status_of, told
from orm_core.studio.edits import Conflict, has_default, service_of, writable
from orm_core.studio.explorer import WHOLE, Row
from orm_core.studio.tables import Column, Table
from orm_core.studio.values import parse, plain
from orm_core.studio.words import pretty_json

P = ParamSpec("P")
R = TypeVar("R")

#: rows that a form may plant in one table
MAX_SEED = 5_000


def install(app: Flask, studio: Studio) -> None:
    """Add these pages; without --write they answer 403."""

    def choices(column: Column) -> list[tuple[str, str]]:
        return relations.choices(studio.reader, studio.tables, column)

    known: dict[str, Any] = {
        "has_default": has_default,
        "is_secret_field": _is_secret_field,
        "is_cut": is_cut,
        "choices": choices,
    }
    app.jinja_env.globals.update(known)

    def writing(page: Callable[P, R]) -> Callable[P, R]:
        @wraps(page)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if not studio.write:
                abort(403, "The studio is read-only; start it with --write to edit rows.")
            return page(*args, **kwargs)

        return checked

    def opened(name: str, key: str) -> tuple[Table, Row]:
        table = studio.tables[name]
        service_of(table)
        return table, explorer.read_row(studio.reader, table, key)

    def to_row(table: Table, key: Any) -> AnyResponse:
        return redirect(url_for("row", name=table.name, key=plain(key)), 303)

    @app.get("/<name>/-/new")
    @writing
    def new(name: str) -> str:
        table = studio.tables[name]
        service_of(table)
        return render_template("form.html", table=table, row=None, form=dict(request.args))

    @app.post("/<name>/-/new")
    @writing
    def create(name: str) -> Any:
        table = studio.tables[name]
        try:
            key = studio.editor.create(table, request.form)
        except OrmCoreError as error:
            return _again("form.html", error, table=table, row=None, form=request.form)
        flash("The row is there.")
        return to_row(table, key)

    @app.get("/<name>/<path:key>/-/edit")
    @writing
    def edit(name: str, key: str) -> str:
        table, row = opened(name, key)
        return render_template("form.html", table=table, row=row, form=_form_of(table, row))

    @app.post("/<name>/<path:key>/-/edit")
    @writing
    def update(name: str, key: str) -> Any:
        table, row = opened(name, key)
        form = request.form
        try:
            changed = studio.editor.update(table, row.key, form.get("_version", ""), form)
        except (Conflict, StaleRow):
            differences = _differences(table, row, form)
            page = render_template(
                "conflict.html", table=table, row=row, form=form, differences=differences
            )
            return page, 409
        except OrmCoreError as error:
            return _again("form.html", error, table=table, row=row, form=form)
        flash(f"Saved: {', '.join(changed)}." if changed else "Nothing was changed.")
        return to_row(table, row.key)

    @app.get("/<name>/<path:key>/-/cell/<column>")
    @writing
    def cell_form(name: str, key: str, column: str) -> Any:
        table, row = opened(name, key)
        one = _editable(table, column)
        if is_cut(row[one]):
            raise InvalidValue(f"{one.name} is too long to be edited here.")
        return render_template(
            "cell_form.html", table=table, row=row, column=one, form=_form_of(table, row)
        )

    @app.post("/<name>/<path:key>/-/cell/<column>")
    @writing
    def cell(name: str, key: str, column: str) -> Any:
        table, row = opened(name, key)
        one = _editable(table, column)
        form = {
            name: text
            for name, text in request.form.items()
            if name in ("_version", f"value.{one.name}", f"null.{one.name}")
        }
        studio.editor.update(table, row.key, form.get("_version", ""), form)
        return cell_view(table, key, one)

    @app.get("/<name>/<path:key>/-/cell/<column>/view")
    def shown_cell(name: str, key: str, column: str) -> str:
        table = studio.tables[name]
        return cell_view(table, key, table.column(column))

    def cell_view(table: Table, key: str, column: Column) -> str:
        row = explorer.read_row(studio.reader, table, key)
        labels = relations.labels(studio.reader, studio.tables, [row], [column])
        return render_template("cell.html", table=table, row=row, column=column, labels=labels)

    @app.post("/<name>/<path:key>/-/delete")
    @writing
    def delete(name: str, key: str) -> AnyResponse:
        table, row = opened(name, key)
        studio.editor.delete(table, [row.key])
        flash("Deleted; the row is kept and can be restored.")
        return to_row(table, row.key)

    @app.post("/<name>/<path:key>/-/restore")
    @writing
    def restore(name: str, key: str) -> AnyResponse:
        table, row = opened(name, key)
        studio.editor.restore(table, [row.key])
        flash("Restored.")
        return to_row(table, row.key)

    @app.post("/<name>/-/bulk")
    @writing
    def bulk(name: str) -> AnyResponse:
        table = studio.tables[name]
        keys = [parse(table.key, text) for text in request.form.getlist("key")]
        match request.form.get("action"):
            case "delete":
                count, done = studio.editor.delete(table, keys), "deleted"
            case "restore":
                count, done = studio.editor.restore(table, keys), "restored"
            case _:
                raise InvalidValue("Rows are deleted or restored.")
        flash(f"{count} of {len(keys)} row(s) {done}.")
        return redirect(_back(table), 303)

    @app.post("/-/undo")
    @writing
    def undo() -> AnyResponse:
        change = studio.editor.undo()
        flash(f"Undone: {change.words[0].lower()}{change.words[1:]}.")
        if len(change.versions) == 1:
            return to_row(change.table, next(iter(change.versions)))
        return redirect(url_for("rows", name=change.table.name), 303)

    @app.get("/-/seed")
    @writing
    def seed_form() -> str:
        return render_template("seed.html", most=MAX_SEED)

    @app.post("/-/seed")
    @writing
    def plant() -> Any:
        try:
            counts = {
                table.name: _count(request.form.get(f"count.{table.name}", ""))
                for table in studio.tables
            }
            planted = seed.plant(studio.registry, counts, _count(request.form.get("seed", "1")))
        except OrmCoreError as error:
            status, _ = status_of(error)
            page = render_template("seed.html", most=MAX_SEED, problem=told(error))
            return page, status
        flash(", ".join(f"{count} {name}" for name, count in planted.items()) + " planted.")
        return redirect(url_for("start"), 303)


def _is_secret_field(table: Table, name: str) -> bool:
    """Whether a form's name (``value.token``) is of a secret, which is never sent back."""
    return table.column(name.partition(".")[2]).is_secret


def _count(text: str) -> int:
    if not text.strip():
        return 0
    if not text.strip().isdecimal() or int(text) > MAX_SEED:
        raise InvalidValue(
            f"Counts are whole numbers up to {MAX_SEED:,} here; orm-core seed takes more."
        )
    return int(text)


def _again(template: str, error: OrmCoreError, **context: Any) -> tuple[str, int]:
    """The form once more, with what was typed and what is wrong."""
    status, title = status_of(error)
    return render_template(template, problem=told(error), title=title, **context), status


def _form_of(table: Table, row: Row) -> dict[str, str]:
    """What the form of a row holds before anybody types."""
    form = {"_version": row.version}
    for column in writable(table):
        value = row[column]
        if column.is_secret:
            continue
        if value is None:
            form[f"null.{column.name}"] = "1"
        text = "" if value is None else plain(value)
        form[f"value.{column.name}"] = pretty_json(text) if column.kind == "json" else text
    return form


def is_cut(value: Any) -> bool:
    """Whether a value is longer than what is read of one."""
    return isinstance(value, str) and len(value) > WHOLE


def _editable(table: Table, name: str) -> Column:
    column = table.column(name)
    if column not in writable(table) or column.is_secret:
        raise InvalidValue(f"{column.name} is not edited in its cell.")
    return column


def _differences(table: Table, row: Row, form: Any) -> list[tuple[Column, str | None, str | None]]:
    """Where the row as it is now and the form differ: column, now, typed."""
    now = _form_of(table, row)
    found: list[tuple[Column, str | None, str | None]] = []
    for column in writable(table):
        value, null = f"value.{column.name}", f"null.{column.name}"
        if column.is_secret or (value not in form and null not in form):
            continue
        typed = None if null in form else form.get(value, "").replace("\r\n", "\n")
        there = None if null in now else now.get(value, "")
        if typed != there and (typed or there or column.kind == "text"):
            found.append((column, there, typed))
    return found


def _back(table: Table) -> str:
    """The view that a form came from; only ever a view of this table."""
    query = request.form.get("_query", "")
    return url_for("rows", name=table.name) + (query if query.startswith("?") else "")
