"""Many files made one, for databases that do not exist yet; those that do are left working.

The new file makes at once what the old ones made step by step. It names them in ``replaces``, and
when it meets a database to which all of them were applied, ``orm-core migrate apply`` or
``registry.router(db).run()`` notes it as applied in their place. What a catalog does not tell
(triggers, functions, views, rows of data migrations) can't be carried over and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Final

from orm_core.database.database import Database
from orm_core.errors import MigrationError
from orm_core.migrations import catalog, runner
from orm_core.migrations.catalog import Catalog
from orm_core.migrations.dependents import OF_MODELS
from orm_core.migrations.diff import any_cast, diff
from orm_core.migrations.files import MigrationFile, file_name, names_in, write_whole
from orm_core.migrations.history import replaced, replaces
from orm_core.migrations.names import qualified
from orm_core.migrations.scratch import ScratchServer
from orm_core.migrations.words import summary

#: what migrations can make and a Catalog does not hold: kind, and a query for names
_BEYOND: Final = (
    (
        "trigger",
        f"SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname NOT LIKE {OF_MODELS}",
    ),
    (
        "function",
        f"SELECT proname FROM pg_proc AS p WHERE pronamespace::regnamespace::text NOT LIKE ALL "
        "(ARRAY['pg\\_%%', 'information_schema']) AND NOT EXISTS (SELECT FROM pg_depend AS d "
        f"WHERE d.objid = p.oid AND d.deptype = 'e') AND p.proname NOT LIKE {OF_MODELS}",
    ),
    (
        "view",
        "SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace::regnamespace"
        "::text NOT LIKE ALL (ARRAY['pg\\_%%', 'information_schema'])",
    ),
    ("extension", "SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'"),
)


def squash(server: ScratchServer, folder: Path, name: str = "squashed") -> Path:
    """Put one file in place of all; answers its path.

    Proved before anything is removed; one that was interrupted is taken up. Raises ``MigrationError`` when the files make more than a
    catalog tells, or are one file already.
    """
    half_done = replaced(folder)
    if half_done:  # it was interrupted between the one and the many
        _remove(folder, half_done)
        return (
            folder / f"{next(one for one in names_in(folder) if replaces(folder / f'{one}.py'))}.py"
        )
    old = names_in(folder)
    if len(old) < 2:
        raise MigrationError(f"There is nothing to squash in {folder}: {len(old)} file(s).")
    with server.database() as made, server.database() as anew:
        runner.apply(made, folder)
        _refuse_beyond(made)
        goal, empty = catalog.read(made), catalog.read(anew)
        file = MigrationFile(
            _free_name(name, old),
            f"Replaces {old[0]} to {old[-1]}: {summary(empty, goal)}.",
            _statements(empty, goal),
            _statements(goal, empty),
        )
        for statement in file.up:
            anew.execute_sql(statement.replace("%", "%%"))
        if catalog.read(anew) != goal:
            raise MigrationError("The proof failed: one file does not make what all of them make.")
    text = file.text().replace("\n\n\ndef migrate", f"\n\n{_named(old)}\n\n\ndef migrate", 1)
    path = folder / f"{file.name}.py"
    write_whole(path, text)  # first, so that a crash loses nothing
    _remove(folder, old)
    return path


def _free_name(name: str, taken: Sequence[str]) -> str:
    """A name that no file has: the history is squashed again and again."""
    made = file_name(1, name)
    more = (f"{made}_{number}" for number in count(2))
    return next(one for one in chain((made,), more) if one not in taken)


def _remove(folder: Path, names: Sequence[str]) -> None:
    # The last first: what is left is a history that the new file stands for in full.
    for name in reversed(names):
        (folder / f"{name}.py").unlink()


def _statements(old: Catalog, new: Catalog) -> tuple[str, ...]:
    steps = diff(old, new, cast_exists=any_cast)
    return tuple(step.sql for step in steps)


def _named(names: Sequence[str]) -> str:
    lines = "".join(f'    "{name}",\n' for name in names)
    return f"replaces = (\n{lines})"


def _refuse_beyond(database: Database) -> None:
    found = [
        f"{kind} {name}"
        for kind, sql in _BEYOND
        for (name,) in database.execute_sql(sql, ()).fetchall()
    ]
    for table in catalog.read(database).tables:
        sql = f"SELECT EXISTS (SELECT FROM {qualified(table)})".replace("%", "%%")
        if database.execute_sql(sql).fetchone()[0]:
            found.append(f"rows of {table[1]}")
    if found:
        raise MigrationError(
            f"The files make what can't be carried over into one: {', '.join(found)}. Nothing was "
            "changed."
        )
