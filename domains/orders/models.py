"""What users bought."""

from uuid import UUID

from domains.users.models import User
from orm_core import BaseModel, ForeignKeyField, ForeignKeyId, IntegerField, TextField


class Order(BaseModel):
    """An order; ``total`` is in the smallest unit of the currency."""

    user = ForeignKeyField(User, backref="orders")
    user_id: ForeignKeyId[UUID]
    status = TextField(default="pending")
    total = IntegerField()

    class Meta:
        table_name = "orders"
