"""In a process that gevent patched, psycopg 3 works and psycopg 2 is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GREEN = Path(__file__).with_name("green.py")


def run(driver: str, url: str) -> Any:
    command = [sys.executable, str(GREEN), driver, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_greenlets_wait_for_the_server_side_by_side(clone_db, orm_core_server):
    assert run("psycopg3", orm_core_server.url(clone_db.database)) == {
        "others ran": True,
        "rows": [0, 2, 4, 6, 8],
        "limited": True,
        "killed left": 0,
        "in use": 0,
    }


def test_a_driver_that_would_stop_all_greenlets_is_refused():
    assert 'driver="psycopg3"' in run("psycopg2", "postgresql://u@127.0.0.1/x")["refused"]
