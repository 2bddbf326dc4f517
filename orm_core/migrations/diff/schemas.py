"""Schemas that come and go."""

from __future__ import annotations

from orm_core.migrations.diff.change import Change
from orm_core.migrations.diff.steps import Phase
from orm_core.migrations.names import quote


def compare(change: Change) -> None:
    """Make the new ones first, drop the old ones last."""
    for schema in sorted(change.new.schemas - change.old.schemas):
        change.add(Phase.SCHEMAS, f"CREATE SCHEMA {quote(schema)}")
    for schema in sorted(change.old.schemas - change.new.schemas):
        change.add(Phase.DROP_SCHEMAS, f"DROP SCHEMA {quote(schema)}")
