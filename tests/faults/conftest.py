"""A server to kill and freeze, a proxy in front of it, and ``db`` pointed at the one or the other."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The private server and the helpers of threads are those of the integration tests.
sys.path.append(str(Path(__file__).parents[1] / "integration"))

import ledger
from fault_proxy import FaultProxy, fault_proxy
from private_server import Cluster, ServerProcess, cluster

from orm_core import close_db, db, initialize_db

Point = Callable[..., None]


@pytest.fixture(scope="session")
def files() -> Iterator[Cluster]:
    with cluster(secrets.token_urlsafe(18)) as made:
        yield made


@pytest.fixture(scope="session")
def ledger_server(files: Cluster) -> Iterator[ServerProcess]:
    process = files.prepare("ledger", max_connections="60")
    try:
        process.start()
        ledger.prepare(process.server)
        yield process
    finally:
        process.stop()


@pytest.fixture
def server(ledger_server: ServerProcess) -> Iterator[ServerProcess]:
    """The server with the ledger; it runs again after the test, whatever was done to it."""
    yield ledger_server
    ledger_server.thaw()
    if not ledger_server.is_running:
        ledger_server.start()


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[FaultProxy]:
    """A proxy in front of the server."""
    with fault_proxy(server.server.host, server.server.port) as made:
        yield made


@pytest.fixture
def truth(server: ServerProcess) -> ledger.Truth:
    return ledger.Truth(server.server)


@pytest.fixture
def point(server: ServerProcess) -> Iterator[Point]:
    """Points ``db`` at the ledger: at the server, or at another port."""

    def point_at(proxy: FaultProxy | None = None, user: str = "app", **settings: Any) -> None:
        url = server.server.url(
            ledger.DATABASE, user, port=proxy.port if proxy else None, **ledger.PLAIN
        )
        initialize_db(url, **settings)

    yield point_at
    close_db()
    db.init(None)
