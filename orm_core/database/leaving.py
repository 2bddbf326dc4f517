"""The end of a ``with`` block, which no signal prevents.

A signal's handler may raise at the first instruction of any Python function. In an ``__exit__`` this
is before its first line, so what it was to end stays open (bpo-29988). Here no function of Python
is entered outside a ``try``: ``with`` takes what ``__exit__`` gives before it enters the block, and gets a
callable written in C, which resumes a generator that waits inside a ``try`` already.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

_Block = TypeVar("_Block")
_Owner = TypeVar("_Owner")
_Bound: TypeAlias = Callable[
    [type[BaseException] | None, BaseException | None, TracebackType | None], None
]


def _itself(block: Any) -> Any:
    return block


class Exit(Generic[_Block]):
    """The ``__exit__`` of a class: ``__exit__ = Exit(_end, _give_up)``.

    ``end(block, error)`` ends the block, which ``error`` has left unless it is None. What it raises goes
    out after ``give_up(block, raised)``, also when an interrupt struck before its first line.
    ``give_up`` must bear to be called twice, and after an ``end`` that was through.
    """

    def __init__(
        self,
        end: Callable[[_Block, BaseException | None], None],
        give_up: Callable[[_Block, BaseException], None],
        find: Callable[[Any], _Block] = _itself,
    ) -> None:
        self._end = end
        self._give_up = give_up
        self._find = find

    def of(self, find: Callable[[_Owner], _Block]) -> Exit[_Owner]:
        """The same for a class whose instances are left by ending the block ``find`` answers."""
        ending: Exit[Any] = Exit(self._end, self._give_up, find)
        return ending

    @overload
    def __get__(self, block: None, owner: type[_Block]) -> Exit[_Block]: ...
    @overload
    def __get__(self, block: _Block, owner: type[_Block] | None = None) -> _Bound: ...
    def __get__(
        self, block: _Block | None, owner: type[_Block] | None = None
    ) -> Exit[_Block] | _Bound:
        if block is None:
            return self
        waiting = self._wait(block)
        next(waiting)
        # max() is in C; it sends None, then each of what it is called with, and answers None.
        return cast("_Bound", partial(max, None, key=waiting.send))

    def __call__(
        self,
        block: _Block,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """What ``contextlib.ExitStack`` calls."""
        self.__get__(block)(exc_type, exc, traceback)

    def _wait(self, owner: Any) -> Generator[int, Any, None]:
        block: Any = None
        try:
            _, _, error, _ = (yield 0), (yield 0), (yield 0), (yield 0)
            block = self._find(owner)
            self._end(block, error)
        except GeneratorExit:
            raise  # it was looked up, and never called
        except BaseException as raised:
            try:
                self._give_up(block or self._find(owner), raised)
            except BaseException:
                self._give_up(block or self._find(owner), raised)  # a second interrupt struck it
                raise
            raise
        yield 0
