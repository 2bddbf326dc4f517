"""Prometheus metrics of every query, per table; the guide's names.

A receiver of query events, so it sees what anybody sends: models, services, raw SQL, eager loads,
BEGIN and COMMIT. Labels are bounded: operations are a fixed list, tables are the registered ones
(``other`` for the rest, ``none`` for transaction control), error kinds are those of
``orm_core.errors``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from orm_core.database.connection import db
from orm_core.database.events import NONE, OTHER, QueryEvent, signals
from orm_core.errors import QueryError

#: seconds; from a look-up by key to a report
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

queries = Counter("db_queries", "Statements sent, failed ones included.", ["operation", "table"])
durations = Histogram(
    "db_query_duration_seconds",
    "Time from sending a statement to its answer.",
    ["operation", "table"],
    buckets=BUCKETS,
)
failures = Counter(
    "db_query_errors", "Statements that failed, by kind of error.", ["operation", "table", "kind"]
)

#: label children, bound once for each operation and table
_bound: dict[tuple[str, str], tuple[Counter, Histogram]] = {}


def record(event: QueryEvent) -> None:
    """Count one statement."""
    count, duration = _children(event.operation, event.table)
    count.inc()
    duration.observe(event.seconds)
    if event.error is not None:
        kind = event.error.kind if isinstance(event.error, QueryError) else "other"
        failures.labels(event.operation, event.table, kind).inc()


def observe(tables: Iterable[str]) -> None:
    """Count the statements on these tables, and those on none or others.

    The series of each table are there from the start, at 0, so that a rate can be taken of the
    first one.
    """
    for table in tables:
        signals.connect(record, table)
        for operation in ("select", "insert", "update", "delete"):
            _children(operation, table)
    for table in (NONE, OTHER):
        signals.connect(record, table)


def _children(operation: str, table: str) -> tuple[Counter, Histogram]:
    key = operation, table
    children = _bound.get(key)
    if children is None:
        children = _bound[key] = (queries.labels(*key), durations.labels(*key))
    return children


class PoolCollector(Collector):
    """The pool's state at the moment of the scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Prometheus' hook."""
        size, in_use, idle, waiting = (0, 0, 0, 0) if db.deferred else db.pool_stats()
        for name, text, value in (
            ("db_connection_pool_size", "Open connections, in use or idle.", in_use + idle),
            ("db_connection_pool_limit", "Most connections that this process opens.", size),
            ("db_connections_in_use", "Connections that a thread holds.", in_use),
            ("db_connections_idle", "Open connections that wait for use.", idle),
            ("db_connections_waiting", "Threads that wait for a connection.", waiting),
        ):
            yield GaugeMetricFamily(name, text, value=value)


REGISTRY.register(PoolCollector())


def text(registry: CollectorRegistry = REGISTRY) -> str:
    """All metrics in Prometheus' text format, for a ``/metrics`` page."""
    return generate_latest(registry).decode()
