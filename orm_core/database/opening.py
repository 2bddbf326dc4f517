"""Opening a connection within a time limit, and again and again while a server starts."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Final

from orm_core.database import limits
from orm_core.errors import (
    ConnectionRefused,
    ConnectTimeout,
    HostUnknown,
    ServerUnavailable,
)

logger: logging.Logger = logging.getLogger("orm_core.database")

#: failures that may pass: the server or its name service is not up yet, or full
PASSING: Final = (ConnectionRefused, ConnectTimeout, HostUnknown, ServerUnavailable)
#: seconds of the first pause between attempts, and of the longest
_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


def open_in_time(connect: Callable[[], Any], until: float) -> Any:
    """What ``connect`` answers by ``until``, by the monotonic clock.

    It runs in a thread, as neither libpq nor the resolver of names can be interrupted; what it
    opens too late is closed. Raises ``ConnectTimeout``, and what ``connect`` raises.
    """
    from concurrent.futures import Future  # seldom needed

    attempt: Future[Any] = Future()

    def run() -> None:
        try:
            attempt.set_result(connect())
        except BaseException as error:
            attempt.set_exception(error)

    try:
        threading.Thread(target=run, name="orm_core-connect", daemon=True).start()
        return attempt.result(max(0.0, until - monotonic()))
    except TimeoutError:
        attempt.add_done_callback(_close_unused)
        raise ConnectTimeout("No connection within the time limit (time_limit).") from None
    except BaseException:
        attempt.add_done_callback(_close_unused)
        raise


def _close_unused(attempt: Any) -> None:
    if attempt.exception() is None:
        attempt.result().close()


def retry(connect: Callable[[], Any], seconds: float) -> None:
    """Call ``connect`` until it raises none of ``PASSING``, for ``seconds``; the last one goes on.

    The pauses double from 0.1 s to 5 s, less a part that chance takes, so that services which
    start together do not ask together. A time limit around it is kept.
    """
    started = monotonic()
    until = min(started + seconds, limits.deadline())
    pause = _PAUSE
    while True:
        try:
            connect()
        except PASSING as error:
            left = until - monotonic()
            if left <= 0:
                raise
            wait = min(left, pause * random.uniform(0.5, 1))  # noqa: S311
            logger.warning("%s Trying again in %.1f s, for %.0f s more.", error, wait, left)
        else:
            if pause > _PAUSE:
                logger.info("Connected after %.1f s.", monotonic() - started)
            return
        sleep(wait)
        pause = min(pause * 2, _LONGEST_PAUSE)
