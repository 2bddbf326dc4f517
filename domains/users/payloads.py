"""Payloads and rows of these models, written by `orm-core types generate`: do not edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from domains.users.models import SessionProvider, SessionStatus
    from orm_core import Secret


class NewSession(TypedDict):
    """What ``create`` takes for ``Session``."""

    id: NotRequired[UUID]
    user_id: UUID
    status: NotRequired[SessionStatus]
    provider: SessionProvider
    provider_access_token: Secret
    provider_access_token_expires_at: NotRequired[datetime | None]
    provider_refresh_token: NotRequired[Secret | None]
    provider_refresh_token_expires_at: NotRequired[datetime | None]
    provider_account_id: str
    provider_scope: NotRequired[str | None]
    expires_at: datetime
    last_accessed_at: NotRequired[datetime | None]
    metadata: NotRequired[dict[str, Any] | None]
    created_at: NotRequired[datetime]
    updated_at: NotRequired[datetime]
    deleted_at: NotRequired[datetime | None]


class UpdateSession(TypedDict, total=False):
    """What ``update`` takes for ``Session``."""

    user_id: UUID
    status: SessionStatus
    provider: SessionProvider
    provider_access_token: Secret
    provider_access_token_expires_at: datetime | None
    provider_refresh_token: Secret | None
    provider_refresh_token_expires_at: datetime | None
    provider_account_id: str
    provider_scope: str | None
    expires_at: datetime
    last_accessed_at: datetime | None
    metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class SessionRow(TypedDict):
    """The values of ``Session``, without its secrets."""

    id: UUID
    user_id: UUID
    status: SessionStatus
    provider: SessionProvider
    provider_access_token_expires_at: datetime | None
    provider_refresh_token_expires_at: datetime | None
    provider_account_id: str
    provider_scope: str | None
    expires_at: datetime
    last_accessed_at: datetime | None
    metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class NewUser(TypedDict):
    """What ``create`` takes for ``User``."""

    id: NotRequired[UUID]
    email: str
    first_name: str
    last_name: NotRequired[str | None]
    avatar: NotRequired[str | None]
    provider_account_id: str
    created_at: NotRequired[datetime]
    updated_at: NotRequired[datetime]
    deleted_at: NotRequired[datetime | None]


class UpdateUser(TypedDict, total=False):
    """What ``update`` takes for ``User``."""

    email: str
    first_name: str
    last_name: str | None
    avatar: str | None
    provider_account_id: str
    created_at: datetime
    updated_at: datetime


class UserRow(TypedDict):
    """The values of ``User``, without its secrets."""

    id: UUID
    email: str
    first_name: str
    last_name: str | None
    avatar: str | None
    provider_account_id: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
