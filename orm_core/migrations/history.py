"""What is applied to a database, whether the files fit it, and files that stand for others.

A squashed file names the files that it replaces. A database to which all of them were applied has
it too, and notes so at its next deployment.
"""

from __future__ import annotations

import ast
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orm_core import peewee_facade as peewee
from orm_core.errors import InvalidStatement, MigrationError
from orm_core.migrations.catalog import HISTORY
from orm_core.migrations.files import MAX_NUMBER, names_in
from orm_core.migrations.sums import conflicts


@contextmanager
def reached(what: str) -> Generator[None]:
    """Say that it is the history that a role or a database does not let us use."""
    try:
        yield
    except InvalidStatement as error:
        raise MigrationError(f"The table {HISTORY} can't be {what}. {error}") from error


@reached("read")
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
            last = max(old, key=done.index)
            named = (name if one == last else one for one in done)
            done = tuple(one for one in named if one not in old)
    return done


def replaces(path: Path) -> tuple[str, ...]:
    """The names of the files that this one stands for; none for an ordinary file."""
    source = path.read_bytes()
    if b"replaces" not in source:
        return ()
    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "replaces":
                return tuple(ast.literal_eval(node.value))
    except (SyntaxError, ValueError, TypeError):
        return ()  # told when the file is run
    return ()


def replaced(folder: Path) -> tuple[str, ...]:
    """Files that are there beside the one that stands for them, in order.

    ``squash`` was interrupted, or a merge brought them back.
    """
    files = names_in(folder)
    old = {one for name in files for one in replaces(folder / f"{name}.py")}
    return tuple(name for name in files if name in old)


def problems(done: Sequence[str], folder: Path) -> list[str]:
    """Where a history and the folder do not fit together.

    A squashed file of which only a part was applied, an applied file that is missing, a pending
    one that sorts before applied ones.
    """
    squashed = _squash_problems(done, folder)
    if squashed:
        return squashed
    files = names_in(folder)
    last = max(done, default="")
    return missing(done, folder) + [
        _late(name, last, files) for name in files if name not in done and name < last
    ]


def missing(done: Sequence[str], folder: Path) -> list[str]:
    """Applied files that are not there, each as a sentence."""
    files = names_in(folder)
    return [
        f"{name} is applied, and its file is missing from {folder}/."
        for name in done
        if name not in files
    ]


def _squash_problems(done: Sequence[str], folder: Path) -> list[str]:
    both = replaced(folder)
    if both:
        return [
            f"{both[0]} is there beside the squashed file that replaces it: run orm-core migrate "
            "squash to finish what was interrupted."
        ]
    return [one for name in names_in(folder) for one in _partly_applied(name, done, folder)]


def _partly_applied(name: str, done: Sequence[str], folder: Path) -> Iterator[str]:
    old = replaces(folder / f"{name}.py")
    lacking = [one for one in old if one not in done]
    if name not in done and 0 < len(lacking) < len(old):
        yield (
            f"{name} replaces files of which {lacking[0]} was never applied here: apply the "
            "files of the release before it first."
        )


def _late(name: str, last: str, files: Sequence[str]) -> str:
    number = int(files[-1][:3]) + 1
    way_out = (
        f"rename it to {number:03}{name[3:]}.py and run orm-core migrate sum"
        if number <= MAX_NUMBER
        else "squash the history first, as numbers end there"
    )
    return (
        f"{name} is pending and sorts before {last}, which is applied: give it a later number "
        f"({way_out})."
    )


def refuse_misfit(database: peewee.Database, folder: Path) -> None:
    """Raise ``MigrationError`` when the files do not fit each other or the database's history."""
    found = problems(known(database, folder), folder) or conflicts(folder)
    if found:
        raise MigrationError(" ".join(found))


def adopt(database: peewee.Database, folder: Path) -> None:
    """Note a squashed file as applied where all files that it replaces were.

    Raises ``MigrationError`` where only some of them were.
    """
    done = applied(database)
    found = _squash_problems(done, folder)
    if found:
        raise MigrationError(" ".join(found))
    for name in names_in(folder):
        old = replaces(folder / f"{name}.py")
        if not old or name in done or not set(old) <= set(done):
            continue
        *others, last = sorted(old, key=done.index)
        with database.atomic():
            sql = f'UPDATE "{HISTORY}" SET name = %s WHERE name = %s'
            database.execute_sql(sql, (name, last))
            database.execute_sql(f'DELETE FROM "{HISTORY}" WHERE name = ANY(%s)', (others,))
