"""A TCP proxy on loopback that passes, delays, freezes and cuts what a client and PostgreSQL say.

It knows where a message of the protocol ends ("Message Formats" in the PostgreSQL manual), so that
a ``rule`` can cut at a step: ``lambda step: Do.CUT if step == ("client", "Q", ...) else Do.PASS``.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from typing import Literal, NamedTuple

Sender = Literal["client", "server"]
SENDERS: tuple[Sender, Sender] = ("client", "server")


class Do(Enum):
    """What becomes of a message."""

    PASS = auto()
    #: it is not passed on: both sides lose their connection
    CUT = auto()
    #: it is passed on, then both sides lose their connection
    PASS_AND_CUT = auto()


class Step(NamedTuple):
    """A message: ``kind`` is its first byte, "" for the one that starts a session."""

    sender: Sender
    kind: str
    body: bytes


Rule = Callable[[Step], Do]


class FaultProxy:
    """Listens at ``port`` and passes on to ``target``, but for what it is told."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.delay = 0.0  # seconds before an answer of the server is passed on
        self.rule: Rule | None = None
        self._target = target
        self._flows = {sender: threading.Event() for sender in SENDERS}
        self._serves_new = threading.Event()
        self._links: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.thaw()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self, *senders: Sender) -> None:
        """Pass on nothing more of these (default: of both); nobody is told. A black hole."""
        for sender in senders or SENDERS:
            self._flows[sender].clear()

    def hang(self) -> None:
        """Take new connections, and do nothing with them."""
        self._serves_new.clear()

    def thaw(self) -> None:
        """Pass everything on again, what was held back first."""
        self._serves_new.set()
        for flow in self._flows.values():
            flow.set()

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            links = list(self._links)
        for link in links:
            self._end(link)

    def heal(self) -> None:
        """No fault any more, and no connection that saw one."""
        self.rule, self.delay = None, 0.0
        self.cut()
        self.thaw()

    def close(self) -> None:
        """Stop listening, end everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.heal()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._open, args=(client,), daemon=True).start()

    def _open(self, client: socket.socket) -> None:
        self._serves_new.wait()
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        link = (client, server)
        with self._lock:
            self._links.add(link)
        for end in link:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._pump, args=("server", server, client, link)).start()
        self._pump("client", client, server, link)

    def _pump(
        self,
        sender: Sender,
        source: socket.socket,
        sink: socket.socket,
        link: tuple[socket.socket, socket.socket],
    ) -> None:
        starting, data = sender == "client", b""
        with suppress(OSError):
            while part := source.recv(1 << 16):
                data += part
                if sender == "server" and self.delay:
                    time.sleep(self.delay)
                while (length := _length(data, starting)) <= len(data):
                    message, data = data[:length], data[length:]
                    self._flows[sender].wait()
                    kind, body = ("", message[4:]) if starting else _parts(message)
                    done = self.rule(Step(sender, kind, body)) if self.rule else Do.PASS
                    if done is not Do.CUT:
                        sink.sendall(message)
                    if done is not Do.PASS:
                        self._end(link)
                    starting = False
        self._flows[sender].wait()  # the end of a connection does not get through either
        self._end(link)

    def _end(self, link: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._links.discard(link)
        for end in link:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
            end.close()


def _length(data: bytes, starting: bool) -> int:
    """How long the first message is, as soon as it says so."""
    start = 0 if starting else 1
    if len(data) < start + 4:
        return len(data) + 1
    return start + int(struct.unpack_from("!i", data, start)[0])


def _parts(message: bytes) -> tuple[str, bytes]:
    return chr(message[0]), message[5:]


@contextmanager
def fault_proxy(host: str, port: int) -> Iterator[FaultProxy]:
    """A proxy in front of a server, as long as the block."""
    proxy = FaultProxy((host, port))
    try:
        yield proxy
    finally:
        proxy.close()
