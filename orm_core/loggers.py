"""What services log to: any object with ``audit(message, meta)`` and ``error(message, meta)``.

``StdlibLogger`` and ``StructlogLogger`` adapt the loggers that services have.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from orm_core.errors import InvalidValue

#: between INFO and WARNING
AUDIT_LEVEL = 25


class Logger(Protocol):
    """Receives what happened, after it is committed, and what failed."""

    def audit(self, message: str, meta: Mapping[str, Any], /) -> object:
        """A change that stands; ``meta`` has module, action and the row's id."""

    def error(self, message: str, meta: Mapping[str, Any], /) -> object:
        """A call that failed; ``meta`` has module, action and error."""


class StdlibLogger:
    """Writes to a ``logging.Logger``; ``meta`` stands in the record's ``meta`` attribute."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def audit(self, message: str, meta: Mapping[str, Any], /) -> None:
        """Log at level 25, between INFO and WARNING."""
        self._logger.log(AUDIT_LEVEL, message, extra={"meta": dict(meta)})

    def error(self, message: str, meta: Mapping[str, Any], /) -> None:
        """Log at level ERROR, with the exception."""
        self._logger.error(message, extra={"meta": dict(meta)}, exc_info=meta.get("error"))


class StructlogLogger:
    """Writes to a structlog logger; ``meta`` becomes key-value pairs."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def audit(self, message: str, meta: Mapping[str, Any], /) -> None:
        """Log at level info, with ``audit=True``."""
        self._logger.info(message, audit=True, **meta)

    def error(self, message: str, meta: Mapping[str, Any], /) -> None:
        """Log at level error, with the exception."""
        pairs = {key: value for key, value in meta.items() if key != "error"}
        self._logger.error(message, exc_info=meta.get("error"), **pairs)


def check_logger(logger: Any) -> None:
    """Raise ``InvalidValue`` unless this is None or can be logged to."""
    if logger is None:
        return
    for name in ("audit", "error"):
        if not callable(getattr(logger, name, None)):
            raise InvalidValue(
                f"logger has no {name}(message, meta): wrap a standard one as "
                "StdlibLogger(logging.getLogger(...)), a structlog one as StructlogLogger(...)."
            )
