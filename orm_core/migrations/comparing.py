"""Whether schemas agree: the files' with the models', a live database's with its files'."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orm_core.database.database import Database
from orm_core.errors import MigrationError
from orm_core.migrations import catalog, history, runner
from orm_core.migrations.catalog import Catalog
from orm_core.migrations.diff import diff
from orm_core.migrations.files import names_in
from orm_core.migrations.goal import goal
from orm_core.migrations.scratch import ScratchServer
from orm_core.migrations.words import differences


@dataclass(frozen=True, slots=True)
class Drift:
    """How a live database differs from its files: in words, and as SQL that would mend it."""

    differences: tuple[str, ...]
    sql: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.differences)


def models_ahead(database: Database | None, models: Sequence[Any], folder: Path) -> list[str]:
    """How the models differ from what the files make; nothing when they agree."""
    with ScratchServer(database) as server, server.database() as files:
        names = names_in(folder)
        if names:
            runner.replay(files, folder, names)
        made = catalog.read(files)
        wanted = goal(server, files, made, models)
    if made == wanted:
        return []
    words = "; ".join(differences(made, wanted))
    return [f"The models are ahead of the files ({words}): run orm-core migrate generate."]


def drift(database: Database, folder: Path) -> Drift:
    """How the database differs from what its applied files make.

    Raises ``MigrationError`` when one of them is missing.
    """
    live = catalog.read(database)
    applied = history.known(database, folder)
    missing = history.missing(applied, folder)
    if missing:
        raise MigrationError(" ".join(missing))
    with ScratchServer(database) as server:
        wanted = _made_by_files(server, folder, applied)
    if live == wanted:
        return Drift((), ())
    steps = diff(live, wanted, cast_exists=partial(_casts, database))
    return Drift(tuple(differences(live, wanted)), tuple(step.sql for step in steps))


def _casts(database: Database, old: str, new: str) -> bool:
    """Whether the live database knows a cast; of a type that only the files make, it can't."""
    sql = """
        SELECT EXISTS (SELECT FROM pg_cast WHERE castsource = to_regtype(%s)
                       AND casttarget = to_regtype(%s))
    """
    return bool(database.execute_sql(sql, (old, new)).fetchone()[0])


def _made_by_files(server: ScratchServer, folder: Path, names: Iterable[str]) -> Catalog:
    with server.database() as scratch:
        chosen = list(names)
        if chosen:
            runner.replay(scratch, folder, chosen)
        return catalog.read(scratch)
