"""Encrypted columns that are looked up and kept unique, and encrypted JSON."""

import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orm_core import (
    BaseModel,
    Domain,
    DuplicateKey,
    EncryptedJSONField,
    EncryptedTextField,
    IndexKeys,
    InvalidValue,
    KeyRing,
    KeyRingError,
    OrmCoreError,
    Registry,
    RegistryError,
    Secret,
    SecretJSON,
    SecretUnreadable,
    Service,
    TextField,
    db,
    finder,
    initialize_db,
    to_dict,
    use_index_keys,
    use_key_ring,
)
from orm_core.metrics import text as metrics_text
from orm_core.migrations.migrations import Migrations

CANARY = "canary-ya29.a0AfH6"
KEYS = KeyRing.generate("k1")
INDEX_1, INDEX_2 = IndexKeys.generate("i1"), IndexKeys.generate("i2")


class Key(BaseModel):
    """An API key, found by itself, and what else it is found by."""

    name = TextField(default="")
    token = EncryptedTextField(unique="live")
    hint = EncryptedTextField(null=True, blind_index=True)
    plain = EncryptedTextField(null=True)
    profile = EncryptedJSONField(null=True)

    class Meta:
        table_name = "indexed_keys"


class Other(BaseModel):
    """Another table with a column of the same name."""

    token = EncryptedTextField(unique=True)

    class Meta:
        table_name = "other_keys"


class KeysService(Service[Key]):
    """Keys."""

    find_by_token = finder(Key.token)
    find_by_hint = finder(Key.hint)
    find_by_plain = finder(Key.plain)


@pytest.fixture(autouse=True)
def keys() -> Iterator[None]:
    use_key_ring(KeyRing.parse(KEYS))
    use_index_keys(IndexKeys.parse(INDEX_1))
    yield
    use_key_ring(None)
    use_index_keys(None)


@pytest.fixture
def tables(rollback_db):
    db.create_tables([Key, Other])
    return rollback_db


def new_key(token: str = CANARY, **values: Any) -> Key:
    return Key.create(token=Secret(token), **values)


def raw(row: Any, *columns: str) -> tuple[Any, ...]:
    sql = f"SELECT {', '.join(columns)} FROM {type(row)._meta.table_name} WHERE id = %s"
    found: tuple[Any, ...] = db.execute_sql(sql, [str(row.id)]).fetchone()
    return found


def write_raw(row: Any, **columns: Any) -> None:
    changes = ", ".join(f"{name} = %s" for name in columns)
    table = type(row)._meta.table_name
    db.execute_sql(f"UPDATE {table} SET {changes} WHERE id = %s", [*columns.values(), str(row.id)])


def fresh(row: Any) -> Any:
    return type(row).get_by_id(row.id)


def shown_by(error: BaseException | None) -> str:
    shown = "".join(traceback.format_exception(error)) if error else ""
    while error is not None:
        shown += repr(error) + repr(error.args) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return shown


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


# -- finding --------------------------------------------------------------------------------

LOOK_UPS: dict[str, Callable[[Secret], Any]] = {
    "where": lambda secret: Key.select().where(Key.token == secret).first(),
    "get_or_none": lambda secret: Key.get_or_none(Key.token == secret),
    "by name": lambda secret: Key.get_or_none(token=secret),
    "filter": lambda secret: Key.filter(token=secret).first(),
    "find a dict": lambda secret: KeysService.find({"token": secret}),
    "find a predicate": lambda secret: KeysService.find(Key.token == secret),
    "finder": lambda secret: KeysService.find_by_token(secret),
    "list": lambda secret: next(iter(KeysService.list({"token": secret})), None),
    "an alias": lambda secret: (lambda a: a.select().where(a.token == secret).first())(Key.alias()),
    "with another": lambda secret: Key.get_or_none((Key.token == secret) & (Key.name == "")),
}


@pytest.mark.parametrize("ways", [[INDEX_1], [INDEX_2, INDEX_1]], ids=["one key", "two keys"])
@pytest.mark.parametrize("look_up", LOOK_UPS)
def test_a_row_is_found_by_its_secret(tables, look_up, ways):
    new_key("another")
    key = new_key()
    use_index_keys(IndexKeys.parse(",".join(ways)))
    with statements() as sent:
        assert LOOK_UPS[look_up](Secret(CANARY)).id == key.id
        assert LOOK_UPS[look_up](Secret(CANARY + "x")) is None
        assert LOOK_UPS[look_up](Secret("")) is None
    assert CANARY not in str(sent)


def test_a_prepared_look_up_finds_too(clone_db, orm_core_server):
    initialize_db(orm_core_server.url(clone_db.database), prepare=True)
    db.create_tables([Key])
    keys = [new_key(str(number)) for number in range(3)]
    with db.connection_context():
        for _ in range(8):
            assert [KeysService.find_by_token(Secret(str(n))) for n in range(3)] == keys


def test_a_row_written_by_every_way_is_found(tables):
    Key(token=Secret("save")).save()
    Key.insert(token=Secret("insert")).execute()
    Key.insert_many([{"token": Secret("many 1")}, {"token": Secret("many 2")}]).execute()
    Key.bulk_create([Key(token=Secret("bulk"))])
    KeysService.create({"token": Secret("service")})
    KeysService.upsert({"token": Secret("upsert")})
    changed = KeysService.create({"token": Secret("before")})
    KeysService.update(changed.id, {"token": Secret("updated")})
    changed = KeysService.create({"token": Secret("before")})
    KeysService.update_many([{"id": changed.id, "token": Secret("updated many")}])
    loaded = fresh(KeysService.create({"token": Secret("before")}))
    loaded.token = Secret("saved again")
    loaded.save()
    written = ["save", "insert", "many 1", "many 2", "bulk", "service", "upsert", "updated"]
    written += ["updated many", "saved again"]
    for text in written:
        found = KeysService.find_by_token(Secret(text))
        assert found is not None, text
        assert found.token.reveal() == text
    assert KeysService.find_by_token(Secret("before")) is None
    assert Key.select().count() == len(written)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_any_text_is_found(tables, text):
    with db.atomic() as block:
        key = new_key(text)
        assert KeysService.find_by_token(Secret(text)) == key
        block.rollback()


def test_rows_with_the_same_secret_are_all_found(tables):
    rows = {new_key(str(n), hint=Secret("same")).id for n in range(3)}
    new_key("3", hint=Secret("other"))
    new_key("4")
    assert {row.id for row in Key.select().where(Key.hint == Secret("same"))} == rows
    assert KeysService.find_by_hint(Secret("same")).id == min(rows)
    assert KeysService.count({"hint": Secret("same")}) == 3


def test_soft_deleted_rows_are_found_when_asked_for(tables):
    key = new_key()
    KeysService.soft_delete(key.id)
    assert KeysService.find_by_token(Secret(CANARY)) is None
    assert KeysService.find_by_token(Secret(CANARY), include_deleted=True) == key


def test_the_look_up_uses_the_index(tables):
    Key.insert_many([{"token": Secret(str(n))} for n in range(300)]).execute()
    db.execute_sql("ANALYZE indexed_keys")
    db.execute_sql("SET LOCAL enable_seqscan = off")
    sql, params = Key.select().where(Key.token == Secret("7")).sql()
    plan = str(db.execute_sql(f"EXPLAIN {sql}", params).fetchall())
    assert "indexed_keys_token_index_key" in plan


@pytest.mark.parametrize(
    "look_up",
    [
        lambda: Key.get(Key.token == CANARY),
        lambda: KeysService.find({"token": CANARY}),
        lambda: KeysService.find_by_token(CANARY),
        lambda: KeysService.find_by_token(SecretJSON(CANARY)),
        lambda: KeysService.find_by_plain(Secret(CANARY)),
        lambda: KeysService.find({"plain": Secret(CANARY)}),
        lambda: KeysService.find({"profile": SecretJSON(CANARY)}),
        lambda: Key.get(Key.plain == Secret(CANARY)),
        lambda: list(Key.select().where(Key.token != Secret(CANARY))),
        lambda: list(Key.select().where(Key.token.in_([Secret(CANARY)]))),
        lambda: list(Key.select().where(Key.token.contains(CANARY))),
        lambda: list(Key.select().where(Key.token_index == CANARY)),  # type: ignore[attr-defined]
        lambda: KeysService.find({"token_index": CANARY}),
        lambda: KeysService.update_where(None, {"token": Secret(CANARY)}),
    ],
)
def test_everything_else_is_refused_before_sql(tables, look_up):
    with statements() as sent, pytest.raises(InvalidValue) as caught:
        look_up()
    assert sent == []
    assert CANARY not in shown_by(caught.value)


def test_without_index_keys_nothing_is_written_or_found(tables, monkeypatch, tmp_path):
    monkeypatch.delenv("ORM_CORE_INDEX_KEYS", raising=False)
    monkeypatch.chdir(tmp_path)
    use_index_keys(None)
    for use in (new_key, lambda: KeysService.find_by_token(Secret(CANARY))):
        with statements() as sent, pytest.raises(KeyRingError, match="ORM_CORE_INDEX_KEYS"):
            use()
        assert sent == []


# -- unique ---------------------------------------------------------------------------------


def test_a_secret_is_unique_among_live_rows(tables):
    key = new_key()
    with pytest.raises(DuplicateKey) as caught, db.atomic():
        new_key()
    assert caught.value.columns == ("token",)
    assert CANARY not in shown_by(caught.value)
    KeysService.soft_delete(key.id)
    assert new_key().token.reveal() == CANARY


def test_a_secret_is_unique_among_all_rows(tables):
    key = Other.create(token=Secret(CANARY))
    Other.delete().where(Other.id == key.id).execute()
    with pytest.raises(DuplicateKey), db.atomic():
        Other.create(token=Secret(CANARY))


def test_an_upsert_goes_by_a_unique_secret(tables):
    key = KeysService.create({"token": Secret(CANARY), "name": "a"})
    again = KeysService.upsert({"token": Secret(CANARY), "name": "b"}, on=["token"])
    assert (again.id, again.name) == (key.id, "b")
    assert Key.select().count() == 1


def test_many_upserts_go_by_a_unique_secret(tables):
    first = KeysService.create({"token": Secret("1"), "name": "a"})
    rows = KeysService.upsert_many(
        [{"token": Secret(str(n)), "name": "b"} for n in range(3)], on=["token"]
    )
    assert [row.token.reveal() for row in rows] == ["0", "1", "2"]
    assert rows[1].id == first.id
    with pytest.raises(InvalidValue, match="have the same key"):
        KeysService.upsert_many([{"token": Secret("x")}, {"token": Secret("x")}], on=["token"])
    assert {row.name for row in Key.select()} == {"b"}


def test_many_rows_are_created_with_their_indexes(tables):
    KeysService.create_many(
        [{"token": Secret(str(n)), "profile": SecretJSON([n])} for n in range(150)]
    )
    for n in (0, 77, 149):
        assert KeysService.find_by_token(Secret(str(n))).profile.reveal() == [n]


def test_clearing_a_secret_clears_its_index(tables):
    key = new_key(hint=Secret("x"))
    Key.update(hint=None).execute()
    assert raw(key, "hint", "hint_iv", "hint_tag", "hint_index") == (None,) * 4
    key = fresh(key)
    key.hint = Secret("y")
    key.save()
    assert KeysService.find_by_hint(Secret("y")) == key
    KeysService.update(key.id, {"hint": None})
    assert raw(key, "hint_index") == (None,)


# -- moved ----------------------------------------------------------------------------------


def test_an_index_moved_to_another_row_opens_nothing(tables):
    mine, victim = new_key("mine"), new_key("victim")
    (digest,) = raw(mine, "token_index")
    Key.hard_delete().where(Key.id == mine.id).execute()
    write_raw(victim, token_index=digest)
    with pytest.raises(SecretUnreadable, match=f"row {victim.id}: .*blind index"):
        KeysService.find_by_token(Secret("mine"))
    with pytest.raises(SecretUnreadable, match=str(victim.id)):
        Key.get(Key.token == Secret("mine")).token.reveal()
    with pytest.raises(SecretUnreadable):
        Key.select().records().first().token.reveal()


def test_one_secret_has_other_indexes_in_other_columns_and_tables(tables):
    key, other = new_key(hint=Secret(CANARY)), Other.create(token=Secret(CANARY))
    digests = {*raw(key, "token_index", "hint_index"), *raw(other, "token_index")}
    assert len(digests) == 3
    (digest,) = raw(key, "hint_index")
    write_raw(key, token_index=digest)
    assert KeysService.find_by_token(Secret(CANARY)) is None
    with pytest.raises(SecretUnreadable):
        fresh(key).token.reveal()


def test_no_bit_of_an_index_can_be_changed_unnoticed(tables):
    key = new_key()
    (digest,) = raw(key, "token_index")
    field = Key.token
    stored = raw(key, "token", "token_iv", "token_tag")
    for place in range(64):
        for bit in range(4):
            flipped = f"{int(digest[place], 16) ^ 1 << bit:x}"
            changed = digest[:place] + flipped + digest[place + 1 :]
            with pytest.raises(SecretUnreadable):
                field.stored(*stored, key.id, changed).reveal()


PROFILE = ["profile", "profile_iv", "profile_tag"]


@pytest.mark.parametrize("part", PROFILE)
def test_no_bit_of_json_can_be_changed_unnoticed(tables, part):
    key = new_key(profile=SecretJSON({"pin": 1234}))
    stored = dict(zip(PROFILE, raw(key, *PROFILE), strict=True))
    for place, character in enumerate(stored[part]):
        for bit in range(7):
            text = stored[part][:place] + chr(ord(character) ^ 1 << bit) + stored[part][place + 1 :]
            with pytest.raises(SecretUnreadable):
                Key.profile.stored(*(stored | {part: text}).values(), key.id).reveal()


def test_json_moved_to_another_row_or_column_does_not_open(tables):
    one = new_key("1", profile=SecretJSON("a"), plain=Secret('"a"'))
    other = new_key("2", profile=SecretJSON("b"))
    write_raw(other, **dict(zip(PROFILE, raw(one, *PROFILE), strict=True)))
    with pytest.raises(SecretUnreadable, match=f"profile of row {other.id}"):
        fresh(other).profile.reveal()
    write_raw(one, **dict(zip(PROFILE, raw(one, "plain", "plain_iv", "plain_tag"), strict=True)))
    with pytest.raises(SecretUnreadable):
        fresh(one).profile.reveal()


# -- JSON -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [{}, [], "", 0, False, None, {"a": [1, None, {"b": "é🔑"}]}, 1.5])
def test_any_value_of_json_comes_back(tables, value):
    key = new_key(profile=SecretJSON(value))
    for row in (key, fresh(key), Key.select().records().first(), KeysService.get(key.id)):
        assert row.profile.reveal() == value
        assert row.profile == SecretJSON(value)
    assert raw(key, "profile") != (None,)


@pytest.mark.parametrize("value", [{"a": CANARY}, CANARY, [CANARY], Secret(CANARY), 7])
def test_a_plain_value_is_refused(tables, value):
    for write in (
        lambda: new_key(profile=value),
        lambda: KeysService.create({"token": Secret("x"), "profile": value}),
        lambda: Key.update(profile=value).execute(),
        lambda: list(Key.select().where(Key.profile == value)),
    ):
        with statements() as sent, pytest.raises(InvalidValue) as caught:
            write()
        assert sent == []
        assert CANARY not in shown_by(caught.value)


def test_a_text_column_takes_no_json(tables):
    with pytest.raises(InvalidValue, match="must be a Secret"):
        Key.create(token=SecretJSON(CANARY))


@pytest.mark.parametrize(("size", "fits"), [(32_766, True), (32_767, False)])
def test_json_of_32768_bytes_fits(tables, size, fits):
    secret = SecretJSON("x" * size)
    if fits:
        assert fresh(new_key(profile=secret)).profile.reveal() == "x" * size
    else:
        with pytest.raises(InvalidValue, match="at most 32768 bytes"):
            new_key(profile=secret)


def test_a_text_where_json_should_be_does_not_show(tables):
    key = new_key(profile=SecretJSON(1))
    sealed = KeyRing.parse(KEYS).seal(f"{{{CANARY}", ("indexed_keys", "profile", str(key.id)))
    write_raw(key, **dict(zip(PROFILE, sealed, strict=True)))
    with pytest.raises(SecretUnreadable, match="does not hold JSON") as caught:
        fresh(key).profile.reveal()
    assert CANARY not in shown_by(caught.value)


@pytest.mark.parametrize(("text", "value"), [('{"a": 1}', {"a": 1}), ("7", 7), ('""', "")])
def test_a_form_gives_json(text, value):
    assert Key.profile.from_text(text).reveal() == value


@pytest.mark.parametrize("text", ["", CANARY, "{", "NaN"])
def test_a_form_that_gives_no_json_does_not_show(text):
    with pytest.raises(InvalidValue) as caught:
        Key.profile.from_text(text)
    assert CANARY not in shown_by(caught.value)


# -- schema ---------------------------------------------------------------------------------


def test_one_declaration_makes_all_columns_and_indexes(tables):
    columns = db.execute_sql(
        "SELECT column_name, character_maximum_length, is_nullable FROM information_schema.columns "
        "WHERE table_name = 'indexed_keys' AND column_name ~ '^(token|profile)' "
        "ORDER BY ordinal_position"
    ).fetchall()
    assert columns == [
        ("token", 2048, "NO"),
        ("token_iv", 32, "NO"),
        ("token_tag", 32, "NO"),
        ("token_index", 72, "YES"),
        ("profile", 65536, "YES"),
        ("profile_iv", 32, "YES"),
        ("profile_tag", 32, "YES"),
    ]
    indexes = dict(
        db.execute_sql(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'indexed_keys'"
        ).fetchall()
    )
    assert set(indexes) == {
        "indexed_keys_pkey",
        "indexed_keys_token_index_key",
        "indexed_keys_hint_index_idx",
    }
    unique = indexes["indexed_keys_token_index_key"]
    assert unique.startswith("CREATE UNIQUE")
    assert "WHERE (deleted_at IS NULL)" in unique


def test_migrations_make_them_too(clone_db, tmp_path):
    registry = Registry()
    registry.register(Domain("keys", models=(Key, Other), services=(KeysService,)))
    clone_db.execute_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    folder = tmp_path / "migrations"
    migrations = Migrations(clone_db, registry, folder)
    migrations.generate("keys")
    migrations.apply()
    new_key(profile=SecretJSON([1]))
    assert KeysService.find_by_token(Secret(CANARY)).profile.reveal() == [1]
    with pytest.raises(DuplicateKey):
        new_key()


@pytest.mark.parametrize(
    "declare",
    [
        lambda: EncryptedTextField(index=True),
        lambda: EncryptedTextField(primary_key=True),
        lambda: EncryptedJSONField(unique=True),
        lambda: EncryptedJSONField(blind_index=True),  # type: ignore[call-overload]
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(declare):
    with pytest.raises(RegistryError, match=r"blind[_ ]index"):
        declare()


class SubKey(Key):
    class Meta:
        table_name = "indexed_sub_keys"


def test_a_model_of_a_model_has_its_own_index(rollback_db):
    db.create_tables([SubKey])
    key = SubKey.create(token=Secret(CANARY))
    assert SubKey.get(SubKey.token == Secret(CANARY)) == key
    with pytest.raises(DuplicateKey), db.atomic():
        SubKey.create(token=Secret(CANARY))


# -- nothing shows it -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "show",
    [
        repr,
        lambda row: repr(row.__data__),
        lambda row: repr(to_dict(row)),
        lambda row: json.dumps(to_dict(row)),
        lambda row: repr(list(Key.select().dicts())),
        lambda row: repr(list(Key.select().records())),
        lambda row: json.dumps(list(Key.select().dicts()), default=str),
        lambda row: f"{row.profile} {row.hint!r}",
        lambda row: metrics_text(),
    ],
)
def test_a_row_shows_none_of_its_secrets(tables, show):
    key = new_key(hint=Secret(CANARY), profile=SecretJSON({"pin": CANARY}))
    for row in (key, fresh(key)):
        assert CANARY not in show(row)
    assert not {"token", "profile", "token_index"} & set(to_dict(key))


@pytest.mark.parametrize("use", [pickle.dumps, json.dumps, hash])
def test_stored_json_is_not_pickled_written_or_hashed(tables, use):
    profile = fresh(new_key(profile=SecretJSON({"pin": CANARY}))).profile
    with pytest.raises(TypeError):
        use(profile)


def test_a_secret_is_in_no_log_error_or_activity_of_the_server(clone_db, caplog):
    caplog.set_level(logging.DEBUG)
    db.create_tables([Key, Other])
    seen: list[str] = []
    watcher = db._open()
    cursor = watcher.cursor()

    def look() -> None:
        cursor.execute("SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        seen.extend(query for (query,) in cursor.fetchall())

    errors = []
    steps: list[Callable[[], Any]] = [
        lambda: new_key(hint=Secret(CANARY), profile=SecretJSON({CANARY: CANARY})),
        lambda: KeysService.find_by_token(Secret(CANARY)),
        lambda: Key.get(Key.hint == Secret(CANARY)).profile.reveal(),
        lambda: new_key(),
        lambda: KeysService.upsert({"token": Secret(CANARY), "name": "x"}, on=["token"]),
        lambda: KeysService.update_where(None, {"hint": Secret(CANARY)}),
        lambda: Key.create(token=Secret(CANARY * 100)),
        lambda: Key.get(Key.token == Secret(CANARY + "\ud800")),
    ]
    with db.connection_context():
        for step in steps:
            try:
                step()
            except OrmCoreError as error:
                errors.append(error)
            look()
    watcher.close()
    assert len(errors) == 4
    assert any("indexed_keys" in query for query in seen)
    shown = "".join(seen) + "".join(map(shown_by, errors)) + caplog.text + metrics_text()
    shown += "".join(repr(vars(record)) for record in caplog.records)
    shown += str(db.execute_sql("SELECT indexed_keys::text FROM indexed_keys").fetchall())
    hidden = [CANARY, CANARY.encode().hex(), *(key.partition(":")[2] for key in (KEYS, INDEX_1))]
    assert not [secret for secret in hidden if secret in shown]
