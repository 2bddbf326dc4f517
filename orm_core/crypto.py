"""AES-256-GCM for single values: a key ring, ``seal`` and ``open_sealed``.

Knows nothing of models: the caller says, in ``context``, where the value lives, and the value
opens nowhere else. NIST SP 800-38D: 96-bit random iv, 128-bit tag, at most 2^32 values per key.

Values of the earlier Node system (``aes-256-gcm``; bare hex, 12- or 16-byte iv, no additional
data) are read with each key in turn.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, NoReturn

from orm_core.errors import InvalidValue, KeyRingError, SecretUnreadable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
IV_BYTES: Final = 12
TAG_BYTES: Final = 16
_VERSION: Final = b"orm_core:1"
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,7}")
# Lower case only, so that no second spelling of the same bytes is accepted.
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_IV = re.compile(r"([0-9a-f]{24})\.([A-Za-z0-9_-]{1,7})")
_LEGACY_IV = re.compile(r"[0-9a-f]{24}|[0-9a-f]{32}")


class Secret:
    """A text that shows itself only when asked: ``Secret("...").reveal()``.

    Its repr and str are masked; it can't be pickled, written as JSON, hashed or formatted.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError("A Secret holds a str.")
        self._text = text

    def reveal(self) -> str:
        """The text. Raises ``SecretUnreadable`` when it was stored and can't be opened."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('********')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        import hmac

        if not isinstance(other, Secret):
            return NotImplemented
        one, two = (text.reveal().encode("utf-8", "surrogatepass") for text in (self, other))
        return hmac.compare_digest(one, two)

    __hash__: ClassVar[None] = None  # type: ignore[assignment] # pyright: ignore[reportIncompatibleMethodOverride]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A Secret can't be pickled or copied; store it in an encrypted column.")

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce_ex__(2)


class Sealed(NamedTuple):
    """What is stored of a secret: hex of the ciphertext, the iv with the key's id, hex of the tag."""

    value: str
    iv: str
    tag: str


class KeyRing:
    """Keys by id, in order: the first seals, all open.

    ``KeyRing.parse("k2:<64 hex digits>,k1:<64 hex digits>")`` reads the form of
    ``ORM_CORE_TOKEN_KEYS``. Key ids are 1 to 7 letters, digits, ``-`` or ``_``. Raises
    ``KeyRingError``, which names an entry by its number, for anything malformed, repeated or
    plainly weak (all bytes alike).
    """

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        self._keys: dict[str, bytes] = {}
        self._ciphers: dict[str, AESGCM] = {}
        for number, (key_id, key) in enumerate(keys, start=1):
            _check_entry(number, key_id, key)
            if key_id in self._keys:
                raise KeyRingError(f"Entry {number} of the key ring repeats an earlier key id.")
            if key in self._keys.values():
                raise KeyRingError(f"Entry {number} of the key ring repeats an earlier key.")
            self._keys[key_id] = key
        if not self._keys:
            raise KeyRingError("The key ring is empty; it needs one key at least.")

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read ``id:hex,id:hex``; white space around entries does not matter."""
        return cls(
            _parse_entry(number, entry.strip())
            for number, entry in enumerate(text.strip().strip(",").split(","), start=1)
        )

    @staticmethod
    def generate(key_id: str = "k1") -> str:
        """A new random entry for ``ORM_CORE_TOKEN_KEYS``. Keep it secret."""
        return f"{key_id}:{os.urandom(KEY_BYTES).hex()}"

    @property
    def sealing_id(self) -> str:
        """The id of the key that seals new values."""
        return next(iter(self._keys))

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._keys

    def __repr__(self) -> str:
        return f"<KeyRing {', '.join(self._keys)}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A KeyRing can't be pickled or copied.")

    def seal(self, text: str, context: Iterable[str]) -> Sealed:
        """Encrypt ``text`` with the first key, bound to ``context`` (table, column, row id)."""
        key_id = self.sealing_id
        iv = os.urandom(IV_BYTES)
        plain = encode(text)
        if plain is None:
            raise InvalidValue(
                "A text with lone surrogates, which UTF-8 can't carry, can't be sealed."
            )
        data = self._cipher(key_id).encrypt(iv, plain, _additional_data(key_id, context))
        return Sealed(data[:-TAG_BYTES].hex(), f"{iv.hex()}.{key_id}", data[-TAG_BYTES:].hex())

    def open_sealed(self, sealed: Sealed, context: Iterable[str]) -> str:
        """Decrypt; raises ``SecretUnreadable``, the same for every cause."""
        value, iv, tag = sealed
        if _HEX.fullmatch(value) and _HEX.fullmatch(tag) and len(tag) == 2 * TAG_BYTES:
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
        if _LEGACY_IV.fullmatch(iv):
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


def encode(text: str) -> bytes | None:
    """The text in UTF-8, or None: the codec's own error would carry the text."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def _additional_data(key_id: str, context: Iterable[str]) -> bytes:
    # NUL separates: it can stand in no key id, identifier or UUID.
    return b"\0".join([_VERSION, key_id.encode(), *(part.encode() for part in context)])


def _parse_entry(number: int, entry: str) -> tuple[str, bytes]:
    key_id, colon, digits = entry.partition(":")
    try:
        key = bytes.fromhex(digits.strip()) if colon else b""
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyRingError(
            f"Entry {number} of the key ring is malformed: write id:key, the key as "
            f"{2 * KEY_BYTES} hex digits ({KEY_BYTES * 8} bits)."
        )
    return key_id.strip(), key


def _check_entry(number: int, key_id: Any, key: Any) -> None:
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise KeyRingError(
            f"The id of entry {number} of the key ring must be 1 to 7 letters, digits, - or _."
        )
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise KeyRingError(f"The key of entry {number} of the key ring must be {KEY_BYTES} bytes.")
    if len(set(key)) == 1:
        raise KeyRingError(f"The key of entry {number} of the key ring is weak: generate one.")
