"""Where keys come from, what is refused, how often they may be used, and what digests show."""

import copy
import json
import logging
import os
import pickle
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orm_core import (
    ConfigurationError,
    IndexKeys,
    InvalidValue,
    KeyRing,
    KeyRingError,
    Secret,
    SecretJSON,
    SecretUnreadable,
    use_index_keys,
    use_key_ring,
)
from orm_core.crypto import ring
from orm_core.crypto.in_use import index_keys, key_ring
from orm_core.crypto.ring import MANY_SEALS, MOST_SEALS, Sealed, seals
from orm_core.metrics import text as metrics_text

HERE = ("sessions", "token", "row")
PLACE = HERE[:2]
KEY_1 = "8f1d2c3b4a59687766554433221100ffeeddccbbaa99887766554433221100aa"
KEY_2 = "00112233445566778899aabbccddeeff102132435465768798a9babbdcddfeff"
TOKENS = "ORM_CORE_TOKEN_KEYS"
INDEX = "ORM_CORE_INDEX_KEYS"
CANARY = "canary-ya29.a0AfH6"

texts = st.text(st.characters(exclude_categories=("Cs",)))


@pytest.fixture(autouse=True)
def settings_anew(monkeypatch, tmp_path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("ORM_CORE_") and name != "ORM_CORE_PG_BINDIR":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    use_key_ring(None)
    use_index_keys(None)
    yield
    use_key_ring(None)
    use_index_keys(None)


def key_file(text: str, mode: int = 0o600) -> Path:
    path = Path("keys")
    path.write_text(text)
    path.chmod(mode)
    return path.resolve()


def shown_by(error: BaseException | None) -> str:
    shown = ""
    while error is not None:
        shown += str(error) + repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return shown


# -- sources --------------------------------------------------------------------------------


@pytest.mark.parametrize("between", ["\n", ",", ",\n", "\n\n", " , "])
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_keys_are_read_from_a_private_file(monkeypatch, between, mode):
    path = key_file(f"k2:{KEY_2}{between}k1:{KEY_1}\n", mode)
    monkeypatch.setenv(f"{TOKENS}_FILE", str(path))
    assert list(key_ring()) == ["k2", "k1"]


def test_index_keys_are_read_from_a_private_file(monkeypatch):
    monkeypatch.setenv(TOKENS, f"k1:{KEY_1}")
    monkeypatch.setenv(f"{INDEX}_FILE", str(key_file(f"i1:{KEY_2}")))
    assert list(index_keys()) == ["i1"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o601, 0o700, 0o666, 0o4600])
def test_a_file_that_is_not_private_is_refused(monkeypatch, mode):
    monkeypatch.setenv(f"{TOKENS}_FILE", str(key_file(f"k1:{KEY_1}", mode)))
    with pytest.raises(KeyRingError, match=f"{TOKENS}_FILE .*chmod 600"):
        key_ring()


def test_a_file_of_another_user_is_refused(monkeypatch):
    monkeypatch.setenv(f"{TOKENS}_FILE", str(key_file(f"k1:{KEY_1}")))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(KeyRingError, match="belongs to another user"):
        key_ring()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_what_is_no_file_is_refused(monkeypatch, make):
    make("place")
    monkeypatch.setenv(f"{TOKENS}_FILE", "place")
    with pytest.raises(KeyRingError, match=f"{TOKENS}_FILE (can't be read|is no regular file)"):
        key_ring()


def test_a_missing_file_is_refused(monkeypatch):
    monkeypatch.setenv(f"{TOKENS}_FILE", "nowhere")
    with pytest.raises(KeyRingError, match=r"can't be read \(No such file"):
        key_ring()


def test_a_file_of_other_bytes_does_not_show_in_the_error(monkeypatch):
    path = key_file("")
    path.write_bytes(CANARY.encode() + b"\xff")
    monkeypatch.setenv(f"{TOKENS}_FILE", str(path))
    with pytest.raises(KeyRingError, match="not a text") as caught:
        key_ring()
    assert CANARY not in shown_by(caught.value)


def test_an_entry_of_a_file_is_refused_by_its_number(monkeypatch):
    monkeypatch.setenv(f"{TOKENS}_FILE", str(key_file(f"k1:{KEY_1}\nk2:{CANARY}\n")))
    with pytest.raises(KeyRingError, match="Entry 2 of the key ring is malformed") as caught:
        key_ring()
    assert CANARY not in shown_by(caught.value)


@pytest.mark.parametrize(("variable", "read"), [(TOKENS, key_ring), (INDEX, index_keys)])
def test_two_sources_are_one_too_many(monkeypatch, variable, read):
    monkeypatch.setenv(variable, f"k1:{KEY_1}")
    monkeypatch.setenv(f"{variable}_FILE", str(key_file(f"k1:{KEY_1}")))
    with pytest.raises(KeyRingError, match=f"Set {variable} or {variable}_FILE, not both"):
        read()


def test_without_index_keys_the_error_says_how_to_get_them():
    with pytest.raises(KeyRingError, match=r"ORM_CORE_INDEX_KEYS.*orm-core keys generate --index"):
        index_keys()


@pytest.mark.parametrize("answer", [f"k1:{KEY_1}", KeyRing.parse(f"k1:{KEY_1}")])
def test_a_function_is_asked_once_for_the_keys(answer):
    calls = []

    def unwrap() -> KeyRing | str:
        calls.append(1)
        return answer

    use_key_ring(unwrap)
    assert [list(key_ring()) for _ in range(3)] == [["k1"]] * 3
    assert calls == [1]


@pytest.mark.parametrize("answer", [None, 7, b"k1", IndexKeys.parse(f"i1:{KEY_1}")])
def test_a_function_that_answers_no_keys_is_refused(answer):
    with pytest.raises(KeyRingError):
        use_key_ring(lambda: answer)
    with pytest.raises(KeyRingError):
        key_ring()


@pytest.mark.parametrize("source", [7, b"k1", IndexKeys.parse(f"i1:{KEY_1}")])
def test_what_is_no_key_ring_is_refused(source):
    with pytest.raises(KeyRingError, match="Give a KeyRing, or a function"):
        use_key_ring(source)


def test_the_error_of_a_function_goes_on():
    def unwrap() -> str:
        raise ConnectionError("the KMS is away")

    with pytest.raises(ConnectionError, match="the KMS is away"):
        use_key_ring(unwrap)


def test_the_environment_can_end_the_time_of_legacy_values(monkeypatch):
    monkeypatch.setenv(TOKENS, f"k1:{KEY_1}")
    assert key_ring().allow_legacy
    use_key_ring(None)
    monkeypatch.setenv("ORM_CORE_ALLOW_LEGACY", "0")
    assert not key_ring().allow_legacy
    use_key_ring(lambda: f"k1:{KEY_1}")
    assert not key_ring().allow_legacy


def test_allow_legacy_is_a_bool():
    from orm_core import Settings

    with pytest.raises(ConfigurationError, match="ORM_CORE_ALLOW_LEGACY"):
        Settings(allow_legacy="no")  # type: ignore[arg-type]


# -- what is refused ------------------------------------------------------------------------

WEAK = {
    "one byte": "ab" * 32,
    "two bytes": "ab01" * 16,
    "fifteen bytes": bytes([*range(0, 140, 10), *[7] * 18]).hex(),
    "counting up": bytes(range(32)).hex(),
    "counting down": bytes(range(255, 223, -1)).hex(),
    "by threes": bytes(range(0, 96, 3)).hex(),
    "a text": b"correct horse battery staple !!1".hex(),
}


@pytest.mark.parametrize("kind", [KeyRing, IndexKeys])
@pytest.mark.parametrize("weak", WEAK)
def test_a_weak_key_is_refused_by_its_number(kind, weak):
    with pytest.raises(KeyRingError, match=r"The key of entry 2 of the .* is weak") as caught:
        kind.parse(f"a:{KEY_1},b:{WEAK[weak]}")
    assert WEAK[weak] not in shown_by(caught.value)


@given(st.binary(min_size=32, max_size=32).filter(lambda key: len(set(key)) > 20))
@example(os.urandom(32))
def test_a_random_key_is_taken(key):
    if not all(0x20 <= byte < 0x7F for byte in key) and key != bytes(sorted(key)):
        KeyRing([("k1", key)])


def test_index_keys_have_errors_of_their_own():
    with pytest.raises(KeyRingError, match="Entry 2 of the index keys repeats an earlier key"):
        IndexKeys.parse(f"a:{KEY_1},b:{KEY_1}")


def test_a_key_serves_one_purpose(monkeypatch):
    use_key_ring(KeyRing.parse(f"k1:{KEY_1}"))
    use_index_keys(IndexKeys.parse(f"i2:{KEY_2},i1:{KEY_1}"))
    with pytest.raises(KeyRingError, match="Entry 2 of the index keys is a key of the key ring"):
        index_keys()


@pytest.mark.parametrize("kind", [KeyRing, IndexKeys])
@pytest.mark.parametrize("key_id", ["", "12345678", "a b", "é", 7])
def test_a_key_is_not_generated_under_a_bad_id(kind, key_id):
    with pytest.raises(KeyRingError, match="1 to 7 letters"):
        kind.generate(key_id)


@pytest.mark.parametrize("use", [pickle.dumps, copy.copy, copy.deepcopy])
def test_index_keys_are_not_pickled_or_copied(use):
    with pytest.raises(TypeError, match="pickled or copied"):
        use(IndexKeys.parse(f"i1:{KEY_1}"))


# -- how often a key seals ------------------------------------------------------------------


def test_seals_are_counted_by_key_and_exported():
    name = os.urandom(3).hex()
    keys = KeyRing.parse(f"{name}:{KEY_1}")

    def seal() -> None:
        for _ in range(500):
            keys.seal("token", HERE)

    threads = [threading.Thread(target=seal) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seals()[name] == 2000
    assert f'db_encryptions_total{{key="{name}"}} 2000.0' in metrics_text()
    assert seals()[name] == 2000  # reading does not count


def test_a_ring_that_is_read_anew_goes_on_counting():
    name = os.urandom(3).hex()
    for _ in range(3):
        KeyRing.parse(f"{name}:{KEY_1}").seal("token", HERE)
    assert seals()[name] == 3


def test_a_forked_process_counts_its_own_seals():
    name = os.urandom(3).hex()
    keys = KeyRing.parse(f"{name}:{KEY_1}")
    keys.seal("token", HERE)
    child = os.fork()
    if not child:
        keys.seal("token", HERE)
        os._exit(seals()[name])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert seals()[name] == 1


def test_a_key_warns_at_2_to_the_31_and_is_refused_after_2_to_the_32(monkeypatch, caplog):
    name = os.urandom(3).hex()
    keys = KeyRing.parse(f"{name}:{KEY_1}")
    monkeypatch.setitem(ring._seals, name, count(MANY_SEALS - 1))
    keys.seal("token", HERE)
    assert caplog.records == []
    keys.seal("token", HERE)
    keys.seal("token", HERE)
    assert [(r.levelno, name in r.message) for r in caplog.records] == [(logging.WARNING, True)]
    monkeypatch.setitem(ring._seals, name, count(MOST_SEALS))
    sealed = keys.seal("token", HERE)
    for _ in range(2):
        with pytest.raises(KeyRingError, match=r"2\^32.*SP 800-38D.*orm-core keys rotate"):
            keys.seal("token", HERE)
    assert keys.open_sealed(sealed, HERE) == "token"
    KeyRing.parse(f"k2:{KEY_2},{name}:{KEY_1}").seal("token", HERE)


# -- blind indexes --------------------------------------------------------------------------


@given(texts)
def test_a_digest_is_of_fixed_size_and_says_nothing_but_its_key(text):
    digest = IndexKeys.parse(f"i1:{KEY_1}").digest(text, PLACE)
    value, _, key_id = digest.partition(".")
    assert (len(bytes.fromhex(value)), key_id) == (32, "i1")
    assert IndexKeys.parse(f"i1:{KEY_1}").digest(text, PLACE) == digest


def test_the_digest_stays_what_it_is():
    """Rows outlive releases: HMAC-SHA-256 of all of this, NUL between, the text last."""
    import hashlib
    import hmac

    message = b"orm_core:index:1\0i1\0sessions\0token\0" + "Grüße".encode()
    expected = hmac.new(bytes.fromhex(KEY_1), message, hashlib.sha256).hexdigest()
    assert IndexKeys.parse(f"i1:{KEY_1}").digest("Grüße", PLACE) == f"{expected}.i1"


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
@example(("a", "b", "c"), ("a", "bc", ""))
@example(("a", "b\0", "c"), ("a", "b", "\0c"))
def test_no_two_values_or_places_share_a_digest(one, other):
    keys = IndexKeys.parse(f"i1:{KEY_1}")
    names = [part for value in (one, other) for part in value[:2]]
    if not any("\0" in name for name in names):  # PostgreSQL's names hold no NUL
        same = keys.digest(one[2], one[:2]) == keys.digest(other[2], other[:2])
        assert same is (one == other)


def test_a_digest_depends_on_the_key_and_its_id():
    digests = {
        IndexKeys.parse(f"{key_id}:{key}").digest("token", PLACE).partition(".")[0]
        for key_id in ("i1", "i2")
        for key in (KEY_1, KEY_2)
    }
    assert len(digests) == 4


def test_all_keys_find_and_the_first_writes():
    keys = IndexKeys.parse(f"i2:{KEY_2},i1:{KEY_1}")
    assert keys.digests("token", PLACE) == [
        IndexKeys.parse(f"i2:{KEY_2}").digest("token", PLACE),
        IndexKeys.parse(f"i1:{KEY_1}").digest("token", PLACE),
    ]
    assert keys.digest("token", PLACE) == keys.digests("token", PLACE)[0]


def test_a_text_that_utf_8_cannot_carry_has_no_digest():
    with pytest.raises(InvalidValue) as caught:
        IndexKeys.parse(f"i1:{KEY_1}").digest(f"{CANARY}\ud800", PLACE)
    assert CANARY not in shown_by(caught.value)


# -- legacy ---------------------------------------------------------------------------------

LEGACY = Sealed(
    "3cbedfa71d0dd830a73d67b9bcf47ab42830c0b1e1",
    "d7b2d79224590179f063d95d",
    "11b010657b0aec2c384c19b4cfae7978",
)


def test_a_ring_can_be_told_to_open_no_legacy_values():
    assert KeyRing.parse(f"k1:{KEY_1}").open_sealed(LEGACY, HERE) == "ya29.a0AfH6SMBx-token"
    keys = KeyRing.parse(f"k1:{KEY_1}", allow_legacy=False)
    with pytest.raises(SecretUnreadable):
        keys.open_sealed(LEGACY, HERE)
    assert keys.open_sealed(keys.seal("ours", HERE), HERE) == "ours"


# -- SecretJSON -----------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@given(values)
def test_any_json_comes_back(value):
    assert SecretJSON(value).reveal() == value
    assert type(SecretJSON(value).reveal()) is type(value)


def test_each_reveal_is_a_fresh_copy():
    value = {"a": [1]}
    secret = SecretJSON(value)
    value["a"].append(2)
    secret.reveal()["a"].append(3)
    assert secret.reveal() == {"a": [1]}


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        {1: "a"},
        (1, 2),
        {"a": (1,)},
        {1, 2},
        b"x",
        object,
        {None: CANARY},
    ],
    ids=repr,
)
def test_what_json_would_change_is_refused_and_not_shown(value):
    with pytest.raises(InvalidValue, match="A SecretJSON holds JSON") as caught:
        SecretJSON(value)
    assert CANARY not in shown_by(caught.value)


def test_a_value_that_holds_itself_is_refused():
    value: list[object] = [CANARY]
    value.append(value)
    with pytest.raises(InvalidValue) as caught:
        SecretJSON(value)
    assert CANARY not in shown_by(caught.value)


def test_secrets_of_json_are_compared_by_value():
    assert SecretJSON({"a": 1, "b": 2}) == SecretJSON({"b": 2, "a": 1})
    assert SecretJSON({"a": 1}) != SecretJSON({"a": 2})
    assert SecretJSON("a") != Secret('"a"')
    assert Secret('"a"') != SecretJSON("a")


@pytest.mark.parametrize("show", [repr, str, format, "{!r:>30}".format, lambda s: f"{[s]}"])
def test_a_secret_of_json_does_not_show_itself(show):
    shown = show(SecretJSON({"pin": CANARY}))
    assert "********" in shown
    assert CANARY not in shown


@pytest.mark.parametrize("use", [pickle.dumps, copy.copy, copy.deepcopy, hash, json.dumps])
def test_a_secret_of_json_is_not_pickled_copied_hashed_or_written(use):
    with pytest.raises(TypeError):
        use(SecretJSON({"pin": CANARY}))
