"""A server some milliseconds away: a proxy that holds each answer back.

``python -m benchmarks.delay URL SECONDS`` prints the port of 127.0.0.1 that it listens on. Each
connection has a process of its own, so that one does not wait for another.
"""

from __future__ import annotations

import select
import socket
import socketserver
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.server import url_text
from orm_core.database.url import DatabaseUrl, parse


@contextmanager
def delayed(url: str, seconds: float) -> Iterator[str]:
    """The URL of the same database, with this much added to a round trip."""
    command = [sys.executable, "-m", "benchmarks.delay", url, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        port = int(proxy.stdout.readline())
        target = parse(url)
        try:
            yield url_text(
                DatabaseUrl("127.0.0.1", port, target.user, target.password, target.database)
            )
        finally:
            proxy.terminate()


def upstream(target: DatabaseUrl) -> socket.socket:
    """A connection to the server itself."""
    if target.host.startswith("/"):
        link = socket.socket(socket.AF_UNIX)
        link.connect(f"{target.host}/.s.PGSQL.{target.port}")
        return link
    return socket.create_connection((target.host, target.port))


def main(url: str, seconds: str) -> None:
    """Serve until terminated."""
    target, delay = parse(url), float(seconds)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            client, server = self.request, upstream(target)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                ready, _, _ = select.select([client, server], [], [])
                if server in ready:
                    time.sleep(delay)
                source, sink = (server, client) if server in ready else (client, server)
                data = source.recv(1 << 16)
                if not data:
                    return
                sink.sendall(data)

    class Proxy(socketserver.ForkingTCPServer):
        request_queue_size = 64
        max_children = 200

    with Proxy(("127.0.0.1", 0), Handler) as proxy:
        print(proxy.server_address[1], flush=True)
        proxy.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
