"""Files that ``Migrations.generate`` writes: right for every change, readable, proved."""

import ast
import re

import peewee
import pytest
from migration_scenarios import BY_HAND, SCENARIOS, books, labels, model
from migration_tools import (
    counts,
    execute,
    given,
    migrations,
    router,
    rows,
    schema,
    server,
    stock_database,
)

from orm_core import (
    BaseModel,
    EnumField,
    ForeignKeyField,
    IntegerField,
    MigrationError,
    TextField,
)
from orm_core.migrations import catalog
from orm_core.models.schema import create_all

__all__ = ["given", "server"]  # fixtures


def check(database, then):
    for query, expected in then.items():
        assert rows(database, query) == expected, query


@pytest.mark.parametrize("case", SCENARIOS, ids=lambda case: case.name)
def test_a_change_is_written_applied_undone_and_applied_again(case, given, server, tmp_path):
    folder = tmp_path / "migrations"
    with server.database() as live, server.database() as fresh, stock_database(live) as stock:
        if earlier_models := case.before():
            migrations(given, folder, earlier_models).generate("before")
            router(stock, folder).run()
        execute(stock, case.rows)
        before, earlier = catalog.read(live), schema(stock)

        after = migrations(given, folder, case.after())
        answers = {"renames": case.renames, "drops": case.drops, "fills": case.fills}
        paths = after.generate("after", **answers)
        create_all(fresh, case.after())
        with stock_database(fresh) as theirs:
            goal, wanted = catalog.read(fresh), schema(theirs)
        kept = [name for name in before.tables if name in goal.tables]
        many = counts(stock, kept)

        router(stock, folder).run()
        assert catalog.read(live) == goal
        assert schema(stock) == wanted
        assert counts(stock, kept) == many
        check(stock, case.then)

        assert after.generate("again") == []

        for _ in paths:
            router(stock, folder).rollback()
        assert catalog.read(live) == before
        assert schema(stock) == earlier
        assert counts(stock, kept) == many

        router(stock, folder).run()
        assert schema(stock) == wanted
        assert counts(stock, kept) == many
        execute(stock, case.works)


def write_by_hand(folder, number, sql):
    text = f'migrator.sql("""{sql.replace("%", "%%")}""")'
    path = folder / f"{number:03}_by_hand.py"
    path.write_text(f"def migrate(migrator, database, *, fake=False):\n    {text}\n")


@pytest.mark.parametrize("sql", BY_HAND, ids=lambda sql: BY_HAND[sql].name)
def test_what_a_file_made_by_hand_is_used_and_kept(sql, given, server, tmp_path):
    case = BY_HAND[sql]
    with server.database() as live, stock_database(live) as stock:
        migrations(given, tmp_path, case.before()).generate("before")
        write_by_hand(tmp_path, 2, sql)
        router(stock, tmp_path).run()
        execute(stock, case.rows)
        before, earlier = catalog.read(live), schema(stock)
        later = migrations(given, tmp_path, case.after())

        paths = later.generate("after", renames=case.renames)
        router(stock, tmp_path).run()
        check(stock, case.then)
        assert later.generate("again") == []
        later.check()
        for _ in paths:
            router(stock, tmp_path).rollback()
        check(stock, case.then)
        assert (catalog.read(live), schema(stock)) == (before, earlier)
        router(stock, tmp_path).run()
        check(stock, case.then)


def test_a_view_of_a_column_that_goes_is_a_question(given, tmp_path):
    migrations(given, tmp_path, [books(n=IntegerField())]).generate("before")
    write_by_hand(tmp_path, 2, "CREATE VIEW counted AS SELECT n FROM books")
    with pytest.raises(MigrationError, match=r"The view counted uses books\.n, which goes"):
        migrations(given, tmp_path, [books()]).generate("after")


# -- questions ----------------------------------------------------------------------------------

REFUSED = {
    "a column that went while one came": (
        lambda: [books(mail=TextField(null=True))],
        lambda: [books(email=TextField(null=True))],
        {},
        r"books\.mail went and books\.email came: .*--rename books\.mail:books\.email.*--drop books\.mail",
    ),
    "a column that went while one of another type came": (
        lambda: [books(mail=TextField(null=True))],
        lambda: [books(email=IntegerField(null=True))],
        {},
        r"books\.mail went and books\.email came",
    ),
    "a table that went while one like it came": (
        lambda: [books()],
        lambda: [model("volumes", title=TextField())],
        {},
        r"books went and volumes came: .*--rename books:volumes.*--drop books",
    ),
    "a table that went to another schema": (
        lambda: [books()],
        lambda: [model("books", BaseModel, {"schema": "attic"}, title=TextField())],
        {},
        r"books went and attic\.books came: .*--rename books:attic\.books",
    ),
    "a table that went": (
        lambda: [books(), model("notes", text=TextField())],
        lambda: [books()],
        {},
        r"Table notes is in the migrations .*--drop notes",
    ),
    "a label that went while one came": (
        lambda: [books(mood=EnumField(labels("glad", "sad")))],
        lambda: [books(mood=EnumField(labels("happy", "sad")))],
        {},
        r"mood\.glad went and mood\.happy came: .*--rename mood\.glad:mood\.happy",
    ),
    "a NOT NULL column without a value for rows": (
        lambda: [books()],
        lambda: [books(pages=IntegerField())],
        {},
        r'books\.pages is NOT NULL .*--fill "books\.pages=<SQL>"',
    ),
    "a NOT NULL reference without a value for rows": (
        lambda: [books(), model("notes")],
        lambda: [book := books(), model("notes", book=ForeignKeyField(book))],
        {},
        r"notes\.book_id is NOT NULL",
    ),
    "a column that is computed from now on": (
        lambda: [books(lower=TextField(null=True))],
        lambda: [books(lower=TextField(null=True, generated="lower(title)"))],
        {},
        r"books\.lower is computed from now on: .*--drop books\.lower",
    ),
    "an answer to another question": (
        lambda: [books(mail=TextField(null=True)), model("notes")],
        lambda: [books(email=TextField(null=True))],
        {"drops": ["notes"]},
        r"books\.mail went",
    ),
    "a drop of the twin in another schema": (
        lambda: [books(), model("books", BaseModel, {"schema": "attic"})],
        lambda: [books()],
        {"drops": ["books"]},
        r"Table attic\.books is in the migrations .*--drop attic\.books",
    ),
}
for _answer in (
    "books.mail:maul",
    "books.nail:email",
    "book.mail:email",
    "books.mail:notes.email",
    "books.title:email",
    "books.mail:title",
    "books:notes",
    "books.mail",
    ":",
    "books.mail:",
    "",
    "books.mail:email:",
    "attic.books.mail:email",
):
    REFUSED[f"the rename {_answer!r}"] = (
        lambda: [books(mail=TextField(null=True))],
        lambda: [books(email=TextField(null=True)), model("notes", text=TextField())],
        {"renames": [_answer]},
        f"The rename {re.escape(repr(_answer))} fits nothing",
    )


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_only_the_author_can_tell_is_asked_and_nothing_is_written(case, given, tmp_path):
    before, after, answers, question = case
    migrations(given, tmp_path, before()).generate("before")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(MigrationError, match=question):
        migrations(given, tmp_path, after()).generate("after", **answers)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


# -- the files ----------------------------------------------------------------------------------


def shop(*moods, **columns):
    kind = labels(*moods)
    author = model("authors", name=TextField(unique="live"))
    book = books(author=ForeignKeyField(author), mood=EnumField(kind, default=moods[0]), **columns)
    return [author, book]


@pytest.fixture
def folder(given, tmp_path):
    """Two generations of files: a first one of one file, a second one of two."""
    migrations(given, tmp_path, shop("glad", "sad")).generate("first")
    later = shop("glad", "sad", "50% sad", pages=IntegerField(default=1, comment="100%"))
    later[1]._meta.constraints = [peewee.Check("title <> '%%'", "no_percent")]
    later[1].mood.default = "50% sad"
    migrations(given, tmp_path, later).generate()
    return tmp_path


def texts(folder):
    return {path.name: path.read_text() for path in sorted(folder.glob("*.py"))}


def test_a_file_reads_like_this(folder):
    assert (
        texts(folder)["001_first.py"]
        == '''\
"""Domain library: creates authors, books; creates type mood"""


def migrate(migrator, database, *, fake=False):
    migrator.sql("SET LOCAL lock_timeout = '5s'")
    migrator.sql("CREATE TYPE public.mood AS ENUM ('glad', 'sad')")
    migrator.sql("""
        CREATE TABLE public.authors (
            id uuid DEFAULT gen_random_uuid() NOT NULL,
            name text NOT NULL,
            created_at timestamp with time zone DEFAULT now() NOT NULL,
            updated_at timestamp with time zone DEFAULT now() NOT NULL,
            deleted_at timestamp with time zone,
            CONSTRAINT authors_pkey PRIMARY KEY (id)
        )
    """)
    migrator.sql("""
        CREATE TABLE public.books (
            id uuid DEFAULT gen_random_uuid() NOT NULL,
            author_id uuid NOT NULL,
            mood public.mood DEFAULT 'glad'::public.mood NOT NULL,
            title text NOT NULL,
            created_at timestamp with time zone DEFAULT now() NOT NULL,
            updated_at timestamp with time zone DEFAULT now() NOT NULL,
            deleted_at timestamp with time zone,
            CONSTRAINT books_pkey PRIMARY KEY (id)
        )
    """)
    migrator.sql("""
        CREATE UNIQUE INDEX authors_name_key ON public.authors
            USING btree (name)
            WHERE (deleted_at IS NULL)
    """)
    migrator.sql("CREATE INDEX books_author_id_idx ON public.books USING btree (author_id)")
    migrator.sql("""
        ALTER TABLE public.books
            ADD CONSTRAINT books_author_id_fkey
            FOREIGN KEY (author_id)
            REFERENCES public.authors(id)
    """)


def rollback(migrator, database, *, fake=False):
    migrator.sql("SET LOCAL lock_timeout = '5s'")
    migrator.sql("ALTER TABLE public.books DROP CONSTRAINT books_author_id_fkey")
    migrator.sql("DROP TABLE public.authors")
    migrator.sql("DROP TABLE public.books")
    migrator.sql("DROP TYPE public.mood")
'''
    )


def test_a_new_label_that_is_used_at_once_comes_in_a_file_before(folder):
    names = list(texts(folder))
    assert names[1:] == ["002_changes_the_labels_of_mood.py", "003_adds_books_pages.py"]
    first, second = (texts(folder)[name] for name in names[1:])
    assert "ADD VALUE '50%% sad' AFTER 'sad'" in first
    assert "SET DEFAULT '50%% sad'::public.mood" in second


def test_percent_signs_are_written_twice_and_found_once(folder, given, server):
    text = texts(folder)["003_adds_books_pages.py"]
    assert "CHECK (title <> '%%'::text)" in text
    assert "COMMENT ON COLUMN public.books.pages IS '100%%'" in text
    with server.database() as live, stock_database(live) as stock:
        router(stock, folder).run()
        table = catalog.read(live).tables["public", "books"]
        assert table.columns["pages"].comment == "100%"
        assert table.constraints["no_percent"].definition == "CHECK (title <> '%'::text)"


def test_each_function_sets_a_time_limit_for_locks_first(folder):
    for name, text in texts(folder).items():
        for function in ast.parse(text).body[1:]:
            assert isinstance(function, ast.FunctionDef), name
            assert ast.unparse(function.body[0]) == (
                "migrator.sql(\"SET LOCAL lock_timeout = '5s'\")"
            )


def test_a_file_imports_nothing_and_only_sends_sql(folder):
    for text in texts(folder).values():
        docstring, *functions = ast.parse(text).body
        assert isinstance(docstring, ast.Expr)
        assert [one.name for one in functions] == ["migrate", "rollback"]
        calls = [ast.unparse(line.value.func) for one in functions for line in one.body]
        assert set(calls) == {"migrator.sql"}


def test_a_header_tells_what_is_lost(given, tmp_path):
    migrations(given, tmp_path, [books(pages=IntegerField(null=True))]).generate("before")
    [path] = migrations(given, tmp_path, [books()]).generate()
    assert path.name == "002_drops_books_pages.py"
    header = ast.get_docstring(ast.parse(path.read_text()))
    assert header == "Domain library: drops books.pages. Loses: column books.pages."


def test_a_header_holds_any_name(given, tmp_path):
    names = {"x": 'back\\slash"', "y": 'three"""quotes', "z": "\\N{x}\\u", "w": "new\nline"}
    columns = {key: TextField(null=True, column_name=name) for key, name in names.items()}
    [path] = migrations(given, tmp_path, [books(**columns)]).generate("before")
    [path] = migrations(given, tmp_path, [books()]).generate("after")
    header = ast.get_docstring(ast.parse(path.read_text()))
    assert 'books.back\\slash"' in header
    assert 'books.three"""quotes' in header


def test_the_same_models_give_the_same_bytes(folder, given, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    migrations(given, other, shop("glad", "sad")).generate("first")
    assert texts(other)["001_first.py"] == texts(folder)["001_first.py"]


def test_a_proposal_is_what_would_be_written(given, tmp_path):
    proposal = migrations(given, tmp_path, [books()]).propose("first")
    assert list(tmp_path.iterdir()) == []
    [path] = migrations(given, tmp_path, [books()]).generate("first")
    assert [(file.name, file.text()) for file in proposal.files] == [(path.stem, path.read_text())]


def test_there_is_nothing_to_write_twice(given, tmp_path):
    assert len(migrations(given, tmp_path, [books()]).generate()) == 1
    assert migrations(given, tmp_path, [books()]).propose() is None
    assert migrations(given, tmp_path, [books()]).generate() == []


def empty_file(folder, number):
    text = "def migrate(migrator, database, *, fake=False):\n    pass\n"
    (folder / f"{number:03}_nothing.py").write_text(text)


def test_the_last_number_is_999(given, tmp_path):
    empty_file(tmp_path, 998)
    [path] = migrations(given, tmp_path, [books()]).generate("last")
    assert path.name == "999_last.py"
    with pytest.raises(MigrationError, match="end at 999"):
        migrations(given, tmp_path, [books(n=IntegerField(null=True))]).generate("too late")
    assert len(texts(tmp_path)) == 2


def test_of_two_files_neither_is_written_when_the_second_has_no_number(given, tmp_path):
    migrations(given, tmp_path, shop("glad")).generate("first")
    empty_file(tmp_path, 998)
    more = shop("glad", "sad")
    more[1].mood.default = "sad"
    with pytest.raises(MigrationError, match="end at 999"):
        migrations(given, tmp_path, more).generate("two")
    assert len(texts(tmp_path)) == 2


def test_a_file_that_fails_its_proof_is_not_written(given, tmp_path):
    migrations(given, tmp_path, [books()]).generate("first")
    empty_file(tmp_path, 2)
    policy = tmp_path / "003_policy.py"
    policy.write_text(
        "def migrate(migrator, database, *, fake=False):\n"
        "    migrator.sql('CREATE POLICY titled ON books USING (title IS NOT NULL)')\n"
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    later = migrations(given, tmp_path, [model("books", n=IntegerField(null=True))])
    with pytest.raises(MigrationError, match=r"proof failed, nothing was written.*004_fourth"):
        later.generate("fourth", drops=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_fill_that_is_no_sql_is_found_by_the_proof(given, tmp_path):
    migrations(given, tmp_path, [books()]).generate("first")
    later = migrations(given, tmp_path, [books(n=IntegerField())])
    with pytest.raises(MigrationError, match="proof failed, nothing was written"):
        later.generate("second", fills={"books.n": "nonsense("})
    assert list(texts(tmp_path)) == ["001_first.py"]


# -- the live database --------------------------------------------------------------------------


def sessions_of(stock, name):
    """How many clients have ever connected to a database, once all of them are gone."""
    for _ in range(1000):
        [(busy,)] = rows(stock, f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'")
        if not busy:
            break
    rows(stock, "SELECT pg_stat_clear_snapshot()")
    return rows(
        stock, f"SELECT sessions, xact_commit FROM pg_stat_database WHERE datname = '{name}'"
    )


def test_the_live_database_is_neither_changed_nor_connected_to(given, server, tmp_path):
    migrations(given, tmp_path, [books()]).generate("first")
    with server.database() as live, stock_database(given) as stock:
        with stock_database(live) as direct:
            router(direct, tmp_path).run()
            before = schema(direct)
            history = rows(direct, "SELECT * FROM migratehistory")
        live.close_all()
        sessions = sessions_of(stock, live.database)
        assert len(migrations(live, tmp_path, [books(n=IntegerField(null=True))]).generate()) == 1
        live.close_all()
        assert sessions_of(stock, live.database) == sessions
        with stock_database(live) as direct:
            assert schema(direct) == before
            assert rows(direct, "SELECT * FROM migratehistory") == history


def test_rows_and_drift_of_the_live_database_play_no_part(given, server, tmp_path):
    migrations(given, tmp_path, [books()]).generate("first")
    with server.database() as live, stock_database(live) as stock:
        execute(stock, "CREATE TABLE books (other int); INSERT INTO books VALUES (1)")
        later = migrations(live, tmp_path, [books(n=IntegerField(null=True))])
        [path] = later.generate("second")
    assert 'migrator.sql("ALTER TABLE public.books ADD COLUMN n integer")' in path.read_text()


def test_no_scratch_database_is_left(given, server, tmp_path):
    def names():
        with stock_database(given) as stock:
            return rows(stock, "SELECT datname FROM pg_database ORDER BY 1")

    before = names()
    migrations(given, tmp_path, [books()]).generate("first")
    with pytest.raises(MigrationError):
        migrations(given, tmp_path, []).generate("second")
    assert names() == before
