"""Migration files: their names, their numbers and their text.

A file is plain peewee-migrate: ``migrate`` and ``rollback`` that call ``migrator.sql``. It
imports nothing of orm_core, so a stock Router applies it. The driver formats the SQL, hence
``%%`` for a percent sign.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent, wrap
from typing import Final

from orm_core.errors import MigrationError
from orm_core.migrations.staging import index_name

#: peewee-migrate numbers files with three digits
MAX_NUMBER: Final = 999
#: how long a statement waits for a lock before the file gives up, rather than stop all others
LOCK_TIMEOUT: Final = "5s"
_NAME = re.compile(r"(\d{3})_([^.]+)")
_SLUG = re.compile(r"[^a-z0-9]+")
_QUOTED = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")
_FOLDS = re.compile(r" (ADD CONSTRAINT|FOREIGN KEY|REFERENCES|WHERE|USING|CHECK|FOR EACH|EXECUTE) ")


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """One file to be written: its name without ``.py``, what it does, and both directions."""

    name: str
    summary: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    #: one CREATE INDEX CONCURRENTLY, which can't run inside a transaction
    concurrent: bool = False
    #: the whole text of a file that does more than send statements
    source: str | None = None

    def text(self) -> str:
        """The file's source."""
        if self.source is not None:
            return self.source
        title = "\n".join(wrap(self.summary, 96))
        if '"' in title or "\\" in title:
            title = title.replace("\\", "\\\\").replace('"', '\\"')
        end = "\n" if "\n" in title else ""
        up = _concurrently(self.up[0]) if self.concurrent else _function("migrate", self.up)
        return f'"""{title}{end}"""\n\n\n{up}\n\n{_function("rollback", self.down)}'

    def write(self, folder: Path) -> Path:
        """Write it to the folder. Raises ``MigrationError`` when it is there already."""
        path = folder / f"{self.name}.py"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(self.text())
        except FileExistsError:
            raise MigrationError(f"{path} exists already; nothing was overwritten.") from None
        return path


_TEMPLATE: Final = '''"""{words}"""


def migrate(migrator, database, *, fake=False):
    migrator.sql("SET LOCAL lock_timeout = '{timeout}'")
    # migrator.sql("UPDATE users SET nick = first_name WHERE nick IS NULL")
    # Write %% for a percent sign. A change of many rows is done in batches, see docs/migrations.md.


def rollback(migrator, database, *, fake=False):
    migrator.sql("SET LOCAL lock_timeout = '{timeout}'")
'''


def write_template(folder: Path, words: str) -> Path:
    """Write a file with the next number, to be filled by hand. Raises ``MigrationError``."""
    path = folder / f"{file_name(next_number(folder), words)}.py"
    text = _TEMPLATE.format(words=words.replace('"', "'"), timeout=LOCK_TIMEOUT)
    path.write_text(text, encoding="utf-8")
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees a part of it, whatever is interrupted."""
    aside = path.with_name(f".{path.name}.new")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def names_in(folder: Path) -> list[str]:
    """The migrations of a folder in their order, as a Router sees them."""
    if not folder.is_dir():
        return []
    return sorted(path.stem for path in folder.iterdir() if _is_migration(path))


def _is_migration(path: Path) -> bool:
    return path.suffix == ".py" and _NAME.fullmatch(path.stem) is not None


def next_number(folder: Path) -> int:
    """The number of the next file. Raises ``MigrationError`` past 999."""
    names = names_in(folder)
    number = int(names[-1][:3]) + 1 if names else 1
    if number > MAX_NUMBER:
        raise MigrationError(
            f"Migration numbers end at {MAX_NUMBER}, a limit of peewee-migrate: squash the "
            "history first."
        )
    return number


def file_name(number: int, words: str) -> str:
    """``3, "Add notes"`` -> ``003_add_notes``. Raises ``MigrationError`` past 999."""
    if number > MAX_NUMBER:
        raise MigrationError(f"Migration numbers end at {MAX_NUMBER}: squash the history first.")
    slug = _SLUG.sub("_", words.lower()).strip("_")[:60].strip("_")
    if not slug:
        raise MigrationError("A migration's name needs letters or digits.")
    return f"{number:03}_{slug}"


def _function(name: str, statements: Iterable[str]) -> str:
    lines = [f"def {name}(migrator, database, *, fake=False):"]
    body: Sequence[str] = [f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'", *statements]
    lines += [f"    migrator.sql({_literal(statement)})" for statement in body]
    return "\n".join(lines) + "\n"


def _concurrently(create: str) -> str:
    drop = f"DROP INDEX CONCURRENTLY IF EXISTS {index_name(create)}"
    return f"""def migrate(migrator, database, *, fake=False):
    if fake:
        return
    database.commit()  # CONCURRENTLY can't run inside a transaction
    # What an interrupted attempt left is no use.
    database.execute_sql({_literal(drop)})
    database.execute_sql({_literal(create)})
    database.begin()
"""


def _literal(sql: str) -> str:
    """A Python literal of the statement as the driver wants it, pleasant to read."""
    sql = sql.replace("%", "%%")
    pieces = _QUOTED.split(sql)  # odd ones are texts and quoted names
    printable = all(char.isprintable() or char == "\n" for char in sql)
    if '"""' in sql or not printable or any("\n" in one for one in pieces[1::2]):
        return _lines(pieces)
    if "\n" not in sql and len(sql) <= 80 and "\\" not in sql:
        if '"' not in sql:
            return f'"{sql}"'
        if not sql.endswith('"'):
            return f'"""{sql}"""'
    prefix = "r" if "\\" in sql else ""
    if "\n" in sql and "$function$" in sql:
        return f'{prefix}"""\n{sql}\n    """'  # indented, the body would be another
    folded = sql if "\n" in sql else _folded(pieces)
    return f'{prefix}"""\n{indent(folded, "        ")}\n    """'


def _lines(pieces: list[str]) -> str:
    """A literal for each line; what stands in quotes can't be indented."""
    lines = [""]
    for place, piece in enumerate(pieces):
        first, *more = [piece] if place % 2 else piece.split("\n")
        lines[-1] += first
        for line in more:
            lines[-1] += "\n"
            lines.append(line)
    if len(lines) == 1:
        return repr(lines[0])
    return "(\n" + "".join(f"        {line!r}\n" for line in lines) + "    )"


def _folded(pieces: list[str]) -> str:
    """A long statement over several lines, broken where no text is."""
    if any("$" in one or "\\" in one for one in pieces):
        return "".join(pieces)  # an author's SQL may have texts of other kinds
    folded = [
        piece if place % 2 else _FOLDS.sub(r"\n    \1 ", piece)
        for place, piece in enumerate(pieces)
    ]
    return "".join(folded)
