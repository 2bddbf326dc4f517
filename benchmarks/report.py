"""The figures of a run: on the terminal, as JSON, as the page of the docs."""

from __future__ import annotations

from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.measure import Results


def show(results: Results) -> None:
    """Print the tables."""
    names = [name for name in CONTENDERS if name in results.versions]
    print(f"PostgreSQL {results.server}; instructions: {results.how}")
    for figure, title in (
        ("instructions", f"Instructions, client and server, as a multiple of {BASELINE}"),
        ("client", "Instructions of the client"),
        ("server", "Instructions of the server"),
        ("seconds", "Wall time"),
    ):
        print(f"\n{title}")
        width = max(len(name) for name in names)
        print(" " * width, *(f"{one.key:>6}" for one in results.workloads))
        for name in names:
            line = []
            for one in results.workloads:
                ratio = results.ratio(one.key, name, figure)
                line.append(f"{ratio:>6.2f}" if ratio is not None else f"{'-':>6}")
            print(f"{name:<{width}}", *line)
