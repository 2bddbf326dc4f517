"""BaseModel: ids, times, defaults, names, and no change that is lost without a word."""

import enum
import hashlib
import traceback
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import peewee
import pytest
from peewee import EXCLUDED, SQL

from domains.orders import Order
from domains.users import Session, User
from orm_core import (
    BaseModel,
    CharField,
    DateTimeField,
    DuplicateKey,
    EnumField,
    ForeignKeyField,
    ForeignKeyViolation,
    IntegerField,
    InvalidValue,
    JSONField,
    MissingField,
    NotFound,
    NotNullViolation,
    OrmCoreError,
    RegistryError,
    TextField,
    UnknownField,
    db,
    uuid7,
)

CANARY = "canary4711"
PAST = datetime(2020, 2, 29, 12, tzinfo=UTC)


class Color(enum.Enum):
    RED = "red"
    BLUE = "it's blue"


class Part(BaseModel):
    name = TextField()
    color = EnumField(Color, default=Color.RED, type_name="part_color")
    size = IntegerField(default=1)
    note = TextField(null=True)
    tags = JSONField(default=[])
    serial = TextField(null=True, unique=True)

    class Meta:
        table_name = "base_parts"


class Seat(BaseModel):
    row = IntegerField()
    place = CharField(2)
    hall = TextField(null=True)

    class Meta:
        table_name = "base_seats"
        indexes = ((("row", "place"), "live"), (("hall", "row"), False), (("hall", "place"), True))


@pytest.fixture
def tables(rollback_db):
    db.create_tables([Part, Seat])
    return rollback_db


def new_user(name: str = "ada", **changes: Any) -> User:
    values = {"email": f"{name}@b.c", "first_name": name, "provider_account_id": name, **changes}
    return User.create(**values)


def later() -> datetime:
    """The time now, after the clock has moved."""
    start = now = datetime.now(UTC)
    while now <= start:
        now = datetime.now(UTC)
    return now


def fails(error: type[Exception], action: Callable[[], Any], match: str | None = None) -> str:
    with pytest.raises(error, match=match) as caught, db.atomic():
        action()
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def statements_of(action: Callable[[], Any]) -> list[str]:
    sent: list[str] = []

    def note(event: Any) -> None:
        sent.append(event.sql)

    db.query_hooks.append(note)
    try:
        action()
    finally:
        db.query_hooks.remove(note)
    return sent


# -- ids and times of new rows --------------------------------------------------------------


def test_a_new_row_has_an_id_of_version_7_before_it_is_saved():
    assert Part(name="a").id.version == 7


def test_a_new_row_is_created_and_updated_in_one_moment(tables):
    before = datetime.now(UTC)
    part = Part.create(name="a")
    assert part.created_at == part.updated_at
    assert before <= part.created_at <= datetime.now(UTC)
    assert part.deleted_at is None
    assert not part.is_deleted


@pytest.mark.parametrize(
    "write",
    [
        lambda: Part.create(name="a").id,
        lambda: Part.insert(name="a").execute(),
        lambda: Part.insert({"name": "a"}).execute(),
        lambda: Part.insert({Part.name: "a"}).execute(),
        lambda: Part.insert_many([{"name": "a"}]).execute() and Part.get().id,
        lambda: Part.insert_many([("a",)], fields=["name"]).execute() and Part.get().id,
        lambda: Part.insert_many([("a",)], fields=[Part.name]).execute() and Part.get().id,
        lambda: Part.bulk_create([Part(name="a")]) or Part.get().id,
        lambda: Part.get_or_create(name="a")[0].id,
        lambda: Part.set_by_id(None, {"name": "a"}),
    ],
)
def test_every_way_in_fills_the_defaults(tables, write):
    part = Part.get_by_id(write())
    assert (part.name, part.color, part.size, part.note, part.tags) == ("a", Color.RED, 1, None, [])
    assert part.id.version == 7
    assert part.created_at == part.updated_at
    assert part.created_at.tzinfo is UTC


def test_the_server_fills_the_defaults_of_a_raw_insert(tables):
    db.execute_sql("INSERT INTO base_parts (name) VALUES ('raw')")
    part = Part.get()
    assert (part.color, part.size, part.note, part.tags) == (Color.RED, 1, None, [])
    assert part.id.version == 4
    assert part.created_at == part.updated_at
    assert part.deleted_at is None


@pytest.mark.parametrize("model", [User, Session, Order], ids=lambda model: model.__name__)
def test_the_migrated_tables_have_the_servers_defaults(rollback_db, model):
    rows = db.execute_sql(
        "SELECT column_name, column_default, is_nullable FROM information_schema.columns "
        "WHERE table_name = %s",
        [model._meta.table_name],
    ).fetchall()
    defaults = {name: (default, nullable) for name, default, nullable in rows}
    assert defaults["id"] == ("gen_random_uuid()", "NO")
    assert defaults["created_at"] == defaults["updated_at"] == ("now()", "NO")
    assert defaults["deleted_at"] == (None, "YES")


def test_a_created_row_carries_what_the_server_stored(rollback_db):
    user = new_user()
    assert user == User.get_by_id(user.id)
    assert user.__data__ == User.get_by_id(user.id).__data__
    assert not user.is_dirty()


def test_ids_sort_by_time_in_postgresql_too(tables):
    made = []
    for number in range(30):
        later()
        made.append(Part.create(name=str(number)).id)
    assert [part.id for part in Part.select().order_by(Part.id)] == made


def test_given_ids_and_times_are_kept(tables):
    key = uuid.uuid4()
    part = Part.create(id=key, name="a", created_at=PAST, updated_at=PAST + timedelta(days=1))
    assert (part.id, part.created_at) == (key, PAST)
    assert part.updated_at == PAST + timedelta(days=1)


def test_an_id_may_be_given_as_text(tables):
    key = uuid7()
    part = Part.create(id=key.hex.upper(), name="a")
    assert part.id == key
    assert Part.get_by_id(str(key)) == part


def test_a_json_default_is_not_shared_between_rows(tables):
    one, other = Part(name="a"), Part(name="b")
    one.tags.append("x")
    one.save()
    other.save()
    assert (Part.get_by_id(one.id).tags, Part.get_by_id(other.id).tags) == (["x"], [])


def test_a_column_without_a_value_is_the_servers_to_refuse(tables):
    shown = fails(NotNullViolation, lambda: Part.create(note=CANARY), r"base_parts\.name")
    assert CANARY not in shown


# -- updated_at moves -----------------------------------------------------------------------


def save_it(part: Part) -> None:
    part.size = 5
    part.save()


def bulk_update_it(part: Part) -> None:
    part.size = 5
    Part.bulk_update([part], ["size"])


def upsert_it(part: Part, **conflict: Any) -> None:
    Part.insert(name="x", size=5, serial=part.serial).on_conflict(
        conflict_target=[Part.serial], **conflict
    ).execute()


CHANGES: dict[str, Callable[[Part], Any]] = {
    "save": save_it,
    "save only": lambda part: (setattr(part, "size", 5), part.save(only=[Part.size])),
    "update": lambda part: Part.update(size=5).where(Part.id == part.id).execute(),
    "update all": lambda part: Part.update({Part.size: 5}).execute(),
    "update by expression": lambda part: Part.update(size=Part.size + 4).execute(),
    "update returning": lambda part: Part.update(size=5).returning(Part).execute(),
    "set_by_id": lambda part: Part.set_by_id(part.id, {"size": 5}),
    "bulk_update": bulk_update_it,
    "on_conflict update": lambda part: upsert_it(part, update={Part.size: 5}),
    "on_conflict update by name": lambda part: upsert_it(part, update={"size": 5}),
    "on_conflict preserve": lambda part: upsert_it(part, preserve=[Part.size]),
    "on_conflict preserve by name": lambda part: upsert_it(part, preserve=["size"]),
    "on_conflict excluded": lambda part: upsert_it(part, update={Part.size: EXCLUDED.size}),
    "on_conflict both": lambda part: upsert_it(part, preserve=[Part.size], update={Part.note: "x"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_moves_updated_at_and_nothing_else(tables, change):
    part = Part.create(name="a", serial="s", created_at=PAST, updated_at=PAST)
    before = later()
    CHANGES[change](part)
    after = Part.get_by_id(part.id)
    assert after.size == 5
    assert after.name == "a"
    assert after.created_at == PAST
    assert before <= after.updated_at <= datetime.now(UTC)


def test_what_is_returned_names_its_table_where_another_one_stands_beside_it(tables):
    whole = Part.insert(name="a", serial="1").returning(Part)
    assert ' RETURNING "id", "name"' in whole.sql()[0]
    (part,) = whole.execute()
    changed = Part.update(size=5).where(Part.id == part.id).returning(Part)
    assert ' RETURNING "id", "name"' in changed.sql()[0]
    assert [one.id for one in changed.execute()] == [part.id]
    other = Part.alias()
    beside = Part.update(size=6).from_(other).where(Part.id == other.id).returning(Part.id)
    assert beside.sql()[0].endswith(f'RETURNING "{Part._meta.table_name}"."id"')
    assert [one.id for one in beside.execute()] == [part.id]
    renamed = Part.update(size=7).returning(Part.size.alias("now"), Part.name).dicts()
    assert list(renamed.execute()) == [{"now": 7, "name": "a"}]


@pytest.mark.parametrize("change", ["delete", "restore"])
def test_soft_deletes_and_restores_move_updated_at(tables, change):
    part = Part.create(name="a", updated_at=PAST, deleted_at=PAST if change == "restore" else None)
    before = later()
    getattr(Part, change)().execute()
    assert Part.with_deleted().get().updated_at >= before
    assert part.id == Part.with_deleted().get().id


def test_one_statement_gives_all_rows_one_moment(tables):
    Part.bulk_create([Part(name=str(number)) for number in range(10)])
    Part.update(size=2).execute()
    assert len({part.updated_at for part in Part.select()}) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda part: Part.update(size=5, updated_at=PAST).execute(),
        lambda part: Part.update({Part.updated_at: PAST, "size": 5}).execute(),
        lambda part: (setattr(part, "updated_at", PAST), part.save()),
        lambda part: upsert_it(part, update={Part.size: 5, Part.updated_at: PAST}),
        lambda part: upsert_it(part, update={"size": 5, "updated_at": PAST}),
        lambda part: (setattr(part, "updated_at", PAST), Part.bulk_update([part], ["updated_at"])),
    ],
)
def test_an_updated_at_that_is_given_is_respected(tables, change):
    part = Part.create(name="a", serial="s")
    change(part)
    assert Part.get_by_id(part.id).updated_at == PAST


def test_a_conflict_that_is_ignored_changes_nothing(tables):
    part = Part.create(name="a", serial="s", updated_at=PAST)
    Part.insert(name="b", serial="s").on_conflict_ignore().execute()
    assert Part.get().__data__ == part.__data__


def test_one_update_query_moves_updated_at_at_each_run(tables):
    part = Part.create(name="a")
    query = Part.update(size=Part.size + 1).where(Part.id == part.id)
    moments = []
    for _ in range(3):
        later()
        query.execute()
        moments.append(Part.get_by_id(part.id).updated_at)
    assert moments == sorted(set(moments))
    assert Part.get_by_id(part.id).size == 4


def test_an_update_of_nothing_is_refused(tables):
    fails(InvalidValue, lambda: Part.update().execute(), "nothing to set")
    fails(InvalidValue, lambda: Part.update({}).execute(), "nothing to set")


# -- save -----------------------------------------------------------------------------------


def test_saving_a_new_row_inserts_it(tables):
    part = Part(name="a")
    assert statements_of(part.save)[0].startswith("INSERT")
    assert Part.get_by_id(part.id) == part


def test_saving_a_new_row_twice_inserts_it_once(tables):
    part = Part(name="a")
    part.save()
    assert statements_of(part.save) == []
    assert Part.select().count() == 1


def test_saving_a_loaded_row_writes_what_changed_only(tables):
    key = Part.create(name="a", size=1).id
    one, other = Part.get_by_id(key), Part.get_by_id(key)
    one.name = "changed by one"
    other.size = 9
    (sql,) = statements_of(one.save)
    assert sql.startswith('UPDATE "base_parts" SET "name" = %s, "updated_at" = %s WHERE')
    other.save()
    assert (Part.get().name, Part.get().size) == ("changed by one", 9)


def test_saving_reads_back_what_others_wrote_meanwhile(tables):
    part = Part.create(name="a")
    Part.update(size=7).execute()
    part.note = "mine"
    part.save()
    assert (part.size, part.note) == (7, "mine")
    assert part.updated_at == Part.get().updated_at


def test_save_answers_the_rows_written(tables):
    part = Part(name="a")
    assert part.save() == 1
    assert part.save() == 0
    part.size = 3
    assert part.save() == 1


def test_save_only_leaves_the_other_changes_for_later(tables):
    part = Part.create(name="a")
    part.name, part.size = "b", 2
    part.save(only=["size"])
    assert (Part.get().name, Part.get().size) == ("a", 2)


@pytest.mark.parametrize(
    "lose", [lambda: Part.delete().execute(), lambda: Part.hard_delete().execute()]
)
def test_saving_a_row_that_is_gone_is_not_found(tables, lose):
    part = Part.create(name="a")
    lose()
    part.name = CANARY
    shown = fails(NotFound, part.save, "base_parts is gone or soft-deleted")
    assert CANARY not in shown
    assert [row.name for row in Part.with_deleted()] in ([], ["a"])


def test_the_id_of_a_stored_row_cannot_be_changed(tables):
    part = Part.create(name="a")
    part.id = uuid7()
    fails(InvalidValue, part.save, "Part.id of a stored row")


def test_saving_a_known_id_anew_is_a_duplicate(tables):
    part = Part.create(name="a")
    shown = fails(DuplicateKey, Part(id=part.id, name=CANARY).save, r"base_parts\.id")
    assert CANARY not in shown


def test_a_row_that_refers_to_an_unsaved_one_is_refused(rollback_db):
    fails(ForeignKeyViolation, lambda: Order.create(user=User(), total=1), r"orders\.user_id")


def test_expressions_are_read_back(tables):
    part = Part.create(name=peewee.fn.UPPER("a"))
    assert part.name == "A"
    part.size = Part.size + 5
    part.save()
    assert part.size == 6


# -- unknown names --------------------------------------------------------------------------

NAMES = {
    "construct": lambda **values: User(**values),
    "create": lambda **values: User.create(**values),
    "insert": lambda **values: User.insert(**values),
    "insert of a dict": lambda **values: User.insert(values),
    "insert_many": lambda **values: User.insert_many([values]),
    "update": lambda **values: User.update(**values),
    "update of a dict": lambda **values: User.update(values),
    "set_by_id": lambda **values: User.set_by_id(uuid7(), values),
}


@pytest.mark.parametrize("call", NAMES)
def test_an_unknown_name_is_refused_with_a_suggestion(rollback_db, call):
    shown = fails(UnknownField, lambda: NAMES[call](emial=CANARY), "Did you mean 'email'?")
    assert CANARY not in shown


@pytest.mark.parametrize("call", NAMES)
@pytest.mark.parametrize("name", ["save", "select", "sessions", "DoesNotExist", "is_deleted"])
def test_what_is_no_column_takes_no_value(rollback_db, call, name):
    fails(UnknownField, lambda: NAMES[call](**{name: "x"}), f"User has no field {name}")


def test_the_two_names_of_a_foreign_key_are_not_given_both(rollback_db):
    user = new_user()
    fails(InvalidValue, lambda: Order.insert(user=user, user_id=user.id), "given twice")


@pytest.mark.parametrize("data", [["email"], "email", 7, [("email", "x")]])
def test_data_that_is_no_dict_is_refused(data):
    with pytest.raises(InvalidValue, match="takes a dict"):
        User.update(data)


# -- many rows ------------------------------------------------------------------------------


def test_rows_with_different_keys_lose_nothing(tables):
    rows = [
        {"name": "a"},
        {"name": "b", "note": "noted"},
        {"name": "c", "size": 3, "color": "it's blue"},
        {"name": "d", Part.serial: "s", "tags": ["x"]},
        {"name": "e", "created_at": PAST},
    ]
    Part.insert_many(rows).execute()
    found = {part.name: part for part in Part.select()}
    assert [found[name].note for name in "abcde"] == [None, "noted", None, None, None]
    assert [found[name].size for name in "abcde"] == [1, 1, 3, 1, 1]
    assert found["c"].color is Color.BLUE
    assert (found["d"].serial, found["d"].tags) == ("s", ["x"])
    assert found["e"].created_at == PAST
    assert found["a"].created_at == found["a"].updated_at > PAST


class Preset(BaseModel):
    name = TextField(null=True)
    place = IntegerField(server_default="42")
    seen = DateTimeField(server_default="now()", null=True)

    class Meta:
        table_name = "base_presets"


def test_rows_without_a_column_get_the_servers_default(rollback_db):
    db.create_tables([Preset])
    Preset.insert_many([{"place": 1, "name": "a"}, {"seen": PAST}, {"seen": None}]).execute()
    rows = {(row.name, row.place): row.seen for row in Preset.select().where(Preset.place == 1)}
    assert rows[("a", 1)] > PAST
    others = [row.seen for row in Preset.select().where(Preset.place == 42)]
    assert sorted(others, key=str) == [PAST, None]


def test_a_row_without_a_needed_value_is_refused_by_name(tables):
    fails(OrmCoreError, lambda: Part.insert_many([{"name": "a"}, {"size": 1}]).execute(), "name")
    assert Part.select().count() == 0


def test_a_row_with_too_few_values_is_refused(tables):
    fails(InvalidValue, lambda: Part.insert_many([("a",)], fields=["name", "size"]), "1 values")


def test_rows_may_come_from_a_generator(tables):
    Part.insert_many({"name": str(number)} for number in range(5)).execute()
    assert Part.select().count() == 5


def test_no_rows_at_all_insert_nothing(tables):
    sent = statements_of(lambda: Part.bulk_create([]))
    assert not any("INSERT" in sql for sql in sent)
    sent = statements_of(lambda: Part.insert_many([]).execute())
    assert sent == []
    assert Part.select().count() == 0


def test_bulk_create_reads_the_rows_back_in_their_order(tables):
    parts = [Part(name=str(number), size=peewee.fn.ABS(-number)) for number in range(25)]
    Part.bulk_create(parts, batch_size=10)
    assert [part.size for part in parts] == list(range(25))
    assert all(Part.get_by_id(part.id).name == part.name for part in parts)
    assert all(not part.is_dirty() for part in parts)


def test_a_bulk_created_row_is_saved_as_a_stored_one(tables):
    part = Part(name="a")
    Part.bulk_create([part])
    part.size = 9
    assert statements_of(part.save)[0].startswith("UPDATE")


def test_bulk_create_stores_all_or_nothing(clone_db):
    db.create_tables([Part])
    parts = [Part(name=str(number), serial=str(number % 3)) for number in range(4)]
    with pytest.raises(DuplicateKey):
        Part.bulk_create(parts, batch_size=1)
    assert Part.select().count() == 0


def test_bulk_update_writes_each_rows_own_values(tables):
    parts = [Part.create(name=str(number)) for number in range(5)]
    for number, part in enumerate(parts):
        part.size, part.color, part.tags = number, Color.BLUE, [number]
    assert Part.bulk_update(parts, ["size", Part.color, Part.tags], batch_size=2) == 5
    found = {part.name: part for part in Part.select()}
    assert {name: (part.size, part.tags) for name, part in found.items()} == {
        str(number): (number, [number]) for number in range(5)
    }
    assert {part.color for part in found.values()} == {Color.BLUE}


def test_bulk_update_passes_over_deleted_rows(tables):
    live, gone = Part.create(name="live"), Part.create(name="gone")
    gone.delete_instance()
    live.size = gone.size = 8
    assert Part.bulk_update([live, gone], ["size"]) == 1
    assert [part.size for part in Part.with_deleted().order_by(Part.name)] == [1, 8]


def test_insert_from_a_query_gets_the_servers_ids_and_times(tables):
    Part.create(name="a", size=4)
    Part.insert_from(Part.select(Part.name, Part.size), [Part.name, "size"]).execute()
    assert sorted((part.name, part.size, part.id.version) for part in Part.select()) == [
        ("a", 4, 4),
        ("a", 4, 7),
    ]


# -- look-ups -------------------------------------------------------------------------------


def test_get_or_create_creates_once(tables):
    one, created = Part.get_or_create(serial="s", defaults={"name": "a", "size": 3})
    other, again = Part.get_or_create(serial="s", defaults={"name": "b"})
    assert (created, again, one == other) == (True, False, True)
    assert (other.name, other.size) == ("a", 3)


def test_get_or_create_does_not_answer_a_deleted_row(rollback_db):
    gone = new_user()
    gone.delete_instance()
    user, created = User.get_or_create(
        email=gone.email, defaults={"first_name": "b", "provider_account_id": "b"}
    )
    assert created
    assert user != gone


def test_get_or_create_of_a_key_that_a_deleted_row_holds_is_a_duplicate(tables):
    Part.create(name="a", serial="s").delete_instance()
    fails(DuplicateKey, lambda: Part.get_or_create(serial="s", defaults={"name": "b"}))


MISSES: dict[str, Callable[[], Any]] = {
    "get": lambda: User.get(User.email == CANARY),
    "get by name": lambda: User.get(email=CANARY),
    "get_by_id": lambda: User.get_by_id(uuid7()),
    "brackets": lambda: User[uuid7()],
    "select": lambda: User.select().where(User.email == CANARY).get(),
    "join": lambda: User.select().join(Order).where(Order.status == CANARY).get(),
    "alias": lambda: User.alias().select().where(SQL("1 = 0")).get(),
    "dicts": lambda: User.select().where(User.email == CANARY).dicts().get(),
}


@pytest.mark.parametrize("miss", MISSES)
def test_a_miss_is_not_found_and_shows_no_value(rollback_db, miss):
    shown = fails(NotFound, MISSES[miss], "No row of users matches")
    assert CANARY not in shown
    fails(User.DoesNotExist, MISSES[miss])
    fails(peewee.DoesNotExist, MISSES[miss])


def test_the_misses_of_two_models_are_two_errors():
    assert not issubclass(User.DoesNotExist, Order.DoesNotExist)
    assert issubclass(User.DoesNotExist, OrmCoreError)


def test_get_or_none_answers_none(rollback_db):
    assert User.get_or_none(User.email == "x") is None
    assert User.get_or_none(email="x") is None
    assert User.select().where(User.email == "x").get_or_none() is None
    assert User.select().first() is None


def test_get_by_id_takes_an_id_and_its_text(rollback_db):
    user = new_user()
    assert User.get_by_id(user.id) == User.get_by_id(str(user.id)) == User[user.id] == user
    assert user.id in User


# -- what would be taken for SQL ------------------------------------------------------------


@pytest.mark.parametrize("term", ["email", "email; DROP TABLE users", b"email", 1, None, ("a",)])
def test_sorting_by_what_is_no_field_is_refused(term):
    with pytest.raises(InvalidValue, match="order_by"):
        User.select().order_by(term)
    with pytest.raises(InvalidValue, match="order_by"):
        User.select().order_by(User.email, term)


def test_extending_an_order_by_a_text_is_refused():
    with pytest.raises(InvalidValue, match="order_by"):
        User.select().order_by_extend("email")


@pytest.mark.parametrize("count", ["1; DROP TABLE users", "1", 1.0, -1, True, SQL("1"), [1]])
@pytest.mark.parametrize("clause", ["limit", "offset"])
def test_a_count_that_is_no_whole_number_is_refused(clause, count):
    with pytest.raises(InvalidValue, match=rf"{clause}\(\) takes a whole number"):
        getattr(User.select(), clause)(count)


def test_sorting_and_limits_work(rollback_db):
    for name in "bca":
        new_user(name)
    query = User.select().order_by(User.email.desc())
    assert [user.first_name for user in query] == ["c", "b", "a"]
    assert [user.first_name for user in query.limit(1).offset(1)] == ["b"]
    assert len(query.limit(None).offset(None)) == 3
    assert len(query.order_by()) == 3
    assert [user.first_name for user in query.paginate(2, 2)] == ["a"]


# -- names of tables, indexes and types -----------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "table"),
    [
        ("OrderItem", "order_items"),
        ("Person", "people"),
        ("HTTPLog", "http_logs"),
        ("Category", "categories"),
        ("Status", "statuses"),
        ("Address", "addresses"),
        ("UserV2Token", "user_v2_tokens"),
        ("Child", "children"),
        ("APIKey", "api_keys"),
        ("user", "users"),
    ],
)
def test_a_table_is_the_snake_case_plural_of_its_model(class_name, table):
    model = type(class_name, (BaseModel,), {"name": TextField()})
    assert model._meta.table_name == table


def test_a_table_of_a_long_name_fits_postgresql():
    name = "Very" * 20 + "LongName"
    model = type(name, (BaseModel,), {"name": TextField()})
    table = model._meta.table_name
    full = "_".join(["very"] * 20) + "_long_names"
    assert table == full[:54] + "_" + hashlib.sha256(full.encode()).hexdigest()[:8]
    assert len(table) == 63


def index_names(model: Any) -> list[str]:
    return [index._name for index in model._meta.fields_to_index()]


def test_indexes_are_named_after_table_and_columns():
    assert index_names(User) == ["users_email_key", "users_provider_account_id_key"]
    assert index_names(Order) == ["orders_user_id_idx"]
    assert index_names(Seat) == [
        "base_seats_row_place_key",
        "base_seats_hall_row_idx",
        "base_seats_hall_place_key",
    ]


class WithLongNames(BaseModel):
    a_very_long_name_of_a_column_that_is_longer_than_most_are = TextField(unique=True)
    a_very_long_name_of_a_column_that_is_longer_than_most_was = TextField(index=True)

    class Meta:
        table_name = "base_models_with_names_that_are_too_long"
        indexes = (
            (
                (
                    "a_very_long_name_of_a_column_that_is_longer_than_most_are",
                    "a_very_long_name_of_a_column_that_is_longer_than_most_was",
                ),
                "live",
            ),
        )


def names_in_database(model: Any) -> set[str]:
    rows = db.execute_sql(
        "SELECT indexname FROM pg_indexes WHERE tablename = %s", [model._meta.table_name]
    ).fetchall()
    return {name for (name,) in rows}


def test_long_index_names_end_in_a_hash_and_stay_apart(rollback_db):
    db.create_tables([WithLongNames])
    names = index_names(WithLongNames)
    assert len(set(names)) == 3
    assert all(len(name.encode()) <= 63 for name in names)
    full = (
        "base_models_with_names_that_are_too_long_"
        "a_very_long_name_of_a_column_that_is_longer_than_most_are_key"
    )
    assert names[0] == full[:54] + "_" + hashlib.sha256(full.encode()).hexdigest()[:8]
    assert names_in_database(WithLongNames) == {
        *names,
        "base_models_with_names_that_are_too_long_pkey",
    }


def test_the_indexes_of_the_database_have_the_models_names(rollback_db):
    assert names_in_database(User) == {*index_names(User), "users_pkey"}
    assert names_in_database(Order) == {*index_names(Order), "orders_pkey"}


def test_creating_a_table_creates_its_enum(tables):
    rows = db.execute_sql(
        "SELECT enumlabel FROM pg_enum JOIN pg_type t ON t.oid = enumtypid "
        "WHERE t.typname = 'part_color' ORDER BY enumsortorder"
    ).fetchall()
    assert [label for (label,) in rows] == ["red", "it's blue"]


def test_creating_tables_twice_does_no_harm(tables):
    part = Part.create(name="a")
    db.create_tables([Part, Seat])
    assert Part.get() == part


# -- unique among live rows -----------------------------------------------------------------


def test_a_composite_key_is_unique_among_live_rows(tables):
    seat = Seat.create(row=1, place="a")
    shown = fails(DuplicateKey, lambda: Seat.create(row=1, place="a"), r"\(row, place\)")
    assert "base_seats_row_place_key" in shown
    Seat.create(row=1, place="b")
    seat.delete_instance()
    assert Seat.create(row=1, place="a") != seat


def test_a_composite_key_without_live_counts_deleted_rows(tables):
    Seat.create(row=1, place="a", hall="x").delete_instance()
    fails(DuplicateKey, lambda: Seat.create(row=2, place="a", hall="x"), r"\(hall, place\)")


def test_a_live_index_is_partial(tables):
    (definition,) = db.execute_sql(
        "SELECT indexdef FROM pg_indexes WHERE indexname = 'base_seats_row_place_key'"
    ).fetchone()
    assert definition.endswith("WHERE (deleted_at IS NULL)")
    assert "UNIQUE" in definition


def test_unique_keys_tell_whether_they_cover_live_rows_only():
    keys = [([field.name for field in fields], live) for fields, live in Seat._meta.unique_keys()]
    assert keys == [(["row", "place"], True), (["hall", "place"], False)]


# -- models ---------------------------------------------------------------------------------


def test_the_timestamps_come_after_a_models_own_columns():
    assert Order._meta.sorted_field_names == [
        "id",
        "user",
        "status",
        "total",
        "created_at",
        "updated_at",
        "deleted_at",
    ]


def test_a_model_may_inherit_from_a_model_of_its_service(rollback_db):
    class Base(BaseModel):
        tenant = TextField(default="none")

    class Invoice(Base):
        total = IntegerField()

    db.create_tables([Invoice])
    assert Invoice._meta.table_name == "invoices"
    assert Invoice.create(total=3).tenant == "none"


def test_a_cascade_over_another_column_than_the_key_is_refused():
    class Country(BaseModel):
        code = TextField(unique=True)

    with pytest.raises(RegistryError, match="works for references to a primary key"):

        class City(BaseModel):
            country = ForeignKeyField(Country, field="code", on_soft_delete="cascade")


def test_missing_and_unknown_fields_are_invalid_values():
    assert issubclass(MissingField, InvalidValue)
    assert issubclass(UnknownField, InvalidValue)
    assert issubclass(InvalidValue, ValueError)


def test_a_loaded_part_of_a_row_is_saved_by_its_id(tables):
    key = Part.create(name="a", size=1).id
    part = Part.select(Part.id, Part.size).get()
    part.size = 2
    part.save()
    assert (Part.get_by_id(key).name, Part.get_by_id(key).size) == ("a", 2)
