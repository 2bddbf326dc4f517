"""``create_many``: COPY and one INSERT do what as many single creates do."""

import string
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_helpers import Log, new_user, no_statement, session_data, statements, user_data

from domains.orders import Order, OrdersService
from domains.users import Session, SessionService, SessionStatus, User, UsersService
from orm_core import (
    ArrayField,
    AutoField,
    BaseModel,
    BigIntegerField,
    BooleanField,
    CharField,
    CheckViolation,
    DateField,
    DateTimeField,
    DecimalField,
    DoubleField,
    DuplicateKey,
    EncryptedTextField,
    EnumField,
    ForeignKeyField,
    ForeignKeyViolation,
    IntegerField,
    InvalidValue,
    JSONField,
    KeyRing,
    MissingField,
    OtherField,
    QueryError,
    Secret,
    Service,
    StaleTransaction,
    TextField,
    UnknownField,
    UUIDField,
    db,
    transaction,
    use_key_ring,
)
from orm_core.models import bulk_insert

NOBODY = uuid.UUID(int=7)
NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)


class Mood(Enum):
    """Labels that would mean something elsewhere."""

    FINE = "fine"
    TAB = "a\tb"
    QUOTED = 'so "so", \\N {NULL}'


class Owner(BaseModel):
    name = TextField()

    class Meta:
        table_name = "bulk_owners"


class Thing(BaseModel):
    """A column of each kind."""

    owner = ForeignKeyField(Owner, null=True)
    text = TextField(null=True)
    label = CharField(12, default="a\\b")
    number = IntegerField(default=7)
    big = BigIntegerField(null=True)
    flag = BooleanField(default=False)
    ratio = DoubleField(null=True)
    price = DecimalField(12, 4, null=True)
    day = DateField(null=True)
    at = DateTimeField(null=True)
    mood = EnumField(Mood, default=Mood.FINE)
    other = UUIDField(null=True)
    data = JSONField(null=True, default={"a": ["\t"]})
    words = ArrayField(TextField(), null=True)
    numbers = ArrayField(IntegerField(), default=[1, 2])
    documents = ArrayField(JSONField(), null=True)
    address = OtherField("inet", null=True)
    token = EncryptedTextField(null=True)
    stamp = TextField(null=True, server_default="'by the server'")

    class Meta:
        table_name = "bulk_things"


class Plain(BaseModel):
    """What is stored as it is given."""

    owner = ForeignKeyField(Owner)
    text = TextField(null=True)
    label = CharField(12, default="x")
    number = IntegerField(null=True)
    flag = BooleanField(default=False)
    ratio = DoubleField(null=True)
    day = DateField(null=True)
    at = DateTimeField(null=True)
    mood = EnumField(Mood, default=Mood.FINE)
    token = EncryptedTextField(null=True)

    class Meta:
        table_name = "bulk_plain"


class Counted(BaseModel):
    """The server counts its keys, and computes a column."""

    id = AutoField()
    name = TextField()
    upper = TextField(generated="upper(name)", null=True)

    class Meta:
        table_name = "bulk_counted"


class Odd(BaseModel):
    """Names that need quoting."""

    class_ = TextField(column_name='a "b"')

    class Meta:
        table_name = 'bulk "odd"'


MODELS = [Owner, Thing, Plain, Counted, Odd]


class ThingsService(Service[Thing]):
    """Things."""


class PlainService(Service[Plain]):
    """Plain things."""


class CountedService(Service[Counted]):
    """Counted things."""


class OddService(Service[Odd]):
    """Odd names."""


@pytest.fixture(autouse=True)
def _keys():
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    yield
    use_key_ring(None)


@pytest.fixture
def tables(rollback_db):
    rollback_db.create_tables(MODELS)
    return rollback_db


@pytest.fixture(params=["copy", "insert"])
def way(request, monkeypatch):
    """Each test with both ways of many rows."""
    monkeypatch.setattr(bulk_insert, "COPY_FROM", 1 if request.param == "copy" else 1 << 30)
    return request.param


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(
    ["", "\\N", "\\.", "NULL", "\\", "\t", "\n", "\r\n", "a\\tb", '"', "{}", "{NULL}", "%s", "\x1f"]
)
TIMES = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)).map(
    lambda one: one.replace(tzinfo=timezone(timedelta(hours=5, minutes=30)))
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | TEXT | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
PLAIN = {
    "text": st.none() | TEXT,
    "label": st.text(string.printable, max_size=12),
    "number": st.integers(-(2**31), 2**31 - 1),
    "flag": st.booleans(),
    "ratio": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    "day": st.none() | st.dates(),
    "at": st.none() | TIMES,
    "mood": st.sampled_from([*Mood, "fine"]),
    "token": st.none() | st.builds(Secret, st.text(string.printable, max_size=50)),
}
FULL = {
    **PLAIN,
    "big": st.none() | st.integers(-(2**63), 2**63 - 1),
    "price": st.none() | st.decimals(-99999999, 99999999, places=4) | st.integers(-5, 5),
    "other": st.none() | st.uuids() | st.uuids().map(str),
    "data": st.none() | JSON,
    "words": st.none() | st.lists(st.none() | TEXT, max_size=3),
    "numbers": st.lists(st.none() | st.integers(-9, 9), max_size=3),
    "documents": st.none() | st.lists(JSON, max_size=2),
    "address": st.none() | st.sampled_from(["10.0.0.1", "::1/128"]),
    "stamp": st.none() | TEXT,
}


def rows_of(model):
    """What is stored, without what is new in each row."""
    own = {"id", "created_at", "updated_at", "token", "token_iv", "token_tag"}
    sql = f'SELECT to_jsonb(t) FROM "{model._meta.table_name}" t ORDER BY id'
    rows = [row for (row,) in db.execute_sql(sql).fetchall()]
    secrets = [one.token and one.token.reveal() for one in model.select().order_by(model.id)]
    left = [{name: value for name, value in row.items() if name not in own} for row in rows]
    return list(zip(left, secrets, strict=True))


def check_same(service, payloads):
    """Both ways, and single creates, store the same; what is answered is what is stored."""
    stored = []
    for create in (
        lambda: [service.create(one) for one in payloads],
        lambda: service.create_many(payloads),
        lambda: service.create_many(payloads, returning="ids"),
    ):
        with db.atomic() as undo:
            made = create()
            keys = [getattr(one, "id", one) for one in made]
            found = service.list()
            assert [one.id for one in found] == keys
            if payloads and isinstance(made[0], BaseModel):
                for one, other in zip(made, found, strict=True):
                    assert one.__data__ == other.__data__
                    kinds = {name: type(value) for name, value in other.__data__.items()}
                    assert {name: type(value) for name, value in one.__data__.items()} == kinds
                assert all(one.created_at == one.updated_at for one in made)
            stored.append(rows_of(service.model))
            undo.rollback()
    assert stored[0] == stored[1] == stored[2]


PROPERTY = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@PROPERTY
@given(payloads=st.lists(st.fixed_dictionaries({}, optional=FULL), max_size=4))
def test_many_rows_are_stored_as_single_ones_are(tables, way, payloads):
    check_same(ThingsService, payloads)


@PROPERTY
@given(payloads=st.lists(st.fixed_dictionaries({}, optional=PLAIN), max_size=4))
def test_rows_that_are_not_read_back_are_as_stored(tables, way, payloads):
    with db.atomic() as undo:
        owner = Owner.create(name="o")
        owners = [owner, owner.id, str(owner.id).upper(), owner.id.hex]
        given = [
            {**one, "owner" if place % 2 else "owner_id": owners[place]}
            for place, one in enumerate(payloads)
        ]
        check_same(PlainService, given)
        undo.rollback()


def test_rows_that_are_stored_as_given_need_no_reading(tables, way):
    owner = Owner.create(name="o")
    with statements() as events:
        PlainService.create_many({"owner": owner, "text": str(n)} for n in range(9))
    sent = ["select", "copy"] if way == "copy" else ["insert"]
    assert [event.operation for event in events] == sent


@pytest.mark.parametrize(
    ("column", "type_", "is_binary"),
    [
        ("number", "integer", True),
        ("number", "bigint", True),
        ("number", "smallint", True),
        ("number", "numeric", False),
        ("number", "text", False),
        ("at", "timestamp", False),
        ("text", "varchar(99)", True),
        ("text", "bulk_words", False),
    ],
)
def test_the_table_says_in_what_format_rows_are_copied(
    tables, monkeypatch, column, type_, is_binary
):
    monkeypatch.setattr(bulk_insert, "COPY_FROM", 1)
    tables.execute_sql("CREATE DOMAIN bulk_words AS text CHECK (VALUE <> 'no')")
    tables.execute_sql(
        f"ALTER TABLE bulk_plain ALTER {column} TYPE {type_} USING {column}::text::{type_}"
    )
    owner = Owner.create(name="o")
    payload = {"owner": owner, "text": "a", "number": -7, "at": NOON}
    sent: list[Any] = []
    tables.query_hooks.append(sent.append)
    try:
        made = PlainService.create_many([payload, {**payload, column: None}])
    finally:
        tables.query_hooks.remove(sent.append)
    assert sent[-1].sql.endswith("(FORMAT binary)") is is_binary
    stored = Plain.select(Plain.text, Plain.number.cast("int"), Plain.at.cast("timestamptz"))
    rows = list(stored.order_by(Plain.id).tuples())
    assert rows[0] == ("a", -7, NOON)
    assert [getattr(row, column) for row in made] == [payload[column], None]


def test_what_the_table_has_no_room_for_is_refused_by_the_server(tables, monkeypatch):
    monkeypatch.setattr(bulk_insert, "COPY_FROM", 1)
    tables.execute_sql("ALTER TABLE bulk_plain ALTER number TYPE smallint")
    owner = Owner.create(name="o")
    with pytest.raises(QueryError, match="out of range") as caught, tables.atomic():
        PlainService.create_many([{"owner": owner, "number": 40_000}])
    assert "40000" not in str(caught.value)
    assert Plain.select().count() == 0


def test_many_rows_go_by_copy_and_few_in_one_insert(rollback_db):
    user = new_user()
    with statements() as events:
        OrdersService.create_many({"user": user, "total": n} for n in range(bulk_insert.COPY_FROM))
        OrdersService.create_many({"user": user, "total": n} for n in range(3))
    told = [(event.operation, event.table) for event in events if event.table == "orders"]
    assert told == [("copy", "orders"), ("insert", "orders")]


def test_copy_is_told_with_its_error(clone_db, monkeypatch):
    monkeypatch.setattr(bulk_insert, "COPY_FROM", 1)
    with statements() as events, pytest.raises(ForeignKeyViolation) as caught:
        OrdersService.create_many([{"user": NOBODY, "total": 1}])
    told = [(event.operation, event.table, event.error) for event in events]
    assert told[-1] == ("copy", "orders", caught.value)


def test_ids_are_in_order_and_need_no_reading(rollback_db, way):
    data = [user_data() for _ in range(50)]
    ids = UsersService.create_many(data, returning="ids")
    assert [User.get_by_id(one).email for one in ids] == [one["email"] for one in data]
    assert ids == sorted(ids)


@pytest.mark.parametrize("returning", ["models", None, 3, "id"])
def test_what_create_many_answers_is_rows_or_ids(rollback_db, returning):
    with no_statement(), pytest.raises(InvalidValue, match='"rows" or "ids"'):
        UsersService.create_many([user_data()], returning=returning)


def test_a_value_of_a_default_belongs_to_its_row_alone(tables, way):
    one, two = ThingsService.create_many([{}, {}])
    one.data["a"].append(1)
    assert two.data == {"a": ["\t"]}
    payload = {"data": {"mine": []}}
    (made,) = ThingsService.create_many([payload])
    payload["data"]["mine"].append(1)
    assert made.data == {"mine": []}


def test_names_that_need_quoting_are_quoted(tables, way):
    made = OddService.create_many([{"class_": "50%"}, {"class_": "%s"}])
    assert [row.class_ for row in OddService.list()] == ["50%", "%s"]
    assert OddService.list() == made


def test_keys_that_the_server_counts_are_answered(tables, way):
    made = CountedService.create_many([{"name": "a"}, {"name": "b"}])
    assert [(row.id, row.upper) for row in made] == [(1, "A"), (2, "B")]
    assert CountedService.create_many([{"name": "c"}], returning="ids") == [3]


def test_what_a_trigger_changes_is_answered(tables, way):
    db.execute_sql(
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.text := upper(NEW.text); RETURN NEW; END $$"
    )
    db.execute_sql(
        "CREATE TRIGGER shout BEFORE INSERT ON bulk_plain FOR EACH ROW EXECUTE FUNCTION shout()"
    )
    (row,) = PlainService.create_many([{"owner": Owner.create(name="o"), "text": "a"}])
    assert row.text == "A"


def test_a_table_with_a_rule_is_written_by_insert(tables, way):
    db.execute_sql("CREATE RULE also AS ON INSERT TO bulk_owners DO ALSO SELECT 1")
    with statements() as events:
        Owner.bulk_create([Owner(name="o")])
    assert "copy" not in [event.operation for event in events]
    assert Owner.select().count() == 1


REFUSED = [
    ({"number": "3"}, InvalidValue, r"Plain\.number must be an int"),
    ({"number": True}, InvalidValue, r"Plain\.number must be an int"),
    ({"number": 2**31}, InvalidValue, r"Plain\.number must be an int"),
    ({"text": "a\0"}, InvalidValue, r"Plain\.text must be a str without NUL"),
    ({"text": "\ud800"}, InvalidValue, r"Plain\.text must be a str without lone"),
    ({"text": 3}, InvalidValue, r"Plain\.text must be a str"),
    ({"text": User.email}, InvalidValue, "not an SQL expression"),
    ({"label": "x" * 13}, InvalidValue, r"Plain\.label must be a str of at most 12"),
    ({"label": None}, InvalidValue, r"Plain\.label may not be None"),
    ({"mood": "sad"}, InvalidValue, r"Plain\.mood must be a Mood"),
    ({"mood": SessionStatus.ACTIVE}, InvalidValue, r"Plain\.mood must be a Mood"),
    ({"ratio": float("nan")}, InvalidValue, r"Plain\.ratio must be a finite"),
    ({"at": datetime(2024, 1, 1)}, InvalidValue, r"Plain\.at must be an aware"),
    ({"day": datetime.now(UTC)}, InvalidValue, r"Plain\.day must be a date"),
    ({"token": "text"}, InvalidValue, r"Plain\.token must be a Secret"),
    ({"token_iv": "x"}, UnknownField, "no field token_iv"),
    ({"nickname": "x"}, UnknownField, "no field nickname"),
    ({"owner": "junk"}, InvalidValue, r"Plain\.owner must be a Owner"),
    ({"owner": None}, InvalidValue, r"Plain\.owner may not be None"),
    ({"owner_id": NOBODY}, InvalidValue, "given twice"),
]


@pytest.mark.parametrize(("wrong", "error", "told"), REFUSED)
def test_a_wrong_payload_among_many_is_refused_before_any_sql(tables, way, wrong, error, told):
    good = {"owner": NOBODY, "text": "t", "number": 1, "label": "l", "token": Secret("s")}
    with no_statement(), pytest.raises(error, match=told):
        PlainService.create_many([good, {**good, **wrong}, good])


def test_a_payload_without_what_is_needed_is_refused_before_any_sql(tables, way):
    with no_statement(), pytest.raises(MissingField, match="owner"):
        PlainService.create_many([{"owner": NOBODY}, {"text": "x"}])


def test_an_error_of_the_server_tells_no_value_and_stores_nothing(clone_db, way):
    same = user_data(email="ada@secret.example")
    log = Log()
    with pytest.raises(DuplicateKey) as caught:
        UsersService.create_many(
            [user_data(), same, {**same, "provider_account_id": "another"}], log
        )
    assert User.select().count() == 0
    assert (caught.value.table, caught.value.columns) == ("users", ("email",))
    error = caught.value
    while error is not None:
        assert "secret" not in f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert log.audits == []


def test_an_error_in_a_transaction_leaves_nothing_of_it(clone_db, way):
    db.execute_sql("ALTER TABLE users ADD CHECK (first_name <> 'bad')")
    with pytest.raises(CheckViolation), transaction():  # noqa: PT012 - the block is the subject
        new_user()
        UsersService.create_many([user_data(), user_data(first_name="bad")])
    assert User.select().count() == 0


def test_many_rows_take_part_in_the_transaction(clone_db, way):
    with transaction() as tx:
        UsersService.create_many([user_data()], tx=tx)
        UsersService.create_many([user_data()], returning="ids", tx=tx)
        tx.rollback()
    assert User.select().count() == 0
    with pytest.raises(StaleTransaction), no_statement():
        UsersService.create_many([user_data()], tx=tx)


def test_many_rows_are_the_first_statement_of_a_block(clone_db, way):
    with transaction():
        UsersService.create_many([user_data()], returning="ids")
    with transaction(), transaction():
        UsersService.create_many([user_data()], returning="ids")
    assert User.select().count() == 2


def test_many_rows_give_their_connection_back(clone_db, way):
    UsersService.create_many([user_data()])
    assert clone_db.pool_stats().in_use == 0
    assert clone_db.is_closed()


def test_each_secret_is_sealed_for_its_row(rollback_db, way):
    user = new_user()
    made = SessionService.create_many(
        session_data(user, provider_access_token=Secret(f"token-{n}")) for n in range(20)
    )
    for rows in (made, SessionService.list()):
        assert [row.provider_access_token.reveal() for row in rows] == [
            f"token-{n}" for n in range(20)
        ]
    stored = Session.select(Session.provider_access_token_iv).tuples()
    assert len(set(stored)) == 20


def test_many_rows_are_audited_in_one_line(clone_db, way):
    log = Log()
    ids = UsersService.create_many([user_data(), user_data()], log, returning="ids")
    rows = UsersService.create_many([user_data()], log)
    assert [(text, meta["user_ids"]) for text, meta in log.audits] == [
        ("User created", ids),
        ("User created", [rows[0].id]),
    ]


def test_bulk_create_writes_what_save_does(tables, way):
    owner = Owner.create(name="o")
    things = [Plain(owner=owner, text="\\N", token=Secret("s")), Plain(owner=owner.id)]
    Plain.bulk_create(things)
    assert [row.text for row in things] == ["\\N", None]
    assert Plain.select().order_by(Plain.id).count() == 2
    for one in things:
        stored = Plain.get_by_id(one.id)
        assert stored.__data__ == one.__data__
        assert one.dirty_fields == []
        one.text = "changed"
        one.save()
    assert Plain.get_by_id(things[0].id).token.reveal() == "s"


def test_bulk_create_is_all_or_nothing_over_its_batches(clone_db, way):
    same = user_data()
    with pytest.raises(DuplicateKey):
        User.bulk_create([User(**user_data()), User(**same), User(**same)], batch_size=1)
    assert User.select().count() == 0


def test_a_decimal_is_answered_with_the_places_of_its_column(tables, way):
    (row,) = ThingsService.create_many([{"price": Decimal("1.5")}])
    assert str(row.price) == "1.5000"
    assert Order.select().count() == 0
    assert isinstance(row.day, date | None)


@PROPERTY
@given(changes=st.lists(st.fixed_dictionaries({}, optional=FULL).filter(bool), max_size=4))
def test_many_rows_are_changed_as_single_ones_are(tables, changes):
    stored = []
    for change in (
        lambda payloads: [
            ThingsService.update(one["id"], {n: v for n, v in one.items() if n != "id"})
            for one in payloads
        ],
        ThingsService.update_many,
    ):
        with db.atomic() as undo:
            ids = ThingsService.create_many([{}] * len(changes), returning="ids")
            made = change([{"id": key, **one} for key, one in zip(ids, changes, strict=True)])
            assert [one.__data__ for one in made] == [one.__data__ for one in ThingsService.list()]
            stored.append(rows_of(Thing))
            undo.rollback()
    assert stored[0] == stored[1]
