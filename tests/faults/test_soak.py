"""Everything at once, for a minute: nothing lost, doubled, there unasked or mixed up.

``ORM_CORE_TEST_SOAK`` is how many seconds it takes; ``tox -e soak`` gives it ten minutes.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import Counter

import pytest
from concurrency import threads, until
from gremlin import Gremlin
from ledger import APPLIED, NOT_APPLIED, UNKNOWN, new_token, outcome_of, state, transfer

from orm_core import CommitUnknown, OrmCoreError, close_db, db, time_limit

logger = logging.getLogger(__name__)

SECONDS = float(os.environ.get("ORM_CORE_TEST_SOAK", "60"))
WRITERS = 8
#: seconds a caller gives a transfer
LIMIT = 1.0


@pytest.mark.slow
def test_in_a_long_bad_day_each_write_is_what_its_caller_was_told(point, server, proxy, truth):
    seed = random.randrange(1 << 32)
    point(proxy, pool_size=5, pool_timeout=LIMIT)
    truth.forget()
    gremlin = Gremlin(server, proxy, seed)
    ends_at = time.monotonic() + SECONDS
    told: list[tuple[str, str]] = []
    unknown: list[tuple[str, CommitUnknown]] = []
    foreign: list[str] = []

    def work() -> None:
        while time.monotonic() < ends_at:
            token = new_token()
            try:
                with time_limit(LIMIT):
                    (answer,) = db.execute_sql("SELECT %s", (token,)).fetchone()
            except OrmCoreError:
                pass
            else:
                if answer != token:
                    foreign.append(answer)
            try:
                with time_limit(LIMIT):
                    transfer(token)
            except CommitUnknown as error:
                told.append((token, UNKNOWN))
                unknown.append((token, error))
            except OrmCoreError:
                told.append((token, NOT_APPLIED))
            else:
                told.append((token, APPLIED))
            time.sleep(0.002)  # or the faults get no processor

    with threads(gremlin):
        with threads(*[work] * WRITERS) as results:
            threading.Event().wait(SECONDS)
        gremlin.stop()
    proxy.heal()
    assert results == [None] * WRITERS
    assert foreign == []
    assert truth.lies(told) == [], f"seed {seed}"
    assert truth.strangers(told) == set(), f"seed {seed}"
    found_out = [(token, error.find_out()) for token, error in unknown]
    assert truth.lies(found_out) == [], f"seed {seed}"
    resolved = sum(outcome != UNKNOWN for _, outcome in found_out)  # not all, after a crash
    counts = Counter(outcome for _, outcome in told)
    faults = dict(gremlin.faults)
    logger.info("told: %s, of these found out: %d; faults: %s", dict(counts), resolved, faults)
    assert counts[APPLIED] > SECONDS
    assert counts[NOT_APPLIED] > SECONDS / 10
    assert gremlin.faults.total() > SECONDS / 6
    assert outcome_of(new_token()) == APPLIED
    size, in_use, _, waiting = state()
    assert (size, in_use, waiting) == (5, 0, 0)
    close_db()
    until(lambda: truth.sessions() == 0, "no session is left over")
