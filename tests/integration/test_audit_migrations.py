"""Triggers of the audit trail in generated files: made, compared, changed and dropped."""

import pytest
from migration_scenarios import model
from migration_tools import execute, given, rows, server, stock_database
from migration_tools import router as stock_router

from orm_core import (
    AuditEntry,
    BaseModel,
    Domain,
    EncryptedTextField,
    IntegerField,
    KeyRing,
    ManyToManyField,
    MigrationError,
    Registry,
    Secret,
    TextField,
    acting_as,
    db,
    initialize_db,
    use_key_ring,
)
from orm_core.migrations import catalog
from orm_core.migrations.migrations import Migrations
from orm_core.models.schema import create_all

__all__ = ["given", "server"]  # fixtures


@pytest.fixture(autouse=True)
def _as_before():
    yield
    db.audited = False
    AuditEntry._meta.audit = "trail"


def library(given, folder, audit, *models):
    registry = Registry()
    registry.register(Domain("library", models=models, audit=audit))
    return Migrations(given, registry, folder), registry


def books(**columns):
    return model("books", BaseModel, None, title=TextField(), **columns)


def operations(database):
    return [row[0] for row in rows(database, "SELECT operation FROM audit_log ORDER BY id")]


def test_the_word_comes_changes_and_goes_with_its_triggers(given, server, tmp_path):
    with server.database() as live, stock_database(live) as stock:
        schemas = []
        for audit in (False, True, "chain", True):
            files, registry = library(given, tmp_path, audit, books())
            assert len(files.generate()) == 1
            assert files.generate() == []
            with server.database() as fresh:
                create_all(fresh, registry.models)
                goal = catalog.read(fresh)
            stock_router(stock, tmp_path).run()
            schemas.append(catalog.read(live))
            assert schemas[-1] == goal
            execute(stock, "INSERT INTO books (title) VALUES ('one'); UPDATE books SET title = 'a'")
        assert operations(stock) == ["insert", "update"] * 3
        names = [[sorted(one.triggers) for one in schema.tables.values()] for schema in schemas]
        row = ["orm_core_audit", "orm_core_audit_truncate", "orm_core_audit_update"]
        guards = ["orm_core_audit_guard", "orm_core_audit_guard_insert"]
        chained = [["orm_core_audit_chain", *guards], row]
        assert names == [[[]], [guards, row], chained, [guards, row]]

        for before in reversed(schemas[:-1]):
            stock_router(stock, tmp_path).rollback()
            assert catalog.read(live) == before


def test_what_was_audited_keeps_its_trail_until_somebody_says_drop(given, server, tmp_path):
    library(given, tmp_path, True, books())[0].generate("first")
    files, _ = library(given, tmp_path, False, books())
    with pytest.raises(MigrationError, match="--drop audit_log"):
        files.generate()
    kept = Registry()
    kept.register(Domain("library", (books(),)), Domain("kept", (AuditEntry,)))
    (path,) = Migrations(given, kept, tmp_path).generate("stop")
    text = path.read_text()
    assert "DROP TRIGGER orm_core_audit ON public.books" in text
    assert "DROP TABLE" not in text


def test_drift_sees_a_trigger_that_is_gone_disabled_or_another(server, tmp_path, url):
    live = initialize_db(url)
    try:
        files, _ = library(live, tmp_path, True, books())
        files.generate()
        files.apply()
        assert not files.drift()
        for harm in (
            "DROP TRIGGER orm_core_audit_update ON books",
            "ALTER TABLE books DISABLE TRIGGER orm_core_audit",
            "CREATE OR REPLACE FUNCTION orm_core_audit() RETURNS trigger LANGUAGE plpgsql "
            "AS 'BEGIN RETURN NULL; END'",
            "GRANT EXECUTE ON FUNCTION orm_core_audit() TO PUBLIC",
        ):
            live.execute_sql(harm)
            found = files.drift()
            assert "orm_core_audit" in found.differences[0], harm
            for sql in found.sql:
                live.execute_sql(sql.replace("%", "%%"))
            assert not files.drift()
    finally:
        live.close_all()


def test_a_trigger_follows_the_columns_of_its_table(given, server, tmp_path):
    with server.database() as live, stock_database(live) as stock:
        library(given, tmp_path, True, books(pages=IntegerField(null=True)))[0].generate("one")
        stock_router(stock, tmp_path).run()
        later = books(pages=TextField(null=True), code=EncryptedTextField(null=True))
        files, _ = library(given, tmp_path, True, later)
        (path,) = files.generate("two")
        stock_router(stock, tmp_path).run()
        execute(stock, "INSERT INTO books (title, pages, code) VALUES ('one', '9', 'canary')")
        (old,) = rows(stock, "SELECT new ? 'code', new ->> 'pages', masked FROM audit_log")
        assert old == (False, "9", ["code"])
        assert files.generate("again") == []
        (path,) = library(given, tmp_path, True, books())[0].generate("three", drops=True)
        assert "DROP COLUMN code" in path.read_text()


def test_the_table_of_a_many_to_many_field_is_audited_too(given, tmp_path):
    tag = model("tags", BaseModel, None, name=TextField())
    book = books(tags=ManyToManyField(tag, backref="books"))
    files, _ = library(given, tmp_path, True, book, tag)
    (path,) = files.generate()
    assert "ON public.books_tags_through" in path.read_text()


def test_a_renamed_audited_table_keeps_its_triggers(given, server, tmp_path):
    with server.database() as live, stock_database(live) as stock:
        library(given, tmp_path, True, books())[0].generate("one")
        stock_router(stock, tmp_path).run()
        volumes = model("volumes", BaseModel, None, title=TextField())
        files, _ = library(given, tmp_path, True, volumes)
        (path,) = files.generate("two", renames=["books:volumes"])
        assert "TRIGGER" not in path.read_text()
        stock_router(stock, tmp_path).run()
        execute(stock, "INSERT INTO volumes (title) VALUES ('one')")
        assert rows(stock, "SELECT table_name FROM audit_log") == [("volumes",)]


def test_audited_files_can_be_squashed(given, tmp_path):
    library(given, tmp_path, False, books())[0].generate("one")
    files, _ = library(given, tmp_path, "chain", books())
    files.generate("two")
    files.squash()
    assert files.generate() == []


def test_a_secret_stays_out_of_the_trail_while_a_copy_of_it_is_kept_beside(server, tmp_path, url):
    live = initialize_db(url)
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    try:
        book = books(code=EncryptedTextField(null=True))
        files, _ = library(live, tmp_path, True, book)
        files.generate("one")
        files.apply()
        book.create(title="one", code=Secret("canary"))
        sealed = live.execute_sql("SELECT code, code_iv, code_tag FROM books").fetchone()
        parts = ["", "_iv", "_tag"]
        for part in parts:
            live.execute_sql(f"ALTER TABLE books ADD cipher{part} text")
        live.execute_sql(
            "UPDATE books SET cipher = code, cipher_iv = code_iv, cipher_tag = code_tag"
        )
        live.execute_sql("UPDATE books SET title = 'two'")
        live.execute_sql("DELETE FROM books")
        found = live.execute_sql(
            "SELECT a::text, masked FROM audit_log AS a ORDER BY id"
        ).fetchall()
        assert not [text for text, _ in found for one in sealed if one in text]
        both = sorted(name + part for name in ("code", "cipher") for part in parts)
        assert [masked for _, masked in found] == [sorted(both[3:]), sorted(both[:3]), None, both]
    finally:
        use_key_ring(None)
        live.close_all()


def test_who_acts_around_migrations_is_told_for_the_rows_that_they_change(server, tmp_path, url):
    live = initialize_db(url)
    try:
        files, _ = library(live, tmp_path, True, books())
        files.generate("one")
        files.apply()
        execute(live, "INSERT INTO books (title) VALUES ('old')")
        files.write_backfill("books", "title = 'new'", "title = 'old'")
        with acting_as("deploy:7", request_id="r1"):
            files.apply()
        found = live.execute_sql("SELECT operation, actor, request_id FROM audit_log ORDER BY id")
        assert list(found) == [("insert", None, None), ("update", "deploy:7", "r1")]
    finally:
        live.close_all()
