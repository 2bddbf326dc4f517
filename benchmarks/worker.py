"""A contender's process: does what it is told, a JSON object a line.

``python -m benchmarks.worker CONTENDER URL POOL_SIZE`` says hello (what it returns, versions, or
why it is unable), then answers each line ``{"call": "find", "start": 0, "times": 100, "threads":
1, "checkout": false, "show": false}`` with the seconds it took, and with the last result in plain
form when ``show`` asks for it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any
from uuid import UUID

from benchmarks.contenders import CONTENDERS, Base, Unable
from benchmarks.workloads import ORDER, SEEDED, SESSION, USER, kind_of

Orders = dict[str, Any]


def make(name: str, url: str, pool_size: int) -> Base:
    """The contender of this name."""
    entry = CONTENDERS[name]
    module = importlib.import_module(f"benchmarks.contenders.{entry.module}")
    contender: Base = module.Contender(url, pool_size, **entry.options)
    return contender


def plain(value: Any) -> Any:
    """What has to be equal of a result: the columns that all contenders set alike."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    for columns in (SESSION, USER, ORDER):  # a session has a provider_account_id as a user has
        if all(hasattr(value, name) for name in columns):
            # SQLAlchemy keeps the name "metadata" for itself.
            names = {name: "facts" if name == "metadata" else name for name in columns}
            found = {name: getattr(value, names[name], getattr(value, name)) for name in columns}
            return {name: _scalar(name, one) for name, one in found.items()}
    return value if isinstance(value, int) else "id"  # of a new row, by chance


def _scalar(name: str, value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if name == "deleted_at":
        return value is not None
    if isinstance(value, UUID):
        return str(value) if str(value).startswith(SEEDED) else "new"
    if name == "metadata" and isinstance(value, str):
        return json.loads(value)  # what Piccolo keeps of a default
    return value


def call_of(contender: Base, name: str) -> Callable[[int], Any]:
    """The method of this name; ``mixed`` is one or the other by its index."""
    if name == "mixed":
        calls = {kind: getattr(contender, kind) for kind in ("find", "update", "create")}
        return lambda index: calls[kind_of(index)](index)
    method: Callable[[int], Any] = getattr(contender, name)
    return method


def shares(orders: Orders) -> list[range]:
    """The indexes of each thread."""
    indexes = range(orders["start"], orders["start"] + orders["times"])
    return [indexes[part :: orders["threads"]] for part in range(orders["threads"])]


def run(contender: Base, orders: Orders) -> Any:
    """Make the calls, each share in a thread; answers the last result."""
    call = call_of(contender, orders["call"])

    def work(share: range) -> Any:
        result = None
        if orders["checkout"]:
            for index in share:
                with contender.connection():
                    result = call(index)
        else:
            with contender.connection():
                for index in share:
                    result = call(index)
        return result

    if orders["threads"] == 1:
        return work(*shares(orders))
    with ThreadPoolExecutor(orders["threads"]) as pool:
        return list(pool.map(work, shares(orders)))[-1]


async def run_async(contender: Any, orders: Orders) -> Any:
    """The same for an asynchronous contender, each share in a task."""
    call = call_of(contender, orders["call"])

    async def work(share: range) -> Any:
        result = None
        if orders["checkout"]:
            for index in share:
                async with contender.connection():
                    result = await call(index)
        else:
            async with contender.connection():
                for index in share:
                    result = await call(index)
        return result

    if orders["threads"] == 1:
        return await work(*shares(orders))
    return (await asyncio.gather(*map(work, shares(orders))))[-1]


def answer(contender: Base, orders: Orders, loop: asyncio.AbstractEventLoop) -> Orders:
    """Do what one line says."""
    gc.collect()
    started = time.perf_counter()
    if contender.asynchronous:
        result = loop.run_until_complete(run_async(contender, orders))
    else:
        result = run(contender, orders)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, **({"result": plain(result)} if orders["show"] else {})}


def main(name: str, url: str, pool_size: str) -> None:
    """Serve the standard input until it ends."""
    loop = asyncio.new_event_loop()
    try:
        contender = make(name, url, int(pool_size))
    except (Unable, ImportError) as error:
        print(json.dumps({"unable": str(error)}), flush=True)
        return
    hello = {
        "returns": contender.returns,
        "versions": contender.versions(),
        "unable_to": contender.unable,
    }
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        try:
            reply = answer(contender, json.loads(line), loop)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
