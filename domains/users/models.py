"""Users and their sessions."""

from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from orm_core import (
    Backref,
    BaseModel,
    CharField,
    DateTimeField,
    EncryptedTextField,
    EnumField,
    ForeignKeyField,
    ForeignKeyId,
    JSONField,
    TextField,
)

if TYPE_CHECKING:
    from domains.orders.models import Order


class SessionProvider(Enum):
    """Who vouched for the user."""

    GOOGLE = "google"


class SessionStatus(Enum):
    """The life of a session."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class User(BaseModel):
    """Somebody who signed up."""

    email = TextField(unique="live")
    first_name = TextField()
    last_name = TextField(null=True)
    avatar = TextField(null=True)
    provider_account_id = TextField(unique="live")

    sessions: Backref["Session"]
    orders: Backref["Order"]

    class Meta:
        table_name = "users"


class Session(BaseModel):
    """A sign-in of a user, with the provider's tokens, which are stored encrypted."""

    user = ForeignKeyField(User, backref="sessions", on_soft_delete="cascade")
    user_id: ForeignKeyId[UUID]
    status = EnumField(SessionStatus, default=SessionStatus.ACTIVE)
    provider = EnumField(SessionProvider)

    provider_access_token = EncryptedTextField()
    provider_access_token_expires_at = DateTimeField(null=True)
    provider_refresh_token = EncryptedTextField(null=True)
    provider_refresh_token_expires_at = DateTimeField(null=True)

    provider_account_id = CharField(255)
    provider_scope = TextField(null=True)

    expires_at = DateTimeField()
    last_accessed_at = DateTimeField(null=True)
    metadata = JSONField(dict[str, Any], null=True, default={})

    class Meta:
        table_name = "sessions"
