"""What the pool and its limits cost a call, without the call: ``python -m benchmarks.pooling``.

The best of several rounds, in microseconds: a checkout of an idle connection and its return, and
what a deadline adds to a statement, with the clock of the client alone (no server is asked for it).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, perf_counter
from typing import Any

from benchmarks.server import given_or_embedded
from orm_core import close_db, db, initialize_db, time_limit
from orm_core.database.watchdog import watchdog

CALLS, ROUNDS = 2000, 15


def best(call: Callable[[], Any]) -> float:
    """Microseconds of one call, in the best of the rounds."""
    found = []
    for _ in range(ROUNDS):
        started = perf_counter()
        for _ in range(CALLS):
            call()
        found.append(perf_counter() - started)
    return min(found) / CALLS * 1e6


def checkout() -> None:
    db.connect()
    db.close()


def main() -> None:
    """Measure and print."""
    with given_or_embedded() as server:
        initialize_db(server.database("pooling"))
        print(f"checkout and return of an idle connection: {best(checkout):.1f} us")
        with db.connection_context():
            connection = db.connection()

            def deadline() -> None:
                watchdog.watch(connection, monotonic() + 30)
                watchdog.clear(connection)

            print(f"the deadline of a statement: {best(deadline):.1f} us")

        def block() -> None:
            with time_limit(2):
                pass

        print(f"a block with a limit of its own: {best(block):.1f} us")
        close_db()


if __name__ == "__main__":
    main()
