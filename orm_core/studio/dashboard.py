"""The live metrics, remembered for some minutes and drawn as small charts.

They are a service's own when the studio is told where its ``/metrics`` page is, else those of the
studio's process. A sample is taken every five seconds.
"""

from __future__ import annotations

import logging
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from orm_core import metrics
from orm_core.errors import ConfigurationError

logger: logging.Logger = logging.getLogger("orm_core.studio")

EVERY: Final = 5.0
KEPT: Final = 120
#: seconds and bytes that a service's page may take
FETCH_SECONDS: Final = 2.0
FETCH_BYTES: Final = 4 << 20

#: (operation, table)
Series = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at one moment, by operation and table."""

    at: float
    counts: dict[Series, float] = field(default_factory=dict[Series, float])
    seconds: dict[Series, float] = field(default_factory=dict[Series, float])
    errors: dict[Series, float] = field(default_factory=dict[Series, float])
    buckets: dict[Series, dict[float, float]] = field(
        default_factory=dict[Series, dict[float, float]]
    )
    pool: dict[str, float] = field(default_factory=dict[str, float])


def read_sample(text: str, at: float) -> Sample:
    """The sample in a page of Prometheus' text format."""
    sample = Sample(at)
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = one.labels
            series = labels.get("operation", ""), labels.get("table", "")
            match one.name:
                case "db_queries_total":
                    sample.counts[series] = one.value
                case "db_query_duration_seconds_sum":
                    sample.seconds[series] = one.value
                case "db_query_duration_seconds_bucket":
                    sample.buckets.setdefault(series, {})[float(labels["le"])] = one.value
                case "db_query_errors_total":
                    sample.errors[series] = sample.errors.get(series, 0.0) + one.value
                case name if name.startswith("db_connection"):
                    sample.pool[name] = one.value
                case _:
                    pass
    return sample


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table of queries: one operation on one table. Times are in milliseconds."""

    operation: str
    table: str
    count: float
    rate: float
    mean: float
    p95: float | None
    errors: float
    chart: str


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure with its recent course."""

    title: str
    figure: str
    unit: str
    chart: str


class Sampler:
    """Keeps the samples of the last ten minutes, in a thread of its own once started."""

    def __init__(self, url: str | None = None) -> None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ConfigurationError("--metrics takes the http:// address of a /metrics page.")
        self.url = url
        self.problem: str | None = None
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take samples from now on."""
        self._thread = threading.Thread(target=self._run, name="studio-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(FETCH_SECONDS * 2)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.take()
            self._stopped.wait(EVERY)

    def take(self) -> None:
        """Take a sample now; a page that can't be read is a problem to tell, no error."""
        try:
            text = metrics.text() if self.url is None else _fetched(self.url)
            sample = read_sample(text, time.monotonic())
        except (OSError, ValueError) as error:
            self.problem = f"The metrics can't be read from there: {type(error).__name__}."
            return
        self.problem = None
        with self._lock:
            self._samples.append(sample)

    @property
    def samples(self) -> list[Sample]:
        """The samples so far, the oldest first."""
        with self._lock:
            return list(self._samples)

    def lines(self) -> list[Line]:
        """The queries by table and operation, the most frequent first."""
        samples = self.samples
        if not samples:
            return []
        last = samples[-1]
        lines = [_line(samples, series) for series, count in last.counts.items() if count]
        return sorted(lines, key=lambda line: (-line.count, line.table, line.operation))

    def tiles(self) -> list[Tile]:
        """The figures of the whole."""
        samples = self.samples
        if not samples:
            return []
        last = samples[-1]
        rates = _rates([(one.at, sum(one.counts.values())) for one in samples])
        latencies = _ratios(samples)
        failed = [sum(one.errors.values()) for one in samples]
        used = [one.pool.get("db_connections_in_use", 0.0) for one in samples]
        limit = last.pool.get("db_connection_pool_limit", 0.0)
        waiting = last.pool.get("db_connections_waiting", 0.0)
        busy = f"of {limit:.0f} connections" + (f", {waiting:.0f} wait" if waiting else "")
        return [
            Tile("Queries", _figure(rates[-1] if rates else 0.0), "a second", spark(rates)),
            Tile("Latency", _figure(latencies[-1] if latencies else 0.0), "ms, mean",
                 spark(latencies)),
            Tile("Errors", f"{failed[-1]:.0f}", "since the start", spark(failed)),
            Tile("Pool", f"{used[-1]:.0f}", busy, spark(used, most=limit or None)),
        ]  # fmt: skip


def _fetched(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=FETCH_SECONDS) as answer:
            data: bytes = answer.read(FETCH_BYTES)
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError from None
    return data.decode("utf-8", "replace")


def _line(samples: list[Sample], series: Series) -> Line:
    last = samples[-1]
    count = last.counts[series]
    rates = _rates([(one.at, one.counts.get(series, 0.0)) for one in samples])
    return Line(
        *series,
        count=count,
        rate=rates[-1] if rates else 0.0,
        mean=last.seconds.get(series, 0.0) / count * 1000,
        p95=quantile(last.buckets.get(series, {}), 0.95),
        errors=last.errors.get(series, 0.0),
        chart=spark(rates, width=96, height=22),
    )


def _rates(points: Iterable[tuple[float, float]]) -> list[float]:
    """Changes a second between counters; one that fell began anew (Prometheus' ``rate``)."""
    return [
        max(later - earlier, 0.0) / (end - start)
        for (start, earlier), (end, later) in pairwise(points)
        if end > start
    ]


def _ratios(samples: list[Sample]) -> list[float]:
    """Mean milliseconds of the queries between samples; where there were none, as before."""
    found: list[float] = []
    for earlier, later in pairwise(samples):
        count = sum(later.counts.values()) - sum(earlier.counts.values())
        seconds = sum(later.seconds.values()) - sum(earlier.seconds.values())
        before = found[-1] if found else 0.0
        found.append(max(seconds, 0.0) / count * 1000 if count > 0 else before)
    return found


def quantile(buckets: dict[float, float], share: float) -> float | None:
    """A quantile in milliseconds, as Prometheus' ``histogram_quantile`` reckons it."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total:
        return None
    wanted, below, floor = total * share, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                return floor * 1000
            inside = buckets[bound] - below
            return (floor + (bound - floor) * (wanted - below) / inside) * 1000
        below, floor = buckets[bound], bound
    return None


def spark(
    numbers: list[float], *, width: int = 160, height: int = 36, most: float | None = None
) -> str:
    """The points of a line chart in an SVG of this size; nothing to draw for one number."""
    shown = numbers[-60:]
    if len(shown) < 2:
        return ""
    top = most or max(shown) or 1.0
    step = width / (len(shown) - 1)
    return " ".join(
        f"{place * step:.1f},{height - 2 - min(number / top, 1.0) * (height - 4):.1f}"
        for place, number in enumerate(shown)
    )


def _figure(number: float) -> str:
    return (
        f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 1 else f"{number:.2f}"
    )
