"""Encrypted columns: a Secret goes in and comes out, and nothing else ever does."""

import json
import logging
import pickle
import shutil
import subprocess
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import fn

from domains.users import Session, SessionProvider, User
from orm_core import (
    BaseModel,
    EncryptedTextField,
    InvalidValue,
    KeyRing,
    KeyRingError,
    NotNullViolation,
    OrmCoreError,
    RegistryError,
    Secret,
    SecretUnreadable,
    Service,
    TextField,
    db,
    use_key_ring,
)

CANARY = "canary-ya29.a0AfH6"
KEY_1 = "k1:8f1d2c3b4a59687766554433221100ffeeddccbbaa99887766554433221100aa"
KEY_2 = "k2:00112233445566778899aabbccddeeff102132435465768798a9babbdcddfeff"
COLUMN = "provider_access_token"
REFRESH = "provider_refresh_token"
PARTS = [COLUMN, f"{COLUMN}_iv", f"{COLUMN}_tag"]


class Note(BaseModel):
    """The smallest model with a secret that may be absent."""

    title = TextField(null=True)
    body = EncryptedTextField(null=True)

    class Meta:
        table_name = "encrypted_notes"


@pytest.fixture(autouse=True)
def key_ring() -> Iterator[None]:
    use_key_ring(KeyRing.parse(KEY_1))
    yield
    use_key_ring(None)


@pytest.fixture
def notes(rollback_db):
    db.create_tables([Note])
    return rollback_db


def new_user(name: str = "ada") -> User:
    return User.create(email=f"{name}@b.c", first_name=name, provider_account_id=name)


def values(user: User, **changes: Any) -> dict[str, Any]:
    return {
        "user": user,
        "provider": SessionProvider.GOOGLE,
        COLUMN: Secret(CANARY),
        "provider_account_id": "g",
        "expires_at": datetime.now(UTC) + timedelta(hours=1),
        **changes,
    }


@pytest.fixture
def user(rollback_db) -> User:
    return new_user()


@pytest.fixture
def session(user) -> Session:
    return Session.create(**values(user))


def raw(row: Any, *columns: str) -> tuple[Any, ...]:
    names = ", ".join(columns or PARTS)
    table = type(row)._meta.table_name
    found: tuple[Any, ...] = db.execute_sql(
        f"SELECT {names} FROM {table} WHERE id = %s", [str(row.id)]
    ).fetchone()
    return found


def write_raw(row: Any, **columns: Any) -> None:
    changes = ", ".join(f"{name} = %s" for name in columns)
    table = type(row)._meta.table_name
    db.execute_sql(f"UPDATE {table} SET {changes} WHERE id = %s", [*columns.values(), str(row.id)])


def fresh(row: Any) -> Any:
    return type(row).with_deleted().where(type(row).id == row.id).get()


def token_of(row: Any, name: str = COLUMN) -> str:
    text: str = getattr(fresh(row), name).reveal()
    return text


def whole_database() -> str:
    """Every row of our tables as text."""
    tables = ["users", "sessions", "orders"]
    return "".join(
        str(db.execute_sql(f"SELECT {table}::text FROM {table}").fetchall()) for table in tables
    )


@contextmanager
def statements() -> Iterator[list[Any]]:
    sent: list[Any] = []

    def note(event: Any) -> None:
        sent.append((event.sql, event.params))

    db.query_hooks.append(note)
    try:
        yield sent
    finally:
        db.query_hooks.remove(note)


def everything_shown_by(error: BaseException | None) -> str:
    """What a log, an error tracker or a debugger would print of an error and its causes."""
    shown = ""
    if error is not None:
        shown = "".join(traceback.format_exception(error))
    while error is not None:
        shown += repr(error) + repr(error.args) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return shown


# -- in and out -----------------------------------------------------------------------------

WRITES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "create": lambda row: Session.create(**row),
    "save": lambda row: Session(**row).save(),
    "insert": lambda row: Session.insert(row).execute(),
    "insert by keyword": lambda row: Session.insert(**row).execute(),
    "insert_many": lambda row: Session.insert_many([row]).execute(),
    "bulk_create": lambda row: Session.bulk_create([Session(**row)]),
    "get_or_create": lambda row: Session.get_or_create(
        provider_account_id=row.pop("provider_account_id"), defaults=row
    ),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_secret_is_stored_sealed_and_read_back(user, write):
    WRITES[write](values(user, **{REFRESH: Secret(f"{CANARY}-2")}))
    session = Session.get()
    assert session.provider_access_token.reveal() == CANARY
    assert session.provider_refresh_token.reveal() == f"{CANARY}-2"
    assert CANARY not in whole_database()
    assert CANARY.encode().hex() not in whole_database()
    value, iv, tag = raw(session)
    assert (len(value), len(iv), len(tag)) == (2 * len(CANARY), 27, 32)
    assert iv.endswith(".k1")


@pytest.mark.parametrize(
    "spell",
    [lambda key: key, str, lambda key: key.hex, lambda key: str(key).upper()],
    ids=["UUID", "text", "without hyphens", "upper case"],
)
@pytest.mark.parametrize("write", WRITES)
def test_a_secret_opens_however_the_id_of_its_row_was_spelled(user, write, spell):
    key = uuid.UUID("0190c6f0-abcd-7abc-8def-00000000000a")
    WRITES[write](values(user, id=spell(key)))
    assert Session.get_by_id(key).provider_access_token.reveal() == CANARY


def test_the_answer_of_a_write_opens_too(user):
    session = Session.create(**values(user))
    assert session.provider_access_token.reveal() == CANARY
    (row,) = Session.insert(values(user)).returning(Session).execute()
    assert row.provider_access_token.reveal() == CANARY


def test_a_new_instance_gives_back_the_secret_it_was_given():
    session = Session(provider_access_token=Secret(CANARY))
    assert session.provider_access_token.reveal() == CANARY


@pytest.mark.parametrize(
    "query",
    [
        lambda: Session.select(),
        lambda: Session.with_deleted(),
        lambda: Session.select(Session, User).join(User),
        lambda: Session.alias().select(),
        lambda: Session.select().iterator(),
        lambda: Session.select(
            Session.id,
            Session.provider_access_token,
            Session.provider_access_token_iv,
            Session.provider_access_token_tag,
        ),
        lambda: Session.select() | Session.select(),
        lambda: Session.select().limit(1),
        lambda: [Session.select().objects().get()],
        lambda: Session.update(provider_scope="x").returning(Session).execute(),
        lambda: User.get().sessions,
        lambda: User.select().prefetch(Session.select())[0].sessions,
        lambda: User.select().with_related(User.sessions)[0].sessions,
    ],
)
def test_every_way_of_loading_a_row_opens_its_secret(session, query):
    (row,) = list(query())
    assert row.provider_access_token.reveal() == CANARY


def test_each_row_of_many_is_sealed_for_itself(user):
    rows = [values(user, **{COLUMN: Secret(f"{CANARY}-{number}")}) for number in range(20)]
    Session.insert_many(rows).execute()
    tokens = {session.provider_access_token.reveal() for session in Session.select()}
    assert tokens == {f"{CANARY}-{number}" for number in range(20)}
    ivs = {session.__data__[f"{COLUMN}_iv"] for session in Session.select()}
    assert len(ivs) == 20


def test_rows_with_and_without_a_secret_are_inserted_together(notes):
    Note.insert_many([{"title": "a"}, {"body": Secret("b")}, {"body": None}]).execute()
    bodies = [note.body and note.body.reveal() for note in Note.select().order_by(Note.title)]
    assert sorted(bodies, key=str) == [None, None, "b"]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=300))
def test_any_text_of_unicode_comes_back(notes, text):
    note = Note.create(body=Secret(text))
    assert fresh(note).body.reveal() == text


def test_two_secrets_of_one_row_are_sealed_apart(user):
    row = values(user, **{REFRESH: Secret(CANARY)})
    session = Session.create(**row)
    access = raw(session)
    refresh = raw(session, REFRESH, f"{REFRESH}_iv", f"{REFRESH}_tag")
    assert not set(access) & set(refresh)


# -- plain text is refused ------------------------------------------------------------------

PLAIN = [CANARY, CANARY.encode(), "", 7, [CANARY], {"a": CANARY}]


def assign(session: Session, value: Any) -> None:
    session.provider_access_token = value


TEXT_DOORS: dict[str, Callable[[Session, Any], Any]] = {
    "construct": lambda session, value: Session(provider_access_token=value),
    "create": lambda session, value: Session.create(**values(session.user, **{COLUMN: value})),
    "setattr": assign,
    "insert": lambda session, value: Session.insert(
        values(session.user, **{COLUMN: value})
    ).execute(),
    "insert_many": lambda session, value: Session.insert_many(
        [values(session.user), values(session.user, **{COLUMN: value})]
    ).execute(),
    "insert_many of tuples": lambda session, value: Session.insert_many(
        [(value,)], fields=[Session.provider_access_token]
    ).execute(),
    "update": lambda session, value: Session.update({COLUMN: value}).execute(),
    "set_by_id": lambda session, value: Session.set_by_id(session.id, {COLUMN: value}),
    "bulk_create": lambda session, value: Session.bulk_create(
        [Session(**values(session.user, **{COLUMN: value}))]
    ),
    "bulk_update": lambda session, value: (
        assign(session, value),
        Session.bulk_update([session], [COLUMN]),
    ),
    "where": lambda session, value: list(
        Session.select().where(Session.provider_access_token == value)
    ),
    "where in": lambda session, value: list(
        Session.select().where(Session.provider_access_token.in_([value]))
    ),
    "get": lambda session, value: Session.get(Session.provider_access_token == value),
    "get by name": lambda session, value: Session.get_or_none(**{COLUMN: value}),
    "get_or_create": lambda session, value: Session.get_or_create(**{COLUMN: value}),
    "filter": lambda session, value: list(Session.filter(**{COLUMN: value})),
    "iv": lambda session, value: Session.update({f"{COLUMN}_iv": value}).execute(),
    "tag": lambda session, value: Session.update({f"{COLUMN}_tag": value}).execute(),
    "insert the iv": lambda session, value: Session.insert(
        values(session.user, **{f"{COLUMN}_iv": value})
    ).execute(),
    "on_conflict": lambda session, value: (
        Session.insert(values(session.user, id=session.id))
        .on_conflict(conflict_target=[Session.id], update={COLUMN: value})
        .execute()
    ),
}


@pytest.mark.parametrize("door", TEXT_DOORS)
def test_no_door_takes_a_plain_text(session, door):
    before = raw(session)
    for value in PLAIN:
        with statements() as sent, pytest.raises(InvalidValue, match="no SQL was sent") as caught:
            TEXT_DOORS[door](session, value)
        assert not [sql for sql, _ in sent if sql.startswith(("INSERT", "UPDATE"))]
        assert CANARY not in str(sent)
        assert CANARY not in everything_shown_by(caught.value)
    assert raw(session) == before
    assert Session.select().count() == 1


def test_the_error_names_the_field_and_what_it_takes(session):
    with pytest.raises(InvalidValue, match=r"Session.provider_access_token must be a Secret, as"):
        session.provider_access_token = CANARY


SECRET_DOORS = ("update", "set_by_id", "bulk_update", "where", "where in", "get", "filter", "iv")


@pytest.mark.parametrize("door", SECRET_DOORS)
def test_a_secret_is_not_compared_or_set_in_bulk(session, door):
    before = raw(session)
    with pytest.raises(InvalidValue) as caught:
        TEXT_DOORS[door](session, Secret("another"))
    assert "set in bulk" in str(caught.value) or door == "iv"
    assert raw(session) == before


@pytest.mark.parametrize("update", ["update", "preserve"])
def test_a_conflict_does_not_update_a_secret(session, update):
    change = {COLUMN: Secret("x")} if update == "update" else [COLUMN]
    query = Session.insert(values(session.user, id=session.id))
    with pytest.raises(InvalidValue, match="can't update an encrypted column"):
        query.on_conflict(conflict_target=[Session.id], **{update: change}).execute()
    assert token_of(session) == CANARY


@pytest.mark.parametrize(
    "test",
    [
        lambda field: field.contains(CANARY),
        lambda field: field.startswith(CANARY),
        lambda field: field.endswith(CANARY),
        lambda field: field % CANARY,
        lambda field: field**CANARY,
        lambda field: field.regexp(CANARY),
        lambda field: field.between(CANARY, CANARY),
        lambda field: field > CANARY,
        lambda field: field != CANARY,
        lambda field: field.not_in([CANARY]),
        lambda field: field.ilike(CANARY),
    ],
)
def test_a_text_is_not_searched_in_a_secret(session, test):
    with statements() as sent, pytest.raises(InvalidValue):
        list(Session.select().where(test(Session.provider_access_token)))
    assert sent == []


def test_a_bulk_update_can_clear_no_part_of_a_secret_alone(notes):
    note = Note.create(title="a", body=Secret(CANARY))
    Note.update(body=None).execute()
    assert fresh(note).body is None
    assert raw(note, "body", "body_iv", "body_tag") == (None, None, None)


def test_a_secret_is_asked_for_by_its_absence(notes):
    note, bare = Note.create(body=Secret("x")), Note.create()
    assert list(Note.select().where(Note.body.is_null())) == [bare]
    assert list(Note.select().where(Note.body.is_null(False))) == [note]
    assert list(Note.select().where(Note.body == None)) == [bare]  # noqa: E711


# -- null -----------------------------------------------------------------------------------


def test_an_absent_secret_is_none(notes):
    note = Note.create()
    assert (note.body, fresh(note).body) == (None, None)
    assert raw(note, "body", "body_iv", "body_tag") == (None, None, None)


def test_a_secret_is_added_and_taken_away(notes):
    note = Note.create(title="a")
    note.body = Secret("x")
    note.save()
    assert token_of(note, "body") == "x"
    note.body = None
    note.save()
    assert fresh(note).body is None
    assert raw(note, "body", "body_iv", "body_tag") == (None, None, None)


def test_an_empty_secret_is_not_none(notes):
    assert token_of(Note.create(body=Secret("")), "body") == ""


def test_a_secret_that_must_be_there_is_the_servers_to_refuse(user):
    with pytest.raises(NotNullViolation, match="provider_access_token"), db.atomic():
        Session.create(**values(user, **{COLUMN: None}))


# -- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x" * 1024, "é" * 512, "🔑" * 256])
def test_a_secret_of_1024_bytes_fits(notes, text):
    use_key_ring(KeyRing.parse(KEY_1.replace("k1:", "k234567:")))
    assert token_of(Note.create(body=Secret(text)), "body") == text


@pytest.mark.parametrize("text", ["x" * 1025, "é" * 512 + "x", "🔑" * 257, CANARY * 1_000_000])
@pytest.mark.parametrize("door", ["create", "setattr", "insert", "insert_many", "bulk_create"])
def test_a_longer_one_is_refused_before_sql(session, door, text):
    with statements() as sent, pytest.raises(InvalidValue, match="at most 1024 bytes") as caught:
        TEXT_DOORS[door](session, Secret(text))
    assert not [sql for sql, _ in sent if sql.startswith("INSERT")]
    assert CANARY not in everything_shown_by(caught.value)


def test_a_secret_that_utf_8_cannot_carry_is_refused(session):
    with pytest.raises(InvalidValue, match="lone surrogates"):
        session.provider_access_token = Secret(f"{CANARY}\ud800")


def test_an_error_about_a_secret_has_no_cause_that_shows_it(session):
    with pytest.raises(InvalidValue) as caught:
        session.provider_access_token = Secret(f"{CANARY}\ud800")
    assert CANARY not in everything_shown_by(caught.value)


# -- changing a secret ----------------------------------------------------------------------


def test_saving_a_changed_secret_seals_it_anew(session):
    before = raw(session)
    session.provider_access_token = Secret("another")
    session.save()
    assert not set(raw(session)) & set(before)
    assert token_of(session) == session.provider_access_token.reveal() == "another"


def test_saving_a_loaded_row_seals_what_changed_only(session):
    before = raw(session)
    loaded = fresh(session)
    loaded.provider_scope = "email"
    loaded.save()
    assert raw(session) == before
    loaded.provider_access_token = Secret(CANARY)
    loaded.save()
    assert not set(raw(session)) & set(before)


def test_saving_uses_the_first_key(session):
    use_key_ring(KeyRing.parse(f"{KEY_2},{KEY_1}"))
    assert token_of(session) == CANARY
    session.provider_access_token = fresh(session).provider_access_token
    session.save()
    assert raw(session)[1].endswith(".k2")
    use_key_ring(KeyRing.parse(KEY_2))
    assert token_of(session) == CANARY


def test_the_secret_of_one_row_can_be_given_to_another(session):
    other = Session.create(**values(session.user, **{COLUMN: Secret("x")}))
    other.provider_access_token = fresh(session).provider_access_token
    other.save()
    assert token_of(other) == CANARY
    assert not set(raw(other)) & set(raw(session))


def test_a_secret_survives_deletion_and_restoring(session):
    session.delete_instance()
    assert token_of(session) == CANARY
    session.restore_instance()
    assert token_of(session) == CANARY


def test_bulk_updates_of_other_columns_leave_secrets_alone(session):
    before = raw(session)
    Session.update(provider_scope="x").execute()
    session.provider_scope = "y"
    Session.bulk_update([session], ["provider_scope"])
    assert raw(session) == before
    assert token_of(session) == CANARY


# -- partial rows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        [COLUMN],
        ["id", COLUMN],
        PARTS,
        ["id", COLUMN, f"{COLUMN}_iv"],
        ["id", COLUMN, f"{COLUMN}_tag"],
    ],
    ids="+".join,
)
def test_a_part_of_a_secret_does_not_open_and_says_what_is_missing(session, fields):
    row = Session.select(*(Session._meta.fields[name] for name in fields)).get()
    with pytest.raises(SecretUnreadable, match="loaded without its other columns; select") as error:
        _ = row.provider_access_token
    assert f"Session.{COLUMN}" in str(error.value)
    assert f"{COLUMN}_iv, {COLUMN}_tag and the id" in str(error.value)


def test_a_row_without_its_secret_has_none(session):
    row = Session.select(Session.id, Session.provider_scope).get()
    assert row.provider_access_token is None
    row.provider_scope = "x"
    row.save()
    assert token_of(session) == CANARY


# -- rows that were touched -----------------------------------------------------------------


def unreadable(row: Any, name: str = COLUMN) -> str:
    loaded = fresh(row)
    secret = getattr(loaded, name)
    with pytest.raises(SecretUnreadable) as caught:
        secret.reveal()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert CANARY not in everything_shown_by(caught.value)
    return str(caught.value)


def test_a_value_moved_to_another_row_names_the_row(session):
    other = Session.create(**values(session.user, **{COLUMN: Secret("other")}))
    write_raw(session, **dict(zip(PARTS, raw(other), strict=True)))
    assert unreadable(session).startswith(f"sessions.{COLUMN} of row {session.id}: ")
    assert token_of(other) == "other"


def test_values_swapped_between_columns_do_not_open(user):
    session = Session.create(**values(user, **{REFRESH: Secret("refresh")}))
    access = raw(session)
    refresh_parts = [REFRESH, f"{REFRESH}_iv", f"{REFRESH}_tag"]
    write_raw(
        session,
        **dict(zip(PARTS, raw(session, *refresh_parts), strict=True)),
        **dict(zip(refresh_parts, access, strict=True)),
    )
    unreadable(session)
    assert unreadable(session, REFRESH).startswith(f"sessions.{REFRESH} of row")


def test_a_value_of_another_table_does_not_open(session, notes):
    note = Note.create(id=session.id, body=Secret("note"))
    write_raw(session, **dict(zip(PARTS, raw(note, "body", "body_iv", "body_tag"), strict=True)))
    unreadable(session)


def test_a_row_whose_id_was_changed_does_not_open(notes):
    note = Note.create(body=Secret(CANARY))
    moved = Note(id=uuid.uuid4())
    write_raw(note, id=str(moved.id))
    unreadable(moved, "body")


@pytest.mark.parametrize("part", PARTS)
def test_an_altered_part_does_not_open(session, part):
    (text,) = raw(session, part)
    write_raw(session, **{part: ("1" if text[0] == "0" else "0") + text[1:]})
    unreadable(session)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("text", ["", "zz", "\u00e9", "00", CANARY])
def test_a_part_that_is_no_hex_does_not_open(session, part, text):
    write_raw(session, **{part: text})
    unreadable(session)


@pytest.mark.parametrize("part", ["body_iv", "body_tag"])
def test_a_part_that_is_null_does_not_open(notes, part):
    note = Note.create(body=Secret(CANARY))
    write_raw(note, **{part: None})
    with pytest.raises(SecretUnreadable):
        fresh(note).body.reveal()


def test_a_key_that_is_gone_opens_nothing(session):
    use_key_ring(KeyRing.parse(KEY_2))
    unreadable(session)


def test_every_cause_has_one_error(session):
    messages = set()
    value, iv, tag = raw(session)
    for change in ({COLUMN: "00"}, {f"{COLUMN}_iv": iv[:-1] + "9"}, {f"{COLUMN}_tag": "00" * 16}):
        write_raw(session, **change)
        messages.add(unreadable(session))
        write_raw(session, **dict(zip(PARTS, (value, iv, tag), strict=True)))
    use_key_ring(KeyRing.parse(KEY_2))
    messages.add(unreadable(session))
    assert len(messages) == 1


def test_an_unreadable_secret_spoils_neither_its_row_nor_others(session):
    other = Session.create(**values(session.user, **{COLUMN: Secret("other")}))
    write_raw(session, **{COLUMN: "00"})
    rows = {row.id: row for row in Session.select()}
    assert rows[session.id].provider_account_id == "g"
    assert rows[other.id].provider_access_token.reveal() == "other"
    row = rows[session.id]
    row.provider_scope = "x"
    row.save()
    row.provider_access_token = Secret("anew")
    row.save()
    assert token_of(session) == "anew"


def test_an_unreadable_secret_is_not_copied_to_another_row(session):
    other = Session.create(**values(session.user, **{COLUMN: Secret("other")}))
    write_raw(session, **{COLUMN: "00"})
    other.provider_access_token = fresh(session).provider_access_token
    with pytest.raises(SecretUnreadable, match=str(session.id)):
        other.save()
    assert token_of(other) == "other"


# -- rows of the earlier system -------------------------------------------------------------

NODE_SEALS = """
const crypto = require("crypto");
const {key, text, ivBytes} = JSON.parse(require("fs").readFileSync(0, "utf8"));
const iv = crypto.randomBytes(ivBytes);
const cipher = crypto.createCipheriv("aes-256-gcm", Buffer.from(key, "hex"), iv);
const value = cipher.update(text, "utf8", "hex") + cipher.final("hex");
console.log(JSON.stringify([value, iv.toString("hex"), cipher.getAuthTag().toString("hex")]));
"""
#: "ya29.legacy é" under KEY_1, written by Node with an iv of 12 and of 16 bytes
LEGACY = {
    12: (
        "68f6e74d365e2f710239afe47ff6",
        "5bd22562143f641fff963829",
        "ca6a3f42650ca738f83a20149cd7211e",
    ),
    16: (
        "95fb6e3ec7aff666e19673980d19",
        "9585bb79f81c6784922f8937612fee87",
        "9a5312d1b5c1e1304c9eea96d5c6528b",
    ),
}


@pytest.mark.parametrize("size", LEGACY)
def test_a_row_of_the_earlier_system_is_read(session, size):
    write_raw(session, **dict(zip(PARTS, LEGACY[size], strict=True)))
    assert token_of(session) == "ya29.legacy é"
    use_key_ring(KeyRing.parse(f"{KEY_2},{KEY_1}"))
    assert token_of(session) == "ya29.legacy é"


@pytest.mark.parametrize("size", LEGACY)
def test_a_row_of_the_earlier_system_is_sealed_anew_when_it_is_saved(session, size):
    write_raw(session, **dict(zip(PARTS, LEGACY[size], strict=True)))
    row = fresh(session)
    row.provider_access_token = row.provider_access_token
    row.save()
    assert raw(session)[1].endswith(".k1")
    assert token_of(session) == "ya29.legacy é"


@pytest.mark.parametrize("size", LEGACY)
def test_an_altered_row_of_the_earlier_system_is_refused(session, size):
    value, iv, tag = LEGACY[size]
    for parts in ((value[:-1] + "0", iv, tag), (value, "0" * len(iv), tag), (value, iv, "0" * 32)):
        write_raw(session, **dict(zip(PARTS, parts, strict=True)))
        unreadable(session)


@pytest.mark.parametrize("size", [12, 16])
def test_a_row_that_node_writes_now_is_read(session, size):
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node, to write a row as the earlier system did")
    question = json.dumps({"key": KEY_1[3:], "text": CANARY, "ivBytes": size})
    answer = subprocess.run(
        [node, "-e", NODE_SEALS], input=question, capture_output=True, text=True, check=True
    )
    write_raw(session, **dict(zip(PARTS, json.loads(answer.stdout), strict=True)))
    assert token_of(session) == CANARY


# -- nothing shows it -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda row: repr(row.provider_access_token),
        lambda row: str(row.provider_access_token),
        lambda row: f"{row.provider_access_token:>40}",
        lambda row: repr(row.__data__),
        lambda row: repr(vars(row)),
        lambda row: repr(list(Session.select().dicts())),
        lambda row: repr(list(Session.select().tuples())),
        lambda row: repr(list(Session.select().namedtuples())),
        lambda row: repr(list(Session.select())),
        lambda row: json.dumps(list(Session.select().dicts()), default=str),
        lambda row: repr(Session.select(fn.MAX(Session.provider_access_token)).scalar()),
        lambda row: repr(list(db.execute_sql("SELECT * FROM sessions").fetchall())),
    ],
)
@pytest.mark.parametrize("load", [lambda session: session, fresh], ids=["created", "loaded"])
def test_a_row_does_not_show_its_secret(session, load, show):
    assert CANARY not in show(load(session))


def test_a_loaded_secret_is_no_text(session):
    secret = fresh(session).provider_access_token
    with pytest.raises(TypeError):
        json.dumps({"token": secret})
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert secret == Secret(CANARY)
    assert secret != Secret("other")
    assert secret != CANARY


def test_nothing_of_a_secret_gets_into_a_log_or_an_error(user, caplog):
    caplog.set_level(logging.DEBUG)
    errors = []
    sent: list[Any] = []

    def note(event: Any) -> None:
        sent.append((event.sql, event.params))

    db.query_hooks.append(note)
    try:
        for write in WRITES.values():
            write(values(user, **{REFRESH: Secret(f"{CANARY}-2")}))
        for door in TEXT_DOORS.values():
            for value in (CANARY, Secret(CANARY), Secret(CANARY * 100)):
                try:
                    with db.atomic():
                        door(Session.get(), value)
                except (OrmCoreError, ValueError) as error:
                    errors.append(error)
        for row in Session.select():
            row.provider_access_token.reveal()
            row.provider_access_token = Secret(f"{CANARY}-3")
            row.save()
        use_key_ring(KeyRing.parse(KEY_2))
        for row in Session.select():
            with pytest.raises(SecretUnreadable) as caught:
                row.provider_access_token.reveal()
            errors.append(caught.value)
    finally:
        db.query_hooks.remove(note)
    assert len(caplog.records) > 50
    assert len(errors) > 30
    shown = caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    shown += "".join(map(everything_shown_by, errors)) + repr(sent) + whole_database()
    hidden = [CANARY, CANARY.encode().hex(), KEY_1[3:], KEY_2[3:]]
    assert not [secret for secret in hidden if secret in shown]


# -- the key ring in use --------------------------------------------------------------------


def test_without_keys_nothing_is_sealed(user, monkeypatch, tmp_path):
    monkeypatch.delenv("ORM_CORE_TOKEN_KEYS", raising=False)
    monkeypatch.chdir(tmp_path)
    use_key_ring(None)
    with statements() as sent, pytest.raises(KeyRingError, match="set ORM_CORE_TOKEN_KEYS"):
        Session.create(**values(user))
    assert sent == []


def test_the_keys_come_from_the_environment(user, monkeypatch):
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", f"{KEY_2},{KEY_1}")
    use_key_ring(None)
    session = Session.create(**values(user))
    assert raw(session)[1].endswith(".k2")
    assert token_of(session) == CANARY


def test_malformed_keys_of_the_environment_do_not_show(user, monkeypatch):
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", f"{KEY_1},k2:{CANARY}")
    use_key_ring(None)
    with pytest.raises(KeyRingError, match="Entry 2 of the key ring") as caught:
        Session.create(**values(user))
    shown = everything_shown_by(caught.value)
    assert CANARY not in shown
    assert KEY_1[3:] not in shown


# -- definition -----------------------------------------------------------------------------


def test_an_encrypted_field_makes_the_three_columns_of_the_guide(rollback_db):
    rows = db.execute_sql(
        "SELECT column_name, data_type, character_maximum_length, is_nullable "
        "FROM information_schema.columns WHERE table_name = 'sessions' "
        "AND column_name LIKE 'provider_access_token%%' AND column_name NOT LIKE '%%expires%%' "
        "ORDER BY ordinal_position"
    ).fetchall()
    assert rows == [
        (COLUMN, "character varying", 2048, "NO"),
        (f"{COLUMN}_iv", "character varying", 32, "NO"),
        (f"{COLUMN}_tag", "character varying", 32, "NO"),
    ]


def test_created_tables_have_the_same_columns(notes):
    rows = db.execute_sql(
        "SELECT column_name, character_maximum_length, is_nullable "
        "FROM information_schema.columns WHERE table_name = 'encrypted_notes' "
        "AND column_name LIKE 'body%%' ORDER BY ordinal_position"
    ).fetchall()
    assert rows == [("body", 2048, "YES"), ("body_iv", 32, "YES"), ("body_tag", 32, "YES")]


class Numbered(BaseModel):
    id = TextField(primary_key=True)
    body = EncryptedTextField()

    class Meta:
        table_name = "encrypted_numbered"


def test_a_secret_is_not_sealed_for_a_row_without_an_id(rollback_db):
    db.create_tables([Numbered])
    assert Numbered.create(id="n", body=Secret("x")).body.reveal() == "x"
    for key in ({}, {"id": None}, {"id": fn.gen_random_uuid()}):
        with statements() as sent, pytest.raises(OrmCoreError):
            Numbered.insert(body=Secret(CANARY), **key).execute()
        assert sent == []


# -- defaults ---------------------------------------------------------------------------------


class Door(BaseModel):
    name = TextField()
    code = EncryptedTextField(default=Secret("0000"))
    spare = EncryptedTextField(null=True, default=lambda: Secret("1111"))

    class Meta:
        table_name = "encrypted_doors"


class DoorsService(Service[Door]):
    """Doors."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: Door.create(name="a"),
        lambda: DoorsService.create({"name": "a"}),
        lambda: DoorsService.create_many([{"name": "a"}]),
        lambda: Door.insert(name="a").execute(),
        lambda: Door.bulk_create([Door(name="a")]),
    ],
)
def test_a_default_is_sealed_and_in_no_schema(rollback_db, make):
    rollback_db.create_tables([Door])
    make()
    door = Door.get()
    assert (door.code.reveal(), door.spare.reveal()) == ("0000", "1111")
    sql = "SELECT column_default FROM information_schema.columns WHERE table_name = %s"
    found = rollback_db.execute_sql(sql, ("encrypted_doors",)).fetchall()
    assert not [default for (default,) in found if "0000" in (default or "")]


@pytest.mark.parametrize("option", ["server_default", "generated", "default"])
def test_what_would_be_stored_unencrypted_is_no_default(option):
    with pytest.raises(RegistryError, match="the server can't encrypt"):
        EncryptedTextField(**{option: "'plain'"})
