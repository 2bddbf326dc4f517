"""A step of a migration, and when it is taken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto


class Phase(IntEnum):
    """When a statement runs, among the others."""

    SCHEMAS = auto()
    ENUM_VALUES = auto()
    DROP_DEPENDENTS = auto()
    UNLINK = auto()
    LOOSEN = auto()
    DROP_GENERATED = auto()
    DROP_TABLES = auto()
    TYPES = auto()
    SEQUENCES = auto()
    FUNCTIONS = auto()
    TABLES = auto()
    COLUMNS = auto()
    DROP_COLUMNS = auto()  # after COLUMNS, whose fills may read them
    GENERATED = auto()
    TIGHTEN = auto()
    LINK = auto()
    COMMENTS = auto()
    DEPENDENTS = auto()
    TRIGGERS = auto()
    NO_ROW_SECURITY = auto()
    ROW_SECURITY = auto()
    POLICIES = auto()
    DROP_TYPES = auto()
    DROP_SCHEMAS = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """One statement; ``loses`` says which data is gone after it, if any is."""

    phase: Phase
    sql: str
    loses: str | None = None
