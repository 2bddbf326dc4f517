"""UUIDs and moments as the texts that are sent."""

import uuid
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from orm_core.database.encoding import hyphenated, moment_text, uuid_text


@given(st.uuids())
@example(uuid.UUID(int=0))
@example(uuid.UUID(int=2**128 - 1))
def test_a_uuid_is_written_as_python_does(value):
    assert uuid_text(value) == str(value)
    assert hyphenated(value.hex) == str(value)


@given(st.datetimes(timezones=st.just(UTC)))
@example(datetime.min.replace(tzinfo=UTC))
@example(datetime.max.replace(tzinfo=UTC))
@example(datetime(2030, 1, 1, tzinfo=UTC))
def test_a_moment_is_written_to_the_microsecond(value):
    text = moment_text(value)
    assert text == f"{value.year:04}-{value:%m-%d %H:%M:%S.%f}+00"
    assert datetime.fromisoformat(text) == value
