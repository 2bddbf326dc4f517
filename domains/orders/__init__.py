"""Orders of users."""

from domains.orders.models import Order
from domains.orders.payloads import NewOrder, OrderRow, UpdateOrder
from domains.orders.services import OrdersService
from orm_core import Domain

domain = Domain("orders", models=(Order,), services=(OrdersService,))

__all__ = ["NewOrder", "Order", "OrderRow", "OrdersService", "UpdateOrder", "domain"]
