"""Migrations written by comparing what the files make with what the models say.

Two scratch databases: the folder's files are applied to one by the stock Router, the models'
tables are created in the other, and PostgreSQL's own catalogs of both are compared. The live
database is never read. What comes out is proved on the first scratch database before it is
written: applied, it gives the models' schema; rolled back, the earlier one; and it can be applied
again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orm_core.database.database import Database
from orm_core.migrations import catalog, runner
from orm_core.migrations.answers import Answers
from orm_core.migrations.bound_names import BoundNames
from orm_core.migrations.drafts import CONCURRENTLY, Author, Draft
from orm_core.migrations.files import MigrationFile, file_name, names_in, next_number
from orm_core.migrations.goal import goal
from orm_core.migrations.proof import prove
from orm_core.migrations.scratch import ScratchServer
from orm_core.migrations.staging import index_name


@dataclass(frozen=True, slots=True)
class Proposal:
    """Files that were proved and are not written yet, and what they lose."""

    files: tuple[MigrationFile, ...]
    losses: tuple[str, ...]


def propose(
    given: Database | None,
    models: Sequence[Any],
    owners: Mapping[str, str],
    folder: Path,
    name: str | None = None,
    answers: Answers | None = None,
) -> Proposal | None:
    """What would bring the files up to the models, proved; None when nothing changed.

    ``owners`` tells the domain of each table. Raises ``MigrationError`` for an open question
    (a rename or a loss that nobody answered) and for files that fail their proof.
    """
    answers = answers or Answers()
    with ScratchServer(given) as server, ExitStack() as stack:
        files = stack.enter_context(server.database())
        if names_in(folder):
            runner.apply(files, folder)
        start = catalog.read(files)
        wanted = goal(server, files, start, models)
        if start == wanted:
            return None
        copy = partial(_copy, server, files)
        bound = BoundNames(models)
        author = Author(lambda: stack.enter_context(copy()), start, wanted, answers, bound)
        drafts = author.drafts()
        proposal = _files(drafts, author.losses, folder, name, owners)
        prove(files, proposal.files, start, wanted)
    return proposal


def _copy(server: ScratchServer, database: Database) -> AbstractContextManager[Database]:
    database.close_all()  # a database that is copied has no sessions
    return server.database(template=str(database.database))


def _files(
    drafts: list[Draft],
    losses: list[str],
    folder: Path,
    name: str | None,
    owners: Mapping[str, str],
) -> Proposal:
    number = next_number(folder)
    files: list[MigrationFile] = []
    for place, draft in enumerate(drafts):
        base = name or draft.title or draft.words.split(";")[0]
        if name and draft.kind:
            base = f"{name}_{draft.kind}"
        if name and draft.kind == CONCURRENTLY:
            base = f"{name}_{index_name(draft.up[0])}"
        domains = sorted(
            {owner for table, owner in owners.items() if table in _tables_of(draft.words)}
        )
        header = f"{_domains(domains)}{draft.words}"
        if losses and not draft.kind:
            header += f". Loses: {'; '.join(losses)}."
        files.append(
            MigrationFile(
                file_name(number + place, base),
                header,
                tuple(draft.up),
                tuple(draft.down),
                concurrent=draft.kind == CONCURRENTLY,
                source=draft.source,
            )
        )
    return Proposal(tuple(files), tuple(losses))


def _tables_of(words: str) -> set[str]:
    return set(re.findall(r"\w+", words))


def _domains(names: list[str]) -> str:
    if not names:
        return ""
    return f"Domain{'s' if len(names) > 1 else ''} {', '.join(names)}: "
