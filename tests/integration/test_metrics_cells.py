"""Counts are exact while threads come and go, after a fork, and over several processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from service_helpers import User, UsersService, new_user, user_data

from orm_core import db, metrics, transaction
from orm_core.metrics import QueryCollector


def count(collector: QueryCollector, name: str = "db_queries_total", **labels: str) -> float:
    registry = CollectorRegistry()
    registry.register(collector)
    wanted = {"operation": "select", "table": "users", **labels}
    return registry.get_sample_value(name, wanted) or 0.0


def test_threads_that_end_and_threads_that_run_are_counted_while_somebody_scrapes():
    collector = QueryCollector()
    tell = collector.counter("select", "users")
    each, rounds = 200, 4
    scrapes: list[float] = []
    done = threading.Event()

    def scrape() -> None:
        while not done.is_set():
            scrapes.append(count(collector))

    def work() -> None:
        for number in range(each):
            tell(0.5 if number % 2 else 0.0001, None)
        if threading.current_thread().name.endswith("7"):
            tell(0.001, ValueError())

    scraper = threading.Thread(target=scrape)
    scraper.start()
    for round_ in range(rounds):
        workers = [threading.Thread(target=work, name=f"{round_}-{n}") for n in range(16)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    done.set()
    scraper.join()
    total = 16 * each * rounds + rounds
    assert count(collector) == total
    assert count(collector, "db_query_duration_seconds_count") == total
    assert count(collector, "db_query_errors_total", kind="other") == rounds
    assert count(collector, "db_query_duration_seconds_bucket", le="+Inf") == total
    assert count(collector, "db_query_duration_seconds_bucket", le="0.0005") == total // 2 - 2
    assert scrapes == sorted(scrapes)


def test_what_is_noted_is_bounded_without_a_scrape():
    collector = QueryCollector()
    tell = collector.counter("select", "users")
    for _ in range(5 * metrics.MOST_NOTED):
        tell(0.001, ValueError())
    series = collector._series["select", "users"]
    assert len(series._noted) <= metrics.MOST_NOTED
    assert len(series._failed) <= metrics.MOST_NOTED
    assert count(collector) == 5 * metrics.MOST_NOTED
    assert count(collector, "db_query_errors_total", kind="other") == 5 * metrics.MOST_NOTED


def test_a_duration_falls_into_the_bucket_that_it_equals():
    collector = QueryCollector()
    for bound in metrics.BUCKETS:
        collector.counter("select", "users")(bound, None)
    for place, bound in enumerate(metrics.BUCKETS, start=1):
        assert count(collector, "db_query_duration_seconds_bucket", le=str(bound)) == place
    assert count(collector, "db_query_duration_seconds_sum") == pytest.approx(sum(metrics.BUCKETS))


def test_a_duration_above_all_buckets_is_counted():
    collector = QueryCollector()
    collector.counter("select", "users")(11.0, None)
    assert count(collector) == 1
    assert count(collector, "db_query_duration_seconds_bucket", le="10.0") == 0
    assert count(collector, "db_query_duration_seconds_bucket", le="+Inf") == 1


def test_a_series_that_is_declared_begins_at_zero():
    collector = QueryCollector()
    collector.counter("select", "users")
    registry = CollectorRegistry()
    registry.register(collector)
    labels = {"operation": "select", "table": "users"}
    assert registry.get_sample_value("db_queries_total", labels) == 0.0
    collector.start_anew()
    assert registry.get_sample_value("db_queries_total", labels) == 0.0


def in_child(work: Any) -> str:
    """What ``work`` answers in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return answer.read()


def test_a_forked_process_counts_its_own_statements_only(clone_db):
    new_user()
    labels = {"operation": "insert", "table": "users"}

    def value() -> Any:
        return REGISTRY.get_sample_value("db_queries_total", labels)

    before = value()
    assert before >= 1

    def child() -> Any:
        started = value()
        new_user(email="child@example.com", provider_account_id="child")
        return started, value()

    assert in_child(child) == "(0, 1)"
    assert value() == before


def test_a_fork_while_another_thread_counts_does_not_hang_the_child():
    collector = metrics.counts
    assert isinstance(collector, QueryCollector)
    with contextlib.ExitStack() as held:  # as a thread of the parent may, at that moment
        for series in collector._series.values():
            held.enter_context(series._lock)
        answer = in_child(lambda: len(metrics.text()) > 0)
    assert answer == "True"


def test_begin_is_counted_once_however_it_travels(clone_db):
    def begun() -> float:
        labels = {"operation": "begin", "table": "none"}
        return REGISTRY.get_sample_value("db_queries_total", labels) or 0.0

    before = begun()
    with transaction():
        pass
    assert begun() == before
    with transaction():
        new_user()
        new_user()
    assert begun() == before + 1
    with transaction(), transaction():
        new_user()
    assert begun() == before + 2
    with transaction():
        db.connection()
        new_user()
    assert begun() == before + 3


def test_counts_follow_each_statement_of_a_service(rollback_db):
    labels = {"operation": "update", "table": "users"}
    before = REGISTRY.get_sample_value("db_queries_total", labels) or 0.0
    user = UsersService.create(user_data())
    UsersService.update(user.id, {"first_name": "x"})
    User.update(first_name="y").where(User.id == user.id).execute()
    assert REGISTRY.get_sample_value("db_queries_total", labels) == before + 2


SHARED = """
import os, sys
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from domains.users import UsersService
from orm_core import initialize_db, registry, close_db, metrics
registry.discover()
initialize_db(sys.argv[1])
def add(number):
    UsersService.create({"email": f"{number}@x", "first_name": "x", "provider_account_id": number})
add(str(os.getpid()))
close_db()
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        for turn in range(5):
            add(f"{os.getpid()}.{turn}")
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
shared = CollectorRegistry()
multiprocess.MultiProcessCollector(shared)
sys.stdout.write(generate_latest(shared).decode())
"""


def test_processes_that_share_a_folder_are_added_up(clone_db, orm_core_server, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SHARED, orm_core_server.url(clone_db.database)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    samples = {
        (sample.name, sample.labels.get("operation"), sample.labels.get("table")): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
        if sample.labels.get("le") in (None, "+Inf")
    }
    assert samples["db_queries_total", "insert", "users"] == 16
    assert samples["db_query_duration_seconds_count", "insert", "users"] == 16
    assert samples["db_query_duration_seconds_bucket", "insert", "users"] == 16
