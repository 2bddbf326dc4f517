"""Changes of models, each with rows that are there before: what migrations must get right.

A scenario is data: models before and after, rows, the author's answers, and what must be found
in the tables afterwards. ``test_generated_migrations.py`` runs each.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import peewee
from peewee import SQL, AutoField, BigAutoField, Check, CompositeKey, IdentityField
from playhouse import postgres_ext

from orm_core import (
    ArrayField,
    BaseModel,
    BigIntegerField,
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    DeferredForeignKey,
    DoubleField,
    EnumField,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Policy,
    SmallIntegerField,
    TextField,
    UUIDField,
    VersionField,
)
from orm_core.models.columns import CheckedField
from orm_core.models.schema import Metadata, SchemaManager

Models = Callable[[], list[Any]]


@dataclass(frozen=True)
class Scenario:
    """``then`` holds rows by query; ``works`` is SQL that must pass once all is applied."""

    name: str
    before: Models
    after: Models
    rows: str = ""
    then: Mapping[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    renames: tuple[str, ...] = ()
    drops: tuple[str, ...] | bool = ()
    fills: Mapping[str, str] = field(default_factory=dict)
    works: str = ""


SCENARIOS: list[Scenario] = []


def scenario(
    name: str, before: Models | list[Any], after: Models, rows: str = "", **more: Any
) -> None:
    """Add one to the list."""
    SCENARIOS.append(Scenario(name, before, after, rows, **more))


# -- models made anew for each run --------------------------------------------------------------


class Plain(peewee.Model):
    """No key and no times of its own, with our names."""

    class Meta:
        model_metadata_class = Metadata
        schema_manager_class = SchemaManager


def model(
    table: str, base: type = BaseModel, meta: Mapping[str, Any] | None = None, /, **columns: Any
) -> Any:
    """A fresh model class of this table."""
    own = type("Meta", (), {"table_name": table, **(meta or {})})
    name = "".join(part.capitalize() for part in table.split("_"))
    return type(base)(name, (base,), {**columns, "Meta": own, "__module__": __name__})


def plain(table: str, meta: Mapping[str, Any] | None = None, /, **columns: Any) -> Any:
    """A fresh model with just these columns."""
    return model(table, Plain, meta, **columns)


def stock(table: str, meta: Mapping[str, Any] | None = None, /, **columns: Any) -> Any:
    """A fresh model that is Peewee's own in all."""
    return model(table, peewee.Model, meta, **columns)


def books(meta: Mapping[str, Any] | None = None, /, **columns: Any) -> Any:
    """Most scenarios change this table."""
    return model("books", BaseModel, meta, **{"title": TextField(), **columns})


def indexed(*indexes: Any, **columns: Any):
    """Books with indexes of their own."""
    return books({"indexes": list(indexes)}, **columns)


def checked(*constraints: Any, **columns: Any):
    """Books with constraints of their own."""
    return books({"constraints": list(constraints)}, **columns)


def guarded(*policies: Any, **columns: Any):
    """Books with row security."""
    return books({"policies": policies}, **columns)


def labels(*values: str, name: str = "Mood"):
    """An enum class with these labels."""
    return enum.Enum(name, {f"L{place}": value for place, value in enumerate(values)})


ONE = "INSERT INTO books (title) VALUES ('one')"
TWO = "INSERT INTO books (title) VALUES ('one'), ('two')"


# -- tables -------------------------------------------------------------------------------------

scenario(
    "a table beside another",
    lambda: [books()],
    lambda: [books(), model("notes", text=TextField())],
    ONE,
    works="INSERT INTO notes (text) VALUES ('x')",
)


def _library() -> list[Any]:
    author = model("authors", name=TextField())
    book = books(author=ForeignKeyField(author))
    loan = model("a_loans", book=ForeignKeyField(book), author=ForeignKeyField(author, null=True))
    return [loan, book, author]


scenario("tables that refer to each other, given in any order", list, _library)
scenario("tables that refer to each other go", _library, list, drops=True)


def _cycle() -> list[Any]:
    team = model("teams", name=TextField(), lead=DeferredForeignKey("People", null=True))
    people = model("people", team=ForeignKeyField(team, null=True))
    return [team, people]


def _ring(null: bool = True) -> list[Any]:
    a = model(
        "ring_a", next=DeferredForeignKey("RingB", null=null, deferrable="INITIALLY DEFERRED")
    )
    b = model("ring_b", next=DeferredForeignKey("RingC", null=null))
    c = model("ring_c", next=ForeignKeyField(a, null=null))
    return [a, b, c]


scenario("a cycle of two tables comes", lambda: [books()], lambda: [books(), *_cycle()], ONE)
scenario(
    "a cycle of two tables goes",
    _cycle,
    list,
    """INSERT INTO teams (name) VALUES ('t'); INSERT INTO people (team_id) SELECT id FROM teams;
       UPDATE teams SET lead_id = (SELECT id FROM people)""",
    drops=("teams", "people"),
)
scenario("a cycle of three tables comes", list, _ring)
scenario("a cycle of three tables goes", lambda: _ring(null=False), list, drops=True)
scenario(
    "a reference to its own table comes",
    lambda: [books()],
    lambda: [books(sequel=ForeignKeyField("self", null=True, backref="prequels"))],
    TWO,
    works="UPDATE books SET sequel_id = id",
)
scenario(
    "a reference to its own table goes",
    lambda: [books(sequel=ForeignKeyField("self", null=True))],
    lambda: [books()],
    f"{TWO}; UPDATE books SET sequel_id = id",
)
scenario(
    "a table goes",
    lambda: [books(), model("notes", text=TextField(index=True))],
    lambda: [books()],
    f"{ONE}; INSERT INTO notes (text) VALUES ('x')",
    drops=("notes",),
)


def _shelved(*, kept: bool, **more: Any) -> list[Any]:
    shelf = model("shelves", name=TextField(), code=CharField(20, unique=True, default="c"))
    if kept:
        return [shelf, books(shelf=ForeignKeyField(shelf, null=True, **more))]
    return [books()]


SHELVED = """INSERT INTO shelves (name) VALUES ('s');
    INSERT INTO books (title, shelf_id) SELECT 'one', id FROM shelves"""

scenario(
    "a table goes with the column that refers to it",
    lambda: _shelved(kept=True),
    lambda: _shelved(kept=False),
    SHELVED,
    drops=("shelves", "books.shelf_id"),
)
scenario(
    "one table takes another's place",
    lambda: [books(), model("notes", text=TextField(), lines=IntegerField())],
    lambda: [books(), model("memos", text=TextField(), pages=IntegerField())],
    f"{ONE}; INSERT INTO notes (text, lines) VALUES ('x', 1)",
    drops=("notes",),
)
scenario(
    "one table takes another's place as the target of a reference",
    lambda: [
        author := model("authors", name=TextField(), born=IntegerField(), died=IntegerField()),
        books(by=ForeignKeyField(author, null=True)),
    ],
    lambda: [
        writer := model("writers", pen=TextField(), fame=IntegerField(), ink=TextField()),
        books(by=ForeignKeyField(writer, null=True)),
    ],
    ONE,
    drops=("authors",),
)
scenario(
    "a table of 250 columns comes, with an index on ten",
    list,
    lambda: [
        model("wide", **{f"c{n}": TextField(null=True, index=n < 10) for n in range(250)}),
    ],
    works="INSERT INTO wide (c249) VALUES ('x')",
)
scenario(
    "a wide table changes in many places at once",
    lambda: [model("wide", **{f"c{n:03}": IntegerField(null=True) for n in range(100)})],
    lambda: [
        model(
            "wide",
            **{f"c{n:03}": BigIntegerField(null=True, default=n % 3 or None) for n in range(60)},
            **{f"d{n:03}": TextField(default=f"'{n}%'") for n in range(30)},
        )
    ],
    "INSERT INTO wide (c000, c059, c099) VALUES (1, 2, 3)",
    drops=True,
    then={"SELECT c000, c059, d000, d029 FROM wide": [(1, 2, "'0%'", "'29%'")]},
)


# -- foreign keys -------------------------------------------------------------------------------


def _refers(target: str = "shelves", **more: Any) -> list[Any]:
    shelf = model("shelves", name=TextField(), code=CharField(20, unique=True, default="c"))
    rack = model("racks", name=TextField(null=True))
    given = shelf if target == "shelves" else rack
    return [shelf, rack, books(shelf=ForeignKeyField(given, **{"null": True, **more}))]


for _name, _old, _new in (
    ("on_delete comes", {}, {"on_delete": "CASCADE"}),
    ("on_delete changes", {"on_delete": "CASCADE"}, {"on_delete": "SET NULL"}),
    ("on_delete goes", {"on_delete": "RESTRICT"}, {}),
    ("on_update changes", {"on_update": "CASCADE"}, {"on_update": "SET NULL"}),
    ("becomes deferrable", {}, {"deferrable": "INITIALLY DEFERRED"}),
    (
        "is deferred in another way",
        {"deferrable": "INITIALLY DEFERRED"},
        {"deferrable": "INITIALLY IMMEDIATE"},
    ),
    ("is no longer deferrable", {"deferrable": "INITIALLY DEFERRED"}, {}),
    ("gets a name of its own", {}, {"constraint_name": "Books'%shelf"}),
    ("loses its index", {}, {"index": False}),
    ("becomes unique", {}, {"unique": True}),
    ("becomes unique among live rows", {}, {"unique": "live"}),
):
    scenario(
        f"a reference: {_name}",
        lambda old=_old: _refers(**old),
        lambda new=_new: _refers(**new),
        SHELVED,
        works="UPDATE books SET shelf_id = shelf_id",
    )
scenario(
    "a reference turns to another table",
    lambda: _refers("shelves"),
    lambda: _refers("racks"),
    "INSERT INTO shelves (name) VALUES ('s'); " + ONE,
    works="INSERT INTO racks (name) VALUES ('r'); UPDATE books SET shelf_id = (SELECT id FROM racks)",
)
scenario(
    "a reference turns to another column of its table",
    lambda: _refers(field="id", column_name="shelf"),
    lambda: _refers(field="code", column_name="shelf"),
    "INSERT INTO shelves (name) VALUES ('s'); " + ONE,
    works="UPDATE books SET shelf = 'c'",
)
scenario(
    "a plain column becomes a reference",
    lambda: [_shelved(kept=True)[0], books(shelf_id=UUIDField(null=True))],
    lambda: _shelved(kept=True),
    SHELVED,
    then={"SELECT s.name FROM books b JOIN shelves s ON s.id = b.shelf_id": [("s",)]},
)
scenario(
    "a reference becomes a plain column",
    lambda: _shelved(kept=True),
    lambda: [_shelved(kept=True)[0], books(shelf_id=UUIDField(null=True))],
    SHELVED,
    then={"SELECT s.name FROM books b JOIN shelves s ON s.id = b.shelf_id": [("s",)]},
)
scenario(
    "a unique column goes together with the reference to it",
    lambda: [
        shelf := model("a_shelves", code=CharField(20, unique=True)),
        books(shelf=ForeignKeyField(shelf, field="code", null=True)),
    ],
    lambda: [model("a_shelves"), books()],
    """INSERT INTO a_shelves (code) VALUES ('x'), ('y');
       INSERT INTO books (title, shelf_id) VALUES ('one', 'x')""",
)
scenario(
    "a unique index that a reference stands on is made in another way",
    lambda: [
        shelf := model("shelves", code=CharField(20, unique=True)),
        books(shelf=ForeignKeyField(shelf, field="code", null=True)),
    ],
    lambda: [
        shelf := model(
            "shelves",
            BaseModel,
            {
                "indexes": [
                    SQL("CREATE UNIQUE INDEX shelves_code_key ON shelves (code) NULLS NOT DISTINCT")
                ]
            },
            code=CharField(20),
        ),
        books(shelf=ForeignKeyField(shelf, field="code", null=True)),
    ],
    """INSERT INTO shelves (code) VALUES ('x');
       INSERT INTO books (title, shelf_id) VALUES ('one', 'x')""",
)
scenario(
    "a deferred reference becomes NOT NULL, with a fill",
    lambda: _refers(deferrable="INITIALLY DEFERRED"),
    lambda: _refers(deferrable="INITIALLY DEFERRED", null=False),
    "INSERT INTO shelves (name) VALUES ('s'); " + ONE,
    fills={"books.shelf_id": "(SELECT id FROM shelves LIMIT 1)"},
    then={"SELECT count(*) FROM books WHERE shelf_id IS NOT NULL": [(1,)]},
)
scenario(
    "a new reference that must be there is filled",
    lambda: [_refers()[0], books()],
    lambda: [
        shelf := model("shelves", name=TextField(), code=CharField(20, unique=True, default="c")),
        books(shelf=ForeignKeyField(shelf, on_delete="CASCADE")),
    ],
    "INSERT INTO shelves (name) VALUES ('s'); " + TWO,
    fills={"books.shelf_id": "(SELECT id FROM shelves WHERE name NOT LIKE '%x' LIMIT 1)"},
    then={"SELECT count(*) FROM books JOIN shelves ON shelves.id = shelf_id": [(2,)]},
)
scenario(
    "a reference that had to be there goes, and comes back to rows",
    lambda: [
        shelf := model("shelves", name=TextField()),
        books(shelf=ForeignKeyField(shelf)),
    ],
    lambda: [model("shelves", name=TextField()), books()],
    SHELVED,
)


# -- columns ------------------------------------------------------------------------------------

scenario(
    "a column that may be NULL comes",
    lambda: [books()],
    lambda: [books(pages=IntegerField(null=True))],
    ONE,
    then={"SELECT title, pages FROM books": [("one", None)]},
)
scenario(
    "a NOT NULL column with a default comes",
    lambda: [books()],
    lambda: [books(pages=IntegerField(default=7))],
    ONE,
    then={"SELECT title, pages FROM books": [("one", 7)]},
)
scenario(
    "a NOT NULL column comes with a fill",
    lambda: [books()],
    lambda: [books(slug=TextField())],
    ONE,
    fills={"books.slug": "upper(title) || '%'"},
    then={"SELECT slug FROM books": [("ONE%",)]},
)
scenario(
    "a column with a default comes with a fill for old rows",
    lambda: [books()],
    lambda: [books(state=TextField(default="new"))],
    ONE,
    fills={"books.state": "'old'"},
    then={"SELECT state FROM books": [("old",)]},
)
scenario(
    "a unique NOT NULL column comes with a fill",
    lambda: [books()],
    lambda: [books(slug=TextField(unique=True), code=UUIDField(unique="live"))],
    TWO,
    fills={"books.slug": "title", "books.code": "gen_random_uuid()"},
    then={"SELECT slug FROM books ORDER BY 1": [("one",), ("two",)]},
)
scenario(
    "columns of all types come at once",
    lambda: [books()],
    lambda: [
        books(
            a=IntegerField(default=1),
            b=BigIntegerField(default=-2),
            c=SmallIntegerField(default=3),
            d=BooleanField(default=False),
            e=DoubleField(default=0.5),
            f=DecimalField(max_digits=12, decimal_places=4, default=3),
            g=DateField(server_default="current_date"),
            h=DateTimeField(server_default="now()"),
            i=UUIDField(server_default="gen_random_uuid()"),
            j=JSONField(default={"a": ["b'", "%"]}),
            k=ArrayField(TextField(), default=["x", "y,z"]),
            l=ArrayField(IntegerField(), null=True),
            m=CharField(12, default="m"),
            n=EnumField(labels("glad", "sad"), default="glad"),
        )
    ],
    ONE,
    then={
        "SELECT a, b, c, d, e, f, m, n::text FROM books": [(1, -2, 3, False, 0.5, 3, "m", "glad")]
    },
)
scenario(
    "NOT NULL columns of all types go, and come back to rows",
    lambda: [
        books(
            a=IntegerField(),
            b=BigIntegerField(),
            c=SmallIntegerField(),
            d=BooleanField(),
            e=DoubleField(),
            f=DecimalField(max_digits=12, decimal_places=4),
            g=DateField(),
            h=DateTimeField(),
            i=UUIDField(),
            j=JSONField(),
            k=ArrayField(TextField()),
            m=CharField(12),
            n=EnumField(labels("glad", "sad")),
            o=peewee.TimeField(),
            p=peewee.DateTimeField(),
            q=peewee.BlobField(),
            r=postgres_ext.IntervalField(),
            s=postgres_ext.TSVectorField(index=False),
            t=peewee.FixedCharField(max_length=3),
            u=_of_type("timestamp(3) with time zone")(),
            v=_of_type("int4range")(),
            w=_of_type("inet")(),
            x=_of_type("bit(3)")(),
            y=_of_type("point")(),
        )
    ],
    lambda: [books()],
    """INSERT INTO books (title, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t, u, v, w,
       x, y) SELECT 'one', 1, 2, 3, true, 0.5, 1.5, now(), now(), gen_random_uuid(), '[]', '{}',
       'm', 'sad', '12:00', now(), 'q', '1 s', 's', 'ttt', now(), '[1,2]', '::1', B'101', '(1,2)'
       FROM generate_series(1, 2)""",
)
scenario(
    "a column that may be NULL goes",
    lambda: [books(pages=IntegerField(null=True))],
    lambda: [books()],
    "INSERT INTO books (title, pages) VALUES ('one', 3)",
    then={"SELECT title FROM books": [("one",)]},
)
scenario(
    "a unique NOT NULL column goes, and comes back to rows",
    lambda: [
        books(
            isbn=CharField(13, unique=True),
            shelf=TextField(unique=True),
            n=IntegerField(unique=True),
        )
    ],
    lambda: [books()],
    "INSERT INTO books (title, isbn, shelf, n) VALUES ('one', '1', '1', 1), ('two', '2', '2', 2)",
    then={"SELECT title FROM books ORDER BY 1": [("one",), ("two",)]},
)
scenario(
    "a column goes with the index, the check and the key that name it",
    lambda: [
        books(
            {
                "indexes": [(("title", "pages"), True), (("pages",), False)],
                "constraints": [
                    Check("pages > 0", "some_pages"),
                    Check("pages > 0 OR title <> ''", "some_text"),
                    SQL("CONSTRAINT books_both UNIQUE (pages, title)"),
                ],
            },
            pages=IntegerField(null=True),
        )
    ],
    lambda: [books()],
    "INSERT INTO books (title, pages) VALUES ('one', 3)",
)
scenario(
    "one column goes and another, of another type, comes",
    lambda: [books(pages=IntegerField(null=True))],
    lambda: [books(about=TextField(null=True))],
    "INSERT INTO books (title, pages) VALUES ('one', 3)",
    drops=("books.pages",),
    then={"SELECT title, about FROM books": [("one", None)]},
)
scenario(
    "a column becomes NOT NULL, with a fill",
    lambda: [books(pages=IntegerField(null=True))],
    lambda: [books(pages=IntegerField())],
    TWO + "; UPDATE books SET pages = 5 WHERE title = 'two'",
    fills={"books.pages": "length(title)"},
    then={"SELECT pages FROM books ORDER BY title": [(3,), (5,)]},
)
scenario(
    "a column becomes NOT NULL, with a default",
    lambda: [books(state=TextField(null=True))],
    lambda: [books(state=TextField(default="it's 5%"))],
    ONE,
    then={"SELECT state FROM books": [("it's 5%",)]},
)
scenario(
    "a column that has all values becomes NOT NULL",
    lambda: [books(pages=IntegerField(null=True))],
    lambda: [books(pages=IntegerField())],
    "INSERT INTO books (title, pages) VALUES ('one', 3)",
)
scenario(
    "a column may be NULL from now on",
    lambda: [books(pages=IntegerField())],
    lambda: [books(pages=IntegerField(null=True))],
    "INSERT INTO books (title, pages) VALUES ('one', 3)",
)


# -- types --------------------------------------------------------------------------------------


def _of_type(name: str) -> type[peewee.Field]:
    """A field of any SQL type."""
    return type("AnyField", (CheckedField,), {"field_type": name})


def _money(digits: int, places: int) -> Callable[[], Any]:
    return lambda: DecimalField(max_digits=digits, decimal_places=places)


def _list(inner: Any) -> Callable[[], Any]:
    return lambda: ArrayField(inner())


def _mood(*values: str, name: str = "Mood") -> Callable[[], Any]:
    return lambda: EnumField(labels(*values, name=name))


ID = "6f9619ff-8b86-d011-b42d-00c04fc964ff"
GLAD = _mood("glad", "sad")


def _any(name: str) -> Callable[[], Any]:
    return _of_type(name)


#: the field before and after, a value before as SQL, and as text after
RETYPED: dict[str, tuple[Any, Any, str, str]] = {
    "text to integer": (TextField, IntegerField, "'12'", "12"),
    "integer to text": (IntegerField, TextField, "12", "12"),
    "integer to bigint": (IntegerField, BigIntegerField, "12", "12"),
    "smallint to integer": (SmallIntegerField, IntegerField, "12", "12"),
    "bigint to integer": (BigIntegerField, IntegerField, "12", "12"),
    "a longer varchar": (lambda: CharField(10), lambda: CharField(20), "'abc'", "abc"),
    "a shorter varchar": (lambda: CharField(20), lambda: CharField(10), "'abc'", "abc"),
    "varchar to text": (CharField, TextField, "'abc'", "abc"),
    "text to varchar": (TextField, CharField, "'abc'", "abc"),
    "text to uuid": (TextField, UUIDField, f"'{ID.upper()}'", ID),
    "uuid to text": (UUIDField, TextField, f"'{ID}'", ID),
    "text to jsonb": (TextField, JSONField, """'{"a": "%"}'""", '{"a": "%"}'),
    "jsonb to text": (JSONField, TextField, """'{"a": "%"}'""", '{"a": "%"}'),
    "date to timestamptz": (DateField, DateTimeField, "'2024-01-01'", "2024-01-01 00:00:00+00"),
    "timestamptz to date": (DateTimeField, DateField, "'2024-01-01 00:00Z'", "2024-01-01"),
    "text to timestamptz": (TextField, DateTimeField, "'2024-01-01Z'", "2024-01-01 00:00:00+00"),
    "text to boolean": (TextField, BooleanField, "'yes'", "true"),
    "boolean to text": (BooleanField, TextField, "true", "true"),
    "integer to boolean": (IntegerField, BooleanField, "1", "true"),
    "boolean to integer": (BooleanField, IntegerField, "true", "1"),
    "bigint to boolean": (BigIntegerField, BooleanField, "1", "true"),
    "boolean to bigint": (BooleanField, BigIntegerField, "true", "1"),
    "integer to double": (IntegerField, DoubleField, "3", "3"),
    "double to integer": (DoubleField, IntegerField, "3", "3"),
    "more digits": (_money(6, 2), _money(12, 2), "1.25", "1.25"),
    "more places": (_money(6, 2), _money(12, 4), "1.25", "1.2500"),
    "fewer digits": (_money(12, 4), _money(8, 2), "1.2500", "1.25"),
    "integer to numeric": (IntegerField, _money(12, 2), "3", "3.00"),
    "numeric to integer": (_money(12, 2), IntegerField, "3", "3"),
    "text to numeric": (TextField, _money(12, 2), "'3.5'", "3.50"),
    "integer[] to bigint[]": (_list(IntegerField), _list(BigIntegerField), "'{1,2}'", "{1,2}"),
    "text[] to integer[]": (_list(TextField), _list(IntegerField), "'{1,2}'", "{1,2}"),
    "text to text[]": (TextField, _list(TextField), "'{a,b}'", "{a,b}"),
    "text to enum": (TextField, GLAD, "'sad'", "sad"),
    "enum to text": (GLAD, TextField, "'sad'", "sad"),
    "enum to another enum": (GLAD, _mood("sad", name="Face"), "'sad'", "sad"),
    "varchar to enum": (CharField, GLAD, "'sad'", "sad"),
    "enum to varchar": (GLAD, CharField, "'sad'", "sad"),
    "text to bytea": (TextField, _any("bytea"), r"'a\b'", r"\x615c62"),
    "bytea to text": (_any("bytea"), TextField, "'abc'", "abc"),
    "integer to integer[]": (IntegerField, _list(IntegerField), "5", "{5}"),
    "integer[] to integer": (_list(IntegerField), IntegerField, "'{5}'", "5"),
    "enum to enum[]": (GLAD, lambda: ArrayField(GLAD()), "'sad'", "{sad}"),
    "enum[] to text[]": (lambda: ArrayField(GLAD()), _list(TextField), "'{sad}'", "{sad}"),
    "uuid to jsonb": (UUIDField, JSONField, f"'{ID}'", f'"{ID}"'),
    "jsonb to uuid": (JSONField, UUIDField, f"""'"{ID}"'""", ID),
    "numeric to boolean": (_money(5, 0), BooleanField, "1", "true"),
    "char to varchar": (_any("character(5)"), lambda: CharField(9), "'ab'", "ab"),
    "text to interval": (TextField, _any("interval"), "'1 day'", "1 day"),
    "integer to text[]": (IntegerField, _list(TextField), "5", "{5}"),
}


def _retyped(place: int, changes: list[tuple[Any, Any, str, str]]) -> list[Any]:
    """Books of which each column is indexed with another, and in a check."""
    fields = {f"x{n}": change[place]() for n, change in enumerate(changes)}
    indexes = [((name, "title"), False) for name in fields]
    checks = [Check(f"{name} IS NOT NULL", f"there_is_{name}") for name in fields]
    return [books({"indexes": indexes, "constraints": checks}, **fields)]


for _names in zip(*[iter(RETYPED)] * 5, strict=True):
    _changes = [RETYPED[name] for name in _names]
    _columns = [f"x{n}" for n in range(len(_changes))]
    scenario(
        f"type: {', '.join(_names)}",
        lambda changes=_changes: _retyped(0, changes),
        lambda changes=_changes: _retyped(1, changes),
        f"INSERT INTO books (title, {', '.join(_columns)}) "
        f"VALUES ('one', {', '.join(value for _, _, value, _ in _changes)})",
        then={
            f"SELECT {', '.join(f'{one}::text' for one in _columns)} FROM books": [
                tuple(found for *_, found in _changes)
            ]
        },
    )
scenario(
    "type: timestamp to timestamptz, json to jsonb",
    lambda: [books(at=peewee.DateTimeField(), j=_of_type("json")())],
    lambda: [books(at=DateTimeField(), j=JSONField())],
    """SET TimeZone = 'Asia/Tokyo';
       INSERT INTO books (title, at, j) VALUES ('one', '2024-01-01 00:00', '{"b":1, "a":2}')""",
    then={
        "SELECT (at AT TIME ZONE 'UTC')::text, j::text FROM books": [
            ("2024-01-01 00:00:00", '{"a": 2, "b": 1}')
        ]
    },
)
scenario(
    "type: text with a default and a partial index becomes an enum",
    lambda: [
        indexed(
            SQL("CREATE INDEX sad_books ON books (title) WHERE mood = 'sad'"),
            mood=TextField(default="sad"),
        )
    ],
    lambda: [
        indexed(
            SQL("CREATE INDEX sad_books ON books (title) WHERE mood = 'sad'"),
            mood=EnumField(labels("glad", "sad"), default="sad"),
        )
    ],
    ONE,
    then={"SELECT mood::text FROM books": [("sad",)]},
)
scenario(
    "type: a column with a default changes both",
    lambda: [books(size=TextField(default="10"))],
    lambda: [books(size=IntegerField(default=20))],
    ONE,
    then={"SELECT size FROM books": [(10,)]},
)
scenario(
    "type: a column becomes NOT NULL as well, with a fill",
    lambda: [books(size=TextField(null=True))],
    lambda: [books(size=IntegerField())],
    ONE,
    fills={"books.size": "42"},
    then={"SELECT size FROM books": [(42,)]},
)


def _keyed(kind: Any, own: Any) -> list[Any]:
    shelf = plain("shelves", id=kind(primary_key=True), parent=_self(kind))
    return [shelf, plain("rows", id=own(primary_key=True), shelf=ForeignKeyField(shelf))]


def _self(kind: Any) -> Any:
    return ForeignKeyField("self", null=True)


scenario(
    "type: a key and all that refers to it",
    lambda: _keyed(IntegerField, IntegerField),
    lambda: _keyed(BigIntegerField, IntegerField),
    "INSERT INTO shelves VALUES (1, NULL), (2, 1); INSERT INTO rows VALUES (1, 2)",
    then={"SELECT id, parent_id FROM shelves ORDER BY 1": [(1, None), (2, 1)]},
    works="INSERT INTO shelves VALUES (9999999999, 2)",
)
scenario(
    "type: a column whose name is part of an index's name, beside a unique column referred to",
    lambda: [
        shelf := model("shelves", code=CharField(20, unique=True), k=IntegerField(null=True)),
        books(shelf=ForeignKeyField(shelf, field="code", null=True)),
    ],
    lambda: [
        shelf := model("shelves", code=CharField(20, unique=True), k=BigIntegerField(null=True)),
        books(shelf=ForeignKeyField(shelf, field="code", null=True)),
    ],
    "INSERT INTO shelves (code) VALUES ('x'); "
    "INSERT INTO books (title, shelf_id) VALUES ('one', 'x')",
)
scenario(
    "a collation comes",
    lambda: [books(code=TextField(default="x", index=True))],
    lambda: [books(code=TextField(default="x", index=True, collation='"C"'))],
    ONE,
)
scenario(
    "a collation goes",
    lambda: [books(code=TextField(default="x", index=True, collation='"C"'))],
    lambda: [books(code=TextField(default="x", index=True))],
    ONE,
)


# -- server defaults ----------------------------------------------------------------------------

HARD_TEXTS = {
    "a quote": "it's",
    "a percent sign": "100%",
    "percent s": "%s and %(name)s %%",
    "a backslash": r"C:\new\table",
    "a backslash at the end": "back\\",
    "a newline": "line one\n  line two\n\nline four",
    "a tab": "a\tb\rc",
    "unicode": "Größe ☃ 漢字",
    "double quotes": '"quoted" """three"""',
    "a keyword": 'x CHECK y WHERE " z \' USING " w',
    "dollars": "$$ $1 {0}",
    "nothing": "",
}


def _texts(text: str, *more: Any) -> list[Any]:
    """A text in all places where there can be one."""
    book = books(
        {"comment": text or None},
        state=TextField(default=text, comment=text or None),
        other=CharField(200, null=True, default=text),
    )
    return [book, *more]


for _name, _text in HARD_TEXTS.items():
    scenario(
        f"defaults and comments: with {_name}",
        lambda: _texts("was"),
        lambda text=_text: _texts(
            text, model("notes", BaseModel, {"comment": text or None}, text=TextField(default=text))
        ),
        ONE,
        then={"SELECT state, other FROM books": [("was", "was")]},
        works="INSERT INTO books (title) VALUES ('two')",
    )
scenario(
    "default: goes",
    lambda: [books(state=TextField(default="new"), n=IntegerField(default=3))],
    lambda: [books(state=TextField(), n=IntegerField(null=True))],
    ONE,
    then={"SELECT state, n FROM books": [("new", 3)]},
)
scenario(
    "default: comes",
    lambda: [books(state=TextField(null=True), n=IntegerField(null=True))],
    lambda: [
        books(state=TextField(null=True, default="new"), n=IntegerField(null=True, default=-1))
    ],
    ONE,
    then={"SELECT state, n FROM books": [(None, None)]},
)
scenario(
    "default: an expression with a percent sign",
    lambda: [books(state=TextField(null=True))],
    lambda: [books(state=TextField(server_default="to_char(now(), 'YYYY') || '%%'"))],
    "INSERT INTO books (title, state) VALUES ('one', 'x')",
)
scenario(
    "default: JSON and arrays change",
    lambda: [books(j=JSONField(default={}), a=ArrayField(TextField(), default=[]))],
    lambda: [
        books(
            j=JSONField(default={"it's": ["%", "\\", '"']}),
            a=ArrayField(TextField(), default=["it's", "%", "\\", '"']),
        )
    ],
    ONE,
    then={"SELECT j::text, a FROM books": [("{}", [])]},
)


# -- generated columns --------------------------------------------------------------------------


def _generated(expression: str | None, kind: Any = TextField, **more: Any) -> Any:
    return kind(null=True, generated=expression, **more)


scenario(
    "generated: a column comes",
    lambda: [books()],
    lambda: [books(lower=_generated("lower(title) || '%%'"))],
    "INSERT INTO books (title) VALUES ('ONE')",
    then={"SELECT lower FROM books": [("one%",)]},
)
scenario(
    "generated: a column that stands before the one it is made of",
    lambda: [books()],
    lambda: [books(a_twice=_generated("pages * 2", IntegerField), pages=IntegerField(default=2))],
    ONE,
    then={"SELECT a_twice FROM books": [(4,)]},
)
scenario(
    "generated: a table comes with one",
    list,
    lambda: [books(twice=_generated("2 * pages", IntegerField), pages=IntegerField(default=1))],
)
scenario(
    "generated: the expression of an indexed column changes",
    lambda: [books(lower=_generated("lower(title)", index=True))],
    lambda: [books(lower=_generated("upper(title)", index=True))],
    ONE,
    then={"SELECT lower FROM books": [("ONE",)]},
)
scenario(
    "generated: a unique column with a check and a comment changes its expression",
    lambda: [
        checked(
            Check("length(lower) > 1", "long_enough"),
            lower=_generated("lower(title)", unique=True, comment="it's"),
        )
    ],
    lambda: [
        checked(
            Check("length(lower) > 1", "long_enough"),
            lower=_generated("lower(title || 'x')", unique=True, comment="it's"),
        )
    ],
    TWO,
)
scenario(
    "generated: a column becomes a plain one",
    lambda: [books(lower=_generated("lower(title)"))],
    lambda: [books(lower=_generated(None))],
    "INSERT INTO books (title) VALUES ('ONE')",
    then={"SELECT lower FROM books": [("one",)]},
    works="UPDATE books SET lower = 'x'",
)
scenario(
    "generated: a plain column becomes one",
    lambda: [books(lower=_generated(None, index=True))],
    lambda: [books(lower=_generated("lower(title)", index=True))],
    "INSERT INTO books (title) VALUES ('ONE')",
    drops=("books.lower",),
    then={"SELECT lower FROM books": [("one",)]},
)
scenario(
    "generated: the column below changes its type",
    lambda: [books(pages=IntegerField(default=2), twice=_generated("pages * 2", BigIntegerField))],
    lambda: [
        books(
            pages=BigIntegerField(default=2),
            twice=_generated("pages * 2", BigIntegerField, index=True),
        )
    ],
    ONE,
    then={"SELECT twice FROM books": [(4,)]},
)
scenario(
    "generated: the column below goes and the expression changes",
    lambda: [books(pages=IntegerField(default=2), n=_generated("pages * 2", IntegerField))],
    lambda: [books(n=_generated("length(title)", IntegerField))],
    ONE,
    then={"SELECT n FROM books": [(3,)]},
)
scenario(
    "generated: the column below goes with it",
    lambda: [books(pages=IntegerField(default=2), a_n=_generated("pages * 2", IntegerField))],
    lambda: [books()],
    ONE,
)
scenario(
    "generated: the column below is renamed",
    lambda: [books(pages=IntegerField(default=2), n=_generated("pages * 2", IntegerField))],
    lambda: [books(leaves=IntegerField(default=2), n=_generated("leaves * 2", IntegerField))],
    ONE,
    renames=("books.pages:leaves",),
    then={"SELECT leaves, n FROM books": [(2, 4)]},
)
scenario(
    "generated: the enum below loses a label",
    lambda: [
        books(
            mood=EnumField(labels("glad", "sad"), default="glad"),
            is_sad=_generated("mood = 'sad'", BooleanField),
        )
    ],
    lambda: [
        books(
            mood=EnumField(labels("sad", "glad"), default="glad"),
            is_sad=_generated("mood = 'sad'", BooleanField),
        )
    ],
    ONE,
    then={"SELECT mood::text, is_sad FROM books": [("glad", False)]},
)


# -- comments -----------------------------------------------------------------------------------

scenario(
    "comment: goes",
    lambda: [books({"comment": "all books"}, pages=IntegerField(default=1, comment="it's"))],
    lambda: [books(pages=IntegerField(default=1))],
    ONE,
)


# -- indexes ------------------------------------------------------------------------------------

SEVERAL = {"a": IntegerField, "b": IntegerField, "j": JSONField}


def _several(*indexes: Any, **meta: Any) -> list[Any]:
    columns = {
        "a": IntegerField(default=1),
        "b": IntegerField(null=True),
        "j": JSONField(default={}),
        "tags": ArrayField(TextField(), default=[]),
    }
    return [books({"indexes": list(indexes), **meta}, **columns)]


INDEXES = {
    "of two columns": (("a", "b"), False),
    "unique": (("title", "a"), True),
    "unique among live rows": (("title", "b"), "live"),
    "partial": SQL("CREATE INDEX books_some ON books (a) WHERE b > 3 AND title LIKE '%%x'"),
    "of an expression": SQL("CREATE INDEX books_lower ON books (lower(title))"),
    "unique of an expression": SQL("CREATE UNIQUE INDEX books_lowest ON books (lower(title), a)"),
    "descending": SQL("CREATE INDEX books_down ON books (a DESC, b DESC NULLS LAST)"),
    "nulls first": SQL("CREATE INDEX books_nulls ON books (b NULLS FIRST)"),
    "GIN on jsonb": SQL("CREATE INDEX books_j ON books USING gin (j)"),
    "GIN with an operator class": SQL(
        "CREATE INDEX books_ops ON books USING gin (j jsonb_path_ops)"
    ),
    "GIN on an array": SQL("CREATE INDEX books_tags ON books USING gin (tags)"),
    "hash": SQL("CREATE INDEX books_hash ON books USING hash (title)"),
    "BRIN": SQL(
        "CREATE INDEX books_brin ON books USING brin (created_at) WITH (pages_per_range=8)"
    ),
    "with more columns": SQL("CREATE INDEX books_more ON books (a) INCLUDE (b, title)"),
    "with a pattern operator class": SQL(
        "CREATE INDEX books_like ON books (title text_pattern_ops)"
    ),
    "with a collation": SQL('CREATE INDEX books_c ON books (title COLLATE "C")'),
    "nulls not distinct": SQL(
        "CREATE UNIQUE INDEX books_same_nulls ON books (title, b) NULLS NOT DISTINCT"
    ),
    "of an expression with quotes": SQL(
        "CREATE INDEX books_json ON books ((j ->> 'it''s %%'), (a + 1)) WHERE j ? 'x'"
    ),
    "with a filling": SQL("CREATE INDEX books_fill ON books (a) WITH (fillfactor = 70)"),
    "with a name of 63 letters": SQL(f"CREATE INDEX {'i' * 63} ON books (a)"),
    "with a hard name": SQL('CREATE INDEX "Books ""a"" %% WHERE" ON books (a)'),
}
for _names in zip(*[iter(INDEXES)] * 3, strict=True):
    scenario(
        f"index: {'; '.join(_names)}",
        lambda: _several(),
        lambda names=_names: _several(*(INDEXES[name] for name in names)),
        TWO,
    )
scenario("index: all of them go", lambda: _several(*INDEXES.values()), lambda: _several(), TWO)
scenario(
    "index: the order of its columns changes",
    lambda: _several((("a", "b"), False)),
    lambda: _several((("b", "a"), False)),
    TWO,
)
scenario(
    "index: its condition changes under the same name",
    lambda: _several(SQL("CREATE INDEX books_some ON books (a) WHERE b > 3")),
    lambda: _several(SQL("CREATE INDEX books_some ON books (a) WHERE b > 4")),
    TWO,
)
scenario(
    "index: a plain one becomes unique",
    lambda: [books(code=IntegerField(null=True, index=True))],
    lambda: [books(code=IntegerField(null=True, unique=True))],
    TWO,
)
scenario(
    "index: a unique one becomes unique among live rows",
    lambda: [books(code=IntegerField(null=True, unique=True))],
    lambda: [books(code=IntegerField(null=True, unique="live"))],
    TWO,
)
scenario(
    "index: gets another name",
    lambda: _several(SQL("CREATE INDEX books_old ON books (a) WHERE b > 3")),
    lambda: _several(SQL("CREATE INDEX books_new ON books (a) WHERE b > 3")),
    TWO,
    renames=("books_old:books_new",),
)
scenario(
    "index: gets another name, and nobody says so",
    lambda: _several(SQL("CREATE INDEX books_old ON books (a) WHERE b > 3")),
    lambda: _several(SQL("CREATE INDEX books_new ON books (a) WHERE b > 3")),
    TWO,
)
scenario(
    "index: two of expressions without names",
    lambda: [books()],
    lambda: [indexed(((SQL("lower(title)"),), False), ((SQL("upper(title)"),), False))],
    TWO,
)
scenario(
    "index: of Peewee's own models and of its fields",
    list,
    lambda: [
        stock(
            "Stock",
            {"indexes": [(("a", "e"), True)]},
            a=peewee.CharField(index=True),
            e=peewee.IntegerField(default=1),
            b=postgres_ext.ArrayField(peewee.IntegerField),
            c=postgres_ext.BinaryJSONField(null=True),
            d=postgres_ext.TSVectorField(null=True),
        )
    ],
)


# -- CHECK and other constraints ----------------------------------------------------------------

CHECKS = {
    "plain": Check("pages > 0", "some_pages"),
    "with a percent sign": Check("title NOT LIKE '%%\\%%'", "no_percent"),
    "with quotes": Check("title <> 'it''s \"x\"'", "no_quote"),
    "with a list": Check("title IN ('one', 'two', 'a, b')", "known"),
    "with a newline": Check("title <> 'a\n    b'", "no_newline"),
    "with keywords in texts": Check(
        "title <> 'a '' WHERE \" b \" CHECK (c) FOREIGN KEY d USING REFERENCES \" e'", "keywords"
    ),
    "without a name": Check("pages < 10000"),
    "with a hard name": Check("pages > 0", "Some ''pages\"\" %%"),
    "of two columns": Check("pages > length(title)", "two"),
}
for _names in zip(*[iter(CHECKS)] * 3, strict=True):
    scenario(
        f"check: {'; '.join(_names)}",
        lambda: [books(pages=IntegerField(default=9))],
        lambda names=_names: [
            checked(*(CHECKS[name] for name in names), pages=IntegerField(default=9))
        ],
        TWO,
    )
scenario(
    "check: changes",
    lambda: [checked(Check("pages > 0", "some_pages"), pages=IntegerField(default=9))],
    lambda: [checked(Check("pages > 1", "some_pages"), pages=IntegerField(default=9))],
    TWO,
)
scenario(
    "check: goes",
    lambda: [checked(*CHECKS.values(), pages=IntegerField(default=9))],
    lambda: [books(pages=IntegerField(default=9))],
    "INSERT INTO books (title) VALUES ('one')",
)
scenario(
    "check: of a column",
    lambda: [books(pages=IntegerField(default=9))],
    lambda: [books(pages=IntegerField(default=9, constraints=[Check("pages % 3 = 0")]))],
    TWO,
)
scenario(
    "constraint: unique, deferrable",
    lambda: [books()],
    lambda: [checked(SQL("CONSTRAINT one_title UNIQUE (title) DEFERRABLE INITIALLY DEFERRED"))],
    TWO,
)
scenario(
    "constraint: unique, with another column, changes",
    lambda: [checked(SQL("CONSTRAINT one_title UNIQUE (title)"), n=IntegerField(default=1))],
    lambda: [checked(SQL("CONSTRAINT one_title UNIQUE (title, n)"), n=IntegerField(default=1))],
    TWO,
)
scenario(
    "constraint: exclusion",
    lambda: [books(during=_of_type("tstzrange")(null=True))],
    lambda: [
        checked(
            SQL("CONSTRAINT apart EXCLUDE USING gist (during WITH &&) WHERE (deleted_at IS NULL)"),
            during=_of_type("tstzrange")(null=True),
        )
    ],
    TWO,
)
scenario(
    "constraint: a unique constraint becomes a unique index",
    lambda: [checked(SQL("CONSTRAINT books_title_key UNIQUE (title)"))],
    lambda: [books(title=TextField(unique=True))],
    TWO,
)


# -- keys, sequences, many to many --------------------------------------------------------------


def _pairs(*key: str, **columns: Any) -> list[Any]:
    return [
        plain(
            "pairs",
            {"primary_key": CompositeKey(*key)},
            a=IntegerField(),
            b=IntegerField(),
            **columns,
        )
    ]


PAIRS = "INSERT INTO pairs (a, b) VALUES (1, 2), (3, 4)"
scenario("key: a composite one comes", list, lambda: _pairs("a", "b"), works=PAIRS)
scenario(
    "key: a composite one has its columns in another order",
    lambda: _pairs("a", "b"),
    lambda: _pairs("b", "a"),
    PAIRS,
)
scenario(
    "key: a composite one gets a column more",
    lambda: _pairs("a", "b"),
    lambda: _pairs("a", "b", "c", c=TextField(default="it's")),
    PAIRS,
)
scenario(
    "key: a composite one becomes a serial",
    lambda: _pairs("a", "b"),
    lambda: [
        plain(
            "pairs", id=AutoField(), a=IntegerField(), b=IntegerField(null=True)
        )
    ],
    PAIRS,
    works="INSERT INTO pairs (a) VALUES (5)",
)  # fmt: skip
scenario(
    "key: of references, composite",
    lambda: [model("authors", name=TextField()), books()],
    lambda: [
        author := model("authors", name=TextField()),
        book := books(),
        plain(
            "authorships",
            {"primary_key": CompositeKey("book", "author")},
            author=ForeignKeyField(author, on_delete="CASCADE"),
            book=ForeignKeyField(book, on_delete="CASCADE"),
        ),
    ],
    ONE,
)
scenario(
    "key: serial and identity columns of all sizes",
    list,
    lambda: [
        plain("s1", id=AutoField(), x=TextField(null=True)),
        plain("s2", id=BigAutoField(), x=TextField(null=True)),
        plain("s3", id=IdentityField(), x=TextField(null=True)),
        plain("s4", id=IdentityField(generate_always=True), x=TextField(null=True)),
    ],
    works=";".join(f"INSERT INTO s{n} (x) VALUES ('x'), ('y')" for n in range(1, 5)),
)


def _numbered(kind: Any, **more: Any) -> list[Any]:
    return [plain("nums", id=kind, x=TextField(null=True), **more)]


NUMBERED = "INSERT INTO nums (x) VALUES ('a'), ('b'), ('c')"
MORE = "INSERT INTO nums (x) VALUES ('d')"
KEYS = {
    "an integer": lambda: IntegerField(primary_key=True),
    "a serial": AutoField,
    "a bigserial": BigAutoField,
    "an identity": IdentityField,
    "an identity always": lambda: IdentityField(generate_always=True),
}
for _old, _new in (
    ("a serial", "a bigserial"),
    ("a bigserial", "a serial"),
    ("a serial", "an identity"),
    ("an identity", "a serial"),
    ("an identity", "an identity always"),
    ("an identity always", "an identity"),
    ("an integer", "a serial"),
    ("an integer", "an identity"),
    ("a bigserial", "an identity"),
    ("a serial", "an integer"),
):
    scenario(
        f"key: {_old} becomes {_new}",
        lambda old=_old: _numbered(KEYS[old]()),
        lambda new=_new: _numbered(KEYS[new]()),
        NUMBERED
        if _old != "an integer"
        else "INSERT INTO nums VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        then={"SELECT id, x FROM nums ORDER BY 1": [(1, "a"), (2, "b"), (3, "c")]},
        works=MORE if _new != "an integer" else "",
    )
scenario(
    "sequence: a named one comes",
    lambda: _numbered(IntegerField(primary_key=True)),
    lambda: _numbered(IntegerField(primary_key=True, sequence="num_seq")),
    works=MORE,
)
scenario(
    "sequence: a named one goes",
    lambda: _numbered(IntegerField(primary_key=True, sequence="num_seq")),
    lambda: _numbered(IntegerField(primary_key=True)),
    NUMBERED,
)
scenario(
    "sequence: a table of a long name with a serial, renamed",
    lambda: [plain("t" * 63, id=AutoField(), x=TextField(null=True))],
    lambda: [plain("u" * 63, id=AutoField(), x=TextField(null=True))],
    f"INSERT INTO {'t' * 63} (x) VALUES ('a'), ('b')",
    renames=(f"{'t' * 63}:{'u' * 63}",),
    then={f"SELECT id, x FROM {'u' * 63} ORDER BY 1": [(1, "a"), (2, "b")]},
    works=f"INSERT INTO {'u' * 63} (x) VALUES ('c')",
)


def _tagged(**more: Any) -> list[Any]:
    tag = model("tags", name=TextField())
    return [tag, books(tags=peewee.ManyToManyField(tag, backref="books", **more))]


scenario(
    "many to many comes",
    lambda: [model("tags", name=TextField()), books()],
    _tagged,
    f"{ONE}; INSERT INTO tags (name) VALUES ('t')",
    works="INSERT INTO books_tags_through (books_id, tags_id) SELECT b.id, t.id FROM books b, tags t",
)
scenario(
    "many to many goes",
    _tagged,
    lambda: [model("tags", name=TextField()), books()],
    ONE,
    drops=("books_tags_through",),
)
scenario("many to many: on_delete changes", _tagged, lambda: _tagged(on_delete="CASCADE"), ONE)


# -- enums --------------------------------------------------------------------------------------


def _moods(*values: str, default: str | None = "glad", **more: Any) -> list[Any]:
    given = {"null": True} if default is None else {"default": default}
    return [books(mood=EnumField(labels(*values), **given, **more))]


def _mood_change(name: str, old: Any, new: Any, **more: Any) -> None:
    mood = {"SELECT title, mood::text FROM books": [("one", "glad")]}
    scenario(
        f"enum: {name}",
        lambda: _moods(*old),
        lambda: _moods(*new),
        ONE,
        **{"then": mood, **more},
    )


_mood_change("a label at the beginning", ("glad", "sad"), ("angry", "glad", "sad"))
_mood_change("a label in the middle", ("glad", "sad"), ("glad", "so-so", "sad"))
_mood_change("a label at the end", ("glad", "sad"), ("glad", "sad", "angry"))
_mood_change(
    "labels everywhere", ("glad", "sad"), ("a", "b", "glad", "c", "d", "sad", "e", "f"),
    works="INSERT INTO books (title, mood) VALUES ('two', 'f')",
)  # fmt: skip
_mood_change(
    "labels that are hard to write",
    ("glad", "sad"),
    ("it's", "glad", 'say "hi"', "a, b", "50% \\ off", "sad", "漢字", "{x}", " ", "NULL", 'end"'),
    works="""INSERT INTO books (title, mood) VALUES ('two', 'end"'), ('x', '50% \\ off')""",
)
_mood_change("a label goes that no row has", ("glad", "sad"), ("glad",))
_mood_change("the order changes", ("glad", "sad", "angry"), ("angry", "sad", "glad"))
_mood_change(
    "a label goes and another comes", ("glad", "sad"), ("glad", "angry"), drops=("mood.sad",)
)
scenario(
    "enum: a label that is the default is renamed",
    lambda: _moods("glad", "sad"),
    lambda: _moods("happy", "sad", default="happy"),
    ONE,
    renames=("mood.glad:happy",),
    then={"SELECT mood::text FROM books": [("happy",)]},
)
scenario(
    "enum: a label is renamed to one that is hard to write",
    lambda: _moods("glad", 'it\'s "bad"'),
    lambda: _moods("glad", 'v1.0: it\'s 100% "good"'),
    ONE,
    renames=('mood.it\'s "bad":v1.0: it\'s 100% "good"',),
)
scenario(
    "enum: labels are renamed, added and put in another order at once",
    lambda: _moods("glad", "sad", "angry"),
    lambda: _moods("mad", "new", "happy", "sad", default="happy"),
    ONE,
    renames=("mood.glad:happy", "mood.angry:mad"),
    then={"SELECT mood::text FROM books": [("happy",)]},
)
scenario(
    "enum: a new label is the default at once",
    lambda: _moods("glad", "sad"),
    lambda: _moods("glad", "sad", "angry", default="angry"),
    ONE,
    then={"SELECT mood::text FROM books": [("glad",)]},
    works=ONE.replace("one", "two"),
)
scenario(
    "enum: a new label is used in a check, a partial index and a fill at once",
    lambda: _moods("glad", "sad", default=None),
    lambda: [
        books(
            {
                "constraints": [Check("mood <> 'angry' OR title <> ''", "no_anger")],
                "indexes": [SQL("CREATE INDEX angry ON books (title) WHERE mood = 'angry'")],
            },
            mood=EnumField(labels("glad", "sad", "angry")),
        )
    ],
    ONE,
    fills={"books.mood": "'sad'"},
    then={"SELECT mood::text FROM books": [("sad",)]},
    works="INSERT INTO books (title, mood) VALUES ('two', 'angry')",
)
scenario(
    "enum: a type comes with a NOT NULL column",
    lambda: [books()],
    lambda: _moods("glad", "sad"),
    ONE,
    then={"SELECT mood::text FROM books": [("glad",)]},
)
scenario(
    "enum: a type goes with its column",
    lambda: _moods("glad", "it's"),
    lambda: [books()],
    ONE,
)
scenario(
    "enum: a NOT NULL column goes and its type stays",
    lambda: [books(a=EnumField(labels("glad")), b=EnumField(labels("glad"), null=True))],
    lambda: [books(b=EnumField(labels("glad"), null=True))],
    "INSERT INTO books (title, a) VALUES ('one', 'glad')",
)
scenario(
    "enum: a type is renamed",
    lambda: [books(mood=EnumField(labels("glad", "sad"), default="glad", type_name="mood"))],
    lambda: [books(mood=EnumField(labels("glad", "sad"), default="glad", type_name='My "Face"'))],
    ONE,
    renames=('mood:My "Face"',),
    then={"SELECT mood::text FROM books": [("glad",)]},
)
scenario(
    "enum: a type gets another name, and nobody says so",
    lambda: [books(mood=EnumField(labels("glad", "sad"), default="glad", type_name="mood"))],
    lambda: [books(mood=EnumField(labels("glad", "sad"), default="glad", type_name="face"))],
    ONE,
    then={"SELECT mood::text FROM books": [("glad",)]},
)


def _mood_lists(*values: str, default: list[str]) -> list[Any]:
    return [books(moods=ArrayField(EnumField(labels(*values)), default=default))]


scenario(
    "enum: an array comes",
    lambda: [books()],
    lambda: _mood_lists("glad", "it's", "a, b", default=["it's", "a, b"]),
    ONE,
    then={"SELECT moods::text[] FROM books": [(["it's", "a, b"],)]},
)
scenario(
    "enum: an array's type gets a label",
    lambda: _mood_lists("glad", "sad", default=["glad"]),
    lambda: _mood_lists("glad", "sad", "angry", default=["angry"]),
    ONE,
    then={"SELECT moods::text[] FROM books": [(["glad"],)]},
)
scenario(
    "enum: an array's type loses a label",
    lambda: _mood_lists("glad", "sad", default=["glad"]),
    lambda: _mood_lists("glad", default=["glad"]),
    ONE,
    then={"SELECT moods::text[] FROM books": [(["glad"],)]},
)
scenario(
    "enum: a type used in two tables, an index, a check and a default loses a label",
    lambda: _two_moods("glad", "sad", "angry"),
    lambda: _two_moods("angry", "glad"),
    f"{ONE}; INSERT INTO notes (mood) VALUES ('angry')",
    then={"SELECT mood::text FROM notes": [("angry",)]},
)


def _two_moods(*values: str) -> list[Any]:
    kind = labels(*values)
    book = books(
        {
            "indexes": [
                (("mood", "title"), True),
                SQL("CREATE INDEX books_glad ON books (title) WHERE mood = 'glad'"),
            ],
            "constraints": [Check("mood IN ('glad', 'angry')", "no_third")],
        },
        mood=EnumField(kind, default="glad"),
    )
    return [book, model("notes", mood=EnumField(kind, null=True, index=True))]


# -- schemas ------------------------------------------------------------------------------------


def _billing(**columns: Any) -> Any:
    return model(
        "books", BaseModel, {"schema": "billing"}, price=IntegerField(index=True), **columns
    )


scenario(
    "schema: comes with a table of the same name as another",
    lambda: [books()],
    lambda: [books(), _billing()],
    ONE,
    works="INSERT INTO billing.books (price) VALUES (1)",
)
scenario(
    "schema: goes with its table",
    lambda: [books(), _billing()],
    lambda: [books()],
    f"{ONE}; INSERT INTO billing.books (price) VALUES (1)",
    drops=("billing.books",),
)
scenario(
    "schema: twins change, each in its own way",
    lambda: [books(code=TextField(null=True)), _billing(code=TextField(null=True))],
    lambda: [books(code=IntegerField(null=True)), _billing(code=TextField(default="x%"))],
    f"{ONE}; INSERT INTO billing.books (price) VALUES (1)",
    then={"SELECT code FROM billing.books": [("x%",)], "SELECT code FROM books": [(None,)]},
)
scenario(
    "schema: a column of one of the twins is filled",
    lambda: [books(), _billing()],
    lambda: [books(code=TextField(null=True)), _billing(code=TextField())],
    f"{ONE}; INSERT INTO billing.books (price) VALUES (1)",
    fills={"billing.books.code": "'it''s'"},
    then={"SELECT code FROM billing.books": [("it's",)], "SELECT code FROM books": [(None,)]},
)
scenario(
    "schema: a column of one of the twins is renamed",
    lambda: [books(code=TextField(null=True)), _billing(code=TextField(null=True))],
    lambda: [books(code=TextField(null=True)), _billing(mark=TextField(null=True))],
    f"{ONE}; INSERT INTO billing.books (price, code) VALUES (1, 'c')",
    renames=("billing.books.code:mark",),
    then={"SELECT mark FROM billing.books": [("c",)]},
)
scenario(
    "schema: a table moves to another schema with its rows",
    lambda: [model("notes", text=TextField(unique=True), mood=EnumField(labels("glad"), null=True))],
    lambda: [
        model(
            "notes", BaseModel, {"schema": "Office"},
            text=TextField(unique=True), mood=EnumField(labels("glad"), null=True),
        )
    ],
    "INSERT INTO notes (text) VALUES ('x')",
    renames=("notes:Office.notes",),
    then={'SELECT text FROM "Office".notes': [("x",)]},
)  # fmt: skip
scenario(
    "schema: a table with a serial that others refer to moves and gets another name",
    lambda: [
        note := plain("notes", id=AutoField(), text=TextField()),
        plain("lines", id=IdentityField(), note=ForeignKeyField(note)),
    ],
    lambda: [
        memo := plain("memos", {"schema": "office"}, id=AutoField(), text=TextField()),
        plain("lines", id=IdentityField(), note=ForeignKeyField(memo)),
    ],
    "INSERT INTO notes (text) VALUES ('x'); INSERT INTO lines (note_id) VALUES (1)",
    renames=("public.notes:office.memos",),
    then={"SELECT id, text FROM office.memos": [(1, "x")]},
    works="INSERT INTO office.memos (text) VALUES ('y')",
)
scenario(
    "schema: a reference over schemas",
    lambda: [books()],
    lambda: [
        book := books(),
        model("prices", BaseModel, {"schema": "billing"}, book=ForeignKeyField(book)),
        model("books", BaseModel, {"schema": "a-b"}, book=ForeignKeyField(book)),
    ],
    ONE,
    works="INSERT INTO billing.prices (book_id) SELECT id FROM books",
)


# -- names --------------------------------------------------------------------------------------

scenario(
    "names: reserved words",
    list,
    lambda: [
        group := model("group", select=TextField(index=True), order=IntegerField(default=1)),
        model(
            "user",
            table=ForeignKeyField(group, column_name="table"),
            check=BooleanField(default=True),
            default=TextField(default="default"),
        ),
    ],
    works="""INSERT INTO "group" ("select") VALUES ('x')""",
)
scenario(
    "names: reserved words change",
    lambda: [model("group", select=TextField(index=True), limit=IntegerField(default=1))],
    lambda: [
        model(
            "group",
            select=CharField(9, index=True, comment="%"),
            limit=BigIntegerField(null=True),
            primary=TextField(default="p"),
        )
    ],
    """INSERT INTO "group" ("select") VALUES ('x')""",
    then={'SELECT "select", "limit", "primary" FROM "group"': [("x", 1, "p")]},
)


_ODD = 'The "odd", name'
scenario(
    "names: mixed case, blanks, quotes, dollars and unicode",
    lambda: [model(_ODD, x=TextField(column_name='Col "1" CHECK', null=True))],
    lambda: [
        odd := model(
            _ODD,
            x=CharField(40, column_name='Col "1" CHECK', unique=True, default="'"),
            y=IntegerField(column_name="Größe", default=1, comment="it's"),
            z=IntegerField(column_name="a$b", default=1, index=True),
        ),
        model("Straße$", z=ForeignKeyField(odd, column_name="Zu $")),
    ],
    """INSERT INTO "The ""odd"", name" ("Col ""1"" CHECK") VALUES ('v')""",
    then={'SELECT "Col ""1"" CHECK", "Größe" FROM "The ""odd"", name"': [("v", 1)]},
)
scenario(
    "names: dollars in all, with a type that changes",
    lambda: [
        a := plain("a$t", id=IntegerField(primary_key=True, column_name="i$d")),
        plain("b$t", id=AutoField(column_name="i$d"), a=ForeignKeyField(a, column_name="a$d")),
    ],
    lambda: [
        a := plain("a$t", id=BigIntegerField(primary_key=True, column_name="i$d")),
        plain("b$t", id=BigAutoField(column_name="i$d"), a=ForeignKeyField(a, column_name="a$d")),
    ],
    "INSERT INTO a$t VALUES (1); INSERT INTO b$t (a$d) VALUES (1)",
    works="INSERT INTO b$t (a$d) VALUES (1)",
)


def _long(letter: str) -> list[Any]:
    table = model(letter * 63, c=TextField(column_name="c" * 63, unique=True))
    other = model(
        "o" * 63,
        r=ForeignKeyField(table, column_name="r" * 63, null=True),
        e=EnumField(labels("l" * 63, "m"), type_name="e" * 63, column_name="e" * 63, default="m"),
    )
    return [table, other]


scenario("names: of 63 letters", list, lambda: _long("t"))
scenario(
    "names: of 63 letters, a table is renamed",
    lambda: _long("t"),
    lambda: _long("s"),
    f"INSERT INTO {'t' * 63} ({'c' * 63}) VALUES ('x')",
    renames=(f"{'t' * 63}:{'s' * 63}",),
    then={f"SELECT {'c' * 63} FROM {'s' * 63}": [("x",)]},
)


# -- renames ------------------------------------------------------------------------------------


def _renamed_table(name: str) -> list[Any]:
    one = model(
        name,
        BaseModel,
        {
            "indexes": [(("title", "pages"), True), (("pages",), "live")],
            "constraints": [Check("pages > 0"), SQL("UNIQUE (pages, title)")],
        },
        title=TextField(),
        pages=IntegerField(default=1),
        parent=ForeignKeyField("self", null=True),
    )
    note = model("notes", book=ForeignKeyField(one, column_name="book_id", on_delete="CASCADE"))
    return [one, note]


scenario(
    "rename: a table with all that belongs to it, and references to it",
    lambda: _renamed_table("books"),
    lambda: _renamed_table("volumes"),
    f"{ONE}; INSERT INTO notes (book_id) SELECT id FROM books",
    renames=("books:volumes",),
    then={"SELECT title FROM volumes JOIN notes ON book_id = volumes.id": [("one",)]},
)
scenario(
    "rename: a table with a serial goes on counting",
    lambda: [plain("nums", id=AutoField(), x=TextField(null=True))],
    lambda: [plain("numbers", id=AutoField(), x=TextField(null=True))],
    NUMBERED,
    renames=("nums:numbers",),
    then={"SELECT id, x FROM numbers ORDER BY 1": [(1, "a"), (2, "b"), (3, "c")]},
    works="INSERT INTO numbers (x) VALUES ('d')",
)
scenario(
    "rename: a table with an identity goes on counting",
    lambda: [plain("nums", id=IdentityField(), x=TextField(null=True))],
    lambda: [plain("numbers", id=IdentityField(), x=TextField(null=True))],
    NUMBERED,
    renames=("nums:numbers",),
    then={"SELECT id, x FROM numbers ORDER BY 1": [(1, "a"), (2, "b"), (3, "c")]},
    works="INSERT INTO numbers (x) VALUES ('d')",
)
scenario(
    "rename: a serial column",
    lambda: [plain("nums", id=AutoField(), x=TextField(null=True))],
    lambda: [plain("nums", number=AutoField(), x=TextField(null=True))],
    NUMBERED,
    renames=("nums.id:number",),
    then={"SELECT number, x FROM nums ORDER BY 1": [(1, "a"), (2, "b"), (3, "c")]},
    works=MORE,
)
scenario(
    "rename: a column",
    lambda: [books(pages=IntegerField(default=3))],
    lambda: [books(leaves=IntegerField(default=3))],
    ONE,
    renames=("books.pages:leaves",),
    then={"SELECT title, leaves FROM books": [("one", 3)]},
)


def _column_everywhere(name: str) -> list[Any]:
    shelf = model("shelves", **{name: CharField(20, unique=True)})
    book = books(
        {
            "indexes": [((name, "title"), True), ((name,), "live")],
            "constraints": [
                Check(f"\"{name}\" <> 'code'", "no_code"),
                Check(f"length({name}) > 0"),
            ],
        },
        **{name: ForeignKeyField(shelf, field=name, column_name=name, default="c")},
        lower=_generated(f"lower({name})"),
    )
    return [shelf, book]


scenario(
    "rename: columns in keys, indexes, checks and expressions, of two tables at once",
    lambda: _column_everywhere("code"),
    lambda: _column_everywhere("mark"),
    "INSERT INTO shelves (code) VALUES ('c'); " + ONE,
    renames=("shelves.code:shelves.mark", "books.code:books.mark"),
    then={"SELECT title, mark, lower FROM books": [("one", "c", "c")]},
)
scenario(
    "rename: a column changes its type and its default as well",
    lambda: [books(pages=TextField(default="1", index=True))],
    lambda: [books(leaves=BigIntegerField(default=2, unique=True))],
    ONE,
    renames=("books.pages:leaves",),
    then={"SELECT title, leaves FROM books": [("one", 1)]},
)
scenario(
    "rename: two columns take each other's names in turn",
    lambda: [books(a=IntegerField(default=1), b=IntegerField(default=2))],
    lambda: [books(b=IntegerField(default=1), c=IntegerField(default=2))],
    ONE,
    renames=("books.b:c", "books.a:b"),
    then={"SELECT b, c FROM books": [(1, 2)]},
)


def _shop(table: str, column: str, label: str, kind: str, index: str, check: str) -> list[Any]:
    own = EnumField(labels(label, "closed"), type_name=kind, default=label)
    return [
        model(
            table,
            BaseModel,
            {
                "indexes": [SQL(f"CREATE INDEX {index} ON {table} ({column}) WHERE {column} > 1")],
                "constraints": [Check(f"{column} < 100", check)],
            },
            **{column: IntegerField()},
            state=own,
        )
    ]


for _name, _renames in {
    "in the order of things": (
        "shops:stores", "stores.size:area", "shop_state:store_state",
        "store_state.open:opened", "big_shops:big_stores", "not_huge:not_too_big",
    ),
    "by the old names, tables last": (
        "shops.size:area", "shop_state.open:opened", "big_shops:big_stores",
        "not_huge:not_too_big", "shop_state:store_state", "shops:stores",
    ),
    "by the old names, tables first": (
        "shops:stores", "shop_state:store_state", "shops.size:area", "shop_state.open:opened",
        "big_shops:big_stores", "not_huge:not_too_big",
    ),
}.items():  # fmt: skip
    scenario(
        f"rename: a table, a column, a type, a label, an index and a check, {_name}",
        lambda: _shop("shops", "size", "open", "shop_state", "big_shops", "not_huge"),
        lambda: _shop("stores", "area", "opened", "store_state", "big_stores", "not_too_big"),
        "INSERT INTO shops (size) VALUES (5)",
        renames=_renames,
        then={"SELECT area, state::text FROM stores": [(5, "opened")]},
    )
scenario(
    "rename: a check",
    lambda: [checked(Check("length(title) > 1", "long"))],
    lambda: [checked(Check("length(title) > 1", "long enough"))],
    ONE,
    renames=("long:long enough",),
)
scenario(
    "rename: a reserved word to another, with a percent sign",
    lambda: [model("user", order=TextField(column_name="order"))],
    lambda: [model("group", limit=TextField(column_name="li%%mit"))],
    """INSERT INTO "user" ("order") VALUES ('x')""",
    renames=("user:group", "group.order:li%mit"),
    then={'SELECT "li%mit" FROM "group"': [("x",)]},
)


# -- names that change places -------------------------------------------------------------------


def _pair(one: str, other: str) -> list[Any]:
    """Two tables, each with a counter, a unique column and an index of its own."""
    return [
        plain(one, id=AutoField(), x=TextField(unique=True)),
        plain(other, id=AutoField(), y=IntegerField(index=True), x=TextField(null=True)),
    ]


scenario(
    "swap: two tables, which go on counting",
    lambda: _pair("left_ones", "right_ones"),
    lambda: _pair("right_ones", "left_ones"),
    """INSERT INTO left_ones (x) VALUES ('a'), ('c');
       INSERT INTO right_ones (y) VALUES (1), (1)""",
    renames=("left_ones:right_ones", "right_ones:left_ones"),
    then={
        "SELECT max(id), max(y) FROM left_ones": [(2, 1)],
        "SELECT max(x) FROM right_ones": [("c",)],
    },
    works="INSERT INTO left_ones (y) VALUES (2); INSERT INTO right_ones (x) VALUES ('d')",
)
scenario(
    "swap: one table after another, told of in the wrong order",
    lambda: _pair("firsts", "seconds"),
    lambda: _pair("seconds", "thirds"),
    "INSERT INTO firsts (x) VALUES ('a'); INSERT INTO seconds (y) VALUES (1)",
    renames=("firsts:seconds", "seconds:thirds"),
    then={"SELECT x FROM seconds": [("a",)], "SELECT y FROM thirds": [(1,)]},
)


def _links(one: str, other: str) -> list[Any]:
    shelf = model("shelves", name=TextField())
    first = ForeignKeyField(shelf, null=True, column_name=one)
    return [shelf, books(s=first, n=IntegerField(column_name=other, unique=True))]


scenario(
    "swap: two columns of different types, a reference and a unique one",
    lambda: _links("a_id", "b_id"),
    lambda: _links("b_id", "a_id"),
    "INSERT INTO shelves (name) VALUES ('s'); "
    "INSERT INTO books (title, a_id, b_id) SELECT 'one', id, 7 FROM shelves",
    renames=("books.a_id:b_id", "books.b_id:a_id"),
    then={"SELECT a_id, b_id IS NOT NULL FROM books": [(7, True)]},
)
scenario(
    "swap: three columns in a ring",
    lambda: [books(a=IntegerField(), b=IntegerField(), c=IntegerField())],
    lambda: [
        books(a=IntegerField(), b=IntegerField(), c=IntegerField(), d=IntegerField(null=True))
    ],
    "INSERT INTO books (title, a, b, c) VALUES ('one', 1, 2, 3)",
    renames=("books.a:b", "books.b:c", "books.c:a"),
    then={"SELECT a, b, c FROM books": [(3, 1, 2)]},
)
scenario(
    "swap: two labels",
    lambda: [books(mood=EnumField(labels("glad", "sad"), default="sad"))],
    lambda: [books(mood=EnumField(labels("sad", "glad"), default="glad"))],
    ONE,
    renames=("mood.glad:sad", "mood.sad:glad"),
    then={"SELECT mood::text FROM books": [("glad",)]},
)
scenario(
    "swap: two types",
    lambda: [books(a=EnumField(labels("x", name="One")), b=EnumField(labels("y", name="Two")))],
    lambda: [books(a=EnumField(labels("x", name="Two")), b=EnumField(labels("y", name="One")))],
    "INSERT INTO books (title, a, b) VALUES ('one', 'x', 'y')",
    renames=("one:two", "two:one"),
)
scenario(
    "swap: two indexes",
    lambda: [indexed(SQL("CREATE INDEX i ON books (title)"), SQL("CREATE INDEX j ON books (id)"))],
    lambda: [indexed(SQL("CREATE INDEX j ON books (title)"), SQL("CREATE INDEX i ON books (id)"))],
    ONE,
    renames=("i:j", "j:i"),
)


# -- composite references, cycles, names with dots ------------------------------------------------


def _composite(a: Any, b: Any, *order: str) -> list[Any]:
    parent = plain("parents", {"primary_key": CompositeKey(*order)}, a=a(), b=b())
    link = "CONSTRAINT pair FOREIGN KEY (x, y) REFERENCES parents (a, b) ON DELETE SET NULL (y)"
    meta = {"constraints": [SQL(link)], "depends_on": [parent]}
    return [parent, plain("children", meta, id=AutoField(), x=a(), y=b(null=True))]


scenario(
    "composite: the key's columns change type and order below a reference",
    lambda: _composite(IntegerField, IntegerField, "a", "b"),
    lambda: _composite(IntegerField, TextField, "b", "a"),
    "INSERT INTO parents VALUES (1, 2); INSERT INTO children (x, y) VALUES (1, 2)",
    then={"SELECT x, y FROM children": [(1, "2")]},
)


def _circle(*names: str, **options: Any) -> list[Any]:
    last = names[-1].capitalize()
    ring = [model(names[0], next=DeferredForeignKey(last, null=True, **options))]
    for name in names[1:]:
        ring.append(model(name, next=ForeignKeyField(ring[-1], null=True, **options)))
    return ring


scenario(
    "cycle: of three tables changes, and one is renamed",
    lambda: _circle("ra", "rb", "rc"),
    lambda: _circle("ra", "rx", "rc", on_delete="SET NULL", deferrable="INITIALLY DEFERRED"),
    "INSERT INTO ra DEFAULT VALUES; INSERT INTO rb (next_id) SELECT id FROM ra",
    renames=("rb:rx",),
)
scenario(
    "names: with dots and colons, renamed",
    lambda: [
        model(
            "a.b",
            c=TextField(column_name="c.d"),
            m=EnumField(labels("l.m", "n:o"), type_name="t.u"),
        )
    ],
    lambda: [
        model(
            "a.b",
            c=TextField(column_name="e.f"),
            m=EnumField(labels("l.x", "n:p"), type_name="t.u"),
        )
    ],
    """INSERT INTO "a.b" ("c.d", m) VALUES ('x', 'l.m')""",
    renames=("a.b.c.d:e.f", "t.u.l.m:l.x", "t.u.n:o:n:p"),
)
scenario(
    "names: only the case changes",
    lambda: [model("Notes", a=TextField(column_name="Mail"))],
    lambda: [model("notes", a=TextField(column_name="mail"))],
    """INSERT INTO "Notes" ("Mail") VALUES ('x')""",
    renames=("Notes:notes", "notes.Mail:mail"),
)
scenario(
    "names: of more than 63 letters, in tables, columns, references and labels",
    lambda: [
        model("s" * 70, x=TextField()),
        books(x=TextField(column_name="c" * 70, null=True)),
    ],
    lambda: [
        shelf := model("s" * 70, x=TextField()),
        books(
            x=TextField(column_name="c" * 70, default="%", index=True),
            **{
                "l" * 58: ForeignKeyField(shelf, null=True),
                "l" * 59: ForeignKeyField(shelf, null=True),
            },
        ),
    ],
    ONE,
    fills={f"books.{'c' * 63}": "'f'"},
)
scenario(
    "schema: all tables move to another, with the references between them",
    lambda: _house("old"),
    lambda: _house("new"),
    """INSERT INTO old.shelves (name) VALUES ('s');
       INSERT INTO old.places (shelf_id) SELECT id FROM old.shelves""",
    renames=("old.shelves:new.shelves", "old.places:new.places"),
)


def _house(schema: str) -> list[Any]:
    shelf = model("shelves", BaseModel, {"schema": schema}, name=TextField())
    return [shelf, model("places", BaseModel, {"schema": schema}, shelf=ForeignKeyField(shelf))]


scenario(
    "rename: a key and its type, the table and the reference to it",
    lambda: [shelf := plain("shelves", no=AutoField()), books(shelf=ForeignKeyField(shelf))],
    lambda: [rack := plain("racks", number=BigAutoField()), books(rack=ForeignKeyField(rack))],
    "INSERT INTO shelves DEFAULT VALUES; INSERT INTO books (title, shelf_id) VALUES ('one', 1)",
    renames=("shelves:racks", "racks.no:number", "books.shelf_id:rack_id"),
    then={"SELECT rack_id FROM books": [(1,)]},
    works="INSERT INTO racks DEFAULT VALUES",
)
scenario(
    "key: keys of keys change type",
    lambda: _tower(IntegerField),
    lambda: _tower(TextField),
    "INSERT INTO ground VALUES (1); INSERT INTO middle VALUES (1); INSERT INTO roof VALUES (1)",
)


def _tower(kind: Any) -> list[Any]:
    ground = plain("ground", id=kind(primary_key=True))
    middle = plain("middle", below=ForeignKeyField(ground, primary_key=True))
    return [ground, middle, plain("roof", below=ForeignKeyField(middle, primary_key=True))]


scenario(
    "enum: a key's labels change places below a reference",
    lambda: _by_mood("glad", "sad"),
    lambda: _by_mood("sad", "glad", "calm"),
    "INSERT INTO moods VALUES ('sad'); INSERT INTO notes (mood_id) VALUES ('sad')",
)


def _by_mood(*values: str) -> list[Any]:
    mood = plain("moods", id=EnumField(labels(*values), primary_key=True))
    return [mood, plain("notes", id=AutoField(), mood=ForeignKeyField(mood))]


scenario(
    "enum: one type becomes two",
    lambda: [books(a=EnumField(labels("x", "y")), b=EnumField(labels("x", "y")))],
    lambda: [books(a=EnumField(labels("x", "y")), b=EnumField(labels("x", "y", name="Other")))],
    "INSERT INTO books (title, a, b) VALUES ('one', 'x', 'y')",
)
scenario(
    "constraint: an exclusion's column changes its type",
    lambda: [
        checked(SQL("CONSTRAINT apart EXCLUDE USING gist (r WITH &&)"), r=_of_type("int4range")())
    ],
    lambda: [
        checked(
            SQL(
                "CONSTRAINT apart EXCLUDE USING gist (r WITH &&) "
                "WHERE (title <> 'x%%') DEFERRABLE INITIALLY DEFERRED"
            ),
            r=_of_type("int8range")(),
        )
    ],
    "INSERT INTO books (title, r) VALUES ('one', '[1,2)')",
)
scenario(
    "generated: a reference that the server computes comes",
    lambda: [model("shelves", code=TextField(unique=True)), books()],
    lambda: [
        shelf := model("shelves", code=TextField(unique=True)),
        books(
            s=ForeignKeyField(
                shelf, field="code", null=True, generated="nullif(lower(title), 'one')"
            )
        ),
    ],
    ONE,
)
scenario(
    "sequence: a counting column that is no key comes",
    lambda: [books()],
    lambda: [books(no=_of_type("serial")(index=True))],
    f"{ONE}; {TWO}",
    works=ONE,
)


# -- other settings of a table ------------------------------------------------------------------

scenario(
    "settings: a table is filled to a part",
    lambda: [books()],
    lambda: [
        books({"table_settings": "WITH (fillfactor = 70)"}),
        model("notes", BaseModel, {"table_settings": "WITH (fillfactor = 80)"}, text=TextField()),
    ],
    ONE,
)
scenario(
    "settings: a table is filled again",
    lambda: [books({"table_settings": "WITH (fillfactor = 70)"})],
    lambda: [books()],
    ONE,
)


# -- beside what a file made by hand --------------------------------------------------------------

BY_HAND: dict[str, Scenario] = {}


def by_hand(name: str, sql: str, *change: Any, **more: Any) -> None:
    """A change after a file with this SQL; ``then`` is true before and after it."""
    BY_HAND[sql] = Scenario(name, *change, **more)


by_hand(
    "a view of a column that changes its type, with its rights and comment",
    """CREATE VIEW many WITH (security_barrier = true) AS SELECT n, title FROM books WHERE n > 1;
       COMMENT ON VIEW many IS '100%'; GRANT SELECT ON many TO PUBLIC""",
    lambda: [books(n=IntegerField(default=2))],
    lambda: [books(n=BigIntegerField(default=2))],
    ONE,
    then={
        "SELECT n, title FROM many": [(2, "one")],
        "SELECT obj_description('many'::regclass)": [("100%",)],
        "SELECT has_table_privilege('public', 'many', 'SELECT')": [(True,)],
        "SELECT reloptions FROM pg_class WHERE relname = 'many'": [(["security_barrier=true"],)],
    },
)
by_hand(
    "views of views, one with an index and one with a trigger",
    """CREATE VIEW v1 AS SELECT id, n, m FROM books;
       CREATE VIEW v2 AS SELECT n FROM v1 WHERE m = 'a';
       CREATE MATERIALIZED VIEW v3 AS SELECT n FROM v2;
       CREATE UNIQUE INDEX ON v3 (n);
       CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
       CREATE TRIGGER skips INSTEAD OF DELETE ON v1 FOR EACH ROW EXECUTE FUNCTION skip()""",
    lambda: [books(n=IntegerField(default=1), m=EnumField(labels("a", "b"), default="a"))],
    lambda: [books(n=TextField(default="1"), m=EnumField(labels("b", "a"), default="a"))],
    ONE,
    then={
        "SELECT n::text FROM v2": [("1",)],
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'v3'": [(1,)],
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal": [("skips",)],
    },
)
by_hand(
    "a view of a table and a column that are renamed",
    "CREATE VIEW counted AS SELECT n FROM books",
    lambda: [books(n=IntegerField(default=1))],
    lambda: [model("tomes", title=TextField(), k=BigIntegerField(default=1))],
    ONE,
    renames=("books:tomes", "tomes.n:k"),
    then={"SELECT n FROM counted": [(1,)]},
)
by_hand(
    "a trigger of a column that changes its type",
    """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
       CREATE TRIGGER keeps BEFORE UPDATE OF n ON books
           FOR EACH ROW WHEN (NEW.n > 1) EXECUTE FUNCTION keep()""",
    lambda: [books(n=IntegerField(default=1))],
    lambda: [books(n=BigIntegerField(default=1))],
    ONE,
    then={"SELECT tgname FROM pg_trigger WHERE NOT tgisinternal": [("keeps",)]},
)
by_hand(
    "extensions, of which a column, an index and a schema are",
    """CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION citext;
       CREATE EXTENSION pg_trgm""",
    lambda: [books()],
    lambda: [
        indexed(
            SQL("CREATE INDEX books_like ON books USING gin (title gin_trgm_ops)"),
            tags=_of_type("ext.hstore")(null=True),
            mail=_of_type("citext")(null=True, unique=True),
        )
    ],
    ONE,
)
by_hand(
    "a function and a domain that columns use",
    """CREATE FUNCTION next_no() RETURNS int LANGUAGE sql AS 'SELECT 42';
       CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%')""",
    lambda: [books(mail=TextField(default="a@b"))],
    lambda: [books(mail=_of_type("email")(null=True), no=IntegerField(server_default="next_no()"))],
    ONE,
    then={"SELECT mail FROM books": [("a@b",)]},
)


scenario(
    "a version for rows that are there",
    lambda: [books()],
    lambda: [books(version=VersionField())],
    ONE,
    then={"SELECT version FROM books": [(1,)]},
    works="INSERT INTO books (title) VALUES ('two')",
)


# -- row security -------------------------------------------------------------------------------

TITLED = Policy("titled", using="title <> 'it''s 50% \"off\"'")
POLICIES = """SELECT polname, polcmd::text, polpermissive, pg_get_expr(polqual, polrelid),
              pg_get_expr(polwithcheck, polrelid) FROM pg_policy ORDER BY 1"""
SECURED = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 'books'"

scenario(
    "a table with policies",
    list,
    lambda: [guarded(TITLED, Policy("more", check="title = 'a'", command="insert"))],
    then={SECURED: [(True, True)]},
)
scenario(
    "row security for a table that is there",
    lambda: [books()],
    lambda: [guarded(TITLED)],
    ONE,
    then={
        SECURED: [(True, True)],
        POLICIES: [("titled", "*", True, """(title <> 'it''s 50% "off"'::text)""", None)],
    },
)
scenario(
    "a table that is opened again",
    lambda: [guarded(TITLED)],
    lambda: [guarded()],
    ONE,
    then={SECURED: [(False, False)], POLICIES: []},
)
scenario(
    "policies that come, go and change",
    lambda: [
        guarded(
            Policy("kept", using="true"),
            Policy("goes", using="true"),
            Policy("another text", using="title = 'a'", check="true"),
            Policy("another command", using="true"),
            Policy("another kind", using="true"),
            Policy("a check more", using="true"),
        )
    ],
    lambda: [
        guarded(
            Policy("kept", using="true"),
            Policy("comes", using="true", command="delete"),
            Policy("another text", using="title = 'b'", check="false"),
            Policy("another command", using="true", command="select"),
            Policy("another kind", using="true", restrictive=True),
            Policy("a check more", using="true", check="true"),
        )
    ],
    ONE,
)
scenario(
    "a policy of a column that changes its type",
    lambda: [guarded(Policy("p", using="n > 1"), n=IntegerField(default=1))],
    lambda: [guarded(Policy("p", using="n > 1"), n=BigIntegerField(default=1))],
    ONE,
)
scenario(
    "a policy of a column that goes",
    lambda: [guarded(Policy("p", using="n > 1"), n=IntegerField(default=1))],
    lambda: [guarded(Policy("p", using="title <> ''"))],
    ONE,
    drops=True,
)
scenario(
    "a policy of an enum that loses a label",
    lambda: [guarded(Policy("p", using="m = 'a'"), m=EnumField(labels("a", "b"), default="a"))],
    lambda: [guarded(Policy("p", using="m = 'a'"), m=EnumField(labels("a"), default="a"))],
    ONE,
)
scenario(
    "a policy that asks another table",
    lambda: [guarded(Policy("p", using="true")), model("others", n=IntegerField())],
    lambda: [
        guarded(Policy("p", using="EXISTS (SELECT FROM writers WHERE writers.n = 1)")),
        model("writers", n=IntegerField()),
    ],
    ONE,
    drops=True,
)
scenario(
    "a policy that asks a table which goes",
    lambda: [
        guarded(Policy("p", using="EXISTS (SELECT FROM writers WHERE writers.n = 1)")),
        model("writers", n=IntegerField()),
    ],
    lambda: [guarded(Policy("p", using="true"))],
    ONE,
    drops=True,
)
scenario(
    "policies of a table and a column that are renamed",
    lambda: [guarded(Policy("p", using="n > 1"), n=IntegerField(default=1))],
    lambda: [
        model(
            "tomes",
            BaseModel,
            {"policies": (Policy("p", using="k > 1"),)},
            title=TextField(),
            k=IntegerField(default=1),
        )
    ],
    ONE,
    renames=("books:tomes", "tomes.n:k"),
)
scenario(
    "a policy for roles",
    lambda: [guarded(Policy("p", using="true"))],
    lambda: [guarded(Policy("p", using="true", roles=("pg_monitor", "pg_read_all_data")))],
    ONE,
    then={"SELECT array_length(polroles, 1) FROM pg_policy": [(2,)]},
)
by_hand(
    "policies of a table whose model says nothing of them",
    "ALTER TABLE books ENABLE ROW LEVEL SECURITY; CREATE POLICY titled ON books USING (title <> '')",
    lambda: [books()],
    lambda: [books(n=IntegerField(default=1))],
    ONE,
    then={SECURED: [(True, False)], "SELECT polname FROM pg_policy": [("titled",)]},
)
