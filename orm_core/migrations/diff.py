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
from typing import Final

from orm_core.migrations.catalog import Catalog, Column, Constraint, Enum, Index, Name, Table
from orm_core.migrations.names import identifiers, qualified, quote, spellings, text
from orm_core.models.columns import shorten


class Phase(IntEnum):
    """When a statement runs, among the others."""

    SCHEMAS = auto()
    ENUM_VALUES = auto()
    UNLINK = auto()
    LOOSEN = auto()
    DROP_GENERATED = auto()
    DROP_TABLES = auto()
    TYPES = auto()
    SEQUENCES = auto()
    TABLES = auto()
    COLUMNS = auto()
    DROP_COLUMNS = auto()  # after COLUMNS, whose fills may read them
    GENERATED = auto()
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

_IDENTIFIER: Final = r'(?:"(?:[^"]|"")+"|[^\s"(),.]+)'
_LINK: Final = re.compile(
    rf"FOREIGN KEY \((?P<own>.+?)\) REFERENCES "
    rf"(?P<table>{_IDENTIFIER}\.{_IDENTIFIER})\((?P<columns>.+?)\)(?= |$)"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a foreign key says: its columns, the table as it stands in SQL, that one's columns."""

    own: frozenset[str]
    table: str
    columns: frozenset[str]


def reference(one: Constraint) -> Reference | None:
    """What a constraint refers to, if it is a foreign key."""
    found = _LINK.match(one.definition) if one.kind == "f" else None
    if found is None:
        return None
    return Reference(identifiers(found["own"]), found["table"], identifiers(found["columns"]))


_TIMES: Final = {"timestamp without time zone", "timestamp with time zone"}
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
        self.replaced = self._replaced_enums()
        #: columns that change their type, with the types
        self.retyped = self._retyped()
        #: generated columns that must be made again
        self.regenerated = self._regenerated()
        #: constraints and indexes that must go and come back, as something below them changes
        self.remade: set[tuple[Name, str]] = set()
        #: sequences that are seen to with their columns
        self.counted: set[Name] = set()

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
        options = f" WITH ({', '.join(table.options)})" if table.options else ""
        self.add(Phase.TABLES, f"CREATE TABLE {qualified(table.name)} (\n    {body}\n){options}")
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
        if column.default != _nextval(name):
            return None
        return _SERIAL.get(column.type) if sequence.type == column.type else None

    # -- one table --------------------------------------------------------------------------

    def _alter(self, old: Table, new: Table) -> None:
        name = new.name
        self._options(old, new)
        for column in old.columns.values():
            again = (name, column.name) in self.regenerated
            if again or column.name not in new.columns:
                computed = column.generated is not None
                self.add(
                    Phase.DROP_GENERATED if computed or again else Phase.DROP_COLUMNS,
                    f"ALTER TABLE {qualified(name)} DROP COLUMN {quote(column.name)}",
                    None if computed else f"column {name[1]}.{column.name}",
                )
        for column in new.columns.values():
            before = old.columns.get(column.name)
            if before is None or (name, column.name) in self.regenerated:
                self._add_column(new, column)
            elif before != column:
                self._alter_column(new, before, column)
        self._constraints(old, new)
        self._indexes(old, new)
        self._comments(old, new)

    def _options(self, old: Table, new: Table) -> None:
        before, after = (dict(one.partition("=")[::2] for one in t.options) for t in (old, new))
        alter = f"ALTER TABLE {qualified(new.name)}"
        gone = [name for name in before if name not in after]
        if gone:
            self.add(Phase.COLUMNS, f"{alter} RESET ({', '.join(gone)})")
        if after.items() - before.items():
            self.add(Phase.COLUMNS, f"{alter} SET ({', '.join(new.options)})")

    def _constraints(self, old: Table, new: Table) -> None:
        gone = set(old.columns) - set(new.columns)
        for one in old.constraints.values():
            if self._differs(new.name, one, new.constraints.get(one.name)):
                leaves = (new.name, one.name) in self.remade
                if leaves or not (gone and _dropped_with(one, old, gone)):
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

    def _fill(self, table: Table, column: str) -> str | None:
        """The author's SQL for the rows that are there."""
        keys = (f"{name}.{column}" for name in spellings(table.name, self.new.tables))
        return next((self.fills[key] for key in keys if key in self.fills), None)

    def _update(self, table: Table, column: str, value: str, condition: str = "") -> None:
        name = qualified(table.name)
        self.add(Phase.COLUMNS, f"UPDATE {name} SET {quote(column)} = {value}{condition}")
        if any("INITIALLY DEFERRED" in one.definition for one in table.constraints.values()):
            # A table with checks that are still to come can't be altered.
            self.add(Phase.COLUMNS, "SET CONSTRAINTS ALL IMMEDIATE")

    def _add_column(self, table: Table, column: Column) -> None:
        alter = f"ALTER TABLE {qualified(table.name)}"
        fill = self._fill(table, column.name)
        if column.generated is not None or fill is None:
            phase = Phase.COLUMNS if column.generated is None else Phase.GENERATED
            self.add(phase, f"{alter} ADD COLUMN {self._column(table, column)}")
            return
        self.add(Phase.COLUMNS, f"{alter} ADD COLUMN {self._column(table, column, not_null=False)}")
        self._update(table, column.name, fill)
        if column.not_null:
            self.add(Phase.COLUMNS, f"{alter} ALTER COLUMN {quote(column.name)} SET NOT NULL")

    def _alter_column(self, table: Table, old: Column, new: Column) -> None:
        alter = f"ALTER TABLE {qualified(table.name)} ALTER COLUMN {quote(new.name)}"
        if old.generated is not None and new.generated is None:
            self.add(Phase.LOOSEN, f"{alter} DROP EXPRESSION")
        retyped = self._type_changes(old, new)
        again = old.default is not None and (
            old.default != new.default or (retyped and not old.default.startswith("nextval("))
        )
        if old.identity and not new.identity:
            self.add(Phase.COLUMNS, f"{alter} DROP IDENTITY")
        if again:
            self.add(Phase.COLUMNS, f"{alter} DROP DEFAULT")
        if retyped:
            self._retype(table, alter, old, new)
        self._count(table, alter, old, new)
        if new.default is not None and (again or old.default is None):
            self.add(Phase.COLUMNS, f"{alter} SET DEFAULT {new.default}")
        self._nullness(table, alter, old, new)

    def _count(self, table: Table, alter: str, old: Column, new: Column) -> None:
        """Sequences and identities of a column that was there: they go on after its rows."""
        owner = (table.name, new.name)
        if new.identity and old.identity:
            if new.identity != old.identity:
                self.add(Phase.COLUMNS, f"{alter} SET {_identity(new).partition(' AS ')[0]}")
            return
        counter = ""
        if new.identity:
            for name, one in self.old.sequences.items():
                if one.owner == owner and not one.identity and name not in self.counted:
                    # Its name is the one that the identity's takes.
                    self.counted.add(name)
                    self.add(Phase.COLUMNS, f"DROP SEQUENCE {qualified(name)}")
            self.add(Phase.COLUMNS, f"{alter} ADD {_identity(new)}")
            counter = f"pg_get_serial_sequence({text(qualified(table.name))}, {text(new.name)})"
        elif new.default != old.default:
            for name, one in self.new.sequences.items():
                known = self.old.sequences.get(name)
                if new.default != _nextval(name) or (known and not known.identity):
                    continue
                if name in self.counted:
                    continue
                self.counted.add(name)
                self.add(Phase.COLUMNS, f"CREATE SEQUENCE {qualified(name)} AS {one.type}")
                self._own(name, one.owner)
                counter = text(qualified(name))
        if counter:
            largest = f"SELECT coalesce(max({quote(new.name)}), 0) + 1 FROM {qualified(table.name)}"
            self.add(Phase.COLUMNS, f"SELECT setval({counter}, ({largest}), false)")

    def _own(self, name: Name, owner: tuple[Name, str] | None) -> None:
        column = f"{qualified(owner[0])}.{quote(owner[1])}" if owner else "NONE"
        self.add(Phase.LINK, f"ALTER SEQUENCE {qualified(name)} OWNED BY {column}")

    def _type_changes(self, old: Column, new: Column) -> bool:
        if (old.type, old.collation) != (new.type, new.collation):
            return True
        return any(_uses(new.type, enum) for enum in self.replaced)

    def _retype(self, table: Table, alter: str, old: Column, new: Column) -> None:
        collate = f" COLLATE {quote(new.collation)}" if new.collation else ""
        self.add(
            Phase.COLUMNS,
            f"{alter} TYPE {new.type}{collate}{self._using(old, new)}",
            _narrows(table, old, new),
        )

    def _using(self, old: Column, new: Column) -> str:
        """How the values get from one type to the other, where PostgreSQL must be told."""
        if any(_uses(new.type, enum) for enum in self.replaced):
            through = "::text[]" if new.type.endswith("[]") else "::text"
        elif _family(new.type) in ("text", "character", _family(old.type)):
            return ""  # and a text that is too long is refused, not cut
        elif {_base(old.type), _base(new.type)} == _TIMES:
            # Times without a zone are UTC here, whatever the zone of who applies the file.
            return f" USING {quote(new.name)} AT TIME ZONE 'UTC'"
        elif self.cast_exists(old.type, new.type):
            through = ""
        elif self.cast_exists(old.type, "integer") and self.cast_exists("integer", new.type):
            through = "::integer"
        else:
            through = "::text"
        return f" USING {quote(new.name)}{through}::{new.type}"

    def _nullness(self, table: Table, alter: str, old: Column, new: Column) -> None:
        if old.not_null and not new.not_null:
            if not _is_key(table, new):
                self.add(Phase.COLUMNS, f"{alter} DROP NOT NULL")
        elif new.not_null and not old.not_null:
            fill = self._fill(table, new.name)
            fill = fill or ("DEFAULT" if new.default is not None else None)
            if fill is not None:
                self._update(table, new.name, fill, f" WHERE {quote(new.name)} IS NULL")
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
        aside = (enum.name[0], shorten(f"{enum.name[1]}__old"))
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
                again = (table.name, column.name) in self.regenerated
                if before_column == column and not again and _uses(column.type, enum):
                    self._alter_column(table, column, column)

    # -- sequences --------------------------------------------------------------------------

    def _sequences(self) -> None:
        for name, sequence in self.new.sequences.items():
            owner, before = sequence.owner, self.old.sequences.get(name)
            if sequence.identity or name in self.counted:
                continue
            if before is not None:
                if before.type != sequence.type:
                    alter = f"ALTER SEQUENCE {qualified(name)} AS {sequence.type}"
                    self.add(Phase.SEQUENCES, alter)
                if before.owner != owner:
                    self._own(name, owner)
            elif not (owner and self._comes_with_column(owner)):
                self.add(Phase.SEQUENCES, f"CREATE SEQUENCE {qualified(name)} AS {sequence.type}")
                if owner:
                    self._own(name, owner)
        for name, sequence in self.old.sequences.items():
            if sequence.identity or name in self.new.sequences or name in self.counted:
                continue
            if not self._went_with_column(sequence.owner):
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
        """What names columns that change their type or are made again, or a replaced enum."""
        for name, table in self.old.tables.items():
            dependents: Iterable[Constraint | Index] = [
                *table.constraints.values(),
                *table.indexes.values(),
            ]
            for one in dependents:
                linked = isinstance(one, Constraint) and one.kind == "f"
                if not linked and self._leans_on_change(name, one):
                    self.remade.add((name, one.name))
        for name, table in self.old.tables.items():
            for link in self._links(table):
                kept = self._keeps_target(link)
                if not kept or self._changes_type(name, link):
                    self.remade.add((name, link.name))

    def _leans_on_change(self, table: Name, one: Constraint | Index) -> bool:
        body = _body(one, table)
        if any(_uses(body, enum) for enum in self.replaced):
            return True
        for column in identifiers(body):
            types = self.retyped.get((table, column))
            # Within a family PostgreSQL makes it again by itself, but for constants with a type.
            if types and (_family(types[0]) != _family(types[1]) or "'" in body):
                return True
            if (table, column) in self.regenerated:
                return True
        return False

    def _keeps_target(self, link: Constraint) -> bool:
        """Whether the unique index or key that a reference stands on stays as it is."""
        found = reference(link)
        assert found is not None, link.definition  # noqa: S101 - so says PostgreSQL
        target = next((name for name in self.new.tables if qualified(name) == found.table), None)
        before = self.old.tables.get(target) if target else None
        if target is None or before is None:
            return False
        columns = found.columns
        after = self.new.tables[target]
        keys = [one for one in before.constraints.values() if one.kind in "pu"]
        keeps = [
            not self._differs(target, one, after.constraints.get(one.name))
            for one in keys
            if columns == identifiers(one.definition.partition("(")[2].partition(")")[0])
        ]
        keeps += [
            not self._differs(target, one, after.indexes.get(one.name))
            for one in before.indexes.values()
            if one.definition.startswith("CREATE UNIQUE ")
            and columns == identifiers(_body(one, target).partition("(")[2].partition(")")[0])
        ]
        return all(keeps)

    def _changes_type(self, table: Name, link: Constraint) -> bool:
        found = reference(link)
        assert found is not None  # noqa: S101
        touched = [(table, column) for column in found.own]
        touched += [
            (name, column)
            for name in self.old.tables
            if qualified(name) == found.table
            for column in found.columns
        ]
        types = [self.retyped[one] for one in touched if one in self.retyped]
        return any(_base(old) != _base(new) for old, new in types)

    def _retyped(self) -> dict[tuple[Name, str], tuple[str, str]]:
        return {
            (name, column.name): (
                before.type,
                "another enum"
                if any(_uses(column.type, e) for e in self.replaced)
                else column.type,
            )
            for name, table in self.new.tables.items()
            if name in self.old.tables
            for column in table.columns.values()
            if (before := self.old.tables[name].columns.get(column.name)) is not None
            and self._type_changes(before, column)
        }

    def _regenerated(self) -> set[tuple[Name, str]]:
        found = set()
        for name, table in self.new.tables.items():
            before = self.old.tables.get(name)
            for column in table.columns.values() if before else ():
                old = before.columns.get(column.name) if before else None
                if old is None or column.generated is None:
                    continue
                below = {(name, one) for one in identifiers(column.generated)}
                if (
                    old.generated != column.generated
                    or (name, column.name) in self.retyped
                    or any(one in self.retyped for one in below)
                    or any(_uses(column.generated, enum) for enum in self.replaced)
                ):
                    found.add((name, column.name))
        return found

    # -- comments ---------------------------------------------------------------------------

    def _comments(self, old: Table, new: Table) -> None:
        name = qualified(new.name)
        if old.comment != new.comment:
            self.add(Phase.COMMENTS, f"COMMENT ON TABLE {name} IS {text(new.comment)}")
        for column in new.columns.values():
            before = old.columns.get(column.name)
            if (new.name, column.name) in self.regenerated:
                before = None
            if (before.comment if before else None) != column.comment:
                target = f"{name}.{quote(column.name)}"
                self.add(Phase.COMMENTS, f"COMMENT ON COLUMN {target} IS {text(column.comment)}")
        members: list[Constraint | Index] = [*new.constraints.values(), *new.indexes.values()]
        for one in members:
            known: Constraint | Index | None = old.constraints.get(one.name)
            known = known or old.indexes.get(one.name)
            if known and self._differs(new.name, one, known):
                known = None
            if (known.comment if known else None) != one.comment:
                target = f"INDEX {quote(new.name[0])}.{quote(one.name)}"
                if isinstance(one, Constraint):
                    target = f"CONSTRAINT {quote(one.name)} ON {name}"
                self.add(Phase.COMMENTS, f"COMMENT ON {target} IS {text(one.comment)}")


def _identity(column: Column) -> str:
    return f"GENERATED {'ALWAYS' if column.identity == 'a' else 'BY DEFAULT'} AS IDENTITY"


def _nextval(sequence: Name) -> str:
    """The default of a column that counts on this sequence."""
    return f"nextval({text(qualified(sequence))}::regclass)"


def _body(one: Constraint | Index, table: Name) -> str:
    """A definition without the names of index and table."""
    return one.definition.rpartition(f" ON {qualified(table)} ")[2]


def _base(kind: str) -> str:
    """A type without its length or precision."""
    return re.sub(r"\(.*?\)", "", kind)


def _family(kind: str) -> str:
    """What types have in common that PostgreSQL turns into each other by itself."""
    base = _base(kind)
    if base in ("smallint", "integer", "bigint"):
        return "integer"
    return "text" if base == "character varying" else base


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
