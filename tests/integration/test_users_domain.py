"""The users domain: its columns as in the guide, and the life of a session."""

import uuid
from datetime import timedelta

import pytest
from service_helpers import Log, new_session, new_user, no_statement, session_data, user_data

from domains.users import (
    Session,
    SessionProvider,
    SessionService,
    SessionStatus,
    User,
    UsersService,
)
from orm_core import (
    DuplicateKey,
    InvalidValue,
    KeyRing,
    Secret,
    db,
    use_key_ring,
    utcnow,
)

NOBODY = uuid.UUID(int=7)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _keys():
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    yield
    use_key_ring(None)


COLUMNS = """
    SELECT column_name,
           format_type(atttypid, atttypmod),
           attnotnull
    FROM information_schema.columns
    JOIN pg_attribute ON attrelid = table_name::regclass AND attname = column_name
    WHERE table_name = %s
    ORDER BY ordinal_position
"""


def test_the_columns_of_users_are_the_guides(rollback_db):
    assert db.execute_sql(COLUMNS, ("users",)).fetchall() == [
        ("id", "uuid", True),
        ("email", "text", True),
        ("first_name", "text", True),
        ("last_name", "text", False),
        ("avatar", "text", False),
        ("provider_account_id", "text", True),
        ("created_at", "timestamp with time zone", True),
        ("updated_at", "timestamp with time zone", True),
        ("deleted_at", "timestamp with time zone", False),
    ]


def test_the_columns_of_sessions_are_the_guides(rollback_db):
    assert db.execute_sql(COLUMNS, ("sessions",)).fetchall() == [
        ("id", "uuid", True),
        ("user_id", "uuid", True),
        ("status", "session_status", True),
        ("provider", "session_provider", True),
        ("provider_access_token", "character varying(2048)", True),
        ("provider_access_token_iv", "character varying(32)", True),
        ("provider_access_token_tag", "character varying(32)", True),
        ("provider_access_token_expires_at", "timestamp with time zone", False),
        ("provider_refresh_token", "character varying(2048)", False),
        ("provider_refresh_token_iv", "character varying(32)", False),
        ("provider_refresh_token_tag", "character varying(32)", False),
        ("provider_refresh_token_expires_at", "timestamp with time zone", False),
        ("provider_account_id", "character varying(255)", True),
        ("provider_scope", "text", False),
        ("expires_at", "timestamp with time zone", True),
        ("last_accessed_at", "timestamp with time zone", False),
        ("metadata", "jsonb", False),
        ("created_at", "timestamp with time zone", True),
        ("updated_at", "timestamp with time zone", True),
        ("deleted_at", "timestamp with time zone", False),
    ]


def test_the_server_fills_the_defaults_of_a_row_written_by_hand(rollback_db):
    db.execute_sql(
        "INSERT INTO users (email, first_name, provider_account_id) VALUES ('a', 'b', 'c')"
    )
    user = User.get()
    db.execute_sql(
        "INSERT INTO sessions (user_id, provider, provider_access_token, provider_access_token_iv, "
        "provider_access_token_tag, provider_account_id, expires_at) "
        "VALUES (%s, 'google', '', '', '', '', now())",
        (user.id,),
    )
    session = Session.get()
    assert (user.created_at, user.updated_at, user.deleted_at) == (user.created_at,) * 2 + (None,)
    assert (session.status, session.metadata) == (SessionStatus.ACTIVE, {})


def test_the_enums_are_the_guides():
    assert [one.value for one in SessionProvider] == ["google"]
    assert [one.value for one in SessionStatus] == ["active", "expired", "revoked"]


# -- users --------------------------------------------------------------------------------------


def test_a_user_is_found_by_the_providers_account(rollback_db):
    user = new_user()
    assert UsersService.find_by_provider_account(user.provider_account_id) == user
    assert UsersService.find_by_provider_account("nobody") is None


@pytest.mark.parametrize("name", ["email", "provider_account_id"])
def test_live_users_differ_in_email_and_account(rollback_db, name):
    user = new_user()
    with pytest.raises(DuplicateKey, match=rf"users\.{name}"), db.atomic():
        new_user(**{name: getattr(user, name)})


@pytest.mark.parametrize("name", ["email", "provider_account_id"])
def test_a_deleted_user_may_sign_up_again(rollback_db, name):
    user = new_user()
    UsersService.soft_delete(user.id)
    assert getattr(new_user(**{name: getattr(user, name)}), name) == getattr(user, name)


def test_a_deleted_users_sessions_go_with_her_and_come_back(rollback_db):
    user, other = new_user(), new_session()
    kept, ended = new_session(user), new_session(user)
    SessionService.soft_delete(ended.id)
    UsersService.soft_delete(user.id)
    assert SessionService.list() == [other]
    UsersService.restore(user.id)
    assert {one.id for one in SessionService.list()} == {kept.id, other.id}


# -- sessions -----------------------------------------------------------------------------------


def test_a_sessions_tokens_come_out_as_masked_secrets(rollback_db):
    session = new_session(provider_refresh_token=Secret("r"))
    assert session.provider_access_token.reveal() == "ya29.token-of-the-provider"
    assert session.provider_refresh_token.reveal() == "r"
    assert "ya29" not in repr(session.provider_access_token)


def test_the_active_sessions_of_a_user_are_listed_the_newest_first(rollback_db):
    user = new_user()
    first, second = new_session(user), new_session(user)
    new_session()
    new_session(user, status="revoked")
    new_session(user, status="expired")
    new_session(user, expires_at=utcnow() - HOUR)
    SessionService.soft_delete(new_session(user).id)
    assert SessionService.list_active(user.id) == [second, first]
    assert SessionService.list_active(str(user.id)) == [second, first]
    assert SessionService.list_active(NOBODY) == []


def test_touch_notes_the_time(rollback_db):
    session = new_session()
    before = utcnow()
    touched = SessionService.touch(session.id)
    assert before <= touched.last_accessed_at <= utcnow()
    assert SessionService.get(session.id).last_accessed_at == touched.last_accessed_at


@pytest.mark.parametrize(
    "given",
    [{"status": "revoked"}, {"status": "expired"}, {"expires_at": utcnow() - HOUR}],
    ids=["revoked", "expired", "overdue"],
)
def test_a_session_that_is_not_active_is_not_touched(rollback_db, given):
    session = new_session(**given)
    assert SessionService.touch(session.id) is None
    assert SessionService.get(session.id).last_accessed_at is None


def test_a_deleted_session_is_neither_touched_nor_revoked(rollback_db):
    session = new_session()
    SessionService.soft_delete(session.id)
    assert SessionService.touch(session.id) is None
    assert SessionService.revoke(session.id) is None


def test_touch_and_revoke_leave_other_sessions_alone(rollback_db):
    session, other = new_session(), new_session()
    SessionService.touch(session.id)
    SessionService.revoke(session.id)
    assert SessionService.get(other.id).__data__ == other.__data__


def test_revoke_ends_a_session_for_good(rollback_db):
    session = new_session()
    assert SessionService.revoke(str(session.id)).status is SessionStatus.REVOKED
    assert SessionService.revoke(session.id) is None
    assert SessionService.touch(session.id) is None
    assert SessionService.list_active(session.user_id) == []


def test_revoke_ends_an_expired_session_too(rollback_db):
    session = new_session(status="expired")
    assert SessionService.revoke(session.id).status is SessionStatus.REVOKED


def test_revoke_is_audited_once(clone_db):
    log, session = Log(), new_session()
    SessionService.revoke(session.id, log)
    SessionService.revoke(session.id, log)
    meta = {"module": "db", "action": "service:revoke", "session_id": session.id}
    assert log.audits == [("Session revoked", meta)]


def test_touch_is_not_audited(clone_db):
    log, session = Log(), new_session()
    SessionService.touch(session.id, log)
    assert log.audits == []


@pytest.mark.parametrize("verb", [SessionService.touch, SessionService.revoke])
@pytest.mark.parametrize("id", [None, "x", 3, b"x", Session.id, Session.id.is_null(False)])
def test_what_is_no_id_of_a_session_is_refused_before_any_sql(rollback_db, verb, id):
    with no_statement(), pytest.raises(InvalidValue):
        verb(id)


def test_overdue_sessions_are_marked_as_expired(rollback_db):
    overdue = new_session(expires_at=utcnow() - HOUR)
    new_session()
    revoked = new_session(expires_at=utcnow() - HOUR, status="revoked")
    assert SessionService.expire_overdue() == 1
    assert SessionService.get(overdue.id).status is SessionStatus.EXPIRED
    assert SessionService.get(revoked.id).status is SessionStatus.REVOKED
    assert SessionService.expire_overdue() == 0


def test_marking_overdue_sessions_is_audited_with_their_count(clone_db):
    log = Log()
    new_session(expires_at=utcnow() - HOUR)
    SessionService.expire_overdue(log)
    ((message, meta),) = log.audits
    assert (message, meta["count"]) == ("Session updated", 1)


def test_a_sessions_metadata_is_its_own(rollback_db):
    one, two = new_session(), new_session()
    one.metadata["a"] = 1
    one.save()
    assert SessionService.get(two.id).metadata == {}


def test_the_guides_two_lines_work(rollback_db):
    data = user_data(email="ada@example.com")
    user = UsersService.create(data)
    session = SessionService.create(session_data(user))
    assert UsersService.find_by_email("ada@example.com") == user
    assert session.user == user
    assert list(user.sessions) == [session]
