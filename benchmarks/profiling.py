"""Where the time of a workload goes, function by function.

    python -m benchmarks.profiling [CONTENDER] W2 [W6 ...]

By processor time, so what the server takes is left out. cProfile's own cost makes many small
calls look dear; the counts of calls are exact.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.contenders import CONTENDERS
from benchmarks.server import under
from benchmarks.worker import make, run
from benchmarks.workloads import WORKLOADS

LINES: Final = 30


def main(*arguments: str) -> None:
    """Print the functions of each workload, the dearest first, by a call of the workload."""
    name = next((one for one in arguments if one in CONTENDERS), "orm_core")
    with under(()) as server:
        contender = make(name, server.database(name), 10)
        for key in [one for one in arguments if one in WORKLOADS]:
            workload = WORKLOADS[key]
            orders = {"call": workload.call, "threads": 1, "checkout": workload.checkout}
            start = workload.first
            run(contender, {**orders, "start": start, "times": workload.warm})
            profile = cProfile.Profile(time.thread_time)
            times = max(workload.timed // 2, 1)
            profile.runcall(
                run, contender, {**orders, "start": start + workload.warm, "times": times}
            )
            show(key, profile, times)


def show(key: str, profile: cProfile.Profile, times: int) -> None:
    """A line for each function: share of the time, calls per call of the workload, where."""
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    print(f"\n{key}: share of own time, with what it calls, calls, function")
    ranked = sorted(stats.items(), key=lambda item: -item[1][2])[:LINES]
    for (file, line, function), (_, calls, own, cumulative, _) in ranked:
        place = f"{'/'.join(Path(file).parts[-2:])}:{line} " if line else ""
        print(
            f"{own / total:6.1%} {cumulative / total:6.1%} {calls / times:9.1f}  {place}{function}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
