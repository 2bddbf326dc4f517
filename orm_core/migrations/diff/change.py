"""What changes between two catalogs, and what must be made again because of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from orm_core.migrations.catalog import Catalog, Column, Constraint, Enum, Index, Table
from orm_core.migrations.diff.references import Reference, reference
from orm_core.migrations.diff.steps import Phase, Step
from orm_core.migrations.diff.types import base, family, is_extension, uses
from orm_core.migrations.names import Name, body, identifiers, qualified, spellings

#: asks whether a cast from one type to another exists: (from, to)
CastExists: TypeAlias = Callable[[str, str], bool]
#: a column of a table
Path: TypeAlias = tuple[Name, str]


@dataclass
class Change:
    """From ``old`` to ``new``, and the steps found so far."""

    old: Catalog
    new: Catalog
    cast_exists: CastExists
    fills: Mapping[str, str]
    add_labels: bool
    steps: list[Step] = field(default_factory=list[Step])
    #: sequences that are seen to with their columns
    counted: set[Name] = field(default_factory=set[Name])

    def add(self, phase: Phase, sql: str, loses: str | None = None) -> None:
        """Take a step."""
        self.steps.append(Step(phase, sql, loses))

    def fill(self, table: Table, column: str) -> str | None:
        """The author's SQL for the rows that are there."""
        keys = (f"{name}.{column}" for name in spellings(table.name, self.new.tables))
        return next((self.fills[key] for key in keys if key in self.fills), None)

    # -- enums and types --------------------------------------------------------------------

    @cached_property
    def replaced(self) -> list[Enum]:
        """Enums that lose labels or change their order, which PostgreSQL can't alter."""
        return [
            enum
            for name, enum in self.new.enums.items()
            if name in self.old.enums
            and self.old.enums[name].labels != enum.labels
            and not self.can_add(self.old.enums[name], enum)
        ]

    def can_add(self, before: Enum, enum: Enum) -> bool:
        """Whether the enum only gains labels, which ADD VALUE may add."""
        return self.add_labels and is_extension(before.labels, enum.labels)

    def uses_replaced(self, definition: str) -> bool:
        """Whether a type or an expression names an enum that is made anew."""
        return any(uses(definition, enum) for enum in self.replaced)

    def type_changes(self, old: Column, new: Column) -> bool:
        """Whether the column's values must be converted."""
        if (old.type, old.collation) != (new.type, new.collation):
            return True
        return self.uses_replaced(new.type)

    # -- columns ----------------------------------------------------------------------------

    def _kept_columns(self) -> Iterable[tuple[Name, Column, Column]]:
        for name, table in self.new.tables.items():
            before = self.old.tables.get(name)
            for column in table.columns.values() if before else ():
                old = before.columns.get(column.name) if before else None
                if old is not None:
                    yield name, old, column

    @cached_property
    def retyped(self) -> dict[Path, tuple[str, str]]:
        """Columns that change their type, with the types."""
        return {
            (name, new.name): (
                old.type,
                "another enum" if self.uses_replaced(new.type) else new.type,
            )
            for name, old, new in self._kept_columns()
            if self.type_changes(old, new)
        }

    @cached_property
    def regenerated(self) -> set[Path]:
        """Generated columns that must be made again."""
        return {
            (name, new.name)
            for name, old, new in self._kept_columns()
            if new.generated is not None
            and (
                old.generated != new.generated
                or (name, new.name) in self.retyped
                or any((name, one) in self.retyped for one in identifiers(new.generated))
                or self.uses_replaced(new.generated)
            )
        }

    # -- constraints and indexes ------------------------------------------------------------

    @cached_property
    def remade(self) -> set[tuple[Name, str]]:
        """Constraints and indexes that go and come back, as something below them changes."""
        found: set[tuple[Name, str]] = set()
        for name, table in self.old.tables.items():
            members: list[Constraint | Index] = [*table.constraints.values()]
            members += table.indexes.values()
            found |= {
                (name, one.name)
                for one in members
                if reference(one) is None and self._leans_on_change(name, one)
            }
        links = [
            (name, one.name, link)
            for name, table in self.old.tables.items()
            for one in table.constraints.values()
            if (link := reference(one)) is not None
        ]
        return found | {
            (name, one)
            for name, one, link in links
            if not self._keeps_target(link, found) or self._changes_type(name, link)
        }

    def differs(
        self, table: Name, one: Constraint | Index, other: Constraint | Index | None
    ) -> bool:
        """Whether a constraint or an index can't stay as it is."""
        return _changed(one, other) or (table, one.name) in self.remade

    def _leans_on_change(self, table: Name, one: Constraint | Index) -> bool:
        sql = body(one.definition, table)
        if self.uses_replaced(sql):
            return True
        for column in identifiers(sql):
            types = self.retyped.get((table, column))
            # Within a family PostgreSQL makes it again by itself, but for constants with a type.
            if types and (family(types[0]) != family(types[1]) or "'" in sql):
                return True
            if (table, column) in self.regenerated:
                return True
        return False

    def _keeps_target(self, link: Reference, remade: set[tuple[Name, str]]) -> bool:
        """Whether the unique index or key that a reference stands on stays as it is."""
        target = next((name for name in self.new.tables if qualified(name) == link.table), None)
        before = self.old.tables.get(target) if target else None
        if target is None or before is None:
            return False
        after = self.new.tables[target]
        keys: list[tuple[str, Constraint | Index, Constraint | Index | None]] = [
            (one.definition, one, after.constraints.get(one.name))
            for one in before.constraints.values()
            if one.kind in "pu"
        ]
        keys += [
            (body(one.definition, target), one, after.indexes.get(one.name))
            for one in before.indexes.values()
            if one.definition.startswith("CREATE UNIQUE ")
        ]
        return not any(
            _changed(one, other) or (target, one.name) in remade
            for sql, one, other in keys
            if link.columns == identifiers(sql.partition("(")[2].partition(")")[0])
        )

    def _changes_type(self, table: Name, link: Reference) -> bool:
        touched = [(table, column) for column in link.own]
        touched += [
            (name, column)
            for name in self.old.tables
            if qualified(name) == link.table
            for column in link.columns
        ]
        types = [self.retyped[one] for one in touched if one in self.retyped]
        return any(base(old) != base(new) for old, new in types)


def _changed(one: Constraint | Index, other: Constraint | Index | None) -> bool:
    return other is None or one.definition != other.definition
