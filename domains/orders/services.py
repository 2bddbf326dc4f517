"""What other services may do with orders."""

from domains.orders.models import Order
from domains.orders.payloads import NewOrder, UpdateOrder
from orm_core import Service


class OrdersService(Service[Order, NewOrder, UpdateOrder]):
    """Orders of a user."""
