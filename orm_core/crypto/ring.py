"""AES-256-GCM for single values: a key ring, ``seal`` and ``open_sealed``.

Knows nothing of models: the caller says, in ``context``, where the value lives, and the value
opens nowhere else. NIST SP 800-38D: 96-bit random iv, 128-bit tag, at most 2^32 values per key.

Values of the earlier Node system (``aes-256-gcm``; bare hex, 12- or 16-byte iv, no additional
data) are read with each key in turn, unless the ring is told not to.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from orm_core.crypto.keys import Keys
from orm_core.crypto.secret import encode
from orm_core.errors import InvalidValue, KeyRingError, SecretUnreadable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

IV_BYTES: Final = 12
TAG_BYTES: Final = 16
TAG_DIGITS: Final = 2 * TAG_BYTES
#: values that one key may seal with random ivs (NIST SP 800-38D, section 8.3)
MOST_SEALS: Final = 2**32
#: when a warning is logged
MANY_SEALS: Final = 2**31
_VERSION: Final = "orm_core:1"
# Lower case only, so that no second spelling of the same bytes is accepted.
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
_IV: Final = re.compile(r"([0-9a-f]{24})\.([A-Za-z0-9_-]{1,7})")
_LEGACY_IV: Final = re.compile(r"[0-9a-f]{24}|[0-9a-f]{32}")

logger: logging.Logger = logging.getLogger("orm_core.crypto")


class Sealed(NamedTuple):
    """What is stored of a secret: hex of the ciphertext, the iv with the key's id, hex of the tag."""

    value: str
    iv: str
    tag: str


class KeyRing(Keys):
    """Keys by id, in order: the first seals, all open.

    ``KeyRing.parse("k2:<64 hex digits>,k1:<64 hex digits>")`` reads the form of
    ``ORM_CORE_TOKEN_KEYS``. Key ids are 1 to 7 letters, digits, ``-`` or ``_``. Raises
    ``KeyRingError``, which names an entry by its number, for anything malformed, repeated or
    plainly weak (few different bytes, a sequence, a text). ``allow_legacy=False`` no longer opens
    values of the earlier Node system.
    """

    def __init__(self, keys: Iterable[tuple[str, bytes]], *, allow_legacy: bool = True) -> None:
        super().__init__(keys)
        self.allow_legacy = allow_legacy
        self._ciphers: dict[str, AESGCM] = {}

    @classmethod
    def parse(cls, text: str, *, allow_legacy: bool = True) -> Self:
        """Read ``id:hex,id:hex``; entries may stand on lines of their own, in white space."""
        return cls(cls._entries(text), allow_legacy=allow_legacy)

    @property
    def sealing_id(self) -> str:
        """The id of the key that seals new values."""
        return self.first_id

    def seal(self, text: str, context: Iterable[str]) -> Sealed:
        """Encrypt ``text`` with the first key, bound to ``context`` (table, column, row id).

        Raises ``KeyRingError`` when this process has sealed 2^32 values with the key.
        """
        plain = encode(text)
        if plain is None:
            raise InvalidValue(
                "A text with lone surrogates, which UTF-8 can't carry, can't be sealed."
            )
        return Sealed(*self.encrypt(plain, context))

    def encrypt(self, plain: bytes, context: Iterable[str]) -> tuple[str, str, str]:
        """The parts of what ``seal`` answers for the text of these bytes."""
        key_id = self.first_id
        iv = os.urandom(IV_BYTES)
        _count_seal(key_id)
        cipher = self._ciphers.get(key_id) or self._cipher(key_id)
        digits = cipher.encrypt(iv, plain, _additional_data(key_id, context)).hex()
        return digits[:-TAG_DIGITS], f"{iv.hex()}.{key_id}", digits[-TAG_DIGITS:]

    def open_sealed(self, sealed: Sealed, context: Iterable[str]) -> str:
        """Decrypt; raises ``SecretUnreadable``, the same for every cause."""
        value, iv, tag = sealed
        if _HEX.fullmatch(value) and _HEX.fullmatch(tag) and len(tag) == TAG_DIGITS:
            text = self._open(bytes.fromhex(value + tag), iv, tuple(context))
            if text is not None:
                return text
        raise SecretUnreadable(
            "The encrypted value can't be opened: it was altered, or moved here from another "
            "row or column, or its key is not in ORM_CORE_TOKEN_KEYS."
        )

    def _open(self, data: bytes, iv: str, context: tuple[str, ...]) -> str | None:
        current = _IV.fullmatch(iv)
        if current:
            nonce, key_id = bytes.fromhex(current[1]), current[2]
            aad = _additional_data(key_id, context)
            return self._try(key_id, nonce, data, aad) if key_id in self._keys else None
        if self.allow_legacy and _LEGACY_IV.fullmatch(iv):
            nonce = bytes.fromhex(iv)
            for key_id in self._keys:
                text = self._try(key_id, nonce, data, None)
                if text is not None:
                    return text
        return None

    def _try(self, key_id: str, nonce: bytes, data: bytes, aad: bytes | None) -> str | None:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher(key_id).decrypt(nonce, data, aad).decode()
        except (InvalidTag, UnicodeDecodeError):
            return None

    def _cipher(self, key_id: str) -> AESGCM:
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            cipher = self._ciphers[key_id] = AESGCM(self._keys[key_id])
        return cipher


def _additional_data(key_id: str, context: Iterable[str]) -> bytes:
    # NUL separates: it can stand in no key id, identifier or UUID.
    parts = "\0".join(context)
    return f"{_VERSION}\0{key_id}\0{parts}".encode()


# By key id, for the life of the process: a ring that is read anew goes on counting. Taking the
# next number is one step of the interpreter, so no lock can be left held by a fork.
_seals: dict[str, count[int]] = {}
os.register_at_fork(after_in_child=_seals.clear)  # the parent counts its own


def seals() -> dict[str, int]:
    """How many values this process has sealed, by key id."""
    return {key_id: _number(numbers) - 1 for key_id, numbers in list(_seals.items())}


def _number(numbers: count[int]) -> int:
    """The number that comes next: repr is the one way to read it without taking it."""
    return int(repr(numbers).removeprefix("count(").removesuffix(")"))


def _count_seal(key_id: str) -> None:
    numbers = _seals.get(key_id) or _seals.setdefault(key_id, count(1))
    number = next(numbers)
    if number < MANY_SEALS:
        return
    if number == MANY_SEALS:
        logger.warning(
            "The key %s has sealed 2^31 values in this process; it is refused after 2^32. Put a "
            "new key first and run: orm-core keys rotate.",
            key_id,
        )
    if number > MOST_SEALS:
        raise KeyRingError(
            f"The key {key_id} has sealed 2^32 values, the most that are safe with random ivs "
            "(NIST SP 800-38D): put a new key first and run: orm-core keys rotate."
        )
