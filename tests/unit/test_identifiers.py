"""Ids and times of new rows: version 7 UUIDs that sort by time, aware UTC moments."""

import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orm_core import utcnow, uuid7
from orm_core.models.identifiers import uuid7s

#: a time step that the 12 bits of the millisecond's fraction can tell apart
RESOLUTION = 245
LAST_48_BIT_MS = (1 << 48) - 1
moments = st.integers(min_value=0, max_value=LAST_48_BIT_MS * 1_000_000)


def at(nanoseconds: int) -> uuid.UUID:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: nanoseconds)
        return uuid7()


@given(moments)
def test_an_id_has_the_version_and_the_variant_of_rfc_9562(nanoseconds):
    number = at(nanoseconds).int
    assert number >> 76 & 0xF == 7
    assert number >> 62 & 0b11 == 0b10
    assert number >> 128 == 0


def test_python_takes_an_id_for_version_7():
    assert (uuid7().version, uuid7().variant) == (7, uuid.RFC_4122)


@given(moments)
def test_the_first_48_bits_are_unix_time_in_milliseconds(nanoseconds):
    assert at(nanoseconds).int >> 80 == nanoseconds // 1_000_000


@given(moments)
def test_the_next_12_bits_are_the_fraction_of_the_millisecond(nanoseconds):
    fraction = at(nanoseconds).int >> 64 & 0xFFF
    assert fraction == (nanoseconds % 1_000_000) * 4096 // 1_000_000


@given(moments, st.integers(min_value=RESOLUTION, max_value=10**15))
def test_a_later_id_sorts_after_an_earlier_one(nanoseconds, later):
    after = min(nanoseconds + later, LAST_48_BIT_MS * 1_000_000)
    if after - nanoseconds >= RESOLUTION:
        one, other = at(nanoseconds), at(after)
        assert one < other
        assert str(one) < str(other)
        assert one.bytes < other.bytes


def test_ids_of_one_moment_differ_in_their_random_bits():
    ids = {at(1_700_000_000_123_456_789) for _ in range(1000)}
    assert len(ids) == 1000
    assert len({one.int >> 64 for one in ids}) == 1


def test_the_clock_of_an_id_is_the_real_one():
    before = time.time_ns() // 1_000_000
    stamp = uuid7().int >> 80
    assert before <= stamp <= time.time_ns() // 1_000_000


def test_ids_of_many_threads_are_all_different():
    found: list[list[uuid.UUID]] = []

    def make() -> None:
        found.append([uuid7() for _ in range(2000)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for ids in found for one in ids}) == 16_000


def test_now_is_aware_and_in_utc():
    now = utcnow()
    assert now.tzinfo is UTC
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=1)


@given(st.integers(min_value=0, max_value=(LAST_48_BIT_MS - 10) * 1_000_000), st.integers(0, 9000))
def test_ids_made_together_count_up_in_4096ths_of_a_millisecond(nanoseconds, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: nanoseconds)
        ids = uuid7s(count)
    ticks = (nanoseconds << 12) // 1_000_000
    assert [(one.int >> 80 << 12) + (one.int >> 64 & 0xFFF) for one in ids] == [
        *range(ticks, ticks + count)
    ]
    assert {(one.version, one.variant) for one in ids} <= {(7, uuid.RFC_4122)}
    assert len({one.int & (1 << 62) - 1 for one in ids}) == count


def test_ids_made_together_sort_after_earlier_ones():
    before, ids = uuid7(), uuid7s(1000)
    assert [before, *ids] == sorted([before, *ids])
