"""Data keys: what one seals opens with it, in its place, and nothing that was touched does."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orm_core import InvalidValue, SecretUnreadable
from orm_core.crypto.data_key import DataKey, is_owned
from orm_core.crypto.ring import Sealed

HERE = ("stays", "door_code", "0190c6f0-0000-7000-8000-000000000001")
KEY = DataKey(bytes(range(32)))


@given(text=st.text())
def test_what_is_sealed_opens_in_its_place_only(text):
    if any("\ud800" <= one <= "\udfff" for one in text):
        with pytest.raises(InvalidValue):
            KEY.seal(text, HERE)
        return
    sealed = KEY.seal(text, HERE)
    assert is_owned(sealed.iv)
    assert KEY.open_sealed(sealed, HERE) == text
    for place in ((*HERE[:2], "2"), ("stays", "pin", HERE[2]), ("rooms", *HERE[1:])):
        with pytest.raises(SecretUnreadable):
            KEY.open_sealed(sealed, place)
    with pytest.raises(SecretUnreadable):
        DataKey.from_text(DataKey.generate().reveal()).open_sealed(sealed, HERE)


def test_a_surrogate_is_refused_without_showing_it():
    with pytest.raises(InvalidValue, match="surrogates"):
        KEY.seal("canary\ud800", HERE)


def test_each_flipped_bit_and_each_other_spelling_is_refused():
    sealed = KEY.seal("token", HERE)
    tried = 0
    for part, text in enumerate(sealed):
        digits = text.partition(".")[0]
        for place, digit in enumerate(digits):
            for bit in range(4):
                flipped = f"{int(digit, 16) ^ 1 << bit:x}"
                changed = text[:place] + flipped + text[place + 1 :]
                with pytest.raises(SecretUnreadable):
                    KEY.open_sealed(Sealed(*sealed[:part], changed, *sealed[part + 1 :]), HERE)
                tried += 1
        for spelling in (text.upper(), f" {text}", f"{text} ", text[:-1], f"{text}0", ""):
            if spelling != text:
                with pytest.raises(SecretUnreadable):
                    KEY.open_sealed(Sealed(*sealed[:part], spelling, *sealed[part + 1 :]), HERE)
    assert tried == 8 * (5 + 12 + 16)


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "00" * 31, "00" * 33])
def test_a_text_that_is_no_key_is_refused_without_showing_it(text):
    with pytest.raises(SecretUnreadable, match="it is none"):
        DataKey.from_text(text)


def test_a_data_key_can_not_be_copied_or_pickled():
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="DataKey"):
            take(KEY)
    assert DataKey.generate() != DataKey.generate()
