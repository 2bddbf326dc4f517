"""What other services may do with users and sessions."""

from __future__ import annotations

import builtins

from domains.users.models import Session, SessionStatus, User
from domains.users.payloads import NewSession, NewUser, UpdateSession, UpdateUser
from orm_core import Key, Logger, Service, Transaction, finder, utcnow


class UsersService(Service[User, NewUser, UpdateUser]):
    """Users, by id, e-mail and the provider's account."""

    find_by_email = finder(User.email)
    find_by_provider_account = finder(User.provider_account_id)


class SessionService(Service[Session, NewSession, UpdateSession]):
    """Sessions. Tokens go in and come out as ``Secret``."""

    @classmethod
    def list_active(
        cls, user_id: Key, logger: Logger | None = None, *, tx: Transaction | None = None
    ) -> builtins.list[Session]:
        """The user's sessions that are neither revoked nor expired, the newest first."""
        live = (Session.status == SessionStatus.ACTIVE) & (Session.expires_at > utcnow())
        return cls.list(
            [{"user_id": user_id}, live], logger, order_by=[Session.created_at.desc()], tx=tx
        )

    @classmethod
    def touch(
        cls, id: Key, logger: Logger | None = None, *, tx: Transaction | None = None
    ) -> Session | None:
        """Note that an active session was used just now; None when it is not active any more."""
        with cls.verb("touch", logger, tx) as verb:
            now = utcnow()
            query = Session.update(last_accessed_at=now).where(
                verb.is_key(id), Session.status == SessionStatus.ACTIVE, Session.expires_at > now
            )
            return next(iter(query.returning(Session).execute()), None)

    @classmethod
    def revoke(
        cls, id: Key, logger: Logger | None = None, *, tx: Transaction | None = None
    ) -> Session | None:
        """End a session for good; None when there is none that is not revoked yet."""
        with cls.verb("revoke", logger, tx) as verb:
            query = Session.update(status=SessionStatus.REVOKED).where(
                verb.is_key(id), Session.status != SessionStatus.REVOKED
            )
            session: Session | None = next(iter(query.returning(Session).execute()), None)
            if session is not None:
                verb.audit("revoked", session)
            return session

    @classmethod
    def expire_overdue(cls, logger: Logger | None = None, *, tx: Transaction | None = None) -> int:
        """Mark active sessions whose time is over as expired; answers how many."""
        overdue = (Session.status == SessionStatus.ACTIVE) & (Session.expires_at <= utcnow())
        return cls.update_where(overdue, {"status": SessionStatus.EXPIRED}, logger, tx=tx)
