"""Views and triggers written by hand that lean on columns which change.

PostgreSQL alters no column that a view reads: the view goes, and comes back as it was.
"""

from __future__ import annotations

from orm_core.migrations.dependents import Dependent
from orm_core.migrations.diff.change import Change
from orm_core.migrations.diff.steps import Phase


def compare(change: Change) -> None:
    """Drop what stands in the way, and make it again at the end."""
    touched = change.retyped.keys() | change.regenerated
    moved: list[Dependent] = []
    for one in change.old.dependents:
        if one.uses & touched or any(one.leans_on(other) for other in moved):
            moved.append(one)
    for one in reversed(moved):
        change.add(Phase.DROP_DEPENDENTS, one.drop)
    for one in moved:
        for sql in one.create:
            change.add(Phase.DEPENDENTS, sql)
