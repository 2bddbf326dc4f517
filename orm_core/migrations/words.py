"""Schema changes in words, for file headers and messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orm_core.migrations.catalog import Catalog, Function, Table
from orm_core.migrations.names import Name


def summary(old: Catalog, new: Catalog) -> str:
    """What a migration does, as one line: ``creates notes; adds users.nick``."""
    return "; ".join(_changes(old, new))


def differences(found: Catalog, wanted: Catalog) -> list[str]:
    """What would have to change for one schema to be the other, in words."""
    return list(_changes(found, wanted)) or ["the order or the spelling of something"]


def _changes(old: Catalog, new: Catalog) -> Iterator[str]:
    yield from _named("creates schema", new.schemas - old.schemas)
    created = [name[1] for name in new.tables if name not in old.tables]
    dropped = [name[1] for name in old.tables if name not in new.tables]
    yield from _named("creates", created)
    yield from _named("drops", dropped)
    for name, table in new.tables.items():
        if name in old.tables and old.tables[name] != table:
            yield from _table(old.tables[name], table)
    for name, enum in new.enums.items():
        before = old.enums.get(name)
        if before is None:
            yield f"creates type {name[1]}"
        elif before != enum:
            yield f"changes the labels of {name[1]}"
    yield from _named("drops type", [name[1] for name in old.enums if name not in new.enums])
    sequences = set(old.sequences.items()) ^ set(new.sequences.items())
    yield from _named("changes sequence", {name[1] for name, _ in sequences})
    yield from _members("", "function ", _by_word(old.functions), _by_word(new.functions))
    yield from _named("drops schema", old.schemas - new.schemas)


def _named(what: str, names: Iterable[str]) -> Iterator[str]:
    listed = ", ".join(sorted(names))
    if listed:
        yield f"{what} {listed}"


def _by_word(functions: Mapping[Name, Function]) -> dict[str, Function]:
    return {name[1]: one for name, one in functions.items()}


def _table(old: Table, new: Table) -> Iterator[str]:
    name = new.name[1]
    for kind, before, after in (
        ("", old.columns, new.columns),
        ("constraint ", old.constraints, new.constraints),
        ("index ", old.indexes, new.indexes),
        (f"trigger {name}.", old.triggers, new.triggers),
        (f"policy {name}.", old.row_security.policies, new.row_security.policies),
    ):
        yield from _members(name, kind, before, after)
    if old.row_security.enabled != new.row_security.enabled:
        yield f"turns row security of {name} {'on' if new.row_security.enabled else 'off'}"
    if old.row_security.forced != new.row_security.forced:
        yield f"{'binds' if new.row_security.forced else 'frees'} the owner of {name}"
    if old.comment != new.comment:
        yield f"comments on {name}"
    if old.options != new.options:
        yield f"changes the settings of {name}"


def _members(table: str, kind: str, old: Any, new: Any) -> Iterator[str]:
    def path(name: str) -> str:
        return f"{kind}{name}" if kind else f"{table}.{name}"

    yield from (f"drops {path(name)}" for name in old if name not in new)
    yield from (f"adds {path(name)}" for name in new if name not in old)
    yield from (f"changes {path(name)}" for name in new if name in old and old[name] != new[name])
