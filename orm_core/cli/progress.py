"""What a long command is doing, on one line of a person's terminal."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

#: where a Router, a backfill and a generated file tell how far they are
_LOGGERS: Final = (
    "orm_core.audit",
    "orm_core.migrations",
    "orm_core.purging",
    "orm_core.rotation",
    "peewee_migrate",
)


class _OneLine(logging.Handler):
    """Writes each record over the one before it."""

    def emit(self, record: logging.LogRecord) -> None:
        # Of peewee-migrate's records only those of a file: its own hold SQL and parameters.
        if record.name.startswith("peewee_migrate") and record.pathname != "<string>":
            return
        width = shutil.get_terminal_size().columns - 1
        self.show(" ".join(record.getMessage().split())[:width])

    def show(self, text: str) -> None:
        """Put the text in place of what stands there."""
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def shown(*, quiet: bool = False) -> Generator[None]:
    """Show progress on stderr while the block runs, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    handler = _OneLine(logging.INFO)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.addHandler(handler)
        one.setLevel(logging.INFO)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.removeHandler(handler)
            one.setLevel(level)
        handler.show("")
