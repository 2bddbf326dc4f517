"""An interrupt at whatever line leaves the thread usable and the books of transactions right."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg2
import pytest

from orm_core import OrmCoreError, Transaction, database, db, run_transaction, transaction

FOLDER = Path(database.__file__).parent
#: whose lines are interrupted
FILES = {
    str(FOLDER / f"{name}.py")
    for name in ("connecting", "sending", "database", "transactions", "leaving", "retries")
}
#: lines without an instruction at which Python looks for signals
QUIET = ("try:", "else:", "finally:", "with ", "_, _, error, _ = (yield 0)")


class Interrupter:
    """Raises ``KeyboardInterrupt`` at one line of ours, by the number of lines before it."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.place = ""

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event != "line" and event != "call":
            return self._trace
        name = frame.f_code.co_filename
        if name not in FILES:
            return None
        text = linecache.getline(name, frame.f_lineno).strip()
        if event == "line" and not text.startswith(QUIET):
            self.left -= 1
            if self.left == 0:
                self.place = f"{Path(name).name}:{frame.f_lineno} {frame.f_code.co_name}: {text}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace

    @contextmanager
    def __call__(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)


def add(email: str) -> None:
    db.execute_sql(
        "INSERT INTO users (email, first_name, provider_account_id) VALUES (%s, 'A', %s)",
        (email, email),
    )


class Oops(Exception):
    """What a caller raises."""


class Run:
    """One run of a scenario, and the handle of its transaction."""

    def __init__(self) -> None:
        self.tx: Transaction | None = None

    def plain(self) -> None:
        with transaction() as self.tx:
            add("a")
            add("b")

    def fails(self) -> None:
        try:
            with transaction() as self.tx:
                add("a")
                raise Oops
        except Oops:
            pass

    def nested(self) -> None:
        with transaction() as self.tx:
            add("a")
            with transaction():
                add("b")

    def swallows(self) -> None:
        """What an inner block that was left by an interrupt did must not stand."""
        with transaction() as self.tx:
            add("a")
            try:
                with transaction():
                    add("b")
                    raise Oops
            except Oops:
                pass
            add("b")

    def goes_on(self) -> None:
        """The interrupt of an inner block is swallowed in the outer one."""
        with suppress(OrmCoreError), transaction() as self.tx:
            add("a")
            try:
                with transaction():
                    add("undone")
                    raise Oops
            except (Oops, KeyboardInterrupt):
                pass
            add("b")

    def in_context(self) -> None:
        with db.connection_context(), transaction() as self.tx:
            add("a")
            add("b")

    def by_peewees_name(self) -> None:
        with db:
            self.tx = db.top_transaction()  # type: ignore[assignment]
            add("a")
            add("b")

    def by_hand(self) -> None:
        with db.manual_commit():
            db.begin()
            add("a")
            add("b")
            db.commit()

    def alone(self) -> None:
        db.execute_sql(
            "INSERT INTO users (email, first_name, provider_account_id) "
            "VALUES ('a', 'A', 'a'), ('b', 'B', 'b')"
        )

    def again(self) -> None:
        def work(tx: Transaction) -> None:
            self.tx = tx
            add("a")
            add("b")

        run_transaction(work)


def stored() -> list[str]:
    connection = psycopg2.connect(dbname=db.database, **db.connect_params)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT email FROM users ORDER BY email")
        return [email for (email,) in cursor]
    finally:
        connection.close()


@pytest.mark.parametrize(
    "scenario",
    [
        Run.plain,
        Run.fails,
        Run.nested,
        Run.swallows,
        Run.goes_on,
        Run.in_context,
        Run.by_peewees_name,
        Run.by_hand,
        Run.alone,
        Run.again,
    ],
)
def test_an_interrupt_at_any_line_leaves_the_thread_usable(
    clone_db: Any, scenario: Callable[[Run], None]
) -> None:
    number = 0
    while True:
        number += 1
        run = Run()
        interrupter = Interrupter(number)
        with interrupter():
            scenario(run)
        if not interrupter.place:
            break
        where = interrupter.place
        assert not db.in_transaction(), where
        assert db.is_closed(), where
        rows = stored()
        assert rows in ([], ["a", "b"]), where
        if run.tx is not None:
            assert run.tx.outcome == "unknown" or (run.tx.outcome == "applied") == bool(rows), where
        db.execute_sql("DELETE FROM users")
        add("z")
        assert stored() == ["z"], where
        db.execute_sql("DELETE FROM users")
        assert db.pool_stats().in_use == 0, where
    assert number > 10
