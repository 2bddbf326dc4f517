"""What the server wrote is read as the standard library would read it."""

import copy
import json
import math
import pickle
import uuid
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orm_core.database import decoding
from orm_core.database.decoding import uuid_of, uuid_of_int


@given(st.uuids())
def test_a_uuid_is_one_of_the_standard_library(value):
    for made in (uuid_of(str(value)), uuid_of(value.hex), uuid_of_int(value.int)):
        assert type(made) is uuid.UUID
        assert made == value
        assert hash(made) == hash(value)
        assert (str(made), made.is_safe, made.version) == (str(value), value.is_safe, value.version)
        assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == value
        assert sorted([made, uuid.UUID(int=0)])[0] == uuid.UUID(int=0)


def test_a_uuid_can_not_be_changed():
    with pytest.raises(TypeError):
        uuid_of_int(1).int = 2


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other and (one != 0 or math.copysign(1, one) == math.copysign(1, other))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values.map(json.dumps))
@example("18446744073709551616")
@example("-9223372036854775809")
@example("1e999")
@example("-1e999")
@example('"\\ud800"')
@example('{"a": 1, "a": 2}')
@example("1.7976931348623157e308")
@example("123456789012345678")
@example("0.1000000000000000055511151231257827")
def test_json_is_read_as_the_standard_library_reads_it(text):
    assert same(decoding.read_json(text), json.loads(text))


def test_without_orjson_the_standard_library_reads_json(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "orjson", None)
    assert decoding._json_reader() is json.loads


@pytest.mark.parametrize("text", ["", "{", "nonsense"])
def test_what_is_no_json_is_an_error_of_json(text):
    with pytest.raises(json.JSONDecodeError):
        decoding.read_json(text)
