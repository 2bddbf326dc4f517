"""Wrong use of orm_core: mypy --strict and pyright strict both reject each line marked WRONG."""

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

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
    BaseModel,
    BooleanField,
    CharField,
    DateField,
    DecimalField,
    DoubleField,
    EnumField,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Secret,
    TextField,
    UUIDField,
    aio,
    compiled,
    run_transaction,
    transaction,
)


class Color(Enum):
    RED = "red"


class Pet(BaseModel):
    age = IntegerField()
    rank = IntegerField(null=True)
    born = DateField()
    color = EnumField(Color)
    weight = DoubleField()
    price = DecimalField(10, 2)
    tame = BooleanField(default=False)
    words = ArrayField(TextField())
    chip = UUIDField(null=True)
    size = JSONField(dict[str, int])


class Declarations(BaseModel):
    a = TextField(default=3)  # WRONG
    b = TextField(nul=True)  # WRONG
    c = CharField("255")  # WRONG
    d = IntegerField(default="0")  # WRONG
    e = EnumField(Color, default="red")  # WRONG
    f = EnumField("Color")  # WRONG
    g = ForeignKeyField("User")  # WRONG
    h = ForeignKeyField(User, on_soft_delete="restrict")  # WRONG
    i = BooleanField(default="no")  # WRONG
    j = ArrayField(str)  # WRONG
    k = TextField(unique="dead")  # WRONG


def reading(user: User, order: Order, session: Session, pet: Pet) -> None:
    user.typo  # WRONG
    User.typo  # WRONG
    user.emial.upper()  # WRONG
    user.last_name.upper()  # WRONG
    n1: int = user.email  # WRONG
    s1: str = user.last_name  # WRONG
    u1: UUID = order.total  # WRONG
    i1: int = order.user_id  # WRONG
    o1: Order = order.user  # WRONG
    s2: str = session.status  # WRONG
    s3: str = session.provider_access_token  # WRONG
    s4: Secret = session.provider_refresh_token  # WRONG
    d1: datetime = user.deleted_at  # WRONG
    session.provider_refresh_token.reveal()  # WRONG
    order.user.emial  # WRONG
    for typo in user.orders:
        typo.totals  # WRONG
    user.orders.wher(Order.total > 1)  # WRONG
    s5: str = pet.size["width"]  # WRONG


def writing(user: User, order: Order, session: Session, pet: Pet) -> None:
    user.email = 3  # WRONG
    user.email = None  # WRONG
    user.id = "not a uuid"  # WRONG
    order.total = "12"  # WRONG
    order.total = Decimal(12)  # WRONG
    order.user = "ada"  # WRONG
    order.user = order  # WRONG
    order.user_id = 3  # WRONG
    session.status = "active"  # WRONG
    session.status = Color.RED  # WRONG
    session.provider_access_token = "plain text"  # WRONG
    session.provider_access_token = None  # WRONG
    session.expires_at = "tomorrow"  # WRONG
    session.metadata = ["a"]  # WRONG
    pet.words = "abc"  # WRONG
    pet.born = "2001-01-01"  # WRONG
    pet.price = 1.5  # WRONG


def predicates(user: User, order: Order) -> None:
    User.select().where(User.email == 3)  # WRONG
    User.email == 3  # WRONG
    Order.total != "12"  # WRONG
    User.select().where(User.email == None)  # WRONG  # noqa: E711
    User.select().where(User.id == 7)  # WRONG
    User.select().where(User.typo == 3)  # WRONG
    User.select().where(User.email == order.total)  # WRONG
    User.select().where(User.email == Order.total)  # WRONG
    User.select().where(User.email != b"x")  # WRONG
    User.select().where(User.email)  # WRONG
    User.select().where("email = 'x'")  # WRONG
    User.select().where(True)  # WRONG
    User.select().where(user.email == "x")  # WRONG
    User.select().where({"email": "x"})  # WRONG
    User.select().where(User.email.in_([1, 2]))  # WRONG
    User.select().where(User.created_at > "2020-01-01")  # WRONG
    User.select().where(User.email.like(3))  # WRONG
    User.select().where(User.email < 3)  # WRONG
    User.select().where((User.email == "x") and (User.first_name == 3))  # WRONG
    User.select().where(not User.email)  # WRONG
    Order.select().where(Order.total.ilike("1%"))  # WRONG
    Order.select().where(Order.total == "1")  # WRONG
    Order.select().where(Order.total > None)  # WRONG
    Order.select().where(Order.total + "x" > 3)  # WRONG
    Order.select().where(Order.total.between("a", "b"))  # WRONG
    Order.select().where(Order.user == 3)  # WRONG
    Order.select().where(Order.user == order)  # WRONG
    Order.select().where(Order.user == None)  # WRONG  # noqa: E711
    Order.select().where(Order.user_id == "x")  # WRONG
    Session.select().where(Session.status == "active")  # WRONG
    Session.select().where(Session.status == SessionProvider.GOOGLE)  # WRONG
    Session.select().where(Session.provider_access_token == "x")  # WRONG
    Session.select().where(Session.metadata.ilike("x"))  # WRONG
    Pet.select().where(Pet.color == None)  # WRONG  # noqa: E711
    Pet.select().where(Pet.tame.startswith("t"))  # WRONG
    Pet.select().where(Pet.words == "a")  # WRONG
    Pet.select().where(Pet.chip == "x")  # WRONG
    Pet.select().where(Pet.born > 3)  # WRONG


def queries() -> None:
    User.selct()  # WRONG
    User.select().with_related("orders")  # WRONG
    User.select().with_related(User.email)  # WRONG
    User.select().frist()  # WRONG
    User.select().limit("3")  # WRONG
    User.select().order_by("email")  # WRONG
    User.select().values("email")  # WRONG
    User.select().first().email  # WRONG
    o1: Order | None = User.select().first()  # WRONG
    o2: list[Order] = list(User.select())  # WRONG
    t1: tuple[UUID, int] = User.select().values(User.id, User.email).get()  # WRONG
    s1: str = User.select().count()  # WRONG
    for key, email in User.select().values(User.id, User.email):
        key.upper()  # WRONG
        email.hex  # WRONG
    User.select().join(Order).get().total  # WRONG
    User.select().with_deleted().get().typo  # WRONG
    i1: int = User.create(email="x")  # WRONG
    s2: str = User.update(email="x").execute()  # WRONG


def services(user: User, row: UserRow) -> None:
    UsersService.create({"first_name": "y", "provider_account_id": "z"})  # WRONG
    UsersService.create({"email": 3, "first_name": "y", "provider_account_id": "z"})  # WRONG
    UsersService.create({"email": None, "first_name": "y", "provider_account_id": "z"})  # WRONG
    UsersService.create({"emial": "x", "first_name": "y", "provider_account_id": "z"})  # WRONG
    UsersService.create(email="x", first_name="y", provider_account_id="z")  # WRONG
    UsersService.create("ada@example.com")  # WRONG
    UsersService.creat({})  # WRONG
    UsersService.create_many([{"email": "x"}])  # WRONG
    UsersService.update(user.id, {"emial": "x"})  # WRONG
    UsersService.update(user.id, {"email": 3})  # WRONG
    UsersService.update(user.id, {"first_name": None})  # WRONG
    UsersService.update(user.id, {"deleted_at": datetime.now(UTC)})  # WRONG
    UsersService.update(user.id, {"id": user.id})  # WRONG
    UsersService.update({"email": "x"})  # WRONG
    UsersService.update_where(User.email == "x", {"email": 3})  # WRONG
    UsersService.get(3)  # WRONG
    UsersService.list("email = 'x'")  # WRONG
    UsersService.list(User.email == 3)  # WRONG
    UsersService.find_by_email(3)  # WRONG
    UsersService.find_by_email()  # WRONG
    UsersService.find_by_email("x", "y", "z")  # WRONG
    UsersService.find_by_emial("x")  # WRONG
    o1: Order | None = UsersService.find_by_email("x")  # WRONG
    s1: str = UsersService.get(user.id)  # WRONG
    UsersService.find_by_id(user.id).email  # WRONG
    UsersService.page(size="10")  # WRONG
    OrdersService.create({"total": 3})  # WRONG
    OrdersService.create({"user_id": 3, "total": 3})  # WRONG
    OrdersService.create({"user_id": user.id, "total": "3"})  # WRONG
    OrdersService.create({"user_id": user.id, "total": 3, "status": SessionStatus.ACTIVE})  # WRONG
    SessionService.update(user.id, {"status": "revoked"})  # WRONG
    SessionService.update(user.id, {"provider_access_token": "plain"})  # WRONG
    n1: NewUser = {"email": "x"}  # WRONG
    n2: NewOrder = {"user_id": user.id, "total": 1, "sum": 2}  # WRONG
    c1: UpdateUser = {"nope": 1}  # WRONG
    i1: int = row["email"]  # WRONG
    row["provider_token"]  # WRONG
    with transaction(isolation="dirty"):  # WRONG
        pass
    run_transaction(lambda: 3)  # WRONG
    run_transaction(lambda tx: 3, isolation="dirty")  # WRONG
    r1: str = run_transaction(lambda tx: 3)  # WRONG
    compiled(User.hard_delete())  # WRONG
    compiled(User.insert(email="x"))  # WRONG
    User.select().limit("3")  # WRONG


async def from_asyncio(user: User) -> None:
    """Calls from asyncio are checked like plain ones."""
    await aio.run(UsersService.get)  # WRONG
    await aio.run(UsersService.get, 3)  # WRONG
    await aio.run(UsersService.create, {"email": 3})  # WRONG
    a1: int = await aio.run(UsersService.get, user.id)  # WRONG
    async with aio.transaction() as tx:
        await aio.run(UsersService.get, user.id, tx=tx)  # WRONG
        await tx.run(UsersService.get, user.id, limit=3)  # WRONG
