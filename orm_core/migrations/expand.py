"""Renames in stages, so that code of the old name and of the new one work side by side.

What ``generate(safe=True, renames=...)`` writes ("expand and contract"):

1. *expand*: a new column beside the old, and a trigger that keeps both in step; a table gets its
   new name, and a view that can be written to takes the old one;
2. *backfill*: rows that are there, in batches;
3. NOT NULL, references and indexes of the new column, as ``orm_core.migrations.staging`` has them;
4. *contract*, to be applied when no code uses the old names any more: trigger, view and old column
   go.

While both columns are there, an INSERT of NULL into the new one counts as one that left it out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from orm_core.errors import MigrationError
from orm_core.migrations import backfill, renames
from orm_core.migrations.catalog import Catalog, Column, Constraint, Index, Table
from orm_core.migrations.diff.references import reference
from orm_core.migrations.names import Name, body, identifiers, qualified, quote
from orm_core.migrations.renames import Rename
from orm_core.models.columns import shorten

_ADVICE = "Write it without --safe, for a time when no code runs."
#: types whose values can't be compared as they are
_AS_TEXT = ("json", "xml", "point", "polygon", "box", "line", "lseg", "path", "circle")

_FUNCTION = """\
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.{new} IS NULL THEN
            NEW.{new} := NEW.{old};
        ELSE
            NEW.{old} := NEW.{new};
        END IF;
    ELSIF NEW.{new}{cast} IS DISTINCT FROM OLD.{new}{cast} THEN
        NEW.{old} := NEW.{new};
    ELSIF NEW.{old}{cast} IS DISTINCT FROM OLD.{old}{cast} THEN
        NEW.{new} := NEW.{old};
    END IF;
    RETURN NEW;
END
$$"""


@dataclass(slots=True)
class Ways:
    """Statements there and back; what is added later is undone first."""

    up: list[str] = field(default_factory=list[str])
    down: list[str] = field(default_factory=list[str])

    def add(self, up: Iterable[str], down: Iterable[str]) -> None:
        """One thing more."""
        self.up += up
        self.down[:0] = down


class Expansion:
    """The renames of one migration: what they need at once, meanwhile and at the end."""

    def __init__(self, goal: Catalog) -> None:
        self.goal = goal
        #: what is done at once
        self.first: Ways = Ways()
        #: what goes at the end
        self.last: Ways = Ways()
        self.told: list[str] = []
        #: new columns by old ones, of each table
        self.columns: dict[Name, dict[str, str]] = defaultdict(dict)
        #: the views that stand for tables by their old names
        self.views: set[Name] = set()

    def take(self, rename: Rename, current: Catalog) -> list[str]:
        """Note a rename; answers what is to be run at once. Raises ``MigrationError``."""
        if rename.kind in ("label", "type"):
            raise MigrationError(
                f"{rename.words}: PostgreSQL knows no stages for that. Add the new label or type, "
                f"move the rows over, and drop the old one in a later migration. {_ADVICE}"
            )
        if rename.kind == "column":
            if rename.column is None:
                raise MigrationError(f"In stages columns can't change places. {_ADVICE}")
            self._take_column(*rename.column, current)
            up, down = [], []
        else:
            up, down = list(rename.up), list(rename.down)
        if rename.kind == "table" and rename.names:
            view, drop = self._view(*rename.names, current)
            self.last.add([drop], [view])
            up, down = [*up, view], [drop, *down]
        if rename.words:
            self.told.append(rename.words)
        self.first.add(up, down)
        return up

    def _view(self, old: Name, new: Name, current: Catalog) -> tuple[str, str]:
        if old in self.goal.tables or new not in self.goal.tables:
            raise MigrationError(f"In stages tables can't change places. {_ADVICE}")
        self.views.add(old)
        columns = ", ".join(map(quote, current.tables[old].columns))
        view = f"CREATE VIEW {qualified(old)} AS\nSELECT {columns}\nFROM {qualified(new)}"
        return view, f"DROP VIEW {qualified(old)}"

    def _take_column(self, table: Name, old: str, new: str, current: Catalog) -> None:
        reason = next(self._hindrances(table, old, new, current), None)
        if reason:
            raise MigrationError(
                f"In stages {table[1]}.{old} can't become {new}: {reason}. {_ADVICE}"
            )
        self.columns[table][old] = new

    def _hindrances(self, table: Name, old: str, new: str, current: Catalog) -> Iterator[str]:
        here = current.tables[table]
        before, after = here.columns[old], self.goal.tables[table].columns[new]
        if (before.type, before.collation) != (after.type, after.collation):
            yield "its type changes as well, which takes a migration of its own"
        if before.generated or after.generated or before.identity or after.identity:
            yield "the server computes it"
        if (before.default or "").startswith("nextval("):
            yield "it counts on a sequence"
        for column in here.columns.values():
            if column.generated and old in identifiers(column.generated):
                yield f"{column.name} is computed from it"
        for one in current.dependents:
            if (table, old) in one.uses and one.name not in self.views:
                yield f"the {one.kind} {one.name[1]} uses it"
        if any(one.kind == "p" and _names(one, {old}) for one in here.constraints.values()):
            yield "it is part of the primary key"
        for name, other in current.tables.items():
            for link in map(reference, other.constraints.values()):
                if link and link.table == qualified(table) and old in link.columns:
                    yield f"{name[1]} refers to it"

    # -- expand -----------------------------------------------------------------------------

    def named(self, current: Catalog) -> Catalog:
        """The schema as if the columns had their new names already."""
        tables = dict(current.tables)
        for name, pairs in self.columns.items():
            columns = {
                pairs.get(one.name, one.name): replace(one, name=pairs.get(one.name, one.name))
                for one in tables[name].columns.values()
            }
            tables[name] = replace(tables[name], columns=columns)
        return replace(current, tables=tables)

    def beside(self, current: Catalog) -> list[str]:
        """Add the new columns, and what keeps them in step; answers the statements."""
        columns = Ways()
        for name, pairs in self.columns.items():
            for old, new in pairs.items():
                column = current.tables[name].columns[old]
                columns.add(*_column(name, new, column))
                steps = _in_step(name, old, new, column)
                columns.add(*steps)
                self.last.add(steps[1], steps[0])
        self.first.add(columns.up, columns.down)
        return columns.up

    def backfills(self, current: Catalog) -> Iterator[tuple[str, list[str], str | None]]:
        """For each table its name, and a statement, or the source of a file that goes in batches."""
        for name, pairs in self.columns.items():
            columns = [(quote(new), quote(old)) for old, new in pairs.items()]
            change = ", ".join(f"{new} = {old}" for new, old in columns)
            todo = " OR ".join(f"({new} IS NULL AND {old} IS NOT NULL)" for new, old in columns)
            table = qualified(name)
            key = _key(current.tables[name])
            if key is None or "\\" in change:
                yield name[1], [f"UPDATE {table} SET {change} WHERE {todo}"], None
            else:
                parts = (one.replace("%", "%%") for one in (table, change, todo))
                yield name[1], [], backfill.source(*parts, key=quote(key).replace("%", "%%"))

    # -- contract ---------------------------------------------------------------------------

    def middle(self, current: Catalog) -> tuple[Catalog, Catalog, list[Rename]]:
        """The goal with the old columns still there, the goal as it is once they are gone.

        What has the same name on the old column and on the new one has another on the new until
        then: the renames bring it back.
        """
        both, bare, back = dict(self.goal.tables), dict(self.goal.tables), list[Rename]()
        for name, pairs in self.columns.items():
            before, after, old = current.tables[name], self.goal.tables[name], set(pairs)
            links = {n: one for n, one in before.constraints.items() if _names(one, old)}
            indexes = {
                n: one
                for n, one in before.indexes.items()
                if identifiers(body(one.definition, name)) & old
            }
            taken = links.keys() | indexes.keys()
            after, moved = _aside(after, taken)
            back += moved
            fresh = {new: replace(after.columns[new], default=None) for new in pairs.values()}
            kept = {one: before.columns[one] for one in pairs}
            bare[name] = after
            both[name] = replace(
                after,
                columns={**after.columns, **fresh, **kept},
                constraints={**after.constraints, **links},
                indexes={**after.indexes, **indexes},
            )
        schemas = self.goal.schemas | {view[0] for view in self.views}
        return (
            replace(self.goal, tables=both, schemas=schemas),
            replace(self.goal, tables=bare),
            back,
        )

    def fills(self) -> dict[str, str]:
        """Values of the old columns, should they come back."""
        return {
            f"{'.'.join(name)}.{old}": quote(new)
            for name, pairs in self.columns.items()
            for old, new in pairs.items()
        }


def _column(table: Name, new: str, like: Column) -> tuple[list[str], list[str]]:
    alter = f"ALTER TABLE {qualified(table)}"
    collate = f" COLLATE {quote(like.collation)}" if like.collation else ""
    return (
        [f"{alter} ADD COLUMN {quote(new)} {like.type}{collate}"],
        [f"{alter} DROP COLUMN {quote(new)}"],
    )


def _in_step(table: Name, old: str, new: str, column: Column) -> tuple[list[str], list[str]]:
    """A trigger that keeps two columns in step."""
    trigger = shorten(f"{table[1]}_{new}_in_step")
    function = qualified((table[0], trigger))
    sql = _FUNCTION.format(
        name=function,
        old=quote(old),
        new=quote(new),
        cast="::text" if column.type in _AS_TEXT else "",
    )
    on = f"ON {qualified(table)}"
    return (
        [
            sql,
            f"CREATE TRIGGER {quote(trigger)}\n    BEFORE INSERT OR UPDATE {on}\n"
            f"    FOR EACH ROW EXECUTE FUNCTION {function}()",
        ],
        [f"DROP TRIGGER {quote(trigger)} {on}", f"DROP FUNCTION {function}()"],
    )


def _key(table: Table) -> str | None:
    """The column by which rows can be taken one after the other."""
    for one in table.constraints.values():
        if one.kind == "p":
            named = identifiers(one.definition.partition("(")[2]) & set(table.columns)
            return next(iter(named)) if len(named) == 1 else None
    return None


def _names(one: Constraint, columns: set[str]) -> bool:
    link = reference(one)
    return bool((link.own if link else identifiers(one.definition)) & columns)


def _aside(table: Table, taken: set[str]) -> tuple[Table, list[Rename]]:
    """The table with other names for what is called like something that is there."""
    back: list[Rename] = []
    constraints: dict[str, Constraint] = {}
    indexes: dict[str, Index] = {}
    for name, constraint in table.constraints.items():
        if name in taken:
            constraint = replace(constraint, name=renames.aside(name))
            back.append(renames.constraint(table.name, constraint.name, name))
        constraints[constraint.name] = constraint
    for name, index in table.indexes.items():
        if name in taken:
            meanwhile = renames.aside(name)
            told = f" INDEX {quote(name)} ON ", f" INDEX {quote(meanwhile)} ON "
            index = replace(index, name=meanwhile, definition=index.definition.replace(*told, 1))
            back.append(renames.index(table.name, meanwhile, name))
        indexes[index.name] = index
    return replace(table, constraints=constraints, indexes=indexes), back
