"""A way to the server that breaks where a test wants it to."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

#: told who speaks ("client", "server") and the bytes; answers whether to cut before they pass on
Cuts = Callable[[str, bytes], bool]


class Way:
    """Passes everything on until ``cuts`` says otherwise."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts: Cuts | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        host, port = self._upstream
        kind = socket.AF_UNIX if host.startswith("/") else socket.AF_INET
        with client, socket.socket(kind) as server:
            server.connect(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port))
            ends = {client: ("client", server), server: ("server", client)}
            while True:
                for source in select.select(list(ends), [], [])[0]:
                    name, target = ends[source]
                    data = source.recv(1 << 16)
                    if not data or (self.cuts is not None and self.cuts(name, data)):
                        return
                    target.sendall(data)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def way_to(server: Any, database: str) -> Iterator[tuple[Way, str]]:
    """A way to a database of the test server, and its URL."""
    way = Way((server.host, server.port))
    user = quote(server.user, safe="")
    password = f":{quote(server.password, safe='')}" if server.password else ""
    try:
        options = "sslmode=disable&gssencmode=disable"
        yield way, f"postgresql://{user}{password}@127.0.0.1:{way.port}/{database}?{options}"
    finally:
        way.close()


def before_commit_arrives(name: str, data: bytes) -> bool:
    """Cuts what is sent as COMMIT."""
    return name == "client" and b"COMMIT" in data


def before_commit_is_answered(name: str, data: bytes) -> bool:
    """Cuts what is answered to COMMIT."""
    return name == "server" and b"COMMIT" in data
