"""Row security: policies, and whether tables heed them.

Between two statements fewer rows are seen, never more: a policy comes after row security and goes
before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from orm_core.migrations.catalog import Table
from orm_core.migrations.diff.change import Change
from orm_core.migrations.diff.steps import Phase
from orm_core.migrations.names import identifiers, qualified, quote
from orm_core.migrations.row_security import Policy

_COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}


def compare(change: Change) -> None:
    """Row security and policies of all tables."""
    gone = set(_gone(change))
    for name, new in change.new.tables.items():
        old = change.old.tables.get(name, Table(name))
        _switch(change, old, new)
        known, wanted = old.row_security.policies, new.row_security.policies
        for policy in known.values():
            if not _stays(policy, wanted.get(policy.name), gone):
                drop = f"DROP POLICY {quote(policy.name)} ON {qualified(name)}"
                change.add(Phase.DROP_DEPENDENTS, drop)
        for policy in wanted.values():
            before = known.get(policy.name)
            if before is None or not _stays(before, policy, gone):
                change.add(Phase.POLICIES, _create(policy, new))
            elif before != policy:
                change.add(Phase.POLICIES, _alter(policy, new))


def _gone(change: Change) -> Iterator[str]:
    """Words that stand for what goes or is made again, which a policy may not name meanwhile."""
    for name, table in change.old.tables.items():
        after = change.new.tables.get(name)
        if after is None:
            yield name[1]
        yield from (one for one in table.columns if after is None or one not in after.columns)
    yield from (column for _, column in (*change.retyped, *change.regenerated))
    yield from (name[1] for name in change.old.enums if name not in change.new.enums)
    yield from (enum.name[1] for enum in change.replaced)


def _stays(old: Policy, new: Policy | None, gone: set[str]) -> bool:
    """Whether ALTER POLICY, if anything, leads from one to the other."""
    if new is None or (old.command, old.permissive) != (new.command, new.permissive):
        return False
    if (old.using is None, old.check is None) != (new.using is None, new.check is None):
        return False
    return not gone & identifiers(f"{old.using} {old.check}")


def _switch(change: Change, old: Table, new: Table) -> None:
    for word, before, after in (
        ("ENABLE", old.row_security.enabled, new.row_security.enabled),
        ("FORCE", old.row_security.forced, new.row_security.forced),
    ):
        if before == after:
            continue
        off = "DISABLE" if word == "ENABLE" else "NO FORCE"
        phase = Phase.ROW_SECURITY if after else Phase.NO_ROW_SECURITY
        action = f"{word if after else off} ROW LEVEL SECURITY"
        change.add(phase, f"ALTER TABLE {qualified(new.name)} {action}")


def _create(policy: Policy, table: Table) -> str:
    kind = "PERMISSIVE" if policy.permissive else "RESTRICTIVE"
    command = _COMMANDS[policy.command]
    head = f"CREATE POLICY {quote(policy.name)} ON {qualified(table.name)} AS {kind} FOR {command}"
    return f"{head} {_terms(policy)}"


def _alter(policy: Policy, table: Table) -> str:
    return f"ALTER POLICY {quote(policy.name)} ON {qualified(table.name)} {_terms(policy)}"


def _terms(policy: Policy) -> str:
    roles = ", ".join("PUBLIC" if one == "public" else quote(one) for one in policy.roles)
    using = "" if policy.using is None else f" USING ({policy.using})"
    check = "" if policy.check is None else f" WITH CHECK ({policy.check})"
    return f"TO {roles}{using}{check}"
