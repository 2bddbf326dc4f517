"""A third domain for the studio to show: plans, subscriptions, invoices."""

from enum import Enum

import domains.orders
import domains.users
from domains.orders import Order
from domains.users import User
from orm_core import (
    ArrayField,
    BaseModel,
    BooleanField,
    CharField,
    DateField,
    DecimalField,
    Domain,
    EnumField,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Registry,
    Service,
    SmallIntegerField,
    TextField,
)


class InvoiceState(Enum):
    DRAFT = "draft"
    SENT = "sent"
    PAID = "paid"
    VOID = "void"


class Plan(BaseModel):
    code = CharField(40, unique=True)
    name = TextField()
    price = DecimalField(max_digits=6, decimal_places=2)
    is_public = BooleanField(default=True)
    features = ArrayField(TextField(), default=[])

    class Meta:
        table_name = "plans"


class Subscription(BaseModel):
    user = ForeignKeyField(User, backref="subscriptions")
    plan = ForeignKeyField(Plan, backref="subscriptions")
    started_on = DateField()
    ends_on = DateField(null=True)
    settings = JSONField(null=True)

    class Meta:
        table_name = "subscriptions"


class Invoice(BaseModel):
    number = CharField(32, unique=True)
    subscription = ForeignKeyField(Subscription, backref="invoices", null=True)
    order = ForeignKeyField(Order, backref="invoices", null=True)
    state = EnumField(InvoiceState, default=InvoiceState.DRAFT)
    amount = DecimalField(max_digits=8, decimal_places=2)
    notes = TextField(null=True)
    due_on = DateField(null=True)

    class Meta:
        table_name = "invoices"


class InvoiceLine(BaseModel):
    invoice = ForeignKeyField(Invoice, backref="lines", on_soft_delete="cascade")
    position = SmallIntegerField()
    title = TextField()
    quantity = IntegerField(default=1)
    unit_price = DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        table_name = "invoice_lines"


class PlansService(Service[Plan]):
    """Plans."""


class SubscriptionsService(Service[Subscription]):
    """Subscriptions."""


class InvoicesService(Service[Invoice]):
    """Invoices."""


class InvoiceLinesService(Service[InvoiceLine]):
    """Lines of invoices."""


registry = Registry()
registry.register(
    domains.users.domain,
    domains.orders.domain,
    Domain(
        "billing",
        (Plan, Subscription, Invoice, InvoiceLine),
        (PlansService, SubscriptionsService, InvoicesService, InvoiceLinesService),
    ),
)

#: rows of each table
COUNTS = {
    "users": 400,
    "sessions": 300,
    "orders": 900,
    "plans": 6,
    "subscriptions": 150,
    "invoices": 320,
    "invoice_lines": 500,
}
