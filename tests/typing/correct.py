"""Correct use of orm_core: mypy --strict and pyright strict find nothing here."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypedDict, assert_type
from uuid import UUID

from peewee import JOIN, SQL

from domains.orders import Order, OrdersService
from domains.orders.payloads import NewOrder
from domains.users import (
    Session,
    SessionProvider,
    SessionService,
    SessionStatus,
    User,
    UsersService,
)
from domains.users.payloads import NewUser, UpdateUser, UserRow
from orm_core import (
    ArrayField,
    AuditEntry,
    AuditService,
    Backref,
    BaseModel,
    BigIntegerField,
    BooleanField,
    CharField,
    CommitUnknown,
    DateField,
    DateTimeField,
    DecimalField,
    DeferredForeignKey,
    Domain,
    DoubleField,
    EncryptedJSONField,
    EncryptedTextField,
    EnumField,
    ForeignKeyField,
    ForeignKeyId,
    IntegerField,
    JSONField,
    Load,
    ManyToManyField,
    Page,
    Policy,
    Secret,
    SecretJSON,
    SelectQuery,
    Service,
    SmallIntegerField,
    TextField,
    Transaction,
    UUIDField,
    VersionField,
    acting_as,
    aio,
    close_db,
    connect_db,
    db,
    finder,
    fn,
    outbox,
    registry,
    row_scope,
    run_transaction,
    setting,
    time_limit,
    transaction,
    utcnow,
    uuid7,
)
from orm_core.database.pool_stats import PoolStats
from orm_core.erasure import Erasure, erasable, erase
from orm_core.purging import PurgeReport, purge


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(TypedDict):
    width: int
    height: int


class Label(BaseModel):
    name = TextField()


class Thing(BaseModel):
    name = CharField(80, index=True)
    note = CharField(null=True)
    code = CharField(max_length=10, null=True, unique="live")
    color = EnumField(Color)
    shade = EnumField(Color, null=True)
    weight = DoubleField()
    height = DoubleField(null=True)
    price = DecimalField(10, 2)
    discount = DecimalField(max_digits=10, decimal_places=2, null=True)
    count = IntegerField(default=0)
    views = BigIntegerField(default=0, server_default="0")
    rank = SmallIntegerField(null=True)
    active = BooleanField(default=True)
    checked = BooleanField(null=True)
    born = DateField()
    died = DateField(null=True)
    seen = DateTimeField(default=utcnow)
    token = UUIDField(default=uuid7)
    other = UUIDField(null=True)
    size = JSONField(Size)
    extra = JSONField(dict[str, int], null=True, default={})
    anything = JSONField()
    words = ArrayField(TextField())
    numbers = ArrayField(IntegerField(), null=True)
    secret = EncryptedTextField()
    hint = EncryptedTextField(null=True)
    card = EncryptedJSONField()
    api_key = EncryptedTextField(null=True, unique="live", blind_index=True)
    spare_card = EncryptedJSONField(null=True)
    owned = EncryptedTextField(owner="owner")
    owned_card = EncryptedJSONField(null=True, owner="self")
    version = VersionField(comment="of the whole row")
    owner = ForeignKeyField(User, backref="things")
    owner_id: ForeignKeyId[UUID]
    buyer = ForeignKeyField(User, null=True, on_delete="SET NULL")
    buyer_id: ForeignKeyId[UUID, UUID | None]
    parent: "ForeignKeyField[Thing | None, UUID | None]" = ForeignKeyField("self", null=True)
    team: "DeferredForeignKey[Team | None, UUID | None]" = DeferredForeignKey("Team", null=True)
    labels = ManyToManyField(Label, backref="things")
    parts: "Backref[Part]"

    class Meta:
        table_name = "things"
        policies = (Policy("own", using=f"owner_id = {setting('user')}::uuid", roles=("app",)),)
        indexes = ((("name", "color"), "live"),)

    @property
    def title(self) -> str:
        return self.name.upper()


class Team(BaseModel):
    name = TextField()


class Part(BaseModel):
    thing = ForeignKeyField(Thing, backref="parts", on_soft_delete="cascade")
    thing_id: ForeignKeyId[UUID]


class ThingsService(Service[Thing]):
    by_name = finder(Thing.name)
    by_name_and_color = finder(Thing.name, Thing.color)


domain = Domain(
    "things",
    models=(Label, Thing, Team, Part),
    services=(ThingsService,),
    retention=timedelta(days=90),
)


def attributes(thing: Thing, user: User, part: Part) -> None:
    assert_type(thing.id, UUID)
    assert_type(thing.created_at, datetime)
    assert_type(thing.updated_at, datetime)
    assert_type(thing.deleted_at, datetime | None)
    assert_type(thing.is_deleted, bool)
    assert_type(thing.name, str)
    assert_type(thing.version, int)
    assert_type(thing.note, str | None)
    assert_type(thing.code, str | None)
    assert_type(thing.color, Color)
    assert_type(thing.shade, Color | None)
    assert_type(thing.weight, float)
    assert_type(thing.height, float | None)
    assert_type(thing.price, Decimal)
    assert_type(thing.discount, Decimal | None)
    assert_type(thing.count, int)
    assert_type(thing.views, int)
    assert_type(thing.rank, int | None)
    assert_type(thing.active, bool)
    assert_type(thing.checked, bool | None)
    assert_type(thing.born, date)
    assert_type(thing.died, date | None)
    assert_type(thing.seen, datetime)
    assert_type(thing.token, UUID)
    assert_type(thing.other, UUID | None)
    assert_type(thing.size, Size)
    assert_type(thing.size["width"], int)
    assert_type(thing.extra, dict[str, int] | None)
    assert_type(thing.anything, Any)
    assert_type(thing.words, list[str])
    assert_type(thing.numbers, list[int] | None)
    assert_type(thing.secret, Secret)
    assert_type(thing.secret.reveal(), str)
    assert_type(thing.owned.reveal(), str)
    assert_type(thing.owned_card, SecretJSON | None)
    assert_type(thing.hint, Secret | None)
    assert_type(thing.card, SecretJSON)
    assert_type(thing.spare_card, SecretJSON | None)
    assert_type(Thing.get_or_none(Thing.api_key == Secret("x")), Thing | None)
    assert_type(thing.owner, User)
    assert_type(thing.owner.email, str)
    assert_type(thing.owner_id, UUID)
    assert_type(thing.buyer, User | None)
    assert_type(thing.buyer_id, UUID | None)
    assert_type(thing.parent, Thing | None)
    assert_type(thing.team, Team | None)
    assert_type(thing.title, str)
    assert_type(part.thing.owner.first_name, str)
    assert_type(user.last_name, str | None)


def back_references(user: User, thing: Thing) -> None:
    assert_type(user.orders, SelectQuery[Order])
    assert_type(user.sessions.where(Session.status == SessionStatus.ACTIVE).count(), int)
    for order in user.orders.order_by(Order.created_at.desc()):
        assert_type(order, Order)
    assert_type(thing.parts.first(), Part | None)
    for label in thing.labels:
        assert_type(label, Label)
    thing.labels.add(Label(name="new"))


def assignments(thing: Thing, user: User) -> None:
    thing.name = "name"
    thing.note = None
    thing.color = Color.RED
    thing.price = Decimal("1.50")
    thing.weight = 3
    thing.seen = datetime.now(UTC)
    thing.size = Size(width=1, height=2)
    thing.extra = {"a": 1}
    thing.words = ["a", "b"]
    thing.secret = Secret("s3cret")
    thing.hint = None
    thing.owner = user
    thing.owner_id = user.id
    thing.buyer = None
    thing.buyer_id = None
    thing.save()


def predicates(user: User, thing: Thing) -> Iterator[object]:
    yield User.select().where(User.email == "ada@example.com", User.last_name.is_null())
    yield User.select().where(User.last_name == None)  # noqa: E711
    yield User.select().where(User.email != user.email)
    yield User.select().where(User.first_name == User.last_name)
    yield User.select().where(User.email.ilike("%@example.com") | User.email.startswith("a"))
    yield User.select().where(~(User.email == "x") & User.last_name.in_(["a", "b"]))
    yield User.select().where(fn.LOWER(User.email) == "x", SQL("true"))
    yield User.select().where(User.email == fn.LOWER("X"))
    yield User.select().where((User.email == "x") & (fn.LENGTH(User.email) > 3))
    yield User.select().where(User.id.in_(Order.select(Order.user)))
    yield Thing.select().where(Thing.active, ~Thing.active, Thing.active & (Thing.count > 3))
    yield Thing.select().where(Thing.color == Color.RED, Thing.shade == None)  # noqa: E711
    yield Thing.select().where(Thing.count.between(1, 3), Thing.weight >= 2, Thing.count < 3)
    yield Thing.select().where(Thing.price * 2 > Decimal(3), Thing.count + 1 > Thing.views)
    yield Thing.select().where(Thing.seen > utcnow() - timedelta(days=1), Thing.born.year == 1999)
    yield Thing.select().where(
        Thing.owner == user, Thing.owner == user.id, Thing.owner_id == user.id
    )
    yield Thing.select().where(Thing.buyer == None, Thing.buyer_id.is_null())  # noqa: E711
    yield Thing.select().where(Thing.extra["a"] == 1, Thing.extra.contains({"a": 1}))
    yield Thing.select().where(Thing.words == ["a"])
    yield Thing.select().where(Thing.owner.in_([user]), Thing.owner.is_null(False))
    yield User.get(User.email == "x")
    yield User.get_or_none(User.email == "x")


def queries(user: User) -> None:
    query = (
        User.select().where(User.email == "x").order_by(User.created_at.desc(), User.id).limit(3)
    )
    assert_type(query, SelectQuery[User])
    for one in query:
        assert_type(one, User)
    assert_type(query.first(), User | None)
    assert_type(query.get(), User)
    assert_type(query.get_or_none(), User | None)
    assert_type(query[0], User)
    assert_type(query[:2], list[User])
    assert_type(list(query), list[User])
    assert_type(query.count(), int)
    assert_type(query.exists(), bool)
    assert_type(query.with_deleted().only_deleted(), SelectQuery[User])
    assert_type(User.with_deleted(), SelectQuery[User])
    assert_type(query.values(User.id, User.email), SelectQuery[tuple[UUID, str]])
    for key, last_name, status in (
        User.select().join(Session).values(User.id, User.last_name, Session.status)
    ):
        assert_type(key, UUID)
        assert_type(last_name, str | None)
        assert_type(status, SessionStatus)
    assert_type(query.values(User.last_name).first(), tuple[str | None] | None)
    assert_type(Order.select().values(Order.user, Order.user_id).get(), tuple[UUID, UUID])
    assert_type(query.tuples().first(), tuple[Any, ...] | None)
    assert_type(query.dicts().first(), dict[str, Any] | None)
    joined = Order.select().join(User).where(User.email == "x", Order.total > 3)
    assert_type(joined, SelectQuery[Order])
    assert_type(joined.get().user.email, str)
    outer = Order.select().join(User, JOIN.LEFT_OUTER, on=Order.user == User.id)
    assert_type(outer.first(), Order | None)
    assert_type(Order.select().with_related(Order.user), SelectQuery[Order])
    assert_type(User.select().with_related(User.orders, User.sessions).get(), User)
    latest = Load(User.orders, Order.select().order_by(Order.created_at.desc()), per_parent=3)
    assert_type(User.select().with_related(latest.then(Order.user)), SelectQuery[User])
    other = User.alias("other")
    same = User.select().join(other, on=User.first_name == other.first_name)
    assert_type(same.where(other.email == "x").get(), User)
    totals = User.select().join(Order).values(User.email, fn.COUNT(Order.id), fn.SUM(Order.total))
    assert_type(totals.get(), tuple[str, int, Any])
    counted = User.select(User, fn.COUNT(Order.id).alias("n")).join(Order).group_by(User.id)
    assert_type(counted.having(fn.COUNT(Order.id) > 1), SelectQuery[User])


def writes(user: User) -> None:
    assert_type(User.create(email="x", first_name="y", provider_account_id="z"), User)
    assert_type(User.update(first_name="x").where(User.id == user.id).execute(), int)
    assert_type(User.update({User.first_name: "x"}).execute(), int)
    for row in User.update(first_name="x").where(User.id == user.id).returning(User).execute():
        assert_type(row, User)
    assert_type(User.delete().where(User.email == "x").execute(), int)
    assert_type(User.restore().where(User.email == "x").execute(), int)
    assert_type(User.hard_delete().where(User.email == "x").execute(), int)
    assert_type(User.get_by_id(user.id), User)
    assert_type(User.get_or_create(email="x"), tuple[User, bool])
    User.insert(email="x").execute()
    User.insert_many([{"email": "x"}]).execute()
    User.bulk_create([User(email="x")])
    assert_type(user.delete_instance(), int)
    assert_type(user.restore_instance(), int)


def services(user: User) -> None:
    new: NewUser = {"email": "x", "first_name": "y", "provider_account_id": "z"}
    assert_type(UsersService.create(new), User)
    assert_type(
        UsersService.create({"email": "x", "first_name": "y", "provider_account_id": "z"}), User
    )
    assert_type(UsersService.create_many([new, {**new, "last_name": None}]), list[User])
    assert_type(UsersService.upsert(new, on=["email"]), User)
    change: UpdateUser = {"first_name": "x"}
    assert_type(UsersService.update(user.id, change), User | None)
    assert_type(UsersService.update(str(user.id), {"last_name": None}), User | None)
    assert_type(UsersService.update_where(User.email == "x", {"first_name": "y"}), int)
    assert_type(UsersService.update_where({"email": "x"}, {"first_name": "y"}), int)
    assert_type(UsersService.get(user.id), User)
    assert_type(UsersService.find_by_id(user.id, include_deleted=True), User | None)
    assert_type(UsersService.find_by_email("x"), User | None)
    assert_type(UsersService.find_by_email("x", None, include_deleted=True), User | None)
    assert_type(UsersService.list(User.email == "x"), list[User])
    assert_type(UsersService.list([User.email == "x", {"first_name": "y"}]), list[User])
    assert_type(UsersService.page(size=10, order_by=User.email), Page[User])
    for one in UsersService.page():
        assert_type(one, User)
    assert_type(UsersService.count(), int)
    assert_type(UsersService.soft_delete(user.id), User | None)
    assert_type(UsersService.restore(user.id), User | None)
    assert_type(UsersService.hard_delete(user.id), bool)
    order: NewOrder = {"user_id": user.id, "total": 3}
    assert_type(OrdersService.create(order), Order)
    session = SessionService.create(
        {
            "user_id": user.id,
            "provider": SessionProvider.GOOGLE,
            "provider_access_token": Secret("x"),
            "provider_account_id": "y",
            "expires_at": utcnow(),
            "metadata": {"a": 1},
        }
    )
    assert_type(session.status, SessionStatus)
    assert_type(session.metadata, dict[str, Any] | None)
    assert_type(session.provider_refresh_token, Secret | None)
    assert_type(SessionService.list_active(user.id), list[Session])
    assert_type(ThingsService.create({"name": "any key, without generated types"}), Thing)
    assert_type(ThingsService.by_name("x"), Thing | None)
    assert_type(ThingsService.by_name_and_color("x", Color.RED), Thing | None)


def transactions(row: UserRow) -> str:
    with transaction() as tx:
        assert_type(tx, Transaction)
        UsersService.update(row["id"], {"email": row["email"]}, tx=tx)
    registry.register(domain)
    return row["email"]


def transfer(tx: Transaction) -> int:
    return 3


def what_became() -> None:
    assert_type(run_transaction(transfer, isolation="serializable", attempts=3), int)
    assert_type(run_transaction(lambda tx: "x", idempotent=True), str)
    try:
        with transaction(track=False) as tx:
            pass
        assert_type(tx.outcome, Literal["applied", "not applied", "unknown"])
    except CommitUnknown as error:
        assert_type(error.find_out(timeout=3), Literal["applied", "not applied", "unknown"])
        assert_type(error.transaction_id, str | None)


async def from_asyncio(new: NewUser) -> None:
    user = await aio.run(UsersService.create, new, logger=None)
    assert_type(user, User)
    async with aio.transaction("serializable") as tx:
        assert_type(await aio.run(UsersService.get, user.id, tx=tx.handle), User)
        assert_type(await tx.run(UsersService.find_by_id, user.id), User | None)
        await tx.on_commit(lambda: None)


def messages() -> None:
    with transaction():
        assert_type(outbox.put("topic", {"a": 1}, key="x"), int)

    def send(message: outbox.Message) -> None:
        assert_type(message.topic, str)

    assert_type(outbox.relay(send, batch=10), int)


# -- the audit trail ----------------------------------------------------------------------------


@acting_as("job:nightly")
def audited_job(key: UUID) -> str | None:
    """Who acts is said by a block or a decorator; entries are typed rows."""
    with acting_as("user:42", request_id="8f0c"):
        UsersService.update(key, {"first_name": "Ada"})
    page = AuditService.history(User, key, actor="user:42", since=utcnow() - timedelta(days=1))
    assert_type(page, Page[AuditEntry])
    for entry in page:
        assert_type(entry.recorded_at, datetime)
        assert_type(entry.new, dict[str, Any] | None)
        assert_type(entry.masked, list[str] | None)
    assert_type(AuditService.as_of(User, key, utcnow()), dict[str, Any] | None)
    return page.items[0].actor


audited = Domain("audited", models=(User,), audit="chain")


@row_scope(region="north")
def rows_of_a_scope(user: User) -> None:
    with row_scope(user=user.id, number=1):
        assert_type(ThingsService.list(), list[Thing])
    assert_type(setting("user"), str)


def erasing(user: User) -> int:
    assert_type(erasable(User, user.id), Erasure)
    found = erase(User, str(user.id))
    assert_type(found.columns[0].rows, int)
    assert_type(found.erased_at, datetime | None)
    assert_type(purge(registry, older_than=timedelta(days=1), dry_run=True), PurgeReport)
    report = purge([domain], batch=10)
    assert_type(report.tables[0].kept["a.b"], int)
    return report.rows


@time_limit(2)
def limits_and_the_pool() -> str | None:
    connect_db(retry_for=30)
    with time_limit(0.5):
        stats = db.pool_stats()
    assert_type(stats, PoolStats)
    assert_type(close_db(timeout=10), bool)
    return stats.holders[0].site
