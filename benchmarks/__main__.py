"""``python -m benchmarks``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks import imports, report
from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.counting import best_meter
from benchmarks.measure import Results, clock, count
from benchmarks.workloads import WORKLOADS


def main() -> None:
    """Run what the command line asks for, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", help="workloads: W1,W2 (default: all)")
    parser.add_argument("--peers", help="contenders: orm_core,peewee (default: all)")
    parser.add_argument("--repeat", type=int, default=7, help="rounds of the clock; 0: no clock")
    parser.add_argument("--meter", default="auto", help="auto, hardware, callgrind or none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--docs", action="store_true", help="write docs/performance.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended from outside."))  # and clean up
    keys = options.only.split(",") if options.only else [*WORKLOADS, "W13"]
    names = options.peers.split(",") if options.peers else list(CONTENDERS)
    for kind, given, known in (
        ("workload", keys, [*WORKLOADS, "W13"]),
        ("contender", names, list(CONTENDERS)),
    ):
        for one in given:
            if one not in known:
                parser.error(f"there is no {kind} {one}; there are {', '.join(known)}")
    names = [BASELINE, *(name for name in names if name != BASELINE)]

    results = Results([one for one in WORKLOADS.values() if one.key in keys])
    if results.workloads:
        with best_meter(options.meter) as meter:
            if meter is not None:
                count(meter, names, results)
        if options.repeat:
            clock(names, options.repeat, results)
    if "W13" in keys:
        results.imports = imports.measure()
    report.show(results)
    if options.json:
        options.json.write_text(report.as_json(results))
    if options.docs:
        report.write_docs(results)


if __name__ == "__main__":
    main()
