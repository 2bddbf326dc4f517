"""What a migration does to a database in use, as a plan tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: lock modes from weak to strong
MODES: Final = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
#: the weakest lock under which nobody else can write
STOPS_WRITES: Final = MODES.index("ShareLock")


@dataclass(frozen=True, slots=True)
class Effect:
    """What one statement did on the scratch copy.

    ``locks`` are the strongest ones it took on tables that were there before; ``rewrites`` are
    tables written anew; ``dangers`` say what would hurt and how to do it better; ``reads`` are
    tables of which all rows are read under a lock that stops writes; ``loses`` are tables and
    columns that are gone, or whose rows are; ``renames`` are names that are gone. ``tables`` are
    the tables locked, by the names that they have in the database now.
    """

    sql: str
    locks: tuple[tuple[str, str], ...] = ()
    rewrites: tuple[str, ...] = ()
    dangers: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()
    renames: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileReport:
    """The effects of one file, and whether its rollback brings the schema back."""

    name: str
    effects: tuple[Effect, ...]
    reversible: bool

    @property
    def dangers(self) -> tuple[str, ...]:
        """All dangers of the file."""
        return tuple(danger for effect in self.effects for danger in effect.dangers)

    @property
    def loses(self) -> tuple[str, ...]:
        """All that is gone after the file."""
        return tuple(one for effect in self.effects for one in effect.loses)
