"""The figures of a run: on the terminal, as JSON, as the page of the docs."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.imports import BEFORE
from benchmarks.measure import Results
from benchmarks.workloads import Workload

DOCS: Final = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- figures: written by python -m benchmarks --docs -->", "<!-- /figures -->"
#: how many calls a second W14 could make: its connections and the time away
IDEAL: Final = 10 / 0.005

TABLES: Final = (
    ("instructions", "Instructions, client and server, as a multiple of hand-written psycopg2"),
    ("client", "Instructions of the client, as a multiple"),
    ("server", "Instructions of the server, as a multiple"),
    ("seconds", "Wall time, as a multiple"),
)


def in_order(results: Results) -> list[Workload]:
    """The workloads by number."""
    return sorted(results.workloads, key=lambda one: int(one.key[1:]))


def contenders(results: Results) -> list[str]:
    """Those that were there."""
    return [name for name in CONTENDERS if name in results.versions]


def rows_of(results: Results, figure: str) -> list[list[str]]:
    """A table of ratios with its heads; empty when nothing was measured."""
    measured = [
        one for one in in_order(results) if getattr(results.cell(one.key, BASELINE), figure)
    ]
    if not measured:
        return []
    table = [["", *(one.key for one in measured)]]
    for name in contenders(results):
        line = []
        for one in measured:
            ratio = results.ratio(one.key, name, figure)
            unable = results.cell(one.key, name).unable
            line.append(f"{ratio:.2f}" if ratio is not None else "can't" if unable else "")
        if any(line):
            table.append([name, *line])
    return table


def base_rows(results: Results) -> list[list[str]]:
    """What the baseline's calls cost."""
    table = [["", "", "client", "server", "microseconds"]]
    for one in in_order(results):
        cell = results.cell(one.key, BASELINE)
        figures = (cell.client, cell.server, cell.seconds and cell.seconds * 1e6)
        if any(figures):
            table.append(
                [one.key, one.title, *(f"{figure:,.0f}" if figure else "" for figure in figures)]
            )
    return table


def sentences(results: Results) -> list[str]:
    """What is said in words: metrics, W14, imports, who can't do what."""
    found = []
    off = results.cell("W12", "orm_core no metrics").client
    on = results.cell("W2", "orm_core").client
    if off and on:
        found.append(f"W12: metrics add {on - off:,.0f} client instructions to a call.")
    for name in contenders(results):
        seconds = results.cell("W14", name).seconds
        if seconds:
            rate = 1 / seconds
            found.append(
                f"W14: {name} makes {rate:,.0f} calls a second, {rate / IDEAL:.0%} of the ideal "
                f"{IDEAL:,.0f}."
            )
    before = results.imports.get(BEFORE)
    for name, one in results.imports.items():
        more = f", {one.milliseconds - before.milliseconds:+.0f} ms" if before else ""
        found.append(
            f"W13: {name} is imported in {one.milliseconds:.0f} ms{more}; the process has "
            f"{one.megabytes:.0f} MB then, {one.modules:.0f} modules more than at its start."
        )
    for (key, name), cell in sorted(results.cells.items()):
        if cell.unable:
            found.append(f"{key}: {name} can't: {cell.unable}.")
    found += [f"{name} was not there: {why}." for name, why in results.absent.items()]
    return found


def show(results: Results) -> None:
    """Print the tables."""
    print(f"PostgreSQL {results.server}; instructions: {results.how}")
    for title, table in (
        ("What a call of hand-written psycopg2 costs", base_rows(results)),
        *((title, rows_of(results, figure)) for figure, title in TABLES),
    ):
        if len(table) > 1:
            print(f"\n{title}")
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            for row in table:
                first, *others = zip(row, widths, strict=True)
                print(f"{first[0]:<{first[1]}}", *(f"{text:>{width}}" for text, width in others))
    print("\n" + "\n".join(sentences(results)))


def as_json(results: Results) -> str:
    """All figures."""
    return json.dumps(
        {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "server": results.server,
            "instructions": results.how,
            "versions": results.versions,
            "returns": results.returns,
            "absent": results.absent,
            "imports": {name: asdict(one) for name, one in results.imports.items()},
            "workloads": {
                one.key: {
                    "title": one.title,
                    "contenders": {
                        name: asdict(results.cell(one.key, name)) for name in contenders(results)
                    },
                }
                for one in in_order(results)
            },
        },
        indent=2,
    )


def machine() -> str:
    """Processor, cores, system, Python."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{name}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"


def write_docs(results: Results) -> None:
    """Put the tables and the plot into docs/performance.md, between its marks."""
    page = DOCS / "performance.md"
    head, begin, rest = page.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page} lacks the marks {BEGIN} and {END}")
    page.write_text(f"{head}{BEGIN}\n\n{_figures(results)}\n{END}{tail}")
    plot(results, DOCS / "performance.svg")


def _figures(results: Results) -> str:
    parts = [
        f"Made on {datetime.now(UTC):%Y-%m-%d}: {machine()}, PostgreSQL {results.server}. "
        f"Instructions: {results.how}.",
        "![Instructions of each contender as a multiple of psycopg2's](performance.svg)",
    ]
    parts += [
        f"### {title}\n\n{_markdown(table)}"
        for figure, title in TABLES
        if len(table := rows_of(results, figure)) > 1
    ]
    parts.append(f"### A call of hand-written psycopg2\n\n{_markdown(base_rows(results))}")
    parts.append("### In words\n\n" + "\n".join(f"- {one}" for one in sentences(results)))
    versions = [
        [
            name,
            results.returns[name],
            ", ".join(f"{what} {number}" for what, number in results.versions[name].items()),
        ]
        for name in contenders(results)
    ]
    parts.append("### Who took part\n\n" + _markdown([["", "a row is a", "versions"], *versions]))
    return "\n\n".join(parts) + "\n"


def _markdown(table: list[list[str]]) -> str:
    head, *rows = table
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def plot(results: Results, path: Path) -> None:
    """A dot for each contender and workload, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "orm_core"  # the same figures give the same file
    from matplotlib import pyplot

    figure_name = "instructions" if rows_of(results, "instructions") else "seconds"
    workloads = [one for one in in_order(results) if one.key not in ("W12", "W14")]
    names = [name for name in contenders(results) if name != BASELINE and not CONTENDERS[name].only]
    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    for name in names:
        ratios: list[Any] = [results.ratio(one.key, name, figure_name) for one in workloads]
        ours = name.startswith("orm_core")
        axes.plot(
            [one.key for one in workloads],
            [float("nan") if ratio is None else ratio for ratio in ratios],
            "o-" if ours else ".:",
            linewidth=2.5 if ours else 1,
            label=name,
        )
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_yticks([0.5, 1, 2, 4, 8, 16], ["0.5", "1", "2", "4", "8", "16"])
    axes.minorticks_off()
    axes.set_ylabel("times hand-written psycopg2")
    axes.legend(fontsize="small", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
