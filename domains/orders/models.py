"""What users bought."""

from domains.users.models import User
from orm_core import BaseModel, ForeignKeyField, IntegerField, TextField


class Order(BaseModel):
    """An order; ``total`` is in the smallest unit of the currency."""

    user = ForeignKeyField(User, backref="orders")
    status = TextField(default="pending")
    total = IntegerField()

    class Meta:
        table_name = "orders"
