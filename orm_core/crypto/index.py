"""Blind indexes: HMAC-SHA-256 of a secret, by which it is found and kept unique.

A digest is bound to its table and column, and equal texts have equal digests there: whoever reads
the table learns which rows hold the same secret, and nothing else without the key.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from orm_core.crypto.keys import Keys
from orm_core.crypto.secret import encode
from orm_core.errors import InvalidValue

_VERSION: Final = b"orm_core:index:1"


class IndexKeys(Keys):
    """Keys of blind indexes, by id, in order: the first writes, all find.

    ``IndexKeys.parse("i1:<64 hex digits>")`` reads the form of ``ORM_CORE_INDEX_KEYS``; rules and
    errors are those of ``KeyRing``. No key may be one of the key ring.
    """

    _noun = "index keys"

    def digests(self, text: str, place: Iterable[str]) -> list[str]:
        """What is stored of ``text`` in the index of a ``place`` (table, column), by each key."""
        place = tuple(place)
        return [self._digest(key_id, text, place) for key_id in self]

    def digest(self, text: str, place: Iterable[str]) -> str:
        """The same by the first key."""
        return self._digest(self.first_id, text, place)

    def fits(self, digest: str, text: str, place: Iterable[str]) -> bool:
        """Whether this is the text's digest; by a key that we lack, nothing finds it anyhow."""
        key_id = digest.partition(".")[2]
        if key_id not in self:
            return True
        return hmac.compare_digest(digest.encode(), self._digest(key_id, text, place).encode())

    def _digest(self, key_id: str, text: str, place: Iterable[str]) -> str:
        plain = encode(text)
        if plain is None:
            raise InvalidValue("A text with lone surrogates can't be looked up.")
        # The text comes last: no other part can hold the NUL that separates them.
        message = b"\0".join([_VERSION, key_id.encode(), *(part.encode() for part in place), plain])
        return f"{hmac.digest(self._keys[key_id], message, 'sha256').hex()}.{key_id}"
