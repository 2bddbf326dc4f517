"""Payloads and rows of these models, written by `orm-core types generate`: do not edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


class NewOrder(TypedDict):
    """What ``create`` takes for ``Order``."""

    id: NotRequired[UUID]
    user_id: UUID
    status: NotRequired[str]
    total: int
    created_at: NotRequired[datetime]
    updated_at: NotRequired[datetime]
    deleted_at: NotRequired[datetime | None]


class UpdateOrder(TypedDict, total=False):
    """What ``update`` takes for ``Order``."""

    user_id: UUID
    status: str
    total: int
    created_at: datetime
    updated_at: datetime


class OrderRow(TypedDict):
    """The values of ``Order``, without its secrets."""

    id: UUID
    user_id: UUID
    status: str
    total: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
