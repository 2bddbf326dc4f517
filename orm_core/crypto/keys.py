"""What all sets of keys share: the form they are written in, and what is refused."""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final, NoReturn, Self

from orm_core.errors import KeyRingError

KEY_BYTES: Final = 32
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,7}")
_BETWEEN_ENTRIES: Final = re.compile(r"\s*,\s*|\s*\n\s*")
#: 32 random bytes have fewer different ones in 3 of 10^17 keys
_FEWEST_BYTES: Final = 16


class Keys:
    """Keys by id, in order: the first writes, all read."""

    #: what the errors call it
    _noun = "key ring"

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        self._keys: dict[str, bytes] = {}
        for number, (key_id, key) in enumerate(keys, start=1):
            self._check_entry(number, key_id, key)
            self._keys[key_id] = key
        if not self._keys:
            raise KeyRingError(f"The {self._noun} is empty; it needs one key at least.")
        #: the id of the key that writes
        self.first_id: str = next(iter(self._keys))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``id:hex,id:hex``; entries may stand on lines of their own, in white space."""
        return cls(cls._entries(text))

    @classmethod
    def _entries(cls, text: str) -> Iterator[tuple[str, bytes]]:
        entries = _BETWEEN_ENTRIES.split(text.strip().strip(","))
        for number, entry in enumerate(entries, start=1):
            key_id, colon, digits = entry.strip().partition(":")
            try:
                key = bytes.fromhex(digits.strip()) if colon else b""
            except ValueError:
                key = b""
            if len(key) != KEY_BYTES:
                raise KeyRingError(
                    f"Entry {number} of the {cls._noun} is malformed: write id:key, the key as "
                    f"{2 * KEY_BYTES} hex digits ({KEY_BYTES * 8} bits)."
                )
            yield key_id.strip(), key

    @staticmethod
    def generate(key_id: str = "k1") -> str:
        """A new random entry for ``ORM_CORE_TOKEN_KEYS``. Keep it secret."""
        if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
            raise KeyRingError("The id of a key must be 1 to 7 letters, digits, - or _.")
        return f"{key_id}:{os.urandom(KEY_BYTES).hex()}"

    def _check_entry(self, number: int, key_id: Any, key: Any) -> None:
        entry = f"entry {number} of the {self._noun}"
        if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
            raise KeyRingError(f"The id of {entry} must be 1 to 7 letters, digits, - or _.")
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise KeyRingError(f"The key of {entry} must be {KEY_BYTES} bytes.")
        if _is_weak(key):
            raise KeyRingError(f"The key of {entry} is weak: generate one.")
        if key_id in self._keys:
            raise KeyRingError(f"E{entry[1:]} repeats an earlier key id.")
        if key in self._keys.values():
            raise KeyRingError(f"E{entry[1:]} repeats an earlier key.")

    def refuse_keys_of(self, other: Keys) -> None:
        """Raise ``KeyRingError`` for a key that the other one has too."""
        for number, key in enumerate(self._keys.values(), start=1):
            if key in other._keys.values():
                raise KeyRingError(
                    f"Entry {number} of the {self._noun} is a key of the {other._noun} too: "
                    "generate one, each purpose has its own."
                )

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._keys

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._keys)}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"A {type(self).__name__} can't be pickled or copied.")


def key_of(part: str) -> str | None:
    """The id of the key that a stored iv or digest names; None for a legacy one."""
    return part.partition(".")[2] or None


def _is_weak(key: bytes) -> bool:
    steps = {(after - before) % 256 for before, after in pairwise(key)}
    is_text = all(0x20 <= byte < 0x7F for byte in key)
    return len(set(key)) < _FEWEST_BYTES or len(steps) == 1 or is_text
