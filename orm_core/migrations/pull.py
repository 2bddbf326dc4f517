"""Models of a database that is there already, as Python source.

``orm-core migrate pull > domains/shop/models.py`` is how a team adopts orm_core on what it has.
The models make the very schema they were read from: what they can't say by a field of their own
(an index on an expression, a CHECK) stands as SQL in ``class Meta``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import inflection

from orm_core.migrations.catalog import Catalog, Column, Constraint, Enum, Table
from orm_core.migrations.diff.sequences import identity
from orm_core.migrations.names import Name, qualified, quote

_PLAIN: Final = {
    "text": "TextField()",
    "integer": "IntegerField()",
    "bigint": "BigIntegerField()",
    "smallint": "SmallIntegerField()",
    "boolean": "BooleanField()",
    "double precision": "DoubleField()",
    "date": "DateField()",
    "timestamp with time zone": "DateTimeField()",
    "uuid": "UUIDField()",
    "jsonb": "JSONField()",
}
_SIZED: Final = (
    (re.compile(r"character varying\((\d+)\)"), "CharField({0})"),
    (re.compile(r"numeric\((\d+),(\d+)\)"), "DecimalField({0}, {1})"),
)
_STANDARD: Final = {
    "id": Column("id", "uuid", True, "gen_random_uuid()"),
    "created_at": Column("created_at", "timestamp with time zone", True, "now()"),
    "updated_at": Column("updated_at", "timestamp with time zone", True, "now()"),
    "deleted_at": Column("deleted_at", "timestamp with time zone", False),
}
_BIG_IDENTITY: Final = '''\
class BigIdentityField(BigAutoField):
    """An IdentityField of a bigint."""

    def __init__(self, generate_always=False, **options):
        when = "ALWAYS" if generate_always else "BY DEFAULT"
        self.field_type = f"BIGINT GENERATED {when} AS IDENTITY"
        super().__init__(**options)
'''
_REFERENCE = re.compile(
    r"FOREIGN KEY \((?P<column>[^,()]+)\) REFERENCES (?P<table>[^(]+)\((?P<key>[^,()]+)\)(?P<rest>.*)"
)
_ACTION = r"(CASCADE|RESTRICT|SET NULL|SET DEFAULT)"


def source(catalog: Catalog) -> str:
    """The models of all tables, each after those that it refers to, and their enums."""
    writer = _Writer(catalog)
    bodies = [writer.enum(enum) for enum in catalog.enums.values()]
    bodies += [writer.model(table) for table in _sorted(catalog)]
    if any("BigIdentityField(" in body for body in bodies):
        bodies.insert(0, _BIG_IDENTITY)
    text = "\n".join(bodies)
    names = sorted(set(re.findall(r"\b([A-Z]\w*Field|BaseModel)\b", text)))
    names = [name for name in names if not name.endswith("IdentityField")]
    imports = ["from enum import Enum\n"] if catalog.enums else []
    theirs = [n for n in ("SQL", "CompositeKey", "IdentityField") if re.search(rf"\b{n}\(", text)]
    sql = [f"from peewee import {', '.join(theirs)}\n"] if theirs else []
    listed = "".join(f"    {name},\n" for name in names)
    ours = f"from orm_core import (\n{listed})\n"
    head = "\n".join(part for part in ("".join(imports), "".join(sql) + ours) if part)
    return '"""Models read from a database."""\n\n' + head + "\n\n" + "\n\n".join(bodies)


def _sorted(catalog: Catalog) -> list[Table]:
    done: dict[Name, Table] = {}

    def visit(table: Table, above: frozenset[Name]) -> None:
        for link in _links(table).values():
            target = _target(catalog, link)
            if target and target.name not in above and target.name not in done:
                visit(target, above | {table.name})
        done.setdefault(table.name, table)

    for table in catalog.tables.values():
        visit(table, frozenset({table.name}))
    return list(done.values())


def _links(table: Table) -> dict[str, Constraint]:
    """The foreign keys over one column, by that column."""
    found: dict[str, Constraint] = {}
    for one in table.constraints.values():
        match = _REFERENCE.fullmatch(one.definition) if one.kind == "f" else None
        if match:
            found[match["column"].strip('"')] = one
    return found


def _target(catalog: Catalog, link: Constraint) -> Table | None:
    match = _REFERENCE.fullmatch(link.definition)
    for name, table in catalog.tables.items():
        if match and match["table"] == qualified(name):
            return table
    return None


class _Writer:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.written: set[Name] = set()
        self.schemas = catalog.schemas - {"public"}

    def enum(self, enum: Enum) -> str:
        """An Enum class; members are named after their labels."""
        names: set[str] = set()
        lines: list[str] = []
        for place, label in enumerate(enum.labels):
            name = re.sub(r"\W+", "_", label).strip("_").upper()
            if not name.isidentifier() or name in names:
                name = f"LABEL_{place}"
            names.add(name)
            lines.append(f"    {name} = {_text(label)}")
        return f"class {_class(enum.name)}(Enum):\n" + "\n".join(lines) + "\n"

    def model(self, table: Table) -> str:
        """One model class."""
        self.said: set[str] = set()
        lines = list(self._columns(table))
        meta = [f"table_name = {_text(table.name[1])}"]
        if table.name[0] != "public":
            meta.append(f"schema = {_text(table.name[0])}")
        if table.comment:
            meta.append(f"comment = {_text(table.comment)}")
        meta += self._keys(table)
        meta += self._constraints(table)
        meta += self._indexes(table)
        body = "\n".join(f"    {line}" for line in lines)
        inner = "\n".join(f"        {line}" for line in meta)
        self.written.add(table.name)
        return f"class {_class(table.name)}(BaseModel):\n{body}\n\n    class Meta:\n{inner}\n"

    # -- columns ----------------------------------------------------------------------------

    def _columns(self, table: Table) -> Iterator[str]:
        key = _key(table)
        for name, standard in _STANDARD.items():
            if name not in table.columns:
                yield f"{name} = None"
            elif name == "id" and key == ["id"] and table.columns[name] == standard:
                continue
        links = _links(table)
        for column in table.columns.values():
            if column == _STANDARD.get(column.name) and (column.name != "id" or key == ["id"]):
                continue
            yield self._column(table, column, links.get(column.name), key == [column.name])

    def _column(self, table: Table, column: Column, link: Constraint | None, is_key: bool) -> str:
        name = _attribute(column.name)
        options: list[str] = []
        target = _target(self.catalog, link) if link else None
        field = self._serial(table, column) if is_key else None
        if field is None and link and target and _key(target) and not is_key:
            field, name = self._reference(table, column, link, target)
        elif field is None:
            field = self._field(column)
            if column.default is not None and column.generated is None:
                options.append(f"server_default={_text(column.default)}")
            options += self._own_index(table, column)
        if is_key:
            options.append("primary_key=True")
        if not column.not_null:
            options.append("null=True")
        if column.generated is not None:
            options.append(f"generated={_text(column.generated)}")
        if column.collation:
            options.append(f"collation={_text(quote(column.collation))}")
        if column.comment:
            options.append(f"comment={_text(column.comment)}")
        if column.name != name and not field.startswith("ForeignKey"):
            options.append(f"column_name={_text(column.name)}")
        inside = field[:-1] + ("" if field.endswith("(") or not options else ", ")
        inside = inside.replace("(, ", "(")
        return f"{name} = {inside}{', '.join(options)})"

    def _own_index(self, table: Table, column: Column) -> list[str]:
        """What a field says of the indexes that have our names and this one column."""
        base, on = f"{table.name[1]}_{column.name}", f" ON {qualified(table.name)} USING btree "
        rows = f"({quote(column.name)})"
        for name, kind, option in (
            (f"{base}_idx", "INDEX", "index=True"),
            (f"{base}_key", "UNIQUE INDEX", "unique=True"),
            (f"{base}_key", "UNIQUE INDEX", 'unique="live"'),
        ):
            live = " WHERE (deleted_at IS NULL)" if "live" in option else ""
            wanted = f"CREATE {kind} {quote(name)}{on}{rows}{live}"
            if name in table.indexes and table.indexes[name].definition == wanted:
                self.said.add(name)
                return [option]
        return []

    def _serial(self, table: Table, column: Column) -> str | None:
        sequence = (table.name[0], f"{table.name[1]}_{column.name}_seq")
        if column.identity:
            field = {"integer": "IdentityField", "bigint": "BigIdentityField"}.get(column.type)
            always = "generate_always=True" if column.identity == "a" else ""
            return f"{field}({always})" if field else None
        if sequence in self.catalog.sequences and column.default:
            return {"integer": "AutoField()", "bigint": "BigAutoField()"}.get(column.type)
        return None

    def _field(self, column: Column) -> str:
        kind = column.type
        if column.identity:
            return f"OtherField({_text(f'{kind} {identity(column)}')})"
        if kind.endswith("[]"):
            return f"ArrayField({self._of_type(kind[:-2])})"
        return self._of_type(kind)

    def _of_type(self, kind: str) -> str:
        if kind in _PLAIN:
            return _PLAIN[kind]
        for pattern, form in _SIZED:
            match = pattern.fullmatch(kind)
            if match:
                return form.format(*match.groups())
        for name in self.catalog.enums:
            if kind == qualified(name):
                return f"EnumField({_class(name)}, type_name={_text(name[1])})"
        return f"OtherField({_text(kind)})"

    def _reference(
        self, table: Table, column: Column, link: Constraint, target: Table
    ) -> tuple[str, str]:
        match = _REFERENCE.fullmatch(link.definition)
        assert match is not None  # noqa: S101 - as _links() found it
        name = _attribute(re.sub(r"_id$", "", column.name) or column.name)
        if name in table.columns and name != column.name:
            name = _attribute(column.name)
        self.said.add(link.name)
        if target.name == table.name:
            to = _text("self")
        elif target.name in self.written:
            to = _class(target.name)
        else:
            to = _text(_class(target.name))
        options = [
            f"column_name={_text(column.name)}",
            f"backref={_text(table.name[1] + '_by_' + name)}",
        ]
        if column.default is not None:
            options.append(f"server_default={_text(column.default)}")
        if match["key"].strip('"') != (_key(target) or [""])[0]:
            options.append(f"field={_text(match['key'].strip(chr(34)))}")
        for event in ("DELETE", "UPDATE"):
            action = re.search(rf"ON {event} {_ACTION}", match["rest"])
            if action:
                options.append(f"on_{event.lower()}={_text(action[1])}")
        if "DEFERRABLE" in match["rest"]:
            deferred = "INITIALLY DEFERRED" if "INITIALLY" in match["rest"] else ""
            options.append(f"deferrable={_text(deferred)}" if deferred else "deferrable=' '")
        if link.name != f"{table.name[1]}_{column.name}_fkey":
            options.append(f"constraint_name={_text(link.name)}")
        index = f"{table.name[1]}_{column.name}_idx"
        definition = f"CREATE INDEX {quote(index)} ON {qualified(table.name)} USING btree ("
        present = table.indexes.get(index)
        if present and present.definition == f"{definition}{quote(column.name)})":
            self.said.add(index)
        else:
            options.append("index=False")
        later = target.name not in self.written and target.name != table.name
        kind = "DeferredForeignKey" if later else "ForeignKeyField"
        return f"{kind}({to}, {', '.join(options)})".replace("DeferredForeignKey", kind), name

    # -- the rest ---------------------------------------------------------------------------

    def _keys(self, table: Table) -> list[str]:
        key = _key(table)
        if not key:
            return ["primary_key = False"]
        if len(key) > 1:
            return [f"primary_key = CompositeKey({', '.join(map(_text, map(_attribute, key)))})"]
        return []

    def _constraints(self, table: Table) -> list[str]:
        kept = [
            one
            for one in table.constraints.values()
            if one.name not in self.said and one.kind != "p"
        ]
        if not kept:
            return []
        lines = [
            f"    SQL({_text('CONSTRAINT ' + quote(one.name) + ' ' + one.definition)}),".replace(
                "%", "%%"
            )
            for one in kept
        ]
        return ["constraints = [", *lines, "]"]

    def _indexes(self, table: Table) -> list[str]:
        kept = [one for one in table.indexes.values() if one.name not in self.said]
        if not kept:
            return []
        lines = [f"    SQL({_text(one.definition)}),".replace("%", "%%") for one in kept]
        return ["indexes = [", *lines, "]"]


def _text(value: str) -> str:
    """A Python literal, in double quotes where that reads well."""
    plain = value.isprintable() and '"' not in value and "\\" not in value
    return f'"{value}"' if plain else repr(value)


def _key(table: Table) -> list[str]:
    for one in table.constraints.values():
        if one.kind == "p":
            return [part.strip().strip('"') for part in one.definition[13:-1].split(",")]
    return []


def _class(name: Name) -> str:
    made = inflection.camelize(inflection.singularize(re.sub(r"\W", "_", name[1])))
    made = made if made.isidentifier() else f"Table{made}"
    return made if name[0] == "public" else f"{inflection.camelize(name[0])}{made}"


def _attribute(column: str) -> str:
    import keyword

    name = re.sub(r"\W", "_", column)
    if not name.isidentifier() or keyword.iskeyword(name) or name in ("model", "save", "select"):
        name = f"{name}_" if name.isidentifier() else f"column_{name}"
    return name
