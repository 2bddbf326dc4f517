"""Purging: what is past its retention goes, what anything refers to stays, wherever it stops."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import CompositeKey

from orm_core import (
    AutoField,
    BaseModel,
    DeferredForeignKey,
    EncryptedTextField,
    ForeignKeyField,
    InsufficientPrivilege,
    InvalidValue,
    KeyRing,
    RegistryError,
    Secret,
    TextField,
    TransactionError,
    db,
    use_key_ring,
    utcnow,
    uuid7,
)
from orm_core.domain import Domain, Registry
from orm_core.erasure import erase
from orm_core.models.data_keys import DataKey
from orm_core.models.schema import create_all
from orm_core.purging import BUSY, purge

TOP = Path(__file__).resolve().parents[2]
CANARY = "canary-ya29.a0AfH6"
DAYS = timedelta(days=1)


class Folder(BaseModel):
    """In a folder, maybe; a cycle with its cover."""

    name = TextField(default="")
    parent = ForeignKeyField("self", null=True, backref="children")
    cover = DeferredForeignKey("Picture", null=True)
    secret = EncryptedTextField(null=True, owner="self")

    class Meta:
        table_name = "purged_folders"


class Picture(BaseModel):
    """In a folder."""

    folder = ForeignKeyField(Folder, null=True, on_delete="CASCADE")

    class Meta:
        table_name = "purged_pictures"


class Visit(BaseModel):
    """Can't be soft-deleted."""

    id = AutoField()  # type: ignore[assignment]
    picture = ForeignKeyField(Picture, on_delete="CASCADE")
    deleted_at = None

    class Meta:
        table_name = "purged_visits"


class Note(BaseModel):
    """Of another domain, which keeps its rows longer."""

    folder = ForeignKeyField(Folder, on_delete="SET NULL", null=True)

    class Meta:
        table_name = "purged_notes"


pictures = Domain("pictures", models=(Folder, Picture, Visit), retention=30 * DAYS)
notes = Domain("notes", models=(Note,), retention=300 * DAYS)
MODELS = (DataKey, Folder, Picture, Visit, Note)


@pytest.fixture(autouse=True)
def ring() -> Iterator[None]:
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    yield
    use_key_ring(None)


@pytest.fixture
def tables(clone_db: Any) -> Any:
    create_all(clone_db, MODELS)
    return clone_db


def aged(row: Any, days: float = 60) -> Any:
    db.execute_sql(
        f"UPDATE {row._meta.table_name} SET deleted_at = %s WHERE id = %s",
        (utcnow() - timedelta(days=days), str(row.id)),
    )
    return row


def told(report: Any) -> dict[str, Any]:
    return {
        one.table.removeprefix("purged_"): (one.rows, dict(one.kept))
        for one in report.tables
        if one.rows or one.kept
    }


def left(model: Any) -> set[Any]:
    return {row.id for row in model.with_deleted()}


# -- which rows -----------------------------------------------------------------------------


def test_rows_past_the_retention_go_and_others_stay(tables):
    live, young = Folder.create(), aged(Folder.create(), days=29)
    for _ in range(3):
        aged(Folder.create())
    assert told(purge(pictures, dry_run=True)) == {"folders": (3, {})}
    assert len(left(Folder)) == 5
    assert told(purge(pictures)) == {"folders": (3, {})}
    assert left(Folder) == {live.id, young.id}
    assert purge(pictures).rows == 0


def test_a_domain_without_retention_is_kept_unless_an_age_is_given(tables):
    forever = Domain("forever", models=(Folder,))
    aged(Folder.create(), days=1000)
    assert purge(forever).tables == []
    assert purge(forever, older_than=90 * DAYS).rows == 1


def test_an_age_stands_in_for_the_retention(tables):
    aged(Folder.create(), days=20)
    assert purge(pictures).rows == 0
    assert purge(pictures, older_than=10 * DAYS).rows == 1


def test_a_registry_is_purged_by_the_retention_of_each_domain(tables):
    everything = Registry()
    everything.register(pictures, notes)
    aged(Note.create()), aged(Note.create(), days=400), aged(Folder.create())
    assert told(purge(everything)) == {"notes": (1, {}), "folders": (1, {})}


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_what_refers_to_each_other_goes_together(tables, batch):
    top = Folder.create()
    chain = [top]
    for _ in range(5):
        chain.append(Folder.create(parent=chain[-1]))
    top.parent = chain[-1]
    top.save()
    itself = Folder.create()
    itself.parent = itself
    itself.save()
    album = Folder.create()
    album.cover = Picture.create(folder=album)
    album.save()
    for row in (*chain, itself, album, album.cover):
        aged(row)
    dry = purge(pictures, dry_run=True, batch=batch)
    assert told(dry) == {"folders": (8, {}), "pictures": (1, {})}
    assert told(purge(pictures, batch=batch)) == told(dry)
    assert not left(Folder) | left(Picture)


@pytest.mark.parametrize("days", [None, 5])
def test_what_a_live_or_young_row_refers_to_is_kept_and_told(tables, days):
    top = aged(Folder.create())
    middle = aged(Folder.create(parent=top))
    picture = Picture.create(folder=middle)
    if days:
        aged(picture, days)
    alone = aged(Folder.create())
    expected = {"folders": (1, {"purged_pictures.folder_id": 1, "purged_folders.parent_id": 1})}
    assert told(purge(pictures, dry_run=True)) == expected
    assert told(purge(pictures)) == expected
    assert left(Folder) == {top.id, middle.id}
    assert alone.id not in left(Folder)
    assert left(Picture) == {picture.id}


def test_a_reference_of_a_table_without_soft_delete_keeps_a_row(tables):
    picture = aged(Picture.create())
    visit = Visit.create(picture=picture)
    assert told(purge(pictures)) == {"pictures": (0, {"purged_visits.picture_id": 1})}
    visit.delete_instance()
    assert told(purge(pictures)) == {"pictures": (1, {})}


def test_a_domain_that_is_not_purged_keeps_what_it_refers_to(tables):
    folder = aged(Folder.create(), days=1000)
    aged(Note.create(folder=folder), days=1000)
    assert told(purge(pictures)) == {"folders": (0, {"purged_notes.folder_id": 1})}
    assert told(purge([pictures, notes])) == {"notes": (1, {}), "folders": (1, {})}


def test_a_reference_that_no_model_knows_keeps_its_row_and_no_other(tables):
    rows = [aged(Folder.create()) for _ in range(9)]
    db.execute_sql("CREATE TABLE strangers (folder uuid REFERENCES purged_folders (id))")
    db.execute_sql("INSERT INTO strangers VALUES (%s)", [str(rows[4].id)])
    assert told(purge(pictures)) == {"folders": (8, {"strangers": 1})}
    assert left(Folder) == {rows[4].id}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_graph_of_rows_keeps_just_what_is_reached_from_a_row_that_stays(tables, data):
    count = data.draw(st.integers(1, 8))
    past = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    edges = data.draw(
        st.lists(st.integers(0, count - 1) | st.none(), min_size=count, max_size=count)
    )
    db.execute_sql("TRUNCATE purged_folders CASCADE")
    rows = [Folder.create(name=str(number)) for number in range(count)]
    for row, edge in zip(rows, edges, strict=True):
        if edge is not None:
            row.parent = rows[edge]
            row.save()
    for row, is_past in zip(rows, past, strict=True):
        if is_past:
            aged(row)
    staying = {number for number in range(count) if not past[number]}
    for _ in range(count):
        staying |= {edges[number] for number in staying if edges[number] is not None}
    batch = data.draw(st.integers(1, 4))
    dry = purge(pictures, dry_run=True, batch=batch)
    report = purge(pictures, batch=batch)
    assert left(Folder) == {rows[number].id for number in staying}
    assert report.rows == dry.rows == count - len(staying)
    assert dry.kept == sum(past[number] for number in staying)


def test_keys_may_be_numbers_and_references_lead_to_other_columns(clone_db):
    class Shelf(BaseModel):
        id = AutoField()  # type: ignore[assignment]
        code = TextField(unique=True)

        class Meta:
            table_name = "purged_shelves"

    class Book(BaseModel):
        shelf = ForeignKeyField(Shelf, field="code")

        class Meta:
            table_name = "purged_books"

    library = Domain("library", models=(Shelf, Book), retention=DAYS)
    create_all(clone_db, library.models)
    shelves = [aged(Shelf.create(code=code)) for code in "abc"]
    Book.create(shelf=shelves[0])
    aged(Book.create(shelf=shelves[1]))
    assert told(purge(library)) == {
        "books": (1, {}),
        "shelves": (2, {"purged_books.shelf_id": 1}),
    }
    assert left(Shelf) == {shelves[0].id}


def test_a_key_of_several_columns_is_refused(tables):
    class Pair(BaseModel):
        a = TextField()
        b = TextField()

        class Meta:
            primary_key = CompositeKey("a", "b")

    with pytest.raises(InvalidValue, match="several columns"):
        purge(Domain("pairs", models=(Pair,), retention=DAYS))


# -- data keys ------------------------------------------------------------------------------


def test_the_data_keys_of_purged_owners_go_too(tables):
    gone = aged(Folder.create(secret=Secret(CANARY)))
    stays = Folder.create(secret=Secret(CANARY))
    hard = Folder.create(secret=Secret(CANARY))
    hard.hard_delete_instance()
    assert purge(pictures, dry_run=True).data_keys == 1
    assert DataKey.select().count() == 3
    purge(pictures)
    assert [key.id for key in DataKey.select()] == [f"purged_folders/{stays.id}"]
    assert stays.secret.reveal() == CANARY
    assert gone.id not in left(Folder)


# -- the audit trail ------------------------------------------------------------------------


def test_the_audit_trail_notes_what_is_purged(clone_db, monkeypatch):
    class Memo(BaseModel):
        text = EncryptedTextField(owner="self")
        parent = ForeignKeyField("self", null=True)

        class Meta:
            table_name = "purged_memos"

    monkeypatch.setattr(db, "audited", db.audited)
    audited = Registry()
    audited.register(Domain("memos", models=(Memo,), retention=30 * DAYS, audit="chain"))
    create_all(clone_db, audited.models)
    first = Memo.create(text=Secret(CANARY))
    second = Memo.create(text=Secret(CANARY), parent=first)
    for row in (first, second):
        aged(row)
    erase(Memo, first.id)
    assert purge(audited).rows == 2
    trail = db.execute_sql("SELECT row_id, operation, a::text FROM audit_log a").fetchall()
    gone = {row for row, operation, _ in trail if operation == "hard_delete"}
    assert gone == {str(first.id), str(second.id)}
    sealed = [text for *_, text in trail if CANARY in text or "@owner" in text]
    assert sealed == []


# -- beside others --------------------------------------------------------------------------


def test_a_row_that_is_restored_meanwhile_stays(tables, orm_core_server):
    kept, other = aged(Folder.create()), aged(Folder.create())
    link = psycopg2.connect(orm_core_server.url(db.database))
    try:
        with link.cursor() as cursor:
            cursor.execute(
                "UPDATE purged_folders SET deleted_at = NULL WHERE id = %s", [str(kept.id)]
            )
            assert told(purge(pictures)) == {"folders": (1, {BUSY: 1})}
            link.commit()
    finally:
        link.close()
    assert purge(pictures).rows == 0
    assert left(Folder) == {kept.id}
    assert other.id not in left(Folder)


def test_a_row_that_is_referred_to_meanwhile_stays(tables, orm_core_server):
    folder = aged(Folder.create())
    link = psycopg2.connect(orm_core_server.url(db.database))
    try:
        with link.cursor() as cursor:
            cursor.execute("INSERT INTO purged_pictures (folder_id) VALUES (%s)", [str(folder.id)])
            assert told(purge(pictures)) == {"folders": (0, {BUSY: 1})}
            link.commit()
    finally:
        link.close()
    assert told(purge(pictures)) == {"folders": (0, {"purged_pictures.folder_id": 1})}
    assert Picture.select().count() == 1


def test_purges_at_the_same_time_do_not_get_in_each_others_way(tables):
    for _ in range(60):
        parent = aged(Folder.create())
        aged(Folder.create(parent=parent))
        aged(Picture.create(folder=parent))
    start = threading.Barrier(3)

    def run(_: int) -> int:
        start.wait()
        return purge(pictures, batch=7).rows

    with ThreadPoolExecutor(3) as threads:
        done = sum(threads.map(run, range(3)))
    assert done + purge(pictures).rows == 180
    assert not left(Folder) | left(Picture)


_KILLED = """
import sys
from orm_core import initialize_db
sys.path.insert(0, {tests!r})
from test_purge import pictures, purge
initialize_db({url!r})
print("ready", flush=True)
purge(pictures, batch=1)
"""


@pytest.mark.slow
def test_a_purge_that_is_killed_is_taken_up_by_the_next(tables, orm_core_server):
    for _ in range(400):
        aged(Picture.create(folder=aged(Folder.create())))
    url = orm_core_server.url(db.database)
    code = _KILLED.format(tests=str(Path(__file__).parent), url=url)
    for _ in range(2):
        before = Picture.with_deleted().count() + Folder.with_deleted().count()
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=TOP, env={**os.environ}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 30
        while Picture.with_deleted().count() + Folder.with_deleted().count() == before:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
    assert Folder.with_deleted().count() > 0
    # The server notices a client that is gone when it next writes to it.
    deadline = time.monotonic() + 30
    while left(Folder) | left(Picture):
        purge(pictures)
        assert time.monotonic() < deadline


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("age", [0, 90, "90d", timedelta(), timedelta(days=-1)])
def test_a_retention_that_is_no_time_is_refused(age):
    with pytest.raises(RegistryError, match="retention"):
        Domain("bad", retention=age)


def test_arguments_that_make_no_sense_are_refused(tables):
    for arguments in (
        {"batch": 0},
        {"batch": True},
        {"older_than": 90},
        {"older_than": timedelta(days=-1)},
    ):
        with pytest.raises(InvalidValue):
            purge(pictures, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="domains"):
        purge([Folder])  # type: ignore[list-item]


def test_a_role_from_which_rows_are_hidden_neither_purges_nor_erases(tables):
    folder = aged(Folder.create(secret=Secret(CANARY)))
    Picture.create(folder=folder)
    role = f"purging_{uuid7().hex}"
    db.execute_sql("ALTER TABLE purged_pictures ENABLE ROW LEVEL SECURITY")
    db.execute_sql(f"CREATE ROLE {role}")
    db.execute_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        with db.connection_context():
            db.execute_sql(f"SET ROLE {role}")
            with pytest.raises(InsufficientPrivilege, match="purged_pictures"):
                purge(pictures)
            db.execute_sql("RESET ROLE")
            db.execute_sql("ALTER TABLE purged_folders ENABLE ROW LEVEL SECURITY")
            db.execute_sql(f"SET ROLE {role}")
            with pytest.raises(InsufficientPrivilege, match="purged_folders"):
                erase(Folder, folder.id)
            db.execute_sql("RESET ROLE")
    finally:
        db.execute_sql(f"DROP OWNED BY {role}")
        db.execute_sql(f"DROP ROLE {role}")
    assert left(Folder) == {folder.id}
    assert Picture.select().count() == 1
    assert folder.secret.reveal() == CANARY


def test_a_purge_inside_a_transaction_is_refused(tables):
    with db.atomic(), pytest.raises(TransactionError, match="outside a transaction"):
        purge(pictures)


def test_nothing_that_is_told_carries_a_value(tables, caplog):
    aged(Folder.create(name=CANARY, secret=Secret(CANARY)))
    aged(Folder.create(parent=aged(Folder.create(name=CANARY))))
    with caplog.at_level("INFO"):
        assert CANARY not in repr(purge(pictures)) + caplog.text
