"""What is applied to a database, and files that stand for others.

A squashed file names the files that it replaces. A database to which all of them were applied has
it too, and notes so at its next deployment.
"""

from __future__ import annotations

import ast
from pathlib import Path

import peewee

from orm_core.errors import MigrationError
from orm_core.migrations.catalog import HISTORY
from orm_core.migrations.files import names_in


def applied(database: peewee.Database) -> tuple[str, ...]:
    """The names in the history table, in order; none when there is no table yet."""
    known = database.execute_sql("SELECT to_regclass(%s)", (f'"{HISTORY}"',)).fetchone()[0]
    if known is None:
        return ()
    rows = database.execute_sql(f'SELECT name FROM "{HISTORY}" ORDER BY id').fetchall()
    return tuple(name for (name,) in rows)


def known(database: peewee.Database, folder: Path) -> tuple[str, ...]:
    """What is applied, with a squashed file in place of those that it replaces; changes nothing."""
    done = applied(database)
    for name in names_in(folder):
        old = replaces(folder / f"{name}.py")
        if old and name not in done and set(old) <= set(done):
            done = (*(one for one in done if one not in old), name)
    return done


def replaces(path: Path) -> tuple[str, ...]:
    """The names of the files that this one stands for; none for an ordinary file."""
    text = path.read_text(encoding="utf-8")
    if "replaces" not in text:
        return ()
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return ()  # told when the file is run
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "replaces":
            return tuple(ast.literal_eval(node.value))
    return ()


def problems(done: tuple[str, ...], folder: Path) -> list[str]:
    """Squashed files of which only a part was applied."""
    found = []
    for name in names_in(folder):
        missing = [one for one in replaces(folder / f"{name}.py") if one not in done]
        if name not in done and 0 < len(missing) < len(replaces(folder / f"{name}.py")):
            found.append(
                f"{name} replaces files of which {missing[0]} was never applied here: apply the "
                "files of the release before it first."
            )
    return found


def adopt(database: peewee.Database, folder: Path) -> None:
    """Note a squashed file as applied where all files that it replaces were.

    Raises ``MigrationError`` where only some of them were.
    """
    done = applied(database)
    found = problems(done, folder)
    if found:
        raise MigrationError(" ".join(found))
    for name in names_in(folder):
        old = replaces(folder / f"{name}.py")
        if not old or name in done or not set(old) <= set(done):
            continue
        with database.atomic():
            database.execute_sql(f'DELETE FROM "{HISTORY}" WHERE name = ANY(%s)', (list(old),))
            database.execute_sql(
                f'INSERT INTO "{HISTORY}" (name, migrated_at) VALUES (%s, now())', (name,)
            )
