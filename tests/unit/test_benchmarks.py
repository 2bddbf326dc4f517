import json
import sys
from pathlib import Path

import pytest

# Not installed with the package; the path goes again, so that orm_core stays the installed one.
sys.path.append(str(Path(__file__).parents[2]))
from benchmarks import counting, guard, report
from benchmarks.contenders import CONTENDERS
from benchmarks.measure import Cell, Results, takes_part
from benchmarks.worker import plain
from benchmarks.workloads import WORKLOADS

sys.path.pop()


def results():
    found = Results([WORKLOADS["W2"], WORKLOADS["W9"]])
    found.versions = {"psycopg2": {"psycopg2": "2"}, "peewee": {"peewee": "4"}}
    found.returns = {"psycopg2": "tuple", "peewee": "model"}
    found.cells = {
        ("W2", "psycopg2"): Cell(client=100, server=100, seconds=0.001),
        ("W2", "peewee"): Cell(client=500, server=100, seconds=0.004),
        ("W9", "psycopg2"): Cell(client=100, server=300),
        ("W9", "peewee"): Cell(unable="it has no bulk"),
    }
    return found


def test_ratios_are_of_client_and_server_together_and_apart():
    found = results()
    assert found.ratio("W2", "peewee", "instructions") == 3
    assert found.ratio("W2", "peewee", "client") == 5
    assert found.ratio("W2", "peewee", "server") == 1
    assert found.ratio("W9", "peewee", "client") is None


def test_a_peer_that_cannot_do_a_workload_says_so_in_the_table():
    assert report.rows_of(results(), "client") == [
        ["", "W2", "W9"],
        ["psycopg2", "1.00", "1.00"],
        ["peewee", "5.00", "can't"],
    ]
    assert "W9: peewee can't: it has no bulk." in report.sentences(results())


def test_what_was_not_measured_has_no_column():
    assert report.rows_of(results(), "seconds")[0] == ["", "W2"]


def test_the_json_holds_every_figure():
    found = json.loads(report.as_json(results()))
    assert found["workloads"]["W2"]["contenders"]["peewee"]["client"] == 500


def test_variants_take_part_in_their_own_workloads_only():
    assert [name for name in CONTENDERS if takes_part(name, WORKLOADS["W12"])] == [
        "orm_core no metrics"
    ]
    assert not takes_part("orm_core records", WORKLOADS["W1"])
    assert takes_part("orm_core records", WORKLOADS["W7"])


def test_the_guard_names_what_rose_over_its_stored_ratio_and_margin():
    stored = {"W1": 2.0, "W2": 2.0}
    assert guard.too_dear(stored, {"W1": 2.0 * (1 + guard.MARGIN), "W2": 1.0}) == []
    (failure,) = guard.too_dear(stored, {"W1": 2.5, "W2": 2.0})
    assert failure.startswith("W1 costs 2.50")


def test_the_guard_has_a_ratio_for_each_guarded_workload():
    assert set(json.loads(guard.STORED.read_text())) == set(guard.GUARDED)


def test_what_is_compared_of_a_row_leaves_out_what_chance_sets():
    class Order:
        status, total, user_id = "paid", 3, "somebody"

    assert plain([Order(), 7]) == [{"status": "paid", "total": 3, "user_id": "somebody"}, 7]


def test_a_counter_counts_for_the_threads_that_start_after_it():
    """On the kernel's own clock of a task, which needs no hardware that counts."""
    software, task_clock = 1, 1
    try:
        counter = counting.open_counter(0, kernel=False, kind=software, config=task_clock)
    except OSError as error:
        pytest.skip(f"perf_event_open is not allowed here: {error}")
    before = counting.read_counter(counter)
    sum(range(100_000))
    assert counting.read_counter(counter) > before
