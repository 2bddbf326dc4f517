"""The statements that turn one catalog into another.

``diff(old, new)`` answers ``Step`` values in an order that works: what hinders goes first
(foreign keys, constraints and indexes that change), then types, tables and columns, then what
leans on them. Renames are no part of it: they are made before, so that both catalogs already
agree on names. Every name is quoted where it must be and carries its schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Any, Final

from orm_core.migrations.catalog import Catalog, Column, Constraint, Enum, Index, Name, Table
from orm_core.migrations.names import qualified, quote, text


class Phase(IntEnum):
    """When a statement runs, among the others."""

    SCHEMAS = auto()
    ENUM_VALUES = auto()
    UNLINK = auto()
    LOOSEN = auto()
    DROP_TABLES = auto()
    DROP_COLUMNS = auto()
    TYPES = auto()
    SEQUENCES = auto()
    TABLES = auto()
    COLUMNS = auto()
    TIGHTEN = auto()
    LINK = auto()
    COMMENTS = auto()
    DROP_TYPES = auto()
    DROP_SCHEMAS = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """One statement; ``loses`` says which data is gone after it, if any is."""

    phase: Phase
    sql: str
    loses: str | None = None


#: asks whether a cast from one type to another exists: (from, to)
CastExists = Callable[[str, str], bool]

_SERIAL: Final = {"smallint": "smallserial", "integer": "serial", "bigint": "bigserial"}


def diff(
    old: Catalog,
    new: Catalog,
    *,
    cast_exists: CastExists,
    fills: Mapping[str, str] | None = None,
    add_labels: bool = True,
) -> list[Step]:
    """The steps from ``old`` to ``new``, in order.

    ``add_labels=False`` makes an enum that gains labels anew, so that they can be used in the
    same transaction, which PostgreSQL forbids after ADD VALUE.

    ``fills`` maps ``table.column`` to SQL for the rows that are there when the column becomes
    NOT NULL. ``cast_exists`` is asked when a column changes its type.
    """
    differ = _Differ(old, new, cast_exists, fills or {}, add_labels)
    differ.compare()
    return sorted(differ.steps, key=lambda step: step.phase)


class _Differ:
    def __init__(
        self,
        old: Catalog,
        new: Catalog,
        cast_exists: CastExists,
        fills: Mapping[str, str],
        add_labels: bool,
    ) -> None:
        self.old, self.new = old, new
        self.add_labels = add_labels
        self.cast_exists = cast_exists
        self.fills = fills
        self.steps: list[Step] = []
        #: constraints and indexes that must go and come back, as something below them changes
        self.remade: set[tuple[Name, str]] = set()

    def add(self, phase: Phase, sql: str, loses: str | None = None) -> None:
        self.steps.append(Step(phase, sql, loses))

    def compare(self) -> None:
        self._schemas()
        self._find_remade()
        self._tables()
        self._enums()
        self._sequences()

    # -- schemas ----------------------------------------------------------------------------

    def _schemas(self) -> None:
        for schema in sorted(self.new.schemas - self.old.schemas):
            self.add(Phase.SCHEMAS, f"CREATE SCHEMA {quote(schema)}")
        for schema in sorted(self.old.schemas - self.new.schemas):
            self.add(Phase.DROP_SCHEMAS, f"DROP SCHEMA {quote(schema)}")

    # -- tables -----------------------------------------------------------------------------

    def _tables(self) -> None:
        gone = [name for name in self.old.tables if name not in self.new.tables]
        for name in gone:
            for constraint in self._links(self.old.tables[name]):
                self._drop_constraint(name, constraint)
            self.add(Phase.DROP_TABLES, f"DROP TABLE {qualified(name)}", f"table {name[1]}")
        for name, table in self.new.tables.items():
            if name in self.old.tables:
                self._alter(self.old.tables[name], table)
            else:
                self._create(table)

    @staticmethod
    def _links(table: Table) -> list[Constraint]:
        return [one for one in table.constraints.values() if one.kind == "f"]

    def _create(self, table: Table) -> None:
        lines = [self._column(table, column) for column in table.columns.values()]
        kept = sorted(table.constraints.values(), key=lambda one: "pux".find(one.kind) % 9)
        lines += [
            f"CONSTRAINT {quote(one.name)} {one.definition}" for one in kept if one.kind != "f"
        ]
        body = ",\n    ".join(lines)
        self.add(Phase.TABLES, f"CREATE TABLE {qualified(table.name)} (\n    {body}\n)")
        for index in table.indexes.values():
            self.add(Phase.TIGHTEN, index.definition)
        for link in self._links(table):
            self._add_constraint(table.name, link)
        self._comments(Table(table.name), table)

    def _column(self, table: Table, column: Column, *, not_null: bool | None = None) -> str:
        parts = [quote(column.name), self._serial(table, column) or column.type]
        if column.collation:
            parts.append(f"COLLATE {quote(column.collation)}")
        if column.generated is not None:
            parts.append(f"GENERATED ALWAYS AS ({column.generated}) STORED")
        elif column.identity:
            parts.append(_identity(column))
        elif column.default is not None and parts[1] == column.type:
            parts.append(f"DEFAULT {column.default}")
        if column.not_null if not_null is None else not_null:
            parts.append("NOT NULL")
        return " ".join(parts)

    def _serial(self, table: Table, column: Column) -> str | None:
        """``serial`` and its kin, when the column's default is a sequence of its own."""
        name = (table.name[0], f"{table.name[1]}_{column.name}_seq")
        sequence = self.new.sequences.get(name)
        if sequence is None or sequence.owner != (table.name, column.name):
            return None
        if column.default != f"nextval('{qualified(name)}'::regclass)":
            return None
        return _SERIAL.get(column.type) if sequence.type == column.type else None

    # -- one table --------------------------------------------------------------------------

    def _alter(self, old: Table, new: Table) -> None:
        name = new.name
        for column in old.columns.values():
            if column.name not in new.columns:
                self.add(
                    Phase.DROP_COLUMNS,
                    f"ALTER TABLE {qualified(name)} DROP COLUMN {quote(column.name)}",
                    f"column {name[1]}.{column.name}",
                )
        for column in new.columns.values():
            before = old.columns.get(column.name)
            if before is None:
                self._add_column(new, column)
            elif before != column:
                self._alter_column(new, before, column)
        self._constraints(old, new)
        self._indexes(old, new)
        self._comments(old, new)

    def _constraints(self, old: Table, new: Table) -> None:
        for one in old.constraints.values():
            if self._differs(new.name, one, new.constraints.get(one.name)):
                gone = set(old.columns) - set(new.columns)
                if not (gone and _dropped_with(one, old, gone)):
                    self._drop_constraint(new.name, one)
        for one in new.constraints.values():
            if self._differs(new.name, one, old.constraints.get(one.name)):
                self._add_constraint(new.name, one)

    def _indexes(self, old: Table, new: Table) -> None:
        for index in old.indexes.values():
            if self._differs(new.name, index, new.indexes.get(index.name)):
                schema = quote(new.name[0])
                self.add(Phase.LOOSEN, f"DROP INDEX {schema}.{quote(index.name)}")
        for index in new.indexes.values():
            if self._differs(new.name, index, old.indexes.get(index.name)):
                self.add(Phase.TIGHTEN, index.definition)

    def _differs(
        self, table: Name, one: Constraint | Index, other: Constraint | Index | None
    ) -> bool:
        if other is None or one.definition != other.definition:
            return True
        return (table, one.name) in self.remade

    def _drop_constraint(self, table: Name, one: Constraint) -> None:
        phase = Phase.UNLINK if one.kind == "f" else Phase.LOOSEN
        self.add(phase, f"ALTER TABLE {qualified(table)} DROP CONSTRAINT {quote(one.name)}")

    def _add_constraint(self, table: Name, one: Constraint) -> None:
        phase = Phase.LINK if one.kind == "f" else Phase.TIGHTEN
        self.add(
            phase,
            f"ALTER TABLE {qualified(table)} ADD CONSTRAINT {quote(one.name)} {one.definition}",
        )

    # -- columns ----------------------------------------------------------------------------

    def _add_column(self, table: Table, column: Column) -> None:
        alter = f"ALTER TABLE {qualified(table.name)}"
        fill = self.fills.get(f"{table.name[1]}.{column.name}")
        if fill is None:
            self.add(Phase.COLUMNS, f"{alter} ADD COLUMN {self._column(table, column)}")
            return
        self.add(Phase.COLUMNS, f"{alter} ADD COLUMN {self._column(table, column, not_null=False)}")
        self.add(
            Phase.COLUMNS,
            f"UPDATE {qualified(table.name)} SET {quote(column.name)} = {fill}",
        )
        if column.not_null:
            self.add(Phase.COLUMNS, f"{alter} ALTER COLUMN {quote(column.name)} SET NOT NULL")

    def _alter_column(self, table: Table, old: Column, new: Column) -> None:
        alter = f"ALTER TABLE {qualified(table.name)} ALTER COLUMN {quote(new.name)}"
        if old.generated != new.generated and new.generated is not None:
            # A stored expression is computed anew, so nothing is lost by making it again.
            base = f"ALTER TABLE {qualified(table.name)}"
            loses = None if old.generated else f"column {table.name[1]}.{new.name}"
            self.add(Phase.COLUMNS, f"{base} DROP COLUMN {quote(new.name)}", loses)
            self.add(Phase.COLUMNS, f"{base} ADD COLUMN {self._column(table, new)}")
            return
        if old.generated is not None and new.generated is None:
            self.add(Phase.COLUMNS, f"{alter} DROP EXPRESSION")
        retyped = self._type_changes(old, new)
        if old.identity and old.identity != new.identity:
            self.add(Phase.COLUMNS, f"{alter} DROP IDENTITY")
        if old.default is not None and (retyped or old.default != new.default):
            self.add(Phase.COLUMNS, f"{alter} DROP DEFAULT")
        if retyped:
            self._retype(table, alter, old, new)
        if new.default is not None and (retyped or old.default != new.default):
            self.add(Phase.COLUMNS, f"{alter} SET DEFAULT {new.default}")
        self._nullness(table, alter, old, new)
        if new.identity and old.identity != new.identity:
            self.add(Phase.COLUMNS, f"{alter} ADD {_identity(new)}")

    def _type_changes(self, old: Column, new: Column) -> bool:
        if (old.type, old.collation) != (new.type, new.collation):
            return True
        return any(_uses(new.type, enum) for enum in self._replaced_enums())

    def _retype(self, table: Table, alter: str, old: Column, new: Column) -> None:
        collate = f" COLLATE {quote(new.collation)}" if new.collation else ""
        name = quote(new.name)
        through = "" if self.cast_exists(old.type, new.type) else "::text"
        if any(_uses(new.type, enum) for enum in self._replaced_enums()):
            through = "::text[]" if new.type.endswith("[]") else "::text"
        using = f" USING {name}{through}::{new.type}" if old.type != new.type or through else ""
        self.add(
            Phase.COLUMNS,
            f"{alter} TYPE {new.type}{collate}{using}",
            _narrows(table, old, new),
        )

    def _nullness(self, table: Table, alter: str, old: Column, new: Column) -> None:
        if old.not_null and not new.not_null:
            if not _is_key(table, new):
                self.add(Phase.COLUMNS, f"{alter} DROP NOT NULL")
        elif new.not_null and not old.not_null:
            fill = self.fills.get(f"{table.name[1]}.{new.name}")
            fill = fill or ("DEFAULT" if new.default is not None else None)
            if fill is not None:
                name = quote(new.name)
                self.add(
                    Phase.COLUMNS,
                    f"UPDATE {qualified(table.name)} SET {name} = {fill} WHERE {name} IS NULL",
                )
            self.add(Phase.COLUMNS, f"{alter} SET NOT NULL")

    # -- enums ------------------------------------------------------------------------------

    def _replaced_enums(self) -> list[Enum]:
        """Enums that lose labels or change their order, which PostgreSQL can't alter."""
        return [
            enum
            for name, enum in self.new.enums.items()
            if name in self.old.enums
            and self.old.enums[name].labels != enum.labels
            and not self._can_add(self.old.enums[name], enum)
        ]

    def _can_add(self, before: Enum, enum: Enum) -> bool:
        return self.add_labels and _is_extension(before.labels, enum.labels)

    def _enums(self) -> None:
        for name, enum in self.new.enums.items():
            before = self.old.enums.get(name)
            if before is None:
                self.add(Phase.TYPES, _create_enum(enum))
            elif before.labels == enum.labels:
                continue
            elif self._can_add(before, enum):
                self._add_labels(before, enum)
            else:
                self._replace_enum(before, enum)
        for name in self.old.enums:
            if name not in self.new.enums:
                self.add(Phase.DROP_TYPES, f"DROP TYPE {qualified(name)}")

    def _add_labels(self, before: Enum, enum: Enum) -> None:
        known = list(before.labels)
        for place, label in enumerate(enum.labels):
            if label in known:
                continue
            if place == 0:
                where = f"BEFORE {text(known[0])}"
            else:
                where = f"AFTER {text(enum.labels[place - 1])}"
            known.insert(place, label)
            self.add(
                Phase.ENUM_VALUES,
                f"ALTER TYPE {qualified(enum.name)} ADD VALUE {text(label)} {where}",
            )

    def _replace_enum(self, before: Enum, enum: Enum) -> None:
        aside = (enum.name[0], f"{enum.name[1][:55]}__old")
        self.add(Phase.TYPES, f"ALTER TYPE {qualified(enum.name)} RENAME TO {quote(aside[1])}")
        self.add(Phase.TYPES, _create_enum(enum))
        lost = [label for label in before.labels if label not in enum.labels]
        loses = None
        if lost:
            loses = f"label(s) {', '.join(lost)} of {enum.name[1]}; rows that use one stop it"
        self.add(Phase.DROP_TYPES, f"DROP TYPE {qualified(aside)}", loses)
        for table in self.new.tables.values():
            old = self.old.tables.get(table.name)
            for column in table.columns.values():
                before_column = old.columns.get(column.name) if old else None
                if before_column == column and _uses(column.type, enum):
                    self._alter_column(table, column, column)

    # -- sequences --------------------------------------------------------------------------

    def _sequences(self) -> None:
        for name, sequence in self.new.sequences.items():
            owner = sequence.owner
            if name in self.old.sequences or (owner and self._comes_with_column(owner)):
                continue
            self.add(Phase.SEQUENCES, f"CREATE SEQUENCE {qualified(name)} AS {sequence.type}")
            if owner:
                column = f"{qualified(owner[0])}.{quote(owner[1])}"
                self.add(Phase.LINK, f"ALTER SEQUENCE {qualified(name)} OWNED BY {column}")
        for name, sequence in self.old.sequences.items():
            if name not in self.new.sequences and not self._went_with_column(sequence.owner):
                self.add(Phase.DROP_TYPES, f"DROP SEQUENCE {qualified(name)}")

    def _comes_with_column(self, owner: tuple[Name, str]) -> bool:
        table = self.new.tables[owner[0]]
        before = self.old.tables.get(owner[0])
        if before is not None and owner[1] in before.columns:
            return False
        return self._serial(table, table.columns[owner[1]]) is not None

    def _went_with_column(self, owner: tuple[Name, str] | None) -> bool:
        if owner is None:
            return False
        table = self.new.tables.get(owner[0])
        return table is None or owner[1] not in table.columns

    # -- what leans on changes --------------------------------------------------------------

    def _find_remade(self) -> None:
        """Foreign keys over columns that change their type, and what names a replaced enum."""
        retyped = {
            (name, column.name)
            for name, table in self.new.tables.items()
            if name in self.old.tables
            for column in table.columns.values()
            if column.name in self.old.tables[name].columns
            and self._type_changes(self.old.tables[name].columns[column.name], column)
        }
        replaced = self._replaced_enums()
        for name, table in self.old.tables.items():
            dependents: Iterable[Constraint | Index] = [
                *table.constraints.values(),
                *table.indexes.values(),
            ]
            for one in dependents:
                linked = isinstance(one, Constraint) and one.kind == "f"
                touched = {target for target in retyped if quote(target[1]) in one.definition}
                if (
                    (linked and any(self._touches(name, one, target) for target in touched))
                    or any(_uses(one.definition, enum) for enum in replaced)
                    or (not linked and any(target[0] == name for target in touched))
                ):
                    self.remade.add((name, one.name))

    @staticmethod
    def _touches(table: Name, link: Any, target: tuple[Name, str]) -> bool:
        return target[0] == table or f" {qualified(target[0])}(" in link.definition

    # -- comments ---------------------------------------------------------------------------

    def _comments(self, old: Table, new: Table) -> None:
        name = qualified(new.name)
        if old.comment != new.comment:
            self.add(Phase.COMMENTS, f"COMMENT ON TABLE {name} IS {text(new.comment)}")
        for column in new.columns.values():
            before = old.columns.get(column.name)
            if (before.comment if before else None) != column.comment:
                target = f"{name}.{quote(column.name)}"
                self.add(Phase.COMMENTS, f"COMMENT ON COLUMN {target} IS {text(column.comment)}")


def _identity(column: Column) -> str:
    return f"GENERATED {'ALWAYS' if column.identity == 'a' else 'BY DEFAULT'} AS IDENTITY"


def _create_enum(enum: Enum) -> str:
    return f"CREATE TYPE {qualified(enum.name)} AS ENUM ({', '.join(map(text, enum.labels))})"


def _is_extension(old: tuple[str, ...], new: tuple[str, ...]) -> bool:
    """Whether ``new`` is ``old`` with labels put in between."""
    return tuple(label for label in new if label in old) == old


def _uses(definition: str, enum: Enum) -> bool:
    """Whether a type or an expression names this enum."""
    return (
        re.search(rf"(?<![\w\"]){re.escape(qualified(enum.name))}(?![\w\"])", definition)
        is not None
    )


def _is_key(table: Table, column: Column) -> bool:
    return any(
        one.kind == "p" and re.search(rf"[(, ]{re.escape(quote(column.name))}[,)]", one.definition)
        for one in table.constraints.values()
    )


def _dropped_with(one: Constraint, table: Table, gone: set[str]) -> bool:
    """Whether PostgreSQL drops a constraint by itself with one of its columns."""
    if one.kind == "c":
        named = [
            c for c in table.columns if re.search(rf"\b{re.escape(quote(c))}\b", one.definition)
        ]
        return bool(named) and set(named) <= gone
    own = one.definition.split(" REFERENCES ")[0]
    return any(re.search(rf"[(, ]{re.escape(quote(name))}[,)]", own) for name in gone)


def _narrows(table: Table, old: Column, new: Column) -> str | None:
    """What a change of type may lose; None for those that keep every value."""
    where = f"{table.name[1]}.{new.name}"
    wider = {("smallint", "integer"), ("smallint", "bigint"), ("integer", "bigint")}
    wider |= {("real", "double precision"), ("date", "timestamp with time zone")}
    if old.type == new.type or (old.type, new.type) in wider or new.type == "text":
        return None
    sizes = [
        re.fullmatch(r"(character varying|numeric)\((\d+)(?:,(\d+))?\)", t)
        for t in (old.type, new.type)
    ]
    if all(sizes):
        (_, one, places), (_, other, more) = (size.groups() for size in sizes if size)
        if int(other) - int(more or 0) >= int(one) - int(places or 0) and int(more or 0) >= int(
            places or 0
        ):
            return None
    if new.type in ("character varying", "numeric") and old.type.startswith(new.type):
        return None
    return f"values of {where} that do not fit {new.type}"
