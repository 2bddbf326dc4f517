"""AES-256-GCM for the contenders that have no encrypted columns, in the format of orm_core's."""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY: Final = bytes.fromhex("8f1d2c3b4a59687766554433221100ffeeddccbbaa99887766554433221100aa")
KEY_RING: Final = f"k1:{KEY.hex()}"
_TABLE: Final = "sessions"
_cipher: Final = AESGCM(KEY)


def seal(text: str, column: str, row: str) -> tuple[str, str, str]:
    """Value, iv and tag, in hex."""
    iv = os.urandom(12)
    bound = b"\0".join((b"orm_core:1", b"k1", _TABLE.encode(), column.encode(), row.encode()))
    data = _cipher.encrypt(iv, text.encode(), bound)
    return data[:-16].hex(), f"{iv.hex()}.k1", data[-16:].hex()
