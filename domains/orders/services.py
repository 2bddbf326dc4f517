"""What other services may do with orders."""

from domains.orders.models import Order
from orm_core import Service


class OrdersService(Service[Order]):
    """Orders of a user."""
