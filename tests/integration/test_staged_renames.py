"""Renames that ``generate(safe=True)`` writes in stages, used by old and new code between them."""

import re

import pytest
from migration_scenarios import books, indexed, labels, model, plain
from migration_tools import execute, given, migrations, router, rows, schema, server, stock_database
from peewee import SQL, Check, CompositeKey

from orm_core import (
    BaseModel,
    DateTimeField,
    EnumField,
    ForeignKeyField,
    IntegerField,
    JSONField,
    MigrationError,
    TextField,
)
from orm_core.migrations import catalog
from orm_core.models.schema import create_all

__all__ = ["given", "server"]  # fixtures


@pytest.fixture
def live(server):
    with server.database() as database:
        yield database


@pytest.fixture
def stock(live):
    with stock_database(live) as database:
        yield database


class Deployment:
    """A database at the models before, and the files that ``safe`` writes for those after."""

    def __init__(self, given, live, stock, folder):
        self.given, self.live, self.stock, self.folder = given, live, stock, folder

    def start(self, models, sql=""):
        migrations(self.given, self.folder, models).generate("before")
        router(self.stock, self.folder).run()
        execute(self.stock, sql)
        self.before = schema(self.stock)

    def generate(self, models, *renames, **answers):
        self.after = migrations(self.given, self.folder, models)
        paths = self.after.generate(renames=renames, safe=True, **answers)
        self.names = [path.stem for path in paths]
        return self.names

    def apply(self, *kinds):
        """Apply the next file, which is of this kind, by a stock Router; and so on."""
        for kind in kinds:
            name = router(self.stock, self.folder).diff[0]
            assert name.endswith(kind), (name, kind)
            assert router(self.stock, self.folder).run(name) == [name]

    def rows(self, query):
        return rows(self.stock, query)

    def execute(self, sql):
        execute(self.stock, sql)

    def goal(self, server, models):
        with server.database() as fresh:
            create_all(fresh, models)
            return catalog.read(fresh)


@pytest.fixture
def deployment(given, live, stock, tmp_path):
    return Deployment(given, live, stock, tmp_path / "migrations")


def people(column, **options):
    field = TextField(column_name=column, unique=True, **options)
    return [
        indexed(
            SQL(f"CREATE INDEX by_mail ON books (lower({column})) WHERE {column} <> ''"),
            value=field,
        )
    ]


def test_a_column_is_written_by_old_and_new_code_at_every_stage(deployment, server):
    old, new = people("mail"), people("email")
    deployment.start(old, "INSERT INTO books (title, mail) VALUES ('before', 'a')")
    names = deployment.generate(new, "books.mail:email")
    assert [re.sub(r"^\d+_", "", name) for name in names] == [
        "renames_books_mail_to_email_expand",
        "renames_books_mail_to_email_backfill",
        "adds_constraint_books_email_not_null",
        "changes_books_email",
        "adds_index_books_email_key",
        "adds_index_by_mail_aside",
        "renames_books_mail_to_email_contract",
    ]
    number = 0

    def both_write():
        nonlocal number
        number += 1
        deployment.execute(f"""
            INSERT INTO books (title, mail) VALUES ('old', 'old {number}');
            INSERT INTO books (title, email) VALUES ('new', 'new {number}');
            UPDATE books SET mail = 'old changed {number}' WHERE email = 'old {number}';
            UPDATE books SET email = 'new changed {number}' WHERE mail = 'new {number}';
        """)
        written = [f"old changed {number}", f"new changed {number}"]
        query = f"SELECT mail, email FROM books WHERE mail = ANY(ARRAY{written}) ORDER BY title"
        assert deployment.rows(query) == [(written[1],) * 2, (written[0],) * 2]

    deployment.apply("expand")
    both_write()
    for _ in names[1:-1]:
        deployment.apply("")
        both_write()
        assert deployment.rows("SELECT * FROM books WHERE mail IS DISTINCT FROM email") == []
    deployment.apply("contract")
    assert catalog.read(deployment.live) == deployment.goal(server, new)
    assert len(deployment.rows("SELECT email FROM books WHERE email IS NOT NULL")) == 1 + 2 * 6
    assert deployment.rows("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == []
    assert deployment.rows("SELECT proname FROM pg_proc WHERE prorettype = 'trigger'::regtype "
                           "AND pronamespace = 'public'::regnamespace") == []  # fmt: skip
    assert deployment.after.generate() == []


def test_each_stage_of_a_column_can_be_rolled_back_with_its_rows(deployment):
    deployment.start(people("mail"), "INSERT INTO books (title, mail) VALUES ('before', 'a')")
    names = deployment.generate(people("email"), "books.mail:email")
    router(deployment.stock, deployment.folder).run()
    deployment.execute("INSERT INTO books (title, email) VALUES ('after', 'b')")
    for _ in names:
        router(deployment.stock, deployment.folder).rollback()
        deployment.execute("UPDATE books SET title = title")
    assert schema(deployment.stock) == deployment.before
    assert deployment.rows("SELECT mail FROM books ORDER BY mail") == [("a",), ("b",)]
    router(deployment.stock, deployment.folder).run()
    assert deployment.rows("SELECT email FROM books ORDER BY email") == [("a",), ("b",)]


def test_a_backfill_goes_in_batches_and_past_nulls(deployment):
    deployment.start(
        [books(a=IntegerField(null=True), j=JSONField(null=True))],
        """INSERT INTO books (title, a, j)
           SELECT n::text, nullif(n % 3, 0), '{"n": 1}'::jsonb FROM generate_series(1, 2500) n;
           UPDATE books SET j = NULL WHERE a = 1""",
    )
    names = deployment.generate(
        [books(b=IntegerField(null=True), k=JSONField(null=True))], "books.a:b", "books.j:k"
    )
    assert [name.rpartition("_")[2] for name in names] == ["expand", "backfill", "contract"]
    assert "LIMIT 1000" in (deployment.folder / f"{names[1]}.py").read_text()
    deployment.apply("expand", "backfill")
    query = "SELECT count(*) FROM books WHERE (a, j) IS NOT DISTINCT FROM (b, k)"
    assert deployment.rows(query) == [(2500,)]
    deployment.apply("contract")
    assert deployment.rows("SELECT count(b), count(k) FROM books") == [(1667, 1666)]


def test_a_renamed_table_is_written_by_its_old_name_until_the_contract(deployment, server):
    def shop(table):
        shelf = model("shelves", name=TextField(unique=True))
        return [
            shelf,
            model(
                table,
                BaseModel,
                {"indexes": ((("shelf", "size"), False),)},
                shelf=ForeignKeyField(shelf, null=True),
                size=IntegerField(default=7),
                code=TextField(unique=True, null=True),
            ),
        ]

    old, new = shop("boxes"), shop("crates")
    deployment.start(old, "INSERT INTO boxes (size, code) VALUES (1, 'x')")
    names = deployment.generate(new, "boxes:crates")
    assert [name[4:] for name in names] == [
        "renames_boxes_to_crates_expand",
        "renames_boxes_to_crates_contract",
    ]
    deployment.apply("expand")
    deployment.execute("""
        INSERT INTO boxes DEFAULT VALUES;
        INSERT INTO boxes (size, code) VALUES (2, 'x')
            ON CONFLICT (code) DO UPDATE SET size = excluded.size;
        INSERT INTO crates (size) VALUES (3);
        UPDATE boxes SET size = 4 WHERE size = 3;
        DELETE FROM boxes WHERE size = 7;
    """)
    query = "SELECT size FROM {} WHERE deleted_at IS NULL ORDER BY 1"
    assert deployment.rows(query.format("boxes")) == [(2,), (4,)]
    assert deployment.rows(query.format("crates")) == [(2,), (4,)]
    assert deployment.rows("INSERT INTO boxes (size) VALUES (5) RETURNING size") == [(5,)]
    deployment.apply("contract")
    assert deployment.rows(query.format("crates")) == [(2,), (4,), (5,)]
    assert catalog.read(deployment.live) == deployment.goal(server, new)
    for _ in names:
        router(deployment.stock, deployment.folder).rollback()
    assert schema(deployment.stock) == deployment.before
    assert deployment.rows(query.format("boxes")) == [(2,), (4,), (5,)]


def test_a_table_and_its_columns_are_renamed_and_moved_while_other_things_change(
    deployment, server
):
    def shop(schema_name, table, column, **more):
        shelf = model("shelves", name=TextField())
        meta = {"schema": schema_name} if schema_name else None
        link = ForeignKeyField(shelf, column_name=f"{column}_id", on_delete="CASCADE")
        return [shelf, model(table, BaseModel, meta, shelf=link, **more)]

    old = shop("store", "boxes", "shelf")
    new = shop(None, "crates", "rack", size=IntegerField(default=1, index=True))
    deployment.start(
        old,
        """INSERT INTO shelves (name) VALUES ('s');
           INSERT INTO store.boxes (shelf_id) SELECT id FROM shelves""",
    )
    names = deployment.generate(new, "store.boxes:public.crates", "crates.shelf_id:rack_id")
    deployment.apply("expand", "backfill")
    deployment.execute("INSERT INTO store.boxes (shelf_id) SELECT id FROM shelves")
    deployment.execute("INSERT INTO crates (rack_id) SELECT id FROM shelves")
    deployment.apply(*("" for _ in names[2:-1]))
    deployment.execute("INSERT INTO store.boxes (shelf_id) SELECT id FROM shelves")
    deployment.execute("INSERT INTO crates (rack_id) SELECT id FROM shelves")
    deployment.apply("contract")
    assert catalog.read(deployment.live) == deployment.goal(server, new)
    assert deployment.rows("SELECT count(rack_id), sum(size) FROM crates") == [(5, 5)]
    for _ in names:
        router(deployment.stock, deployment.folder).rollback()
    assert schema(deployment.stock) == deployment.before
    assert deployment.rows("SELECT count(shelf_id) FROM store.boxes") == [(5,)]


def marked(column):
    quoted = '"' + column.replace("%", "%%") + '"'
    constraints = [
        Check(f"{quoted} > 0", "positive"),
        SQL(f"CONSTRAINT one_each UNIQUE ({quoted}, title)"),
    ]
    index = SQL(f"CREATE UNIQUE INDEX one ON books ({quoted}) INCLUDE (title)")
    field = IntegerField(column_name=column)
    return [books({"constraints": constraints, "indexes": [index]}, n=field)]


def test_what_has_the_same_name_on_the_new_column_gets_it_at_the_end(deployment, server):
    deployment.start(
        marked("old 100%"), """INSERT INTO books (title, "old 100%") VALUES ('one', 1)"""
    )
    names = deployment.generate(marked("new 100%"), "books.old 100%:new 100%")
    router(deployment.stock, deployment.folder).run()
    assert catalog.read(deployment.live) == deployment.goal(server, marked("new 100%"))
    assert deployment.rows('SELECT "new 100%" FROM books') == [(1,)]
    for _ in names:
        router(deployment.stock, deployment.folder).rollback()
    assert schema(deployment.stock) == deployment.before
    assert deployment.rows('SELECT "old 100%" FROM books') == [(1,)]


def test_a_column_of_a_table_without_a_single_key_is_filled_at_once(deployment):
    def placed(column):
        key = {"primary_key": CompositeKey("a", "b")}
        c = DateTimeField(column_name=column, null=True)
        return [plain("places", key, a=IntegerField(), b=IntegerField(), c=c)]

    deployment.start(
        placed("at"), "INSERT INTO places (a, b, at) VALUES (1, 2, '2024-01-01 00:00Z')"
    )
    names = deployment.generate(placed("moment"), "places.at:moment")
    assert (
        "UPDATE public.places SET moment = at" in (deployment.folder / f"{names[1]}.py").read_text()
    )
    router(deployment.stock, deployment.folder).run()
    assert deployment.rows("SELECT extract(year FROM moment)::int FROM places") == [(2024,)]


def test_an_index_is_renamed_at_once_as_no_code_names_it(deployment):
    deployment.start([indexed(SQL("CREATE INDEX one ON books (title)"))])
    names = deployment.generate([indexed(SQL("CREATE INDEX two ON books (title)"))], "one:two")
    assert [name[4:] for name in names] == ["renames_index_one_to_two"]
    router(deployment.stock, deployment.folder).run()


def keyed(key, **columns):
    shelf = plain("shelves", no=IntegerField(column_name=key, primary_key=True), **columns)
    return [shelf, books(shelf=ForeignKeyField(shelf))]


REFUSED = {
    "a label": (
        lambda: [books(m=EnumField(labels("a")))],
        lambda: [books(m=EnumField(labels("b")))],
        ["mood.a:b"],
        "PostgreSQL knows no stages",
    ),
    "a type": (
        lambda: [books(m=EnumField(labels("a")))],
        lambda: [books(m=EnumField(labels("a", name="Face")))],
        ["mood:face"],
        "PostgreSQL knows no stages",
    ),
    "a type of values": (
        lambda: [books(a=TextField())],
        lambda: [books(b=IntegerField())],
        ["books.a:b"],
        r"books\.a can't become b: its type changes as well",
    ),
    "a computed column": (
        lambda: [books(a=TextField(null=True, generated="lower(title)"))],
        lambda: [books(b=TextField(null=True, generated="lower(title)"))],
        ["books.a:b"],
        "the server computes it",
    ),
    "a column that another is computed from": (
        lambda: [books(a=TextField(), c=TextField(null=True, generated="lower(a)"))],
        lambda: [books(b=TextField(), c=TextField(null=True, generated="lower(b)"))],
        ["books.a:b"],
        "c is computed from it",
    ),
    "a key": (
        lambda: keyed("no"),
        lambda: keyed("number"),
        ["shelves.no:number"],
        "part of the primary key",
    ),
    "columns that change places": (
        lambda: [books(a=TextField(), b=TextField())],
        lambda: [books(a=TextField(), b=TextField(), c=TextField(null=True))],
        ["books.a:b", "books.b:a"],
        "can't change places",
    ),
    "tables that change places": (
        lambda: [model("a", x=TextField()), model("b", y=TextField())],
        lambda: [model("b", x=TextField()), model("a", y=TextField())],
        ["a:b", "b:a"],
        "can't change places",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_rename_without_stages_is_refused_with_advice(case, given, tmp_path):
    before, after, renames, reason = case
    migrations(given, tmp_path, before()).generate("before")
    with pytest.raises(MigrationError, match=f"{reason}.*without --safe"):
        migrations(given, tmp_path, after()).generate(renames=renames, safe=True)
    assert [path.name for path in tmp_path.glob("*.py")] == ["001_before.py"]
