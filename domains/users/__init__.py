"""Users and sessions: who signs in, and with which tokens."""

from domains.users.models import Session, SessionProvider, SessionStatus, User
from domains.users.payloads import (
    NewSession,
    NewUser,
    SessionRow,
    UpdateSession,
    UpdateUser,
    UserRow,
)
from domains.users.services import SessionService, UsersService
from orm_core import Domain

domain = Domain("users", models=(User, Session), services=(UsersService, SessionService))

__all__ = [
    "NewSession",
    "NewUser",
    "Session",
    "SessionProvider",
    "SessionRow",
    "SessionService",
    "SessionStatus",
    "UpdateSession",
    "UpdateUser",
    "User",
    "UserRow",
    "UsersService",
    "domain",
]
