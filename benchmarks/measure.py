"""One run: results checked equal, instructions counted, time taken."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.counting import Count, Meter
from benchmarks.delay import delayed
from benchmarks.imports import Import
from benchmarks.process import Broken, Process
from benchmarks.server import Server, given_or_embedded
from benchmarks.workloads import Workload

#: added to each round trip of the workloads that are delayed
DELAY = 0.005


@dataclass
class Cell:
    """What one contender's workload cost a call; None where it was not measured."""

    client: float | None = None
    server: float | None = None
    seconds: float | None = None
    #: why it can't do this workload
    unable: str | None = None

    @property
    def instructions(self) -> float | None:
        """Client and server together, the client alone where the server's are not counted."""
        return None if self.client is None else self.client + (self.server or 0)


@dataclass
class Results:
    """What a run found."""

    workloads: list[Workload]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    returns: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    imports: dict[str, Import] = field(default_factory=dict)
    server: str = ""
    how: str = "not counted"

    def cell(self, workload: str, contender: str) -> Cell:
        """What is known of it."""
        return self.cells.setdefault((workload, contender), Cell())

    def ratio(self, workload: str, contender: str, figure: str) -> float | None:
        """A figure of a cell as a multiple of the baseline's."""
        base = getattr(self.cell(workload, BASELINE), figure)
        value = getattr(self.cell(workload, contender), figure)
        return value / base if base and value is not None else None


class Team:
    """The contenders' processes on one server, each with its database."""

    def __init__(
        self, server: Server, names: Iterable[str], results: Results, command: tuple[str, ...] = ()
    ) -> None:
        self._results = results
        self._stack = contextlib.ExitStack()
        self.processes: dict[str, Process] = {}
        self.urls: dict[str, str] = {}
        for name in names:
            url = server.database(name)
            process = Process(name, url, command)
            if process.unable:
                results.absent[name] = process.unable
                continue
            self._stack.callback(process.close)
            self.processes[name], self.urls[name] = process, url
            results.versions[name], results.returns[name] = process.versions, process.returns

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def able(self, workload: Workload) -> list[Process]:
        """Those who do this workload, after one call each whose results have to be equal."""
        found: list[Process] = []
        expected = None
        for name, process in self.processes.items():
            if not takes_part(name, workload):
                continue
            reason = process.unable_to.get(workload.key)
            if reason:
                self._results.cell(workload.key, name).unable = reason
                continue
            call = "find" if workload.call == "mixed" else workload.call
            reply = process.ask(call=call, start=workload.first, times=1, show=True)
            expected = expected or reply["result"]
            if reply["result"] != expected:
                raise Broken(
                    f"{workload.key}: {name} answers {str(reply['result'])[:500]}, "
                    f"the others {str(expected)[:500]}"
                )
            found.append(process)
        return found


def takes_part(name: str, workload: Workload) -> bool:
    """Whether the contender is there for this workload."""
    only = CONTENDERS[name].only
    return workload.key in only or not (only or workload.key == "W12")


def count(meter: Meter, names: Sequence[str], results: Results) -> None:
    """Instructions of each workload and contender."""
    results.how = meter.how
    with meter.server() as server, Team(server, names, results, meter.command) as team:
        results.server = server.version
        for workload in results.workloads:
            if not workload.counted:
                continue
            for process in team.able(workload):
                shape = {
                    "call": workload.call,
                    "threads": workload.threads,
                    "checkout": workload.checkout,
                }
                start = workload.first + 1
                warm = workload.warm * CONTENDERS[process.name].warm
                process.ask(**shape, start=start, times=warm)
                start += warm
                empty = meter.count(process, {**shape, "start": start, "times": 0})
                full = meter.count(process, {**shape, "start": start, "times": workload.counted})
                cost: Count = full.minus(empty)
                cell = results.cell(workload.key, process.name)
                cell.client = cost.client / workload.counted
                cell.server = None if cost.server is None else cost.server / workload.counted
                server_part = "" if cell.server is None else f", server {cell.server:,.0f}"
                note(f"{workload.key} {process.name}: client {cell.client:,.0f}{server_part}")


def clock(names: Sequence[str], repeat: int, results: Results) -> None:
    """Seconds of each workload and contender: the median of rounds that take turns."""
    with given_or_embedded() as server, Team(server, names, results) as team:
        results.server = server.version
        for workload in results.workloads:
            able = team.able(workload)
            with contextlib.ExitStack() as stack:
                if workload.delayed:
                    able = [_far(stack, team.urls[one.name], one.name) for one in able]
                _rounds(workload, able, repeat, results)


def _far(stack: contextlib.ExitStack, url: str, name: str) -> Process:
    process = Process(name, stack.enter_context(delayed(url, DELAY)))
    stack.callback(process.close)
    return process


def _rounds(workload: Workload, processes: list[Process], repeat: int, results: Results) -> None:
    shape = {
        "call": workload.call,
        "threads": workload.threads,
        "checkout": workload.checkout,
    }
    start = workload.first + 1
    for process in processes:
        warm = workload.warm * CONTENDERS[process.name].warm + workload.timed
        process.ask(**shape, start=start, times=warm)
    start += workload.warm * max(one.warm for one in CONTENDERS.values()) + workload.timed
    taken: dict[str, list[float]] = {process.name: [] for process in processes}
    for _ in range(repeat):
        for process in processes:
            reply = process.ask(**shape, start=start, times=workload.timed)
            taken[process.name].append(reply["seconds"] / workload.timed)
        start += workload.timed
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        results.cell(workload.key, name).seconds = median
        note(f"{workload.key} {name}: {median * 1e6:,.0f} microseconds")


def note(text: str) -> None:
    """Say what goes on."""
    print(text, file=sys.stderr)
