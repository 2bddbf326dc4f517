"""Prometheus metrics of every query, per table; the guide's names.

A receiver of query events, so it sees what anybody sends: models, services, raw SQL, eager loads,
BEGIN and COMMIT. Labels are bounded: operations are a fixed list, tables are the registered ones
(``other`` for the rest, ``none`` for transaction control), error kinds are those of
``orm_core.errors``.

A statement only notes its duration, which no lock guards; a scrape, or a list that has grown long,
sorts the noted ones into their buckets. So a statement costs less than a microsecond. Where ``PROMETHEUS_MULTIPROC_DIR`` is set, prometheus_client's own
metrics count instead: they share their values with the other processes.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from orm_core.crypto.ring import seals
from orm_core.database.connection import db
from orm_core.database.events import NONE, OTHER, Counts, Told, signals
from orm_core.database.pool_stats import REASONS, WAIT_BUCKETS, PoolStats
from orm_core.database.retries import retries
from orm_core.errors import QueryError

#: seconds; from a look-up by key to a report
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: durations noted for a series before they are sorted into their buckets
MOST_NOTED = 256

T = TypeVar("T")

QUERIES = "db_queries", "Statements sent, failed ones included."
DURATIONS = "db_query_duration_seconds", "Time from sending a statement to its answer."
FAILURES = "db_query_errors", "Statements that failed, by kind of error."
LABELS = "operation", "table"
_SUMMED = _SENT, _FAILED, _SECONDS = (
    f"{QUERIES[0]}_total",
    f"{FAILURES[0]}_total",
    f"{DURATIONS[0]}_sum",
)


class _Series:
    """The statements with one operation on one table: their durations, and their errors by kind.

    ``list.append`` is one step for all threads, and so are the slices by which one thread at a
    time, under the lock, takes what is noted: nothing is lost, and nothing counted twice.
    """

    def __init__(self) -> None:
        self._noted: list[float] = []
        self._failed: list[str] = []
        self.start_anew()

    def start_anew(self) -> None:
        """Forget all; for a forked process, where a thread of the parent may hold the lock."""
        self._lock = threading.Lock()
        self._noted.clear()
        self._failed.clear()
        #: how many durations fell in each bucket
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.failures: Tally[str] = Tally()

    def count(self, seconds: float, error: BaseException | None) -> None:
        """Count one statement."""
        self._noted.append(seconds)
        if error is not None:
            self._failed.append(_kind(error))
        if len(self._noted) > MOST_NOTED:
            self._make_room()

    def _make_room(self) -> None:
        lock = self._lock
        if lock.acquire(blocking=False):  # or another thread is at it
            try:
                self._sort()
            finally:
                lock.release()

    def totals(self) -> tuple[list[int], float, dict[str, int]]:
        """The count of each bucket, the sum of seconds, and the errors by kind."""
        with self._lock:
            self._sort()
            return list(self.counts), self.seconds, dict(self.failures)

    def _sort(self) -> None:
        noted, failed = _taken(self._noted), _taken(self._failed)
        noted.sort()
        ends = [0, *(bisect_right(noted, bound) for bound in BUCKETS), len(noted)]
        for place, (start, end) in enumerate(pairwise(ends)):
            self.counts[place] += end - start
        self.seconds += sum(noted)
        self.failures.update(failed)


def _taken(noted: list[T]) -> list[T]:
    """What a list holds, taken from it while other threads go on appending."""
    some = noted[:]
    del noted[: len(some)]
    return some


class QueryCollector(Collector, Counts):
    """Counts statements, and tells Prometheus; one for the process."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], _Series] = {}

    def counter(self, operation: str, table: str) -> Told:
        """What counts a statement; from now on there is a series of this operation and table.

        It begins at 0, so that a rate can be taken of the first event.
        """
        return self._series.setdefault((operation, table), _Series()).count

    def start_anew(self) -> None:
        """Count from 0, as a process does that was forked: its parent counts its own."""
        for series in self._series.values():
            series.start_anew()

    def collect(self) -> Iterator[Metric]:
        """Prometheus' hook."""
        queries = CounterMetricFamily(*QUERIES, labels=LABELS)
        durations = HistogramMetricFamily(*DURATIONS, labels=LABELS)
        failures = CounterMetricFamily(*FAILURES, labels=(*LABELS, "kind"))
        bounds = [*map(str, BUCKETS), "+Inf"]
        for key, series in sorted(self._series.items()):
            counts, seconds, failed = series.totals()
            running = list(accumulate(counts))
            queries.add_metric(key, running[-1])
            durations.add_metric(key, list(zip(bounds, running, strict=True)), seconds)
            for kind, count in sorted(failed.items()):
                failures.add_metric((*key, kind), count)
        yield from (queries, durations, failures)


class SharedCounts(Counts):
    """The same by prometheus_client's own metrics, whose values several processes share."""

    def __init__(self) -> None:
        self._queries = Counter(*QUERIES, LABELS)
        self._durations = Histogram(*DURATIONS, LABELS, buckets=BUCKETS)
        self._failures = Counter(*FAILURES, (*LABELS, "kind"))

    def counter(self, operation: str, table: str) -> Told:
        """What counts a statement; from now on there is a series of this operation and table."""
        queries = self._queries.labels(operation, table)
        durations = self._durations.labels(operation, table)

        def count(seconds: float, error: BaseException | None) -> None:
            queries.inc()
            durations.observe(seconds)
            if error is not None:
                self._failures.labels(operation, table, _kind(error)).inc()

        return count


def _kind(error: BaseException) -> str:
    return error.kind if isinstance(error, QueryError) else "other"


class PoolCollector(Collector):
    """The pool's state at the moment of the scrape, and what it counted so far."""

    def collect(self) -> Iterator[Metric]:
        """Prometheus' hook."""
        stats = PoolStats(0, 0, 0, 0) if db.deferred else db.pool_stats()
        size, in_use, idle, waiting = stats.size, stats.in_use, stats.idle, stats.waiting
        for name, text, value in (
            ("db_connection_pool_size", "Open connections, in use or idle.", in_use + idle),
            ("db_connection_pool_limit", "Most connections that this process opens.", size),
            ("db_connections_in_use", "Connections that a thread holds.", in_use),
            ("db_connections_idle", "Open connections that wait for use.", idle),
            ("db_connections_waiting", "Threads that wait for a connection.", waiting),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        yield CounterMetricFamily(
            "db_connections_opened", "Connections opened.", value=stats.opened
        )
        closed = CounterMetricFamily(
            "db_connections_closed", "Connections closed, by reason.", labels=["reason"]
        )
        for reason in REASONS:
            closed.add_metric([reason], stats.closed.get(reason, 0))
        yield closed
        yield CounterMetricFamily(
            "db_connection_timeouts", "Waits for a connection in vain.", value=stats.timeouts
        )
        yield _waits(stats)


def _waits(stats: PoolStats) -> HistogramMetricFamily:
    """Who found an idle connection waited for none: the first bucket has them."""
    counts = list(stats.wait_counts) or [0] * (len(WAIT_BUCKETS) + 1)
    counts[0] += stats.taken - (stats.waits - stats.timeouts)
    bounds = [*map(str, WAIT_BUCKETS), "+Inf"]
    return HistogramMetricFamily(
        "db_connection_wait_seconds",
        "Time that threads queued for a connection.",
        buckets=list(zip(bounds, accumulate(counts), strict=True)),
        sum_value=stats.waited,
    )


class SealCollector(Collector):
    """How often each key encrypted, of which 2^32 times are safe."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Prometheus' hook."""
        family = CounterMetricFamily(
            "db_encryptions", "Values encrypted by this process, by key.", labels=["key"]
        )
        for key_id, count in sorted(seals().items()):
            family.add_metric([key_id], count)
        yield family


class RetryCollector(Collector):
    """How often ``run_transaction`` ran a transaction again."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Prometheus' hook."""
        family = CounterMetricFamily(
            "db_transaction_retries", "Transactions run again, by kind of error.", labels=["kind"]
        )
        counted = retries()
        for kind in ("connection", "deadlock", "serialization"):
            family.add_metric([kind], counted.get(kind, 0))
        yield family


def _counts() -> QueryCollector | SharedCounts:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        return SharedCounts()  # its metrics register themselves
    collector = QueryCollector()
    REGISTRY.register(collector)
    os.register_at_fork(after_in_child=collector.start_anew)
    return collector


counts: QueryCollector | SharedCounts = _counts()
REGISTRY.register(PoolCollector())
REGISTRY.register(SealCollector())
REGISTRY.register(RetryCollector())


def observe(tables: Iterable[str]) -> None:
    """Count the statements on these tables, and those on none or others."""
    for table in tables:
        signals.connect(counts, table)
        for operation in ("select", "insert", "update", "delete"):
            counts.counter(operation, table)
    for table in (NONE, OTHER):
        signals.connect(counts, table)


class Totals(NamedTuple):
    """What was counted of one operation on one table; ``seconds`` is the sum."""

    operation: str
    table: str
    queries: int
    errors: int
    seconds: float


def totals(registry: CollectorRegistry = REGISTRY) -> list[Totals]:
    """The counts by operation and table, for people; machines read ``text()``."""
    sums: dict[tuple[str, str], defaultdict[str, float]] = {}
    for family in registry.collect():
        for sample in family.samples:
            if sample.name in _SUMMED:
                key = sample.labels["operation"], sample.labels["table"]
                sums.setdefault(key, defaultdict(float))[sample.name] += sample.value
    return [
        Totals(*key, int(values[_SENT]), int(values[_FAILED]), values[_SECONDS])
        for key, values in sorted(sums.items())
    ]


def text(registry: CollectorRegistry = REGISTRY) -> str:
    """All metrics in Prometheus' text format, for a ``/metrics`` page."""
    return generate_latest(registry).decode()
