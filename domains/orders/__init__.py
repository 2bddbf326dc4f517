"""Orders of users."""

from domains.orders.models import Order
from domains.orders.services import OrdersService
from orm_core import Domain

domain = Domain("orders", models=(Order,), services=(OrdersService,))

__all__ = ["Order", "OrdersService", "domain"]
