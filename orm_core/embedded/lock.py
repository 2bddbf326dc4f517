"""Locks on files (flock) that the kernel drops with their holder, kill -9 included.

A lock belongs to the open file: a forked or handed-down descriptor holds it too, and it is
free when the last copy is closed. Descriptors are not passed on to other programs by default.
"""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from orm_core.errors import EmbeddedError

POLL_SECONDS = 0.01


def take(path: Path, *, shared: bool = False, timeout: float = 0.0) -> int | None:
    """Return a descriptor that holds the lock, or None when it is not free in `timeout` seconds.

    Close the descriptor to let go. The file is created when absent.
    """
    deadline = time.monotonic() + timeout
    while True:
        descriptor = _try(path, shared=shared)
        if descriptor is not None or time.monotonic() >= deadline:
            return descriptor
        time.sleep(POLL_SECONDS)


def is_free(path: Path) -> bool:
    """True when nobody holds the lock exclusively. Creates nothing."""
    if not path.exists():
        return True
    descriptor = _try(path, shared=True)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def is_on(path: Path, descriptor: int) -> bool:
    """True when the file at `path` is the one that `descriptor` was opened on."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def held(path: Path, *, timeout: float, refusal: str) -> Generator[int]:
    """Hold the lock exclusively for a with block.

    Raises EmbeddedError with the text `refusal` when it is not free in `timeout` seconds.
    """
    descriptor = take(path, timeout=timeout)
    if descriptor is None:
        raise EmbeddedError(refusal)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try(path: Path, *, shared: bool) -> int | None:
    import fcntl  # absent on Windows, where this package still has to import

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise EmbeddedError(
            f"The file {path} can't be opened: {error.strerror}. It may be another user's: run as "
            "that user, or use a folder of your own."
        ) from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # A lock on a file that was deleted meanwhile excludes nobody.
        if is_on(path, descriptor):
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
