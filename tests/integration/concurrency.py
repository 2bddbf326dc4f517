"""Threads and forked children that tests watch, with a deadline."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orm_core import close_db

DEADLINE = 30.0


@contextmanager
def threads(*targets: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run functions in threads beside the block; their results, or errors, are in the list."""
    results: list[Any] = [None] * len(targets)

    def run(place: int, target: Callable[[], Any]) -> None:
        try:
            results[place] = target()
        except Exception as error:
            results[place] = error

    started = [
        threading.Thread(target=run, args=(place, target), daemon=True)
        for place, target in enumerate(targets)
    ]
    for thread in started:
        thread.start()
    yield results
    for thread in started:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "a thread hangs"


def until(condition: Callable[[], Any], what: str = "the condition holds") -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE:g} s: {what}"
        time.sleep(0.005)


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` answers, or raises as text, in a forked child that then ends normally."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(int(DEADLINE))
            with os.fdopen(writing, "wb") as answer:
                try:
                    pickle.dump(work(), answer)
                except BaseException:
                    pickle.dump(traceback.format_exc(), answer)
            close_db()
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        result = pickle.load(answer)
    assert os.waitpid(child, 0)[1] == 0, result
    return result
