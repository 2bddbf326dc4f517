"""A guard for CI: orm_core's client instructions, as multiples of hand-written psycopg2.

    python -m benchmarks.guard            # fails when one rose over what is stored
    python -m benchmarks.guard --accept   # stores what it finds

Counted by callgrind, so a busy machine changes nothing; without valgrind it says so and passes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from benchmarks.contenders import BASELINE
from benchmarks.counting import Callgrind, callgrind
from benchmarks.measure import Results, count
from benchmarks.workloads import WORKLOADS

GUARDED: Final = ("W2", "W6", "W7", "W1", "W3")
STORED: Final = Path(__file__).with_name("guard.json")
#: another Python or peewee may move a ratio by this much
MARGIN: Final = 0.10


def too_dear(stored: dict[str, float], found: dict[str, float]) -> list[str]:
    """A sentence for each workload over its stored ratio and the margin."""
    return [
        f"{key} costs {found[key]:.2f} times hand-written psycopg2, and {limit:.2f} is stored. "
        "Find what made it dearer; if it is worth it: python -m benchmarks.guard --accept"
        for key, limit in stored.items()
        if found[key] > limit * (1 + MARGIN)
    ]


def measured() -> dict[str, float]:
    """The ratios of this tree."""
    results = Results([WORKLOADS[key] for key in GUARDED])
    with callgrind(client_only=True) as meter:
        count(meter, [BASELINE, "orm_core"], results)
    ratios = {key: results.ratio(key, "orm_core", "client") for key in sorted(GUARDED)}
    return {key: round(ratio, 3) for key, ratio in ratios.items() if ratio is not None}


def main(arguments: list[str]) -> int:
    """Measure and compare; answers the exit code."""
    if not Callgrind.there():
        print("The instruction guard is skipped: there is no valgrind to count with.")
        return 0
    found = measured()
    print("Client instructions, times hand-written psycopg2:", found)
    if "--accept" in arguments:
        STORED.write_text(json.dumps(found, indent=2) + "\n")
        return 0
    failures = too_dear(json.loads(STORED.read_text()), found)
    print("\n".join(failures) or "None rose over what is stored.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
