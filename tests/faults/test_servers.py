"""The server dies, restarts, is full or was never there: nothing is lost, and the pool recovers."""

from __future__ import annotations

import signal
import threading

import pytest
from concurrency import DEADLINE, threads, until
from fault_proxy import Do
from ledger import (
    APPLIED,
    UNKNOWN,
    new_token,
    outcome_of,
    state,
    transfer,
)

from orm_core import (
    ConnectionFailed,
    ConnectionLost,
    OrmCoreError,
    ServerUnavailable,
    connect_db,
    db,
    transaction,
)

KILL = "kill -9"
#: the session that sleeps
ASKED = "SELECT 1 FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%%pg_sleep(60)'"
#: by the words of the manual, "Shutting Down the Server"
ENDINGS = {KILL: None, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def end(server, how: str) -> None:
    given = ENDINGS[how]
    server.kill() if given is None else server.stop(given)


@pytest.mark.parametrize("how", ENDINGS)
def test_a_server_that_ends_in_a_statement_is_told_and_the_next_one_works(
    point, server, truth, how
):
    point(pool_size=1)

    def ask() -> None:
        db.execute_sql("SELECT pg_sleep(60)")

    connect_db()
    with threads(ask) as found:
        until(lambda: truth.rows(ASKED), "it asks")
        end(server, how)
    assert isinstance(found[0], ConnectionLost)
    with pytest.raises(ConnectionFailed):
        connect_db()
    server.start()
    connect_db()
    assert state() == (1, 0, 1, 0)


@pytest.mark.parametrize("how", ENDINGS)
def test_a_server_that_ends_in_a_transaction_keeps_nothing_of_it(point, server, truth, how):
    point()
    token = new_token()
    with pytest.raises(ConnectionLost):
        transfer(token, between=lambda: end(server, how))
    server.start()
    assert truth.halves(token) == (0, 0)


@pytest.mark.parametrize(("how", "told"), [("fast", "applied"), ("immediate", "unknown")])
def test_after_a_crash_the_number_of_a_transaction_may_be_that_of_another(point, server, how, told):
    point()
    with transaction():
        transfer(new_token())
        kept = db.transaction_id()
    with transaction() as tx:
        transfer(new_token())
        dropped = db.transaction_id()
        tx.rollback()
    assert (db.outcome_of(kept), db.outcome_of(dropped)) == ("applied", "not applied")
    end(server, how)
    server.start()
    assert (db.outcome_of(kept), db.outcome_of(dropped)) == (told, "not applied")


@pytest.mark.parametrize("how", ENDINGS)
def test_a_server_that_ends_between_commit_and_its_answer_leaves_it_unknown(
    point, proxy, server, truth, how
):
    point(proxy)
    token = new_token()

    def rule(step) -> Do:
        if step.sender == "server" and step.kind == "C" and step.body.startswith(b"COMMIT"):
            end(server, how)
            return Do.CUT
        return Do.PASS

    proxy.rule = rule
    assert outcome_of(token) == UNKNOWN
    proxy.rule = None
    server.start()
    assert truth.halves(token) == (1, 1)


@pytest.mark.parametrize("how", ENDINGS)
def test_writers_in_a_restart_are_told_the_truth_and_go_on_by_themselves(point, server, truth, how):
    point(pool_size=4)
    told: list[tuple[str, str]] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            token = new_token()
            told.append((token, outcome_of(token)))

    def until_they_write() -> None:
        before = sum(outcome == APPLIED for _, outcome in told)
        until(lambda: sum(one == APPLIED for _, one in told) > before + 30, "they write")

    with threads(*[work] * 6):
        for _ in range(2):
            until_they_write()
            end(server, how)
            server.start()
        until_they_write()
        stop.set()
    assert truth.lies(told) == []
    stats = db.pool_stats()
    assert (stats.in_use, stats.waiting) == (0, 0)
    assert stats.idle <= 4


def test_idle_connections_that_a_restart_ended_fail_no_statement(point, server):
    point()
    with threads(connect_db, connect_db), db.connection_context():
        connect_db()
    server.stop()
    server.start()
    for _ in range(5):
        transfer(new_token())


def test_a_service_that_starts_five_seconds_before_the_server_waits_for_it(point, server):
    server.stop()
    point()
    with pytest.raises(ConnectionFailed):
        connect_db()
    timer = threading.Timer(5, server.start)
    timer.start()
    connect_db(retry_for=DEADLINE)
    timer.join()
    assert outcome_of(new_token()) == APPLIED


def test_a_proxy_whose_server_is_down_is_no_wrong_password_and_is_tried_again(point, proxy, server):
    server.stop()
    point(proxy)
    with pytest.raises(ServerUnavailable):
        connect_db()
    timer = threading.Timer(0.5, server.start)
    timer.start()
    connect_db(retry_for=DEADLINE)
    timer.join()


def test_a_role_with_three_connections_serves_more_threads(point, server, truth):
    server.server.run("ALTER ROLE app CONNECTION LIMIT 3")
    try:
        point(pool_size=10)
        told: list[tuple[str, OrmCoreError | None]] = []

        def work() -> None:
            for _ in range(10):
                token = new_token()
                try:
                    transfer(token)
                except OrmCoreError as error:
                    told.append((token, error))
                else:
                    told.append((token, None))

        with threads(*[work] * 12) as results:
            pass
        assert results == [None] * 12
        refused = {type(error) for _, error in told if error}
        assert refused <= {ServerUnavailable}, refused
        for token, error in told:
            assert truth.halves(token) == ((0, 0) if error else (1, 1))
        assert db.pool_stats().in_use == 0
        assert truth.sessions() <= 3
    finally:
        server.server.run("ALTER ROLE app CONNECTION LIMIT -1")
