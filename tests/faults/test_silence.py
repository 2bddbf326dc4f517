"""A server or a network that says nothing: each call ends in time, and nothing stale is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from concurrency import DEADLINE, threads, until
from fault_proxy import SENDERS
from ledger import (
    APPLIED,
    NOT_APPLIED,
    UNKNOWN,
    agrees,
    new_token,
    outcome_of,
    state,
    transfer,
)

from orm_core import (
    ConnectionLost,
    ConnectTimeout,
    OrmCoreError,
    PoolTimeout,
    StatementTimeout,
    connect_db,
    db,
    time_limit,
)

LIMIT = 0.3
BLACK_HOLES = {"both ways": SENDERS, "what we say": ("client",), "what it says": ("server",)}


def one_of_ours(call: Callable[[], Any], limit: float = LIMIT) -> OrmCoreError:
    """The error that a call inside a time limit ends with, by itself."""
    with pytest.raises(OrmCoreError) as caught, time_limit(limit):
        call()
    return caught.value


def ask() -> Any:
    return db.execute_sql("SELECT 'mine'").fetchone()


@pytest.mark.parametrize("senders", BLACK_HOLES.values(), ids=BLACK_HOLES)
def test_a_call_in_a_black_hole_ends_in_time_and_its_connection_is_not_used_again(
    point, proxy, senders
):
    point(proxy, pool_size=1)
    connect_db()
    proxy.freeze(*senders)
    error = one_of_ours(ask)
    assert isinstance(error, ConnectionLost | StatementTimeout), error
    assert db.pool_stats().in_use == 0
    proxy.heal()
    for _ in range(3):
        assert ask() == ("mine",)
    assert state() == (1, 0, 1, 0)


@pytest.mark.parametrize("senders", BLACK_HOLES.values(), ids=BLACK_HOLES)
def test_a_transfer_in_a_black_hole_is_told_truly(point, proxy, truth, senders):
    point(proxy)
    connect_db()
    token = new_token()
    with time_limit(LIMIT):
        told = outcome_of(token, between=lambda: proxy.freeze(*senders))
    proxy.heal()
    assert told in (NOT_APPLIED, UNKNOWN)
    assert agrees(told, truth.halves(token))


def test_a_frozen_server_keeps_no_caller_and_answers_nobody_wrongly(point, server, truth):
    point(pool_size=4)
    connect_db()
    server.freeze()
    tokens = [new_token() for _ in range(6)]

    def limited(token: str) -> Callable[[], str]:
        def call() -> str:
            with time_limit(1):
                return outcome_of(token)

        return call

    with threads(*map(limited, tokens)) as told:
        until(lambda: all(told), "all calls end while the server is frozen")
    server.thaw()
    assert set(told) <= {NOT_APPLIED, UNKNOWN}
    assert truth.lies(zip(tokens, told, strict=True)) == []
    token = new_token()
    assert (outcome_of(token), truth.halves(token)) == (APPLIED, (1, 1))
    assert db.pool_stats().in_use == 0


@pytest.mark.slow
def test_a_server_that_is_frozen_for_ten_seconds_goes_on_with_us(point, server, truth):
    point(pool_size=2)
    connect_db()
    server.freeze()
    asleep_until = time.monotonic() + 10
    while time.monotonic() < asleep_until:
        with time_limit(1), pytest.raises(OrmCoreError):
            transfer(new_token())
    server.thaw()
    token = new_token()
    assert (outcome_of(token), truth.halves(token)) == (APPLIED, (1, 1))
    until(lambda: truth.sessions() == db.pool_stats().idle, "the cut sessions are gone")


def test_a_connect_that_hangs_ends_in_time_and_delays_nobody_who_finds_a_connection(point, proxy):
    point(proxy, pool_size=3)
    connect_db()
    proxy.hang()
    db.connect()
    with threads(lambda: one_of_ours(ask, 3)) as found:
        until(lambda: db.pool_stats().in_use == 2, "it connects")
        db.close()
        assert [ask() for _ in range(20)] == [("mine",)] * 20
        assert found == [None]
    assert isinstance(found[0], ConnectTimeout), found
    proxy.heal()
    assert db.pool_stats().in_use == 0


def test_a_wait_for_a_connection_ends_with_the_limit_of_the_block(point):
    point(pool_size=1, pool_timeout=DEADLINE)
    with db.connection_context(), threads(lambda: one_of_ours(ask)) as found:
        pass
    assert isinstance(found[0], PoolTimeout)
    assert ask() == ("mine",)


def test_a_slow_network_is_no_fault(point, proxy, truth):
    point(proxy)
    proxy.delay = 0.05
    token = new_token()
    with time_limit(DEADLINE):
        transfer(token)
    assert truth.halves(token) == (1, 1)


def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_statement(point, proxy):
    point(proxy, pool_size=1)
    connect_db()
    proxy.freeze("server")
    one_of_ours(lambda: db.execute_sql("SELECT 'stale'").fetchone())
    proxy.thaw()  # what was held back is delivered
    assert [ask() for _ in range(3)] == [("mine",)] * 3
