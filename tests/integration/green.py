"""A process of gevent's: ``python green.py DRIVER URL`` prints what it saw as JSON."""

# ruff: noqa: E402 - gevent patches before anything is imported

from gevent import monkey

monkey.patch_all()

import json
import sys
import time

import gevent

from orm_core import (
    ConfigurationError,
    StatementTimeout,
    close_db,
    db,
    initialize_db,
    time_limit,
    transaction,
)


def insert(number: int) -> None:
    try:
        with transaction():
            db.execute_sql("INSERT INTO green VALUES (%s)", (number,))
            gevent.sleep(0.02)
            if number % 2:
                raise KeyError
    except KeyError:
        pass


def main(driver: str, url: str) -> dict[str, object]:
    try:
        initialize_db(url, driver=driver, pool_size=3)
    except ConfigurationError as error:
        return {"refused": str(error)}
    seen: dict[str, object] = {}
    db.execute_sql("CREATE TABLE green (number int)")
    ticks = [0]

    def tick() -> None:
        while True:
            ticks[0] += 1
            gevent.sleep(0.01)

    ticker = gevent.spawn(tick)
    gevent.joinall([gevent.spawn(db.execute_sql, "SELECT pg_sleep(0.3)") for _ in range(3)])
    seen["others ran"] = ticks[0] > 5
    gevent.joinall([gevent.spawn(insert, number) for number in range(10)])
    seen["rows"] = sorted(row[0] for row in db.execute_sql("SELECT number FROM green").fetchall())
    started = time.monotonic()
    try:
        with time_limit(0.2):
            db.execute_sql("SELECT pg_sleep(20)")
    except StatementTimeout:
        seen["limited"] = time.monotonic() - started < 10

    def killed() -> None:
        with transaction():
            db.execute_sql("INSERT INTO green VALUES (99)")
            db.execute_sql("SELECT pg_sleep(20)")

    victim = gevent.spawn(killed)
    gevent.sleep(0.1)
    victim.kill()
    left = db.execute_sql("SELECT count(*) FROM green WHERE number = 99").fetchone()
    seen["killed left"] = left[0]
    seen["in use"] = db.pool_stats().in_use
    ticker.kill()
    close_db()
    return seen


sys.stdout.write(json.dumps(main(*sys.argv[1:])))
