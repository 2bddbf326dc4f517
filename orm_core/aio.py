"""The same services from asyncio: calls run in threads, one for each connection.

::

    user = await aio.run(UsersService.create, payload, logger)

    async with aio.transaction() as tx:
        user = await aio.run(UsersService.create, payload, logger)
        await aio.run(SessionService.create, {..., "user_id": user.id}, logger)
        await tx.on_commit(lambda: mail.welcome(user))

There are as many threads as ``pool_size``, for each event loop. Context variables (``time_limit``)
are in force in the call. A task that is cancelled does not stop a call: it goes on to its end in its
thread, which serves nobody else until then; a transaction that is cancelled is rolled back.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from time import monotonic
from types import TracebackType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from orm_core.database import limits
from orm_core.database.connection import db
from orm_core.database.database import Database
from orm_core.database.pool import Pool
from orm_core.database.transactions import Isolation, Transaction
from orm_core.errors import InvalidValue, Outcome, PoolTimeout, StaleTransaction

P = ParamSpec("P")
R = TypeVar("R")


class _Workers:
    """The threads of one event loop for one pool; each has at most one connection."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(pool.options.size)
        self._idle: list[ThreadPoolExecutor] = []

    async def take(self) -> ThreadPoolExecutor:
        """A thread, first come, first served. Raises ``PoolTimeout`` when none is free in time."""
        seconds = min(self.pool.options.timeout, limits.deadline() - monotonic())
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._free.acquire()
        except TimeoutError:
            timed_out = PoolTimeout(
                f"No thread for a connection came free within {max(seconds, 0):.2g} s: all "
                f"{self.pool.options.size} are in use. End transactions sooner, or raise "
                "ORM_CORE_POOL_SIZE / pool_size."
            )
        else:
            return self._idle.pop() if self._idle else ThreadPoolExecutor(1, "orm_core-aio")
        raise timed_out

    def give_back(self, worker: ThreadPoolExecutor) -> None:
        """Let the next one have the thread."""
        self._idle.append(worker)
        self._free.release()

    def give_back_after(self, worker: ThreadPoolExecutor, future: Future[Any]) -> None:
        """The same once the thread is done, whoever waits for it."""

        def done(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.give_back, worker)

        future.add_done_callback(done)


_workers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Workers] = WeakKeyDictionary()


def _workers_for(database: Database) -> _Workers:
    if database.deferred:
        database.connect()  # says so
    loop = asyncio.get_running_loop()
    found = _workers.get(loop)
    if found is None or found.pool is not database.pool:
        found = _workers[loop] = _Workers(database.pool)
    return found


#: the innermost transaction of a task
_running: ContextVar[AsyncTransaction | None] = ContextVar("orm_core_transaction", default=None)


def _submit(
    worker: ThreadPoolExecutor, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> Future[R]:
    return worker.submit(copy_context().run, _call, fn, args, kwargs)


def _call(fn: Callable[..., R], args: Any, kwargs: Any) -> R:
    try:
        return fn(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("The call raised StopIteration.") from error  # a future can't carry it
    finally:
        if not db.in_transaction() and not db.is_closed():
            db.close()  # one that the call kept


async def _to_its_end(future: Future[R]) -> R:
    """Wait for what must not be left half-way; a cancellation is raised after it."""
    waiting = asyncio.wrap_future(future)
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from waiting.exception()
    return waiting.result()


async def run(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``fn`` in a thread of ours and answer what it does.

    Inside ``aio.transaction()`` of the same task the call takes part in it. Rows, not queries,
    are what ``fn`` should answer: a query would be sent on the thread of the event loop. Raises
    ``PoolTimeout`` when no thread comes free in time, ``InvalidValue`` for an async function.
    """
    if not callable(fn) or inspect.iscoroutinefunction(fn):
        raise InvalidValue("aio.run() takes a plain function, as in aio.run(UsersService.get, id).")
    block = _running.get()
    if block is not None and block.is_of_this_task:
        return await block.run(fn, *args, **kwargs)
    workers = _workers_for(db)
    worker = await workers.take()
    future = _submit(worker, fn, *args, **kwargs)
    workers.give_back_after(worker, future)
    return await asyncio.wrap_future(future)


class AsyncTransaction:
    """A transaction of one task, on one thread; made by ``aio.transaction()``."""

    def __init__(self, block: Transaction) -> None:
        self._block = block
        self._outer: AsyncTransaction | None = None
        self._task: asyncio.Task[Any] | None = None
        self._workers: _Workers
        self._worker: ThreadPoolExecutor

    @property
    def handle(self) -> Transaction:
        """What services take as ``tx``."""
        return self._block

    @property
    def outcome(self) -> Outcome:
        """What became of it, also after a cancellation."""
        return self._block.outcome

    @property
    def is_of_this_task(self) -> bool:
        """Whether the task that is running began it, and has not ended it."""
        return self._block.is_open and self._task is asyncio.current_task()

    async def run(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``fn`` inside the transaction. Raises ``StaleTransaction`` in another task."""
        if not self.is_of_this_task:
            raise StaleTransaction(
                "This transaction has ended, or belongs to another task; a transaction is used by "
                "the task that began it. Begin one here: async with aio.transaction()."
            )
        return await asyncio.wrap_future(_submit(self._worker, fn, *args, **kwargs))

    async def on_commit(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in the transaction's thread once everything is committed."""
        await self.run(self._block.on_commit, callback)

    async def __aenter__(self) -> AsyncTransaction:
        if self._task is not None:
            raise StaleTransaction("A transaction block is entered once; make a new one.")
        self._task = asyncio.current_task()
        outer = _running.get()
        if outer is not None and outer.is_of_this_task:
            self._outer, self._worker = outer, outer._worker
        else:
            self._workers = _workers_for(db)
            self._worker = await self._workers.take()
        try:
            await _to_its_end(_submit(self._worker, self._block.__enter__))
            _running.set(self)
        except BaseException as error:
            await self._end(error)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _running.set(self._outer)
        await self._end(exc)

    async def _end(self, error: BaseException | None) -> None:
        # After a call that a cancellation left running: the thread takes one at a time.
        future = _submit(self._worker, _end, self._block, error)
        if self._outer is None:
            self._workers.give_back_after(self._worker, future)
        await _to_its_end(future)


def _end(block: Transaction, error: BaseException | None) -> None:
    if block.is_open:
        block.__exit__(type(error) if error is not None else None, error, None)


def transaction(
    isolation: Isolation | None = None, *, read_only: bool = False, track: bool = True
) -> AsyncTransaction:
    """A transaction of this task: ``async with aio.transaction() as tx:``.

    As ``orm_core.transaction``, for ``db``. Calls of ``aio.run`` in the block take part; those of
    other tasks do not, also of tasks that began in the block.
    """
    return AsyncTransaction(Transaction(db, isolation, read_only=read_only, track=track))
