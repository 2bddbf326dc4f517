"""Triggers that the models ask for, with their functions."""

from __future__ import annotations

from orm_core.migrations.catalog import Table
from orm_core.migrations.diff.change import Change
from orm_core.migrations.diff.steps import Phase
from orm_core.migrations.names import qualified, quote


def compare(change: Change) -> None:
    """Functions before the triggers that call them, and gone after these."""
    for name, function in change.new.functions.items():
        before = change.old.functions.get(name)
        if before is None or before.definition != function.definition:
            change.add(Phase.FUNCTIONS, function.definition.strip())
        if not function.is_public and (before is None or before.is_public):
            revoke = f"REVOKE ALL ON FUNCTION {qualified(name)}() FROM PUBLIC"
            change.add(Phase.FUNCTIONS, revoke)
        elif function.is_public and before is not None and not before.is_public:
            change.add(Phase.FUNCTIONS, f"GRANT EXECUTE ON FUNCTION {qualified(name)}() TO PUBLIC")
    for name in change.old.functions.keys() - change.new.functions.keys():
        change.add(Phase.DROP_TYPES, f"DROP FUNCTION {qualified(name)}()")
    for name, table in change.new.tables.items():
        _of_table(change, change.old.tables.get(name, Table(name)), table)


def _of_table(change: Change, old: Table, new: Table) -> None:
    """Made last, so that they have the columns that they name."""
    on = qualified(new.name)
    for name, trigger in old.triggers.items():
        if new.triggers.get(name) != trigger:
            change.add(Phase.DROP_DEPENDENTS, f"DROP TRIGGER {quote(name)} ON {on}")
    for name, trigger in new.triggers.items():
        if old.triggers.get(name) != trigger:
            change.add(Phase.TRIGGERS, trigger.definition)
            if trigger.enabled != "O":
                change.add(Phase.TRIGGERS, f"ALTER TABLE {on} {_ENABLED[trigger.enabled]} {name}")


#: tgenabled of pg_trigger in words
_ENABLED = {"D": "DISABLE TRIGGER", "R": "ENABLE REPLICA TRIGGER", "A": "ENABLE ALWAYS TRIGGER"}
