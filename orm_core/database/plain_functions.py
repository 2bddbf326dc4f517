"""Blocks as decorators, and callbacks: for functions that do their work when they are called.

A call of an async function, or of a generator, only makes an object; its first line runs later. A
block around it would be over by then, and a callback would never run, so both are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ContextDecorator, contextmanager
from functools import partial, wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from orm_core.errors import InvalidValue

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


def check_plain(fn: Any, subject: str) -> None:
    """Raise ``InvalidValue`` for what is no function, or works later than its call."""
    if not callable(fn):
        raise InvalidValue(f"{subject} takes a function.")
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidValue(
            f"{subject} takes a plain function: an async one runs only after its call. Use the "
            "with block inside it, and orm_core.aio for what it calls."
        )
    if inspect.isgeneratorfunction(fn):
        raise InvalidValue(
            f"{subject} takes a plain function: a generator runs only after its call. Use the "
            "with block inside it."
        )


class PlainDecorator(ContextDecorator):
    """A block that is a decorator, too, of plain functions."""

    def __call__(self, func: F) -> F:
        """Have the block around each call of the function."""
        check_plain(func, "This decorator")
        return super().__call__(func)


class Block(PlainDecorator):
    """What ``block`` makes: for ``with``, or around a plain function."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._entered: AbstractContextManager[None]

    def _recreate_cm(self) -> Block:
        return Block(self._make)

    def __enter__(self) -> None:
        self._entered = self._make()
        self._entered.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered.__exit__(exc_type, exc, traceback)


def block(fn: Callable[P, Generator[None]]) -> Callable[P, Block]:
    """As ``contextlib.contextmanager``, for a function that swallows no exception."""
    managed = contextmanager(fn)

    @wraps(fn)
    def begin(*args: P.args, **kwargs: P.kwargs) -> Block:
        return Block(partial(managed, *args, **kwargs))

    return begin
