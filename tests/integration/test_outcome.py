"""What a caller is told of a write when the connection breaks, and how to find out the rest."""

# ruff: noqa: PT012 - what a whole block raises is the matter of these tests

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from cutting import Way, before_commit_arrives, before_commit_is_answered, way_to

from domains.users import User, UsersService
from orm_core import (
    CommitUnknown,
    ConnectionFailed,
    ConnectionLost,
    DuplicateKey,
    InvalidValue,
    OrmCoreError,
    QueryError,
    TransactionAborted,
    db,
    initialize_db,
    transaction,
)


def add(email: str) -> User:
    return User.create(email=email, first_name="A", provider_account_id=email)


@pytest.fixture
def way(clone_db: Any, orm_core_server: Any) -> Iterator[Way]:
    """``db`` reaches its database by a way that a test can cut."""
    with way_to(orm_core_server, clone_db.database) as (way, url):
        initialize_db(url)
        yield way
        db.close_all()


def stored(way: Way) -> list[str]:
    way.cuts = None
    return [user.email for user in User.select().order_by(User.email)]


def once(way: Way, cuts: Any) -> None:
    """Cut one connection there."""

    def rule(name: str, data: bytes) -> bool:
        if not cuts(name, data):
            return False
        way.cuts = None
        return True

    way.cuts = rule


# COMMIT


@pytest.mark.parametrize(
    ("cuts", "outcome", "rows"),
    [
        (before_commit_arrives, "not applied", []),
        (before_commit_is_answered, "applied", ["a"]),
    ],
)
def test_what_became_of_a_commit_that_was_cut_can_be_found_out(way, cuts, outcome, rows):
    seen: list[str] = []
    with pytest.raises(CommitUnknown) as caught, transaction() as tx:
        tx.on_commit(lambda: seen.append("committed"))
        add("a")
        once(way, cuts)
    assert (caught.value.outcome, seen) == ("unknown", [])
    assert caught.value.find_out() == outcome
    assert db.outcome_of(caught.value.transaction_id) == outcome
    assert (stored(way), db.pool_stats().in_use) == (rows, 0)


def test_a_session_that_waits_for_a_commit_that_was_lost_is_ended_to_find_out(
    way, clone_db, orm_core_server
):
    other = psycopg2.connect(orm_core_server.url(clone_db.database))
    cursor = other.cursor()
    cursor.execute("INSERT INTO users (email, first_name, provider_account_id) VALUES (1, 2, 3)")
    cursor.execute("SELECT pg_current_xact_id()::text")
    (number,) = cursor.fetchone()
    with db.connection_context(), transaction():
        add("a")
        server, _, _ = db.transaction_id().partition("/")
    assert db.outcome_of(f"{server}/{number}") == "not applied"
    with pytest.raises(psycopg2.OperationalError):
        cursor.execute("SELECT 1")
    other.close()


def test_it_is_found_out_inside_another_transaction_with_no_connection_free(
    way, clone_db, orm_core_server
):
    with pytest.raises(CommitUnknown) as caught, transaction():
        add("a")
        once(way, before_commit_is_answered)
    initialize_db(orm_core_server.url(clone_db.database), pool_size=1)
    with transaction():
        add("b")
        assert caught.value.find_out() == "applied"


def test_another_server_is_not_believed(way):
    with transaction():
        add("a")
        _, _, number = db.transaction_id().partition("/")
    for server in ("1.00000001.5", "7711123125831622641.00000002.5"):
        assert db.outcome_of(f"{server}/{number}") == "unknown"


def test_no_answer_in_time_is_unknown(way):
    with pytest.raises(CommitUnknown) as caught, transaction():
        add("a")
        way.cuts = before_commit_arrives
    way.cuts = lambda name, data: True
    assert caught.value.find_out(timeout=0.2) == "unknown"


@pytest.mark.parametrize("given", ["", "7", "1.00000001/x", None, 7])
def test_what_is_no_transaction_id_is_refused(way, given):
    with pytest.raises(InvalidValue, match="transaction_id"):
        db.outcome_of(given)


def test_a_block_that_is_not_tracked_can_not_be_asked_for(way):
    with pytest.raises(CommitUnknown) as caught, transaction(track=False):
        add("a")
        once(way, before_commit_is_answered)
    assert (caught.value.transaction_id, caught.value.find_out()) == (None, "unknown")


def test_a_commit_by_hand_that_is_cut_is_unknown(way):
    with pytest.raises(CommitUnknown) as caught, transaction() as tx:
        add("a")
        once(way, before_commit_is_answered)
        tx.commit()
    assert caught.value.find_out() == "applied"
    with pytest.raises(ConnectionLost) as lost, db.manual_commit():
        db.begin()
        db.execute_sql("DELETE FROM users")
        once(way, before_commit_is_answered)
        db.commit()
    assert (lost.value.outcome, stored(way)) == ("unknown", [])


def test_a_transaction_that_the_server_refuses_at_commit_is_not_applied(way):
    db.execute_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE serialization_failure; END $$"
    )
    db.execute_sql(
        "CREATE CONSTRAINT TRIGGER refuses AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(QueryError) as caught, transaction():
        add("a")
    assert (caught.value.outcome, stored(way)) == ("not applied", [])


# Statements


def test_a_statement_that_is_cut_inside_a_transaction_is_not_applied(way):
    with pytest.raises(ConnectionLost) as caught, transaction():
        add("a")
        way.cuts = lambda name, data: b"INSERT" in data
        add("b")
    assert (caught.value.outcome, stored(way)) == ("not applied", [])


@pytest.mark.parametrize("speaker", ["client", "server"])
def test_a_statement_that_is_cut_outside_a_transaction_is_unknown(way, speaker):
    db.connect()
    way.cuts = lambda name, data: name == speaker
    with pytest.raises(ConnectionLost) as caught:
        add("a")
    way.cuts = None
    db.close()
    assert caught.value.outcome == "unknown"
    assert stored(way) == (["a"] if speaker == "server" else [])


def test_a_write_after_a_commit_by_hand_in_a_block_is_unknown_when_it_is_cut(way):
    with pytest.raises(ConnectionLost) as caught, transaction():
        add("a")
        db.commit()
        once(way, lambda name, data: name == "server")
        add("b")
    assert (caught.value.outcome, stored(way)) == ("unknown", ["a", "b"])


def test_a_text_that_commits_by_itself_is_unknown_when_it_is_cut(way):
    with pytest.raises(ConnectionLost) as caught, transaction():
        add("a")
        once(way, before_commit_is_answered)
        db.execute_sql("SELECT 1; COMMIT; SELECT 2")
    assert (caught.value.outcome, stored(way)) == ("unknown", ["a"])


def test_what_is_refused_is_not_applied(way):
    add("a")
    with pytest.raises(DuplicateKey) as duplicate:
        add("a")
    with pytest.raises(InvalidValue) as invalid:
        add("\0")
    db.close_all()
    way.cuts = lambda name, data: True
    with pytest.raises(ConnectionFailed) as refused:
        add("b")
    for caught in (duplicate, invalid, refused):
        assert caught.value.outcome == "not applied"


def test_a_lost_connection_that_is_swallowed_before_commit_aborts(way):
    with pytest.raises(TransactionAborted) as caught, transaction():
        add("a")
        way.cuts = lambda name, data: b"INSERT" in data
        with suppress(ConnectionLost):
            add("b")
    assert (caught.value.outcome, stored(way)) == ("not applied", [])


def test_a_lost_connection_that_is_swallowed_in_a_savepoint_is_told_too(way):
    with pytest.raises(OrmCoreError) as caught, transaction():
        add("a")
        way.cuts = lambda name, data: b"INSERT" in data
        with transaction(), suppress(ConnectionLost):
            add("b")
    assert (caught.value.outcome, stored(way)) == ("not applied", [])


# The number of a transaction


def payload(email: str) -> Any:
    return {"email": email, "first_name": "A", "provider_account_id": email}


def test_services_make_a_transaction_whose_number_costs_no_round_trip(unasked, way):
    UsersService.create(payload("a"))
    sent: list[bytes] = []
    with transaction():
        user = UsersService.create(payload("b"))  # the connection learns which server this is
    way.cuts = lambda name, data: name == "client" and sent.append(data) is not None
    with transaction() as tx:
        UsersService.update(user.id, {"first_name": "B"})
        UsersService.create(payload("c"))
        number = tx.number
    assert [data[:1] for data in sent] == [b"Q"] * 3  # BEGIN;UPDATE, INSERT, COMMIT
    assert db.execute_sql("SELECT pg_xact_status(%s::xid8)", (number,)).fetchone() == ("committed",)
    assert stored(way) == ["a", "b", "c"]


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize(
    ("cuts", "outcome"),
    [(before_commit_arrives, "not applied"), (before_commit_is_answered, "applied")],
)
def test_the_number_that_came_with_a_row_finds_out_what_became_of_it(
    clone_db, orm_core_server, cuts, outcome, prepare
):
    with way_to(orm_core_server, clone_db.database) as (way, url):
        initialize_db(url, prepare=prepare)
        user = UsersService.create(payload("a"))
        for n in range(3):
            with transaction():
                UsersService.update(user.id, {"first_name": str(n)})
        with pytest.raises(CommitUnknown) as caught, transaction() as tx:
            UsersService.update(user.id, {"first_name": "last"})
            assert tx.number is not None
            once(way, cuts)
        assert caught.value.find_out() == outcome
        way.cuts = None
        assert (UsersService.get(user.id).first_name == "last") == (outcome == "applied")
        db.close_all()


def test_a_row_that_is_not_there_leaves_the_number_to_be_asked_for(way):
    with pytest.raises(CommitUnknown) as caught, transaction() as tx:
        assert UsersService.update(uuid4(), {"first_name": "B"}) is None
        assert tx.number is None
        add("a")
        once(way, before_commit_is_answered)
    assert caught.value.find_out() == "applied"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_next_transaction_of_a_block_has_a_number_of_its_own(way, end):
    with transaction() as tx:
        UsersService.create(payload("a"))
        first = tx.number
        getattr(tx, end)()
        assert tx.number is None
        UsersService.create(payload("b"))
        assert tx.number not in (None, first)


def test_those_who_listen_are_told_the_statement_without_the_number(way):
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "query_hooks", [lambda event: told.append(event.sql)])
        UsersService.create(payload("a"))
        with transaction(track=False):
            UsersService.create(payload("b"))
        with transaction() as tx:
            UsersService.create(payload("c"))
            assert tx.number is not None
    assert len({sql for sql in told if sql.startswith("INSERT")}) == 1
