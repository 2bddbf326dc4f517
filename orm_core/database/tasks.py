"""Which asyncio task runs on this thread; asyncio is not imported for it."""

from __future__ import annotations

import sys
from typing import Any

from orm_core.errors import ConnectionInUse


def current_task() -> Any:
    """The task that is running, None outside an event loop."""
    asyncio = sys.modules.get("asyncio")
    try:
        if asyncio is None or asyncio._get_running_loop() is None:
            return None
        return asyncio.current_task()
    except AttributeError:  # another thread is importing it
        return None


def check_runs(holder: Any) -> None:
    """Raise ``ConnectionInUse`` when the task that holds this thread's connection is another one."""
    if not is_running(holder) and not holder.done():
        raise ConnectionInUse(
            "Another asyncio task holds the connection of this thread, so this call would take "
            "part in its transaction. Run calls by orm_core.aio: await aio.run(...), async "
            "with aio.transaction()."
        )


def is_running(task: Any) -> bool:
    """Whether this task is the one that runs on this thread."""
    try:
        return sys.modules["asyncio"].current_task() is task
    except RuntimeError:  # no event loop runs
        return False
