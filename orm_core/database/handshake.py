"""The start of a PostgreSQL session, spoken by hand, to learn the SQLSTATE of a refusal.

libpq answers a failed connection with prose in the server's language and no code. Many refusals
(a missing database, no connection left) come only after the password was accepted, so this goes
through SCRAM-SHA-256 (RFC 5802, RFC 7677) or MD5; a password is never sent as it is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import struct
from typing import Any, Final

#: "Message Formats" in the PostgreSQL manual: protocol 3.0, kinds of AuthenticationRequest
PROTOCOL_3: Final = 196608
_OK, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 5, 10, 11, 12
SUCCESSFUL: Final = "00000"


def state_of_session(link: Any, user: str, database: str, password: str | None) -> str | None:
    """The SQLSTATE with which the server refuses, "00000" when it does not, None if unknown.

    Raises ``EOFError`` when it hangs up.
    """
    pairs = {"user": user, "database": database}
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in pairs.items())
    link.sendall(struct.pack("!ii", 9 + len(body), PROTOCOL_3) + body + b"\0")
    scram = _Scram(password or "")
    with link.makefile("rb") as answers:
        while True:
            kind, data = _read(answers)
            if kind == b"E":
                codes = (part[1:] for part in data.split(b"\0") if part[:1] == b"C")
                return next(codes, b"").decode("ascii", "replace") or None
            if kind != b"R":
                return SUCCESSFUL if kind in (b"K", b"S", b"Z") else None
            request = struct.unpack("!i", data[:4])[0]
            if request in (_OK, _SASL_FINAL):
                continue
            if password is None:
                return None
            if request == _MD5:
                answer = _md5(user, password, data[4:8])
            elif request == _SASL and b"SCRAM-SHA-256\0" in data:
                answer = scram.first()
            elif request == _SASL_CONTINUE:
                answer = scram.final(data[4:].decode())
            else:
                return None
            link.sendall(b"p" + struct.pack("!i", 4 + len(answer)) + answer)


def _read(answers: Any) -> tuple[bytes, bytes]:
    head = answers.read(5)
    if len(head) < 5:
        raise EOFError
    length = struct.unpack("!i", head[1:])[0]
    return head[:1], answers.read(min(max(length - 4, 0), 1 << 16))


def _md5(user: str, password: str, salt: bytes) -> bytes:
    inner = hashlib.md5(password.encode() + user.encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()
    return b"md5" + outer.encode() + b"\0"


class _Scram:
    """The client's half of SCRAM-SHA-256, without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._bare = f"n=,r={secrets.token_urlsafe(18)}"

    def first(self) -> bytes:
        data = f"n,,{self._bare}".encode()
        return b"SCRAM-SHA-256\0" + struct.pack("!i", len(data)) + data

    def final(self, challenge: str) -> bytes:
        fields = dict(part.split("=", 1) for part in challenge.split(","))
        salt, rounds = base64.b64decode(fields["s"]), int(fields["i"])
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        unproved = f"c=biws,r={fields['r']}"
        signed = f"{self._bare},{challenge},{unproved}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
        return f"{unproved},p={base64.b64encode(proof).decode()}".encode()
