"""Data keys: AES-256-GCM under a key that one owner has for itself.

A data key is stored wrapped, which is sealed with the key ring. Once that is destroyed, nothing
that was sealed with it can be opened, wherever copies of it are (envelope encryption: NIST SP
800-57 part 1, 5.3; cryptographic erase: NIST SP 800-88, 2.5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, NoReturn

from orm_core.crypto.keys import KEY_BYTES
from orm_core.crypto.ring import IV_BYTES, TAG_DIGITS, Sealed
from orm_core.crypto.secret import Secret, encode
from orm_core.errors import InvalidValue, SecretUnreadable

#: what an iv names in place of a key of the ring, whose ids have no @
OWNER: Final = "@owner"
_VERSION: Final = b"orm_core:owner:1"


def is_owned(iv: str) -> bool:
    """Whether an iv tells that its value was sealed with a data key."""
    return iv.endswith(f".{OWNER}")


class DataKey:
    """The key of one owner; seals and opens what is bound to a context, as ``KeyRing`` does."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)

    @staticmethod
    def generate() -> Secret:
        """A new random key, as the text that is wrapped."""
        return Secret(os.urandom(KEY_BYTES).hex())

    @classmethod
    def from_text(cls, text: str) -> DataKey:
        """The key of an unwrapped text."""
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise SecretUnreadable("The data key opens, but it is none.")
        return cls(key)

    def seal(self, text: str, context: Iterable[str]) -> Sealed:
        """Encrypt ``text``, bound to ``context`` (table, column, row id)."""
        plain = encode(text)
        if plain is None:
            raise InvalidValue("A text with lone surrogates can't be sealed.")
        return Sealed(*self.encrypt(plain, context))

    def encrypt(self, plain: bytes, context: Iterable[str]) -> tuple[str, str, str]:
        """The parts of what ``seal`` answers for the text of these bytes."""
        iv = os.urandom(IV_BYTES)
        digits = self._cipher.encrypt(iv, plain, _additional_data(context)).hex()
        return digits[:-TAG_DIGITS], f"{iv.hex()}.{OWNER}", digits[-TAG_DIGITS:]

    def open_sealed(self, sealed: Sealed, context: Iterable[str]) -> str:
        """Decrypt; raises ``SecretUnreadable``, the same for every cause."""
        from cryptography.exceptions import InvalidTag

        value, iv, tag = sealed
        try:
            nonce, data = bytes.fromhex(iv.removesuffix(f".{OWNER}")), bytes.fromhex(value + tag)
            # Lower case without white space only: no second spelling of the same bytes.
            if (nonce.hex(), data.hex(), len(tag)) == (
                iv.removesuffix(f".{OWNER}"),
                value + tag,
                TAG_DIGITS,
            ):
                return self._cipher.decrypt(nonce, data, _additional_data(context)).decode()
        except (InvalidTag, ValueError):
            pass  # not raised here: it would tell the cause
        raise SecretUnreadable(
            "The encrypted value can't be opened: it was altered, or moved here from another row, "
            "column or owner."
        )

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A DataKey can't be pickled or copied.")


def _additional_data(context: Iterable[str]) -> bytes:
    # NUL separates: it can stand in no identifier or UUID.
    return b"\0".join([_VERSION, *(part.encode() for part in context)])
