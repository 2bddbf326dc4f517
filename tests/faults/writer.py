"""A process that writes transfers until it was interrupted often enough.

``writer.py URL INTERRUPTS`` prints a line when it is ready, and at the end, as JSON, what it was
told of each token and the state of its pool. ``PYTHONPATH`` has the modules of the tests.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType

from ledger import UNKNOWN, new_token, outcome_of

from orm_core import close_db, connect_db, db, initialize_db

HERE = Path(__file__).parent


def interrupt(_: int, frame: FrameType | None) -> None:
    """What Python does on SIGINT, but in what keeps the books."""
    if frame is not None and Path(frame.f_code.co_filename).parent != HERE:
        raise KeyboardInterrupt


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(url: str, interrupts: int) -> None:
    initialize_db(url, pool_size=2, pool_timeout=2)
    connect_db()
    told: dict[str, str] = {}
    caught = 0
    signal.signal(signal.SIGINT, interrupt)
    say("ready")
    while caught < interrupts:
        token = new_token()
        told[token] = UNKNOWN  # who is interrupted knows nothing
        try:
            told[token] = outcome_of(token)
        except KeyboardInterrupt:
            caught += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    token = new_token()
    told[token] = outcome_of(token)
    stats = db.pool_stats()
    state = [stats.size, stats.in_use, stats.idle, stats.waiting]
    say(json.dumps({"told": told, "stats": state, "last": token}))
    close_db()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
