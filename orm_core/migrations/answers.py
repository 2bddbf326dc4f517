"""What the author says of changes that a comparison can't tell; renames are never guessed.

``orders:purchases`` renames a table, ``users.mail:email`` a column, ``session_status.open:active``
a label of an enum, ``users_mail_idx:users_email_idx`` an index or a constraint,
``notes:archive.notes`` moves a table to another schema. A schema may stand before:
``billing.users.mail:email``. The new side may repeat what stands before the name. Columns and
labels may be told of by the old or the new name of their table or type. Names that change places
are two renames: ``a:b`` and ``b:a``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from orm_core.errors import MigrationError
from orm_core.migrations import renames
from orm_core.migrations.catalog import Catalog
from orm_core.migrations.names import Name, spellings
from orm_core.migrations.renames import Rename

N = TypeVar("N", str, Name)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the author says of changes that a comparison can't tell.

    ``renames``: see above. ``drops``: names (``orders``, ``users.mail``, ``session_status.open``)
    that may go, or True for all. ``fills``: SQL for rows that are there when a column becomes NOT
    NULL, by ``table.column``. ``safe``: see ``orm_core.migrations.staging`` and ``expand``.
    """

    renames: Sequence[str] = ()
    drops: Iterable[str] | bool = ()
    fills: Mapping[str, str] = field(default_factory=dict[str, str])
    safe: bool = False

    def allow(self, name: str) -> bool:
        """Whether this may be dropped; ``public.`` goes without saying."""
        if isinstance(self.drops, bool):
            return self.drops
        return name in {drop.removeprefix("public.") for drop in self.drops}


@dataclass(slots=True)
class Renames:
    """Finds what the author's answers mean, while the schema changes under them."""

    answers: Sequence[str]
    goal: Catalog
    #: what tables and types were called, by what they are called now
    former: dict[Name, list[Name]] = field(default_factory=dict[Name, list[Name]])
    #: what makes room for another, by what it is called meanwhile
    _aside: dict[str, str] = field(init=False, default_factory=dict[str, str])
    _left: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._left = [answer.strip() for answer in self.answers]

    def next(self, current: Catalog) -> Rename | None:
        """The next rename to make; tables and types go first. None when all are made.

        Names that change places take one rename more, which makes room for the first. Raises
        ``MigrationError`` when an answer fits nothing.
        """
        for room in (False, True):
            for meanings in (self._of_wholes, self._of_parts):
                known = dict(meanings(current, room))
                for answer in self._left:
                    if answer in known:
                        if not room:
                            self._left.remove(answer)
                        return self._made(known[answer])
        if self._left:
            raise MigrationError(
                f"The rename {self._left[0]!r} fits nothing: the old name must be in the "
                "migrations and not in the models, the new one the other way round. Forms: "
                "table:new, table:schema.new, table.column:new, enum.label:new, index:new."
            )
        return None

    def _made(self, rename: Rename) -> Rename:
        if rename.names:
            old, new = rename.names
            self.former[new] = [*self.former.pop(old, []), old]
        words = rename.words
        for meanwhile, name in self._aside.items():
            words = words.replace(meanwhile, name)
        return replace(rename, words=words)

    def _of_wholes(self, current: Catalog, room: bool) -> Iterator[tuple[str, Rename]]:
        """Renames of tables and types, by the answers that mean them."""
        for old, new in self._pairs(current.tables, self.goal.tables, room, _last):
            rename = renames.table(old, new, current)
            if room:
                rename = self._room(partial(renames.table, new, current=current), new)
            for before in self._spellings(old, current.tables):
                for after in (".".join(new), *([new[1]] if new[0] == old[0] else [])):
                    yield f"{before}:{after}", rename
        for old, new in self._pairs(current.enums, self.goal.enums, room, _last):
            if old[0] == new[0]:
                rename = renames.enum(old, new)
                if room:
                    rename = self._room(partial(renames.enum, new), new)
                for before in self._spellings(old, current.enums):
                    for after in (".".join(new), new[1]):
                        yield f"{before}:{after}", rename

    def _of_parts(self, current: Catalog, room: bool) -> Iterator[tuple[str, Rename]]:
        """Renames of columns, indexes, constraints and labels, by the answers that mean them."""
        for name, table in current.tables.items():
            kept = self.goal.tables.get(name)
            if kept is None:
                continue
            owners = self._spellings(name, current.tables)
            inside = ["", name[0], *owners]
            for make, spoken, before, after in (
                (renames.column, owners, table.columns, kept.columns),
                (renames.index, inside, table.indexes, kept.indexes),
                (renames.constraint, inside, table.constraints, kept.constraints),
            ):
                yield from self._meanings(make, name, spoken, before, after, room)
        for name, enum in current.enums.items():
            goal = self.goal.enums.get(name)
            if goal is not None:
                owners = self._spellings(name, current.enums)
                yield from self._meanings(
                    renames.label, name, owners, enum.labels, goal.labels, room
                )

    def _meanings(
        self,
        make: Callable[[Name, str, str], Rename],
        owner: Name,
        spoken: Iterable[str],
        before: Iterable[str],
        after: Iterable[str],
        room: bool,
    ) -> Iterator[tuple[str, Rename]]:
        prefixes = [f"{one}." if one else "" for one in spoken]
        for old, new in self._pairs(before, after, room, str):
            rename = make(owner, old, new)
            if room:
                meanwhile = renames.aside(new)
                self._aside[meanwhile] = new
                rename = replace(make(owner, new, meanwhile), words="", column=None)
            for prefix in prefixes:
                for again in {"", *prefixes}:
                    yield f"{prefix}{self._aside.get(old, old)}:{again}{new}", rename

    def _room(self, make: Callable[[Name], Rename], name: Name) -> Rename:
        """A table or a type makes room."""
        meanwhile = renames.aside(name[1])
        self._aside[meanwhile] = name[1]
        return replace(make((name[0], meanwhile)), words="")

    def _pairs(
        self, old: Iterable[N], new: Iterable[N], room: bool, last: Callable[[N], str]
    ) -> Iterator[tuple[N, N]]:
        """What went, or makes room for another that is renamed to it, with what came.

        With ``room`` what came has its name already from another, which is to be renamed too.
        """
        before, after = list(old), list(new)
        for one in before:
            if one in after and not self._is_taken(last(one)):
                continue
            for other in after:
                comes = (other in before) == room and other != one
                if comes and (not room or self._leaves(last(other))):
                    yield one, other

    def _is_taken(self, name: str) -> bool:
        return any(answer.endswith((f":{name}", f".{name}")) for answer in self._left)

    def _leaves(self, name: str) -> bool:
        return any(answer.startswith(f"{name}:") or f".{name}:" in answer for answer in self._left)

    def _spellings(self, name: Name, names: Mapping[Name, object]) -> list[str]:
        all_names = [name, *self.former.get(name, [])]
        return [spelling for one in all_names for spelling in spellings(one, names)]


def _last(name: Name) -> str:
    return name[1]
