"""Cuts at each step of a transaction: all of it or nothing, and the caller is told which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from concurrency import until
from fault_proxy import Do, FaultProxy, Rule, Step
from ledger import (
    APPLIED,
    NOT_APPLIED,
    UNKNOWN,
    agrees,
    new_token,
    outcome_of,
    transfer,
)

from orm_core import CommitUnknown, ConnectionLost, connect_db, db


def cut_at(number: int, sender: str, do: Do) -> Rule:
    """A rule for the message of that number (from 0) of one side, over all connections."""
    seen = 0

    def rule(step: Step) -> Do:
        nonlocal seen
        if step.sender != sender:
            return Do.PASS
        seen += 1
        return do if seen == number + 1 else Do.PASS

    return rule


def is_commit(step: Step) -> bool:
    return step.sender == "client" and step.kind == "Q" and step.body.startswith(b"COMMIT")


def is_committed(step: Step) -> bool:
    return step.sender == "server" and step.kind == "C" and step.body.startswith(b"COMMIT")


def when(condition: Callable[[Step], bool], do: Do) -> Rule:
    return lambda step: do if condition(step) else Do.PASS


def steps_of(proxy: FaultProxy, call: Callable[[], Any]) -> list[Step]:
    """What passes while the call runs."""
    seen: list[Step] = []

    def rule(step: Step) -> Do:
        seen.append(step)
        return Do.PASS

    proxy.rule = rule
    call()
    proxy.rule = None
    return seen


@pytest.mark.parametrize("do", [Do.CUT, Do.PASS_AND_CUT])
@pytest.mark.parametrize("sender", ["client", "server"])
def test_a_cut_at_any_message_of_a_transfer_leaves_both_rows_or_none(
    point, proxy, truth, sender, do
):
    point(proxy)
    connect_db()
    messages = steps_of(proxy, lambda: transfer(new_token()))
    count = sum(step.sender == sender for step in messages)
    assert count >= 3
    found = []
    for number in range(count):
        connect_db()
        token = new_token()
        proxy.rule = cut_at(number, sender, do)
        found.append((outcome_of(token), truth.halves(token)))
        proxy.rule = None
    assert all(agrees(*one) for one in found), found
    assert {outcome for outcome, _ in found} <= {APPLIED, NOT_APPLIED, UNKNOWN}
    assert db.pool_stats().in_use == 0


@pytest.mark.parametrize("do", [Do.CUT, Do.PASS_AND_CUT])
def test_a_cut_while_the_connection_is_made_leaves_nothing(point, proxy, truth, do):
    point(proxy)
    handshake = steps_of(proxy, connect_db)
    for number in range(len([step for step in handshake if step.sender == "server"]) - 3):
        db.close_all()
        token = new_token()
        proxy.rule = cut_at(number, "server", do)
        assert (outcome_of(token), truth.halves(token)) == (NOT_APPLIED, (0, 0))
        proxy.rule = None
    assert db.pool_stats().in_use == 0


def test_a_commit_that_never_arrives_is_unknown_and_nothing_is_there(point, proxy, truth):
    point(proxy)
    token = new_token()
    proxy.rule = when(is_commit, Do.CUT)
    with pytest.raises(CommitUnknown):
        transfer(token)
    assert truth.halves(token) == (0, 0)


def test_a_commit_whose_answer_is_lost_is_unknown_and_everything_is_there(point, proxy, truth):
    point(proxy)
    token = new_token()
    proxy.rule = when(is_committed, Do.CUT)
    with pytest.raises(CommitUnknown):
        transfer(token)
    assert truth.halves(token) == (1, 1)


def test_a_cut_before_commit_is_not_applied(point, proxy, truth):
    point(proxy)
    token = new_token()
    with pytest.raises(ConnectionLost):
        transfer(token, between=proxy.cut)
    assert truth.halves(token) == (0, 0)


def test_the_thread_goes_on_after_each_kind_of_cut(point, proxy, truth):
    point(proxy, pool_size=1)
    for rule in (when(is_commit, Do.CUT), when(is_committed, Do.CUT)):
        proxy.rule = rule
        assert outcome_of(new_token()) == UNKNOWN
        proxy.rule = None
        token = new_token()
        assert (outcome_of(token), truth.halves(token)) == (APPLIED, (1, 1))
    until(lambda: truth.sessions() == 1, "the sessions that were cut are gone")
