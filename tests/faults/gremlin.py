"""What goes wrong in the soak: one fault after the other, with time to recover between them."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable

from fault_proxy import SENDERS, FaultProxy
from private_server import ServerProcess


class Gremlin:
    """Breaks the server and the way to it until told to stop; both work again then."""

    def __init__(self, server: ServerProcess, proxy: FaultProxy, seed: int) -> None:
        self.faults: Counter[str] = Counter()
        self._server = server
        self._proxy = proxy
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._kinds: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "restart": lambda: self._restart(signal.SIGINT),
            "immediate restart": lambda: self._restart(signal.SIGQUIT),
            "frozen server": self._freeze,
            "black hole": self._black_hole,
            "cut": proxy.cut,
            "ended sessions": self._end_sessions,
            "slow network": self._delay,
        }

    def __call__(self) -> None:
        while not self._pause(0.2, 1.0):
            kind = self._random.choice(list(self._kinds))
            self._kinds[kind]()
            self.faults[kind] += 1

    def stop(self) -> None:
        self._stop.set()

    def _pause(self, least: float, most: float) -> bool:
        return self._stop.wait(self._random.uniform(least, most))

    def _kill(self) -> None:
        self._server.kill()
        self._pause(0, 0.5)
        self._server.start()

    def _restart(self, how: signal.Signals) -> None:
        self._server.stop(how)
        self._server.start()

    def _freeze(self) -> None:
        self._server.freeze()
        self._pause(0.2, 2.5)
        self._server.thaw()

    def _black_hole(self) -> None:
        self._proxy.freeze(*self._random.choice([SENDERS, SENDERS[:1], SENDERS[1:]]))
        self._pause(0.2, 2.5)
        # What was held back is delivered late, or lost with its connection.
        self._random.choice([self._proxy.thaw, self._proxy.heal])()

    def _end_sessions(self) -> None:
        self._server.server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
        )

    def _delay(self) -> None:
        self._proxy.delay = 0.05
        self._pause(0.2, 1.0)
        self._proxy.delay = 0.0
